//! Messages against bytes that were not made by this crate, and what holds for all of them.
#![cfg(feature = "alloc")]

use std::collections::BTreeSet;

use arbitrary::{Arbitrary, Unstructured};
use proptest::prelude::*;
use spice_migration::{
    ChannelType, ClientMessage, Data, DecodeError, Destination, EncodeError, Fault, List, ListItem, ServerMessage,
    Text,
    caps::{Capability, CapabilityWords, CommonCapability, MainCapability},
    frame::{self, Deframer, Header, HeaderKind},
    limits,
    link::{Capabilities, LINK_HEADER_LEN, LinkError, LinkHeader, LinkMessage, LinkReply},
    message::{ChannelId, ChannelWait, Message, MigrateFlags, MouseModes, client, server},
};

/// 101 as captured from QEMU 7.2 with spice-server 0.15.1.
const BEGIN: &[u8] = b"\x3c\x3e\xff\xff\x0a\0\0\0\x14\0\0\0\0\0\0\0\0\0\0\x00127.0.0.1\0";

/// 116 in the layout that the same server uses: the version stands before the string.
const BEGIN_SEAMLESS: &[u8] = b"\x3c\x3e\xff\xff\x0a\0\0\0\x18\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\x00127.0.0.1\0";

fn destination() -> Destination<'static> {
    Destination {
        port: 0x3e3c,
        tls_port: Destination::NO_PORT,
        host: Text::new(b"127.0.0.1").unwrap(),
        cert_subject: None,
    }
}

fn encoded(message: &impl Message) -> Vec<u8> {
    let mut out = vec![0xaa; message.encoded_len()];
    assert_eq!(message.encode(&mut out), Ok(out.len()));
    out
}

#[track_caller]
fn both_ways(bytes: &[u8], message: ServerMessage<'_>) {
    assert_eq!(ServerMessage::decode(ChannelType::MAIN, message.id(), bytes), Ok(message));
    assert_eq!(encoded(&message), bytes);
}

#[track_caller]
fn client_both_ways(bytes: &[u8], message: ClientMessage<'_>) {
    assert_eq!(ClientMessage::decode(ChannelType::MAIN, message.id(), bytes), Ok(message));
    assert_eq!(encoded(&message), bytes);
}

fn main_error(id: u16, body: &[u8]) -> DecodeError {
    ServerMessage::decode(ChannelType::MAIN, id, body).unwrap_err()
}

#[test]
fn captured_announcements_decode_and_encode_to_the_same_bytes() {
    both_ways(BEGIN, ServerMessage::MigrateBegin(server::MigrateBegin { destination: destination() }));
    both_ways(
        BEGIN_SEAMLESS,
        ServerMessage::MigrateBeginSeamless(server::MigrateBeginSeamless {
            destination: destination(),
            src_mig_version: 1,
        }),
    );
    both_ways(BEGIN, ServerMessage::MigrateSwitchHost(server::MigrateSwitchHost { destination: destination() }));
}

#[test]
fn each_field_lies_where_the_published_layout_says() {
    both_ways(
        &[3, 0, 0, 0],
        ServerMessage::Migrate(server::Migrate { flags: MigrateFlags::NEED_FLUSH | MigrateFlags::NEED_DATA_TRANSFER }),
    );
    both_ways(&[1, 0, 0, 0, 20, 0, 0, 0], ServerMessage::SetAck(server::SetAck { generation: 1, window: 20 }));
    let wait =
        [ChannelWait { channel_type: ChannelType::CURSOR, channel_id: 2, message_serial: 0x0807_0605_0403_0201 }
            .to_wire()];
    both_ways(
        &[1, 4, 2, 1, 2, 3, 4, 5, 6, 7, 8],
        ServerMessage::WaitForChannels(server::WaitForChannels { wait_list: List::new(&wait) }),
    );
    let channels = [
        ChannelId { channel_type: ChannelType::INPUTS, id: 0 }.to_wire(),
        ChannelId { channel_type: ChannelType(200), id: 7 }.to_wire(),
    ];
    both_ways(
        &[2, 0, 0, 0, 3, 0, 200, 7],
        ServerMessage::ChannelsList(server::ChannelsList { channels: List::new(&channels) }),
    );
    both_ways(
        &[3, 0, 2, 0],
        ServerMessage::MouseMode(server::MouseMode {
            supported_modes: MouseModes(3),
            current_mode: MouseModes::CLIENT,
        }),
    );
    both_ways(
        &[9, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0],
        ServerMessage::Disconnecting(server::Disconnecting { time_stamp: 9, reason: LinkError::PERMISSION_DENIED }),
    );
    client_both_ways(&[5, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0], ClientMessage::Pong(client::Pong { id: 5, timestamp: 6 }));
    client_both_ways(&[2, 0], ClientMessage::MouseModeRequest(client::MouseModeRequest { mode: MouseModes::CLIENT }));
    client_both_ways(&[], ClientMessage::MigrateFlushMark);
}

#[test]
fn a_notification_is_accepted_with_and_without_its_nul_and_keeps_it() {
    let mut bytes = vec![0; 20];
    bytes.extend([2, 0, 0, 0, b'h', b'i']);
    bytes.splice(20..24, 2u32.to_le_bytes());
    for terminated in [false, true] {
        if terminated {
            bytes.push(0);
        }
        let message = ServerMessage::decode(ChannelType::DISPLAY, 7, &bytes).unwrap();
        let ServerMessage::Notify(notify) = message else { panic!("{message:?}") };
        assert_eq!((notify.message.0, notify.terminated), (&b"hi"[..], terminated));
        assert_eq!(encoded(&message), bytes);
    }
}

#[test]
fn errors_name_message_field_offset_and_fault() {
    let cases: &[(u16, &[u8], &str)] = &[
        (103, &[0; 9], "SPICE_MSG_MAIN_INIT: supported_mouse_modes at byte 8: the bytes end before the field does"),
        (101, &BEGIN[..11], "SPICE_MSG_MAIN_MIGRATE_BEGIN: host at byte 4: the bytes end before the field does"),
        (101, &BEGIN[..29], "SPICE_MSG_MAIN_MIGRATE_BEGIN: host at byte 4: it lies beyond the bytes present"),
        (104, &[1, 0, 0, 0, 3], "SPICE_MSG_MAIN_CHANNELS_LIST: channels at byte 0: it lies beyond the bytes present"),
        (102, &[0], "SPICE_MSG_MAIN_MIGRATE_CANCEL: end at byte 0: bytes follow the last field"),
        (106, &[0; 5], "SPICE_MSG_MAIN_MULTI_MEDIA_TIME: end at byte 4: bytes follow the last field"),
    ];
    for (id, body, expected) in cases {
        assert_eq!(main_error(*id, body).to_string(), *expected);
    }
}

#[cfg(feature = "std")]
#[test]
fn errors_become_io_errors() {
    use std::io::{Error, ErrorKind};

    let error = Error::from(main_error(102, &[0]));
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(error.to_string(), "SPICE_MSG_MAIN_MIGRATE_CANCEL: end at byte 0: bytes follow the last field");
    let error = Error::from(EncodeError::BufferTooSmall { needed: 30 });
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "the buffer is too small: 30 bytes are needed");
    assert_eq!(EncodeError::TooLong.to_string(), "the message exceeds the limits");
    let error = Error::from(frame::OversizedBody { id: 4, size: 12, limit: 10 });
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(error.to_string(), "message 4 announces a body of 12 bytes; the limit is 10");
}

#[test]
fn strings_by_offset_are_checked() {
    let with = |size: u32, offset: u32, strings: &[u8]| {
        let mut body = BEGIN[..20].to_vec();
        body[4..8].copy_from_slice(&size.to_le_bytes());
        body[8..12].copy_from_slice(&offset.to_le_bytes());
        body.extend_from_slice(strings);
        ServerMessage::decode(ChannelType::MAIN, 101, &body).map_err(|error| (error.offset, error.fault)).map(|_| ())
    };
    assert_eq!(with(2, 20, b"h\0"), Ok(()));
    assert_eq!(with(2, 23, b"gaph\0gap"), Ok(()), "what lies around a string is padding");
    assert_eq!(with(2, 19, b"h\0"), Err((4, Fault::OffsetInFixedPart)));
    assert_eq!(with(0, 0, b"h\0"), Err((4, Fault::Missing)));
    assert_eq!(with(0, 20, b"h\0"), Err((4, Fault::Missing)));
    assert_eq!(with(1, 20, b"\0"), Ok(()), "a string may be empty; QEMU sends such a subject");
    assert_eq!(with(2, 0, b"h\0"), Err((4, Fault::SizeWithoutOffset)));
    assert_eq!(with(3, 20, b"h\0"), Err((4, Fault::OutOfBounds)));
    assert_eq!(with(u32::MAX, 20, b"h\0"), Err((4, Fault::OutOfBounds)));
    assert_eq!(with(2, u32::MAX, b"h\0"), Err((4, Fault::OutOfBounds)));
    assert_eq!(with(1, 20, b"h\0"), Err((20, Fault::NotTerminated)));
    assert_eq!(with(3, 20, b"h\0\0"), Err((20, Fault::InteriorNul)));
    let long = vec![b'x'; limits::MAX_TEXT + 1];
    let mut terminated = long.clone();
    terminated.push(0);
    assert_eq!(with(u32::try_from(terminated.len()).unwrap(), 20, &terminated), Err((20, Fault::LimitExceeded)));
    assert!(Text::new(&long[1..]).is_some() && Text::new(&long).is_none());
}

#[test]
fn link_headers_and_bodies_check_magic_sizes_counts_and_offsets() {
    let header = LinkHeader::new(18).encode();
    assert_eq!(header, *b"REDQ\x02\0\0\0\x02\0\0\0\x12\0\0\0");
    assert_eq!(LinkHeader::decode(&header), Ok(LinkHeader::new(18)));
    let mut wrong = header;
    wrong[3] = b'X';
    assert_eq!(LinkHeader::decode(&wrong).unwrap_err().fault, Fault::WrongMagic);
    assert_eq!(LinkHeader::decode(&LinkHeader::new(4096).encode()), Ok(LinkHeader::new(4096)));
    assert_eq!(
        LinkHeader::decode(&LinkHeader::new(4097).encode()).unwrap_err().to_string(),
        "SpiceLinkHeader: size at byte 12: it exceeds the limit"
    );

    // As spice-gtk 0.42 sends it for its main channel.
    let bytes = b"\0\0\0\0\x01\0\x01\0\0\0\x01\0\0\0\x12\0\0\0\x0d\0\0\0\x0f\0\0\0";
    let message = LinkMessage::decode(bytes).unwrap();
    assert!(message.capabilities.common.has(CommonCapability::MINI_HEADER));
    assert!(!message.capabilities.common.has(CommonCapability::AUTH_SPICE));
    assert_eq!(message.capabilities.channel.bits().collect::<Vec<_>>(), [0, 1, 2, 3]);
    let mut out = [0; 64];
    let length = message.encode(&mut out).unwrap();
    assert_eq!(out[..length], bytes[..]);
    let mut framed = vec![0xaa; LINK_HEADER_LEN + length];
    let needed = framed.len();
    assert_eq!(message.encode_with_header(&mut framed), Ok(needed));
    let announced = u32::try_from(length).unwrap();
    assert_eq!(framed, [LinkHeader::new(announced).encode().as_slice(), bytes].concat());
    for room in [0, 15, needed - 1] {
        assert_eq!(message.encode_with_header(&mut framed[..room]), Err(EncodeError::BufferTooSmall { needed }));
    }

    let field_and_fault = |at: usize, value: u32| {
        let mut bytes = *bytes;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let error = LinkMessage::decode(&bytes).unwrap_err();
        (error.field, error.offset, error.fault)
    };
    assert_eq!(field_and_fault(6, 1025), ("num_common_caps", 6, Fault::LimitExceeded));
    assert_eq!(field_and_fault(10, 1025), ("num_channel_caps", 10, Fault::LimitExceeded));
    assert_eq!(field_and_fault(6, 3), ("num_common_caps", 6, Fault::OutOfBounds));
    assert_eq!(field_and_fault(10, 2), ("num_channel_caps", 10, Fault::OutOfBounds));
    assert_eq!(field_and_fault(14, 17), ("caps_offset", 14, Fault::OffsetInFixedPart));
    assert_eq!(field_and_fault(14, u32::MAX), ("caps_offset", 14, Fault::OutOfBounds));

    let too_many = [[0; 4]; 1020];
    let message = LinkMessage {
        capabilities: Capabilities { common: CapabilityWords::new(&too_many), ..Capabilities::default() },
        ..message
    };
    assert_eq!(message.encode(&mut [0; 8192]), Err(EncodeError::TooLong));
    assert_eq!(message.encode_with_header(&mut [0; 8192]), Err(EncodeError::TooLong));

    let refusal =
        LinkReply { error: LinkError::INVALID_MAGIC, public_key: [0; 162], capabilities: Capabilities::default() };
    let mut out = [0xaa; 178];
    assert_eq!(refusal.encode(&mut out), Ok(178));
    assert_eq!((out[..4].as_ref(), &out[4..]), (&[2, 0, 0, 0][..], &[0; 174][..]), "as spice-server sends it");
}

#[test]
fn a_link_message_may_have_words_of_one_kind_or_none_anywhere_behind_its_fixed_part() {
    let none = CapabilityWords::default();
    let capabilities = |body: &[u8]| {
        let capabilities = LinkMessage::decode(body).map(|message| message.capabilities);
        capabilities.map(|it| (it.common.words().collect::<Vec<_>>(), it.channel.words().collect::<Vec<_>>()))
    };
    let body = |common: u32, channel: u32, offset: u32, words: &[u8]| {
        let numbers = [common, channel, offset].map(u32::to_le_bytes);
        [&[0, 0, 0, 0, 1, 0], numbers.as_flattened(), words].concat()
    };
    assert_eq!(capabilities(&body(0, 0, 0, b"")), Ok((vec![], vec![])));
    assert_eq!(capabilities(&body(1, 0, 18, b"\x07\0\0\0")), Ok((vec![7], vec![])));
    assert_eq!(capabilities(&body(0, 1, 19, b"-\x07\0\0\0")), Ok((vec![], vec![7])));
    let fault = |common, channel| {
        let error = capabilities(&body(common, channel, 18, b"\x07\0\0\0")).unwrap_err();
        (error.field, error.offset, error.fault)
    };
    assert_eq!(fault(1024, 0), ("num_common_caps", 6, Fault::OutOfBounds));
    assert_eq!(fault(1025, 0), ("num_common_caps", 6, Fault::LimitExceeded));
    assert_eq!(fault(0, 1024), ("num_channel_caps", 10, Fault::OutOfBounds));
    assert_eq!(fault(0, 1025), ("num_channel_caps", 10, Fault::LimitExceeded));
    assert_eq!(LinkMessage::decode(&[0; 7]).unwrap_err().field, "num_common_caps");
    assert_eq!(LinkMessage::decode(&[0; 17]).unwrap_err().field, "caps_offset");

    let words = [[7, 0, 0, 0]; 1020];
    let most = body(1019, 0, 18, words[..1019].as_flattened());
    let message = LinkMessage::decode(&most).unwrap();
    assert_eq!(message.capabilities, Capabilities { common: CapabilityWords::new(&words[..1019]), channel: none });
    let mut out = vec![0; message.encoded_len()];
    assert_eq!((message.encode(&mut out), out), (Ok(4094), most));
    let error = LinkMessage::decode(&body(1020, 0, 18, words.as_flattened())).unwrap_err();
    assert_eq!((error.field, error.offset, error.fault), ("end", 4096, Fault::LimitExceeded));
    assert_eq!(format!("{:?}", CapabilityWords::new(&words[..2])), "[0x7, 0x7]");
}

#[test]
fn a_list_that_its_count_cannot_say_is_not_encoded() {
    let wait = ChannelWait { channel_type: ChannelType::CURSOR, channel_id: 0, message_serial: 1 }.to_wire();
    let waits = [wait; 256];
    let message = |count: usize| {
        ServerMessage::WaitForChannels(server::WaitForChannels { wait_list: List::new(&waits[..count]) })
    };
    let mut out = vec![0; 4096];
    assert_eq!(message(255).encode(&mut out), Ok(1 + 255 * 10));
    assert_eq!(message(256).encode(&mut out), Err(EncodeError::TooLong));
    assert_eq!(frame::encode(HeaderKind::Mini, 1, &message(256), &mut out), Err(EncodeError::TooLong));
}

#[test]
fn the_limits_are_as_documented() {
    assert_eq!(limits::MAX_BODY, 268_435_456);
    assert_eq!((limits::MAX_LINK_BODY, limits::MAX_TEXT), (4096, 4096));
}

#[test]
fn capability_numbers_and_names_are_those_of_spice_protocol() {
    assert_eq!(MainCapability::SEAMLESS_MIGRATE.bit(), 3);
    assert_eq!(MainCapability::SEMI_SEAMLESS_MIGRATE.to_string(), "semi-seamless-migrate");
    assert_eq!(spice_migration::caps::word(MainCapability::KNOWN), 0x0f);
    assert_eq!(spice_migration::caps::word(&[MainCapability::SEAMLESS_MIGRATE; 2]), 8);
    assert_eq!(spice_migration::caps::word(CommonCapability::KNOWN), 0x0f);
    let words = [[0; 4], 0x8000_0002u32.to_le_bytes()];
    assert_eq!(CapabilityWords::new(&words).bits().collect::<Vec<_>>(), [33, 63]);
}

#[test]
fn what_is_unknown_is_kept() {
    let message = ServerMessage::decode(ChannelType::MAIN, 999, b"xyz").unwrap();
    assert_eq!((message.id(), encoded(&message).as_slice()), (999, &b"xyz"[..]));
    let message = ServerMessage::decode(ChannelType::DISPLAY, 101, b"display's own").unwrap();
    assert!(matches!(message, ServerMessage::Unknown { id: 101, .. }));
    let message = ServerMessage::decode(ChannelType::MAIN, 1, &[4, 0, 0, 0x80]).unwrap();
    assert_eq!(encoded(&message), [4, 0, 0, 0x80]);
    assert_eq!(format!("{:?}", MigrateFlags(5)), "NEED_FLUSH|0x4");
}

#[test]
fn a_buffer_too_small_is_refused_with_the_size_needed() {
    let message = ServerMessage::MigrateBegin(server::MigrateBegin { destination: destination() });
    assert_eq!(message.encode(&mut [0; 29]), Err(EncodeError::BufferTooSmall { needed: 30 }));
    assert_eq!(
        frame::encode(HeaderKind::Full, 1, &message, &mut [0; 47]),
        Err(EncodeError::BufferTooSmall { needed: 48 })
    );
}

#[test]
fn a_body_beyond_the_limit_is_not_encoded() {
    // Never written to, so the memory is not really taken.
    let most = usize::try_from(limits::MAX_BODY).unwrap();
    let large = vec![0; most + 1];
    let message = |length| ServerMessage::AgentData(server::AgentData { data: Data(&large[..length]) });
    assert_eq!(message(most).encode(&mut []), Err(EncodeError::BufferTooSmall { needed: most }));
    assert_eq!(message(most + 1).encode(&mut []), Err(EncodeError::TooLong));
    let framed = frame::encode(HeaderKind::Mini, 1, &message(most), &mut []);
    assert_eq!(framed, Err(EncodeError::BufferTooSmall { needed: most + 6 }));
    assert_eq!(frame::encode(HeaderKind::Mini, 1, &message(most + 1), &mut []), Err(EncodeError::TooLong));
}

#[test]
fn the_tables_are_in_order_and_complete() {
    for (table, last) in [(ServerMessage::TABLE, 118), (ClientMessage::TABLE, 112)] {
        assert!(table.is_sorted_by_key(|row| row.id));
        assert_eq!(table.last().unwrap().id, last);
    }
    assert_eq!((ServerMessage::TABLE.len(), ClientMessage::TABLE.len()), (8 + 18, 6 + 12));
}

#[test]
fn a_header_that_announces_too_much_ends_the_stream() {
    let mut deframer = Deframer::new(HeaderKind::Mini).with_limit(10);
    deframer.push(&[1, 0, 10, 0, 0, 0]);
    assert_eq!(deframer.next_frame(), Ok(None), "the limit itself is allowed");
    assert_eq!(deframer.pending(), 6);
    deframer.push(&[0; 10]);
    assert!(deframer.next_frame().unwrap().is_some());
    deframer.push(&[1, 0, 11, 0, 0, 0]);
    assert_eq!(deframer.next_frame().unwrap_err().size, 11);
    assert_eq!(deframer.next_frame().unwrap_err().limit, 10, "it stays refused");
}

#[test]
fn texts_data_and_lists_give_and_show_what_they_hold() {
    let text = Text::new(b"caf\xc3\xa9 \"x\"").unwrap();
    assert_eq!((text.to_str(), text.as_ref()), (Ok("café \"x\""), text.as_bytes()));
    assert_eq!(format!("{text:?}"), r#""caf\xc3\xa9 \"x\"""#);
    assert!(Text::new(b"caf\xe9").unwrap().to_str().is_err(), "Latin-1");

    assert_eq!(Data(b"ab").as_ref(), b"ab");
    let shown = |bytes: &[u8]| format!("{:?}", Data(bytes));
    assert_eq!((shown(b""), shown(b"\x07\xff")), ("0 bytes".into(), "2 bytes: 07ff".into()));
    assert_eq!(shown(&[7; 24]), format!("24 bytes: {}", "07".repeat(24)));
    assert_eq!(shown(&[7; 25]), format!("25 bytes: {}…", "07".repeat(24)));

    let items = [ChannelId { channel_type: ChannelType::MAIN, id: 7 }; 2].map(ListItem::to_wire);
    let list = List::<ChannelId>::new(&items);
    assert_eq!((list.len(), list.is_empty()), (2, false));
    assert_eq!(format!("{list:?}"), format!("{:?}", list.iter().collect::<Vec<_>>()));
    let empty = List::<ChannelId>::new(&[]);
    assert_eq!((empty.len(), empty.is_empty()), (0, true));
}

#[test]
fn arbitrary_messages_differ_in_what_no_slot_shows() {
    let choices: Vec<_> = (0..=u8::MAX).map(|choice| [choice; 300]).collect();
    let terminated =
        choices.iter().map(|choices| match ServerMessage::arbitrary_of(7, &mut Unstructured::new(choices)).unwrap() {
            ServerMessage::Notify(notify) => notify.terminated,
            other => panic!("{other:?}"),
        });
    assert_eq!(terminated.collect::<BTreeSet<_>>().len(), 2);
    let words = choices.iter().map(|choices| {
        let message = LinkMessage::arbitrary(&mut Unstructured::new(choices)).unwrap();
        (message.capabilities.common.as_wire(), message.capabilities.channel.as_wire())
    });
    let (common, channel): (BTreeSet<_>, BTreeSet<_>) = words.unzip();
    assert!(common.len() > 2 && channel.len() > 2);
}

fn header_kind() -> impl Strategy<Value = HeaderKind> {
    prop_oneof![Just(HeaderKind::Full), Just(HeaderKind::Mini)]
}

proptest! {
    #[test]
    fn every_cut_of_a_stream_gives_the_same_messages(
        kind in header_kind(),
        bodies in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)), 0..12),
        cuts in prop::collection::vec(1usize..30, 1..40),
    ) {
        let mut stream = Vec::new();
        for (index, (id, body)) in bodies.iter().enumerate() {
            let mut header = [0; 18];
            let size = u32::try_from(body.len()).unwrap();
            let length = Header { serial: index as u64 + 1, id: *id, size, sub_list: 0 }.encode(kind, &mut header).unwrap();
            stream.extend_from_slice(&header[..length]);
            stream.extend_from_slice(body);
        }
        let mut deframer = Deframer::new(kind);
        let mut received = Vec::new();
        let mut rest = stream.as_slice();
        for cut in cuts.iter().cycle() {
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            rest = behind;
            deframer.push(piece);
            while let Some(frame) = deframer.next_frame().unwrap() {
                prop_assert_eq!(frame.header.serial, received.len() as u64 + 1);
                received.push((frame.header.id, frame.body.to_vec()));
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(received, bodies);
        prop_assert_eq!(deframer.pending(), 0);
    }

    #[test]
    fn no_body_panics_and_what_decodes_encodes_to_what_decodes_the_same(
        channel in prop_oneof![Just(ChannelType::MAIN), Just(ChannelType::CURSOR)],
        id in prop_oneof![0u16..9, 100u16..120],
        body in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(20), any::<u8>()], 0..60),
    ) {
        if let Ok(message) = ServerMessage::decode(channel, id, &body) {
            let again = encoded(&message);
            prop_assert_eq!(ServerMessage::decode(channel, id, &again), Ok(message));
        }
        if let Ok(message) = ClientMessage::decode(channel, id, &body) {
            prop_assert_eq!(encoded(&message), body, "no client message leaves its encoding any freedom");
        }
    }

    #[test]
    fn no_link_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..220)) {
        if let Some(header) = bytes.first_chunk::<LINK_HEADER_LEN>() {
            let _ = LinkHeader::decode(header);
        }
        let _ = LinkMessage::decode(&bytes);
        let _ = LinkReply::decode(&bytes);
    }

    #[test]
    fn every_destination_survives_a_round_trip(
        port: u16, tls_port: u16,
        host in "[a-z0-9.:-]{1,60}",
        cert_subject in prop::option::of("[A-Za-z=, ]{1,60}"),
        src_mig_version: u32,
    ) {
        let message = ServerMessage::MigrateBeginSeamless(server::MigrateBeginSeamless {
            destination: Destination {
                port,
                tls_port,
                host: Text::new(host.as_bytes()).unwrap(),
                cert_subject: cert_subject.as_deref().map(|subject| Text::new(subject.as_bytes()).unwrap()),
            },
            src_mig_version,
        });
        let body = encoded(&message);
        prop_assert_eq!(ServerMessage::decode(ChannelType::MAIN, 116, &body), Ok(message));
        for cut in 0..body.len() {
            prop_assert!(ServerMessage::decode(ChannelType::MAIN, 116, &body[..cut]).is_err());
        }
    }
}
