//! A guest that moves twice, from host to host to host, and a client that follows it: the servers are [`Server`]s, and the second
//! migration may be asked for while the client is still on its way.

use std::time::Duration;

use spice_migration::message::ChannelId;
use spice_migration::migrate::source_server::{self, Support};
use spice_migration::migrate::{
    Client, FromSource, FromTarget, Role, Scheme, Server, ToSource, ToTarget, Violation, client, server, target_server,
};
use stateright::{Checker, Model, Property};

use crate::SUPPORTS;
use crate::world::{INPUTS, MAIN};

#[test]
fn a_client_follows_the_guest_twice() {
    let mut unseen: Vec<_> = WITNESSES.iter().map(|(name, _)| *name).collect();
    let mut states = 0;
    for support in SUPPORTS {
        let checker = Chain { support }.checker().spawn_bfs().join();
        for (name, path) in checker.discoveries() {
            let way = path.into_vec().into_iter().filter_map(|(world, action)| Some(tell(&world, action?)));
            assert!(
                !RULES.iter().any(|(rule, _)| *rule == name),
                "{support:?}: {name}: {:#?}",
                way.collect::<Vec<_>>()
            );
            unseen.retain(|other| *other != name);
        }
        states += checker.unique_state_count();
    }
    eprintln!("{states} states");
    assert!(unseen.is_empty(), "the rules hold, but nothing happens: {unseen:?}");
}

type Condition = fn(&Chain, &World) -> bool;

const RULES: &[(&str, Condition)] = &[
    ("a client that stays ends where the guest is", |_, world| {
        let excused = world.seen.exited || world.seen.came_too_late || (world.seen.has_stalled && world.seen.ticked);
        !world.is_quiet() || excused || world.session_works()
    }),
    ("every call of a host is answered once", |_, world| {
        let Seen { connects, ends, awaits, .. } = &world.seen;
        connects
            .iter()
            .chain(ends)
            .chain(awaits)
            .all(|calls| calls.answers <= calls.made && (!world.is_quiet() || calls.answers == calls.made))
    }),
    ("no role is given what it must not be", |_, world| world.seen.violation.is_none()),
];

const WITNESSES: &[(&str, Condition)] = &[
    ("seamless twice", |_, world| world.has_moved([Scheme::Seamless; 2])),
    ("semi-seamless twice", |_, world| world.has_moved([Scheme::SemiSeamless; 2])),
    ("afresh twice", |_, world| world.has_moved([Scheme::SwitchHost; 2])),
    ("seamless after a second announcement that waited", |_, world| {
        world.seen.deferred && world.has_moved([Scheme::Seamless; 2])
    }),
    ("semi-seamless after a second announcement that waited", |_, world| {
        world.seen.deferred && world.has_moved([Scheme::SemiSeamless; 2])
    }),
    ("a client that was dropped because it did not arrive in time", |_, world| {
        world.seen.deferred && world.seen.ticked && world.seen.lost && world.guest == 2 && world.is_quiet()
    }),
    ("a second migration that is cancelled while its announcement waits", |_, world| {
        world.seen.cancelled_deferred && world.guest == 1 && world.is_quiet() && world.session_works()
    }),
];

/// The client, and what it can do. Hosts wait for their servers' answers; each event happens once or not at all.
#[derive(Clone, Debug)]
struct Chain {
    support: Support,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: Duration,
    client: Client,
    servers: [Server; 3],
    /// The hosts' part, of the first and of the second migration.
    hops: [Hop; 2],
    /// Where the guest is.
    guest: usize,
    links: Vec<Link>,
    /// The client's numbers at its source and at its target; the number of its links so far.
    at_source: u32,
    at_target: u32,
    sessions: u32,
    starts_afresh: bool,
    stalled: bool,
    may_cancel: bool,
    seen: Seen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Hop {
    Idle,
    Connecting,
    Connected,
    Ending,
    Released,
}

/// One connection, or the attempt to make one; each direction holds what was sent and not yet read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Link {
    server: usize,
    client: u32,
    channel: ChannelId,
    is_up: bool,
    down: Vec<Down>,
    up: Vec<Up>,
    client_open: bool,
    server_open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Down {
    Source(FromSource),
    Target(FromTarget),
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Up {
    Source(ToSource),
    Target(ToTarget),
    Closed,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Seen {
    connects: [Calls; 2],
    ends: [Calls; 2],
    awaits: [Calls; 3],
    moved: Vec<Scheme>,
    deferred: bool,
    cancelled_deferred: bool,
    exited: bool,
    lost: bool,
    /// It started afresh at a host that the guest had left, and that was gone.
    came_too_late: bool,
    has_stalled: bool,
    ticked: bool,
    violation: Option<Violation>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Calls {
    made: u8,
    answers: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    /// The server at the other end of this link reads the next message.
    ServerReads(usize),
    ClientReads(usize),
    LinkComesUp(usize),
    FreshSessionStarts,
    Connect(usize),
    End(usize),
    Cancel(usize),
    ClientExits,
    ClientStalls,
    ClientWakes,
    TimePasses,
}

/// What happens when `action` is taken in `world`.
fn tell(world: &World, action: Action) -> String {
    let name = |place: usize| {
        let Link { server, client, channel, .. } = &world.links[place];
        format!("client {client}'s {:?} at server {server}", channel.channel_type)
    };
    match action {
        Action::ServerReads(place) => format!("{:?} is read on {}", world.links[place].up[0], name(place)),
        Action::ClientReads(place) => format!("{:?} is read on {}", world.links[place].down[0], name(place)),
        Action::LinkComesUp(place) => format!("{} comes up", name(place)),
        other => format!("{other:?}"),
    }
}

impl Model for Chain {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut world = World {
            now: Duration::ZERO,
            client: Client::new([MAIN, INPUTS]),
            servers: [(); 3].map(|()| Server::new(true, false)),
            hops: [Hop::Idle; 2],
            guest: 0,
            links: Vec::new(),
            at_source: 0,
            at_target: 0,
            sessions: 0,
            starts_afresh: false,
            stalled: false,
            may_cancel: true,
            seen: Seen::default(),
        };
        for at in 0..3 {
            world.server(at, server::Input::CanHoldTheGuest);
        }
        world.begin_session(self, 0);
        // INIT, which the client does not wait for.
        world.links.iter_mut().for_each(|link| link.down.clear());
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let deliveries = world.deliveries();
        if deliveries.is_empty() && world.next_deadline().is_some() {
            actions.push(Action::TimePasses);
        }
        actions.extend(deliveries);
        for (hop, phase) in world.hops.iter().enumerate() {
            match phase {
                Hop::Idle if world.guest == hop => actions.push(Action::Connect(hop)),
                Hop::Connected => actions.push(Action::End(hop)),
                _ => {}
            }
            if world.may_cancel && matches!(phase, Hop::Connecting | Hop::Connected) {
                actions.push(Action::Cancel(hop));
            }
        }
        let is_there = !world.seen.exited && !world.seen.lost;
        if is_there {
            actions.push(Action::ClientExits);
        }
        if is_there && !world.seen.has_stalled {
            actions.push(Action::ClientStalls);
        }
        if world.stalled {
            actions.push(Action::ClientWakes);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.act(self, action);
        next.links.retain(|link| link.client_open || (link.server_open && !link.up.is_empty()));
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let always = RULES.iter().map(|(name, holds)| Property::always(name, *holds));
        always.chain(WITNESSES.iter().map(|(name, seen)| Property::sometimes(name, *seen))).collect()
    }
}

impl World {
    fn deliveries(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (place, link) in self.links.iter().enumerate() {
            if !link.is_up {
                if !self.stalled {
                    actions.push(Action::LinkComesUp(place));
                }
                continue;
            }
            if !link.up.is_empty() {
                actions.push(Action::ServerReads(place));
            }
            // What the target says as a source is for later.
            let readable = match link.down.first() {
                Some(Down::Source(_)) => link.client == self.at_source,
                Some(_) => true,
                None => false,
            };
            if readable && !self.stalled {
                actions.push(Action::ClientReads(place));
            }
        }
        if self.starts_afresh && !self.stalled {
            actions.push(Action::FreshSessionStarts);
        }
        actions
    }

    fn next_deadline(&self) -> Option<Duration> {
        let client = if self.stalled { None } else { self.client.deadline() };
        self.servers.iter().map(Role::deadline).chain([client]).flatten().min()
    }

    /// Nothing is on its way, and no host is at work: if nothing happens from outside, nothing will happen.
    fn is_quiet(&self) -> bool {
        let is_at_work = |hop: &Hop| matches!(hop, Hop::Connecting | Hop::Connected);
        !self.stalled
            && !self.hops.iter().any(is_at_work)
            && self.deliveries().is_empty()
            && self.next_deadline().is_none()
    }

    fn session_works(&self) -> bool {
        let here = |link: &&Link| link.client == self.at_source && link.server == self.guest && link.channel == MAIN;
        let is_open = |link: &Link| link.client_open && link.server_open;
        *self.client.phase() == client::Phase::Session
            && self.links.iter().find(here).is_some_and(is_open)
            && self.servers[self.guest].serves(self.at_source)
    }

    fn has_moved(&self, schemes: [Scheme; 2]) -> bool {
        self.seen.moved == schemes && self.guest == 2 && self.is_quiet() && self.session_works()
    }

    fn act(&mut self, chain: &Chain, action: Action) {
        match action {
            Action::ServerReads(place) => {
                let Link { server, client, channel, .. } = self.links[place];
                let input = match self.links[place].up.remove(0) {
                    Up::Source(message) => server::Input::ToSource { client, channel, message },
                    Up::Target(message) => server::Input::ToTarget { client, channel, message, valid: true },
                    Up::Closed => {
                        self.links[place].server_open = false;
                        server::Input::Closed { client, channel }
                    }
                };
                self.server(server, input);
            }
            Action::ClientReads(place) => {
                let Link { client, channel, .. } = self.links[place];
                let input = match self.links[place].down.remove(0) {
                    Down::Source(message) => client::Input::FromSource { channel, message },
                    Down::Target(message) => client::Input::FromTarget(message),
                    Down::Closed => {
                        self.links[place].client_open = false;
                        if client == self.at_source {
                            client::Input::SourceClosed(channel)
                        } else {
                            client::Input::TargetClosed(channel)
                        }
                    }
                };
                self.client(input);
            }
            Action::LinkComesUp(place) => {
                let Link { server, client, channel, .. } = self.links[place];
                let input = server::Input::Linked { client, channel, migrating: true, support: chain.support };
                if self.servers[server].clone().handle(self.now, input).is_err() {
                    // The server has given the client up in the meantime.
                    self.links.remove(place);
                    return self.client(client::Input::TargetClosed(channel));
                }
                self.links[place].is_up = true;
                self.server(server, input);
                let seamless = self.servers[server].advertises_seamless();
                self.client(client::Input::TargetLinked { channel, seamless });
            }
            Action::FreshSessionStarts => {
                self.starts_afresh = false;
                let at = self.seen.moved.len() + 1;
                self.seen.moved.push(Scheme::SwitchHost);
                if self.hops.get(at) == Some(&Hop::Released) {
                    self.seen.came_too_late = true;
                    self.seen.lost = true;
                } else {
                    self.begin_session(chain, at);
                }
            }
            Action::Connect(hop) => {
                self.hops[hop] = Hop::Connecting;
                self.seen.connects[hop].made += 1;
                self.server(hop, server::Input::MigrateInfo);
                let is_silent = self.server(hop, server::Input::MigrateConnect);
                self.seen.deferred |= is_silent;
            }
            Action::End(hop) => {
                self.hops[hop] = Hop::Ending;
                self.seen.ends[hop].made += 1;
                self.server(hop, server::Input::MigrateEnd { completed: true });
                self.guest = hop + 1;
                self.seen.awaits[self.guest].made += 1;
                self.server(self.guest, server::Input::AwaitClient);
            }
            Action::Cancel(hop) => {
                self.may_cancel = false;
                self.seen.cancelled_deferred = self.seen.deferred && self.hops[hop] == Hop::Connecting;
                self.hops[hop] = Hop::Idle;
                self.seen.ends[hop].made += 1;
                self.server(hop, server::Input::MigrateEnd { completed: false });
            }
            Action::ClientExits => {
                self.seen.exited = true;
                self.starts_afresh = false;
                self.stalled = false;
                self.client(client::Input::Exit);
            }
            Action::ClientStalls => {
                self.stalled = true;
                self.seen.has_stalled = true;
            }
            Action::ClientWakes => self.stalled = false,
            Action::TimePasses => {
                let Some(deadline) = self.next_deadline() else { return };
                self.now = deadline;
                self.seen.ticked = true;
                let is_due = |role_deadline: Option<Duration>| role_deadline.is_some_and(|it| it <= deadline);
                for at in 0..3 {
                    if is_due(self.servers[at].deadline()) {
                        self.server(at, server::Input::Deadline);
                    }
                }
                if !self.stalled && is_due(self.client.deadline()) {
                    self.client(client::Input::Deadline);
                }
            }
        }
    }

    /// At this server, without a source.
    fn begin_session(&mut self, chain: &Chain, at: usize) {
        self.client = Client::new([MAIN, INPUTS]);
        self.sessions += 1;
        self.at_source = self.sessions;
        for channel in [MAIN, INPUTS] {
            let link = Link { is_up: true, ..Link::new(at, self.sessions, channel) };
            self.links.push(link);
            let support = chain.support;
            self.server(at, server::Input::Linked { client: self.sessions, channel, migrating: false, support });
        }
    }

    fn client(&mut self, input: client::Input) {
        let effects = self.client.handle(self.now, input);
        for effect in self.allowed(effects) {
            match effect {
                client::Effect::LinkTarget(channel) => {
                    if channel == MAIN {
                        self.sessions += 1;
                        self.at_target = self.sessions;
                    }
                    let next = self.seen.moved.len() + 1;
                    self.links.push(Link::new(next, self.at_target, channel));
                }
                client::Effect::ToSource { channel, message } => {
                    self.send_up(self.at_source, channel, Up::Source(message));
                }
                client::Effect::ToTarget { channel, message } => {
                    self.send_up(self.at_target, channel, Up::Target(message));
                }
                client::Effect::Switch(channel) | client::Effect::CloseSource(channel) => {
                    let source = self.at_source;
                    self.close_client(|link| link.client == source && link.channel == channel);
                }
                client::Effect::CloseTarget(channel) => {
                    let target = self.at_target;
                    self.close_client(|link| link.client == target && link.channel == channel);
                }
                client::Effect::DropSource => {
                    let source = self.at_source;
                    self.close_client(|link| link.client == source);
                }
                client::Effect::DropTarget => {
                    let source = self.at_source;
                    self.close_client(|link| link.client != source);
                }
                client::Effect::Moved(scheme) => {
                    self.seen.moved.push(scheme);
                    self.at_source = self.at_target;
                }
                client::Effect::StartAfresh => self.starts_afresh = true,
                client::Effect::SessionLost => self.seen.lost = true,
            }
        }
    }

    /// Whether it does nothing for the moment.
    fn server(&mut self, at: usize, input: server::Input) -> bool {
        use server::Effect::{Source, Target};
        let effects = self.servers[at].handle(self.now, input);
        let effects = self.allowed(effects);
        let is_silent = effects.is_empty();
        for effect in effects {
            match effect {
                Target(target_server::Effect::Send { client, message }) => {
                    self.send_down(client, MAIN, Down::Target(message));
                }
                Source(source_server::Effect::Send { client, channel, message }) => {
                    self.send_down(client, channel, Down::Source(message));
                }
                Target(target_server::Effect::Start { .. }) => {}
                Target(target_server::Effect::CloseChannel { client, channel }) => {
                    self.close_server(|link| link.client == client && link.channel == channel);
                }
                Target(target_server::Effect::Close(client)) | Source(source_server::Effect::Close(client)) => {
                    self.close_server(|link| link.client == client);
                }
                Target(target_server::Effect::ClientMigrationComplete) => self.seen.awaits[at].answers += 1,
                Source(source_server::Effect::ConnectComplete) => {
                    self.seen.connects[at].answers += 1;
                    if self.hops[at] == Hop::Connecting {
                        self.hops[at] = Hop::Connected;
                    }
                }
                Source(source_server::Effect::EndComplete) => {
                    self.seen.ends[at].answers += 1;
                    if self.hops[at] == Hop::Ending {
                        self.hops[at] = Hop::Released;
                        self.close_server(|link| link.server == at);
                    }
                }
            }
        }
        is_silent
    }

    fn allowed<E>(&mut self, effects: Result<Vec<E>, Violation>) -> Vec<E> {
        effects.unwrap_or_else(|violation| {
            self.seen.violation.get_or_insert(violation);
            Vec::new()
        })
    }

    fn link(&mut self, client: u32, channel: ChannelId) -> Option<&mut Link> {
        let is_open = |link: &&mut Link| link.is_up && link.client_open && link.server_open;
        self.links.iter_mut().filter(is_open).find(|link| link.client == client && link.channel == channel)
    }

    fn send_up(&mut self, client: u32, channel: ChannelId, item: Up) {
        if let Some(link) = self.link(client, channel) {
            link.up.push(item);
        }
    }

    fn send_down(&mut self, client: u32, channel: ChannelId, item: Down) {
        if let Some(link) = self.link(client, channel) {
            link.down.push(item);
        }
    }

    fn close_client(&mut self, which: impl Fn(&Link) -> bool) {
        for link in self.links.iter_mut().filter(|link| link.client_open && which(link)) {
            link.client_open = false;
            link.down.clear();
            if link.is_up && link.server_open {
                link.up.push(Up::Closed);
            }
        }
    }

    fn close_server(&mut self, which: impl Fn(&Link) -> bool) {
        for link in self.links.iter_mut().filter(|link| link.is_up && link.server_open && which(link)) {
            link.server_open = false;
            link.up.clear();
            if link.client_open {
                link.down.push(Down::Closed);
            }
        }
    }
}

impl Link {
    fn new(server: usize, client: u32, channel: ChannelId) -> Self {
        let (down, up) = (Vec::new(), Vec::new());
        Self { server, client, channel, is_up: false, down, up, client_open: true, server_open: true }
    }
}
