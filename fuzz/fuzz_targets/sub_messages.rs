//! `fuzz/run 60 sub_messages`
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| spice_migration_fuzz::sub_messages(input));
