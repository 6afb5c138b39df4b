//! The tar format, read strictly and written the one same way: headers only, no file is touched here.
//!
//! One reader serves layers, `ADD` and build contexts, so that no two parts of the engine can disagree about what an
//! archive holds (invariants E-4, E-5):
//!
//! - what a pax header says wins over the header block, its size too;
//! - extended headers belong to the next file only, and a malformed one is fatal;
//! - checksums are verified, and nothing is allocated from a size that is only declared.
//!
//! Read: v7, ustar, pax (POSIX.1-2008 `pax`), GNU (long names, numbers in base 256, sparse files in all four formats).
//! Written: ustar, with a pax header only where ustar has no room.

mod header;
mod numbers;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use header::{Header, Kind, is_header};
pub use reader::{Reader, TarError};
pub use writer::{XattrNameError, encode, padding, trailer};

/// Everything in a tar archive is a multiple of this many bytes.
pub(crate) const BLOCK: usize = 512;

#[cfg(test)]
mod tests;
