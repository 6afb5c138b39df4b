//! `--ssh` and `RUN --mount=type=ssh`, with the programs of OpenSSH on both sides.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::env::{TestEnv, end, require_sandbox};
use crate::registry::base;

/// Makes a key; gives its file.
fn key(env: &TestEnv, name: &str, options: &[&str]) -> PathBuf {
    let path = env.path(name);
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-C", &format!("{name} of a test")]).args(options).arg("-f").arg(&path);
    let made = end(&mut keygen);
    assert_eq!(made.code, 0, "ssh-keygen of openssh-client: {}", made.stderr);
    path
}

/// The fingerprint of a key, as `ssh-add -l` shows it.
fn fingerprint(key: &Path) -> String {
    let shown = end(Command::new("ssh-keygen").arg("-lf").arg(key.with_extension("pub")));
    shown.stdout.split(' ').nth(1).expect("a fingerprint").to_owned()
}

/// `ssh-add` and `ssh-keygen` with the libraries that they need, in the context.
fn openssh(env: &TestEnv) {
    let programs = ["/usr/bin/ssh-add", "/usr/bin/ssh-keygen"];
    let libraries = end(Command::new("ldd").args(programs)).stdout;
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
    for path in paths.chain(programs).map(Path::new) {
        let content = std::fs::read(path).expect("readable");
        let name = format!("root{}", path.display());
        env.write(&name, content);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(env.context(&name), mode).expect("executable");
    }
    // It wants to know who it is.
    env.write("root/etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n");
}

/// Builds a Dockerfile that writes `/out`; gives that file.
fn out_of(env: &TestEnv, body: &str, options: &[String]) -> String {
    env.write("Dockerfile", format!("FROM {}\nCOPY root/ /\n{body}\nFROM scratch\nCOPY --from=0 /out /out\n", base()));
    let built = end(env.command(["build", "--progress=plain", "-o", "result"]).args(options).arg("."));
    assert_eq!(built.code, 0, "{}", built.stderr);
    std::fs::read_to_string(env.context("result/out")).expect("the step wrote it")
}

/// An agent of OpenSSH; ends with the test.
struct Agent(Child);

impl Agent {
    fn start(socket: &Path) -> Self {
        let child = Command::new("ssh-agent").arg("-D").arg("-a").arg(socket).stdout(Stdio::null()).spawn();
        let agent = Self(child.expect("ssh-agent of openssh-client"));
        for _ in 0..500 {
            if socket.exists() {
                return agent;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the agent does not start");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// Rows: A78, B15.
#[test]
fn a78_keys_from_files_sign_in_a_step() {
    if !require_sandbox("a78_keys_from_files_sign_in_a_step") {
        return;
    }
    let env = TestEnv::new();
    openssh(&env);
    let keys = [
        key(&env, "ed25519", &["-t", "ed25519", "-N", ""]),
        key(&env, "rsa", &["-t", "rsa", "-b", "2048", "-N", ""]),
        key(&env, "rsa-pem", &["-t", "rsa", "-b", "3072", "-m", "PEM", "-N", ""]),
        key(&env, "p256", &["-t", "ecdsa", "-b", "256", "-N", ""]),
        key(&env, "p384-pem", &["-t", "ecdsa", "-b", "384", "-m", "PEM", "-N", ""]),
        key(&env, "p256-pkcs8", &["-t", "ecdsa", "-b", "256", "-m", "PKCS8", "-N", ""]),
    ];
    for key in &keys {
        let name = key.file_name().expect("a name").to_str().expect("text");
        env.write(&format!("root/keys/{name}.pub"), std::fs::read(key.with_extension("pub")).expect("made"));
    }
    let spec = keys.iter().map(|key| key.display().to_string()).collect::<Vec<_>>().join(",");
    // Signs with each key, and verifies that. Removing the keys is refused.
    let body = "RUN --mount=type=ssh (ssh-add -l; echo $SSH_AUTH_SOCK; ls -ln $SSH_AUTH_SOCK) > /out && ! ssh-add -D && \
                for key in /keys/*.pub; do echo text | ssh-keygen -q -Y sign -n test -f $key > /sig && \
                echo text | ssh-keygen -q -Y check-novalidate -n test -s /sig || exit 1; done\n\
                RUN (ls -A /run 2>&1; echo $SSH_AUTH_SOCK) >> /out";
    let said = out_of(&env, body, &["--ssh".to_owned(), format!("default={spec}")]);
    for key in &keys {
        assert!(said.contains(&fingerprint(key)), "{} is not in {said}", key.display());
    }
    assert!(said.contains("ed25519 of a test (ED25519)"), "{said}");
    assert!(said.contains("\n/run/buildkit/ssh_agent.0\nsrw-------    1 0        0 "), "{said}");
    // Nothing of it is left for the next step.
    assert!(said.ends_with("/run: No such file or directory\n\n"), "{said}");
}

#[test]
fn a78_an_agent_is_passed_on_to_list_and_to_sign_only() {
    if !require_sandbox("a78_an_agent_is_passed_on_to_list_and_to_sign_only") {
        return;
    }
    let env = TestEnv::new();
    openssh(&env);
    let socket = env.path("agent");
    let _agent = Agent::start(&socket);
    let key = key(&env, "key", &["-t", "ed25519", "-N", ""]);
    let host = |arguments: &[&str]| end(Command::new("ssh-add").args(arguments).env("SSH_AUTH_SOCK", &socket));
    assert_eq!(host(&["-q", key.to_str().expect("text")]).code, 0);
    env.write("root/key.pub", std::fs::read(key.with_extension("pub")).expect("made"));
    let body = "USER app\n\
                RUN --mount=type=ssh,id=git,target=/agent,mode=0660,uid=1000,gid=7 ssh-add -l > /tmp/out && ssh-add -T /key.pub && \
                ! ssh-add -D && stat -c '%a %u:%g' $SSH_AUTH_SOCK >> /tmp/out\n\
                USER root\nRUN cp /tmp/out /out";
    let body = format!("RUN mkdir -p /tmp && chmod 777 /tmp\n{body}");
    let said = out_of(&env, &body, &["--ssh".to_owned(), format!("git={}", socket.display())]);
    assert!(said.contains(&fingerprint(&key)) && said.ends_with("\n660 1000:7\n"), "{said}");
    // The step could not remove it.
    assert!(host(&["-l"]).stdout.contains(&fingerprint(&key)));
    // A raw socket passes everything: the key goes.
    let raw = ["--no-cache".to_owned(), "--ssh".to_owned(), format!("git={},raw=true", socket.display())];
    out_of(&env, "RUN --mount=type=ssh,id=git ssh-add -D && echo gone > /out", &raw);
    assert!(host(&["-l"]).stdout.contains("no identities"));
}

#[test]
fn a78_agents_that_are_not_there() {
    if !require_sandbox("a78_agents_that_are_not_there") {
        return;
    }
    let env = TestEnv::new();
    let dockerfile = format!("FROM {}\nRUN --mount=type=ssh,required true\n", base());
    insta::assert_snapshot!(env.dockerfile_fails_with(&dockerfile, ""));
    // What is not required is left out; the variable stays, as in BuildKit.
    let dockerfile = format!("FROM {}\nRUN --mount=type=ssh test ! -e $SSH_AUTH_SOCK -a -n $SSH_AUTH_SOCK\n", base());
    env.write("Dockerfile", dockerfile);
    env.ok("build -q .");
    let locked = key(&env, "locked", &["-t", "ed25519", "-N", "passphrase"]);
    let shown = env.fails(&format!("build --ssh default={} .", locked.display()));
    insta::assert_snapshot!(shown);
}

#[test]
fn a78_whether_an_agent_is_given_is_not_in_the_key() {
    if !require_sandbox("a78_whether_an_agent_is_given_is_not_in_the_key") {
        return;
    }
    let env = TestEnv::new();
    let key = key(&env, "key", &["-t", "ed25519", "-N", ""]);
    env.write("Dockerfile", format!("FROM {}\nRUN --mount=type=ssh true\n", base()));
    env.ok("build -q .");
    let again = env.ok(&format!("build --progress=plain --ssh default={} .", key.display()));
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
}
