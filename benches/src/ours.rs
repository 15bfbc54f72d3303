//! `spice-migration`.

use spice_migration::frame::{self, Deframer, HeaderKind};
use spice_migration::{ChannelType, DecodeError, ServerMessage, limits};

use crate::cases::Case;
use crate::measured::{Cut, Decode, Encode};

/// Its decoder, its encoder, and its `frame::cut`.
pub struct Ours;

impl Decode for Ours {
    type Decoded<'a> = Result<ServerMessage<'a>, DecodeError>;

    fn decode(id: u16, body: &[u8]) -> Self::Decoded<'_> {
        ServerMessage::decode(ChannelType::MAIN, id, body)
    }

    fn is(decoded: &Self::Decoded<'_>, expected: &ServerMessage<'_>) -> bool {
        decoded.as_ref() == Ok(expected)
    }
}

impl Encode for Ours {
    type Message<'a> = ServerMessage<'a>;

    fn with<R>(case: &Case, action: impl FnOnce(&mut ServerMessage<'_>) -> R) -> R {
        action(&mut case.message.clone())
    }

    fn encode(message: &mut ServerMessage<'_>, out: &mut [u8]) -> Option<usize> {
        frame::encode(HeaderKind::Mini, 1, message, out).ok()
    }
}

impl Cut for Ours {
    fn cut(&mut self, stream: &[u8], mut consume: impl FnMut(u16, &[u8])) {
        let mut rest = stream;
        while let Ok(Some((frame, length))) = frame::cut(HeaderKind::Mini, rest, 0, limits::MAX_BODY) {
            consume(frame.header.id, frame.body);
            rest = &rest[length..];
        }
    }
}

/// Its [`Deframer`], to which the stream comes in one piece.
#[must_use]
pub fn deframer() -> impl Cut {
    Deframer::new(HeaderKind::Mini)
}

impl Cut for Deframer {
    fn cut(&mut self, stream: &[u8], mut consume: impl FnMut(u16, &[u8])) {
        self.push(stream);
        while let Ok(Some(frame)) = self.next_frame() {
            consume(frame.header.id, frame.body);
        }
    }
}
