//! What can be wrong with bytes, and with values to be encoded.

use core::fmt;

/// Why bytes are not the message that they claim to be: which message, which field, where, and what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DecodeError {
    /// The message by its C name, such as `SPICE_MSG_MAIN_INIT`.
    pub message: &'static str,
    /// The field by its Rust name. For [`Fault::TrailingBytes`] it is `end`.
    pub field: &'static str,
    /// Where the field, or the part of it that is at fault, begins: bytes from the start of the body.
    pub offset: u32,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes end before the field does.
    Truncated,
    /// Bytes follow the last field, and nothing accounts for them.
    TrailingBytes,
    /// A string's offset points into the fixed part of the message, where other fields lie.
    OffsetInFixedPart,
    /// A string or list begins or ends beyond the bytes present.
    OutOfBounds,
    /// A string that must be there has offset or size 0.
    Missing,
    /// A string has a size but offset 0.
    SizeWithoutOffset,
    /// A string does not end in NUL.
    NotTerminated,
    /// A string holds a NUL before its end: a C peer would read another string than the one sent.
    InteriorNul,
    /// A length or count exceeds its bound in [`limits`](crate::limits).
    LimitExceeded,
    /// Not the magic number that must stand here.
    WrongMagic,
    /// It shares bytes with something else.
    Overlap,
    /// A version newer than this crate knows.
    UnsupportedVersion,
    /// A flag is neither 0 nor 1.
    NotAFlag,
    /// It comes twice.
    Duplicate,
    /// It must not be there.
    Unexpected,
}

impl Fault {
    const fn describe(self) -> &'static str {
        match self {
            Self::Truncated => "the bytes end before the field does",
            Self::TrailingBytes => "bytes follow the last field",
            Self::OffsetInFixedPart => "the offset points into the fixed part",
            Self::OutOfBounds => "it lies beyond the bytes present",
            Self::Missing => "it must be present",
            Self::SizeWithoutOffset => "it has a size but no offset",
            Self::NotTerminated => "it does not end in NUL",
            Self::InteriorNul => "it holds a NUL before its end",
            Self::LimitExceeded => "it exceeds the limit",
            Self::WrongMagic => "the magic number is wrong",
            Self::Overlap => "it overlaps something else",
            Self::UnsupportedVersion => "the version is not supported",
            Self::NotAFlag => "it is neither 0 nor 1",
            Self::Duplicate => "it comes twice",
            Self::Unexpected => "it must not be there",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.describe())
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, field, offset, fault } = self;
        write!(formatter, "{message}: {field} at byte {offset}: {fault}")
    }
}

impl core::error::Error for DecodeError {}

/// Why a value was not encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EncodeError {
    /// The buffer holds fewer bytes than the message needs.
    BufferTooSmall {
        /// How many bytes the message needs.
        needed: usize,
    },
    /// The body would exceed [`MAX_BODY`](crate::limits::MAX_BODY), a link message its limits, or a list what its count can say.
    TooLong,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BufferTooSmall { needed } => write!(formatter, "the buffer is too small: {needed} bytes are needed"),
            Self::TooLong => formatter.write_str("the message exceeds the limits"),
        }
    }
}

impl core::error::Error for EncodeError {}

#[cfg(feature = "std")]
impl From<DecodeError> for std::io::Error {
    fn from(error: DecodeError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

#[cfg(feature = "std")]
impl From<EncodeError> for std::io::Error {
    fn from(error: EncodeError) -> Self {
        Self::new(std::io::ErrorKind::InvalidInput, error)
    }
}
