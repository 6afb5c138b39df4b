//! Servers that stand between `rbuild` and a registry: one that writes down what is asked, ones that misbehave.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Passes connections on, and keeps the request lines. It ends with this value, as far as new connections go.
pub(crate) struct Recorder {
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<String>>>,
    /// Part of the requests that are kept from going on.
    held: Arc<Mutex<Option<String>>>,
    ended: Arc<AtomicBool>,
}

impl Recorder {
    /// One before the server at an address.
    pub(crate) fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (held, ended) = (Arc::new(Mutex::default()), Arc::new(AtomicBool::new(false)));
        let (server, log, end) = (server.to_owned(), Arc::clone(&requests), Arc::clone(&ended));
        let hold = Arc::clone(&held);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(upstream) = TcpStream::connect(&server) else { return };
                let (log, hold) = (Arc::clone(&log), Arc::clone(&hold));
                std::thread::spawn(move || pass_on(&client, &upstream, &log, &hold));
            }
        });
        Self { address, requests, held, ended }
    }

    /// `METHOD /path` of everything since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().expect("not poisoned"))
    }
}

impl Recorder {
    /// From now on requests with this in them stay here; `None` lets them go.
    pub(crate) fn hold(&self, part: Option<&str>) {
        *self.held.lock().expect("not poisoned") = part.map(str::to_owned);
    }

    /// Waits for a request with this in it.
    pub(crate) fn wait_for(&self, part: &str) {
        let begun = std::time::Instant::now();
        while !self.requests.lock().expect("not poisoned").iter().any(|request| request.contains(part)) {
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "nobody asks for {part}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
    }
}

fn pass_on(client: &TcpStream, upstream: &TcpStream, log: &Mutex<Vec<String>>, held: &Mutex<Option<String>>) {
    let (mut back, mut to_client) = (upstream.try_clone().expect("cloned"), client.try_clone().expect("cloned"));
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut back, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let (mut from_client, mut up) = (client, upstream);
    let (mut buffer, mut line) = (vec![0; 64 << 10], Vec::new());
    while let Ok(read @ 1..) = from_client.read(&mut buffer) {
        // Bodies pass through here as well; no line of one looks like a request.
        for byte in &buffer[..read] {
            line.push(*byte);
            if *byte != b'\n' {
                continue;
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            let methods = ["GET ", "HEAD ", "PUT ", "POST ", "PATCH ", "DELETE "];
            let request = text.trim_end().strip_suffix(" HTTP/1.1");
            // A request may follow a body that has no end of line.
            let at = request.and_then(|line| methods.iter().filter_map(|method| line.rfind(method)).max());
            if let (Some(request), Some(at)) = (request, at) {
                log.lock().expect("not poisoned").push(request[at..].to_owned());
                let stays = || held.lock().expect("not poisoned").as_ref().is_some_and(|part| request.contains(part));
                while stays() {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            }
        }
        if up.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = upstream.shutdown(Shutdown::Both);
}

/// Lets requests through to a registry with a token, each for a few requests only: then it has ended. Gives its address,
/// and how many tokens it gave.
pub(crate) fn behind_tokens(server: &str, requests: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let (given, used) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(HashMap::<String, usize>::new())));
    let (server, own, tokens) = (server.to_owned(), address.clone(), Arc::clone(&given));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (server, own, tokens, used) = (server.clone(), own.clone(), Arc::clone(&tokens), Arc::clone(&used));
            std::thread::spawn(move || {
                let allows = |head: &str| {
                    let token = head.lines().find_map(|line| line.split_once(": Bearer ")).map(|(_, token)| token);
                    let Some(token) = token else { return false };
                    let mut used = used.lock().expect("not poisoned");
                    let times = used.entry(token.to_owned()).or_insert(0);
                    *times += 1;
                    *times <= requests
                };
                // Whoever goes away in the middle knows why.
                let _ = answer_behind_tokens(client, &server, &own, &tokens, allows);
            });
        }
    });
    (address, given)
}

fn answer_behind_tokens(
    mut client: TcpStream,
    server: &str,
    own: &str,
    tokens: &AtomicUsize,
    allows: impl Fn(&str) -> bool,
) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte)? == 1 {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    client.read_exact(&mut body)?;
    let close = "Connection: close\r\n";
    if head.starts_with("GET /token") {
        let number = tokens.fetch_add(1, Ordering::SeqCst);
        let token = format!("{{\"token\":\"t{number}\"}}");
        return write!(client, "HTTP/1.1 200 OK\r\n{close}Content-Length: {}\r\n\r\n{token}", token.len());
    }
    if !allows(&head) {
        let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{own}/token\",service=\"s\"\r\n");
        return write!(client, "HTTP/1.1 401 Unauthorized\r\n{close}{challenge}Content-Length: 0\r\n\r\n");
    }
    let mut upstream = TcpStream::connect(server)?;
    let kept = head.lines().filter(|line| {
        let line = line.to_ascii_lowercase();
        !line.is_empty() && !line.starts_with("connection:") && !line.starts_with("authorization:")
    });
    let request: String = kept.map(|line| format!("{line}\r\n")).collect();
    upstream.write_all(&[request.as_bytes(), close.as_bytes(), b"\r\n", &body].concat())?;
    std::io::copy(&mut upstream, &mut client)?;
    client.shutdown(Shutdown::Both)
}

/// A server that gives every request the same answer; without one it says nothing and keeps the connection.
pub(crate) fn answering(answer: Option<&'static [u8]>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut client in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = client.read(&mut request);
            match answer {
                Some(answer) => drop(client.write_all(answer)),
                None => held.push(client),
            }
        }
    });
    address
}
