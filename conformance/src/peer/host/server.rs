//! The host's task: one owner of all state. Connections hand it what arrives, and it hands them what to send.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use spice_migration::{
    ChannelType, ClientMessage, ServerMessage, Text,
    caps::MainCapability,
    frame::HeaderKind,
    link::LinkError,
    message::{self, LAST_BASE_ID, MouseModes, server as send},
    state::VERSION,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    client::{
        Arrival, CHILDREN, Channel, Client, DISPLAY_INIT, INVAL_ALL_PALETTES, MAIN, PING, Phase, Reply, SET_ACK, Stage,
    },
    connection::{self, Link, Settings},
    state,
};
use crate::{
    peer::defect::Defect,
    subject::{Destination, HostEvent, HostOptions},
    trace::Trace,
};

/// What reaches the host's task.
#[derive(Debug)]
pub(super) enum Input {
    Command(Command, oneshot::Sender<Answer>),
    Link(Link),
    Message { connection: u64, id: u16, body: Vec<u8> },
    Closed { connection: u64 },
}

/// Whether a command took effect at once, or why it did not.
pub(super) type Answer = Result<bool, String>;

/// What the host is told to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Announce this destination to the client.
    Announce(Destination),
    /// The VM migration begins and, unless throttled, the guest stops.
    StopGuest,
    /// The guest has arrived here.
    TakeGuest,
    /// The stopped guest has arrived elsewhere.
    Complete,
    /// The VM migration fails.
    Fail,
    Throttle,
    Cancel,
    /// Only answer.
    Answer,
}

/// The state of the host and its server.
#[derive(Debug)]
pub(super) struct Server {
    options: HostOptions,
    defect: Option<Defect>,
    migrate_timeout: Duration,
    trace: Trace,
    events: watch::Sender<Vec<(HostEvent, std::time::Instant)>>,
    began: Instant,
    guest: Guest,
    /// Whether the guest came from another host.
    taken_over: bool,
    vm_migration: VmMigration,
    /// Where the guest will go, once announced and as long as that is open.
    destination: Option<Destination>,
    /// Whether a VM migration was ever cancelled.
    cancelled: bool,
    /// The connected client is the last one; others are there with `first-client-kept` only.
    clients: Vec<Client>,
    /// Channels that belong to no client, which a defect let in.
    strays: Vec<Channel>,
    timers: Vec<(Instant, Timer)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Guest {
    Awaited,
    Here,
    Stopped,
    Gone,
}

#[derive(Debug, PartialEq, Eq)]
enum VmMigration {
    None,
    /// The next one will not get beyond its live stage.
    Throttled,
    Live,
}

/// What is due for the client with this main connection.
#[derive(Debug, Clone, Copy)]
enum Timer {
    /// It was told to leave: if it has not, it is dropped.
    Departure(u64),
    /// A further destination waits until its arrival is complete: if that is not so yet, it is dropped.
    Arrival(u64),
    /// The guest runs here: its display channel is closed if that still lacks its data.
    DisplayData(u64),
}

impl Server {
    pub(super) fn new(
        options: HostOptions,
        defect: Option<Defect>,
        migrate_timeout: Duration,
        trace: Trace,
        events: watch::Sender<Vec<(HostEvent, std::time::Instant)>>,
    ) -> Self {
        Self {
            guest: if options.incoming { Guest::Awaited } else { Guest::Here },
            options,
            defect,
            migrate_timeout,
            trace,
            events,
            began: Instant::now(),
            taken_over: false,
            vm_migration: VmMigration::None,
            destination: None,
            cancelled: false,
            clients: Vec::new(),
            strays: Vec::new(),
            timers: Vec::new(),
        }
    }

    /// Serves until it is aborted, and all connections with it.
    pub(super) async fn run(
        mut self,
        listener: TcpListener,
        inputs: mpsc::Sender<Input>,
        mut queue: mpsc::Receiver<Input>,
    ) {
        let settings = Arc::new(Settings { password: self.options.password.clone(), defect: self.defect });
        let mut connections = JoinSet::new();
        let mut connection = 0;
        loop {
            let due = self.timers.iter().map(|(due, _)| *due).min();
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        // Without it, small messages wait for acknowledgements; if it fails, they do.
                        let _ = stream.set_nodelay(true);
                        connection += 1;
                        connections.spawn(connection::run(stream, connection, settings.clone(), inputs.clone()));
                    }
                    // Too many open files, most likely: that passes.
                    Err(_) => sleep(Duration::from_millis(10)).await,
                },
                Some(input) = queue.recv() => self.handle(input),
                () = sleep_until(due.unwrap_or(self.began)), if due.is_some() => self.expire(),
                Some(_) = connections.join_next() => {}
            }
        }
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Command(command, answer) => {
                // Whoever asked may have stopped waiting.
                let _ = answer.send(self.obey(command));
            }
            Input::Link(link) => self.link(link),
            Input::Message { connection, id, body } => self.receive(connection, id, &body),
            Input::Closed { connection } => self.remove(connection),
        }
    }

    // What the host is told to do.

    fn obey(&mut self, command: Command) -> Answer {
        match command {
            Command::Answer => {}
            Command::Announce(destination) => self.announce(destination)?,
            Command::Throttle => self.vm_migration = VmMigration::Throttled,
            Command::StopGuest => {
                self.expect_guest(&Guest::Here)?;
                match self.vm_migration {
                    VmMigration::None => {
                        self.guest = Guest::Stopped;
                        self.report(HostEvent::Stop);
                    }
                    VmMigration::Throttled => {
                        self.vm_migration = VmMigration::Live;
                        return Ok(false);
                    }
                    VmMigration::Live => return Err("a VM migration is under way".to_owned()),
                }
            }
            Command::TakeGuest => {
                self.expect_guest(&Guest::Awaited)?;
                self.guest = Guest::Here;
                self.taken_over = true;
                self.report(HostEvent::Resume);
                if let Some(client) = self.clients.last() {
                    self.timers.push((Instant::now() + self.migrate_timeout, Timer::DisplayData(client.number)));
                }
            }
            Command::Complete => {
                self.expect_guest(&Guest::Stopped)?;
                self.guest = Guest::Gone;
                self.report(HostEvent::MigrationCompleted);
                self.send_client_away();
            }
            Command::Fail => {
                if self.guest == Guest::Stopped {
                    self.guest = Guest::Here;
                    self.report(HostEvent::Resume);
                }
                self.expect_guest(&Guest::Here)?;
                if self.vm_migration == VmMigration::Live {
                    return Err("a VM migration is under way".to_owned());
                }
                self.report(HostEvent::MigrationFailed);
                self.keep_client(Defect::FailureUntold);
            }
            Command::Cancel => {
                if self.vm_migration == VmMigration::Live {
                    self.vm_migration = VmMigration::None;
                    self.cancelled = true;
                    self.report(HostEvent::MigrationCancelled);
                    self.keep_client(Defect::CancelUntold);
                }
            }
        }
        Ok(true)
    }

    fn expect_guest(&self, expected: &Guest) -> Result<(), String> {
        if self.guest == *expected { Ok(()) } else { Err(format!("the guest is {:?}", self.guest).to_lowercase()) }
    }

    fn report(&self, event: HostEvent) {
        self.trace.event(&self.options.name, &format_args!("{event:?}"));
        self.events.send_modify(|events| events.push((event, std::time::Instant::now())));
    }

    // The source: announce, then send away or keep.

    fn announce(&mut self, destination: Destination) -> Result<(), String> {
        on_wire(&destination, 0).ok_or("the destination has no form on the wire")?;
        let again = self.destination.replace(destination).is_some();
        let silent = self.has(Defect::NoBeginAfterCancel) && self.cancelled
            || self.has(Defect::NoBeginAfterTakeover) && self.taken_over;
        let cancel = again && !self.has(Defect::SecondBeginWithoutCancel);
        let Some(client) = self.clients.last_mut() else { return Ok(()) };
        if cancel && client.has_connected() {
            client.send_main(&ServerMessage::MigrateCancel);
        }
        client.reply = Reply::NotAsked;
        match client.stage {
            _ if silent => {}
            Stage::Active(_) => self.begin(self.clients.len() - 1),
            Stage::Leaving => {}
            Stage::Held { .. } | Stage::Seamless => {
                client.deferred = true;
                self.timers.push((Instant::now() + self.migrate_timeout, Timer::Arrival(client.number)));
            }
        }
        Ok(())
    }

    /// Tells a client the destination, by the scheme that its capabilities allow.
    fn begin(&mut self, owner: usize) {
        let has = self.defects();
        let client = &mut self.clients[owner];
        let Some(destination) = self.destination.as_ref().and_then(|destination| on_wire(destination, port_error(has)))
        else {
            return;
        };
        let seamless = self.options.seamless
            && client.can(MainCapability::AGENT_CONNECTED_TOKENS)
            && client.can(MainCapability::SEAMLESS_MIGRATE);
        let semi_seamless = client.can(MainCapability::SEMI_SEAMLESS_MIGRATE);
        let begin_seamless = match (seamless, semi_seamless) {
            (true, _) => !has(Defect::BeginInsteadOfSeamless),
            (false, true) => has(Defect::BeginSeamlessUnasked),
            (false, false) if has(Defect::BeginUnasked) => false,
            (false, false) => return,
        };
        client.reply = Reply::Awaited;
        if begin_seamless {
            let src_mig_version = if has(Defect::BeginVersionTwo) { 2 } else { VERSION };
            let begin = send::MigrateBeginSeamless { destination, src_mig_version };
            client.send_main(&ServerMessage::MigrateBeginSeamless(begin));
        } else {
            client.send_main(&ServerMessage::MigrateBegin(send::MigrateBegin { destination }));
        }
    }

    /// The guest has gone: the client is to follow it.
    fn send_client_away(&mut self) {
        let has = self.defects();
        let Some(client) = self.clients.last_mut() else { return self.report(HostEvent::ClientMigrationCompleted) };
        let Some(destination) = self.destination.take() else {
            // As spice-server does when nobody told it where to.
            client.stage = Stage::Leaving;
            return self.drop_client(self.clients.len() - 1);
        };
        let end = match client.has_connected() {
            true => !has(Defect::SwitchHostInsteadOfEnd),
            false => has(Defect::EndInsteadOfSwitchHost),
        };
        if has(Defect::CancelBesideCompletion) {
            client.send_main(&ServerMessage::MigrateCancel);
        }
        let message = match (client.stage, client.reply) {
            // Nothing may be sent before INIT, which its client will not get here any more.
            (Stage::Held { .. }, _) => None,
            (_, Reply::ConnectedSeamless) => {
                client.send_migrate(self.defect);
                None
            }
            _ if end => Some(ServerMessage::MigrateEnd),
            _ => on_wire(&destination, port_error(has))
                .map(|destination| ServerMessage::MigrateSwitchHost(send::MigrateSwitchHost { destination })),
        };
        for message in message.iter().cycle().take(if has(Defect::CompletionSentTwice) { 2 } else { 1 }) {
            client.send_main(message);
        }
        client.reply = Reply::NotAsked;
        client.stage = Stage::Leaving;
        let number = client.number;
        if has(Defect::CompletedEarly) {
            self.report(HostEvent::ClientMigrationCompleted);
        }
        if !has(Defect::SourceWaitsForEver) {
            self.timers.push((Instant::now() + self.migrate_timeout, Timer::Departure(number)));
        }
    }

    /// The guest stays, and so does the client.
    fn keep_client(&mut self, untold: Defect) {
        let has = self.defects();
        self.destination = None;
        let Some(client) = self.clients.last_mut() else { return };
        let everyone = untold == Defect::CancelUntold && has(Defect::CancelToldToEveryone);
        let told = client.has_connected() && !has(untold) || everyone && client.reply != Reply::NotAsked;
        client.reply = Reply::NotAsked;
        client.deferred = false;
        if told {
            client.send_main(&ServerMessage::MigrateCancel);
            if has(Defect::CancelClosesSession) {
                self.drop_client(self.clients.len() - 1);
            }
        }
    }

    // Connections that come and go.

    fn link(&mut self, link: Link) {
        let is_main = link.channel == MAIN;
        let is_known = is_main || CHILDREN.contains(&link.channel);
        let owner = self
            .clients
            .iter()
            .position(|client| !is_main && client.session == link.connection_id && client.stage != Stage::Leaving);
        let result = match owner {
            _ if !is_known && self.has(Defect::UnknownChannelAccepted) => LinkError::OK,
            _ if !is_known => LinkError::CHANNEL_NOT_AVAILABLE,
            None if !is_main && !self.has(Defect::ConnectionIdUnchecked) => LinkError::BAD_CONNECTION_ID,
            // One of each is enough; the first is not to suffer.
            Some(owner) if self.clients[owner].channels.iter().any(|channel| channel.id == link.channel) => {
                LinkError::CHANNEL_NOT_AVAILABLE
            }
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
            phase: if is_main { Phase::Open } else { Phase::Held },
        };
        match owner {
            Some(owner) if is_known => self.adopt(owner, channel),
            None if is_main => self.welcome(channel, link.connection_id, link.capabilities),
            _ => self.strays.push(channel),
        }
    }

    /// A main channel: a new client in place of the one before.
    fn welcome(&mut self, main: Channel, connection_id: u32, capabilities: u32) {
        if !self.has(Defect::FirstClientKept) && !self.clients.is_empty() {
            self.drop_client(0);
        }
        let migrates = connection_id != 0;
        self.clients.push(Client {
            number: main.connection,
            session: if migrates { connection_id } else { new_session() },
            capabilities,
            stage: if migrates { Stage::Held { init_sent: false } } else { Stage::Active(Arrival::Fresh) },
            reply: Reply::NotAsked,
            deferred: false,
            channels: vec![main],
        });
        if migrates || self.has(Defect::NoInitAfterMigration) && self.taken_over {
            return;
        }
        let has = self.defects();
        let time = self.multi_media_time();
        let Some(client) = self.clients.last_mut() else { return };
        if has(Defect::MessageBeforeInit) {
            client.send_main(&time);
        }
        self.send_init(self.clients.len() - 1);
        let Some(client) = self.clients.last_mut() else { return };
        let asked = client.can(MainCapability::NAME_AND_UUID);
        if asked && !has(Defect::NameWithheld) || has(Defect::NameUnasked) {
            client.send_name(&self.options.name);
        }
        if asked || has(Defect::NameUnasked) {
            client.send_main(&ServerMessage::Uuid(send::Uuid { uuid: [0; 16] }));
        }
        if has(Defect::ChannelsListEarly) {
            client.send_channels_list(self.defect);
        }
        client.send_main(&PING);
    }

    /// A child channel of a client.
    fn adopt(&mut self, owner: usize, channel: Channel) {
        let client = &mut self.clients[owner];
        client.channels.push(channel);
        if client.stage == (Stage::Held { init_sent: false }) && self.defect == Some(Defect::InitBeforeEnd) {
            client.stage = Stage::Held { init_sent: true };
            self.send_init(owner);
        } else if let Some(channel) = client.channels.last_mut()
            && !matches!(client.stage, Stage::Held { .. })
        {
            channel.start(client.stage == Stage::Seamless);
        }
    }

    /// Closes a connection, or takes note that it is closed.
    fn remove(&mut self, connection: u64) {
        self.strays.retain(|stray| stray.connection != connection);
        let Some((owner, position)) = self.find(connection) else { return };
        let client = &mut self.clients[owner];
        let removed = client.channels.remove(position);
        // A client that leaves for another host closes its channels in any order; otherwise the main channel is the session.
        if client.channels.is_empty() || removed.id == MAIN && client.stage != Stage::Leaving {
            self.drop_client(owner);
        } else {
            self.complete_seamless_arrival(owner);
        }
    }

    /// Closes all connections of a client.
    fn drop_client(&mut self, owner: usize) {
        let client = self.clients.remove(owner);
        let untold = self.has(Defect::CompletionUntold) && client.channels.is_empty();
        if client.stage == Stage::Leaving && !untold {
            self.report(HostEvent::ClientMigrationCompleted);
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for (_, timer) in self.timers.extract_if(.., |(due, _)| *due <= now).collect::<Vec<_>>() {
            let (Timer::Departure(number) | Timer::Arrival(number) | Timer::DisplayData(number)) = timer;
            let Some(owner) = self.clients.iter().position(|client| client.number == number) else { continue };
            match timer {
                Timer::Departure(_) => self.drop_client(owner),
                Timer::Arrival(_) if self.clients[owner].deferred => self.drop_client(owner),
                Timer::Arrival(_) => {}
                Timer::DisplayData(_) => {
                    let late = self.clients[owner].channels.iter().find(|channel| {
                        channel.id.channel_type == ChannelType::DISPLAY && channel.phase == Phase::DataAwaited
                    });
                    if let Some(connection) = late.map(|channel| channel.connection) {
                        self.remove(connection);
                    }
                }
            }
        }
    }

    fn find(&self, connection: u64) -> Option<(usize, usize)> {
        self.clients.iter().enumerate().find_map(|(owner, client)| {
            let position = client.channels.iter().position(|channel| channel.connection == connection)?;
            Some((owner, position))
        })
    }

    // What clients say.

    fn receive(&mut self, connection: u64, id: u16, body: &[u8]) {
        // A connection that was closed here may still have said something.
        let Some((owner, position)) = self.find(connection) else { return };
        let channel = &mut self.clients[owner].channels[position];
        let is_main = channel.id == MAIN;
        let accepted = match ClientMessage::decode(channel.id.channel_type, id, body) {
            Err(_) => false,
            Ok(ClientMessage::Unknown { id, .. }) => {
                if id == DISPLAY_INIT && channel.id.channel_type == ChannelType::DISPLAY && channel.phase == Phase::Open
                {
                    channel.send(&INVAL_ALL_PALETTES);
                }
                id > LAST_BASE_ID && !is_main || self.has(Defect::UnknownMessageIgnored)
            }
            Ok(ClientMessage::MigrateFlushMark) => channel.flush(self.defect),
            Ok(ClientMessage::MigrateData(message)) => self.restore(owner, position, message.data.0),
            // After MIGRATE, nothing is answered.
            Ok(message) if is_main && channel.phase != Phase::FlushAwaited && channel.phase != Phase::Moved => {
                self.receive_main(owner, &message);
                true
            }
            Ok(_) => true,
        };
        if !accepted {
            self.remove(connection);
        }
    }

    fn receive_main(&mut self, owner: usize, message: &ClientMessage<'_>) {
        let has = self.defects();
        let time = self.multi_media_time();
        let client = &mut self.clients[owner];
        let held = matches!(client.stage, Stage::Held { .. });
        match message {
            ClientMessage::MigrateConnected => client.answer(Reply::Connected, self.defect),
            ClientMessage::MigrateConnectedSeamless => client.answer(Reply::ConnectedSeamless, self.defect),
            ClientMessage::MigrateConnectError => client.answer(Reply::Failed, self.defect),
            ClientMessage::AttachChannels => {
                let answered = match client.stage {
                    Stage::Held { .. } | Stage::Seamless => has(Defect::AttachAnsweredWhileMigrating),
                    Stage::Active(Arrival::Seamless) => !has(Defect::AttachIgnoredAfterSeamless),
                    Stage::Active(_) => true,
                    Stage::Leaving => false,
                };
                if answered {
                    client.send_channels_list(self.defect);
                }
            }
            // The guest has no tablet, so the mode is always the same.
            ClientMessage::MouseModeRequest(_) if !held => {
                let (supported_modes, current_mode) = (MouseModes::SERVER, MouseModes::SERVER);
                client.send_main(&ServerMessage::MouseMode(send::MouseMode { supported_modes, current_mode }));
            }
            ClientMessage::MigrateEnd if client.can(MainCapability::SEMI_SEAMLESS_MIGRATE) => match client.stage {
                Stage::Held { init_sent } => self.complete_semi_seamless_arrival(owner, init_sent),
                Stage::Active(Arrival::SemiSeamless) if has(Defect::SecondEndAnswered) => self.send_init(owner),
                _ => {}
            },
            ClientMessage::MigrateDstDoSeamless(message) => {
                let supported = message.src_version <= VERSION && !has(Defect::SupportedVersionRefused);
                if held && (supported || has(Defect::AnyVersionAcked)) {
                    client.send_main(&ServerMessage::MigrateDstSeamlessAck);
                    if has(Defect::MultiMediaTimeEarly) {
                        client.send_main(&time);
                    }
                    if has(Defect::AnswerSentTwice) {
                        client.send_main(&ServerMessage::MigrateDstSeamlessAck);
                    }
                    client.stage = Stage::Seamless;
                    client.channels.iter_mut().for_each(|channel| channel.start(true));
                } else if !held && client.stage != Stage::Active(Arrival::Fresh) && has(Defect::SecondDoSeamlessAcked) {
                    client.send_main(&ServerMessage::MigrateDstSeamlessAck);
                } else {
                    client.send_main(&ServerMessage::MigrateDstSeamlessNack);
                }
            }
            _ => {}
        }
    }

    // The target: the client arrives.

    fn complete_semi_seamless_arrival(&mut self, owner: usize, init_sent: bool) {
        let has = self.defects();
        self.clients[owner].stage = Stage::Active(Arrival::SemiSeamless);
        if has(Defect::InitWithNewSessionId) {
            self.clients[owner].session = new_session();
        }
        if !init_sent {
            self.send_init(owner);
        }
        if has(Defect::AnswerSentTwice) {
            self.send_init(owner);
        }
        let client = &mut self.clients[owner];
        if has(Defect::NameAfterSemiSeamless) {
            client.send_name(&self.options.name);
        }
        if !has(Defect::HeldChannelsForgotten) {
            client.channels.iter_mut().for_each(|channel| channel.start(false));
        }
        self.announce_deferred(owner);
    }

    /// Takes a channel's MIGRATE_DATA; `false` if it is bad or not awaited.
    fn restore(&mut self, owner: usize, position: usize, data: &[u8]) -> bool {
        let has = self.defects();
        let time = self.multi_media_time();
        let channel = &mut self.clients[owner].channels[position];
        let channel_type = channel.id.channel_type;
        // What a host with a defect sends, it takes from its like, so that only the sending is defective.
        let valid = state::is_valid(channel_type, data)
            || channel_type != ChannelType::DISPLAY && data == state::data(channel_type, 0, self.defect);
        if channel.phase != Phase::DataAwaited || !valid {
            return false;
        }
        channel.phase = Phase::Open;
        match channel_type {
            ChannelType::MAIN => {
                if !has(Defect::MultiMediaTimeMissing) && !has(Defect::MultiMediaTimeEarly) {
                    channel.send(&time);
                }
                if has(Defect::InitAfterSeamless) {
                    self.send_init(owner);
                }
            }
            ChannelType::DISPLAY => {
                // The client waits for serials of this channel on others, so they go on where the source stopped.
                channel.serial = state::message_serial(data).wrapping_add(1);
                channel.send(&SET_ACK);
            }
            _ => {}
        }
        self.complete_seamless_arrival(owner);
        true
    }

    /// A seamless arrival is complete when no linked channel awaits data any more.
    fn complete_seamless_arrival(&mut self, owner: usize) {
        let client = &mut self.clients[owner];
        let awaited = client.channels.iter().any(|channel| channel.phase == Phase::DataAwaited);
        if client.stage == Stage::Seamless && !awaited {
            client.stage = Stage::Active(Arrival::Seamless);
            self.announce_deferred(owner);
        }
    }

    fn announce_deferred(&mut self, owner: usize) {
        if std::mem::take(&mut self.clients[owner].deferred) {
            self.begin(owner);
        }
    }

    fn send_init(&mut self, owner: usize) {
        let ServerMessage::MultiMediaTime(send::MultiMediaTime { time }) = self.multi_media_time() else { return };
        let client = &mut self.clients[owner];
        client.send_main(&ServerMessage::Init(send::Init {
            session_id: client.session,
            display_channels_hint: 1,
            supported_mouse_modes: MouseModes::SERVER.0.into(),
            current_mouse_mode: MouseModes::SERVER.0.into(),
            agent_connected: 0,
            agent_tokens: 10,
            multi_media_time: time,
            ram_hint: 0,
        }));
    }

    fn multi_media_time(&self) -> ServerMessage<'static> {
        // The clock starts anew after seven weeks, as everybody's.
        let time = self.began.elapsed().as_millis() as u32;
        ServerMessage::MultiMediaTime(send::MultiMediaTime { time })
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// As [`has`](Self::has), without borrowing the server.
    fn defects(&self) -> impl Fn(Defect) -> bool + Copy + use<> {
        let switched_on = self.defect;
        move |defect| switched_on == Some(defect)
    }
}

/// A destination as messages carry it; `None` if its host or subject cannot be a string there.
fn on_wire(destination: &Destination, port_error: u16) -> Option<message::Destination<'_>> {
    let cert_subject = match &destination.cert_subject {
        Some(subject) => Some(Text::new(subject.as_bytes())?),
        None => None,
    };
    Some(message::Destination {
        port: destination.port.map_or(message::Destination::NO_PORT, |port| port.wrapping_add(port_error)),
        tls_port: destination.tls_port.unwrap_or(message::Destination::NO_PORT),
        host: Text::new(destination.host.as_bytes())?,
        cert_subject,
    })
}

fn port_error(has: impl Fn(Defect) -> bool) -> u16 {
    u16::from(has(Defect::DestinationPortWrong))
}

/// Counted over all hosts of the process, so that no host takes another's session for its own.
fn new_session() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0x5e55_0000);
    LAST.fetch_add(1, Ordering::Relaxed)
}
