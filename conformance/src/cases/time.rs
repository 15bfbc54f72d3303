//! Clients that take their time: they do not answer, do not read, or send a byte now and then. Whoever waits for them waits no longer than
//! the time limit, and nobody else waits.

use spice_migration::{
    ChannelType, ClientMessage, Data,
    frame::{self, HeaderKind},
    link::LinkError,
    message::ChannelId,
};

use super::{cases, check};
use crate::{
    case::{Context, OrFail, Stop, Verdict},
    context::{MAIN, Place, Setup},
    migration::{deliver, take_data},
    peer::client::{DISPLAY_INIT, RawLink},
    situation::{Sessions, Situation},
    subject::HostEvent,
};

cases! {
    "time/source/migrate-unanswered" ["S9.1"] Must waits
        "A client that does not leave after MIGRATE is dropped within the time limit"
        sends "MIGRATE_CONNECTED_SEAMLESS; the VM is migrated; nothing on any channel"
        expects "the end of main, and the host told, within 10 s"
        => migrate_unanswered;
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
        sends "a link of main of which nothing is read; then a new client"
        expects "a session for the new client, at once"
        => reads_nothing_on_main;
    "time/reads-nothing/display" ["P2"] Must
        "A client that reads nothing on display delays no other"
        sends "a session with a display of which nothing is read; then a new client"
        expects "a session for the new client, at once"
        => reads_nothing_on_display;
    "time/link/byte-by-byte" ["P2"] Must
        "A client that links byte by byte delays no other"
        sends "a link message of inputs, a byte at a time; answers on main in between; in the middle a new client"
        expects "each answer, and a session for the new client, at once"
        => byte_by_byte;
}

async fn migrate_unanswered(context: &mut Context) -> Verdict {
    stays(context, Situation::Migrating).await
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
    tokio::time::sleep(context.subject.migrate_timeout()).await;
    let client = context.client();
    context.connect(&client, Place::Target).await.or_fail("H6")?.close().await;
    drop(sessions);
    Ok(())
}

async fn display_without_data(context: &mut Context) -> Verdict {
    let limit = context.subject.migrate_timeout() + context.patience();
    let situation = Situation::GuestCameSeamless;
    let mut sessions: Sessions = situation.reach(context).await?;
    let (mut source, mut target) = (sessions.take(Place::Source)?, sessions.take(Place::Target)?);
    for (source, target) in source.channels().zip(target.channels()) {
        if source.id.channel_type != ChannelType::DISPLAY
            && let Some(data) = take_data(source).await?
        {
            deliver(target, &data);
        }
    }
    target.child(ChannelType::DISPLAY)?.closed_within(limit).await.or_fail("T8")?;
    let ended = target.main.has_ended();
    check(ended.is_none(), "T8", &target.main.name, "an open channel", "its end")
}

async fn reads_nothing_on_main(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let unread = unread(context, 0, MAIN).await?;
    let client = context.client();
    context.connect(&client, Place::Source).await.or_fail("P2")?.close().await;
    drop(unread);
    Ok(())
}

async fn reads_nothing_on_display(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut session = context.connect_main(&client, Place::Source).await?;
    let display = ChannelId { channel_type: ChannelType::DISPLAY, id: 0 };
    let mut link = unread(context, session.id, display).await?;
    let (id, body) = DISPLAY_INIT;
    let mut bytes = [0; 32];
    let init = ClientMessage::Unknown { id, body: Data(body) };
    let length = frame::encode(HeaderKind::Mini, 0, &init, &mut bytes).unwrap_or(0);
    link.send("DISPLAY_INIT", &bytes[..length]).await?;
    session.list_channels().await.or_fail("P2")?;
    context.connect(&client, Place::Source).await.or_fail("P2")?.close().await;
    Ok(())
}

async fn byte_by_byte(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut session = context.connect_main(&client, Place::Source).await?;
    let inputs = ChannelId { channel_type: ChannelType::INPUTS, id: 0 };
    let mut link = client.open(Place::Source.name(), inputs, context.address(Place::Source)).await?;
    let bytes = client.request(session.id, inputs).to_bytes();
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

/// Links a channel, and reads nothing behind the link result.
async fn unread(context: &mut Context, connection_id: u32, channel: ChannelId) -> Result<RawLink, Stop> {
    let client = context.client();
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
