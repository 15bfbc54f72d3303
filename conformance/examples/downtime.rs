//! Measures how long a guest stands still in a migration, with the clients handed over while its last pages travel and after that.
//!
//! ```console
//! $ cargo run --release -p spice-conformance --example downtime -- benches/downtime.svg
//! ```
//!
//! Prints a table, and draws it into the file that is named. The hosts and the client are those of this crate, and all that is waited for
//! are bytes on sockets: of the guest, which are sent at a limited rate, and of the client's messages, which it reads at another. Then
//! the same with two QEMU processes, if QEMU is there; it does not let the guest wait for the client.

use std::{
    error::Error,
    fmt::{self, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use spice_conformance::{
    peer::{
        client::{
            Client,
            follower::{Event, Follower, Habits, LinkStep, What},
        },
        host::{EmbeddedHost, GuestOptions, HostSettings},
    },
    subject::{Destination, Host, HostEvent, HostOptions, StartError, qemu::Qemu},
    trace::Trace,
};
use spice_migration::{
    caps::MainCapability,
    migrate::{Scheme, source_host::HandOver},
};
use tokio::{sync::mpsc, time::timeout};

/// How many bytes of the guest are sent in a second.
const BANDWIDTH: u64 = 8 << 20;

/// What the guest writes to again and again: its last stage. In pages of 4 KiB.
const WORKING_SETS: [usize; 4] = [200, 400, 800, 1600];

/// A guest with next to no last stage.
const ONE_PAGE: usize = 1;

/// What else the guest has.
const OTHER_PAGES: usize = 64;

/// How many bytes the client reads in a second.
const READ_RATE: u32 = 5_000;

/// What the client carries over: 4 bytes for each.
const SURFACES: [u32; 4] = [75, 200, 450, 950];

const REPETITIONS: usize = 5;

const PATIENCE: Duration = Duration::from_secs(20);

/// What both kinds of host have.
const CHANNELS: usize = 4;

/// The promise: no more than this times the longer of the two.
const PROMISED: f64 = 1.1;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut last_stages = Vec::new();
    for working_set in WORKING_SETS {
        last_stages.push(median(working_set, None, HandOver::Afterwards).await?);
    }
    let mut hand_overs = Vec::new();
    for surfaces in SURFACES {
        hand_overs.push(median(ONE_PAGE, Some(surfaces), HandOver::Afterwards).await?);
    }
    let mut rows = Vec::new();
    for (working_set, last_stage) in WORKING_SETS.into_iter().zip(last_stages) {
        for (surfaces, hand_over) in SURFACES.into_iter().zip(&hand_overs) {
            let in_parallel = median(working_set, Some(surfaces), HandOver::InParallel).await?;
            let afterwards = median(working_set, Some(surfaces), HandOver::Afterwards).await?;
            rows.push(Row { last_stage, hand_over: *hand_over, in_parallel, afterwards });
        }
    }

    println!("| last stage a | hand-over b | in parallel | / max(a, b) | afterwards | / (a + b) | saved |");
    println!("|---|---|---|---|---|---|---|");
    for row in &rows {
        println!("{row}");
    }
    if let Some(path) = std::env::args().nth(1) {
        std::fs::write(path, plot(rows.clone()))?;
    }
    let worst = rows.iter().map(|row| row.in_parallel / row.longer()).fold(0.0, f64::max);
    println!("\nin parallel at most {worst:.2} times max(a, b); promised: {PROMISED}\n");
    with_qemu().await?;
    if worst > PROMISED { Err("the promise is not kept".into()) } else { Ok(()) }
}

/// One combination; all in milliseconds.
#[derive(Clone, Copy)]
struct Row {
    /// The last stage of the VM's migration, without a client.
    last_stage: f64,
    /// The client's hand-over, with a guest of next to no last stage.
    hand_over: f64,
    in_parallel: f64,
    afterwards: f64,
}

impl Row {
    fn longer(&self) -> f64 {
        self.last_stage.max(self.hand_over)
    }

    fn sum(&self) -> f64 {
        self.last_stage + self.hand_over
    }
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { last_stage, hand_over, in_parallel, afterwards } = self;
        let (of_longer, of_sum) = (in_parallel / self.longer(), afterwards / self.sum());
        let saved = (1.0 - in_parallel / afterwards) * 100.0;
        write!(formatter, "| {last_stage:.0} ms | {hand_over:.0} ms | {in_parallel:.0} ms | {of_longer:.2} ")?;
        write!(formatter, "| {afterwards:.0} ms | {of_sum:.2} | {saved:.0} % |")
    }
}

/// The median downtime, in milliseconds, with a client that carries over so many surfaces, or without one.
async fn median(working_set: usize, surfaces: Option<u32>, hand_over: HandOver) -> Result<f64, Box<dyn Error>> {
    let settings = HostSettings {
        hand_over,
        surfaces: surfaces.unwrap_or(1),
        guest: GuestOptions { pages: working_set + OTHER_PAGES, working_set, ..GuestOptions::default() },
        bandwidth: Some(BANDWIDTH),
        ..HostSettings::default()
    };
    let client = surfaces.map(|_| Habits { bytes_per_second: Some(READ_RATE), ..Habits::default() });
    let mut downtimes = Vec::new();
    for _ in 0..REPETITIONS {
        let [source, target] = ["source", "target"].map(options);
        let source = EmbeddedHost::start(&source, settings.clone(), &Trace::new()).await?;
        let target = EmbeddedHost::start(&target, settings.clone(), &Trace::new()).await?;
        downtimes.push(migrate(Host::Embedded(source), Host::Embedded(target), client).await?.downtime);
    }
    eprintln!("{working_set} pages, {surfaces:?} surfaces, {hand_over:?}: {downtimes:.1?}");
    Ok(middle(downtimes))
}

/// The same with two QEMU processes.
async fn with_qemu() -> Result<(), Box<dyn Error>> {
    let qemu = match Qemu::probe(Path::new("qemu-system-x86_64")).await {
        Err(StartError::MissingProgram { program, .. }) => {
            eprintln!("not measured: {program} is missing");
            return Ok(());
        }
        probed => probed?,
    };
    println!("| client of QEMU {} | STOP to RESUME | STOP until the client has moved |", qemu.version());
    println!("|---|---|---|");
    let reads = |bytes_per_second| Some(Habits { bytes_per_second, ..Habits::default() });
    let slowly = format!("reads {READ_RATE} bytes a second");
    for (name, client) in [("none", None), ("reads at once", reads(None)), (&slowly, reads(Some(READ_RATE)))] {
        let (mut downtimes, mut moves) = (Vec::new(), Vec::new());
        for _ in 0..REPETITIONS {
            let directory = tempfile::tempdir()?;
            let [source, target] = ["source", "target"].map(options);
            let source = qemu.start(directory.path(), &source, &Trace::new()).await?;
            let target = qemu.start(directory.path(), &target, &Trace::new()).await?;
            let measured = migrate(Host::Qemu(Box::new(source)), Host::Qemu(Box::new(target)), client).await?;
            downtimes.push(measured.downtime);
            moves.extend(measured.moved);
        }
        eprintln!("QEMU, client: {name}: {downtimes:.1?}, moved: {moves:.1?}");
        let moved = if moves.is_empty() { "-".to_owned() } else { format!("{:.0} ms", middle(moves)) };
        println!("| {name} | {:.0} ms | {moved} |", middle(downtimes));
    }
    Ok(())
}

/// How long after the guest's stop at the source.
struct Measured {
    /// Until it runs at the target.
    downtime: Duration,
    /// Until the client lives at the target, if there is one.
    moved: Option<Duration>,
}

/// Migrates a guest, with its client seamlessly, or without one.
async fn migrate(mut source: Host, mut target: Host, client: Option<Habits>) -> Result<Measured, Box<dyn Error>> {
    let (sender, mut events) = mpsc::unbounded_channel();
    let follower = client.map(|habits| {
        let client = Client::new(PATIENCE, Trace::new()).with_main(MainCapability::KNOWN);
        Follower::start(client, Destination::plain(source.spice()), habits, move |event| {
            // At the end, nobody listens any more.
            let _ = sender.send(event);
        })
    });
    if follower.is_some() {
        let mut linked = 0;
        until(&mut events, |what| {
            linked += usize::from(matches!(what, What::Link { step: LinkStep::Linked, .. }));
            linked == CHANNELS
        })
        .await?;
    }
    source.migrate_info(&Destination::plain(target.spice())).await?;
    if follower.is_some() {
        let connected = "SPICE_MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS";
        until(&mut events, |what| matches!(what, What::Sent(passed) if passed.name == connected)).await?;
    }
    source.migrate(&target).await?;
    let stopped = source.wait_for(HostEvent::Stop, PATIENCE).await?;
    let resumed = target.wait_for(HostEvent::Resume, PATIENCE).await?;
    let moved = match &follower {
        Some(_) => Some(until(&mut events, |what| matches!(what, What::Moved(Scheme::Seamless))).await?),
        None => None,
    };
    Ok(Measured { downtime: resumed - stopped, moved: moved.map(|moved| moved - stopped) })
}

/// Waits for something that the client does or sees. Returns when it was.
async fn until(
    events: &mut mpsc::UnboundedReceiver<Event>,
    mut is_it: impl FnMut(&What) -> bool,
) -> Result<Instant, Box<dyn Error>> {
    loop {
        let event = timeout(PATIENCE, events.recv()).await?.ok_or("the client has ended")?;
        if is_it(&event.what) {
            return Ok(event.at);
        }
        if let What::Ended(end) = event.what {
            return Err(format!("the client was lost: {end:?}").into());
        }
    }
}

fn options(name: &str) -> HostOptions {
    HostOptions {
        name: name.to_owned(),
        seamless: true,
        password: None,
        incoming: name == "target",
        ..HostOptions::default()
    }
}

/// The median, in milliseconds.
fn middle(mut durations: Vec<Duration>) -> f64 {
    durations.sort();
    durations[durations.len() / 2].as_secs_f64() * 1000.0
}

/// The rows as a picture (SVG): downtime over a + b.
fn plot(mut rows: Vec<Row>) -> String {
    const WIDTH: f64 = 760.0;
    const HEIGHT: f64 = 440.0;
    const LEFT: f64 = 70.0;
    const TOP: f64 = 20.0;
    const BOTTOM: f64 = 60.0;
    const STEP: usize = 100;
    type Value = fn(&Row) -> f64;

    rows.sort_by(|one, other| one.sum().total_cmp(&other.sum()));
    let largest = rows.iter().map(|row| row.afterwards.max(row.sum())).fold(0.0, f64::max);
    let most = (largest as usize / STEP + 1) * STEP;
    let x = |ms: f64| LEFT + ms / most as f64 * (WIDTH - LEFT - 20.0);
    let y = |ms: f64| HEIGHT - BOTTOM - ms / most as f64 * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"14\">\n\
         <title>The guest's downtime, with the clients handed over in parallel and afterwards</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    // Writing into a string does not fail.
    for tick in (0..=most).step_by(STEP) {
        let (across, up, zero) = (x(tick as f64), y(tick as f64), y(0.0));
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {up:.1}H{:.1}M{across:.1} {zero}V{TOP}\" stroke=\"#ddd\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>\n\
             <text x=\"{across:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>",
            x(most as f64),
            LEFT - 8.0,
            up + 5.0,
            zero + 20.0,
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">last VM stage a + client's hand-over b, each alone (ms)</text>\n\
         <text transform=\"translate(18 {:.1}) rotate(-90)\" text-anchor=\"middle\">the guest's downtime (ms)</text>",
        x(most as f64 / 2.0),
        HEIGHT - 15.0,
        y(most as f64 / 2.0),
    );
    let series: [(&str, &str, bool, Value); 4] = [
        ("a + b", "#c62828", false, Row::sum),
        ("handed over afterwards", "#c62828", true, |row| row.afterwards),
        ("max(a, b)", "#1565c0", false, Row::longer),
        ("handed over in parallel", "#1565c0", true, |row| row.in_parallel),
    ];
    for (number, (name, colour, measured, value)) in series.into_iter().enumerate() {
        let legend = TOP + 20.0 + 22.0 * number as f64;
        let places: Vec<_> = rows.iter().map(|row| (x(row.sum()), y(value(row)))).collect();
        if measured {
            for (across, up) in places.into_iter().chain([(LEFT + 35.0, legend - 5.0)]) {
                let _ = writeln!(svg, "<circle cx=\"{across:.1}\" cy=\"{up:.1}\" r=\"5\" fill=\"{colour}\"/>");
            }
        } else {
            let line: Vec<_> = places.iter().map(|(across, up)| format!("{across:.1},{up:.1}")).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"/>\n\
                 <path d=\"M{} {}h30\" stroke=\"{colour}\"/>",
                line.join(" "),
                LEFT + 20.0,
                legend - 5.0,
            );
        }
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{legend}\">{name}</text>", LEFT + 58.0);
    }
    svg + "</svg>\n"
}
