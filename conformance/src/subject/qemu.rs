//! One QEMU process with its SPICE server, driven over QMP.

use std::{
    collections::{HashSet, VecDeque},
    fmt::{self, Write as _},
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use procfs::process::{FDInfo, FDTarget};
use qapi::{
    futures::{QapiEvents, QapiService, QapiStream, QmpStreamTokio},
    qmp,
};
use tokio::{
    io::{AsyncReadExt, ReadHalf, WriteHalf},
    net::{UnixStream, unix::pipe},
    process::{Child, Command},
    sync::watch,
    time::{sleep, timeout},
};

use super::{ControlError, Destination, HostEvent, HostOptions, Liveness, Security, StartError, Void};
use crate::trace::Trace;

/// The guest does nothing but halt, so that it takes no processor time: its firmware consists of this instruction alone.
const HALT: u8 = 0xf4;

/// The least that QEMU takes for a firmware, in bytes.
const FIRMWARE_LEN: usize = 64 << 10;

/// The character device that the guest's agent is behind.
const AGENT: &str = "agent";

/// Debian's package that holds the program.
const PACKAGE: &str = "qemu-system-x86";

/// How long a host may take to answer one command, if nobody says otherwise, and an ended process to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many times as long the program may take to print its version, and a host to become ready.
const START_PATIENCE: u32 = 2;

/// How long reading the rest of an ended process's output may take.
const OUTPUT_DEADLINE: Duration = Duration::from_millis(200);

/// Between two attempts to reach the control socket of a host that is starting.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How often another port is tried when the chosen one was taken in the meantime.
const START_ATTEMPTS: usize = 5;

/// How much of what a process printed is kept, in bytes: the end of it.
const KEPT_OUTPUT: usize = 4096;

/// What QEMU prints when it cannot listen on its SPICE port.
const PORT_TAKEN: &str = "Failed to open SPICE sockets";

/// Bytes per second, so few that a VM migration takes hours and is there to be cancelled.
const THROTTLED_BANDWIDTH: u64 = 2000;

/// What QEMU's migrations are limited to if nobody says otherwise.
const DEFAULT_BANDWIDTH: u64 = 128 << 20;

/// A QEMU binary that runs.
#[derive(Clone, Debug)]
pub struct Qemu {
    binary: PathBuf,
    version: String,
    /// How long to wait for what a host should do at once.
    pub patience: Duration,
}

impl Qemu {
    /// Checks that the binary runs and asks for its version.
    ///
    /// # Errors
    /// When it cannot be run, is not QEMU, or does not end in time.
    pub async fn probe(binary: &Path) -> Result<Self, StartError> {
        let program = binary.display();
        let not_ready = |reason| StartError::NotReady { name: format!("`{program} --version`"), reason };
        let output = Command::new(binary).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
        let output = timeout(PATIENCE * START_PATIENCE, output)
            .await
            .map_err(|_| not_ready(format!("it did not end within {:?}", PATIENCE * START_PATIENCE)))?
            .map_err(|error| StartError::MissingProgram {
                program: program.to_string(),
                package: PACKAGE,
                reason: error.to_string(),
            })?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let line = printed.lines().next().unwrap_or_default();
        let version = line
            .strip_prefix("QEMU emulator version ")
            .ok_or_else(|| not_ready(format!("this is not QEMU ({}): {line}", output.status)))?;
        Ok(Self { binary: binary.to_owned(), version: version.to_owned(), patience: PATIENCE })
    }

    /// The version as the binary prints it, such as `7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Starts a host whose sockets lie in the directory, and returns when it answers on its control socket.
    ///
    /// The paths of the sockets must not be longer than 107 bytes, so the directory's should be short.
    ///
    /// # Errors
    /// When it ends, or does not answer in time.
    pub async fn start(&self, directory: &Path, options: &HostOptions, trace: &Trace) -> Result<QemuHost, StartError> {
        for _ in 1..START_ATTEMPTS {
            match self.start_once(directory, options, trace).await {
                Err(StartError::NotReady { reason, .. }) if reason.contains(PORT_TAKEN) => {}
                other => return other,
            }
        }
        self.start_once(directory, options, trace).await
    }

    async fn start_once(&self, directory: &Path, options: &HostOptions, trace: &Trace) -> Result<QemuHost, StartError> {
        let name = &options.name;
        let not_ready = |reason| StartError::NotReady { name: name.clone(), reason };
        let control_path = directory.join(format!("{name}.control"));
        let incoming_path = directory.join(format!("{name}.incoming"));
        let firmware_path = directory.join(format!("{name}.firmware"));
        fs::write(&firmware_path, [HALT; FIRMWARE_LEN])
            .map_err(|error| not_ready(format!("{}: {error}", firmware_path.display())))?;

        // QEMU cannot choose a port itself. Another process may take this one before QEMU does: then `start` tries again.
        let free = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
            let address =
                listener.as_ref().map_or_else(|error| Err(io::Error::from(error.kind())), TcpListener::local_addr);
            address.map_err(|error| not_ready(format!("no free port: {error}")))
        };
        let spice = free()?;
        let spice_tls = options.certificates.as_ref().map(|_| free()).transpose()?;

        let mut command = Command::new(&self.binary);
        command.args(["-name", name, "-nodefaults", "-no-user-config", "-machine", "pc,accel=tcg", "-m", "32"]);
        command.arg("-bios").arg(&firmware_path);
        command.args(["-display", "none", "-vga", "qxl", "-global", "qxl-vga.vgamem_mb=8"]);
        command.args(["-global", "qxl-vga.ram_size=16777216", "-global", "qxl-vga.vram_size=8388608"]);
        // The agent's port is a serial line: the guest's end of a virtio port opens with a driver in the guest only.
        command.args(["-chardev", &format!("null,id={AGENT}"), "-device", &format!("isa-serial,chardev={AGENT}")]);
        if options.several_clients {
            command.env("SPICE_DEBUG_ALLOW_MC", "1");
        }
        if options.port_and_smartcard {
            command.args(["-chardev", "spiceport,id=port,name=org.example.port", "-device", "isa-serial,chardev=port"]);
            command.args(["-usb", "-device", "usb-ccid", "-chardev", "spicevmc,id=smartcard,name=smartcard"]);
            command.args(["-device", "ccid-card-passthru,chardev=smartcard"]);
        }
        let ticketing = match &options.password {
            Some(password) => {
                command.args(["-object", &format!("secret,id=ticket,data={}", escaped(password))]);
                "password-secret=ticket"
            }
            None => "disable-ticketing=on",
        };
        let seamless = if options.seamless { "on" } else { "off" };
        let (address, port) = (spice.ip(), spice.port());
        let mut spice_options = format!("addr={address},port={port},seamless-migration={seamless},{ticketing}");
        if let (Some(tls), Some(folder)) = (spice_tls, &options.certificates) {
            let folder = escaped(&folder.to_string_lossy());
            let _ = write!(spice_options, ",tls-port={},x509-dir={folder}", tls.port());
            spice_options.push_str(match options.security {
                Security::None => "",
                Security::Required => ",tls-channel=default",
                Security::Refused => ",plaintext-channel=default",
            });
        }
        command.args(["-spice", &spice_options]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", escaped(&control_path.to_string_lossy()))]);
        if options.incoming {
            command.args(["-incoming", &format!("unix:{}", incoming_path.display())]);
        }
        let (mut child, mut output) =
            spawn(command, name, trace).map_err(|error| not_ready(format!("cannot run it: {error}")))?;

        let start_deadline = self.patience * START_PATIENCE;
        let stream = tokio::select! {
            stream = connect(&control_path) => stream.map_err(|error| error.to_string()),
            status = child.0.wait() => Err(match status {
                Ok(status) => format!("it ended with {status}"),
                Err(error) => error.to_string(),
            }),
            () = sleep(start_deadline) => Err(format!("no answer on its control socket within {start_deadline:?}")),
        };
        let (control, events) = match stream {
            Ok(stream) => stream.into_parts(),
            Err(reason) => return Err(not_ready(format!("{reason}; it printed: {}", printed(&mut output).await))),
        };
        let (arrivals, events_seen) = watch::channel(Vec::new());
        tokio::spawn(read_events(events, arrivals, name.clone(), trace.clone()));
        let mut host = QemuHost {
            name: name.clone(),
            spice,
            spice_tls,
            spice_server_version: String::new(),
            patience: self.patience,
            nowhere_path: directory.join(format!("{name}.nowhere")),
            incoming_path,
            child,
            sockets: HashSet::new(),
            output,
            control: Some(control),
            events: events_seen,
            delivered: Vec::new(),
            trace: trace.clone(),
        };
        match host.set_up().await {
            Ok(()) => Ok(host),
            Err(error) => Err(not_ready(format!("{error}; it printed: {}", printed(&mut host.output).await))),
        }
    }
}

/// A child process that is gone, and not just told to go, when this is dropped.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // QEMU is gone some milliseconds after the signal. Without the wait it could outlive the suite by as much.
        let began = Instant::now();
        let told = self.0.start_kill().is_ok();
        while told && matches!(self.0.try_wait(), Ok(None)) && began.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// One running QEMU process; it ends when this is dropped.
pub struct QemuHost {
    name: String,
    spice: SocketAddr,
    spice_tls: Option<SocketAddr>,
    spice_server_version: String,
    patience: Duration,
    /// Where an incoming host waits for the guest.
    incoming_path: PathBuf,
    /// Where nobody waits for a guest.
    nowhere_path: PathBuf,
    child: Process,
    /// The process's sockets before its first client, by their inodes.
    sockets: HashSet<u64>,
    output: watch::Receiver<VecDeque<u8>>,
    /// `None` while a command runs, and after one that was never answered.
    control: Option<Control>,
    events: watch::Receiver<Vec<(HostEvent, Instant)>>,
    /// Indices into `events`.
    delivered: Vec<usize>,
    trace: Trace,
}

impl QemuHost {
    /// The host's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the SPICE server listens.
    #[must_use]
    pub fn spice(&self) -> SocketAddr {
        self.spice
    }

    /// Where it listens for TLS.
    #[must_use]
    pub fn spice_tls(&self) -> Option<SocketAddr> {
        self.spice_tls
    }

    /// The version of libspice-server, such as `0.15.1`, or `unknown`.
    #[must_use]
    pub fn spice_server_version(&self) -> &str {
        &self.spice_server_version
    }

    /// The process's id, as long as it is not known to have ended.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.child.0.id()
    }

    /// Tells the SPICE server where its client is to go. The answer comes at once: it does not wait for the client.
    ///
    /// # Errors
    /// When the host refuses or does not answer; so in all of these.
    pub async fn migrate_info(&mut self, destination: &Destination) -> Result<(), ControlError> {
        let command = qmp::client_migrate_info {
            protocol: "spice".to_owned(),
            hostname: destination.host.clone(),
            port: destination.port.map(i64::from),
            tls_port: destination.tls_port.map(i64::from),
            cert_subject: destination.cert_subject.clone(),
        };
        self.execute(command, self.patience).await.map(drop)
    }

    /// Begins to migrate the guest to a host that was started with [`HostOptions::incoming`].
    ///
    /// # Errors
    /// See [`Self::migrate_info`].
    pub async fn migrate(&mut self, target: &Self) -> Result<(), ControlError> {
        self.migrate_to(&target.incoming_path).await
    }

    /// Begins a migration of the guest that fails: nobody listens where it goes.
    ///
    /// QEMU accepts the command, then reports [`HostEvent::MigrationFailed`], and its SPICE server sends
    /// `MIGRATE_CANCEL` to a client that is ready to move. The guest runs on, and a waiting target is not touched.
    ///
    /// # Errors
    /// See [`Self::migrate_info`].
    pub async fn migrate_to_nowhere(&mut self) -> Result<(), ControlError> {
        self.migrate_to(&self.nowhere_path.clone()).await
    }

    /// Makes migrations from this host so slow that they can be cancelled; then the next ones are as fast as ever.
    ///
    /// # Errors
    /// See [`Self::migrate_info`].
    pub async fn throttle(&mut self) -> Result<(), ControlError> {
        self.limit_bandwidth(THROTTLED_BANDWIDTH).await
    }

    async fn limit_bandwidth(&mut self, bytes_per_second: u64) -> Result<(), ControlError> {
        let parameters =
            qmp::MigrateSetParameters { max_bandwidth: Some(bytes_per_second), ..qmp::MigrateSetParameters::default() };
        self.execute(qmp::migrate_set_parameters(parameters), self.patience).await.map(drop)
    }

    /// Has the guest's agent attach to the SPICE server, or go: what its serial line leads to is changed.
    ///
    /// # Errors
    /// See [`Self::migrate_info`].
    pub async fn attach_agent(&mut self, attached: bool) -> Result<(), ControlError> {
        let base = qmp::ChardevCommon { logappend: None, logfile: None };
        let backend = if attached {
            let data = qmp::ChardevSpiceChannel { base, type_: "vdagent".to_owned() };
            qmp::ChardevBackend::spicevmc(data.into())
        } else {
            qmp::ChardevBackend::null(base.into())
        };
        self.execute(qmp::chardev_change { id: AGENT.to_owned(), backend }, self.patience).await.map(drop)
    }

    /// Takes the password's validity away.
    ///
    /// # Errors
    /// See [`Self::migrate_info`].
    pub async fn void_password(&mut self, how: Void) -> Result<(), ControlError> {
        match how {
            Void::Expired => self.execute(ExpirePassword { protocol: "spice", time: "now" }, self.patience).await,
            Void::Empty => {
                let password = qmp::SetPasswordOptionsBase { connected: None, password: String::new() };
                let command = qmp::set_password(qmp::SetPasswordOptions::spice(password));
                self.execute(command, self.patience).await
            }
        }
        .map(drop)
    }

    /// Cancels the migration of the guest; without one it does nothing. The target's process ends itself when that
    /// happens, with exit code 1.
    ///
    /// # Errors
    /// See [`Self::migrate_info`].
    pub async fn cancel(&mut self) -> Result<(), ControlError> {
        self.execute(qmp::migrate_cancel {}, self.patience).await?;
        self.limit_bandwidth(DEFAULT_BANDWIDTH).await
    }

    /// Waits for an event and returns when it came. Each event is delivered once; events that are not waited for
    /// are kept.
    ///
    /// # Errors
    /// When it does not come before the deadline, or cannot come any more because the control socket closed.
    pub async fn wait_for(&mut self, event: HostEvent, deadline: Duration) -> Result<Instant, ControlError> {
        let delivered = &self.delivered;
        let mut found = None;
        let arrival = self.events.wait_for(|events| {
            let next = |(index, (arrived, _)): &(usize, &(HostEvent, Instant))| {
                *arrived == event && !delivered.contains(index)
            };
            found = events.iter().enumerate().find(next).map(|(index, (_, at))| (index, *at));
            found.is_some()
        });
        let reason = match timeout(deadline, arrival).await.map(|arrived| arrived.is_ok()) {
            Ok(true) => String::new(),
            Ok(false) => "its control socket closed before that".to_owned(),
            Err(_) => format!("it did not come within {deadline:?}"),
        };
        let Some((index, at)) = found else {
            let reason = format!("{event:?}: {reason}");
            return Err(ControlError { party: self.name.clone(), command: "wait for an event", reason });
        };
        self.delivered.push(index);
        Ok(at)
    }

    /// How often the event came so far, delivered or not.
    #[must_use]
    pub fn count(&self, event: HostEvent) -> usize {
        self.events.borrow().iter().filter(|(seen, _)| *seen == event).count()
    }

    /// Whether the process lives and its control socket answers.
    pub async fn liveness(&mut self, deadline: Duration) -> Liveness {
        let began = Instant::now();
        let Err(error) = self.execute(qmp::query_status {}, deadline).await else {
            return Liveness::Alive;
        };
        // The socket of a process that dies closes a little before the process is gone.
        match timeout(deadline.saturating_sub(began.elapsed()), self.child.0.wait()).await {
            Ok(Ok(status)) => Liveness::Exited {
                code: status.code(),
                signal: status.signal(),
                printed: printed(&mut self.output).await,
            },
            Ok(Err(_)) | Err(_) => Liveness::Unresponsive(error.to_string()),
        }
    }

    /// How many connections of clients the process has open, whether their clients have closed them or not. `None` where the platform
    /// does not tell.
    #[must_use]
    pub fn connections(&self) -> Option<usize> {
        // It has its listener, if anything.
        if self.sockets.is_empty() {
            return None;
        }
        let mut new: HashSet<u64> = self.sockets_now().difference(&self.sockets).copied().collect();
        if new.is_empty() {
            // The usual case, and the tables below hold the sockets of the whole machine.
            return Some(0);
        }
        // What guests go through is no client's. The table of TCP would not do: a connection that was reset is not in it any more,
        // whoever still holds it.
        for socket in procfs::net::unix().ok()? {
            new.remove(&socket.inode);
        }
        // What has been closed meanwhile may have been a Unix socket that the table did not have any more.
        Some(new.intersection(&self.sockets_now()).count())
    }

    fn sockets_now(&self) -> HashSet<u64> {
        let process = self.process_id().and_then(|id| i32::try_from(id).ok()).map(procfs::process::Process::new);
        let Some(Ok(files)) = process.map(|process| process.and_then(|process| process.fd())) else {
            return HashSet::new();
        };
        let socket = |file: FDInfo| match file.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        };
        files.flatten().filter_map(socket).collect()
    }

    /// Ends the process and waits until it is gone.
    pub async fn stop(mut self) {
        // An error means that it had ended already. Should it not end in time, then dropping it does the rest.
        let _ = timeout(self.patience, self.child.0.kill()).await;
        self.trace.event(&self.name, &"stopped");
    }

    async fn set_up(&mut self) -> Result<(), ControlError> {
        // Without this there are no MIGRATION events.
        let capabilities =
            vec![qmp::MigrationCapabilityStatus { capability: qmp::MigrationCapability::events, state: true }];
        self.execute(qmp::migrate_set_capabilities { capabilities }, self.patience).await?;
        let information = self.execute(qmp::query_spice {}, self.patience).await?;
        self.spice_server_version = information.compiled_version.unwrap_or_else(|| "unknown".to_owned());
        self.sockets = self.sockets_now();
        self.trace.event(&self.name, &format_args!("ready, SPICE on {}", self.spice));
        Ok(())
    }

    async fn migrate_to(&mut self, socket: &Path) -> Result<(), ControlError> {
        let uri = Some(format!("unix:{}", socket.display()));
        let command = qmp::migrate { uri, channels: None, detach: None, resume: None };
        self.execute(command, self.patience).await.map(drop)
    }

    async fn execute<C: qmp::QmpCommand>(&mut self, command: C, deadline: Duration) -> Result<C::Ok, ControlError> {
        let arguments = serde_json::to_string(&command).unwrap_or_default();
        self.trace.event(&self.name, &format_args!("command {} {arguments}", C::NAME));
        // qapi pairs answers with commands by their order and panics when a command follows one without an answer. So
        // the control socket is given back only after an answer, not when the deadline passes or the caller drops this.
        let answer = match self.control.take() {
            None => Err("an earlier command was not answered".to_owned()),
            Some(control) => match timeout(deadline, control.execute(command)).await {
                Ok(answer) => {
                    self.control = Some(control);
                    answer.map_err(|error| error.to_string())
                }
                Err(_) => Err(format!("no answer within {deadline:?}")),
            },
        };
        answer.map_err(|reason| {
            self.trace.event(&self.name, &format_args!("command {} failed: {reason}", C::NAME));
            ControlError { party: self.name.clone(), command: C::NAME, reason }
        })
    }
}

impl fmt::Debug for QemuHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut host = formatter.debug_struct("QemuHost");
        host.field("name", &self.name).field("spice", &self.spice).field("child", &self.child).finish_non_exhaustive()
    }
}

/// The command `expire_password`; qapi's own cannot be serialized for SPICE.
#[derive(Debug, serde::Serialize)]
struct ExpirePassword {
    protocol: &'static str,
    time: &'static str,
}

impl qmp::QmpCommand for ExpirePassword {}

impl qapi::Command for ExpirePassword {
    const NAME: &'static str = "expire_password";
    const ALLOW_OOB: bool = false;

    type Ok = qapi::Empty;
}

type Control = QapiService<QmpStreamTokio<WriteHalf<UnixStream>>>;
type EventSource = QmpStreamTokio<ReadHalf<UnixStream>>;

/// Starts the process and keeps the end of what it prints. The channel closes when it cannot print any more.
fn spawn(mut command: Command, name: &str, trace: &Trace) -> io::Result<(Process, watch::Receiver<VecDeque<u8>>)> {
    let (reader, writer) = io::pipe()?;
    let mut reader = pipe::Receiver::from_owned_fd(reader.into())?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    // In a process group of its own, so that Ctrl-C in a terminal does not end it: that is left to us.
    let child = command.process_group(0).kill_on_drop(true).spawn()?;

    let (sender, output) = watch::channel(VecDeque::new());
    let (name, trace) = (name.to_owned(), trace.clone());
    tokio::spawn(async move {
        let mut buffer = [0; KEPT_OUTPUT];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            let bytes = &buffer[..length];
            for line in String::from_utf8_lossy(bytes).lines() {
                trace.event(&name, &format_args!("printed: {line}"));
            }
            sender.send_modify(|kept| {
                kept.extend(bytes);
                kept.drain(..kept.len().saturating_sub(KEPT_OUTPUT));
            });
        }
    });
    Ok((Process(child), output))
}

/// Connects to the control socket of a process that is starting, as soon as it is served.
async fn connect(path: &Path) -> io::Result<QapiStream<EventSource, QmpStreamTokio<WriteHalf<UnixStream>>>> {
    loop {
        match QmpStreamTokio::open_uds(path).await {
            Ok(greeted) => return greeted.negotiate().await,
            // A path that is too long.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
            Err(_) => sleep(POLL_INTERVAL).await,
        }
    }
}

/// Records all events and passes those on that the suite knows, until the control socket closes.
async fn read_events(
    mut events: QapiEvents<EventSource>,
    arrivals: watch::Sender<Vec<(HostEvent, Instant)>>,
    name: String,
    trace: Trace,
) {
    while let Some(event) = events.next().await {
        let at = Instant::now();
        match &event {
            Ok(event) => {
                let json = serde_json::to_value(event).unwrap_or_default();
                let kind = json["event"].as_str().unwrap_or_default();
                trace.event(&name, &format_args!("event {kind} {}", json["data"]));
            }
            Err(error) => trace.event(&name, &format_args!("control socket: {error}")),
        }
        let known = match event {
            Ok(qmp::Event::STOP { .. }) => HostEvent::Stop,
            Ok(qmp::Event::RESUME { .. }) => HostEvent::Resume,
            Ok(qmp::Event::SPICE_MIGRATE_COMPLETED { .. }) => HostEvent::ClientMigrationCompleted,
            Ok(qmp::Event::MIGRATION { data, .. }) => match data.status {
                qmp::MigrationStatus::completed => HostEvent::MigrationCompleted,
                qmp::MigrationStatus::failed => HostEvent::MigrationFailed,
                qmp::MigrationStatus::cancelled => HostEvent::MigrationCancelled,
                _ => continue,
            },
            _ => continue,
        };
        arrivals.send_modify(|arrived| arrived.push((known, at)));
    }
    trace.event(&name, &"control socket closed");
}

/// The end of what the process printed; complete when the process has ended.
async fn printed(output: &mut watch::Receiver<VecDeque<u8>>) -> String {
    // Its last words may still be in the pipe: the channel closes when all of them are read.
    let _ = timeout(OUTPUT_DEADLINE, output.wait_for(|_| false)).await;
    let bytes: Vec<u8> = output.borrow().iter().copied().collect();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// A value for QEMU's command line, where a comma ends a value unless it is doubled.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}
