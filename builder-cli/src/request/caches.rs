//! `--cache-from` and `--cache-to`.

use builder_core::diagnostic::Diagnostic as _;
use builder_core::remote::{CacheDestination, CachePlace, CacheSource, ParseCacheError};

use super::Result;
use crate::command_error::CommandError;
use crate::environment::Environment;

/// The caches that are asked, in order.
pub(super) fn sources(given: &[String], environment: &Environment) -> Result<Vec<CacheSource>> {
    let variable = |name: &str| environment.get(name).map(str::to_owned);
    let one = |text: &String| {
        let mut source = CacheSource::parse(text, &variable).map_err(|error| wrong("--cache-from", text, &error))?;
        absolute(&mut source.place, environment);
        Ok(source)
    };
    given.iter().map(one).collect()
}

/// Where the cache goes.
pub(super) fn destinations(given: &[String], environment: &Environment) -> Result<Vec<CacheDestination>> {
    let variable = |name: &str| environment.get(name).map(str::to_owned);
    let one = |text: &String| {
        let mut destination =
            CacheDestination::parse(text, &variable).map_err(|error| wrong("--cache-to", text, &error))?;
        absolute(&mut destination.place, environment);
        Ok(destination)
    };
    given.iter().map(one).collect()
}

fn wrong(option: &str, text: &str, error: &ParseCacheError) -> CommandError {
    let made = CommandError::usage(format!("{option} `{text}`: {error}"));
    match error.hint() {
        Some(hint) => made.with_hint(hint),
        None => made,
    }
}

/// Paths of the command line start in the current directory, which the library does not know.
fn absolute(place: &mut CachePlace, environment: &Environment) {
    match place {
        CachePlace::Local { directory, .. } => *directory = environment.absolute(directory),
        CachePlace::Registry { .. } | CachePlace::S3(_) | CachePlace::Gha(_) => {}
    }
}
