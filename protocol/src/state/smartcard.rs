//! A smartcard channel's state.

use super::{CharDevice, Flag, Header, magic};
use crate::wire::{Data, DataAt, wire_struct};

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
