//! `rbuild pull`.

use builder_core::build::images;
use builder_core::oci::Platform;

use super::{Outcome, print, task};
use crate::args::PullArgs;
use crate::request::values;
use crate::session::Session;

pub(super) fn run(session: &Session, args: &PullArgs) -> Outcome {
    let name = values::reference(&args.name)?;
    let platform = args.platform.as_deref().map_or_else(|| Ok(Platform::host()), values::platform)?;
    let engine = session.engine()?;
    let pulled = task::run(&engine, &format!("pulling {}", name.familiar()), args.quiet, |context| {
        images::pull(context, &name, &platform)
    })?;
    if args.quiet {
        return print(format!("{name}\n"));
    }
    let tag = name.tag().map_or_else(|| name.selector(), str::to_owned);
    let path = name.repository();
    let shown = path.strip_prefix("docker.io/").unwrap_or(path.split_once('/').map_or(&*path, |(_, path)| path));
    let mut text = format!("{tag}: Pulling from {shown}\n");
    for (digest, known) in &pulled.layers {
        let state = if *known { "Already exists" } else { "Pull complete" };
        text.push_str(&format!("{}: {state}\n", digest.short()));
    }
    let status = if pulled.newer { "Downloaded newer image" } else { "Image is up to date" };
    text.push_str(&format!("Digest: {}\nStatus: {status} for {}\n{name}\n", pulled.digest, name.familiar()));
    print(text)
}
