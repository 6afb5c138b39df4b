//! `BUILDX_GIT_LABELS`: labels that say which commit of a git work tree the context is, with the names and values of
//! buildx.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Result, values};
use crate::command_error::CommandError;
use crate::environment::Environment;

/// The commit, with [`DIRTY`] behind it where that was found out.
const REVISION: &str = "org.opencontainers.image.revision";

/// The address of the remote repository.
const SOURCE: &str = "org.opencontainers.image.source";

/// The Dockerfile, below the top of the work tree.
const ENTRYPOINT: &str = "com.docker.image.source.entrypoint";

const DIRTY: &str = "-dirty";

/// Variables that make git look elsewhere than where it is told to; a hook of git, which may start a build, has them.
const ELSEWHERE: [&str; 5] = ["GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"];

/// What no work tree may have git run; the configuration of the user counts otherwise, as `safe.directory` is in it.
const CONFIGURATION: [&str; 4] = ["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"];

/// Labels that the environment asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// `BUILDX_GIT_CHECK_DIRTY`: compare the files with the commit, too.
    check_dirty: bool,
}

/// What the environment asks for; nothing unless `BUILDX_GIT_LABELS` does.
pub(super) fn wanted(environment: &Environment) -> Result<Option<Wanted>> {
    let labels = match environment.get("BUILDX_GIT_LABELS") {
        // What buildx once distinguished from `true`.
        Some("full") => true,
        _ => switch(environment, "BUILDX_GIT_LABELS", false)?,
    };
    if !labels || !switch(environment, "BUILDX_GIT_INFO", true)? {
        return Ok(None);
    }
    Ok(Some(Wanted { check_dirty: switch(environment, "BUILDX_GIT_CHECK_DIRTY", false)? }))
}

fn switch(environment: &Environment, name: &str, default: bool) -> Result<bool> {
    let Some(text) = environment.get(name) else { return Ok(default) };
    values::boolean(text).ok_or_else(|| CommandError::usage(format!("{name} is `{text}`, which is not true or false")))
}

impl Wanted {
    /// Adds what git says of `context`, a directory, to `labels`; those that are there stay.
    ///
    /// # Errors
    /// Why some are missing, in words.
    pub(super) fn add(
        self,
        labels: &mut BTreeMap<String, String>,
        context: &Path,
        dockerfile: Option<&Path>,
    ) -> std::result::Result<(), String> {
        let mut set = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                labels.entry(name.to_owned()).or_insert(value);
            }
        };
        let git = WorkTree { directory: context };
        let top = PathBuf::from(OsStr::from_bytes(&git.ask(&["rev-parse", "--show-toplevel"])?));
        set(ENTRYPOINT, dockerfile.and_then(|dockerfile| below(&top, dockerfile)));
        set(SOURCE, git.remote().map(|address| without_user(&address)));
        let mut revision = git
            .text(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])
            .ok_or_else(|| "there is no commit that is checked out".to_owned())?;
        if self.check_dirty && git.is_dirty() {
            revision.push_str(DIRTY);
        }
        set(REVISION, Some(revision));
        Ok(())
    }
}

/// Git in a directory that may be part of a work tree.
struct WorkTree<'a> {
    directory: &'a Path,
}

impl WorkTree<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        // With `-C`, as a relative PATH would be that of the context in another current directory.
        command.arg("-C").arg(self.directory).args(CONFIGURATION).args(arguments);
        for name in ELSEWHERE {
            command.env_remove(name);
        }
        // Without a lock: what only looks must not stop a commit that is being made.
        command.env("GIT_OPTIONAL_LOCKS", "0").env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    /// The line that git answers, or what it says against it.
    fn ask(&self, arguments: &[&str]) -> std::result::Result<Vec<u8>, String> {
        let output = self.command(arguments).output().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "`git` is not installed".to_owned(),
            _ => format!("`git` cannot be run: {error}"),
        })?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            let line = message.lines().next().unwrap_or("git says nothing about it");
            return Err(line.strip_prefix("fatal: ").unwrap_or(line).to_owned());
        }
        let mut line = output.stdout;
        line.pop_if(|last| *last == b'\n');
        Ok(line)
    }

    /// The line that git answers, if it is a text.
    fn text(&self, arguments: &[&str]) -> Option<String> {
        let answer = self.ask(arguments).ok()?;
        String::from_utf8(answer).ok().filter(|text| !text.is_empty())
    }

    /// The address of the remote that the branch follows, else of `origin`, else of `upstream`.
    fn remote(&self) -> Option<String> {
        let followed = self
            .text(&["symbolic-ref", "--quiet", "HEAD"])
            .and_then(|branch| self.text(&["for-each-ref", "--format=%(upstream:remotename)", &branch]));
        let mut names = followed.as_deref().into_iter().chain(["origin", "upstream"]);
        names.find_map(|name| self.text(&["remote", "get-url", "--", name]))
    }

    /// Whether a file of the work tree is not as in the commit, ignored ones too; what cannot be told is not clean.
    fn is_dirty(&self) -> bool {
        let mut command = self.command(&["status", "--porcelain", "--ignored"]);
        let Ok(mut child) = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn() else { return true };
        // One byte tells; there may be a line for each file.
        let silent = child.stdout.take().is_some_and(|mut output| matches!(output.read(&mut [0]), Ok(0)));
        if !silent {
            let _ = child.kill();
        }
        let ended_well = child.wait().is_ok_and(|status| status.success());
        !(silent && ended_well)
    }
}

/// The path of a file below `top`, which has no links in it.
fn below(top: &Path, file: &Path) -> Option<String> {
    let path = file.parent()?.canonicalize().ok()?.join(file.file_name()?);
    path.strip_prefix(top).ok()?.to_str().map(str::to_owned)
}

/// The text of an address without user and password.
fn without_user(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_for_who_asks() {
        let labels = |value| ("BUILDX_GIT_LABELS", value);
        let some = |check_dirty| Ok(Some(Wanted { check_dirty }));
        for (variables, expected) in [
            (&[][..], Ok(None)),
            (&[("BUILDX_GIT_INFO", "1"), ("BUILDX_GIT_CHECK_DIRTY", "1")], Ok(None)),
            (&[labels("")], Ok(None)),
            (&[labels("false")], Ok(None)),
            (&[labels("1")], some(false)),
            (&[labels("full"), ("BUILDX_GIT_CHECK_DIRTY", "true")], some(true)),
            (&[labels("1"), ("BUILDX_GIT_INFO", "0")], Ok(None)),
            (&[labels("some")], Err("BUILDX_GIT_LABELS is `some`, which is not true or false")),
            (&[labels("1"), ("BUILDX_GIT_INFO", "full")], Err("BUILDX_GIT_INFO is `full`, which is not true or false")),
        ] {
            let found = wanted(&Environment::with(variables)).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{variables:?}");
        }
    }

    #[test]
    fn credentials_stay_here() {
        for (address, expected) in [
            ("https://h/x.git", "https://h/x.git"),
            ("https://token@h/x", "https://h/x"),
            ("https://user:p@ss%@h:1/x@y?z#w", "https://h:1/x@y?z#w"),
            ("ssh://git@h:22/x", "ssh://h:22/x"),
            ("https://user:word@h", "https://h"),
            ("git@h:x/y", "git@h:x/y"),
            ("/some/where", "/some/where"),
        ] {
            assert_eq!(without_user(address), expected);
        }
    }
}
