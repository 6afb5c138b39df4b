//! [`Memo`]: what servers said about addresses.
//!
//! ```text
//! STATE/downloads/<BLAKE3 of the address, or of that and a digest>
//!                                            BLAKE3 of the rest (64 hex digits) newline,
//!                                            what the server said last time, and the digests of the body (JSON)
//! ```

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Fetched;
use crate::content::{ContentError, ContentStore};
use crate::oci::Digest;
use crate::small_file;

/// What is remembered of an address.
pub(super) struct Memo {
    path: PathBuf,
}

impl Memo {
    pub(super) fn of(content: &ContentStore, url: &str) -> Self {
        let name = blake3::hash(url.as_bytes()).to_hex();
        Self { path: directory(content.state()).join(name.as_str()) }
    }

    /// That of one content of an address: it stays known when the address has another by now.
    pub(super) fn of_content(content: &ContentStore, url: &str, digest: &Digest) -> Self {
        Self::of(content, &format!("{url} {digest}"))
    }

    /// What is known, as long as the body is in the store. A damaged memo counts as none.
    pub(super) fn read(&self, content: &ContentStore) -> Result<Option<Fetched>, ContentError> {
        let known = self.peek(content)?;
        if known.is_some() {
            // Whatever decides what is removed from the store sees that it is in use.
            let _ = File::options().append(true).open(&self.path).and_then(|file| file.set_modified(SystemTime::now()));
        }
        Ok(known)
    }

    /// The same for looking only.
    pub(super) fn peek(&self, content: &ContentStore) -> Result<Option<Fetched>, ContentError> {
        let Some(known) = parse(&self.path) else { return Ok(None) };
        Ok(content.has(&known.digest)?.map(|_| known))
    }

    /// A memo only saves a transfer: one that cannot be written is not an error.
    pub(super) fn write(&self, fetched: &Fetched) {
        let body = serde_json::to_vec(fetched).expect("plain data serialises");
        let _ = small_file::write(&self.path, &small_file::sealed(&body));
    }
}

/// The bodies that are remembered, with the last use of each in seconds since 1970.
pub(crate) fn downloads(state: &Path) -> HashMap<Digest, i64> {
    let mut found = HashMap::new();
    for path in fs::read_dir(directory(state)).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if let (Some(known), Ok(file)) = (parse(&path), fs::metadata(&path)) {
            let used = found.entry(known.digest).or_insert(0);
            *used = file.mtime().max(*used);
        }
    }
    found
}

fn directory(state: &Path) -> PathBuf {
    state.join("downloads")
}

fn parse(path: &Path) -> Option<Fetched> {
    serde_json::from_slice(small_file::unsealed(&fs::read(path).ok()?)?).ok()
}
