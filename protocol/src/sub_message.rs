//! Messages within a message: behind a full header's `sub_list`, or as the body of SPICE_MSG_LIST. Only servers send them.
//!
//! The list says where each sub-message lies; all offsets count from the start of the body. A receiver processes them in the
//! order of the list, and then the message that carries them, if it is not just a list. They may lie in another order:
//! spice-server 0.15.1 puts the one that is to be processed first last. [`Frame::sub_messages`](crate::frame::Frame::sub_messages)
//! finds the list of either kind.
//!
//! A sub-message ends where its size says, or before that where the next one, the list or the body's end comes: spice-server 0.15.1
//! announces the size of its structs in memory, which is more than it writes (`marshal_sub_msg_inval_list_wait`), and spice-gtk
//! 0.42 reads what the message's own fields ask for. spice-gtk checks no offset (`spice_channel_recv_msg`).
//!
//! ```
//! use spice_migration::sub_message::SubMessages;
//!
//! //          body   id 1, 4 bytes        two bytes of count, one offset
//! let body = b"main\x01\0\x04\0\0\0\x03\0\0\0\x01\0\x04\0\0\0";
//! let list = SubMessages::decode(body, 14)?;
//! let sub_message = list.iter().next().unwrap();
//! assert_eq!((sub_message.id, sub_message.body), (1, &[3, 0, 0, 0][..]));
//! assert_eq!(list.carrier_body(), b"main");
//! # Ok::<(), spice_migration::DecodeError>(())
//! ```

use core::ops::Range;

use crate::wire::{At, TailWriter, index, slot_len};
use crate::{DecodeError, EncodeError, Fault, limits};

/// Length of a sub-message's header in bytes: type and size.
const HEADER_LEN: usize = 6;

/// Sub-messages that all lie within the body, apart from each other and from their list: `SpiceSubMessageList`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubMessages<'a> {
    body: &'a [u8],
    list_start: usize,
    offsets: &'a [[u8; 4]],
}

/// One message within another: `SpiceSubMessage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubMessage<'a> {
    /// Its id.
    pub id: u16,
    /// Its body.
    pub body: &'a [u8],
}

impl<'a> SubMessages<'a> {
    /// Decodes the list at `offset` of a body, and checks every sub-message. Allocates nothing; takes time that grows with the
    /// square of the list's length, which [`MAX_SUB_MESSAGES`](limits::MAX_SUB_MESSAGES) bounds.
    ///
    /// # Errors
    /// When the list or a sub-message's header reaches beyond the body or into another one, or when there are too many.
    pub fn decode(body: &'a [u8], offset: u32) -> Result<Self, DecodeError> {
        let fault = |field, at, fault| At { field, offset: at }.fault(fault).in_message("SpiceSubMessageList");
        let list_start = index(offset);
        let list = body.get(list_start..).ok_or_else(|| fault("sub_list", body.len(), Fault::OutOfBounds))?;
        let (count, list) = list.split_first_chunk().ok_or_else(|| fault("size", list_start, Fault::Truncated))?;
        let count = usize::from(u16::from_le_bytes(*count));
        if count > limits::MAX_SUB_MESSAGES {
            return Err(fault("size", list_start, Fault::LimitExceeded));
        }
        let offsets = list.as_chunks().0.get(..count).ok_or_else(|| fault("size", list_start, Fault::OutOfBounds))?;

        let slots = list_start.saturating_add(2);
        let list_range = list_start..slots.saturating_add(offsets.as_flattened().len());
        for (position, start) in starts(offsets).enumerate() {
            let header = start..start.saturating_add(HEADER_LEN);
            let slot = slots.saturating_add(position.saturating_mul(4));
            if header.end > body.len() {
                return Err(fault("sub_messages", slot, Fault::OutOfBounds));
            }
            let mut earlier = starts(offsets).take(position);
            if overlap(&header, &list_range) || earlier.any(|other| start.abs_diff(other) < HEADER_LEN) {
                return Err(fault("sub_messages", slot, Fault::Overlap));
            }
        }
        Ok(Self { body, list_start, offsets })
    }

    /// The sub-messages in the order in which they are processed.
    pub fn iter(self) -> impl Iterator<Item = SubMessage<'a>> {
        // INVARIANT: `decode` has seen that every header is there.
        starts(self.offsets).filter_map(move |start| self.at(start))
    }

    /// How many there are.
    #[must_use]
    pub const fn len(self) -> usize {
        self.offsets.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.offsets.is_empty()
    }

    /// The body of the message that carries them: what stands before the first of them and their list.
    #[must_use]
    pub fn carrier_body(self) -> &'a [u8] {
        let first = starts(self.offsets).fold(self.list_start, usize::min);
        self.body.get(..first).unwrap_or_default()
    }

    fn at(self, start: usize) -> Option<SubMessage<'a>> {
        let behind = starts(self.offsets).chain([self.list_start]).filter(|other| *other > start);
        let next = behind.fold(self.body.len(), usize::min);
        let (id, rest) = self.body.get(start..next)?.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let body = rest.get(..index(u32::from_le_bytes(*size))).unwrap_or(rest);
        Some(SubMessage { id: u16::from_le_bytes(*id), body })
    }
}

fn starts(offsets: &[[u8; 4]]) -> impl Iterator<Item = usize> + '_ {
    offsets.iter().map(|offset| index(u32::from_le_bytes(*offset)))
}

/// Encodes `carrier_body`, behind it the sub-messages, and last their list, into the front of `out`. Returns the length of all,
/// and where the list begins: the full header's `sub_list`.
///
/// # Errors
/// When `out` is too small, there are more than [`MAX_SUB_MESSAGES`](limits::MAX_SUB_MESSAGES), or all would exceed
/// [`MAX_BODY`](limits::MAX_BODY).
pub fn encode_behind(
    carrier_body: &[u8],
    sub_messages: &[SubMessage<'_>],
    out: &mut [u8],
) -> Result<(usize, u32), EncodeError> {
    let start = carrier_body.len();
    let list = sub_messages.iter().fold(start, |end, sub_message| end.saturating_add(sub_message.encoded_len()));
    let length = list.saturating_add(list_len(sub_messages));
    let mut writer = TailWriter::new(0, room(out, sub_messages, length)?);
    writer.put(carrier_body);
    put_sub_messages(&mut writer, sub_messages);
    put_list(&mut writer, sub_messages, start);
    // INVARIANT: `room` has held it against MAX_BODY.
    Ok((length, u32::try_from(list).unwrap_or(0)))
}

/// Encodes the body of SPICE_MSG_LIST, the list first, into the front of `out` and returns its length.
///
/// # Errors
/// As [`encode_behind`].
pub fn encode_list(sub_messages: &[SubMessage<'_>], out: &mut [u8]) -> Result<usize, EncodeError> {
    let start = list_len(sub_messages);
    let length = sub_messages.iter().fold(start, |end, sub_message| end.saturating_add(sub_message.encoded_len()));
    let mut writer = TailWriter::new(0, room(out, sub_messages, length)?);
    put_list(&mut writer, sub_messages, start);
    put_sub_messages(&mut writer, sub_messages);
    Ok(length)
}

impl SubMessage<'_> {
    const fn encoded_len(&self) -> usize {
        HEADER_LEN.saturating_add(self.body.len())
    }
}

const fn list_len(sub_messages: &[SubMessage<'_>]) -> usize {
    sub_messages.len().saturating_mul(4).saturating_add(2)
}

fn room<'a>(out: &'a mut [u8], sub_messages: &[SubMessage<'_>], needed: usize) -> Result<&'a mut [u8], EncodeError> {
    if sub_messages.len() > limits::MAX_SUB_MESSAGES || needed > index(limits::MAX_BODY) {
        return Err(EncodeError::TooLong);
    }
    out.get_mut(..needed).ok_or(EncodeError::BufferTooSmall { needed })
}

fn put_sub_messages(writer: &mut TailWriter<'_>, sub_messages: &[SubMessage<'_>]) {
    for sub_message in sub_messages {
        writer.put(&sub_message.id.to_le_bytes());
        writer.put(&number(sub_message.body.len()));
        writer.put(sub_message.body);
    }
}

fn put_list(writer: &mut TailWriter<'_>, sub_messages: &[SubMessage<'_>], mut offset: usize) {
    let [low, high, ..] = number(sub_messages.len());
    writer.put(&[low, high]);
    for sub_message in sub_messages {
        writer.put(&number(offset));
        offset = offset.saturating_add(sub_message.encoded_len());
    }
}

fn number(length: usize) -> [u8; 4] {
    slot_len(length).to_le_bytes()
}

fn overlap(one: &Range<usize>, other: &Range<usize>) -> bool {
    one.start < other.end && other.start < one.end
}
