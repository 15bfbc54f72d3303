//! The registry of requirements: `REQUIREMENTS.md` is what it says, and no demand on a server is left out unseen.

use std::{collections::BTreeSet, env, fs};

use spice_conformance::{
    case::Level,
    registry::{Gap, Registry, Role, Status},
    report::requirements,
};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/REQUIREMENTS.md");

/// What servers must do, and what no case judges yet although one could. This list only ever gets shorter: one id a line.
const AWAITED: &str = "
";

#[test]
fn the_page_is_generated_from_the_registry() {
    let page = requirements::page();
    if env::var_os("UPDATE").is_some() {
        fs::write(PAGE, &page).unwrap();
    }
    let committed = fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        committed == page,
        "REQUIREMENTS.md is stale: UPDATE=1 cargo test -p spice-conformance --test requirements"
    );
}

/// That it has a reason at all is what the type of a status says.
#[test]
fn what_a_server_must_do_is_covered_or_has_a_lasting_reason() {
    let awaited: BTreeSet<&str> = AWAITED.split_whitespace().collect();
    let requirements = Registry::get().requirements.iter();
    let found: BTreeSet<&str> = requirements
        .filter(|requirement| requirement.level == Level::Must)
        .filter(|requirement| matches!(requirement.role, Role::Server | Role::SourceServer | Role::TargetServer))
        .filter(|requirement| matches!(requirement.status, Status::Untested(Gap::Later, _)))
        .map(|requirement| requirement.id.as_str())
        .collect();
    let listed_in_vain: Vec<_> = awaited.difference(&found).collect();
    assert!(listed_in_vain.is_empty(), "no longer awaited, so no longer to be listed here: {listed_in_vain:?}");
    let missing: Vec<_> = found.difference(&awaited).collect();
    assert!(missing.is_empty(), "a case is put off although a server must do this: {missing:?}");
}
