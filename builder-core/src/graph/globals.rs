//! [`Globals`]: the arguments before the first `FROM`, and those that are always there.

use std::collections::BTreeMap;

use super::env::Scope;
use super::error::GraphError;
use super::outline::OutlineArg;
use super::stages::Input;
use super::{Options, ResolvedEpoch};
use crate::dockerfile::{ArgDeclaration, Instruction, InstructionKind};
use crate::oci::Platform;

/// The argument with the time of everything new (reproducible-builds.org).
pub(super) const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Global scope: seen by `FROM`, and by an `ARG` of a stage that has no default of its own.
pub(super) struct Globals {
    scope: Scope,
    /// What each name is; `None` for those that nobody declared but that are always there.
    declared: BTreeMap<String, Option<Declaration>>,
}

/// A global `ARG`.
pub(super) struct Declaration {
    pub(super) arg: OutlineArg,
    /// The arguments that its default uses.
    pub(super) used: Vec<String>,
}

impl Globals {
    pub(super) fn new(input: Input<'_>, target: &str, errors: &mut Vec<GraphError>) -> Self {
        let mut globals = Self { scope: Scope::default(), declared: BTreeMap::new() };
        for (name, value) in predefined(input.options, target) {
            globals.scope.set(name, input.options.build_args.get(name).unwrap_or(&value));
            globals.declared.insert(name.to_owned(), None);
        }
        for instruction in input.dockerfile.global_args() {
            let InstructionKind::Arg(arguments) = &instruction.kind else { continue };
            for argument in arguments {
                globals.declare(input, instruction, argument, errors);
            }
        }
        globals
    }

    fn declare(
        &mut self,
        input: Input<'_>,
        instruction: &Instruction,
        argument: &ArgDeclaration,
        errors: &mut Vec<GraphError>,
    ) {
        let name = &*argument.name.text;
        let mut used = Vec::new();
        let resolved = name == SOURCE_DATE_EPOCH && input.options.resolved_epoch.is_some();
        let value = match (build_arg(input.options, name), &argument.default) {
            // What it names was looked at, and has no time.
            (None, _) if resolved => None,
            (Some(value), _) => Some(value),
            (None, None) => None,
            (None, Some(word)) => match input.expander.word(&word.text, &|name| self.value(name)) {
                Ok(expanded) => {
                    used = expanded.used;
                    Some(expanded.text)
                }
                Err(error) => {
                    errors.push(GraphError::new(error).at(input.location(word.span)));
                    None
                }
            },
        };
        if let Some(value) = &value {
            self.scope.set(name, value);
        }
        // `ARG A=$A-more` goes on from an earlier one: what that one used counts too.
        if used.iter().any(|used| used == name)
            && let Some(Some(earlier)) = self.declared.get(name)
        {
            used.extend(earlier.used.clone());
        }
        let description = instruction.description(name).map(str::to_owned);
        let arg = OutlineArg { name: name.to_owned(), description, value, line: instruction.start_line() };
        self.declared.insert(name.to_owned(), Some(Declaration { arg, used }));
    }

    pub(super) fn declaration(&self, name: &str) -> Option<&Declaration> {
        self.declared.get(name)?.as_ref()
    }

    pub(super) fn value(&self, name: &str) -> Option<String> {
        self.scope.get(name).map(str::to_owned)
    }

    pub(super) fn into_scope(self) -> Scope {
        self.scope
    }

    pub(super) fn is_declared(&self, name: &str) -> bool {
        self.declared.contains_key(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.keys().map(String::as_str)
    }
}

/// The value that the caller gave an argument.
pub(super) fn build_arg(options: &Options, name: &str) -> Option<String> {
    let given = options.build_args.get(name);
    if name != SOURCE_DATE_EPOCH {
        return given.cloned();
    }
    match options.resolved_epoch {
        Some(ResolvedEpoch::At(seconds)) => return Some(seconds.to_string()),
        Some(ResolvedEpoch::Unset) => return None,
        None => {}
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
    is_proxy(name) || name.starts_with("BUILDKIT_") || name == SOURCE_DATE_EPOCH || predefined_names().contains(&name)
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
