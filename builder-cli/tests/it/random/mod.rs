//! Random projects and random changes: a build with a store that has seen much is the build with a store that has seen
//! nothing, no step runs where nothing changed, and explanations speak of what was changed.
//!
//! `RBUILD_RANDOM_SEED` and `RBUILD_RANDOM_ROUNDS` make it long; `RBUILD_RANDOM_SECONDS` ends it then. It works in memory,
//! or in the directory `RBUILD_RANDOM_DIR`. A failed round prints the variables for that round alone, and what it left is
//! copied to the directory `RBUILD_RANDOM_KEEP`. `RBUILD_RANDOM_VERIFY` is the share of builds in percent that verify the
//! cache besides, `RBUILD_RANDOM_DISTURB` how many more times something happens to the store between them, `RBUILD_RANDOM_THEME` what
//! changes more than the rest (0 files, 1 a clock, 2 images, 3 addresses and secrets, 4 options). With `RBUILD_RANDOM_FIRST` the first failure ends it.

pub(crate) mod dice;
mod files;
mod image;
mod instructions;
mod project;
mod reasons;
mod sources;
mod step;
mod world;

use std::time::{Duration, Instant};

use crate::env::require_sandbox;
use dice::Dice;
use world::{Figures, World};

/// Steps of a round: each some changes and a build or more.
const STEPS: usize = 10;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_store_that_has_seen_much_builds_what_an_empty_one_does() {
    if require_sandbox("a_store_that_has_seen_much_builds_what_an_empty_one_does") {
        hunt(false, 2);
    }
}

#[test]
fn a_large_context_that_changes_a_little_builds_what_an_empty_store_does() {
    if require_sandbox("a_large_context_that_changes_a_little_builds_what_an_empty_store_does") {
        hunt(true, 1);
    }
}

#[expect(clippy::print_stdout, reason = "what a long run has done so far, and how to repeat what failed")]
fn hunt(large: bool, rounds: u64) {
    let first = number("RBUILD_RANDOM_SEED").unwrap_or(20);
    let rounds = number("RBUILD_RANDOM_ROUNDS").unwrap_or(rounds);
    let only_first = std::env::var_os("RBUILD_RANDOM_FIRST").is_some();
    let limit = number("RBUILD_RANDOM_SECONDS").map_or(Duration::MAX, Duration::from_secs);
    let (begun, mut failed, mut figures) = (Instant::now(), Vec::new(), Figures::default());
    for seed in first..first.saturating_add(rounds) {
        if begun.elapsed() > limit {
            break;
        }
        let mut world = World::new(Dice::new(seed), large);
        let outcome = (0..STEPS).try_for_each(|_| world.step());
        figures.add(&world.figures);
        if let Err(error) = outcome {
            let kept = world.keep(seed);
            let line = format!("RBUILD_RANDOM_SEED={seed} RBUILD_RANDOM_ROUNDS=1 {kept}");
            println!("{line}\n{}\n{error}\n", world.log());
            failed.push(line);
            if only_first {
                break;
            }
        }
        if seed % 20 == 19 {
            println!("{:?} after {} s: {figures:?}", seed, begun.elapsed().as_secs());
        }
    }
    println!("{figures:?}");
    assert!(failed.is_empty(), "{} rounds failed:\n{}", failed.len(), failed.join("\n"));
    assert!(figures.compared > figures.failed, "most builds succeed: {figures:?}");
}
