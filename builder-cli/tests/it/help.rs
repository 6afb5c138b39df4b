//! Help is complete and fits a terminal.

use crate::env::{TestEnv, end};

const COMMANDS: [&str; 20] = [
    "build",
    "run",
    "push",
    "pull",
    "images",
    "tag",
    "rmi",
    "inspect",
    "history",
    "explain",
    "save",
    "load",
    "login",
    "logout",
    "prune",
    "du",
    "lock",
    "version",
    "debug",
    "completion",
];

#[test]
fn every_command_has_help_of_80_columns() {
    let env = TestEnv::new();
    for command in COMMANDS {
        let ended = end(env.command([command, "--help"]).env("COLUMNS", "80"));
        assert_eq!(ended.code, 0, "{command}");
        assert_eq!(ended.stderr, "");
        assert!(ended.stdout.contains("Usage: rbuild"), "{command}");
        for line in ended.stdout.lines() {
            assert!(line.chars().count() <= 100, "{command}: {line}");
        }
    }
}

#[test]
fn help_names_every_command_and_goes_to_standard_output() {
    let env = TestEnv::new();
    for line in ["--help", "-h", ""] {
        let ended = env.rbuild(line);
        assert_eq!(ended.code, 0, "`rbuild {line}`");
        let text = ended.stdout + &ended.stderr;
        for command in COMMANDS {
            assert!(text.contains(&format!("\n  {command} ")), "{command}\n{text}");
        }
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    let env = TestEnv::new();
    assert_eq!(env.ok("--version").stdout, format!("rbuild {}\n", env!("CARGO_PKG_VERSION")));
    let format = env.ok("version --format {{.Client.Version}}").stdout;
    assert_eq!(format, format!("{}\n", env!("CARGO_PKG_VERSION")));
    assert!(env.ok("version").stdout.starts_with("rbuild:\n Version:"));
}

#[test]
fn completion_scripts_are_written() {
    let env = TestEnv::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(env.ok(&format!("completion {shell}")).stdout.contains("rbuild"), "{shell}");
    }
}

/// What `docker buildx build --help` has, and its hidden flags from before `BuildKit`.
const BUILDX: [&str; 47] = [
    "--add-host",
    "--allow",
    "--annotation",
    "--attest",
    "--build-arg",
    "--build-context",
    "--builder",
    "--cache-from",
    "--cache-to",
    "--call",
    "--cgroup-parent",
    "--check",
    "--compress",
    "--cpu-period",
    "--cpu-quota",
    "--cpu-shares",
    "--cpuset-cpus",
    "--cpuset-mems",
    "--debug",
    "--file",
    "--force-rm",
    "--iidfile",
    "--isolation",
    "--label",
    "--load",
    "--memory",
    "--memory-swap",
    "--metadata-file",
    "--network",
    "--no-cache",
    "--no-cache-filter",
    "--output",
    "--platform",
    "--policy",
    "--progress",
    "--provenance",
    "--pull",
    "--push",
    "--quiet",
    "--rm",
    "--sbom",
    "--secret",
    "--security-opt",
    "--shm-size",
    "--ssh",
    "--tag",
    "--ulimit",
];

#[test]
fn every_flag_of_buildx_is_known_and_documented() {
    let reference = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/cli.md");
    let text = std::fs::read_to_string(reference).expect("readable");
    let env = TestEnv::new();
    for flag in BUILDX.iter().chain(&["--squash", "--target"]) {
        let ended = end(&mut env.command(["build", &format!("{flag}=\u{1}"), "--no-such-flag"]));
        assert!(!ended.stderr.contains(&format!("unexpected argument '{flag}")), "{flag}: {}", ended.stderr);
        assert!(text.contains(&format!("`{flag}")), "docs/reference/cli.md does not mention {flag}");
    }
}
