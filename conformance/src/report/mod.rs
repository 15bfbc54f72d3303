//! What a run is reported as, to people and to programs.

pub mod json;
pub mod requirements;
pub mod text;

use std::{collections::BTreeMap, fmt, process::ExitCode, time::Duration};

use crate::{
    case::Level,
    context::Survey,
    expectation::{Deviation, Expectations, Seen},
    registry::Registry,
    runner::{CaseResult, Outcome, Run},
    trace::Finding,
};

/// All that is known of a run when it is over.
#[derive(Debug)]
pub struct Report {
    /// The command line that started it.
    pub command: String,
    /// What its random choices came from.
    pub seed: u64,
    /// What was known of the peer beforehand.
    pub peer: Survey,
    /// What was known of its deviations, and from where.
    pub expected: Option<(String, Expectations)>,
    /// How many cases were to be run.
    pub selected: usize,
    /// What became of them.
    pub run: Run,
    /// How long it took.
    pub elapsed: Duration,
}

impl Report {
    /// How many cases had an outcome.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        self.run.results.iter().filter(|result| result.outcome() == outcome).count()
    }

    /// The cases whose outcome is not as expected, without those that are better.
    pub fn unexpected(&self) -> impl Iterator<Item = &CaseResult> {
        self.run.results.iter().filter(|result| !result.expected() && result.stale().is_none())
    }

    /// The cases that show that a known deviation is gone, and which.
    pub fn stale(&self) -> impl Iterator<Item = (&CaseResult, &Deviation)> {
        self.run.results.iter().filter_map(|result| Some((result, result.stale()?)))
    }

    /// What is known to be seen in cases about something else, and was not where it should have been.
    pub fn unseen(&self) -> impl Iterator<Item = (&CaseResult, &Seen)> {
        let results = self.run.results.iter();
        let judged = results.filter(|result| result.outcome() != Outcome::NotApplicable);
        let known = judged.flat_map(|result| self.seen_in(result).map(move |seen| (result, seen)));
        known.filter(|(result, seen)| !seen.sometimes && !result.sees(&seen.requirement))
    }

    fn seen_in(&self, result: &CaseResult) -> impl Iterator<Item = &Seen> {
        self.expected.iter().flat_map(|(_, expectations)| expectations.seen_in(&result.case.id))
    }

    /// What the observer saw servers violate in cases that did not fail for it, and that is not known of them: one violation of each
    /// requirement, by their ids, and the cases in which it was seen.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation<'_>> {
        let mut violations = BTreeMap::new();
        for result in &self.run.results {
            for finding in &result.findings {
                let known = self.seen_in(result).any(|seen| seen.requirement == finding.requirement);
                if known || result.failed_for() == Some(finding.requirement) {
                    continue;
                }
                let level = Registry::get().requirement(finding.requirement).map_or(Level::Must, |found| found.level);
                let violation = violations.entry(finding.requirement);
                let violation = violation.or_insert_with(|| Violation { finding, level, cases: Vec::new() });
                violation.cases.push(&result.case.id);
                violation.cases.dedup();
            }
        }
        violations.into_values().collect()
    }

    /// How many outcomes and violations are not as expected.
    #[must_use]
    pub fn unexpected_count(&self) -> usize {
        let violations = self.violations();
        self.unexpected().count() + violations.iter().filter(|violation| violation.level > Level::Observed).count()
    }

    /// How the process is to end.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if self.run.interrupted {
            Exit::Interrupted
        } else if self.run.results.iter().any(|result| result.bug) {
            Exit::SuiteBug
        } else if self.unexpected_count() > 0 {
            Exit::Unexpected
        } else if self.stale().next().is_some() || self.unseen().next().is_some() {
            Exit::Stale
        } else if self.count(Outcome::Pass) + self.count(Outcome::Fail) == 0 {
            Exit::NothingJudged
        } else {
            Exit::AsExpected
        }
    }
}

/// A violation that was seen in cases which are about something else.
#[derive(Debug)]
pub struct Violation<'a> {
    /// What was seen first.
    pub finding: &'a Finding,
    /// How strict the requirement is.
    pub level: Level,
    /// The cases in which it was seen.
    pub cases: Vec<&'static str>,
}

/// How the process ends; the discriminants are its exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// At least one case was judged, and every outcome was as expected.
    AsExpected = 0,
    /// A case failed or was inconclusive, or a violation was seen beside the cases.
    Unexpected = 1,
    /// The command line cannot be carried out.
    Usage = 2,
    /// The peer could not be reached or started.
    PeerUnreachable = 3,
    /// No case was judged.
    NothingJudged = 4,
    /// A known deviation is gone.
    Stale = 5,
    /// The suite itself has a bug.
    SuiteBug = 70,
    /// Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self {
            Self::AsExpected => "every outcome is as expected",
            Self::Unexpected => "a case failed or was inconclusive, or a violation was seen beside the cases",
            Self::Usage => "the command line cannot be carried out",
            Self::PeerUnreachable => "the peer could not be reached or started",
            Self::NothingJudged => "no case was judged",
            Self::Stale => "a known deviation is gone; remove it from the file",
            Self::SuiteBug => "the suite itself has a bug; please report it",
            Self::Interrupted => "interrupted",
        };
        write!(formatter, "exit code {}: {meaning}", *self as u8)
    }
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, future::ready};

    use super::*;
    use crate::case::{Case, Failure, Stop};

    fn case(level: Level) -> &'static Case {
        let [title, sent, expected] = [const { Cow::Borrowed("") }; 3];
        let (id, run) = ("group/case".into(), crate::case::run(|_| Box::pin(ready(Ok(())))));
        Box::leak(Box::new(Case { id, title, requirements: &[], level, sent, expected, waits: false, run }))
    }

    fn pass() -> CaseResult {
        CaseResult::new(case(Level::Must))
    }

    fn report(results: Vec<CaseResult>, interrupted: bool) -> Report {
        let peer = Survey { kind: "embedded", name: String::new(), version: String::new(), capabilities: Vec::new() };
        let run = Run { results, interrupted };
        Report { command: String::new(), seed: 0, peer, expected: None, selected: 0, run, elapsed: Duration::ZERO }
    }

    fn seen(requirement: &'static str) -> CaseResult {
        let [connection, expected, got] = [const { String::new() }; 3];
        CaseResult { findings: vec![Finding { requirement, connection, expected, got }], ..pass() }
    }

    fn failed(requirement: &'static str) -> CaseResult {
        let [connection, expected, got] = [const { String::new() }; 3];
        let verdict = Err(Stop::Fail(Failure { requirement, connection, expected, got }));
        CaseResult { verdict, ..pass() }
    }

    fn deviation(requirement: &str) -> Deviation {
        let [case, reason] = [const { String::new() }; 2];
        let (outcome, requirement) = (Outcome::Fail, requirement.to_owned());
        Deviation {
            case,
            outcome,
            requirement,
            reason,
            version: None,
            liveness: None,
            signal: None,
            host: None,
            sometimes: false,
        }
    }

    fn known_seen(case: &str, requirement: &str) -> Seen {
        let (cases, requirement) = ([case.to_owned()].into(), requirement.to_owned());
        Seen { requirement, reason: String::new(), cases, version: None, sometimes: false }
    }

    #[test]
    fn the_exit_code_follows_from_the_outcomes() {
        let inconclusive =
            |level| CaseResult { verdict: Err(Stop::Inconclusive(String::new())), ..CaseResult::new(case(level)) };
        let not_applicable = || CaseResult { verdict: Err(Stop::NotApplicable(String::new())), ..pass() };
        let bug = || CaseResult { bug: true, ..inconclusive(Level::Must) };
        let exit = |results, interrupted| report(results, interrupted).exit();

        assert_eq!(exit(vec![pass(), not_applicable()], false), Exit::AsExpected);
        assert_eq!(exit(vec![pass(), inconclusive(Level::Observed)], false), Exit::AsExpected);
        assert_eq!(exit(vec![pass(), inconclusive(Level::Must)], false), Exit::Unexpected);
        assert_eq!(exit(vec![inconclusive(Level::Must)], false), Exit::Unexpected);
        assert_eq!(exit(vec![not_applicable(), inconclusive(Level::Observed)], false), Exit::NothingJudged);
        assert_eq!(exit(vec![inconclusive(Level::Must), bug(), pass()], false), Exit::SuiteBug);
        assert_eq!(exit(vec![pass()], true), Exit::Interrupted);
        let known = |result| CaseResult { deviation: Some(deviation("S8.1")), ..result };
        assert_eq!(exit(vec![known(failed("S8.1")), pass()], false), Exit::AsExpected);
        assert_eq!(exit(vec![known(failed("S8.2")), pass()], false), Exit::Unexpected, "another one than was known");
        assert_eq!(exit(vec![known(pass())], false), Exit::Stale);
        assert_eq!(exit(vec![known(pass()), failed("S8.1")], false), Exit::Unexpected);
        assert_eq!(exit(vec![pass(), seen("S8.1")], false), Exit::Unexpected);
        assert_eq!(exit(vec![pass(), seen("L2.3")], false), Exit::AsExpected, "observed requirements are no demands");
    }

    #[test]
    fn a_violation_is_told_once_and_not_where_the_case_failed_for_it() {
        let failed_and_seen = CaseResult { findings: seen("S8.1").findings, ..failed("S8.1") };
        let report = report(vec![seen("Q1"), failed_and_seen, seen("Q1")], false);
        let violations = report.violations();
        let told: Vec<_> = violations.iter().map(|told| (told.finding.requirement, &told.cases[..])).collect();
        // Both results are of the same case.
        assert_eq!(told, [("Q1", &["group/case"][..])]);
        assert_eq!(report.unexpected_count(), 2, "the failed case, and the violation");

        let known = |case: &str, requirement: &str| {
            Some((String::new(), Expectations { deviations: Vec::new(), seen: vec![known_seen(case, requirement)] }))
        };
        let mut report = Report { expected: known("group/case", "Q1"), ..report };
        assert!(report.violations().is_empty());
        report.expected = known("group/other", "Q1");
        assert_eq!(report.violations().len(), 1, "known of another case");
    }

    #[test]
    fn what_was_known_to_be_seen_and_is_not_is_stale() {
        let known = |sometimes| {
            let seen = vec![Seen { sometimes, ..known_seen("group/case", "Q1") }];
            Some((String::new(), Expectations { deviations: Vec::new(), seen }))
        };
        let exit = |expected, result| Report { expected, ..report(vec![result], false) }.exit();
        assert_eq!(exit(known(false), seen("Q1")), Exit::AsExpected);
        assert_eq!(exit(known(false), pass()), Exit::Stale);
        assert_eq!(exit(known(true), pass()), Exit::AsExpected);
    }
}
