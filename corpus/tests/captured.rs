//! The files of `captured/` are what `provenance.toml` says, and load.

use std::collections::BTreeSet;
use std::fs;

use sha2::{Digest, Sha256};
use spice_migration_corpus::{Ended, captures};

#[test]
fn every_file_is_listed_once_and_every_listed_file_is_there() {
    let captures = captures();
    let listed: BTreeSet<_> = captures.iter().map(|capture| capture.file.clone()).collect();
    assert_eq!(listed.len(), captures.len());
    let mut found: BTreeSet<_> = fs::read_dir(captures[0].path().parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(found.remove("provenance.toml"));
    assert_eq!(found, listed);
}

#[test]
fn no_file_was_rewritten() {
    for capture in captures() {
        let digest = Sha256::digest(fs::read(capture.path()).unwrap());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, capture.sha256, "{}", capture.file);
    }
}

#[test]
fn both_sides_of_every_connection_start_with_the_magic_of_the_link_stage() {
    for capture in captures() {
        for connection in capture.connections().unwrap() {
            let streams = [&connection.from_client, &connection.from_server];
            if connection.ended == Ended::Refused {
                assert!(streams.iter().all(|stream| stream.is_empty()));
            } else {
                assert!(streams.iter().all(|stream| stream.starts_with(b"REDQ")), "{}: {connection:?}", capture.file);
            }
        }
    }
}

#[test]
fn segments_are_the_streams_in_the_order_of_capture() {
    for capture in captures() {
        for connection in capture.connections().unwrap() {
            for from_client in [true, false] {
                let of_side = connection.segments.iter().filter(|segment| segment.from_client == from_client);
                let joined: Vec<u8> = of_side.flat_map(|segment| connection.bytes(segment)).copied().collect();
                assert_eq!(&joined, if from_client { &connection.from_client } else { &connection.from_server });
            }
            assert!(connection.segments.is_sorted_by(|a, b| a.frame < b.frame && a.at <= b.at));
        }
    }
}

#[test]
fn only_the_unreachable_target_refuses_and_only_these_connections_are_reset() {
    let mut unusual = Vec::new();
    for capture in captures() {
        for (index, connection) in capture.connections().unwrap().iter().enumerate() {
            if connection.ended != Ended::Fin {
                unusual.push((capture.file.clone(), index, connection.ended));
            }
        }
    }
    let expected = [
        // The main channel at the target that died.
        ("agent_seamless.pcap.gz", 4, Ended::Reset),
        // Target links that the client closed with data unread, after the target's FIN.
        ("cancel_seamless.pcap.gz", 4, Ended::Reset),
        ("cancel_seamless.pcap.gz", 5, Ended::Reset),
        ("cancel_seamless.pcap.gz", 6, Ended::Reset),
        ("switch_unreach_semi.pcap.gz", 4, Ended::Refused),
    ];
    assert_eq!(unusual, expected.map(|(file, index, ended)| (file.to_owned(), index, ended)));
}

#[test]
fn connections_and_bytes_are_as_many_as_tshark_finds() {
    // Connections to each server port, bytes from all clients, bytes from all servers; with tshark 4.0.
    let expected = [
        ("agent_seamless.pcap.gz", vec![(16131, 4), (16132, 4)], 2_058, 265_952),
        ("cancel_seamless.pcap.gz", vec![(15931, 4), (15932, 4)], 1_644, 266_713),
        ("full_headers_nack.pcap.gz", vec![(43281, 4), (42769, 4)], 2_256, 283_881),
        ("seamless.full.pcap.gz", vec![(15931, 8), (15932, 8)], 3_833, 284_512),
        ("seamless.pcap.gz", vec![(15931, 4), (15932, 4)], 2_025, 281_884),
        ("semi.pcap.gz", vec![(15931, 4), (15932, 4)], 1_850, 283_032),
        ("switch_unreach_semi.pcap.gz", vec![(15931, 4), (15932, 5)], 1_886, 529_030),
        ("twice_seamless.pcap.gz", vec![(15931, 8), (15932, 4)], 3_110, 299_543),
    ];
    let found: Vec<_> = captures()
        .iter()
        .map(|capture| {
            let connections = capture.connections().unwrap();
            let to = |port| connections.iter().filter(|connection| connection.server.port() == port).count();
            let ports: Vec<_> = capture.server_ports.iter().map(|&port| (port, to(port))).collect();
            let from_clients: usize = connections.iter().map(|connection| connection.from_client.len()).sum();
            let from_servers: usize = connections.iter().map(|connection| connection.from_server.len()).sum();
            (capture.file.clone(), ports, from_clients, from_servers)
        })
        .collect();
    assert_eq!(found, expected.map(|(file, ports, client, server)| (file.to_owned(), ports, client, server)));
}
