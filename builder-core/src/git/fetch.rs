//! One commit into the shared bare repository.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::command::{Call, Git};
use super::error::GitError;
use super::resolve::Resolved;

/// The shared bare repository of one address, while its lock is held.
pub(super) struct Mirror<'a> {
    pub(super) git: &'a Git<'a>,
    pub(super) directory: PathBuf,
    pub(super) sha256: bool,
    pub(super) lock: &'a File,
}

/// What is known of a commit.
pub(super) struct Commit {
    pub(super) id: String,
    /// Seconds since 1970, as its committer says.
    pub(super) time: i64,
}

impl Mirror<'_> {
    /// The commit that an object is or points to, if it is here with everything that a checkout needs.
    pub(super) fn commit(&self, object: &str) -> Option<Commit> {
        if !self.directory.join("HEAD").exists() {
            return None;
        }
        let text = self.local("read", &["log", "-1", "--no-show-signature", "--format=%H %ct", object, "--"]).ok()?;
        let (id, time) = text.trim().split_once(' ')?;
        Some(Commit { id: id.to_owned(), time: time.parse().ok()? })
    }

    /// Fetches an object, unless it is here. Servers differ in what they let a client ask for: the object alone is
    /// tried first, then what its name means now, then everything.
    pub(super) fn fetch(&self, wanted: &Resolved) -> Result<Commit, GitError> {
        if let Some(commit) = self.commit(&wanted.object) {
            return Ok(commit);
        }
        let is_new = self.prepare()?;
        match self.try_to_fetch(wanted) {
            // What an earlier process left here may be damaged: once more, from nothing.
            Err(GitError::Git { message, .. }) if !is_new && !is_of_the_network(&message) => {
                self.remove()?;
                self.prepare()?;
                self.try_to_fetch(wanted)
            }
            result => result,
        }
    }

    fn try_to_fetch(&self, wanted: &Resolved) -> Result<Commit, GitError> {
        let object = &wanted.object;
        let keep = |from: &str| format!("+{from}:refs/rbuild/{object}");
        let mut first_error = None;
        let mut attempts = vec![vec!["--depth=1".to_owned(), keep(object)]];
        if let Some(name) = &wanted.name {
            attempts.push(vec!["--depth=1".to_owned(), keep(name)]);
            attempts.push(vec![keep(name)]);
        }
        attempts.push(self.everything());
        for arguments in attempts {
            match self.ask(&arguments) {
                Ok(()) => {
                    if let Some(commit) = self.commit(object) {
                        return Ok(commit);
                    }
                }
                Err(GitError::Git { what, address, message }) if !is_of_the_network(&message) => {
                    first_error.get_or_insert(GitError::Git { what, address, message });
                }
                Err(error) => return Err(error),
            }
        }
        let reference = wanted.name.clone().unwrap_or_else(|| object.clone());
        let address = self.git.address.remote().to_owned();
        Err(first_error.unwrap_or(GitError::NoReference { address, reference }))
    }

    /// Finds the commit whose id begins so, if there is one, with everything fetched.
    pub(super) fn lengthen(&self, short: &str) -> Result<Option<String>, GitError> {
        self.prepare()?;
        let find = || {
            let arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{short}^{{commit}}")];
            self.local("read", &arguments).ok().map(|id| id.trim().to_owned())
        };
        // Also where an id is here that fits: with everything fetched, it may fit two.
        self.ask(&self.everything())?;
        Ok(find())
    }

    /// Arguments that fetch all branches and tags with their history.
    fn everything(&self) -> Vec<String> {
        let mut arguments =
            vec!["+refs/heads/*:refs/all/heads/*".to_owned(), "+refs/tags/*:refs/all/tags/*".to_owned()];
        if self.directory.join("shallow").exists() {
            arguments.insert(0, "--unshallow".to_owned());
        }
        arguments
    }

    fn ask(&self, arguments: &[String]) -> Result<(), GitError> {
        // A killed git leaves it, and nobody else can have made it: the lock is ours.
        let _ = fs::remove_file(self.directory.join("shallow.lock"));
        let (options, names): (Vec<&str>, Vec<&str>) =
            arguments.iter().map(String::as_str).partition(|argument| argument.starts_with("--"));
        let mut all = vec!["fetch", "--no-tags", "--no-write-fetch-head"];
        all.extend(options);
        all.extend(["--", self.git.address.remote()]);
        all.extend(names);
        let call = Call { network: true, lock: Some(self.lock), ..Call::new("fetch", &all) };
        self.git.run(&Call { directory: Some(&self.directory), ..call }).map(drop)
    }

    /// Makes the repository; says whether it did not exist.
    fn prepare(&self) -> Result<bool, GitError> {
        if self.directory.join("HEAD").exists() {
            return Ok(false);
        }
        self.remove()?;
        fs::create_dir_all(&self.directory).map_err(GitError::access(&self.directory))?;
        let format = if self.sha256 { "--object-format=sha256" } else { "--object-format=sha1" };
        self.local("fetch", &["init", "--quiet", "--bare", format])?;
        Ok(true)
    }

    fn remove(&self) -> Result<(), GitError> {
        remove_tree(&self.directory)
    }

    /// Runs git in the repository, without a network.
    pub(super) fn local(&self, what: &'static str, arguments: &[&str]) -> Result<String, GitError> {
        let call = Call { directory: Some(&self.directory), lock: Some(self.lock), ..Call::new(what, arguments) };
        self.git.run(&call)
    }
}

/// Removes a directory, if it is there.
pub(super) fn remove_tree(path: &Path) -> Result<(), GitError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(GitError::access(path)(error)),
        _ => Ok(()),
    }
}

/// Whether it is no use to ask again in another way.
fn is_of_the_network(message: &str) -> bool {
    [
        "Could not resolve host",
        "Failed to connect",
        "Couldn't connect",
        "Connection refused",
        "Connection timed out",
        "unable to connect",
        "Permission denied",
        "Host key verification failed",
        "could not read Username",
        "could not read Password",
        "Authentication failed",
        "Repository not found",
        "does not appear to be a git repository",
    ]
    .iter()
    .any(|part| message.contains(part))
}
