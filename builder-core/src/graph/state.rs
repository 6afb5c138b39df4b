//! [`State`]: what a stage hands to the stages built on it.

use std::collections::HashMap;

use super::VertexId;
use super::env::Scope;
use crate::oci::{ImageConfig, Platform};
use crate::rootfs::RootPath;

/// The `PATH` of images whose base has none (BuildKit `system.DefaultPathEnvUnix`).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage after some of its instructions.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// The root filesystem.
    pub(super) root: Option<VertexId>,
    /// What expansion and commands see: `ENV` and `ARG`, the later one wins.
    pub(super) scope: Scope,
    /// The config so far, without history and layers.
    pub(super) config: ImageConfig,
    /// `ARG`s in order of their first declaration, with the value of the last one if it has one.
    pub(super) arguments: Vec<(String, Option<String>)>,
    pub(super) workdir: RootPath,
    /// A `WORKDIR` of this file was seen.
    pub(super) workdir_set: bool,
    pub(super) platform: Platform,
    /// The image that it begins with is not known, so variables may be set that nobody sees.
    pub(super) guessed: bool,
    /// `scope` has other values than `config.config.env`, or another order.
    scope_differs: bool,
    /// Where a variable is in `config.config.env`.
    env_at: HashMap<String, usize>,
    /// Where an argument is in `arguments`.
    argument_at: HashMap<String, usize>,
}

impl State {
    /// `FROM scratch`.
    pub(super) fn empty(platform: &Platform) -> Self {
        let mut config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            os_version: platform.os_version.clone(),
            os_features: platform.os_features.clone(),
            ..ImageConfig::default()
        };
        "/".clone_into(&mut config.config.working_dir);
        Self::from_config(config, platform.clone(), RootPath::root())
    }

    /// What an image brings. Its ONBUILD triggers have been taken over already.
    pub(super) fn from_image(config: &ImageConfig, platform: &Platform, workdir: RootPath) -> Self {
        let mut config =
            ImageConfig { created: None, history: Vec::new(), rootfs: crate::oci::RootFs::default(), ..config.clone() };
        config.config.on_build = Vec::new();
        // An absolute path stays as the image has it, as in BuildKit.
        if !matches!(config.config.working_dir.bytes().next(), None | Some(b'/')) {
            config.config.working_dir = workdir.to_string();
        }
        Self::from_config(config, platform.clone(), workdir)
    }

    fn from_config(config: ImageConfig, platform: Platform, workdir: RootPath) -> Self {
        let is_windows = platform.os == "windows";
        let mut state = Self {
            root: None,
            scope: Scope::new(is_windows),
            config,
            arguments: Vec::new(),
            workdir,
            workdir_set: false,
            platform,
            guessed: false,
            scope_differs: false,
            env_at: HashMap::new(),
            argument_at: HashMap::new(),
        };
        // What a base has stays as it is written, whether it makes sense or not.
        for (at, entry) in state.config.config.env.iter().enumerate() {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            state.scope.set(name, value);
            state.env_at.entry(state.scope.key(name).into_owned()).or_insert(at);
        }
        if state.scope.get("PATH").is_none() && !is_windows {
            state.set_env("PATH", DEFAULT_PATH);
        }
        state
    }

    /// Sets a variable in scope and in the config, where it keeps its first place.
    pub(super) fn set_env(&mut self, name: &str, value: &str) {
        self.scope.set(name, value);
        let entry = format!("{name}={value}");
        let key = self.scope.key(name);
        if let Some(at) = self.env_at.get(&*key) {
            self.scope_differs = true;
            self.config.config.env[*at] = entry;
        } else {
            self.env_at.insert(key.into_owned(), self.config.config.env.len());
            self.config.config.env.push(entry);
        }
    }

    /// Sets a variable in scope only, as `ARG` does.
    pub(super) fn set_argument(&mut self, name: &str, value: &str) {
        self.scope.set(name, value);
        self.scope_differs = true;
    }

    /// Declares an argument.
    pub(super) fn declare(&mut self, name: &str, value: Option<String>) {
        if let Some(at) = self.argument_at.get(name) {
            self.arguments[*at].1 = value;
        } else {
            self.argument_at.insert(name.to_owned(), self.arguments.len());
            self.arguments.push((name.to_owned(), value));
        }
    }

    /// Whether an `ARG` names it.
    pub(super) fn is_declared(&self, name: &str) -> bool {
        self.argument_at.contains_key(name)
    }

    /// What a stage that is built on this one begins with.
    pub(super) fn inherit(mut self) -> Self {
        self.config.config.on_build = Vec::new();
        // As in BuildKit the environment of the base is set anew, so an `ENV` wins over an `ARG` that came after it.
        if !std::mem::take(&mut self.scope_differs) {
            return self;
        }
        for entry in &self.config.config.env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            self.scope.set(name, value);
        }
        self
    }
}
