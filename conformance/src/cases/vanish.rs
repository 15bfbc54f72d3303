//! Clients that go, in every situation of a server and in several ways. Neither server may suffer, nor the guest, nor the next client.

use spice_migration::{ChannelType, message::ChannelId};

use super::{
    check,
    data::{BYTE, MUCH},
};
use crate::{
    case::{Case, Context, Level, OrFail, Stop, Verdict, run},
    context::{Place, Setup},
    peer::client::Session,
    situation::{GuestMove, Situation},
    subject::HostEvent,
};

/// How a client goes. All of its connections are closed in the end; this is what it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It closes main, and sees what becomes of the other channels.
    Main,
    /// The same with a reset.
    Reset,
    /// It closes this one, and sees what becomes of the others.
    Child(ChannelType),
    /// The same with a reset.
    ResetChild(ChannelType),
    /// It closes all at once.
    All,
}

pub(super) fn cases() -> Vec<Case> {
    let child = |channel_type| Way::Child(channel_type);
    let ways = [
        Way::Main,
        Way::Reset,
        child(ChannelType::DISPLAY),
        child(ChannelType::INPUTS),
        child(ChannelType::CURSOR),
        Way::ResetChild(ChannelType::INPUTS),
        Way::ResetChild(ChannelType::PORT),
        Way::All,
    ];
    let pairs = Situation::ALL.into_iter().flat_map(|situation| ways.map(|way| (situation, way)));
    let is_there = |(situation, way): &(Situation, Way)| {
        *situation != Situation::Linked || !matches!(way, Way::Child(_) | Way::ResetChild(_))
    };
    pairs.filter(is_there).map(|(situation, way)| case(situation, way)).chain([unread_case()]).collect()
}

fn case(situation: Situation, way: Way) -> Case {
    let (name, does) = match way {
        Way::Main => ("main".to_owned(), "closes main".to_owned()),
        Way::Reset => ("reset".to_owned(), "resets main".to_owned()),
        Way::Child(channel_type) => (channel_type.to_string(), format!("closes {channel_type}")),
        Way::ResetChild(channel_type) => (format!("{channel_type}-reset"), format!("resets {channel_type}")),
        Way::All => ("all".to_owned(), "closes everything at once".to_owned()),
    };
    let requirements: &'static [&'static str] = match (way, situation.guest()) {
        (Way::All, GuestMove::No) => &["S12", "P1"],
        (Way::All, GuestMove::Due) => &["S12", "S9.3", "H6", "T13", "P1"],
        (Way::All, GuestMove::Begun) => &["S12", "H6", "T13", "P1"],
        (_, GuestMove::No) => &["P3", "S12", "P1"],
        (_, GuestMove::Due) => &["P3", "S12", "S9.3", "H6", "T13", "P1"],
        (_, GuestMove::Begun) => &["P3", "S12", "H6", "T13", "P1"],
    };
    Case {
        id: format!("vanish/{}/{name}", situation.name()).into(),
        title: format!("A client that {does} strands nobody, in {}", situation.description()).into(),
        requirements,
        level: Level::Must,
        sent: format!("in {}: the client {does}, and then the rest", situation.description()).into(),
        expected: match situation.guest() {
            GuestMove::No => "no connection is kept, and a new client is served",
            _ => "the migration completes, both hosts are told, no connection is kept, and a new client is served",
        }
        .into(),
        waits: situation.may_last(),
        run: run(move |context| Box::pin(judge(context, situation, way))),
    }
}

fn unread_case() -> Case {
    Case {
        id: "vanish/session/port-unread".into(),
        title: "A port that a client closes is closed by the server, too, though its device has not read all".into(),
        requirements: &["P1"],
        level: Level::Must,
        sent: "a session with a port; 200 messages of a byte each on it, and its end".into(),
        expected: "the end of the port's connection at the server, while main is open".into(),
        waits: false,
        run: run(|context| Box::pin(judge_unread(context))),
    }
}

async fn judge_unread(context: &mut Context) -> Verdict {
    context.start_source(Setup { port_and_smartcard: true, ..Setup::NOTHING }).await?;
    let (client, address) = (context.client(), context.address(Place::Source));
    let session = context.connect_main(&client, Place::Source).await?;
    let port = ChannelId { channel_type: ChannelType::PORT, id: 0 };
    let mut port = client.link(Place::Source.name(), address, session.id, port).await?;
    port.next("a first message").await?;
    for _ in 0..MUCH {
        port.send(BYTE);
    }
    port.close().await;
    no_leaks(context, 1).await?;
    session.close().await;
    Ok(())
}

async fn judge(context: &mut Context, situation: Situation, way: Way) -> Verdict {
    let limit = match situation {
        // A source may let a client that has main's data leave channel by channel.
        Situation::Flushed => context.patience() + context.subject.migrate_timeout(),
        _ => situation.soon(context),
    };
    let port_and_smartcard = matches!(way, Way::ResetChild(ChannelType::PORT));
    let mut sessions = situation.reach_with(context, Setup { port_and_smartcard, ..Setup::NOTHING }).await?;
    match way {
        Way::Main | Way::Reset => {
            let Session { main, children, .. } = sessions.take(situation.place())?;
            if way == Way::Reset {
                main.reset().await;
            } else {
                main.close().await;
            }
            for mut child in children {
                child.closed_within(limit).await.or_fail("P3")?;
            }
        }
        Way::Child(channel_type) | Way::ResetChild(channel_type) => {
            let child = sessions.session(situation)?.take_child(channel_type)?;
            let open = context.host(situation.place()).connections();
            if matches!(way, Way::ResetChild(_)) {
                child.reset().await;
            } else {
                child.close().await;
            }
            // A link that is held need not be read.
            if !situation.holds(channel_type) {
                context.notices_an_end(situation.place(), open).await;
            }
            sessions.go_on(context, situation, None).await.or_fail("P3")?;
        }
        Way::All => {}
    }
    sessions.close().await;
    strands_nobody(context, situation.guest()).await
}

/// Moves the guest if it has not moved, and fails the case if somebody waits in vain for a client that has gone.
pub(super) async fn strands_nobody(context: &mut Context, guest: GuestMove) -> Verdict {
    hosts_are_told(context, guest).await?;
    if context.tells_connections() {
        no_leaks(context, 0).await?;
    }

    let (place, requirement) = match guest {
        GuestMove::No => (Place::Source, "S12"),
        _ => (Place::Target, "T13"),
    };
    let client = context.client();
    context.connect(&client, place).await.or_fail(requirement)?.close().await;
    Ok(())
}

/// Moves the guest if it has not moved, and fails the case if a host waits in vain for a client that has gone.
async fn hosts_are_told(context: &mut Context, guest: GuestMove) -> Verdict {
    let limit = context.subject.migrate_timeout() + context.patience();
    if guest == GuestMove::Due {
        context.migrate(Place::Source, Place::Target).await?;
    }
    if guest != GuestMove::No {
        context.happened(Place::Source, HostEvent::Stop, limit).await.or_fail("H6")?;
        context.happened(Place::Target, HostEvent::Resume, limit).await.or_fail("H6")?;
        let (told, limit) = if guest == GuestMove::Due { ("S9.3", context.soon()) } else { ("S12", limit) };
        context.happened(Place::Source, HostEvent::ClientMigrationCompleted, limit).await.or_fail(told)?;
        let twice = context.host(Place::Source).seen(HostEvent::Resume);
        check(!twice, "H6", Place::Source.name(), "a guest that runs at the target alone", "it resumed here")?;
    }
    Ok(())
}

/// Fails the case if a host keeps connections of clients that are gone, beside so many that are open.
pub(super) async fn no_leaks(context: &Context, open: usize) -> Verdict {
    if !context.tells_connections() {
        return Err(Stop::NotApplicable("nothing tells which connections the server keeps".to_owned()));
    }
    match context.leaks(open, context.patience()).await.into_iter().next() {
        Some(leak) => check(false, leak.requirement, &leak.connection, leak.expected, leak.got),
        None => Ok(()),
    }
}
