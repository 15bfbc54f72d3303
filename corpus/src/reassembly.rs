use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use crate::packet::{TcpPacket, for_each_tcp};
use crate::{Flow, LoadError};

/// How far ahead of the stream, and how much in total per direction, data may wait for the bytes before them: more than
/// the largest receive window that Linux grants by default (6 MiB).
pub const MAX_OUT_OF_ORDER: usize = 8 << 20;

/// The connections to `server_ports` in a pcap or pcapng (not gzipped), in the order of their SYN.
///
/// Streams hold what was sent, whether or not the other side still read it. A SYN with another initial sequence number on
/// the same addresses starts a new connection. Packets of connections to other ports are passed over; so are bare
/// acknowledgements and resets of a connection whose SYN was not captured, while data of one are [`LoadError::NoSyn`].
/// Checksums are not looked at: on loopback they are not filled in.
pub fn reassemble(pcap_bytes: &[u8], server_ports: &[u16]) -> Result<Vec<Connection>, LoadError> {
    let mut conversations: Vec<Conversation> = Vec::new();
    // The latest conversation of each client and server.
    let mut latest: HashMap<(SocketAddr, SocketAddr), usize> = HashMap::new();
    for_each_tcp(pcap_bytes, |packet| {
        let TcpPacket { frame, flow: flow @ Flow { from, to }, ref tcp, .. } = packet;
        if tcp.syn() && !tcp.ack() && server_ports.contains(&to.port()) {
            let repeated = latest
                .get(&(from, to))
                .is_some_and(|&index| conversations[index].client.first == Some(tcp.sequence_number().wrapping_add(1)));
            if !repeated {
                latest.insert((from, to), conversations.len());
                conversations.push(Conversation::new(flow));
            }
        }
        if let Some(&index) = latest.get(&(from, to)) {
            conversations[index].packet(&packet, true)
        } else if let Some(&index) = latest.get(&(to, from)) {
            conversations[index].packet(&packet, false)
        } else if !tcp.payload().is_empty()
            && !tcp.rst()
            && (server_ports.contains(&from.port()) || server_ports.contains(&to.port()))
        {
            Err(LoadError::NoSyn { frame, flow })
        } else {
            Ok(())
        }
    })?;
    conversations.into_iter().map(Conversation::finish).collect()
}

/// A TCP connection from its SYN on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The side that sent the SYN.
    pub client: SocketAddr,
    /// The side that it was sent to.
    pub server: SocketAddr,
    /// All bytes that the client sent, in order.
    pub from_client: Vec<u8>,
    /// All bytes that the server sent, in order.
    pub from_server: Vec<u8>,
    /// How it ended.
    pub ended: Ended,
    /// The same bytes in the order in which they were captured.
    pub segments: Vec<Segment>,
}

impl Connection {
    /// The bytes of one of its segments.
    ///
    /// # Panics
    /// With a segment of another connection.
    pub fn bytes(&self, segment: &Segment) -> &[u8] {
        let stream = if segment.from_client { &self.from_client } else { &self.from_server };
        &stream[segment.start..segment.end]
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    /// Both sides sent a FIN.
    Fin,
    /// A side sent a RST, perhaps after a FIN.
    Reset,
    /// The client's SYN was answered with a RST: there never was a connection.
    Refused,
    /// None of these within the capture.
    Open,
}

/// Bytes that continue a stream: what a receiver could read when this packet had arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Number of the packet in the capture, from 1: the order across connections, where times are equal.
    pub frame: usize,
    /// When the packet was captured, counted from the capture's first packet.
    pub at: Duration,
    /// Whether the client sent them.
    pub from_client: bool,
    /// Offset of the first byte in that direction's stream.
    pub start: usize,
    /// Offset behind the last byte.
    pub end: usize,
}

/// A connection in the making.
struct Conversation {
    client: Stream,
    server: Stream,
    reset: bool,
    segments: Vec<Segment>,
}

impl Conversation {
    fn new(from_client: Flow) -> Self {
        Self {
            client: Stream::new(from_client),
            server: Stream::new(Flow { from: from_client.to, to: from_client.from }),
            reset: false,
            segments: Vec::new(),
        }
    }

    fn packet(
        &mut self,
        &TcpPacket { frame, at, flow, ref tcp }: &TcpPacket<'_>,
        from_client: bool,
    ) -> Result<(), LoadError> {
        // What a RST carries (a reason, at most) is no part of the stream, and its numbers need not be the connection's.
        if tcp.rst() {
            self.reset = true;
            return Ok(());
        }
        let (stream, peer) =
            if from_client { (&mut self.client, &mut self.server) } else { (&mut self.server, &mut self.client) };
        // A SYN takes a sequence number: the stream starts behind it.
        let sequence = tcp.sequence_number().wrapping_add(u32::from(tcp.syn()));
        if tcp.syn() && *stream.first.get_or_insert(sequence) != sequence {
            return Err(LoadError::Conflict { frame, flow, offset: 0 });
        }
        if tcp.ack() {
            peer.acknowledged(tcp.acknowledgment_number());
        }
        if tcp.payload().is_empty() && !tcp.fin() {
            return Ok(());
        }
        let delivered = stream.receive(frame, sequence, tcp.payload(), tcp.fin())?;
        if !delivered.is_empty() {
            self.segments.push(Segment { frame, at, from_client, start: delivered.start, end: delivered.end });
        }
        Ok(())
    }

    fn finish(self) -> Result<Connection, LoadError> {
        let Flow { from: client, to: server } = self.client.flow;
        let ended = match self.reset {
            true if self.server.first.is_none() => Ended::Refused,
            true => Ended::Reset,
            false if self.client.fin.is_some() && self.server.fin.is_some() => Ended::Fin,
            false => Ended::Open,
        };
        Ok(Connection {
            client,
            server,
            from_client: self.client.finish()?,
            from_server: self.server.finish()?,
            ended,
            segments: self.segments,
        })
    }
}

/// One direction of a connection.
struct Stream {
    flow: Flow,
    /// Sequence number of the byte at offset 0, once the SYN was seen.
    first: Option<u32>,
    data: Vec<u8>,
    /// Data ahead of a gap, by offset and frame. They may overlap: what they agree on is checked when they are delivered.
    waiting: BTreeMap<(usize, usize), Vec<u8>>,
    waiting_bytes: usize,
    /// Offset behind the last byte, once the FIN was seen.
    fin: Option<usize>,
    /// How many sequence numbers behind the SYN the peer has acknowledged.
    acknowledged: usize,
}

impl Stream {
    fn new(flow: Flow) -> Self {
        Self {
            flow,
            first: None,
            data: Vec::new(),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            fin: None,
            acknowledged: 0,
        }
    }

    /// Takes a segment's data and returns the range of the stream that it completed.
    fn receive(&mut self, frame: usize, sequence: u32, payload: &[u8], fin: bool) -> Result<Range<usize>, LoadError> {
        let flow = self.flow;
        let Some(distance) = self.distance(sequence) else { return Err(LoadError::NoSyn { frame, flow }) };
        let start = self.data.len();
        let offset = start
            .checked_add_signed(distance)
            .filter(|&offset| offset <= start + MAX_OUT_OF_ORDER)
            .ok_or(LoadError::OutOfWindow { frame, flow })?;
        let end = offset + payload.len();
        if fin && *self.fin.get_or_insert(end) != end {
            return Err(LoadError::Conflict { frame, flow, offset: end });
        }
        self.waiting.insert((offset, frame), payload.to_vec());
        self.waiting_bytes += payload.len();
        while let Some(next) = self.waiting.first_entry()
            && next.key().0 <= self.data.len()
        {
            let ((offset, frame), payload) = next.remove_entry();
            self.waiting_bytes -= payload.len();
            let (known, new) = payload.split_at(payload.len().min(self.data.len() - offset));
            if let Some(differs) = known.iter().zip(&self.data[offset..]).position(|(again, before)| again != before) {
                return Err(LoadError::Conflict { frame, flow, offset: offset + differs });
            }
            self.data.extend_from_slice(new);
        }
        if self.waiting_bytes > MAX_OUT_OF_ORDER {
            return Err(LoadError::OutOfWindow { frame, flow });
        }
        if let Some(fin) = self.fin
            && self.data.len() > fin
        {
            return Err(LoadError::Conflict { frame, flow, offset: fin });
        }
        Ok(start..self.data.len())
    }

    fn acknowledged(&mut self, sequence: u32) {
        let behind = self.distance(sequence).and_then(|distance| self.data.len().checked_add_signed(distance));
        self.acknowledged = self.acknowledged.max(behind.unwrap_or(0));
    }

    /// How far a sequence number is ahead of the bytes there are. Sequence numbers wrap around: the nearer side is meant.
    fn distance(&self, sequence: u32) -> Option<isize> {
        // INVARIANT: a stream is shorter than MAX_CAPTURE, so its length fits.
        let next = self.first?.wrapping_add(self.data.len() as u32);
        Some(sequence.wrapping_sub(next).cast_signed() as isize)
    }

    fn finish(self) -> Result<Vec<u8>, LoadError> {
        let missing = self.data.len();
        // A FIN takes a sequence number too.
        let sent = missing + usize::from(self.fin.is_some());
        // A FIN ahead of a gap waits too, with or without data.
        if !self.waiting.is_empty() || self.acknowledged > sent {
            return Err(LoadError::Gap { flow: self.flow, missing });
        }
        Ok(self.data)
    }
}

#[cfg(test)]
mod tests;
