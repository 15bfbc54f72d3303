//! A display channel's state: the caches that it shares with the client, and the surfaces that the client has.

use super::{Flag, Header, magic};
use crate::wire::{
    At, Data, Field, List, ListItem, Located, START, TOO_LONG, Tail, TailWriter, WireArray, index, locate, slot_len,
    wire_struct,
};
use crate::{DecodeError, Fault};

/// Most surfaces that a display channel can have, and so the bound of their ids: `NUM_SURFACES` of spice-server 0.15.1.
pub const MAX_SURFACES: usize = 1024;

wire_struct! {
    /// A display channel's state: `SpiceMigrateDataDisplay`, magic `DCMD`.
    #[derive(Default)]
    pub struct Display<'a> {
        /// The version of the whole.
        version: u32 => Header<{ magic(b"DCMD") }>,
        /// The serial of the last message to the client.
        message_serial: u64,
        /// Whether the source had found the client's connection slow.
        low_bandwidth: bool => Flag,
        /// Names the client's cache of images.
        pixmap_cache_id: u8,
        /// The cache's size, with a sign as on the wire.
        pixmap_cache_size: i64,
        /// Whether this channel froze the cache, and so thaws it.
        pixmap_cache_freezer: bool => Flag,
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
/// In which form their list is, is not on the wire: it depends on how the hosts are configured, so the caller says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Surfaces<'a> {
    /// How many: at most [`MAX_SURFACES`].
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

/// Whether a host compresses images with loss: QEMU's `jpeg-wan-compression`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JpegWanCompression {
    /// No.
    Never,
    /// When the client's connection is slow.
    Auto,
    /// Yes.
    Always,
}

impl Display<'_> {
    /// Whether the list is one of [`LossySurface`]s, on a host with this setting.
    #[must_use]
    pub const fn has_lossy_surfaces(&self, compression: JpegWanCompression) -> bool {
        match compression {
            JpegWanCompression::Never => false,
            JpegWanCompression::Auto => self.low_bandwidth,
            JpegWanCompression::Always => true,
        }
    }
}

impl<'a> Surfaces<'a> {
    /// The list, where the hosts compress without loss.
    ///
    /// # Errors
    /// When the bytes do not hold as many, an id is not below [`MAX_SURFACES`], or one comes twice.
    pub fn lossless(self) -> Result<List<'a, LosslessSurface>, DecodeError> {
        self.checked(|surface: LosslessSurface| surface.id)
    }

    /// The list, where the hosts may compress with loss.
    ///
    /// # Errors
    /// As [`Self::lossless`].
    pub fn lossy(self) -> Result<List<'a, LossySurface>, DecodeError> {
        self.checked(|surface: LossySurface| surface.id)
    }

    fn checked<T: ListItem>(self, id: impl Fn(T) -> u32) -> Result<List<'a, T>, DecodeError> {
        let fault =
            |fault| locate::<Display<'static>>(START, "surfaces").fault(fault).in_message("SpiceMigrateDataDisplay");
        let list = self.items().ok_or_else(|| fault(Fault::OutOfBounds))?;
        // spice-server indexes its tables with these ids and does not check them.
        let mut seen = [false; MAX_SURFACES];
        for surface in list.iter() {
            match seen.get_mut(index(id(surface))) {
                Some(true) => return Err(fault(Fault::Duplicate)),
                Some(seen) => *seen = true,
                None => return Err(fault(Fault::LimitExceeded)),
            }
        }
        Ok(list)
    }

    fn items<T: ListItem>(self) -> Option<List<'a, T>> {
        T::Wire::split(self.entries.0).get(..index(self.count)).map(List::new)
    }
}

impl Field for Surfaces<'static> {
    type Value<'a> = Surfaces<'a>;
    const SLOT: usize = 4;
    const LAYOUT: &'static str = "u32 pointer to a u32 count and as many surfaces";
    const BY_OFFSET: bool = true;

    fn decode<'a>(at: At, slot: &[u8], tail: &mut Tail<'a>) -> Result<Surfaces<'a>, Located> {
        let pointer = slot.first_chunk().map_or(0, |pointer| u32::from_le_bytes(*pointer));
        let bytes = tail.at(pointer).map_err(|fault| at.fault(fault))?;
        let (count, entries) = bytes.split_first_chunk().ok_or(at.fault(Fault::OutOfBounds))?;
        let surfaces = Surfaces { count: u32::from_le_bytes(*count), entries: Data(entries) };
        if index(surfaces.count) > MAX_SURFACES {
            return Err(at.fault(Fault::LimitExceeded));
        }
        // The shorter of both forms must fit: whether the longer one does, its reader finds out.
        surfaces.items::<LosslessSurface>().map(|_| surfaces).ok_or(at.fault(Fault::OutOfBounds))
    }

    fn tail_len(value: Surfaces<'_>) -> usize {
        value.entries.0.len().min(TOO_LONG).saturating_add(4)
    }

    fn encode(value: Surfaces<'_>, slot: &mut [u8], tail: &mut TailWriter<'_>) {
        if let Some(pointer) = slot.first_chunk_mut() {
            *pointer = slot_len(tail.put(&value.count.to_le_bytes())).to_le_bytes();
            tail.put(value.entries.0);
        }
    }

    #[cfg(any(test, feature = "arbitrary"))]
    fn arbitrary<'a>(bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Surfaces<'a>> {
        let entries = crate::wire::some_bytes(bytes)?;
        let most = u32::try_from(entries.as_chunks::<4>().0.len()).unwrap_or(0);
        Ok(Surfaces { count: bytes.int_in_range(0..=most)?, entries: Data(entries) })
    }
}

impl ListItem for LosslessSurface {
    type Wire = [u8; 4];
    const LAYOUT: &'static str = "u32 id";

    fn from_wire(wire: Self::Wire) -> Self {
        Self { id: u32::from_le_bytes(wire) }
    }

    fn to_wire(self) -> Self::Wire {
        self.id.to_le_bytes()
    }
}

impl ListItem for LossySurface {
    type Wire = [u8; 20];
    const LAYOUT: &'static str = "u32 id, i32 left, top, right, bottom";

    fn from_wire(wire: Self::Wire) -> Self {
        let mut numbers = [[0; 4]; 5];
        numbers.as_flattened_mut().copy_from_slice(&wire);
        let [id, left, top, right, bottom] = numbers;
        let lossy_rectangle = Rectangle {
            left: i32::from_le_bytes(left),
            top: i32::from_le_bytes(top),
            right: i32::from_le_bytes(right),
            bottom: i32::from_le_bytes(bottom),
        };
        Self { id: u32::from_le_bytes(id), lossy_rectangle }
    }

    fn to_wire(self) -> Self::Wire {
        let Rectangle { left, top, right, bottom } = self.lossy_rectangle;
        let numbers =
            [self.id.to_le_bytes(), left.to_le_bytes(), top.to_le_bytes(), right.to_le_bytes(), bottom.to_le_bytes()];
        let mut wire = [0; 20];
        wire.copy_from_slice(numbers.as_flattened());
        wire
    }
}
