//! [`Build`]: what is kept of one build.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{ByReads, Reads};
use crate::cache::Preimage;
use crate::cache::explain::TreeChange;
use crate::context::ContextMode;
use crate::progress::Stream;
use crate::tree::{SemanticDigest, TreeId};

/// Digits of an id that say when the build began, and digits that are random.
const DIGITS: (usize, usize) = (9, 7);

/// Identity of a build: when it began (milliseconds since 1970, base 36) and some random digits. Ids sort by time; see
/// [`super::HistoryStore::start`] for clocks that were set back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BuildId(String);

/// The text is no id of a build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the id of a build")]
pub struct ParseBuildIdError(String);

impl BuildId {
    /// An id for a build that begins at this time; `random` tells builds of one millisecond apart.
    pub fn new(at: SystemTime, random: u64) -> Self {
        let number = |mut value: u64, digits: usize| {
            let mut text = vec![b'0'; digits];
            for digit in text.iter_mut().rev() {
                *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::try_from(value % 36).unwrap_or(0)];
                value /= 36;
            }
            String::from_utf8(text).expect("ASCII")
        };
        Self(number(u64::try_from(milliseconds(at)).unwrap_or(0), DIGITS.0) + &number(random, DIGITS.1))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As docker names builds, with a builder and its node before the id: `default/default/ID`.
    pub fn reference(&self) -> String {
        format!("default/default/{}", self.0)
    }

    /// When the build began, in milliseconds since 1970, as far as the id tells.
    pub fn started(&self) -> i64 {
        i64::from_str_radix(&self.0[..DIGITS.0], 36).unwrap_or(0)
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BuildId {
    type Err = ParseBuildIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
        if text.len() == DIGITS.0 + DIGITS.1 && digits {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseBuildIdError(text.to_owned()))
    }
}

impl TryFrom<String> for BuildId {
    type Error = ParseBuildIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BuildId> for String {
    fn from(id: BuildId) -> Self {
        id.0
    }
}

/// Milliseconds since 1970.
pub(crate) fn milliseconds(at: SystemTime) -> i64 {
    i64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// What a build was asked to do, without values of secrets and without proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inputs {
    /// The Dockerfile as it is called in messages.
    pub dockerfile: String,
    /// Digest of its text.
    pub dockerfile_digest: String,
    /// The context: a path of the host or an address without credentials; `-` for none.
    pub context: String,
    /// Further contexts, by name.
    pub named_contexts: BTreeMap<String, String>,
    /// `--context-mode`
    #[serde(default)]
    pub context_mode: ContextMode,
    /// `--target`
    pub target: Option<String>,
    /// The platforms of the image, with commas between them.
    pub platform: String,
    /// `--build-arg`, proxies left out.
    pub build_args: BTreeMap<String, String>,
    /// `--trace-reads`
    pub trace_reads: bool,
    /// Ids of secrets.
    pub secrets: Vec<String>,
    /// Names of the result.
    pub names: Vec<String>,
}

impl Inputs {
    /// Whether two builds are builds of the same thing, so that their steps can be compared.
    pub fn same_build(&self, other: &Self) -> bool {
        (&self.dockerfile, &self.context, &self.target, &self.platform)
            == (&other.dockerfile, &other.context, &other.target, &other.platform)
    }

    /// Whether two builds had the same Dockerfile, wherever they took their files from.
    pub fn same_dockerfile(&self, other: &Self) -> bool {
        (&self.dockerfile_digest, &self.target, &self.platform)
            == (&other.dockerfile_digest, &other.target, &other.platform)
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The build ended before it.
    #[default]
    NotReached,
    /// Its result was known.
    Hit,
    /// It ran.
    Run,
    /// It ran, and its result is equal to an older one, which was taken instead: what follows hits.
    Adopted,
    /// It was stopped.
    Cancelled,
    /// It failed.
    Failed,
}

/// Why a result could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Miss {
    /// There is no record of the key.
    NoRecord,
    /// The record of the key was damaged, and removed.
    Damaged,
    /// The record names a tree that is not in the store any more.
    TreeGone,
    /// The files of the result are gone, and something needed them.
    FilesGone,
    /// `--no-cache` or `--no-cache-filter`
    NoCache,
    /// The result is older than `--cache-ttl`.
    Expired,
    /// The result is older than the comment above the step allows (`# cache=12h`).
    ExpiredByFile,
}

/// How much a step wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSize {
    /// Bytes.
    pub bytes: u64,
    /// Ends of lines.
    pub lines: u64,
}

/// One step of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    /// Its number, from 0; inputs of a step have smaller numbers.
    pub number: usize,
    /// What is shown: `[build 2/4] RUN make`.
    pub name: String,
    /// The stage that it belongs to.
    pub stage: String,
    /// How many steps of its stage come before it.
    pub position: usize,
    /// `image`, `run`, `copy`, `add`, `workdir`.
    pub op: String,
    /// Line of the Dockerfile, from 1.
    pub line: Option<usize>,
    /// The step whose result it starts from.
    pub root: Option<usize>,
    /// Further steps whose files it reads.
    pub inputs: Vec<usize>,
    /// How it ended.
    pub verdict: Verdict,
    /// For one that ran: why.
    pub miss: Option<Miss>,
    /// For one that ran: caches elsewhere were asked, and gave nothing.
    pub asked_elsewhere: bool,
    /// For one that caches elsewhere had nothing for: what they had.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<Elsewhere>,
    /// Its cache key, where it was known.
    pub key: Option<String>,
    /// What the key was made of; only for a step that was no hit. A hit has it in its cache record.
    pub preimage: Option<Preimage>,
    /// The layer that it resulted in.
    pub tree: Option<TreeId>,
    /// The layer without times.
    pub result: Option<SemanticDigest>,
    /// The files that each mount showed, by the name of the field of the preimage.
    pub shown: BTreeMap<String, TreeId>,
    /// For one that reads files of a context: name and digest of its ignore file, or `none`.
    pub ignore: Option<String>,
    /// What identifies a base image.
    pub image: Option<String>,
    /// The lock file that said what the name of a base image stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<String>,
    /// Bytes of the files of its layer; only for a step that ran.
    pub bytes: Option<u64>,
    /// What a command looked at, if it ran and was traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads: Option<Reads>,
    /// For a command whose key had nothing: what looking it up by what it reads gave, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_reads: Option<ByReads>,
    /// When it began, in milliseconds since 1970.
    pub started: Option<i64>,
    /// How long it took.
    pub milliseconds: u64,
    /// What it wrote, if anything.
    pub log: Option<LogSize>,
    /// Why it failed.
    pub error: Option<String>,
}

/// What a cache elsewhere had when it was asked for a step in vain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Elsewhere {
    /// What people call it.
    pub name: String,
    /// How many results it had; `None` if it could not be used.
    pub results: Option<usize>,
    /// What the key of the result was made of that is most like the step.
    pub nearest: Option<Preimage>,
    /// The layer of that result, if it is a copy.
    pub tree: Option<TreeId>,
}

impl Step {
    /// The platform in its name, `[linux/arm64 build 2/4] RUN make`, where several are built.
    pub fn platform(&self) -> Option<&str> {
        platform_in(&self.name)
    }

    /// The instruction without its place: `RUN make`.
    pub fn instruction(&self) -> &str {
        self.name.split_once("] ").map_or(self.name.as_str(), |(_, instruction)| instruction)
    }
}

/// The platform that the name of a step begins with.
pub(crate) fn platform_in(name: &str) -> Option<&str> {
    let first = name.strip_prefix('[')?.split([' ', ']']).next()?;
    (first.contains('/') && first.starts_with(|c: char| c.is_ascii_alphabetic())).then_some(first)
}

/// What running a known step again came to (`--verify-cache`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Number of the step.
    pub step: usize,
    /// Its name.
    pub name: String,
    /// What came out.
    #[serde(flatten)]
    pub outcome: VerifiedAs,
}

/// How a result that was made again compares with the one of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum VerifiedAs {
    /// It is equal.
    Equal,
    /// Two fresh runs differ from each other: the step does not always give the same.
    NotDeterministic {
        /// Where the results differ.
        changes: Vec<TreeChange>,
    },
    /// Two fresh runs agree with each other, and not with the cache.
    WrongHit {
        /// Where the results differ from the cache's.
        changes: Vec<TreeChange>,
    },
    /// It could not be run again.
    Failed {
        /// Why.
        reason: String,
    },
}

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It is not over.
    Running,
    /// It went well.
    Completed,
    /// It failed.
    Error,
    /// It was cancelled.
    Canceled,
    /// Its process ended without saying so.
    Interrupted,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::Canceled => "Canceled",
            Self::Interrupted => "Interrupted",
        })
    }
}

/// The last line of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How.
    pub status: Status,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<String>,
    /// How long it took.
    pub milliseconds: u64,
    /// Id of the image.
    #[serde(default)]
    pub image: Option<String>,
    /// What `--verify-cache` found.
    #[serde(default)]
    pub verified: Vec<Verified>,
}

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// The first one.
    Begun {
        /// When, in milliseconds since 1970.
        started: i64,
        /// What was asked for.
        inputs: Inputs,
    },
    /// A step; the last line about a step counts.
    Step(Box<Step>),
    /// The last one.
    Ended(End),
}

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Build {
    /// Its identity.
    pub id: BuildId,
    /// When it began, in milliseconds since 1970.
    pub started: i64,
    /// What was asked for.
    pub inputs: Inputs,
    /// Its steps, by number.
    pub steps: Vec<Step>,
    /// How it ended; `None` if it runs or was interrupted.
    pub end: Option<End>,
    /// How it stands.
    pub status: Status,
}

/// A build without its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildSummary {
    /// Its identity.
    pub id: BuildId,
    /// For people: the first name of the image, or the context.
    pub name: String,
    /// What was asked for.
    pub inputs: Inputs,
    /// How it stands.
    pub status: Status,
    /// When it began, in milliseconds since 1970.
    pub started: i64,
    /// How long it took.
    pub milliseconds: Option<u64>,
    /// How many steps it has, base images left out.
    pub steps: usize,
    /// How many of them have a result.
    pub completed: usize,
    /// How many results were known.
    pub cached: usize,
}

impl Build {
    /// What a list shows of it.
    pub fn summary(&self) -> BuildSummary {
        let steps = self.steps.iter().filter(|step| step.op != "image");
        let count = |verdicts: &[Verdict]| steps.clone().filter(|step| verdicts.contains(&step.verdict)).count();
        BuildSummary {
            id: self.id.clone(),
            name: self.name(),
            inputs: self.inputs.clone(),
            status: self.status,
            started: self.started,
            milliseconds: self.end.as_ref().map(|end| end.milliseconds),
            steps: steps.clone().count(),
            completed: count(&[Verdict::Hit, Verdict::Run, Verdict::Adopted]),
            cached: count(&[Verdict::Hit]),
        }
    }

    /// The step with this number.
    pub fn step(&self, number: usize) -> Option<&Step> {
        let at = self.steps.binary_search_by_key(&number, |step| step.number).ok()?;
        Some(&self.steps[at])
    }

    /// For people: the first name of the image; else the name of the context, with the target.
    pub fn name(&self) -> String {
        if let Some(name) = self.inputs.names.first() {
            return name.clone();
        }
        let context = self.inputs.context.trim_end_matches('/');
        let context = context.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(&self.inputs.context);
        match &self.inputs.target {
            Some(target) => format!("{context} ({target})"),
            None => context.to_owned(),
        }
    }
}

/// Whether a build argument is one of the proxies that every build has (Dockerfile reference, "predefined ARGs").
pub fn is_proxy(name: &str) -> bool {
    ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"]
        .iter()
        .any(|proxy| name.eq_ignore_ascii_case(proxy))
}

/// The text with user and password of every address in it left out.
pub fn without_credentials(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'');
        let authority = &after[..after.find(ends).unwrap_or(after.len())];
        out.push_str(before);
        rest = match authority.rfind('@') {
            Some(user) => &after[user + 1..],
            None => after,
        };
    }
    out + rest
}

/// How a stream is called in a log.
pub(super) fn stream_number(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ids_sort_by_time_and_come_back() {
        let at = |milliseconds| UNIX_EPOCH + Duration::from_millis(milliseconds);
        let early = BuildId::new(at(1_700_000_000_000), u64::MAX);
        let late = BuildId::new(at(1_700_000_000_001), 0);
        assert!(early < late, "{early} {late}");
        assert_eq!(early.as_str().parse(), Ok(early.clone()));
        assert_eq!(late.started(), 1_700_000_000_001);
        for wrong in ["", "../../etc/passwd", "ABCDEFGHIJKLMNOP", "0123456789abcde", "0123456789abcdef0"] {
            assert!(wrong.parse::<BuildId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_lose_their_credentials() {
        let check = |text: &str, expected: &str| assert_eq!(without_credentials(text), expected);
        check("ADD https://u:p@h/x https://h/y@z /", "ADD https://h/x https://h/y@z /");
        check("git://t@h", "git://h");
        check("http://", "http://");
        check("RUN echo a@b", "RUN echo a@b");
        check("https://u:p@q@h?x", "https://h?x");
    }
}
