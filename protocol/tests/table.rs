//! `MESSAGES.md`, which the documentation of `message` shows, is what the declarations say.

use std::fmt::Write as _;
use std::{env, fs};

use spice_migration::message::{FieldLayout, Row, Section};
use spice_migration::{ClientMessage, ServerMessage};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/MESSAGES.md");

#[test]
fn the_table_of_messages_is_generated_from_their_declarations() {
    let mut table = String::from(
        "# The base messages of every channel, and those of main\n\nAll numbers are little-endian. What a field counts or points \
         to lies behind the last of them; an offset counts from the start of the body.\n",
    );
    section(&mut table, "From servers", ServerMessage::TABLE);
    section(&mut table, "From clients", ClientMessage::TABLE);
    if env::var_os("UPDATE").is_some() {
        fs::write(TABLE, &table).unwrap();
    }
    let committed = fs::read_to_string(TABLE).unwrap();
    assert!(committed == table, "MESSAGES.md is stale: UPDATE=1 cargo test -p spice-migration --test table");
}

fn section(table: &mut String, title: &str, rows: &[Row]) {
    write!(
        table,
        "\n## {title}\n\n| id | name | C name | channels | body: byte, field, layout |\n|---|---|---|---|---|\n"
    )
    .unwrap();
    for row in rows {
        let channels = match row.section {
            Section::Base => "all",
            Section::Main => "main",
            other => panic!("{other:?} has no word yet"),
        };
        let mut body = Vec::new();
        row.for_each_field(|FieldLayout { name, offset, size, layout, item }| {
            let size = if layout == "bytes" { format!("{size} ") } else { String::new() };
            let item = item.map_or_else(String::new, |item| format!(": {item}"));
            body.push(format!("{offset} `{name}` {size}{layout}{item}"));
        });
        let body = if body.is_empty() { String::from("none") } else { body.join("<br>") };
        writeln!(table, "| {} | `{}` | `{}` | {channels} | {body} |", row.id, row.name, row.c_name).unwrap();
    }
}
