//! [`serve`]: answers on sockets while something runs.

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Mutex;
use std::thread::{self, Scope};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::key::Key;
use super::{SshSource, protocol};

use crate::lock::lock;

/// A socket, and what answers there.
#[derive(Debug)]
pub struct Socket {
    /// Whose answers they are.
    pub source: SshSource,
    /// Where it listens.
    pub listener: UnixListener,
}

/// Connections at the same time; one more is closed at once.
const MAX_CONNECTIONS: usize = 64;

/// Answers on `sockets` while `run` runs, and closes every connection when it returns.
///
/// # Errors
/// When the sockets cannot be waited for; `run` has not begun then.
pub fn serve<T>(sockets: &[Socket], run: impl FnOnce() -> T) -> io::Result<T> {
    if sockets.is_empty() {
        return Ok(run());
    }
    for socket in sockets {
        socket.listener.set_nonblocking(true)?;
    }
    let (stop, stopped) = UnixStream::pair()?;
    let open = Open::default();
    Ok(thread::scope(|scope| {
        scope.spawn(|| accept(scope, sockets, &stopped, &open));
        // In here, so that a panic closes it too; otherwise the thread above would never be joined.
        let stop = stop;
        let result = run();
        drop(stop);
        result
    }))
}

/// Both ends of the connections that are being served.
#[derive(Debug, Default)]
struct Open(Mutex<(u64, BTreeMap<u64, Vec<UnixStream>>)>);

impl Open {
    /// Keeps copies of the streams for the end; `None` if there are too many.
    fn add(&self, streams: &[&UnixStream]) -> Option<u64> {
        let mut open = lock(&self.0);
        if open.1.len() >= MAX_CONNECTIONS {
            return None;
        }
        let streams = streams.iter().map(|stream| stream.try_clone()).collect::<Result<_, _>>().ok()?;
        open.0 += 1;
        let number = open.0;
        open.1.insert(number, streams);
        Some(number)
    }

    fn remove(&self, number: u64) {
        lock(&self.0).1.remove(&number);
    }

    fn close_all(&self) {
        for stream in lock(&self.0).1.values().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept<'scope>(
    scope: &'scope Scope<'scope, '_>,
    sockets: &'scope [Socket],
    stopped: &UnixStream,
    open: &'scope Open,
) {
    loop {
        let mut set = vec![PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN)];
        set.extend(sockets.iter().map(|socket| PollFd::from_borrowed_fd(socket.listener.as_fd(), PollFlags::IN)));
        match poll(&mut set, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => break,
        }
        if !set[0].revents().is_empty() {
            break;
        }
        let ready: Vec<bool> = set[1..].iter().map(|polled| !polled.revents().is_empty()).collect();
        for (socket, _) in sockets.iter().zip(ready).filter(|(_, ready)| *ready) {
            // A client that went away in between is no reason to stop.
            if let Ok((client, _)) = socket.listener.accept() {
                start(scope, client, &socket.source, open);
            }
        }
    }
    open.close_all();
}

/// Serves one connection on a thread of its own. An agent that cannot be reached closes it.
fn start<'scope>(scope: &'scope Scope<'scope, '_>, client: UnixStream, source: &'scope SshSource, open: &'scope Open) {
    let backend = match source {
        SshSource::Keys(_) => None,
        SshSource::Agent(path) | SshSource::Raw(path) => match connect(path) {
            Ok(backend) => Some(backend),
            Err(_) => return,
        },
    };
    let streams: Vec<&UnixStream> = [Some(&client), backend.as_ref()].into_iter().flatten().collect();
    let Some(number) = open.add(&streams) else { return };
    let serve = move || {
        // Whatever goes wrong with a connection ends that connection.
        let _ = match (source, backend) {
            (SshSource::Keys(keys), _) => answer(client, keys),
            (SshSource::Raw(_), Some(backend)) => pass_on(&client, &backend),
            (_, Some(backend)) => filter(client, backend),
            (_, None) => Ok(()),
        };
        open.remove(number);
    };
    if thread::Builder::new().name("ssh agent".to_owned()).spawn_scoped(scope, serve).is_err() {
        open.remove(number);
    }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}

fn answer(mut client: UnixStream, keys: &[Key]) -> io::Result<()> {
    client.set_nonblocking(false)?;
    while let Some(request) = protocol::read(&mut client)? {
        protocol::write(&mut client, &protocol::answer(keys, &request))?;
    }
    Ok(())
}

fn filter(mut client: UnixStream, mut agent: UnixStream) -> io::Result<()> {
    client.set_nonblocking(false)?;
    while let Some(request) = protocol::read(&mut client)? {
        let mut answer = protocol::failure();
        if protocol::is_allowed(&request) {
            protocol::write(&mut agent, &request)?;
            let Some(given) = protocol::read(&mut agent)? else { break };
            answer = protocol::filtered(given);
        }
        protocol::write(&mut client, &answer)?;
    }
    Ok(())
}

/// Copies both ways until both directions have ended.
fn pass_on(client: &UnixStream, other: &UnixStream) -> io::Result<()> {
    client.set_nonblocking(false)?;
    thread::scope(|scope| {
        let back = scope.spawn(|| copy(other, client));
        let forth = copy(client, other);
        back.join().unwrap_or(Ok(()))?;
        forth
    })
}

fn copy(mut from: &UnixStream, mut to: &UnixStream) -> io::Result<()> {
    let copied = io::copy(&mut from, &mut to);
    to.shutdown(Shutdown::Write)?;
    copied.map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::time::{Duration, Instant};

    use super::*;

    fn listen(path: &Path) -> UnixListener {
        UnixListener::bind(path).expect("bound")
    }

    fn ask(stream: &mut UnixStream, request: &[u8]) -> Vec<u8> {
        protocol::write(stream, request).expect("sent");
        protocol::read(stream).expect("readable").expect("an answer")
    }

    #[test]
    fn an_agent_sees_requests_to_list_and_to_sign_only() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let (agent, step) = (folder.path().join("agent"), folder.path().join("step"));
        let real = listen(&agent);
        let sockets = [Socket { source: SshSource::Agent(agent), listener: listen(&step) }];
        let seen = thread::scope(|scope| {
            let real = scope.spawn(|| {
                let (mut stream, _) = real.accept().expect("a connection");
                let mut seen = Vec::new();
                while let Ok(Some(request)) = protocol::read(&mut stream) {
                    // To the second request it says that it succeeded, which is no answer to it.
                    let answer: &[u8] = if seen.is_empty() { &[12, 0, 0, 0, 0] } else { &[6] };
                    protocol::write(&mut stream, answer).expect("sent");
                    seen.push(request);
                }
                seen
            });
            serve(&sockets, || {
                let mut stream = UnixStream::connect(&step).expect("connected");
                // Remove all keys.
                assert_eq!(ask(&mut stream, &[19]), protocol::failure());
                assert_eq!(ask(&mut stream, &[11]), [12, 0, 0, 0, 0]);
                assert_eq!(ask(&mut stream, &[13, 1]), protocol::failure());
            })
            .expect("served");
            real.join().expect("ended with its connection")
        });
        assert_eq!(seen, [vec![11], vec![13, 1]]);
    }

    #[test]
    fn a_raw_socket_passes_everything() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let (other, step) = (folder.path().join("other"), folder.path().join("step"));
        let real = listen(&other);
        let sockets = [Socket { source: SshSource::Raw(other), listener: listen(&step) }];
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = real.accept().expect("a connection");
                let mut text = String::new();
                stream.read_to_string(&mut text).expect("text");
                stream.write_all(text.to_uppercase().as_bytes()).expect("sent");
            });
            let answer = serve(&sockets, || {
                let mut stream = UnixStream::connect(&step).expect("connected");
                stream.write_all(b"hello").expect("sent");
                stream.shutdown(Shutdown::Write).expect("half closed");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).expect("text");
                answer
            });
            assert_eq!(answer.expect("served"), "HELLO");
        });
    }

    #[test]
    fn the_end_closes_connections_that_wait() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let (agent, step) = (folder.path().join("agent"), folder.path().join("step"));
        let _real = listen(&agent);
        let sockets = [Socket { source: SshSource::Agent(agent), listener: listen(&step) }];
        let begun = Instant::now();
        let mut client = serve(&sockets, || {
            let mut stream = UnixStream::connect(&step).expect("connected");
            // Nobody will answer that.
            protocol::write(&mut stream, &[11]).expect("sent");
            thread::sleep(Duration::from_millis(50));
            stream
        })
        .expect("served");
        assert_eq!(client.read(&mut [0; 8]).expect("closed"), 0);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
