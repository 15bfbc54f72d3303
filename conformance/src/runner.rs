//! Runs cases against a subject and judges how each ended.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::Future,
    num::NonZeroUsize,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

use crate::{
    case::{Case, Context, Failure, Level, Migration, Stop, Verdict},
    expectation::{Deviation, Expectations},
    subject::{Liveness, Subject},
    trace::{Entry, Finding},
};

/// How many times as long as what should come at once a case may take. The longest of them wait for the 10 s timeout of a real server.
const CASE_PATIENCE: u32 = 12;

/// How many cases that do little but wait are run for each that works.
pub const WAITING_PER_JOB: usize = 4;

/// How many of the last entries of a case's trace are kept when it has ended: a run has hundreds of cases, and a trace can be as long as
/// [`MAX_ENTRIES`](crate::trace::MAX_ENTRIES).
const KEPT_OF_TRACE: usize = 200;

/// How many of the last lines that a dead host printed are part of the reason.
const PRINTED_LINES: usize = 5;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The cases, in the order of the registry; they are started in this order.
    pub cases: Vec<&'static Case>,
    /// What they are run against.
    pub subject: Subject,
    /// How many are run at the same time, beside [`WAITING_PER_JOB`] times as many of those that do little but wait. A subject that is not
    /// [started afresh](Subject::is_started_afresh) takes one after the other, whatever stands here.
    pub jobs: NonZeroUsize,
    /// Whether no case is started any more after the first unexpected outcome.
    pub fail_fast: bool,
    /// What is known of the subject's deviations.
    pub expectations: Expectations,
}

/// Something that happened to a case while the plan was run.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// It was started.
    Started(&'static Case),
    /// It ended.
    Ended(&'a CaseResult),
}

/// What became of a plan.
#[derive(Debug)]
pub struct Run {
    /// The cases that ended, in the order of the plan.
    pub results: Vec<CaseResult>,
    /// Whether the rest was given up because of `interrupt`.
    pub interrupted: bool,
}

impl Plan {
    /// Runs the cases, until all have ended or `interrupt` completes. When this returns, no host of theirs is left.
    pub async fn run(&self, interrupt: impl Future<Output = ()>, mut observe: impl FnMut(Progress<'_>)) -> Run {
        let mut interrupt = pin!(interrupt);
        let alone = !self.subject.is_started_afresh();
        let (working, waiting): (Vec<_>, Vec<_>) =
            self.cases.iter().copied().enumerate().partition(|(_, case)| alone || !case.waits);
        let mut working = Queue::new(working, if alone { 1 } else { self.jobs.get() });
        let mut waiting = Queue::new(waiting, self.jobs.get() * WAITING_PER_JOB);
        let mut tasks = JoinSet::new();
        let mut running = HashMap::new();
        let mut results = Vec::new();
        let mut stopping = false;

        let interrupted = loop {
            let all_started = stopping || working.cases.is_empty() && waiting.cases.is_empty();
            if all_started && tasks.is_empty() {
                break false;
            }
            let (started, ended) = tokio::select! {
                biased;
                () = &mut interrupt => {
                    // Waits until the tasks are gone, and with them their contexts and hosts.
                    tasks.shutdown().await;
                    break true;
                }
                Some(ended) = tasks.join_next_with_id() => (None, Some(ended)),
                started = working.next(), if !stopping && !working.cases.is_empty() => (started, None),
                started = waiting.next(), if !stopping && !waiting.cases.is_empty() => (started, None),
            };
            if let Some(((index, case), room)) = started {
                let task = tasks.spawn(run_case(case, self.subject.clone(), room)).id();
                running.insert(task, (index, case, Instant::now()));
                observe(Progress::Started(case));
            }
            let (task, result) = match ended {
                None => continue,
                Some(Ok((task, (result, _room)))) => (task, Ok(result)),
                Some(Err(error)) => (error.id(), Err(error)),
            };
            let Some((index, case, began)) = running.remove(&task) else { continue };
            let mut result = result.unwrap_or_else(|error| CaseResult::bug(case, began.elapsed(), error));
            result.deviation = self.expectations.of(&case.id).cloned();
            stopping |= self.fail_fast && !result.expected() && result.stale().is_none();
            observe(Progress::Ended(&result));
            results.push((index, result));
        };

        results.sort_by_key(|(index, _)| *index);
        let mut results: Vec<CaseResult> = results.into_iter().map(|(_, result)| result).collect();
        tell_causes(&mut results);
        Run { results, interrupted }
    }
}

/// Cases that are still to be run, by their place in the plan, and the room for those that run at the same time.
struct Queue {
    cases: VecDeque<(usize, &'static Case)>,
    room: Arc<Semaphore>,
}

impl Queue {
    fn new(cases: Vec<(usize, &'static Case)>, room: usize) -> Self {
        Self { cases: cases.into(), room: Arc::new(Semaphore::new(room)) }
    }

    /// The next case, once there is room for it; its room is free again when the permit is dropped.
    async fn next(&mut self) -> Option<((usize, &'static Case), OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.room).acquire_owned().await.ok()?;
        self.cases.pop_front().map(|case| (case, permit))
    }
}

/// One cause is one failure: what blocks a case may be what an earlier one failed for, and what ends a host in one case may have
/// ended it in an earlier one.
fn tell_causes(results: &mut [CaseResult]) {
    let mut failures: Vec<(&'static str, String, String)> = Vec::new();
    let mut deaths = HashMap::new();
    let mut last_death = None;
    for result in results {
        if let Err(Stop::Fail(Failure { connection, expected, .. })) = &result.verdict {
            failures.push((&result.case.id, connection.clone(), expected.clone()));
        }
        if result.liveness.iter().any(|(_, liveness)| matches!(liveness, Liveness::Exited { .. })) {
            last_death = Some(result.case.id.as_ref());
            let cause = result.liveness.iter().find_map(|(_, liveness)| cause_of_death(liveness));
            let first = cause.map(|cause| *deaths.entry(cause).or_insert(result.case.id.as_ref()));
            result.cause = first.filter(|first| *first != result.case.id);
        } else if let (Err(Stop::Blocked(_)), true) = (&result.verdict, result.liveness.is_empty()) {
            // It could not even begin: a server that was not started for it is gone.
            result.cause = last_death;
        } else if let Err(Stop::Blocked(unexpected)) = &result.verdict {
            let same = |(_, connection, expected): &&(_, String, String)| {
                *connection == unexpected.connection && *expected == unexpected.expected
            };
            result.cause = failures.iter().find(same).map(|(id, ..)| *id);
        }
    }
}

/// Tells deaths apart: by how the process ended, and by its last words without what differs from run to run. Those without last words
/// may have as many causes.
fn cause_of_death(liveness: &Liveness) -> Option<(Option<i32>, Option<i32>, String)> {
    let Liveness::Exited { code, signal, printed } = liveness else { return None };
    let last = printed.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    let words = last.split_whitespace().filter(|word| !word.contains("0x"));
    Some((*code, *signal, words.collect::<Vec<_>>().join(" ")))
}

/// How one case ended.
#[derive(Debug)]
pub struct CaseResult {
    /// The case.
    pub case: &'static Case,
    /// What it found by itself.
    pub verdict: Verdict,
    /// Whether the suite failed instead of the peer: the case panicked.
    pub bug: bool,
    /// Whether a session had come up during it.
    pub served: bool,
    /// What was known beforehand.
    pub deviation: Option<Deviation>,
    /// The earlier case that failed for what kept this one from being judged, or for what ended a host in this one, too.
    pub cause: Option<&'static str>,
    /// How its hosts were afterwards, by their names.
    pub liveness: Vec<(String, Liveness)>,
    /// The migrations that it went through.
    pub migrations: Vec<Migration>,
    /// How long it took, without the look at the hosts afterwards.
    pub duration: Duration,
    /// The last of what happened during it.
    pub trace: Vec<Entry>,
    /// How many entries there were before.
    pub trace_before: usize,
    /// The connections that its servers reset instead of closing them: how a connection ends is told apart from what came before, and
    /// makes no case fail.
    pub resets: Vec<String>,
    /// What its servers were seen to violate, whatever it is about.
    pub findings: Vec<Finding>,
}

/// What a case says about the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It meets the requirements.
    Pass,
    /// It violates one, or is gone.
    Fail,
    /// It lacks what the case is about.
    NotApplicable,
    /// It could not be judged.
    Inconclusive,
}

impl CaseResult {
    /// The outcome: what the case found, unless the hosts say otherwise.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        // INVARIANT: a peer that crashed, hangs or cannot be reached is never a pass.
        if self.liveness.iter().any(|(_, liveness)| matches!(liveness, Liveness::Exited { .. })) {
            return Outcome::Fail;
        }
        let unresponsive = self.liveness.iter().any(|(_, liveness)| matches!(liveness, Liveness::Unresponsive(_)));
        match &self.verdict {
            // A server that never served a client may never have been up.
            Ok(()) | Err(Stop::NotApplicable(_)) if unresponsive && !self.served => Outcome::Inconclusive,
            _ if unresponsive && self.served => Outcome::Fail,
            Ok(()) => Outcome::Pass,
            Err(Stop::Fail(_)) => Outcome::Fail,
            Err(Stop::NotApplicable(_)) => Outcome::NotApplicable,
            Err(Stop::Blocked(_) | Stop::Inconclusive(_)) => Outcome::Inconclusive,
        }
    }

    /// Whether the outcome leaves a run successful: it is the deviation that was known, or if none was, a pass. Nothing is expected
    /// of an `observed` case.
    #[must_use]
    pub fn expected(&self) -> bool {
        if self.case.level == Level::Observed || self.outcome() == Outcome::NotApplicable {
            return true;
        }
        match &self.deviation {
            Some(deviation) if self.outcome() == Outcome::Pass => deviation.sometimes,
            Some(deviation) => deviation.is_met_by(self),
            None => self.outcome() == Outcome::Pass,
        }
    }

    /// The requirement that it failed for, by what it found itself.
    #[must_use]
    pub fn failed_for(&self) -> Option<&'static str> {
        match &self.verdict {
            Err(Stop::Fail(failure)) => Some(failure.requirement),
            _ => None,
        }
    }

    /// Whether a violation of a requirement was seen in it, whatever it is about.
    #[must_use]
    pub fn sees(&self, requirement: &str) -> bool {
        self.findings.iter().any(|finding| finding.requirement == requirement)
    }

    /// The known deviation that it shows to be gone.
    #[must_use]
    pub fn stale(&self) -> Option<&Deviation> {
        self.deviation.as_ref().filter(|deviation| self.case.level > Level::Observed && deviation.is_stale(self))
    }

    /// Why the case did not pass: how its hosts were, and what it found itself.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        let finding = match &self.verdict {
            Ok(()) => None,
            Err(Stop::Fail(Failure { requirement, connection, expected, got })) => {
                Some(format!("{requirement} on {connection}: expected {expected}, got {got}"))
            }
            Err(Stop::Blocked(unexpected)) => Some(unexpected.to_string()),
            Err(Stop::Inconclusive(reason) | Stop::NotApplicable(reason)) => Some(reason.clone()),
        };
        let cause = self.cause.map(|case| match &self.verdict {
            // The same was missing there; why, may be another matter.
            Err(Stop::Blocked(_)) if self.host_troubles().next().is_none() => format!("{case} failed for the same"),
            _ => format!("the cause is that of {case}"),
        });
        let reasons: Vec<String> = self.host_troubles().chain(finding).chain(cause).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// What is wrong with the hosts, one sentence for each that is not well.
    pub fn host_troubles(&self) -> impl Iterator<Item = String> {
        self.liveness.iter().filter_map(|(host, liveness)| match liveness {
            Liveness::Alive => None,
            Liveness::Unresponsive(what) => Some(format!("host {host} is unresponsive: {what}")),
            Liveness::Exited { code, signal, printed } => {
                let lines: Vec<&str> = printed.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
                let printed = match &lines[lines.len().saturating_sub(PRINTED_LINES)..] {
                    [] => "it printed nothing".to_owned(),
                    last => format!("it printed last: {}", last.join(" | ")),
                };
                Some(match (code, signal) {
                    (_, Some(signal)) => format!("host {host} was ended by signal {signal}; {printed}"),
                    (Some(code), None) => format!("host {host} exited with code {code}; {printed}"),
                    (None, None) if lines.is_empty() => format!("host {host} is gone: nobody listens any more"),
                    (None, None) => format!("host {host} is gone; {printed}"),
                })
            }
        })
    }

    fn bug(case: &'static Case, duration: Duration, error: tokio::task::JoinError) -> Self {
        let message = match error.try_into_panic() {
            Ok(payload) => {
                let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
                text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
            }
            Err(error) => error.to_string(),
        };
        let reason = format!("a bug of the suite itself, not of the peer: the case panicked: {message}");
        Self { verdict: Err(Stop::Inconclusive(reason)), bug: true, duration, ..Self::new(case) }
    }

    /// Of a case that passed at once, without any host.
    pub(crate) fn new(case: &'static Case) -> Self {
        Self {
            case,
            verdict: Ok(()),
            bug: false,
            served: false,
            deviation: None,
            cause: None,
            liveness: Vec::new(),
            migrations: Vec::new(),
            duration: Duration::ZERO,
            trace: Vec::new(),
            trace_before: 0,
            resets: Vec::new(),
            findings: Vec::new(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::NotApplicable => "N-A",
            Self::Inconclusive => "INCONCLUSIVE",
        })
    }
}

/// Gives the room back that it still has: it is to be free only when the result is known.
async fn run_case(
    case: &'static Case,
    subject: Subject,
    room: OwnedSemaphorePermit,
) -> (CaseResult, Option<OwnedSemaphorePermit>) {
    let mut room = Some(room);
    let mut result = CaseResult::new(case);
    let mut context = match Context::new(subject) {
        Ok(context) => context,
        Err(error) => {
            result.verdict = Err(Stop::Inconclusive(format!("cannot make a temporary folder: {error}")));
            return (result, room);
        }
    };
    let patience = context.patience();
    let began = Instant::now();
    result.verdict = timeout(patience * CASE_PATIENCE, (case.run)(&mut context)).await.unwrap_or_else(|_| {
        Err(Stop::Inconclusive(format!("the case did not end within {:?}", patience * CASE_PATIENCE)))
    });
    result.duration = began.elapsed();
    // Before the hosts are asked how they are: that is not what a reader of the trace looks for.
    result.trace = context.trace.entries();
    result.trace_before = result.trace.len().saturating_sub(KEPT_OF_TRACE);
    result.trace = result.trace.split_off(result.trace_before);
    result.findings = context.trace.findings();
    result.resets = context.trace.resets();
    result.liveness = context.liveness().await;
    if result.liveness.iter().all(|(_, liveness)| *liveness == Liveness::Alive) {
        if context.keeps_connections() {
            // It does nothing but wait from here on.
            room = None;
        }
        result.findings.extend(context.leaks(0, patience / 2).await);
    }
    result.served = context.served;
    result.migrations = std::mem::take(&mut context.migrations);
    context.finish().await;
    (result, room)
}

#[cfg(test)]
mod tests {
    use std::{
        borrow::Cow,
        future::{pending, ready},
    };

    use super::*;
    use crate::{
        case::{Level, Unexpected},
        subject::Embedded,
    };

    /// A case with this id, which does what its id says.
    fn case(id: &'static str) -> &'static Case {
        let run = match id {
            "passes" => crate::case::run(|_| Box::pin(ready(Ok(())))),
            "fails" => crate::case::run(|_| Box::pin(ready(Err(Stop::Inconclusive("no reply".to_owned()))))),
            "talks" => crate::case::run(|context| {
                (0..1000).for_each(|number| context.trace.event("source", &number));
                Box::pin(ready(Ok(())))
            }),
            "panics" => crate::case::run(|_| Box::pin(async { panic!("a bug") })),
            _ => crate::case::run(|_| Box::pin(pending())),
        };
        let [title, sent, expected] = [const { Cow::Borrowed("") }; 3];
        let case =
            Case { id: id.into(), title, requirements: &[], level: Level::Must, sent, expected, waits: false, run };
        Box::leak(Box::new(case))
    }

    fn plan(cases: &[&'static str], fail_fast: bool) -> Plan {
        let cases = cases.iter().map(|id| case(id)).collect();
        Plan {
            cases,
            subject: Subject::Embedded(Embedded::new(None)),
            jobs: NonZeroUsize::MIN,
            fail_fast,
            expectations: Expectations::default(),
        }
    }

    fn outcomes(run: &Run) -> Vec<(&'static str, Outcome, bool)> {
        run.results.iter().map(|result| (result.case.id.as_ref(), result.outcome(), result.bug)).collect()
    }

    #[tokio::test]
    async fn a_panic_is_a_bug_and_the_other_cases_go_on() {
        let run = plan(&["panics", "passes"], false).run(pending(), |_| {}).await;
        assert_eq!(outcomes(&run), [("panics", Outcome::Inconclusive, true), ("passes", Outcome::Pass, false)]);
        assert!(run.results[0].reason().is_some_and(|reason| reason.ends_with("panicked: a bug")));
    }

    #[tokio::test]
    async fn of_a_long_trace_the_end_is_kept() {
        let run = plan(&["talks"], false).run(pending(), |_| {}).await;
        let CaseResult { trace, trace_before, .. } = &run.results[0];
        assert_eq!((trace.len(), trace.len() + trace_before), (KEPT_OF_TRACE, 1000));
        assert_eq!(trace.last().map(|entry| entry.text.as_str()), Some("999"));
        assert_eq!(trace.capacity(), trace.len(), "nothing else is held");
    }

    #[tokio::test]
    async fn fail_fast_starts_nothing_after_the_first_unexpected_outcome() {
        let run = plan(&["passes", "fails", "passes"], true).run(pending(), |_| {}).await;
        assert_eq!(outcomes(&run), [("passes", Outcome::Pass, false), ("fails", Outcome::Inconclusive, false)]);
        assert!(!run.interrupted);
    }

    #[tokio::test]
    async fn an_interruption_keeps_what_has_ended() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut sender = Some(sender);
        let interrupt = async { receiver.await.unwrap() };
        let interrupt_hanging = |progress: Progress<'_>| {
            if matches!(progress, Progress::Started(case) if case.id == "hangs") {
                sender.take().unwrap().send(()).unwrap();
            }
        };
        let run = plan(&["passes", "hangs", "passes"], false).run(interrupt, interrupt_hanging).await;
        assert_eq!(outcomes(&run), [("passes", Outcome::Pass, false)]);
        assert!(run.interrupted);
    }

    #[test]
    fn a_cause_is_an_earlier_case_of_the_same_step_or_the_same_last_words() {
        let died = |id, printed: &str| {
            let liveness = Liveness::Exited { code: None, signal: Some(11), printed: printed.to_owned() };
            CaseResult { liveness: vec![("target".to_owned(), liveness)], ..CaseResult::new(case(id)) }
        };
        let step = |connection: &str| (connection.to_owned(), "INIT".to_owned(), String::new());
        let alive = || vec![("source".to_owned(), Liveness::Alive)];
        let failed = |id, connection: &str| {
            let (connection, expected, got) = step(connection);
            let verdict = Err(Stop::Fail(Failure { requirement: "M1", connection, expected, got }));
            CaseResult { verdict, liveness: alive(), ..CaseResult::new(case(id)) }
        };
        let blocked = |id, connection: &str| {
            let (connection, expected, got) = step(connection);
            let verdict = Err(Stop::Blocked(Unexpected { connection, expected, got }));
            CaseResult { verdict, liveness: alive(), ..CaseResult::new(case(id)) }
        };
        let mut results = [
            blocked("before it", "source/main"),
            failed("fails", "source/main"),
            blocked("behind it", "source/main"),
            blocked("elsewhere", "target/main"),
            died("speaks", "assertion at 0x1"),
            died("speaks, too", "assertion at 0x2"),
            died("is silent", ""),
            died("is silent, too", ""),
        ];
        tell_causes(&mut results);
        let causes: Vec<_> = results.iter().map(|result| result.cause).collect();
        assert_eq!(causes, [None, None, Some("fails"), None, None, Some("speaks"), None, None]);
    }

    #[test]
    fn a_peer_that_is_not_well_never_passes() {
        let exited = || Liveness::Exited { code: None, signal: Some(6), printed: "first\n\nAborted\n".to_owned() };
        let unresponsive = || Liveness::Unresponsive("no answer".to_owned());
        let not_applicable = Err(Stop::NotApplicable("no capability".to_owned()));
        let outcome = |verdict: &Verdict, served, liveness: [Liveness; 2]| {
            let liveness = ["source".to_owned(), "target".to_owned()].into_iter().zip(liveness).collect();
            let result = CaseResult { verdict: verdict.clone(), served, liveness, ..CaseResult::new(case("passes")) };
            (result.outcome(), result.reason())
        };
        let died = "host target was ended by signal 6; it printed last: first | Aborted";
        let hangs = "host source is unresponsive: no answer";

        assert_eq!(outcome(&Ok(()), true, [Liveness::Alive, Liveness::Alive]), (Outcome::Pass, None));
        assert_eq!(outcome(&Ok(()), false, [Liveness::Alive, exited()]), (Outcome::Fail, Some(died.to_owned())));
        assert_eq!(
            outcome(&not_applicable, true, [Liveness::Alive, exited()]),
            (Outcome::Fail, Some(format!("{died}; no capability")))
        );
        assert_eq!(outcome(&Ok(()), true, [unresponsive(), Liveness::Alive]), (Outcome::Fail, Some(hangs.to_owned())));
        let blocked =
            Err(Stop::Blocked(Unexpected { connection: String::new(), expected: String::new(), got: String::new() }));
        assert_eq!(outcome(&blocked, true, [unresponsive(), Liveness::Alive]).0, Outcome::Fail);
        assert_eq!(outcome(&blocked, false, [unresponsive(), Liveness::Alive]).0, Outcome::Inconclusive);
        assert_eq!(
            outcome(&Ok(()), false, [unresponsive(), Liveness::Alive]),
            (Outcome::Inconclusive, Some(hangs.to_owned()))
        );
    }
}
