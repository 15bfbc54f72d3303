# Recipes for the checks that one runs by themselves. CI runs `.ci/run`, which needs no just, and looks at more: the direction of
# dependencies, what `cargo package` makes of the protocol crate, the lints of each of its sets of features and of what is built with
# spice-common, and the tests of spice-common's code. The advisories, which need the network, are looked at here alone.

# Most of what CI runs, and the advisories.
ci: format lint docs deny features test model differential run instructions (fuzz "5")

# The sources are formatted.
format:
    cargo fmt --all --check

# Clippy has nothing to say.
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# The documentation builds without warnings.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# The protocol crate builds and passes its tests with every set of features.
features:
    for features in "" alloc std arbitrary alloc,arbitrary std,arbitrary; do \
        cargo test -p spice-migration --no-default-features --features "$features" --lib \
            --test capabilities --test captures --test major1 --test messages --test state --test sub_messages || exit 1; \
    done

# All tests. Those that need QEMU, spice-gtk, Xspice, tshark or a nightly toolchain say so where it is missing.
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

# Whether each defect of the reference hosts is caught.
selfcheck:
    cargo run --release -p spice-conformance -- selfcheck

# How long a guest stands still, and a thousand clients at once: the tables of benches/README.md.
hand-over:
    cargo run --release -p spice-conformance --example downtime -- benches/downtime.svg
    ulimit -n 20000 && cargo run --release -p spice-conformance --example load -- 10 100 1000

# Every state of the five roles: the table of designs, and the mistakes that must be noticed.
model:
    cargo test --release -p spice-migration --test model

# The same for the mail's design alone, with one more channel and one more kind of client: 5 million states.
model-large:
    MODEL_LARGE=1 cargo test --release -p spice-migration --test model the_mails -- --nocapture

# The protocol crate against spice-common's C code (after fuzz/spice-common/fetch).
differential bodies="20000":
    cargo run --release -p spice-migration-fuzz --features spice-common --example differential -- --bodies {{bodies}}

# Our instruction counts against the committed ones, the hand-written limit and C (needs valgrind and fuzz/spice-common/fetch).
instructions *arguments="--check":
    cargo run --release -p spice-migration-benches --features spice-common --bin instructions -- {{arguments}}

# The benchmarks.
bench:
    cargo bench -p spice-migration-benches

# Fuzzes every target for some seconds each (needs cargo-fuzz and a nightly toolchain).
fuzz seconds="60":
    fuzz/run {{seconds}}

# Line coverage of the protocol crate by the fuzzing corpora alone (needs llvm-cov of rustc's LLVM).
coverage:
    fuzz/cover

# Mutants of the protocol crate that no test notices, of all its files or of some groups of them (needs cargo-mutants and jq).
mutants *groups:
    protocol/mutants {{groups}}

# The same of the reference hosts and the suite's client, with the self-check as the test: some hours.
mutants-peer *files:
    conformance/mutants {{files}}
