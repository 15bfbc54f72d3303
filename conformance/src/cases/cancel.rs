//! Migrations that do not take place: cancelled, failed, announced anew, or answered unasked.

use spice_migration::ClientMessage;

use super::{SEMI, cases, check_absent, check_all_open};
use crate::{
    case::{Context, OrFail, Scheme, Stop, Verdict, check},
    context::{Place, Setup},
    migration::Prepared,
    peer::client::{Client, Session, is, until},
    subject::{Destination, HostEvent},
};

cases! {
    "cancel/told/semi-seamless" ["S5.1"] Must
        "A client that had connected semi-seamlessly is told MIGRATE_CANCEL"
        sends "MIGRATE_CONNECTED; the VM migration is begun and cancelled"
        expects "MIGRATE_CANCEL on the source's main channel"
        => told_semi_seamless;
    "cancel/told/seamless" ["S5.1"] Must
        "A client that had connected seamlessly is told MIGRATE_CANCEL"
        sends "MIGRATE_CONNECTED_SEAMLESS; the VM migration is begun and cancelled"
        expects "MIGRATE_CANCEL on the source's main channel"
        => told_seamless;
    "cancel/told/vm-failed" ["S5.3"] Must
        "A client that had connected is told MIGRATE_CANCEL when the VM migration fails"
        sends "MIGRATE_CONNECTED; a VM migration that fails"
        expects "MIGRATE_CANCEL on the source's main channel"
        => told_of_failure;
    "cancel/untold/connect-error" ["S5.2"] Must
        "A client that had not connected is not told MIGRATE_CANCEL"
        sends "MIGRATE_CONNECT_ERROR; the VM migration is begun and cancelled; ATTACH_CHANNELS"
        expects "no MIGRATE_CANCEL before CHANNELS_LIST"
        => untold_after_connect_error;
    "cancel/untold/vm-failed" ["S5.2"] Must
        "A client that had not connected is not told MIGRATE_CANCEL when the VM migration fails, either"
        sends "MIGRATE_CONNECT_ERROR; a VM migration that fails; ATTACH_CHANNELS"
        expects "no MIGRATE_CANCEL before CHANNELS_LIST"
        => untold_of_failure;
    "cancel/session/kept" ["S5.4"] Must
        "After MIGRATE_CANCEL the session at the source goes on"
        sends "MIGRATE_CONNECTED; the VM migration is begun and cancelled; ATTACH_CHANNELS"
        expects "CHANNELS_LIST, and every channel open"
        => session_kept;
    "cancel/session/second-announcement" ["S5.5"] Must
        "After a cancelled migration another one can be announced"
        sends "MIGRATE_CONNECTED; the VM migration is begun and cancelled; the host announces a target again"
        expects "MIGRATE_BEGIN"
        => second_announcement;
    "cancel/unasked/connected" ["S6.1"] Must
        "An unasked MIGRATE_CONNECTED is answered with MIGRATE_CANCEL"
        sends "MIGRATE_CONNECTED in a session without any announcement; then ATTACH_CHANNELS"
        expects "MIGRATE_CANCEL, and CHANNELS_LIST: the session goes on"
        => unasked_connected;
    "cancel/unasked/connected-seamless" ["S6.1"] Must
        "An unasked MIGRATE_CONNECTED_SEAMLESS is answered with MIGRATE_CANCEL"
        sends "MIGRATE_CONNECTED_SEAMLESS in a session without any announcement; then ATTACH_CHANNELS"
        expects "MIGRATE_CANCEL, and CHANNELS_LIST: the session goes on"
        => unasked_connected_seamless;
    "cancel/unasked/connect-error" ["S6.2"] Must
        "An unasked MIGRATE_CONNECT_ERROR is ignored"
        sends "MIGRATE_CONNECT_ERROR in a session without any announcement; ATTACH_CHANNELS"
        expects "no MIGRATE_CANCEL before CHANNELS_LIST"
        => unasked_connect_error;
    "cancel/new-destination/announced" ["S10.1"] Must
        "A new destination cancels the one that the client had connected to"
        sends "MIGRATE_CONNECTED; the host announces another target"
        expects "MIGRATE_CANCEL, then MIGRATE_BEGIN with that target"
        => new_destination;
}

async fn told_semi_seamless(context: &mut Context) -> Verdict {
    let Prepared { mut source, target: _target, .. } = prepared(context).await?;
    context.cancel_migration().await?;
    until!(source.main, MigrateCancel).await.or_fail("S5.1")?;
    context.note_called_off(Scheme::Cancelled);
    Ok(())
}

async fn told_seamless(context: &mut Context) -> Verdict {
    context.start_pair(Setup { seamless: true, ..Setup::default() }).await?;
    let client = context.client();
    let session = context.connect(&client, Place::Source).await?;
    let prepared = context.prepare(&client, session, Place::Source, Place::Target).await?;
    let Prepared { mut source, target: _target, .. } = prepared;
    context.cancel_migration().await?;
    until!(source.main, MigrateCancel).await.or_fail("S5.1")?;
    context.note_called_off(Scheme::Cancelled);
    Ok(())
}

async fn told_of_failure(context: &mut Context) -> Verdict {
    let Prepared { mut source, target: _target, .. } = prepared(context).await?;
    fail_migration(context).await?;
    until!(source.main, MigrateCancel).await.or_fail("S5.3")?;
    context.note_called_off(Scheme::Failed);
    Ok(())
}

async fn untold_after_connect_error(context: &mut Context) -> Verdict {
    let mut session = unconnected(context).await?;
    context.cancel_migration().await?;
    session.list_channels().await?;
    not_cancelled(&session, "S5.2")?;
    context.note_called_off(Scheme::Cancelled);
    Ok(())
}

async fn untold_of_failure(context: &mut Context) -> Verdict {
    let mut session = unconnected(context).await?;
    fail_migration(context).await?;
    session.list_channels().await?;
    not_cancelled(&session, "S5.2")?;
    context.note_called_off(Scheme::Failed);
    Ok(())
}

/// A session whose client could not connect to the target.
async fn unconnected(context: &mut Context) -> Result<Session, Stop> {
    let (_, mut session) = connected(context).await?;
    context.announce(Place::Source, Place::Target).await?;
    until!(session.main, MigrateBegin).await?;
    session.main.send(ClientMessage::MigrateConnectError);
    session.list_channels().await?;
    Ok(session)
}

async fn fail_migration(context: &mut Context) -> Verdict {
    let patience = context.patience();
    let host = context.host(Place::Source);
    host.migrate_to_nowhere().await?;
    host.wait_for(HostEvent::MigrationFailed, patience).await?;
    Ok(())
}

async fn session_kept(context: &mut Context) -> Verdict {
    let Prepared { mut source, target, .. } = prepared(context).await?;
    context.cancel_migration().await?;
    until!(source.main, MigrateCancel).await?;
    target.close().await;
    source.list_channels().await.or_fail("S5.4")?;
    check_all_open(&mut source, "S5.4")?;
    context.note_called_off(Scheme::Cancelled);
    Ok(())
}

async fn second_announcement(context: &mut Context) -> Verdict {
    let Prepared { mut source, target, .. } = prepared(context).await?;
    let again = context.given_destination(Place::Target);
    context.cancel_migration().await?;
    until!(source.main, MigrateCancel).await?;
    target.close().await;
    source.list_channels().await?;
    context.host(Place::Source).migrate_info(&again).await?;
    until!(source.main, MigrateBegin).await.or_fail("S5.5")?;
    context.note_called_off(Scheme::Cancelled);
    Ok(())
}

async fn unasked_connected(context: &mut Context) -> Verdict {
    unasked(context, ClientMessage::MigrateConnected).await
}

async fn unasked_connected_seamless(context: &mut Context) -> Verdict {
    unasked(context, ClientMessage::MigrateConnectedSeamless).await
}

async fn unasked(context: &mut Context, answer: ClientMessage<'_>) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut session = context.connect_main(&client, Place::Source).await?;
    session.main.send(answer);
    until!(session.main, MigrateCancel).await.or_fail("S6.1")?;
    session.list_channels().await.or_fail("S6.1")
}

async fn unasked_connect_error(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut session = context.connect_main(&client, Place::Source).await?;
    session.main.send(ClientMessage::MigrateConnectError);
    session.list_channels().await.or_fail("S6.2")?;
    not_cancelled(&session, "S6.2")
}

async fn new_destination(context: &mut Context) -> Verdict {
    let Prepared { mut source, target: _target, .. } = prepared(context).await?;
    let before = source.main.taken.len();
    context.start(Place::Third, Setup::default()).await?;
    let given = context.given_destination(Place::Third);
    context.announce(Place::Source, Place::Third).await?;
    let told = source.main.until("MIGRATE_BEGIN", Destination::told).await?;
    check(told == given, "S10.1", &source.main.name, format_args!("{given:?}"), format_args!("{told:?}"))?;
    let cancelled = source.main.taken[before..].iter().any(|received| is!(received, MigrateCancel));
    check(cancelled, "S10.1", &source.main.name, "MIGRATE_CANCEL before MIGRATE_BEGIN", "MIGRATE_BEGIN alone")
}

fn not_cancelled(session: &Session, requirement: &'static str) -> Verdict {
    let cancelled = session.main.taken.iter().find(|received| is!(received, MigrateCancel));
    check_absent(cancelled, requirement, &session.main, "no MIGRATE_CANCEL")
}

/// Two hosts that do not allow seamless migration, and a session at the source.
async fn connected(context: &mut Context) -> Result<(Client, Session), Stop> {
    context.start_pair(Setup::default()).await?;
    let client = context.client().with_main(SEMI);
    let session = context.connect(&client, Place::Source).await?;
    Ok((client, session))
}

/// The same, and the client has answered MIGRATE_CONNECTED.
async fn prepared(context: &mut Context) -> Result<Prepared, Stop> {
    let (client, session) = connected(context).await?;
    context.prepare(&client, session, Place::Source, Place::Target).await
}
