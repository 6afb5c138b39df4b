//! Parsing speed: a realistic Dockerfile of 1 MB, and one of twice the size, which must take twice as long.

use std::hint::black_box;

use builder_core::diagnostic::Source;
use builder_core::dockerfile::{Expander, parse};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// One stage as people write them; the number makes its names unique.
fn stage(number: usize) -> String {
    format!(
        r#"# stage{number} compiles one of the services
FROM --platform=$BUILDPLATFORM registry.example.com/team/golang:1.22-bookworm AS stage{number}
ARG VERSION=1.{number}.0
ENV CGO_ENABLED=0 \
    GOFLAGS="-trimpath -mod=readonly" \
    PATH=/usr/local/go/bin:$PATH
LABEL org.opencontainers.image.title="service {number}" org.opencontainers.image.version=$VERSION
WORKDIR /src/service-{number}

# What changes seldom comes first.
COPY --link go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod,sharing=locked \
    go mod download -x
COPY --chown=1000:1000 --exclude=*_test.go . .
RUN apt-get update && \
    apt-get install -y --no-install-recommends \
      ca-certificates \
      curl \
      git \
      # for the protocol buffers
      protobuf-compiler \
      tzdata && \
    rm -rf /var/lib/apt/lists/*
RUN --mount=type=cache,target=/root/.cache/go-build --mount=type=secret,id=token,required \
    go build -ldflags "-s -w -X main.version=${{VERSION}}" -o /out/service-{number} ./cmd/service
COPY <<EOF /etc/service-{number}.toml
listen = "0.0.0.0:8080"
[log]
level = "info"
EOF
EXPOSE 8080/tcp 9090
USER 1000:1000
HEALTHCHECK --interval=30s --timeout=3s CMD ["/out/service-{number}", "health"]
ENTRYPOINT ["/out/service-{number}"]
CMD ["serve", "--config", "/etc/service-{number}.toml"]

"#
    )
}

fn dockerfile(size: usize) -> Source {
    let mut text = String::from("# syntax=docker/dockerfile:1\n");
    let mut number = 0;
    while text.len() < size {
        text.push_str(&stage(number));
        number += 1;
    }
    Source::new("Dockerfile", text.into_bytes())
}

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for megabytes in [1, 2] {
        let source = dockerfile(megabytes * 1_000_000);
        group.throughput(Throughput::Bytes(source.text().len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(format!("{megabytes} MB")), &source, |bencher, source| {
            // Freeing what was parsed is not parsing.
            bencher.iter_with_large_drop(|| parse(black_box(source)).expect("well formed"));
        });
    }
    group.finish();
}

fn expansion(criterion: &mut Criterion) {
    let word = "/opt/${NAME:-app}/bin:$PATH:\"${HOME%/*}/lib\"";
    let lookup = |name: &str| (name != "NAME").then(|| "/usr/local/sbin:/usr/local/bin".to_owned());
    criterion.bench_function("expand a word", |bencher| {
        bencher.iter(|| Expander::new('\\').word(black_box(word), &lookup).expect("well formed"));
    });
}

criterion_group!(benches, parsing, expansion);
criterion_main!(benches);
