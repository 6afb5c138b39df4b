//! Any text as an image reference, a digest and a platform: no panic, and what is accepted survives its own spelling.
#![no_main]

use std::str::FromStr;

use builder_core::oci::{Digest, Platform, Reference};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::from_str(text) {
        assert_eq!(Reference::from_str(&reference.to_string()), Ok(reference));
    }
    if let Ok(digest) = Digest::from_str(text) {
        assert_eq!(Digest::from_str(&digest.to_string()), Ok(digest));
    }
    if let Ok(platform) = Platform::from_str(text) {
        assert_eq!(Platform::from_str(&platform.to_string()), Ok(platform));
    }
});
