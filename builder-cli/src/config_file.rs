//! [`ConfigFile`]: `config.json` of rbuild.
//!
//! ```json
//! {
//!   "root": "/srv/rbuild",
//!   "registry-mirrors": { "docker.io": ["http://127.0.0.1:5001"] },
//!   "insecure-registries": ["registry.example:5000"],
//!   "progress": "plain",
//!   "jobs": 4
//! }
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum as _;

use crate::command_error::CommandError;
use crate::environment::Environment;
use crate::ui::Mode;

/// What the file may say; every key is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct ConfigFile {
    /// The store.
    pub(crate) root: Option<PathBuf>,
    /// Registry → addresses to ask first.
    pub(crate) registry_mirrors: BTreeMap<String, Vec<String>>,
    /// Registries that may speak plain HTTP.
    pub(crate) insecure_registries: Vec<String>,
    /// `--progress`
    progress: Option<String>,
    /// `--jobs`
    pub(crate) jobs: Option<usize>,
}

impl ConfigFile {
    /// Reads the file that was named, or the first default one that exists; without any, nothing is set.
    pub(crate) fn load(named: Option<&Path>, environment: &Environment) -> Result<Self, CommandError> {
        let named = named.map(Path::as_os_str).or_else(|| environment.get_os("RBUILD_CONFIG"));
        if let Some(path) = named {
            let path = environment.absolute(Path::new(path));
            let text = std::fs::read(&path)
                .map_err(|error| CommandError::io(&format!("cannot read `{}`", path.display()), &error))?;
            return Self::parse(&path, &text);
        }
        for path in environment.config_files() {
            match std::fs::read(&path) {
                Ok(text) => return Self::parse(&path, &text),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(CommandError::io(&format!("cannot read `{}`", path.display()), &error)),
            }
        }
        Ok(Self::default())
    }

    fn parse(path: &Path, text: &[u8]) -> Result<Self, CommandError> {
        let wrong = |reason: String| CommandError::usage(format!("`{}`: {reason}", path.display()));
        let config: Self = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        if config.root.as_ref().is_some_and(|root| !root.is_absolute()) {
            return Err(wrong("`root` is not an absolute path".to_owned()));
        }
        if config.jobs == Some(0) {
            return Err(wrong("`jobs` is 0".to_owned()));
        }
        if let Some(progress) = &config.progress {
            Mode::from_str(progress, false).map_err(|_| wrong(format!("unknown progress mode `{progress}`")))?;
        }
        Ok(config)
    }

    /// `progress`, which [`ConfigFile::parse`] has checked.
    pub(crate) fn progress(&self) -> Option<Mode> {
        self.progress.as_deref().and_then(|mode| Mode::from_str(mode, false).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_bad_values_are_errors_with_the_file_and_the_place() {
        let parse = |text: &str| ConfigFile::parse(Path::new("/c.json"), text.as_bytes());
        let error = |text: &str| parse(text).expect_err(text).to_string();
        assert!(error("{\"rot\": \"/x\"}").starts_with("`/c.json`: unknown field `rot`, expected one of `root`"));
        assert!(error("{").contains("line 1"));
        assert_eq!(error("{\"root\": \"x\"}"), "`/c.json`: `root` is not an absolute path");
        assert_eq!(error("{\"progress\": \"x\"}"), "`/c.json`: unknown progress mode `x`");
        assert_eq!(error("{\"jobs\": 0}"), "`/c.json`: `jobs` is 0");
        assert_eq!(parse("{\"progress\": \"plain\"}").expect("valid").progress(), Some(Mode::Plain));
    }
}
