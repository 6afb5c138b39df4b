//! An ordinary user, with one id only and no privileges.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;

use crate::env::{Ended, TestEnv, end, program, require_sandbox};
use crate::registry::base;

/// The user `nobody` of every Linux.
const NOBODY: u32 = 65534;

struct Nobody(TestEnv);

impl Nobody {
    /// `None`, with a reason on standard output, where this cannot be tried.
    #[expect(clippy::print_stdout, reason = "a test that skips says so")]
    fn new(test: &str) -> Option<Self> {
        if !require_sandbox(test) {
            return None;
        }
        if Command::new("setpriv").arg("--version").output().is_err() {
            println!("{test}: skipped, setpriv is not installed");
            return None;
        }
        let env = TestEnv::new();
        std::fs::copy(program(), env.path("rbuild")).expect("copied");
        for name in ["", "context", "home", "state"] {
            std::fs::set_permissions(env.path(name), std::fs::Permissions::from_mode(0o755)).expect("mode");
            chown(env.path(name), Some(NOBODY), Some(NOBODY)).expect("owner");
        }
        Some(Self(env))
    }

    fn rbuild(&self, line: &str) -> Ended {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(self.0.path("rbuild"))
            .args(line.split_whitespace())
            .current_dir(self.0.context(""))
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.0.path("home"));
        end(&mut command)
    }
}

#[test]
fn a_user_builds_runs_and_removes_images() {
    let test = "a_user_builds_runs_and_removes_images";
    let Some(nobody) = Nobody::new(test) else { return };
    nobody.0.write(
        "Dockerfile",
        format!("FROM {}\nCOPY Dockerfile /\nRUN id -u > /me && ! touch /proc/sys/kernel/hostname\n", base()),
    );
    let built = nobody.rbuild("build --progress=plain -t app:1 .");
    if built.stderr.contains("cannot create a user namespace") {
        println!("{test}: skipped, user namespaces are not allowed here");
        return;
    }
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert!(nobody.0.path("home/.local/share/rbuild/version").exists(), "the store is below the home directory");
    let again = nobody.rbuild("build --progress=plain -t app:1 .").stderr;
    assert!(again.contains("CACHED"), "{again}");
    let ran = nobody.rbuild("run app:1 cat /me");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "0\n"), "{}", ran.stderr);
    assert_eq!(nobody.rbuild("images --format {{.Repository}}").stdout, "app\n");
    for line in ["save -o app.tar app:1", "prune -a -f", "rmi app:1", "load -i app.tar"] {
        let ended = nobody.rbuild(line);
        assert_eq!(ended.code, 0, "{line}: {}", ended.stderr);
    }
}

#[test]
fn without_a_home_a_user_is_told_to_name_a_store() {
    let Some(nobody) = Nobody::new("without_a_home_a_user_is_told_to_name_a_store") else { return };
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(nobody.0.path("rbuild"))
        .arg("images")
        .env_clear();
    command.env("PATH", "/usr/bin:/bin");
    let ended = end(&mut command);
    assert_eq!(ended.code, 125);
    insta::assert_snapshot!(ended.stderr);
}
