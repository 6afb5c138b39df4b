//! [`Built`]: what a build came to, without what may differ: times, and what hangs on them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher as _};
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use crate::cache_lies::filter;
use crate::inline_cache::sha256;

/// What a build came to.
#[derive(Clone, PartialEq)]
pub(super) enum Built {
    Failed,
    Image {
        /// The config without times, diff ids and caches.
        config: Value,
        /// A line for each entry of each layer.
        layers: Vec<BTreeMap<String, String>>,
        /// The id, where times are all the same.
        id: Option<String>,
    },
    /// An image for each platform.
    Index(Vec<Self>),
}

impl Built {
    /// Reads an OCI archive. `exact` says that times are all the same; with `verify` layers are compared with their diff
    /// ids.
    pub(super) fn read(archive: &Path, exact: bool, verify: bool) -> Self {
        let mut files = HashMap::new();
        for entry in tar::Archive::new(std::fs::File::open(archive).expect("written")).entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").to_string_lossy().trim_start_matches("./").to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("readable");
            files.insert(path, bytes);
        }
        let json = |path: &str| -> Value { serde_json::from_slice(&files[path]).expect("JSON") };
        let top = json("index.json")["manifests"][0].clone();
        let index = top["mediaType"].as_str().is_some_and(|kind| kind.contains("index")).then(|| json(&blob(&top)));
        let manifests =
            index.as_ref().map_or_else(|| vec![top], |index| index["manifests"].as_array().expect("manifests").clone());
        let images: Vec<Self> = manifests.iter().map(|manifest| Self::image(&files, manifest, exact, verify)).collect();
        if index.is_some() { Self::Index(images) } else { images.into_iter().next().expect("one") }
    }

    fn image(files: &HashMap<String, Vec<u8>>, manifest: &Value, exact: bool, verify: bool) -> Self {
        let json = |path: &str| -> Value { serde_json::from_slice(&files[path]).expect("JSON") };
        let manifest = json(&blob(manifest));
        let mut config = json(&blob(&manifest["config"]));
        let descriptors = manifest["layers"].as_array().expect("layers").iter();
        let layers =
            descriptors.zip(config["rootfs"]["diff_ids"].as_array().expect("diff ids")).map(|(layer, diff_id)| {
                let stored = &files[&blob(layer)];
                let unpacked = stored.starts_with(&[0x1f, 0x8b]).then(|| filter("gzip", "-dc", stored));
                let tar = unpacked.as_ref().unwrap_or(stored);
                let mut found = entries(tar);
                if verify && *diff_id != format!("sha256:{}", sha256(tar)) {
                    found.insert("damaged".to_owned(), format!("it is not {diff_id}"));
                }
                found
            });
        let layers = layers.collect();
        config.as_object_mut().expect("an object").remove("rbuild.cache.v2");
        let id = exact.then(|| config.to_string());
        for name in ["created", "rootfs"] {
            config.as_object_mut().expect("an object").remove(name);
        }
        for step in config["history"].as_array_mut().into_iter().flatten() {
            step.as_object_mut().expect("an object").remove("created");
        }
        Self::Image { config, layers, id }
    }

    /// Where two results differ; empty if they do not.
    pub(super) fn differences(&self, other: &Self) -> String {
        let mut text = String::new();
        match (self, other) {
            (Self::Failed, Self::Failed) => {}
            (Self::Failed, _) => text.push_str("only the first failed\n"),
            (_, Self::Failed) => text.push_str("only the second failed\n"),
            (Self::Index(ours), Self::Index(theirs)) => {
                if ours.len() != theirs.len() {
                    let _ = writeln!(text, "{} images or {}", ours.len(), theirs.len());
                }
                text.extend(ours.iter().zip(theirs).map(|(one, other)| one.differences(other)));
            }
            (Self::Index(_), _) | (_, Self::Index(_)) => text.push_str("one image or several\n"),
            (
                Self::Image { config, layers, id },
                Self::Image { config: other_config, layers: other_layers, id: other_id },
            ) => {
                if config != other_config {
                    let _ = writeln!(text, "config {config}\n    or {other_config}");
                }
                if layers.len() != other_layers.len() {
                    let _ = writeln!(text, "{} layers or {}", layers.len(), other_layers.len());
                }
                for (number, (one, two)) in layers.iter().zip(other_layers).enumerate() {
                    let names: std::collections::BTreeSet<&String> = one.keys().chain(two.keys()).collect();
                    for name in names.into_iter().filter(|name| one.get(*name) != two.get(*name)) {
                        let _ = writeln!(
                            text,
                            "layer {number}: {name}\n    {:?}\n    {:?}",
                            one.get(name).map_or("-", String::as_str),
                            two.get(name).map_or("-", String::as_str)
                        );
                    }
                }
                if text.is_empty() && id != other_id {
                    let _ = writeln!(text, "the same but for {id:?}\n    or {other_id:?}");
                }
            }
        }
        text
    }
}

/// The path of what a descriptor names.
fn blob(descriptor: &Value) -> String {
    format!("blobs/{}", descriptor["digest"].as_str().expect("a digest").replace(':', "/"))
}

fn entries(layer: &[u8]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(layer).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let header = entry.header();
        let mut line = format!(
            "{:?} {:o} {}:{}",
            header.entry_type(),
            header.mode().expect("a mode"),
            header.uid().expect("an owner"),
            header.gid().expect("a group")
        );
        if let Some(target) = entry.link_name_bytes() {
            let _ = write!(line, " to {}", String::from_utf8_lossy(&target));
        }
        for extension in entry.pax_extensions().expect("readable").into_iter().flatten() {
            let extension = extension.expect("an extension");
            if extension.key().is_ok_and(|key| key.starts_with("SCHILY.xattr.")) {
                let _ = write!(line, " {:?}={:?}", extension.key(), String::from_utf8_lossy(extension.value_bytes()));
            }
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("readable");
        match String::from_utf8(bytes) {
            Ok(text) if text.len() < 4000 => drop(write!(line, " {text:?}")),
            Ok(text) => drop(write!(line, " {}", brief(text.as_bytes()))),
            Err(bytes) => drop(write!(line, " {}", brief(bytes.as_bytes()))),
        }
        found.insert(path, line);
    }
    found
}

/// Tells large files apart.
pub(super) fn brief(bytes: &[u8]) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{} bytes {:x}", bytes.len(), hasher.finish())
}
