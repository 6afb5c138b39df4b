//! What a layer changes, as sorted data: [`Tree`]; and a stack of layers, answered from their trees: [`Stack`].
//!
//! Every layer that the engine knows (pulled, copied, run) has a tree with one [`Entry`] a path and a BLAKE3 digest of
//! each regular file. Questions about an image are answered from trees, not by reading its files again: cache keys,
//! early cutoff, layer diffs, `COPY --from`.
//!
//! ```text
//! TreeBuilder ── push(Entry)… ── finish ──▶ Tree, in pieces ─▶ TreeId         every fact, times included
//!                                             └─────────────▶ SemanticDigest  the same without times
//! [Tree, Tree, …] ──▶ Stack ── lookup, resolve, select, state ──▶ StateDigest
//! ```

mod digest;
mod entry;
mod parts;
mod piece;
mod encoding;
mod difference;
mod patch;
mod stack;
mod store;

pub use difference::{Difference, differences};
pub use digest::{ContentDigest, ContentHasher, ParseTreeDigestError, SemanticDigest, StateDigest, TreeId};
pub use encoding::{PieceView, Tree, TreeBuilder, TreeError, sort_keeping_last};
pub use entry::{Entry, Node, Time, Xattr};
pub use stack::{Found, ResolveError, Stack};
pub use store::{TreeStore, TreeStoreError};
