//! Whole sessions that are cut at their bytes: the client is gone behind one, or its messages come in pieces.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use spice_migration::{ChannelType, ClientMessage, Data, frame::HeaderKind};

use super::{SEMI, check, vanish::strands_nobody};
use crate::{
    case::{Case, Context, Failure, Level, OrFail, Stop, Unexpected, Verdict, run},
    context::{Place, Setup},
    peer::client::{Cut, Sent, Session, Wire, step},
    situation::GuestMove,
    subject::{Liveness, StartError},
};

/// What a client lives through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// A session, and nothing migrates.
    Session,
    /// A session that is migrated, and restarts at the target.
    SemiSeamless,
    /// A session that is migrated, and goes on at the target.
    Seamless,
}

/// The connections that are cut. In a semi-seamless migration a client says nothing on display at the source.
const CUT: [(Life, &str); 14] = [
    (Life::Session, "source/main"),
    (Life::Session, "source/inputs"),
    (Life::Session, "source/display"),
    (Life::SemiSeamless, "source/main"),
    (Life::SemiSeamless, "source/inputs"),
    (Life::SemiSeamless, "target/main"),
    (Life::SemiSeamless, "target/inputs"),
    (Life::SemiSeamless, "target/display"),
    (Life::Seamless, "source/main"),
    (Life::Seamless, "source/inputs"),
    (Life::Seamless, "source/display"),
    (Life::Seamless, "target/main"),
    (Life::Seamless, "target/inputs"),
    (Life::Seamless, "target/display"),
];

/// Link message, and mechanism with ticket.
const LINK_PARTS: usize = 2;

/// How often a cut is tried whose outcome hangs on a race.
const OFTEN: usize = 10;

/// How many clients live at the same time where hosts cost next to nothing.
const AT_ONCE: usize = 4;

pub(super) fn cases() -> Vec<Case> {
    let ends = CUT.map(|(life, connection)| end_case(life, connection));
    let splits = [Life::Session, Life::SemiSeamless, Life::Seamless].map(split_case);
    let bytes = [Life::SemiSeamless, Life::Seamless].map(bytes_case);
    ends.into_iter().chain(splits).chain(bytes).collect()
}

impl Life {
    const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::SemiSeamless => "semi-seamless",
            Self::Seamless => "seamless",
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::Session => "a session",
            Self::SemiSeamless => "a session that is migrated semi-seamlessly",
            Self::Seamless => "a session that is migrated seamlessly",
        }
    }

    async fn start(self, context: &mut Context) -> Result<(), StartError> {
        let setup = Setup { seamless: self == Self::Seamless, ..Setup::default() };
        match self {
            Self::Session => context.start_source(setup).await,
            _ => context.start_pair(setup).await,
        }
    }

    /// Lives it with hosts that have been started, up to where all connections are closed, or the client is gone.
    async fn live(self, context: &mut Context, wire: &Wire, course: &mut Course) -> Result<(), Stop> {
        let (from, to) = (Place::Source, Place::Target);
        let mut client = context.client();
        client.wire = Some(wire.clone());
        if self == Self::SemiSeamless {
            client = client.with_main(SEMI);
        }
        let mut session = context.connect(&client, from).await?;
        press_key(&mut session)?;
        session.list_channels().await?;
        if self == Self::Session {
            session.close().await;
            return Ok(());
        }
        *course = Course { guest: GuestMove::Due, before: wire.sent() };
        let mut prepared = context.prepare(&client, session, from, to).await?;
        press_key(&mut prepared.source)?;
        course.guest = GuestMove::Begun;
        let mut session = context.complete(prepared, from, to).await?;
        press_key(&mut session)?;
        session.list_channels_when_migrated().await?;
        session.close().await;
        Ok(())
    }

    /// Lives it once undisturbed, to know what the client sends, each connection by itself: of the source's in a migration only what
    /// comes after the announcement.
    async fn measure(self, context: &mut Context) -> Result<BTreeMap<String, Vec<Sent>>, Stop> {
        self.start(context).await?;
        let (wire, mut course) = (Wire::new(None), Course::default());
        self.live(context, &wire, &mut course).await?;
        let mut sent = wire.sent();
        for (connection, sent) in &mut sent {
            sent.drain(..course.before.get(connection).map_or(0, Vec::len));
        }
        Ok(sent)
    }
}

/// How far a life has come.
#[derive(Clone, Debug)]
struct Course {
    guest: GuestMove,
    /// What each connection had sent when the announcement was made.
    before: BTreeMap<String, Vec<Sent>>,
}

impl Default for Course {
    fn default() -> Self {
        Self { guest: GuestMove::No, before: BTreeMap::new() }
    }
}

/// Sends something on inputs, which is silent otherwise.
fn press_key(session: &mut Session) -> Result<(), Unexpected> {
    let down = ClientMessage::Unknown { id: 101, body: Data(b"\x1e\0\0\0") };
    session.child(ChannelType::INPUTS)?.send(down);
    Ok(())
}

/// Lives a life with each of these cuts: where hosts cost next to nothing, many at once, each with its own. The first that goes wrong
/// is that of the case.
async fn try_each(context: &mut Context, life: Life, cuts: &[Cut]) -> Verdict {
    if !context.subject.starts_quickly() {
        for cut in cuts {
            // A session alone leaves its host as it was.
            if life != Life::Session {
                context.renew().await;
                life.start(context).await?;
            }
            try_one(context, life, cut).await?;
        }
        return Ok(());
    }
    for some in cuts.chunks(AT_ONCE) {
        let mut own = Vec::new();
        for cut in some {
            let one = Context::new(context.subject.clone());
            let one = one.map_err(|error| Stop::Inconclusive(format!("cannot make a temporary folder: {error}")))?;
            own.push((one, cut));
        }
        let tried = own.into_iter().map(async |(mut own, cut)| {
            let tried = match life.start(&mut own).await {
                Ok(()) => try_one(&mut own, life, cut).await,
                Err(error) => Err(error.into()),
            };
            (own, tried)
        });
        for (own, verdict) in join_all(tried).await {
            if verdict.is_err() {
                own.trace.add_findings(&context.trace);
                *context = own;
                return verdict;
            }
            context.trace.add_findings(&own.trace);
        }
    }
    Ok(())
}

/// The same with one cut, and with hosts that have been started.
async fn try_one(context: &mut Context, life: Life, cut: &Cut) -> Verdict {
    let wire = Wire::new(Some(cut.clone()));
    let tried = match cut {
        Cut::End { answers, .. } => gone(context, life, &wire, *answers).await,
        Cut::Split { .. } | Cut::Bytes => life.live(context, &wire, &mut Course::default()).await.or_fail("M5.8"),
    };
    tried.map_err(|stop| told(stop, &place(cut, &wire)))
}

/// Where a cut was.
fn place(cut: &Cut, wire: &Wire) -> String {
    match cut {
        Cut::Split { after } => format!("every message was cut behind byte {after}"),
        Cut::Bytes => "the bytes came by themselves".to_owned(),
        Cut::End { connection, answers, after } => {
            let mut sent = wire.sent().remove(connection).unwrap_or_default();
            sent.retain(|sent| sent.is_answer == *answers && (sent.start + 1..=sent.end).contains(after));
            match sent.pop() {
                Some(Sent { name, start, end, .. }) => {
                    let (byte, length) = (after - start, end - start);
                    format!("the client was gone behind byte {byte} of {length} of {name} on {connection}")
                }
                None => format!("the client was to be gone behind byte {after} on {connection}"),
            }
        }
    }
}

// The client is gone behind a byte.

fn end_case(life: Life, connection: &'static str) -> Case {
    let description = life.description();
    let id = match life {
        Life::Session => format!("cut/session/{}", connection.trim_start_matches("source/")),
        _ => format!("cut/{}/{}", life.name(), connection.replace('/', "-")),
    };
    Case {
        id: id.into(),
        title: format!("A client that is gone behind any byte on {connection} strands nobody, in {description}").into(),
        requirements: match life {
            Life::Session => &["M5.4", "S12", "P1"],
            _ => &["M5.4", "S12", "S9.3", "H6", "T13", "P1"],
        },
        level: Level::Must,
        sent: format!(
            "{description}, time and again; each time the client is gone one byte later on {connection}. Where hosts are costly, \
             it is gone behind the first byte of each message, before the last, and behind it"
        )
        .into(),
        expected: "the hosts live, and are told; no connection is kept, and a new client is served".into(),
        waits: false,
        run: run(move |context| Box::pin(gone_at_each(context, life, connection))),
    }
}

async fn gone_at_each(context: &mut Context, life: Life, connection: &'static str) -> Verdict {
    let sent = life.measure(context).await?.remove(connection).filter(|sent| !sent.is_empty());
    let mut sent = sent.ok_or_else(|| Stop::Inconclusive(format!("nothing is sent on {connection}")))?;
    if (life, connection) == (Life::Seamless, "target/main") {
        // Before DO_SEAMLESS the target knows nothing of it: up to there it is as in the semi-seamless life.
        sent.drain(..LINK_PARTS.min(sent.len()));
        // The client asks for the channels as often as it takes.
        let (attach, mut asked) = (ClientMessage::AttachChannels.short_name().to_string(), false);
        sent.retain(|sent| sent.name != attach || !std::mem::replace(&mut asked, true));
    }
    let quick = context.subject.starts_quickly();
    let mut cuts = Vec::new();
    // When a server asks decides in which situation the answer is cut. That may be any, where it can be tried again and again.
    for Sent { name, is_answer, start, end } in sent.into_iter().filter(|sent| quick || !sent.is_answer) {
        let bytes = match quick {
            // link/segments/truncated cuts each byte of a ticket.
            true => (start + 1..end).step_by(step(&name)).chain([end]).collect(),
            false => vec![start + 1, end - 1, end],
        };
        cuts.extend(bytes.into_iter().map(|after| Cut::End {
            connection: connection.to_owned(),
            answers: is_answer,
            after,
        }));
    }
    // spice-server 0.15.1 dies of a display that ends before its first message about one time in three.
    if !quick && (life, connection) == (Life::Session, "source/display") {
        cuts = std::iter::repeat_n(cuts, OFTEN).flatten().collect();
    }
    try_each(context, life, &cuts).await
}

async fn gone(context: &mut Context, life: Life, wire: &Wire, answers: bool) -> Verdict {
    let mut course = Course::default();
    match life.live(context, wire, &mut course).await {
        // Answers come as often as the server asks, perhaps too seldom: then it has lived to the end.
        Ok(()) if wire.is_gone() || answers => {}
        Ok(()) => return Err(Stop::Inconclusive("the client has not sent as much as before".to_owned())),
        Err(Stop::Blocked(_)) if wire.is_gone() => {}
        Err(stop) => return Err(stop),
    }
    strands_nobody(context, course.guest).await?;
    all_live(context).await
}

async fn all_live(context: &mut Context) -> Verdict {
    let patience = context.patience();
    for host in &mut context.hosts {
        let liveness = host.liveness(patience).await;
        check(liveness == Liveness::Alive, "M5.4", host.name(), "a host that lives", format_args!("{liveness:?}"))?;
    }
    Ok(())
}

/// Says where it was, beside what it was.
fn told(stop: Stop, place: &str) -> Stop {
    match stop {
        Stop::Fail(failure) => Stop::Fail(Failure { got: format!("{}; {place}", failure.got), ..failure }),
        Stop::Blocked(unexpected) => {
            Stop::Blocked(Unexpected { got: format!("{}; {place}", unexpected.got), ..unexpected })
        }
        Stop::Inconclusive(reason) => Stop::Inconclusive(format!("{reason}; {place}")),
        other => other,
    }
}

// Messages come in pieces.

fn split_case(life: Life) -> Case {
    let description = life.description();
    Case {
        id: format!("cut/split/{}", life.name()).into(),
        title: format!("Every message of a client may come in two segments, cut behind any byte, in {description}").into(),
        requirements: &["M5.8", "L9.1"],
        level: Level::Must,
        sent: format!(
            "{description}, time and again; each time every message and every part of the link stage goes in two segments, and the \
             first of them is a byte longer. Where hosts are costly, it is cut at the bounds of header and body only"
        )
        .into(),
        expected: "a session like any other".into(),
        waits: false,
        run: run(move |context| Box::pin(split_at_each(context, life))),
    }
}

async fn split_at_each(context: &mut Context, life: Life) -> Verdict {
    let sent = life.measure(context).await?;
    let lengths = sent.values().flatten().map(|sent| sent.end - sent.start);
    let mut cuts: Vec<usize> = match context.subject.starts_quickly() {
        true => (1..lengths.max().unwrap_or(0)).collect(),
        false => {
            let header = HeaderKind::Mini.len();
            lengths.map(|length| length - 1).chain([1, header - 1, header, header + 1]).collect()
        }
    };
    cuts.sort_unstable();
    cuts.dedup();
    let cuts: Vec<_> = cuts.into_iter().map(|after| Cut::Split { after }).collect();
    try_each(context, life, &cuts).await
}

fn bytes_case(life: Life) -> Case {
    let description = life.description();
    Case {
        id: format!("cut/bytes/{}", life.name()).into(),
        title: format!("Every byte of a client may come in a segment of its own, in {description}").into(),
        requirements: &["M5.8", "L9.1"],
        level: Level::Must,
        sent: format!("{description}, each byte by itself, and of tickets eight at a time").into(),
        expected: "a session like any other".into(),
        waits: false,
        run: run(move |context| Box::pin(byte_by_byte(context, life))),
    }
}

async fn byte_by_byte(context: &mut Context, life: Life) -> Verdict {
    life.start(context).await?;
    life.live(context, &Wire::new(Some(Cut::Bytes)), &mut Course::default()).await.or_fail("M5.8")
}
