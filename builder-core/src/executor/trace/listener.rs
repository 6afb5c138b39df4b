//! The thread that looks at the calls of a sandbox.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::readlink;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::calls::{self, At, Kind};
use super::program::interpreter;
use super::resolve::{Found, Unclear, resolve};
use super::{PathUse, Trace};
use crate::rootfs::RootPath;
use crate::sys::notify::{self, Notification};

/// How many scripts may interpret each other; as in the kernel's `exec_binprm`.
const INTERPRETERS: usize = 6;

/// `PATH_MAX`
const PATH_MAX: usize = 4096;

/// What is known of a process before it has executed its program.
#[derive(Debug)]
pub(in crate::executor) struct Beginning {
    /// The root of the sandbox.
    pub(in crate::executor) root: OwnedFd,
    /// The working directory.
    pub(in crate::executor) directory: RootPath,
    /// The paths that are tried, each with its address.
    pub(in crate::executor) programs: Vec<(u64, Vec<u8>)>,
}

/// Runs `run` with the socket for [`hand_over`], and beside it a thread that looks at what is handed over.
///
/// # Errors
/// If there are no descriptors or threads left.
pub(in crate::executor) fn beside<T>(
    trace: &Trace,
    beginning: Beginning,
    run: impl FnOnce(OwnedFd) -> T,
) -> io::Result<T> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // Not the end of a pipe: a child of another thread that is just being made may have a copy of that.
    let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
    thread::scope(|scope| {
        let (socket, stopped) = (&ours, stop.as_fd());
        let serve = move || serve(socket, stopped, trace, beginning);
        thread::Builder::new().name("trace".to_owned()).spawn_scoped(scope, serve)?;
        let result = run(theirs);
        // Nothing can go wrong with the first number that is added to an eventfd.
        let _ = rustix::io::write(&stop, &1_u64.to_ne_bytes());
        Ok(result)
    })
}

/// In the child: installs the filter and sends its descriptor, or the number of the error. Allocates nothing.
///
/// # Errors
/// If the filter is in force and nobody can be told: the process would wait for ever.
pub(in crate::executor) fn hand_over(socket: &OwnedFd, filter: &[libc::sock_filter]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    match notify::install_listener(filter) {
        Ok(listener) => {
            let descriptors = [listener.as_fd()];
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            sendmsg(socket, &[IoSlice::new(&[0; 4])], &mut ancillary, SendFlags::NOSIGNAL)?;
            Ok(())
        }
        Err(error) => {
            let number = error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes();
            // Then it is not traced, and the other side says so.
            let _ = sendmsg(socket, &[IoSlice::new(&number)], &mut ancillary, SendFlags::NOSIGNAL);
            Ok(())
        }
    }
}

fn serve(socket: &OwnedFd, stop: BorrowedFd<'_>, trace: &Trace, beginning: Beginning) {
    let listener = match ready(socket.as_fd(), stop).map(|ready| ready.then(|| take_over(socket))) {
        Ok(Some(Ok(listener))) => listener,
        // The program was not even started.
        Ok(None) => return,
        Ok(Some(Err(error))) | Err(error) => {
            return trace.gap(format!("the kernel does not allow to trace it: {error}"));
        }
    };
    trace.attach();
    notify::answer_at_once(listener.as_fd());
    let mut watch = Watch { listener: listener.as_fd(), trace, beginning, stage: Stage::SetUp };
    while let Ok(true) = ready(listener.as_fd(), stop) {
        // It is gone when its process was killed meanwhile.
        let Ok(call) = notify::receive(listener.as_fd()) else { continue };
        if let Err(Unclear(reason)) = watch.look(&call) {
            trace.gap(reason);
        }
        let _ = notify::proceed(listener.as_fd(), call.id);
    }
}

/// Waits until there is something to read; false if it is time to stop.
fn ready(file: BorrowedFd<'_>, stop: BorrowedFd<'_>) -> io::Result<bool> {
    loop {
        let mut set = [PollFd::from_borrowed_fd(stop, PollFlags::IN), PollFd::from_borrowed_fd(file, PollFlags::IN)];
        match poll(&mut set, None) {
            Ok(_) if set[1].revents().contains(PollFlags::IN) => return Ok(true),
            Ok(_) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Takes the descriptor of the filter.
fn take_over(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut number = [0; 4];
    recvmsg(socket, &mut [IoSliceMut::new(&mut number)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.ok_or_else(|| io::Error::from_raw_os_error(i32::from_ne_bytes(number)))
}

struct Watch<'a> {
    listener: BorrowedFd<'a>,
    trace: &'a Trace,
    beginning: Beginning,
    stage: Stage,
}

/// How far the process is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The sandbox is set up, in the memory of this process.
    SetUp,
    /// The programs are tried, still there.
    Tries,
    /// One of them runs.
    Runs,
}

/// Paths and files of a thread, as `/proc` shows them.
struct Thread(u32);

impl Thread {
    fn link(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(readlink(format!("/proc/{}/{name}", self.0), Vec::new())?.into_bytes())
    }
}

impl Watch<'_> {
    fn look(&mut self, call: &Notification) -> Result<(), Unclear> {
        if call.architecture != calls::NATIVE {
            return Err(Unclear("a program is of another architecture than this machine".to_owned()));
        }
        if self.stage != Stage::Runs
            && let Some(tried) = self.tried(call)
        {
            return tried;
        }
        let thread = Thread(call.thread);
        for (at, kind) in calls::named(call.number) {
            match kind {
                Kind::Chroot => return Err(Unclear("it calls `chroot`".to_owned())),
                Kind::List => {
                    if let Some(path) = self.opened(call, &thread, low(call.arguments[at.path]))? {
                        self.note(path, PathUse::Listed);
                    }
                }
                _ => self.named(call, &thread, at, kind)?,
            }
        }
        Ok(())
    }

    /// What is done before a program runs; `None` once one does.
    ///
    /// Until then the memory is this process's own, and may be closed to this very process: the child has become another user
    /// in it. But what it does is known.
    fn tried(&mut self, call: &Notification) -> Option<Result<(), Unclear>> {
        let address = call.arguments[0];
        let program = self.beginning.programs.iter().find(|(known, _)| *known == address);
        match (program.filter(|_| call.number == libc::SYS_execve), self.stage) {
            (Some((_, path)), _) => {
                let path = path.clone();
                self.stage = Stage::Tries;
                Some(self.run(&self.beginning.directory, &path, INTERPRETERS).map(drop))
            }
            (None, Stage::SetUp) => Some(Ok(())),
            (None, _) => {
                self.stage = Stage::Runs;
                None
            }
        }
    }

    /// The path of what a thread has open; `None` if it has no such number open, or it is not a file.
    fn opened(&self, call: &Notification, thread: &Thread, number: i32) -> Result<Option<RootPath>, Unclear> {
        match thread.link(&format!("fd/{number}")) {
            Ok(path) if path.starts_with(b"/") => Ok(RootPath::clean(path).ok()),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(_) if !notify::is_waiting(self.listener, call.id) => Ok(None),
            Err(error) => Err(refused(&error)),
        }
    }

    fn named(&self, call: &Notification, thread: &Thread, at: At, kind: Kind) -> Result<(), Unclear> {
        let Some(path) = self.path(call, at)? else { return Ok(()) };
        let descriptor =
            at.directory.map(|index| low(call.arguments[index])).filter(|number| *number != libc::AT_FDCWD);
        if path.is_empty() {
            // The descriptor itself: it was seen when it was opened.
            let (Kind::Run, Some(number)) = (kind, descriptor) else { return Ok(()) };
            let ran = match self.opened(call, thread, number)? {
                Some(path) => self.run(&RootPath::root(), &[b"/", path.as_bytes()].concat(), INTERPRETERS)?,
                None => false,
            };
            return if ran { Ok(()) } else { Err(Unclear("a program is executed that is no file".to_owned())) };
        }
        let from = match (path.starts_with(b"/"), descriptor) {
            (true, _) => RootPath::root(),
            (false, None) => self.directory(call, thread.link("cwd"))?,
            (false, Some(number)) => match self.opened(call, thread, number)? {
                Some(path) => path,
                // The process gets an error.
                None => return Ok(()),
            },
        };
        let makes = match kind {
            Kind::Run => return self.run(&from, &path, INTERPRETERS).map(drop),
            Kind::Open(None) | Kind::Make => true,
            Kind::Open(Some(flags)) => low(call.arguments[flags]) & libc::O_CREAT != 0,
            _ => false,
        };
        let seen = match kind {
            Kind::Move => PathUse::Moved,
            Kind::Watch => PathUse::Listed,
            _ => PathUse::Touched,
        };
        match self.resolve(&from, &path)? {
            Found::There(path, _) => self.note(path, seen),
            Found::Missing(path) => {
                if let Some(above) = path.parent().filter(|_| makes) {
                    self.note(above, PathUse::Touched);
                }
                self.note(path, PathUse::Missing);
            }
            Found::Nothing => {}
        }
        Ok(())
    }

    /// A program, and what it needs to be executed; says whether it is there.
    fn run(&self, from: &RootPath, path: &[u8], left: usize) -> Result<bool, Unclear> {
        match self.resolve(from, path)? {
            Found::There(path, file) => {
                self.note(path, PathUse::Touched);
                if let Some(next) = interpreter(&file).filter(|_| left > 0) {
                    self.run(from, &next, left - 1)?;
                }
                Ok(true)
            }
            Found::Missing(path) => {
                self.note(path, PathUse::Missing);
                Ok(false)
            }
            Found::Nothing => Ok(true),
        }
    }

    fn resolve(&self, from: &RootPath, path: &[u8]) -> Result<Found, Unclear> {
        resolve(&self.beginning.root, from, path, &mut |path, seen| self.note(path, seen))
    }

    /// The path that a call names, without the NUL; `None` if there is none.
    fn path(&self, call: &Notification, at: At) -> Result<Option<Vec<u8>>, Unclear> {
        let address = call.arguments[at.path];
        if address == 0 {
            return Ok(None);
        }
        let mut buffer = vec![0; PATH_MAX];
        match notify::read_memory(call.thread, address, &mut buffer) {
            // Whose memory was it?
            Ok(_) | Err(_) if !notify::is_waiting(self.listener, call.id) => Ok(None),
            Ok(length) => {
                let end = buffer[..length].iter().position(|byte| *byte == 0);
                // Too long a path, or one that ends where memory does, gives the process an error.
                Ok(end.map(|end| buffer[..end].to_vec()))
            }
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(None),
            Err(error) => Err(refused(&error)),
        }
    }

    fn directory(&self, call: &Notification, link: io::Result<Vec<u8>>) -> Result<RootPath, Unclear> {
        match link {
            Err(_) if !notify::is_waiting(self.listener, call.id) => Ok(RootPath::root()),
            Err(error) => Err(refused(&error)),
            Ok(path) => RootPath::clean(path).map_err(|error| Unclear(error.to_string())),
        }
    }

    fn note(&self, path: RootPath, seen: PathUse) {
        self.trace.note(path, seen);
    }
}

fn refused(error: &io::Error) -> Unclear {
    Unclear(format!("the kernel does not allow to look into its processes: {error}"))
}

/// The low half of an argument, which is all that the kernel uses of a descriptor or of flags.
fn low(argument: u64) -> i32 {
    u32::try_from(argument & u64::from(u32::MAX)).unwrap_or(0).cast_signed()
}
