//! Commands about images.

use std::path::PathBuf;

use clap::Args;

use super::BuildArgs;

/// `rbuild pull`
#[derive(Debug, Clone, Args)]
pub(crate) struct PullArgs {
    /// Name of the image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub(crate) name: String,
    /// Platform to fetch [default: that of this machine]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// Show the name only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rbuild push`
#[derive(Debug, Clone, Args)]
pub(crate) struct PushArgs {
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: String,
    /// Push all tags of the repository
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Show the name only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// How a list is shown
#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    /// `table`, `json`, or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
    /// Do not shorten anything
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rbuild images`
#[derive(Debug, Clone, Args)]
pub(crate) struct ImagesArgs {
    /// Only images of this repository, or with this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(crate) name: Option<String>,
    /// Show all images (there are no intermediate ones)
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show digests
    #[arg(long)]
    pub(crate) digests: bool,
    /// Only some images: `dangling=true`, `label=KEY[=VALUE]`, `before=IMAGE`, `since=IMAGE`, `reference=PATTERN`
    /// (repeatable)
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// How they are shown.
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// `rbuild tag`
#[derive(Debug, Clone, Args)]
pub(crate) struct TagArgs {
    /// The image: a name or an id
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// Its new name
    #[arg(value_name = "TARGET[:TAG]")]
    pub(crate) target: String,
}

/// `rbuild rmi`
#[derive(Debug, Clone, Args)]
pub(crate) struct RmiArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// Remove an image with several names by its id; a missing image is no error
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Accepted: there are no untagged parents
    #[arg(long, hide = true)]
    pub(crate) no_prune: bool,
}

/// `rbuild inspect`
#[derive(Debug, Clone, Args)]
pub(crate) struct InspectArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// `json`, or a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
    /// Accepted: `image` is the only type
    #[arg(long, hide = true, value_parser = ["image"])]
    pub(crate) r#type: Option<String>,
}

/// `rbuild save`
#[derive(Debug, Clone, Args)]
pub(crate) struct SaveArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `rbuild load`
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    /// Read this file instead of standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rbuild login`
#[derive(Debug, Clone, Args)]
pub(crate) struct LoginArgs {
    /// Registry [default: docker.io]
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
    /// User name
    #[arg(short, long)]
    pub(crate) username: Option<String>,
    /// Password; better read from standard input, other users can see it here
    #[arg(short, long, conflicts_with = "password_stdin")]
    pub(crate) password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

/// `rbuild logout`
#[derive(Debug, Clone, Args)]
pub(crate) struct LogoutArgs {
    /// Registry [default: docker.io]
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
}

/// `rbuild prune`
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags as typed")]
pub(crate) struct PruneArgs {
    /// Remove all results of steps and cache mounts, too; `rbuild image prune`: all images
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only what matches: `until=24h`, `label=KEY[=VALUE]` of images, `type=exec.cachemount` of the build cache … (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Keep what was used within this time, as `48h`
    #[arg(long, value_name = "DURATION")]
    pub(crate) keep_duration: Option<String>,
    /// The most that the build cache may take: bytes, or `20%` of the disk
    #[arg(long, value_name = "SPACE")]
    pub(crate) max_used_space: Option<String>,
    /// What the build cache may take in any case
    #[arg(long, alias = "keep-storage", value_name = "SPACE")]
    pub(crate) reserved_space: Option<String>,
    /// What should be free on the disk
    #[arg(long, value_name = "SPACE")]
    pub(crate) min_free_space: Option<String>,
    /// List each item of the build cache that is removed
    #[arg(long)]
    pub(crate) verbose: bool,
    /// `rbuild image prune`
    #[arg(skip)]
    pub(crate) images_only: bool,
    /// `rbuild builder prune`
    #[arg(skip)]
    pub(crate) cache_only: bool,
}

/// `rbuild cache ls`
#[derive(Debug, Clone, Args)]
pub(crate) struct CacheLsArgs {
    /// Show everything about each item
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Only what matches: `type=regular`, `description~=apt`, `parents=ID`, `until=24h`, `shared` … (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// `table`, `pretty` (as `--verbose`), `json`, or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}

/// `rbuild cache inspect`
#[derive(Debug, Clone, Args)]
pub(crate) struct CacheInspectArgs {
    /// A key, or the id of a step in `rbuild cache ls`; the beginning is enough
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rbuild cache export`
#[derive(Debug, Clone, Args)]
pub(crate) struct CacheExportArgs {
    /// Only the results of this build: its id or the beginning, `latest`, or `^N` for the Nth before the latest
    #[arg(long, value_name = "BUILD", conflicts_with_all = ["image", "key"])]
    pub(crate) build: Option<String>,
    /// Only the results of this image: its layers, and the steps of the build that made it
    #[arg(long, value_name = "IMAGE", conflicts_with = "key")]
    pub(crate) image: Option<String>,
    /// Only the results with this key, or id of `rbuild cache ls`; the beginning is enough (repeatable)
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Vec<String>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Where to, as `--cache-to` has it: `type=registry,ref=app:cache,mode=min`, `type=local,dest=DIR,mounts=all` …
    #[arg(required = true, value_name = "DESTINATION")]
    pub(crate) destinations: Vec<String>,
}

/// `rbuild cache import`
#[derive(Debug, Clone, Args)]
pub(crate) struct CacheImportArgs {
    /// The files of layers, too
    #[arg(long)]
    pub(crate) layers: bool,
    /// Cache mounts, too; those that are here already stay as they are
    #[arg(long, value_name = "all|ID;ID")]
    pub(crate) mounts: Option<String>,
    /// Of an image that is its own cache: the platform [default: that of this machine] (repeatable)
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Where from, as `--cache-from` has it: `app:cache`, `type=local,src=DIR`, `type=s3,…`
    #[arg(required = true, value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,
}

/// `rbuild cache probe`
#[derive(Debug, Clone, Args)]
pub(crate) struct CacheProbeArgs {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// What would be built.
    #[command(flatten)]
    pub(crate) build: BuildArgs,
}

/// `rbuild cache verify`
#[derive(Debug, Clone, Args)]
pub(crate) struct CacheVerifyArgs {
    /// Remove what is damaged
    #[arg(long)]
    pub(crate) repair: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rbuild du`
#[derive(Debug, Clone, Args)]
pub(crate) struct DuArgs {
    /// Show each item
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// `table`, `json`, or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}

/// `rbuild version`
#[derive(Debug, Clone, Args)]
pub(crate) struct VersionArgs {
    /// `json`, or a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}
