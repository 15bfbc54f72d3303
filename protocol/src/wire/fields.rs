//! The kinds of field that the messages are made of.

use core::{fmt, marker::PhantomData};

#[cfg(any(test, feature = "arbitrary"))]
use arbitrary::Unstructured;

use super::{At, Field, FieldLayout, Located, TOO_LONG, Tail, TailWriter, index};
use crate::{error::Fault, limits};

/// Bytes of a string that travels with a trailing NUL: neither the NUL nor another one is part of it.
///
/// At most [`MAX_TEXT`](crate::limits::MAX_TEXT) bytes, in no particular encoding. It may be empty: QEMU 7.2 sends an empty subject
/// when it is told one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// The string, unless it holds a NUL or is too long.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        Self::check(bytes).ok()
    }

    /// Its bytes, without the NUL.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The string, if it is UTF-8.
    ///
    /// # Errors
    /// When it is not.
    pub const fn to_str(self) -> Result<&'a str, core::str::Utf8Error> {
        core::str::from_utf8(self.0)
    }

    #[inline(always)]
    fn check(bytes: &'a [u8]) -> Result<Self, Fault> {
        if bytes.len() > limits::MAX_TEXT {
            Err(Fault::LimitExceeded)
        } else if has_nul(bytes) {
            Err(Fault::InteriorNul)
        } else {
            Ok(Self(bytes))
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", self.0.escape_ascii())
    }
}

/// In few steps for short strings, where `contains` looks at each byte: a step's bytes may overlap those of the one before.
#[inline(always)]
fn has_nul(bytes: &[u8]) -> bool {
    if let Some(last) = bytes.last_chunk::<32>() {
        for chunk in bytes.as_chunks::<32>().0 {
            if among(chunk) {
                return true;
            }
        }
        among(last)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<16>(), bytes.last_chunk::<16>()) {
        among(first) | among(last)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        among(first) | among(last)
    } else {
        for byte in bytes {
            if *byte == 0 {
                return true;
            }
        }
        false
    }
}

/// Without a branch, so that the compiler compares all bytes at once.
#[inline(always)]
fn among<const SIZE: usize>(bytes: &[u8; SIZE]) -> bool {
    let mut found = false;
    for byte in bytes {
        found |= *byte == 0;
    }
    found
}

/// Opaque bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Data<'a>(pub &'a [u8]);

impl fmt::Debug for Data<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 24;
        write!(formatter, "{} bytes", self.0.len())?;
        for (index, byte) in self.0.iter().take(SHOWN).enumerate() {
            formatter.write_str(if index == 0 { ": " } else { "" })?;
            write!(formatter, "{byte:02x}")?;
        }
        if self.0.len() > SHOWN { formatter.write_str("…") } else { Ok(()) }
    }
}

/// A value of constant size that messages carry many of.
pub trait ListItem: Copy {
    /// Its bytes on the wire: an array of them.
    type Wire: WireArray;

    /// What they are, in words.
    const LAYOUT: &'static str;

    /// Reads one.
    fn from_wire(wire: Self::Wire) -> Self;

    /// Writes one.
    fn to_wire(self) -> Self::Wire;
}

/// An array of bytes, of any length.
pub trait WireArray: Copy + Eq + core::hash::Hash + AsRef<[u8]> + 'static {
    /// As many of them as the bytes hold.
    fn split(bytes: &[u8]) -> &[Self];

    /// The bytes of all.
    fn join(items: &[Self]) -> &[u8];
}

impl<const SIZE: usize> WireArray for [u8; SIZE] {
    #[inline]
    fn split(bytes: &[u8]) -> &[Self] {
        bytes.as_chunks().0
    }

    #[inline]
    fn join(items: &[Self]) -> &[u8] {
        items.as_flattened()
    }
}

/// A list in its wire form; each item is decoded when the iterator comes to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct List<'a, T: ListItem> {
    items: &'a [T::Wire],
}

impl<'a, T: ListItem> List<'a, T> {
    /// A list of items in wire form: `items.map(ListItem::to_wire)`.
    ///
    /// A message whose count has one byte encodes at most 255.
    #[must_use]
    pub const fn new(items: &'a [T::Wire]) -> Self {
        Self { items }
    }

    /// How many items.
    #[must_use]
    pub const fn len(self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.items.is_empty()
    }

    /// The items in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = T> + 'a {
        self.items.iter().map(|wire| T::from_wire(*wire))
    }
}

impl AsRef<[u8]> for Data<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl AsRef<[u8]> for Text<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl<T: ListItem + fmt::Debug> fmt::Debug for List<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

/// A number, or a newtype around one, with its bytes in little-endian order.
pub(crate) trait Scalar: Copy {
    const SIZE: usize;
    const LAYOUT: &'static str;
    fn read(slot: &[u8]) -> Self;
    fn write(self, slot: &mut [u8]);
}

macro_rules! scalar {
    ($($number:ty),*) => {$(
        impl Scalar for $number {
            const SIZE: usize = size_of::<$number>();
            const LAYOUT: &'static str = stringify!($number);
            #[inline(always)]
            fn read(slot: &[u8]) -> Self {
                // INVARIANT: a slot is as large as its field, so the default never shows.
                slot.first_chunk().map_or(0, |bytes| Self::from_le_bytes(*bytes))
            }
            #[inline(always)]
            fn write(self, slot: &mut [u8]) {
                if let Some(place) = slot.first_chunk_mut() {
                    *place = self.to_le_bytes();
                }
            }
        }
    )*};
}
scalar!(u8, u16, u32, u64, i64);

impl<const SIZE: usize> Scalar for [u8; SIZE] {
    const SIZE: usize = SIZE;
    const LAYOUT: &'static str = "bytes";
    #[inline(always)]
    fn read(slot: &[u8]) -> Self {
        slot.first_chunk().map_or([0; SIZE], |bytes| *bytes)
    }
    #[inline(always)]
    fn write(self, slot: &mut [u8]) {
        if let Some(place) = slot.first_chunk_mut() {
            *place = self;
        }
    }
}

impl<const COUNT: usize> Scalar for [u64; COUNT] {
    const SIZE: usize = size_of::<[u64; COUNT]>();
    const LAYOUT: &'static str = "u64 each";
    #[inline(always)]
    fn read(slot: &[u8]) -> Self {
        let numbers = slot.as_chunks().0;
        core::array::from_fn(|at| numbers.get(at).map_or(0, |number| u64::from_le_bytes(*number)))
    }
    #[inline(always)]
    fn write(self, slot: &mut [u8]) {
        for (place, number) in slot.as_chunks_mut().0.iter_mut().zip(self) {
            *place = number.to_le_bytes();
        }
    }
}

impl<T: Scalar> Field for T {
    type Value<'a> = T;
    const SLOT: usize = T::SIZE;
    const LAYOUT: &'static str = T::LAYOUT;
    const TAIL: bool = false;
    #[inline(always)]
    fn decode<'a>(_: At, slot: &[u8], _: &mut Tail<'a>) -> Result<T, Located> {
        Ok(T::read(slot))
    }
    #[inline(always)]
    fn tail_len(_: T) -> usize {
        0
    }
    #[inline(always)]
    fn encode(value: T, slot: &mut [u8], _: &mut TailWriter<'_>) {
        value.write(slot);
    }
    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut Unstructured<'a>) -> arbitrary::Result<T> {
        // What the input lacks reads as zeros.
        let mut slot = [0; 256];
        let slot = slot.get_mut(..T::SIZE).unwrap_or_default();
        bytes.fill_buffer(slot)?;
        Ok(T::read(slot))
    }
}

/// No bytes.
pub(crate) struct Empty;

impl Field for Empty {
    type Value<'a> = ();
    const SLOT: usize = 0;
    const LAYOUT: &'static str = "";
    const TAIL: bool = false;
    #[inline(always)]
    fn decode<'a>(_: At, _: &[u8], _: &mut Tail<'a>) -> Result<(), Located> {
        Ok(())
    }
    #[inline(always)]
    fn tail_len((): ()) -> usize {
        0
    }
    #[inline(always)]
    fn encode((): (), _: &mut [u8], _: &mut TailWriter<'_>) {}
    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary(_: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        Ok(())
    }
}

/// All bytes up to the end of the body.
pub(crate) struct Rest;

impl Field for Rest {
    type Value<'a> = Data<'a>;
    const SLOT: usize = 0;
    const LAYOUT: &'static str = "bytes to the end";
    #[inline(always)]
    fn decode<'a>(_: At, _: &[u8], tail: &mut Tail<'a>) -> Result<Data<'a>, Located> {
        Ok(Data(core::mem::take(&mut tail.rest)))
    }
    #[inline(always)]
    fn tail_len(value: Data<'_>) -> usize {
        value.0.len()
    }
    #[inline(always)]
    fn encode(value: Data<'_>, _: &mut [u8], tail: &mut TailWriter<'_>) {
        tail.put(value.0);
    }
    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Data<'a>> {
        some_bytes(bytes).map(Data)
    }
}

/// A u32 length in the slot, and as many bytes in the tail.
pub(crate) struct Counted;

impl Field for Counted {
    type Value<'a> = Data<'a>;
    const SLOT: usize = 4;
    const LAYOUT: &'static str = "u32 length, then as many bytes";
    #[inline(always)]
    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<Data<'a>, Located> {
        tail.take(index(u32::read(slot))).map(Data).map_err(|fault| at.fault(fault))
    }
    #[inline(always)]
    fn tail_len(value: Data<'_>) -> usize {
        value.0.len()
    }
    #[inline(always)]
    fn encode(value: Data<'_>, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        slot_len(value.0.len()).write(slot);
        tail.put(value.0);
    }
    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Data<'a>> {
        some_bytes(bytes).map(Data)
    }
}

/// Whether one NUL follows, which a sender may leave out.
pub(crate) struct OptionalNul;

impl Field for OptionalNul {
    type Value<'a> = bool;
    const SLOT: usize = 0;
    const LAYOUT: &'static str = "a NUL, or nothing";
    const LARGE: bool = true;
    #[inline(always)]
    fn decode<'a>(_: At, _: &[u8], tail: &mut Tail<'a>) -> Result<bool, Located> {
        let Some((0, rest)) = tail.rest.split_first() else { return Ok(false) };
        tail.rest = rest;
        Ok(true)
    }
    #[inline(always)]
    fn tail_len(value: bool) -> usize {
        usize::from(value)
    }
    #[inline(always)]
    fn encode(value: bool, _: &mut [u8], tail: &mut TailWriter<'_>) {
        if value {
            tail.put(&[0]);
        }
    }
    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut Unstructured<'a>) -> arbitrary::Result<bool> {
        bytes.arbitrary()
    }
}

/// A count in the slot, of type `Count`, and as many items in the tail.
pub(crate) struct Items<Count, T>(PhantomData<(Count, T)>);

/// The count of a list: how many items it can announce.
pub(crate) trait Count: Scalar {
    const MOST: usize;
    const LAYOUT: &'static str;
    fn to_usize(self) -> usize;
    fn from_usize(count: usize) -> Self;
}

impl Count for u8 {
    const MOST: usize = 255;
    const LAYOUT: &'static str = "u8 count, then as many items";
    fn to_usize(self) -> usize {
        usize::from(self)
    }
    fn from_usize(count: usize) -> Self {
        Self::try_from(count).unwrap_or(Self::MAX)
    }
}

impl Count for u32 {
    const MOST: usize = usize::MAX;
    const LAYOUT: &'static str = "u32 count, then as many items";
    fn to_usize(self) -> usize {
        index(self)
    }
    fn from_usize(count: usize) -> Self {
        slot_len(count)
    }
}

impl<C: Count, T: ListItem + 'static> Field for Items<C, T> {
    type Value<'a> = List<'a, T>;
    const SLOT: usize = C::SIZE;
    const LAYOUT: &'static str = <C as Count>::LAYOUT;
    fn describe(at: At, show: &mut dyn FnMut(FieldLayout)) {
        let item = Some(T::LAYOUT);
        show(FieldLayout { name: at.field, offset: at.offset, size: Self::SLOT, layout: Self::LAYOUT, item });
    }
    #[inline(always)]
    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<List<'a, T>, Located> {
        let length = C::read(slot).to_usize().saturating_mul(size_of::<T::Wire>());
        let bytes = tail.take(length).map_err(|fault| at.fault(fault))?;
        Ok(List { items: T::Wire::split(bytes) })
    }
    #[inline(always)]
    fn tail_len(value: List<'_, T>) -> usize {
        if value.items.len() > C::MOST { TOO_LONG } else { T::Wire::join(value.items).len() }
    }
    #[inline(always)]
    fn encode(value: List<'_, T>, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        C::from_usize(value.items.len()).write(slot);
        tail.put(T::Wire::join(value.items));
    }
    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut Unstructured<'a>) -> arbitrary::Result<List<'a, T>> {
        let items = T::Wire::split(some_bytes(bytes)?);
        Ok(List { items: items.get(..C::MOST).unwrap_or(items) })
    }
}

/// A string that must be present: size and offset in the slot, the bytes and a NUL in the tail.
pub(crate) struct TextAt;

impl Field for TextAt {
    type Value<'a> = Text<'a>;
    const SLOT: usize = 8;
    const LAYOUT: &'static str = "u32 size, u32 offset of a string with its NUL";
    const BY_OFFSET: bool = true;
    #[inline(always)]
    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<Text<'a>, Located> {
        let size = index(u32::read(slot));
        let offset = index(u32::read(slot.get(4..).unwrap_or_default()));
        // The tail of a message with strings by offset is never consumed in order, so it begins where the fixed part ends.
        let string = if offset < tail.offset() { None } else { tail.body.get(offset..offset.saturating_add(size)) };
        let Some((0, bytes)) = string.and_then(<[u8]>::split_last) else {
            return Err(match string {
                _ if offset == 0 && size != 0 => at.fault(Fault::SizeWithoutOffset),
                _ if size == 0 => at.fault(Fault::Missing),
                _ if offset < tail.offset() => at.fault(Fault::OffsetInFixedPart),
                None => at.fault(Fault::OutOfBounds),
                Some(_) => At { offset, ..at }.fault(Fault::NotTerminated),
            });
        };
        Text::check(bytes).map_err(|fault| At { offset, ..at }.fault(fault))
    }
    #[inline(always)]
    fn tail_len(value: Text<'_>) -> usize {
        value.0.len().wrapping_add(1)
    }
    #[inline(always)]
    fn encode(value: Text<'_>, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        slot_len(value.0.len().wrapping_add(1)).write(slot);
        slot_len(tail.offset).write(slot.get_mut(4..).unwrap_or_default());
        tail.put_terminated(value.0);
    }
    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Text<'a>> {
        let text = some_bytes(bytes)?.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Text(text.get(..limits::MAX_TEXT).unwrap_or(text)))
    }
}

/// A string that may be absent: offset and size are 0 then.
pub(crate) struct OptionalTextAt;

impl Field for OptionalTextAt {
    type Value<'a> = Option<Text<'a>>;
    const SLOT: usize = 8;
    const LAYOUT: &'static str = "u32 size, u32 offset of a string with its NUL, or 0 and 0";
    const BY_OFFSET: bool = true;
    #[inline(always)]
    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<Option<Text<'a>>, Located> {
        if u64::read(slot) == 0 { Ok(None) } else { TextAt::decode(at, slot, tail).map(Some) }
    }
    #[inline(always)]
    fn tail_len(value: Option<Text<'_>>) -> usize {
        value.map_or(0, TextAt::tail_len)
    }
    #[inline(always)]
    fn encode(value: Option<Text<'_>>, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        match value {
            Some(text) => TextAt::encode(text, slot, tail),
            None => 0u64.write(slot),
        }
    }
    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Option<Text<'a>>> {
        if bytes.arbitrary()? { TextAt::arbitrary(bytes).map(Some) } else { Ok(None) }
    }
}

/// Bytes that may be none: a size, at most `MOST`, and an offset.
pub(crate) struct DataAt<const MOST: u32>;

impl<const MOST: u32> Field for DataAt<MOST> {
    type Value<'a> = Data<'a>;
    const SLOT: usize = 8;
    const LAYOUT: &'static str = "u32 size, u32 offset of as many bytes";
    const BY_OFFSET: bool = true;

    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<Data<'a>, Located> {
        let ([size, pointer], []) = slot.as_chunks::<4>() else { return Err(at.fault(Fault::Truncated)) };
        let (size, pointer) = (u32::from_le_bytes(*size), u32::from_le_bytes(*pointer));
        if size == 0 {
            return Ok(Data::default());
        }
        if size > MOST {
            return Err(at.fault(Fault::LimitExceeded));
        }
        let bytes = tail.at(pointer).map_err(|fault| at.fault(fault))?;
        bytes.get(..index(size)).map(Data).ok_or(at.fault(Fault::OutOfBounds))
    }

    fn tail_len(value: Data<'_>) -> usize {
        value.0.len().min(TOO_LONG)
    }

    fn encode(value: Data<'_>, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        let ([size, pointer], []) = slot.as_chunks_mut::<4>() else { return };
        let at = tail.put(value.0);
        *size = slot_len(value.0.len()).to_le_bytes();
        *pointer = if value.0.is_empty() { [0; 4] } else { slot_len(at).to_le_bytes() };
    }

    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Data<'a>> {
        let data = some_bytes(bytes)?;
        Ok(Data(data.get(..index(MOST)).unwrap_or(data)))
    }
}

/// INVARIANT: bodies are bounded by `MAX_BODY`, so every length and offset in one fits.
#[inline(always)]
pub(crate) fn slot_len(length: usize) -> u32 {
    u32::try_from(length & 0xffff_ffff).unwrap_or(u32::MAX)
}

/// Up to 64 bytes of the input: enough for every rule about lengths but the limits, which have tests of their own.
#[cfg(any(test, feature = "arbitrary"))]
pub(crate) fn some_bytes<'a>(bytes: &mut Unstructured<'a>) -> arbitrary::Result<&'a [u8]> {
    let length = bytes.int_in_range(0..=64)?;
    bytes.bytes(length.min(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::Text;

    #[test]
    fn a_nul_is_found_wherever_it_is() {
        for length in 0..200 {
            let mut bytes = [b'x'; 200];
            let bytes = &mut bytes[..length];
            assert!(Text::new(bytes).is_some());
            for at in 0..length {
                bytes[at] = 0;
                assert!(Text::new(bytes).is_none(), "length {length}, NUL at {at}");
                bytes[at] = b'x';
            }
        }
    }
}
