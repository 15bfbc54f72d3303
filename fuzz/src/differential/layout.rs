//! How bodies lie on the wire, written down a second time: from the protocol's description, not from either decoder.

use spice_common_oracle::Direction;

/// The layout of a message's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Nothing but so many bytes.
    Fixed(usize),
    /// So many bytes, and any number behind them.
    Open(usize),
    /// So many bytes, of which the last `count_size` say how many items of `item` bytes follow.
    Counted { fixed: usize, count_size: usize, item: usize },
    /// A destination, in a fixed part of so many bytes, and its strings anywhere.
    Destination(usize),
}

use Layout::{Counted, Destination, Fixed, Open};

impl Layout {
    /// `None`: no such message.
    pub(super) const fn of(direction: Direction, id: u16) -> Option<Self> {
        Some(match (direction, id) {
            (Direction::FromServer, 1) => Fixed(4),
            (Direction::FromServer, 2) => Open(0),
            (Direction::FromServer, 3) => Fixed(8),
            (Direction::FromServer, 4) => Open(12),
            (Direction::FromServer, 5) => Counted { fixed: 1, count_size: 1, item: 10 },
            (Direction::FromServer, 6) => Fixed(12),
            (Direction::FromServer, NOTIFY) => Counted { fixed: 24, count_size: 4, item: 1 },
            (Direction::FromServer, 8) => Open(0),
            (Direction::FromServer, 101 | SWITCH_HOST) => Destination(20),
            (Direction::FromServer, 102 | 107 | 112 | 117 | 118) => Fixed(0),
            (Direction::FromServer, 103) => Fixed(32),
            (Direction::FromServer, 104) => Counted { fixed: 4, count_size: 4, item: 2 },
            (Direction::FromServer, 105 | 106 | 108 | 110 | 115) => Fixed(4),
            (Direction::FromServer, 109) => Open(0),
            (Direction::FromServer, 113) => Counted { fixed: 4, count_size: 4, item: 1 },
            (Direction::FromServer, 114) => Fixed(16),
            (Direction::FromServer, 116) => Destination(24),
            (Direction::FromClient, 1 | 106 | 108 | 110) => Fixed(4),
            (Direction::FromClient, 2 | 4 | 102 | 103 | 104 | 109 | 111) => Fixed(0),
            (Direction::FromClient, 3 | 6) => Fixed(12),
            (Direction::FromClient, 5 | 107 | 112) => Open(0),
            (Direction::FromClient, 101) => Fixed(8),
            (Direction::FromClient, 105) => Fixed(2),
            _ => return None,
        })
    }

    /// The bytes that every body of the message has.
    pub(super) const fn fixed(self) -> usize {
        match self {
            Fixed(fixed) | Open(fixed) | Counted { fixed, .. } | Destination(fixed) => fixed,
        }
    }
}

/// `SPICE_MSG_NOTIFY`.
pub(super) const NOTIFY: u16 = 7;

/// `SPICE_MSG_MAIN_MIGRATE_SWITCH_HOST`.
pub(super) const SWITCH_HOST: u16 = 111;

/// Where in a destination the host's size lies; its offset follows.
pub(super) const HOST: usize = 4;

/// Where in a destination the subject's size lies; its offset follows.
pub(super) const SUBJECT: usize = 12;

/// The number of `size` bytes that ends at `end`. The caller knows that it is there.
pub(super) fn number(body: &[u8], end: usize, size: usize) -> usize {
    body[end - size..end].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}
