//! `rbuild`: builds container images from Dockerfiles.

fn main() {}
