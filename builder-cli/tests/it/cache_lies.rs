//! Caches that say what is not so: the image is right all the same, and what was said wrongly is found out.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::env::{TestEnv, require_sandbox};
use crate::inline_cache::sha256;
use crate::registry::{Registry, base};
use crate::remote_cache::build;

const NOTHING: [&str; 0] = [];

/// A cache in a directory.
struct Cache(PathBuf);

impl Cache {
    fn blob(&self, digest: &Value) -> PathBuf {
        self.0.join("blobs").join(digest.as_str().expect("a digest").replace(':', "/"))
    }

    fn put(&self, bytes: &[u8]) -> String {
        let digest = format!("sha256:{}", sha256(bytes));
        std::fs::write(self.blob(&json!(digest)), bytes).expect("written");
        digest
    }

    fn json(path: &Path) -> Value {
        serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("JSON")
    }

    /// Changes what the cache says.
    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let top = self.0.join("index.json");
        let mut layout = Self::json(&top);
        let mut manifest = Self::json(&self.blob(&layout["manifests"][0]["digest"]));
        let packed = std::fs::read(self.blob(&manifest["config"]["digest"])).expect("readable");
        let mut index: Value = serde_json::from_slice(&zstd::decode_all(&packed[..]).expect("zstd")).expect("JSON");
        change(&mut index);
        let packed = zstd::encode_all(&serde_json::to_vec(&index).expect("JSON")[..], 1).expect("zstd");
        (manifest["config"]["digest"], manifest["config"]["size"]) = (json!(self.put(&packed)), json!(packed.len()));
        let bytes = serde_json::to_vec(&manifest).expect("JSON");
        let entry = &mut layout["manifests"][0];
        (entry["digest"], entry["size"]) = (json!(self.put(&bytes)), json!(bytes.len()));
        std::fs::write(top, serde_json::to_vec(&layout).expect("JSON")).expect("written");
    }

    fn from(&self) -> String {
        format!("--cache-from type=local,src={}", self.0.display())
    }
}

/// A project, and a cache of it.
fn cached() -> (TestEnv, Cache, String) {
    let env = project();
    let cache = Cache(env.path("cache"));
    let (_, id, _) =
        build(&env, &format!("--output=type=oci,dest=../a.tar --cache-to type=local,dest={}", cache.0.display()));
    (env, cache, id)
}

fn project() -> TestEnv {
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nRUN echo first > /first\nRUN cat /first > /second\n", base()));
    env
}

pub(crate) fn filter(program: &str, argument: &str, bytes: &[u8]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("written");
    let input = std::fs::File::open(file.path()).expect("readable");
    let ended = Command::new(program).arg(argument).stdin(Stdio::from(input)).output().expect("gzip");
    assert!(ended.status.success());
    ended.stdout
}

/// Makes every layer another blob with the same files; `longer` makes the archive in it another one, too.
fn replace_layers(cache: &Cache, longer: bool) {
    cache.edit(|index| {
        for layer in index["layers"].as_array_mut().expect("layers") {
            let old = std::fs::read(cache.blob(&layer["blob"]["digest"])).expect("readable");
            let mut tar = filter("gzip", "-dc", &old);
            if longer {
                // Archives may end with any number of empty blocks.
                tar.resize(tar.len() + 1024, 0);
                layer["diff_id"] = json!(format!("sha256:{}", sha256(&tar)));
            }
            let blob = filter("gzip", "-1nc", &tar);
            assert_ne!(blob, old);
            (layer["blob"]["digest"], layer["blob"]["size"]) = (json!(cache.put(&blob)), json!(blob.len()));
        }
    });
}

#[test]
fn a_layer_that_a_cache_describes_wrongly_is_packed_again_and_pushed() {
    let test = "a_layer_that_a_cache_describes_wrongly_is_packed_again_and_pushed";
    if !require_sandbox(test) {
        return;
    }
    let registry = Registry::start();
    for (number, longer) in [false, true].into_iter().enumerate() {
        let (_owner, cache, id) = cached();
        replace_layers(&cache, longer);
        let env = project();
        let name = registry.name(&format!("app{number}:1"));
        let to = format!("--cache-to type=registry,ref={}", registry.name(&format!("cache{number}:1")));
        let (ran, again, warnings) = build(&env, &format!("--push -t {name} {} {to}", cache.from()));
        assert_eq!((ran, warnings), (NOTHING.map(str::to_owned).to_vec(), NOTHING.map(str::to_owned).to_vec()));
        assert_eq!(again, id, "the image is the one that the build without the cache gave");
        let third = project();
        third.ok(&format!("pull -q {name}"));
        assert_eq!(third.ok(&format!("run --rm {name} cat /second")).stdout, "first\n");
    }
}

#[test]
fn an_image_in_the_store_that_a_cache_described_wrongly_can_be_pushed_after_another_build() {
    let test = "an_image_in_the_store_that_a_cache_described_wrongly_can_be_pushed_after_another_build";
    if !require_sandbox(test) {
        return;
    }
    let registry = Registry::start();
    // Another compression is found out and put right on the way.
    let (_owner, cache, _) = cached();
    replace_layers(&cache, false);
    let (env, name) = (project(), registry.name("stored:1"));
    build(&env, &format!("-t {name} {}", cache.from()));
    env.ok(&format!("push -q {name}"));
    // Another archive is in the config of the image already.
    let (_owner, cache, id) = cached();
    replace_layers(&cache, true);
    let (env, name) = (project(), registry.name("stored:2"));
    build(&env, &format!("-t {name} {}", cache.from()));
    for _ in 0..2 {
        let failed = env.fails(&format!("push -q {name}"));
        assert!(failed.contains("exit code: 1\n") && failed.contains("hint: build it again"), "{failed}");
    }
    let (ran, again, _) = build(&env, &format!("-t {name}"));
    assert_eq!((ran.as_slice(), again), (&NOTHING.map(str::to_owned)[..], id));
    env.ok(&format!("push -q {name}"));
}

#[test]
fn a_layer_that_is_lost_while_the_image_is_written_is_made_again() {
    if !require_sandbox("a_layer_that_is_lost_while_the_image_is_written_is_made_again") {
        return;
    }
    let (_owner, cache, id) = cached();
    cache.edit(|index| {
        let layers = index["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), 2);
        std::fs::remove_file(cache.blob(&layers[0]["blob"]["digest"])).expect("removed");
    });
    let env = project();
    let (ran, again, warnings) = build(&env, &format!("--output=type=oci,dest=../image.tar {}", cache.from()));
    assert_eq!((ran.len(), warnings.len(), again), (1, 1, id), "{ran:?} {warnings:?}");
    assert!(warnings[0].contains("is not there any more"), "{warnings:?}");
}

#[test]
fn a_base_that_a_cache_describes_wrongly_is_found_out_when_its_files_are_needed() {
    if !require_sandbox("a_base_that_a_cache_describes_wrongly_is_found_out_when_its_files_are_needed") {
        return;
    }
    let (_owner, cache, _) = cached();
    cache.edit(|index| {
        let other = index["layers"][0]["tree"].clone();
        let bases = index["bases"].as_array_mut().expect("bases");
        assert!(!bases.is_empty());
        for base in bases {
            base["tree"] = other.clone();
        }
    });
    let change = |env: &TestEnv| {
        let dockerfile = format!("FROM {}\nRUN ls / > /list && echo changed >> /list\n", base());
        env.write("Dockerfile", dockerfile);
    };
    let (with, without) = (project(), project());
    change(&with);
    change(&without);
    let files = |env: &TestEnv, options: &str| {
        let (ran, _, warnings) = build(env, &format!("--output=type=local,dest=../out {options}"));
        assert_eq!((ran.len(), warnings.len()), (1, 0), "{ran:?} {warnings:?}");
        std::fs::read_to_string(env.path("out/list")).expect("written")
    };
    let expected = files(&without, "");
    assert_eq!(files(&with, &cache.from()), expected);
    // What was believed for a moment is not remembered.
    assert_eq!(build(&with, "").0, NOTHING);
}

#[test]
fn a_cache_of_buildkit_costs_one_warning() {
    if !require_sandbox("a_cache_of_buildkit_costs_one_warning") {
        return;
    }
    let env = project();
    let warned = |from: &str| {
        let (ran, _, warnings) = build(&project(), from);
        assert_eq!((ran.len(), warnings.len()), (2, 1), "{from}: {warnings:?}");
        assert!(warnings[0].contains("it was written by BuildKit"), "{warnings:?}");
    };
    let config = json!({
        "mediaType": "application/vnd.buildkit.cacheconfig.v0", "size": 2,
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    });
    // As it writes them with `image-manifest=true` and without.
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let index = "application/vnd.oci.image.index.v1+json";
    let documents = [
        ("manifest", manifest, json!({ "schemaVersion": 2, "mediaType": manifest, "config": config, "layers": [] })),
        ("index", index, json!({ "schemaVersion": 2, "mediaType": index, "manifests": [config] })),
    ];
    let registry = Registry::start();
    for (name, media_type, document) in documents {
        let bytes = serde_json::to_vec(&document).expect("JSON");
        let cache = Cache(env.path(name));
        std::fs::create_dir_all(cache.0.join("blobs/sha256")).expect("directories");
        let entry = json!({
            "mediaType": media_type, "digest": cache.put(&bytes), "size": bytes.len(),
            "annotations": { "org.opencontainers.image.ref.name": "latest" },
        });
        let layout = json!({ "schemaVersion": 2, "manifests": [entry] });
        std::fs::write(cache.0.join("index.json"), serde_json::to_vec(&layout).expect("JSON")).expect("written");
        warned(&cache.from());

        registry.put_blob("cache/buildkit", b"{}");
        registry.put_manifest("cache/buildkit", name, media_type, &bytes);
        warned(&format!("--cache-from type=registry,ref={}", registry.name(&format!("cache/buildkit:{name}"))));
        // A cache of ours takes its place.
        let ours = registry.name(&format!("cache/buildkit:{name}"));
        assert_eq!(build(&env, &format!("--cache-to type=registry,ref={ours}")).2, NOTHING);
        assert_eq!(build(&project(), &format!("--cache-from {ours}")).0, NOTHING);
    }
}

#[test]
fn the_cache_in_an_image_is_read_from_a_layout_in_a_directory() {
    if !require_sandbox("the_cache_in_an_image_is_read_from_a_layout_in_a_directory") {
        return;
    }
    let first = project();
    let layout = "--output=type=oci,dest=../layout,tar=false -t app:one --cache-to type=inline";
    let (_, id, _) = build(&first, layout);
    let source = format!("--cache-from type=local,src={}", first.path("layout").display());
    let check = |more: &str, expected: usize| {
        let env = project();
        let output = "--output=type=oci,dest=../image.tar --cache-to type=inline";
        let (ran, again, warnings) = build(&env, &format!("{output} {source}{more}"));
        assert_eq!((ran.len(), warnings), (expected, Vec::new()), "{more}: {ran:?}");
        assert!(expected > 0 || again == id, "{more}");
        env
    };
    let env = check("", 0);
    check(",tag=one", 0);
    check(",tag=two", 2);
    // How long the steps took is not known, which is not the same as no time at all.
    env.write("Dockerfile", format!("FROM {}\nRUN echo first > /first\nRUN cat /first > /third\n", base()));
    env.ok("prune -a -f");
}

#[test]
fn what_is_missing_in_a_directory_is_there_again_after_the_next_export() {
    if !require_sandbox("what_is_missing_in_a_directory_is_there_again_after_the_next_export") {
        return;
    }
    let (env, cache, id) = cached();
    let blobs =
        || std::fs::read_dir(cache.0.join("blobs/sha256")).expect("listed").map(|blob| blob.expect("one").path());
    let before: Vec<PathBuf> = blobs().collect();
    assert!(before.len() > 4, "{before:?}");
    for (number, blob) in before.iter().enumerate() {
        let bytes = std::fs::read(blob).expect("readable");
        if number % 2 == 0 {
            std::fs::remove_file(blob).expect("removed");
        } else {
            std::fs::write(blob, &bytes[..bytes.len() / 2]).expect("written");
        }
        let output = "--output=type=oci,dest=../b.tar";
        build(&env, &format!("{output} --cache-to type=local,dest={}", cache.0.display()));
        assert!(blob.exists() && std::fs::read(blob).expect("readable") == bytes, "{}", blob.display());
        let (ran, again, warnings) = build(&project(), &format!("{output} {}", cache.from()));
        assert_eq!((ran, again, warnings), (vec![], id.clone(), vec![]), "{}", blob.display());
    }
}
