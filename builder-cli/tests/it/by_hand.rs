//! `rbuild cache export` and `rbuild cache import`: what a store holds travels without a build.

use std::path::Path;

use crate::actions::Actions;
use crate::env::{TestEnv, require_sandbox};
use crate::moto::Moto;
use crate::recorder::{Recorder, answering};
use crate::registry::{Registry, base};
use crate::remote_cache::{build, project, project_on, publish_base};

const NOTHING: [&str; 0] = [];

/// Store A exports, store B imports, and builds nothing.
fn round_trip(test: &str, to: &str, from: &str) {
    if !require_sandbox(test) {
        return;
    }
    let first = project();
    let (_, id, _) = build(&first, "-t app:1");
    let sent = first.ok(&format!("cache export {to}")).stdout;
    assert!(sent.contains(": 5 results, 4 layers; ") && sent.contains(" blobs sent ("), "{sent}");
    let again = first.ok(&format!("cache export {to}")).stdout;
    assert!(again.contains(": 5 results, 4 layers; nothing to send, "), "{again}");

    let second = project();
    let brought = second.ok(&format!("cache import --layers {from}")).stdout;
    assert!(brought.contains(": 5 new results (0 here already), 4 new layers (0 here already)\n"), "{brought}");
    let (ran, same, warnings) = build(&second, "-t app:1");
    assert_eq!((ran, same.as_str(), warnings), (NOTHING.map(str::to_owned).to_vec(), id.as_str(), Vec::new()));
    let brought = second.ok(&format!("cache import --layers {from}")).stdout;
    assert!(brought.contains(": 0 new results (5 here already), 0 new layers (4 here already)\n"), "{brought}");
    // What was brought can be sent on, and is the same.
    let on = second.ok(&format!("cache export {to}")).stdout;
    assert!(on.contains(": 5 results, 4 layers; "), "{on}");
    assert!(second.ok("cache verify").stdout.contains("Nothing is damaged"));
}

// Rows: D25.
#[test]
fn a_store_travels_through_a_registry() {
    let registry = Registry::start();
    let name = registry.name("cache/hand:main");
    round_trip("a_store_travels_through_a_registry", &format!("type=registry,ref={name}"), &name);
}

#[test]
fn a_store_travels_through_a_directory() {
    let shared = tempfile::tempdir().expect("a temporary directory");
    let directory = shared.path().join("cache").display().to_string();
    let to = format!("type=local,dest={directory},compression=zstd");
    round_trip("a_store_travels_through_a_directory", &to, &format!("type=local,src={directory}"));
}

#[test]
fn a_store_travels_through_a_bucket_and_github_actions() {
    let test = "a_store_travels_through_a_bucket_and_github_actions";
    let server = Moto::start();
    let bucket = format!(
        "type=s3,bucket=bucket,endpoint_url=http://{},use_path_style=true,access_key_id=me,secret_access_key=secret,\
         region=us-east-1",
        server.address
    );
    round_trip(test, &bucket, &bucket);
    let service = Actions::start();
    let place = format!("type=gha,url_v2={}/,token=t0ken,scope=hand", service.url);
    round_trip(test, &place, &place);
}

#[test]
fn a_build_an_image_or_a_key_can_be_sent_alone() {
    let test = "a_build_an_image_or_a_key_can_be_sent_alone";
    if !require_sandbox(test) {
        return;
    }
    let env = project();
    build(&env, "-t app:1");
    env.write("other", format!("FROM {}\nRUN echo other > /other\n", base()));
    build(&env, "-f other");
    let results = |options: &str| {
        let sent = env.ok(&format!("cache export --json {options} type=local,dest=../cache")).stdout;
        let sent: serde_json::Value = serde_json::from_str(&sent).expect("JSON");
        (sent["results"].as_u64().expect("a number"), sent["layers"].as_u64().expect("a number"))
    };
    let min = |options: &str| {
        let sent = env.ok(&format!("cache export --json {options} type=local,dest=../cache,mode=min")).stdout;
        serde_json::from_str::<serde_json::Value>(&sent).expect("JSON")["layers"].as_u64().expect("a number")
    };
    assert_eq!(results(""), (6, 5));
    assert_eq!(min(""), 3, "those of images");
    assert_eq!(results("--build latest"), (1, 1));
    assert_eq!((results("--build ^1"), min("--build ^1")), ((5, 4), 2));
    assert_eq!((results("--image app:1"), min("--image app:1")), ((5, 4), 2));
    // Without the history an image still has its own layers.
    env.ok("history rm --all");
    assert_eq!(results("--image app:1"), (3, 2), "two steps made the same layer");
    let ids = env.ok("cache ls --filter description~=more --format {{.ID}}").stdout;
    let id = ids.lines().next().expect("a step");
    assert_eq!((results(&format!("--key {id}")), min(&format!("--key {}", &id[..12]))), ((1, 1), 1));
    let fails = |options: &str| env.fails(&format!("cache export {options} type=local,dest=../elsewhere"));
    let none = fails("--key 0000");
    assert!(none.starts_with("exit code: 1\nerror: there is no result with the key or id `0000`\nhint: "), "{none}");
    let none = fails("--image nothing:1");
    assert!(none.contains("no such image: `nothing:1`"), "{none}");
    let none = fails("--build latest");
    assert!(none.contains("no build is recorded"), "{none}");
    let both = fails("--build latest --image app:1");
    assert!(both.starts_with("exit code: 125\n"), "{both}");
    let wrong = env.fails("cache export type=inline");
    assert!(wrong.starts_with("exit code: 125\nerror: an inline cache is part of an image"), "{wrong}");
    let wrong = env.fails("cache export type=lokal,dest=x");
    assert!(wrong.contains("cache export `type=lokal,dest=x`: unknown cache type `lokal`"), "{wrong}");
    assert!(!env.path("elsewhere").exists());
}

#[test]
fn with_nothing_to_send_a_place_stays_as_it_is() {
    let env = TestEnv::new();
    env.write("kept", "mine");
    let sent = env.ok("cache export type=local,dest=.").stdout;
    assert!(sent.ends_with(": nothing to send, the store has no results; what is there stays\n"), "{sent}");
    let there: Vec<_> = std::fs::read_dir(env.context("")).expect("listed").collect();
    assert_eq!(there.len(), 1, "{there:?}");
    let missing = env.fails("cache export type=local,dest=.,mounts=words");
    assert!(missing.contains("there is no cache mount `words`"), "{missing}");
    let nothing = env.fails("cache import type=local,src=.");
    assert!(nothing.starts_with("exit code: 1\nerror: cannot read the cache of `[TMP]/context`"), "{nothing}");
    assert!(nothing.contains("there is no cache"), "{nothing}");
}

/// Records alone are enough where no file is read; the users of a base image come with them.
#[test]
fn without_layers_keys_are_known_and_nothing_is_fetched() {
    let test = "without_layers_keys_are_known_and_nothing_is_fetched";
    if !require_sandbox(test) {
        return;
    }
    let registry = Registry::start();
    let recorder = Recorder::before(&registry.address);
    let name = |name: &str| format!("{}/{name}", recorder.address);
    publish_base(&name("base:1"));
    let project = || project_on(&name("base:1"), "");
    let first = project();
    let (_, id, _) = build(&first, "");
    first.ok(&format!("cache export type=registry,ref={}", name("cache:1")));
    let second = project();
    let brought = second.ok(&format!("cache import {}", name("cache:1"))).stdout;
    assert!(brought.ends_with(": 2 new results (0 here already)\n"), "{brought}");
    recorder.take();
    let (ran, _, _) = build(&second, "--output=type=cacheonly");
    assert_eq!(ran, NOTHING);
    let requests = recorder.take();
    let layers = requests.iter().filter(|line| line.starts_with("GET /v2/base/blobs/"));
    assert_eq!(layers.count(), 1, "the config, and no layer: {requests:#?}");
    // With another place to fetch files from the image is the same; without one the steps run.
    let (ran, same, _) = build(&second, "-t app:1");
    assert_eq!((ran, same), (vec!["RUN cat /made/a > /b".to_owned()], id));
    // What was kept of the base goes with what it was kept for.
    assert!(second.path("state/cache/files").is_dir());
    second.ok("cache prune -a -f");
    assert!(!second.path("state/cache/files").exists());
}

#[test]
fn cache_mounts_go_by_hand_too() {
    let test = "cache_mounts_go_by_hand_too";
    if !require_sandbox(test) {
        return;
    }
    let first = TestEnv::new();
    let mount = "--mount=type=cache,id=words,target=/c";
    first.write("Dockerfile", format!("FROM {}\nRUN {mount} echo one >> /c/words\n", base()));
    build(&first, "");
    let shared = tempfile::tempdir().expect("a temporary directory");
    let directory = shared.path().join("cache").display().to_string();
    let sent = first.ok(&format!("cache export type=local,dest={directory},mounts=words")).stdout;
    assert!(sent.contains("1 cache mount; "), "{sent}");
    let second = TestEnv::new();
    let from = format!("type=local,src={directory}");
    let brought = second.ok(&format!("cache import --mounts all {from}")).stdout;
    assert!(brought.contains("1 new cache mount (0 here already)"), "{brought}");
    let brought = second.ok(&format!("cache import --mounts other;words {from}")).stdout;
    assert!(brought.contains("0 new cache mounts (1 here already)"), "{brought}");
    second.write("Dockerfile", format!("FROM {}\nRUN {mount} cp /c/words /seen\n", base()));
    build(&second, "--output=type=local,dest=../files");
    assert_eq!(std::fs::read_to_string(second.path("files/seen")).expect("written"), "one\n");
}

/// Each blob of a cache is damaged once: it is named, the rest is brought, and the build is right.
#[test]
fn what_is_damaged_is_named_and_left_out() {
    let test = "what_is_damaged_is_named_and_left_out";
    if !require_sandbox(test) {
        return;
    }
    let shared = tempfile::tempdir().expect("a temporary directory");
    let directory = shared.path().join("cache");
    let env = TestEnv::new();
    let dockerfile = format!("FROM {}\nRUN echo first > /first\nRUN cat /first > /second\n", base());
    env.write("Dockerfile", &dockerfile);
    let (_, id, _) = build(&env, "");
    env.ok(&format!("cache export type=local,dest={}", directory.display()));
    let blobs = directory.join("blobs/sha256");
    let all: Vec<_> = std::fs::read_dir(&blobs).expect("listed").map(|blob| blob.expect("listed").path()).collect();
    assert_eq!(all.len(), 6, "a manifest, an index, records, trees, two layers: {all:?}");
    let from = format!("type=local,src={}", directory.display());
    let (mut unreadable, mut damaged) = (0, 0);
    for (number, blob) in all.iter().enumerate() {
        let good = std::fs::read(blob).expect("readable");
        damage(blob, number, &good);
        let other = TestEnv::new();
        other.write("Dockerfile", &dockerfile);
        let ended = other.rbuild(&format!("cache import --layers {from}"));
        assert_eq!(ended.code, 1, "{ended:?}");
        if ended.stdout.is_empty() {
            assert!(ended.stderr.starts_with("error: cannot read the cache of `"), "{ended:?}");
            unreadable += 1;
        } else {
            assert!(ended.stderr.starts_with("warning: ") && ended.stderr.lines().count() == 1, "{ended:?}");
            damaged += 1;
        }
        // Times differ where a step runs again; what it makes does not.
        let (ran, again, _) = build(&other, "");
        assert!(ran.len() == 2 || again == id || blob_is_layer(&ended.stdout), "{ran:?} {ended:?}");
        std::fs::write(blob, good).expect("written");
    }
    assert_eq!((unreadable, damaged), (2, 4), "manifest and index; records, trees, layers");
}

fn blob_is_layer(summary: &str) -> bool {
    summary.contains(" 1 new layer ")
}

fn damage(blob: &Path, number: usize, good: &[u8]) {
    match number % 3 {
        0 => std::fs::write(blob, &good[..good.len() / 2]).expect("written"),
        1 => std::fs::write(blob, vec![b'x'; good.len()]).expect("written"),
        _ => std::fs::remove_file(blob).expect("removed"),
    }
}

#[test]
fn a_place_that_is_away_or_slow_is_one_error_in_time() {
    let check = |what: &str, address: &str| {
        let env = TestEnv::new();
        let begun = std::time::Instant::now();
        let failed = env.fails(&format!("cache import type=registry,ref={address}/cache:1,timeout=1s"));
        assert!(failed.starts_with("exit code: 1\nerror: cannot read the cache of `127.0.0.1:"), "{what}: {failed}");
        assert!(begun.elapsed().as_secs() < 30, "{what}: {:?}", begun.elapsed());
    };
    check("nobody there", "127.0.0.1:1");
    check("silence", &answering(None));
    check("nonsense", &answering(Some(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"schema")));
    if !require_sandbox("a_place_that_is_away_or_slow_is_one_error_in_time") {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nRUN echo a > /a\n", base()));
    build(&env, "");
    let begun = std::time::Instant::now();
    let silent = answering(None);
    let failed = env.fails(&format!("cache export type=registry,ref={silent}/cache:1,timeout=1s"));
    assert!(failed.starts_with("exit code: 1\nerror: cannot write the cache to `127.0.0.1:"), "{failed}");
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
}

/// A result that saw the value of a secret stays in its store.
#[test]
fn results_with_secrets_in_their_keys_stay() {
    let test = "results_with_secrets_in_their_keys_stay";
    if !require_sandbox(test) {
        return;
    }
    let env = TestEnv::new();
    env.write("token", "t0ken").write("Dockerfile", format!("FROM {}\nRUN --mount=type=secret,id=t true\n", base()));
    build(&env, "--secret id=t,src=token,cache=hash");
    let sent = env.ok("cache export type=local,dest=../cache").stdout;
    assert!(sent.contains("nothing to send"), "{sent}");
    assert!(!env.path("cache").exists());
}
