//! `fuzz/run 60 state`
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| spice_migration_fuzz::state(input));
