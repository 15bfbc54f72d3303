//! zerocopy: the fixed part of a message as one struct, strings and lists by hand.

use std::ffi::CStr;

use ::zerocopy::little_endian::{U16, U32, U64};
use ::zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};
use spice_migration::ServerMessage;

use crate::measured::Decode;
use crate::message;

/// The baseline.
pub struct Zerocopy;

impl Decode for Zerocopy {
    type Decoded<'a> = Option<Message<'a>>;

    fn decode(id: u16, body: &[u8]) -> Self::Decoded<'_> {
        decode(id, body)
    }

    fn is(decoded: &Self::Decoded<'_>, expected: &ServerMessage<'_>) -> bool {
        fn destination(destination: Destination<'_>) -> message::Destination<'_> {
            message::Destination {
                port: destination.port.get(),
                tls_port: destination.tls_port.get(),
                host: destination.host.to_bytes(),
                cert_subject: destination.cert_subject.map(CStr::to_bytes),
            }
        }
        let Some(message) = decoded else { return false };
        let items: Vec<[u8; 2]>;
        let message = match *message {
            Message::Migrate { flags } => message::Message::Migrate { flags: flags.get() },
            Message::Ping { ping, data } => {
                message::Message::Ping { id: ping.id.get(), timestamp: ping.timestamp.get(), data }
            }
            Message::Init(init) => message::Message::Init(message::Init {
                session_id: init.session_id.get(),
                display_channels_hint: init.display_channels_hint.get(),
                supported_mouse_modes: init.supported_mouse_modes.get(),
                current_mouse_mode: init.current_mouse_mode.get(),
                agent_connected: init.agent_connected.get(),
                agent_tokens: init.agent_tokens.get(),
                multi_media_time: init.multi_media_time.get(),
                ram_hint: init.ram_hint.get(),
            }),
            Message::ChannelsList { channels } => {
                items = channels.iter().map(|channel| [channel.channel_type, channel.id]).collect();
                message::Message::ChannelsList { channels: &items }
            }
            Message::AgentData { data } => message::Message::AgentData { data },
            Message::MigrateSwitchHost { destination: found } => {
                message::Message::MigrateSwitchHost { destination: destination(found) }
            }
            Message::MigrateEnd => message::Message::MigrateEnd,
            Message::MigrateBeginSeamless { destination: found, src_mig_version } => {
                message::Message::MigrateBeginSeamless {
                    destination: destination(found),
                    src_mig_version: src_mig_version.get(),
                }
            }
            Message::Unknown { id, body } => message::Message::Unknown { id, body },
        };
        message.to_server_message().as_ref() == Some(expected)
    }
}

/// The messages of [`cases`](crate::cases).
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the variants and fields are those of spice_migration::ServerMessage")]
pub enum Message<'a> {
    Migrate { flags: U32 },
    Ping { ping: Ping, data: &'a [u8] },
    Init(Init),
    ChannelsList { channels: &'a [ChannelId] },
    AgentData { data: &'a [u8] },
    MigrateSwitchHost { destination: Destination<'a> },
    MigrateEnd,
    MigrateBeginSeamless { destination: Destination<'a>, src_mig_version: U32 },
    Unknown { id: u16, body: &'a [u8] },
}

/// A destination with its strings found.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "as above")]
pub struct Destination<'a> {
    pub port: U16,
    pub tls_port: U16,
    pub host: &'a CStr,
    pub cert_subject: Option<&'a CStr>,
}

/// `SpiceMsgPing` without its data.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "as above")]
pub struct Ping {
    pub id: U32,
    pub timestamp: U64,
}

/// `SpiceMsgMainInit`.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "as above")]
pub struct Init {
    pub session_id: U32,
    pub display_channels_hint: U32,
    pub supported_mouse_modes: U32,
    pub current_mouse_mode: U32,
    pub agent_connected: U32,
    pub agent_tokens: U32,
    pub multi_media_time: U32,
    pub ram_hint: U32,
}

/// `SpiceChannelId`.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "as above")]
pub struct ChannelId {
    pub channel_type: u8,
    pub id: u8,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WireDestination {
    port: U16,
    tls_port: U16,
    host: WireString,
    cert_subject: WireString,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WireString {
    size: U32,
    offset: U32,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct BeginSeamless {
    destination: WireDestination,
    src_mig_version: U32,
}

/// Decodes a message of the main channel; `None` if it is not one.
#[must_use]
pub fn decode(id: u16, body: &[u8]) -> Option<Message<'_>> {
    match id {
        1 => Some(Message::Migrate { flags: U32::read_from_bytes(body).ok()? }),
        4 => {
            let (ping, data) = Ping::read_from_prefix(body).ok()?;
            Some(Message::Ping { ping, data })
        }
        103 => Some(Message::Init(Init::read_from_bytes(body).ok()?)),
        104 => {
            let (count, items) = U32::read_from_prefix(body).ok()?;
            let channels = <[ChannelId]>::ref_from_bytes_with_elems(items, usize::try_from(count.get()).ok()?).ok()?;
            Some(Message::ChannelsList { channels })
        }
        109 => Some(Message::AgentData { data: body }),
        111 => {
            let (wire, _) = WireDestination::ref_from_prefix(body).ok()?;
            Some(Message::MigrateSwitchHost { destination: destination(body, wire)? })
        }
        112 => body.is_empty().then_some(Message::MigrateEnd),
        116 => {
            let (wire, _) = BeginSeamless::ref_from_prefix(body).ok()?;
            let destination = destination(body, &wire.destination)?;
            Some(Message::MigrateBeginSeamless { destination, src_mig_version: wire.src_mig_version })
        }
        _ => Some(Message::Unknown { id, body }),
    }
}

#[inline]
fn destination<'a>(body: &'a [u8], wire: &WireDestination) -> Option<Destination<'a>> {
    let cert_subject = match wire.cert_subject.offset.get() {
        0 => None,
        _ => Some(string(body, &wire.cert_subject)?),
    };
    Some(Destination { port: wire.port, tls_port: wire.tls_port, host: string(body, &wire.host)?, cert_subject })
}

#[inline]
fn string<'a>(body: &'a [u8], wire: &WireString) -> Option<&'a CStr> {
    let start = usize::try_from(wire.offset.get()).ok()?;
    let end = start.checked_add(usize::try_from(wire.size.get()).ok()?)?;
    CStr::from_bytes_with_nul(body.get(start..end)?).ok()
}
