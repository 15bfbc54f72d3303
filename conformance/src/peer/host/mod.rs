//! The reference host: a hypervisor with a SPICE server in this process, built on the roles of `spice_migration::migrate`. It conforms
//! unless a [`Defect`] is switched on.
//!
//! It serves loopback TCP, and TLS if told to, and has the channels main, display, inputs and cursor. It can be a source, a target, and a
//! source again once it has been a target. Its guest is memory that is written to; it moves over a socket, live first.
//!
//! - `task`: the roles, told what happens and obeyed;
//! - `service`: the clients, between the server's role and the wire;
//! - `connection`: one connection, with its link stage;
//! - `guest` and `copying`: the guest and its way;
//! - `state`: channel state as it travels.
//!
//! What a host holds is bounded: per connection 4 KiB of what was read, at most 1 MiB of one message, and at most 3,000 messages
//! that the client does not read.

mod client;
mod connection;
mod copying;
mod guest;
mod service;
mod state;
mod task;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use spice_migration::{
    ChannelType,
    migrate::{
        MIGRATE_TIMEOUT,
        source_host::{Completion, HandOver},
    },
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::rustls::ServerConfig;

pub use self::guest::GuestOptions;
use self::task::{Command, Ended, Input, Listeners, Task};
use super::{defect::Defect, ticket::TicketKey};
use crate::{
    subject::{ControlError, Destination, HostEvent, HostOptions, Liveness, StartError, Void},
    trace::Trace,
};

/// What a defect that lets a host die stands for: the signal of a failed assertion.
const SIGABRT: i32 = 6;

/// Most messages and commands that wait for the host's task.
const INPUTS_LEN: usize = 16;

/// Most connections that wait to be accepted, if the system allows so many. With too few, a client among many tries again only after
/// a second.
const BACKLOG: u32 = 4096;

/// The migration data of a channel on a host whose guest does nothing.
pub(crate) fn idle_data(channel_type: ChannelType) -> Vec<u8> {
    state::data(channel_type, state::Past { message_serial: 1, ..state::Past::default() }, &HostSettings::default())
}

/// What sets one reference host apart from another.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// What it does wrong.
    pub defect: Option<Defect>,
    /// How long it waits for a migrating client.
    pub migrate_timeout: Duration,
    /// Who waits for whom.
    pub completion: Completion,
    /// When the clients are handed over.
    pub hand_over: HandOver,
    /// Its guest.
    pub guest: GuestOptions,
    /// How many surfaces the guest's screen has, which go with the display channel's state: up to 1,024, as at spice-server.
    pub surfaces: u32,
    /// Most bytes of the guest that are sent in a second.
    pub bandwidth: Option<u64>,
    /// How TLS is spoken, on a port of its own.
    pub tls: Option<Arc<ServerConfig>>,
    /// Where it says what happens, a line each; lines that find it full are lost.
    pub notes: Option<mpsc::Sender<String>>,
}

impl Default for HostSettings {
    /// The mail's design, but for the hand-over in parallel, which can cost a session.
    fn default() -> Self {
        Self {
            defect: None,
            migrate_timeout: MIGRATE_TIMEOUT,
            completion: Completion::WaitAtTarget,
            hand_over: HandOver::Afterwards,
            guest: GuestOptions::default(),
            surfaces: 1,
            bandwidth: None,
            tls: None,
            notes: None,
        }
    }
}

/// A host in this process. It ends when it is dropped.
#[derive(Debug)]
pub struct EmbeddedHost {
    name: String,
    spice: SocketAddr,
    spice_tls: Option<SocketAddr>,
    /// Where it waits for the guest.
    guest: Option<SocketAddr>,
    inputs: mpsc::Sender<Input>,
    /// Everything that the host reported.
    events: watch::Receiver<Vec<(HostEvent, Instant)>>,
    /// What of it was waited for.
    delivered: Vec<HostEvent>,
    /// The host's task has one of these, and each of its connections.
    connections: Weak<()>,
    /// Holds the host's task; dropping it ends that and all connections.
    task: JoinSet<Ended>,
}

impl EmbeddedHost {
    /// Starts a host.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(options: &HostOptions, settings: HostSettings, trace: &Trace) -> Result<Self, StartError> {
        let not_ready = |reason: String| StartError::NotReady { name: options.name.clone(), reason };
        // Made before the first client waits for it: that takes a while.
        tokio::task::spawn_blocking(TicketKey::shared).await.map_err(|error| not_ready(error.to_string()))?;
        let bind = |wanted: bool| wanted.then(listen).transpose();
        let bound =
            || Ok(Listeners { spice: listen()?, tls: bind(settings.tls.is_some())?, guest: bind(options.incoming)? });
        let listeners = bound().map_err(|error: io::Error| not_ready(error.to_string()))?;
        let address = |listener: Option<&TcpListener>| listener.and_then(|listener| listener.local_addr().ok());
        let spice = listeners.spice.local_addr().map_err(|error| not_ready(error.to_string()))?;
        let (spice_tls, guest) = (address(listeners.tls.as_ref()), address(listeners.guest.as_ref()));
        let (inputs, queue) = mpsc::channel(INPUTS_LEN);
        let (reported, events) = watch::channel(Vec::new());
        let host = Task::new(options.clone(), settings, trace.clone(), reported, inputs.clone());
        let mut task = JoinSet::new();
        let alive = Arc::new(());
        let connections = Arc::downgrade(&alive);
        task.spawn(host.run(listeners, queue, alive));
        let name = options.name.clone();
        Ok(Self { name, spice, spice_tls, guest, inputs, events, delivered: Vec::new(), connections, task })
    }

    /// The name in the trace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where SPICE clients connect in plaintext.
    #[must_use]
    pub fn spice(&self) -> SocketAddr {
        self.spice
    }

    /// Where they connect with TLS.
    #[must_use]
    pub fn spice_tls(&self) -> Option<SocketAddr> {
        self.spice_tls
    }

    /// Announces a destination to the clients; does not wait for their answers.
    ///
    /// # Errors
    /// When the destination has no form on the wire, or the guest is not here.
    pub async fn migrate_info(&mut self, destination: &Destination) -> Result<(), ControlError> {
        self.command("migrate_info", Command::Announce(destination.clone())).await
    }

    /// Moves the guest to a host that waits for one, as soon as the clients have answered the announcement. Does not wait for it.
    ///
    /// # Errors
    /// When the guest is not here, or no destination was announced.
    pub async fn migrate(&mut self, target: &Self) -> Result<(), ControlError> {
        self.begin_to_migrate(target, false).await
    }

    /// The same without waiting for the clients' answers, as QEMU does if it is told so.
    ///
    /// # Errors
    /// See [`Self::migrate`].
    pub async fn migrate_hurried(&mut self, target: &Self) -> Result<(), ControlError> {
        self.begin_to_migrate(target, true).await
    }

    async fn begin_to_migrate(&self, target: &Self, hurried: bool) -> Result<(), ControlError> {
        let Some(to) = target.guest else {
            let reason = format!("{} does not wait for a guest", target.name);
            return Err(ControlError { party: self.name.clone(), command: "migrate", reason });
        };
        self.command("migrate", Command::Migrate { to, hurried }).await
    }

    /// Lets the VM migration fail: the one that is under way, or one that is only announced.
    ///
    /// # Errors
    /// When the host has ended.
    pub async fn migrate_to_nowhere(&mut self) -> Result<(), ControlError> {
        self.command("migrate_to_nowhere", Command::Fail).await
    }

    /// Lets the next [`migrate`](Self::migrate) stay in its live stage until it is cancelled.
    ///
    /// # Errors
    /// When the host has ended.
    pub async fn throttle(&mut self) -> Result<(), ControlError> {
        self.command("throttle", Command::Throttle).await
    }

    /// Has the guest's agent attach to the server, or go.
    ///
    /// # Errors
    /// When the host has ended.
    pub async fn attach_agent(&mut self, attached: bool) -> Result<(), ControlError> {
        self.command("attach_agent", Command::AttachAgent(attached)).await
    }

    /// Takes the password's validity away.
    ///
    /// # Errors
    /// When the host has ended.
    pub async fn void_password(&mut self, _: Void) -> Result<(), ControlError> {
        self.command("void_password", Command::VoidPassword).await
    }

    /// Cancels the VM migration; without one, nothing happens.
    ///
    /// # Errors
    /// When the host has ended.
    pub async fn cancel(&mut self) -> Result<(), ControlError> {
        self.command("cancel", Command::Cancel).await
    }

    /// Says in its notes who has the guest and how many clients there are.
    ///
    /// # Errors
    /// When the host has ended.
    pub async fn tell_status(&mut self) -> Result<(), ControlError> {
        self.command("status", Command::TellStatus).await
    }

    /// Everything that the host reports, from its beginning.
    #[must_use]
    pub fn events(&self) -> watch::Receiver<Vec<(HostEvent, Instant)>> {
        self.events.clone()
    }

    /// Waits for an event, which may have come before. Each is delivered once.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn wait_for(&mut self, event: HostEvent, deadline: Duration) -> Result<Instant, ControlError> {
        let delivered = self.delivered.iter().filter(|earlier| **earlier == event).count();
        let nth = |events: &Vec<(HostEvent, Instant)>| {
            events.iter().filter(|(reported, _)| *reported == event).map(|(_, at)| *at).nth(delivered)
        };
        let reason = match timeout(deadline, self.events.wait_for(|events| nth(events).is_some())).await {
            Ok(Ok(events)) => {
                let at = nth(&events);
                drop(events);
                if let Some(at) = at {
                    self.delivered.push(event);
                    return Ok(at);
                }
                "it was lost".to_owned()
            }
            Ok(Err(_)) => "the host's task has ended".to_owned(),
            Err(_) => format!("no {event:?} within {deadline:?}"),
        };
        Err(ControlError { party: self.name.clone(), command: "wait for an event", reason })
    }

    /// How often an event has been reported, delivered or not.
    #[must_use]
    pub fn count(&self, event: HostEvent) -> usize {
        self.events.borrow().iter().filter(|(reported, _)| *reported == event).count()
    }

    /// Whether the host's task answers. One that has given up, because its guest does not come, has exited with 1, as QEMU does.
    pub async fn liveness(&mut self, deadline: Duration) -> Liveness {
        match timeout(deadline, self.command("liveness", Command::Answer)).await {
            Ok(Ok(())) => Liveness::Alive,
            Ok(Err(error)) => match self.task.join_next().await {
                Some(Err(panic)) => Liveness::Exited { code: None, signal: None, printed: panic.to_string() },
                Some(Ok(Ended::Died(printed))) => Liveness::Exited { code: None, signal: Some(SIGABRT), printed },
                _ => Liveness::Exited { code: Some(1), signal: None, printed: error.reason },
            },
            Err(_) => Liveness::Unresponsive("the host's task".to_owned()),
        }
    }

    /// How many connections of clients it has not closed, whether their clients have or not.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.strong_count().saturating_sub(1)
    }

    /// Ends the host and all its connections.
    pub async fn stop(mut self) {
        self.task.shutdown().await;
    }

    async fn command(&self, name: &'static str, command: Command) -> Result<(), ControlError> {
        let (answer, mut answered) = oneshot::channel();
        let _ = self.inputs.send(Input::Command(command, answer)).await;
        let answer = tokio::select! {
            biased;
            answer = &mut answered => answer.ok(),
            // What is sent just as the task ends lies in its queue unheard, and with it the answer's sender.
            () = self.inputs.closed() => answered.try_recv().ok(),
        };
        let answer = answer.unwrap_or_else(|| Err("the host's task has ended".to_owned()));
        answer.map_err(|reason| ControlError { party: self.name.clone(), command: name, reason })
    }
}

/// Listens on a free port.
fn listen() -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(BACKLOG)
}
