//! [`RootPath`]: a path inside an image.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path relative to the root of an image: components joined by `/`, none of them empty, `.` or `..`; the root itself
/// has no component. Bytes need not be UTF-8.
///
/// The order is that of a walk: a directory comes right before everything below it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct RootPath {
    bytes: Vec<u8>,
}

/// The bytes are not a path inside an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseRootPathError {
    /// NUL ends a path in every system call.
    #[error("path `{0}` holds a NUL byte")]
    Nul(String),
    /// Longer than the kernel takes.
    #[error("path of {0} bytes is longer than 4095")]
    TooLong(usize),
}

/// `PATH_MAX` of Linux without the NUL.
const MAX_LENGTH: usize = 4095;

impl RootPath {
    /// The root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Cleans `bytes` lexically: leading, trailing and double slashes and `.` go away, `..` removes a component and
    /// stops at the root.
    ///
    /// # Errors
    /// If a NUL is in it or it is longer than `PATH_MAX`.
    pub fn clean(bytes: impl AsRef<[u8]>) -> Result<Self, ParseRootPathError> {
        Self::root().join(bytes)
    }

    /// Goes from this directory to `bytes`, cleaned lexically; an absolute path starts at the root.
    ///
    /// # Errors
    /// If a NUL is in it or the result is longer than `PATH_MAX`.
    pub fn join(&self, bytes: impl AsRef<[u8]>) -> Result<Self, ParseRootPathError> {
        let bytes = bytes.as_ref();
        if bytes.contains(&0) {
            return Err(ParseRootPathError::Nul(String::from_utf8_lossy(bytes).into_owned()));
        }
        let mut path = if bytes.starts_with(b"/") { Vec::new() } else { self.bytes.clone() };
        for component in bytes.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
                name => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(name);
                }
            }
        }
        if path.len() > MAX_LENGTH {
            return Err(ParseRootPathError::TooLong(path.len()));
        }
        Ok(Self { bytes: path })
    }

    /// Takes bytes that are clean already, as they come from a stored tree.
    ///
    /// Returns `None` if they are not.
    pub fn from_clean(bytes: &[u8]) -> Option<Self> {
        let clean = |component: &[u8]| !matches!(component, b"" | b"." | b"..") && !component.contains(&0);
        let valid = bytes.is_empty() || bytes.split(|byte| *byte == b'/').all(clean);
        (valid && bytes.len() <= MAX_LENGTH).then(|| Self { bytes: bytes.to_vec() })
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The path relative to wherever the root is on the host: `.` for the root. Opening it there follows links, so use
    /// it only for trees that nobody else can write, or through `RootDir`.
    pub fn as_relative(&self) -> &Path {
        Path::new(OsStr::from_bytes(if self.bytes.is_empty() { b"." } else { &self.bytes }))
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The directory that holds it; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(Self { bytes: self.bytes[..end].to_vec() })
    }

    /// The last component; `None` for the root.
    pub fn file_name(&self) -> Option<&[u8]> {
        if self.is_root() {
            return None;
        }
        self.bytes.rsplit(|byte| *byte == b'/').next()
    }

    /// The components from the top.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.bytes.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
    }

    /// Every directory above it, the root first, itself not.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        let cuts = self.bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let root = (!self.is_root()).then_some(0);
        root.into_iter().chain(cuts).map(|end| Self { bytes: self.bytes[..end].to_vec() })
    }

    /// Whether `self` is `directory` or below it.
    pub fn starts_with(&self, directory: &Self) -> bool {
        self.below(directory).is_some()
    }

    /// The rest of the path below `directory`; the root path if they are equal, `None` if it is not below.
    pub fn strip_prefix(&self, directory: &Self) -> Option<Self> {
        self.below(directory).map(|rest| Self { bytes: rest.to_vec() })
    }

    /// The path that has the place below `to` that this one has below `from`; `None` if it is not below `from`.
    pub fn moved(&self, from: &Self, to: &Self) -> Option<Self> {
        let rest = self.below(from)?;
        let mut bytes = Vec::with_capacity(to.bytes.len() + 1 + rest.len());
        bytes.extend_from_slice(&to.bytes);
        if !bytes.is_empty() && !rest.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(rest);
        Some(Self { bytes })
    }

    fn below(&self, directory: &Self) -> Option<&[u8]> {
        if directory.is_root() {
            return Some(&self.bytes);
        }
        let rest = self.bytes.strip_prefix(directory.bytes.as_slice())?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"/") }
    }

    /// The entry `name` of this directory. `name` is one plain component.
    #[must_use]
    pub fn child(&self, name: &[u8]) -> Self {
        debug_assert!(
            !name.is_empty() && !name.contains(&b'/') && name != b"." && name != b"..",
            "one plain component"
        );
        let mut bytes = Vec::with_capacity(self.bytes.len() + 1 + name.len());
        bytes.extend_from_slice(&self.bytes);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self { bytes }
    }

    /// `below` as seen from this directory.
    #[must_use]
    pub fn append(&self, below: &Self) -> Self {
        match (self.is_root(), below.is_root()) {
            (true, _) => below.clone(),
            (_, true) => self.clone(),
            _ => Self { bytes: [&self.bytes[..], b"/", &below.bytes].concat() },
        }
    }
}

/// Compares paths in the order of a walk: `/` sorts before every other byte, so `a/b` comes before `a-b`.
pub(crate) fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
    let common = a.iter().zip(b).position(|(a, b)| a != b);
    match common {
        Some(at) => rank(&a[at]).cmp(&rank(&b[at])),
        None => a.len().cmp(&b.len()),
    }
}

impl PartialOrd for RootPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RootPath {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_paths(&self.bytes, &other.bytes)
    }
}

impl Borrow<[u8]> for RootPath {
    fn borrow(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Display for RootPath {
    /// Writes an absolute path, invalid UTF-8 replaced: for people only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.bytes))
    }
}

impl fmt::Debug for RootPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"/{}\"", self.bytes.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RootPath {
        RootPath::clean(text).expect("clean")
    }

    #[test]
    fn paths_are_cleaned_and_never_leave_the_root() {
        for (input, expected) in [
            ("/", "/"),
            ("", "/"),
            ("a//b/./c/", "/a/b/c"),
            ("../../etc", "/etc"),
            ("/a/../../b", "/b"),
            ("/a/b/../c", "/a/c"),
            ("..", "/"),
        ] {
            assert_eq!(path(input).to_string(), expected);
        }
        assert_eq!(path("/w/x").join("../y").expect("joined"), path("/w/y"));
        assert_eq!(path("/w").join("/y").expect("joined"), path("/y"));
        assert!(RootPath::clean("a\0b").is_err());
        assert!(RootPath::clean("a/".repeat(3000)).is_err());
        assert_eq!(RootPath::from_clean(b"a/../b"), None);
    }

    #[test]
    fn parts_of_a_path() {
        let p = path("/a/b/c");
        assert_eq!(p.parent(), Some(path("/a/b")));
        assert_eq!(path("/a").parent(), Some(RootPath::root()));
        assert_eq!(RootPath::root().parent(), None);
        assert_eq!(p.file_name(), Some(&b"c"[..]));
        assert_eq!(p.ancestors().collect::<Vec<_>>(), [path("/"), path("/a"), path("/a/b")]);
        assert_eq!(RootPath::root().ancestors().count(), 0);
        assert_eq!(p.strip_prefix(&path("/a")), Some(path("/b/c")));
        assert_eq!(path("/ab").strip_prefix(&path("/a")), None);
        assert!(p.starts_with(&RootPath::root()) && p.starts_with(&p));
        assert_eq!(path("/a").append(&path("/b/c")), p);
        assert_eq!(RootPath::root().child(b"a"), path("/a"));
    }

    #[test]
    fn a_directory_comes_right_before_what_is_below_it() {
        let mut paths = ["/a-b", "/a/b", "/a", "/a/b/c", "/b", "/"].map(path);
        paths.sort();
        assert_eq!(paths.map(|p| p.to_string()), ["/", "/a", "/a/b", "/a/b/c", "/a-b", "/b"]);
    }
}
