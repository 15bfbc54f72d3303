//! Proves that the suite notices what it is there to notice: it runs against the reference hosts with each of their defects.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    future::pending,
    num::NonZeroUsize,
    sync::Arc,
};

use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    case::Case,
    cases,
    expectation::Expectations,
    peer::defect::Defect,
    runner::{CaseResult, Outcome, Plan},
    subject::{Embedded, Subject},
};

/// How many cases are run at the same time under one defect. Those that its defect blocks do nothing but wait; more at once would
/// make the others miss their time limits.
const JOBS: NonZeroUsize = NonZeroUsize::new(6).unwrap();

/// What the suite makes of a defect.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which one.
    pub defect: Defect,
    /// The cases that were run and judge its requirement: whether they failed, and for what.
    pub judging: BTreeMap<&'static str, Failed>,
    /// Other cases that failed: why.
    pub others: BTreeMap<&'static str, String>,
    /// The other requirements that the observer saw violated.
    pub seen: BTreeSet<&'static str>,
}

/// What a case that judges a defect's requirement failed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It did not fail.
    No,
    /// For another requirement that it judges, too.
    ForAnother,
    /// For the requirement, or of what the defect did to the host.
    ForIt,
}

impl Row {
    /// Whether a case fails for its requirement.
    #[must_use]
    pub fn is_caught(&self) -> bool {
        self.caught_by().next().is_some()
    }

    /// The cases that fail for it.
    pub fn caught_by(&self) -> impl Iterator<Item = &'static str> {
        self.judging.iter().filter(|(_, failed)| **failed == Failed::ForIt).map(|(id, _)| *id)
    }
}

/// Runs cases against the clean hosts up to the first that does not pass. Returns that one, those that ran beside it and did not pass
/// either, and why; a suite in order has none.
pub async fn clean(chosen: fn(&Case) -> bool, jobs: NonZeroUsize) -> BTreeMap<&'static str, String> {
    let cases = cases::all().filter(|case| chosen(case)).collect();
    let results = run(None, cases, jobs, true).await;
    let wrong = results.iter().filter(|result| result.outcome() != Outcome::Pass || !result.findings.is_empty());
    wrong.map(|result| (result.case.id.as_ref(), format!("{:?} {:?}", result.reason(), result.findings))).collect()
}

/// Those of the defects that no case of their requirement catches; a suite in order has none. Each is tried up to the first case that
/// does.
pub async fn survivors(defects: &[Defect], several: usize) -> Vec<Defect> {
    let rows = try_each(defects, several, |_, _| false, true, |_| {}).await;
    rows.iter().filter(|row| !row.is_caught()).map(|row| row.defect).collect()
}

/// Runs the cases that judge a defect's requirement under each defect, and those that are `also` to be run; `observe` is told of each
/// row. Several defects are tried at the same time.
pub async fn matrix(several: usize, also: fn(&Case, Defect) -> bool, observe: impl FnMut(&Row)) -> Vec<Row> {
    try_each(Defect::ALL, several, also, false, observe).await
}

async fn try_each(
    defects: &[Defect],
    several: usize,
    also: fn(&Case, Defect) -> bool,
    fail_fast: bool,
    mut observe: impl FnMut(&Row),
) -> Vec<Row> {
    let permits = Arc::new(Semaphore::new(several));
    let mut runs = JoinSet::new();
    for &defect in defects {
        let permits = Arc::clone(&permits);
        runs.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let judges = |case: &Case| case.requirements.contains(&defect.requirement());
            let cases: Vec<_> = cases::all().filter(|case| judges(case) || also(case, defect)).collect();
            let tried = row(defect, &run(Some(defect), cases.clone(), JOBS, fail_fast).await);
            // A case that could not be judged ends a quick try, too, and proves nothing.
            if fail_fast && !tried.is_caught() {
                row(defect, &run(Some(defect), cases, JOBS, false).await)
            } else {
                tried
            }
        });
    }
    let mut rows = Vec::new();
    while let Some(row) = runs.join_next().await {
        // A panic here is one of this function's, not of a case.
        let row = row.expect("a row is made");
        observe(&row);
        rows.push(row);
    }
    let place = |row: &Row| Defect::ALL.iter().position(|defect| *defect == row.defect);
    rows.sort_by_key(place);
    rows
}

async fn run(
    defect: Option<Defect>,
    cases: Vec<&'static Case>,
    jobs: NonZeroUsize,
    fail_fast: bool,
) -> Vec<CaseResult> {
    let subject = Subject::Embedded(Embedded::new(defect));
    let plan = Plan { cases, subject, jobs, fail_fast, expectations: Expectations::default() };
    plan.run(pending(), |_| {}).await.results
}

fn row(defect: Defect, results: &[CaseResult]) -> Row {
    let failed = |result: &CaseResult| result.outcome() == Outcome::Fail;
    let failed_for = |result: &CaseResult| match result.failed_for() {
        _ if !failed(result) => Failed::No,
        Some(requirement) if requirement != defect.requirement() && result.host_troubles().next().is_none() => {
            Failed::ForAnother
        }
        _ => Failed::ForIt,
    };
    let (judging, others): (Vec<_>, Vec<_>) =
        results.iter().partition(|result| result.case.requirements.contains(&defect.requirement()));
    let seen = results.iter().flat_map(|result| &result.findings).map(|finding| finding.requirement);
    Row {
        defect,
        judging: judging.into_iter().map(|result| (result.case.id.as_ref(), failed_for(result))).collect(),
        others: others
            .into_iter()
            .filter(|result| failed(result))
            .map(|result| (result.case.id.as_ref(), result.reason().unwrap_or_default()))
            .collect(),
        seen: seen.filter(|requirement| *requirement != defect.requirement()).collect(),
    }
}

/// The rows as a table in Markdown.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut table = String::from("| defect | what the host does | requirement | caught by |\n|---|---|---|---|\n");
    for row in rows {
        let (name, description, requirement) = (row.defect.name(), row.defect.description(), row.defect.requirement());
        let caught: Vec<&str> = row.caught_by().collect();
        let caught = match &caught[..] {
            [] => "nothing".to_owned(),
            [one] => format!("`{one}`"),
            // How many, and which of them a host that dies ends in front of, depends on the order of events.
            _ if row.defect.is_gross() => "several cases".to_owned(),
            [first, ..] => format!("`{first}` and others, of {}", row.judging.len()),
        };
        let _ =
            writeln!(table, "| `{name}` | {description} | [{requirement}](REQUIREMENTS.md#{requirement}) | {caught} |");
    }
    table
}
