//! Counts the instructions of every measurement with callgrind: they repeat exactly, so CI can hold to them.
//!
//! `instructions` prints the tables. `instructions --check` counts `spice-migration`, the limit and C only, and fails when one
//! of `spice-migration`'s counts is more than 5 % above `benches/instructions.toml`; `--update` writes that file.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

use spice_migration_benches::measured::{C, LIMIT, Measurement, NOTHING, OURS, measurements};

/// Iterations of the shorter of two runs. The longer one has twice as many, and as many digits, for reading the argument counts
/// too; the difference is what these iterations take.
const ITERATIONS: u64 = 100;

/// By how much a count may exceed the committed one.
const TOLERANCE: f64 = 1.05;

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.toml");

/// Instructions per message, net of the measuring, by operation, case and implementation.
type Counts = BTreeMap<(&'static str, &'static str, &'static str), u64>;

/// As committed: by operation and case.
type Committed = BTreeMap<String, BTreeMap<String, u64>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (check, update) = match arguments[..] {
        [] => (false, false),
        ["--check"] => (true, false),
        ["--update"] => (false, true),
        ["--run", index, iterations] => return run(index, iterations),
        _ => {
            eprintln!("usage: instructions [--check | --update]");
            return ExitCode::from(2);
        }
    };
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("instructions: valgrind is missing, so no instruction was counted");
        return if env::var_os("CI").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let gated = |measurement: &Measurement| [NOTHING, OURS, LIMIT, C].contains(&measurement.implementation);
    let measurements = measurements();
    let counts = count(&measurements, |measurement| !check || gated(measurement));
    print_tables(&measurements, &counts);
    print_targets(&counts);
    if update {
        fs::write(COMMITTED, toml::to_string(&ours(&counts)).expect("counts are TOML")).expect("the file is writable");
    }
    if check && !compare(&counts) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What callgrind watches: one measurement.
fn run(index: &str, iterations: &str) -> ExitCode {
    let (Ok(index), Ok(iterations)) = (index.parse::<usize>(), iterations.parse()) else { return ExitCode::from(2) };
    match measurements().get(index) {
        Some(measurement) => {
            measurement.run(iterations);
            ExitCode::SUCCESS
        }
        None => ExitCode::from(2),
    }
}

/// Counts those that are wanted, as many at a time as there are processors.
fn count(measurements: &[Measurement], wanted: impl Fn(&Measurement) -> bool + Sync) -> Counts {
    let next = AtomicUsize::new(0);
    let gross = Mutex::new(Counts::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let index = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(measurement) = measurements.get(index)
                {
                    if wanted(measurement) {
                        let difference = collected(index, 2 * ITERATIONS) - collected(index, ITERATIONS);
                        let divisor = ITERATIONS * measurement.messages;
                        let count = (difference + divisor / 2) / divisor;
                        gross.lock().expect("no thread panicked").insert(key(measurement), count);
                    }
                }
            });
        }
    });
    let gross = gross.into_inner().expect("no thread panicked");
    let net = gross.iter().filter(|((.., implementation), _)| *implementation != NOTHING);
    net.map(|(&(operation, case, implementation), &count)| {
        ((operation, case, implementation), count.saturating_sub(gross[&(operation, case, NOTHING)]))
    })
    .collect()
}

fn key(measurement: &Measurement) -> (&'static str, &'static str, &'static str) {
    (measurement.operation, measurement.case, measurement.implementation)
}

/// The instructions of a whole process.
fn collected(index: usize, iterations: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().expect("the program has a path"))
        .args(["--run", &index.to_string(), &iterations.to_string()])
        .output()
        .expect("valgrind runs");
    let report = String::from_utf8_lossy(&output.stderr);
    let count = report.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    count.unwrap_or_else(|| panic!("callgrind reports no count:\n{report}"))
}

fn print_tables(measurements: &[Measurement], counts: &Counts) {
    for operation in ["decode", "encode", "frame"] {
        let mut cases = Vec::new();
        let mut implementations = Vec::new();
        for measurement in measurements.iter().filter(|measurement| measurement.operation == operation) {
            if !cases.contains(&measurement.case) {
                cases.push(measurement.case);
            }
            if counts.contains_key(&key(measurement)) && !implementations.contains(&measurement.implementation) {
                implementations.push(measurement.implementation);
            }
        }
        println!("| {operation}: instructions | {} |", cases.join(" | "));
        println!("|---|{}", "---|".repeat(cases.len()));
        for implementation in implementations {
            let cells = cases.iter().map(|case| match counts.get(&(operation, case, implementation)) {
                Some(count) => count.to_string(),
                None => "-".to_owned(),
            });
            println!("| {implementation} | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
        println!();
    }
}

/// The targets, each held against what was counted with it.
fn print_targets(counts: &Counts) {
    let mut missed = 0;
    let mut judge = |met: bool, what: String| {
        missed += u32::from(!met);
        println!("{}: {what}", if met { "met" } else { "MISSED" });
    };
    for (&(operation, case, implementation), &ours) in counts {
        if implementation != OURS {
            continue;
        }
        if operation == "frame" {
            judge(ours <= 40, format!("frame, {case}: {ours} instructions a message, at most 40"));
        }
        if let ("decode", Some(&limit)) = (operation, counts.get(&(operation, case, LIMIT))) {
            let times = ours as f64 / limit as f64;
            judge(times <= 1.10, format!("decode, {case}: {times:.2} times the limit, at most 1.10"));
        }
        if let Some(&c) = counts.get(&(operation, case, C)) {
            let least = match (operation, case) {
                ("decode", "AGENT_DATA") => 1.5,
                ("decode", _) => 6.0,
                (_, "BEGIN_SEAMLESS" | "SWITCH_HOST") => 40.0,
                (_, "INIT" | "64 channels") => 10.0,
                _ => 5.0,
            };
            let times = c as f64 / ours as f64;
            judge(times >= least, format!("{operation}, {case}: {times:.1} times fewer than C, at least {least}"));
        }
    }
    println!("{missed} missed");
}

/// Whether no count is much above the committed one. Says which are.
fn compare(counts: &Counts) -> bool {
    let committed: Committed = fs::read_to_string(COMMITTED)
        .map_err(|error| error.to_string())
        .and_then(|text| toml::from_str(&text).map_err(|error| error.to_string()))
        .unwrap_or_else(|error| panic!("{COMMITTED}: {error}"));
    let mut holds = true;
    for (operation, cases) in ours(counts) {
        for (case, new) in cases {
            match committed.get(&operation).and_then(|cases| cases.get(&case)) {
                Some(old) if new as f64 <= *old as f64 * TOLERANCE => {}
                Some(old) => {
                    eprintln!("{operation}, {case}: {new} instructions, {old} before");
                    holds = false;
                }
                None => {
                    eprintln!("{operation}, {case}: {new} instructions, not in instructions.toml: run with --update");
                    holds = false;
                }
            }
        }
    }
    holds
}

fn ours(counts: &Counts) -> Committed {
    let mut ours = Committed::new();
    for (&(operation, case, implementation), &count) in counts {
        if implementation == OURS {
            ours.entry(operation.to_owned()).or_default().insert(case.to_owned(), count);
        }
    }
    ours
}
