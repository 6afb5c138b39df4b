//! `testdata/graphs/NAME.Dockerfile` and what becomes of it in `NAME.snap`. Options stand in comments:
//! `# option: target=build`.

use std::path::Path;

use super::super::*;
use super::{options, render, try_lower};

#[test]
fn the_corpus_lowers_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/graphs");
    let entries = std::fs::read_dir(&folder).expect("the corpus is there");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("readable").file_name().into_string().expect("ASCII"))
        .filter_map(|name| name.strip_suffix(".Dockerfile").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() > 10, "the corpus is not empty");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(&folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.add_filter("[0-9a-f]{56}\\b", "…");
    for name in names {
        let text = std::fs::read_to_string(folder.join(format!("{name}.Dockerfile"))).expect("readable");
        let shown = match try_lower(&text, &options_of(&text)) {
            Ok(graph) => render::graph(&graph),
            Err(errors) => render::errors(&errors),
        };
        settings.bind(|| insta::assert_snapshot!(name, shown));
    }
}

fn options_of(text: &str) -> Options {
    let mut options = options();
    for option in text.lines().filter_map(|line| line.strip_prefix("# option: ")) {
        let (key, value) = option.split_once('=').expect("key=value");
        let pair = || value.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).expect("a pair");
        match key {
            "target" => options.target = Some(value.to_owned()),
            "build-arg" => options.build_args.extend([pair()]),
            "label" => options.labels.extend([pair()]),
            "platform" => {
                options.platform = value.parse().expect("a platform");
                options.explicit_platform = true;
            }
            "names" => options.name_platform = value == "platform",
            "context" => {
                let context = match pair().1.strip_prefix("docker-image://") {
                    Some(image) => NamedContext::Image(image.parse().expect("a reference")),
                    None => NamedContext::Directory,
                };
                options.contexts.insert(pair().0, context);
            }
            "no-cache" => options.no_cache = NoCache::Stages(vec![value.to_owned()]),
            "hostname" => options.hostname = Some(value.to_owned()),
            "add-host" => options.add_hosts.push(pair()),
            other => panic!("no option {other}"),
        }
    }
    options
}
