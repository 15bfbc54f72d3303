//! The client that follows the guest by itself, between pairs of real QEMU processes and between the embedded hosts.

use std::{
    collections::HashMap,
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use spice_conformance::{
    case::Context,
    context::{Place, Setup},
    peer::client::{
        Client,
        follower::{End, Event, Follower, Habits, LinkStep, Passed, What},
    },
    subject::{Destination, Embedded, HostEvent, StartError, Subject, qemu::Qemu},
};
use spice_migration::{
    ChannelType,
    caps::{CommonCapability, MainCapability},
    message::ChannelId,
    migrate::Scheme,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout_at},
};

/// For anything that a host does sooner or later: a source waits 10 s for its client.
const DEADLINE: Duration = Duration::from_secs(30);

/// What both kinds of host offer.
const CHANNELS: [ChannelType; 4] = [ChannelType::MAIN, ChannelType::DISPLAY, ChannelType::INPUTS, ChannelType::CURSOR];

const SEAMLESS: Setup = Setup { seamless: true, ..Setup::NOTHING };
const SEMI_SEAMLESS: Setup = Setup::NOTHING;

/// Each test here once against QEMU and once against the embedded hosts.
macro_rules! tests {
    ($($test:ident)*) => {
        mod qemu {
            $(#[tokio::test]
            async fn $test() {
                if let Some(subject) = super::qemu(stringify!($test)).await {
                    super::$test(subject).await;
                }
            })*
        }

        mod embedded {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Subject::Embedded(super::Embedded::new(None))).await;
            })*
        }
    };
}

tests! {
    a_seamless_session_moves_on_and_on
    a_semi_seamless_session_moves_on_and_on
    a_client_without_the_seamless_bit_moves_semi_seamlessly
    a_client_without_capabilities_starts_afresh
    an_unreachable_target_is_said_and_started_afresh_at_later
    a_target_that_stays_unreachable_costs_the_session
    a_migration_that_fails_is_called_off_and_the_next_one_works
    another_destination_replaces_the_first
    serials_go_on_at_the_target
    a_client_that_is_told_to_exit_closes_all_at_once
    a_ticket_is_good_at_both_hosts
}

async fn a_seamless_session_moves_on_and_on(subject: Subject) {
    let mut scene = Scene::start(subject, SEAMLESS).await;
    scene.start_host(Place::Third, SEAMLESS).await;
    for (from, to) in [(Place::Source, Place::Target), (Place::Target, Place::Third)] {
        scene.connect_to(from, to, "SPICE_MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS").await;
        let before = scene.seen.len();
        scene.migrate(from, to, Scheme::Seamless).await;
        // What each channel relays is the first that it sends to the target after the switch.
        let target = scene.name(to);
        for channel in [ChannelType::MAIN, ChannelType::DISPLAY, ChannelType::INPUTS] {
            let sent = scene.seen[before..].iter().filter_map(sent);
            let first = sent.clone().find(|sent| sent.channel.channel_type == channel && *sent.host == *target);
            let relayed = first.unwrap();
            assert_eq!(relayed.name, "SPICE_MSGC_MIGRATE_DATA");
            let mut received = scene.seen[before..].iter().filter_map(received);
            let data = received.find(|data| data.name == "SPICE_MSG_MIGRATE_DATA" && data.channel == relayed.channel);
            assert_eq!(data.unwrap().size, relayed.size);
        }
        let clock = |what: &What| {
            received(what).is_some_and(|passed| passed.name.ends_with("_MULTI_MEDIA_TIME") && *passed.host == *target)
        };
        // It may come before the last channel has relayed.
        if !scene.seen[before..].iter().any(clock) {
            scene.until("MULTI_MEDIA_TIME", clock).await;
        }
    }
    scene.finish().await;
}

async fn a_semi_seamless_session_moves_on_and_on(subject: Subject) {
    let mut scene = Scene::start(subject, SEMI_SEAMLESS).await;
    scene.start_host(Place::Third, SEMI_SEAMLESS).await;
    for (from, to) in [(Place::Source, Place::Target), (Place::Target, Place::Third)] {
        scene.connect_to(from, to, "SPICE_MSGC_MAIN_MIGRATE_CONNECTED").await;
        scene.migrate(from, to, Scheme::SemiSeamless).await;
        // The display begins anew.
        let target = scene.name(to);
        scene
            .until("a message on the display channel", |what| {
                received(what).is_some_and(|passed| {
                    passed.channel.channel_type == ChannelType::DISPLAY && *passed.host == *target
                })
            })
            .await;
    }
    scene.finish().await;
}

async fn a_client_without_the_seamless_bit_moves_semi_seamlessly(subject: Subject) {
    let semi = [MainCapability::SEMI_SEAMLESS_MIGRATE, MainCapability::AGENT_CONNECTED_TOKENS];
    let mut scene = Scene::with(subject, SEAMLESS, |client| client.with_main(&semi), Habits::default()).await;
    scene.connect_to(Place::Source, Place::Target, "SPICE_MSGC_MAIN_MIGRATE_CONNECTED").await;
    scene.migrate(Place::Source, Place::Target, Scheme::SemiSeamless).await;
    scene.finish().await;
}

async fn a_client_without_capabilities_starts_afresh(subject: Subject) {
    let mut scene = Scene::with(subject, SEAMLESS, |client| client.with_main(&[]), Habits::default()).await;
    scene.announce(Place::Source, Place::Target).await;
    scene.migrate_guest(Place::Source, Place::Target).await;
    scene.until("a fresh start", |what| matches!(what, What::StartsAfresh(_))).await;
    scene.until_linked(Place::Target).await;
    scene.finish().await;
}

async fn an_unreachable_target_is_said_and_started_afresh_at_later(subject: Subject) {
    let mut scene = Scene::start(subject, SEAMLESS).await;
    let way = Way::to(&scene.context.host(Place::Target).spice().to_string()).await;
    way.open.store(false, Ordering::SeqCst);
    let destination = Destination { port: Some(way.port), ..scene.context.given_destination(Place::Target) };
    scene.context.host(Place::Source).migrate_info(&destination).await.unwrap();
    scene.until_sent("SPICE_MSGC_MAIN_MIGRATE_CONNECT_ERROR").await;
    way.open.store(true, Ordering::SeqCst);
    scene.migrate_guest(Place::Source, Place::Target).await;
    scene.until("a fresh start", |what| matches!(what, What::StartsAfresh(_))).await;
    scene.until_channels(&format!("127.0.0.1:{}", way.port)).await;
    scene.finish().await;
}

async fn a_target_that_stays_unreachable_costs_the_session(subject: Subject) {
    let mut scene = Scene::start(subject, SEAMLESS).await;
    // Nobody listens where a listener has just been.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let destination = Destination { port: Some(port), ..scene.context.given_destination(Place::Target) };
    scene.context.host(Place::Source).migrate_info(&destination).await.unwrap();
    scene.until_sent("SPICE_MSGC_MAIN_MIGRATE_CONNECT_ERROR").await;
    scene.migrate_guest(Place::Source, Place::Target).await;
    let End::Lost(reason) = scene.follower.ended().await else { panic!("{:#?}", scene.seen) };
    assert!(reason.contains("no new session"), "{reason}");
}

async fn a_migration_that_fails_is_called_off_and_the_next_one_works(subject: Subject) {
    let mut scene = Scene::start(subject, SEAMLESS).await;
    for _ in 0..2 {
        scene.connect_to(Place::Source, Place::Target, "SPICE_MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS").await;
        scene.context.host(Place::Source).migrate_to_nowhere().await.unwrap();
        scene.until_received("SPICE_MSG_MAIN_MIGRATE_CANCEL").await;
    }
    scene.connect_to(Place::Source, Place::Target, "SPICE_MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS").await;
    scene.migrate(Place::Source, Place::Target, Scheme::Seamless).await;
    scene.finish().await;
}

async fn another_destination_replaces_the_first(subject: Subject) {
    let mut scene = Scene::start(subject, SEAMLESS).await;
    scene.start_host(Place::Third, SEAMLESS).await;
    scene.connect_to(Place::Source, Place::Target, "SPICE_MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS").await;
    scene.connect_to(Place::Source, Place::Third, "SPICE_MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS").await;
    scene.migrate(Place::Source, Place::Third, Scheme::Seamless).await;
    scene.finish().await;
}

/// With full headers the hosts say themselves how many messages they have sent.
async fn serials_go_on_at_the_target(subject: Subject) {
    let full = [CommonCapability::AUTH_SELECTION, CommonCapability::AUTH_SPICE];
    let mut scene = Scene::with(subject, SEAMLESS, |client| client.with_common(&full), Habits::default()).await;
    scene.connect_to(Place::Source, Place::Target, "SPICE_MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS").await;
    scene.migrate(Place::Source, Place::Target, Scheme::Seamless).await;
    scene.finish().await;

    let source = scene.name(Place::Source);
    let mut last: HashMap<(bool, ChannelId), u64> = HashMap::new();
    for what in &scene.seen {
        let (out, Some(passed)) = (sent(what).is_some(), sent(what).or(received(what))) else { continue };
        // What passes at the target before the switch has numbers of its own. Of what servers send, display's alone go on: its serial
        // is part of the state that is carried over.
        let key = (out, passed.channel);
        let goes_on = out || passed.channel.channel_type == ChannelType::DISPLAY;
        if !goes_on {
            continue;
        }
        if *passed.host == *source || last.contains_key(&key) && !passed.name.contains("DST_") {
            let before = last.insert(key, passed.serial).unwrap_or(0);
            assert_eq!(passed.serial, before + 1, "{passed}\n{:#?}", scene.seen);
        }
    }
}

async fn a_client_that_is_told_to_exit_closes_all_at_once(subject: Subject) {
    let mut scene = Scene::start(subject, SEAMLESS).await;
    scene.connect_to(Place::Source, Place::Target, "SPICE_MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS").await;
    scene.migrate_guest(Place::Source, Place::Target).await;
    let Scene { mut context, follower, .. } = scene;
    assert_eq!(follower.exit().await, End::Exited);
    // The source has nobody to wait for.
    context.host(Place::Source).wait_for(HostEvent::ClientMigrationCompleted, DEADLINE).await.unwrap();
}

async fn a_ticket_is_good_at_both_hosts(subject: Subject) {
    let setup = Setup { seamless: true, password: true, ..Setup::NOTHING };
    let mut scene = Scene::start(subject, setup).await;
    scene.connect_to(Place::Source, Place::Target, "SPICE_MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS").await;
    scene.migrate(Place::Source, Place::Target, Scheme::Seamless).await;
    scene.finish().await;
}

/// Two hosts or three, and a follower with a session on the first.
struct Scene {
    context: Context,
    follower: Follower,
    events: mpsc::UnboundedReceiver<Event>,
    seen: Vec<What>,
}

impl Scene {
    async fn start(subject: Subject, setup: Setup) -> Self {
        Self::with(subject, setup, |client| client, Habits::default()).await
    }

    async fn with(subject: Subject, setup: Setup, change: impl Fn(Client) -> Client, habits: Habits) -> Self {
        let mut context = Context::new(subject).unwrap();
        context.start_pair(setup).await.unwrap();
        let client = change(context.client());
        let destination = context.given_destination(Place::Source);
        let (report, events) = mpsc::unbounded_channel();
        let trace = context.trace.clone();
        let follower = Follower::start(client, destination, habits, move |event| {
            trace.event("client", &event.what);
            let _ = report.send(event);
        });
        let mut scene = Self { context, follower, events, seen: Vec::new() };
        scene.until_linked(Place::Source).await;
        scene
    }

    async fn start_host(&mut self, place: Place, setup: Setup) {
        self.context.start(place, setup).await.unwrap();
    }

    fn name(&mut self, place: Place) -> String {
        self.context.host(place).spice().to_string()
    }

    /// Announces a destination, and waits until the follower says that it is connected to it.
    async fn connect_to(&mut self, from: Place, to: Place, answer: &str) {
        self.announce(from, to).await;
        self.until_sent(answer).await;
    }

    async fn announce(&mut self, from: Place, to: Place) {
        self.context.announce(from, to).await.unwrap();
    }

    async fn migrate_guest(&mut self, from: Place, to: Place) {
        self.context.migrate(from, to).await.unwrap();
        self.context.host(from).wait_for(HostEvent::MigrationCompleted, DEADLINE).await.unwrap();
    }

    /// Migrates the guest, and waits until the follower has come along.
    async fn migrate(&mut self, from: Place, to: Place, scheme: Scheme) {
        self.migrate_guest(from, to).await;
        self.until("the move", |what| matches!(what, What::Moved(_))).await;
        assert!(matches!(self.seen.last(), Some(What::Moved(moved)) if *moved == scheme), "{:#?}", self.seen);
        self.context.host(from).wait_for(HostEvent::ClientMigrationCompleted, DEADLINE).await.unwrap();
    }

    async fn until_linked(&mut self, place: Place) {
        let host = self.name(place);
        self.until_channels(&host).await;
    }

    /// Waits until all channels are linked at a host.
    async fn until_channels(&mut self, name: &str) {
        let mut missing = CHANNELS.to_vec();
        self.until("all channels", |what| {
            if let What::Link { host, channel, step: LinkStep::Linked, .. } = what
                && **host == *name
            {
                missing.retain(|missing| *missing != channel.channel_type);
            }
            missing.is_empty()
        })
        .await;
    }

    async fn until_sent(&mut self, name: &str) {
        self.until(name, |what| sent(what).is_some_and(|passed| passed.name == name)).await;
    }

    async fn until_received(&mut self, name: &str) {
        self.until(name, |what| received(what).is_some_and(|passed| passed.name == name)).await;
    }

    async fn until(&mut self, awaited: &str, mut is_it: impl FnMut(&What) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while let Ok(Some(event)) = timeout_at(deadline, self.events.recv()).await {
            self.seen.push(event.what);
            if self.seen.last().is_some_and(&mut is_it) {
                return;
            }
        }
        let entries = self.context.trace.entries();
        let trace: Vec<_> = entries.iter().map(|entry| format!("{entry}\n")).collect();
        panic!("no {awaited}:\n{}", trace.concat());
    }

    /// The session still works, and all hosts live.
    async fn finish(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.seen.push(event.what);
        }
        let bad = |what: &&What| matches!(what, What::Ended(_) | What::Closed { .. } | What::Violated(..));
        assert_eq!(self.seen.iter().filter(bad).count(), 0, "{:#?}", self.seen);
    }
}

/// A way to a host that can be blocked.
struct Way {
    port: u16,
    open: Arc<AtomicBool>,
    _connections: JoinSet<()>,
}

impl Way {
    async fn to(host: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, host) = (Arc::new(AtomicBool::new(true)), host.to_owned());
        let is_open = Arc::clone(&open);
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut relayed = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                if is_open.load(Ordering::SeqCst) {
                    let mut far = TcpStream::connect(&host).await.unwrap();
                    relayed.spawn(async move { copy_bidirectional(&mut near, &mut far).await });
                }
            }
        });
        Self { port, open, _connections: connections }
    }
}

fn sent(what: &What) -> Option<&Passed> {
    match what {
        What::Sent(passed) => Some(passed),
        _ => None,
    }
}

fn received(what: &What) -> Option<&Passed> {
    match what {
        What::Received(passed) => Some(passed),
        _ => None,
    }
}

/// QEMU, or `None` and a line that says what was not tested. In CI it must be there.
async fn qemu(untested: &str) -> Option<Subject> {
    match Qemu::probe(Path::new("qemu-system-x86_64")).await {
        Ok(qemu) => Some(Subject::Qemu(qemu)),
        Err(StartError::MissingProgram { .. }) if std::env::var_os("CI").is_none() => {
            // Straight to stderr: the test harness would swallow what `println!` says in a test that passes.
            let _ = writeln!(io::stderr(), "not tested: {untested} (qemu-system-x86_64 is missing)");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
