//! [`Placer`]: puts one entry after the other into a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::ops::Bound;
use std::rc::Rc;

use super::content::Writer;
use super::{LowerLink, UnpackOptions};
use crate::layer::UnpackError;
use crate::layer::pack::{OPAQUE, WHITEOUT};
use crate::rootfs::{Directory, RootPath};
use crate::snapshot::{Active, create_node, make_whiteout, set_metadata, set_metadata_of, set_opaque};
use crate::tar::{Header, Kind};
use crate::tree::{Entry, Node, ResolveError, Time, Tree, TreeBuilder, Xattr};

/// Most symbolic links followed in one path, as in Linux (`path_resolution(7)`).
const LINKS_MOST: usize = 40;

/// The state of an unpacking. What it knows and what is on disk are always the same.
pub(super) struct Placer<'a> {
    active: &'a Active,
    options: &'a UnpackOptions<'a>,
    /// Everything that is there, in the order of a walk.
    entries: BTreeMap<RootPath, Entry>,
    /// Directories without an entry of their own.
    implied: BTreeSet<RootPath>,
    lower_links: BTreeMap<RootPath, RootPath>,
    /// The directory of the last entry: as it was written, resolved, and open.
    current: Option<(RootPath, RootPath, Rc<Directory>)>,
    next_link: u32,
    approximated: u64,
    counts: Counts,
    buffer: Vec<u8>,
}

/// What came of an archive; see [`Unpacked`](super::Unpacked).
pub(super) struct Placed {
    pub(super) tree: Tree,
    pub(super) implied: Vec<RootPath>,
    pub(super) lower_links: Vec<LowerLink>,
    pub(super) approximated: u64,
}

#[derive(Default)]
struct Counts {
    bytes: u64,
    entries: u64,
    metadata: u64,
}

impl<'a> Placer<'a> {
    pub(super) fn new(active: &'a Active, options: &'a UnpackOptions<'a>) -> Self {
        Self {
            active,
            options,
            entries: BTreeMap::new(),
            implied: BTreeSet::new(),
            lower_links: BTreeMap::new(),
            current: None,
            next_link: 1,
            approximated: 0,
            counts: Counts::default(),
            buffer: vec![0; 128 * 1024],
        }
    }

    /// Places what a header says; the content of a file comes from `archive`.
    pub(super) fn place(&mut self, mut header: Header, archive: &mut dyn Read) -> Result<(), UnpackError> {
        self.count(&header)?;
        let relative = RootPath::clean(&header.path).map_err(|error| refused(&header, &error.to_string()))?;
        let into = self.options.archive.as_ref().map(|archive| archive.into.clone()).unwrap_or_default();
        let path = into.append(&relative);
        if let Some(owner) = self.options.archive.as_ref().and_then(|archive| archive.owner) {
            (header.uid, header.gid) = (owner.uid, owner.gid);
        }
        if path.as_bytes().len() > 4095 {
            return Err(refused(&header, "its path is longer than 4095 bytes"));
        }
        if self.options.archive.is_some() && leads_out(&header.path) {
            return Err(refused(&header, "its name leads out of the directory that it is unpacked into"));
        }
        // The directory that an archive is unpacked into stays as it is.
        if relative.is_root() && self.options.archive.is_some() {
            return if header.kind == Kind::Directory {
                self.enter(&into).map(drop)
            } else {
                Err(refused(&header, "it would replace the directory that it is unpacked into"))
            };
        }
        let Some(name) = path.file_name() else { return self.place_root(&header) };
        if path.components().any(|component| component.starts_with(WHITEOUT)) {
            return self.place_reserved(&path, name, &header);
        }
        let (parent, _) = self.enter(&path.parent().unwrap_or_default())?;
        self.place_at(&parent.child(name), &header, archive)
    }

    fn count(&mut self, header: &Header) -> Result<(), UnpackError> {
        let limits = &self.options.limits;
        let xattrs: usize = header.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        // Sixty-four bytes for what every entry has.
        let metadata = (header.path.len() + header.link.len() + xattrs + 64) as u64;
        self.counts.entries += 1;
        self.counts.metadata += metadata;
        self.counts.bytes = self.counts.bytes.saturating_add(header.size);
        for (count, limit, what) in [
            (self.counts.entries, limits.entries, "entries"),
            (self.counts.metadata, limits.metadata, "bytes of names and attributes"),
            (self.counts.bytes, limits.bytes, "bytes"),
        ] {
            if count > limit {
                return Err(UnpackError::Limit { what, limit });
            }
        }
        Ok(())
    }

    fn place_root(&mut self, header: &Header) -> Result<(), UnpackError> {
        if header.kind != Kind::Directory {
            return Err(refused(header, "it would replace the root directory"));
        }
        let opaque = self.is_opaque(&RootPath::root());
        self.entries.insert(RootPath::root(), entry_of(RootPath::root(), Node::Directory { opaque }, header));
        self.implied.remove(&RootPath::root());
        Ok(())
    }

    /// A name that begins with `.wh.`: a whiteout, an opaque mark, or nothing that an image may hold.
    fn place_reserved(&mut self, path: &RootPath, name: &[u8], header: &Header) -> Result<(), UnpackError> {
        if self.options.archive.is_some() {
            return Err(refused(header, "a name that begins with `.wh.` would delete a file in a layer"));
        }
        let parent = path.parent().unwrap_or_default();
        // AUFS's own directories, with what is in them, mean nothing here.
        if parent.components().any(|component| component.starts_with(b".wh..wh.")) {
            return Ok(());
        }
        if parent.components().any(|component| component.starts_with(WHITEOUT)) {
            return Err(refused(header, "it lies in a directory that is a whiteout"));
        }
        let target = &name[WHITEOUT.len()..];
        if name == OPAQUE {
            let (parent, directory) = self.enter(&parent)?;
            set_opaque(&*directory, self.active.dialect()).map_err(|source| write_error(&parent, source))?;
            let entry = self.entries.entry(parent.clone());
            // Only the root can be without an entry here.
            let entry = entry.or_insert_with(|| Entry::directory(parent, 0o755, 0, 0, Time::default()));
            entry.node = Node::Directory { opaque: true };
            return Ok(());
        }
        if target.starts_with(WHITEOUT) {
            return Ok(());
        }
        if matches!(target, b"" | b"." | b"..") {
            return Err(refused(header, "it is a whiteout of nothing"));
        }
        let (parent, _) = self.enter(&parent)?;
        self.place_whiteout(&parent.child(target))
    }

    /// Hides what lower layers have at `path`. What this layer has there stays (image-spec `layer.md`).
    fn place_whiteout(&mut self, path: &RootPath) -> Result<(), UnpackError> {
        match self.entries.get_mut(path) {
            Some(Entry { node: Node::Directory { opaque }, .. }) => *opaque = true,
            Some(_) => {}
            None if self.lower_links.contains_key(path) => {}
            None => {
                let (directory, name) = self.locate(path)?;
                make_whiteout(&directory, name).map_err(|source| write_error(path, source))?;
                self.entries.insert(path.clone(), Entry::whiteout(path.clone()));
            }
        }
        Ok(())
    }

    /// Places an entry at a path whose parent is resolved and there.
    fn place_at(&mut self, path: &RootPath, header: &Header, archive: &mut dyn Read) -> Result<(), UnpackError> {
        if header.kind == Kind::Directory {
            return self.place_directory(path, header);
        }
        if header.kind == Kind::CharDevice && header.device == (0, 0) {
            // On disk it would be a whiteout whatever the archive means by it.
            if self.options.archive.is_some() {
                return Err(refused(header, "the character device 0/0 is overlayfs' whiteout"));
            }
            return self.place_whiteout(path);
        }
        if header.kind == Kind::HardLink {
            return self.place_hard_link(path, header);
        }
        self.remove(path)?;
        let write = |source| write_error(path, source);
        let (directory, name) = self.locate(path)?;
        if header.kind == Kind::File {
            let file = directory.create_file(name).map_err(write)?;
            let mut writer = Writer { path, file: &file, buffer: &mut self.buffer };
            let content = writer.write(header, archive)?;
            let entry = entry_of(path.clone(), Node::File { size: header.size, content, link: 0 }, header);
            let exact = set_metadata_of(&file, &entry).map_err(write)?;
            self.insert(entry, exact);
            return Ok(());
        }
        let (major, minor) = header.device;
        let node = match header.kind {
            Kind::Symlink if header.link.is_empty() || header.link.len() > 4095 || header.link.contains(&0) => {
                return Err(refused(header, "the target of a symbolic link is empty or longer than 4095 bytes"));
            }
            Kind::Symlink => Node::Symlink { target: header.link.clone() },
            Kind::CharDevice => Node::CharDevice { major, minor },
            Kind::BlockDevice => Node::BlockDevice { major, minor },
            _ => Node::Fifo,
        };
        let entry = entry_of(path.clone(), node, header);
        let exact = create_node(&directory, name, &entry.node).map_err(write)?;
        let exact = set_metadata(&directory, name, &entry).map_err(write)? && exact;
        self.current = None;
        self.insert(entry, exact);
        Ok(())
    }

    /// Metadata of directories are set at the end: what is made in them changes their time.
    fn place_directory(&mut self, path: &RootPath, header: &Header) -> Result<(), UnpackError> {
        let mut opaque = self.is_opaque(path);
        match self.entries.get(path).map(|entry| &entry.node) {
            Some(Node::Directory { .. }) => {}
            other => {
                // Of a path that was deleted below, the new directory shows nothing.
                opaque = other == Some(&Node::Whiteout);
                self.remove(path)?;
                let (directory, name) = self.locate(path)?;
                directory.create_dir(name).map_err(|source| write_error(path, source))?;
            }
        }
        self.current = None;
        self.implied.remove(path);
        self.insert(entry_of(path.clone(), Node::Directory { opaque }, header), true);
        Ok(())
    }

    /// Gives a file another name. All names of it have the metadata that it was placed with.
    fn place_hard_link(&mut self, path: &RootPath, header: &Header) -> Result<(), UnpackError> {
        let into = self.options.archive.as_ref().map(|archive| archive.into.clone()).unwrap_or_default();
        let target = RootPath::clean(&header.link).map_err(|error| refused(header, &error.to_string()))?;
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(refused(header, "it is a hard link to the root directory"));
        };
        let target = self.resolve(&into.append(&parent))?.child(name);
        if target == *path && self.entries.contains_key(path) {
            return Ok(());
        }
        self.remove(path)?;
        let Some(mut entry) = self.entries.get(&target).cloned() else {
            self.lower_links.insert(path.clone(), target);
            return Ok(());
        };
        let write = |source| write_error(path, source);
        match &mut entry.node {
            Node::File { link, .. } => {
                if *link == 0 {
                    *link = self.next_link;
                    self.next_link += 1;
                    self.entries.insert(target.clone(), entry.clone());
                }
                let (from, first) = self.open_parent(&target).map_err(write)?;
                let (directory, name) = self.locate(path)?;
                from.hard_link(first, &directory, name).map_err(write)?;
            }
            Node::Directory { .. } | Node::Whiteout => {
                return Err(refused(header, "it is a hard link to a directory or to something deleted"));
            }
            node => {
                let (directory, name) = self.locate(path)?;
                create_node(&directory, name, node).map_err(write)?;
                set_metadata(&directory, name, &entry).map_err(write)?;
                self.current = None;
            }
        }
        entry.path = path.clone();
        self.insert(entry, true);
        Ok(())
    }

    fn insert(&mut self, entry: Entry, exact: bool) {
        self.approximated += u64::from(!exact);
        self.lower_links.remove(&entry.path);
        self.entries.insert(entry.path.clone(), entry);
    }

    /// Removes what is at `path`, with everything below it.
    fn remove(&mut self, path: &RootPath) -> Result<(), UnpackError> {
        fn below<V>(map: &BTreeMap<RootPath, V>, path: &RootPath) -> Vec<RootPath> {
            let range = map.range((Bound::Included(path.clone()), Bound::Unbounded));
            range.map(|(found, _)| found).take_while(|found| found.starts_with(path)).cloned().collect()
        }
        for link in below(&self.lower_links, path) {
            self.lower_links.remove(&link);
        }
        if self.entries.contains_key(path) {
            let (directory, name) = self.locate(path)?;
            directory.remove_tree(name).map_err(|source| write_error(path, source))?;
            for gone in below(&self.entries, path) {
                self.entries.remove(&gone);
                self.implied.remove(&gone);
            }
            self.current = None;
        }
        Ok(())
    }

    fn is_opaque(&self, path: &RootPath) -> bool {
        self.entries.get(path).is_some_and(|entry| entry.node == Node::Directory { opaque: true })
    }

    /// Resolves a directory, makes it and those above it where they are missing, and opens it.
    fn enter(&mut self, written: &RootPath) -> Result<(RootPath, Rc<Directory>), UnpackError> {
        if let Some((asked, resolved, directory)) = &self.current
            && asked == written
        {
            return Ok((resolved.clone(), Rc::clone(directory)));
        }
        let resolved = self.resolve(written)?;
        let missing: Vec<RootPath> = resolved.ancestors().chain([resolved.clone()]).collect();
        for path in missing.iter().filter(|path| !path.is_root()) {
            let opaque = match self.entries.get(path).map(|entry| &entry.node) {
                Some(Node::Directory { .. }) => continue,
                other => other == Some(&Node::Whiteout),
            };
            self.remove(path)?;
            let (directory, name) = self.open_parent(path).map_err(|source| write_error(path, source))?;
            directory.create_dir(name).map_err(|source| write_error(path, source))?;
            let mut entry = Entry::directory(path.clone(), 0o755, 0, 0, Time::default());
            entry.node = Node::Directory { opaque };
            self.insert(entry, true);
            self.implied.insert(path.clone());
        }
        let open = self.active.root().open_dir_exact(&resolved);
        let directory = Rc::new(open.map_err(|source| write_error(&resolved, source))?);
        self.current = Some((written.clone(), resolved.clone(), Rc::clone(&directory)));
        Ok((resolved, directory))
    }

    /// Follows links in the path of a directory, in what was unpacked so far and, for an archive, in the image below.
    ///
    /// For links an archive's directory is the root, as it is for BuildKit, which unpacks in a chroot; a relative one
    /// that leads out of it is an error.
    fn resolve(&self, path: &RootPath) -> Result<RootPath, UnpackError> {
        let top = self.options.archive.as_ref().map(|archive| archive.into.clone()).unwrap_or_default();
        let below = path.strip_prefix(&top).unwrap_or_else(|| path.clone());
        let mut pending: Vec<Vec<u8>> = below.components().rev().map(<[u8]>::to_vec).collect();
        let (mut resolved, mut links) = (top.clone(), 0);
        while let Some(component) = pending.pop() {
            match component.as_slice() {
                b"" | b"." => continue,
                b".." if resolved == top && self.options.archive.is_some() => {
                    return Err(ResolveError::Outside(path.clone()).into());
                }
                b".." => {
                    resolved = resolved.parent().unwrap_or_default();
                    continue;
                }
                _ => {}
            }
            let next = resolved.child(&component);
            if next.as_bytes().len() > 4095 {
                return Err(ResolveError::Target(next).into());
            }
            match self.node(&next) {
                None | Some(Node::Directory { .. } | Node::Whiteout) => resolved = next,
                Some(Node::Symlink { target }) => {
                    links += 1;
                    if links > LINKS_MOST {
                        return Err(ResolveError::Loop(path.clone()).into());
                    }
                    if target.starts_with(b"/") {
                        resolved.clone_from(&top);
                    }
                    pending.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                    if pending.iter().any(|component| component.starts_with(WHITEOUT)) {
                        return Err(ResolveError::Target(next).into());
                    }
                }
                Some(_) => return Err(ResolveError::NotADirectory(next).into()),
            }
        }
        Ok(resolved)
    }

    /// What is at a path: here, else, for an archive, in the image below.
    fn node(&self, path: &RootPath) -> Option<Node> {
        if let Some(entry) = self.entries.get(path) {
            return Some(entry.node.clone());
        }
        let lower = self.options.archive.as_ref()?.lower;
        lower.lookup(path).map(|found| found.entry.node)
    }

    /// The open directory of a path whose parent was entered, and its name.
    fn locate<'p>(&self, path: &'p RootPath) -> Result<(Rc<Directory>, &'p [u8]), UnpackError> {
        let name = path.file_name().expect("the root is placed elsewhere");
        match &self.current {
            Some((_, resolved, directory)) if path.parent().as_ref() == Some(resolved) => {
                Ok((Rc::clone(directory), name))
            }
            _ => self.open_parent(path).map_err(|source| write_error(path, source)),
        }
    }

    /// Opens the directory of a resolved path, refusing every link.
    fn open_parent<'p>(&self, path: &'p RootPath) -> io::Result<(Rc<Directory>, &'p [u8])> {
        let name = path.file_name().expect("the root is placed elsewhere");
        Ok((Rc::new(self.active.root().open_dir_exact(&path.parent().unwrap_or_default())?), name))
    }

    /// Sets the metadata of directories, deepest first, and gives the tree.
    pub(super) fn finish(mut self) -> Result<Placed, UnpackError> {
        for (path, entry) in self.entries.iter().rev() {
            let Node::Directory { opaque } = entry.node else { continue };
            let write = |source| write_error(path, source);
            let directory = self.active.root().open_dir_exact(path).map_err(write)?;
            if opaque {
                set_opaque(&directory, self.active.dialect()).map_err(write)?;
            }
            self.approximated += u64::from(!set_metadata_of(&directory, entry).map_err(write)?);
        }
        let mut builder = TreeBuilder::new();
        for entry in std::mem::take(&mut self.entries).into_values() {
            builder.push(entry);
        }
        let lower_links = std::mem::take(&mut self.lower_links);
        Ok(Placed {
            tree: builder.finish(),
            implied: self.implied.into_iter().collect(),
            lower_links: lower_links.into_iter().map(|(path, target)| LowerLink { path, target }).collect(),
            approximated: self.approximated,
        })
    }
}

/// The entry that a header means. Attributes that belong to no image are left out (invariant E-8).
fn entry_of(path: RootPath, node: Node, header: &Header) -> Entry {
    let xattrs = header.xattrs.iter().filter(|(name, _)| Xattr::belongs_to_image(name));
    Entry {
        path,
        mode: if matches!(node, Node::Symlink { .. }) { 0o777 } else { header.mode },
        uid: header.uid,
        gid: header.gid,
        mtime: Time { seconds: header.mtime.0, nanoseconds: header.mtime.1 },
        xattrs: xattrs.map(|(name, value)| Xattr { name: name.clone(), value: value.clone() }).collect(),
        node,
    }
}

/// Whether a relative name begins with more `..` than it has directories before them.
pub(super) fn leads_out(name: &[u8]) -> bool {
    let mut depth = 0_i64;
    !name.starts_with(b"/")
        && name.split(|byte| *byte == b'/').any(|component| {
            depth += match component {
                b"" | b"." => 0,
                b".." => -1,
                _ => 1,
            };
            depth < 0
        })
}

fn refused(header: &Header, reason: &str) -> UnpackError {
    UnpackError::Entry { path: String::from_utf8_lossy(&header.path).into_owned(), reason: reason.to_owned() }
}

fn write_error(path: &RootPath, source: io::Error) -> UnpackError {
    UnpackError::Write { path: path.clone(), source }
}
