//! Lists of sub-messages: their order, and what is refused.

use proptest::prelude::*;
use spice_migration::{
    Fault,
    frame::{Frame, Header},
    sub_message::{SubMessage, SubMessages},
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
    assert_eq!(fault(|body| body[25] = 9, LIST), Some(Fault::OutOfBounds), "bytes of another taken for a size");
    assert_eq!(fault(|body| body[5] = 5, LIST), Some(Fault::Overlap), "one that reaches into the next");
    assert_eq!(fault(|body| body[15] = 1, LIST), Some(Fault::Overlap), "one that reaches into the list");
    assert_eq!(fault(|body| body[15] = 11, LIST), Some(Fault::OutOfBounds), "one that reaches beyond the end");
}

proptest! {
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
