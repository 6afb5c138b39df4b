//! [`ConfigFile`]: `config.json` of rbuild.
//!
//! ```json
//! {
//!   "root": "/srv/rbuild",
//!   "registry-mirrors": { "docker.io": ["http://127.0.0.1:5001"] },
//!   "insecure-registries": ["registry.example:5000"],
//!   "progress": "plain",
//!   "jobs": 4,
//!   "context-mode": "git",
//!   "cache-mount-sizes": { "/root/.cache/go-build": "5g" },
//!   "gc": [ { "filter": ["type=exec.cachemount"], "keep-duration": "30d" }, { "max-used-space": "50GB", "min-free-space": "10%" } ],
//!   "history": { "builds": 500, "age": "30d", "size": "1GB" }
//! }
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use builder_core::build::{Policy, Space};
use builder_core::history::Retention;
use clap::ValueEnum as _;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::args::ContextModeArg;
use crate::cache_filter::Filters;
use crate::command_error::CommandError;
use crate::environment::Environment;
use crate::request::values;
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
    /// `--context-mode`
    context_mode: Option<String>,
    /// `--cache-mount-size`: id → size.
    cache_mount_sizes: BTreeMap<String, String>,
    /// What is removed from the build cache after builds; `false` for nothing.
    gc: Option<Gc>,
    /// Which builds are remembered.
    history: HistoryLimits,
}

/// `history`: older builds are forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct HistoryLimits {
    builds: Option<usize>,
    age: Option<String>,
    size: Option<String>,
}

/// `gc`
#[derive(Debug, Clone, PartialEq, Eq)]
enum Gc {
    On(bool),
    Policies(Vec<GcPolicy>),
}

impl<'de> Deserialize<'de> for Gc {
    /// By hand, so that what is wrong in a policy is said with its place.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Gc;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a list of policies for `gc`")
            }

            fn visit_bool<E: serde::de::Error>(self, on: bool) -> Result<Gc, E> {
                Ok(Gc::On(on))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, policies: A) -> Result<Gc, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(policies)).map(Gc::Policies)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// One policy of `gc`; the words are those of `rbuild prune`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct GcPolicy {
    /// As those of `prune`; BuildKit calls them `filters`.
    #[serde(alias = "filters")]
    filter: Vec<String>,
    keep_duration: Option<String>,
    max_used_space: Option<String>,
    reserved_space: Option<String>,
    min_free_space: Option<String>,
}

impl GcPolicy {
    fn policy(&self) -> Result<Policy, CommandError> {
        let wrong = |error: CommandError| CommandError::usage(format!("`gc`: {error}"));
        let mut filters = Filters::parse(&self.filter).map_err(wrong)?;
        let (kinds, has_time) = (filters.take_types(), filters.has_time());
        let space = |key: &str, text: &Option<String>| text.as_deref().map(|text| values::space(key, text)).transpose();
        let policy = Policy {
            kinds: kinds.clone(),
            keep_duration: self.keep_duration.as_deref().map(|text| values::keep("keep-duration", text)).transpose()?,
            max_used_space: space("max-used-space", &self.max_used_space)?,
            reserved_space: space("reserved-space", &self.reserved_space)?,
            min_free_space: space("min-free-space", &self.min_free_space)?,
            filter: None,
        };
        if !has_time && policy == (Policy { kinds, ..Policy::default() }) {
            return Err(CommandError::usage(
                "`gc`: a policy has no limit: it would remove everything after each build",
            ));
        }
        Ok(Policy { filter: filters.for_policy(), ..policy })
    }
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
        if let Some(mode) = &config.context_mode {
            ContextModeArg::from_str(mode, false).map_err(|_| wrong(format!("unknown context mode `{mode}`")))?;
        }
        config.gc().map_err(|error| wrong(error.to_string()))?;
        config.history().map_err(|error| wrong(error.to_string()))?;
        config.mount_sizes().map_err(|error| wrong(error.to_string()))?;
        Ok(config)
    }

    /// What is removed from the build cache after builds.
    pub(crate) fn gc(&self) -> Result<Vec<Policy>, CommandError> {
        match &self.gc {
            None | Some(Gc::On(true)) => Ok(Policy::defaults()),
            Some(Gc::On(false)) => Ok(Vec::new()),
            Some(Gc::Policies(policies)) => policies.iter().map(GcPolicy::policy).collect(),
        }
    }

    /// The most that cache mounts keep, in bytes by id.
    pub(crate) fn mount_sizes(&self) -> Result<BTreeMap<String, u64>, CommandError> {
        let size = |(id, text): (&String, &String)| Ok((id.clone(), values::bytes("`cache-mount-sizes`", text)?));
        self.cache_mount_sizes.iter().map(size).collect()
    }

    /// Which builds are remembered.
    pub(crate) fn history(&self) -> Result<Retention, CommandError> {
        let HistoryLimits { builds, age, size } = &self.history;
        let bytes = match size.as_deref().map(|text| values::space("`history`: size", text)).transpose()? {
            None => None,
            Some(Space::Bytes(bytes)) => Some(bytes),
            Some(Space::Percent(_)) => return Err(CommandError::usage("`history`: `size` is no share of the disk")),
        };
        Ok(Retention {
            builds: builds.unwrap_or(Retention::default().builds),
            age: age.as_deref().map(|text| values::keep("`history`: age", text)).transpose()?,
            bytes,
        })
    }

    /// `context-mode`, which [`ConfigFile::parse`] has checked.
    pub(crate) fn context_mode(&self) -> Option<ContextModeArg> {
        self.context_mode.as_deref().and_then(|mode| ContextModeArg::from_str(mode, false).ok())
    }

    /// `progress`, which [`ConfigFile::parse`] has checked.
    pub(crate) fn progress(&self) -> Option<Mode> {
        self.progress.as_deref().and_then(|mode| Mode::from_str(mode, false).ok())
    }
}

#[cfg(test)]
mod tests {
    use builder_core::build::CacheKind;

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
        assert_eq!(error("{\"context-mode\": \"x\"}"), "`/c.json`: unknown context mode `x`");
        assert_eq!(parse("{\"context-mode\": \"git\"}").expect("valid").context_mode(), Some(ContextModeArg::Git));
        assert!(error("{\"gc\": [{}]}").contains("no limit"));
        assert!(error("{\"gc\": 7}").contains("expected true, false or a list of policies for `gc` at line 1"));
        assert!(error("{\"gc\": [{\"maxUsed\": 1}]}").contains("unknown field `maxUsed`, expected one of `filter`"));
        let several = "{\"gc\": [{\"filter\": [\"type==regular, type==exec.cachemount\"], \"keep-duration\": \"1h\"}]}";
        assert_eq!(parse(several).and_then(|config| config.gc()).expect("valid")[0].kinds.len(), 2);
        assert!(error("{\"gc\": [{\"filter\": [\"x\"]}]}").contains("`/c.json`: `gc`: unknown filter `x`"));
        assert!(error("{\"gc\": [{\"filter\": [\"type=x\"]}]}").contains("unknown type `x`"));
        assert!(error("{\"gc\": [{\"filter\": [\"description~=apt\"]}]}").contains("no limit"));
        let unused = "{\"gc\": [{\"filters\": [\"unused-for=48h\", \"type==regular,shared=false\"]}]}";
        let unused = parse(unused).and_then(|config| config.gc()).expect("valid").remove(0);
        assert!(unused.filter.is_some() && unused.kinds == [CacheKind::Step]);
        assert!(error("{\"gc\": [{\"max-used-space\": \"lots\"}]}").contains("not a size"));
        assert!(
            error("{\"cache-mount-sizes\": {\"/c\": \"much\"}}").contains("`cache-mount-sizes`: `much` is not a size")
        );
        let sizes = parse("{\"cache-mount-sizes\": {\"/c\": \"1k\"}}").expect("valid").mount_sizes();
        assert_eq!(sizes.expect("valid"), BTreeMap::from([("/c".to_owned(), 1024)]));
        assert!(error("{\"history\": {\"age\": \"long\"}}").contains("is not a duration"));
        assert!(error("{\"history\": {\"size\": \"10%\"}}").contains("no share of the disk"));
        let history = parse("{\"history\": {\"age\": \"1d\", \"size\": \"1kB\"}}").expect("valid").history();
        let (age, bytes) = (Some(std::time::Duration::from_secs(86400)), Some(1024));
        assert_eq!(history.expect("valid"), Retention { builds: 200, age, bytes });
        assert_eq!(parse("{\"gc\": false}").expect("valid").gc().expect("valid"), []);
        assert_eq!(parse("{}").expect("valid").gc().expect("valid"), Policy::defaults());
        let policies = parse("{\"gc\": [{\"filter\": [\"type=exec.cachemount\"], \"keep-duration\": \"30d\"}]}");
        let policies = policies.expect("valid").gc().expect("valid");
        assert_eq!((policies.len(), policies[0].kinds.as_slice()), (1, &[CacheKind::Mount][..]));
        assert_eq!(parse("{\"progress\": \"plain\"}").expect("valid").progress(), Some(Mode::Plain));
    }
}
