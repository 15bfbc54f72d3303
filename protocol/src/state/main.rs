//! The main channel's state: that of the guest agent's port.

use super::{AtMost, CharDevice, Flag, Header, magic};
use crate::Fault;
use crate::wire::{At, Data, DataAt, Field, FieldLayout, Located, Tail, TailWriter, locate, wire_struct};

/// Length of the header of a chunk on the agent's port: `VDIChunkHeader`.
const CHUNK_HEADER_LEN: u32 = 8;

/// Length of the header of an agent's message: `VDAgentMessage`.
const AGENT_MESSAGE_HEADER_LEN: u32 = 20;

/// The last of the results of spice-server's filter of agent messages: `AGENT_MSG_FILTER_MONITORS_CONFIG`.
const LAST_FILTER_RESULT: u32 = 3;

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
        agent_to_client: AgentToClient<'a> => InOrder,
        /// Bytes of the client's current message that have not yet come.
        client_message_remaining: u32,
        /// What spice-server's filter said about that message: `AgentMsgFilterResult`, at most 3.
        client_filter_result: u8 => AtMost<LAST_FILTER_RESULT, u8>,
    }
}

wire_struct! {
    /// A message from the agent that the source had read in part.
    #[derive(Default)]
    pub struct AgentToClient<'a> {
        /// How many bytes of the chunk's header had been read: at most 8.
        chunk_header_size: u32 => AtMost<CHUNK_HEADER_LEN, u32>,
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
        /// What spice-server's filter said about the message: `AgentMsgFilterResult`, at most 3.
        filter_result: u8 => AtMost<LAST_FILTER_RESULT, u8>,
    }
}

/// [`AgentToClient`], in which nothing of a message has been read before its chunk's header.
struct InOrder;

impl Field for InOrder {
    type Value<'a> = AgentToClient<'a>;
    const SLOT: usize = AgentToClient::SLOT;
    const LAYOUT: &'static str = AgentToClient::LAYOUT;
    const BY_OFFSET: bool = true;

    fn describe(at: At, show: &mut dyn FnMut(FieldLayout)) {
        AgentToClient::describe(at, show);
    }

    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<AgentToClient<'a>, Located> {
        let value = AgentToClient::decode(at, slot, tail)?;
        let read_too_early = match value {
            AgentToClient { chunk_header_size: CHUNK_HEADER_LEN, .. } => None,
            AgentToClient { message_header_done: true, .. } => Some("message_header_done"),
            AgentToClient { message_header: Data(&[]), .. } => None,
            _ => Some("message_header"),
        };
        match read_too_early {
            None => Ok(value),
            Some(field) => Err(locate::<AgentToClient<'static>>(at, field).fault(Fault::Unexpected)),
        }
    }

    fn tail_len(value: AgentToClient<'_>) -> usize {
        AgentToClient::tail_len(value)
    }

    fn encode(value: AgentToClient<'_>, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        AgentToClient::encode(value, slot, tail);
    }

    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<AgentToClient<'a>> {
        let mut value = <AgentToClient<'static> as Field>::arbitrary(bytes)?;
        if value.chunk_header_size < CHUNK_HEADER_LEN {
            value.message_header_done = false;
            value.message_header = Data::default();
        }
        Ok(value)
    }
}
