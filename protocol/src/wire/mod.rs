//! How bytes become values: scalars, strings by offset, counted lists, and the macros that declare a message once.
//!
//! A message body is a fixed part, in which every field has a slot of constant size, and a tail, where the bytes lie that a
//! slot announces. One step takes the whole fixed part; the slots are then read at constant offsets.

mod declare;
mod fields;

pub use fields::{Data, List, ListItem, Text, WireArray};

pub(crate) use declare::{flags, messages, newtype_field, open_enum, wire_struct};
#[cfg(any(test, feature = "arbitrary"))]
pub(crate) use fields::some_bytes;
pub(crate) use fields::{Counted, DataAt, Empty, Items, OptionalNul, OptionalTextAt, Rest, Scalar, TextAt, slot_len};

use crate::error::{DecodeError, EncodeError, Fault};
use crate::frame::{Header, HeaderKind};
use crate::limits;

/// A nom parser's result over bytes. nom stays behind this alias: it is not part of the public API.
pub(crate) type Parsed<'a, T> = nom::IResult<&'a [u8], T, Fault>;

/// Takes the fixed part in one step.
#[inline(always)]
pub(crate) fn fixed<const SIZE: usize>(input: &[u8]) -> Parsed<'_, &[u8; SIZE]> {
    match input.split_first_chunk::<SIZE>() {
        Some((fixed, rest)) => Ok((rest, fixed)),
        None => Err(nom::Err::Error(Fault::Truncated)),
    }
}

/// Takes `length` bytes that must be there.
#[inline(always)]
pub(crate) fn take(length: usize) -> impl Fn(&[u8]) -> Parsed<'_, &[u8]> {
    move |input| match input.split_at_checked(length) {
        Some((taken, rest)) => Ok((rest, taken)),
        None => Err(nom::Err::Error(Fault::OutOfBounds)),
    }
}

/// A number from the wire as a length, count or offset in memory.
#[inline(always)]
pub(crate) fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Where a field stands, for the error that it may give.
#[derive(Clone, Copy)]
pub(crate) struct At {
    pub(crate) field: &'static str,
    /// Bytes from the start of the body.
    pub(crate) offset: usize,
}

/// A fault, and where. [`DecodeError`] adds the message.
pub(crate) struct Located {
    pub(crate) at: At,
    pub(crate) fault: Fault,
}

impl At {
    #[inline(always)]
    pub(crate) fn fault(self, fault: Fault) -> Located {
        Located { at: self, fault }
    }
}

impl Located {
    #[cold]
    pub(crate) fn in_message(self, message: &'static str) -> DecodeError {
        let offset = u32::try_from(self.at.offset).unwrap_or(u32::MAX);
        DecodeError { message, field: self.at.field, offset, fault: self.fault }
    }
}

/// The bytes behind the fixed part.
pub(crate) struct Tail<'a> {
    /// The whole body: what a string's offset counts in.
    pub(crate) body: &'a [u8],
    /// What no field has taken so far.
    pub(crate) rest: &'a [u8],
}

impl<'a> Tail<'a> {
    /// Where the tail's untaken bytes begin in the body.
    #[inline(always)]
    pub(crate) fn offset(&self) -> usize {
        // INVARIANT: they are a part of it. A saturating subtraction would not become a constant.
        self.body.len().wrapping_sub(self.rest.len())
    }

    /// The body from `offset` on, which must not lie in the fixed part. For messages whose tail is not consumed in order: there
    /// it begins where the fixed part ends.
    #[inline(always)]
    pub(crate) fn at(&self, offset: u32) -> Result<&'a [u8], Fault> {
        let offset = index(offset);
        if offset < self.offset() {
            return Err(Fault::OffsetInFixedPart);
        }
        self.body.get(offset..).ok_or(Fault::OutOfBounds)
    }

    /// Takes the next bytes of the tail.
    #[inline(always)]
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        match take(length)(self.rest) {
            Ok((rest, taken)) => {
                self.rest = rest;
                Ok(taken)
            }
            Err(_) => Err(Fault::OutOfBounds),
        }
    }
}

/// In place of a length that no message has: it cannot be encoded.
#[allow(clippy::as_conversions, reason = "`try_from` is no constant function, and the number fits")]
pub(crate) const TOO_LONG: usize = limits::MAX_BODY as usize + 1;

/// Writes the bytes behind the fixed part.
pub(crate) struct TailWriter<'a> {
    /// Where the next byte lies in the body.
    pub(crate) offset: usize,
    rest: &'a mut [u8],
}

impl<'a> TailWriter<'a> {
    /// Writes into `rest`, whose first byte lies at `offset` in the body.
    #[inline(always)]
    pub(crate) fn new(offset: usize, rest: &'a mut [u8]) -> Self {
        Self { offset, rest }
    }

    /// Appends bytes and returns where in the body they lie.
    ///
    /// INVARIANT: the buffer was sized by the same fields' `tail_len`, so the bytes fit.
    #[inline(always)]
    pub(crate) fn put(&mut self, bytes: &[u8]) -> usize {
        let at = self.offset;
        if let Some((place, rest)) = core::mem::take(&mut self.rest).split_at_mut_checked(bytes.len()) {
            place.copy_from_slice(bytes);
            self.rest = rest;
            self.offset = at.wrapping_add(bytes.len());
        }
        at
    }

    /// Appends a string and its NUL. INVARIANT: as above.
    #[inline(always)]
    pub(crate) fn put_terminated(&mut self, string: &[u8]) {
        let size = string.len().wrapping_add(1);
        if let Some((place, rest)) = core::mem::take(&mut self.rest).split_at_mut_checked(size)
            && let Some((nul, place)) = place.split_last_mut()
        {
            place.copy_from_slice(string);
            *nul = 0;
            self.rest = rest;
            self.offset = self.offset.wrapping_add(size);
        }
    }
}

/// How one field lies on the wire: a slot in the fixed part, and perhaps bytes in the tail.
///
/// Implemented by scalars for themselves, by the kinds in `fields`, and by every struct that `wire_struct!` declares.
pub(crate) trait Field {
    /// What the field's bytes mean.
    type Value<'a>: Copy;
    /// Bytes in the fixed part.
    const SLOT: usize;
    /// What lies in the slot and the tail, in words for the table of messages.
    const LAYOUT: &'static str;
    /// Whether the tail is reached by offset, so that it may hold bytes that belong to nothing.
    const BY_OFFSET: bool = false;
    /// Whether decoding takes more registers than a function has without saving some.
    const LARGE: bool = Self::BY_OFFSET;
    /// Whether there is ever anything in the tail.
    const TAIL: bool = true;

    /// Reads the value. INVARIANT: `slot` has [`Self::SLOT`] bytes.
    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<Self::Value<'a>, Located>;

    /// Bytes in the tail, or [`TOO_LONG`]. INVARIANT: those of a whole message add up without overflow: one slice is at most half of
    /// what can be counted, and a struct with more than one, which may even be the same, has each at most `TOO_LONG`.
    fn tail_len(value: Self::Value<'_>) -> usize;

    /// Writes the value.
    fn encode(value: Self::Value<'_>, slot: &mut [u8], tail: &mut TailWriter<'_>);

    /// Shows every field within, in the order of the slots: where it stands, and its layout.
    fn describe(at: At, show: &mut dyn FnMut(FieldLayout)) {
        show(FieldLayout { name: at.field, offset: at.offset, size: Self::SLOT, layout: Self::LAYOUT, item: None });
    }

    /// A valid value, made of bytes that choose it.
    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self::Value<'a>>;
}

/// One field of a message's fixed part, as the table of messages shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldLayout {
    /// Its Rust name.
    pub name: &'static str,
    /// Where its slot begins: bytes from the start of the body.
    pub offset: usize,
    /// Bytes of its slot in the fixed part; 0 for what lies in the tail alone.
    pub size: usize,
    /// What lies there, such as `u32`.
    pub layout: &'static str,
    /// For a list: what each item is.
    pub item: Option<&'static str>,
}

/// The first byte of a body.
pub(crate) const START: At = At { field: "", offset: 0 };

/// The field called `name` among the fields `F`, which begin at `start`.
pub(crate) fn locate<F: Field>(start: At, name: &'static str) -> At {
    let mut found = At { field: name, ..start };
    F::describe(start, &mut |field| {
        if field.name == name {
            found.offset = field.offset;
        }
    });
    found
}

/// Decodes a whole body. `SLOT` must be `F::SLOT`; it is a parameter because an associated constant cannot size an array.
#[inline(always)]
pub(crate) fn decode_body<'a, F: Field, const SLOT: usize>(
    message: &'static str,
    body: &'a [u8],
) -> Result<F::Value<'a>, DecodeError> {
    const { assert!(F::SLOT == SLOT) };
    let Ok((rest, slots)) = fixed::<SLOT>(body) else { return Err(truncated::<F>(message, body.len())) };
    let mut tail = Tail { body, rest };
    match F::decode(START, slots, &mut tail) {
        Ok(_) if !F::BY_OFFSET && !tail.rest.is_empty() => Err(trailing(message, &tail)),
        Ok(value) => Ok(value),
        Err(located) => Err(located.in_message(message)),
    }
}

/// The same for who does not ask what is wrong: the code that would say it goes away.
#[inline(always)]
pub(crate) fn decode_valid<'a, F: Field, const SLOT: usize>(body: &'a [u8]) -> Option<F::Value<'a>> {
    const { assert!(F::SLOT == SLOT) };
    let Ok((rest, slots)) = fixed::<SLOT>(body) else { return None };
    let mut tail = Tail { body, rest };
    match F::decode(START, slots, &mut tail) {
        Ok(value) if F::BY_OFFSET || tail.rest.is_empty() => Some(value),
        _ => None,
    }
}

/// Checks that a message without fields has no body.
#[inline(always)]
pub(crate) fn decode_empty(message: &'static str, body: &[u8]) -> Result<(), DecodeError> {
    if body.is_empty() { Ok(()) } else { Err(trailing(message, &Tail { body, rest: body })) }
}

#[cold]
fn truncated<F: Field>(message: &'static str, length: usize) -> DecodeError {
    let mut cut = None;
    F::describe(START, &mut |field| {
        if cut.is_none() && field.offset.saturating_add(field.size) > length {
            cut = Some(At { field: field.name, offset: field.offset });
        }
    });
    // INVARIANT: the fixed part is as long as its fields, so one of them is cut.
    cut.unwrap_or(At { field: "end", offset: length }).fault(Fault::Truncated).in_message(message)
}

#[cold]
fn trailing(message: &'static str, tail: &Tail<'_>) -> DecodeError {
    At { field: "end", offset: tail.offset() }.fault(Fault::TrailingBytes).in_message(message)
}

/// The length of an encoded body.
#[inline(always)]
pub(crate) fn body_len<F: Field>(value: F::Value<'_>) -> usize {
    F::SLOT.wrapping_add(F::tail_len(value))
}

/// Encodes a whole body into the front of `out` and returns its length.
#[inline(always)]
pub(crate) fn encode_body<F: Field>(value: F::Value<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
    let needed = limited_body_len::<F>(value)?;
    write_body::<F>(value, out.get_mut(..needed).ok_or(EncodeError::BufferTooSmall { needed })?);
    Ok(needed)
}

/// Encodes a header and a whole body into the front of `out` and returns their length.
#[inline(always)]
pub(crate) fn encode_framed<F: Field>(
    kind: HeaderKind,
    serial: u64,
    id: u16,
    value: F::Value<'_>,
    out: &mut [u8],
) -> Result<usize, EncodeError> {
    let length = limited_body_len::<F>(value)?;
    let needed = kind.len().wrapping_add(length);
    let out = out.get_mut(..needed).ok_or(EncodeError::BufferTooSmall { needed })?;
    if let Some((header, body)) = out.split_at_mut_checked(kind.len()) {
        Header { serial, id, size: slot_len(length), sub_list: 0 }.encode(kind, header)?;
        write_body::<F>(value, body);
    }
    Ok(needed)
}

/// What encoding came to, in a form that an outlined function returns in registers: a `Result` goes through memory.
#[derive(Clone, Copy)]
pub(crate) enum Encoded {
    Done(usize),
    BufferTooSmall(usize),
    TooLong,
}

impl Encoded {
    #[inline(always)]
    pub(crate) fn new(result: Result<usize, EncodeError>) -> Self {
        match result {
            Ok(length) => Self::Done(length),
            Err(EncodeError::BufferTooSmall { needed }) => Self::BufferTooSmall(needed),
            Err(EncodeError::TooLong) => Self::TooLong,
        }
    }

    #[inline(always)]
    pub(crate) fn result(self) -> Result<usize, EncodeError> {
        match self {
            Self::Done(length) => Ok(length),
            Self::BufferTooSmall(needed) => Err(EncodeError::BufferTooSmall { needed }),
            Self::TooLong => Err(EncodeError::TooLong),
        }
    }
}

#[inline(always)]
fn limited_body_len<F: Field>(value: F::Value<'_>) -> Result<usize, EncodeError> {
    let length = body_len::<F>(value);
    if length > index(limits::MAX_BODY) { Err(EncodeError::TooLong) } else { Ok(length) }
}

/// INVARIANT: `body` has the value's length.
#[inline(always)]
fn write_body<F: Field>(value: F::Value<'_>, body: &mut [u8]) {
    if let Some((slots, tail)) = body.split_at_mut_checked(F::SLOT) {
        F::encode(value, slots, &mut TailWriter::new(F::SLOT, tail));
    }
}
