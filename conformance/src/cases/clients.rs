//! Another client, in every situation of a server: it takes the place of the one that is there, and loses nothing by it; one that is
//! refused takes nobody's.

use spice_migration::{ClientMessage, ServerMessage};

use super::{SEMI, check, check_absent, link::ticket_refused};
use crate::{
    case::{Case, Context, Level, OrFail, Unexpected, Verdict, run},
    context::{MAIN, Place, Setup},
    migration::restart,
    peer::client::{Channel, Session, is, until},
    situation::{GuestMove, Situation},
    subject::{Destination, HostEvent, Void},
};

/// The session of a client that comes from another source than the one that the case knows.
const OTHER_SESSION: u32 = 0x5eed_0001;

/// Who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Newcomer {
    /// A client that begins a session.
    New,
    /// A client that comes from a source, while the other is there.
    Arriving,
    /// The same when the other is gone.
    Successor,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for situation in Situation::ALL {
        cases.push(case(situation, Newcomer::New));
        if situation.place() == Place::Target {
            cases.push(case(situation, Newcomer::Arriving));
            cases.push(case(situation, Newcomer::Successor));
        }
        if situation.tells_whether_it_goes_on() {
            cases.push(Case {
                id: format!("clients/{}/refused", situation.name()).into(),
                title: format!("A client that is refused takes nobody's place in {}", situation.description()).into(),
                requirements: &["L7.4"],
                level: Level::Must,
                sent: format!(
                    "in {}: a link of main without a ticket, which is left open, and one with a wrong ticket",
                    situation.description()
                )
                .into(),
                expected: "PERMISSION_DENIED for the latter; the session that is there goes on".into(),
                waits: false,
                run: run(move |context| Box::pin(refused(context, situation))),
            });
        }
    }
    for (name, ticket) in [("wrong", "another"), ("missing", "")] {
        cases.push(Case {
            id: format!("clients/ticket/{name}-at-target").into(),
            title: format!("A migrating client whose ticket is {name} is refused, and comes in with the right one")
                .into(),
            requirements: &["L5.1"],
            level: Level::Must,
            sent: format!(
                "an announcement; a link of main at the target with a ticket of {ticket:?}, then with the right one"
            )
            .into(),
            expected: "PERMISSION_DENIED, then link result OK, and a migration that completes".into(),
            waits: false,
            run: run(move |context| Box::pin(wrong_ticket(context, ticket))),
        });
    }
    cases.push(Case {
        id: "clients/ticket/expired-at-target".into(),
        title: "A migrating client whose ticket has expired is refused, and told at the source how it goes on".into(),
        requirements: &["L5.5", "S4.3"],
        level: Level::Must,
        sent: "an announcement; a link of main at the target, whose password has expired; MIGRATE_CONNECT_ERROR; the VM is migrated"
            .into(),
        expected: "PERMISSION_DENIED, then MIGRATE_SWITCH_HOST".into(),
        waits: false,
        run: run(|context| Box::pin(expired_ticket(context))),
    });
    cases
}

fn case(situation: Situation, newcomer: Newcomer) -> Case {
    let (name, who) = match newcomer {
        Newcomer::New => ("new", "A new client"),
        Newcomer::Arriving => ("arriving", "Another migrating client"),
        Newcomer::Successor => ("successor", "Another migrating client, when the first is gone,"),
    };
    let description = situation.description();
    Case {
        id: format!("clients/{}/{name}", situation.name()).into(),
        title: format!("{who} is served, in place of that of {description}").into(),
        requirements: requirements(situation, newcomer),
        level: Level::Must,
        sent: format!("in {description}: links of another client").into(),
        expected: match newcomer {
            Newcomer::Successor => "INIT for its MIGRATE_END, and channels that start",
            _ => "the end of the first client's connections; a session for the other",
        }
        .into(),
        waits: situation == Situation::GuestCameSeamless,
        run: run(move |context| Box::pin(judge(context, situation, newcomer))),
    }
}

/// The first is about the client that was there, the last about the one that comes.
fn requirements(situation: Situation, newcomer: Newcomer) -> &'static [&'static str] {
    match (newcomer, situation.place(), situation) {
        (Newcomer::Successor, ..) => &["T13"],
        (_, Place::Source, Situation::Agreed) => &["L7.1", "S1.7", "S4.4"],
        (_, Place::Source, _) if situation.guest() == GuestMove::Due => &["L7.1", "S1.7"],
        (_, Place::Source, _) if situation.guest() == GuestMove::Begun => &["L7.1", "S12"],
        (_, Place::Source, _) | (_, _, Situation::Restarted | Situation::Resumed) => &["L7.1"],
        _ => &["L7.2"],
    }
}

async fn judge(context: &mut Context, situation: Situation, newcomer: Newcomer) -> Verdict {
    let patience = context.patience();
    let place = situation.place();
    let requirement = requirements(situation, newcomer)[0];
    let mut sessions = situation.reach(context).await?;
    let mut first = sessions.take(situation.place())?;
    let offered = std::mem::take(&mut first.offered);
    let (id, address) = (OTHER_SESSION, context.address(place));
    let mut client = context.client().with_main(SEMI);
    // While the display of spice-server 0.15.1 waits for its data, nobody is served; that is P2.
    client.patience += context.subject.migrate_timeout();
    // A client that has been sent away is dropped in the end, whoever comes.
    let soon = context.soon();
    let mut kept = None;
    if newcomer == Newcomer::Successor {
        first.close().await;
    } else {
        kept = Some(first);
    }
    let moved_away = place == Place::Source && situation.guest() == GuestMove::Begun;
    let mut session = match newcomer {
        // It may be sent on at once.
        Newcomer::New if moved_away => context.connect_main(&client, place).await.or_fail(requirement)?,
        Newcomer::New => context.connect(&client, place).await.or_fail(requirement)?,
        Newcomer::Arriving | Newcomer::Successor => {
            let main = client.link(place.name(), address, id, MAIN).await.or_fail(requirement)?;
            let mut session = Session { id, main, children: Vec::new(), offered };
            client.connect_children(place.name(), address, &mut session).await.or_fail(requirement)?;
            restart(&mut session).await.or_fail(requirement)?;
            session.start_children().await.or_fail(requirement)?;
            session
        }
    };
    if !moved_away {
        session.list_channels().await.or_fail(requirement)?;
    }
    if let Some(mut first) = kept {
        context.is_replaced(&mut first, soon).await.or_fail(requirement)?;
        for channel in first.channels() {
            channel.closed_within(soon).await.or_fail(requirement)?;
        }
    }
    if situation.guest() == GuestMove::Due && place == Place::Source {
        return newcomer_is_sent(context, situation, session).await;
    }
    session.close().await;
    if moved_away {
        let limit = patience + context.subject.migrate_timeout();
        context.happened(Place::Source, HostEvent::ClientMigrationCompleted, limit).await.or_fail("S12")?;
    }
    Ok(())
}

/// A client that came after the destination was given follows the guest without having been asked.
async fn newcomer_is_sent(context: &mut Context, situation: Situation, mut session: Session) -> Verdict {
    let limit = context.patience() + context.subject.migrate_timeout();
    let told = session.main.taken.iter().find(|received| is!(received, MigrateBegin | MigrateBeginSeamless));
    check_absent(told, "S1.7", &session.main, "no announcement for one that came later")?;
    context.migrate(Place::Source, Place::Target).await?;
    let requirement = if situation == Situation::Agreed { "S4.4" } else { "S1.7" };
    let sent = switched(&mut session.main).await;
    let given = context.given_destination(Place::Target);
    let asked = session.main.taken.iter().find(|received| is!(received, MigrateBegin | MigrateBeginSeamless));
    check_absent(asked, "S1.7", &session.main, "no announcement for one that came later")?;
    let told = sent.or_fail(requirement)?;
    check(told == given, "S1.7", &session.main.name, format_args!("{given:?}"), format_args!("{told:?}"))?;
    session.close().await;
    context.happened(Place::Source, HostEvent::ClientMigrationCompleted, limit).await.or_fail(requirement)?;
    let client = context.client();
    context.connect(&client, Place::Target).await.or_fail(requirement)?.close().await;
    Ok(())
}

/// Waits for MIGRATE_SWITCH_HOST, in vain once another scheme is completed. Returns where it sends the client.
pub(super) async fn switched(main: &mut Channel) -> Result<Destination, Unexpected> {
    let completes = |message: &ServerMessage<'_>| match message {
        ServerMessage::MigrateSwitchHost(_) => Destination::told(message).map(Ok),
        ServerMessage::Migrate(_) => Some(Err("MIGRATE")),
        ServerMessage::MigrateEnd => Some(Err("MIGRATE_END")),
        _ => None,
    };
    match main.until("MIGRATE_SWITCH_HOST", completes).await? {
        Ok(destination) => Ok(destination),
        Err(other) => Err(main.unexpected("MIGRATE_SWITCH_HOST", other)),
    }
}

async fn refused(context: &mut Context, situation: Situation) -> Verdict {
    let place = situation.place();
    let mut sessions = situation.reach_with(context, Setup { password: true, ..Setup::NOTHING }).await?;
    let (client, address) = (context.client(), context.address(place));
    let mut unfinished = client.open(place.name(), MAIN, address).await?;
    unfinished.request(&client.request(0, MAIN)).await?;
    unfinished.reply().await?;
    ticket_refused(context, "L5.1", place, MAIN, 0, "another").await?;
    sessions.go_on(context, situation, None).await.or_fail("L7.4")?;
    drop(unfinished);
    Ok(())
}

async fn wrong_ticket(context: &mut Context, ticket: &str) -> Verdict {
    let (source, target) = (Place::Source, Place::Target);
    context.start_pair(Setup { password: true, ..Setup::default() }).await?;
    let client = context.client().with_main(SEMI);
    let session = context.connect(&client, source).await?;
    ticket_refused(context, "L5.1", target, MAIN, session.id, ticket).await?;
    let prepared = context.prepare(&client, session, source, target).await?;
    context.complete(prepared, source, target).await?.close().await;
    Ok(())
}

async fn expired_ticket(context: &mut Context) -> Verdict {
    let (source, target) = (Place::Source, Place::Target);
    context.start_pair(Setup { password: true, ..Setup::default() }).await?;
    let client = context.client().with_main(SEMI);
    let mut session = context.connect(&client, source).await?;
    context.announce(source, target).await?;
    until!(session.main, MigrateBegin).await?;
    context.void_password(target, Void::Expired).await?;
    ticket_refused(context, "L5.5", target, MAIN, session.id, &client.password).await?;
    session.main.send(ClientMessage::MigrateConnectError);
    session.list_channels().await?;
    context.migrate(source, target).await?;
    switched(&mut session.main).await.or_fail("S4.3")?;
    session.close().await;
    Ok(())
}
