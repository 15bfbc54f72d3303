//! The link stage, with which each connection begins: who speaks which version, for which channel, with what capabilities,
//! and whether the client may.
//!
//! 1. The client sends a [`LinkHeader`] and a [`LinkMessage`].
//! 2. The server sends a [`LinkHeader`] and a [`LinkReply`]; when the reply's error is not `OK`, the stage ends here.
//! 3. If both sides have `AUTH_SELECTION`, the client sends an [`AuthMechanism`].
//! 4. The client sends the [`TICKET_LEN`] bytes of its ticket: the password and a NUL, encrypted to the reply's public key
//!    with RSA-OAEP(SHA-1). An empty password is one NUL.
//! 5. The server sends a [`LinkError`] of 4 bytes: the link result. If it is `OK`, messages follow.

use crate::caps::CapabilityWords;
use crate::channel::ChannelType;
use crate::error::{DecodeError, EncodeError, Fault};
use crate::limits;
use crate::wire::{self, At, Field, FieldLayout, Located, Tail, TailWriter, open_enum, wire_struct};

/// The first bytes of every link header, `SPICE_MAGIC`.
pub const MAGIC: [u8; 4] = *b"REDQ";

/// The major version that this crate speaks.
pub const VERSION_MAJOR: u32 = 2;

/// The minor version that this crate speaks; servers do not check it.
pub const VERSION_MINOR: u32 = 2;

/// Length of a link header in bytes.
pub const LINK_HEADER_LEN: usize = 16;

/// Length of a link message in bytes, without capability words.
pub const LINK_MESSAGE_LEN: usize = 18;

/// Length of a link reply in bytes, without capability words.
pub const LINK_REPLY_LEN: usize = 178;

/// Length of the public key in a link reply: the DER form of a 1024-bit RSA key (SubjectPublicKeyInfo).
pub const PUBLIC_KEY_LEN: usize = 162;

/// Length of an encrypted ticket in bytes.
pub const TICKET_LEN: usize = 128;

open_enum! {
    /// Why a link failed, or a channel was closed: `SPICE_LINK_ERR_*`.
    pub struct LinkError(u32);
    /// It did not.
    OK = 0 "OK";
    /// Something else.
    ERROR = 1 "ERROR";
    /// The first four bytes are not [`MAGIC`].
    INVALID_MAGIC = 2 "INVALID_MAGIC";
    /// The link message is not one.
    INVALID_DATA = 3 "INVALID_DATA";
    /// Another major version.
    VERSION_MISMATCH = 4 "VERSION_MISMATCH";
    /// This channel is for TLS only.
    NEED_SECURED = 5 "NEED_SECURED";
    /// This channel is for plaintext only.
    NEED_UNSECURED = 6 "NEED_UNSECURED";
    /// Wrong ticket.
    PERMISSION_DENIED = 7 "PERMISSION_DENIED";
    /// No session has that connection id.
    BAD_CONNECTION_ID = 8 "BAD_CONNECTION_ID";
    /// No such channel.
    CHANNEL_NOT_AVAILABLE = 9 "CHANNEL_NOT_AVAILABLE";
}

open_enum! {
    /// How the client authenticates itself: `SPICE_COMMON_CAP_AUTH_*`, by number.
    pub struct AuthMechanism(u32);
    /// By a ticket.
    SPICE = 1 "spice";
    /// By SASL, which this crate does not speak.
    SASL = 2 "sasl";
}

wire_struct! {
    /// What stands before a link message and a link reply: `SpiceLinkHeader`, after its magic.
    pub struct LinkHeader {
        /// The sender's major version.
        major_version: u32,
        /// The sender's minor version.
        minor_version: u32,
        /// Bytes that follow.
        size: u32,
    }
}

wire_struct! {
    /// What a client wants: `SpiceLinkMess`.
    pub struct LinkMessage<'a> {
        /// The session that the channel belongs to; 0 for a new one.
        connection_id: u32,
        /// The channel's type.
        channel_type: ChannelType,
        /// The channel's id among those of its type.
        channel_id: u8,
        /// The client's capabilities.
        capabilities: Capabilities<'a> => Capabilities<'static>,
    }
}

wire_struct! {
    /// What a server answers: `SpiceLinkReply`.
    pub struct LinkReply<'a> {
        /// `OK`, or why not.
        error: LinkError,
        /// To encrypt the ticket with; zeros beside an error.
        public_key: [u8; PUBLIC_KEY_LEN],
        /// The server's capabilities.
        capabilities: Capabilities<'a> => Capabilities<'static>,
    }
}

/// The capabilities of one side.
///
/// On the wire: the number of common words, of channel words, and the offset of the first word, with the channel's behind the
/// common ones. The words may lie anywhere behind the fixed part; encoding puts them directly there. Without any words the
/// offset means nothing and is encoded as 0, as in spice-server's error replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Capabilities<'a> {
    /// [`CommonCapability`](crate::caps::CommonCapability) bits.
    pub common: CapabilityWords<'a>,
    /// Bits of the channel's own type, such as [`MainCapability`](crate::caps::MainCapability).
    pub channel: CapabilityWords<'a>,
}

impl Field for Capabilities<'static> {
    type Value<'a> = Capabilities<'a>;
    const SLOT: usize = 12;
    const LAYOUT: &'static str = "u32 number of common and of channel words, u32 offset of the words";
    const BY_OFFSET: bool = true;

    fn describe(at: At, show: &mut dyn FnMut(FieldLayout)) {
        for (name, place) in [("num_common_caps", 0), ("num_channel_caps", 4), ("caps_offset", 8)] {
            u32::describe(At { field: name, offset: at.offset.saturating_add(place) }, show);
        }
    }

    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<Capabilities<'a>, Located> {
        let common_at = At { field: "num_common_caps", ..at };
        let channel_at = At { field: "num_channel_caps", offset: at.offset.saturating_add(4) };
        let offset_at = At { field: "caps_offset", offset: at.offset.saturating_add(8) };

        let ([num_common, num_channel, caps_offset], []) = slot.as_chunks::<4>() else {
            return Err(at.fault(Fault::Truncated));
        };
        let num_common = u32::from_le_bytes(*num_common);
        let num_channel = u32::from_le_bytes(*num_channel);
        let caps_offset = wire::index(u32::from_le_bytes(*caps_offset));
        if num_common > limits::MAX_CAPABILITY_WORDS {
            return Err(common_at.fault(Fault::LimitExceeded));
        }
        if num_channel > limits::MAX_CAPABILITY_WORDS {
            return Err(channel_at.fault(Fault::LimitExceeded));
        }
        if num_common == 0 && num_channel == 0 {
            return Ok(Capabilities::default());
        }
        if caps_offset < tail.offset() {
            return Err(offset_at.fault(Fault::OffsetInFixedPart));
        }
        let words = tail.body.get(caps_offset..).ok_or(offset_at.fault(Fault::OutOfBounds))?.as_chunks::<4>().0;
        let (common, words) =
            words.split_at_checked(wire::index(num_common)).ok_or(common_at.fault(Fault::OutOfBounds))?;
        let channel = words.get(..wire::index(num_channel)).ok_or(channel_at.fault(Fault::OutOfBounds))?;
        Ok(Capabilities { common: CapabilityWords::new(common), channel: CapabilityWords::new(channel) })
    }

    fn tail_len(value: Capabilities<'_>) -> usize {
        let bytes = |words: CapabilityWords<'_>| words.as_wire().as_flattened().len().min(wire::TOO_LONG);
        bytes(value.common).saturating_add(bytes(value.channel))
    }

    fn encode(value: Capabilities<'_>, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        let common = value.common.as_wire();
        let channel = value.channel.as_wire();
        let offset = tail.put(common.as_flattened());
        tail.put(channel.as_flattened());
        let ([num_common, num_channel, caps_offset], []) = slot.as_chunks_mut::<4>() else { return };
        let number = |length| wire::slot_len(length).to_le_bytes();
        *num_common = number(common.len());
        *num_channel = number(channel.len());
        *caps_offset = number(if common.is_empty() && channel.is_empty() { 0 } else { offset });
    }

    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Capabilities<'a>> {
        let mut words = || wire::some_bytes(bytes).map(|bytes| CapabilityWords::new(bytes.as_chunks().0));
        Ok(Capabilities { common: words()?, channel: words()? })
    }
}

impl LinkHeader {
    /// A header of this crate's version.
    #[must_use]
    pub const fn new(size: u32) -> Self {
        Self { major_version: VERSION_MAJOR, minor_version: VERSION_MINOR, size }
    }

    /// Decodes the header, magic included.
    ///
    /// # Errors
    /// When the magic is wrong, or `size` exceeds [`MAX_LINK_BODY`](limits::MAX_LINK_BODY).
    pub fn decode(bytes: &[u8; LINK_HEADER_LEN]) -> Result<Self, DecodeError> {
        const NAME: &str = "SpiceLinkHeader";
        let fault = |field, offset, fault| At { field, offset }.fault(fault).in_message(NAME);
        let Some(rest) = bytes.strip_prefix(&MAGIC) else { return Err(fault("magic", 0, Fault::WrongMagic)) };
        let header = wire::decode_body::<Self, { LINK_HEADER_LEN - MAGIC.len() }>(NAME, rest)?;
        if header.size > limits::MAX_LINK_BODY {
            return Err(fault("size", 12, Fault::LimitExceeded));
        }
        Ok(header)
    }

    /// Encodes the header, magic included.
    #[must_use]
    pub fn encode(self) -> [u8; LINK_HEADER_LEN] {
        let mut bytes = [0; LINK_HEADER_LEN];
        if let Some((magic, rest)) = bytes.split_first_chunk_mut() {
            *magic = MAGIC;
            let written = wire::encode_body::<Self>(self, rest);
            debug_assert!(written.is_ok(), "the array has room for all of it");
        }
        bytes
    }
}

macro_rules! link_body {
    ($Name:ident, $c_name:literal, $length:expr) => {
        impl<'a> $Name<'a> {
            /// Decodes what follows the link header. Borrows from `body`; allocates nothing.
            ///
            /// # Errors
            /// When the bytes are too few or too many, or a count or offset leads beyond them or the limits.
            pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
                let limit = wire::index(limits::MAX_LINK_BODY);
                if body.len() > limit {
                    return Err(At { field: "end", offset: limit }.fault(Fault::LimitExceeded).in_message($c_name));
                }
                wire::decode_body::<$Name<'static>, { $length }>($c_name, body)
            }

            /// The length of the encoded form in bytes, without the header.
            #[must_use]
            pub fn encoded_len(&self) -> usize {
                wire::body_len::<$Name<'static>>(*self)
            }

            /// Encodes what follows the link header into the front of `out` and returns its length.
            ///
            /// # Errors
            /// When `out` is too small, or the capability words exceed the [`limits`](crate::limits).
            pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
                if self.encoded_len() > wire::index(limits::MAX_LINK_BODY) {
                    return Err(EncodeError::TooLong);
                }
                wire::encode_body::<$Name<'static>>(*self, out)
            }

            /// Encodes a header of this crate's version and what follows it into the front of `out`, and returns the length of
            /// both: [`LINK_HEADER_LEN`] more than [`Self::encoded_len`].
            ///
            /// # Errors
            /// As [`Self::encode`].
            pub fn encode_with_header(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
                let body_len = self.encoded_len();
                let size = u32::try_from(body_len).map_err(|_| EncodeError::TooLong)?;
                let needed = LINK_HEADER_LEN.saturating_add(body_len);
                let (header, body) = out.split_first_chunk_mut().ok_or(EncodeError::BufferTooSmall { needed })?;
                self.encode(body).map_err(|error| match error {
                    EncodeError::BufferTooSmall { .. } => EncodeError::BufferTooSmall { needed },
                    error => error,
                })?;
                *header = LinkHeader::new(size).encode();
                Ok(needed)
            }
        }
    };
}
link_body!(LinkMessage, "SpiceLinkMess", LINK_MESSAGE_LEN);
link_body!(LinkReply, "SpiceLinkReply", LINK_REPLY_LEN);
