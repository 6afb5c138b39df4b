//! What happens to the store, or to the cache elsewhere, while a layer is fetched.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::env::{TestEnv, end, require_sandbox};
use crate::recorder::Recorder;
use crate::registry::{Registry, base};
use crate::remote_cache::build;

/// A registry with a cache, and the digest of its largest layer.
fn cache() -> (Registry, Recorder, String) {
    let registry = Registry::start();
    build(&project("wc -c"), &format!("--cache-to type=registry,ref={}", registry.name("cache:1")));
    let blobs = registry.storage().join("docker/registry/v2/blobs");
    let listed = end(Command::new("find").arg(blobs).args(["-name", "data", "-size", "+500k"])).stdout;
    let digest = listed.trim().strip_suffix("/data").and_then(|path| path.rsplit('/').next());
    let digest = digest.expect("one large layer").to_owned();
    let recorder = Recorder::before(&registry.address);
    (registry, recorder, digest)
}

/// A step makes a large file of which no two are the same, and another one says something of it.
fn project(what: &str) -> TestEnv {
    let env = TestEnv::new();
    let steps = format!("RUN head -c 600000 /dev/urandom > /big\nRUN {what} /big > /said\n");
    env.write("Dockerfile", format!("FROM {}\n{steps}", base()));
    env
}

/// Builds what needs the large file, and does something while that is on its way; gives how many steps ran, and warnings.
fn build_while(
    env: &TestEnv,
    recorder: &Recorder,
    digest: &str,
    happens: impl FnOnce() + Send,
) -> (usize, Vec<String>) {
    recorder.hold(Some(digest));
    let from = format!("--output=type=local,dest=../out --cache-from {}/cache:1", recorder.address);
    let built = std::thread::scope(|scope| {
        let building = scope.spawn(|| build(env, &from));
        recorder.wait_for(digest);
        happens();
        recorder.hold(None);
        building.join().expect("it succeeds")
    });
    is_consistent(env);
    (built.0.len(), built.2)
}

/// Whichever file it was, the other one speaks of it.
fn is_consistent(env: &TestEnv) {
    let said = std::fs::read_to_string(env.path("out/said")).expect("written");
    let sum = end(Command::new("sha256sum").arg(env.path("out/big"))).stdout;
    assert_eq!(said.split(' ').next(), sum.split(' ').next());
}

#[test]
fn a_store_that_is_pruned_while_a_layer_is_fetched_keeps_it() {
    if !require_sandbox("a_store_that_is_pruned_while_a_layer_is_fetched_keeps_it") {
        return;
    }
    let (_registry, recorder, digest) = cache();
    let env = project("sha256sum");
    let mut pruning = Vec::new();
    let (ran, warnings) = build_while(&env, &recorder, &digest, || {
        for line in ["prune -a -f", "cache prune -f --max-used-space 1"] {
            let mut command = env.command(line.split(' '));
            pruning.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts"));
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
    });
    assert_eq!((ran, warnings), (1, Vec::new()));
    for mut process in pruning {
        assert!(process.wait().expect("waited for").success());
    }
    assert!(env.ok("cache verify").stdout.contains("Nothing is damaged"));
    build(&env, "--output=type=local,dest=../out");
    is_consistent(&env);
}

#[test]
fn a_cache_that_is_emptied_while_a_layer_is_fetched_costs_a_run_of_the_step() {
    if !require_sandbox("a_cache_that_is_emptied_while_a_layer_is_fetched_costs_a_run_of_the_step") {
        return;
    }
    let (registry, recorder, digest) = cache();
    let env = project("sha256sum");
    let blobs: PathBuf = registry.storage().join("docker/registry/v2/blobs");
    let (ran, warnings) = build_while(&env, &recorder, &digest, || std::fs::remove_dir_all(blobs).expect("removed"));
    assert_eq!((ran, warnings.len()), (2, 1), "{warnings:?}");
    assert!(env.ok("cache verify").stdout.contains("Nothing is damaged"));
}
