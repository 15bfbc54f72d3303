//! `fuzz/run 60 round_trip`
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| spice_migration_fuzz::round_trip(input));
