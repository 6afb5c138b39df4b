//! Images compared whole: every folder of `testdata/cases` is built, and what comes out is in its `expect.snap`.
//!
//! A case has a `Dockerfile`, the `rows` of `testdata/rows.toml` that it shows, files of its context, `prepare.sh` for
//! those that a repository cannot hold, `flags` for the command line, and `output` for options of the output. `base` is
//! an image with a shell. All are built with one store: a layer that is equal to one of an earlier case but for times is
//! that one. `testdata/cases/compare-buildkit` builds them with BuildKit too.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Cursor, Read as _};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Command;

use builder_core::tree::ContentDigest;

use crate::env::{TestEnv, end, require_sandbox};
use crate::registry::base;

/// Longer contents are told by their digest.
const SHOWN: usize = 300;

/// What the files of a context get as their time of modification if they are newer than [`RECENT`].
const CONTEXT_TIME: u64 = 1_600_000_000;

/// The first second of 2025: whatever is newer was made by this test.
const RECENT: u64 = 1_735_689_600;

#[test]
fn images_are_those_of_buildkit() {
    if !require_sandbox("images_are_those_of_buildkit") {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\n", base()));
    env.ok("build -q -t base .");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/cases");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("cases").map(|case| case.expect("a case").path()).collect();
    cases.retain(|case| case.is_dir());
    cases.sort();
    assert!(cases.len() > 60, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let shown = build(&env, case);
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(case);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        let compared = std::panic::catch_unwind(AssertUnwindSafe(|| {
            settings.bind(|| insta::assert_snapshot!("expect", shown));
        }));
        if compared.is_err() {
            wrong.push(case.file_name().expect("named"));
        }
    }
    assert!(wrong.is_empty(), "other than expected: {wrong:?}");
}

/// Builds a case; the image, or the error, as text.
fn build(env: &TestEnv, case: &Path) -> String {
    let context = env.path("case");
    let _ = std::fs::remove_dir_all(&context);
    sh(
        "umask 022 && cp -a \"$0\" \"$1\" && cd \"$1\" && rm -f expect.snap* prepare.sh flags rows output && chmod 644 Dockerfile",
        &[case, &context],
    );
    let prepare = case.join("prepare.sh");
    if prepare.exists() {
        sh("umask 022 && cd \"$1\" && sh -e \"$0\"", &[&prepare, &context]);
    }
    let settle = format!("find \"$0\" -newermt @{RECENT} -exec touch -hd @{CONTEXT_TIME} {{}} +");
    sh(&settle, &[&context]);
    let image = env.path("image.tar");
    let flags = std::fs::read_to_string(case.join("flags")).unwrap_or_default();
    let options = std::fs::read_to_string(case.join("output")).unwrap_or_default();
    let options = options.split_whitespace().fold(String::new(), |all, option| all + "," + option);
    let output = format!("type=oci,compression=uncompressed,dest={}{options}", image.display());
    let mut command = env.command(["build", "-q", "--no-cache", "--pull=never", "-o", output.as_str()]);
    let ended = end(command.args(flags.split_whitespace()).arg(".").current_dir(&context));
    if ended.code == 0 { show(&image) } else { env.stable(&ended.stderr) }
}

fn sh(script: &str, arguments: &[&Path]) {
    let ended = end(Command::new("/bin/sh").arg("-ec").arg(script).args(arguments));
    assert_eq!(ended.code, 0, "{script} {arguments:?}\n{}", ended.stderr);
}

/// Config, history and the layers on top of the base image.
fn show(image: &Path) -> String {
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(std::fs::File::open(image).expect("written"));
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("readable");
        files.insert(entry.path().expect("a path").to_string_lossy().into_owned(), content);
    }
    let json = |name: &str| -> serde_json::Value { serde_json::from_slice(&files[name]).expect("JSON") };
    let blob = |descriptor: &serde_json::Value| {
        format!("blobs/{}", descriptor["digest"].as_str().expect("a digest").replace(':', "/"))
    };
    let manifest = json(&blob(&json("index.json")["manifests"][0]));
    let config = json(&blob(&manifest["config"]));
    let mut text = String::new();
    if let Some(author) = config["author"].as_str() {
        let _ = writeln!(text, "author {author}");
    }
    for (key, value) in config["config"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "{key} {value}");
    }
    let layers = manifest["layers"].as_array().expect("layers");
    let mut layers = layers.iter();
    for step in config["history"].as_array().into_iter().flatten() {
        let created_by = step["created_by"].as_str().unwrap_or_default();
        let _ = writeln!(text, "\n{}", created_by.escape_debug());
        if step["empty_layer"] != true {
            let layer = layers.next().expect("a layer for each step that has one");
            if !created_by.contains("rootfs.tar") {
                text += &entries(&files[&blob(layer)]);
            }
        }
    }
    assert!(layers.next().is_none(), "layers without history");
    text
}

/// A line for each entry of a layer: kind, mode, owner, path, content, link or device, time and attributes. Not told are
/// the time of a context's files and, of directories, that they are new.
fn entries(layer: &[u8]) -> String {
    let mut text = String::new();
    for entry in tar::Archive::new(Cursor::new(layer)).entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let header = entry.header().clone();
        let number = |number: std::io::Result<u64>| number.expect("a number");
        let kind = header.entry_type();
        let _ = write!(
            text,
            "  {} {:04o} {}:{} {}",
            kind_of(kind),
            header.mode().expect("a mode"),
            number(header.uid()),
            number(header.gid()),
            entry.path().expect("a path").display(),
        );
        if let Some(target) = entry.link_name().expect("a link name") {
            let _ = write!(text, " -> {}", target.display());
        }
        if kind.is_character_special() || kind.is_block_special() {
            let number = |part: std::io::Result<Option<u32>>| part.expect("a number").unwrap_or_default();
            let _ = write!(text, " {},{}", number(header.device_major()), number(header.device_minor()));
        }
        match number(header.mtime()) {
            CONTEXT_TIME => {}
            RECENT.. if kind.is_dir() => {}
            RECENT.. => text += " now",
            time => {
                let _ = write!(text, " @{time}");
            }
        }
        for attribute in entry.pax_extensions().expect("readable").into_iter().flatten() {
            let attribute = attribute.expect("readable");
            if let Some(name) = attribute.key().expect("text").strip_prefix("SCHILY.xattr.") {
                let _ = write!(text, " {name}={:02x?}", attribute.value_bytes());
            }
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("readable");
        match std::str::from_utf8(&content) {
            Ok("") => {}
            Ok(content) if content.len() < SHOWN && !content.contains('\0') => {
                let _ = write!(text, " {content:?}");
            }
            // The machine's own busybox.
            _ if content.starts_with(b"\x7fELF") => text += " (program)",
            _ => {
                let _ = write!(text, " ({} bytes, {})", content.len(), &ContentDigest::of(&content).to_string()[..16]);
            }
        }
        text.push('\n');
    }
    text
}

fn kind_of(kind: tar::EntryType) -> char {
    match kind {
        tar::EntryType::Directory => 'd',
        tar::EntryType::Regular => 'f',
        tar::EntryType::Symlink => 'l',
        tar::EntryType::Link => 'h',
        tar::EntryType::Fifo => 'p',
        tar::EntryType::Char => 'c',
        tar::EntryType::Block => 'b',
        _ => '?',
    }
}
