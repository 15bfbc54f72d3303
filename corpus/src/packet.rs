use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{EtherType, IpNumber, NetSlice, SlicedPacket, TcpSlice, TransportSlice};
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

use crate::{Flow, LoadError, MAX_CAPTURE};

/// A TCP segment as it was captured.
pub(crate) struct TcpPacket<'a> {
    /// Number in the capture, from 1, all packets counted.
    pub(crate) frame: usize,
    /// Time since the capture's first packet.
    pub(crate) at: Duration,
    pub(crate) flow: Flow,
    pub(crate) tcp: TcpSlice<'a>,
}

/// Calls `visit` with each TCP segment of a pcap or pcapng, in the file's order.
pub(crate) fn for_each_tcp(
    capture: &[u8],
    mut visit: impl FnMut(TcpPacket<'_>) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    if capture.len() > MAX_CAPTURE {
        return Err(LoadError::TooLarge);
    }
    // Room for the whole file, so that no block is too large, and some more, so that the reader can notice the end.
    let mut reader = create_reader(capture.len() + 64, capture).map_err(|error| malformed(0, &error))?;
    let mut interfaces: Vec<Interface> = Vec::new();
    let mut frame = 0;
    let mut first = None;
    loop {
        let offset = reader.consumed();
        let unsupported = |reason| LoadError::Format { offset, reason };
        let (size, block) = match reader.next() {
            Ok(next) => next,
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::Incomplete(_)) => {
                reader.refill().map_err(|error| malformed(offset, &error))?;
                continue;
            }
            Err(error) => return Err(malformed(offset, &error)),
        };
        let (interface, ticks, original_length, data) = match &block {
            PcapBlockOwned::LegacyHeader(header) => {
                let per_second = if header.is_nanosecond_precision() { NANOSECONDS } else { 1_000_000 };
                interfaces = vec![Interface { link_type: header.network, per_second, offset: 0 }];
                reader.consume(size);
                continue;
            }
            PcapBlockOwned::Legacy(packet) => {
                let interface = interfaces[0];
                let ticks = u64::from(packet.ts_sec) * interface.per_second + u64::from(packet.ts_usec);
                (interface, ticks, packet.origlen, packet.data)
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let interface = usize::try_from(packet.if_id).ok().and_then(|id| interfaces.get(id));
                let interface = *interface.ok_or(unsupported("a packet of an interface that was not described"))?;
                let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                (interface, ticks, packet.origlen, packet.packet_data())
            }
            PcapBlockOwned::NG(Block::SimplePacket(_)) => return Err(unsupported("a packet without a time")),
            PcapBlockOwned::NG(other) => {
                match other {
                    // Interfaces are numbered within their section.
                    Block::SectionHeader(_) => interfaces.clear(),
                    Block::InterfaceDescription(described) => interfaces.push(Interface {
                        link_type: described.linktype,
                        per_second: described.ts_resolution().ok_or(unsupported("a time resolution beyond 64 bits"))?,
                        offset: described.ts_offset(),
                    }),
                    _ => {}
                }
                reader.consume(size);
                continue;
            }
        };
        frame += 1;
        let time = i128::from(ticks) * i128::from(NANOSECONDS) / i128::from(interface.per_second)
            + i128::from(interface.offset) * i128::from(NANOSECONDS);
        let since_first = time - *first.get_or_insert(time);
        if data.len() < original_length as usize {
            return Err(LoadError::Cut { frame });
        }
        if let Some((flow, tcp)) = slice_tcp(frame, interface.link_type, data)? {
            // A clock that was set back while capturing must not stop anybody: order is the file's, not the clock's.
            let at = Duration::from_nanos(u64::try_from(since_first.max(0)).unwrap_or(u64::MAX));
            visit(TcpPacket { frame, at, flow, tcp })?;
        }
        reader.consume(size);
    }
}

const NANOSECONDS: u64 = 1_000_000_000;

#[derive(Clone, Copy)]
struct Interface {
    link_type: Linktype,
    /// Ticks of its clock per second.
    per_second: u64,
    /// Seconds to add.
    offset: i64,
}

/// Without the library's own text, which prints the bytes it choked on: up to all of the file.
fn malformed(offset: usize, error: &PcapError<&[u8]>) -> LoadError {
    let reason = match error {
        PcapError::HeaderNotRecognized => "neither pcap nor pcapng",
        PcapError::Eof | PcapError::UnexpectedEof | PcapError::Incomplete(_) | PcapError::BufferTooSmall => {
            "the file ends within a block"
        }
        _ => "a malformed block",
    };
    LoadError::Format { offset, reason }
}

/// The TCP segment in a packet, or `None` for anything else.
fn slice_tcp(frame: usize, link_type: Linktype, data: &[u8]) -> Result<Option<(Flow, TcpSlice<'_>)>, LoadError> {
    let malformed = |reason: String| LoadError::Packet { frame, reason };
    let too_short = || malformed("shorter than its link header".to_owned());
    let sliced = match link_type {
        Linktype::ETHERNET => SlicedPacket::from_ethernet(data),
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => SlicedPacket::from_ip(data),
        // The address family, in one byte order or the other: IP says its version itself.
        Linktype::NULL | Linktype::LOOP => SlicedPacket::from_ip(data.get(4..).ok_or_else(too_short)?),
        // What `tcpdump -i any` writes. etherparse refuses the first on loopback and does not know the second.
        Linktype::LINUX_SLL => {
            let (header, payload) = data.split_first_chunk::<16>().ok_or_else(too_short)?;
            SlicedPacket::from_ether_type(EtherType(u16::from_be_bytes([header[14], header[15]])), payload)
        }
        Linktype::LINUX_SLL2 => {
            let (header, payload) = data.split_first_chunk::<20>().ok_or_else(too_short)?;
            SlicedPacket::from_ether_type(EtherType(u16::from_be_bytes([header[0], header[1]])), payload)
        }
        Linktype(link_type) => return Err(LoadError::LinkType { frame, link_type }),
    };
    let packet = sliced.map_err(|error| malformed(error.to_string()))?;
    if packet.ip_payload().is_some_and(|ip| ip.fragmented && ip.ip_number == IpNumber::TCP) {
        return Err(malformed("a fragment of a TCP segment".to_owned()));
    }
    let (from, to): (IpAddr, IpAddr) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        Some(NetSlice::Ipv6(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        _ => return Ok(None),
    };
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return Ok(None) };
    let flow = Flow { from: SocketAddr::new(from, tcp.source_port()), to: SocketAddr::new(to, tcp.destination_port()) };
    Ok(Some((flow, tcp)))
}
