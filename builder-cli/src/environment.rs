//! [`Environment`]: what this process was started with. The only place that reads variables and the current directory.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::command_error::CommandError;

/// Where the store of root is.
const SYSTEM_ROOT: &str = "/var/lib/rbuild";

/// Variables, the current directory, the user.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    variables: BTreeMap<OsString, OsString>,
    cwd: PathBuf,
    root: bool,
}

impl Environment {
    /// That of this process.
    pub(crate) fn of_process() -> Result<Self, CommandError> {
        let cwd =
            std::env::current_dir().map_err(|error| CommandError::io("cannot tell the current directory", &error))?;
        Ok(Self { variables: std::env::vars_os().collect(), cwd, root: rustix::process::geteuid().is_root() })
    }

    /// For tests: these variables, a user, the directory `/cwd`.
    #[cfg(test)]
    pub(crate) fn with(variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self { variables, cwd: PathBuf::from("/cwd"), root: false }
    }

    /// Whether this process was started by root.
    pub(crate) fn is_root(&self) -> bool {
        self.root
    }

    /// A variable that is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.get_os(name).and_then(OsStr::to_str)
    }

    /// As [`Environment::get`], in any encoding.
    pub(crate) fn get_os(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// A variable that is set, even if it is empty.
    pub(crate) fn lookup(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// A path of the command line, absolute and without `.`; `..` stays, since it may follow a link.
    pub(crate) fn absolute(&self, path: &Path) -> PathBuf {
        self.cwd.join(path).components().collect()
    }

    /// A path that a variable holds; relative ones do not count (XDG base directory specification).
    fn directory(&self, name: &str) -> Option<PathBuf> {
        self.get_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// The home directory, if there is one.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.directory("HOME")
    }

    /// Where the store is without `--root`.
    pub(crate) fn default_root(&self) -> Result<PathBuf, CommandError> {
        if let Some(root) = self.get_os("RBUILD_ROOT") {
            return Ok(self.absolute(Path::new(root)));
        }
        if self.root {
            return Ok(PathBuf::from(SYSTEM_ROOT));
        }
        let data = self.directory("XDG_DATA_HOME").or_else(|| Some(self.home()?.join(".local/share")));
        data.map(|data| data.join("rbuild")).ok_or_else(|| {
            CommandError::usage("there is no home directory to keep the store in")
                .with_hint("say where it is with `--root DIR` or RBUILD_ROOT")
        })
    }

    /// Configuration files of rbuild, the one that counts most first.
    pub(crate) fn config_files(&self) -> Vec<PathBuf> {
        let user = self.directory("XDG_CONFIG_HOME").or_else(|| Some(self.home()?.join(".config")));
        user.into_iter()
            .map(|dir| dir.join("rbuild/config.json"))
            .chain([PathBuf::from("/etc/rbuild/config.json")])
            .collect()
    }

    /// Docker's configuration directory.
    pub(crate) fn docker_config(&self) -> Option<PathBuf> {
        match self.get_os("DOCKER_CONFIG") {
            Some(directory) => Some(self.absolute(Path::new(directory))),
            None => Some(self.home()?.join(".docker")),
        }
    }

    /// Further files with credentials, in the form of docker's `config.json`.
    pub(crate) fn auth_files(&self) -> Vec<PathBuf> {
        let explicit = self.get_os("REGISTRY_AUTH_FILE").map(|file| self.absolute(Path::new(file)));
        let runtime = self.directory("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
        explicit.into_iter().chain(runtime).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_of_a_user_is_below_home_and_a_missing_home_is_an_error() {
        let root = |variables: &[(&str, &str)]| Environment::with(variables).default_root().ok();
        assert_eq!(root(&[("HOME", "/home/u")]), Some("/home/u/.local/share/rbuild".into()));
        assert_eq!(root(&[("HOME", "/home/u"), ("XDG_DATA_HOME", "/data")]), Some("/data/rbuild".into()));
        assert_eq!(root(&[("HOME", "/home/u"), ("XDG_DATA_HOME", "data")]), Some("/home/u/.local/share/rbuild".into()));
        assert_eq!(root(&[("RBUILD_ROOT", "state")]), Some("/cwd/state".into()));
        assert_eq!(root(&[("HOME", "")]), None);
        assert_eq!(root(&[]), None);
    }
}
