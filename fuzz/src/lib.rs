//! What must hold for any input. The cargo-fuzz targets are thin wrappers; stable tests run the same oracles.
#![forbid(unsafe_code)]

#[cfg(feature = "spice-common")]
pub mod differential;

use spice_migration::{
    ChannelType, ClientMessage, ServerMessage,
    frame::{Deframer, HeaderKind},
    message::Message,
};

/// Cuts `input` into messages of one direction, fed in pieces of the size that its first byte says, and checks that what
/// decodes encodes to something that decodes to the same.
///
/// # Panics
/// When that does not hold: a finding.
pub fn messages(input: &[u8]) {
    let [shape, stream @ ..] = input else { return };
    let kind = if shape & 1 == 0 { HeaderKind::Mini } else { HeaderKind::Full };
    let channel = if shape & 2 == 0 { ChannelType::MAIN } else { ChannelType::CURSOR };
    let mut deframer = Deframer::new(kind);
    for piece in stream.chunks(usize::from(shape >> 3) + 1) {
        deframer.push(piece);
        while let Ok(Some(frame)) = deframer.next_frame() {
            let id = frame.header.id;
            if shape & 4 == 0 {
                if let Ok(message) = ServerMessage::decode(channel, id, frame.body) {
                    assert_eq!(ServerMessage::decode(channel, id, &encoded(&message)), Ok(message));
                }
            } else if let Ok(message) = ClientMessage::decode(channel, id, frame.body) {
                assert_eq!(encoded(&message), frame.body, "client messages leave their encoding no freedom");
            }
        }
    }
}

fn encoded(message: &impl Message) -> Vec<u8> {
    let mut out = vec![0; message.encoded_len()];
    assert_eq!(message.encode(&mut out), Ok(out.len()));
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_oracle_holds_for_random_streams(input in prop::collection::vec(prop_oneof![0u8..4, 100u8..120, any::<u8>()], 0..200)) {
            super::messages(&input);
        }
    }
}
