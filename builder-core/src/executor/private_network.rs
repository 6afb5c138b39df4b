//! [`PrivateNetwork`]: a network namespace that reaches out through the host, while nothing of the host's loopback or abstract
//! sockets can be reached from it.
//!
//! `slirp4netns(1)` or `pasta(1)` carries the packets, without any rights: it is a child of this process, and ends with it. The first
//! ends when a socket does of which both hold an end, the second is ended by a [`Watcher`].

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
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
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::cgroup::StepCgroup;
use super::watcher::Watcher;
use crate::diagnostic::Diagnostic;
use crate::sys::child;

/// A program that carries packets between a namespace and the network of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkHelper {
    /// Which one.
    pub kind: HelperKind,
    /// Where it is.
    pub program: PathBuf,
    /// More options of its command line; later ones win.
    pub options: Vec<String>,
}

/// The helpers that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelperKind {
    /// `slirp4netns(1)`
    Slirp4netns,
    /// `pasta(1)`
    Pasta,
}

impl HelperKind {
    /// All, the one to be tried first at the front: it holds the longest back from the host's own addresses.
    pub const ALL: [Self; 2] = [Self::Slirp4netns, Self::Pasta];

    /// The name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slirp4netns => "slirp4netns",
            Self::Pasta => "pasta",
        }
    }

    /// The address of the name server that the helper plays; it asks those of the host, whatever they are.
    pub fn name_server(self) -> IpAddr {
        IpAddr::V4(match self {
            Self::Slirp4netns => Ipv4Addr::new(10, 0, 2, 3),
            Self::Pasta => PASTA_NAME_SERVER,
        })
    }
}

/// Link-local: no network that the host is in has it.
const PASTA_NAME_SERVER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// How long the helper may take until the network works. It takes some 20 ms.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A network namespace with its helper; both go when this is dropped.
#[derive(Debug)]
pub struct PrivateNetwork {
    namespace: OwnedFd,
    kind: HelperKind,
    helper: Child,
    /// How it ends.
    life: Life,
    /// Tells when the network works. Stays open: writing to a closed one would end the helper.
    ready: OwnedFd,
}

/// What ends a helper.
#[derive(Debug)]
enum Life {
    /// That the other end of its socket is closed.
    Socket(Option<UnixStream>),
    /// A signal, of ours or of the watcher's.
    Signal { _watcher: Watcher },
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
    /// Makes a network namespace, and connects it through `helper`.
    ///
    /// # Errors
    /// Every case of [`PrivateNetworkError`].
    pub fn start(helper: &NetworkHelper) -> Result<Self, PrivateNetworkError> {
        let namespace = new_namespace().map_err(PrivateNetworkError::Namespace)?;
        let start = |source| PrivateNetworkError::Start { helper: helper.program.clone(), source };
        let mut said = tempfile::tempfile().map_err(start)?;
        let mut network = match helper.kind {
            HelperKind::Slirp4netns => slirp4netns(helper, namespace, &said),
            HelperKind::Pasta => pasta(helper, namespace, &said),
        }
        .map_err(start)?;
        if network.is_ready() {
            return Ok(network);
        }
        let _ = network.helper.kill();
        drop(network);
        let mut text = String::new();
        let _ = said.rewind().and_then(|()| said.read_to_string(&mut text));
        // `pasta` complains of a missing syslog between all other lines.
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.ends_with("bytes to syslog"));
        let said = lines.collect::<Vec<_>>().join("; ");
        Err(PrivateNetworkError::Helper { helper: helper.program.clone(), said })
    }

    /// The namespace, for a process to join.
    ///
    /// # Errors
    /// If there are too many open files.
    pub fn namespace(&self) -> io::Result<OwnedFd> {
        self.namespace.try_clone()
    }

    /// The name server to ask in it.
    pub fn name_server(&self) -> IpAddr {
        self.kind.name_server()
    }

    /// The address under which this machine is reached in it, apart from its loopback device: its own, if it has one. `pasta` gives that to
    /// the namespace.
    pub fn gateway(&self) -> Option<IpAddr> {
        match self.kind {
            HelperKind::Slirp4netns => own_address(),
            HelperKind::Pasta => None,
        }
    }

    /// Waits for the sign that the network works.
    fn is_ready(&self) -> bool {
        let until = Instant::now() + READY_WITHIN;
        let mut message = [0; 256];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.ready, PollFlags::IN)], Some(&left)) {
                Err(Errno::INTR) => continue,
                Ok(1..) => {}
                _ => return false,
            }
            match (self.kind, rustix::io::read(&self.ready, &mut message)) {
                (HelperKind::Slirp4netns, Ok(1)) if message[0] == b'1' => return true,
                // Its process id.
                (HelperKind::Pasta, Ok(1..)) => return true,
                (_, Ok(1..) | Err(Errno::INTR)) => {}
                _ => return false,
            }
        }
    }
}

fn slirp4netns(helper: &NetworkHelper, namespace: OwnedFd, said: &File) -> io::Result<PrivateNetwork> {
    let (life, theirs) = UnixStream::pair()?;
    // With the limits of messages kept: what it prints for people is on the same descriptor as the sign that it is ready.
    let (ready, out) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    let child = Command::new(&helper.program)
        .args(["--configure", "--mtu=65520", "--disable-host-loopback"])
        // It ends when the other end of its standard input is gone.
        .args(["--ready-fd=1", "--exit-fd=0", "--netns-type=path"])
        .args(&helper.options)
        .args([&path, "tap0"])
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::from(out))
        // A file: a pipe that nobody reads later would stop it.
        .stderr(said.try_clone()?)
        .spawn()?;
    Ok(PrivateNetwork { namespace, kind: helper.kind, helper: child, life: Life::Socket(Some(life)), ready })
}

fn pasta(helper: &NetworkHelper, namespace: OwnedFd, said: &File) -> io::Result<PrivateNetwork> {
    let watcher = Watcher::start()?;
    let (ready, out) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut child = Command::new(&helper.program)
        .args(["--config-net", "--foreground", "--quiet"])
        // Nothing of the host can be reached under the address of the gateway, and no port is passed on.
        .args(["--no-map-gw", "--tcp-ports=none", "--udp-ports=none", "--tcp-ns=none", "--udp-ns=none"])
        .arg(format!("--dns-forward={PASTA_NAME_SERVER}"))
        // As root it would become `nobody` before it enters the namespace.
        .args(["--runas=0", "--netns-only", "--netns=/proc/self/fd/0", "--no-netns-quit"])
        // Written when the network works.
        .arg("--pid=/proc/self/fd/1")
        .args(&helper.options)
        .stdin(namespace.try_clone()?)
        .stdout(Stdio::from(out))
        .stderr(said.try_clone()?)
        .spawn()?;
    let watched = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
        .map_err(io::Error::from)
        .and_then(|pidfd| watcher.add(pidfd.as_fd(), &StepCgroup::default()));
    if let Err(error) = watched {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    let life = Life::Signal { _watcher: watcher };
    Ok(PrivateNetwork { namespace, kind: helper.kind, helper: child, life, ready })
}

impl Drop for PrivateNetwork {
    fn drop(&mut self) {
        match &mut self.life {
            Life::Socket(socket) => drop(socket.take()),
            Life::Signal { .. } => {
                let _ = self.helper.kill();
            }
        }
        let _ = self.helper.wait();
    }
}

/// The address from which this machine talks to others.
fn own_address() -> Option<IpAddr> {
    // An address for documentation (RFC 5737); to connect sends nothing.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
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
