//! A client of the server, its channels, and what is sent on them.

use spice_migration::{
    ChannelType, Data, List, ServerMessage,
    caps::MainCapability,
    frame::{self, HeaderKind},
    message::{ChannelId, Message, MigrateFlags, server as send},
};
use tokio::sync::mpsc;

use super::state;
use crate::peer::defect::Defect;

/// The channel that a session begins with.
pub(super) const MAIN: ChannelId = channel(ChannelType::MAIN);

/// The channels that are listed for the client.
pub(super) const CHILDREN: [ChannelId; 3] =
    [channel(ChannelType::DISPLAY), channel(ChannelType::INPUTS), channel(ChannelType::CURSOR)];

const fn channel(channel_type: ChannelType) -> ChannelId {
    ChannelId { channel_type, id: 0 }
}

/// One client: a main channel and what belongs to its session.
#[derive(Debug)]
pub(super) struct Client {
    /// Its main connection, which names the client.
    pub(super) number: u64,
    pub(super) session: u32,
    /// The first word of its main channel's capabilities.
    pub(super) capabilities: u32,
    pub(super) stage: Stage,
    pub(super) reply: Reply,
    /// Whether a destination is to be announced as soon as the arrival is complete.
    pub(super) deferred: bool,
    pub(super) channels: Vec<Channel>,
}

/// Where the client is on its way from host to host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It came with a connection id, so it migrates hither; by which scheme is open. Nothing is sent.
    Held {
        /// With `init-before-end`.
        init_sent: bool,
    },
    /// It migrates hither seamlessly: channels are active, data is awaited.
    Seamless,
    /// It is here.
    Active(Arrival),
    /// It was told to go to another host.
    Leaving,
}

/// How the client came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    Fresh,
    SemiSeamless,
    Seamless,
}

/// How the client answered the announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    NotAsked,
    Awaited,
    Connected,
    ConnectedSeamless,
    Failed,
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
    pub(super) phase: Phase,
}

/// How far the channel's hand-over is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Here is the target, and the session has not begun.
    Held,
    /// In use.
    Open,
    /// Here is the target: MIGRATE_DATA must come.
    DataAwaited,
    /// Here is the source: MIGRATE was sent, FLUSH_MARK must come.
    FlushAwaited,
    /// Here is the source, and nothing more is sent.
    Moved,
}

impl Client {
    /// Whether its main channel has the capability.
    pub(super) fn can(&self, capability: MainCapability) -> bool {
        self.capabilities >> capability.0 & 1 == 1
    }

    /// Whether it has answered with success, and can be told to go on there or to stay.
    pub(super) fn has_connected(&self) -> bool {
        matches!(self.reply, Reply::Connected | Reply::ConnectedSeamless)
            && self.can(MainCapability::SEMI_SEAMLESS_MIGRATE)
    }

    /// Its answer to the announcement, or one that nobody awaits.
    pub(super) fn answer(&mut self, reply: Reply, defect: Option<Defect>) {
        if self.reply == Reply::Awaited {
            self.reply = reply;
            return;
        }
        let told = match reply {
            Reply::Failed => defect == Some(Defect::UnaskedErrorAnswered),
            _ => defect != Some(Defect::UnaskedConnectedIgnored),
        };
        if told && !matches!(self.stage, Stage::Held { .. }) {
            self.send_main(&ServerMessage::MigrateCancel);
            if defect == Some(Defect::SessionEndsAfterUnasked) {
                self.stage = Stage::Leaving;
            }
        }
    }

    /// Starts the hand-over of all channels.
    pub(super) fn send_migrate(&mut self, defect: Option<Defect>) {
        for channel in &mut self.channels {
            let channel_type = channel.id.channel_type;
            let migrate_flags = match channel_type {
                ChannelType::CURSOR if defect == Some(Defect::MigrateMissingOnCursor) => continue,
                ChannelType::CURSOR => MigrateFlags::default(),
                ChannelType::INPUTS if defect == Some(Defect::FlushFlagMissingOnInputs) => {
                    MigrateFlags::NEED_DATA_TRANSFER
                }
                _ => MigrateFlags::NEED_FLUSH | MigrateFlags::NEED_DATA_TRANSFER,
            };
            let migrate = ServerMessage::Migrate(send::Migrate { flags: migrate_flags });
            channel.send(&migrate);
            if channel_type == ChannelType::MAIN && defect == Some(Defect::CompletionSentTwice) {
                channel.send(&migrate);
            }
            if channel_type == ChannelType::DISPLAY && defect == Some(Defect::PingAfterMigrate) {
                channel.send(&PING);
            }
            channel.phase = match channel_type {
                ChannelType::CURSOR => Phase::Moved,
                _ => Phase::FlushAwaited,
            };
            let unflushed = migrate_flags == MigrateFlags::NEED_DATA_TRANSFER
                || channel_type == ChannelType::DISPLAY && defect == Some(Defect::DataBeforeFlush);
            if unflushed {
                channel.send_data(defect);
            }
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
        if let Some(main) = self.channels.iter_mut().find(|channel| channel.id == MAIN) {
            main.send(message);
        }
    }
}

impl Channel {
    /// Sends the channel's first messages. If its state comes from the source, display has none before that.
    pub(super) fn start(&mut self, seamless: bool) {
        self.phase = match self.id.channel_type {
            ChannelType::CURSOR => Phase::Open,
            _ if seamless => Phase::DataAwaited,
            _ => Phase::Open,
        };
        match self.id.channel_type {
            ChannelType::DISPLAY if seamless => {}
            ChannelType::DISPLAY | ChannelType::CURSOR => self.send(&SET_ACK),
            ChannelType::INPUTS => self.send(&INPUTS_INIT),
            _ => {}
        }
    }

    /// Takes FLUSH_MARK; `false` if it is not awaited.
    pub(super) fn flush(&mut self, defect: Option<Defect>) -> bool {
        match self.phase {
            Phase::FlushAwaited => self.send_data(defect),
            Phase::Moved if defect == Some(Defect::DataBeforeFlush) => {}
            _ => return false,
        }
        true
    }

    fn send_data(&mut self, defect: Option<Defect>) {
        let data = state::data(self.id.channel_type, self.serial, defect);
        let data = ServerMessage::MigrateData(send::MigrateData { data: Data(&data) });
        self.send(&data);
        if defect == Some(Defect::DataSentTwice) && self.id != MAIN {
            self.send(&data);
        }
        self.phase = Phase::Moved;
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
pub(super) const SET_ACK: ServerMessage<'_> = ServerMessage::SetAck(send::SetAck { generation: 1, window: 20 });

/// The first message of an inputs channel: no keyboard light is on.
const INPUTS_INIT: ServerMessage<'_> = ServerMessage::Unknown { id: 101, body: Data(&[0; 2]) };

/// The answer to a display client's first message: a picture would follow.
pub(super) const INVAL_ALL_PALETTES: ServerMessage<'_> = ServerMessage::Unknown { id: 108, body: Data(&[]) };

/// The first message of a client on a display channel: `SPICE_MSGC_DISPLAY_INIT`.
pub(super) const DISPLAY_INIT: u16 = 101;

/// Whether the client still answers.
pub(super) const PING: ServerMessage<'_> = ServerMessage::Ping(send::Ping { id: 1, timestamp: 0, data: Data(&[]) });
