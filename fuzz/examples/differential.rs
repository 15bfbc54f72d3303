//! Runs `spice_migration_fuzz::differential` on generated bodies of every message and prints what came of it as Markdown.
//!
//! `differential [--bodies N]`: so many bodies per message, one million if not given. The same bodies each time. Fails when the
//! two sides differ outside the classes or agree within one, or when C accepts too few bodies of a message for the run to mean
//! anything.
#![forbid(unsafe_code)]

use std::{collections::HashMap, process::ExitCode, thread};

use spice_common_oracle::{Direction, SOURCE_PACKAGE};
use spice_migration::{ChannelType, message::LAST_BASE_ID};
use spice_migration_fuzz::differential::{Case, Class, Generator, Outcome, compare};

/// Percent of each message's bodies that C must accept.
const LEAST_ACCEPTED: u64 = 30;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let bodies = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Some(1_000_000),
        ["--bodies", number] => number.parse().ok().filter(|bodies| *bodies > 0),
        _ => None,
    };
    let Some(bodies) = bodies else {
        eprintln!("usage: differential [--bodies N]");
        return ExitCode::from(2);
    };

    let tallies = run(bodies);
    let unnamed = [ChannelType::MAIN, ChannelType::CURSOR].map(|channel| (channel, run_unnamed_ids(channel)));
    print(bodies, &tallies, &unnamed);

    let mut failed = unnamed.iter().any(|(_, tally)| tally.unexpected() != 0);
    for (case, tally) in Case::all().iter().zip(&tallies) {
        failed |= tally.unexpected() != 0;
        if tally.accepted_by_c * 100 < tally.bodies * LEAST_ACCEPTED {
            eprintln!("C accepts less than {LEAST_ACCEPTED} % of the bodies of {}", case.c_name());
            failed = true;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What came of the bodies of one message.
#[derive(Default)]
struct Tally {
    bodies: u64,
    accepted_by_c: u64,
    accepted_by_both: u64,
    classes: HashMap<Class, u64>,
    /// They differ, and no class explains it.
    unexplained: u64,
    /// A class holds, and they do not differ.
    agreed_in_class: u64,
}

impl Tally {
    fn add(&mut self, case: Case, body: &[u8], outcome: &Outcome) {
        self.bodies += 1;
        self.accepted_by_c += u64::from(outcome.accepted_by_c);
        self.accepted_by_both += u64::from(outcome.accepted_by_c && outcome.accepted_by_ours);
        for class in &outcome.classes {
            *self.classes.entry(*class).or_default() += 1;
        }
        if !outcome.is_expected() {
            if outcome.difference.is_some() {
                self.unexplained += 1;
            } else {
                self.agreed_in_class += 1;
            }
            if self.unexpected() <= 3 {
                eprintln!("{} on channel {}: {outcome}\nbody: {body:02x?}", case.c_name(), case.channel);
            }
        }
    }

    fn unexpected(&self) -> u64 {
        self.unexplained + self.agreed_in_class
    }

    fn classes(&self) -> String {
        let counts =
            Class::ALL.iter().filter_map(|class| Some(format!("{} {}", class.name(), self.classes.get(class)?)));
        counts.collect::<Vec<_>>().join(", ")
    }
}

/// A tally per case, in order. Two threads, for the cases are independent.
fn run(bodies: u64) -> Vec<Tally> {
    let cases: Vec<(u64, Case)> = (0..).zip(Case::all().iter().copied()).collect();
    let run =
        |cases: &[(u64, Case)]| cases.iter().map(|(seed, case)| run_case(*case, *seed, bodies)).collect::<Vec<_>>();
    let (first, second) = cases.split_at(cases.len() / 2);
    thread::scope(|scope| {
        let second = scope.spawn(|| run(second));
        let mut tallies = run(first);
        tallies.extend(second.join().expect("no body makes it panic"));
        tallies
    })
}

fn run_case(case: Case, seed: u64, bodies: u64) -> Tally {
    let mut tally = Tally::default();
    let mut generator = Generator::new(case, seed);
    for _ in 0..bodies {
        let body = generator.next_body();
        tally.add(case, body, &compare(case, body));
    }
    tally
}

/// Every id that names no message, with three bodies. Above the base messages, the main channel only: the other channels have
/// their own.
fn run_unnamed_ids(channel: ChannelType) -> Tally {
    let last = if channel == ChannelType::MAIN { u16::MAX } else { LAST_BASE_ID };
    let mut tally = Tally::default();
    for direction in [Direction::FromServer, Direction::FromClient] {
        for id in 0..=last {
            let case = Case { direction, channel, id };
            if !Case::all().contains(&case) {
                for body in [&[][..], &[0], &[1; 64]] {
                    tally.add(case, body, &compare(case, body));
                }
            }
        }
    }
    tally
}

fn print(bodies: u64, tallies: &[Tally], unnamed: &[(ChannelType, Tally)]) {
    println!("# Held against spice-common\n");
    println!(
        "Printed by `cargo run --release -p spice-migration-fuzz --features spice-common --example differential -- --bodies {bodies}`, \
         with the C code of the source package {SOURCE_PACKAGE}.\n"
    );
    println!(
        "Each side decodes the same bodies. It counts as agreement when both refuse a body, or both accept it with the same fields \
         and encode them to the same bytes. Where they differ, a class says why; a class and a difference come together only: \
         a difference that no class explains, or a class where they agree, makes the run fail.\n"
    );
    println!("| message | channel | bodies | accepted by C | by both | in a class | unexplained | agreed in a class |");
    println!("|---|---|---:|---:|---:|---|---:|---:|");
    for (case, tally) in Case::all().iter().zip(tallies) {
        print_row(&format!("`{}`", case.c_name()), case.channel, tally);
    }
    for (channel, tally) in unnamed {
        print_row("every other id", *channel, tally);
    }

    println!("\n| class | bodies | what it is |\n|---|---:|---|");
    for class in Class::ALL {
        let tallies = tallies.iter().chain(unnamed.iter().map(|(_, tally)| tally));
        let bodies: u64 = tallies.filter_map(|tally| tally.classes.get(&class)).sum();
        println!("| {} | {bodies} | {} |", class.name(), class.reason());
    }
}

fn print_row(name: &str, channel: ChannelType, tally: &Tally) {
    let Tally { bodies, accepted_by_c, accepted_by_both, unexplained, agreed_in_class, .. } = tally;
    let classes = tally.classes();
    println!(
        "| {name} | {channel} | {bodies} | {accepted_by_c} | {accepted_by_both} | {classes} | {unexplained} | {agreed_in_class} |"
    );
}
