//! A client of the server, its channels, and what is sent on them.

use spice_migration::{
    ChannelType, Data, List, ServerMessage,
    caps::MainCapability,
    frame::{self, HeaderKind},
    message::{ChannelId, Message, server as send},
    migrate::source_server::{ClientId, Support},
};
use tokio::sync::mpsc;

use crate::peer::defect::Defect;

/// The channel that a session begins with.
pub(super) const MAIN: ChannelId = channel(ChannelType::MAIN);

/// The channels that are listed for the client.
pub(super) const CHILDREN: [ChannelId; 3] =
    [channel(ChannelType::DISPLAY), channel(ChannelType::INPUTS), channel(ChannelType::CURSOR)];

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
    /// Whether it was told a destination.
    pub(super) asked: bool,
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
    /// Whether it has gone on from a source's data.
    pub(super) restored: bool,
    /// Whether the client has said anything.
    pub(super) spoke: bool,
}

impl Client {
    /// Whether its main channel has the capability.
    pub(super) fn can(&self, capability: MainCapability) -> bool {
        self.capabilities >> capability.0 & 1 == 1
    }

    /// The same, as the roles want to know it.
    pub(super) fn support(&self, defect: Option<Defect>) -> Support {
        let semi_seamless = self.can(MainCapability::SEMI_SEAMLESS_MIGRATE);
        Support {
            semi_seamless: semi_seamless || defect == Some(Defect::BeginUnasked),
            seamless: self.can(MainCapability::SEAMLESS_MIGRATE) && self.can(MainCapability::AGENT_CONNECTED_TOKENS),
        }
    }

    /// Lists the channels that can be linked.
    pub(super) fn send_channels_list(&mut self, defect: Option<Defect>) {
        let mut channels = CHILDREN.to_vec();
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

    /// Queues a message; the connection's task writes it.
    pub(super) fn send(&mut self, message: &ServerMessage<'_>) {
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

/// `SPICE_MSG_DISPLAY_MARK`: the screen can be shown.
const MARK: u16 = 102;

/// `SPICE_MSG_DISPLAY_INVAL_ALL_PALETTES`.
const INVAL_ALL_PALETTES: u16 = 108;

/// `SPICE_MSG_DISPLAY_DRAW_FILL`.
const DRAW_FILL: u16 = 302;

/// `SPICE_MSG_DISPLAY_SURFACE_CREATE`.
const SURFACE_CREATE: u16 = 314;
