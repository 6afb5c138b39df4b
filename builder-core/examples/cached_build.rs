//! Builds with a cache in a directory, shows what happens as it happens, and says why each step ran.
//!
//! `cargo run --example cached_build -- CONTEXT CACHE`

use builder_core::build::{BuildRequest, ContextSource, Engine, EngineOptions};
use builder_core::cancel::CancelToken;
use builder_core::diagnostic::{self, Source};
use builder_core::git::GitEnvironment;
use builder_core::progress::{Event, Sink};
use builder_core::registry::RegistryConfig;
use builder_core::remote::{CacheDestination, CacheSource};

/// Takes events from several threads, one at a time.
struct Print;

impl Sink for Print {
    #[expect(clippy::print_stdout, reason = "an example shows what it does")]
    fn event(&self, event: Event) {
        match event {
            Event::Declared { task, name, .. } => println!("{task}: {name}"),
            Event::Finished { task, outcome, .. } => println!("{task}: {outcome:?}"),
            Event::Warning(warning) => println!("warning: {}", warning.short),
            _ => {}
        }
    }
}

#[expect(clippy::print_stdout, reason = "an example shows its result")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usage = "usage: cached_build CONTEXT CACHE";
    let mut arguments = std::env::args().skip(1);
    let path = std::path::absolute(arguments.next().ok_or(usage)?)?;
    let cache = std::path::absolute(arguments.next().ok_or(usage)?)?;
    if !rustix::process::geteuid().is_root() {
        builder_core::executor::enter_user_namespace()?;
    }

    let state = std::env::temp_dir().join("build-image");
    let registry = RegistryConfig::default();
    let engine = Engine::open(EngineOptions { state, registry, git: GitEnvironment::default() })?;
    let dockerfile = Source::new("Dockerfile", std::fs::read(path.join("Dockerfile"))?);
    let ignore_files = vec![path.join(".dockerignore")];
    let mut request = BuildRequest::new(dockerfile, ContextSource::Directory { path, ignore_files });
    // As typed after `--cache-from` and `--cache-to`; the function looks up variables of the environment.
    request.cache_from.push(CacheSource::parse(&format!("type=local,src={}", cache.display()), &|_| None)?);
    request.cache_to.push(CacheDestination::parse(&format!("type=local,dest={}", cache.display()), &|_| None)?);

    let built = engine.build(&request, &Print, &CancelToken::new()).map_err(|error| diagnostic::chain(&error))?;
    println!("{} of {} steps were known", built.cached, built.steps);
    let build = engine.history().get(&built.build.ok_or("the build is not recorded")?)?;
    for step in engine.explain(&build)?.steps {
        println!("{} {}: {:?}, {:?}", step.number, step.name, step.verdict, step.reasons);
    }
    Ok(())
}
