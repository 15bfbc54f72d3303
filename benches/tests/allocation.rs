//! Decoding and encoding allocate nothing.

mod captured;

use spice_migration::frame::{self, HeaderKind};
use spice_migration::{ClientMessage, ServerMessage};

#[test]
fn decoding_and_encoding_every_captured_message_allocates_nothing() {
    let messages = captured::messages();
    let longest = messages.iter().map(|message| message.body.len()).max().unwrap();
    let mut out = vec![0; HeaderKind::Full.len() + longest];
    let allocated = allocation_counter::measure(|| {
        for message in &messages {
            let captured::Captured { channel, from_server, id, ref body } = *message;
            let length = if from_server {
                let decoded = ServerMessage::decode(channel, id, body).unwrap();
                frame::encode(HeaderKind::Full, 1, &decoded, &mut out).unwrap()
            } else {
                let decoded = ClientMessage::decode(channel, id, body).unwrap();
                frame::encode(HeaderKind::Full, 1, &decoded, &mut out).unwrap()
            };
            assert_eq!(out[HeaderKind::Full.len()..length], *body);
        }
    });
    assert_eq!(allocated.count_total, 0);
}

#[test]
fn the_count_of_allocations_counts() {
    assert_eq!(allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
}
