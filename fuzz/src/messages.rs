//! Single messages of each direction, in both majors.

use spice_migration::{
    ChannelType, ClientMessage, DecodeError, EncodeError, ServerMessage, major1,
    message::{LAST_BASE_ID, Message, Row},
};

use crate::codec::{Codec, check};
use crate::layout::{Kind, Layout, OFFSET_FIRST};

/// One body of a server's message. Input: a byte with the channel's type in its lower six bits and the version in the upper two (0 and
/// 1: major 2; 2: major 1, minor 0; 3: major 1, minor 1), the id in two bytes, and the body.
///
/// # Panics
/// When the protocol crate reads or writes the body otherwise than the table of messages says. See `codec::check` for each rule.
pub fn server(input: &[u8]) {
    let Some((dialect, channel, id, body)) = parts(input) else { return };
    check(&Server { dialect, channel, id }, body);
}

/// One body of a client's message; input as for [`server`].
///
/// # Panics
/// As [`server`].
pub fn client(input: &[u8]) {
    let Some((dialect, channel, id, body)) = parts(input) else { return };
    check(&Client { dialect, channel, id }, body);
}

/// Whose messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Major2,
    /// With this minor version.
    Major1(u32),
}

impl Dialect {
    /// By the upper two bits of a byte.
    pub(crate) fn of(byte: u8) -> Self {
        match byte >> 6 {
            0 | 1 => Self::Major2,
            2 => Self::Major1(0),
            _ => Self::Major1(1),
        }
    }
}

/// A message of a server.
#[derive(Clone, Copy)]
pub(crate) struct Server {
    pub(crate) dialect: Dialect,
    pub(crate) channel: ChannelType,
    pub(crate) id: u16,
}

/// A message of a client.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    pub(crate) dialect: Dialect,
    pub(crate) channel: ChannelType,
    pub(crate) id: u16,
}

pub(crate) fn parts(input: &[u8]) -> Option<(Dialect, ChannelType, u16, &[u8])> {
    let [shape, low, high, body @ ..] = input else { return None };
    Some((Dialect::of(*shape), ChannelType(shape & 0x3f), u16::from_le_bytes([*low, *high]), body))
}

impl Codec for Server {
    type Value<'a> = major1::ServerMessage<'a>;

    fn layout(&self) -> Layout {
        if let Dialect::Major1(minor) = self.dialect {
            let ports = [("port", Kind::Any(2)), ("tls_port", Kind::Any(2)), ("host", Kind::Text(OFFSET_FIRST))];
            let key = [("public_key_type", Kind::Any(2)), ("public_key", Kind::Data(OFFSET_FIRST, u32::MAX))];
            match (self.channel, self.id) {
                (ChannelType::MAIN, 101) if minor == 0 => return Layout::new("SPICE_MSG_MAIN_MIGRATE_BEGIN", &ports),
                (ChannelType::MAIN, 101) => {
                    return Layout::new("SPICE_MSG_MAIN_MIGRATE_BEGIN", &[&ports[..], &key].concat());
                }
                (ChannelType::MAIN, 105) => {
                    let modes = [("supported_modes", Kind::Any(4)), ("current_mode", Kind::Any(4))];
                    return Layout::new("SPICE_MSG_MAIN_MOUSE_MODE", &modes);
                }
                (ChannelType::MAIN, 111) => {
                    let subject = [("cert_subject", Kind::OptionalText(OFFSET_FIRST))];
                    return Layout::new("SPICE_MSG_MAIN_MIGRATE_SWITCH_HOST", &[&ports[..], &subject].concat());
                }
                (_, 8 | 112..) => return Layout::opaque("unknown"),
                _ => {}
            }
        }
        known(ServerMessage::TABLE, self.channel, self.id)
    }

    fn decode<'a>(&self, body: &'a [u8]) -> Result<Self::Value<'a>, DecodeError> {
        use major1::ServerMessage as Major1;
        let message = match self.dialect {
            Dialect::Major1(minor) => Major1::decode(self.channel, minor, self.id, body)?,
            Dialect::Major2 => Major1::Same(ServerMessage::decode(self.channel, self.id, body)?),
        };
        assert_eq!(message.id(), self.id);
        if let Major1::Same(same) = message {
            assert_eq!((same.id(), same.c_name()), (self.id, self.layout().c_name));
        }
        Ok(message)
    }

    fn encoded_len(&self, value: &Self::Value<'_>) -> usize {
        value.encoded_len()
    }

    fn encode(&self, value: &Self::Value<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
        value.encode(out)
    }

    fn are_equal(&self, one: &Self::Value<'_>, other: &Self::Value<'_>) -> bool {
        one == other
    }

    fn describe(&self, value: &Self::Value<'_>) -> String {
        format!("{value:?}")
    }
}

impl Codec for Client {
    type Value<'a> = major1::ClientMessage<'a>;

    fn layout(&self) -> Layout {
        match (self.dialect, self.channel, self.id) {
            (Dialect::Major1(_), ChannelType::MAIN, 105) => {
                Layout::new("SPICE_MSGC_MAIN_MOUSE_MODE_REQUEST", &[("mode", Kind::Any(4))])
            }
            (Dialect::Major1(_), _, 109..) => Layout::opaque("unknown"),
            _ => known(ClientMessage::TABLE, self.channel, self.id),
        }
    }

    fn decode<'a>(&self, body: &'a [u8]) -> Result<Self::Value<'a>, DecodeError> {
        use major1::ClientMessage as Major1;
        let message = match self.dialect {
            Dialect::Major1(_) => Major1::decode(self.channel, self.id, body)?,
            Dialect::Major2 => Major1::Same(ClientMessage::decode(self.channel, self.id, body)?),
        };
        assert_eq!(message.id(), self.id);
        if let Major1::Same(same) = message {
            assert_eq!((same.id(), same.c_name()), (self.id, self.layout().c_name));
        }
        Ok(message)
    }

    fn encoded_len(&self, value: &Self::Value<'_>) -> usize {
        value.encoded_len()
    }

    fn encode(&self, value: &Self::Value<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
        value.encode(out)
    }

    fn are_equal(&self, one: &Self::Value<'_>, other: &Self::Value<'_>) -> bool {
        one == other
    }

    fn describe(&self, value: &Self::Value<'_>) -> String {
        format!("{value:?}")
    }
}

/// Base messages are known on every channel, the others on the main channel.
fn known(table: &[Row], channel: ChannelType, id: u16) -> Layout {
    let row = table.iter().find(|row| row.id == id && (id <= LAST_BASE_ID || channel == ChannelType::MAIN));
    row.map_or_else(|| Layout::opaque("unknown"), Layout::of_row)
}
