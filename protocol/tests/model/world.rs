//! The five roles, composed by connections that keep what is sent whole and in order, and all that can happen to them.

use std::time::Duration;

use spice_migration::ChannelType;
use spice_migration::message::ChannelId;
use spice_migration::migrate::source_host::{self, Completion, HandOver};
use spice_migration::migrate::source_server::Support;
use spice_migration::migrate::{
    Client, FromSource, FromTarget, Role, Scheme, SourceHost, SourceServer, TargetHost, TargetServer, ToSource,
    ToTarget, Violation, client, source_server, target_host, target_server,
};

use crate::mistakes::Mistake;

/// What is explored: the design, the client, and how often what may happen.
#[derive(Clone, Debug)]
pub struct Setup {
    pub completion: Completion,
    pub hand_over: HandOver,
    pub support: Support,
    pub channels: Vec<ChannelId>,
    pub chances: Chances,
    pub mistake: Option<Mistake>,
}

/// How often each event may still happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chances {
    pub migrate: u8,
    pub cancel: u8,
    pub exit: u8,
    pub cut: u8,
    pub unreachable: u8,
    pub failure: u8,
    pub stall: u8,
    pub stream_cut: u8,
    pub payload_up: u8,
    pub payload_down: u8,
}

pub const MAIN: ChannelId = ChannelId { channel_type: ChannelType::MAIN, id: 0 };
/// Has state to carry over.
pub const INPUTS: ChannelId = ChannelId { channel_type: ChannelType::INPUTS, id: 0 };
/// Has none.
pub const CURSOR: ChannelId = ChannelId { channel_type: ChannelType::CURSOR, id: 0 };

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub now: Duration,
    pub client: Client,
    pub source_server: SourceServer,
    pub source_host: SourceHost,
    pub target_server: TargetServer,
    pub target_host: TargetHost,
    pub source: Vec<(ChannelId, Connection<FromSource, ToSource>)>,
    pub target: Vec<TargetLink>,
    /// From the source's host to the target's.
    pub stream: Vec<Stream>,
    pub copying: Copying,
    pub chances: Chances,
    pub stalled: bool,
    pub source_lives: bool,
    pub target_lives: bool,
    pub seen: Seen,
}

/// One connection; each direction holds what was sent and not yet read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Connection<Down, Up> {
    pub down: Vec<Item<Down>>,
    pub up: Vec<Item<Up>>,
    pub client_open: bool,
    pub server_open: bool,
    /// The network has lost it. Each side learns that, sooner or later; what is sent until then is lost too.
    pub is_cut: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Item<M> {
    Says(M),
    /// An ordinary message of the inputs channel, numbered.
    Payload(u8),
    Closed,
}

/// A connection to the target, or the attempt to make one. A client's attempts for another destination are numbered on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetLink {
    pub attempt: u8,
    pub channel: ChannelId,
    /// `None` until it is up.
    pub connection: Option<Connection<FromTarget, ToTarget>>,
    /// The server serves the channel.
    pub started: bool,
    /// The client has switched to it.
    pub switched: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    Arrived,
    Failed,
    Start,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Copying {
    Nothing,
    Live,
    Rest,
}

/// What has happened, as far as the properties ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    pub asked_to_migrate: bool,
    pub connects: u8,
    pub connects_replaced: u8,
    pub connect_completes: u8,
    pub ends: u8,
    pub end_completes: u8,
    pub awaits: u8,
    pub client_completes: u8,
    pub source_stopped: bool,
    pub target_runs: bool,
    /// The guest was started while a client was on its way, and had time left.
    pub started_early: bool,
    pub started_before_it_was_whole: bool,
    pub guest_whole: bool,
    pub moved: Option<Scheme>,
    pub starts_afresh: bool,
    pub fresh_session: bool,
    pub session_lost: bool,
    pub exited: bool,
    pub cut: bool,
    pub ticked: bool,
    pub has_stalled: bool,
    pub cancelled: bool,
    pub attempt: u8,
    /// Of the payload: sent, and read in order.
    pub up: (u8, u8),
    pub down: (u8, u8),
    pub out_of_order: bool,
    /// The client has sent FLUSH_MARK on the inputs channel; it sends nothing until it has switched.
    pub flushed: bool,
    /// The source has sent MIGRATE on the inputs channel.
    pub migrate_sent: bool,
    /// It has sent MIGRATE_DATA there: what it reads later is not in the state that moves.
    pub data_sent: bool,
    pub violation: Option<Violation>,
}

impl Seen {
    /// The client has stalled, and some time limit has passed.
    pub fn time_is_up(&self) -> bool {
        self.has_stalled && self.ticked
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The source's server reads the next message.
    SourceReads(ChannelId),
    /// The client reads the source's next message.
    ClientReadsSource(ChannelId),
    TargetReads(u8, ChannelId),
    ClientReadsTarget(ChannelId),
    LinkComesUp(ChannelId),
    LinkFails(ChannelId),
    FreshSessionStarts,
    TargetHostReads,
    Migrate,
    Cancel,
    LiveStageDone,
    GuestMoved,
    CopyingFails,
    ClientExits,
    CutSource(ChannelId),
    CutTarget(ChannelId),
    CutStream,
    ClientStalls,
    ClientWakes,
    TimePasses,
    ClientSends,
    ServerSends,
}

impl<Down, Up> Connection<Down, Up> {
    fn new() -> Self {
        Self { down: Vec::new(), up: Vec::new(), client_open: true, server_open: true, is_cut: false }
    }

    fn close_client(&mut self) {
        if self.client_open {
            self.client_open = false;
            self.down.clear();
            if self.server_open && !self.is_cut {
                self.up.push(Item::Closed);
            }
        }
    }

    fn close_server(&mut self) {
        if self.server_open {
            self.server_open = false;
            self.up.clear();
            if self.client_open && !self.is_cut {
                self.down.push(Item::Closed);
            }
        }
    }

    /// The network loses it: neither side gets what was on its way.
    fn cut(&mut self) {
        self.is_cut = true;
        self.down = if self.client_open { vec![Item::Closed] } else { Vec::new() };
        self.up = if self.server_open { vec![Item::Closed] } else { Vec::new() };
    }

    fn send_down(&mut self, item: Item<Down>) {
        if self.server_open && self.client_open && !self.is_cut {
            self.down.push(item);
        }
    }

    fn send_up(&mut self, item: Item<Up>) {
        if self.server_open && self.client_open && !self.is_cut {
            self.up.push(item);
        }
    }
}

impl Setup {
    pub fn first(&self) -> World {
        let mut world = World {
            now: Duration::ZERO,
            client: Client::new(self.channels.iter().copied()),
            source_server: SourceServer::new(true),
            source_host: SourceHost::new(self.completion, self.hand_over),
            target_server: TargetServer::new(false),
            target_host: TargetHost::new(self.completion),
            source: self.channels.iter().map(|channel| (*channel, Connection::new())).collect(),
            target: Vec::new(),
            stream: Vec::new(),
            copying: Copying::Nothing,
            chances: self.chances.clone(),
            stalled: false,
            source_lives: true,
            target_lives: true,
            seen: Seen::default(),
        };
        for channel in &self.channels {
            let input = source_server::Input::Linked { client: CLIENT, channel: *channel, support: self.support };
            world.source_server.handle(world.now, input).unwrap();
        }
        world.target_host(self, target_host::Input::Listen);
        world
    }

    pub fn apply(&self, world: &World, action: Action) -> World {
        let mut next = world.clone();
        next.act(self, action);
        next.tidy();
        next
    }
}

/// The source's only client.
const CLIENT: u32 = 0;

/// The client as one that has started afresh at the target.
const FRESH_CLIENT: u32 = 100;

impl World {
    /// What goes on by itself: messages arrive, links come up.
    pub fn deliveries(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (channel, connection) in &self.source {
            if !connection.up.is_empty() {
                actions.push(Action::SourceReads(*channel));
            }
            if !connection.down.is_empty() && !self.stalled {
                actions.push(Action::ClientReadsSource(*channel));
            }
        }
        for link in &self.target {
            let Some(connection) = &link.connection else {
                if !self.stalled && self.target_lives {
                    actions.push(Action::LinkComesUp(link.channel));
                }
                if !self.stalled && (!self.target_lives || self.chances.unreachable > 0) {
                    actions.push(Action::LinkFails(link.channel));
                }
                continue;
            };
            if !connection.up.is_empty() {
                actions.push(Action::TargetReads(link.attempt, link.channel));
            }
            // Until it has switched, the client reads the target's answers alone.
            let readable = match connection.down.first() {
                Some(Item::Payload(_)) => link.switched,
                Some(_) => true,
                None => false,
            };
            if readable && !self.stalled {
                actions.push(Action::ClientReadsTarget(link.channel));
            }
        }
        if self.seen.starts_afresh && !self.seen.fresh_session && self.target_lives && !self.stalled {
            actions.push(Action::FreshSessionStarts);
        }
        if !self.stream.is_empty() {
            actions.push(Action::TargetHostReads);
        }
        actions
    }

    /// How the copying of the guest may go on; it takes as long as it likes.
    pub fn copying(&self) -> Option<Action> {
        match self.copying {
            Copying::Nothing => None,
            Copying::Live => Some(Action::LiveStageDone),
            Copying::Rest => Some(Action::GuestMoved),
        }
    }

    /// The next moment at which a role wants to be told the time.
    pub fn next_deadline(&self) -> Option<Duration> {
        let client = if self.stalled { None } else { self.client.deadline() };
        let source = self.source_lives.then(|| self.source_server.deadline()).flatten();
        let target = self.target_lives.then(|| self.target_server.deadline()).flatten();
        [client, source, target].into_iter().flatten().min()
    }

    /// What the world around may do.
    pub fn events(&self, setup: &Setup) -> Vec<Action> {
        let mut actions = Vec::new();
        let phase = self.source_host.phase();
        let under_way =
            matches!(phase, source_host::Phase::Connecting | source_host::Phase::Live | source_host::Phase::Stopped);
        // Another destination while the first is being connected to; after a failure the target is gone.
        let may_migrate = !self.seen.asked_to_migrate || phase == source_host::Phase::Connecting;
        if self.chances.migrate > 0 && may_migrate {
            actions.push(Action::Migrate);
        }
        if self.chances.cancel > 0 && under_way {
            actions.push(Action::Cancel);
        }
        if self.chances.failure > 0 && under_way {
            actions.push(Action::CopyingFails);
        }
        if self.chances.stream_cut > 0 && self.seen.guest_whole {
            actions.push(Action::CutStream);
        }
        if self.chances.exit > 0 && self.client_is_there() {
            actions.push(Action::ClientExits);
        }
        if self.chances.cut > 0 {
            actions.extend(self.source.iter().filter(|(_, it)| it.client_open).map(|(it, _)| Action::CutSource(*it)));
            let up = self.target.iter().filter(|link| link.connection.as_ref().is_some_and(|it| it.client_open));
            actions.extend(up.map(|link| Action::CutTarget(link.channel)));
        }
        if self.chances.stall > 0 && !self.stalled && self.client_is_there() {
            actions.push(Action::ClientStalls);
        }
        if self.stalled {
            actions.push(Action::ClientWakes);
        }
        if self.chances.payload_up > 0 && self.client_is_there() && !self.stalled && self.client_sends_to().is_some() {
            actions.push(Action::ClientSends);
        }
        if self.chances.payload_down > 0 && setup.channels.contains(&INPUTS) && self.server_sends_from().is_some() {
            actions.push(Action::ServerSends);
        }
        actions
    }

    pub fn client_is_there(&self) -> bool {
        !self.seen.exited && !self.seen.session_lost
    }

    /// Whether a client is on its way to the target, and has time left.
    fn client_is_coming(&self) -> bool {
        let mut main = self.target.iter().filter(|link| link.attempt == self.seen.attempt && link.channel == MAIN);
        let is_linked = main.any(|link| link.connection.as_ref().is_some_and(|it| it.client_open && !it.is_cut));
        let is_cut_off = self.source.iter().any(|(channel, it)| *channel == MAIN && it.is_cut);
        self.target_server.expects_client()
            && self.client_is_there()
            && is_linked
            && !is_cut_off
            && !self.seen.time_is_up()
    }

    /// Whether the session works: its connections, and the guest behind them.
    pub fn session_works(&self) -> bool {
        let at_source = !self.seen.source_stopped
            && self.source.iter().any(|(channel, it)| *channel == MAIN && it.client_open && it.server_open);
        let switched = |link: &&TargetLink| link.switched || self.seen.moved == Some(Scheme::SemiSeamless);
        let at_target = self.seen.target_runs
            && (self.seen.fresh_session
                || self.target.iter().filter(switched).any(|link| {
                    link.channel == MAIN && link.connection.as_ref().is_some_and(|it| it.client_open && it.server_open)
                }));
        at_source || at_target
    }

    fn act(&mut self, setup: &Setup, action: Action) {
        match action {
            Action::SourceReads(channel) => {
                let item = self.source_link(channel).up.remove(0);
                match item {
                    Item::Says(message) => {
                        let input = source_server::Input::Message { client: CLIENT, channel, message };
                        self.source_server(setup, input);
                    }
                    Item::Payload(_) if self.seen.data_sent => {}
                    Item::Payload(number) => self.read_up(number),
                    Item::Closed => {
                        self.source_link(channel).server_open = false;
                        self.source_server(setup, source_server::Input::Closed { client: CLIENT, channel });
                    }
                }
            }
            Action::ClientReadsSource(channel) => match self.source_link(channel).down.remove(0) {
                Item::Says(message) => self.client(setup, client::Input::FromSource { channel, message }),
                Item::Payload(number) => self.read_down(number),
                Item::Closed => {
                    self.source_link(channel).client_open = false;
                    self.client(setup, client::Input::SourceClosed(channel));
                }
            },
            Action::TargetReads(attempt, channel) => {
                let Some(link) = self.target.iter_mut().find(|it| it.attempt == attempt && it.channel == channel)
                else {
                    unreachable!()
                };
                let started = link.started;
                let Some(connection) = &mut link.connection else { unreachable!() };
                let client = u32::from(attempt);
                match connection.up.remove(0) {
                    Item::Says(message) => {
                        let input = target_server::Input::Message { client, channel, message, valid: true };
                        self.target_server(setup, input);
                    }
                    Item::Payload(number) => {
                        self.seen.out_of_order |= !started;
                        self.read_up(number);
                    }
                    Item::Closed => {
                        connection.server_open = false;
                        if channel == MAIN {
                            // It takes the client's others with it.
                            let others = self.target.iter_mut().filter(|link| link.attempt == attempt);
                            others.filter_map(|link| link.connection.as_mut()).for_each(Connection::close_server);
                        }
                        self.target_server(setup, target_server::Input::Closed { client, channel });
                    }
                }
            }
            Action::ClientReadsTarget(channel) => {
                let Some(connection) = self.target_link(channel).and_then(|link| link.connection.as_mut()) else {
                    return;
                };
                match connection.down.remove(0) {
                    Item::Says(message) => self.client(setup, client::Input::FromTarget(message)),
                    Item::Payload(number) => self.read_down(number),
                    Item::Closed => {
                        connection.client_open = false;
                        // Where the session has moved to is its source from then on.
                        let input = match self.seen.moved {
                            Some(_) => client::Input::SourceClosed(channel),
                            None => client::Input::TargetClosed(channel),
                        };
                        self.client(setup, input);
                    }
                }
            }
            Action::LinkComesUp(channel) => {
                let Some(link) = self.target_link(channel) else { return };
                let client = u32::from(link.attempt);
                let support = setup.support;
                let input = target_server::Input::Linked { client, channel, migrating: true, support };
                if self.target_server.clone().handle(self.now, input).is_err() {
                    // The server has given the client up in the meantime.
                    return self.act(setup, Action::LinkFails(channel));
                }
                if let Some(link) = self.target_link(channel) {
                    link.connection = Some(Connection::new());
                }
                self.target_server(setup, input);
                let seamless = self.target_server.advertises_seamless();
                self.client(setup, client::Input::TargetLinked { channel, seamless });
            }
            Action::LinkFails(channel) => {
                self.chances.unreachable = self.chances.unreachable.saturating_sub(1);
                let attempt = self.seen.attempt;
                self.target.retain(|link| link.channel != channel || link.attempt != attempt);
                self.client(setup, client::Input::TargetClosed(channel));
            }
            Action::FreshSessionStarts => {
                self.seen.fresh_session = true;
                let input = target_server::Input::Linked {
                    client: FRESH_CLIENT,
                    channel: MAIN,
                    migrating: false,
                    support: setup.support,
                };
                self.target_server(setup, input);
            }
            Action::TargetHostReads => match self.stream.remove(0) {
                Stream::Arrived => {
                    self.seen.guest_whole = true;
                    self.target_host(setup, target_host::Input::GuestArrived);
                }
                Stream::Failed => self.target_host(setup, target_host::Input::MigrationFailed),
                Stream::Start => self.target_host(setup, target_host::Input::SourceSaysStart),
            },
            Action::Migrate => {
                self.chances.migrate -= 1;
                self.seen.asked_to_migrate = true;
                self.source_host(setup, source_host::Input::Migrate);
            }
            Action::Cancel => {
                self.chances.cancel -= 1;
                self.seen.cancelled = true;
                self.source_host(setup, source_host::Input::Cancel);
            }
            Action::LiveStageDone => {
                self.copying = Copying::Nothing;
                self.source_host(setup, source_host::Input::LiveStageDone);
            }
            Action::GuestMoved => {
                self.copying = Copying::Nothing;
                self.stream.push(Stream::Arrived);
                self.source_host(setup, source_host::Input::GuestMoved);
            }
            Action::CopyingFails => {
                self.chances.failure -= 1;
                self.source_host(setup, source_host::Input::MigrationFailed);
            }
            Action::ClientExits => {
                self.chances.exit -= 1;
                self.seen.exited = true;
                self.stalled = false;
                self.client(setup, client::Input::Exit);
                if self.seen.fresh_session {
                    let input = target_server::Input::Closed { client: FRESH_CLIENT, channel: MAIN };
                    self.target_server(setup, input);
                }
            }
            Action::CutSource(channel) => {
                self.chances.cut -= 1;
                self.seen.cut = true;
                self.source_link(channel).cut();
            }
            Action::CutTarget(channel) => {
                self.chances.cut -= 1;
                self.seen.cut = true;
                if let Some(connection) = self.target_link(channel).and_then(|link| link.connection.as_mut()) {
                    connection.cut();
                }
            }
            Action::CutStream => {
                self.chances.stream_cut -= 1;
                self.stream = vec![Stream::Failed];
            }
            Action::ClientStalls => {
                self.chances.stall -= 1;
                self.stalled = true;
                self.seen.has_stalled = true;
            }
            Action::ClientWakes => self.stalled = false,
            Action::TimePasses => {
                let Some(deadline) = self.next_deadline() else { return };
                self.now = deadline;
                self.seen.ticked = true;
                let due = |deadline: Option<Duration>| deadline.is_some_and(|deadline| deadline <= self.now);
                let (client, source, target) = (
                    !self.stalled && due(self.client.deadline()),
                    due(self.source_server.deadline()),
                    due(self.target_server.deadline()),
                );
                if source {
                    self.source_server(setup, source_server::Input::Deadline);
                }
                if target {
                    self.target_server(setup, target_server::Input::Deadline);
                }
                if client {
                    self.client(setup, client::Input::Deadline);
                }
            }
            Action::ClientSends => {
                self.chances.payload_up -= 1;
                self.seen.up.0 += 1;
                let number = self.seen.up.0;
                match self.client_sends_to() {
                    Some(Side::Source) => self.source_link(INPUTS).send_up(Item::Payload(number)),
                    Some(Side::Target) => {
                        if let Some(it) = self.target_link(INPUTS).and_then(|link| link.connection.as_mut()) {
                            it.send_up(Item::Payload(number));
                        }
                    }
                    None => {}
                }
            }
            Action::ServerSends => {
                self.chances.payload_down -= 1;
                self.seen.down.0 += 1;
                let number = self.seen.down.0;
                match self.server_sends_from() {
                    Some(Side::Source) => self.source_link(INPUTS).send_down(Item::Payload(number)),
                    Some(Side::Target) => {
                        if let Some(it) = self.target_link(INPUTS).and_then(|link| link.connection.as_mut()) {
                            it.send_down(Item::Payload(number));
                        }
                    }
                    None => {}
                }
            }
        }
    }

    /// Where the client's inputs channel is, if it may send there now.
    fn client_sends_to(&self) -> Option<Side> {
        let at_target = self.target.iter().find(|link| link.channel == INPUTS && link.switched);
        if at_target.is_some_and(|link| link.connection.as_ref().is_some_and(|it| it.client_open && it.server_open)) {
            return Some(Side::Target);
        }
        let at_source = self.source.iter().any(|(channel, it)| *channel == INPUTS && it.client_open && it.server_open);
        (at_source && !self.seen.flushed).then_some(Side::Source)
    }

    /// Which server serves the inputs channel.
    fn server_sends_from(&self) -> Option<Side> {
        let open = |it: &Connection<FromTarget, ToTarget>| it.client_open && it.server_open;
        let started = self
            .target
            .iter()
            .any(|link| link.channel == INPUTS && link.started && link.connection.as_ref().is_some_and(open));
        if started && self.seen.moved != Some(Scheme::SemiSeamless) {
            return Some(Side::Target);
        }
        let at_source = self.source.iter().any(|(channel, it)| *channel == INPUTS && it.client_open && it.server_open);
        (at_source && !self.seen.migrate_sent).then_some(Side::Source)
    }

    fn read_up(&mut self, number: u8) {
        self.seen.out_of_order |= number != self.seen.up.1 + 1;
        self.seen.up.1 = number;
    }

    fn read_down(&mut self, number: u8) {
        self.seen.out_of_order |= number != self.seen.down.1 + 1;
        self.seen.down.1 = number;
    }

    fn client(&mut self, setup: &Setup, input: client::Input) {
        let effects = self.client.handle(self.now, input);
        for effect in self.checked(effects, |effects| setup.mistake.iter().for_each(|it| it.of_client(effects))) {
            match effect {
                client::Effect::LinkTarget(channel) => {
                    if channel == MAIN {
                        self.seen.attempt += 1;
                    }
                    let attempt = self.seen.attempt;
                    self.target.push(TargetLink {
                        attempt,
                        channel,
                        connection: None,
                        started: false,
                        switched: false,
                    });
                }
                client::Effect::ToSource { channel, message } => {
                    self.seen.flushed |= channel == INPUTS && message == ToSource::FlushMark;
                    self.source_link(channel).send_up(Item::Says(message));
                }
                client::Effect::ToTarget { channel, message } => {
                    if let Some(it) = self.target_link(channel).and_then(|link| link.connection.as_mut()) {
                        it.send_up(Item::Says(message));
                    }
                }
                client::Effect::Switch(channel) => {
                    self.source_link(channel).close_client();
                    if let Some(link) = self.target_link(channel) {
                        link.switched = true;
                    }
                }
                client::Effect::CloseTarget(channel) => {
                    let attempt = self.seen.attempt;
                    let of_channel = |link: &TargetLink| link.attempt == attempt && link.channel == channel;
                    self.target.retain(|link| !of_channel(link) || link.connection.is_some());
                    let mut links = self.target.iter_mut().filter(|link| of_channel(link));
                    links.by_ref().filter_map(|link| link.connection.as_mut()).for_each(Connection::close_client);
                }
                client::Effect::CloseSource(channel) => self.source_link(channel).close_client(),
                client::Effect::DropSource => self.source.iter_mut().for_each(|(_, it)| it.close_client()),
                client::Effect::DropTarget => {
                    self.target.retain(|link| link.connection.is_some());
                    self.target
                        .iter_mut()
                        .filter_map(|link| link.connection.as_mut())
                        .for_each(Connection::close_client);
                }
                client::Effect::Moved(scheme) => self.seen.moved = Some(scheme),
                client::Effect::StartAfresh => self.seen.starts_afresh = true,
                client::Effect::SessionLost => self.seen.session_lost = true,
            }
        }
    }

    fn source_server(&mut self, setup: &Setup, input: source_server::Input) {
        let effects = self.source_server.handle(self.now, input);
        for effect in self.checked(effects, |effects| setup.mistake.iter().for_each(|it| it.of_source_server(effects)))
        {
            match effect {
                source_server::Effect::Send { channel, message, .. } => {
                    self.seen.migrate_sent |= channel == INPUTS && matches!(message, FromSource::Migrate(_));
                    self.seen.data_sent |= channel == INPUTS && message == FromSource::MigrateData;
                    self.source_link(channel).send_down(Item::Says(message));
                }
                source_server::Effect::Close(_) => self.source.iter_mut().for_each(|(_, it)| it.close_server()),
                source_server::Effect::ConnectComplete => {
                    self.seen.connect_completes += 1;
                    self.source_host(setup, source_host::Input::ConnectComplete);
                }
                source_server::Effect::EndComplete => {
                    self.seen.end_completes += 1;
                    self.source_host(setup, source_host::Input::EndComplete);
                }
            }
        }
    }

    fn source_host(&mut self, setup: &Setup, input: source_host::Input) {
        let effects = self.source_host.handle(self.now, input);
        for effect in self.checked(effects, |effects| setup.mistake.iter().for_each(|it| it.of_source_host(effects))) {
            match effect {
                source_host::Effect::MigrateInfo => self.source_server(setup, source_server::Input::MigrateInfo),
                source_host::Effect::MigrateConnect => {
                    self.seen.connects_replaced +=
                        self.seen.connects - self.seen.connects_replaced - self.seen.connect_completes;
                    self.seen.connects += 1;
                    self.source_server(setup, source_server::Input::MigrateConnect);
                }
                source_host::Effect::StartLiveStage => self.copying = Copying::Live,
                source_host::Effect::StopGuest => self.seen.source_stopped = true,
                source_host::Effect::ResumeGuest => self.seen.source_stopped = false,
                source_host::Effect::MigrateStart => self.source_server(setup, source_server::Input::MigrateStart),
                source_host::Effect::StartNonLiveStage => self.copying = Copying::Rest,
                source_host::Effect::MigrateEnd { completed } => {
                    self.seen.ends += 1;
                    self.source_server(setup, source_server::Input::MigrateEnd { completed });
                }
                source_host::Effect::AbortMigration => {
                    self.copying = Copying::Nothing;
                    self.stream.push(Stream::Failed);
                }
                source_host::Effect::TellTargetToStart => {
                    if self.chances.stream_cut == setup.chances.stream_cut {
                        self.stream.push(Stream::Start);
                    }
                }
                source_host::Effect::Release => {
                    self.source_lives = false;
                    self.source.iter_mut().for_each(|(_, it)| it.close_server());
                }
            }
        }
    }

    fn target_server(&mut self, setup: &Setup, input: target_server::Input) {
        if !self.target_lives {
            return;
        }
        let effects = self.target_server.handle(self.now, input);
        for effect in self.checked(effects, |effects| setup.mistake.iter().for_each(|it| it.of_target_server(effects)))
        {
            match effect {
                target_server::Effect::Send { client, message } => {
                    let of_client = |link: &&mut TargetLink| u32::from(link.attempt) == client && link.channel == MAIN;
                    if let Some(it) = self.target.iter_mut().find(of_client).and_then(|link| link.connection.as_mut()) {
                        it.send_down(Item::Says(message));
                    }
                }
                target_server::Effect::Start { client, channel } => {
                    for link in &mut self.target {
                        link.started |= u32::from(link.attempt) == client && link.channel == channel;
                    }
                }
                target_server::Effect::CloseChannel { client, channel } => {
                    let of_channel =
                        |link: &&mut TargetLink| u32::from(link.attempt) == client && link.channel == channel;
                    self.target
                        .iter_mut()
                        .filter(of_channel)
                        .filter_map(|link| link.connection.as_mut())
                        .for_each(Connection::close_server);
                }
                target_server::Effect::Close(client) => {
                    let of_client = |link: &&mut TargetLink| u32::from(link.attempt) == client;
                    self.target
                        .iter_mut()
                        .filter(of_client)
                        .filter_map(|link| link.connection.as_mut())
                        .for_each(Connection::close_server);
                }
                target_server::Effect::ClientMigrationComplete => {
                    self.seen.client_completes += 1;
                    self.target_host(setup, target_host::Input::ClientMigrationComplete);
                }
            }
        }
    }

    fn target_host(&mut self, setup: &Setup, input: target_host::Input) {
        let effects = self.target_host.handle(self.now, input);
        for effect in self.checked(effects, |effects| setup.mistake.iter().for_each(|it| it.of_target_host(effects))) {
            match effect {
                target_host::Effect::CanHoldTheGuest => {
                    self.target_server(setup, target_server::Input::CanHoldTheGuest);
                }
                target_host::Effect::AwaitClient => {
                    self.seen.awaits += 1;
                    self.target_server(setup, target_server::Input::AwaitClient);
                }
                target_host::Effect::StartGuest => {
                    self.seen.target_runs = true;
                    self.seen.started_before_it_was_whole |= !self.seen.guest_whole;
                    self.seen.started_early |= self.client_is_coming();
                }
                target_host::Effect::Quit => {
                    self.target_lives = false;
                    self.target
                        .iter_mut()
                        .filter_map(|link| link.connection.as_mut())
                        .for_each(Connection::close_server);
                }
            }
        }
    }

    /// The effects, as the mistake leaves them; none of what the role refused.
    fn checked<E>(&mut self, effects: Result<Vec<E>, Violation>, mistake: impl FnOnce(&mut Vec<E>)) -> Vec<E> {
        match effects {
            Ok(mut effects) => {
                mistake(&mut effects);
                effects
            }
            Err(violation) => {
                self.seen.violation.get_or_insert(violation);
                Vec::new()
            }
        }
    }

    fn source_link(&mut self, channel: ChannelId) -> &mut Connection<FromSource, ToSource> {
        let link = self.source.iter_mut().find(|(other, _)| *other == channel);
        link.map(|(_, connection)| connection).expect("the source's connections stay listed")
    }

    /// Of the client's present attempt.
    fn target_link(&mut self, channel: ChannelId) -> Option<&mut TargetLink> {
        let attempt = self.seen.attempt;
        self.target.iter_mut().find(|link| link.attempt == attempt && link.channel == channel)
    }

    /// Forgets what makes no difference any more.
    fn tidy(&mut self) {
        for (_, connection) in &mut self.source {
            if !self.source_lives {
                connection.up.clear();
                connection.server_open = false;
            }
        }
        self.target.retain(|link| match &link.connection {
            None => true,
            Some(it) => it.client_open || (it.server_open && !it.up.is_empty()),
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Target,
}
