//! Links of the channels beside main: they belong to a session that is there, and no ticket is checked less on them.

use spice_migration::{ClientMessage, Data, message::client::MigrateDstDoSeamless};

use super::{
    SEMI, cases, check, check_absent,
    link::{bad_connection_id, ticket_refused},
    seamless::UNSUPPORTED_VERSION,
};
use crate::{
    case::{Context, OrFail, Verdict},
    context::{DISPLAY, INPUTS, Place, Setup},
    peer::client::{DISPLAY_INIT, Received, is, until},
    situation::Situation,
    subject::{HostEvent, Void},
};

cases! {
    "child/connection-id/replaced" ["L6.1"] Must
        "A channel of a session that another has replaced is refused"
        sends "two sessions, one after the other; a link of inputs with the connection id of the first"
        expects "link result BAD_CONNECTION_ID; the second session goes on"
        => replaced;
    "child/connection-id/before-main-at-target" ["L6.1"] Must
        "A channel that comes to a target before its main is refused, and its client loses nothing by it"
        sends "an announcement; a link of inputs at the target with the source's connection id; then a whole semi-seamless migration"
        expects "link result BAD_CONNECTION_ID, and a migration that completes"
        => before_main_at_target;
    "child/connection-id/unknown-at-target" ["L6.1"] Must
        "A channel of another session is refused by a target to which main is linked"
        sends "main linked at the target; a link of inputs with another connection id"
        expects "link result BAD_CONNECTION_ID; the client's session begins with its MIGRATE_END"
        => unknown_at_target;
    "child/connection-id/moved-away" ["L6.1"] Must
        "A channel of a session that has moved away is refused by the source"
        sends "a whole semi-seamless migration; a link of inputs at the source with the session's connection id"
        expects "link result BAD_CONNECTION_ID"
        => moved_away;
    "child/ticket/wrong" ["L5.1"] Must
        "A channel beside main is refused with a wrong ticket, too"
        sends "in a session: links of inputs with another password and an empty one, then with the right one"
        expects "PERMISSION_DENIED twice, then a channel that starts"
        => wrong_ticket;
    "child/ticket/wrong-at-target" ["L5.1"] Must
        "A migrating client's channels beside main are refused with a wrong ticket, too"
        sends "main linked at the target; links of inputs with another password and an empty one"
        expects "PERMISSION_DENIED twice; the client's session begins with its MIGRATE_END"
        => wrong_ticket_at_target;
    "child/ticket/expired" ["L5.5"] Must
        "A password whose time is over opens no channel beside main, either"
        sends "in a session whose host's password has expired since: a link of inputs with it"
        expects "PERMISSION_DENIED"
        => expired_ticket;
    "child/display/held" ["T2.1"] Must
        "A display that a target holds says nothing before MIGRATE_END, though DISPLAY_INIT has been sent on it"
        sends "main and display linked at the target; DISPLAY_INIT; MIGRATE_DST_DO_SEAMLESS with a version that there is none of"
        expects "MIGRATE_DST_SEAMLESS_NACK, and nothing else on main or display"
        => held_display;
}

const WITH_PASSWORD: Setup = Setup { password: true, ..Setup::NOTHING };

async fn replaced(context: &mut Context) -> Verdict {
    context.start_source(Setup::NOTHING).await?;
    let client = context.client();
    let mut first = context.connect_main(&client, Place::Source).await?;
    let mut second = context.connect_main(&client, Place::Source).await?;
    context.is_replaced(&mut first, context.patience()).await?;
    bad_connection_id(context, Place::Source, first.id).await?;
    second.list_channels().await.or_fail("L6.1")
}

async fn before_main_at_target(context: &mut Context) -> Verdict {
    let (source, target) = (Place::Source, Place::Target);
    context.start_pair(Setup::NOTHING).await?;
    let client = context.client().with_main(SEMI);
    let session = context.connect(&client, source).await?;
    context.announce(source, target).await?;
    bad_connection_id(context, target, session.id).await?;
    let prepared = context.follow(&client, session, target).await.or_fail("L6.1")?;
    context.complete(prepared, source, target).await.or_fail("L6.1")?.close().await;
    Ok(())
}

async fn unknown_at_target(context: &mut Context) -> Verdict {
    let mut sessions = Situation::Linked.reach(context).await?;
    let id = sessions.session(Situation::Linked)?.id;
    bad_connection_id(context, Place::Target, id ^ 1).await?;
    sessions.go_on(context, Situation::Linked, None).await.or_fail("L6.1")
}

async fn moved_away(context: &mut Context) -> Verdict {
    let mut sessions = Situation::Restarted.reach(context).await?;
    let id = sessions.session(Situation::Restarted)?.id;
    // Then the source has seen that its client has left.
    let patience = context.patience();
    context.happened(Place::Source, HostEvent::ClientMigrationCompleted, patience).await?;
    bad_connection_id(context, Place::Source, id).await
}

async fn wrong_ticket(context: &mut Context) -> Verdict {
    context.start_source(WITH_PASSWORD).await?;
    let client = context.client();
    let mut session = context.connect_main(&client, Place::Source).await?;
    for wrong in ["another", ""] {
        ticket_refused(context, "L5.1", Place::Source, INPUTS, session.id, wrong).await?;
    }
    let address = context.address(Place::Source);
    let inputs = client.link(Place::Source.name(), address, session.id, INPUTS).await?;
    session.adopt(inputs).await?;
    Ok(())
}

async fn wrong_ticket_at_target(context: &mut Context) -> Verdict {
    let mut sessions = Situation::Linked.reach_with(context, WITH_PASSWORD).await?;
    let id = sessions.session(Situation::Linked)?.id;
    for wrong in ["another", ""] {
        ticket_refused(context, "L5.1", Place::Target, INPUTS, id, wrong).await?;
    }
    sessions.go_on(context, Situation::Linked, None).await.or_fail("L5.1")
}

async fn expired_ticket(context: &mut Context) -> Verdict {
    context.start_source(WITH_PASSWORD).await?;
    let client = context.client();
    let session = context.connect_main(&client, Place::Source).await?;
    context.void_password(Place::Source, Void::Expired).await?;
    ticket_refused(context, "L5.5", Place::Source, INPUTS, session.id, &client.password).await
}

async fn held_display(context: &mut Context) -> Verdict {
    let mut sessions = Situation::Linked.reach(context).await?;
    let (client, address) = (context.client(), context.address(Place::Target));
    let session = sessions.session(Situation::Linked)?;
    let mut display = client.link(Place::Target.name(), address, session.id, DISPLAY).await?;
    let (id, body) = DISPLAY_INIT;
    display.send(ClientMessage::Unknown { id, body: Data(body) });
    // The answer shows that a server which serves its connections in turn has seen what came before.
    context.await_reply(Place::Target).await?;
    let main = &mut session.main;
    main.send(ClientMessage::MigrateDstDoSeamless(MigrateDstDoSeamless { src_version: UNSUPPORTED_VERSION }));
    until!(main, MigrateDstSeamlessNack).await?;
    let early = main.taken.iter().find(|received| is!(received, Init));
    check_absent(early, "T2.1", main, "no INIT before MIGRATE_END")?;
    let shown = display.arrived().next().map(Received::name);
    check(shown.is_none(), "T2.1", &display.name, "nothing before MIGRATE_END", shown.unwrap_or_default())
}
