//! Damaged and hostile input: one clear error, nothing outside of the store is touched, and the store works afterwards.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::env::{TestEnv, require_sandbox};
use crate::registry::{Registry, base};

/// The files of all blobs of a registry, with their sizes.
fn blobs(directory: &Path, found: &mut Vec<(PathBuf, u64)>) {
    for entry in std::fs::read_dir(directory).expect("readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            blobs(&path, found);
        } else if path.ends_with("data") {
            found.push((path, entry.metadata().expect("there").len()));
        }
    }
}

#[test]
fn a_corrupt_blob_of_a_registry_is_refused() {
    if !require_sandbox("a_corrupt_blob_of_a_registry_is_refused") {
        return;
    }
    let registry = Registry::start();
    let name = registry.name("damaged:1");
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\n", base()));
    env.ok(&format!("build -q --push -t {name} ."));
    let mut found = Vec::new();
    blobs(registry.storage(), &mut found);
    // The layer is by far the largest.
    let (layer, size) = found.into_iter().max_by_key(|(_, size)| *size).expect("there are blobs");
    let good = std::fs::read(&layer).expect("readable");
    let mut bad = good.clone();
    bad[usize::try_from(size / 2).expect("small")] ^= 1;
    std::fs::write(&layer, &bad).expect("written");

    let other = TestEnv::new();
    let pull = other.fails(&format!("pull {name}"));
    let build = other.dockerfile_fails_with(&format!("FROM {name}\nRUN true\n"), "");
    std::fs::write(&layer, &good[..good.len() / 2]).expect("written");
    let short = other.dockerfile_fails_with(&format!("FROM {name}\nRUN true\n"), "");
    for shown in [&pull, &build, &short] {
        assert!(shown.starts_with("exit code: 1\nerror: "), "{shown}");
        assert!(!shown.contains("panicked"), "{shown}");
    }
    insta::assert_snapshot!([pull, build, short].join("\n"));
    std::fs::write(&layer, &good).expect("written");
    other.ok("build -q .");
}

#[test]
fn a_damaged_blob_of_the_store_is_fetched_again() {
    if !require_sandbox("a_damaged_blob_of_the_store_is_fetched_again") {
        return;
    }
    let env = TestEnv::new();
    let damage = |change: &dyn Fn(&mut Vec<u8>)| {
        let directory = std::fs::read_dir(env.path("state/content/blobs/sha256")).expect("readable");
        let blobs = directory.map(|entry| entry.expect("an entry").path());
        let layer = blobs.max_by_key(|path| path.metadata().expect("there").len()).expect("there are blobs");
        let mut bytes = std::fs::read(&layer).expect("readable");
        change(&mut bytes);
        std::fs::write(&layer, &bytes).expect("written");
    };
    env.write("Dockerfile", format!("FROM {}\nRUN true\n", base()));
    for change in [&|bytes: &mut Vec<u8>| bytes[5000] ^= 1, &|bytes: &mut Vec<u8>| bytes.truncate(9000)]
        as [&dyn Fn(&mut Vec<u8>); 2]
    {
        env.ok(&format!("pull -q {}", base()));
        damage(change);
        env.ok("build --progress=quiet .");
        assert!(env.path("state/content/damaged").read_dir().expect("quarantined").count() > 0);
        env.ok(&format!("rmi -f {}", base()));
        env.ok("prune -a -f");
    }
}

#[test]
fn answers_that_are_no_manifest_are_refused() {
    let env = TestEnv::new();
    let mut all = String::new();
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    for (kind, body) in [
        (manifest, "{"),
        (manifest, "{}"),
        (manifest, r#"{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:../../x","size":1},"layers":[]}"#),
        (manifest, r#"{"schemaVersion":2,"config":null,"layers":[],"manifests":[]}"#),
        ("text/html", "<html>not a registry</html>"),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", r#"{"schemaVersion":1}"#),
    ] {
        let address = serve(kind, body);
        let shown = env.fails(&format!("pull {address}/app:1"));
        assert!(shown.starts_with("exit code: 1\nerror: "), "{body}\n{shown}");
        assert_eq!(shown.matches("error: ").count(), 1, "{body}\n{shown}");
        all.push_str(&shown);
    }
    insta::assert_snapshot!(all);
}

/// A server that gives the same answer to everything but the greeting; it ends with the test program.
fn serve(kind: &str, body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn archives_do_not_reach_out_of_the_image() {
    let env = TestEnv::new();
    let outside = env.path("outside");
    std::fs::create_dir(&outside).expect("a directory");
    let mut archive = tar::Builder::new(Vec::new());
    let mut file = |name: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        let bytes = &mut header.as_gnu_mut().expect("GNU").name;
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        archive.append(&header, &b"evil"[..]).expect("appended");
    };
    file("../../../evil1");
    file(&format!("{}/evil2", outside.display()));
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    archive.append_link(&mut link, "door", &outside).expect("appended");
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    archive.append_data(&mut header, "door/evil3", &b"evil"[..]).expect("appended");
    env.write("evil.tar", archive.into_inner().expect("finished"));
    env.write("Dockerfile", "FROM scratch\nADD evil.tar /\n");
    // Refusing is as good as keeping it inside.
    let ended = env.rbuild("build --progress=quiet -o out .");
    assert!(ended.code == 0 || ended.stderr.starts_with("error: "), "{}", ended.stderr);
    assert_eq!(std::fs::read_dir(&outside).expect("readable").count(), 0, "something was written outside");
    assert!(!env.path("evil1").exists());
}

#[test]
fn texts_of_images_do_not_reach_the_terminal() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nLABEL \"a\x1b[31mb\"=\"\x1b]0;title\x07\"\nCMD [\"\x1b[2J\"]\n");
    env.ok("build -q -t app .");
    for line in ["history app", "history --no-trunc app", "images", "inspect app"] {
        let text = env.ok(line).stdout;
        assert!(!text.contains('\x1b') && !text.contains('\x07'), "{line}: {text:?}");
    }
}
