//! The main job: build, name, look at, remove.

use crate::env::{TestEnv, require_sandbox};
use crate::registry::base;

// Rows: B1, B3, B26.
#[test]
fn an_image_is_built_named_shown_and_removed() {
    if !require_sandbox("an_image_is_built_named_shown_and_removed") {
        return;
    }
    let env = TestEnv::new();
    env.write("hello", "hi\n").write(
        "Dockerfile",
        format!(
            "FROM {} AS build\nARG WHO=world\nENV GREETING=\"hello $WHO\"\nWORKDIR /app\nCOPY hello .\nRUN echo \"$GREETING\" > greeting\n\
             LABEL kind=test\nEXPOSE 80\nCMD [\"cat\", \"/app/greeting\"]\n",
            base()
        ),
    );
    let id =
        env.ok("build -q -t app:1.0 -t app:latest --build-arg WHO=you --iidfile id --metadata-file meta.json .").stdout;
    let id = id.trim();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(std::fs::read_to_string(env.context("id")).expect("written"), id);
    let meta: serde_json::Value =
        serde_json::from_slice(&std::fs::read(env.context("meta.json")).expect("written")).expect("JSON");
    assert_eq!(meta["containerimage.config.digest"], id);
    assert_eq!(meta["image.name"], "docker.io/library/app:1.0,docker.io/library/app:latest");

    let table = env.ok("images").stdout;
    let short = &id[7..19];
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("REPOSITORY   TAG       IMAGE ID       CREATED"), "{table}");
    assert!(lines.iter().any(|line| line.starts_with(&format!("app          1.0       {short}"))), "{table}");
    assert_eq!(env.ok("images -q --no-trunc app").stdout, format!("{id}\n"));
    assert_eq!(env.ok("images --format {{.Repository}}:{{.Tag}} app:1.0").stdout, "app:1.0\n");

    let env_of = env.ok("inspect -f {{.Config.Env}} app:1.0").stdout;
    assert!(env_of.contains("GREETING=hello you") && env_of.contains("PATH="), "{env_of}");
    assert_eq!(env.ok("inspect -f {{.Config.Labels.kind}} app").stdout, "test\n");
    assert_eq!(env.ok(&format!("inspect -f {{{{.Config.WorkingDir}}}} {short}")).stdout, "/app\n");
    let history = env.ok("history app:1.0").stdout;
    assert!(history.starts_with("IMAGE          CREATED"), "{history}");
    assert!(history.contains("CMD [\"cat\" \"/app/greeting\"]"), "{history}");

    assert_eq!(env.ok("tag app:1.0 other:2").stdout, "");
    assert_eq!(env.ok("rmi app:1.0").stdout, "Untagged: app:1.0\n");
    assert!(env.fails(&format!("rmi {short}")).contains("several names"));
    let removed = env.ok(&format!("rmi -f {short}")).stdout;
    assert!(removed.contains("Untagged: app:latest") && removed.contains(&format!("Deleted: {id}")), "{removed}");
    insta::assert_snapshot!(env.fails("inspect app:1.0"));
}

#[test]
fn a_stale_iidfile_does_not_survive_a_failed_build() {
    let env = TestEnv::new();
    env.write("id", "old").write("Dockerfile", "FROM scratch\nCOPY missing /\n");
    env.fails("build --progress=quiet --iidfile id .");
    assert!(!env.context("id").exists());
}

// Rows: A18, B2.
#[test]
fn the_dockerfile_comes_from_where_it_is_named() {
    let env = TestEnv::new();
    env.write("a", "1").write("sub/Containerfile", "FROM scratch\nCOPY a /\n").write("sub/a", "2");
    env.ok("build -q sub");
    env.ok("build -q -f sub/Containerfile .");
    std::fs::write(env.path("outside"), "FROM scratch\nCOPY a /\n").expect("written");
    env.ok("build -q -f ../outside .");
    for line in ["build -q -f - .", "build -q -"] {
        let stdin = std::fs::File::open(env.path("outside")).expect("open");
        let ended = crate::env::end(env.command(line.split(' ')).stdin(stdin));
        // Without a context there is no `a`.
        assert_eq!(ended.code == 0, line.ends_with('.'), "{line}\n{}", ended.stderr);
    }
}

// Rows: A49, B4.
#[test]
fn only_what_the_target_needs_is_built() {
    let env = TestEnv::new();
    env.write("a", "1").write(
        "Dockerfile",
        "FROM 127.0.0.1:1/never AS broken\nRUN false\nFROM scratch AS one\nCOPY a /one\nFROM scratch AS two\nCOPY --from=one /one /two\n",
    );
    env.ok("build -q .");
    env.ok("build -q --target one .");
    env.ok("build -q --target 1 .");
    insta::assert_snapshot!(env.fails("build --progress=quiet --target oen ."));
}
