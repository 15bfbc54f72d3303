//! The two stages that `conformance/mutants` holds each mutant against. By itself, for it tries many defects at once.

use std::num::NonZeroUsize;

use spice_conformance::{case::Case, selfcheck};

/// Those that wait, and those that try a session at each byte, take longer than all others together.
fn is_quick(case: &Case) -> bool {
    !case.waits && !["cut/", "repeat/", "time/", "vanish/"].iter().any(|group| case.id.starts_with(group))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clean_hosts_pass_what_is_quick() {
    assert_eq!(selfcheck::clean(is_quick, NonZeroUsize::new(6).unwrap()).await, Default::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_defect_survives() {
    assert_eq!(selfcheck::survivors(24).await, []);
}
