//! The link stage from the client's side, step by step.

use std::{io, net::SocketAddr, time::Duration};

use spice_migration::{
    ClientMessage,
    caps::{CapabilityWords, CommonCapability},
    frame::{self, HeaderKind},
    limits,
    link::{AuthMechanism, Capabilities, LINK_HEADER_LEN, LinkError, LinkHeader, LinkMessage, LinkReply},
    message::{ChannelId, Message},
    migrate::observer::{self, Side},
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpSocket,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::either::Either;

use super::{
    Client,
    channel::{Channel, Closed},
    wire::{Portion, Wire},
};
use crate::{
    case::Unexpected,
    peer::{
        ticket,
        tls::{self, Stream},
    },
    trace::{Direction, Linked, Trace},
};

/// Between two segments of what could go in one: for the peer to find the first alone.
const PAUSE: Duration = Duration::from_millis(1);

/// What a client asks for when it links a channel.
#[derive(Clone, Debug)]
pub struct LinkRequest {
    /// The session; 0 for a new one.
    pub connection_id: u32,
    /// The channel.
    pub channel: ChannelId,
    /// The client's common capability words.
    pub common_words: Vec<u32>,
    /// The client's capability words for this channel type.
    pub channel_words: Vec<u32>,
}

impl LinkRequest {
    /// Header and link message.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (common, channel) = (on_wire(&self.common_words), on_wire(&self.channel_words));
        let message = LinkMessage {
            connection_id: self.connection_id,
            channel_type: self.channel.channel_type,
            channel_id: self.channel.id,
            capabilities: Capabilities {
                common: CapabilityWords::new(&common),
                channel: CapabilityWords::new(&channel),
            },
        };
        let mut bytes = vec![0; LINK_HEADER_LEN + message.encoded_len()];
        // Words beyond the limits do not fit into a link message; cases that want them write the bytes themselves.
        let length = message.encode_with_header(&mut bytes).unwrap_or(0);
        bytes.truncate(length);
        bytes
    }

    fn has_common(&self, capability: CommonCapability) -> bool {
        self.common_words.first().is_some_and(|word| word >> capability.0 & 1 == 1)
    }
}

/// A server's link reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// `OK`, or why not.
    pub error: LinkError,
    /// The ticket's key.
    pub public_key: Vec<u8>,
    /// The server's common capability words.
    pub common_words: Vec<[u8; 4]>,
    /// Its words for this channel type.
    pub channel_words: Vec<[u8; 4]>,
}

impl Reply {
    /// Whether the server has a common capability.
    #[must_use]
    pub fn has_common(&self, capability: CommonCapability) -> bool {
        CapabilityWords::new(&self.common_words).has(capability)
    }
}

/// A connection in its link stage.
#[derive(Debug)]
pub struct RawLink {
    pub(super) stream: Stream,
    address: SocketAddr,
    pub(super) name: String,
    pub(super) patience: Duration,
    /// Where its bytes are noted, and perhaps cut.
    pub(super) wire: Option<Wire>,
    /// Messages that go together with the ticket.
    early: Vec<ClientMessage<'static>>,
    trace: Trace,
}

impl RawLink {
    pub(super) async fn open(client: &Client, name: String, address: SocketAddr) -> Result<Self, Unexpected> {
        let Client { patience, wire, receive_buffer, tls, early, trace, .. } = client.clone();
        let open = async {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            if let Some(size) = receive_buffer {
                socket.set_recv_buffer_size(size)?;
            }
            let stream = socket.connect(address).await?;
            stream.set_nodelay(true)?;
            match &tls {
                None => Ok(Either::Left(stream)),
                Some(connector) => tls::secure(stream, connector, address.ip()).await,
            }
        };
        let opened: Result<Stream, String> = match timeout(patience, open).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("nothing within {patience:?}")),
        };
        match opened {
            Ok(stream) => {
                trace.event(&name, &"connected");
                Ok(Self { stream, address, name, patience, wire, early, trace })
            }
            Err(got) => {
                trace.event(&name, &format_args!("not connected: {got}"));
                Err(Unexpected { connection: name, expected: format!("a connection to {address}"), got })
            }
        }
    }

    /// Its name in the trace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Something on this connection was not as awaited.
    pub fn unexpected(&self, expected: impl Into<String>, got: impl Into<String>) -> Unexpected {
        Unexpected { connection: self.name.clone(), expected: expected.into(), got: got.into() }
    }

    /// Sends bytes, in one segment if the system does not cut them.
    ///
    /// # Errors
    /// When the peer takes them not, or not in time.
    pub async fn send(&mut self, what: &str, bytes: &[u8]) -> Result<(), Unexpected> {
        self.trace.record(&self.name, Direction::Sent, &format_args!("{what}, {} bytes", bytes.len()));
        let portion =
            self.wire.as_ref().map_or(Portion::Whole, |wire| wire.portion(&self.name, what, false, bytes.len()));
        let sent = timeout(self.patience, write(&mut self.stream, bytes, portion)).await;
        if let (Portion::Last(_), Some(wire)) = (portion, &self.wire) {
            wire.end();
            return Err(self.unexpected(format!("to send {what}"), Closed::Cut.to_string()));
        }
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.unexpected(format!("to send {what}"), error.to_string())),
            Err(_) => Err(self.unexpected(format!("to send {what}"), "a peer that does not read")),
        }
    }

    /// Sends header and link message.
    ///
    /// # Errors
    /// See [`Self::send`].
    pub async fn request(&mut self, request: &LinkRequest) -> Result<(), Unexpected> {
        let LinkRequest { connection_id, channel, common_words, channel_words } = request;
        let what = format!(
            "link message (connection id {connection_id:#x}, {} {}, common {common_words:x?}, channel {channel_words:x?})",
            channel.channel_type, channel.id
        );
        self.send(&what, &request.to_bytes()).await
    }

    /// Waits for a whole link reply.
    ///
    /// # Errors
    /// When it does not come, or is not one.
    pub async fn reply(&mut self) -> Result<Reply, Unexpected> {
        const AWAITED: &str = "a link reply";
        let header = self.receive::<LINK_HEADER_LEN>(AWAITED).await?;
        let header = LinkHeader::decode(&header).map_err(|error| self.unexpected(AWAITED, error.to_string()))?;
        let mut body = vec![0; usize::try_from(header.size.min(limits::MAX_LINK_BODY)).unwrap_or_default()];
        self.read(AWAITED, &mut body).await?;
        let reply = LinkReply::decode(&body).map_err(|error| self.unexpected(AWAITED, error.to_string()))?;
        let reply = Reply {
            error: reply.error,
            public_key: reply.public_key.to_vec(),
            common_words: reply.capabilities.common.as_wire().to_vec(),
            channel_words: reply.capabilities.channel.as_wire().to_vec(),
        };
        self.trace.record(
            &self.name,
            Direction::Received,
            &format_args!(
                "link reply ({}, common {:?}, channel {:?})",
                reply.error,
                CapabilityWords::new(&reply.common_words),
                CapabilityWords::new(&reply.channel_words)
            ),
        );
        Ok(reply)
    }

    /// Sends mechanism, if both sides select one, and ticket, and what the client sends early.
    ///
    /// # Errors
    /// When the server's key is none, or see [`Self::send`].
    pub async fn authenticate(
        &mut self,
        request: &LinkRequest,
        reply: &Reply,
        password: &str,
    ) -> Result<(), Unexpected> {
        let ticket = ticket::encrypt(&reply.public_key, password)
            .map_err(|error| self.unexpected("a public key for the ticket", error.to_string()))?;
        let selects = CommonCapability::AUTH_SELECTION;
        let (mut what, mut bytes) = match request.has_common(selects) && reply.has_common(selects) {
            true => {
                let mechanism = AuthMechanism::SPICE.0.to_le_bytes();
                ("mechanism SPICE and ticket".to_owned(), [mechanism.as_slice(), &ticket].concat())
            }
            false => ("ticket".to_owned(), ticket.to_vec()),
        };
        for message in &self.early {
            what += &format!(", {message:?}");
            bytes.extend(framed(headers(request, reply), message));
        }
        self.send(&what, &bytes).await
    }

    /// Waits for the link result.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn result(&mut self) -> Result<LinkError, Unexpected> {
        let result = LinkError(u32::from_le_bytes(self.receive("a link result").await?));
        self.trace.record(&self.name, Direction::Received, &format_args!("link result {result}"));
        Ok(result)
    }

    /// Waits for the peer to close; what it sends before is passed over.
    ///
    /// # Errors
    /// When it does not.
    pub async fn closed(&mut self) -> Result<Closed, Unexpected> {
        const AWAITED: &str = "the connection's end";
        let deadline = Instant::now() + self.patience;
        let mut passed = 0;
        let mut buffer = [0; 4096];
        loop {
            match timeout_at(deadline, self.stream.read(&mut buffer)).await {
                Ok(Ok(0)) => return Ok(self.ended(Closed::Clean)),
                Ok(Ok(length)) => passed += length,
                Ok(Err(_)) => return Ok(self.ended(Closed::Reset)),
                Err(_) => {
                    let got = format!("it open after {:?}, with {passed} bytes more", self.patience);
                    return Err(self.unexpected(AWAITED, got));
                }
            }
        }
    }

    fn ended(&self, closed: Closed) -> Closed {
        self.trace.event(&self.name, &closed);
        closed
    }

    /// Goes on with messages, behind a link result of OK.
    #[must_use]
    pub fn into_channel(self, request: &LinkRequest, reply: &Reply) -> Channel {
        let headers = headers(request, reply);
        let (common, channel) = (on_wire(&request.common_words), on_wire(&request.channel_words));
        let watched = self.trace.linked(
            &self.name,
            &Linked {
                server: self.address,
                channel: request.channel,
                connection_id: request.connection_id,
                client: [&common, &channel],
                server_words: [&reply.common_words, &reply.channel_words],
            },
        );
        for message in &self.early {
            let body = &framed(headers, message)[headers.len()..];
            watched.message(observer::Received { from: Side::Client, serial: None, id: message.id(), body });
        }
        Channel::new(self, request.channel, headers, reply.clone(), watched)
    }

    /// The same for somebody else's messages: the stream, and which headers they have.
    pub(super) fn into_stream(self, request: &LinkRequest, reply: &Reply) -> (Stream, HeaderKind) {
        (self.stream, headers(request, reply))
    }

    async fn receive<const LENGTH: usize>(&mut self, awaited: &str) -> Result<[u8; LENGTH], Unexpected> {
        let mut bytes = [0; LENGTH];
        self.read(awaited, &mut bytes).await?;
        Ok(bytes)
    }

    /// Reads as many bytes as are asked for.
    ///
    /// # Errors
    /// When they do not come.
    pub async fn read(&mut self, awaited: &str, bytes: &mut [u8]) -> Result<(), Unexpected> {
        match timeout(self.patience, self.stream.read_exact(bytes)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                let closed = if error.kind() == io::ErrorKind::UnexpectedEof { Closed::Clean } else { Closed::Reset };
                self.ended(closed);
                Err(self.unexpected(awaited, closed.to_string()))
            }
            Err(_) => Err(self.unexpected(awaited, format!("nothing within {:?}", self.patience))),
        }
    }
}

/// Writes a portion, also what TLS would keep.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8], portion: Portion) -> io::Result<()> {
    let first = match portion {
        Portion::Whole => bytes.len(),
        Portion::Then(first) | Portion::Last(first) => first,
        Portion::Pieces(length) => length,
    };
    let (first, rest) = bytes.split_at(first.min(bytes.len()));
    stream.write_all(first).await?;
    stream.flush().await?;
    let segment = match portion {
        Portion::Last(_) => return stream.shutdown().await,
        Portion::Pieces(length) => length,
        Portion::Whole | Portion::Then(_) => rest.len().max(1),
    };
    for segment in rest.chunks(segment) {
        sleep(PAUSE).await;
        stream.write_all(segment).await?;
        stream.flush().await?;
    }
    Ok(())
}

/// A message behind a header, for a connection that is no [`Channel`].
#[must_use]
pub fn framed(headers: HeaderKind, message: &ClientMessage<'_>) -> Vec<u8> {
    let mut bytes = vec![0; headers.len() + message.encoded_len()];
    let length = frame::encode(headers, 0, message, &mut bytes).unwrap_or(0);
    bytes.truncate(length);
    bytes
}

fn on_wire(words: &[u32]) -> Vec<[u8; 4]> {
    words.iter().map(|word| word.to_le_bytes()).collect()
}

/// Which headers messages have behind this link stage.
fn headers(request: &LinkRequest, reply: &Reply) -> HeaderKind {
    let mini = CommonCapability::MINI_HEADER;
    if request.has_common(mini) && reply.has_common(mini) { HeaderKind::Mini } else { HeaderKind::Full }
}
