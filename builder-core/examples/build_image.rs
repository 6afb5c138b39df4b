//! Builds an image from a directory, keeps it in a store of its own, and says its id.
//!
//! `cargo run --example build_image -- CONTEXT NAME`

use builder_core::build::{BuildRequest, ContextSource, Engine, EngineOptions};
use builder_core::cancel::CancelToken;
use builder_core::diagnostic::Source;
use builder_core::export::Output;
use builder_core::git::GitEnvironment;
use builder_core::progress::Silent;
use builder_core::registry::RegistryConfig;

#[expect(clippy::print_stdout, reason = "an example shows its result")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let context = std::path::absolute(arguments.next().ok_or("usage: build_image CONTEXT NAME")?)?;
    let name = arguments.next().ok_or("usage: build_image CONTEXT NAME")?.parse()?;

    let options = EngineOptions {
        state: std::env::temp_dir().join("build-image"),
        registry: RegistryConfig::default(),
        git: GitEnvironment::default(),
    };
    let engine = Engine::open(options)?;
    let dockerfile = Source::new("Dockerfile", std::fs::read(context.join("Dockerfile"))?);
    let ignore_files = vec![context.join(".dockerignore")];
    let mut request = BuildRequest::new(dockerfile, ContextSource::Directory { path: context, ignore_files });
    request.outputs.push(Output::store(vec![name]));

    let built = engine.build(&request, &Silent, &CancelToken::new())?;
    println!("{}", built.image_id.ok_or("no image")?);
    Ok(())
}
