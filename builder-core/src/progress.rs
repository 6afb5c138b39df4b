//! What happens during a build, as plain data: [`Event`], and the [`Sink`] that receives it.
//!
//! How it looks (a live terminal view, plain lines, JSON) is decided by whoever implements [`Sink`].

use std::fmt;
use std::time::SystemTime;

use crate::diagnostic::Source;

/// Receives events. They come from the build's coordinator, in order; an implementation returns quickly.
pub trait Sink: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

/// A sink that drops everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Sink for Silent {
    fn event(&self, _: Event) {}
}

/// Number of a thing that makes progress, unique within one build and in order of its first appearance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct TaskId(pub u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which of a step's two outputs a piece of text came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It did its work.
    Done,
    /// Its result was known already.
    Cached,
    /// It was stopped because the build ends.
    Cancelled,
    /// It failed; the message is one line.
    Failed(String),
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A task exists: a vertex of the graph, or a piece of work around it ("load build definition").
    Declared {
        /// Its number, used by all later events.
        task: TaskId,
        /// What to show: `[build 2/4] RUN make`.
        name: String,
        /// Tasks that have to end before it can start.
        inputs: Vec<TaskId>,
        /// Stable identity for machine-readable output (`sha256:…`).
        digest: String,
    },
    /// A task began.
    Started {
        /// The task.
        task: TaskId,
        /// When.
        at: SystemTime,
    },
    /// A task ended.
    Finished {
        /// The task.
        task: TaskId,
        /// When.
        at: SystemTime,
        /// How.
        outcome: Outcome,
    },
    /// A step wrote output; pieces are split anywhere, even inside a character.
    Output {
        /// The task.
        task: TaskId,
        /// Which output.
        stream: Stream,
        /// When it was read.
        at: SystemTime,
        /// The bytes as written.
        bytes: Vec<u8>,
    },
    /// A part of a task moved on: a layer being pulled, a blob being pushed, a file being sent.
    Status {
        /// The task.
        task: TaskId,
        /// What is moving, unique within the task: `sha256:… extracting`.
        id: String,
        /// How far, in bytes.
        current: u64,
        /// Where it ends, in bytes; `None` where that is not known.
        total: Option<u64>,
        /// When.
        at: SystemTime,
        /// Whether this part is complete.
        finished: bool,
    },
    /// Something the user should know that does not stop the build.
    Warning(Warning),
}

/// A warning with its place, ready for people and machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The step it belongs to, if it belongs to one.
    pub task: Option<TaskId>,
    /// One line.
    pub short: String,
    /// More lines.
    pub detail: Vec<String>,
    /// Address of a page about it.
    pub url: Option<String>,
    /// Lines of a text, where it is about some.
    pub place: Option<Lines>,
    /// Something that was asked for was not done: to be said even where nothing else is.
    pub undone: bool,
}

/// Some lines of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    /// The text.
    pub source: Source,
    /// The first line, from 1.
    pub first: usize,
    /// The last line.
    pub last: usize,
}

impl Warning {
    /// A warning of one line that is about nothing in particular.
    pub fn new(short: impl Into<String>) -> Self {
        Self { task: None, short: short.into(), detail: Vec::new(), url: None, place: None, undone: false }
    }
}
