//! Waits for a process: hands its output on, passes a cancel on, and sees its end.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_send_signal, waitid};

use super::prepare::Captured;
use super::{ExecuteError, Exit};
use crate::cancel::{CancelToken, Cancelled};
use crate::progress::Stream;

/// Between the SIGTERM of a cancel and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// How often it is looked whether the children of a process that is held have ended.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Largest piece of output, in bytes; the size of a pipe.
const PIECE: usize = 64 * 1024;

/// A started process.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pidfd: OwnedFd,
    /// Valid until it is waited for.
    pub(super) pid: u32,
    pub(super) captured: Option<Captured>,
}

/// Waits until the process has ended, and with it its pid namespace, and everything that was in its pipes is read.
pub(super) fn wait(
    running: &Running,
    output: &mut dyn FnMut(Stream, &[u8]),
    cancel: &CancelToken,
) -> Result<Exit, ExecuteError> {
    let ended = pump(running, output, cancel);
    if ended.is_err() {
        let _ = pidfd_send_signal(&running.pidfd, Signal::KILL);
    }
    let exit = reap(&running.pidfd)?;
    ended?;
    Ok(exit)
}

/// Ends a process that never got to its program.
pub(super) fn reap(pidfd: &OwnedFd) -> Result<Exit, ExecuteError> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                let signal = status.terminating_signal().map(Exit::Signal);
                return signal.or(status.exit_status().map(Exit::Code)).ok_or(ExecuteError::StatusLost);
            }
            Err(Errno::INTR) => {}
            _ => return Err(ExecuteError::StatusLost),
        }
    }
}

fn pump(running: &Running, output: &mut dyn FnMut(Stream, &[u8]), cancel: &CancelToken) -> Result<(), ExecuteError> {
    let setup = |source: io::Error| ExecuteError::Setup { what: "waiting for the process", source };
    let mut buffer = vec![0; if running.captured.is_some() { PIECE } else { 0 }];
    let mut streams: Vec<(Stream, BorrowedFd<'_>)> = Vec::with_capacity(2);
    if let Some(captured) = &running.captured {
        streams.push((Stream::Stdout, captured.stdout.as_fd()));
        streams.push((Stream::Stderr, captured.stderr.as_fd()));
    }
    let cancel_event = cancel.fd().map_err(setup)?;
    // Set once the process was told to end.
    let mut kill_at: Option<Instant> = None;
    // Whether the first process is held, so that it starts nothing more, while its children end.
    let mut is_held = false;
    loop {
        let mut set = vec![PollFd::new(&running.pidfd, PollFlags::IN)];
        set.extend(streams.iter().map(|(_, end)| PollFd::from_borrowed_fd(*end, PollFlags::IN)));
        if kill_at.is_none() {
            set.push(PollFd::from_borrowed_fd(cancel_event, PollFlags::IN));
        }
        let timeout = kill_at.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(|left| if is_held { left.min(LOOK_AGAIN) } else { left });
        let timeout =
            timeout.map(|left| Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() });
        match poll(&mut set, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(setup(errno.into())),
        }
        let ended = !set[0].revents().is_empty();
        let ready: Vec<bool> = set.iter().skip(1).map(|polled| !polled.revents().is_empty()).collect();
        drop(set);
        if ended {
            // Nothing that could write is left; what is still in the pipes is all there will be.
            for (stream, end) in streams {
                while read(end, &mut buffer, stream, output) == More::Yes {}
            }
            return if kill_at.is_some() { Err(Cancelled.into()) } else { Ok(()) };
        }
        let mut at = 0;
        streams.retain(|(stream, end)| {
            at += 1;
            !ready[at - 1] || read(*end, &mut buffer, *stream, output) != More::Closed
        });
        match kill_at {
            None if cancel.is_cancelled() => {
                is_held = !handles_term(running.pid);
                if is_held {
                    let _ = pidfd_send_signal(&running.pidfd, Signal::STOP);
                }
                terminate(running);
                kill_at = Some(Instant::now() + GRACE);
            }
            Some(at) if at <= Instant::now() || (is_held && !has_children(running.pid)) => {
                let _ = pidfd_send_signal(&running.pidfd, Signal::KILL);
                kill_at = Some(Instant::now() + GRACE);
                is_held = false;
            }
            _ => {}
        }
    }
}

/// Asks the process, and what is in its process group, to end. The kernel drops the signal for a first process without a handler, but
/// a shell's children get it. Such a shell is stopped before, which nothing in its namespace could do: it would go on with the next
/// command of its script.
fn terminate(running: &Running) {
    let group = i32::try_from(running.pid).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::TERM);
    }
}

/// Whether a process has a handler for SIGTERM; if that cannot be told, it may.
fn handles_term(pid: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_none_or(|mask| mask & 1 << (libc::SIGTERM - 1) != 0)
}

/// Whether a first process has children that have not ended; whatever lives in its namespace is below one of them. If that
/// cannot be told, there may be some.
fn has_children(pid: u32) -> bool {
    let lives = |child: &str| {
        // The name, in brackets, may hold anything.
        let stat = fs::read_to_string(format!("/proc/{child}/stat"));
        stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
    };
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().any(|thread| match fs::read_to_string(thread.path().join("children")) {
        Ok(children) => children.split_whitespace().any(lives),
        Err(_) => true,
    })
}

#[derive(Debug, PartialEq, Eq)]
enum More {
    Yes,
    NotNow,
    Closed,
}

fn read(end: BorrowedFd<'_>, buffer: &mut [u8], stream: Stream, output: &mut dyn FnMut(Stream, &[u8])) -> More {
    match rustix::io::read(end, &mut *buffer) {
        Ok(0) => More::Closed,
        Ok(length) => {
            output(stream, &buffer[..length]);
            More::Yes
        }
        Err(Errno::AGAIN | Errno::INTR) => More::NotNow,
        Err(_) => More::Closed,
    }
}
