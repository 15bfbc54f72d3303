//! `spice-conformance`: see [`spice_conformance::cli`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    spice_conformance::cli::main()
}
