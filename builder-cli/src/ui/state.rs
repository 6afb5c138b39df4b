//! What is known of the running build: its tasks, in order of appearance, and what they said last.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use builder_core::progress::{Event, Outcome, TaskId, Warning};

use super::escape;

/// Lines of output that are kept of each task, for the live view and the summary of a failure.
const KEPT_LINES: usize = 20;

/// A line that grows longer than this is taken as it is, so that a step cannot fill the memory.
pub(super) const MAX_LINE: usize = 64 << 10;

/// One task.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) name: String,
    pub(super) digest: String,
    pub(super) inputs: Vec<TaskId>,
    /// Number for people: tasks are counted as they start or end.
    pub(super) number: Option<usize>,
    pub(super) started: Option<SystemTime>,
    pub(super) ended: Option<(SystemTime, Outcome)>,
    pub(super) statuses: Vec<Status>,
    /// The last lines of output, as the live view shows them.
    pub(super) tail: VecDeque<String>,
    lines: LineBuffer,
}

/// A part of a task.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) id: String,
    pub(super) current: u64,
    pub(super) total: Option<u64>,
    pub(super) started: SystemTime,
    pub(super) updated: SystemTime,
    pub(super) finished: bool,
}

/// All tasks and warnings.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) tasks: BTreeMap<TaskId, Task>,
    /// In order of their numbers.
    pub(super) order: Vec<TaskId>,
    pub(super) warnings: Vec<Warning>,
}

impl Task {
    /// Time since the start, until the end if there was one.
    pub(super) fn elapsed(&self, now: SystemTime) -> Duration {
        let end = self.ended.as_ref().map_or(now, |(at, _)| *at);
        self.started.map_or(Duration::ZERO, |start| end.duration_since(start).unwrap_or_default())
    }

    /// Says whether it has begun and not ended.
    pub(super) fn is_running(&self) -> bool {
        self.started.is_some() && self.ended.is_none()
    }

    fn keep(&mut self, line: &[u8]) {
        if self.tail.len() == KEPT_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(escape::output(line));
    }
}

impl Status {
    /// Time since its start.
    pub(super) fn elapsed(&self, now: SystemTime) -> Duration {
        let end = if self.finished { self.updated } else { now };
        end.duration_since(self.started).unwrap_or_default()
    }

    /// `3.1MB / 7.2MB`, or nothing where bytes say nothing.
    pub(super) fn bytes(&self) -> String {
        match (self.current, self.total) {
            (0, None | Some(0)) => String::new(),
            (current, None) => super::units::size(current),
            (current, Some(total)) => format!("{} / {}", super::units::size(current), super::units::size(total)),
        }
    }
}

impl State {
    /// Takes one event; returns the complete lines of output that it brought.
    pub(super) fn apply(&mut self, event: Event) -> Vec<Vec<u8>> {
        match event {
            Event::Declared { task, name, inputs, digest } => {
                let name = escape::line(&name).into_owned();
                self.tasks.insert(task, Task::new(name, digest, inputs));
            }
            Event::Started { task, at } => {
                self.number(task);
                if let Some(task) = self.tasks.get_mut(&task) {
                    task.started = Some(at);
                }
            }
            Event::Finished { task, at, outcome } => {
                self.number(task);
                if let Some(task) = self.tasks.get_mut(&task) {
                    task.ended = Some((at, outcome));
                    let rest = task.lines.rest();
                    for line in &rest {
                        task.keep(line);
                    }
                    return rest;
                }
            }
            Event::Output { task, bytes, .. } => {
                if let Some(task) = self.tasks.get_mut(&task) {
                    let lines = task.lines.push(&bytes);
                    for line in &lines {
                        task.keep(line);
                    }
                    return lines;
                }
            }
            Event::Status { task, id, current, total, at, finished } => {
                if let Some(task) = self.tasks.get_mut(&task) {
                    task.status(escape::line(&id).into_owned(), current, total, at, finished);
                }
            }
            Event::Warning(warning) => self.warnings.push(warning),
        }
        Vec::new()
    }

    /// Numbers a task when it first matters.
    fn number(&mut self, id: TaskId) {
        let next = self.order.len() + 1;
        if let Some(task) = self.tasks.get_mut(&id)
            && task.number.is_none()
        {
            task.number = Some(next);
            self.order.push(id);
        }
    }

    /// Tasks that ended, and all that are known.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.tasks.values().filter(|task| task.ended.is_some()).count(), self.tasks.len())
    }

    /// Whether a task was cancelled.
    pub(super) fn is_cancelled(&self) -> bool {
        self.tasks.values().any(|task| matches!(task.ended, Some((_, Outcome::Cancelled))))
    }

    /// The task that made the build fail, if one did.
    pub(super) fn failed(&self) -> Option<&Task> {
        self.tasks.values().find(|task| matches!(task.ended, Some((_, Outcome::Failed(_)))))
    }
}

impl Task {
    fn new(name: String, digest: String, inputs: Vec<TaskId>) -> Self {
        Self {
            name,
            digest,
            inputs,
            number: None,
            started: None,
            ended: None,
            statuses: Vec::new(),
            tail: VecDeque::new(),
            lines: LineBuffer::default(),
        }
    }

    fn status(&mut self, id: String, current: u64, total: Option<u64>, at: SystemTime, finished: bool) {
        match self.statuses.iter_mut().find(|status| status.id == id) {
            Some(status) => {
                (status.current, status.updated, status.finished) = (current, at, finished);
                status.total = total.or(status.total);
            }
            None => self.statuses.push(Status { id, current, total, started: at, updated: at, finished }),
        }
    }
}

/// Cuts pieces of output into lines.
#[derive(Debug, Default)]
struct LineBuffer(Vec<u8>);

impl LineBuffer {
    fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            self.0.extend_from_slice(piece);
            if pieces.peek().is_some() || self.0.len() >= MAX_LINE {
                lines.push(std::mem::take(&mut self.0));
            }
        }
        lines
    }

    fn rest(&mut self) -> Vec<Vec<u8>> {
        if self.0.is_empty() { Vec::new() } else { vec![std::mem::take(&mut self.0)] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines_and_memory_stays_bounded() {
        let mut buffer = LineBuffer::default();
        assert_eq!(buffer.push(b"a"), Vec::<Vec<u8>>::new());
        assert_eq!(buffer.push(b"b\nc\n\nd"), [&b"ab"[..], b"c", b""]);
        assert_eq!(buffer.rest(), [b"d"]);
        assert_eq!(buffer.rest(), Vec::<Vec<u8>>::new());
        for _ in 0..100 {
            buffer.push(&[b'x'; 10_000]);
            assert!(buffer.0.len() < MAX_LINE);
        }
    }
}
