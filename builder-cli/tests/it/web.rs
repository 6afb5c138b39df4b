//! A web server on a free port of the loopback device that counts what it is asked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What a path answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page {
    pub(crate) body: Vec<u8>,
    pub(crate) etag: Option<&'static str>,
    pub(crate) last_modified: Option<&'static str>,
    /// Further header lines.
    pub(crate) headers: &'static str,
    /// The `Authorization` that is wanted.
    pub(crate) authorization: Option<&'static str>,
    /// The connection ends before the body does.
    pub(crate) cut: bool,
    /// A 302 to this address.
    pub(crate) redirect: Option<String>,
}

/// A running server; it ends with this value.
pub(crate) struct Web {
    /// `http://127.0.0.1:PORT`
    pub(crate) address: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    pages: Mutex<BTreeMap<String, Page>>,
    asked: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Web {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if served.stop.load(Ordering::SeqCst) {
                    return;
                }
                // A client that goes away in the middle is its own business.
                let _ = stream.and_then(|stream| served.serve(stream));
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// Puts a page at a path.
    pub(crate) fn put(&self, path: &str, page: Page) -> String {
        self.shared.pages.lock().expect("no panic").insert(path.to_owned(), page);
        format!("{}{path}", self.address)
    }

    /// A page that is nothing but bytes.
    pub(crate) fn bytes(&self, path: &str, body: impl AsRef<[u8]>) -> String {
        self.put(path, Page { body: body.as_ref().to_vec(), ..Page::default() })
    }

    /// What was asked since the last call, each with the status of the answer.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.asked.lock().expect("no panic"))
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address.trim_start_matches("http://"));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
            request.push(byte[0]);
        }
        let request = String::from_utf8_lossy(&request).into_owned();
        let mut words = request.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let header = |name: &str| {
            let mut lines = request.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let page = self.pages.lock().expect("no panic").get(path.split('?').next().unwrap_or_default()).cloned();
        let known = page.as_ref().is_some_and(|page| {
            let same = |ours: Option<&str>, theirs| ours.is_some() && ours.map(str::to_owned) == header(theirs);
            same(page.etag, "if-none-match") || same(page.last_modified, "if-modified-since")
        });
        let status = match &page {
            None => "404 Not Found",
            Some(page) if page.authorization.map(str::to_owned) != header("authorization") => "401 Unauthorized",
            Some(_) if method != "GET" => "405 Method Not Allowed",
            Some(Page { redirect: Some(_), .. }) => "302 Found",
            Some(_) if known => "304 Not Modified",
            Some(_) => "200 OK",
        };
        self.asked.lock().expect("no panic").push(format!("{method} {path} {}", &status[..3]));
        let page = page.filter(|_| status.starts_with('2') || status.starts_with("302")).unwrap_or_default();
        let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", page.body.len());
        for (name, value) in
            [("ETag", page.etag), ("Last-Modified", page.last_modified), ("Location", page.redirect.as_deref())]
        {
            if let Some(value) = value {
                write!(head, "{name}: {value}\r\n").expect("a String takes it");
            }
        }
        stream.write_all(format!("{head}{}\r\n", page.headers).as_bytes())?;
        stream.write_all(&page.body[..if page.cut { page.body.len() / 2 } else { page.body.len() }])
    }
}
