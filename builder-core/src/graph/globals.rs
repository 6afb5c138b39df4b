//! [`Globals`]: the arguments before the first `FROM`, and those that are always there.

use std::collections::BTreeSet;

use super::Options;
use super::env::Scope;
use super::error::GraphError;
use crate::diagnostic::Location;
use crate::dockerfile::{Dockerfile, Expander, InstructionKind};
use crate::oci::Platform;

/// Global scope: seen by `FROM`, and by an `ARG` of a stage that has no default of its own.
pub(super) struct Globals {
    scope: Scope,
    declared: BTreeSet<String>,
}

impl Globals {
    pub(super) fn new(
        dockerfile: &Dockerfile,
        options: &Options,
        target: &str,
        expander: &Expander,
        errors: &mut Vec<GraphError>,
    ) -> Self {
        let predefined = predefined(options, target);
        let mut scope = Scope::default();
        for (name, value) in &predefined {
            scope.set(name, options.build_args.get(*name).unwrap_or(value));
        }
        let mut declared: BTreeSet<String> = predefined.into_iter().map(|(name, _)| name.to_owned()).collect();
        for instruction in dockerfile.global_args() {
            let InstructionKind::Arg(arguments) = &instruction.kind else { continue };
            for argument in arguments {
                let name = &argument.name.text;
                declared.insert(name.clone());
                match (build_arg(options, name), &argument.default) {
                    (Some(value), _) => scope.set(name, &value),
                    (None, None) => {}
                    (None, Some(word)) => match expander.word(&word.text, &|name| scope.get(name).map(str::to_owned)) {
                        Ok(value) => scope.set(name, &value.text),
                        Err(error) => errors.push(
                            GraphError::new(error).at(Location { source: dockerfile.source.clone(), span: word.span }),
                        ),
                    },
                }
            }
        }
        Self { scope, declared }
    }

    pub(super) fn value(&self, name: &str) -> Option<String> {
        self.scope.get(name).map(str::to_owned)
    }

    pub(super) fn is_declared(&self, name: &str) -> bool {
        self.declared.contains(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.iter().map(String::as_str)
    }
}

/// The value that the caller gave an argument.
pub(super) fn build_arg(options: &Options, name: &str) -> Option<String> {
    let given = options.build_args.get(name);
    if name != "SOURCE_DATE_EPOCH" {
        return given.cloned();
    }
    match (given, options.source_date_epoch) {
        // Empty takes it back, as in BuildKit.
        (Some(value), _) => Some(value.clone()).filter(|value| !value.is_empty()),
        (None, epoch) => epoch.map(|epoch| epoch.to_string()),
    }
}

/// The arguments that every build has.
fn predefined(options: &Options, target: &str) -> Vec<(&'static str, String)> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let parts = |platform: &Platform| {
        (platform.to_string(), platform.os.clone(), text(&platform.os_version), platform.architecture.clone())
    };
    let (build, build_os, build_version, build_architecture) = parts(&options.build_platform);
    let (wanted, wanted_os, wanted_version, wanted_architecture) = parts(&options.platform);
    vec![
        ("BUILDPLATFORM", build),
        ("BUILDOS", build_os),
        ("BUILDOSVERSION", build_version),
        ("BUILDARCH", build_architecture),
        ("BUILDVARIANT", text(&options.build_platform.variant)),
        ("TARGETPLATFORM", wanted),
        ("TARGETOS", wanted_os),
        ("TARGETOSVERSION", wanted_version),
        ("TARGETARCH", wanted_architecture),
        ("TARGETVARIANT", text(&options.platform.variant)),
        ("TARGETSTAGE", target.to_owned()),
    ]
}

/// Arguments that are known without a declaration, so that nobody is warned that they were not used.
pub(super) fn is_predefined(name: &str) -> bool {
    is_proxy(name) || name.starts_with("BUILDKIT_") || name == "SOURCE_DATE_EPOCH" || predefined_names().contains(&name)
}

fn predefined_names() -> [&'static str; 11] {
    [
        "BUILDPLATFORM",
        "BUILDOS",
        "BUILDOSVERSION",
        "BUILDARCH",
        "BUILDVARIANT",
        "TARGETPLATFORM",
        "TARGETOS",
        "TARGETOSVERSION",
        "TARGETARCH",
        "TARGETVARIANT",
        "TARGETSTAGE",
    ]
}

/// The five proxies, in the order in which BuildKit gives them to a command.
const PROXIES: [(&str, &str); 5] = [
    ("HTTP_PROXY", "http_proxy"),
    ("HTTPS_PROXY", "https_proxy"),
    ("FTP_PROXY", "ftp_proxy"),
    ("NO_PROXY", "no_proxy"),
    ("ALL_PROXY", "all_proxy"),
];

fn is_proxy(name: &str) -> bool {
    PROXIES.iter().any(|(upper, _)| name.eq_ignore_ascii_case(upper))
}

/// The proxies that were given as build arguments, in upper and lower case, whatever case they were given in.
pub(super) fn proxies(options: &Options) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (upper, lower) in PROXIES {
        let mut given = options.build_args.iter().filter(|(name, _)| name.eq_ignore_ascii_case(upper));
        if let Some((_, value)) = given.next_back().filter(|(_, value)| !value.is_empty()) {
            pairs.push((upper.to_owned(), value.clone()));
            pairs.push((lower.to_owned(), value.clone()));
        }
    }
    pairs
}
