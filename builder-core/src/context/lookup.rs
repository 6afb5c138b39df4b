//! [`BuildContext::select`]: from a request to entries with digests.

use std::collections::HashMap;
use std::os::fd::AsFd;

use rustix::fs::FileType;

use super::disk::{self, Hashed, Stat};
use super::index::Record;
use super::walk::{Found, Item, Walk, item, spread};
use super::{Above, BuildContext, Compiled, ContextError, Filter, Match, Request, Selected};
use crate::diagnostic::nearest;
use crate::rootfs::RootPath;
use crate::tree::{Entry, Node};

/// Most symbolic links followed in one path, as in Linux (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// A path that exists and is not ignored, or may hold something that is not.
struct Place {
    path: RootPath,
    stat: Stat,
    ignored: bool,
    inside: Above,
}

impl BuildContext {
    /// What a source stands for: one match for a path, any number for a pattern, each with everything below it.
    ///
    /// Symbolic links above a match, and a match that is one itself, are followed inside the root; those below it stay
    /// links. Owners are 0:0; sockets are empty files. A file's digest is taken from the index only if device, inode,
    /// size, modification and change time are those that it was read with, and it was old enough then that any later
    /// write had to show in them. All other files are read.
    ///
    /// # Errors
    /// [`ContextError::NotFound`] for a path without patterns that is not there or is ignored; a pattern may match
    /// nothing. [`ContextError::Changed`] if a file does not stay the same while it is read.
    pub fn select(&self, request: &Request<'_>) -> Result<Vec<Match>, ContextError> {
        let compiled = request.compile()?;
        if compiled.globs.is_empty() {
            let place = self.resolve(&compiled.literal)?;
            let ignored = place.ignored;
            let name = compiled.literal.file_name().unwrap_or_default().to_vec();
            let found = self.collect(place, name, &compiled.filter)?;
            let Some(found) = found else {
                return Err(self.not_found(&compiled.literal, ignored));
            };
            self.check_required(&compiled, &found)?;
            return Ok(vec![found]);
        }
        let base = self.resolve(&compiled.literal)?;
        let mut paths = Vec::new();
        self.expand(&base, &compiled, 0, &mut paths)?;
        let mut matches = Vec::new();
        for path in paths {
            let place = self.resolve(&path)?;
            let name = path.file_name().unwrap_or_default().to_vec();
            matches.extend(self.collect(place, name, &compiled.filter)?);
        }
        Ok(matches)
    }

    /// Finds the paths that match the patterns from number `depth` on. Directories are read, links not followed.
    fn expand(
        &self,
        place: &Place,
        compiled: &Compiled,
        depth: usize,
        paths: &mut Vec<RootPath>,
    ) -> Result<(), ContextError> {
        let Some(glob) = compiled.globs.get(depth) else {
            paths.push(place.path.clone());
            return Ok(());
        };
        for (name, _) in self.names(place)? {
            if glob.matches(&name)
                && let Some(next) = self.step(place, &name)?
            {
                self.expand(&next, compiled, depth + 1, paths)?;
            }
        }
        Ok(())
    }

    /// The names in a directory, ignored ones too; none if it is not one.
    fn names(&self, place: &Place) -> Result<Vec<(Vec<u8>, FileType)>, ContextError> {
        if place.stat.kind != FileType::Directory {
            return Ok(Vec::new());
        }
        let names = self.disk.directory(&place.path).and_then(|fd| disk::list(fd.as_fd()));
        match names {
            Err(error) if disk::is_gone(&error) => Ok(Vec::new()),
            names => names.map_err(|source| ContextError::Read { path: place.path.clone(), source }),
        }
    }

    fn root_place(&self) -> Result<Place, ContextError> {
        let path = RootPath::root();
        let stat = self.disk.stat(&path).and_then(|stat| stat.ok_or_else(|| std::io::ErrorKind::NotFound.into()));
        let stat = stat.map_err(|source| ContextError::Open { path: self.root.clone(), source })?;
        Ok(Place { path, stat, ignored: false, inside: self.matcher().root() })
    }

    /// Goes from a directory to a name in it; `None` if that is not there, or ignored with everything in it.
    fn step(&self, place: &Place, name: &[u8]) -> Result<Option<Place>, ContextError> {
        let path = place.path.child(name);
        let (verdict, inside) = self.matcher().enter(&place.inside, path.as_bytes());
        if verdict.matched && !self.matcher().can_take_back_below(&inside, path.as_bytes()) {
            return Ok(None);
        }
        let stat = match self.disk.stat(&path) {
            Ok(stat) => stat,
            Err(source) => return Err(ContextError::Read { path, source }),
        };
        let seen = |stat: &Stat| !verdict.matched || stat.kind == FileType::Directory;
        Ok(stat.filter(seen).map(|stat| Place { path, stat, ignored: verdict.matched, inside }))
    }

    /// Follows a path, its last component too, never out of the root.
    fn resolve(&self, path: &RootPath) -> Result<Place, ContextError> {
        let mut pending: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
        let mut reached = vec![self.root_place()?];
        let mut links = 0;
        while let Some(name) = pending.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    if reached.len() > 1 {
                        reached.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let here = reached.last().expect("the root is never popped");
            let Some(next) = self.step(here, &name)? else {
                // The path as written when no link led here, else where the links led.
                let missing = if links == 0 { path.clone() } else { here.path.child(&name) };
                return Err(self.not_found(&missing, false));
            };
            if next.stat.kind == FileType::Symlink {
                links += 1;
                if links > MAX_LINKS {
                    return Err(ContextError::Loop(path.clone()));
                }
                let target = self.disk.read_link(&next.path);
                let target = target.map_err(|source| ContextError::Read { path: next.path, source })?;
                if target.starts_with(b"/") {
                    reached.truncate(1);
                }
                pending.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
            } else {
                reached.push(next);
            }
        }
        Ok(reached.pop().expect("the root is never popped"))
    }

    /// Explains why a path is missing.
    fn not_found(&self, path: &RootPath, known_ignored: bool) -> ContextError {
        let ignored = self.ignored_by(path).filter(|_| {
            known_ignored || matches!(self.disk.stat(path), Ok(Some(_))) || self.resolves_without_ignoring(path)
        });
        // The first component that is missing decides which names are like it.
        let mut nearby = None;
        if ignored.is_none()
            && let Ok(mut place) = self.root_place()
        {
            for name in path.components() {
                let Ok(Some(next)) = self.step(&place, name) else {
                    let names = self.names(&place).unwrap_or_default();
                    let visible = names.iter().filter(|(name, _)| matches!(self.step(&place, name), Ok(Some(_))));
                    let texts: Vec<&str> = visible.filter_map(|(name, _)| std::str::from_utf8(name).ok()).collect();
                    let wanted = String::from_utf8_lossy(name);
                    nearby = nearest(&wanted, texts).map(|name| place.path.child(name.as_bytes()));
                    break;
                };
                place = next;
            }
        }
        let nearest = nearby.map(|path| String::from_utf8_lossy(path.as_bytes()).into_owned());
        ContextError::NotFound { path: path.clone(), nearest, ignored }
    }

    /// Whether something is there when symbolic links are followed.
    fn resolves_without_ignoring(&self, path: &RootPath) -> bool {
        self.disk.file_following_links(path.as_relative()).is_ok()
    }

    /// Takes a place and all below it. `None` if it is an ignored directory with nothing in it that is not ignored.
    fn collect(&self, place: Place, name: Vec<u8>, filter: &Filter) -> Result<Option<Match>, ContextError> {
        let Place { path, stat, ignored, inside } = place;
        let failed = |source| ContextError::Read { path: path.clone(), source };
        let node = stat.node(|| self.disk.read_link(&path)).map_err(failed)?;
        let mut found = if stat.kind == FileType::Directory {
            let walk = Walk {
                disk: &self.disk,
                index: &self.index,
                ignore: self.matcher(),
                filter,
                strip: if path.is_root() { 0 } else { path.as_bytes().len() + 1 },
            };
            walk.walk(item(path.clone(), &stat, node, None), (ignored, inside))?
        } else {
            let parent = path.parent().unwrap_or_default();
            let records = self.index.lock().expect("no holder panics").directory(parent.as_bytes());
            let known = records.and_then(|records| records.reader().find(path.file_name().unwrap_or_default()));
            let newest = stat.stamp.changed;
            Found { items: vec![item(path.clone(), &stat, node, known)], newest, ..Found::default() }
        };
        if found.items.is_empty() {
            return Ok(None);
        }
        self.read_files(&mut found)?;
        number_links(&mut found.items);
        let entries = found.items.into_iter().map(|item| item.selected).collect();
        Ok(Some(Match { name, root: path, entries }))
    }

    /// Reads the files whose content the index does not know, and tells it what it may keep.
    fn read_files(&self, found: &mut Found) -> Result<(), ContextError> {
        let unread: Vec<(usize, RootPath)> = found
            .items
            .iter()
            .enumerate()
            .filter(|(_, item)| item.unread)
            .map(|(at, item)| (at, item.selected.entry.path.clone()))
            .collect();
        if unread.is_empty() {
            return Ok(());
        }
        let weight = unread.iter().map(|(at, _)| found.items[*at].stamp.size).sum();
        let hashed = spread(&unread, weight, |(_, path), buffer| self.disk.hash(path, buffer))?;
        let mut settled: HashMap<RootPath, Vec<(Vec<u8>, Record)>> = HashMap::new();
        for ((at, path), Hashed { stat, record, began }) in unread.into_iter().zip(hashed) {
            let item = &mut found.items[at];
            item.stamp = stat.stamp;
            item.links = stat.links;
            let entry = &mut item.selected.entry;
            entry.node = Node::File { size: stat.stamp.size, content: record.content, link: 0 };
            entry.mode = stat.mode;
            entry.mtime = stat.stamp.modified;
            entry.xattrs.clone_from(&record.xattrs);
            if self.disk.is_settled(&stat.stamp, began, found.newest) {
                let name = path.file_name().expect("a file is not the root").to_vec();
                settled.entry(path.parent().unwrap_or_default()).or_default().push((name, record));
            }
        }
        let mut index = self.index.lock().expect("no holder panics");
        for (directory, records) in settled {
            let listing = found.listings.get(&directory).map(Vec::as_slice);
            index.remember(directory.as_bytes(), records, listing);
        }
        Ok(())
    }

    /// With `--parents`, a path without patterns has to be there.
    fn check_required(&self, compiled: &Compiled, found: &Match) -> Result<(), ContextError> {
        let Some(required) = &compiled.required else { return Ok(()) };
        let path = found.root.append(required);
        if found.entries.iter().any(|selected| selected.entry.path == path) {
            return Ok(());
        }
        // Excluded by a flag is not missing.
        match self.resolve(&path) {
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Gives regular files that are one inode a common number.
fn number_links(items: &mut [Item]) {
    let mut numbers: HashMap<(u64, u64), u32> = HashMap::new();
    for item in items {
        let Selected { entry: Entry { node, .. }, .. } = &mut item.selected;
        if let Node::File { link, .. } = node
            && item.links > 1
        {
            let next = u32::try_from(numbers.len()).expect("fewer than 2^32 files") + 1;
            *link = *numbers.entry((item.stamp.device, item.stamp.inode)).or_insert(next);
        }
    }
}
