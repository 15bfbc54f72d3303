//! A client of the server, its channels, and what is sent on them.

use spice_migration::{
    ChannelType, Data, List, ServerMessage,
    caps::MainCapability,
    frame::{self, HeaderKind},
    link::LinkError,
    message::{ChannelId, Message, server as send},
    migrate::source_server::{ClientId, Support},
};
use tokio::sync::mpsc;

use crate::{peer::defect::Defect, subject::HostOptions};

/// The channel that a session begins with.
pub(super) const MAIN: ChannelId = channel(ChannelType::MAIN);

/// The channels of every guest.
const CHILDREN: [ChannelId; 3] =
    [channel(ChannelType::DISPLAY), channel(ChannelType::INPUTS), channel(ChannelType::CURSOR)];

/// Those of a guest with a port and a smartcard reader.
const PORT_AND_SMARTCARD: [ChannelId; 2] = [channel(ChannelType::PORT), channel(ChannelType::SMARTCARD)];

/// The channels that are listed for the client.
pub(super) fn children(options: &HostOptions) -> impl Iterator<Item = ChannelId> + use<> {
    let more = if options.port_and_smartcard { &PORT_AND_SMARTCARD[..] } else { &[] };
    CHILDREN.into_iter().chain(more.iter().copied())
}

const fn channel(channel_type: ChannelType) -> ChannelId {
    ChannelId { channel_type, id: 0 }
}

/// One client, as far as the roles do not know it: its session, its connections, and what it was told.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: ClientId,
    pub(super) session: u32,
    /// The first word of its main channel's capabilities.
    pub(super) capabilities: u32,
    /// Whether it came with a connection id, from a source.
    pub(super) migrating: bool,
    /// Whether it came seamlessly.
    pub(super) seamless: bool,
    /// Whether INIT was sent before it was due, with `init-before-end`.
    pub(super) init_sent: bool,
    /// Whether it has said that it talks to the agent.
    pub(super) agent_started: bool,
    /// Whether the target has declined to go on from its data.
    pub(super) declined: bool,
    /// Whether it was told a destination.
    pub(super) asked: bool,
    /// Whether it was told so when it had just arrived itself.
    pub(super) asked_on_arrival: bool,
    /// Whether it was told to follow the guest.
    pub(super) leaving: bool,
    pub(super) channels: Vec<Channel>,
}

/// One linked channel of a client.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) connection: u64,
    pub(super) id: ChannelId,
    pub(super) header: HeaderKind,
    /// Of the next message.
    pub(super) serial: u64,
    /// `None` once the client has let too much pile up; that ends the connection.
    pub(super) outbound: Option<mpsc::Sender<Vec<u8>>>,
    /// Whether it is served: it has begun here, and has not been told MIGRATE.
    pub(super) serves: bool,
    /// Whether the client has sent DISPLAY_INIT, or need not.
    pub(super) initialised: bool,
    /// The client's mouse motions that were not acknowledged.
    pub(super) motions: u16,
    /// Whether it has gone on from a source's data.
    pub(super) restored: bool,
    /// How many messages of the client have come.
    pub(super) heard: usize,
    /// Whether a defect keeps it from sending anything more.
    pub(super) stopped: bool,
}

impl Client {
    /// Whether its main channel has the capability.
    pub(super) fn can(&self, capability: MainCapability) -> bool {
        self.capabilities >> capability.0 & 1 == 1
    }

    /// The same, as the roles want to know it.
    pub(super) fn support(&self) -> Support {
        Support {
            semi_seamless: self.can(MainCapability::SEMI_SEAMLESS_MIGRATE),
            seamless: self.can(MainCapability::SEAMLESS_MIGRATE) && self.can(MainCapability::AGENT_CONNECTED_TOKENS),
        }
    }

    /// Lists the channels that can be linked.
    pub(super) fn send_channels_list(&mut self, options: &HostOptions, defect: Option<Defect>) {
        let mut channels: Vec<_> = children(options).collect();
        if defect == Some(Defect::NoChannelListed) {
            channels.clear();
        }
        if defect == Some(Defect::MissingChannelListed) {
            channels.push(channel(ChannelType::PORT));
        }
        let channels: Vec<_> = channels.iter().map(|listed| [listed.channel_type.0, listed.id]).collect();
        self.send_main(&ServerMessage::ChannelsList(send::ChannelsList { channels: List::new(&channels) }));
    }

    /// Sends the guest's name.
    pub(super) fn send_name(&mut self, name: &str) {
        let terminated = [name.as_bytes(), &[0]].concat();
        self.send_main(&ServerMessage::Name(send::Name { name: Data(&terminated) }));
    }

    /// Tells of an agent that it does not know of.
    pub(super) fn send_agent_connected(&mut self, defect: Option<Defect>) {
        self.agent_started = false;
        let tokens = self.can(MainCapability::AGENT_CONNECTED_TOKENS);
        self.send_main(&match tokens != (defect == Some(Defect::AgentToldOtherwise)) {
            true => ServerMessage::AgentConnectedTokens(send::AgentConnectedTokens { num_tokens: AGENT_TOKENS }),
            false => ServerMessage::AgentConnected,
        });
    }

    /// Tells that the agent has gone.
    pub(super) fn send_agent_disconnected(&mut self) {
        self.agent_started = false;
        self.send_main(&ServerMessage::AgentDisconnected(send::AgentDisconnected { error_code: LinkError::OK }));
    }

    /// Queues a message on the main channel.
    pub(super) fn send_main(&mut self, message: &ServerMessage<'_>) {
        if let Some(main) = self.channel(MAIN) {
            main.send(message);
        }
    }

    pub(super) fn channel(&mut self, id: ChannelId) -> Option<&mut Channel> {
        self.channels.iter_mut().find(|channel| channel.id == id)
    }
}

impl Channel {
    /// Begins to serve it, with what a server says first.
    pub(super) fn start(&mut self) {
        self.serves = true;
        match self.id.channel_type {
            ChannelType::DISPLAY | ChannelType::CURSOR => self.send(&SET_ACK),
            ChannelType::INPUTS => self.send(&INPUTS_INIT),
            ChannelType::PORT => self.send(&PORT_INIT),
            _ => {}
        }
    }

    /// Shows the guest's screen to a client that has just told its caches.
    pub(super) fn show_screen(&mut self) {
        let little_endian =
            |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
        let (surface, format_32_xrgb, primary) = (0, 32, 1);
        let create = little_endian(&[surface, SCREEN_WIDTH, SCREEN_HEIGHT, format_32_xrgb, primary]);
        let (top, left) = (0, 0);
        let mut fill = little_endian(&[surface, top, left, SCREEN_HEIGHT, SCREEN_WIDTH]);
        let (no_clip, solid_brush, put): (u8, u8, u16) = (0, 1, 8);
        fill.extend([no_clip, solid_brush]);
        fill.extend(SCREEN_COLOUR.to_le_bytes());
        fill.extend(put.to_le_bytes());
        let no_mask = [0; 1 + 8 + 4];
        fill.extend(no_mask);
        for (id, body) in [(INVAL_ALL_PALETTES, &[][..]), (SURFACE_CREATE, &create), (DRAW_FILL, &fill), (MARK, &[])] {
            self.send(&ServerMessage::Unknown { id, body: Data(body) });
        }
    }

    /// Counts a mouse motion of the client, and acknowledges them in bunches.
    pub(super) fn hear_motion(&mut self) {
        self.motions = self.motions.wrapping_add(1);
        // A source that was told to migrate only counts: the target acknowledges.
        if self.serves {
            self.acknowledge_motions();
        }
    }

    /// Acknowledges whole bunches of mouse motions.
    pub(super) fn acknowledge_motions(&mut self) {
        while self.motions >= MOTION_BUNCH {
            self.motions -= MOTION_BUNCH;
            self.send(&ServerMessage::Unknown { id: MOUSE_MOTION_ACK, body: Data(&[]) });
        }
    }

    /// Queues a message; the connection's task writes it.
    pub(super) fn send(&mut self, message: &ServerMessage<'_>) {
        if self.stopped {
            return;
        }
        let mut bytes = vec![0; self.header.len() + message.encoded_len()];
        let encoded = frame::encode(self.header, self.serial, message, &mut bytes);
        debug_assert!(encoded.is_ok(), "the buffer has room for {message:?}");
        self.serial = self.serial.wrapping_add(1);
        if self.outbound.as_ref().is_some_and(|outbound| outbound.try_send(bytes).is_err()) {
            self.outbound = None;
        }
    }
}

/// The first message of a display or cursor channel; the window is spice-server's.
const SET_ACK: ServerMessage<'_> = ServerMessage::SetAck(send::SetAck { generation: 1, window: 20 });

/// The first message of an inputs channel: no keyboard light is on.
const INPUTS_INIT: ServerMessage<'_> = ServerMessage::Unknown { id: 101, body: Data(&[0; 2]) };

/// The first message of a port's channel, `SPICE_MSG_PORT_INIT`: a name of 2 bytes, 9 bytes from the start, of a port that is open.
const PORT_INIT: ServerMessage<'_> = ServerMessage::Unknown { id: 201, body: Data(b"\x02\0\0\0\x09\0\0\0\x01p\0") };

/// How many messages a client may send to the agent before it has to wait: `REDS_AGENT_WINDOW_SIZE`.
pub(super) const AGENT_TOKENS: u32 = 10;

/// Whether the client still answers.
pub(super) const PING: ServerMessage<'_> = ServerMessage::Ping(send::Ping { id: 1, timestamp: 0, data: Data(&[]) });

/// The guest's screen: a small one, of one colour.
const SCREEN_WIDTH: u32 = 320;
const SCREEN_HEIGHT: u32 = 200;
const SCREEN_COLOUR: u32 = 0x0030_6090;

/// The first message of a client on a display channel: `SPICE_MSGC_DISPLAY_INIT`.
pub(super) const DISPLAY_INIT: u16 = 101;

/// A key is pressed: `SPICE_MSGC_INPUTS_KEY_DOWN`, with its scan code (u32).
pub(super) const KEY_DOWN: u16 = 101;

/// `SPICE_MSGC_INPUTS_MOUSE_MOTION`.
pub(super) const MOUSE_MOTION: u16 = 111;

/// `SPICE_MSG_INPUTS_MOUSE_MOTION_ACK`.
const MOUSE_MOTION_ACK: u16 = 111;

/// How many motions are acknowledged at once: `SPICE_INPUT_MOTION_ACK_BUNCH`.
const MOTION_BUNCH: u16 = 4;

/// `SPICE_MSG_DISPLAY_MARK`: the screen can be shown.
const MARK: u16 = 102;

/// `SPICE_MSG_DISPLAY_INVAL_ALL_PALETTES`.
const INVAL_ALL_PALETTES: u16 = 108;

/// `SPICE_MSG_DISPLAY_DRAW_FILL`.
const DRAW_FILL: u16 = 302;

/// `SPICE_MSG_DISPLAY_SURFACE_CREATE`.
const SURFACE_CREATE: u16 = 314;
