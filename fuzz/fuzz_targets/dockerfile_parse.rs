//! Any bytes as a Dockerfile: no panic, and places inside the text.
#![no_main]

use builder_core::diagnostic::{Diagnostic, Source};
use builder_core::dockerfile::{ast_json, detect_syntax, lint, parse, parse_trigger};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let source = Source::new("Dockerfile", bytes);
    let tree = ast_json(&source);
    match parse(&source) {
        Ok(file) => {
            assert!(tree.is_ok());
            for instruction in &file.instructions {
                assert!(instruction.span.start <= instruction.span.end && instruction.span.end <= bytes.len());
            }
            let _ = lint::Options::of(&file).filter(&file, lint::check(&file));
        }
        Err(errors) => {
            for error in &errors {
                assert!(error.span().end <= bytes.len());
                let _ = (error.to_string(), error.hint());
            }
        }
    }
    let _ = parse_trigger(&source);
    let _ = detect_syntax(&source);
});
