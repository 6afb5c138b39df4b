//! Where a built image goes: the local store, registries, archives, directories.
//!
//! [`Output`] says what is wanted; [`Output::parse`] reads it from the text of `--output`. [`export`] does it:
//!
//! 1. every image is assembled, its layers packed and compressed as far as an output needs them;
//! 2. archives and directories are written beside their places;
//! 3. images are pushed;
//! 4. images get their records and names in the store;
//! 5. what was written beside its place is moved there.
//!
//! So an output that fails leaves the others as they were, apart from what was pushed already. What is remembered
//! saves work: diff ids by tree, blobs by diff id and compression, repositories by blob. Storing or
//! pushing the same image again reads no file of it, and writes nothing that is there. Layers that were packed for an
//! archive go away with the export: their files are in snapshots already.

mod archive;
mod atomic_file;
mod context;
mod error;
pub(crate) mod layers;
pub(crate) mod layout;
mod local;
mod output;
pub(crate) mod packed;
pub(crate) mod parse;
pub(crate) mod push;
mod root;
mod run;
mod store;

pub(crate) use atomic_file::write_file;
pub use context::{ExportContext, ExportImage, FinalLayer, FinalLayers, MakeCache};
pub(crate) use error::until_right;
pub use error::{ExportError, ParseOutputError};
pub use output::{
    Annotation, AnnotationLevel, Annotations, Destination, FilesFormat, ImageFormat, ImageOutput, LayoutOutput, Output,
};
pub use push::PushedLayer;
pub use root::LayerFiles;
pub use run::{Exported, export};
