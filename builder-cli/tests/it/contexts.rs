//! Contexts that are no directories.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::env::{Ended, TestEnv};

/// A tar archive of these files, which belong to 7:8.
pub(crate) fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        header.set_mtime(1_000_000_000);
        header.set_uid(7);
        header.set_gid(8);
        archive.append_data(&mut header, name, content.as_bytes()).expect("appended");
    }
    archive.into_inner().expect("finished")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new("gzip")
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program is installed");
    let mut stdin = child.stdin.take().expect("piped");
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).expect("written"));
    let output = child.wait_with_output().expect("ends");
    writer.join().expect("no panic");
    output.stdout
}

/// Runs a command with this on its standard input.
pub(crate) fn piped(env: &TestEnv, line: &str, input: &[u8]) -> Ended {
    let mut command = env.command(line.split_whitespace());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // A command that ends early does not read everything.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("ends");
    writer.join().expect("no panic");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// `mode uid:gid path` of every file in an archive that was built.
pub(crate) fn listing(env: &TestEnv, file: &str) -> Vec<String> {
    let mut archive = tar::Archive::new(std::fs::File::open(env.context(file)).expect("written"));
    let entries = archive.entries().expect("a tar").map(|entry| entry.expect("an entry"));
    let mut lines: Vec<String> = entries
        .filter(|entry| entry.header().entry_type().is_file())
        .map(|entry| {
            let header = entry.header();
            let number = |number: std::io::Result<u64>| number.expect("a number");
            let owner = (number(header.uid()), number(header.gid()));
            let mode = header.mode().expect("a mode");
            format!("{mode:o} {}:{} {}", owner.0, owner.1, entry.path().expect("a path").display())
        })
        .collect();
    lines.sort();
    lines
}

const BUILD: &str = "build --progress=quiet -o type=tar,dest=out.tar";

#[test]
fn an_archive_on_standard_input_is_the_context() {
    let tar = archive(&[
        ("Dockerfile", "FROM scratch\nCOPY . /all/\n"),
        (".dockerignore", "ignored\n"),
        ("ignored", "x"),
        ("sub/other", "FROM scratch\nCOPY ignored /\n"),
    ]);
    for input in [tar.clone(), gzip(&tar)] {
        let env = TestEnv::new();
        let ended = piped(&env, &format!("{BUILD} -"), &input);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        // As BuildKit: owners are those of the archive, and its ignore file is a file like any other.
        assert_eq!(
            listing(&env, "out.tar"),
            ["640 7:8 all/.dockerignore", "640 7:8 all/Dockerfile", "640 7:8 all/ignored", "640 7:8 all/sub/other"]
        );
        let again = piped(&env, "build --progress=plain -", &input);
        assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
    }
    let env = TestEnv::new();
    assert_eq!(piped(&env, &format!("{BUILD} -f sub/other -"), &tar).code, 0);
    assert_eq!(listing(&env, "out.tar"), ["640 7:8 ignored"]);
}

#[test]
fn steps_see_an_archive_as_they_see_a_directory() {
    let inner = archive(&[("in", "side")]);
    let mut outer = tar::Builder::new(Vec::new());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        outer.append_data(&mut header, name, content).expect("appended");
    };
    add("a.tar", &inner);
    add("d/x.txt", b"x");
    add("d/y.md", b"y");
    add("Dockerfile", b"FROM scratch\nADD a.tar /added/\nCOPY a.tar /copied/\nCOPY --chown=1:2 --exclude=*.md d /d/\n");
    let env = TestEnv::new();
    let ended = piped(&env, &format!("{BUILD} -"), &outer.into_inner().expect("finished"));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(listing(&env, "out.tar"), ["640 7:8 added/in", "644 0:0 copied/a.tar", "644 1:2 d/x.txt"]);
}

#[test]
fn what_is_not_a_context_is_one_clear_error() {
    let env = TestEnv::new();
    let good = archive(&[("Dockerfil", "FROM scratch\n"), ("d/x", "")]);
    let damaged = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let escaping = {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..4].copy_from_slice(b"../x");
        header.set_size(0);
        header.set_cksum();
        archive.append(&header, &b""[..]).expect("appended");
        archive.into_inner().expect("finished")
    };
    let mut shown = String::new();
    for (options, input) in [
        ("-", &b""[..]),
        ("-", &gzip(&good)[..40]),
        ("-", &good[..700]),
        ("-", &damaged(1030)),
        ("-", b"\x1f\x8bnonsense"),
        ("-", &gzip(b"FROM scratch\n")),
        ("-", &good),
        ("-f d -", &good),
        ("-f none -", &good),
        ("-f Dockerfile -", b"FROM scratch\n"),
        ("-f - -", b"FROM scratch\n"),
        ("-f - .", &good),
        ("-", &escaping),
    ] {
        let ended = piped(&env, &format!("build --progress=quiet {options}"), input);
        let _ = std::fmt::Write::write_fmt(
            &mut shown,
            format_args!("{options}: {}\n{}\n", ended.code, env.stable(&ended.stderr)),
        );
    }
    insta::assert_snapshot!(shown);
    assert!(!env.path("x").exists() && !env.context("x").exists());
}

#[test]
fn ctrl_c_ends_a_build_that_waits_for_its_context() {
    let env = TestEnv::new();
    let mut command = env.command(["build", "--progress=plain", "-"]);
    let log = std::fs::File::create(env.path("log")).expect("a file");
    let mut child = command.stdin(Stdio::piped()).stderr(log).stdout(Stdio::null()).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(&archive(&[("Dockerfile", "FROM scratch\n")])[..600]).expect("written");
    let begin = Instant::now();
    while !std::fs::read_to_string(env.path("log")).expect("readable").contains("load remote build context") {
        assert!(begin.elapsed() < Duration::from_secs(30), "nothing happens");
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("small")).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("sent");
    assert_eq!(child.wait().expect("ends").code(), Some(130));
    let left = std::fs::read_dir(env.path("state").join("snapshots")).expect("there").count();
    assert_eq!(left, 0, "what was begun is gone");
}
