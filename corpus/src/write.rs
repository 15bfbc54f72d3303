use std::net::SocketAddrV4;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use etherparse::{PacketBuilder, TcpHeader};

/// Writes TCP connections as a pcap that Wireshark, tshark and [`reassemble`](crate::reassemble) read.
///
/// Packets stand in the file in the order of the calls. Times count from the capture's start and are kept to the nanosecond.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use spice_migration_corpus::{CaptureWriter, Ended, reassemble};
///
/// let mut capture = CaptureWriter::new(SystemTime::now());
/// let began = Duration::ZERO;
/// let (client, server) = capture.connect(began, "127.0.0.1:40000".parse()?, "127.0.0.1:5900".parse()?);
/// capture.send(began, client, b"REDQ");
/// capture.send(began + Duration::from_millis(1), server, b"reply");
/// capture.finish(began + Duration::from_millis(2), client);
/// capture.finish(began + Duration::from_millis(2), server);
///
/// let connections = reassemble(&capture.into_pcap(), &[5900])?;
/// assert_eq!(connections[0].from_server, b"reply");
/// assert_eq!(connections[0].ended, Ended::Fin);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct CaptureWriter {
    /// The capture's start, since the Unix epoch.
    start: Duration,
    pcap: Vec<u8>,
    /// Client and server of each connection: the other end's index differs in the lowest bit.
    ends: Vec<(SocketAddrV4, NextSequence)>,
}

/// One end of a connection, as [`CaptureWriter::connect`] returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct End(usize);

/// Sequence number of the next byte that an end sends.
type NextSequence = u32;

/// Bytes of data in a packet: most messages fit into one, and its acknowledgement comes long before the window is full.
const MAX_SEGMENT: usize = 16 << 10;

/// The window that both ends announce.
const WINDOW: u16 = u16::MAX;

/// Magic of a pcap whose times are in nanoseconds.
const MAGIC: u32 = 0xa1b2_3c4d;

/// Packets begin with their IP header.
const LINK_TYPE_RAW: u32 = 101;

impl CaptureWriter {
    /// A capture without packets.
    pub fn new(start: SystemTime) -> Self {
        let mut pcap = Vec::new();
        // Magic, version 2.4, time zone, accuracy, largest packet, link type.
        for word in [MAGIC, 4 << 16 | 2, 0, 0, 1 << 16, LINK_TYPE_RAW] {
            pcap.extend(word.to_le_bytes());
        }
        Self { start: start.duration_since(UNIX_EPOCH).unwrap_or_default(), pcap, ends: Vec::new() }
    }

    /// Opens a connection and returns its client's and its server's end.
    pub fn connect(&mut self, at: Duration, client: SocketAddrV4, server: SocketAddrV4) -> (End, End) {
        let index = self.ends.len();
        // Different ones, so that a later connection of the same addresses is not taken for this one.
        let first = (index as u32).wrapping_shl(20);
        self.ends.extend([(client, first), (server, first)]);
        let (client, server) = (End(index), End(index + 1));
        self.packet(at, client, b"", |tcp| (tcp.syn, tcp.ack, tcp.acknowledgment_number) = (true, false, 0));
        self.packet(at, server, b"", |tcp| tcp.syn = true);
        self.packet(at, client, b"", |_| {});
        (client, server)
    }

    /// Sends bytes, in packets that are not shared with those of another call, and acknowledges them.
    ///
    /// # Panics
    /// With an end of another writer; so does [`Self::finish`].
    pub fn send(&mut self, at: Duration, from: End, bytes: &[u8]) {
        for segment in bytes.chunks(MAX_SEGMENT) {
            self.packet(at, from, segment, |tcp| tcp.psh = true);
            self.packet(at, from.other(), b"", |_| {});
        }
    }

    /// Ends one direction. The connection is closed when both ends have done so; neither can send after it.
    pub fn finish(&mut self, at: Duration, from: End) {
        self.packet(at, from, b"", |tcp| tcp.fin = true);
        self.packet(at, from.other(), b"", |_| {});
    }

    /// The file.
    pub fn into_pcap(self) -> Vec<u8> {
        self.pcap
    }

    /// Adds a packet that acknowledges all that was received, but for what `change` makes of its header.
    fn packet(&mut self, at: Duration, from: End, data: &[u8], change: impl FnOnce(&mut TcpHeader)) {
        let ((source, sequence), (destination, expected)) = (self.ends[from.0], self.ends[from.other().0]);
        let mut tcp = TcpHeader::new(source.port(), destination.port(), sequence, WINDOW);
        (tcp.ack, tcp.acknowledgment_number) = (true, expected);
        change(&mut tcp);
        let taken = data.len() as u32 + u32::from(tcp.syn) + u32::from(tcp.fin);
        self.ends[from.0].1 = sequence.wrapping_add(taken);

        let packet = PacketBuilder::ipv4(source.ip().octets(), destination.ip().octets(), 64).tcp_header(tcp);
        let time = self.start + at;
        let length = packet.size(data.len()) as u32;
        for word in [time.as_secs() as u32, time.subsec_nanos(), length, length] {
            self.pcap.extend(word.to_le_bytes());
        }
        packet.write(&mut self.pcap, data).expect("a segment is far smaller than the largest packet");
    }
}

impl End {
    fn other(self) -> Self {
        Self(self.0 ^ 1)
    }
}
