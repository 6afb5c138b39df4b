//! A real registry process on a free port of the loopback device.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::env::TestEnv;
use crate::inline_cache::sha256;

/// `user` with the password `s3cret`.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";

/// A running registry; it ends with this value, or with this process.
pub(crate) struct Registry {
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
    storage: TempDir,
    /// The shell that keeps the registry waits for the end of its input.
    keeper: Child,
    alive: Option<ChildStdin>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// One that wants to know who is there.
    pub(crate) fn private() -> Self {
        Self::with("auth:\n  htpasswd:\n    realm: test\n    path: STORAGE/htpasswd\n")
    }

    fn with(more: &str) -> Self {
        let storage = tempfile::Builder::new().prefix("rbuild-registry-").tempdir().expect("a temporary directory");
        let root = storage.path().to_str().expect("text");
        // Another process may take the port between the two calls; then the registry does not come up, and we try again.
        for _ in 0..5 {
            std::fs::create_dir_all(storage.path()).expect("made");
            std::fs::write(storage.path().join("htpasswd"), HTPASSWD).expect("written");
            let port =
                TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
            let address = format!("127.0.0.1:{port}");
            let config = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {root}\n  delete:\n    \
                 enabled: true\nhttp:\n  addr: {address}\n{}",
                more.replace("STORAGE", root)
            );
            let file = storage.path().join("config.yml");
            std::fs::write(&file, config).expect("written");
            let (mut keeper, alive) = keep(&file, storage.path());
            if answers(&address) {
                return Self { address, storage, keeper, alive: Some(alive) };
            }
            drop(alive);
            let _ = keeper.wait();
        }
        panic!("docker-registry does not start; is the package `docker-registry` installed?");
    }

    /// Where it keeps its files.
    pub(crate) fn storage(&self) -> &std::path::Path {
        self.storage.path()
    }

    /// Puts a blob into it, as whoever pushes does.
    pub(crate) fn put_blob(&self, repository: &str, bytes: &[u8]) {
        let begun = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[]);
        let place = begun.lines().find_map(|line| line.strip_prefix("Location: ")).expect("a place for the blob");
        let place = place.trim().trim_start_matches(&format!("http://{}", self.address));
        let ended = self.send("PUT", &format!("{place}&digest=sha256:{}", sha256(bytes)), "", bytes);
        assert!(ended.starts_with("HTTP/1.1 201"), "{ended}");
    }

    /// Puts a manifest into it under a tag.
    pub(crate) fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) {
        let header = format!("Content-Type: {media_type}\r\n");
        let ended = self.send("PUT", &format!("/v2/{repository}/manifests/{tag}"), &header, bytes);
        assert!(ended.starts_with("HTTP/1.1 201"), "{ended}");
    }

    /// Sends a request; gives the head of the answer, and what comes after it as far as it is text.
    fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("connected");
        let (address, length) = (&self.address, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat()).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("answered");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The name of an image in it.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.alive.take();
        let _ = self.keeper.wait();
    }
}

/// Starts a registry below a shell that ends it and removes its files when our end of the pipe is gone, however this
/// process ends: what a static holds is never dropped.
fn keep(config: &Path, storage: &Path) -> (Child, ChildStdin) {
    let script = "docker-registry serve \"$0\" >/dev/null 2>&1 & pid=$!; read _; kill $pid; wait $pid; rm -rf \"$1\"";
    let mut keeper = Command::new("/bin/sh")
        .args(["-c", script])
        .args([config, storage])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let alive = keeper.stdin.take().expect("piped");
    (keeper, alive)
}

fn answers(address: &str) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(10) {
        if let Ok(mut stream) = TcpStream::connect(address) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let mut answer = [0; 12];
            let request = format!("GET /v2/ HTTP/1.0\r\nHost: {address}\r\n\r\n");
            if stream.write_all(request.as_bytes()).is_ok() && stream.read_exact(&mut answer).is_ok() {
                return answer.starts_with(b"HTTP/1.");
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// A registry for the whole test program, with a base image `busybox:1` that has a shell.
pub(crate) fn shared() -> &'static Registry {
    static SHARED: OnceLock<Registry> = OnceLock::new();
    SHARED.get_or_init(|| {
        let registry = Registry::start();
        let env = TestEnv::new();
        env.write("rootfs.tar", busybox()).write("Dockerfile", "FROM scratch\nADD rootfs.tar /\nCMD [\"sh\"]\n");
        env.ok(&format!("build --push -t {} .", registry.name("busybox:1")));
        registry
    })
}

/// `FROM` for a Dockerfile with a shell.
pub(crate) fn base() -> String {
    shared().name("busybox:1")
}

/// Names under which busybox is called.
const APPLETS: [&str; 29] = [
    "sh",
    "pwd",
    "ls",
    "cat",
    "echo",
    "id",
    "env",
    "true",
    "false",
    "sleep",
    "mkdir",
    "rm",
    "touch",
    "ln",
    "chmod",
    "chown",
    "cp",
    "mv",
    "grep",
    "head",
    "wc",
    "stat",
    "dd",
    "test",
    "sync",
    "sha256sum",
    "find",
    "sort",
    "printf",
];

/// A root filesystem with the static busybox of this machine.
pub(crate) fn busybox() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name);
    for name in ["bin", "etc", "tmp", "root"] {
        std::fs::create_dir(path(name)).expect("a directory");
    }
    std::fs::copy("/bin/busybox", path("bin/busybox")).expect("the package `busybox-static` is installed");
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", path(&format!("bin/{applet}"))).expect("a link");
    }
    std::fs::write(path("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
        .expect("written");
    std::fs::write(path("etc/group"), "root:x:0:\napp:x:1000:\nextra:x:2000:app\n").expect("written");
    let output = Command::new("tar")
        .args(["--owner=0", "--group=0", "--numeric-owner", "--sort=name", "--mtime=@1700000000", "-c", "."])
        .current_dir(dir.path())
        .output()
        .expect("tar");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
