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
//! use spice_migration::{ChannelType, state::{State, SurfaceForm}};
//!
//! let inputs = |bytes| State::for_target(ChannelType::INPUTS, SurfaceForm::Lossless, bytes);
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
pub use display::{Display, LosslessSurface, LossySurface, MAX_SURFACES, Rectangle, SurfaceForm, Surfaces};
pub use inputs::Inputs;
pub use main::{AgentToClient, Main};
pub use smartcard::Smartcard;

use crate::channel::ChannelType;
use crate::wire::{At, Data, Field, Located, Tail, TailWriter, body_len, decode_body, encode_body};
use crate::{DecodeError, EncodeError, Fault};

/// The only version of any channel's migration data, and of the protocol: `SPICE_MIGRATION_PROTOCOL_VERSION`.
pub const VERSION: u32 = 1;

macro_rules! states {
    ($( $(#[$doc:meta])* $Kind:ident($Name:ident $(<$life:lifetime>)?) = $c_name:literal on $($CHANNEL:ident)|+ $(, then $check:ident)?; )*) => {
        /// The migration data of any channel that has some.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum State<'a> {
            $( $(#[$doc])* $Kind($Name $(<$life>)?), )*
            /// That of a channel type which this crate knows no state of: kept as it came.
            Unknown(Data<'a>),
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
                        let state = decode_body::<$Name, SLOT>($c_name, data)?;
                        $( state.$check()?; )?
                        Ok(Self::$Kind(state))
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
                    $( $( ChannelType::$CHANNEL )|+ => {
                        let state = <$Name as Field>::arbitrary(bytes)?;
                        // Fields that do not go together are rare enough to be thrown away.
                        $( let state = if state.$check().is_ok() { state } else { $Name::default() }; )?
                        Self::$Kind(state)
                    } )*
                    _ => Self::Unknown(<crate::wire::Rest as Field>::arbitrary(bytes)?),
                })
            }
        }
    };
}

states! {
    /// The main channel's.
    Main(Main<'a>) = "SpiceMigrateDataMain" on MAIN, then check;
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
    /// `surfaces` is the form of the list of surfaces that the hosts' configuration implies; only display channels have one.
    ///
    /// # Errors
    /// As [`Self::decode`]; also when this channel type has no state to carry, or the list of surfaces is not one.
    pub fn for_target(channel: ChannelType, surfaces: SurfaceForm, data: &'a [u8]) -> Result<Self, DecodeError> {
        let state = Self::decode(channel, data)?;
        match (&state, surfaces) {
            (Self::Display(display), SurfaceForm::Lossless) => display.surfaces.lossless().map(|_| ())?,
            (Self::Display(display), SurfaceForm::Lossy) => display.surfaces.lossy().map(|_| ())?,
            (Self::Unknown(_), _) => {
                return Err(At { field: "data", offset: 0 }.fault(Fault::Unexpected).in_message("migration data"));
            }
            _ => {}
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

/// INVARIANT: bodies are bounded by `MAX_BODY`, so every length and offset in one fits.
fn slot_bytes(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}
