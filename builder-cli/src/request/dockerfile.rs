//! Finds and reads the Dockerfile.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use builder_core::diagnostic::{Source, nearest};
use rustix::fs::{Mode, OFlags, open};

use super::{Context, Result};
use crate::command_error::CommandError;
use crate::environment::Environment;

/// The largest Dockerfile that is read, in bytes.
const MAX_SIZE: u64 = 16 << 20;

/// Names that are tried when none is given; the first that exists counts.
const NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// A Dockerfile and where it was found; `-` is standard input.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) text: Source,
    pub(super) path: PathBuf,
}

/// Reads the Dockerfile of a build.
pub(super) fn load(file: Option<&Path>, context: &Context, environment: &Environment) -> Result<Loaded> {
    match (file, context) {
        (Some(file), _) if file == Path::new("-") => stdin(),
        (None, Context::Stdin) => stdin(),
        (Some(file), Context::Directory(directory)) => {
            // As typed from here; BuildKit's other reading, relative to the context, helps scripts.
            let here = environment.absolute(file);
            let there = directory.join(file);
            let path = if !here.exists() && there.exists() { there } else { here };
            // Without `..`, so that the library can tell whether it is inside of the context.
            let path = path
                .parent()
                .and_then(|parent| parent.canonicalize().ok())
                .map_or_else(|| path.clone(), |parent| path.file_name().map_or(path.clone(), |name| parent.join(name)));
            let text = read(&path, &file.display().to_string()).map_err(|error| missing(error, &path))?;
            Ok(Loaded { text, path })
        }
        (Some(file), Context::Stdin) => {
            let path = environment.absolute(file);
            let text = read(&path, &file.display().to_string())?;
            Ok(Loaded { text, path })
        }
        (None, Context::Directory(directory)) => default(directory),
    }
}

/// Reads a Dockerfile that was named, or standard input for `-`.
pub(crate) fn read_file(file: &Path, environment: &Environment) -> Result<Source> {
    if file == Path::new("-") {
        return stdin().map(|loaded| loaded.text);
    }
    let path = environment.absolute(file);
    read(&path, &file.display().to_string()).map_err(|error| missing(error, &path))
}

fn default(directory: &Path) -> Result<Loaded> {
    for name in NAMES {
        let path = directory.join(name);
        if std::fs::symlink_metadata(&path).is_err() {
            continue;
        }
        // The context may come from a stranger: a link that leads out of it would show other files in messages.
        let inside = path.canonicalize().ok().zip(directory.canonicalize().ok());
        if inside.is_some_and(|(path, directory)| !path.starts_with(directory)) {
            return Err(CommandError::failed(format!("`{name}` is a link that leads out of the context"))
                .with_hint("name the file that you mean with `--file`"));
        }
        return Ok(Loaded { text: read(&path, name)?, path });
    }
    let error = CommandError::failed(format!("there is no Dockerfile in `{}`", directory.display()));
    Err(match similar(directory, "Dockerfile") {
        Some(name) => error.with_hint(format!("did you mean `--file {}`?", directory.join(name).display())),
        None => error.with_hint("give its directory, or name it with `--file`"),
    })
}

fn missing(error: CommandError, path: &Path) -> CommandError {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return error };
    if path.exists() {
        return error;
    }
    match similar(directory, &name.to_string_lossy()) {
        Some(name) => error.with_hint(format!("did you mean `{name}`?")),
        None => error,
    }
}

/// The file of a directory whose name is nearest.
fn similar(directory: &Path, name: &str) -> Option<String> {
    let names: Vec<String> = std::fs::read_dir(directory)
        .ok()?
        .take(1000)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let starts = |candidate: &&String| candidate.to_lowercase().starts_with("dockerfile.") && name == "Dockerfile";
    nearest(name, names.iter().map(String::as_str))
        .map(str::to_owned)
        .or_else(|| names.iter().find(|name| starts(name) && !name.ends_with(".dockerignore")).cloned())
}

/// Reads a regular file; a pipe or a device could block or never end.
fn read(path: &Path, name: &str) -> Result<Source> {
    let fail = |error: &io::Error| CommandError::io(&format!("cannot read `{name}`"), error);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open(path, flags, Mode::empty()).map_err(|error| fail(&error.into()))?;
    let mut file = File::from(file);
    if !file.metadata().map_err(|error| fail(&error))?.is_file() {
        return Err(CommandError::failed(format!("cannot read `{name}`: it is not a regular file")));
    }
    limited(&mut file, name).map(|text| Source::new(name, text))
}

fn stdin() -> Result<Loaded> {
    let text = limited(&mut io::stdin().lock(), "standard input")?;
    if looks_like_archive(&text) {
        return Err(CommandError::failed("standard input is an archive; a context on standard input is not supported")
            .with_hint("unpack it and give the directory, or send a Dockerfile"));
    }
    Ok(Loaded { text: Source::new("-", text), path: PathBuf::from("-") })
}

fn limited(file: &mut dyn io::Read, name: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(MAX_SIZE + 1)
        .read_to_end(&mut text)
        .map_err(|error| CommandError::io(&format!("cannot read `{name}`"), &error))?;
    if text.len() as u64 > MAX_SIZE {
        return Err(CommandError::failed(format!("`{name}` is larger than {} MiB", MAX_SIZE >> 20))
            .with_hint("a Dockerfile is a text; copy large files from the context"));
    }
    Ok(text)
}

/// The first bytes of gzip, bzip2, xz, zstd, and the place of `ustar` in a tar.
fn looks_like_archive(bytes: &[u8]) -> bool {
    let magic: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"];
    magic.iter().any(|magic| bytes.starts_with(magic)) || bytes.get(257..262) == Some(b"ustar")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for name in names {
            std::fs::write(directory.path().join(name), name).expect("written");
        }
        directory
    }

    #[test]
    fn the_usual_names_are_tried_in_order() {
        for (names, expected) in [
            (&["Containerfile", "Dockerfile", "dockerfile"][..], "Dockerfile"),
            (&["Containerfile", "dockerfile"], "dockerfile"),
            (&["Containerfile"], "Containerfile"),
        ] {
            let directory = named(names);
            assert_eq!(default(directory.path()).expect("found").text.text(), expected.as_bytes());
        }
    }

    #[test]
    fn what_is_not_a_dockerfile_is_refused() {
        let directory = named(&["Dockerflie"]);
        assert!(default(directory.path()).expect_err("refused").to_string().starts_with("there is no Dockerfile in"));
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("Dockerfile")).expect("a link");
        let error = default(directory.path()).expect_err("refused");
        assert_eq!(error.to_string(), "`Dockerfile` is a link that leads out of the context");
        let error = read(Path::new("/dev/zero"), "x").expect_err("refused");
        assert_eq!(error.to_string(), "cannot read `x`: it is not a regular file");
        let large = directory.path().join("large");
        File::create(&large).and_then(|file| file.set_len(MAX_SIZE + 1)).expect("a sparse file");
        assert_eq!(read(&large, "large").expect_err("refused").to_string(), "`large` is larger than 16 MiB");
    }
}
