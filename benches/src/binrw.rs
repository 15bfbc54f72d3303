//! binrw: a declaration per message, read to owned values.

use std::io::{Cursor, SeekFrom};

use ::binrw::helpers::until_eof;
use ::binrw::{BinRead, BinResult};
use spice_migration::ServerMessage;

use crate::measured::Decode;
use crate::message;

/// The baseline.
pub struct Binrw;

impl Decode for Binrw {
    type Decoded<'a> = BinResult<Message>;

    fn decode(id: u16, body: &[u8]) -> Self::Decoded<'_> {
        decode(id, body)
    }

    fn is(decoded: &Self::Decoded<'_>, expected: &ServerMessage<'_>) -> bool {
        fn destination(destination: &Destination) -> message::Destination<'_> {
            message::Destination {
                port: destination.port,
                tls_port: destination.tls_port,
                host: destination.host.split_last().map_or(&[], |(_, host)| host),
                cert_subject: destination.cert_subject.split_last().map(|(_, subject)| subject),
            }
        }
        let Ok(message) = decoded else { return false };
        let items: Vec<[u8; 2]>;
        let message = match message {
            Message::Migrate(migrate) => message::Message::Migrate { flags: migrate.flags },
            Message::Ping(ping) => message::Message::Ping { id: ping.id, timestamp: ping.timestamp, data: &ping.data },
            Message::Init(init) => message::Message::Init(message::Init {
                session_id: init.session_id,
                display_channels_hint: init.display_channels_hint,
                supported_mouse_modes: init.supported_mouse_modes,
                current_mouse_mode: init.current_mouse_mode,
                agent_connected: init.agent_connected,
                agent_tokens: init.agent_tokens,
                multi_media_time: init.multi_media_time,
                ram_hint: init.ram_hint,
            }),
            Message::ChannelsList(list) => {
                items = list.channels.iter().map(|channel| [channel.channel_type, channel.id]).collect();
                message::Message::ChannelsList { channels: &items }
            }
            Message::AgentData(agent_data) => message::Message::AgentData { data: &agent_data.data },
            Message::MigrateSwitchHost(found) => {
                message::Message::MigrateSwitchHost { destination: destination(found) }
            }
            Message::MigrateEnd => message::Message::MigrateEnd,
            Message::MigrateBeginSeamless(begin) => message::Message::MigrateBeginSeamless {
                destination: destination(&begin.destination),
                src_mig_version: begin.src_mig_version,
            },
            Message::Unknown { id, body } => message::Message::Unknown { id: *id, body: &body.data },
        };
        message.to_server_message().as_ref() == Some(expected)
    }
}

/// The messages of [`cases`](crate::cases).
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the variants and fields are those of spice_migration::ServerMessage")]
pub enum Message {
    Migrate(Migrate),
    Ping(Ping),
    Init(Init),
    ChannelsList(ChannelsList),
    AgentData(Rest),
    MigrateSwitchHost(Destination),
    MigrateEnd,
    MigrateBeginSeamless(MigrateBeginSeamless),
    Unknown { id: u16, body: Rest },
}

/// `SpiceMsgMigrate`.
#[derive(Clone, Debug, BinRead)]
#[br(little)]
#[allow(missing_docs, reason = "as above")]
pub struct Migrate {
    pub flags: u32,
}

/// `SpiceMsgPing`.
#[derive(Clone, Debug, BinRead)]
#[br(little)]
#[allow(missing_docs, reason = "as above")]
pub struct Ping {
    pub id: u32,
    pub timestamp: u64,
    #[br(parse_with = until_eof)]
    pub data: Vec<u8>,
}

/// `SpiceMsgMainInit`.
#[derive(Clone, Debug, BinRead)]
#[br(little)]
#[allow(missing_docs, reason = "as above")]
pub struct Init {
    pub session_id: u32,
    pub display_channels_hint: u32,
    pub supported_mouse_modes: u32,
    pub current_mouse_mode: u32,
    pub agent_connected: u32,
    pub agent_tokens: u32,
    pub multi_media_time: u32,
    pub ram_hint: u32,
}

/// `SpiceMsgChannels`.
#[derive(Clone, Debug, BinRead)]
#[br(little)]
#[allow(missing_docs, reason = "as above")]
pub struct ChannelsList {
    pub count: u32,
    #[br(count = count)]
    pub channels: Vec<ChannelId>,
}

/// `SpiceChannelId`.
#[derive(Clone, Copy, Debug, BinRead)]
#[br(little)]
#[allow(missing_docs, reason = "as above")]
pub struct ChannelId {
    pub channel_type: u8,
    pub id: u8,
}

/// All bytes.
#[derive(Clone, Debug, BinRead)]
#[br(little)]
#[allow(missing_docs, reason = "as above")]
pub struct Rest {
    #[br(parse_with = until_eof)]
    pub data: Vec<u8>,
}

/// `SpiceMigrationDstInfo`; strings with their NUL.
#[derive(Clone, Debug, BinRead)]
#[br(little)]
#[allow(missing_docs, reason = "as above")]
pub struct Destination {
    pub port: u16,
    pub tls_port: u16,
    pub host_size: u32,
    pub host_offset: u32,
    #[br(seek_before = SeekFrom::Start(host_offset.into()), count = host_size, restore_position)]
    #[br(assert(host.split_last().is_some_and(|(nul, string)| *nul == 0 && !string.contains(&0))))]
    pub host: Vec<u8>,
    pub subject_size: u32,
    pub subject_offset: u32,
    #[br(if(subject_offset != 0), seek_before = SeekFrom::Start(subject_offset.into()), count = subject_size, restore_position)]
    #[br(assert(subject_offset == 0 || cert_subject.split_last().is_some_and(|(nul, string)| *nul == 0 && !string.contains(&0))))]
    pub cert_subject: Vec<u8>,
}

/// `SpiceMsgMainMigrateBeginSeamless`.
#[derive(Clone, Debug, BinRead)]
#[br(little)]
#[allow(missing_docs, reason = "as above")]
pub struct MigrateBeginSeamless {
    pub destination: Destination,
    pub src_mig_version: u32,
}

/// Decodes a message of the main channel.
///
/// # Errors
/// binrw's.
pub fn decode(id: u16, body: &[u8]) -> BinResult<Message> {
    let mut input = Cursor::new(body);
    Ok(match id {
        1 => Message::Migrate(BinRead::read(&mut input)?),
        4 => Message::Ping(BinRead::read(&mut input)?),
        103 => Message::Init(BinRead::read(&mut input)?),
        104 => Message::ChannelsList(BinRead::read(&mut input)?),
        109 => Message::AgentData(BinRead::read(&mut input)?),
        111 => Message::MigrateSwitchHost(BinRead::read(&mut input)?),
        112 => Message::MigrateEnd,
        116 => Message::MigrateBeginSeamless(BinRead::read(&mut input)?),
        _ => Message::Unknown { id, body: BinRead::read(&mut input)? },
    })
}
