//! `rbuild version`.

use serde_json::json;

use super::{Outcome, print};
use crate::args::VersionArgs;
use crate::template::Template;

pub(super) fn run(args: &VersionArgs) -> Outcome {
    let platform = builder_core::oci::Platform::host();
    let client = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Os": platform.os,
        "Arch": platform.architecture,
    });
    let value = json!({ "Client": client });
    print(match args.format.as_deref() {
        None | Some("") => format!(
            "rbuild:\n Version:    {}\n OS/Arch:    {}/{}\n",
            env!("CARGO_PKG_VERSION"),
            platform.os,
            platform.architecture
        ),
        Some("json") => value.to_string() + "\n",
        Some(format) => Template::parse(format)?.render(&value)? + "\n",
    })
}
