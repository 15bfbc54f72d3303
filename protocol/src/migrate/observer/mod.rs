//! The observer: it judges a conversation from outside, and takes no part in it.
//!
//! It is fed with what was seen of any connections between clients and servers, in the order in which it was seen: links, messages,
//! ends, and what the hosts are known to have done. It tells each violated requirement as a [`Finding`], when the message comes that
//! shows it, and each migration that took place with its scheme, as a [`Migration`].
//!
//! It does not accuse of what it cannot know. Connections may be missing, or have been joined in the middle. And messages cross:
//! one that was seen may not have been read when the other side sent the next. So what follows "too early" is judged at once, for a
//! message that was not seen yet cannot have been read; what should have followed, but did not, is judged when the message has
//! been there for longer than [`MIGRATE_TIMEOUT`], after which spice-server gives up waiting, too, or since the conversation was
//! [at rest](Event::AtRest). For this, all connections must be seen at one place: at the client's end, or on a network that they
//! all cross.
//!
//! A session is known by its connection id: a target's links carry that of the session at the source.
//!
//! ```
//! use core::time::Duration;
//! use spice_migration::ChannelType;
//! use spice_migration::link::{Capabilities, LinkError};
//! use spice_migration::message::ChannelId;
//! use spice_migration::migrate::observer::{Event, Link, Observer, Opened, Party, Received, Side};
//!
//! let mut observer = Observer::new();
//! let mut at = |milliseconds, event| observer.observe(Duration::from_millis(milliseconds), event);
//! let inputs = Opened {
//!     server: 1,
//!     client: None,
//!     channel: ChannelId { channel_type: ChannelType::INPUTS, id: 0 },
//!     link: Some(Link {
//!         connection_id: 0xea7c_4806,
//!         client: Capabilities::default(),
//!         server: Capabilities::default(),
//!         result: LinkError::OK,
//!     }),
//! };
//! assert!(at(0, Event::Opened { connection: 5, opened: inputs }).is_empty());
//!
//! // The server says MIGRATE with both flags, and sends the data before the client's FLUSH_MARK.
//! let from_server = |id, body| Received { from: Side::Server, serial: Some(u64::from(id)), id, body };
//! assert!(at(7, Event::Message { connection: 5, message: from_server(1, &[3, 0, 0, 0]) }).is_empty());
//! let findings = at(8, Event::Message { connection: 5, message: from_server(2, b"ICMD\x01\0\0\0\0\0") });
//! assert_eq!((findings[0].requirement, findings[0].by), ("S8.2", Party::Source));
//! assert_eq!(
//!     findings[0].to_string(),
//!     "S8.2 violated by the source on inputs:0 (connection 5, message 2 of the server, at 8ms): \
//!      expected the client's MIGRATE_FLUSH_MARK before the data, came MIGRATE_DATA"
//! );
//! assert_eq!(observer.migrations()[0].to_string(), "seamless migration from server 1: completed");
//! ```
//!
//! # What it keeps
//!
//! Of a connection a few hundred bytes, none of them a body: of migration data the length and a hash. Connections that have ended are
//! forgotten when no open one was made on account of them. [`Observer::migrations`] grows by one entry for each migration, and what
//! the hosts have done is kept once for each server.
//!
//! # What it does not judge
//!
//! - What only the hosts see (H1 to H6, S3, S9.2), and time limits that an implementation may choose (S9.1, T8).
//! - Which announcement was due (S1.1, S1.2), unless it is told what the host allows: [`HostEvent::Announces`].
//! - Answers that depend on links which may exist unseen: CONNECT_ERROR in place of success, and the reverse (C4).
//! - Whether a target had to agree (T3.1): it may serve several clients, or not be able to hold the guest.
//! - What sub-messages say, and bodies that this crate refuses. On from a LIST or such a body, the connection counts as joined in the
//!   middle.

mod client;
mod connection;
mod server;

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::{MIGRATE_TIMEOUT, Scheme, Time};
use crate::link::{Capabilities, LinkError};
use crate::message::ChannelId;
use connection::{Completion, Connection, Moment};

/// Names a connection: a number of the caller's choice.
pub type ConnectionNumber = u32;

/// Names a server: a number of the caller's choice, such as one for each address. Servers that exist at the same time must not
/// share one; a host that comes later at the place of another may have its number.
pub type ServerId = u32;

/// Something that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event<'a> {
    /// The link stage of a connection is over, or the connection was joined in the middle.
    Opened {
        /// Which connection; its number must not be that of another open one.
        connection: ConnectionNumber,
        /// What is known of it.
        opened: Opened<'a>,
    },
    /// A message.
    Message {
        /// On which connection.
        connection: ConnectionNumber,
        /// What.
        message: Received<'a>,
    },
    /// A connection has ended.
    Closed {
        /// Which.
        connection: ConnectionNumber,
        /// Who ended it, if that is known.
        by: Option<Side>,
    },
    /// Nothing is on its way: all that was seen has been read, and what came of it has been seen. It need not be told, but who
    /// can tell it learns more, and sooner.
    AtRest,
    /// Something is known of the host to which a server belongs.
    Host {
        /// Which server.
        server: ServerId,
        /// What its host does.
        event: HostEvent,
    },
}

/// What is known of a connection when its messages begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Opened<'a> {
    /// To which server.
    pub server: ServerId,
    /// Of which client, if that is known: one that has one session at a time. An address is no such knowledge.
    pub client: Option<u32>,
    /// For which channel.
    pub channel: ChannelId,
    /// The link stage; `None` if it was not seen, so that messages may have gone before.
    pub link: Option<Link<'a>>,
}

/// The link stage of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link<'a> {
    /// Of the client's link message.
    pub connection_id: u32,
    /// Of the client's link message.
    pub client: Capabilities<'a>,
    /// Of the server's link reply.
    pub server: Capabilities<'a>,
    /// The link result, or the reply's error.
    pub result: LinkError,
}

/// A message as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Received<'a> {
    /// Who sent it.
    pub from: Side,
    /// The serial of its full header; `None` if its header is a mini header.
    pub serial: Option<u64>,
    /// The id on the wire.
    pub id: u16,
    /// The whole body.
    pub body: &'a [u8],
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The client's.
    Client,
    /// The server's.
    Server,
}

/// What a host does. It must be told before it shows in any message: a caller who makes the host do it tells it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostEvent {
    /// It has its server announce a destination.
    Announces {
        /// Whether it allows seamless migration, and its server has just one client.
        seamless: bool,
    },
    /// The guest has moved: the server is told that the migration has ended, as completed.
    Completed,
    /// The migration has failed, before it was completed.
    Failed,
    /// The migration was cancelled, before it was completed.
    Cancelled,
}

/// Who violates a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// The client.
    Client,
    /// The server where the session is; also when nothing migrates.
    Source,
    /// The server that the client was sent to.
    Target,
}

/// A violated requirement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Finding {
    /// The requirement's id in the registry of the conformance suite.
    pub requirement: &'static str,
    /// Who violates it.
    pub by: Party,
    /// On which connection.
    pub connection: ConnectionNumber,
    /// Which channel that is.
    pub channel: ChannelId,
    /// Which message shows it: whose, and its number among those of this side on this connection, from 1. `None` if it is the
    /// link or the end of the connection.
    pub message: Option<(Side, u64)>,
    /// When.
    pub at: Time,
    /// What was expected.
    pub expected: Cow<'static, str>,
    /// What came in its place.
    pub came: String,
}

/// A migration that took place, as far as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Migration {
    /// The session's connection id, if it is known.
    pub connection_id: Option<u32>,
    /// From where, if that was seen.
    pub source: Option<ServerId>,
    /// To where, if that was seen.
    pub target: Option<ServerId>,
    /// The scheme that the source has chosen, once that was seen.
    pub scheme: Option<Scheme>,
    /// How it ended.
    pub outcome: Outcome,
    /// When the first of it was seen.
    pub began: Time,
    /// After SWITCH_HOST: that no announcement was left that the client could still follow.
    answered: bool,
}

/// How a migration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Not yet.
    Underway,
    /// The source has handed the client over, or has sent it away.
    Completed,
    /// The source has sent CANCEL, or announced another destination.
    Cancelled,
    /// The client's main connection ended before.
    Failed,
}

/// The judge of what is seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Observer {
    connections: BTreeMap<ConnectionNumber, Connection>,
    hosts: BTreeMap<ServerId, Host>,
    migrations: Vec<Migration>,
    /// How many events there were: the order of events whose times are equal.
    events: u64,
    /// The last one at which nothing was on its way.
    at_rest: u64,
}

/// What is known of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
struct Host {
    /// Whether its announcement has to be a seamless one.
    seamless: Option<bool>,
    ended: Option<HostEvent>,
}

impl Observer {
    /// An observer that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Something was seen. Returns what it shows to be violated.
    pub fn observe(&mut self, at: Time, event: Event<'_>) -> Vec<Finding> {
        self.events = self.events.saturating_add(1);
        match event {
            Event::Opened { connection, opened } => self.opened(at, connection, &opened),
            Event::Message { connection, message } => self.message(at, connection, &message),
            Event::Closed { connection, by } => self.closed(at, connection, by),
            Event::AtRest => {
                self.at_rest = self.events;
                Vec::new()
            }
            Event::Host { server, event } => {
                let host = self.hosts.entry(server).or_default();
                match event {
                    HostEvent::Announces { seamless } => *host = Host { seamless: Some(seamless), ended: None },
                    ended => host.ended = Some(ended),
                }
                Vec::new()
            }
        }
    }

    /// The migrations that were seen so far, in the order in which they began.
    #[must_use]
    pub fn migrations(&self) -> &[Migration] {
        &self.migrations
    }

    fn opened(&mut self, at: Time, number: ConnectionNumber, opened: &Opened<'_>) -> Vec<Finding> {
        self.connections.remove(&number);
        self.forget();
        let mut connection = Connection::new(opened, self.events);
        self.relate(&mut connection);
        let mut turn = Turn::new(self, at, number, &mut connection, None);
        turn.link(opened);
        let findings = turn.findings;
        if connection.migrating {
            self.take_step(at, &connection, Step::Linked);
        }
        self.connections.insert(number, connection);
        findings
    }

    fn message(&mut self, at: Time, number: ConnectionNumber, message: &Received<'_>) -> Vec<Finding> {
        // Out of the map while its turn lasts, in which the others can be looked at.
        let Some(mut connection) = self.connections.remove(&number) else { return Vec::new() };
        let count = match message.from {
            Side::Client => &mut connection.from_client,
            Side::Server => &mut connection.from_server,
        };
        *count = count.saturating_add(1);
        let index = *count;
        let mut turn = Turn::new(self, at, number, &mut connection, Some((message.from, index)));
        let step = turn.judge(message);
        let findings = turn.findings;
        if let Some(step) = step {
            self.take_step(at, &connection, step);
        }
        self.connections.insert(number, connection);
        findings
    }

    fn closed(&mut self, at: Time, number: ConnectionNumber, by: Option<Side>) -> Vec<Finding> {
        let Some(mut connection) = self.connections.remove(&number) else { return Vec::new() };
        connection.closed = true;
        let mut turn = Turn::new(self, at, number, &mut connection, None);
        turn.end(by);
        let findings = turn.findings;
        if connection.is_main() && connection.source.completed.is_none() {
            self.main_ended(&connection);
        }
        self.connections.insert(number, connection);
        self.forget();
        findings
    }

    /// Finds out which main connection a connection belongs to, and which connection at the source it continues.
    fn relate(&self, connection: &mut Connection) {
        let Some(session) = connection.session else { return };
        let same_session = |other: &Connection| other.session == Some(session) && !other.closed && !other.refused();
        let latest = |wanted: &dyn Fn(&Connection) -> bool| {
            let found = self.connections.iter().filter(|(_, other)| same_session(other) && wanted(other));
            found.max_by_key(|(_, other)| other.order).map(|(number, _)| *number)
        };
        if connection.is_main() {
            connection.continues = self
                .connections
                .iter()
                .filter(|(_, other)| same_session(other) && other.is_main() && other.source.completed.is_none())
                .filter_map(|(number, other)| Some((other.source.announced?.order, *number)))
                .max()
                .map(|(_, number)| number);
            return;
        }
        connection.main =
            latest(&|other| other.is_main() && other.server == connection.server && other.source.completed.is_none());
        let main = connection.main.and_then(|main| self.connections.get(&main));
        connection.joins_later = main.is_some_and(|main| !main.migrating || main.data_relayed || main.target.init);
        if connection.joins_later {
            return;
        }
        // Of several it cannot be told which one is meant.
        let main_at_source = main.and_then(|main| main.continues);
        let mut candidates = self.connections.iter().filter(|(_, other)| {
            same_session(other)
                && other.channel == connection.channel
                && other.server != connection.server
                && other.migrate.is_none()
                && (main_at_source.is_none() || other.main.is_none() || other.main == main_at_source)
        });
        if let (Some((number, _)), None) = (candidates.next(), candidates.next()) {
            connection.continues = Some(*number);
        }
    }

    /// Forgets connections that have ended and that nothing refers to.
    fn forget(&mut self) {
        let open = self.connections.values().filter(|connection| !connection.closed);
        let needed: Vec<_> = open.flat_map(|connection| [connection.main, connection.continues]).flatten().collect();
        self.connections.retain(|number, connection| !connection.closed || needed.contains(number));
    }

    fn take_step(&mut self, at: Time, connection: &Connection, step: Step) {
        let server = Some(connection.server);
        let last = self.migrations.iter_mut().rfind(|last| last.connection_id == connection.session);
        // Many messages belong to one migration: where it has one of these ends already, it must be this one.
        let last = last.filter(|last| match step {
            Step::Announced => false,
            Step::Linked => last.outcome == Outcome::Underway && last.source != server,
            Step::Completed(_, Role::Target) => last.target == server || last.target.is_none() && last.source != server,
            _ => last.source == server || last.source.is_none() && last.target != server,
        });
        let migration = match last {
            Some(last) => last,
            None => {
                if matches!(step, Step::Announced) {
                    self.replace(connection);
                }
                self.migrations.push(Migration {
                    connection_id: connection.session,
                    source: None,
                    target: None,
                    scheme: None,
                    outcome: Outcome::Underway,
                    began: at,
                    answered: false,
                });
                let Some(new) = self.migrations.last_mut() else { return };
                new
            }
        };
        match step {
            Step::Linked | Step::Completed(_, Role::Target) => migration.target = server,
            _ => migration.source = server,
        }
        match step {
            Step::Announced | Step::Linked => {}
            Step::Cancelled if migration.outcome == Outcome::Completed => {}
            Step::Cancelled => migration.outcome = Outcome::Cancelled,
            Step::Completed(scheme, _) => {
                migration.scheme.get_or_insert(scheme);
                migration.outcome = Outcome::Completed;
                migration.answered = !connection.source.awaited();
            }
        }
    }

    /// The source announces another destination, without having taken the first one back.
    fn replace(&mut self, connection: &Connection) {
        let last = self.migrations.iter_mut().rfind(|last| last.connection_id == connection.session);
        if let Some(last) =
            last.filter(|last| last.outcome == Outcome::Underway && last.source == Some(connection.server))
        {
            last.outcome = Outcome::Cancelled;
        }
    }

    /// A main connection has ended without a word about how it goes on.
    fn main_ended(&mut self, connection: &Connection) {
        let here = Some(connection.server);
        let concerned = |migration: &&mut Migration| {
            migration.connection_id == connection.session
                && migration.outcome == Outcome::Underway
                && (migration.source == here || migration.source.is_none() && migration.target == here)
        };
        for migration in self.migrations.iter_mut().filter(concerned) {
            migration.outcome = Outcome::Failed;
        }
    }
}

/// Which end of a migration a server is at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Source,
    Target,
}

/// What a message does to the migration.
#[derive(Clone, Copy)]
enum Step {
    Announced,
    /// A client comes to a target.
    Linked,
    Cancelled,
    Completed(Scheme, Role),
}

/// One event on one connection, and what is known of the others.
struct Turn<'t> {
    now: Moment,
    /// What was seen before this event must have been noticed.
    at_rest: u64,
    number: ConnectionNumber,
    connection: &'t mut Connection,
    message: Option<(Side, u64)>,
    others: &'t BTreeMap<ConnectionNumber, Connection>,
    migrations: &'t [Migration],
    host: Host,
    findings: Vec<Finding>,
}

impl<'t> Turn<'t> {
    fn new(
        observer: &'t Observer,
        at: Time,
        number: ConnectionNumber,
        connection: &'t mut Connection,
        message: Option<(Side, u64)>,
    ) -> Self {
        Self {
            now: Moment { at, order: observer.events },
            at_rest: observer.at_rest,
            number,
            host: observer.hosts.get(&connection.server).copied().unwrap_or_default(),
            connection,
            message,
            others: &observer.connections,
            migrations: &observer.migrations,
            findings: Vec::new(),
        }
    }

    fn violated(
        &mut self,
        requirement: &'static str,
        by: Party,
        expected: impl Into<Cow<'static, str>>,
        came: impl Into<String>,
    ) {
        self.findings.push(Finding {
            requirement,
            by,
            connection: self.number,
            channel: self.connection.channel,
            message: self.message,
            at: self.now.at,
            expected: expected.into(),
            came: came.into(),
        });
    }

    /// Whether what happened then must have been noticed by now.
    fn long_since(&self, then: Option<Moment>) -> bool {
        then.is_some_and(|then| then.order < self.at_rest || self.now.at > then.at.saturating_add(MIGRATE_TIMEOUT))
    }

    /// The main connection that this one belongs to: itself, if it is one.
    fn main(&self) -> Option<&Connection> {
        if self.connection.is_main() {
            Some(self.connection)
        } else {
            self.connection.main.and_then(|main| self.others.get(&main))
        }
    }

    /// The connection at the source that this one continues.
    fn at_source(&self) -> Option<&Connection> {
        self.connection.continues.and_then(|source| self.others.get(&source))
    }

    /// The server's role on this connection.
    fn server(&self) -> Party {
        let at_target = self.main().is_some_and(|main| main.migrating && main.source.announcements == 0);
        if at_target { Party::Target } else { Party::Source }
    }

    fn link(&mut self, opened: &Opened<'_>) {
        let Some(link) = opened.link else { return };
        let is_main = self.connection.is_main();
        let accepted = link.result == LinkError::OK;
        if !is_main && link.connection_id == 0 && accepted {
            self.violated("L6.1", self.server(), "BAD_CONNECTION_ID, for no session has the id 0", "link result OK");
        }
        self.client_links_elsewhere(opened, link.connection_id);
        if !is_main || link.connection_id == 0 {
            return;
        }
        let last = self.migrations.iter().rfind(|last| last.connection_id == Some(link.connection_id));
        if last.is_some_and(|last| last.answered && last.scheme == Some(Scheme::SwitchHost)) {
            let came = format!("a main link with {:#x}, the id of the session that has ended", link.connection_id);
            self.violated("C10", Party::Client, "a main link with connection_id 0 after MIGRATE_SWITCH_HOST", came);
        }
        let Some(announced) =
            self.at_source().filter(|source| source.source.alone).and_then(|source| source.source.announced)
        else {
            return;
        };
        let earlier = self.others.iter().find(|(_, other)| {
            !other.is_main()
                && other.server == self.connection.server
                && other.session == self.connection.session
                && other.order > announced.order
        });
        if let Some((number, other)) = earlier {
            let came = format!("{} on connection {number} before it", other.channel_name());
            self.violated("C2", Party::Client, "main as the first link at the target", came);
        }
    }

    /// A client that was told of a target, and answers later, links there with its session's id.
    fn client_links_elsewhere(&mut self, opened: &Opened<'_>, connection_id: u32) {
        let Some(client) = opened.client else { return };
        let follows = |other: &&Connection| {
            other.client == Some(client)
                && other.is_main()
                && !other.closed
                && other.server != opened.server
                && other.source.awaited()
                && other.source.completed.is_none()
        };
        let Some(session) = self.others.values().find(follows).and_then(|main| main.session) else { return };
        if session != connection_id {
            let expected = format!("a link with the session's connection_id {session:#x}");
            self.violated("C2", Party::Client, expected, format!("one with {connection_id:#x}"));
        }
    }

    fn end(&mut self, by: Option<Side>) {
        let source = &self.connection.source;
        if by != Some(Side::Server)
            || !self.connection.is_main()
            || !self.connection.whole
            || self.host.ended != Some(HostEvent::Completed)
            || source.completed.is_some()
            || self.server() == Party::Target
        {
            return;
        }
        let (requirement, expected) = match source.due() {
            Some(Completion::Migrate) => ("S4.1", "MIGRATE on every channel"),
            Some(Completion::End) => ("S4.2", "MIGRATE_END"),
            _ => ("S4.3", "MIGRATE_SWITCH_HOST"),
        };
        self.violated(requirement, Party::Source, expected, "the end of the connection");
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requirement, by, connection, channel, message, at, expected, came } = self;
        let (channel_type, id) = (channel.channel_type, channel.id);
        write!(formatter, "{requirement} violated by {by} on {channel_type}:{id} (connection {connection}, ")?;
        match message {
            Some((Side::Client, index)) => write!(formatter, "message {index} of the client, ")?,
            Some((Side::Server, index)) => write!(formatter, "message {index} of the server, ")?,
            None => {}
        }
        write!(formatter, "at {at:?}): expected {expected}, came {came}")
    }
}

impl fmt::Display for Party {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Client => "the client",
            Self::Source => "the source",
            Self::Target => "the target",
        })
    }
}

impl fmt::Display for Migration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Some(Scheme::SwitchHost) => formatter.write_str("switch-host migration")?,
            Some(Scheme::SemiSeamless) => formatter.write_str("semi-seamless migration")?,
            Some(Scheme::Seamless) => formatter.write_str("seamless migration")?,
            None => formatter.write_str("migration")?,
        }
        if let Some(source) = self.source {
            write!(formatter, " from server {source}")?;
        }
        if let Some(target) = self.target {
            write!(formatter, " to server {target}")?;
        }
        formatter.write_str(match self.outcome {
            Outcome::Underway => ": underway",
            Outcome::Completed => ": completed",
            Outcome::Cancelled => ": cancelled",
            Outcome::Failed => ": failed",
        })
    }
}
