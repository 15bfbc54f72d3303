//! A server in full: it takes clients over as a target, serves them, and hands them over as a source.
//!
//! It is a [`TargetServer`] for what arrives and a [`SourceServer`] for what is here. A client that has arrived, or has begun its session
//! here, passes from the one to the other.
//!
//! A migration that is asked for while a client is still arriving waits for it, as in spice-server: nothing but INIT may reach
//! the client first. It waits for [`MIGRATE_TIMEOUT`]; then who has not arrived is dropped, and the others are told. spice-server
//! keeps those that it has promised a seamless migration, but tells them nothing.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::source_server::{self, ClientId, SourceServer, Support};
use super::target_server::{self, TargetServer};
use super::{MIGRATE_TIMEOUT, Role, Time, ToSource, ToTarget, Violation};
use crate::ChannelType;
use crate::message::ChannelId;

/// A server whose guest may come, and go again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    target: TargetServer,
    source: SourceServer,
    /// Until when the announcement of a destination waits for clients that are arriving.
    deferred_until: Option<Time>,
}

/// What happens to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The host can hold the guest until the client has come.
    CanHoldTheGuest,
    /// The guest is here: the host wants to be told when the client is.
    AwaitClient,
    /// The display of this id is a streaming device's, and moves without state.
    StreamingDisplay(u8),
    /// The host says where the guest will go.
    MigrateInfo,
    /// The host wants the clients to connect there.
    MigrateConnect,
    /// The guest has stopped: hand over what can be, while the last of the guest is still on its way.
    MigrateStart,
    /// The guest has moved, or does not move after all.
    MigrateEnd {
        /// Which.
        completed: bool,
    },
    /// A client has linked a channel; a main channel makes it a client.
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
    /// A connection has ended.
    Closed {
        /// Whose.
        client: ClientId,
        /// Which.
        channel: ChannelId,
    },
    /// A client says something to its source.
    ToSource {
        /// Which client.
        client: ClientId,
        /// On which channel.
        channel: ChannelId,
        /// What.
        message: ToSource,
    },
    /// A client says something to its target.
    ToTarget {
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

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// As a target.
    Target(target_server::Effect),
    /// As a source.
    Source(source_server::Effect),
}

impl Role for Server {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Time, input: Input) -> Result<Vec<Effect>, Violation> {
        let mut effects = Vec::new();
        match input {
            Input::CanHoldTheGuest => self.of_target(now, target_server::Input::CanHoldTheGuest, &mut effects)?,
            Input::AwaitClient => self.of_target(now, target_server::Input::AwaitClient, &mut effects)?,
            Input::StreamingDisplay(id) => {
                self.of_target(now, target_server::Input::StreamingDisplay(id), &mut effects)?;
                self.of_source(now, source_server::Input::StreamingDisplay(id), &mut effects)?;
            }
            Input::MigrateInfo => self.of_source(now, source_server::Input::MigrateInfo, &mut effects)?,
            Input::MigrateConnect if self.target.expects_client() => {
                self.source.may_connect()?;
                self.deferred_until = Some(now.saturating_add(MIGRATE_TIMEOUT));
            }
            Input::MigrateConnect => self.of_source(now, source_server::Input::MigrateConnect, &mut effects)?,
            Input::MigrateStart => {
                self.of_source(now, source_server::Input::MigrateStart, &mut effects)?;
                self.no_longer_deferred(&mut effects);
            }
            Input::MigrateEnd { completed } => {
                self.of_source(now, source_server::Input::MigrateEnd { completed }, &mut effects)?;
                self.no_longer_deferred(&mut effects);
                if completed {
                    // Who has not arrived yet follows nobody: the guest is elsewhere.
                    effects.extend(self.target.drop_arriving().into_iter().map(Effect::Target));
                }
            }
            Input::Linked { client, channel, migrating, support } => {
                let linked = target_server::Input::Linked { client, channel, migrating, support };
                self.of_target(now, linked, &mut effects)?;
            }
            Input::Closed { client, channel } => {
                let was_here = self.target.has_client(client) || self.source.has_client(client);
                self.of_target(now, target_server::Input::Closed { client, channel }, &mut effects)?;
                let mut of_source = Vec::new();
                self.of_source(now, source_server::Input::Closed { client, channel }, &mut of_source)?;
                // Seamlessly the channels leave one by one; otherwise the main channel is the session.
                if channel.channel_type == ChannelType::MAIN && was_here && !self.source.has_client(client) {
                    effects.push(Effect::Target(target_server::Effect::Close(client)));
                }
                effects.extend(of_source);
            }
            Input::ToSource { client, channel, message } => {
                let message = source_server::Input::Message { client, channel, message };
                self.of_source(now, message, &mut effects)?;
            }
            Input::ToTarget { client, channel, .. } if self.source.has_sent_away(client, channel) => {}
            Input::ToTarget { client, channel, message, valid } => {
                let message = target_server::Input::Message { client, channel, message, valid };
                self.of_target(now, message, &mut effects)?;
            }
            Input::Deadline => self.times_up(now, &mut effects)?,
        }
        let whose = match input {
            Input::Linked { client, .. } | Input::Closed { client, .. } | Input::ToTarget { client, .. } => {
                Some(client)
            }
            _ => None,
        };
        self.settle(now, whose, &mut effects)?;
        Ok(effects)
    }

    fn deadline(&self) -> Option<Time> {
        [self.target.deadline(), self.source.deadline(), self.deferred_until].into_iter().flatten().min()
    }
}

impl Server {
    /// A server without clients. `seamless`: the host allows seamless migration. `several`: there may be several clients, and then none
    /// is migrated seamlessly.
    #[must_use]
    pub const fn new(seamless: bool, several: bool) -> Self {
        Self {
            target: TargetServer::new(several),
            source: SourceServer::new(seamless && !several),
            deferred_until: None,
        }
    }

    /// Whether its main channel advertises `SEAMLESS_MIGRATE`.
    #[must_use]
    pub const fn advertises_seamless(&self) -> bool {
        self.target.advertises_seamless()
    }

    /// Whether this client has a session here, so that it is neither arriving nor unknown.
    #[must_use]
    pub fn serves(&self, client: ClientId) -> bool {
        self.target.serves(client)
    }

    fn of_target(
        &mut self,
        now: Time,
        input: target_server::Input,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Violation> {
        effects.extend(self.target.handle(now, input)?.into_iter().map(Effect::Target));
        Ok(())
    }

    fn of_source(
        &mut self,
        now: Time,
        input: source_server::Input,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Violation> {
        let done = self.source.handle(now, input)?;
        self.source_has(done, effects);
        Ok(())
    }

    /// A call of `MigrateConnect` that is deferred replaces the one before, whose answer would be taken for its own.
    fn source_has(&self, done: Vec<source_server::Effect>, effects: &mut Vec<Effect>) {
        let is_replaced = |effect: &source_server::Effect| {
            self.deferred_until.is_some() && *effect == source_server::Effect::ConnectComplete
        };
        effects.extend(done.into_iter().filter(|effect| !is_replaced(effect)).map(Effect::Source));
    }

    /// The host goes on without the announcement that it has asked for, which is answered all the same.
    fn no_longer_deferred(&mut self, effects: &mut Vec<Effect>) {
        if self.deferred_until.take().is_some() {
            effects.insert(0, Effect::Source(source_server::Effect::ConnectComplete));
        }
    }

    fn times_up(&mut self, now: Time, effects: &mut Vec<Effect>) -> Result<(), Violation> {
        let is_up = |deadline: Option<Time>| deadline.is_some_and(|deadline| deadline <= now);
        if is_up(self.target.deadline()) {
            self.of_target(now, target_server::Input::Deadline, effects)?;
        }
        if is_up(self.source.deadline()) {
            self.of_source(now, source_server::Input::Deadline, effects)?;
        }
        if is_up(self.deferred_until) {
            effects.extend(self.target.drop_arriving().into_iter().map(Effect::Target));
        }
        Ok(())
    }

    /// What one half has done to a client, the other has to know; and the one that this was about may have arrived.
    fn settle(&mut self, now: Time, whose: Option<ClientId>, effects: &mut Vec<Effect>) -> Result<(), Violation> {
        let mut arrived: BTreeSet<ClientId> = whose.into_iter().collect();
        let mut dropped = BTreeSet::new();
        for effect in effects.clone() {
            match effect {
                Effect::Target(target_server::Effect::CloseChannel { client, channel }) => {
                    arrived.insert(client);
                    self.of_source(now, source_server::Input::Closed { client, channel }, effects)?;
                }
                Effect::Target(target_server::Effect::Close(client))
                | Effect::Source(source_server::Effect::Close(client)) => {
                    dropped.insert(client);
                }
                _ => {}
            }
        }
        for client in arrived {
            if let Some((support, channels)) = self.target.served(client) {
                effects.extend(self.source.serve(client, support, channels).map(Effect::Source));
            }
        }
        if !dropped.is_empty() {
            effects.extend(self.target.drop_clients(&dropped).map(Effect::Target));
            let done = self.source.drop_clients(now, &dropped);
            // Those that came too late go with the last one that was waited for.
            let closed = done.iter().filter_map(|effect| match effect {
                source_server::Effect::Close(client) => Some(*client),
                _ => None,
            });
            effects.extend(self.target.drop_clients(&closed.collect()).map(Effect::Target));
            self.source_has(done, effects);
        }
        if self.deferred_until.is_some() && !self.target.expects_client() {
            self.deferred_until = None;
            self.of_source(now, source_server::Input::MigrateConnect, effects)?;
        }
        Ok(())
    }
}
