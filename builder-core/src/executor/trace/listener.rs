//! The thread that looks at the calls of a sandbox.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::readlink;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};

use super::calls::{self, At, Kind};
use super::program::{Needs, needs};
use super::resolve::{Found, Unclear, resolve};
use super::{PathUse, Trace};
use crate::rootfs::RootPath;
use crate::sys::notify::{self, Notification};

/// How many scripts may interpret each other; as in the kernel's `exec_binprm`.
const INTERPRETERS: usize = 6;

/// `PATH_MAX`
const PATH_MAX: usize = 4096;

/// Bytes of an address that may hold a path (`sockaddr_un`, and a little more).
const ADDRESS_MAX: usize = 128;

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
    match notify::install_listener(filter) {
        Ok(listener) => notify::hand_over(socket.as_fd(), [0; 4], Some(listener.as_fd())),
        Err(error) => {
            let number = error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes();
            // Then it is not traced, and the other side says so.
            let _ = notify::hand_over(socket.as_fd(), number, None);
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
    let mut watch = Watch {
        listener: listener.as_fd(),
        trace,
        beginning,
        stage: Stage::SetUp,
        lookups: RefCell::default(),
        changes: Cell::default(),
    };
    loop {
        match ready(listener.as_fd(), stop) {
            Ok(true) => {}
            Ok(false) => return watch.look_again_at(watch.take(|_| true)),
            Err(error) => return trace.gap(format!("it could not be traced to its end: {error}")),
        }
        // It is gone when its process was killed meanwhile.
        let Ok(call) = notify::receive(listener.as_fd()) else { continue };
        watch.look_again_at(watch.last_of(call.thread));
        if let Err(Unclear(reason)) = watch.look(&call) {
            trace.gap(reason);
        }
        watch.changed(&call);
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
    /// What the last call of each thread looked up.
    lookups: RefCell<HashMap<u32, Vec<Lookup>>>,
    /// How many calls may have changed where paths lead.
    changes: Cell<u64>,
}

/// A path that was looked up for a call which may not be made yet: another process may put a link into its way before.
struct Lookup {
    from: RootPath,
    path: Vec<u8>,
    /// What is noted of it; `None` for a program.
    seen: Option<PathUse>,
    /// The number of changes then.
    changes: u64,
}

/// Threads whose last calls are remembered before those that ended are looked for.
const MAX_THREADS: usize = 2048;

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
    /// Looks up once more what calls named that are made by now, if paths may lead elsewhere since.
    fn look_again_at(&self, calls: impl IntoIterator<Item = Vec<Lookup>>) {
        let now = self.changes.get();
        for Lookup { from, path, seen, .. } in calls.into_iter().flatten().filter(|lookup| lookup.changes != now) {
            let again = match seen {
                Some(seen) => self.found(&from, &path, seen, false),
                None => self.run(&from, &path, INTERPRETERS).map(drop),
            };
            if let Err(Unclear(reason)) = again {
                self.trace.gap(reason);
            }
        }
    }

    /// The lookups of the last call of a thread, which has made it when it makes another.
    fn last_of(&self, thread: u32) -> Option<Vec<Lookup>> {
        self.lookups.borrow_mut().remove(&thread)
    }

    /// The last calls of these threads.
    fn take(&self, threads: impl Fn(u32) -> bool) -> Vec<Vec<Lookup>> {
        self.lookups.borrow_mut().extract_if(|thread, _| threads(*thread)).map(|(_, lookups)| lookups).collect()
    }

    fn remember(&self, call: &Notification, from: &RootPath, path: &[u8], seen: Option<PathUse>) {
        let mut lookups = self.lookups.borrow_mut();
        let lookup = Lookup { from: from.clone(), path: path.to_owned(), seen, changes: self.changes.get() };
        lookups.entry(call.thread).or_default().push(lookup);
        if lookups.len() > MAX_THREADS {
            drop(lookups);
            self.look_again_at(self.take(|thread| !Path::new("/proc").join(thread.to_string()).exists()));
            if self.lookups.borrow().len() > MAX_THREADS {
                self.trace.doubt("it has too many threads");
            }
        }
    }

    /// Notes that the call may change where paths lead: it makes a link, or gives one another name.
    fn changed(&self, call: &Notification) {
        let links = calls::named(call.number).any(|(_, kind)| matches!(kind, Kind::Make | Kind::Move | Kind::Replace));
        if links {
            let now = self.changes.get() + 1;
            self.changes.set(now);
            // It is no other process to itself.
            let mut lookups = self.lookups.borrow_mut();
            lookups.entry(call.thread).or_default().iter_mut().for_each(|lookup| lookup.changes = now);
        }
    }

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
                Kind::Address => self.address(call, &thread, call.arguments[at.path], call.arguments[at.path + 1])?,
                Kind::Messages(count) => {
                    let count = count.map_or(1, |index| low(call.arguments[index]).cast_unsigned());
                    self.messages(call, &thread, call.arguments[at.path], count)?;
                }
                _ => self.named(call, &thread, at, kind)?,
            }
        }
        if call.number == libc::SYS_openat2 {
            self.how(call);
        }
        Ok(())
    }

    /// What `openat2(2)` is told of how a path is to be resolved: a root of its own cannot be followed.
    fn how(&self, call: &Notification) {
        const RESOLVE_IN_ROOT: u64 = 0x10;
        let how: Option<[u8; 24]> = self.memory(call, call.arguments[2]);
        let resolve = how.map(|how| u64::from_ne_bytes(how[16..24].try_into().expect("eight bytes")));
        if resolve.is_none_or(|resolve| resolve & RESOLVE_IN_ROOT != 0) {
            self.trace.doubt("it opens files in a root of its own");
        }
    }

    /// Memory of this size at an address.
    fn memory<const SIZE: usize>(&self, call: &Notification, address: u64) -> Option<[u8; SIZE]> {
        let mut buffer = [0; SIZE];
        let length = notify::read_memory(call.thread, address, &mut buffer).ok()?;
        (length == SIZE && notify::is_waiting(self.listener, call.id)).then_some(buffer)
    }

    /// The addresses in the headers of messages (`struct msghdr`, in a `struct mmsghdr` if they are several).
    fn messages(&self, call: &Notification, thread: &Thread, at: u64, count: u32) -> Result<(), Unclear> {
        const SIZE: u64 = 64;
        // More than the kernel takes (`UIO_MAXIOV`).
        for index in 0..u64::from(count.min(1024)) {
            let Some(header) = self.memory::<16>(call, at.wrapping_add(index * SIZE)) else {
                self.trace.doubt("it sends what cannot be read");
                return Ok(());
            };
            let number = |from: usize| u64::from_ne_bytes(header[from..from + 8].try_into().expect("eight bytes"));
            self.address(call, thread, number(0), number(8) & u64::from(u32::MAX))?;
        }
        Ok(())
    }

    /// An address of a socket: one of `AF_UNIX` may be a path (`unix(7)`).
    fn address(&self, call: &Notification, thread: &Thread, at: u64, length: u64) -> Result<(), Unclear> {
        let length = usize::try_from(length & u64::from(u32::MAX)).unwrap_or(usize::MAX).min(ADDRESS_MAX);
        if at == 0 || length < 3 {
            return Ok(());
        }
        let mut buffer = vec![0; length];
        let read = notify::read_memory(call.thread, at, &mut buffer);
        if !notify::is_waiting(self.listener, call.id) {
            return Ok(());
        }
        if read.ok() != Some(length) {
            self.trace.doubt("it uses an address that cannot be read");
            return Ok(());
        }
        let family = u16::from_ne_bytes([buffer[0], buffer[1]]);
        let path = buffer[2..].split(|byte| *byte == 0).next().unwrap_or_default();
        // Without a path it has no name, or one that is none of a file.
        if i32::from(family) != libc::AF_UNIX || path.is_empty() {
            return Ok(());
        }
        let from = if path.starts_with(b"/") { RootPath::root() } else { self.directory(call, thread.link("cwd"))? };
        self.see(call, &from, path, PathUse::Touched, true)
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
            Err(_) if !notify::is_waiting(self.listener, call.id) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It gets an error, unless another thread opens something just now.
                self.trace.doubt("it uses a descriptor that is not open");
                Ok(None)
            }
            Err(error) => Err(refused(&error)),
        }
    }

    fn named(&self, call: &Notification, thread: &Thread, at: At, kind: Kind) -> Result<(), Unclear> {
        let Some(path) = self.path(call, at)? else { return Ok(()) };
        let descriptor =
            at.directory.map(|index| low(call.arguments[index])).filter(|number| *number != libc::AT_FDCWD);
        if path.is_empty() && descriptor.is_none() {
            // The working directory itself, or an error.
            let directory = self.directory(call, thread.link("cwd"))?;
            self.note(directory, PathUse::Measured);
            return if kind == Kind::Run {
                Err(Unclear("a program is executed that is no file".to_owned()))
            } else {
                Ok(())
            };
        }
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
            Kind::Run => {
                self.remember(call, &from, &path, None);
                return self.run(&from, &path, INTERPRETERS).map(drop);
            }
            Kind::Open(None) | Kind::Make | Kind::Replace => true,
            Kind::Open(Some(flags)) => low(call.arguments[flags]) & libc::O_CREAT != 0,
            _ => false,
        };
        let seen = match kind {
            Kind::Move => PathUse::Moved,
            Kind::Watch => PathUse::Listed,
            Kind::Reach | Kind::Make => PathUse::Touched,
            _ => PathUse::Measured,
        };
        self.see(call, &from, &path, seen, makes)
    }

    /// Notes what a path leads to.
    fn see(
        &self,
        call: &Notification,
        from: &RootPath,
        path: &[u8],
        seen: PathUse,
        makes: bool,
    ) -> Result<(), Unclear> {
        self.remember(call, from, path, Some(seen));
        self.found(from, path, seen, makes)
    }

    fn found(&self, from: &RootPath, path: &[u8], seen: PathUse, makes: bool) -> Result<(), Unclear> {
        match self.resolve(from, path)? {
            Found::There(path, _) => self.note(path, seen),
            Found::Missing(path) => {
                if let Some(above) = path.parent().filter(|_| makes) {
                    self.note(above, PathUse::Touched);
                }
                self.note(path, PathUse::Missing);
            }
            Found::Special(path) => self.special(&path, seen),
            Found::Nothing => {}
        }
        Ok(())
    }

    /// What is in `/proc` and leads to a directory: that is not said of which one.
    fn special(&self, path: &RootPath, seen: PathUse) {
        let leads_back = matches!(path.file_name(), Some(b"cwd" | b"root"));
        if leads_back && seen != PathUse::Touched && path.components().next() == Some(b"proc") {
            self.trace.doubt(format!("it asks what `{path}` is"));
        }
    }

    /// A program, and what it needs to be executed; says whether it is there.
    fn run(&self, from: &RootPath, path: &[u8], left: usize) -> Result<bool, Unclear> {
        match self.resolve(from, path)? {
            Found::There(path, file) => {
                match needs(&file) {
                    Needs::Interpreter(next) if left > 0 => {
                        if !next.starts_with(b"/") {
                            self.trace.doubt(format!("what executes `{path}` has no absolute path"));
                        }
                        self.run(from, &next, left - 1)?;
                    }
                    Needs::Unknown => self.trace.doubt(format!("what kind of program `{path}` is, is not known")),
                    Needs::Interpreter(_) | Needs::Nothing => {}
                }
                self.note(path, PathUse::Touched);
                Ok(true)
            }
            Found::Missing(path) => {
                self.note(path, PathUse::Missing);
                Ok(false)
            }
            Found::Nothing | Found::Special(_) => Ok(true),
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
                if end.is_none() {
                    self.trace.doubt("it uses a path that has no end");
                }
                Ok(end.map(|end| buffer[..end].to_vec()))
            }
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                self.trace.doubt("it uses a path that cannot be read");
                Ok(None)
            }
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
