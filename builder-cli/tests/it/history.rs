//! Builds are recorded, whatever becomes of them.

use std::time::{Duration, Instant};

use crate::env::{TestEnv, end, require_sandbox};
use crate::registry::base;

fn inspect(env: &TestEnv, build: &str) -> serde_json::Value {
    serde_json::from_str(&env.ok(&format!("history inspect {build} --format json")).stdout).expect("JSON")
}

/// The verdicts of all steps but base images.
fn verdicts(build: &serde_json::Value) -> Vec<String> {
    let steps = build["Steps"].as_array().expect("steps").iter().filter(|step| step["Op"] != "image");
    steps.map(|step| step["Verdict"].as_str().expect("text").to_owned()).collect()
}

#[test]
fn every_build_is_recorded_with_its_steps_and_logs() {
    if !require_sandbox("every_build_is_recorded_with_its_steps_and_logs") {
        return;
    }
    let env = TestEnv::new();
    assert!(env.fails("history inspect").contains("no build is recorded"));
    assert_eq!(env.ok("history ls").stdout.lines().count(), 1);
    let head = format!("FROM {}\nARG A=1\nRUN echo said $A; printf 'to stderr' >&2\n", base());
    env.write("Dockerfile", head.clone() + "RUN seq 200000\n");
    env.ok("build -q -t app:1 --build-arg A=2 --build-arg HTTP_PROXY=http://secret-proxy .");
    env.ok("build -q -t app:1 --build-arg A=2 .");
    env.write("Dockerfile", head + "RUN echo before; exit 3\nRUN true\n");
    env.fails("build -q -t app:2 .");
    env.write("Dockerfile", "FROM scratch\nRNU x\n");
    env.fails("build -q .");

    let list =
        env.ok("history ls --format {{.Name}}|{{.Status}}|{{.CachedSteps}}/{{.CompletedSteps}}/{{.TotalSteps}}").stdout;
    assert_eq!(list, "context|Error|0/0/0\napp:2|Error|0/1/3\napp:1|Completed|2/2/2\napp:1|Completed|0/2/2\n");
    assert_eq!(env.ok("history ls -q --filter status=error").stdout.lines().count(), 2);
    assert_eq!(env.ok("buildx history ls --filter name=app:1 -q").stdout.lines().count(), 2);

    for (filter, count) in [
        ("status!=error", 2),
        ("name!=app:1", 2),
        ("startedAt>1h", 4),
        ("startedAt<1h", 0),
        ("completedAt>1h", 4),
        ("completedAt<1h", 0),
        ("duration<1h", 4),
        ("duration>1h", 0),
    ] {
        let found = env.ok(&format!("history ls -q --filter {filter}")).stdout;
        assert_eq!(found.lines().count(), count, "{filter}");
    }
    // As docker calls a build elsewhere.
    let json = env.ok("history ls --format json").stdout;
    let newest: serde_json::Value = serde_json::from_str(json.lines().next().expect("a build")).expect("JSON");
    let name = newest["ref"].as_str().expect("text");
    assert!(name.starts_with("default/default/"), "{name}");
    assert_eq!(inspect(&env, name)["Status"], "error");
    assert_eq!(env.ok(&format!("history ls -q --filter ref={name}")).stdout.lines().count(), 1);

    let first = inspect(&env, "^3");
    assert_eq!(verdicts(&first), ["run", "run"]);
    assert_eq!(first["BuildArgs"][0]["Name"], "A");
    assert!(!first.to_string().contains("secret-proxy"));
    assert_eq!(first["Steps"][2]["LogLines"], 200_000);
    assert_eq!(verdicts(&inspect(&env, "^2")), ["hit", "hit"]);
    let failed = inspect(&env, "^1");
    // With another argument the first step gives the same files as before.
    assert_eq!(verdicts(&failed), ["adopted", "failed", "not-reached"]);
    assert!(failed["Error"].as_str().expect("text").contains("exit code: 3"), "{failed}");
    assert!(env.ok("history inspect ^1").stdout.contains("Build steps:"));

    let all: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(env.ok("history logs ^3 --step 3").stdout, all, "nothing is cut");
    assert_eq!(env.ok("history logs ^3 --step said").stdout.replace("to stderr", ""), "said 2\n");
    let log = env.ok("history logs ^1").stdout;
    assert!(log.contains(" before\n#3 ERROR: "), "{log}");

    let id = env.ok("history ls -q").stdout.lines().nth(1).expect("two").to_owned();
    env.ok(&format!("history rm {}", &id[..14]));
    assert_eq!(env.ok("history ls -q").stdout.lines().count(), 3);
    assert!(env.fails(&format!("history inspect {id}")).contains("there is no build"));
    env.ok("history rm --all");
    assert_eq!(env.ok("history ls -q").stdout, "");
    let left = std::fs::read_dir(env.path("state/history/logs")).expect("readable").count();
    assert_eq!(left, 0, "logs go with their builds");
}

#[test]
fn an_image_that_is_called_like_a_subcommand_has_a_history() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCMD [\"x\"]\n");
    env.ok("build -q -t ls:latest .");
    for line in ["history ls:latest -q", "image history ls -q"] {
        assert!(env.ok(line).stdout.len() > 12, "{line}");
    }
    assert!(env.fails("history nothing").contains("nothing"));
    assert!(env.fails("history").contains("IMAGE"));
}

#[test]
fn a_build_that_is_cancelled_or_killed_is_recorded() {
    if !require_sandbox("a_build_that_is_cancelled_or_killed_is_recorded") {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nRUN echo begun; sleep 100\n", base()));
    for (signal, status) in [(rustix::process::Signal::INT, "Canceled"), (rustix::process::Signal::KILL, "Interrupted")]
    {
        let mut child = env.command(["build", "-q", "."]).stderr(std::process::Stdio::null()).spawn().expect("starts");
        let begun = Instant::now();
        let listed = || env.ok("history ls --format {{.Status}}").stdout;
        while !listed().starts_with("Running") {
            assert!(begun.elapsed() < Duration::from_secs(30), "{}", listed());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(env.fails("history rm latest").contains("is running"));
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).expect("it runs");
        child.wait().expect("it ends");
        assert!(listed().starts_with(status), "{}", listed());
    }
    assert!(env.ok("history inspect ^1").stdout.contains("cancelled"));
}

#[test]
fn builds_at_the_same_time_are_recorded_each() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let children: Vec<_> = (0..8).map(|_| env.command(["build", "-q", "."]).spawn().expect("starts")).collect();
    for mut child in children {
        assert!(child.wait().expect("it ends").success());
    }
    assert_eq!(env.ok("history ls -q --filter status=completed").stdout.lines().count(), 8);
}

#[test]
fn what_a_step_says_about_a_secret_is_not_kept() {
    if !require_sandbox("what_a_step_says_about_a_secret_is_not_kept") {
        return;
    }
    let env = TestEnv::new();
    let secret = "correct-horse-battery";
    env.write("Dockerfile", format!("FROM {}\nRUN --mount=type=secret,id=s cat /run/secrets/s; echo end\n", base()));
    std::fs::write(env.path("home/s"), format!("{secret}\n")).expect("written");
    let file = format!("id=s,src={}", env.path("home/s").display());
    let built = end(&mut env.command(["build", "--progress=plain", "--secret", &file, "."]));
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert_eq!(env.ok("history logs --step 2").stdout, "***\nend\n");
    assert!(!env.ok("history inspect --format json").stdout.contains(secret));
}

#[test]
fn a_build_that_cannot_be_recorded_is_built() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    std::fs::write(env.path("state/history"), "in the way").expect("written");
    let built = env.ok("build --progress=plain .");
    assert!(built.stderr.contains("not recorded"), "{}", built.stderr);
}

#[test]
fn logs_of_a_build_come_as_a_build_writes_them() {
    if !require_sandbox("logs_of_a_build_come_as_a_build_writes_them") {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nRUN echo first\nRUN echo oops >&2; exit 3\n", base()));
    env.fails("build -q .");
    let text = env.ok("history logs --progress rawjson").stdout;
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    let all = |list: &str| lines.iter().filter_map(|line| line[list].get(0)).cloned().collect::<Vec<_>>();
    let logs: Vec<_> =
        all("logs").iter().map(|log| (log["stream"].as_u64(), log["data"].as_str().map(str::to_owned))).collect();
    assert_eq!(logs, [(Some(1), Some("Zmlyc3QK".to_owned())), (Some(2), Some("b29wcwo=".to_owned()))]);
    let ended: Vec<_> = all("vertexes").into_iter().filter(|vertex| vertex["completed"].is_string()).collect();
    assert!(ended.iter().any(|vertex| vertex["error"].is_string()), "{text}");
    assert!(env.fails("history logs --progress tty").starts_with("exit code: 125\n"));
}
