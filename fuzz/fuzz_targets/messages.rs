//! `cargo +nightly fuzz run --features libfuzzer messages`
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| spice_migration_fuzz::messages(input));
