//! Finds and reads the Dockerfile.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use builder_core::build::ContextSource;
use builder_core::diagnostic::{Source, nearest};
use builder_core::layer::begins_as_archive;
use rustix::fs::{Mode, OFlags, open};

use super::elsewhere::Elsewhere;
use super::{Context, Result};
use crate::command_error::CommandError;
use crate::environment::Environment;

/// The largest Dockerfile that is read, in bytes.
const MAX_SIZE: u64 = 16 << 20;

/// Names that are tried when none is given; the first that exists counts.
const NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// A Dockerfile, and the context that goes with it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) text: Source,
    /// Where the Dockerfile is, if it is a file of this machine beside a context that is a directory.
    pub(super) file: Option<PathBuf>,
    pub(super) context: ContextSource,
}

/// Reads the Dockerfile of a build; a context that is elsewhere is brought first, as the Dockerfile may be in it.
pub(super) fn load(
    file: Option<&Path>,
    context: Context,
    environment: &Environment,
    elsewhere: &mut Elsewhere<'_>,
) -> Result<Loaded> {
    let address = file.and_then(Path::to_str).filter(|file| is_web_address(file));
    match context {
        Context::Directory(directory) => {
            let (text, path) = match (file, address) {
                (_, Some(address)) => (elsewhere.dockerfile(address)?, None),
                (Some(file), _) if file == Path::new("-") => (stdin(Vec::new())?, None),
                (Some(file), _) => local(file, &directory, environment)?,
                (None, _) => default(&directory)?,
            };
            let ignore_files = ignore_files(path.as_deref(), &directory);
            Ok(Loaded { text, file: path, context: ContextSource::Directory { path: directory, ignore_files } })
        }
        Context::Stdin => {
            let first = peek(&mut Stdin)?;
            if first.is_empty() {
                return Err(CommandError::failed("standard input is empty")
                    .with_hint("send a Dockerfile, or a tar archive with one in it"));
            }
            if begins_as_archive(&first) {
                let fetched = elsewhere.archive(first)?;
                let text = match address {
                    Some(address) => elsewhere.dockerfile(address)?,
                    None => fetched.dockerfile(name_in_context(file)?)?,
                };
                return Ok(Loaded { text, file: None, context: ContextSource::Fetched(fetched) });
            }
            if file.is_some() {
                return Err(CommandError::usage("standard input and `--file` are both the Dockerfile")
                    .with_hint("leave `--file` out, or send a tar archive as the context"));
            }
            Ok(Loaded { text: stdin(first)?, file: None, context: ContextSource::Empty })
        }
        Context::Remote(remote) => {
            // As typed before anything is fetched: it may be wrong.
            let text = match (file, address) {
                (_, Some(address)) => Some(elsewhere.dockerfile(address)?),
                (Some(file), _) if file == Path::new("-") => Some(stdin(Vec::new())?),
                (Some(file), _) if file.is_absolute() => Some(read(file, &file.display().to_string())?),
                _ => None,
            };
            let fetched = elsewhere.context(&remote)?;
            let text = match text {
                Some(text) => text,
                None => fetched.dockerfile(name_in_context(file)?)?,
            };
            Ok(Loaded { text, file: None, context: ContextSource::Fetched(fetched) })
        }
    }
}

pub(super) fn is_web_address(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// `--file` for a context that is no directory.
fn name_in_context(file: Option<&Path>) -> Result<Option<&str>> {
    let name = file.map(|file| file.to_str().ok_or_else(|| CommandError::usage("the name of --file is no text")));
    name.transpose()
}

/// `NAME.dockerignore` beside the Dockerfile wins over the one of the context, as in BuildKit.
pub(super) fn ignore_files(dockerfile: Option<&Path>, context: &Path) -> Vec<PathBuf> {
    let own = dockerfile.map(|dockerfile| {
        let mut own = dockerfile.as_os_str().to_owned();
        own.push(".dockerignore");
        PathBuf::from(own)
    });
    own.into_iter().chain([context.join(".dockerignore"), context.join(".containerignore")]).collect()
}

/// The Dockerfile that was named, for a context that is a directory.
fn local(file: &Path, directory: &Path, environment: &Environment) -> Result<(Source, Option<PathBuf>)> {
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
    Ok((text, Some(path)))
}

/// Reads a Dockerfile that was named, or standard input for `-`.
pub(crate) fn read_file(file: &Path, environment: &Environment) -> Result<Source> {
    if file == Path::new("-") {
        return stdin(Vec::new());
    }
    let path = environment.absolute(file);
    read(&path, &file.display().to_string()).map_err(|error| missing(error, &path))
}

fn default(directory: &Path) -> Result<(Source, Option<PathBuf>)> {
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
        return Ok((read(&path, name)?, Some(path)));
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
pub(super) fn read(path: &Path, name: &str) -> Result<Source> {
    let fail = |error: &io::Error| CommandError::io(&format!("cannot read `{name}`"), error);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open(path, flags, Mode::empty()).map_err(|error| fail(&error.into()))?;
    let mut file = File::from(file);
    if !file.metadata().map_err(|error| fail(&error))?.is_file() {
        return Err(CommandError::failed(format!("cannot read `{name}`: it is not a regular file")));
    }
    limited(&mut file, name).map(|text| Source::new(name, text))
}

/// Standard input without a buffer: what follows what is read here is for others.
struct Stdin;

impl io::Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(rustix::stdio::stdin(), &mut *buffer))?)
    }
}

/// As much as tells what it is.
fn peek(input: &mut dyn io::Read) -> Result<Vec<u8>> {
    let mut first = Vec::new();
    let read = input.take(512).read_to_end(&mut first);
    read.map_err(|error| CommandError::io("cannot read standard input", &error))?;
    Ok(first)
}

/// The Dockerfile on standard input, of which `first` was read.
fn stdin(first: Vec<u8>) -> Result<Source> {
    let text = limited(&mut io::Cursor::new(first).chain(Stdin), "standard input")?;
    if begins_as_archive(&text) {
        return Err(CommandError::failed("standard input is an archive, and a Dockerfile is expected there")
            .with_hint("send it as the context: `rbuild -`"));
    }
    Ok(Source::new("-", text))
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

    // Rows: A18.
    #[test]
    fn the_usual_names_are_tried_in_order() {
        for (names, expected) in [
            (&["Containerfile", "Dockerfile", "dockerfile"][..], "Dockerfile"),
            (&["Containerfile", "dockerfile"], "dockerfile"),
            (&["Containerfile"], "Containerfile"),
        ] {
            let directory = named(names);
            assert_eq!(default(directory.path()).expect("found").0.text(), expected.as_bytes());
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
