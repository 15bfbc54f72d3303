//! Captured SPICE migrations, with their provenance, and the loader that turns a capture into conversations.
//!
//! [`captures`] lists the files of `captured/`. [`Capture::connections`] reads one of them and reassembles its TCP
//! connections; [`reassemble`] does the same for any pcap or pcapng in memory. [`CaptureWriter`] writes a capture.
//!
//! ```
//! use spice_migration_corpus::{Ended, captures};
//!
//! let seamless = captures().into_iter().find(|capture| capture.file == "seamless.pcap.gz").unwrap();
//! let connections = seamless.connections()?;
//! assert_eq!(connections.len(), 8, "four channels at the source, four at the target");
//!
//! let main = &connections[0];
//! assert_eq!(main.server.port(), 15931);
//! assert_eq!(main.ended, Ended::Fin);
//! assert!(main.from_client.starts_with(b"REDQ"));
//!
//! // The same bytes in the order in which they crossed the wire: the client speaks first.
//! let first = &main.segments[0];
//! assert!(first.from_client);
//! assert!(main.bytes(first).starts_with(b"REDQ"));
//! # Ok::<(), spice_migration_corpus::LoadError>(())
//! ```
//!
//! Nothing is dropped or repaired in silence: missing bytes, contradicting retransmissions, cut packets and connections
//! that were joined in the middle are each a [`LoadError`].

#![forbid(unsafe_code)]

mod error;
mod packet;
mod reassembly;
mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

pub use error::{Flow, LoadError};
pub use reassembly::{Connection, Ended, MAX_OUT_OF_ORDER, Segment, reassemble};
pub use write::{CaptureWriter, End};

/// The most bytes of uncompressed pcap that are read: the largest capture here has 0.6 MB, and all that is kept of a
/// capture is a part of its bytes.
pub const MAX_CAPTURE: usize = 64 << 20;

/// All captures of `captured/`, in the order of `provenance.toml`.
///
/// # Panics
/// Never, as long as the tests of this crate pass: `provenance.toml` is compiled in, and they parse it.
pub fn captures() -> Vec<Capture> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Provenance {
        capture: Vec<Capture>,
    }
    let provenance: Provenance =
        toml::from_str(include_str!("../captured/provenance.toml")).expect("provenance.toml is well-formed");
    provenance.capture
}

/// One file of `captured/`, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// Name of the file, a gzipped pcap.
    pub file: String,
    /// What happens in it, in one sentence.
    pub what: String,
    /// The software at the server's end.
    pub peer_server: String,
    /// The software at the client's end.
    pub peer_client: String,
    /// Versions of all that took part, by name.
    pub versions: BTreeMap<String, String>,
    /// Command lines of the hosts in the order of their start, with placeholders for what was not noted.
    pub command_lines: Vec<String>,
    /// What was asked of the hosts over QMP, or of the client, where it differs from a plain migration.
    #[serde(default)]
    pub conditions: Vec<String>,
    /// Day of the capture, `YYYY-MM-DD`.
    pub date: String,
    /// SHA-256 of the file as it is, in lower-case hexadecimal.
    pub sha256: String,
    /// The TCP ports that the hosts serve SPICE on, the first source's first.
    pub server_ports: Vec<u16>,
}

impl Capture {
    /// Where the file is, in the source tree that this crate was built from.
    pub fn path(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("captured").join(&self.file)
    }

    /// Reads the file and reassembles its connections, in the order of their SYN.
    pub fn connections(&self) -> Result<Vec<Connection>, LoadError> {
        let io_error = |source: io::Error| LoadError::Io { file: self.file.clone(), source };
        let mut pcap = Vec::new();
        // One byte more than allowed, so that `reassemble` sees that there is more.
        let mut unpacked = MultiGzDecoder::new(File::open(self.path()).map_err(io_error)?).take(MAX_CAPTURE as u64 + 1);
        unpacked.read_to_end(&mut pcap).map_err(io_error)?;
        reassemble(&pcap, &self.server_ports)
    }
}
