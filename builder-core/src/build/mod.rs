//! Drives everything.

pub mod images;
mod request;

pub use request::{BuildRequest, BuildResult, ContextSource, PullPolicy, SecretSource};
