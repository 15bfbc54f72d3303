//! Semi-seamless migration: the client connects to the target beforehand and restarts its session there.

use spice_migration::{ClientMessage, ServerMessage, caps::MainCapability, message::server};

use super::{SEMI, cases, check_absent};
use crate::{
    case::{Context, OrFail, Scheme, Stop, Verdict, check},
    context::{MAIN, Place, Setup},
    migration::{Prepared, restart},
    peer::client::{Client, Received, Session, is, until},
    situation::SEMI_AND_NAME,
    subject::{Destination, HostEvent},
};

cases! {
    "semi-seamless/begin/semi-alone" ["S1.2"] Must
        "A client with SEMI_SEAMLESS_MIGRATE alone is told to begin with MIGRATE_BEGIN"
        sends "a session of a client with SEMI_SEAMLESS_MIGRATE; the host, which allows seamless migration, announces a target"
        expects "MIGRATE_BEGIN"
        => begin_for_semi_alone;
    "semi-seamless/begin/no-agent-tokens" ["S1.2"] Must
        "SEAMLESS_MIGRATE without AGENT_CONNECTED_TOKENS leads to MIGRATE_BEGIN"
        sends "a session of a client with both migration bits but not AGENT_CONNECTED_TOKENS; the host announces a target"
        expects "MIGRATE_BEGIN"
        => begin_without_agent_tokens;
    "semi-seamless/begin/host-forbids" ["S1.2"] Must
        "Where the host does not allow seamless migration, MIGRATE_BEGIN comes"
        sends "a session of a client with every capability; the host, which does not allow seamless migration, announces a target"
        expects "MIGRATE_BEGIN"
        => begin_where_host_forbids;
    "semi-seamless/begin/destination" ["S1.4"] Must
        "MIGRATE_BEGIN names the destination that the host gave"
        sends "the host announces a target"
        expects "MIGRATE_BEGIN with its host name and port, no TLS port, and no subject"
        => begin_destination;
    "semi-seamless/source/end" ["S4.2"] Must
        "A client that has connected is told the end with MIGRATE_END"
        sends "MIGRATE_CONNECTED; the VM is migrated"
        expects "MIGRATE_END on the source's main channel"
        => end_told;
    "semi-seamless/source/sequence" ["Q1"] Must
        "The source sends MIGRATE_BEGIN and MIGRATE_END once each, in this order"
        sends "a whole semi-seamless migration, at whose end the client stays linked to the source until it closes"
        expects "no further message of a migration on the source's main channel"
        => source_sequence;
    "semi-seamless/source/completed" ["S9.2"] Must
        "The host is told when the client has left the source"
        sends "a whole semi-seamless migration; the client closes its connections to the source"
        expects "the host's event that the client's migration is complete (QEMU: SPICE_MIGRATE_COMPLETED)"
        => completion_told;
    "semi-seamless/source/completed-once" ["S9.5"] Must waits
        "The host is told once that the client has left the source"
        sends "a whole semi-seamless migration; the client closes its connections to the source; the time that a client has goes by"
        expects "the host's event that the client's migration is complete, once"
        => completion_told_once;
    "semi-seamless/source/client-stays" ["S9.1"] Must waits
        "A client that does not leave is dropped within the time limit"
        sends "MIGRATE_CONNECTED; the VM is migrated; the client does not leave the source"
        expects "the end of the source's main connection within 10 s, and not at once"
        => client_stays;
    "semi-seamless/source/newcomer" ["S9.4", "S9.2"] Must
        "A client that comes after the completion does not hold it up"
        sends "MIGRATE_CONNECTED; the VM is migrated; behind MIGRATE_END another client links main and stays"
        expects "the host's event that the client's migration is complete, once the first client is gone"
        => newcomer_does_not_hold_up;
    "semi-seamless/target/silent" ["T2.1"] Must waits
        "The target sends a waiting client nothing before its MIGRATE_END"
        sends "links of all channels to the target; the VM is migrated; no MIGRATE_END"
        expects "no message on any channel of the target"
        => target_silent;
    "semi-seamless/target/init" ["T2.2"] Must
        "After MIGRATE_END the target sends INIT with the same session id"
        sends "MIGRATE_END to the target after the source's MIGRATE_END"
        expects "INIT with the session id of the source's INIT"
        => same_session_id;
    "semi-seamless/target/no-repetition" ["T2.3"] Must
        "The target does not repeat CHANNELS_LIST, NAME or UUID by itself"
        sends "a whole semi-seamless migration, then ATTACH_CHANNELS to the target"
        expects "neither NAME nor UUID, and one CHANNELS_LIST"
        => nothing_repeated;
    "semi-seamless/target/channels-start" ["T2.4"] Must
        "The channels that waited at the target start after MIGRATE_END"
        sends "a whole semi-seamless migration"
        expects "a message on each of display, inputs and cursor"
        => held_channels_start;
    "semi-seamless/target/late-channels" ["T2.6"] Must
        "Channels may also be linked after INIT"
        sends "a semi-seamless migration in which main alone is linked beforehand, and the other channels behind INIT"
        expects "link result OK, and a message on each of display, inputs and cursor"
        => late_channels;
    "semi-seamless/target/end-without-semi" ["T7.2"] Should
        "MIGRATE_END from a client without SEMI_SEAMLESS_MIGRATE is ignored"
        sends "a main link with a connection id but without the capability at a target, then MIGRATE_END"
        expects "no INIT before the server closes too"
        => end_without_semi;
    "semi-seamless/target/attach-while-migrating" ["T5"] Must
        "ATTACH_CHANNELS is ignored before MIGRATE_END and answered after it"
        sends "ATTACH_CHANNELS to the waiting target, MIGRATE_END, and ATTACH_CHANNELS again"
        expects "INIT before CHANNELS_LIST, and one CHANNELS_LIST"
        => attach_while_migrating;
    "semi-seamless/target/second-end" ["T7"] Must
        "A second MIGRATE_END is ignored"
        sends "a whole semi-seamless migration, MIGRATE_END to the target once more, then ATTACH_CHANNELS"
        expects "no second INIT before CHANNELS_LIST"
        => second_end;
    "semi-seamless/target/sequence" ["Q2"] Must
        "The target sends INIT once"
        sends "a whole semi-seamless migration, then ATTACH_CHANNELS to the target"
        expects "one INIT before CHANNELS_LIST"
        => target_sequence;
    "semi-seamless/chain/second-migration" ["R1"] Must
        "A host that took a guest over can hand it on, semi-seamlessly"
        sends "a whole semi-seamless migration, then another one from the target to a third host with the same client"
        expects "MIGRATE_BEGIN, MIGRATE_END, and INIT at the third host"
        => chained;
}

async fn begin_for_semi_alone(context: &mut Context) -> Verdict {
    let client = context.client().with_main(SEMI);
    begins(context, client, true).await
}

async fn begin_without_agent_tokens(context: &mut Context) -> Verdict {
    let client = context.client().with_main(&[MainCapability::SEMI_SEAMLESS_MIGRATE, MainCapability::SEAMLESS_MIGRATE]);
    begins(context, client, true).await
}

async fn begin_where_host_forbids(context: &mut Context) -> Verdict {
    let client = context.client();
    begins(context, client, false).await
}

async fn begins(context: &mut Context, client: Client, seamless: bool) -> Verdict {
    context.start_pair(Setup { seamless, ..Setup::default() }).await?;
    let mut session = context.connect(&client, Place::Source).await?;
    context.announce(Place::Source, Place::Target).await?;
    until!(session.main, MigrateBegin).await.or_fail("S1.2")
}

async fn begin_destination(context: &mut Context) -> Verdict {
    context.start_pair(Setup::default()).await?;
    let client = context.client();
    let mut session = context.connect(&client, Place::Source).await?;
    context.announce(Place::Source, Place::Target).await?;
    let told = session.main.until("MIGRATE_BEGIN", Destination::told).await?;
    let given = context.given_destination(Place::Target);
    check(told == given, "S1.4", &session.main.name, format_args!("{given:?}"), format_args!("{told:?}"))
}

async fn end_told(context: &mut Context) -> Verdict {
    let Prepared { mut source, target: _target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(source.main, MigrateEnd).await.or_fail("S4.2")
}

async fn source_sequence(context: &mut Context) -> Verdict {
    let Prepared { mut source, target: _target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(source.main, MigrateEnd).await?;
    source.main.finish();
    source.main.closed_within(context.patience()).await?;
    sequence_is(&source, &["MIGRATE_BEGIN", "MIGRATE_END"])
}

/// Checks that of all messages of a migration the source's main channel brought just these, in this order.
pub(super) fn sequence_is(source: &Session, expected: &[&str]) -> Verdict {
    let of_migration = source.main.taken.iter().filter(|received| {
        is!(
            received,
            MigrateBegin
                | MigrateBeginSeamless
                | MigrateCancel
                | MigrateEnd
                | MigrateSwitchHost
                | Migrate
                | MigrateData
        )
    });
    let sequence: Vec<String> = of_migration.map(Received::name).collect();
    check(sequence == expected, "Q1", &source.main.name, expected.join(", "), sequence.join(", "))
}

async fn completion_told(context: &mut Context) -> Verdict {
    let Prepared { mut source, mut target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(source.main, MigrateEnd).await?;
    restart(&mut target).await?;
    target.start_children().await?;
    not_completed_yet(context)?;
    context.note_migration(Scheme::SemiSeamless, &source, &target, Place::Source, Place::Target).await?;
    source.close().await;
    let patience = context.patience();
    context.host(Place::Source).wait_for(HostEvent::ClientMigrationCompleted, patience).await.or_fail("S9.2")?;
    target.close().await;
    Ok(())
}

async fn completion_told_once(context: &mut Context) -> Verdict {
    let Prepared { mut source, target: _target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(source.main, MigrateEnd).await?;
    if context.host(Place::Source).seen(HostEvent::ClientMigrationCompleted) {
        return Err(Stop::Inconclusive("the event came before the client had left".to_owned()));
    }
    source.close().await;
    let patience = context.patience();
    // Not when the client's time is over, either.
    let limit = context.subject.migrate_timeout() + context.soon();
    let host = context.host(Place::Source);
    host.wait_for(HostEvent::ClientMigrationCompleted, patience).await?;
    let again = host.wait_for(HostEvent::ClientMigrationCompleted, limit).await.is_ok();
    check(!again, "S9.5", Place::Source.name(), "the event once", "it twice")
}

async fn newcomer_does_not_hold_up(context: &mut Context) -> Verdict {
    let Prepared { mut source, target: _target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(source.main, MigrateEnd).await?;
    not_completed_yet(context)?;
    let (client, address) = (context.client(), context.address(Place::Source));
    let newcomer = client.link("source/newcomer", address, 0, MAIN).await?;
    source.close().await;
    let soon = context.soon();
    context.host(Place::Source).wait_for(HostEvent::ClientMigrationCompleted, soon).await.or_fail("S9.4")?;
    newcomer.close().await;
    Ok(())
}

/// Checks that the host was not told so while the client is still there.
pub(super) fn not_completed_yet(context: &mut Context) -> Verdict {
    let early = context.host(Place::Source).seen(HostEvent::ClientMigrationCompleted);
    let expected = "the client's migration to be complete only when it has left";
    check(!early, "S9.2", Place::Source.name(), expected, "the event while the client was there")
}

async fn client_stays(context: &mut Context) -> Verdict {
    let Prepared { mut source, target: _target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(source.main, MigrateEnd).await?;
    let limit = context.subject.migrate_timeout();
    let began = tokio::time::Instant::now();
    source.main.closed_within(limit + context.patience()).await.or_fail("S9.1")?;
    let stayed = began.elapsed();
    let expected = format!("the end of the connection {limit:?} after MIGRATE_END");
    check(stayed > limit / 2, "S9.1", &source.main.name, expected, format_args!("it after {stayed:?}"))
}

async fn target_silent(context: &mut Context) -> Verdict {
    let Prepared { mut source, mut target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(source.main, MigrateEnd).await?;
    let patience = context.patience();
    context.host(Place::Target).wait_for(HostEvent::Resume, patience).await?;
    // Whatever the target sends on main before it closes that, it sends without MIGRATE_END. Held channels it may not even watch
    // (spice-server does not), so what they brought by then counts.
    target.main.finish();
    target.main.closed_within(patience).await?;
    check_absent(target.main.taken.first(), "T2.1", &target.main, "no message before MIGRATE_END")?;
    for channel in &mut target.children {
        let spoke = channel.arrived().next().cloned();
        check_absent(spoke.as_ref(), "T2.1", channel, "no message before MIGRATE_END")?;
    }
    Ok(())
}

async fn same_session_id(context: &mut Context) -> Verdict {
    let Prepared { mut source, mut target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(source.main, MigrateEnd).await?;
    target.main.send(ClientMessage::MigrateEnd);
    let session_id = target.main.until("INIT", session_id).await.or_fail("T2.2")?;
    let expected = format!("session id {:#x}", source.id);
    check(session_id == source.id, "T2.2", &target.main.name, expected, format_args!("{session_id:#x}"))?;
    Ok(target.start_children().await?)
}

fn session_id(message: &ServerMessage<'_>) -> Option<u32> {
    match message {
        ServerMessage::Init(server::Init { session_id, .. }) => Some(*session_id),
        _ => None,
    }
}

async fn nothing_repeated(context: &mut Context) -> Verdict {
    let mut target = migrated(context).await?;
    target.list_channels().await?;
    let repeated = target.main.taken.iter().find(|received| is!(received, Name | Uuid));
    check_absent(repeated, "T2.3", &target.main, "neither NAME nor UUID")?;
    target.main.finish();
    target.main.closed_within(context.patience()).await?;
    let lists = target.main.taken.iter().filter(|received| is!(received, ChannelsList)).count();
    check(lists == 1, "T2.3", &target.main.name, "one CHANNELS_LIST for one ATTACH_CHANNELS", lists)
}

async fn held_channels_start(context: &mut Context) -> Verdict {
    let Prepared { mut source, mut target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(source.main, MigrateEnd).await?;
    restart(&mut target).await?;
    target.start_children().await.or_fail("T2.4")
}

async fn late_channels(context: &mut Context) -> Verdict {
    context.start_pair(Setup::default()).await?;
    let client = context.client().with_main(SEMI_AND_NAME);
    let mut source = context.connect(&client, Place::Source).await?;
    context.announce(Place::Source, Place::Target).await?;
    until!(source.main, MigrateBegin).await?;
    let address = context.address(Place::Target);
    let mut target = client.connect_migrating(Place::Target.name(), address, &source).await?;
    source.main.send(ClientMessage::MigrateConnected);
    source.list_channels().await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(source.main, MigrateEnd).await?;
    target.main.send(ClientMessage::MigrateEnd);
    target.id = target.main.until("INIT", session_id).await?;
    client.connect_children(Place::Target.name(), address, &mut target).await.or_fail("T2.6")?;
    target.start_children().await.or_fail("T2.6")
}

async fn end_without_semi(context: &mut Context) -> Verdict {
    context.start_pair(Setup::default()).await?;
    let client = context.client().with_main(&[MainCapability::NAME_AND_UUID]);
    let source = context.connect(&client, Place::Source).await?;
    let address = context.address(Place::Target);
    let mut target = client.connect_migrating(Place::Target.name(), address, &source).await?;
    target.main.send(ClientMessage::MigrateEnd);
    target.main.finish();
    target.main.closed_within(context.patience()).await?;
    let init = target.main.taken.iter().find(|received| is!(received, Init));
    check_absent(init, "T7.2", &target.main, "no INIT")
}

async fn attach_while_migrating(context: &mut Context) -> Verdict {
    let Prepared { mut source, mut target, .. } = prepared(context).await?;
    target.main.send(ClientMessage::AttachChannels);
    context.migrate(Place::Source, Place::Target).await?;
    until!(source.main, MigrateEnd).await?;
    target.main.send(ClientMessage::MigrateEnd);
    until!(target.main, Init).await?;
    target.start_children().await?;
    let early = target.main.taken.iter().find(|received| is!(received, ChannelsList));
    check_absent(early, "T5", &target.main, "no CHANNELS_LIST before INIT")?;
    target.list_channels().await.or_fail("T5")?;
    target.main.finish();
    target.main.closed_within(context.patience()).await?;
    let lists = target.main.taken.iter().filter(|received| is!(received, ChannelsList)).count();
    check(lists == 1, "T5", &target.main.name, "one CHANNELS_LIST", lists)
}

async fn second_end(context: &mut Context) -> Verdict {
    let mut target = migrated(context).await?;
    // Everything that follows from the first MIGRATE_END comes before this answer.
    target.list_channels().await?;
    let before = target.main.taken.len();
    target.main.send(ClientMessage::MigrateEnd);
    target.list_channels().await.or_fail("T7")?;
    let again = target.main.taken[before..].iter().find(|received| is!(received, Init));
    check_absent(again, "T7", &target.main, "no second INIT")
}

async fn target_sequence(context: &mut Context) -> Verdict {
    let mut target = migrated(context).await?;
    target.list_channels().await?;
    let inits = target.main.taken.iter().filter(|received| is!(received, Init)).count();
    check(inits == 1, "Q2", &target.main.name, "one INIT", inits)
}

async fn chained(context: &mut Context) -> Verdict {
    let client = context.client().with_main(SEMI_AND_NAME);
    let target = migrated(context).await?;
    context.start(Place::Third, Setup::default()).await?;
    let prepared = context.prepare(&client, target, Place::Target, Place::Third).await;
    let prepared = prepared.map_err(violates_r1)?;
    let third = context.complete(prepared, Place::Target, Place::Third).await.map_err(violates_r1)?;
    third.close().await;
    Ok(())
}

/// What keeps a second migration from being judged is what the case is about.
pub(super) fn violates_r1(stop: Stop) -> Stop {
    match stop {
        Stop::Blocked(got) => violates_r1(Stop::Inconclusive(got.to_string())),
        Stop::Inconclusive(got) => Stop::Fail(crate::case::Failure {
            requirement: "R1",
            connection: Place::Target.name().to_owned(),
            expected: "a second migration that goes as the first did".to_owned(),
            got,
        }),
        other => other,
    }
}

/// Two hosts, and a client that has answered MIGRATE_CONNECTED.
async fn prepared(context: &mut Context) -> Result<Prepared, Stop> {
    context.start_pair(Setup::default()).await?;
    let client = context.client().with_main(SEMI_AND_NAME);
    let session = context.connect(&client, Place::Source).await?;
    context.prepare(&client, session, Place::Source, Place::Target).await
}

/// A whole semi-seamless migration: the session at the target.
async fn migrated(context: &mut Context) -> Result<Session, Stop> {
    let prepared = prepared(context).await?;
    context.complete(prepared, Place::Source, Place::Target).await
}
