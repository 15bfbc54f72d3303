//! One causally ordered record of everything that happened, on all connections.
//!
//! Whoever sees something happen records it at once, under one lock, so the order of the entries is the order in which
//! the suite observed them. In the same order an [`Observer`] sees the links, messages and ends: whatever a case is about, a
//! server's violation of any rule that shows in the conversation is [found](Trace::findings).

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use spice_migration::{
    caps::CapabilityWords,
    link::{Capabilities, LinkError},
    message::ChannelId,
    migrate::observer::{ConnectionNumber, Event, HostEvent, Link, Observer, Opened, Party, Received, ServerId, Side},
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

/// Findings beyond this many of one case are not kept, nor the names of more connections that were reset.
pub const MAX_FINDINGS: usize = 100;

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

/// What the observer found a server to violate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The requirement's id.
    pub requirement: &'static str,
    /// The connection, such as `source/main`.
    pub connection: String,
    /// What was expected.
    pub expected: String,
    /// What came in its place.
    pub got: String,
}

/// A link that was made, for the observer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linked<'a> {
    pub(crate) server: SocketAddr,
    pub(crate) channel: ChannelId,
    pub(crate) connection_id: u32,
    /// Common capability words, and those of the channel's type.
    pub(crate) client: [&'a [[u8; 4]]; 2],
    pub(crate) server_words: [&'a [[u8; 4]]; 2],
}

/// A connection that the observer sees. When this is dropped, it has ended.
#[derive(Debug)]
pub(crate) struct Watched {
    trace: Trace,
    number: ConnectionNumber,
    ended_by: Side,
}

impl Watched {
    /// The record that it is part of.
    pub(crate) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// A message is about to be sent, or was received.
    pub(crate) fn message(&self, message: Received<'_>) {
        self.trace.lock().observe(&self.trace, Event::Message { connection: self.number, message });
    }

    /// The server has ended it.
    pub(crate) fn server_ended(&mut self) {
        self.ended_by = Side::Server;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let closed = Event::Closed { connection: self.number, by: Some(self.ended_by) };
        self.trace.lock().observe(&self.trace, closed);
    }
}

/// A shared handle on the record of one case.
#[derive(Clone, Debug)]
pub struct Trace {
    began: Instant,
    record: Arc<Mutex<Record>>,
    held: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Record {
    entries: Vec<Entry>,
    dropped: usize,
    observer: Observer,
    findings: Vec<Finding>,
    /// The connections that the peer has reset.
    resets: Vec<String>,
    /// The names of the observer's connections, by their numbers.
    connections: Vec<String>,
    /// The observer's servers, by their numbers.
    servers: Vec<SocketAddr>,
}

impl Record {
    fn server(&mut self, address: SocketAddr) -> ServerId {
        let index = self.servers.iter().position(|known| *known == address).unwrap_or_else(|| {
            self.servers.push(address);
            self.servers.len() - 1
        });
        number(index)
    }

    /// The client's own violations are those of the case, and on purpose.
    fn observe(&mut self, trace: &Trace, event: Event<'_>) {
        for finding in self.observer.observe(trace.began.elapsed(), event) {
            if finding.by != Party::Client && self.findings.len() < MAX_FINDINGS {
                let connection = self.connections.get(finding.connection as usize).cloned().unwrap_or_default();
                let (requirement, expected) = (finding.requirement, finding.expected.into_owned());
                self.findings.push(Finding { requirement, connection, expected, got: finding.came });
            }
        }
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
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
        Self { began: Instant::now(), record: Arc::default(), held: Arc::default() }
    }

    /// How many bytes the connections hold that it records.
    pub(crate) fn held(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.held)
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

    /// A link was made; its messages follow.
    pub(crate) fn linked(&self, name: &str, linked: &Linked<'_>) -> Watched {
        let mut record = self.lock();
        let capabilities = |[common, channel]: [_; 2]| Capabilities {
            common: CapabilityWords::new(common),
            channel: CapabilityWords::new(channel),
        };
        let opened = Opened {
            server: record.server(linked.server),
            // The suite plays several at once.
            client: None,
            channel: linked.channel,
            link: Some(Link {
                connection_id: linked.connection_id,
                client: capabilities(linked.client),
                server: capabilities(linked.server_words),
                result: LinkError::OK,
            }),
        };
        let number = number(record.connections.len());
        record.connections.push(name.to_owned());
        record.observe(self, Event::Opened { connection: number, opened });
        Watched { trace: self.clone(), number, ended_by: Side::Client }
    }

    /// The host of a server is about to be made to do something.
    pub(crate) fn host(&self, server: SocketAddr, event: HostEvent) {
        let mut record = self.lock();
        let server = record.server(server);
        record.observe(self, Event::Host { server, event });
    }

    /// What servers were seen to violate, whatever the case was about.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.lock().findings.clone()
    }

    /// The peer has reset a connection.
    pub(crate) fn reset(&self, connection: &str) {
        let mut record = self.lock();
        if record.resets.len() < MAX_FINDINGS {
            record.resets.push(connection.to_owned());
        }
    }

    /// The connections that the peer has reset instead of closing them.
    #[must_use]
    pub fn resets(&self) -> Vec<String> {
        self.lock().resets.clone()
    }

    /// Takes over what another record's servers were seen to violate.
    pub(crate) fn add_findings(&self, other: &Self) {
        let mut findings = other.findings();
        let mut record = self.lock();
        findings.truncate(MAX_FINDINGS - record.findings.len());
        record.findings.append(&mut findings);
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
