//! What vertices do: one file for each kind.

pub mod copy;
