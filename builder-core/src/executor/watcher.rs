//! [`Watcher`]: a small process that ends running processes when this one is killed.
//!
//! The kernel does that too, through `PR_SET_PDEATHSIG`, but forgets it when a process executes a setuid program. The watcher
//! holds one end of a socket; when the other end goes away without a farewell, it kills what it knows of and removes the cgroups. It
//! shares this program's memory, keeps none of its descriptors, and sleeps in `poll(2)`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, setsid, waitid};

use super::cgroup::StepCgroup;
use crate::sys::child;
use crate::sys::clone::{Stack, spawn_beside};

#[derive(Debug)]
pub(super) struct Watcher {
    /// `None` once dropped: closing it is the farewell.
    socket: Option<OwnedFd>,
    pidfd: OwnedFd,
    /// What it runs on; freed after its end.
    _stack: Stack,
}

/// Descriptors in one message: a pidfd and the directories that hold the process's cgroups.
const MESSAGE_DESCRIPTORS: usize = 8;
/// Longest name of a cgroup, in bytes.
const NAME_MAX: usize = 64;
/// Processes that it knows at the same time; more than that have only the kernel's signal.
const CAPACITY: usize = 128;

impl Watcher {
    pub(super) fn start() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let mut stack = Stack::new()?;
        let (pidfd, _) = spawn_beside(&mut stack, 0, theirs.as_raw_fd(), watch)?;
        Ok(Self { socket: Some(socket), pidfd, _stack: stack })
    }

    /// Tells it about a process. It forgets the process by itself when that ends.
    pub(super) fn add(&self, pidfd: BorrowedFd<'_>, cgroup: &StepCgroup) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let parents = cgroup.parents.iter().map(AsFd::as_fd);
        let descriptors: Vec<BorrowedFd<'_>> = [pidfd].into_iter().chain(parents).take(MESSAGE_DESCRIPTORS).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(socket, &[IoSlice::new(cgroup.name.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // A message without descriptors is the farewell: then it kills nothing.
        if let Some(socket) = self.socket.take() {
            let _ = rustix::net::send(&socket, b"\0", SendFlags::NOSIGNAL);
        }
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

/// A process that the watcher knows. Raw descriptors, because dropping owned ones would use `errno`, which is another thread's.
#[derive(Clone, Copy)]
struct Entry {
    descriptors: [RawFd; MESSAGE_DESCRIPTORS],
    name: [u8; NAME_MAX],
    name_length: usize,
}

const NOTHING: Entry = Entry { descriptors: [-1; MESSAGE_DESCRIPTORS], name: [0; NAME_MAX], name_length: 0 };

/// The watcher: only raw system calls from here on, no allocation, no `errno`, no panic.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that `spawn_beside` calls")]
fn watch(socket: &i32) -> i32 {
    let _ = setsid();
    let _ = rustix::process::chdir(c"/");
    child::keep_only(*socket);
    // Now it is descriptor 0.
    let socket = child::borrow_descriptor(0);
    let mut entries = [NOTHING; CAPACITY];
    let mut known = 0;
    loop {
        wait_for_news(socket, &mut entries, &mut known);
        match receive(socket) {
            News::Process(entry) => match entries.get_mut(known) {
                Some(slot) => {
                    *slot = entry;
                    known += 1;
                }
                None => close_entry(&entry),
            },
            News::Nothing => {}
            News::Farewell => return 0,
            News::Killed => {
                for entry in entries.iter().take(known) {
                    end(entry);
                }
                return 0;
            }
        }
    }
}

/// Sleeps until the socket has something; forgets processes that end meanwhile.
fn wait_for_news(socket: BorrowedFd<'_>, entries: &mut [Entry; CAPACITY], known: &mut usize) {
    loop {
        let mut set: [PollFd<'_>; CAPACITY + 1] = std::array::from_fn(|at| {
            let descriptor = at.checked_sub(1).and_then(|at| entries.get(at)).map_or(-1, |entry| entry.descriptors[0]);
            // The kernel skips negative descriptors, but a borrowed one cannot be negative: the socket stands in.
            PollFd::from_borrowed_fd(
                if descriptor < 0 { socket } else { child::borrow_descriptor(descriptor) },
                PollFlags::IN,
            )
        });
        let Some(used) = set.get_mut(..=*known) else { return };
        if poll(used, None).is_err() {
            continue;
        }
        let news = used.first().is_some_and(|socket| !socket.revents().is_empty());
        let mut ended = [false; CAPACITY];
        for (flag, polled) in ended.iter_mut().zip(used.iter().skip(1)) {
            *flag = !polled.revents().is_empty();
        }
        let mut at = 0;
        let mut kept = 0;
        while at < *known {
            if ended[at] {
                close_entry(&entries[at]);
            } else {
                entries[kept] = entries[at];
                kept += 1;
            }
            at += 1;
        }
        while kept < *known {
            *known -= 1;
            entries[*known] = NOTHING;
        }
        if news {
            return;
        }
    }
}

enum News {
    Process(Entry),
    Nothing,
    Farewell,
    Killed,
}

fn receive(socket: BorrowedFd<'_>) -> News {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut entry = NOTHING;
    let mut name = [IoSliceMut::new(&mut entry.name)];
    let received = match recvmsg(socket, &mut name, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
        Ok(received) => received.bytes,
        Err(Errno::INTR) => return News::Nothing,
        Err(_) => 0,
    };
    let mut count = 0;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            for descriptor in descriptors {
                if let Some(slot) = entry.descriptors.get_mut(count) {
                    *slot = descriptor.into_raw_fd();
                    count += 1;
                }
            }
        }
    }
    entry.name_length = received;
    match (received, count) {
        (0, 0) => News::Killed,
        (_, 0) => News::Farewell,
        _ => News::Process(entry),
    }
}

/// Kills a process, waits for its end and removes its cgroups.
fn end(entry: &Entry) {
    let pidfd = child::borrow_descriptor(entry.descriptors[0]);
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    let mut set = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    let _ = poll(&mut set, Some(&Timespec { tv_sec: 10, tv_nsec: 0 }));
    let mut name = [0; NAME_MAX + 1];
    for (to, from) in name.iter_mut().zip(entry.name.iter().take(entry.name_length.min(NAME_MAX))) {
        *to = *from;
    }
    let Ok(name) = std::ffi::CStr::from_bytes_until_nul(&name) else { return };
    for parent in entry.descriptors.iter().skip(1).take_while(|descriptor| **descriptor >= 0) {
        let parent = child::borrow_descriptor(*parent);
        let mut tries = 0;
        // Busy until whoever inherited the process has waited for it.
        while unlinkat(parent, name, AtFlags::REMOVEDIR) == Err(Errno::BUSY) && tries < 1000 {
            let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
            tries += 1;
        }
    }
}

fn close_entry(entry: &Entry) {
    for descriptor in entry.descriptors.iter().take_while(|descriptor| **descriptor >= 0) {
        child::close_descriptor(*descriptor);
    }
}
