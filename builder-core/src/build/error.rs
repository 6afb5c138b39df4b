//! [`BuildError`]: everything that can end a build, with the place in the Dockerfile where there is one.

use crate::cache::{CacheError, CacheMountError};
use crate::cancel::Cancelled;
use crate::content::ContentError;
use crate::context::ContextError;
use crate::diagnostic::{Diagnostic, Location};
use crate::dockerfile::ParseErrors;
use crate::executor::{ExecuteError, Exit, PrivateNetworkError};
use crate::export::ExportError;
use crate::git::GitError;
use crate::graph::GraphErrors;
use crate::layer::{CaptureError, KeepError, PackError, UnpackError};
use crate::oci::ParseManifestError;
use crate::pins::{NotLocked, SourceName};
use crate::registry::RegistryError;
use crate::rootfs::{AccountsError, RootPath};
use crate::snapshot::SnapshotError;
use crate::tree::{ResolveError, TreeStoreError};

/// Why a build ended.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile does not parse; all of its errors.
    #[error("{0}")]
    Parse(ParseErrors),
    /// The Dockerfile parses and makes no graph; all of its errors.
    #[error("{0}")]
    Graph(GraphErrors),
    /// A step failed.
    #[error("{error}")]
    Step {
        /// The step as it is shown: `[build 2/4] RUN make`.
        name: String,
        /// Where it is written.
        location: Option<Location>,
        /// For an ONBUILD trigger, the `FROM` that brought it.
        origin: Option<Box<Location>>,
        /// What went wrong.
        error: Box<StepError>,
    },
    /// A base image cannot be had.
    #[error("{error}")]
    Base {
        /// The `FROM`, `COPY --from` or mount that asks for it.
        location: Option<Location>,
        /// For an ONBUILD trigger, the `FROM` that brought it.
        origin: Option<Box<Location>>,
        /// What may have been meant, should there be no such image.
        suggestion: Option<String>,
        /// What went wrong.
        error: Box<StepError>,
    },
    /// A context that is elsewhere cannot be used.
    #[error(transparent)]
    Remote(Box<super::remote::RemoteError>),
    /// The result cannot go where it should.
    #[error(transparent)]
    Export(Box<ExportError>),
    /// The cache cannot go where it should, and the user wants that to be an error.
    #[error("cannot write the cache to {name}")]
    CacheExport {
        /// Where.
        name: String,
        /// What went wrong.
        #[source]
        error: Box<crate::remote::RemoteError>,
    },
    /// The store fails.
    #[error(transparent)]
    Store(Box<StepError>),
    /// The caller cancelled it.
    #[error(transparent)]
    Cancelled(Cancelled),
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The command ran and failed.
    #[error("process {command} did not complete successfully: {exit}")]
    Command {
        /// The command, quoted for people.
        command: String,
        /// How it ended.
        exit: Exit,
        /// The last lines that it wrote.
        output: Vec<String>,
        /// The store, if its disk was full when the command ended.
        full: Option<std::path::PathBuf>,
    },
    /// The command could not be run.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// The command is a program of another platform, and nothing here runs such programs.
    #[error("this machine ({host}) does not run programs of {platform}: no emulator is registered with binfmt_misc")]
    Emulator {
        /// The platform of the stage.
        platform: Box<crate::oci::Platform>,
        /// That of this machine.
        host: Box<crate::oci::Platform>,
    },
    /// There is no network for it.
    #[error(transparent)]
    Network(#[from] PrivateNetworkError),
    /// `USER` or `--chown` names somebody that the image does not know.
    #[error(transparent)]
    User(#[from] AccountsError),
    /// A path cannot be resolved in the image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// WORKDIR leads through something that is no directory.
    #[error("cannot make directory `{path}`: `{blocker}` is not a directory")]
    Workdir {
        /// The directory.
        path: RootPath,
        /// What is in the way.
        blocker: RootPath,
    },
    /// A bind mount shows something that does not exist.
    #[error("`{source_path}` of the mount at `{target}` does not exist")]
    MountSource {
        /// The path that is missing.
        source_path: RootPath,
        /// The mount.
        target: RootPath,
    },
    /// A secret is required and was not given.
    #[error("secret `{id}` is required and was not given")]
    MissingSecret {
        /// Which one.
        id: String,
    },
    /// A secret's file cannot be read.
    #[error("cannot read secret `{id}` from {}", path.display())]
    ReadSecret {
        /// Which one.
        id: String,
        /// Its file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An agent is required and was not given.
    #[error("ssh agent `{id}` is required and was not given")]
    MissingSsh {
        /// Which one.
        id: String,
    },
    /// A device is required and does not exist.
    #[error("device `{name}` is required and is not registered")]
    MissingDevice {
        /// Which one.
        name: String,
    },
    /// A device cannot be given.
    #[error("device `{name}`: {reason}")]
    Device {
        /// Which one.
        name: String,
        /// Why.
        reason: String,
    },
    /// A specification of devices is wrong.
    #[error("device specification `{}`: {reason}", path.display())]
    DeviceSpec {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The step asks for something that the command line has to allow.
    #[error("entitlement {entitlement} is not allowed")]
    NotAllowed {
        /// What would have to be allowed.
        entitlement: String,
    },
    /// The step needs something that this version does not do.
    #[error("{0}")]
    Unsupported(String),
    /// COPY or ADD cannot be done.
    #[error(transparent)]
    Copy(super::op::copy::CopyError),
    /// An address of ADD cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] super::op::http::FetchError),
    /// A git repository cannot be had.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The context.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// What a command changed cannot be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A layer cannot be written.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A layer or an archive cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// A layer of a base image cannot be fetched or unpacked.
    #[error("cannot use layer `{digest}` of `{}`: {error}", image.familiar())]
    BaseLayer {
        /// The image, as the Dockerfile names it.
        image: crate::oci::Reference,
        /// The blob of the layer.
        digest: crate::oci::Digest,
        /// What is wrong.
        #[source]
        error: Box<StepError>,
    },
    /// The diff id of a layer is not what the image's config says.
    #[error("layer {index} of `{image}` is not what its config says: expected diff id {expected}, found {actual}")]
    DiffId {
        /// The image.
        image: String,
        /// Which layer, 0 the lowest.
        index: usize,
        /// What the config says.
        expected: crate::oci::DiffId,
        /// What was unpacked.
        actual: crate::oci::DiffId,
    },
    /// A config and a manifest that do not fit together.
    #[error("image `{image}` is malformed: {reason}")]
    MalformedImage {
        /// The image.
        image: String,
        /// What is wrong.
        reason: String,
    },
    /// A manifest, index or config does not parse.
    #[error("image `{image}`: {error}")]
    Manifest {
        /// The image.
        image: String,
        /// What is wrong.
        error: ParseManifestError,
    },
    /// `--pull=never`, and the store has not got the image.
    #[error("image `{0}` is not in the local store")]
    NotLocal(crate::oci::Reference),
    /// The build takes only what is locked.
    #[error(transparent)]
    NotLocked(#[from] NotLocked),
    /// What a lock file names cannot be had.
    #[error("{error}")]
    Pinned {
        /// The source.
        name: SourceName,
        /// What it stands for.
        pin: String,
        /// The lock file, as people name it.
        file: String,
        /// What is wrong.
        #[source]
        error: Box<StepError>,
    },
    /// An image in a directory.
    #[error(transparent)]
    Layout(Box<super::layout::LayoutError>),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Snapshots.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Blobs, images.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Records.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Cache mounts.
    #[error(transparent)]
    CacheMount(#[from] CacheMountError),
    /// Trees.
    #[error(transparent)]
    Tree(#[from] TreeStoreError),
    /// The file system.
    #[error("{what}")]
    Io {
        /// What was done to which path.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The files of a known result were pruned; its vertex has to run again. Never reaches a caller of the library.
    #[error("the files of step {} are gone", .0.0)]
    Lost(crate::graph::VertexId),
    /// A layer of a base image is not what a cache said; steps have to be looked at again. Never reaches a caller of
    /// the library.
    #[error("a layer of a base image is not what the cache said")]
    OtherBase,
    /// A dry run ends where work would begin. Never reaches a caller of the library.
    #[error("this is known only after some work")]
    NeedsWork,
    /// Cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl BuildError {
    /// An error around `error`, unless that only says that the build was cancelled.
    pub(super) fn of(error: StepError, around: impl FnOnce(StepError) -> Self) -> Self {
        if error.is_cancelled() { Self::Cancelled(Cancelled) } else { around(error) }
    }
}

impl From<super::layout::LayoutError> for StepError {
    fn from(error: super::layout::LayoutError) -> Self {
        Self::Layout(Box::new(error))
    }
}

impl From<KeepError> for StepError {
    fn from(error: KeepError) -> Self {
        match error {
            KeepError::Files(error) => Self::of_files(error),
            KeepError::Snapshot(error) => error.into(),
            KeepError::Tree(error) => error.into(),
            KeepError::Content(error) => error.into(),
        }
    }
}

impl StepError {
    /// What was really wrong when the files of other layers could not be opened: the error of this module that an
    /// [`Files`](crate::layer::Files) had to pass on as one of input and output.
    pub(super) fn of_files(error: PackError) -> Self {
        match error {
            PackError::Read { path, source } => match source.downcast::<Self>() {
                Ok(inner) => inner,
                Err(source) => Self::Pack(PackError::Read { path, source }),
            },
            error => Self::Pack(error),
        }
    }

    /// Whether a dry run ended here, however deep inside.
    pub(super) fn needs_work(&self) -> bool {
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(inner) = error {
            let io = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            let step = inner.downcast_ref::<Self>().or_else(|| io?.downcast_ref::<Self>());
            if matches!(step, Some(Self::NeedsWork)) {
                return true;
            }
            error = inner.source();
        }
        false
    }

    /// Whether this is only the echo of a cancel.
    pub fn is_cancelled(&self) -> bool {
        if let Self::Pinned { error, .. } = self {
            return error.is_cancelled();
        }
        matches!(
            self,
            Self::Cancelled(_)
                | Self::Fetch(super::op::http::FetchError::Cancelled(_))
                | Self::Git(GitError::Cancelled(_))
                | Self::Registry(RegistryError::Cancelled(_))
                | Self::Content(ContentError::Cancelled(_))
                | Self::Execute(ExecuteError::Cancelled(_))
                | Self::Cache(CacheError::Cancelled(_))
                | Self::CacheMount(CacheMountError::Cancelled(_))
        )
    }
}

impl Diagnostic for BuildError {
    fn location(&self) -> Option<Location> {
        match self {
            Self::Step { location, error, .. } | Self::Base { location, error, .. } => {
                step_location(error).or_else(|| location.clone())
            }
            _ => None,
        }
    }

    fn origin(&self) -> Option<Location> {
        match self {
            Self::Step { origin, .. } | Self::Base { origin, .. } => origin.as_deref().cloned(),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Base { suggestion: Some(suggestion), .. } => Some(suggestion.clone()),
            Self::Step { error, .. } | Self::Base { error, .. } | Self::Store(error) => error.hint(),
            Self::Remote(error) => error.hint(),
            Self::Export(error) => error.hint(),
            Self::CacheExport { error, .. } => error.hint(),
            Self::Parse(_) | Self::Graph(_) | Self::Cancelled(_) => None,
        }
    }
}

/// Errors inside a step may know a more exact place than the step.
fn step_location(error: &StepError) -> Option<Location> {
    match error {
        StepError::Context(error) => error.location(),
        _ => None,
    }
}

impl Diagnostic for StepError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Execute(error) => error.hint(),
            Self::Network(error) => error.hint(),
            Self::Copy(error) => error.hint(),
            Self::User(error) => error.hint(),
            Self::Context(error) => error.hint(),
            Self::Layout(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::Content(error) => error.hint(),
            Self::Snapshot(error) => error.hint(),
            Self::Capture(error) => error.hint(),
            Self::Pack(error) => error.hint(),
            Self::Unpack(error) => error.hint(),
            Self::Fetch(error) => error.hint(),
            Self::Emulator { .. } => Some(
                "install `qemu-user-static`, which registers one, or let the stage run here and compile for the target: \
                 `FROM --platform=$BUILDPLATFORM`"
                    .to_owned(),
            ),
            Self::Git(error) => error.hint(),
            Self::MissingSecret { id } => Some(format!("pass it with `--secret id={id},src=FILE` or `env=NAME`")),
            Self::MissingSsh { id } => {
                Some(format!("pass it with `--ssh {id}`, `--ssh {id}=SOCKET` or `--ssh {id}=KEY`"))
            }
            Self::MissingDevice { .. } => Some(
                "devices are registered by `*.json` specifications in /etc/cdi and /var/run/cdi; those in YAML are not read"
                    .to_owned(),
            ),
            Self::NotAllowed { entitlement } => {
                Some(format!("if you trust the Dockerfile with that, build with `--allow {entitlement}`"))
            }
            Self::NotLocked(error) => error.hint(),
            Self::Pinned { name, pin, file, .. } => Some(format!(
                "`{file}` says {pin} for {name}, which the server does not have or does not give; take what it has now: \
                 `rbuild lock update --only {}`",
                name.as_str()
            )),
            Self::NotLocal(reference) => {
                Some(format!("pull it with `rbuild pull {}`, or build without `--pull=never`", reference.familiar()))
            }
            Self::Command { exit: Exit::OutOfMemory, .. } => {
                Some("give the step more memory, or run fewer steps at once with `--jobs`".to_owned())
            }
            Self::Command { full: Some(store), .. } => Some(format!(
                "the disk of the store at {} was full: free some space, for example with `rbuild prune`",
                store.display()
            )),
            Self::BaseLayer { error, .. } => error.hint(),
            Self::DiffId { .. } => {
                Some("the registry or its mirror serves a damaged image; pull it elsewhere".to_owned())
            }
            Self::Io { source, .. } | Self::ReadSecret { source, .. } => storage_hint(source),
            _ => None,
        }
    }
}

/// What to do about an error of the file system.
pub(crate) fn storage_hint(error: &std::io::Error) -> Option<String> {
    let hint = match rustix::io::Errno::from_io_error(error)? {
        rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT => {
            "the disk is full; free space with `rbuild prune`, or put the store elsewhere with `--root`"
        }
        rustix::io::Errno::ROFS => "the file system is read-only; put the store elsewhere with `--root`",
        rustix::io::Errno::MFILE => "too many open files; raise the limit with `ulimit -n`",
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => "permission denied; check who owns the store (`--root`)",
        _ => return None,
    };
    Some(hint.to_owned())
}
