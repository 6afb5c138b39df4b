//! Files of the user that this program changes: [`replace`].

use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr};

/// Rights of a file that was not there, less those that the umask takes.
const NEW: u32 = 0o644;

/// Most bytes of the names of a file's attributes, and of one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MAX_ATTRIBUTE: usize = 64 << 10;

/// Puts `bytes` into the place of a file, or makes it. Whoever reads it meanwhile, or after a crash, sees the old file or the
/// new one. Owner, rights, access lists and the links that lead to it stay as they are.
///
/// # Errors
/// Those of the file system; the old file is there then.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Through links, as an editor does.
    let target = match path.canonicalize() {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let before = match File::open(&target) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut builder = tempfile::Builder::new();
    let new = builder.prefix(".rbuild-").permissions(std::fs::Permissions::from_mode(NEW));
    let mut made = new.tempfile_in(directory)?;
    made.write_all(bytes)?;
    if let Some(before) = before {
        keep(&before, &before.metadata()?, made.as_file())?;
    }
    made.as_file().sync_all()?;
    made.persist(&target).map_err(|error| error.error)?;
    // What is said to be written is there after a crash; not every file system can do that for directories.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

/// Gives a new file what the old one has but for its content.
fn keep(before: &File, found: &Metadata, made: &File) -> io::Result<()> {
    // Who may not give a file away has made one of his own. Rights go after the owner, who takes some of them away.
    let _ = fchown(made, Some(found.uid()), Some(found.gid()));
    copy_attributes(before, made);
    made.set_permissions(found.permissions())
}

/// Access lists and other attributes, as far as they may be copied.
fn copy_attributes(before: &File, made: &File) {
    let mut names = vec![0; MAX_ATTRIBUTE];
    let Ok(length) = flistxattr(before, &mut names[..]) else { return };
    let mut value = vec![0; MAX_ATTRIBUTE];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if let Ok(length) = fgetxattr(before, name, &mut value[..]) {
            let _ = fsetxattr(made, name, &value[..length], XattrFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::process::geteuid;

    use super::*;

    #[test]
    fn owner_rights_attributes_and_links_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        std::fs::write(&file, "old").expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o646)).expect("changed");
        let has_owner = geteuid().is_root();
        if has_owner {
            std::os::unix::fs::chown(&file, Some(1234), Some(4321)).expect("changed");
        }
        let opened = File::open(&file).expect("opened");
        let has_attributes = fsetxattr(&opened, "user.note", b"mine", XattrFlags::empty()).is_ok();
        symlink("file", &link).expect("linked");

        replace(&link, b"new").expect("replaced");
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).expect("read"), b"new");
        let found = file.metadata().expect("found");
        assert_eq!(found.mode() & 0o7777, 0o646);
        if has_owner {
            assert_eq!((found.uid(), found.gid()), (1234, 4321));
        }
        if has_attributes {
            let (mut value, opened) = ([0; 16], File::open(&file).expect("opened"));
            let length = fgetxattr(&opened, "user.note", &mut value[..]).expect("kept");
            assert_eq!(&value[..length], b"mine");
        }
        // Nothing is left beside it.
        assert_eq!(std::fs::read_dir(directory.path()).expect("listed").count(), 2);
    }

    #[test]
    fn what_is_not_there_is_made_and_what_is_no_file_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        replace(&file, b"new").expect("made");
        assert_eq!(std::fs::read(&file).expect("read"), b"new");
        assert_eq!(file.metadata().expect("found").mode() & 0o7022, 0, "no more rights than others' new files");
        let inside = directory.path().join("none").join("file");
        assert_eq!(replace(&inside, b"new").expect_err("no directory").kind(), io::ErrorKind::NotFound);
        assert!(replace(directory.path(), b"new").is_err());
    }
}
