//! Images for several platforms.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::env::{TestEnv, require_sandbox};
use crate::registry::{base, shared};

/// `GET /v2/NAME/manifests/REFERENCE` of the shared registry, whatever it is.
fn raw(reference: &str) -> Value {
    let reference = format!("docker://{reference}");
    let arguments = ["inspect", "--raw", "--tls-verify=false", &reference];
    let ended = crate::env::end(std::process::Command::new("skopeo").args(arguments));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

fn platforms(index: &Value) -> Vec<String> {
    let platform = |manifest: &Value| {
        let part = |key: &str| manifest["platform"][key].as_str().map(str::to_owned);
        [part("os"), part("architecture"), part("variant")].into_iter().flatten().collect::<Vec<_>>().join("/")
    };
    index["manifests"].as_array().expect("an index").iter().map(platform).collect()
}

// Rows: A50, B8.
#[test]
fn what_is_the_same_for_all_platforms_runs_once() {
    if !require_sandbox("what_is_the_same_for_all_platforms_runs_once") {
        return;
    }
    let env = TestEnv::new();
    env.write(
        "Dockerfile",
        format!(
            "FROM --platform=$BUILDPLATFORM {} AS build\nRUN echo same > /same\nARG TARGETPLATFORM\n\
             RUN echo $TARGETPLATFORM > /own\nFROM scratch\nCOPY --from=build /same /own /\n",
            base()
        ),
    );
    let ended = env
        .ok("build --progress=plain --platform linux/amd64,linux/arm64 --platform linux/arm64,linux/arm/v7 \
                        -o type=local,dest=out .");
    // A step that others interrupt is named again.
    let steps: BTreeSet<&str> = ended.stderr.lines().filter(|line| line.starts_with('#')).collect();
    let runs = |text: &str| steps.iter().filter(|line| line.contains(text)).count();
    assert_eq!((runs("RUN echo same"), runs("RUN echo linux/")), (1, 3), "{}", ended.stderr);
    for (directory, own) in
        [("linux_amd64", "linux/amd64\n"), ("linux_arm64", "linux/arm64\n"), ("linux_arm_v7", "linux/arm/v7\n")]
    {
        assert_eq!(std::fs::read_to_string(env.context(&format!("out/{directory}/own"))).expect("written"), own);
        assert_eq!(std::fs::read_to_string(env.context(&format!("out/{directory}/same"))).expect("written"), "same\n");
    }
}

// Rows: B7, B8.
#[test]
fn several_platforms_are_one_index_in_a_registry_and_one_name_in_the_store() {
    let env = TestEnv::new();
    let name = shared().name(&format!("{}:1", env.mark().to_lowercase()));
    env.write("Dockerfile", "FROM scratch\nARG TARGETARCH\nLABEL for=$TARGETARCH\nCOPY Dockerfile /\n");
    env.ok(&format!(
        "build -q --push --load -t {name} --platform linux/s390x,local,linux/arm64 --annotation index:i=1 \
         --annotation manifest[linux/arm64]:m=2 --annotation manifest-descriptor[linux/s390x]:d=3 \
         --iidfile iid --metadata-file metadata ."
    ));
    let index = raw(&name);
    assert_eq!(platforms(&index), ["linux/s390x", "linux/amd64", "linux/arm64"]);
    assert_eq!((&index["annotations"]["i"], &index["manifests"][0]["annotations"]["d"]), (&"1".into(), &"3".into()));
    let arm = index["manifests"][2]["digest"].as_str().expect("a digest");
    assert_eq!(raw(&format!("{}@{arm}", name.rsplit_once(':').expect("a tag").0))["annotations"]["m"], "2");

    let text = |file: &str| std::fs::read_to_string(env.context(file)).expect("written");
    let metadata: Value = serde_json::from_str(&text("metadata")).expect("JSON");
    assert_eq!(metadata["containerimage.digest"], text("iid"));
    assert_eq!(metadata["containerimage.config.digest"], Value::Null);

    // The name means this machine's image; the others are bases for their platforms.
    assert!(env.ok(&format!("inspect {name}")).stdout.contains("\"amd64\""));
    env.write("Dockerfile", format!("FROM --platform=linux/s390x {name}\nLABEL more=1\n"));
    env.ok("build -q --pull=never -t child .");
    assert!(env.ok("inspect child").stdout.contains("\"for\": \"s390x\""));

    // Another name takes all of them along, and the last name takes them away.
    let other = shared().name(&format!("{}:2", env.mark().to_lowercase()));
    env.ok(&format!("tag {name} {other}"));
    env.ok(&format!("rmi {name}"));
    env.ok(&format!("push {other}"));
    assert_eq!(platforms(&raw(&other)).len(), 3);
    env.ok(&format!("save -o saved.tar {other}"));
    let removed = env.ok(&format!("rmi {other}")).stdout;
    assert_eq!(removed.lines().filter(|line| line.starts_with("Deleted:")).count(), 3, "{removed}");
}

#[test]
fn files_of_several_platforms_are_merged_if_none_is_lost() {
    let env = TestEnv::new();
    let build = "--platform linux/amd64,linux/arm64 -o type=local,dest=out,platform-split=false \
                 -o type=tar,dest=out.tar,platform-split=false .";
    env.write("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /bin/app-$TARGETARCH\n");
    env.ok(&format!("build -q {build}"));
    assert!(env.context("out/bin/app-amd64").exists() && env.context("out/bin/app-arm64").exists());
    env.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /bin/app\n");
    let ended = env.fails(&format!("build --progress=quiet {build}"));
    assert!(ended.contains("several platforms have a file `/bin/app`"), "{ended}");
}

#[test]
fn an_index_can_be_asked_for_and_refused() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    env.ok("build -q --build-arg BUILDKIT_MULTI_PLATFORM=1 -o type=oci,dest=layout,tar=false -o type=local,dest=out .");
    let index: Value =
        serde_json::from_slice(&std::fs::read(env.context("layout/index.json")).expect("written")).expect("JSON");
    assert_eq!(index["manifests"][0]["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert!(env.context("out/linux_amd64/Dockerfile").exists());
    let refused =
        env.fails("build -q --build-arg BUILDKIT_MULTI_PLATFORM=false --platform linux/amd64,linux/arm64 -t a .");
    assert!(refused.contains("BUILDKIT_MULTI_PLATFORM is `false`"), "{refused}");
}

#[test]
fn annotations_of_what_is_not_there_are_errors() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let ended = env.fails("build --progress=quiet --annotation index:a=b -o type=oci,dest=a.tar .");
    assert!(ended.contains("annotation `a` is for an index"), "{ended}");
    let ended = env.fails("build --progress=quiet --annotation manifest[linux/s390x]:a=b -o type=oci,dest=a.tar .");
    assert!(ended.contains("annotation `a` is for linux/s390x, which is not built"), "{ended}");
    assert!(!env.context("a.tar").exists());
}

#[test]
fn a_program_of_another_platform_needs_an_emulator() {
    if !require_sandbox("a_program_of_another_platform_needs_an_emulator") {
        return;
    }
    let env = TestEnv::new();
    // The head of a program for IBM Z: nothing that a test machine has an emulator for runs it.
    let mut program = b"\x7fELF\x02\x02\x01".to_vec();
    program.resize(64, 0);
    program[16..20].copy_from_slice(&[0, 2, 0, 22]);
    env.write("sh", program).write("Dockerfile", "FROM scratch\nCOPY --chmod=755 sh /bin/sh\nRUN make\n");
    let ended = env.fails("build --progress=quiet --platform linux/s390x .");
    assert!(ended.contains("does not run programs of linux/s390x"), "{ended}");
    assert!(ended.contains("binfmt_misc") && ended.contains("Dockerfile:3"), "{ended}");
}

#[test]
fn all_platforms_are_those_that_every_base_has() {
    let env = TestEnv::new();
    let registry = shared();
    let (wide, narrow) = (registry.name("wide"), registry.name("narrow"));
    let push = |name: &str, platforms: &str| {
        env.write("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n");
        env.ok(&format!("build -q --platform {platforms} -o type=registry,name={name} ."));
    };
    push(&wide, "linux/amd64,linux/arm64,linux/s390x");
    push(&narrow, "linux/arm64,linux/s390x,linux/ppc64le");
    let from = |text: &str| {
        env.write("Dockerfile", text.replace("WIDE", &wide).replace("NARROW", &narrow));
    };
    from(
        "FROM --platform=$BUILDPLATFORM WIDE AS tools\nFROM NARROW AS other\nFROM WIDE\nCOPY --from=tools /amd64 /t\n\
          COPY --from=other /Dockerfile* /\n",
    );
    let ended = env.ok("build --progress=quiet --all-platforms -o type=oci,dest=layout,tar=false .");
    assert!(ended.stderr.contains("note: the platforms are linux/arm64, linux/s390x"), "{}", ended.stderr);
    let index: Value =
        serde_json::from_slice(&std::fs::read(env.context("layout/index.json")).expect("written")).expect("JSON");
    assert_eq!(index["manifests"][0]["mediaType"], "application/vnd.oci.image.index.v1+json");
    // A dry run and a probe are about the same platforms; the first asks nobody.
    let of = |ended: crate::env::Ended| {
        let json: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        let steps = json["steps"].as_array().expect("steps").iter();
        let names = steps.map(|step| step["name"].as_str().expect("text").to_owned());
        let mut platforms: Vec<_> =
            names.filter_map(|name| name[1..].split_once(' ').map(|(first, _)| first.to_owned())).collect();
        platforms.sort();
        platforms.dedup();
        platforms
    };
    assert_eq!(of(env.ok("build --dry-run --all-platforms --format json .")), ["linux/arm64", "linux/s390x"]);
    let probed = of(env.rbuild("cache probe --all-platforms --json ."));
    assert_eq!(probed, ["linux/arm64", "linux/s390x"]);
    // What is here for another platform is said where nobody can be asked, or nobody may.
    env.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    env.ok("build -q --platform linux/s390x -t 127.0.0.1:1/there .");
    env.write("Dockerfile", "FROM 127.0.0.1:1/there\n");
    for (pull, error) in [("missing", "cannot reach registry"), ("never", "is not in the local store")] {
        let said = env.fails(&format!("build --progress=quiet --platform linux/ppc64le --pull={pull} ."));
        assert!(said.contains(error), "{said}");
        let hint = "hint: the store has this image for linux/s390x, and linux/ppc64le is wanted: see `--platform`";
        assert!(said.contains(hint), "{said}");
    }
    env.ok("build -q --platform linux/s390x .");
    let empty = |line: &str| {
        let mut command = env.command(line.split(' '));
        crate::env::end(command.env("RBUILD_ROOT", env.path("empty")))
    };
    let unknown = empty("build --dry-run --all-platforms .");
    assert!(unknown.code != 0 && unknown.stderr.contains("is not in the local store"), "{}", unknown.stderr);
    assert_eq!(env.rbuild("build --check --all-platforms .").code, 125);
    // An image that is not an index has the platform of its config.
    push(&narrow, "linux/ppc64le");
    from("FROM NARROW AS other\nFROM WIDE\nCOPY --from=other / /\n");
    let disjoint = env.fails("build --progress=quiet --pull --all-platforms .");
    assert!(disjoint.contains("no platform is offered by all base images"), "{disjoint}");
    assert!(disjoint.contains("has linux/ppc64le"), "{disjoint}");
    from("FROM scratch\n");
    assert!(env.fails("build --progress=quiet --all-platforms .").contains("no base image says which"));
}

#[test]
fn a_loaded_name_stands_for_all_platforms() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nARG TARGETARCH\nENV A=$TARGETARCH\nCOPY Dockerfile /\n");
    env.ok("build -q --platform linux/amd64,linux/arm64 -t both:1 -o type=docker,dest=both.tar .");
    let load = |state: &str| {
        let command = |line: &str| {
            let mut command = env.command(line.split(' '));
            crate::env::end(command.env("RBUILD_ROOT", env.path(state)))
        };
        assert_eq!(command("load -i both.tar").stdout, "Loaded image: both:1\nLoaded image: both:1\n");
        command("images --format {{.Repository}}").stdout
    };
    assert_eq!(load("other"), "both\nboth\n");
}
