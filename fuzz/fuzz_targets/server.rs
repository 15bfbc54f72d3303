//! `fuzz/run 60 server`
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| spice_migration_fuzz::server(input));
