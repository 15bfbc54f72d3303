//! The messages that are measured.

use spice_migration::message::server::{
    AgentData, ChannelsList, Init, Migrate, MigrateBeginSeamless, MigrateSwitchHost, Ping,
};
use spice_migration::message::{Message, MigrateFlags};
use spice_migration::{Data, Destination, List, ServerMessage, Text};

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The column of the tables.
    pub name: &'static str,
    /// The message.
    pub message: ServerMessage<'static>,
}

impl Case {
    /// Its encoded body.
    ///
    /// # Panics
    /// Never: the buffer has the length that the message asks for.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut body = vec![0; self.message.encoded_len()];
        self.message.encode(&mut body).expect("the buffer is large enough");
        body
    }
}

/// What is decoded.
#[must_use]
pub fn decoded() -> Vec<Case> {
    vec![
        begin_seamless(),
        switch_host(),
        INIT,
        channels("8 channels", 8),
        MIGRATE,
        Case {
            name: "PING 256K",
            message: ServerMessage::Ping(Ping { id: 7, timestamp: 1 << 40, data: Data(&[0; 256_000]) }),
        },
        EMPTY,
        Case { name: "AGENT_DATA", message: ServerMessage::AgentData(AgentData { data: Data(&[1; 2048]) }) },
    ]
}

/// What is encoded.
#[must_use]
pub fn encoded() -> Vec<Case> {
    vec![begin_seamless(), switch_host(), INIT, channels("64 channels", 64), MIGRATE, EMPTY]
}

/// How many messages [`stream`] has.
pub const STREAM_MESSAGES: u64 = 1000;

/// A stream of small messages with mini headers.
#[must_use]
pub fn stream() -> Vec<u8> {
    let mut stream = Vec::new();
    for case in [MIGRATE, EMPTY, INIT, channels("8 channels", 8)] {
        let body = case.body();
        stream.extend(case.message.id().to_le_bytes());
        stream.extend((body.len() as u32).to_le_bytes());
        stream.extend(body);
    }
    stream.repeat(STREAM_MESSAGES as usize / 4)
}

const INIT: Case = Case {
    name: "INIT",
    message: ServerMessage::Init(Init {
        session_id: 0x5b7c_a2d1,
        display_channels_hint: 1,
        supported_mouse_modes: 3,
        current_mouse_mode: 2,
        agent_connected: 1,
        agent_tokens: 10,
        multi_media_time: 4_000_123,
        ram_hint: 16 << 20,
    }),
};

const MIGRATE: Case = Case { name: "MIGRATE", message: ServerMessage::Migrate(Migrate { flags: MigrateFlags(3) }) };

const EMPTY: Case = Case { name: "empty", message: ServerMessage::MigrateEnd };

fn begin_seamless() -> Case {
    Case {
        name: "BEGIN_SEAMLESS",
        message: ServerMessage::MigrateBeginSeamless(MigrateBeginSeamless {
            destination: destination(),
            src_mig_version: 1,
        }),
    }
}

fn switch_host() -> Case {
    Case {
        name: "SWITCH_HOST",
        message: ServerMessage::MigrateSwitchHost(MigrateSwitchHost { destination: destination() }),
    }
}

/// As libvirt gives it: a host name, a TLS port, and the subject of the target's certificate.
fn destination() -> Destination<'static> {
    let text = |text: &'static str| Text::new(text.as_bytes());
    Destination {
        port: 5900,
        tls_port: 5901,
        host: text("node2.example.org").expect("it has no NUL"),
        cert_subject: text("C=DE,O=Example,CN=node2.example.org"),
    }
}

fn channels(name: &'static str, count: usize) -> Case {
    /// One of each type but the main channel, over and over.
    static CHANNELS: [[u8; 2]; 64] = {
        let mut channels = [[0; 2]; 64];
        let mut at = 0;
        while at < 64 {
            channels[at] = [2 + at as u8 % 9, at as u8 / 9];
            at += 1;
        }
        channels
    };
    let channels = List::new(&CHANNELS[..count]);
    Case { name, message: ServerMessage::ChannelsList(ChannelsList { channels }) }
}
