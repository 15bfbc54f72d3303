//! Lists of sub-messages: their order, and what is refused.

use proptest::prelude::*;
use spice_migration::{
    ChannelType, EncodeError, Fault, ServerMessage,
    frame::{Frame, Header},
    limits,
    sub_message::{SubMessage, SubMessages, encode_behind, encode_list},
};

/// A body of 3 bytes, then sub-messages of ids 1 (at 3) and 2 (at 13), and a list that names the later one first.
fn carrier() -> Vec<u8> {
    let mut body = b"abc".to_vec();
    body.extend(b"\x01\0\x04\0\0\0wxyz");
    body.extend(b"\x02\0\0\0\0\0");
    body.extend(b"\x02\0\x0d\0\0\0\x03\0\0\0");
    body
}
const LIST: u32 = 19;

fn fault(change: impl FnOnce(&mut Vec<u8>), list: u32) -> Option<Fault> {
    let mut body = carrier();
    change(&mut body);
    SubMessages::decode(&body, list).err().map(|error| error.fault)
}

#[test]
fn they_come_in_the_order_of_the_list_and_before_them_stands_the_carrier() {
    let body = carrier();
    let header = Header { serial: 1, id: 103, size: 0, sub_list: LIST };
    let list = Frame { header, body: &body }.sub_messages().unwrap().unwrap();
    assert_eq!(list.iter().collect::<Vec<_>>(), [SubMessage { id: 2, body: b"" }, SubMessage { id: 1, body: b"wxyz" }]);
    assert_eq!((list.carrier_body(), list.len()), (&b"abc"[..], 2));
    let header = Header { sub_list: 0, ..header };
    assert_eq!(Frame { header, body: &body }.sub_messages(), Ok(None));
    let alone = b"\x01\0\x06\0\0\0\x02\0\x01\0\0\0x";
    let list = Frame { header: Header { id: 8, ..header }, body: alone }.sub_messages().unwrap().unwrap();
    assert_eq!(list.iter().collect::<Vec<_>>(), [SubMessage { id: 2, body: b"x" }], "the body of SPICE_MSG_LIST");
    assert_eq!((list.carrier_body(), list.is_empty()), (&b""[..], false));

    let header = Header { sub_list: LIST, ..header };
    assert_eq!(Frame { header, body: &body }.message_body(), Ok(&b"abc"[..]));
    assert_eq!(Frame { header: Header { sub_list: 0, ..header }, body: alone }.message_body(), Ok(&alone[..]));
    assert!(Frame { header: Header { sub_list: 99, ..header }, body: &body }.message_body().is_err());
}

#[test]
fn what_overlaps_or_reaches_beyond_is_refused() {
    assert_eq!(fault(|_| {}, LIST), None);
    assert_eq!(fault(|_| {}, 30), Some(Fault::OutOfBounds));
    assert_eq!(fault(|_| {}, 28), Some(Fault::Truncated));
    assert_eq!(fault(|body| body[19] = 3, LIST), Some(Fault::OutOfBounds));
    assert_eq!(fault(|body| body[20] = 1, LIST), Some(Fault::LimitExceeded));
    assert_eq!(fault(|body| body[21] = 24, LIST), Some(Fault::OutOfBounds), "a header cut by the end");
    assert_eq!(fault(|body| body[21] = 3, LIST), Some(Fault::Overlap), "one named twice");
    assert_eq!(fault(|body| body[21] = 8, LIST), Some(Fault::Overlap), "one that begins in another's header");
    assert_eq!(fault(|body| body[21] = 9, LIST), None, "one that begins in another's body");
    assert_eq!(fault(|body| body[21] = 14, LIST), Some(Fault::Overlap), "a header that reaches into the list");
    assert_eq!(fault(|body| body[21] = 22, LIST), Some(Fault::Overlap), "one that begins in the list");
    let mut body = carrier();
    body[21] = 24;
    let error = SubMessages::decode(&body, LIST).unwrap_err();
    assert_eq!((error.field, error.offset), ("sub_messages", 21), "the offset at fault");
}

#[test]
fn a_sub_message_ends_where_the_next_thing_begins_whatever_its_size_says() {
    let bodies = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = carrier();
        change(&mut body);
        let list = SubMessages::decode(&body, LIST).unwrap();
        list.iter().map(|sub_message| sub_message.body.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(bodies(&|_| {}), [b"".to_vec(), b"wxyz".to_vec()]);
    assert_eq!(bodies(&|body| body[5] = 3), [b"".to_vec(), b"wxy".to_vec()], "less than there is room for");
    assert_eq!(bodies(&|body| body[5] = 5), [b"".to_vec(), b"wxyz".to_vec()], "up to the next");
    assert_eq!(bodies(&|body| body[15] = 1), [b"".to_vec(), b"wxyz".to_vec()], "up to the list");
    assert_eq!(bodies(&|body| body[15..19].fill(0xff)), [b"".to_vec(), b"wxyz".to_vec()]);
}

#[test]
fn what_spice_server_sends_is_read_though_it_announces_the_sizes_of_its_structs() {
    // As `send_free_list` and `send_free_list_legacy` write it: one resource (2 + 9 bytes, announced as 24) and one wait (1 + 10 bytes,
    // announced as 24), of which the second is processed first.
    let resources = b"\x66\0\x18\0\0\0\x01\0\x01\x08\x07\x06\x05\x04\x03\x02\x01";
    let wait = b"\x05\0\x18\0\0\0\x01\x04\0\x09\0\0\0\0\0\0\0";
    let list = |first: u32, second: u32| [&[2, 0][..], &first.to_le_bytes(), &second.to_le_bytes()].concat();

    let mini = [list(27, 10).as_slice(), resources, wait].concat();
    let legacy = [resources.as_slice(), wait, &list(17, 0)].concat();
    for (body, at) in [(&mini, 0), (&legacy, 34)] {
        let list = SubMessages::decode(body, at).unwrap();
        let found: Vec<_> = list.iter().collect();
        assert_eq!(found, [SubMessage { id: 5, body: &wait[6..] }, SubMessage { id: 102, body: &resources[6..] }]);
        let message = ServerMessage::decode(ChannelType::DISPLAY, found[0].id, found[0].body).unwrap();
        let ServerMessage::WaitForChannels(waits) = message else { panic!("{message:?}") };
        assert_eq!(waits.wait_list.iter().next().unwrap().message_serial, 9);
    }
}

#[test]
fn a_list_that_is_too_long_or_finds_no_room_is_not_encoded() {
    let message = SubMessage { id: 1, body: b"x" };
    let many = [message; limits::MAX_SUB_MESSAGES + 1];
    let mut out = [0; 1024];
    assert_eq!(encode_list(&many, &mut out), Err(EncodeError::TooLong));
    assert_eq!(encode_behind(b"", &many, &mut out), Err(EncodeError::TooLong));
    assert_eq!(encode_list(&many[1..], &mut out), Ok(64 * 7 + 2 + 64 * 4));
    assert_eq!(encode_list(&many[..1], &mut [0; 12]), Err(EncodeError::BufferTooSmall { needed: 13 }));
    assert_eq!(encode_behind(b"ab", &many[..1], &mut [0; 14]), Err(EncodeError::BufferTooSmall { needed: 15 }));
    assert!(SubMessages::decode(&out, 0).is_ok());

    // Never written to, so the memory is not really taken.
    let most = usize::try_from(limits::MAX_BODY).unwrap();
    let large = vec![0; most];
    let of_length = |length: usize| SubMessage { id: 1, body: &large[..length - 12] };
    assert_eq!(encode_list(&[of_length(most)], &mut []), Err(EncodeError::BufferTooSmall { needed: most }));
    assert_eq!(encode_list(&[of_length(most + 1)], &mut []), Err(EncodeError::TooLong));
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same_and_no_truncation_does(
        carrier in prop::collection::vec(any::<u8>(), 0..20),
        messages in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..9)), 0..8),
    ) {
        let messages: Vec<_> = messages.iter().map(|(id, body)| SubMessage { id: *id, body }).collect();
        let mut out = [0xaa; 256];
        let (length, list) = encode_behind(&carrier, &messages, &mut out).unwrap();
        let decoded = SubMessages::decode(&out[..length], list).unwrap();
        prop_assert_eq!(decoded.iter().collect::<Vec<_>>(), messages.clone());
        prop_assert_eq!(decoded.carrier_body(), &carrier);
        prop_assert_eq!(decoded.len(), messages.len());
        prop_assert_eq!(decoded.is_empty(), messages.is_empty());
        for cut in 0..length {
            let fault = SubMessages::decode(&out[..cut], list).unwrap_err().fault;
            prop_assert!(matches!(fault, Fault::Truncated | Fault::OutOfBounds));
        }

        let length = encode_list(&messages, &mut out).unwrap();
        let decoded = SubMessages::decode(&out[..length], 0).unwrap();
        prop_assert_eq!(decoded.iter().collect::<Vec<_>>(), messages.clone());
        // The last one's body may be cut: its size alone is no proof.
        let last = messages.last().map_or(0, |last| last.body.len());
        for cut in 0..length - last {
            prop_assert!(SubMessages::decode(&out[..cut], 0).is_err());
        }
    }

    #[test]
    fn no_bytes_panic_and_what_is_accepted_lies_apart(
        body in prop::collection::vec(prop_oneof![3 => Just(0u8), 2 => 0u8..40, 1 => any::<u8>()], 0..80),
        offset in 0u32..90,
    ) {
        if let Ok(list) = SubMessages::decode(&body, offset) {
            let bytes: usize = list.iter().map(|sub_message| 6 + sub_message.body.len()).sum();
            prop_assert!(list.carrier_body().len() + bytes + 2 + 4 * list.len() <= body.len());
        }
    }
}
