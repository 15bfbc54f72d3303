//! nom as it is usually written: a parser for each number, `map` to build the struct, `count` for lists.
#![allow(clippy::disallowed_methods, reason = "the baseline is what one writes without knowing what these cost")]

use nom::bytes::complete::{tag, take, take_till};
use nom::combinator::{all_consuming, map, rest};
use nom::multi::count;
use nom::number::complete::{le_u8, le_u16, le_u32, le_u64};
use nom::sequence::terminated;
use nom::{IResult, Parser};

use spice_migration::ServerMessage;

use crate::measured::Decode;
use crate::message::{self, Destination, Init};

/// The baseline.
pub struct NomUsual;

impl Decode for NomUsual {
    type Decoded<'a> = Result<Message<'a>, nom::Err<nom::error::Error<&'a [u8]>>>;

    fn decode(id: u16, body: &[u8]) -> Self::Decoded<'_> {
        decode(id, body)
    }

    fn is(decoded: &Self::Decoded<'_>, expected: &ServerMessage<'_>) -> bool {
        let Ok(message) = decoded else { return false };
        let items: Vec<[u8; 2]>;
        let message = match *message {
            Message::Migrate { flags } => message::Message::Migrate { flags },
            Message::Ping { id, timestamp, data } => message::Message::Ping { id, timestamp, data },
            Message::Init(init) => message::Message::Init(init),
            Message::ChannelsList { ref channels } => {
                items = channels.iter().map(|(channel_type, id)| [*channel_type, *id]).collect();
                message::Message::ChannelsList { channels: &items }
            }
            Message::AgentData { data } => message::Message::AgentData { data },
            Message::MigrateSwitchHost { destination } => message::Message::MigrateSwitchHost { destination },
            Message::MigrateEnd => message::Message::MigrateEnd,
            Message::MigrateBeginSeamless { destination, src_mig_version } => {
                message::Message::MigrateBeginSeamless { destination, src_mig_version }
            }
            Message::Unknown { id, body } => message::Message::Unknown { id, body },
        };
        message.to_server_message().as_ref() == Some(expected)
    }
}

/// The messages of [`cases`](crate::cases).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants and fields are those of spice_migration::ServerMessage")]
pub enum Message<'a> {
    Migrate { flags: u32 },
    Ping { id: u32, timestamp: u64, data: &'a [u8] },
    Init(Init),
    ChannelsList { channels: Vec<(u8, u8)> },
    AgentData { data: &'a [u8] },
    MigrateSwitchHost { destination: Destination<'a> },
    MigrateEnd,
    MigrateBeginSeamless { destination: Destination<'a>, src_mig_version: u32 },
    Unknown { id: u16, body: &'a [u8] },
}

/// Decodes a message of the main channel.
///
/// # Errors
/// nom's.
pub fn decode(id: u16, body: &[u8]) -> Result<Message<'_>, nom::Err<nom::error::Error<&[u8]>>> {
    let message = match id {
        1 => all_consuming(map(le_u32, |flags| Message::Migrate { flags })).parse(body),
        4 => map((le_u32, le_u64, rest), |(id, timestamp, data)| Message::Ping { id, timestamp, data }).parse(body),
        103 => all_consuming(map(init, Message::Init)).parse(body),
        104 => all_consuming(channels_list).parse(body),
        109 => map(rest, |data| Message::AgentData { data }).parse(body),
        111 => switch_host(body),
        112 => all_consuming(map(take(0usize), |_| Message::MigrateEnd)).parse(body),
        116 => begin_seamless(body),
        _ => map(rest, |body| Message::Unknown { id, body }).parse(body),
    };
    message.map(|(_, message)| message)
}

fn init(input: &[u8]) -> IResult<&[u8], Init> {
    map(
        (le_u32, le_u32, le_u32, le_u32, le_u32, le_u32, le_u32, le_u32),
        |(
            session_id,
            display_channels_hint,
            supported_mouse_modes,
            current_mouse_mode,
            agent_connected,
            agent_tokens,
            multi_media_time,
            ram_hint,
        )| Init {
            session_id,
            display_channels_hint,
            supported_mouse_modes,
            current_mouse_mode,
            agent_connected,
            agent_tokens,
            multi_media_time,
            ram_hint,
        },
    )
    .parse(input)
}

fn channels_list(input: &[u8]) -> IResult<&[u8], Message<'_>> {
    let (input, length) = le_u32(input)?;
    map(count((le_u8, le_u8), length as usize), |channels| Message::ChannelsList { channels }).parse(input)
}

fn switch_host(body: &[u8]) -> IResult<&[u8], Message<'_>> {
    let (input, destination) = destination(body, body)?;
    Ok((input, Message::MigrateSwitchHost { destination }))
}

fn begin_seamless(body: &[u8]) -> IResult<&[u8], Message<'_>> {
    let (input, destination) = destination(body, body)?;
    map(le_u32, |src_mig_version| Message::MigrateBeginSeamless { destination, src_mig_version }).parse(input)
}

fn destination<'a>(body: &'a [u8], input: &'a [u8]) -> IResult<&'a [u8], Destination<'a>> {
    let (input, (port, tls_port)) = (le_u16, le_u16).parse(input)?;
    let (input, (host_size, host_offset)) = (le_u32, le_u32).parse(input)?;
    let (input, (subject_size, subject_offset)) = (le_u32, le_u32).parse(input)?;
    let (_, host) = string_at(body, host_size, host_offset)?;
    let cert_subject = match subject_offset {
        0 => None,
        _ => Some(string_at(body, subject_size, subject_offset)?.1),
    };
    Ok((input, Destination { port, tls_port, host, cert_subject }))
}

fn string_at(body: &[u8], size: u32, offset: u32) -> IResult<&[u8], &[u8]> {
    let (input, _) = take(offset).parse(body)?;
    let (_, string) = take(size).parse(input)?;
    all_consuming(terminated(take_till(|byte| byte == 0), tag(&b"\0"[..]))).parse(string)
}
