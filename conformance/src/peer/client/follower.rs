//! The client that follows the guest by itself, as spice-gtk does: the role [`migrate::Client`] on real sockets.
//!
//! A [`Follower`] is one task, whatever it does: its connections and the links that it makes are polled in turn, and no
//! buffer outlives a message. So a thousand of them fit into one process (`examples/load.rs`).

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use futures_util::future::try_join_all;
use spice_migration::{
    ChannelType, ClientMessage, Data, ServerMessage,
    caps::{CapabilityWords, MainCapability},
    link::LinkError,
    message::{ChannelId, Message as _, client, server},
    migrate::{self, FromSource, FromTarget, Role, Scheme, ToTarget, Violation},
};
use tokio::{
    net::lookup_host,
    sync::Notify,
    task::JoinHandle,
    time::{timeout, timeout_at},
};

pub use super::connection::MAX_MIGRATE_DATA;

use super::{
    Client,
    channel::DISPLAY_INIT,
    connection::{Connection, Message, Pace},
};
use crate::subject::Destination;
use migrate::client::{Agreement, Effect, Input, Phase};

/// Most channels that a follower links. spice-server offers one per device and monitor, QEMU's default machine four.
pub const MAX_CHANNELS: usize = 64;

/// Most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 4;

/// A client with a session of its own, which goes where the guest goes until it is told to exit.
///
/// When it is dropped, its connections are closed at once.
#[derive(Debug)]
pub struct Follower {
    task: JoinHandle<End>,
    exit: Arc<Notify>,
}

/// What a follower does differently from a plain one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// It exits right after this many [events](Event), in the middle of whatever it does.
    pub exits_after: Option<u64>,
    /// It reads no more than so many bytes per second, of all channels together, once its session has begun: spice-server
    /// begins with a PING of 250 KB.
    pub bytes_per_second: Option<u32>,
}

/// How a follower's time has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to exit, or has exited by its [habits](Habits).
    Exited,
    /// It has lost its session; why.
    Lost(String),
}

/// One thing that a follower did or saw.
#[derive(Clone, Debug)]
pub struct Event {
    /// Counts a follower's events from 1.
    pub number: u64,
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What an [`Event`] is about.
#[derive(Clone, Debug)]
pub enum What {
    /// A step of a link stage.
    Link {
        /// The host, as `name:port`.
        host: Arc<str>,
        /// Whose.
        channel: ChannelId,
        /// The session; 0 for a new one.
        connection_id: u32,
        /// Which.
        step: LinkStep,
    },
    /// A link could not be made.
    NotLinked {
        /// To where.
        host: Arc<str>,
        /// Whose.
        channel: ChannelId,
        /// Why.
        reason: String,
    },
    /// A message was sent.
    Sent(Passed),
    /// A message was received, and will be handled next.
    Received(Passed),
    /// A connection has ended, though the follower did not want that.
    Closed {
        /// To whom it led.
        host: Arc<str>,
        /// Whose.
        channel: ChannelId,
        /// How.
        reason: String,
    },
    /// A server did what it must not.
    Violated(ChannelId, Violation),
    /// The session goes on at the target.
    Moved(Scheme),
    /// A new session begins where SWITCH_HOST has led.
    StartsAfresh(Destination),
    /// The last event.
    Ended(End),
}

/// How far a link stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkStep {
    /// The connection is open.
    Connected,
    /// The link message is sent.
    Requested,
    /// The server's reply is there.
    Answered,
    /// The ticket is sent.
    Authenticated,
    /// The server has accepted.
    Linked,
}

/// A message that has passed on a connection.
#[derive(Clone, Debug)]
pub struct Passed {
    /// The host, as `name:port`.
    pub host: Arc<str>,
    /// On which channel.
    pub channel: ChannelId,
    /// The message's id.
    pub id: u16,
    /// The message's C name; empty if it is no concern of migration.
    pub name: &'static str,
    /// The body's length.
    pub size: u32,
    /// The serial: how many messages this direction of the channel has seen since the session began, a seamless migration
    /// included. A full header's is what the peer says.
    pub serial: u64,
}

impl Follower {
    /// Starts one that begins its session at a destination. Each event is reported as it happens; the follower goes on when
    /// the report is over.
    #[must_use]
    pub fn start(
        client: Client,
        destination: Destination,
        habits: Habits,
        report: impl FnMut(Event) + Send + 'static,
    ) -> Self {
        let exit = Arc::new(Notify::new());
        let reporter = Reporter(Mutex::new(Reported { number: 0, end: None, report: Box::new(report) }));
        let shell = Arc::new(Shell { client, habits, reporter });
        let told = Arc::clone(&exit);
        let task = tokio::spawn(async move {
            let end = tokio::select! {
                biased;
                () = told.notified() => End::Exited,
                end = follow(&shell, destination) => end,
            };
            shell.reporter.ended(&end);
            end
        });
        Self { task, exit }
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> End {
        (&mut self.task).await.unwrap_or_else(|error| End::Lost(error.to_string()))
    }

    /// Tells it to exit: all connections are closed at once.
    pub async fn exit(mut self) -> End {
        self.exit.notify_one();
        self.ended().await
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One session after the other, until the end.
async fn follow(shell: &Arc<Shell>, mut destination: Destination) -> End {
    loop {
        let session = match Session::begin(shell, &destination).await {
            Ok(session) => session,
            Err(end) => return end,
        };
        match session.run().await {
            Ok(next) => destination = next,
            Err(end) => return end,
        }
        if let Err(end) = shell.report(What::StartsAfresh(destination.clone())) {
            return end;
        }
    }
}

/// What stays the same from session to session.
struct Shell {
    client: Client,
    habits: Habits,
    reporter: Reporter,
}

impl Shell {
    /// Reports an event. An error if it was the follower's last.
    fn report(&self, what: What) -> Result<(), End> {
        self.reporter.report(what, self.habits.exits_after)
    }

    /// Links one channel. The inner error says why that failed.
    async fn link(&self, destination: &Destination, connection_id: u32, channel: ChannelId) -> LinkOutcome {
        let host: Arc<str> = match destination.port {
            Some(port) => format!("{}:{port}", destination.host).into(),
            None => destination.host.as_str().into(),
        };
        let step = |step| self.report(What::Link { host: Arc::clone(&host), channel, connection_id, step });
        let linked = self.try_link(&host, destination, connection_id, channel, step).await?;
        if let Err(reason) = &linked {
            self.report(What::NotLinked { host, channel, reason: reason.clone() })?;
        }
        Ok(linked)
    }

    async fn try_link(
        &self,
        host: &Arc<str>,
        destination: &Destination,
        connection_id: u32,
        channel: ChannelId,
        step: impl Fn(LinkStep) -> Result<(), End>,
    ) -> LinkOutcome {
        /// Leaves with the reason if a step fails.
        macro_rules! or_fail {
            ($step:expr) => {
                match $step {
                    Ok(value) => value,
                    Err(reason) => return Ok(Err(reason.to_string())),
                }
            };
        }
        let Some(port) = destination.port else { return Ok(Err("no plaintext port".to_owned())) };
        let addresses = timeout(self.client.patience, lookup_host((destination.host.as_str(), port))).await;
        let mut opened = Err("a host without an address".to_owned());
        for address in or_fail!(or_fail!(addresses)).take(MAX_ADDRESSES) {
            opened = self.client.open(host, channel, address).await.map_err(reason);
            if opened.is_ok() {
                break;
            }
        }
        let mut link = or_fail!(opened);
        step(LinkStep::Connected)?;
        let request = self.client.request(connection_id, channel);
        or_fail!(link.request(&request).await.map_err(reason));
        step(LinkStep::Requested)?;
        let reply = or_fail!(link.reply().await.map_err(reason));
        step(LinkStep::Answered)?;
        if reply.error != LinkError::OK {
            return Ok(Err(format!("a link reply with {}", reply.error)));
        }
        or_fail!(link.authenticate(&request, &reply, &self.client.password).await.map_err(reason));
        step(LinkStep::Authenticated)?;
        match or_fail!(link.result().await.map_err(reason)) {
            LinkError::OK => {}
            refused => return Ok(Err(format!("link result {refused}"))),
        }
        let seamless = CapabilityWords::new(&reply.channel_words).has(MainCapability::SEAMLESS_MIGRATE);
        let (stream, headers) = link.into_stream(&request, &reply);
        step(LinkStep::Linked)?;
        let connection = Connection::new(Arc::clone(host), channel, stream, headers);
        Ok(Ok(Linked { connection, seamless: channel == MAIN && seamless }))
    }

    /// Sends a message. The inner error says that the connection is of no more use.
    async fn send(&self, connection: &mut Connection, message: ClientMessage<'_>) -> Result<io::Result<()>, End> {
        let serial = match connection.send(&message, self.client.patience).await {
            Ok(serial) => serial,
            Err(error) => return Ok(Err(error)),
        };
        let size = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
        let table = ClientMessage::TABLE;
        self.report(What::Sent(passed(table, connection, message.id(), size, serial))).map(Ok)
    }

    /// What every client does with a message: counts it, acknowledges, and answers a ping.
    async fn receive(&self, connection: &mut Connection, message: &Message) -> Result<io::Result<()>, End> {
        let table = ServerMessage::TABLE;
        self.report(What::Received(passed(table, connection, message.id, message.size, message.serial)))?;
        if connection.acknowledges()
            && let Err(error) = self.send(connection, ClientMessage::Ack).await?
        {
            return Ok(Err(error));
        }
        match message.decode(connection.channel) {
            Ok(ServerMessage::SetAck(server::SetAck { generation, window })) => {
                connection.set_window(window);
                self.answer(connection, ClientMessage::AckSync(client::AckSync { generation })).await
            }
            Ok(ServerMessage::Ping(server::Ping { id, timestamp, .. })) => {
                self.answer(connection, ClientMessage::Pong(client::Pong { id, timestamp })).await
            }
            Ok(_) => Ok(Ok(())),
            Err(error) => Ok(Err(error.into())),
        }
    }

    async fn answer(&self, connection: &mut Connection, message: ClientMessage<'_>) -> Result<io::Result<()>, End> {
        if connection.quiet { Ok(Ok(())) } else { self.send(connection, message).await }
    }

    /// Starts a channel whose server waits for its client.
    async fn start(&self, connection: &mut Connection) -> Result<io::Result<()>, End> {
        if connection.channel.channel_type != ChannelType::DISPLAY {
            return Ok(Ok(()));
        }
        let (id, body) = DISPLAY_INIT;
        self.send(connection, ClientMessage::Unknown { id, body: Data(body) }).await
    }
}

struct Linked {
    connection: Connection,
    seamless: bool,
}

/// A link is made or is not, which the session survives; or the session ends with it.
type LinkOutcome = Result<Result<Linked, String>, End>;

/// A link that is being made.
struct Link {
    channel: ChannelId,
    made: Pin<Box<dyn Future<Output = LinkOutcome> + Send>>,
}

/// A session, wherever it is.
struct Session {
    shell: Arc<Shell>,
    /// Its name at the servers.
    id: u32,
    role: migrate::Client,
    /// Those that the role counts with.
    channels: Vec<ChannelId>,
    /// The origin of the role's time.
    began: tokio::time::Instant,
    /// Of the migration that goes on, or of SWITCH_HOST.
    destination: Option<Destination>,
    /// The connections that the channels live on. Those that are `ahead` lead to the target, the others to the source.
    open: Vec<Connection>,
    /// Connections to the target that are not used yet.
    pending: Vec<Connection>,
    /// Connections to the source whose channels have moved. They stay open until all have: when the main channel's is closed,
    /// spice-server closes the others, too.
    left: Vec<Connection>,
    links: Vec<Link>,
    /// What the role is to be told.
    inputs: VecDeque<Input>,
    /// MIGRATE_DATA that has just come.
    data: Vec<u8>,
    pace: Option<Pace>,
    /// Which of the open connections may be read first.
    turn: usize,
    /// What went wrong last, in case that the role gives up.
    trouble: String,
}

/// What a session waits for.
enum Happening {
    Linked(ChannelId, Result<Linked, String>),
    /// On a connection at this place in `open`.
    Open(usize, io::Result<Message>),
    /// On a connection at this place in `pending`.
    Pending(usize, io::Result<Message>),
    Ended(End),
}

impl Session {
    /// Begins one, with all channels that the server offers.
    async fn begin(shell: &Arc<Shell>, destination: &Destination) -> Result<Self, End> {
        let lost = |what: &str| End::Lost(format!("no new session: {what}"));
        let Linked { connection: mut main, .. } = shell.link(destination, 0, MAIN).await?.map_err(|why| lost(&why))?;

        let begun = tokio::time::Instant::now();
        let patience = shell.client.patience;
        let mut id = None;
        let offered: Vec<ChannelId> = loop {
            let message = poll_fn(|context| main.poll_message(context, &mut None));
            let Ok(message) = timeout_at(begun + patience, message).await else {
                return Err(lost(&format!("neither INIT nor CHANNELS_LIST within {patience:?}")));
            };
            let message = message.map_err(|error| lost(&error.to_string()))?;
            shell.receive(&mut main, &message).await?.map_err(|error| lost(&error.to_string()))?;
            match message.decode(MAIN) {
                Ok(ServerMessage::Init(init)) if id.is_none() => {
                    id = Some(init.session_id);
                    let asked = shell.send(&mut main, ClientMessage::AttachChannels).await?;
                    asked.map_err(|error| lost(&error.to_string()))?;
                }
                Ok(ServerMessage::ChannelsList(list)) if id.is_some() => {
                    break list.channels.iter().filter(|channel| *channel != MAIN).take(MAX_CHANNELS).collect();
                }
                _ => {}
            }
        };
        let id = id.unwrap_or_default();

        let children = offered.iter().map(|channel| async move {
            let Linked { mut connection, .. } =
                shell.link(destination, id, *channel).await?.map_err(|why| lost(&why))?;
            // At once: a spice-server whose display waits for this makes no other link meanwhile.
            shell.start(&mut connection).await?.map_err(|error| lost(&error.to_string()))?;
            Ok(connection)
        });
        let children = try_join_all(children).await?;
        let channels = [MAIN].into_iter().chain(offered).collect::<Vec<_>>();
        let open = [main].into_iter().chain(children).collect();
        Ok(Self {
            shell: Arc::clone(shell),
            id,
            role: migrate::Client::new(channels.iter().copied()),
            channels,
            began: begun,
            destination: None,
            open,
            pending: Vec::new(),
            left: Vec::new(),
            links: Vec::new(),
            inputs: VecDeque::new(),
            data: Vec::new(),
            pace: shell.habits.bytes_per_second.map(Pace::new),
            turn: 0,
            trouble: String::new(),
        })
    }

    /// Follows the guest, until a new session is to begin at the destination returned.
    async fn run(mut self) -> Result<Destination, End> {
        loop {
            while let Some(input) = self.inputs.pop_front() {
                if let Some(destination) = self.handle(input).await? {
                    return Ok(destination);
                }
            }
            let deadline = self.role.deadline().map(|time| self.began + time);
            let happening = poll_fn(|context| self.poll(context));
            let happening = match deadline {
                // A peer that never pauses must not hold the time up.
                Some(deadline) if deadline <= tokio::time::Instant::now() => None,
                Some(deadline) => timeout_at(deadline, happening).await.ok(),
                None => Some(happening.await),
            };
            match happening {
                None => {
                    self.trouble = "the time is up".to_owned();
                    self.inputs.push_back(Input::Deadline);
                }
                Some(Happening::Ended(end)) => return Err(end),
                Some(Happening::Linked(channel, linked)) => self.linked(channel, linked),
                Some(Happening::Open(place, message)) => self.receive(List::Open, place, message).await?,
                Some(Happening::Pending(place, message)) => self.receive(List::Pending, place, message).await?,
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Happening> {
        for place in 0..self.links.len() {
            if let Poll::Ready(made) = self.links[place].made.as_mut().poll(context) {
                let channel = self.links.swap_remove(place).channel;
                return Poll::Ready(match made {
                    Ok(linked) => Happening::Linked(channel, linked),
                    Err(end) => Happening::Ended(end),
                });
            }
        }
        let answers = self.awaits_target();
        for (place, connection) in self.pending.iter_mut().enumerate() {
            let happened = if answers && connection.channel == MAIN {
                connection.poll_message(context, &mut self.pace)
            } else {
                connection.poll_end(context).map(Err)
            };
            if let Poll::Ready(happened) = happened {
                return Poll::Ready(Happening::Pending(place, happened));
            }
        }
        let count = self.open.len();
        for place in (0..count).map(|step| (self.turn + step) % count) {
            if let Poll::Ready(happened) = self.open[place].poll_message(context, &mut self.pace) {
                self.turn = place + 1;
                return Poll::Ready(Happening::Open(place, happened));
            }
        }
        Poll::Pending
    }

    /// Whether the target's main channel is to say something before the switch.
    fn awaits_target(&self) -> bool {
        matches!(self.role.phase(), Phase::Connecting { agreement: Agreement::Asked, .. } | Phase::Restarting)
    }

    fn linked(&mut self, channel: ChannelId, linked: Result<Linked, String>) {
        self.inputs.push_back(match linked {
            Ok(Linked { mut connection, seamless }) => {
                connection.ahead = true;
                self.pending.push(connection);
                Input::TargetLinked { channel, seamless }
            }
            Err(reason) => {
                self.trouble = reason;
                Input::TargetClosed(channel)
            }
        });
    }

    /// Takes a message from a connection, or its end.
    async fn receive(&mut self, list: List, place: usize, message: io::Result<Message>) -> Result<(), End> {
        let connection = match list {
            List::Open => &mut self.open[place],
            List::Pending => &mut self.pending[place],
        };
        let channel = connection.channel;
        let received = match message {
            Ok(message) => self.shell.receive(connection, &message).await?.map(|()| message),
            Err(error) => Err(error),
        };
        let message = match received {
            Ok(message) => message,
            Err(error) => return self.closed(list, place, &error),
        };
        // It was decoded above.
        let Ok(decoded) = message.decode(channel) else { return Ok(()) };
        if connection.ahead {
            if let Some(says) = FromTarget::of(&decoded) {
                self.inputs.push_back(Input::FromTarget(says));
            }
            if let ServerMessage::Init(init) = &decoded {
                self.id = init.session_id;
            }
            return Ok(());
        }
        if let Some(destination) = Destination::told(&decoded) {
            self.destination = Some(destination);
        }
        match &decoded {
            ServerMessage::MigrateData(server::MigrateData { data }) => self.data = data.0.to_vec(),
            ServerMessage::Migrate(_) => connection.quiet = true,
            _ => {}
        }
        if let Some(message) = FromSource::of(&decoded) {
            self.inputs.push_back(Input::FromSource { channel, message });
        }
        Ok(())
    }

    /// A connection is of no more use.
    fn closed(&mut self, list: List, place: usize, error: &io::Error) -> Result<(), End> {
        let connection = match list {
            List::Open => self.open.swap_remove(place),
            List::Pending => self.pending.swap_remove(place),
        };
        let channel = connection.channel;
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => "the peer closed the connection".to_owned(),
            _ => error.to_string(),
        };
        self.trouble = format!("{} of {}: {reason}", channel.channel_type, connection.host);
        self.inputs.push_back(match connection.ahead {
            true => Input::TargetClosed(channel),
            false => Input::SourceClosed(channel),
        });
        self.shell.report(What::Closed { host: connection.host, channel, reason })
    }

    /// Tells the role, and does what it wants done. Returns where to start afresh, if it wants that.
    async fn handle(&mut self, input: Input) -> Result<Option<Destination>, End> {
        let effects = match self.role.handle(self.began.elapsed(), input) {
            Ok(effects) => effects,
            Err(violation) => return self.refuse(input, violation).map(|()| None),
        };
        for effect in effects {
            match effect {
                Effect::LinkTarget(channel) => self.link_target(channel),
                Effect::ToSource { channel, message } => {
                    let place = self.open.iter().position(|open| open.channel == channel && !open.ahead);
                    self.send(List::Open, place, message.message()).await?;
                }
                Effect::ToTarget { channel, message } => self.tell_target(channel, message).await?,
                Effect::Switch(channel) => self.switch(channel),
                Effect::CloseTarget(channel) => {
                    self.links.retain(|link| link.channel != channel);
                    self.pending.retain(|pending| pending.channel != channel);
                    self.open.retain(|open| open.channel != channel || !open.ahead);
                }
                Effect::CloseSource(channel) => self.open.retain(|open| open.channel != channel || open.ahead),
                Effect::DropSource => self.open.retain(|open| open.ahead),
                Effect::DropTarget => {
                    self.links.clear();
                    self.pending.clear();
                    self.open.retain(|open| !open.ahead);
                }
                Effect::Moved(scheme) => self.moved(scheme).await?,
                Effect::StartAfresh => return Ok(self.destination.take()),
                Effect::SessionLost => return Err(End::Lost(std::mem::take(&mut self.trouble))),
            }
        }
        Ok(None)
    }

    /// Closes the connection on which a server did what it must not.
    fn refuse(&mut self, input: Input, violation: Violation) -> Result<(), End> {
        let (channel, ahead) = match input {
            Input::FromSource { channel, .. } => (channel, false),
            _ => (MAIN, true),
        };
        self.shell.report(What::Violated(channel, violation))?;
        let error = io::Error::new(io::ErrorKind::InvalidData, violation.to_string());
        for list in [List::Open, List::Pending] {
            let connections = if list == List::Open { &self.open } else { &self.pending };
            let guilty = |connection: &Connection| connection.channel == channel && connection.ahead == ahead;
            if let Some(place) = connections.iter().position(guilty) {
                return self.closed(list, place, &error);
            }
        }
        Ok(())
    }

    fn link_target(&mut self, channel: ChannelId) {
        // The role has seen BEGIN, and that has brought it.
        let Some(destination) = self.destination.clone() else { return };
        let (shell, id) = (Arc::clone(&self.shell), self.id);
        let made = Box::pin(async move { shell.link(&destination, id, channel).await });
        self.links.push(Link { channel, made });
    }

    async fn tell_target(&mut self, channel: ChannelId, message: ToTarget) -> Result<(), End> {
        let data = std::mem::take(&mut self.data);
        let message = match message {
            ToTarget::DoSeamless { version } => {
                ClientMessage::MigrateDstDoSeamless(client::MigrateDstDoSeamless { src_version: version })
            }
            ToTarget::End => ClientMessage::MigrateEnd,
            ToTarget::MigrateData => ClientMessage::MigrateData(client::MigrateData { data: Data(&data) }),
        };
        let switched = self.open.iter().position(|open| open.channel == channel && open.ahead);
        match switched {
            Some(_) => self.send(List::Open, switched, message).await,
            None => {
                let place = self.pending.iter().position(|pending| pending.channel == channel);
                self.send(List::Pending, place, message).await
            }
        }
    }

    /// Sends a message on a connection, if that is still there: its end has been seen otherwise, and the role will learn of it.
    async fn send(&mut self, list: List, place: Option<usize>, message: ClientMessage<'_>) -> Result<(), End> {
        let Some(place) = place else { return Ok(()) };
        let connection = match list {
            List::Open => &mut self.open[place],
            List::Pending => &mut self.pending[place],
        };
        match self.shell.send(connection, message).await? {
            Ok(()) => Ok(()),
            Err(error) => self.closed(list, place, &error),
        }
    }

    /// A channel lives on its connection to the target from now on.
    fn switch(&mut self, channel: ChannelId) {
        let source = self.open.iter().position(|open| open.channel == channel && !open.ahead);
        let source = source.map(|place| self.open.swap_remove(place));
        let target = self.pending.iter().position(|pending| pending.channel == channel);
        if let (Some(source), Some(place)) = (source, target) {
            let mut target = self.pending.swap_remove(place);
            target.continues(&source);
            self.open.push(target);
            self.left.push(source);
        }
    }

    async fn moved(&mut self, scheme: Scheme) -> Result<(), End> {
        self.shell.report(What::Moved(scheme))?;
        self.destination = None;
        self.left.clear();
        if scheme == Scheme::SemiSeamless {
            self.open.append(&mut self.pending);
        }
        for connection in &mut self.open {
            connection.ahead = false;
        }
        if scheme == Scheme::SemiSeamless {
            for place in (0..self.open.len()).rev() {
                let started = self.shell.start(&mut self.open[place]).await?;
                if let Err(error) = started {
                    self.closed(List::Open, place, &error)?;
                }
            }
        }
        // A channel that was lost on the way is not there to be moved the next time.
        let (kept, lost): (Vec<_>, Vec<_>) =
            self.channels.iter().partition(|channel| self.open.iter().any(|open| open.channel == **channel));
        self.channels = kept;
        self.inputs.extend(lost.into_iter().map(Input::SourceClosed));
        Ok(())
    }
}

/// Which of a session's connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    Open,
    Pending,
}

impl Message {
    fn decode(&self, channel: ChannelId) -> Result<ServerMessage<'_>, spice_migration::DecodeError> {
        match self.id {
            // What is not kept cannot be decoded, and need not be.
            id if self.body.is_empty() && self.size != 0 => Ok(ServerMessage::Unknown { id, body: Data(&[]) }),
            id => ServerMessage::decode(channel.channel_type, id, &self.body),
        }
    }
}

/// Numbers events and hands them out, until the last.
struct Reporter(Mutex<Reported>);

struct Reported {
    number: u64,
    end: Option<End>,
    report: Box<dyn FnMut(Event) + Send>,
}

impl Reporter {
    fn report(&self, what: What, last: Option<u64>) -> Result<(), End> {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = &reported.end {
            return Err(end.clone());
        }
        reported.number += 1;
        let number = reported.number;
        (reported.report)(Event { number, at: Instant::now(), what });
        if last.is_some_and(|last| number >= last) {
            reported.end = Some(End::Exited);
            return Err(End::Exited);
        }
        Ok(())
    }

    fn ended(&self, end: &End) {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = reported.number + 1;
        (reported.report)(Event { number, at: Instant::now(), what: What::Ended(end.clone()) });
    }
}

fn passed(table: &[spice_migration::message::Row], connection: &Connection, id: u16, size: u32, serial: u64) -> Passed {
    use spice_migration::message::Section;

    let channel = connection.channel;
    let carries = |section| section == Section::Base || channel.channel_type == ChannelType::MAIN;
    let name = table.iter().find(|row| row.id == id && carries(row.section)).map_or("", |row| row.c_name);
    Passed { host: Arc::clone(&connection.host), channel, id, name, size, serial }
}

fn reason(crate::case::Unexpected { expected, got, .. }: crate::case::Unexpected) -> String {
    format!("waited for {expected}, got {got}")
}

impl fmt::Display for Passed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, channel, id, name, size, serial } = self;
        match name {
            &"" => write!(formatter, "{host} {} #{serial} message {id}, {size} bytes", channel.channel_type),
            name => write!(formatter, "{host} {} #{serial} {name}, {size} bytes", channel.channel_type),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { host, channel, connection_id, step } => {
                write!(formatter, "-- {host} {} (connection id {connection_id:#x}): {step:?}", channel.channel_type)
            }
            Self::NotLinked { host, channel, reason } => {
                write!(formatter, "-- {host} {}: not linked: {reason}", channel.channel_type)
            }
            Self::Sent(passed) => write!(formatter, "-> {passed}"),
            Self::Received(passed) => write!(formatter, "<- {passed}"),
            Self::Closed { host, channel, reason } => {
                write!(formatter, "-- {host} {}: {reason}", channel.channel_type)
            }
            Self::Violated(channel, violation) => write!(formatter, "-- {}: {violation}", channel.channel_type),
            Self::Moved(scheme) => write!(formatter, "-- moved: {scheme:?}"),
            Self::StartsAfresh(destination) => write!(formatter, "-- starts afresh at {}", destination.host),
            Self::Ended(end) => write!(formatter, "-- ended: {end:?}"),
        }
    }
}

/// The main channel.
const MAIN: ChannelId = ChannelId { channel_type: ChannelType::MAIN, id: 0 };
