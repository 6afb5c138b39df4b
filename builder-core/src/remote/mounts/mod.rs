//! Cache mounts that travel: a tree, and the contents of its files as chunks in packs.
//!
//! ```text
//! files of the tree, one after the other ── FastCDC ──▶ chunks ── zstd ──▶ packs     only chunks that no pack has
//! list (zstd of JSON)   [{ id: BLAKE3, pack, offset, stored, length }]              in the order of the contents
//! ```
//!
//! Cuts depend on the content, so that a file that changes or comes between others leaves the chunks around it as they
//! are. A pack of which less than half is still used is not used any further: what it holds goes into a new one.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use fastcdc::v2020::StreamCDC;

use super::RemoteError;
use super::backend::{self, Backend, broken};
use super::format::{self, Chunk};
use crate::cancel::CancelToken;
use crate::content::{BlobWriter, ContentStore};
use crate::layer::{self, Files};
use crate::lock::lock;
use crate::oci::{Algorithm, Descriptor, Hasher, MediaType};
use crate::rootfs::{Kind, RootDir, RootPath};
use crate::snapshot::{Active, SnapshotStore, hash_file, read_entry};
use crate::tree::{ContentDigest, Entry, Node, Tree, TreeBuilder, TreeId};

const LIST: &str = "application/vnd.rbuild.cache.chunks.v1+zstd";
const PACK: &str = "application/vnd.rbuild.cache.pack.v1";

/// Least, usual and most bytes of a chunk: part of what makes two exports share chunks.
const CHUNK: (usize, usize, usize) = (32 << 10, 128 << 10, 512 << 10);

/// Bytes after which a new pack begins.
const PACK_SIZE: u64 = 32 << 20;

/// Largest list of chunks that is fetched, in bytes.
const MOST: u64 = 256 << 20;

/// Files up to this size are handed over in memory.
const IN_MEMORY: u64 = 1 << 20;

/// What names a cache mount: its id, and mode and owner of its directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) struct MountIdentity {
    pub(crate) id: String,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A cache mount that a cache has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct MountFact {
    pub(crate) mount: MountIdentity,
    pub(crate) tree: TreeId,
    /// Its chunks in order.
    pub(super) list: Chunk,
    /// The packs that they are in.
    pub(super) packs: Vec<Descriptor>,
}

/// Where a chunk is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct ChunkRef {
    id: ContentDigest,
    /// Index in [`MountFact::packs`].
    pack: usize,
    offset: u64,
    stored: u64,
    length: u64,
}

/// A mount made ready to be sent.
pub(super) struct PackedMount {
    pub(super) fact: MountFact,
    pub(super) tree: Tree,
    pub(super) list: (Descriptor, Vec<u8>),
    /// The packs that are new.
    pub(super) packs: Vec<(Descriptor, Mutex<BlobWriter>)>,
}

/// Says what is in the directory of a mount. Whoever asks keeps others from changing it.
pub(crate) fn tree_of(root: &RootDir) -> io::Result<Tree> {
    let mut builder = TreeBuilder::new();
    let (mut links, mut pending) = (HashMap::new(), vec![RootPath::root()]);
    while let Some(path) = pending.pop() {
        let directory = root.open_dir_exact(&path)?;
        for name in directory.names()? {
            let stat = directory.stat(&name)?;
            let child = path.child(&name);
            // A socket is nobody's cache.
            let Some(mut entry) = read_entry(&directory, &name, child.clone(), &stat)? else { continue };
            if stat.kind == Kind::Directory {
                pending.push(child.clone());
            }
            if stat.kind == Kind::File {
                entry.node = if let Some(first) = links.get(&stat.identity) {
                    Node::clone(first)
                } else {
                    let (size, content) = hash_file(&root.open_file_exact(&child)?)?;
                    let link = if stat.links > 1 { u32::try_from(links.len()).unwrap_or(0) + 1 } else { 0 };
                    let node = Node::File { size, content, link };
                    if stat.links > 1 {
                        links.insert(stat.identity, node.clone());
                    }
                    node
                };
            }
            builder.push(entry);
        }
    }
    Ok(builder.finish())
}

/// The files of a tree whose contents are in the stream, in order: of hard links the first.
fn contents(tree: &Tree) -> Vec<(RootPath, u64)> {
    let mut links = HashSet::new();
    let mut files = Vec::new();
    for entry in tree.iter() {
        if let Node::File { size, link, .. } = entry.node
            && (link == 0 || links.insert(link))
        {
            files.push((entry.path, size));
        }
    }
    files
}

/// The contents of files, one after the other.
struct Stream<'a> {
    root: &'a RootDir,
    files: std::vec::IntoIter<(RootPath, u64)>,
    current: Option<io::Take<File>>,
    cancel: &'a CancelToken,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.cancel.check().map_err(io::Error::other)?;
            if let Some(file) = &mut self.current {
                match file.read(buffer)? {
                    0 if file.limit() > 0 => return Err(io::Error::other("a file became shorter while it was read")),
                    0 => self.current = None,
                    length => return Ok(length),
                }
            }
            let Some((path, size)) = self.files.next() else { return Ok(0) };
            self.current = Some(self.root.open_file_exact(&path)?.take(size));
        }
    }
}

/// Cuts a mount into chunks, and packs those that `known` has not got. `known` is what the destination has of it.
pub(super) fn pack(
    mount: &MountIdentity,
    directory: &Path,
    known: Option<(&MountFact, Vec<ChunkRef>)>,
    content: &ContentStore,
    cancel: &CancelToken,
) -> Result<Option<PackedMount>, RemoteError> {
    let access = |source| RemoteError::Access { path: directory.to_owned(), source };
    let root = RootDir::open(directory).map_err(access)?;
    let tree = tree_of(&root).map_err(access)?;
    if known.as_ref().is_some_and(|(fact, _)| fact.tree == tree.id()) {
        return Ok(None);
    }
    let mut packer = Packer::new(content, known);
    let stream = Stream { root: &root, files: contents(&tree).into_iter(), current: None, cancel };
    for chunk in StreamCDC::new(stream, CHUNK.0, CHUNK.1, CHUNK.2) {
        packer.add(&chunk.map_err(|error| access(error.into()))?.data)?;
    }
    let (chunks, packs, new) = packer.finish();
    let json = serde_json::to_vec(&chunks).expect("plain data serialises");
    let mut documents = Vec::new();
    let list = format::compressed(LIST, &json, &mut documents);
    let fact = MountFact { mount: mount.clone(), tree: tree.id(), list, packs };
    Ok(Some(PackedMount { fact, tree, list: documents.remove(0), packs: new }))
}

type NewPack = (Descriptor, Mutex<BlobWriter>);

/// Puts chunks into packs, each once.
struct Packer<'a> {
    content: &'a ContentStore,
    chunks: Vec<ChunkRef>,
    packs: Vec<Descriptor>,
    /// Where chunks are, by pack and place; packs of the destination first.
    places: HashMap<ContentDigest, (Pack, u64, u64)>,
    old: Vec<Descriptor>,
    current: Option<(BlobWriter, Hasher)>,
    new: Vec<NewPack>,
    /// Chunk by chunk, the pack that it is in.
    used: Vec<Pack>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Pack {
    Old(usize),
    New(usize),
}

impl<'a> Packer<'a> {
    fn new(content: &'a ContentStore, known: Option<(&MountFact, Vec<ChunkRef>)>) -> Self {
        let (mut places, mut old) = (HashMap::new(), Vec::new());
        if let Some((fact, chunks)) = known {
            old.clone_from(&fact.packs);
            let mut live = vec![0; old.len()];
            let mut seen = HashSet::new();
            for chunk in chunks.iter().filter(|chunk| chunk.pack < old.len() && seen.insert(chunk.id)) {
                live[chunk.pack] += chunk.stored;
            }
            for chunk in chunks.iter().filter(|chunk| chunk.pack < old.len()) {
                if live[chunk.pack] * 2 >= old[chunk.pack].size {
                    places.insert(chunk.id, (Pack::Old(chunk.pack), chunk.offset, chunk.stored));
                }
            }
        }
        let (chunks, packs, new, used) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { content, chunks, packs, places, old, current: None, new, used }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), RemoteError> {
        let id = ContentDigest::of(bytes);
        let known = self.places.get(&id).copied();
        let (pack, offset, stored) = known.map_or_else(|| self.write(bytes), Ok)?;
        self.places.insert(id, (pack, offset, stored));
        self.chunks.push(ChunkRef { id, pack: 0, offset, stored, length: bytes.len() as u64 });
        self.used.push(pack);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(Pack, u64, u64), RemoteError> {
        if self.current.as_ref().is_some_and(|(writer, _)| writer.size() >= PACK_SIZE) {
            self.close();
        }
        let number = Pack::New(self.new.len());
        if self.current.is_none() {
            self.current = Some((self.content.writer()?, Hasher::new(Algorithm::Sha256)));
        }
        let (writer, hasher) = self.current.as_mut().expect("made just now");
        let stored = zstd::bulk::compress(bytes, 3).expect("memory is the only thing that it takes");
        let offset = writer.size();
        let failed = |source| RemoteError::Access { path: self.content.state().to_owned(), source };
        writer.write_all(&stored).map_err(failed)?;
        hasher.update(&stored);
        Ok((number, offset, stored.len() as u64))
    }

    fn close(&mut self) {
        if let Some((writer, hasher)) = self.current.take() {
            let descriptor = Descriptor::new(MediaType::new(PACK), hasher.finish(), writer.size());
            self.new.push((descriptor, Mutex::new(writer)));
        }
    }

    /// The chunks, all packs that they are in, and those of them that are new.
    fn finish(mut self) -> (Vec<ChunkRef>, Vec<Descriptor>, Vec<NewPack>) {
        self.close();
        let mut numbers: HashMap<Pack, usize> = HashMap::new();
        for (chunk, pack) in self.chunks.iter_mut().zip(&self.used) {
            chunk.pack = *numbers.entry(*pack).or_insert_with(|| {
                self.packs.push(match pack {
                    Pack::Old(number) => self.old[*number].clone(),
                    Pack::New(number) => self.new[*number].0.clone(),
                });
                self.packs.len() - 1
            });
        }
        (self.chunks, self.packs, self.new)
    }
}

/// Fetches the list of chunks of a mount.
pub(super) fn chunks(
    backend: &dyn Backend,
    fact: &MountFact,
    cancel: &CancelToken,
) -> Result<Vec<ChunkRef>, RemoteError> {
    let bytes = backend::read(backend, &fact.list.blob, MOST, cancel)?;
    let json = format::exact(&bytes, &fact.list)?;
    serde_json::from_slice(&json).map_err(|error| RemoteError::malformed(format!("a list of chunks: {error}")))
}

/// Fetches a mount, and makes its files in a new directory. Each file has to be that of the tree.
pub(super) fn restore(
    backend: &dyn Backend,
    fact: &MountFact,
    tree: &Tree,
    content: &ContentStore,
    snapshots: &SnapshotStore,
    cancel: &CancelToken,
) -> Result<Active, RemoteError> {
    let list = chunks(backend, fact, cancel)?;
    let mut packs = Vec::new();
    for pack in &fact.packs {
        packs.push(fetch(backend, pack, content, cancel)?);
    }
    let active = snapshots.begin()?;
    let files = ChunkFiles::new(tree, list, packs, content.state());
    layer::materialise(tree, &files, &active).map_err(|error| match error {
        layer::PackError::Read { path, source } => {
            RemoteError::malformed(format!("cache mount file `{path}`: {source}"))
        }
        other => RemoteError::malformed(format!("cache mount: {other}")),
    })?;
    Ok(active)
}

/// Fetches a blob into a file that goes away with its writer, verified.
fn fetch(
    backend: &dyn Backend,
    blob: &Descriptor,
    content: &ContentStore,
    cancel: &CancelToken,
) -> Result<(BlobWriter, File), RemoteError> {
    let mut writer = content.writer()?;
    let mut stream = backend.open(blob, cancel)?.take(blob.size + 1);
    let mut hasher = Hasher::new(blob.digest.algorithm());
    let mut buffer = vec![0; 128 << 10];
    loop {
        cancel.check()?;
        let length = match stream.read(&mut buffer).map_err(|error| broken(error, blob))? {
            0 => break,
            length => length,
        };
        hasher.update(&buffer[..length]);
        let failed = |source| RemoteError::Access { path: content.state().to_owned(), source };
        writer.write_all(&buffer[..length]).map_err(failed)?;
    }
    if writer.size() != blob.size || hasher.finish() != blob.digest {
        let reason = "its content is another one's".to_owned();
        return Err(RemoteError::Damaged { digest: blob.digest.clone(), reason });
    }
    let file = writer.reopen()?;
    Ok((writer, file))
}

/// The files of a mount, put together from chunks.
struct ChunkFiles<'a> {
    /// Where the content of a file begins, and its length.
    files: HashMap<RootPath, (u64, u64)>,
    /// Chunks with where they begin.
    chunks: Vec<(u64, ChunkRef)>,
    packs: Vec<(BlobWriter, File)>,
    /// The chunk that was read last: many small files are in one.
    last: Mutex<Option<(usize, Vec<u8>)>>,
    /// Where large files are put together.
    scratch: &'a Path,
}

impl<'a> ChunkFiles<'a> {
    fn new(tree: &Tree, list: Vec<ChunkRef>, packs: Vec<(BlobWriter, File)>, scratch: &'a Path) -> Self {
        let mut at = 0u64;
        let files = contents(tree).into_iter().map(|(path, size)| {
            let start = at;
            at = at.saturating_add(size);
            (path, (start, size))
        });
        let files = files.collect();
        let mut at = 0u64;
        let chunks = list.into_iter().map(|chunk| {
            let start = at;
            at = at.saturating_add(chunk.length);
            (start, chunk)
        });
        Self { files, chunks: chunks.collect(), packs, last: Mutex::default(), scratch }
    }

    /// Hands the bytes of a chunk to `work`.
    fn with_chunk(&self, number: usize, work: impl FnOnce(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut last = lock(&self.last);
        if last.as_ref().is_none_or(|(known, _)| *known != number) {
            let chunk = &self.chunks[number].1;
            let wrong = || io::Error::other("a chunk is not what the list says");
            let (_, pack) = self.packs.get(chunk.pack).ok_or_else(wrong)?;
            // One byte more than the longest chunk, and what zstd may add to one that it cannot shorten.
            let most = CHUNK.2 as u64;
            if chunk.length > most || chunk.stored > most * 2 {
                return Err(wrong());
            }
            let mut stored = vec![0; usize::try_from(chunk.stored).map_err(|_| wrong())?];
            pack.read_exact_at(&mut stored, chunk.offset)?;
            let bytes = zstd::bulk::decompress(&stored, CHUNK.2)?;
            if ContentDigest::of(&bytes) != chunk.id || bytes.len() as u64 != chunk.length {
                return Err(wrong());
            }
            *last = Some((number, bytes));
        }
        work(&last.as_ref().expect("read just now").1)
    }
}

impl Files for ChunkFiles<'_> {
    fn open(&self, entry: &Entry) -> io::Result<File> {
        let (start, size) = *self.files.get(&entry.path).ok_or(io::ErrorKind::NotFound)?;
        let mut file = if size <= IN_MEMORY {
            File::from(rustix::fs::memfd_create("chunks", rustix::fs::MemfdFlags::CLOEXEC)?)
        } else {
            tempfile::tempfile_in(self.scratch)?
        };
        let mut at = start;
        let end = start.saturating_add(size);
        // The chunk that `start` lies in.
        let mut number = self.chunks.partition_point(|(begin, chunk)| begin.saturating_add(chunk.length) <= start);
        while at < end {
            let (begin, chunk) = self.chunks.get(number).ok_or(io::ErrorKind::UnexpectedEof)?;
            let until = end.min(begin.saturating_add(chunk.length));
            let place = |at: u64| usize::try_from(at - begin).map_err(io::Error::other);
            let (from, to) = (place(at)?, place(until)?);
            self.with_chunk(number, |bytes| file.write_all(bytes.get(from..to).ok_or(io::ErrorKind::UnexpectedEof)?))?;
            at = until;
            number += 1;
        }
        file.rewind()?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests;
