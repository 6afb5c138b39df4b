//! [`PrivateNetwork`]: a network namespace that reaches out through the host, while nothing of the host's loopback or abstract
//! sockets can be reached from it.
//!
//! `slirp4netns(1)` carries the packets, without any rights: it is a child of this process, and ends with it, because
//! both hold an end of one socket.

use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, socketpair};

use crate::diagnostic::Diagnostic;
use crate::sys::child;

/// The address of the name server that the helper plays; it asks those of the host, whatever they are.
pub const PRIVATE_NAME_SERVER: &str = "10.0.2.3";

/// How long the helper may take until the network works. It takes some 20 ms.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A network namespace with its helper; both go when this is dropped.
#[derive(Debug)]
pub struct PrivateNetwork {
    namespace: OwnedFd,
    helper: Child,
    /// The helper ends when this is closed.
    life: Option<UnixStream>,
    /// Stays open: writing to a closed one would end the helper.
    _ready: OwnedFd,
}

/// A private network cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PrivateNetworkError {
    /// The namespace.
    #[error("cannot make a private network")]
    Namespace(#[source] io::Error),
    /// The helper does not start.
    #[error("cannot run `{}`", helper.display())]
    Start {
        /// The program.
        helper: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The helper ended, or did not get ready in time.
    #[error("`{}` cannot set the network up: {said}", helper.display())]
    Helper {
        /// The program.
        helper: PathBuf,
        /// What it wrote.
        said: String,
    },
}

impl Diagnostic for PrivateNetworkError {
    fn hint(&self) -> Option<String> {
        Some("use the host's network with `--network=host`, or none with `--network=none`".to_owned())
    }
}

impl PrivateNetwork {
    /// Makes a network namespace, and connects it through `helper`, a `slirp4netns`.
    ///
    /// # Errors
    /// Every case of [`PrivateNetworkError`].
    pub fn start(helper: &Path) -> Result<Self, PrivateNetworkError> {
        let namespace = new_namespace().map_err(PrivateNetworkError::Namespace)?;
        let start = |source| PrivateNetworkError::Start { helper: helper.to_owned(), source };
        let (life, theirs) = UnixStream::pair().map_err(start)?;
        // With the limits of messages kept: what it prints for people is on the same descriptor as the sign that it is ready.
        let kind = SocketType::SEQPACKET;
        let (ready, out) =
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).map_err(|e| start(e.into()))?;
        let mut said = tempfile::tempfile().map_err(start)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        let mut child = Command::new(helper)
            .args(["--configure", "--mtu=65520", "--disable-host-loopback"])
            // It ends when the other end of its standard input is gone.
            .args(["--ready-fd=1", "--exit-fd=0", "--netns-type=path"])
            .args([&path, "tap0"])
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::from(out))
            // A file: a pipe that nobody reads later would stop it.
            .stderr(said.try_clone().map_err(start)?)
            .spawn()
            .map_err(start)?;
        if is_ready(&ready) {
            return Ok(Self { namespace, helper: child, life: Some(life), _ready: ready });
        }
        drop(life);
        let _ = child.kill();
        let _ = child.wait();
        let mut text = String::new();
        let _ = said.rewind().and_then(|()| said.read_to_string(&mut text));
        let said = text.trim().replace('\n', "; ");
        Err(PrivateNetworkError::Helper { helper: helper.to_owned(), said })
    }

    /// The namespace, for a process to join.
    ///
    /// # Errors
    /// If there are too many open files.
    pub fn namespace(&self) -> io::Result<OwnedFd> {
        self.namespace.try_clone()
    }
}

impl Drop for PrivateNetwork {
    fn drop(&mut self) {
        drop(self.life.take());
        let _ = self.helper.wait();
    }
}

/// Waits for the message `1`.
fn is_ready(socket: &OwnedFd) -> bool {
    let until = Instant::now() + READY_WITHIN;
    let mut message = [0; 256];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => continue,
            Ok(1..) => {}
            _ => return false,
        }
        match rustix::io::read(socket, &mut message) {
            Ok(1) if message[0] == b'1' => return true,
            Ok(1..) | Err(Errno::INTR) => {}
            _ => return false,
        }
    }
}

/// A network namespace with only a loopback device, which is up. It lives as long as the descriptor, or what joined it.
fn new_namespace() -> io::Result<OwnedFd> {
    // On a thread of its own, which alone is moved into it.
    let made = thread::spawn(|| {
        child::unshare_network()?;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        child::loopback_up(socket.as_fd())?;
        Ok(openat(CWD, c"/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    });
    made.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

/// Opens the network namespace that a path names, as `/run/netns/NAME` or `/proc/PID/ns/net`.
///
/// # Errors
/// If it cannot be opened, or is no namespace.
pub fn open_network_namespace(path: &Path) -> io::Result<OwnedFd> {
    let file = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    // `NSFS_MAGIC` of linux/magic.h.
    if rustix::fs::fstatfs(&file)?.f_type == 0x6e73_6673 { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}
