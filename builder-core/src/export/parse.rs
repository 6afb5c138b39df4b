//! [`Output::parse`]: the text of `--output`.

use std::path::PathBuf;

use super::{
    Annotation, AnnotationLevel, Destination, FilesFormat, ImageFormat, ImageOutput, LayoutOutput, Output,
    ParseOutputError,
};
use crate::oci::{Compression, Platform, Reference};

const TYPES: [&str; 7] = ["image", "registry", "oci", "docker", "local", "tar", "cacheonly"];

const IMAGE_KEYS: [&str; 8] = [
    "name",
    "push",
    "push-by-digest",
    "store",
    "name-canonical",
    "dangling-name-prefix",
    "registry.insecure",
    "unpack",
];
const LAYOUT_KEYS: [&str; 3] = ["name", "dest", "tar"];
const FILES_KEYS: [&str; 5] = ["dest", "mode", "platform-split", "rewrite-timestamp", "source-date-epoch"];
const FORMAT_KEYS: [&str; 7] = [
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "rewrite-timestamp",
    "source-date-epoch",
    "annotation.",
];

impl Output {
    /// Reads what docker's `--output` takes: `type=oci,dest=x.tar,compression=zstd`, `DIRECTORY`, or `-`.
    ///
    /// The text is one record of comma-separated values (RFC 4180), so a value with a comma is written
    /// `"name=a,b"`. A text without `=` is a directory for the files, `-` a tar of them on standard output.
    ///
    /// # Errors
    /// [`ParseOutputError`], with the nearest known word for an unknown one.
    pub fn parse(text: &str) -> Result<Self, ParseOutputError> {
        let fields = split(text)?;
        if let [field] = fields.as_slice()
            && !field.contains('=')
        {
            return match field.as_str() {
                "" => Err(ParseOutputError::Empty),
                "-" => Ok(Self::Tar {
                    destination: Destination::Stdout,
                    platform_split: None,
                    format: FilesFormat::default(),
                }),
                directory => Ok(Self::Local {
                    directory: PathBuf::from(directory),
                    delete: false,
                    platform_split: None,
                    format: FilesFormat::default(),
                }),
            };
        }
        let mut options = Options::new(fields)?;
        let kind = options.take("type").ok_or(ParseOutputError::NoType)?;
        match kind.as_str() {
            "image" => options.image(false),
            "registry" => options.image(true),
            "oci" => options.layout("oci"),
            "docker" if !options.has("dest") => options.loaded(),
            "docker" => options.layout("docker"),
            "local" => options.local(),
            "tar" => options.tar(),
            "cacheonly" => options.finish("cacheonly", &[]).map(|()| Self::CacheOnly),
            _ => Err(ParseOutputError::UnknownType { kind, known: &TYPES }),
        }
    }
}

/// The `key=value` pairs that are not understood yet, in written order.
struct Options {
    pairs: Vec<(String, String)>,
}

impl Options {
    fn new(fields: Vec<String>) -> Result<Self, ParseOutputError> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for field in fields {
            let (key, value) =
                field.split_once('=').ok_or_else(|| ParseOutputError::NotAPair { field: field.clone() })?;
            let key = key.trim();
            // The key of an annotation is the user's own word.
            let key = if key.starts_with("annotation") { key.to_owned() } else { key.to_ascii_lowercase() };
            if key != "name" && pairs.iter().any(|(known, _)| *known == key) {
                return Err(ParseOutputError::Twice { key });
            }
            pairs.push((key, value.to_owned()));
        }
        Ok(Self { pairs })
    }

    fn has(&self, key: &str) -> bool {
        self.pairs.iter().any(|(known, _)| known == key)
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(known, _)| known == key)?;
        Some(self.pairs.remove(at).1)
    }

    fn take_bool(&mut self, key: &'static str) -> Result<Option<bool>, ParseOutputError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        // The words that Go's `strconv.ParseBool` knows.
        match value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(ParseOutputError::Value { key: key.to_owned(), value, expected: "`true` or `false`" }),
        }
    }

    /// Refuses what nothing has taken.
    fn finish(&self, kind: &'static str, known: &[&[&'static str]]) -> Result<(), ParseOutputError> {
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) => Err(ParseOutputError::UnknownKey { key: key.clone(), kind, known: known.concat() }),
        }
    }

    fn names(&mut self) -> Result<Vec<Reference>, ParseOutputError> {
        let mut names = Vec::new();
        while let Some(value) = self.take("name") {
            for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                names.push(name.parse().map_err(|source| ParseOutputError::Name { source })?);
            }
        }
        Ok(names)
    }

    fn image(&mut self, registry: bool) -> Result<Output, ParseOutputError> {
        let kind = if registry { "registry" } else { "image" };
        let push_by_digest = self.take_bool("push-by-digest")?.unwrap_or(false);
        let push = self.take_bool("push")?.unwrap_or(registry);
        let output = ImageOutput {
            names: self.names()?,
            push,
            push_by_digest,
            store: self.take_bool("store")?.unwrap_or(!registry),
            name_canonical: self.take_bool("name-canonical")?.unwrap_or(false),
            dangling_name_prefix: self.take("dangling-name-prefix"),
            insecure: self.take_bool("registry.insecure")?.unwrap_or(false),
            format: self.format(false)?,
        };
        // Layers of an image in the store are unpacked as soon as something reads them.
        self.take_bool("unpack")?;
        self.finish(kind, &[&IMAGE_KEYS, &FORMAT_KEYS])?;
        if push_by_digest && !push {
            return Err(ParseOutputError::Conflict { reason: "`push-by-digest` needs `push=true`" });
        }
        Ok(Output::Image(output))
    }

    /// `type=docker` without a destination: the engine that docker would load it into is this one.
    fn loaded(&mut self) -> Result<Output, ParseOutputError> {
        let output = ImageOutput { names: self.names()?, format: self.format(true)?, ..ImageOutput::default() };
        self.finish("docker", &[&LAYOUT_KEYS, &FORMAT_KEYS])?;
        Ok(Output::Image(output))
    }

    fn layout(&mut self, kind: &'static str) -> Result<Output, ParseOutputError> {
        let destination = match (self.take("dest"), self.take_bool("tar")?.unwrap_or(true)) {
            (Some(path), _) if path.is_empty() => return Err(ParseOutputError::NoDestination { kind }),
            (Some(path), true) if path != "-" => Destination::File(path.into()),
            (Some(_) | None, true) => Destination::Stdout,
            (Some(path), false) if path != "-" => Destination::Directory(path.into()),
            (Some(_) | None, false) => return Err(ParseOutputError::NoDestination { kind }),
        };
        let output = LayoutOutput { destination, names: self.names()?, format: self.format(kind == "docker")? };
        self.finish(kind, &[&LAYOUT_KEYS, &FORMAT_KEYS])?;
        if kind == "docker" {
            if matches!(output.destination, Destination::Directory(_)) {
                return Err(ParseOutputError::Conflict {
                    reason: "`type=docker` is always an archive; use `type=oci`",
                });
            }
            return Ok(Output::Docker(output));
        }
        Ok(Output::Oci(output))
    }

    fn local(&mut self) -> Result<Output, ParseOutputError> {
        let directory = match self.take("dest") {
            Some(path) if path == "-" => {
                return Err(ParseOutputError::Conflict {
                    reason: "a directory cannot be standard output; use `type=tar`",
                });
            }
            Some(path) if !path.is_empty() => PathBuf::from(path),
            _ => return Err(ParseOutputError::NoDestination { kind: "local" }),
        };
        let delete = match self.take("mode").as_deref() {
            None | Some("copy") => false,
            Some("delete") => true,
            Some(value) => {
                let value = value.to_owned();
                return Err(ParseOutputError::Value { key: "mode".to_owned(), value, expected: "`copy` or `delete`" });
            }
        };
        let platform_split = self.take_bool("platform-split")?;
        let format = self.files_format()?;
        self.finish("local", &[&FILES_KEYS])?;
        Ok(Output::Local { directory, delete, platform_split, format })
    }

    fn tar(&mut self) -> Result<Output, ParseOutputError> {
        let destination = match self.take("dest") {
            Some(path) if path.is_empty() => return Err(ParseOutputError::NoDestination { kind: "tar" }),
            Some(path) if path != "-" => Destination::File(path.into()),
            _ => Destination::Stdout,
        };
        let platform_split = self.take_bool("platform-split")?;
        let format = self.files_format()?;
        self.finish("tar", &[&FILES_KEYS])?;
        Ok(Output::Tar { destination, platform_split, format })
    }

    fn files_format(&mut self) -> Result<FilesFormat, ParseOutputError> {
        Ok(FilesFormat {
            rewrite_timestamp: self.take_bool("rewrite-timestamp")?.unwrap_or(false),
            source_date_epoch: self.epoch()?,
        })
    }

    fn format(&mut self, docker: bool) -> Result<ImageFormat, ParseOutputError> {
        let compression = match self.take("compression").as_deref() {
            None | Some("gzip") => Compression::Gzip,
            Some("zstd") => Compression::Zstd,
            Some("uncompressed") => Compression::Uncompressed,
            Some(value) => {
                return Err(ParseOutputError::Value {
                    key: "compression".to_owned(),
                    value: value.to_owned(),
                    expected: "`gzip`, `zstd` or `uncompressed`",
                });
            }
        };
        let mut format = ImageFormat {
            compression,
            level: self.level(compression)?,
            force_compression: self.take_bool("force-compression")?.unwrap_or(false),
            docker_media_types: !self.take_bool("oci-mediatypes")?.unwrap_or(!docker),
            rewrite_timestamp: self.take_bool("rewrite-timestamp")?.unwrap_or(false),
            source_date_epoch: self.epoch()?,
            ..ImageFormat::default()
        };
        let mut rest = Vec::new();
        for (key, value) in std::mem::take(&mut self.pairs) {
            match annotation(&key, &value)? {
                Some(annotation) => format.annotations.0.push(annotation),
                None => rest.push((key, value)),
            }
        }
        self.pairs = rest;
        if format.docker_media_types && !format.annotations.0.is_empty() {
            return Err(ParseOutputError::Conflict { reason: "annotations need `oci-mediatypes=true`" });
        }
        Ok(format)
    }

    fn level(&mut self, compression: Compression) -> Result<Option<i32>, ParseOutputError> {
        let Some(value) = self.take("compression-level") else { return Ok(None) };
        let (range, expected) = match compression {
            Compression::Zstd => (0..=22, "a number from 0 to 22"),
            Compression::Gzip => (0..=9, "a number from 0 to 9"),
            Compression::Uncompressed => {
                return Err(ParseOutputError::Conflict { reason: "`compression=uncompressed` has no level" });
            }
        };
        match value.parse() {
            Ok(level) if range.contains(&level) => Ok(Some(level)),
            _ => Err(ParseOutputError::Value { key: "compression-level".to_owned(), value, expected }),
        }
    }

    fn epoch(&mut self) -> Result<Option<i64>, ParseOutputError> {
        let Some(value) = self.take("source-date-epoch") else { return Ok(None) };
        match value.parse() {
            Ok(seconds) if jiff::Timestamp::from_second(seconds).is_ok() => Ok(Some(seconds)),
            _ => Err(ParseOutputError::Value {
                key: "source-date-epoch".to_owned(),
                value,
                expected: "seconds since 1970",
            }),
        }
    }
}

/// Reads `annotation.KEY`, `annotation-LEVEL.KEY` and `annotation-LEVEL[PLATFORM].KEY`; `None` for another option.
fn annotation(text: &str, value: &str) -> Result<Option<Annotation>, ParseOutputError> {
    let Some(rest) = text.strip_prefix("annotation") else { return Ok(None) };
    let Some(dot) =
        rest.find(']').map_or_else(|| rest.find('.'), |bracket| rest[bracket..].find('.').map(|dot| bracket + dot))
    else {
        return Ok(None);
    };
    let (level, key) = (&rest[..dot], &rest[dot + 1..]);
    let (level, platform) = match level.strip_suffix(']').and_then(|level| level.split_once('[')) {
        Some((level, platform)) => {
            let platform: Platform = platform.parse().map_err(|source| ParseOutputError::Platform { source })?;
            (level, Some(platform))
        }
        None => (level, None),
    };
    let level = match level {
        "" | "-manifest" => AnnotationLevel::Manifest,
        "-manifest-descriptor" => AnnotationLevel::ManifestDescriptor,
        "-index" => AnnotationLevel::Index,
        "-index-descriptor" => AnnotationLevel::IndexDescriptor,
        _ => return Ok(None),
    };
    Ok((!key.is_empty()).then(|| Annotation { level, platform, key: key.to_owned(), value: value.to_owned() }))
}

/// Splits one record of comma-separated values (RFC 4180).
pub(crate) fn split(text: &str) -> Result<Vec<String>, ParseOutputError> {
    let quotes = || ParseOutputError::Quotes { text: text.to_owned() };
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let end = quoted.find('"').ok_or_else(quotes)?;
                field.push_str(&quoted[..end]);
                quoted = &quoted[end + 1..];
                // A doubled quote is one of the value.
                let Some(more) = quoted.strip_prefix('"') else { break };
                field.push('"');
                quoted = more;
            }
            rest = quoted;
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field.push_str(&rest[..end]);
            rest = &rest[end..];
            if field.contains('"') {
                return Err(quotes());
            }
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Ok(fields),
            None => return Err(quotes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Output {
        Output::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_forms_of_docker_are_understood() {
        assert_eq!(parse("out").kind(), "local");
        assert!(parse("-").is_stdout());
        assert!(parse("type=tar").is_stdout() && parse("type=oci").is_stdout() && parse("type=oci,dest=-").is_stdout());
        assert_eq!(parse("type=cacheonly"), Output::CacheOnly);
        let names = vec!["a".parse().expect("a name"), "b:2".parse().expect("a name")];
        assert_eq!(parse(r#"type=image,"name=a,b:2""#), Output::store(names.clone()));
        assert_eq!(parse("type=registry,name=a,name=b:2"), Output::push(names));
        assert_eq!(
            parse("type=docker"),
            Output::Image(ImageOutput {
                format: ImageFormat { docker_media_types: true, ..ImageFormat::default() },
                ..ImageOutput::default()
            })
        );
        let Output::Oci(layout) = parse("Type=oci, dest=a b.tar ,compression=zstd,compression-level=22") else {
            panic!()
        };
        assert_eq!(layout.destination, Destination::File("a b.tar ".into()));
        assert_eq!((layout.format.compression, layout.format.level), (Compression::Zstd, Some(22)));
        let Output::Oci(layout) = parse("type=oci,dest=d,tar=false") else { panic!() };
        assert_eq!(layout.destination, Destination::Directory("d".into()));
        let Output::Local { directory, delete, .. } = parse(r#"type=local,"dest=a,""b""",mode=delete"#) else {
            panic!()
        };
        assert_eq!((directory, delete), ("a,\"b\"".into(), true));
    }

    #[test]
    fn annotations_have_levels_and_platforms() {
        let text =
            "type=oci,dest=x,annotation.Org.A=1,annotation-index[linux/amd64].b=2=3,annotation-index-descriptor.c=";
        let Output::Oci(layout) = parse(text) else { panic!() };
        let platform = "linux/amd64".parse().expect("a platform");
        let at = |level, platform| layout.format.annotations.at(level, platform).into_iter().collect::<Vec<_>>();
        let pair = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
        assert_eq!(at(AnnotationLevel::Manifest, None), pair("Org.A", "1"));
        assert_eq!(at(AnnotationLevel::Index, Some(&platform)), pair("b", "2=3"));
        assert_eq!(at(AnnotationLevel::Index, None), []);
        assert_eq!(at(AnnotationLevel::IndexDescriptor, None), pair("c", ""));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_the_nearest_word() {
        use crate::diagnostic::Diagnostic as _;
        for (text, message, hint) in [
            ("", "the output is empty", None),
            ("type=", "unknown output type ``", None),
            ("dest=x", "the output has no type", Some("for example `type=oci,dest=image.tar`")),
            ("type=ocI,dest=x", "unknown output type `ocI`", Some("did you mean `oci`?")),
            ("type=oci,dst=x", "unknown option `dst` of output type `oci`", Some("did you mean `dest`?")),
            ("type=oci,dest=x,dest=y", "option `dest` is given twice", None),
            (
                "type=oci,dest",
                "`dest` is not of the form `key=value`",
                Some("a value with a comma is written `\"key=a,b\"`"),
            ),
            ("type=local", "output type `local` needs a destination", Some("add `dest=PATH`")),
            ("type=image,push=maybe", "`maybe` is not a value of `push`: expected `true` or `false`", None),
            (
                "type=oci,compression=gzip,compression-level=10",
                "`10` is not a value of `compression-level`: expected a number from 0 to 9",
                None,
            ),
            (
                "type=oci,compression=xz",
                "`xz` is not a value of `compression`: expected `gzip`, `zstd` or `uncompressed`",
                None,
            ),
            ("type=docker,dest=x,annotation.a=b", "annotations need `oci-mediatypes=true`", None),
            ("type=image,name=A", "invalid reference `A`: the repository name must be lowercase", None),
            (r#"type=image,"name=a"#, r#"the quotes in `type=image,"name=a` do not match"#, None),
            ("type=cacheonly,x=y", "unknown option `x` of output type `cacheonly`", None),
        ] {
            let error = Output::parse(text).expect_err(text);
            assert_eq!(error.to_string(), message);
            assert_eq!(error.hint().as_deref(), hint, "{text}");
        }
    }
}
