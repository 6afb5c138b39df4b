//! [`Outline`]: a survey as a digest of each directory, so that the next one can tell which directories are as they were.
//!
//! ```text
//! Survey ─ outline ─▶ Outline ─ BuildContext::remember_base      with what was made of exactly these files
//! Survey ─ read_changes(base) ─▶ Changes { the entries of directories that differ; these directories }
//! ```

use std::collections::{BTreeMap, HashSet};

use super::survey::{Directory, Seen, Survey};
use super::{BuildContext, ContextError, Match};
use crate::rootfs::RootPath;

/// One directory of a context with everything below it, each directory in it as a digest.
///
/// An equal digest of a directory says that the entries right in it are the same, times too, if what was made of the first
/// was [settled](super::Reading::settled). Their extended attributes are in it, too, but for those of directories, which are
/// in the digests of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    pub(super) directories: BTreeMap<RootPath, [u8; 32]>,
}

/// What of a survey is not as in an outline.
#[derive(Debug)]
pub struct Changes {
    /// The match with entries that may differ: its root, those right in directories that differ, and such directories.
    pub found: Match,
    /// Directories of now and then that differ: nothing right in them is as it was.
    pub renewed: HashSet<RootPath>,
    /// As [`Reading::settled`](super::Reading::settled).
    pub settled: bool,
}

impl Survey {
    /// Its directories; `None` if there is more to it than one directory of which everything is wanted and no file has
    /// several names.
    pub fn outline(&self) -> Option<Outline> {
        let [seen] = self.matches.as_slice() else { return None };
        let directories = seen.directories.get(1..).filter(|directories| !directories.is_empty())?;
        if !seen.is_plain() || directories.iter().any(|directory| directory.sealed.has_links) {
            return None;
        }
        let directories =
            directories.iter().map(|directory| (directory.path.clone(), directory.sealed.digest_with_times));
        Some(Outline { directories: directories.collect() })
    }

    /// How many entries there are.
    pub fn count(&self) -> usize {
        self.matches.iter().flat_map(|seen| &seen.directories).map(|directory| directory.entries.len()).sum()
    }

    /// What it is of, as far as that decides what is made of its entries: what matched, and which rights count.
    pub fn subject(&self) -> String {
        let one = |seen: &Seen| format!("{} {}", seen.name.escape_ascii(), seen.root.as_bytes().escape_ascii());
        let matches: Vec<String> = self.matches.iter().map(one).collect();
        format!("{} {matches:?}", self.mode)
    }
}

impl BuildContext {
    /// Reads what is not as in `base`. `now` is the outline of the survey. `None` if that is most of it, or if a file turns
    /// out to have several names.
    ///
    /// # Errors
    /// As [`BuildContext::select`].
    pub fn read_changes(
        &self,
        survey: &Survey,
        base: &Outline,
        now: &Outline,
    ) -> Result<Option<Changes>, ContextError> {
        let [seen] = survey.matches.as_slice() else { return Ok(None) };
        let differs = |path: &RootPath| base.directories.get(path) != now.directories.get(path);
        // The one above the match has only the match.
        let is_anew = |(slot, directory): (usize, &Directory)| slot == 0 || differs(&directory.path);
        let order = seen.order_of(&seen.directories.iter().enumerate().map(is_anew).collect::<Vec<_>>());
        if order.len() > survey.count() / 2 {
            return Ok(None);
        }
        let (found, settled) = self.read_entries(seen, order)?;
        if found.entries.iter().any(|selected| selected.entry.node.is_linked()) {
            return Ok(None);
        }
        let gone = base.directories.keys().filter(|path| !now.directories.contains_key(*path));
        let changed = now.directories.keys().filter(|path| differs(path));
        let renewed = gone.chain(changed).cloned().collect();
        Ok(Some(Changes { found, renewed, settled }))
    }
}
