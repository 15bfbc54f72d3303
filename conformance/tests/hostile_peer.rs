//! A hostile peer cannot hurt the suite: whatever it sends or does not send, the client comes to an end in time, and so does a whole
//! run; that one reports nothing that did not happen, and its process stays within [`MOST_MEMORY`].

use std::{
    fs,
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use spice_conformance::{
    context::MAIN,
    peer::{
        client::{Client, Closed},
        ticket::TicketKey,
    },
    trace::{MAX_ENTRIES, Trace},
};
use spice_migration::{
    ChannelType,
    caps::{CapabilityWords, CommonCapability, word},
    link::{Capabilities, LinkError, LinkHeader, LinkReply},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinSet,
    time::{sleep, timeout},
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

/// Plays the link stage up to its result, with a client that plays it, too.
async fn accept(stream: &mut TcpStream) {
    link(stream).await.unwrap();
}

/// Plays the link stage up to its result. Whether it is a main channel's.
async fn link(stream: &mut TcpStream) -> std::io::Result<bool> {
    let common = [word(&[CommonCapability::AUTH_SELECTION, CommonCapability::MINI_HEADER]).to_le_bytes()];
    let reply = LinkReply {
        error: LinkError::OK,
        public_key: TicketKey::shared().public(),
        capabilities: Capabilities { common: CapabilityWords::new(&common), channel: CapabilityWords::default() },
    };
    let mut body = vec![0; reply.encoded_len()];
    reply.encode(&mut body).unwrap();
    let mut header = [0; 16];
    stream.read_exact(&mut header).await?;
    let [.., size] = header.as_chunks().0 else { unreachable!("it has four words") };
    let mut message = vec![0; usize::try_from(u32::from_le_bytes(*size)).unwrap().min(1 << 10)];
    stream.read_exact(&mut message).await?;
    stream.write_all(&LinkHeader::new(u32::try_from(body.len()).unwrap()).encode()).await?;
    stream.write_all(&body).await?;
    stream.read_exact(&mut [0; 4 + 128]).await?;
    stream.write_all(&[0; 4]).await?;
    Ok(message.get(4) == Some(&ChannelType::MAIN.0))
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
                sleep(PATIENCE / 4).await;
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
            sleep(PATIENCE / 4).await;
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

#[tokio::test]
async fn a_reset_is_told_apart_from_a_close() {
    for (resets, ended, told) in [(true, Closed::Reset, &["hostile/main"][..]), (false, Closed::Clean, &[])] {
        let address = server(move |mut stream| async move {
            accept(&mut stream).await;
            if resets {
                stream.set_zero_linger().unwrap();
            }
        })
        .await;
        let trace = Trace::new();
        let mut main = Client::new(PATIENCE, trace.clone()).link("hostile", address, 0, MAIN).await.unwrap();
        assert_eq!(main.closed_within(PATIENCE).await.unwrap(), ended);
        assert_eq!(trace.resets(), told);
    }
}

// A whole run against one.

/// Most memory that the process of a run may take, one case at a time, whatever the server sends: twice the 64 MiB that all connections
/// together may hold, since buffers grow by doubling; what is taken of a message; and the suite itself with its traces.
const MOST_MEMORY: u64 = 256 << 20;

/// Longest that the run of [`CASES`] may take: each waits for the server some three times, and then for the look whether it lives.
const LONGEST_RUN: Duration = Duration::from_secs(55);

/// A few cases that no such server can pass, but for the one that asks for the greeting only.
const CASES: [&str; 3] = ["link/magic/refused", GREETED, "message/session/main-unknown"];
const GREETED: &str = "main/init/first";

/// What a server does to the connections of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hostility {
    /// In place of a link reply.
    AtOnce(Deed),
    /// Behind a header with a link reply's magic and version, and this size.
    InReply(u32, Deed),
    /// Behind link result OK.
    Linked(Deed),
    /// Behind INIT.
    Greeted(Deed),
    /// Behind the first half of a message that belongs there.
    WithinMessage(Deed),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Close,
    Reset,
    Silence,
    /// A zero every 100 ms.
    Trickle,
    /// These bytes without end.
    Stream(&'static [u8]),
    /// Bodies of 16 MiB without end, of messages with this id.
    LargeBodies(u16),
    /// A list of half a million channels, and a link result of OK for each.
    ManyChannels,
    /// A list of sixty channels, and on each of them all of a message with a body of 16 MiB but its last byte.
    ManyLargeBodies,
}

use Deed::{Close, LargeBodies, ManyChannels, ManyLargeBodies, Reset, Silence, Stream, Trickle};
use Hostility::{AtOnce, Greeted, InReply, Linked, WithinMessage};

/// An ordinary reply has 178 bytes.
const HOSTILITIES: [Hostility; 29] = [
    AtOnce(Silence),
    AtOnce(Close),
    AtOnce(Reset),
    AtOnce(Trickle),
    AtOnce(Stream(GARBAGE)),
    InReply(u32::MAX, Stream(&[0])),
    InReply(178, Stream(&[0xff])),
    InReply(178, Trickle),
    InReply(178, Close),
    InReply(178, Reset),
    InReply(178, Silence),
    Linked(Silence),
    Linked(Close),
    Linked(Reset),
    Linked(Trickle),
    Linked(Stream(GARBAGE)),
    Linked(Stream(TIME)),
    Linked(Stream(&[103, 0, 0xff, 0xff, 0xff, 0xff])),
    Linked(LargeBodies(CHANNELS_LIST)),
    Linked(LargeBodies(300)),
    WithinMessage(Close),
    WithinMessage(Reset),
    WithinMessage(Silence),
    Greeted(Silence),
    Greeted(Close),
    Greeted(Stream(TIME)),
    Greeted(LargeBodies(CHANNELS_LIST)),
    Greeted(ManyChannels),
    Greeted(ManyLargeBodies),
];

/// The id of the message.
const CHANNELS_LIST: u16 = 104;

const GARBAGE: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\r\n";

/// MULTI_MEDIA_TIME with its mini header.
const TIME: &[u8] = &[106, 0, 4, 0, 0, 0, 1, 0, 0, 0];

/// Header and body of an INIT for the session 1, with a guest that has a mouse.
const INIT: [u8; 38] = {
    let mut init = [0; 38];
    (init[0], init[2], init[6], init[14], init[18]) = (103, 32, 1, 3, 2);
    init
};

impl Deed {
    /// Does it, for as long as the client lets it.
    async fn perform(self, mut stream: TcpStream) {
        match self {
            Self::Close => {}
            Self::Reset => stream.set_zero_linger().unwrap(),
            Self::Silence => stay(stream).await,
            Self::Trickle => {
                while stream.write_all(&[0]).await.is_ok() {
                    sleep(Duration::from_millis(100)).await;
                }
            }
            Self::Stream(bytes) => {
                let many = bytes.repeat(1000);
                while stream.write_all(&many).await.is_ok() {}
            }
            Self::LargeBodies(id) => {
                let large = large(id);
                while stream.write_all(&large).await.is_ok() {}
            }
            Self::ManyChannels | Self::ManyLargeBodies => {
                let channels: u32 = if self == Self::ManyChannels { 500_000 } else { 60 };
                let body = [channels.to_le_bytes().to_vec(), [5, 0].repeat(channels as usize)].concat();
                let size = u32::try_from(body.len()).unwrap().to_le_bytes();
                let list = [&CHANNELS_LIST.to_le_bytes()[..], &size, &body].concat();
                let _ = stream.write_all(&list).await;
                stay(stream).await;
            }
        }
    }
}

/// Says nothing more.
async fn stay(mut stream: TcpStream) {
    while stream.read(&mut [0; 1024]).await.is_ok_and(|length| length > 0) {}
}

/// A message with a body of 16 MiB.
fn large(id: u16) -> Vec<u8> {
    let mut large = vec![0; 6 + (16 << 20)];
    large[..2].copy_from_slice(&id.to_le_bytes());
    large[2..6].copy_from_slice(&(16_u32 << 20).to_le_bytes());
    large
}

impl Hostility {
    async fn serve(self, mut stream: TcpStream) -> std::io::Result<()> {
        let deed = match self {
            Self::AtOnce(deed) => deed,
            Self::InReply(size, deed) => {
                stream.write_all(&LinkHeader::new(size).encode()).await?;
                deed
            }
            Self::Linked(deed) | Self::Greeted(deed) | Self::WithinMessage(deed) => {
                let is_main = link(&mut stream).await?;
                match self {
                    Self::Greeted(ManyChannels | ManyLargeBodies) if !is_main => {
                        if deed == ManyLargeBodies {
                            let large = large(300);
                            stream.write_all(&large[..large.len() - 1]).await?;
                        }
                        stay(stream).await;
                        return Ok(());
                    }
                    Self::Greeted(_) => stream.write_all(&INIT).await?,
                    Self::WithinMessage(_) => stream.write_all(&INIT[..20]).await?,
                    _ => {}
                }
                deed
            }
        };
        deed.perform(stream).await;
        Ok(())
    }
}

/// A server that does that to every connection; or first serves one client, if it is `two_faced`: the one that is to find out whether
/// it can be tested.
async fn hostile(hostility: Hostility, two_faced: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let friendly = Arc::new(AtomicBool::new(two_faced));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let friendly = friendly.clone();
            tokio::spawn(async move {
                if friendly.load(Ordering::SeqCst) {
                    // The connection that only looks whether somebody listens says nothing.
                    if link(&mut stream).await.is_ok() && stream.write_all(&INIT).await.is_ok() {
                        friendly.store(false, Ordering::SeqCst);
                        stay(stream).await;
                    }
                    return;
                }
                // The client may have left.
                let _ = hostility.serve(stream).await;
            });
        }
    });
    address
}

/// What came of a run.
struct Run {
    code: Option<i32>,
    passed: Vec<String>,
    judged: usize,
    peak: u64,
    took: Duration,
    printed: String,
}

/// Runs [`CASES`] against a server.
async fn run(address: SocketAddr) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let (path, report) = (folder.path().join("report.json"), folder.path().join("printed"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_spice-conformance"));
    command.args([
        "run",
        "--server",
        &address.to_string(),
        "--report",
        &format!("json={}", path.display()),
        "--filter",
    ]);
    let printed = fs::File::create(&report).unwrap();
    command.args(CASES).stdout(printed.try_clone().unwrap()).stderr(printed).stdin(Stdio::null()).kill_on_drop(true);
    let began = Instant::now();
    let mut child = command.spawn().unwrap();
    let process = child.id().unwrap();
    // A thread, since the servers of the other runs leave the tasks little time. What it reads last is all but the peak.
    let memory = thread::spawn(move || {
        let mut peak = 0;
        while let Some(now) = most_memory(process) {
            peak = now;
            thread::sleep(Duration::from_millis(5));
        }
        peak
    });
    let ended = timeout(LONGEST_RUN, child.wait()).await.expect("the run ends in time").unwrap();
    let peak = memory.join().unwrap();
    let took = began.elapsed();
    // A run that cannot begin leaves none.
    let document: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap_or_default()).unwrap_or_default();
    let cases = document["cases"].as_array().cloned().unwrap_or_default();
    let passed = cases.iter().filter(|case| case["outcome"] == "pass");
    Run {
        code: ended.code(),
        passed: passed.map(|case| case["id"].as_str().unwrap().to_owned()).collect(),
        judged: cases.len(),
        peak,
        took,
        printed: fs::read_to_string(&report).unwrap(),
    }
}

/// The peak of a process's resident memory so far, in bytes; `None` when it has ended.
fn most_memory(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_hurts_a_whole_run() {
    let mut runs = JoinSet::new();
    for hostility in HOSTILITIES {
        for two_faced in [false, true] {
            runs.spawn(async move { (hostility, two_faced, run(hostile(hostility, two_faced).await).await) });
        }
    }
    while let Some(ended) = runs.join_next().await {
        let (hostility, two_faced, Run { code, judged, passed, peak, took, printed }) = ended.unwrap();
        let what = format!("{hostility:?}, two-faced: {two_faced}: exit code {code:?}, {took:?}, {} MiB", peak >> 20);
        println!("{what}");
        // Whoever greets everybody has served a client, as far as the suite asks before the first case.
        let greets = matches!(hostility, Greeted(_));
        let is_reached = two_faced || greets;
        assert_eq!(code, Some(if is_reached { 1 } else { 3 }), "{what}: {printed}");
        assert_eq!(judged, if is_reached { CASES.len() } else { 0 }, "{what}: {printed}");
        assert!(passed.iter().all(|id| greets && id == GREETED), "{what}: {passed:?} passed: {printed}");
        assert!(!printed.contains("bug of the suite"), "{what}: {printed}");
        assert!(peak < MOST_MEMORY, "{what}: {printed}");
    }
}
