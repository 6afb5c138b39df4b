//! [`Directory`]: an open directory, whose entries are handled by plain names.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawDir, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmod, chownat,
    fchmod, fchown, fsetxattr, futimens, lgetxattr, linkat, llistxattr, lsetxattr, major, makedev, minor, mkdirat,
    mknodat, openat, readlinkat, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

/// An open directory. Its methods take plain names, one component each, and never follow a link in them, so nothing
/// that is done through it can reach another place.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
}

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// What `stat(2)` says, with the kind apart from the permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Last reading, as far as the file system notes it.
    pub atime: Timespec,
    /// Last modification.
    pub mtime: Timespec,
    /// Last change of content or metadata.
    pub ctime: Timespec,
    /// Device of the file system and number in it: the identity of the file while it exists.
    pub identity: (u64, u64),
    /// How many names it has.
    pub links: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Bytes that it occupies.
    pub allocated: u64,
}

impl From<rustix::fs::Stat> for Stat {
    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        clippy::cast_lossless,
        clippy::useless_conversion,
        reason = "the types of these fields differ between machines"
    )]
    fn from(stat: rustix::fs::Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            _ => Kind::File,
        };
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            atime: Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ },
            mtime: Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ },
            ctime: Timespec { tv_sec: stat.st_ctime as _, tv_nsec: stat.st_ctime_nsec as _ },
            identity: (stat.st_dev as u64, stat.st_ino as u64),
            links: stat.st_nlink as u64,
            device: (major(stat.st_rdev), minor(stat.st_rdev)),
            allocated: stat.st_blocks as u64 * 512,
        }
    }
}

/// Largest value of an extended attribute in bytes, and largest list of names (`xattr(7)`).
const XATTR_MAX: usize = 64 * 1024;

/// How many directories a removal keeps open at most; a process has 1024 descriptors by default.
const LEVELS_OPEN: usize = 64;

impl Directory {
    /// Takes a descriptor of a directory that is open for reading.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Another handle on the same directory.
    ///
    /// # Errors
    /// `EMFILE` when the process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// Another descriptor of the same directory; a lock on one is a lock on both.
    ///
    /// # Errors
    /// `EMFILE` when the process has no descriptor left.
    pub fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Opens a directory in this one.
    ///
    /// # Errors
    /// `ENOTDIR` if it is anything else, links included; otherwise as `openat(2)`.
    pub fn open_dir(&self, name: &[u8]) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { fd: openat(&self.fd, name, flags, Mode::empty())? })
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// `ELOOP` for a link, `EINVAL` for anything else that is not a regular file; otherwise as `openat(2)`.
    pub fn open_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = openat(&self.fd, name, flags, Mode::empty())?;
        let stat = Stat::from(rustix::fs::fstat(&fd)?);
        if stat.kind == Kind::File { Ok(File::from(fd)) } else { Err(Errno::INVAL.into()) }
    }

    /// Makes a regular file, open for reading and writing, with mode `0o600`.
    ///
    /// # Errors
    /// `EEXIST` if there is anything of that name; otherwise as `openat(2)`.
    pub fn create_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))?))
    }

    /// Makes a directory with mode `0o700` and opens it.
    ///
    /// # Errors
    /// As `mkdirat(2)`.
    pub fn create_dir(&self, name: &[u8]) -> io::Result<Self> {
        mkdirat(&self.fd, name, Mode::from_raw_mode(0o700))?;
        self.open_dir(name)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As `symlinkat(2)`.
    pub fn symlink(&self, target: &[u8], name: &[u8]) -> io::Result<()> {
        Ok(symlinkat(target, &self.fd, name)?)
    }

    /// Gives the file `name` another name, `to_name` in `to`. A symbolic link is linked itself.
    ///
    /// # Errors
    /// As `linkat(2)`.
    pub fn hard_link(&self, name: &[u8], to: &Self, to_name: &[u8]) -> io::Result<()> {
        Ok(linkat(&self.fd, name, &to.fd, to_name, AtFlags::empty())?)
    }

    /// Makes a device or a named pipe with mode 0; `numbers` are major and minor number of a device.
    ///
    /// # Errors
    /// `EPERM` for devices in a user namespace (0/0, overlay's whiteout, excepted); `EINVAL` for other kinds;
    /// otherwise as `mknodat(2)`.
    pub fn make_node(&self, name: &[u8], kind: Kind, numbers: (u32, u32)) -> io::Result<()> {
        let kind = match kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
            _ => return Err(Errno::INVAL.into()),
        };
        Ok(mknodat(&self.fd, name, kind, Mode::empty(), makedev(numbers.0, numbers.1))?)
    }

    /// Moves the entry `name` to `to_name` in `to`, replacing what is there.
    ///
    /// # Errors
    /// As `renameat(2)`.
    pub fn rename(&self, name: &[u8], to: &Self, to_name: &[u8]) -> io::Result<()> {
        Ok(renameat(&self.fd, name, &to.fd, to_name)?)
    }

    /// What an entry is.
    ///
    /// # Errors
    /// `ENOENT` if there is none; otherwise as `fstatat(2)`.
    pub fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        Ok(statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?.into())
    }

    /// What this directory itself is.
    ///
    /// # Errors
    /// As `fstat(2)`.
    pub fn stat_self(&self) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(&self.fd)?.into())
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// `EINVAL` if it is none; otherwise as `readlinkat(2)`.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(readlinkat(&self.fd, name, Vec::new())?.into_bytes())
    }

    /// The names in the directory, sorted, without `.` and `..`.
    ///
    /// # Errors
    /// As `getdents64(2)`.
    pub fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        // A descriptor of its own, because reading moves its position.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(&self.fd, ".", flags, Mode::empty())?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 16 * 1024];
        let mut reader = RawDir::new(&fd, &mut buffer);
        let mut names = Vec::new();
        while let Some(entry) = reader.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Extended attributes of an entry whose names `wanted` accepts, sorted. None where the file system has none.
    ///
    /// # Errors
    /// As `llistxattr(2)` and `lgetxattr(2)`.
    pub fn xattrs(&self, name: &[u8], wanted: impl Fn(&[u8]) -> bool) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let path = self.entry_path(name);
        let mut small = [0_u8; 512];
        let mut large = Vec::new();
        let list: &[u8] = match llistxattr(&path, &mut small) {
            Ok(length) => &small[..length],
            Err(Errno::RANGE) => {
                large.resize(XATTR_MAX, 0);
                let length = llistxattr(&path, large.as_mut_slice())?;
                &large[..length]
            }
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut found = Vec::new();
        for key in list.split(|byte| *byte == 0).filter(|key| !key.is_empty() && wanted(key)) {
            if let Some(value) = get_xattr(&path, key)? {
                found.push((key.to_vec(), value));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// One extended attribute of an entry; `None` if it has not got it or must not read it.
    ///
    /// # Errors
    /// As `lgetxattr(2)`.
    pub fn xattr(&self, name: &[u8], key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        get_xattr(&self.entry_path(name), key)
    }

    /// Sets an extended attribute of an entry of any kind.
    ///
    /// # Errors
    /// `EPERM` or `ENOTSUP` where the kind, the file system or the user namespace does not allow it.
    pub fn set_xattr(&self, name: &[u8], key: &[u8], value: &[u8]) -> io::Result<()> {
        Ok(lsetxattr(self.entry_path(name), key, value, XattrFlags::empty())?)
    }

    /// Sets the owner of an entry of any kind. Setuid, setgid and file capabilities go away: set them after this.
    ///
    /// # Errors
    /// `EPERM` without privilege, `EINVAL` for a number that the user namespace does not know.
    pub fn set_owner(&self, name: &[u8], uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        Ok(chownat(&self.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets the permission bits of an entry that is not a link.
    ///
    /// # Errors
    /// `ELOOP` for a link; otherwise as `chmod(2)`.
    pub fn set_mode(&self, name: &[u8], mode: u32) -> io::Result<()> {
        // There is no fchmodat(2) that does not follow before Linux 6.6, and fchmod(2) takes no O_PATH descriptor.
        let fd = openat(&self.fd, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if Stat::from(rustix::fs::fstat(&fd)?).kind == Kind::Symlink {
            return Err(Errno::LOOP.into());
        }
        Ok(chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::from_raw_mode(mode))?)
    }

    /// Sets the time of last modification of an entry of any kind.
    ///
    /// # Errors
    /// As `utimensat(2)`.
    pub fn set_mtime(&self, name: &[u8], mtime: Timespec) -> io::Result<()> {
        Ok(utimensat(&self.fd, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Removes anything but a directory.
    ///
    /// # Errors
    /// As `unlinkat(2)`.
    pub fn remove_file(&self, name: &[u8]) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOTEMPTY` if it is not empty; otherwise as `unlinkat(2)`.
    pub fn remove_dir(&self, name: &[u8]) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes an entry of any kind and everything below it; nothing happens if there is none.
    ///
    /// Goes down by descriptors, so a link in it is removed and never followed, and no depth is too deep.
    ///
    /// # Errors
    /// As `unlinkat(2)`.
    pub fn remove_tree(&self, name: &[u8]) -> io::Result<()> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        self.open_any_dir(name)?.remove_contents()?;
        self.remove_dir(name)
    }

    /// Removes everything in this directory.
    ///
    /// # Errors
    /// As `unlinkat(2)`.
    pub fn remove_contents(&self) -> io::Result<()> {
        // One level is a descriptor, its names still to do, and its name in the level above.
        let mut levels = vec![(self.try_clone()?, self.names()?, Vec::new())];
        let mut moved = 0_u32;
        while let Some((directory, names, own)) = levels.last_mut() {
            let Some(name) = names.pop() else {
                let own = std::mem::take(own);
                levels.pop();
                if let Some((above, ..)) = levels.last() {
                    above.remove_dir(&own)?;
                }
                continue;
            };
            match unlinkat(&directory.fd, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                // A user may own a directory and not be allowed to write in it.
                Err(Errno::ACCESS) if directory.stat_self()?.mode & 0o700 != 0o700 => {
                    fchmod(&directory.fd, Mode::from_raw_mode(0o700))?;
                    names.push(name);
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            let below = directory.open_any_dir(&name)?;
            if levels.len() < LEVELS_OPEN {
                let names = below.names()?;
                levels.push((below, names, name));
            } else {
                // Too many descriptors: the rest of this branch goes to the top and is done from there.
                let top = format!(".rbuild-removed-{moved}").into_bytes();
                moved += 1;
                let (directory, ..) = levels.last().expect("this level");
                match directory.rename(&name, self, &top) {
                    Err(error) if moved > 1000 => return Err(error),
                    Err(_) => levels.last_mut().expect("this level").1.push(name),
                    Ok(()) => levels[0].1.push(top),
                }
            }
        }
        Ok(())
    }

    /// Opens a directory, one of its owner's that he locked himself out of too.
    fn open_any_dir(&self, name: &[u8]) -> io::Result<Self> {
        match self.open_dir(name) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.set_mode(name, 0o700)?;
                self.open_dir(name)
            }
            opened => opened,
        }
    }

    /// A path that means the entry `name` of this directory and nothing else, for calls that have no `dirfd`.
    fn entry_path(&self, name: &[u8]) -> Vec<u8> {
        [format!("/proc/self/fd/{}/", self.fd.as_raw_fd()).as_bytes(), name].concat()
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn get_xattr(path: &[u8], key: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut small = [0_u8; 256];
    match lgetxattr(path, key, &mut small) {
        Ok(length) => Ok(Some(small[..length].to_vec())),
        Err(Errno::RANGE) => {
            let mut large = vec![0; XATTR_MAX];
            let length = lgetxattr(path, key, large.as_mut_slice())?;
            large.truncate(length);
            Ok(Some(large))
        }
        Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Only the modification time: nothing that leaves the engine holds an access time.
fn times(mtime: Timespec) -> Timestamps {
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: mtime }
}

/// Sets the owner of an open file. Setuid, setgid and file capabilities go away: set them after this.
///
/// # Errors
/// As [`Directory::set_owner`].
pub fn set_owner(file: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    Ok(fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

/// Sets the permission bits of an open file.
///
/// # Errors
/// As `fchmod(2)`.
pub fn set_mode(file: impl AsFd, mode: u32) -> io::Result<()> {
    Ok(fchmod(file, Mode::from_raw_mode(mode))?)
}

/// Sets an extended attribute of an open file.
///
/// # Errors
/// As `fsetxattr(2)`.
pub fn set_xattr(file: impl AsFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(fsetxattr(file, key, value, XattrFlags::empty())?)
}

/// Sets the modification time of an open file.
///
/// # Errors
/// As `futimens(3)`.
pub fn set_times(file: impl AsFd, mtime: Timespec) -> io::Result<()> {
    Ok(futimens(file, &times(mtime))?)
}
