//! From a trace of a command to what it looked at of the files that were copied from a build context.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::build::filesystem::{BuiltLayer, Source};
use crate::build::solve::Job;
use crate::executor::{PathUse, Traced};
use crate::graph::{AddSource, ContextId, CopyOp, Files, Op};
use crate::history::{CopyReads, Origin, READS_VERSION, Reads, Used};
use crate::rootfs::RootPath;
use crate::tree::{Node, Stack, Tree};

/// Most paths of one copy that are recorded.
const MAX_USED: usize = 20_000;

/// Most pairs of places of one copy.
const MAX_PLACES: usize = 16;

/// What a command whose root is `stack` looked at of each copy in it.
pub(super) fn of(job: &Job<'_>, stack: &Stack, traced: &Traced) -> Reads {
    let missing = traced.paths.values().filter(|seen| **seen == PathUse::Missing).count();
    let mut reads = Reads {
        version: READS_VERSION,
        gap: traced.gap.clone(),
        found: traced.paths.len() - missing,
        missing,
        copies: Vec::new(),
    };
    // Those of the base come first.
    let Some(first) = stack.trees().len().checked_sub(job.root.built.len()) else { return reads };
    for (number, layer) in job.root.built.iter().enumerate() {
        let Op::Copy(op) = job.op_of(layer.vertex) else { continue };
        if !matches!(op.from, Files::Context(_)) || layer.tree.is_empty() {
            continue;
        }
        match copy(stack, first + number, traced) {
            Ok((files, read, used)) => {
                let below = Stack::new(stack.trees()[..first + number].to_vec());
                let (result, origin) = (layer.tree.semantic(), origin(op, layer, &below));
                reads.copies.push(CopyReads { result, files, read, used, origin });
            }
            Err(reason) => {
                reads.gap.get_or_insert(reason);
            }
        }
    }
    reads
}

type Counted = (usize, usize, BTreeMap<String, Used>);

/// How many files of a layer are seen, how many of them were looked at, and which paths of it.
fn copy(stack: &Stack, layer: usize, traced: &Traced) -> Result<Counted, String> {
    let tree = &stack.trees()[layer];
    let (mut files, mut read) = (0, 0);
    let mut used = BTreeMap::new();
    // The directory that was renamed and that the walk is in.
    let mut moved: Option<RootPath> = None;
    for entry in tree.iter() {
        let seen = traced.paths.get(&entry.path).copied().filter(|seen| *seen != PathUse::Missing);
        let inside = |directory: &Option<RootPath>| directory.as_ref().is_some_and(|it| entry.path.starts_with(it));
        let is_directory = entry.node.is_directory();
        if !is_directory && entry.node != Node::Whiteout {
            // What a later layer put over it is not this copy's.
            if stack.lookup(&entry.path).is_none_or(|found| found.layer != layer) {
                continue;
            }
            files += 1;
            read += usize::from(seen.is_some() || inside(&moved));
        }
        let Some(seen) = seen else { continue };
        let now = match seen {
            PathUse::Moved => Used::Moved,
            PathUse::Listed if is_directory => Used::Listed,
            _ => Used::Touched,
        };
        if inside(&moved) {
            continue;
        }
        if now == Used::Moved {
            moved = Some(entry.path.clone());
        }
        let name = std::str::from_utf8(entry.path.as_bytes());
        let name = name.map_err(|_| format!("the name of a copied file is no text: {}", entry.path))?;
        if used.len() >= MAX_USED {
            return Err("it looks at too many copied files".to_owned());
        }
        used.insert(format!("/{name}"), now);
    }
    Ok((files, read, used))
}

/// How a copy was made, if all of its files are in the context and it is plain where.
fn origin(op: &CopyOp, layer: &BuiltLayer, below: &Stack) -> Option<Origin> {
    let Source::Files(source) = &layer.source else { return None };
    let mut places = BTreeSet::new();
    for entry in layer.tree.iter().filter(|entry| entry.node.is_file()) {
        places.insert(place(&entry.path, &source.origin(&entry)?));
        if places.len() > MAX_PLACES {
            return None;
        }
    }
    let places: Vec<(RootPath, RootPath)> = places.into_iter().collect();
    let apart = |(at, one): (usize, &(RootPath, RootPath))| {
        places[at + 1..].iter().all(|other| !other.0.starts_with(&one.0) && !one.0.starts_with(&other.0))
    };
    if places.is_empty() || !places.iter().enumerate().all(apart) {
        return None;
    }
    let text = |path: &RootPath| std::str::from_utf8(path.as_bytes()).ok().map(|path| format!("/{path}"));
    let existed = places.iter().all(|(to, _)| {
        let found = below.lookup(to);
        found.is_some_and(|found| found.entry.node.is_directory())
    });
    Some(Origin {
        instruction: instruction(op)?,
        workdir: text(&op.workdir)?,
        directories: directories(op, &layer.tree, &places).iter().map(text).collect::<Option<_>>()?,
        places: places.iter().map(|(to, from)| Some((text(to)?, text(from)?))).collect::<Option<_>>()?,
        existed,
    })
}

/// The two paths without what they have in common at their ends.
fn place(to: &RootPath, from: &RootPath) -> (RootPath, RootPath) {
    let (mut to, mut from) = (to.clone(), from.clone());
    while let (Some(one), Some(other)) = (to.file_name(), from.file_name()) {
        if one != other {
            break;
        }
        (to, from) = (to.parent().unwrap_or_default(), from.parent().unwrap_or_default());
    }
    (to, from)
}

/// The instruction without its paths.
fn instruction(op: &CopyOp) -> Option<String> {
    // An ADD may unpack, or fetch.
    let plain = op.sources.iter().all(|source| matches!(source, AddSource::Path(_)));
    if !plain || op.unpack.is_some() || op.checksum.is_some() {
        return None;
    }
    let mut text = if op.add { "ADD" } else { "COPY" }.to_owned();
    let from = match &op.from {
        Files::Context(ContextId::Named(name)) => Some(name),
        _ => None,
    };
    for (name, value) in [("from", from), ("chown", op.chown.as_ref()), ("chmod", op.chmod.as_ref())] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let _ = write!(text, " --{name}={value}");
        }
    }
    if op.link {
        text.push_str(" --link");
    }
    Some(text)
}

/// Those sources that are directories and copied whole.
fn directories(op: &CopyOp, tree: &Tree, places: &[(RootPath, RootPath)]) -> Vec<RootPath> {
    let paths = op.sources.iter().filter_map(|source| match source {
        AddSource::Path(path) if op.exclude.is_empty() && !path.contains(['*', '?', '[', '\\']) => {
            RootPath::clean(path).ok()
        }
        _ => None,
    });
    // One that has something below it is no file.
    let has_files = |directory: &RootPath| {
        let files = tree.iter().filter(|entry| entry.node.is_file());
        files.into_iter().any(|entry| {
            let place = places.iter().find(|(to, _)| entry.path.starts_with(to));
            let from = place.and_then(|(to, from)| entry.path.moved(to, from));
            from.is_some_and(|from| from != *directory && from.starts_with(directory))
        })
    };
    paths.filter(has_files).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{ContentDigest, Entry, Time, TreeBuilder};

    fn path(text: &str) -> RootPath {
        RootPath::clean(text).expect("a path")
    }

    fn tree(paths: &[&str]) -> Tree {
        let mut builder = TreeBuilder::new();
        for name in paths {
            let mut entry = Entry::directory(path(name), 0o755, 0, 0, Time::default());
            if !name.ends_with('/') {
                entry.node = Node::File { size: 0, content: ContentDigest::of(b""), link: 0 };
            }
            builder.push(entry);
        }
        builder.finish()
    }

    #[test]
    fn what_is_seen_of_a_copy_is_counted() {
        let check = |seen: &[(&str, PathUse)], counts: (usize, usize), used: &[&str]| {
            let copied = tree(&["app/", "app/a", "app/b", "app/sub/", "app/sub/x", "app/sub/y"]);
            let stack = Stack::new(vec![copied, tree(&["app/", "app/b"])]);
            let paths = seen.iter().map(|(name, seen)| (path(name), *seen)).collect();
            let (files, read, found) = copy(&stack, 0, &Traced { paths, gap: None, doubt: None }).expect("few");
            assert_eq!((files, read), counts, "{seen:?}");
            let found: Vec<String> = found.iter().map(|(name, used)| format!("{used:?} {name}")).collect();
            assert_eq!(found, used, "{seen:?}");
        };
        check(&[("app/a", PathUse::Touched), ("bin/sh", PathUse::Touched)], (3, 1), &["Touched /app/a"]);
        // It is that of the layer above.
        check(&[("app/b", PathUse::Touched)], (3, 0), &[]);
        check(&[("app/a", PathUse::Missing), ("app/c", PathUse::Touched)], (3, 0), &[]);
        check(
            &[("app/sub", PathUse::Listed), ("app/sub/x", PathUse::Touched)],
            (3, 1),
            &["Listed /app/sub", "Touched /app/sub/x"],
        );
        check(&[("app/sub", PathUse::Moved)], (3, 2), &["Moved /app/sub"]);
        check(&[("app/sub", PathUse::Touched)], (3, 0), &["Touched /app/sub"]);
    }

    #[test]
    fn places_are_where_paths_differ() {
        let check = |to: &str, from: &str, expected: (&str, &str)| {
            assert_eq!(place(&path(to), &path(from)), (path(expected.0), path(expected.1)), "{to} {from}");
        };
        check("app/src/a.c", "src/a.c", ("app", ""));
        check("app/a.c", "src/a.c", ("app", "src"));
        check("app/a/x", "a/x", ("app", ""));
        check("etc/conf", "conf.prod", ("etc/conf", "conf.prod"));
        check("x", "x", ("", ""));
    }
}
