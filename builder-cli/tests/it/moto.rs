//! An S3 server: `moto`, a Python package that `scripts/moto` installs.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server with the bucket `bucket`; it ends with this value, or with this process.
pub(crate) struct Moto {
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
    keeper: Child,
    alive: Option<ChildStdin>,
}

impl Moto {
    pub(crate) fn start() -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/moto/bin/moto_server");
        assert!(program.exists(), "the S3 server of the tests is not installed: run `scripts/moto`");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
        let script = "\"$0\" -H 127.0.0.1 -p \"$1\" >/dev/null 2>&1 & pid=$!; read _; kill $pid; wait $pid";
        let mut keeper = Command::new("/bin/sh")
            .args(["-c", script])
            .arg(program)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let alive = keeper.stdin.take();
        let server = Self { address: format!("127.0.0.1:{port}"), keeper, alive };
        let begun = Instant::now();
        while !server.request("PUT /bucket").starts_with("HTTP/1.1 200") {
            assert!(begun.elapsed() < Duration::from_secs(60), "moto_server does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    /// Makes a request without a body; gives the whole answer.
    pub(crate) fn request(&self, line: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(&self.address) {
            let head = "content-length: 0\r\nconnection: close\r\n";
            let request = format!("{line} HTTP/1.1\r\nhost: {}\r\n{head}\r\n", self.address);
            if stream.write_all(request.as_bytes()).is_ok() {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes);
                answer = String::from_utf8_lossy(&bytes).into_owned();
            }
        }
        answer
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.alive.take();
        let _ = self.keeper.wait();
    }
}
