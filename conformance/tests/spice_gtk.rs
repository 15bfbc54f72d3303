//! spice-gtk, the client of virt-manager and virt-viewer, follows a guest.

use std::{
    io::{self, Write},
    path::Path,
    process::Stdio,
    time::Duration,
};

use spice_conformance::{
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

/// Debian's own: no other has python3-gi.
const PYTHON: &str = "/usr/bin/python3";

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spice_gtk/client.py");

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
        let options = |name: &str, incoming| HostOptions { name: name.to_owned(), seamless, password: None, incoming };
        let mut source = qemu.start(directory.path(), &options("source", false), &trace).await.unwrap();
        let mut target = qemu.start(directory.path(), &options("target", true), &trace).await.unwrap();
        let mut client = Program::client(&["--port", &source.spice().port().to_string()]);
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

/// What the client prints when all its channels are there.
fn at(port: u16) -> String {
    let places = ["cursor", "display", "inputs", "main"].map(|channel| format!("{channel} 0 at 127.0.0.1:{port}"));
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
    fn client(arguments: &[&str]) -> Self {
        let mut command = Command::new(PYTHON);
        command.args([CLIENT, "--host", "127.0.0.1"]).args(arguments);
        Self::start("client", command)
    }

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
        let position = |lines: &Vec<String>| lines[from..].iter().position(|line| line.contains(text));
        let arrival = timeout(DEADLINE, self.lines.wait_for(|lines| position(lines).is_some())).await;
        let lines = match arrival {
            Ok(Ok(lines)) => lines,
            Ok(Err(_)) => panic!("{} ended without: {text}", self.name),
            Err(_) => panic!("{} did not print within {DEADLINE:?}: {text}", self.name),
        };
        self.read += position(&lines).unwrap() + 1;
        lines[from..self.read].to_vec()
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
