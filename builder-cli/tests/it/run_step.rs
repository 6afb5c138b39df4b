//! RUN: isolation, environment, mounts, failures.

use crate::env::{TestEnv, require_sandbox};
use crate::registry::base;

/// Builds a Dockerfile on the base image and gives the output of `cat /out` in the result.
fn out_of(env: &TestEnv, body: &str, options: &str) -> String {
    env.write("Dockerfile", format!("FROM {}\n{body}\nFROM scratch\nCOPY --from=0 /out /out\n", base()));
    env.ok(&format!("build --progress=plain {options} -o result ."));
    std::fs::read_to_string(env.context("result/out")).expect("the step wrote it")
}

#[test]
fn a_step_sees_its_user_directory_and_variables() {
    if !require_sandbox("a_step_sees_its_user_directory_and_variables") {
        return;
    }
    let env = TestEnv::new();
    let text = out_of(
        &env,
        "RUN touch /out && chmod 666 /out\nENV A=1\nARG B=2\nWORKDIR /work\nUSER app\nRUN (pwd; echo $A $B; id; echo $HOME) > /out",
        "",
    );
    assert_eq!(text, "/work\n1 2\nuid=1000(app) gid=1000(app) groups=1000(app),2000(extra)\n/home/app\n");
}

#[test]
fn a_step_is_alone() {
    if !require_sandbox("a_step_is_alone") {
        return;
    }
    let env = TestEnv::new();
    let text = out_of(&env, "RUN (echo $$; ls /proc | grep -c '^[0-9]'; env | sort) > /out", "");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "1", "the shell is the first process");
    assert!(lines[1].parse::<u32>().expect("a number") < 6, "{text}");
    assert!(!text.contains("RBUILD_ROOT"), "the host's environment leaks: {text}");
    assert!(text.contains("PATH=/usr/local/sbin:"), "{text}");
}

// Rows: A73, A74, A75, A76, A77.
#[test]
fn mounts_are_there_during_the_step_only() {
    if !require_sandbox("mounts_are_there_during_the_step_only") {
        return;
    }
    let env = TestEnv::new();
    env.write("file", "from the context\n");
    std::fs::write(env.path("secret"), "hush\n").expect("written");
    let body = "RUN --mount=type=bind,target=/ctx --mount=type=secret,id=key --mount=type=tmpfs,target=/t \
                --mount=type=cache,target=/c cat /ctx/file /run/secrets/key > /out && echo x > /t/x && echo x >> /c/x && \
                wc -l < /c/x >> /out && ! touch /ctx/new\n\
                RUN ls -A /ctx /t /c /run/secrets >> /out 2>&1 || true";
    let secret = format!("--secret id=key,src={}", env.path("secret").display());
    let first = out_of(&env, body, &secret);
    assert!(first.starts_with("from the context\nhush\n1\n"), "{first}");
    assert!(!first.contains("\nx\n"), "{first}");
    let second = out_of(&env, body, &format!("{secret} --no-cache"));
    assert!(second.starts_with("from the context\nhush\n2\n"), "the cache mount stays: {second}");
}

#[test]
fn a_missing_secret_is_an_error() {
    if !require_sandbox("a_missing_secret_is_an_error") {
        return;
    }
    let env = TestEnv::new();
    let shown =
        env.dockerfile_fails_with(&format!("FROM {}\nRUN --mount=type=secret,id=key,required=true true\n", base()), "");
    insta::assert_snapshot!(shown);
}

#[test]
fn a_failed_step_shows_its_last_lines_its_place_and_its_exit_code() {
    if !require_sandbox("a_failed_step_shows_its_last_lines_its_place_and_its_exit_code") {
        return;
    }
    let env = TestEnv::new();
    let body = format!("FROM {} AS build\nRUN echo first; \\\n    echo second >&2; \\\n    exit 3\n", base());
    insta::assert_snapshot!(env.dockerfile_fails_with(&body, ""));
    // The shell itself is the first process of its namespace, which a signal from inside cannot kill.
    let body = format!("FROM {}\nRUN sh -c 'kill -9 $$'; exit $?\n", base());
    assert!(env.dockerfile_fails_with(&body, "").contains("exit code: 137"));
    let body = format!("FROM {}\nRUN no-such-command\n", base());
    assert!(env.dockerfile_fails_with(&body, "").contains("exit code: 127"));
    let body = format!("FROM {}\nRUN [\"/no/such/program\"]\n", base());
    insta::assert_snapshot!(env.dockerfile_fails_with(&body, ""));
}

#[test]
fn a_base_without_a_shell_is_explained() {
    if !require_sandbox("a_base_without_a_shell_is_explained") {
        return;
    }
    let env = TestEnv::new();
    insta::assert_snapshot!(env.dockerfile_fails_with("FROM scratch\nRUN true\n", ""));
}

// Rows: A71.
#[test]
fn background_processes_end_with_their_step() {
    if !require_sandbox("background_processes_end_with_their_step") {
        return;
    }
    let env = TestEnv::new();
    let begin = std::time::Instant::now();
    out_of(&env, "RUN sleep 100 & echo started > /out", "");
    assert!(begin.elapsed().as_secs() < 30, "the step waited for a background process");
}

// Rows: A81, B16.
#[test]
fn without_a_network_there_is_loopback_only() {
    if !require_sandbox("without_a_network_there_is_loopback_only") {
        return;
    }
    let env = TestEnv::new();
    let text = out_of(&env, "RUN cat /proc/net/dev | grep -c : > /out", "--network=none");
    assert_eq!(text, "1\n");
}

// Rows: A73, B17.
#[test]
fn hosts_are_added_and_stay_out_of_the_image() {
    if !require_sandbox("hosts_are_added_and_stay_out_of_the_image") {
        return;
    }
    let env = TestEnv::new();
    let text = out_of(
        &env,
        "RUN grep db.test /etc/hosts > /out; cat /etc/resolv.conf > /dev/null",
        "--add-host db.test:10.1.2.3",
    );
    assert!(text.starts_with("10.1.2.3"), "{text}");
    env.write("Dockerfile", format!("FROM {}\nRUN true\n", base()));
    env.ok("build --progress=quiet -o all .");
    assert!(!env.context("all/etc/hosts").exists());
    assert!(!env.context("all/etc/resolv.conf").exists());
}

// Rows: A45, P8.
#[test]
fn a_strict_heredoc_ends_at_its_first_failure() {
    if !require_sandbox("a_strict_heredoc_ends_at_its_first_failure") {
        return;
    }
    let env = TestEnv::new();
    assert_eq!(out_of(&env, "RUN <<EOF\nfalse\necho on > /out\nEOF", ""), "on\n");
    let strict = |body: &str| {
        env.write("Dockerfile", format!("# rbuild: heredoc=errexit\nFROM {}\nRUN <<EOF\n{body}\nEOF\n", base()));
    };
    strict("false\ntrue");
    let text = env.fails("build --progress=plain .");
    assert!(text.contains("exit code: 1"), "{text}");
    strict("true\ntrue");
    env.ok("build --progress=plain .");
}

// Rows: A6.
#[test]
fn a_line_of_a_mebibyte_runs() {
    if !require_sandbox("a_line_of_a_mebibyte_runs") {
        return;
    }
    let env = TestEnv::new();
    let line = "x".repeat(1 << 20);
    assert_eq!(out_of(&env, &format!("RUN echo {line} | wc -c > /out"), "").trim(), "1048577");
    assert_eq!(out_of(&env, &format!("RUN <<EOF\necho {line} | wc -c > /out\nEOF"), "").trim(), "1048577");
    env.write("Dockerfile", format!("FROM {}\nRUN : {line}; exit 7\n", base()));
    let text = env.fails("build --progress=plain .");
    assert!(text.contains("exit code: 7"), "{}", &text[text.len().saturating_sub(500)..]);
}
