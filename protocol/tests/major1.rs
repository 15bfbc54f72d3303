//! Major 1 against bytes written down by hand from the published layout: no peer of today can prove it.

use arbitrary::{Arbitrary, Unstructured};
use proptest::prelude::*;
use spice_migration::{
    ChannelType, Data, DecodeError, EncodeError, Fault, Text,
    frame::{self, Frame, Header, HeaderKind},
    link::LinkHeader,
    major1::{
        ClientMessage, MigrateBegin, MigrateBeginWithKey, MigrateSwitchHost, MouseMode, MouseModeRequest,
        ServerMessage, VERSION_MAJOR,
    },
    message::{self, Message},
};

fn host() -> Text<'static> {
    Text::new(b"old").unwrap()
}

fn encoded(message: &impl Message) -> Vec<u8> {
    let mut out = vec![0xaa; message.encoded_len()];
    assert_eq!(message.encode(&mut out), Ok(out.len()));
    out
}

#[track_caller]
fn both_ways(minor: u32, bytes: &[u8], message: ServerMessage<'_>) {
    assert_eq!(ServerMessage::decode(ChannelType::MAIN, minor, message.id(), bytes), Ok(message));
    assert_eq!(encoded(&message), bytes);
}

#[test]
fn offsets_stand_before_sizes() {
    both_ways(
        0,
        b"\x0c\x17\x0d\x17\x0c\0\0\0\x04\0\0\0old\0",
        ServerMessage::MigrateBegin(MigrateBegin { port: 5900, tls_port: 5901, host: host() }),
    );
    both_ways(
        1,
        b"\x0c\x17\x0d\x17\x16\0\0\0\x04\0\0\0\x07\0\x1a\0\0\0\x02\0\0\0old\0ke",
        ServerMessage::MigrateBeginWithKey(MigrateBeginWithKey {
            port: 5900,
            tls_port: 5901,
            host: host(),
            public_key_type: 7,
            public_key: Data(b"ke"),
        }),
    );
    both_ways(
        1,
        b"\x0c\x17\x0d\x17\x14\0\0\0\x04\0\0\0\x18\0\0\0\x05\0\0\0old\0CN=x\0",
        ServerMessage::MigrateSwitchHost(MigrateSwitchHost {
            port: 5900,
            tls_port: 5901,
            host: host(),
            cert_subject: Some(Text::new(b"CN=x").unwrap()),
        }),
    );
}

#[test]
fn mouse_modes_have_32_bits() {
    both_ways(
        0,
        &[3, 0, 0, 0, 2, 0, 0, 0],
        ServerMessage::MouseMode(MouseMode { supported_modes: 3, current_mode: 2 }),
    );
    let request = ClientMessage::MouseModeRequest(MouseModeRequest { mode: 2 });
    assert_eq!(ClientMessage::decode(ChannelType::MAIN, 105, &[2, 0, 0, 0]), Ok(request));
    assert_eq!((request.id(), encoded(&request)), (105, vec![2, 0, 0, 0]));
}

#[test]
fn what_major_2_added_is_unknown_and_the_rest_is_the_same() {
    let server = |channel, id, body| ServerMessage::decode(channel, 1, id, body).unwrap();
    for id in [8, 112, 116, 118] {
        let ServerMessage::Same(message) = server(ChannelType::MAIN, id, b"") else { panic!() };
        assert_eq!(message, message::ServerMessage::Unknown { id, body: Data(b"") });
    }
    let same = server(ChannelType::MAIN, 110, &[7, 0, 0, 0]);
    let tokens = message::server::AgentToken { num_tokens: 7 };
    assert_eq!(same, ServerMessage::Same(message::ServerMessage::AgentToken(tokens)));
    assert_eq!((same.id(), encoded(&same)), (110, vec![7, 0, 0, 0]));
    for id in [101, 105, 111] {
        assert!(matches!(server(ChannelType::DISPLAY, id, b"display's own"), ServerMessage::Same(_)));
    }

    let client = |channel, id, body| ClientMessage::decode(channel, id, body).unwrap();
    for id in [109, 110, 111] {
        let ClientMessage::Same(message) = client(ChannelType::MAIN, id, b"") else { panic!() };
        assert_eq!(message, message::ClientMessage::Unknown { id, body: Data(b"") });
    }
    let same = client(ChannelType::MAIN, 108, &[7, 0, 0, 0]);
    let tokens = message::client::AgentToken { num_tokens: 7 };
    assert_eq!(same, ClientMessage::Same(message::ClientMessage::AgentToken(tokens)));
    assert_eq!((same.id(), encoded(&same)), (108, vec![7, 0, 0, 0]));
    assert!(matches!(client(ChannelType::INPUTS, 105, b"inputs' own"), ClientMessage::Same(_)));
}

#[test]
fn faults_are_those_of_major_2() {
    let error = ServerMessage::decode(ChannelType::MAIN, 0, 101, b"\0\0\0\0\x0b\0\0\0\x01\0\0\0\0").unwrap_err();
    let message = "SPICE_MSG_MAIN_MIGRATE_BEGIN";
    assert_eq!(error, DecodeError { message, field: "host", offset: 4, fault: Fault::OffsetInFixedPart });
    assert_eq!(LinkHeader { major_version: VERSION_MAJOR, ..LinkHeader::new(18) }.encode()[4..8], [1, 0, 0, 0]);
}

#[test]
fn a_message_is_framed_like_any_other() {
    let message = ServerMessage::MouseMode(MouseMode { supported_modes: 3, current_mode: 2 });
    let body = [3, 0, 0, 0, 2, 0, 0, 0];
    for kind in [HeaderKind::Mini, HeaderKind::Full] {
        let needed = kind.len() + body.len();
        let mut out = vec![0xaa; needed];
        assert_eq!(frame::encode(kind, 9, &message, &mut out), Ok(needed));
        let header = Header { serial: 9, id: 105, size: 8, sub_list: 0 };
        assert_eq!(frame::cut(kind, &out, 9, 8), Ok(Some((Frame { header, body: &body }, needed))));
        for room in [0, kind.len(), needed - 1] {
            assert_eq!(frame::encode(kind, 9, &message, &mut out[..room]), Err(EncodeError::BufferTooSmall { needed }));
        }
        let mut roomy = vec![0xaa; needed + 1];
        assert_eq!(frame::encode(kind, 9, &message, &mut roomy), Ok(needed));
        assert_eq!(roomy.last(), Some(&0xaa));
    }
}

proptest! {
    #[test]
    fn decode_after_encode_is_the_identity(choices in prop::collection::vec(any::<u8>(), 0..200), shape in 0..5) {
        let mut choices = Unstructured::new(&choices);
        let (minor, message) = match shape {
            0 => (0, ServerMessage::MigrateBegin(Arbitrary::arbitrary(&mut choices).unwrap())),
            1 => (1, ServerMessage::MigrateBeginWithKey(Arbitrary::arbitrary(&mut choices).unwrap())),
            2 => (1, ServerMessage::MigrateSwitchHost(Arbitrary::arbitrary(&mut choices).unwrap())),
            _ => (0, ServerMessage::MouseMode(Arbitrary::arbitrary(&mut choices).unwrap())),
        };
        let body = encoded(&message);
        prop_assert_eq!(ServerMessage::decode(ChannelType::MAIN, minor, message.id(), &body), Ok(message));
        for cut in 0..body.len() {
            prop_assert!(ServerMessage::decode(ChannelType::MAIN, minor, message.id(), &body[..cut]).is_err());
        }
    }
}
