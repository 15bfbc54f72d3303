//! The target's server: it takes the client over, and tells its host when that is done.
//!
//! Two of its inputs exist in the design mail alone, and in no server that shipped. The host says that it can hold the guest
//! ([`Input::CanHoldTheGuest`]); only then is `SEAMLESS_MIGRATE` advertised. And when the guest is here it asks when the client is
//! ([`Input::AwaitClient`]), which [`Effect::ClientMigrationComplete`] answers, once for each question: when the client has been
//! taken over, when it is gone, at once when there is none, and after [`MIGRATE_TIMEOUT`] in any case.
//!
//! At that time limit a seamless client whose main channel has its data loses only the channels that still wait for theirs. One that
//! has not come so far, or was promised nothing, has no session that could go on, and is closed whole. spice-server 0.15.1 limits the display
//! alone, from the moment the guest runs. There a channel that is lost before its data has come leaves its client in migration
//! for good, which ignores ATTACH_CHANNELS ever after; here the client is then as complete as it can be.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use super::source_server::{ClientId, Support};
use super::{FromTarget, MIGRATE_TIMEOUT, Role, StreamingDisplays, Time, ToTarget, Violation, violation};
use crate::ChannelType;
use crate::message::{ChannelId, MigrateFlags};
use crate::state::VERSION;

/// A server whose guest may come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetServer {
    /// Whether the host can hold the guest until the client has come.
    can_hold: bool,
    /// Whether several clients may be connected at once.
    several: bool,
    streaming: StreamingDisplays,
    /// Until when the host waits for the client.
    awaited_until: Option<Time>,
    clients: Vec<Client>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Client {
    id: ClientId,
    phase: Phase,
    support: Support,
    channels: Vec<Channel>,
}

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Its channels are linked and held.
    Pending,
    /// It has been promised a seamless migration: each channel's state must come.
    Seamless,
    /// It has a session here.
    Active,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Channel {
    id: ChannelId,
    /// In a seamless migration: its state has not come yet.
    awaits_data: bool,
}

/// What happens to a target's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The host can hold the guest until the client has come.
    CanHoldTheGuest,
    /// The guest is here: the host wants to be told when the client is.
    AwaitClient,
    /// The display of this id is a streaming device's, and moves without state. The source must know too.
    StreamingDisplay(u8),
    /// A client has linked a channel.
    Linked {
        /// Whose.
        client: ClientId,
        /// Which.
        channel: ChannelId,
        /// Whether its connection id is not 0, so that it comes from a source; the main channel's link tells.
        migrating: bool,
        /// What the client can do; the main channel's link tells.
        support: Support,
    },
    /// A connection has ended. The main channel's takes the client's others with it.
    Closed {
        /// Whose.
        client: ClientId,
        /// Which.
        channel: ChannelId,
    },
    /// A client says something.
    Message {
        /// Which client.
        client: ClientId,
        /// On which channel.
        channel: ChannelId,
        /// What.
        message: ToTarget,
        /// For MIGRATE_DATA: whether [`State::for_target`](crate::state::State::for_target) accepts it.
        valid: bool,
    },
    /// The time of [`Role::deadline`] has come.
    Deadline,
}

/// What a target's server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Send this to a client on its main channel. INIT has the session id that the client linked with.
    Send {
        /// Which client.
        client: ClientId,
        /// What.
        message: FromTarget,
    },
    /// Begin to serve a channel that was held, with the state that has come for it, if any.
    Start {
        /// Whose.
        client: ClientId,
        /// Which.
        channel: ChannelId,
    },
    /// Close one connection.
    CloseChannel {
        /// Whose.
        client: ClientId,
        /// Which.
        channel: ChannelId,
    },
    /// Close all connections of a client.
    Close(ClientId),
    /// Tell the host that no client is on its way any more: the answer to `AwaitClient`.
    ClientMigrationComplete,
}

/// How the guest's agent is attached here, when the main channel's state comes for a seamless client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AgentHere {
    /// It has not been yet: the guest has not run here.
    NotYet,
    /// It is, and has been all along.
    Attached,
    /// It was, and is no longer.
    Gone,
    /// It was, has gone, and is again: the state is another one's.
    Another,
}

/// What becomes of the state of the agent's port, and what the client must be told of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AgentState {
    /// Go on from it. The client notices nothing.
    Restore,
    /// Keep it, and go on from it when the agent attaches.
    Keep,
    /// There is none, or none for this agent. Send AGENT_DISCONNECTED, if so, and then AGENT_CONNECTED, or AGENT_CONNECTED_TOKENS to
    /// a client with that capability, if so.
    Tell {
        /// Whether what the client knew of is no longer there.
        disconnected: bool,
        /// Whether there is one that it does not know of.
        connected: bool,
    },
}

impl AgentHere {
    /// What follows from where the agent is and whether it was connected at the source: `Main`'s `agent.connected`.
    #[must_use]
    pub const fn receives(self, connected_at_source: bool) -> AgentState {
        match (connected_at_source, self) {
            (true, Self::Attached) => AgentState::Restore,
            (true, Self::NotYet) => AgentState::Keep,
            (known, _) => {
                AgentState::Tell { disconnected: known, connected: matches!(self, Self::Attached | Self::Another) }
            }
        }
    }
}

impl Role for TargetServer {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Time, input: Input) -> Result<Vec<Effect>, Violation> {
        match input {
            Input::CanHoldTheGuest => {
                self.can_hold = true;
                Ok(Vec::new())
            }
            Input::AwaitClient => {
                self.awaited_until = Some(now.saturating_add(MIGRATE_TIMEOUT));
                Ok(self.complete_if_nobody_comes().into_iter().collect())
            }
            Input::StreamingDisplay(id) => {
                self.streaming.add(id);
                Ok(Vec::new())
            }
            Input::Linked { client, channel, migrating, support } => self.linked(client, channel, migrating, support),
            Input::Closed { client, channel } => Ok(self.closed(client, channel)),
            Input::Message { client, channel, message, valid } => self.message(client, channel, message, valid),
            Input::Deadline => Ok(self.give_up(now)),
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.awaited_until
    }
}

impl TargetServer {
    /// A server without clients. `several`: they may be more than one.
    #[must_use]
    pub const fn new(several: bool) -> Self {
        Self { can_hold: false, several, streaming: StreamingDisplays::new(), awaited_until: None, clients: Vec::new() }
    }

    /// Whether its main channel advertises `SEAMLESS_MIGRATE`.
    #[must_use]
    pub const fn advertises_seamless(&self) -> bool {
        self.can_hold && !self.several
    }

    /// Whether a client from a source is on its way.
    #[must_use]
    pub fn expects_client(&self) -> bool {
        self.clients.iter().any(|client| client.phase != Phase::Active)
    }

    /// Whether this client has a session here.
    #[must_use]
    pub fn serves(&self, client: ClientId) -> bool {
        self.served(client).is_some()
    }

    /// Whether a channel of this client is open, whether it arrives or is there.
    pub(super) fn has_client(&self, id: ClientId) -> bool {
        self.clients.iter().any(|client| client.id == id)
    }

    /// What a client that has a session here can do, and its channels, the main channel first.
    pub(super) fn served(&self, client: ClientId) -> Option<(Support, impl Iterator<Item = ChannelId> + use<'_>)> {
        let served = self.clients.iter().find(|other| other.id == client && other.phase == Phase::Active)?;
        Some((served.support, served.channels.iter().map(|channel| channel.id)))
    }

    /// All connections of these clients have ended.
    pub(super) fn drop_clients(&mut self, dropped: &BTreeSet<ClientId>) -> Option<Effect> {
        self.clients.retain(|client| !dropped.contains(&client.id));
        self.complete_if_nobody_comes()
    }

    fn linked(
        &mut self,
        id: ClientId,
        channel: ChannelId,
        migrating: bool,
        support: Support,
    ) -> Result<Vec<Effect>, Violation> {
        if channel.channel_type == ChannelType::MAIN {
            if self.has_client(id) {
                return Err(violation("T2", "a channel linked twice"));
            }
            let mut effects = Vec::new();
            if !self.several {
                effects.extend(self.clients.drain(..).map(|client| Effect::Close(client.id)));
            }
            let phase = if migrating { Phase::Pending } else { Phase::Active };
            let channels = vec![Channel { id: channel, awaits_data: false }];
            self.clients.push(Client { id, phase, support, channels });
            if !migrating {
                effects.push(Effect::Send { client: id, message: FromTarget::Init });
            }
            effects.extend(self.complete_if_nobody_comes());
            return Ok(effects);
        }
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else {
            return Err(violation("L6", "a channel before the main channel"));
        };
        if client.channels.iter().any(|other| other.id == channel) {
            return Err(violation("T2", "a channel linked twice"));
        }
        let mut linked = Channel { id: channel, awaits_data: false };
        let mut effects = Vec::new();
        match client.phase {
            Phase::Pending => {}
            Phase::Seamless => effects.extend(linked.becomes_active(id, &self.streaming)),
            Phase::Active => effects.push(Effect::Start { client: id, channel }),
        }
        client.channels.push(linked);
        Ok(effects)
    }

    fn message(
        &mut self,
        id: ClientId,
        channel: ChannelId,
        message: ToTarget,
        valid: bool,
    ) -> Result<Vec<Effect>, Violation> {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else { return Ok(Vec::new()) };
        if message != ToTarget::MigrateData && channel.channel_type != ChannelType::MAIN {
            return Err(violation("S11", "a main-channel message on another channel"));
        }
        let mut effects = Vec::new();
        match message {
            ToTarget::DoSeamless { version } => {
                let agreed = self.can_hold && !self.several && version <= VERSION && client.phase == Phase::Pending;
                let message = if agreed { FromTarget::Ack } else { FromTarget::Nack };
                effects.push(Effect::Send { client: id, message });
                if agreed {
                    client.phase = Phase::Seamless;
                    let channels = client.channels.iter_mut();
                    effects.extend(channels.filter_map(|channel| channel.becomes_active(id, &self.streaming)));
                }
            }
            ToTarget::End if client.phase == Phase::Pending && client.support.semi_seamless => {
                client.phase = Phase::Active;
                effects.push(Effect::Send { client: id, message: FromTarget::Init });
                let channels = client.channels.iter().map(|channel| channel.id);
                effects.extend(
                    channels
                        .filter(|channel| channel.channel_type != ChannelType::MAIN)
                        .map(|channel| Effect::Start { client: id, channel }),
                );
            }
            ToTarget::End => {}
            ToTarget::MigrateData => match client.channels.iter_mut().find(|other| other.id == channel) {
                Some(other) if other.awaits_data && valid => {
                    other.awaits_data = false;
                    effects.push(Effect::Start { client: id, channel });
                    client.active_if_whole();
                }
                _ => {
                    // Nothing else may suffer for it, but a client without a main channel is none.
                    if channel.channel_type == ChannelType::MAIN {
                        effects.push(Effect::Close(id));
                    } else {
                        effects.push(Effect::CloseChannel { client: id, channel });
                    }
                    effects.extend(self.closed(id, channel));
                    return Ok(effects);
                }
            },
        }
        effects.extend(self.complete_if_nobody_comes());
        Ok(effects)
    }

    fn closed(&mut self, id: ClientId, channel: ChannelId) -> Vec<Effect> {
        if channel.channel_type == ChannelType::MAIN {
            self.clients.retain(|client| client.id != id);
        }
        for client in self.clients.iter_mut().filter(|client| client.id == id) {
            client.channels.retain(|other| other.id != channel);
            client.active_if_whole();
        }
        self.complete_if_nobody_comes().into_iter().collect()
    }

    /// The answer to `AwaitClient`, once no client is on its way.
    fn complete_if_nobody_comes(&mut self) -> Option<Effect> {
        if self.awaited_until.is_none() || self.expects_client() {
            return None;
        }
        self.awaited_until = None;
        Some(Effect::ClientMigrationComplete)
    }

    /// The host waits no longer: what has come may stay.
    fn give_up(&mut self, now: Time) -> Vec<Effect> {
        if self.awaited_until.is_none_or(|until| now < until) {
            return Vec::new();
        }
        let mut effects = Vec::new();
        for client in self.clients.iter_mut().filter(|client| client.has_main_data()) {
            let id = client.id;
            let late = client.channels.extract_if(.., |channel| channel.awaits_data);
            effects.extend(late.map(|channel| Effect::CloseChannel { client: id, channel: channel.id }));
            client.active_if_whole();
        }
        effects.extend(self.drop_arriving());
        effects
    }

    /// Awaits nobody any more.
    pub(super) fn drop_arriving(&mut self) -> Vec<Effect> {
        let late = self.clients.extract_if(.., |client| client.phase != Phase::Active);
        let mut effects: Vec<_> = late.map(|client| Effect::Close(client.id)).collect();
        effects.extend(self.complete_if_nobody_comes());
        effects
    }
}

impl Client {
    /// Whether it comes seamlessly, and its main channel has come.
    fn has_main_data(&self) -> bool {
        let awaits_main = |channel: &Channel| channel.id.channel_type == ChannelType::MAIN && channel.awaits_data;
        self.phase == Phase::Seamless && !self.channels.iter().any(awaits_main)
    }

    /// A seamless migration is done when every channel that has state to carry over has delivered it.
    fn active_if_whole(&mut self) {
        if self.phase == Phase::Seamless && !self.channels.iter().any(|channel| channel.awaits_data) {
            self.phase = Phase::Active;
        }
    }
}

impl Channel {
    /// In a seamless migration a channel waits for its state, or goes on at once if it has none.
    fn becomes_active(&mut self, client: ClientId, streaming: &StreamingDisplays) -> Option<Effect> {
        self.awaits_data = streaming.migrate_flags(self.id).contains(MigrateFlags::NEED_DATA_TRANSFER);
        (!self.awaits_data).then_some(Effect::Start { client, channel: self.id })
    }
}
