//! [`Memo`]: what was made of the same files before, so that nothing has to be made of them to know it.
//!
//! One file a context and kind of result, `STATE/contexts/<BLAKE3 of its canonical path>.<ending>`, version 1:
//!
//! ```text
//! magic (8)
//! digest of all that decides the result (32)  result       × n, oldest first
//! BLAKE3 of everything before (32)
//! ```
//!
//! The results of copies are in `.memo`, "rbmemo1\n", each as its semantic digest (32). For those of whole directories see
//! [`Base`](super::Base).
//!
//! A damaged, foreign or missing file is an empty memo. It only saves time: it is not synced, and who writes last wins.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::reader::Reader;
use crate::small_file;
use crate::tree::SemanticDigest;

/// What is remembered.
pub(super) trait Remembered: Clone + PartialEq {
    /// What its files begin with.
    const MAGIC: &[u8; 8];
    /// What the names of its files end with.
    const ENDING: &str;
    /// How many are kept for a context.
    const MOST: usize;

    fn encode(&self, bytes: &mut Vec<u8>);

    /// Takes one off the bytes; `None` if they do not begin with one.
    fn parse(bytes: &mut Reader<'_>) -> Option<Self>;
}

impl Remembered for SemanticDigest {
    const MAGIC: &[u8; 8] = b"rbmemo1\n";
    const ENDING: &str = "memo";
    /// More than a Dockerfile has steps. Each is 64 bytes.
    const MOST: usize = 1000;

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_bytes());
    }

    fn parse(bytes: &mut Reader<'_>) -> Option<Self> {
        bytes.array().map(Self::new)
    }
}

/// The memo of one context.
#[derive(Debug)]
pub(super) struct Memo<T> {
    file: PathBuf,
    loaded: Option<Vec<([u8; 32], T)>>,
    changed: bool,
}

impl<T: Remembered> Memo<T> {
    /// Names the memo of a context; nothing is read yet.
    pub(super) fn new(state: &Path, canonical_root: &Path) -> Self {
        let file = super::place(state, canonical_root).with_extension(T::ENDING);
        Self { file, loaded: None, changed: false }
    }

    pub(super) fn get(&mut self, inputs: &[u8; 32]) -> Option<T> {
        self.loaded().iter().rev().find(|(known, _)| known == inputs).map(|(_, result)| result.clone())
    }

    pub(super) fn put(&mut self, inputs: [u8; 32], result: T) {
        if self.get(&inputs).as_ref() == Some(&result) {
            return;
        }
        let loaded = self.loaded();
        loaded.retain(|(known, _)| *known != inputs);
        loaded.push((inputs, result));
        let surplus = loaded.len().saturating_sub(T::MOST);
        loaded.drain(..surplus);
        self.changed = true;
    }

    /// Writes the file, if there is something new.
    pub(super) fn save(&mut self) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        let mut bytes = T::MAGIC.to_vec();
        for (inputs, result) in self.loaded() {
            bytes.extend_from_slice(inputs);
            result.encode(&mut bytes);
        }
        let checksum = *blake3::hash(&bytes).as_bytes();
        bytes.extend_from_slice(&checksum);
        small_file::write(&self.file, &bytes)?;
        self.changed = false;
        Ok(())
    }

    fn loaded(&mut self) -> &mut Vec<([u8; 32], T)> {
        self.loaded.get_or_insert_with(|| {
            let found = fs::read(&self.file).ok().and_then(|bytes| parse(&bytes));
            if found.is_some() {
                small_file::mark_used(&self.file);
            }
            found.unwrap_or_default()
        })
    }
}

fn parse<T: Remembered>(bytes: &[u8]) -> Option<Vec<([u8; 32], T)>> {
    let (body, checksum) = bytes.split_last_chunk::<32>()?;
    if blake3::hash(body).as_bytes() != checksum {
        return None;
    }
    let mut rest = Reader { bytes: body.strip_prefix(T::MAGIC)? };
    let mut results = Vec::new();
    while !rest.bytes.is_empty() {
        results.push((rest.array()?, T::parse(&mut rest)?));
    }
    Some(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: usize) -> [u8; 32] {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    #[test]
    fn the_newest_results_come_back_and_damaged_ones_do_not() {
        let state = tempfile::tempdir().expect("temporary directory");
        let open = || Memo::<SemanticDigest>::new(state.path(), Path::new("/context"));
        let mut memo = open();
        memo.save().expect("nothing to do");
        assert!(!state.path().join("contexts").exists());
        let result = |number| SemanticDigest::new(digest(number + 5000));
        for number in 0..=SemanticDigest::MOST {
            memo.put(digest(number), result(number));
        }
        memo.put(digest(7), result(8));
        memo.save().expect("written");
        let mut again = open();
        for (number, expected) in [
            (0, None),
            (1, Some(result(1))),
            (7, Some(result(8))),
            (SemanticDigest::MOST, Some(result(SemanticDigest::MOST))),
        ] {
            assert_eq!(again.get(&digest(number)), expected, "{number}");
        }
        assert_eq!(Memo::<SemanticDigest>::new(state.path(), Path::new("/other")).get(&digest(1)), None);

        let good = fs::read(&memo.file).expect("read");
        for damage in [0, 9, good.len() - 1] {
            let mut bad = good.clone();
            bad[damage] ^= 1;
            fs::write(&memo.file, bad).expect("written");
            assert_eq!(open().get(&digest(1)), None, "byte {damage}");
        }
        fs::write(&memo.file, &good[..good.len() - 33]).expect("written");
        assert_eq!(open().get(&digest(1)), None);
    }
}
