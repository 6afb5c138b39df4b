//! [`Reads`]: what a command looked at of the files that were copied before it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::tree::SemanticDigest;

/// What a command looked at of files of a context (`--trace-reads`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reads {
    /// Version of this form.
    pub version: u32,
    /// Why it may have looked at more, if so.
    pub gap: Option<String>,
    /// How many paths it looked at and found, wherever they come from.
    pub found: usize,
    /// How many it looked for in vain.
    pub missing: usize,
    /// The copies before it, in order.
    pub copies: Vec<CopyReads>,
}

/// The version that is written.
pub const READS_VERSION: u32 = 1;

/// What a command looked at of one copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyReads {
    /// What the copy resulted in.
    pub result: SemanticDigest,
    /// Files and links that the command sees of it.
    pub files: usize,
    /// Of these it looked at so many.
    pub read: usize,
    /// By their paths in the image, with what is below a renamed directory left out.
    pub used: BTreeMap<String, Used>,
    /// How the copy was made; `None` if that cannot be said in a few words.
    pub origin: Option<Origin>,
}

/// What was done with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Used {
    /// It was looked at; a directory: it has to be there.
    Touched,
    /// The names in the directory were read.
    Listed,
    /// It was renamed, with all that is below it.
    Moved,
}

/// How a copy was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// The instruction with its options, without paths: `COPY --chown=1:1`.
    pub instruction: String,
    /// The working directory.
    pub workdir: String,
    /// Paths in the image, and where their files are in the context; none is below another.
    pub places: Vec<(String, String)>,
    /// Directories of the context that were copied with everything in them.
    pub directories: Vec<String>,
    /// Whether the destination was there before.
    pub existed: bool,
}

/// What became of a command in a build that looks results up by what commands read, after its key had nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByReads {
    /// Digest of what the command is, without the files that it can see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// What the lookup gave.
    #[serde(flatten)]
    pub outcome: Lookup,
    /// Of one that ran: why its reads were not recorded, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrecorded: Option<String>,
}

impl ByReads {
    /// Whether its result was found so.
    pub fn is_hit(&self) -> bool {
        matches!(self.outcome, Lookup::Hit { .. })
    }
}

/// What looking a command up by what it reads gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "lookup", rename_all = "kebab-case")]
pub enum Lookup {
    /// A run that looked at nothing that is another now.
    Hit {
        /// How many paths it looked at.
        paths: usize,
    },
    /// Each known run looked at something that is another now.
    Differs {
        /// Such paths of the last one, at most a few, as the command sees them.
        paths: Vec<String>,
    },
    /// Its reads were never recorded.
    Nothing,
    /// A run is known that fits, and its result is too old or not there any more.
    Gone,
    /// It was not looked up.
    NotAsked,
}
