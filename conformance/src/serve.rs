//! `serve`: the reference hosts as standing servers, to try a client by hand or from a script.
//!
//! One host runs the guest. `migrate` starts another one and moves the guest there; the host that it leaves ends when nobody needs it any
//! more. What happens is told on the standard output, a line each, that begins with the host's name.

use std::{future::pending, io, pin::Pin, time::Instant};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, Stdin},
    sync::{mpsc, watch},
};

use crate::{
    peer::host::{EmbeddedHost, HostSettings},
    subject::{ControlError, Destination, HostEvent, HostOptions, StartError},
    trace::Trace,
};

/// The commands, a line each, as `help` shows them.
pub const COMMANDS: &str = "  migrate          start another host, announce it to the clients, and move the guest there when they have answered
  migrate hurried  the same without waiting for their answers
  throttle         let the next migration stay in its live stage until it is cancelled
  cancel           cancel the migration
  fail             let the migration fail
  status           say who has the guest and how many clients
  help             show this
  quit             end; so does the end of the input";

/// Most lines that wait to be printed; a thousand clients say some ten thousand when they are moved.
const NOTES_LEN: usize = 100_000;

/// What is served.
#[derive(Clone, Debug)]
pub struct Service {
    /// Whether the hosts allow seamless migration.
    pub seamless: bool,
    /// Whether they let several clients connect at once.
    pub several_clients: bool,
    /// The clients' ticket.
    pub password: Option<String>,
    /// The subject that clients are told to verify.
    pub tls_subject: Option<String>,
    /// What else sets the hosts apart.
    pub settings: HostSettings,
}

/// Why serving ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A host could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Commands cannot be read, or nobody reads what is told.
    #[error("standard input or output: {0}")]
    Io(#[from] io::Error),
}

/// Serves until it is told to quit.
///
/// # Errors
/// When a host cannot be started, or the standard output is closed.
pub async fn serve(service: Service) -> Result<(), ServeError> {
    let (sender, mut notes) = mpsc::channel(NOTES_LEN);
    let settings = HostSettings { notes: Some(sender), ..service.settings.clone() };
    let mut hosts = Hosts { service: Service { settings, ..service }, host: None, target: None, started: 0 };
    hosts.host = Some(hosts.start(false).await?);
    let mut output = tokio::io::stdout();
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    let mut outcome: Pin<Box<dyn Future<Output = Outcome> + Send>> = Box::pin(pending());
    loop {
        tokio::select! {
            // What the hosts have told comes before what follows from it.
            biased;
            Some(note) = notes.recv() => {
                output.write_all(format!("{note}\n").as_bytes()).await?;
                if notes.is_empty() {
                    output.flush().await?;
                }
            }
            ended = &mut outcome => {
                outcome = Box::pin(pending());
                let line = hosts.ended(ended).await;
                output.write_all(format!("{line}\n").as_bytes()).await?;
                output.flush().await?;
            }
            command = next(&mut commands) => {
                let answer = match command?.as_deref().map(str::trim) {
                    None | Some("quit") => return Ok(()),
                    Some("") => Ok(()),
                    Some("help") => Err(COMMANDS.to_owned()),
                    Some(migrate @ ("migrate" | "migrate hurried")) => match hosts.migrate(migrate != "migrate").await {
                        Ok(migration) => {
                            outcome = Box::pin(migration);
                            Ok(())
                        }
                        Err(refusal) => Err(refusal),
                    },
                    Some(command) => hosts.obey(command).await,
                };
                if let Err(text) = answer {
                    output.write_all(format!("{text}\n").as_bytes()).await?;
                    output.flush().await?;
                }
            }
        }
    }
}

/// The next line; bytes that are no text are no command either.
async fn next(commands: &mut Lines<BufReader<Stdin>>) -> io::Result<Option<String>> {
    match commands.next_line().await {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some("?".to_owned())),
        line => line,
    }
}

struct Hosts {
    service: Service,
    /// It has the guest.
    host: Option<EmbeddedHost>,
    /// It waits for the guest.
    target: Option<EmbeddedHost>,
    started: usize,
}

/// How a migration has ended.
enum Outcome {
    Moved,
    Kept(HostEvent),
    /// A host has ended meanwhile.
    Lost,
}

impl Hosts {
    async fn start(&mut self, incoming: bool) -> Result<EmbeddedHost, StartError> {
        self.started += 1;
        let options = HostOptions {
            name: format!("host {}", self.started),
            seamless: self.service.seamless,
            several_clients: self.service.several_clients,
            password: self.service.password.clone(),
            incoming,
            ..HostOptions::default()
        };
        let host = EmbeddedHost::start(&options, self.service.settings.clone(), &Trace::new()).await?;
        let with_tls = host.spice_tls().map(|address| format!(" and on {address} with TLS")).unwrap_or_default();
        self.say(format!("{}: listens on {}{with_tls}", host.name(), host.spice())).await;
        Ok(host)
    }

    /// Begins to move the guest to another host. What it returns completes when that is done or given up.
    async fn migrate(&mut self, hurried: bool) -> Result<impl Future<Output = Outcome> + Send + use<>, String> {
        if self.target.is_some() {
            return Err("a migration is under way; `cancel` ends it".to_owned());
        }
        let target = self.start(true).await.map_err(|error| error.to_string())?;
        let source = self.host.as_mut().ok_or("no host has the guest")?;
        let destination = Destination {
            host: target.spice().ip().to_string(),
            // A client that speaks TLS is not shown a way without: spice-gtk would try it. It would try 0xffff, too.
            port: Some(if target.spice_tls().is_some() { 0 } else { target.spice().port() }),
            tls_port: target.spice_tls().map(|address| address.port()),
            cert_subject: self.service.tls_subject.clone(),
        };
        let (from, to) = (source.events(), target.events());
        // What was reported before belongs to an earlier migration.
        let seen = from.borrow().len();
        let begun = async {
            source.migrate_info(&destination).await?;
            if hurried { source.migrate_hurried(&target).await } else { source.migrate(&target).await }
        };
        begun.await.map_err(|error: ControlError| error.to_string())?;
        self.target = Some(target);
        Ok(outcome(from, seen, to))
    }

    /// Takes note of how a migration has ended, and says so.
    async fn ended(&mut self, outcome: Outcome) -> String {
        let name = |host: &Option<EmbeddedHost>| host.as_ref().map_or("no host", EmbeddedHost::name).to_owned();
        let (over, line) = match outcome {
            Outcome::Moved => {
                let line = format!("{}: has guest and clients", name(&self.target));
                (std::mem::replace(&mut self.host, self.target.take()), line)
            }
            Outcome::Kept(event) => {
                let line = format!("{}: keeps the guest: {event}", name(&self.host));
                (self.target.take(), line)
            }
            Outcome::Lost => (self.target.take(), format!("{}: has ended", name(&self.target))),
        };
        if let Some(over) = over {
            over.stop().await;
        }
        line
    }

    async fn obey(&mut self, command: &str) -> Result<(), String> {
        let Some(host) = &mut self.host else { return Err("no host has the guest".to_owned()) };
        let done = match command {
            "throttle" => host.throttle().await,
            "cancel" => host.cancel().await,
            "fail" => host.migrate_to_nowhere().await,
            "status" => {
                host.tell_status().await.map_err(|error| error.to_string())?;
                match &mut self.target {
                    Some(target) => target.tell_status().await,
                    None => Ok(()),
                }
            }
            other => return Err(format!("`{other}` is no command; there are:\n{COMMANDS}")),
        };
        done.map_err(|error| error.to_string())
    }

    async fn say(&self, line: String) {
        if let Some(notes) = &self.service.settings.notes {
            // The receiver lives as long as this.
            let _ = notes.try_send(line);
        }
    }
}

/// Waits until the guest runs at the target and no client needs the source, or until it is clear that it stays. The first so many of the
/// source's events belong to earlier migrations.
async fn outcome(mut from: Events, seen: usize, mut to: Events) -> Outcome {
    let ended = |events: &Vec<(HostEvent, Instant)>| {
        let ends = |event: &HostEvent| {
            matches!(
                event,
                HostEvent::ClientMigrationCompleted | HostEvent::MigrationFailed | HostEvent::MigrationCancelled
            )
        };
        events.iter().skip(seen).map(|(event, _)| *event).find(ends)
    };
    let event = match from.wait_for(|events| ended(events).is_some()).await {
        Ok(events) => ended(&events),
        Err(_) => return Outcome::Lost,
    };
    match event {
        Some(HostEvent::ClientMigrationCompleted) => {
            let runs = |events: &Vec<(HostEvent, Instant)>| events.iter().any(|(event, _)| *event == HostEvent::Resume);
            if to.wait_for(runs).await.is_ok() { Outcome::Moved } else { Outcome::Lost }
        }
        Some(event) => Outcome::Kept(event),
        None => Outcome::Lost,
    }
}

type Events = watch::Receiver<Vec<(HostEvent, Instant)>>;
