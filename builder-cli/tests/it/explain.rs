//! Why a step ran, what would run, and whether the cache tells the truth.

use serde_json::Value;

use crate::cache::build;
use crate::env::{TestEnv, end, require_sandbox};
use crate::registry::base;

/// The reasons of each step but base images, as JSON, of the last build.
fn reasons(env: &TestEnv) -> Vec<Vec<Value>> {
    let text = env.ok("explain --json").stdout;
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["version"], 1);
    let steps = document["steps"].as_array().expect("steps").iter();
    steps.map(|step| step["reasons"].as_array().expect("reasons").clone()).collect()
}

fn names(reasons: &[Vec<Value>]) -> Vec<&str> {
    reasons.iter().map(|step| step[0]["reason"].as_str().expect("text")).collect()
}

fn example() -> TestEnv {
    let env = TestEnv::new();
    let dockerfile = format!(
        "FROM {} AS build\nCOPY src /src\nARG MODE=fast\nRUN cat /src/* > /all\nRUN --mount=type=bind,source=data,target=/data cat /data/x > /x\nFROM scratch\nCOPY --from=build /all /all\n",
        base()
    );
    env.write("Dockerfile", dockerfile).write("src/a", "1\n").write("src/b", "2\n").write("data/x", "x");
    env.write(".dockerignore", "id\nDockerfile\n");
    env
}

// Rows: P12.
#[test]
fn the_input_that_made_a_step_run_is_named() {
    if !require_sandbox("the_input_that_made_a_step_run_is_named") {
        return;
    }
    let env = example();
    build(&env, "");
    assert_eq!(names(&reasons(&env)), ["never-built"; 4]);
    build(&env, "");
    assert_eq!(names(&reasons(&env)), ["hit"; 4]);
    assert!(env.ok("explain").stdout.contains("4 of 4 steps hit"));

    // A file of a COPY, and what follows from it.
    env.write("src/a", "one\n").write("src/new", "3\n");
    build(&env, "");
    let found = reasons(&env);
    assert_eq!(names(&found), ["files", "parent", "parent", "files"]);
    let paths: Vec<_> =
        found[0][0]["changes"].as_array().expect("changes").iter().map(|change| &change["path"]).collect();
    assert_eq!(paths, ["/src/a", "/src/new"]);
    assert_eq!((&found[1][0]["step"], &found[1][0]["change"]), (&Value::from(2), &Value::from("result")));
    assert_eq!(found[2].len(), 2, "both the copy and the command before it: {:?}", found[2]);
    let text = env.ok("explain").stdout;
    assert!(text.contains("/src/a (content)") && text.contains("/src/new (new)"), "{text}");
    assert!(text.contains("step 2 has another result: [build 2/4] COPY src /src"), "{text}");

    // A file of a bind mount.
    env.write("data/x", "other");
    build(&env, "");
    let found = reasons(&env);
    assert_eq!(names(&found), ["hit", "hit", "files", "hit"]);
    assert_eq!((&found[2][0]["input"], &found[2][0]["changes"][0]["path"]), (&"mount /data".into(), &"/x".into()));

    // An argument; proxies and secrets say nothing.
    build(&env, "--build-arg MODE=slow --build-arg HTTP_PROXY=http://hidden-proxy");
    let found = reasons(&env);
    assert_eq!(names(&found), ["hit", "input", "input", "hit"]);
    assert_eq!(
        found[1][0],
        serde_json::json!({ "reason": "input", "name": "env MODE", "before": "fast", "after": "slow" })
    );
    assert!(!env.ok("explain ^0 --json").stdout.contains("hidden-proxy"));
    assert!(env.ok("explain latest 3").stdout.contains("env MODE changed: fast → slow"));

    // An earlier build is explained as it was then.
    assert!(env.ok("explain ^2").stdout.contains("/src/a (content)"));
    build(&env, "--build-arg MODE=slow --no-cache-filter build");
    assert_eq!(names(&reasons(&env)), ["no-cache", "no-cache", "no-cache", "hit"]);
}

#[test]
fn commands_bases_and_lost_records_are_named() {
    if !require_sandbox("commands_bases_and_lost_records_are_named") {
        return;
    }
    let env = TestEnv::new();
    let base_of = |text: &str| {
        env.write("base", format!("FROM {}\nRUN echo {text} > /version\n", base()));
        env.ok("build -q -f base -t base:1 .");
    };
    base_of("one");
    env.write("Dockerfile", "FROM base:1\nRUN cat /version > /out\nRUN echo a > /a\n");
    build(&env, "");
    env.write("Dockerfile", "FROM base:1\nRUN cat /version > /out\nRUN echo b > /a\n");
    build(&env, "");
    let found = reasons(&env);
    assert_eq!(names(&found), ["hit", "input"]);
    assert_eq!(found[1][0]["name"], "command");
    assert!(found[1][0]["before"].as_str().expect("text").ends_with("echo a > /a"), "{:?}", found[1]);

    base_of("two");
    build(&env, "");
    let found = reasons(&env);
    assert_eq!(names(&found), ["base", "base"]);
    assert_ne!(found[0][0]["before"], found[0][0]["after"]);

    std::fs::remove_dir_all(env.path("state/cache/records")).expect("removed");
    build(&env, "");
    assert_eq!(names(&reasons(&env)), ["pruned", "pruned"]);
    for entry in walk(&env.path("state/cache/records")) {
        std::fs::write(entry, "damaged").expect("written");
    }
    build(&env, "");
    assert_eq!(names(&reasons(&env)), ["damaged", "damaged"]);

    // Without history the record of the same command that is nearest is compared with.
    env.ok("history rm --all");
    env.write("Dockerfile", "FROM base:1\nENV X=1\nRUN cat /version > /out\n");
    build(&env, "");
    let found = reasons(&env);
    assert_eq!((&found[0][0]["name"], found[0].len()), (&Value::from("env X"), 1), "{found:?}");
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let shards = std::fs::read_dir(directory).expect("readable").map(|shard| shard.expect("readable").path());
    shards
        .flat_map(|shard| std::fs::read_dir(shard).expect("readable"))
        .map(|file| file.expect("readable").path())
        .collect()
}

#[test]
fn a_dry_run_says_what_would_run_and_does_nothing() {
    if !require_sandbox("a_dry_run_says_what_would_run_and_does_nothing") {
        return;
    }
    let env = example();
    let text = env.ok("build --dry-run .").stdout;
    assert!(text.contains("0 hit, 0 would run, 4 may run"), "a store that has never seen anything: {text}");
    assert!(text.contains(&format!("image `{}` has to be fetched first", base())), "{text}");
    let asked = env.ok("build --dry-run --cache-from type=local,src=nowhere .");
    assert!(asked.stderr.contains("note: a dry run asks no cache elsewhere; `rbuild cache probe` does"), "{asked:?}");
    env.write("slow", "");
    let slow = "RUN sleep 1; touch /slow\n";
    env.write("Dockerfile", format!("FROM {} AS build\nCOPY src /src\n{slow}RUN cat /slow /src/* > /all\nFROM scratch\nCOPY --from=build /all /\n", base()));
    build(&env, "");
    let before = tree_of(&env);
    let forecast = |line: &str| -> Value { serde_json::from_str(&env.ok(line).stdout).expect("JSON") };
    let predictions = |forecast: &Value| -> Vec<String> {
        let steps = forecast["steps"].as_array().expect("steps").iter();
        steps.map(|step| step["prediction"].as_str().expect("text").to_owned()).collect()
    };
    let all = forecast("build --dry-run --format json .");
    assert_eq!(predictions(&all), ["hit"; 4]);
    assert_eq!((&all["at_least"], &all["at_most"]), (&0.into(), &0.into()));
    env.write("src/a", "changed\n");
    let some = forecast("build --dry-run --format json .");
    assert_eq!(predictions(&some), ["run", "run", "unknown", "unknown"]);
    let least = some["at_least"].as_u64().expect("a number");
    assert!((1000..20_000).contains(&least), "{some}");
    assert_eq!(some["steps"][0]["reasons"][0]["changes"][0]["path"], "/src/a");
    assert_eq!(some["steps"][2]["reasons"][0]["steps"][0], 3);
    let text = env.ok("build --dry-run .").stdout;
    assert!(text.contains("\n0 hit, 2 would run, 2 may run: "), "{text}");
    assert_eq!(tree_of(&env), before, "nothing was written");
    assert!(env.fails("build --dry-run --check .").contains("exclude each other"));
}

#[test]
fn what_only_failed_before_is_compared_with_that() {
    if !require_sandbox("what_only_failed_before_is_compared_with_that") {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nARG A=1\nRUN test $A = 2\n", base()));
    env.fails("build -q .");
    env.ok("build -q --build-arg A=2 .");
    let text = env.ok("explain").stdout;
    assert!(text.contains("was tried in an earlier build and gave no result\n    env A changed: 1 → 2\n"), "{text}");
}

#[test]
fn of_two_steps_with_one_key_a_dry_run_sees_one_run() {
    if !require_sandbox("of_two_steps_with_one_key_a_dry_run_sees_one_run") {
        return;
    }
    let env = TestEnv::new();
    let dockerfile = |word: &str| {
        let stage = format!("RUN sleep 0.1; echo {word} > /x\n");
        let base = base();
        env.write("Dockerfile", format!("FROM {base} AS one\n{stage}FROM {base} AS two\n{stage}FROM scratch\nCOPY --from=one /x /1\nCOPY --from=two /x /2\n"));
    };
    let predictions = |options: &str| -> Vec<String> {
        let text = env.ok(&format!("build --dry-run --format json {options} .")).stdout;
        let json: Value = serde_json::from_str(&text).expect("JSON");
        json["steps"]
            .as_array()
            .expect("steps")
            .iter()
            .map(|step| step["prediction"].as_str().expect("text").to_owned())
            .collect()
    };
    dockerfile("a");
    build(&env, "");
    dockerfile("b");
    assert_eq!(predictions("")[..2], ["run", "shared"]);
    assert_eq!(predictions("--no-cache")[..2], ["run", "run"], "both are asked for");
    let text = env.ok("build --dry-run .").stdout;
    assert!(text.contains("would get the result of another step\n    step 2 is the same: [one 2/2] RUN"), "{text}");
    assert!(text.contains("0 hit, 1 would run, 2 may run, 1 the same as another"), "{text}");
    build(&env, "");
    let text = env.ok("explain --json").stdout;
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let mut verdicts: Vec<_> = json["steps"].as_array().expect("steps")[..2]
        .iter()
        .map(|step| step["verdict"].as_str().expect("text"))
        .collect();
    verdicts.sort_unstable();
    assert_eq!(verdicts, ["hit", "run"]);
}

/// What [`reasons`] has of a step, in short: `input env A`, `files copied`, `base`.
fn short(reasons: &[Value]) -> Vec<String> {
    let text = |reason: &Value, field: &str| reason[field].as_str().map(str::to_owned);
    let short = |reason: &Value| {
        let field = if reason["reason"] == "input" { "name" } else { "input" };
        let parts = ["reason", field].into_iter().filter_map(|field| text(reason, field));
        parts.collect::<Vec<_>>().join(" ")
    };
    reasons.iter().map(short).collect()
}

#[test]
fn the_reason_is_the_one_that_a_person_would_give() {
    if !require_sandbox("the_reason_is_the_one_that_a_person_would_give") {
        return;
    }
    let env = TestEnv::new();
    let base_with = |value: &str| {
        env.write("base", format!("FROM {}\nENV FROM_BASE={value}\n", base()));
        env.ok("build -q -f base -t base:1 .");
    };
    base_with("one");
    env.write("src/a", "a").write("src/b", "b").write("data/x", "x").write("tok", "1");
    let example = [
        "FROM base:1",
        "WORKDIR /w",
        "COPY src/ ./",
        "RUN --mount=type=bind,source=data,target=/data cat /data/x > /x",
        "RUN <<EOF\necho one\ncat /w/a > /a\nEOF",
        "",
    ];
    let dockerfile = example.join("\n");
    let secret = format!("--secret id=tok,src={},cache=hash", env.path("context/tok").display());
    // What explains each step that is no hit, after the Dockerfile became another.
    let check = |dockerfile: &str, options: &str, expected: &[(usize, &[&str])]| {
        env.write("Dockerfile", dockerfile);
        build(&env, options);
        let found: Vec<_> = reasons(&env).iter().map(|step| short(step)).enumerate().collect();
        let found: Vec<_> = found.into_iter().filter(|(_, reasons)| reasons[..] != ["hit"]).collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(step, reasons)| (*step, reasons.iter().map(|reason| (*reason).to_owned()).collect::<Vec<_>>()))
            .collect();
        assert_eq!(found, expected, "{options} {dockerfile}");
    };
    env.write("Dockerfile", &dockerfile);
    build(&env, "");
    check(&dockerfile, "", &[]);
    check(&dockerfile, "--network none", &[(2, &["input network"]), (3, &["input network"])]);
    assert!(env.ok("explain").stdout.contains("network changed: default → none"));
    // The config of a base image alone.
    base_with("two");
    check(&dockerfile, "", &[(2, &["input env FROM_BASE", "base"]), (3, &["input env FROM_BASE", "base"])]);
    // How a copy is written, and what became of its files.
    let owned = dockerfile.replace("COPY src/", "COPY --chmod=600 src/");
    check(&owned, "", &[(1, &["instruction", "files copied"]), (2, &["parent"]), (3, &["parent"])]);
    check(&dockerfile, "", &[]);
    // The ignore file, where it has a part in it.
    env.write(".dockerignore", "src/b\n");
    check(&dockerfile, "", &[(1, &["ignore-file", "files copied"]), (2, &["parent"]), (3, &["parent"])]);
    assert!(env.ok("explain").stdout.contains("`.dockerignore` changed"));
    env.write(".dockerignore", "src/b\nnothing\n").write("src/a", "A");
    check(&dockerfile, "", &[(1, &["files copied"]), (2, &["parent"]), (3, &["parent"])]);
    // Options of a mount, without the digest of what it shows.
    let writable = dockerfile.replace("target=/data ", "target=/data,rw ");
    check(&writable, "", &[(2, &["input mount /data"])]);
    assert!(env.ok("explain").stdout.contains("mount /data changed: writable=false → writable=true\n"));
    // One line of a script.
    check(&dockerfile.replace("echo one", "echo two"), "", &[(3, &["input command"])]);
    assert!(env.ok("explain").stdout.contains("command changed:\n      - echo one\n      + echo two\n"));
    // A step that is gone and the one after it changed: each is compared with what it was.
    let moved = dockerfile.replace("WORKDIR /w\n", "").replace("cat /data/x", "cp /data/x");
    let moved = moved.replace("src/ ./", "src/ /w/").replace("> /x", "/x");
    check(&moved, "", &[(1, &["input command", "input workdir", "parent"]), (2, &["input workdir", "parent"])]);
    // A secret that counts.
    let dockerfile = dockerfile.replace("RUN <<EOF", "RUN --mount=type=secret,id=tok <<EOF");
    env.write("Dockerfile", &dockerfile);
    build(&env, &secret);
    env.write("tok", "2");
    check(&dockerfile, &secret, &[(3, &["input secret tok"])]);
    assert!(!env.ok("explain --json").stdout.contains("fingerprint"));
}

#[test]
fn a_dry_run_knows_what_no_cache_makes_run_and_leaves_what_is_damaged() {
    if !require_sandbox("a_dry_run_knows_what_no_cache_makes_run_and_leaves_what_is_damaged") {
        return;
    }
    let env = example();
    build(&env, "");
    let text = env.ok("build --dry-run --no-cache-filter build .").stdout;
    assert!(text.contains("\n0 hit, 3 would run, 1 may run: "), "{text}");
    for entry in walk(&env.path("state/cache/records")) {
        std::fs::write(entry, "damaged").expect("written");
    }
    let text = env.ok("build --dry-run .").stdout;
    assert!(text.contains("the record of its result was damaged"), "{text}");
    build(&env, "");
    assert_eq!(names(&reasons(&env)), ["damaged"; 4]);
    // Of a build that ended before its steps were known there is at least the error.
    env.write("Dockerfile", "FROM scratch\nRUN --mount=type=odd x\n");
    env.fails("build -q .");
    let text = env.ok("explain").stdout;
    assert!(text.contains(", error): ") && text.contains("odd"), "{text}");
}

/// Every file of the store with its size, but for times of use.
fn tree_of(env: &TestEnv) -> Vec<String> {
    let listed = end(std::process::Command::new("find").arg(env.path("state")).args(["-printf", "%p %s\n"]));
    let mut lines: Vec<_> =
        listed.stdout.lines().filter(|line| !line.contains("db.sqlite")).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn verifying_tells_steps_that_are_not_deterministic_from_wrong_hits() {
    if !require_sandbox("verifying_tells_steps_that_are_not_deterministic_from_wrong_hits") {
        return;
    }
    let env = TestEnv::new();
    let dockerfile = format!(
        "FROM {}\nCOPY Dockerfile /copied\nRUN echo always > /same\nRUN cat /proc/sys/kernel/random/uuid > /uuid\nRUN --mount=type=secret,id=s cp /run/secrets/s /secret\n",
        base()
    );
    env.write("Dockerfile", dockerfile);
    std::fs::write(env.path("home/s"), "one").expect("written");
    let secret = format!("--secret id=s,src={}", env.path("home/s").display());
    env.ok(&format!("build -q {secret} -t app ."));
    std::fs::write(env.path("home/s"), "two").expect("written");
    let verified = env.ok(&format!("build --progress=plain --verify-cache=100% {secret} -t app ."));
    assert!(
        verified.stderr.contains("RUN cat /proc/sys/kernel/random/uuid > /uuid is not deterministic"),
        "{}",
        verified.stderr
    );
    assert!(verified.stderr.contains("is not what the step gives now: /secret"), "{}", verified.stderr);
    let found: Value = serde_json::from_str(&env.ok("history inspect --format json").stdout).expect("JSON");
    let found = found["Verified"].as_array().expect("a list");
    let outcomes: Vec<_> = found.iter().map(|found| found["outcome"].as_str().expect("text")).collect();
    assert_eq!(outcomes, ["equal", "equal", "not-deterministic", "wrong-hit"]);
    assert_eq!(found[2]["changes"][0]["path"], "/uuid");
    assert_eq!(found[2]["changes"][0]["details"][0], "content");
    assert!(verified.stderr.contains("verifying 4 of 4 known results"), "{}", verified.stderr);
    // A small share is one step at least, and none of no hits is none.
    for (options, said) in [("1", "verifying 1 of 4"), ("0", "verifying 0 of 4"), ("9% --no-cache", "verifying 0 of 0")]
    {
        let shown = env.ok(&format!("build --progress=plain --verify-cache={options} {secret} .")).stderr;
        assert!(shown.contains(&format!("{said} known results")), "{options}: {shown}");
    }
    env.ok(&format!("build -q {secret} -t app ."));
    std::fs::write(env.path("home/s"), "three").expect("written");
    let id = env.ok(&format!("build -q {secret} -t app .")).stdout;
    let strict = env.fails(&format!("build -q --verify-cache=100%,strict {secret} -t app ."));
    assert!(strict.contains("2 results of the cache were not confirmed"), "{strict}");
    assert_eq!(env.ok(&format!("build -q {secret} -t app .")).stdout, id, "the image has what the cache says");
    env.ok(&format!("build -q --verify-cache=0 {secret} ."));
    assert!(env.fails("build -q --verify-cache=101% .").contains("not a share"));
}

// Rows: P12, P13.
#[test]
fn on_a_fresh_store_steps_are_compared_with_the_caches_that_were_asked() {
    if !require_sandbox("on_a_fresh_store_steps_are_compared_with_the_caches_that_were_asked") {
        return;
    }
    let env = TestEnv::new();
    let dockerfile = |value: &str, last: &str| {
        let copied = "COPY src /src\nRUN cat /src/*; echo a > /a\n";
        env.write("Dockerfile", format!("FROM {}\nENV X={value}\n{copied}RUN {last}\n", base()));
    };
    env.write("src/one", "1").write("src/two", "2");
    dockerfile("1", "echo b > /b");
    env.ok("build -q --cache-to type=local,dest=../cache -o type=cacheonly .");
    let fresh = |options: &str| -> (Vec<Value>, String) {
        let _ = std::fs::remove_dir_all(env.path("fresh"));
        let run = |line: &str| {
            let mut command = env.command(line.split_whitespace());
            let ended = end(command.env("RBUILD_ROOT", env.path("fresh")));
            assert_eq!(ended.code, 0, "{line}: {}", ended.stderr);
            ended.stdout
        };
        run(&format!("build -q --cache-from type=local,src=../cache {options} -o type=cacheonly ."));
        let json: Value = serde_json::from_str(&run("explain --json")).expect("JSON");
        let text = run("explain");
        // What explains is not swept away.
        run("prune -f");
        assert_eq!(run("explain"), text);
        (json["steps"].as_array().expect("steps").clone(), text)
    };
    env.write("src/two", "changed");
    dockerfile("2", "echo new > /new");
    let cache = format!("`{}`", env.context("../cache").display());
    // What is there is replaced by this very build.
    let (steps, text) = fresh("--cache-to type=local,dest=../cache");
    assert_eq!(short(steps[0]["reasons"].as_array().expect("a list")), ["files copied"]);
    assert_eq!(steps[0]["reasons"][0]["changes"][0]["path"], "/src/two");
    let second = short(steps[1]["reasons"].as_array().expect("a list"));
    assert_eq!(second, ["input env X", "parent"], "{text}");
    assert_eq!((&steps[1]["reasons"][1]["step"], &steps[1]["reasons"][0]["before"]), (&2.into(), &"1".into()));
    assert_eq!(steps[1]["compared_with"]["place"], env.context("../cache").to_str().expect("text"));
    assert!(text.contains(&format!("compared with what is nearest in {cache}, ")), "{text}");
    assert_eq!(steps[2]["reasons"][0]["places"][0]["results"], 3, "{text}");
    assert!(
        text.contains(&format!("no cache elsewhere had it\n      {cache} has 3 results, none like it\n")),
        "{text}"
    );

    // It hits now, and with a cache that is only written nobody was asked.
    assert_eq!(
        names(&fresh("").0.iter().map(|step| step["reasons"].as_array().expect("a list").clone()).collect::<Vec<_>>()),
        ["hit"; 3]
    );
    let _ = std::fs::remove_dir_all(env.path("fresh"));
    let mut command = env.command("build -q --cache-to type=local,dest=../other -o type=cacheonly .".split(' '));
    assert_eq!(end(command.env("RBUILD_ROOT", env.path("fresh"))).code, 0);
    let mut command = env.command(["explain", "--json"]);
    let json: Value = serde_json::from_str(&end(command.env("RBUILD_ROOT", env.path("fresh"))).stdout).expect("JSON");
    assert_eq!(
        json["steps"][0]["reasons"][0],
        serde_json::json!({ "reason": "never-built", "asked_elsewhere": false })
    );
}

// Rows: D17.
#[test]
fn a_build_that_failed_is_compared_with_caches_elsewhere_too() {
    if !require_sandbox("a_build_that_failed_is_compared_with_caches_elsewhere_too") {
        return;
    }
    let env = TestEnv::new();
    env.write("src/good", "1");
    env.write("Dockerfile", format!("FROM {}\nCOPY src /src\nRUN test ! -e /src/bad\n", base()));
    env.ok("build -q --cache-to type=local,dest=../cache -o type=cacheonly .");
    env.write("src/bad", "2");
    let fresh = |line: &str| {
        let mut command = env.command(line.split_whitespace());
        end(command.env("RBUILD_ROOT", env.path("fresh")))
    };
    assert_ne!(fresh("build -q --cache-from type=local,src=../cache -o type=cacheonly .").code, 0);
    let json: Value = serde_json::from_str(&fresh("explain --json").stdout).expect("JSON");
    assert_eq!(json["steps"][0]["reasons"][0]["changes"][0]["path"], "/src/bad", "{json}");
    assert_eq!(json["steps"][1]["verdict"], "failed");
    assert_eq!(json["steps"][1]["reasons"][0]["reason"], "parent", "{json}");
    for step in 0..2 {
        let place = &json["steps"][step]["compared_with"]["place"];
        assert_eq!(place, env.context("../cache").to_str().expect("text"), "{json}");
    }
}
