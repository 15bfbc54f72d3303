//! The judge that is not ours: tshark's SPICE dissector reads what this crate writes.
//!
//! Conversations are written as a capture, one message a packet. Of each packet tshark says which message it is, which fields
//! it found and what it complains of; [`expected`] says what it should. The same is asked of what real peers sent: where
//! tshark is wrong about our bytes, it is wrong about theirs. Written for tshark 4.0, which Debian 12 has.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

use spice_migration::{
    ChannelType, ClientMessage, Data, Destination, EncodeError, List, ListItem, ServerMessage, Text,
    caps::{CapabilityWords, CommonCapability, MainCapability, word},
    frame::{self, HeaderKind},
    limits,
    link::{
        AuthMechanism, Capabilities, LINK_HEADER_LEN, LINK_MESSAGE_LEN, LINK_REPLY_LEN, LinkError, LinkHeader,
        LinkMessage, LinkReply, TICKET_LEN, VERSION_MAJOR, VERSION_MINOR,
    },
    message::{
        ChannelId, ChannelWait, Message, MigrateFlags, MouseModes, NotifySeverity, NotifyVisibility, Row, client,
        server,
    },
};
use spice_migration_corpus::{CaptureWriter, Connection};

const SERVER_PORT: u16 = 15900;

#[test]
fn tshark_finds_what_was_encoded() {
    let Some(tshark) = Tshark::find("that tshark reads what this crate writes") else { return };
    let mut conversations = Vec::new();
    for headers in [HeaderKind::Mini, HeaderKind::Full] {
        conversations.extend(split(headers, &link_stage(headers), &messages(headers)));
    }
    let differences = tshark.differences("encoded", &conversations);
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn every_changed_byte_is_found() {
    let Some(tshark) = Tshark::find("that the comparison with tshark finds mistakes") else { return };
    let mut conversations = Vec::new();
    // What was changed in each of them, if anything.
    let mut changes = Vec::new();
    for headers in [HeaderKind::Mini, HeaderKind::Full] {
        let link_stage = link_stage(headers);
        let of_link_stage = (0..link_stage.len()).map(|index| (link_stage.clone(), index));
        let of_messages =
            messages(headers).into_iter().map(|message| ([&link_stage[..], &[message]].concat(), link_stage.len()));
        for (packets, index) in of_link_stage.chain(of_messages) {
            // Of long ones the front is enough.
            for at in 0..compared(headers, &packets[index]).min(64) {
                let mut packets = packets.clone();
                packets[index].bytes[at] ^= 1;
                changes.push(Some(format!("byte {at} of {:?}", packets[index].content)));
                conversations.push(Conversation { headers, packets });
            }
            changes.push(None);
            conversations.push(Conversation { headers, packets });
        }
    }
    let differences = tshark.differences("changed", &conversations);
    let found: BTreeSet<_> = differences.iter().map(|(index, _)| *index).collect();
    let wrong = (0..).zip(&changes).filter(|(index, change)| found.contains(index) != change.is_some());
    let wrong: Vec<_> = wrong.map(|(_, change)| change).collect();
    assert!(wrong.is_empty(), "not found, or found where nothing was changed: {wrong:#?}");
    assert!(changes.iter().flatten().count() > 1000);
}

#[test]
fn tshark_finds_in_what_real_peers_sent_what_this_crate_decodes_and_is_wrong_in_the_same_places() {
    let Some(tshark) = Tshark::find("that tshark and this crate agree on what real peers sent") else { return };
    let mut conversations = Vec::new();
    let captures = spice_migration_corpus::captures();
    let connections: Vec<_> = captures.iter().flat_map(|capture| capture.connections().unwrap()).collect();
    for connection in &connections {
        conversations.extend(captured(connection));
    }
    let differences = tshark.differences("captured", &conversations);
    assert!(differences.is_empty(), "{differences:#?}");

    let contents = || conversations.iter().flat_map(|conversation| &conversation.packets).map(|packet| packet.content);
    let met = |exception| -> BTreeSet<_> {
        let of_it = contents().filter(|content| Exception::of(content) == Some(exception));
        of_it.map(|content| content.name()).collect()
    };
    assert_eq!(
        met(Exception::Destination),
        ["Server MIGRATE_BEGIN", "Server MIGRATE_BEGIN_SEAMLESS", "Server MIGRATE_SWITCH_HOST"]
            .map(str::to_owned)
            .into()
    );
    assert!(met(Exception::NameOnly).contains("Server MIGRATE"));
    // The session id is right and tshark's reading of it wrong: a client that links at the target says it as tshark reads it there.
    let session_ids: BTreeSet<_> = contents()
        .filter_map(|content| match content {
            Content::Server(_, ServerMessage::Init(init)) => Some(init.session_id),
            _ => None,
        })
        .collect();
    let announced: BTreeSet<_> = contents()
        .filter_map(|content| match content {
            Content::LinkMessage(message) if message.connection_id != 0 => Some(message.connection_id),
            _ => None,
        })
        .collect();
    assert!(announced.len() >= 5 && announced.is_subset(&session_ids), "{announced:?} {session_ids:?}");
}

#[test]
fn every_message_is_among_those_that_are_encoded() {
    fn ids(messages: &[impl Message], table: &[Row]) {
        let ids: BTreeSet<_> = messages.iter().map(Message::id).collect();
        assert_eq!(ids, table.iter().map(|row| row.id).collect());
    }
    ids(&server_messages(), ServerMessage::TABLE);
    ids(&client_messages(), ClientMessage::TABLE);
}

/// What tshark 4.0 gets wrong or does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Exception {
    /// The strings of a destination: tshark takes them to follow their sizes and knows no offsets, so it complains and, apart
    /// from the ports, shows what is not there. It does so with QEMU's.
    Destination,
    /// The session id in INIT: read in big-endian order. Clients send those bytes back as the connection id of their other
    /// links, which tshark reads in little-endian order.
    SessionId,
    /// A NUL behind NOTIFY's text that is not there: tshark reads one in any case. spice-server sends it, `spice.proto` does
    /// not have it: its NOTIFY ends with `uint8 message[message_len] @end`.
    NotifyWithoutNul,
    /// A message of which tshark knows the number and the name, but not the name of QUALITY_INDICATOR, which is 112 in
    /// spice-protocol's `enums.h`. It goes on behind the header as if there were no body, so the rest of that direction is
    /// lost on it. It does so with QEMU's MIGRATE.
    NameOnly,
}

impl Exception {
    fn of(content: &Content<'_>) -> Option<Self> {
        use {ClientMessage as C, ServerMessage as S};
        match content {
            Content::Server(_, message) => match message {
                S::MigrateBegin(_) | S::MigrateSwitchHost(_) | S::MigrateBeginSeamless(_) => Some(Self::Destination),
                S::Init(_) => Some(Self::SessionId),
                S::Notify(server::Notify { terminated: false, .. }) => Some(Self::NotifyWithoutNul),
                S::Migrate(_)
                | S::MigrateData(_)
                | S::WaitForChannels(_)
                | S::Disconnecting(_)
                | S::SubMessageList(_)
                | S::AgentConnected => Some(Self::NameOnly),
                _ => None,
            },
            Content::Client(_, message) => match message {
                C::AckSync(_)
                | C::Ack
                | C::Pong(_)
                | C::AttachChannels
                | C::MouseModeRequest(_)
                | C::AgentStart(_)
                | C::AgentData(_) => None,
                _ => Some(Self::NameOnly),
            },
            _ => None,
        }
    }
}

/// tshark's names for values.
type Fields = Vec<(&'static str, String)>;

macro_rules! fields {
    ($($name:literal: $value:expr),* $(,)?) => { vec![$(($name, $value.to_string())),*] };
}

/// The fields that tshark should find in what a packet holds, but for those of an [`Exception`].
fn expected(headers: HeaderKind, content: &Content<'_>) -> Fields {
    let (mut fields, more) = match content {
        Content::LinkMessage(message) => (
            link_fields(message.encoded_len(), LINK_MESSAGE_LEN, message.capabilities),
            fields! {
                "spice.conn_id": message.connection_id,
                "spice.channel_type": message.channel_type.0,
                "spice.channel_id": message.channel_id,
            },
        ),
        Content::LinkReply(reply) => (
            link_fields(reply.encoded_len(), LINK_REPLY_LEN, reply.capabilities),
            fields! {
                "spice.error_code": reply.error.0,
                "spice.x509_subjectpublickeyinfo": hex(&reply.public_key),
            },
        ),
        Content::AuthMechanism(mechanism) => return fields! { "spice.auth_select_client": mechanism.0 },
        Content::Ticket(ticket) => return fields! { "spice.ticket_client": hex(ticket) },
        Content::LinkResult(result) => return fields! { "spice.ticket_server": result.0 },
        Content::Server(serial, message) => (header_fields(headers, *serial, message), server_fields(message)),
        Content::Client(serial, message) => (header_fields(headers, *serial, message), client_fields(message)),
    };
    fields.extend(more);
    fields
}

fn link_fields(length: usize, caps_offset: usize, capabilities: Capabilities<'_>) -> Fields {
    let Capabilities { common, channel } = capabilities;
    let common_cap = |capability| u8::from(common.has(capability));
    let main_cap = |capability| u8::from(channel.has(capability));
    fields! {
        "spice.magic": "REDQ",
        "spice.major_version": VERSION_MAJOR,
        "spice.minor_version": VERSION_MINOR,
        "spice.message_size": length,
        "spice.num_common_caps": common.words().len(),
        "spice.num_channel_caps": channel.words().len(),
        "spice.caps_offset": caps_offset,
        "spice.common_cap_auth_select": common_cap(CommonCapability::AUTH_SELECTION),
        "spice.common_cap_auth_spice": common_cap(CommonCapability::AUTH_SPICE),
        "spice.common_cap_auth_sasl": common_cap(CommonCapability::AUTH_SASL),
        "spice.common_cap_mini_header": common_cap(CommonCapability::MINI_HEADER),
        "spice.main_cap_semi_migrate": main_cap(MainCapability::SEMI_SEAMLESS_MIGRATE),
        "spice.main_cap_vm_name_uuid": main_cap(MainCapability::NAME_AND_UUID),
        "spice.main_cap_agent_connected_tokens": main_cap(MainCapability::AGENT_CONNECTED_TOKENS),
        "spice.main_cap_seamless_migrate": main_cap(MainCapability::SEAMLESS_MIGRATE),
    }
}

fn header_fields(headers: HeaderKind, serial: u64, message: &impl Message) -> Fields {
    let mut fields = fields! { "spice.message_type": message.id(), "spice.message_size": message.encoded_len() };
    if headers == HeaderKind::Full {
        fields.extend(fields! { "spice.serial": serial, "spice.message_sublist": 0 });
    }
    fields
}

fn server_fields(message: &ServerMessage<'_>) -> Fields {
    use ServerMessage as M;
    match message {
        M::SetAck(m) => {
            fields! { "spice.red_set_ack_generation": m.generation, "spice.red_set_ack_window": m.window }
        }
        M::Ping(m) => {
            fields! { "spice.ping_id": m.id, "spice.timestamp": m.timestamp, "spice.ping_data": hex(m.data.0) }
        }
        M::Notify(m) => {
            let mut fields = fields! {
                "spice.timestamp": m.time_stamp,
                "spice.notify_severity": m.severity.0,
                "spice.notify_visibility": m.visibility.0,
                "spice.notify_code": m.what,
                "spice.notify_message_length": m.message.0.len(),
            };
            if m.terminated {
                fields.extend(fields! { "spice.notify_message": text(m.message) });
            }
            fields
        }
        M::MigrateBegin(server::MigrateBegin { destination })
        | M::MigrateSwitchHost(server::MigrateSwitchHost { destination })
        | M::MigrateBeginSeamless(server::MigrateBeginSeamless { destination, .. }) => fields! {
            "spice.migrate_dest_port": destination.port,
            "spice.migrate_dest_sport": destination.tls_port,
        },
        M::Init(m) => fields! {
            "spice.main_session_id": m.session_id.swap_bytes(),
            "spice.display_channels_hint": m.display_channels_hint,
            "spice.supported_mouse_modes": m.supported_mouse_modes,
            "spice.supported_mouse_modes_flag_client": m.supported_mouse_modes >> 1 & 1,
            "spice.supported_mouse_modes_flags_server": m.supported_mouse_modes & 1,
            "spice.current_mouse_mode": m.current_mouse_mode,
            "spice.agent": m.agent_connected,
            "spice.agent_tokens": m.agent_tokens,
            "spice.multimedia_time": m.multi_media_time,
            "spice.ram_hint": m.ram_hint,
        },
        M::ChannelsList(m) => {
            let mut fields = fields! { "spice.main_num_channels": m.channels.len() };
            for channel in m.channels.iter() {
                fields.extend(fields! { "spice.channel_type": channel.channel_type.0, "spice.channel_id": channel.id });
            }
            fields
        }
        M::MouseMode(m) => fields! {
            "spice.supported_mouse_modes_flags": m.supported_modes.0,
            "spice.supported_mouse_modes_flag_client": u8::from(m.supported_modes.contains(MouseModes::CLIENT)),
            "spice.supported_mouse_modes_flags_server": u8::from(m.supported_modes.contains(MouseModes::SERVER)),
            "spice.current_mouse_mode_flags": m.current_mode.0,
        },
        M::MultiMediaTime(m) => fields! { "spice.multimedia_time": m.time },
        M::AgentDisconnected(m) => fields! { "spice.error_code": m.error_code.0 },
        M::AgentData(m) => agent_fields(m.data.0),
        M::AgentToken(m) => fields! { "spice.main_agent_token": m.num_tokens },
        M::AgentConnectedTokens(m) => fields! { "spice.main_agent_token": m.num_tokens },
        M::Name(m) => fields! { "spice.main_name_length": m.name.0.len(), "spice.main_name": text(m.name) },
        M::Uuid(m) => {
            let [a, b, c, d, e] = [0..4, 4..6, 6..8, 8..10, 10..16].map(|part| hex(&m.uuid[part]));
            fields! { "spice.main_uuid": format!("{a}-{b}-{c}-{d}-{e}") }
        }
        // Without fields, or not looked into.
        _ => fields! {},
    }
}

fn client_fields(message: &ClientMessage<'_>) -> Fields {
    use ClientMessage as M;
    match message {
        M::AckSync(m) => fields! { "spice.red_set_ack_generation": m.generation },
        M::Pong(m) => fields! { "spice.ping_id": m.id, "spice.timestamp": m.timestamp },
        M::MouseModeRequest(m) => fields! { "spice.current_mouse_mode_flags": m.mode.0 },
        M::AgentStart(m) => fields! { "spice.main_agent_tokens": m.num_tokens },
        M::AgentData(m) => agent_fields(m.data.0),
        _ => fields! {},
    }
}

/// What tshark reads in the agent's data: a `VDAgentMessage`.
fn agent_fields(data: &[u8]) -> Fields {
    const VD_AGENT_REPLY: u32 = 3;
    const VD_AGENT_ANNOUNCE_CAPABILITIES: u32 = 6;
    let number = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap());
    let mut fields = fields! {
        "spice.main_agent_protocol": number(0),
        "spice.agent_message_type": number(4),
        "spice.main_agent_opaque": u64::from(number(12)) << 32 | u64::from(number(8)),
        "spice.main_agent_size": number(16),
    };
    let bit = |bit: u32| number(24) >> bit & 1;
    fields.extend(match number(4) {
        VD_AGENT_REPLY => fields! { "spice.vd_agent_reply_type": number(20), "spice.vd_agent_reply_error": number(24) },
        VD_AGENT_ANNOUNCE_CAPABILITIES => fields! {
            "spice.vd_agent_caps_request": number(20),
            "spice.vd_agent_cap_mouse_state": bit(0),
            "spice.vd_agent_cap_monitors_config": bit(1),
            "spice.vd_agent_cap_reply": bit(2),
            "spice.vd_agent_cap_clipboard": bit(3),
            "spice.vd_agent_cap_display_config": bit(4),
            "spice.vd_agent_cap_clipboard_by_demand": bit(5),
            "spice.vd_agent_cap_clipboard_selection": bit(6),
            "spice.vd_agent_cap_sparse_monitors_config": bit(7),
            "spice.vd_agent_cap_guest_lineend_lf": bit(8),
            "spice.vd_agent_cap_guest_lineend_crlf": bit(9),
        },
        other => panic!("agent message {other}"),
    });
    fields
}

/// As tshark shows bytes.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As tshark shows a string: to its NUL.
fn text(data: Data<'_>) -> String {
    String::from_utf8(data.0.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()).unwrap()
}

/// What a packet holds: the values that were encoded, or decoded.
#[derive(Clone, Copy, Debug)]
enum Content<'a> {
    LinkMessage(LinkMessage<'a>),
    LinkReply(LinkReply<'a>),
    AuthMechanism(AuthMechanism),
    Ticket(&'a [u8]),
    LinkResult(LinkError),
    /// With its serial.
    Server(u64, ServerMessage<'a>),
    /// With its serial.
    Client(u64, ClientMessage<'a>),
}

impl Content<'_> {
    /// tshark's name for it.
    fn name(&self) -> String {
        match self {
            Self::LinkMessage(_) => "Client link message".to_owned(),
            Self::LinkReply(_) => "Server link message".to_owned(),
            Self::AuthMechanism(_) => "Client authentication method selection".to_owned(),
            Self::Ticket(_) => "Client ticket".to_owned(),
            Self::LinkResult(_) => "Server ticket".to_owned(),
            Self::Server(_, message) => message.c_name().replace("SPICE_MSG_", "Server ").replace("MAIN_", ""),
            Self::Client(_, ClientMessage::QualityIndicator(_)) => "Unknown main channel client message".to_owned(),
            Self::Client(_, message) => message.c_name().replace("SPICE_MSGC_", "Client ").replace("MAIN_", ""),
        }
    }

    fn is_from_server(&self) -> bool {
        matches!(self, Self::LinkReply(_) | Self::LinkResult(_) | Self::Server(..))
    }
}

#[derive(Clone, Debug)]
struct Packet<'a> {
    content: Content<'a>,
    bytes: Vec<u8>,
}

/// One connection of a main channel.
struct Conversation<'a> {
    headers: HeaderKind,
    packets: Vec<Packet<'a>>,
}

/// Conversations that each begin with the link stage and end where tshark can read no further.
fn split<'a>(headers: HeaderKind, link_stage: &[Packet<'a>], messages: &[Packet<'a>]) -> Vec<Conversation<'a>> {
    let parts = messages.split_inclusive(|message| Exception::of(&message.content) == Some(Exception::NameOnly));
    parts.map(|part| Conversation { headers, packets: [link_stage, part].concat() }).collect()
}

/// The link stage that leads to such headers.
fn link_stage(headers: HeaderKind) -> Vec<Packet<'static>> {
    let words = |word: u32| CapabilityWords::new(Vec::leak(vec![word.to_le_bytes()]));
    let common: &[_] = match headers {
        HeaderKind::Mini => {
            &[CommonCapability::AUTH_SELECTION, CommonCapability::AUTH_SPICE, CommonCapability::MINI_HEADER]
        }
        HeaderKind::Full => &[CommonCapability::AUTH_SELECTION, CommonCapability::AUTH_SPICE],
    };
    let message = LinkMessage {
        connection_id: 0x0102_0304,
        channel_type: ChannelType::MAIN,
        channel_id: 5,
        capabilities: Capabilities { common: words(word(common)), channel: words(word(MainCapability::KNOWN)) },
    };
    let reply = LinkReply {
        error: LinkError::OK,
        public_key: std::array::from_fn(|at| at as u8),
        capabilities: Capabilities {
            common: words(word(common)),
            channel: words(word(&[MainCapability::SEMI_SEAMLESS_MIGRATE])),
        },
    };
    let ticket: &[u8; TICKET_LEN] = &[0x5a; TICKET_LEN];
    vec![
        link_packet(Content::LinkMessage(message), message.encoded_len(), |out| message.encode_with_header(out)),
        link_packet(Content::LinkReply(reply), reply.encoded_len(), |out| reply.encode_with_header(out)),
        Packet { content: Content::AuthMechanism(AuthMechanism::SPICE), bytes: 1u32.to_le_bytes().to_vec() },
        Packet { content: Content::Ticket(ticket), bytes: ticket.to_vec() },
        Packet { content: Content::LinkResult(LinkError::OK), bytes: 0u32.to_le_bytes().to_vec() },
    ]
}

fn link_packet<'a>(
    content: Content<'a>,
    length: usize,
    encode: impl FnOnce(&mut [u8]) -> Result<usize, EncodeError>,
) -> Packet<'a> {
    let mut bytes = vec![0; LINK_HEADER_LEN + length];
    encode(&mut bytes).unwrap();
    Packet { content, bytes }
}

/// All messages of both sides.
fn messages(headers: HeaderKind) -> Vec<Packet<'static>> {
    fn bytes(headers: HeaderKind, serial: u64, message: &impl Message) -> Vec<u8> {
        let mut bytes = vec![0; headers.len() + message.encoded_len()];
        assert_eq!(frame::encode(headers, serial, message, &mut bytes), Ok(bytes.len()));
        bytes
    }
    let server = (1..).zip(server_messages()).map(|(serial, message)| Packet {
        bytes: bytes(headers, serial, &message),
        content: Content::Server(serial, message),
    });
    let client = (1..).zip(client_messages()).map(|(serial, message)| Packet {
        bytes: bytes(headers, serial, &message),
        content: Content::Client(serial, message),
    });
    server.chain(client).collect()
}

/// Each message, those with fields with several values. The bytes of a number differ, so that none can take another's place.
fn server_messages() -> Vec<ServerMessage<'static>> {
    use ServerMessage as M;
    let destinations = [
        Destination {
            port: 5900,
            tls_port: Destination::NO_PORT,
            host: Text::new(b"127.0.0.1").unwrap(),
            cert_subject: None,
        },
        Destination {
            port: 0,
            tls_port: 5901,
            host: Text::new(b"target.example").unwrap(),
            cert_subject: Text::new(b"O=Example,CN=target"),
        },
    ];
    let mut messages = vec![
        M::Migrate(server::Migrate { flags: MigrateFlags(0) }),
        M::Migrate(server::Migrate { flags: MigrateFlags::NEED_FLUSH | MigrateFlags::NEED_DATA_TRANSFER }),
        M::MigrateData(server::MigrateData { data: Data(b"") }),
        M::MigrateData(server::MigrateData { data: Data(b"any bytes") }),
        M::SetAck(server::SetAck { generation: 0x0102_0304, window: 20 }),
        M::SetAck(server::SetAck { generation: 1, window: u32::MAX }),
        M::Ping(server::Ping { id: 0x0102_0304, timestamp: 0x0102_0304_0506_0708, data: Data(b"") }),
        M::Ping(server::Ping { id: 2, timestamp: u64::MAX, data: Data(b"ballast") }),
        // In several packets.
        M::Ping(server::Ping { id: 3, timestamp: 4, data: Data(&[0x5a; 40_000]) }),
        M::WaitForChannels(server::WaitForChannels { wait_list: List::new(&[]) }),
        M::WaitForChannels(server::WaitForChannels {
            wait_list: list([ChannelWait { channel_type: ChannelType::CURSOR, channel_id: 2, message_serial: 3 }; 2]),
        }),
        M::Disconnecting(server::Disconnecting { time_stamp: 0x0102_0304_0506_0708, reason: LinkError::OK }),
        M::Disconnecting(server::Disconnecting { time_stamp: 1, reason: LinkError::PERMISSION_DENIED }),
        M::SubMessageList(server::SubMessageList { list: Data(&[0, 0]) }),
        M::SubMessageList(server::SubMessageList { list: Data(&[1, 0, 6, 0, 0, 0, 102, 0, 0, 0, 0, 0]) }),
        M::MigrateCancel,
        M::Init(server::Init {
            session_id: 0x0102_0304,
            display_channels_hint: 0x0506_0708,
            supported_mouse_modes: 3,
            current_mouse_mode: 2,
            agent_connected: 1,
            agent_tokens: 0x090a_0b0c,
            multi_media_time: 0x0d0e_0f10,
            ram_hint: 0x1112_1314,
        }),
        M::Init(server::Init {
            session_id: u32::MAX,
            display_channels_hint: 1,
            supported_mouse_modes: 1,
            current_mouse_mode: 1,
            agent_connected: 0,
            agent_tokens: 10,
            multi_media_time: 0,
            ram_hint: 1 << 23,
        }),
        M::ChannelsList(server::ChannelsList { channels: List::new(&[]) }),
        M::ChannelsList(server::ChannelsList {
            channels: list([
                ChannelId { channel_type: ChannelType::DISPLAY, id: 0 },
                ChannelId { channel_type: ChannelType::USBREDIR, id: 3 },
                ChannelId { channel_type: ChannelType(200), id: 255 },
            ]),
        }),
        M::MouseMode(server::MouseMode { supported_modes: MouseModes(3), current_mode: MouseModes::CLIENT }),
        M::MouseMode(server::MouseMode { supported_modes: MouseModes(0x0104), current_mode: MouseModes(0x0203) }),
        M::MultiMediaTime(server::MultiMediaTime { time: 0 }),
        M::MultiMediaTime(server::MultiMediaTime { time: 0x0102_0304 }),
        M::AgentConnected,
        M::AgentDisconnected(server::AgentDisconnected { error_code: LinkError::OK }),
        M::AgentDisconnected(server::AgentDisconnected { error_code: LinkError(0x0102_0304) }),
        M::AgentData(server::AgentData { data: AGENT_REPLIES[0] }),
        M::AgentData(server::AgentData { data: AGENT_REPLIES[1] }),
        M::AgentToken(server::AgentToken { num_tokens: 1 }),
        M::AgentToken(server::AgentToken { num_tokens: 0x0102_0304 }),
        M::MigrateEnd,
        M::Name(server::Name { name: Data(b"guest\0") }),
        M::Name(server::Name { name: Data(b"a guest without NUL") }),
        M::Uuid(server::Uuid { uuid: *b"0123456789abcdef" }),
        M::Uuid(server::Uuid { uuid: [0xff; 16] }),
        M::AgentConnectedTokens(server::AgentConnectedTokens { num_tokens: 10 }),
        M::AgentConnectedTokens(server::AgentConnectedTokens { num_tokens: 0x0102_0304 }),
        M::MigrateDstSeamlessAck,
        M::MigrateDstSeamlessNack,
    ];
    for destination in destinations {
        messages.extend([
            M::MigrateBegin(server::MigrateBegin { destination }),
            M::MigrateSwitchHost(server::MigrateSwitchHost { destination }),
            M::MigrateBeginSeamless(server::MigrateBeginSeamless { destination, src_mig_version: 1 }),
        ]);
    }
    for (message, terminated) in [("", true), ("keyboard channel is insecure", true), ("no NUL", false)] {
        messages.push(M::Notify(server::Notify {
            time_stamp: 0x0102_0304_0506_0708,
            severity: NotifySeverity::WARN,
            visibility: NotifyVisibility::HIGH,
            what: 0x090a_0b0c,
            message: Data(message.as_bytes()),
            terminated,
        }));
    }
    messages
}

/// See [`server_messages`].
fn client_messages() -> Vec<ClientMessage<'static>> {
    use ClientMessage as M;
    vec![
        M::AckSync(client::AckSync { generation: 1 }),
        M::AckSync(client::AckSync { generation: 0x0102_0304 }),
        M::Ack,
        M::Pong(client::Pong { id: 1, timestamp: u64::MAX }),
        M::Pong(client::Pong { id: 0x0102_0304, timestamp: 0x0102_0304_0506_0708 }),
        M::MigrateFlushMark,
        M::MigrateData(client::MigrateData { data: Data(b"") }),
        M::MigrateData(client::MigrateData { data: Data(b"any bytes") }),
        M::Disconnecting(client::Disconnecting { time_stamp: 1, reason: LinkError::OK }),
        M::Disconnecting(client::Disconnecting { time_stamp: u64::MAX, reason: LinkError::ERROR }),
        M::ClientInfo(client::ClientInfo { cache_size: 1 }),
        M::ClientInfo(client::ClientInfo { cache_size: 0x0102_0304_0506_0708 }),
        M::MigrateConnected,
        M::MigrateConnectError,
        M::AttachChannels,
        M::MouseModeRequest(client::MouseModeRequest { mode: MouseModes::CLIENT }),
        M::MouseModeRequest(client::MouseModeRequest { mode: MouseModes(0x0102) }),
        M::AgentStart(client::AgentStart { num_tokens: u32::MAX }),
        M::AgentStart(client::AgentStart { num_tokens: 0x0102_0304 }),
        M::AgentData(client::AgentData { data: AGENT_REPLIES[0] }),
        M::AgentData(client::AgentData { data: AGENT_REPLIES[1] }),
        M::AgentToken(client::AgentToken { num_tokens: 1 }),
        M::AgentToken(client::AgentToken { num_tokens: 0x0102_0304 }),
        M::MigrateEnd,
        M::MigrateDstDoSeamless(client::MigrateDstDoSeamless { src_version: 1 }),
        M::MigrateDstDoSeamless(client::MigrateDstDoSeamless { src_version: 0x0102_0304 }),
        M::MigrateConnectedSeamless,
        M::QualityIndicator(client::QualityIndicator { data: Data(b"") }),
        M::QualityIndicator(client::QualityIndicator { data: Data(b"any bytes") }),
    ]
}

/// Two `VDAgentMessage`s: protocol, type `VD_AGENT_REPLY`, opaque, size; the type that is answered, and the error.
const AGENT_REPLIES: [Data<'static>; 2] = [
    Data(b"\x01\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\x08\0\0\0\x02\0\0\0\x01\0\0\0"),
    Data(b"\x01\0\0\0\x03\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08\x08\0\0\0\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10"),
];

fn list<T: ListItem, const COUNT: usize>(items: [T; COUNT]) -> List<'static, T> {
    List::new(Vec::from(items.map(ListItem::to_wire)).leak())
}

/// A captured main channel, cut into its messages: tshark is lost where a client sends mechanism and ticket in one packet, as
/// the client of `full_headers_nack` does.
fn captured(connection: &Connection) -> Vec<Conversation<'_>> {
    let (mut client, mut server) = (&connection.from_client[..], &connection.from_server[..]);
    if client.is_empty() {
        return Vec::new();
    }
    let bytes = link_bytes(&mut client);
    let message = LinkMessage::decode(&bytes[LINK_HEADER_LEN..]).unwrap();
    let mut link_stage = vec![Packet { content: Content::LinkMessage(message), bytes: bytes.to_vec() }];
    if message.channel_type != ChannelType::MAIN {
        return Vec::new();
    }
    let bytes = link_bytes(&mut server);
    let reply = LinkReply::decode(&bytes[LINK_HEADER_LEN..]).unwrap();
    link_stage.push(Packet { content: Content::LinkReply(reply), bytes: bytes.to_vec() });
    let both = |bit| message.capabilities.common.has(bit) && reply.capabilities.common.has(bit);
    if both(CommonCapability::AUTH_SELECTION) {
        let bytes = client.split_off(..4).unwrap();
        let mechanism = AuthMechanism(u32::from_le_bytes(bytes.try_into().unwrap()));
        link_stage.push(Packet { content: Content::AuthMechanism(mechanism), bytes: bytes.to_vec() });
    }
    let ticket = client.split_off(..TICKET_LEN).unwrap();
    link_stage.push(Packet { content: Content::Ticket(ticket), bytes: ticket.to_vec() });
    let bytes = server.split_off(..4).unwrap();
    let result = LinkError(u32::from_le_bytes(bytes.try_into().unwrap()));
    link_stage.push(Packet { content: Content::LinkResult(result), bytes: bytes.to_vec() });

    let headers = if both(CommonCapability::MINI_HEADER) { HeaderKind::Mini } else { HeaderKind::Full };
    let mut messages = Vec::new();
    while let Some((frame, length)) = frame::cut(headers, server, 0, limits::MAX_BODY).unwrap() {
        let message = ServerMessage::decode(ChannelType::MAIN, frame.header.id, frame.body).unwrap();
        let bytes = server.split_off(..length).unwrap().to_vec();
        messages.push(Packet { content: Content::Server(frame.header.serial, message), bytes });
    }
    while let Some((frame, length)) = frame::cut(headers, client, 0, limits::MAX_BODY).unwrap() {
        let message = ClientMessage::decode(ChannelType::MAIN, frame.header.id, frame.body).unwrap();
        let bytes = client.split_off(..length).unwrap().to_vec();
        messages.push(Packet { content: Content::Client(frame.header.serial, message), bytes });
    }
    split(headers, &link_stage, &messages)
}

/// A link header with what it announces.
fn link_bytes<'a>(stream: &mut &'a [u8]) -> &'a [u8] {
    let header = LinkHeader::decode(stream.first_chunk().unwrap()).unwrap();
    stream.split_off(..LINK_HEADER_LEN + header.size as usize).unwrap()
}

/// How many of a packet's bytes, from the front, tshark looks at and shows.
fn compared(headers: HeaderKind, packet: &Packet<'_>) -> usize {
    match (Exception::of(&packet.content), packet.content) {
        // Of the capabilities it knows the lowest bits; the channel's stand behind the common ones.
        (_, Content::LinkMessage(_)) => LINK_HEADER_LEN + LINK_MESSAGE_LEN + 1,
        (_, Content::LinkReply(_)) => LINK_HEADER_LEN + LINK_REPLY_LEN + 1,
        (Some(Exception::NameOnly), _) => headers.len(),
        (Some(Exception::Destination), _) => headers.len() + 4,
        (Some(Exception::NotifyWithoutNul), _) => headers.len() + 24,
        (Some(Exception::SessionId) | None, _) => packet.bytes.len(),
    }
}

/// tshark, and the fields that its SPICE dissector knows.
struct Tshark {
    fields: Vec<String>,
}

/// What tshark says of a packet: who sent it, what it is, and what is wrong with it.
struct Seen {
    source_port: u16,
    name: String,
    complaints: String,
    fields: BTreeMap<String, String>,
}

impl Tshark {
    /// `None`, and a line that says what was not tested, if there is none. In CI it must be there.
    fn find(untested: &str) -> Option<Self> {
        let listed = match Command::new("tshark").args(["-G", "fields"]).output() {
            Ok(output) => String::from_utf8(output.stdout).unwrap(),
            Err(error) if error.kind() == io::ErrorKind::NotFound && env::var_os("CI").is_none() => {
                // Straight to stderr: the test harness would swallow what `println!` says in a test that passes.
                let _ = writeln!(io::stderr(), "tshark is not installed: not tested {untested}");
                return None;
            }
            Err(error) => panic!("tshark: {error}"),
        };
        // Kind, description, name, type, protocol. Fields without a value are headings.
        let fields = listed.lines().filter_map(|line| match line.split('\t').collect::<Vec<_>>()[..] {
            ["F", _, name, kind, "spice", ..] if kind != "FT_NONE" => Some(name.to_owned()),
            _ => None,
        });
        Some(Self { fields: fields.collect() })
    }

    /// Where tshark does not find in a capture of the conversations what it should, by the conversation's index.
    fn differences(&self, name: &str, conversations: &[Conversation<'_>]) -> Vec<(usize, String)> {
        let rows = self.read(name, conversations);
        let mut differences = Vec::new();
        for (index, conversation) in conversations.iter().enumerate() {
            let rows = rows.get(&index).map_or(&[][..], Vec::as_slice);
            if rows.len() != conversation.packets.len() {
                differences
                    .push((index, format!("{} of {} packets are recognised", rows.len(), conversation.packets.len())));
            }
            for (packet, row) in conversation.packets.iter().zip(rows) {
                if let Some(difference) = row.difference(conversation.headers, &packet.content) {
                    differences.push((index, format!("{:?}: {difference}", packet.content)));
                }
            }
        }
        differences
    }

    /// Has a capture of the conversations read: what tshark says of their packets, by the conversation's index.
    fn read(&self, name: &str, conversations: &[Conversation<'_>]) -> BTreeMap<usize, Vec<Seen>> {
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, SERVER_PORT);
        let mut capture = CaptureWriter::new(UNIX_EPOCH);
        for (port, conversation) in (20_000..).zip(conversations) {
            let client = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
            let (client, server) = capture.connect(Duration::ZERO, client, server);
            for packet in &conversation.packets {
                let from = if packet.content.is_from_server() { server } else { client };
                capture.send(Duration::ZERO, from, &packet.bytes);
            }
            capture.finish(Duration::ZERO, client);
            capture.finish(Duration::ZERO, server);
        }
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.pcap"));
        fs::write(&file, capture.into_pcap()).unwrap();

        let mut tshark = Command::new("tshark");
        tshark.arg("-r").arg(&file).args(["-d", &format!("tcp.port=={SERVER_PORT},spice"), "-Y", "spice"]);
        tshark.args(["-T", "fields", "-E", "aggregator=;", "-e", "tcp.stream", "-e", "tcp.srcport"]);
        tshark.args(["-e", "_ws.col.Info", "-e", "_ws.expert.message"]);
        for field in &self.fields {
            tshark.args(["-e", field]);
        }
        let output = tshark.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        let mut rows = BTreeMap::<usize, Vec<Seen>>::new();
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let [stream, source_port, name, complaints, values @ ..] = &line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let fields = self.fields.iter().zip(values).filter(|(_, value)| !value.is_empty());
            let fields: BTreeMap<_, _> = fields.map(|(name, value)| (name.clone(), decimal(value))).collect();
            // A segment of a message that goes on has none.
            if !fields.is_empty() {
                rows.entry(stream.parse().unwrap()).or_default().push(Seen {
                    source_port: source_port.parse().unwrap(),
                    name: (*name).to_owned(),
                    complaints: (*complaints).to_owned(),
                    fields,
                });
            }
        }
        rows
    }
}

impl Seen {
    /// Where it is not what was expected.
    fn difference(&self, headers: HeaderKind, content: &Content<'_>) -> Option<String> {
        let (name, fields) = (content.name(), expected(headers, content));
        let mut expected = BTreeMap::<_, String>::new();
        // tshark's list cannot tell an empty text from none.
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            let values = expected.entry(name.to_owned()).or_default();
            values.push_str(if values.is_empty() { "" } else { ";" });
            values.push_str(&value);
        }

        let exception = Exception::of(content);
        let complaint_is_right = match exception {
            None | Some(Exception::SessionId) => self.complaints.is_empty(),
            Some(Exception::Destination | Exception::NotifyWithoutNul) => !self.complaints.is_empty(),
            // With mini headers it does not come.
            Some(Exception::NameOnly) => headers == HeaderKind::Mini || self.complaints.contains("cannot dissect"),
        };
        let mut found = self.fields.clone();
        if !matches!(exception, None | Some(Exception::SessionId)) {
            found.retain(|name, _| expected.contains_key(name));
        }
        if exception == Some(Exception::NameOnly) {
            // The first is the message's, further ones are what its body is taken for.
            found.values_mut().for_each(|values| values.truncate(values.find(';').unwrap_or(values.len())));
        }
        let Self { name: found_name, complaints, .. } = self;
        // More follows when tshark complains, or takes a body for further messages.
        let name_is_right = if complaints.is_empty() && exception.is_none() {
            *found_name == name
        } else {
            found_name.starts_with(&name)
        };
        let sender_is_right = (self.source_port == SERVER_PORT) == content.is_from_server();
        let is_right = name_is_right && sender_is_right && complaint_is_right && found == expected;
        (!is_right).then(|| format!("expected {name} {expected:?}, found {found_name} {found:?} {complaints}"))
    }
}

/// Some numbers are shown in hexadecimal.
fn decimal(values: &str) -> String {
    let decimal = |value: &str| match value.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16)) {
        Some(Ok(number)) => number.to_string(),
        _ => value.to_owned(),
    };
    values.split(';').map(decimal).collect::<Vec<_>>().join(";")
}
