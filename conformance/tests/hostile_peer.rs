//! A hostile peer cannot hurt the suite: whatever it sends or does not send, the client comes to an end in time.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use spice_conformance::{
    context::MAIN,
    peer::{client::Client, ticket::TicketKey},
    trace::{MAX_ENTRIES, Trace},
};
use spice_migration::{
    caps::{CapabilityWords, CommonCapability, word},
    link::{Capabilities, LinkError, LinkHeader, LinkReply},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const PATIENCE: Duration = Duration::from_millis(400);

/// What a busy machine may add.
const MARGIN: Duration = Duration::from_secs(5);

/// A server that does `serve` with its first connection.
async fn server<S, F>(serve: S) -> SocketAddr
where
    S: FnOnce(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { serve(listener.accept().await.unwrap().0).await });
    address
}

/// Plays the link stage up to its result.
async fn accept(stream: &mut TcpStream) {
    let common = [word(&[CommonCapability::AUTH_SELECTION, CommonCapability::MINI_HEADER]).to_le_bytes()];
    let reply = LinkReply {
        error: LinkError::OK,
        public_key: TicketKey::shared().public(),
        capabilities: Capabilities { common: CapabilityWords::new(&common), channel: CapabilityWords::default() },
    };
    let mut body = vec![0; reply.encoded_len()];
    reply.encode(&mut body).unwrap();
    stream.read_exact(&mut [0; 16 + 26]).await.unwrap();
    stream.write_all(&LinkHeader::new(u32::try_from(body.len()).unwrap()).encode()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    stream.read_exact(&mut [0; 4 + 128]).await.unwrap();
    stream.write_all(&[0; 4]).await.unwrap();
}

/// Whether a client against that server comes to an end in time, and what it says.
async fn outcome(address: SocketAddr) -> (String, Trace) {
    let trace = Trace::new();
    let began = Instant::now();
    let unexpected = Client::new(PATIENCE, trace.clone()).connect("hostile", address).await.unwrap_err();
    assert!(began.elapsed() < MARGIN, "{:?}", began.elapsed());
    (unexpected.got, trace)
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let (got, _) = outcome(
        server(|stream| async move {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await,
    )
    .await;
    assert_eq!(got, "nothing within 400ms");
}

#[tokio::test]
async fn a_sudden_close_is_told_apart_from_silence() {
    let (got, _) = outcome(
        server(|mut stream| async move {
            stream.read_exact(&mut [0; 16 + 26]).await.unwrap();
        })
        .await,
    )
    .await;
    assert_eq!(got, "the peer closed the connection");
}

#[tokio::test]
async fn garbage_in_the_link_stage_is_named() {
    let (got, _) = outcome(
        server(
            |mut stream| async move { while stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.is_ok() {} },
        )
        .await,
    )
    .await;
    assert_eq!(got, "SpiceLinkHeader: magic at byte 0: the magic number is wrong");
}

#[tokio::test]
async fn a_link_header_that_announces_much_is_refused() {
    let (got, _) = outcome(
        server(|mut stream| async move {
            stream.write_all(&LinkHeader::new(u32::MAX).encode()).await.unwrap();
            std::future::pending::<()>().await;
        })
        .await,
    )
    .await;
    assert_eq!(got, "SpiceLinkHeader: size at byte 12: it exceeds the limit");
}

#[tokio::test]
async fn a_byte_now_and_then_does_not_stretch_the_deadline() {
    let (got, _) = outcome(
        server(|mut stream| async move {
            for byte in LinkHeader::new(178).encode() {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(PATIENCE / 4).await;
            }
        })
        .await,
    )
    .await;
    assert_eq!(got, "nothing within 400ms");
}

#[tokio::test]
async fn endless_messages_are_a_flood() {
    let (got, trace) = outcome(
        server(|mut stream| async move {
            accept(&mut stream).await;
            let many = [106, 0, 4, 0, 0, 0, 1, 0, 0, 0].repeat(1000);
            while stream.write_all(&many).await.is_ok() {}
        })
        .await,
    )
    .await;
    // Whether the deadline or the count of messages comes first depends on the machine.
    assert!(got.ends_with("the peer floods the connection") || got.ends_with("within 400ms"), "{got}");
    assert!(trace.entries().len() <= MAX_ENTRIES);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_at_its_header() {
    let (got, _) = outcome(
        server(|mut stream| async move {
            accept(&mut stream).await;
            stream.write_all(&[103, 0, 0xff, 0xff, 0xff, 0xff]).await.unwrap();
            std::future::pending::<()>().await;
        })
        .await,
    )
    .await;
    assert_eq!(got, "the peer floods the connection");
}

#[tokio::test]
async fn a_message_that_does_not_decode_is_named() {
    let (got, _) = outcome(
        server(|mut stream| async move {
            accept(&mut stream).await;
            stream.write_all(&[103, 0, 2, 0, 0, 0, 1, 1]).await.unwrap();
            std::future::pending::<()>().await;
        })
        .await,
    )
    .await;
    assert_eq!(got, "SPICE_MSG_MAIN_INIT: session_id at byte 0: the bytes end before the field does");
}

#[tokio::test]
async fn a_peer_that_never_closes_does_not_hold_the_suite() {
    let address = server(|mut stream| async move {
        while stream.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(PATIENCE / 4).await;
        }
    })
    .await;
    let client = Client::new(PATIENCE, Trace::new());
    let mut link = client.open("hostile", MAIN, address).await.unwrap();
    let began = Instant::now();
    link.closed().await.unwrap_err();
    assert!(began.elapsed() < MARGIN);
}

#[tokio::test]
async fn a_peer_that_the_suite_gives_up_on_has_not_closed() {
    let address = server(|mut stream| async move {
        accept(&mut stream).await;
        stream.write_all(&[103, 0, 0xff, 0xff, 0xff, 0xff]).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let mut main = Client::new(PATIENCE, Trace::new()).link("hostile", address, 0, MAIN).await.unwrap();
    assert_eq!(main.closed_within(PATIENCE).await.unwrap_err().got, "the peer floods the connection");
}
