//! The command line as its users meet it: exit codes, messages, reports.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::Stdio,
    time::{Duration, Instant},
};

use assert_cmd::cargo::{cargo_bin, cargo_bin_cmd};
use serde_json::Value;

/// Runs it and returns the exit code, the standard output and the standard error.
fn outcome(arguments: &[&str]) -> (i32, String, String) {
    let output = cargo_bin_cmd!("spice-conformance").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Runs it with a report in a temporary folder and returns the exit code and the report.
fn report(arguments: &[&str]) -> (i32, Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let (code, output, errors) = outcome(&[arguments, &["--report", &format!("json={}", path.display())]].concat());
    let document = fs::read(&path).unwrap();
    let document = serde_json::from_slice(&document).unwrap_or_else(|error| panic!("{error}\n{output}\n{errors}"));
    (code, document)
}

#[test]
fn what_cannot_be_carried_out_exits_with_2() {
    let long = "x".repeat(60);
    let rows: [(&[&str], &str); 16] = [
        (&["run", "--no-such-flag"], "--no-such-flag"),
        (&["run", "--filter", "[", "--jobs", "1"], "--filter"),
        (&["run", "--level", "may"], "possible values: must, should, observed"),
        (&["run", "--jobs", "0"], "--jobs"),
        (&["run", "--repeat", "0"], "--repeat"),
        (&["run", "--time-scale", "0"], "a number from 0.1 to 100"),
        (&["run", "--report", "xml=FILE"], "json=FILE"),
        (&["run", "--report", "json=/no/such/folder/report.json"], "--report"),
        (&["run", "--filter", "link/magic/refused", "--report", "json=/dev/full"], "--report json=/dev/full"),
        (&["run", "--report", "json=-"], "written to a file"),
        (&["run", "--server", "127.0.0.1"], "HOST:PORT"),
        (&["run", "--server", ":5900"], "HOST:PORT"),
        (&["run", "--server", "::1"], "in brackets"),
        (&["serve", "--password", &long], "60 bytes"),
        (&["run", "--defect", "no-such-defect"], "magic-answered-with-error"),
        (&["run", "--defect", "magic-answered-with-error", "--qemu"], "--qemu"),
    ];
    for (arguments, named) in rows {
        let (code, _, errors) = outcome(arguments);
        assert_eq!(code, 2, "{arguments:?}: {errors}");
        assert!(errors.contains(named) && !errors.contains(&long), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_missing_peer_exits_with_3_and_says_what_to_install() {
    let (code, output, errors) = outcome(&["run", "--qemu=/nonexistent"]);
    assert_eq!(code, 3, "{errors}");
    assert!(errors.contains("/nonexistent") && errors.contains("qemu-system-x86"), "{errors}");
    assert_eq!(output, "");
}

#[test]
fn a_selection_of_nothing_exits_with_4() {
    for command in ["run", "list"] {
        let (code, _, errors) = outcome(&[command, "--filter", "nothing/*"]);
        assert_eq!(code, 4, "{errors}");
        assert!(errors.contains("spice-conformance list"), "{errors}");
    }
}

#[test]
fn a_pattern_that_selects_nothing_is_told_of_beside_one_that_does() {
    let excluded = ["--exclude", "link/magic/refused"];
    let patterns = ["--filter", "link/magic/*", "link/magic/refused", "typo/*", "main/migrate-end/ignored"];
    let (code, _, errors) = outcome(&[&["list"], &patterns[..], &excluded].concat());
    assert_eq!(code, 0, "{errors}");
    let warned: Vec<&str> = errors.lines().collect();
    assert_eq!(
        warned,
        [
            "warning: --filter link/magic/refused selects nothing: its cases are excluded",
            "warning: --filter typo/* selects nothing: no case has such an id; all of a group are GROUP/*",
            "warning: --filter main/migrate-end/ignored selects nothing: its cases are there at --level observed",
        ]
    );
}

#[test]
fn output_that_cannot_be_written_exits_with_2_and_a_reader_that_stops_with_0() {
    let into = |file| {
        let mut command = std::process::Command::new(cargo_bin!("spice-conformance"));
        command.args(["run", "--filter", "link/magic/refused"]).stdout(file).stderr(Stdio::piped()).output().unwrap()
    };
    let full = into(Stdio::from(fs::File::create("/dev/full").unwrap()));
    let errors = String::from_utf8_lossy(&full.stderr);
    assert_eq!(full.status.code(), Some(2), "{errors}");
    assert!(errors.contains("the standard output cannot be written"), "{errors}");

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let unread = into(Stdio::from(writer));
    assert_eq!(unread.status.code(), Some(0), "{}", String::from_utf8_lossy(&unread.stderr));
}

#[test]
fn a_report_is_kept_until_there_is_another_and_holds_no_password() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old.json"), folder.path().join("new.json"));
    fs::write(&old, "precious, and longer than what replaces it".repeat(1000)).unwrap();
    let before = fs::read(&old).unwrap();
    let reports = [&old, &new].map(|path| format!("json={}", path.display()));
    let reports = ["--report", &reports[0], "--report", &reports[1]];
    let cannot_begin: [(&[&str], i32); 4] = [
        (&["--filter", "nothing/*"], 4),
        (&["--server", "127.0.0.1:1", "--password", "secret"], 3),
        (&["--qemu=/nonexistent"], 3),
        (&["--expect", "/nonexistent"], 2),
    ];
    for (arguments, expected) in cannot_begin {
        let (code, _, errors) = outcome(&[&["run"], arguments, &reports].concat());
        assert_eq!(code, expected, "{arguments:?}: {errors}");
        assert!(fs::read(&old).unwrap() == before && !new.exists(), "{arguments:?}");
    }

    let (code, ..) = outcome(&[&["run", "--filter", "link/magic/refused"], &reports[..]].concat());
    assert_eq!(code, 0);
    for path in [old, new] {
        let document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(document["summary"]["passed"], 1);
    }
}

#[test]
fn an_unknown_id_exits_with_2_and_suggests_near_ones() {
    let (code, _, errors) = outcome(&["explain", "link/magic/refuse"]);
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("link/magic/refused"), "{errors}");
}

#[test]
fn a_requirement_is_explained() {
    insta::assert_snapshot!(outcome(&["explain", "L1.1"]).1);
}

#[test]
fn an_untested_requirement_is_explained() {
    insta::assert_snapshot!(outcome(&["explain", "S3"]).1);
}

#[test]
fn a_case_is_explained() {
    insta::assert_snapshot!(outcome(&["explain", "link/magic/refused"]).1);
}

#[test]
fn cases_are_listed_as_text() {
    insta::assert_snapshot!(outcome(&["list", "--filter", "link/magic/*", "link/size/*", "--exclude", "*/small"]).1);
}

#[test]
fn cases_are_listed_as_json() {
    insta::assert_snapshot!(outcome(&["list", "--filter", "link/channel/*", "--format", "json"]).1);
}

#[test]
fn the_level_is_a_minimum() {
    let listed = |level| outcome(&["list", "--level", level]).1.lines().count();
    assert!(listed("must") < listed("should"));
    assert!(listed("should") <= listed("observed"));
}

#[test]
fn a_run_reports_as_json() {
    let (code, report) = report(&["run", "--filter", "link/magic/*", "--seed", "7", "--jobs", "1"]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["schema"], 1);
    assert_eq!(report["tool"]["name"], "spice-conformance");
    assert_eq!(report["tool"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["tool"]["seed"], 7);
    let command = report["tool"]["command"].as_str().unwrap();
    assert!(command.contains(" run --filter 'link/magic/*' --seed 7 --jobs 1 --report json="), "{command}");
    assert_eq!(report["peer"]["kind"], "embedded");
    assert!(report["peer"]["name"].is_string() && report["peer"]["version"].is_string());
    assert!(!report["peer"]["capabilities"].as_array().unwrap().is_empty());

    let cases = report["cases"].as_array().unwrap();
    let ids: Vec<&str> = cases.iter().map(|case| case["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["link/magic/refused", "link/magic/at-once"]);
    for case in cases {
        assert!(case["title"].is_string() && case["duration_ms"].is_u64(), "{case:#}");
        assert_eq!(case["subject"], "server");
        assert_eq!(case["level"], "must");
        assert!(!case["requirements"].as_array().unwrap().is_empty());
        assert_eq!((&case["outcome"], &case["expected"]), (&"pass".into(), &true.into()));
        assert_eq!(case["reason"], Value::Null);
        assert_eq!(case["liveness"], serde_json::json!({"source": "alive"}));
        assert!(case.get("exit_status").is_none());
    }
    assert_eq!((&report["migrations"], &report["stale"]), (&serde_json::json!([]), &serde_json::json!([])));
    let summary = serde_json::json!({
        "passed": 2, "failed": 0, "not_applicable": 0, "inconclusive": 0, "unexpected": 0
    });
    assert_eq!(report["summary"], summary);
}

#[test]
fn each_case_is_run_as_often_as_asked() {
    let (code, document) = report(&["run", "--filter", "link/magic/*", "--repeat", "3"]);
    assert_eq!((code, document["cases"].as_array().unwrap().len()), (0, 6));
}

#[test]
fn everything_is_waited_for_as_long_as_asked() {
    // It waits for the source's time limit, which is 3 s otherwise.
    let case = "semi-seamless/source/client-stays";
    let (code, document) = report(&["run", "--filter", case, "--time-scale", "0.5"]);
    assert_eq!(code, 0);
    let duration = document["cases"][0]["duration_ms"].as_u64().unwrap();
    assert!((1400..3000).contains(&duration), "{duration}");
}

#[test]
fn a_run_reports_its_migrations() {
    let (code, report) = report(&["run", "--filter", "semi-seamless/source/completed"]);
    assert_eq!(code, 0, "{report:#}");
    let [migration] = report["migrations"].as_array().unwrap().as_slice() else { panic!("{report:#}") };
    assert_eq!(migration["case"], "semi-seamless/source/completed");
    assert_eq!(migration["scheme"], "semi-seamless");
    assert!(migration["client_blackout_ms"].is_f64() && migration["guest_downtime_ms"].is_f64(), "{migration:#}");
}

#[test]
fn a_defect_fails_the_run() {
    let arguments = ["run", "--defect", "magic-answered-with-error", "--filter", "link/magic/refused"];
    let (code, report) = report(&arguments);
    assert_eq!(code, 1, "{report:#}");
    let case = &report["cases"][0];
    assert_eq!((&case["outcome"], &case["expected"]), (&"fail".into(), &false.into()));
    assert!(case["reason"].as_str().unwrap().starts_with("L1.1 on "), "{case:#}");
    assert_eq!((&report["summary"]["failed"], &report["summary"]["unexpected"]), (&1.into(), &1.into()));

    let (_, output, _) = outcome(&arguments);
    for told in ["FAIL", "requirement  L1.1 (must): ", "expected ", "got ", "trace", "exit code 1: "] {
        assert!(output.contains(told), "{told} is not in:\n{output}");
    }
}

#[test]
fn a_known_deviation_is_expected_until_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known.toml");
    let entry = "[[deviation]]\ncase = 'link/magic/refused'\noutcome = 'fail'\nrequirement = 'L1.1'\nreason = 'so'\n";
    fs::write(&file, entry).unwrap();
    let file = file.to_str().unwrap();
    let defect = ["run", "--defect", "magic-answered-with-error", "--filter", "link/magic/refused"];

    let (code, output, _) = outcome(&[&defect[..], &["--expect", file]].concat());
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("known: so") && output.contains("1 of them known beforehand"), "{output}");
    let (code, document) = report(&[&defect[..], &["--expect", file]].concat());
    assert_eq!((code, &document["cases"][0]["expected"]), (0, &true.into()));
    assert_eq!(report(&[&defect[..], &["--expect", "none"]].concat()).0, 1);

    let (code, output, _) = outcome(&["run", "--filter", "link/magic/refused", "--expect", file]);
    assert_eq!(code, 5, "{output}");
    assert!(output.contains("STALE link/magic/refused") && output.contains(file), "{output}");

    let seen = "[[seen]]\nrequirement = 'Q1'\nreason = 'so'\ncases = ['link/magic/refused']\n";
    fs::write(file, [entry, seen].concat()).unwrap();
    let (code, document) = report(&["run", "--filter", "link/magic/refused", "--expect", file]);
    assert_eq!(code, 5, "{document:#}");
    let stale = |requirement| serde_json::json!({"case": "link/magic/refused", "requirement": requirement});
    assert_eq!(document["stale"], serde_json::json!([stale("L1.1"), stale("Q1")]));

    fs::write(file, entry.replace("L1.1", "L1.2")).unwrap();
    let (code, output, _) =
        outcome(&["run", "--filter", "link/magic/refused", "--defect", "magic-answered-with-error", "--expect", file]);
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("  file says    FAIL for L1.2: "), "{output}");

    fs::write(file, entry.replace("refused", "*")).unwrap();
    let (code, _, errors) = outcome(&["run", "--expect", file]);
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("link/magic/*"), "{errors}");
}

#[test]
fn an_interrupted_run_tells_what_it_has_judged() {
    // In this case the client stays until the source drops it: long enough to be interrupted. That its report cannot be written says less.
    let mut run = std::process::Command::new(cargo_bin!("spice-conformance"))
        .args(["run", "--filter", "semi-seamless/source/client-stays", "--report", "json=/dev/full"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(run.stdout.take().unwrap());
    let mut header = String::new();
    output.read_line(&mut header).unwrap();
    let signalled = std::process::Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130), "{rest}");
    assert!(rest.ends_with("1 case not run to the end\nexit code 130: interrupted\n"), "{rest}");
}

#[test]
fn an_interrupted_selfcheck_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut check = std::process::Command::new(cargo_bin!("spice-conformance"))
        .arg("selfcheck")
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let used = || fs::read_dir(folder.path()).unwrap().count() > 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !used() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(used(), "no case has begun");
    let signalled = std::process::Command::new("kill").args(["-TERM", &check.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    assert_eq!(check.wait().unwrap().code(), Some(130));
    assert!(!used());
}
