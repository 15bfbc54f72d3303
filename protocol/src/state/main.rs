//! The main channel's state: that of the guest agent's port.

use super::{CharDevice, Flag, Header, magic};
use crate::wire::{At, Data, DataAt, Field, Located, Tail, TailWriter, locate, wire_struct};
use crate::{DecodeError, Fault};

/// Length of the header of a chunk on the agent's port: `VDIChunkHeader`.
const CHUNK_HEADER_LEN: u32 = 8;

/// Length of the header of an agent's message: `VDAgentMessage`.
const AGENT_MESSAGE_HEADER_LEN: u32 = 20;

wire_struct! {
    /// The main channel's state: that of the guest agent's port: `SpiceMigrateDataMain`, magic `MNMD`.
    #[derive(Default)]
    pub struct Main<'a> {
        /// The version of the whole.
        version: u32 => Header<{ magic(b"MNMD") }>,
        /// The agent's port.
        agent: CharDevice<'a> => CharDevice<'static>,
        /// Whether the client has sent AGENT_START.
        client_agent_started: bool => Flag,
        /// What has been read from the agent and not yet sent to the client.
        agent_to_client: AgentToClient<'a> => AgentToClient<'static>,
        /// Bytes of the client's current message that have not yet come.
        client_message_remaining: u32,
        /// What spice-server's filter said about that message.
        client_filter_result: u8,
    }
}

wire_struct! {
    /// A message from the agent that the source had read in part.
    #[derive(Default)]
    pub struct AgentToClient<'a> {
        /// How many bytes of the chunk's header had been read: at most 8.
        chunk_header_size: u32 => ChunkHeaderSize,
        /// The chunk header's port.
        chunk_port: u32,
        /// The chunk header's size.
        chunk_size: u32,
        /// Whether the message's header had been read whole.
        message_header_done: bool => Flag,
        /// What had been read of the message's header: fewer than 20 bytes.
        message_header: Data<'a> => DataAt<{ AGENT_MESSAGE_HEADER_LEN - 1 }>,
        /// Bytes of the message that have not yet come.
        message_remaining: u32,
        /// What spice-server's filter said about the message.
        filter_result: u8,
    }
}

impl Main<'_> {
    /// What one field alone does not show: without a whole chunk header nothing of a message can have been read.
    pub(super) fn check(&self) -> Result<(), DecodeError> {
        let AgentToClient { chunk_header_size, message_header_done, message_header, .. } = self.agent_to_client;
        let read = if message_header_done {
            "message_header_done"
        } else if !message_header.0.is_empty() {
            "message_header"
        } else {
            return Ok(());
        };
        if chunk_header_size < CHUNK_HEADER_LEN {
            let unexpected = locate::<Main<'static>>(read).fault(Fault::Unexpected);
            return Err(unexpected.in_message("SpiceMigrateDataMain"));
        }
        Ok(())
    }
}

/// At most [`CHUNK_HEADER_LEN`].
struct ChunkHeaderSize;

impl Field for ChunkHeaderSize {
    type Value<'a> = u32;
    const SLOT: usize = 4;
    const LAYOUT: &'static str = "u32, at most 8";

    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<u32, Located> {
        match u32::decode(at, slot, tail)? {
            size @ ..=CHUNK_HEADER_LEN => Ok(size),
            _ => Err(at.fault(Fault::LimitExceeded)),
        }
    }

    fn tail_len(_: u32) -> usize {
        0
    }

    fn encode(size: u32, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        u32::encode(size, slot, tail);
    }

    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<u32> {
        bytes.int_in_range(0..=CHUNK_HEADER_LEN)
    }
}
