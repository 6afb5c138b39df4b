//! The sandbox without root. A program of its own, because a user namespace can only be entered by a process with a
//! single thread: as root it starts itself as an ordinary user, once without and once with a range of subordinate ids.
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "it is its own test harness")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use builder_core::cancel::CancelToken;
use builder_core::diagnostic::Diagnostic;
use builder_core::executor::{
    ExecuteError, Executor, Exit, Identity, Limits, Mount, MountSource, Network, PathUse, Process, Sandbox,
    SandboxOptions, Security, Stdio, Terminal, Trace, enter_user_namespace,
};
use builder_core::rootfs::RootPath;
use builder_core::sys::mount::{Attributes, bind_path};

const BUSYBOX: &str = "/bin/busybox";
const USER: u32 = 12345;

/// In a mount namespace of its own: `/etc` with the user, and with ranges if `$1` is not empty; then this program as that user.
const AS_USER: &str = r#"
mount --make-rprivate / && cp /etc/passwd "$2/passwd" && echo "rbuildtest:x:12345:12345::/:/bin/sh" >> "$2/passwd" &&
mount --bind "$2/passwd" /etc/passwd &&
printf "$1" > "$2/subids" &&
{ [ -e /etc/subuid ] && [ -e /etc/subgid ] || { echo "skipped: there is no /etc/subuid"; exit 0; }; } &&
mount --bind "$2/subids" /etc/subuid && mount --bind "$2/subids" /etc/subgid &&
exec setpriv --reuid 12345 --regid 12345 --clear-groups "$0" inside "$2/home"
"#;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, inside, home] = args.as_slice()
        && inside == "inside"
    {
        return as_user(Path::new(home));
    }
    if args.iter().any(|arg| arg == "--list") {
        println!("rootless: test\n\n1 test, 0 benchmarks");
        return;
    }
    if !rustix::process::geteuid().is_root() || !Path::new(BUSYBOX).exists() {
        eprintln!("skipped: becoming another user needs root, and {BUSYBOX} is needed");
        return;
    }
    for (what, ranges) in [("a single id", ""), ("a range of ids", "rbuildtest:200000:65536\n")] {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = folder.path().join("home");
        fs::create_dir(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(USER), Some(USER)).unwrap();
        let program = std::env::current_exe().unwrap();
        let reachable = folder.path().join("program");
        fs::copy(program, &reachable).unwrap();
        let status = Command::new("unshare")
            .args(["-m", "sh", "-c", AS_USER])
            .arg(&reachable)
            .arg(ranges)
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(status.success(), "{what}");
        println!("rootless with {what} ... ok");
    }
}

fn as_user(home: &Path) {
    let outside = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let namespace = enter_user_namespace().unwrap_or_else(|error| panic!("{error}: {:?}", error.hint()));
    assert!(rustix::process::geteuid().is_root());
    let ranges = fs::read_to_string("/etc/subuid").unwrap();
    let root = make_root(home);
    if ranges.is_empty() {
        assert_eq!((namespace.uids, namespace.gids), (1, 1));
        let reason = namespace.single_id.as_deref().unwrap();
        assert_eq!(reason, "/etc/subuid has no range for user rbuildtest");
        let user = Identity { uid: 33, gid: 33, groups: vec![] };
        let error = try_run(Process { user, ..shell(&root, "id -u") }).unwrap_err();
        assert_eq!(error.to_string(), "cannot run as user 33, group 33");
        assert!(error.hint().unwrap().contains("/etc/subuid"));
    } else {
        assert_eq!((namespace.uids, namespace.gids, namespace.single_id), (65537, 65537, None));
        let user = Identity { uid: 33, gid: 34, groups: vec![5] };
        let said = output(Process { user, ..shell(&root, "id -u; id -G; touch /tmp/x") });
        assert_eq!(said, "33\n34 5\n");
        assert_eq!(fs::metadata(root.join("tmp/x")).unwrap().uid(), 33);
        assert_eq!(output(shell(&root, "chown 7:8 /tmp/x && stat -c %u:%g /tmp/x")), "7:8\n");
    }
    look_around(&root, !ranges.is_empty());
    assert_eq!(outside.lines().count(), fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count());
}

/// What is as for root.
fn look_around(root: &Path, nobody: bool) {
    assert_eq!(output(shell(root, "id -u; id -g; hostname; echo $$")), "0\n0\nsandboxed\n1\n");
    let status = output(shell(root, "grep -E '^(CapEff|CapBnd|Seccomp):' /proc/self/status"));
    assert_eq!(status, "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nSeccomp:\t2\n");
    let devices = output(shell(root, "ls /dev | tr '\\n' ' '; echo x > /dev/null && head -c 3 /dev/zero | wc -c"));
    assert_eq!(devices, "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero 3\n");
    assert_eq!(output(shell(root, "exec ls /proc/self/fd")), "0\n1\n2\n3\n");
    assert_eq!(
        output(shell(root, "(echo x > /sys/kernel/profiling) 2>/dev/null || ls /sys/class | grep net")),
        "net\n"
    );
    assert_eq!(output(Process { network: Network::None, ..shell(root, "ls /sys/class/net") }), "lo\n");
    let trace = Arc::new(Trace::default());
    let script = "cat /run/secret; test ! -e /run/none; cd /tmp && test -e ../bin/sh";
    let user = Identity { uid: if nobody { 33 } else { 0 }, ..Identity::default() };
    output(Process { trace: Some(Arc::clone(&trace)), user, ..shell(root, script) });
    let traced = trace.take();
    let seen = |path: &str| traced.paths.get(&RootPath::clean(path).unwrap()).copied();
    assert_eq!(
        (seen("run/secret"), seen("run/none"), seen("bin/busybox"), traced.gap.as_deref()),
        (Some(PathUse::Measured), Some(PathUse::Missing), Some(PathUse::Measured), None)
    );
    let source = MountSource::File { content: b"s3cret".to_vec(), mode: 0o400, uid: 0, gid: 0 };
    let secret = Mount { target: RootPath::clean("/run/secret").unwrap(), source, read_only: true };
    assert_eq!(output(Process { mounts: vec![secret], ..shell(root, "cat /run/secret") }), "s3cret");
    let (terminal, _controller) = Terminal::open().unwrap();
    let process = Process { stdio: Stdio::Terminal(terminal), ..shell(root, "test $(tty) = /dev/pts/0") };
    assert_eq!(run(process).unwrap().0, Exit::Code(0));
    assert_eq!(run(shell(root, "sleep 981 & exit 7")).unwrap().0, Exit::Code(7));
}

fn make_root(home: &Path) -> std::path::PathBuf {
    let root = home.join("root");
    for directory in ["bin", "dev", "proc", "sys", "tmp", "run"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("run/secret"), "").unwrap();
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    let applets = Command::new(BUSYBOX).arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(applets).unwrap().lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    root
}

fn shell(root: &Path, script: &str) -> Process {
    Process {
        root: bind_path(root, Attributes::empty()).unwrap(),
        args: ["/bin/sh", "-c", script].map(|arg| arg.as_bytes().to_vec()).to_vec(),
        env: vec![(b"PATH".to_vec(), b"/bin".to_vec())],
        cwd: RootPath::root(),
        user: Identity::default(),
        mounts: Vec::new(),
        devices: Vec::new(),
        network: Network::Host,
        hostname: "sandboxed".into(),
        security: Security::Sandbox,
        no_new_privileges: false,
        limits: Limits::default(),
        stdio: Stdio::Captured,
        trace: None,
    }
}

fn try_run(process: Process) -> Result<(Exit, String), ExecuteError> {
    let mut said = Vec::new();
    let mut keep = |_, bytes: &[u8]| said.extend_from_slice(bytes);
    let exit = Sandbox::new(SandboxOptions::default()).run(process, &mut keep, &CancelToken::new())?;
    Ok((exit, String::from_utf8(said).unwrap()))
}

fn run(process: Process) -> Result<(Exit, String), String> {
    try_run(process).map_err(|error| format!("{error}: {error:?}"))
}

fn output(process: Process) -> String {
    let (exit, said) = run(process).unwrap();
    assert_eq!(exit, Exit::Code(0), "{said}");
    said
}
