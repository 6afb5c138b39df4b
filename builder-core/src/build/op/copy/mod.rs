//! `COPY` and `ADD` as data: [`plan`] says what lands where; nothing is read or written.
//!
//! ```text
//! CopyOp ─┬─ BuildContext::select ─┐
//!         ├─ select(stack) ────────┤
//!         ├─ heredocs, downloads ──┼─▶ CopySource… ─┬─ plan ─▶ CopyPlan { tree, files, facts }
//!         └─ unpacked archives ────┘   Stack below ─┘             │       │      └─ for the preimage of the key
//!                                                                 │       └─ where each file's bytes are
//!                                                                 └─ the layer; its semantic digest decides hits
//! ```
//!
//! The rules, one source after the other, each seeing what earlier ones have put there:
//!
//! | source | destination | result |
//! |---|---|---|
//! | file | missing, or a file | becomes the destination |
//! | file | an existing directory, or it ends in `/` | goes into it under its own name |
//! | directory | missing | made; gets the contents |
//! | directory | a directory | keeps its own mode and owner; the contents are merged in |
//! | directory | a file | error |
//! | several, no `/` | missing | the last one wins |
//!
//! Below the source, directories that exist take mode, owner and attributes of the source's, and files replace anything
//! but directories. Missing directories above the destination are made as 0755, or as the number of `--chmod` says, and
//! get the group of a set-group-id directory that they are in. Symbolic links in the destination are followed inside
//! the root; one whose name is that of a copied file is replaced.
//!
//! Times of modification are those of the sources, also of a directory that is merged into another. A directory that
//! was there and in which something is made or replaced has the time of the copy, like those that are made.

mod destination;
mod error;
mod mode;
mod stack;

#[cfg(test)]
mod tests;

pub use error::CopyError;
pub use mode::ModeChange;
pub use stack::select;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::context::{Match, Selected};
use crate::graph::CopyOp;
use crate::rootfs::{Owner, ParseRootPathError, RootPath};
use crate::tree::{ContentDigest, Entry, Node, Stack, Time, Tree};
pub(crate) use destination::inherit;
use destination::{Destination, Made, in_the_way};

/// One source, resolved.
#[derive(Debug, Clone)]
pub enum CopySource {
    /// Found in a build context, or in a checked-out repository that was opened as one.
    Context(Vec<Match>),
    /// Found in a root filesystem, by [`select`].
    Stack(Vec<Match>),
    /// One file that has no place yet: a here-document or a download.
    File(LooseFile),
    /// What an archive changes that was unpacked for [`landing`]. `--chown` has been applied, `--chmod` does not count.
    Unpacked(UnpackedArchive),
}

/// What an archive changes.
#[derive(Debug, Clone)]
pub struct UnpackedArchive {
    /// Everything that it makes, and the directories above.
    pub tree: Tree,
    /// Directories that it has no entry for.
    pub implied: HashSet<RootPath>,
}

/// A file that is not in a tree.
#[derive(Debug, Clone)]
pub struct LooseFile {
    /// Its name in a directory.
    pub name: String,
    /// Permission bits: 0644 for here-documents, 0600 for downloads.
    pub mode: u32,
    /// Last modification.
    pub mtime: Time,
    /// Length in bytes.
    pub size: u64,
    /// Digest of the bytes.
    pub content: ContentDigest,
    /// Where the bytes are.
    pub bytes: FileSource,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSource {
    /// In a context, for `BuildContext::open_path`.
    Context {
        /// Index into the sources given to [`plan`].
        source: usize,
        /// The path in it.
        path: RootPath,
        /// Length in bytes.
        size: u64,
    },
    /// In the snapshot of a layer of the stack of source number `source`.
    Layer {
        /// Index into the sources given to [`plan`].
        source: usize,
        /// Index of the layer, 0 the lowest.
        layer: usize,
        /// The path in it.
        path: RootPath,
    },
    /// At the same path in the snapshot that the archive of source number `source` was unpacked to.
    Unpacked {
        /// Index into the sources given to [`plan`].
        source: usize,
    },
    /// In a file of the host.
    Host(PathBuf),
    /// Here.
    Inline(Arc<[u8]>),
}

/// What a copy makes.
#[derive(Debug, Clone)]
pub struct CopyPlan {
    /// The layer: what is copied as it lands, directories that were made, and directories above that were there.
    pub tree: Tree,
    /// Where the bytes of each regular file are.
    pub files: PlannedFiles,
    /// What was looked at in the destination; none with `--link`.
    pub facts: Vec<Fact>,
    /// Where each match of the sources landed, in order.
    pub landings: Vec<Landing>,
}

/// For each regular file of a plan, where its bytes are.
#[derive(Debug, Clone)]
pub enum PlannedFiles {
    /// As the plan says.
    Each {
        /// What is made.
        tree: Tree,
        /// One for each entry of the tree.
        files: Vec<Option<FileSource>>,
    },
    /// All of them are below one directory of a context, at the same paths.
    Moved(Landing),
}

/// Where a match of a source lands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landing {
    /// Its path in the source.
    pub from: RootPath,
    /// Its path in the layer.
    pub to: RootPath,
}

/// Something that was looked at in the destination.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fact {
    /// The path, for people.
    pub path: String,
    /// `missing`, `a directory`, `a file`, …
    pub kind: &'static str,
    /// Permission bits of a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Owner and group of a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, u32)>,
    /// Target of a symbolic link, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl Fact {
    fn new(path: &RootPath, found: Option<&Entry>) -> Self {
        let directory = found.filter(|entry| entry.node.is_directory());
        Self {
            path: path.to_string(),
            kind: found.map_or("missing", |entry| kind_of(&entry.node)),
            mode: directory.map(|entry| entry.mode),
            owner: directory.map(|entry| (entry.uid, entry.gid)),
            target: match found.map(|entry| &entry.node) {
                Some(Node::Symlink { target }) => Some(String::from_utf8_lossy(target).into_owned()),
                _ => None,
            },
        }
    }
}

/// How ownership and modes of what is copied change, and of what has to be made for it.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    /// `--chown`, names already looked up in the destination. `None` keeps the owners of sources; directories that are
    /// made belong to 0:0.
    pub owner: Option<Owner>,
    /// Modification time of directories that are made.
    pub created: Time,
}

/// Says what a copy of `sources` into the root filesystem `below` makes.
///
/// `sources` correspond to `op.sources`, each resolved. Flags of `op` that have done their work by then (`--exclude`,
/// `--parents`, `--checksum`, …) are not looked at. A source that matched nothing does nothing, not even to the
/// destination.
///
/// # Errors
/// [`CopyError::NotADirectory`] and [`CopyError::IsADirectory`] where source and destination don't fit;
/// [`CopyError::Mode`] for `--chmod`; [`CopyError::ReservedName`] for names that no layer can hold; [`CopyError::Resolve`] and [`CopyError::Path`] for the destination.
pub fn plan(
    op: &CopyOp,
    sources: Vec<CopySource>,
    below: &Stack,
    attributes: Attributes,
) -> Result<CopyPlan, CopyError> {
    let chmod = op.chmod.as_deref().filter(|mode| !mode.is_empty());
    let mode = chmod.map(ModeChange::parse).transpose()?;
    let made = Made {
        owner: attributes.owner,
        mode: mode.as_ref().and_then(ModeChange::of_made_directory).unwrap_or(Made::MODE),
        time: attributes.created,
    };
    let destination = Destination::new((!op.link).then_some(below), made);
    let mut copy = Copy {
        path: op.workdir.join(&op.destination)?,
        into_directory: ends_as_directory(&op.destination),
        owner: attributes.owner,
        mode,
        destination,
        links: 0,
        landings: Vec::new(),
    };
    for (number, source) in sources.into_iter().enumerate() {
        match source {
            CopySource::Context(matches) => {
                for found in matches {
                    copy.one_match(found, |path, size, _| FileSource::Context { source: number, path, size })?;
                }
            }
            CopySource::Stack(matches) => {
                for found in matches {
                    copy.one_match(found, |path, _, layer| FileSource::Layer { source: number, layer, path })?;
                }
            }
            CopySource::File(file) => copy.loose_file(file)?,
            CopySource::Unpacked(archive) => copy.unpacked(number, archive)?,
        }
    }
    let (mut placed, facts) = copy.destination.finish();
    let is_reserved = |path: &RootPath| path.file_name().is_some_and(|name| name.starts_with(b".wh."));
    if let Some(placed) = placed.iter().find(|placed| is_reserved(&placed.entry.path)) {
        return Err(CopyError::ReservedName(placed.entry.path.clone()));
    }
    let tree = Tree::of_sorted(&mut placed, |placed| &mut placed.entry);
    let files = placed.into_iter().map(|placed| placed.bytes).collect();
    Ok(CopyPlan { files: PlannedFiles::Each { tree: tree.clone(), files }, tree, facts, landings: copy.landings })
}

impl PlannedFiles {
    /// Where the bytes of an entry are; `None` if it is not a regular file of the plan.
    pub fn get(&self, entry: &Entry) -> Option<FileSource> {
        match self {
            Self::Each { tree, files } => files[tree.position(&entry.path)?].clone(),
            Self::Moved(Landing { from, to }) => {
                let Node::File { size, .. } = entry.node else { return None };
                Some(FileSource::Context { source: 0, path: entry.path.moved(to, from)?, size })
            }
        }
    }

    /// Whether any of them is in a layer.
    pub fn is_in_layers(&self) -> bool {
        let is_in_layer = |source: &FileSource| matches!(source, FileSource::Layer { .. });
        matches!(self, Self::Each { files, .. } if files.iter().flatten().any(is_in_layer))
    }
}

/// The directory that `ADD` unpacks an archive into, symbolic links followed.
///
/// # Errors
/// As [`plan`], for the destination.
pub fn landing(op: &CopyOp, below: &Stack) -> Result<RootPath, CopyError> {
    let made = Made { owner: None, mode: Made::MODE, time: Time::default() };
    let mut destination = Destination::new((!op.link).then_some(below), made);
    let path = destination.resolve(&op.workdir.join(&op.destination)?)?;
    destination.ensure(&path)?;
    Ok(path)
}

/// `PATH_MAX` of Linux without the NUL.
const MAX_PATH: usize = 4095;

struct Copy<'a> {
    path: RootPath,
    into_directory: bool,
    owner: Option<Owner>,
    mode: Option<ModeChange>,
    destination: Destination<'a>,
    /// Link groups so far.
    links: u32,
    landings: Vec<Landing>,
}

impl Copy<'_> {
    /// Makes what has to be above the destination, and says where it really is.
    fn prepare(&mut self) -> Result<RootPath, CopyError> {
        let above = if self.into_directory { self.path.clone() } else { self.path.parent().unwrap_or_default() };
        let above = self.destination.resolve(&above)?;
        self.destination.ensure(&above)?;
        self.destination.resolve(&self.path)
    }

    fn one_match(&mut self, found: Match, bytes: impl Fn(RootPath, u64, usize) -> FileSource) -> Result<(), CopyError> {
        let Match { name, root, entries } = found;
        let mut target = self.prepare()?;
        let is_directory = entries.first().is_some_and(|first| first.entry.node.is_directory());
        match self.destination.at(&target) {
            Some(node) if node.is_directory() && is_directory => {}
            Some(node) if node.is_directory() => target = target.child(&name),
            Some(node) if is_directory => return Err(in_the_way(target, &node)),
            _ => {}
        }
        let was_there = self.destination.find(&target).is_some();
        let made = if is_directory { Some(target.clone()) } else { target.parent() };
        let made = made.unwrap_or_default();
        self.destination.ensure(&made)?;
        match entries.first() {
            // The time of a context's own directory, or of a root, says nothing.
            Some(first) if is_directory && first.entry.path == root && !root.is_root() => {
                self.destination.set_time(&made, first.entry.mtime);
            }
            _ => self.destination.touch(&made),
        }
        // Directories that are there only for what is below them.
        let mut passed = HashSet::new();
        // The directory that this match has made last: nothing can be in the way below it.
        let mut fresh = (is_directory && !was_there).then(|| target.clone());
        let mut links = HashMap::new();
        self.destination.reserve(entries.len());
        for Selected { mut entry, included, layer } in entries {
            if is_directory && entry.path == root {
                continue;
            }
            let path = moved(&entry.path, &root, &target)?;
            let free = fresh.as_ref().is_some_and(|fresh| is_below(&path, fresh));
            let origin = std::mem::replace(&mut entry.path, path);
            let source = match entry.node {
                Node::File { size, .. } => Some(bytes(origin, size, layer)),
                _ => None,
            };
            let mut entry = self.transformed(entry, &mut links);
            let parent = (!passed.is_empty()).then(|| entry.path.parent().unwrap_or_default());
            let parent = parent.filter(|parent| passed.contains(parent));
            if !included {
                entry.mtime = self.destination.made.time;
                passed.insert(entry.path.clone());
            }
            if let Some(parent) = parent
                && !(entry.node.is_directory() && self.destination.find(&entry.path).is_some())
            {
                self.destination.touch(&parent);
            }
            match (entry.node.is_directory(), free) {
                (true, true) => self.destination.place_fresh(entry),
                (true, false) => {
                    let path = entry.path.clone();
                    if self.nested_directory(entry, included)? {
                        fresh = Some(path);
                    }
                }
                (false, true) => self.destination.place(entry, source),
                (false, false) => self.replace(entry, source)?,
            }
        }
        self.landings.push(Landing { from: root, to: target });
        Ok(())
    }

    fn loose_file(&mut self, file: LooseFile) -> Result<(), CopyError> {
        let LooseFile { name, mode, mtime, size, content, bytes } = file;
        let mut target = self.prepare()?;
        if self.destination.at(&target).is_some_and(|node| node.is_directory()) {
            target = target.join(name.trim_start_matches('/'))?;
        }
        let parent = target.parent().unwrap_or_default();
        self.destination.ensure(&parent)?;
        self.destination.touch(&parent);
        let node = Node::File { size, content, link: 0 };
        let Owner { uid, gid } = self.owner.unwrap_or_default();
        let mode = self.mode.as_ref().map_or(mode, |change| change.apply(mode, false));
        self.replace(Entry { path: target, node, mode, uid, gid, mtime, xattrs: Vec::new() }, Some(bytes))
    }

    /// Takes over what an archive changes; its paths are where they land.
    fn unpacked(&mut self, number: usize, UnpackedArchive { tree, implied }: UnpackedArchive) -> Result<(), CopyError> {
        // Also for an archive with nothing in it. `--chmod` is not for archives.
        let top = self.destination.resolve(&self.path)?;
        let mode = std::mem::replace(&mut self.destination.made.mode, Made::MODE);
        self.destination.ensure(&top)?;
        self.destination.made.mode = mode;
        let mut links = HashMap::new();
        // What leads to the destination is not the archive's, which has it only to have a place for its files.
        for mut entry in tree.iter().filter(|entry| !top.starts_with(&entry.path)) {
            let parent = entry.path.parent().unwrap_or_default();
            self.destination.ensure(&parent)?;
            let there = self.destination.find(&entry.path);
            let is_new = !entry.node.is_directory() || !there.as_ref().is_some_and(|there| there.node.is_directory());
            // Directories get the time that the archive says when it is all there.
            if is_new && (parent == top || implied.contains(&parent)) {
                self.destination.touch(&parent);
            }
            if implied.contains(&entry.path) {
                if let Some(there) = there.filter(|_| !is_new) {
                    entry = there;
                } else {
                    entry.mtime = self.destination.made.time;
                    // As `mkdir(2)`; the bit itself is lost, since the mode is set afterwards.
                    let above = self.destination.find(&parent);
                    if let Some(above) = above.filter(|above| above.mode & 0o2000 != 0) {
                        entry.gid = above.gid;
                    }
                }
            }
            self.renumber(&mut entry, &mut links);
            let bytes = entry.node.is_file().then_some(FileSource::Unpacked { source: number });
            if !entry.node.is_directory() {
                // An earlier source may have put a directory here; `tar -x` replaces it.
                self.destination.clear(&entry.path);
            }
            self.destination.place(entry, bytes);
        }
        Ok(())
    }

    /// A directory below a source: new (then the answer is true), or merged into one that is there.
    fn nested_directory(&mut self, entry: Entry, included: bool) -> Result<bool, CopyError> {
        match self.destination.find(&entry.path) {
            None => {
                self.destination.place_fresh(entry);
                return Ok(true);
            }
            Some(there) if !there.node.is_directory() => return Err(in_the_way(entry.path, &there.node)),
            Some(_) if included => self.destination.place(entry, None),
            // One that is there only for what is below it gives its mode and nothing else.
            Some(there) => self.destination.place(Entry { mode: entry.mode, ..there }, None),
        }
        Ok(false)
    }

    /// Puts something that is not a directory where no directory is.
    fn replace(&mut self, entry: Entry, bytes: Option<FileSource>) -> Result<(), CopyError> {
        if self.destination.find(&entry.path).is_some_and(|there| there.node.is_directory()) {
            return Err(CopyError::IsADirectory(entry.path));
        }
        self.destination.place(entry, bytes);
        Ok(())
    }

    fn transformed(&mut self, entry: Entry, links: &mut HashMap<u32, u32>) -> Entry {
        let mut entry = self.owned(entry);
        if let Some(change) = &self.mode
            && !matches!(entry.node, Node::Symlink { .. })
        {
            entry.mode = change.apply(entry.mode, entry.node.is_directory());
        }
        self.renumber(&mut entry, links);
        entry
    }

    fn owned(&self, mut entry: Entry) -> Entry {
        if let Some(Owner { uid, gid }) = self.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        entry
    }

    /// Link groups hold within one match; numbers hold in the whole layer.
    fn renumber(&mut self, entry: &mut Entry, links: &mut HashMap<u32, u32>) {
        if let Node::File { link, .. } = &mut entry.node
            && *link != 0
        {
            *link = *links.entry(*link).or_insert_with(|| {
                self.links += 1;
                self.links
            });
        }
    }
}

/// Where an entry of the match `root` lands below `target`.
fn moved(path: &RootPath, root: &RootPath, target: &RootPath) -> Result<RootPath, CopyError> {
    let path = path.moved(root, target).expect("entries of a match lie below it");
    // Two valid paths can make one that is too long.
    if path.as_bytes().len() > MAX_PATH {
        return Err(ParseRootPathError::TooLong(path.as_bytes().len()).into());
    }
    Ok(path)
}

/// Whether a path lies strictly below a directory.
fn is_below(path: &RootPath, directory: &RootPath) -> bool {
    directory.is_root() || path.as_bytes().strip_prefix(directory.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"))
}

/// Whether a destination names a directory by how it is written.
fn ends_as_directory(destination: &str) -> bool {
    matches!(destination, "" | ".") || destination.ends_with('/') || destination.ends_with("/.")
}

/// A node in words.
fn kind_of(node: &Node) -> &'static str {
    match node {
        Node::Directory { .. } => "a directory",
        Node::File { .. } => "a file",
        Node::Symlink { .. } => "a symbolic link",
        Node::CharDevice { .. } | Node::BlockDevice { .. } => "a device",
        Node::Fifo => "a named pipe",
        Node::Whiteout => "nothing",
    }
}
