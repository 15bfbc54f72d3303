//! Migration data: a channel's state, on its way from the source's server to the target's, carried by the client unread.
//!
//! The body of MIGRATE_DATA begins with four ASCII bytes and a version. All pointers in it count from those four bytes. A pointer
//! to no bytes means nothing and is encoded as 0, as spice-server does.
//!
//! A target must not trust these bytes: they come from the client. Decoding checks every length and pointer against the bytes
//! present; [`State::check`] says whether a target may use what was decoded. spice-server 0.15.1 checks less.
//!
//! ```
//! use spice_migration::{ChannelType, state::State};
//!
//! let state = State::decode(ChannelType::INPUTS, b"ICMD\x01\0\0\0\x05\0")?;
//! state.check()?;
//! let State::Inputs(inputs) = state else { unreachable!() };
//! assert_eq!(inputs.motion_count, 5);
//!
//! let error = State::decode(ChannelType::INPUTS, b"XCMD\x01\0\0\0\x05\0").unwrap_err();
//! assert_eq!(error.to_string(), "SpiceMigrateDataInputs: magic at byte 0: the magic number is wrong");
//! # Ok::<(), spice_migration::DecodeError>(())
//! ```

use crate::link::ChannelType;
use crate::wire::{
    At, Data, Field, List, ListItem, Located, Tail, TailWriter, decode_body, encode_body, index, wire_struct,
};
use crate::{DecodeError, EncodeError, Fault};

/// The only version of any channel's migration data, and of the protocol: `SPICE_MIGRATION_PROTOCOL_VERSION`.
pub const VERSION: u32 = 1;

/// Most surfaces that a display channel can have: `NUM_SURFACES` of spice-server 0.15.1.
pub const MAX_SURFACES: u32 = 1024;

/// Length of the header of a chunk on the agent's port: `VDIChunkHeader`.
const CHUNK_HEADER_LEN: u32 = 8;

/// Length of the header of an agent's message: `VDAgentMessage`.
const AGENT_MESSAGE_HEADER_LEN: usize = 20;

wire_struct! {
    /// A device of the guest that is a stream of bytes: `SpiceMigrateDataCharDevice`.
    #[derive(Default)]
    pub struct CharDevice<'a> {
        /// The version of this part.
        version: u32,
        /// Whether the guest's end was open: 0 or 1.
        connected: u8,
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
    /// The main channel's state: that of the guest agent's port: `SpiceMigrateDataMain`, magic `MNMD`.
    #[derive(Default)]
    pub struct Main<'a> {
        /// The version of the whole.
        version: u32 => Version<{ magic(b"MNMD") }>,
        /// The agent's port.
        agent: CharDevice<'a> => CharDevice<'static>,
        /// Whether the client has sent AGENT_START: 0 or 1.
        client_agent_started: u8,
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
        chunk_header_size: u32,
        /// The chunk header's port.
        chunk_port: u32,
        /// The chunk header's size.
        chunk_size: u32,
        /// Whether the message's header had been read whole: 0 or 1.
        message_header_done: u8,
        /// What had been read of the message's header: fewer than 20 bytes.
        message_header: Data<'a> => SizeAndPointer,
        /// Bytes of the message that have not yet come.
        message_remaining: u32,
        /// What spice-server's filter said about the message.
        filter_result: u8,
    }
}

wire_struct! {
    /// A display channel's state: `SpiceMigrateDataDisplay`, magic `DCMD`.
    #[derive(Default)]
    pub struct Display<'a> {
        /// The version of the whole.
        version: u32 => Version<{ magic(b"DCMD") }>,
        /// The serial of the last message to the client.
        message_serial: u64,
        /// Whether the source had found the client's connection slow: 0 or 1.
        low_bandwidth: u8,
        /// Names the client's cache of images.
        pixmap_cache_id: u8,
        /// The cache's size, with a sign as on the wire.
        pixmap_cache_size: i64,
        /// Whether this channel froze the cache, and so thaws it: 0 or 1.
        pixmap_cache_freezer: u8,
        /// Up to which message of each of the display channels that share the cache it is in step.
        pixmap_cache_clients: [u64; 4],
        /// Names the dictionary of the GLZ encoder.
        glz_dict_id: u8,
        /// The dictionary's size.
        glz_dict_size: u32,
        /// How many encoders may share it.
        glz_max_encoders: u32,
        /// The last image in it.
        glz_last_image_id: u64,
        /// What the client has.
        surfaces: Surfaces<'a> => Surfaces<'static>,
    }
}

/// The surfaces that exist at the client.
///
/// Whether their list is lossy is not on the wire: it depends on how the hosts are configured, so the caller says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Surfaces<'a> {
    /// How many.
    pub count: u32,
    /// The list, up to the end of the bytes.
    pub entries: Data<'a>,
}

/// A surface, on hosts that compress without loss: `MigrateDisplaySurfaceLossless`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LosslessSurface {
    /// The surface.
    pub id: u32,
}

/// A surface, on hosts that may compress with loss: `MigrateDisplaySurfaceLossy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LossySurface {
    /// The surface.
    pub id: u32,
    /// The rectangle that was sent with loss.
    pub lossy_rectangle: Rectangle,
}

/// A rectangle as it lies in migration data, which is not the order of SPICE's `Rect`: `SpiceMigrateDataRect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rectangle {
    /// In pixels.
    pub left: i32,
    /// In pixels.
    pub top: i32,
    /// In pixels.
    pub right: i32,
    /// In pixels.
    pub bottom: i32,
}

wire_struct! {
    /// An inputs channel's state: `SpiceMigrateDataInputs`, magic `ICMD`.
    #[derive(Default)]
    pub struct Inputs {
        /// The version of the whole.
        version: u32 => Version<{ magic(b"ICMD") }>,
        /// How many motions the client has sent since the last acknowledgement.
        motion_count: u16,
    }
}

wire_struct! {
    /// The state of a usbredir, port or webdav channel: `SpiceMigrateDataSpiceVmc`, magic `SVMD`.
    #[derive(Default)]
    pub struct SpiceVmc<'a> {
        /// The version of the whole.
        version: u32 => Version<{ magic(b"SVMD") }>,
        /// The device.
        device: CharDevice<'a> => CharDevice<'static>,
    }
}

wire_struct! {
    /// A smartcard channel's state: `SpiceMigrateDataSmartcard`, magic `SCMD`.
    #[derive(Default)]
    pub struct Smartcard<'a> {
        /// The version of the whole.
        version: u32 => Version<{ magic(b"SCMD") }>,
        /// The device.
        device: CharDevice<'a> => CharDevice<'static>,
        /// Whether the client has added a reader: 0 or 1.
        reader_added: u8,
        /// What has been read of the device's current message.
        read: Data<'a> => SizeAndPointer,
    }
}

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

        impl<'a> State<'a> {
            /// Decodes the body of a MIGRATE_DATA that came on a channel of this type. Borrows from `data`.
            ///
            /// # Errors
            /// When the magic is another channel's, or a length or pointer leads beyond the bytes.
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
                    $( Self::$Kind(state) => <$Name as Field>::SLOT.saturating_add(<$Name as Field>::tail_len(state)), )*
                    Self::Unknown(data) => data.0.len(),
                }
            }

            const fn c_name(&self) -> &'static str {
                match self {
                    $( Self::$Kind(_) => $c_name, )*
                    Self::Unknown(_) => "unknown migration data",
                }
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

impl State<'_> {
    /// Whether a target of protocol version [`VERSION`] may use it.
    ///
    /// # Errors
    /// When a version is newer than [`VERSION`], a flag is neither 0 nor 1, or a count exceeds what the source can have had.
    pub fn check(&self) -> Result<(), DecodeError> {
        let checked = match self {
            Self::Main(main) => check_version(main.version).and_then(|()| main.check()),
            Self::Display(display) => check_version(display.version).and_then(|()| display.check()),
            Self::Inputs(inputs) => check_version(inputs.version),
            Self::SpiceVmc(channel) => check_version(channel.version).and_then(|()| channel.device.check()),
            Self::Smartcard(card) => check_version(card.version)
                .and_then(|()| card.device.check())
                .and_then(|()| check_flag("reader_added", card.reader_added)),
            Self::Unknown(_) => Ok(()),
        };
        checked.map_err(|(field, fault)| At { field, offset: 0 }.fault(fault).in_message(self.c_name()))
    }
}

/// A field that a target cannot use, and why.
type Unusable = (&'static str, Fault);

impl CharDevice<'_> {
    fn check(&self) -> Result<(), Unusable> {
        if self.version > VERSION {
            return Err(("device version", Fault::UnsupportedVersion));
        }
        check_flag("connected", self.connected)
    }
}

impl Main<'_> {
    fn check(&self) -> Result<(), Unusable> {
        self.agent.check()?;
        check_flag("client_agent_started", self.client_agent_started)?;
        check_flag("message_header_done", self.agent_to_client.message_header_done)?;
        if self.agent_to_client.chunk_header_size > CHUNK_HEADER_LEN {
            return Err(("chunk_header_size", Fault::LimitExceeded));
        }
        if self.agent_to_client.message_header.0.len() >= AGENT_MESSAGE_HEADER_LEN {
            return Err(("message_header", Fault::LimitExceeded));
        }
        Ok(())
    }
}

impl Display<'_> {
    fn check(&self) -> Result<(), Unusable> {
        check_flag("low_bandwidth", self.low_bandwidth)?;
        check_flag("pixmap_cache_freezer", self.pixmap_cache_freezer)?;
        if self.surfaces.count > MAX_SURFACES {
            return Err(("surfaces", Fault::LimitExceeded));
        }
        Ok(())
    }
}

impl<'a> Surfaces<'a> {
    /// The list, where the hosts compress without loss; `None` if the bytes do not hold as many.
    #[must_use]
    pub fn lossless(self) -> Option<List<'a, LosslessSurface>> {
        self.list()
    }

    /// The list, where the hosts may compress with loss; `None` if the bytes do not hold as many.
    #[must_use]
    pub fn lossy(self) -> Option<List<'a, LossySurface>> {
        self.list()
    }

    fn list<T: ListItem>(self) -> Option<List<'a, T>> {
        T::split(self.entries.0).get(..index(self.count)).map(List::new)
    }
}

const fn check_version(version: u32) -> Result<(), Unusable> {
    if version > VERSION { Err(("version", Fault::UnsupportedVersion)) } else { Ok(()) }
}

const fn check_flag(field: &'static str, flag: u8) -> Result<(), Unusable> {
    if flag > 1 { Err((field, Fault::LimitExceeded)) } else { Ok(()) }
}

const fn magic(text: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*text)
}

/// The magic, which must be right, and the version behind it.
struct Version<const MAGIC: u32>;

impl<const MAGIC: u32> Field for Version<MAGIC> {
    type Value<'a> = u32;
    const SLOT: usize = 8;

    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<u32, Located> {
        let (found, version) = slot.split_at_checked(4).unwrap_or_default();
        if *found != MAGIC.to_le_bytes() {
            return Err(At { field: "magic", ..at }.fault(Fault::WrongMagic));
        }
        u32::decode(at, version, tail)
    }

    fn tail_len(_: u32) -> usize {
        0
    }

    fn encode(version: u32, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        let (magic, place) = slot.split_at_mut_checked(4).unwrap_or_default();
        u32::encode(MAGIC, magic, tail);
        u32::encode(version, place, tail);
    }
}

/// A size and a pointer, to bytes that may be none.
struct SizeAndPointer;

impl Field for SizeAndPointer {
    type Value<'a> = Data<'a>;
    const SLOT: usize = 8;
    const BY_OFFSET: bool = true;

    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<Data<'a>, Located> {
        let ([size, pointer], []) = slot.as_chunks::<4>() else { return Err(at.fault(Fault::Truncated)) };
        let (size, pointer) = (u32::from_le_bytes(*size), u32::from_le_bytes(*pointer));
        if size == 0 {
            return Ok(Data::default());
        }
        let bytes = tail.at(pointer).map_err(|fault| at.fault(fault))?;
        bytes.get(..index(size)).map(Data).ok_or(at.fault(Fault::OutOfBounds))
    }

    fn tail_len(value: Data<'_>) -> usize {
        value.0.len()
    }

    fn encode(value: Data<'_>, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        let ([size, pointer], []) = slot.as_chunks_mut::<4>() else { return };
        let at = tail.put(value.0);
        *size = slot_bytes(value.0.len());
        *pointer = if value.0.is_empty() { [0; 4] } else { slot_bytes(at) };
    }
}

impl Field for PendingWrite<'static> {
    type Value<'a> = PendingWrite<'a>;
    const SLOT: usize = 12;
    const BY_OFFSET: bool = true;

    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<PendingWrite<'a>, Located> {
        let ([size, tokens, pointer], []) = slot.as_chunks::<4>() else { return Err(at.fault(Fault::Truncated)) };
        let data = SizeAndPointer::decode(at, [*size, *pointer].as_flattened(), tail)?;
        Ok(PendingWrite { num_client_tokens: u32::from_le_bytes(*tokens), data })
    }

    fn tail_len(value: PendingWrite<'_>) -> usize {
        value.data.0.len()
    }

    fn encode(value: PendingWrite<'_>, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        let ([size, tokens, pointer], []) = slot.as_chunks_mut::<4>() else { return };
        let mut place = [[0; 4]; 2];
        SizeAndPointer::encode(value.data, place.as_flattened_mut(), tail);
        [*size, *pointer] = place;
        *tokens = value.num_client_tokens.to_le_bytes();
    }
}

impl Field for Surfaces<'static> {
    type Value<'a> = Surfaces<'a>;
    const SLOT: usize = 4;
    const BY_OFFSET: bool = true;

    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<Surfaces<'a>, Located> {
        let pointer = slot.first_chunk().map_or(0, |pointer| u32::from_le_bytes(*pointer));
        let bytes = tail.at(pointer).map_err(|fault| at.fault(fault))?;
        let (count, entries) = bytes.split_first_chunk().ok_or(at.fault(Fault::OutOfBounds))?;
        let surfaces = Surfaces { count: u32::from_le_bytes(*count), entries: Data(entries) };
        // The shorter of both forms must fit: whether the longer one does, its reader finds out.
        surfaces.lossless().map(|_| surfaces).ok_or(at.fault(Fault::OutOfBounds))
    }

    fn tail_len(value: Surfaces<'_>) -> usize {
        value.entries.0.len().saturating_add(4)
    }

    fn encode(value: Surfaces<'_>, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        if let Some(pointer) = slot.first_chunk_mut() {
            *pointer = slot_bytes(tail.put(&value.count.to_le_bytes()));
            tail.put(value.entries.0);
        }
    }
}

impl ListItem for LosslessSurface {
    type Wire = [u8; 4];

    fn from_wire(wire: Self::Wire) -> Self {
        Self { id: u32::from_le_bytes(wire) }
    }

    fn to_wire(self) -> Self::Wire {
        self.id.to_le_bytes()
    }

    fn split(bytes: &[u8]) -> &[Self::Wire] {
        bytes.as_chunks().0
    }

    fn join(items: &[Self::Wire]) -> &[u8] {
        items.as_flattened()
    }
}

impl ListItem for LossySurface {
    type Wire = [u8; 20];

    fn from_wire(wire: Self::Wire) -> Self {
        let ([id, left, top, right, bottom], []) = wire.as_chunks::<4>() else { return Self::NONE };
        let lossy_rectangle = Rectangle {
            left: i32::from_le_bytes(*left),
            top: i32::from_le_bytes(*top),
            right: i32::from_le_bytes(*right),
            bottom: i32::from_le_bytes(*bottom),
        };
        Self { id: u32::from_le_bytes(*id), lossy_rectangle }
    }

    fn to_wire(self) -> Self::Wire {
        let Rectangle { left, top, right, bottom } = self.lossy_rectangle;
        let numbers =
            [self.id.to_le_bytes(), left.to_le_bytes(), top.to_le_bytes(), right.to_le_bytes(), bottom.to_le_bytes()];
        let mut wire = [0; 20];
        wire.copy_from_slice(numbers.as_flattened());
        wire
    }

    fn split(bytes: &[u8]) -> &[Self::Wire] {
        bytes.as_chunks().0
    }

    fn join(items: &[Self::Wire]) -> &[u8] {
        items.as_flattened()
    }
}

impl LossySurface {
    /// Of no surface; unreachable, since an item's wire form has the length that it must have.
    const NONE: Self = Self { id: 0, lossy_rectangle: Rectangle { left: 0, top: 0, right: 0, bottom: 0 } };
}

/// INVARIANT: bodies are bounded by `MAX_BODY`, so every length and offset in one fits.
fn slot_bytes(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}
