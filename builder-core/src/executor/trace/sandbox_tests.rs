//! Traces of real processes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::cancel::CancelToken;
use crate::executor::{Executor, Exit, Identity, Limits, Network, Process, Sandbox, SandboxOptions, Security, Stdio};
use crate::sys::mount::{Attributes, bind_path};

/// What a script of busybox looks at below `/app`, with what it says.
struct Ran {
    said: String,
    used: Vec<String>,
    missing: Vec<String>,
    gap: Option<String>,
    doubt: Option<String>,
}

fn run(script: &str, change: impl FnOnce(&mut Process)) -> Option<Ran> {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        eprintln!("skipped: needs root and /bin/busybox");
        return None;
    }
    let folder = tempfile::tempdir().expect("temporary directory");
    let at = |path: &str| folder.path().join(path);
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    for directory in ["bin", "dev", "proc", "sys", "app/src", "app/doc", "app/out"] {
        fs::create_dir_all(at(directory)).expect("made");
    }
    fs::copy("/bin/busybox", at("bin/busybox")).expect("copied");
    for applet in ["sh", "cat", "ls", "mv", "test", "true", "ln", "head", "chroot"] {
        symlink("busybox", at("bin").join(applet)).expect("linked");
    }
    for file in ["app/main.c", "app/README", "app/src/a.c", "app/src/b.c", "app/doc/1", "app/doc/2"] {
        fs::write(at(file), format!("{file}\n")).expect("written");
    }
    fs::copy("/bin/busybox", at("app/busybox")).expect("copied");
    fs::write(at("app/run"), "#!/app/busybox sh\ntrue\n").expect("written");
    fs::set_permissions(at("app/run"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    symlink("src", at("app/link")).expect("linked");
    let trace = Arc::new(Trace::default());
    let mut process = Process {
        root: bind_path(folder.path(), Attributes::empty()).expect("bound"),
        args: ["/bin/sh", "-c", script].map(|arg| arg.as_bytes().to_vec()).to_vec(),
        env: vec![(b"PATH".to_vec(), b"/app/none:/bin".to_vec())],
        cwd: RootPath::clean("app").expect("a path"),
        user: Identity::default(),
        mounts: Vec::new(),
        devices: Vec::new(),
        network: Network::None,
        hostname: "h".into(),
        security: Security::Sandbox,
        no_new_privileges: false,
        limits: Limits::default(),
        stdio: Stdio::Captured,
        trace: Some(Arc::clone(&trace)),
    };
    change(&mut process);
    let mut said = Vec::new();
    let sandbox = Sandbox::new(SandboxOptions::default());
    let exit = sandbox.run(process, &mut |_, bytes| said.extend_from_slice(bytes), &CancelToken::new());
    let said = String::from_utf8(said).expect("text");
    assert_eq!(exit.expect("ran"), Exit::Code(0), "{said}");
    let Traced { paths, gap, doubt } = trace.take();
    let app = RootPath::clean("app").expect("a path");
    let (mut used, mut missing) = (Vec::new(), Vec::new());
    for (path, seen) in paths.iter().filter(|(path, _)| path.starts_with(&app)) {
        match seen {
            PathUse::Missing => missing.push(path.to_string()),
            PathUse::Touched | PathUse::Measured => used.push(path.to_string()),
            more => used.push(format!("{more:?} {path}")),
        }
    }
    Some(Ran { said, used, missing, gap, doubt })
}

fn check(script: &str, used: &[&str], missing: &[&str]) {
    let Some(ran) = run(script, |_| {}) else { return };
    assert_eq!(ran.used, used, "{script}");
    assert_eq!(ran.missing, missing, "{script}");
    assert_eq!(ran.gap, None, "{script}");
}

#[test]
fn files_that_are_read_are_known_however_they_are_named() {
    check("read line < main.c", &["/app/main.c"], &[]);
    check("read line < /app/link/a.c", &["/app/link", "/app/src/a.c"], &[]);
    check("cd src; read line < ../doc/../main.c", &["/app/doc", "/app/main.c", "/app/src"], &[]);
    check("test -e doc/1", &["/app/doc/1"], &[]);
    check("test ! -e src/none.h", &[], &["/app/src/none.h"]);
    check("ln -s /app/src /s; read line < /s/b.c", &["/app/src/b.c"], &[]);
    check("echo > out/new", &["/app/out"], &["/app/out/new"]);
}

#[test]
fn directories_that_are_listed_or_moved_are_told_from_others() {
    check("echo src/*", &["Listed /app/src"], &[]);
    check("cd doc; for f in *; do :; done", &["Listed /app/doc"], &[]);
    check("mv src other", &["/app", "Moved /app/src"], &["/app/other"]);
}

#[test]
fn what_executes_a_script_counts() {
    check("./run", &["/app", "/app/busybox", "/app/run"], &[]);
}

#[test]
fn other_users_and_processes_in_the_background_are_traced() {
    let user = |process: &mut Process| process.user = Identity { uid: 1000, gid: 1000, groups: vec![1000] };
    let script = "(read line < src/a.c) & read line < main.c; wait; ls /proc/self/fd > /dev/null";
    let Some(ran) = run(script, user) else { return };
    assert_eq!((ran.used, ran.gap), (vec!["/app/main.c".to_owned(), "/app/src/a.c".to_owned()], None));
}

#[test]
fn a_process_sees_no_difference() {
    let script = "cat main.c; ls -la src; cat none 2>&1; ls /proc/self/fd";
    let Some(traced) = run(script, |_| {}) else { return };
    let Some(plain) = run(script, |process| process.trace = None) else { return };
    assert_eq!(traced.said, plain.said);
    assert!(plain.gap.is_some(), "it was not traced");
}

#[test]
fn what_makes_a_trace_doubtful_is_said() {
    let check = |script: &str, expected: Option<&str>| {
        let Some(ran) = run(script, |_| {}) else { return };
        assert_eq!((ran.doubt.as_deref(), ran.gap), (expected, None), "{script}");
    };
    check("cat main.c; ls /proc/self/fd > /dev/null; ln -s src s; cat s/a.c", None);
    check("ls -d /proc/self/cwd > /dev/null", Some("it asks what `/proc/self/cwd` is"));
    check(
        "echo text > new; /bin/busybox chmod 755 new; ./new || true",
        Some("what kind of program `/app/new` is, is not known"),
    );
}

#[test]
fn what_cannot_be_seen_is_said() {
    let check = |script: &str, change: fn(&mut Process), expected: &str| {
        let Some(ran) = run(script, change) else { return };
        assert_eq!(ran.gap.as_deref(), Some(expected), "{script}");
    };
    check("chroot / /bin/true", |_| {}, "it calls `chroot`");
    check("read line < /proc/self/cwd/main.c", |_| {}, "it goes through `/proc/self/cwd/main.c`");
    check(":", |process| process.security = Security::Insecure, "it runs with `--security=insecure`");
}
