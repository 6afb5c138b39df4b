//! Draws what a Dockerfile would do, in DOT: `cargo run --example inspect_graph -- Dockerfile | dot -Tsvg`.
//! Nothing is pulled: every image is taken for one layer without a config.
#![expect(clippy::print_stdout, reason = "an example shows what it finds")]

use builder_core::diagnostic::Source;
use builder_core::graph::{self, Images, KnownImage, Options};
use builder_core::oci::{Digest, HistoryEntry, ImageConfig, Platform};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "Dockerfile".to_owned());
    let source = Source::new(path.clone(), std::fs::read(path)?);
    let parsed = builder_core::dockerfile::parse(&source)?;
    let options = Options::new(Platform::host());

    let mut images = Images::new();
    loop {
        let plan = graph::plan(&parsed, &options, &images)?;
        if plan.missing.is_empty() {
            break;
        }
        for request in plan.missing {
            let Platform { os, architecture, variant, .. } = request.platform.clone();
            let history = vec![HistoryEntry::default()];
            let config = ImageConfig { os, architecture, variant, history, ..ImageConfig::default() };
            let digest = Digest::sha256(request.reference.to_string().as_bytes());
            images.insert(request, KnownImage::new(config, digest));
        }
    }
    print!("{}", graph::to_dot(&graph::lower(&parsed, &options, &images)?));
    Ok(())
}
