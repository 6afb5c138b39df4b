//! A build with a context of 50,000 files, nothing changed and one file changed, late in the tar of its layer or early: the whole process, beside one walk over the
//! context that asks the kernel for every entry with two threads and does nothing else.
//!
//! `cargo bench -p builder-cli --bench unchanged_context` prints the shortest and the median time of each, in turns, so that
//! what else the machine does meets all of them.

#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

const DIRECTORIES: usize = 500;

/// Files in one directory.
const WIDTH: usize = 100;

const ROUNDS: usize = 25;

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let folder = tempfile::tempdir().expect("temporary directory");
    let context = folder.path().join("context");
    plant(&context);
    let build = || build(&context, &folder.path().join("state"));
    build();
    build();
    assert_eq!(walk(&context), DIRECTORIES * (WIDTH + 1) + 3);

    // Of the tar of the layer all is hashed that is after the file.
    let places = [("late", "src/d7/file7.txt"), ("in the middle", "src/d300/file7.txt"), ("first", "src/d0/file0.txt")];
    let change = |path, round: &str| {
        fs::write(context.join(path), format!("round {round}\n")).expect("written");
        std::thread::sleep(Duration::from_millis(30));
    };
    // The first change of a place leaves what later ones begin from.
    for (_, path) in places {
        change(path, "none");
        build();
    }
    let (mut walks, mut unchanged, mut changed) = (Vec::new(), Vec::new(), places.map(|_| Vec::new()));
    for round in 0..ROUNDS {
        walks.push(time(|| _ = black_box(walk(&context))));
        build();
        unchanged.push(time(build));
        for ((_, path), times) in places.iter().zip(&mut changed) {
            change(path, &round.to_string());
            times.push(time(build));
        }
    }
    let walk = report("walk, two threads", &mut walks, None);
    report("nothing changed", &mut unchanged, Some(walk));
    for ((place, path), times) in places.iter().zip(&mut changed) {
        report(&format!("one file changed, {place}"), times, Some(walk));
        // The digest of the layer is one of its tar, which cannot be had without hashing what is after the file.
        let rest = rest_of_tar(path);
        let mut hashing: Vec<Duration> = (0..ROUNDS).map(|_| time(|| _ = black_box(hash(rest)))).collect();
        hashing.sort_unstable();
        let hashing = hashing[ROUNDS / 2];
        for time in &mut *times {
            *time = time.saturating_sub(hashing);
        }
        let kilobytes = rest / 1000;
        report(&format!("  but for hashing {kilobytes} kB of tar"), times, Some(walk));
    }
}

/// Bytes of the tar of the layer from a file on: a header for each entry, and a block for each file.
fn rest_of_tar(path: &str) -> usize {
    let mut names: Vec<String> = (0..DIRECTORIES)
        .flat_map(|directory| {
            let files = (0..WIDTH).map(move |file| format!("src/d{directory}/file{file}.txt"));
            std::iter::once(format!("src/d{directory}/")).chain(files)
        })
        .collect();
    names.sort_unstable();
    let from = names.partition_point(|name| name.as_str() < path);
    names[from..].iter().map(|name| if name.ends_with('/') { 512 } else { 1024 }).sum()
}

fn hash(length: usize) -> builder_core::oci::Digest {
    let piece = vec![7; 128 << 10];
    let mut hasher = builder_core::oci::Hasher::default();
    let mut left = length;
    while left > 0 {
        let now = left.min(piece.len());
        hasher.update(&piece[..now]);
        left -= now;
    }
    hasher.finish()
}

fn plant(context: &Path) {
    for directory in 0..DIRECTORIES {
        let path = context.join(format!("src/d{directory}"));
        fs::create_dir_all(&path).expect("made");
        for file in 0..WIDTH {
            fs::write(path.join(format!("file{file}.txt")), format!("{directory} {file}\n")).expect("written");
        }
    }
    fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY . /\n").expect("written");
    fs::write(context.join("README"), "").expect("written");
}

fn build(context: &Path, state: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
    command.args(["build", "-q", "-t", "bench:1", "--root"]).arg(state).arg(context).stdout(Stdio::null());
    assert!(command.status().expect("started").success());
}

fn time(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// Prints a line; gives the shortest and the median time.
fn report(name: &str, times: &mut [Duration], walk: Option<(Duration, Duration)>) -> (Duration, Duration) {
    times.sort_unstable();
    let (shortest, median) = (times[0], times[times.len() / 2]);
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let ratio = walk.map(|(least, usual)| {
        let (least, usual) = (shortest.as_secs_f64() / least.as_secs_f64(), median.as_secs_f64() / usual.as_secs_f64());
        format!("   {least:.2} and {usual:.2} times the walk")
    });
    let ratio = ratio.unwrap_or_default();
    println!("{name:31} shortest {:6.1} ms, median {:6.1} ms{ratio}", milliseconds(shortest), milliseconds(median));
    (shortest, median)
}

/// Asks for every entry with two threads; gives how many there are.
fn walk(top: &Path) -> usize {
    let shared = (Mutex::new((vec![top.to_owned()], 0)), Condvar::new());
    std::thread::scope(|scope| {
        let other = scope.spawn(|| work(&shared));
        work(&shared) + other.join().expect("no panic")
    })
}

/// Takes directories that are still to do, and adds those found, until there are none and nobody can find more.
fn work((todo, changed): &(Mutex<(Vec<PathBuf>, usize)>, Condvar)) -> usize {
    let mut count = 0;
    let mut state = todo.lock().expect("no panic");
    loop {
        let Some(directory) = state.0.pop() else {
            if state.1 == 0 {
                return count;
            }
            state = changed.wait(state).expect("no panic");
            continue;
        };
        state.1 += 1;
        drop(state);
        let mut found = Vec::new();
        for entry in fs::read_dir(&directory).expect("readable") {
            let metadata = entry.as_ref().expect("an entry").metadata().expect("there");
            count += usize::from(black_box(metadata.len()) < u64::MAX);
            if metadata.is_dir() {
                found.push(entry.expect("an entry").path());
            }
        }
        state = todo.lock().expect("no panic");
        state.1 -= 1;
        state.0.append(&mut found);
        changed.notify_all();
    }
}
