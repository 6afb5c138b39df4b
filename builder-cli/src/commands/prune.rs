//! `rbuild prune`: space that nothing needs.
//!
//! | command | images | results of steps |
//! |---|---|---|
//! | `prune` | those without a name | stay; with `--filter until=` the older ones go |
//! | `prune --all` | those without a name | all, and cache mounts |
//! | `image prune`, `image prune --all` | those without a name; all | stay |
//! | `builder prune` | none | as `prune` |

use std::io::BufRead as _;

use builder_core::build::images::{PruneOptions, Removed};
use builder_core::build::{PruneCache, PruneRequest};
use builder_core::cancel::CancelToken;

use super::{Outcome, print};
use crate::args::PruneArgs;
use crate::command_error::CommandError;
use crate::request::values;
use crate::session::Session;
use crate::signals::Signals;
use crate::ui::{self, units};

pub(super) fn run(session: &Session, args: &PruneArgs) -> Outcome {
    let request = request(args)?;
    if !args.force && !confirmed(&request)? {
        return print("Total reclaimed space: 0B\n");
    }
    let engine = session.engine()?;
    let cancel = CancelToken::new();
    let signals = Signals::watch(&cancel)?;
    let pruned = engine.prune(&request, &cancel).map_err(|error| signals.explain(CommandError::diagnostic(&error)))?;
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
    if pruned.records + pruned.mounts > 0 {
        text.push_str(&format!(
            "Deleted build cache: {} results of steps, {} cache mounts\n\n",
            pruned.records, pruned.mounts
        ));
    }
    text.push_str(&format!("Total reclaimed space: {}\n", units::size(pruned.bytes)));
    print(text)
}

fn request(args: &PruneArgs) -> Result<PruneRequest, CommandError> {
    let mut images = PruneOptions { all: args.images_only && args.all, ..PruneOptions::default() };
    for text in &args.filter {
        match text.split_once('=') {
            Some(("until", value)) => images.until = Some(units::until(value)?),
            Some(("label", value)) if !args.cache_only => images.labels.push(value.to_owned()),
            _ => {
                return Err(CommandError::usage(format!("unknown filter `{text}`"))
                    .with_hint("the filters are `until=24h` and, for images, `label=KEY[=VALUE]`"));
            }
        }
    }
    let limit = args.max_used_space.as_deref().map(|text| values::bytes("--max-used-space", text)).transpose()?;
    let cache = match (args.images_only, limit, images.until) {
        (true, Some(_), _) => return Err(CommandError::usage("--max-used-space is for the build cache")),
        (false, Some(_), Some(_)) => {
            return Err(CommandError::usage("--max-used-space and `--filter until=` exclude each other"));
        }
        (false, Some(limit), None) => PruneCache::Over(limit),
        (false, None, Some(time)) => PruneCache::Before(time),
        (false, None, None) if args.all => PruneCache::Everything,
        (true, None, _) | (false, None, None) => PruneCache::Nothing,
    };
    Ok(PruneRequest { images: (!args.cache_only).then_some(images), cache })
}

fn confirmed(request: &PruneRequest) -> Result<bool, CommandError> {
    let mut text = String::from("This will remove:\n");
    match &request.images {
        Some(PruneOptions { all: true, .. }) => text.push_str("  - all images\n"),
        Some(_) => text.push_str("  - images without a name\n"),
        None => {}
    }
    text.push_str(match request.cache {
        PruneCache::Nothing => "",
        PruneCache::Before(_) => "  - older results of steps\n",
        PruneCache::Over(_) => "  - the oldest results of steps\n",
        PruneCache::Everything => "  - the whole build cache\n",
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
    use super::*;

    #[test]
    fn options_decide_what_goes() {
        let args = PruneArgs {
            all: false,
            force: true,
            filter: Vec::new(),
            max_used_space: None,
            images_only: false,
            cache_only: false,
        };
        let cache = |args: PruneArgs| request(&args).map(|request| request.cache).ok();
        assert_eq!(cache(args.clone()), Some(PruneCache::Nothing));
        assert_eq!(cache(PruneArgs { all: true, ..args.clone() }), Some(PruneCache::Everything));
        assert_eq!(cache(PruneArgs { all: true, images_only: true, ..args.clone() }), Some(PruneCache::Nothing));
        let limited = PruneArgs { max_used_space: Some("1k".to_owned()), ..args.clone() };
        assert_eq!(cache(limited.clone()), Some(PruneCache::Over(1024)));
        assert_eq!(cache(PruneArgs { images_only: true, ..limited }), None);
        assert_eq!(cache(PruneArgs { filter: vec!["color=red".to_owned()], ..args.clone() }), None);
        assert!(request(&PruneArgs { cache_only: true, ..args }).is_ok_and(|request| request.images.is_none()));
    }
}
