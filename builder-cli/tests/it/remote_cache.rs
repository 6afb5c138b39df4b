//! `--cache-to` and `--cache-from`: a second machine builds nothing, and fetches what it reads.

use std::path::Path;

use base64::Engine as _;

use crate::env::{TestEnv, require_sandbox};
use crate::recorder::{Recorder, answering};
use crate::registry::{Registry, base};

/// Builds with machine-readable progress; gives the names of the steps that ran, the id of the image, and warnings.
pub(crate) fn build(env: &TestEnv, options: &str) -> (Vec<String>, String, Vec<String>) {
    let ended = env.ok(&format!("build --progress=rawjson --iidfile ../id {options} ."));
    let (mut ran, mut warnings) = (Vec::new(), Vec::new());
    for line in ended.stderr.lines() {
        let status: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for vertex in status["vertexes"].as_array().into_iter().flatten() {
            let name = vertex["name"].as_str().expect("a name");
            let step = name.starts_with('[') && !name.starts_with("[internal]") && !name.contains("] FROM ");
            if step && vertex["completed"].is_string() && vertex["cached"] != true && vertex["error"].is_null() {
                ran.push(name.split("] ").nth(1).unwrap_or(name).to_owned());
            }
        }
        for warning in status["warnings"].as_array().into_iter().flatten() {
            let short = base64::engine::general_purpose::STANDARD.decode(warning["short"].as_str().unwrap_or_default());
            warnings.push(String::from_utf8(short.expect("base64")).expect("text"));
        }
    }
    (ran, std::fs::read_to_string(env.path("id")).expect("written"), warnings)
}

/// A project with two stages; the same files give the same steps on every machine.
fn project() -> TestEnv {
    let env = TestEnv::new();
    let dockerfile = format!(
        "FROM {} AS build\nCOPY src /src\nRUN cat /src/a > /all\nRUN cat /all > /app; echo built >> /app\n\
         FROM {}\nCOPY --from=build /app /app\nRUN echo more > /more\n",
        base(),
        base()
    );
    env.write("Dockerfile", dockerfile).write("src/a", "1\n");
    env
}

const NOTHING: [&str; 0] = [];

fn round_trip(test: &str, to: &str, from: &str) {
    if !require_sandbox(test) {
        return;
    }
    let first = project();
    let (ran, id, warnings) = build(&first, &format!("--output=type=image --cache-to {to}"));
    assert_eq!((ran.len(), warnings), (5, Vec::new()), "{ran:?}");
    let second = project();
    let options = format!("--output=type=oci,dest=../image.tar --cache-from {from}");
    let (ran, again, warnings) = build(&second, &options);
    assert_eq!((ran, warnings), (NOTHING.map(str::to_owned).to_vec(), Vec::new()));
    assert_eq!(again, id);
    // What was brought is there for the next build.
    assert_eq!(build(&second, "").0, NOTHING);
    // A change runs what sees it, on files that are fetched for it.
    let third = project();
    third.write("src/a", "2\n");
    let (ran, other, warnings) = build(&third, &format!("--cache-from {from} --cache-to {to}"));
    assert_eq!(ran.len(), 5, "{ran:?}");
    assert_eq!(warnings, NOTHING);
    assert_ne!(other, id);
    let fourth = project();
    fourth.write("src/a", "2\n");
    let (ran, again, _) = build(&fourth, &format!("--cache-from {from}"));
    assert_eq!((ran.as_slice(), again), (&NOTHING.map(str::to_owned)[..], other));
}

#[test]
fn a_cache_travels_through_a_registry() {
    let registry = Registry::start();
    let name = registry.name("cache/app:main");
    round_trip("a_cache_travels_through_a_registry", &format!("type=registry,ref={name}"), &name);
}

#[test]
fn a_cache_travels_through_a_directory() {
    let shared = tempfile::tempdir().expect("a temporary directory");
    let directory = shared.path().join("cache").display().to_string();
    let to = format!("type=local,dest={directory},mode=max,compression=zstd");
    round_trip("a_cache_travels_through_a_directory", &to, &format!("type=local,src={directory}"));
    let blobs = || std::fs::read_dir(Path::new(&directory).join("blobs/sha256")).expect("listed").count();
    let env = project();
    env.write("src/a", "2\n");
    build(&env, &format!("--cache-to {to}"));
    let before = blobs();
    for number in 0..3 {
        env.write("src/a", format!("{number}\n"));
        build(&env, &format!("--cache-to {to}"));
    }
    assert_eq!(blobs(), before, "what no index names is gone");
}

#[test]
fn a_push_of_an_unchanged_image_fetches_records_and_no_layer() {
    let test = "a_push_of_an_unchanged_image_fetches_records_and_no_layer";
    if !require_sandbox(test) {
        return;
    }
    let registry = Registry::start();
    let recorder = Recorder::before(&registry.address);
    let name = |name: &str| format!("{}/{name}", recorder.address);
    let publisher = TestEnv::new();
    publisher.write("Dockerfile", format!("FROM {}\nRUN mkdir /made\n", base()));
    publisher.ok(&format!("build -q --push -t {} .", name("base:1")));
    let project = || {
        let env = TestEnv::new();
        let dockerfile = format!("FROM {}\nCOPY --chown=app a /made/\nRUN cat /made/a > /b\n", name("base:1"));
        env.write("Dockerfile", dockerfile).write("a", "content");
        env
    };
    let options =
        format!("--push -t {} --cache-to {} --cache-from {}", name("app:1"), name("cache:1"), name("cache:1"));
    let first = build(&project(), &options);
    assert_eq!(first.2, NOTHING, "a cache that is not there yet is no reason to warn");
    recorder.take();
    let fresh = project();
    let second = build(&fresh, &options);
    assert_eq!((second.0.as_slice(), &second.1), (&NOTHING.map(str::to_owned)[..], &first.1));
    let requests = recorder.take();
    let fetched: Vec<&str> = requests.iter().filter_map(|line| line.strip_prefix("GET /v2/")).collect();
    let of = |part: &str| fetched.iter().filter(|path| path.contains(part)).count();
    assert_eq!(of("base/manifests/"), 1, "{requests:#?}");
    assert_eq!(of("base/blobs/"), 1, "the config, and no layer: {requests:#?}");
    assert_eq!(of("app/"), 0, "{requests:#?}");
    assert_eq!(of("cache/manifests/"), 2, "for reading and for writing: {requests:#?}");
    assert_eq!(of("cache/blobs/"), 3, "the index, records and trees: {requests:#?}");
    let sent = requests.iter().filter(|line| line.starts_with("POST") || line.contains("PUT /v2/cache/"));
    assert_eq!(sent.count(), 0, "{requests:#?}");
    // The third build knows everything: it pushes, and asks the cache whether anything is new.
    build(&fresh, &options);
    let requests = recorder.take();
    let of_cache: Vec<_> = requests.iter().filter(|line| line.contains("/cache/")).collect();
    assert_eq!(of_cache, ["GET /v2/cache/manifests/1"], "{requests:#?}");
    // Without outputs elsewhere it asks nobody.
    build(&fresh, &format!("--cache-from {}", name("cache:1")));
    assert_eq!(recorder.take(), NOTHING);
}

#[test]
fn a_cache_that_is_away_slow_or_wrong_costs_one_warning() {
    let test = "a_cache_that_is_away_slow_or_wrong_costs_one_warning";
    if !require_sandbox(test) {
        return;
    }
    let check = |what: &str, address: &str| {
        let env = TestEnv::new();
        env.write("Dockerfile", format!("FROM {}\nRUN echo a > /a\nRUN echo b > /b\n", base()));
        let source = format!("type=registry,ref={address}/cache:1,timeout=1s");
        let begun = std::time::Instant::now();
        let (ran, _, warnings) = build(&env, &format!("--cache-from {source}"));
        assert_eq!(ran.len(), 2, "{what}");
        assert_eq!(warnings.len(), 1, "{what}: {warnings:?}");
        assert!(warnings[0].contains("/cache:1` is not used any further: "), "{what}: {warnings:?}");
        assert!(begun.elapsed().as_secs() < 30, "{what}: {:?}", begun.elapsed());
    };
    check("nobody there", "127.0.0.1:1");
    check("silence", &answering(None));
    check("errors", &answering(Some(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")));
    check(
        "limits",
        &answering(Some(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n")),
    );
    check("nonsense", &answering(Some(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"schema")));
    check("refusal", &answering(Some(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")));
    // Writing fails the build only if that was asked for.
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nLABEL a=b\n");
    let (_, _, warnings) = build(&env, "--cache-to 127.0.0.1:1/cache:1");
    assert!(warnings[0].starts_with("the cache was not written to `127.0.0.1:1/cache:1`: "), "{warnings:?}");
    let failed = env.fails("build --progress=quiet --cache-to type=registry,ref=127.0.0.1:1/cache:1,strict .");
    assert!(failed.contains("cannot write the cache to `127.0.0.1:[PORT]/cache:1`"), "{failed}");
}

/// Damages a cache in a directory; a build that reads it has to give the right image all the same.
#[test]
fn a_damaged_cache_is_noticed_and_the_steps_run() {
    let test = "a_damaged_cache_is_noticed_and_the_steps_run";
    if !require_sandbox(test) {
        return;
    }
    let shared = tempfile::tempdir().expect("a temporary directory");
    let directory = shared.path().join("cache");
    let (_, id, _) = build(&project(), &format!("--cache-to type=local,dest={}", directory.display()));
    let copy = |number: usize| {
        let to = shared.path().join(format!("copy-{number}"));
        let copied = std::process::Command::new("cp").arg("-r").arg(&directory).arg(&to).status();
        assert!(copied.expect("cp").success());
        to
    };
    let blobs: Vec<_> = std::fs::read_dir(directory.join("blobs/sha256"))
        .expect("listed")
        .map(|blob| blob.expect("listed").file_name())
        .collect();
    assert!(blobs.len() >= 8, "a manifest, an index, records, trees, layers: {blobs:?}");
    for (number, blob) in blobs.iter().enumerate() {
        let directory = copy(number);
        let path = directory.join("blobs/sha256").join(blob);
        let good = std::fs::read(&path).expect("readable");
        match number % 3 {
            0 => std::fs::write(&path, &good[..good.len() / 2]).expect("written"),
            1 => std::fs::write(&path, vec![b'x'; good.len()]).expect("written"),
            _ => std::fs::remove_file(&path).expect("removed"),
        }
        let options =
            format!("--output=type=oci,dest=../image.tar --cache-from type=local,src={}", directory.display());
        let (_, again, warnings) = build(&project(), &options);
        assert!(again.starts_with("sha256:") && !id.is_empty());
        assert!(warnings.len() <= 2, "{warnings:?}");
    }
}
