//! Known deviations of a peer: a file says which cases do not pass, how, and why.
//!
//! ```toml
//! [[deviation]]
//! case = "link/channel/unknown"
//! outcome = "fail"
//! requirement = "L6.2"
//! version = "0.15.1"
//! reason = "the channel is looked up for the reply's capabilities, which there are none of"
//!
//! [[deviation]]
//! case = "malformed/values/port-compressed-data"
//! outcome = "fail"
//! requirement = "M5.7"
//! version = "0.15.1"
//! liveness = "exited"
//! signal = 5
//! host = "source"
//! reason = "the size is taken as an int: 2^31 becomes negative, and g_malloc ends the process"
//!
//! [[seen]]
//! requirement = "S8.1"
//! version = "0.15.1"
//! sometimes = true
//! reason = "ATTACH_CHANNELS is answered after MIGRATE, too"
//! cases = ["message/migrating/main-attach-channels", "message/flushed/main-attach-channels"]
//! ```
//!
//! Ids are exact: patterns are refused, and so is an id that no case has. A `[[deviation]]` is about one case, and a version has one
//! for it at most. Its `requirement` is the one that the case fails for; nothing compares that where the case is inconclusive, or
//! fails for nothing but the death of its host.
//!
//! If `liveness` is set, a host must have ended in exactly that way: `unresponsive` or `exited`, and if `signal` is set, too, by that
//! signal; nothing but `exited` goes with one. If it is not, all hosts must be alive, unless the entry holds `sometimes`. If `host` is
//! set, no other host may have ended. Where several have, each of them must have done so in the way that the entry says.
//!
//! Where `version` is given, an entry holds for peers of that version alone. Of a server that runs already no version is known: every
//! entry of the file holds for it.
//!
//! An entry whose case passes is stale, and fails the run until it is removed; one that holds `sometimes`, because it hangs on a race or
//! on what lies in memory, never is.
//!
//! A `[[seen]]` entry is about what the observer sees in cases that are about something else: the requirement, the reason, and the
//! cases. It, too, is stale where it is not seen.

use std::{collections::BTreeSet, fs, path::Path};

use serde::Deserialize;

use crate::{
    case::{Failure, Stop},
    cases,
    context::Place,
    registry::Registry,
    runner::{CaseResult, Outcome},
    subject::Liveness,
};

/// The deviations of spice-server 0.15.1, as far as the suite has found them.
const SPICE_SERVER_0_15_1: &str = include_str!("../expectations/spice-server-0.15.1.toml");

/// What is known of a peer's deviations.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectations {
    /// One for each case that does not pass.
    #[serde(default, rename = "deviation")]
    pub deviations: Vec<Deviation>,
    /// What the observer sees in cases about something else.
    #[serde(default)]
    pub seen: Vec<Seen>,
}

/// A requirement that is known to be violated in cases about something else.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// The requirement that is violated.
    pub requirement: String,
    /// Why.
    pub reason: String,
    /// The ids of the cases.
    pub cases: BTreeSet<String>,
    /// The version of the peer that does it; every version if not given.
    pub version: Option<String>,
    /// Whether it is not seen at times.
    #[serde(default)]
    pub sometimes: bool,
}

/// How a case is known not to pass.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Deviation {
    /// The case's id.
    pub case: String,
    /// How it ends.
    pub outcome: Outcome,
    /// The requirement that is violated.
    pub requirement: String,
    /// Why.
    pub reason: String,
    /// The version of the peer that deviates; every version if not given.
    pub version: Option<String>,
    /// How a host ends up. If not given: alive; and with `sometimes`, in any way.
    pub liveness: Option<Ended>,
    /// The signal that ends a host.
    pub signal: Option<i32>,
    /// Which host. If not given: any.
    pub host: Option<Place>,
    /// Whether it also passes at times.
    #[serde(default)]
    pub sometimes: bool,
}

/// How a host is that does not serve any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// It does not answer.
    Unresponsive,
    /// Its process has exited.
    Exited,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExpectationError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It is not as described above.
    #[error(transparent)]
    Parse(#[from] toml::de::Error),
    /// It names a case that there is none of.
    #[error("no case has the id `{0}`")]
    UnknownCase(String),
    /// It names a requirement that there is none of.
    #[error("`{0}`: no requirement has the id `{1}`")]
    UnknownRequirement(String, String),
    /// It has an entry for a case that passes.
    #[error("`{0}`: a case that passes needs no entry")]
    Pass(String),
    /// It does not say why.
    #[error("`{0}` has no reason")]
    NoReason(String),
    /// It has two entries for a case.
    #[error("`{0}` is there twice for one version")]
    Twice(String),
    /// It names a host for a case that is to end none.
    #[error("`{0}` has a host: add liveness = \"exited\" or \"unresponsive\"")]
    Host(String),
    /// It has a `[[seen]]` entry without cases.
    #[error("a [[seen]] entry has no cases")]
    SeenNowhere,
    /// It has a signal for a case that is not to end a host.
    #[error("`{0}` has a signal: add liveness = \"exited\"")]
    Signal(String),
}

impl Expectations {
    /// Those that the suite carries for a version of spice-server, and the name of their file.
    #[must_use]
    pub fn of_spice_server(version: &str) -> Option<(&'static str, Self)> {
        let (name, text) = match version {
            "0.15.1" => ("expectations/spice-server-0.15.1.toml", SPICE_SERVER_0_15_1),
            _ => return None,
        };
        // The file is part of the program, and a test parses it.
        Some((name, Self::parse(text).expect("the suite's own expectations are well-formed")))
    }

    /// Those of a file.
    ///
    /// # Errors
    /// When it cannot be read, or says what cannot be.
    pub fn read(path: &Path) -> Result<Self, ExpectationError> {
        Self::parse(&fs::read_to_string(path)?)
    }

    fn parse(text: &str) -> Result<Self, ExpectationError> {
        let expectations: Self = toml::from_str(text)?;
        let mut seen = BTreeSet::new();
        let named = expectations.deviations.iter().map(|deviation| &deviation.case);
        for case in named.chain(expectations.seen.iter().flat_map(|seen| &seen.cases)) {
            if !cases::all().any(|known| known.id == *case) {
                return Err(ExpectationError::UnknownCase(case.clone()));
            }
        }
        let stated = expectations.deviations.iter().map(|entry| (&entry.case, &entry.requirement, &entry.reason));
        let also = expectations
            .seen
            .iter()
            .flat_map(|entry| entry.cases.first().map(|case| (case, &entry.requirement, &entry.reason)));
        if expectations.seen.iter().any(|entry| entry.cases.is_empty()) {
            return Err(ExpectationError::SeenNowhere);
        }
        for (case, requirement, reason) in stated.chain(also) {
            if Registry::get().requirement(requirement).is_none() {
                return Err(ExpectationError::UnknownRequirement(case.clone(), requirement.clone()));
            }
            if reason.trim().is_empty() {
                return Err(ExpectationError::NoReason(case.clone()));
            }
        }
        for Deviation { case, outcome, version, liveness, signal, host, sometimes, .. } in &expectations.deviations {
            if *outcome == Outcome::Pass {
                return Err(ExpectationError::Pass(case.clone()));
            }
            if host.is_some() && liveness.is_none() && !sometimes {
                return Err(ExpectationError::Host(case.clone()));
            }
            if !seen.insert((case, version)) {
                return Err(ExpectationError::Twice(case.clone()));
            }
            if signal.is_some() && *liveness != Some(Ended::Exited) {
                return Err(ExpectationError::Signal(case.clone()));
            }
        }
        Ok(expectations)
    }

    /// Without those that hold for other versions.
    #[must_use]
    pub fn for_version(mut self, version: &str) -> Self {
        let holds = |of: &Option<String>| of.as_deref().is_none_or(|of| of == version);
        self.deviations.retain(|deviation| holds(&deviation.version));
        self.seen.retain(|seen| holds(&seen.version));
        self
    }

    /// The one about a case.
    #[must_use]
    pub fn of(&self, case: &str) -> Option<&Deviation> {
        self.deviations.iter().find(|deviation| deviation.case == case)
    }

    /// What is known to be seen in a case that is about something else.
    pub fn seen_in(&self, case: &str) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(move |seen| seen.cases.contains(case))
    }
}

impl Deviation {
    /// How the case ends, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let Self { outcome, requirement, liveness, signal, sometimes, .. } = self;
        let sometimes = if *sometimes { ", at times" } else { "" };
        let host = self.host.map_or("a host", Place::name);
        let ended = match (liveness, signal) {
            (Some(Ended::Exited), Some(signal)) => format!(", and signal {signal} ends {host}"),
            (Some(Ended::Exited), None) => format!(", and {host} ends"),
            (Some(Ended::Unresponsive), _) => format!(", and {host} hangs"),
            (None, _) => String::new(),
        };
        format!("{outcome} for {requirement}{ended}{sometimes}")
    }

    /// Whether a case ended as it says.
    #[must_use]
    pub fn is_met_by(&self, result: &CaseResult) -> bool {
        let violated = match &result.verdict {
            Err(Stop::Fail(Failure { requirement, .. })) => *requirement == self.requirement,
            // A host that has died says enough.
            _ => true,
        };
        let ended = |liveness: &Liveness| match liveness {
            Liveness::Alive => None,
            Liveness::Unresponsive(_) => Some((Ended::Unresponsive, None)),
            Liveness::Exited { signal, .. } => Some((Ended::Exited, *signal)),
        };
        let ends = result.liveness.iter().filter_map(|(host, liveness)| Some((host, ended(liveness)?)));
        let ends: Vec<_> = ends.collect();
        let named = ends.iter().all(|(host, _)| self.host.is_none_or(|named| named.name() == *host));
        let liveness = match self.liveness {
            None => self.sometimes || ends.is_empty(),
            Some(expected) => {
                let as_said = |(how, signal)| how == expected && (self.signal.is_none() || signal == self.signal);
                !ends.is_empty() && ends.iter().all(|(_, end)| as_said(*end))
            }
        };
        result.outcome() == self.outcome && violated && named && liveness
    }

    /// Whether a case shows that it does not hold any more.
    #[must_use]
    pub fn is_stale(&self, result: &CaseResult) -> bool {
        !self.sometimes && result.outcome() == Outcome::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str =
        "[[deviation]]\ncase = 'link/channel/unknown'\noutcome = 'fail'\nrequirement = 'L6.2'\nreason = 'so'\n";

    #[test]
    fn the_expectations_that_the_suite_carries_are_well_formed() {
        let (_, expectations) = Expectations::of_spice_server("0.15.1").unwrap();
        assert!(!expectations.deviations.is_empty() && !expectations.seen.is_empty());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let error = |text: &str| Expectations::parse(text).unwrap_err().to_string();
        assert_eq!(error(&ENTRY.replace("unknown", "*")), "no case has the id `link/channel/*`");
        let seen = "[[seen]]\nrequirement = 'P1'\nreason = 'so'\ncases = ['link/channel/other']\n";
        assert_eq!(error(seen), "no case has the id `link/channel/other`");
        assert_eq!(error(&[ENTRY, ENTRY].concat()), "`link/channel/unknown` is there twice for one version");
        let signal = "`link/channel/unknown` has a signal: add liveness = \"exited\"";
        assert_eq!(error(&format!("{ENTRY}signal = 5\n")), signal);
        assert_eq!(error(&format!("{ENTRY}liveness = 'unresponsive'\nsignal = 5\n")), signal);
        assert!(error(&ENTRY.replace("reason", "because")).contains("because"));
        let unknown = "`link/channel/unknown`: no requirement has the id `L77.2`";
        assert_eq!(error(&ENTRY.replace("L6.2", "L77.2")), unknown);
        assert_eq!(error(&ENTRY.replace("'so'", "' '")), "`link/channel/unknown` has no reason");
        let passes = "`link/channel/unknown`: a case that passes needs no entry";
        assert_eq!(error(&ENTRY.replace("'fail'", "'pass'")), passes);
        let hosts = error(&format!("{ENTRY}host = 'goal'\n"));
        assert!(hosts.contains("expected one of `source`, `target`, `third`"), "{hosts}");
        let host = "`link/channel/unknown` has a host: add liveness = \"exited\" or \"unresponsive\"";
        assert_eq!(error(&format!("{ENTRY}host = 'source'\n")), host);
        let nowhere = "[[seen]]\nrequirement = 'X99'\nreason = 'so'\ncases = []\n";
        assert_eq!(error(nowhere), "a [[seen]] entry has no cases");
        assert!(matches!(Expectations::read("/nonexistent".as_ref()), Err(ExpectationError::Read(_))));
    }

    #[test]
    fn an_entry_holds_for_its_version_alone() {
        let text = format!("{ENTRY}version = '0.15.1'\n");
        let of =
            |version| Expectations::parse(&text).unwrap().for_version(version).of("link/channel/unknown").is_some();
        assert!(of("0.15.1") && !of("0.15.2"));
    }

    #[test]
    fn a_case_meets_its_entry_when_outcome_requirement_and_liveness_are_as_it_says() {
        let case = cases::all().find(|case| case.id == "link/channel/unknown").unwrap();
        let fail = |requirement| {
            let [connection, expected, got] = [const { String::new() }; 3];
            CaseResult {
                verdict: Err(Stop::Fail(Failure { requirement, connection, expected, got })),
                ..CaseResult::new(case)
            }
        };
        let end = |host: &str, signal| {
            (host.to_owned(), Liveness::Exited { code: None, signal: Some(signal), printed: String::new() })
        };
        let dead = |signal| CaseResult { liveness: vec![end("source", signal)], ..CaseResult::new(case) };
        let both = CaseResult { liveness: vec![end("source", 11), end("target", 6)], ..CaseResult::new(case) };
        let entry = Expectations::parse(ENTRY).unwrap().deviations.remove(0);
        let crash = Deviation { liveness: Some(Ended::Exited), signal: Some(11), ..entry.clone() };
        let hang = Deviation { liveness: Some(Ended::Unresponsive), ..entry.clone() };

        assert!(entry.is_met_by(&fail("L6.2")));
        assert!(!entry.is_met_by(&fail("L6.1")), "another failure");
        assert!(!entry.is_met_by(&dead(11)), "worse than expected");
        assert!(crash.is_met_by(&dead(11)) && !crash.is_met_by(&dead(6)) && !crash.is_met_by(&fail("L6.2")));
        assert!(!crash.is_met_by(&both), "another host ended, too");
        let on = |host: Place| Deviation { host: Some(host), ..crash.clone() };
        assert!(on(Place::Source).is_met_by(&dead(11)) && !on(Place::Target).is_met_by(&dead(11)));
        let at_times = |host: Place| Deviation { liveness: None, signal: None, sometimes: true, ..on(host) };
        assert!(at_times(Place::Source).is_met_by(&dead(6)) && !at_times(Place::Target).is_met_by(&dead(6)));
        assert!(!hang.is_met_by(&dead(11)));
        assert!(entry.is_stale(&CaseResult::new(case)) && !entry.is_stale(&fail("L6.1")));
        assert!(!Deviation { sometimes: true, ..entry }.is_stale(&CaseResult::new(case)));
    }
}
