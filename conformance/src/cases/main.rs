//! The main channel before any migration.

use spice_migration::{
    ClientMessage, Data, ServerMessage, caps::CommonCapability, frame::HeaderKind, link::LinkError,
    message::client as say,
};

use super::{SEMI, cases, check_absent};
use crate::{
    case::{Context, OrFail, Stop, Verdict, check},
    context::{MAIN, Place, Setup},
    peer::client::{Channel, is, until},
};

cases! {
    "main/init/first" ["M1.1"] Must
        "INIT is the first message of a main channel"
        sends "a main link"
        expects "INIT before any other message"
        => init_first;
    "main/name-and-uuid/asked" ["M1.2"] Must
        "A client with NAME_AND_UUID is told the guest's name and UUID"
        sends "a main link with the capability NAME_AND_UUID"
        expects "NAME and UUID"
        => name_asked;
    "main/name-and-uuid/not-asked" ["M1.3"] Must
        "A client without NAME_AND_UUID is sent neither NAME nor UUID"
        sends "a main link without the capability NAME_AND_UUID, then ATTACH_CHANNELS"
        expects "neither before the CHANNELS_LIST that answers"
        => name_not_asked;
    "main/channels-list/after-attach" ["M1.4"] Must
        "CHANNELS_LIST comes only after ATTACH_CHANNELS"
        sends "a main link, and after INIT the end of the client's sending direction"
        expects "no CHANNELS_LIST before the server closes too"
        => list_only_asked;
    "main/channels-list/linkable" ["M1.5"] Must
        "Every channel that CHANNELS_LIST names can be linked"
        sends "ATTACH_CHANNELS, and a link of each channel named"
        expects "at least one, and link result OK for each"
        => listed_channels_link;
    "main/header/mini" ["M3.1"] Must
        "Messages have mini headers when both sides have MINI_HEADER"
        sends "a main link with the capability MINI_HEADER"
        expects "INIT behind a header of 6 bytes"
        => mini_headers;
    "main/header/full" ["M3.2"] Must
        "Messages have full headers otherwise, with serials from 1"
        sends "a main link without the capability MINI_HEADER, then ATTACH_CHANNELS behind a full header"
        expects "messages behind headers of 18 bytes whose serials are 1, 2, 3, …"
        => full_headers;
    "main/base/out-of-turn" ["M6"] Should
        "Messages of the base channel that are out of turn are ignored"
        sends "on main: ACK_SYNC of another generation, PONG that answers no PING, ACK, DISCONNECTING; then ATTACH_CHANNELS"
        expects "CHANNELS_LIST"
        => out_of_turn;
    "main/migrate-end/ignored" ["M7"] Observed
        "MIGRATE_END in a session that does not migrate is ignored"
        sends "MIGRATE_END, then ATTACH_CHANNELS"
        expects "no second INIT before CHANNELS_LIST"
        => end_ignored;
    "main/unknown-message/closes" ["M4.1"] Must
        "An unknown client message closes its channel"
        sends "message 999 with 4 bytes on a main channel"
        expects "the end of that connection"
        => unknown_message;
}

async fn init_first(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut main = client.link(Place::Source.name(), context.address(Place::Source), 0, MAIN).await?;
    let first = main.next("INIT").await.or_fail("M1.1")?;
    first.message().map_err(|error| main.unexpected("a message", error.to_string()))?;
    check(is!(first, Init), "M1.1", &main.name, "INIT as the first message", first.name())
}

async fn name_asked(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut session = context.connect_main(&client, Place::Source).await?;
    if !context.subject.is_started_afresh() {
        // Whether its host has given any is not known. They come at once, so they are there before the server closes.
        session.main.finish();
        session.main.closed_within(context.patience()).await?;
        return match session.main.taken.iter().any(|received| is!(received, Name | Uuid)) {
            true => Ok(()),
            false => Err(Stop::NotApplicable("its host may have given it neither name nor UUID".to_owned())),
        };
    }
    let (mut name, mut uuid) = (false, false);
    let both = session.main.until("NAME and UUID", |message| {
        name |= matches!(message, ServerMessage::Name(_));
        uuid |= matches!(message, ServerMessage::Uuid(_));
        (name && uuid).then_some(())
    });
    both.await.or_fail("M1.2")
}

async fn name_not_asked(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client().with_main(SEMI);
    let mut session = context.connect_main(&client, Place::Source).await?;
    session.list_channels().await?;
    let told = session.main.taken.iter().find(|received| is!(received, Name | Uuid));
    check_absent(told, "M1.3", &session.main, "neither NAME nor UUID")
}

async fn list_only_asked(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut session = context.connect_main(&client, Place::Source).await?;
    session.main.finish();
    session.main.closed_within(context.patience()).await?;
    let unasked = session.main.taken.iter().find(|received| is!(received, ChannelsList));
    check_absent(unasked, "M1.4", &session.main, "no CHANNELS_LIST without ATTACH_CHANNELS")
}

async fn listed_channels_link(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut session = context.connect_main(&client, Place::Source).await?;
    session.list_channels().await?;
    check(!session.offered.is_empty(), "M1.5", &session.main.name, "channels to link", "an empty CHANNELS_LIST")?;
    let address = context.address(Place::Source);
    for id in session.offered.clone() {
        let channel = client.link(Place::Source.name(), address, session.id, id).await.or_fail("M1.5")?;
        session.adopt(channel).await?;
    }
    Ok(())
}

async fn mini_headers(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut main = client.link(Place::Source.name(), context.address(Place::Source), 0, MAIN).await?;
    if main.headers() != HeaderKind::Mini {
        return Err(Stop::NotApplicable("the server lacks the capability mini-header".to_owned()));
    }
    until!(main, Init).await.or_fail("M3.1")
}

async fn full_headers(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client().with_common(&[CommonCapability::AUTH_SELECTION, CommonCapability::AUTH_SPICE]);
    let mut main = client.link(Place::Source.name(), context.address(Place::Source), 0, MAIN).await?;
    until!(main, Init).await.or_fail("M3.2")?;
    context.served = true;
    main.send(ClientMessage::AttachChannels);
    until!(main, ChannelsList).await.or_fail("M3.2")?;
    let serials: Vec<u64> = main.taken.iter().map(|received| received.serial).collect();
    let counted = serials.iter().copied().eq(1..=serials.len() as u64);
    check(counted, "M3.2", &main.name, "serials 1, 2, 3, …", format_args!("serials {serials:?}"))
}

async fn out_of_turn(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut session = context.connect_main(&client, Place::Source).await?;
    session.main.send(ClientMessage::AckSync(say::AckSync { generation: 7 }));
    send_out_of_turn(&session.main);
    session.list_channels().await.or_fail("M6")
}

/// Sends what answers nothing, and DISCONNECTING without leaving.
pub(super) fn send_out_of_turn(channel: &Channel) {
    channel.send(ClientMessage::Pong(say::Pong { id: 7, timestamp: 7 }));
    channel.send(ClientMessage::Ack);
    channel.send(ClientMessage::Disconnecting(say::Disconnecting { time_stamp: 7, reason: LinkError::OK }));
}

async fn end_ignored(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut session = context.connect_main(&client, Place::Source).await?;
    let before = session.main.taken.len();
    session.main.send(ClientMessage::MigrateEnd);
    session.list_channels().await.or_fail("M7")?;
    let again = session.main.taken[before..].iter().find(|received| is!(received, Init));
    check_absent(again, "M7", &session.main, "no second INIT")
}

async fn unknown_message(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut session = context.connect_main(&client, Place::Source).await?;
    session.main.send(ClientMessage::Unknown { id: 999, body: Data(&[0; 4]) });
    session.main.closed_within(context.patience()).await.or_fail("M4.1")?;
    Ok(())
}
