//! `--check`, `--call=targets`, `--call=outline`.

use crate::env::TestEnv;

const DOCKERFILE: &str = "\
ARG VERSION=1
# tools has what the build needs
FROM scratch AS tools
# TOKEN lets you in
ARG TOKEN=none
maintainer someone
RUN --mount=type=secret,id=key,required=true --mount=type=cache,target=/root/.cache true
# app is the result
from tools as App
CMD run
";

#[test]
fn findings_are_shown_and_counted() {
    let env = TestEnv::new();
    env.write("Dockerfile", DOCKERFILE);
    let ended = env.rbuild("build --check .");
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    insta::assert_snapshot!(ended.stdout);
    let json: serde_json::Value =
        serde_json::from_str(&env.rbuild("build --call=check,format=json .").stdout).expect("JSON");
    assert!(json["warnings"][0]["ruleName"].is_string());
    assert_eq!(json["sources"][0]["filename"], "Dockerfile");
    env.write("Dockerfile", "FROM scratch\nCOPY a /\n");
    assert_eq!(env.ok("build --check .").stdout, "Check complete, no warnings found.\n");
}

// Rows: A15, B24.
#[test]
fn findings_are_json_and_sarif() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nmaintainer ü\nCOPY secret /\n");
    env.write(".dockerignore", "secret\n");
    let read = |args: &str| -> serde_json::Value {
        let ended = env.rbuild(args);
        assert_eq!(ended.code, 1, "{args}: {}", ended.stderr);
        serde_json::from_str(&ended.stdout).expect("JSON")
    };
    let json = read("build --check --format json -f Dockerfile .");
    let finding = |rule: &str, line: usize, detail: &str, page: &str| {
        let url = format!("https://docs.docker.com/go/dockerfile/rule/{page}/");
        serde_json::json!({ "rule": rule, "line": line, "detail": detail, "level": "warning", "url": url })
    };
    let expected = [
        finding(
            "MaintainerDeprecated",
            2,
            "Maintainer instruction is deprecated in favor of using label",
            "maintainer-deprecated",
        ),
        finding(
            "ConsistentInstructionCasing",
            2,
            "Command 'maintainer' should match the case of the command majority (uppercase)",
            "consistent-instruction-casing",
        ),
        finding(
            "CopyIgnoredFile",
            3,
            "Attempting to Copy file \"secret\" that is excluded by .dockerignore",
            "copy-ignored-file",
        ),
    ];
    assert_eq!(json, serde_json::json!({ "version": 1, "warnings": expected }));
    let sarif = read("build --call=check,format=sarif .");
    assert_eq!(sarif, read("build --check --format=sarif ."));
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    let result = &run["results"][2];
    assert_eq!(result["ruleId"], "CopyIgnoredFile");
    let rule = usize::try_from(result["ruleIndex"].as_u64().expect("a number")).expect("small");
    assert_eq!(run["tool"]["driver"]["rules"][rule]["id"], "CopyIgnoredFile");
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "Dockerfile");
    assert_eq!(place["region"], serde_json::json!({ "startLine": 3, "startColumn": 1, "endLine": 3, "endColumn": 14 }));
}

#[test]
fn variables_of_unknown_bases_are_not_judged() {
    let env = TestEnv::new();
    env.write(
        "Dockerfile",
        "FROM 127.0.0.1:1/missing AS base\nLABEL a=$A\nFROM base\nLABEL b=$B\nFROM scratch\nLABEL c=$C\n",
    );
    let json: serde_json::Value =
        serde_json::from_str(&env.rbuild("build --check --format json .").stdout).expect("JSON");
    assert_eq!(json["warnings"].as_array().expect("a list").len(), 1);
    assert_eq!(json["warnings"][0]["line"], 6);
}

#[test]
fn a_build_warns_of_copies_of_what_is_ignored() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY secret* /\nADD secret /\n");
    env.write(".dockerignore", "secret\n");
    env.write("secret", "x");
    let ended = env.rbuild("build --progress=plain .");
    assert_ne!(ended.code, 0);
    let warning = " - CopyIgnoredFile: Attempting to Add file \"secret\" that is excluded by .dockerignore (line 3)";
    assert!(ended.stderr.contains(warning), "{}", ended.stderr);
    env.write("Dockerfile", "# check=error=true\nFROM scratch\nCOPY secret /\n");
    let ended = env.rbuild("build --progress=plain .");
    assert!(ended.stderr.contains("error: lint violation of CopyIgnoredFile"), "{}", ended.stderr);
}

// Rows: B24.
#[test]
fn a_build_lists_what_is_doubtful() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch as App\nMAINTAINER me\n");
    let list = "\n 3 warnings found (use --debug to expand):\n - StageNameCasing: Stage name 'App' should be lowercase \
                (line 1)\n - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)\n - \
                MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)\n";
    let shown = env.ok("build --progress=plain .").stderr;
    assert!(shown.ends_with(list), "{shown}");
    assert!(!env.ok("build -q .").stderr.contains("StageNameCasing"));
    let expanded = env.ok("build --progress=plain -D .").stderr;
    let page = "More info: https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/\nDockerfile:2\n----";
    assert!(expanded.contains("\n 3 warnings found:\n - ") && expanded.contains(page), "{expanded}");
    let raw = env.ok("build --progress=rawjson .").stderr;
    let warning = raw.lines().find(|line| line.contains("\"warnings\"")).expect("a warning");
    let json: serde_json::Value = serde_json::from_str(warning).expect("JSON");
    let warning = &json["warnings"][0];
    assert_eq!(warning["range"][0]["start"]["line"], 1);
    assert_eq!(warning["sourceInfo"]["data"], "RlJPTSBzY3JhdGNoIGFzIEFwcApNQUlOVEFJTkVSIG1lCg==");
    assert!(warning["vertex"].as_str().expect("a digest").starts_with("sha256:"));
    let mut build = env.command("build -q --metadata-file meta.json .".split(' '));
    assert_eq!(crate::env::end(build.env("BUILDX_METADATA_WARNINGS", "1")).code, 0);
    let text = std::fs::read(env.context("meta.json")).expect("metadata");
    let metadata: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(metadata["buildx.build.warnings"].as_array().map(Vec::len), Some(3));
    let id = env.ok("history ls -q --no-trunc").stdout.lines().next().expect("a build").to_owned();
    assert_eq!(metadata["buildx.build.ref"], format!("default/default/{id}"));
}

#[test]
fn methods_and_formats() {
    let env = TestEnv::new();
    env.write("Dockerfile", DOCKERFILE);
    let list: serde_json::Value =
        serde_json::from_str(&env.ok("build --call=subrequests.describe,format=json .").stdout).expect("JSON");
    assert_eq!(list[2]["name"], "frontend.lint");
    assert!(env.ok("build --call=subrequests.describe .").stdout.starts_with("NAME"));
    let outline: serde_json::Value =
        serde_json::from_str(&env.ok("build --call=outline --format json .").stdout).expect("JSON");
    assert_eq!(outline["args"][0]["name"], "TOKEN");
    assert_eq!(outline["secrets"][0]["location"]["ranges"][0]["start"]["line"], 7);
    for args in ["build --format json .", "build --call=targets,format=sarif .", "build --call=check,format=x ."] {
        assert_eq!(env.rbuild(args).code, 125, "{args}");
    }
}

#[test]
fn what_is_wrong_is_part_of_every_format() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nRNU x\nCOPY\n");
    let read = |args: &str| -> serde_json::Value {
        let ended = env.rbuild(args);
        assert_eq!(ended.code, 1, "{args}");
        assert!(ended.stderr.contains("error: unknown instruction"), "{args}: {}", ended.stderr);
        serde_json::from_str(&ended.stdout).expect("JSON")
    };
    let json = read("build --check --format json .");
    assert_eq!(json["warnings"], serde_json::json!([]));
    assert_eq!(json["errors"].as_array().expect("a list").len(), 2, "{json}");
    let first = serde_json::json!({
        "message": "unknown instruction: RNU", "file": "Dockerfile", "line": 2, "column": 1,
        "hint": json["errors"][0]["hint"],
    });
    assert_eq!(json["errors"][0], first);
    let buildx = read("build --call=check,format=json .");
    assert_eq!(buildx["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
    let sarif = read("build --check --format sarif .");
    let invocation = &sarif["runs"][0]["invocations"][0];
    assert_eq!(invocation["executionSuccessful"], false);
    assert_eq!(
        invocation["toolExecutionNotifications"][1]["locations"][0]["physicalLocation"]["region"]["startLine"],
        3
    );
    let ended = env.rbuild("build --check .");
    assert_eq!((ended.code, &*ended.stdout), (1, ""));
    // The rest of the file is known although it cannot be built.
    env.write("Dockerfile", "FROM scratch AS A\nCOPY --from=9 a /\n");
    assert_eq!(rules(&env, "build --check --format json ."), "StageNameCasing");
    env.write("Dockerfile", "# check=error=true\nFROM scratch as A\n");
    let ended = env.rbuild("build --check .");
    assert_eq!(ended.stderr, "error: lint violation found for rules: StageNameCasing, FromAsCasing\n");
    assert!(ended.stdout.starts_with("Check complete, 2 warnings have been found!\n"), "{}", ended.stdout);
}

/// The rules that a check names, in order.
fn rules(env: &TestEnv, args: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(&env.rbuild(args).stdout).expect("JSON");
    let warnings = json["warnings"].as_array().expect("a list").iter();
    warnings.map(|warning| warning["rule"].as_str().expect("a name")).collect::<Vec<_>>().join(" ")
}

#[test]
fn bases_are_asked_for_their_config() {
    let env = TestEnv::new();
    let registry = crate::registry::shared();
    let name = registry.name("checked");
    env.write("Dockerfile", "FROM scratch\nENV SET=1\nONBUILD EXPOSE 80/TCP\nCOPY Dockerfile /\n");
    env.ok(&format!("build -q --output type=registry,name={name} ."));
    std::fs::remove_dir_all(env.path("state")).expect("a fresh store");
    env.write("Dockerfile", format!("FROM {name}\nLABEL a=$SET b=$UNSET\n"));
    assert_eq!(rules(&env, "build --check --format json --pull=never ."), "");
    assert_eq!(rules(&env, "build --check --format json ."), "ExposeProtoCasing UndefinedVar");
    assert_eq!(rules(&env, "build --check --format json --pull=never ."), "ExposeProtoCasing UndefinedVar");
    // No layer was fetched.
    assert!(env.ok("images -q").stdout.is_empty());
    env.write("Dockerfile", format!("FROM {name}-missing\n"));
    let ended = env.rbuild("build --check .");
    assert_eq!(ended.code, 1, "a build would fail too");
    assert!(ended.stderr.contains("is not in its registry"), "{}", ended.stderr);
    // Nothing listens there.
    env.write("Dockerfile", "FROM 127.0.0.1:1/missing AS base\nRUN echo $UNKNOWN_BASE_MAY_SET_IT\n");
    let ended = env.ok("build --check .");
    assert!(ended.stderr.starts_with("note: what `127.0.0.1:1/missing"), "{}", ended.stderr);
}

#[test]
fn a_check_of_a_target_is_about_what_it_needs() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch AS a\nCMD x\nFROM scratch\nENV a b\n");
    assert_eq!(rules(&env, "build --check --format json ."), "JSONArgsRecommended LegacyKeyValueFormat");
    assert_eq!(rules(&env, "build --check --format json --target a ."), "JSONArgsRecommended");
}

// Rows: A16, A46.
#[test]
fn targets_and_outline_describe_the_file() {
    let env = TestEnv::new();
    env.write("Dockerfile", DOCKERFILE);
    let targets = env.ok("build --call=targets .").stdout;
    let outline = env.ok("build --call=outline --build-arg TOKEN=x .").stdout;
    insta::assert_snapshot!(format!("{targets}\n{outline}"));
    let json: serde_json::Value =
        serde_json::from_str(&env.ok("build --call=targets,format=json .").stdout).expect("JSON");
    assert_eq!(json["targets"][1]["default"], true);
}

// Rows: P8, P10.
#[test]
fn own_rules_are_asked_for_and_what_can_be_mended_is() {
    let env = TestEnv::new();
    let text = "FROM scratch\nRUN --mount=type=secret,id=token <<EOF\n  a\n  b\nEOF\n";
    env.write("docker/Dockerfile", text);
    std::os::unix::fs::symlink("docker/Dockerfile", env.context("link")).expect("a link");
    // A file that BuildKit finds nothing in is clean.
    assert_eq!(env.ok("build --check -f link .").stdout, "Check complete, no warnings found.\n");
    let asked = "--build-arg BUILDKIT_DOCKERFILE_CHECK=experimental=HeredocNoErrexit,SecretNotInKey -f link";
    let check = format!("build --check --format json {asked}");
    assert_eq!(rules(&env, &format!("{check} .")), "HeredocNoErrexit SecretNotInKey");
    env.write("token", "x");
    for keyed in ["--secret id=token,src=token,cache=hash", "--secret id=token,src=token,epoch=2", "--cache-ttl 1h"] {
        assert_eq!(rules(&env, &format!("{check} {keyed} .")), "HeredocNoErrexit", "{keyed}");
    }
    assert_eq!(rules(&env, &format!("{check} --secret id=token,src=token .")), "HeredocNoErrexit SecretNotInKey");

    let json: serde_json::Value = serde_json::from_str(&env.rbuild(&format!("{check} .")).stdout).expect("JSON");
    assert_eq!(json["warnings"][0]["fix"], serde_json::json!({ "line": 3, "insert": "set -eu\n" }));
    assert!(json["warnings"][1].get("fix").is_none());
    let shown = env.rbuild(&format!("build --check {asked} .")).stdout;
    assert!(shown.contains("\nfix: insert `set -eu` before line 3\n"), "{shown}");
    let sarif: serde_json::Value =
        serde_json::from_str(&env.rbuild(&format!("build --check --format sarif {asked} .")).stdout).expect("JSON");
    let replacement = &sarif["runs"][0]["results"][0]["fixes"][0]["artifactChanges"][0]["replacements"][0];
    assert_eq!(
        (&replacement["deletedRegion"]["startLine"], &replacement["insertedContent"]["text"]),
        (&3.into(), &"set -eu\n".into())
    );
    assert_eq!(std::fs::read_to_string(env.context("link")).expect("there"), text, "nobody asked for a change");

    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    std::fs::set_permissions(env.context("docker/Dockerfile"), mode).expect("changed");
    let ended = env.rbuild(&format!("build --check --fix {asked} ."));
    assert_eq!(ended.code, 1, "one finding is left: {}", ended.stdout);
    assert!(
        ended.stdout.starts_with("Check complete, 1 warning has been found!\n\nWARNING: SecretNotInKey\n"),
        "{}",
        ended.stdout
    );
    assert_eq!(ended.stderr, "note: `link` was changed in 1 place\n");
    let mended = std::fs::read_to_string(env.context("docker/Dockerfile")).expect("there");
    assert_eq!(mended, text.replace("  a\n", "set -eu\n  a\n"));
    assert!(std::fs::symlink_metadata(env.context("link")).expect("there").is_symlink());
    let mode = std::fs::metadata(env.context("docker/Dockerfile")).expect("there").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o640);
    assert_eq!(env.rbuild(&format!("build --check --fix {asked} .")).stderr, "");
    for wrong in ["build --fix .", "build --check --fix -f - ."] {
        assert_eq!(env.rbuild(wrong).code, 125, "{wrong}");
    }
}
