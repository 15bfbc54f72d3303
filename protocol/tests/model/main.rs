//! The design of the mail, and what it is compared with, explored to the end: the roles that this crate ships, composed, under everything that can
//! happen to them.
#![cfg(feature = "alloc")]
#![allow(unreachable_pub, reason = "nothing of a test is reached from outside, and `pub` is shorter")]

mod chain;
mod mistakes;
mod tell;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::{env, fs};

use spice_migration::migrate::source_host::{self, Completion, HandOver};
use spice_migration::migrate::source_server::Support;
use spice_migration::migrate::{Scheme, client, target_host};
use stateright::{Checker, Model, Property};

use mistakes::Mistake;
use tell::tell;
use world::{Action, CURSOR, Chances, INPUTS, MAIN, Seen, Setup, World};

#[test]
fn the_mails_design_keeps_every_rule() {
    let mut worlds = worlds(Completion::WaitAtTarget, HandOver::Afterwards, &scenarios());
    if env::var_os("MODEL_LARGE").is_some() {
        // A client that can be migrated seamlessly and not otherwise, and a channel without state.
        let seamless_alone = Support { semi_seamless: false, seamless: true };
        let full: Vec<_> = worlds.iter().filter(|setup| setup.support == SUPPORTS[0]).cloned().collect();
        worlds.extend(full.into_iter().map(|setup| Setup { support: seamless_alone, ..setup }));
        worlds.iter_mut().for_each(|setup| setup.channels.push(CURSOR));
    }
    let findings = explore(&worlds);
    eprintln!("{} states", findings.states);
    assert_eq!(findings.broken, BTreeSet::new());
    let unseen: Vec<_> = WITNESSES.iter().filter(|(name, _)| !findings.witnessed.contains(name)).collect();
    assert!(
        unseen.is_empty(),
        "the rules hold, but nothing happens: {:?}",
        unseen.iter().map(|it| it.0).collect::<Vec<_>>()
    );
}

#[test]
fn what_each_design_breaks_is_the_table() {
    if QUICK {
        eprintln!(
            "not tested: the table of designs, which takes a minute in this unoptimised build: cargo test --release"
        );
        return;
    }
    let table = table();
    if env::var_os("UPDATE").is_some() {
        fs::write(TABLE, &table).unwrap();
    }
    let committed = fs::read_to_string(TABLE).unwrap_or_default();
    assert!(
        committed == table,
        "DESIGNS.md is stale: UPDATE=1 cargo test --release -p spice-migration --test model, which gives\n{table}"
    );
}

#[test]
fn every_mistake_is_noticed() {
    let explore_with = |mistake| {
        let mut worlds = worlds(Completion::WaitAtTarget, HandOver::Afterwards, &[FEW]);
        worlds.iter_mut().for_each(|setup| setup.mistake = mistake);
        explore(&worlds)
    };
    let faultless = explore_with(None);
    assert_eq!(faultless.broken, BTreeSet::new());
    for (mistake, by) in Mistake::ALL {
        let findings = explore_with(Some(mistake));
        let lost: BTreeSet<_> = faultless.witnessed.difference(&findings.witnessed).copied().collect();
        let is_noticed = findings.broken.contains(by) || lost.contains(by);
        assert!(is_noticed, "{mistake:?}: not \"{by}\", but broken {:?}, lost {lost:?}", findings.broken);
    }
}

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/migrate/DESIGNS.md");

/// An unoptimised build is ten times slower.
const QUICK: bool = cfg!(debug_assertions);

impl Model for Setup {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.first()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let deliveries = world.deliveries();
        // Connections are quick, measured by the roles' timeouts: time passes only when nothing is on its way. Copying the
        // guest, a stalled client and whatever else happens take as long as they like.
        if deliveries.is_empty() && world.next_deadline().is_some() {
            actions.push(Action::TimePasses);
        }
        actions.extend(deliveries);
        actions.extend(world.copying());
        actions.extend(world.events(self));
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        Some(self.apply(world, action))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = Vec::new();
        properties.extend(RULES.iter().map(|(name, holds)| Property::always(name, *holds)));
        properties.extend(WITNESSES.iter().map(|(name, seen)| Property::sometimes(name, *seen)));
        properties
    }
}

type Condition = fn(&Setup, &World) -> bool;

const RULES: &[(&str, Condition)] = &[
    ("the guest never runs on both hosts", |_, world| world.seen.source_stopped || !world.seen.target_runs),
    ("in the end the guest runs on exactly one host", |_, world| {
        !is_quiet(world) || world.seen.source_stopped == world.seen.target_runs
    }),
    ("no host waits for ever", |_, world| {
        let source = matches!(world.source_host.phase(), source_host::Phase::Running | source_host::Phase::Released);
        // A target whose guest has not set out waits for that alone.
        let target = match world.target_host.phase() {
            target_host::Phase::Running | target_host::Phase::Failed => true,
            target_host::Phase::Incoming => !world.seen.asked_to_migrate,
            _ => false,
        };
        !is_quiet(world) || (source && target)
    }),
    ("the guest starts at the target only when all of it is there", |_, world| !world.seen.started_before_it_was_whole),
    ("the guest starts at the target only when the client has come, is gone or has run out of time", |_, world| {
        !world.seen.started_early
    }),
    ("a client that stays ends with a working session", |_, world| {
        // One that stalls until a time limit, or whose connection is cut, may lose its session.
        let excused = world.seen.exited || world.seen.cut || world.seen.time_is_up();
        !is_quiet(world) || excused || (world.client_is_there() && world.session_works())
    }),
    ("seamlessly, each message comes once and in order", |_, world| {
        let seen = &world.seen;
        let excused = seen.cut || seen.exited || seen.session_lost || seen.time_is_up();
        let lost = seen.moved == Some(Scheme::Seamless)
            && is_quiet(world)
            && !excused
            && (seen.up.0 != seen.up.1 || seen.down.0 != seen.down.1);
        !(lost || seen.out_of_order && seen.moved != Some(Scheme::SemiSeamless))
    }),
    ("every call of a host is answered once", |_, world| {
        let seen = &world.seen;
        let never_more = seen.connect_completes + seen.connects_replaced <= seen.connects
            && seen.end_completes <= seen.ends
            && seen.client_completes <= seen.awaits;
        let never_less = seen.connect_completes + seen.connects_replaced == seen.connects
            && seen.end_completes == seen.ends
            && (seen.client_completes == seen.awaits);
        never_more && (!is_quiet(world) || never_less)
    }),
    ("no role is given what it must not be", |_, world| world.seen.violation.is_none()),
];

const WITNESSES: &[(&str, Condition)] = &[
    ("a seamless migration with messages on their way", |_, world| {
        let Seen { moved, up, down, .. } = &world.seen;
        *moved == Some(Scheme::Seamless) && up.1 > 0 && down.1 > 0 && is_quiet(world) && world.session_works()
    }),
    ("a semi-seamless migration", |_, world| {
        world.seen.moved == Some(Scheme::SemiSeamless) && is_quiet(world) && world.session_works()
    }),
    ("a client that starts afresh", |_, world| world.seen.fresh_session && is_quiet(world) && world.session_works()),
    ("a cancelled migration that takes the client back", |_, world| {
        let back = *world.client.phase() == client::Phase::Session;
        let was_away = world.seen.attempt > 0 && world.seen.moved.is_none();
        world.seen.cancelled && was_away && back && is_quiet(world) && world.session_works()
    }),
    ("a client that exits while it switches", |_, world| {
        world.seen.exited && world.seen.migrate_sent && world.seen.target_runs && is_quiet(world)
    }),
    ("a client that exits while it connects", |_, world| {
        world.seen.exited
            && world.seen.moved.is_none()
            && world.seen.attempt > 0
            && world.seen.target_runs
            && is_quiet(world)
    }),
    ("a client that stalls until its time is up", |_, world| {
        world.seen.time_is_up() && world.seen.target_runs && is_quiet(world)
    }),
    ("a client that stalls and wakes in time", |_, world| {
        world.seen.has_stalled
            && !world.seen.ticked
            && world.seen.moved.is_some()
            && is_quiet(world)
            && world.session_works()
    }),
    ("a connection that is cut", |_, world| world.seen.cut && world.seen.target_runs && is_quiet(world)),
    ("a second destination before the first was done with", |_, world| {
        world.seen.attempt > 1 && world.seen.moved.is_some() && is_quiet(world) && world.session_works()
    }),
    ("copying that fails after the guest has stopped", |_, world| {
        world.seen.ends > 0 && !world.seen.cancelled && !world.seen.source_stopped && is_quiet(world)
    }),
];

/// Nothing is on its way, and no time limit is running: if nothing happens from outside, nothing will happen.
fn is_quiet(world: &World) -> bool {
    !world.stalled && world.deliveries().is_empty() && world.copying().is_none() && world.next_deadline().is_none()
}

/// The designs that are compared, and their columns in the table.
const DESIGNS: [(Completion, HandOver, &str); 6] = [
    (Completion::WaitAtTarget, HandOver::Afterwards, "wait, after"),
    (Completion::WaitAtTarget, HandOver::InParallel, "wait, parallel"),
    (Completion::SignalThroughClient, HandOver::Afterwards, "signal, after"),
    (Completion::SignalThroughClient, HandOver::InParallel, "signal, parallel"),
    (Completion::SourceWaits, HandOver::Afterwards, "shipped, after"),
    (Completion::SourceWaits, HandOver::InParallel, "shipped, parallel"),
];

/// What the client can do: everything, semi-seamless migration alone, nothing.
const SUPPORTS: [Support; 3] = [
    Support { semi_seamless: true, seamless: true },
    Support { semi_seamless: true, seamless: false },
    Support { semi_seamless: false, seamless: false },
];

/// What may happen in one world, each as often as said. All of it in one would be too much.
fn scenarios() -> [Chances; 2] {
    let payload = if QUICK { 0 } else { 1 };
    let destinations = Chances {
        migrate: 2,
        cancel: 1,
        exit: 1,
        cut: 0,
        unreachable: 1,
        failure: 1,
        stall: 1,
        stream_cut: 1,
        payload_up: payload,
        payload_down: payload,
    };
    let cuts = Chances { migrate: 1, cut: 1, unreachable: 0, payload_up: 1, payload_down: 1, ..destinations.clone() };
    [destinations, cuts]
}

/// Enough for each mistake to show.
const FEW: Chances = Chances {
    migrate: 1,
    cancel: 1,
    exit: 1,
    cut: 0,
    unreachable: 0,
    failure: 1,
    stall: 0,
    stream_cut: 0,
    payload_up: 1,
    payload_down: 1,
};

/// Every world of a design in these scenarios.
fn worlds(completion: Completion, hand_over: HandOver, scenarios: &[Chances]) -> Vec<Setup> {
    let setup = |chances: &Chances, support| Setup {
        completion,
        hand_over,
        support,
        channels: vec![MAIN, INPUTS],
        chances: chances.clone(),
        mistake: None,
    };
    scenarios.iter().flat_map(|chances| SUPPORTS.map(|support| setup(chances, support))).collect()
}

/// What worlds show.
#[derive(Default)]
struct Findings {
    broken: BTreeSet<&'static str>,
    witnessed: BTreeSet<&'static str>,
    states: usize,
}

/// Goes through all states of all these worlds.
fn explore(worlds: &[Setup]) -> Findings {
    let mut findings = Findings::default();
    for setup in worlds {
        let checker = setup.clone().checker().spawn_bfs().join();
        let found = checker.discoveries().into_keys();
        let (broken, witnessed): (Vec<_>, Vec<_>) = found.partition(|name| RULES.iter().any(|(rule, _)| rule == name));
        findings.broken.extend(broken);
        findings.witnessed.extend(witnessed);
        findings.states += checker.unique_state_count();
    }
    findings
}

/// For each of the broken rules a shortest way there, told.
fn shortest(worlds: &[Setup], broken: &BTreeSet<&'static str>) -> BTreeMap<&'static str, Vec<String>> {
    let mut ways = BTreeMap::new();
    // The checker's own way there is some way, so it is let go a step further each time.
    for depth in 1.. {
        if ways.len() == broken.len() {
            break;
        }
        for setup in worlds {
            let checker = setup.clone().checker().target_max_depth(depth).spawn_bfs().join();
            for (name, path) in checker.discoveries() {
                if broken.contains(name) {
                    let told = |(world, action): (World, Option<Action>)| Some(tell(&world, action?));
                    ways.entry(name).or_insert_with(|| path.into_vec().into_iter().filter_map(told).collect());
                }
            }
        }
    }
    ways
}

struct Counterexample {
    way: Vec<String>,
    /// The rules, each with the designs in which they are broken.
    breaks: BTreeMap<&'static str, Vec<&'static str>>,
}

fn table() -> String {
    let mut rows: Vec<String> = RULES.iter().map(|(rule, _)| format!("| {rule} |")).collect();
    let mut states = String::from("| states explored |");
    let mut examples: Vec<Counterexample> = Vec::new();
    for (completion, hand_over, design) in DESIGNS {
        let worlds = worlds(completion, hand_over, &scenarios());
        let findings = explore(&worlds);
        let ways = shortest(&worlds, &findings.broken);
        for ((rule, _), row) in RULES.iter().zip(&mut rows) {
            let Some(way) = ways.get(rule) else {
                row.push_str(" holds |");
                continue;
            };
            let number = examples.iter().position(|example| example.way == *way).unwrap_or_else(|| {
                examples.push(Counterexample { way: way.clone(), breaks: BTreeMap::new() });
                examples.len() - 1
            });
            examples[number].breaks.entry(rule).or_default().push(design);
            write!(row, " **broken** ({}) |", number + 1).unwrap();
        }
        write!(states, " {} |", findings.states).unwrap();
    }
    let mut table = String::from(
        "# Six designs of who waits for whom, and the rules that each keeps\n\n\
         The first word of a design says who waits so that the guest does not run before its client is there. *wait*: the target's \
         host, for\nboth. *signal*: nobody; when the client has left the source, the source tells the target to start the guest. \
         *shipped*, as in QEMU:\nthe source, for the client to leave, and the guest is started at once. The second word says when the \
         clients are handed over: *after*\nthe last of the guest has been sent, or in *parallel* with that.\n\n\
         *holds*: in every state that the model reaches. **broken**: not so; the number is that of a shortest counterexample, below. \
         States are\nthose of all the model's worlds together. `tests/model` explores them, and with UPDATE=1 writes this page.\n\n\
         | |",
    );
    DESIGNS.iter().for_each(|(_, _, design)| write!(table, " {design} |").unwrap());
    writeln!(table, "\n|---|{}", "---|".repeat(DESIGNS.len())).unwrap();
    rows.iter().chain([&states]).for_each(|row| writeln!(table, "{row}").unwrap());
    for (number, Counterexample { way, breaks }) in (1..).zip(&examples) {
        writeln!(table, "\n## Counterexample {number}\n").unwrap();
        way.iter().for_each(|step| writeln!(table, "1. {step}").unwrap());
        writeln!(table).unwrap();
        for (rule, designs) in breaks {
            writeln!(table, "- Not so any more: *{rule}* ({}).", designs.join("; ")).unwrap();
        }
    }
    table
}
