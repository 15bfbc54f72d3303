//! The stages that `conformance/mutants` holds each mutant against. By itself, for it tries many defects at once.

use std::{fs, num::NonZeroUsize, path::Path};

use spice_conformance::{case::Case, peer::defect::Defect, selfcheck};

const JOBS: NonZeroUsize = NonZeroUsize::new(6).unwrap();

/// Of the cases that do not wait, those that are written by hand or about the agent, and one in four of the others: enough for most
/// mutants.
fn is_quick(case: &Case) -> bool {
    let group = case.id.split('/').next().unwrap_or_default();
    let by_hand = ["main", "semi-seamless", "seamless", "switch-host", "cancel", "agent"].contains(&group);
    // A session at each byte, and whole migrations in a row, take longer than all others together.
    let long = ["cut", "repeat", "time", "vanish"].contains(&group);
    !case.waits && !long && (by_hand || case.id.bytes().map(usize::from).sum::<usize>() % 4 == 0)
}

/// A client that is cut at each byte, hundreds of times in a row, takes a third of the time of all.
fn is_cut(case: &Case) -> bool {
    case.id.starts_with("cut/")
}

/// The defects named near the place that cargo-mutants has marked, and those that are named nowhere any more.
fn touched() -> Vec<Defect> {
    let hosts = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/peer/host");
    let sources: Vec<String> =
        fs::read_dir(hosts).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let lines: Vec<&str> = sources.iter().flat_map(|source| source.lines()).collect();
    let is_named = |defect: &Defect, lines: &[&str]| {
        let name = format!("{defect:?}");
        lines.iter().flat_map(|line| line.split("Defect::")).any(|rest| {
            rest.strip_prefix(&name).is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric()))
        })
    };
    let near = match lines.iter().position(|line| line.contains("changed by cargo-mutants")) {
        Some(place) => &lines[place.saturating_sub(20)..lines.len().min(place + 20)],
        None => &[],
    };
    Defect::ALL.iter().copied().filter(|defect| is_named(defect, near) || !is_named(defect, &lines)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clean_hosts_pass_what_is_quick_and_no_touched_defect_survives() {
    assert_eq!(selfcheck::clean(is_quick, JOBS).await, Default::default());
    assert_eq!(selfcheck::survivors(&touched(), 24).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clean_hosts_pass_what_is_cut() {
    assert_eq!(selfcheck::clean(is_cut, JOBS).await, Default::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clean_hosts_pass_the_rest() {
    assert_eq!(selfcheck::clean(|case| !is_quick(case) && !is_cut(case), JOBS).await, Default::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_defect_survives() {
    assert_eq!(selfcheck::survivors(Defect::ALL, 24).await, []);
}
