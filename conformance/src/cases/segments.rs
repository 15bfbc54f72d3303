//! The link stage cut at each of its bytes: into two segments, by the client's end, and by its silence.

use std::time::Duration;

use futures_util::future::join_all;
use spice_migration::link::{AuthMechanism, LinkError};

use super::{cases, check, vanish::no_leaks};
use crate::{
    case::{Context, OrFail, Unexpected, Verdict},
    context::{MAIN, Place, Setup},
    peer::{
        client::{Client, LinkRequest, RawLink},
        ticket,
    },
};

cases! {
    "link/segments/two" ["L9.1"] Must
        "The link stage may be cut into two segments at any byte"
        sends "links of main: the bytes up to each byte in one segment, and the rest in another"
        expects "link result OK, each time"
        => two;
    "link/segments/truncated" ["P1"] Must
        "A connection that ends within the link stage is closed, behind whatever byte"
        sends "links of main that the client closes behind each of their bytes"
        expects "no connection that is kept; then a session"
        => truncated;
    "link/segments/silent" ["L10"] Must
        "A connection that falls silent in the link stage hinders nobody, behind whatever byte"
        sends "links of main that end behind each of their bytes and stay open; then a session"
        expects "the session, at once"
        => silent;
}

/// How many links are made at the same time: a server makes a key for each.
const AT_ONCE: usize = 16;

/// For the first segment to arrive by itself.
const PAUSE: Duration = Duration::from_millis(1);

/// What is done behind the byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Continue,
    Stop,
}

async fn two(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    for (cut, link) in links(context, Then::Continue).await? {
        let mut link = link.or_fail("L9.1")?;
        let result = link.result().await.or_fail("L9.1")?;
        check(result == LinkError::OK, "L9.1", link.name(), format_args!("OK, cut at byte {cut}"), result)?;
    }
    Ok(())
}

async fn truncated(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    for (_, link) in links(context, Then::Stop).await? {
        link?;
    }
    no_leaks(context, 0).await?;
    context.connect(&client, Place::Source).await.or_fail("P1")?.close().await;
    Ok(())
}

async fn silent(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let silent = links(context, Then::Stop).await?;
    let session = context.connect(&client, Place::Source).await.or_fail("L10")?;
    for (_, link) in silent {
        link.or_fail("L10")?;
    }
    session.close().await;
    Ok(())
}

/// Makes links of main, one for each byte at which they can be cut.
async fn links(
    context: &mut Context,
    then: Then,
) -> Result<Vec<(usize, Result<RawLink, Unexpected>)>, crate::case::Stop> {
    let client = context.client();
    let address = context.address(Place::Source);
    let request = client.request(0, MAIN);
    let message = request.to_bytes().len();
    let mechanism_and_ticket = 4 + 128;
    let cuts: Vec<usize> = (1..message + mechanism_and_ticket).collect();
    let mut links = Vec::new();
    for cuts in cuts.chunks(AT_ONCE) {
        let opened = cuts.iter().map(async |cut| {
            let link = client.open(Place::Source.name(), MAIN, address).await;
            (
                *cut,
                match link {
                    Ok(link) => cut_at(link, &client, &request, *cut, then).await,
                    Err(unexpected) => Err(unexpected),
                },
            )
        });
        links.extend(join_all(opened).await);
    }
    context.served |= links.iter().any(|(_, link)| link.is_ok());
    Ok(links)
}

async fn cut_at(
    mut link: RawLink,
    client: &Client,
    request: &LinkRequest,
    cut: usize,
    then: Then,
) -> Result<RawLink, Unexpected> {
    let message = request.to_bytes();
    let in_message = cut.min(message.len());
    link.send("the first part of the link message", &message[..in_message]).await?;
    if in_message < message.len() {
        if then == Then::Stop {
            return Ok(link);
        }
        tokio::time::sleep(PAUSE).await;
        link.send("the rest of it", &message[in_message..]).await?;
    }
    let reply = link.reply().await?;
    let ticket = ticket::encrypt(&reply.public_key, &client.password)
        .map_err(|error| link.unexpected("a public key for the ticket", error.to_string()))?;
    let ticket = [AuthMechanism::SPICE.0.to_le_bytes().as_slice(), &ticket].concat();
    let in_ticket = cut - in_message;
    link.send("the first part of mechanism and ticket", &ticket[..in_ticket]).await?;
    if then == Then::Continue {
        tokio::time::sleep(PAUSE).await;
        link.send("the rest of it", &ticket[in_ticket..]).await?;
    }
    Ok(link)
}
