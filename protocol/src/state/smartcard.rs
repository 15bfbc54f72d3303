//! A smartcard channel's state.

use super::{CharDevice, Flag, Header, magic};
use crate::wire::{Data, DataAt, START, index, locate, wire_struct};
use crate::{DecodeError, Fault};

wire_struct! {
    /// A smartcard channel's state: `SpiceMigrateDataSmartcard`, magic `SCMD`.
    #[derive(Default)]
    pub struct Smartcard<'a> {
        /// The version of the whole.
        version: u32 => Header<{ magic(b"SCMD") }>,
        /// The device.
        device: CharDevice<'a> => CharDevice<'static>,
        /// Whether the client has added a reader.
        reader_added: bool => Flag,
        /// What has been read of the device's current message.
        read: Data<'a> => DataAt<{ u32::MAX }>,
    }
}

/// Length of the header of a message of the smartcard device: `VSCMsgHeader`, three numbers in network order, the last of them the
/// length of what follows.
const MESSAGE_HEADER_LEN: usize = 12;

impl Smartcard<'_> {
    /// Of a message that is still being read there cannot be all. spice-server copies what is there into a buffer that is as large as
    /// the message's header says.
    pub(super) fn check(&self) -> Result<(), DecodeError> {
        let read = self.read.0;
        let whole = match read.first_chunk::<MESSAGE_HEADER_LEN>() {
            Some([.., a, b, c, d]) => MESSAGE_HEADER_LEN.saturating_add(index(u32::from_be_bytes([*a, *b, *c, *d]))),
            None => MESSAGE_HEADER_LEN,
        };
        if read.len() < whole {
            return Ok(());
        }
        let too_much = locate::<Smartcard<'static>>(START, "read").fault(Fault::LimitExceeded);
        Err(too_much.in_message("SpiceMigrateDataSmartcard"))
    }
}
