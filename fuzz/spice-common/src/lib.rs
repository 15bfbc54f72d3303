//! spice-common's generated parsers and marshallers in this process: what C makes of a message, to be held against what
//! `spice-migration` makes of it.
//!
//! With the feature `c` off, the default, the crate is empty. With it on, `build.rs` compiles the C sources that `fetch` gets.
//! How C lays out its structs stays within the C shim: a message is its fields' values, in the order of their declaration.
//!
//! The unsafe code of the workspace is here, in the module `ffi`.
#![cfg(feature = "c")]

mod ffi;

pub use ffi::{Sender, demarshall, demarshall_and_discard};

/// The source package that was compiled, and its version, as its changelog has it.
pub const SOURCE_PACKAGE: &str = env!("SPICE_COMMON_SOURCE_PACKAGE");

/// Who sends a message: ids are per direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The server does: `SPICE_MSG_…`.
    FromServer,
    /// The client does: `SPICE_MSGC_…`.
    FromClient,
}

/// The value of one field of a C message.
///
/// A list has a number per field of each item; sizes and counts are fields of their own, before what they count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// A number of any width.
    Number(u64),
    /// Bytes: a string with its NUL if it has one, an array, or opaque data.
    Bytes(Vec<u8>),
    /// A NULL pointer where bytes could be.
    Absent,
}

macro_rules! from_number {
    ($($number:ty),*) => {$(
        impl From<$number> for Value {
            fn from(number: $number) -> Self {
                Self::Number(number.into())
            }
        }
    )*};
}
from_number!(u8, u16, u32, u64);

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

/// The body that C marshals for message `id`; `None` if it is not a base or main-channel message, or has other fields.
#[must_use]
pub fn marshall(direction: Direction, id: u16, values: &[Value]) -> Option<Vec<u8>> {
    Some(Sender::new(direction, id, values)?.marshall_body())
}

#[cfg(test)]
mod tests {
    use super::{
        Direction::{FromClient, FromServer},
        Sender,
        Value::{Absent, Bytes, Number},
        demarshall, demarshall_and_discard, marshall,
    };

    const MAIN: u8 = 1;
    const CURSOR: u8 = 4;

    /// MIGRATE_BEGIN as QEMU sends it.
    const BEGIN: &[u8] = b"\x3c\x3e\xff\xff\x0a\0\0\0\x14\0\0\0\0\0\0\0\0\0\0\x00127.0.0.1\0";

    #[test]
    fn fields_come_in_the_order_of_their_declaration() {
        let fields = demarshall(FromServer, MAIN, 101, BEGIN).unwrap();
        let host = Bytes(b"127.0.0.1\0".to_vec());
        assert_eq!(fields, [Number(0x3e3c), Number(0xffff), Number(10), host, Number(0), Absent]);
        let two_items = demarshall(FromServer, MAIN, 104, &[2, 0, 0, 0, 1, 0, 2, 1]).unwrap();
        assert_eq!(two_items, [2, 1, 0, 2, 1].map(Number));
        assert!(demarshall_and_discard(FromServer, MAIN, 101, BEGIN));
    }

    #[test]
    fn c_marshals_what_it_parsed_to_the_same_bytes() {
        let fields = demarshall(FromServer, MAIN, 101, BEGIN).unwrap();
        assert_eq!(marshall(FromServer, 101, &fields).unwrap(), BEGIN);
        let mut sender = Sender::new(FromServer, 101, &fields).unwrap();
        for _ in 0..2 {
            assert_eq!(sender.marshall(), [&[101, 0, 30, 0, 0, 0], BEGIN].concat());
            assert_eq!(sender.marshall_and_discard(), 36);
        }
        let opaque = demarshall(FromClient, MAIN, 107, b"agent").unwrap();
        assert_eq!(marshall(FromClient, 107, &opaque).unwrap(), b"agent");
        assert_eq!(marshall(FromClient, 104, &[]).unwrap(), b"");
    }

    #[test]
    fn base_messages_parse_on_every_channel_and_the_main_channels_on_none_but_it() {
        let set_ack = [1, 0, 0, 0, 20, 0, 0, 0];
        assert_eq!(demarshall(FromServer, CURSOR, 3, &set_ack), demarshall(FromServer, MAIN, 3, &set_ack));
        assert_eq!(demarshall(FromServer, CURSOR, 118, &[]), None);
    }

    #[test]
    fn values_that_are_not_the_messages_fields_are_refused() {
        let wrong: [&[super::Value]; 5] =
            [&[], &[Number(1 << 32)], &[Number(1), Number(2)], &[Bytes(vec![1])], &[Absent]];
        for values in wrong {
            assert_eq!(marshall(FromServer, 106, values), None, "{values:?}");
        }
        let host_absent = [Number(1), Number(2), Number(0), Absent, Number(0), Absent];
        assert_eq!(marshall(FromServer, 101, &host_absent), None);
        assert!(marshall(FromServer, 111, &host_absent).is_some());
        let longer_than_counted = [Number(1), Bytes(b"ab".to_vec())];
        assert_eq!(marshall(FromServer, 113, &longer_than_counted), None);
        let fewer_items_than_counted = [Number(u32::MAX.into()), Number(1), Number(0)];
        assert_eq!(marshall(FromServer, 104, &fewer_items_than_counted), None);
    }
}
