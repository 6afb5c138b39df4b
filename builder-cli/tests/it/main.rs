//! Drives the real `rbuild` against a real registry, a file for each feature.
#![expect(clippy::format_collect, reason = "short texts, read once")]

mod addresses;
mod arguments;
mod build;
mod cache;
mod cases;
mod check;
mod concurrency;
mod container;
mod contexts;
mod copy;
mod debug;
mod dockerfile_errors;
mod env;
mod frugality;
mod full_disk;
mod git;
mod help;
mod history;
mod hostile;
mod outputs;
mod platforms;
mod progress;
mod pty;
mod push_pull;
mod registry;
mod remote_cache;
mod rights;
mod rootless;
mod run_step;
mod signals;
mod ssh;
mod store;
mod tidy;
mod time;
mod web;
