//! [`inspect`]: everything about an image, in docker's JSON.

use std::collections::{BTreeMap, BTreeSet};

use super::list::familiar;
use super::{ImageError, config, find};
use crate::content::ContentStore;
use crate::oci::{ContainerConfig, DiffId, Healthcheck, ImageId, Platform};

/// What `docker inspect` says of an image (Docker Engine API 1.44, `ImageInspect`).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InspectedImage {
    /// Digest of the config.
    pub id: ImageId,
    /// Names.
    pub repo_tags: Vec<String>,
    /// Names with manifest digests.
    pub repo_digests: Vec<String>,
    /// Always empty: images know no parent.
    pub parent: String,
    /// Comment of the last step.
    pub comment: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Always empty.
    pub docker_version: String,
    /// Who made it.
    pub author: String,
    /// What a container is started with.
    pub config: InspectedConfig,
    /// Processor.
    pub architecture: String,
    /// Variant of the processor.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Operating system.
    pub os: String,
    /// Version of the operating system.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Length of its layers, uncompressed, in bytes.
    pub size: u64,
    /// The layers.
    #[serde(rename = "RootFS")]
    pub root_fs: InspectedRootFs,
    /// What belongs to this store and not to the image.
    pub metadata: InspectedMetadata,
}

/// `Config` of an image: every field, set or not.
#[expect(clippy::struct_excessive_bools, reason = "docker's fields")]
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InspectedConfig {
    hostname: String,
    domainname: String,
    user: String,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    exposed_ports: Option<ObjectSet>,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    env: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Healthcheck>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    args_escaped: bool,
    image: String,
    volumes: Option<ObjectSet>,
    working_dir: String,
    entrypoint: Option<Vec<String>>,
    on_build: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_timeout: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<Vec<String>>,
}

/// A set as docker writes it: an object of empty objects.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
#[expect(clippy::zero_sized_map_values, reason = "that is the form on the wire")]
struct ObjectSet(BTreeMap<String, Empty>);

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
struct Empty {}

/// `RootFS` of an image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InspectedRootFs {
    /// Always `layers`.
    pub r#type: String,
    /// Diff ids, lowest first.
    pub layers: Vec<DiffId>,
}

/// `Metadata` of an image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InspectedMetadata {
    /// When it entered the store, RFC 3339.
    pub last_tag_time: String,
}

/// Says everything about an image.
///
/// # Errors
/// [`ImageError::NoSuchImage`], [`ImageError::Config`], and a store that cannot be read.
pub fn inspect(content: &ContentStore, text: &str) -> Result<InspectedImage, ImageError> {
    let image = find(content, text)?;
    let config = config(content, &image.id)?;
    let database = content.database();
    let digests = database.repo_digests(&image.id)?;
    let entered = jiff::Timestamp::from_second(image.created).unwrap_or_default();
    let platform: Platform = config.platform();
    Ok(InspectedImage {
        repo_tags: database.tags_of(&image.id)?.iter().map(crate::oci::Reference::familiar).collect(),
        repo_digests: digests.iter().map(|known| format!("{}@{}", familiar(&known.repository), known.digest)).collect(),
        parent: String::new(),
        comment: config.history.last().map(|entry| entry.comment.clone()).unwrap_or_default(),
        created: config.created.unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned()),
        docker_version: String::new(),
        author: config.author,
        config: InspectedConfig::of(config.config),
        architecture: config.architecture,
        variant: config.variant.unwrap_or_default(),
        os: config.os,
        os_version: platform.os_version.unwrap_or_default(),
        size: image.size,
        root_fs: InspectedRootFs { r#type: config.rootfs.kind, layers: config.rootfs.diff_ids },
        metadata: InspectedMetadata { last_tag_time: entered.to_string() },
        id: image.id,
    })
}

impl InspectedConfig {
    /// Writes a config with every field; what is empty is `null`.
    pub fn of(config: ContainerConfig) -> Self {
        Self {
            hostname: String::new(),
            domainname: String::new(),
            user: config.user,
            attach_stdin: false,
            attach_stdout: false,
            attach_stderr: false,
            exposed_ports: objects(config.exposed_ports),
            tty: false,
            open_stdin: false,
            stdin_once: false,
            env: unless_empty(config.env),
            cmd: config.cmd,
            healthcheck: config.healthcheck,
            args_escaped: config.args_escaped,
            image: String::new(),
            volumes: objects(config.volumes),
            working_dir: config.working_dir,
            entrypoint: config.entrypoint,
            on_build: unless_empty(config.on_build),
            labels: (!config.labels.is_empty()).then_some(config.labels),
            stop_signal: config.stop_signal,
            stop_timeout: config.stop_timeout,
            shell: unless_empty(config.shell),
        }
    }
}

fn objects(set: BTreeSet<String>) -> Option<ObjectSet> {
    (!set.is_empty()).then(|| ObjectSet(set.into_iter().map(|key| (key, Empty {})).collect()))
}

fn unless_empty(list: Vec<String>) -> Option<Vec<String>> {
    (!list.is_empty()).then_some(list)
}
