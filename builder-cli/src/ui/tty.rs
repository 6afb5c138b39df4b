//! Progress on a terminal: a view that is redrawn in place.
//!
//! ```text
//! [+] Building 3.2s (5/9)
//!  => CACHED [build 2/4] RUN configure                                       0.0s
//!  => [build 3/4] RUN make                                                   2.9s
//!  => => # cc -c main.c
//! ```
//!
//! Each frame is one write that hides the cursor at its start and shows it at its end, so that whatever ends this
//! process leaves a usable terminal. Every line is cut to the width of the terminal: a line that wraps cannot be
//! redrawn.

use std::fmt::Write as _;
use std::time::SystemTime;

use builder_core::progress::Outcome;

use super::state::{State, Task};
use super::style::{Paint, Style};
use super::{escape, plain};

/// Lines of output shown below a running step, unless `BUILDKIT_TTY_LOG_LINES` says otherwise.
pub(super) const LOG_LINES: usize = 6;

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// The live view.
#[derive(Debug)]
pub(super) struct Tty {
    paint: Paint,
    log_lines: usize,
    begin: SystemTime,
    /// Widths of the lines of the last frame.
    drawn: Vec<usize>,
}

/// One line of the view: text, its style, and what stands at the right edge.
struct Row {
    text: String,
    style: Option<Style>,
    right: String,
    /// May be left out when there is no room.
    minor: bool,
}

impl Tty {
    pub(super) fn new(paint: Paint, log_lines: usize) -> Self {
        Self { paint, log_lines, begin: SystemTime::now(), drawn: Vec::new() }
    }

    /// The next frame. The last one shows everything; others only as much as fits.
    pub(super) fn frame(&mut self, state: &State, size: Size, now: SystemTime, last: bool) -> String {
        let mut rows = vec![self.heading(state, now, last)];
        for task in state.order.iter().filter_map(|id| state.tasks.get(id)) {
            self.task(task, now, last, &mut rows);
        }
        if !last {
            shrink(&mut rows, size.rows.saturating_sub(1).max(2));
        }
        let mut out = String::from("\x1b[?25l");
        // A terminal that became narrower has wrapped the old lines.
        let up: usize = self.drawn.iter().map(|width| width.div_ceil(size.columns).max(1)).sum();
        if up > 0 {
            let _ = write!(out, "\x1b[{up}A");
        }
        out.push('\r');
        self.drawn.clear();
        for row in &rows {
            let line = fit(row, size.columns);
            self.drawn.push(escape::width(&line));
            out.push_str("\x1b[2K");
            out.push_str(&row.style.map_or_else(|| line.clone(), |style| self.paint.on(style, &line)));
            out.push('\n');
        }
        out.push_str("\x1b[J\x1b[?25h");
        out
    }

    fn heading(&self, state: &State, now: SystemTime, last: bool) -> Row {
        let elapsed = now.duration_since(self.begin).unwrap_or_default().as_secs_f64();
        let (done, all) = state.counts();
        // What nobody needed in the end is no part of the build.
        let all = if last { state.order.len() } else { all };
        let mut text = format!("[+] Building {elapsed:.1}s ({done}/{all})");
        let failed = state.failed().is_some();
        if last {
            text.push_str(match (failed, state.is_cancelled()) {
                (true, _) => " ERROR",
                (false, true) => " CANCELED",
                (false, false) => " FINISHED",
            });
        } else if let Some(moved) = plain::moved(state) {
            let _ = write!(text, " {moved}");
        }
        let style = match (last, failed) {
            (true, true) => Some(Style::Error),
            (true, false) => Some(Style::Done),
            (false, _) => None,
        };
        Row { text, style, right: String::new(), minor: false }
    }

    fn task(&self, task: &Task, now: SystemTime, last: bool, rows: &mut Vec<Row>) {
        let (mark, style) = match &task.ended {
            Some((_, Outcome::Done)) => ("", Some(Style::Done)),
            Some((_, Outcome::Cached)) => ("CACHED ", Some(Style::Done)),
            Some((_, Outcome::Cancelled)) => ("CANCELED ", Some(Style::Warning)),
            Some((_, Outcome::Failed(_))) => ("ERROR ", Some(Style::Error)),
            None => ("", None),
        };
        let right = format!("{:.1}s", task.elapsed(now).as_secs_f64());
        rows.push(Row { text: format!(" => {mark}{}", task.name), style, right, minor: task.ended.is_some() });
        for status in &task.statuses {
            let bytes = status.bytes();
            let gap = if bytes.is_empty() { "" } else { "  " };
            let text = format!(" => => {}", status.id);
            let right = format!("{bytes}{gap}{:.1}s", status.elapsed(now).as_secs_f64());
            rows.push(Row { text, style: status.finished.then_some(Style::Done), right, minor: true });
        }
        if task.is_running() && !last {
            let skip = task.tail.len().saturating_sub(self.log_lines);
            for line in task.tail.iter().skip(skip) {
                let text = format!(" => => # {line}");
                rows.push(Row { text, style: Some(Style::Dim), right: String::new(), minor: true });
            }
        }
    }
}

/// Leaves out minor rows from the top, then any, until `room` rows are left; the heading stays.
fn shrink(rows: &mut Vec<Row>, room: usize) {
    let mut excess = rows.len().saturating_sub(room);
    let mut first = true;
    rows.retain(|row| {
        let drop = !first && excess > 0 && row.minor;
        first = false;
        excess -= usize::from(drop);
        !drop
    });
    let excess = rows.len().saturating_sub(room);
    rows.drain(1..=excess);
}

/// The line of a row, with its right part at the right edge. The last column stays free: a full line would wrap.
fn fit(row: &Row, columns: usize) -> String {
    let columns = columns.saturating_sub(1);
    let right = escape::width(&row.right);
    if right == 0 || right + 8 > columns {
        return escape::fit(&row.text, columns).into_owned();
    }
    let text = escape::fit(&row.text, columns - right - 1);
    format!("{text}{}{}", " ".repeat(columns - escape::width(&text) - right), row.right)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use builder_core::progress::{Event, Stream, TaskId};

    use super::*;

    fn begin() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1000)
    }

    fn state(tasks: u64) -> State {
        let mut state = State::default();
        for id in 0..tasks {
            let name = format!("[{}/{tasks}] RUN step 漢字 {}", id + 1, "x".repeat(100));
            let task = TaskId(id);
            state.apply(Event::Declared { task, name, inputs: Vec::new(), digest: String::new() });
            state.apply(Event::Started { task, at: begin() });
            if id + 1 < tasks {
                state.apply(Event::Finished { task, at: begin(), outcome: Outcome::Cached });
            }
        }
        let (task, stream, at) = (TaskId(tasks - 1), Stream::Stdout, begin());
        for n in 0..30 {
            state.apply(Event::Output {
                task,
                stream,
                at,
                bytes: format!("line {n} \x1b[2J{}\n", "y".repeat(n * 9)).into_bytes(),
            });
        }
        state
    }

    fn draw(frames: &[(u64, Size, bool)]) -> vt100::Parser {
        let size = frames.last().expect("a frame").1;
        let mut screen = vt100::Parser::new(
            u16::try_from(size.rows).expect("small"),
            u16::try_from(size.columns).expect("small"),
            100,
        );
        let mut tty = Tty { paint: Paint::new(true), log_lines: LOG_LINES, begin: begin(), drawn: Vec::new() };
        for (tasks, size, last) in frames {
            let frame = tty.frame(&state(*tasks), *size, begin() + Duration::from_millis(2500), *last);
            screen.process(frame.replace('\n', "\r\n").as_bytes());
        }
        screen
    }

    #[test]
    fn frames_replace_each_other_and_no_line_wraps() {
        let size = Size { columns: 80, rows: 24 };
        let screen = draw(&[(1, size, false), (2, size, false), (3, size, false)]);
        let text = screen.screen().contents();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4 + LOG_LINES, "{text}");
        assert_eq!(lines[0], "[+] Building 2.5s (2/3)");
        assert!(lines[1].starts_with(" => CACHED [1/3] RUN step 漢字 xxx") && lines[1].ends_with("... 0.0s"), "{text}");
        assert!(lines[3].ends_with("... 2.5s"), "{text}");
        assert!(lines[4].starts_with(" => => # line 24 yyy"), "{text}");
        assert!(lines[9].starts_with(" => => # line 29 yyy"), "{text}");
        assert!(!screen.screen().hide_cursor());
    }

    #[test]
    fn a_small_terminal_shows_what_runs() {
        let size = Size { columns: 30, rows: 6 };
        let text = draw(&[(20, size, false), (20, size, false)]).screen().contents();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "[+] Building 2.5s (19/20)");
        assert!(lines.iter().any(|line| line.starts_with(" => [20/20]")), "{text}");
        assert!(lines.len() <= 5, "{text}");
    }

    #[test]
    fn the_last_frame_shows_every_step() {
        let size = Size { columns: 80, rows: 10 };
        let mut tty = Tty { paint: Paint::plain(), log_lines: LOG_LINES, begin: begin(), drawn: Vec::new() };
        let frame = tty.frame(&state(20), size, begin(), true);
        assert_eq!(frame.matches("CACHED").count(), 19);
        assert!(frame.contains("(19/20) FINISHED"));
        assert!(!frame.contains("line 29"));
    }

    #[test]
    fn a_tiny_terminal_does_no_harm() {
        for columns in 0..12 {
            draw(&[(3, Size { columns: columns.max(1), rows: 1 }, false)]);
        }
    }
}
