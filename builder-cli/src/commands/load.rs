//! `rbuild load`.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};

use builder_core::build::images;
use builder_core::oci::{Platform, Reference};

use super::{Outcome, print, task};
use crate::args::LoadArgs;
use crate::command_error::CommandError;
use crate::session::Session;

pub(super) fn run(session: &Session, args: &LoadArgs) -> Outcome {
    let mut input: Box<dyn Read + Send> = match &args.input {
        Some(file) => {
            let path = session.environment.absolute(file);
            let fail = |error: io::Error| CommandError::io(&format!("cannot read `{}`", file.display()), &error);
            let opened = File::open(&path).map_err(fail)?;
            if opened.metadata().map_err(fail)?.is_dir() {
                return Err(CommandError::failed(format!("cannot read `{}`: it is a directory", file.display())));
            }
            Box::new(opened)
        }
        None if io::stdin().is_terminal() => {
            return Err(CommandError::usage("there is no archive to read")
                .with_hint("name a file with `--input`, or redirect standard input"));
        }
        None => Box::new(io::stdin()),
    };
    let engine = session.engine()?;
    let loaded =
        task::run(&engine, "loading", args.quiet, |context| images::load(context, &mut *input, &Platform::host()))?;
    for image in &loaded {
        let text = if image.names.is_empty() {
            format!("Loaded image ID: {}\n", image.id)
        } else {
            image.names.iter().map(Reference::familiar).map(|name| format!("Loaded image: {name}\n")).collect()
        };
        print(text)?;
    }
    Ok(0)
}
