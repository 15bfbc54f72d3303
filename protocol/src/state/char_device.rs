//! Devices of the guest that are a stream of bytes, and the channels that carry nothing else.

use super::{Flag, Header, Version, magic};
use crate::wire::{At, Data, DataAt, Field, Located, START, Tail, TailWriter, locate, wire_struct};
use crate::{DecodeError, Fault};

wire_struct! {
    /// A device of the guest that is a stream of bytes: `SpiceMigrateDataCharDevice`.
    #[derive(Default)]
    pub struct CharDevice<'a> {
        /// The version of this part.
        version: u32 => Version,
        /// Whether the guest's end was open.
        connected: bool => Flag,
        /// How many messages the client may still send.
        num_client_tokens: u32,
        /// How many messages the server may still send to the client.
        num_send_tokens: u32,
        /// What the guest has not read yet.
        pending: PendingWrite<'a> => PendingWrite<'static>,
    }
}

/// Bytes on their way to the guest.
///
/// On the wire: `write_size`, `write_num_client_tokens`, `write_data_ptr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct PendingWrite<'a> {
    /// How many of the client's messages they are part of.
    pub num_client_tokens: u32,
    /// They.
    pub data: Data<'a>,
}

wire_struct! {
    /// The state of a usbredir, port or webdav channel: `SpiceMigrateDataSpiceVmc`, magic `SVMD`.
    #[derive(Default)]
    pub struct SpiceVmc<'a> {
        /// The version of the whole.
        version: u32 => Header<{ magic(b"SVMD") }>,
        /// The device.
        device: CharDevice<'a> => CharDevice<'static>,
    }
}

impl SpiceVmc<'_> {
    /// Its channel exists only while the guest's end is open, and spice-server ends the process where a source says otherwise.
    pub(super) fn check(&self) -> Result<(), DecodeError> {
        if self.device.connected {
            return Ok(());
        }
        let unexpected = locate::<SpiceVmc<'static>>(START, "connected").fault(Fault::Unexpected);
        Err(unexpected.in_message("SpiceMigrateDataSpiceVmc"))
    }
}

/// No bound of its own: the guest may be slow to read, and the bytes are there.
type Pending = DataAt<{ u32::MAX }>;

impl Field for PendingWrite<'static> {
    type Value<'a> = PendingWrite<'a>;
    const SLOT: usize = 12;
    const LAYOUT: &'static str = "u32 size, u32 tokens, u32 pointer to as many bytes";
    const BY_OFFSET: bool = true;

    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<PendingWrite<'a>, Located> {
        let ([size, tokens, pointer], []) = slot.as_chunks::<4>() else { return Err(at.fault(Fault::Truncated)) };
        let data = Pending::decode(at, [*size, *pointer].as_flattened(), tail)?;
        Ok(PendingWrite { num_client_tokens: u32::from_le_bytes(*tokens), data })
    }

    fn tail_len(value: PendingWrite<'_>) -> usize {
        value.data.0.len()
    }

    fn encode(value: PendingWrite<'_>, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        let ([size, tokens, pointer], []) = slot.as_chunks_mut::<4>() else { return };
        let mut place = [[0; 4]; 2];
        Pending::encode(value.data, place.as_flattened_mut(), tail);
        [*size, *pointer] = place;
        *tokens = value.num_client_tokens.to_le_bytes();
    }

    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<PendingWrite<'a>> {
        Ok(PendingWrite { num_client_tokens: bytes.arbitrary()?, data: Pending::arbitrary(bytes)? })
    }
}
