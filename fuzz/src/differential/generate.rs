//! Bodies that are often right, and often wrong in one place.

use spice_common_oracle::Direction;
use spice_migration::limits::MAX_TEXT;

use super::Case;
use super::layout::{HOST, Layout, NOTIFY, SUBJECT};

/// Makes bodies for one case; the same ones for the same seed.
pub struct Generator {
    case: Case,
    random: fastrand::Rng,
    body: Vec<u8>,
}

impl Generator {
    /// Makes bodies for `case`.
    #[must_use]
    pub fn new(case: Case, seed: u64) -> Self {
        Self { case, random: fastrand::Rng::with_seed(seed), body: Vec::new() }
    }

    /// The next body. Half of them are right, but for strings that may overlap each other or be too long; the others were, and
    /// then up to three mutations hit them.
    pub fn next_body(&mut self) -> &[u8] {
        self.body.clear();
        match Layout::of(self.case.direction, self.case.id) {
            None => {
                let length = self.length();
                self.append(length);
            }
            Some(Layout::Fixed(fixed)) => self.append(fixed),
            Some(Layout::Open(fixed)) => {
                let length = self.length();
                self.append(fixed + length);
            }
            Some(Layout::Counted { fixed, count_size, item }) => {
                self.append(fixed);
                let count = self.length() % (1 << (8 * count_size).min(16));
                self.body[fixed - count_size..].copy_from_slice(&count.to_le_bytes()[..count_size]);
                self.append(count * item);
                if self.case.id == NOTIFY && self.case.direction == Direction::FromServer && !self.one_in(8) {
                    self.body.push(0);
                }
            }
            Some(Layout::Destination(fixed)) => {
                self.append(fixed);
                self.put_strings();
            }
        }
        if self.random.bool() {
            for _ in 0..self.random.usize(1..=3) {
                self.mutate();
            }
        }
        &self.body
    }

    fn put_strings(&mut self) {
        let places = if self.random.bool() { [HOST, SUBJECT] } else { [SUBJECT, HOST] };
        for place in places {
            let (mut size, mut offset) = (0u32, 0u32);
            if place == HOST || self.random.bool() {
                if self.one_in(4) {
                    let gap = self.random.usize(0..4);
                    self.append(gap);
                }
                offset = self.position();
                let length = if self.one_in(64) { MAX_TEXT - 2 + self.random.usize(0..4) } else { self.length() };
                for _ in 0..length {
                    self.body.push(self.random.u8(1..));
                }
                self.body.push(0);
                size = self.position() - offset;
            }
            self.set(place, size);
            self.set(place + 4, offset);
        }
    }

    fn mutate(&mut self) {
        let length = self.body.len();
        match self.random.u8(0..9) {
            0 => self.body.truncate(self.random.usize(0..=length)),
            1 => {
                let more = self.random.usize(1..=8);
                self.append(more);
            }
            2 => self.body.push(0),
            3 => self.body.clear(),
            _ if length == 0 => {}
            4 => self.body[self.random.usize(..length)] ^= 1 << self.random.u8(0..8),
            5 => self.body[self.random.usize(..length)] = 0,
            6 => self.body[length - 1] = self.random.u8(..),
            // No string, in a destination.
            7 => {
                let place = self.random.choice([HOST, SUBJECT]).unwrap_or(HOST);
                if place + 8 <= length {
                    self.body[place..place + 8].fill(0);
                }
            }
            // A number that is a size or an offset, in some messages, becomes one at the edge.
            _ => {
                let place = self.random.usize(0..=5) * 4;
                if place + 4 <= length {
                    let edges = [0, 1, 19, 20, 23, 24, self.position(), self.position() / 2, u32::MAX, 1 << 31];
                    let number = self.random.choice(edges).unwrap_or(0);
                    let offset = self.random.u32(0..3);
                    self.set(place, number.wrapping_add(offset).wrapping_sub(1));
                }
            }
        }
    }

    /// Mostly short; now and then more than a page, where C's marshaller takes another buffer.
    fn length(&mut self) -> usize {
        if self.one_in(256) { self.random.usize(0..6000) } else { self.random.usize(0..24) }
    }

    fn append(&mut self, count: usize) {
        let old = self.body.len();
        self.body.resize(old + count, 0);
        self.random.fill(&mut self.body[old..]);
    }

    fn set(&mut self, place: usize, number: u32) {
        self.body[place..place + 4].copy_from_slice(&number.to_le_bytes());
    }

    fn position(&self) -> u32 {
        u32::try_from(self.body.len()).unwrap_or(u32::MAX)
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.random.u32(..count) == 0
    }
}
