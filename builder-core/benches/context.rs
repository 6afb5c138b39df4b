//! What a build pays for its context: a walk of 50,000 files with the index warm, beside nothing but `lstat`; one file
//! changed; and what 50 ignore patterns cost on 100,000 files.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use builder_core::build::op::copy::{Attributes, CopySource, plan};
use builder_core::context::{BuildContext, IgnoreSource, Match, Request};
use builder_core::diagnostic::Source;
use builder_core::graph::{ContextId, CopyOp, Files};
use builder_core::rootfs::RootPath;
use builder_core::tree::{Stack, Time};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

/// Files in one directory.
const WIDTH: usize = 20;

/// A context of `files` small files, three levels deep, and a state directory.
struct Tree {
    root: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl Tree {
    fn new(files: usize) -> Self {
        let make = || tempfile::tempdir().expect("temporary directory");
        let (root, state) = (make(), make());
        for directory in 0..files / WIDTH {
            let path = root.path().join(format!("module{}/part{}", directory / 50, directory % 50));
            fs::create_dir_all(&path).expect("made");
            for file in 0..WIDTH {
                fs::write(path.join(format!("source{file}.txt")), format!("{directory} {file}\n")).expect("written");
            }
        }
        // So that all of it is old enough to be trusted.
        std::thread::sleep(Duration::from_millis(50));
        Self { root, state }
    }

    /// Opens the context and selects all of it, as a build does.
    fn select(&self, ignore: &str) -> Vec<Match> {
        let ignore = IgnoreSource::Text(Source::new(".dockerignore", ignore.as_bytes()));
        let context = BuildContext::open(self.root.path(), &ignore, self.state.path()).expect("opened");
        context.select(&Request { source: ".", parents: false, exclude: &[] }).expect("selected")
    }
}

/// The least that a walk can do, on one thread.
fn lstat(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).expect("readable").map(|entry| entry.expect("an entry"));
    entries.map(|entry| if entry.metadata().expect("there").is_dir() { 1 + lstat(&entry.path()) } else { 1 }).sum()
}

fn patterns() -> String {
    let of = |number| format!("**/*.tmp{number}\nbuild{number}/cache\n");
    let most: String = (0..24).map(of).collect();
    most + "module3/part7\n!module3/part7/source1.txt\n"
}

fn unchanged(criterion: &mut Criterion) {
    let tree = Tree::new(50_000);
    tree.select("");
    let mut group = criterion.benchmark_group("context_50000");
    group.sample_size(20);
    group.bench_function("lstat", |bencher| bencher.iter(|| lstat(black_box(tree.root.path()))));
    group.bench_function("unchanged", |bencher| bencher.iter(|| tree.select("")));
    let file = tree.root.path().join("module1/part1/source1.txt");
    let mut round = 0;
    group.bench_function("one_changed", |bencher| {
        bencher.iter(|| {
            round += 1;
            fs::write(&file, format!("{round}")).expect("written");
            tree.select("")
        });
    });
    let selected = tree.select("");
    group.bench_function("plan", |bencher| {
        let copy = || vec![CopySource::Context(selected.clone())];
        let attributes = Attributes { owner: None, created: Time::default() };
        bencher.iter_batched(
            copy,
            |sources| plan(&operation(), sources, &Stack::default(), attributes).expect("planned"),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// `COPY . /app`
fn operation() -> CopyOp {
    CopyOp {
        add: false,
        from: Files::Context(ContextId::Main),
        sources: Vec::new(),
        destination: "/app".to_owned(),
        workdir: RootPath::root(),
        chown: None,
        chmod: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        checksum: None,
        unpack: None,
        keep_git_dir: None,
    }
}

fn ignored(criterion: &mut Criterion) {
    let tree = Tree::new(100_000);
    tree.select("");
    let patterns = patterns();
    let mut group = criterion.benchmark_group("context_100000");
    group.sample_size(20);
    group.bench_function("no_patterns", |bencher| bencher.iter(|| tree.select("")));
    group.bench_function("fifty_patterns_one_negated", |bencher| bencher.iter(|| tree.select(black_box(&patterns))));
    group.finish();
}

criterion_group!(benches, unchanged, ignored);
criterion_main!(benches);
