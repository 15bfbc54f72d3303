//! An inputs channel's state.

use super::{Header, magic};
use crate::wire::wire_struct;

wire_struct! {
    /// An inputs channel's state: `SpiceMigrateDataInputs`, magic `ICMD`.
    #[derive(Default)]
    pub struct Inputs {
        /// The version of the whole.
        version: u32 => Header<{ magic(b"ICMD") }>,
        /// How many motions the client has sent since the last acknowledgement.
        motion_count: u16,
    }
}
