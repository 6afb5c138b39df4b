//! Prints the instructions of a Dockerfile with their lines: `cargo run --example parse_dockerfile -- Dockerfile`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it finds")]

use std::process::ExitCode;

use builder_core::diagnostic::{Diagnostic, Source};
use builder_core::dockerfile::{self, lint};

fn main() -> ExitCode {
    let path = std::env::args().nth(1).unwrap_or_else(|| "Dockerfile".to_owned());
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("cannot read `{path}`: {error}");
            return ExitCode::FAILURE;
        }
    };
    let source = Source::new(path, text);
    match dockerfile::parse(&source) {
        Ok(parsed) => {
            for instruction in &parsed.instructions {
                println!("{:4} {}", instruction.start_line(), instruction.original);
            }
            for warning in lint::Options::of(&parsed).filter(&parsed, lint::check(&parsed)) {
                println!("{:4} {}: {}", warning.line, warning.rule.name(), warning.detail);
            }
            ExitCode::SUCCESS
        }
        Err(errors) => {
            for error in &errors {
                let line = error.location().map_or(0, |place| place.source.line(place.span.start));
                eprintln!("{}:{line}: {error}", source.name());
            }
            ExitCode::FAILURE
        }
    }
}
