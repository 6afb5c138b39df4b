//! Contexts that are no directories.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::env::{Ended, TestEnv, require_sandbox};
use crate::registry::base;
use crate::web::{Page, Web};

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

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
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

// Rows: B1, E6.
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
fn steps_mount_an_archive() {
    if !require_sandbox("steps_mount_an_archive") {
        return;
    }
    let (env, web) = (TestEnv::new(), Web::start());
    let named = web.bytes("/named.tar", archive(&[("n", "named")]));
    let dockerfile = format!(
        "FROM {}\nRUN --mount=target=/c --mount=from=ctx,source=n,target=/n cat /c/d/f /n > /out; stat -c %u:%g /c/d/f >> /out\n\
         FROM scratch\nCOPY --from=0 /out /\n",
        base()
    );
    let build = |content: &str| {
        let input = archive(&[("Dockerfile", &dockerfile), ("d/f", content)]);
        let ended = piped(&env, &format!("build --progress=plain -o out --build-context ctx={named} -"), &input);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        (
            std::fs::read_to_string(env.context("out/out")).expect("there"),
            ended.stderr.contains("2/2] RUN --mount") && ended.stderr.contains("CACHED"),
        )
    };
    assert_eq!(build("one"), ("onenamed7:8\n".to_owned(), false));
    assert_eq!(build("one"), ("onenamed7:8\n".to_owned(), true));
    assert_eq!(build("two").0, "twonamed7:8\n");
    let listed = env.ok("cache ls --filter type=source.local --verbose").stdout;
    assert_eq!(listed.matches("source.local").count(), 3, "two from standard input and one from the server: {listed}");
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

// Rows: E5.
#[test]
fn an_address_is_a_context_or_a_dockerfile() {
    let (env, web) = (TestEnv::new(), Web::start());
    let tar = archive(&[
        ("Dockerfile", "FROM scratch\nCOPY f /from-url\n"),
        ("f", "x"),
        ("sub/Other", "FROM scratch\nCOPY f /other\n"),
    ]);
    let page = |body: Vec<u8>| Page { body, etag: Some("\"1\""), ..Page::default() };
    let context = web.put("/ctx.tar.gz", page(gzip(&tar)));
    let dockerfile = web.put("/Dockerfile", page(b"FROM scratch\nCOPY . /all/\n".to_vec()));
    let build = |options: &str, input: &[u8]| {
        let ended = piped(&env, &format!("{BUILD} {options}"), input);
        assert_eq!(ended.code, 0, "{options}: {}", ended.stderr);
        listing(&env, "out.tar").join(" ")
    };
    assert_eq!(build(&context, b""), "640 7:8 from-url");
    assert_eq!(build(&format!("-f sub/Other {context}"), b""), "640 7:8 other");
    assert_eq!(build(&format!("-f - {context}"), b"FROM scratch\nCOPY sub/Other /x\n"), "640 7:8 x");
    assert_eq!(
        build(&format!("-f {dockerfile} {context}"), b""),
        "640 7:8 all/Dockerfile 640 7:8 all/f 640 7:8 all/sub/Other"
    );
    assert_eq!(web.asked()[..2], ["GET /ctx.tar.gz 200", "GET /ctx.tar.gz 304"]);
    assert_eq!(build(&format!("--pull=never {context}"), b""), "640 7:8 from-url");
    assert_eq!(web.asked(), Vec::<String>::new());
    // BuildKit calls the only file of such a context `context`.
    assert_eq!(build(&dockerfile, b""), "600 0:0 all/context");
    env.write("f", "local").write("ignored", "").write(".dockerignore", "ignored\nout.tar\n.dockerignore\n");
    assert_eq!(build(&format!("-f {dockerfile} ."), b""), "644 0:0 all/f");
    let absolute = env.path("elsewhere");
    std::fs::write(&absolute, "FROM scratch\nCOPY f /absolute\n").expect("written");
    assert_eq!(build(&format!("-f {} {context}", absolute.display()), b""), "640 7:8 absolute");
    // A context by name is read where it is used only.
    web.asked();
    let named = "FROM scratch AS unused\nCOPY --from=other / /\nFROM scratch\nCOPY --from=ctx f /named\n";
    assert_eq!(
        build(&format!("--build-context ctx={context} --build-context other={dockerfile} -"), named.as_bytes()),
        "640 7:8 named"
    );
    assert_eq!(web.asked(), ["GET /ctx.tar.gz 304"]);
    // What the server has now is what is built.
    let other = archive(&[("Dockerfile", "FROM scratch\nCOPY f /second\n"), ("f", "y")]);
    web.put("/ctx.tar.gz", Page { body: gzip(&other), ..Page::default() });
    web.put("/Dockerfile", Page { body: b"FROM scratch\nCOPY f /third\n".to_vec(), ..Page::default() });
    assert_eq!(build(&context, b""), "640 7:8 second");
    assert_eq!(build(&format!("-f {dockerfile} {context}"), b""), "640 7:8 third");
}

#[test]
fn an_address_that_is_no_context_is_one_clear_error() {
    let (env, web) = (TestEnv::new(), Web::start());
    let tar = archive(&[("f", "x")]);
    let pages = [
        web.bytes("/empty", ""),
        web.bytes("/no-archive.gz", gzip(b"text")),
        web.bytes("/cut-archive.gz", &gzip(&tar)[..60]),
        web.bytes("/no-dockerfile.tar", &tar),
        web.bytes("/text", "this is no Dockerfile\n"),
        web.put("/cut", Page { body: tar, cut: true, ..Page::default() }),
        format!("{}/missing", web.address),
        "http://127.0.0.1:1/x".to_owned(),
    ];
    let mut shown = String::new();
    for page in &pages {
        shown += &env.fails(&format!("build --progress=quiet {page}"));
        shown += "\n";
    }
    shown += &env.fails(&format!("build --progress=quiet -f {}/missing .", web.address));
    insta::assert_snapshot!(shown);
}

// Rows: B6, E9.
#[test]
fn a_named_context_is_a_directory_with_its_own_ignore_file() {
    let env = TestEnv::new();
    env.write("src/kept", "k").write("src/skipped", "s").write("src/.dockerignore", "skipped\n.dockerignore\n");
    env.write(".dockerignore", "src/kept\n");
    env.write("Dockerfile", "FROM src AS base\nFROM scratch\nCOPY --from=src . /a/\nCOPY --from=base kept /b/\n");
    env.ok(&format!("{BUILD} --build-context src=src ."));
    assert_eq!(listing(&env, "out.tar"), ["644 0:0 a/kept", "644 0:0 b/kept"]);
}

// Rows: E10.
#[test]
fn a_named_context_takes_the_place_of_a_stage_or_an_image() {
    let env = TestEnv::new();
    env.write("one/f", "1").write("two/f", "2");
    env.write("Dockerfile", "FROM scratch\nCOPY one/f /one\n");
    env.ok("build -q -t one .");
    env.write(
        "Dockerfile",
        "FROM scratch AS stage\nCOPY two/f /own\nFROM docker.io/library/tool:1.2 AS tool\nFROM scratch\n\
         COPY --from=stage / /stage/\nCOPY --from=tool / /tool/\nCOPY --from=alpine:latest / /alpine/\n",
    );
    let build = |options: &str| {
        env.ok(&format!("{BUILD} --pull=never {options} ."));
        listing(&env, "out.tar").join(" ")
    };
    let images = "--build-context tool:1.2=docker-image://one --build-context alpine=two";
    assert_eq!(build(images), "644 0:0 alpine/f 644 0:0 stage/own 644 0:0 tool/one");
    assert_eq!(
        build(&format!("{images} --build-context stage=docker-image://one")),
        "644 0:0 alpine/f 644 0:0 stage/one 644 0:0 tool/one"
    );
    assert_eq!(
        build(&format!("{images} --build-context stage=docker-image://scratch")),
        "644 0:0 alpine/f 644 0:0 tool/one"
    );
    let platform = if cfg!(target_arch = "x86_64") { "linux/amd64" } else { "linux/arm64" };
    let more = format!("--build-context alpine::{platform}=one --build-context alpine::linux/s390x=src");
    std::fs::create_dir(env.context("src")).expect("made");
    assert_eq!(build(&format!("{images} {more}")), "644 0:0 alpine/f 644 0:0 stage/own 644 0:0 tool/one");
    assert_eq!(std::fs::read(env.context("one/f")).expect("there"), b"1");
}

// Rows: E10.
#[test]
fn an_image_layout_is_a_base_and_a_source() {
    if !require_sandbox("an_image_layout_is_a_base_and_a_source") {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nENV FROM_LAYOUT=yes\nCOPY <<EOF /f\nx\nEOF\n", base()));
    env.ok("build -q -t app:v1 -o type=oci,tar=false,dest=layout,name=app:v1 .");
    let index = std::fs::read_to_string(env.context("layout/index.json")).expect("written");
    let digest = index.split("sha256:").nth(1).map(|rest| &rest[..64]).expect("a digest");
    env.write(
        "Dockerfile",
        "FROM img\nRUN echo $FROM_LAYOUT > /out\nFROM scratch\nCOPY --from=0 /out /out\nCOPY --from=img /f /f\n",
    );
    for layout in ["layout", "layout:v1", &format!("layout@sha256:{digest}")] {
        // In a store of its own: nothing may come from elsewhere.
        let mut command = env.command([
            "--root",
            "other",
            "build",
            "--progress=quiet",
            "--pull=never",
            "-o",
            "type=tar,dest=out.tar",
        ]);
        let ended = crate::env::end(command.args(["--build-context", &format!("img=oci-layout://{layout}"), "."]));
        assert_eq!(ended.code, 0, "{layout}: {}", ended.stderr);
        assert_eq!(listing(&env, "out.tar"), ["644 0:0 f", "644 0:0 out"]);
        std::fs::remove_dir_all(env.context("other")).expect("removed");
    }
    env.ok("build -q --build-context img=oci-layout://layout -t again .");
    let fails =
        |layout: &str| env.fails(&format!("build --progress=quiet --build-context img=oci-layout://{layout} ."));
    let mut shown =
        [fails("layout:v2"), fails("missing"), fails("."), fails(&format!("layout@sha256:{}", "0".repeat(64)))]
            .join("\n");
    // A layer that is not what its digest says.
    let blobs = env.context("layout/blobs/sha256");
    let largest = std::fs::read_dir(&blobs).expect("there").map(|entry| entry.expect("there").path());
    let largest = largest.max_by_key(|path| path.metadata().expect("there").len()).expect("blobs");
    let mut bytes = std::fs::read(&largest).expect("there");
    let last = bytes.len() - 100;
    bytes[last] ^= 1;
    std::fs::write(&largest, bytes).expect("written");
    shown += "\n";
    shown += &env.fails("--root other build --progress=quiet --build-context img=oci-layout://layout .");
    let shown = env.stable(&shown);
    insta::assert_snapshot!(shown);
}

#[test]
fn an_image_layout_has_an_image_for_each_platform() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY <<EOF /$TARGETARCH\nEOF\n");
    env.ok("build -q --platform linux/amd64,linux/arm64 -o type=oci,tar=false,dest=layout .");
    env.write("Dockerfile", "FROM img\nCOPY --from=img / /from/\n");
    for architecture in ["amd64", "arm64"] {
        env.ok(&format!("{BUILD} --platform linux/{architecture} --build-context img=oci-layout://layout ."));
        let expected = [format!("644 0:0 {architecture}"), format!("644 0:0 from/{architecture}")];
        assert_eq!(listing(&env, "out.tar"), expected);
    }
    let none = env.fails("build --progress=quiet --platform linux/s390x --build-context img=oci-layout://layout .");
    insta::assert_snapshot!(none);
}

// Rows: E11.
#[test]
fn an_image_that_was_just_built_is_a_base_without_a_registry() {
    let env = TestEnv::new();
    env.write("f", "x").write("Dockerfile", "FROM scratch\nCOPY f /one\n");
    env.ok("build -q -t app .");
    env.write("Dockerfile", "FROM app\nCOPY --from=app /one /two\n");
    env.ok(&format!("{BUILD} ."));
    assert_eq!(listing(&env, "out.tar"), ["644 0:0 one", "644 0:0 two"]);
}

// Rows: E15.
#[test]
fn a_context_that_changes_during_a_build_gives_one_of_its_states_or_an_error() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let env = TestEnv::new();
    let (path, new) = (env.context("big"), env.context("new"));
    let write = |byte: u8| {
        std::fs::write(&new, vec![byte; 1 << 20]).expect("written");
        std::fs::rename(&new, &path).expect("renamed");
    };
    write(b'a');
    env.write("Dockerfile", "FROM scratch\nCOPY big /1\nCOPY big /2\n");
    let stop = AtomicBool::new(false);
    let (mut good, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for byte in (b'a'..=b'z').cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                write(byte);
            }
        });
        for _ in 0..12 {
            let ended = env.rbuild(&format!("{BUILD} ."));
            if ended.code != 0 {
                assert!(ended.stderr.contains("changed") || ended.stderr.contains("no such file"), "{}", ended.stderr);
                refused += 1;
                continue;
            }
            good += 1;
            let mut archive = tar::Archive::new(std::fs::File::open(env.context("out.tar")).expect("written"));
            for entry in archive.entries().expect("a tar") {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut entry.expect("an entry"), &mut bytes).expect("readable");
                assert!(bytes.windows(2).all(|pair| pair[0] == pair[1]), "a mixed file");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(good + refused, 12);
    // The last word is that of the file as it stays.
    write(b'!');
    env.ok(&format!("{BUILD} ."));
    let mut archive = tar::Archive::new(std::fs::File::open(env.context("out.tar")).expect("written"));
    let mut first = [0];
    let mut entries = archive.entries().expect("a tar");
    std::io::Read::read_exact(&mut entries.next().expect("one").expect("an entry"), &mut first).expect("readable");
    assert_eq!(first, *b"!");
}
