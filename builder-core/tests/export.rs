//! Images as others see them: skopeo, umoci, crun, GNU tar and docker's registry judge what is written.
#![expect(clippy::print_stderr, reason = "a test says when it is skipped")]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "a test looks for programs in PATH")]

#[path = "export/support.rs"]
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::Ordering;

use builder_core::build::images;
use builder_core::export::{ExportError, Output};
use builder_core::image::{ImageLayer, LayerSource};
use builder_core::oci::{Compression, MediaType, Platform, Reference};
use serde_json::Value;
use support::{RegistryProcess, Store, have, image, layer, run, sample};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn amd64() -> Platform {
    Platform::new("linux", "amd64", None)
}

#[test]
fn archives_are_understood_by_skopeo_and_are_the_same_bytes_each_time() {
    let store = Store::new();
    let (image, files) = sample();
    let outputs = ["type=oci,dest=DIR/o.tar,name=app:1", "type=docker,dest=DIR/d.tar,name=app:1"];
    let first = store.export(&image, &outputs).unwrap();
    let before: Vec<Vec<u8>> = ["o.tar", "d.tar"].map(|name| fs::read(store.path(name)).unwrap()).to_vec();
    let opened: usize = files.iter().map(|files| files.opened.load(Ordering::Relaxed)).sum();
    assert_eq!(store.export(&image, &outputs).unwrap(), first);
    let after: Vec<Vec<u8>> = ["o.tar", "d.tar"].map(|name| fs::read(store.path(name)).unwrap()).to_vec();
    assert!(before == after, "the same image gives the same archive");
    assert_eq!(
        files.iter().map(|files| files.opened.load(Ordering::Relaxed)).sum::<usize>(),
        opened * 2,
        "packed once for each export, whatever its outputs"
    );
    let fresh = Store::new();
    fresh.export(&sample().0, &outputs).unwrap();
    assert!(fs::read(fresh.path("o.tar")).unwrap() == before[0], "in another store as well");

    if !have("skopeo") {
        return;
    }
    for kind in ["oci-archive", "docker-archive"] {
        let name = if kind == "oci-archive" { "o.tar" } else { "d.tar" };
        let source = format!("{kind}:{}", store.path(name).display());
        let seen = json(&run("skopeo", &["inspect", &source]));
        assert_eq!(seen["Layers"].as_array().map(Vec::len), Some(2), "{kind}");
        assert_eq!(seen["Env"], serde_json::json!(["PATH=/bin"]));
        assert_eq!(seen["Created"], "2023-11-14T22:13:21Z");
        let config = json(&run("skopeo", &["inspect", "--config", &source]));
        assert_eq!(config["history"][1]["created_by"], "COPY 1");
    }
    let tagged = format!("docker-archive:{}:app:1", store.path("d.tar").display());
    run("skopeo", &["inspect", &tagged]);
    // skopeo compares every digest when it copies.
    let copied = format!("oci:{}:app", store.path("copied").display());
    run("skopeo", &["copy", "--insecure-policy", &format!("oci-archive:{}", store.path("o.tar").display()), &copied]);
    assert_eq!(json(&run("skopeo", &["inspect", &copied]))["Digest"], first.manifest.unwrap().digest.to_string());
}

#[test]
fn a_layout_directory_is_unpacked_by_umoci_and_started_by_crun() {
    let store = Store::new();
    let (image, _) = sample();
    let one = "type=oci,dest=DIR/layout,tar=false,name=app:one";
    let two = "type=oci,dest=DIR/layout,tar=false,name=app:two";
    store.export(&image, &[one, two]).unwrap();
    store.export(&image, &[&format!("{two},compression=zstd")]).unwrap();
    let index = json(&fs::read_to_string(store.path("layout/index.json")).unwrap());
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2), "one entry a name: {index}");
    if !have("umoci") || !rustix::process::geteuid().is_root() {
        eprintln!("skipped: umoci and root are needed to unpack");
        return;
    }
    let layout = format!("{}:one", store.path("layout").display());
    let bundle = store.path("bundle");
    run("umoci", &["unpack", "--image", &layout, bundle.to_str().unwrap()]);
    let root = bundle.join("rootfs");
    assert_eq!(fs::read_to_string(root.join("link")).unwrap(), "hello\n");
    assert!(!root.join("etc/old").exists(), "the whiteout removes it");
    let inode = |name: &str| fs::metadata(root.join(name)).unwrap().ino();
    assert_eq!(inode("data/a"), inode("data/b"));
    let suid = fs::metadata(root.join("data/suid")).unwrap();
    assert_eq!((suid.mode() & 0o7777, suid.mtime()), (0o4755, 1_700_000_000));
    if !root.join("bin/busybox").exists() {
        eprintln!("skipped: /bin/busybox is missing (package busybox-static)");
        return;
    }
    let mut config = json(&fs::read_to_string(bundle.join("config.json")).unwrap());
    config["process"]["terminal"] = false.into();
    config["linux"].as_object_mut().unwrap().remove("resources");
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let state = store.path("runtime");
    let (state, bundle) = (state.to_str().unwrap(), bundle.to_str().unwrap());
    for runtime in ["crun", "runc"].into_iter().filter(|runtime| have(runtime)) {
        let name = format!("rbuild-test-{}", std::process::id());
        let output =
            std::process::Command::new(runtime).args(["--root", state, "run", "-b", bundle, &name]).output().unwrap();
        if output.status.success() {
            assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n");
            return;
        }
        eprintln!("skipped: {runtime} cannot start containers here: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn compressions_and_media_types_are_what_was_asked_for() {
    let store = Store::new();
    let (image, _) = sample();
    let mut diff_ids = Vec::new();
    for (options, media_type, magic) in [
        ("", MediaType::OCI_LAYER_GZIP, &[0x1f, 0x8b][..]),
        (",compression-level=9", MediaType::OCI_LAYER_GZIP, &[0x1f, 0x8b]),
        (",compression=zstd", MediaType::OCI_LAYER_ZSTD, &[0x28, 0xb5, 0x2f, 0xfd]),
        (",compression=uncompressed", MediaType::OCI_LAYER, b"bin/"),
        (",oci-mediatypes=false", MediaType::DOCKER_LAYER_GZIP, &[0x1f, 0x8b]),
    ] {
        let exported =
            store.export(&image, &[&format!("type=oci,dest=DIR/l{},tar=false{options}", diff_ids.len())]).unwrap();
        let blobs = store.path(&format!("l{}/blobs/sha256", diff_ids.len()));
        let read = |digest: &str| fs::read(blobs.join(digest.trim_start_matches("sha256:"))).unwrap();
        let manifest = json(&String::from_utf8(read(exported.manifest.unwrap().digest.as_str())).unwrap());
        let layer = &manifest["layers"][0];
        assert_eq!(layer["mediaType"], media_type.as_str());
        assert!(read(layer["digest"].as_str().unwrap()).starts_with(magic), "{options}");
        let config = json(&String::from_utf8(read(manifest["config"]["digest"].as_str().unwrap())).unwrap());
        diff_ids.push(config["rootfs"]["diff_ids"].clone());
    }
    assert!(diff_ids.iter().all(|ids| *ids == diff_ids[0]), "the tar below is the same");
}

#[test]
fn the_store_gets_an_image_once_and_files_outlive_their_source() {
    let store = Store::new();
    let (image, files) = sample();
    let first = store.export(&image, &["type=image,name=app:1"]).unwrap();
    let id = first.image_id.clone().unwrap();
    let snapshots = store.snapshots.list().unwrap();
    assert_eq!(snapshots.len(), 2);
    let opened = || files.iter().map(|files| files.opened.load(Ordering::Relaxed)).sum::<usize>();
    let (before, written) = (opened(), newest(&store.path("state")));
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(store.export(&image, &["type=image,name=app:1"]).unwrap(), first);
    assert_eq!(opened(), before, "no file is read again");
    assert_eq!(newest(&store.path("state")), written, "nothing is written again");

    drop((image, files));
    let context = store.context();
    images::save(&context, &["app:1".to_owned()], images::SaveFormat::Docker, &store.path("s.tar")).unwrap();
    let other = Store::new();
    let mut archive = fs::File::open(store.path("s.tar")).unwrap();
    let loaded = images::load(&other.context(), &mut archive, &amd64()).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!((&loaded[0].id, loaded[0].names[0].familiar().as_str()), (&id, "app:1"));
    let inspected = images::inspect(&other.content, "app:1").unwrap();
    assert_eq!(inspected.root_fs.layers.len(), 2);
    // What was loaded leaves again as it came.
    images::save(&other.context(), &["app:1".to_owned()], images::SaveFormat::Docker, &store.path("again.tar"))
        .unwrap();
    assert!(fs::read(store.path("again.tar")).unwrap() == fs::read(store.path("s.tar")).unwrap());
}

/// The time of the last change of any file below a directory.
fn newest(directory: &Path) -> (i64, i64) {
    let metadata = fs::symlink_metadata(directory).unwrap();
    let own = (metadata.ctime(), metadata.ctime_nsec());
    if !metadata.is_dir() {
        return own;
    }
    let children = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    // SQLite marks readers in this file.
    children
        .filter(|path| path.extension().is_none_or(|extension| extension != "sqlite-shm"))
        .map(|path| newest(&path))
        .fold(own, Ord::max)
}

#[test]
fn a_push_sends_what_is_missing_and_a_pull_gives_the_same_image() {
    let Some(server) = RegistryProcess::start() else { return };
    let store = Store::new();
    let (image, files) = sample();
    let name = format!("{}/team/app:1", server.address);
    let output = format!("type=registry,\"name={name},{}/team/app:2\"", server.address);
    let exported = store.export(&image, &[&output]).unwrap();
    let events = store.events.take();
    assert_eq!(events.iter().filter(|event| event.starts_with("pushing sha256:")).count(), 3, "{events:?}");
    assert_eq!(store.content.blobs().unwrap(), [], "blobs of a push are not kept");

    let opened: usize = files.iter().map(|files| files.opened.load(Ordering::Relaxed)).sum();
    assert_eq!(store.export(&image, &[&output]).unwrap(), exported);
    let events = store.events.take();
    assert_eq!(events.iter().filter(|event| event.ends_with("already exists")).count(), 3, "{events:?}");
    assert_eq!(
        files.iter().map(|files| files.opened.load(Ordering::Relaxed)).sum::<usize>(),
        opened,
        "nothing is packed again"
    );

    let copy = format!("type=registry,name={}/other/app:1", server.address);
    store.export(&image, &[&copy]).unwrap();
    let events = store.events.take();
    assert_eq!(events.iter().filter(|event| event.ends_with("mounted from team/app")).count(), 3, "{events:?}");

    if have("skopeo") {
        for tag in ["team/app:1", "team/app:2", "other/app:1"] {
            let source = format!("docker://{}/{tag}", server.address);
            let seen = json(&run("skopeo", &["inspect", "--tls-verify=false", &source]));
            assert_eq!(seen["Digest"], exported.manifest.as_ref().unwrap().digest.to_string());
        }
    }

    let other = Store::new();
    let reference: Reference = name.parse().unwrap();
    let pulled = images::pull(&other.context(), &reference, &amd64()).unwrap();
    assert_eq!(Some(&pulled.id), exported.image_id.as_ref());
    assert_eq!(pulled.digest, exported.manifest.as_ref().unwrap().digest);
    assert!(pulled.newer && pulled.layers.iter().all(|(_, here)| !here));
    let again = images::pull(&other.context(), &reference, &amd64()).unwrap();
    assert!(!again.newer && again.layers.iter().all(|(_, here)| *here));
    let tag: Reference = format!("{}/third/app:1", server.address).parse().unwrap();
    images::tag(&other.content, &name, &tag).unwrap();
    let pushed = images::push(&other.context(), &tag, Compression::Gzip).unwrap();
    assert_eq!(pushed.manifest.digest, pulled.digest, "what was pulled is pushed as it came");
    assert_eq!(images::inspect(&other.content, &name).unwrap().repo_digests.len(), 2);
}

#[test]
fn base_layers_go_from_registry_to_registry_without_the_store() {
    let (Some(from), Some(to)) = (RegistryProcess::start(), RegistryProcess::start()) else { return };
    let builder = Store::new();
    let base = image(&[layer(&["etc/", "etc/base=1"])]);
    let name = format!("{}/base:1", from.address);
    builder.export(&base, &[&format!("type=registry,name={name}")]).unwrap();
    let reference: Reference = name.parse().unwrap();
    let pulled_by = Store::new();
    let id = images::pull(&pulled_by.context(), &reference, &amd64()).unwrap().id;
    let record = pulled_by.content.database().image(&id).unwrap().unwrap();

    let store = Store::new();
    let mut child = image(&[layer(&["app=1"])]);
    let blob = record.layers[0].descriptor.clone();
    let source = LayerSource::Stored { descriptor: blob.clone(), origin: Some(reference) };
    child.image.layers.insert(0, ImageLayer { diff_id: Some(record.layers[0].diff_id.clone()), source });
    child.image.base_layers = 1;
    store.export(&child, &[&format!("type=registry,name={}/app:1", from.address)]).unwrap();
    let events = store.events.take();
    assert!(events.iter().any(|event| event.ends_with("mounted from base")), "{events:?}");
    store.events.take();
    store.export(&child, &[&format!("type=registry,name={}/app:1", to.address)]).unwrap();
    assert_eq!(store.content.blobs().unwrap(), [], "the base never was in the store");

    // The store keeps images that can be used without the registry.
    store.export(&child, &["type=image,name=app"]).unwrap();
    assert!(store.content.has(&blob.as_ref().unwrap().digest).unwrap().is_some());
    store.events.take();
    store.export(&child, &[&format!("type=registry,name={}/second:1", from.address)]).unwrap();
    let mounted = store.events.take().iter().filter(|event| event.contains("mounted from")).count();
    assert_eq!(mounted, 3, "the base from its repository, layer and config from the one they were pushed to");
    drop((from, to));
    let exported =
        store.export(&child, &["type=oci,dest=DIR/x,tar=false,compression=zstd,force-compression=true"]).unwrap();
    let manifest = store.path("x/blobs/sha256").join(exported.manifest.unwrap().digest.hex());
    let manifest = json(&fs::read_to_string(manifest).unwrap());
    let types: Vec<&Value> = manifest["layers"].as_array().unwrap().iter().map(|layer| &layer["mediaType"]).collect();
    assert_eq!(types, [MediaType::OCI_LAYER_ZSTD.as_str(); 2]);
}

#[test]
fn files_are_merged_into_a_directory_without_following_its_links() {
    let store = Store::new();
    let (image, _) = sample();
    let outside = store.path("outside");
    fs::create_dir(&outside).unwrap();
    let out = store.path("out");
    fs::create_dir_all(out.join("data")).unwrap();
    fs::write(out.join("mine"), "kept").unwrap();
    fs::write(out.join("data/a"), "replaced").unwrap();
    std::os::unix::fs::symlink(&outside, out.join("etc")).unwrap();
    store.export(&image, &["type=local,dest=DIR/out"]).unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "the link was not followed");
    assert_eq!(fs::read_to_string(out.join("etc/greeting")).unwrap(), "hello\n");
    assert_eq!(fs::read_to_string(out.join("mine")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(out.join("data/b")).unwrap(), "same");
    assert!(!out.join("etc/old").exists());
    let mode = |name: &str| fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("data/suid"), mode("private"), mode("tmp")), (0o755, 0o700, 0o1777));
    let data = fs::metadata(out.join("data")).unwrap();
    assert_eq!((data.mtime(), data.uid()), (1_700_000_000, rustix::process::geteuid().as_raw()));
    assert_eq!(fs::metadata(out.join("data/a")).unwrap().nlink(), 2);
    assert!(
        !fs::read_dir(&out).unwrap().any(|entry| entry.unwrap().file_name().as_encoded_bytes().starts_with(b".rbuild"))
    );

    store.export(&image, &["type=local,dest=DIR/out,mode=delete"]).unwrap();
    assert!(!out.join("mine").exists());
    store.export(&image, &["type=local,dest=DIR/new/below,platform-split=true"]).unwrap();
    assert_eq!(fs::read_to_string(store.path("new/below/linux_amd64/link")).unwrap(), "hello\n");
}

#[test]
fn the_root_filesystem_is_one_tar() {
    let store = Store::new();
    let (image, _) = sample();
    store.export(&image, &["type=tar,dest=DIR/r.tar"]).unwrap();
    let listed = run("tar", &["tf", store.path("r.tar").to_str().unwrap()]);
    let names: Vec<&str> = listed.lines().collect();
    assert!(names.contains(&"data/suid") && names.contains(&"etc/greeting"), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("old") || name.contains(".wh.")), "{names:?}");
}

#[test]
fn one_failing_output_leaves_the_others_undone() {
    let store = Store::new();
    let (image, _) = sample();
    fs::write(store.path("o.tar"), "old").unwrap();
    let outputs =
        ["type=oci,dest=DIR/o.tar", "type=image,name=app", "type=local,dest=DIR/out", "type=tar,dest=DIR/none/x"];
    let error = store.export(&image, &outputs).unwrap_err();
    assert!(matches!(error, ExportError::Write { .. }), "{error}");
    assert_eq!(fs::read_to_string(store.path("o.tar")).unwrap(), "old");
    assert!(!store.path("out").exists());
    assert!(store.content.database().tags().unwrap().is_empty());
    let left: Vec<_> = fs::read_dir(store.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    let unreachable =
        store.export(&image, &["type=oci,dest=DIR/o.tar", "type=registry,name=127.0.0.1:1/app"]).unwrap_err();
    assert!(matches!(unreachable, ExportError::Registry(_)), "{unreachable}");
    assert_eq!(fs::read_to_string(store.path("o.tar")).unwrap(), "old");
    let none = store.export(&image, &["type=registry"]).unwrap_err();
    assert!(matches!(none, ExportError::NoName), "{none}");
}

#[test]
fn a_file_that_changed_after_its_tree_was_made_is_reported() {
    let store = Store::new();
    let (tree, files) = layer(&["a=1234"]);
    let open = builder_core::layer::Files::open(&*files, &tree.iter().next().unwrap()).unwrap();
    let path = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open))).unwrap();
    fs::write(path, "4321").unwrap();
    for output in [
        "type=oci,dest=DIR/o.tar",
        "type=image,name=app",
        "type=registry,name=127.0.0.1:1/app",
        "type=local,dest=DIR/l",
        "type=tar,dest=DIR/t",
    ] {
        let error = store.export(&image(&[(tree.clone(), files.clone())]), &[output]).unwrap_err();
        assert!(matches!(error, ExportError::Pack { .. } | ExportError::WriteFile { .. }), "{output}: {error}");
    }
    assert!(store.content.database().images().unwrap().is_empty());
}

#[test]
fn an_epoch_bounds_the_times_of_new_layers() {
    let store = Store { epoch: Some(1_000_000_000), ..Store::new() };
    let (image, _) = sample();
    let plain = store.export(&image, &["type=oci,dest=DIR/p,tar=false"]).unwrap();
    let rewritten = store
        .export(&image, &["type=oci,dest=DIR/r,tar=false,rewrite-timestamp=true,compression=uncompressed"])
        .unwrap();
    assert_ne!(plain.image_id, rewritten.image_id);
    let manifest = store.path("r/blobs/sha256").join(rewritten.manifest.unwrap().digest.hex());
    let manifest = json(&fs::read_to_string(manifest).unwrap());
    for layer in manifest["layers"].as_array().unwrap() {
        let blob = store.path("r/blobs/sha256").join(&layer["digest"].as_str().unwrap()["sha256:".len()..]);
        let mut archive = tar::Archive::new(fs::File::open(blob).unwrap());
        for entry in archive.entries().unwrap() {
            assert!(entry.unwrap().header().mtime().unwrap() <= 1_000_000_000);
        }
    }
    let config = store.path("r/blobs/sha256").join(&manifest["config"]["digest"].as_str().unwrap()["sha256:".len()..]);
    assert_eq!(json(&fs::read_to_string(config).unwrap())["created"], "2001-09-09T01:46:40Z");
}

#[test]
fn archives_of_older_dockers_are_loaded() {
    let (tree, files) = layer(&["f=1"]);
    let mut layer_tar = Vec::new();
    builder_core::layer::pack(&tree, &*files, &mut layer_tar, &builder_core::layer::PackOptions::default()).unwrap();
    let diff_id = builder_core::oci::Digest::sha256(&layer_tar);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{diff_id}","{diff_id}"]}}}}"#
    );
    let manifest =
        r#"[{"Config":"abc.json","RepoTags":["old:1","r.io/old:2"],"Layers":["1/layer.tar","2/layer.tar"]}]"#;
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).unwrap();
    };
    add("1/layer.tar", &layer_tar);
    add("abc.json", config.as_bytes());
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    archive.append_link(&mut link, "2/layer.tar", "../1/layer.tar").unwrap();
    let damaged = manifest.replace("abc.json", "missing.json");
    for (manifest, good) in [(manifest, true), (damaged.as_str(), false)] {
        let mut archive = tar::Builder::new(archive.get_ref().clone());
        let mut header = tar::Header::new_gnu();
        header.set_size(manifest.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, "manifest.json", manifest.as_bytes()).unwrap();
        let bytes = archive.into_inner().unwrap();
        let store = Store::new();
        // docker load takes compressed archives, too.
        let mut gzip = flate2::read::GzEncoder::new(&bytes[..], flate2::Compression::fast());
        let result = images::load(&store.context(), &mut gzip, &amd64());
        if good {
            let loaded = result.unwrap();
            assert_eq!(loaded[0].id.digest(), &builder_core::oci::Digest::sha256(config.as_bytes()));
            assert_eq!(loaded[0].names.len(), 2);
        } else {
            assert_eq!(result.unwrap_err().to_string(), "image `old:1` is malformed: `missing.json` is missing");
        }
    }
    let store = Store::new();
    for bad in [&b""[..], b"hello", &[0; 1024]] {
        let error = images::load(&store.context(), &mut &*bad, &amd64()).unwrap_err();
        assert!(matches!(error, images::ImageError::NotAnArchive { .. }), "{error}");
    }
}

#[test]
fn a_layer_that_is_not_the_one_of_the_config_is_refused() {
    let store = Store::new();
    let (image, _) = sample();
    store.export(&image, &["type=oci,dest=DIR/l,tar=false,compression=uncompressed,name=app"]).unwrap();
    let blobs = store.path("l/blobs/sha256");
    // Exchange the config's first diff id, consistently with everything above it.
    let index: Value = json(&fs::read_to_string(store.path("l/index.json")).unwrap());
    let replace = |text: &str, from: &str| text.replace(from, &"0".repeat(64));
    let manifest_digest = index["manifests"][0]["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
    let manifest = fs::read_to_string(blobs.join(&manifest_digest)).unwrap();
    let config_digest = json(&manifest)["config"]["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
    let config = fs::read_to_string(blobs.join(&config_digest)).unwrap();
    let diff_id = json(&config)["rootfs"]["diff_ids"][0].as_str().unwrap()["sha256:".len()..].to_owned();
    let put = |text: &str| {
        let digest = builder_core::oci::Digest::sha256(text.as_bytes());
        fs::write(blobs.join(digest.hex()), text).unwrap();
        digest.hex().to_owned()
    };
    let new_config = put(&replace(&config, &diff_id));
    let new_manifest = put(&manifest.replace(&config_digest, &new_config));
    let new_index = index.to_string().replace(&manifest_digest, &new_manifest);
    fs::write(store.path("l/index.json"), new_index).unwrap();
    run("tar", &["cf", store.path("bad.tar").to_str().unwrap(), "-C", store.path("l").to_str().unwrap(), "."]);
    let other = Store::new();
    let error =
        images::load(&other.context(), &mut fs::File::open(store.path("bad.tar")).unwrap(), &amd64()).unwrap_err();
    assert!(matches!(error, images::ImageError::DiffId { layer: 0, .. }), "{error}");
    assert!(other.content.database().images().unwrap().is_empty());
}

#[test]
fn pruning_leaves_what_named_images_need_and_nothing_else() {
    let store = Store::new();
    let (image, _) = sample();
    store.export(&image, &["type=image,name=app", "type=oci,dest=DIR/o.tar"]).unwrap();
    let other = support::image(&[layer(&["x=1"])]);
    store.export(&other, &["type=image,name=app"]).unwrap();
    let context = store.context();
    let usage = images::usage(&context).unwrap().all;
    assert_eq!((usage.total, usage.active), (2, 1));
    let blobs: u64 = store.content.blobs().unwrap().iter().map(|(_, bytes)| bytes).sum();
    let snapshots = store.snapshots.list().unwrap();
    let snapshots: u64 = snapshots.iter().map(|id| store.snapshots.usage(id).unwrap()).sum();
    assert_eq!(usage.size, blobs + snapshots, "no packed blobs: {usage:?}");
    let removed = images::prune(&store.content, &images::PruneOptions::default()).unwrap();
    assert!(removed.len() >= 2, "{removed:?}");
    let reclaimed =
        images::collect(&context, &context.content.exclusive(context.cancel).unwrap(), &images::Keep::default())
            .unwrap();
    assert_eq!((reclaimed.snapshots.files, reclaimed.trees), (2, 2));
    assert!(reclaimed.bytes() > 0);
    images::save(&context, &["app".to_owned()], images::SaveFormat::Oci, &store.path("s.tar")).unwrap();
    images::prune(&store.content, &images::PruneOptions { all: true, ..Default::default() }).unwrap();
    images::collect(&context, &context.content.exclusive(context.cancel).unwrap(), &images::Keep::default()).unwrap();
    assert_eq!(store.content.blobs().unwrap(), []);
    assert_eq!(store.snapshots.list().unwrap(), []);
    assert_eq!(images::usage(&context).unwrap().all.size, 0);
}

#[test]
fn several_platforms_become_an_index() {
    let store = Store::new();
    let (first, _) = sample();
    let mut second = support::image(&[layer(&["arm=1"])]);
    second.image.config.architecture = "arm64".to_owned();
    let both = [first, second];
    let output = |text: &str| Output::parse(&text.replace("DIR", store.dir.path().to_str().unwrap())).unwrap();
    let outputs = [
        output(
            "type=oci,dest=DIR/o,tar=false,name=app,annotation-index.a=b,annotation-manifest-descriptor[linux/arm64].c=d",
        ),
        output("type=docker,dest=DIR/d.tar,name=app"),
        output("type=local,dest=DIR/files"),
    ];
    let context = builder_core::export::ExportContext { multi_platform: true, ..store.context() };
    let exported = builder_core::export::export(&context, &both, &outputs).unwrap();
    let index = store.path("o/blobs/sha256").join(exported.manifest.unwrap().digest.hex());
    let index = json(&fs::read_to_string(index).unwrap());
    assert_eq!(index["annotations"]["a"], "b");
    let platforms: Vec<&Value> =
        index["manifests"].as_array().unwrap().iter().map(|one| &one["platform"]["architecture"]).collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    assert_eq!(index["manifests"][1]["annotations"], serde_json::json!({"c": "d"}));
    assert!(store.path("files/linux_amd64/link").exists() && store.path("files/linux_arm64/arm").exists());
    if let Some(server) = RegistryProcess::start() {
        let push = [output(&format!("type=registry,name={}/multi:1", server.address))];
        builder_core::export::export(&store.context(), &both, &push).unwrap();
        let other = Store::new();
        let name: Reference = format!("{}/multi:1", server.address).parse().unwrap();
        images::pull(&other.context(), &name, &Platform::new("linux", "arm64", None)).unwrap();
        assert_eq!(images::inspect(&other.content, &name.to_string()).unwrap().architecture, "arm64");
    }
    let other = Store::new();
    let mut archive = fs::File::open(store.path("d.tar")).unwrap();
    assert_eq!(images::load(&other.context(), &mut archive, &amd64()).unwrap().len(), 2);
}

#[test]
fn standard_output_takes_one_archive() {
    let store = Store::new();
    let (image, _) = sample();
    let out = std::sync::Mutex::new(Vec::new());
    let mut context = store.context();
    let output = |text| Output::parse(text).unwrap();
    let only = [image];
    let missing = builder_core::export::export(&context, &only, &[output("-")]).unwrap_err();
    assert!(matches!(missing, ExportError::NoStdout { .. }), "{missing}");
    context.stdout = Some(&out);
    let twice = builder_core::export::export(&context, &only, &[output("-"), output("type=oci")]).unwrap_err();
    assert!(matches!(twice, ExportError::NoStdout { .. }), "{twice}");
    builder_core::export::export(&context, &only, &[output("-")]).unwrap();
    assert!(tar::Archive::new(&out.lock().unwrap()[..]).entries().unwrap().count() > 10);
}
