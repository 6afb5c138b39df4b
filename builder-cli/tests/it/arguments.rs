//! What is wrong with a command line gets one clear error and exit code 125.

use crate::env::{TestEnv, end};

#[test]
fn errors_of_the_command_line() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\n");
    let lines = [
        "build --no-such-flag .",
        "build",
        "build . extra",
        "imagse",
        "buidl -t app .",
        "build --tga x .",
        "build --progress=fancy .",
        "build -t Not/Valid .",
        "build -t app:1@sha256:1 .",
        "build --output type=oic,dest=x .",
        "build --output type=local .",
        "build --secret src=x .",
        "build --secret id=a,src=missing .",
        "build --add-host x .",
        "build --ulimit files=1 .",
        "build --memory lots .",
        "build --platform linux/amd64,linux/arm64 --build-arg BUILDKIT_MULTI_PLATFORM=0 .",
        "build --platform x/y/z/w .",
        "build --cache-to type=local,src=x .",
        "build --ssh default .",
        "build --sbom .",
        "build --no-cache --no-cache-filter a .",
        "build --network bridge .",
        "build --push .",
        "build missing",
        "build Dockerfile",
        "build gopher://example.com/repo",
        "build -f missing .",
        "images --filter x",
        "images --filter color=red",
        "images --format {{.ID",
        "login a/b",
        "tag x Y",
    ];
    let shown: String = lines.iter().map(|line| format!("$ rbuild {line}\n{}\n", env.fails(line))).collect();
    insta::assert_snapshot!(shown);
}

#[test]
fn flags_without_effect_say_so() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nRNU x\n");
    let shown = env.fails("build --progress=quiet --force-rm --compress --rm --builder x .");
    insta::assert_snapshot!(shown);
}

#[test]
fn files_that_are_no_dockerfile_are_refused() {
    let env = TestEnv::new();
    let none = env.fails("build .");
    env.write("Dockerfile.dev", "FROM scratch\n");
    let other = env.fails("build .");
    let typo = env.fails("build -f Dockerfile.dve .");
    let directory = env.fails("build -f . .");
    let device = env.fails("build -f /dev/null .");
    std::os::unix::fs::symlink("/etc/passwd", env.context("Dockerfile")).expect("a link");
    let link = env.fails("build .");
    insta::assert_snapshot!([none, other, typo, directory, device, link].join("\n"));
}

#[test]
fn a_configuration_file_with_mistakes_is_an_error_with_its_place() {
    let env = TestEnv::new();
    std::fs::write(env.path("config.json"), "{\n  \"registry-mirrrors\": {}\n}\n").expect("written");
    let shown = env.fails(&format!("--config {} images", env.path("config.json").display()));
    insta::assert_snapshot!(shown);
}

#[test]
fn a_user_without_home_is_told_to_name_a_store() {
    if rustix::process::geteuid().is_root() {
        println!("a_user_without_home_is_told_to_name_a_store: root has a store of its own; see environment.rs");
        return;
    }
    let env = TestEnv::new();
    let ended = end(env.command(["images"]).env_remove("HOME").env_remove("RBUILD_ROOT"));
    assert_eq!(ended.code, 125);
    assert!(ended.stderr.contains("--root"), "{}", ended.stderr);
}

#[test]
fn a_closed_pipe_is_no_error_message() {
    let env = TestEnv::new();
    let mut child = env
        .command(["completion", "zsh"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    // The script is larger than a pipe buffer holds, so the write fails whenever it begins.
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("ends");
    assert_eq!(ended.status.code(), Some(141));
    assert_eq!(ended.stderr, b"");
}

#[test]
fn a_full_disk_under_standard_output_is_an_error() {
    let env = TestEnv::new();
    let full = std::fs::File::create("/dev/full").expect("/dev/full");
    let ended = end(env.command(["version"]).stdout(full));
    assert_eq!(ended.code, 1);
    insta::assert_snapshot!(ended.stderr);
}
