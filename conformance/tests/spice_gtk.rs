//! spice-gtk, the client of virt-manager and virt-viewer, follows a guest between the reference hosts.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::Path,
    process::Stdio,
    time::Duration,
};

use spice_conformance::{
    peer::tls::{SUBJECT, make_certificates},
    subject::{Destination, HostEvent, HostOptions, StartError, qemu::Qemu},
    trace::Trace,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::watch,
    time::timeout,
};

/// For anything that comes at once on an idle machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// Between two requests to a host that is to answer a client that is idle.
const NUDGE: Duration = Duration::from_millis(300);

/// Debian's own: no other has python3-gi.
const PYTHON: &str = "/usr/bin/python3";

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spice_gtk/client.py");

const CHANNELS: [&str; 4] = ["cursor 0", "display 0", "inputs 0", "main 0"];

/// The migration messages that tell a scheme, in the order in which they cross the wire.
const SEAMLESS: &[&str] = &[
    "source was told MIGRATE_BEGIN_SEAMLESS",
    "target said MIGRATE_DST_DO_SEAMLESS",
    "source said MIGRATE_CONNECTED_SEAMLESS",
    // Of the main, the display and the inputs channel.
    "target said MIGRATE_DATA",
    "target said MIGRATE_DATA",
    "target said MIGRATE_DATA",
];
const SEMI_SEAMLESS: &[&str] = &[
    "source was told MIGRATE_BEGIN",
    "source said MIGRATE_CONNECTED",
    "source was told MIGRATE_END",
    "target said MIGRATE_END",
];
const SWITCH_HOST: &[&str] = &[
    "source was told MIGRATE_BEGIN_SEAMLESS",
    "source said MIGRATE_CONNECT_ERROR",
    "source was told MIGRATE_SWITCH_HOST",
];

#[tokio::test]
async fn it_migrates_seamlessly() {
    let Some(mut session) = Session::start(&Setting::default()).await else { return };
    session.migrate(SEAMLESS).await;
    session.works().await;
    session.end().await;
}

#[tokio::test]
async fn it_migrates_semi_seamlessly() {
    let setting = Setting { serve: &["--no-seamless"], ..Setting::default() };
    let Some(mut session) = Session::start(&setting).await else { return };
    session.migrate(SEMI_SEAMLESS).await;
    session.works().await;
    session.end().await;
}

#[tokio::test]
async fn it_switches_hosts_when_it_cannot_reach_the_target() {
    // Nobody listens there: it is loopback too, but not the address that the hosts have.
    let setting = Setting { migration_host: Some("127.0.0.2"), ..Setting::default() };
    let Some(mut session) = Session::start(&setting).await else { return };
    session.migrate(SWITCH_HOST).await;
    session.works().await;
    session.end().await;
}

#[tokio::test]
async fn it_stays_when_a_migration_is_cancelled_and_follows_the_next() {
    let Some(mut session) = Session::start(&Setting::default()).await else { return };
    session.serve.say("throttle").await;
    session.serve.say("migrate").await;
    session.serve.wait_for("said MIGRATE_CONNECTED_SEAMLESS").await;
    session.client.wait_for("migration: migrating").await;
    session.serve.say("cancel").await;
    session.serve.wait_for("host 1: client 1 was told MIGRATE_CANCEL").await;
    session.serve.wait_for("host 1: keeps the guest").await;
    session.client.wait_for("migration: none").await;
    session.works().await;

    session.migrate(SEAMLESS).await;
    session.works().await;
    session.end().await;
}

#[tokio::test]
async fn it_migrates_twice_in_a_row() {
    for (serve, messages) in [(&[][..], SEAMLESS), (&["--no-seamless"], SEMI_SEAMLESS)] {
        let Some(mut session) = Session::start(&Setting { serve, ..Setting::default() }).await else { return };
        for _ in 0..2 {
            session.migrate(messages).await;
            session.works().await;
        }
        session.end().await;
    }
}

#[tokio::test]
async fn it_migrates_whoever_waits_for_whom() {
    for completion in ["wait", "signal", "shipped"] {
        for hand_over in ["after", "parallel"] {
            for (scheme, messages) in [(&[][..], SEAMLESS), (&["--no-seamless"], SEMI_SEAMLESS)] {
                let serve = &[&["--completion", completion, "--hand-over", hand_over], scheme].concat();
                let Some(mut session) = Session::start(&Setting { serve, ..Setting::default() }).await else { return };
                session.migrate(messages).await;
                session.works().await;
                session.end().await;
            }
        }
    }
}

#[tokio::test]
async fn it_migrates_with_a_ticket() {
    let ticket = &["--password", "the ticket"];
    for (scheme, messages) in [(&[][..], SEAMLESS), (&["--no-seamless"], SEMI_SEAMLESS)] {
        let serve = &[scheme, ticket].concat();
        let Some(mut session) = Session::start(&Setting { serve, client: ticket, ..Setting::default() }).await else {
            return;
        };
        session.migrate(messages).await;
        session.works().await;
        session.end().await;
    }
}

#[tokio::test]
async fn it_migrates_over_tls_to_the_host_that_the_certificate_names() {
    let certificates = certificates("127.0.0.1");
    let Some(mut session) = Session::start(&Setting { tls: Some(certificates.path()), ..Setting::default() }).await
    else {
        return;
    };
    session.migrate(SEAMLESS).await;
    session.works().await;
    session.end().await;
}

#[tokio::test]
async fn it_migrates_over_tls_to_the_subject_that_it_is_told() {
    // Not the host's name, so that only the subject can have been what counted.
    let certificates = certificates("elsewhere.example");
    let setting = Setting {
        serve: &["--tls-subject", SUBJECT],
        client: &["--cert-subject", SUBJECT],
        tls: Some(certificates.path()),
        ..Setting::default()
    };
    let Some(mut session) = Session::start(&setting).await else { return };
    session.migrate(SEAMLESS).await;
    session.works().await;
    session.end().await;
}

/// The two before this one would pass too if the client did not look at the certificate.
#[tokio::test]
async fn it_refuses_a_target_with_another_subject_over_tls() {
    let certificates = certificates("127.0.0.1");
    let serve = &["--tls-subject", "CN=somebody else"];
    let setting = Setting { serve, tls: Some(certificates.path()), ..Setting::default() };
    let Some(mut session) = Session::start(&setting).await else { return };
    session.serve.say("migrate").await;
    session.serve.wait_for("host 1: client 1 said MIGRATE_CONNECT_ERROR").await;
    session.serve.wait_for("host 1: client 1 was told MIGRATE_SWITCH_HOST").await;
    session.client.wait_for("main 0: error-tls").await;
    let refused = |line: &String| line.contains("subject 'CN=somebody else' verification failed");
    assert!(session.client.complaints.borrow().iter().any(refused));
}

/// The client's own soundness: what it prints is what happens, with the servers that it was made for.
#[tokio::test]
async fn it_follows_a_guest_from_one_qemu_to_another() {
    if !spice_gtk("between two QEMU processes").await {
        return;
    }
    let Some(qemu) = qemu("between two QEMU processes").await else { return };
    for seamless in [true, false] {
        let directory = TempDir::new().unwrap();
        let trace = Trace::new();
        let options = |name: &str, incoming| HostOptions {
            name: name.to_owned(),
            seamless,
            password: None,
            incoming,
            ..HostOptions::default()
        };
        let mut source = qemu.start(directory.path(), &options("source", false), &trace).await.unwrap();
        let mut target = qemu.start(directory.path(), &options("target", true), &trace).await.unwrap();
        let mut command = Command::new(PYTHON);
        command.args([CLIENT, "--host", "127.0.0.1", "--port", &source.spice().port().to_string()]);
        let mut client = Program::start("client", command);
        client.wait_for(&at(source.spice().port())).await;

        source.migrate_info(&Destination::plain(target.spice())).await.unwrap();
        client.wait_for("migration: migrating").await;
        // It has answered the source when it answers us; the first of these lines belongs to the state.
        client.say("status").await;
        client.wait_for(&at(source.spice().port())).await;
        client.wait_for(&at(source.spice().port())).await;
        source.migrate(&target).await.unwrap();
        target.wait_for(HostEvent::Resume, DEADLINE).await.unwrap();
        source.wait_for(HostEvent::ClientMigrationCompleted, DEADLINE).await.unwrap();
        client.wait_for("migration: none").await;
        client.wait_for(&at(target.spice().port())).await;
        // A cursor that blinks: the guest runs, and draws for this client.
        client.wait_for("display 0: drawn").await;
        client.end().await;
    }
}

/// How a session is set up.
#[derive(Default)]
struct Setting<'a> {
    /// Arguments of the hosts.
    serve: &'a [&'a str],
    /// Arguments of the client.
    client: &'a [&'a str],
    /// The certificates, when it runs over TLS.
    tls: Option<&'a Path>,
    /// Where the client goes instead of where it is told.
    migration_host: Option<&'a str>,
}

/// A client that is connected to the host that has the guest.
struct Session {
    serve: Program,
    client: Program,
    tls: bool,
    /// The host that has the guest, and its port.
    host: (usize, u16),
}

impl Session {
    /// Starts the hosts and the client, and waits until the client is all there. `None` without spice-gtk.
    async fn start(setting: &Setting<'_>) -> Option<Self> {
        if !spice_gtk("between the reference hosts").await {
            return None;
        }
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("spice-conformance"));
        command.arg("serve").args(setting.serve);
        let mut client = Command::new(PYTHON);
        client.args([CLIENT, "--host", "127.0.0.1"]).args(setting.client);
        if let Some(certificates) = setting.tls {
            command.arg("--tls").arg(certificates);
            client.arg("--ca-file").arg(certificates.join("ca-cert.pem"));
        }
        if let Some(host) = setting.migration_host {
            client.env("SPICE_MIG_HOST", host);
        }
        let mut serve = Program::start("serve", command);
        let tls = setting.tls.is_some();
        let host = next_host(&mut serve, tls).await;
        client.args([if tls { "--tls-port" } else { "--port" }, &host.1.to_string()]);
        let client = Program::start("client", client);
        let mut session = Self { serve, client, tls, host };
        session.client.wait_for(&at(host.1)).await;
        session.works().await;
        Some(session)
    }

    /// Moves the guest to a new host, and waits until that has it and the client, with these messages.
    async fn migrate(&mut self, messages: &[&str]) {
        let (source, _) = self.host;
        self.serve.say("migrate").await;
        self.host = next_host(&mut self.serve, self.tls).await;
        let (target, port) = self.host;
        let begun = self.serve.read;
        self.client.wait_for(&at(port)).await;
        let done = format!("host {target}: has guest and clients");
        // After a seamless migration, spice-gtk 0.42 may keep the source's main connection until a message on the target's
        // comes that it has to wait for, so it gets one. The source would wait for its 10 s, and then be without the client.
        let moved = async {
            loop {
                self.client.say("mouse").await;
                if timeout(NUDGE, self.serve.wait_for(&done)).await.is_ok() {
                    break;
                }
            }
        };
        timeout(DEADLINE, moved).await.expect("guest and clients are at the target");

        // What the source gives the client to carry, the target gets; only that is in the order of cause and effect.
        let carried = ["MIGRATE_FLUSH_MARK", "told MIGRATE_DATA", " on "];
        let parties = [(source, "source"), (target, "target")];
        let message = |line: &String| {
            parties.iter().find_map(|(host, party)| {
                let message = line.strip_prefix(&format!("host {host}: client 1 "))?;
                let counts = message.contains("MIGRATE_") && !carried.iter().any(|text| message.contains(text));
                counts.then(|| format!("{party} {message}"))
            })
        };
        // Where nobody waits at the target, the last of them may come after the guest.
        let holds = |lines: &[String]| lines[begun..].iter().filter_map(message).eq(messages.iter().copied());
        self.serve.wait_until(&format!("{messages:?}"), holds).await;
    }

    /// The client has its channels on the host that has the guest, none elsewhere, and that host hears it.
    async fn works(&mut self) {
        let (host, port) = self.host;
        let here = CHANNELS.map(|channel| format!("host {host}: client 1 {channel}"));
        self.serve.wait_until("channels here, and nowhere else", |lines| open(lines) == here.clone().into()).await;
        self.client.say("status").await;
        self.client.wait_for(&at(port)).await;
        self.client.say("key 0x1e").await;
        self.serve.wait_for(&format!("host {host}: client 1 pressed key 0x1e")).await;
    }

    async fn end(self) {
        self.client.end().await;
        self.serve.end().await;
    }
}

/// The host that the server program starts next, and its port.
async fn next_host(serve: &mut Program, tls: bool) -> (usize, u16) {
    let lines = serve.wait_for(": listens on 127.0.0.1:").await;
    let line = lines.last().unwrap();
    let number = |text: Option<&str>| text.and_then(|text| text.split_whitespace().next()?.parse().ok());
    let host = line.strip_prefix("host ").and_then(|rest| rest.split_once(':')?.0.parse().ok());
    let port = number(line.split("127.0.0.1:").nth(if tls { 2 } else { 1 }));
    host.zip(port).unwrap_or_else(|| panic!("no host in: {line}"))
}

/// The channels that are open according to the hosts. A client that closes its main channel, or whose host ends, has no
/// other there either.
fn open(lines: &[String]) -> BTreeSet<String> {
    let mut open = BTreeSet::new();
    for line in lines {
        if line.contains(" linked ") {
            open.insert(line.replace(" linked", ""));
        } else if let Some(client) = line.strip_suffix("closed main 0") {
            open.retain(|channel: &String| !channel.starts_with(client));
        } else if line.contains(" closed ") {
            open.remove(&line.replace(" closed", ""));
        } else if let Some((host, _)) = line.split_once(": keeps the guest") {
            open.retain(|channel| channel.starts_with(&format!("{host}: ")));
        }
    }
    open
}

/// A folder with a certification authority's certificate, and one of a server by it, which holds for a host of this name.
fn certificates(host: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    make_certificates(host, folder.path()).unwrap();
    folder
}

/// What the client prints when all its channels are there.
fn at(port: u16) -> String {
    let places = CHANNELS.map(|channel| format!("{channel} at 127.0.0.1:{port}"));
    format!("channels: {}", places.join(", "))
}

/// A process that obeys lines and prints an event a line. It is gone when this is dropped.
struct Program {
    name: &'static str,
    process: Child,
    input: ChildStdin,
    lines: watch::Receiver<Vec<String>>,
    complaints: watch::Receiver<Vec<String>>,
    /// How many lines were waited for.
    read: usize,
}

impl Program {
    fn start(name: &'static str, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let lines = read(name, process.stdout.take().unwrap());
        let complaints = read(name, process.stderr.take().unwrap());
        Self { name, process, input, lines, complaints, read: 0 }
    }

    async fn say(&mut self, command: &str) {
        println!("{} <- {command}", self.name);
        self.input.write_all(format!("{command}\n").as_bytes()).await.unwrap();
    }

    /// Waits for a line with this text, after the one that was last waited for, and returns the lines up to it.
    async fn wait_for(&mut self, text: &str) -> Vec<String> {
        let from = self.read;
        let position = |lines: &[String]| lines[from..].iter().position(|line| line.contains(text));
        let lines = self.wait_until(text, |lines| position(lines).is_some()).await;
        self.read += position(&lines).unwrap() + 1;
        lines[from..self.read].to_vec()
    }

    /// Waits until all lines together tell what they should, and returns them.
    async fn wait_until(&mut self, what: &str, holds: impl Fn(&[String]) -> bool) -> Vec<String> {
        match timeout(DEADLINE, self.lines.wait_for(|lines| holds(lines))).await {
            Ok(Ok(lines)) => lines.clone(),
            Ok(Err(_)) => panic!("{} ended without: {what}", self.name),
            Err(_) => panic!("{} did not print within {DEADLINE:?}: {what}", self.name),
        }
    }

    /// Has it end by itself, and checks that it found nothing to complain of.
    async fn end(mut self) {
        self.say("quit").await;
        let status = timeout(DEADLINE, self.process.wait()).await.expect("it ends").unwrap();
        assert!(status.success(), "{} ended with {status}", self.name);
        // The end of its output is the end of this channel.
        let _ = timeout(DEADLINE, self.complaints.wait_for(|_| false)).await.expect("its output ends");
        assert_eq!(*self.complaints.borrow(), Vec::<String>::new(), "{}", self.name);
    }
}

/// Reads lines as they come, and repeats them where the test harness captures what a test prints.
fn read(name: &'static str, output: impl AsyncRead + Unpin + Send + 'static) -> watch::Receiver<Vec<String>> {
    let (sender, receiver) = watch::channel(Vec::new());
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            println!("{name}: {line}");
            sender.send_modify(|lines| lines.push(line));
        }
    });
    receiver
}

/// Whether there is a spice-gtk for Python; a line that says what is not tested otherwise. CI has one.
async fn spice_gtk(untested: &str) -> bool {
    let help = Command::new(PYTHON).args([CLIENT, "--help"]).stdin(Stdio::null()).output().await;
    let reason = match help {
        Ok(help) if help.status.success() => return true,
        Ok(help) => String::from_utf8_lossy(&help.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let packages = "gir1.2-spiceclientglib-2.0 or python3-gi is missing";
    assert!(std::env::var_os("CI").is_none(), "{packages}: {reason}");
    // Straight to stderr: the test harness would swallow what `println!` says in a test that passes.
    let _ = writeln!(io::stderr(), "not tested: spice-gtk {untested} ({packages})");
    false
}

/// QEMU, or `None` and a line that says what was not tested. In CI it must be there.
async fn qemu(untested: &str) -> Option<Qemu> {
    match Qemu::probe(Path::new("qemu-system-x86_64")).await {
        Ok(qemu) => Some(qemu),
        Err(StartError::MissingProgram { .. }) if std::env::var_os("CI").is_none() => {
            let _ = writeln!(io::stderr(), "not tested: spice-gtk {untested} (qemu-system-x86_64 is missing)");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
