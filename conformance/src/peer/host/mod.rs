//! An embedded host: a hypervisor with a SPICE server in this process, which conforms unless a [`Defect`] is switched on.
//!
//! It serves loopback TCP and has the channels main, display, inputs and cursor. It can be a source, a target, and a
//! source again once it has been a target. The guest is imaginary: its migration takes no time and moves no bytes.

mod client;
mod connection;
mod server;
mod state;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use self::server::{Command, Input, Server};
use super::{defect::Defect, ticket::TicketKey};
use crate::{
    subject::{ControlError, Destination, HostEvent, HostOptions, Liveness, StartError},
    trace::Trace,
};

/// Most messages and commands that wait for the host's task.
const INPUTS_LEN: usize = 16;

/// A host in this process. It ends when it is dropped.
#[derive(Debug)]
pub struct EmbeddedHost {
    name: String,
    spice: SocketAddr,
    inputs: mpsc::Sender<Input>,
    /// Everything that the host reported.
    events: watch::Receiver<Vec<(HostEvent, Instant)>>,
    /// What of it was waited for.
    delivered: Vec<HostEvent>,
    /// Holds the host's task; dropping it ends that and all connections.
    task: JoinSet<()>,
}

impl EmbeddedHost {
    /// Starts a host. `migrate_timeout` is how long it waits for a migrating client (spice-server: 10 s).
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(
        options: &HostOptions,
        defect: Option<Defect>,
        migrate_timeout: Duration,
        trace: &Trace,
    ) -> Result<Self, StartError> {
        let not_ready = |reason: String| StartError::NotReady { name: options.name.clone(), reason };
        // Made before the first client waits for it: that takes a while.
        tokio::task::spawn_blocking(TicketKey::shared).await.map_err(|error| not_ready(error.to_string()))?;
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|error| not_ready(error.to_string()))?;
        let spice = listener.local_addr().map_err(|error| not_ready(error.to_string()))?;
        let (inputs, queue) = mpsc::channel(INPUTS_LEN);
        let (reported, events) = watch::channel(Vec::new());
        let server = Server::new(options.clone(), defect, migrate_timeout, trace.clone(), reported);
        let mut task = JoinSet::new();
        task.spawn(server.run(listener, inputs.clone(), queue));
        Ok(Self { name: options.name.clone(), spice, inputs, events, delivered: Vec::new(), task })
    }

    /// The name in the trace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where SPICE clients connect.
    #[must_use]
    pub fn spice(&self) -> SocketAddr {
        self.spice
    }

    /// Announces a destination to the client; does not wait for the client's answer.
    ///
    /// # Errors
    /// When the destination has no form on the wire.
    pub async fn migrate_info(&mut self, destination: &Destination) -> Result<(), ControlError> {
        self.command("migrate_info", Command::Announce(destination.clone())).await.map(drop)
    }

    /// Moves the guest to a host that waits for one; does not wait for the client.
    ///
    /// # Errors
    /// When the guest is not here, or the target does not wait for one; it goes on here then.
    pub async fn migrate(&mut self, target: &Self) -> Result<(), ControlError> {
        if !self.command("migrate", Command::StopGuest).await? {
            return Ok(());
        }
        match target.command("migrate (incoming)", Command::TakeGuest).await {
            Ok(_) => self.command("migrate", Command::Complete).await.map(drop),
            Err(error) => {
                self.command("migrate", Command::Fail).await?;
                Err(error)
            }
        }
    }

    /// Begins a VM migration that fails.
    ///
    /// # Errors
    /// When the guest is not here.
    pub async fn migrate_to_nowhere(&mut self) -> Result<(), ControlError> {
        self.command("migrate_to_nowhere", Command::Fail).await.map(drop)
    }

    /// Lets the next [`migrate`](Self::migrate) stay in its live stage until it is cancelled.
    ///
    /// # Errors
    /// When the host has ended.
    pub async fn throttle(&mut self) -> Result<(), ControlError> {
        self.command("throttle", Command::Throttle).await.map(drop)
    }

    /// Cancels a VM migration in its live stage; without one, nothing happens.
    ///
    /// # Errors
    /// When the host has ended.
    pub async fn cancel(&mut self) -> Result<(), ControlError> {
        self.command("cancel", Command::Cancel).await.map(drop)
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

    /// Whether an event has been reported, delivered or not.
    #[must_use]
    pub fn seen(&self, event: HostEvent) -> bool {
        self.events.borrow().iter().any(|(reported, _)| *reported == event)
    }

    /// Whether the host's task answers.
    pub async fn liveness(&mut self, deadline: Duration) -> Liveness {
        match timeout(deadline, self.command("liveness", Command::Answer)).await {
            Ok(Ok(_)) => Liveness::Alive,
            Ok(Err(error)) => Liveness::Exited { code: None, signal: None, printed: error.reason },
            Err(_) => Liveness::Unresponsive("the host's task".to_owned()),
        }
    }

    /// Ends the host and all its connections.
    pub async fn stop(mut self) {
        self.task.shutdown().await;
    }

    async fn command(&self, name: &'static str, command: Command) -> Result<bool, ControlError> {
        let (answer, answered) = oneshot::channel();
        // If the task has ended, the answer's sender is dropped here and the error is seen below.
        let _ = self.inputs.send(Input::Command(command, answer)).await;
        let answer = answered.await.unwrap_or_else(|_| Err("the host's task has ended".to_owned()));
        answer.map_err(|reason| ControlError { party: self.name.clone(), command: name, reason })
    }
}
