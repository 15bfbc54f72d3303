//! The client: it goes where the guest goes.
//!
//! ```text
//!            BEGIN                 all linked            MIGRATE on a channel
//! Session ----------> Connecting ------------> Answered ----------------------> Switching --+
//!    ^                                            |                                          | all switched
//!    |                                            | END                          INIT        |
//!    |                                            +------------> Restarting -----------------+
//!    |                                                                                       |
//!    +---------------------------------------------------------------------------------------+
//! ```
//!
//! CANCEL leads back to `Session` at the source, and SWITCH_HOST out of every state: the client then starts afresh.
//!
//! [`Route::to`] says how to connect to where the source sends the client. The ticket is the source's.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::{FromSource, FromTarget, MIGRATE_TIMEOUT, Role, Scheme, Time, ToSource, ToTarget, Violation, violation};
use crate::caps::MainCapability;
use crate::message::{ChannelId, MigrateFlags};
use crate::{ChannelType, Destination, Text};

/// A client with a session at the source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The open channels, the main channel first.
    channels: Vec<ChannelId>,
    phase: Phase,
    deadline: Option<Time>,
}

/// Where a client is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It has a session, and nothing else.
    Session,
    /// It links its channels at the target.
    Connecting {
        /// Which scheme the target and it have come to.
        agreement: Agreement,
        /// What is not linked yet.
        unlinked: Vec<ChannelId>,
    },
    /// It has told the source how that went: the scheme that will follow, or `None` if it could not link.
    Answered(Option<Scheme>),
    /// Its channels move, one after the other: these are still at the source.
    Switching(Vec<Moving>),
    /// It has told the target that the guest has come, and waits for INIT.
    Restarting,
    /// It has no session any more: it starts afresh, or has exited.
    Left,
}

/// Which scheme client and target have come to, while the client connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Agreement {
    /// The main channel is not linked yet. The source offers a seamless migration of this version, if any.
    Offered(Option<u32>),
    /// The client has asked the target for a seamless migration.
    Asked,
    /// This.
    Settled(Scheme),
}

/// A channel that is still at the source while others move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Moving {
    channel: ChannelId,
    /// Whether MIGRATE has come, and MIGRATE_DATA has not.
    awaits_data: bool,
}

/// What happens to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The source's server says something.
    FromSource {
        /// On which channel.
        channel: ChannelId,
        /// What.
        message: FromSource,
    },
    /// The target's server says something on the main channel.
    FromTarget(FromTarget),
    /// A link to the target is up.
    TargetLinked {
        /// Whose.
        channel: ChannelId,
        /// Whether the target has the capability `SEAMLESS_MIGRATE`; only the main channel's link tells.
        seamless: bool,
    },
    /// A link to the target could not be made, or has ended.
    TargetClosed(ChannelId),
    /// A connection to the source has ended.
    SourceClosed(ChannelId),
    /// The user quits.
    Exit,
    /// The time of [`Role::deadline`] has come.
    Deadline,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Link this channel at the announced target, with the id of the session at the source. Until [`Effect::Switch`] or
    /// [`Effect::Moved`] nothing is sent there but [`Effect::ToTarget`] and the base channel's answers (PONG, ACK), and what the
    /// target sends stays unread, except for what [`FromTarget`] knows.
    LinkTarget(ChannelId),
    /// Send this to the source.
    ToSource {
        /// On which channel.
        channel: ChannelId,
        /// What.
        message: ToSource,
    },
    /// Send this to the target. MIGRATE_DATA carries what has just come from the source, byte for byte.
    ToTarget {
        /// On which channel.
        channel: ChannelId,
        /// What.
        message: ToTarget,
    },
    /// Close this channel's connection to the source, and go on with the one to the target.
    Switch(ChannelId),
    /// Close this channel's connection to the target, or give up making it.
    CloseTarget(ChannelId),
    /// Close this channel's connection to the source: the channel is lost.
    CloseSource(ChannelId),
    /// Close all connections to the source.
    DropSource,
    /// Close all connections to the target, made and half-made.
    DropTarget,
    /// The session goes on at the target now, which is the source of whatever comes next. What is kept of the session's state, the scheme
    /// says: [`Scheme::keeps_state`].
    Moved(Scheme),
    /// Start a new session at the host that SWITCH_HOST has named, with connection id 0.
    StartAfresh,
    /// The session is over, though the user did not want that.
    SessionLost,
}

impl Role for Client {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Time, input: Input) -> Result<Vec<Effect>, Violation> {
        match input {
            Input::FromSource { channel, message } => self.source_says(now, channel, message),
            Input::FromTarget(message) => self.target_says(message),
            Input::TargetLinked { channel, seamless } => Ok(self.target_linked(channel, seamless)),
            Input::TargetClosed(channel) => Ok(self.target_closed(channel)),
            Input::SourceClosed(channel) => Ok(self.source_closed(channel)),
            Input::Exit => Ok(self.leave(&[Effect::DropSource, Effect::DropTarget])),
            Input::Deadline if self.deadline.is_none_or(|deadline| now < deadline) => Ok(Vec::new()),
            Input::Deadline => Ok(match self.phase {
                Phase::Connecting { .. } => self.cannot_connect(),
                _ => self.lose_session(),
            }),
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.deadline
    }
}

impl Client {
    /// The main-channel capabilities that say what this role can do. A client that advertises them and does not play it stalls the
    /// migration for 10 s, and loses its session.
    pub const CAPABILITIES: [MainCapability; 3] = [
        MainCapability::SEMI_SEAMLESS_MIGRATE,
        MainCapability::SEAMLESS_MIGRATE,
        // A seamless client is told of the agent with tokens alone.
        MainCapability::AGENT_CONNECTED_TOKENS,
    ];

    /// A client whose session has these channels; the main channel is one of them in any case.
    pub fn new(channels: impl IntoIterator<Item = ChannelId>) -> Self {
        let children = channels.into_iter().filter(|channel| channel.channel_type != ChannelType::MAIN);
        Self { channels: [MAIN].into_iter().chain(children).collect(), phase: Phase::Session, deadline: None }
    }

    /// Where it is.
    #[must_use]
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    fn source_says(&mut self, now: Time, channel: ChannelId, message: FromSource) -> Result<Vec<Effect>, Violation> {
        let on_main = channel == MAIN;
        match message {
            FromSource::Migrate(flags) => self.migrate(now, channel, flags),
            FromSource::MigrateData => self.migrate_data(channel),
            _ if !on_main => Err(violation("C2", "a main-channel message on another channel")),
            FromSource::Begin => self.begin(now, None),
            FromSource::BeginSeamless { version } => self.begin(now, Some(version)),
            FromSource::Cancel => self.cancel(),
            FromSource::End => self.end(now),
            FromSource::SwitchHost => Ok(self.leave(&[Effect::DropSource, Effect::DropTarget, Effect::StartAfresh])),
        }
    }

    fn begin(&mut self, now: Time, version: Option<u32>) -> Result<Vec<Effect>, Violation> {
        let mut effects = match self.phase {
            Phase::Session => Vec::new(),
            // Another destination, before the first was done with.
            Phase::Connecting { .. } | Phase::Answered(_) => vec![Effect::DropTarget],
            _ => return Err(violation("S8", "BEGIN after the session has begun to move")),
        };
        let agreement = Agreement::Offered(version);
        self.phase = Phase::Connecting { agreement, unlinked: self.channels.clone() };
        self.deadline = Some(now.saturating_add(MIGRATE_TIMEOUT));
        effects.push(Effect::LinkTarget(MAIN));
        Ok(effects)
    }

    fn target_linked(&mut self, channel: ChannelId, seamless: bool) -> Vec<Effect> {
        let Phase::Connecting { agreement, unlinked, .. } = &mut self.phase else {
            // It came up while it was being given up.
            return vec![Effect::CloseTarget(channel)];
        };
        let Some(place) = unlinked.iter().position(|other| *other == channel) else {
            return vec![Effect::CloseTarget(channel)];
        };
        unlinked.remove(place);
        let mut effects = Vec::new();
        if channel == MAIN {
            *agreement = match *agreement {
                Agreement::Offered(Some(version)) if seamless => {
                    effects.push(Effect::ToTarget { channel: MAIN, message: ToTarget::DoSeamless { version } });
                    Agreement::Asked
                }
                _ => Agreement::Settled(Scheme::SemiSeamless),
            };
            effects.extend(unlinked.iter().copied().map(Effect::LinkTarget));
        }
        effects.extend(self.answer());
        effects
    }

    fn target_says(&mut self, message: FromTarget) -> Result<Vec<Effect>, Violation> {
        match (&mut self.phase, message) {
            (Phase::Connecting { agreement: agreement @ Agreement::Asked, .. }, FromTarget::Ack) => {
                *agreement = Agreement::Settled(Scheme::Seamless);
                Ok(self.answer().into_iter().collect())
            }
            (Phase::Connecting { agreement: agreement @ Agreement::Asked, .. }, FromTarget::Nack) => {
                *agreement = Agreement::Settled(Scheme::SemiSeamless);
                Ok(self.answer().into_iter().collect())
            }
            (Phase::Restarting, FromTarget::Init) => Ok(vec![self.moved(Scheme::SemiSeamless)]),
            (Phase::Session | Phase::Left, _) => Ok(Vec::new()),
            (_, FromTarget::Ack | FromTarget::Nack) => Err(violation("T3", "an answer that was not asked for")),
            (_, FromTarget::Init) => Err(violation("T2", "INIT before MIGRATE_END")),
        }
    }

    /// Tells the source once all links are up and the scheme is settled.
    fn answer(&mut self) -> Option<Effect> {
        let Phase::Connecting { agreement: Agreement::Settled(scheme), unlinked } = &self.phase else { return None };
        if !unlinked.is_empty() {
            return None;
        }
        let message = match scheme {
            Scheme::Seamless => ToSource::ConnectedSeamless,
            _ => ToSource::Connected,
        };
        self.phase = Phase::Answered(Some(*scheme));
        self.deadline = None;
        Some(Effect::ToSource { channel: MAIN, message })
    }

    fn cannot_connect(&mut self) -> Vec<Effect> {
        self.phase = Phase::Answered(None);
        self.deadline = None;
        vec![Effect::DropTarget, Effect::ToSource { channel: MAIN, message: ToSource::ConnectError }]
    }

    fn target_closed(&mut self, channel: ChannelId) -> Vec<Effect> {
        match &mut self.phase {
            Phase::Connecting { .. } => self.cannot_connect(),
            Phase::Answered(Some(_)) => {
                // The source has its answer; only the end of the migration can still be reached from there.
                self.phase = Phase::Answered(None);
                vec![Effect::DropTarget]
            }
            Phase::Switching(_) | Phase::Restarting if channel == MAIN => self.lose_session(),
            Phase::Switching(moving) => {
                let awaits_switch = moving.iter().any(|moving| moving.channel == channel);
                let close = awaits_switch.then_some(Effect::CloseSource(channel));
                close.into_iter().chain(self.without(channel)).collect()
            }
            Phase::Restarting => self.without(channel).into_iter().collect(),
            Phase::Session | Phase::Answered(None) | Phase::Left => Vec::new(),
        }
    }

    fn source_closed(&mut self, channel: ChannelId) -> Vec<Effect> {
        match &self.phase {
            Phase::Restarting | Phase::Left => Vec::new(),
            Phase::Switching(moving) if !moving.iter().any(|moving| moving.channel == channel) => Vec::new(),
            // What the source has not sent, nobody can carry over: the channel is lost, and with the main channel all.
            _ if channel == MAIN => self.lose_session(),
            Phase::Session => self.without(channel).into_iter().collect(),
            _ => [Effect::CloseTarget(channel)].into_iter().chain(self.without(channel)).collect(),
        }
    }

    /// One channel less. The others may have been waiting for it alone.
    fn without(&mut self, channel: ChannelId) -> Option<Effect> {
        self.channels.retain(|other| *other != channel);
        match &mut self.phase {
            Phase::Connecting { unlinked, .. } => {
                unlinked.retain(|other| *other != channel);
                self.answer()
            }
            Phase::Switching(moving) => {
                moving.retain(|moving| moving.channel != channel);
                self.moved_if_all_are()
            }
            _ => None,
        }
    }

    fn cancel(&mut self) -> Result<Vec<Effect>, Violation> {
        match self.phase {
            Phase::Session => Ok(Vec::new()),
            Phase::Connecting { .. } | Phase::Answered(_) => {
                self.phase = Phase::Session;
                self.deadline = None;
                Ok(vec![Effect::DropTarget])
            }
            _ => Err(violation("S8", "CANCEL after the session has begun to move")),
        }
    }

    fn end(&mut self, now: Time) -> Result<Vec<Effect>, Violation> {
        match self.phase {
            Phase::Answered(Some(Scheme::SemiSeamless)) => {
                self.phase = Phase::Restarting;
                self.deadline = Some(now.saturating_add(MIGRATE_TIMEOUT));
                Ok(vec![Effect::DropSource, Effect::ToTarget { channel: MAIN, message: ToTarget::End }])
            }
            // It was connected and no longer is; the source could not know.
            Phase::Answered(None) => Ok(self.lose_session()),
            _ => Err(violation("S4", "END to a client that has not said CONNECTED")),
        }
    }

    fn migrate(&mut self, now: Time, channel: ChannelId, flags: MigrateFlags) -> Result<Vec<Effect>, Violation> {
        if matches!(self.phase, Phase::Answered(None)) {
            return Ok(self.lose_session());
        }
        if !self.channels.contains(&channel) {
            return Err(violation("S8", "MIGRATE on a channel that is not open"));
        }
        if self.phase == Phase::Answered(Some(Scheme::Seamless)) {
            let moving = |channel: &ChannelId| Moving { channel: *channel, awaits_data: false };
            self.phase = Phase::Switching(self.channels.iter().map(moving).collect());
            self.deadline = Some(now.saturating_add(MIGRATE_TIMEOUT));
        }
        let Phase::Switching(moving) = &mut self.phase else {
            return Err(violation("S4", "MIGRATE to a client that has not said CONNECTED_SEAMLESS"));
        };
        let Some(place) = moving.iter().position(|moving| moving.channel == channel && !moving.awaits_data) else {
            return Err(violation("S8", "MIGRATE again"));
        };
        let mut effects = Vec::new();
        if flags.contains(MigrateFlags::NEED_FLUSH) {
            effects.push(Effect::ToSource { channel, message: ToSource::FlushMark });
        }
        if flags.contains(MigrateFlags::NEED_DATA_TRANSFER) {
            if let Some(moving) = moving.get_mut(place) {
                moving.awaits_data = true;
            }
        } else {
            moving.remove(place);
            effects.push(Effect::Switch(channel));
            effects.extend(self.moved_if_all_are());
        }
        Ok(effects)
    }

    fn migrate_data(&mut self, channel: ChannelId) -> Result<Vec<Effect>, Violation> {
        let awaited = |moving: &Moving| moving.channel == channel && moving.awaits_data;
        match &mut self.phase {
            Phase::Switching(moving) if moving.iter().any(awaited) => {
                moving.retain(|moving| !awaited(moving));
                let mut effects =
                    vec![Effect::Switch(channel), Effect::ToTarget { channel, message: ToTarget::MigrateData }];
                effects.extend(self.moved_if_all_are());
                Ok(effects)
            }
            _ => Err(violation("S8", "MIGRATE_DATA that was not announced")),
        }
    }

    fn moved_if_all_are(&mut self) -> Option<Effect> {
        match &self.phase {
            Phase::Switching(moving) if moving.is_empty() => Some(self.moved(Scheme::Seamless)),
            _ => None,
        }
    }

    fn moved(&mut self, scheme: Scheme) -> Effect {
        self.phase = Phase::Session;
        self.deadline = None;
        Effect::Moved(scheme)
    }

    fn lose_session(&mut self) -> Vec<Effect> {
        self.leave(&[Effect::DropSource, Effect::DropTarget, Effect::SessionLost])
    }

    fn leave(&mut self, effects: &[Effect]) -> Vec<Effect> {
        if self.phase == Phase::Left {
            return Vec::new();
        }
        self.phase = Phase::Left;
        self.deadline = None;
        effects.to_vec()
    }
}

impl Scheme {
    /// Whether each channel goes on where it was: its serials, ACK windows, caches and the agent's tokens. Otherwise it starts
    /// afresh, with the values of the new INIT.
    #[must_use]
    pub const fn keeps_state(self) -> bool {
        matches!(self, Self::Seamless)
    }
}

/// How to connect to a [`Destination`]. Its host is opaque: where it is not a name, whoever made it knows the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route<'a> {
    /// Without TLS.
    Plaintext {
        /// The port.
        port: u16,
    },
    /// With TLS.
    Tls {
        /// The port.
        port: u16,
        /// What the target's certificate must be for.
        verify: Verify<'a>,
    },
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verify<'a> {
    /// This subject, whatever the host is called.
    Subject(Text<'a>),
    /// This host name.
    HostName(Text<'a>),
}

/// A channel cannot go to a [`Destination`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoRoute {
    /// It has no port.
    NoPort,
    /// It has no TLS port, and the channel's connection to the source has TLS.
    NoTlsPort,
}

impl<'a> Route<'a> {
    /// The way for a channel whose connection to the source has TLS, or has not: from TLS never to plaintext, and never without
    /// verification.
    ///
    /// # Errors
    /// When there is none.
    pub const fn to(destination: &Destination<'a>, has_tls: bool) -> Result<Self, NoRoute> {
        match (destination.plaintext_port(), destination.secure_port()) {
            (Some(port), _) if !has_tls => Ok(Self::Plaintext { port }),
            (_, Some(port)) => {
                let verify = match destination.cert_subject {
                    // An empty one names nobody, and spice-gtk takes it for none.
                    Some(subject) if !subject.as_bytes().is_empty() => Verify::Subject(subject),
                    _ => Verify::HostName(destination.host),
                };
                Ok(Self::Tls { port, verify })
            }
            (Some(_), None) => Err(NoRoute::NoTlsPort),
            (None, None) => Err(NoRoute::NoPort),
        }
    }
}

impl fmt::Display for NoRoute {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoPort => "the destination has no port",
            Self::NoTlsPort => "the destination has no TLS port, and the session must not fall back to plaintext",
        })
    }
}

impl core::error::Error for NoRoute {}

/// The main channel, of which a session has one.
const MAIN: ChannelId = ChannelId { channel_type: ChannelType::MAIN, id: 0 };
