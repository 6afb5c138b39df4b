//! The sandbox, tried from inside: busybox looks at its surroundings and says what it sees.
//!
//! Names that begin with S, C or A are those of the contract (security notes) and of the list of features.
#![expect(clippy::print_stderr, reason = "a test says when it is skipped")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use builder_core::cancel::CancelToken;
use builder_core::diagnostic::Diagnostic;
use builder_core::executor::{
    ExecuteError, Executor, Exit, Identity, Limits, Mount, MountSource, Network, Process, Sandbox, SandboxOptions,
    Security, Stdio, Terminal,
};
use builder_core::progress::Stream;
use builder_core::rootfs::RootPath;
use builder_core::sys::mount::{Attributes, bind_path};

const BUSYBOX: &str = "/bin/busybox";

/// A root file system with busybox in it.
struct Root {
    folder: tempfile::TempDir,
}

/// `None`, with a line that says why, where the sandbox cannot work.
fn root() -> Option<Root> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: making namespaces and mounts needs root");
        return None;
    }
    if !Path::new(BUSYBOX).exists() {
        eprintln!("skipped: {BUSYBOX} is missing (package busybox-static)");
        return None;
    }
    Some(Root::new())
}

impl Root {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Afterwards: a mode that is asked for is cut by the umask.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for (directory, mode) in [
            ("bin", 0o755),
            ("dev", 0o755),
            ("proc", 0o755),
            ("sys", 0o755),
            ("etc", 0o755),
            ("tmp", 0o1777),
            ("work", 0o755),
        ] {
            fs::create_dir(folder.path().join(directory)).unwrap();
            fs::set_permissions(folder.path().join(directory), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::copy(BUSYBOX, folder.path().join("bin/busybox")).unwrap();
        let applets = Command::new(BUSYBOX).arg("--list").output().unwrap().stdout;
        for applet in String::from_utf8(applets).unwrap().lines().filter(|applet| *applet != "busybox") {
            symlink("busybox", folder.path().join("bin").join(applet)).unwrap();
        }
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn process(&self, args: &[&str]) -> Process {
        Process {
            root: bind_path(self.path(), Attributes::empty()).unwrap(),
            args: args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
            env: vec![(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())],
            cwd: RootPath::root(),
            user: Identity::default(),
            mounts: Vec::new(),
            devices: Vec::new(),
            network: Network::Host,
            hostname: "buildkitsandbox".into(),
            security: Security::Sandbox,
            no_new_privileges: false,
            limits: Limits::default(),
            stdio: Stdio::Captured,
            trace: None,
        }
    }

    fn shell(&self, script: &str) -> Process {
        self.process(&["/bin/sh", "-c", script])
    }
}

#[derive(Debug)]
struct Ran {
    exit: Exit,
    stdout: String,
    stderr: String,
}

fn try_run(process: Process) -> Result<Ran, ExecuteError> {
    let sandbox = Sandbox::new(SandboxOptions::default());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit = sandbox.run(
        process,
        &mut |stream, bytes| match stream {
            Stream::Stdout => stdout.extend_from_slice(bytes),
            Stream::Stderr => stderr.extend_from_slice(bytes),
        },
        &CancelToken::new(),
    )?;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ok(Ran { exit, stdout: text(stdout), stderr: text(stderr) })
}

fn run(process: Process) -> Ran {
    try_run(process).unwrap()
}

/// Runs what must succeed, and returns what it printed.
fn output(process: Process) -> String {
    let ran = run(process);
    assert_eq!(ran.exit, Exit::Code(0), "{ran:?}");
    ran.stdout
}

fn path(text: &str) -> RootPath {
    RootPath::clean(text).unwrap()
}

fn file(target: &str, content: &str, mode: u32) -> Mount {
    let source = MountSource::File { content: content.into(), mode, uid: 0, gid: 0 };
    Mount { target: path(target), source, read_only: true }
}

fn user(uid: u32, gid: u32, groups: &[u32]) -> Identity {
    Identity { uid, gid, groups: groups.to_vec() }
}

/// Whether any process has these arguments, each followed by NUL.
fn is_running(command_line: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| line.windows(command_line.len()).any(|part| part == command_line.as_bytes()))
    })
}

#[test]
fn exit_codes_signals_and_streams_arrive() {
    let Some(root) = root() else { return };
    let ran = run(root.shell("echo out; echo err >&2; exit 3"));
    assert_eq!((ran.exit, ran.stdout.as_str(), ran.stderr.as_str()), (Exit::Code(3), "out\n", "err\n"));
    assert_eq!(run(root.process(&["true"])).exit, Exit::Code(0));
    // The first process of a namespace gets no signal from inside that it does not handle; a child does.
    assert_eq!(run(root.shell("sh -c 'kill -SEGV $$'; exit $?")).exit, Exit::Code(139));
    let large = output(root.shell("head -c 3000000 /dev/zero | tr '\\0' x"));
    assert_eq!(large.len(), 3_000_000);
}

#[test]
fn a72_stdin_is_empty() {
    let Some(root) = root() else { return };
    assert_eq!(output(root.shell("cat; readlink /proc/self/fd/0")), "/dev/null\n");
}

// Rows: A70.
#[test]
fn s1_capabilities_are_dockers_fourteen() {
    let Some(root) = root() else { return };
    let script = "grep ^Cap /proc/self/status";
    let expected = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
                    CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\n";
    assert_eq!(output(root.shell(script)), expected);
    let expected = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
                    CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\n";
    assert_eq!(output(Process { user: user(1000, 1000, &[]), ..root.shell(script) }), expected);
}

// Rows: A70.
#[test]
fn s2_the_system_call_filter_is_on() {
    let Some(root) = root() else { return };
    assert_eq!(output(root.shell("grep ^Seccomp: /proc/self/status")), "Seccomp:\t2\n");
    assert_eq!(output(root.shell("grep ^NoNewPrivs: /proc/self/status")), "NoNewPrivs:\t0\n");
    let ran = run(root.shell("unshare -U true"));
    assert!(ran.stderr.contains("Operation not permitted"), "{ran:?}");
    assert_ne!(run(root.shell("mount -t tmpfs none /tmp")).exit, Exit::Code(0));
    let strict = Process { no_new_privileges: true, ..root.shell("grep ^NoNewPrivs: /proc/self/status") };
    assert_eq!(output(strict), "NoNewPrivs:\t1\n");
}

#[test]
fn s3_every_namespace_is_new_and_the_command_is_process_one() {
    let Some(root) = root() else { return };
    let script = "echo $$; for n in mnt pid ipc uts cgroup net; do readlink /proc/self/ns/$n; done";
    let inside = output(root.shell(script));
    let mut lines = inside.lines();
    assert_eq!(lines.next(), Some("1"));
    let outside = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_str().unwrap().to_owned();
    for namespace in ["mnt", "pid", "ipc", "uts", "cgroup"] {
        assert_ne!(lines.next().unwrap(), outside(namespace), "{namespace}");
    }
    assert_eq!(lines.next().unwrap(), outside("net"));
}

// Rows: A70.
#[test]
fn s4_what_shows_or_changes_the_host_is_masked() {
    let Some(root) = root() else { return };
    let script = "
        for f in kcore keys timer_list; do [ ! -e /proc/$f ] || wc -c < /proc/$f; done
        for d in /proc/acpi /proc/scsi /sys/firmware; do [ ! -e $d ] || ls -A $d; done
        for f in /proc/sys/kernel/hostname /proc/sys/vm/swappiness /sys/kernel/profiling; do
            (echo x > $f) 2>&1 | sed 's/.*: //'
        done";
    let said = output(root.shell(script));
    let lines: Vec<&str> = said.lines().collect();
    let (sizes, refusals) = lines.split_at(lines.len() - 3);
    assert!(!sizes.is_empty() && sizes.iter().all(|size| *size == "0"), "{said}");
    assert!(refusals.iter().all(|line| *line == "Read-only file system"), "{said}");
}

#[test]
fn s5_a_link_in_place_of_dev_or_proc_is_refused() {
    let Some(root) = root() else { return };
    let victim = tempfile::tempdir().unwrap();
    fs::write(victim.path().join("precious"), "x").unwrap();
    for name in ["dev", "proc", "sys"] {
        fs::remove_dir(root.path().join(name)).unwrap();
        symlink(victim.path(), root.path().join(name)).unwrap();
        let error = try_run(root.process(&["/bin/true"])).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot mount `/{name}`"));
        fs::remove_file(root.path().join(name)).unwrap();
        fs::create_dir(root.path().join(name)).unwrap();
    }
    assert_eq!(fs::read_dir(victim.path()).unwrap().count(), 1);
    assert_eq!(run(root.process(&["/bin/true"])).exit, Exit::Code(0));
}

#[test]
fn s6_dev_is_small_and_other_devices_do_not_open() {
    let Some(root) = root() else { return };
    let listed = output(root.shell("ls /dev | tr '\\n' ' '"));
    assert_eq!(listed, "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ");
    // A node can be made, as in any container, but not opened: neither here nor when the image brought it.
    let refused = "Operation not permitted\n";
    let memory = "mknod /tmp/mem c 1 1 && (cat /tmp/mem | head -c 1) 2>&1 | sed 's/.*: //'";
    assert_eq!(output(root.shell(memory)), refused);
    let disk = "mknod /tmp/disk b 254 0 && (head -c 1 /tmp/disk) 2>&1 | sed 's/.*: //'";
    assert_eq!(output(root.shell(disk)), refused);
    assert_eq!(output(root.shell("(head -c 1 /tmp/mem) 2>&1 | sed 's/.*: //'")), refused);
    assert_eq!(output(root.shell("mknod /tmp/null c 1 3 && echo x > /tmp/null && head -c 2 /dev/zero | wc -c")), "2\n");
}

#[test]
fn s7_no_descriptor_above_two_is_open() {
    let Some(root) = root() else { return };
    // One that is not marked close-on-exec, as an embedding program may have.
    let file = fs::File::open("/etc/hostname").unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    // ls opens the directory as 3.
    assert_eq!(output(root.shell("exec ls /proc/self/fd")), "0\n1\n2\n3\n");
}

#[test]
fn s7_a_working_directory_outside_the_root_is_refused() {
    let Some(root) = root() else { return };
    for outside in ["proc/self/fd/9", "proc/1/root", "proc/self/cwd", "none"] {
        let error = try_run(Process { cwd: path(outside), ..root.process(&["/bin/pwd"]) }).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot enter the working directory `/{outside}`"));
    }
    assert_eq!(output(Process { cwd: path("/work"), ..root.process(&["pwd"]) }), "/work\n");
}

#[test]
fn s8_no_program_of_the_host_is_executed_through_proc() {
    let Some(root) = root() else { return };
    let script = |name: &str, line: &str| {
        fs::write(root.path().join(name), line).unwrap();
        fs::set_permissions(root.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    symlink("/proc/self/exe", root.path().join("link")).unwrap();
    script("script", "#!/proc/self/exe\n");
    script("script-of-link", "#! /link  x\n");
    script("script-of-script", "#!/script\n");
    // Until the program runs, that is the one of the caller, which a step must not get a handle on.
    for program in ["/proc/self/exe", "/proc/1/exe", "/link", "/script", "/script-of-link", "/script-of-script"] {
        let error = try_run(root.process(&[program])).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot execute `{program}`: permission denied"));
    }
    script("good", "#!/bin/sh\necho fine\n");
    script("better", "#!/good\n");
    assert_eq!(output(root.process(&["/better"])), "fine\n");
}

#[test]
fn s9_the_environment_is_exactly_what_was_given() {
    let Some(root) = root() else { return };
    let env = vec![(b"A".to_vec(), b"1 = 2".to_vec()), (b"B".to_vec(), vec![])];
    assert_eq!(output(Process { env, ..root.process(&["/bin/env"]) }), "A=1 = 2\nB=\n");
}

// Rows: A69.
#[test]
fn s10_user_and_groups_are_exactly_those_given() {
    let Some(root) = root() else { return };
    let script = "id -u; id -g; id -G; echo x > /root-file";
    let ran = run(Process { user: user(1000, 1001, &[7, 8]), ..root.shell(script) });
    assert_eq!(ran.stdout, "1000\n1001\n1001 7 8\n");
    assert!(ran.stderr.contains("Permission denied") && !root.path().join("root-file").exists(), "{ran:?}");
    assert_eq!(output(root.shell("id -u; id -G")), "0\n0\n");
}

#[test]
fn nothing_of_the_host_is_above_the_root_or_below_it() {
    let Some(root) = root() else { return };
    let script = "stat -c %d:%i / /.. /../.. | sort -u | wc -l; ls /.. | grep -cx proc; \
                  awk '$5 == \"/\"' /proc/self/mountinfo | wc -l";
    // One directory, its own entries, and one mount at `/`.
    assert_eq!(output(root.shell(script)), "1\n1\n1\n");
}

#[test]
fn s12_no_mount_shows_on_the_host() {
    let Some(root) = root() else { return };
    fs::write(root.path().join("etc/hosts"), "").unwrap();
    // Other programs mount things too; the ids of mounts are unique on a machine.
    let ids = |mounts: &str| -> BTreeSet<String> {
        mounts.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    };
    let host = || ids(&fs::read_to_string("/proc/self/mountinfo").unwrap());
    let (during, inside) = std::thread::scope(|scope| {
        let mounts = vec![file("/etc/hosts", "127.0.0.1 localhost\n", 0o644)];
        let process = Process { mounts, ..root.shell("sleep 0.3; cat /proc/self/mountinfo") };
        let running = scope.spawn(|| output(process));
        std::thread::sleep(Duration::from_millis(150));
        (host(), ids(&running.join().unwrap()))
    });
    assert!(inside.len() > 10, "{inside:?}");
    assert!(during.is_disjoint(&inside), "{during:?} {inside:?}");
    assert!(host().is_disjoint(&inside));
}

#[test]
fn s13_without_network_there_is_only_loopback() {
    let Some(root) = root() else { return };
    let script = "ls /sys/class/net; ip addr show lo; ping -c1 -W1 127.0.0.1";
    let said = output(Process { network: Network::None, ..root.shell(script) });
    assert!(said.starts_with("lo\n"), "{said}");
    assert!(said.contains("inet 127.0.0.1/8") && said.contains("UP"), "{said}");
}

// Rows: A73.
#[test]
fn s14_generated_files_cover_those_of_the_image_and_leave_nothing() {
    let Some(root) = root() else { return };
    fs::write(root.path().join("etc/hosts"), "image").unwrap();
    let mounts = vec![file("/etc/hosts", "generated\n", 0o644)];
    let ran = run(Process { mounts, ..root.shell("cat /etc/hosts; echo x > /etc/hosts") });
    assert_eq!(ran.stdout, "generated\n");
    assert!(ran.stderr.contains("Read-only"), "{ran:?}");
    assert_eq!(fs::read_to_string(root.path().join("etc/hosts")).unwrap(), "image");
}

#[test]
fn s15_shared_memory_and_limits() {
    let Some(root) = root() else { return };
    let script = "df -k /dev/shm | tail -1 | awk '{print $2}'";
    assert_eq!(output(root.shell(script)), "65536\n");
    let ulimits = vec!["nofile=100:200".parse().unwrap()];
    let limits = Limits { shm_size: Some(1 << 20), ulimits, ..Limits::default() };
    let script = format!("ulimit -n; ulimit -Hn; {script}");
    assert_eq!(output(Process { limits, ..root.shell(&script) }), "100\n200\n1024\n");
}

/// Set in a process of its own with a strict umask, which is one for all threads of a process.
const STRICT_UMASK: &str = "SANDBOX_TEST_STRICT_UMASK";

#[test]
#[expect(clippy::disallowed_methods, reason = "this is how a test speaks to its own child")]
fn s15_the_umask_is_not_that_of_the_caller() {
    let Some(root) = root() else { return };
    if std::env::var_os(STRICT_UMASK).is_none() {
        let mut strict = Command::new(std::env::current_exe().unwrap());
        strict.args(["--exact", "s15_the_umask_is_not_that_of_the_caller"]).env(STRICT_UMASK, "1");
        let ended = strict.output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
        return;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let script = "umask; stat -c %a /dev/null /dev/shm /dev /dev/pts";
    assert_eq!(output(root.shell(script)), "0022\n666\n1777\n755\n755\n");
    let mounts = vec![file("/dev/pipes/script", "#!/bin/sh\necho reached\n", 0o755)];
    let process = Process { mounts, user: user(1000, 1000, &[]), ..root.process(&["/dev/pipes/script"]) };
    assert_eq!(output(process), "reached\n");
}

#[test]
fn a82_insecure_has_everything() {
    let Some(root) = root() else { return };
    let script = "grep -E '^(CapEff|Seccomp):' /proc/self/status; mount -t tmpfs none /tmp && echo mounted";
    let said = output(Process { security: Security::Insecure, ..root.shell(script) });
    let held = fs::read_to_string("/proc/self/status").unwrap();
    let held = held.lines().find(|line| line.starts_with("CapEff")).unwrap().to_owned();
    assert_eq!(said, format!("{held}\nSeccomp:\t0\nmounted\n"));
}

#[test]
fn a71_what_runs_in_the_background_ends_with_the_command() {
    let Some(root) = root() else { return };
    let start = Instant::now();
    assert_eq!(output(root.shell("sleep 987 & echo done")), "done\n");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(!is_running("sleep\x00987\0"));
}

#[test]
fn a74_to_a80_mounts_of_every_kind() {
    let Some(root) = root() else { return };
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("f"), "shared").unwrap();
    for directory in ["ro", "rw", "scratch"] {
        fs::create_dir(root.path().join(directory)).unwrap();
    }
    let bind = |target: &str, read_only| Mount {
        target: path(target),
        source: MountSource::Detached(bind_path(outside.path(), Attributes::empty()).unwrap()),
        read_only,
    };
    let scratch = MountSource::Tmpfs { size: Some(1 << 20), mode: 0o700 };
    let mounts = vec![
        bind("/ro", true),
        bind("/rw", false),
        Mount { target: path("/scratch"), source: scratch, read_only: false },
        // Targets inside a file system that starts empty are made.
        file("/scratch/deep/secret", "s3cret", 0o400),
        bind("/scratch/sub", true),
        file("/dev/pipes/script", "#!/bin/sh\necho from a script\n", 0o755),
    ];
    let script = "
        cat /ro/f; echo; (echo x > /ro/f) 2>/dev/null || echo read-only; echo y > /rw/new
        cat /scratch/deep/secret; echo; stat -c %a:%u /scratch/deep/secret; cat /scratch/sub/f; echo
        df -k /scratch | tail -1 | awk '{print $2}'; /dev/pipes/script";
    let said = output(Process { mounts, ..root.shell(script) });
    assert_eq!(said, "shared\nread-only\ns3cret\n400:0\nshared\n1024\nfrom a script\n");
    assert_eq!(fs::read_to_string(outside.path().join("new")).unwrap(), "y\n");
    assert_eq!(fs::read_dir(root.path().join("scratch")).unwrap().count(), 0);
}

#[test]
fn e21_a_link_below_another_mount_is_not_followed() {
    let Some(root) = root() else { return };
    let shared = tempfile::tempdir().unwrap();
    symlink("/etc", shared.path().join("link")).unwrap();
    symlink("work", root.path().join("link")).unwrap();
    let bind = |target: &str| Mount {
        target: path(target),
        source: MountSource::Detached(bind_path(shared.path(), Attributes::empty()).unwrap()),
        read_only: false,
    };
    let error =
        try_run(Process { mounts: vec![bind("/tmp"), bind("/tmp/link")], ..root.process(&["true"]) }).unwrap_err();
    assert_eq!(error.to_string(), "cannot mount `/tmp/link`");
    // The image's own links are, inside the root.
    assert_eq!(output(Process { mounts: vec![bind("/link")], ..root.process(&["ls", "/work"]) }), "link\n");
}

#[test]
fn a_mount_over_the_root_or_what_the_kernel_shows_is_refused() {
    let Some(root) = root() else { return };
    for target in ["/", "/proc", "/proc/sys", "/sys/firmware"] {
        let error = try_run(Process { mounts: vec![file(target, "", 0o644)], ..root.process(&["true"]) }).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot mount `{target}`"));
    }
}

#[test]
fn what_cannot_be_executed_says_why() {
    let Some(root) = root() else { return };
    let write = |name: &str, content: &str, mode| {
        fs::write(root.path().join(name), content).unwrap();
        fs::set_permissions(root.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    write("script", "#!/usr/bin/python3 -u\n", 0o755);
    write("text", "echo no interpreter line\n", 0o755);
    write("plain", "#!/bin/sh\n", 0o644);
    for (args, message, hint) in [
        (&["/bin/bash", "-c", "true"][..], "cannot execute `/bin/bash`: no such file in the image", Some("JSON form")),
        (&["nothing"], "cannot execute `nothing`: not found in PATH", None),
        (
            &["/script"],
            "cannot execute `/script`: its interpreter `/usr/bin/python3` is missing in the image",
            Some("copy"),
        ),
        (&["/text"], "cannot execute `/text`: exec format error", Some("platform")),
        (&["/plain"], "cannot execute `/plain`: permission denied", Some("chmod")),
        (&["/etc"], "cannot execute `/etc`: is a directory", None),
        (&[], "the command is empty", None),
        (&["/bin/echo", "a\0b"], "an argument holds a NUL byte", None),
    ] {
        let error = try_run(root.process(args)).unwrap_err();
        assert_eq!(error.to_string(), message);
        match hint {
            Some(part) => assert!(error.hint().unwrap().contains(part), "{:?}", error.hint()),
            None => assert_eq!(error.hint(), None),
        }
    }
}

#[test]
fn a_program_that_is_still_open_for_writing_is_waited_for() {
    let Some(root) = root() else { return };
    // As a child of another thread has it, that was cloned while a COPY wrote the program and is being set up.
    let script = "exec 3>>\"$0\"; echo ready; sleep 0.1";
    let mut other = Command::new("sh");
    other.args(["-c", script]).arg(root.path().join("bin/busybox"));
    let mut other = other.stdout(std::process::Stdio::piped()).spawn().unwrap();
    other.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    assert_eq!(output(root.shell("echo ran")), "ran\n");
    other.wait().unwrap();
}

#[test]
fn the_host_name_is_that_given() {
    let Some(root) = root() else { return };
    assert_eq!(output(root.process(&["hostname"])), "buildkitsandbox\n");
}

/// Cancels a script after a moment and returns how long its end took.
fn cancelled(root: &Root, script: &str) -> Duration {
    let cancel = CancelToken::new();
    let process = root.shell(script);
    std::thread::scope(|scope| {
        let run = scope.spawn(|| Sandbox::new(SandboxOptions::default()).run(process, &mut |_, _| {}, &cancel));
        std::thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        cancel.cancel();
        assert!(matches!(run.join().unwrap(), Err(ExecuteError::Cancelled(_))));
        start.elapsed()
    })
}

#[test]
fn c4_a_cancel_asks_first_and_kills_two_seconds_later() {
    let Some(root) = root() else { return };
    let polite = cancelled(&root, "trap 'echo got it > /tmp/term; exit 0' TERM; while true; do sleep 0.05; done");
    assert!(polite < Duration::from_millis(1500), "{polite:?}");
    assert!(root.path().join("tmp/term").exists());
    // Nothing would come of asking: it has no handler, and the kernel spares the first process of a namespace.
    let deaf = cancelled(&root, "exec sleep 986");
    assert!(deaf < Duration::from_millis(1500), "{deaf:?}");
    let stubborn = cancelled(&root, "trap '' TERM; sleep 986; sleep 986");
    assert!(stubborn > Duration::from_millis(1900) && stubborn < Duration::from_secs(5), "{stubborn:?}");
    assert!(!is_running("sleep\x00986\0"));
}

#[test]
fn a_cancelled_build_starts_nothing() {
    let Some(root) = root() else { return };
    let cancel = CancelToken::new();
    cancel.cancel();
    let sandbox = Sandbox::new(SandboxOptions::default());
    let result = sandbox.run(root.process(&["touch", "/tmp/x"]), &mut |_, _| {}, &cancel);
    assert!(matches!(result, Err(ExecuteError::Cancelled(_))));
    assert!(!root.path().join("tmp/x").exists());
}

/// Cgroups that a process made, by its id.
fn cgroups_of(pid: u32) -> Vec<String> {
    let name = format!("rbuild-{pid}-*");
    let found = Command::new("find").args(["/sys/fs/cgroup", "-maxdepth", "6", "-name", &name]).output();
    String::from_utf8(found.unwrap().stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a84_memory_and_process_limits_hold() {
    let Some(root) = root() else { return };
    let limits = Limits { memory: Some(16 << 20), ..Limits::default() };
    match try_run(Process { limits, ..root.shell("head -c 100000000 /dev/zero | tail") }) {
        Ok(ran) => assert_eq!(ran.exit, Exit::OutOfMemory, "{ran:?}"),
        Err(error @ ExecuteError::Limit { .. }) => eprintln!("skipped: {error}"),
        Err(error) => panic!("{error}"),
    }
    let limits = Limits { pids: Some(5), ..Limits::default() };
    match try_run(Process { limits, ..root.shell("for i in 1 2 3 4 5 6 7 8; do sleep 1 & done") }) {
        Ok(ran) => assert!(ran.stderr.contains("fork"), "{ran:?}"),
        Err(error @ ExecuteError::Limit { .. }) => eprintln!("skipped: {error}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a84_the_cgroup_is_made_below_the_parent_asked_for() {
    let Some(root) = root() else { return };
    let parent = format!("rbuild-test-{}", std::process::id());
    let limits = Limits { cgroup_parent: Some(format!("/{parent}/inner")), ..Limits::default() };
    // On a host with only cgroup v2 the hierarchy is the directory itself.
    let hierarchies = || {
        let below = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        below.chain([PathBuf::from("/sys/fs/cgroup")]).map(|hierarchy| hierarchy.join(&parent))
    };
    let find = || {
        let found = hierarchies().filter_map(|made| fs::read_dir(made.join("inner")).ok()).flatten().flatten();
        found.filter(|entry| entry.path().is_dir()).map(|entry| entry.path().display().to_string()).collect::<String>()
    };
    let during = std::thread::scope(|scope| {
        let run = scope.spawn(|| try_run(Process { limits, ..root.shell("sleep 0.5") }));
        std::thread::sleep(Duration::from_millis(300));
        let during = find();
        run.join().unwrap().map(|_| during)
    });
    match during {
        Ok(during) => assert!(during.contains("/inner/rbuild-"), "{during}"),
        Err(error @ ExecuteError::Limit { .. }) => eprintln!("skipped: {error}"),
        Err(error) => panic!("{error}"),
    }
    assert_eq!(find(), "");
    // The parent itself is the caller's to remove.
    for made in hierarchies().filter(|made| made.exists()) {
        fs::remove_dir(made.join("inner")).unwrap();
        fs::remove_dir(&made).unwrap();
    }
}

#[test]
fn a_terminal_is_the_console_and_the_controlling_terminal() {
    let Some(root) = root() else { return };
    let (terminal, controller) = Terminal::open().unwrap();
    let script = "tty; ls -l /dev/console | cut -c1; test -t 1 && echo yes > /dev/tty";
    let process = Process { stdio: Stdio::Terminal(terminal), ..root.shell(script) };
    let sandbox = Sandbox::new(SandboxOptions::default());
    let exit = sandbox.run(process, &mut |_, _| panic!("nothing is captured"), &CancelToken::new());
    assert_eq!(exit.unwrap(), Exit::Code(0));
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    // One read may give a part of it; at the end comes an error, because nobody holds the other end any more.
    while let Ok(length @ 1..) = rustix::io::read(&controller, &mut piece) {
        said.extend_from_slice(&piece[..length]);
    }
    assert_eq!(String::from_utf8_lossy(&said), "/dev/pts/0\r\nc\r\nyes\r\n");
}

/// Set in the process that a test kills; arguments are separated by `|`.
const VICTIM: &str = "SANDBOX_TEST_VICTIM";

/// Not a test by itself: runs what the variable says until somebody ends it.
#[test]
#[expect(clippy::disallowed_methods, reason = "this is how a test speaks to its own child")]
fn victim() {
    let Ok(script) = std::env::var(VICTIM) else { return };
    let Some(root) = root() else { return };
    fs::set_permissions(root.path().join("bin/busybox"), fs::Permissions::from_mode(0o4755)).unwrap();
    let args: Vec<&str> = script.split('|').collect();
    let process = Process { user: user(1000, 1000, &[]), stdio: Stdio::Inherit, ..root.process(&args) };
    let _ = Sandbox::new(SandboxOptions::default()).run(process, &mut |_, _| {}, &CancelToken::new());
}

/// A process that runs `args`, separated by `|`, in the sandbox.
fn victim_that_runs(args: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "victim", "--nocapture"]).env(VICTIM, args).env("TMPDIR", folder);
    command
}

#[test]
fn inherited_streams_are_those_of_the_caller() {
    if root().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input");
    fs::write(&input, "from the caller\n").unwrap();
    let mut victim = victim_that_runs("/bin/sh|-c|cat; echo err >&2", folder.path());
    let output = victim.stdin(fs::File::open(&input).unwrap()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("from the caller\n"), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("err\n"), "{output:?}");
}

/// Starts a process that runs `args` in the sandbox, kills it, and sees what is left.
fn kill_sandbox_that_runs(args: &str, command_line: &str) {
    let folder = tempfile::tempdir().unwrap();
    let victim = victim_that_runs(args, folder.path()).stdout(std::process::Stdio::null()).spawn().unwrap();
    let mut victim = Killed(victim);
    let pid = victim.0.id();
    wait_until("the command runs", || is_running(command_line));
    wait_until("there is a watcher", || others_of(pid, args) == 1);
    // It hears of the process right after it starts.
    std::thread::sleep(Duration::from_millis(200));
    victim.0.kill().unwrap();
    victim.0.wait().unwrap();
    wait_until("the command is gone", || !is_running(command_line));
    wait_until("its cgroups are gone", || cgroups_of(pid).is_empty());
    wait_until("the watcher is gone", || others_of(pid, args) == 0);
}

/// Ends a child in any case.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How many processes have the variable set to `args`, other than `pid`: its watcher, which has the same memory.
fn others_of(pid: u32, args: &str) -> usize {
    let pid = pid.to_string();
    let variable = format!("{VICTIM}={args}\0");
    let has_variable =
        |environment: Vec<u8>| environment.windows(variable.len()).any(|part| part == variable.as_bytes());
    let others = fs::read_dir("/proc").unwrap().flatten().filter(|entry| entry.file_name().to_str() != Some(&pid));
    others.filter(|entry| fs::read(entry.path().join("environ")).is_ok_and(has_variable)).count()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "not within twenty seconds: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn c3_a_killed_sandbox_takes_its_processes_along() {
    if root().is_none() {
        return;
    }
    kill_sandbox_that_runs("/bin/sh|-c|sleep 984 & sleep 985; true", "sleep\x00984\0");
    // Setuid, and another user: that makes the kernel forget the death signal of the first process.
    kill_sandbox_that_runs("/bin/sleep|983", "sleep\x00983\0");
}

#[test]
fn no_cgroup_is_left_behind() {
    let Some(root) = root() else { return };
    let limits = Limits { pids: Some(20), ..Limits::default() };
    match try_run(Process { limits, ..root.shell("sleep 0.5 & true") }) {
        Ok(ran) => assert_eq!(ran.exit, Exit::Code(0), "{ran:?}"),
        Err(error @ ExecuteError::Limit { .. }) => eprintln!("skipped: {error}"),
        Err(error) => panic!("{error}"),
    }
    // Other tests of this process have theirs at the same time; none of them takes that long.
    let names = cgroups_of(std::process::id());
    wait_until("all cgroups of now are gone", || {
        let now = cgroups_of(std::process::id());
        names.iter().all(|name| !now.contains(name))
    });
}
