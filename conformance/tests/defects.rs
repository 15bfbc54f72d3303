//! Every case can fail: with a defect switched on in the embedded hosts, the cases of its requirement do, and of those that are
//! written by hand no others.

use std::{collections::BTreeSet, env, fs, num::NonZeroUsize};

use spice_conformance::{
    case::Case,
    cases,
    peer::defect::Defect,
    selfcheck::{self, Failed},
};

/// The groups whose cases are written by hand, and are about one thing each. Of them, exactly those of the requirement fail. The others
/// are made by tables, or go through whole migrations: a defect shows in some of a requirement's, and each is caught under some defect.
const BY_HAND: [&str; 6] = ["link", "main", "semi-seamless", "seamless", "switch-host", "cancel"];

/// What the observer, who knows nothing of the cases, takes these defects for.
const SEEN_OTHERWISE: &[(Defect, &[&str])] = &[
    // What follows cannot be read.
    (Defect::FullHeaderAlways, &["M1.1"]),
    (Defect::SecondEndAnswered, &["Q2"]),
    (Defect::CancelBesideCompletion, &["S4.3", "S5.2"]),
    (Defect::SchemeByHeader, &["S1.1", "S1.3"]),
    (Defect::SchemeByTicket, &["S1.1", "S1.3"]),
    (Defect::AgreementKept, &["S4.3"]),
    (Defect::MigrateAfterFailure, &["S4.3"]),
    // It does not tell channels apart there.
    (Defect::MagicOfPortWrong, &["D1"]),
    // It is always MIGRATE_BEGIN.
    (Defect::BeginWhileArriving, &["S1.1"]),
];

/// Cases that are written by hand and do not bring about what these defects need.
const UNTOUCHED: &[(Defect, &str)] = &[
    // It links main alone.
    (Defect::ChildTicketUnchecked, "link/ticket/wrong"),
    // There is no agent.
    (Defect::AgentToldAfterMigrate, "seamless/source/only-data-follows"),
];

const MATRIX: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/DEFECTS.md");

fn is_by_hand(id: &str) -> bool {
    BY_HAND.iter().any(|group| id.split('/').next() == Some(group)) && !id.starts_with("link/segments/")
}

fn is_touched(id: &str, defect: Defect) -> bool {
    is_by_hand(id) && !UNTOUCHED.contains(&(defect, id))
}

fn also(case: &Case, defect: Defect) -> bool {
    is_by_hand(&case.id) && !defect.is_gross()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_defect_every_case_passes() {
    assert_eq!(selfcheck::clean(|_| true, NonZeroUsize::new(6).unwrap()).await, Default::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_defect_is_caught_by_the_cases_of_its_requirement_and_every_case_catches_one() {
    let rows = selfcheck::matrix(6, also, |_| {}).await;
    let mut wrong = Vec::new();
    for row in &rows {
        let (defect, requirement) = (row.defect, row.defect.requirement());
        if !row.is_caught() {
            wrong.push(format!("{defect} ({requirement}) is caught by no case"));
        }
        if defect.is_gross() {
            continue;
        }
        let missed: Vec<_> =
            row.judging.iter().filter(|(id, failed)| is_touched(id, defect) && **failed == Failed::No).collect();
        if !missed.is_empty() || !row.others.is_empty() {
            wrong.push(format!("{defect} ({requirement}): not caught by {missed:?}; also failed {:?}", row.others));
        }
        let named_otherwise =
            SEEN_OTHERWISE.iter().find(|(other, _)| *other == defect).map_or(&[][..], |(_, seen)| seen);
        if !row.seen.iter().eq(named_otherwise) {
            wrong.push(format!("{defect} ({requirement}): in its conversations are seen violations of {:?}", row.seen));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let caught: BTreeSet<&str> = rows.iter().flat_map(selfcheck::Row::caught_by).collect();
    let never: Vec<_> = cases::all().map(|case| case.id.as_ref()).filter(|id| !caught.contains(id)).collect();
    assert!(never.is_empty(), "no defect makes these fail: {never:?}");

    let page = format!(
        "# Defects of the reference hosts, and the cases that catch them\n\n\
         `spice-conformance selfcheck` tries each of them anew, and prints a line for it. `tests/defects.rs` fails when a defect is \
         caught by\nno case, when a case catches none, and when this page is stale; with UPDATE=1 it writes the page.\n\n{}",
        selfcheck::table(&rows)
    );
    if env::var_os("UPDATE").is_some() {
        fs::write(MATRIX, &page).unwrap();
    }
    let committed = fs::read_to_string(MATRIX).unwrap_or_default();
    assert!(committed == page, "DEFECTS.md is stale: UPDATE=1 cargo test -p spice-conformance --test defects\n{page}");
}
