//! Migrations that follow each other: a second destination before the first is reached, a target that becomes a source, and another
//! attempt after one that came to nothing.

use spice_migration::{ClientMessage, ServerMessage};

use super::{check, check_absent, clients::switched};
use crate::{
    case::{Case, Context, Level, OrFail, Scheme, Verdict, run},
    context::{Place, Setup},
    migration::{Prepared, relay, restart, seamless_version},
    peer::client::{Client, is, until},
    situation::{SEMI_AND_NAME, Situation},
    subject::{Destination, HostEvent},
};

/// How the first attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Failed,
    Cancelled,
}

/// Who is there for the second attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// The client of the first.
    Same,
    /// Another one.
    New,
    /// The client of the first, which does not answer this time.
    Silent,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for situation in [Situation::Connected, Situation::Agreed] {
        cases.push(Case {
            id: format!("repeat/second-destination/{}", situation.name()).into(),
            title: format!("Another destination replaces the first one for {}", situation.description()).into(),
            requirements: &["S10.1"],
            level: Level::Must,
            sent: format!("in {}: the host announces a third one; the client goes there", situation.description())
                .into(),
            expected: "MIGRATE_CANCEL, the new announcement, and a migration to the third host that completes".into(),
            waits: false,
            run: run(move |context| Box::pin(second_destination(context, situation))),
        });
    }
    for situation in [Situation::Announced, Situation::AnnouncedSeamless, Situation::ConnectError] {
        let answered = situation == Situation::ConnectError;
        cases.push(Case {
            id: format!("repeat/second-destination/{}", situation.name()).into(),
            title: format!("Another destination replaces the first one for {}", situation.description()).into(),
            requirements: if answered { &["S10.1"] } else { &["S10.3"] },
            level: Level::Must,
            sent: format!(
                "in {}: the host announces a third one; {}the client goes there",
                situation.description(),
                if answered { "" } else { "MIGRATE_CONNECT_ERROR if nothing comes at once; " }
            )
            .into(),
            expected: "the new announcement and no MIGRATE_CANCEL, and a migration to the third host that completes"
                .into(),
            waits: false,
            run: run(move |context| Box::pin(second_announcement(context, situation))),
        });
    }
    for situation in [Situation::GuestCame, Situation::GuestCameSeamless, Situation::Restarted, Situation::Resumed] {
        let early = !situation.serves();
        cases.push(Case {
            id: format!("repeat/chain/{}", situation.name()).into(),
            title: format!("The next destination may be given to {}", situation.description()).into(),
            requirements: if early { &["T9", "R3"] } else { &["R1"] },
            level: if early { Level::Should } else { Level::Must },
            sent: format!("in {}: the target announces a third host", situation.description()).into(),
            expected: "the announcement, once the client has arrived, and a working session at the third host".into(),
            waits: false,
            run: run(move |context| Box::pin(chain(context, situation))),
        });
    }
    for end in [End::Failed, End::Cancelled] {
        for seamless in [false, true] {
            cases.extend([Who::Same, Who::New, Who::Silent].map(|who| retry_case(end, seamless, who)));
        }
    }
    cases
}

fn retry_case(end: End, seamless: bool, who: Who) -> Case {
    let (end_name, ended) = match end {
        End::Failed => ("failed", "fails"),
        End::Cancelled => ("cancelled", "is cancelled"),
    };
    let scheme = if seamless { "seamless" } else { "semi-seamless" };
    let (name, requirements, then): (_, &'static [&'static str], _) = match who {
        Who::Same => ("same-client", &["R2"], "the same client"),
        Who::New => ("new-client", &["R2.2"], "a new client"),
        Who::Silent => ("silent-client", &["S4.4"], "the same client, which does not answer"),
    };
    Case {
        id: format!("repeat/retry/{end_name}-{scheme}-{name}").into(),
        title: format!("After a {scheme} migration that {ended} the next attempt works with {then}").into(),
        requirements,
        level: Level::Must,
        sent: format!("a {scheme} migration that {ended}; another attempt with {then}").into(),
        expected: match who {
            Who::Silent => "MIGRATE_SWITCH_HOST, and no MIGRATE",
            _ => "a migration that completes",
        }
        .into(),
        waits: who == Who::Silent,
        run: run(move |context| Box::pin(retry(context, end, seamless, who))),
    }
}

async fn second_destination(context: &mut Context, situation: Situation) -> Verdict {
    let (source, third) = (Place::Source, Place::Third);
    let requirement = "S10.1";
    let seamless = situation == Situation::Agreed;
    let mut sessions = situation.reach(context).await?;
    context.start(third, Setup { seamless, ..Setup::default() }).await?;
    let session = sessions.take(situation.place())?;
    let before = session.main.taken.len();
    let client = client(context, seamless);
    let prepared = context.prepare(&client, session, source, third).await.or_fail(requirement)?;
    let main = &prepared.source.main;
    let cancelled = main.taken[before..].iter().any(|received| is!(received, MigrateCancel));
    check(cancelled, requirement, &main.name, "MIGRATE_CANCEL before the new announcement", "it alone")?;
    context.complete(prepared, source, third).await.or_fail(requirement)?.close().await;
    sessions.close().await;
    Ok(())
}

/// Servers differ in whether they wait for the first answer, and both serve the client.
async fn second_announcement(context: &mut Context, situation: Situation) -> Verdict {
    let (source, third) = (Place::Source, Place::Third);
    let seamless = situation == Situation::AnnouncedSeamless;
    let requirement = if situation == Situation::ConnectError { "S10.1" } else { "S10.3" };
    let mut sessions = situation.reach(context).await?;
    context.start(third, Setup { seamless, ..Setup::NOTHING }).await?;
    let mut session = sessions.take(source)?;
    let client = client(context, seamless);
    let before = session.main.taken.len();
    context.announce(source, third).await?;
    // What the server says at once comes before this.
    session.list_channels().await?;
    let announcement = |message: &ServerMessage<'_>| Some((Destination::told(message)?, seamless_version(message)));
    let at_once = session.main.taken[before..].iter().find_map(|received| announcement(&received.message().ok()?));
    let (told, src_version) = match at_once {
        Some(told) => told,
        None => {
            if situation != Situation::ConnectError {
                session.main.send(ClientMessage::MigrateConnectError);
            }
            session.main.until("the new announcement", announcement).await.or_fail(requirement)?
        }
    };
    let cancelled = session.main.taken[before..].iter().find(|received| is!(received, MigrateCancel));
    check_absent(cancelled, requirement, &session.main, "no MIGRATE_CANCEL for a client that had not connected")?;
    let given = context.given_destination(third);
    check(told == given, requirement, &session.main.name, format_args!("{given:?}"), format_args!("{told:?}"))?;
    let prepared = context.arrive(&client, session, third, src_version).await.or_fail(requirement)?;
    context.complete(prepared, source, third).await.or_fail(requirement)?.close().await;
    Ok(())
}

async fn chain(context: &mut Context, situation: Situation) -> Verdict {
    let (target, third) = (Place::Target, Place::Third);
    let seamless = matches!(situation, Situation::GuestCameSeamless | Situation::Resumed);
    let requirement = if situation.serves() { "R1" } else { "T9" };
    let mut sessions = situation.reach_with(context, Setup { guest_first: true, ..Setup::NOTHING }).await?;
    context.start(third, Setup { seamless, ..Setup::default() }).await?;
    let mut session = sessions.take(situation.place())?;
    if situation.serves() {
        let client = client(context, seamless);
        let prepared = context.prepare(&client, session, target, third).await.or_fail("R1")?;
        context.complete(prepared, target, third).await.or_fail("R1")?.close().await;
        return Ok(());
    }
    let patience = context.patience();
    context.happened(target, HostEvent::Resume, patience).await?;
    let client = client(context, seamless);
    context.announce(target, third).await?;
    if seamless {
        relay(&mut sessions.take(Place::Source)?, &mut session).await?;
    } else {
        restart(&mut session).await.or_fail(requirement)?;
        session.start_children().await?;
    }
    let prepared = context.follow(&client, session, third).await.or_fail(requirement)?;
    let main = &prepared.source.main;
    let first =
        main.taken.iter().find(|received| is!(received, Init | MultiMediaTime | MigrateBegin | MigrateBeginSeamless));
    let early = first.filter(|received| is!(received, MigrateBegin | MigrateBeginSeamless));
    check_absent(early, requirement, main, "no announcement before the client has arrived")?;
    context.complete(prepared, target, third).await.or_fail("R3")?.close().await;
    Ok(())
}

async fn retry(context: &mut Context, end: End, seamless: bool, who: Who) -> Verdict {
    let (source, target) = (Place::Source, Place::Target);
    let setup = Setup { seamless, ..Setup::default() };
    let patience = context.patience();
    context.start_pair(setup).await?;
    let mut client = client(context, seamless);
    if who == Who::Silent {
        // A host may wait for the answer that does not come.
        client.patience += context.subject.migrate_timeout();
    }
    let session = context.connect(&client, source).await?;
    let Prepared { source: mut session, target: at_target, .. } =
        context.prepare(&client, session, source, target).await?;
    match end {
        End::Failed => {
            let host = context.host(source);
            host.migrate_to_nowhere().await?;
            host.wait_for(HostEvent::MigrationFailed, patience).await?;
            until!(session.main, MigrateCancel).await?;
            at_target.close().await;
            context.note_called_off(Scheme::Failed);
        }
        End::Cancelled => {
            context.cancel_migration().await?;
            until!(session.main, MigrateCancel).await?;
            at_target.close().await;
            context.note_called_off(Scheme::Cancelled);
            context.start(target, setup).await?;
        }
    }
    match who {
        Who::Same => {
            let prepared = context.prepare(&client, session, source, target).await.or_fail("R2")?;
            context.complete(prepared, source, target).await.or_fail("R2")?.close().await;
        }
        Who::New => {
            session.close().await;
            let session = context.connect(&client, source).await.or_fail("R2.2")?;
            let prepared = context.prepare(&client, session, source, target).await.or_fail("R2.2")?;
            context.complete(prepared, source, target).await.or_fail("R2.2")?.close().await;
        }
        Who::Silent => {
            context.announce(source, target).await?;
            match seamless {
                true => until!(session.main, MigrateBeginSeamless).await?,
                false => until!(session.main, MigrateBegin).await?,
            }
            context.migrate(source, target).await?;
            switched(&mut session.main).await.or_fail("S4.4")?;
            session.close().await;
        }
    }
    Ok(())
}

fn client(context: &Context, seamless: bool) -> Client {
    match seamless {
        true => context.client(),
        false => context.client().with_main(SEMI_AND_NAME),
    }
}
