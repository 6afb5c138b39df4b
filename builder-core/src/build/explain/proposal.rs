//! The smallest copy that has everything of a larger one that was looked at.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::history::{Origin, Used};
use crate::rootfs::RootPath;
use crate::tree::{Node, Tree};

/// Files of one directory that are named one by one; more are its directory.
const MAX_NAMED: usize = 16;

/// Of how many files three quarters are most of them.
const FEW: usize = 4;

/// Most instructions.
const MAX_LINES: usize = 24;

/// What would be enough to copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "proposal", rename_all = "kebab-case")]
pub enum Proposal {
    /// Nothing: the command can stand before the copy.
    Nothing,
    /// All of it.
    All {
        /// Where that is because names in directories were read: what would be enough if they do not matter, in place of
        /// the instruction that there is. None if nothing smaller would be.
        without_names: Vec<String>,
    },
    /// What these instructions copy.
    Copy {
        /// In place of the one that there is.
        lines: Vec<String>,
    },
    /// That is not known.
    Unknown {
        /// Why.
        why: String,
    },
}

/// Finds instructions that copy at least what is `used` of `tree`, the layer of a copy.
pub(super) fn propose(tree: &Tree, used: &BTreeMap<String, Used>, origin: &Origin) -> Proposal {
    let found = enough(tree, used, origin);
    if !matches!(found, Proposal::All { .. }) || used.values().all(|used| *used != Used::Listed) {
        return found;
    }
    // `make` reads the names beside a makefile, and cares for few of them.
    let touched = |used: &Used| if *used == Used::Listed { Used::Touched } else { *used };
    // Nor for what is a directory among them.
    let only_named = |path: &str, seen: Used| {
        let Ok(path) = RootPath::clean(path) else { return false };
        let above = path.parent().and_then(|above| used.get(&above.to_string()));
        let is_directory = tree.get(&path).is_some_and(|entry| entry.node.is_directory());
        seen == Used::Touched && is_directory && above == Some(&Used::Listed)
    };
    let kept = used.iter().filter(|(path, seen)| !only_named(path, **seen));
    let without = kept.map(|(path, seen)| (path.clone(), touched(seen))).collect();
    match enough(tree, &without, origin) {
        Proposal::Copy { lines } => Proposal::All { without_names: lines },
        _ => found,
    }
}

fn enough(tree: &Tree, used: &BTreeMap<String, Used>, origin: &Origin) -> Proposal {
    let used = used.iter().filter_map(|(path, used)| Some((RootPath::clean(path).ok()?, *used))).collect();
    let path = |text: &String| RootPath::clean(text).ok();
    let places = origin.places.iter().filter_map(|(to, from)| path(to).zip(path(from))).collect();
    let search = Search { tree, used, places, directories: origin.directories.iter().filter_map(path).collect() };
    let part = search.visit(&RootPath::root(), false);
    // Without the copy the destination may not be there.
    let bare = part.bare.as_ref().filter(|_| !origin.existed).map(has_to_be_there);
    if let Some(why) = part.stuck.or(bare) {
        return Proposal::Unknown { why };
    }
    if part.items.is_empty() {
        return Proposal::Nothing;
    }
    if part.needed == part.total || part.items.iter().any(|item| search.is_all(item)) {
        return Proposal::All { without_names: Vec::new() };
    }
    match search.lines(&part.items, origin) {
        Some(lines) if lines.len() <= MAX_LINES => Proposal::Copy { lines },
        Some(_) => Proposal::Unknown { why: "it would take too many instructions".to_owned() },
        None => Proposal::Unknown { why: "a path has characters that a Dockerfile reads in its own way".to_owned() },
    }
}

struct Search<'a> {
    tree: &'a Tree,
    used: BTreeMap<RootPath, Used>,
    /// Where files are in the image, and in the context.
    places: Vec<(RootPath, RootPath)>,
    /// Directories of the context that were copied whole.
    directories: Vec<RootPath>,
}

/// What is copied; paths in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    File(RootPath),
    Directory(RootPath),
}

/// What is needed of a directory.
#[derive(Default)]
struct Part {
    total: usize,
    needed: usize,
    items: Vec<Item>,
    /// Why only a directory above can be copied.
    stuck: Option<String>,
    /// A destination, or a directory above one, that was looked at and of which nothing else is needed.
    bare: Option<RootPath>,
}

impl Part {
    /// All of a directory.
    fn whole(directory: &RootPath, total: usize) -> Self {
        Self { total, needed: total, items: vec![Item::Directory(directory.clone())], ..Self::default() }
    }
}

fn has_to_be_there(directory: &RootPath) -> String {
    format!("the directory `{directory}` has to be there")
}

impl Search<'_> {
    fn visit(&self, directory: &RootPath, covered: bool) -> Part {
        let mut part = Part::default();
        let mut named = 0;
        for entry in self.tree.children(directory) {
            let seen = self.used.get(&entry.path).copied();
            if entry.node.is_directory() {
                // What is above the destination is not copied, whatever was done with it.
                let inside = self.source(&entry.path).is_some();
                let listed = inside && seen.is_some_and(|seen| seen > Used::Touched);
                let below = self.visit(&entry.path, covered || listed);
                let below = self.settle(&entry.path, seen, covered || listed, below);
                part.total += below.total;
                part.needed += below.needed;
                part.items.extend(below.items);
                part.stuck = part.stuck.or(below.stuck);
                part.bare = part.bare.or(below.bare);
                continue;
            }
            if entry.node == Node::Whiteout {
                continue;
            }
            part.total += 1;
            if !covered && seen.is_none() {
                continue;
            }
            part.needed += 1;
            named += 1;
            if !entry.node.is_file() {
                part.stuck.get_or_insert_with(|| format!("`{}` can only be copied with its directory", entry.path));
            }
            part.items.push(Item::File(entry.path));
        }
        if named > MAX_NAMED && self.is_below_source(directory) {
            return Part::whole(directory, part.total);
        }
        part
    }

    /// Makes one item of a directory where that is asked for, is necessary, or hardly more.
    fn settle(&self, directory: &RootPath, seen: Option<Used>, covered: bool, mut part: Part) -> Part {
        let empty = part.items.is_empty();
        if empty && (seen.is_some() || covered) && part.stuck.is_none() {
            if self.is_destination(directory) {
                part.bare = Some(directory.clone());
            } else {
                part.stuck = Some(has_to_be_there(directory));
            }
        }
        let wanted = part.stuck.is_some() || (covered && !empty);
        let most = part.needed >= FEW && part.needed * 4 >= part.total * 3;
        let all = part.total > 0 && part.needed == part.total;
        let allowed = self.is_below_source(directory) || (wanted && self.is_source(directory));
        if allowed && (wanted || most || all) {
            return Part::whole(directory, part.total);
        }
        part
    }

    /// Where a path is in the context; `None` above the destination.
    fn source(&self, path: &RootPath) -> Option<RootPath> {
        let (to, from) = self.places.iter().find(|(to, _)| path.starts_with(to))?;
        path.moved(to, from)
    }

    /// Whether a directory is where the copy goes, or above that.
    fn is_destination(&self, directory: &RootPath) -> bool {
        self.places.iter().any(|(to, _)| to.starts_with(directory))
    }

    /// Whether a directory was copied as part of another one.
    fn is_below_source(&self, directory: &RootPath) -> bool {
        let from = self.source(directory);
        from.is_some_and(|from| self.directories.iter().any(|whole| from != *whole && from.starts_with(whole)))
    }

    /// Whether a directory is one that the copy names.
    fn is_source(&self, directory: &RootPath) -> bool {
        self.source(directory).is_some_and(|from| self.directories.contains(&from))
    }

    /// Whether an item is the only source of the copy.
    fn is_all(&self, item: &Item) -> bool {
        matches!(item, Item::Directory(path) if self.places.len() == 1 && self.directories.len() == 1 && self.is_source(path))
    }

    /// The instructions: one for the files of each directory, one for each directory. `None` if a name cannot be written.
    fn lines(&self, items: &[Item], origin: &Origin) -> Option<Vec<String>> {
        let workdir = RootPath::clean(&origin.workdir).ok()?;
        let mut files: BTreeMap<RootPath, Vec<String>> = BTreeMap::new();
        let mut lines = Vec::new();
        for item in items {
            let (Item::File(path) | Item::Directory(path)) = item;
            let from = self.source(path)?;
            let source = plain(&from)?;
            match item {
                Item::Directory(_) => {
                    let source = if from.is_root() { ".".to_owned() } else { format!("{source}/") };
                    lines.push(format!("{} {source} {}", origin.instruction, destination(path, &workdir)?));
                }
                Item::File(_) if path.file_name() == from.file_name() => {
                    files.entry(path.parent().unwrap_or_default()).or_default().push(source);
                }
                Item::File(_) => {
                    let to = destination(path, &workdir)?;
                    lines.push(format!("{} {source} {}", origin.instruction, to.trim_end_matches('/')));
                }
            }
        }
        let named = files.into_iter().map(|(directory, files)| {
            Some(format!("{} {} {}", origin.instruction, files.join(" "), destination(&directory, &workdir)?))
        });
        let mut all: Vec<String> = named.collect::<Option<_>>()?;
        all.append(&mut lines);
        Some(all)
    }
}

/// A directory as a destination.
fn destination(directory: &RootPath, workdir: &RootPath) -> Option<String> {
    let (start, path) = match directory.strip_prefix(workdir) {
        Some(below) => ("./", below),
        None => ("/", directory.clone()),
    };
    Some(if path.is_root() { start.to_owned() } else { format!("{start}{}/", plain(&path)?) })
}

/// A path that a Dockerfile takes as it is.
fn plain(path: &RootPath) -> Option<String> {
    let text = std::str::from_utf8(path.as_bytes()).ok()?;
    let taken = |c: char| c.is_alphanumeric() || "._-+@/=,~%".contains(c);
    (text.chars().all(taken) && !text.starts_with('-')).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{ContentDigest, Entry, Time, TreeBuilder};

    fn tree(paths: &[&str]) -> Tree {
        let mut paths = paths.to_vec();
        paths.sort_unstable();
        let mut builder = TreeBuilder::new();
        for name in paths {
            let path = RootPath::clean(name.trim_end_matches('@')).expect("a path");
            let mut entry = Entry::directory(path, 0o755, 0, 0, Time::default());
            if name.ends_with('@') {
                entry.node = Node::Symlink { target: b"x".to_vec() };
            } else if !name.ends_with('/') {
                entry.node = Node::File { size: 0, content: ContentDigest::of(b""), link: 0 };
            }
            builder.push(entry);
        }
        builder.finish()
    }

    const PROJECT: &[&str] = &[
        "app/",
        "app/.git/",
        "app/.git/HEAD",
        "app/Makefile",
        "app/README",
        "app/a b",
        "app/inc/",
        "app/inc/1.h",
        "app/inc/2.h",
        "app/inc/3.h",
        "app/inc/4.h",
        "app/inc/5.h",
        "app/link@",
        "app/main.c",
        "app/src/",
        "app/src/a.c",
        "app/src/b.c",
        "app/src/deep/",
        "app/src/deep/c.c",
        "app/sub/",
        "app/sub/l@",
        "app/sub/x",
    ];

    fn whole() -> Origin {
        Origin {
            instruction: "COPY".to_owned(),
            workdir: "/app".to_owned(),
            places: vec![("/app".to_owned(), "/".to_owned())],
            directories: vec!["/".to_owned()],
            existed: true,
        }
    }

    fn proposed(used: &[&str], origin: &Origin) -> String {
        let used = used.iter().map(|path| match path.strip_suffix('*') {
            Some(path) => (path.to_owned(), Used::Listed),
            None => ((*path).to_owned(), Used::Touched),
        });
        match propose(&tree(PROJECT), &used.collect(), origin) {
            Proposal::Nothing => "nothing".to_owned(),
            Proposal::All { without_names } if without_names.is_empty() => "all".to_owned(),
            Proposal::All { without_names } => format!("all, or {}", without_names.join("; ")),
            Proposal::Copy { lines } => lines.join("; "),
            Proposal::Unknown { why } => why,
        }
    }

    #[test]
    fn what_was_read_is_copied_and_little_else() {
        let check = |used: &[&str], expected: &str| assert_eq!(proposed(used, &whole()), expected, "{used:?}");
        check(&["/app/main.c"], "COPY main.c ./");
        check(&["/app", "/app/Makefile", "/app/main.c"], "COPY Makefile main.c ./");
        check(&["/app/main.c", "/app/src/a.c"], "COPY main.c ./; COPY src/a.c ./src/");
        check(&["/app/src/deep/c.c"], "COPY src/deep/ ./src/deep/");
        check(&["/app/src*"], "COPY src/ ./src/");
        check(&["/app/src", "/app/main.c"], "COPY main.c ./; COPY src/ ./src/");
        check(&["/app/inc/1.h", "/app/inc/2.h", "/app/inc/3.h"], "COPY inc/1.h inc/2.h inc/3.h ./inc/");
        check(&["/app/inc/1.h", "/app/inc/2.h", "/app/inc/3.h", "/app/inc/4.h"], "COPY inc/ ./inc/");
        check(&["/app/sub/l"], "COPY sub/ ./sub/");
        check(&["/app/link"], "all");
        check(&["/app*"], "all");
        check(&["/app*", "/app/main.c", "/app/src*"], "all, or COPY main.c ./; COPY src/ ./src/");
        check(&["/app*", "/app/main.c", "/app/src", "/app/inc"], "all, or COPY main.c ./");
        check(&["/app/a b"], "a path has characters that a Dockerfile reads in its own way");
        check(&["/app"], "nothing");
        check(&[], "nothing");
        check(&["/*", "/app/main.c"], "COPY main.c ./");
    }

    #[test]
    fn options_and_places_of_the_copy_are_kept() {
        let moved = Origin {
            instruction: "COPY --chown=1:1 --link".to_owned(),
            workdir: "/".to_owned(),
            places: vec![("/app".to_owned(), "/project/x".to_owned())],
            directories: vec!["/project/x".to_owned()],
            existed: false,
        };
        let check = |used: &[&str], expected: &str| assert_eq!(proposed(used, &moved), expected, "{used:?}");
        check(&["/app/main.c"], "COPY --chown=1:1 --link project/x/main.c ./app/");
        check(&["/app/src*"], "COPY --chown=1:1 --link project/x/src/ ./app/src/");
        check(&["/app"], "the directory `/app` has to be there");
    }

    #[test]
    fn what_was_not_copied_as_a_directory_is_not_proposed_as_one() {
        let picked = Origin { directories: Vec::new(), ..whole() };
        let check = |used: &[&str], expected: &str| assert_eq!(proposed(used, &picked), expected, "{used:?}");
        check(&["/app/src*"], "COPY src/a.c src/b.c ./src/; COPY src/deep/c.c ./src/deep/");
        check(&["/app/src"], "the directory `/app/src` has to be there");
        check(&["/app/link"], "`/app/link` can only be copied with its directory");
    }
}
