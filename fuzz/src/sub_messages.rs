//! Messages within a message.

use std::ops::Range;

use arbitrary::Unstructured;
use spice_migration::{
    ChannelType, DecodeError, EncodeError, ServerMessage,
    frame::{Frame, Header},
    limits::MAX_SUB_MESSAGES,
    message::Message,
    sub_message::{SubMessage, SubMessages, encode_behind, encode_list},
};

use crate::codec;
use crate::layout::u32_at;
use crate::messages::{Dialect, Server};
use crate::mutation::mutate;

/// A body with sub-messages. Input: a byte whose lowest bit chooses, and
///
/// - if it is 0, the list's offset in two bytes, and the body;
/// - if it is 1, bytes that choose a message and its sub-messages, and then bytes of their encoding that change.
///
/// # Panics
/// - A list is refused, or not, otherwise than by a naive reading: all of it and of its sub-messages' headers lies in the body, and no
///   byte is in two of them. A sub-message's body ends where its size says, or where something else begins.
/// - Another sub-message is found than the list says, or in another order.
/// - What was found is not found again when it is encoded, behind a message or as SPICE_MSG_LIST, or a buffer one byte too small is not
///   refused with the size that is needed.
/// - A sub-message breaks a rule of server messages.
pub fn sub_messages(input: &[u8]) {
    check(input, listed);
}

/// `decode` is [`listed`], or one that does something wrong.
pub(crate) fn check(input: &[u8], decode: impl Fn(&[u8], u32) -> Result<Listed, DecodeError>) {
    match input {
        [shape, low, high, body @ ..] if shape & 1 == 0 => {
            check_list(body, u32::from(u16::from_le_bytes([*low, *high])), decode);
        }
        [_, choices @ ..] => {
            // Too few bytes to choose from: nothing to check.
            if let Ok((body, offset)) = structured(&mut Unstructured::new(choices)) {
                check_list(&body, offset, decode);
            }
        }
        [] => {}
    }
}

/// Where each sub-message of a list lies, and how much of the body is the carrier's.
#[derive(Debug, PartialEq)]
pub(crate) struct Listed {
    pub(crate) sub_messages: Vec<(u16, Range<usize>)>,
    pub(crate) carrier_len: usize,
}

/// A body with sub-messages and where their list is, with a few changes.
fn structured(choices: &mut Unstructured<'_>) -> arbitrary::Result<(Vec<u8>, u32)> {
    let carrier = message_body(choices)?.1;
    let mut parts = Vec::new();
    for _ in 0..choices.int_in_range(0..=4)? {
        parts.push(message_body(choices)?);
    }
    let mut sub_messages: Vec<SubMessage<'_>> = parts.iter().map(|(id, body)| SubMessage { id: *id, body }).collect();
    let (mut body, offset) = if choices.arbitrary()? {
        let (body, offset) = behind(&carrier, &sub_messages);
        assert_eq!(SubMessages::decode(&body, offset).unwrap().carrier_body(), carrier);
        (body, offset)
    } else {
        (list(&sub_messages), 0)
    };
    if sub_messages.len() > 1 && choices.arbitrary()? {
        // As spice-server has it: what is processed first lies last.
        let offsets = usize::try_from(offset).unwrap() + 2;
        body[offsets..][..4 * sub_messages.len()].as_chunks_mut::<4>().0.reverse();
        sub_messages.reverse();
    }
    assert!(SubMessages::decode(&body, offset).unwrap().iter().eq(sub_messages.iter().copied()));
    mutate(&mut body, choices)?;
    Ok((body, offset))
}

fn message_body(choices: &mut Unstructured<'_>) -> arbitrary::Result<(u16, Vec<u8>)> {
    let message: ServerMessage<'_> = choices.arbitrary()?;
    let mut body = vec![0; message.encoded_len()];
    assert_eq!(message.encode(&mut body), Ok(body.len()));
    Ok((message.id(), body))
}

fn check_list(body: &[u8], offset: u32, decode: impl Fn(&[u8], u32) -> Result<Listed, DecodeError>) {
    let found = decode(body, offset);
    let expected = naively_listed(body, offset);
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            assert_eq!(expected, None, "{error}");
            assert!(error.to_string().starts_with("SpiceSubMessageList"));
            assert!(usize::try_from(error.offset).unwrap() <= body.len(), "{error}");
            return;
        }
    };
    assert_eq!(Some(&found), expected.as_ref());
    let sub_messages: Vec<SubMessage<'_>> =
        found.sub_messages.iter().map(|(id, range)| SubMessage { id: *id, body: &body[range.clone()] }).collect();
    for sub_message in &sub_messages {
        let message = Server { dialect: Dialect::Major2, channel: ChannelType::MAIN, id: sub_message.id };
        codec::check(&message, sub_message.body);
    }
    let carrier = &body[..found.carrier_len];
    let (again, list_at) = behind(carrier, &sub_messages);
    let found_again = SubMessages::decode(&again, list_at).unwrap();
    assert_eq!(found_again.carrier_body(), carrier);
    assert!(found_again.iter().eq(sub_messages.iter().copied()));
    let again = list(&sub_messages);
    assert!(SubMessages::decode(&again, 0).unwrap().iter().eq(sub_messages.iter().copied()));
    let announced = |range: &Range<usize>| usize::try_from(u32_at(body, range.start - 4)).unwrap();
    let exact = found.sub_messages.iter().all(|(_, range)| announced(range) == range.len());
    if offset == 0 && again.len() == body.len() && carrier.is_empty() && in_order(&found) && exact {
        assert_eq!(again, body, "a list without gaps leaves its encoding no freedom");
    }
}

/// With [`SubMessages::decode`], and through [`Frame::sub_messages`].
pub(crate) fn listed(body: &[u8], offset: u32) -> Result<Listed, DecodeError> {
    let decoded = SubMessages::decode(body, offset);
    for id in [ServerMessage::TABLE[0].id, 8] {
        let header = Header { serial: 1, id, size: u32::try_from(body.len()).unwrap(), sub_list: offset };
        let of_frame = Frame { header, body }.sub_messages();
        assert_eq!(of_frame, if id != 8 && offset == 0 { Ok(None) } else { decoded.map(Some) });
    }
    let decoded = decoded?;
    assert_eq!((decoded.len(), decoded.is_empty()), (decoded.iter().count(), decoded.iter().next().is_none()));
    let place = |part: &[u8]| part.as_ptr().addr() - body.as_ptr().addr();
    let sub_messages = decoded.iter().map(|it| (it.id, place(it.body)..place(it.body) + it.body.len())).collect();
    assert!(body.starts_with(decoded.carrier_body()));
    Ok(Listed { sub_messages, carrier_len: decoded.carrier_body().len() })
}

/// What must be found: each byte is marked when something claims it.
fn naively_listed(body: &[u8], offset: u32) -> Option<Listed> {
    let mut claimed = vec![false; body.len()];
    let mut claim = |range: Range<usize>| {
        let free = claimed.get_mut(range)?;
        let was_free = !free.contains(&true);
        free.fill(true);
        was_free.then_some(())
    };
    let list = usize::try_from(offset).unwrap();
    let count = usize::from(u16::from_le_bytes(body.get(list..list.checked_add(2)?)?.try_into().unwrap()));
    if count > MAX_SUB_MESSAGES {
        return None;
    }
    claim(list..list + 2 + 4 * count)?;
    let mut listed = Listed { sub_messages: Vec::new(), carrier_len: list };
    let starts: Vec<_> = (0..count).map(|index| usize::try_from(u32_at(body, list + 2 + 4 * index)).unwrap()).collect();
    for start in &starts {
        claim(*start..start.checked_add(6)?)?;
    }
    for &start in &starts {
        let header = &body[start..start + 6];
        let size = usize::try_from(u32_at(header, 2)).unwrap();
        // Byte by byte, until all is there or something else begins.
        let ends = |at: &usize| *at == body.len() || *at == list || starts.contains(at) || *at - (start + 6) == size;
        let end = (start + 6..=body.len()).find(ends)?;
        listed.sub_messages.push((u16::from_le_bytes([header[0], header[1]]), start + 6..end));
        listed.carrier_len = listed.carrier_len.min(start);
    }
    Some(listed)
}

fn in_order(listed: &Listed) -> bool {
    listed.sub_messages.is_sorted_by_key(|(_, range)| range.start)
}

fn behind(carrier: &[u8], sub_messages: &[SubMessage<'_>]) -> (Vec<u8>, u32) {
    let length = carrier.len() + 2 + sub_messages.iter().map(|it| 10 + it.body.len()).sum::<usize>();
    let mut out = vec![0xaa; length];
    let short = encode_behind(carrier, sub_messages, &mut out[1..]);
    assert_eq!(short, Err(EncodeError::BufferTooSmall { needed: length }));
    let (written, offset) = encode_behind(carrier, sub_messages, &mut out).unwrap();
    assert_eq!(written, length);
    (out, offset)
}

fn list(sub_messages: &[SubMessage<'_>]) -> Vec<u8> {
    let length = 2 + sub_messages.iter().map(|it| 10 + it.body.len()).sum::<usize>();
    let mut out = vec![0xaa; length];
    assert_eq!(encode_list(sub_messages, &mut out[1..]), Err(EncodeError::BufferTooSmall { needed: length }));
    assert_eq!(encode_list(sub_messages, &mut out), Ok(length));
    out
}
