//! Headers, and the cutting of a byte stream into messages.
//!
//! Only this module says "need more": everything behind it decodes whole bodies.

use core::fmt;

use crate::message::Message;
use crate::sub_message::SubMessages;
use crate::{DecodeError, EncodeError, ServerMessage};

/// Which header a connection's messages have, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderKind {
    /// 18 bytes with a serial: `SpiceDataHeader`.
    Full,
    /// 6 bytes, when both sides have [`MINI_HEADER`](crate::caps::CommonCapability::MINI_HEADER):
    /// `SpiceMiniDataHeader`.
    Mini,
}

impl HeaderKind {
    /// Its length in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub const fn len(self) -> usize {
        match self {
            Self::Full => 18,
            Self::Mini => 6,
        }
    }
}

/// What stands before a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Counts the messages of one direction of one channel from 1, across a seamless migration. On the wire in full headers only.
    pub serial: u64,
    /// The message's id.
    pub id: u16,
    /// Bytes of body that follow.
    pub size: u32,
    /// Where in the body the list of sub-messages begins; 0: there is none. On the wire in full headers only.
    pub sub_list: u32,
}

impl Header {
    /// Reads the header at the front of `bytes`; `None` if it is not whole. `serial` is what a mini header leaves out.
    #[inline]
    #[must_use]
    pub fn decode(kind: HeaderKind, bytes: &[u8], serial: u64) -> Option<Self> {
        match kind {
            HeaderKind::Mini => {
                let (id, rest) = bytes.split_first_chunk()?;
                let size = rest.first_chunk()?;
                Some(Self { serial, id: u16::from_le_bytes(*id), size: u32::from_le_bytes(*size), sub_list: 0 })
            }
            HeaderKind::Full => {
                let (serial, rest) = bytes.split_first_chunk()?;
                let (id, rest) = rest.split_first_chunk()?;
                let (size, rest) = rest.split_first_chunk()?;
                let sub_list = rest.first_chunk()?;
                Some(Self {
                    serial: u64::from_le_bytes(*serial),
                    id: u16::from_le_bytes(*id),
                    size: u32::from_le_bytes(*size),
                    sub_list: u32::from_le_bytes(*sub_list),
                })
            }
        }
    }

    /// Writes the header to the front of `out` and returns its length.
    ///
    /// # Errors
    /// When `out` is too small.
    #[inline]
    pub fn encode(&self, kind: HeaderKind, out: &mut [u8]) -> Result<usize, EncodeError> {
        let needed = kind.len();
        let out = out.get_mut(..needed).ok_or(EncodeError::BufferTooSmall { needed })?;
        let (mini, sub_list) = match kind {
            HeaderKind::Mini => (out, None),
            HeaderKind::Full => {
                let Some((serial, rest)) = out.split_first_chunk_mut() else { return Ok(0) };
                *serial = self.serial.to_le_bytes();
                let Some((mini, sub_list)) = rest.split_at_mut_checked(HeaderKind::Mini.len()) else { return Ok(0) };
                (mini, sub_list.first_chunk_mut())
            }
        };
        if let Some((id, size)) = mini.split_first_chunk_mut() {
            *id = self.id.to_le_bytes();
            size.copy_from_slice(&self.size.to_le_bytes());
        }
        if let Some(sub_list) = sub_list {
            *sub_list = self.sub_list.to_le_bytes();
        }
        Ok(needed)
    }
}

/// Encodes a header and a message into the front of `out` and returns their length.
///
/// # Errors
/// When `out` is too small, or the body exceeds [`MAX_BODY`](crate::limits::MAX_BODY).
///
/// ```
/// use spice_migration::{ClientMessage, frame::{self, HeaderKind}};
///
/// let mut out = [0; 64];
/// let length = frame::encode(HeaderKind::Mini, 1, &ClientMessage::AttachChannels, &mut out)?;
/// assert_eq!(out[..length], [104, 0, 0, 0, 0, 0]);
/// # Ok::<(), spice_migration::EncodeError>(())
/// ```
#[inline]
pub fn encode(kind: HeaderKind, serial: u64, message: &impl Message, out: &mut [u8]) -> Result<usize, EncodeError> {
    message.encode_framed(kind, serial, out)
}

/// The same with a look at the message for each of its length, body and id.
pub(crate) fn encode_in_steps(
    kind: HeaderKind,
    serial: u64,
    message: &(impl Message + ?Sized),
    out: &mut [u8],
) -> Result<usize, EncodeError> {
    let body_len = message.encoded_len();
    let size = u32::try_from(body_len).map_err(|_| EncodeError::TooLong)?;
    let needed = kind.len().saturating_add(body_len);
    let (header, body) = out.split_at_mut_checked(kind.len()).ok_or(EncodeError::BufferTooSmall { needed })?;
    if body.len() < body_len {
        return Err(EncodeError::BufferTooSmall { needed });
    }
    message.encode(body)?;
    Header { serial, id: message.id(), size, sub_list: 0 }.encode(kind, header)?;
    Ok(needed)
}

/// One message as it came off the wire, not yet decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header; the serial is counted where it is not on the wire.
    pub header: Header,
    /// Its body, sub-messages included: see [`Self::message_body`].
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The messages within this one of a server, which are processed before it: the list that a full header's `sub_list`
    /// points to, or that is the body of SPICE_MSG_LIST.
    ///
    /// # Errors
    /// When the list is not one: see [`SubMessages::decode`].
    pub fn sub_messages(&self) -> Result<Option<SubMessages<'a>>, DecodeError> {
        match self.header {
            Header { id: ServerMessage::LIST, sub_list: offset, .. } | Header { sub_list: offset @ 1.., .. } => {
                SubMessages::decode(self.body, offset).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The body for [`ServerMessage::decode`]: without the sub-messages and their list, which are not the message's own.
    ///
    /// # Errors
    /// As [`Self::sub_messages`].
    pub fn message_body(&self) -> Result<&'a [u8], DecodeError> {
        match self.header.sub_list {
            0 => Ok(self.body),
            offset => SubMessages::decode(self.body, offset).map(SubMessages::carrier_body),
        }
    }
}

/// The stream cannot be cut further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OversizedBody {
    /// The message's id.
    pub id: u16,
    /// The size that its header announces.
    pub size: u32,
    /// The most that this connection takes.
    pub limit: u32,
}

impl fmt::Display for OversizedBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, size, limit } = self;
        write!(formatter, "message {id} announces a body of {size} bytes; the limit is {limit}")
    }
}

impl core::error::Error for OversizedBody {}

#[cfg(feature = "std")]
impl From<OversizedBody> for std::io::Error {
    fn from(error: OversizedBody) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// Cuts the message at the front of `bytes`: it, and how many bytes it takes. `None` if it is not whole.
///
/// # Errors
/// When its header announces more than `limit` bytes: there is no use in waiting for more of them.
#[inline]
pub fn cut(
    kind: HeaderKind,
    bytes: &[u8],
    serial: u64,
    limit: u32,
) -> Result<Option<(Frame<'_>, usize)>, OversizedBody> {
    let Some(header) = Header::decode(kind, bytes, serial) else { return Ok(None) };
    if header.size > limit {
        return Err(OversizedBody { id: header.id, size: header.size, limit });
    }
    let end = kind.len().saturating_add(crate::wire::index(header.size));
    Ok(bytes.get(kind.len()..end).map(|body| (Frame { header, body }, end)))
}

#[cfg(feature = "alloc")]
pub use deframer::Deframer;

#[cfg(feature = "alloc")]
mod deframer {
    use alloc::vec::Vec;

    use super::{Frame, HeaderKind, OversizedBody, cut};
    use crate::limits;

    /// Cuts one direction of one connection into messages, from bytes that arrive in any pieces.
    ///
    /// Its buffer holds no more than the last push and the message that it continued: a header that announces much allocates nothing.
    ///
    /// ```
    /// use spice_migration::{ChannelType, ServerMessage, frame::{Deframer, HeaderKind}};
    ///
    /// let mut deframer = Deframer::new(HeaderKind::Mini);
    /// deframer.push(&[117, 0, 0]);
    /// assert!(deframer.next_frame()?.is_none());
    /// deframer.push(&[0, 0, 0]);
    /// let frame = deframer.next_frame()?.unwrap();
    /// let message = ServerMessage::decode(ChannelType::MAIN, frame.header.id, frame.body)?;
    /// assert_eq!(message, ServerMessage::MigrateDstSeamlessAck);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Deframer {
        kind: HeaderKind,
        limit: u32,
        /// Of the next message.
        serial: u64,
        buffer: Vec<u8>,
        /// Bytes at the front of the buffer that frames already taken occupied.
        taken: usize,
    }

    impl Deframer {
        /// For a connection whose link stage has ended with this kind of header.
        #[must_use]
        pub const fn new(kind: HeaderKind) -> Self {
            Self { kind, limit: limits::MAX_BODY, serial: 1, buffer: Vec::new(), taken: 0 }
        }

        /// Refuses bodies of more than `limit` bytes, in place of [`MAX_BODY`](crate::limits::MAX_BODY).
        #[must_use]
        pub const fn with_limit(mut self, limit: u32) -> Self {
            self.limit = limit;
            self
        }

        /// Counts on from `serial`, the next message's, where headers do not tell: after a seamless migration the target's
        /// messages are numbered on from the source's.
        #[must_use]
        pub const fn with_serial(mut self, serial: u64) -> Self {
            self.serial = serial;
            self
        }

        /// Adds bytes as they arrived.
        pub fn push(&mut self, bytes: &[u8]) {
            // Moving the rest to the front here, once per read, keeps every byte's way short.
            self.buffer.drain(..self.taken);
            self.taken = 0;
            self.buffer.extend_from_slice(bytes);
        }

        /// Takes the next whole message; `None` until more bytes are pushed.
        ///
        /// # Errors
        /// When a header announces more than the limit. It stays so: the connection is of no more use.
        #[inline]
        pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, OversizedBody> {
            let bytes = self.buffer.get(self.taken..).unwrap_or_default();
            let Some((frame, length)) = cut(self.kind, bytes, self.serial, self.limit)? else { return Ok(None) };
            self.taken = self.taken.saturating_add(length);
            self.serial = self.serial.saturating_add(1);
            Ok(Some(frame))
        }

        /// How many bytes wait for the rest of their message.
        #[must_use]
        pub fn pending(&self) -> usize {
            self.buffer.len().saturating_sub(self.taken)
        }
    }
}
