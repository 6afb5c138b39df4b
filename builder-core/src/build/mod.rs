//! Drives everything.

mod request;

pub use request::{BuildRequest, BuildResult, ContextSource, PullPolicy, SecretSource};
