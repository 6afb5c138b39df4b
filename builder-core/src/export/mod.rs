//! Where a built image goes: the local store, registries, archives, directories.
//!
//! [`Output`] says what is wanted; [`Output::parse`] reads it from the text of `--output`.

mod error;
mod output;
mod parse;

pub use error::ParseOutputError;
pub use output::{
    Annotation, AnnotationLevel, Annotations, Destination, FilesFormat, ImageFormat, ImageOutput, LayoutOutput, Output,
};
