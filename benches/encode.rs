//! How long it takes to encode one message with a mini header.

mod groups;

fn main() {
    groups::bench("encode");
}
