//! Servers that stand between `rbuild` and a registry: one that writes down what is asked, ones that misbehave.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Passes connections on, and keeps the request lines. It ends with this value, as far as new connections go.
pub(crate) struct Recorder {
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

impl Recorder {
    /// One before the server at an address.
    pub(crate) fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let (server, log, end) = (server.to_owned(), Arc::clone(&requests), Arc::clone(&ended));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(upstream) = TcpStream::connect(&server) else { return };
                let log = Arc::clone(&log);
                std::thread::spawn(move || pass_on(&client, &upstream, &log));
            }
        });
        Self { address, requests, ended }
    }

    /// `METHOD /path` of everything since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().expect("not poisoned"))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
    }
}

fn pass_on(client: &TcpStream, upstream: &TcpStream, log: &Mutex<Vec<String>>) {
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
            }
        }
        if up.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = upstream.shutdown(Shutdown::Both);
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
