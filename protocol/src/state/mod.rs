//! Migration data: a channel's state, on its way from the source's server to the target's, carried by the client unread.
//!
//! The body of MIGRATE_DATA begins with four ASCII bytes and a version. All pointers in it count from those four bytes. A pointer
//! to no bytes means nothing and is encoded as 0, as spice-server does.
//!
//! A target must not trust these bytes: they come from the client. [`State::for_target`] is the one call that says whether a
//! target may use them, and why not. Decoding alone leaves one thing open: in which form a display's list of surfaces is.
//! spice-server 0.15.1 checks the magic and the version, and most of the rest not at all.
//!
//! ```
//! use spice_migration::{ChannelType, state::{JpegWanCompression, State}};
//!
//! let inputs = |bytes| State::for_target(ChannelType::INPUTS, JpegWanCompression::Never, bytes);
//! let State::Inputs(state) = inputs(b"ICMD\x01\0\0\0\x05\0")? else { unreachable!() };
//! assert_eq!(state.motion_count, 5);
//!
//! let error = inputs(b"XCMD\x01\0\0\0\x05\0").unwrap_err();
//! assert_eq!(error.to_string(), "SpiceMigrateDataInputs: magic at byte 0: the magic number is wrong");
//! # Ok::<(), spice_migration::DecodeError>(())
//! ```

mod char_device;
mod display;
mod inputs;
mod main;
mod smartcard;

pub use char_device::{CharDevice, PendingWrite, SpiceVmc};
pub use display::{Display, JpegWanCompression, LosslessSurface, LossySurface, MAX_SURFACES, Rectangle, Surfaces};
pub use inputs::Inputs;
pub use main::{AgentToClient, Main};
pub use smartcard::Smartcard;

use core::marker::PhantomData;

use crate::channel::ChannelType;
use crate::wire::{
    At, Data, Field, FieldLayout, Located, Scalar, Tail, TailWriter, body_len, decode_body, encode_body,
};
use crate::{DecodeError, EncodeError, Fault};

/// The only version of any channel's migration data, and of the protocol: `SPICE_MIGRATION_PROTOCOL_VERSION`.
pub const VERSION: u32 = 1;

macro_rules! states {
    ($( $(#[$doc:meta])* $Kind:ident($Name:ident $(<$life:lifetime>)?) = $c_name:literal on $($CHANNEL:ident)|+; )*) => {
        /// The migration data of any channel that has some.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum State<'a> {
            $( $(#[$doc])* $Kind($Name $(<$life>)?), )*
            /// That of a channel type which this crate knows no state of: kept as it came.
            Unknown(Data<'a>),
        }

        #[cfg(any(test, feature = "arbitrary"))]
        impl<'a> arbitrary::Arbitrary<'a> for State<'a> {
            /// Of a channel of any type that has state.
            fn arbitrary(bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
                let channel = *bytes.choose(&[$( $( ChannelType::$CHANNEL, )+ )*])?;
                Self::arbitrary_of(channel, bytes)
            }
        }

        impl<'a> State<'a> {
            /// Decodes the body of a MIGRATE_DATA that came on a channel of this type. Borrows from `data`.
            ///
            /// # Errors
            /// When the magic is another channel's, a version is newer than [`VERSION`], a flag is neither 0 nor 1, a length or
            /// pointer leads beyond the bytes, or a number is one that no source can have had.
            pub fn decode(channel: ChannelType, data: &'a [u8]) -> Result<Self, DecodeError> {
                match channel {
                    $( $( ChannelType::$CHANNEL )|+ => {
                        const SLOT: usize = <$Name as Field>::SLOT;
                        decode_body::<$Name, SLOT>($c_name, data).map(Self::$Kind)
                    } )*
                    _ => Ok(Self::Unknown(Data(data))),
                }
            }

            /// Encodes it into the front of `out` and returns its length.
            ///
            /// # Errors
            /// When `out` is too small.
            pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
                match *self {
                    $( Self::$Kind(state) => encode_body::<$Name>(state, out), )*
                    Self::Unknown(data) => encode_body::<crate::wire::Rest>(data, out),
                }
            }

            /// The length of its encoded form in bytes.
            #[must_use]
            pub fn encoded_len(&self) -> usize {
                match *self {
                    $( Self::$Kind(state) => body_len::<$Name>(state), )*
                    Self::Unknown(data) => data.0.len(),
                }
            }

            /// Data that decodes, of a channel of this type.
            ///
            /// # Errors
            /// When `bytes` are used up.
            #[cfg(any(test, feature = "arbitrary"))]
            pub fn arbitrary_of(channel: ChannelType, bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
                Ok(match channel {
                    $( $( ChannelType::$CHANNEL )|+ => Self::$Kind(<$Name as Field>::arbitrary(bytes)?), )*
                    _ => Self::Unknown(<crate::wire::Rest as Field>::arbitrary(bytes)?),
                })
            }
        }
    };
}

states! {
    /// The main channel's.
    Main(Main<'a>) = "SpiceMigrateDataMain" on MAIN;
    /// A display channel's.
    Display(Display<'a>) = "SpiceMigrateDataDisplay" on DISPLAY;
    /// An inputs channel's.
    Inputs(Inputs) = "SpiceMigrateDataInputs" on INPUTS;
    /// A usbredir, port or webdav channel's.
    SpiceVmc(SpiceVmc<'a>) = "SpiceMigrateDataSpiceVmc" on USBREDIR | PORT | WEBDAV;
    /// A smartcard channel's.
    Smartcard(Smartcard<'a>) = "SpiceMigrateDataSmartcard" on SMARTCARD;
}

impl<'a> State<'a> {
    /// Decodes the body of a MIGRATE_DATA that came on a channel of this type, if a target may use it.
    ///
    /// `compression` is the target's setting; it says in which form a display's list of surfaces is.
    ///
    /// # Errors
    /// As [`Self::decode`]; also when this channel type has no state to carry, the list of surfaces is not one, or fields do not go
    /// together as a source's do: a device without a guest on its channel, or more of a smartcard's message than there is of it.
    pub fn for_target(
        channel: ChannelType,
        compression: JpegWanCompression,
        data: &'a [u8],
    ) -> Result<Self, DecodeError> {
        let state = Self::decode(channel, data)?;
        match &state {
            Self::Display(display) if display.has_lossy_surfaces(compression) => {
                display.surfaces.lossy()?;
            }
            Self::Display(display) => {
                display.surfaces.lossless()?;
            }
            Self::SpiceVmc(channel) => channel.check()?,
            Self::Smartcard(card) => card.check()?,
            // `decode` has looked at all that there is.
            Self::Main(_) | Self::Inputs(_) => {}
            Self::Unknown(_) => {
                return Err(At { field: "data", offset: 0 }.fault(Fault::Unexpected).in_message("migration data"));
            }
        }
        Ok(state)
    }
}

const fn magic(text: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*text)
}

/// The magic, which must be right, and the version behind it, which must not be newer than [`VERSION`].
struct Header<const MAGIC: u32>;

impl<const MAGIC: u32> Field for Header<MAGIC> {
    type Value<'a> = u32;
    const SLOT: usize = 8;
    const LAYOUT: &'static str = "four ASCII bytes, u32 version";

    fn describe(at: At, show: &mut dyn FnMut(FieldLayout)) {
        show(FieldLayout { name: "magic", offset: at.offset, size: 4, layout: "four ASCII bytes", item: None });
        Version::describe(At { offset: at.offset.saturating_add(4), ..at }, show);
    }

    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<u32, Located> {
        let (found, version) = slot.split_at_checked(4).unwrap_or_default();
        if *found != MAGIC.to_le_bytes() {
            return Err(At { field: "magic", ..at }.fault(Fault::WrongMagic));
        }
        Version::decode(At { offset: at.offset.saturating_add(4), ..at }, version, tail)
    }

    fn tail_len(_: u32) -> usize {
        0
    }

    fn encode(version: u32, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        let (magic, place) = slot.split_at_mut_checked(4).unwrap_or_default();
        u32::encode(MAGIC, magic, tail);
        Version::encode(version, place, tail);
    }

    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<u32> {
        Version::arbitrary(bytes)
    }
}

/// A version, which must not be newer than [`VERSION`]: what a newer one means is not known.
struct Version;

impl Field for Version {
    type Value<'a> = u32;
    const SLOT: usize = 4;
    const LAYOUT: &'static str = "u32 version";

    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<u32, Located> {
        match u32::decode(at, slot, tail)? {
            version @ ..=VERSION => Ok(version),
            _ => Err(at.fault(Fault::UnsupportedVersion)),
        }
    }

    fn tail_len(_: u32) -> usize {
        0
    }

    fn encode(version: u32, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        u32::encode(version, slot, tail);
    }

    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<u32> {
        bytes.int_in_range(0..=VERSION)
    }
}

/// A number that must not be more than `MOST`.
struct AtMost<const MOST: u32, T>(PhantomData<T>);

impl<const MOST: u32, T: Scalar + Into<u32>> Field for AtMost<MOST, T> {
    type Value<'a> = T;
    const SLOT: usize = T::SIZE;
    const LAYOUT: &'static str = T::LAYOUT;

    fn decode<'a>(at: At, slot: &[u8], _: &mut Tail<'a>) -> Result<T, Located> {
        let number = T::read(slot);
        if number.into() > MOST { Err(at.fault(Fault::LimitExceeded)) } else { Ok(number) }
    }

    fn tail_len(_: T) -> usize {
        0
    }

    fn encode(number: T, slot: &mut [u8], _: &mut TailWriter<'_>) {
        number.write(slot);
    }

    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<T> {
        bytes.int_in_range(0..=MOST).map(|number| T::read(&number.to_le_bytes()))
    }
}

/// A byte that is 0 or 1.
struct Flag;

impl Field for Flag {
    type Value<'a> = bool;
    const SLOT: usize = 1;
    const LAYOUT: &'static str = "u8, 0 or 1";

    fn decode<'a>(at: At, slot: &[u8], _: &mut Tail<'a>) -> Result<bool, Located> {
        match slot {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(at.fault(Fault::NotAFlag)),
        }
    }

    fn tail_len(_: bool) -> usize {
        0
    }

    fn encode(value: bool, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        u8::encode(u8::from(value), slot, tail);
    }

    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<bool> {
        bytes.arbitrary()
    }
}
