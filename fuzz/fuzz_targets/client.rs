//! `fuzz/run 60 client`
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| spice_migration_fuzz::client(input));
