//! A store with 100,000 cached steps: opening it, looking a step up, and listing everything (what pruning does).

use std::hint::black_box;

use builder_core::build::{Engine, EngineOptions};
use builder_core::cache::{Preimage, Record};
use builder_core::cancel::CancelToken;
use builder_core::registry::RegistryConfig;
use builder_core::tree::Tree;
use criterion::{Criterion, criterion_group, criterion_main};

const STEPS: u64 = 100_000;

fn record(number: u64) -> Record {
    let mut preimage = Preimage::new("run");
    preimage.add("platform", "linux/amd64");
    for (name, value) in [("argument 0", "/bin/sh"), ("argument 1", "-c")] {
        preimage.add(name, value);
    }
    preimage.add("argument 2", format_args!("make -C /src/{number} install"));
    preimage.add("env PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    preimage.add("root", blake3::hash(&number.to_le_bytes()).to_hex());
    let tree = Tree::empty();
    Record {
        preimage,
        tree: tree.id(),
        semantic: tree.semantic(),
        created: 1_700_000_000,
        milliseconds: Some(1200),
        ran: None,
    }
}

fn cache(criterion: &mut Criterion) {
    let state = tempfile::tempdir().expect("temporary directory");
    let open = || {
        let options = EngineOptions {
            state: state.path().to_owned(),
            registry: RegistryConfig::default(),
            git: builder_core::git::GitEnvironment::default(),
        };
        Engine::open(options).expect("opens")
    };
    let engine = open();
    engine.trees().put(&Tree::empty()).expect("stored");
    for number in 0..STEPS {
        engine.cache().put(&record(number)).expect("stored");
    }
    let mut group = criterion.benchmark_group("100,000 cached steps");
    group.bench_function("open", |bencher| bencher.iter(|| black_box(open())));
    let mut number = 0;
    group.bench_function("look up", |bencher| {
        bencher.iter(|| {
            number = (number + 7919) % STEPS;
            engine.cache().get(&record(number).preimage.key()).expect("readable").expect("known")
        });
    });
    group.sample_size(10);
    group.bench_function("list", |bencher| {
        bencher.iter(|| engine.cache_items(&CancelToken::new()).expect("listed").len());
    });
    group.finish();
}

criterion_group!(benches, cache);
criterion_main!(benches);
