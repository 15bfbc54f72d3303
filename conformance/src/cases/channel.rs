//! What clients do to the channels beside main, in every situation of a server: a channel that goes wrong costs itself, and nothing else.

use std::time::{Duration, Instant};

use spice_migration::{ChannelType, message::ChannelId};

use super::check;
use crate::{
    case::{Case, Context, Level, OrFail, Stop, Verdict, run},
    context::Setup,
    peer::client::{Channel, Client},
    situation::{Sessions, Situation},
};

/// How often a channel is linked and closed: spice-server 0.15.1 dies of the display's about one time in three.
const TIMES: usize = 20;

/// The same where a target has not started the display: there one time in three is one of a hundred.
const TIMES_UNSTARTED: usize = 300;

/// Between two attempts to link a channel whose last connection the server may not have seen the end of.
const AGAIN: Duration = Duration::from_millis(10);

/// Where a port is tried, too: on both hosts, before, during and after a migration.
const WITH_PORT: [Situation; 6] = [
    Situation::Session,
    Situation::Agreed,
    Situation::Flushed,
    Situation::Waiting,
    Situation::WaitingSeamless,
    Situation::Resumed,
];

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// It links the channel once more.
    Twice,
    /// It closes the channel, links it anew, says nothing on it, and a new client comes.
    Silent,
    /// It closes the channel, and again and again links it anew and closes it at once.
    Closed,
    /// It closes its own direction.
    HalfClosed,
}

pub(super) fn cases() -> Vec<Case> {
    let deeds = [Deed::Twice, Deed::Silent, Deed::Closed, Deed::HalfClosed];
    let channels = [ChannelType::DISPLAY, ChannelType::INPUTS, ChannelType::CURSOR, ChannelType::PORT];
    let mut cases = Vec::new();
    for situation in Situation::ALL {
        let tried = |channel_type: &ChannelType| *channel_type != ChannelType::PORT || WITH_PORT.contains(&situation);
        for channel_type in channels.into_iter().filter(tried) {
            // What is not linked has no direction to close.
            let possible = |deed: &Deed| situation != Situation::Linked || *deed != Deed::HalfClosed;
            cases.extend(deeds.into_iter().filter(possible).map(|deed| case(situation, channel_type, deed)));
        }
    }
    cases
}

fn case(situation: Situation, channel_type: ChannelType, deed: Deed) -> Case {
    let description = situation.description();
    let (name, sent, expected) = match deed {
        Deed::Twice => {
            let sent = format!("a second link of {channel_type} in {description}");
            ("twice", sent, "at most one of the two connections ends, and the session goes on")
        }
        Deed::Silent => {
            let sent =
                format!("in {description}: {channel_type} is linked anew and silent; then a new client links main");
            ("silent", sent, "the session goes on, and the new client is served at once")
        }
        Deed::Closed => {
            let sent = format!(
                "in {description}: {channel_type} is linked and closed at once, {} times",
                times(situation, channel_type)
            );
            ("closed", sent, "the session goes on")
        }
        Deed::HalfClosed => {
            let sent = format!("the end of the client's direction on {channel_type} in {description}");
            ("half-closed", sent, "the server closes the channel, and the session goes on")
        }
    };
    Case {
        id: format!("channel/{}/{channel_type}-{name}", situation.name()).into(),
        title: format!("A {channel_type} channel that is {name} costs no other, in {description}").into(),
        requirements: requirements(situation, deed),
        level: Level::Must,
        sent: sent.into(),
        expected: expected.into(),
        // spice-server 0.15.1 has everybody wait for such a display.
        waits: channel_type == ChannelType::DISPLAY
            && (deed == Deed::Silent || situation == Situation::GuestCameSeamless),
        run: run(move |context| Box::pin(judge(context, situation, channel_type, deed))),
    }
}

fn requirements(situation: Situation, deed: Deed) -> &'static [&'static str] {
    match deed {
        Deed::Twice if waits(situation) => &["T2.5"],
        Deed::Twice => &["L11"],
        Deed::Silent => &["P2"],
        Deed::Closed | Deed::HalfClosed => &["P3"],
    }
}

/// How often a channel is linked and closed.
fn times(situation: Situation, channel_type: ChannelType) -> usize {
    if (situation, channel_type) == (Situation::Linked, ChannelType::DISPLAY) { TIMES_UNSTARTED } else { TIMES }
}

/// Whether the server holds the channels beside main back until the client's MIGRATE_END.
fn waits(situation: Situation) -> bool {
    matches!(situation, Situation::Linked | Situation::Waiting | Situation::GuestCame)
}

async fn judge(context: &mut Context, situation: Situation, channel_type: ChannelType, deed: Deed) -> Verdict {
    let requirement = requirements(situation, deed)[0];
    let port_and_smartcard = channel_type == ChannelType::PORT;
    let mut sessions = situation.reach_with(context, Setup { port_and_smartcard, ..Setup::NOTHING }).await?;
    let there = situation != Situation::Linked;
    // What the case is about stays open for as long as it says.
    let mut linked = Vec::new();
    match deed {
        Deed::Twice => {
            if !there && let Some(first) = link(context, situation, &mut sessions, channel_type).await? {
                sessions.session(situation)?.children.push(first);
            }
            // A server may refuse it.
            linked.extend(link(context, situation, &mut sessions, channel_type).await?);
        }
        Deed::Silent => {
            if there {
                sessions.session(situation)?.take_child(channel_type)?.close().await;
            }
            linked.extend(link_anew(context, situation, &mut sessions, channel_type).await?);
            is_linked(!linked.is_empty(), situation)?;
        }
        Deed::Closed => {
            if there {
                sessions.session(situation)?.take_child(channel_type)?.close().await;
            }
            let mut linked = false;
            for _ in 0..times(situation, channel_type) {
                if let Some(channel) = link(context, situation, &mut sessions, channel_type).await? {
                    linked = true;
                    channel.close().await;
                }
            }
            is_linked(linked, situation)?;
        }
        Deed::HalfClosed => {
            let limit = situation.soon(context);
            let channel = sessions.channel(situation, channel_type)?;
            channel.finish();
            // Only then has the server noticed for sure. Of one that is not started yet, it need not before that.
            if !waits(situation) {
                channel.closed_within(limit).await.or_fail(requirement)?;
            }
        }
    }
    // Of two, either may stay.
    let lost = match deed {
        Deed::HalfClosed => Some(channel_type),
        Deed::Twice if !waits(situation) => Some(channel_type),
        _ => None,
    };
    sessions.go_on(context, situation, lost).await.or_fail(requirement)?;
    match deed {
        Deed::Twice => {
            // On its way, a seamless client says nothing.
            if !matches!(situation, Situation::WaitingSeamless | Situation::GuestCameSeamless | Situation::HalfResumed)
            {
                for second in &mut linked {
                    // A display that goes before it is started is another case's. A server may say nothing on it.
                    let _ = second.start().await;
                }
            }
            linked.extend(sessions.session(situation)?.take_child(channel_type));
            let ended = linked.iter_mut().filter_map(Channel::has_ended).count();
            check(ended < 2, requirement, &channel_type.to_string(), "one of the two to stay", "the end of both")?;
        }
        Deed::Silent => {
            let client = context.client();
            context.connect_main(&client, situation.place()).await.or_fail(requirement)?;
        }
        Deed::HalfClosed if waits(situation) => {
            let limit = situation.soon(context);
            sessions.channel(situation, channel_type)?.closed_within(limit).await.or_fail(requirement)?;
        }
        Deed::Closed | Deed::HalfClosed => {}
    }
    Ok(())
}

/// A server that refuses every link of a session that it serves keeps the case from being judged.
fn is_linked(linked: bool, situation: Situation) -> Result<(), Stop> {
    match linked || !situation.serves() {
        true => Ok(()),
        false => Err(Stop::Inconclusive("the channel cannot be linked anew".to_owned())),
    }
}

/// Links a channel of a session; `None` if the server refuses it, or closes. Should the host have died, what follows finds that.
async fn link(
    context: &mut Context,
    situation: Situation,
    sessions: &mut Sessions,
    channel_type: ChannelType,
) -> Result<Option<Channel>, Stop> {
    let client = Client { patience: situation.patience(context), ..context.client() };
    let (place, address) = (situation.place(), context.address(situation.place()));
    let id = sessions.session(situation)?.id;
    let channel = ChannelId { channel_type, id: 0 };
    match client.link(place.name(), address, id, channel).await {
        Ok(channel) => Ok(Some(channel)),
        Err(unexpected) if unexpected.got.starts_with("nothing within") => Err(unexpected.into()),
        Err(_) => Ok(None),
    }
}

/// Links a channel whose last connection has just been closed. In a session that has been sent away the server may refuse.
async fn link_anew(
    context: &mut Context,
    situation: Situation,
    sessions: &mut Sessions,
    channel_type: ChannelType,
) -> Result<Option<Channel>, Stop> {
    let deadline = Instant::now() + context.patience();
    loop {
        let linked = link(context, situation, sessions, channel_type).await?;
        if linked.is_some() || !situation.serves() || Instant::now() > deadline {
            return Ok(linked);
        }
        tokio::time::sleep(AGAIN).await;
    }
}
