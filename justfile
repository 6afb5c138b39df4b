# Everything that has to pass before a commit.
check: fmt lint test doc

fmt:
    cargo fmt --check

lint:
    cargo clippy --workspace --all-targets -- --deny warnings

test:
    cargo test --workspace --no-fail-fast

doc:
    RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps

# Needs cargo-deny and typos.
extra:
    cargo deny check
    typos

# Needs cargo-fuzz and a nightly toolchain.
fuzz TARGET SECONDS="600":
    cargo fuzz run {{TARGET}} -- -max_total_time={{SECONDS}}

bench:
    cargo bench --workspace

# rbuild beside the builders that are installed.
compare:
    benches/compare
