//! What a cache looks like outside, version 2.
//!
//! ```text
//! manifest (OCI, JSON)    config: the index; layers: everything that the index names
//! index (zstd of JSON)    version
//!                         records: [{ chunk, keys: first 16 digits of each }]
//!                         trees:   [{ chunk, [{ id, offset, length }] }]
//!                         bases:   [{ layer: diff id or chain id, tree }]
//!                         layers:  [{ tree, diff_id, compression, format, blob }]
//!                         files:   { BLAKE3: base64 }         small files that keys are computed from
//!                         mounts:  [{ id, mode, owner, tree, list, packs }]
//! records (zstd of JSON)  [{ preimage, tree, semantic, created, milliseconds }]
//! trees (zstd)            the encodings of trees, one after the other
//! ```
//!
//! A chunk says how long it is uncompressed, and is read no further. Chunks follow the order of steps, so that a change
//! in a late step leaves the chunks before it as they are.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::RemoteError;
use super::mounts::MountFact;
use crate::cache::{CacheKey, Record};
use crate::oci::{Compression, Descriptor, DiffId, Manifest, MediaType};
use crate::tree::{ContentDigest, Tree, TreeId};

/// Raised when an older program would misread what a newer one writes, or the other way round. A newer cache is left alone.
pub(super) const VERSION: u32 = 2;

/// Media type of the index.
pub(super) const INDEX: &str = "application/vnd.rbuild.cache.index.v1+zstd";

const RECORDS: &str = "application/vnd.rbuild.cache.records.v1+zstd";
const TREES: &str = "application/vnd.rbuild.cache.trees.v1+zstd";

/// Uncompressed bytes after which a new chunk begins: what is fetched for one record or tree.
const CHUNK: usize = 1 << 20;

/// Most bytes of an index or a chunk, uncompressed.
const MOST: u64 = 512 << 20;

/// Digits of a key that the index has.
const DIGITS: usize = 16;

/// Level of zstd for documents: they are small and sent often.
const LEVEL: i32 = 6;

/// What goes into a cache.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    /// Records, in order of steps.
    pub(crate) records: Vec<Record>,
    /// Trees that records and bases name, in order of steps.
    pub(crate) trees: Vec<Tree>,
    /// Trees of layers of base images, by diff id or, if a tree depends on the layers below, by chain id.
    pub(crate) bases: Vec<Base>,
    /// Layers as blobs.
    pub(crate) layers: Vec<LayerFact>,
    /// Small files.
    pub(crate) files: BTreeMap<ContentDigest, Vec<u8>>,
    /// Cache mounts.
    pub(crate) mounts: Vec<MountFact>,
}

/// The tree of a layer of a base image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Base {
    pub(crate) layer: DiffId,
    pub(crate) tree: TreeId,
}

/// A tree as a blob.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct LayerFact {
    pub(crate) tree: TreeId,
    pub(crate) diff_id: DiffId,
    pub(crate) compression: Compression,
    /// What else decides the bytes, as the store remembers it.
    pub(crate) format: String,
    pub(crate) blob: Descriptor,
}

#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Index {
    pub(super) version: u32,
    pub(super) records: Vec<RecordChunk>,
    pub(super) trees: Vec<TreeChunk>,
    pub(super) bases: Vec<Base>,
    pub(super) layers: Vec<LayerFact>,
    pub(super) files: BTreeMap<String, String>,
    pub(super) mounts: Vec<MountFact>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Chunk {
    pub(super) blob: Descriptor,
    /// Uncompressed length in bytes.
    pub(super) length: u64,
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct RecordChunk {
    pub(super) chunk: Chunk,
    pub(super) keys: Vec<String>,
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct TreeChunk {
    pub(super) chunk: Chunk,
    pub(super) trees: Vec<TreeSpan>,
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct TreeSpan {
    pub(super) id: TreeId,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// A cache as documents.
#[derive(Debug, Clone)]
pub(super) struct Encoded {
    pub(super) manifest: Vec<u8>,
    /// The index and the chunks.
    pub(super) documents: Vec<(Descriptor, Vec<u8>)>,
}

/// The part of a key that an index has.
pub(super) fn short(key: &CacheKey) -> String {
    key.to_string()[..DIGITS].to_owned()
}

impl Contents {
    pub(super) fn encode(&self) -> Encoded {
        let mut documents = Vec::new();
        let records = chunks(&self.records, |record| serde_json::to_vec(record).expect("plain data serialises"));
        let records = records.into_iter().map(|(records, parts)| {
            let json = [b"[", &parts.join(&b","[..])[..], b"]"].concat();
            let keys = records.iter().map(|record| short(&record.preimage.key())).collect();
            RecordChunk { chunk: compressed(RECORDS, &json, &mut documents), keys }
        });
        let records = records.collect();
        let mut seen = HashSet::new();
        let trees: Vec<&Tree> = self.trees.iter().filter(|tree| seen.insert(tree.id())).collect();
        let trees = chunks(&trees, |tree| tree.encode()).into_iter().map(|(trees, parts)| {
            let mut offset = 0;
            let span = |tree: &&Tree| {
                let (start, length) = (offset, tree.encoded_len() as u64);
                offset += length;
                TreeSpan { id: tree.id(), offset: start, length }
            };
            let spans = trees.iter().map(span).collect();
            TreeChunk { chunk: compressed(TREES, &parts.concat(), &mut documents), trees: spans }
        });
        let trees = trees.collect();
        let files = self.files.iter().map(|(digest, bytes)| (digest.to_string(), STANDARD.encode(bytes)));
        let index = Index {
            version: VERSION,
            records,
            trees,
            bases: self.bases.clone(),
            layers: self.layers.clone(),
            files: files.collect(),
            mounts: self.mounts.clone(),
        };
        let json = serde_json::to_vec(&index).expect("plain data serialises");
        let index = compressed(INDEX, &json, &mut documents).blob;
        let mut seen = HashSet::from([index.digest.clone()]);
        let chunks = documents.iter().map(|(descriptor, _)| descriptor);
        let mounts = self.mounts.iter().flat_map(|mount| mount.packs.iter().chain([&mount.list.blob]));
        let layers = chunks.chain(self.layers.iter().map(|layer| &layer.blob)).chain(mounts);
        let layers = layers.filter(|blob| seen.insert(blob.digest.clone())).cloned().collect();
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MediaType::OCI_MANIFEST),
            artifact_type: None,
            config: index,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        };
        let manifest = serde_json::to_vec_pretty(&manifest).expect("a document has string keys only");
        Encoded { manifest, documents }
    }
}

impl Index {
    /// Reads an index.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, RemoteError> {
        #[derive(serde::Deserialize)]
        struct Head {
            version: u32,
        }
        let json = decompressed(bytes, MOST)?;
        let wrong = |error: serde_json::Error| RemoteError::malformed(format!("its index: {error}"));
        let head: Head = serde_json::from_slice(&json).map_err(wrong)?;
        if head.version > VERSION {
            return Err(RemoteError::Newer { found: head.version, known: VERSION });
        }
        if head.version < VERSION {
            return Err(RemoteError::Older { found: head.version, known: VERSION });
        }
        serde_json::from_slice(&json).map_err(wrong)
    }
}

/// Reads a chunk of records; those whose preimage is another one's are the caller's to find.
pub(super) fn records(bytes: &[u8], chunk: &Chunk) -> Result<Vec<Record>, RemoteError> {
    let json = exact(bytes, chunk)?;
    serde_json::from_slice(&json).map_err(|error| RemoteError::malformed(format!("its records: {error}")))
}

/// Reads a chunk of trees; [`tree`] takes one out.
pub(super) fn exact(bytes: &[u8], chunk: &Chunk) -> Result<Vec<u8>, RemoteError> {
    let raw = decompressed(bytes, chunk.length.min(MOST))?;
    if raw.len() as u64 != chunk.length {
        return Err(RemoteError::malformed("a chunk is shorter than its index says"));
    }
    Ok(raw)
}

/// Takes a tree out of a chunk: its bytes have to be those that its id names, and in their normal form.
pub(super) fn tree(chunk: &[u8], span: &TreeSpan) -> Result<Tree, RemoteError> {
    let start = usize::try_from(span.offset).ok();
    let end = span.offset.checked_add(span.length).and_then(|end| usize::try_from(end).ok());
    let bytes = start.zip(end).and_then(|(start, end)| chunk.get(start..end));
    let bytes = bytes.ok_or_else(|| RemoteError::malformed("a tree lies outside of its chunk"))?;
    let tree = Tree::parse_untrusted(bytes.to_vec()).map_err(|error| RemoteError::malformed(error.to_string()))?;
    if tree.id() != span.id {
        return Err(RemoteError::malformed(format!("tree {} has another digest", span.id)));
    }
    let sound = |entry: crate::tree::Entry| entry.mode <= 0o7777 && entry.mtime.nanoseconds < 1_000_000_000;
    if tree.iter().all(sound) { Ok(tree) } else { Err(RemoteError::malformed("a tree has impossible values")) }
}

/// Decodes a small file, if its digest is right.
pub(super) fn file(digest: &ContentDigest, base64: &str) -> Option<Vec<u8>> {
    STANDARD.decode(base64).ok().filter(|bytes| ContentDigest::of(bytes) == *digest)
}

/// Cuts items into runs whose encodings have about [`CHUNK`] bytes.
fn chunks<T>(items: &[T], encode: impl Fn(&T) -> Vec<u8>) -> Vec<(&[T], Vec<Vec<u8>>)> {
    let mut all = Vec::new();
    let (mut start, mut size, mut parts) = (0, 0, Vec::new());
    for (index, item) in items.iter().enumerate() {
        let part = encode(item);
        size += part.len();
        parts.push(part);
        if size >= CHUNK || index + 1 == items.len() {
            all.push((&items[start..=index], std::mem::take(&mut parts)));
            (start, size) = (index + 1, 0);
        }
    }
    all
}

pub(super) fn compressed(media_type: &str, raw: &[u8], documents: &mut Vec<(Descriptor, Vec<u8>)>) -> Chunk {
    let bytes = zstd::bulk::compress(raw, LEVEL).expect("memory is the only thing that it takes");
    let blob = Descriptor::of(MediaType::new(media_type), &bytes);
    documents.push((blob.clone(), bytes));
    Chunk { blob, length: raw.len() as u64 }
}

/// Decompresses at most `limit` bytes.
pub(super) fn decompressed(bytes: &[u8], limit: u64) -> Result<Vec<u8>, RemoteError> {
    let wrong = |error: std::io::Error| RemoteError::malformed(format!("it does not decompress: {error}"));
    let mut raw = Vec::new();
    zstd::stream::read::Decoder::new(bytes).map_err(wrong)?.take(limit + 1).read_to_end(&mut raw).map_err(wrong)?;
    if raw.len() as u64 > limit {
        return Err(RemoteError::malformed("a document is longer than its index says"));
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::super::tree_with;
    use super::*;
    use crate::cache::Preimage;
    use crate::oci::Digest;

    fn record(number: usize, tree: &Tree) -> Record {
        let mut preimage = Preimage::new("run");
        preimage.add("argument 0", "x".repeat(2000));
        preimage.add("argument 1", number);
        Record { preimage, tree: tree.id(), semantic: tree.semantic(), created: 1, milliseconds: Some(2), ran: None }
    }

    fn contents(count: usize) -> Contents {
        let trees: Vec<Tree> = (0..count).map(|number| tree_with(&format!("/{number}"))).collect();
        let records = trees.iter().enumerate().map(|(number, tree)| record(number, tree)).collect();
        let fact = LayerFact {
            tree: trees[0].id(),
            diff_id: DiffId::new(Digest::sha256(b"tar")),
            compression: Compression::Gzip,
            format: "1".to_owned(),
            blob: Descriptor::of(MediaType::OCI_LAYER_GZIP, b"blob"),
        };
        let bases = vec![Base { layer: DiffId::new(Digest::sha256(b"base")), tree: trees[0].id() }];
        let files = BTreeMap::from([(ContentDigest::of(b"root"), b"root".to_vec())]);
        Contents { records, trees, bases, layers: vec![fact], files, mounts: Vec::new() }
    }

    fn blob<'a>(encoded: &'a Encoded, chunk: &Chunk) -> &'a [u8] {
        &encoded.documents.iter().find(|(descriptor, _)| *descriptor == chunk.blob).expect("there").1
    }

    #[test]
    fn what_is_written_comes_back() {
        let contents = contents(700);
        let encoded = contents.encode();
        let manifest = Manifest::parse(&encoded.manifest, &MediaType::OCI_MANIFEST).expect("a manifest");
        assert_eq!(manifest.config.media_type.as_str(), INDEX);
        let index = &encoded.documents.last().expect("the index").1;
        let index = Index::decode(index).expect("an index");
        assert_eq!((index.records.len(), index.trees.len()), (2, 1), "700 records of 2 KB are two chunks");
        assert_eq!(manifest.layers.len(), 4, "three chunks and a layer");
        let mut found = Vec::new();
        for chunk in &index.records {
            found.extend(records(blob(&encoded, &chunk.chunk), &chunk.chunk).expect("records"));
            assert!(chunk.keys.contains(&short(&found.last().expect("one").preimage.key())));
        }
        assert_eq!(found, contents.records);
        let chunk = &index.trees[0];
        let raw = exact(blob(&encoded, &chunk.chunk), &chunk.chunk).expect("trees");
        for (span, expected) in chunk.trees.iter().zip(&contents.trees) {
            assert_eq!(&tree(&raw, span).expect("a tree"), expected);
        }
        assert_eq!((index.bases, index.layers), (contents.bases.clone(), contents.layers.clone()));
        let (digest, text) = index.files.first_key_value().expect("a file");
        assert_eq!(file(&digest.parse().expect("a digest"), text).as_deref(), Some(&b"root"[..]));
        assert_eq!(contents.encode().manifest, encoded.manifest, "equal contents are equal bytes");
    }

    #[test]
    fn lies_are_noticed() {
        let encoded = contents(3).encode();
        let index = &encoded.documents.last().expect("the index").1;
        let index = Index::decode(index).expect("an index");
        let chunk = &index.trees[0];
        let raw = exact(blob(&encoded, &chunk.chunk), &chunk.chunk).expect("trees");
        let span = &chunk.trees[1];
        let other = TreeSpan { id: chunk.trees[2].id, ..span.clone() };
        assert!(tree(&raw, &other).is_err(), "another id");
        assert!(tree(&raw, &TreeSpan { offset: u64::MAX, ..span.clone() }).is_err(), "outside");
        assert!(tree(&raw, &TreeSpan { length: 1 << 40, ..span.clone() }).is_err(), "too long");
        for length in [chunk.chunk.length - 1, chunk.chunk.length + 1] {
            let wrong = Chunk { length, ..chunk.chunk.clone() };
            assert!(exact(blob(&encoded, &chunk.chunk), &wrong).is_err(), "length {length}");
        }
        let of = |version: u32| {
            let json = format!(r#"{{"version": {version}, "records": 7}}"#);
            Index::decode(&zstd::bulk::compress(json.as_bytes(), 1).expect("compressed"))
        };
        assert!(matches!(of(3), Err(RemoteError::Newer { found: 3, known: 2 })));
        assert!(matches!(of(1), Err(RemoteError::Older { found: 1, known: 2 })));
        assert!(matches!(Index::decode(b"garbage"), Err(RemoteError::Malformed { .. })));
        let empty = zstd::bulk::compress(b"{}", 1).expect("compressed");
        assert!(matches!(Index::decode(&empty), Err(RemoteError::Malformed { .. })));
        assert_eq!(file(&ContentDigest::of(b"a"), &STANDARD.encode("b")), None);
    }
}
