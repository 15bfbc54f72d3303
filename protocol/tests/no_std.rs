//! The crate needs neither std nor an allocator, and does not panic: see `no_std/main.rs`.

use std::path::Path;
use std::process::{Command, Output};

fn link(features: &str) -> Output {
    // A directory of its own, since the outer cargo may hold the lock of the usual one.
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no_std");
    Command::new(env!("CARGO"))
        .args(["rustc", "--quiet", "--package", "spice-migration-no-std", "--bin", "no_std", "--profile", "no-std"])
        .args(["--features", features, "--target-dir"])
        .arg(target_dir)
        // The compiler's own code calls memcpy and the like, which are all that is taken from the C library.
        .args(["--", "-Clink-arg=-nostartfiles", "-Clink-arg=-lc"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

#[test]
fn a_program_links_without_std_allocator_and_panics_and_does_not_when_one_of_them_sneaks_in() {
    let proof = link("proof");
    assert!(proof.status.success(), "{}", String::from_utf8_lossy(&proof.stderr));
    let complaints = [
        ("alloc", "no global memory allocator found"),
        ("std", "found duplicate lang item"),
        ("panic", "a_panic_is_within_reach"),
    ];
    for (feature, complaint) in complaints {
        let refused = link(&format!("proof,{feature}"));
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && stderr.contains(complaint), "with {feature}: {stderr}");
    }
}
