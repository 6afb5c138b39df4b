//! What a graph depends on besides the Dockerfile: [`Options`] and [`Images`].

use std::collections::BTreeMap;

use super::{DeviceOp, ResolvedEpoch};
use crate::dockerfile::Network;
use crate::oci::{DiffId, Digest, ImageConfig, LayoutReference, Platform, Reference, RootFs};

/// What the user asked for, as far as the graph depends on it.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "they are options, each on its own")]
pub struct Options {
    /// `--target`: name or number of a stage; the last one if unset.
    pub target: Option<String>,
    /// Every stage is needed, not only those behind the target (`--check`).
    pub all_stages: bool,
    /// Platform of the image.
    pub platform: Platform,
    /// The platform was asked for: the image says so, whatever its base says.
    pub explicit_platform: bool,
    /// Several platforms are built: names of vertices begin with theirs.
    pub name_platform: bool,
    /// Platform that steps run on (`BUILDPLATFORM`).
    pub build_platform: Platform,
    /// `--build-arg`, proxies of the caller's environment included as they were given.
    pub build_args: BTreeMap<String, String>,
    /// `--label`, applied last.
    pub labels: BTreeMap<String, String>,
    /// `--from`: stands for the base of the first stage.
    pub first_base: Option<String>,
    /// What changes in the result without an instruction.
    pub edits: ConfigEdits,
    /// Names of `--build-context`, each with what it stands for.
    pub contexts: BTreeMap<String, NamedContext>,
    /// `--no-cache` and `--no-cache-filter`.
    pub no_cache: NoCache,
    /// `--network`: what `RUN --network=default` means.
    pub network: Network,
    /// `--add-host`, in order; names are part of a step's key, addresses are not.
    pub add_hosts: Vec<(String, String)>,
    /// `--no-hosts`: `/etc/hosts` is not generated.
    pub no_hosts: bool,
    /// `--security-opt no-new-privileges`
    pub no_new_privileges: bool,
    /// `--device`: devices of every step, before its own.
    pub devices: Vec<DeviceOp>,
    /// `--hostname`; the build argument `BUILDKIT_SANDBOX_HOSTNAME` if unset.
    pub hostname: Option<String>,
    /// `SOURCE_DATE_EPOCH` in seconds since 1970; the build argument of that name wins.
    pub source_date_epoch: Option<i64>,
    /// The time of what `SOURCE_DATE_EPOCH` names, if it names something; see [`epoch_source`](super::epoch_source).
    pub resolved_epoch: Option<ResolvedEpoch>,
}

impl Options {
    /// The defaults for an image of `platform` that is built on this machine: nothing set, the network of the build.
    pub fn new(platform: Platform) -> Self {
        Self {
            target: None,
            all_stages: false,
            build_platform: Platform::host(),
            platform,
            explicit_platform: false,
            name_platform: false,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            first_base: None,
            edits: ConfigEdits::default(),
            contexts: BTreeMap::new(),
            no_cache: NoCache::Never,
            network: Network::Default,
            add_hosts: Vec::new(),
            no_hosts: false,
            no_new_privileges: false,
            devices: Vec::new(),
            hostname: None,
            source_date_epoch: None,
            resolved_epoch: None,
        }
    }

    /// Finds a named context by a name from a Dockerfile; names are compared as BuildKit does: without case, and
    /// `docker.io/library/app:latest` is `app`. One that was given for `platform` alone (`NAME::PLATFORM`) wins.
    pub(super) fn context(&self, name: &str, platform: &Platform) -> Option<(&str, &NamedContext)> {
        if self.contexts.is_empty() || name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let wanted = context_name(name);
        let for_platform = self.contexts.iter().find(|(given, _)| {
            given.split_once("::").is_some_and(|(name, given)| {
                context_name(name) == wanted && given.parse::<Platform>().is_ok_and(|given| given == *platform)
            })
        });
        for_platform
            .or_else(|| self.contexts.get_key_value(name))
            .or_else(|| self.contexts.iter().find(|(given, _)| context_name(given) == wanted))
            .map(|(name, context)| (name.as_str(), context))
    }
}

fn context_name(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let familiar = lower.parse::<Reference>().map_or(lower, |reference| reference.familiar());
    familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned()
}

/// What changes in the config of the result without an instruction, and without an entry in its history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigEdits {
    /// `--env`: variables that are set.
    pub env: Vec<(String, String)>,
    /// `--unsetenv`: variables that are taken away.
    pub unset_env: Vec<String>,
    /// `--unsetlabel`: labels that are not taken over from base images.
    pub unset_labels: Vec<String>,
    /// `--inherit-labels=false`: no label is taken over from base images.
    pub drop_labels: bool,
}

/// What a named context stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory that the caller opened.
    Directory,
    /// `docker-image://`
    Image(Reference),
    /// `docker-image://scratch`
    Scratch,
    /// `oci-layout://`; the image is called as the context.
    Layout(LayoutReference),
}

/// Which stages ignore known results.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCache {
    /// None.
    #[default]
    Never,
    /// Every stage.
    Always,
    /// Stages with these names or numbers.
    Stages(Vec<String>),
}

/// An image that the graph needs to know before it can be made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRequest {
    /// Its name.
    pub reference: Reference,
    /// The platform that is wanted.
    pub platform: Platform,
    /// Where it is, if not where its name leads to.
    pub layout: Option<Box<LayoutReference>>,
}

impl ImageRequest {
    /// An image by its name.
    pub fn new(reference: Reference, platform: Platform) -> Self {
        Self { reference, platform, layout: None }
    }
}

/// What is known of an image: where its tag ended, and its config.
#[derive(Debug, Clone)]
pub struct KnownImage {
    /// The config, with layers and history.
    pub config: ImageConfig,
    /// What identifies it: a manifest digest or, for an image of the local store, its id.
    pub digest: Digest,
    /// Nobody could be asked, so the config is made up: nothing is said of variables that the image may set.
    pub guessed: bool,
}

impl KnownImage {
    /// An image with its config.
    pub fn new(config: ImageConfig, digest: Digest) -> Self {
        Self { config, digest, guessed: false }
    }

    /// Stands for an image that nobody could be asked for: it has the platform that is wanted, a layer, and nothing else.
    pub fn guess(platform: &Platform) -> Self {
        let config = ImageConfig {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            // An image without layers would be no step.
            rootfs: RootFs { diff_ids: vec![DiffId::new(Digest::sha256(b""))], ..RootFs::default() },
            ..ImageConfig::default()
        };
        Self { config, digest: Digest::sha256(b""), guessed: true }
    }
}

/// The images that are known so far.
pub type Images = BTreeMap<ImageRequest, KnownImage>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_found_under_every_spelling() {
        let mut options = Options::new(Platform::host());
        for name in ["Alpine", "src", "golang:1.22"] {
            options.contexts.insert(name.to_owned(), NamedContext::Directory);
        }
        for name in ["alpine", "alpine:latest", "docker.io/library/alpine", "SRC", "docker.io/library/golang:1.22"] {
            assert!(options.context(name, &Platform::host()).is_some(), "{name}");
        }
        for name in ["alpine:3.20", "golang", "scratch", "other"] {
            assert!(options.context(name, &Platform::host()).is_none(), "{name}");
        }
    }

    #[test]
    fn contexts_of_a_platform_win() {
        let mut options = Options::new(Platform::host());
        for name in ["app", "app::linux/arm64", "only::linux/arm64"] {
            options.contexts.insert(name.to_owned(), NamedContext::Directory);
        }
        let found = |name, platform: &str| {
            let platform = platform.parse::<Platform>().expect("a platform");
            options.context(name, &platform).map(|(given, _)| given.to_owned())
        };
        assert_eq!(found("app:latest", "linux/arm64").as_deref(), Some("app::linux/arm64"));
        assert_eq!(found("app", "linux/amd64").as_deref(), Some("app"));
        assert_eq!(found("only", "linux/arm64").as_deref(), Some("only::linux/arm64"));
        assert_eq!(found("only", "linux/amd64"), None);
    }
}
