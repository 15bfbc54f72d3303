//! The link stage.

use std::time::Duration;

use spice_migration::{
    ChannelType,
    caps::CommonCapability,
    limits,
    link::{AuthMechanism, LINK_HEADER_LEN, LINK_MESSAGE_LEN, LinkError, LinkHeader, PUBLIC_KEY_LEN, TICKET_LEN},
    message::ChannelId,
};

use super::{
    cases,
    seamless::{MOTION_BUNCH, MOUSE_MOTION, until_acknowledged},
};
use crate::{
    case::{Context, OrFail, Stop, Unexpected, Verdict, check},
    context::{INPUTS, MAIN, Place, Setup},
    peer::{
        client::{Client, LinkRequest, RawLink},
        ticket,
    },
    subject::Void,
};

cases! {
    "link/magic/refused" ["L1.1"] Must
        "A link header with a wrong magic is refused with INVALID_MAGIC"
        sends "a link header whose magic is `XEDQ`, and a link message"
        expects "a whole link reply with INVALID_MAGIC, then the end of the connection"
        => wrong_magic;
    "link/magic/at-once" ["L1.2"] Must
        "The magic is checked as soon as its four bytes are there"
        sends "the four bytes `XEDQ` and nothing more"
        expects "a link reply"
        => wrong_magic_alone;
    "link/version/major" ["L2.1"] Must
        "Another major version is refused with VERSION_MISMATCH"
        sends "a link header of version 3.2, and a link message"
        expects "a link reply with VERSION_MISMATCH, then the end of the connection"
        => other_major;
    "link/version/minor" ["L2.2"] Must
        "The minor version is not checked"
        sends "a link header of version 2.99, and a link message"
        expects "a link reply with OK"
        => other_minor;
    "link/size/small" ["L3.1"] Must
        "A link message too small for its fixed part is refused with INVALID_DATA"
        sends "link headers that announce 17, 1 and 0 bytes, and as many; and one of 18 bytes, which has no capability words"
        expects "a link reply with INVALID_DATA, then the end of the connection; of the last OK"
        => small_size;
    "link/size/large" ["L3.2"] Must
        "A link message of more than 4096 bytes is refused with INVALID_DATA"
        sends "link headers that announce 4097, 2^31 and 2^32 - 1 bytes"
        expects "a link reply with INVALID_DATA, then the end of the connection"
        => large_size;
    "link/capabilities/too-many" ["L3.3"] Must
        "More than 1024 capability words are refused with INVALID_DATA"
        sends "link messages with num_common_caps or num_channel_caps = 1025 or 2^30"
        expects "a link reply with INVALID_DATA, then the end of the connection"
        => too_many_words;
    "link/capabilities/outside" ["L3.4"] Must
        "Capability words that lie outside the message are refused with INVALID_DATA"
        sends "link messages with two words and num_channel_caps = 2, and with caps_offset = 0, 17, 25, 26, 2^31 or 2^32 - 1"
        expects "a link reply with INVALID_DATA, then the end of the connection"
        => words_outside;
    "link/message/gaps" ["L3.5"] Should
        "Bytes between the fixed part and the capability words, and behind these, are skipped"
        sends "a link message with three bytes before its words and five behind them"
        expects "a link reply with OK and link result OK"
        => gaps;
    "link/reply/public-key" ["L8.1"] Must
        "The link reply carries a 1024-bit RSA key of 162 bytes"
        sends "a link message for the main channel"
        expects "a link reply whose key is the DER form of an RSA key that a ticket can be encrypted to"
        => public_key;
    "link/mechanism/not-selected" ["L5.4"] Must
        "A client without AUTH_SELECTION sends its ticket at once"
        sends "a link message without AUTH_SELECTION, and after the reply the ticket"
        expects "link result OK"
        => mechanism_not_selected;
    "link/mechanism/unknown" ["L5.3"] Must
        "An unknown mechanism is refused with a second link reply"
        sends "mechanism 77 after the link reply"
        expects "a link reply with INVALID_DATA, then the end of the connection"
        => unknown_mechanism;
    "link/mechanism/sasl" ["L5.3"] Must
        "SASL is refused like any mechanism that the host has not enabled"
        sends "AUTH_SASL as mechanism to a host that does not offer it"
        expects "a second link reply with INVALID_DATA, then the end of the connection"
        => sasl;
    "link/ticket/right" ["L5.2"] Must
        "The right ticket is accepted"
        sends "the password that the host was started with"
        expects "link result OK"
        => right_ticket;
    "link/ticket/wrong" ["L5.1"] Must
        "A wrong ticket is refused with PERMISSION_DENIED"
        sends "other passwords than the one that the host was started with, shorter and longer ones among them, and bytes that are no ticket"
        expects "link result PERMISSION_DENIED, then the end of the connection"
        => wrong_ticket;
    "link/ticket/expired" ["L5.5"] Must
        "A password whose time is over opens nothing"
        sends "the password that the host was started with, after it has expired"
        expects "link result PERMISSION_DENIED"
        => expired_ticket;
    "link/ticket/empty" ["L5.5"] Must
        "A host that demands a password is not opened by an empty one, even if its own is empty"
        sends "an empty password, after the host's has been set to an empty one"
        expects "link result PERMISSION_DENIED"
        => empty_ticket;
    "link/connection-id/unknown" ["L6.1"] Must
        "A child channel of a session that does not exist is refused"
        sends "beside a session, a link of an inputs channel with another connection id"
        expects "link result BAD_CONNECTION_ID"
        => unknown_connection_id;
    "link/connection-id/before-main" ["L6.1"] Must
        "A child channel before any main channel is refused"
        sends "a link of an inputs channel to a server that has no client"
        expects "link result BAD_CONNECTION_ID"
        => child_before_main;
    "link/channel/unknown" ["L6.2"] Should
        "A channel that does not exist is refused with CHANNEL_NOT_AVAILABLE"
        sends "within a session, links of a channel of type 99 and of an inputs channel of id 1"
        expects "CHANNEL_NOT_AVAILABLE, in a link reply or as link result"
        => unknown_channel;
    "link/main/replaces" ["L7.1"] Must
        "A new main link replaces the connected client"
        sends "a second main link with connection id 0 beside a session"
        expects "link result OK for the second, the end of the connection for the first"
        => second_client;
    "link/segments/single-bytes" ["L9.1"] Must
        "The link stage may arrive in any segments"
        sends "link header, link message, mechanism and ticket, each byte in a segment of its own"
        expects "a link reply with OK and link result OK"
        => single_bytes;
    "link/segments/behind-ticket" ["L9.2"] Should
        "What a client says without awaiting the link result is heard"
        sends "a link of inputs with four MOUSE_MOTION in the segment of the ticket"
        expects "link result OK, and MOUSE_MOTION_ACK"
        => behind_ticket;
}

async fn wrong_magic(context: &mut Context) -> Verdict {
    let (client, mut link) = open(context, Setup::default()).await?;
    let mut bytes = client.request(0, MAIN).to_bytes();
    bytes[0] = b'X';
    link.send("link message with magic XEDQ", &bytes).await?;
    refused(&mut link, "L1.1", LinkError::INVALID_MAGIC).await
}

async fn wrong_magic_alone(context: &mut Context) -> Verdict {
    let (_, mut link) = open(context, Setup::default()).await?;
    link.send("magic XEDQ", b"XEDQ").await?;
    link.reply().await.or_fail("L1.2")?;
    Ok(())
}

async fn other_major(context: &mut Context) -> Verdict {
    let (client, mut link) = open(context, Setup::default()).await?;
    let bytes = with_number(client.request(0, MAIN).to_bytes(), MAJOR, 3);
    link.send("link message of version 3.2", &bytes).await?;
    refused(&mut link, "L2.1", LinkError::VERSION_MISMATCH).await
}

async fn other_minor(context: &mut Context) -> Verdict {
    let (client, mut link) = open(context, Setup::default()).await?;
    let bytes = with_number(client.request(0, MAIN).to_bytes(), MINOR, 99);
    link.send("link message of version 2.99", &bytes).await?;
    accepted(&mut link, "L2.2").await
}

async fn small_size(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    for size in [LINK_MESSAGE_LEN as u32 - 1, 1, 0] {
        size_refused(context, "L3.1", size, &[0; LINK_MESSAGE_LEN][..size as usize]).await?;
    }
    let client = context.client();
    let mut link = client.open(Place::Source.name(), MAIN, context.address(Place::Source)).await?;
    let bare = LinkRequest { common_words: Vec::new(), channel_words: Vec::new(), ..client.request(0, MAIN) };
    link.send("link message of 18 bytes", &bare.to_bytes()).await?;
    accepted(&mut link, "L3.1").await
}

async fn large_size(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    for size in [limits::MAX_LINK_BODY + 1, 1 << 31, u32::MAX] {
        size_refused(context, "L3.2", size, &[]).await?;
    }
    Ok(())
}

/// Sends a link header that announces so much, and something behind it.
async fn size_refused(context: &mut Context, requirement: &'static str, size: u32, body: &[u8]) -> Verdict {
    let mut link = context.client().open(Place::Source.name(), MAIN, context.address(Place::Source)).await?;
    let header = LinkHeader::new(size).encode();
    link.send(&format!("link header that announces {size} bytes"), &[header.as_slice(), body].concat()).await?;
    refused(&mut link, requirement, LinkError::INVALID_DATA).await
}

async fn too_many_words(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    // Four times 2^30 is 0 in 32 bits.
    for words in [limits::MAX_CAPABILITY_WORDS + 1, 1 << 30] {
        number_refused(context, "L3.3", ("num_common_caps", NUM_COMMON_CAPS), words).await?;
        number_refused(context, "L3.3", ("num_channel_caps", NUM_CHANNEL_CAPS), words).await?;
    }
    Ok(())
}

async fn words_outside(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    number_refused(context, "L3.4", ("num_channel_caps", NUM_CHANNEL_CAPS), 2).await?;
    let end = (LINK_MESSAGE_LEN + 8) as u32;
    for offset in [0, LINK_MESSAGE_LEN as u32 - 1, end - 1, end, 1 << 31, u32::MAX] {
        number_refused(context, "L3.4", ("caps_offset", CAPS_OFFSET), offset).await?;
    }
    Ok(())
}

/// Sends a link message with one number that makes no sense.
async fn number_refused(
    context: &mut Context,
    requirement: &'static str,
    (name, at): (&str, usize),
    number: u32,
) -> Verdict {
    let (client, address) = (context.client(), context.address(Place::Source));
    let mut link = client.open(Place::Source.name(), MAIN, address).await?;
    let bytes = with_number(client.request(0, MAIN).to_bytes(), at, number);
    link.send(&format!("link message with {name} = {number}"), &bytes).await?;
    refused(&mut link, requirement, LinkError::INVALID_DATA).await
}

async fn gaps(context: &mut Context) -> Verdict {
    let (client, mut link) = open(context, Setup::default()).await?;
    let request = client.request(0, MAIN);
    let plain = request.to_bytes();
    let (fixed, words) = plain.split_at(LINK_HEADER_LEN + LINK_MESSAGE_LEN);
    let (before, behind) = ([0xff; 3], [0xff; 5]);
    let bytes = [fixed, &before, words, &behind].concat();
    let size = bytes.len() - LINK_HEADER_LEN;
    let bytes = with_number(bytes, SIZE, size as u32);
    let bytes = with_number(bytes, CAPS_OFFSET, (LINK_MESSAGE_LEN + before.len()) as u32);
    link.send("link message with gaps", &bytes).await?;
    let reply = link.reply().await.or_fail("L3.5")?;
    let got = format!("a link reply with {}", reply.error);
    check(reply.error == LinkError::OK, "L3.5", link.name(), "a link reply with OK", got)?;
    link.authenticate(&request, &reply, &client.password).await?;
    let result = link.result().await.or_fail("L3.5")?;
    result_is(&link, "L3.5", result, LinkError::OK)
}

async fn public_key(context: &mut Context) -> Verdict {
    let (client, mut link) = open(context, Setup::default()).await?;
    link.request(&client.request(0, MAIN)).await?;
    let reply = link.reply().await?;
    let expected = format!("the DER form of a 1024-bit RSA key in {PUBLIC_KEY_LEN} bytes");
    let key = ticket::encrypt(&reply.public_key, "").map_err(|error| link.unexpected(expected, error.to_string()));
    key.or_fail("L8.1")?;
    Ok(())
}

async fn mechanism_not_selected(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client().with_common(&[CommonCapability::AUTH_SPICE, CommonCapability::MINI_HEADER]);
    let mut link = client.open(Place::Source.name(), MAIN, context.address(Place::Source)).await?;
    let result = authenticated(&client, &mut link, client.request(0, MAIN)).await?.or_fail("L5.4")?;
    result_is(&link, "L5.4", result, LinkError::OK)
}

async fn unknown_mechanism(context: &mut Context) -> Verdict {
    mechanism_refused(context, Setup::default(), AuthMechanism(77)).await
}

async fn sasl(context: &mut Context) -> Verdict {
    mechanism_refused(context, Setup { password: true, ..Setup::default() }, AuthMechanism::SASL).await
}

pub(super) async fn mechanism_refused(context: &mut Context, setup: Setup, mechanism: AuthMechanism) -> Verdict {
    let mut link = with_mechanism(context, setup, mechanism).await?;
    refused(&mut link, "L5.3", LinkError::INVALID_DATA).await
}

/// A link of main that has chosen a mechanism which the server has not offered.
pub(super) async fn with_mechanism(
    context: &mut Context,
    setup: Setup,
    mechanism: AuthMechanism,
) -> Result<RawLink, Stop> {
    let (client, mut link) = open(context, setup).await?;
    link.request(&client.request(0, MAIN)).await?;
    let reply = link.reply().await?;
    if !reply.has_common(CommonCapability::AUTH_SELECTION) {
        return Err(Stop::NotApplicable("the server lacks the capability auth-selection".to_owned()));
    }
    if mechanism == AuthMechanism::SASL && reply.has_common(CommonCapability::AUTH_SASL) {
        return Err(Stop::NotApplicable("the server offers SASL".to_owned()));
    }
    link.send(&format!("mechanism {}", mechanism.0), &mechanism.0.to_le_bytes()).await?;
    Ok(link)
}

async fn right_ticket(context: &mut Context) -> Verdict {
    let (client, mut link) = open(context, Setup { password: true, ..Setup::default() }).await?;
    let result = authenticated(&client, &mut link, client.request(0, MAIN)).await?.or_fail("L5.2")?;
    result_is(&link, "L5.2", result, LinkError::OK)
}

async fn wrong_ticket(context: &mut Context) -> Verdict {
    context.start_source(Setup { password: true, ..Setup::default() }).await?;
    let (client, address) = (context.client(), context.address(Place::Source));
    let (mut shorter, longer) = (client.password.clone(), format!("{}x", client.password));
    shorter.pop();
    for wrong in ["not the secret", &shorter, &longer] {
        let client = client.clone().with_password(wrong);
        let mut link = client.open(Place::Source.name(), MAIN, address).await?;
        let result = authenticated(&client, &mut link, client.request(0, MAIN)).await?;
        denied(&mut link, result).await?;
    }
    let mut link = client.open(Place::Source.name(), MAIN, address).await?;
    link.request(&client.request(0, MAIN)).await?;
    let reply = link.reply().await?;
    let mechanism = AuthMechanism::SPICE.0.to_le_bytes();
    let mechanism = if reply.has_common(CommonCapability::AUTH_SELECTION) { mechanism.as_slice() } else { &[] };
    link.send("bytes that are no ticket", &[mechanism, &[0xff; TICKET_LEN]].concat()).await?;
    let result = link.result().await;
    denied(&mut link, result).await
}

async fn denied(link: &mut RawLink, result: Result<LinkError, Unexpected>) -> Verdict {
    result_is(link, "L5.1", result.or_fail("L5.1")?, LinkError::PERMISSION_DENIED)?;
    link.closed().await.or_fail("L5.1")?;
    Ok(())
}

async fn expired_ticket(context: &mut Context) -> Verdict {
    void_ticket(context, Void::Expired).await
}

async fn empty_ticket(context: &mut Context) -> Verdict {
    void_ticket(context, Void::Empty).await
}

async fn void_ticket(context: &mut Context, how: Void) -> Verdict {
    context.changes_hosts()?;
    let (client, _) = open(context, Setup { password: true, ..Setup::default() }).await?;
    context.void_password(Place::Source, how).await?;
    let client = if how == Void::Empty { client.with_password("") } else { client };
    let mut link = client.open(Place::Source.name(), MAIN, context.address(Place::Source)).await?;
    let result = authenticated(&client, &mut link, client.request(0, MAIN)).await?.or_fail("L5.5")?;
    result_is(&link, "L5.5", result, LinkError::PERMISSION_DENIED)
}

async fn unknown_connection_id(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let session = context.connect_main(&client, Place::Source).await?;
    bad_connection_id(context, Place::Source, session.id ^ 1).await
}

async fn child_before_main(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    bad_connection_id(context, Place::Source, 0x1234).await
}

async fn unknown_channel(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let session = context.connect_main(&client, Place::Source).await?;
    let (no_type, no_id) = (ChannelType(99), ChannelType::INPUTS);
    for unknown in [ChannelId { channel_type: no_type, id: 0 }, ChannelId { channel_type: no_id, id: 1 }] {
        let mut link = client.open(Place::Source.name(), unknown, context.address(Place::Source)).await?;
        let request = client.request(session.id, unknown);
        link.request(&request).await?;
        let reply = link.reply().await.or_fail("L6.2")?;
        let error = if reply.error == LinkError::OK {
            link.authenticate(&request, &reply, &client.password).await?;
            link.result().await.or_fail("L6.2")?
        } else {
            reply.error
        };
        result_is(&link, "L6.2", error, LinkError::CHANNEL_NOT_AVAILABLE)?;
    }
    Ok(())
}

async fn second_client(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let mut first = context.connect_main(&client, Place::Source).await?;
    let address = context.address(Place::Source);
    client.link("source/second", address, 0, MAIN).await.or_fail("L7.1")?;
    context.is_replaced(&mut first, context.patience()).await.or_fail("L7.1")
}

async fn single_bytes(context: &mut Context) -> Verdict {
    let (client, mut link) = open(context, Setup::default()).await?;
    let request = client.request(0, MAIN);
    let bytes = request.to_bytes();
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    send_singly(&mut link, "half of a link message", first).await?;
    // Then it has seen the half, however busy it is.
    context.await_reply(Place::Source).await?;
    send_singly(&mut link, "the other half", rest).await?;
    let reply = link.reply().await.or_fail("L9.1")?;
    let ticket = ticket::encrypt(&reply.public_key, &client.password)
        .map_err(|error| link.unexpected("a public key for the ticket", error.to_string()))?;
    let mechanism = AuthMechanism::SPICE.0.to_le_bytes();
    send_singly(&mut link, "mechanism and ticket", &[mechanism.as_slice(), &ticket].concat()).await?;
    let result = link.result().await.or_fail("L9.1")?;
    result_is(&link, "L9.1", result, LinkError::OK)
}

async fn behind_ticket(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    heard_behind_ticket(context).await
}

/// Links inputs at a source that has been started, and sends motions together with the ticket.
pub(super) async fn heard_behind_ticket(context: &mut Context) -> Verdict {
    let client = context.client();
    let session = context.connect_main(&client, Place::Source).await?;
    let hasty = Client { early: vec![MOUSE_MOTION; MOTION_BUNCH], ..client };
    let address = context.address(Place::Source);
    let mut inputs = hasty.link(Place::Source.name(), address, session.id, INPUTS).await.or_fail("L9.2")?;
    until_acknowledged(&mut inputs).await.or_fail("L9.2")?;
    session.close().await;
    Ok(())
}

// Where numbers stand in link header and message.
const MAJOR: usize = 4;
const MINOR: usize = 8;
const SIZE: usize = 12;
const NUM_COMMON_CAPS: usize = 22;
const NUM_CHANNEL_CAPS: usize = 26;
const CAPS_OFFSET: usize = 30;

fn with_number(mut bytes: Vec<u8>, at: usize, number: u32) -> Vec<u8> {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// A source alone, and a connection to it.
async fn open(context: &mut Context, setup: Setup) -> Result<(Client, RawLink), Stop> {
    context.start_source(setup).await?;
    let client = context.client();
    let link = client.open(Place::Source.name(), MAIN, context.address(Place::Source)).await?;
    Ok((client, link))
}

async fn refused(link: &mut RawLink, requirement: &'static str, error: LinkError) -> Verdict {
    let reply = link.reply().await.or_fail(requirement)?;
    let expected = format!("a link reply with {error}");
    check(reply.error == error, requirement, link.name(), expected, format_args!("a link reply with {}", reply.error))?;
    link.closed().await.or_fail(requirement)?;
    Ok(())
}

async fn accepted(link: &mut RawLink, requirement: &'static str) -> Verdict {
    let reply = link.reply().await.or_fail(requirement)?;
    let got = format!("a link reply with {}", reply.error);
    check(reply.error == LinkError::OK, requirement, link.name(), "a link reply with OK", got)
}

/// Goes through the link stage up to the link result, which the caller judges.
async fn authenticated(
    client: &Client,
    link: &mut RawLink,
    request: LinkRequest,
) -> Result<Result<LinkError, Unexpected>, Stop> {
    link.request(&request).await?;
    let reply = link.reply().await?;
    link.authenticate(&request, &reply, &client.password).await?;
    Ok(link.result().await)
}

fn result_is(link: &RawLink, requirement: &'static str, result: LinkError, expected: LinkError) -> Verdict {
    check(result == expected, requirement, link.name(), expected, result)
}

/// A link of inputs that belongs to no session.
pub(super) async fn bad_connection_id(context: &mut Context, place: Place, connection_id: u32) -> Verdict {
    let client = context.client();
    ends_with(context, "L6.1", &client, place, INPUTS, connection_id, LinkError::BAD_CONNECTION_ID).await
}

/// A link with a ticket that should be refused, by which requirement.
pub(super) async fn ticket_refused(
    context: &mut Context,
    requirement: &'static str,
    place: Place,
    channel: ChannelId,
    connection_id: u32,
    password: &str,
) -> Verdict {
    let client = context.client().with_password(password);
    ends_with(context, requirement, &client, place, channel, connection_id, LinkError::PERMISSION_DENIED).await
}

async fn ends_with(
    context: &mut Context,
    requirement: &'static str,
    client: &Client,
    place: Place,
    channel: ChannelId,
    connection_id: u32,
    expected: LinkError,
) -> Verdict {
    let mut link = client.open(place.name(), channel, context.address(place)).await?;
    let request = client.request(connection_id, channel);
    let result = authenticated(client, &mut link, request).await?.or_fail(requirement)?;
    result_is(&link, requirement, result, expected)
}

async fn send_singly(link: &mut RawLink, what: &str, bytes: &[u8]) -> Verdict {
    for (index, byte) in bytes.iter().enumerate() {
        link.send(&format!("byte {} of {what}", index + 1), &[*byte]).await?;
        // Lets the peer see each byte alone; no verdict hangs on it.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
