//! How long it takes to decode one message.

mod groups;

fn main() {
    groups::bench("decode");
}
