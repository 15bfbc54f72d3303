//! Capability bits: what each side of a link says that it can do, per channel type.
//!
//! Bit *n* stands in bit *n* mod 32 of word *n* / 32. Unknown bits and further words are kept. [`CapabilityWords`] are the words as
//! they lie in a link message, whatever they mean; `CapabilitySet` is a set of one kind that can be changed, combined, and read
//! from and written as names.

#[cfg(feature = "alloc")]
mod set;

use core::fmt;

#[cfg(feature = "alloc")]
pub use set::{CapabilitySet, UnknownName};

use crate::channel::ChannelType;
use crate::wire::{index, open_enum};

/// A bit of one of the kinds below.
pub trait Capability: Copy + 'static {
    /// All of this kind that have a name, in order.
    const KNOWN: &'static [Self];

    /// The capability of this number, known or not.
    fn from_bit(bit: u32) -> Self;

    /// Its number, counted over all words.
    fn bit(self) -> u32;

    /// Its name, if it is known.
    fn name(self) -> Option<&'static str>;
}

/// The words of one set, as they lie in a link message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CapabilityWords<'a> {
    words: &'a [[u8; 4]],
}

impl<'a> CapabilityWords<'a> {
    /// A set of words in wire form, little-endian.
    #[must_use]
    pub const fn new(words: &'a [[u8; 4]]) -> Self {
        Self { words }
    }

    /// The words in wire form.
    #[must_use]
    pub const fn as_wire(self) -> &'a [[u8; 4]] {
        self.words
    }

    /// Whether a bit is set. One in a word that is not there is not.
    #[must_use]
    pub fn has(self, capability: impl Capability) -> bool {
        let number = capability.bit();
        let word = self.words.get(index(number / u32::BITS)).map_or(0, |word| u32::from_le_bytes(*word));
        word >> (number % u32::BITS) & 1 == 1
    }

    /// The words.
    pub fn words(self) -> impl ExactSizeIterator<Item = u32> + 'a {
        self.words.iter().map(|word| u32::from_le_bytes(*word))
    }

    /// The numbers of the bits that are set, known or not, in order.
    pub fn bits(self) -> impl Iterator<Item = u32> + 'a {
        self.words().zip((0u32..).step_by(32)).flat_map(|(word, first)| {
            (0..32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first.saturating_add(bit))
        })
    }
}

impl fmt::Debug for CapabilityWords<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[")?;
        for (index, word) in self.words().enumerate() {
            write!(formatter, "{}{word:#x}", if index == 0 { "" } else { ", " })?;
        }
        formatter.write_str("]")
    }
}

/// The first word of a set that has just these bits; bits from 32 on are left out, for no capability of today has one.
#[must_use]
pub fn word<C: Capability>(capabilities: &[C]) -> u32 {
    capabilities.iter().filter_map(|capability| 1u32.checked_shl(capability.bit())).fold(0, |word, bit| word | bit)
}

/// The name of a bit among the capabilities of a channel type; `None` if it is unknown.
#[must_use]
pub const fn name(channel: ChannelType, bit: u32) -> Option<&'static str> {
    match channel {
        ChannelType::MAIN => MainCapability(bit).name(),
        ChannelType::DISPLAY => DisplayCapability(bit).name(),
        ChannelType::INPUTS => InputsCapability(bit).name(),
        ChannelType::PLAYBACK => PlaybackCapability(bit).name(),
        ChannelType::RECORD => RecordCapability(bit).name(),
        ChannelType::USBREDIR | ChannelType::PORT | ChannelType::WEBDAV => SpicevmcCapability(bit).name(),
        _ => None,
    }
}

macro_rules! capabilities {
    ($( $(#[$doc:meta])* pub struct $Name:ident { $( $(#[$bit_doc:meta])* $BIT:ident = $bit:literal $text:literal; )* } )*) => {$(
        open_enum! {
            $(#[$doc])*
            pub struct $Name(u32);
            $( $(#[$bit_doc])* $BIT = $bit $text; )*
        }

        impl Capability for $Name {
            const KNOWN: &'static [Self] = Self::KNOWN;
            fn from_bit(bit: u32) -> Self {
                Self(bit)
            }
            fn bit(self) -> u32 {
                self.0
            }
            fn name(self) -> Option<&'static str> {
                self.name()
            }
        }
    )*};
}

capabilities! {
    /// Of every channel: `SPICE_COMMON_CAP_*`.
    pub struct CommonCapability {
        /// The client names an authentication mechanism (`PROTOCOL_AUTH_SELECTION`).
        AUTH_SELECTION = 0 "auth-selection";
        /// Authentication by a SPICE ticket.
        AUTH_SPICE = 1 "auth-spice";
        /// Authentication by SASL.
        AUTH_SASL = 2 "auth-sasl";
        /// Message headers of 6 bytes, when both sides have it.
        MINI_HEADER = 3 "mini-header";
    }

    /// Of the main channel: `SPICE_MAIN_CAP_*`.
    pub struct MainCapability {
        /// Semi-seamless migration.
        SEMI_SEAMLESS_MIGRATE = 0 "semi-seamless-migrate";
        /// The client wants NAME and UUID.
        NAME_AND_UUID = 1 "name-and-uuid";
        /// AGENT_CONNECTED_TOKENS in place of AGENT_CONNECTED.
        AGENT_CONNECTED_TOKENS = 2 "agent-connected-tokens";
        /// Seamless migration.
        SEAMLESS_MIGRATE = 3 "seamless-migrate";
    }

    /// Of display channels: `SPICE_DISPLAY_CAP_*`.
    pub struct DisplayCapability {
        /// Streams whose frames tell their size.
        SIZED_STREAM = 0 "sized-stream";
        /// Monitor configuration from the guest.
        MONITORS_CONFIG = 1 "monitors-config";
        /// Composite drawing operations.
        COMPOSITE = 2 "composite";
        /// Surfaces of 8-bit alpha.
        A8_SURFACE = 3 "a8-surface";
        /// Reports on streams from the client.
        STREAM_REPORT = 4 "stream-report";
        /// LZ4 images.
        LZ4_COMPRESSION = 5 "lz4-compression";
        /// The client may prefer an image compression.
        PREF_COMPRESSION = 6 "pref-compression";
        /// Scanouts by OpenGL.
        GL_SCANOUT = 7 "gl-scanout";
        /// More than one video codec.
        MULTI_CODEC = 8 "multi-codec";
        /// Motion JPEG.
        CODEC_MJPEG = 9 "codec-mjpeg";
        /// VP8.
        CODEC_VP8 = 10 "codec-vp8";
        /// H.264.
        CODEC_H264 = 11 "codec-h264";
        /// The client may prefer a video codec.
        PREF_VIDEO_CODEC_TYPE = 12 "pref-video-codec-type";
        /// VP9.
        CODEC_VP9 = 13 "codec-vp9";
        /// H.265.
        CODEC_H265 = 14 "codec-h265";
    }

    /// Of inputs channels: `SPICE_INPUTS_CAP_*`.
    pub struct InputsCapability {
        /// Scan codes of several keys in one message.
        KEY_SCANCODE = 0 "key-scancode";
    }

    /// Of playback channels: `SPICE_PLAYBACK_CAP_*`.
    pub struct PlaybackCapability {
        /// CELT 0.5.1.
        CELT_0_5_1 = 0 "celt-0-5-1";
        /// Volume from the guest.
        VOLUME = 1 "volume";
        /// Latency from the server.
        LATENCY = 2 "latency";
        /// Opus.
        OPUS = 3 "opus";
    }

    /// Of record channels: `SPICE_RECORD_CAP_*`.
    pub struct RecordCapability {
        /// CELT 0.5.1.
        CELT_0_5_1 = 0 "celt-0-5-1";
        /// Volume from the guest.
        VOLUME = 1 "volume";
        /// Opus.
        OPUS = 2 "opus";
    }

    /// Of usbredir, port and webdav channels: `SPICE_SPICEVMC_CAP_*`.
    pub struct SpicevmcCapability {
        /// LZ4 on the data.
        DATA_COMPRESS_LZ4 = 0 "data-compress-lz4";
    }
}
