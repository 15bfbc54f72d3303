use std::fmt;
use std::net::SocketAddr;

use crate::{MAX_CAPTURE, MAX_OUT_OF_ORDER};

/// Why a capture could not be loaded. Frames count from 1, as Wireshark's do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file could not be read or unpacked.
    #[error("{file}: {source}")]
    Io {
        /// Name of the file.
        file: String,
        /// What the system or the unpacker said.
        source: std::io::Error,
    },
    /// The capture is larger than [`MAX_CAPTURE`].
    #[error("the capture is larger than {MAX_CAPTURE} bytes")]
    TooLarge,
    /// The bytes are no pcap or pcapng, or stop being one.
    #[error("not a readable capture at byte {offset}: {reason}")]
    Format {
        /// Where the block that could not be read starts.
        offset: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The packets have a link type that is not known here.
    #[error("frame {frame}: link type {link_type} is not supported")]
    LinkType {
        /// Number of the frame.
        frame: usize,
        /// The number that stands in the file.
        link_type: i32,
    },
    /// The capture kept only a part of a packet.
    #[error("frame {frame} was cut when it was captured")]
    Cut {
        /// Number of the frame.
        frame: usize,
    },
    /// A packet's headers contradict its length or each other, or it is a fragment.
    #[error("frame {frame}: {reason}")]
    Packet {
        /// Number of the frame.
        frame: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Data or a FIN of a direction whose SYN was not captured: nobody knows what is missing before it.
    #[error("frame {frame}: {flow}: data without a SYN before it")]
    NoSyn {
        /// Number of the frame.
        frame: usize,
        /// The direction.
        flow: Flow,
    },
    /// Bytes are missing that later data, a FIN or the other side's acknowledgement prove were sent.
    #[error("{flow}: bytes from offset {missing} are missing")]
    Gap {
        /// The direction.
        flow: Flow,
        /// Offset in the stream of the first byte that is missing.
        missing: usize,
    },
    /// Data that differ from what was sent before at the same place, or that follow the end of the stream, or a second
    /// start or end at another place.
    #[error("frame {frame}: {flow}: contradicts what was sent before at offset {offset}")]
    Conflict {
        /// Number of the frame.
        frame: usize,
        /// The direction.
        flow: Flow,
        /// Offset in the stream of the first contradiction.
        offset: usize,
    },
    /// Data from before the start of the stream, or further ahead of it than [`MAX_OUT_OF_ORDER`].
    #[error("frame {frame}: {flow}: not within {MAX_OUT_OF_ORDER} bytes of the stream")]
    OutOfWindow {
        /// Number of the frame.
        frame: usize,
        /// The direction.
        flow: Flow,
    },
}

/// One direction of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Who sends.
    pub from: SocketAddr,
    /// Who receives.
    pub to: SocketAddr,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)
    }
}
