//! Where `spice-migration` departs from spice-common on purpose.

use spice_common_oracle::Direction;
use spice_migration::limits::MAX_TEXT;

use super::layout::{HOST, Layout, NOTIFY, SUBJECT, SWITCH_HOST, number};
use super::{Case, Difference};

/// A reason for which the two differ on a body. It is told from the bytes alone, without asking either decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Bytes follow the last field.
    TrailingBytes,
    /// `MIGRATE_SWITCH_HOST` names no host.
    HostAbsent,
    /// A string has a size, but offset 0.
    SizeWithoutOffset,
    /// A string has an offset, but size 0.
    OffsetWithoutSize,
    /// A string begins in the fixed part.
    OffsetInFixedPart,
    /// A string does not end in NUL.
    NotTerminated,
    /// A string has a NUL before its end.
    InteriorNul,
    /// A string is longer than the limit.
    TextTooLong,
    /// NOTIFY ends without the NUL.
    NotifyWithoutNul,
    /// The server's message 100.
    Id100,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::TrailingBytes,
        Self::HostAbsent,
        Self::SizeWithoutOffset,
        Self::OffsetWithoutSize,
        Self::OffsetInFixedPart,
        Self::NotTerminated,
        Self::InteriorNul,
        Self::TextTooLong,
        Self::NotifyWithoutNul,
        Self::Id100,
    ];

    /// What the bodies of the class are.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TrailingBytes => "trailing bytes",
            Self::HostAbsent => "no host",
            Self::SizeWithoutOffset => "size without offset",
            Self::OffsetWithoutSize => "offset without size",
            Self::OffsetInFixedPart => "offset in the fixed part",
            Self::NotTerminated => "not terminated",
            Self::InteriorNul => "interior NUL",
            Self::TextTooLong => "text too long",
            Self::NotifyWithoutNul => "NOTIFY without NUL",
            Self::Id100 => "id 100",
        }
    }

    /// What each side does with them, and why it stays so.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TrailingBytes => {
                "C ignores bytes behind the last field; here they are refused, for nothing says what they are. \
                 Not so behind strings by offset, where they may be padding."
            }
            Self::HostAbsent => {
                "`spice.proto` lets the host be NULL in MIGRATE_SWITCH_HOST alone, so C accepts offset 0 there; \
                 here it is refused, for it tells the client nowhere to go."
            }
            Self::SizeWithoutOffset => {
                "C takes offset 0 for an absent string and keeps its size; here the two must agree."
            }
            Self::OffsetWithoutSize => {
                "C makes an empty string of it, though sizes count the NUL; here a string has at least its NUL."
            }
            Self::OffsetInFixedPart => "C reads the fields' bytes as a string; here a string lies behind them.",
            Self::NotTerminated => "C adds the NUL that its users need; here the sender must have sent it.",
            Self::InteriorNul => {
                "C keeps all bytes, of which its users read those before the NUL; here no string has two readings."
            }
            Self::TextTooLong => "C takes a string of any length; here `limits::MAX_TEXT` bounds it.",
            Self::NotifyWithoutNul => {
                "spice-server sends a NUL behind the text, which its `spice.proto` lacks; here what came without one \
                 is encoded without one."
            }
            Self::Id100 => {
                "`spice.proto` marks the end of the base messages with an empty one of id 100, so C parses it, though nobody \
                 sends it; here it is unknown."
            }
        }
    }

    /// The classes that hold for a body.
    pub(super) fn of(case: Case, body: &[u8]) -> Vec<Self> {
        let mut classes = Vec::new();
        let Some(layout) = Layout::of(case.direction, case.id) else {
            if case.direction == Direction::FromServer && case.id == 100 {
                classes.push(Self::Id100);
            }
            return classes;
        };
        // C refuses what is cut short, and so do we.
        let Some(behind) = body.get(layout.fixed()..) else { return classes };
        match layout {
            Layout::Open(_) => {}
            Layout::Fixed(_) => {
                if !behind.is_empty() {
                    classes.push(Self::TrailingBytes);
                }
            }
            Layout::Counted { fixed, count_size, item } => {
                let rest = behind.get(number(body, fixed, count_size) * item..);
                match (rest, case.id) {
                    (None, _) | (Some([0]), NOTIFY) => {}
                    (Some([]), NOTIFY) => classes.push(Self::NotifyWithoutNul),
                    (Some([]), _) => {}
                    (Some(_), _) => classes.push(Self::TrailingBytes),
                }
            }
            Layout::Destination(fixed) => {
                let host = Place::read(body, HOST);
                let subject = Place::read(body, SUBJECT);
                let host_may_be_absent = case.id == SWITCH_HOST;
                if host.is_within(body) && subject.is_within(body) && (host.offset != 0 || host_may_be_absent) {
                    if (host.offset, host.size) == (0, 0) {
                        classes.push(Self::HostAbsent);
                    }
                    for class in host.classes(fixed, body).chain(subject.classes(fixed, body)) {
                        if !classes.contains(&class) {
                            classes.push(class);
                        }
                    }
                }
            }
        }
        classes
    }

    /// Whether the class is about this difference. All but one are about bodies that are refused here.
    pub(super) fn explains(self, difference: &Difference) -> bool {
        match difference {
            Difference::OnlyCAccepts => self != Self::NotifyWithoutNul,
            Difference::Encoding { ours, c } => {
                self == Self::NotifyWithoutNul && c.split_last() == Some((&0, ours.as_slice()))
            }
            Difference::OnlyOursAccepts | Difference::Fields { .. } => false,
        }
    }
}

/// Where a string is said to lie.
#[derive(Clone, Copy)]
struct Place {
    size: usize,
    offset: usize,
}

impl Place {
    fn read(body: &[u8], at: usize) -> Self {
        Self { size: number(body, at + 4, 4), offset: number(body, at + 8, 4) }
    }

    /// What C asks of every string, one at offset 0 included.
    fn is_within(self, body: &[u8]) -> bool {
        self.offset < body.len() && self.size <= body.len() - self.offset
    }

    fn classes(self, fixed: usize, body: &[u8]) -> impl Iterator<Item = Class> {
        let Self { size, offset } = self;
        let string = if offset == 0 { &[] } else { &body[offset..offset + size] };
        let (last, text) = string.split_last().unwrap_or((&0, &[]));
        [
            (Class::SizeWithoutOffset, offset == 0 && size != 0),
            (Class::OffsetWithoutSize, offset != 0 && size == 0),
            (Class::OffsetInFixedPart, (1..fixed).contains(&offset)),
            (Class::NotTerminated, *last != 0),
            (Class::InteriorNul, text.contains(&0)),
            (Class::TextTooLong, text.len() > MAX_TEXT),
        ]
        .into_iter()
        .filter_map(|(class, holds)| holds.then_some(class))
    }
}
