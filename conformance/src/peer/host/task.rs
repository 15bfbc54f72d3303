//! The host's task: one owner of all state. It has the roles, tells them what happens, and does what they want done; connections and the
//! guest's copy hand it what arrives.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use spice_migration::migrate::{
    self, MIGRATE_TIMEOUT, Role, SourceHost, TargetHost, Violation, server, source_host, source_server::ClientId,
    target_host,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, interval, sleep, sleep_until},
};

use super::{
    HostSettings,
    client::{Channel, Client},
    connection::{self, Link},
    copying::{self, Order, Progress, Way},
    guest::{self, Guest},
};
use crate::{
    peer::defect::Defect,
    subject::{Destination, HostEvent, HostOptions},
    trace::Trace,
};

/// What reaches the host's task.
#[derive(Debug)]
pub(super) enum Input {
    Command(Command, oneshot::Sender<Answer>),
    Link(Link),
    Message {
        connection: u64,
        id: u16,
        body: Vec<u8>,
    },
    Closed {
        connection: u64,
    },
    /// A defect of a connection is the end of the host.
    Killed(&'static str),
    /// Or of all sessions.
    Evicted,
    Copying {
        attempt: u64,
        progress: Progress,
    },
}

/// Why a command is not carried out.
pub(super) type Answer = Result<(), String>;

/// What the host is told to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Announce this destination to the clients.
    Announce(Destination),
    /// Move the guest to the host that waits for it there, when the clients have answered, or at once.
    Migrate {
        to: SocketAddr,
        hurried: bool,
    },
    /// The VM migration fails.
    Fail,
    /// The guest's agent attaches, or goes.
    AttachAgent(bool),
    /// No ticket opens the host any more.
    VoidPassword,
    /// The next VM migration is to stay in its live stage.
    Throttle,
    Cancel,
    TellStatus,
    /// Only answer.
    Answer,
}

/// Where a host listens.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) spice: TcpListener,
    pub(super) tls: Option<TcpListener>,
    /// For the guest, if one is awaited.
    pub(super) guest: Option<TcpListener>,
}

/// The state of the host and its server.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) options: HostOptions,
    pub(super) settings: Arc<HostSettings>,
    trace: Trace,
    events: watch::Sender<Vec<(HostEvent, std::time::Instant)>>,
    inputs: mpsc::Sender<Input>,
    pub(super) began: Instant,
    role: HostRole,
    pub(super) server: migrate::Server,
    guest: Guest,
    /// Whether the guest came from another host.
    pub(super) taken_over: bool,
    /// Where the guest will go, once announced and as long as that is open.
    pub(super) destination: Option<Destination>,
    /// Whether the clients have answered the announcement, and the guest was not told to go.
    pub(super) answered: bool,
    /// How the guest is to go, once it was told to.
    way: Option<Way>,
    throttled: bool,
    copying: Option<Copying>,
    /// Counts copies, so that what comes from an earlier one is known as such.
    attempt: u64,
    /// Whether a VM migration was ever cancelled.
    pub(super) cancelled: bool,
    pub(super) agent: Agent,
    /// The connected client is the last one, unless several are allowed.
    pub(super) clients: Vec<Client>,
    /// Channels that belong to no client, which a defect let in.
    pub(super) strays: Vec<Channel>,
    /// Links that a defect does not answer.
    pub(super) stopped: Vec<Link>,
    /// Whether a client has agreed to seamless migration.
    pub(super) agreed: bool,
    /// The latest client when an attempt was called off; 0: none was.
    pub(super) called_off_at: ClientId,
    /// Whether a client has ever been on its way here.
    pub(super) arrival: bool,
    /// Whether nobody was connected as the migration ended.
    ends_alone: bool,
    /// Whether a client has come when others were to leave.
    pub(super) newcomer: bool,
    /// Whether a client that was on its way here has gone.
    pub(super) arrival_lost: bool,
    /// Whether a client has pressed a key of the guest.
    pub(super) key_pressed: bool,
    /// Of what a defect let the host die.
    pub(super) died: Option<String>,
}

/// How a host ends by itself.
#[derive(Debug)]
pub(super) enum Ended {
    /// The guest that it waits for will not come.
    GaveUp,
    /// A defect, and its last words.
    Died(String),
}

/// What the host is to the guest's next move.
#[derive(Debug)]
enum HostRole {
    /// It has the guest, or had it.
    Source(SourceHost),
    /// It waits for the guest.
    Target(TargetHost),
}

/// The guest's agent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Agent {
    pub(super) attached: bool,
    /// How often it has attached here.
    pub(super) times: u32,
    /// Whether the state that it had at the source waits for it.
    pub(super) kept: bool,
}

/// A copy of the guest on its way.
#[derive(Debug)]
struct Copying {
    orders: mpsc::UnboundedSender<Order>,
    task: AbortHandle,
}

impl Task {
    pub(super) fn new(
        options: HostOptions,
        settings: HostSettings,
        trace: Trace,
        events: watch::Sender<Vec<(HostEvent, std::time::Instant)>>,
        inputs: mpsc::Sender<Input>,
    ) -> Self {
        let guest = Guest::new(settings.guest);
        guest.set_running(!options.incoming);
        let role = if options.incoming {
            HostRole::Target(TargetHost::new(settings.completion))
        } else {
            HostRole::Source(SourceHost::new(settings.completion, settings.hand_over))
        };
        let several = options.several_clients && settings.defect != Some(Defect::SeveralReplaced);
        Self {
            server: migrate::Server::new(options.seamless, several),
            options,
            settings: Arc::new(settings),
            trace,
            events,
            inputs,
            began: Instant::now(),
            role,
            guest,
            taken_over: false,
            destination: None,
            answered: false,
            way: None,
            throttled: false,
            copying: None,
            attempt: 0,
            cancelled: false,
            agent: Agent::default(),
            clients: Vec::new(),
            strays: Vec::new(),
            stopped: Vec::new(),
            agreed: false,
            called_off_at: 0,
            arrival: false,
            ends_alone: false,
            newcomer: false,
            arrival_lost: false,
            key_pressed: false,
            died: None,
        }
    }

    /// Serves until it is aborted, and all connections with it, or until the guest that it waits for will not come.
    /// `alive` is held by each connection as long as it lives.
    pub(super) async fn run(mut self, listeners: Listeners, mut queue: mpsc::Receiver<Input>, alive: Arc<()>) -> Ended {
        let mut connections = JoinSet::new();
        let mut connection = 0;
        let linking = Arc::default();
        let mut serve = |stream: TcpStream, with_tls, task: &Self, connections: &mut JoinSet<()>| {
            // Without it, small messages wait for acknowledgements; if it fails, they do.
            let _ = stream.set_nodelay(true);
            connection += 1;
            let (password, settings) = (task.options.password.clone(), task.settings.clone());
            let serves = connection::Server {
                password,
                security: task.options.security,
                settings,
                inputs: task.inputs.clone(),
                linking: Arc::clone(&linking),
            };
            connections.spawn(connection::run(stream, with_tls, connection, serves, alive.clone()));
        };
        let writes_in_a_tick = self.settings.guest.dirtied_per_second as f64 * guest::TICK.as_secs_f64();
        let mut writes = 0.0;
        let mut ticks = interval(guest::TICK);
        let _ = self.tell_target_host(target_host::Input::Listen);
        while !self.has_given_up() && self.died.is_none() {
            let due = self.due();
            tokio::select! {
                accepted = listeners.spice.accept() => match accepted {
                    Ok((stream, _)) => serve(stream, false, &self, &mut connections),
                    // Too many open files, most likely: that passes.
                    Err(_) => sleep(Duration::from_millis(10)).await,
                },
                Some(accepted) = accept(listeners.tls.as_ref()) => serve(accepted, true, &self, &mut connections),
                Some(accepted) = accept(listeners.guest.as_ref()), if self.copying.is_none() => {
                    self.receive_guest(accepted, &mut connections);
                }
                Some(input) = queue.recv() => self.handle(input),
                () = sleep_until(due.unwrap_or(self.began)), if due.is_some() => {
                    let _ = self.tell_server(server::Input::Deadline);
                }
                _ = ticks.tick(), if writes_in_a_tick > 0.0 => {
                    writes += writes_in_a_tick;
                    self.guest.work(writes as u64);
                    writes = writes.fract();
                }
                Some(_) = connections.join_next() => {}
            }
            self.send_guest(&mut connections);
        }
        self.died.map_or(Ended::GaveUp, Ended::Died)
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Command(command, answer) => {
                // Whoever asked may have stopped waiting.
                let _ = answer.send(self.obey(command));
            }
            Input::Link(link) => self.link(link),
            Input::Message { connection, id, body } => self.receive(connection, id, &body),
            Input::Closed { connection } => self.ended(connection),
            Input::Killed(by) => self.died = Some(by.to_owned()),
            Input::Evicted => self.end_sessions(),
            Input::Copying { attempt, progress } if attempt == self.attempt => self.copied(progress),
            Input::Copying { .. } => {}
        }
    }

    // What the host is told to do.

    fn obey(&mut self, command: Command) -> Answer {
        match command {
            Command::Answer => Ok(()),
            Command::TellStatus => {
                let guest = match &self.role {
                    HostRole::Source(host) if host.guest_runs() => "has the guest",
                    HostRole::Source(host) if host.phase() == source_host::Phase::Stopped => "has stopped the guest",
                    HostRole::Source(_) => "has sent the guest away",
                    HostRole::Target(_) => "waits for the guest or its clients",
                };
                self.note(&format_args!("{guest}, {} clients", self.clients.len()));
                Ok(())
            }
            Command::Announce(destination) => {
                on_wire(&destination, 0).ok_or("the destination has no form on the wire")?;
                let before = self.destination.clone();
                if before.is_none() || !self.has(Defect::FirstDestinationKept) {
                    self.destination = Some(destination);
                }
                self.answered = false;
                self.tell_source_host(source_host::Input::Migrate).inspect_err(|_| self.destination = before)
            }
            Command::Migrate { to, hurried } => {
                match &self.role {
                    HostRole::Source(host) => match host.phase() {
                        source_host::Phase::Connecting if self.way.is_none() => {}
                        source_host::Phase::Running => return Err("no destination was announced".to_owned()),
                        source_host::Phase::Ending | source_host::Phase::Released => {
                            return Err("the guest is gone".to_owned());
                        }
                        _ => return Err("a VM migration is under way".to_owned()),
                    },
                    HostRole::Target(_) => return Err("the guest is awaited".to_owned()),
                }
                let throttled = std::mem::take(&mut self.throttled);
                self.way = Some(Way { to, throttled, bandwidth: self.settings.bandwidth });
                if self.answered || hurried {
                    self.tell_source_host(source_host::Input::ConnectComplete)
                } else {
                    Ok(())
                }
            }
            Command::AttachAgent(attached) => {
                self.attach_agent(attached);
                Ok(())
            }
            Command::VoidPassword => {
                self.options.password = Some(String::new());
                Ok(())
            }
            Command::Throttle => {
                self.throttled = true;
                Ok(())
            }
            Command::Fail => {
                self.copied(Progress::Failed("told to fail".to_owned()));
                Ok(())
            }
            Command::Cancel if self.way.is_none() => Ok(()),
            Command::Cancel => {
                self.cancelled = true;
                self.report(HostEvent::MigrationCancelled);
                if self.has(Defect::CancelToldToEveryone) {
                    self.cancel_everyone();
                }
                self.tell_source_host(source_host::Input::Cancel)
            }
        }
    }

    // The roles, and what they want done.

    pub(super) fn tell_server(&mut self, input: server::Input) -> Result<(), Violation> {
        for effect in self.server.handle(self.now(), input)? {
            self.serve(input, effect);
        }
        Ok(())
    }

    /// The clients have answered the announcement, as far as they will.
    pub(super) fn connect_complete(&mut self) {
        self.answered = true;
        self.note(&"all clients have answered");
        if self.way.is_some() {
            // The host no longer waits for it if it was hurried.
            let _ = self.tell_source_host(source_host::Input::ConnectComplete);
        }
    }

    pub(super) fn tell_source_host(&mut self, input: source_host::Input) -> Answer {
        let now = self.now();
        let HostRole::Source(host) = &mut self.role else { return Err("the guest is not here".to_owned()) };
        for effect in host.handle(now, input).map_err(|violation| violation.to_string())? {
            self.do_at_source(effect).map_err(|violation| violation.to_string())?;
        }
        Ok(())
    }

    fn do_at_source(&mut self, effect: source_host::Effect) -> Result<(), Violation> {
        match effect {
            source_host::Effect::MigrateInfo => self.tell_server(server::Input::MigrateInfo)?,
            source_host::Effect::MigrateConnect => {
                self.go_wrong_before_announcement();
                self.tell_server(server::Input::MigrateConnect)?;
            }
            // It begins in `send_guest`, where it has a task to run in.
            source_host::Effect::StartLiveStage => {}
            source_host::Effect::StopGuest => {
                self.guest.set_running(false);
                self.report(HostEvent::Stop);
            }
            source_host::Effect::MigrateStart => self.tell_server(server::Input::MigrateStart)?,
            source_host::Effect::StartNonLiveStage => self.order(Order::Finish),
            source_host::Effect::MigrateEnd { completed } => {
                self.ends_alone = self.clients.is_empty();
                self.tell_server(server::Input::MigrateEnd { completed })?;
                if !completed {
                    self.called_off_at = self.clients.iter().map(|client| client.id).max().unwrap_or(0);
                    (self.way, self.destination, self.answered) = (None, None, false);
                }
            }
            source_host::Effect::AbortMigration => {
                if let Some(copying) = self.copying.take() {
                    copying.task.abort();
                    self.attempt += 1;
                }
            }
            source_host::Effect::ResumeGuest => {
                self.guest.set_running(true);
                self.report(HostEvent::Resume);
            }
            source_host::Effect::TellTargetToStart => self.order(Order::Start),
            source_host::Effect::Release => {
                // Nothing more is to be said to the target: its copy ends.
                self.copying = None;
                let untold = self.ends_alone && self.has(Defect::CompletionUntoldWithoutClient);
                let late = self.ends_alone && self.has(Defect::CompletionLateWithoutClient);
                if !untold && !late && !self.has(Defect::CompletionUntold) && !self.has(Defect::CompletedEarly) {
                    self.report(HostEvent::ClientMigrationCompleted);
                }
                if late || self.has(Defect::CompletedTwice) {
                    self.report_late(HostEvent::ClientMigrationCompleted);
                }
            }
        }
        Ok(())
    }

    pub(super) fn tell_target_host(&mut self, input: target_host::Input) -> Result<(), Violation> {
        let now = self.now();
        let HostRole::Target(host) = &mut self.role else { return Ok(()) };
        for effect in host.handle(now, input)? {
            match effect {
                target_host::Effect::CanHoldTheGuest => self.tell_server(server::Input::CanHoldTheGuest)?,
                target_host::Effect::AwaitClient => self.tell_server(server::Input::AwaitClient)?,
                target_host::Effect::StartGuest => {
                    self.guest.set_running(true);
                    self.taken_over = true;
                    self.copying = None;
                    let HostSettings { completion, hand_over, .. } = *self.settings;
                    self.role = HostRole::Source(SourceHost::new(completion, hand_over));
                    self.report(HostEvent::Resume);
                }
                target_host::Effect::Quit => self.report(HostEvent::MigrationFailed),
            }
        }
        Ok(())
    }

    /// Whether the guest that was awaited here will not come.
    fn has_given_up(&self) -> bool {
        matches!(&self.role, HostRole::Target(host) if host.phase() == target_host::Phase::Failed)
    }

    // The guest on its way.

    /// Begins to send the guest, once the host's role wants that.
    fn send_guest(&mut self, tasks: &mut JoinSet<()>) {
        let HostRole::Source(host) = &self.role else { return };
        let Some(way) = self.way else { return };
        if host.phase() == source_host::Phase::Live && self.copying.is_none() {
            let (orders, queue) = mpsc::unbounded_channel();
            let report = self.progress();
            let task = tasks.spawn(copying::send(self.guest.clone(), way, queue, report));
            self.copying = Some(Copying { orders, task });
        }
    }

    fn receive_guest(&mut self, stream: TcpStream, tasks: &mut JoinSet<()>) {
        let report = self.progress();
        let task = tasks.spawn(copying::receive(self.guest.clone(), stream, report));
        self.copying = Some(Copying { orders: mpsc::unbounded_channel().0, task });
    }

    /// How the next copy tells its progress.
    fn progress(&mut self) -> copying::Report {
        self.attempt += 1;
        copying::Report { attempt: self.attempt, inputs: self.inputs.clone() }
    }

    fn order(&self, order: Order) {
        if let Some(copying) = &self.copying {
            // A copy that has failed says so itself.
            let _ = copying.orders.send(order);
        }
    }

    fn copied(&mut self, progress: Progress) {
        // Each role takes what concerns it; what comes too late for it changes nothing.
        let _ = match progress {
            Progress::LiveStageDone => self.tell_source_host(source_host::Input::LiveStageDone),
            Progress::Moved => {
                self.report(HostEvent::MigrationCompleted);
                self.tell_source_host(source_host::Input::GuestMoved)
            }
            Progress::Arrived => {
                self.note(&"the guest is here");
                self.tell_target_host(target_host::Input::GuestArrived).map_err(|violation| violation.to_string())
            }
            Progress::SourceSaysStart => {
                self.tell_target_host(target_host::Input::SourceSaysStart).map_err(|violation| violation.to_string())
            }
            Progress::Failed(reason) => {
                self.note(&format_args!("VM migration: {reason}"));
                match &self.role {
                    HostRole::Source(host) if host.guest_runs() || host.phase() == source_host::Phase::Stopped => {
                        self.report(HostEvent::MigrationFailed);
                        if self.has(Defect::CancelToldToEveryone) {
                            self.cancel_everyone();
                        }
                        self.tell_source_host(source_host::Input::MigrationFailed)
                    }
                    HostRole::Source(_) => Ok(()),
                    HostRole::Target(_) => self
                        .tell_target_host(target_host::Input::MigrationFailed)
                        .map_err(|violation| violation.to_string()),
                }
            }
        };
    }

    // Time, and what is told.

    /// The roles' clock, which runs as much faster as this host's patience is shorter.
    fn now(&self) -> migrate::Time {
        self.began.elapsed().mul_f64(self.pace())
    }

    /// When the server's role is to be told the time.
    fn due(&self) -> Option<Instant> {
        let gone = matches!(&self.role, HostRole::Source(host) if host.phase() == source_host::Phase::Ending);
        if gone && self.has(Defect::SourceWaitsForEver) {
            return None;
        }
        // A little later than that, so that it is not told before its time for a rounding error.
        let due = self.server.deadline()?.div_f64(self.pace()) + Duration::from_micros(10);
        Some(self.began + due)
    }

    fn pace(&self) -> f64 {
        MIGRATE_TIMEOUT.div_duration_f64(self.settings.migrate_timeout)
    }

    pub(super) fn report(&self, event: HostEvent) {
        self.trace.event(&self.options.name, &format_args!("{event:?}"));
        self.note(&event);
        self.events.send_modify(|events| events.push((event, std::time::Instant::now())));
    }

    /// What defects report when a client's time would be over.
    fn report_late(&self, event: HostEvent) {
        let (events, limit) = (self.events.clone(), self.settings.migrate_timeout);
        tokio::spawn(async move {
            sleep(limit).await;
            events.send_modify(|events| events.push((event, std::time::Instant::now())));
        });
    }

    /// Says what happens, to whoever wants to read it.
    pub(super) fn note(&self, text: &dyn std::fmt::Display) {
        if let Some(notes) = &self.settings.notes {
            // Whoever does not read fast enough misses some.
            let _ = notes.try_send(format!("{}: {text}", self.options.name));
        }
    }

    pub(super) fn seen(&self, event: HostEvent) -> bool {
        self.events.borrow().iter().any(|(reported, _)| *reported == event)
    }

    pub(super) fn has(&self, defect: Defect) -> bool {
        self.settings.defect == Some(defect)
    }
}

/// The next connection to a listener that may not be there.
async fn accept(listener: Option<&TcpListener>) -> Option<TcpStream> {
    match listener?.accept().await {
        Ok((stream, _)) => Some(stream),
        // Too many open files, most likely: that passes.
        Err(_) => {
            sleep(Duration::from_millis(10)).await;
            None
        }
    }
}

/// A destination as messages carry it; `None` if its host or subject cannot be a string there.
pub(super) fn on_wire(destination: &Destination, port_error: u16) -> Option<spice_migration::message::Destination<'_>> {
    use spice_migration::{Text, message};
    let cert_subject = match &destination.cert_subject {
        Some(subject) => Some(Text::new(subject.as_bytes())?),
        None => None,
    };
    let told = |port: Option<u16>| port.map_or(message::Destination::NO_PORT, |port| port.wrapping_add(port_error));
    Some(message::Destination {
        port: told(destination.port),
        tls_port: told(destination.tls_port),
        host: Text::new(destination.host.as_bytes())?,
        cert_subject,
    })
}
