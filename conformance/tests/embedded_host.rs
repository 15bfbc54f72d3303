//! The embedded host, from a client's side: ordinary sessions, all three schemes, cancellation, and bad clients.

use std::time::{Duration, Instant};

use spice_conformance::{
    peer::{
        defect::Defect,
        host::{EmbeddedHost, HostSettings},
        ticket,
    },
    subject::{Destination, HostEvent, HostOptions, Liveness},
    trace::Trace,
};
use spice_migration::{
    ChannelType, ClientMessage, Data, ServerMessage,
    caps::CapabilityWords,
    frame::{self, Header, HeaderKind},
    link::{AuthMechanism, Capabilities, LINK_HEADER_LEN, LinkError, LinkHeader, LinkMessage, LinkReply, MAGIC},
    message::{Message, MigrateFlags, client, server},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(5);
const MIGRATE_TIMEOUT: Duration = Duration::from_millis(300);
/// Long enough for a message that should not come, on loopback.
const SILENCE: Duration = Duration::from_millis(60);

const SEMI_SEAMLESS: u32 = 0b0001;
const ALL: u32 = 0b1111;

const CHILDREN: [ChannelType; 3] = [ChannelType::DISPLAY, ChannelType::INPUTS, ChannelType::CURSOR];

/// One connection of a client, with mini headers.
struct Connection {
    stream: TcpStream,
    channel_type: ChannelType,
}

impl Connection {
    /// Goes through the link stage; the link result, or the link reply's error, when it is not OK.
    async fn link(
        host: &EmbeddedHost,
        connection_id: u32,
        (channel_type, channel_id): (ChannelType, u8),
        main_capabilities: u32,
        password: &str,
    ) -> Result<Self, LinkError> {
        let (common, channel) = ([9u32.to_le_bytes()], [main_capabilities.to_le_bytes()]);
        let capabilities =
            Capabilities { common: CapabilityWords::new(&common), channel: CapabilityWords::new(&channel) };
        let message = LinkMessage { connection_id, channel_type, channel_id, capabilities };
        let mut body = vec![0; message.encoded_len()];
        message.encode(&mut body).unwrap();
        let mut stream = TcpStream::connect(host.spice()).await.unwrap();
        let header = LinkHeader::new(body.len().try_into().unwrap()).encode();
        stream.write_all(&[&header[..], &body].concat()).await.unwrap();
        let public_key = read_link_reply(&mut stream).await?;
        let ticket = ticket::encrypt(&public_key, password).unwrap();
        stream.write_all(&[&AuthMechanism::SPICE.0.to_le_bytes()[..], &ticket].concat()).await.unwrap();
        match LinkError(stream.read_u32_le().await.unwrap()) {
            LinkError::OK => Ok(Self { stream, channel_type }),
            error => Err(error),
        }
    }

    async fn send(&mut self, message: ClientMessage<'_>) {
        let mut bytes = vec![0; 6 + message.encoded_len()];
        frame::encode(HeaderKind::Mini, 1, &message, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next message; `None` when the host has closed the connection cleanly.
    async fn receive(&mut self) -> Option<(u16, Vec<u8>)> {
        let mut header = [0; 6];
        match timeout(PATIENCE, self.stream.read(&mut header[..1])).await.expect("a message").unwrap() {
            0 => return None,
            _ => self.stream.read_exact(&mut header[1..]).await.unwrap(),
        };
        let header = Header::decode(HeaderKind::Mini, &header, 1).unwrap();
        let mut body = vec![0; header.size.try_into().unwrap()];
        self.stream.read_exact(&mut body).await.unwrap();
        Some((header.id, body))
    }

    async fn expect(&mut self, message: ServerMessage<'_>) {
        let (id, body) = self.receive().await.expect("a message");
        assert_eq!(ServerMessage::decode(self.channel_type, id, &body), Ok(message));
    }

    async fn expect_id(&mut self, id: u16) -> Vec<u8> {
        let (received, body) = self.receive().await.expect("a message");
        assert_eq!(received, id);
        ServerMessage::decode(self.channel_type, id, &body).unwrap();
        body
    }

    async fn expect_silence(&mut self) {
        let read = timeout(SILENCE, self.stream.read_u8()).await;
        assert!(read.is_err(), "{} is silent: {read:?}", self.channel_type);
    }

    async fn expect_end(&mut self) {
        assert_eq!(self.receive().await, None, "{} ends", self.channel_type);
    }
}

async fn read_link_reply(stream: &mut TcpStream) -> Result<Vec<u8>, LinkError> {
    let mut header = [0; LINK_HEADER_LEN];
    stream.read_exact(&mut header).await.unwrap();
    let mut body = vec![0; LinkHeader::decode(&header).unwrap().size.try_into().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    let reply = LinkReply::decode(&body).unwrap();
    if reply.error == LinkError::OK { Ok(reply.public_key.to_vec()) } else { Err(reply.error) }
}

/// A client at one host.
struct Client {
    session: u32,
    main: Connection,
    children: Vec<Connection>,
}

impl Client {
    /// An ordinary session, its first messages taken.
    async fn connect(host: &EmbeddedHost, capabilities: u32) -> Self {
        let mut main = Connection::link(host, 0, (ChannelType::MAIN, 0), capabilities, "").await.unwrap();
        let init = main.expect_id(103).await;
        let session = u32::from_le_bytes(*init.first_chunk().unwrap());
        assert_ne!(session, 0);
        if capabilities & 0b10 != 0 {
            assert_eq!(main.expect_id(113).await, *b"\x07\0\0\0source\0");
            main.expect_id(114).await;
        }
        let ping = main.expect_id(4).await;
        let (id, timestamp) = ping.split_first_chunk().unwrap();
        let pong = client::Pong {
            id: u32::from_le_bytes(*id),
            timestamp: u64::from_le_bytes(*timestamp.first_chunk().unwrap()),
        };
        main.send(ClientMessage::Pong(pong)).await;
        main.send(ClientMessage::AttachChannels).await;
        assert_eq!(main.expect_id(104).await, [3, 0, 0, 0, 2, 0, 3, 0, 4, 0]);
        let mut children = link_children(host, session).await;
        for child in &mut children {
            expect_first_message(child).await;
        }
        Self { session, main, children }
    }

    /// All connections at the target of a migration.
    async fn connect_migrating(host: &EmbeddedHost, session: u32) -> Self {
        let main = Connection::link(host, session, (ChannelType::MAIN, 0), ALL, "").await.unwrap();
        Self { session, main, children: link_children(host, session).await }
    }

    async fn connect_seamless(host: &EmbeddedHost, session: u32) -> Self {
        let mut main = Connection::link(host, session, (ChannelType::MAIN, 0), ALL, "").await.unwrap();
        main.send(do_seamless(1)).await;
        main.expect(ServerMessage::MigrateDstSeamlessAck).await;
        Self { session, main, children: link_children(host, session).await }
    }

    fn into_channels(self) -> impl Iterator<Item = Connection> {
        [self.main].into_iter().chain(self.children)
    }
}

fn do_seamless(src_version: u32) -> ClientMessage<'static> {
    ClientMessage::MigrateDstDoSeamless(client::MigrateDstDoSeamless { src_version })
}

async fn link_children(host: &EmbeddedHost, session: u32) -> Vec<Connection> {
    let mut children = Vec::new();
    for channel_type in CHILDREN {
        children.push(Connection::link(host, session, (channel_type, 0), 0, "").await.unwrap());
    }
    children
}

async fn expect_first_message(child: &mut Connection) {
    match child.channel_type {
        ChannelType::INPUTS => assert_eq!(child.expect_id(101).await, [0, 0]),
        _ => child.expect(ServerMessage::SetAck(server::SetAck { generation: 1, window: 20 })).await,
    }
}

/// Carries every channel's state to the target.
async fn relay(source: Client, target: &mut Client) {
    for (mut old, new) in source.into_channels().zip([&mut target.main].into_iter().chain(&mut target.children)) {
        let flags = if old.channel_type == ChannelType::CURSOR { 0 } else { 3 };
        old.expect(ServerMessage::Migrate(server::Migrate { flags: MigrateFlags(flags) })).await;
        if flags != 0 {
            old.expect_silence().await;
            old.send(ClientMessage::MigrateFlushMark).await;
            let data = old.expect_id(2).await;
            new.send(ClientMessage::MigrateData(client::MigrateData { data: Data(&data) })).await;
        }
        match old.channel_type {
            ChannelType::MAIN => drop(new.expect_id(106).await),
            _ => expect_first_message(new).await,
        }
    }
}

async fn start(name: &str, password: Option<&str>, defect: Option<Defect>) -> EmbeddedHost {
    let options = HostOptions {
        name: name.to_owned(),
        seamless: true,
        password: password.map(str::to_owned),
        incoming: name != "source",
        ..HostOptions::default()
    };
    let settings = HostSettings { defect, migrate_timeout: MIGRATE_TIMEOUT, ..HostSettings::default() };
    EmbeddedHost::start(&options, settings, &Trace::new()).await.unwrap()
}

async fn start_pair() -> (EmbeddedHost, EmbeddedHost) {
    (start("source", None, None).await, start("target", None, None).await)
}

async fn announce(source: &mut EmbeddedHost, target: &EmbeddedHost, client: &mut Client, begin: u16) {
    source.migrate_info(&Destination::plain(target.spice())).await.unwrap();
    let body = client.main.expect_id(begin).await;
    assert_eq!(body[..2], target.spice().port().to_le_bytes());
    assert!(body.ends_with(b"127.0.0.1\0"));
}

/// The guest moves; the target holds it until its client is there.
async fn migrate(source: &mut EmbeddedHost, target: &mut EmbeddedHost) {
    source.migrate(target).await.unwrap();
    let stopped = source.wait_for(HostEvent::Stop, PATIENCE).await.unwrap();
    let completed = source.wait_for(HostEvent::MigrationCompleted, PATIENCE).await.unwrap();
    assert!(stopped <= completed);
}

async fn expect_alive(host: &mut EmbeddedHost) {
    assert_eq!(host.liveness(PATIENCE).await, Liveness::Alive);
}

#[tokio::test]
async fn an_ordinary_session_runs_until_another_client_replaces_it() {
    let mut host = start("source", None, None).await;
    let mut first = Client::connect(&host, ALL).await;
    first.main.send(ClientMessage::AgentStart(client::AgentStart { num_tokens: 10 })).await;
    first.children[1].send(ClientMessage::Unknown { id: 103, body: Data(&[0, 0]) }).await;
    first.main.send(ClientMessage::MigrateEnd).await;
    first.main.expect_silence().await;

    let mut second = Client::connect(&host, SEMI_SEAMLESS).await;
    assert_ne!(first.session, second.session);
    for mut connection in first.into_channels() {
        connection.expect_end().await;
    }
    second.main.send(ClientMessage::Unknown { id: 99, body: Data(&[]) }).await;
    for mut connection in second.into_channels() {
        connection.expect_end().await;
    }
    expect_alive(&mut host).await;
    host.stop().await;
}

#[tokio::test]
async fn semi_seamless_restarts_the_session_at_the_target() {
    let (mut source, mut target) = start_pair().await;
    let mut old = Client::connect(&source, SEMI_SEAMLESS).await;
    announce(&mut source, &target, &mut old, 101).await;
    let mut new = Client::connect_migrating(&target, old.session).await;
    new.main.send(ClientMessage::AttachChannels).await;
    new.main.expect_silence().await;
    for child in &mut new.children {
        child.expect_silence().await;
    }
    old.main.send(ClientMessage::MigrateConnected).await;
    // Answered after CONNECTED was taken.
    old.main.send(ClientMessage::AttachChannels).await;
    old.main.expect_id(104).await;
    migrate(&mut source, &mut target).await;
    old.main.expect(ServerMessage::MigrateEnd).await;
    assert!(source.count(HostEvent::ClientMigrationCompleted) == 0);
    drop(old);
    source.wait_for(HostEvent::ClientMigrationCompleted, MIGRATE_TIMEOUT / 2).await.unwrap();
    assert!(target.count(HostEvent::Resume) == 0);

    new.main.send(ClientMessage::MigrateEnd).await;
    let init = new.main.expect_id(103).await;
    assert_eq!(init[..4], new.session.to_le_bytes());
    target.wait_for(HostEvent::Resume, PATIENCE).await.unwrap();
    for child in &mut new.children {
        expect_first_message(child).await;
    }
    new.main.send(ClientMessage::MigrateEnd).await;
    new.main.expect_silence().await;
    new.main.send(ClientMessage::AttachChannels).await;
    new.main.expect_id(104).await;
}

#[tokio::test]
async fn seamless_carries_the_state_over_twice() {
    let (mut source, mut target) = start_pair().await;
    let mut third = start("third", None, None).await;
    let mut old = Client::connect(&source, ALL).await;
    announce(&mut source, &target, &mut old, 116).await;
    let mut new = Client::connect_seamless(&target, old.session).await;
    new.main.send(do_seamless(1)).await;
    new.main.expect(ServerMessage::MigrateDstSeamlessNack).await;
    old.main.send(ClientMessage::MigrateConnectedSeamless).await;
    old.main.send(ClientMessage::AttachChannels).await;
    old.main.expect_id(104).await;
    migrate(&mut source, &mut target).await;
    assert!(target.count(HostEvent::Resume) == 0);
    relay(old, &mut new).await;
    target.wait_for(HostEvent::Resume, PATIENCE).await.unwrap();
    source.wait_for(HostEvent::ClientMigrationCompleted, PATIENCE).await.unwrap();

    new.main.send(ClientMessage::AttachChannels).await;
    new.main.expect_id(104).await;
    announce(&mut target, &third, &mut new, 116).await;
    let mut last = Client::connect_seamless(&third, new.session).await;
    new.main.send(ClientMessage::MigrateConnectedSeamless).await;
    new.main.send(ClientMessage::AttachChannels).await;
    new.main.expect_id(104).await;
    migrate(&mut target, &mut third).await;
    relay(new, &mut last).await;
    target.wait_for(HostEvent::ClientMigrationCompleted, PATIENCE).await.unwrap();
    expect_alive(&mut third).await;
}

#[tokio::test]
async fn bad_data_closes_its_channel_only() {
    let target = start("target", None, None).await;
    let mut client = Client::connect_seamless(&target, 7).await;
    let inputs = &mut client.children[1];
    inputs.send(ClientMessage::MigrateData(client::MigrateData { data: Data(b"XCMD\x01\0\0\0\0\0") })).await;
    inputs.expect_end().await;
    client.main.expect_silence().await;
}

#[tokio::test]
async fn seamless_of_an_unknown_version_is_refused() {
    let target = start("target", None, None).await;
    let mut client = Client::connect_migrating(&target, 7).await;
    client.main.send(do_seamless(2)).await;
    client.main.expect(ServerMessage::MigrateDstSeamlessNack).await;
    client.main.send(ClientMessage::MigrateEnd).await;
    client.main.expect_id(103).await;
}

#[tokio::test]
async fn a_destination_announced_early_waits_for_the_arrival() {
    let (mut source, target) = start_pair().await;
    let mut client = Client::connect_migrating(&source, 7).await;
    source.migrate_info(&Destination::plain(target.spice())).await.unwrap();
    client.main.expect_silence().await;
    client.main.send(ClientMessage::MigrateEnd).await;
    client.main.expect_id(103).await;
    client.main.expect_id(116).await;
}

#[tokio::test]
async fn a_client_that_cannot_follow_is_switched_and_dropped_if_it_stays() {
    let (mut source, mut target) = start_pair().await;
    let mut client = Client::connect(&source, ALL).await;
    announce(&mut source, &target, &mut client, 116).await;
    client.main.send(ClientMessage::MigrateConnectError).await;
    migrate(&mut source, &mut target).await;
    let switched = Instant::now();
    assert!(client.main.expect_id(111).await.ends_with(b"127.0.0.1\0"));
    for mut connection in client.into_channels() {
        connection.expect_end().await;
    }
    let completed = source.wait_for(HostEvent::ClientMigrationCompleted, PATIENCE).await.unwrap();
    assert!(completed - switched > MIGRATE_TIMEOUT * 9 / 10);
}

#[tokio::test]
async fn a_cancelled_migration_leaves_the_session_as_it_was() {
    let (mut source, mut target) = start_pair().await;
    let mut client = Client::connect(&source, ALL).await;
    announce(&mut source, &target, &mut client, 116).await;
    client.main.send(ClientMessage::MigrateConnectedSeamless).await;
    source.throttle().await.unwrap();
    source.migrate(&target).await.unwrap();
    client.main.expect_silence().await;
    source.cancel().await.unwrap();
    source.wait_for(HostEvent::MigrationCancelled, PATIENCE).await.unwrap();
    client.main.expect(ServerMessage::MigrateCancel).await;
    // As QEMU does when its guest does not come.
    target.wait_for(HostEvent::MigrationFailed, PATIENCE).await.unwrap();
    assert!(matches!(target.liveness(PATIENCE).await, Liveness::Exited { code: Some(1), signal: None, .. }));
    let mut target = start("target", None, None).await;

    announce(&mut source, &target, &mut client, 116).await;
    client.main.send(ClientMessage::MigrateConnected).await;
    client.main.send(ClientMessage::AttachChannels).await;
    client.main.expect_id(104).await;
    // Another destination.
    source.migrate_info(&Destination::plain(target.spice())).await.unwrap();
    client.main.expect(ServerMessage::MigrateCancel).await;
    client.main.expect_id(116).await;
    client.main.send(ClientMessage::MigrateConnectError).await;
    source.migrate_to_nowhere().await.unwrap();
    source.wait_for(HostEvent::MigrationFailed, PATIENCE).await.unwrap();
    client.main.send(ClientMessage::MigrateConnectError).await;
    client.main.expect_silence().await;
    assert!(source.count(HostEvent::ClientMigrationCompleted) == 0 && source.count(HostEvent::Stop) == 0);

    drop(client);
    let error = source.migrate(&target).await.unwrap_err();
    assert_eq!(error.to_string(), "source: migrate: no destination was announced");
    source.migrate_info(&Destination::plain(target.spice())).await.unwrap();
    migrate(&mut source, &mut target).await;
    source.wait_for(HostEvent::ClientMigrationCompleted, PATIENCE).await.unwrap();
    let error = source.migrate(&target).await.unwrap_err();
    assert_eq!(error.to_string(), "source: migrate: the guest is gone");
}

#[tokio::test]
async fn links_are_refused_for_what_is_wrong_with_them() {
    let host = start("source", Some("secret"), None).await;
    let link = async |id, channel, password| Connection::link(&host, id, channel, ALL, password).await.map(drop);
    assert_eq!(link(0, (ChannelType::MAIN, 0), "wrong").await, Err(LinkError::PERMISSION_DENIED));
    assert_eq!(link(0, (ChannelType::MAIN, 0), "secret").await, Ok(()));
    assert_eq!(link(1, (ChannelType::DISPLAY, 0), "secret").await, Err(LinkError::BAD_CONNECTION_ID));
    assert_eq!(link(1, (ChannelType::PORT, 0), "secret").await, Err(LinkError::CHANNEL_NOT_AVAILABLE));

    let mut stream = TcpStream::connect(host.spice()).await.unwrap();
    // The first four bytes suffice, and no matter how they arrive.
    for byte in b"HTTP" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(read_link_reply(&mut stream).await, Err(LinkError::INVALID_MAGIC));
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);

    for (major, size, error) in [
        (3u32, 18u32, LinkError::VERSION_MISMATCH),
        (2, 17, LinkError::INVALID_DATA),
        (2, 4097, LinkError::INVALID_DATA),
    ] {
        let mut stream = TcpStream::connect(host.spice()).await.unwrap();
        let header = [MAGIC, major.to_le_bytes(), 9u32.to_le_bytes(), size.to_le_bytes()];
        stream.write_all(header.as_flattened()).await.unwrap();
        assert_eq!(read_link_reply(&mut stream).await, Err(error));
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn garbage_closes_its_connection_and_nothing_else() {
    let mut host = start("source", None, None).await;
    let mut client = Client::connect(&host, ALL).await;
    let mut stream = TcpStream::connect(host.spice()).await.unwrap();
    stream.write_all(&[0x5a; 100_000]).await.unwrap();
    assert_eq!(read_link_reply(&mut stream).await, Err(LinkError::INVALID_MAGIC));

    let mut cursor = client.children.pop().unwrap();
    cursor.stream.write_all(&[0xff; 64]).await.unwrap();
    cursor.expect_end().await;
    let mut display = client.children.remove(0);
    display.send(ClientMessage::Unknown { id: 1, body: Data(&[0]) }).await;
    display.expect_end().await;
    client.main.expect_silence().await;
    client.children[0].expect_silence().await;
    expect_alive(&mut host).await;
}

#[tokio::test]
async fn a_flood_is_answered_in_full() {
    let mut host = start("source", None, None).await;
    let mut client = Client::connect(&host, ALL).await;
    let request = [104u16.to_le_bytes(), [0; 2], [0; 2]].concat().repeat(20_000);
    let (mut reader, mut writer) = client.main.stream.split();
    let write = async {
        writer.write_all(&request).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let read = async {
        let mut answers = Vec::new();
        reader.read_to_end(&mut answers).await.unwrap();
        assert_eq!(answers.len(), 20_000 * 16);
    };
    timeout(6 * PATIENCE, async { tokio::join!(write, read) }).await.unwrap();
    expect_alive(&mut host).await;
}

#[tokio::test]
async fn a_defect_changes_one_behaviour() {
    let mut host = start("source", None, Some(Defect::BeginInsteadOfSeamless)).await;
    let target = start("target", None, None).await;
    let mut client = Client::connect(&host, ALL).await;
    announce(&mut host, &target, &mut client, 101).await;
}
