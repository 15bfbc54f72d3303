//! Many clients move at once: `cargo run --release -p spice-conformance --example load -- CLIENTS…`
//!
//! The hosts are one process, the clients another one, both anew for each row. Each client has four channels, and all are migrated
//! semi-seamlessly by one `migrate`. The exit code is 1 if any client, or any of its channels, is lost or late. The RSA key, the
//! same for all links to the hosts, is made before the clock starts.

use std::{
    env, fs,
    num::NonZeroUsize,
    process::{ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use spice_conformance::{
    peer::{
        client::{
            Client,
            follower::{Follower, Habits, LinkStep, What},
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
        let settings = HostSettings::default();
        let service = Service { seamless: false, several_clients: true, password: None, tls_subject: None, settings };
        return if serve(service).await.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let (alone, sizes) = match &arguments[..] {
        [first, sizes @ ..] if first == "clients" => (true, sizes),
        sizes => (false, sizes),
    };
    let sizes: Result<Vec<NonZeroUsize>, _> = sizes.iter().map(|size| size.parse()).collect();
    let sizes = match sizes {
        Ok(sizes) if !sizes.is_empty() => sizes,
        _ => {
            eprintln!("the numbers of clients are missing: 10 100 1000, for instance");
            return ExitCode::from(2);
        }
    };
    if alone {
        for clients in sizes {
            if let Err(failure) = migrate(clients.get()).await {
                eprintln!("{clients} clients: {failure}");
                return ExitCode::FAILURE;
            }
        }
        return ExitCode::SUCCESS;
    }
    println!(
        "| clients | connections | all linked in | all moved in | hosts: KiB a client, most | clients: KiB a client, most |"
    );
    println!("|---:|---:|---:|---:|---:|---:|");
    for clients in sizes {
        let Ok(executable) = env::current_exe() else { return ExitCode::FAILURE };
        let done = Command::new(executable).args(["clients", &clients.to_string()]).status().await;
        if !done.is_ok_and(|status| status.success()) {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// What a follower does that counts here.
enum Step {
    /// Another channel is linked to this host.
    Linked(Arc<str>),
    Moved(Scheme),
    Lost(String),
}

async fn migrate(clients: usize) -> Result<(), Failure> {
    enough_files(clients)?;
    let mut hosts = Hosts::start().await?;
    let first = hosts.until("host 1: listens on ").await?;
    let source = Destination::plain(first.parse()?);
    let before = [hosts.memory()?, Memory::of("self")?];

    let client = Client::new(PATIENCE, Trace::new()).with_main(&[MainCapability::SEMI_SEAMLESS_MIGRATE]);
    let (sender, mut steps) = mpsc::unbounded_channel();
    let began = Instant::now();
    let followers: Vec<Follower> = (0..clients)
        .map(|_| {
            let sender = sender.clone();
            Follower::start(client.clone(), source.clone(), Habits::default(), move |event| {
                let step = match event.what {
                    What::Link { host, step: LinkStep::Linked, .. } => Step::Linked(host),
                    What::Moved(scheme) => Step::Moved(scheme),
                    What::NotLinked { .. }
                    | What::Closed { .. }
                    | What::Violated(..)
                    | What::StartsAfresh(_)
                    | What::Ended(_) => Step::Lost(event.what.to_string()),
                    _ => return,
                };
                // Nobody listens any more when it is over.
                let _ = sender.send(step);
            })
        })
        .collect();
    timeout(LIMIT, linked(&mut steps, clients, &first)).await??;
    let all_linked = began.elapsed();
    let at_rest = [hosts.memory()?, Memory::of("self")?];

    let began = Instant::now();
    hosts.tell("migrate").await?;
    let second = hosts.until("host 2: listens on ").await?;
    timeout(LIMIT, moved(&mut steps, clients, &second)).await??;
    let all_moved = began.elapsed();
    hosts.until("host 2: has guest and clients").await?;
    hosts.tell("status").await?;
    let there = hosts.until("host 2: has the guest, ").await?;
    if there != format!("{clients} clients") {
        return Err(format!("the target has {there}").into());
    }
    // Nobody minds that the source has ended.
    while let Ok(step) = steps.try_recv() {
        if let Step::Lost(reason) = step {
            return Err(format!("a client is lost at the target: {reason}").into());
        }
    }
    let most = [hosts.memory()?, Memory::of("self")?];
    let per_client = |process: usize, kib: u64| kib.saturating_sub(before[process].now) / clients as u64;
    println!(
        "| {clients} | {} | {:.2} s | {:.2} s | {}, {} | {}, {} |",
        clients * CHANNELS,
        all_linked.as_secs_f64(),
        all_moved.as_secs_f64(),
        per_client(0, at_rest[0].now),
        per_client(0, most[0].most),
        per_client(1, at_rest[1].now),
        per_client(1, most[1].most),
    );
    drop(followers);
    Ok(())
}

/// Waits until all channels of so many clients are linked to the host.
async fn linked(steps: &mut mpsc::UnboundedReceiver<Step>, clients: usize, host: &str) -> Result<(), Failure> {
    let mut linked = 0;
    while linked < clients * CHANNELS {
        match steps.recv().await {
            Some(Step::Linked(at)) => linked += usize::from(*at == *host),
            Some(Step::Lost(reason)) => return Err(format!("a client is lost while it connects: {reason}").into()),
            Some(Step::Moved(_)) | None => return Err("a client has moved before it was told to".into()),
        }
    }
    Ok(())
}

/// Waits until so many clients have moved, with all channels.
async fn moved(steps: &mut mpsc::UnboundedReceiver<Step>, clients: usize, host: &str) -> Result<(), Failure> {
    let (mut moved, mut linked) = (0, 0);
    while moved < clients || linked < clients * CHANNELS {
        match steps.recv().await {
            Some(Step::Moved(Scheme::SemiSeamless)) => moved += 1,
            Some(Step::Moved(scheme)) => return Err(format!("a client has moved by {scheme:?}").into()),
            Some(Step::Lost(reason)) => return Err(format!("a client is lost, {moved} have moved: {reason}").into()),
            Some(Step::Linked(at)) => linked += usize::from(*at == *host),
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

    fn memory(&self) -> Result<Memory, Failure> {
        Memory::of(&self.process.id().ok_or("the hosts have ended")?.to_string())
    }
}

/// The resident memory of a process, in KiB.
struct Memory {
    now: u64,
    most: u64,
}

impl Memory {
    fn of(process: &str) -> Result<Self, Failure> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        Ok(Self { now: number(&status, "VmRSS:")?, most: number(&status, "VmHWM:")? })
    }
}

/// Each client has its connections to both hosts for a while, and both processes have one end of each.
fn enough_files(clients: usize) -> Result<(), Failure> {
    let most = number(&fs::read_to_string("/proc/self/limits")?, "Max open files")?;
    let needed = 2 * clients * CHANNELS + 64;
    if most < needed as u64 {
        return Err(format!("they need {needed} open files, and {most} are allowed: `ulimit -n {needed}`").into());
    }
    Ok(())
}

/// The number behind this, in what the kernel says about a process.
fn number(text: &str, name: &str) -> Result<u64, Failure> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    let number = rest.and_then(|rest| rest.split_whitespace().next()).ok_or_else(|| format!("no {name}"))?;
    Ok(number.parse()?)
}
