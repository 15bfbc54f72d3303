//! What a client sends.

use super::MouseModes;
use crate::link::LinkError;
use crate::wire::{Data, Rest, messages};

messages! {
    /// A message from a client to a server.
    pub enum ClientMessage;

    /// Answers SET_ACK.
    Base 1 "SPICE_MSGC_ACK_SYNC" AckSync {
        /// As received.
        generation: u32,
    };

    /// So many messages as SET_ACK's window says have arrived.
    Base 2 "SPICE_MSGC_ACK" Ack;

    /// Answers PING.
    Base 3 "SPICE_MSGC_PONG" Pong {
        /// As received.
        id: u32,
        /// As received.
        timestamp: u64,
    };

    /// The last message to the source on this channel: the state may be taken.
    Base 4 "SPICE_MSGC_MIGRATE_FLUSH_MARK" MigrateFlushMark;

    /// The state that the source's server sent, to the target's server, byte for byte.
    Base 5 "SPICE_MSGC_MIGRATE_DATA" MigrateData<'a> {
        /// The state.
        data: Data<'a> => Rest,
    };

    /// The client is about to close the channel.
    Base 6 "SPICE_MSGC_DISCONNECTING" Disconnecting {
        /// The client's clock.
        time_stamp: u64,
        /// Why.
        reason: LinkError,
    };

    /// About the client's cache.
    Main 101 "SPICE_MSGC_MAIN_CLIENT_INFO" ClientInfo {
        /// The cache's size in bytes.
        cache_size: u64,
    };

    /// Connected to the target, for a semi-seamless migration.
    Main 102 "SPICE_MSGC_MAIN_MIGRATE_CONNECTED" MigrateConnected;

    /// Could not connect to the target.
    Main 103 "SPICE_MSGC_MAIN_MIGRATE_CONNECT_ERROR" MigrateConnectError;

    /// Asks for CHANNELS_LIST.
    Main 104 "SPICE_MSGC_MAIN_ATTACH_CHANNELS" AttachChannels;

    /// Asks for a mouse mode.
    Main 105 "SPICE_MSGC_MAIN_MOUSE_MODE_REQUEST" MouseModeRequest {
        /// Which.
        mode: MouseModes,
    };

    /// Begins to talk to the guest's agent.
    Main 106 "SPICE_MSGC_MAIN_AGENT_START" AgentStart {
        /// How many agent messages the server may send.
        num_tokens: u32,
    };

    /// To the guest's agent.
    Main 107 "SPICE_MSGC_MAIN_AGENT_DATA" AgentData<'a> {
        /// The agent protocol's bytes.
        data: Data<'a> => Rest,
    };

    /// So many more agent messages the server may send.
    Main 108 "SPICE_MSGC_MAIN_AGENT_TOKEN" AgentToken {
        /// How many more.
        num_tokens: u32,
    };

    /// To the target: the source has said that the guest has moved, start the session here (semi-seamless).
    Main 109 "SPICE_MSGC_MAIN_MIGRATE_END" MigrateEnd;

    /// To the target: take the session over seamlessly.
    Main 110 "SPICE_MSGC_MAIN_MIGRATE_DST_DO_SEAMLESS" MigrateDstDoSeamless {
        /// The source's migration protocol version, as received.
        src_version: u32,
    };

    /// Connected to the target, which has agreed to a seamless migration.
    Main 111 "SPICE_MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS" MigrateConnectedSeamless;

    /// How well the connection serves the user.
    Main 112 "SPICE_MSGC_MAIN_QUALITY_INDICATOR" QualityIndicator<'a> {
        /// In no published format.
        data: Data<'a> => Rest,
    };
}
