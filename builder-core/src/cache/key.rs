//! [`CacheKey`]: what makes two steps the same step. Pure.
//!
//! | input | in the key? | why |
//! |---|---|---|
//! | format version of keys | yes | a change of meaning must not hit old records |
//! | argv, script, WORKDIR, USER, platform | yes | the command sees them |
//! | ENV and declared ARGs that the step sees | yes, by name and value | the command sees them |
//! | proxies that were not declared | no | they say how to reach something, not what it is |
//! | content of the root filesystem | yes, as the digests of its layers without times | the command sees it |
//! | files of bind mounts | yes: path, kind, mode, owner, xattrs, content of exactly what is mounted; whether it may write | the command sees them |
//! | identity of cache mounts (id, target, seed, mode, owner, whether it may write) | yes | it says where the command looks |
//! | content of cache mounts | no | they only make the step faster, by contract |
//! | tmpfs mounts | target and size | the command sees them |
//! | secrets and ssh agents | id, target, variable, mode, owner, whether it has to be there; never the value | a value must not be guessable from a key |
//! | secrets with `cache=hash` | a keyed digest of the value, too | asked for; without the key of the store it says nothing |
//! | secrets with an epoch | the word given, too | asked for; it says nothing of the value, so the result may travel |
//! | `--network`, `--security` | yes | they change what the command can do |
//! | `--no-hosts`, `--security-opt no-new-privileges` | yes, where they are on | as above |
//! | `--device` | name, and what it brings: nodes, variables, targets of mounts | the command sees them |
//! | whether something was allowed (`--allow`) | no | without, there is no result; with it, `--security` and `--network` are in the key |
//! | what `--network=default` is (`private`, `ns:PATH`), `--dns` and the like | no | they say how to reach something, not what it is |
//! | host name, names of `--add-host` | yes | the command sees them |
//! | addresses of `--add-host` | no | they differ between machines that build the same thing |
//! | `--ulimit`, `--shm-size`, memory and processor limits | no | they say how, not what |
//! | copied files: path, kind, mode, owner, link target, xattrs, content, hard links | yes | they are the result |
//! | times of copied files | no | checkouts differ in nothing else |
//! | destination of a copy: kind, mode, owner of each parent | yes | they decide where and how the files land |
//! | the rest of the destination | no | a new base image does not re-run a copy |
//! | WORKDIR: path, owner, the directories that it makes and those above | yes | they are the result |
//! | paths of the host, user, umask, time, `--jobs` | no | they are not inputs |

use std::fmt;

use crate::graph::{CacheMount, MountOp, MountTarget, RunOp, SecretMount};
use crate::tree::{SemanticDigest, StateDigest};

/// Changes whenever the meaning of a field changes; old records then simply do not match.
const VERSION: &str = "3";

/// How the field of a secret's fingerprint begins; its id follows.
pub(crate) const FINGERPRINT: &str = "secret fingerprint";

/// Identity of a step by what it does and what it sees.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The text is not 64 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a cache key")]
pub struct ParseCacheKeyError(String);

impl std::str::FromStr for CacheKey {
    type Err = ParseCacheKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let hash = blake3::Hash::from_hex(text).ok().filter(|_| lower);
        hash.map(|hash| Self(*hash.as_bytes())).ok_or_else(|| ParseCacheKeyError(text.to_owned()))
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({self})")
    }
}

/// One input of a step: what it is, and its value or its digest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Field {
    /// `env PATH`, `root`, `mount /src`.
    pub name: String,
    /// The value as text.
    pub value: String,
}

/// Everything that a key is made of, in order.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Preimage {
    /// `run`, `copy`, `add`, `workdir`.
    pub op: String,
    /// The inputs.
    pub fields: Vec<Field>,
}

impl Preimage {
    /// Starts with no input.
    pub fn new(op: &str) -> Self {
        Self { op: op.to_owned(), fields: Vec::new() }
    }

    /// Adds an input.
    pub fn add(&mut self, name: impl Into<String>, value: impl fmt::Display) {
        self.fields.push(Field { name: name.into(), value: value.to_string() });
    }

    /// Whether it can be told to others: fingerprints of secrets stay here.
    pub(crate) fn may_travel(&self) -> bool {
        !self.fields.iter().any(|field| field.name.starts_with(FINGERPRINT))
    }

    /// The step in one line, for people: `RUN make`.
    pub fn summary(&self) -> String {
        let arguments = self.fields.iter().filter(|field| field.name.starts_with("argument "));
        let arguments: Vec<&str> = arguments.map(|field| field.value.as_str()).collect();
        let command = match arguments[..] {
            [_, "-c", command] => command.to_owned(),
            [] if self.op == "workdir" => {
                let path = self.fields.iter().find(|field| field.name == "path");
                path.map_or_else(String::new, |field| field.value.clone())
            }
            _ => arguments.join(" "),
        };
        let line = format!("{} {command}", self.op.to_uppercase());
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The key: a digest in which every part has its length before it, so that no two preimages look the same.
    pub fn key(&self) -> CacheKey {
        let mut hasher = blake3::Hasher::new();
        let mut part = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        part(VERSION);
        part(&self.op);
        for field in &self.fields {
            part(&field.name);
            part(&field.value);
        }
        CacheKey(*hasher.finalize().as_bytes())
    }
}

/// The preimage of a RUN.
///
/// `mounted` has, for each mount of the op that shows files of a context or a stage, the digest of exactly what it
/// shows; `None` for the others.
pub fn run(op: &RunOp, root: &StateDigest, mounted: &[Option<SemanticDigest>]) -> Preimage {
    let mut preimage = Preimage::new("run");
    let add = &mut |name: &str, value: &dyn fmt::Display| preimage.add(name, value);
    add("platform", &op.platform);
    for (index, argument) in op.args.iter().enumerate() {
        add(&format!("argument {index}"), argument);
    }
    if let Some(script) = &op.script {
        add("script", &format_args!("{}\n{}", script.name, script.body));
    }
    for (name, value) in op.env.to_vec() {
        add(&format!("env {name}"), &value);
    }
    add("workdir", &op.workdir);
    add("user", &op.user);
    add("network", &format_args!("{:?}", op.network));
    add("security", &format_args!("{:?}", op.security));
    for device in &op.devices {
        add("device", &format_args!("{} required={}", device.name, device.required));
    }
    add("hostname", &op.hostname);
    for (name, _) in &op.add_hosts {
        add("host", name);
    }
    // Only where they are on: what was remembered before there were such options stays valid.
    for (name, on) in [("no-hosts", op.no_hosts), ("no-new-privileges", op.no_new_privileges)] {
        if on {
            add(name, &on);
        }
    }
    for (mount, digest) in op.mounts.iter().zip(mounted) {
        add(&mount_field(mount), &describe(mount, *digest));
    }
    add("root", root);
    preimage
}

/// The name of the field that says what a mount is and shows.
pub fn mount_field(mount: &MountOp) -> String {
    format!("mount {}", mount.target)
}

fn describe(mount: &MountOp, digest: Option<SemanticDigest>) -> String {
    let content = digest.map_or_else(|| "-".to_owned(), |digest| digest.to_string());
    match &mount.kind {
        MountTarget::Bind { writable, .. } => format!("bind writable={writable} content={content}"),
        MountTarget::Cache(CacheMount { id, read_only, mode, uid, gid, .. }) => {
            format!("cache id={id} read-only={read_only} mode={mode:o} owner={uid}:{gid} seed={content}")
        }
        MountTarget::Tmpfs { size } => format!("tmpfs size={size:?}"),
        MountTarget::Secret(SecretMount { id, required, env, file, mode, uid, gid }) => {
            format!("secret id={id} required={required} env={env:?} file={file} mode={mode:o} owner={uid}:{gid}")
        }
        MountTarget::Ssh(ssh) => {
            format!("ssh id={} required={} mode={:o} owner={}:{}", ssh.id, ssh.required, ssh.mode, ssh.uid, ssh.gid)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::{Network, Security, Sharing};
    use crate::graph::{ContextId, Files, Script, SshMount};
    use crate::rootfs::RootPath;
    use crate::tree::{Entry, Stack, Time, Tree, TreeBuilder};

    fn op() -> RunOp {
        RunOp {
            args: vec!["/bin/sh".into(), "-c".into(), "make".into()],
            env: [("PATH", "/bin"), ("A", "1")].into_iter().collect(),
            unkeyed_env: vec![("HTTP_PROXY".into(), "http://p".into())],
            workdir: RootPath::root(),
            platform: "linux/amd64".parse().expect("valid"),
            user: String::new(),
            mounts: vec![MountOp {
                target: RootPath::clean("/src").expect("clean"),
                kind: MountTarget::Bind {
                    from: Files::Context(ContextId::Main),
                    source: RootPath::root(),
                    writable: false,
                },
            }],
            network: Network::Default,
            security: Security::Sandbox,
            devices: Vec::new(),
            hostname: "buildkitsandbox".into(),
            add_hosts: vec![("db".into(), "10.0.0.1".into())],
            no_hosts: false,
            no_new_privileges: false,
            script: None,
        }
    }

    fn key_of(op: &RunOp, content: u8, root: &Stack) -> CacheKey {
        run(op, &root.state(), &[Some(SemanticDigest::new([content; 32]))]).key()
    }

    type Change = fn(&mut RunOp);

    #[test]
    fn what_the_command_sees_is_in_the_key() {
        let base = key_of(&op(), 0, &Stack::default());
        let changes: [(&str, Change); 15] = [
            ("argument", |op| op.args[2] = "make all".into()),
            ("split of arguments", |op| op.args = vec!["/bin/sh".into(), "-cmake".into()]),
            ("env value", |op| op.env = op.env.with("A", "2")),
            ("env name", |op| op.env = [("PATH", "/bin"), ("B", "1")].into_iter().collect()),
            ("workdir", |op| op.workdir = RootPath::clean("/w").expect("clean")),
            ("platform", |op| op.platform = "linux/386".parse().expect("valid")),
            ("user", |op| op.user = "1".into()),
            ("network", |op| op.network = Network::None),
            ("security", |op| op.security = Security::Insecure),
            ("no hosts", |op| op.no_hosts = true),
            ("no new privileges", |op| op.no_new_privileges = true),
            ("hostname", |op| op.hostname = "h".into()),
            ("name of a host", |op| op.add_hosts[0].0 = "cache".into()),
            ("mount target", |op| op.mounts[0].target = RootPath::clean("/x").expect("clean")),
            ("script", |op| op.script = Some(Script { name: "EOF".into(), body: "#!/bin/sh\n".into() })),
        ];
        for (what, change) in changes {
            let mut changed = op();
            change(&mut changed);
            assert_ne!(key_of(&changed, 0, &Stack::default()), base, "{what}");
        }
        assert_ne!(key_of(&op(), 1, &Stack::default()), base, "content of the mount");
        let mut builder = TreeBuilder::new();
        builder.push(Entry::directory(RootPath::clean("/d").expect("clean"), 0o755, 0, 0, Time::default()));
        assert_ne!(key_of(&op(), 0, &Stack::new(vec![builder.finish()])), base, "root");
    }

    #[test]
    fn whatever_a_mount_is_is_in_the_key() {
        let cache = CacheMount {
            id: "id".into(),
            sharing: Sharing::Shared,
            read_only: false,
            seed: None,
            mode: 0o755,
            uid: 0,
            gid: 0,
        };
        let secret =
            SecretMount { id: "id".into(), required: false, env: None, file: true, mode: 0o400, uid: 0, gid: 0 };
        let ssh = SshMount { id: "id".into(), required: false, mode: 0o600, uid: 0, gid: 0 };
        let bind =
            |writable| MountTarget::Bind { from: Files::Context(ContextId::Main), source: RootPath::root(), writable };
        let kinds = [
            bind(false),
            bind(true),
            MountTarget::Tmpfs { size: None },
            MountTarget::Tmpfs { size: Some(1) },
            MountTarget::Tmpfs { size: Some(2) },
            MountTarget::Cache(cache.clone()),
            MountTarget::Cache(CacheMount { id: "other".into(), ..cache.clone() }),
            MountTarget::Cache(CacheMount { read_only: true, ..cache.clone() }),
            MountTarget::Cache(CacheMount { mode: 0o700, ..cache.clone() }),
            MountTarget::Cache(CacheMount { uid: 1, ..cache.clone() }),
            MountTarget::Cache(CacheMount { gid: 1, ..cache.clone() }),
            MountTarget::Secret(secret.clone()),
            MountTarget::Secret(SecretMount { id: "other".into(), ..secret.clone() }),
            MountTarget::Secret(SecretMount { required: true, ..secret.clone() }),
            MountTarget::Secret(SecretMount { env: Some("A".into()), ..secret.clone() }),
            MountTarget::Secret(SecretMount { file: false, ..secret.clone() }),
            MountTarget::Secret(SecretMount { mode: 0o444, ..secret.clone() }),
            MountTarget::Secret(SecretMount { uid: 1, ..secret.clone() }),
            MountTarget::Secret(SecretMount { gid: 1, ..secret }),
            MountTarget::Ssh(ssh.clone()),
            MountTarget::Ssh(SshMount { id: "other".into(), ..ssh.clone() }),
            MountTarget::Ssh(SshMount { required: true, ..ssh.clone() }),
            MountTarget::Ssh(SshMount { mode: 0o660, ..ssh.clone() }),
            MountTarget::Ssh(SshMount { uid: 1, ..ssh.clone() }),
            MountTarget::Ssh(SshMount { gid: 1, ..ssh }),
        ];
        let mut keys = std::collections::BTreeMap::new();
        for kind in kinds {
            let mut op = op();
            op.mounts[0].kind = kind.clone();
            if let Some(same) = keys.insert(key_of(&op, 0, &Stack::default()), kind.clone()) {
                panic!("{kind:?} and {same:?}");
            }
        }
        let shared = MountTarget::Cache(cache.clone());
        let locked = MountTarget::Cache(CacheMount { sharing: Sharing::Locked, ..cache });
        let key = |kind| {
            let mut op = op();
            op.mounts[0].kind = kind;
            key_of(&op, 0, &Stack::default())
        };
        assert_eq!(key(shared), key(locked), "who else may use it at the same time");
    }

    #[test]
    fn what_only_says_how_is_not() {
        let base = key_of(&op(), 0, &Stack::default());
        let mut changed = op();
        changed.unkeyed_env.clear();
        changed.add_hosts[0].1 = "10.0.0.2".into();
        assert_eq!(key_of(&changed, 0, &Stack::new(vec![Tree::empty()])), base);
    }

    #[test]
    fn preimages_that_look_alike_have_different_keys() {
        let preimage = |fields: &[(&str, &str)]| {
            let mut preimage = Preimage::new("run");
            for (name, value) in fields {
                preimage.add(*name, value);
            }
            preimage.key()
        };
        assert_ne!(preimage(&[("a", "bc")]), preimage(&[("ab", "c")]));
        assert_ne!(preimage(&[("a", "b"), ("c", "d")]), preimage(&[("a", "bcd")]));
    }
}
