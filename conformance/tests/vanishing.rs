//! A client that exits at any moment strands nobody: on the reference pair it is killed at every point where it acts, each link step and
//! each message that it sends or receives. Each time the guest runs on exactly one host in the end, and no host waits beyond the limit.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use spice_conformance::{
    context::MAIN,
    peer::{
        client::{
            Client,
            follower::{Event, Follower, Habits, LinkStep, What},
        },
        host::{EmbeddedHost, HostSettings},
    },
    subject::{Destination, HostEvent, HostOptions, Liveness},
    trace::Trace,
};
use spice_migration::{caps::MainCapability, migrate::Scheme};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};

/// How long a host waits for a client here; spice-server: 10 s.
const MIGRATE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a busy machine may add.
const MARGIN: Duration = Duration::from_secs(8);

const CHANNELS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_seamless_client_that_is_killed_at_any_point_strands_nobody() {
    strands_nobody(Scheme::Seamless).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_semi_seamless_client_that_is_killed_at_any_point_strands_nobody() {
    strands_nobody(Scheme::SemiSeamless).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switched_client_that_is_killed_at_any_point_strands_nobody() {
    strands_nobody(Scheme::SwitchHost).await;
}

async fn strands_nobody(scheme: Scheme) {
    let clean = migrate(scheme, None).await;
    let moved = clean.iter().any(|event| match &event.what {
        What::Moved(how) => *how == scheme,
        What::StartsAfresh(_) => scheme == Scheme::SwitchHost,
        _ => false,
    });
    assert!(moved, "the clean run is a migration by the scheme: {clean:#?}");
    let messages = clean.iter().filter(|event| matches!(event.what, What::Sent(_) | What::Received(_))).count();
    let points: Vec<u64> = clean.iter().map(|event| event.number).collect();
    assert!(points.len() >= messages && messages > 0, "{} points for {messages} messages", points.len());
    println!("{scheme:?}: {} points, {messages} of them messages", points.len());

    let permits = Arc::new(Semaphore::new(16));
    let mut runs = JoinSet::new();
    for point in points {
        let permits = permits.clone();
        runs.spawn(async move {
            let _permit = permits.acquire_owned().await;
            migrate(scheme, Some(point)).await;
        });
    }
    while let Some(run) = runs.join_next().await {
        run.unwrap();
    }
}

/// One migration with a client that exits behind its n-th event; judges the hosts, and returns the client's events.
async fn migrate(scheme: Scheme, exits_after: Option<u64>) -> Vec<Event> {
    let mut source = start("source").await;
    let mut target = start("target").await;
    let capabilities: &[MainCapability] = match scheme {
        Scheme::Seamless => MainCapability::KNOWN,
        Scheme::SemiSeamless => &[MainCapability::SEMI_SEAMLESS_MIGRATE],
        Scheme::SwitchHost => &[],
    };
    let client = Client::new(MARGIN, Trace::new()).with_main(capabilities);
    let (sender, mut events) = mpsc::unbounded_channel();
    let habits = Habits { exits_after, ..Habits::default() };
    let follower = Follower::start(client.clone(), Destination::plain(source.spice()), habits, move |event| {
        // Nobody listens any more when the run is over.
        let _ = sender.send(event);
    });

    let mut seen = Vec::new();
    let mut await_event = async |wanted: &(dyn Fn(&[Event]) -> bool + Sync)| {
        while !wanted(&seen) && !has_ended(&seen) {
            let event = timeout(MARGIN, events.recv()).await.unwrap_or_else(|_| panic!("nothing after {seen:#?}"));
            seen.extend(event);
        }
    };
    await_event(&|seen| linked(seen, source.spice().port()) == CHANNELS).await;
    source.migrate_info(&Destination::plain(target.spice())).await.unwrap();
    source.migrate(&target).await.unwrap();

    let limit = MIGRATE_TIMEOUT + MARGIN;
    let stopped = source.wait_for(HostEvent::Stop, limit).await.unwrap();
    let resumed = target.wait_for(HostEvent::Resume, limit).await.unwrap();
    let released = source.wait_for(HostEvent::ClientMigrationCompleted, limit).await.unwrap();
    assert!(
        source.count(HostEvent::Resume) == 0 && stopped <= resumed,
        "the guest runs at the target alone ({exits_after:?})"
    );
    for (what, when) in [("the target", resumed), ("the source", released)] {
        let waited = when.saturating_duration_since(stopped);
        assert!(waited < limit, "{what} waited {waited:?} for a client that exits after {exits_after:?}");
    }
    if exits_after.is_none() {
        // Until all that follows from the migration has happened, too.
        let at_target = target.spice().port();
        let settled = |seen: &[Event]| linked(seen, at_target) == CHANNELS && settled(seen, scheme);
        await_event(&settled).await;
    }
    follower.exit().await;
    for host in [&mut source, &mut target] {
        assert_eq!(host.liveness(MARGIN).await, Liveness::Alive, "exits after {exits_after:?}");
    }
    let began = Instant::now();
    client.link("target", target.spice(), 0, MAIN).await.expect("the target serves a new client").close().await;
    assert!(began.elapsed() < MARGIN);
    seen
}

async fn start(name: &str) -> EmbeddedHost {
    let options = HostOptions {
        name: name.to_owned(),
        seamless: true,
        password: None,
        incoming: name == "target",
        ..HostOptions::default()
    };
    let settings = HostSettings { migrate_timeout: MIGRATE_TIMEOUT, ..HostSettings::default() };
    EmbeddedHost::start(&options, settings, &Trace::new()).await.unwrap()
}

fn has_ended(seen: &[Event]) -> bool {
    seen.iter().any(|event| matches!(event.what, What::Ended(_)))
}

/// How many channels have been linked at the host with this port.
fn linked(seen: &[Event], port: u16) -> usize {
    let here = |event: &&Event| match &event.what {
        What::Link { host, step: LinkStep::Linked, .. } => host.ends_with(&format!(":{port}")),
        _ => false,
    };
    seen.iter().filter(here).count()
}

fn settled(seen: &[Event], scheme: Scheme) -> bool {
    seen.iter().any(|event| match event.what {
        What::Moved(_) => true,
        What::StartsAfresh(_) => scheme == Scheme::SwitchHost,
        _ => false,
    })
}
