//! `cache probe`: which steps are known here and elsewhere, and what of the others has no match.

use serde_json::{Value, json};

use crate::env::{Ended, TestEnv, require_sandbox};
use crate::recorder::Recorder;
use crate::registry::{Registry, base};
use crate::remote_cache::build;

/// A base image for two platforms, with the same files.
fn publish_base(name: &str) {
    let publisher = TestEnv::new();
    let dockerfile = format!("FROM --platform=linux/amd64 {} AS b\nFROM scratch\nCOPY --from=b / /\n", base());
    publisher.write("Dockerfile", dockerfile);
    publisher.ok(&format!("build -q --platform linux/amd64,linux/386 -o type=registry,name={name} ."));
}

/// The same project on each machine.
fn machine(base: &str) -> TestEnv {
    let env = TestEnv::new();
    let dockerfile = format!(
        "FROM {base} AS build\nCOPY src /src\nARG MODE=fast\nRUN cat /src/a > /all\nRUN cat /all > /app\n\
         FROM scratch\nCOPY --from=build /app /result\n"
    );
    env.write("Dockerfile", dockerfile).write("src/a", "1\n");
    env
}

/// What every place says of every step: `h` for a hit, `n` for one without files, `m`, `?`, `-`.
fn answers(probed: &Value) -> Vec<String> {
    let letter = |answer: &Value| match answer["answer"].as_str().expect("text") {
        "hit" if answer["files"] == true => "h",
        "hit" => "n",
        "miss" => "m",
        "unknown" => "?",
        "unavailable" => "-",
        other => panic!("{other}"),
    };
    let steps = probed["steps"].as_array().expect("steps").iter();
    steps.map(|step| step["answers"].as_array().expect("answers").iter().map(letter).collect()).collect()
}

fn probe(env: &TestEnv, options: &str, code: i32) -> Value {
    let Ended { code: found, stdout, stderr } = env.rbuild(&format!("cache probe --json {options} ."));
    assert_eq!(found, code, "{options}\n{stdout}{stderr}");
    let document: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    assert_eq!(document["version"], 1);
    document
}

#[test]
fn two_machines_are_told_what_each_of_them_and_each_cache_has() {
    if !require_sandbox("two_machines_are_told_what_each_of_them_and_each_cache_has") {
        return;
    }
    let registry = Registry::start();
    let recorder = Recorder::before(&registry.address);
    let image = format!("{}/base:1", recorder.address);
    publish_base(&image);
    let (first, second) = (machine(&image), machine(&image));
    let shared = first.path("shared").display().to_string();
    let cache = format!("{}/cache:1", recorder.address);
    let from = format!("--cache-from type=registry,ref={cache} --cache-from type=local,src={shared}");
    build(&first, &format!("--platform linux/amd64 --cache-to type=registry,ref={cache}"));

    recorder.take();
    let platform = "--platform linux/amd64";
    let found = probe(&second, &format!("{platform} {from}"), 0);
    assert_eq!(answers(&found), ["-h-"; 4]);
    assert_eq!((&found["hits"], &found["misses"]), (&json!(4), &json!(0)));
    let conditions: Vec<_> = found["places"].as_array().expect("places").iter().map(|p| &p["condition"]).collect();
    assert_eq!(conditions, ["empty", "found", "empty"]);
    assert_eq!(found["places"][1]["records"], 4);
    // Records only: no layer is fetched, and nothing but what the base image is is kept.
    let requests = recorder.take();
    let of = |part: &str| requests.iter().filter(|line| line.starts_with("GET /v2/") && line.contains(part)).count();
    assert_eq!(of("cache/blobs/"), 3, "the index, records and trees: {requests:#?}");
    assert_eq!(of("base/blobs/"), 1, "the config, and no layer: {requests:#?}");
    let empty = |area: &str| std::fs::read_dir(second.path("state").join(area)).map_or(0, Iterator::count) == 0;
    assert!(["cache/records", "cache/results", "trees", "snapshots", "history/builds"].into_iter().all(empty));

    // Another platform: what is copied is the same, what runs is not.
    let other = probe(&second, &format!("--platform linux/386 {from}"), 1);
    assert_eq!(answers(&other), ["-h-", "-m-", "-?-", "-?-"]);
    let reasons = &other["steps"][1]["answers"][1]["reasons"];
    assert_eq!(
        reasons,
        &json!([{ "reason": "input", "name": "platform", "before": "linux/amd64", "after": "linux/386" }])
    );
    assert_eq!(other["steps"][2]["answers"][1]["reasons"], json!([{ "reason": "input-unknown", "steps": [3] }]));

    // Other files, another argument; a directory that has less; a registry that is away.
    build(&first, &format!("{platform} --output=type=cacheonly --cache-to type=local,dest={shared},mode=min"));
    assert_eq!(answers(&probe(&second, &format!("{platform} {from}"), 0)), ["-hh", "-hn", "-hn", "-hh"]);
    second.write("src/a", "2\n");
    let changed = probe(&second, &format!("{platform} {from} --cache-from 127.0.0.1:1/away:1"), 1);
    assert_eq!(answers(&changed), ["-mm-", "-mm-", "-??-", "-??-"]);
    let copied = &changed["steps"][0]["answers"][2]["reasons"][0];
    assert_eq!((&copied["reason"], &copied["input"], &copied["count"]), (&json!("files"), &json!("copied"), &json!(1)));
    assert_eq!(copied["changes"][0], json!({ "path": "/src/a", "change": "changed", "details": ["content"] }));
    let parent = &changed["steps"][1]["answers"][1]["reasons"];
    assert_eq!((&parent[0]["reason"], &parent[0]["step"]), (&json!("parent"), &json!(2)), "{parent}");
    second.write("src/a", "1\n");
    let text = second
        .rbuild(&format!("cache probe {platform} {from} --build-arg MODE=slow --cache-from 127.0.0.1:1/away:1 ."));
    let rows = [
        "   LOCAL   FROM 1   FROM 2   FROM 3\n",
        "3 [build 3/4] RUN cat /src/a > /all              -       miss     miss     -\n",
        "FROM 1: 127.0.0.1:",
        "cache:1: 4 results\n",
        "FROM 3: 127.0.0.1:1/away:1: cannot be used: ",
        "    FROM 1: env MODE: fast there, slow here\n    FROM 2: env MODE: fast there, slow here\n",
        "    its key is known when step 3 has run\n",
        "\n1 of 4 steps are known\n",
    ];
    for row in rows {
        assert!(text.stdout.contains(row), "{row}\n{}", text.stdout);
    }

    // What this machine has itself.
    build(&second, &format!("{platform} --build-arg MODE=slow --output=type=cacheonly"));
    let own = probe(&second, &format!("{platform} {from} --build-arg MODE=slow"), 0);
    assert_eq!(answers(&own), ["hhh", "hmm", "hmm", "hhh"], "the slow way gave the same");
    let back = probe(&second, platform, 1);
    assert_eq!(answers(&back)[1..2], ["m"]);
    let reason = &back["steps"][1]["answers"][0]["reasons"][0];
    assert_eq!((&reason["name"], &reason["before"]), (&json!("env MODE"), &json!("slow")));
    assert_eq!(answers(&probe(&second, &format!("{platform} {from} --no-cache"), 1))[0], "mmm");
}

#[test]
fn a_probe_is_no_build() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY file /\n").write("file", "x");
    let text = env.rbuild("cache probe .");
    assert_eq!(text.code, 1);
    assert!(text.stdout.starts_with("STEP") && text.stdout.ends_with("\n0 of 1 steps are known\n"), "{}", text.stdout);
    env.ok("build -q -t app .");
    assert!(env.ok("cache probe -t app --format json .").stdout.contains("\"hits\": 1"));
    for wrong in ["--dry-run", "--check", "--call outline", "--format sarif"] {
        assert!(env.fails(&format!("cache probe {wrong} .")).starts_with("exit code: 125"), "{wrong}");
    }
    env.write("Dockerfile", "FROM nowhere.invalid/none:1\nRUN x\n");
    assert!(env.fails("cache probe .").contains("nowhere.invalid/none:1"));
    env.write("Dockerfile", "RNU x\n");
    assert!(env.fails("cache probe .").contains("unknown instruction"));
}
