//! The cache that an image carries in its config: field `rbuild.cache.v2`.
//!
//! ```text
//! base64 of zstd of    length of the JSON in bytes (4 bytes, little-endian)
//!                      JSON: records, trees: [{ id, length }], bases, layers: [{ tree, diff_id, format, blob }], files
//!                      the encodings of the trees, one after the other
//! ```
//!
//! Its layers are those of the image. They are named by their diff ids: which blobs they are now is what the manifest
//! says, so an image whose layers were compressed in another way on its way keeps its cache. The digest that a blob had
//! says whether packing would give it again.

use std::collections::{BTreeMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::RemoteError;
use super::format::{self, Base, Chunk, Contents, Index, LayerFact, RecordChunk, TreeChunk, TreeSpan, short};
use crate::cache::Record;
use crate::oci::{Descriptor, DiffId, Digest, Manifest, MediaKind, MediaType, RootFs};
use crate::tree::TreeId;

/// Most bytes of a cache, compressed: skopeo reads no config of more than 4 MiB, and base64 takes a third more.
const MOST: usize = 5 << 19;

/// Most bytes of a cache, uncompressed.
const MOST_RAW: u64 = 64 << 20;

/// Level of zstd: the cache is part of every pull of the image.
const LEVEL: i32 = 9;

/// A layer of the image that a step made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct InlineLayer {
    pub(crate) tree: TreeId,
    pub(crate) diff_id: DiffId,
    /// What else than the compression decides the bytes of its blob, as the store remembers it.
    pub(crate) format: String,
    /// The blob that packing gave; unset in an image that was not pushed when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) blob: Option<Digest>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Document {
    records: Vec<Record>,
    trees: Vec<Length>,
    bases: Vec<Base>,
    layers: Vec<InlineLayer>,
    files: BTreeMap<String, String>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Length {
    id: TreeId,
    length: u64,
}

/// A cache that is too large for a config: its compressed length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge(pub(crate) usize);

impl TooLarge {
    /// What the user is told.
    pub(crate) fn warning(self) -> String {
        format!(
            "the image has no inline cache: it would be {} bytes, more than {MOST}; use a cache of its own name",
            self.0
        )
    }
}

/// Writes the field. Equal contents give equal text. Layers and mounts of `contents` are left out.
pub(crate) fn encode(contents: &Contents, layers: Vec<InlineLayer>) -> Result<String, TooLarge> {
    let mut seen = HashSet::new();
    let mut trees = contents.trees.clone();
    trees.retain(|tree| seen.insert(tree.id()));
    let files = contents.files.iter().map(|(digest, bytes)| (digest.to_string(), STANDARD.encode(bytes)));
    let document = Document {
        records: contents.records.clone(),
        trees: trees.iter().map(|tree| Length { id: tree.id(), length: tree.encoded_len() as u64 }).collect(),
        bases: contents.bases.clone(),
        layers,
        files: files.collect(),
    };
    let json = serde_json::to_vec(&document).expect("plain data serialises");
    let length = u32::try_from(json.len()).map_err(|_| TooLarge(json.len()))?;
    let mut raw = [&length.to_le_bytes()[..], &json].concat();
    for tree in &trees {
        raw.extend_from_slice(&tree.encode());
    }
    if raw.len() as u64 > MOST_RAW {
        return Err(TooLarge(raw.len()));
    }
    let bytes = zstd::bulk::compress(&raw, LEVEL).expect("memory is the only thing that it takes");
    if bytes.len() > MOST { Err(TooLarge(bytes.len())) } else { Ok(STANDARD.encode(bytes)) }
}

/// The caches of one or more images, with everything but layers at hand.
#[derive(Debug, Default)]
pub(super) struct Inline {
    pub(super) index: Index,
    /// Records by the number of their chunk.
    pub(super) records: Vec<Vec<Record>>,
    /// Encodings of trees by the number of their chunk.
    pub(super) trees: Vec<Vec<u8>>,
}

impl Inline {
    /// Adds the cache of an image, if it has one.
    ///
    /// # Errors
    /// [`RemoteError::Malformed`] if the field is not what [`encode`] writes, [`RemoteError::BuildKit`] if that of BuildKit
    /// is there and ours is not.
    pub(super) fn add(&mut self, config: &[u8], manifest: &Manifest) -> Result<(), RemoteError> {
        #[derive(serde::Deserialize)]
        struct Config {
            #[serde(rename = "rbuild.cache.v2")]
            cache: Option<String>,
            #[serde(rename = "moby.buildkit.cache.v0")]
            foreign: Option<serde::de::IgnoredAny>,
            #[serde(default)]
            rootfs: RootFs,
        }
        let wrong = |error: serde_json::Error| RemoteError::malformed(format!("its config: {error}"));
        let config: Config = serde_json::from_slice(config).map_err(wrong)?;
        let Some(cache) = config.cache else {
            return if config.foreign.is_some() { Err(RemoteError::BuildKit) } else { Ok(()) };
        };
        let (document, trees) = decode(&cache)?;
        let chunk = |length: usize| Chunk { blob: manifest.config.clone(), length: length as u64 };
        let keys = document.records.iter().map(|record| short(&record.preimage.key())).collect();
        self.index.records.push(RecordChunk { chunk: chunk(document.records.len()), keys });
        let mut offset = 0_u64;
        let span = |tree: &Length| {
            let span = TreeSpan { id: tree.id, offset, length: tree.length };
            offset = offset.saturating_add(tree.length);
            span
        };
        let spans = document.trees.iter().map(span).collect();
        self.index.trees.push(TreeChunk { chunk: chunk(trees.len()), trees: spans });
        self.index.bases.extend(document.bases);
        self.index.files.extend(document.files);
        let facts = document.layers.into_iter().filter_map(|layer| fact(layer, &config.rootfs, manifest));
        self.index.layers.extend(facts);
        self.records.push(document.records);
        self.trees.push(trees);
        Ok(())
    }

    /// Whether no image had a cache.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

/// The layer as a blob, if the image has it.
fn fact(layer: InlineLayer, rootfs: &RootFs, manifest: &Manifest) -> Option<LayerFact> {
    if rootfs.diff_ids.len() != manifest.layers.len() {
        return None;
    }
    let at = rootfs.diff_ids.iter().position(|diff_id| *diff_id == layer.diff_id)?;
    let blob = &manifest.layers[at];
    let MediaKind::Layer(compression) = blob.media_type.kind() else { return None };
    // Without annotations, as packing describes it.
    let blob = Descriptor::new(MediaType::layer(compression, false), blob.digest.clone(), blob.size);
    // A blob that somebody else made serves for its files. Nobody may expect that packing gives it.
    let ours = layer.blob.as_ref() == Some(&blob.digest);
    let format = if ours { layer.format } else { format!("{} elsewhere", layer.format) };
    Some(LayerFact { tree: layer.tree, diff_id: layer.diff_id, compression, format, blob })
}

fn decode(text: &str) -> Result<(Document, Vec<u8>), RemoteError> {
    let wrong = |what: &str| RemoteError::malformed(format!("its inline cache: {what}"));
    let bytes = STANDARD.decode(text).map_err(|error| wrong(&error.to_string()))?;
    let mut raw = format::decompressed(&bytes, MOST_RAW)?;
    let (length, _) = raw.split_first_chunk::<4>().ok_or_else(|| wrong("it is empty"))?;
    let end = u32::from_le_bytes(*length) as usize + 4;
    let json = raw.get(4..end).ok_or_else(|| wrong("it is cut off"))?;
    let document = serde_json::from_slice(json).map_err(|error| wrong(&error.to_string()))?;
    raw.drain(..end);
    Ok((document, raw))
}

#[cfg(test)]
mod tests {
    use super::super::tree_with;
    use super::*;
    use crate::cache::Preimage;
    use crate::oci::Compression;
    use crate::rootfs::RootPath;
    use crate::tree::{ContentDigest, Entry, Time, TreeBuilder};

    fn contents() -> Contents {
        let trees = vec![tree_with("/base"), tree_with("/a"), tree_with("/b"), tree_with("/a")];
        let record = |number: usize| {
            let mut preimage = Preimage::new("run");
            preimage.add("argument 0", number);
            let tree = &trees[number];
            Record { preimage, tree: tree.id(), semantic: tree.semantic(), created: 1, milliseconds: None, ran: None }
        };
        Contents {
            records: vec![record(1), record(2)],
            bases: vec![Base { layer: DiffId::new(Digest::sha256(b"base")), tree: trees[0].id() }],
            files: BTreeMap::from([(ContentDigest::of(b"root"), b"root".to_vec())]),
            trees,
            ..Contents::default()
        }
    }

    fn diff_id(name: &str) -> DiffId {
        DiffId::new(Digest::sha256(name.as_bytes()))
    }

    fn image(cache: &serde_json::Value) -> (Vec<u8>, Manifest) {
        let diff_ids = ["base", "a", "b"].map(|name| diff_id(name).to_string());
        let config = serde_json::json!({
            "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids }, "rbuild.cache.v2": cache,
        });
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MediaType::OCI_MANIFEST),
            artifact_type: None,
            config: Descriptor::of(MediaType::OCI_CONFIG, b"config"),
            layers: ["base", "a", "b"].map(|name| Descriptor::of(MediaType::DOCKER_LAYER, name.as_bytes())).to_vec(),
            subject: None,
            annotations: BTreeMap::new(),
        };
        (serde_json::to_vec(&config).expect("plain data"), manifest)
    }

    fn layers() -> Vec<InlineLayer> {
        let layer = |name: &str| InlineLayer {
            tree: tree_with(&format!("/{name}")).id(),
            diff_id: diff_id(name),
            format: "1".to_owned(),
            blob: (name == "b").then(|| Digest::sha256(name.as_bytes())),
        };
        vec![layer("b"), layer("a"), layer("other")]
    }

    #[test]
    fn a_cache_of_buildkit_in_an_image_is_called_that() {
        let (config, manifest) = image(&serde_json::Value::Null);
        let mut foreign: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
        foreign["moby.buildkit.cache.v0"] = "W10=".into();
        let found = Inline::default().add(&serde_json::to_vec(&foreign).expect("plain data"), &manifest);
        assert!(matches!(found, Err(RemoteError::BuildKit)), "{found:?}");
        // Ours is read whatever else is there.
        foreign["rbuild.cache.v2"] = encode(&contents(), layers()).expect("small").into();
        Inline::default().add(&serde_json::to_vec(&foreign).expect("plain data"), &manifest).expect("readable");
    }

    #[test]
    fn what_is_written_comes_back_with_the_blobs_of_the_image() {
        let contents = contents();
        let text = encode(&contents, layers()).expect("small");
        assert_eq!(encode(&contents, layers()), Ok(text.clone()));
        let (config, manifest) = image(&text.into());
        let mut inline = Inline::default();
        inline.add(&config, &manifest).expect("readable");
        assert_eq!(inline.records, std::slice::from_ref(&contents.records));
        let spans = &inline.index.trees[0].trees;
        assert_eq!(spans.len(), 3, "each tree once");
        for (span, expected) in spans.iter().zip(&contents.trees) {
            assert_eq!(&format::tree(&inline.trees[0], span).expect("a tree"), expected);
        }
        assert_eq!((&inline.index.bases, inline.index.files.len()), (&contents.bases, 1));
        let [fact, changed] = &inline.index.layers[..] else { panic!("two of them: {:?}", inline.index.layers) };
        assert_eq!([&fact.format, &changed.format], ["1", "1 elsewhere"]);
        assert_eq!(fact.blob, Descriptor::of(MediaType::OCI_LAYER, b"b"));
        assert_eq!((fact.compression, &fact.diff_id), (Compression::Uncompressed, &diff_id("b")));
    }

    #[test]
    fn an_image_without_the_field_is_no_cache_and_a_damaged_field_is_said() {
        let add = |cache: serde_json::Value| {
            let (config, manifest) = image(&cache);
            let mut inline = Inline::default();
            inline.add(&config, &manifest).map(|()| inline.is_empty())
        };
        assert!(matches!(add(serde_json::Value::Null), Ok(true)));
        let good = encode(&contents(), layers()).expect("small");
        assert!(matches!(add(good.clone().into()), Ok(false)));
        let zstd = |raw: &[u8]| STANDARD.encode(zstd::bulk::compress(raw, 1).expect("compressed"));
        for damaged in [
            serde_json::json!(7),
            "?".into(),
            "".into(),
            good[..good.len() / 8 * 4].into(),
            zstd(b"").into(),
            zstd(b"\xff\xff\xff\xff{}").into(),
            zstd(b"\x02\0\0\0{}").into(),
        ] {
            let error = add(damaged.clone()).expect_err("damaged");
            assert!(matches!(error, RemoteError::Malformed { .. }), "{damaged}: {error}");
        }
    }

    #[test]
    fn a_cache_that_no_config_can_hold_is_left_out() {
        // Digests do not compress.
        let hash = |number: usize| blake3::hash(&number.to_le_bytes());
        let name = |number: usize| format!("/{}{}", hash(number), hash(number + 1_000_000));
        let mut builder = TreeBuilder::new();
        for number in 0..45_000_usize {
            let path = RootPath::clean(name(number)).expect("clean");
            builder.push(Entry::directory(path, 0o755, 0, 0, Time::from_seconds(7)));
        }
        let contents = Contents { trees: vec![builder.finish()], ..Contents::default() };
        let error = encode(&contents, Vec::new()).expect_err("too large");
        assert!(error.0 > MOST && error.warning().contains("no inline cache"), "{error:?}");
    }
}
