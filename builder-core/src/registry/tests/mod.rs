//! The client against a server that does everything wrong that a server can do.

mod auth;
mod pull;
mod push;
mod server;

use std::time::Duration;

use self::server::{Reply, Seen, Server};
use super::*;
use crate::cancel::CancelToken;
use crate::oci::{Descriptor, MediaType, Reference};

/// A client that does not wait long.
fn quick() -> RegistryConfig {
    RegistryConfig { stall_timeout: Duration::from_millis(500), attempts: 3, ..RegistryConfig::default() }
}

fn client() -> Registry {
    Registry::new(quick())
}

fn image(server: &Server) -> Reference {
    format!("{}/team/app:1", server.host()).parse().expect("a reference")
}

fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::of(MediaType::OCI_LAYER_GZIP, bytes)
}

/// Bytes that differ everywhere, so that a piece in the wrong place is noticed.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251).to_le_bytes()[0]).collect()
}

fn never() -> CancelToken {
    CancelToken::new()
}
