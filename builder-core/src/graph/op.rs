//! What vertices do. Everything in an op is already expanded.

use super::{Env, ImageRequest, VertexId};
use crate::dockerfile::{Network, Security, Sharing};
use crate::git::Wanted;
use crate::oci::{Digest, LayoutReference, Platform, Reference};
use crate::rootfs::RootPath;

/// What one vertex does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Brings the layers of an image.
    Image(ImageOp),
    /// Runs a command.
    Run(RunOp),
    /// `COPY` and `ADD`.
    Copy(CopyOp),
    /// Makes a directory.
    Workdir(WorkdirOp),
}

/// The layers of an image as a root filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOp {
    /// Its name, as asked for.
    pub reference: Reference,
    /// The platform.
    pub platform: Platform,
    /// Where it is, if not where its name leads to.
    pub layout: Option<Box<LayoutReference>>,
    /// Its identity: a manifest digest, or the id of an image of the local store.
    pub digest: Digest,
}

/// One command in the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOp {
    /// The whole argv, shell included.
    pub args: Vec<String>,
    /// ENV, visible ARGs and a default PATH, in order; `HOME` is added when the user is known.
    pub env: Env,
    /// Variables that the command sees but that never decide whether it runs: the proxies. They win over `env`, as in
    /// BuildKit.
    pub unkeyed_env: Vec<(String, String)>,
    /// Where it runs; made if missing.
    pub workdir: RootPath,
    /// The platform of the stage: what the program is compiled for.
    pub platform: Platform,
    /// `USER` as written: empty is root.
    pub user: String,
    /// Mounts, in written order.
    pub mounts: Vec<MountOp>,
    /// `--network`, the default already resolved.
    pub network: Network,
    /// `--security`
    pub security: Security,
    /// `--device`, in written order.
    pub devices: Vec<DeviceOp>,
    /// Host name inside.
    pub hostname: String,
    /// Extra lines of `/etc/hosts`: name, address.
    pub add_hosts: Vec<(String, String)>,
    /// The image's own `/etc/hosts` stays as it is.
    pub no_hosts: bool,
    /// Setuid programs and file capabilities gain nothing.
    pub no_new_privileges: bool,
    /// A here-document that is executed itself, mounted at `/dev/pipes/NAME`.
    pub script: Option<Script>,
}

/// A device of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceOp {
    /// CDI name or class.
    pub name: String,
    /// A missing one fails the step.
    pub required: bool,
}

/// An executable here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// File name in `/dev/pipes`.
    pub name: String,
    /// The whole file.
    pub body: String,
}

/// A `RUN --mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOp {
    /// Where.
    pub target: RootPath,
    /// What.
    pub kind: MountTarget,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountTarget {
    /// Files of a context, a stage or an image; writes are discarded.
    Bind {
        /// Where the files come from.
        from: Files,
        /// The path there.
        source: RootPath,
        /// Whether it can be written.
        writable: bool,
    },
    /// A directory that stays from build to build.
    Cache(CacheMount),
    /// Memory.
    Tmpfs {
        /// Limit in bytes.
        size: Option<u64>,
    },
    /// A secret as a file, a variable or both.
    Secret(SecretMount),
    /// The socket of an ssh agent.
    Ssh(SshMount),
}

/// `--mount=type=cache`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMount {
    /// Name, with its namespace.
    pub id: String,
    /// Who may use it at the same time.
    pub sharing: Sharing,
    /// Whether writes fail.
    pub read_only: bool,
    /// What an empty one is filled with.
    pub seed: Option<(Files, RootPath)>,
    /// Permission bits of a new one.
    pub mode: u32,
    /// Owner of a new one.
    pub uid: u32,
    /// Group of a new one.
    pub gid: u32,
}

/// `--mount=type=secret`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretMount {
    /// Which one.
    pub id: String,
    /// A missing one fails the step.
    pub required: bool,
    /// Variable that holds it.
    pub env: Option<String>,
    /// Whether there is a file at the mount's target.
    pub file: bool,
    /// Permission bits of the file.
    pub mode: u32,
    /// Owner of the file.
    pub uid: u32,
    /// Group of the file.
    pub gid: u32,
}

/// `--mount=type=ssh`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshMount {
    /// Which one.
    pub id: String,
    /// A missing one fails the step.
    pub required: bool,
    /// Permission bits of the socket.
    pub mode: u32,
    /// Owner of the socket.
    pub uid: u32,
    /// Group of the socket.
    pub gid: u32,
}

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// A build context.
    Context(ContextId),
    /// The root filesystem of a vertex; `None` is the empty one.
    Vertex(Option<VertexId>),
}

/// Which build context.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContextId {
    /// The one that the build is called with.
    Main,
    /// A `--build-context`.
    Named(String),
}

/// `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOp {
    /// `ADD` unpacks local archives and fetches addresses.
    pub add: bool,
    /// Where paths are taken from.
    pub from: Files,
    /// What is copied, in written order.
    pub sources: Vec<AddSource>,
    /// Where to, as written after expansion: a trailing slash means a directory.
    pub destination: String,
    /// What a relative destination starts from.
    pub workdir: RootPath,
    /// `--chown`
    pub chown: Option<String>,
    /// `--chmod`
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`
    pub exclude: Vec<String>,
    /// `--checksum`
    pub checksum: Option<String>,
    /// `--unpack`
    pub unpack: Option<bool>,
    /// `--keep-git-dir`
    pub keep_git_dir: Option<bool>,
}

impl CopyOp {
    /// A copy of nothing yet, without options.
    pub fn new(from: Files, destination: impl Into<String>, workdir: RootPath) -> Self {
        Self {
            add: false,
            from,
            sources: Vec::new(),
            destination: destination.into(),
            workdir,
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            checksum: None,
            unpack: None,
            keep_git_dir: None,
        }
    }
}

/// One source of `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddSource {
    /// A path or pattern.
    Path(String),
    /// A here-document: its name, and its body after expansion.
    Inline {
        /// File name.
        name: String,
        /// The whole file.
        body: String,
    },
    /// `http://` or `https://`
    Http(String),
    /// A git repository: as written, and what that means.
    Git(String, Box<Wanted>),
}

/// `WORKDIR`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkdirOp {
    /// The directory.
    pub path: RootPath,
    /// `USER` as written: new directories belong to it.
    pub user: String,
}

impl ImageOp {
    /// What was asked for to learn what the image is.
    pub fn request(&self) -> ImageRequest {
        ImageRequest { reference: self.reference.clone(), platform: self.platform.clone(), layout: self.layout.clone() }
    }
}

impl Op {
    /// The build contexts that it reads.
    pub fn contexts(&self) -> Vec<ContextId> {
        let context = |files: &Files| match files {
            Files::Context(context) => Some(context.clone()),
            Files::Vertex(_) => None,
        };
        match self {
            Self::Image(_) | Self::Workdir(_) => Vec::new(),
            // One that only fetches or writes here-documents reads no context.
            Self::Copy(copy) if !copy.sources.iter().any(|source| matches!(source, AddSource::Path(_))) => Vec::new(),
            Self::Copy(copy) => context(&copy.from).into_iter().collect(),
            Self::Run(run) => run
                .mounts
                .iter()
                .filter_map(|mount| match &mount.kind {
                    MountTarget::Bind { from, .. } => context(from),
                    MountTarget::Cache(cache) => context(&cache.seed.as_ref()?.0),
                    _ => None,
                })
                .collect(),
        }
    }

    /// The vertices whose files it reads, apart from its root.
    pub fn inputs(&self) -> Vec<VertexId> {
        let mut inputs = Vec::new();
        for files in self.files() {
            if let Files::Vertex(Some(vertex)) = files {
                inputs.push(*vertex);
            }
        }
        inputs
    }

    fn files(&self) -> Vec<&Files> {
        match self {
            Self::Image(_) | Self::Workdir(_) => Vec::new(),
            Self::Copy(copy) => vec![&copy.from],
            Self::Run(run) => run
                .mounts
                .iter()
                .filter_map(|mount| match &mount.kind {
                    MountTarget::Bind { from, .. } => Some(from),
                    MountTarget::Cache(cache) => Some(&cache.seed.as_ref()?.0),
                    _ => None,
                })
                .collect(),
        }
    }

    /// Gives its inputs other numbers.
    pub(super) fn renumber(&mut self, number: impl Fn(VertexId) -> VertexId) {
        let renumber = |files: &mut Files| {
            if let Files::Vertex(Some(vertex)) = files {
                *vertex = number(*vertex);
            }
        };
        match self {
            Self::Image(_) | Self::Workdir(_) => {}
            Self::Copy(copy) => renumber(&mut copy.from),
            Self::Run(run) => {
                for mount in &mut run.mounts {
                    match &mut mount.kind {
                        MountTarget::Bind { from, .. }
                        | MountTarget::Cache(CacheMount { seed: Some((from, _)), .. }) => renumber(from),
                        _ => {}
                    }
                }
            }
        }
    }
}
