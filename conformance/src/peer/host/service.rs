//! What the host's task does with its clients: links, what they say, and what the server's role wants them told. Defects sit here,
//! between the role and the wire.

use std::sync::atomic::{AtomicU32, Ordering};
use std::{
    hash::{BuildHasher, RandomState},
    sync::OnceLock,
};

use spice_migration::{
    ChannelType, ClientMessage, Data, Fault, ServerMessage,
    caps::MainCapability,
    frame::HeaderKind,
    link::LinkError,
    message::{ChannelId, MigrateFlags, MouseModes, server as send},
    migrate::{
        FromSource, FromTarget, ToSource, ToTarget,
        server::{Effect, Input},
        source_host,
        source_server::{self, ClientId, Support},
        target_host,
        target_server::{self, AgentHere, AgentState},
    },
    state::VERSION,
};

use super::{
    client::{AGENT_TOKENS, Channel, Client, DISPLAY_INIT, KEY_DOWN, MAIN, MOUSE_MOTION, PING, children},
    connection::Link,
    state::{self, Past},
    task::{Task, on_wire},
};
use crate::{peer::defect::Defect, subject::HostEvent};

impl Task {
    // Connections that come and go.

    pub(super) fn link(&mut self, link: Link) {
        let is_main = link.channel == MAIN;
        let is_known = is_main || children(&self.options).any(|child| child == link.channel);
        // The latest, should a defect have let in several of one session.
        let owner =
            self.clients.iter().rposition(|client| !is_main && client.session == link.connection_id && !client.leaving);
        let keeps_waiting = |client: &Client| {
            let unseen = |channel: &Channel| {
                channel.id.channel_type == ChannelType::DISPLAY && channel.serves && !channel.initialised
            };
            self.has(Defect::NewcomersWait)
                || self.has(Defect::NewcomersWaitForDisplay) && client.channels.iter().any(unseen)
        };
        if is_main && self.clients.iter().any(keeps_waiting) {
            self.stopped.push(link);
            return;
        }
        let twice = self.clients.iter().find(|client| {
            !is_main
                && client.session == link.connection_id
                && client.channels.iter().any(|channel| channel.id == link.channel)
        });
        if let Some(client) = twice.map(|client| client.id)
            && self.linked_twice(client)
        {
            return;
        }
        let late = owner.is_some_and(|owner| {
            let client = &self.clients[owner];
            client.migrating && !client.seamless && self.server.serves(client.id)
        });
        let result = match owner {
            _ if late && self.has(Defect::LateChannelsRefused) => LinkError::BAD_CONNECTION_ID,
            _ if !is_known && self.has(Defect::UnknownChannelAccepted) => LinkError::OK,
            _ if !is_known => LinkError::CHANNEL_NOT_AVAILABLE,
            _ if !is_main && self.key_pressed && self.has(Defect::LinksRefusedAfterKey) => {
                LinkError::CHANNEL_NOT_AVAILABLE
            }
            None if !is_main && !self.has(Defect::ConnectionIdUnchecked) => LinkError::BAD_CONNECTION_ID,
            // One of each is enough; the first is not to suffer.
            Some(owner) if self.clients[owner].channel(link.channel).is_some() => LinkError::CHANNEL_NOT_AVAILABLE,
            _ => LinkError::OK,
        };
        // The queue is empty, so there is room. If the result is an error, the queue ends behind it.
        let _ = link.outbound.try_send(result.0.to_le_bytes().to_vec());
        if result != LinkError::OK {
            return;
        }
        let channel = Channel {
            connection: link.connection,
            id: link.channel,
            header: if self.has(Defect::FullHeaderAlways) { HeaderKind::Full } else { link.header },
            serial: if self.has(Defect::SerialsFromZero) { 0 } else { 1 },
            outbound: Some(link.outbound),
            serves: is_main,
            initialised: false,
            heard: 0,
            motions: 0,
            restored: false,
            stopped: false,
        };
        match owner {
            Some(owner) if is_known => self.adopt(owner, channel),
            None if is_main => self.welcome(channel, link.connection_id, link.capabilities),
            _ => self.strays.push(channel),
        }
    }

    /// What a defect does when a client links a channel again. Whether the client is gone then.
    fn linked_twice(&mut self, client: ClientId) -> bool {
        let serves = self.server.serves(client);
        let arrives = !serves && self.client(client).is_some_and(|client| !client.leaving && !client.seamless);
        let ends = if arrives { Defect::SecondLinkEndsArrival } else { Defect::SecondLinkEndsSession };
        if self.has(Defect::DiesOfSecondLink) {
            self.died = Some("a channel linked twice".to_owned());
        }
        if self.has(ends) {
            self.end_session(client);
        }
        self.has(ends)
    }

    /// What defects do: a client loses its session.
    fn end_session(&mut self, id: ClientId) {
        self.close(id);
        self.tell_role_that_must_accept(Input::Closed { client: id, channel: MAIN });
    }

    /// The same for all of them.
    pub(super) fn end_sessions(&mut self) {
        let all: Vec<ClientId> = self.clients.iter().map(|client| client.id).collect();
        for id in all {
            self.end_session(id);
        }
    }

    /// A main channel: a new client.
    fn welcome(&mut self, main: Channel, connection_id: u32, capabilities: u32) {
        // Connections are counted from 1; that four thousand million of them come is not to be feared.
        let id = main.connection as ClientId;
        let migrating = connection_id != 0;
        let client = Client {
            id,
            session: if migrating { connection_id } else { new_session() },
            capabilities,
            migrating,
            seamless: false,
            init_sent: false,
            agent_started: false,
            declined: false,
            asked: false,
            asked_on_arrival: false,
            leaving: false,
            channels: vec![main],
        };
        let support = self.support(&client);
        if migrating {
            if self.arrival && self.has(Defect::DiesOfSecondArrival) {
                self.died = Some("a second client on its way here".to_owned());
            }
            self.arrival = true;
        }
        if self.has(Defect::DiesOfNewcomer) && self.clients.iter().any(|client| client.asked && !client.leaving) {
            self.died = Some("a client that was not asked".to_owned());
        }
        self.newcomer |= self.clients.iter().any(|client| client.leaving);
        self.agent.kept = false;
        self.clients.push(client);
        self.note(&format_args!("client {id} linked {} {}", MAIN.channel_type, MAIN.id));
        self.tell_role_that_must_accept(Input::Linked { client: id, channel: MAIN, migrating, support });
    }

    /// What a client can do, or what a defect takes it for.
    fn support(&self, client: &Client) -> Support {
        let mut support = client.support();
        // A target would not take END from it otherwise.
        support.semi_seamless |= self.has(Defect::BeginUnasked) && !self.options.incoming;
        let full_header = client.channels.iter().any(|channel| channel.header == HeaderKind::Full);
        let another = self.has(Defect::SchemeByHeader) && full_header
            || self.has(Defect::SchemeByTicket) && self.options.password.is_some();
        match support {
            _ if !another => support,
            Support { seamless: true, .. } => Support { seamless: false, semi_seamless: true },
            Support { semi_seamless, .. } => Support { seamless: false, semi_seamless: !semi_seamless },
        }
    }

    /// A child channel of a client.
    fn adopt(&mut self, owner: usize, channel: Channel) {
        let support = self.support(&self.clients[owner]);
        let client = &mut self.clients[owner];
        let (id, linked) = (client.id, channel.id);
        client.channels.push(channel);
        let too_early = client.migrating && !client.seamless && !client.init_sent && !self.server.serves(id);
        self.note(&format_args!("client {id} linked {} {}", linked.channel_type, linked.id));
        if too_early && self.has(Defect::InitBeforeEnd) {
            self.clients[owner].init_sent = true;
            self.send_init(id);
        }
        self.tell_role_that_must_accept(Input::Linked { client: id, channel: linked, migrating: false, support });
    }

    /// A connection has ended.
    pub(super) fn ended(&mut self, connection: u64) {
        let spoke =
            self.find(connection).is_some_and(|(owner, position)| self.clients[owner].channels[position].heard > 0);
        let of_arrival = self.options.incoming && self.has(Defect::DiesOfLastMessageAtTarget);
        if spoke && (of_arrival || self.has(Defect::DiesOfLastMessage)) {
            self.died = Some("a client's last message".to_owned());
        }
        let unstarted = self.find(connection).is_some_and(|(owner, position)| {
            let channel = &self.clients[owner].channels[position];
            channel.id.channel_type == ChannelType::DISPLAY && !channel.initialised
        });
        if unstarted && self.has(Defect::DiesOfDisplayWithoutInit) {
            self.died = Some("a display channel without DISPLAY_INIT".to_owned());
        }
        self.stopped.retain(|link| link.connection != connection);
        let closed = self.find(connection).map(|(owner, position)| {
            let client = &self.clients[owner];
            let has_main = client.channels.iter().any(|channel| channel.id == MAIN);
            (client.id, client.channels[position].id, client.migrating, has_main)
        });
        match closed {
            Some((id, MAIN, migrating, _)) => {
                self.arrival_lost |= migrating && !self.server.serves(id);
                if self.has(Defect::DiesOfVanishedClient) {
                    self.died = Some("a client that closed main".to_owned());
                }
            }
            Some((_, _, _, true)) if self.has(Defect::DiesOfClosedChannel) => {
                self.died = Some("a channel closed by its client".to_owned());
            }
            _ => {}
        }
        self.remove(connection);
        if let Some((id, channel, _, true)) = closed
            && channel != MAIN
            && self.has(Defect::ClosedChannelEndsSession)
        {
            self.end_session(id);
        }
    }

    /// Closes a connection, or takes note that it is closed.
    pub(super) fn remove(&mut self, connection: u64) {
        self.strays.retain(|stray| stray.connection != connection);
        let Some((owner, position)) = self.find(connection) else { return };
        let outlive = self.has(Defect::ChannelsOutliveMain);
        let client = &mut self.clients[owner];
        let removed = client.channels.remove(position);
        let (id, channel) = (client.id, removed.id);
        if channel == MAIN && outlive {
            self.strays.append(&mut client.channels);
        }
        if client.channels.is_empty() {
            self.clients.remove(owner);
        }
        self.note(&format_args!("client {id} closed {} {}", channel.channel_type, channel.id));
        self.tell_role_that_must_accept(Input::Closed { client: id, channel });
        self.take_siblings_along(id, channel);
    }

    /// Closes one connection, of which the role knows already.
    fn close_channel(&mut self, id: ClientId, channel: ChannelId) {
        if let Some(client) = self.client(id) {
            client.channels.retain(|other| other.id != channel);
        }
        self.take_siblings_along(id, channel);
    }

    /// What a defect does when a channel beside main has ended.
    fn take_siblings_along(&mut self, id: ClientId, channel: ChannelId) {
        if channel != MAIN && self.has(Defect::SiblingsTakenAlong) {
            for sibling in self.take_children(id) {
                self.tell_role_that_must_accept(Input::Closed { client: id, channel: sibling.id });
            }
        }
    }

    /// Takes all channels beside main from a client.
    fn take_children(&mut self, id: ClientId) -> Vec<Channel> {
        self.client(id)
            .map_or_else(Vec::new, |client| client.channels.extract_if(.., |channel| channel.id != MAIN).collect())
    }

    /// Closes all connections of a client, of which the role knows already.
    fn close(&mut self, id: ClientId) {
        self.clients.retain(|client| client.id != id);
    }

    /// What the role has no reason to refuse: it would be our own mistake.
    fn tell_role_that_must_accept(&mut self, input: Input) {
        let told = self.tell_server(input);
        debug_assert!(told.is_ok(), "{input:?}: {told:?}");
    }

    fn client(&mut self, id: ClientId) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.id == id)
    }

    fn find(&self, connection: u64) -> Option<(usize, usize)> {
        self.clients.iter().enumerate().find_map(|(owner, client)| {
            let position = client.channels.iter().position(|channel| channel.connection == connection)?;
            Some((owner, position))
        })
    }

    // What clients say.

    pub(super) fn receive(&mut self, connection: u64, id: u16, body: &[u8]) {
        // A connection that was closed here may still have said something.
        let Some((owner, position)) = self.find(connection) else { return };
        let client = self.clients[owner].id;
        let channel = &mut self.clients[owner].channels[position];
        channel.heard += 1;
        let (channel, heard) = (channel.id, channel.heard);
        if channel.channel_type == ChannelType::PORT && heard > 128 && self.has(Defect::PortChokes) {
            return;
        }
        let accepted = match ClientMessage::decode(channel.channel_type, id, body) {
            Err(error) => {
                let long = error.fault == Fault::TrailingBytes;
                if self.has(if long { Defect::DiesOfLongMessages } else { Defect::DiesOfShortMessages }) {
                    self.died = Some(error.to_string());
                }
                Err(error.to_string())
            }
            Ok(message) => match (ToSource::of(&message), ToTarget::of(&message)) {
                (Some(said), _) => self.hear_as_source(client, channel, said, &message),
                (None, Some(said)) => self.hear_as_target(client, channel, said, &message),
                (None, None) => self.hear(owner, position, &message),
            },
        };
        if let Err(reason) = accepted {
            self.note(&format_args!("client {client} said what it must not: {reason}"));
            if self.dies_of_illegal_messages() {
                self.died = Some(reason);
            }
            self.remove(connection);
            if self.has(Defect::MalformedEndsEverySession) {
                self.end_sessions();
            }
        }
    }

    fn hear_as_source(
        &mut self,
        client: ClientId,
        channel: ChannelId,
        said: ToSource,
        message: &ClientMessage<'_>,
    ) -> Result<(), String> {
        self.note(&format_args!("client {client} said {}", message.short_name()));
        self.agreed |= said == ToSource::ConnectedSeamless;
        let asked = self.client(client).is_some_and(|client| client.asked) && !self.answered;
        let told = self.tell_server(Input::ToSource { client, channel, message: said });
        let unasked = self.server.serves(client) && !asked;
        if said == ToSource::ConnectError && unasked && self.has(Defect::UnaskedErrorAnswered) {
            self.send(client, &ServerMessage::MigrateCancel);
        }
        if said == ToSource::FlushMark && self.has(Defect::DataBeforeFlush) {
            return Ok(());
        }
        if said == ToSource::FlushMark && told.is_err() && self.has(Defect::DiesOfFlushMark) {
            self.died = Some("unexpected flush mark".to_owned());
        }
        told.map_err(|violation| violation.to_string())
    }

    fn hear_as_target(
        &mut self,
        client: ClientId,
        channel: ChannelId,
        mut said: ToTarget,
        message: &ClientMessage<'_>,
    ) -> Result<(), String> {
        self.note(&format_args!("client {client} said {}", message.short_name()));
        let mut valid = false;
        let mut past = Past::default();
        if let ClientMessage::MigrateData(message) = message {
            let (data, channel_type) = (message.data.0, channel.channel_type);
            past = Past::of(channel_type, data);
            let altered = !past.is_likely() || data != state::data(channel_type, past, &self.settings);
            if altered && self.has(Defect::DiesOfAlteredData) {
                self.died = Some("data that is not a source's".to_owned());
            }
            // What a host with a defect sends, it takes from its like, so that only the sending is defective.
            valid = state::is_valid(channel_type, data)
                || channel_type != ChannelType::DISPLAY
                    && data == state::data(channel_type, Past::default(), &self.settings);
            let has = self.defects();
            if let Some(channel) = self.client(client).and_then(|client| client.channel(channel))
                && !channel.serves
            {
                channel.motions = if has(Defect::MotionsForgotten) { 0 } else { past.motion_count };
                // The client waits for serials of display on other channels, so they go on where the source stopped.
                if channel_type == ChannelType::DISPLAY && !has(Defect::SerialsStartAnew) {
                    channel.serial = past.message_serial.wrapping_add(1);
                }
            }
        }
        if said == ToTarget::MigrateData {
            valid |= match channel.channel_type {
                ChannelType::MAIN => self.has(Defect::BadMainDataUsed),
                ChannelType::DISPLAY => self.has(Defect::BadDisplayDataUsed),
                ChannelType::INPUTS => self.has(Defect::BadInputsDataUsed),
                _ => self.has(Defect::BadPortDataUsed),
            };
            let restored = self.client(client).is_some_and(|client| {
                !client.seamless || client.channel(channel).is_some_and(|channel| channel.restored)
            });
            if restored && self.has(Defect::UndueDataIgnored) {
                return Ok(());
            }
            // Not of each channel: of two that are sent one soon after the other, the second may come first.
            let has_data = |channel: &Channel| {
                matches!(channel.id.channel_type, ChannelType::MAIN | ChannelType::DISPLAY) && channel.restored
            };
            let is_first = self.client(client).is_some_and(|client| !client.channels.iter().any(has_data));
            if is_first && channel.channel_type == ChannelType::INPUTS && self.has(Defect::DataNeedsOrder) {
                return Err("data before that of main and display".to_owned());
            }
            if !valid && channel.channel_type != ChannelType::MAIN && self.has(Defect::BadDataEndsSession) {
                self.close(client);
                self.tell_role_that_must_accept(Input::Closed { client, channel: MAIN });
                return Ok(());
            }
        }
        let serves = self.server.serves(client);
        let agreed = self.client(client).is_some_and(|client| client.seamless);
        let deadly = match said {
            ToTarget::DoSeamless { .. } => serves && self.has(Defect::DiesOfDoSeamless),
            ToTarget::End => !serves && agreed && self.has(Defect::DiesOfEndAfterAck),
            ToTarget::MigrateData => !valid && self.dies_of_illegal_messages(),
        };
        if deadly {
            self.died = Some(format!("unexpected {said:?}"));
        }
        if let ToTarget::DoSeamless { version } = &mut said {
            if self.has(Defect::SupportedVersionRefused) {
                *version = u32::MAX;
            } else if self.has(Defect::AnyVersionAcked) {
                *version = VERSION;
            }
        }
        let declined = self.client(client).is_some_and(|client| client.declined);
        if said == ToTarget::End && declined && self.has(Defect::EndIgnoredAfterNack) {
            return Ok(());
        }
        let migrating = self.client(client).is_some_and(|client| client.migrating);
        let served = self.server.serves(client);
        let semi_seamless = self.client(client).is_some_and(|client| client.can(MainCapability::SEMI_SEAMLESS_MIGRATE));
        self.tell_server(Input::ToTarget { client, channel, message: said, valid })
            .map_err(|violation| violation.to_string())?;
        if said == ToTarget::MigrateData && channel == MAIN {
            self.receive_agent(client, past);
        }
        let answered = served && migrating && self.has(Defect::SecondEndAnswered)
            || !migrating && self.has(Defect::EndAnsweredInSession)
            || !served && !semi_seamless && self.has(Defect::EndServedWithoutSemi);
        if said == ToTarget::End && answered {
            self.send_init(client);
        }
        Ok(())
    }

    /// What becomes of the agent when the main channel's state has come.
    fn receive_agent(&mut self, id: ClientId, past: Past) {
        let has = self.defects();
        let here = match (self.agent.attached, self.agent.times) {
            (false, 0) => AgentHere::NotYet,
            (true, 1) => AgentHere::Attached,
            (false, _) => AgentHere::Gone,
            (true, _) => AgentHere::Another,
        };
        let defect = self.settings.defect;
        // A client that has been closed for its data has none.
        let Some(client) = self.client(id) else { return };
        client.agent_started = past.agent_started;
        match here.receives(past.agent) {
            AgentState::Keep => self.agent.kept = !has(Defect::AgentStateDropped),
            AgentState::Restore if has(Defect::KnownAgentTold) => client.send_agent_connected(defect),
            AgentState::Restore => {}
            AgentState::Tell { disconnected, connected } => {
                let untold = has(match (disconnected, connected) {
                    (true, true) => Defect::ReplacedAgentUntold,
                    (true, false) => Defect::LostAgentUntold,
                    (false, _) => Defect::NewAgentUntold,
                });
                if disconnected && !untold {
                    client.send_agent_disconnected();
                }
                if connected && !untold || !connected && has(Defect::MissingAgentTold) {
                    client.send_agent_connected(defect);
                }
                self.agent.kept = !past.agent && has(Defect::LateAgentUntold);
            }
        }
    }

    /// The guest's agent attaches, or goes. Who still arrives is told when it has.
    pub(super) fn attach_agent(&mut self, attached: bool) {
        if self.agent.attached == attached {
            return;
        }
        self.agent.attached = attached;
        self.agent.times += u32::from(attached);
        if attached && std::mem::take(&mut self.agent.kept) {
            return;
        }
        let has = self.defects();
        let defect = self.settings.defect;
        for client in &mut self.clients {
            let told = self.server.serves(client.id) && (!client.leaving || has(Defect::AgentToldAfterMigrate));
            match attached {
                true if told => client.send_agent_connected(defect),
                false if told && !has(Defect::AgentGoneUntold) => client.send_agent_disconnected(),
                _ => {}
            }
        }
    }

    /// What has nothing to do with migration.
    fn hear(&mut self, owner: usize, position: usize, message: &ClientMessage<'_>) -> Result<(), String> {
        let has = self.defects();
        let client = &mut self.clients[owner];
        let (id, channel) = (client.id, &mut client.channels[position]);
        let channel_type = channel.id.channel_type;
        let is_main = channel.id == MAIN;
        match message {
            ClientMessage::Unknown { id: message, body } => {
                match (channel_type, *message) {
                    (ChannelType::DISPLAY, DISPLAY_INIT) if channel.initialised => {
                        if self.has(Defect::DiesOfSecondDisplayInit) {
                            self.died = Some("unexpected display init".to_owned());
                        }
                        return Err("a second DISPLAY_INIT (S11)".to_owned());
                    }
                    (ChannelType::DISPLAY, DISPLAY_INIT) if channel.serves => {
                        channel.initialised = true;
                        channel.show_screen();
                    }
                    (ChannelType::INPUTS, MOUSE_MOTION) => {
                        channel.hear_motion();
                    }
                    (ChannelType::INPUTS, KEY_DOWN) if channel.serves => {
                        let code = body.0.first_chunk().map_or(0, |code| u32::from_le_bytes(*code));
                        self.note(&format_args!("client {id} pressed key {code:#04x}"));
                        self.key_pressed = true;
                    }
                    _ => {}
                }
                match body_len(channel_type, *message) {
                    Some((least, most)) => {
                        let (short, long) = (body.0.len() < least, body.0.len() > most);
                        if short && self.has(Defect::DiesOfShortMessages)
                            || long && self.has(Defect::DiesOfLongMessages)
                        {
                            self.died = Some(format!("the length of message {message}"));
                        }
                        // What is behind a message is passed over, as by spice-server.
                        if short { Err(format!("message {message} is too short (M5.1)")) } else { Ok(()) }
                    }
                    None if has(Defect::UnknownMessageIgnored) => Ok(()),
                    None => Err(format!("message {message}, which is none (M4)")),
                }
            }
            // So few messages are sent on any channel that none is due.
            ClientMessage::Ack if has(Defect::StrayAckStopsChannel) => {
                channel.stopped = true;
                Ok(())
            }
            ClientMessage::Disconnecting(_) if has(Defect::DisconnectingEndsChannel) => {
                Err("what is heard only at the end".to_owned())
            }
            // After MIGRATE, nothing is answered.
            message if is_main && channel.serves => {
                self.hear_main(owner, message);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn hear_main(&mut self, owner: usize, message: &ClientMessage<'_>) {
        let has = self.defects();
        let serves = self.server.serves(self.clients[owner].id);
        let defect = self.settings.defect;
        let client = &mut self.clients[owner];
        // Main goes on when its own data has come, whatever the other channels lack.
        let restored = client.channel(MAIN).is_some_and(|main| main.restored);
        match message {
            ClientMessage::AgentStart(_) if serves || restored => client.agent_started = self.agent.attached,
            ClientMessage::AttachChannels => {
                let whole = client.channels.len() > children(&self.options).count();
                // One whose migration is seamless has been declined only when it asked a second time.
                let ignored = client.seamless
                    && (has(Defect::AttachIgnoredAfterSeamless)
                        || !whole && has(Defect::UnlinkedChannelAwaited)
                        || client.declined && has(Defect::SecondRequestHoldsCompletion));
                let early = has(Defect::AttachAnsweredWhileMigrating) || restored && has(Defect::MainDataCompletes);
                if (serves || early) && !client.leaving && !ignored {
                    client.send_channels_list(&self.options, defect);
                }
            }
            // The guest has no tablet, so the mode is always the same.
            ClientMessage::MouseModeRequest(_) if serves || restored => {
                let (supported_modes, current_mode) = (MouseModes::SERVER, MouseModes::SERVER);
                client.send_main(&ServerMessage::MouseMode(send::MouseMode { supported_modes, current_mode }));
                if has(Defect::MainFallsSilent)
                    && let Some(main) = client.channel(MAIN)
                {
                    main.serves = false;
                }
            }
            _ => {}
        }
    }

    // What the role wants done.

    pub(super) fn serve(&mut self, input: Input, effect: Effect) {
        match effect {
            Effect::Source(source_server::Effect::Send { client, channel, message }) => {
                self.tell_as_source(input, client, channel, message);
            }
            Effect::Source(source_server::Effect::Close(_)) | Effect::Target(target_server::Effect::Close(_))
                if matches!(input, Input::Linked { .. })
                    && (self.has(Defect::FirstClientKept)
                        || self.has(Defect::ArrivalKept) && self.options.incoming) => {}
            Effect::Source(source_server::Effect::Close(client))
            | Effect::Target(target_server::Effect::Close(client)) => {
                self.close(client);
            }
            Effect::Source(source_server::Effect::ConnectComplete) => self.connect_complete(),
            Effect::Source(source_server::Effect::EndComplete)
                if self.newcomer && self.has(Defect::NewcomerHoldsCompletion) => {}
            Effect::Source(source_server::Effect::EndComplete) => {
                // Of a cancelled migration, it says nothing new.
                let _ = self.tell_source_host(source_host::Input::EndComplete);
            }
            Effect::Target(target_server::Effect::Send { client, message }) => self.tell_as_target(client, message),
            Effect::Target(target_server::Effect::Start { client, channel }) => self.start(input, client, channel),
            Effect::Target(target_server::Effect::CloseChannel { channel, .. })
                if input == Input::Deadline
                    && channel.channel_type == ChannelType::DISPLAY
                    && self.has(Defect::DisplayAwaitedForEver) => {}
            Effect::Target(target_server::Effect::CloseChannel { client, channel }) => {
                self.close_channel(client, channel);
            }
            Effect::Target(target_server::Effect::ClientMigrationComplete)
                if self.clients.is_empty() && self.has(Defect::GuestWaitsForGoneClient) => {}
            Effect::Target(target_server::Effect::ClientMigrationComplete) => {
                let _ = self.tell_target_host(target_host::Input::ClientMigrationComplete);
            }
        }
    }

    fn tell_as_source(&mut self, input: Input, id: ClientId, channel: ChannelId, message: FromSource) {
        if self.is_withheld(input, id, channel, message) {
            return;
        }
        let has = self.defects();
        let settings = self.settings.clone();
        let defect = settings.defect;
        let destination = self.destination.clone();
        let port_error = u16::from(has(Defect::DestinationPortWrong));
        let destination = destination.as_ref().and_then(|destination| on_wire(destination, port_error));
        let migrates_all =
            has(Defect::AgreementKept) && self.agreed || has(Defect::MigrateAfterFailure) && self.called_off_at > 0;
        let (agent, several) = (self.agent.attached, self.options.several_clients);
        let Some(client) = self.client(id) else { return };
        let agent_started = client.agent_started;
        let Some(place) = client.channel(channel) else { return };
        let full_header = place.header == HeaderKind::Full;
        if completed(message) && full_header && has(Defect::NoCompletionWithFullHeaders) {
            return;
        }
        let data;
        let message = match message {
            FromSource::SwitchHost if migrates_all => {
                FromSource::Migrate(MigrateFlags::NEED_FLUSH | MigrateFlags::NEED_DATA_TRANSFER)
            }
            FromSource::Begin if several && has(Defect::SeamlessAmongSeveral) => {
                FromSource::BeginSeamless { version: VERSION }
            }
            _ => message,
        };
        let told = match (altered(message, channel, defect), destination) {
            (FromSource::Begin, Some(destination)) => ServerMessage::MigrateBegin(send::MigrateBegin { destination }),
            (FromSource::BeginSeamless { version: src_mig_version }, Some(destination)) => {
                ServerMessage::MigrateBeginSeamless(send::MigrateBeginSeamless { destination, src_mig_version })
            }
            (FromSource::SwitchHost, Some(destination)) => {
                ServerMessage::MigrateSwitchHost(send::MigrateSwitchHost { destination })
            }
            // Nobody is told to go anywhere before there is a destination.
            (FromSource::Begin | FromSource::BeginSeamless { .. } | FromSource::SwitchHost, None) => return,
            (FromSource::Cancel, _) => ServerMessage::MigrateCancel,
            (FromSource::End, _) => ServerMessage::MigrateEnd,
            (FromSource::Migrate(flags), _) => ServerMessage::Migrate(send::Migrate { flags }),
            (FromSource::MigrateData, _) => {
                let motion_count = if has(Defect::MotionsUncounted) { 0 } else { place.motions };
                let past = Past { message_serial: place.serial, motion_count, agent, agent_started };
                if agent && !agent_started && has(Defect::DiesOfUnstartedAgent) {
                    self.died = Some("an agent without a client".to_owned());
                    return;
                }
                data = state::data(channel.channel_type, past, &settings);
                ServerMessage::MigrateData(send::MigrateData { data: Data(&data) })
            }
        };
        // Noted before it is sent: what it brings about elsewhere is noted behind it.
        let name = told.short_name();
        match channel {
            MAIN => self.note(&format_args!("client {id} was told {name}")),
            _ => self.note(&format_args!("client {id} was told {name} on {}", channel.channel_type)),
        }
        let Some(client) = self.client(id) else { return };
        let Some(place) = client.channel(channel) else { return };
        let completes =
            channel == MAIN && matches!(message, FromSource::End | FromSource::SwitchHost | FromSource::Migrate(_));
        if completes && has(Defect::CancelBesideCompletion) {
            place.send(&ServerMessage::MigrateCancel);
        }
        place.send(&told);
        let twice = completes && has(Defect::CompletionSentTwice)
            || message == FromSource::MigrateData && channel != MAIN && has(Defect::DataSentTwice);
        if twice {
            place.send(&told);
        }
        if matches!(message, FromSource::Migrate(_)) {
            place.serves = false;
            if channel.channel_type == ChannelType::DISPLAY && has(Defect::PingAfterMigrate) {
                place.send(&PING);
            }
        }
        match message {
            FromSource::Begin | FromSource::BeginSeamless { .. } => {
                client.asked = true;
                client.asked_on_arrival = matches!(input, Input::ToTarget { .. });
            }
            FromSource::Cancel => client.asked = false,
            _ => client.leaving |= completes,
        }
        self.go_wrong_after(input, id, channel, message, completes);
    }

    /// Whether a defect keeps the message from being sent.
    fn is_withheld(&self, input: Input, id: ClientId, channel: ChannelId, message: FromSource) -> bool {
        let has = self.defects();
        let is_new = self.called_off_at > 0 && id > self.called_off_at;
        match (message, input) {
            (FromSource::Begin | FromSource::BeginSeamless { .. }, input) => {
                matches!(input, Input::ToSource { .. }) && has(Defect::SecondBeginWithheld)
                    || has(Defect::NoBeginAfterCancel) && self.cancelled
                    || has(Defect::NoBeginAfterTakeover) && self.taken_over
            }
            (FromSource::Cancel, Input::MigrateEnd { .. }) => {
                let cancelled = self.seen(HostEvent::MigrationCancelled);
                has(if cancelled { Defect::CancelUntold } else { Defect::FailureUntold })
            }
            (FromSource::Cancel, Input::MigrateConnect) => has(Defect::SecondBeginWithoutCancel),
            (FromSource::Cancel, Input::ToSource { .. }) => has(Defect::UnaskedConnectedIgnored),
            _ if completed(message) && self.called_off_at > 0 && has(Defect::NoCompletionAfterFailure) => true,
            _ if completed(message) && is_new && has(Defect::NoCompletionForNewClient) => true,
            _ if completed(message) && has(Defect::NoCompletionForArrivals) => {
                self.clients.iter().any(|client| client.id == id && client.asked_on_arrival)
            }
            (FromSource::Migrate(_), _) => {
                channel.channel_type == ChannelType::CURSOR && has(Defect::MigrateMissingOnCursor)
            }
            _ => false,
        }
    }

    /// What a defect does behind a message of the source.
    fn go_wrong_after(&mut self, input: Input, id: ClientId, channel: ChannelId, message: FromSource, completes: bool) {
        let ends_session = match input {
            Input::MigrateEnd { .. } => self.has(Defect::CancelClosesSession),
            Input::ToSource { .. } => self.has(Defect::SessionEndsAfterUnasked),
            _ => false,
        };
        if message == FromSource::Cancel && ends_session {
            self.close(id);
            self.tell_role_that_must_accept(Input::Closed { client: id, channel: MAIN });
        }
        let unflushed = match channel.channel_type {
            ChannelType::DISPLAY => self.has(Defect::DataBeforeFlush),
            ChannelType::INPUTS => self.has(Defect::FlushFlagMissingOnInputs),
            _ => false,
        };
        if matches!(message, FromSource::Migrate(_)) && unflushed {
            self.tell_role_that_must_accept(Input::ToSource { client: id, channel, message: ToSource::FlushMark });
        }
        if completes && self.has(Defect::CompletedEarly) {
            self.report(HostEvent::ClientMigrationCompleted);
        }
    }

    /// What defects do when the host gives a destination.
    pub(super) fn go_wrong_before_announcement(&mut self) {
        if self.has(Defect::BeginWhileArriving) {
            let arriving = self.clients.iter().map(|client| client.id).filter(|id| !self.server.serves(*id));
            for id in arriving.collect::<Vec<_>>() {
                self.announce_to(id);
            }
        }
    }

    /// With defects: announces the destination to one client.
    fn announce_to(&mut self, id: ClientId) {
        let Some(destination) = self.destination.clone() else { return };
        if let Some(destination) = on_wire(&destination, 0) {
            self.send(id, &ServerMessage::MigrateBegin(send::MigrateBegin { destination }));
        }
    }

    /// With `cancel-told-to-everyone`: whoever was told a destination is told CANCEL.
    pub(super) fn cancel_everyone(&mut self) {
        for client in self.clients.iter_mut().filter(|client| client.asked) {
            client.send_main(&ServerMessage::MigrateCancel);
        }
    }

    fn tell_as_target(&mut self, id: ClientId, message: FromTarget) {
        let has = self.defects();
        let (time, several) = (self.multi_media_time(), self.options.several_clients);
        let Some(client) = self.client(id) else { return };
        match message {
            FromTarget::Init if client.migrating => self.send_init_to_arriving(id),
            FromTarget::Init => self.greet(id),
            FromTarget::Ack => {
                client.seamless = true;
                if has(Defect::MessageBeforeAnswer) {
                    client.send_main(&time);
                }
                client.send_main(&ServerMessage::MigrateDstSeamlessAck);
                if has(Defect::MultiMediaTimeEarly) {
                    client.send_main(&time);
                }
                if has(Defect::AnswerSentTwice) {
                    client.send_main(&ServerMessage::MigrateDstSeamlessAck);
                }
                if has(Defect::EarlyChannelsClosed) || has(Defect::EarlyChannelsForgotten) {
                    for early in self.take_children(id) {
                        self.tell_role_that_must_accept(Input::Closed { client: id, channel: early.id });
                        if has(Defect::EarlyChannelsForgotten) {
                            self.strays.push(early);
                        }
                    }
                }
            }
            FromTarget::Nack
                if client.seamless && has(Defect::SecondDoSeamlessAcked) || several && has(Defect::AckAmongSeveral) =>
            {
                client.send_main(&ServerMessage::MigrateDstSeamlessAck);
            }
            FromTarget::Nack => {
                client.declined = true;
                client.send_main(&ServerMessage::MigrateDstSeamlessNack);
            }
        }
    }

    /// The first messages of a session that begins here.
    fn greet(&mut self, id: ClientId) {
        let has = self.defects();
        if has(Defect::NoInitAfterMigration) && self.taken_over
            || has(Defect::NoInitAfterLostArrival) && self.arrival_lost
        {
            return;
        }
        let (options, defect) = (self.options.clone(), self.settings.defect);
        if has(Defect::MessageBeforeInit) {
            let time = self.multi_media_time();
            self.send(id, &time);
        }
        self.send_init(id);
        let Some(client) = self.client(id) else { return };
        let asked = client.can(MainCapability::NAME_AND_UUID);
        if asked && !has(Defect::NameWithheld) || has(Defect::NameUnasked) {
            client.send_name(&options.name);
        }
        if asked || has(Defect::NameUnasked) {
            client.send_main(&ServerMessage::Uuid(send::Uuid { uuid: [0; 16] }));
        }
        if has(Defect::NewcomerAnnounced) {
            self.announce_to(id);
        }
        let Some(client) = self.client(id) else { return };
        if has(Defect::ChannelsListEarly) {
            client.send_channels_list(&options, defect);
        }
        client.send_main(&PING);
    }

    /// The session that ended at the source goes on here.
    fn send_init_to_arriving(&mut self, id: ClientId) {
        let has = self.defects();
        let name = self.options.name.clone();
        let Some(client) = self.client(id) else { return };
        let init_sent = client.init_sent;
        if has(Defect::InitWithNewSessionId) {
            client.session = new_session();
        }
        if !init_sent {
            self.send_init(id);
        }
        if has(Defect::AnswerSentTwice) {
            self.send_init(id);
        }
        if has(Defect::NameAfterSemiSeamless)
            && let Some(client) = self.client(id)
        {
            client.send_name(&name);
        }
    }

    /// A channel begins to be served.
    fn start(&mut self, input: Input, id: ClientId, channel: ChannelId) {
        let has = self.defects();
        let ends = matches!(input, Input::ToTarget { message: ToTarget::End, .. });
        if ends && has(Defect::HeldChannelsForgotten) {
            return;
        }
        let time = self.multi_media_time();
        let Some(client) = self.client(id) else { return };
        let seamless = client.seamless;
        let Some(place) = client.channel(channel) else { return };
        place.start();
        place.acknowledge_motions();
        place.initialised |= seamless;
        place.restored |= seamless;
        if channel == MAIN {
            // It has come seamlessly: no INIT tells the time.
            if !has(Defect::MultiMediaTimeMissing) && !has(Defect::MultiMediaTimeEarly) {
                place.send(&time);
            }
            if has(Defect::InitAfterSeamless) {
                self.send_init(id);
            }
        }
    }

    fn send_init(&mut self, id: ClientId) {
        let ServerMessage::MultiMediaTime(send::MultiMediaTime { time }) = self.multi_media_time() else { return };
        let attached = self.agent.attached || self.has(Defect::InitInventsAgent);
        let agent_connected = u32::from(attached && !self.has(Defect::InitWithoutAgent));
        let Some(client) = self.client(id) else { return };
        client.send_main(&ServerMessage::Init(send::Init {
            session_id: client.session,
            display_channels_hint: 1,
            supported_mouse_modes: MouseModes::SERVER.0.into(),
            current_mouse_mode: MouseModes::SERVER.0.into(),
            agent_connected,
            agent_tokens: AGENT_TOKENS,
            multi_media_time: time,
            ram_hint: 0,
        }));
    }

    fn send(&mut self, id: ClientId, message: &ServerMessage<'_>) {
        if let Some(client) = self.client(id) {
            client.send_main(message);
        }
    }

    fn multi_media_time(&self) -> ServerMessage<'static> {
        // The clock starts anew after seven weeks, as everybody's.
        let time = self.began.elapsed().as_millis() as u32;
        ServerMessage::MultiMediaTime(send::MultiMediaTime { time })
    }

    fn dies_of_illegal_messages(&self) -> bool {
        self.has(Defect::DiesOfIllegalMessages)
            || self.options.incoming && self.has(Defect::DiesOfIllegalMessagesAtTarget)
    }

    /// As [`has`](Self::has), without borrowing the task.
    fn defects(&self) -> impl Fn(Defect) -> bool + Copy + use<> {
        let switched_on = self.settings.defect;
        move |defect| switched_on == Some(defect)
    }
}

/// Whether a message says that the guest has moved.
const fn completed(message: FromSource) -> bool {
    matches!(message, FromSource::End | FromSource::Migrate(_) | FromSource::SwitchHost)
}

/// What a defect makes of a message.
fn altered(message: FromSource, channel: ChannelId, defect: Option<Defect>) -> FromSource {
    match (message, defect) {
        (FromSource::BeginSeamless { .. }, Some(Defect::BeginInsteadOfSeamless)) => FromSource::Begin,
        (FromSource::BeginSeamless { .. }, Some(Defect::BeginVersionTwo)) => FromSource::BeginSeamless { version: 2 },
        (FromSource::Begin, Some(Defect::BeginSeamlessUnasked)) => FromSource::BeginSeamless { version: VERSION },
        (FromSource::End, Some(Defect::SwitchHostInsteadOfEnd)) => FromSource::SwitchHost,
        (FromSource::SwitchHost, Some(Defect::EndInsteadOfSwitchHost)) => FromSource::End,
        (FromSource::Migrate(_), Some(Defect::FlushFlagMissingOnInputs))
            if channel.channel_type == ChannelType::INPUTS =>
        {
            FromSource::Migrate(MigrateFlags::NEED_DATA_TRANSFER)
        }
        _ => message,
    }
}

/// Counted over all hosts of the process, so that no host takes another's session for its own; from anywhere, so that hosts of different
/// processes do not, either.
fn new_session() -> u32 {
    static LAST: OnceLock<AtomicU32> = OnceLock::new();
    let first = || AtomicU32::new(RandomState::new().hash_one(0) as u32);
    // 0 is no session.
    LAST.get_or_init(first).fetch_add(1, Ordering::Relaxed).max(1)
}

/// The least and the greatest length of a message that a client can send, beside those that concern migration; `None`: there is no such.
const fn body_len(channel_type: ChannelType, id: u16) -> Option<(usize, usize)> {
    Some(match (channel_type, id) {
        (ChannelType::DISPLAY, DISPLAY_INIT) => (14, 14),
        // STREAM_REPORT, PREFERRED_COMPRESSION, GL_DRAW_DONE, and PREFERRED_VIDEO_CODEC_TYPE, which counts what it lists.
        (ChannelType::DISPLAY, 102) => (32, 32),
        (ChannelType::DISPLAY, 103) => (1, 1),
        (ChannelType::DISPLAY, 104) => (0, 0),
        (ChannelType::DISPLAY, 105) => (1, 256),
        // KEY_UP, KEY_MODIFIERS, KEY_SCANCODE.
        (ChannelType::INPUTS, KEY_DOWN | 102) => (4, 4),
        (ChannelType::INPUTS, 103) => (2, 2),
        (ChannelType::INPUTS, 104) => (0, usize::MAX),
        // MOUSE_MOTION, MOUSE_POSITION, MOUSE_PRESS, MOUSE_RELEASE.
        (ChannelType::INPUTS, 111) => (10, 10),
        (ChannelType::INPUTS, 112) => (11, 11),
        (ChannelType::INPUTS, 113 | 114) => (3, 3),
        // SPICEVMC_DATA and SMARTCARD_DATA; SPICEVMC_COMPRESSED_DATA, PORT_EVENT.
        (ChannelType::PORT | ChannelType::SMARTCARD, 101) => (0, usize::MAX),
        (ChannelType::PORT, 102) => (1, usize::MAX),
        (ChannelType::PORT, 201) => (1, 1),
        _ => return None,
    })
}
