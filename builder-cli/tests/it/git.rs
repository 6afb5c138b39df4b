//! Git repositories as sources of ADD and as contexts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::contexts::listing;
use crate::env::TestEnv;

const BUILD: &str = "build --progress=quiet -o type=tar,dest=out.tar";

/// A repository beside the context.
pub(crate) struct Upstream {
    path: PathBuf,
}

impl Upstream {
    pub(crate) fn new(env: &TestEnv, name: &str) -> Self {
        let path = env.path(name);
        std::fs::create_dir_all(&path).expect("a directory");
        let upstream = Self { path };
        upstream.git("init --quiet --initial-branch=main");
        // Over http, git asks for what is written in the repository.
        upstream.git("config http.receivepack false");
        upstream
    }

    pub(crate) fn git(&self, line: &str) -> String {
        let mut command = Command::new("git");
        command.args(line.split(' ')).current_dir(&self.path);
        for (name, value) in [
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@example.com"),
            ("GIT_COMMITTER_NAME", "c"),
            ("GIT_COMMITTER_EMAIL", "c@example.com"),
            ("GIT_AUTHOR_DATE", "1000000000 +0000"),
            ("GIT_COMMITTER_DATE", "1100000000 +0000"),
        ] {
            command.env(name, value);
        }
        let output = command.output().expect("git is installed");
        assert!(output.status.success(), "git {line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, content) in files {
            let path = self.path.join(name);
            std::fs::create_dir_all(path.parent().expect("below")).expect("made");
            std::fs::write(path, content).expect("written");
        }
        self.git("add --all");
        self.git("commit --quiet --allow-empty -m x");
        self.git("rev-parse HEAD")
    }

    pub(crate) fn address(&self) -> String {
        format!("file://{}", self.path.display())
    }
}

/// Builds a Dockerfile; gives the files of the image.
fn built(env: &TestEnv, dockerfile: &str) -> Vec<String> {
    env.write("Dockerfile", dockerfile);
    env.ok(&format!("{BUILD} ."));
    listing(env, "out.tar")
}

/// The content of a file of the image that was built last.
fn content(env: &TestEnv, name: &str) -> String {
    let mut archive = tar::Archive::new(std::fs::File::open(env.context("out.tar")).expect("written"));
    let mut entries = archive.entries().expect("a tar").map(|entry| entry.expect("an entry"));
    let mut entry = entries.find(|entry| entry.path().expect("a path").to_str() == Some(name)).expect(name);
    let mut text = String::new();
    entry.read_to_string(&mut text).expect("text");
    text
}

// Rows: A105, A106.
#[test]
fn add_takes_what_a_repository_has() {
    let env = TestEnv::new();
    let upstream = Upstream::new(&env, "upstream");
    let first = upstream.commit(&[("a", "1"), ("d/b.txt", "2"), ("d/c.md", "3"), (".dockerignore", "a\n")]);
    upstream.git("tag v1");
    let at = upstream.address();
    assert_eq!(
        built(&env, &format!("FROM scratch\nADD {at} /x\n")),
        ["644 0:0 x/.dockerignore", "644 0:0 x/a", "644 0:0 x/d/b.txt", "644 0:0 x/d/c.md"]
    );
    let flags = "--chown=1:2 --chmod=600 --exclude=*.md --link";
    assert_eq!(built(&env, &format!("FROM scratch\nADD {flags} {at}#v1:d /y/\n")), ["600 1:2 y/b.txt"]);
    env.write("local", "x");
    assert_eq!(
        built(
            &env,
            &format!("FROM scratch\nARG REF=v1\nADD local {at}?tag=$REF&subdir=d {at}#v1:d <<doc /z/\nhere\ndoc\n")
        ),
        ["644 0:0 z/b.txt", "644 0:0 z/c.md", "644 0:0 z/doc", "644 0:0 z/local"]
    );
    built(&env, &format!("FROM scratch\nADD --keep-git-dir {at}#v1 /\n"));
    assert_eq!(content(&env, ".git/HEAD").trim(), first);
    built(&env, &format!("FROM scratch\nADD --checksum={} {at}#v1 /\n", &first[..10]));
    let config = env.ok("build -q -t kept .");
    assert!(config.stdout.starts_with("sha256:"), "{config:?}");

    // A moved branch is noticed, a tag that stays gives what there is.
    env.write("Dockerfile", format!("FROM scratch\nADD {at}#main /\n"));
    env.ok(&format!("{BUILD} ."));
    upstream.commit(&[("a", "new")]);
    let progress = env.ok("build --progress=plain -o type=tar,dest=out.tar .");
    assert!(!progress.stderr.contains("CACHED"), "{}", progress.stderr);
    assert_eq!(content(&env, "a"), "new");
    assert!(env.ok("build --progress=plain .").stderr.contains("CACHED"));
}

#[test]
fn a_commit_that_is_here_needs_neither_server_nor_git() {
    let env = TestEnv::new();
    let upstream = Upstream::new(&env, "upstream");
    let commit = upstream.commit(&[("a", "1")]);
    let at = upstream.address();
    env.write("Dockerfile", format!("FROM scratch\nADD {at}#{commit} /\n"));
    env.ok("build --progress=quiet .");
    std::fs::remove_dir_all(&upstream.path).expect("removed");
    let mut command = env.command(["build", "--progress=plain", "."]);
    let ended = crate::env::end(command.env("PATH", "/nowhere"));
    assert!(ended.code == 0 && ended.stderr.contains("CACHED"), "{}", ended.stderr);
    // A branch has to be asked for, except where nobody may be asked.
    env.write("Dockerfile", format!("FROM scratch\nADD {at}#main /\n"));
    let error = env.fails("build --progress=quiet --pull=never .");
    assert!(error.contains("is not in the local store") && error.contains("without `--pull=never`"), "{error}");
    let mut command = env.command(["build", "--progress=quiet", "."]);
    let ended = crate::env::end(command.env("PATH", "/nowhere"));
    assert!(ended.code != 0 && ended.stderr.contains("`git` is not installed"), "{}", ended.stderr);
}

// Rows: E2, E3.
#[test]
fn a_repository_is_a_context() {
    let env = TestEnv::new();
    let upstream = Upstream::new(&env, "upstream");
    let other = Upstream::new(&env, "other");
    let commit = upstream.commit(&[
        ("Dockerfile", "FROM scratch\nCOPY . /\n"),
        ("sub/Dockerfile", "FROM scratch\nCOPY --from=other o /\nCOPY s /\n"),
        ("sub/s", "s"),
        ("alt.Dockerfile", "FROM scratch\nCOPY sub/s /alt\n"),
    ]);
    other.commit(&[("o", "o")]);
    let (at, beside) = (upstream.address(), other.address());
    env.ok(&format!("{BUILD} {at}"));
    assert_eq!(
        listing(&env, "out.tar"),
        ["644 0:0 Dockerfile", "644 0:0 alt.Dockerfile", "644 0:0 sub/Dockerfile", "644 0:0 sub/s"]
    );
    env.ok(&format!("{BUILD} --build-context other={beside}#main {at}#{commit}:sub"));
    assert_eq!(listing(&env, "out.tar"), ["644 0:0 o", "644 0:0 s"]);
    env.ok(&format!("{BUILD} -f alt.Dockerfile {at}?branch=main"));
    assert_eq!(listing(&env, "out.tar"), ["644 0:0 alt"]);
    env.ok(&format!("{BUILD} --build-arg BUILDKIT_CONTEXT_KEEP_GIT_DIR=1 {at}"));
    assert_eq!(content(&env, ".git/HEAD").trim(), commit);

    env.ok(&format!("{BUILD} {at}#main"));
    std::fs::remove_dir_all(&upstream.path).expect("removed");
    env.ok(&format!("{BUILD} --pull=never {at}#main"));
    env.ok(&format!("{BUILD} {at}#{commit}"));
    let mut shown = String::new();
    for line in [
        &format!("build --progress=quiet {at}#main"),
        "build --progress=quiet --pull=never file:///nowhere",
        "build https://user:secret@h/r.git?ref=a&ref=b",
        "build https://h/r.git?reff=a",
        "build --build-context x=git@h:r?mtime=now .",
    ] {
        shown.extend([env.stable(line), "\n".to_owned(), env.fails(line), "\n".to_owned()]);
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn what_is_wrong_with_an_address_is_said_before_anything_is_done() {
    let env = TestEnv::new();
    let mut shown = String::new();
    for add in [
        "https://h/r.git?ref=a#b /",
        "--keep-git-dir git@h:r?keep-git-dir=false /",
        "--checksum=sha256:ab https://h/r.git /",
        "--checksum=ab https://h/r.git?commit=cd /",
        "--checksum=ab https://h/r.git https://h/s.git /",
        "https://user:secret@h/r.git?x=1 /",
    ] {
        shown.push_str(&env.dockerfile_fails(format!("FROM scratch\nADD {add}\n")));
        shown.push('\n');
    }
    shown.push_str(&env.dockerfile_fails("FROM scratch\nCOPY https://user:secret@h/r.git /\n"));
    insta::assert_snapshot!(shown);
}

#[test]
fn triggers_add_repositories_and_histories_hide_passwords() {
    let env = TestEnv::new();
    let upstream = Upstream::new(&env, "upstream");
    upstream.commit(&[("a", "1")]);
    env.write("Dockerfile", format!("FROM scratch\nLABEL a=b\nONBUILD ADD {} /x/\n", upstream.address()));
    env.ok("build --progress=quiet -t base .");
    assert_eq!(built(&env, "FROM base\n"), ["644 0:0 x/a"]);
}

/// `git http-backend` behind a server that asks for a token.
struct Web {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Web {
    fn serve(root: PathBuf, authorization: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, log) = (root.clone(), Arc::clone(&log));
                std::thread::spawn(move || answer(stream, &root, authorization, &log));
            }
        });
        Self { port, asked }
    }
}

fn answer(stream: TcpStream, root: &std::path::Path, authorization: &str, log: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line == "\r\n" {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let header = |name: &str| {
        head.iter().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let mut words = head[0].split(' ');
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let given = header("authorization").unwrap_or_default();
    log.lock().expect("no panic").push(format!("{target} {given}"));
    let mut body = vec![0; header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body).expect("a body");
    let mut stream = reader.into_inner();
    if given != authorization {
        let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(refusal.as_bytes());
        return;
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_PROTOCOL", header("git-protocol").unwrap_or_default())
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type").unwrap_or_default())
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git is installed");
    child.stdin.take().expect("piped").write_all(&body).expect("written");
    let output = child.wait_with_output().expect("ends").stdout;
    let end = output.windows(4).position(|part| part == b"\r\n\r\n").expect("a head") + 4;
    let status = String::from_utf8_lossy(&output[..end]);
    let status = status.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nConnection: close\r\n").as_bytes());
    let _ = stream.write_all(&output);
}

// Rows: E4.
#[test]
fn tokens_reach_the_server_and_nobody_else() {
    let env = TestEnv::new();
    let module = Upstream::new(&env, "web/module.git");
    module.commit(&[("deep/m", "m")]);
    let upstream = Upstream::new(&env, "web/main.git");
    upstream.commit(&[("a", "1")]);
    upstream.git(&format!("-c protocol.file.allow=always submodule --quiet add {} mod", module.address()));
    upstream.git("config --file .gitmodules submodule.mod.url ../module.git");
    upstream.commit(&[]);
    // "x-access-token:sesame"
    let web = Web::serve(env.path("web"), "basic eC1hY2Nlc3MtdG9rZW46c2VzYW1l");
    // Git that notes how it is called.
    let noted = env.path("bin/noted");
    let real = Command::new("sh").args(["-c", "command -v git"]).output().expect("sh runs").stdout;
    let real = String::from_utf8(real).expect("text");
    std::fs::create_dir(env.path("bin")).expect("made");
    let script = format!("#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n", noted.display(), real.trim());
    std::fs::write(env.path("bin/git"), script).expect("written");
    std::process::Command::new("chmod").arg("+x").arg(env.path("bin/git")).status().expect("chmod runs");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", env.path("bin").display());
    let run = |line: &str| {
        let mut command = env.command(line.split(' '));
        crate::env::end(command.env("TOKEN", "sesame").env("PATH", &path))
    };
    let host = format!("127.0.0.1:{}", web.port);
    env.write("Dockerfile", format!("FROM scratch\nADD http://{host}/main.git?submodules=false /\n"));
    let refused = run(&format!("{BUILD} ."));
    assert!(refused.code != 0 && refused.stderr.contains("--secret id=GIT_AUTH_TOKEN,env=NAME"), "{}", refused.stderr);
    for id in ["GIT_AUTH_TOKEN".to_owned(), format!("GIT_AUTH_TOKEN.{host}")] {
        let ended = run(&format!("{BUILD} --no-cache --secret id={id},env=TOKEN ."));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert_eq!(listing(&env, "out.tar"), ["644 0:0 .gitmodules", "644 0:0 a"]);
    }
    // The token is for the one repository: its submodule is refused, and is fetched with the header of the host.
    env.write("Dockerfile", format!("FROM scratch\nADD http://{host}/main.git /\n"));
    let refused = run(&format!("{BUILD} --secret id=GIT_AUTH_TOKEN,env=TOKEN ."));
    assert!(refused.code != 0 && refused.stderr.contains("cannot fetch submodules of"), "{}", refused.stderr);
    // User and password of the address count for the whole server.
    drop(web);
    let web = Web::serve(env.path("web"), "Basic dXNlcjpvcGVu");
    let host = format!("127.0.0.1:{}", web.port);
    env.write("Dockerfile", format!("FROM scratch\nADD http://user:open@{host}/main.git /\n"));
    let ended = run("build --progress=plain -o type=tar,dest=out.tar -t secretive .");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(listing(&env, "out.tar"), ["644 0:0 .gitmodules", "644 0:0 a", "644 0:0 mod/deep/m"]);
    let history = ended.stderr + &run("history secretive").stdout;
    assert!(history.contains("ADD http://xxxxx:xxxxx@"), "{history}");
    let asked = web.asked.lock().expect("no panic").join("\n");
    assert!(asked.contains("/module.git/info/refs"), "{asked}");
    let noted = std::fs::read_to_string(noted).expect("git was called");
    assert!(noted.contains("ls-remote"), "{noted}");
    for secret in ["sesame", "open", "c2VzYW1l", "dXNlcjpvcGVu"] {
        assert!(!noted.contains(secret) && !history.contains(secret), "{secret}: {noted}{history}");
    }
    let mut grep = Command::new("grep");
    let kept = grep.args(["-rlaE", "sesame|user:open|c2VzYW1l|dXNlcjpvcGVu"]).arg(env.path("state"));
    let kept = kept.output().expect("grep runs").stdout;
    assert!(kept.is_empty(), "{}", String::from_utf8_lossy(&kept));
}

// Rows: E4.
#[test]
fn ssh_is_called_without_the_users_configuration() {
    let env = TestEnv::new();
    let upstream = Upstream::new(&env, "upstream");
    upstream.commit(&[("Dockerfile", "FROM scratch\nCOPY a /\n"), ("a", "1")]);
    std::fs::create_dir(env.path("bin")).expect("made");
    let noted = env.path("noted");
    let script = format!(
        "#!/bin/sh\necho \"$SSH_AUTH_SOCK $@\" >> {}\nfor last; do :; done\nexec sh -c \"$last\"\n",
        noted.display()
    );
    std::fs::write(env.path("bin/ssh"), script).expect("written");
    std::process::Command::new("chmod").arg("+x").arg(env.path("bin/ssh")).status().expect("chmod runs");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", env.path("bin").display());
    let address = format!("git@example.com:{}", upstream.path.display());
    let line = format!("{BUILD} {address}#main");
    let mut command = env.command(line.split(' '));
    let ended = crate::env::end(command.env("PATH", &path).env("SSH_AUTH_SOCK", "/agent"));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(listing(&env, "out.tar"), ["644 0:0 a"]);
    // A Dockerfile gets an agent only where the caller says so.
    env.write("Dockerfile", format!("FROM scratch\nADD {address}#main /\n"));
    let mut command = env.command(BUILD.split(' ').chain(["."]));
    let ended = crate::env::end(command.env("PATH", &path).env("SSH_AUTH_SOCK", "/agent"));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let keygen = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(env.path("key")).status();
    if keygen.is_ok_and(|status| status.success()) {
        let line = format!("{BUILD} --no-cache --ssh default={} .", env.path("key").display());
        let ended = crate::env::end(env.command(line.split(' ')).env("PATH", &path));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    } else {
        println!("ssh_is_called_without_the_users_configuration: --ssh with a key is left out, there is no ssh-keygen");
    }
    let noted = std::fs::read_to_string(noted).expect("ssh was called");
    let agents: Vec<&str> = noted.lines().map(|line| line.split(" -F").next().unwrap_or_default()).collect();
    let of_add: Vec<&&str> = agents.iter().skip_while(|agent| **agent == "/agent").collect();
    assert!(of_add.first().is_some_and(|agent| agent.is_empty()), "{noted}");
    assert!(of_add.last().is_some_and(|agent| agent.is_empty() || agent.starts_with("/proc/")), "{noted}");
    assert!(noted.starts_with("/agent -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new"), "{noted}");
    assert!(noted.contains("/state/known_hosts") && noted.contains("/home/.ssh/known_hosts"), "{noted}");
}

#[test]
fn builds_share_a_repository() {
    let env = TestEnv::new();
    let upstream = Upstream::new(&env, "upstream");
    for number in 0..3 {
        upstream.commit(&[("a", &number.to_string())]);
        upstream.git(&format!("tag v{number}"));
    }
    let dockerfile: String = (0..3)
        .map(|number| format!("FROM scratch AS s{number}\nADD {}#v{number} /d{number}/\n", upstream.address()))
        .collect();
    let copies: String = (0..3).map(|number| format!("COPY --from=s{number} / /\n")).collect();
    env.write("Dockerfile", format!("{dockerfile}FROM scratch\n{copies}"));
    let running: Vec<_> = (0..3)
        .map(|number| {
            let line = format!("build --progress=quiet -o type=tar,dest=out{number}.tar .");
            env.command(line.split(' ')).stderr(Stdio::piped()).spawn().expect("starts")
        })
        .collect();
    for (number, child) in running.into_iter().enumerate() {
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(listing(&env, &format!("out{number}.tar")), ["644 0:0 d0/a", "644 0:0 d1/a", "644 0:0 d2/a"]);
    }
    let repositories = std::fs::read_dir(env.path("state/git")).expect("there").count();
    assert_eq!(repositories, 1);
    let listed = env.ok("cache ls --verbose").stdout;
    assert!(listed.contains(&upstream.address()), "{listed}");
    env.ok("cache prune --all --force");
    assert_eq!(std::fs::read_dir(env.path("state/git")).expect("there").count(), 0);
    env.ok("build --progress=quiet .");
}

// Rows: A60.
#[test]
fn the_time_of_a_commit_is_the_epoch() {
    let env = TestEnv::new();
    let upstream = Upstream::new(&env, "upstream");
    upstream.commit(&[("Dockerfile", "FROM scratch\nCOPY a /\n"), ("a", "1")]);
    let at = upstream.address();
    let created = |options: &str| {
        env.ok(&format!("build --progress=quiet -t epoch {options}"));
        env.ok("inspect --format={{.Created}} epoch").stdout.trim().to_owned()
    };
    assert_eq!(created(&format!("--build-arg SOURCE_DATE_EPOCH=context {at}")), "2004-11-09T11:33:20Z");
    env.write("Dockerfile", format!("FROM scratch AS when\nADD {at} /\nFROM scratch\nLABEL a=b\n"));
    assert_eq!(created("--build-arg SOURCE_DATE_EPOCH=when ."), "2004-11-09T11:33:20Z");
}
