//! Every oracle holds for every input of the committed corpora, and those reach what there is to reach.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use spice_migration::{
    ChannelType, ClientMessage, Fault, ServerMessage,
    state::{JpegWanCompression, State},
};
use spice_migration_fuzz::ORACLES;

/// The inputs of one target.
fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    let mut inputs = Vec::new();
    for folder in [corpus.join("derived/fuzz").join(target), corpus.join("regressions").join(target)] {
        // A target need not have regressions.
        let Ok(files) = fs::read_dir(folder) else { continue };
        for file in files {
            let path = file.unwrap().path();
            let input = fs::read(&path).unwrap();
            inputs.push((path, input));
        }
    }
    inputs
}

#[test]
fn every_oracle_holds_for_its_corpus() {
    for (target, oracle) in ORACLES {
        let inputs = inputs(target);
        assert!(!inputs.is_empty(), "{target} has no corpus");
        for (path, input) in inputs {
            // Shown only when the oracle panics.
            println!("{}", path.display());
            oracle(&input);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_oracle_holds_for_random_bytes(
        input in prop::collection::vec(prop_oneof![Just(0u8), 0u8..8, 100u8..120, any::<u8>()], 0..300),
    ) {
        for (_, oracle) in ORACLES {
            oracle(&input);
        }
    }
}

#[test]
fn each_target_has_an_oracle_and_each_oracle_a_target() {
    let targets = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets")).unwrap();
    let targets: BTreeSet<String> =
        targets.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    // This one has a corpus and tests of its own, since it needs spice-common.
    let targets: BTreeSet<&str> =
        targets.iter().map(String::as_str).filter(|target| *target != "differential").collect();
    assert_eq!(targets, ORACLES.iter().map(|(target, _)| *target).collect());
}

// The oracles also refuse what is decoded: they cut each input, and add to it.
#[test]
fn the_corpora_have_every_message_and_the_migration_data_of_every_channel() {
    let mut decoded = BTreeSet::new();
    for (_, input) in inputs("server") {
        let [channel @ 0..=0x3f, low, high, body @ ..] = &input[..] else { continue };
        let message = ServerMessage::decode(ChannelType(*channel), u16::from_le_bytes([*low, *high]), body);
        decoded.extend(message.map(|message| message.c_name().to_owned()));
    }
    for (_, input) in inputs("client") {
        let [channel @ 0..=0x3f, low, high, body @ ..] = &input[..] else { continue };
        let message = ClientMessage::decode(ChannelType(*channel), u16::from_le_bytes([*low, *high]), body);
        decoded.extend(message.map(|message| message.c_name().to_owned()));
    }
    for (_, input) in inputs("state") {
        let [channel, data @ ..] = &input[..] else { continue };
        let state = State::decode(ChannelType(*channel), data);
        decoded.extend(state.map(|_| ChannelType(*channel).to_string()));
    }
    let messages = ServerMessage::TABLE.iter().chain(ClientMessage::TABLE).map(|row| row.c_name);
    let states = ["main", "display", "inputs", "smartcard", "usbredir", "port", "webdav"];
    let missing: Vec<&str> = messages.chain(states).filter(|name| !decoded.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_corpora_have_every_fault_of_messages_and_migration_data() {
    let mut faults = BTreeSet::new();
    for (_, input) in inputs("server") {
        let [channel @ 0..=0x3f, low, high, body @ ..] = &input[..] else { continue };
        let message = ServerMessage::decode(ChannelType(*channel), u16::from_le_bytes([*low, *high]), body);
        faults.extend(message.err().map(|error| format!("{:?}", error.fault)));
    }
    for (_, input) in inputs("state") {
        let [channel, data @ ..] = &input[..] else { continue };
        for compression in [JpegWanCompression::Never, JpegWanCompression::Always] {
            let state = State::for_target(ChannelType(*channel), compression, data);
            faults.extend(state.err().map(|error| format!("{:?}", error.fault)));
        }
    }
    let every = [
        Fault::Truncated,
        Fault::TrailingBytes,
        Fault::OffsetInFixedPart,
        Fault::OutOfBounds,
        Fault::Missing,
        Fault::SizeWithoutOffset,
        Fault::NotTerminated,
        Fault::InteriorNul,
        Fault::LimitExceeded,
        Fault::WrongMagic,
        Fault::UnsupportedVersion,
        Fault::NotAFlag,
        Fault::Duplicate,
        Fault::Unexpected,
    ];
    let missing: Vec<String> =
        every.map(|fault| format!("{fault:?}")).into_iter().filter(|it| !faults.contains(it)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
