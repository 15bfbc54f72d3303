//! The reports for people.

use std::{
    collections::BTreeMap,
    env,
    fmt::{self, Write as _},
    io::{self, IsTerminal, Write},
    sync::OnceLock,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use owo_colors::{OwoColorize, Style};

use super::{Exit, Report, Violation};
use crate::{
    case::{Case, Failure, Level, Scheme, Stop},
    cases,
    context::Survey,
    expectation::{Expectations, Seen},
    registry::{Registry, Requirement},
    runner::{CaseResult, Outcome, Plan, Progress},
};

/// How many of the last lines of a failed case's trace are shown.
const TRACE_LINES: usize = 15;

/// How many inconclusive cases are told in detail: when there are more they tend to have one cause.
const INCONCLUSIVE_DETAILS: usize = 3;

/// How many cases are named of those in which the same was seen.
const NAMED: usize = 3;

/// How often the spinner of the progress bar turns.
const TICK: Duration = Duration::from_millis(100);

/// Tells about a run on the standard output while it goes on: a line for each case that ended, and on a terminal a bar.
pub struct Live {
    bar: ProgressBar,
    colours: bool,
    /// The cases that are being run.
    running: Vec<&'static str>,
    /// The length of the longest case id.
    width: usize,
}

impl Live {
    /// Prints the header: whom the run is about, and what is known of its deviations.
    #[must_use]
    pub fn new(peer: &Survey, seed: u64, plan: &Plan, known: Option<&str>) -> Self {
        let Survey { kind, name, version, .. } = peer;
        let count = plan.cases.len();
        print(&format!("{name} {version} ({kind}), seed {seed}, {}\n", counted(count, "case")));
        if let Some(known) = known {
            print(&format!("{known}\n"));
        }

        // Hidden unless the standard output is a terminal.
        let bar = ProgressBar::with_draw_target(Some(count as u64), ProgressDrawTarget::stdout());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {pos}/{len} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        let width = plan.cases.iter().map(|case| case.id.len()).max().unwrap_or_default();
        Self { bar, colours: colours(), running: Vec::new(), width }
    }

    /// Tells what happened to a case.
    pub fn observe(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Started(case) => self.running.push(&case.id),
            Progress::Ended(result) => {
                // With --repeat, it may go on elsewhere.
                if let Some(ended) = self.running.iter().position(|id| *id == result.case.id) {
                    self.running.remove(ended);
                }
                let line = line(result, self.width, self.colours);
                self.bar.suspend(|| print(&line));
                self.bar.inc(1);
            }
        }
        self.bar.set_message(self.running.join(" "));
    }

    /// Prints what is to be told of the cases that failed or were inconclusive, and the summary.
    pub fn finish(self, report: &Report, exit: Exit) {
        self.bar.finish_and_clear();
        // What has the same cause is named with the first of them, unless that was known and is not told.
        let first = |id: &str| report.run.results.iter().find(|result| result.case.id == id && !known(result));
        let told = |result: &&CaseResult| !known(result) && result.cause.and_then(first).is_none();
        let ended_as =
            |outcome| report.run.results.iter().filter(move |result| result.outcome() == outcome).filter(told);
        let inconclusive = ended_as(Outcome::Inconclusive).take(INCONCLUSIVE_DETAILS);
        for result in ended_as(Outcome::Fail).chain(inconclusive) {
            print(&details(result, self.colours));
            let alike: Vec<&str> = report
                .run
                .results
                .iter()
                .filter(|other| other.cause == Some(&result.case.id) && !known(other))
                .map(|other| other.case.id.as_ref())
                .collect();
            if !alike.is_empty() {
                print(&format!("  also in      {}\n", some_of(&alike)));
            }
        }
        let file = report.expected.as_ref().map_or("", |(file, _)| file);
        for (result, _) in report.stale() {
            print(&format!("\nSTALE {}\n  It passes. Remove its entry from {file}.\n", result.case.id));
        }
        for (result, Seen { requirement, .. }) in report.unseen() {
            let case = &result.case.id;
            print(&format!(
                "\nSTALE {case}\n  No violation of {requirement} is seen. Remove the case from its entry in {file}.\n"
            ));
        }
        for violation in report.violations() {
            print(&seen(&violation, self.colours));
        }
        print(&summary(report, exit));
    }
}

/// Writes to the standard output. That nobody reads it any more, as behind `| head`, is no reason to fail; another error is kept for
/// [`lost`].
pub fn print(text: &str) {
    let mut output = io::stdout().lock();
    if let Err(error) = output.write_all(text.as_bytes()).and_then(|()| output.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        // The first says enough.
        let _ = LOST.set(error);
    }
}

/// Why something could not be written to the standard output.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Why something that was printed could not be written.
#[must_use]
pub fn lost() -> Option<&'static io::Error> {
    LOST.get()
}

/// The list of cases, one line each.
#[must_use]
pub fn list(cases: &[&'static Case]) -> String {
    let requirements = |case: &Case| case.requirements.join(" ");
    let id_width = cases.iter().map(|case| case.id.len()).max().unwrap_or_default();
    let requirements_width = cases.iter().map(|case| requirements(case).len()).max().unwrap_or_default();
    let mut text = String::new();
    for case in cases {
        let (id, level, title, requirements) = (&case.id, case.level, &case.title, requirements(case));
        let _ = writeln!(text, "{id:id_width$}  {level:8}  server  {requirements:requirements_width$}  {title}");
    }
    text
}

/// All that is known of the case or requirement with this id.
#[must_use]
pub fn explain(id: &str) -> Option<String> {
    let case = cases::all().find(|case| case.id == id).map(explain_case);
    case.or_else(|| Registry::get().requirement(id).map(explain_requirement))
}

fn explain_case(case: &'static Case) -> String {
    let Case { id, title, level, sent, expected, requirements, .. } = case;
    let mut text = format!("{id}\n{title}.\n\n");
    let _ = writeln!(text, "level     {level}");
    let _ = writeln!(text, "subject   server");
    let _ = writeln!(text, "sent      {sent}");
    let _ = writeln!(text, "expected  {expected}");
    let level = if *level < Level::Should { format!(" --level {level}") } else { String::new() };
    let _ = writeln!(text, "run it    spice-conformance run{level} --filter {id}");
    if let Some(known) = known_of_spice_server(id) {
        let _ = writeln!(text, "known     {known}");
    }
    for id in *requirements {
        let Some(Requirement { level, role, statement, sources, .. }) = Registry::get().requirement(id) else {
            continue;
        };
        let _ = writeln!(text, "\nrequirement {id} ({level}, {role})\n  {statement}");
        for source in sources {
            let _ = writeln!(text, "  - {source}");
        }
    }
    text
}

/// How a case is known to end with spice-server, if not as it should.
fn known_of_spice_server(case: &str) -> Option<String> {
    let (_, expectations) = Expectations::of_spice_server("0.15.1")?;
    let known = expectations.of(case)?;
    Some(format!("with spice-server 0.15.1 (run --qemu): {}: {}", known.summary(), known.reason))
}

fn explain_requirement(requirement: &Requirement) -> String {
    let Requirement { id, level, role, statement, sources, note, status } = requirement;
    let mut text = format!("{id}\n{statement}\n\n");
    let _ = writeln!(text, "level     {level}");
    let _ = writeln!(text, "role      {role}");
    let _ = writeln!(text, "status    {status}");
    if let Some(note) = note {
        let _ = writeln!(text, "\nnote\n  {note}");
    }
    text.push_str("\nsources\n");
    for source in sources {
        let _ = writeln!(text, "  - {source}");
    }
    let mut judging = cases::all().filter(|case| case.requirements.contains(&id.as_str())).peekable();
    if judging.peek().is_some() {
        text.push_str("\ncases\n");
    }
    for case in judging {
        let _ = writeln!(text, "  - {}: {}", case.id, case.title);
    }
    text
}

/// Whether a case that did not pass was known not to.
fn known(result: &CaseResult) -> bool {
    !matches!(result.outcome(), Outcome::Pass | Outcome::NotApplicable)
        && result.deviation.is_some()
        && result.expected()
}

/// One line about a case that ended.
fn line(result: &CaseResult, width: usize, colours: bool) -> String {
    let outcome = format!("{:12}", result.outcome());
    let (id, took) = (&result.case.id, seconds(result.duration));
    let style = if known(result) { style(Outcome::NotApplicable, colours) } else { style(result.outcome(), colours) };
    let mut line = format!("{} {id:width$} {took:>8}", outcome.style(style));
    if let Some(deviation) = result.deviation.as_ref().filter(|_| known(result)) {
        let _ = write!(line, "  known: {}", deviation.reason);
        return line + "\n";
    }
    // A failure is told in detail at the end.
    if let (Outcome::NotApplicable | Outcome::Inconclusive, Some(reason)) = (result.outcome(), result.reason()) {
        let _ = write!(line, "  {reason}");
    }
    line + "\n"
}

/// What a reader needs to know about a case that failed or was inconclusive.
fn details(result: &CaseResult, colours: bool) -> String {
    let heading = format!("{} {}", result.outcome(), result.case.id);
    let mut text = format!("\n{}\n  {}.\n", heading.style(style(result.outcome(), colours)), result.case.title);
    for trouble in result.host_troubles() {
        let _ = writeln!(text, "  host         {trouble}");
    }
    if let Some(known) = result.deviation.as_ref().filter(|_| !known(result)) {
        let _ = writeln!(text, "  file says    {}: {}", known.summary(), known.reason);
    }
    if !result.resets.is_empty() {
        let _ = writeln!(text, "  reset        {}", result.resets.join(", "));
    }
    let requirements = match &result.verdict {
        Err(Stop::Fail(Failure { requirement, connection, expected, got })) => {
            let _ = writeln!(text, "  on           {connection}");
            let _ = writeln!(text, "  expected     {expected}");
            let _ = writeln!(text, "  got          {got}");
            std::slice::from_ref(requirement)
        }
        // Whatever it did, it must not die of it.
        _ if result.host_troubles().next().is_some() => result.case.requirements,
        _ => &[],
    };
    if let (&[], Some(reason)) = (requirements, result.reason()) {
        let _ = writeln!(text, "  because      {reason}");
    }
    for id in requirements {
        text += &statement(id);
    }
    let _ = writeln!(text, "  read more    spice-conformance explain {}", result.case.id);

    let shown = &result.trace[result.trace.len().saturating_sub(TRACE_LINES)..];
    let hidden = result.trace_before + result.trace.len() - shown.len();
    match (result.trace.len(), hidden) {
        (0, _) => {}
        (_, 0) => text.push_str("  trace\n"),
        _ => text += &format!("  trace, without its first {}\n", counted(hidden, "line")),
    }
    for entry in shown {
        let _ = writeln!(text, "    {entry}");
    }
    text
}

/// What a reader needs to know about a violation that was seen in cases about something else.
fn seen(violation: &Violation<'_>, colours: bool) -> String {
    let Violation { finding, cases, .. } = violation;
    let heading = format!("SEEN in {}", some_of(cases));
    format!(
        "\n{}\n  on           {}\n  expected     {}\n  got          {}\n{}  read more    spice-conformance explain {}\n",
        heading.style(style(Outcome::Fail, colours)),
        finding.connection,
        finding.expected,
        finding.got,
        statement(finding.requirement),
        finding.requirement,
    )
}

/// The first of these cases, and how many more there are.
fn some_of(cases: &[&str]) -> String {
    let (named, others) = cases.split_at(cases.len().min(NAMED));
    let mut text = named.join(", ");
    if !others.is_empty() {
        let _ = write!(text, " and {}", counted(others.len(), "other case"));
    }
    text
}

fn statement(id: &str) -> String {
    let Some(Requirement { level, statement, sources, .. }) = Registry::get().requirement(id) else {
        return String::new();
    };
    let mut text = format!("  requirement  {id} ({level}): {statement}\n");
    for source in sources {
        let _ = writeln!(text, "  see          {source}");
    }
    text
}

fn summary(report: &Report, exit: Exit) -> String {
    let mut text = format!(
        "\n{} passed, {} failed, {} not applicable, {} inconclusive in {}\n",
        report.count(Outcome::Pass),
        report.count(Outcome::Fail),
        report.count(Outcome::NotApplicable),
        report.count(Outcome::Inconclusive),
        seconds(report.elapsed),
    );
    let known = report.run.results.iter().filter(|result| known(result)).count();
    if known > 0 {
        let _ = writeln!(text, "{known} of them known beforehand");
    }
    let mut schemes: BTreeMap<&str, usize> = BTreeMap::new();
    for migration in report.run.results.iter().flat_map(|result| &result.migrations) {
        *schemes.entry(scheme_name(migration.scheme)).or_default() += 1;
    }
    if !schemes.is_empty() {
        let schemes: Vec<String> = schemes.iter().map(|(scheme, count)| format!("{count} {scheme}")).collect();
        let _ = writeln!(text, "migrations seen: {}", schemes.join(", "));
    }
    let resets: usize = report.run.results.iter().map(|result| result.resets.len()).sum();
    if resets > 0 {
        let _ = writeln!(text, "{} reset by a server, not closed", counted(resets, "connection"));
    }
    let left = report.selected - report.run.results.len();
    if left > 0 {
        let _ = writeln!(text, "{} not run to the end", counted(left, "case"));
    }
    let _ = writeln!(text, "{exit}");
    text
}

fn scheme_name(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Seamless => "seamless",
        Scheme::SemiSeamless => "semi-seamless",
        Scheme::SwitchHost => "switch-host",
        Scheme::Cancelled => "cancelled",
        Scheme::Failed => "failed",
    }
}

fn style(outcome: Outcome, colours: bool) -> Style {
    match outcome {
        _ if !colours => Style::new(),
        Outcome::Pass => Style::new().green(),
        Outcome::Fail => Style::new().red().bold(),
        Outcome::NotApplicable => Style::new().dimmed(),
        Outcome::Inconclusive => Style::new().yellow().bold(),
    }
}

/// Whether the standard output shows colours and its user wants them (no-color.org).
fn colours() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn counted(count: usize, what: impl fmt::Display) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
