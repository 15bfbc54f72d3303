//! Every captured conversation of real peers decodes whole, and re-encodes to the same bytes.
#![cfg(feature = "alloc")]

use spice_migration::{
    ChannelType, ClientMessage, Data, Destination, List, ListItem, ServerMessage, Text,
    caps::{CapabilityWords, CommonCapability},
    frame::{self, Deframer, Frame, Header, HeaderKind},
    link::{AuthMechanism, Capabilities, LINK_HEADER_LEN, LinkError, LinkHeader, LinkMessage, LinkReply, TICKET_LEN},
    message::{LAST_BASE_ID, Message, client, server},
    state::{JpegWanCompression, State},
};
use spice_migration_corpus::Connection;

/// One direction of a connection, read from its beginning.
struct Stream<'a>(&'a [u8]);

impl<'a> Stream<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn number(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    /// A link header and what it announces.
    fn link_body(&mut self) -> &'a [u8] {
        let bytes: [u8; LINK_HEADER_LEN] = self.take(LINK_HEADER_LEN).try_into().unwrap();
        let header = LinkHeader::decode(&bytes).unwrap();
        assert_eq!(header.encode(), bytes);
        self.take(usize::try_from(header.size).unwrap())
    }

    fn frames(&self, kind: HeaderKind, mut each: impl FnMut(Frame<'_>)) {
        let mut deframer = Deframer::new(kind);
        // In pieces of a prime size, so that cuts fall everywhere.
        for piece in self.0.chunks(1021) {
            deframer.push(piece);
            while let Some(frame) = deframer.next_frame().unwrap() {
                each(frame);
            }
        }
        assert_eq!(deframer.pending(), 0, "the stream ends with a message");
    }
}

/// What a connection turned out to be.
struct Linked<'a> {
    channel: ChannelType,
    headers: HeaderKind,
    client: Stream<'a>,
    server: Stream<'a>,
}

/// Walks the link stage; `None` if nothing, or nothing whole, was sent.
fn link(connection: &Connection) -> Option<Linked<'_>> {
    if connection.from_client.is_empty() {
        return None;
    }
    let mut client = Stream(&connection.from_client);
    let mut server = Stream(&connection.from_server);

    let body = client.link_body();
    let message = LinkMessage::decode(body).unwrap();
    let (common, channel) = (owned(message.capabilities.common), owned(message.capabilities.channel));
    let again = LinkMessage { capabilities: capabilities(&common, &channel), ..message };
    let mut out = vec![0; again.encoded_len()];
    again.encode(&mut out).unwrap();
    assert_eq!(out, body);

    let body = server.link_body();
    let reply = LinkReply::decode(body).unwrap();
    assert_eq!(reply.error, LinkError::OK);
    let (common, channel) = (owned(reply.capabilities.common), owned(reply.capabilities.channel));
    let again = LinkReply { capabilities: capabilities(&common, &channel), ..reply };
    let mut out = vec![0; again.encoded_len()];
    again.encode(&mut out).unwrap();
    assert_eq!(out, body);

    let both = |bit| message.capabilities.common.has(bit) && reply.capabilities.common.has(bit);
    if both(CommonCapability::AUTH_SELECTION) {
        assert_eq!(AuthMechanism(client.number()), AuthMechanism::SPICE);
    }
    client.take(TICKET_LEN);
    assert_eq!(LinkError(server.number()), LinkError::OK);
    let headers = if both(CommonCapability::MINI_HEADER) { HeaderKind::Mini } else { HeaderKind::Full };
    Some(Linked { channel: message.channel_type, headers, client, server })
}

fn owned(words: CapabilityWords<'_>) -> Vec<[u8; 4]> {
    words.words().map(u32::to_le_bytes).collect()
}

fn capabilities<'a>(common: &'a [[u8; 4]], channel: &'a [[u8; 4]]) -> Capabilities<'a> {
    Capabilities { common: CapabilityWords::new(common), channel: CapabilityWords::new(channel) }
}

fn encoded(message: &impl Message) -> Vec<u8> {
    let mut out = vec![0; message.encoded_len()];
    assert_eq!(message.encode(&mut out), Ok(out.len()));
    out
}

/// Takes a text apart and makes it anew.
fn remade(text: Text<'_>) -> Text<'static> {
    Text::new(text.as_bytes().to_vec().leak()).unwrap()
}

fn remade_destination(destination: Destination<'_>) -> Destination<'static> {
    let Destination { port, tls_port, host, cert_subject } = destination;
    Destination { port, tls_port, host: remade(host), cert_subject: cert_subject.map(remade) }
}

fn remade_data(data: Data<'_>) -> Data<'static> {
    Data(data.0.to_vec().leak())
}

/// Makes a message anew from owned values of its fields, where it borrows.
fn remade_server(message: ServerMessage<'_>) -> ServerMessage<'static> {
    use ServerMessage as M;
    match message {
        M::MigrateBegin(server::MigrateBegin { destination }) => {
            M::MigrateBegin(server::MigrateBegin { destination: remade_destination(destination) })
        }
        M::MigrateBeginSeamless(server::MigrateBeginSeamless { destination, src_mig_version }) => {
            let destination = remade_destination(destination);
            M::MigrateBeginSeamless(server::MigrateBeginSeamless { destination, src_mig_version })
        }
        M::MigrateSwitchHost(server::MigrateSwitchHost { destination }) => {
            M::MigrateSwitchHost(server::MigrateSwitchHost { destination: remade_destination(destination) })
        }
        M::ChannelsList(server::ChannelsList { channels }) => {
            let items: Vec<_> = channels.iter().map(ListItem::to_wire).collect();
            M::ChannelsList(server::ChannelsList { channels: List::new(items.leak()) })
        }
        M::WaitForChannels(server::WaitForChannels { wait_list }) => {
            let items: Vec<_> = wait_list.iter().map(ListItem::to_wire).collect();
            M::WaitForChannels(server::WaitForChannels { wait_list: List::new(items.leak()) })
        }
        M::MigrateData(server::MigrateData { data }) => M::MigrateData(server::MigrateData { data: remade_data(data) }),
        M::Ping(server::Ping { id, timestamp, data }) => {
            M::Ping(server::Ping { id, timestamp, data: remade_data(data) })
        }
        M::Notify(notify) => M::Notify(server::Notify { message: remade_data(notify.message), ..notify }),
        M::Name(server::Name { name }) => M::Name(server::Name { name: remade_data(name) }),
        M::AgentData(server::AgentData { data }) => M::AgentData(server::AgentData { data: remade_data(data) }),
        M::Migrate(message) => M::Migrate(message),
        M::SetAck(message) => M::SetAck(message),
        M::Init(message) => M::Init(message),
        M::MouseMode(message) => M::MouseMode(message),
        M::MultiMediaTime(message) => M::MultiMediaTime(message),
        M::AgentConnectedTokens(message) => M::AgentConnectedTokens(message),
        M::AgentToken(message) => M::AgentToken(message),
        M::AgentDisconnected(message) => M::AgentDisconnected(message),
        M::Uuid(message) => M::Uuid(message),
        M::MigrateCancel => M::MigrateCancel,
        M::MigrateEnd => M::MigrateEnd,
        M::AgentConnected => M::AgentConnected,
        M::MigrateDstSeamlessAck => M::MigrateDstSeamlessAck,
        M::MigrateDstSeamlessNack => M::MigrateDstSeamlessNack,
        other => panic!("not seen in a capture so far: {other:?}"),
    }
}

fn remade_client(message: ClientMessage<'_>) -> ClientMessage<'static> {
    use ClientMessage as M;
    match message {
        M::MigrateData(client::MigrateData { data }) => M::MigrateData(client::MigrateData { data: remade_data(data) }),
        M::AgentData(client::AgentData { data }) => M::AgentData(client::AgentData { data: remade_data(data) }),
        M::AckSync(message) => M::AckSync(message),
        M::Pong(message) => M::Pong(message),
        M::MouseModeRequest(message) => M::MouseModeRequest(message),
        M::AgentStart(message) => M::AgentStart(message),
        M::AgentToken(message) => M::AgentToken(message),
        M::MigrateDstDoSeamless(message) => M::MigrateDstDoSeamless(message),
        M::Ack => M::Ack,
        M::MigrateFlushMark => M::MigrateFlushMark,
        M::MigrateConnected => M::MigrateConnected,
        M::MigrateConnectError => M::MigrateConnectError,
        M::AttachChannels => M::AttachChannels,
        M::MigrateEnd => M::MigrateEnd,
        M::MigrateConnectedSeamless => M::MigrateConnectedSeamless,
        other => panic!("not seen in a capture so far: {other:?}"),
    }
}

/// Whether the crate claims to know a message.
fn known(channel: ChannelType, id: u16) -> bool {
    id <= LAST_BASE_ID || channel == ChannelType::MAIN
}

#[test]
fn every_captured_message_decodes_is_known_and_encodes_to_the_same_bytes() {
    let mut full_headers = 0;
    let mut seen = std::collections::BTreeMap::<&'static str, usize>::new();
    for capture in spice_migration_corpus::captures() {
        for (index, connection) in capture.connections().unwrap().iter().enumerate() {
            let Some(linked) = link(connection) else { continue };
            let Linked { channel, headers, client, server } = linked;
            full_headers += usize::from(headers == HeaderKind::Full);
            let place = format!("{} connection {index} ({channel})", capture.file);
            server.frames(headers, |Frame { header, body }| {
                let message =
                    ServerMessage::decode(channel, header.id, body).unwrap_or_else(|error| panic!("{place}: {error}"));
                if known(channel, header.id) {
                    let again = remade_server(message);
                    assert_eq!(again, message);
                    let mut out = vec![0; headers.len() + body.len()];
                    let length = frame::encode(headers, header.serial, &again, &mut out).unwrap();
                    assert_eq!(out[headers.len()..length], *body, "{place}: {message:?}");
                    assert_eq!(Header::decode(headers, &out, header.serial), Some(header));
                    *seen.entry(message.c_name()).or_default() += 1;
                } else {
                    assert_eq!(encoded(&message), body);
                }
            });
            client.frames(headers, |Frame { header, body }| {
                let message =
                    ClientMessage::decode(channel, header.id, body).unwrap_or_else(|error| panic!("{place}: {error}"));
                if known(channel, header.id) {
                    let again = remade_client(message);
                    assert_eq!(again, message);
                    assert_eq!(encoded(&again), body, "{place}: {message:?}");
                    *seen.entry(message.c_name()).or_default() += 1;
                }
            });
        }
    }
    assert_eq!(full_headers, 8, "one capture is of a client without mini headers");
    assert!(!seen.contains_key("unknown"));
    for scheme in [
        "SPICE_MSG_MAIN_MIGRATE_BEGIN",
        "SPICE_MSG_MAIN_MIGRATE_BEGIN_SEAMLESS",
        "SPICE_MSG_MAIN_MIGRATE_CANCEL",
        "SPICE_MSG_MAIN_MIGRATE_END",
        "SPICE_MSG_MAIN_MIGRATE_SWITCH_HOST",
        "SPICE_MSG_MAIN_MIGRATE_DST_SEAMLESS_ACK",
        "SPICE_MSG_MAIN_MIGRATE_DST_SEAMLESS_NACK",
        "SPICE_MSG_MIGRATE",
        "SPICE_MSG_MIGRATE_DATA",
        "SPICE_MSGC_MIGRATE_FLUSH_MARK",
        "SPICE_MSGC_MAIN_MIGRATE_CONNECTED",
        "SPICE_MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS",
        "SPICE_MSGC_MAIN_MIGRATE_CONNECT_ERROR",
        "SPICE_MSGC_MAIN_MIGRATE_DST_DO_SEAMLESS",
        "SPICE_MSGC_MAIN_MIGRATE_END",
    ] {
        assert!(seen.contains_key(scheme), "no capture has a {scheme}; there are {seen:?}");
    }
}

#[test]
fn all_captured_migration_data_may_be_used_and_encodes_to_the_same_bytes() {
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for capture in spice_migration_corpus::captures() {
        for connection in capture.connections().unwrap() {
            let Some(Linked { channel, headers, client, server }) = link(&connection) else { continue };
            let mut each = |data: &[u8]| {
                let state = State::for_target(channel, JpegWanCompression::Never, data).unwrap();
                assert!(!matches!(state, State::Unknown(_)), "{channel}");
                let mut out = vec![0xaa; state.encoded_len()];
                assert_eq!(state.encode(&mut out), Ok(data.len()));
                assert_eq!(out, data, "{state:?}");
                for cut in 0..data.len() {
                    let cut = State::decode(channel, &data[..cut]);
                    assert!(cut.is_err(), "{cut:?}");
                }
                *seen.entry(channel.to_string()).or_default() += 1;
            };
            server.frames(headers, |Frame { header, body }| {
                if let Ok(ServerMessage::MigrateData(message)) = ServerMessage::decode(channel, header.id, body) {
                    each(message.data.0);
                }
            });
            client.frames(headers, |Frame { header, body }| {
                if let Ok(ClientMessage::MigrateData(message)) = ClientMessage::decode(channel, header.id, body) {
                    each(message.data.0);
                }
            });
        }
    }
    for channel in ["main", "display", "inputs", "usbredir", "port"] {
        assert!(seen.contains_key(channel), "no capture has data of {channel}; there are {seen:?}");
    }
}

#[test]
fn changing_one_field_changes_exactly_its_bytes() {
    let mut announcements = 0;
    for capture in spice_migration_corpus::captures() {
        for connection in capture.connections().unwrap() {
            let Some(Linked { channel: ChannelType::MAIN, headers, server, .. }) = link(&connection) else { continue };
            server.frames(headers, |Frame { header, body }| {
                let changed: Vec<(ServerMessage<'_>, std::ops::Range<usize>)> =
                    match ServerMessage::decode(ChannelType::MAIN, header.id, body).unwrap() {
                        ServerMessage::Init(init) => vec![
                            (ServerMessage::Init(server::Init { session_id: !init.session_id, ..init }), 0..4),
                            (ServerMessage::Init(server::Init { agent_tokens: !init.agent_tokens, ..init }), 20..24),
                            (ServerMessage::Init(server::Init { ram_hint: !init.ram_hint, ..init }), 28..32),
                        ],
                        ServerMessage::MigrateBeginSeamless(begin) => {
                            announcements += 1;
                            let destination = begin.destination;
                            let port = Destination { port: !destination.port, ..destination };
                            let tls_port = Destination { tls_port: !destination.tls_port, ..destination };
                            let host = Destination { host: Text::new(b"987.6.5.4").unwrap(), ..destination };
                            assert_eq!(destination.host.as_bytes().len(), 9);
                            let with = |destination| {
                                ServerMessage::MigrateBeginSeamless(server::MigrateBeginSeamless {
                                    destination,
                                    ..begin
                                })
                            };
                            let version =
                                server::MigrateBeginSeamless { src_mig_version: !begin.src_mig_version, ..begin };
                            vec![
                                (with(port), 0..2),
                                (with(tls_port), 2..4),
                                (with(host), 24..33),
                                (ServerMessage::MigrateBeginSeamless(version), 20..24),
                            ]
                        }
                        _ => return,
                    };
                for (message, range) in changed {
                    let again = encoded(&message);
                    assert_eq!(again.len(), body.len());
                    let differs: Vec<usize> = (0..body.len()).filter(|&at| again[at] != body[at]).collect();
                    assert!(differs.iter().all(|at| range.contains(at)), "{message:?}: {differs:?} outside {range:?}");
                    assert!(!differs.is_empty());
                }
            });
        }
    }
    assert!(announcements > 0);
}
