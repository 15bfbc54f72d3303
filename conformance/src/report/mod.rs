//! What a run is reported as, to people and to programs.

pub mod json;
pub mod text;

use std::{fmt, process::ExitCode, time::Duration};

use crate::{
    context::Survey,
    runner::{CaseResult, Outcome, Run},
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

    /// The cases whose outcome is not as expected.
    pub fn unexpected(&self) -> impl Iterator<Item = &CaseResult> {
        self.run.results.iter().filter(|result| !result.expected())
    }

    /// How the process is to end.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if self.run.interrupted {
            Exit::Interrupted
        } else if self.run.results.iter().any(|result| result.bug) {
            Exit::SuiteBug
        } else if self.unexpected().next().is_some() {
            Exit::Unexpected
        } else if self.count(Outcome::Pass) + self.count(Outcome::Fail) == 0 {
            Exit::NothingJudged
        } else {
            Exit::AsExpected
        }
    }
}

/// How the process ends; the discriminants are its exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// At least one case was judged, and every outcome was as expected.
    AsExpected = 0,
    /// A case failed or was inconclusive.
    Unexpected = 1,
    /// The command line cannot be carried out.
    Usage = 2,
    /// The peer could not be reached or started.
    PeerUnreachable = 3,
    /// No case was judged.
    NothingJudged = 4,
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
            Self::Unexpected => "a case failed or was inconclusive",
            Self::Usage => "the command line cannot be carried out",
            Self::PeerUnreachable => "the peer could not be reached or started",
            Self::NothingJudged => "no case was judged",
            Self::SuiteBug => "the suite itself has a bug; please report it",
            Self::Interrupted => "interrupted",
        };
        write!(formatter, "exit code {}: {meaning}", *self as u8)
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::case::{Case, Level, Stop};

    const CASE: Case = Case {
        id: "group/case",
        title: "",
        requirements: &[],
        level: Level::Must,
        sent: "",
        expected: "",
        run: |_| Box::pin(ready(Ok(()))),
    };
    const OBSERVED: Case = Case { level: Level::Observed, ..CASE };

    #[test]
    fn the_exit_code_follows_from_the_outcomes() {
        let pass = || CaseResult::new(&CASE);
        let inconclusive =
            |case| CaseResult { verdict: Err(Stop::Inconclusive(String::new())), ..CaseResult::new(case) };
        let not_applicable = || CaseResult { verdict: Err(Stop::NotApplicable(String::new())), ..pass() };
        let bug = || CaseResult { bug: true, ..inconclusive(&CASE) };
        let exit = |results, interrupted| {
            let peer =
                Survey { kind: "embedded", name: String::new(), version: String::new(), capabilities: Vec::new() };
            let run = Run { results, interrupted };
            Report { command: String::new(), seed: 0, peer, selected: 0, run, elapsed: Duration::ZERO }.exit()
        };

        assert_eq!(exit(vec![pass(), not_applicable()], false), Exit::AsExpected);
        assert_eq!(exit(vec![pass(), inconclusive(&OBSERVED)], false), Exit::AsExpected);
        assert_eq!(exit(vec![pass(), inconclusive(&CASE)], false), Exit::Unexpected);
        assert_eq!(exit(vec![inconclusive(&CASE)], false), Exit::Unexpected);
        assert_eq!(exit(vec![not_applicable(), inconclusive(&OBSERVED)], false), Exit::NothingJudged);
        assert_eq!(exit(vec![inconclusive(&CASE), bug(), pass()], false), Exit::SuiteBug);
        assert_eq!(exit(vec![pass()], true), Exit::Interrupted);
    }
}
