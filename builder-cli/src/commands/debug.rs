//! `rbuild debug`: what the builder makes of a Dockerfile.

use std::collections::BTreeMap;

use builder_core::build::{BuildRequest, ContextSource, PullPolicy};
use builder_core::dockerfile;
use builder_core::graph::{Options, to_dot, to_json};
use serde_json::Value;

use super::call::{inspect, parse};
use super::{Outcome, print};
use crate::args::{DebugCommand, DebugGraphArgs, GraphFormat};
use crate::command_error::CommandError;
use crate::request::{self, values};
use crate::session::Session;

pub(super) fn run(session: &Session, command: DebugCommand) -> Outcome {
    match command {
        DebugCommand::Ast { file } => {
            let source = request::read_file(&file, &session.environment)?;
            let tree = dockerfile::ast_json(&source).map_err(|errors| CommandError::diagnostics(errors.iter()))?;
            print(pretty(&tree) + "\n")
        }
        DebugCommand::Words { file } => {
            let source = request::read_file(&file, &session.environment)?;
            let wrong = |reason: String| CommandError::failed(format!("`{}`: {reason}", source.name()));
            let requests: Vec<Value> =
                serde_json::from_slice(source.text()).map_err(|error| wrong(error.to_string()))?;
            let answers = dockerfile::words_json(&requests).map_err(|error| wrong(error.to_string()))?;
            print(pretty(&answers.into()) + "\n")
        }
        DebugCommand::Graph(args) => graph(session, &args),
    }
}

fn graph(session: &Session, args: &DebugGraphArgs) -> Outcome {
    let source = request::read_file(&args.file, &session.environment)?;
    let file = parse(&source)?;
    let platform = args.platform.as_deref().map_or_else(|| values::platform("local"), values::platform)?;
    let mut options = Options::new(platform);
    options.explicit_platform = args.platform.is_some();
    options.target.clone_from(&args.target);
    options.build_args = args
        .build_arg
        .iter()
        .filter_map(|text| text.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect::<BTreeMap<_, _>>();
    // No registry is asked.
    let request = BuildRequest { options, pull: PullPolicy::Never, ..BuildRequest::new(source, ContextSource::Empty) };
    let graph = inspect(session, &file, &request)?.graph;
    print(match args.format {
        GraphFormat::Dot => to_dot(&graph),
        GraphFormat::Json => pretty(&to_json(&graph)) + "\n",
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}
