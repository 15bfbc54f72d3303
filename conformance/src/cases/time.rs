//! Clients that take their time: they do not answer, do not read, or send a byte now and then. Whoever waits for them waits no longer than
//! the time limit, and nobody else waits.

use std::{future::pending, time::Duration};

use spice_migration::{
    ChannelType, ClientMessage, Data,
    frame::HeaderKind,
    link::LinkError,
    message::{
        ChannelId,
        client::{MigrateData, Pong},
    },
};
use tokio::time::sleep;

use super::{cases, check_open};
use crate::{
    case::{Context, OrFail, Stop, Verdict},
    context::{DISPLAY, INPUTS, MAIN, Place, Setup},
    migration::{migrate_data, migrate_flags, relay_but},
    peer::client::{Channel, Client, DISPLAY_INIT, RawLink, framed},
    situation::{Sessions, Situation},
    subject::HostEvent,
};

cases! {
    "time/source/migrate-unanswered" ["S9.1"] Must waits
        "A client that does not leave after MIGRATE is dropped within the time limit"
        sends "MIGRATE_CONNECTED_SEAMLESS; the VM is migrated; nothing on any channel"
        expects "the end of main, and the host told, within 10 s"
        => migrate_unanswered;
    "time/source/data-unfollowed" ["S9.1"] Must waits
        "A client that does not leave when it has the data is dropped within the time limit"
        sends "MIGRATE_CONNECTED_SEAMLESS; the VM is migrated; MIGRATE_FLUSH_MARK on each channel; the client takes the data and stays"
        expects "the end of main, and the host told, within 10 s"
        => data_unfollowed;
    "time/source/switch-host-unanswered" ["S9.1"] Must waits
        "A client that does not leave after MIGRATE_SWITCH_HOST is dropped within the time limit"
        sends "a session without capabilities; the VM is migrated; the client stays"
        expects "the end of main, and the host told, within 10 s"
        => switch_host_unanswered;
    "time/target/semi-seamless-silent" ["H6"] Must waits
        "A client that never says MIGRATE_END keeps neither host waiting, nor the next client"
        sends "all channels linked at the target; the VM is migrated; the client leaves the source and is silent at the target"
        expects "the guest at the target and the source done within 10 s; then a session for a new client"
        => semi_seamless_silent;
    "time/target/seamless-silent" ["H6"] Must waits
        "A client that never brings its data keeps neither host waiting, nor the next client"
        sends "seamless migration agreed upon; the VM is migrated; the client leaves the source and is silent at the target"
        expects "the guest at the target and the source done within 10 s; then a session for a new client"
        => seamless_silent;
    "time/target/display-without-data" ["T8"] Should waits
        "A display channel whose data does not come is closed within the time limit, and main stays"
        sends "MIGRATE_DATA on every channel but display"
        expects "the end of display 10 s after the guest runs, and an open main"
        => display_without_data;
    "time/reads-nothing/main" ["P2"] Must
        "A client that reads nothing on main delays no other"
        sends "a link of main of which nothing is read, and ATTACH_CHANNELS on it until the answers fill all buffers; link messages in between; then a new client"
        expects "a link reply to each, and a session for the new client, at once"
        => reads_nothing_on_main;
    "time/floods/main" ["P2"] Must
        "A client that never pauses delays no other"
        sends "ACK on main, time and again, as fast as the server takes it; meanwhile a new client"
        expects "a session for the new client, at once"
        => floods_main;
    "time/reads-nothing/display" ["P2"] Must
        "A client that reads nothing on display delays no other"
        sends "a session with a display of which nothing is read; then a new client"
        expects "a session for the new client, at once"
        => reads_nothing_on_display;
    "time/reads-nothing/migration" ["H6", "S9.1", "P2"] Must waits
        "A client that reads nothing keeps neither host waiting, nor the next client"
        sends "a link of main of which nothing is read, and ATTACH_CHANNELS on it until the answers fill all buffers; the VM is migrated"
        expects "the guest at the target and the source done within 10 s; then a session for a new client"
        => reads_nothing_while_migrating;
    "time/link/byte-by-byte" ["P2"] Must
        "A client that links byte by byte delays no other"
        sends "a link message of inputs, a byte at a time; answers on main in between; in the middle a new client"
        expects "each answer, and a session for the new client, at once"
        => byte_by_byte;
    "time/byte-a-second/link" ["L10"] Must waits
        "A client that links at one byte a second hinders no other"
        sends "a link message of main, ten bytes of it at one a second; behind each of them a new client"
        expects "a session for each new client, at once"
        => link_a_byte_a_second;
    "time/byte-a-second/message" ["P2"] Must waits
        "A channel that gets a message at one byte a second delays no other"
        sends "a message on inputs, ten bytes of it at one a second; behind each of them ATTACH_CHANNELS on main; then a new client"
        expects "each CHANNELS_LIST, and a session for the new client, at once"
        => message_a_byte_a_second;
    "time/byte-a-second/migration" ["M5.8", "P2"] Must waits
        "A client that is handed over at one byte a second arrives, and delays no other"
        sends "on inputs, MIGRATE_FLUSH_MARK and MIGRATE_DATA, the first bytes of each at one a second; behind each of them a link message"
        expects "a link reply to each, and a session that works at the target"
        => migrates_a_byte_a_second;
}

/// The receive buffer of a client that reads nothing.
const LITTLE: u32 = 4096;

/// So many ATTACH_CHANNELS are answered with more than Linux holds for a connection at most: 4 MiB by default (`tcp_wmem`), and an
/// answer has 10 bytes or more.
const UNREAD: usize = 450_000;

/// So many are sent at once: a server reads them in one go.
const PORTION: usize = 9_000;

/// So many messages go at once.
const FLOOD: usize = 1 << 20;

/// How slow, and for how long.
const BYTE: Duration = Duration::from_secs(1);
const BYTES: usize = 10;

/// The same where a server may drop a client that takes long.
const FEW_BYTES: usize = 2;

async fn migrate_unanswered(context: &mut Context) -> Verdict {
    stays(context, Situation::Migrating).await
}

async fn data_unfollowed(context: &mut Context) -> Verdict {
    stays(context, Situation::Flushed).await
}

async fn switch_host_unanswered(context: &mut Context) -> Verdict {
    stays(context, Situation::SwitchedHost).await
}

async fn stays(context: &mut Context, situation: Situation) -> Verdict {
    let limit = context.subject.migrate_timeout() + context.patience();
    let mut sessions = situation.reach(context).await?;
    let main = sessions.channel(situation, ChannelType::MAIN)?;
    main.closed_within(limit).await.or_fail("S9.1")?;
    let patience = context.patience();
    context.happened(Place::Source, HostEvent::ClientMigrationCompleted, patience).await.or_fail("S9.1")
}

async fn semi_seamless_silent(context: &mut Context) -> Verdict {
    silent_at_target(context, Situation::GuestCame).await
}

async fn seamless_silent(context: &mut Context) -> Verdict {
    silent_at_target(context, Situation::GuestCameSeamless).await
}

async fn silent_at_target(context: &mut Context, situation: Situation) -> Verdict {
    let limit = context.subject.migrate_timeout() + context.patience();
    let mut sessions = situation.reach(context).await?;
    sessions.take(Place::Source)?.close().await;
    context.happened(Place::Target, HostEvent::Resume, limit).await.or_fail("H6")?;
    context.happened(Place::Source, HostEvent::ClientMigrationCompleted, limit).await.or_fail("H6")?;
    // What is only slow while the target's display waits for its data is P2.
    let client = Client { patience: limit, ..context.client() };
    context.connect(&client, Place::Target).await.or_fail("H6")?.close().await;
    drop(sessions);
    Ok(())
}

async fn display_without_data(context: &mut Context) -> Verdict {
    let limit = context.subject.migrate_timeout() + context.patience();
    let situation = Situation::GuestCameSeamless;
    let mut sessions: Sessions = situation.reach(context).await?;
    let (mut source, mut target) = (sessions.take(Place::Source)?, sessions.take(Place::Target)?);
    relay_but(&mut source, &mut target, Some(ChannelType::DISPLAY)).await?;
    target.child(ChannelType::DISPLAY)?.closed_within(limit).await.or_fail("T8")?;
    // spice-server 0.15.1 answers nothing on main any more: there the migration never ends.
    check_open(&mut target.main, "T8")
}

async fn reads_nothing_on_main(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let unread = unread_main(context).await?;
    let client = context.client();
    context.connect(&client, Place::Source).await.or_fail("P2")?.close().await;
    drop(unread);
    Ok(())
}

async fn reads_nothing_while_migrating(context: &mut Context) -> Verdict {
    let limit = context.subject.migrate_timeout() + context.patience();
    context.start_pair(Setup::NOTHING).await?;
    let unread = unread_main(context).await?;
    context.announce(Place::Source, Place::Target).await?;
    context.migrate(Place::Source, Place::Target).await?;
    context.happened(Place::Target, HostEvent::Resume, limit).await.or_fail("H6")?;
    context.happened(Place::Source, HostEvent::ClientMigrationCompleted, limit).await.or_fail("S9.1")?;
    let client = context.client();
    context.connect(&client, Place::Target).await.or_fail("H6")?.close().await;
    drop(unread);
    Ok(())
}

async fn floods_main(context: &mut Context) -> Verdict {
    context.start_source(Setup { several_clients: true, ..Setup::NOTHING }).await?;
    let mut link = unread(context, 0, MAIN).await?;
    let flood = framed(HeaderKind::Mini, &ClientMessage::Ack).repeat(FLOOD);
    let client = context.client();
    tokio::select! {
        biased;
        connected = context.connect(&client, Place::Source) => connected.or_fail("P2")?.close().await,
        () = async {
            while link.send("ACK, time and again", &flood).await.is_ok() {}
            // A server may refuse to take more.
            pending::<()>().await;
        } => {}
    }
    Ok(())
}

async fn reads_nothing_on_display(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut session = context.connect_main(&client, Place::Source).await?;
    let mut link = unread(context, session.id, DISPLAY).await?;
    let (id, body) = DISPLAY_INIT;
    link.send("DISPLAY_INIT", &framed(HeaderKind::Mini, &ClientMessage::Unknown { id, body: Data(body) })).await?;
    session.list_channels().await.or_fail("P2")?;
    context.connect(&client, Place::Source).await.or_fail("P2")?.close().await;
    Ok(())
}

async fn byte_by_byte(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut session = context.connect_main(&client, Place::Source).await?;
    let mut link = client.open(Place::Source.name(), INPUTS, context.address(Place::Source)).await?;
    let bytes = client.request(session.id, INPUTS).to_bytes();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for byte in first {
        link.send("a byte", &[*byte]).await?;
        session.list_channels().await.or_fail("P2")?;
    }
    let mut session = context.connect(&client, Place::Source).await.or_fail("P2")?;
    for byte in second {
        link.send("a byte", &[*byte]).await?;
        session.list_channels().await.or_fail("P2")?;
    }
    session.close().await;
    Ok(())
}

async fn link_a_byte_a_second(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut link = client.open(Place::Source.name(), MAIN, context.address(Place::Source)).await?;
    for byte in client.request(0, MAIN).to_bytes().iter().take(BYTES) {
        link.send("a byte", &[*byte]).await?;
        context.connect_main(&client, Place::Source).await.or_fail("L10")?.close().await;
        sleep(BYTE).await;
    }
    Ok(())
}

async fn message_a_byte_a_second(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut session = context.connect_main(&client, Place::Source).await?;
    session.list_channels().await?;
    let mut link = unread(context, session.id, INPUTS).await?;
    for byte in framed(HeaderKind::Mini, &ClientMessage::Pong(Pong { id: 7, timestamp: 7 })).iter().take(BYTES) {
        link.send("a byte", &[*byte]).await?;
        session.list_channels().await.or_fail("P2")?;
        sleep(BYTE).await;
    }
    context.connect(&client, Place::Source).await.or_fail("P2")?.close().await;
    Ok(())
}

async fn migrates_a_byte_a_second(context: &mut Context) -> Verdict {
    let mut sessions = Situation::WaitingSeamless.reach(context).await?;
    let (mut source, mut target) = (sessions.take(Place::Source)?, sessions.take(Place::Target)?);
    context.migrate(Place::Source, Place::Target).await?;
    relay_but(&mut source, &mut target, Some(ChannelType::INPUTS)).await?;
    let inputs = source.child(ChannelType::INPUTS)?;
    inputs.until("MIGRATE", migrate_flags).await?;
    send_slowly(context, Place::Source, inputs, &ClientMessage::MigrateFlushMark).await?;
    let data = inputs.until("MIGRATE_DATA", migrate_data).await.or_fail("M5.8")?;
    source.close().await;
    let data = ClientMessage::MigrateData(MigrateData { data: Data(&data) });
    send_slowly(context, Place::Target, target.child(ChannelType::INPUTS)?, &data).await?;
    target.list_channels_when_migrated().await.or_fail("M5.8")?;
    target.close().await;
    Ok(())
}

async fn send_slowly(
    context: &mut Context,
    place: Place,
    channel: &mut Channel,
    message: &ClientMessage<'_>,
) -> Verdict {
    let bytes = framed(HeaderKind::Mini, message);
    let (first, rest) = bytes.split_at(FEW_BYTES);
    for byte in first {
        channel.send_bytes("a byte", vec![*byte]);
        context.await_reply(place).await.or_fail("P2")?;
        sleep(BYTE).await;
    }
    channel.send_bytes("the rest", rest.to_vec());
    Ok(())
}

/// Links main, and fills all that there is between it and its client, who reads nothing.
async fn unread_main(context: &mut Context) -> Result<RawLink, Stop> {
    let mut link = unread(context, 0, MAIN).await?;
    let portion = framed(HeaderKind::Mini, &ClientMessage::AttachChannels).repeat(PORTION);
    for _ in 0..UNREAD / PORTION {
        // A server need not take them all.
        if link.send("ATTACH_CHANNELS, time and again", &portion).await.is_err() {
            break;
        }
        context.await_reply(Place::Source).await.or_fail("P2")?;
    }
    Ok(link)
}

/// Links a channel, and reads nothing behind the link result.
async fn unread(context: &mut Context, connection_id: u32, channel: ChannelId) -> Result<RawLink, Stop> {
    let client = Client { receive_buffer: Some(LITTLE), ..context.client() };
    let mut link = client.open(Place::Source.name(), channel, context.address(Place::Source)).await?;
    let request = client.request(connection_id, channel);
    link.request(&request).await?;
    let reply = link.reply().await?;
    link.authenticate(&request, &reply, &client.password).await?;
    match link.result().await? {
        LinkError::OK => Ok(link),
        refused => Err(link.unexpected("link result OK", refused.to_string()).into()),
    }
}
