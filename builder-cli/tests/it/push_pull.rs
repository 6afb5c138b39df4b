//! Registries: push, pull, mirrors, credentials, and what goes wrong.

use std::process::Command;

use crate::env::{TestEnv, end};
use crate::registry::{Registry, base, shared};

// Rows: B13.
#[test]
fn what_is_pushed_can_be_pulled_and_read_by_others() {
    let env = TestEnv::new();
    let name = shared().name("pushed:1");
    env.write("file", "content").write("Dockerfile", "FROM scratch\nCOPY file /\nLABEL a=b\n");
    env.ok(&format!("build -q -t {name} ."));
    let id = env.ok(&format!("images -q --no-trunc {name}")).stdout;
    let pushed = env.ok(&format!("push {name}"));
    assert!(pushed.stdout.contains("digest: sha256:"), "{}{}", pushed.stdout, pushed.stderr);
    // Everything is there already.
    env.ok(&format!("push {name}"));

    let other = TestEnv::new();
    let pulled = other.ok(&format!("pull {name}"));
    assert!(pulled.stdout.ends_with(&format!("{name}\n")), "{}", pulled.stdout);
    assert_eq!(other.ok(&format!("images -q --no-trunc {name}")).stdout, id);
    assert_eq!(other.ok(&format!("inspect -f {{{{.Config.Labels.a}}}} {name}")).stdout, "b\n");
    let digests = other.ok(&format!("inspect -f {{{{.RepoDigests}}}} {name}")).stdout;
    assert!(digests.contains("@sha256:"), "{digests}");

    let skopeo = end(Command::new("skopeo").args(["inspect", "--tls-verify=false", &format!("docker://{name}")]));
    assert_eq!(skopeo.code, 0, "{}", skopeo.stderr);
    let seen: serde_json::Value = serde_json::from_str(&skopeo.stdout).expect("JSON");
    assert_eq!(seen["Labels"]["a"], "b");
}

#[test]
fn push_and_pull_say_what_became_of_each_layer() {
    let registry = Registry::start();
    let env = TestEnv::new();
    let (name, other) = (registry.name("first:1"), registry.name("second:2"));
    env.write("file", "content").write("Dockerfile", "FROM scratch\nCOPY file /\n");
    env.ok(&format!("build -q -t {name} -t {other} ."));
    let mut shown = Vec::new();
    for name in [&name, &name, &other] {
        shown.push(env.ok(&format!("push {name}")).stdout);
    }
    let fresh = TestEnv::new();
    for _ in 0..2 {
        shown.push(fresh.ok(&format!("pull {name}")).stdout);
    }
    let layer = shown[0].lines().nth(1).and_then(|line| line.split_once(':')).expect("a layer").0.to_owned();
    assert_eq!(layer.len(), 12);
    insta::assert_snapshot!(env.stable(&shown.join("\n").replace(&layer, "[LAYER]")));
    let digest = |text: &str| text.split_once("sha256:").map(|(_, rest)| rest[..64].to_owned());
    assert_eq!(digest(&shown[0]), digest(&shown[3]));
    assert_eq!(env.ok(&format!("push -q {name}")).stdout, format!("{name}\n"));
}

#[test]
fn a_mirror_is_asked_first() {
    let env = TestEnv::new();
    let mirror = format!("docker.io=http://{}", shared().address);
    env.write("Dockerfile", "FROM mirrored:1\n").write("other/Dockerfile", "FROM scratch\nLABEL mirrored=yes\n");
    env.ok(&format!("build -q -t {} --push other", shared().name("library/mirrored:1")));
    for (option, variable) in [(format!("--registry-mirror {mirror}"), None), (String::new(), Some(&mirror))] {
        let mut command = env.command(format!("{option} build -q -t x --pull .").split_whitespace());
        if let Some(variable) = variable {
            command.env("RBUILD_REGISTRY_MIRROR", variable);
        }
        let ended = end(&mut command);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }
    assert_eq!(env.ok("inspect -f {{.Config.Labels.mirrored}} x").stdout, "yes\n");
}

#[test]
fn a_private_registry_wants_credentials() {
    let registry = Registry::private();
    let env = TestEnv::new();
    let name = registry.name("secret/app:1");
    env.write("Dockerfile", "FROM scratch\nLABEL a=b\n");
    env.ok(&format!("build -q -t {name} ."));
    let refused = env.fails(&format!("push {name}"));
    let wrong = env.fails(&format!("login -u user -p nonsense {}", registry.address));
    std::fs::write(env.path("password"), "s3cret\n").expect("written");
    let login = ["login", "-u", "user", "--password-stdin", &registry.address];
    let stdin = || std::fs::File::open(env.path("password")).expect("open");
    let ended = end(env.command(login).stdin(stdin()));
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "Login Succeeded\n"), "{}", ended.stderr);
    let file = env.path("home/.docker/config.json");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).expect("written")) & 0o777, 0o600);
    env.ok(&format!("push {name}"));
    env.ok(&format!("rmi {name}"));
    env.ok(&format!("pull {name}"));
    env.write("Dockerfile", format!("FROM {name}\n"));
    env.ok("build -q --pull .");
    env.ok(&format!("logout {}", registry.address));
    let again = env.fails(&format!("pull {name}"));
    insta::assert_snapshot!([refused, wrong, again].join("\n"));
}

#[test]
fn missing_images_and_unreachable_registries_are_explained() {
    let env = TestEnv::new();
    let missing = env.dockerfile_fails_with(&format!("FROM {} AS x\n", shared().name("no/such:1")), "");
    let tag = env.dockerfile_fails_with(&format!("FROM {}\n", base().replace(":1", ":2")), "");
    let unreachable = env.dockerfile_fails_with("FROM 127.0.0.1:1/app\n", "");
    let never = env.dockerfile_fails_with(&format!("FROM {}\n", shared().name("never:1")), "--pull=never");
    let pull = env.fails(&format!("pull {}", shared().name("no/such:1")));
    let push = env.fails("push 127.0.0.1:1/app:1");
    insta::assert_snapshot!([missing, tag, unreachable, never, pull, push].join("\n"));
}

// Rows: B11.
#[test]
fn a_tag_is_remembered_until_it_is_asked_for_again() {
    let registry = Registry::start();
    let env = TestEnv::new();
    let name = registry.name("moving:1");
    let publish = |value: &str| {
        let publisher = TestEnv::new();
        publisher.write("Dockerfile", format!("FROM scratch\nLABEL v={value}\n"));
        publisher.ok(&format!("build -q --push -t {name} ."));
    };
    let label = |options: &str| {
        env.write("Dockerfile", format!("FROM {name}\n"));
        env.ok(&format!("build -q -t x {options} ."));
        env.ok("inspect -f {{.Config.Labels.v}} x").stdout
    };
    publish("1");
    assert_eq!(label(""), "1\n");
    publish("2");
    assert_eq!(label(""), "1\n");
    assert_eq!(label("--pull"), "2\n");
    drop(registry);
    assert_eq!(label(""), "2\n", "without the registry");
    assert_eq!(label("--pull=never"), "2\n");
}
