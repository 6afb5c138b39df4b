//! `--cache-to type=inline`: an image that knows how it was made.

use std::process::Command;

use crate::env::{TestEnv, end, require_sandbox};
use crate::recorder::Recorder;
use crate::registry::{Registry, base};
use crate::remote_cache::{build, project_on, publish_base};

const NOTHING: [&str; 0] = [];

/// The config of an image, as skopeo reads it.
fn config(name: &str) -> serde_json::Value {
    let ended = end(Command::new("skopeo").args(["inspect", "--tls-verify=false", "--raw", "--config", name]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

/// Copies an image with skopeo.
fn copy(from: &str, to: &str, more: &[&str]) {
    let ended = end(Command::new("skopeo")
        .args(["copy", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"])
        .args(more)
        .args([from, to]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

#[test]
fn an_image_is_its_own_cache() {
    let test = "an_image_is_its_own_cache";
    if !require_sandbox(test) {
        return;
    }
    let registry = Registry::start();
    let recorder = Recorder::before(&registry.address);
    let name = |name: &str| format!("{}/{name}", recorder.address);
    publish_base(&name("base:1"));
    let project = || project_on(&name("base:1"), "WORKDIR /made\n");
    let push = format!("--push -t {}", name("app:1"));
    let inline = format!("{push} --cache-to type=inline --cache-from {}", name("app:1"));
    let (ran, id, warnings) = build(&project(), &inline);
    assert_eq!((ran.len(), warnings), (3, NOTHING.map(str::to_owned).to_vec()), "{ran:?}");
    recorder.take();

    // A fresh machine: every step hits, and no layer is fetched to push the image again.
    let second = project();
    let (ran, again, warnings) = build(&second, &inline);
    assert_eq!((ran.as_slice(), warnings.as_slice(), &again), (&[][..], &[][..], &id));
    let requests = recorder.take();
    let fetched: Vec<&str> = requests.iter().filter_map(|line| line.strip_prefix("GET /v2/")).collect();
    let of = |part: &str| fetched.iter().filter(|path| path.contains(part)).count();
    assert_eq!((of("base/blobs/"), of("app/blobs/")), (1, 1), "configs, and no layer: {requests:#?}");
    let sent = requests.iter().filter(|line| line.starts_with("POST"));
    assert_eq!(sent.count(), 0, "{requests:#?}");

    // A change runs what sees it, on files that are fetched for it; the files are those of the image.
    let third = project();
    let dockerfile = std::fs::read_to_string(third.context("Dockerfile")).expect("there");
    third.write("Dockerfile", format!("{dockerfile}RUN cat /b a > /c\n"));
    let (ran, _, warnings) =
        build(&third, &format!("--output=type=local,dest=../files --cache-from {}", name("app:1")));
    assert_eq!((ran.as_slice(), warnings.as_slice()), (&["RUN cat /b a > /c".to_owned()][..], &[][..]));
    assert_eq!(std::fs::read_to_string(third.path("files/c")).expect("written"), "contentcontent");

    // It says nothing of other stages; what they give is recognised by its content.
    let staged = || {
        let env = TestEnv::new();
        let base = name("base:1");
        let dockerfile = format!(
            "FROM {base} AS build\nRUN echo app > /app\nFROM {base}\nCOPY --from=build /app /app\nRUN cat /app > /b\n"
        );
        env.write("Dockerfile", dockerfile);
        env
    };
    let options = format!("--push -t {0} --cache-to type=inline --cache-from {0}", name("staged:1"));
    let (ran, staged_id, _) = build(&staged(), &options);
    assert_eq!(ran.len(), 3, "{ran:?}");
    let (ran, again, warnings) = build(&staged(), &options);
    assert_eq!((ran.as_slice(), again), (&["RUN echo app > /app".to_owned()][..], staged_id), "{warnings:?}");

    // It is there if it is asked for, and is not inherited.
    let config_of = |name: &str| config(&format!("docker://{name}"));
    assert!(config_of(&name("app:1"))["rbuild.cache.v2"].is_string());
    let plain = build(&second, &format!("--output=type=oci,dest=../plain.tar --cache-from {}", name("app:1"))).1;
    assert_ne!(plain, id, "nothing is added that was not asked for");
    let child = TestEnv::new();
    child.write("Dockerfile", format!("FROM {}\nLABEL a=b\n", name("app:1")));
    build(&child, "--output=type=oci,dest=../child.tar");
    let inherited = config(&format!("oci-archive:{}", child.path("child.tar").display()));
    assert_eq!(inherited["rbuild.cache.v2"], serde_json::Value::Null);
    // Docker's way to ask for it.
    let argument = build(
        &project(),
        &format!("{inline} --build-arg BUILDKIT_INLINE_CACHE=1").replace("--cache-to type=inline", ""),
    );
    assert_eq!(argument.1, id);

    // Layers that were compressed in another way since are still those of its steps.
    copy(
        &format!("docker://{}", name("app:1")),
        &format!("docker://{}", name("other:zstd")),
        &["--dest-compress-format=zstd"],
    );
    let raw = format!("docker://{}", name("other:zstd"));
    let raw = end(Command::new("skopeo").args(["inspect", "--tls-verify=false", "--raw", &raw])).stdout;
    assert!(raw.contains("tar+zstd"), "{raw}");
    let options = format!("--output=type=local,dest=../files --cache-from {}", name("other:zstd"));
    let (ran, _, warnings) = build(&project(), &options);
    assert_eq!((ran.as_slice(), warnings.as_slice()), (&[][..], &[][..]));
    let elsewhere = Registry::start();
    let options = format!(
        "--output=type=registry,name={},compression=zstd --cache-from {}",
        elsewhere.name("app:1"),
        name("other:zstd")
    );
    let (ran, _, warnings) = build(&project(), &options);
    assert_eq!((ran.as_slice(), warnings.as_slice()), (&[][..], &[][..]));
    copy(&format!("docker://{}", elsewhere.name("app:1")), &format!("docker://{}", elsewhere.name("app:2")), &[]);
}

#[test]
fn a_reproducible_image_stays_so_and_its_rewritten_layers_are_found() {
    let test = "a_reproducible_image_stays_so_and_its_rewritten_layers_are_found";
    if !require_sandbox(test) {
        return;
    }
    let registry = Registry::start();
    let recorder = Recorder::before(&registry.address);
    let project = || {
        let env = TestEnv::new();
        env.write("Dockerfile", format!("FROM {}\nRUN echo 1 > /1\nRUN cat /1 > /2\n", base()));
        env
    };
    let name = format!("{}/app:1", recorder.address);
    let options = format!(
        "--output=type=registry,rewrite-timestamp=true -t {name} --build-arg SOURCE_DATE_EPOCH=1000000000 \
         --cache-to type=inline"
    );
    let (ran, id, _) = build(&project(), &options);
    let (again, same, _) = build(&project(), &options);
    assert_eq!((ran.len(), again.len(), &same), (2, 2, &id));
    recorder.take();
    let (ran, same, warnings) = build(&project(), &format!("{options} --cache-from {name}"));
    assert_eq!((ran.as_slice(), &same, warnings.as_slice()), (&[][..], &id, &[][..]));
    let requests = recorder.take();
    let blobs: Vec<_> = requests.iter().filter(|line| line.starts_with("GET") && line.contains("/blobs/")).collect();
    assert_eq!(blobs.len(), 1, "the config: {requests:#?}");
}

#[test]
fn an_image_without_a_cache_is_passed_over_and_a_damaged_one_costs_one_warning() {
    let registry = Registry::start();
    let project = |cache_from: &str| {
        let env = TestEnv::new();
        env.write("Dockerfile", "FROM scratch\nCOPY a /a\nCOPY b /b\n").write("a", "1").write("b", "2");
        (build(&env, &format!("--output=type=oci,dest=../out,tar=false --cache-from {cache_from}")), env)
    };
    let push = |env: &TestEnv, name: &str, more: &str| env.ok(&format!("build -q --push -t {name} {more} ."));
    let (_, first) = project(&registry.name("nothing:1"));
    push(&first, &registry.name("plain:1"), "");
    let ((ran, _, warnings), _) = project(&registry.name("plain:1"));
    assert_eq!((ran.len(), warnings.as_slice()), (2, &[][..]));

    // Of two platforms each has its own.
    push(&first, &registry.name("both:1"), "--cache-to type=inline --platform linux/amd64,linux/arm64");
    let ((ran, _, warnings), _) = project(&registry.name("both:1"));
    assert_eq!((ran.as_slice(), warnings.as_slice()), (&[][..], &[][..]));

    // The same image with a damaged field.
    first.ok("build -q --output=type=oci,dest=../layout,tar=false --cache-to type=inline .");
    let layout = first.path("layout");
    let blob = |digest: &serde_json::Value| {
        layout.join("blobs/sha256").join(digest.as_str().expect("a digest").trim_start_matches("sha256:"))
    };
    let read = |path: &std::path::Path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).expect("there")).expect("JSON")
    };
    let write = |value: &serde_json::Value| {
        let bytes = serde_json::to_vec(value).expect("JSON");
        let digest = format!("sha256:{}", sha256(&bytes));
        std::fs::write(blob(&digest.clone().into()), &bytes).expect("written");
        (digest, bytes.len())
    };
    let mut index = read(&layout.join("index.json"));
    let mut manifest = read(&blob(&index["manifests"][0]["digest"]));
    let mut config = read(&blob(&manifest["config"]["digest"]));
    let good = config["rbuild.cache.v2"].as_str().expect("a cache").to_owned();
    for (number, damaged) in [&good[..good.len() / 8 * 4], "nonsense!"].into_iter().enumerate() {
        config["rbuild.cache.v2"] = damaged.into();
        let (digest, size) = write(&config);
        (manifest["config"]["digest"], manifest["config"]["size"]) = (digest.into(), size.into());
        let (digest, size) = write(&manifest);
        (index["manifests"][0]["digest"], index["manifests"][0]["size"]) = (digest.into(), size.into());
        std::fs::write(layout.join("index.json"), index.to_string()).expect("written");
        let name = registry.name(&format!("damaged:{number}"));
        copy(&format!("oci:{}", layout.display()), &format!("docker://{name}"), &[]);
        let ((ran, _, warnings), _) = project(&name);
        assert_eq!((ran.len(), warnings.len()), (2, 1), "{warnings:?}");
        assert!(warnings[0].contains("is not used any further: it is no cache of this program"), "{warnings:?}");
    }

    // Where there is no image the cache has no place.
    let (_, _, warnings) = build(&first, "--output=type=image --cache-to type=inline");
    assert_eq!(warnings, NOTHING);
    let ended = first.ok("build --progress=plain --output=type=local,dest=../files --cache-to type=inline .");
    assert!(ended.stderr.contains("there is no place for an inline cache"), "{}", ended.stderr);
    let failed = first.fails("build --cache-to type=inline,mode=max .");
    assert!(failed.contains("an image has its own layers only"), "{failed}");
}

/// With the program: nothing else here needs a digest.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("written");
    let ended = end(Command::new("sha256sum").arg(file.path()));
    ended.stdout.split(' ').next().expect("a digest").to_owned()
}

#[test]
fn the_epoch_of_an_image_is_not_the_time_when_its_steps_ran() {
    if !require_sandbox("the_epoch_of_an_image_is_not_the_time_when_its_steps_ran") {
        return;
    }
    let project = || {
        let env = TestEnv::new();
        env.write("Dockerfile", format!("FROM {}\nRUN echo a > /a\nRUN cat /a > /b\n", base()));
        env
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("later").as_secs();
    let made = project();
    let run = |env: &TestEnv, epoch: &str, place: &str, more: &str| {
        build(env, &format!("{epoch} --output=type=oci,tar=false,dest={place} --cache-to type=inline {more}"))
    };
    // The second one is built from what is known, at another time than its steps.
    let (plain, dated) = (made.path("plain").display().to_string(), made.path("dated").display().to_string());
    assert_eq!(run(&made, "", &plain, "").0.len(), 2);
    assert_eq!(run(&made, &format!("--source-date-epoch={now}"), &dated, "").0, NOTHING);
    for (place, limit, expected) in [(&plain, "1h", 0), (&plain, "0s", 2), (&dated, "1h", 2), (&dated, "", 0)] {
        let limit = if limit.is_empty() { String::new() } else { format!("--cache-ttl={limit}") };
        let (ran, ..) = build(&project(), &format!("{limit} --cache-from type=local,src={place}"));
        assert_eq!(ran.len(), expected, "{place} {limit} {ran:?}");
    }
}
