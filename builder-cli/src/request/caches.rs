//! `--cache-from` and `--cache-to`, and the same places typed after `rbuild cache export` and `import`.

use builder_core::diagnostic::Diagnostic as _;
use builder_core::remote::{CacheDestination, CachePlace, CacheSource, ParseCacheError, is_inline};

use super::Result;
use super::aws::Profile;
use crate::command_error::CommandError;
use crate::environment::Environment;

/// The caches that are asked, in order. `option` is where they were typed.
pub(crate) fn sources(option: &str, given: &[String], environment: &Environment) -> Result<Vec<CacheSource>> {
    let variable = variables(given, environment)?;
    let one = |text: &String| {
        let mut source = CacheSource::parse(text, &variable).map_err(|error| wrong(option, text, &error))?;
        absolute(&mut source.place, environment);
        Ok(source)
    };
    given.iter().map(one).collect()
}

/// Where the cache goes, and whether it goes into the image, too.
pub(crate) fn destinations(
    option: &str,
    given: &[String],
    environment: &Environment,
) -> Result<(Vec<CacheDestination>, bool)> {
    let variable = variables(given, environment)?;
    let one = |text: &String| -> Result<CacheDestination> {
        let mut destination = CacheDestination::parse(text, &variable).map_err(|error| wrong(option, text, &error))?;
        absolute(&mut destination.place, environment);
        Ok(destination)
    };
    let (mut destinations, mut inline) = (Vec::new(), false);
    for text in given {
        if is_inline(text).map_err(|error| wrong(option, text, &error))? {
            inline = true;
        } else {
            destinations.push(one(text)?);
        }
    }
    Ok((destinations, inline))
}

/// What was given but for caches of GitHub where no job of GitHub Actions runs: a build that is written for CI works on
/// other machines, too, as with docker.
pub(super) fn usable(
    option: &str,
    given: &[String],
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>> {
    let variable = variables(given, environment)?;
    let mut usable = Vec::new();
    for text in given {
        match CacheDestination::parse(text, &variable) {
            Err(ParseCacheError::Missing { kind, key: "url_v2" | "token" }) if kind == "gha" => warnings.push(format!(
                "{option} `{text}` is left out: `ACTIONS_RESULTS_URL` and `ACTIONS_RUNTIME_TOKEN` are not set"
            )),
            // What is wrong with it is said where it is read.
            _ => usable.push(text.clone()),
        }
    }
    Ok(usable)
}

/// What the texts may look up: the environment, and for buckets the files of the AWS command line below it.
fn variables(given: &[String], environment: &Environment) -> Result<impl Fn(&str) -> Option<String>> {
    let has_bucket = given.iter().any(|text| text.split(',').any(|field| field.trim() == "type=s3"));
    let profile = if has_bucket { Profile::load(environment)? } else { Profile::default() };
    Ok(move |name: &str| profile.variable(name, environment))
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
