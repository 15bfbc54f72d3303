//! How bodies lie on the wire, said a second time: which bytes are valid, and what they are encoded as.
//!
//! Written apart from the protocol crate's decoding, and naively: every number is read where it stands, and nothing is borrowed. Of the
//! crate it takes only the table of messages, which names each field and its kind.

use std::ops::Range;

use spice_migration::limits::{MAX_CAPABILITY_WORDS, MAX_TEXT};
use spice_migration::message::Row;

/// A body: its fields in the order of the wire.
pub(crate) struct Layout {
    /// What errors call the message.
    pub(crate) c_name: &'static str,
    /// Bytes that are always there.
    pub(crate) fixed_len: usize,
    /// All of them, nested ones too.
    pub(crate) fields: Vec<Field>,
}

/// One field.
pub(crate) struct Field {
    name: &'static str,
    offset: usize,
    kind: Kind,
}

/// What may stand in a field.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// So many bytes of any value.
    Any(usize),
    /// A number of so many bytes, with its maximum.
    AtMost(usize, u64),
    /// Four bytes that must be these.
    Magic([u8; 4]),
    /// All bytes to the end.
    Rest,
    /// A u32, and as many bytes behind the fixed part.
    Counted,
    /// A NUL behind what came before, or nothing.
    OptionalNul,
    /// A count of so many bytes, and as many items of so many bytes behind the fixed part.
    Items(usize, usize),
    /// A string with its NUL, somewhere behind the fixed part.
    Text(Place),
    /// As [`Self::Text`], or size and offset 0.
    OptionalText(Place),
    /// At most so many bytes, somewhere behind the fixed part.
    Data(Place, u32),
    /// Numbers of common and of channel words, and the offset of the words.
    Words,
    /// A pointer to a count, at most 1024, and to entries of at least 4 bytes, to the end.
    Surfaces,
}

/// Where in a slot size and offset stand, from the slot's beginning.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) size: usize,
    pub(crate) offset: usize,
}

/// As major 2 has it.
pub(crate) const SIZE_FIRST: Place = Place { size: 0, offset: 4 };
/// As major 1 has it.
pub(crate) const OFFSET_FIRST: Place = Place { size: 4, offset: 0 };

impl Layout {
    /// The fields lie one behind the other.
    pub(crate) fn new(c_name: &'static str, fields: &[(&'static str, Kind)]) -> Self {
        let mut layout = Self { c_name, fixed_len: 0, fields: Vec::new() };
        for &(name, kind) in fields {
            layout.fields.push(Field { name, offset: layout.fixed_len, kind });
            layout.fixed_len += kind.slot_len();
        }
        layout
    }

    /// Of a message that nothing is known of.
    pub(crate) fn opaque(c_name: &'static str) -> Self {
        Self::new(c_name, &[("body", Kind::Rest)])
    }

    /// Of a row of the protocol crate's table.
    pub(crate) fn of_row(row: &Row) -> Self {
        let mut layout = Self { c_name: row.c_name, fixed_len: 0, fields: Vec::new() };
        row.for_each_field(|field| {
            let kind = match field.layout {
                "u8" | "u16" | "u32" | "u64" | "bytes" => Kind::Any(field.size),
                "bytes to the end" => Kind::Rest,
                "u32 length, then as many bytes" => Kind::Counted,
                "a NUL, or nothing" => Kind::OptionalNul,
                "u8 count, then as many items" => Kind::Items(1, 10),
                "u32 count, then as many items" => Kind::Items(4, 2),
                "u32 size, u32 offset of a string with its NUL" => Kind::Text(SIZE_FIRST),
                "u32 size, u32 offset of a string with its NUL, or 0 and 0" => Kind::OptionalText(SIZE_FIRST),
                other => panic!("{}: {other} is new: say here what it means", row.c_name),
            };
            assert_eq!(
                (field.offset, field.size),
                (layout.fixed_len, kind.slot_len()),
                "{}: {}",
                row.c_name,
                field.name
            );
            layout.fields.push(Field { name: field.name, offset: field.offset, kind });
            layout.fixed_len += field.size;
        });
        layout
    }

    /// Whether the body may end early behind the fixed part.
    pub(crate) fn has_open_end(&self) -> bool {
        self.fields.iter().any(|field| matches!(field.kind, Kind::Rest | Kind::OptionalNul | Kind::Surfaces))
    }

    /// Whether bytes behind the fixed part may belong to nothing.
    pub(crate) fn has_offsets(&self) -> bool {
        self.fields.iter().any(|field| field.content_at().is_some())
    }

    /// Whether each field of this body is valid, and nothing follows them.
    pub(crate) fn accepts(&self, body: &[u8]) -> bool {
        if body.len() < self.fixed_len {
            return false;
        }
        let mut end = self.fixed_len;
        let valid = self.fields.iter().all(|field| field.accepts(body, self.fixed_len, &mut end));
        valid && (end == body.len() || self.has_offsets())
    }

    /// What a body that is valid is encoded as: what lies by offset comes directly behind the fixed part, in the order of the
    /// fields, and an offset of nothing is 0.
    pub(crate) fn canonical(&self, body: &[u8]) -> Vec<u8> {
        if !self.has_offsets() {
            return body.to_vec();
        }
        let mut canonical = body[..self.fixed_len].to_vec();
        for field in &self.fields {
            let Some(at) = field.content_at() else { continue };
            let content = &body[field.content(body)];
            let offset = if content.is_empty() { 0 } else { u32::try_from(canonical.len()).unwrap() };
            canonical[at..at + 4].copy_from_slice(&offset.to_le_bytes());
            canonical.extend_from_slice(content);
        }
        canonical
    }

    /// Where an error about the field of this name may say that it is.
    pub(crate) fn offsets_of(&self, name: &str, body: &[u8]) -> Vec<u32> {
        let mut offsets = Vec::new();
        for field in &self.fields {
            let at = u32::try_from(field.offset).unwrap();
            match field.kind {
                Kind::Words => match name {
                    "num_common_caps" => offsets.push(at),
                    "num_channel_caps" => offsets.push(at + 4),
                    "caps_offset" => offsets.push(at + 8),
                    _ => {}
                },
                _ if field.name != name => {}
                Kind::Text(place) | Kind::OptionalText(place) => {
                    offsets.push(at);
                    // A body that is cut here has no string to say anything about.
                    if body.len() >= self.fixed_len {
                        offsets.push(u32_at(body, field.offset + place.offset));
                    }
                }
                _ => offsets.push(at),
            }
        }
        offsets
    }
}

impl Kind {
    fn slot_len(self) -> usize {
        match self {
            Self::Any(length) | Self::AtMost(length, _) | Self::Items(length, _) => length,
            Self::Magic(_) | Self::Counted | Self::Surfaces => 4,
            Self::Rest | Self::OptionalNul => 0,
            Self::Text(_) | Self::OptionalText(_) => 8,
            Self::Data(place, _) => place.size.max(place.offset) + 4,
            Self::Words => 12,
        }
    }
}

impl Field {
    /// `end` is how far the fields before this one reach, where they lie in order.
    fn accepts(&self, body: &[u8], fixed_len: usize, end: &mut usize) -> bool {
        let at = self.offset;
        let left = (body.len() - *end) as u64;
        match self.kind {
            Kind::Any(_) => true,
            Kind::AtMost(length, most) => number_at(body, at, length) <= most,
            Kind::Magic(magic) => body[at..at + 4] == magic,
            Kind::Rest => {
                *end = body.len();
                true
            }
            Kind::Counted => advance(end, number_at(body, at, 4), left),
            Kind::OptionalNul => {
                *end += usize::from(body.get(*end) == Some(&0));
                true
            }
            Kind::Items(count, item) => advance(end, number_at(body, at, count) * item as u64, left),
            Kind::Text(place) | Kind::OptionalText(place) => {
                let (size, offset) = (u32_at(body, at + place.size), u32_at(body, at + place.offset));
                if size == 0 || offset == 0 {
                    return size == offset && matches!(self.kind, Kind::OptionalText(_));
                }
                let Some([text @ .., 0]) = within(body, fixed_len, offset, size) else { return false };
                !text.contains(&0) && text.len() <= MAX_TEXT
            }
            Kind::Data(place, most) => {
                let (size, offset) = (u32_at(body, at + place.size), u32_at(body, at + place.offset));
                size == 0 || (size <= most && within(body, fixed_len, offset, size).is_some())
            }
            Kind::Words => {
                let (common, channel, offset) = (u32_at(body, at), u32_at(body, at + 4), u32_at(body, at + 8));
                common.max(channel) <= MAX_CAPABILITY_WORDS
                    && (common + channel == 0 || within(body, fixed_len, offset, 4 * (common + channel)).is_some())
            }
            Kind::Surfaces => {
                let pointer = u32_at(body, at);
                let Some(count) = within(body, fixed_len, pointer, 4).map(|count| u32_at(count, 0)) else {
                    return false;
                };
                count <= 1024 && within(body, fixed_len, pointer, 4 + 4 * count).is_some()
            }
        }
    }

    /// Where the offset of what lies by offset stands.
    fn content_at(&self) -> Option<usize> {
        match self.kind {
            Kind::Text(place) | Kind::OptionalText(place) | Kind::Data(place, _) => Some(self.offset + place.offset),
            Kind::Words => Some(self.offset + 8),
            Kind::Surfaces => Some(self.offset),
            _ => None,
        }
    }

    /// Which bytes lie by offset, in a body that is valid.
    fn content(&self, body: &[u8]) -> Range<usize> {
        let number = |at: usize| usize::try_from(u32_at(body, self.offset + at)).unwrap();
        let (size, offset) = match self.kind {
            Kind::Text(place) | Kind::OptionalText(place) | Kind::Data(place, _) => {
                (number(place.size), number(place.offset))
            }
            Kind::Words => (4 * (number(0) + number(4)), number(8)),
            Kind::Surfaces => (body.len() - number(0), number(0)),
            _ => (0, 0),
        };
        if size == 0 { 0..0 } else { offset..offset + size }
    }
}

fn advance(end: &mut usize, by: u64, left: u64) -> bool {
    let fits = by <= left;
    if fits {
        *end += usize::try_from(by).unwrap();
    }
    fits
}

/// The bytes there, if they lie behind the fixed part and within the body.
fn within(body: &[u8], fixed_len: usize, offset: u32, size: u32) -> Option<&[u8]> {
    let offset = usize::try_from(offset).unwrap();
    let end = offset.checked_add(usize::try_from(size).unwrap())?;
    if offset < fixed_len { None } else { body.get(offset..end) }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn number_at(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
