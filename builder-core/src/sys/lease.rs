//! Whether somebody can write to a file at this moment.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::result;

/// Which signal says that a lease is wanted back (`asm-generic/fcntl.h`; `libc` has no name for it).
const F_SETSIG: libc::c_int = 10;

/// Says whether anybody has a file open for writing, or has it mapped so that writing to memory changes it; `None` if that
/// cannot be told. `file` has to be open for reading only.
///
/// It asks for a read lease, which the kernel grants only if there is no writer, and gives it back at once. Only the owner
/// of a file and who has `CAP_LEASE` may ask, and not every file system knows leases (`fcntl(2)`, `F_SETLEASE`).
pub(crate) fn has_writer(file: BorrowedFd<'_>) -> Option<bool> {
    let fcntl = |command: libc::c_int, argument: libc::c_int| {
        // SAFETY: these commands take a number; the descriptor is open as long as it is borrowed.
        result(unsafe { libc::fcntl(file.as_raw_fd(), command, argument) }.into())
    };
    // Whoever opens the file in between makes the kernel send a signal: one that is ignored unless somebody wants it.
    fcntl(F_SETSIG, libc::SIGURG).ok()?;
    match fcntl(libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(_) => {
            let _ = fcntl(libc::F_SETLEASE, libc::F_UNLCK);
            Some(false)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(true),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn handles_and_mappings_are_writers() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("f");
        std::fs::write(&path, "content").expect("written");
        let asked = || has_writer(File::open(&path).expect("opened").as_fd());
        assert_eq!(asked(), Some(false));
        let reader = File::open(&path).expect("opened");
        assert_eq!(asked(), Some(false));
        let writer = File::options().read(true).write(true).open(&path).expect("opened");
        assert_eq!(asked(), Some(true));
        // SAFETY: a new mapping of a page of a file that is open; it is removed below and not used.
        let mapped = unsafe {
            let (protection, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
            libc::mmap(std::ptr::null_mut(), 4096, protection, shared, writer.as_raw_fd(), 0)
        };
        assert_ne!(mapped, libc::MAP_FAILED);
        drop((reader, writer));
        assert_eq!(asked(), Some(true), "the mapping holds the file");
        // SAFETY: the mapping made above.
        assert_eq!(unsafe { libc::munmap(mapped, 4096) }, 0);
        assert_eq!(asked(), Some(false));
    }
}
