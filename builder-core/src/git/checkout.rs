//! A commit as files.

use std::path::Path;

use rustix::fs::Timespec;

use super::address::Mtime;
use super::command::Call;
use super::error::GitError;
use super::fetch::{Commit, Mirror};
use super::resolve::Resolved;
use crate::rootfs::{Directory, Kind, RootDir, RootPath, set_times};

/// What a checkout has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) subdir: String,
    pub(super) keep_git_dir: bool,
    pub(super) submodules: bool,
    pub(super) mtime: Mtime,
}

impl Mirror<'_> {
    /// Writes the files of a commit into an empty directory.
    ///
    /// Modes are 0644 and 0755, whatever the umask, and everything belongs to root; files that a filter would make
    /// (LFS) stay as they are stored.
    pub(super) fn check_out(
        &self,
        resolved: &Resolved,
        commit: &Commit,
        shape: &Shape,
        into: &Path,
    ) -> Result<(), GitError> {
        let modules = format!("{}:.gitmodules", commit.id);
        let has_submodules = shape.submodules && self.local("read", &["cat-file", "-e", &modules]).is_ok();
        // Its name is drawn, so that nothing in the repository can have it.
        let whole = tempfile::Builder::new().prefix(".whole-").tempdir_in(into).map_err(GitError::access(into))?.keep();
        if shape.keep_git_dir || has_submodules {
            self.clone_into(resolved, commit, &whole)?;
        } else {
            let index = tempfile::NamedTempFile::new_in(&self.directory).map_err(GitError::access(&self.directory))?;
            self.write_files(commit, &self.directory, index.path(), &whole)?;
        }
        if has_submodules {
            let arguments = ["submodule", "update", "--init", "--recursive", "--depth=1", "--quiet"];
            let call = Call { network: true, lock: Some(self.lock), ..Call::new("fetch submodules of", &arguments) };
            self.git.run(&Call { work_tree: Some(&whole), ..call })?;
        }
        self.finish(commit, shape, &whole, into)
    }

    /// Writes the files of a commit, and an index that says nothing of the disk, so that it depends on the commit only.
    fn write_files(&self, commit: &Commit, directory: &Path, index: &Path, tree: &Path) -> Result<(), GitError> {
        for arguments in [&["read-tree", &commit.id][..], &["checkout-index", "--all", "--force", "--quiet"]] {
            let call = Call { lock: Some(self.lock), ..Call::new("check out", arguments) };
            self.git.run(&Call { directory: Some(directory), work_tree: Some(tree), index: Some(index), ..call })?;
        }
        Ok(())
    }

    /// A repository with this one commit, whose origin is the address, and its files.
    fn clone_into(&self, resolved: &Resolved, commit: &Commit, whole: &Path) -> Result<(), GitError> {
        let directory = whole.join(".git");
        std::fs::create_dir(&directory).map_err(GitError::access(&directory))?;
        let run = |arguments: &[&str]| {
            let call = Call { lock: Some(self.lock), directory: Some(&directory), ..Call::new("check out", arguments) };
            self.git.run(&call)
        };
        let format = if self.sha256 { "--object-format=sha256" } else { "--object-format=sha1" };
        run(&["init", "--quiet", format])?;
        run(&["config", "core.bare", "false"])?;
        let shared = format!("refs/rbuild/{}", resolved.object);
        self.local("check out", &["update-ref", &shared, &resolved.object])?;
        let name = resolved.name.clone().unwrap_or_else(|| "refs/rbuild/commit".to_owned());
        // Through the transport, not as a copy of files: git then checks what it gets.
        let from = format!("file://{}", self.directory.display());
        run(&[
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--depth=1",
            "--update-head-ok",
            &from,
            &format!("+{shared}:{name}"),
        ])?;
        run(&["update-ref", "--no-deref", "HEAD", &commit.id])?;
        if resolved.name.is_none() {
            run(&["update-ref", "-d", &name])?;
        }
        run(&["remote", "add", "origin", self.git.address.remote()])?;
        self.write_files(commit, &directory, &directory.join("index"), whole)
    }

    /// Takes the part that is wanted, and gives it modes and times.
    fn finish(&self, commit: &Commit, shape: &Shape, path: &Path, into: &Path) -> Result<(), GitError> {
        let io = || GitError::access(into);
        let top = RootDir::open(into).map_err(io())?;
        let top = top.directory();
        let whole = RootDir::open(path).map_err(io())?;
        let wrong = |source| GitError::Subdir {
            address: self.git.address.remote().to_owned(),
            subdir: shape.subdir.clone(),
            source,
        };
        let subdir = RootPath::clean(&shape.subdir).map_err(|error| wrong(std::io::Error::other(error)))?;
        // Links on the way are followed inside the checkout, never out of it.
        let wanted = whole.open_dir(&subdir).map_err(wrong)?;
        if !shape.keep_git_dir && whole.directory().stat(b".git").is_ok() {
            remove_git_files(&wanted).map_err(io())?;
        }
        let names = wanted.names().map_err(io())?;
        names.iter().try_for_each(|name| wanted.rename(name, top, name)).map_err(io())?;
        top.remove_tree(path.file_name().unwrap_or_default().as_encoded_bytes()).map_err(io())?;
        let time = (shape.mtime == Mtime::Commit).then_some(Timespec { tv_sec: commit.time, tv_nsec: 0 });
        settle(top, time).map_err(io())?;
        time.map_or(Ok(()), |time| set_times(top, time)).map_err(io())
    }
}

/// Removes `.git` of the top and of submodules.
fn remove_git_files(directory: &Directory) -> std::io::Result<()> {
    for name in directory.names()? {
        let kind = directory.stat(&name)?.kind;
        if name == b".git" {
            match kind {
                Kind::Directory => directory.remove_tree(&name)?,
                _ => directory.remove_file(&name)?,
            }
        } else if kind == Kind::Directory {
            remove_git_files(&directory.open_dir(&name)?)?;
        }
    }
    Ok(())
}

/// Gives everything in a directory the mode that a umask of 022 would have given it, root as its owner, and a time.
fn settle(directory: &Directory, time: Option<Timespec>) -> std::io::Result<()> {
    for name in directory.names()? {
        let stat = directory.stat(&name)?;
        if (stat.uid, stat.gid) != (0, 0) {
            directory.set_owner(&name, 0, 0)?;
        }
        if matches!(stat.kind, Kind::Directory | Kind::File) {
            let user = stat.mode & 0o700;
            let mode = user | ((user >> 3 | user >> 6) & 0o055);
            if mode != stat.mode {
                directory.set_mode(&name, mode)?;
            }
        }
        if stat.kind == Kind::Directory {
            settle(&directory.open_dir(&name)?, time)?;
        }
        if let Some(time) = time {
            directory.set_mtime(&name, time)?;
        }
    }
    Ok(())
}
