//! One causally ordered record of everything that happened, on all connections.
//!
//! Whoever sees something happen records it at once, under one lock, so the order of the entries is the order in which
//! the suite observed them.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Entries beyond this many are counted, not kept, so that a flooding peer cannot exhaust the suite's memory.
pub const MAX_ENTRIES: usize = 20_000;

/// Longest text of one entry, in bytes; the rest is cut.
pub const MAX_TEXT: usize = 240;

/// Which way an entry went, seen from the party under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Bytes that the suite sent.
    Sent,
    /// Bytes that the suite received.
    Received,
    /// Something that happened: a connection opened or closed, a host's event, a command.
    Event,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Since the case began.
    pub at: Duration,
    /// The connection or party, such as `source/main` or `target`.
    pub connection: String,
    /// Which way.
    pub direction: Direction,
    /// What, in one line.
    pub text: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = match self.direction {
            Direction::Sent => "->",
            Direction::Received => "<-",
            Direction::Event => "--",
        };
        let milliseconds = self.at.as_secs_f64() * 1000.0;
        write!(formatter, "{milliseconds:>9.1} ms  {:<18} {arrow} {}", self.connection, self.text)
    }
}

/// A shared handle on the record of one case.
#[derive(Clone, Debug)]
pub struct Trace {
    began: Instant,
    record: Arc<Mutex<Record>>,
}

#[derive(Debug, Default)]
struct Record {
    entries: Vec<Entry>,
    dropped: usize,
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

impl Trace {
    /// An empty record whose clock starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { began: Instant::now(), record: Arc::default() }
    }

    /// Records one thing that just happened.
    pub fn record(&self, connection: &str, direction: Direction, text: &dyn fmt::Display) {
        let text = cut(text);
        let mut record = self.lock();
        if record.entries.len() == MAX_ENTRIES {
            record.dropped += 1;
            return;
        }
        let entry = Entry { at: self.began.elapsed(), connection: connection.to_owned(), direction, text };
        record.entries.push(entry);
    }

    /// Records something that is not bytes on a connection.
    pub fn event(&self, party: &str, text: &dyn fmt::Display) {
        self.record(party, Direction::Event, text);
    }

    /// A copy of all entries so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.clone()
    }

    /// How many entries came after the record was full.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        // A panic elsewhere leaves the record whole: entries are only ever pushed.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first [`MAX_TEXT`] bytes of a text; the rest is not even made. A list of millions would take seconds and gigabytes.
fn cut(text: &dyn fmt::Display) -> String {
    struct Cut(String);

    impl fmt::Write for Cut {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = MAX_TEXT.saturating_sub(self.0.len());
            if text.len() <= room {
                self.0.push_str(text);
                return Ok(());
            }
            let end = (0..=room).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            self.0.push_str(&text[..end]);
            self.0.push('…');
            Err(fmt::Error)
        }
    }

    let mut cut = Cut(String::new());
    // The error only says that the text was cut.
    let _ = fmt::Write::write_fmt(&mut cut, format_args!("{text}"));
    cut.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_a_short_one_is_kept() {
        let trace = Trace::new();
        trace.event("source", &"short");
        trace.event("source", &format_args!("{:?}", vec!["ä"; 1 << 20]));
        let entries = trace.entries();
        assert_eq!(entries[0].text, "short");
        assert!(entries[1].text.len() <= MAX_TEXT + '…'.len_utf8() && entries[1].text.ends_with('…'));
    }
}
