//! Progress as lines that only ever get added, in BuildKit's form:
//!
//! ```text
//! #5 [build 2/4] RUN make
//! #5 0.123 cc -c main.c
//! #5 DONE 0.2s
//! ```
//!
//! Tasks that run at the same time take turns: what a task says while another has the word waits until that one ends
//! or has been silent for a moment. `...` marks a task that will go on below.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use builder_core::progress::{Event, Outcome, TaskId};

use super::excerpt::excerpt;
use super::state::{State, Task};
use super::style::{Paint, Style};
use super::{escape, units};

/// A task that said nothing for this long loses the word to one that waits.
const SILENCE: Duration = Duration::from_millis(400);

/// A waiting task with this much text gets the word at once.
const MAX_WAITING: usize = 256 << 10;

/// A task that has waited for this long gets the word, however much the other says.
const PATIENCE: Duration = Duration::from_secs(3);

/// Plain progress.
#[derive(Debug)]
pub(super) struct Plain {
    paint: Paint,
    /// Step output goes to a terminal: only its colours are let through.
    terminal: bool,
    current: Option<TaskId>,
    spoke: SystemTime,
    /// Text that is not shown yet, and since when it waits.
    waiting: BTreeMap<TaskId, (SystemTime, Vec<u8>)>,
    /// Bytes of each status when it was last shown.
    shown: BTreeMap<(TaskId, String), (SystemTime, bool)>,
}

impl Plain {
    pub(super) fn new(paint: Paint, terminal: bool) -> Self {
        Self {
            paint,
            terminal,
            current: None,
            spoke: SystemTime::UNIX_EPOCH,
            waiting: BTreeMap::new(),
            shown: BTreeMap::new(),
        }
    }

    /// Takes an event; `state` has it already, `lines` are the lines of output that it completed.
    pub(super) fn event(&mut self, event: &Event, lines: &[Vec<u8>], state: &State, out: &mut Vec<u8>) {
        let now = SystemTime::now();
        let Some(id) = task_of(event) else { return };
        let Some(task) = state.tasks.get(&id) else { return };
        let Some(number) = task.number else { return };
        let mut text = Vec::new();
        for line in lines {
            self.line(number, task, event, line, &mut text);
        }
        match event {
            Event::Status { id: part, .. } => self.status(number, id, part, task, &mut text),
            Event::Finished { .. } => self.end(number, task, &mut text),
            _ => {}
        }
        let ended = task.ended.is_some();
        let announces = matches!(event, Event::Started { .. });
        if text.is_empty() && !announces {
            return;
        }
        if self.current.is_some_and(|current| current != id) && !ended {
            let (since, waiting) = self.waiting.entry(id).or_insert_with(|| (now, Vec::new()));
            waiting.extend(text);
            let patient = waiting.len() < MAX_WAITING && now.duration_since(*since).unwrap_or_default() < PATIENCE;
            if patient && now.duration_since(self.spoke).unwrap_or_default() < SILENCE {
                return;
            }
            text = Vec::new();
        }
        self.speak(id, &text, state, out);
        self.spoke = now;
        if ended {
            out.push(b'\n');
            self.current = None;
            self.waiting.remove(&id);
        }
    }

    /// Gives the word to a task that waits, if the current one is silent. Returns whether any still waits.
    pub(super) fn tick(&mut self, state: &State, out: &mut Vec<u8>) -> bool {
        let now = SystemTime::now();
        if now.duration_since(self.spoke).unwrap_or_default() >= SILENCE
            && let Some(id) = self.waiting.keys().next().copied()
        {
            self.speak(id, &[], state, out);
            self.spoke = now;
        }
        self.is_waiting()
    }

    /// Says whether a task has text that is not shown yet.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Shows what still waits.
    pub(super) fn finish(&mut self, state: &State, out: &mut Vec<u8>) {
        while let Some(id) = self.waiting.keys().next().copied() {
            self.speak(id, &[], state, out);
        }
        if self.current.take().is_some() {
            out.push(b'\n');
        }
    }

    /// Writes what a task has waiting and then `text`, after a heading if another task was speaking.
    fn speak(&mut self, id: TaskId, text: &[u8], state: &State, out: &mut Vec<u8>) {
        let name = |id: TaskId| state.tasks.get(&id).map_or((0, ""), |task| (task.number.unwrap_or(0), &*task.name));
        if self.current != Some(id) {
            if let Some(other) = self.current {
                // The other one comes back unless it has ended.
                let _ = writeln!(Text(out), "#{} ...\n", name(other).0);
            }
            let (number, name) = name(id);
            let _ = writeln!(Text(out), "#{number} {name}");
            self.current = Some(id);
        }
        if let Some((_, waiting)) = self.waiting.remove(&id) {
            out.extend(waiting);
        }
        out.extend_from_slice(text);
    }

    fn line(&self, number: usize, task: &Task, event: &Event, line: &[u8], text: &mut Vec<u8>) {
        let at = match event {
            Event::Output { at, .. } | Event::Finished { at, .. } => *at,
            _ => SystemTime::now(),
        };
        let elapsed = task.started.and_then(|start| at.duration_since(start).ok()).unwrap_or_default();
        let _ = write!(Text(text), "#{number} {} ", seconds(elapsed));
        if self.terminal {
            text.extend(colors_only(line));
        } else {
            // A log gets every byte as the step wrote it.
            text.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        }
        text.push(b'\n');
    }

    fn status(&mut self, number: usize, id: TaskId, part: &str, task: &Task, text: &mut Vec<u8>) {
        let Some(status) = task.statuses.iter().find(|status| status.id == escape::line(part)) else { return };
        let key = (id, status.id.clone());
        let due = match self.shown.get(&key) {
            Some((_, true)) => false,
            Some((at, false)) => {
                status.finished || status.updated.duration_since(*at).unwrap_or_default() >= Duration::from_secs(5)
            }
            None => true,
        };
        if !due {
            return;
        }
        let mut line = format!("#{number} {}", status.id);
        let bytes = status.bytes();
        if !bytes.is_empty() {
            line.push(' ');
            line.push_str(&bytes);
        }
        let elapsed = status.elapsed(status.updated);
        if elapsed >= Duration::from_millis(50) || status.finished {
            let _ = write!(line, " {:.1}s", elapsed.as_secs_f64());
        }
        if status.finished {
            line.push_str(" done");
        }
        self.shown.insert(key, (status.updated, status.finished));
        let _ = writeln!(Text(text), "{line}");
    }

    fn end(&self, number: usize, task: &Task, text: &mut Vec<u8>) {
        let Some((at, outcome)) = &task.ended else { return };
        let _ = match outcome {
            Outcome::Done => writeln!(Text(text), "#{number} DONE {:.1}s", task.elapsed(*at).as_secs_f64()),
            Outcome::Cached => writeln!(Text(text), "#{number} {}", self.paint.on(Style::Done, "CACHED")),
            Outcome::Cancelled => writeln!(Text(text), "#{number} CANCELED"),
            Outcome::Failed(message) => {
                let message = format!("ERROR: {}", escape::line(message));
                writeln!(Text(text), "#{number} {}", self.paint.on(Style::Error, &message))
            }
        };
    }
}

/// Formatting into bytes, which cannot fail.
struct Text<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn task_of(event: &Event) -> Option<TaskId> {
    match event {
        Event::Declared { task, .. }
        | Event::Started { task, .. }
        | Event::Finished { task, .. }
        | Event::Output { task, .. }
        | Event::Status { task, .. } => Some(*task),
        Event::Warning(_) => None,
    }
}

/// Four digits of seconds: `0.123`, `12.34`, `123.4`.
pub(super) fn seconds(elapsed: Duration) -> String {
    let value = elapsed.as_secs_f64();
    let digits = if value < 10.0 {
        3
    } else if value < 100.0 {
        2
    } else {
        1
    };
    format!("{value:.digits$}")
}

/// The line without control characters, except for SGR sequences (`ESC [ … m`), which change colours only.
fn colors_only(line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(line);
    let mut out = String::with_capacity(text.len());
    let mut colored = false;
    let mut rest = text.trim_end_matches('\r');
    if let Some((_, visible)) = rest.rsplit_once('\r') {
        rest = visible;
    }
    while let Some(at) = rest.find('\x1b') {
        out.push_str(&escape::output(&rest.as_bytes()[..at]));
        let tail = &rest[at..];
        let length = tail.strip_prefix("\x1b[").and_then(|tail| {
            let digits = tail.find(|c: char| !c.is_ascii_digit() && c != ';')?;
            tail[digits..].starts_with('m').then_some(2 + digits + 1)
        });
        if let Some(length) = length {
            out.push_str(&tail[..length]);
            colored = true;
            rest = &tail[length..];
        } else {
            // Not a colour: drop this sequence as a whole.
            let until_next = tail[1..].find('\x1b').map_or(tail.len(), |next| next + 1);
            out.push_str(&escape::output(&tail.as_bytes()[..until_next]));
            rest = &tail[until_next..];
        }
    }
    out.push_str(&escape::output(rest.as_bytes()));
    if colored {
        out.push_str("\x1b[0m");
    }
    out.into_bytes()
}

/// The last lines of a failed task, framed; nothing if it said nothing.
pub(super) fn failed_output(task: &Task, paint: Paint) -> String {
    if task.tail.is_empty() {
        return String::new();
    }
    let frame = paint.on(Style::Dim, "------");
    let mut out = format!("{frame}\n > {}:\n", task.name);
    for line in &task.tail {
        out.push_str(line);
        out.push('\n');
    }
    out.push_str(&frame);
    out.push('\n');
    out
}

/// The warnings of a build: what is doubtful in the Dockerfile as one list, in buildx's form, then the others.
pub(super) fn warnings(state: &State, expanded: bool, paint: Paint) -> String {
    let mut out = String::new();
    let (found, others): (Vec<_>, Vec<_>) = state.warnings.iter().partition(|warning| warning.place.is_some());
    if !found.is_empty() {
        let count = if found.len() == 1 { "1 warning".to_owned() } else { format!("{} warnings", found.len()) };
        let more = if expanded { "" } else { " (use --debug to expand)" };
        let _ = writeln!(out, "\n {}", paint.on(Style::Warning, &format!("{count} found{more}:")));
    }
    for warning in found {
        let _ = writeln!(out, " - {}", escape::line(&warning.short));
        if let (Some(place), true) = (&warning.place, expanded) {
            for line in &warning.detail {
                let _ = writeln!(out, "{}", escape::line(line));
            }
            if let Some(url) = &warning.url {
                let _ = writeln!(out, "More info: {url}");
            }
            let _ = writeln!(out, "{}", excerpt(&place.source, place.first, place.last));
        }
    }
    for warning in others {
        let _ = writeln!(out, "{} {}", paint.on(Style::Warning, "warning:"), escape::line(&warning.short));
        for line in &warning.detail {
            let _ = writeln!(out, "  {}", escape::line(line));
        }
    }
    out
}

/// `12.3MB`, for use in headings of the live view.
pub(super) fn moved(state: &State) -> Option<String> {
    let running = state.tasks.values().filter(|task| task.is_running());
    let (current, total) = running
        .flat_map(|task| &task.statuses)
        .filter(|status| !status.finished)
        .fold((0, 0), |(current, total), status| (current + status.current, total + status.total.unwrap_or(0)));
    (total > 0).then(|| format!("{} / {}", units::size(current), units::size(total)))
}

#[cfg(test)]
mod tests {
    use builder_core::progress::Stream;

    use super::*;

    fn play(events: Vec<Event>) -> String {
        let mut state = State::default();
        let mut plain = Plain::new(Paint::plain(), false);
        let mut out = Vec::new();
        for event in events {
            let lines = state.apply(event.clone());
            plain.event(&event, &lines, &state, &mut out);
        }
        plain.finish(&state, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + millis)
    }

    fn declared(id: u64, name: &str) -> Event {
        Event::Declared { task: TaskId(id), name: name.to_owned(), inputs: Vec::new(), digest: format!("sha256:{id}") }
    }

    fn started(id: u64) -> Event {
        Event::Started { task: TaskId(id), at: at(0) }
    }

    fn output(id: u64, millis: u64, bytes: &[u8]) -> Event {
        Event::Output { task: TaskId(id), stream: Stream::Stdout, at: at(millis), bytes: bytes.to_vec() }
    }

    fn finished(id: u64, millis: u64, outcome: Outcome) -> Event {
        Event::Finished { task: TaskId(id), at: at(millis), outcome }
    }

    #[test]
    fn a_step_has_a_heading_its_lines_and_an_end() {
        let text = play(vec![
            declared(1, "[1/2] FROM base"),
            declared(2, "[2/2] RUN make"),
            finished(1, 0, Outcome::Cached),
            started(2),
            output(2, 123, b"one\ntw"),
            output(2, 12_345, b"o\nrest\xff"),
            finished(2, 20_000, Outcome::Failed("exit code: 2".to_owned())),
        ]);
        assert_eq!(
            text,
            "#1 [1/2] FROM base\n#1 CACHED\n\n#2 [2/2] RUN make\n#2 0.123 one\n#2 12.35 two\n\
             #2 20.00 rest\u{fffd}\n#2 ERROR: exit code: 2\n\n"
        );
    }

    #[test]
    fn tasks_at_the_same_time_take_turns() {
        let text = play(vec![
            declared(1, "a"),
            declared(2, "b"),
            started(1),
            started(2),
            output(1, 1, b"a1\n"),
            output(2, 2, b"b1\n"),
            output(1, 3, b"a2\n"),
            finished(2, 5, Outcome::Done),
            output(1, 6, b"a3\n"),
            finished(1, 7, Outcome::Done),
        ]);
        assert_eq!(
            text,
            "#1 a\n#1 0.001 a1\n#1 0.003 a2\n#1 ...\n\n#2 b\n#2 0.002 b1\n#2 DONE 0.0s\n\n\
             #1 a\n#1 0.006 a3\n#1 DONE 0.0s\n\n"
        );
    }

    #[test]
    fn on_a_terminal_steps_change_colours_only() {
        assert_eq!(colors_only(b"\x1b[31mred\x1b[2J!\x1b[m\x07"), b"\x1b[31mred!\x1b[m\x1b[0m");
        assert_eq!(colors_only(b"10%\r20%"), b"20%");
        assert_eq!(colors_only(b"\x1b"), b"");
    }
}
