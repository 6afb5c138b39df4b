//! [`AtomicFile`]: a file that appears complete or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::ExportError;

/// Writes a file that appears complete or not at all. `work` gets the file, and what makes an error of one.
pub(crate) fn write_file(
    path: &Path,
    work: impl FnOnce(&mut dyn Write, &dyn Fn(io::Error) -> ExportError) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let mut file = AtomicFile::create(path)?;
    work(&mut file, &|source| ExportError::Write { path: path.to_owned(), source })?;
    file.commit()
}

/// A file that is being written beside the place where it will be (invariant C-10).
#[derive(Debug)]
pub(super) struct AtomicFile {
    target: PathBuf,
    state: State,
}

#[derive(Debug)]
enum State {
    Temporary(tempfile::NamedTempFile),
    /// The place is a device or a pipe: there is nothing to replace.
    Direct(File),
}

impl AtomicFile {
    /// Begins a file; nothing is visible under its name yet.
    pub(super) fn create(path: &Path) -> Result<Self, ExportError> {
        let write = |source| ExportError::Write { path: path.to_owned(), source };
        // A link stays a link: what it leads to is replaced.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match fs::metadata(&target) {
            Ok(metadata) if metadata.is_dir() => return Err(ExportError::IsDirectory { path: path.to_owned() }),
            Ok(metadata) if !metadata.is_file() => {
                let file = fs::OpenOptions::new().write(true).open(&target).map_err(write)?;
                return Ok(Self { target, state: State::Direct(file) });
            }
            _ => {}
        }
        let name = target.file_name().ok_or_else(|| ExportError::IsDirectory { path: path.to_owned() })?;
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Names end at 255 bytes; the beginning is enough to see where a leftover belongs.
        let start = &name.as_bytes()[..name.len().min(200)];
        let prefix = format!("{}.tmp-", String::from_utf8_lossy(start));
        let temporary = tempfile::Builder::new()
            .prefix(&prefix)
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(parent)
            .map_err(write)?;
        Ok(Self { target, state: State::Temporary(temporary) })
    }

    /// Gives the file its name, replacing what has it.
    pub(super) fn commit(self) -> Result<(), ExportError> {
        match self.state {
            State::Temporary(file) => file
                .persist(&self.target)
                .map(drop)
                .map_err(|failed| ExportError::Write { path: self.target, source: failed.error }),
            State::Direct(_) => Ok(()),
        }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.state {
            State::Temporary(file) => file.write(bytes),
            State::Direct(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.state {
            State::Temporary(file) => file.flush(),
            State::Direct(file) => file.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_10_the_old_file_stays_until_the_new_one_is_complete() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (path, link) = (dir.path().join("x.tar"), dir.path().join("link"));
        fs::write(&path, "old").expect("written");
        std::os::unix::fs::symlink("x.tar", &link).expect("linked");
        let mut file = AtomicFile::create(&link).expect("begun");
        file.write_all(b"half").expect("written");
        assert_eq!(fs::read(&path).expect("readable"), b"old");
        drop(file);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 2, "nothing is left behind");
        let mut file = AtomicFile::create(&link).expect("begun");
        file.write_all(b"new").expect("written");
        file.commit().expect("renamed");
        assert_eq!(fs::read(&path).expect("readable"), b"new");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    }

    #[test]
    fn directories_and_missing_parents_are_reported() {
        let dir = tempfile::tempdir().expect("temporary directory");
        assert!(matches!(AtomicFile::create(dir.path()), Err(ExportError::IsDirectory { .. })));
        assert!(matches!(AtomicFile::create(&dir.path().join("no/x")), Err(ExportError::Write { .. })));
        AtomicFile::create(Path::new("/dev/null")).expect("opened").commit().expect("nothing to do");
    }
}
