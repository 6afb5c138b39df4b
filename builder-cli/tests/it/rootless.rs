//! An ordinary user, with one id only or with a range of them, and no privileges.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::env::{Ended, TestEnv, end, lines_of_steps, program, require_sandbox};
use crate::registry::base;

const USER: u32 = 12345;

/// In a mount namespace of its own: `/etc` with the user, and with the ranges of ids `$1`; a node for virtual networks that everybody may open,
/// as `udev` makes it; then the command as that user.
const AS_USER: &str = r#"
set -e
mount --make-rprivate /
folder=$1
cp /etc/passwd "$folder/passwd"
echo "rbuildtest:x:12345:12345::/:/bin/sh" >> "$folder/passwd"
mount --bind "$folder/passwd" /etc/passwd
for file in subuid subgid; do [ ! -e /etc/$file ] || mount --bind "$folder/subids" /etc/$file; done
[ -e "$folder/net/tun" ] || { mknod "$folder/net/tun" c 10 200 && chmod 666 "$folder/net/tun"; }
[ ! -e /dev/net/tun ] || mount --bind "$folder/net" /dev/net
[ -z "$CGROUP" ] || echo $$ > "$CGROUP/cgroup.procs"
shift
exec setpriv --reuid 12345 --regid 12345 --clear-groups "$@"
"#;

/// How many ids the user has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    One,
    Range,
}

struct User(TestEnv);

impl User {
    /// `None`, with a reason on standard output, where this cannot be tried.
    #[expect(clippy::print_stdout, reason = "a test that skips says so")]
    fn new(test: &str, ids: Ids) -> Option<Self> {
        if !require_sandbox(test) {
            return None;
        }
        if Command::new("setpriv").arg("--version").output().is_err() {
            println!("{test}: skipped, setpriv is not installed");
            return None;
        }
        let there = |path: &str| std::path::Path::new(path).exists();
        if ids == Ids::Range && !(there("/etc/subuid") && there("/etc/subgid") && there("/usr/bin/newuidmap")) {
            println!("{test}: skipped, there is no /etc/subuid, or no newuidmap");
            return None;
        }
        let env = TestEnv::new();
        std::fs::copy(program(), env.path("rbuild")).expect("copied");
        std::fs::write(env.path("subids"), if ids == Ids::Range { "rbuildtest:200000:65536\n" } else { "" })
            .expect("written");
        std::fs::create_dir(env.path("net")).expect("made");
        for name in ["", "context", "home", "state", "net"] {
            std::fs::set_permissions(env.path(name), std::fs::Permissions::from_mode(0o755)).expect("mode");
            chown(env.path(name), Some(USER), Some(USER)).expect("owner");
        }
        let user = Self(env);
        let tried = user.rbuild("run --pull=never none:1");
        if tried.stderr.contains("cannot create a user namespace") {
            println!("{test}: skipped, user namespaces are not allowed here");
            return None;
        }
        Some(user)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c", AS_USER, "sh"])
            .arg(self.0.path(""))
            .arg(self.0.path("rbuild"))
            .current_dir(self.0.context(""))
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.0.path("home"));
        command
    }

    fn rbuild(&self, line: &str) -> Ended {
        end(self.command().args(line.split_whitespace()))
    }

    /// Builds `body` on the base image; gives what its steps wrote.
    fn build(&self, body: &str, options: &str) -> Ended {
        self.0.write("Dockerfile", format!("FROM {}\n{body}\n", base()));
        self.rbuild(&format!("build --progress=plain --no-cache {options} ."))
    }

    /// As [`User::build`]; it has to succeed. Gives the lines that begin with `say`.
    fn says(&self, body: &str, options: &str) -> Vec<String> {
        let built = self.build(body, options);
        assert_eq!(built.code, 0, "{}", built.stderr);
        lines_of_steps(&built.stderr, "say").into_iter().map(str::to_owned).collect()
    }
}

#[test]
fn a_user_builds_runs_and_removes_images() {
    let Some(user) = User::new("a_user_builds_runs_and_removes_images", Ids::One) else { return };
    user.0.write(
        "Dockerfile",
        format!("FROM {}\nCOPY Dockerfile /\nRUN id -u > /me && ! touch /proc/sys/kernel/hostname\n", base()),
    );
    let built = user.rbuild("build --progress=plain -t app:1 .");
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert!(user.0.path("home/.local/share/rbuild/version").exists(), "the store is below the home directory");
    let again = user.rbuild("build --progress=plain -t app:1 .").stderr;
    assert!(again.contains("CACHED"), "{again}");
    let ran = user.rbuild("run app:1 cat /me");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "0\n"), "{}", ran.stderr);
    assert_eq!(user.rbuild("images --format {{.Repository}}").stdout, "app\n");
    for line in ["save -o app.tar app:1", "prune -a -f", "rmi app:1", "load -i app.tar"] {
        let ended = user.rbuild(line);
        assert_eq!(ended.code, 0, "{line}: {}", ended.stderr);
    }
}

#[test]
fn root_leaves_nothing_in_the_store_of_a_user() {
    let Some(user) = User::new("root_leaves_nothing_in_the_store_of_a_user", Ids::One) else { return };
    user.0.write("Dockerfile", format!("FROM {}\nRUN true\n", base()));
    assert_eq!(user.rbuild("build -q -t app .").code, 0);
    for line in ["build -q .", "prune -f"] {
        let refused = user.0.fails(&format!("--root ../home/.local/share/rbuild {line}"));
        let said = "/home/.local/share/rbuild belongs to user 12345, and this is user 0\nhint: build as user 12345, or";
        assert!(refused.contains(said), "{line}: {refused}");
    }
    let seen = user.0.ok("--root ../home/.local/share/rbuild images --format {{.Repository}}").stdout;
    assert_eq!(seen, "app\n", "looking is no harm");
    assert_eq!(user.rbuild("build -q --no-cache .").code, 0);
}

#[test]
fn without_a_home_a_user_is_told_to_name_a_store() {
    let Some(user) = User::new("without_a_home_a_user_is_told_to_name_a_store", Ids::One) else { return };
    let ended = end(user.command().env_remove("HOME").arg("images"));
    assert_eq!(ended.code, 125);
    insta::assert_snapshot!(ended.stderr);
}

/// Mounts of every kind, whose files belong to the user of the step.
fn mounts(uid: u32) -> String {
    format!(
        "RUN --mount=type=secret,id=key,uid={uid} --mount=type=cache,target=/c,uid={uid} --mount=type=tmpfs,target=/t \
         --mount=type=bind,rw,target=/b --mount=type=ssh,uid={uid} \
         touch /c/x /t/x /b/x && test -S $SSH_AUTH_SOCK && echo say $(stat -c %u /run/secrets/key /c $SSH_AUTH_SOCK) $(cat /run/secrets/key)"
    )
}

#[test]
fn a_user_s_steps_have_mounts_networks_and_limits() {
    for ids in [Ids::One, Ids::Range] {
        let Some(user) = User::new("a_user_s_steps_have_mounts_networks_and_limits", ids) else { return };
        std::fs::write(user.0.path("secret"), "hush").expect("written");
        let _agent = UnixListener::bind(user.0.path("agent")).expect("bound");
        let given = format!(
            "--secret id=key,src={} --ssh default={} --ulimit nofile=64 --shm-size 1m",
            user.0.path("secret").display(),
            user.0.path("agent").display()
        );
        let more = "RUN --network=none echo say $(grep -c : /proc/net/dev)\n\
                    RUN echo say $(ulimit -n) $(df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2)";
        let said = user.says(&format!("{}\n{more}", mounts(0)), &given);
        assert_eq!(said, ["0 0 0 hush", "1", "64 1024"]);
        let body = format!("{}\nUSER 7:8\nRUN echo say $(id -u) $(id -G)", mounts(7));
        if ids == Ids::Range {
            assert_eq!(user.says(&body, &given), ["7 7 7 hush", "7 8"]);
        } else {
            let refused = user.build(&body, &given).stderr;
            assert!(
                refused.contains("cannot belong to user 7, group 0") && refused.contains("/etc/subuid"),
                "{refused}"
            );
            let refused = user.build("USER 7\nRUN true", "").stderr;
            assert!(refused.contains("cannot run as user 7, group 0") && refused.contains("/etc/subuid"), "{refused}");
        }
        let refused = user.build("RUN true", "--ulimit nofile=4294967295").stderr;
        assert!(refused.contains("only root can raise a limit"), "{refused}");
        if std::path::Path::new("/sys/fs/cgroup").exists() {
            let refused = user.build("RUN true", "--memory 64m").stderr;
            assert!(refused.contains("cannot limit memory") && refused.contains("hint: "), "{refused}");
        }
    }
}

#[test]
fn a82_a_user_s_insecure_step_has_all_of_its_namespace_and_nothing_of_the_host() {
    let test = "a82_a_user_s_insecure_step_has_all_of_its_namespace_and_nothing_of_the_host";
    let Some(user) = User::new(test, Ids::One) else { return };
    let step = "RUN --security=insecure mkdir /m && mount -t tmpfs none /m && echo say mounted; \
                ! mknod /node c 1 3 2>/dev/null && ! chroot /proc/1/root/../.. test -e /etc/shadow && echo say kept; \
                echo say $(grep CapEff /proc/self/status)\n\
                RUN --device=test.example/zero=z head -c 4 /dev/given | wc -c | sed 's/^/say /'";
    let spec = r#"{"cdiVersion": "0.6.0", "kind": "test.example/zero", "devices": [{"name": "z", "containerEdits":
                  {"deviceNodes": [{"path": "/dev/given", "hostPath": "/dev/zero"}]}}]}"#;
    std::fs::create_dir(user.0.path("cdi"))
        .and_then(|()| std::fs::write(user.0.path("cdi/z.json"), spec))
        .expect("made");
    let given = format!("--allow security.insecure --allow device --cdi-spec-dir {}", user.0.path("cdi").display());
    let said = user.says(step, &given);
    assert_eq!((said[0].as_str(), said[1].as_str()), ("mounted", "kept"));
    assert!(said[2].starts_with("CapEff: 000001ff"), "{said:?}");
    assert_eq!(said[3], "4");
    let refused = user.build(step, "--allow device").stderr;
    assert!(refused.contains("entitlement security.insecure is not allowed"), "{refused}");
}

/// A cgroup that belongs to the user, as `systemd-run --user --scope` makes it; removed with this.
struct Delegated(std::path::PathBuf);

impl Delegated {
    /// `None`, with a reason on standard output, where there is none to give.
    #[expect(clippy::print_stdout, reason = "a test that skips says so")]
    fn new(test: &str, name: &str) -> Option<Self> {
        let root = std::path::Path::new("/sys/fs/cgroup");
        if !root.join("cgroup.controllers").exists() {
            println!("{test}: skipped, this machine has cgroup v1: scripts/on-kernel has v2");
            return None;
        }
        let slice = root.join(name);
        let delegated = Self(slice.clone());
        let made = std::fs::write(root.join("cgroup.subtree_control"), "+cpu +memory +pids")
            .and_then(|()| std::fs::create_dir(&slice))
            .and_then(|()| std::fs::write(slice.join("cgroup.subtree_control"), "+cpu +memory +pids"))
            .and_then(|()| std::fs::create_dir_all(slice.join("user/scope")));
        if let Err(error) = made {
            println!("{test}: skipped, cgroups cannot be made: {error}");
            return None;
        }
        for path in ["user", "user/scope"] {
            for file in ["", "cgroup.procs", "cgroup.subtree_control"] {
                chown(slice.join(path).join(file), Some(USER), Some(USER)).expect("owner");
            }
        }
        Some(delegated)
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for path in ["user/scope", "user", ""] {
            let _ = std::fs::remove_dir(self.0.join(path));
        }
    }
}

#[test]
fn a_user_with_a_cgroup_of_its_own_has_limits() {
    let test = "a_user_with_a_cgroup_of_its_own_has_limits";
    let Some(user) = User::new(test, Ids::One) else { return };
    let Some(delegated) = Delegated::new(test, &user.0.mark()) else { return };
    let build = |step: &str, options: &str| {
        user.0.write("Dockerfile", format!("FROM {}\nRUN {step}\n", base()));
        let line = format!("build --progress=plain --no-cache {options} .");
        end(user
            .command()
            .env("CGROUP", delegated.0.join("user/scope"))
            .args(line.split(' ').filter(|word| !word.is_empty())))
    };
    let show =
        "cd /sys/fs/cgroup; for file in pids.max memory.max cpu.max; do [ ! -e $file ] || echo say $(cat $file); done";
    let said = |options: &str| {
        let built = build(show, options);
        lines_of_steps(&built.stderr, "say").into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(said(""), ["16384"], "a limit of tasks that nobody asked for");
    assert_eq!(said("--cpu-quota 50000 --pids-limit 9"), ["9", "50000 100000"]);
    // What was handed on before stays so.
    assert_eq!(said("--memory 64m"), ["16384", "67108864", "max 100000"]);
    let failed = build("head -c 100000000 /dev/zero | tail", "--memory 16m");
    assert!(failed.stderr.contains("out of memory: killed by the kernel"), "{}", failed.stderr);
    let kind = std::fs::read_to_string(delegated.0.join("user/scope/cgroup.type")).expect("readable");
    assert_eq!(kind, "domain\n", "the cgroup of the caller is as it was");
}

/// An archive with a device, a setuid program of another owner, and a file with a capability.
fn archive(env: &TestEnv) {
    let script = "mkdir d && mknod d/null c 1 3 && echo x > d/setuid && chown 5:6 d/setuid && chmod 4755 d/setuid && echo x > d/cap && \
                  setcap cap_net_raw+ep d/cap && tar --xattrs --xattrs-include='*' -cf context/d.tar d";
    let made = end(Command::new("sh").args(["-ec", script]).current_dir(env.path("")));
    assert_eq!(made.code, 0, "tar, and setcap of libcap2-bin: {}", made.stderr);
}

#[test]
fn what_a_user_cannot_make_is_in_the_image_all_the_same() {
    for ids in [Ids::One, Ids::Range] {
        let Some(user) = User::new("what_a_user_cannot_make_is_in_the_image_all_the_same", ids) else { return };
        archive(&user.0);
        let built = user.build("ADD d.tar /\nRUN ls /d", "-o type=tar,dest=out.tar");
        assert_eq!(built.code, 0, "{}", built.stderr);
        let list = end(Command::new("tar")
            .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-tvvf"])
            .arg(user.0.context("out.tar"))
            .arg("d"));
        let has = |parts: &[&str]| list.stdout.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(has(&["crw-r--r--", " 0/0 ", " 1,3 ", "d/null"]), "{}", list.stdout);
        assert!(has(&["-rwsr-xr-x", " 5/6 ", "d/setuid"]), "{}", list.stdout);
        assert!(has(&["security.capability"]), "{}", list.stdout);
    }
}

// Rows: P5.
#[test]
fn capabilities_in_a_context_survive_the_copy_of_a_user() {
    for ids in [Ids::One, Ids::Range] {
        let Some(user) = User::new("capabilities_in_a_context_survive_the_copy_of_a_user", ids) else { return };
        user.0.write("cap", "x").write(".dockerignore", "out.tar\n");
        let made = end(Command::new("setcap").arg("cap_net_raw+ep").arg(user.0.context("cap")));
        assert_eq!(made.code, 0, "setcap of libcap2-bin: {}", made.stderr);
        let copies = "COPY cap /plain\nCOPY --chown=5:6 cap /owned\nCOPY --from=0 --chown=5:6 /plain /staged";
        let line = format!("FROM scratch AS stage\nCOPY cap /plain\nFROM {}\n{copies}\n", base());
        user.0.write("Dockerfile", line);
        let built = user.rbuild("build -q -o type=tar,dest=out.tar .");
        assert_eq!(built.code, 0, "{}", built.stderr);
        let mut list = Command::new("tar");
        let list = end(list.args(["--xattrs", "--xattrs-include=*", "-tvvf"]).arg(user.0.context("out.tar"))).stdout;
        assert_eq!(list.matches("security.capability").count(), 3, "{list}");
    }
}

// Rows: P3.
#[test]
fn what_is_deleted_and_replaced_gives_a_user_the_image_of_root() {
    let steps = "COPY tree /t\n\
        RUN cd /t && rm -r gone sub/a dir && mkdir gone && echo new > gone/new && echo file > dir && ln keep hard && mv old elsewhere\n\
        RUN rm -r /t/gone /t/dir /t/hard && ln -s keep /t/dir\n\
        RUN rm -r /t && mkdir /t && echo last > /t/last\n";
    let plant = |env: &TestEnv| {
        env.write("Dockerfile", format!("FROM {}\n{steps}", base()));
        for name in ["gone/x", "sub/a", "sub/b", "dir/x", "keep", "old/deep/x"] {
            env.write(&format!("tree/{name}"), name);
        }
    };
    let line = "build -q --timestamp 1000000000 --context-mode=git .";
    for ids in [Ids::One, Ids::Range] {
        let test = "what_is_deleted_and_replaced_gives_a_user_the_image_of_root";
        let Some(user) = User::new(test, ids) else { return };
        let root = TestEnv::new();
        plant(&root);
        plant(&user.0);
        let built = user.rbuild(line);
        assert_eq!(built.code, 0, "{}", built.stderr);
        assert_eq!(built.stdout, root.ok(line).stdout, "{ids:?}");
    }
}

#[test]
fn a_user_s_contexts_may_be_archives_and_repositories() {
    let Some(user) = User::new("a_user_s_contexts_may_be_archives_and_repositories", Ids::Range) else { return };
    user.0.write("Dockerfile", format!("FROM {}\nCOPY . /c\nRUN test -e /c/file\n", base())).write("file", "x");
    let script = "git init -q && git add . && git -c user.name=t -c user.email=t@test.example commit -qm one && tar -cf ../context.tar file Dockerfile";
    let made = end(Command::new("setpriv")
        .args(["--reuid", "12345", "--regid", "12345", "--clear-groups", "sh", "-ec", script])
        .env("HOME", user.0.path("home"))
        .current_dir(user.0.context("")));
    assert_eq!(made.code, 0, "git: {}", made.stderr);
    let built = user.rbuild(&format!("build -q file://{}", user.0.context(".git").display()));
    assert_eq!(built.code, 0, "{}", built.stderr);
    let archive = std::fs::File::open(user.0.path("context.tar")).expect("made");
    let built = end(user.command().args(["build", "-q", "-"]).stdin(archive));
    assert_eq!(built.code, 0, "{}", built.stderr);
}

#[test]
fn s13_a_user_s_private_network_reaches_out_but_not_the_host() {
    let test = "s13_a_user_s_private_network_reaches_out_but_not_the_host";
    let Some(user) = User::new(test, Ids::One) else { return };
    if !std::path::Path::new("/dev/net/tun").exists() {
        println!("{test}: skipped, there is no /dev/net/tun");
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("set");
    let port = listener.local_addr().expect("bound").port();
    let step = format!(
        "RUN echo say $(grep -c : /proc/net/dev) $(grep ^nameserver /etc/resolv.conf); \
         ! busybox nc -w 1 127.0.0.1 {port} </dev/null; ! busybox nc -w 1 10.0.2.2 {port} </dev/null; true"
    );
    assert_eq!(user.says(&step, "--network=private"), ["2 nameserver 10.0.2.3"]);
    assert!(listener.accept().is_err(), "a step reached the host's loopback");
}

#[test]
fn a_user_s_copy_is_the_difference_from_the_one_before() {
    for ids in [Ids::One, Ids::Range] {
        let Some(user) = User::new("a_user_s_copy_is_the_difference_from_the_one_before", ids) else { return };
        for number in 0..100 {
            user.0.write(&format!("src/f{number}"), format!("{number:07}\n").repeat(2048));
        }
        let dockerfile = "COPY src /src\nRUN ls /src | wc -l > /n && cat /src/f1 >> /n\n";
        user.0.write("Dockerfile", format!("FROM {}\n{dockerfile}", base()));
        let built = user.rbuild("build -q -t app .");
        assert_eq!(built.code, 0, "{}", built.stderr);
        user.0.write("src/f1", "changed\n");
        std::fs::remove_file(user.0.context("src/f2")).expect("removed");
        let built = user.rbuild("build -q -t app .");
        assert_eq!(built.code, 0, "{}", built.stderr);
        assert_eq!(user.rbuild("run app cat /n").stdout, "99\nchanged\n");
        let verified = user.rbuild("cache verify");
        assert!(verified.stdout.ends_with("Nothing is damaged\n"), "{}{}", verified.stdout, verified.stderr);
        let snapshots = std::fs::read_dir(user.0.path("home/.local/share/rbuild/snapshots")).expect("listed");
        let derived = snapshots.filter(|entry| entry.as_ref().expect("listed").path().join("delta").exists());
        assert_eq!(derived.count(), 1);
    }
}
