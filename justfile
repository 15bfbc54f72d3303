# One recipe per check. `.ci/run` does the same without needing just.

# Everything that CI runs, but for the installation of packages.
ci: format lint docs test deny

# The sources are formatted.
format:
    cargo fmt --all --check

# Clippy has nothing to say.
lint:
    cargo clippy --workspace --all-targets -- -D warnings
    cargo clippy -p spice-migration --no-default-features -- -D warnings

# The documentation builds without warnings.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# All tests. Those that need QEMU say so where it is missing.
test:
    cargo test --workspace

# Bans, licences, sources, advisories.
deny:
    cargo deny check

# The spelling (needs typos-cli).
typos:
    typos

# The suite against the embedded reference hosts.
run:
    cargo run --release -p spice-conformance -- run

# The suite against two real QEMU processes.
run-qemu:
    cargo run --release -p spice-conformance -- run --qemu

# The benchmarks.
bench:
    cargo bench -p spice-migration-benches

# Fuzzes every target for some seconds each (needs cargo-fuzz and a nightly toolchain).
fuzz seconds="60":
    fuzz/run {{seconds}}

# Line coverage of the protocol crate by the fuzzing corpora alone (needs llvm-cov of rustc's LLVM).
coverage:
    fuzz/cover
