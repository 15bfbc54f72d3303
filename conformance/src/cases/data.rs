//! Migration data that no source has sent: a client carries it, so a target can rely on nothing in it.
//!
//! The data is that of the source itself, with one thing changed. What a target cannot use, it has to refuse; what it may take for
//! harmless, or for harmful, it may refuse or use. Neither may harm anything but that channel.

use std::time::Instant;

use spice_migration::{
    ChannelType, ClientMessage, Data,
    state::{JpegWanCompression, State},
};

use super::{
    check_open,
    malformed::{COMPRESSED_DATA, DEVICE_DATA, LZ4, compressed_data},
};
use crate::{
    case::{Case, Context, Level, OrFail, Stop, Unexpected, Verdict, check, run},
    context::{Place, Setup},
    migration::{Prepared, collect, deliver, take_data},
    peer::{
        client::{Channel, Closed, Session, is, until},
        host::idle_data,
    },
    situation::Situation,
};

/// The channels that have data.
const CHANNELS: [ChannelType; 5] =
    [ChannelType::MAIN, ChannelType::DISPLAY, ChannelType::INPUTS, ChannelType::PORT, ChannelType::SMARTCARD];

/// Of main's data without what it points to.
const MAIN_LEN: usize = 65;

/// Where display's data points to its list of surfaces, and its length without that.
const SURFACES_AT: usize = 76;
const DISPLAY_LEN: usize = 80;

/// Of a port's data, and of a smartcard's, without what they point to.
const PORT_LEN: usize = 33;
const SMARTCARD_LEN: usize = 42;

/// A value that a field is set to.
#[derive(Clone, Copy)]
enum Value {
    Is(u32),
    /// The length of the data, and so much more.
    End(i32),
}

/// What is changed in the data.
#[derive(Clone, Copy)]
enum Change {
    Bytes(usize, &'static [u8]),
    Number(usize, Value),
    /// Where display's list of surfaces lies, plus an offset.
    Surfaces(usize, u32),
    /// A surface is listed twice.
    SurfaceTwice,
    Cut(usize),
    CutLast,
    Longer,
    /// The magic of another channel.
    Magic(&'static [u8; 4]),
}

/// Whether the target has to refuse what came of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Demand {
    Refuse,
    /// Or use it.
    Survive,
}

/// When the guest's agent attaches at the target, which uses what main's data says of it no earlier.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agent {
    Never,
    /// Before the data comes.
    Early,
    /// After that.
    Late,
}

struct Altered {
    name: String,
    channel_type: ChannelType,
    /// What is done, as a reader is told.
    done: String,
    /// What makes the rest of the data lead to it.
    before: &'static [Change],
    change: Change,
    demand: Demand,
}

pub(super) fn cases() -> Vec<Case> {
    let all = [main(), display(), inputs(), port(), smartcard()].into_iter().flatten();
    let altered = all.map(|altered| altered_case(altered, Agent::Never));
    let of_agent = [Agent::Early, Agent::Late]
        .into_iter()
        .flat_map(|agent| agent_state().into_iter().map(move |altered| altered_case(altered, agent)));
    let early = CHANNELS.into_iter().flat_map(|channel_type| {
        [("magic", Change::Magic(b"XXXX")), ("version-2", Change::Number(4, Value::Is(2))), ("empty", Change::Cut(0))]
            .map(|(name, change)| early_case(channel_type, name, change))
    });
    let undue = UNDUE.iter().map(|(name, channel_type, undue)| undue_case(name, *channel_type, *undue));
    let behind_bytes = [ChannelType::PORT, ChannelType::SMARTCARD].map(behind_bytes_case);
    altered
        .chain(of_agent)
        .chain(early)
        .chain(undue)
        .chain(behind_bytes)
        .chain([Before::Huge, Before::Nothing, Before::Much].map(before_case))
        .chain([cursor_case()])
        .collect()
}

// What is changed.

/// What all kinds of data have in common: a header, and a length.
fn common(channel_type: ChannelType, other: &'static [u8; 4], cuts: &[usize]) -> Vec<Altered> {
    use Demand::{Refuse, Survive};
    let altered = |name: &str, done: &str, change, demand| Altered {
        name: name.to_owned(),
        channel_type,
        done: done.to_owned(),
        before: &[],
        change,
        demand,
    };
    let mut all = vec![
        altered("magic", "another magic", Change::Magic(b"XXXX"), Refuse),
        altered("other-kind", "the magic of another channel's", Change::Magic(other), Refuse),
        altered("version-0", "version 0", Change::Number(4, Value::Is(0)), Survive),
        altered("version-2", "version 2", Change::Number(4, Value::Is(2)), Refuse),
        altered("version-max", "version 2^32 - 1", Change::Number(4, Value::Is(u32::MAX)), Refuse),
        altered("longer", "one byte more", Change::Longer, Survive),
    ];
    let cut = |&length: &usize| {
        altered(&format!("cut-{length}"), &format!("only {length} bytes left"), Change::Cut(length), Refuse)
    };
    all.extend(cuts.iter().map(cut));
    all
}

/// Sizes and pointers are set to these.
const VALUES: [(&str, Value); 7] = [
    ("0", Value::Is(0)),
    ("1", Value::Is(1)),
    ("end-1", Value::End(-1)),
    ("end", Value::End(0)),
    ("end+1", Value::End(1)),
    ("2^31", Value::Is(1 << 31)),
    ("2^32-1", Value::Is(u32::MAX)),
];

fn main() -> Vec<Altered> {
    let mut all = common(ChannelType::MAIN, b"DCMD", &[0, 1, 4, 7, 8, 33, MAIN_LEN - 1]);
    all.extend(agent_state());
    all
}

/// What main's data says of the agent.
fn agent_state() -> Vec<Altered> {
    // The agent is connected, sixteen bytes are on their way to it, and half a message has come from it.
    const BUSY: &[Change] = &[
        Change::Bytes(12, &[1]),
        Change::Bytes(21, &[16, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0]),
        Change::Bytes(34, &[8, 0, 0, 0, 1, 0, 0, 0, 64, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0]),
    ];
    let altered = |name: String, done, change, demand| Altered {
        name,
        channel_type: ChannelType::MAIN,
        done,
        before: BUSY,
        change,
        demand,
    };
    let led = [
        ("write_size", 21),
        ("write_data_ptr", 29),
        ("chunk_header_size", 34),
        ("msg_header_partial_len", 47),
        ("msg_header_ptr", 51),
    ];
    let mut all = Vec::new();
    for ((field, at), (name, value)) in led.into_iter().flat_map(|field| VALUES.map(|value| (field, value))) {
        let done = format!("{field} = {name}");
        all.push(altered(slug(field, name), done, Change::Number(at, value), value.demand()));
    }
    let numbers = [
        ("agent-version", 8, Demand::Refuse),
        ("num_client_tokens", 13, Demand::Survive),
        ("num_send_tokens", 17, Demand::Survive),
        ("write_num_client_tokens", 25, Demand::Survive),
        ("agent2client.chunk.size", 42, Demand::Survive),
        ("agent2client.msg_remaining", 55, Demand::Survive),
        ("client2agent.msg_remaining", 60, Demand::Survive),
    ];
    for (field, at, demand) in numbers {
        let change = Change::Number(at, Value::Is(u32::MAX));
        all.push(altered(slug(field, "2^32-1"), format!("{field} = 2^32-1"), change, demand));
    }
    let flags = [
        ("connected", 12),
        ("client_agent_started", 33),
        ("msg_header_done", 46),
        ("agent2client.msg_filter_result", 59),
        ("client2agent.msg_filter_result", 64),
    ];
    for (field, at) in flags {
        all.push(altered(slug(field, "255"), format!("{field} = 255"), Change::Bytes(at, &[255]), Demand::Survive));
    }
    all
}

fn display() -> Vec<Altered> {
    use Demand::{Refuse, Survive};
    let cuts = [0, 1, 4, 7, 8, 17, DISPLAY_LEN - 1, DISPLAY_LEN, DISPLAY_LEN + 3];
    let mut all = common(ChannelType::DISPLAY, b"ICMD", &cuts);
    let altered = |name: String, done, change, demand| Altered {
        name,
        channel_type: ChannelType::DISPLAY,
        done,
        before: &[],
        change,
        demand,
    };
    all.push(altered("cut-last".into(), "the last byte gone".into(), Change::CutLast, Refuse));
    for (name, value) in VALUES {
        let done = format!("surfaces_at_client_ptr = {name}");
        // 0 and 1 make a number beyond all measure of the magic.
        all.push(altered(slug("surfaces_at_client_ptr", name), done, Change::Number(SURFACES_AT, value), Refuse));
    }
    // One is listed.
    let counts = [
        ("0", 0, Survive),
        ("2", 2, Refuse),
        ("1025", 1025, Refuse),
        ("2^31", 1 << 31, Refuse),
        ("2^32-1", u32::MAX, Refuse),
    ];
    for (name, count, demand) in counts {
        all.push(altered(
            slug("num_surfaces", name),
            format!("num_surfaces = {name}"),
            Change::Surfaces(0, count),
            demand,
        ));
    }
    for (name, surface) in [("1024", 1024), ("2^31", 1 << 31), ("2^32-1", u32::MAX)] {
        all.push(altered(slug("surface", name), format!("a surface {name}"), Change::Surfaces(4, surface), Refuse));
    }
    all.push(altered("surface-twice".into(), "a surface that is listed twice".into(), Change::SurfaceTwice, Survive));
    let ones: &[u8] = &[255; 8];
    let fields = [
        ("message_serial", 8, ones),
        ("low_bandwidth", 16, &[255]),
        ("pixmap_cache_id", 17, &[255]),
        ("pixmap_cache_size", 18, ones),
        ("pixmap_cache_freezer", 26, &[255]),
        ("pixmap_cache_clients", 27, ones),
        ("glz_dict_id", 59, &[255]),
        ("glz_dict_size", 60, &ones[..4]),
        ("glz_max_encoders", 64, &ones[..4]),
        ("glz_last_image_id", 68, ones),
    ];
    for (field, at, bytes) in fields {
        all.push(altered(slug(field, "max"), format!("all bits of {field} set"), Change::Bytes(at, bytes), Survive));
    }
    for (field, at) in [("pixmap_cache_size", 18), ("glz_dict_size", 60), ("glz_max_encoders", 64)] {
        let bytes = if field == "pixmap_cache_size" { &[0; 8][..] } else { &[0; 4] };
        all.push(altered(slug(field, "0"), format!("{field} = 0"), Change::Bytes(at, bytes), Survive));
    }
    all
}

fn inputs() -> Vec<Altered> {
    let mut all = common(ChannelType::INPUTS, b"MNMD", &[0, 1, 4, 7, 8, 9]);
    all.push(Altered {
        name: slug("motion_count", "max"),
        channel_type: ChannelType::INPUTS,
        done: "motion_count = 65535".to_owned(),
        before: &[],
        change: Change::Bytes(8, &[255; 2]),
        demand: Demand::Survive,
    });
    all
}

fn port() -> Vec<Altered> {
    stream(ChannelType::PORT, b"SCMD", &[0, 1, 4, 7, 8, 9, PORT_LEN - 1])
}

fn smartcard() -> Vec<Altered> {
    let mut all = stream(ChannelType::SMARTCARD, b"SVMD", &[0, 1, 4, 7, 8, PORT_LEN, SMARTCARD_LEN - 1]);
    all.extend(led(ChannelType::SMARTCARD, &[("read_size", 34), ("read_data_ptr", 38)]));
    all.push(Altered {
        name: slug("reader_added", "255"),
        channel_type: ChannelType::SMARTCARD,
        done: "reader_added = 255".to_owned(),
        before: &[],
        change: Change::Bytes(33, &[255]),
        demand: Demand::Survive,
    });
    all
}

/// What is true of a device that is a stream of bytes.
fn stream(channel_type: ChannelType, other: &'static [u8; 4], cuts: &[usize]) -> Vec<Altered> {
    let mut all = common(channel_type, other, cuts);
    all.extend(led(channel_type, &[("write_size", 21), ("write_data_ptr", 29)]));
    let altered =
        |name: String, done, change, demand| Altered { name, channel_type, done, before: &[], change, demand };
    let newer = Change::Number(8, Value::Is(2));
    all.push(altered(slug("device_version", "2"), "a device's state of version 2".to_owned(), newer, Demand::Refuse));
    for (field, at) in [("num_client_tokens", 13), ("num_send_tokens", 17), ("write_num_client_tokens", 25)] {
        let change = Change::Number(at, Value::Is(0x7fff_ffff));
        all.push(altered(slug(field, "2^31"), format!("{field} = 2^31 - 1"), change, Demand::Survive));
    }
    for (value, byte) in [("0", &[0]), ("255", &[255])] {
        let change = Change::Bytes(12, byte);
        all.push(altered(slug("connected", value), format!("connected = {value}"), change, Demand::Survive));
    }
    all
}

/// Sizes and pointers to bytes of a device's stream, at their bounds: 4 bytes from the 8th on, but for the one that is set.
fn led(channel_type: ChannelType, fields: &[(&'static str, usize)]) -> Vec<Altered> {
    const BUSY: &[Change] = &[
        Change::Bytes(21, &[4, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0]),
        // Beyond a port's data, where nothing is written.
        Change::Bytes(34, &[4, 0, 0, 0, 8, 0, 0, 0]),
    ];
    let values = fields.iter().flat_map(|field| VALUES.map(|value| (*field, value)));
    let altered = values.map(|((field, at), (name, value))| Altered {
        name: slug(field, name),
        channel_type,
        done: format!("{field} = {name}"),
        before: BUSY,
        change: Change::Number(at, value),
        demand: value.demand(),
    });
    altered.collect()
}

/// A part of a case's id.
fn slug(field: &str, value: &str) -> String {
    let value =
        value.replace("2^31", "half").replace("2^32-1", "max").replace("end+1", "beyond").replace("end-1", "last");
    format!("{field}-{value}").replace(['_', '.'], "-")
}

impl Value {
    /// For a size of bytes, or a pointer to them: all but the least lead outside of the data.
    const fn demand(self) -> Demand {
        match self {
            Self::Is(0 | 1) => Demand::Survive,
            _ => Demand::Refuse,
        }
    }
}

impl Change {
    fn make(self, data: &mut Vec<u8>) {
        let end = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let put = |data: &mut Vec<u8>, at: usize, bytes: &[u8]| {
            if let Some(place) = data.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        let surfaces =
            data.get(SURFACES_AT..).and_then(|rest| rest.first_chunk()).map_or(0, |at| u32::from_le_bytes(*at));
        let surfaces = usize::try_from(surfaces).unwrap_or(usize::MAX);
        match self {
            Self::Bytes(at, bytes) => put(data, at, bytes),
            Self::Number(at, Value::Is(number)) => put(data, at, &number.to_le_bytes()),
            Self::Number(at, Value::End(more)) => put(data, at, &end.saturating_add_signed(more).to_le_bytes()),
            Self::Surfaces(offset, number) => put(data, surfaces.saturating_add(offset), &number.to_le_bytes()),
            Self::SurfaceTwice => {
                put(data, surfaces, &2_u32.to_le_bytes());
                data.truncate(surfaces.saturating_add(8));
                data.extend_from_within(data.len().saturating_sub(4)..);
            }
            Self::Cut(length) => data.truncate(length),
            Self::CutLast => drop(data.pop()),
            Self::Longer => data.push(0),
            Self::Magic(magic) => put(data, 0, magic),
        }
    }
}

// The cases.

/// Of bad data on a channel.
const fn bad(channel_type: ChannelType) -> &'static [&'static str] {
    match channel_type {
        ChannelType::MAIN => &["T6.1"],
        ChannelType::DISPLAY => &["T6.2"],
        ChannelType::INPUTS => &["T6.3"],
        _ => &["T6.4"],
    }
}

const REFUSED: &str = "the end of that channel, and of no other; the server lives and serves a new client";

fn altered_case(altered: Altered, agent: Agent) -> Case {
    let Altered { name, channel_type, done, before, change, demand } = altered;
    // A target that has no agent yet may look at its state when it has.
    let demand = match (channel_type, agent) {
        (ChannelType::MAIN, Agent::Never | Agent::Late) if !before.is_empty() => Demand::Survive,
        _ => demand,
    };
    let refused = demand == Demand::Refuse;
    let may = if refused { "is refused by a target" } else { "harms nothing else at a target" };
    let (group, attached) = match agent {
        Agent::Never => (channel_type.to_string(), ""),
        Agent::Early => ("agent-early".to_owned(), " where the agent is attached"),
        Agent::Late => ("agent-late".to_owned(), " where the agent attaches afterwards"),
    };
    Case {
        id: format!("data/{group}/{name}").into(),
        title: format!("Data on {channel_type} with {done} {may}{attached}").into(),
        requirements: if refused { bad(channel_type) } else { &["T6"] },
        level: Level::Must,
        sent: format!("the source's data to the target on {channel_type}, with {done}{attached}").into(),
        expected: if refused {
            REFUSED
        } else {
            "that channel served or ended, and no other ended; the server lives and serves a new client"
        }
        .into(),
        // What leads outside of the data, spice-server 0.15.1 often uses, and says nothing.
        waits: refused && bad(channel_type) == ["T6.4"],
        run: run(move |context| Box::pin(judge_altered(context, channel_type, agent, before, change, demand))),
    }
}

fn early_case(channel_type: ChannelType, name: &'static str, change: Change) -> Case {
    Case {
        id: format!("data/before-guest/{channel_type}-{name}").into(),
        title: format!("Bad data on {channel_type} ({name}) is refused by a target before the guest is there").into(),
        requirements: bad(channel_type),
        level: Level::Must,
        sent: format!("data on {channel_type} with another {name} to a target that has agreed to seamless migration")
            .into(),
        expected: REFUSED.into(),
        waits: false,
        run: run(move |context| Box::pin(judge_early(context, channel_type, change))),
    }
}

/// When data is not due.
#[derive(Clone, Copy)]
enum Undue {
    In(Situation),
    Again,
}

const UNDUE: &[(&str, ChannelType, Undue)] = &[
    ("session-main", ChannelType::MAIN, Undue::In(Situation::Session)),
    ("session-display", ChannelType::DISPLAY, Undue::In(Situation::Session)),
    ("session-inputs", ChannelType::INPUTS, Undue::In(Situation::Session)),
    ("linked-main", ChannelType::MAIN, Undue::In(Situation::Linked)),
    ("again-main", ChannelType::MAIN, Undue::Again),
    ("again-display", ChannelType::DISPLAY, Undue::Again),
    ("again-inputs", ChannelType::INPUTS, Undue::Again),
    ("again-port", ChannelType::PORT, Undue::Again),
    ("again-smartcard", ChannelType::SMARTCARD, Undue::Again),
    ("resumed-main", ChannelType::MAIN, Undue::In(Situation::Resumed)),
    ("resumed-display", ChannelType::DISPLAY, Undue::In(Situation::Resumed)),
    ("resumed-inputs", ChannelType::INPUTS, Undue::In(Situation::Resumed)),
];

fn undue_case(name: &str, channel_type: ChannelType, undue: Undue) -> Case {
    let whom = match undue {
        Undue::In(situation) => situation.description(),
        Undue::Again => "a target that has the channel's data",
    };
    Case {
        id: format!("data/undue/{name}").into(),
        title: format!("Good data on {channel_type} ends that channel in {whom}").into(),
        requirements: &["T6.5"],
        level: Level::Must,
        sent: format!("MIGRATE_DATA with good data on {channel_type} to {whom}").into(),
        expected: REFUSED.into(),
        waits: false,
        run: run(move |context| Box::pin(judge_undue(context, channel_type, undue))),
    }
}

fn behind_bytes_case(channel_type: ChannelType) -> Case {
    Case {
        id: format!("data/behind-bytes/{channel_type}").into(),
        title: format!("Bytes for the device before its data on {channel_type} harm nothing else at a target").into(),
        requirements: &["T12"],
        level: Level::Must,
        sent: format!(
            "a message to the device on {channel_type} at the target, then the source's data on all channels"
        )
        .into(),
        expected: format!("the end of {channel_type}, or nothing; the others are served").into(),
        waits: false,
        run: run(move |context| Box::pin(judge_behind_bytes(context, channel_type))),
    }
}

/// For the device of a port, and more of them than that reads.
pub(super) const BYTE: ClientMessage<'_> = ClientMessage::Unknown { id: DEVICE_DATA, body: Data(b"\n") };
pub(super) const MUCH: usize = 200;

/// What a port is sent before its data is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Compressed data that is to become 2^32 - 1 bytes.
    Huge,
    /// Compressed data that becomes nothing, then a byte.
    Nothing,
    /// More than its device reads.
    Much,
}

impl Before {
    fn requirements(self) -> &'static [&'static str] {
        match self {
            Self::Huge | Self::Nothing => &["D4.1"],
            Self::Much => &["S8.5"],
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Huge | Self::Nothing => "the data of a port, whole, with nothing in it that the device has not read",
            Self::Much => "the data of a port, whole",
        }
    }
}

fn before_case(before: Before) -> Case {
    let (name, title, sent) = match before {
        Before::Huge => {
            let title = "A port's compressed data with a size that makes no sense does not get into its migration data";
            ("compressed-huge", title, "COMPRESSED_DATA that is to become 2^32 - 1 bytes")
        }
        Before::Nothing => {
            let title = "A port's compressed data that becomes nothing does not keep what follows from the device";
            ("compressed-nothing", title, "COMPRESSED_DATA that becomes nothing, and a byte")
        }
        Before::Much => {
            let title = "A port that is sent more than its device reads is migrated all the same";
            ("much", title, "200 messages of a byte each")
        }
    };
    Case {
        id: format!("data/port-before/{name}").into(),
        title: title.into(),
        requirements: before.requirements(),
        level: Level::Must,
        sent: format!("{sent} on port at the source; a seamless migration").into(),
        expected: format!("{}, or the port's end; a session that works at the target", before.expected()).into(),
        waits: false,
        run: run(move |context| Box::pin(judge_before(context, before))),
    }
}

fn cursor_case() -> Case {
    Case {
        id: "data/cursor/any".into(),
        title: "Data on cursor, which has none, harms nothing else at a target".into(),
        requirements: &["T6"],
        level: Level::Must,
        sent: "MIGRATE_DATA on the target's cursor channel; then the source's data on the others".into(),
        expected: "the end of cursor, or nothing; the others are served".into(),
        waits: false,
        run: run(|context| Box::pin(judge_cursor(context))),
    }
}

/// A client that has all data of the source, and has given none of it to the target.
struct Collected {
    target: Session,
    data: Vec<(ChannelType, Vec<u8>)>,
    /// Waits for its client.
    _source: Session,
}

impl Collected {
    async fn reach(context: &mut Context, channel_type: ChannelType) -> Result<Self, Stop> {
        let Prepared { mut source, target, .. } = prepared(context, channel_type).await?;
        context.migrate(Place::Source, Place::Target).await?;
        let data = collect(&mut source).await?;
        Ok(Self { target, data, _source: source })
    }

    fn data_of(&self, channel_type: ChannelType) -> Result<Vec<u8>, Stop> {
        let found = self.data.iter().find(|(other, _)| *other == channel_type);
        found.map(|(_, data)| data.clone()).ok_or_else(|| Stop::Inconclusive(format!("no data on {channel_type}")))
    }
}

/// Of a guest that has this channel.
async fn prepared(context: &mut Context, channel_type: ChannelType) -> Result<Prepared, Stop> {
    let port_and_smartcard = matches!(channel_type, ChannelType::PORT | ChannelType::SMARTCARD);
    context.start_pair(Setup { seamless: true, port_and_smartcard, ..Setup::default() }).await?;
    let client = context.client();
    let session = context.connect(&client, Place::Source).await?;
    context.prepare(&client, session, Place::Source, Place::Target).await
}

async fn judge_altered(
    context: &mut Context,
    channel_type: ChannelType,
    agent: Agent,
    before: &[Change],
    change: Change,
    demand: Demand,
) -> Verdict {
    let patience = context.patience();
    let mut collected = Collected::reach(context, channel_type).await?;
    if agent == Agent::Early {
        context.attach_agent(Place::Target, true).await?;
    }
    let mut data = collected.data_of(channel_type)?;
    for change in before.iter().chain([&change]) {
        change.make(&mut data);
    }
    let good_main = collected.data_of(ChannelType::MAIN)?;
    let target = &mut collected.target;
    let requirement = bad(channel_type)[0];
    match demand {
        Demand::Refuse => refused(target.channel(channel_type)?, &data, requirement).await?,
        Demand::Survive => {
            let channel = target.channel(channel_type)?;
            skip(channel).await?;
            deliver(channel, &data);
            // Where it is used, this comes of it; what it does there should have happened before the end. Nothing need come on the
            // channel of a stream.
            if bad(channel_type) != ["T6.4"] {
                let _ = channel.next("a first message, or the end").await;
            }
            if agent == Agent::Late {
                context.attach_agent(Place::Target, true).await?;
            }
            channel.finish();
            channel.closed_within(patience).await.or_fail("T6")?;
        }
    }
    let requirement = if demand == Demand::Refuse { requirement } else { "T6" };
    goes_on(target, channel_type, &good_main, requirement).await
}

async fn judge_early(context: &mut Context, channel_type: ChannelType, change: Change) -> Verdict {
    let Prepared { mut target, source: _source, .. } = prepared(context, channel_type).await?;
    let mut data = idle_data(channel_type);
    change.make(&mut data);
    let requirement = bad(channel_type)[0];
    refused(target.channel(channel_type)?, &data, requirement).await?;
    goes_on(&mut target, channel_type, &idle_data(ChannelType::MAIN), requirement).await
}

/// Has main take its data, and sees to it that no channel has ended but the one that should. With main the session ends.
async fn goes_on(target: &mut Session, lost: ChannelType, main: &[u8], requirement: &'static str) -> Verdict {
    if lost == ChannelType::MAIN {
        return Ok(());
    }
    deliver(&target.main, main);
    until!(target.main, MultiMediaTime).await.or_fail(requirement)?;
    let mut others = target.channels().filter(|channel| channel.id.channel_type != lost);
    others.try_for_each(|channel| check_open(channel, requirement))
}

async fn judge_undue(context: &mut Context, channel_type: ChannelType, undue: Undue) -> Verdict {
    let patience = context.patience();
    match undue {
        Undue::In(situation) => {
            let mut sessions = situation.reach(context).await?;
            let channel = sessions.channel(situation, channel_type)?;
            deliver(channel, &idle_data(channel_type));
            channel.closed_within(patience).await.or_fail("T6.5")?;
            if channel_type != ChannelType::MAIN {
                sessions.go_on(context, situation, Some(channel_type)).await.or_fail("T6.5")?;
            }
        }
        Undue::Again => {
            let mut collected = Collected::reach(context, channel_type).await?;
            let data = collected.data_of(channel_type)?;
            let good_main = collected.data_of(ChannelType::MAIN)?;
            let target = &mut collected.target;
            let channel = target.channel(channel_type)?;
            deliver(channel, &data);
            deliver(channel, &data);
            channel.closed_within(patience).await.or_fail("T6.5")?;
            goes_on(target, channel_type, &good_main, "T6.5").await?;
        }
    }
    Ok(())
}

async fn judge_behind_bytes(context: &mut Context, channel_type: ChannelType) -> Verdict {
    let mut collected = Collected::reach(context, channel_type).await?;
    // To a smartcard reader, that it be added: type, reader and length.
    let body: &[u8] = if channel_type == ChannelType::SMARTCARD { b"\x03\0\0\0\0\0\0\0\0\0\0\0" } else { b"\n" };
    collected.target.child(channel_type)?.send(ClientMessage::Unknown { id: DEVICE_DATA, body: Data(body) });
    for (channel_type, data) in std::mem::take(&mut collected.data) {
        deliver(collected.target.channel(channel_type)?, &data);
    }
    // The server has heard all of it when it closes, which it does because nothing more is sent.
    let device = collected.target.child(channel_type)?;
    device.finish();
    device.closed_within(context.patience()).await.or_fail("T12")?;
    until!(collected.target.main, MultiMediaTime).await.or_fail("T12")?;
    for spared in [ChannelType::DISPLAY, ChannelType::INPUTS] {
        check_open(collected.target.channel(spared)?, "T12")?;
    }
    Ok(())
}

async fn judge_before(context: &mut Context, before: Before) -> Verdict {
    let requirement = before.requirements()[0];
    let Prepared { mut source, mut target, .. } = prepared(context, ChannelType::PORT).await?;
    let port = source.child(ChannelType::PORT)?;
    match before {
        Before::Huge => {
            let body = compressed_data(LZ4, u32::MAX);
            port.send(ClientMessage::Unknown { id: COMPRESSED_DATA, body: Data(&body) });
        }
        Before::Nothing => {
            // LZ4's way to say nothing is a byte of zero.
            port.send(ClientMessage::Unknown { id: COMPRESSED_DATA, body: Data(&[LZ4, 0, 0, 0, 0, 0]) });
            port.send(BYTE);
            // So that the device has had it before the guest stops.
            source.list_channels().await?;
        }
        Before::Much => (0..MUCH).for_each(|_| port.send(BYTE)),
    }
    context.migrate(Place::Source, Place::Target).await?;
    for channel in source.channels() {
        let channel_type = channel.id.channel_type;
        match take_data(channel).await {
            Ok(Some(data)) if channel_type == ChannelType::PORT => {
                let state = State::for_target(channel_type, JpegWanCompression::Never, &data);
                let unread = match &state {
                    Ok(State::SpiceVmc(state)) => state.device.pending.data.0,
                    _ => &[],
                };
                let most = if before == Before::Much { MUCH } else { 0 };
                let as_it_should = state.is_ok() && unread.len() <= most && unread.iter().all(|byte| *byte == b'\n');
                let got = format!("{} bytes, {}", data.len(), data.escape_ascii());
                check(as_it_should, requirement, &channel.name, before.expected(), got)?;
                deliver(target.channel(channel_type)?, &data);
            }
            Ok(Some(data)) => deliver(target.channel(channel_type)?, &data),
            Ok(None) => {}
            // What makes no sense may have cost the client that channel.
            Err(_) if channel_type == ChannelType::PORT && before != Before::Much && channel.has_ended().is_some() => {
                target.take_child(channel_type)?.close().await;
            }
            Err(unexpected) => return Err(unexpected).or_fail(requirement),
        }
    }
    target.list_channels_when_migrated().await.or_fail(requirement)
}

async fn judge_cursor(context: &mut Context) -> Verdict {
    let mut collected = Collected::reach(context, ChannelType::CURSOR).await?;
    let channels: Vec<_> = collected.data.iter().map(|(channel_type, _)| *channel_type).collect();
    deliver(collected.target.channel(ChannelType::CURSOR)?, &idle_data(ChannelType::MAIN));
    for (channel_type, data) in std::mem::take(&mut collected.data) {
        deliver(collected.target.channel(channel_type)?, &data);
    }
    collected.target.list_channels_when_migrated().await.or_fail("T6")?;
    for channel_type in channels {
        check_open(collected.target.channel(channel_type)?, "T6")?;
    }
    Ok(())
}

/// Demands that a channel ends of data, and is not served instead. On main and display a server says nothing of this kind before.
async fn refused(channel: &mut Channel, data: &[u8], requirement: &'static str) -> Verdict {
    const AWAITED: &str = "the peer to close the connection";
    let patience = channel.patience();
    skip(channel).await?;
    deliver(channel, data);
    let deadline = Instant::now() + patience;
    while let Ok(received) = channel.next_within(AWAITED, deadline.saturating_duration_since(Instant::now())).await {
        if is!(received, MultiMediaTime | SetAck) {
            return Err(channel.unexpected(AWAITED, received.name())).or_fail(requirement);
        }
    }
    let got = match channel.has_ended() {
        None => format!("it open after {patience:?}"),
        Some(Closed::Clean | Closed::Reset) => return Ok(()),
        Some(given_up) => given_up.to_string(),
    };
    Err(channel.unexpected(AWAITED, got)).or_fail(requirement)
}

/// Takes what came before.
async fn skip(channel: &mut Channel) -> Result<(), Unexpected> {
    for _ in 0..channel.arrived().count() {
        channel.next("what has arrived").await?;
    }
    Ok(())
}
