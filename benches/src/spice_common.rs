//! What spice-common generates for spice-gtk and spice-server, in C: decoding to an owned copy, encoding with its marshaller.

use spice_common_oracle::{Direction, Sender, demarshall, demarshall_and_discard};
use spice_migration::{ChannelType, ServerMessage};

use crate::cases::Case;
use crate::measured::{Decode, Encode};

/// Its parser, with the freeing of what comes of it, and its marshaller.
pub struct SpiceCommon;

impl Decode for SpiceCommon {
    /// Whether C accepts it.
    type Decoded<'a> = bool;

    fn decode(id: u16, body: &[u8]) -> bool {
        demarshall_and_discard(Direction::FromServer, ChannelType::MAIN.0, id, body)
    }

    /// The fields are compared by `fuzz`, and by encoding them.
    fn is(decoded: &bool, _: &ServerMessage<'_>) -> bool {
        *decoded
    }
}

impl Encode for SpiceCommon {
    type Message<'a> = Sender<'a>;

    fn with<R>(case: &Case, action: impl FnOnce(&mut Sender<'_>) -> R) -> R {
        let id = case.message.id();
        let values = demarshall(Direction::FromServer, ChannelType::MAIN.0, id, &case.body());
        let values = values.expect("C decodes every case");
        action(&mut Sender::new(Direction::FromServer, id, &values).expect("C has just made these fields"))
    }

    fn encode(message: &mut Sender<'_>, _: &mut [u8]) -> Option<usize> {
        Some(message.marshall_and_discard())
    }
}
