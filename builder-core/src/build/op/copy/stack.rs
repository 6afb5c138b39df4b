//! [`select`]: what a source of `COPY --from` stands for, answered from trees.

use std::collections::HashMap;

use super::CopyError;
use crate::context::{Compiled, Filter, FilterAbove, Match, Request, Selected};
use crate::diagnostic::nearest;
use crate::rootfs::RootPath;
use crate::tree::{Entry, Found, Node, Stack, Time};

/// Finds the matches of a source in a root filesystem. Owners stay as they are.
///
/// # Errors
/// [`CopyError::NotFound`] for a path without patterns that is not there; a pattern may match nothing.
pub fn select(stack: &Stack, request: &Request<'_>) -> Result<Vec<Match>, CopyError> {
    let compiled = request.compile()?;
    let base = resolve(stack, &compiled.literal)?;
    if compiled.globs.is_empty() {
        let name = compiled.literal.file_name().unwrap_or_default().to_vec();
        let found = collect(stack, base, name, &compiled.filter);
        check_required(stack, &compiled, &found)?;
        return Ok(vec![found]);
    }
    let mut paths = vec![base];
    for glob in &compiled.globs {
        let children = paths.iter().flat_map(|path| stack.children(path)).map(|found| found.entry.path);
        paths = children.filter(|path| path.file_name().is_some_and(|name| glob.matches(name))).collect();
    }
    let matches = paths.into_iter().map(|path| {
        let name = path.file_name().unwrap_or_default().to_vec();
        Ok(collect(stack, resolve(stack, &path)?, name, &compiled.filter))
    });
    matches.collect()
}

fn resolve(stack: &Stack, path: &RootPath) -> Result<RootPath, CopyError> {
    let resolved = stack.resolve(path, true)?;
    if stack.lookup(&resolved).is_some() { Ok(resolved) } else { Err(not_found(stack, path, &resolved)) }
}

fn not_found(stack: &Stack, path: &RootPath, resolved: &RootPath) -> CopyError {
    let missing = resolved.ancestors().chain([resolved.clone()]).find(|path| stack.lookup(path).is_none());
    let nearby = missing.and_then(|missing| {
        let parent = missing.parent()?;
        let children = stack.children(&parent);
        let names = children.iter().filter_map(|found| std::str::from_utf8(found.entry.path.file_name()?).ok());
        let wanted = String::from_utf8_lossy(missing.file_name()?).into_owned();
        nearest(&wanted, names).map(|name| parent.child(name.as_bytes()))
    });
    CopyError::NotFound { path: path.clone(), nearest: nearby }
}

fn collect(stack: &Stack, root: RootPath, name: Vec<u8>, filter: &Filter) -> Match {
    let mut found = stack.select(&root);
    if root.is_root() && found.first().is_none_or(|first| !first.entry.path.is_root()) {
        // Most trees have no entry for the root.
        let entry = Entry::directory(RootPath::root(), 0o755, 0, 0, Time::default());
        found.insert(0, Found { layer: 0, entry });
    }
    number_links(&mut found);
    let entries = if filter.is_empty() {
        found.into_iter().map(|Found { layer, entry }| Selected { entry, included: true, layer }).collect()
    } else {
        filtered(found, &root, filter)
    };
    Match { name, root, entries }
}

/// Numbers of link groups are unique within one layer only.
fn number_links(found: &mut [Found]) {
    let mut numbers: HashMap<(usize, u32), u32> = HashMap::new();
    for Found { layer, entry } in found {
        if let Node::File { link, .. } = &mut entry.node
            && *link != 0
        {
            let next = u32::try_from(numbers.len()).expect("fewer than 2^32 files") + 1;
            *link = *numbers.entry((*layer, *link)).or_insert(next);
        }
    }
}

/// Applies the filter; a directory that it does not take stays where something below it is taken.
fn filtered(found: Vec<Found>, root: &RootPath, filter: &Filter) -> Vec<Selected> {
    let below = |path: &RootPath| path.strip_prefix(root).expect("it was selected below the root");
    let mut kept: Vec<Selected> = Vec::new();
    // The open directories: path, state for what is in them if they are entered, and the item if it is not kept yet.
    let mut open: Vec<(RootPath, Option<FilterAbove>, Option<Selected>)> = Vec::new();
    for Found { layer, entry } in found {
        while open.last().is_some_and(|(directory, ..)| !entry.path.starts_with(directory)) {
            open.pop();
        }
        let is_directory = entry.node.is_directory();
        let (taken, inside) = match open.last() {
            None => (true, Some(filter.root())),
            Some((_, None, _)) => (false, None),
            Some((_, Some(above), _)) if is_directory => filter.enter(above, below(&entry.path).as_bytes()),
            Some((_, Some(above), _)) => (filter.takes(above, below(&entry.path).as_bytes()), None),
        };
        let path = entry.path.clone();
        let selected = Selected { entry, included: taken, layer };
        if taken {
            kept.extend(open.iter_mut().filter_map(|(_, _, waiting)| waiting.take()));
            kept.push(selected);
            if is_directory {
                open.push((path, inside, None));
            }
        } else if is_directory {
            open.push((path, inside, Some(selected)));
        }
    }
    kept
}

/// With `--parents`, a path without patterns has to be there.
fn check_required(stack: &Stack, compiled: &Compiled, found: &Match) -> Result<(), CopyError> {
    let Some(required) = &compiled.required else { return Ok(()) };
    let path = found.root.append(required);
    if found.entries.iter().any(|selected| selected.entry.path == path) {
        return Ok(());
    }
    resolve(stack, &path).map(|_| ())
}
