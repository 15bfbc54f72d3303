//! The command line.

use std::{
    collections::hash_map::RandomState,
    env,
    fs::{self, File, OpenOptions},
    future::Future,
    hash::{BuildHasher, Hasher},
    io::{self, BufWriter},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
    thread,
    time::Instant,
};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use glob::Pattern;
use spice_migration::migrate::source_host::{Completion, HandOver};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    case::{Case, Context, Level, Unexpected},
    cases,
    context::{Survey, SurveyError},
    expectation::Expectations,
    peer::{
        defect::Defect,
        host::{GuestOptions, HostSettings},
        tls,
    },
    registry::Registry,
    report::{Exit, Report, json, text},
    runner::Plan,
    selfcheck, serve,
    subject::{Embedded, Subject, qemu::Qemu, server::Server},
};

/// How alike an unknown id and a known one must be for the known one to be suggested; 1 is equal.
const SUGGESTION_THRESHOLD: f64 = 0.8;

/// How many ids are suggested at most.
const SUGGESTIONS: usize = 5;

/// What a server says to a client that has not the right password.
const PERMISSION_DENIED: &str = "PERMISSION_DENIED";

/// What spice-server takes of a password at most, in bytes: `SPICE_MAX_PASSWORD_LENGTH`, which is 60, less its NUL.
const MAX_PASSWORD: usize = 59;

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(options) => run(&options),
        Command::List(options) => list(&options),
        Command::Explain { id } => explain(&id),
        Command::Serve(options) => serve(&options),
        Command::Selfcheck(options) => selfcheck(&options),
    };
    let exit = done.unwrap_or_else(|refusal| {
        eprintln!("error: {}", refusal.message);
        refusal.exit
    });
    match text::lost() {
        // These say more.
        Some(error) if !matches!(exit, Exit::SuiteBug | Exit::Interrupted) => {
            eprintln!("error: the standard output cannot be written: {error}");
            Exit::Usage.into()
        }
        _ => exit.into(),
    }
}

/// Validates SPICE servers and their hosts in migrations: plays the client against two hosts, and judges what they send.
#[derive(Parser)]
#[command(name = "spice-conformance", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the cases against the chosen peer; without one, against the embedded reference hosts
    #[command(after_help = EXIT_CODES)]
    Run(RunOptions),
    /// Lists the cases: id, level, requirements, title
    List(ListOptions),
    /// Explains a case or a requirement
    Explain {
        /// The id of a case, as `list` shows it, or of a requirement, such as L1.1
        id: String,
    },
    /// Runs the cases against the reference hosts with each of their defects, and tells which cases catch it
    #[command(after_help = SELFCHECK_EXIT_CODES)]
    Selfcheck(SelfcheckOptions),
    /// Runs the reference hosts as standing servers, with commands on the standard input
    #[command(after_help = serve_help())]
    Serve(ServeOptions),
}

fn serve_help() -> String {
    format!("Commands, a line each:\n{}", serve::COMMANDS)
}

const EXIT_CODES: &str = "\
Exit codes:
  0    at least one case was judged, and every outcome is as expected
  1    a case failed or was inconclusive, or a violation was seen beside the cases
  2    the command line cannot be carried out
  3    the peer could not be reached or started
  4    no case was judged
  5    a known deviation is gone
  70   the suite itself has a bug
  130  Ctrl-C";

#[derive(Args)]
struct RunOptions {
    #[command(flatten)]
    selection: Selection,
    /// Runs against two QEMU processes, which are started for each case
    #[arg(
        long,
        value_name = "BINARY",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "qemu-system-x86_64"
    )]
    qemu: Option<PathBuf>,
    /// Runs against one server that runs already, without control of its host: the cases about migration are then not applicable
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "qemu")]
    server: Option<String>,
    /// The password that the server demands
    #[arg(long, value_name = "PASSWORD", requires = "server")]
    password: Option<String>,
    /// Switches one defect of the embedded hosts on
    #[arg(long, value_name = "NAME", value_parser = defect, conflicts_with_all = ["qemu", "server"], hide = true)]
    defect: Option<Defect>,
    /// Printed and reported, to repeat a run by; no case makes random choices yet
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many cases are run at the same time; the number of cores if not given. Four times as many of those that do little but wait
    /// are run beside them. A server that runs already takes one after the other
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// How often each case is run
    #[arg(long, value_name = "N", default_value = "1")]
    repeat: NonZeroUsize,
    /// How much longer everything is waited for, such as 3 on a slow machine
    #[arg(long, value_name = "X", default_value = "1", value_parser = time_scale)]
    time_scale: f64,
    /// Starts no case any more after the first unexpected outcome
    #[arg(long)]
    fail_fast: bool,
    /// Known deviations of the peer, which then do not count; `none` for all outcomes as they are. If not given, those that the
    /// suite carries for the version of spice-server that it finds
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// Writes a report for programs, too; may be given several times
    #[arg(long, value_name = "json=FILE", value_parser = report_path)]
    report: Vec<PathBuf>,
}

const SELFCHECK_EXIT_CODES: &str = "\
Exit codes:
  0    the clean hosts pass every case, and each defect is caught by a case of its requirement
  1    otherwise
  130  Ctrl-C";

#[derive(Args)]
struct SelfcheckOptions {
    /// How many defects are tried at the same time
    #[arg(long, value_name = "N", default_value = "6")]
    jobs: NonZeroUsize,
}

#[derive(Args)]
struct ListOptions {
    #[command(flatten)]
    selection: Selection,
    /// How the list is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Args)]
struct ServeOptions {
    /// Demands this ticket of clients
    #[arg(long, value_name = "PASSWORD")]
    password: Option<String>,
    /// Speaks TLS, too, with this folder's server-cert.pem and server-key.pem; clients are then sent to TLS ports alone
    #[arg(long, value_name = "FOLDER")]
    tls: Option<PathBuf>,
    /// Tells clients to verify this subject of the target's certificate
    #[arg(long, value_name = "SUBJECT", requires = "tls")]
    tls_subject: Option<String>,
    /// Does not allow seamless migration
    #[arg(long)]
    no_seamless: bool,
    /// Who waits so that guest and clients come together: the target (wait), nobody (signal), the source (shipped)
    #[arg(long, value_enum, default_value_t = CompletionName::Wait)]
    completion: CompletionName,
    /// Whether clients are handed over after the guest's last stage or in parallel with it
    #[arg(long, value_enum, default_value_t = HandOverName::After)]
    hand_over: HandOverName,
    /// The guest's memory
    #[arg(long, value_name = "MIB", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    memory: u16,
    /// How much of its memory the guest writes to, and leaves to be copied when it has stopped
    #[arg(long, value_name = "KIB", default_value_t = 64)]
    working_set: u32,
    /// How many pages of 4 KiB the guest writes to in a second
    #[arg(long, value_name = "PAGES", default_value_t = 1600)]
    dirty_rate: u32,
    /// Most bytes of the guest that are sent in a second; no limit if not given
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    bandwidth: Option<u64>,
    /// Lets several clients connect at once
    #[arg(long)]
    several_clients: bool,
}

/// The designs of `spice_migration::migrate`.
#[derive(Clone, Copy, ValueEnum)]
enum CompletionName {
    Wait,
    Signal,
    Shipped,
}

#[derive(Clone, Copy, ValueEnum)]
enum HandOverName {
    After,
    Parallel,
}

/// Which cases a command is about.
#[derive(Args)]
struct Selection {
    /// Only cases whose id matches one of these patterns, such as 'seamless/*'
    #[arg(long, value_name = "GLOB", num_args = 1.., value_parser = Pattern::new)]
    filter: Vec<Pattern>,
    /// No cases whose id matches one of these patterns
    #[arg(long, value_name = "GLOB", num_args = 1.., value_parser = Pattern::new)]
    exclude: Vec<Pattern>,
    /// Only cases that are at least this strict; `observed` ones never change the exit code
    #[arg(long, value_name = "LEVEL", value_parser = level_parser(), default_value = "should")]
    level: Level,
}

impl Selection {
    fn cases(&self) -> Result<Vec<&'static Case>, Refusal> {
        let matches = |patterns: &[Pattern], case: &Case| patterns.iter().any(|pattern| pattern.matches(&case.id));
        let selected: Vec<_> = cases::all()
            .filter(|case| self.filter.is_empty() || matches(&self.filter, case))
            .filter(|case| !matches(&self.exclude, case))
            .filter(|case| case.level >= self.level)
            .collect();
        for pattern in &self.filter {
            if !selected.iter().any(|case| pattern.matches(&case.id)) {
                let why = match cases::all().find(|case| pattern.matches(&case.id)) {
                    Some(Case { level, .. }) if *level < self.level => {
                        format!("its cases are there at --level {level}")
                    }
                    Some(_) => "its cases are excluded".to_owned(),
                    None => "no case has such an id; all of a group are GROUP/*".to_owned(),
                };
                eprintln!("warning: --filter {pattern} selects nothing: {why}");
            }
        }
        if selected.is_empty() {
            let message = format!(
                "none of the {} cases is selected by --filter, --exclude and --level {}; \
                 `spice-conformance list --level observed` lists them all",
                cases::all().count(),
                self.level
            );
            return Err(Refusal { exit: Exit::NothingJudged, message });
        }
        Ok(selected)
    }
}

/// Why a command is not carried out.
struct Refusal {
    exit: Exit,
    message: String,
}

/// The system denies what any program may ask of it, such as a temporary folder.
impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { exit: Exit::PeerUnreachable, message: error.to_string() }
    }
}

fn run(options: &RunOptions) -> Result<Exit, Refusal> {
    check_password(options.password.as_deref())?;
    // Before anything else: a run whose report cannot be written is a waste.
    let files: Vec<ReportFile> = options.report.iter().map(ReportFile::open).collect::<Result<_, _>>()?;
    let cases = options.selection.cases()?.repeat(options.repeat.get());
    let seed = options.seed.unwrap_or_else(random_seed);
    let jobs = options.jobs.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);

    let runtime = tokio::runtime::Runtime::new()?;
    let (report, live) = runtime.block_on(async {
        let began = Instant::now();
        let mut interrupt = pin!(interruption()?);
        let (subject, peer) = tokio::select! {
            reached = reach(options) => reached?,
            () = &mut interrupt => {
                let message = "interrupted before the first case".to_owned();
                return Err(Refusal { exit: Exit::Interrupted, message });
            }
        };
        let expected = expectations(options, &peer)?;
        let expectations = expected.as_ref().map(|(_, expectations)| expectations.clone()).unwrap_or_default();
        let plan = Plan { cases, subject, jobs, fail_fast: options.fail_fast, expectations };
        let known = match &expected {
            Some((file, _)) => Some(format!("known deviations: {file}; --expect none for all outcomes as they are")),
            None if peer.kind == "qemu" && options.expect.is_none() => {
                Some(format!("no deviations are known of spice-server {}", peer.version))
            }
            None => None,
        };
        let mut live = text::Live::new(&peer, seed, &plan, known.as_deref());
        let run = plan.run(interrupt, |progress| live.observe(progress)).await;
        let (selected, elapsed) = (plan.cases.len(), began.elapsed());
        Ok((Report { command: command_line(), seed, peer, expected, selected, run, elapsed }, live))
    })?;
    let written: Result<(), Refusal> = files.into_iter().try_for_each(|file| file.write(&report));
    let exit = match (report.exit(), &written) {
        // These say more than that a report could not be written.
        (exit @ (Exit::SuiteBug | Exit::Interrupted), _) | (exit, Ok(())) => exit,
        (_, Err(refusal)) => refusal.exit,
    };
    live.finish(&report, exit);
    written.map(|()| exit).map_err(|refusal| Refusal { exit, ..refusal })
}

/// A file for a report. What it holds stays until there is something to put in its place.
struct ReportFile<'a> {
    path: &'a Path,
    file: File,
    /// Whether it is one that was not there before.
    is_new: bool,
    is_written: bool,
}

impl<'a> ReportFile<'a> {
    fn open(path: &'a PathBuf) -> Result<Self, Refusal> {
        let created = OpenOptions::new().write(true).create_new(true).open(path);
        let (file, is_new) = match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A link whose goal is not there exists, too.
                (OpenOptions::new().write(true).create(true).truncate(false).open(path), false)
            }
            created => (created, true),
        };
        let file = file.map_err(|error| report_refusal(path, &error))?;
        Ok(Self { path, file, is_new, is_written: false })
    }

    fn write(mut self, report: &Report) -> Result<(), Refusal> {
        let written = match self.file.metadata() {
            // A device has no length.
            Ok(metadata) if metadata.is_file() => self.file.set_len(0),
            other => other.map(drop),
        };
        let written = written.and_then(|()| json::write(report, BufWriter::new(&self.file)));
        self.is_written = written.is_ok();
        written.map_err(|error| report_refusal(self.path, &error))
    }
}

impl Drop for ReportFile<'_> {
    fn drop(&mut self) {
        if self.is_new && !self.is_written {
            // What is empty or cut off is no report.
            let _ = fs::remove_file(self.path);
        }
    }
}

fn list(options: &ListOptions) -> Result<Exit, Refusal> {
    let cases = options.selection.cases()?;
    text::print(&match options.format {
        Format::Text => text::list(&cases),
        Format::Json => json::list(&cases),
    });
    Ok(Exit::AsExpected)
}

fn selfcheck(options: &SelfcheckOptions) -> Result<Exit, Refusal> {
    let runtime = tokio::runtime::Runtime::new()?;
    let checked = async {
        let wrong = selfcheck::clean(|_| true, options.jobs).await;
        let rows = selfcheck::matrix(
            options.jobs.get(),
            |_, _| false,
            |row| {
                let caught = row.caught_by().count();
                let verdict = if row.is_caught() { "caught" } else { "SURVIVED" };
                let (defect, requirement) = (row.defect.name(), row.defect.requirement());
                text::print(&format!(
                    "{verdict:9} {defect:40} {requirement:6} by {caught} of {} cases\n",
                    row.judging.len()
                ));
            },
        );
        (wrong, rows.await)
    };
    let checked = runtime.block_on(async {
        tokio::select! {
            checked = checked => Ok::<_, io::Error>(Some(checked)),
            () = interruption()? => Ok(None),
        }
    });
    let Some((wrong, rows)) = checked? else { return Ok(Exit::Interrupted) };
    for (case, reason) in &wrong {
        text::print(&format!("WRONG     {case} does not pass without a defect: {reason}\n"));
    }
    let caught = rows.iter().filter(|row| row.is_caught()).count();
    let (all, percent) = (rows.len(), caught * 100 / rows.len().max(1));
    text::print(&format!("\n{caught} of {all} defects caught, {percent} %\n"));
    Ok(if wrong.is_empty() && caught == all { Exit::AsExpected } else { Exit::Unexpected })
}

fn serve(options: &ServeOptions) -> Result<Exit, Refusal> {
    check_password(options.password.as_deref())?;
    let tls = match &options.tls {
        Some(folder) => Some(tls::server_config(folder).map_err(|error| Refusal {
            exit: Exit::Usage,
            message: format!("--tls: {error}; name a folder with server-cert.pem and server-key.pem"),
        })?),
        None => None,
    };
    const PAGES_PER_MIB: usize = 256;
    const KIB_PER_PAGE: u32 = 4;
    let settings = HostSettings {
        completion: match options.completion {
            CompletionName::Wait => Completion::WaitAtTarget,
            CompletionName::Signal => Completion::SignalThroughClient,
            CompletionName::Shipped => Completion::SourceWaits,
        },
        hand_over: match options.hand_over {
            HandOverName::After => HandOver::Afterwards,
            HandOverName::Parallel => HandOver::InParallel,
        },
        guest: GuestOptions {
            pages: usize::from(options.memory) * PAGES_PER_MIB,
            working_set: options.working_set.div_ceil(KIB_PER_PAGE) as usize,
            dirtied_per_second: options.dirty_rate,
        },
        bandwidth: options.bandwidth,
        tls,
        ..HostSettings::default()
    };
    let service = serve::Service {
        seamless: !options.no_seamless,
        several_clients: options.several_clients,
        password: options.password.clone(),
        tls_subject: options.tls_subject.clone(),
        settings,
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let exit = runtime.block_on(async {
        tokio::select! {
            served = serve::serve(service) => match served {
                Ok(()) => Ok(Exit::AsExpected),
                Err(error) => Err(Refusal { exit: Exit::PeerUnreachable, message: error.to_string() }),
            },
            () = interruption()? => Ok(Exit::Interrupted),
        }
    });
    // Whoever reads the standard input only stops with the next line.
    runtime.shutdown_background();
    exit
}

fn explain(id: &str) -> Result<Exit, Refusal> {
    if let Some(explanation) = text::explain(id) {
        text::print(&explanation);
        return Ok(Exit::AsExpected);
    }
    let requirements = Registry::get().requirements.iter().map(|requirement| requirement.id.as_str());
    let known = cases::all().map(|case| case.id.as_ref()).chain(requirements);
    let mut near: Vec<(f64, &str)> = known
        .map(|known| (strsim::jaro_winkler(&known.to_lowercase(), &id.to_lowercase()), known))
        .filter(|(likeness, _)| *likeness >= SUGGESTION_THRESHOLD)
        .collect();
    near.sort_by(|(left, _), (right, _)| right.total_cmp(left));
    let mut message = format!("no case and no requirement has the id `{id}`");
    if !near.is_empty() {
        let near: Vec<&str> = near.iter().take(SUGGESTIONS).map(|(_, known)| *known).collect();
        message += &format!("; near it are: {}", near.join(", "));
    }
    message += "; `spice-conformance list --level observed` lists all cases with their requirements";
    Err(Refusal { exit: Exit::Usage, message })
}

/// Makes sure that the peer can be tested at all.
async fn reach(options: &RunOptions) -> Result<(Subject, Survey), Refusal> {
    let refusal = |message: String| Refusal { exit: Exit::PeerUnreachable, message };
    let (subject, surveyed) = match (&options.qemu, &options.server) {
        (Some(binary), _) => {
            let subject = Subject::Qemu(Qemu::probe(binary).await.map_err(|error| refusal(error.to_string()))?);
            (subject.clone(), subject)
        }
        (None, Some(server)) => {
            let resolved = tokio::net::lookup_host(server).await.map(|mut addresses| addresses.next());
            let address = match resolved {
                Ok(Some(address)) => address,
                _ if !is_host_and_port(server) => {
                    let message = format!(
                        "--server {server}: it is HOST:PORT, an IPv6 address in brackets, and the port at most 65535"
                    );
                    return Err(Refusal { exit: Exit::Usage, message });
                }
                Ok(None) => return Err(refusal(format!("--server {server}: the name has no address"))),
                Err(error) => return Err(refusal(format!("--server {server}: {error}"))),
            };
            let subject = Subject::Server(Server::new(address, options.password.clone()));
            (subject.clone(), subject)
        }
        // The embedded hosts are there; a defect that keeps clients out is for the cases to find.
        (None, None) => (Subject::Embedded(Embedded::new(options.defect)), Subject::Embedded(Embedded::new(None))),
    };
    let (subject, surveyed) =
        (subject.with_time_scale(options.time_scale), surveyed.with_time_scale(options.time_scale));
    let mut context = Context::new(surveyed)?;
    let survey = context.survey().await;
    context.finish().await;
    Ok((subject, survey.map_err(|error| refusal(unreachable(options, &error)))?))
}

fn is_host_and_port(server: &str) -> bool {
    server.rsplit_once(':').is_some_and(|(host, port)| {
        let is_bare = !host.is_empty() && !host.contains(':');
        port.parse::<u16>().is_ok() && (is_bare || host.starts_with('[') && host.ends_with(']'))
    })
}

/// Why the peer cannot be tested, and what to do.
fn unreachable(options: &RunOptions, error: &SurveyError) -> String {
    let Some(server) = &options.server else { return error.to_string() };
    let remedy = match (error, &options.password) {
        (SurveyError::Link(Unexpected { got, .. }), None) if got.contains(PERMISSION_DENIED) => {
            "it demands a password: --password"
        }
        (SurveyError::Link(Unexpected { got, .. }), Some(_)) if got.contains(PERMISSION_DENIED) => {
            "it demands another password than that of --password"
        }
        (SurveyError::Link(_), _) => "is it a SPICE server, and is this its plaintext port?",
        (SurveyError::Start(_), _) => return error.to_string(),
    };
    format!("--server {server}: {error}; {remedy}")
}

/// What is known of the peer's deviations, and from where.
fn expectations(options: &RunOptions, peer: &Survey) -> Result<Option<(String, Expectations)>, Refusal> {
    let found = match &options.expect {
        Some(path) if path.as_os_str() == "none" => None,
        Some(path) => {
            let name = path.display().to_string();
            let read = Expectations::read(path).map_err(|error| {
                let message = format!(
                    "--expect {name}: {error}; expectations/spice-server-0.15.1.toml of the suite shows how one looks"
                );
                Refusal { exit: Exit::Usage, message }
            })?;
            Some((name, read))
        }
        None if peer.kind == "qemu" => {
            Expectations::of_spice_server(&peer.version).map(|(name, own)| (name.to_owned(), own))
        }
        None => None,
    };
    Ok(found.map(|(name, expectations)| match peer.kind {
        // Which version it is only its user knows, who chose the file.
        "server" => (name, expectations),
        _ => (name, expectations.for_version(&peer.version)),
    }))
}

/// Completes on Ctrl-C, when the process is told to end, and when its terminal goes away.
fn interruption() -> io::Result<impl Future<Output = ()>> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let mut hangups = signal(SignalKind::hangup())?;
    let mut quits = signal(SignalKind::quit())?;
    Ok(async move {
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terminations.recv() => {}
            _ = hangups.recv() => {}
            _ = quits.recv() => {}
        }
    })
}

/// Within 32 bits: every reader of JSON keeps these exactly.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() & u64::from(u32::MAX)
}

/// The process's command line, for a shell, without the password.
fn command_line() -> String {
    const PASSWORD: &str = "--password";
    let quoted = |argument: String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
        if !argument.is_empty() && argument.chars().all(plain) {
            return argument;
        }
        format!("'{}'", argument.replace('\'', r"'\''"))
    };
    let mut arguments: Vec<String> =
        env::args_os().map(|argument| quoted(argument.to_string_lossy().into_owned())).collect();
    // A report is kept, and shown to others.
    for place in 0..arguments.len() {
        if arguments[place] == PASSWORD {
            if let Some(value) = arguments.get_mut(place + 1) {
                "***".clone_into(value);
            }
        } else if arguments[place].trim_start_matches('\'').starts_with(&format!("{PASSWORD}=")) {
            arguments[place] = format!("{PASSWORD}=***");
        }
    }
    arguments.join(" ")
}

fn report_path(value: &str) -> Result<PathBuf, String> {
    match value.split_once('=') {
        Some(("json", "-")) => Err("a report is written to a file; /dev/stderr is one, too".to_owned()),
        Some(("json", path)) if !path.is_empty() => Ok(path.into()),
        _ => Err("a report is asked for as json=FILE".to_owned()),
    }
}

/// Not for clap to do: it would print the password.
fn check_password(password: Option<&str>) -> Result<(), Refusal> {
    match password.map_or(0, str::len) {
        0..=MAX_PASSWORD => Ok(()),
        length => {
            let message = format!("--password: it has {length} bytes, and servers take {MAX_PASSWORD} at most");
            Err(Refusal { exit: Exit::Usage, message })
        }
    }
}

fn time_scale(value: &str) -> Result<f64, String> {
    match value.parse() {
        Ok(scale) if (0.1..=100.0).contains(&scale) => Ok(scale),
        _ => Err("it is a number from 0.1 to 100".to_owned()),
    }
}

fn defect(name: &str) -> Result<Defect, String> {
    name.parse().map_err(|error| {
        let names: Vec<&str> = Defect::ALL.iter().map(|defect| defect.name()).collect();
        format!("{error}; there are: {}", names.join(", "))
    })
}

fn level_parser() -> impl TypedValueParser<Value = Level> {
    PossibleValuesParser::new(["must", "should", "observed"]).map(|name| match name.as_str() {
        "must" => Level::Must,
        "should" => Level::Should,
        _ => Level::Observed,
    })
}

fn report_refusal(path: &Path, error: &io::Error) -> Refusal {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory => {
            "; name a file in a folder that exists and can be written"
        }
        _ => "",
    };
    Refusal { exit: Exit::Usage, message: format!("--report json={}: {error}{remedy}", path.display()) }
}
