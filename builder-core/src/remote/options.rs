//! [`CacheSource`] and [`CacheDestination`]: the texts of `--cache-from` and `--cache-to`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::ParseCacheError;
use crate::export::parse::split;
use crate::oci::{Compression, Digest, Reference};

/// Longest wait for the index of a cache, where nobody says another one.
const PATIENCE: Duration = Duration::from_secs(20);

const TYPES: [&str; 2] = ["registry", "local"];

/// Where a cache is read from: `--cache-from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSource {
    /// Where it is.
    pub place: CachePlace,
    /// Longest wait for its index, and for each of its parts.
    pub timeout: Duration,
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
    },
}

impl CachePlace {
    /// The word of `type=`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Registry { .. } => "registry",
            Self::Local { .. } => "local",
        }
    }
}

impl fmt::Display for CachePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry { reference, .. } => write!(f, "`{}`", reference.familiar()),
            Self::Local { directory, .. } => write!(f, "`{}`", directory.display()),
        }
    }
}

impl CacheSource {
    /// Reads `type=registry,ref=app:cache`, or just the name of an image.
    ///
    /// # Errors
    /// [`ParseCacheError`], with the nearest known word for an unknown one.
    pub fn parse(text: &str) -> Result<Self, ParseCacheError> {
        let mut options = Options::new(text)?;
        let place = options.place(Direction::From)?;
        let timeout = options.timeout()?.unwrap_or(PATIENCE);
        options.finish()?;
        Ok(Self { place, timeout })
    }
}

impl CacheDestination {
    /// Reads `type=registry,ref=app:cache,mode=max`, or just the name of an image.
    ///
    /// # Errors
    /// [`ParseCacheError`], with the nearest known word for an unknown one.
    pub fn parse(text: &str) -> Result<Self, ParseCacheError> {
        let mut options = Options::new(text)?;
        let place = options.place(Direction::To)?;
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
        let ignore_error = options.flag("ignore-error")?;
        let strict = options.flag("strict")?.unwrap_or(ignore_error == Some(false));
        options.always("image-manifest")?;
        options.always("oci-mediatypes")?;
        options.finish()?;
        Ok(Self { place, mode, compression, level, force_compression, strict })
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
        let Some(text) = self.take("timeout") else { return Ok(None) };
        let wrong = || value("timeout", &text, "a time such as `20s` or `2m`");
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let number: u64 = number.parse().map_err(|_| wrong())?;
        match unit {
            "ms" => Ok(Some(Duration::from_millis(number))),
            "" | "s" => Ok(Some(Duration::from_secs(number))),
            "m" => Ok(Some(Duration::from_secs(number.saturating_mul(60)))),
            _ => Err(wrong()),
        }
    }

    fn place(&mut self, direction: Direction) -> Result<CachePlace, ParseCacheError> {
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
                let tag = self.take("tag").unwrap_or_else(|| "latest".to_owned());
                Ok(CachePlace::Local { directory, tag, digest })
            }
            _ => Err(ParseCacheError::UnknownType { kind: self.kind.clone(), known: &TYPES }),
        }
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
        let place = |text: &str| CacheSource::parse(text).map(|source| source.place);
        assert_eq!(place("repo/app"), Ok(registry("repo/app")));
        assert_eq!(place("type=registry,ref=h:1/a:b"), Ok(registry("h:1/a:b")));
        let local = |tag: &str| CachePlace::Local { directory: "d".into(), tag: tag.into(), digest: None };
        assert_eq!(place("type=local,src=d"), Ok(local("latest")));
        assert_eq!(place("type=local,src=d,tag=t"), Ok(local("t")));
        let timeout = |text: &str| CacheSource::parse(text).map(|source| source.timeout.as_millis()).ok();
        assert_eq!(timeout("type=local,src=d,timeout=2m"), Some(120_000));
        assert_eq!(timeout("type=local,src=d,timeout=50ms"), Some(50));
    }

    #[test]
    fn destinations_are_read() {
        let parse = |text: &str| CacheDestination::parse(text).expect(text);
        let plain = parse("type=registry,ref=a");
        assert_eq!((plain.mode, plain.strict, plain.compression), (CacheMode::Max, false, None));
        let full = parse("type=local,dest=d,mode=min,compression=zstd,compression-level=19,force-compression=true");
        assert_eq!((full.mode, full.compression, full.level), (CacheMode::Min, Some(Compression::Zstd), Some(19)));
        assert!(full.force_compression);
        assert!(parse("type=local,dest=d,strict").strict);
        assert!(parse("type=local,dest=d,ignore-error=false").strict);
        assert!(!parse("type=local,dest=d,ignore-error=true").strict);
    }

    #[test]
    fn what_is_wrong_is_said() {
        use crate::diagnostic::Diagnostic as _;
        let check = |text: &str, expected: &str, hint: Option<&str>| {
            let error = CacheDestination::parse(text).expect_err(text);
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
        check("ref=a,mode=max", "unknown cache type ``", Some("the types are registry, local"));
    }
}
