//! Many clients move at once: `cargo run --release -p spice-conformance --example load -- [CLIENTS…]`
//!
//! The hosts are one process, the clients another one. Each client has four channels, and all are migrated semi-seamlessly by one
//! `migrate`. A row per number of clients; the exit code is 1 if any client is lost or late. The ticket's RSA key is made before the
//! clock starts.

use std::{
    env, fs,
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use spice_conformance::{
    peer::{
        client::{
            Client,
            follower::{End, Follower, Habits, LinkStep, What},
        },
        host::HostSettings,
    },
    serve::{Service, serve},
    subject::Destination,
    trace::Trace,
};
use spice_migration::{caps::MainCapability, migrate::Scheme};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    time::timeout,
};

/// What a client waits for one answer at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// What all may take to connect, and to move. The hosts wait for a client 10 s, as spice-server does.
const LIMIT: Duration = Duration::from_secs(120);

const CHANNELS: usize = 4;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments == ["hosts"] {
        let settings = HostSettings { several_clients: true, ..HostSettings::default() };
        let service = Service { seamless: false, password: None, tls_subject: None, settings };
        return if serve(service).await.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let sizes: Result<Vec<usize>, _> = arguments.iter().map(|argument| argument.parse()).collect();
    let sizes = match sizes {
        Ok(sizes) if !sizes.is_empty() => sizes,
        Ok(_) => vec![10, 100, 1000],
        Err(error) => {
            eprintln!("the number of clients: {error}");
            return ExitCode::from(2);
        }
    };
    println!(
        "| clients | connections | all linked in | all moved in | hosts' memory per client | clients' memory per client |"
    );
    println!("|---:|---:|---:|---:|---:|---:|");
    for clients in sizes {
        if let Err(failure) = migrate(clients).await {
            eprintln!("{clients} clients: {failure}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// What a follower does that counts here.
enum Step {
    Linked(String),
    Moved(Scheme),
    Lost(String),
}

async fn migrate(clients: usize) -> Result<(), Failure> {
    let mut hosts = Hosts::start().await?;
    let first = hosts.until("host 1: listens on ").await?;
    let source = Destination::plain(first.parse()?);
    let (hosts_before, clients_before) = (hosts.memory()?, memory("self")?);

    let client = Client::new(PATIENCE, Trace::new()).with_main(&[MainCapability::SEMI_SEAMLESS_MIGRATE]);
    let (sender, mut steps) = mpsc::unbounded_channel();
    let began = Instant::now();
    let followers: Vec<Follower> = (0..clients)
        .map(|_| {
            let sender = sender.clone();
            Follower::start(client.clone(), source.clone(), Habits::default(), move |event| {
                let step = match event.what {
                    What::Link { host, step: LinkStep::Linked, .. } => Step::Linked(host.to_string()),
                    What::Moved(scheme) => Step::Moved(scheme),
                    What::StartsAfresh(_) => Step::Lost("told SWITCH_HOST".to_owned()),
                    What::Ended(End::Lost(reason)) => Step::Lost(reason),
                    _ => return,
                };
                // Nobody listens any more when it is over.
                let _ = sender.send(step);
            })
        })
        .collect();
    timeout(LIMIT, linked(&mut steps, clients * CHANNELS, &first)).await??;
    let all_linked = began.elapsed();
    let (hosts_linked, clients_linked) = (hosts.memory()?, memory("self")?);

    let began = Instant::now();
    hosts.tell("migrate").await?;
    let second = hosts.until("host 2: listens on ").await?;
    timeout(LIMIT, moved(&mut steps, clients)).await??;
    let all_moved = began.elapsed();
    hosts.until("host 2: has guest and clients").await?;
    hosts.tell("status").await?;
    let there = hosts.until("host 2: has the guest, ").await?;
    if there != format!("{clients} clients") {
        return Err(format!("the target has {there} ({second})").into());
    }
    let per_client = |after: u64, before: u64| after.saturating_sub(before) / clients as u64;
    println!(
        "| {clients} | {} | {:.2} s | {:.2} s | {} KiB | {} KiB |",
        clients * CHANNELS,
        all_linked.as_secs_f64(),
        all_moved.as_secs_f64(),
        per_client(hosts_linked, hosts_before),
        per_client(clients_linked, clients_before),
    );
    drop(followers);
    Ok(())
}

/// Waits until so many channels are linked at the host.
async fn linked(steps: &mut mpsc::UnboundedReceiver<Step>, channels: usize, host: &str) -> Result<(), Failure> {
    let mut linked = 0;
    while linked < channels {
        match steps.recv().await {
            Some(Step::Linked(at)) => linked += usize::from(at == host),
            Some(Step::Lost(reason)) => return Err(format!("a client is lost while it connects: {reason}").into()),
            Some(Step::Moved(_)) | None => return Err("a client has moved before it was told to".into()),
        }
    }
    Ok(())
}

/// Waits until so many clients have moved.
async fn moved(steps: &mut mpsc::UnboundedReceiver<Step>, clients: usize) -> Result<(), Failure> {
    let mut moved = 0;
    while moved < clients {
        match steps.recv().await {
            Some(Step::Moved(Scheme::SemiSeamless)) => moved += 1,
            Some(Step::Moved(scheme)) => return Err(format!("a client has moved by {scheme:?}").into()),
            Some(Step::Lost(reason)) => return Err(format!("a client is lost, {moved} have moved: {reason}").into()),
            Some(Step::Linked(_)) => {}
            None => return Err("the clients are gone".into()),
        }
    }
    Ok(())
}

/// The process of the hosts.
struct Hosts {
    process: Child,
    commands: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Hosts {
    async fn start() -> Result<Self, Failure> {
        let mut process = Command::new(env::current_exe()?)
            .arg("hosts")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let commands = process.stdin.take().ok_or("no standard input")?;
        let lines = BufReader::new(process.stdout.take().ok_or("no standard output")?).lines();
        Ok(Self { process, commands, lines })
    }

    async fn tell(&mut self, command: &str) -> Result<(), Failure> {
        self.commands.write_all(format!("{command}\n").as_bytes()).await?;
        Ok(self.commands.flush().await?)
    }

    /// What follows this in the next line that begins so.
    async fn until(&mut self, begin: &str) -> Result<String, Failure> {
        let found = timeout(LIMIT, async {
            while let Some(line) = self.lines.next_line().await? {
                if let Some(rest) = line.strip_prefix(begin) {
                    return Ok::<_, Failure>(rest.to_owned());
                }
            }
            Err(format!("the hosts have ended before `{begin}`").into())
        });
        found.await?
    }

    fn memory(&self) -> Result<u64, Failure> {
        memory(&self.process.id().ok_or("the hosts have ended")?.to_string())
    }
}

/// The resident memory of a process, in KiB.
fn memory(process: &str) -> Result<u64, Failure> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
