//! The source's server: it tells its clients where the guest goes, and hands them over.
//!
//! The host calls it as in the design mail, with the renaming that the mail proposes:
//!
//! | call of the host | the mail's step | what shipped |
//! |---|---|---|
//! | [`Input::MigrateInfo`] | (1) | `spice_server_migrate_info` |
//! | [`Input::MigrateConnect`] | (2), answered by [`Effect::ConnectComplete`] (3) | `spice_server_migrate_connect` |
//! | [`Input::MigrateStart`] | (6) | nothing: the hand-over begins with the end |
//! | [`Input::MigrateEnd`] | (8), answered by [`Effect::EndComplete`] | `spice_server_migrate_end` |
//!
//! Each call of `MigrateConnect` is answered once, unless another one replaces it, and each call of `MigrateEnd` once. Where
//! spice-server 0.15.1 leaves a call without an answer (an end while clients are still awaited; a cancelled one that had a client),
//! this server gives it: a host must not have to guess.
//!
//! It departs from spice-server in one more way. A client's answer does not say which announcement it is for. So a second
//! destination is announced only when the answers to the first are in, and a client that is late with one is not asked again
//! before it has come. spice-server announces at once, and takes the answer to the first for one to the second: then a
//! client can be sent to a target that it has left, or that it has not reached. The model in `tests/model` finds both.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use super::{FromSource, MIGRATE_TIMEOUT, Role, StreamingDisplays, Time, ToSource, Violation, violation};
use crate::ChannelType;
use crate::message::{ChannelId, MigrateFlags};
use crate::state::VERSION;

/// Names a client among those of a server.
pub type ClientId = u32;

/// A server whose guest may move away.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceServer {
    /// Whether the host allows seamless migration.
    seamless: bool,
    streaming: StreamingDisplays,
    /// Whether the host has said where to.
    has_destination: bool,
    phase: Phase,
    /// While clients connect: the host wants them to connect elsewhere.
    again: bool,
    clients: Vec<Client>,
}

/// How far the migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// There is none.
    Idle,
    /// The clients have been told, and not all have answered, until this time.
    Connecting(Time),
    /// All have answered, or their time was up.
    Connected,
    /// The guest has stopped, and seamless clients are being handed over.
    HandingOver,
    /// The guest has moved. The clients have until this time to leave.
    Leaving(Time),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Client {
    id: ClientId,
    support: Support,
    answer: Answer,
    channels: Vec<Channel>,
}

/// What a client's main-channel capabilities say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Support {
    /// `SEMI_SEAMLESS_MIGRATE`.
    pub semi_seamless: bool,
    /// `SEAMLESS_MIGRATE` and `AGENT_CONNECTED_TOKENS`.
    pub seamless: bool,
}

/// What a client has said about its connection to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    /// It was not asked, or could not connect.
    None,
    /// It did not answer in time, and may still.
    Late,
    /// It is asked, and whether for a seamless migration.
    Awaited {
        seamless: bool,
    },
    Connected,
    ConnectedSeamless,
    /// It came when the guest had gone.
    CameTooLate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Channel {
    id: ChannelId,
    step: Step,
}

/// How far a channel is in a seamless hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Serving,
    /// MIGRATE was sent, and FLUSH_MARK must come.
    Flushing,
    /// All was sent that there is.
    Done,
}

/// What happens to a source's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
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
    /// The display of this id is a streaming device's, and moves without state. The target must know too.
    StreamingDisplay(u8),
    /// A client has linked a channel; a main channel makes it a client. One that comes when the guest has moved is told where to.
    Linked {
        /// Whose.
        client: ClientId,
        /// Which.
        channel: ChannelId,
        /// What the client can do; only the main channel's link tells.
        support: Support,
    },
    /// A connection has ended. The main channel's takes the client's others with it, unless its MIGRATE_DATA had been sent:
    /// seamlessly the channels leave one by one.
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
        message: ToSource,
    },
    /// The time of [`Role::deadline`] has come.
    Deadline,
}

/// What a source's server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Send this to a client. Where the message carries a destination, it is the host's; MIGRATE_DATA carries the channel's state.
    Send {
        /// Which client.
        client: ClientId,
        /// On which channel.
        channel: ChannelId,
        /// What.
        message: FromSource,
    },
    /// Close all connections of a client.
    Close(ClientId),
    /// Tell the host that its clients are connected to the target, as far as they will be: the answer to `MigrateConnect`.
    ConnectComplete,
    /// Tell the host that no client needs this server any more: the answer to `MigrateEnd`.
    EndComplete,
}

impl Role for SourceServer {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Time, input: Input) -> Result<Vec<Effect>, Violation> {
        match input {
            Input::MigrateInfo => {
                self.has_destination = true;
                Ok(Vec::new())
            }
            Input::MigrateConnect => self.connect(now),
            Input::MigrateStart => self.start(now),
            Input::MigrateEnd { completed: true } => self.end(now),
            Input::MigrateEnd { completed: false } => self.cancel(now),
            Input::StreamingDisplay(id) => {
                self.streaming.add(id);
                Ok(Vec::new())
            }
            Input::Linked { client, channel, support } => self.linked(client, channel, support),
            Input::Closed { client, channel } => Ok(self.closed(now, client, channel)),
            Input::Message { client, channel, message } => self.message(now, client, channel, message),
            Input::Deadline => Ok(self.give_up(now)),
        }
    }

    fn deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Connecting(deadline) | Phase::Leaving(deadline) => Some(deadline),
            _ => None,
        }
    }
}

impl SourceServer {
    /// A server without clients. `seamless`: the host allows seamless migration.
    #[must_use]
    pub const fn new(seamless: bool) -> Self {
        Self {
            seamless,
            streaming: StreamingDisplays::new(),
            has_destination: false,
            phase: Phase::Idle,
            again: false,
            clients: Vec::new(),
        }
    }

    /// How far the migration is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether a channel of this client is open.
    pub(super) fn has_client(&self, id: ClientId) -> bool {
        self.clients.iter().any(|client| client.id == id)
    }

    /// Whether a channel of this client was told MIGRATE: nothing is answered on it any more.
    pub(super) fn has_sent_away(&self, id: ClientId, channel: ChannelId) -> bool {
        let client = self.clients.iter().find(|client| client.id == id);
        let channel = client.and_then(|client| client.channels.iter().find(|known| known.id == channel));
        channel.is_some_and(|channel| channel.step != Step::Serving)
    }

    /// A client has a session here, with these channels, the main channel first; some or all may be known already.
    pub(super) fn serve(
        &mut self,
        id: ClientId,
        support: Support,
        channels: impl Iterator<Item = ChannelId>,
    ) -> Option<Effect> {
        let channels = channels.map(|id| Channel { id, step: Step::Serving });
        match self.clients.iter_mut().find(|client| client.id == id) {
            Some(client) => {
                for channel in channels {
                    if !client.channels.iter().any(|other| other.id == channel.id) {
                        client.channels.push(channel);
                    }
                }
                None
            }
            None => self.welcome(Client { id, support, answer: Answer::None, channels: channels.collect() }),
        }
    }

    /// All connections of these clients have ended.
    pub(super) fn drop_clients(&mut self, now: Time, dropped: &BTreeSet<ClientId>) -> Vec<Effect> {
        self.clients.retain(|client| !dropped.contains(&client.id));
        self.after_departure(now)
    }

    /// Whether the host may want the clients to connect now.
    pub(super) fn may_connect(&self) -> Result<(), Violation> {
        if !self.has_destination {
            return Err(violation("H1", "the clients shall connect, and nobody has said where"));
        }
        if matches!(self.phase, Phase::HandingOver | Phase::Leaving(_)) {
            return Err(violation("H1", "a further destination, while the guest leaves for one"));
        }
        Ok(())
    }

    fn connect(&mut self, now: Time) -> Result<Vec<Effect>, Violation> {
        self.may_connect()?;
        if let Phase::Connecting(_) = self.phase {
            self.again = true;
            return Ok(Vec::new());
        }
        Ok(self.announce(now))
    }

    fn announce(&mut self, now: Time) -> Vec<Effect> {
        // Seamless needs the client for itself: another one could not be told what the first has seen.
        let seamless_allowed = self.seamless && self.clients.len() == 1;
        let mut effects = Vec::new();
        for client in self.clients.iter_mut().filter(|client| client.answer != Answer::Late) {
            effects.extend(client.cancel());
            let message = if seamless_allowed && client.support.seamless {
                FromSource::BeginSeamless { version: VERSION }
            } else if client.support.semi_seamless {
                FromSource::Begin
            } else {
                continue;
            };
            client.answer = Answer::Awaited { seamless: message != FromSource::Begin };
            effects.push(client.send(message));
        }
        self.phase = Phase::Connecting(now.saturating_add(MIGRATE_TIMEOUT));
        effects.extend(self.connected_if_all_are(now));
        effects
    }

    fn message(
        &mut self,
        now: Time,
        id: ClientId,
        channel: ChannelId,
        message: ToSource,
    ) -> Result<Vec<Effect>, Violation> {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else {
            return Ok(Vec::new());
        };
        if message == ToSource::FlushMark {
            return client.flushed(channel);
        }
        if channel.channel_type != ChannelType::MAIN {
            return Err(violation("S11", "a main-channel message on another channel"));
        }
        if matches!(self.phase, Phase::HandingOver | Phase::Leaving(_)) {
            // It has been told how it goes on, and must be told nothing more.
            return Ok(Vec::new());
        }
        match (client.answer, message) {
            (Answer::Awaited { .. }, ToSource::ConnectError) => client.answer = Answer::None,
            (Answer::Awaited { .. }, ToSource::Connected) => client.answer = Answer::Connected,
            (Answer::Awaited { seamless: true }, ToSource::ConnectedSeamless) => {
                client.answer = Answer::ConnectedSeamless;
            }
            (Answer::Awaited { seamless: false }, ToSource::ConnectedSeamless) => {
                return Err(violation("S11", "CONNECTED_SEAMLESS after MIGRATE_BEGIN"));
            }
            // Too late, or never asked. It has to give the target up; one that could not connect has nothing to give up.
            (_, answer) => {
                client.answer = Answer::None;
                let gives_up = answer != ToSource::ConnectError;
                return Ok(gives_up.then(|| client.send(FromSource::Cancel)).into_iter().collect());
            }
        }
        Ok(self.connected_if_all_are(now))
    }

    /// The answer to `MigrateConnect`, once no client is awaited; or what the host has wanted in the meantime.
    fn connected_if_all_are(&mut self, now: Time) -> Vec<Effect> {
        let awaited = self.clients.iter().any(|client| matches!(client.answer, Answer::Awaited { .. }));
        if awaited || !matches!(self.phase, Phase::Connecting(_)) {
            return Vec::new();
        }
        if core::mem::take(&mut self.again) {
            return self.announce(now);
        }
        self.phase = Phase::Connected;
        vec![Effect::ConnectComplete]
    }

    /// Awaits nobody any more.
    fn stop_waiting(&mut self, now: Time) -> Vec<Effect> {
        for client in &mut self.clients {
            if matches!(client.answer, Answer::Awaited { .. }) {
                client.answer = Answer::Late;
            }
        }
        self.connected_if_all_are(now)
    }

    fn start(&mut self, now: Time) -> Result<Vec<Effect>, Violation> {
        if !self.has_destination || !matches!(self.phase, Phase::Idle | Phase::Connecting(_) | Phase::Connected) {
            return Err(violation("H1", "the hand-over starts, and nobody has said where, or it has begun"));
        }
        self.again = false;
        let mut effects = self.stop_waiting(now);
        self.phase = Phase::HandingOver;
        for client in &mut self.clients {
            if client.answer == Answer::ConnectedSeamless {
                effects.extend(client.migrate(&self.streaming));
            }
        }
        Ok(effects)
    }

    fn end(&mut self, now: Time) -> Result<Vec<Effect>, Violation> {
        let mut effects = match self.phase {
            Phase::HandingOver => Vec::new(),
            _ => self.start(now)?,
        };
        for client in &mut self.clients {
            match client.answer {
                Answer::ConnectedSeamless => {}
                Answer::Connected if client.support.semi_seamless => effects.push(client.send(FromSource::End)),
                _ => effects.push(client.send(FromSource::SwitchHost)),
            }
        }
        self.phase = Phase::Leaving(now.saturating_add(MIGRATE_TIMEOUT));
        effects.extend(self.ended_if_all_have_left());
        Ok(effects)
    }

    fn cancel(&mut self, now: Time) -> Result<Vec<Effect>, Violation> {
        if let Phase::Leaving(_) = self.phase {
            return Err(violation("H3", "cancelled after it had ended"));
        }
        self.again = false;
        let mut effects = self.stop_waiting(now);
        for client in &mut self.clients {
            if client.channels.iter().any(|channel| channel.step != Step::Serving) {
                // Its channels are on their way, and the protocol knows no way back.
                effects.push(Effect::Close(client.id));
            }
            effects.extend(client.cancel());
        }
        self.clients.retain(|client| client.channels.iter().all(|channel| channel.step == Step::Serving));
        self.phase = Phase::Idle;
        self.has_destination = false;
        effects.push(Effect::EndComplete);
        Ok(effects)
    }

    fn linked(&mut self, id: ClientId, channel: ChannelId, support: Support) -> Result<Vec<Effect>, Violation> {
        let linked = Channel { id: channel, step: Step::Serving };
        match self.clients.iter_mut().find(|client| client.id == id) {
            Some(client) if client.channels.iter().any(|other| other.id == channel) => {
                Err(violation("S11", "a channel linked twice"))
            }
            Some(client) => {
                client.channels.push(linked);
                Ok(Vec::new())
            }
            None if channel.channel_type == ChannelType::MAIN => {
                let client = Client { id, support, answer: Answer::None, channels: vec![linked] };
                Ok(self.welcome(client).into_iter().collect())
            }
            None => Err(violation("L6", "a channel before the main channel")),
        }
    }

    fn welcome(&mut self, mut client: Client) -> Option<Effect> {
        let guest_has_moved = matches!(self.phase, Phase::Leaving(_));
        let told = guest_has_moved.then(|| client.send(FromSource::SwitchHost));
        if guest_has_moved {
            client.answer = Answer::CameTooLate;
        }
        self.clients.push(client);
        told
    }

    fn closed(&mut self, now: Time, id: ClientId, channel: ChannelId) -> Vec<Effect> {
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            let left_seamlessly = client.channels.contains(&Channel { id: channel, step: Step::Done });
            client.channels.retain(|other| other.id != channel);
            // Seamlessly the channels leave one by one, and the main channel not always as the last one.
            if channel.channel_type == ChannelType::MAIN && !left_seamlessly {
                client.channels.clear();
            }
        }
        self.clients.retain(|client| !client.channels.is_empty());
        self.after_departure(now)
    }

    /// The host may have waited for just the one that has gone.
    fn after_departure(&mut self, now: Time) -> Vec<Effect> {
        let mut effects = self.connected_if_all_are(now);
        effects.extend(self.ended_if_all_have_left());
        effects
    }

    /// Nobody waits for those that came when the guest had gone: they have been told where it is, and have lost nothing here.
    fn ended_if_all_have_left(&mut self) -> Vec<Effect> {
        let awaited = self.clients.iter().any(|client| client.answer != Answer::CameTooLate);
        if awaited || !matches!(self.phase, Phase::Leaving(_)) {
            return Vec::new();
        }
        self.phase = Phase::Idle;
        self.has_destination = false;
        let late = self.clients.drain(..).map(|client| Effect::Close(client.id));
        late.chain([Effect::EndComplete]).collect()
    }

    fn give_up(&mut self, now: Time) -> Vec<Effect> {
        match self.phase {
            Phase::Connecting(until) | Phase::Leaving(until) if now < until => Vec::new(),
            Phase::Connecting(_) => self.stop_waiting(now),
            Phase::Leaving(_) => {
                let mut effects: Vec<_> = self.clients.drain(..).map(|client| Effect::Close(client.id)).collect();
                effects.extend(self.ended_if_all_have_left());
                effects
            }
            _ => Vec::new(),
        }
    }
}

impl Client {
    /// On the main channel.
    fn send(&self, message: FromSource) -> Effect {
        let channel = ChannelId { channel_type: ChannelType::MAIN, id: 0 };
        Effect::Send { client: self.id, channel, message }
    }

    /// Takes the announcement back, from a client that has answered it with success.
    fn cancel(&mut self) -> Option<Effect> {
        let answer = self.answer;
        if answer != Answer::Late {
            self.answer = Answer::None;
        }
        let connected = matches!(answer, Answer::Connected | Answer::ConnectedSeamless);
        let reachable = self.channels.iter().all(|channel| channel.step == Step::Serving);
        (connected && reachable && self.support.semi_seamless).then(|| self.send(FromSource::Cancel))
    }

    fn migrate(&mut self, streaming: &StreamingDisplays) -> Vec<Effect> {
        let client = self.id;
        let mut effects = Vec::new();
        for channel in &mut self.channels {
            let flags = streaming.migrate_flags(channel.id);
            channel.step = if flags.contains(MigrateFlags::NEED_FLUSH) { Step::Flushing } else { Step::Done };
            effects.push(Effect::Send { client, channel: channel.id, message: FromSource::Migrate(flags) });
        }
        effects
    }

    fn flushed(&mut self, id: ChannelId) -> Result<Vec<Effect>, Violation> {
        let client = self.id;
        match self.channels.iter_mut().find(|channel| channel.id == id) {
            Some(channel @ Channel { step: Step::Flushing, .. }) => {
                channel.step = Step::Done;
                Ok(vec![Effect::Send { client, channel: id, message: FromSource::MigrateData }])
            }
            _ => Err(violation("S8", "FLUSH_MARK that nobody asked for")),
        }
    }
}
