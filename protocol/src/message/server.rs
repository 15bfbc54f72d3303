//! What a server sends.

use super::{ChannelId, ChannelWait, Destination, MigrateFlags, MouseModes, NotifySeverity, NotifyVisibility};
use crate::link::LinkError;
use crate::wire::{Counted, Data, Items, List, OptionalNul, Rest, messages};

messages! {
    /// A message from a server to a client.
    pub enum ServerMessage;

    /// This channel moves to the target now: nothing follows but the data announced.
    Base 1 "SPICE_MSG_MIGRATE" Migrate {
        /// What the client must do.
        flags: MigrateFlags,
    };

    /// The channel's state, which the client carries to the target unread.
    Base 2 "SPICE_MSG_MIGRATE_DATA" MigrateData<'a> {
        /// The state.
        data: Data<'a> => Rest,
    };

    /// Asks for an ACK after every so many messages.
    Base 3 "SPICE_MSG_SET_ACK" SetAck {
        /// To be sent back in ACK_SYNC.
        generation: u32,
        /// Messages per ACK; 0 switches them off.
        window: u32,
    };

    /// To be answered with a PONG.
    Base 4 "SPICE_MSG_PING" Ping<'a> {
        /// To be sent back.
        id: u32,
        /// To be sent back: the server's clock, in nanoseconds from spice-server.
        timestamp: u64,
        /// Ballast, with which spice-server measures the bandwidth.
        data: Data<'a> => Rest,
    };

    /// Wait until the named messages of other channels are processed.
    Base 5 "SPICE_MSG_WAIT_FOR_CHANNELS" WaitForChannels<'a> {
        /// What to wait for; at most 255.
        wait_list: List<'a, ChannelWait> => Items<u8, ChannelWait>,
    };

    /// The server is about to close the channel.
    Base 6 "SPICE_MSG_DISCONNECTING" Disconnecting {
        /// The server's clock.
        time_stamp: u64,
        /// Why.
        reason: LinkError,
    };

    /// Something to tell the user.
    Base 7 "SPICE_MSG_NOTIFY" Notify<'a> {
        /// The server's clock.
        time_stamp: u64,
        /// How bad it is.
        severity: NotifySeverity,
        /// How visible it should be.
        visibility: NotifyVisibility,
        /// A code, by severity.
        what: u32,
        /// The text, without its NUL.
        message: Data<'a> => Counted,
        /// Whether a NUL follows the text. spice-server sends one; `spice.proto` has none.
        terminated: bool => OptionalNul,
    };

    /// Several messages in one, on connections with mini headers: `SpiceSubMessageList`.
    Base 8 "SPICE_MSG_LIST" SubMessageList<'a> {
        /// The list with its sub-messages.
        list: Data<'a> => Rest,
    };

    /// The guest is about to move: connect to the target and say whether that worked.
    Main 101 "SPICE_MSG_MAIN_MIGRATE_BEGIN" MigrateBegin<'a> {
        /// Where to.
        destination: Destination<'a> => Destination<'static>,
    };

    /// The guest does not move after all: drop the target.
    Main 102 "SPICE_MSG_MAIN_MIGRATE_CANCEL" MigrateCancel;

    /// The session's parameters: the first message of a main channel.
    Main 103 "SPICE_MSG_MAIN_INIT" Init {
        /// Names the session: the `connection_id` of its other channels.
        session_id: u32,
        /// How many display channels there will be.
        display_channels_hint: u32,
        /// The supported [`MouseModes`], in 32 bits here.
        supported_mouse_modes: u32,
        /// The current one of [`MouseModes`], in 32 bits here.
        current_mouse_mode: u32,
        /// 1 if the guest's agent is connected, else 0.
        agent_connected: u32,
        /// How many agent messages the client may send.
        agent_tokens: u32,
        /// The server's multimedia clock, in milliseconds.
        multi_media_time: u32,
        /// A hint on the guest's video memory, in bytes.
        ram_hint: u32,
    };

    /// The channels that the client may link.
    Main 104 "SPICE_MSG_MAIN_CHANNELS_LIST" ChannelsList<'a> {
        /// Them.
        channels: List<'a, ChannelId> => Items<u32, ChannelId>,
    };

    /// The mouse mode, or what is supported, changed.
    Main 105 "SPICE_MSG_MAIN_MOUSE_MODE" MouseMode {
        /// What is supported.
        supported_modes: MouseModes,
        /// What is in force.
        current_mode: MouseModes,
    };

    /// Sets the client's multimedia clock.
    Main 106 "SPICE_MSG_MAIN_MULTI_MEDIA_TIME" MultiMediaTime {
        /// In milliseconds.
        time: u32,
    };

    /// The guest's agent is there now; for clients without `AGENT_CONNECTED_TOKENS`.
    Main 107 "SPICE_MSG_MAIN_AGENT_CONNECTED" AgentConnected;

    /// The guest's agent is gone.
    Main 108 "SPICE_MSG_MAIN_AGENT_DISCONNECTED" AgentDisconnected {
        /// Why.
        error_code: LinkError,
    };

    /// From the guest's agent.
    Main 109 "SPICE_MSG_MAIN_AGENT_DATA" AgentData<'a> {
        /// The agent protocol's bytes.
        data: Data<'a> => Rest,
    };

    /// So many more agent messages the client may send.
    Main 110 "SPICE_MSG_MAIN_AGENT_TOKEN" AgentToken {
        /// How many more.
        num_tokens: u32,
    };

    /// The guest has moved: connect to the target from scratch.
    Main 111 "SPICE_MSG_MAIN_MIGRATE_SWITCH_HOST" MigrateSwitchHost<'a> {
        /// Where to.
        destination: Destination<'a> => Destination<'static>,
    };

    /// The guest has moved: go on at the target with the channels that wait there (semi-seamless).
    Main 112 "SPICE_MSG_MAIN_MIGRATE_END" MigrateEnd;

    /// The guest's name; for clients with `NAME_AND_UUID`.
    Main 113 "SPICE_MSG_MAIN_NAME" Name<'a> {
        /// The name, as spice-server counts it: with its NUL.
        name: Data<'a> => Counted,
    };

    /// The guest's UUID; for clients with `NAME_AND_UUID`.
    Main 114 "SPICE_MSG_MAIN_UUID" Uuid {
        /// In the order of its text form.
        uuid: [u8; 16],
    };

    /// The guest's agent is there now; for clients with `AGENT_CONNECTED_TOKENS`.
    Main 115 "SPICE_MSG_MAIN_AGENT_CONNECTED_TOKENS" AgentConnectedTokens {
        /// How many agent messages the client may send.
        num_tokens: u32,
    };

    /// As MIGRATE_BEGIN, and asks for a seamless migration.
    Main 116 "SPICE_MSG_MAIN_MIGRATE_BEGIN_SEAMLESS" MigrateBeginSeamless<'a> {
        /// Where to.
        destination: Destination<'a> => Destination<'static>,
        /// The source's migration protocol version: `SPICE_MIGRATION_PROTOCOL_VERSION`, 1 today.
        src_mig_version: u32,
    };

    /// The target takes the session over seamlessly.
    Main 117 "SPICE_MSG_MAIN_MIGRATE_DST_SEAMLESS_ACK" MigrateDstSeamlessAck;

    /// The target cannot: go on semi-seamlessly.
    Main 118 "SPICE_MSG_MAIN_MIGRATE_DST_SEAMLESS_NACK" MigrateDstSeamlessNack;
}

impl ServerMessage<'_> {
    /// The id of SPICE_MSG_LIST, whose body is a list of sub-messages.
    pub(crate) const LIST: u16 = 8;
}
