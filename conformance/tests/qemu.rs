//! The suite against real QEMU, from the command line.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// A case that lasts some 10 s: the client stays, and the server waits for it.
const LONG: &str = "semi-seamless/source/client-stays";

/// Most of the cases that are written by hand, and one table of cases: all of them take seven minutes.
const GROUPS: &[&str] = &[
    "--filter",
    "link/*",
    "main/*",
    "semi-seamless/*",
    "seamless/*",
    "switch-host/*",
    "cancel/*",
    "message/session/*",
];

#[test]
fn qemu_is_judged_in_every_scheme_and_deviates_only_as_is_known() {
    let Some(folder) = folder("the suite against QEMU") else { return };
    let file = folder.path().join("report.json");
    let status = suite(&file, GROUPS).spawn().unwrap().wait().unwrap();
    let report = read(&file);

    let cases = report["cases"].as_array().unwrap();
    assert!(cases.iter().filter(|case| case["outcome"] == "pass").count() >= 100);
    let unexpected: Vec<_> = cases.iter().filter(|case| case["expected"] == false).collect();
    assert!(unexpected.is_empty() && status.code() == Some(0), "{unexpected:#?} {:#}", report["seen"]);
    // spice-server 0.15.1 closes without a word; see L6.2 in requirements.toml.
    let known = cases.iter().find(|case| case["id"] == "link/channel/unknown").unwrap();
    assert_eq!((&known["outcome"], &known["expected"]), (&"fail".into(), &true.into()));
    for scheme in ["seamless", "semi-seamless", "switch-host", "cancelled"] {
        let seen = report["migrations"].as_array().unwrap().iter().any(|migration| migration["scheme"] == scheme);
        assert!(seen, "no {scheme} migration");
    }
}

#[test]
fn a_target_killed_in_the_middle_fails_its_case_and_the_run_goes_on() {
    let Some(folder) = folder("a target that is killed") else { return };
    let file = folder.path().join("report.json");
    let mut suite = suite(&file, &["--filter", LONG, "--filter", "link/magic/*", "--jobs", "1"]).spawn().unwrap();
    let target = process_of(&suite, "-incoming");
    // Anywhere in the 10 s that the case lasts.
    thread::sleep(Duration::from_secs(2));
    kill("-KILL", target);
    assert_eq!(suite.wait().unwrap().code(), Some(1));

    let report = read(&file);
    let case = |id: &str| report["cases"].as_array().unwrap().iter().find(|case| case["id"] == id).unwrap().clone();
    let killed = case(LONG);
    assert_eq!(killed["outcome"], "fail", "{killed:#}");
    assert_eq!(killed["liveness"]["target"], "exited");
    assert_eq!(killed["exit_status"]["party"], "target");
    assert_eq!(killed["exit_status"]["signal"], 9);
    assert_eq!(case("link/magic/refused")["outcome"], "pass");
    assert_eq!(report["summary"]["passed"], 2);
}

#[test]
fn an_interrupted_run_leaves_no_process_and_no_folder() {
    let Some(folder) = folder("an interrupted run") else { return };
    for signal in ["-INT", "-TERM", "-HUP", "-QUIT"] {
        let mut suite = suite(&folder.path().join("report.json"), &["--filter", LONG]);
        let mut suite = suite.env("TMPDIR", folder.path()).spawn().unwrap();
        let target = process_of(&suite, "-incoming");
        kill(signal, suite.id());
        assert_eq!(suite.wait().unwrap().code(), Some(130));
        assert!(is_gone(target));
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name == "report.json"), "{left:?}");
    }
}

/// A folder of the test's own; `None`, and a line that says so, where there is no QEMU. CI has one.
fn folder(what: &str) -> Option<tempfile::TempDir> {
    if Command::new("qemu-system-x86_64").arg("--version").stdout(Stdio::null()).status().is_ok() {
        return Some(tempfile::tempdir().unwrap());
    }
    assert!(std::env::var_os("CI").is_none(), "CI must have qemu-system-x86_64");
    // Straight to stderr: the test harness would swallow what `println!` says in a test that passes.
    let _ = writeln!(io::stderr(), "not tested: {what} (qemu-system-x86_64 is missing)");
    None
}

fn suite(report: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("spice-conformance"));
    command.args(["run", "--qemu", "--report"]).arg(format!("json={}", report.display())).args(arguments);
    command.stdout(Stdio::null());
    command
}

fn read(report: &Path) -> Value {
    serde_json::from_slice(&fs::read(report).unwrap()).unwrap()
}

/// Waits for a child process of the suite that has these arguments, other than the one that only tells its version.
fn process_of(suite: &Child, arguments: &str) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        for process in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let Some(id) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let status = fs::read_to_string(process.path().join("status")).unwrap_or_default();
            let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if status.contains(&format!("\nPPid:\t{}\n", suite.id())) && command.contains(arguments) {
                return id;
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("the suite started no process with {arguments}");
}

/// Whether a process has ended. Its parent has too, so how long it lingers as a zombie is up to the system.
fn is_gone(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/status")).map_or(true, |status| status.contains("\nState:\tZ"))
}

fn kill(signal: &str, process: u32) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}
