//! One linked connection of a [`Follower`](super::Follower): bytes in, messages out, and as little kept as possible.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use spice_migration::{
    ChannelType,
    frame::{Header, HeaderKind},
    message::ChannelId,
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    time::{Instant, Sleep, sleep_until, timeout},
};

use crate::peer::tls::Stream;

/// Most bytes of MIGRATE_DATA, the only message that is kept whole however long it is. spice-server's are some hundred bytes
/// for most channels; with them travels what a device has not read yet, for a USB device at most some megabytes.
pub const MAX_MIGRATE_DATA: u32 = 16 << 20;

/// Most bytes of any other message that says something about the session: eight times the longest destination.
const MAX_CONTROL: u32 = 64 << 10;

/// What is read at once. It lies on the stack, so a connection at rest holds nothing.
const CHUNK: usize = 16 << 10;

/// Most bytes that are taken early from a target which may not be listened to yet. A connection's end is found behind
/// them; a server that sends more is not read further. spice-server sends some ten messages.
const MAX_EARLY: usize = 4 << 10;

/// Bytes of a PING that its PONG needs. The rest is ballast.
const KEPT_OF_PING: u32 = 12;

/// One linked connection.
///
/// It holds the unfinished rest of what was read: at most [`MAX_MIGRATE_DATA`] bytes while such a message comes, else at
/// most `CHUNK + MAX_CONTROL`, and nothing when all that came was handled.
pub(super) struct Connection {
    /// Whom it leads to.
    pub(super) host: Arc<str>,
    /// Which channel.
    pub(super) channel: ChannelId,
    /// Whether it leads to the target of a migration that is not over, though its channel has moved already.
    pub(super) ahead: bool,
    /// Whether the last message was sent.
    pub(super) quiet: bool,
    stream: Stream,
    headers: HeaderKind,
    /// Messages so far, each way, which is also the last one's serial.
    sent: u64,
    received: u64,
    /// Messages per ACK; 0: none.
    window: u32,
    unacknowledged: u32,
    /// What was read, of which so much at the front was cut into messages.
    input: Vec<u8>,
    taken: usize,
    /// The message whose rest is not kept, and how much of that is still to come.
    passing: Option<(Message, usize)>,
}

/// A message of a server.
pub(super) struct Message {
    pub(super) id: u16,
    /// Counted, or as the full header says.
    pub(super) serial: u64,
    /// The length of the body.
    pub(super) size: u32,
    /// What is kept of the body.
    pub(super) body: Vec<u8>,
}

impl Connection {
    pub(super) fn new(host: Arc<str>, channel: ChannelId, stream: Stream, headers: HeaderKind) -> Self {
        Self {
            host,
            channel,
            ahead: false,
            quiet: false,
            stream,
            headers,
            sent: 0,
            received: 0,
            window: 0,
            unacknowledged: 0,
            input: Vec::new(),
            taken: 0,
            passing: None,
        }
    }

    /// Goes on where the channel's connection to the source has ended: serials and acknowledgements are the channel's [C8].
    pub(super) fn continues(&mut self, source: &Self) {
        (self.sent, self.received) = (source.sent, source.received);
        (self.window, self.unacknowledged) = (source.window, source.unacknowledged);
    }

    /// The next message.
    pub(super) fn poll_message(
        &mut self,
        context: &mut Context<'_>,
        pace: &mut Option<Pace>,
    ) -> Poll<io::Result<Message>> {
        loop {
            if let Some(message) = self.cut()? {
                return Poll::Ready(Ok(message));
            }
            if let Some(pace) = pace {
                ready!(pace.poll(context));
            }
            let most = pace.as_ref().map_or(CHUNK, Pace::chunk);
            let read = ready!(self.poll_read(context, most))?;
            if let Some(pace) = pace {
                pace.spend(read);
            }
        }
    }

    /// Completes when the connection has ended. What comes before is kept, up to [`MAX_EARLY`] bytes, and not looked at.
    pub(super) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        while self.rest().len() < MAX_EARLY {
            if let Err(error) = ready!(self.poll_read(context, MAX_EARLY - self.rest().len())) {
                return Poll::Ready(error);
            }
        }
        Poll::Pending
    }

    /// Sends one message, which `encode` makes from the kind of header and the serial. Returns the serial.
    pub(super) async fn send(
        &mut self,
        message: &impl spice_migration::message::Message,
        patience: Duration,
    ) -> io::Result<u64> {
        self.sent += 1;
        let mut bytes = vec![0; self.headers.len() + message.encoded_len()];
        spice_migration::frame::encode(self.headers, self.sent, message, &mut bytes)?;
        timeout(patience, self.stream.write_all(&bytes)).await??;
        Ok(self.sent)
    }

    /// Counts a message that was received. Whether an ACK is due.
    pub(super) fn acknowledges(&mut self) -> bool {
        self.unacknowledged = self.unacknowledged.saturating_add(1);
        let due = self.window != 0 && self.unacknowledged >= self.window && !self.quiet;
        if due {
            self.unacknowledged = 0;
        }
        due
    }

    /// Takes note of a SET_ACK.
    pub(super) fn set_window(&mut self, window: u32) {
        self.window = window;
        self.unacknowledged = 0;
    }

    fn poll_read(&mut self, context: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        let mut chunk = [0; CHUNK];
        let mut buffer = ReadBuf::new(&mut chunk[..most.min(CHUNK)]);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        let mut read = buffer.filled();
        let length = read.len();
        if length == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        if let Some((_, left)) = &mut self.passing {
            let passed = read.len().min(*left);
            *left -= passed;
            read = &read[passed..];
        }
        // Moving the rest to the front here, once per read, keeps every byte's way short.
        self.input.drain(..self.taken);
        self.taken = 0;
        self.input.extend_from_slice(read);
        Poll::Ready(Ok(length))
    }

    /// Cuts the next message from what was read, if it is whole.
    fn cut(&mut self) -> io::Result<Option<Message>> {
        if self.passing.is_none() {
            let rest = self.rest();
            let Some(header) = Header::decode(self.headers, rest, self.received + 1) else { return Ok(None) };
            let kept = kept(self.channel, header)?;
            let end = self.headers.len() + kept;
            let Some(body) = rest.get(self.headers.len()..end) else { return Ok(None) };
            let message = Message { id: header.id, serial: header.serial, size: header.size, body: body.to_vec() };
            self.taken += end;
            self.passing = Some((message, length(header.size) - kept));
        }
        let rest = self.rest().len();
        let Some((_, left)) = &mut self.passing else { return Ok(None) };
        let passed = rest.min(*left);
        *left -= passed;
        let whole = *left == 0;
        self.taken += passed;
        if self.taken == self.input.len() {
            (self.input, self.taken) = (Vec::new(), 0);
        }
        if !whole {
            return Ok(None);
        }
        self.received += 1;
        Ok(self.passing.take().map(|(message, _)| message))
    }

    fn rest(&self) -> &[u8] {
        self.input.get(self.taken..).unwrap_or_default()
    }
}

/// How much of a message's body is looked at: all of it, or nothing, for nearly all messages.
fn kept(channel: ChannelId, Header { id, size, .. }: Header) -> io::Result<usize> {
    let limit = match (id, channel.channel_type) {
        (server::PING, _) => return Ok(length(size.min(KEPT_OF_PING))),
        (server::MIGRATE_DATA, _) => MAX_MIGRATE_DATA,
        (server::MIGRATE | server::SET_ACK, _) => MAX_CONTROL,
        (id, ChannelType::MAIN) if server::OF_MAIN.contains(&id) => MAX_CONTROL,
        _ => return Ok(0),
    };
    if size > limit {
        let oversized = spice_migration::frame::OversizedBody { id, size, limit };
        return Err(oversized.into());
    }
    Ok(length(size))
}

/// The messages that a follower looks at; the others are counted. So are lists of messages: of what is here,
/// spice-server puts nothing there.
mod server {
    pub(super) const MIGRATE: u16 = 1;
    pub(super) const MIGRATE_DATA: u16 = 2;
    pub(super) const SET_ACK: u16 = 3;
    pub(super) const PING: u16 = 4;
    /// MIGRATE_BEGIN, MIGRATE_CANCEL, INIT, CHANNELS_LIST, MIGRATE_SWITCH_HOST, MIGRATE_END, MIGRATE_BEGIN_SEAMLESS, and the
    /// target's ACK and NACK.
    pub(super) const OF_MAIN: [u16; 9] = [101, 102, 103, 104, 111, 112, 116, 117, 118];
}

/// A length on the wire is one in memory, on machines that have 32 bits for it.
fn length(size: u32) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// Reads slowly, as a client on a thin line does.
pub(super) struct Pace {
    bytes_per_second: u32,
    /// When there may be read again.
    resumes: Pin<Box<Sleep>>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u32) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), resumes: Box::pin(sleep_until(Instant::now())) }
    }

    /// What is read at once: a twentieth of a second's worth.
    fn chunk(&self) -> usize {
        length(self.bytes_per_second.div_ceil(20))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.resumes.as_mut().poll(context)
    }

    fn spend(&mut self, bytes: usize) {
        let seconds = u32::try_from(bytes).map_or(f64::MAX, f64::from) / f64::from(self.bytes_per_second);
        let from = self.resumes.deadline().max(Instant::now());
        self.resumes.as_mut().reset(from + Duration::from_secs_f64(seconds.min(3600.0)));
    }
}
