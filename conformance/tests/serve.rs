//! `serve`, as its users meet it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use assert_cmd::cargo::cargo_bin;

/// More than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Serve {
    process: Child,
    commands: ChildStdin,
    lines: Receiver<String>,
}

impl Serve {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(cargo_bin!("spice-conformance"))
            .arg("serve")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { commands: process.stdin.take().unwrap(), process, lines }
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }

    /// The lines up to one that ends so.
    fn until(&self, end: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        while lines.last().is_none_or(|line| !line.ends_with(end)) {
            let line = self.lines.recv_timeout(PATIENCE);
            lines.push(line.unwrap_or_else(|error| panic!("{error} instead of `{end}`, after {lines:#?}")));
        }
        lines
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_guest_moves_from_host_to_host() {
    let mut serve = Serve::start(&[]);
    assert!(serve.until("").last().unwrap().starts_with("host 1: listens on 127.0.0.1:"));
    for (source, target) in [("host 1", "host 2"), ("host 2", "host 3")] {
        serve.tell("migrate");
        let lines = serve.until(&format!("{target}: has guest and clients"));
        for line in ["guest stopped", "guest has moved", "no client needs this host any more"] {
            assert!(lines.contains(&format!("{source}: {line}")), "{line}: {lines:#?}");
        }
        assert!(lines.contains(&format!("{target}: guest runs")), "{lines:#?}");
    }
    serve.tell("status");
    serve.until("host 3: has the guest, 0 clients");
    serve.tell("quit");
    assert_eq!(serve.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_guest_that_does_not_move_stays_and_can_be_moved_later() {
    let mut serve = Serve::start(&[]);
    serve.tell("throttle");
    serve.tell("migrate");
    serve.until("1: all clients have answered");
    serve.tell("migrate");
    serve.until("a migration is under way; `cancel` ends it");
    serve.tell("cancel");
    serve.until("host 1: keeps the guest: VM migration cancelled");
    serve.tell("throttle");
    serve.tell("migrate");
    serve.tell("fail");
    serve.until("host 1: keeps the guest: VM migration failed");
    serve.tell("migrate");
    serve.until("host 4: has guest and clients");
}

#[test]
fn what_is_no_command_is_answered_with_those_that_are() {
    let mut serve = Serve::start(&[]);
    serve.tell("mirgate");
    let lines = serve.until("quit             end; so does the end of the input");
    assert!(lines.iter().any(|line| line == "`mirgate` is no command; there are:"), "{lines:#?}");
    serve.tell("status");
    serve.until("host 1: has the guest, 0 clients");
}
