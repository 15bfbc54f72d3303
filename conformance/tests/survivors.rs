//! The quick self-check, which `conformance/mutants` holds each mutant against. By itself, for it tries many defects at once.

use spice_conformance::selfcheck;

#[tokio::test(flavor = "multi_thread")]
async fn no_defect_survives() {
    assert_eq!(selfcheck::survivors(24).await, []);
}
