//! Dockerfile, options and known images in; graph, warnings or errors out.

mod config;
mod corpus;
mod epoch;
mod errors;
mod expansion;
mod join;
mod limits;
mod order;
mod outline;
mod render;
mod run;
mod warnings;

use super::*;
use crate::diagnostic::Source;
use crate::dockerfile::{self, Dockerfile};
use crate::oci::{Digest, ImageConfig, Platform};

pub(super) fn parsed(text: &str) -> Dockerfile {
    match dockerfile::parse(&Source::new("Dockerfile", text.as_bytes())) {
        Ok(parsed) => parsed,
        Err(errors) => panic!("{text}: {errors}"),
    }
}

pub(super) fn options() -> Options {
    let platform: Platform = "linux/amd64".parse().expect("valid");
    Options { build_platform: platform.clone(), ..Options::new(platform) }
}

/// The images that tests may name, each for every platform that is asked for.
pub(super) fn image(name: &str, platform: &Platform) -> Option<KnownImage> {
    let config = match name {
        "alpine:3.20" | "other:1" => {
            r#"{"config":{"Env":["PATH=/usr/bin:/bin"],"Cmd":["/bin/sh"],"WorkingDir":"/"},
                "history":[{"created":"2024-01-01T00:00:00Z","created_by":"ADD rootfs"}]}"#
        }
        "rich:1" => {
            r#"{"author":"someone","config":{"User":"app","Env":["A=base","NOVALUE"],"Entrypoint":["/entry"],
                "Cmd":["arg"],"WorkingDir":"/srv/app/","Labels":{"a":"base"},"ExposedPorts":{"1/tcp":{}},
                "Volumes":{"/data":{}},"Shell":["/bin/bash","-c"],"StopSignal":"SIGINT",
                "Healthcheck":{"Test":["CMD","true"],"Interval":5}},"history":[{"created_by":"x"}]}"#
        }
        "onbuild:1" => {
            r#"{"config":{"OnBuild":["ARG MODE=debug","RUN echo $MODE","COPY --from=alpine:3.20 /etc /etc",
                "CMD [\"a\"]"]},"history":[{"created_by":"x"}]}"#
        }
        "broken-trigger:1" => r#"{"config":{"OnBuild":["RUNN x"]},"history":[{"created_by":"x"}]}"#,
        "forward-trigger:1" => r#"{"config":{"OnBuild":["COPY --from=later /a /"]},"history":[{"created_by":"x"}]}"#,
        "empty:1" => r#"{"config":{"Env":["E=1"]},"history":[{"created_by":"ENV","empty_layer":true}]}"#,
        "empty-arm:1" => r#"{"architecture":"arm64","os":"linux","config":{}}"#,
        "arm:1" => r#"{"architecture":"arm64","os":"linux","config":{},"history":[{"created_by":"x"}]}"#,
        _ => return None,
    };
    let mut config = ImageConfig::parse(config.as_bytes()).expect("a config");
    if config.os.is_empty() {
        config.os.clone_from(&platform.os);
        config.architecture.clone_from(&platform.architecture);
        config.variant.clone_from(&platform.variant);
    }
    Some(KnownImage::new(config, Digest::sha256(name.as_bytes())))
}

/// Plans until nothing is missing, as the build does.
pub(super) fn resolve(file: &Dockerfile, options: &Options) -> Result<Images, GraphErrors> {
    let mut images = Images::new();
    loop {
        let plan = plan(file, options, &images)?;
        if plan.missing.is_empty() {
            return Ok(images);
        }
        for request in plan.missing {
            let name = request.reference.familiar();
            let known = image(&name, &request.platform).unwrap_or_else(|| panic!("no image {name}"));
            images.insert(request, known);
        }
    }
}

pub(super) fn try_lower(text: &str, options: &Options) -> Result<Graph, GraphErrors> {
    let file = parsed(text);
    let images = resolve(&file, options)?;
    lower(&file, options, &images)
}

pub(super) fn lowered(text: &str) -> Graph {
    lowered_with(text, &options())
}

pub(super) fn lowered_with(text: &str, options: &Options) -> Graph {
    match try_lower(text, options) {
        Ok(graph) => graph,
        Err(errors) => panic!("{text}: {}", render::errors(&errors)),
    }
}
