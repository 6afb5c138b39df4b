//! A server that answers as a test wants, faults included.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(super) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Send only so much of the body, then close.
    cut: Option<usize>,
    /// Send nothing for so long first.
    stall: Duration,
}

impl Reply {
    pub(super) fn new(status: u16) -> Self {
        let stall = Duration::ZERO;
        Self { status, headers: Vec::new(), body: Vec::new(), cut: None, stall }
    }

    pub(super) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::new(200) }
    }

    pub(super) fn header(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(super) fn cut(mut self, at: usize) -> Self {
        self.cut = Some(at);
        self
    }

    pub(super) fn stall(mut self, time: Duration) -> Self {
        self.stall = time;
        self
    }
}

type Handler = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

/// After how many bytes of its body a request is hung up on.
type HangUp = dyn Fn(&Seen, usize) -> Option<usize> + Send + Sync;

/// A server on a free loopback port; it ends with the test.
pub(super) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Serves with `handler`, which gets each request and its number from 0.
    pub(super) fn new(handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::breaking(handler, |_, _| None)
    }

    /// Serves with `handler` what `hang_up` lets through.
    pub(super) fn breaking(
        handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
        hang_up: impl Fn(&Seen, usize) -> Option<usize> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let handler: Arc<(Box<Handler>, Box<HangUp>)> = Arc::new((Box::new(handler), Box::new(hang_up)));
        let (log, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                std::thread::spawn(move || stream.map(|stream| serve(stream, &handler.0, &handler.1, &log)));
            }
        });
        Self { address, seen, stop }
    }

    pub(super) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic while it was held").clone()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// Serves the requests of one connection.
fn serve(mut stream: TcpStream, handler: &Handler, hang_up: &HangUp, log: &Mutex<Vec<Seen>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let (mut seen, length) = read_head(&mut reader)?;
        let number = log.lock().expect("no panic while it was held").len();
        let limit = hang_up(&seen, number);
        seen.body = vec![0; limit.unwrap_or(length)];
        reader.read_exact(&mut seen.body).ok()?;
        log.lock().expect("no panic while it was held").push(seen.clone());
        if limit.is_some() {
            return None;
        }
        let is_head = seen.method == "HEAD";
        let reply = handler(&seen, number);
        std::thread::sleep(reply.stall);
        write_reply(&mut stream, &reply, is_head)?;
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<(Seen, usize)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    Some((Seen { method, target, headers, body: Vec::new() }, length))
}

fn write_reply(stream: &mut TcpStream, reply: &Reply, is_head: bool) -> Option<()> {
    write!(stream, "HTTP/1.1 {} x\r\n", reply.status).ok()?;
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n").ok()?;
    }
    let framed = ["content-length", "transfer-encoding"];
    if !reply.headers.iter().any(|(name, _)| framed.contains(&&**name)) {
        write!(stream, "content-length: {}\r\n", reply.body.len()).ok()?;
    }
    stream.write_all(b"\r\n").ok()?;
    if is_head {
        return Some(());
    }
    let body = &reply.body[..reply.cut.unwrap_or(reply.body.len())];
    stream.write_all(body).ok()?;
    if reply.cut.is_some() { None } else { Some(()) }
}
