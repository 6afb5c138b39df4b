//! `rbuild inspect`.

use builder_core::build::images;
use serde_json::Value;

use super::{Outcome, print};
use crate::args::InspectArgs;
use crate::command_error::CommandError;
use crate::session::Session;
use crate::template::Template;

/// Shows what it finds, and fails at the end if something was not there.
pub(super) fn run(session: &Session, args: &InspectArgs) -> Outcome {
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(format) => Some(Template::parse(&format.replace("\\t", "\t").replace("\\n", "\n"))?),
    };
    let content = session.content()?;
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for name in &args.images {
        match images::inspect(&content, name) {
            Ok(image) => found.push(serde_json::to_value(image).expect("strings, numbers and maps by string")),
            Err(error) => errors.push(CommandError::diagnostic(&error)),
        }
    }
    let text = match &template {
        Some(template) => {
            let lines = found.iter().map(|image| template.render(image)).collect::<Result<Vec<_>, _>>()?;
            lines.into_iter().map(|line| line + "\n").collect()
        }
        None if args.format.as_deref() == Some("json") => Value::Array(found).to_string() + "\n",
        None => indented(&Value::Array(found)) + "\n",
    };
    print(text)?;
    CommandError::all(errors).map(|()| 0)
}

/// JSON indented by four blanks, as docker's.
pub(super) fn indented(value: &Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    serde::Serialize::serialize(value, &mut serializer).expect("a value, into memory");
    String::from_utf8(out).expect("JSON is UTF-8")
}
