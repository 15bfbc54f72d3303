//! The report for programs: one JSON document, schema 1. Its fields are a contract.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde::Serialize;

use super::{Report, Violation};
use crate::{
    case::{Case, Level, Migration, Scheme},
    context::Survey,
    runner::{CaseResult, Outcome},
    subject::Liveness,
    trace::Finding,
};

/// What the cases are about. All of today's are about servers.
const SUBJECT: &str = "server";

/// Writes a run's report.
///
/// # Errors
/// When the writer fails.
pub fn write(report: &Report, mut to: impl Write) -> io::Result<()> {
    let results = &report.run.results;
    let document = Document {
        schema: 1,
        tool: Tool {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            seed: report.seed,
            command: &report.command,
        },
        peer: &report.peer,
        cases: results.iter().map(CaseEntry::new).collect(),
        migrations: results
            .iter()
            .flat_map(|result| {
                result.migrations.iter().map(|migration| MigrationEntry::new(&result.case.id, migration))
            })
            .collect(),
        seen: report.violations().iter().map(SeenEntry::new).collect(),
        stale: report
            .stale()
            .map(|(result, deviation)| (result, &deviation.requirement))
            .chain(report.unseen().map(|(result, seen)| (result, &seen.requirement)))
            .map(|(result, requirement)| StaleEntry { case: &result.case.id, requirement })
            .collect(),
        summary: Summary {
            passed: report.count(Outcome::Pass),
            failed: report.count(Outcome::Fail),
            not_applicable: report.count(Outcome::NotApplicable),
            inconclusive: report.count(Outcome::Inconclusive),
            unexpected: report.unexpected_count(),
        },
    };
    serde_json::to_writer_pretty(&mut to, &document)?;
    to.write_all(b"\n")?;
    // What is still in a buffer can fail, too.
    to.flush()
}

/// The list of cases: an array of objects.
#[must_use]
pub fn list(cases: &[&'static Case]) -> String {
    let entries: Vec<ListEntry> = cases.iter().map(|case| ListEntry::new(case)).collect();
    // Strings and lists only: nothing that JSON cannot hold.
    serde_json::to_string_pretty(&entries).unwrap_or_default() + "\n"
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    tool: Tool<'a>,
    peer: &'a Survey,
    cases: Vec<CaseEntry>,
    migrations: Vec<MigrationEntry>,
    seen: Vec<SeenEntry<'a>>,
    stale: Vec<StaleEntry<'a>>,
    summary: Summary,
}

#[derive(Serialize)]
struct Tool<'a> {
    name: &'static str,
    version: &'static str,
    seed: u64,
    command: &'a str,
}

#[derive(Serialize)]
struct ListEntry {
    id: &'static str,
    title: &'static str,
    subject: &'static str,
    level: Level,
    requirements: &'static [&'static str],
}

impl ListEntry {
    fn new(case: &'static Case) -> Self {
        let Case { id, title, level, requirements, .. } = case;
        Self { id, title, subject: SUBJECT, level: *level, requirements }
    }
}

#[derive(Serialize)]
struct CaseEntry {
    #[serde(flatten)]
    case: ListEntry,
    outcome: Outcome,
    expected: bool,
    reason: Option<String>,
    duration_ms: u64,
    liveness: LivenessEntry,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resets: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_status: Option<ExitStatus>,
}

impl CaseEntry {
    fn new(result: &CaseResult) -> Self {
        let mut liveness = LivenessEntry::default();
        let mut exit_status = None;
        for (host, state) in &result.liveness {
            // A chain of migrations has a third host: a target, too.
            let (party, entry) = match host.as_str() {
                "source" => ("source", &mut liveness.source),
                _ => ("target", &mut liveness.target),
            };
            let state = match *state {
                Liveness::Alive => State::Alive,
                Liveness::Unresponsive(_) => State::Unresponsive,
                Liveness::Exited { code, signal, .. } => {
                    exit_status.get_or_insert(ExitStatus { party, code, signal });
                    State::Exited
                }
            };
            *entry = (*entry).max(Some(state));
        }
        Self {
            case: ListEntry::new(result.case),
            outcome: result.outcome(),
            expected: result.expected(),
            reason: result.reason(),
            duration_ms: u64::try_from(result.duration.as_millis()).unwrap_or(u64::MAX),
            liveness,
            resets: result.resets.clone(),
            exit_status,
        }
    }
}

#[derive(Default, Serialize)]
struct LivenessEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<State>,
}

/// From good to bad.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Alive,
    Unresponsive,
    Exited,
}

#[derive(Serialize)]
struct ExitStatus {
    party: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
}

#[derive(Serialize)]
struct MigrationEntry {
    case: &'static str,
    scheme: Scheme,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_blackout_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guest_downtime_ms: Option<f64>,
}

impl MigrationEntry {
    fn new(case: &'static str, migration: &Migration) -> Self {
        // To the microsecond; more would be noise.
        let milliseconds = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
        Self {
            case,
            scheme: migration.scheme,
            client_blackout_ms: migration.client_blackout.map(milliseconds),
            guest_downtime_ms: migration.guest_downtime.map(milliseconds),
        }
    }
}

/// A violation that was seen in cases about something else.
#[derive(Serialize)]
struct SeenEntry<'a> {
    requirement: &'static str,
    level: Level,
    connection: &'a str,
    expected: &'a str,
    got: &'a str,
    cases: Vec<&'static str>,
}

impl<'a> SeenEntry<'a> {
    fn new(violation: &Violation<'a>) -> Self {
        let Finding { requirement, connection, expected, got } = violation.finding;
        Self { requirement, level: violation.level, connection, expected, got, cases: violation.cases.clone() }
    }
}

/// A known deviation that is gone: from a case that passes, or from what is seen in one.
#[derive(Serialize)]
struct StaleEntry<'a> {
    case: &'static str,
    requirement: &'a str,
}

#[derive(Serialize)]
struct Summary {
    passed: usize,
    failed: usize,
    not_applicable: usize,
    inconclusive: usize,
    unexpected: usize,
}
