//! What a target can be told, and which targets there are: [`Outline`] (`--call=outline`), [`targets`]
//! (`--call=targets`).
//!
//! As JSON they have the keys of BuildKit's subrequests.

use std::collections::{BTreeMap, BTreeSet};

use super::globals::Globals;
use crate::dockerfile::{Dockerfile, InstructionKind};

/// The arguments, secrets and caches of a target and of everything behind it, each in file order.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Outline {
    /// The stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The comment above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `ARG`s that have an effect.
    pub args: Vec<OutlineArg>,
    /// `--mount=type=secret`
    pub secrets: Vec<OutlineSecret>,
    /// `--mount=type=ssh`
    pub ssh: Vec<OutlineSecret>,
    /// `--mount=type=cache`
    pub cache: Vec<OutlineCache>,
}

/// An `ARG`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// The comment above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its value in this build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Its line, from 1.
    pub line: usize,
}

/// A secret or an ssh agent.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct OutlineSecret {
    /// Its id.
    pub name: String,
    /// The build fails without it.
    pub required: bool,
    /// The line of the first `RUN` that takes it, from 1.
    pub line: usize,
}

/// A cache directory.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct OutlineCache {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// The line of the first `RUN` that takes it, from 1.
    pub line: usize,
}

/// A stage as something to build.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StageEntry {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Built if none is named.
    pub default: bool,
    /// The comment above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its base, as written.
    pub base: String,
    /// Its platform, as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Its line, from 1.
    pub line: usize,
}

/// Lists the stages of a file in its order.
pub fn targets(dockerfile: &Dockerfile) -> Vec<StageEntry> {
    let mut entries: Vec<StageEntry> = Vec::new();
    for instruction in &dockerfile.instructions {
        let InstructionKind::From(from) = &instruction.kind else { continue };
        let name = from.stage.as_ref().map(|stage| stage.name.clone());
        entries.push(StageEntry {
            description: name.as_ref().and_then(|name| instruction.description(name)).map(str::to_owned),
            name,
            default: false,
            base: from.image.text.to_string(),
            platform: from.platform.as_ref().map(|platform| platform.text.to_string()),
            line: instruction.start_line(),
        });
    }
    if let Some(last) = entries.last_mut() {
        last.default = true;
    }
    entries
}

/// An outline that is being made.
#[derive(Default)]
pub(super) struct Draft {
    args: BTreeMap<String, OutlineArg>,
    globals: BTreeSet<String>,
    secrets: BTreeMap<String, OutlineSecret>,
    ssh: BTreeMap<String, OutlineSecret>,
    cache: BTreeMap<String, OutlineCache>,
}

impl Draft {
    /// An `ARG` of a stage that has a value of its own.
    pub(super) fn arg(&mut self, arg: OutlineArg) {
        self.args.entry(arg.name.clone()).or_insert(arg);
    }

    /// A global `ARG` that a stage takes, or its `FROM`.
    pub(super) fn global(&mut self, name: &str) {
        self.globals.insert(name.to_owned());
    }

    pub(super) fn secret(&mut self, name: &str, required: bool, line: usize) {
        let secret = OutlineSecret { name: name.to_owned(), required, line };
        self.secrets.entry(name.to_owned()).or_insert(secret).required |= required;
    }

    pub(super) fn ssh(&mut self, name: &str, required: bool, line: usize) {
        let ssh = OutlineSecret { name: name.to_owned(), required, line };
        self.ssh.entry(name.to_owned()).or_insert(ssh).required |= required;
    }

    pub(super) fn cache(&mut self, id: &str, line: usize) {
        self.cache.entry(id.to_owned()).or_insert_with(|| OutlineCache { id: id.to_owned(), line });
    }

    /// Adds the global arguments that were taken and those that their defaults use.
    pub(super) fn finish(mut self, globals: &Globals, target: Option<&StageEntry>) -> Outline {
        let mut queue: Vec<String> = std::mem::take(&mut self.globals).into_iter().collect();
        let mut seen: BTreeSet<String> = queue.iter().cloned().collect();
        while let Some(name) = queue.pop() {
            let Some(declared) = globals.declaration(&name) else { continue };
            self.arg(declared.arg.clone());
            queue.extend(declared.used.iter().filter(|used| seen.insert((*used).clone())).cloned());
        }
        let mut outline = Outline {
            name: target.and_then(|target| target.name.clone()),
            description: target.and_then(|target| target.description.clone()),
            args: self.args.into_values().collect(),
            secrets: self.secrets.into_values().collect(),
            ssh: self.ssh.into_values().collect(),
            cache: self.cache.into_values().collect(),
        };
        outline.args.sort_by_key(|arg| arg.line);
        outline.secrets.sort_by_key(|secret| secret.line);
        outline.ssh.sort_by_key(|ssh| ssh.line);
        outline.cache.sort_by_key(|cache| cache.line);
        outline
    }
}
