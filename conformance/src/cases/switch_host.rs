//! Switch-host: the client starts afresh at the target.

use spice_migration::{ClientMessage, caps::MainCapability};

use super::{cases, check_absent, semi_seamless::sequence_is};
use crate::{
    case::{Context, OrFail, Scheme, Stop, Verdict, check},
    context::{Place, Setup},
    peer::client::{Session, is, until},
    subject::Destination,
};

cases! {
    "switch-host/begin/none" ["S1.3"] Must
        "A client without the migration bits is not told to begin"
        sends "a session of a client with NAME_AND_UUID alone; the host announces a target; ATTACH_CHANNELS"
        expects "neither MIGRATE_BEGIN nor MIGRATE_BEGIN_SEAMLESS before CHANNELS_LIST"
        => not_told_to_begin;
    "switch-host/source/no-capability" ["S4.3"] Must
        "A client without the migration bits is told SWITCH_HOST on completion"
        sends "such a session; the host announces a target; the VM is migrated"
        expects "MIGRATE_SWITCH_HOST on the source's main channel"
        => without_capability;
    "switch-host/source/connect-error" ["S4.3"] Must
        "A client that could not connect is told SWITCH_HOST on completion"
        sends "MIGRATE_CONNECT_ERROR; the VM is migrated"
        expects "MIGRATE_SWITCH_HOST on the source's main channel"
        => after_connect_error;
    "switch-host/source/not-awaited" ["S4.3"] Must waits
        "A client that had not answered when the VM was migrated is told SWITCH_HOST"
        sends "no answer to MIGRATE_BEGIN; the VM is migrated"
        expects "MIGRATE_SWITCH_HOST on the source's main channel"
        => not_awaited;
    "switch-host/source/destination" ["S1.4"] Must
        "MIGRATE_SWITCH_HOST names the destination that the host gave"
        sends "the host announces a target; the VM is migrated"
        expects "MIGRATE_SWITCH_HOST with its host name and port, no TLS port, and no subject"
        => destination;
    "switch-host/source/sequence" ["Q1"] Must
        "The source sends MIGRATE_SWITCH_HOST once"
        sends "a switch-host migration, at whose end the client closes its sending direction to the source"
        expects "no further message of a migration on the source's main channel"
        => source_sequence;
    "switch-host/target/fresh-session" ["T11"] Must
        "The target serves the client that links afresh"
        sends "a switch-host migration, then a main link with connection id 0 to the target"
        expects "INIT at the target, with another session id than at the source"
        => fresh_session;
}

const INCAPABLE: &[MainCapability] = &[MainCapability::NAME_AND_UUID];

async fn not_told_to_begin(context: &mut Context) -> Verdict {
    let mut session = announced(context, INCAPABLE).await?;
    session.list_channels().await?;
    let begin = session.main.taken.iter().find(|received| is!(received, MigrateBegin | MigrateBeginSeamless));
    check_absent(begin, "S1.3", &session.main, "no announcement")
}

async fn without_capability(context: &mut Context) -> Verdict {
    let mut session = announced(context, INCAPABLE).await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(session.main, MigrateSwitchHost).await.or_fail("S4.3")
}

async fn after_connect_error(context: &mut Context) -> Verdict {
    let mut session = announced(context, MainCapability::KNOWN).await?;
    until!(session.main, MigrateBegin).await?;
    session.main.send(ClientMessage::MigrateConnectError);
    // The answer shows that the source has processed the message before.
    session.list_channels().await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(session.main, MigrateSwitchHost).await.or_fail("S4.3")
}

async fn not_awaited(context: &mut Context) -> Verdict {
    let mut session = announced(context, MainCapability::KNOWN).await?;
    until!(session.main, MigrateBegin).await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(session.main, MigrateSwitchHost).await.or_fail("S4.3")
}

async fn destination(context: &mut Context) -> Verdict {
    let mut session = announced(context, INCAPABLE).await?;
    context.migrate(Place::Source, Place::Target).await?;
    let told = session.main.until("MIGRATE_SWITCH_HOST", Destination::told).await?;
    let given = context.given_destination(Place::Target);
    check(told == given, "S1.4", &session.main.name, format_args!("{given:?}"), format_args!("{told:?}"))
}

async fn source_sequence(context: &mut Context) -> Verdict {
    let mut session = announced(context, INCAPABLE).await?;
    session.list_channels().await?;
    if session.main.taken.iter().any(|received| is!(received, MigrateBegin | MigrateBeginSeamless)) {
        return Err(session.main.unexpected("no announcement", "one, which another case is about").into());
    }
    context.migrate(Place::Source, Place::Target).await?;
    until!(session.main, MigrateSwitchHost).await?;
    session.main.finish();
    session.main.closed_within(context.patience()).await?;
    sequence_is(&session, &["MIGRATE_SWITCH_HOST"])
}

async fn fresh_session(context: &mut Context) -> Verdict {
    let mut source = announced(context, INCAPABLE).await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(source.main, MigrateSwitchHost).await?;
    let client = context.client().with_main(INCAPABLE);
    let target = context.connect(&client, Place::Target).await.or_fail("T11")?;
    let own = target.id != source.id;
    check(own, "T11", &target.main.name, "a session id of its own", "that of the session at the source")?;
    context.note_migration(Scheme::SwitchHost, &source, &target, Place::Source, Place::Target).await?;
    source.close().await;
    target.close().await;
    Ok(())
}

/// Two hosts, a session at the source, and the target announced to it. The hosts do not allow seamless migration.
async fn announced(context: &mut Context, capabilities: &[MainCapability]) -> Result<Session, Stop> {
    context.start_pair(Setup::default()).await?;
    let mut client = context.client().with_main(capabilities);
    // A host may wait for an answer that does not come.
    client.patience += context.subject.migrate_timeout();
    let session = context.connect(&client, Place::Source).await?;
    context.announce(Place::Source, Place::Target).await?;
    Ok(session)
}
