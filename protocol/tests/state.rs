//! Migration data against bytes written down by hand, and what a target must not believe.

use proptest::prelude::*;
use spice_migration::{
    ChannelType, Data, Fault, List, ListItem,
    state::{CharDevice, Display, LossySurface, PendingWrite, Rectangle, Smartcard, State, Surfaces},
};

/// Of a smartcard channel: three bytes wait for the guest and two were read of a message.
const SMARTCARD: &[u8] = b"SCMD\x01\0\0\0\
    \x01\0\0\0\x01\x0a\0\0\0\x0b\0\0\0\x03\0\0\0\x01\0\0\0\x2a\0\0\0\
    \x01\x02\0\0\0\x2d\0\0\0\
    abcde";

fn encoded(state: &State<'_>) -> Vec<u8> {
    let mut out = vec![0xaa; state.encoded_len()];
    assert_eq!(state.encode(&mut out), Ok(out.len()));
    out
}

#[test]
fn a_smartcard_channel_has_two_pointers_that_count_from_the_magic() {
    let state = State::decode(ChannelType::SMARTCARD, SMARTCARD).unwrap();
    let expected = State::Smartcard(Smartcard {
        version: 1,
        device: CharDevice {
            version: 1,
            connected: 1,
            num_client_tokens: 10,
            num_send_tokens: 11,
            pending: PendingWrite { num_client_tokens: 1, data: Data(b"abc") },
        },
        reader_added: 1,
        read: Data(b"de"),
    });
    assert_eq!(state, expected);
    assert_eq!(state.check(), Ok(()));
    assert_eq!(encoded(&state), SMARTCARD);
}

#[test]
fn each_fault_is_named() {
    let fault = |at: usize, value: u8| {
        let mut bytes = SMARTCARD.to_vec();
        bytes[at] = value;
        let checked = State::decode(ChannelType::SMARTCARD, &bytes).and_then(|state| state.check());
        checked.map_err(|error| (error.field, error.fault))
    };
    assert_eq!(fault(9, 0), Ok(()));
    assert_eq!(fault(0, b'X'), Err(("magic", Fault::WrongMagic)));
    assert_eq!(fault(4, 2), Err(("version", Fault::UnsupportedVersion)));
    assert_eq!(fault(8, 2), Err(("device version", Fault::UnsupportedVersion)));
    assert_eq!(fault(12, 2), Err(("connected", Fault::LimitExceeded)));
    assert_eq!(fault(21, 6), Err(("pending", Fault::OutOfBounds)));
    assert_eq!(fault(24, 0x80), Err(("pending", Fault::OutOfBounds)));
    assert_eq!(fault(29, 0x29), Err(("pending", Fault::OffsetInFixedPart)));
    assert_eq!(fault(33, 2), Err(("reader_added", Fault::LimitExceeded)));
    assert_eq!(fault(38, 0x2e), Err(("read", Fault::OutOfBounds)));
    for cut in 0..SMARTCARD.len() {
        assert!(State::decode(ChannelType::SMARTCARD, &SMARTCARD[..cut]).is_err());
    }
}

#[test]
fn a_lossy_surface_list_is_read_where_the_caller_says_so() {
    let surface = LossySurface { id: 7, lossy_rectangle: Rectangle { left: -1, top: 2, right: 3, bottom: 4 } };
    let wire = [surface.to_wire()];
    assert_eq!(wire[0][..8], [7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let display = State::Display(Display {
        version: 1,
        message_serial: 9,
        low_bandwidth: 1,
        pixmap_cache_id: 1,
        pixmap_cache_size: -5,
        pixmap_cache_freezer: 0,
        pixmap_cache_clients: [1, 2, 3, 4],
        glz_dict_id: 1,
        glz_dict_size: 2,
        glz_max_encoders: 3,
        glz_last_image_id: 4,
        surfaces: Surfaces { count: 1, entries: Data(wire.as_flattened()) },
    });
    let bytes = encoded(&display);
    assert_eq!((bytes.len(), &bytes[76..84]), (104, &[80, 0, 0, 0, 1, 0, 0, 0][..]));
    let State::Display(decoded) = State::decode(ChannelType::DISPLAY, &bytes).unwrap() else { panic!() };
    assert_eq!(State::Display(decoded), display);
    assert_eq!(decoded.surfaces.lossy(), Some(List::new(&wire)));
    assert_eq!(decoded.surfaces.lossy().unwrap().iter().next(), Some(surface));

    let mut many = bytes.clone();
    many[80..84].copy_from_slice(&6u32.to_le_bytes());
    assert_eq!(State::decode(ChannelType::DISPLAY, &many).unwrap_err().fault, Fault::OutOfBounds);
    many[80..84].copy_from_slice(&2u32.to_le_bytes());
    let State::Display(short) = State::decode(ChannelType::DISPLAY, &many).unwrap() else { panic!() };
    assert!(short.surfaces.lossless().is_some() && short.surfaces.lossy().is_none());
}

#[test]
fn a_channel_without_known_state_keeps_its_bytes() {
    let state = State::decode(ChannelType::PLAYBACK, b"anything").unwrap();
    assert_eq!((state, encoded(&state).as_slice()), (State::Unknown(Data(b"anything")), &b"anything"[..]));
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_decodes_encodes_to_what_decodes_the_same(
        channel in (1u8..12).prop_map(ChannelType),
        magic in prop_oneof![Just(b"MNMD"), Just(b"DCMD"), Just(b"ICMD"), Just(b"SVMD"), Just(b"SCMD")],
        body in prop::collection::vec(prop_oneof![4 => Just(0u8), 1 => 0u8..120, 1 => any::<u8>()], 0..140),
    ) {
        let bytes = [magic.as_slice(), &body].concat();
        if let Ok(state) = State::decode(channel, &bytes) {
            let _ = state.check();
            let again = encoded(&state);
            prop_assert_eq!(State::decode(channel, &again), Ok(state));
        }
    }
}
