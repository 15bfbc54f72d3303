//! One linked connection: its messages in order, and the answers that every client gives.

use std::{
    collections::VecDeque,
    fmt,
    future::pending,
    io,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use spice_migration::{
    ChannelType, ClientMessage, Data, DecodeError, ServerMessage,
    frame::{self, Deframer, Header, HeaderKind},
    message::{ChannelId, Message, client, server},
    migrate::observer::{self, Side},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, WriteHalf, split},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{timeout, timeout_at},
};
use tokio_util::either::Either;

use super::{
    link::{self, RawLink, Reply},
    wire::{Portion, Wire},
};
use crate::{
    case::Unexpected,
    peer::tls::Stream,
    trace::{Direction, Trace, Watched},
};

/// What a display channel's client sends first, `SPICE_MSGC_DISPLAY_INIT`: cache 1 of 20 MiB, dictionary 1 of 8 MiB.
pub(crate) const DISPLAY_INIT: (u16, &[u8]) = (101, b"\x01\0\0\x40\x01\0\0\0\0\x01\0\0\x80\0");

/// Largest body that is read. QEMU's display sends single images of a few megabytes.
const MAX_BODY: u32 = 16 << 20;

/// Messages that a connection may bring in its lifetime, and bytes of their bodies that are kept. A peer that sends more is
/// flooding: no case comes near. Together with [`MAX_BODY`] this bounds the memory per connection.
const MAX_MESSAGES: usize = 50_000;
const MAX_KEPT: usize = 16 << 20;

/// Bytes that all connections of a case may hold together, in messages that are kept or not yet whole. Where a server has dozens of
/// channels, the bounds for each of them do not help.
const MAX_HELD: usize = 64 << 20;

/// What one connection holds of what those of its case do, until neither its task nor its messages are there any more.
#[derive(Debug)]
struct Held {
    own: AtomicUsize,
    all: Arc<AtomicUsize>,
}

impl Held {
    /// It holds so much now. Whether that is not too much.
    fn set(&self, bytes: usize) -> bool {
        let before = self.own.swap(bytes, Ordering::Relaxed);
        let all = self.all.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.all.fetch_sub(before, Ordering::Relaxed);
        all - before <= MAX_HELD
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Bytes that a PING's body is cut to: its ballast is of no interest.
const KEPT_OF_PING: usize = 12;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer closed it.
    Clean,
    /// The peer reset it.
    Reset,
    /// The suite gave up: the peer sends without end, or a body beyond the limit.
    Flooded,
    /// The suite gave up: the peer does not read.
    Stuck,
    /// The suite's client has gone, as it was to; see [`Cut`](super::Cut).
    Cut,
}

impl fmt::Display for Closed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Clean => "the peer closed the connection",
            Self::Reset => "the peer reset the connection",
            Self::Flooded => "the peer floods the connection",
            Self::Stuck => "the peer does not read",
            Self::Cut => "the suite's client has gone",
        })
    }
}

/// A message as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// When.
    pub at: Instant,
    /// Counted from 1, or as the full header says.
    pub serial: u64,
    /// The type of the channel that it came on.
    pub channel_type: ChannelType,
    /// Its id.
    pub id: u16,
    /// Its body; without the ballast of a PING, and empty for messages that are not migration's concern.
    pub body: Vec<u8>,
}

impl Received {
    /// The message.
    ///
    /// # Errors
    /// When it does not decode.
    pub fn message(&self) -> Result<ServerMessage<'_>, DecodeError> {
        ServerMessage::decode(self.channel_type, self.id, &self.body)
    }

    /// The message's name, or its number.
    #[must_use]
    pub fn name(&self) -> String {
        match self.message() {
            Ok(message) => message.short_name().to_string(),
            Err(error) => format!("a malformed message: {error}"),
        }
    }
}

enum Event {
    Message(Received),
    Closed(Closed),
}

enum Command {
    Send {
        bytes: Vec<u8>,
        last: bool,
    },
    /// Write these bytes as they are, and nothing by itself from then on.
    SendBytes(Vec<u8>),
    /// Close the sending direction: the peer learns that nothing follows, and can still be read.
    Finish,
    Close,
    /// Close in a way that the peer learns of as a reset.
    Reset,
    /// Read all that has come, and drop this then.
    Settle(oneshot::Sender<()>),
}

/// One linked connection.
#[derive(Debug)]
pub struct Channel {
    /// Its name in the trace.
    pub name: String,
    /// Which channel.
    pub id: ChannelId,
    /// What the server said in the link stage.
    pub reply: Reply,
    /// Every message that was taken so far, in order.
    pub taken: Vec<Received>,
    headers: HeaderKind,
    commands: mpsc::UnboundedSender<Command>,
    events: mpsc::UnboundedReceiver<Event>,
    /// Looked at, not yet taken.
    waiting: VecDeque<Received>,
    closed: Option<Closed>,
    patience: Duration,
    trace: Trace,
    pump: JoinHandle<()>,
    _held: Arc<Held>,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Channel {
    pub(super) fn new(link: RawLink, id: ChannelId, headers: HeaderKind, reply: Reply, watched: Watched) -> Self {
        let RawLink { stream, name, patience, wire, .. } = link;
        let trace = watched.trace().clone();
        let (commands, received_commands) = mpsc::unbounded_channel();
        let (sent_events, events) = mpsc::unbounded_channel();
        let held = Arc::new(Held { own: AtomicUsize::new(0), all: trace.held() });
        let pump = Pump {
            name: name.clone(),
            held: held.clone(),
            channel_type: id.channel_type,
            headers,
            trace: trace.clone(),
            watched: Some(watched),
            patience,
            events: sent_events,
            serial: 1,
            window: 0,
            unacknowledged: 0,
            quiet: false,
            wire,
        };
        let pump = tokio::spawn(pump.run(stream, received_commands));
        Self {
            name,
            id,
            reply,
            taken: Vec::new(),
            headers,
            commands,
            events,
            waiting: VecDeque::new(),
            closed: None,
            patience,
            trace,
            pump,
            _held: held,
        }
    }

    /// Which headers the messages have.
    #[must_use]
    pub const fn headers(&self) -> HeaderKind {
        self.headers
    }

    /// How long it waits for what should come at once.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        self.patience
    }

    /// Sends what a client must send on a new channel, and waits for what a server always sends then.
    ///
    /// spice-server 0.15.1 can crash when a display client closes before its INIT has been processed, so the wait there is for
    /// something that comes only afterwards, if anything does.
    ///
    /// # Errors
    /// When that does not come.
    pub async fn start(&mut self) -> Result<(), Unexpected> {
        match self.id.channel_type {
            ChannelType::DISPLAY => {
                let (id, body) = DISPLAY_INIT;
                self.send(ClientMessage::Unknown { id, body: Data(body) });
                let begun = self.next("a first message").await?;
                let drawn =
                    |message: &ServerMessage<'_>| matches!(message, ServerMessage::Unknown { .. }).then_some(());
                if begun.message().is_ok_and(|message| drawn(&message).is_some()) {
                    return Ok(());
                }
                // Where nothing is drawn, nothing more comes.
                let awaited = self.until("a message of the display's own", drawn).await;
                if self.has_ended().is_some() { awaited } else { Ok(()) }
            }
            ChannelType::INPUTS | ChannelType::CURSOR => self.next("a first message").await.map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Sends a message.
    pub fn send(&self, message: ClientMessage<'_>) {
        self.trace.record(&self.name, Direction::Sent, &format_args!("{message:?}"));
        self.command(&message, false);
    }

    /// Sends a message as the last one: from now on the channel answers nothing by itself either.
    pub fn send_last(&self, message: ClientMessage<'_>) {
        self.trace.record(&self.name, Direction::Sent, &format_args!("{message:?} (last)"));
        self.command(&message, true);
    }

    /// Sends bytes that need not be a message, as the last ones: from now on the channel answers nothing by itself either, and
    /// nobody watches any more whether the conversation conforms.
    pub fn send_bytes(&self, what: &str, bytes: Vec<u8>) {
        self.trace.record(&self.name, Direction::Sent, &what);
        let _ = self.commands.send(Command::SendBytes(bytes));
    }

    fn command(&self, message: &impl Message, last: bool) {
        let mut bytes = vec![0; HeaderKind::Full.len() + message.encoded_len()];
        // The pump puts the header in front: only it knows the serial.
        let length = message.encode(&mut bytes[HeaderKind::Full.len()..]).unwrap_or(0);
        let size = u32::try_from(length).unwrap_or(u32::MAX);
        bytes.truncate(HeaderKind::Full.len() + length);
        let header = Header { serial: 0, id: message.id(), size, sub_list: 0 };
        let start = HeaderKind::Full.len() - self.headers.len();
        let encoded = header.encode(self.headers, &mut bytes[start..]);
        debug_assert!(encoded.is_ok(), "there is room for a full header");
        // A pump that has ended has said so in its last event.
        let _ = self.commands.send(Command::Send { bytes: bytes.split_off(start), last });
    }

    /// Tells the peer that nothing follows; what it still sends can be taken.
    pub fn finish(&self) {
        let _ = self.commands.send(Command::Finish);
    }

    /// Closes the connection.
    pub async fn close(mut self) {
        let _ = self.commands.send(Command::Close);
        // The end of the pump is the end of the connection.
        let _ = timeout(self.patience, &mut self.pump).await;
    }

    /// Resets the connection: to the peer it is as if the client's machine had forgotten it.
    pub async fn reset(mut self) {
        let _ = self.commands.send(Command::Reset);
        let _ = timeout(self.patience, &mut self.pump).await;
    }

    /// The next message.
    ///
    /// # Errors
    /// When none comes in time, or the connection ends.
    pub async fn next(&mut self, awaited: &str) -> Result<Received, Unexpected> {
        self.next_within(awaited, self.patience).await
    }

    /// The next message, with another patience.
    ///
    /// # Errors
    /// When none comes in time, or the connection ends.
    pub async fn next_within(&mut self, awaited: &str, patience: Duration) -> Result<Received, Unexpected> {
        if let Some(received) = self.waiting.pop_front() {
            self.taken.push(received.clone());
            return Ok(received);
        }
        if let Some(closed) = self.closed {
            return Err(self.unexpected(awaited, closed.to_string()));
        }
        match timeout(patience, self.events.recv()).await {
            Ok(Some(Event::Message(received))) => {
                self.taken.push(received.clone());
                Ok(received)
            }
            Ok(Some(Event::Closed(closed))) => {
                self.closed = Some(closed);
                Err(self.unexpected(awaited, closed.to_string()))
            }
            Ok(None) => Err(self.unexpected(awaited, "the end of the connection")),
            Err(_) => Err(self.unexpected(awaited, format!("nothing within {patience:?}"))),
        }
    }

    /// Takes messages until one is what `pick` looks for. Those before it stay in [`Self::taken`].
    ///
    /// # Errors
    /// When it does not come in time, or the connection ends; the text names what came instead.
    pub async fn until<T>(
        &mut self,
        awaited: &str,
        mut pick: impl FnMut(&ServerMessage<'_>) -> Option<T>,
    ) -> Result<T, Unexpected> {
        let deadline = Instant::now() + self.patience;
        let mut passed: Vec<String> = Vec::new();
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let received = self.next_within(awaited, rest).await.map_err(|mut unexpected| {
                // The time that was left for the last message says nothing; what came before does.
                if self.closed.is_none() {
                    unexpected.got = format!("nothing of the kind within {:?}", self.patience);
                }
                if !passed.is_empty() {
                    unexpected.got = format!("{}, then {}", passed.join(", "), unexpected.got);
                }
                unexpected
            })?;
            match received.message() {
                Ok(message) => match pick(&message) {
                    Some(picked) => return Ok(picked),
                    None if passed.len() < 8 => passed.push(received.name()),
                    None => {}
                },
                Err(error) => return Err(self.unexpected(awaited, error.to_string())),
            }
        }
    }

    /// The messages that have arrived and were not taken; they stay.
    pub fn arrived(&mut self) -> impl Iterator<Item = &Received> {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Message(received) => self.waiting.push_back(received),
                Event::Closed(closed) => self.closed = Some(closed),
            }
        }
        self.waiting.iter()
    }

    /// Waits until all that the peer has sent so far has been read, be it the end of the connection.
    pub async fn settle(&mut self) {
        let (settling, settled) = oneshot::channel();
        let _ = self.commands.send(Command::Settle(settling));
        // It is dropped and not sent; by a pump that has ended, too.
        let _ = timeout(self.patience, settled).await;
    }

    /// Whether the connection is known to have ended.
    pub fn has_ended(&mut self) -> Option<Closed> {
        let _ = self.arrived();
        self.closed
    }

    /// Waits for the peer to close, and takes what comes before.
    ///
    /// # Errors
    /// When it does not within `patience`.
    pub async fn closed_within(&mut self, patience: Duration) -> Result<Closed, Unexpected> {
        const AWAITED: &str = "the peer to close the connection";
        let deadline = tokio::time::Instant::now() + patience;
        self.taken.extend(self.waiting.drain(..));
        while self.closed.is_none() {
            match timeout_at(deadline, self.events.recv()).await {
                Ok(Some(Event::Message(received))) => self.taken.push(received),
                Ok(Some(Event::Closed(closed))) => self.closed = Some(closed),
                Ok(None) => break,
                Err(_) => return Err(self.unexpected(AWAITED, format!("it open after {patience:?}"))),
            }
        }
        match self.closed {
            Some(closed @ (Closed::Clean | Closed::Reset)) => Ok(closed),
            // Then it was the suite that gave up.
            Some(closed) => Err(self.unexpected(AWAITED, closed.to_string())),
            None => Err(self.unexpected(AWAITED, "the suite's own end of it gone")),
        }
    }

    /// Something on this connection was not as awaited.
    pub fn unexpected(&self, expected: impl Into<String>, got: impl Into<String>) -> Unexpected {
        Unexpected { connection: self.name.clone(), expected: expected.into(), got: got.into() }
    }
}

/// The task behind a channel: it alone reads and writes.
struct Pump {
    name: String,
    held: Arc<Held>,
    channel_type: ChannelType,
    headers: HeaderKind,
    trace: Trace,
    /// `None` once it is no conversation any more.
    watched: Option<Watched>,
    patience: Duration,
    events: mpsc::UnboundedSender<Event>,
    /// Of the next message sent.
    serial: u64,
    /// Messages per ACK; 0: none.
    window: u32,
    unacknowledged: u32,
    /// Whether the last message was sent.
    quiet: bool,
    wire: Option<Wire>,
}

impl Pump {
    async fn run(mut self, stream: Stream, mut commands: mpsc::UnboundedReceiver<Command>) {
        let looked_at = second_handle(&stream);
        let mut settling = Vec::new();
        let (mut reader, mut writer) = split(stream);
        let mut deframer = Deframer::new(self.headers).with_limit(MAX_BODY);
        let mut buffer = vec![0; 64 << 10];
        let (mut messages, mut kept) = (0, 0);
        let wire = self.wire.clone();
        let closed = 'connection: loop {
            if !settling.is_empty() {
                match looked_at.as_ref().map_or(Ok(false), something_has_come) {
                    Ok(true) => {}
                    Ok(false) => settling.clear(),
                    // The one look at it that there is.
                    Err(_) => break Closed::Reset,
                }
            }
            tokio::select! {
                () = gone(wire.as_ref()) => break Closed::Cut,
                command = commands.recv() => match command {
                    Some(Command::Send { mut bytes, last }) => {
                        self.quiet |= last;
                        if let Err(closed) = self.write(&mut writer, &mut bytes, false).await {
                            break closed;
                        }
                    }
                    Some(Command::SendBytes(bytes)) => {
                        self.quiet = true;
                        self.watched = None;
                        if let Err(closed) = self.write_bytes(&mut writer, &bytes, Portion::Whole).await {
                            break closed;
                        }
                    }
                    Some(Command::Finish) => {
                        self.trace.event(&self.name, &"the suite sends nothing more");
                        self.quiet = true;
                        if writer.shutdown().await.is_err() {
                            break Closed::Reset;
                        }
                    }
                    Some(Command::Reset) => {
                        self.trace.event(&self.name, &"reset by the suite");
                        // If it fails, the connection is closed in the ordinary way.
                        let _ = match &reader.unsplit(writer) {
                            Either::Left(stream) => stream.set_zero_linger(),
                            Either::Right(stream) => stream.get_ref().0.set_zero_linger(),
                        };
                        return;
                    }
                    Some(Command::Close) | None => {
                        self.trace.event(&self.name, &"closed by the suite");
                        return;
                    }
                    Some(Command::Settle(done)) => settling.push(done),
                },
                read = reader.read(&mut buffer) => {
                    let length = match read {
                        Ok(0) => break Closed::Clean,
                        Ok(length) => length,
                        Err(_) => break Closed::Reset,
                    };
                    deframer.push(&buffer[..length]);
                    let mut answers = Vec::new();
                    loop {
                        let frame = match deframer.next_frame() {
                            Ok(Some(frame)) => frame,
                            Ok(None) => break,
                            Err(oversized) => {
                                self.trace.event(&self.name, &oversized);
                                break 'connection Closed::Flooded;
                            }
                        };
                        let received = self.receive(frame, &mut answers);
                        messages += 1;
                        kept += received.body.len();
                        if messages > MAX_MESSAGES || kept > MAX_KEPT {
                            break 'connection Closed::Flooded;
                        }
                        let _ = self.events.send(Event::Message(received));
                    }
                    if !self.held.set(kept + deframer.pending()) {
                        break Closed::Flooded;
                    }
                    for mut answer in answers {
                        if let Err(closed) = self.write(&mut writer, &mut answer, true).await {
                            break 'connection closed;
                        }
                    }
                }
            }
        };
        if closed == Closed::Reset {
            self.trace.reset(&self.name);
        }
        if let (Closed::Clean | Closed::Reset, Some(watched)) = (closed, &mut self.watched) {
            watched.server_ended();
        }
        self.trace.event(&self.name, &closed);
        let _ = self.events.send(Event::Closed(closed));
    }

    /// Records a message, adds what a client answers by itself, and keeps what matters of it.
    fn receive(&mut self, frame: frame::Frame<'_>, answers: &mut Vec<Vec<u8>>) -> Received {
        let Header { serial, id, .. } = frame.header;
        if let Some(watched) = &self.watched {
            watched.message(observer::Received {
                from: Side::Server,
                serial: (self.headers == HeaderKind::Full).then_some(serial),
                id,
                body: frame.body,
            });
        }
        let message = ServerMessage::decode(self.channel_type, id, frame.body);
        let body = match &message {
            Ok(ServerMessage::Unknown { .. }) => {
                let text = format_args!("{} message {id}, {} bytes", self.channel_type, frame.body.len());
                self.trace.record(&self.name, Direction::Received, &text);
                &[]
            }
            Ok(message) => {
                self.trace.record(&self.name, Direction::Received, &format_args!("{message:?}"));
                match message {
                    ServerMessage::Ping(_) => frame.body.get(..KEPT_OF_PING).unwrap_or(frame.body),
                    _ => frame.body,
                }
            }
            Err(error) => {
                self.trace.record(&self.name, Direction::Received, error);
                frame.body
            }
        };
        if !self.quiet {
            match message {
                Ok(ServerMessage::Ping(server::Ping { id, timestamp, .. })) => {
                    self.answer(ClientMessage::Pong(client::Pong { id, timestamp }), answers);
                }
                Ok(ServerMessage::SetAck(server::SetAck { generation, window })) => {
                    self.window = window;
                    self.unacknowledged = 0;
                    self.answer(ClientMessage::AckSync(client::AckSync { generation }), answers);
                }
                _ => {}
            }
            self.unacknowledged += 1;
            if self.window != 0 && self.unacknowledged >= self.window {
                self.unacknowledged = 0;
                self.answer(ClientMessage::Ack, answers);
            }
        }
        Received { at: Instant::now(), serial, channel_type: self.channel_type, id, body: body.to_vec() }
    }

    fn answer(&self, message: ClientMessage<'_>, answers: &mut Vec<Vec<u8>>) {
        self.trace.record(&self.name, Direction::Sent, &format_args!("{message:?}"));
        let mut bytes = vec![0; self.headers.len() + message.encoded_len()];
        let encoded = frame::encode(self.headers, 0, &message, &mut bytes);
        debug_assert!(encoded.is_ok(), "there is room");
        answers.push(bytes);
    }

    /// Writes one message, numbered if its header has a serial.
    async fn write(&mut self, writer: &mut WriteHalf<Stream>, bytes: &mut [u8], is_answer: bool) -> Result<(), Closed> {
        if let (HeaderKind::Full, Some(serial)) = (self.headers, bytes.first_chunk_mut()) {
            *serial = self.serial.to_le_bytes();
        }
        let header = Header::decode(self.headers, bytes, self.serial);
        let (id, serial) = header.map_or((0, 0), |header| (header.id, header.serial));
        let body = bytes.get(self.headers.len()..).unwrap_or_default();
        let portion = self.wire.as_ref().map_or(Portion::Whole, |wire| {
            let name = match ClientMessage::decode(self.channel_type, id, body) {
                Ok(message) => message.short_name().to_string(),
                Err(error) => error.to_string(),
            };
            wire.portion(&self.name, &name, is_answer, bytes.len())
        });
        // What the server does not get whole is no message.
        let whole = !matches!(portion, Portion::Last(length) if length < bytes.len());
        if let (Some(watched), true) = (&self.watched, whole) {
            let serial = (self.headers == HeaderKind::Full).then_some(serial);
            watched.message(observer::Received { from: Side::Client, serial, id, body });
        }
        self.serial += 1;
        self.write_bytes(writer, bytes, portion).await
    }

    async fn write_bytes(&self, writer: &mut WriteHalf<Stream>, bytes: &[u8], portion: Portion) -> Result<(), Closed> {
        let written = timeout(self.patience, link::write(writer, bytes, portion)).await;
        if let (Portion::Last(_), Some(wire)) = (portion, &self.wire) {
            wire.end();
            return Err(Closed::Cut);
        }
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Closed::Reset),
            Err(_) => Err(Closed::Stuck),
        }
    }
}

/// A connection once more, to look at what has come without waiting until the runtime has heard of it.
fn second_handle(stream: &Stream) -> Option<std::net::TcpStream> {
    let stream = match stream {
        Either::Left(stream) => stream,
        Either::Right(stream) => stream.get_ref().0,
    };
    stream.as_fd().try_clone_to_owned().ok().map(Into::into)
}

/// Whether bytes or the end of the connection wait to be read.
///
/// # Errors
/// When the connection was reset.
fn something_has_come(stream: &std::net::TcpStream) -> io::Result<bool> {
    match stream.peek(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        looked => looked.map(|_| true),
    }
}

/// Completes when the client of a wire has gone.
async fn gone(wire: Option<&Wire>) {
    match wire {
        Some(wire) => wire.gone().await,
        None => pending().await,
    }
}
