//! One server that runs already, and whose host is not controlled: it cannot be made to migrate.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, time::timeout};

use super::{ControlError, Destination, HostEvent, Liveness, StartError, Void};

/// Where it is, and what it wants to know of clients.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// The password that it demands.
    pub password: Option<String>,
    /// How long to wait for what it should do at once.
    pub patience: Duration,
}

/// The server as a host of a case.
#[derive(Debug)]
pub struct StandingHost {
    name: String,
    address: SocketAddr,
}

impl Server {
    /// One at this address.
    #[must_use]
    pub const fn new(address: SocketAddr, password: Option<String>) -> Self {
        Self { address, password, patience: Duration::from_secs(5) }
    }

    /// Makes sure that it is there.
    pub(super) async fn reach(&self, name: &str) -> Result<StandingHost, StartError> {
        let host = StandingHost { name: name.to_owned(), address: self.address };
        match host.liveness(self.patience).await {
            Liveness::Alive => Ok(host),
            _ => Err(StartError::Unreachable { address: self.address }),
        }
    }
}

impl StandingHost {
    /// Its name in the trace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    #[must_use]
    pub fn spice(&self) -> SocketAddr {
        self.address
    }

    /// Not known.
    #[must_use]
    pub fn spice_tls(&self) -> Option<SocketAddr> {
        None
    }

    /// Whether it takes connections.
    pub async fn liveness(&self, deadline: Duration) -> Liveness {
        match timeout(deadline, TcpStream::connect(self.address)).await {
            Ok(Ok(_)) => Liveness::Alive,
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                Liveness::Exited { code: None, signal: None, printed: String::new() }
            }
            Ok(Err(error)) => Liveness::Unresponsive(error.to_string()),
            Err(_) => Liveness::Unresponsive(format!("no connection within {deadline:?}")),
        }
    }

    /// Nothing tells what its host does.
    #[must_use]
    pub fn count(&self, _: HostEvent) -> usize {
        0
    }

    pub(super) async fn migrate_info(&self, _: &Destination) -> Result<(), ControlError> {
        self.refused("migrate_info")
    }

    pub(super) async fn migrate_to_nowhere(&self) -> Result<(), ControlError> {
        self.refused("migrate")
    }

    pub(super) async fn throttle(&self) -> Result<(), ControlError> {
        self.refused("throttle")
    }

    pub(super) async fn attach_agent(&self, _: bool) -> Result<(), ControlError> {
        self.refused("attach_agent")
    }

    pub(super) async fn void_password(&self, _: Void) -> Result<(), ControlError> {
        self.refused("expire_password")
    }

    pub(super) async fn cancel(&self) -> Result<(), ControlError> {
        self.refused("cancel")
    }

    pub(super) async fn wait_for(&self, _: HostEvent, _: Duration) -> Result<Instant, ControlError> {
        self.refused("wait for an event")
    }

    pub(super) async fn stop(self) {}

    fn refused<T>(&self, command: &'static str) -> Result<T, ControlError> {
        let reason = "the server's host is not controlled".to_owned();
        Err(ControlError { party: self.name.clone(), command, reason })
    }
}
