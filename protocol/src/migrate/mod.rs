//! The hand-over itself: five roles, without I/O.
//!
//! | role | what it is | in real life |
//! |---|---|---|
//! | [`SourceHost`] | runs the guest until it has moved | QEMU |
//! | [`SourceServer`] | serves the client until then | spice-server, in the source's process |
//! | [`TargetHost`] | receives the guest, and starts it again | QEMU |
//! | [`TargetServer`] | takes the client over | spice-server, in the target's process |
//! | [`Client`] | moves with the guest | spice-gtk |
//! | [`Observer`] | none of the five: it judges them from outside | a capture, a test |
//!
//! A [`Server`] is both servers in one, for a host that the guest comes to and leaves again.
//!
//! A role takes inputs with the time at which they come, and returns what is to be done. It has no clock, socket, thread or
//! randomness; its state can be compared, hashed and copied, so that a model checker can go through all of it.
//!
//! ```
//! use core::time::Duration;
//! use spice_migration::ChannelType;
//! use spice_migration::message::ChannelId;
//! use spice_migration::migrate::client::{Client, Effect, Input};
//! use spice_migration::migrate::{FromSource, Role, ToSource};
//!
//! let main = ChannelId { channel_type: ChannelType::MAIN, id: 0 };
//! let mut client = Client::new([main]);
//! let mut at = |seconds, input| client.handle(Duration::from_secs(seconds), input).unwrap();
//! assert_eq!(at(0, Input::FromSource { channel: main, message: FromSource::Begin }), [Effect::LinkTarget(main)]);
//! assert_eq!(
//!     at(1, Input::TargetLinked { channel: main, seamless: false }),
//!     [Effect::ToSource { channel: main, message: ToSource::Connected }],
//! );
//! ```
//!
//! # Driving a role
//!
//! The caller carries the effects out in order, tells the role what comes of them, and calls it when its [deadline](Role::deadline) has
//! come. What else there is to keep and to do:
//!
//! - The [`Destination`](crate::Destination): a role knows only that there is one. A source's caller puts the host's into each message
//!   that names it. A client's keeps that of the last announcement, or of MIGRATE_SWITCH_HOST, for
//!   [`LinkTarget`](client::Effect::LinkTarget) and [`StartAfresh`](client::Effect::StartAfresh).
//! - The migration data, since bodies do not pass through the roles. A source's caller makes it when MIGRATE_DATA is to be sent. A
//!   client's keeps what has just come, and sends it on as it is when the role says so. A target's looks at it with
//!   [`State::for_target`](crate::state::State::for_target), tells the role whether it is `valid`, and goes on from it when the role
//!   has the channel started.
//! - A [`Violation`]: the other side has done what it must not in this state, and the role's state is as it was. The caller closes the
//!   connection that the message came on, tells the role so as of any other that has ended, and lives on. Where it was a host's
//!   call, nothing is done, and the host is told why.
//!
//! The conformance suite has both kinds of driver: `conformance/src/peer/host/task.rs` for hosts with their servers, and
//! `conformance/src/peer/client/follower.rs` for clients.
//!
//! # The designs, compared
//!
//! The design mail is Gerd Hoffmann's to spice-devel of 20 September 2011, with the subject "\[RFC PATCH spice 0.8 01/19\]
//! server/spice.h: semi-seamless migration interface, RHBZ #738266". It quotes these steps of the source's host:
//!
//! 1. It names the destination to its server.
//! 2. It has the server tell the client to connect there.
//! 3. It waits for the server's callback; the guest runs.
//! 4. The guest's live stage.
//! 5. It stops the guest.
//! 6. It tells its server so, that the client can be handed over in parallel with the rest.
//! 7. The guest's last stage.
//! 8. It tells its server that the migration has ended.
//!
//! The target's host receives the guest, and waits until its server has completed the client's migration. A proposal that the mail
//! answers, (B), has the target's server acknowledge that to the client, the client leave the source, and the source make the
//! target start the guest. The mail declines it, since the client may exit just then.
//!
//! What shipped differs from the mail in two points. The hosts' roles take all answers, so that they can be compared:
//!
//! - Who waits, so that the guest does not run before its client is there ([`Completion`](source_host::Completion))? *wait*: the target's
//!   host, for both, which is the mail's answer. *signal*: nobody; the client leaves the source, and the source tells the
//!   target to start, which is (B). *shipped*: the source, for the client to leave, and the guest is started at once.
//! - When are the clients handed over ([`HandOver`](source_host::HandOver))? *after* the last of the guest has been sent, as shipped, or
//!   in *parallel* with that, as step 6 has it.
//!
//! `tests/model` composes the roles of this module with connections that keep order, and goes through every state that they reach
//! with one client, of each of the three [schemes](Scheme), and two channels. At every moment the migration may be cancelled, copying
//! may fail, the hosts' connection may be cut behind the guest, the client may exit or stall; and either a second destination may be
//! asked for and the target be out of reach, or any connection of the client be cut. Client and server each send an ordinary message
//! meanwhile. Each of this happens once or not at all, in any order.
//!
//! With *wait, after* every rule holds. A client that exits just when it is needed, which is the mail's reason for *wait*, is no
//! trouble: the target's server sees its connections end, or its time runs out.
//!
//! With *signal*, the start of the guest hangs on one word of the source's host. If that is lost, the guest has stopped at the source
//! and is held at the target for ever (2, 4), even without any client. If it is not, it can still overtake the client (3).
//!
//! With *shipped*, nobody waits for ever and nothing is lost, but the guest runs before its client is there, with no fault needed (5).
//!
//! In *parallel*, the guest's stop is shorter, and a session is the price when copying fails after it: a channel that has been told
//! MIGRATE cannot be told to stay, so the guest runs on at the source while the client has left (1). The protocol would need one
//! more message to have the one without the other.
//!
//! A second, smaller model has the guest move on from the target, with each server in both of its parts, and a client that follows it
//! twice; the second migration may be asked for before the client has arrived.
//!
//! What the model leaves out: copying fails as a whole, or the guest arrives. In truth the last byte can be there and its
//! acknowledgement lost, and no design can decide then where the guest may run (the Two Generals). Connections are quick,
//! measured by the time limits. What a guest that is started too early shows to nobody is not counted as lost.
//!
#![doc = include_str!("DESIGNS.md")]

pub mod client;
pub mod observer;
pub mod server;
pub mod source_host;
pub mod source_server;
pub mod target_host;
pub mod target_server;

pub use client::Client;
pub use observer::Observer;
pub use server::Server;
pub use source_host::SourceHost;
pub use source_server::SourceServer;
pub use target_host::TargetHost;
pub use target_server::TargetServer;

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::message::{ChannelId, MigrateFlags};
use crate::{ChannelType, ClientMessage, ServerMessage};

/// A moment: the time since an origin of the caller's choice.
pub type Time = Duration;

/// How long spice-server 0.15.1 waits for a client: `MIGRATE_TIMEOUT`.
pub const MIGRATE_TIMEOUT: Duration = Duration::from_secs(10);

/// One of the five roles.
pub trait Role {
    /// What can happen to it.
    type Input;
    /// What it wants done.
    type Effect;

    /// Something happened. The effects are to be carried out in order.
    ///
    /// # Errors
    /// When it must not happen in this state, which stays as it was.
    fn handle(&mut self, now: Time, input: Self::Input) -> Result<Vec<Self::Effect>, Violation>;

    /// When to tell the role that time has passed, with its `Deadline` input, if nothing else happens before.
    fn deadline(&self) -> Option<Time>;
}

/// What must not happen in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Violation {
    /// The requirement's id in the registry of the conformance suite.
    pub requirement: &'static str,
    /// What was wrong.
    pub what: &'static str,
}

const fn violation(requirement: &'static str, what: &'static str) -> Violation {
    Violation { requirement, what }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.what, self.requirement)
    }
}

impl core::error::Error for Violation {}

/// How a client comes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// It starts afresh at the target when the guest has moved.
    SwitchHost,
    /// It is connected to the target beforehand, and its session restarts there.
    SemiSeamless,
    /// It is connected beforehand, and each channel's state is carried over.
    Seamless,
}

/// What the source's server tells the client about the migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FromSource {
    /// MIGRATE_BEGIN, on the main channel.
    Begin,
    /// MIGRATE_BEGIN_SEAMLESS, on the main channel.
    BeginSeamless {
        /// The source's migration protocol version.
        version: u32,
    },
    /// MIGRATE_CANCEL, on the main channel.
    Cancel,
    /// MIGRATE_END, on the main channel.
    End,
    /// MIGRATE_SWITCH_HOST, on the main channel.
    SwitchHost,
    /// MIGRATE, on any channel.
    Migrate(MigrateFlags),
    /// MIGRATE_DATA, on any channel.
    MigrateData,
}

/// What the client tells the source's server about the migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ToSource {
    /// MIGRATE_CONNECTED, on the main channel.
    Connected,
    /// MIGRATE_CONNECTED_SEAMLESS, on the main channel.
    ConnectedSeamless,
    /// MIGRATE_CONNECT_ERROR, on the main channel.
    ConnectError,
    /// MIGRATE_FLUSH_MARK, on any channel.
    FlushMark,
}

/// What the client tells the target's server about the migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ToTarget {
    /// MIGRATE_DST_DO_SEAMLESS, on the main channel.
    DoSeamless {
        /// The source's migration protocol version, as received.
        version: u32,
    },
    /// MIGRATE_END, on the main channel.
    End,
    /// MIGRATE_DATA, on any channel.
    MigrateData,
}

/// What the target's server tells the client about the migration, on the main channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FromTarget {
    /// MIGRATE_DST_SEAMLESS_ACK.
    Ack,
    /// MIGRATE_DST_SEAMLESS_NACK.
    Nack,
    /// INIT: the session starts.
    Init,
}

impl FromSource {
    /// What a server's message says about the migration, if anything.
    #[must_use]
    pub const fn of(message: &ServerMessage<'_>) -> Option<Self> {
        Some(match message {
            ServerMessage::MigrateBegin(_) => Self::Begin,
            ServerMessage::MigrateBeginSeamless(begin) => Self::BeginSeamless { version: begin.src_mig_version },
            ServerMessage::MigrateCancel => Self::Cancel,
            ServerMessage::MigrateEnd => Self::End,
            ServerMessage::MigrateSwitchHost(_) => Self::SwitchHost,
            ServerMessage::Migrate(migrate) => Self::Migrate(migrate.flags),
            ServerMessage::MigrateData(_) => Self::MigrateData,
            _ => return None,
        })
    }
}

impl ToSource {
    /// What a client's message to the source says about the migration, if anything.
    #[must_use]
    pub const fn of(message: &ClientMessage<'_>) -> Option<Self> {
        Some(match message {
            ClientMessage::MigrateConnected => Self::Connected,
            ClientMessage::MigrateConnectedSeamless => Self::ConnectedSeamless,
            ClientMessage::MigrateConnectError => Self::ConnectError,
            ClientMessage::MigrateFlushMark => Self::FlushMark,
            _ => return None,
        })
    }

    /// The message that says it.
    #[must_use]
    pub const fn message(self) -> ClientMessage<'static> {
        match self {
            Self::Connected => ClientMessage::MigrateConnected,
            Self::ConnectedSeamless => ClientMessage::MigrateConnectedSeamless,
            Self::ConnectError => ClientMessage::MigrateConnectError,
            Self::FlushMark => ClientMessage::MigrateFlushMark,
        }
    }
}

impl ToTarget {
    /// What a client's message to the target says about the migration, if anything.
    #[must_use]
    pub const fn of(message: &ClientMessage<'_>) -> Option<Self> {
        Some(match message {
            ClientMessage::MigrateDstDoSeamless(ask) => Self::DoSeamless { version: ask.src_version },
            ClientMessage::MigrateEnd => Self::End,
            ClientMessage::MigrateData(_) => Self::MigrateData,
            _ => return None,
        })
    }
}

impl FromTarget {
    /// What a message of the target says about the migration, if anything.
    #[must_use]
    pub const fn of(message: &ServerMessage<'_>) -> Option<Self> {
        Some(match message {
            ServerMessage::MigrateDstSeamlessAck => Self::Ack,
            ServerMessage::MigrateDstSeamlessNack => Self::Nack,
            ServerMessage::Init(_) => Self::Init,
            _ => return None,
        })
    }
}

/// What a channel of this type needs when it moves seamlessly. A streaming device's display needs nothing, which its type does not tell.
#[must_use]
pub fn migrate_flags(channel: ChannelType) -> MigrateFlags {
    match channel {
        ChannelType::CURSOR | ChannelType::PLAYBACK | ChannelType::RECORD => MigrateFlags(0),
        _ => MigrateFlags::NEED_FLUSH | MigrateFlags::NEED_DATA_TRANSFER,
    }
}

/// The ids of the displays that are a streaming device's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct StreamingDisplays(Vec<u8>);

impl StreamingDisplays {
    const fn new() -> Self {
        Self(Vec::new())
    }

    fn add(&mut self, id: u8) {
        if !self.0.contains(&id) {
            self.0.push(id);
        }
    }

    fn migrate_flags(&self, channel: ChannelId) -> MigrateFlags {
        match channel {
            ChannelId { channel_type: ChannelType::DISPLAY, id } if self.0.contains(&id) => MigrateFlags(0),
            _ => migrate_flags(channel.channel_type),
        }
    }
}
