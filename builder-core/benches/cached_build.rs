//! A build in which nothing changed, in one process: 20 steps, and a COPY of many files.

use builder_core::build::{BuildRequest, ContextSource, Engine, EngineOptions};
use builder_core::cancel::CancelToken;
use builder_core::diagnostic::Source;
use builder_core::export::Output;
use builder_core::git::GitEnvironment;
use builder_core::progress::Silent;
use builder_core::registry::RegistryConfig;
use criterion::{Criterion, criterion_group, criterion_main};

fn build(state: &std::path::Path, request: &BuildRequest) {
    // A new engine each time, as each command has one.
    let options =
        EngineOptions { state: state.to_owned(), registry: RegistryConfig::default(), git: GitEnvironment::default() };
    let engine = Engine::open(options).expect("opens");
    engine.build(request, &Silent, &CancelToken::new()).expect("builds");
}

fn cached(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (state, context) = (directory.path().join("state"), directory.path().join("context"));
    std::fs::create_dir_all(context.join("tree")).expect("made");
    for number in 0..5_000 {
        std::fs::write(context.join("tree").join(number.to_string()), number.to_string()).expect("written");
    }
    let steps = (0..19).map(|number| format!("WORKDIR /w{number}")).collect::<Vec<_>>().join("\n");
    for (name, dockerfile) in [
        ("20 steps", format!("FROM scratch\nCOPY tree/1 /one\n{steps}")),
        ("5000 files", "FROM scratch\nCOPY tree /tree\n".to_owned()),
    ] {
        let source = ContextSource::Directory { path: context.clone(), ignore_files: Vec::new() };
        let mut request = BuildRequest::new(Source::new("Dockerfile", dockerfile.into_bytes()), source);
        request.outputs.push(Output::store(vec!["bench".parse().expect("valid")]));
        build(&state, &request);
        criterion.bench_function(&format!("cached build, {name}"), |bencher| bencher.iter(|| build(&state, &request)));
    }
}

criterion_group!(benches, cached);
criterion_main!(benches);
