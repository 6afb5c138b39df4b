//! `rbuild prune`: space that nothing needs.
//!
//! | command | images | build cache |
//! |---|---|---|
//! | `prune` | those without a name | stays, unless an option says what goes |
//! | `prune --all` | those without a name | all |
//! | `image prune`, `image prune --all` | those without a name; all | stays |
//! | `builder prune`, `cache prune` | none | as `prune` |

use std::io::BufRead as _;

use builder_core::build::images::{PruneOptions, Removed};
use builder_core::build::{CacheItem, Policy, PruneRequest};
use builder_core::cancel::CancelToken;

use super::{Outcome, cache_items, print};
use crate::args::PruneArgs;
use crate::cache_filter::Filters;
use crate::command_error::CommandError;
use crate::request::values;
use crate::session::Session;
use crate::signals::Signals;
use crate::ui::{self, escape, units};

pub(super) fn run(session: &Session, args: &PruneArgs) -> Outcome {
    let (mut request, filters) = request(args)?;
    if !args.force && !confirmed(&request)? {
        return print("Total reclaimed space: 0B\n");
    }
    let engine = session.engine()?;
    let cancel = CancelToken::new();
    let signals = Signals::watch(&cancel)?;
    let failed = |error| signals.explain(CommandError::diagnostic(&error));
    if let Some(policy) = &mut request.cache {
        policy.filter = filters.for_policy();
    }
    let mut pruned = engine.prune(&request, &cancel).map_err(failed)?;
    let mut text = String::new();
    if !pruned.images.is_empty() {
        text.push_str("Deleted Images:\n");
        text.extend(pruned.images.iter().map(|removed| match removed {
            // Docker writes these in small letters here, unlike `rmi`.
            Removed::Untagged(name) => format!("untagged: {name}\n"),
            Removed::Deleted(id) => format!("deleted: {id}\n"),
            Removed::DeletedLayer(id) => format!("deleted: {id}\n"),
        }));
        text.push('\n');
    }
    if !pruned.items.is_empty() {
        text.push_str(&format!("Deleted build cache: {}\n", units::count(pruned.items.len(), "item")));
        if args.verbose {
            // Without the history a step is called as far as its record says.
            let _ = engine.count_uses(&mut pruned.items);
            text.extend(pruned.items.iter().map(line));
        }
        text.push('\n');
    }
    if args.cache_only && request.cache.is_none() {
        ui::note("results of steps stay: `--all`, a filter or a limit says which go");
    }
    text.push_str(&format!("Total reclaimed space: {}\n", units::size(pruned.bytes)));
    print(text)
}

fn line(item: &CacheItem) -> String {
    let id = item.id.get(..cache_items::SHORT).unwrap_or(&item.id);
    format!("{id}  {:>8}  {}\n", units::size(item.own_size()), escape::line(&item.description))
}

fn request(args: &PruneArgs) -> Result<(PruneRequest, Filters), CommandError> {
    let mut images = PruneOptions { all: args.images_only && args.all, ..PruneOptions::default() };
    let mut cache = Vec::new();
    for text in &args.filter {
        match text.split_once('=') {
            Some(("until" | "unused-for", value)) => {
                images.until = Some(units::until(value)?);
                cache.push(text.clone());
            }
            Some(("label", value)) if !args.cache_only => images.labels.push(value.to_owned()),
            _ if args.images_only => {
                return Err(CommandError::usage(format!("unknown filter `{text}`"))
                    .with_hint("the filters are `until=24h` and `label=KEY[=VALUE]`"));
            }
            _ => cache.push(text.clone()),
        }
    }
    let filters = Filters::parse(&cache)?;
    let space =
        |option: &str, text: &Option<String>| text.as_deref().map(|text| values::space(option, text)).transpose();
    let policy = Policy {
        keep_duration: args.keep_duration.as_deref().map(|text| values::keep("--keep-duration", text)).transpose()?,
        max_used_space: space("--max-used-space", &args.max_used_space)?,
        reserved_space: space("--reserved-space", &args.reserved_space)?,
        min_free_space: space("--min-free-space", &args.min_free_space)?,
        ..Policy::default()
    };
    let limited = policy != Policy::default();
    if args.images_only && limited {
        return Err(CommandError::usage("limits of space and time are for the build cache")
            .with_hint("images: `--filter until=24h`; the build cache: `rbuild builder prune`"));
    }
    let asked = (args.all || limited || !filters.is_empty()) && !args.images_only;
    let request = PruneRequest { images: (!args.cache_only).then_some(images), cache: asked.then_some(policy) };
    Ok((request, filters))
}

fn confirmed(request: &PruneRequest) -> Result<bool, CommandError> {
    let mut text = String::from("This will remove:\n");
    match &request.images {
        Some(PruneOptions { all: true, .. }) => text.push_str("  - all images\n"),
        Some(_) => text.push_str("  - images without a name\n"),
        None => {}
    }
    text.push_str(match &request.cache {
        None => "",
        Some(policy) if *policy == Policy::default() => "  - what the options name of the build cache\n",
        Some(_) => "  - the build cache, as far as it is over the limits\n",
    });
    text.push_str(
        "  - files that neither an image nor the build cache needs\nAre you sure you want to continue? [y/N] ",
    );
    ui::print_error(&text);
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| CommandError::io("cannot read the answer", &error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use builder_core::build::Space;

    use super::*;

    #[test]
    fn options_decide_what_goes() {
        let cache = |args: PruneArgs| request(&args).map(|(request, _)| request.cache);
        let args = PruneArgs::default();
        assert_eq!(cache(args.clone()).expect("valid"), None);
        let everything = Some(Policy::default());
        assert_eq!(cache(PruneArgs { all: true, ..args.clone() }).expect("valid"), everything);
        assert_eq!(cache(PruneArgs { all: true, images_only: true, ..args.clone() }).expect("valid"), None);
        assert_eq!(
            cache(PruneArgs { filter: vec!["until=1h".to_owned()], ..args.clone() }).expect("valid"),
            everything
        );
        let limited = PruneArgs { max_used_space: Some("1k".to_owned()), ..args.clone() };
        let limit = Some(Policy { max_used_space: Some(Space::Bytes(1024)), ..Policy::default() });
        assert_eq!(cache(limited.clone()).expect("valid"), limit);
        assert!(cache(PruneArgs { images_only: true, ..limited }).is_err());
        assert!(cache(PruneArgs { filter: vec!["color=red".to_owned()], ..args.clone() }).is_err());
        assert!(cache(PruneArgs { min_free_space: Some("101%".to_owned()), ..args.clone() }).is_err());
        assert!(request(&PruneArgs { cache_only: true, ..args }).is_ok_and(|(request, _)| request.images.is_none()));
    }
}
