//! What `SOURCE_DATE_EPOCH` means.

use super::super::*;
use super::{lowered_with, options, parsed};

fn source(text: &str, given: Option<&str>) -> Result<Option<EpochSource>, String> {
    let mut options = options();
    options.contexts.insert("src".to_owned(), NamedContext::Directory);
    options.contexts.insert("base".to_owned(), NamedContext::Image("alpine".parse().expect("a name")));
    options.build_args.extend(given.map(|value| ("SOURCE_DATE_EPOCH".to_owned(), value.to_owned())));
    epoch_source(&parsed(text), &options).map_err(|errors| errors.first().to_string())
}

#[test]
fn a_name_is_a_context_or_a_stage() {
    let plain = "FROM scratch";
    for none in ["", "0", "1700000000", "-5"] {
        assert_eq!(source(plain, Some(none)), Ok(None), "{none}");
    }
    assert_eq!(source(plain, None), Ok(None));
    assert_eq!(source(plain, Some("context")), Ok(Some(EpochSource::Context(ContextId::Main))));
    assert_eq!(source(plain, Some("SRC")), Ok(Some(EpochSource::Context(ContextId::Named("src".into())))));
    assert_eq!(source(plain, Some("base")), Ok(Some(EpochSource::Nothing)));
    assert_eq!(source(plain, Some("other")), Err("`other` is no value for SOURCE_DATE_EPOCH".to_owned()));
    let default = "ARG W=context\nARG SOURCE_DATE_EPOCH=$W\nFROM scratch";
    assert_eq!(source(default, None), Ok(Some(EpochSource::Context(ContextId::Main))));
    assert_eq!(source(default, Some("7")), Ok(None));
    assert_eq!(source(default, Some("")), Ok(None));
}

#[test]
fn a_stage_has_the_time_of_what_it_fetches() {
    let stage = |body: &str| source(&format!("ARG V=1\nFROM scratch AS From\n{body}\nFROM scratch"), Some("from"));
    let http = |address: &str| Ok(Some(EpochSource::Remote(AddSource::Http(address.to_owned()))));
    assert_eq!(stage("ADD http://h/a-$V.tar /"), http("http://h/a-1.tar"));
    assert_eq!(stage("ARG V=2\nADD http://h/a-$V.tar /"), http("http://h/a-2.tar"));
    let address = "https://h/a.git#v1";
    let wanted = crate::git::Wanted::new(crate::git::Address::parse(address).expect("git").expect("valid"));
    let git = AddSource::Git(address.to_owned(), Box::new(wanted));
    assert_eq!(stage("ADD https://h/a.git#v1 /"), Ok(Some(EpochSource::Remote(git))));
    for (body, reason) in [
        ("", "it has no ADD"),
        ("ADD a /", "its ADD does not fetch anything"),
        ("ADD http://h/a http://h/b /", "its ADD has more than one source"),
        ("ADD http://h/a /\nADD http://h/b /", "it has more than one ADD"),
        ("ADD http://h/a /\nRUN x", "it has other instructions than ARG and ADD"),
    ] {
        assert_eq!(stage(body), Err(format!("the stage has no time for SOURCE_DATE_EPOCH: {reason}")), "{body}");
    }
    assert!(source("FROM alpine:3.20 AS from\nADD http://h/a /\nFROM scratch", Some("from")).is_err());
}

#[test]
fn what_it_came_to_is_what_the_file_sees() {
    let with = |resolved, given: Option<&str>| {
        let mut options = Options { resolved_epoch: Some(resolved), ..options() };
        options.build_args.extend(given.map(|value| ("SOURCE_DATE_EPOCH".to_owned(), value.to_owned())));
        let text = "ARG SOURCE_DATE_EPOCH=context\nFROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL t=x$SOURCE_DATE_EPOCH";
        let graph = lowered_with(text, &options);
        (graph.source_date_epoch, graph.target.config.config.labels["t"].clone())
    };
    for given in [None, Some("context")] {
        assert_eq!(with(ResolvedEpoch::At(9), given), (Some(9), "x9".to_owned()));
        assert_eq!(with(ResolvedEpoch::Unset, given), (None, "x".to_owned()));
    }
}
