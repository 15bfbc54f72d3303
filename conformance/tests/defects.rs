//! Every case can fail: with a defect switched on in the embedded hosts, exactly the cases of its requirement do.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    num::NonZeroUsize,
    sync::Arc,
};

use spice_conformance::{
    cases,
    expectation::Expectations,
    peer::defect::Defect,
    runner::{Outcome, Plan},
    subject::Subject,
};
use tokio::{sync::Semaphore, task::JoinSet};

/// What the observer, who knows nothing of the cases, takes these defects for.
const SEEN_OTHERWISE: &[(Defect, &[&str])] = &[
    // What follows cannot be read.
    (Defect::FullHeaderAlways, &["M1.1"]),
    (Defect::SecondEndAnswered, &["Q2"]),
    (Defect::CancelBesideCompletion, &["S4.3", "S5.2"]),
];

/// The cases that end in a fail under a defect, or without any; and the requirements that are seen to be violated in any case.
async fn failing(defect: Option<Defect>) -> (BTreeMap<&'static str, String>, BTreeSet<&'static str>) {
    let plan = Plan {
        cases: cases::all().collect(),
        subject: Subject::Embedded(defect),
        // Cases that another one's defect blocks do nothing but wait. More at once would make the others miss their time limits.
        jobs: NonZeroUsize::new(6).unwrap(),
        fail_fast: false,
        expectations: Expectations::default(),
    };
    let run = plan.run(pending(), |_| {}).await;
    assert_eq!(run.results.len(), plan.cases.len());
    if defect.is_none() {
        let others: Vec<_> = run.results.iter().filter(|result| result.outcome() != Outcome::Pass).collect();
        assert!(others.is_empty(), "{others:#?}");
    }
    let failed = run.results.iter().filter(|result| result.outcome() == Outcome::Fail);
    let failed = failed.map(|result| (result.case.id.as_ref(), result.reason().unwrap_or_default())).collect();
    let seen = run.results.iter().flat_map(|result| &result.findings).map(|finding| finding.requirement).collect();
    (failed, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_defect_every_case_passes() {
    assert_eq!(failing(None).await, Default::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn under_each_defect_exactly_the_cases_of_its_requirement_fail_and_every_case_fails_under_one() {
    let permits = Arc::new(Semaphore::new(6));
    let mut runs = JoinSet::new();
    for &defect in Defect::ALL {
        let permits = permits.clone();
        runs.spawn(async move {
            let _permit = permits.acquire_owned().await;
            (defect, failing(Some(defect)).await)
        });
    }
    let mut seen_failing = BTreeSet::new();
    let mut wrong = Vec::new();
    while let Some(run) = runs.join_next().await {
        let (defect, (reasons, mut seen)) = run.unwrap();
        seen.remove(defect.requirement());
        let named_otherwise =
            SEEN_OTHERWISE.iter().find(|(other, _)| *other == defect).map_or(&[][..], |(_, seen)| seen);
        if !seen.iter().eq(named_otherwise) {
            wrong.push(format!(
                "{defect} ({}): in its conversations are seen violations of {seen:?}",
                defect.requirement()
            ));
        }
        let failed: BTreeSet<_> = reasons.keys().copied().collect();
        let expected: BTreeSet<_> = cases::all()
            .filter(|case| case.requirements.contains(&defect.requirement()))
            .map(|case| case.id.as_ref())
            .collect();
        if failed != expected || failed.is_empty() {
            wrong.push(format!(
                "{defect} ({}): not caught by {:?}; also failed {:?}",
                defect.requirement(),
                expected.difference(&failed).collect::<Vec<_>>(),
                failed.difference(&expected).map(|id| (id, &reasons[id])).collect::<Vec<_>>(),
            ));
        }
        seen_failing.extend(failed);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let never: Vec<_> = cases::all().map(|case| case.id.as_ref()).filter(|id| !seen_failing.contains(id)).collect();
    assert!(never.is_empty(), "no defect makes these fail: {never:?}");
}
