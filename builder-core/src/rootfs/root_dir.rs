//! [`RootDir`]: where paths inside an image become descriptors.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::{Directory, Kind, RootPath, Stat};

/// The root of an image on the host. No path that is opened through it leads outside: `..` stops at it, absolute links
/// start at it, and magic links of procfs are refused (`openat2(2)`).
#[derive(Debug)]
pub struct RootDir {
    root: Directory,
}

/// How often a walk that was disturbed by a rename is tried again.
const TRIES: usize = 64;

impl RootDir {
    /// Opens a directory of the host as a root.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self::from_fd(fd))
    }

    /// Takes a descriptor of a directory as a root; a detached mount will do.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { root: Directory::from_fd(fd) }
    }

    /// Another handle on the same root.
    ///
    /// # Errors
    /// `EMFILE` when the process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { root: self.root.try_clone()? })
    }

    /// The root as a directory.
    pub fn directory(&self) -> &Directory {
        &self.root
    }

    /// Opens a directory; links on the way and at the end are followed inside the root.
    ///
    /// # Errors
    /// As `openat2(2)`; `ENOTDIR` if it is anything else.
    pub fn open_dir(&self, path: &RootPath) -> io::Result<Directory> {
        let fd = self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY, ResolveFlags::IN_ROOT)?;
        Ok(Directory::from_fd(fd))
    }

    /// Opens a directory of a tree whose links were resolved before: a link on the way is an error.
    ///
    /// # Errors
    /// `ELOOP` at a link; otherwise as `openat2(2)`.
    pub fn open_dir_exact(&self, path: &RootPath) -> io::Result<Directory> {
        let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        Ok(Directory::from_fd(self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, flags)?))
    }

    /// Opens anything as a reference only (`O_PATH`); links are followed inside the root.
    ///
    /// # Errors
    /// As `openat2(2)`.
    pub fn open_path(&self, path: &RootPath) -> io::Result<OwnedFd> {
        self.resolve(path, OFlags::PATH, ResolveFlags::IN_ROOT)
    }

    /// Opens a regular file for reading; links are followed inside the root. Does not wait for a pipe, and no device
    /// is opened.
    ///
    /// # Errors
    /// `EINVAL` for anything but a regular file; otherwise as `openat2(2)`.
    pub fn open_file(&self, path: &RootPath) -> io::Result<File> {
        let found = self.open_path(path)?;
        if Stat::from(rustix::fs::fstat(&found)?).kind != Kind::File {
            return Err(Errno::INVAL.into());
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.resolve(path, flags, ResolveFlags::IN_ROOT)?;
        // Somebody may have put a pipe there in between.
        if Stat::from(rustix::fs::fstat(&file)?).kind != Kind::File {
            return Err(Errno::INVAL.into());
        }
        Ok(File::from(file))
    }

    /// Opens a regular file of a tree whose links were resolved before: any link is an error.
    ///
    /// # Errors
    /// `ELOOP` at a link; otherwise as [`RootDir::open_file`].
    pub fn open_file_exact(&self, path: &RootPath) -> io::Result<File> {
        let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, flags)?;
        if Stat::from(rustix::fs::fstat(&file)?).kind != Kind::File {
            return Err(Errno::INVAL.into());
        }
        Ok(File::from(file))
    }

    /// Opens the directory that holds `path`, following links on the way inside the root, and gives the last name.
    ///
    /// # Errors
    /// `EINVAL` for the root itself, which has no name; otherwise as `openat2(2)`.
    pub fn parent<'a>(&self, path: &'a RootPath) -> io::Result<(Directory, &'a [u8])> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL.into()) };
        Ok((self.open_dir(&parent)?, name))
    }

    /// What is at `path`; links on the way are followed, a link at the end is not.
    ///
    /// # Errors
    /// As `fstatat(2)`.
    pub fn stat(&self, path: &RootPath) -> io::Result<Stat> {
        if path.is_root() {
            return self.root.stat_self();
        }
        let (directory, name) = self.parent(path)?;
        directory.stat(name)
    }

    /// Target of a symbolic link; links on the way to it are followed.
    ///
    /// # Errors
    /// `EINVAL` if it is none.
    pub fn read_link(&self, path: &RootPath) -> io::Result<Vec<u8>> {
        let (directory, name) = self.parent(path)?;
        directory.read_link(name)
    }

    /// Makes a regular file, see [`Directory::create_file`]; links on the way are followed.
    ///
    /// # Errors
    /// `EEXIST` if there is anything of that name, a link included.
    pub fn create_file(&self, path: &RootPath) -> io::Result<File> {
        let (directory, name) = self.parent(path)?;
        directory.create_file(name)
    }

    /// Opens a directory and makes it, and those above it, with `mode` where they are missing.
    ///
    /// # Errors
    /// `ENOTDIR` if anything but a directory is in the way; a link that leads nowhere is one.
    pub fn create_dir_all(&self, path: &RootPath, mode: u32) -> io::Result<Directory> {
        match self.open_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return self.open_dir(path) };
        let above = self.create_dir_all(&parent, mode)?;
        match above.create_dir(name) {
            Ok(made) => {
                super::set_mode(&made, mode)?;
                Ok(made)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => above.open_dir(name),
            Err(error) => Err(error),
        }
    }

    /// Removes what is at `path` and everything below it; nothing happens if there is nothing.
    ///
    /// # Errors
    /// As [`Directory::remove_tree`].
    pub fn remove_tree(&self, path: &RootPath) -> io::Result<()> {
        match self.parent(path) {
            Ok((directory, name)) => directory.remove_tree(name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn resolve(&self, path: &RootPath, flags: OFlags, resolve: ResolveFlags) -> io::Result<OwnedFd> {
        let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            match openat2(&self.root, path.as_relative(), flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if tries < TRIES => tries += 1,
                opened => return Ok(opened?),
            }
        }
    }
}

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}
