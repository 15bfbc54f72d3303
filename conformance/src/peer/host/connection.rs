//! One connection to a host: its link stage, then its messages in both directions.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use spice_migration::{
    ChannelType,
    caps::{CapabilityWords, CommonCapability, DisplayCapability, InputsCapability, MainCapability, word},
    error::Fault,
    frame::{Deframer, HeaderKind},
    limits,
    link::{
        AuthMechanism, Capabilities, LINK_HEADER_LEN, LINK_MESSAGE_LEN, LinkError, LinkMessage, LinkReply, MAGIC,
        PUBLIC_KEY_LEN, TICKET_LEN, VERSION_MAJOR, VERSION_MINOR,
    },
    message::ChannelId,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Mutex, mpsc},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

use super::{HostSettings, task::Input};
use crate::{
    peer::{defect::Defect, ticket::TicketKey, tls::Stream},
    subject::Security,
};

/// How long a client may take for the link stage.
const LINK_DEADLINE: Duration = Duration::from_secs(10);

/// How long a client may take to read one message.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a closed connection still takes what the client sends.
const LINGER: Duration = Duration::from_secs(1);

/// Largest body of a client's message.
const MAX_CLIENT_BODY: u32 = 1024 * 1024;

/// Bytes taken off the socket at once. A thousand clients have four thousand connections.
const READ_LEN: usize = 4 * 1024;

/// Most chunks that wait to be written. One read holds at most 682 messages, each answered with at most four, and
/// nothing is read while answers wait: only a client that does not read gets beyond.
const OUTBOUND_LEN: usize = 3_000;

/// What all connections of a host have in common.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) password: Option<String>,
    pub(super) security: Security,
    pub(super) settings: Arc<HostSettings>,
    pub(super) inputs: mpsc::Sender<Input>,
    /// Held in the link stage, with `links-one-by-one`.
    pub(super) linking: Arc<Mutex<()>>,
}

/// A client has authenticated itself. The server sends the link result, and then messages, to `outbound`; when it drops
/// that, the connection is closed behind what was sent.
#[derive(Debug)]
pub(super) struct Link {
    /// Names this connection among all that the host ever had.
    pub(super) connection: u64,
    /// What the client says that it belongs to: 0, or a session's id.
    pub(super) connection_id: u32,
    pub(super) channel: ChannelId,
    /// The first word of the client's capabilities for this channel type.
    pub(super) capabilities: u32,
    /// As both sides' capabilities have it.
    pub(super) header: HeaderKind,
    pub(super) outbound: mpsc::Sender<Vec<u8>>,
}

/// Serves one connection to its end, and holds `alive` until then.
pub(super) async fn run(stream: TcpStream, with_tls: bool, connection: u64, server: Server, alive: Arc<()>) {
    let end = serve(stream, with_tls, connection, &server).await;
    let kept = match server.settings.defect {
        Some(Defect::GoneClientsKept) => true,
        Some(Defect::HalfLinkKept) => end == End::WithinLink,
        Some(Defect::HalfHeaderKept) => end == End::WithinHeader,
        Some(Defect::HalfBodyKept) => end == End::WithinBody,
        _ => false,
    };
    if kept {
        std::mem::forget(alive);
    }
}

/// Where in what a client says a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    WithinLink,
    BetweenMessages,
    WithinHeader,
    WithinBody,
}

async fn serve(stream: TcpStream, with_tls: bool, connection: u64, server: &Server) -> End {
    let mut end = End::WithinLink;
    let Some(mut stream) = secured(stream, with_tls, &server.settings).await else { return end };
    let inputs = &server.inputs;
    let (outbound, mut queue) = mpsc::channel(OUTBOUND_LEN);
    let linked = {
        let _alone = match server.settings.defect {
            Some(Defect::LinksOneByOne) => Some(server.linking.lock().await),
            _ => None,
        };
        timeout(LINK_DEADLINE, link(&mut stream, connection, server, outbound)).await
    };
    if let Ok(Some(link)) = linked {
        let header = link.header;
        if inputs.send(Input::Link(link)).await.is_ok() {
            end = match exchange(&mut stream, header, connection, &mut queue, server).await {
                0 => End::BetweenMessages,
                pending if pending < header.len() => End::WithinHeader,
                _ => End::WithinBody,
            };
            if end != End::BetweenMessages && server.settings.defect == Some(Defect::EndMissedWithinMessage) {
                return std::future::pending().await;
            }
            if end == End::WithinBody && server.settings.defect == Some(Defect::DiesOfHalfBodies) {
                let _ = inputs.send(Input::Killed("half a body")).await;
            }
            // The host has ended if nobody takes this. Otherwise the queue ends behind the last answers, which a client that
            // has only closed its own direction still reads.
            let _ = inputs.send(Input::Closed { connection }).await;
            while let Some(bytes) = queue.recv().await
                && write(&mut stream, &bytes).await
            {}
        }
    }
    // The client sees the end now, but what it still sends is taken: a socket closed with bytes unread would reset the
    // connection, and the client might lose our last ones.
    let _ = stream.shutdown().await;
    let mut discarded = [0; 4096];
    let _ = timeout(LINGER, async { while stream.read(&mut discarded).await.is_ok_and(|length| length > 0) {} }).await;
    end
}

/// The stream as clients speak on it; `None` if they do not come to speak TLS where that is due.
async fn secured(stream: TcpStream, with_tls: bool, settings: &HostSettings) -> Option<Stream> {
    if !with_tls {
        return Some(Either::Left(stream));
    }
    let acceptor = TlsAcceptor::from(settings.tls.clone()?);
    if settings.defect == Some(Defect::TlsClosed) {
        return None;
    }
    let accepted = timeout(LINK_DEADLINE, acceptor.accept(stream)).await.ok()?.ok()?;
    Some(Either::Right(Box::new(accepted.into())))
}

/// Writes all, in time; `false` if the client does not take it.
async fn write(stream: &mut Stream, bytes: &[u8]) -> bool {
    let written = timeout(WRITE_DEADLINE, async {
        stream.write_all(bytes).await?;
        stream.flush().await
    });
    matches!(written.await, Ok(Ok(())))
}

/// Messages both ways, until either side ends the connection. Returns how many bytes of an unfinished message there are then.
async fn exchange(
    stream: &mut Stream,
    header: HeaderKind,
    connection: u64,
    queue: &mut mpsc::Receiver<Vec<u8>>,
    Server { inputs, settings, .. }: &Server,
) -> usize {
    let has = |defect| settings.defect == Some(defect);
    let limit = if has(Defect::OversizedBodyAwaited) { u32::MAX } else { MAX_CLIENT_BODY };
    let mut deframer = Deframer::new(header).with_limit(limit);
    let mut serial = 0;
    let mut buffer = vec![0; READ_LEN];
    loop {
        tokio::select! {
            // Answers first: a client that does not take them is not listened to either.
            biased;
            bytes = queue.recv() => {
                let Some(bytes) = bytes else { return deframer.pending() };
                if !write(stream, &bytes).await {
                    return deframer.pending();
                }
            }
            read = stream.read(&mut buffer) => {
                let Ok(length @ 1..) = read else {
                    if deframer.pending() > 0 && has(Defect::DiesOfHalfMessages) {
                        let _ = inputs.send(Input::Killed("half a message")).await;
                    }
                    return deframer.pending();
                };
                deframer.push(&buffer[..length]);
                loop {
                    let Ok(frame) = deframer.next_frame() else { return deframer.pending() };
                    let Some(frame) = frame else {
                        let pending = deframer.pending();
                        if (1..header.len()).contains(&pending) && has(Defect::HeaderInOneSegment)
                            || pending >= header.len() && has(Defect::BodyInOneSegment)
                        {
                            return pending;
                        }
                        break;
                    };
                    serial += 1;
                    if frame.sub_messages().is_err() && has(Defect::DiesOfSubLists) {
                        let _ = inputs.send(Input::Killed("a list of sub-messages")).await;
                    }
                    if matches!(frame.body, [u8::MAX, rest @ ..] if rest.iter().all(|byte| *byte == u8::MAX))
                        && has(Defect::DiesOfValues)
                    {
                        let _ = inputs.send(Input::Killed("a value")).await;
                    }
                    if frame.header.serial != serial && has(Defect::DiesOfSerials) {
                        let _ = inputs.send(Input::Killed("a serial")).await;
                    }
                    let message = Input::Message { connection, id: frame.header.id, body: frame.body.to_vec() };
                    if inputs.send(message).await.is_err() {
                        return deframer.pending();
                    }
                }
            }
        }
    }
}

/// The link stage up to the result; `None` if it fails.
async fn link(stream: &mut Stream, connection: u64, server: &Server, outbound: mpsc::Sender<Vec<u8>>) -> Option<Link> {
    let has = |defect| server.settings.defect == Some(defect);
    let error_if = |defect, otherwise| if has(defect) { LinkError::ERROR } else { otherwise };

    let mut header = [0; LINK_HEADER_LEN];
    let checked = if has(Defect::MagicCheckedLate) { LINK_HEADER_LEN } else { MAGIC.len() };
    stream.read_exact(&mut header[..checked]).await.ok()?;
    if !header.starts_with(&MAGIC) {
        return refuse(stream, error_if(Defect::MagicAnsweredWithError, LinkError::INVALID_MAGIC)).await;
    }
    if has(Defect::LinkNeedsWholeSegments) && !rest_has_arrived(stream).await {
        return None;
    }
    stream.read_exact(&mut header[checked..]).await.ok()?;
    let [_, major, minor, size] = header.as_chunks().0 else { return None };
    let [major, minor, size] = [major, minor, size].map(|word| u32::from_le_bytes(*word));
    if major == 0 {
        return None;
    }
    if (major != VERSION_MAJOR && !has(Defect::OtherMajorAccepted))
        || (minor != VERSION_MINOR && has(Defect::MinorChecked))
    {
        return refuse(stream, LinkError::VERSION_MISMATCH).await;
    }
    let size = usize::try_from(size).ok()?;
    if size < LINK_MESSAGE_LEN {
        return refuse(stream, error_if(Defect::SmallSizeAnsweredWithError, LinkError::INVALID_DATA)).await;
    }
    let largest =
        if has(Defect::LargeSizeAccepted) { 64 * 1024 } else { usize::try_from(limits::MAX_LINK_BODY).ok()? };
    if size > largest {
        return refuse(stream, LinkError::INVALID_DATA).await;
    }

    let mut body = vec![0; size];
    stream.read_exact(&mut body).await.ok()?;
    if has(Defect::WordsCountedInBytes) {
        // The highest bytes of both counts.
        body[9] &= 0x3f;
        body[13] &= 0x3f;
    }
    let message = match LinkMessage::decode(&body) {
        Ok(message) => message,
        Err(error) => {
            let defect = match error.fault {
                Fault::LimitExceeded => Defect::TooManyWordsAnsweredWithError,
                _ => Defect::WordsOutsideAnsweredWithError,
            };
            return refuse(stream, error_if(defect, LinkError::INVALID_DATA)).await;
        }
    };
    let secured = matches!(stream, Either::Right(_));
    let is_child = message.channel_type != ChannelType::MAIN;
    let insecure = has(Defect::PlaintextAccepted) || is_child && has(Defect::PlaintextChildAccepted);
    match server.security {
        Security::Required if !secured && !insecure => {
            return refuse(stream, LinkError::NEED_SECURED).await;
        }
        Security::Refused if secured && !has(Defect::TlsAccepted) => {
            return refuse(stream, LinkError::NEED_UNSECURED).await;
        }
        _ => {}
    }
    let words = 4 * (message.capabilities.common.as_wire().len() + message.capabilities.channel.as_wire().len());
    if body.len() != LINK_MESSAGE_LEN + words && has(Defect::GapsRefused) {
        return refuse(stream, LinkError::INVALID_DATA).await;
    }
    let public_key = if has(Defect::PublicKeyMalformed) { [0; PUBLIC_KEY_LEN] } else { TicketKey::shared().public() };
    let common = [COMMON_CAPABILITIES.to_le_bytes()];
    let channel = channel_capabilities(message.channel_type).map(u32::to_le_bytes);
    let capabilities =
        Capabilities { common: CapabilityWords::new(&common), channel: CapabilityWords::new(channel.as_slice()) };
    if !is_child && has(Defect::PlaceTakenBeforeTicket) {
        server.inputs.send(Input::Evicted).await.ok()?;
    }
    reply(stream, &LinkReply { error: LinkError::OK, public_key, capabilities }).await?;

    let client_has = |capability| message.capabilities.common.has(capability);
    let mut mechanism = AuthMechanism::SPICE;
    if client_has(CommonCapability::AUTH_SELECTION) || has(Defect::MechanismAlwaysAwaited) {
        mechanism = AuthMechanism(stream.read_u32_le().await.ok()?);
    }
    match mechanism {
        AuthMechanism::SASL if secured && has(Defect::AnonymousAccepted) => accept_anonymous(stream).await?,
        AuthMechanism::SPICE => accept_ticket(stream, server, is_child).await?,
        _ if has(Defect::UnknownMechanismAccepted) => accept_ticket(stream, server, is_child).await?,
        _ => return refuse(stream, LinkError::INVALID_DATA).await,
    }
    Some(Link {
        connection,
        connection_id: message.connection_id,
        channel: ChannelId { channel_type: message.channel_type, id: message.channel_id },
        capabilities: message.capabilities.channel.words().next().unwrap_or(0),
        header: if client_has(CommonCapability::MINI_HEADER) { HeaderKind::Mini } else { HeaderKind::Full },
        outbound,
    })
}

/// `None` if the ticket is not right.
async fn accept_ticket(stream: &mut Stream, server: &Server, is_child: bool) -> Option<()> {
    let has = |defect| server.settings.defect == Some(defect);
    let mut ticket = [0; TICKET_LEN];
    stream.read_exact(&mut ticket).await.ok()?;
    if has(Defect::BytesBehindTicketLost) {
        // What came with the ticket is there by now.
        let _ = stream.read(&mut [0; 1024]).now_or_never();
    }
    if let Some(password) = &server.password {
        // Decryption takes milliseconds in which the other connections must not wait.
        let sent = tokio::task::spawn_blocking(move || TicketKey::shared().password(&ticket)).await.ok()?;
        let opens = if password.is_empty() {
            // There is none, so none is right: in particular not an empty one.
            has(Defect::VoidPasswordAccepted)
        } else {
            let begins = sent.as_ref().is_some_and(|sent| sent.starts_with(password.as_bytes()));
            let right = begins
                && (sent.is_some_and(|sent| sent.len() == password.len()) || has(Defect::TicketComparedInPart))
                && !has(Defect::RightTicketRefused);
            right || has(Defect::AnyTicketAccepted) || is_child && has(Defect::ChildTicketUnchecked)
        };
        if !opens {
            write(stream, &LinkError::PERMISSION_DENIED.0.to_le_bytes()).await;
            return None;
        }
    }
    Some(())
}

/// SASL's mechanism for those who do not say who they are, which lets everybody in.
async fn accept_anonymous(stream: &mut Stream) -> Option<()> {
    const NAME: &[u8] = b"\x09\0\0\0ANONYMOUS";
    write(stream, NAME).await;
    stream.read_exact(&mut [0; NAME.len()]).await.ok()?;
    let length = stream.read_u32_le().await.ok()?;
    tokio::io::copy(&mut stream.take(length.into()), &mut tokio::io::sink()).await.ok()?;
    // Nothing to go on with: it is complete, and all is well.
    write(stream, &[0, 0, 0, 0, 1, 0, 0, 0, 0]).await;
    Some(())
}

const COMMON_CAPABILITIES: u32 = 1 << CommonCapability::AUTH_SELECTION.0
    | 1 << CommonCapability::AUTH_SPICE.0
    | 1 << CommonCapability::MINI_HEADER.0;

/// What spice-server has, as far as this host means it.
fn channel_capabilities(channel_type: ChannelType) -> Option<u32> {
    match channel_type {
        ChannelType::MAIN => Some(word(&[
            MainCapability::SEMI_SEAMLESS_MIGRATE,
            MainCapability::NAME_AND_UUID,
            MainCapability::AGENT_CONNECTED_TOKENS,
            MainCapability::SEAMLESS_MIGRATE,
        ])),
        ChannelType::DISPLAY => Some(word(&[DisplayCapability::MONITORS_CONFIG])),
        ChannelType::INPUTS => Some(word(&[InputsCapability::KEY_SCANCODE])),
        _ => None,
    }
}

/// Ends the link stage with an error.
async fn refuse(stream: &mut Stream, error: LinkError) -> Option<Link> {
    let reply_with_error = LinkReply { error, public_key: [0; PUBLIC_KEY_LEN], capabilities: Capabilities::default() };
    reply(stream, &reply_with_error).await?;
    None
}

async fn reply(stream: &mut Stream, reply: &LinkReply<'_>) -> Option<()> {
    let mut bytes = vec![0; LINK_HEADER_LEN + reply.encoded_len()];
    reply.encode_with_header(&mut bytes).ok()?;
    write(stream, &bytes).await.then_some(())
}

/// Whether what follows the magic has arrived all at once; a header that is refused in any case needs nothing behind it.
async fn rest_has_arrived(stream: &Stream) -> bool {
    let Either::Left(stream) = stream else { return true };
    let mut rest = [0; LINK_HEADER_LEN - MAGIC.len() + limits::MAX_LINK_BODY as usize];
    let Ok(arrived) = stream.peek(&mut rest).await else { return false };
    let ([major, _, size, ..], _) = rest[..arrived].as_chunks() else { return false };
    let message_len = match (u32::from_le_bytes(*major), u32::from_le_bytes(*size)) {
        (VERSION_MAJOR, size @ 18..=limits::MAX_LINK_BODY) => usize::try_from(size).unwrap_or(usize::MAX),
        _ => 0,
    };
    arrived >= LINK_HEADER_LEN - MAGIC.len() + message_len
}
