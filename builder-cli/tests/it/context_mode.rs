//! `--context-mode`: checkouts with different umasks.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::Value;

use crate::cache::build;
use crate::env::{TestEnv, end, require_sandbox};
use crate::git::Upstream;
use crate::registry::base;

const UMASKS: [&str; 3] = ["002", "022", "077"];

/// Checks a commit out once for each umask, in folders of that name.
fn checkouts(dockerfile: &str) -> TestEnv {
    let env = TestEnv::new();
    let upstream = Upstream::new(&env, "upstream");
    let files = [
        ("Dockerfile", dockerfile),
        (".dockerignore", "id\n.git\n*.log\n"),
        ("tool", "#!/bin/sh\n"),
        ("src/text", "text"),
        ("src/deep/other", "other"),
    ];
    upstream.commit(&files);
    upstream.git("update-index --chmod=+x tool");
    upstream.git("commit --quiet -m executable");
    for umask in UMASKS {
        let line = format!("umask {umask}; git clone --quiet upstream context/{umask}");
        let mut shell = Command::new("sh");
        let cloned = end(shell.args(["-c", &line]).current_dir(env.path("")).env("GIT_CONFIG_GLOBAL", "/dev/null"));
        assert_eq!(cloned.code, 0, "{}", cloned.stderr);
        env.write(&format!("{umask}/left.log"), umask);
    }
    env
}

/// Builds each checkout in a store of its own, times left out; gives the ids.
fn ids(env: &TestEnv, options: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for (number, umask) in UMASKS.iter().enumerate() {
        let options = options.replace("UMASK", umask);
        let line = format!("build -q --timestamp 1000000000 {options} {umask}");
        let mut command = env.command(line.split_whitespace());
        let ended = end(command.env("RBUILD_ROOT", env.path(&format!("state-{number}"))));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ids.push(ended.stdout);
    }
    ids
}

fn all_equal(ids: &[String]) -> bool {
    ids.iter().all(|id| *id == ids[0])
}

fn all_differ(ids: &[String]) -> bool {
    ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]
}

/// Whatever takes files from a context.
fn dockerfile(instruction: &str) -> String {
    format!("FROM scratch\n{instruction}\n")
}

// Rows: P7.
#[test]
fn checkouts_with_any_umask_give_one_image_when_asked() {
    let chmod = "COPY --chmod=u=rwX,g+s,o= src tool /to/";
    for (instruction, differ) in [
        ("COPY . /all/", true),
        ("COPY tool src/t* /to/", true),
        ("COPY --parents src/./**/other /to/", true),
        ("ADD --chown=3:4 src /to/", true),
        ("COPY --link --exclude=deep src /to/", true),
        (chmod, true),
        ("COPY --chmod=750 src/text tool /to/", false),
        ("COPY --from=named src /named/", true),
    ] {
        let env = checkouts(&dockerfile(instruction));
        let options = "--build-context named=UMASK";
        let found = ids(&env, options);
        assert!(if differ { all_differ(&found) } else { all_equal(&found) }, "{instruction}: {found:?}");
        let found = ids(&env, &format!("{options} --context-mode=git"));
        assert!(all_equal(&found), "{instruction}: {found:?}");
    }
}

// Rows: P7.
#[test]
fn steps_see_the_rights_that_count_in_bind_mounts() {
    if !require_sandbox("steps_see_the_rights_that_count_in_bind_mounts") {
        return;
    }
    let mounts = "--mount=type=bind,target=/all --mount=type=bind,source=tool,target=/tool --mount=type=bind,from=named,source=src,target=/named";
    let see = "stat -c '%a %n' /all /all/tool /all/src /all/src/deep/other /tool /named /named/text > /seen";
    let env = checkouts(&format!("FROM {}\nRUN {mounts} {see}\n", base()));
    let named = "--build-context named=UMASK";
    assert!(all_differ(&ids(&env, named)));
    let found = ids(&env, &format!("{named} --context-mode=git"));
    assert!(all_equal(&found), "{found:?}");
    env.ok("build -q --context-mode=git --build-context named=077 -o out 077");
    let expected =
        "755 /all\n755 /all/tool\n755 /all/src\n644 /all/src/deep/other\n755 /tool\n755 /named\n644 /named/text\n";
    assert_eq!(fs::read_to_string(env.context("out/seen")).expect("exported"), expected);
}

/// The modes of what an image of the context has.
fn landed(env: &TestEnv, options: &str) -> Vec<u32> {
    env.ok(&format!("build -q {options} -o out ."));
    let mode =
        |name: &str| fs::metadata(env.context("out").join(name)).expect("exported").permissions().mode() & 0o7777;
    let modes = ["all/src", "all/src/text", "all/tool"].map(mode).to_vec();
    fs::remove_dir_all(env.context("out")).expect("removed");
    modes
}

fn example() -> TestEnv {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY . /all/\n").write(".dockerignore", "id\nout\nDockerfile\n");
    env.write("src/text", "text").write("tool", "tool");
    for (name, mode) in [("src", 0o700), ("src/text", 0o660), ("tool", 0o710)] {
        fs::set_permissions(env.context(name), fs::Permissions::from_mode(mode)).expect("set");
    }
    // What is old enough is remembered.
    std::thread::sleep(std::time::Duration::from_millis(40));
    env
}

// Rows: P7.
#[test]
fn one_mode_does_not_remember_for_the_other() {
    let env = example();
    let (as_found, as_git) = (vec![0o700, 0o660, 0o710], vec![0o755, 0o644, 0o755]);
    for _ in 0..3 {
        assert_eq!(landed(&env, ""), as_found);
        assert_eq!(landed(&env, "--context-mode git"), as_git);
    }
    assert_eq!(landed(&env, "--context-mode git --verify-cache=100%,strict"), as_git);

    // What the mode hides runs nothing, and what it shows does.
    let git = "--context-mode=git";
    let (_, id) = build(&env, git);
    let change = |mode| fs::set_permissions(env.context("src/text"), fs::Permissions::from_mode(mode)).expect("set");
    change(0o604);
    assert_eq!(build(&env, git), (Vec::new(), id.clone()));
    let text = env.ok("build --dry-run --context-mode=docker .").stdout;
    assert!(text.contains("/all/src/text (mode 644 → 604)"), "{text}");
    change(0o704);
    let (ran, other) = build(&env, git);
    assert_eq!((ran.len(), other == id), (1, false));
    assert!(env.ok("explain").stdout.contains("/all/src/text (mode 644 → 755)"));
    let inspected: Value = serde_json::from_str(&env.ok("history inspect --format json").stdout).expect("JSON");
    assert_eq!(inspected["ContextMode"], "git");
}

// Rows: P7.
#[test]
fn the_environment_and_the_configuration_say_it_too() {
    let env = example();
    let git = vec![0o755, 0o644, 0o755];
    env.write("../home/.config/rbuild/config.json", "{\"context-mode\": \"git\"}");
    assert_eq!(landed(&env, ""), git);
    assert_ne!(landed(&env, "--context-mode=docker"), git);
    let mut command = env.command(["build", "-q", "-o", "out", "."]);
    assert_eq!(end(command.env("RBUILD_CONTEXT_MODE", "docker")).code, 0);
    assert_eq!(fs::metadata(env.context("out/all/tool")).expect("exported").permissions().mode() & 0o777, 0o710);
    let wrong = end(env.command(["build", "."]).env("RBUILD_CONTEXT_MODE", "svn"));
    assert_eq!(wrong.code, 125, "{}", wrong.stderr);
    assert!(wrong.stderr.contains("RBUILD_CONTEXT_MODE is `svn`, which is not a mode of contexts"), "{}", wrong.stderr);

    let mut command = env.command(["build", "--progress=plain", "--context-mode=git", "-"]);
    command.stdin(fs::File::open(env.context("Dockerfile")).expect("there"));
    let ended = end(&mut command);
    assert!(ended.stderr.contains("--context-mode changes nothing"), "{}", ended.stderr);
}

// Rows: P7.
#[test]
fn another_checkout_tells_what_its_umask_did() {
    let env = checkouts(&dockerfile("COPY src tool /to/"));
    env.ok("build -q 022");
    env.ok("build -q 002");
    let text = env.ok("explain").stdout;
    for line in ["/to/text (mode 644 → 664)", "/to/deep (mode 755 → 775)", "/to/tool (mode 755 → 775)"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("content"), "{text}");
    env.ok("build -q --context-mode=git 077");
    assert!(env.ok("explain").stdout.contains("1 of 1 steps hit"), "as umask 022 gave it");
}

// Rows: P7.
#[test]
fn what_differs_in_a_file_is_named() {
    let env = TestEnv::new();
    env.write(".dockerignore", "id\nDockerfile\n");
    for name in ["content", "mode", "owner/x", "xattr", "name"] {
        env.write(&format!("tree/{name}"), name);
        fs::set_permissions(env.context(&format!("tree/{name}")), fs::Permissions::from_mode(0o644)).expect("set");
    }
    let dockerfile =
        |owner| format!("FROM scratch\nCOPY --exclude=owner tree /t/\nCOPY --chown={owner} tree/owner /o/\n");
    env.write("Dockerfile", dockerfile("1:1"));
    build(&env, "");
    env.write("tree/content", "CONTENT").write("Dockerfile", dockerfile("1:2"));
    fs::set_permissions(env.context("tree/mode"), fs::Permissions::from_mode(0o755)).expect("set");
    fs::rename(env.context("tree/name"), env.context("tree/other")).expect("renamed");
    let xattrs = rustix::fs::XattrFlags::empty();
    let has_xattrs = rustix::fs::setxattr(env.context("tree/xattr"), "user.test", b"1", xattrs).is_ok();
    build(&env, "");
    let text = env.ok("explain").stdout;
    for line in [
        "/t/content (content)",
        "/t/mode (mode 644 → 755)",
        "/t/name (renamed to /t/other)",
        "/t/other (renamed from /t/name)",
        "/o/x (owner 1:1 → 1:2)",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    if has_xattrs {
        assert!(text.contains("/t/xattr (attribute user.test)"), "{text}");
        build(&env, "--context-mode=git");
        assert!(env.ok("explain").stdout.contains("/t/xattr (attribute user.test)"), "a checkout has none");
    } else {
        println!("what_differs_in_a_file_is_named: no extended attributes here");
    }
}
