//! Ctrl-C, SIGTERM, kill -9.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::env::{TestEnv, require_sandbox};
use crate::registry::base;

/// Starts a build whose step sleeps, and waits until it does.
fn sleeping(env: &TestEnv, mark: &str) -> Child {
    env.write("Dockerfile", format!("FROM {}\nRUN echo {mark}; sleep 1000\n", base()));
    let log = std::fs::File::create(env.path("log")).expect("a file");
    let child =
        env.command(["build", "--progress=plain", "."]).stderr(log).stdout(Stdio::null()).spawn().expect("starts");
    let begin = Instant::now();
    while !std::fs::read_to_string(env.path("log")).expect("readable").contains(&format!(" {mark}\n")) {
        assert!(begin.elapsed() < Duration::from_secs(30), "the step does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("small")).expect("a process");
    kill_process(pid, signal).expect("sent");
}

/// Processes and mounts that mention this test.
fn left_behind(env: &TestEnv) -> Vec<String> {
    let state = env.path("state").to_str().expect("text").to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let mut found: Vec<String> = mounts.lines().filter(|line| line.contains(&state)).map(str::to_owned).collect();
    for entry in std::fs::read_dir("/proc").expect("readable").flatten() {
        let Ok(command) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let own = std::fs::read(entry.path().join("environ"))
            .is_ok_and(|environ| String::from_utf8_lossy(&environ).contains(&state));
        if own || (command.contains("sleep 1000") && command.contains(&env.mark())) {
            found.push(command);
        }
    }
    found
}

/// A build that runs, and has said `mark`.
fn build_that_says(env: &TestEnv, mark: &str) -> std::process::Child {
    let log = std::fs::File::create(env.path("log")).expect("a file");
    let child =
        env.command(["build", "--progress=plain", "."]).stderr(log).stdout(Stdio::null()).spawn().expect("starts");
    while !std::fs::read_to_string(env.path("log")).expect("readable").contains(&format!(" {mark}\n")) {
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

#[test]
fn a_signal_ends_the_build_cleanly_and_the_store_stays_usable() {
    if !require_sandbox("a_signal_ends_the_build_cleanly_and_the_store_stays_usable") {
        return;
    }
    for (number, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let env = TestEnv::new();
        let mut child = sleeping(&env, &env.mark());
        let begin = Instant::now();
        signal(&child, number);
        assert_eq!(child.wait().expect("ends").code(), Some(code));
        assert!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
        assert_eq!(left_behind(&env), Vec::<String>::new());
        env.write("Dockerfile", format!("FROM {}\nRUN true\n", base()));
        env.ok("build -q .");
    }
}

#[test]
fn a_shell_starts_nothing_more_and_its_children_may_end_in_order() {
    if !require_sandbox("a_shell_starts_nothing_more_and_its_children_may_end_in_order") {
        return;
    }
    let env = TestEnv::new();
    let mark = env.mark();
    // The child has a handler, the shell that waits for it has none.
    let child = format!(
        "sh -c 'trap \"sleep 0.3; touch /c/cleaned; exit\" TERM; echo {mark}; while true; do sleep 0.05; done'"
    );
    env.write(
        "Dockerfile",
        format!(
            "FROM {}\nRUN --mount=type=cache,target=/c {child}; touch /c/next; sleep 0.1; touch /c/after\n",
            base()
        ),
    );
    let mut child = build_that_says(&env, &mark);
    let begin = Instant::now();
    signal(&child, Signal::INT);
    assert_eq!(child.wait().expect("ends").code(), Some(130));
    assert!(begin.elapsed() < Duration::from_millis(1900), "it took {:?}", begin.elapsed());
    let mount = std::fs::read_dir(env.path("state/mounts")).expect("listed").next().expect("one").expect("read");
    let made: Vec<_> = std::fs::read_dir(mount.path().join("content")).expect("listed").collect();
    let made: Vec<_> = made.into_iter().map(|entry| entry.expect("read").file_name()).collect();
    assert_eq!(made, ["cleaned"]);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    if !require_sandbox("a_second_signal_ends_it_at_once") {
        return;
    }
    let env = TestEnv::new();
    env.write(
        "Dockerfile",
        format!("FROM {}\nRUN trap '' TERM; echo {}; while true; do sleep 1; done\n", base(), env.mark()),
    );
    let mark = env.mark();
    let mut child = build_that_says(&env, &mark);
    let begin = Instant::now();
    signal(&child, Signal::INT);
    std::thread::sleep(Duration::from_millis(200));
    signal(&child, Signal::INT);
    assert_eq!(child.wait().expect("ends").code(), Some(130));
    assert!(begin.elapsed() < Duration::from_millis(1500), "it took {:?}", begin.elapsed());
}

#[test]
fn kill_9_leaves_no_process_and_a_usable_store() {
    if !require_sandbox("kill_9_leaves_no_process_and_a_usable_store") {
        return;
    }
    let env = TestEnv::new();
    let mut child = sleeping(&env, &env.mark());
    child.kill().expect("killed");
    child.wait().expect("ends");
    let begin = Instant::now();
    while !left_behind(&env).is_empty() && begin.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(left_behind(&env), Vec::<String>::new());
    env.write("Dockerfile", format!("FROM {}\nRUN echo again > /x\n", base()));
    env.ok("build -q -t app .");
    env.ok("run app cat /x");
}
