//! [`BuildContext::survey`]: from a request to what there is of it.

use std::os::fd::AsFd;

use rustix::fs::FileType;

use super::disk::{self, Names, Stat};
use super::survey::{Directory, Entered, Seen, SeenEntry, Survey};
use super::walk::Walk;
use super::{Above, BuildContext, Compiled, ContextError, Filter, Match, Request};
use crate::diagnostic::nearest;
use crate::rootfs::RootPath;
use crate::tree::Time;

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
        Ok(self.read(&self.survey(request)?)?.matches)
    }

    /// The first half of [`BuildContext::select`]: finds out what there is, and reads no file.
    ///
    /// # Errors
    /// As there.
    pub fn survey(&self, request: &Request<'_>) -> Result<Survey, ContextError> {
        let compiled = request.compile()?;
        let base = self.resolve(&compiled.literal)?;
        if compiled.globs.is_empty() {
            let ignored = base.ignored;
            let name = compiled.literal.file_name().unwrap_or_default().to_vec();
            let Some(found) = self.look(base, name, &compiled.filter)? else {
                return Err(self.not_found(&compiled.literal, ignored));
            };
            self.check_required(&compiled, &found)?;
            return Ok(Survey { matches: vec![found], mode: self.mode });
        }
        let mut paths = Vec::new();
        self.expand(&base, &compiled, 0, &mut paths)?;
        let mut matches = Vec::new();
        for path in paths {
            let place = self.resolve(&path)?;
            let name = path.file_name().unwrap_or_default().to_vec();
            matches.extend(self.look(place, name, &compiled.filter)?);
        }
        Ok(Survey { matches, mode: self.mode })
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
        for (name, _) in self.names(place)?.iter() {
            if glob.matches(name)
                && let Some(next) = self.step(place, name)?
            {
                self.expand(&next, compiled, depth + 1, paths)?;
            }
        }
        Ok(())
    }

    /// The names in a directory, ignored ones too; none if it is not one.
    fn names(&self, place: &Place) -> Result<Names, ContextError> {
        if place.stat.kind != FileType::Directory {
            return Ok(Names::default());
        }
        let names = self.disk.directory(&place.path).and_then(|fd| Names::of(fd.as_fd()));
        match names {
            Err(error) if disk::is_gone(&error) => Ok(Names::default()),
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

    /// Looks at a place and all below it. `None` if it is an ignored directory with nothing in it that is not ignored.
    fn look(&self, place: Place, name: Vec<u8>, filter: &Filter) -> Result<Option<Seen>, ContextError> {
        let Place { path: root, stat, ignored, inside } = place;
        let is_directory = stat.kind == FileType::Directory;
        let mut above = Directory {
            path: root.parent().unwrap_or_default(),
            names: Names::one(root.file_name().unwrap_or_default(), stat.kind),
            newest: if is_directory { Time::default() } else { stat.stamp.changed },
            ..Directory::default()
        };
        let child = is_directory.then_some(1);
        above.entries.push(SeenEntry { name: 0, stat, target: None, included: true, visible: !ignored, child });
        above.seal(&mut Vec::new());
        let directories = if is_directory {
            let strip = if root.is_root() { 0 } else { root.as_bytes().len() + 1 };
            let walk = Walk { disk: &self.disk, ignore: self.matcher(), filter, strip };
            walk.walk(above, Entered { path: root.clone(), slot: 1, ignored: inside, filtered: filter.root() })?
        } else {
            vec![above]
        };
        let seen = Seen { name, root, directories };
        Ok((!seen.is_empty()).then_some(seen))
    }

    /// With `--parents`, a path without patterns has to be there.
    fn check_required(&self, compiled: &Compiled, found: &Seen) -> Result<(), ContextError> {
        let Some(required) = &compiled.required else { return Ok(()) };
        let path = found.root.append(required);
        if found.has(&path) {
            return Ok(());
        }
        // Excluded by a flag is not missing.
        match self.resolve(&path) {
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
