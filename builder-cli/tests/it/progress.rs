//! How a build is shown.

use crate::env::{TestEnv, require_sandbox};
use crate::registry::base;

/// Replaces times, which change from run to run.
fn without_times(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let words: Vec<String> = line
            .split(' ')
            .map(|word| {
                let number = word.strip_suffix('s').unwrap_or(word);
                let time = number.contains('.') && number.chars().all(|c| c.is_ascii_digit() || c == '.');
                if time { word.replace(number, "[T]") } else { word.to_owned() }
            })
            .collect();
        out.push_str(&words.join(" "));
        out.push('\n');
    }
    out
}

// Rows: B25.
#[test]
fn plain_progress_has_buildkits_form() {
    if !require_sandbox("plain_progress_has_buildkits_form") {
        return;
    }
    let env = TestEnv::new();
    env.write("a", "1")
        .write("Dockerfile", format!("FROM {} AS build\nCOPY a /a\nRUN echo one; echo two >&2\n", base()));
    let first = env.ok("build --progress=plain -t app:1 .").stderr;
    let second = env.ok("build --progress=plain -t app:1 .").stderr;
    for (text, expected) in [
        (&first, "3/3] RUN echo one; echo two >&2\n"),
        (&first, " one\n"),
        (&first, " DONE 0."),
        (&second, " CACHED\n"),
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    insta::assert_snapshot!(without_times(&env.stable(&second)));
}

// Rows: B25, B26.
#[test]
fn quiet_progress_says_nothing_but_the_id() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nLABEL a=b\n");
    let ended = env.ok("build -q -t app .");
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.stdout.len(), "sha256:".len() + 64 + 1);
}

#[test]
fn all_output_of_a_step_is_kept() {
    if !require_sandbox("all_output_of_a_step_is_kept") {
        return;
    }
    let env = TestEnv::new();
    // 4 MiB: BuildKit cuts at 2.
    let command = "i=0; while [ $i -lt 4096 ]; do dd if=/dev/zero bs=1023 count=1 2>/dev/null; echo; i=$((i+1)); done";
    env.write("Dockerfile", format!("FROM {}\nRUN {command}\n", base()));
    let output = env.command(["build", "--progress=plain", "."]).output().expect("starts");
    assert!(output.status.success());
    let zeros = output.stderr.iter().filter(|byte| **byte == 0).count();
    assert_eq!(zeros, 4096 * 1023);
}

#[test]
fn the_live_view_fits_80_columns_and_ends_clean() {
    if !require_sandbox("the_live_view_fits_80_columns_and_ends_clean") {
        return;
    }
    let env = TestEnv::new();
    let long = "x".repeat(300);
    env.write(
        "Dockerfile",
        format!("FROM {}\nRUN echo {long}; sleep 1; printf '\\033[2J\\033[31mred'\nRUN exit 4\n", base()),
    );
    let (status, bytes) = crate::pty::run(env.command(["build", "--progress=auto", "."]).env("TERM", "xterm"), 80, 24);
    assert_eq!(status, 1);
    let mut screen = vt100::Parser::new(24, 80, 200);
    screen.process(&bytes);
    assert!(!screen.screen().hide_cursor());
    let text = screen.screen().contents();
    assert!(text.contains("ERROR"), "{text}");
    assert!(text.contains("Dockerfile:3"), "{text}");
    assert!(!bytes.windows(4).any(|window| window == b"\x1b[2J"), "a step reached the terminal");
}
