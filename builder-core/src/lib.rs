//! Builds container images from Dockerfiles, in process and without a daemon.
//!
//! Dockerfile text becomes a plan, the plan becomes trees and snapshots, those become layers, layers become an image,
//! and the image goes somewhere. Each arrow is one module. They are declared in reading order, and a module uses only
//! modules that are declared above it (a test checks that).
//!
//! The library never prints, and reads neither the environment nor the current directory: whoever embeds it says
//! what it may know.
//!
//! # Where to begin
//!
//! - [`build::Engine::open`] opens a store, [`build::Engine::build`] builds a [`build::BuildRequest`] in it, and tells a
//!   [`progress::Sink`] what happens. Any number of builds, threads and processes share a store.
//! - Without root, [`executor::enter_user_namespace`] comes first, while the program has one thread.
//! - [`registry::RegistryConfig`] has mirrors, credentials and certificates; by default there are no credentials.
//!   `BuildRequest::resolv_conf` is what steps use to resolve names.
//! - An [`export::Output`] is where a result goes; [`remote::CacheSource`] and [`remote::CacheDestination`] are caches
//!   elsewhere. Both are parsed from what is typed on a command line.
//! - [`build::Engine::explain`] says why the steps of a build ran, [`build::Engine::forecast`] what a build would do;
//!   [`build::Engine::prune`] and [`build::Engine::collect_garbage`] give space back, the latter to be called after builds.
//! - Errors have their place and a hint through [`diagnostic::Diagnostic`], and [`diagnostic::chain`] makes one line of
//!   an error and its sources.
//! - A [`cancel::CancelToken`] ends a build from another thread.
//!
//! The examples `build_image` and `cached_build` are whole programs.

// Foundations.
#[allow(unsafe_code, reason = "kernel calls without a safe wrapper live here and nowhere else")]
pub mod sys;

pub(crate) mod lock;
pub(crate) mod reader;
pub(crate) mod small_file;
pub mod cancel;
pub mod diagnostic;
pub mod progress;
pub mod ssh;
pub mod oci;
pub mod rootfs;
pub mod tar;
pub mod tree;
pub mod content;
pub mod registry;

// The pipeline.
pub mod dockerfile;
pub mod context;
pub mod git;
pub mod pins;
pub mod graph;
pub mod snapshot;
pub mod cache;
pub mod history;
pub mod executor;
pub mod layer;
pub mod image;
pub mod export;
pub mod remote;
pub mod build;
