//! Drives everything.

pub mod images;
pub mod op;
mod request;

pub use request::{BuildRequest, BuildResult, ContextSource, PullPolicy, SecretSource};
