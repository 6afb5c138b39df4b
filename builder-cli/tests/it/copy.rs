//! COPY and ADD.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use crate::env::{TestEnv, require_sandbox};
use crate::registry::base;

#[test]
fn files_arrive_with_owner_mode_and_content() {
    if !require_sandbox("files_arrive_with_owner_mode_and_content") {
        return;
    }
    let env = TestEnv::new();
    env.write("a.txt", "a")
        .write("b.txt", "b")
        .write("dir/c", "c")
        .write("skip.log", "no")
        .write(".dockerignore", "*.log\nout\n");
    std::fs::set_permissions(env.context("a.txt"), std::fs::Permissions::from_mode(0o640)).expect("mode");
    env.write(
        "Dockerfile",
        format!(
            "FROM {} AS names\nFROM scratch\nCOPY --from=names /etc/passwd /etc/group /etc/\nCOPY *.txt /t/\nCOPY --chown=app:extra --chmod=600 a.txt /owned\nCOPY dir /d\n\
             COPY <<EOF /here\nhello $PATH\nEOF\nCOPY . /all/\n",
            base()
        ),
    );
    env.ok("build --progress=quiet -o out -o type=tar,dest=out.tar .");
    let read = |name: &str| std::fs::read_to_string(env.context("out").join(name)).expect("there");
    assert_eq!((read("t/a.txt"), read("t/b.txt"), read("d/c")), ("a".into(), "b".into(), "c".into()));
    assert!(read("here").starts_with("hello /usr/local/sbin:"));
    let meta = |name: &str| std::fs::metadata(env.context("out").join(name)).expect("there");
    assert_eq!(meta("t/a.txt").mode() & 0o7777, 0o640);
    // In a directory everything belongs to the caller; owners are in archives.
    let mut archive = tar::Archive::new(std::fs::File::open(env.context("out.tar")).expect("written"));
    let mut entries = archive.entries().expect("a tar").map(|entry| entry.expect("an entry"));
    let owned = entries.find(|entry| entry.path().is_ok_and(|path| path.ends_with("owned"))).expect("there");
    let header = owned.header();
    let found = (header.mode().expect("mode"), header.uid().expect("uid"), header.gid().expect("gid"));
    assert_eq!(found, (0o600, 1000, 2000));
    assert!(!env.context("out/all/skip.log").exists());
    assert!(env.context("out/all/a.txt").exists());
}

#[test]
fn archives_are_unpacked_by_add_only() {
    let env = TestEnv::new();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o644);
    archive.append_data(&mut header, "in/side", &b"hi"[..]).expect("appended");
    env.write("x.tar", archive.into_inner().expect("finished"));
    env.write("Dockerfile", "FROM scratch\nADD x.tar /added/\nCOPY x.tar /copied/\n");
    env.ok("build --progress=quiet -o out .");
    assert_eq!(std::fs::read(env.context("out/added/in/side")).expect("unpacked"), b"hi");
    assert!(env.context("out/copied/x.tar").exists());
}

#[test]
fn a_missing_source_says_why() {
    let env = TestEnv::new();
    env.write("main.c", "").write("notes.log", "").write(".dockerignore", "# comment\n*.log\n");
    let missing = env.dockerfile_fails("FROM scratch\nCOPY mian.c /\n");
    let ignored = env.dockerfile_fails("FROM scratch\nCOPY notes.log /\n");
    let outside = env.dockerfile_fails("FROM scratch\nCOPY ../secret /\n");
    let stage = env.dockerfile_fails("FROM scratch AS build\nFROM scratch\nCOPY --from=biuld /x /\n");
    insta::assert_snapshot!([missing, ignored, outside, stage].join("\n"));
}

// Rows: A86.
#[test]
fn links_do_not_lead_out_of_the_context() {
    let env = TestEnv::new();
    std::os::unix::fs::symlink("/etc/passwd", env.context("link")).expect("a link");
    env.write("Dockerfile", "FROM scratch\nCOPY link /copied\n");
    let ended = env.rbuild("build --progress=quiet -o out .");
    let copied = std::fs::symlink_metadata(env.context("out/copied"));
    assert!(ended.code != 0 || copied.expect("there").is_symlink(), "the host's file was copied");
}

#[test]
fn a_name_that_no_layer_can_hold_is_refused_where_it_is_copied() {
    let env = TestEnv::new();
    env.write("dir/.wh.secret", "");
    insta::assert_snapshot!(env.dockerfile_fails("FROM scratch\nCOPY dir /dir\n"));
}
