//! `--cache-to` and `--cache-from`: a second machine builds nothing, and fetches what it reads.

use std::path::Path;

use crate::env::{TestEnv, require_sandbox};
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
            warnings.push(warning["short"].as_str().unwrap_or_default().to_owned());
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
