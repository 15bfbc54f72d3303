//! QEMU as a host: what the suite relies on, tried with the real program.

use std::{
    io::{self, Write},
    panic,
    path::Path,
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use spice_conformance::{
    subject::{
        Destination, HostEvent, HostOptions, Liveness, StartError,
        qemu::{Qemu, QemuHost},
    },
    trace::Trace,
};
use tempfile::TempDir;
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_guest_moves() {
    let Some(mut pair) = Pair::start("migration between two hosts").await else { return };
    pair.source.migrate_info(&Destination::plain(pair.target.spice())).await.unwrap();
    pair.source.migrate(&pair.target).await.unwrap();
    pair.source.wait_for(HostEvent::MigrationCompleted, DEADLINE).await.unwrap();
    pair.source.wait_for(HostEvent::Stop, Duration::ZERO).await.unwrap();
    pair.target.wait_for(HostEvent::Resume, DEADLINE).await.unwrap();
    pair.source.wait_for(HostEvent::ClientMigrationCompleted, DEADLINE).await.unwrap();
    assert_eq!(pair.source.count(HostEvent::Stop), 1);
    assert_eq!(pair.source.count(HostEvent::MigrationFailed), 0);
    assert_eq!(pair.source.liveness(DEADLINE).await, Liveness::Alive);
    assert_eq!(pair.target.liveness(DEADLINE).await, Liveness::Alive);

    let again = pair.source.wait_for(HostEvent::Stop, Duration::ZERO).await.unwrap_err();
    assert_eq!(again.to_string(), "source: wait for an event: Stop: it did not come within 0ns");
    let entries: Vec<_> =
        pair.trace.entries().iter().map(|entry| (entry.connection.clone(), entry.text.clone())).collect();
    assert!(entries.contains(&("source".to_owned(), "event STOP {}".to_owned())), "{entries:#?}");
    pair.source.stop().await;
    pair.target.stop().await;
}

#[tokio::test]
async fn a_migration_to_nowhere_fails_and_the_next_one_works() {
    let Some(mut pair) = Pair::start("a failing migration").await else { return };
    for _ in 0..2 {
        pair.source.migrate_to_nowhere().await.unwrap();
        pair.source.wait_for(HostEvent::MigrationFailed, DEADLINE).await.unwrap();
    }
    assert_eq!(pair.source.count(HostEvent::Stop), 0);
    pair.source.migrate(&pair.target).await.unwrap();
    pair.source.wait_for(HostEvent::MigrationCompleted, DEADLINE).await.unwrap();
    pair.target.wait_for(HostEvent::Resume, DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_throttled_migration_is_cancelled_and_the_target_ends() {
    let Some(mut pair) = Pair::start("a cancelled migration").await else { return };
    pair.source.throttle().await.unwrap();
    pair.source.migrate(&pair.target).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    pair.source.cancel().await.unwrap();
    pair.source.wait_for(HostEvent::MigrationCancelled, DEADLINE).await.unwrap();
    assert_eq!(pair.source.count(HostEvent::MigrationCompleted), 0);
    assert_eq!(pair.source.liveness(DEADLINE).await, Liveness::Alive);

    pair.target.wait_for(HostEvent::MigrationFailed, DEADLINE).await.unwrap();
    pair.target.wait_for(HostEvent::Resume, DEADLINE).await.unwrap_err();
    let Liveness::Exited { code, signal, printed } = pair.target.liveness(DEADLINE).await else { panic!("it lives") };
    assert_eq!((code, signal), (Some(1), None));
    assert!(printed.contains("load of migration failed"), "{printed}");
}

#[tokio::test]
async fn a_killed_process_is_reported_with_its_signal() {
    let Some(mut pair) = Pair::start("the end of a process").await else { return };
    signal("-KILL", pair.source.process_id().unwrap());
    let killed = Liveness::Exited { code: None, signal: Some(9), printed: String::new() };
    assert_eq!(pair.source.liveness(DEADLINE).await, killed);
    assert_eq!(pair.source.liveness(DEADLINE).await, killed);
    let error = pair.source.wait_for(HostEvent::Stop, DEADLINE).await.unwrap_err();
    assert!(error.reason.contains("its control socket closed"), "{error}");
    pair.source.migrate_to_nowhere().await.unwrap_err();
    pair.source.stop().await;
}

#[tokio::test]
async fn a_stopped_process_is_unresponsive() {
    let Some(mut pair) = Pair::start("a process that hangs").await else { return };
    let process = pair.source.process_id().unwrap();
    signal("-STOP", process);
    let began = Instant::now();
    let liveness = pair.source.liveness(Duration::from_millis(300)).await;
    assert!(matches!(liveness, Liveness::Unresponsive(_)), "{liveness:?}");
    assert!(began.elapsed() < Duration::from_secs(1));

    // The answer that is missing comes now, and must not be taken for another command's.
    signal("-CONT", process);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let error = pair.source.cancel().await.unwrap_err();
    assert_eq!(error.reason, "an earlier command was not answered");
    pair.source.stop().await;
}

#[tokio::test]
async fn a_connection_that_was_reset_counts_as_long_as_the_process_holds_it() {
    let Some(pair) = Pair::start("connections that are reset").await else { return };
    let count = async |expected| {
        let began = Instant::now();
        while pair.source.connections() != Some(expected) {
            assert!(began.elapsed() < DEADLINE, "{:?}, not {expected}", pair.source.connections());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let client = TcpStream::connect(pair.source.spice()).await.unwrap();
    count(1).await;
    let process = pair.source.process_id().unwrap();
    signal("-STOP", process);
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(pair.source.connections(), Some(1));
    signal("-CONT", process);
    count(0).await;
}

#[tokio::test]
async fn no_process_is_left() {
    let Some(pair) = Pair::start("the end of dropped hosts").await else { return };
    let (source, target) = (pair.source.process_id().unwrap(), pair.target.process_id().unwrap());
    pair.source.stop().await;
    assert!(!exists(source));

    drop(pair.target);
    let began = Instant::now();
    while exists(target) {
        assert!(began.elapsed() < DEADLINE, "process {target} is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn no_process_is_left_after_a_panic() {
    let (sender, receiver) = mpsc::channel();
    let panicking = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let Some(pair) = Pair::start("the end of hosts after a panic").await else { return };
            sender.send(pair.target.process_id().unwrap()).unwrap();
            panic::resume_unwind(Box::new("as intended"));
        });
    });
    if panicking.join().is_ok() {
        return;
    }
    let process = receiver.recv().unwrap();
    // With its runtime gone nobody reaps the process: it may stay as a zombie of this one, but no longer.
    let began = Instant::now();
    while std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(began.elapsed() < DEADLINE, "process {process} still runs");
        thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn commas_in_a_password_and_a_path_are_kept() {
    let Some(qemu) = qemu("a host with a password").await else { return };
    let directory = TempDir::with_prefix("a,b ").unwrap();
    let options = HostOptions { password: Some("a,data=b".to_owned()), ..options("source") };
    let mut host = qemu.start(directory.path(), &options, &Trace::new()).await.unwrap();
    assert_eq!(host.liveness(DEADLINE).await, Liveness::Alive);
}

#[tokio::test]
async fn a_host_that_cannot_start_says_why() {
    let Some(qemu) = qemu("a host that cannot start").await else { return };
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("missing");
    let error = qemu.start(&missing, &options("source"), &Trace::new()).await.err().unwrap().to_string();
    assert!(error.contains("source.firmware: No such file"), "{error}");

    let options_without_files = HostOptions { certificates: Some(missing), ..options("source") };
    let error = qemu.start(directory.path(), &options_without_files, &Trace::new()).await.err().unwrap();
    let StartError::NotReady { name, reason } = &error else { panic!("{error}") };
    assert_eq!(name, "source");
    assert!(reason.contains("it ended with exit status: 1"), "{reason}");
    assert!(reason.contains("failed to initialize spice server"), "{reason}");

    let long = directory.path().join("x".repeat(100));
    let error = qemu.start(&long, &options("source"), &Trace::new()).await.err().unwrap().to_string();
    assert!(error.contains("did not become ready"), "{error}");
}

#[tokio::test]
async fn a_missing_binary_names_the_package() {
    let error = Qemu::probe(Path::new("qemu-that-does-not-exist")).await.unwrap_err();
    let StartError::MissingProgram { program, package, .. } = &error else { panic!("{error}") };
    assert_eq!((program.as_str(), *package), ("qemu-that-does-not-exist", "qemu-system-x86"));
}

#[tokio::test]
async fn another_program_is_not_taken_for_qemu() {
    let error = Qemu::probe(Path::new("true")).await.unwrap_err();
    assert!(matches!(&error, StartError::NotReady { reason, .. } if reason.contains("not QEMU")), "{error}");
}

struct Pair {
    source: QemuHost,
    target: QemuHost,
    trace: Trace,
    _directory: TempDir,
}

impl Pair {
    async fn start(untested: &str) -> Option<Self> {
        let qemu = qemu(untested).await?;
        assert!(qemu.version().starts_with(|first: char| first.is_ascii_digit()), "{}", qemu.version());
        let directory = TempDir::new().unwrap();
        let trace = Trace::new();
        let began = Instant::now();
        let source = qemu.start(directory.path(), &options("source"), &trace).await.unwrap();
        let target_options = HostOptions { incoming: true, ..options("target") };
        let target = qemu.start(directory.path(), &target_options, &trace).await.unwrap();
        println!(
            "a pair of QEMU {} with spice-server {}: {:?}",
            qemu.version(),
            source.spice_server_version(),
            began.elapsed()
        );
        assert_ne!(source.spice(), target.spice());
        assert_eq!(target.name(), "target");
        Some(Self { source, target, trace, _directory: directory })
    }
}

/// QEMU, or `None` and a line that says what was not tested. In CI it must be there.
async fn qemu(untested: &str) -> Option<Qemu> {
    match Qemu::probe(Path::new("qemu-system-x86_64")).await {
        Ok(qemu) => Some(qemu),
        Err(StartError::MissingProgram { .. }) if std::env::var_os("CI").is_none() => {
            // Straight to stderr: the test harness would swallow what `println!` says in a test that passes.
            let _ = writeln!(io::stderr(), "not tested: {untested} (qemu-system-x86_64 is missing)");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn options(name: &str) -> HostOptions {
    HostOptions { name: name.to_owned(), seamless: true, password: None, incoming: false, ..HostOptions::default() }
}

fn signal(signal: &str, process: u32) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

fn exists(process: u32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}
