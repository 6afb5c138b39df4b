//! The cache service of GitHub Actions, as far as it is used: entries that never change, found by key or beginning.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// A running service; its thread ends with the test program.
pub(crate) struct Actions {
    /// `http://127.0.0.1:PORT`
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    address: String,
    /// Entries by key; `None` while they are being sent.
    entries: BTreeMap<String, Option<Vec<u8>>>,
    requests: Vec<String>,
    /// How many requests are refused for now.
    refusals: usize,
}

impl Actions {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let state = Arc::new(Mutex::new(State { address: address.clone(), refusals: 2, ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || drop(serve(&client, &shared)));
            }
        });
        Self { url: format!("http://{address}"), state }
    }

    /// The requests since the last call, as method and path.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().expect("not poisoned").requests)
    }

    /// Forgets entries whose key begins so.
    pub(crate) fn forget(&self, beginning: &str) {
        self.state.lock().expect("not poisoned").entries.retain(|key, _| !key.starts_with(beginning));
    }
}

fn serve(client: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let (mut length, mut authorized) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        authorized |= header == "authorization: bearer t0ken";
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, answer) = state.lock().expect("not poisoned").answer(method, path, &body, authorized);
    let mut out = client;
    let more = if status == 429 { "retry-after: 0\r\n" } else { "" };
    write!(out, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{more}connection: close\r\n\r\n", answer.len())?;
    out.write_all(&answer)
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: &[u8], authorized: bool) -> (u16, Vec<u8>) {
        self.requests.push(format!("{method} {path}"));
        if self.refusals > 0 {
            self.refusals -= 1;
            return (429, Vec::new());
        }
        if let Some(key) = path.strip_prefix("/blob/") {
            return match (method, self.entries.get_mut(key)) {
                ("PUT", Some(entry)) => {
                    *entry = Some(body.to_vec());
                    (201, Vec::new())
                }
                ("GET", Some(Some(entry))) => (200, entry.clone()),
                _ => (404, Vec::new()),
            };
        }
        if !authorized {
            return (401, Vec::new());
        }
        if path.starts_with("/repos/me/app/actions/caches?key=rbuild-blob-&") {
            let keys: Vec<Value> = self
                .entries
                .keys()
                .filter(|key| key.starts_with("rbuild-blob-"))
                .map(|key| json!({ "key": key }))
                .collect();
            return (200, json!({ "total_count": keys.len(), "actions_caches": keys }).to_string().into_bytes());
        }
        let request: Value = serde_json::from_slice(body).unwrap_or_default();
        let key = request["key"].as_str().unwrap_or_default().to_owned();
        let address = |key: &str| format!("http://{}/blob/{key}", self.address);
        let answer = match path.rsplit('/').next().unwrap_or_default() {
            "CreateCacheEntry" if self.entries.contains_key(&key) => return (409, b"{}".to_vec()),
            "CreateCacheEntry" => {
                let answer = json!({ "ok": true, "signed_upload_url": address(&key) });
                self.entries.insert(key, None);
                answer
            }
            "FinalizeCacheEntryUpload" => {
                let size = self.entries.get(&key).and_then(|entry| Some(entry.as_ref()?.len().to_string()));
                json!({ "ok": size.as_deref() == request["size_bytes"].as_str(), "entry_id": "1" })
            }
            "GetCacheEntryDownloadURL" => {
                let beginnings = request["restore_keys"].as_array().cloned().unwrap_or_default();
                let begins =
                    |known: &str| beginnings.iter().filter_map(Value::as_str).any(|with| known.starts_with(with));
                let newest = self.entries.keys().rev().find(|known| begins(known)).cloned();
                match Some(key).filter(|key| self.entries.contains_key(key)).or(newest) {
                    Some(key) => json!({ "ok": true, "signed_download_url": address(&key), "matched_key": key }),
                    None => json!({ "ok": false }),
                }
            }
            _ => return (404, Vec::new()),
        };
        (200, answer.to_string().into_bytes())
    }
}
