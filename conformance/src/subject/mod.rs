//! The party under test: how its hosts are started, controlled and asked whether they still live.

pub mod qemu;
pub mod server;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use spice_migration::{ServerMessage, Text, migrate::source_host::Completion};

use crate::{
    peer::{
        defect::Defect,
        host::{EmbeddedHost, HostSettings},
        tls::server_config,
    },
    trace::Trace,
};
use qemu::{Qemu, QemuHost};
use server::{Server, StandingHost};

/// The kind of host under test.
#[derive(Clone, Debug)]
pub enum Subject {
    /// The embedded reference hosts.
    Embedded(Embedded),
    /// Real QEMU processes.
    Qemu(Qemu),
    /// A server that runs already.
    Server(Server),
}

/// Reference hosts, which run in this process.
#[derive(Clone, Copy, Debug)]
pub struct Embedded {
    /// What is wrong with them, if anything is.
    pub defect: Option<Defect>,
    /// How long to wait for what they should do at once.
    pub patience: Duration,
}

impl Embedded {
    /// Those with a defect, or without one.
    #[must_use]
    pub const fn new(defect: Option<Defect>) -> Self {
        Self { defect, patience: Duration::from_secs(4) }
    }
}

impl Subject {
    /// How long a source waits for its client, by design or by measurement.
    #[must_use]
    pub fn migrate_timeout(&self) -> Duration {
        match self {
            // Long enough for the suite's clients to answer in, on a machine that is busy with other cases.
            Self::Embedded(embedded) => embedded.patience * 3 / 4,
            // spice-server's MIGRATE_TIMEOUT.
            Self::Qemu(_) | Self::Server(_) => Duration::from_secs(10),
        }
    }

    /// How long the suite waits for anything that should come at once. Real hosts answer within 60 ms on an idle machine;
    /// the rest is for busy ones.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        match self {
            Self::Embedded(embedded) => embedded.patience,
            Self::Qemu(qemu) => qemu.patience,
            Self::Server(server) => server.patience,
        }
    }

    /// The same with times as many of patience.
    #[must_use]
    pub fn with_time_scale(mut self, scale: f64) -> Self {
        let patience = match &mut self {
            Self::Embedded(embedded) => &mut embedded.patience,
            Self::Qemu(qemu) => &mut qemu.patience,
            Self::Server(server) => &mut server.patience,
        };
        *patience = patience.mul_f64(scale);
        self
    }

    /// The password that a host of this kind demands when it is to demand one; `None` if it cannot be made to.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        match self {
            Self::Embedded(_) | Self::Qemu(_) => Some(PASSWORD),
            Self::Server(server) => server.password.as_deref(),
        }
    }

    /// Whether each case has hosts of its own. Otherwise only one can be run at a time.
    #[must_use]
    pub const fn is_started_afresh(&self) -> bool {
        !matches!(self, Self::Server(_))
    }

    /// Whether hosts cost next to nothing, so that a case may have a hundred of them.
    #[must_use]
    pub const fn starts_quickly(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }

    /// Whether a target starts the guest as soon as it has it, and not when its client has come, too.
    #[must_use]
    pub const fn starts_guest_alone(&self) -> bool {
        matches!(self, Self::Qemu(_))
    }

    pub(crate) async fn start(
        &self,
        directory: &Path,
        options: &HostOptions,
        guest_first: bool,
        trace: &Trace,
    ) -> Result<Host, StartError> {
        match self {
            Self::Embedded(Embedded { defect, .. }) => {
                let migrate_timeout = self.migrate_timeout();
                let mut settings = HostSettings { defect: *defect, migrate_timeout, ..HostSettings::default() };
                if let Some(folder) = &options.certificates {
                    let tls = server_config(folder).map_err(|error| error.to_string());
                    let not_ready = |reason| StartError::NotReady { name: options.name.clone(), reason };
                    settings.tls = Some(tls.map_err(not_ready)?);
                }
                if guest_first {
                    settings.completion = Completion::SourceWaits;
                }
                EmbeddedHost::start(options, settings, trace).await.map(Host::Embedded)
            }
            Self::Qemu(qemu) => qemu.start(directory, options, trace).await.map(|host| Host::Qemu(Box::new(host))),
            Self::Server(_) if options.incoming => Err(StartError::NoControl),
            Self::Server(server) => server.reach(&options.name).await.map(Host::Standing),
        }
    }
}

/// One running host.
#[derive(Debug)]
pub enum Host {
    /// In this process.
    Embedded(EmbeddedHost),
    /// A QEMU process.
    Qemu(Box<QemuHost>),
    /// A server that runs already.
    Standing(StandingHost),
}

/// Hands a call on to the host, whichever kind it is.
macro_rules! on_host {
    ($host:expr, $inner:ident => $call:expr) => {
        match $host {
            Host::Embedded($inner) => $call,
            Host::Qemu($inner) => $call,
            Host::Standing($inner) => $call,
        }
    };
}

impl Host {
    /// Its name in the trace.
    #[must_use]
    pub fn name(&self) -> &str {
        on_host!(self, host => host.name())
    }

    /// Where its SPICE server listens for plaintext.
    #[must_use]
    pub fn spice(&self) -> SocketAddr {
        on_host!(self, host => host.spice())
    }

    /// Where it listens for TLS, if it does.
    #[must_use]
    pub fn spice_tls(&self) -> Option<SocketAddr> {
        on_host!(self, host => host.spice_tls())
    }

    /// Has the server announce a destination to its clients.
    ///
    /// # Errors
    /// When the host refuses or does not answer; so in all of these.
    pub async fn migrate_info(&mut self, destination: &Destination) -> Result<(), ControlError> {
        on_host!(self, host => host.migrate_info(destination).await)
    }

    /// Starts the VM migration to another host of the same kind.
    ///
    /// # Errors
    /// See [`Self::migrate_info`].
    pub async fn migrate(&mut self, target: &Self) -> Result<(), ControlError> {
        match (self, target) {
            (Self::Embedded(source), Self::Embedded(target)) => source.migrate(target).await,
            (Self::Qemu(source), Self::Qemu(target)) => source.migrate(target).await,
            (source, _) => Err(ControlError {
                party: source.name().to_owned(),
                command: "migrate",
                reason: "the target is a host of another kind".to_owned(),
            }),
        }
    }

    /// Starts a VM migration that fails.
    ///
    /// # Errors
    /// See [`Self::migrate_info`].
    pub async fn migrate_to_nowhere(&mut self) -> Result<(), ControlError> {
        on_host!(self, host => host.migrate_to_nowhere().await)
    }

    /// Makes the next VM migration so slow that it can be cancelled.
    ///
    /// # Errors
    /// See [`Self::migrate_info`].
    pub async fn throttle(&mut self) -> Result<(), ControlError> {
        on_host!(self, host => host.throttle().await)
    }

    /// Has the guest's agent attach to its SPICE server, or go.
    ///
    /// # Errors
    /// See [`Self::migrate_info`].
    pub async fn attach_agent(&mut self, attached: bool) -> Result<(), ControlError> {
        on_host!(self, host => host.attach_agent(attached).await)
    }

    /// Takes the password's validity away: no ticket opens the host any more.
    ///
    /// # Errors
    /// See [`Self::migrate_info`].
    pub async fn void_password(&mut self, how: Void) -> Result<(), ControlError> {
        on_host!(self, host => host.void_password(how).await)
    }

    /// Cancels the VM migration.
    ///
    /// # Errors
    /// See [`Self::migrate_info`].
    pub async fn cancel(&mut self) -> Result<(), ControlError> {
        on_host!(self, host => host.cancel().await)
    }

    /// Waits for the next event of a kind that was not waited for before; tells when it came.
    ///
    /// # Errors
    /// When it does not come before the deadline.
    pub async fn wait_for(&mut self, event: HostEvent, deadline: Duration) -> Result<Instant, ControlError> {
        on_host!(self, host => host.wait_for(event, deadline).await)
    }

    /// How often an event has come, without waiting.
    #[must_use]
    pub fn count(&self, event: HostEvent) -> usize {
        on_host!(self, host => host.count(event))
    }

    /// Whether an event has come, without waiting.
    #[must_use]
    pub fn seen(&self, event: HostEvent) -> bool {
        self.count(event) > 0
    }

    /// Whether the host lives and its control answers.
    pub async fn liveness(&mut self, deadline: Duration) -> Liveness {
        on_host!(self, host => host.liveness(deadline).await)
    }

    /// How many connections of clients its server has not closed, whether their clients have or not. `None` where nothing tells.
    #[must_use]
    pub fn connections(&self) -> Option<usize> {
        match self {
            Self::Embedded(host) => Some(host.connections()),
            Self::Qemu(host) => host.connections(),
            Self::Standing(_) => None,
        }
    }

    /// Ends it.
    pub async fn stop(self) {
        on_host!(self, host => host.stop().await);
    }
}

/// What a host demands of the connections of its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// Nothing, and it may have no TLS port.
    #[default]
    None,
    /// It has both ports, and demands TLS of every channel.
    Required,
    /// It has both ports, and demands plaintext of every channel.
    Refused,
}

/// What a host is started with.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// The host's name in the trace and in the guest's NAME message: `source`, `target`, …
    pub name: String,
    /// Whether the host lets its server announce seamless migration.
    pub seamless: bool,
    /// Whether several clients may be connected at once.
    pub several_clients: bool,
    /// The SPICE ticket; `None` switches ticketing off.
    pub password: Option<String>,
    /// Whether the host waits for an incoming guest instead of running its own.
    pub incoming: bool,
    /// What it demands of connections.
    pub security: Security,
    /// Where its certificate is, if it has a TLS port: a folder as QEMU's `x509-dir`.
    pub certificates: Option<PathBuf>,
    /// Whether the guest has a port with a name and a smartcard reader, each with a channel, beside screen, keyboard and mouse.
    pub port_and_smartcard: bool,
}

/// How a password loses its validity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Void {
    /// Its time is over.
    Expired,
    /// An empty one takes its place.
    Empty,
}

/// Where a client is told to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The host name as announced, opaque to the suite.
    pub host: String,
    /// The plaintext port; `None` means that none is given.
    pub port: Option<u16>,
    /// The TLS port; `None` means that none is given.
    pub tls_port: Option<u16>,
    /// The certificate's subject that the client is to verify.
    pub cert_subject: Option<String>,
}

impl Destination {
    /// A plaintext destination at a socket address.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: Some(address.port()), tls_port: None, cert_subject: None }
    }

    /// What a message tells a client, if it is an announcement or SWITCH_HOST. Ports of 0 and 0xFFFF both mean that none is given.
    #[must_use]
    pub fn told(message: &ServerMessage<'_>) -> Option<Self> {
        let told = match message {
            ServerMessage::MigrateBegin(begin) => &begin.destination,
            ServerMessage::MigrateBeginSeamless(begin) => &begin.destination,
            ServerMessage::MigrateSwitchHost(switch) => &switch.destination,
            _ => return None,
        };
        let text = |text: Text<'_>| String::from_utf8_lossy(text.as_bytes()).into_owned();
        let port = |port| (port != 0 && port != spice_migration::Destination::NO_PORT).then_some(port);
        Some(Self {
            host: text(told.host),
            port: port(told.port),
            tls_port: port(told.tls_port),
            cert_subject: told.cert_subject.map(text),
        })
    }
}

/// Something that a host reported about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// The guest stopped.
    Stop,
    /// The guest runs (again).
    Resume,
    /// The VM migration is complete.
    MigrationCompleted,
    /// The VM migration failed.
    MigrationFailed,
    /// The VM migration was cancelled.
    MigrationCancelled,
    /// The SPICE server says that it is done with its migrating client (QEMU: `SPICE_MIGRATE_COMPLETED`).
    ClientMigrationCompleted,
}

impl fmt::Display for HostEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Stop => "guest stopped",
            Self::Resume => "guest runs",
            Self::MigrationCompleted => "guest has moved",
            Self::MigrationFailed => "VM migration failed",
            Self::MigrationCancelled => "VM migration cancelled",
            Self::ClientMigrationCompleted => "no client needs this host any more",
        })
    }
}

/// Whether a party still lives after a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// The process lives and its control socket answers.
    Alive,
    /// The process lives, but something did not answer in time: what.
    Unresponsive(String),
    /// The process is gone.
    Exited {
        /// The exit code, when it exited by itself.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// The last lines that it printed.
        printed: String,
    },
}

/// The password of hosts that are started with one.
const PASSWORD: &str = "secret";

/// A host could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The case needs hosts that are controlled.
    #[error("it needs two hosts that can be made to migrate; a server alone cannot (--qemu starts two)")]
    NoControl,
    /// The case needs a host that is set up for it.
    #[error(
        "it needs a host that is started and changed for it; a server that runs already is as it is (--qemu starts one)"
    )]
    AsItIs,
    /// The case needs a password that the server demands.
    #[error("it needs a server that demands a password (--password)")]
    NoPassword,
    /// The server is not there.
    #[error("nobody listens at {address}; start the server, or name another address with --server")]
    Unreachable {
        /// Where.
        address: SocketAddr,
    },
    /// The program is not there; the message names it and the package that has it.
    #[error(
        "cannot run `{program}`: {reason}. It is in Debian's package `{package}` (apt-get install {package}), or name another binary with --qemu=BINARY"
    )]
    MissingProgram {
        /// The program as asked for.
        program: String,
        /// Debian's package that holds it.
        package: &'static str,
        /// What the system said.
        reason: String,
    },
    /// It started but did not become ready.
    #[error("{name} did not become ready: {reason}")]
    NotReady {
        /// The host's name.
        name: String,
        /// Why, with what it printed.
        reason: String,
    },
}

/// A control command failed.
#[derive(Debug, thiserror::Error)]
#[error("{party}: {command}: {reason}")]
pub struct ControlError {
    /// The host's name.
    pub party: String,
    /// What was asked of it.
    pub command: &'static str,
    /// What it answered, or that it did not.
    pub reason: String,
}
