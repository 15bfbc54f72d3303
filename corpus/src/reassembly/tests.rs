use std::net::SocketAddr;
use std::time::Duration;

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use proptest::prelude::*;

use super::{Connection, Ended, MAX_OUT_OF_ORDER, Segment, reassemble};
use crate::{Flow, LoadError, MAX_CAPTURE};

const SERVER_PORT: u16 = 5900;
const CLIENT: ([u8; 4], u16) = ([127, 0, 0, 1], 40000);
const SERVER: ([u8; 4], u16) = ([127, 0, 0, 1], SERVER_PORT);
const TO_SERVER: Flow = Flow { from: address(CLIENT), to: address(SERVER) };
const TO_CLIENT: Flow = Flow { from: address(SERVER), to: address(CLIENT) };
const ETHERNET: u32 = 1;

// The initial sequence numbers of a conversation between them: the client's stream starts at 1001, the server's at 5001.
const CLIENT_ISN: u32 = 1000;
const SERVER_ISN: u32 = 5000;

#[test]
fn a_whole_conversation_gives_both_streams_and_their_order() {
    let mut capture = handshake();
    capture.extend([
        client(1001).data(b"REDQ"),
        server(5001).ack(1005).data(b"re"),
        server(5003).ack(1005).data(b"ply"),
        client(1005).ack(5006).data(b"!"),
        client(1006).ack(5006).fin(),
        server(5006).ack(1007).fin(),
        client(1007).ack(5007),
    ]);
    let segment = |frame: usize, from_client, start, end| {
        // `pcap` below takes a packet each millisecond.
        let at = Duration::from_millis(frame as u64 - 1);
        Segment { frame, at, from_client, start, end }
    };
    let expected = Connection {
        client: TO_SERVER.from,
        server: TO_SERVER.to,
        from_client: b"REDQ!".to_vec(),
        from_server: b"reply".to_vec(),
        ended: Ended::Fin,
        segments: vec![
            segment(4, true, 0, 4),
            segment(5, false, 0, 2),
            segment(6, false, 2, 5),
            segment(7, true, 4, 5),
        ],
    };
    assert_eq!(expected.bytes(&expected.segments[2]), b"ply");
    assert_eq!(load(&capture).unwrap(), [expected]);
}

#[test]
fn an_exact_retransmission_adds_nothing() {
    let connection = client_sends([client(1001).data(b"abc"), client(1001).data(b"abc"), client(1004).data(b"d")]);
    let connection = connection.unwrap();
    assert_eq!(connection.from_client, b"abcd");
    assert_eq!(connection.segments.iter().map(|segment| segment.frame).collect::<Vec<_>>(), [4, 6]);
}

#[test]
fn an_overlapping_retransmission_adds_what_is_new() {
    let segments = [client(1001).data(b"abc"), client(1002).data(b"bcde"), client(1003).data(b"c")];
    assert_eq!(client_sends(segments).unwrap().from_client, b"abcde");
}

#[test]
fn a_segment_that_fills_a_gap_delivers_all_that_waited() {
    let segments =
        [client(1005).data(b"ef"), client(1003).data(b"cd"), client(1004).data(b"def"), client(1001).data(b"ab")];
    let connection = client_sends(segments).unwrap();
    assert_eq!(connection.from_client, b"abcdef");
    let [segment] = connection.segments[..] else { panic!("{:?}", connection.segments) };
    assert_eq!((segment.frame, segment.start, segment.end), (7, 0, 6));
}

#[test]
fn a_fin_may_overtake_the_last_data() {
    let segments = [client(1003).data(b"c").fin(), client(1001).data(b"ab"), server(5001).ack(1005).fin()];
    let connection = client_sends(segments).unwrap();
    assert_eq!((&connection.from_client[..], connection.ended), (&b"abc"[..], Ended::Fin));
}

#[test]
fn sequence_numbers_wrap_around() {
    for isn in [u32::MAX - 3, u32::MAX - 1, u32::MAX, 0] {
        let at = |offset: u32| isn.wrapping_add(1).wrapping_add(offset);
        let capture = [
            client(isn).syn(),
            server(SERVER_ISN).syn().ack(at(0)),
            client(at(4)).data(b"ef"),
            client(at(0)).data(b"ab"),
            client(at(1)).data(b"bcd"),
            client(at(6)).fin(),
            server(5001).ack(at(7)),
        ];
        assert_eq!(load(&capture).unwrap()[0].from_client, b"abcdef", "from {isn}");
    }
}

#[test]
fn data_on_a_syn_are_the_start_of_the_stream() {
    let capture = [
        client(CLIENT_ISN).syn().data(b"ab"),
        server(SERVER_ISN).syn().ack(1003).data(b"x"),
        client(1003).ack(5002).data(b"c"),
    ];
    let connections = load(&capture).unwrap();
    assert_eq!((&connections[0].from_client[..], &connections[0].from_server[..]), (&b"abc"[..], &b"x"[..]));
}

#[test]
fn missing_bytes_are_a_gap_that_names_the_flow_and_the_offset() {
    let gap = |segments: &[Packet], expected: Flow, offset: usize| {
        let mut capture = handshake();
        capture.extend_from_slice(segments);
        match load(&capture).unwrap_err() {
            LoadError::Gap { flow, missing } => assert_eq!((flow, missing), (expected, offset)),
            other => panic!("{other}"),
        }
    };
    // Proven by later data, by a FIN, by an acknowledgement of data, and by one of a FIN.
    gap(&[client(1001).data(b"ab"), client(1004).data(b"d")], TO_SERVER, 2);
    gap(&[client(1001).data(b"ab"), client(1004).fin()], TO_SERVER, 2);
    gap(&[client(1001).data(b"ab"), server(5001).ack(1004)], TO_SERVER, 2);
    gap(&[server(5001).data(b"ab"), client(1001).ack(5004)], TO_CLIENT, 2);
    let error = LoadError::Gap { flow: TO_SERVER, missing: 2 };
    assert_eq!(error.to_string(), "127.0.0.1:40000 -> 127.0.0.1:5900: bytes from offset 2 are missing");
}

#[test]
fn a_stream_that_contradicts_itself_is_refused() {
    let conflict = |segments: &[Packet], expected: usize| {
        let mut capture = handshake();
        capture.extend_from_slice(segments);
        match load(&capture).unwrap_err() {
            LoadError::Conflict { frame, flow, offset } => {
                assert_eq!((frame, flow, offset), (capture.len(), TO_SERVER, expected));
            }
            other => panic!("{other}"),
        }
    };
    conflict(&[client(1001).data(b"abc"), client(1002).data(b"bX")], 2);
    // Behind its end; a second end; an end before what was sent.
    conflict(&[client(1001).data(b"a").fin(), client(1002).data(b"b")], 1);
    conflict(&[client(1001).data(b"a").fin(), client(1003).fin()], 2);
    conflict(&[client(1001).data(b"ab"), client(1002).fin()], 1);
}

#[test]
fn waiting_segments_that_contradict_each_other_are_refused() {
    let error = client_sends([client(1002).data(b"bc"), client(1003).data(b"X"), client(1001).data(b"a")]).unwrap_err();
    assert!(matches!(error, LoadError::Conflict { offset: 2, .. }), "{error}");
}

#[test]
fn a_server_that_starts_twice_is_refused() {
    let mut capture = handshake();
    capture.push(server(SERVER_ISN + 1).syn().ack(1001));
    let error = load(&capture).unwrap_err();
    assert!(matches!(error, LoadError::Conflict { frame: 4, flow: TO_CLIENT, offset: 0 }), "{error}");
}

#[test]
fn the_window_ends_at_the_documented_distance() {
    let limit = MAX_OUT_OF_ORDER as u32;
    let error = client_sends([client(1001 + limit + 1).data(b"x")]).unwrap_err();
    assert!(matches!(error, LoadError::OutOfWindow { frame: 4, flow: TO_SERVER }), "{error}");
    let error = client_sends([client(1001 + limit).data(b"x")]).unwrap_err();
    assert!(matches!(error, LoadError::Gap { missing: 0, .. }), "{error}");
    let error = client_sends([client(1000).data(b"x")]).unwrap_err();
    assert!(matches!(error, LoadError::OutOfWindow { frame: 4, .. }), "before the start: {error}");
}

#[test]
fn waiting_data_are_bounded_in_total() {
    // The same 60,000 bytes again and again, within the window: only the total can stop them.
    let fits = MAX_OUT_OF_ORDER / 60_000;
    let again = client(1002).data(&[0; 60_000]);
    let error = client_sends(vec![again; fits + 1]).unwrap_err();
    let last = 3 + fits + 1;
    assert!(matches!(error, LoadError::OutOfWindow { frame, .. } if frame == last), "{error}");
}

#[test]
fn data_in_order_never_count_as_waiting() {
    let pieces = MAX_OUT_OF_ORDER / 60_000 + 1;
    let segments = (0..pieces).map(|piece| client(1001 + piece as u32 * 60_000).data(&[0; 60_000]));
    assert_eq!(client_sends(segments).unwrap().from_client.len(), pieces * 60_000);
}

#[test]
fn a_repeated_syn_is_the_same_connection_and_another_one_is_a_new_connection() {
    let mut capture = vec![client(CLIENT_ISN).syn()];
    capture.extend(handshake());
    capture.extend([client(1001).data(b"first"), server(5001).ack(1006).data(b"1")]);
    capture.extend([
        client(90_000).syn(),
        server(70_000).syn().ack(90_001),
        client(90_001).ack(70_001).data(b"second"),
        server(70_001).data(b"2"),
    ]);
    let connections = load(&capture).unwrap();
    let streams: Vec<_> = connections.iter().map(|c| (&c.from_client[..], &c.from_server[..])).collect();
    assert_eq!(streams, [(&b"first"[..], &b"1"[..]), (&b"second"[..], &b"2"[..])]);
}

#[test]
fn connections_come_in_the_order_of_their_syn_and_do_not_mix() {
    let other = |packet: Packet| Packet { client_port: 40001, ..packet };
    let mut capture = handshake();
    capture.extend(handshake().into_iter().map(other));
    capture.extend([other(client(1001).data(b"B")), client(1001).data(b"A"), other(server(5001).data(b"b"))]);
    let connections = load(&capture).unwrap();
    let found: Vec<_> = connections.iter().map(|c| (c.client.port(), &c.from_client[..], &c.from_server[..])).collect();
    assert_eq!(found, [(40000, &b"A"[..], &b""[..]), (40001, &b"B"[..], &b"b"[..])]);
}

#[test]
fn without_a_syn_data_are_refused_and_bare_packets_passed_over() {
    assert_eq!(load(&[client(1001).ack(5001).fin(), server(5001).ack(1001).rst().data(b"why")]).unwrap(), []);
    for (packet, expected) in [(client(1001).data(b"x"), TO_SERVER), (server(5001).data(b"x"), TO_CLIENT)] {
        let error = load(&[packet]).unwrap_err();
        assert!(matches!(error, LoadError::NoSyn { frame: 1, flow } if flow == expected), "{error}");
    }
    let error = load(&[client(CLIENT_ISN).syn(), server(5001).data(b"x")]).unwrap_err();
    assert!(matches!(error, LoadError::NoSyn { frame: 2, flow: TO_CLIENT }), "only the client's SYN: {error}");
}

#[test]
fn connections_to_other_ports_are_passed_over() {
    let mut capture = handshake();
    capture.push(client(1001).data(b"x"));
    assert_eq!(reassemble(&pcap(ETHERNET, &capture), &[5901]).unwrap(), []);
}

#[test]
fn a_reset_ends_the_connection_and_leaves_what_was_sent() {
    let connection = client_sends([client(1001).data(b"ab"), server(5001).ack(1001).rst().data(b"why")]).unwrap();
    assert_eq!((&connection.from_client[..], connection.ended), (&b"ab"[..], Ended::Reset));
    assert_eq!(connection.from_server, b"");
}

#[test]
fn the_ends_are_told_apart() {
    let refused = load(&[client(CLIENT_ISN).syn(), server(0).ack(1001).rst()]).unwrap();
    assert_eq!(refused[0].ended, Ended::Refused);
    assert_eq!(load(&[client(CLIENT_ISN).syn()]).unwrap()[0].ended, Ended::Open);
    assert_eq!(client_sends([client(1001).fin()]).unwrap().ended, Ended::Open, "one side only");
    let fin_and_reset = [client(1001).fin(), server(5001).fin(), client(1002).rst()];
    assert_eq!(client_sends(fin_and_reset).unwrap().ended, Ended::Reset);
}

#[test]
fn every_link_type_of_a_loopback_capture_gives_the_same() {
    let mut capture = handshake();
    capture.push(client(1001).data(b"REDQ"));
    let expected = load(&capture).unwrap();
    // NULL, RAW, LOOP, LINUX_SLL, IPV4, LINUX_SLL2.
    for link_type in [0, 101, 108, 113, 228, 276] {
        let connections = reassemble(&pcap(link_type, &capture), &[SERVER_PORT]).unwrap();
        assert_eq!(connections, expected, "link type {link_type}");
    }
    let error = reassemble(&pcap(147, &capture), &[SERVER_PORT]).unwrap_err();
    assert!(matches!(error, LoadError::LinkType { frame: 1, link_type: 147 }), "{error}");
}

#[test]
fn ipv6_works_too() {
    let mut packet = Vec::new();
    let ip = PacketBuilder::ethernet2([0; 6], [0; 6]).ipv6([1; 16], [2; 16], 64);
    ip.tcp(40000, SERVER_PORT, 1000, 1024).syn().write(&mut packet, b"x").unwrap();
    let connections = reassemble(&pcap_of(ETHERNET, MICROSECONDS, &[packet]), &[SERVER_PORT]).unwrap();
    assert_eq!(connections[0].client, SocketAddr::from(([1; 16], 40000)));
    assert_eq!(connections[0].from_client, b"x");
}

#[test]
fn pcap_in_nanoseconds_and_pcapng_give_the_same_as_pcap() {
    let mut capture = handshake();
    capture.extend([client(1001).data(b"REDQ"), server(5001).data(b"abc")]);
    let expected = load(&capture).unwrap();
    let packets: Vec<_> = capture.iter().map(|packet| packet.bytes(ETHERNET)).collect();
    let load = |bytes: &[u8]| reassemble(bytes, &[SERVER_PORT]).unwrap();
    assert_eq!(load(&pcap_of(ETHERNET, NANOSECONDS, &packets)), expected);
    assert_eq!(load(&pcapng_section(0, &packets, 1, 1000)), expected);
    // Each section of a pcapng numbers its own interfaces, and has its own clocks.
    let sections = [pcapng_section(0, &packets[..2], 1, 1000), pcapng_section(2, &packets[2..], 0, -1000)];
    assert_eq!(load(&sections.concat()), expected);
}

#[test]
fn a_clock_that_was_set_back_gives_the_start_of_the_capture() {
    let mut capture = handshake();
    capture.push(client(1001).data(b"REDQ"));
    let mut file = pcap(ETHERNET, &capture);
    // The first packet's second.
    file[24..28].copy_from_slice(&1_900_000_000_u32.to_le_bytes());
    let connections = reassemble(&file, &[SERVER_PORT]).unwrap();
    assert_eq!(connections[0].segments[0].at, Duration::ZERO);
}

#[test]
fn a_file_that_is_no_capture_or_stops_in_the_middle_is_refused() {
    let whole = pcap(ETHERNET, &handshake());
    let second = 24 + 16 + handshake()[0].bytes(ETHERNET).len();
    let load = |bytes: &[u8]| match reassemble(bytes, &[SERVER_PORT]).unwrap_err() {
        LoadError::Format { offset, reason } => (offset, reason),
        other => panic!("{other}"),
    };
    assert_eq!(load(b""), (0, "the file ends within a block"));
    assert_eq!(load(&whole[..20]), (0, "the file ends within a block"));
    assert_eq!(load(&[0x55; 100]), (0, "neither pcap nor pcapng"));
    assert_eq!(load(&whole[..second + 7]), (second, "the file ends within a block"));
    assert_eq!(load(&whole[..second + 30]), (second, "the file ends within a block"));
    assert!(reassemble(&whole[..second], &[SERVER_PORT]).is_ok(), "ends between two packets");
    let too_large = vec![0; MAX_CAPTURE + 1];
    assert!(matches!(reassemble(&too_large, &[]), Err(LoadError::TooLarge)));
}

#[test]
fn cut_and_malformed_packets_and_fragments_are_refused() {
    let refused = |change: fn(&mut Vec<u8>), original_length: usize| {
        let mut packet = client(1001).data(b"REDQ").bytes(ETHERNET);
        let length = packet.len();
        change(&mut packet);
        let mut file = pcap_of(ETHERNET, MICROSECONDS, &[packet]);
        file[36..40].copy_from_slice(&((length + original_length) as u32).to_le_bytes());
        reassemble(&file, &[SERVER_PORT]).unwrap_err()
    };
    let cut = refused(|packet| packet.truncate(40), 0);
    assert!(matches!(cut, LoadError::Cut { frame: 1 }), "{cut}");
    // The IP header's total length is more than there is.
    let short = refused(|packet| packet[16] = 0xff, 0);
    assert!(matches!(short, LoadError::Packet { frame: 1, .. }), "{short}");
    // "More fragments".
    let fragment = refused(|packet| packet[20] = 0x20, 0);
    assert_eq!(fragment.to_string(), "frame 1: a fragment of a TCP segment");
}

#[test]
fn what_is_not_tcp_is_passed_over() {
    let mut datagram = Vec::new();
    let ip = PacketBuilder::ethernet2([0; 6], [0; 6]).ipv4(CLIENT.0, SERVER.0, 64);
    ip.udp(40000, SERVER_PORT).write(&mut datagram, b"x").unwrap();
    let unknown = [&[0; 12][..], &[0x88, 0xcc], b"not IP"].concat();
    assert_eq!(reassemble(&pcap_of(ETHERNET, MICROSECONDS, &[datagram, unknown]), &[SERVER_PORT]).unwrap(), []);
}

proptest! {
    /// Pieces that cover the stream, in any order, with any repetition and overlap: the same stream, delivered in
    /// segments that continue each other.
    #[test]
    fn any_order_repetition_and_overlap_gives_the_same_stream((isn, stream, pieces) in shuffled_pieces(true)) {
        let connection = send_pieces(isn, &stream, &pieces).unwrap();
        let mut reached = 0;
        for segment in &connection.segments {
            prop_assert_eq!(segment.start, reached);
            prop_assert!(segment.end > segment.start);
            reached = segment.end;
        }
        prop_assert_eq!(reached, stream.len());
        prop_assert_eq!(connection.from_client, stream);
    }

    /// Pieces that need not cover the stream: the stream, or the first byte that is missing.
    #[test]
    fn any_loss_is_found_at_its_first_byte((isn, stream, pieces) in shuffled_pieces(false)) {
        let mut covered = vec![false; stream.len()];
        pieces.iter().for_each(|&(start, end)| covered[start..end].fill(true));
        match (send_pieces(isn, &stream, &pieces), covered.iter().position(|&covered| !covered)) {
            (Ok(connection), None) => prop_assert_eq!(connection.from_client, stream),
            (Err(LoadError::Gap { flow: TO_SERVER, missing }), Some(expected)) => prop_assert_eq!(missing, expected),
            (result, expected) => prop_assert!(false, "{result:?}, first missing {expected:?}"),
        }
    }

    /// Whatever stands in a file, it is an error at worst.
    #[test]
    fn no_bytes_make_it_panic(seed in 0..3_u8, change in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut capture = handshake();
        capture.extend([client(1001).data(b"REDQ"), server(5001).ack(1005).data(b"abc"), client(1005).fin()]);
        let packets: Vec<_> = capture.iter().map(|packet| packet.bytes(ETHERNET)).collect();
        let mut file = match seed {
            0 => pcapng_section(0, &packets, 1, 1000),
            1 => pcap_of(ETHERNET, NANOSECONDS, &packets),
            _ => pcap(276, &capture),
        };
        for (index, byte) in change {
            let index = index.index(file.len());
            file[index] = byte;
        }
        let _ = reassemble(&file, &[SERVER_PORT]);
    }
}

/// An initial sequence number, a stream, and ranges of it.
fn shuffled_pieces(covering: bool) -> impl Strategy<Value = (u32, Vec<u8>, Vec<(usize, usize)>)> {
    let isn = prop_oneof![any::<u32>(), u32::MAX - 300..=u32::MAX];
    let stream = prop::collection::vec(any::<u8>(), 1..300);
    (isn, stream).prop_flat_map(move |(isn, stream)| {
        let length = stream.len();
        let cuts = prop::collection::btree_set(0..length, 0..12);
        let extra = prop::collection::vec((0..length, 1..=length), 0..12);
        let pieces = (cuts, extra).prop_map(move |(cuts, extra)| {
            let mut pieces: Vec<_> = extra.iter().map(|&(start, size)| (start, length.min(start + size))).collect();
            if covering {
                let starts = [0].into_iter().chain(cuts.iter().copied());
                let ends = cuts.iter().copied().chain([length]);
                pieces.extend(starts.zip(ends));
            }
            pieces
        });
        (Just(isn), Just(stream), pieces.prop_flat_map(|pieces| Just(pieces).prop_shuffle()))
    })
}

/// Sends the pieces after a handshake, and then a FIN.
fn send_pieces(isn: u32, stream: &[u8], pieces: &[(usize, usize)]) -> Result<Connection, LoadError> {
    let at = |offset: usize| isn.wrapping_add(1).wrapping_add(offset as u32);
    let mut capture = vec![client(isn).syn(), server(SERVER_ISN).syn().ack(at(0))];
    capture.extend(pieces.iter().map(|&(start, end)| client(at(start)).data(&stream[start..end])));
    capture.push(client(at(stream.len())).fin());
    Ok(load(&capture)?.remove(0))
}

/// Sends the segments after a handshake.
fn client_sends(segments: impl IntoIterator<Item = Packet>) -> Result<Connection, LoadError> {
    let mut capture = handshake();
    capture.extend(segments);
    Ok(load(&capture)?.remove(0))
}

fn load(capture: &[Packet]) -> Result<Vec<Connection>, LoadError> {
    reassemble(&pcap(ETHERNET, capture), &[SERVER_PORT])
}

fn handshake() -> Vec<Packet> {
    vec![client(CLIENT_ISN).syn(), server(SERVER_ISN).syn().ack(1001), client(1001).ack(5001)]
}

fn client(sequence: u32) -> Packet {
    Packet { sequence, from_client: true, ..Packet::default() }
}

fn server(sequence: u32) -> Packet {
    Packet { sequence, ..Packet::default() }
}

#[derive(Clone)]
struct Packet {
    from_client: bool,
    client_port: u16,
    sequence: u32,
    syn: bool,
    fin: bool,
    rst: bool,
    ack: Option<u32>,
    data: Vec<u8>,
}

impl Default for Packet {
    fn default() -> Self {
        let (client_port, data) = (CLIENT.1, Vec::new());
        Self { from_client: false, client_port, sequence: 0, syn: false, fin: false, rst: false, ack: None, data }
    }
}

impl Packet {
    fn syn(self) -> Self {
        Self { syn: true, ..self }
    }

    fn fin(self) -> Self {
        Self { fin: true, ..self }
    }

    fn rst(self) -> Self {
        Self { rst: true, ..self }
    }

    fn ack(self, ack: u32) -> Self {
        Self { ack: Some(ack), ..self }
    }

    fn data(self, data: &[u8]) -> Self {
        Self { data: data.to_vec(), ..self }
    }

    fn bytes(&self, link_type: u32) -> Vec<u8> {
        let client = (CLIENT.0, self.client_port);
        let ((from, from_port), (to, to_port)) = if self.from_client { (client, SERVER) } else { (SERVER, client) };
        let link_header: &[u8] = match link_type {
            0 => &[2, 0, 0, 0],
            108 => &[0, 0, 0, 2],
            113 => &[0, 0, 0x03, 0x04, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x00],
            276 => &[0x08, 0x00, 0, 0, 0, 0, 0, 1, 0x03, 0x04, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0],
            ETHERNET => &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x00],
            _ => &[],
        };
        let mut tcp: PacketBuilderStep<TcpHeader> =
            PacketBuilder::ipv4(from, to, 64).tcp(from_port, to_port, self.sequence, 1024);
        if self.syn {
            tcp = tcp.syn();
        }
        if self.fin {
            tcp = tcp.fin();
        }
        if self.rst {
            tcp = tcp.rst();
        }
        if let Some(ack) = self.ack {
            tcp = tcp.ack(ack);
        }
        let mut packet = link_header.to_vec();
        tcp.write(&mut packet, &self.data).unwrap();
        packet
    }
}

fn pcap(link_type: u32, capture: &[Packet]) -> Vec<u8> {
    let packets: Vec<_> = capture.iter().map(|packet| packet.bytes(link_type)).collect();
    pcap_of(link_type, MICROSECONDS, &packets)
}

/// Magic of a file with times in microseconds, and how many make a millisecond.
const MICROSECONDS: (u32, u32) = (0xa1b2_c3d4, 1_000);
const NANOSECONDS: (u32, u32) = (0xa1b2_3c4d, 1_000_000);

/// A pcap with a packet each millisecond.
fn pcap_of(link_type: u32, (magic, millisecond): (u32, u32), packets: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [magic, 4 << 16 | 2, 0, 0, 262_144, link_type] {
        file.extend(word.to_le_bytes());
    }
    for (number, packet) in (0..).zip(packets) {
        // Across a second's end.
        let (second, fraction) = ((number + 998) / 1000, (number + 998) % 1000 * millisecond);
        for word in [1_800_000_000 + second, fraction, packet.len() as u32, packet.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet);
    }
    file
}

/// A section of a pcapng with a packet each millisecond, the first at the `start`th. Before the packets' interface come
/// others of another link type; its clock counts milliseconds from `epoch` (seconds) on.
fn pcapng_section(start: u64, packets: &[Vec<u8>], other_interfaces: u32, epoch: i64) -> Vec<u8> {
    let mut file = Vec::new();
    let mut block = |block_type: u32, body: &[u8]| {
        let padding = vec![0; body.len().next_multiple_of(4) - body.len()];
        let length = ((body.len() + padding.len() + 12) as u32).to_le_bytes();
        file.extend([&block_type.to_le_bytes()[..], &length, body, &padding, &length].concat());
    };
    block(0x0a0d_0d0a, &[&0x1a2b_3c4d_u32.to_le_bytes()[..], &1_u32.to_le_bytes(), &[0xff; 8]].concat());
    for _ in 0..other_interfaces {
        block(1, &[147, 0, 0, 0, 0, 0, 0, 0]);
    }
    // Link type, reserved, snapshot length; options if_tsresol = 10^-3, if_tsoffset, end.
    let ethernet = [1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 3, 0, 0, 0, 14, 0, 8, 0];
    block(1, &[&ethernet[..], &epoch.to_le_bytes(), &[0; 4]].concat());
    for (number, packet) in (start..).zip(packets) {
        let time = (1_800_000_000 - epoch) as u64 * 1000 + number;
        let mut body = Vec::new();
        for word in [other_interfaces, (time >> 32) as u32, time as u32, packet.len() as u32, packet.len() as u32] {
            body.extend(word.to_le_bytes());
        }
        body.extend(packet);
        block(6, &body);
    }
    file
}

const fn address((ip, port): ([u8; 4], u16)) -> SocketAddr {
    let [a, b, c, d] = ip;
    SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(a, b, c, d), port))
}
