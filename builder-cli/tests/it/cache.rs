//! The same build twice, touched files, early cutoff.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crate::env::{TestEnv, require_sandbox};
use crate::registry::base;

/// Builds with machine-readable progress; gives the names of the steps that ran, and the id of the image.
pub(crate) fn build(env: &TestEnv, options: &str) -> (Vec<String>, String) {
    let ended = env.ok(&format!("build --progress=rawjson --iidfile id {options} ."));
    let mut ran = Vec::new();
    for line in ended.stderr.lines() {
        let status: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for vertex in status["vertexes"].as_array().into_iter().flatten() {
            let name = vertex["name"].as_str().expect("a name");
            let step = name.starts_with('[') && !name.starts_with("[internal]") && !name.contains("] FROM ");
            if step && vertex["completed"].is_string() && vertex["cached"] != true {
                ran.push(name.split("] ").nth(1).unwrap_or(name).to_owned());
            }
        }
    }
    (ran, std::fs::read_to_string(env.context("id")).expect("written"))
}

fn example() -> TestEnv {
    let env = TestEnv::new();
    let dockerfile = format!(
        "FROM {} AS build\nCOPY src /src\nRUN cat /src/* > /all\nRUN grep -v '^#' /all > /app\nFROM scratch\nCOPY --from=build /app /app\nCOPY readme /\n",
        base()
    );
    env.write("Dockerfile", dockerfile).write("src/a", "1\n").write("src/b", "# comment\n2\n").write("readme", "r");
    env.write(".dockerignore", "id\n");
    env
}

#[test]
fn a_second_build_runs_nothing_and_gives_the_same_image() {
    if !require_sandbox("a_second_build_runs_nothing_and_gives_the_same_image") {
        return;
    }
    let env = example();
    let (first, id) = build(&env, "");
    assert_eq!(first.len(), 5, "{first:?}");
    assert_eq!(build(&env, ""), (Vec::new(), id.clone()));
    // Touched, not changed.
    let later = SystemTime::now() + Duration::from_secs(100);
    let file = std::fs::File::options().append(true).open(env.context("src/a")).expect("open");
    file.set_modified(later).expect("touched");
    assert_eq!(build(&env, ""), (Vec::new(), id));
}

#[test]
fn a_step_that_makes_the_same_again_ends_the_chain() {
    if !require_sandbox("a_step_that_makes_the_same_again_ends_the_chain") {
        return;
    }
    let env = example();
    let (_, id) = build(&env, "");
    env.write("src/b", "# another comment\n2\n");
    let (ran, again) = build(&env, "");
    assert_eq!(ran, ["COPY src /src", "RUN cat /src/* > /all", "RUN grep -v '^#' /all > /app"]);
    assert_eq!(again, id, "the image keeps its id");
    env.write("src/b", "3\n");
    let (ran, other) = build(&env, "");
    assert_eq!(ran.len(), 4, "{ran:?}");
    assert_ne!(other, id);
}

// Rows: B9.
#[test]
fn no_cache_runs_everything_or_the_named_stages() {
    if !require_sandbox("no_cache_runs_everything_or_the_named_stages") {
        return;
    }
    let env = example();
    build(&env, "");
    assert_eq!(build(&env, "--no-cache").0.len(), 5);
    assert_eq!(build(&env, "--no-cache-filter build").0.len(), 3);
    assert_eq!(build(&env, "").0.len(), 0);
    let warned = env.ok("build --progress=plain --no-cache-filter BUILD,0,biuld --cache-ttl fnal=1h .").stderr;
    assert!(
        warned.contains("there is no stage `biuld` whose cache could be ignored; did you mean `build`?"),
        "{warned}"
    );
    assert!(warned.contains("there is no stage `fnal`") && !warned.contains("`BUILD`"), "{warned}");
}

// Rows: A77, A84.
#[test]
fn limits_and_secrets_do_not_run_steps_again() {
    if !require_sandbox("limits_and_secrets_do_not_run_steps_again") {
        return;
    }
    let env = example();
    build(&env, "");
    assert_eq!(
        build(&env, "--ulimit nofile=1000 --shm-size 1m --add-host a:1.2.3.4 --secret id=x,src=readme").0.len(),
        2,
        "a new host name is part of the key of RUN"
    );
    assert_eq!(build(&env, "--ulimit nofile=2000 --shm-size 2m --add-host a:1.2.3.5").0, Vec::<String>::new());
}

// Rows: A54.
#[test]
fn arguments_matter_from_their_line_on() {
    if !require_sandbox("arguments_matter_from_their_line_on") {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nRUN echo a > /a\nARG X=1\nRUN echo $X > /b\n", base()));
    build(&env, "");
    assert_eq!(build(&env, "--build-arg X=2").0, ["RUN echo 2 > /b"]);
    assert_eq!(build(&env, "--build-arg X=1").0, Vec::<String>::new());
}

// Rows: P21.
#[test]
fn d16_results_of_commands_count_for_as_long_as_is_asked() {
    if !require_sandbox("d16_results_of_commands_count_for_as_long_as_is_asked") {
        return;
    }
    let env = TestEnv::new();
    env.write("a", "a").write(
        "Dockerfile",
        format!(
            "FROM {0} AS one\nCOPY a /a\nRUN echo 1 > /b\nFROM {0}\nCOPY --from=one /b /b\nRUN echo 2 > /c\n",
            base()
        ),
    );
    let names = |options: &str| build(&env, options).0;
    let id = build(&env, "").1;
    assert_eq!(names("--cache-ttl 1h"), [""; 0]);
    assert_eq!(names("--cache-ttl 1h --cache-ttl one=0s"), ["RUN echo 1 > /b"]);
    let (ran, again) = build(&env, "--cache-ttl 0s");
    assert_eq!((ran.len(), again), (2, id), "copies hit, and equal results keep the image");
    let explained = env.ok("explain").stdout;
    assert!(explained.contains("its result is older than `--cache-ttl` allows"), "{explained}");
    assert_eq!(names("--cache-ttl 1h"), [""; 0]);
    let failed = env.fails("build --cache-ttl soon .");
    assert!(failed.starts_with("exit code: 125\n") && failed.contains("`soon` is not a duration"), "{failed}");
}

// Rows: P10.
#[test]
fn d16_a_comment_says_how_long_a_result_counts() {
    if !require_sandbox("d16_a_comment_says_how_long_a_result_counts") {
        return;
    }
    let env = TestEnv::new();
    let write = |time: &str| {
        let text = format!("FROM {}\n# cache={time}  the mirror changes\nRUN echo 1 > /b\nRUN echo 2 > /c\n", base());
        env.write("Dockerfile", text);
    };
    let names = |options: &str| build(&env, options).0;
    write("1h");
    assert_eq!(names("").len(), 2);
    assert_eq!(names(""), [""; 0]);
    assert_eq!(names("--cache-ttl 0s").len(), 2, "the shorter time counts");
    write("0s");
    let id = build(&env, "").1;
    let planned = env.ok("build --dry-run .").stdout;
    assert!(planned.contains("its result is older than the comment `# cache=` above it allows"), "{planned}");
    let (ran, again) = build(&env, "--cache-ttl 1h");
    assert_eq!((ran, again), (vec!["RUN echo 1 > /b".to_owned()], id), "an equal result keeps the image");
    let explained = env.ok("explain").stdout;
    assert!(explained.contains("its result is older than the comment `# cache=` above it allows"), "{explained}");
    write("7d");
    assert_eq!(names(""), [""; 0], "how long is not part of the key");
    let wrong = env.dockerfile_fails("FROM scratch\n\n# cache=soon\nRUN true\n");
    let expected = "exit code: 1\nerror: invalid duration `soon` in `# cache=`\n --> Dockerfile:3:3\n";
    assert!(wrong.starts_with(expected) && wrong.contains("\nhint: write how long"), "{wrong}");
    let wrong = env.dockerfile_fails("FROM scratch\n# cache=1h\nCOPY a /\n");
    assert!(wrong.contains("error: `# cache=` stands above COPY, whose result does not expire\n"), "{wrong}");
    assert!(wrong.contains(" --> Dockerfile:2:3\n") && wrong.contains("hint: write it above a `RUN`"), "{wrong}");
}

#[test]
fn d17_a_secret_decides_whether_a_step_runs_if_that_is_asked_for() {
    if !require_sandbox("d17_a_secret_decides_whether_a_step_runs_if_that_is_asked_for") {
        return;
    }
    let env = TestEnv::new();
    let step = "RUN --mount=type=secret,id=token test -s /run/secrets/token && echo done > /done";
    env.write("Dockerfile", format!("FROM {}\n{step}\nRUN echo after > /after\n", base()));
    let run = |value: &str, more: &str| {
        std::fs::write(env.path("token"), value).expect("written");
        build(&env, &format!("--secret id=token,src=../token{more}")).0.len()
    };
    assert_eq!(run("one-7391", ""), 2);
    assert_eq!(run("two-7391", ""), 0, "by default a value is nobody's business");
    assert_eq!(run("one-7391", ",cache=hash"), 1, "what comes after it sees the same files");
    assert_eq!(run("one-7391", ",cache=hash"), 0);
    assert_eq!(run("two-7391", ",cache=hash"), 1);
    assert_eq!(run("two-7391", ",cache=ignore"), 0);
    // Or somebody says when it is another.
    assert_eq!(run("two-7391", ",epoch=1"), 1);
    assert_eq!(run("three-7391", ",epoch=1"), 0);
    assert_eq!(run("three-7391", ",epoch=2"), 1);
    let explained = env.ok("explain").stdout;
    assert!(explained.contains("secret epoch token changed: 1 → 2"), "{explained}");
    assert_eq!(build(&env, "--secret id=token,src=../token --secret id=other,src=../token,epoch=1").0, [""; 0]);
    let empty = env.fails("build --secret id=token,src=../token,epoch= .");
    assert!(empty.contains("its `epoch` is empty"), "{empty}");
    // Nothing that leaves says anything about the value: the step is not in a cache elsewhere.
    let cache = env.path("cache");
    build(&env, &format!("--secret id=token,src=../token,cache=hash --cache-to type=local,dest={}", cache.display()));
    let other = TestEnv::new();
    std::fs::write(other.path("token"), "two-7391").expect("written");
    other.write("Dockerfile", std::fs::read(env.context("Dockerfile")).expect("readable"));
    let options = format!("--secret id=token,src=../token,cache=hash --cache-from type=local,src={}", cache.display());
    assert_eq!(build(&other, &options).0, [step]);
    // A word may leave.
    let options = |epoch: u32| format!("--secret id=token,src=../token,epoch={epoch}");
    let place = cache.with_extension("epoch");
    build(&env, &format!("{} --cache-to type=local,dest={}", options(2), place.display()));
    let from = |epoch| format!("{} --cache-from type=local,src={}", options(epoch), place.display());
    assert_eq!(build(&other, &from(2)).0, [""; 0]);
    assert_eq!(build(&other, &from(3)).0, [step]);
    for state in [env.path("state"), cache] {
        let found = std::process::Command::new("grep").args(["-rlF", "7391"]).arg(&state).output().expect("grep");
        assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
    }
    let failed = env.fails("build --secret id=token,src=../token,cache=yes .");
    assert!(failed.contains("its `cache` is neither `hash` nor `ignore`"), "{failed}");
}

#[test]
fn d25_a_result_says_what_it_was_made_of() {
    if !require_sandbox("d25_a_result_says_what_it_was_made_of") {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nENV COLOR=red\nRUN echo $COLOR > /color\n", base()));
    env.ok("build -q .");
    env.ok("build -q .");
    let explained: serde_json::Value = serde_json::from_str(&env.ok("explain --json").stdout).expect("JSON");
    let steps = explained["steps"].as_array().expect("steps");
    let key = steps.iter().find_map(|step| step["key"].as_str()).expect("a key").to_owned();
    let shown = env.ok(&format!("cache inspect {}", &key[..12])).stdout;
    for part in [&key[..], "RUN echo $COLOR > /color", "  env COLOR: red\n"] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&env.ok(&format!("cache inspect --json {key}")).stdout).expect("JSON");
    assert_eq!((json[0]["key"].as_str(), json.as_array().map(Vec::len)), (Some(key.as_str()), Some(1)));
    let tree = json[0]["record"]["tree"].as_str().expect("a tree");
    let listed = env.ok("cache ls --format {{.ID}}={{.UsageCount}}").stdout;
    assert!(listed.lines().any(|line| line == format!("{tree}=1")), "{listed}");
    assert!(env.ok("cache ls -v").stdout.contains("Usage count:"));
    assert!(env.fails("cache inspect 0000000000").contains("there is no result with the key"));
}

#[test]
fn a_secret_that_can_be_read_only_once_is_the_same_in_the_key_and_in_every_step() {
    if !require_sandbox("a_secret_that_can_be_read_only_once_is_the_same_in_the_key_and_in_every_step") {
        return;
    }
    let env = TestEnv::new();
    let mount = "RUN --mount=type=secret,id=token cat /run/secrets/token";
    env.write("Dockerfile", format!("FROM {}\n{mount} > /a\n{mount} > /b\n", base()));
    let run = |value: &str| {
        let build = "build --progress=plain --secret id=token,src=/dev/stdin,cache=hash -o type=local,dest=../out .";
        let mut command = env.command(build.split(' '));
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        child.stdin.take().expect("piped").write_all(value.as_bytes()).expect("read");
        let ended = child.wait_with_output().expect("waited for");
        let shown = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success(), "{shown}");
        for file in ["a", "b"] {
            assert_eq!(std::fs::read_to_string(env.path("out").join(file)).expect("written"), value, "{shown}");
        }
        shown.matches("CACHED").count()
    };
    // The image counts, too.
    assert_eq!([run("one"), run("one"), run("two"), run("one")], [0, 3, 1, 3]);
}
