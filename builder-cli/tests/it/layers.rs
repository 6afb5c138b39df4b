//! Layers hold what changed: no more, no less, however they were made.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::env::{TestEnv, end, require_sandbox, require_strace};
use crate::registry::base;

/// The entries of the last layer of a build, in order.
fn last_layer(env: &TestEnv) -> Vec<String> {
    let _ = fs::remove_dir_all(env.path("layout"));
    env.ok("build -q -o type=oci,tar=false,compression=uncompressed,dest=../layout .");
    let read = |digest: &Value| {
        let digest = digest["digest"].as_str().expect("a digest").replace(':', "/");
        fs::read(env.path("layout/blobs").join(digest)).expect("a blob")
    };
    let index: Value = serde_json::from_slice(&fs::read(env.path("layout/index.json")).expect("there")).expect("JSON");
    let manifest: Value = serde_json::from_slice(&read(&index["manifests"][0])).expect("JSON");
    // Layers of the base stay compressed as they are.
    let bytes = read(manifest["layers"].as_array().and_then(|layers| layers.last()).expect("a layer"));
    let mut archive = tar::Archive::new(bytes.as_slice());
    let entries = archive.entries().expect("a tar").map(|entry| entry.expect("an entry"));
    entries.map(|entry| entry.path().expect("a path").display().to_string()).collect()
}

// Rows: P4.
#[test]
fn what_a_command_leaves_as_it_was_is_in_no_layer() {
    if !require_sandbox("what_a_command_leaves_as_it_was_is_in_no_layer") {
        return;
    }
    let env = TestEnv::new();
    env.write("tree/one", "one").write("tree/two", "two").write("tree/sub/three", "three");
    let check = |command: &str, expected: &[&str]| {
        env.write("Dockerfile", format!("FROM {}\nCOPY tree /t/\nRUN cd /t && {command}\n", base()));
        // Places for the file systems of the kernel, which the base lacks, are made by the first command.
        let mut entries = last_layer(&env);
        entries.retain(|entry| entry.starts_with("t/"));
        entries.sort();
        assert_eq!(entries, expected, "{command}");
    };
    // A directory has another time when its names came and went.
    check("mv one x && mv two one && mv one two && mv x one", &["t/"]);
    check("chown 0:0 one two && chmod $(stat -c %a one) one && chown -R 0:0 sub && echo > new", &["t/", "t/new"]);
    check(
        "cat one > /x && touch -r one /x && cat /x > one && touch -r /x one && rm /x && echo > new",
        &["t/", "t/new"],
    );
    check("rm two && echo changed > one", &["t/", "t/.wh.two", "t/one"]);
    check("rm -r sub && mkdir sub && echo > sub/new", &["t/", "t/sub/", "t/sub/.wh..wh..opq", "t/sub/new"]);
}

// Rows: P5.
#[test]
fn capabilities_of_files_survive_copies() {
    if !require_sandbox("capabilities_of_files_survive_copies") {
        return;
    }
    let env = TestEnv::new();
    env.write("cap", "#!/bin/sh\n").write(".dockerignore", "out.tar\n");
    let made = end(Command::new("setcap").arg("cap_net_raw+ep").arg(env.context("cap")));
    assert_eq!(made.code, 0, "setcap of libcap2-bin: {}", made.stderr);
    let dockerfile = format!(
        "FROM scratch AS stage\nCOPY --chown=5:6 cap /s/cap\n\
         FROM {}\nCOPY cap /plain\nCOPY --chown=5:6 cap /owned\nCOPY --chown=5:6 --chmod=750 cap /mode\n\
         COPY --from=stage --chown=7:8 /s/cap /staged\nCOPY --link --chown=7:8 cap /linked\n\
         RUN mv /owned /moved && chmod 711 /mode && cp /linked /without\n",
        base()
    );
    env.write("Dockerfile", dockerfile);
    env.ok("build -q -o type=tar,dest=out.tar .");
    let mut list = Command::new("tar");
    list.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-tvvf"]).arg(env.context("out.tar"));
    let list = end(&mut list).stdout;
    let mut lines = list.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let name = line.rsplit(' ').next().unwrap_or_default();
        let owner = line.split_whitespace().nth(1).unwrap_or_default();
        if ["plain", "moved", "mode", "staged", "linked", "without"].contains(&name) {
            let has = lines.peek().is_some_and(|next| next.contains("security.capability"));
            found.push(format!("{name} {owner} {has}"));
        }
    }
    found.sort();
    let expected = [
        "linked 7/8 true",
        "mode 5/6 true",
        "moved 5/6 true",
        "plain 0/0 true",
        "staged 7/8 true",
        "without 0/0 false",
    ];
    assert_eq!(found, expected, "{list}");
}

// Rows: P19.
#[test]
fn a_command_costs_what_it_changes_and_not_what_is_there() {
    let test = "a_command_costs_what_it_changes_and_not_what_is_there";
    if !require_sandbox(test) || !require_strace(test) {
        return;
    }
    let env = TestEnv::new();
    env.write(
        "many",
        format!(
            "FROM {}\nRUN mkdir /d && cd /d && i=0; while [ $i -lt 3000 ]; do echo $i > $i; i=$((i+1)); done\n",
            base()
        ),
    );
    env.ok("build -q -t many:1 -f many .");
    env.write("Dockerfile", "FROM many:1\nRUN echo changed > /d/7\n").write(".dockerignore", "*\n");
    let log = env.path("strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&log);
    command.args(["-e", "trace=%file,%desc"]).arg(crate::env::program()).args(["build", "-q", "-t", "app", "."]);
    command.current_dir(env.context("")).env_clear();
    for (name, value) in env.command([""; 0]).get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let ended = end(&mut command);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let calls = fs::read_to_string(log).expect("written").lines().count();
    assert!(calls < 3000, "{calls} calls for one changed file");
}
