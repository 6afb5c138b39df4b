//! [`TestEnv`]: a context, a store and a home of its own for each test.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Directories that vanish with the test.
pub(crate) struct TestEnv {
    dir: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl TestEnv {
    pub(crate) fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// One whose directories are below another.
    pub(crate) fn below(parent: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("rbuild-it-").tempdir_in(parent).expect("a temporary directory");
        for name in ["context", "home", "state"] {
            std::fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        Self { dir }
    }

    /// A path beside the context.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path in the context.
    pub(crate) fn context(&self, name: &str) -> PathBuf {
        self.dir.path().join("context").join(name)
    }

    /// Writes a file of the context.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.context(name);
        std::fs::create_dir_all(path.parent().expect("inside the context")).expect("directories");
        std::fs::write(path, content).expect("written");
        self
    }

    /// `rbuild` in the context, with an environment of its own.
    pub(crate) fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(program());
        command
            .args(arguments)
            .current_dir(self.context(""))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("RBUILD_ROOT", self.path("state"))
            .stdin(Stdio::null());
        command
    }

    /// Runs `rbuild` with words separated by blanks.
    pub(crate) fn rbuild(&self, line: &str) -> Ended {
        end(&mut self.command(line.split_whitespace()))
    }

    /// As [`TestEnv::rbuild`]; the command has to succeed.
    pub(crate) fn ok(&self, line: &str) -> Ended {
        let ended = self.rbuild(line);
        assert_eq!(ended.code, 0, "rbuild {line}\n{}{}", ended.stdout, ended.stderr);
        ended
    }

    /// As [`TestEnv::rbuild`]; the command has to fail. Gives standard error without what changes from run to run.
    pub(crate) fn fails(&self, line: &str) -> String {
        let ended = self.rbuild(line);
        assert_ne!(ended.code, 0, "rbuild {line} succeeded\n{}{}", ended.stdout, ended.stderr);
        format!("exit code: {}\n{}", ended.code, self.stable(&ended.stderr))
    }

    /// Writes a Dockerfile and builds it quietly; the build has to fail. Gives standard error.
    pub(crate) fn dockerfile_fails(&self, dockerfile: impl AsRef<[u8]>) -> String {
        self.write("Dockerfile", dockerfile);
        self.fails("build --progress=quiet --pull=never .")
    }

    /// As [`TestEnv::dockerfile_fails`], asking registries and with more options.
    pub(crate) fn dockerfile_fails_with(&self, dockerfile: &str, options: &str) -> String {
        self.write("Dockerfile", dockerfile);
        self.fails(&format!("build --progress=quiet {options} ."))
    }

    /// A word that no other test uses.
    pub(crate) fn mark(&self) -> String {
        let name = self.dir.path().file_name().and_then(OsStr::to_str).expect("text");
        name.to_owned()
    }

    /// Replaces what changes from run to run: directories, ports, digests, times.
    pub(crate) fn stable(&self, text: &str) -> String {
        let text = text.replace(self.dir.path().to_str().expect("text"), "[TMP]");
        let text = replace(&text, "127.0.0.1:", |c| c.is_ascii_digit(), "127.0.0.1:[PORT]");
        let text = replace(&text, "localhost:", |c| c.is_ascii_digit(), "localhost:[PORT]");
        replace(&text, "sha256:", |c| c.is_ascii_hexdigit(), "sha256:[DIGEST]")
    }
}

/// Replaces `prefix` and the characters after it.
fn replace(text: &str, prefix: &str, belongs: impl Fn(char) -> bool, by: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(prefix) {
        let after = rest[at + prefix.len()..].trim_start_matches(&belongs);
        out.push_str(&rest[..at]);
        let changes = after.len() < rest.len() - at - prefix.len();
        out.push_str(if changes { by } else { prefix });
        rest = after;
    }
    out + rest
}

/// The binary under test.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_rbuild"))
}

/// Runs a command to its end.
pub(crate) fn end(command: &mut Command) -> Ended {
    let output = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// What steps printed after `word` at the beginning of a line, from `--progress=plain`.
pub(crate) fn lines_of_steps<'a>(progress: &'a str, word: &str) -> Vec<&'a str> {
    let printed = |line: &'a str| {
        let mut fields = line.splitn(4, ' ');
        let (_, seconds, first) = (fields.next()?, fields.next()?, fields.next()?);
        (seconds.parse::<f64>().is_ok() && first == word).then(|| fields.next().unwrap_or_default())
    };
    progress.lines().filter_map(printed).collect()
}

/// Says whether system calls can be counted here; prints why not.
#[expect(clippy::print_stdout, reason = "a test that skips says so")]
pub(crate) fn require_strace(test: &str) -> bool {
    let there = Command::new("strace").arg("-V").output().is_ok();
    if !there {
        println!("{test}: skipped, strace is not installed");
    }
    there
}

/// Says whether steps can run here; prints why not.
#[expect(clippy::print_stdout, reason = "a test that skips says so")]
pub(crate) fn require_sandbox(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("{test}: skipped, steps of this test need root");
    }
    root
}
