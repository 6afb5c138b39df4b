//! [`CacheSource`] and [`CacheDestination`]: the texts of `--cache-from` and `--cache-to`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::ParseCacheError;
use super::backend::TOUCH_REFRESH;
use crate::export::parse::split;
use crate::oci::{Compression, Digest, Reference};

/// Longest wait for the index of a cache, where nobody says another one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Longest wait without a byte coming or going.
const STALL: Duration = Duration::from_secs(30);

/// Tag of a cache in a directory, where nobody says another one.
pub(super) const DEFAULT_TAG: &str = "latest";

const TYPES: [&str; 4] = ["registry", "local", "s3", "gha"];

/// The same for writing.
const TYPES_TO: [&str; 5] = ["registry", "local", "s3", "gha", "inline"];

/// Whether a text of `--cache-to` says `type=inline`: the cache goes into the config of the image, and is no
/// [`CacheDestination`].
///
/// # Errors
/// [`ParseCacheError`] if it does, with options that an inline cache has not got.
pub fn is_inline(text: &str) -> Result<bool, ParseCacheError> {
    let mut options = Options::new(text)?;
    if options.kind != "inline" {
        return Ok(false);
    }
    match options.take("mode").as_deref() {
        None | Some("min") => options.finish().map(|()| true),
        Some(other) => Err(value("mode", other, "`min`: an image has its own layers only")),
    }
}

/// Looks an environment variable up: the library does not read the environment.
pub type Variable<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Where a cache is read from: `--cache-from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSource {
    /// Where it is.
    pub place: CachePlace,
    /// Longest wait for its index, and for each of its parts.
    pub timeout: Duration,
    /// Longest wait without a byte coming; none if unset.
    pub stall: Option<Duration>,
}

/// Where a cache is written to: `--cache-to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheDestination {
    /// Where it is.
    pub place: CachePlace,
    /// Which layers go with it.
    pub mode: CacheMode,
    /// Compression of layers; that of the image if unset.
    pub compression: Option<Compression>,
    /// Its level; the compressor's own choice if unset.
    pub level: Option<i32>,
    /// Layers that are there in another compression are sent again.
    pub force_compression: bool,
    /// Which cache mounts go with it.
    pub mounts: MountChoice,
    /// Longest time for all of it; none if unset.
    pub timeout: Option<Duration>,
    /// Longest wait without a byte going, or an answer; none if unset.
    pub stall: Option<Duration>,
    /// A failure fails the build (`strict`, or `ignore-error=false`).
    pub strict: bool,
}

/// Which layers a cache holds. Records and trees of every step are always in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Those of the result.
    Min,
    /// Those of every step.
    #[default]
    Max,
}

/// Which cache mounts of a build's steps a cache holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MountChoice {
    /// None.
    #[default]
    Nothing,
    /// All.
    All,
    /// Those with these ids.
    Ids(Vec<String>),
}

impl MountChoice {
    /// Reads `all`, or ids with `;` between them.
    pub fn parse(text: &str) -> Self {
        match text {
            "all" => Self::All,
            ids => Self::Ids(ids.split(';').filter(|id| !id.is_empty()).map(str::to_owned).collect()),
        }
    }

    /// Whether a mount is among them.
    pub fn has(&self, id: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Ids(ids) => ids.iter().any(|known| known == id),
        }
    }
}

/// A place for a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CachePlace {
    /// An artifact in a registry.
    Registry {
        /// Its name.
        reference: Reference,
        /// Plain HTTP, or any certificate.
        insecure: bool,
    },
    /// An OCI image layout in a directory.
    Local {
        /// The directory.
        directory: PathBuf,
        /// The tag of the index.
        tag: String,
        /// The digest of the manifest, for reading one that has no tag any more.
        digest: Option<Digest>,
        /// Blobs that no tag names any more are removed after writing.
        reset: bool,
    },
    /// Objects in a bucket.
    S3(S3Place),
    /// Entries of the cache service of GitHub Actions.
    Gha(GhaPlace),
}

/// A bucket of an object store.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Place {
    /// The bucket.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// Before every key.
    pub prefix: String,
    /// After that, before the digest of a blob.
    pub blobs_prefix: String,
    /// After that, before the name of a manifest.
    pub manifests_prefix: String,
    /// Names of the manifest; the first one is read.
    pub names: Vec<String>,
    /// The server, where it is not Amazon's.
    pub endpoint: Option<String>,
    /// The bucket is the first part of the path instead of the host.
    pub path_style: bool,
    /// Who asks; nobody in particular if unset.
    pub access_key: Option<String>,
    /// The secret of that.
    pub secret_key: Option<String>,
    /// The session that both belong to.
    pub session_token: Option<String>,
    /// Age after which an object that is still used is made to look new.
    pub touch_refresh: Duration,
    /// Objects that are sent at the same time.
    pub parallelism: usize,
    /// How often a request is made, the first time included.
    pub attempts: u32,
}

impl fmt::Debug for S3Place {
    /// Never shows the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Place").field("bucket", &self.bucket).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// The cache service of GitHub Actions.
#[derive(Clone, PartialEq, Eq)]
pub struct GhaPlace {
    /// Its address.
    pub url: String,
    /// What lets a job in.
    pub token: String,
    /// Name of the cache.
    pub scope: String,
    /// `owner/name` and a token of GitHub itself: then one list says which blobs are there.
    pub repository: Option<(String, String)>,
    /// Address of GitHub's API.
    pub api: String,
}

impl fmt::Debug for GhaPlace {
    /// Never shows the tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GhaPlace").field("url", &self.url).field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl CachePlace {
    /// The word of `type=`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Registry { .. } => "registry",
            Self::Local { .. } => "local",
            Self::S3(_) => "s3",
            Self::Gha(_) => "gha",
        }
    }
}

impl fmt::Display for CachePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry { reference, .. } => write!(f, "`{}`", reference.familiar()),
            Self::Local { directory, .. } => write!(f, "`{}`", directory.display()),
            Self::S3(place) => write!(f, "`s3://{}/{}`", place.bucket, place.prefix),
            Self::Gha(place) => write!(f, "`gha:{}`", place.scope),
        }
    }
}

impl CacheSource {
    /// Reads `type=registry,ref=app:cache`, or just the name of an image. `variable` looks environment variables up,
    /// such as `AWS_REGION`.
    ///
    /// # Errors
    /// [`ParseCacheError`], with the nearest known word for an unknown one.
    pub fn parse(text: &str, variable: &Variable<'_>) -> Result<Self, ParseCacheError> {
        let mut options = Options::new(text)?;
        let place = options.place(Direction::From, variable)?;
        let timeout = options.timeout()?.unwrap_or(PATIENCE);
        let stall = options.stall()?;
        options.finish()?;
        Ok(Self { place, timeout, stall })
    }
}

impl CacheDestination {
    /// Reads `type=registry,ref=app:cache,mode=max`, or just the name of an image. `variable` looks environment
    /// variables up.
    ///
    /// # Errors
    /// [`ParseCacheError`], with the nearest known word for an unknown one.
    pub fn parse(text: &str, variable: &Variable<'_>) -> Result<Self, ParseCacheError> {
        let mut options = Options::new(text)?;
        let place = options.place(Direction::To, variable)?;
        let mode = match options.take("mode").as_deref() {
            None => CacheMode::default(),
            Some("max") => CacheMode::Max,
            Some("min") => CacheMode::Min,
            Some(other) => return Err(value("mode", other, "`min` or `max`")),
        };
        let compression = match options.take("compression").as_deref() {
            None => None,
            Some("gzip") => Some(Compression::Gzip),
            Some("zstd") => Some(Compression::Zstd),
            Some("uncompressed") => Some(Compression::Uncompressed),
            Some(other) => return Err(value("compression", other, "`gzip`, `zstd` or `uncompressed`")),
        };
        let most = if compression == Some(Compression::Zstd) { 22 } else { 9 };
        let level = options.take("compression-level").map(|text| {
            let level = text.parse().ok().filter(|level| (0..=most).contains(level));
            level.ok_or_else(|| value("compression-level", &text, "0 to 9 for gzip, 0 to 22 for zstd"))
        });
        let level = level.transpose()?;
        let force_compression = options.flag("force-compression")?.unwrap_or(false);
        let mounts = match options.take("mounts").as_deref() {
            None => MountChoice::Nothing,
            Some(text) => MountChoice::parse(text),
        };
        let timeout = options.timeout()?;
        let stall = options.stall()?;
        let ignore_error = options.flag("ignore-error")?;
        let strict = options.flag("strict")?.unwrap_or(ignore_error == Some(false));
        options.always("image-manifest")?;
        options.always("oci-mediatypes")?;
        options.finish()?;
        Ok(Self { place, mode, compression, level, force_compression, mounts, timeout, stall, strict })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    From,
    To,
}

/// The `key=value` pairs that are not understood yet.
struct Options {
    kind: String,
    pairs: Vec<(String, String)>,
    asked: Vec<&'static str>,
}

impl Options {
    fn new(text: &str) -> Result<Self, ParseCacheError> {
        use crate::export::ParseOutputError;
        let fields = split(text)?;
        let mut pairs: Vec<(String, String)> = Vec::new();
        if let [name] = fields.as_slice()
            && !name.contains('=')
        {
            pairs.push(("ref".to_owned(), name.clone()));
            return Ok(Self { kind: "registry".to_owned(), pairs, asked: Vec::new() });
        }
        for field in &fields {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.trim().to_ascii_lowercase(), value.to_owned()),
                // Alone it is a switch.
                None if field.trim() == "strict" => ("strict".to_owned(), "true".to_owned()),
                None => return Err(ParseOutputError::NotAPair { field: field.clone() }.into()),
            };
            if pairs.iter().any(|(known, _)| *known == key) {
                return Err(ParseOutputError::Twice { key }.into());
            }
            pairs.push((key, value));
        }
        let mut options = Self { kind: String::new(), pairs, asked: Vec::new() };
        options.kind =
            options.take("type").ok_or_else(|| ParseCacheError::UnknownType { kind: String::new(), known: &TYPES })?;
        Ok(options)
    }

    fn take(&mut self, key: &'static str) -> Option<String> {
        self.asked.push(key);
        let at = self.pairs.iter().position(|(known, _)| known == key)?;
        Some(self.pairs.remove(at).1).filter(|value| !value.is_empty())
    }

    fn need(&mut self, key: &'static str) -> Result<String, ParseCacheError> {
        let kind = self.kind.clone();
        self.take(key).ok_or(ParseCacheError::Missing { kind, key })
    }

    fn flag(&mut self, key: &'static str) -> Result<Option<bool>, ParseCacheError> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(value(key, other, "`true` or `false`")),
        }
    }

    /// An option of docker that has one value here.
    fn always(&mut self, key: &'static str) -> Result<(), ParseCacheError> {
        match self.flag(key)? {
            Some(false) => Err(value(key, "false", "`true`: a cache is always an OCI manifest")),
            _ => Ok(()),
        }
    }

    fn timeout(&mut self) -> Result<Option<Duration>, ParseCacheError> {
        self.duration("timeout")
    }

    fn stall(&mut self) -> Result<Option<Duration>, ParseCacheError> {
        Ok(Some(self.duration("stall-timeout")?.unwrap_or(STALL)).filter(|stall| !stall.is_zero()))
    }

    fn duration(&mut self, key: &'static str) -> Result<Option<Duration>, ParseCacheError> {
        let Some(text) = self.take(key) else { return Ok(None) };
        let wrong = || value(key, &text, "a time such as `20s`, `2m` or `24h`");
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let number: u64 = number.parse().map_err(|_| wrong())?;
        match unit {
            "ms" => Ok(Some(Duration::from_millis(number))),
            "" | "s" => Ok(Some(Duration::from_secs(number))),
            "m" => Ok(Some(Duration::from_secs(number.saturating_mul(60)))),
            "h" => Ok(Some(Duration::from_secs(number.saturating_mul(3600)))),
            _ => Err(wrong()),
        }
    }

    fn place(&mut self, direction: Direction, variable: &Variable<'_>) -> Result<CachePlace, ParseCacheError> {
        match self.kind.as_str() {
            "registry" => {
                let insecure = self.flag("registry.insecure")?.unwrap_or(false);
                Ok(CachePlace::Registry { reference: self.need("ref")?.parse()?, insecure })
            }
            "local" => {
                let key = if direction == Direction::From { "src" } else { "dest" };
                let directory = PathBuf::from(self.need(key)?);
                let digest = match direction {
                    Direction::From => self.take("digest"),
                    Direction::To => None,
                };
                let wrong = |text: &String| value("digest", text, "`sha256:` and 64 digits");
                let digest = digest.map(|text| text.parse().map_err(|_| wrong(&text))).transpose()?;
                let tag = self.take("tag").unwrap_or_else(|| DEFAULT_TAG.to_owned());
                let reset = match direction {
                    Direction::From => true,
                    Direction::To => self.flag("reset")?.unwrap_or(true),
                };
                Ok(CachePlace::Local { directory, tag, digest, reset })
            }
            "s3" => Ok(CachePlace::S3(self.s3(direction, variable)?)),
            "gha" => Ok(CachePlace::Gha(self.gha(variable)?)),
            _ => {
                let known: &[&str] = if direction == Direction::From { &TYPES } else { &TYPES_TO };
                Err(ParseCacheError::UnknownType { kind: self.kind.clone(), known })
            }
        }
    }

    fn s3(&mut self, direction: Direction, variable: &Variable<'_>) -> Result<S3Place, ParseCacheError> {
        let kind = || "s3".to_owned();
        let missing = |key| ParseCacheError::Missing { kind: kind(), key };
        let names = self.take("name").unwrap_or_else(|| "rbuild".to_owned());
        let (access_key, secret_key) = (self.take("access_key_id"), self.take("secret_access_key"));
        let token = self.take("session_token");
        // A token of the environment belongs to the keys of the environment.
        let token = token.or_else(|| variable("AWS_SESSION_TOKEN").filter(|_| access_key.is_none()));
        match self.take("retry_mode").as_deref() {
            None | Some("standard") => {}
            Some(other) => return Err(value("retry_mode", other, "`standard`")),
        }
        // Nothing is compressed on the way, and no header about it is signed.
        self.flag("disable_accept_encoding")?;
        let attempts = self.number("retry_max_attempts")?.unwrap_or(3);
        let (mut touch_refresh, mut parallelism) = (TOUCH_REFRESH, 4);
        if direction == Direction::To {
            touch_refresh = self.duration("touch_refresh")?.unwrap_or(touch_refresh);
            parallelism = self.number("upload_parallelism")?.map_or(parallelism, |number| number as usize);
        }
        Ok(S3Place {
            bucket: self.take("bucket").or_else(|| variable("AWS_BUCKET")).ok_or_else(|| missing("bucket"))?,
            region: self
                .take("region")
                .or_else(|| variable("AWS_REGION"))
                .or_else(|| variable("AWS_DEFAULT_REGION"))
                .ok_or_else(|| missing("region"))?,
            prefix: self.take("prefix").unwrap_or_default(),
            blobs_prefix: self.take("blobs_prefix").unwrap_or_else(|| "blobs/".to_owned()),
            manifests_prefix: self.take("manifests_prefix").unwrap_or_else(|| "manifests/".to_owned()),
            names: names.split(';').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            endpoint: self.take("endpoint_url"),
            path_style: self.flag("use_path_style")?.unwrap_or(false),
            access_key: access_key.or_else(|| variable("AWS_ACCESS_KEY_ID")),
            secret_key: secret_key.or_else(|| variable("AWS_SECRET_ACCESS_KEY")),
            session_token: token,
            touch_refresh,
            parallelism: parallelism.clamp(1, 64),
            attempts: attempts.clamp(1, 20),
        })
    }

    fn gha(&mut self, variable: &Variable<'_>) -> Result<GhaPlace, ParseCacheError> {
        match self.take("version").as_deref() {
            None | Some("2") => {}
            Some(other) => return Err(value("version", other, "`2`: GitHub has switched the first version off")),
        }
        let (own, plain) = (self.take("url_v2"), self.take("url"));
        let missing = |key| ParseCacheError::Missing { kind: "gha".to_owned(), key };
        let (repository, token) = (self.take("repository"), self.take("ghtoken"));
        let repository = match (repository, token) {
            (Some(repository), Some(token)) => Some((repository, token)),
            (Some(_), None) => return Err(missing("ghtoken")),
            // With the token of a job comes the repository that it runs for.
            (None, Some(token)) => variable("GITHUB_REPOSITORY").map(|repository| (repository, token)),
            (None, None) => None,
        };
        Ok(GhaPlace {
            url: own.or(plain).or_else(|| variable("ACTIONS_RESULTS_URL")).ok_or_else(|| missing("url_v2"))?,
            token: self.take("token").or_else(|| variable("ACTIONS_RUNTIME_TOKEN")).ok_or_else(|| missing("token"))?,
            scope: self.take("scope").unwrap_or_else(|| "buildkit".to_owned()),
            repository,
            api: variable("GITHUB_API_URL").unwrap_or_else(|| "https://api.github.com".to_owned()),
        })
    }

    fn number(&mut self, key: &'static str) -> Result<Option<u32>, ParseCacheError> {
        let Some(text) = self.take(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| value(key, &text, "a number"))
    }

    /// Refuses what nothing has taken.
    fn finish(&self) -> Result<(), ParseCacheError> {
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) => {
                let (key, kind) = (key.clone(), self.kind.clone());
                Err(ParseCacheError::UnknownKey { key, kind, known: self.asked.clone() })
            }
        }
    }
}

fn value(key: &'static str, value: &str, expected: &'static str) -> ParseCacheError {
    ParseCacheError::Value { key, value: value.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(name: &str) -> CachePlace {
        CachePlace::Registry { reference: name.parse().expect("valid"), insecure: false }
    }

    #[test]
    fn sources_are_read() {
        let place = |text: &str| CacheSource::parse(text, &|_| None).map(|source| source.place);
        assert_eq!(place("repo/app"), Ok(registry("repo/app")));
        assert_eq!(place("type=registry,ref=h:1/a:b"), Ok(registry("h:1/a:b")));
        let local = |tag: &str| CachePlace::Local { directory: "d".into(), tag: tag.into(), digest: None, reset: true };
        assert_eq!(place("type=local,src=d"), Ok(local("latest")));
        assert_eq!(place("type=local,src=d,tag=t"), Ok(local("t")));
        let timeout = |text: &str| CacheSource::parse(text, &|_| None).map(|source| source.timeout.as_millis()).ok();
        assert_eq!(timeout("type=local,src=d,timeout=2m"), Some(120_000));
        assert_eq!(timeout("type=local,src=d,timeout=50ms"), Some(50));
        let stall = |text: &str| CacheSource::parse(text, &|_| None).expect("valid").stall;
        assert_eq!(stall("type=local,src=d"), Some(STALL));
        assert_eq!(stall("type=local,src=d,stall-timeout=2m"), Some(Duration::from_secs(120)));
        assert_eq!(stall("type=local,src=d,stall-timeout=0"), None);
    }

    #[test]
    fn destinations_are_read() {
        let parse = |text: &str| CacheDestination::parse(text, &|_| None).expect(text);
        let plain = parse("type=registry,ref=a");
        assert_eq!((plain.mode, plain.strict, plain.compression), (CacheMode::Max, false, None));
        let full = parse("type=local,dest=d,mode=min,compression=zstd,compression-level=19,force-compression=true");
        assert_eq!((full.mode, full.compression, full.level), (CacheMode::Min, Some(Compression::Zstd), Some(19)));
        assert!(full.force_compression);
        assert_eq!(parse("type=local,dest=d,mounts=all").mounts, MountChoice::All);
        let some = parse("type=local,dest=d,mounts=/root/.cache;apt").mounts;
        assert_eq!(["apt", "/root/.cache", "/root", "all"].map(|id| some.has(id)), [true, true, false, false]);
        assert!(parse("type=local,dest=d,strict").strict);
        assert!(parse("type=local,dest=d,ignore-error=false").strict);
        assert!(!parse("type=local,dest=d,ignore-error=true").strict);
    }

    #[test]
    fn buckets_are_read() {
        let text = "type=s3,bucket=b,name=x;y,endpoint_url=http://h:1,use_path_style=true,access_key_id=k";
        let variable = |name: &str| (name.starts_with("AWS_")).then(|| name.to_lowercase());
        let Ok(CacheDestination { place: CachePlace::S3(place), .. }) = CacheDestination::parse(text, &variable) else {
            panic!("a bucket");
        };
        assert_eq!(
            (place.names.as_slice(), place.region.as_str()),
            (&["x".to_owned(), "y".to_owned()][..], "aws_region")
        );
        assert_eq!(
            (place.access_key.as_deref(), place.secret_key.as_deref()),
            (Some("k"), Some("aws_secret_access_key"))
        );
        assert_eq!(place.session_token, None, "it belongs to other keys");
        assert!(!format!("{place:?}").contains("aws_secret"));
        let error = CacheSource::parse("type=s3,bucket=b", &|_| None).expect_err("no region");
        assert_eq!(error.to_string(), "cache type `s3` needs `region`");
    }

    #[test]
    fn an_inline_cache_has_no_options_but_its_mode() {
        let check = |text: &str, expected: Result<bool, &str>| {
            assert_eq!(
                is_inline(text).map_err(|error| error.to_string()).as_ref().map_err(String::as_str).copied(),
                expected
            );
        };
        check("type=inline", Ok(true));
        check("type=inline,mode=min", Ok(true));
        check("type=registry,ref=inline", Ok(false));
        check("inline", Ok(false));
        check(
            "type=inline,mode=max",
            Err("`max` is not a value of `mode`: expected `min`: an image has its own layers only"),
        );
        check("type=inline,ref=a", Err("unknown option `ref` of cache type `inline`"));
        assert!(CacheSource::parse("type=inline", &|_| None).is_err());
    }

    #[test]
    fn what_is_wrong_is_said() {
        use crate::diagnostic::Diagnostic as _;
        let check = |text: &str, expected: &str, hint: Option<&str>| {
            let error = CacheDestination::parse(text, &|_| None).expect_err(text);
            assert_eq!((error.to_string().as_str(), error.hint().as_deref()), (expected, hint), "{text}");
        };
        check("type=registy,ref=a", "unknown cache type `registy`", Some("did you mean `registry`?"));
        check("type=registry", "cache type `registry` needs `ref`", None);
        check("type=local,src=d", "cache type `local` needs `dest`", None);
        check("type=local,dest=d,mod=max", "unknown option `mod` of cache type `local`", Some("did you mean `mode`?"));
        check("type=local,dest=d,mode=all", "`all` is not a value of `mode`: expected `min` or `max`", None);
        check(
            "type=registry,ref=a,image-manifest=false",
            "`false` is not a value of `image-manifest`: expected `true`: a cache is always an OCI manifest",
            None,
        );
        let types = "begin with `type=`; the types are registry, local, s3, gha";
        check("ref=a,mode=max", "the type of the cache is missing", Some(types));
        let hint = "a name with options is written `type=registry,ref=h:5/app:cache,…`";
        check("h:5/app:cache,mounts=all", "`h:5/app:cache` is not of the form `key=value`", Some(hint));
        let hint = "a directory is written `type=local,src=./cache`, and `dest=` where the cache goes";
        check("./cache", "invalid reference `./cache`: the registry is not valid", Some(hint));
    }
}
