//! `rbuild run`.

use crate::env::{TestEnv, end, require_sandbox};
use crate::registry::base;

fn image(test: &str) -> Option<TestEnv> {
    if !require_sandbox(test) {
        return None;
    }
    let env = TestEnv::new();
    env.write(
        "Dockerfile",
        format!("FROM {}\nENV A=1\nWORKDIR /work\nENTRYPOINT [\"echo\"]\nCMD [\"default\"]\n", base()),
    );
    env.ok("build -q -t app .");
    Some(env)
}

#[test]
fn a_container_runs_as_the_image_says_or_as_asked() {
    let Some(env) = image("a_container_runs_as_the_image_says_or_as_asked") else { return };
    assert_eq!(env.ok("run --rm app").stdout, "default\n");
    assert_eq!(env.ok("run app a b -c").stdout, "a b -c\n");
    assert_eq!(env.ok("run --entrypoint pwd app").stdout, "/work\n");
    assert_eq!(env.ok("run -w /tmp --entrypoint pwd app").stdout, "/tmp\n");
    assert_eq!(env.ok("run -u app --entrypoint id app -u").stdout, "1000\n");
    let id = env.ok("images -q app").stdout;
    assert_eq!(env.ok(&format!("run {}", id.trim())).stdout, "default\n");
    let id = env.ok("images -q --no-trunc app").stdout;
    assert_eq!(env.ok(&format!("run --pull=never {}", id.trim())).stdout, "default\n");
    let variables = env.ok("run -e B=2 -h box --entrypoint env app").stdout;
    for line in ["A=1", "B=2", "HOSTNAME=box", "HOME=/root"] {
        assert!(variables.lines().any(|found| found == line), "{line}\n{variables}");
    }
}

#[test]
fn exit_codes_are_dockers() {
    let Some(env) = image("exit_codes_are_dockers") else { return };
    for (arguments, code) in [
        (&["run", "--entrypoint", "sh", "app", "-c", "exit 7"][..], 7),
        (&["run", "--entrypoint", "sh", "app", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
        (&["run", "--entrypoint", "/no/such", "app"], 127),
        (&["run", "--entrypoint", "/etc/passwd", "app"], 126),
        (&["run", "--pull=never", "no-such-image"], 125),
        (&["run", "--no-such-flag", "app"], 125),
    ] {
        let ended = end(&mut env.command(arguments));
        assert_eq!(ended.code, code, "{arguments:?}\n{}", ended.stderr);
    }
}

#[test]
fn an_image_that_is_nowhere_is_said_to_be_missing_here_first() {
    let Some(env) = image("an_image_that_is_nowhere_is_said_to_be_missing_here_first") else { return };
    let ended = end(&mut env.command(["run", "127.0.0.1:1/nowhere"]));
    assert_eq!(ended.code, 125);
    assert!(
        ended.stderr.starts_with("note: image `127.0.0.1:1/nowhere:latest` is not in the store"),
        "{}",
        ended.stderr
    );
}

#[test]
fn an_image_that_is_here_for_other_platforms_is_said_to_be() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    env.ok("build -q --platform linux/s390x,linux/ppc64le -t 127.0.0.1:1/there .");
    let hint =
        "hint: the store has this image for linux/ppc64le, linux/s390x, and linux/arm64 is wanted: see `--platform`";
    for (pull, error) in [("missing", "cannot reach registry"), ("never", "is not in the local store")] {
        let said = env.fails(&format!("run --platform linux/arm64 --pull={pull} 127.0.0.1:1/there x"));
        assert!(said.contains(error) && said.contains(hint), "{said}");
    }
    // By its id, too.
    env.ok("build -q --platform linux/s390x -t one .");
    let id = env.ok("images -q one").stdout;
    let said = env.fails(&format!("run --platform linux/arm64 --pull=never {}", id.trim()));
    assert!(said.contains("has this image for linux/s390x, and linux/arm64 is wanted"), "{said}");
}

#[test]
fn standard_input_reaches_the_container_only_when_asked_for() {
    let Some(env) = image("standard_input_reaches_the_container_only_when_asked_for") else { return };
    std::fs::write(env.path("input"), "typed\n").expect("written");
    let input = || std::fs::File::open(env.path("input")).expect("open");
    let with = end(env.command(["run", "-i", "--entrypoint", "cat", "app"]).stdin(input()));
    assert_eq!(with.stdout, "typed\n", "{}", with.stderr);
    let without = end(env.command(["run", "--entrypoint", "cat", "app"]).stdin(input()));
    assert_eq!(without.stdout, "");
}

#[test]
fn a_terminal_is_a_terminal() {
    let Some(env) = image("a_terminal_is_a_terminal") else { return };
    let (code, bytes) = crate::pty::run(
        &mut env.command(["run", "-it", "--entrypoint", "sh", "app", "-c", "test -t 0 && test -t 1 && echo yes"]),
        80,
        24,
    );
    let text = String::from_utf8_lossy(&bytes);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("yes\r\n"), "{text}");
}

#[test]
fn what_a_container_writes_is_gone_and_volumes_stay() {
    let Some(env) = image("what_a_container_writes_is_gone_and_volumes_stay") else { return };
    env.ok("run --entrypoint touch app /new");
    assert_ne!(env.rbuild("run --entrypoint ls app /new").code, 0);
    std::fs::create_dir(env.path("shared")).expect("a directory");
    let volume = format!("{}:/shared", env.path("shared").display());
    env.ok(&format!("run -v {volume} --entrypoint touch app /shared/new"));
    assert!(env.path("shared/new").exists());
    assert_ne!(env.rbuild(&format!("run -v {volume}:ro --entrypoint touch app /shared/other")).code, 0);
}
