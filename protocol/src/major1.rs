//! Protocol major 1, which hosts before spice 0.6 spoke. **Unproven**: no peer of today speaks it, so nothing has shown that this
//! is right but its reading.
//!
//! The link stage is that of major 2, with [`VERSION_MAJOR`] in the link header. So are most messages; three of the server's
//! and one of the client's differ in layout, and those from server 112 and client 109 on, and SPICE_MSG_LIST, do not exist.
//!
//! ```
//! use spice_migration::{ChannelType, major1::{MouseMode, ServerMessage}};
//!
//! let message = ServerMessage::decode(ChannelType::MAIN, 0, 105, &[3, 0, 0, 0, 2, 0, 0, 0])?;
//! assert_eq!(message, ServerMessage::MouseMode(MouseMode { supported_modes: 3, current_mode: 2 }));
//! # Ok::<(), spice_migration::DecodeError>(())
//! ```

use core::marker::PhantomData;

use crate::message::{self, Message, sealed::Sealed};
use crate::wire::{
    At, Data, DataAt, Field, Located, OptionalTextAt, Tail, TailWriter, Text, TextAt, body_len, decode_body,
    encode_body, wire_struct,
};
use crate::{ChannelType, DecodeError, EncodeError};

/// The major version in the link header.
pub const VERSION_MAJOR: u32 = 1;

/// What a server of major 1 sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerMessage<'a> {
    /// MIGRATE_BEGIN of minor 0.
    MigrateBegin(MigrateBegin<'a>),
    /// MIGRATE_BEGIN from minor 1 on.
    MigrateBeginWithKey(MigrateBeginWithKey<'a>),
    /// MIGRATE_SWITCH_HOST.
    MigrateSwitchHost(MigrateSwitchHost<'a>),
    /// MOUSE_MODE.
    MouseMode(MouseMode),
    /// One that is the same in major 2, or unknown.
    Same(message::ServerMessage<'a>),
}

/// What a client of major 1 sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientMessage<'a> {
    /// MOUSE_MODE_REQUEST.
    MouseModeRequest(MouseModeRequest),
    /// One that is the same in major 2, or unknown.
    Same(message::ClientMessage<'a>),
}

wire_struct! {
    /// `SPICE_MSG_MAIN_MIGRATE_BEGIN` of minor 0.
    pub struct MigrateBegin<'a> {
        /// The plaintext port.
        port: u16,
        /// The TLS port.
        tls_port: u16,
        /// The host name or address.
        host: Text<'a> => OffsetFirst<TextAt>,
    }
}

wire_struct! {
    /// `SPICE_MSG_MAIN_MIGRATE_BEGIN` from minor 1 on.
    pub struct MigrateBeginWithKey<'a> {
        /// The plaintext port.
        port: u16,
        /// The TLS port.
        tls_port: u16,
        /// The host name or address.
        host: Text<'a> => OffsetFirst<TextAt>,
        /// What kind of key follows.
        public_key_type: u16,
        /// The target's public key.
        public_key: Data<'a> => OffsetFirst<DataAt<{ u32::MAX }>>,
    }
}

wire_struct! {
    /// `SPICE_MSG_MAIN_MIGRATE_SWITCH_HOST` of major 1.
    pub struct MigrateSwitchHost<'a> {
        /// The plaintext port.
        port: u16,
        /// The TLS port.
        tls_port: u16,
        /// The host name or address.
        host: Text<'a> => OffsetFirst<TextAt>,
        /// The subject that the target's certificate must have.
        cert_subject: Option<Text<'a>> => OffsetFirst<OptionalTextAt>,
    }
}

wire_struct! {
    /// `SPICE_MSG_MAIN_MOUSE_MODE` of major 1: the modes in 32 bits.
    pub struct MouseMode {
        /// [`MouseModes`](message::MouseModes) that are supported.
        supported_modes: u32,
        /// The one in force.
        current_mode: u32,
    }
}

wire_struct! {
    /// `SPICE_MSGC_MAIN_MOUSE_MODE_REQUEST` of major 1: the mode in 32 bits.
    pub struct MouseModeRequest {
        /// Which.
        mode: u32,
    }
}

/// The first server id that major 1 does not have: MIGRATE_END.
const FIRST_NEWER_SERVER_ID: u16 = 112;

/// The first client id that major 1 does not have: MIGRATE_END.
const FIRST_NEWER_CLIENT_ID: u16 = 109;

impl<'a> ServerMessage<'a> {
    /// Decodes the body of message `id`, as a server of this minor version sent it on a channel of type `channel`.
    ///
    /// # Errors
    /// As [`message::ServerMessage::decode`].
    pub fn decode(channel: ChannelType, minor: u32, id: u16, body: &'a [u8]) -> Result<Self, DecodeError> {
        const BEGIN: &str = "SPICE_MSG_MAIN_MIGRATE_BEGIN";
        match (channel, id) {
            (ChannelType::MAIN, 101) if minor == 0 => {
                decode_body::<MigrateBegin, 12>(BEGIN, body).map(Self::MigrateBegin)
            }
            (ChannelType::MAIN, 101) => {
                decode_body::<MigrateBeginWithKey, 22>(BEGIN, body).map(Self::MigrateBeginWithKey)
            }
            (ChannelType::MAIN, 105) => {
                decode_body::<MouseMode, 8>("SPICE_MSG_MAIN_MOUSE_MODE", body).map(Self::MouseMode)
            }
            (ChannelType::MAIN, 111) => {
                decode_body::<MigrateSwitchHost, 20>("SPICE_MSG_MAIN_MIGRATE_SWITCH_HOST", body)
                    .map(Self::MigrateSwitchHost)
            }
            (_, message::ServerMessage::LIST) | (_, FIRST_NEWER_SERVER_ID..) => {
                Ok(Self::Same(message::ServerMessage::Unknown { id, body: Data(body) }))
            }
            _ => message::ServerMessage::decode(channel, id, body).map(Self::Same),
        }
    }
}

impl<'a> ClientMessage<'a> {
    /// Decodes the body of message `id`, as a client sent it on a channel of type `channel`.
    ///
    /// # Errors
    /// As [`message::ClientMessage::decode`].
    pub fn decode(channel: ChannelType, id: u16, body: &'a [u8]) -> Result<Self, DecodeError> {
        match (channel, id) {
            (ChannelType::MAIN, 105) => decode_body::<MouseModeRequest, 4>("SPICE_MSGC_MAIN_MOUSE_MODE_REQUEST", body)
                .map(Self::MouseModeRequest),
            (_, FIRST_NEWER_CLIENT_ID..) => Ok(Self::Same(message::ClientMessage::Unknown { id, body: Data(body) })),
            _ => message::ClientMessage::decode(channel, id, body).map(Self::Same),
        }
    }
}

impl Sealed for ServerMessage<'_> {}

impl Message for ServerMessage<'_> {
    fn id(&self) -> u16 {
        match self {
            Self::MigrateBegin(_) | Self::MigrateBeginWithKey(_) => 101,
            Self::MouseMode(_) => 105,
            Self::MigrateSwitchHost(_) => 111,
            Self::Same(message) => message.id(),
        }
    }

    fn encoded_len(&self) -> usize {
        match *self {
            Self::MigrateBegin(message) => body_len::<MigrateBegin>(message),
            Self::MigrateBeginWithKey(message) => body_len::<MigrateBeginWithKey>(message),
            Self::MouseMode(message) => body_len::<MouseMode>(message),
            Self::MigrateSwitchHost(message) => body_len::<MigrateSwitchHost>(message),
            Self::Same(message) => message.encoded_len(),
        }
    }

    fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        match *self {
            Self::MigrateBegin(message) => encode_body::<MigrateBegin>(message, out),
            Self::MigrateBeginWithKey(message) => encode_body::<MigrateBeginWithKey>(message, out),
            Self::MouseMode(message) => encode_body::<MouseMode>(message, out),
            Self::MigrateSwitchHost(message) => encode_body::<MigrateSwitchHost>(message, out),
            Self::Same(message) => message.encode(out),
        }
    }
}

impl Sealed for ClientMessage<'_> {}

impl Message for ClientMessage<'_> {
    fn id(&self) -> u16 {
        match self {
            Self::MouseModeRequest(_) => 105,
            Self::Same(message) => message.id(),
        }
    }

    fn encoded_len(&self) -> usize {
        match *self {
            Self::MouseModeRequest(message) => body_len::<MouseModeRequest>(message),
            Self::Same(message) => message.encoded_len(),
        }
    }

    fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        match *self {
            Self::MouseModeRequest(message) => encode_body::<MouseModeRequest>(message, out),
            Self::Same(message) => message.encode(out),
        }
    }
}

/// A field by offset whose slot has the offset before the size.
struct OffsetFirst<F>(PhantomData<F>);

impl<F: Field> Field for OffsetFirst<F> {
    type Value<'a> = F::Value<'a>;
    const SLOT: usize = 8;
    const LAYOUT: &'static str = "u32 offset, u32 size";
    const BY_OFFSET: bool = true;

    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<F::Value<'a>, Located> {
        // INVARIANT: the slot has 8 bytes.
        let (offset, size) = slot.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        let size = size.first_chunk().unwrap_or(&[0; 4]);
        F::decode(at, [*size, *offset].as_flattened(), tail)
    }

    fn tail_len(value: F::Value<'_>) -> usize {
        F::tail_len(value)
    }

    fn encode(value: F::Value<'_>, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        F::encode(value, slot, tail);
        slot.rotate_left(4);
    }

    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<F::Value<'a>> {
        F::arbitrary(bytes)
    }
}
