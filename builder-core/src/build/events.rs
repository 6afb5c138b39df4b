//! [`Events`]: how the parts of a build say what happens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::SystemTime;

use super::error::StepError;
use crate::graph::VertexId;
use crate::progress::{Event, Outcome, Sink, Stream, TaskId, Warning};

/// Where events go: straight to the sink while one thread does everything, through the coordinator afterwards.
#[derive(Clone)]
pub(super) enum Events<'a> {
    /// To the sink.
    Direct(&'a dyn Sink),
    /// To the coordinator, which hands them to the sink in the order in which they come.
    Channel(Sender<Message>),
}

/// What threads tell the coordinator.
pub(super) enum Message {
    /// Something happened.
    Event(Event),
    /// A vertex is done.
    Done {
        /// Which one.
        vertex: VertexId,
        /// Whether it has a result.
        result: Result<(), StepError>,
    },
}

impl Events<'_> {
    pub(super) fn emit(&self, event: Event) {
        match self {
            Self::Direct(sink) => sink.event(event),
            // The coordinator only goes away when the build is over, and then nobody listens.
            Self::Channel(sender) => drop(sender.send(Message::Event(event))),
        }
    }

    pub(super) fn started(&self, task: TaskId) {
        self.emit(Event::Started { task, at: SystemTime::now() });
    }

    pub(super) fn finished(&self, task: TaskId, outcome: Outcome) {
        self.emit(Event::Finished { task, at: SystemTime::now(), outcome });
    }

    pub(super) fn output(&self, task: TaskId, stream: Stream, bytes: &[u8]) {
        self.emit(Event::Output { task, stream, at: SystemTime::now(), bytes: bytes.to_vec() });
    }

    pub(super) fn status(&self, task: TaskId, id: &str, current: u64, total: Option<u64>, finished: bool) {
        let id = id.to_owned();
        self.emit(Event::Status { task, id, current, total, at: SystemTime::now(), finished });
    }

    /// Says that something that was asked for was not done, which is no error.
    pub(super) fn undone(&self, task: TaskId, short: impl Into<String>) {
        self.emit(Event::Warning(Warning { task: Some(task), undone: true, ..Warning::new(short) }));
    }

    pub(super) fn warning(&self, task: Option<TaskId>, short: impl Into<String>) {
        self.emit(Event::Warning(Warning { task, ..Warning::new(short) }));
    }
}

/// Gives tasks their numbers.
#[derive(Debug, Default)]
pub(super) struct TaskNumbers(AtomicU64);

impl TaskNumbers {
    /// Numbers for what is done before a build, and shown together with it: they are none of the build's. `slot` tells
    /// apart what is done.
    pub(super) fn before_build(slot: u64) -> Self {
        Self(AtomicU64::new((1 << 32) + slot))
    }

    /// Declares a task with the next number.
    pub(super) fn declare(&self, events: &Events<'_>, name: &str, inputs: Vec<TaskId>) -> TaskId {
        let task = TaskId(self.0.fetch_add(1, Ordering::Relaxed) + 1);
        let identity = crate::oci::Digest::sha256(format!("{task} {name}").as_bytes());
        events.emit(Event::Declared { task, name: name.to_owned(), inputs, digest: identity.to_string() });
        task
    }
}
