//! Messages that are none: cut off, too long, of unknown types, with values that make no sense, or behind headers that say something
//! else than what follows.
//!
//! A server need not do anything about them in particular. But they are its client's fault, and nobody else is to suffer for it.

use std::sync::Arc;

use spice_migration::{
    ChannelType, ClientMessage, Data,
    caps::CommonCapability,
    frame::{Header, HeaderKind},
    message::{ChannelId, Message, client},
};

use crate::{
    case::{Case, Context, Failure, Level, Stop, Unexpected, Verdict, run},
    context::{Place, Setup},
    peer::client::{Client, Session},
};

use super::message::{Example, examples};

const CHANNELS: [ChannelType; 6] = [
    ChannelType::MAIN,
    ChannelType::DISPLAY,
    ChannelType::INPUTS,
    ChannelType::CURSOR,
    ChannelType::PORT,
    ChannelType::SMARTCARD,
];

/// Well-formed on every channel, and of no effect.
const PONG: ClientMessage<'_> = ClientMessage::Pong(client::Pong { id: 7, timestamp: 7 });

/// How often a display is linked that ends before its first message: spice-server 0.15.1 dies of it nearly each time.
const RACED: usize = 5;

/// `SPICE_MSGC_SPICEVMC_DATA` and `SPICE_MSGC_SMARTCARD_DATA`.
pub(super) const DEVICE_DATA: u16 = 101;

/// `SPICE_MSGC_SPICEVMC_COMPRESSED_DATA`.
pub(super) const COMPRESSED_DATA: u16 = 102;

/// The messages of the channels of devices that guests may have.
const DEVICES: [Example; 4] = [
    device(ChannelType::PORT, "data", DEVICE_DATA, b"x"),
    device(ChannelType::PORT, "compressed-data", COMPRESSED_DATA, &compressed_data(LZ4, 1)),
    // SPICE_MSGC_PORT_EVENT: the client's end is open.
    device(ChannelType::PORT, "event", 201, &[1]),
    device(ChannelType::SMARTCARD, "data", DEVICE_DATA, &READER_ADD),
];

const fn device(channel_type: ChannelType, name: &'static str, id: u16, body: &'static [u8]) -> Example {
    Example { channel_type, name, message: ClientMessage::Unknown { id, body: Data(body) } }
}

/// `VSC_ReaderAdd`, of reader 0, with a name of one byte: type, reader, and length.
const READER_ADD: [u8; 13] = [3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'x'];

/// Its body: how, how many bytes it becomes, and a literal of one byte.
pub(super) const fn compressed_data(compression: u8, size: u32) -> [u8; 7] {
    let [a, b, c, d] = size.to_le_bytes();
    [compression, a, b, c, d, 0x10, 0]
}

/// `SPICE_DATA_COMPRESSION_TYPE_LZ4`.
pub(super) const LZ4: u8 = 1;

/// Sizes and offsets that no message comes near.
const HUGE: [u32; 2] = [1 << 31, u32::MAX];

/// More than a message has, and less than any channel's limit.
const MUCH: usize = 512;

/// What is sent in place of messages, in a session of its own.
struct Malformed {
    what: String,
    headers: HeaderKind,
    bytes: Vec<u8>,
}

/// What must follow.
#[derive(Clone, Copy)]
enum Follows {
    /// The server closes the channel.
    End,
    /// The connection ends once the client sends nothing more.
    EndInTheEnd,
    /// The same, when the server has said something: where it would not live to say it if the client ended at once.
    EndAfterAnswer,
}

/// What a case tries.
struct Trials {
    requirement: &'static str,
    channel_type: ChannelType,
    follows: Follows,
    /// Whether display has had DISPLAY_INIT before.
    initialised: bool,
    /// Whether another client is connected, whose session must go on.
    bystander: bool,
    all: Vec<Malformed>,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for example in examples().chain(DEVICES) {
        let Example { channel_type, name, .. } = example;
        let id = |topic| format!("malformed/{topic}/{channel_type}-{name}");
        let called = c_name(&example);
        // One of several ends spice-server 0.15.1, whatever its length.
        let initialised = name != "init";
        let trials = |requirement, follows, all| Trials {
            requirement,
            channel_type,
            follows,
            initialised,
            bystander: false,
            all,
        };
        if !is_opaque(&example) && !body(&example).is_empty() {
            let title = format!("{called} with too short a body harms nobody else on {channel_type}");
            cases.push(case(id("short"), title, trials("M5.1", Follows::EndInTheEnd, too_short(&example))));
        }
        let behind = if initialised { Follows::EndInTheEnd } else { Follows::EndAfterAnswer };
        // Two that are not due kill spice-server 0.15.1 whatever they hold. That is judged where they are whole.
        if !is_opaque(&example) && !["migrate-flush-mark", "migrate-dst-do-seamless"].contains(&name) {
            let title = format!("{called} with too long a body harms nobody else on {channel_type}");
            cases.push(case(id("long"), title, trials("M5.3", behind, too_long(&example))));
            if !body(&example).is_empty() {
                let title = format!("{called} with values that make no sense harms nobody else on {channel_type}");
                cases.push(case(id("values"), title, trials("M5.7", behind, values(&example))));
            }
        }
        if !body(&example).is_empty() {
            let title = format!("{called} behind a header with another size harms nobody else on {channel_type}");
            cases.push(case(id("size"), title, trials("M5.4", Follows::EndInTheEnd, sizes(&example))));
        }
        if is_oversized(&example) {
            let title = format!("The header of {called} that announces 2 GiB and more ends the channel {channel_type}");
            let trials = Trials { initialised: true, ..trials("M5.2", Follows::End, oversized(&example)) };
            cases.push(case(id("oversized"), title, trials));
        }
    }
    let title = "COMPRESSED_DATA with values that make no sense harms nobody else on port".to_owned();
    let (channel_type, follows) = (ChannelType::PORT, Follows::EndInTheEnd);
    let trials =
        Trials { requirement: "M5.7", channel_type, follows, initialised: true, bystander: false, all: compressed() };
    cases.push(case("malformed/values/port-compressed-data".to_owned(), title, trials));
    for (name, reader, when) in
        [("reader", true, "behind VSC_ReaderAdd"), ("no-reader", false, "without VSC_ReaderAdd")]
    {
        let title = format!("Data of a smartcard {when} harms nobody else, whatever its header says");
        let all = smartcard(reader);
        let channel_type = ChannelType::SMARTCARD;
        let trials = Trials { requirement: "M5.7", channel_type, follows, initialised: true, bystander: false, all };
        cases.push(case(format!("malformed/values/smartcard-{name}"), title, trials));
    }
    let title = "A display channel that ends before its first message harms nobody else".to_owned();
    let nothing = || Malformed { what: "nothing".to_owned(), headers: HeaderKind::Mini, bytes: Vec::new() };
    let nothing = std::iter::repeat_with(nothing).take(RACED).collect();
    let id = "malformed/no-init/display".to_owned();
    let (channel_type, follows) = (ChannelType::DISPLAY, Follows::EndInTheEnd);
    let trials =
        Trials { requirement: "M5.4", channel_type, follows, initialised: false, bystander: false, all: nothing };
    cases.push(case(id, title, trials));
    for channel_type in CHANNELS {
        let trials = |requirement, follows, all| Trials {
            requirement,
            channel_type,
            follows,
            initialised: true,
            bystander: false,
            all,
        };
        let id = |topic| format!("malformed/{topic}/{channel_type}");
        let title = format!("A message of a type that {channel_type} does not have ends that channel");
        cases.push(case(id("unknown"), title, trials("M4.1", Follows::End, unknown(channel_type))));
        let title = format!("A connection that ends within a header harms nobody else on {channel_type}");
        cases.push(case(id("half-header"), title, trials("M5.4", Follows::EndInTheEnd, half_headers())));
        let title =
            format!("A list of sub-messages that leads outside of the message harms nobody else on {channel_type}");
        cases.push(case(id("sub-list"), title, trials("M5.5", Follows::EndInTheEnd, sub_lists())));
        let title = format!("A client's serials that do not count harm nobody else on {channel_type}");
        cases.push(case(id("serial"), title, trials("M5.6", Follows::EndInTheEnd, serials())));
        let title = format!("What one client sends malformed on {channel_type} costs no other client anything");
        let pong = Example { channel_type, name: "pong", message: PONG };
        let all = [too_short(&pong), half_headers(), sub_lists(), serials()].into_iter().flatten();
        let trials = trials("M5.9", Follows::EndInTheEnd, all.collect());
        cases.push(case(id("bystander"), title, Trials { bystander: true, ..trials }));
    }
    cases
}

fn case(id: String, title: String, trials: Trials) -> Case {
    let Trials { requirement, channel_type, follows, all, .. } = &trials;
    let (first, last) = (all.first().map_or("", |one| &one.what), all.last().map_or("", |one| &one.what));
    let behind = match follows {
        Follows::End => "",
        Follows::EndInTheEnd | Follows::EndAfterAnswer => "; behind it the client sends nothing more",
    };
    let expected = match follows {
        Follows::End => "the end of this channel at once; the server lives and serves a new client",
        Follows::EndInTheEnd | Follows::EndAfterAnswer => {
            "an answer, nothing, or the end of this channel; the server lives and serves a new client"
        }
    };
    let (requirements, count) = (requirements(requirement), all.len());
    let sent = format!("{count} sessions, from {first} to {last}, on {channel_type}{behind}");
    let trials = Arc::new(trials);
    Case {
        id: id.into(),
        title: title.into(),
        requirements,
        level: Level::Must,
        sent: sent.into(),
        expected: expected.into(),
        // Where a server waits for all of the body, nothing happens.
        waits: requirements == ["M5.2"],
        run: run(move |context| Box::pin(judge(context, trials.clone()))),
    }
}

fn requirements(requirement: &'static str) -> &'static [&'static str] {
    match requirement {
        "M4.1" => &["M4.1"],
        "M5.1" => &["M5.1"],
        "M5.2" => &["M5.2"],
        "M5.3" => &["M5.3"],
        "M5.4" => &["M5.4"],
        "M5.5" => &["M5.5"],
        "M5.6" => &["M5.6"],
        "M5.9" => &["M5.9"],
        _ => &["M5.7"],
    }
}

// What is sent.

fn too_short(example: &Example) -> Vec<Malformed> {
    let (id, body) = (example.message.id(), body(example));
    let lengths = (0..body.len()).rev();
    lengths
        .map(|length| {
            let what = format!("{} of {} bytes of its body", length, body.len());
            mini(what, id, length, &body[..length])
        })
        .collect()
}

fn too_long(example: &Example) -> Vec<Malformed> {
    let (id, body) = (example.message.id(), body(example));
    [1, MUCH]
        .map(|more| {
            let long = [&body[..], &vec![0; more]].concat();
            mini(format!("{more} bytes behind its body"), id, long.len(), &long)
        })
        .into()
}

fn values(example: &Example) -> Vec<Malformed> {
    let (id, length) = (example.message.id(), body(example).len());
    [0, 0x7f, 0x80, 0xff]
        .map(|byte| mini(format!("a body of {byte:#04x} throughout"), id, length, &vec![byte; length]))
        .into()
}

fn compressed() -> Vec<Malformed> {
    let bodies = [(u8::MAX, 1), (LZ4, 0), (LZ4, 2), (LZ4, HUGE[0]), (LZ4, HUGE[1])].map(|(compression, size)| {
        let body = compressed_data(compression, size);
        mini(format!("compression {compression} to {size} bytes"), COMPRESSED_DATA, body.len(), &body)
    });
    let of_ones = mini("a body of 0xff throughout".to_owned(), COMPRESSED_DATA, 7, &[u8::MAX; 7]);
    [of_ones].into_iter().chain(bodies).collect()
}

/// Every type of message that readers have and some that they have not, of readers that there are and that there are not, with every
/// length that does not fit.
fn smartcard(reader: bool) -> Vec<Malformed> {
    let add = mini(String::new(), DEVICE_DATA, READER_ADD.len(), &READER_ADD).bytes;
    let before = if reader { add } else { Vec::new() };
    let kinds = (0..=9).chain(HUGE).flat_map(|kind| [0, 1, HUGE[0], HUGE[1]].map(|reader| [kind, reader, 1]));
    // VSC_ReaderAdd and VSC_APDU.
    let lengths = [0, 2, HUGE[0], HUGE[1]].into_iter().flat_map(|length| [3, 7].map(|kind| [kind, 0, length]));
    let of_ones = mini("a body of 0xff throughout".to_owned(), DEVICE_DATA, 13, &[u8::MAX; 13]);
    let all = kinds.chain(lengths).map(|words: [u32; 3]| {
        let [kind, reader, length] = words;
        let body = [words.map(u32::to_le_bytes).as_flattened(), b"x"].concat();
        let what = format!("type {kind} of reader {reader} with length {length}");
        let one = mini(what, DEVICE_DATA, body.len(), &body);
        Malformed { bytes: [&before[..], &one.bytes].concat(), ..one }
    });
    all.chain([of_ones]).collect()
}

fn sizes(example: &Example) -> Vec<Malformed> {
    let (id, body) = (example.message.id(), body(example));
    let mut sizes = vec![0, 1, body.len() - 1, body.len() + 1];
    if !is_oversized(example) {
        sizes.extend(HUGE.map(|size| size as usize));
    }
    sizes.retain(|size| *size != body.len());
    sizes.dedup();
    sizes.into_iter().map(|size| mini(format!("size {size} before {} bytes", body.len()), id, size, &body)).collect()
}

fn oversized(example: &Example) -> Vec<Malformed> {
    let id = example.message.id();
    let kinds = [(HeaderKind::Mini, "a mini header"), (HeaderKind::Full, "a full header")];
    let pairs = kinds.into_iter().flat_map(|kind| HUGE.map(|size| (kind, size)));
    pairs
        .map(|((headers, kind), size)| Malformed {
            what: format!("{kind} with size {size}"),
            headers,
            bytes: header(headers, Header { serial: 1, id, size, sub_list: 0 }),
        })
        .collect()
}

fn unknown(channel_type: ChannelType) -> Vec<Malformed> {
    // Around those of every channel, and in the gaps and behind the end of its own.
    let (base, far) = ([0, 7, 8, 50, 99, 100], [200, 255, 256, 0x7fff, 0x8000, u16::MAX]);
    let own: &[u16] = match channel_type {
        ChannelType::MAIN => &[113, 116],
        ChannelType::DISPLAY => &[106],
        ChannelType::INPUTS => &[105, 110, 115],
        ChannelType::CURSOR => &[101],
        _ => &[103, 202],
    };
    base.iter().chain(own).chain(&far).map(|&id| mini(format!("message {id}"), id, 4, &[0; 4])).collect()
}

fn half_headers() -> Vec<Malformed> {
    [HeaderKind::Mini, HeaderKind::Full]
        .into_iter()
        .flat_map(|headers| {
            let whole = header(headers, Header { serial: 1, id: PONG.id(), size: 12, sub_list: 0 });
            (1..=whole.len()).map(move |length| Malformed {
                what: format!("{length} of {} bytes of a header", headers.len()),
                headers,
                bytes: whole[..length].to_vec(),
            })
        })
        .collect()
}

fn sub_lists() -> Vec<Malformed> {
    let pong = encoded(&PONG);
    let end = u32::try_from(pong.len()).unwrap_or(0);
    let at = |sub_list: u32, what: String, list: &[u8]| {
        let body = [&pong[..], list].concat();
        let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let bytes = [header(HeaderKind::Full, Header { serial: 1, id: PONG.id(), size, sub_list }), body].concat();
        Malformed { what, headers: HeaderKind::Full, bytes }
    };
    let offsets = [1, end - 1, end, HUGE[0], HUGE[1]];
    let mut all: Vec<_> = offsets.map(|offset| at(offset, format!("sub_list {offset}"), &[])).into();
    all.push(at(end, "a list of 65535 sub-messages that are not there".to_owned(), b"\xff\xff"));
    all.push(at(end, "a list of a sub-message at 2^32 - 1".to_owned(), b"\x01\0\xff\xff\xff\xff"));
    // The sub-message, a PONG, lies behind its offset, which is 18.
    let huge = b"\x01\0\x12\0\0\0\x03\0\xff\xff\xff\xff";
    all.push(at(end, "a list of a sub-message of 2^32 - 1 bytes".to_owned(), huge));
    all
}

fn serials() -> Vec<Malformed> {
    [[0, 0], [5, 5], [9, 3], [u64::MAX, 1]]
        .map(|serials| {
            let pong = encoded(&PONG);
            let messages = serials.map(|serial| {
                let header = header(HeaderKind::Full, Header { serial, id: PONG.id(), size: 12, sub_list: 0 });
                [header, pong.clone()].concat()
            });
            let [first, second] = serials;
            let what = format!("the serials {first} and {second}");
            Malformed { what, headers: HeaderKind::Full, bytes: messages.concat() }
        })
        .into()
}

/// Whether its body may have any length.
fn is_opaque(example: &Example) -> bool {
    ["migrate-data", "agent-data", "quality-indicator", "key-scancode", "unknown", "data", "compressed-data"]
        .contains(&example.name)
}

/// Whether it is one of those that a size without measure is tried with: servers may have other limits for some.
fn is_oversized(example: &Example) -> bool {
    ["pong", "migrate-data", "agent-data", "init", "key-scancode", "data"].contains(&example.name)
}

fn c_name(example: &Example) -> String {
    match example.message {
        ClientMessage::Unknown { id, .. } => format!("{} ({id})", example.name.to_uppercase().replace('-', "_")),
        message => message.c_name().to_owned(),
    }
}

fn body(example: &Example) -> Vec<u8> {
    encoded(&example.message)
}

fn encoded(message: &ClientMessage<'_>) -> Vec<u8> {
    let mut body = vec![0; message.encoded_len()];
    let length = message.encode(&mut body).unwrap_or(0);
    body.truncate(length);
    body
}

fn mini(what: String, id: u16, size: usize, body: &[u8]) -> Malformed {
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    let header = header(HeaderKind::Mini, Header { serial: 0, id, size, sub_list: 0 });
    Malformed { what, headers: HeaderKind::Mini, bytes: [&header, body].concat() }
}

fn header(kind: HeaderKind, header: Header) -> Vec<u8> {
    let mut bytes = vec![0; kind.len()];
    let encoded = header.encode(kind, &mut bytes);
    debug_assert!(encoded.is_ok(), "there is room");
    bytes
}

// How it is judged.

async fn judge(context: &mut Context, trials: Arc<Trials>) -> Verdict {
    let Trials { requirement, channel_type, follows, initialised, bystander, all } = &*trials;
    let (requirement, channel_type) = (*requirement, *channel_type);
    let port_and_smartcard = matches!(channel_type, ChannelType::PORT | ChannelType::SMARTCARD);
    let several_clients = *bystander;
    context.start_source(Setup { port_and_smartcard, several_clients, ..Setup::NOTHING }).await?;
    let client = context.client();
    let mut other = match bystander {
        true => Some(context.connect_main(&client, Place::Source).await?),
        false => None,
    };
    let mut before: Option<&str> = None;
    for Malformed { what, headers, bytes } in all {
        let mut client = context.client();
        if *headers == HeaderKind::Full {
            client = client.with_common(&[CommonCapability::AUTH_SELECTION, CommonCapability::AUTH_SPICE]);
        }
        let mut session =
            linked(context, &client, channel_type, *initialised).await.map_err(|unexpected| match before {
                None => Stop::Blocked(unexpected),
                Some(before) => after(requirement, before, unexpected),
            })?;
        let patience = context.patience();
        let channel = match channel_type {
            ChannelType::MAIN => &mut session.main,
            _ => session.child(channel_type)?,
        };
        channel.send_bytes(what, bytes.clone());
        if let Follows::EndAfterAnswer = follows {
            let _ = channel.next("a first message, or the end").await;
        }
        if !matches!(follows, Follows::End) {
            channel.finish();
        }
        channel.closed_within(patience).await.map_err(|unexpected| after(requirement, what, unexpected))?;
        if channel_type != ChannelType::MAIN {
            session.list_channels().await.map_err(|unexpected| after(requirement, what, unexpected))?;
        }
        session.close().await;
        if let Some(other) = &mut other {
            other.list_channels().await.map_err(|unexpected| after(requirement, what, unexpected))?;
        }
        before = Some(what);
    }
    Ok(())
}

/// A new session with main and that channel.
async fn linked(
    context: &mut Context,
    client: &Client,
    channel_type: ChannelType,
    initialised: bool,
) -> Result<Session, Unexpected> {
    let mut session = context.connect_main(client, Place::Source).await?;
    if channel_type != ChannelType::MAIN {
        let address = context.address(Place::Source);
        let id = ChannelId { channel_type, id: 0 };
        let channel = client.link(Place::Source.name(), address, session.id, id).await?;
        match initialised {
            true => session.adopt(channel).await?,
            false => session.children.push(channel),
        }
    }
    Ok(session)
}

/// A failure that names what it came of.
fn after(requirement: &'static str, what: &str, Unexpected { connection, expected, got }: Unexpected) -> Stop {
    Stop::Fail(Failure { requirement, connection, expected: format!("{expected} after {what}"), got })
}
