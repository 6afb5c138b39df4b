//! The client of the distribution API: resolve, pull, push, and the credentials for it.
//!
//! ```text
//! Reference ─▶ endpoints (mirrors, then the registry) ─▶ request ─▶ authorization ─▶ redirects ─▶ one exchange
//!                                      retry, back-off ──┘    token, 401 again ──┘  no credentials elsewhere ──┘
//! ```
//!
//! - Nothing is built before the first request: no connection, no TLS roots, no reading of credentials.
//! - Calls block, can be made from any thread, and end soon after their [`CancelToken`](crate::cancel::CancelToken)
//!   is cancelled, even while they wait for the network.
//! - Every byte that comes in is hashed, and its number is known before; a header is never believed.
//! - Credentials go to the registry that they are for, over the scheme that it was asked with, and nowhere else.
//!
//! Source: distribution-spec 1.1; the token protocol of <https://distribution.github.io/distribution/spec/auth/>.

mod auth;
mod challenge;
mod client;
mod config;
mod connection;
mod credentials;
mod download;
mod endpoint;
mod error;
mod login;
mod manifest;
mod pull;
mod push;
mod push_image;
mod retry;
mod sending;
mod url;

pub use client::Registry;
pub(crate) use client::is_temporary;
pub use config::{ProxyConfig, RegistryConfig};
pub use credentials::Credential;
pub(crate) use download::{Download, DownloadError, Outgoing, OutgoingBody, unescaped};
pub use error::RegistryError;
pub use login::CredentialPlace;
pub use manifest::{Resolved, Selected};
pub(crate) use manifest::{choose, platforms};
pub use pull::{BlobStream, StoringStream};
pub use push::BlobSource;
pub use push_image::{BlobToPush, ImageToPush, TransferEvent};
pub use retry::Waits;
pub(crate) use retry::{Backoff, retry_after};

#[cfg(test)]
mod tests;
