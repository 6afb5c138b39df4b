//! Git repositories as sources of files: [`Repositories`] fetches one commit and checks it out, through the system's
//! `git`.
//!
//! ```text
//! Address ── resolve: git ls-remote, or what is remembered ──▶ Resolved { object, commit, name }
//!         ── fetch: one commit, shallow ──▶ a bare repository, shared by all builds
//!         ── check out ──▶ the files, in a directory of the caller
//! ```
//!
//! ```text
//! STATE/git/<digest of the address>/address              for people
//! STATE/git/<digest of the address>/lock                 held while git works here, also by a git that outlives us
//! STATE/git/<digest of the address>/known/<digest>       what a reference meant last (JSON)
//! STATE/git/<digest of the address>/{sha1,sha256}/       bare repository
//! STATE/git/<digest of the address>/times/<commit>       when it was made, in seconds since 1970
//! STATE/known_hosts                                      keys of ssh servers, remembered at the first contact
//! ```
//!
//! Nothing that a repository has is run: no hooks, no filters, no transport but http, ssh and git, and `file` only for
//! an address that says so. Git sees no configuration of the host and of its environment what the caller gives.
//! Credentials reach it in its environment, never as an argument, and are stored nowhere.

mod address;
mod access;
mod command;
mod error;
mod resolve;
mod fetch;
mod checkout;
mod store;

#[cfg(test)]
mod tests;

pub use access::{GitAccess, GitEnvironment};
pub use address::{Address, AddressError, Mtime, redacted};
pub use error::GitError;
pub use resolve::Resolved;
pub use store::{Ask, GitContext, Repositories, Repository, RepositoryLock, Wanted};
