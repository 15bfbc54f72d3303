//! The public API is what `public_api.txt` says, and nothing of nom is in it.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/public_api.txt");

#[test]
fn the_public_api_is_the_one_written_down_and_shows_nothing_of_nom() {
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("public_api");
    // Only a nightly rustdoc writes JSON.
    let rustdoc = Command::new("rustup")
        .args(["run", "nightly", "cargo", "rustdoc", "--quiet", "--lib", "--all-features", "--target-dir"])
        .arg(&target_dir)
        .args(["--", "-Zunstable-options", "--output-format=json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let json = target_dir.join("doc/spice_migration.json");
    let api = match rustdoc {
        Ok(output) if output.status.success() => public_api::Builder::from_rustdoc_json(json)
            .omit_blanket_impls(true)
            .omit_auto_trait_impls(true)
            .build()
            .map_err(|error| error.to_string()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    };
    let api = match api {
        Ok(api) => api.to_string(),
        Err(error) => {
            assert!(env::var_os("CI").is_none(), "{error}");
            eprintln!("not tested: the public API; a nightly toolchain that `public-api` understands is missing");
            return;
        }
    };
    assert!(!api.contains("nom::"), "nom is public");
    if env::var_os("UPDATE").is_some() {
        fs::write(SNAPSHOT, &api).unwrap();
    }
    let written_down = fs::read_to_string(SNAPSHOT).unwrap_or_default();
    let changed: Vec<_> = api.lines().filter(|line| !written_down.lines().any(|known| known == *line)).collect();
    let gone: Vec<_> = written_down.lines().filter(|line| !api.lines().any(|known| known == *line)).collect();
    assert!(
        changed.is_empty() && gone.is_empty(),
        "if this is meant, UPDATE=1 cargo test -p spice-migration --test public_api\nnew: {changed:#?}\ngone: {gone:#?}"
    );
}
