//! `--build-context NAME=VALUE`, and `--context-mode`.

use std::collections::BTreeMap;
use std::path::Path;

use builder_core::build::ContextSource;
use builder_core::context::ContextMode;
use builder_core::graph::NamedContext;
use builder_core::oci::{LayoutReference, Platform, Reference};

use clap::ValueEnum as _;

use super::{Result, values};
use crate::args::ContextModeArg;
use crate::command_error::CommandError;
use crate::config_file::ConfigFile;
use crate::environment::Environment;

/// Files by name, and what every name stands for.
type Contexts = (BTreeMap<String, ContextSource>, BTreeMap<String, NamedContext>);

pub(super) fn named(given: &[String], environment: &Environment) -> Result<Contexts> {
    let (mut sources, mut contexts) = Contexts::default();
    for text in given {
        let (name, value) = text
            .split_once('=')
            .filter(|(name, value)| !name.is_empty() && !value.is_empty())
            .ok_or_else(|| CommandError::usage(format!("build context `{text}` is not of the form `NAME=VALUE`")))?;
        check(name)?;
        let (context, source) = meaning(name, value, environment)?;
        contexts.insert(name.to_owned(), context);
        sources.extend(source.map(|source| (name.to_owned(), source)));
    }
    Ok((sources, contexts))
}

/// A name that no Dockerfile can use is a mistake. `NAME::PLATFORM` counts for one platform only.
fn check(name: &str) -> Result<()> {
    let (bare, platform) = name.split_once("::").map_or((name, None), |(bare, platform)| (bare, Some(platform)));
    let wrong = |reason: String| CommandError::usage(format!("name `{name}` of a build context: {reason}"));
    bare.to_lowercase().parse::<Reference>().map_err(|error| wrong(error.to_string()))?;
    match platform.map(str::parse::<Platform>) {
        Some(Err(error)) => Err(wrong(error.to_string())),
        _ => Ok(()),
    }
}

fn meaning(name: &str, value: &str, environment: &Environment) -> Result<(NamedContext, Option<ContextSource>)> {
    let image = value.strip_prefix("docker-image://").or_else(|| value.strip_prefix("container-image://"));
    if let Some(image) = image {
        let context =
            if image == "scratch" { NamedContext::Scratch } else { NamedContext::Image(values::reference(image)?) };
        return Ok((context, None));
    }
    if let Some(layout) = value.strip_prefix("oci-layout://") {
        let wrong = |error| CommandError::usage(format!("build context `{name}`: {error}"));
        let layout: LayoutReference = layout.parse().map_err(wrong)?;
        let directory = environment.absolute(&layout.directory);
        return Ok((NamedContext::Layout(LayoutReference { directory, ..layout }), None));
    }
    if let Some(remote) = super::remote(value)? {
        return Ok((NamedContext::Directory, Some(ContextSource::Remote(remote))));
    }
    if let Some(target) = value.strip_prefix("target:") {
        return Err(CommandError::usage(format!("build context `{name}`: `target:` names a target of a bake file"))
            .with_hint(format!("build `{target}` first with a tag, and give `docker-image://TAG`")));
    }
    if value.contains("://") || value.starts_with("input:") || value == "-" {
        return Err(CommandError::usage(format!("build context `{name}`: `{value}` is of an unknown kind")).with_hint(
            "give a directory, `docker-image://NAME`, `oci-layout://DIRECTORY`, a web address or a git repository",
        ));
    }
    let path = environment.absolute(Path::new(value));
    if !path.is_dir() {
        return Err(CommandError::failed(format!("build context `{name}`: `{value}` is not a directory")));
    }
    let ignore_files = vec![path.join(".dockerignore")];
    Ok((NamedContext::Directory, Some(ContextSource::Directory { path, ignore_files })))
}

/// Which rights of files count, as the command line says, else the environment, else the configuration file.
pub(super) fn mode(
    given: Option<ContextModeArg>,
    environment: &Environment,
    config: &ConfigFile,
) -> Result<ContextMode> {
    let mode = match (given, environment.get("RBUILD_CONTEXT_MODE")) {
        (Some(mode), _) => Some(mode),
        (None, Some(text)) => Some(ContextModeArg::from_str(text, false).map_err(|_| {
            CommandError::usage(format!("RBUILD_CONTEXT_MODE is `{text}`, which is not a mode of contexts"))
                .with_hint("the modes are docker, git")
        })?),
        (None, None) => config.context_mode(),
    };
    Ok(match mode {
        Some(ContextModeArg::Git) => ContextMode::Git,
        Some(ContextModeArg::Docker) | None => ContextMode::Docker,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use builder_core::build::RemoteContext;

    fn one(text: &str) -> std::result::Result<(NamedContext, Option<ContextSource>), String> {
        let found = named(&[text.to_owned()], &Environment::with(&[]));
        let (mut sources, contexts) = found.map_err(|error| error.to_string())?;
        let (name, context) = contexts.into_iter().next().expect("one");
        Ok((context, sources.remove(&name)))
    }

    // Rows: B6, E10.
    #[test]
    fn values_are_directories_images_and_addresses() {
        let directory = ContextSource::Directory { path: "/".into(), ignore_files: vec!["/.dockerignore".into()] };
        let remote = |remote| (NamedContext::Directory, Some(ContextSource::Remote(remote)));
        let address = "https://h/x.tar";
        let layout = LayoutReference { directory: "/l".into(), tag: Some("v".to_owned()), digest: None };
        for (text, expected) in [
            ("a=/", (NamedContext::Directory, Some(directory))),
            ("a=docker-image://b", (NamedContext::Image("b".parse().expect("valid")), None)),
            ("a=container-image://b", (NamedContext::Image("b".parse().expect("valid")), None)),
            ("a=docker-image://scratch", (NamedContext::Scratch, None)),
            ("docker.io/library/a:1::linux/arm64=oci-layout:///l:v", (NamedContext::Layout(layout), None)),
            ("a=https://h/x.tar", remote(RemoteContext::Url(address.to_owned()))),
            ("a=https://h/x.git#v1", remote(RemoteContext::parse("https://h/x.git#v1").expect("valid").expect("git"))),
        ] {
            assert_eq!(one(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, expected) in [
            ("a", "build context `a` is not of the form `NAME=VALUE`"),
            ("a=", "build context `a=` is not of the form `NAME=VALUE`"),
            ("a b=/", "name `a b` of a build context: invalid reference `a b`: the repository name is not valid"),
            ("a=target:b", "build context `a`: `target:` names a target of a bake file"),
            ("a=input:b", "build context `a`: `input:b` is of an unknown kind"),
            ("a=s3://b", "build context `a`: `s3://b` is of an unknown kind"),
            ("a=/dev/null", "build context `a`: `/dev/null` is not a directory"),
            ("a=docker-image://B", "invalid reference `B`: the repository name must be lowercase"),
        ] {
            assert_eq!(one(text).expect_err(text), expected);
        }
        assert!(one("a::nonsense/b/c/d=/").is_err());
    }
}
