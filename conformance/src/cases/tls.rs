//! Hosts that demand TLS, and hosts that refuse it.

use spice_migration::{
    ClientMessage,
    caps::MainCapability,
    link::{AuthMechanism, LinkError},
    message::{ChannelId, client::MigrateDstDoSeamless},
    state::VERSION,
};

use super::{
    SEMI, cases, check,
    clients::switched,
    link::{heard_behind_ticket, mechanism_refused, with_mechanism},
};
use crate::{
    case::{Context, OrFail, Stop, Unexpected, Verdict},
    context::{INPUTS, MAIN, Place, Setup},
    migration::Prepared,
    peer::{
        client::{Client, RawLink, Session, until},
        tls::connector,
    },
    subject::{Destination, Security},
};

cases! {
    "tls/link/need-secured" ["L4"] Must
        "A plaintext link is refused with NEED_SECURED where TLS is demanded"
        sends "a plaintext link of main to a host that demands TLS of every channel"
        expects "a link reply with NEED_SECURED"
        => need_secured;
    "tls/link/child-need-secured" ["L4"] Must
        "A plaintext link beside a session over TLS is refused with NEED_SECURED where TLS is demanded"
        sends "main over TLS to a host that demands it of every channel; a plaintext link of inputs of that session"
        expects "a link reply with NEED_SECURED"
        => child_need_secured;
    "tls/link/need-unsecured" ["L4"] Must
        "A link over TLS is refused with NEED_UNSECURED where plaintext is demanded"
        sends "a link of main over TLS to a host that demands plaintext of every channel"
        expects "a link reply with NEED_UNSECURED"
        => need_unsecured;
    "tls/link/session" ["L4.2"] Must
        "A session over TLS is served as one in plaintext"
        sends "links of all channels over TLS, and ATTACH_CHANNELS"
        expects "INIT, CHANNELS_LIST, and channels that start"
        => session;
    "tls/link/behind-ticket" ["L9.2"] Should
        "What a client says without awaiting the link result is heard over TLS, too"
        sends "a link of inputs over TLS with four MOUSE_MOTION in the record of the ticket"
        expects "link result OK, and MOUSE_MOTION_ACK"
        => behind_ticket;
    "tls/mechanism/sasl" ["L5.3"] Must
        "SASL is refused over TLS, too, where the host has not enabled it"
        sends "AUTH_SASL as mechanism, over TLS, to a host that does not offer it"
        expects "a second link reply with INVALID_DATA, then the end of the connection"
        => sasl;
    "tls/mechanism/sasl-anonymous" ["L5.8"] Must
        "Nobody gets by a host's password with a mechanism that it has not enabled"
        sends "AUTH_SASL as mechanism, over TLS, to a host that demands a ticket; then the start of ANONYMOUS"
        expects "anything but link result OK"
        => anonymous;
    "tls/announcement/begin" ["S1.4"] Must
        "MIGRATE_BEGIN names TLS port and certificate subject as the host gave them"
        sends "a session of a client with SEMI_SEAMLESS_MIGRATE; the host announces a target with a TLS port and a subject alone"
        expects "MIGRATE_BEGIN with both, and no plaintext port"
        => begin;
    "tls/announcement/host-name" ["S1.4"] Must
        "A target is announced by the name that the host gave: its certificate may know no other"
        sends "a session of a client with SEMI_SEAMLESS_MIGRATE; the host announces a target by name, with a TLS port and no subject"
        expects "MIGRATE_BEGIN with that name, and no subject"
        => host_name;
    "tls/announcement/begin-seamless" ["S1.4"] Must
        "MIGRATE_BEGIN_SEAMLESS names TLS port and certificate subject as the host gave them"
        sends "a session of a client with every capability; the host announces a target with a TLS port and a subject alone"
        expects "MIGRATE_BEGIN_SEAMLESS with both, and no plaintext port"
        => begin_seamless;
    "tls/announcement/switch-host" ["S1.4"] Must
        "SWITCH_HOST names TLS port and certificate subject as the host gave them"
        sends "a session of a client without migration capabilities; the VM is migrated"
        expects "MIGRATE_SWITCH_HOST with both, and no plaintext port"
        => switch_host;
    "tls/migration/semi-seamless" ["L4.2"] Must
        "A semi-seamless migration between hosts that demand TLS goes as any other"
        sends "a whole semi-seamless migration over TLS"
        expects "a session that works at the target"
        => semi_seamless;
    "tls/migration/seamless" ["L4.2"] Must
        "A seamless migration between hosts that demand TLS goes as any other"
        sends "a whole seamless migration over TLS"
        expects "a session that works at the target"
        => seamless;
    "tls/migration/plaintext-first" ["L4"] Must
        "A client that tries plaintext at a target that demands TLS loses nothing by it"
        sends "a plaintext link of main to the target; then a whole semi-seamless migration over TLS"
        expects "a link reply with NEED_SECURED, and a session that works at the target"
        => plaintext_first;
    "tls/migration/behind-ticket" ["L9.2"] Should
        "MIGRATE_DST_DO_SEAMLESS is heard in the record of the ticket"
        sends "a link of main to the target over TLS with MIGRATE_DST_DO_SEAMLESS in the record of the ticket"
        expects "link result OK, and MIGRATE_DST_SEAMLESS_ACK"
        => asked_behind_ticket;
    "tls/migration/other-subject" ["S4.3"] Must
        "A client that does not trust the target is told at the end where the guest is"
        sends "an announcement with a subject that is not the target's; MIGRATE_CONNECT_ERROR; the VM is migrated"
        expects "MIGRATE_SWITCH_HOST"
        => other_subject;
}

/// More than any list of mechanisms has, and less than the magic as a number.
const MAX_MECHANISMS: u32 = 1 << 16;

const SECURED: Setup = Setup { security: Security::Required, ..Setup::NOTHING };

const WITH_PASSWORD: Setup = Setup { password: true, ..SECURED };

async fn need_secured(context: &mut Context) -> Verdict {
    context.start_source(SECURED).await?;
    refused_in_plaintext(context, Place::Source, 0, MAIN).await
}

async fn child_need_secured(context: &mut Context) -> Verdict {
    context.start_source(SECURED).await?;
    let client = context.client();
    let session = context.connect_main(&client, Place::Source).await?;
    refused_in_plaintext(context, Place::Source, session.id, INPUTS).await
}

async fn need_unsecured(context: &mut Context) -> Verdict {
    context.start_source(Setup { security: Security::Refused, ..Setup::NOTHING }).await?;
    let mut client = context.client();
    let unusable = |error: crate::peer::tls::TlsError| Stop::Inconclusive(error.to_string());
    client.tls = Some(connector(&context.directory.path().join("x509")).map_err(unusable)?);
    let Some(address) = context.host(Place::Source).spice_tls() else {
        return Err(Stop::NotApplicable("the server has no TLS port that is known".to_owned()));
    };
    let mut link = client.open(Place::Source.name(), MAIN, address).await?;
    link.request(&client.request(0, MAIN)).await?;
    let reply = link.reply().await.or_fail("L4")?;
    check(reply.error == LinkError::NEED_UNSECURED, "L4", link.name(), LinkError::NEED_UNSECURED, reply.error)
}

/// A plaintext link where TLS is due.
async fn refused_in_plaintext(context: &mut Context, place: Place, connection_id: u32, channel: ChannelId) -> Verdict {
    let client = Client { tls: None, ..context.client() };
    let address = context.host(place).spice();
    let mut link = client.open(place.name(), channel, address).await?;
    link.request(&client.request(connection_id, channel)).await?;
    let reply = link.reply().await.or_fail("L4")?;
    check(reply.error == LinkError::NEED_SECURED, "L4", link.name(), LinkError::NEED_SECURED, reply.error)
}

async fn session(context: &mut Context) -> Verdict {
    context.start_source(SECURED).await?;
    let client = context.client();
    let mut session = context.connect(&client, Place::Source).await.or_fail("L4.2")?;
    session.list_channels().await.or_fail("L4.2")
}

async fn sasl(context: &mut Context) -> Verdict {
    mechanism_refused(context, WITH_PASSWORD, AuthMechanism::SASL).await
}

async fn anonymous(context: &mut Context) -> Verdict {
    let mut link = with_mechanism(context, WITH_PASSWORD, AuthMechanism::SASL).await?;
    // The length of a list of mechanisms, or the magic of a link reply.
    let mut word = [0; 4];
    let answered = link.read("an answer to the mechanism", &mut word).await;
    let length = u32::from_le_bytes(word);
    // How it is refused is L5.3.
    if answered.is_err() || length > MAX_MECHANISMS {
        return Ok(());
    }
    if length == 0 {
        // An empty list, or link result OK: then a session begins.
        let begins = link.read("the end", &mut word).await.is_ok();
        return check(!begins, "L5.8", link.name(), "a client that is refused", "link result OK, and a first message");
    }
    let mut mechanisms = vec![0; length as usize];
    link.read("a list of mechanisms", &mut mechanisms).await?;
    // Its name, and what it begins with: who the client says it is.
    let start = [b"\x09\0\0\0ANONYMOUS".as_slice(), b"\x02\0\0\0x\0"].concat();
    link.send("the start of ANONYMOUS", &start).await?;
    let ok = is_let_in(&mut link).await.unwrap_or(false);
    let got = format!("link result OK, without the password; offered were {}", mechanisms.escape_ascii());
    check(!ok, "L5.8", link.name(), "a client that is refused", got)
}

/// Whether a server takes the start of a mechanism of SASL for the whole of it: it says what it likes, that the mechanism is complete, and
/// link result OK.
async fn is_let_in(link: &mut RawLink) -> Result<bool, Unexpected> {
    const AWAITED: &str = "an answer to ANONYMOUS";
    let (mut word, mut complete) = ([0; 4], [0]);
    link.read(AWAITED, &mut word).await?;
    let said = u32::from_le_bytes(word);
    link.read(AWAITED, &mut vec![0; said.min(MAX_MECHANISMS) as usize]).await?;
    link.read(AWAITED, &mut complete).await?;
    link.read(AWAITED, &mut word).await?;
    Ok(said <= MAX_MECHANISMS && complete == [1] && LinkError(u32::from_le_bytes(word)) == LinkError::OK)
}

async fn behind_ticket(context: &mut Context) -> Verdict {
    context.start_source(SECURED).await?;
    heard_behind_ticket(context).await
}

async fn begin(context: &mut Context) -> Verdict {
    announced_as_given(context, SECURED, SEMI).await
}

async fn host_name(context: &mut Context) -> Verdict {
    let (_, mut session) = connected(context).await?;
    let given =
        Destination { host: "localhost".to_owned(), cert_subject: None, ..context.given_destination(Place::Target) };
    context.host(Place::Source).migrate_info(&given).await?;
    let told = session.main.until("MIGRATE_BEGIN", Destination::told).await?;
    check(told == given, "S1.4", &session.main.name, format_args!("{given:?}"), format_args!("{told:?}"))
}

async fn begin_seamless(context: &mut Context) -> Verdict {
    announced_as_given(context, Setup { seamless: true, ..SECURED }, MainCapability::KNOWN).await
}

async fn switch_host(context: &mut Context) -> Verdict {
    announced_as_given(context, SECURED, &[]).await
}

async fn announced_as_given(context: &mut Context, setup: Setup, capabilities: &[MainCapability]) -> Verdict {
    context.start_pair(setup).await?;
    let client = context.client().with_main(capabilities);
    let mut session = context.connect(&client, Place::Source).await?;
    context.announce(Place::Source, Place::Target).await?;
    if capabilities.is_empty() {
        context.migrate(Place::Source, Place::Target).await?;
    }
    let told = session.main.until("a destination", Destination::told).await?;
    let given = context.given_destination(Place::Target);
    check(told == given, "S1.4", &session.main.name, format_args!("{given:?}"), format_args!("{told:?}"))
}

async fn semi_seamless(context: &mut Context) -> Verdict {
    let (client, session) = connected(context).await.or_fail("L4.2")?;
    let prepared = context.prepare(&client, session, Place::Source, Place::Target).await;
    works_at_target(context, prepared.or_fail("L4.2")?).await.or_fail("L4.2")
}

async fn seamless(context: &mut Context) -> Verdict {
    context.start_pair(Setup { seamless: true, ..SECURED }).await?;
    let client = context.client();
    let session = context.connect(&client, Place::Source).await.or_fail("L4.2")?;
    let prepared = context.prepare(&client, session, Place::Source, Place::Target).await;
    works_at_target(context, prepared.or_fail("L4.2")?).await.or_fail("L4.2")
}

async fn plaintext_first(context: &mut Context) -> Verdict {
    let (client, session) = connected(context).await?;
    context.announce(Place::Source, Place::Target).await?;
    refused_in_plaintext(context, Place::Target, session.id, MAIN).await?;
    let prepared = context.follow(&client, session, Place::Target).await.or_fail("L4")?;
    works_at_target(context, prepared).await.or_fail("L4")
}

async fn asked_behind_ticket(context: &mut Context) -> Verdict {
    context.start_pair(Setup { seamless: true, ..SECURED }).await?;
    let client = context.client();
    let mut session = context.connect(&client, Place::Source).await?;
    context.announce(Place::Source, Place::Target).await?;
    until!(session.main, MigrateBeginSeamless).await?;
    let address = context.address(Place::Target);
    let request = ClientMessage::MigrateDstDoSeamless(MigrateDstDoSeamless { src_version: VERSION });
    let hasty = Client { early: vec![request], ..client };
    let mut target = hasty.connect_migrating(Place::Target.name(), address, &session).await.or_fail("L9.2")?;
    until!(target.main, MigrateDstSeamlessAck).await.or_fail("L9.2")
}

/// Two hosts that demand TLS, and a session at the source.
async fn connected(context: &mut Context) -> Result<(Client, Session), Stop> {
    context.start_pair(SECURED).await?;
    let client = context.client().with_main(SEMI);
    let session = context.connect(&client, Place::Source).await?;
    Ok((client, session))
}

async fn works_at_target(context: &mut Context, prepared: Prepared) -> Result<(), Stop> {
    let mut session = context.complete(prepared, Place::Source, Place::Target).await?;
    session.list_channels_when_migrated().await?;
    session.close().await;
    Ok(())
}

async fn other_subject(context: &mut Context) -> Verdict {
    let (_, mut session) = connected(context).await?;
    let given =
        Destination { cert_subject: Some("CN=somebody else".to_owned()), ..context.given_destination(Place::Target) };
    context.host(Place::Source).migrate_info(&given).await?;
    until!(session.main, MigrateBegin).await?;
    session.main.send(ClientMessage::MigrateConnectError);
    session.list_channels().await?;
    context.migrate(Place::Source, Place::Target).await?;
    switched(&mut session.main).await.or_fail("S4.3")?;
    session.close().await;
    Ok(())
}
