//! `dictionary.txt` has what the tables and limits say.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use spice_migration::{
    ClientMessage, ServerMessage,
    caps::DisplayCapability,
    limits::{MAX_BODY, MAX_CAPABILITY_WORDS, MAX_LINK_BODY, MAX_SUB_MESSAGES, MAX_TEXT},
    link::{LINK_MESSAGE_LEN, LINK_REPLY_LEN, MAGIC},
    state::MAX_SURFACES,
};

#[test]
fn the_dictionary_is_up_to_date() {
    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dictionary.txt");
    let dictionary = dictionary();
    if fs::read_to_string(PATH).unwrap_or_default() != dictionary {
        fs::write(PATH, dictionary).unwrap();
        panic!("dictionary.txt was out of date and has been written anew; commit it");
    }
}

fn dictionary() -> String {
    let mut entries: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    let mut add = |word: &[u8], name: &str| {
        entries.entry(word.to_vec()).and_modify(|names| *names += &format!(", {name}")).or_insert_with(|| name.into());
    };
    for magic in [&MAGIC, b"MNMD", b"DCMD", b"ICMD", b"SVMD", b"SCMD"] {
        add(magic, "magic");
    }
    for row in ServerMessage::TABLE.iter().chain(ClientMessage::TABLE) {
        add(&row.id.to_le_bytes(), row.c_name);
    }
    for name in DisplayCapability::KNOWN.iter().filter_map(|known| known.name()) {
        add(name.as_bytes(), name);
    }
    let number = |number: usize| u32::try_from(number).unwrap();
    let numbers = [
        (number(LINK_MESSAGE_LEN), "LINK_MESSAGE_LEN"),
        (number(LINK_REPLY_LEN), "LINK_REPLY_LEN"),
        (MAX_LINK_BODY, "MAX_LINK_BODY"),
        (MAX_CAPABILITY_WORDS, "MAX_CAPABILITY_WORDS"),
        (MAX_BODY, "MAX_BODY"),
        (number(MAX_TEXT), "MAX_TEXT"),
        (number(MAX_SUB_MESSAGES), "MAX_SUB_MESSAGES"),
        (number(MAX_SURFACES), "MAX_SURFACES"),
    ];
    for (number, name) in numbers {
        add(&number.to_le_bytes(), name);
        add(&(number + 1).to_le_bytes(), &format!("{name} + 1"));
    }
    for number in [0, 1, 2, 1 << 31, u32::MAX - 1, u32::MAX] {
        add(&number.to_le_bytes(), "boundary");
    }
    add(&u64::MAX.to_le_bytes(), "boundary");
    // Where what lies by offset begins, in the messages and in the migration data that have such: the length of their fixed part.
    for fixed_len in [12, 16, 18, 20, 22, 24, 33, 42, 65, 80, 178] {
        add(&u32::to_le_bytes(fixed_len), "length of a fixed part");
    }

    let mut text = String::from("# Written by the test `the_dictionary_is_up_to_date`.\n");
    for (word, names) in entries {
        let escaped: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        writeln!(text, "# {names}\n\"{escaped}\"").unwrap();
    }
    text
}
