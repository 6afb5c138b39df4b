//! What `--ssh` hands to steps: the agent of the caller, or one of our own that holds keys from files.
//!
//! ```text
//!  step ── socket ──► serve: connections ──► filter ──► the caller's agent   SshSource::Agent
//!                                        ├──────────► keys, in this process  SshSource::Keys
//!                                        └──────────► any socket, unfiltered SshSource::Raw
//! ```
//!
//! - `protocol` is the agent protocol, as far as it is let through: to list keys, and to sign. A step can neither add nor
//!   remove keys, nor lock the agent, nor use its extensions.
//! - `key` reads private keys and signs with them.
//! - [`serve`] answers on sockets while something runs.
//!
//! Format: the agent protocol, draft-ietf-sshm-ssh-agent; signatures, RFC 4253, 5656, 8332, 8709.

mod container;
mod key;
mod protocol;
mod serve;
mod wire;

pub use key::{Key, KeyError};
pub use serve::{Socket, serve};

use std::path::PathBuf;
use std::sync::Arc;

/// Where the agent of a step is.
#[derive(Debug, Clone)]
pub enum SshSource {
    /// The socket of an agent. A step may list its keys and have data signed.
    Agent(PathBuf),
    /// Keys that were read from files.
    Keys(Arc<[Key]>),
    /// A socket of any kind; everything is passed on.
    Raw(PathBuf),
}
