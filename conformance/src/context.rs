//! What a case works with: hosts that it starts, clients that it plays, and the liveness of the hosts afterwards.

use std::{
    error::Error,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use spice_migration::{
    ChannelType,
    caps::{CapabilityWords, CommonCapability, MainCapability},
    message::ChannelId,
    migrate::observer,
};

use crate::{
    case::{Context, Stop, Unexpected},
    peer::{
        client::{Client, Session, is},
        tls,
    },
    subject::{
        ControlError, Destination, Embedded, Host, HostEvent, HostOptions, Liveness, Security, StartError, Subject,
        Void,
    },
    trace::{Finding, Trace},
};

/// A host of the case, in the order in which they are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The guest runs here first.
    Source,
    /// It moves here.
    Target,
    /// And on to here.
    Third,
}

/// What the hosts of a case are started with.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they have nothing to do with each other")]
pub struct Setup {
    /// Whether they allow seamless migration.
    pub seamless: bool,
    /// Whether they demand a [password](Subject::password).
    pub password: bool,
    /// Whether a target starts the guest as soon as it is there, as QEMU does, where it would otherwise wait for the client.
    pub guest_first: bool,
    /// Whether they let several clients connect at once.
    pub several_clients: bool,
    /// Whether the guest has a port and a smartcard reader.
    pub port_and_smartcard: bool,
    /// What the hosts demand of connections.
    pub security: Security,
}

impl Setup {
    /// Nothing of all that.
    pub const NOTHING: Self = Self {
        seamless: false,
        password: false,
        guest_first: false,
        several_clients: false,
        port_and_smartcard: false,
        security: Security::None,
    };
}

impl Context {
    /// For one case against a subject.
    ///
    /// # Errors
    /// When no temporary folder can be made.
    pub fn new(subject: Subject) -> io::Result<Self> {
        Ok(Self {
            subject,
            trace: Trace::new(),
            hosts: Vec::new(),
            migrations: Vec::new(),
            served: false,
            void: false,
            setup: Setup::NOTHING,
            password: String::new(),
            tls: None,
            directory: tempfile::Builder::new().prefix("spice-").tempdir()?,
        })
    }

    /// How long to wait for what should come at once.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.subject.patience()
    }

    /// The same where a server's timeout would bring it, too, in the end.
    #[must_use]
    pub fn soon(&self) -> Duration {
        self.patience().min(self.subject.migrate_timeout() / 2)
    }

    /// A client that can do everything and knows the hosts' password.
    #[must_use]
    pub fn client(&self) -> Client {
        let mut client = Client::new(self.patience(), self.trace.clone()).with_password(&self.password);
        client.tls.clone_from(&self.tls);
        client
    }

    /// Starts a source alone.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_source(&mut self, setup: Setup) -> Result<(), StartError> {
        self.start(Place::Source, setup).await
    }

    /// Starts a source and a target.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start_pair(&mut self, setup: Setup) -> Result<(), StartError> {
        if !self.subject.is_started_afresh() {
            return Err(StartError::NoControl);
        }
        self.start(Place::Source, setup).await?;
        self.start(Place::Target, setup).await
    }

    /// Starts the next host.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(&mut self, place: Place, setup: Setup) -> Result<(), StartError> {
        assert_eq!(self.hosts.len(), place as usize, "hosts are started in order");
        if setup.security != Security::None || setup.several_clients || setup.port_and_smartcard {
            self.changes_hosts()?;
        }
        let password = self.subject.password().map(str::to_owned);
        if setup.password && password.is_none() {
            return Err(StartError::NoPassword);
        }
        // A server that runs already has one or has none.
        let password = password.filter(|_| setup.password || !self.subject.is_started_afresh());
        self.password = password.clone().unwrap_or_default();
        self.setup = setup;
        let certificates = match setup.security {
            Security::None => None,
            _ => Some(self.certificates()?),
        };
        if let (Security::Required, Some(folder)) = (setup.security, &certificates) {
            let unusable = |error: tls::TlsError| Self::not_ready(place, &error);
            self.tls = Some(tls::connector(folder).map_err(unusable)?);
        }
        let options = HostOptions {
            name: place.name().to_owned(),
            seamless: setup.seamless,
            several_clients: setup.several_clients,
            password,
            incoming: place != Place::Source,
            security: setup.security,
            certificates,
            port_and_smartcard: setup.port_and_smartcard,
        };
        let host = self.subject.start(self.directory.path(), &options, setup.guest_first, &self.trace).await?;
        self.hosts.push(host);
        Ok(())
    }

    /// The folder with the certificates of the case's hosts, which are made when they are first asked for.
    fn certificates(&self) -> Result<PathBuf, StartError> {
        let folder = self.directory.path().join("x509");
        if !folder.exists() {
            let made = fs::create_dir(&folder)
                .and_then(|()| tls::make_certificates(&Ipv4Addr::LOCALHOST.to_string(), &folder));
            made.map_err(|error| Self::not_ready(Place::Source, &error))?;
        }
        Ok(folder)
    }

    fn not_ready(place: Place, error: &dyn Error) -> StartError {
        StartError::NotReady { name: place.name().to_owned(), reason: error.to_string() }
    }

    /// Where clients connect to a host, as it demands.
    pub fn address(&mut self, place: Place) -> SocketAddr {
        let host = &self.hosts[place as usize];
        host.spice_tls().filter(|_| self.tls.is_some()).unwrap_or_else(|| host.spice())
    }

    /// A server that runs already is as it is.
    ///
    /// # Errors
    /// When it does.
    pub fn changes_hosts(&self) -> Result<(), StartError> {
        if self.subject.is_started_afresh() { Ok(()) } else { Err(StartError::AsItIs) }
    }

    /// A host that was started.
    ///
    /// # Panics
    /// When it was not: a bug of the case.
    pub fn host(&mut self, place: Place) -> &mut Host {
        &mut self.hosts[place as usize]
    }

    /// Ends all hosts, so that others can be started.
    pub async fn renew(&mut self) {
        for host in self.hosts.drain(..) {
            host.stop().await;
        }
    }

    /// Begins a session with all channels on a host.
    ///
    /// # Errors
    /// When the host's server does not serve it.
    pub async fn connect(&mut self, client: &Client, place: Place) -> Result<Session, Stop> {
        let address = self.address(place);
        let session = client.connect(place.name(), address).await?;
        self.served = true;
        // Without these, cases about their messages would have nothing to judge.
        for channel_type in [ChannelType::DISPLAY, ChannelType::INPUTS, ChannelType::CURSOR] {
            if session.offered.iter().any(|offered| offered.channel_type == channel_type) {
                continue;
            }
            return Err(match place {
                Place::Source => Stop::NotApplicable(format!("the server has no {channel_type} channel")),
                // A guest takes its channels along.
                _ => session.main.unexpected(format!("a {channel_type} channel"), "an offer without one").into(),
            });
        }
        Ok(session)
    }

    /// Waits for the end of the main channel of a session in whose place another has come.
    ///
    /// # Errors
    /// When it does not end. Of a server that runs already nobody has said whether it lets several clients in: if it serves both, it does,
    /// and the case is not applicable.
    pub async fn is_replaced(&mut self, first: &mut Session, limit: Duration) -> Result<(), Stop> {
        let ended = first.main.closed_within(limit).await;
        if ended.is_err() && self.changes_hosts().is_err() && first.list_channels().await.is_ok() {
            return Err(Stop::NotApplicable("the server serves several clients at once".to_owned()));
        }
        Ok(ended.map(drop)?)
    }

    /// Begins a session with nothing but its main channel on a host.
    ///
    /// # Errors
    /// When the host's server does not serve it.
    pub async fn connect_main(&mut self, client: &Client, place: Place) -> Result<Session, Unexpected> {
        let address = self.address(place);
        let session = client.connect_main(place.name(), address).await?;
        self.served = true;
        Ok(session)
    }

    /// Waits until a server has replied to a link that says no more than which channel it is for: one that serves its connections in
    /// turn has then seen what came before on the others.
    ///
    /// # Errors
    /// When it does not reply.
    pub async fn await_reply(&mut self, place: Place) -> Result<(), Unexpected> {
        let (client, address) = (self.client(), self.address(place));
        let mut link = client.open(place.name(), INPUTS, address).await?;
        link.request(&client.request(0, INPUTS)).await?;
        link.reply().await.map(drop)
    }

    /// Has a host announce another one to its client.
    ///
    /// # Errors
    /// When the host refuses.
    pub async fn announce(&mut self, from: Place, to: Place) -> Result<(), Stop> {
        let destination = self.given_destination(to);
        let server = self.address(from);
        let Setup { seamless, several_clients, .. } = self.setup;
        // The observer knows nothing of several clients: what is allowed to one of them is S1.5.
        if !(seamless && several_clients) {
            self.trace.host(server, observer::HostEvent::Announces { seamless });
        }
        Ok(self.host(from).migrate_info(&destination).await?)
    }

    /// What a host is told when another one is announced.
    pub fn given_destination(&mut self, to: Place) -> Destination {
        let address = self.address(to);
        match &self.tls {
            None => Destination::plain(address),
            Some(_) => Destination {
                host: address.ip().to_string(),
                port: None,
                tls_port: Some(address.port()),
                cert_subject: Some(tls::SUBJECT.to_owned()),
            },
        }
    }

    /// Starts the VM migration.
    ///
    /// # Errors
    /// When the host refuses.
    pub async fn migrate(&mut self, from: Place, to: Place) -> Result<(), Stop> {
        let Ok([source, target]) = self.hosts.get_disjoint_mut([from as usize, to as usize]) else {
            return Err(Stop::Inconclusive(format!("{} or {} was not started", from.name(), to.name())));
        };
        Ok(source.migrate(target).await?)
    }

    /// Has the guest's agent attach at a host, or go.
    ///
    /// # Errors
    /// When the host refuses.
    pub async fn attach_agent(&mut self, place: Place, attached: bool) -> Result<(), Stop> {
        self.changes_hosts()?;
        Ok(self.host(place).attach_agent(attached).await?)
    }

    /// Takes the validity of a host's password away.
    ///
    /// # Errors
    /// When the host refuses.
    pub async fn void_password(&mut self, place: Place, how: Void) -> Result<(), Stop> {
        self.changes_hosts()?;
        self.void = true;
        Ok(self.host(place).void_password(how).await?)
    }

    /// Begins a VM migration that takes long, and cancels it. The target's part is over then.
    ///
    /// # Errors
    /// When the host refuses, or does not say that it is cancelled.
    pub async fn cancel_migration(&mut self) -> Result<(), Stop> {
        let patience = self.patience();
        self.host(Place::Source).throttle().await?;
        self.migrate(Place::Source, Place::Target).await?;
        let host = self.host(Place::Source);
        host.cancel().await?;
        host.wait_for(HostEvent::MigrationCancelled, patience).await?;
        self.give_target_up().await
    }

    /// Ends the target, whose part in the case is over: QEMU's exits by itself when the guest that it waits for does not
    /// come, and that says nothing about SPICE.
    async fn give_target_up(&mut self) -> Result<(), Stop> {
        let patience = self.patience();
        match self.host(Place::Target).liveness(patience).await {
            Liveness::Alive | Liveness::Exited { code: Some(1), signal: None, .. } => {
                self.hosts.remove(Place::Target as usize).stop().await;
                Ok(())
            }
            // It stays, for the look at all hosts to find.
            _ => Err(Stop::Inconclusive("the target did not end as it does when no guest comes".to_owned())),
        }
    }

    /// Asks each host that the case started whether its process lives, its control answers, and it serves a new client if it
    /// serves any: one that a guest and its clients have left need not.
    pub async fn liveness(&mut self) -> Vec<(String, Liveness)> {
        let (patience, client) = (self.patience(), self.client());
        let mut all = Vec::new();
        for host in &mut self.hosts {
            let address = host.spice_tls().filter(|_| self.tls.is_some()).unwrap_or_else(|| host.spice());
            let mut liveness = host.liveness(patience).await;
            let left = host.seen(HostEvent::ClientMigrationCompleted);
            if liveness == Liveness::Alive && !self.void && !left {
                liveness = match probe(&client, host.name(), address).await {
                    Ok(()) => Liveness::Alive,
                    // A process that dies of its client is found dead only now.
                    Err(unexpected) => match host.liveness(patience).await {
                        // They have left meanwhile.
                        Liveness::Alive if host.seen(HostEvent::ClientMigrationCompleted) => Liveness::Alive,
                        Liveness::Alive => Liveness::Unresponsive(format!(
                            "a new client waited for {}, got {}",
                            unexpected.expected, unexpected.got
                        )),
                        worse => worse,
                    },
                };
            }
            all.push((host.name().to_owned(), liveness));
        }
        all
    }

    /// Waits for an event that may have been waited for before.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn happened(&mut self, place: Place, event: HostEvent, limit: Duration) -> Result<(), ControlError> {
        let host = self.host(place);
        if !host.seen(event) {
            host.wait_for(event, limit).await?;
        }
        Ok(())
    }

    /// Whether anything tells how many connections a host has open.
    #[must_use]
    pub fn tells_connections(&self) -> bool {
        self.hosts.iter().any(|host| host.connections().is_some())
    }

    /// Whether a host has a connection open. All of the suite's must be closed by now.
    #[must_use]
    pub fn keeps_connections(&self) -> bool {
        self.hosts.iter().any(|host| host.connections().is_some_and(|open| open > 0))
    }

    /// Gives a host time to notice that one of the connections has ended that were `open` before, if anything tells how many it has.
    pub async fn notices_an_end(&self, place: Place, open: Option<usize>) {
        let host = &self.hosts[place as usize];
        let _ = falls_below(host, open.unwrap_or(0), self.patience()).await;
    }

    /// What the hosts keep of clients that are gone, though they have had time to notice. All of the suite's connections must be
    /// closed by now, but so many to each host.
    pub async fn leaks(&self, open: usize, patience: Duration) -> Vec<Finding> {
        let deadline = Instant::now() + patience;
        let mut leaks = Vec::new();
        for host in &self.hosts {
            let kept = falls_below(host, open + 1, deadline.saturating_duration_since(Instant::now())).await;
            if let Some(left) = kept.filter(|kept| *kept > open) {
                leaks.push(Finding {
                    requirement: "P1",
                    connection: host.name().to_owned(),
                    expected: "the server to close the connections of clients that are gone".to_owned(),
                    got: format!("{} of them open", left - open),
                });
            }
        }
        leaks
    }

    /// Starts one host and links one client, to see whether the subject can be tested at all, and what it is.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn survey(&mut self) -> Result<Survey, SurveyError> {
        self.start_source(Setup { seamless: true, ..Setup::default() }).await?;
        // A defect may keep the embedded hosts from serving anyone; that is then what the cases find.
        if let Subject::Embedded(Embedded { defect: Some(defect), .. }) = self.subject {
            let name = format!("embedded reference hosts with the defect {}", defect.name());
            let version = env!("CARGO_PKG_VERSION").to_owned();
            return Ok(Survey { kind: "embedded", name, version, capabilities: Vec::new() });
        }
        let client = self.client();
        let session = self.connect_main(&client, Place::Source).await.map_err(SurveyError::Link)?;
        let reply = &session.main.reply;
        let common = CapabilityWords::new(&reply.common_words).bits().map(|bit| CommonCapability(bit).to_string());
        let main = CapabilityWords::new(&reply.channel_words).bits().map(|bit| MainCapability(bit).to_string());
        let capabilities = common.chain(main).collect();
        let (kind, name, version) = match (&self.subject, &self.hosts[0]) {
            (Subject::Qemu(qemu), Host::Qemu(host)) => {
                let name = format!("QEMU {} with spice-server", qemu.version());
                ("qemu", name, host.spice_server_version().to_owned())
            }
            (Subject::Server(server), _) => {
                ("server", format!("the server at {}", server.address), "of unknown version".to_owned())
            }
            _ => ("embedded", "embedded reference hosts".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        };
        Ok(Survey { kind, name, version, capabilities })
    }

    /// Ends the hosts.
    pub async fn finish(self) {
        for host in self.hosts {
            host.stop().await;
        }
    }
}

/// Waits until a host has fewer than so many connections open, and returns how many it has then, or has still when time is up.
async fn falls_below(host: &Host, limit: usize, patience: Duration) -> Option<usize> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    loop {
        let open = host.connections();
        if open.is_none_or(|open| open < limit) || Instant::now() >= deadline {
            return open;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// Asks for a session as a new client does, on main and on two other channels: in spice-server, one that the server's thread serves, and
/// one of the display's.
async fn probe(client: &Client, host: &str, address: SocketAddr) -> Result<(), Unexpected> {
    let name = format!("{host}/probe");
    let mut session = client.connect_main(&name, address).await?;
    let served = async {
        session.list_channels().await?;
        for channel in session.offered.clone() {
            if matches!(channel.channel_type, ChannelType::INPUTS | ChannelType::CURSOR) {
                let linked = client.link(&name, address, session.id, channel).await?;
                session.adopt(linked).await?;
            }
        }
        Ok(())
    };
    let served = served.await;
    // A case may end while its guest moves: a client that is sent after it has been served.
    let sent_on = session.main.arrived().any(|received| is!(received, MigrateSwitchHost));
    let sent_on = sent_on || session.main.taken.iter().any(|received| is!(received, MigrateSwitchHost));
    session.close().await;
    if sent_on { Ok(()) } else { served }
}

impl Place {
    /// The host's name in the trace.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
            Self::Third => "third",
        }
    }
}

/// The main channel.
pub const MAIN: ChannelId = ChannelId { channel_type: ChannelType::MAIN, id: 0 };

/// The first display channel.
pub const DISPLAY: ChannelId = ChannelId { channel_type: ChannelType::DISPLAY, id: 0 };

/// The inputs channel.
pub const INPUTS: ChannelId = ChannelId { channel_type: ChannelType::INPUTS, id: 0 };

/// What can be told of a subject before it is tested.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Survey {
    /// `embedded`, `qemu` or `server`.
    pub kind: &'static str,
    /// The software's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The capabilities of its main channel, common ones included.
    pub capabilities: Vec<String>,
}

/// Why a subject cannot be tested.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// It cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It does not serve a client.
    #[error("on {}: waited for {}, got {}", .0.connection, .0.expected, .0.got)]
    Link(Unexpected),
}
