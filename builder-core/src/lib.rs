//! Builds container images from Dockerfiles, in process and without a daemon.
//!
//! Dockerfile text becomes a plan, the plan becomes trees and snapshots, those become layers, layers become an image,
//! and the image goes somewhere. Each arrow is one module. They are declared in reading order, and a module uses only
//! modules that are declared above it (a test checks that).
//!
//! The library never prints, and reads neither the environment nor the current directory: whoever embeds it says
//! what it may know.

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
