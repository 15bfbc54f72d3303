//! What holds for every row of the tables of messages; `messages!` makes one test of each row.

use std::vec;
use std::vec::Vec;

use arbitrary::Unstructured;
use proptest::prelude::*;

use super::{Message, Row};
use crate::wire::FieldLayout;
use crate::{DecodeError, EncodeError, Fault};

/// The messages of a server or of a client.
pub(crate) trait Direction {
    type Message<'a>: Message + Copy + PartialEq + core::fmt::Debug;
    const TABLE: &'static [Row];
    fn arbitrary_of<'a>(id: u16, bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self::Message<'a>>;
    fn decode(id: u16, body: &[u8]) -> Result<Self::Message<'_>, DecodeError>;
}

/// Checks every rule for many messages of one row.
pub(crate) fn check<D: Direction>(id: u16) {
    let row = D::TABLE.iter().find(|row| row.id == id).expect("the test was made from the row");
    let mut fields = Vec::new();
    row.for_each_field(|field| fields.push(field));
    choices_reach_every_field::<D>(row, &fields);
    proptest!(|(
        choices in prop::collection::vec(any::<u8>(), 0..300),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    )| {
        let message = D::arbitrary_of(id, &mut Unstructured::new(&choices)).unwrap();
        let mut body = vec![0xaa; message.encoded_len()];
        prop_assert_eq!(message.encode(&mut body), Ok(body.len()));
        prop_assert_eq!(D::decode(id, &body), Ok(message), "decode after encode");

        if let Some((_, short)) = body.clone().split_last_mut() {
            prop_assert_eq!(message.encode(short), Err(EncodeError::BufferTooSmall { needed: body.len() }));
        }
        truncations_are_refused::<D>(row, &fields, &body)?;
        trailing_bytes_are_refused::<D>(row, &fields, &body)?;
        encode_after_decode_is_the_identity::<D>(row, &fields, &body, &noise)?;
    });
}

/// Whoever chooses the bytes of an arbitrary message, such as a fuzzer, can change each of its fields.
fn choices_reach_every_field<D: Direction>(row: &Row, fields: &[FieldLayout]) {
    let body = |choice: u8| {
        let choices = [choice; 300];
        let message = D::arbitrary_of(row.id, &mut Unstructured::new(&choices)).unwrap();
        let mut body = vec![0xaa; message.encoded_len()];
        message.encode(&mut body).unwrap();
        body
    };
    let bodies: Vec<_> = (0..=u8::MAX).map(body).collect();
    for field in fields {
        let slot = |body: &[u8]| body[field.offset..][..field.size].to_vec();
        let differ = |one: &[u8], other: &[u8]| match field.size {
            0 => one.len() != other.len(),
            _ => slot(one) != slot(other),
        };
        assert!(bodies.iter().any(|body| differ(body, &bodies[0])), "{} is always the same", field.name);
    }
}

fn truncations_are_refused<D: Direction>(row: &Row, fields: &[FieldLayout], body: &[u8]) -> Result<(), TestCaseError> {
    let fixed_len = fields.last().map_or(0, |last| last.offset + last.size);
    for cut in 0..body.len() {
        let decoded = D::decode(row.id, &body[..cut]);
        if cut < fixed_len {
            let field = fields.iter().find(|field| field.offset + field.size > cut).unwrap();
            let offset = u32::try_from(field.offset).unwrap();
            let error = DecodeError { message: row.c_name, field: field.name, offset, fault: Fault::Truncated };
            prop_assert_eq!(decoded, Err(error));
        } else if let Err(error) = decoded {
            prop_assert_eq!(error.fault, Fault::OutOfBounds, "{}", error);
        } else {
            prop_assert!(has_open_end(fields), "{decoded:?} of {cut} bytes");
        }
    }
    Ok(())
}

fn trailing_bytes_are_refused<D: Direction>(
    row: &Row,
    fields: &[FieldLayout],
    body: &[u8],
) -> Result<(), TestCaseError> {
    let longer = [body, &[0xff]].concat();
    match D::decode(row.id, &longer) {
        Ok(message) => prop_assert!(has_open_end(fields) || has_offsets(fields), "{message:?}"),
        Err(error) => {
            prop_assert_eq!(error.fault, Fault::TrailingBytes);
            prop_assert_eq!((error.field, error.offset), ("end", u32::try_from(body.len()).unwrap()));
        }
    }
    Ok(())
}

/// Also for bytes that this crate did not write, except that strings by offset may lie elsewhere.
fn encode_after_decode_is_the_identity<D: Direction>(
    row: &Row,
    fields: &[FieldLayout],
    body: &[u8],
    noise: &[(prop::sample::Index, u8)],
) -> Result<(), TestCaseError> {
    let mut body = body.to_vec();
    if !body.is_empty() {
        for (place, value) in noise {
            let place = place.index(body.len());
            body[place] = *value;
        }
    }
    if let Ok(message) = D::decode(row.id, &body) {
        let mut again = vec![0xaa; message.encoded_len()];
        prop_assert_eq!(message.encode(&mut again), Ok(again.len()));
        if has_offsets(fields) {
            prop_assert_eq!(D::decode(row.id, &again), Ok(message));
        } else {
            prop_assert_eq!(again, body);
        }
    }
    Ok(())
}

/// Whether the body may end at any place behind the fixed part.
fn has_open_end(fields: &[FieldLayout]) -> bool {
    fields.iter().any(|field| field.size == 0)
}

/// Whether strings lie where an offset says, so that bytes around them belong to nothing.
fn has_offsets(fields: &[FieldLayout]) -> bool {
    fields.iter().any(|field| field.layout.contains("offset"))
}
