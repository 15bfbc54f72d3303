//! Hosts that let several clients connect at once: none of them is migrated seamlessly, and each goes its own way.

use spice_migration::{ChannelType, ClientMessage, Data, ServerMessage, message::ChannelId};

use super::{
    SEMI, cases, check, check_open, clients::switched, malformed::DEVICE_DATA, seamless::ask,
    semi_seamless::not_completed_yet,
};
use crate::{
    case::{Context, OrFail, Scheme, Stop, Verdict},
    context::{MAIN, Place, Setup},
    migration::{Prepared, restart},
    peer::client::{Client, Session, until},
    subject::HostEvent,
};

cases! {
    "several/session/both" ["L7.3"] Must
        "A second client is served beside the first"
        sends "two sessions, and ATTACH_CHANNELS in each"
        expects "CHANNELS_LIST in each"
        => both_served;
    "several/session/smartcard" ["S11"] Must
        "A second client that speaks to the smartcard reader of the first harms nobody"
        sends "two sessions; on the second's smartcard channel a message to the reader, and nothing more"
        expects "the end of that channel; the first client is served"
        => second_on_smartcard;
    "several/announcement/alone" ["S1.5"] Must
        "A client that is alone is not migrated seamlessly where others may come"
        sends "a session of a client with every capability, and an announcement; the hosts allow seamless migration"
        expects "MIGRATE_BEGIN"
        => announced_alone;
    "several/announcement/both" ["S1.5"] Must
        "Of two clients none is migrated seamlessly"
        sends "two sessions of clients with every capability, and an announcement; the hosts allow seamless migration"
        expects "MIGRATE_BEGIN in each"
        => announced_to_both;
    "several/target/nack" ["T3.6"] Must
        "A target that allows several clients does not agree to seamless migration"
        sends "MIGRATE_DST_DO_SEAMLESS with version 1"
        expects "MIGRATE_DST_SEAMLESS_NACK"
        => declined;
    "several/announcement/seamless-answer" ["S11"] Must
        "One of two clients that answers as to another announcement harms nobody"
        sends "MIGRATE_BEGIN to two clients; MIGRATE_CONNECTED_SEAMLESS of one"
        expects "CHANNELS_LIST for the other"
        => seamless_answer;
    "several/announcement/newcomer" ["S1.7"] Must waits
        "A client that comes while another is asked does not end the session of either"
        sends "MIGRATE_BEGIN to one client, which does not answer; another one links, and the time for an answer goes by"
        expects "CHANNELS_LIST for both"
        => newcomer_while_asked;
    "several/migration/both" ["S4.2", "T2.2", "S9.2"] Must
        "Two clients that have connected are both handed over, and the source stays until the last has left"
        sends "MIGRATE_CONNECTED of both; the VM is migrated; one leaves the source before the other; MIGRATE_END of both"
        expects "MIGRATE_END to both, INIT to both, and the event when the second has left"
        => both_connected;
    "several/migration/refusing" ["S4.2", "S4.3", "L7.3"] Must
        "A client that cannot reach the target is sent there afresh, and another one is handed over"
        sends "MIGRATE_CONNECTED of one client, MIGRATE_CONNECT_ERROR of the other; the VM is migrated"
        expects "MIGRATE_END to the one, MIGRATE_SWITCH_HOST to the other, and both served at the target"
        => one_refusing;
    "several/migration/unanswered" ["S4.2", "S4.3", "L7.3"] Must waits
        "A client that does not answer is sent to the target afresh, and another one is handed over"
        sends "MIGRATE_CONNECTED of one client, no answer of the other; the VM is migrated"
        expects "MIGRATE_END to the one, MIGRATE_SWITCH_HOST to the other, and both served at the target"
        => one_unanswered;
    "several/migration/incapable" ["S4.2", "S4.3", "L7.3"] Must
        "A client without migration capabilities is sent to the target afresh, and another one is handed over"
        sends "MIGRATE_CONNECTED of one client, and a session of one that is not announced anything; the VM is migrated"
        expects "MIGRATE_END to the one, MIGRATE_SWITCH_HOST to the other, and both served at the target"
        => one_incapable;
    "several/migration/newcomer" ["S4.2", "S1.7", "L7.3"] Must
        "A client that comes after the announcement is sent to the target afresh, and the one before it is handed over"
        sends "MIGRATE_CONNECTED of one client; another one links; the VM is migrated"
        expects "MIGRATE_END to the one, MIGRATE_SWITCH_HOST to the other, and both served at the target"
        => one_new;
    "several/migration/newcomer-after-completion" ["S9.4"] Must waits
        "A client that comes after the completion does not keep the source from dropping the one before it"
        sends "MIGRATE_END to a client, which stays; another one links to the source"
        expects "the host's event that the client's migration is complete (QEMU: SPICE_MIGRATE_COMPLETED), when the time for it is over"
        => one_new_after_completion;
    "several/migration/gone" ["S4.2", "S12"] Must
        "A client that goes after the announcement takes nothing from another one, which is handed over"
        sends "MIGRATE_BEGIN to two clients; one goes; MIGRATE_CONNECTED of the other; the VM is migrated"
        expects "MIGRATE_END to the other, and both hosts told"
        => one_gone;
    "several/cancel/both" ["S5.1", "S5.4"] Must
        "After a cancelled migration both clients go on at the source"
        sends "MIGRATE_CONNECTED of both; the VM migration is cancelled; ATTACH_CHANNELS of both"
        expects "MIGRATE_CANCEL to both, and CHANNELS_LIST to both"
        => both_cancelled;
}

const SEVERAL: Setup = Setup { several_clients: true, ..Setup::NOTHING };

/// They would allow it if there were one client only.
const SEVERAL_SEAMLESS: Setup = Setup { seamless: true, ..SEVERAL };

async fn both_served(context: &mut Context) -> Verdict {
    context.start_source(SEVERAL).await?;
    let client = context.client();
    let mut first = context.connect(&client, Place::Source).await?;
    let mut second = context.connect(&client, Place::Source).await.or_fail("L7.3")?;
    first.list_channels().await.or_fail("L7.3")?;
    second.list_channels().await.or_fail("L7.3")
}

async fn second_on_smartcard(context: &mut Context) -> Verdict {
    context.start_source(Setup { port_and_smartcard: true, ..SEVERAL }).await?;
    let client = context.client();
    let mut first = context.connect(&client, Place::Source).await?;
    let second = context.connect_main(&client, Place::Source).await?;
    let smartcard = ChannelId { channel_type: ChannelType::SMARTCARD, id: 0 };
    let mut smartcard = client.link("source/second", context.address(Place::Source), second.id, smartcard).await?;
    // An APDU of no bytes: type, reader and length.
    smartcard.send(ClientMessage::Unknown { id: DEVICE_DATA, body: Data(b"\x07\0\0\0\0\0\0\0\0\0\0\0") });
    smartcard.finish();
    smartcard.closed_within(context.patience()).await.or_fail("S11")?;
    first.list_channels().await.or_fail("S11")
}

async fn announced_alone(context: &mut Context) -> Verdict {
    context.start_pair(SEVERAL_SEAMLESS).await?;
    let client = context.client();
    let mut session = context.connect(&client, Place::Source).await?;
    context.announce(Place::Source, Place::Target).await?;
    begins_semi_seamlessly(&mut session).await
}

async fn announced_to_both(context: &mut Context) -> Verdict {
    context.start_pair(SEVERAL_SEAMLESS).await?;
    let client = context.client();
    let mut first = context.connect(&client, Place::Source).await?;
    let mut second = context.connect(&client, Place::Source).await?;
    context.announce(Place::Source, Place::Target).await?;
    begins_semi_seamlessly(&mut first).await?;
    begins_semi_seamlessly(&mut second).await
}

async fn begins_semi_seamlessly(session: &mut Session) -> Verdict {
    let announced = |message: &ServerMessage<'_>| match message {
        ServerMessage::MigrateBegin(_) => Some(false),
        ServerMessage::MigrateBeginSeamless(_) => Some(true),
        _ => None,
    };
    let seamless = session.main.until("MIGRATE_BEGIN", announced).await?;
    check(!seamless, "S1.5", &session.main.name, "MIGRATE_BEGIN", "MIGRATE_BEGIN_SEAMLESS")
}

async fn seamless_answer(context: &mut Context) -> Verdict {
    let (_, mut first, mut second) = announced(context).await?;
    until!(first.main, MigrateBegin).await?;
    until!(second.main, MigrateBegin).await?;
    first.main.send(ClientMessage::MigrateConnectedSeamless);
    first.main.finish();
    first.main.closed_within(context.patience()).await.or_fail("S11")?;
    second.list_channels().await.or_fail("S11")
}

async fn newcomer_while_asked(context: &mut Context) -> Verdict {
    context.start_pair(SEVERAL).await?;
    let client = context.client().with_main(SEMI);
    let mut first = context.connect(&client, Place::Source).await?;
    context.announce(Place::Source, Place::Target).await?;
    until!(first.main, MigrateBegin).await?;
    let mut second = context.connect(&client, Place::Source).await?;
    // It is to stay open.
    let limit = context.subject.migrate_timeout() + context.patience();
    let _ = second.main.closed_within(limit).await;
    check_open(&mut second.main, "S1.7")?;
    first.list_channels().await.or_fail("S1.7")?;
    second.list_channels().await.or_fail("S1.7")
}

async fn declined(context: &mut Context) -> Verdict {
    context.start_pair(SEVERAL_SEAMLESS).await?;
    let client = context.client();
    let source = context.connect(&client, Place::Source).await?;
    context.announce(Place::Source, Place::Target).await?;
    let address = context.address(Place::Target);
    let mut target = client.connect_migrating(Place::Target.name(), address, &source).await?;
    ask(&target, 1);
    until!(target.main, MigrateDstSeamlessNack).await.or_fail("T3.6")
}

async fn both_connected(context: &mut Context) -> Verdict {
    let (client, first, second) = announced(context).await?;
    let Prepared { source: mut first, target: first_at_target, .. } =
        context.follow(&client, first, Place::Target).await?;
    let Prepared { source: mut second, target: second_at_target, .. } =
        context.follow(&client, second, Place::Target).await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(first.main, MigrateEnd).await.or_fail("S4.2")?;
    until!(second.main, MigrateEnd).await.or_fail("S4.2")?;
    first.close().await;
    let patience = context.patience();
    // The host's answer comes behind the events that it had to tell of.
    context.host(Place::Source).liveness(patience).await;
    not_completed_yet(context)?;
    second.close().await;
    context.host(Place::Source).wait_for(HostEvent::ClientMigrationCompleted, patience).await.or_fail("S9.2")?;
    for mut session in [first_at_target, second_at_target] {
        restart(&mut session).await.or_fail("T2.2")?;
        session.start_children().await?;
        session.list_channels().await?;
    }
    Ok(())
}

async fn one_refusing(context: &mut Context) -> Verdict {
    let (client, first, mut second) = announced(context).await?;
    let first = context.follow(&client, first, Place::Target).await?;
    until!(second.main, MigrateBegin).await?;
    second.main.send(ClientMessage::MigrateConnectError);
    second.list_channels().await?;
    one_switches(context, &client, first, second, "S4.3").await
}

async fn one_unanswered(context: &mut Context) -> Verdict {
    let (client, first, mut second) = announced(context).await?;
    let first = context.follow(&client, first, Place::Target).await?;
    until!(second.main, MigrateBegin).await?;
    one_switches(context, &client, first, second, "S4.3").await
}

async fn one_incapable(context: &mut Context) -> Verdict {
    context.start_pair(SEVERAL).await?;
    let client = context.client().with_main(SEMI);
    let first = context.connect(&client, Place::Source).await?;
    let incapable = context.client().with_main(&[]);
    let second = context.connect(&incapable, Place::Source).await?;
    let first = context.prepare(&client, first, Place::Source, Place::Target).await?;
    one_switches(context, &incapable, first, second, "S4.3").await
}

async fn one_new(context: &mut Context) -> Verdict {
    context.start_pair(SEVERAL).await?;
    let client = context.client().with_main(SEMI);
    let first = context.connect(&client, Place::Source).await?;
    let first = context.prepare(&client, first, Place::Source, Place::Target).await?;
    let second = context.connect(&client, Place::Source).await.or_fail("L7.3")?;
    one_switches(context, &client, first, second, "S1.7").await
}

async fn one_new_after_completion(context: &mut Context) -> Verdict {
    context.start_pair(SEVERAL).await?;
    let client = context.client().with_main(SEMI);
    let first = context.connect(&client, Place::Source).await?;
    let Prepared { source: mut first, target: _moved, .. } =
        context.prepare(&client, first, Place::Source, Place::Target).await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(first.main, MigrateEnd).await?;
    not_completed_yet(context)?;
    let _newcomer = client.link("source/newcomer", context.address(Place::Source), 0, MAIN).await?;
    let limit = context.subject.migrate_timeout() + context.patience();
    context.host(Place::Source).wait_for(HostEvent::ClientMigrationCompleted, limit).await.or_fail("S9.4")?;
    Ok(())
}

async fn one_gone(context: &mut Context) -> Verdict {
    let (client, first, mut second) = announced(context).await?;
    until!(second.main, MigrateBegin).await?;
    second.close().await;
    let Prepared { source: mut first, target: mut moved, .. } = context.follow(&client, first, Place::Target).await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(first.main, MigrateEnd).await.or_fail("S4.2")?;
    first.close().await;
    restart(&mut moved).await?;
    moved.start_children().await?;
    let limit = context.subject.migrate_timeout() + context.patience();
    context.host(Place::Source).wait_for(HostEvent::ClientMigrationCompleted, limit).await.or_fail("S12")?;
    context.host(Place::Target).wait_for(HostEvent::Resume, limit).await.or_fail("S12")?;
    Ok(())
}

/// Two sessions at the source, and the target announced.
async fn announced(context: &mut Context) -> Result<(Client, Session, Session), Stop> {
    context.start_pair(SEVERAL).await?;
    let mut client = context.client().with_main(SEMI);
    // A host may wait for an answer that does not come.
    client.patience += context.subject.migrate_timeout();
    let first = context.connect(&client, Place::Source).await?;
    let second = context.connect(&client, Place::Source).await?;
    context.announce(Place::Source, Place::Target).await?;
    Ok((client, first, second))
}

/// Migrates the VM: the first client is handed over, and the second comes afresh.
async fn one_switches(
    context: &mut Context,
    client: &Client,
    first: Prepared,
    mut second: Session,
    requirement: &'static str,
) -> Verdict {
    let Prepared { scheme, source: mut first, target: mut moved } = first;
    context.migrate(Place::Source, Place::Target).await?;
    until!(first.main, MigrateEnd).await.or_fail("S4.2")?;
    switched(&mut second.main).await.or_fail(requirement)?;
    restart(&mut moved).await?;
    moved.start_children().await?;
    context.note_migration(scheme, &first, &moved, Place::Source, Place::Target).await?;
    first.close().await;
    second.close().await;
    let mut second = context.connect(client, Place::Target).await.or_fail("L7.3")?;
    moved.list_channels().await.or_fail("L7.3")?;
    second.list_channels().await.or_fail("L7.3")
}

async fn both_cancelled(context: &mut Context) -> Verdict {
    let (client, first, second) = announced(context).await?;
    let first = context.follow(&client, first, Place::Target).await?;
    let second = context.follow(&client, second, Place::Target).await?;
    context.cancel_migration().await?;
    context.note_called_off(Scheme::Cancelled);
    for Prepared { mut source, .. } in [first, second] {
        until!(source.main, MigrateCancel).await.or_fail("S5.1")?;
        source.list_channels().await.or_fail("S5.4")?;
    }
    Ok(())
}
