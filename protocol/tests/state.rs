//! Migration data against bytes written down by hand, and what a target must not believe.

use std::collections::BTreeSet;

use arbitrary::Unstructured;
use proptest::prelude::*;
use spice_migration::{
    ChannelType, Data, Fault, List, ListItem,
    state::{
        AgentToClient, CharDevice, Display, JpegWanCompression, LosslessSurface, LossySurface, Main, PendingWrite,
        Rectangle, Smartcard, SpiceVmc, State, Surfaces,
    },
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
            connected: true,
            num_client_tokens: 10,
            num_send_tokens: 11,
            pending: PendingWrite { num_client_tokens: 1, data: Data(b"abc") },
        },
        reader_added: true,
        read: Data(b"de"),
    });
    assert_eq!(state, expected);
    assert_eq!(State::for_target(ChannelType::SMARTCARD, JpegWanCompression::Never, SMARTCARD), Ok(expected));
    assert_eq!(encoded(&state), SMARTCARD);
}

#[test]
fn each_fault_is_named() {
    let fault = |at: usize, value: u8| {
        let mut bytes = SMARTCARD.to_vec();
        bytes[at] = value;
        State::decode(ChannelType::SMARTCARD, &bytes)
            .map(|_| ())
            .map_err(|error| (error.field, error.offset, error.fault))
    };
    assert_eq!(fault(9, 0), Ok(()));
    assert_eq!(fault(4, 0), Ok(()), "an older version");
    assert_eq!(fault(0, b'X'), Err(("magic", 0, Fault::WrongMagic)));
    assert_eq!(fault(4, 2), Err(("version", 4, Fault::UnsupportedVersion)));
    assert_eq!(fault(8, 2), Err(("version", 8, Fault::UnsupportedVersion)));
    assert_eq!(fault(12, 2), Err(("connected", 12, Fault::NotAFlag)));
    assert_eq!(fault(21, 6), Err(("pending", 21, Fault::OutOfBounds)));
    assert_eq!(fault(24, 0x80), Err(("pending", 21, Fault::OutOfBounds)));
    assert_eq!(fault(29, 0x29), Err(("pending", 21, Fault::OffsetInFixedPart)));
    assert_eq!(fault(33, 2), Err(("reader_added", 33, Fault::NotAFlag)));
    assert_eq!(fault(38, 0x2e), Err(("read", 34, Fault::OutOfBounds)));
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
        low_bandwidth: true,
        pixmap_cache_id: 1,
        pixmap_cache_size: -5,
        pixmap_cache_freezer: false,
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
    assert_eq!(decoded.surfaces.lossy(), Ok(List::new(&wire)));
    assert_eq!(decoded.surfaces.lossy().unwrap().iter().next(), Some(surface));

    let mut many = bytes.clone();
    many[80..84].copy_from_slice(&6u32.to_le_bytes());
    assert_eq!(State::decode(ChannelType::DISPLAY, &many).unwrap_err().fault, Fault::OutOfBounds);
    many[80..84].copy_from_slice(&2u32.to_le_bytes());
    let State::Display(short) = State::decode(ChannelType::DISPLAY, &many).unwrap() else { panic!() };
    assert_eq!(short.surfaces.lossless().unwrap_err().fault, Fault::LimitExceeded, "the rectangle taken for an id");
    let error = short.surfaces.lossy().unwrap_err();
    assert_eq!(error.to_string(), "SpiceMigrateDataDisplay: surfaces at byte 76: it lies beyond the bytes present");
}

#[test]
fn surfaces_that_no_display_can_have_are_refused() {
    let with = |ids: &[u32]| {
        let entries: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let surfaces = Surfaces { count: u32::try_from(ids.len()).unwrap(), entries: Data(&entries) };
        let bytes = encoded(&State::Display(Display { surfaces, ..Display::default() }));
        let checked = State::for_target(ChannelType::DISPLAY, JpegWanCompression::Never, &bytes);
        checked.map(|_| ()).map_err(|error| (error.offset, error.fault))
    };
    assert_eq!(with(&[0, 1023, 5]), Ok(()));
    assert_eq!(with(&[5, 1023, 5]), Err((76, Fault::Duplicate)));
    assert_eq!(with(&[1024]), Err((76, Fault::LimitExceeded)));
    assert_eq!(with(&(0..1024).collect::<Vec<_>>()), Ok(()));
    assert_eq!(with(&(0..1025).collect::<Vec<_>>()), Err((76, Fault::LimitExceeded)));
    let bytes = encoded(&State::Display(Display::default()));
    assert!(State::for_target(ChannelType::DISPLAY, JpegWanCompression::Always, &bytes).is_ok());
    let twice = [0; 40];
    let surfaces = Surfaces { count: 2, entries: Data(&twice) };
    let bytes = encoded(&State::Display(Display { surfaces, ..Display::default() }));
    let error = State::for_target(ChannelType::DISPLAY, JpegWanCompression::Always, &bytes).unwrap_err();
    assert_eq!(error.fault, Fault::Duplicate);
}

#[test]
fn an_agents_message_cannot_have_been_read_before_its_chunk_header() {
    let with = |chunk_header_size, message_header_done, message_header: &[u8]| {
        let agent_to_client = AgentToClient {
            chunk_header_size,
            message_header_done,
            message_header: Data(message_header),
            ..AgentToClient::default()
        };
        let bytes = encoded(&State::Main(Main { agent_to_client, ..Main::default() }));
        let checked = State::decode(ChannelType::MAIN, &bytes);
        checked.map(|_| ()).map_err(|error| (error.field, error.offset, error.fault))
    };
    assert_eq!(with(0, false, b""), Ok(()), "as a source without an agent sends it");
    assert_eq!(with(8, true, b""), Ok(()));
    assert_eq!(with(8, false, &[1; 19]), Ok(()));
    assert_eq!(with(9, false, b""), Err(("chunk_header_size", 34, Fault::LimitExceeded)));
    assert_eq!(with(8, false, &[1; 20]), Err(("message_header", 47, Fault::LimitExceeded)));
    assert_eq!(with(7, true, b""), Err(("message_header_done", 46, Fault::Unexpected)));
    assert_eq!(with(7, false, b"x"), Err(("message_header", 47, Fault::Unexpected)));
}

#[test]
fn a_channel_without_known_state_keeps_its_bytes() {
    let state = State::decode(ChannelType::PLAYBACK, b"anything").unwrap();
    assert_eq!((state, encoded(&state).as_slice()), (State::Unknown(Data(b"anything")), &b"anything"[..]));
    let error = State::for_target(ChannelType::PLAYBACK, JpegWanCompression::Never, b"anything").unwrap_err();
    assert_eq!(error.to_string(), "migration data: data at byte 0: it must not be there");
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
            let _ = State::for_target(channel, JpegWanCompression::Always, &bytes);
            let again = encoded(&state);
            prop_assert_eq!(State::decode(channel, &again), Ok(state));
        }
    }

    #[test]
    fn what_encodes_decodes_to_the_same_and_every_truncation_is_refused(
        channel in (1u8..12).prop_map(ChannelType),
        choices in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let state = State::arbitrary_of(channel, &mut Unstructured::new(&choices)).unwrap();
        let bytes = encoded(&state);
        prop_assert_eq!(State::decode(channel, &bytes), Ok(state));
        let State::Unknown(_) = state else {
            // A surface list may be longer than its count says.
            let needed = match state {
                State::Display(display) => 84 + 4 * usize::try_from(display.surfaces.count).unwrap(),
                _ => bytes.len(),
            };
            for cut in 0..needed {
                let error = State::decode(channel, &bytes[..cut]).unwrap_err();
                prop_assert!(matches!(error.fault, Fault::Truncated | Fault::OutOfBounds), "{error}");
            }
            return Ok(());
        };
    }
}

#[test]
fn what_would_end_or_corrupt_a_target_is_not_for_it() {
    let refused = |channel, state: State<'_>| {
        let bytes = encoded(&state);
        assert_eq!(State::decode(channel, &bytes), Ok(state), "its bytes are well-formed");
        let used = State::for_target(channel, JpegWanCompression::Never, &bytes);
        used.map(|_| ()).map_err(|error| (error.field, error.offset, error.fault))
    };
    let device = |connected| CharDevice { connected, ..CharDevice::default() };
    let port = |connected| State::SpiceVmc(SpiceVmc { version: 1, device: device(connected) });
    assert_eq!(refused(ChannelType::PORT, port(true)), Ok(()));
    assert_eq!(refused(ChannelType::PORT, port(false)), Err(("connected", 12, Fault::Unexpected)));

    let of_smartcard = |read: &[u8]| {
        refused(ChannelType::SMARTCARD, State::Smartcard(Smartcard { read: Data(read), ..Smartcard::default() }))
    };
    assert_eq!(of_smartcard(b""), Ok(()), "also without a card");
    assert_eq!(of_smartcard(&[0xff; 11]), Ok(()), "a header in part");
    assert_eq!(of_smartcard(b"\0\0\0\0\0\0\0\0\0\0\x01\x02body"), Ok(()));
    assert_eq!(of_smartcard(b"\0\0\0\0\0\0\0\0\0\0\0\x04bod"), Ok(()));
    assert_eq!(of_smartcard(b"\0\0\0\0\0\0\0\0\0\0\0\x04body"), Err(("read", 34, Fault::LimitExceeded)));
    assert_eq!(of_smartcard(&[0; 12]), Err(("read", 34, Fault::LimitExceeded)));
    assert_eq!(of_smartcard(&[0xff; 40]), Ok(()), "of a message of 4 GB");

    let with = |at: usize, value: u8| {
        let mut bytes = encoded(&State::Main(Main::default()));
        bytes[at] = value;
        State::decode(ChannelType::MAIN, &bytes).map(|_| ()).map_err(|error| (error.field, error.offset, error.fault))
    };
    assert_eq!((with(59, 3), with(64, 3)), (Ok(()), Ok(())));
    assert_eq!(with(59, 4), Err(("filter_result", 59, Fault::LimitExceeded)));
    assert_eq!(with(64, 4), Err(("client_filter_result", 64, Fault::LimitExceeded)));
}

#[test]
fn the_form_of_the_surfaces_follows_from_the_targets_setting_and_the_clients_connection() {
    for low_bandwidth in [false, true] {
        let display = Display { low_bandwidth, ..Display::default() };
        assert!(!display.has_lossy_surfaces(JpegWanCompression::Never));
        assert_eq!(display.has_lossy_surfaces(JpegWanCompression::Auto), low_bandwidth);
        assert!(display.has_lossy_surfaces(JpegWanCompression::Always));
    }
}

#[test]
fn a_cut_header_says_whether_the_magic_or_the_version_is_cut() {
    let field = |bytes: &[u8]| {
        let error = State::decode(ChannelType::INPUTS, bytes).unwrap_err();
        (error.field, error.offset, error.fault)
    };
    assert_eq!(field(b"IC"), ("magic", 0, Fault::Truncated));
    assert_eq!(field(b"ICMD\x01"), ("version", 4, Fault::Truncated));
    assert_eq!(field(b"ICMD\x01\0\0\0\0"), ("motion_count", 8, Fault::Truncated));
}

#[test]
fn a_cut_agents_message_says_which_of_its_fields_is_cut() {
    let bytes = encoded(&State::Main(Main::default()));
    let field = |length: usize| {
        let error = State::decode(ChannelType::MAIN, &bytes[..length]).unwrap_err();
        (error.field, error.offset, error.fault)
    };
    assert_eq!(field(33), ("client_agent_started", 33, Fault::Truncated));
    assert_eq!(field(34), ("chunk_header_size", 34, Fault::Truncated));
    assert_eq!(field(46), ("message_header_done", 46, Fault::Truncated));
    assert_eq!(field(60), ("client_message_remaining", 60, Fault::Truncated));
}

#[test]
fn a_lossless_surface_list_has_nothing_but_ids() {
    let ids = [7, 0x0102].map(|id| LosslessSurface { id }.to_wire());
    assert_eq!(ids, [[7, 0, 0, 0], [2, 1, 0, 0]]);
    let surfaces = Surfaces { count: 2, entries: Data(ids.as_flattened()) };
    let list = surfaces.lossless().unwrap();
    assert_eq!(list.iter().collect::<Vec<_>>(), [LosslessSurface { id: 7 }, LosslessSurface { id: 0x0102 }]);
}

#[test]
fn a_lossless_surface_list_is_none_for_a_target_that_compresses_with_loss() {
    let ids = [7, 8].map(|id| LosslessSurface { id }.to_wire());
    let surfaces = Surfaces { count: 2, entries: Data(ids.as_flattened()) };
    let bytes = encoded(&State::Display(Display { surfaces, ..Display::default() }));
    let fault = |compression| State::for_target(ChannelType::DISPLAY, compression, &bytes).map_err(|error| error.fault);
    assert!(fault(JpegWanCompression::Never).is_ok());
    assert_eq!(fault(JpegWanCompression::Always), Err(Fault::OutOfBounds));
}

#[test]
fn arbitrary_data_differs_in_every_kind_of_field() {
    fn values<T: Ord>(channel: ChannelType, part: impl Fn(State<'_>) -> T) -> usize {
        let value = |choice| part(State::arbitrary_of(channel, &mut Unstructured::new(&[choice; 300])).unwrap());
        (0..=u8::MAX).map(value).collect::<BTreeSet<_>>().len()
    }
    let smartcard = |part: fn(Smartcard<'_>) -> usize| {
        values(ChannelType::SMARTCARD, |state| match state {
            State::Smartcard(card) => part(card),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(smartcard(|card| usize::try_from(card.version).unwrap()), 2);
    assert_eq!(smartcard(|card| usize::try_from(card.device.version).unwrap()), 2);
    assert_eq!(smartcard(|card| usize::from(card.reader_added)), 2);
    assert_eq!(smartcard(|card| usize::try_from(card.device.pending.num_client_tokens).unwrap()), 256);
    assert_eq!(smartcard(|card| card.device.pending.data.0.len()), 65);
    assert_eq!(smartcard(|card| card.read.0.len()), 65);
    let agent = |part: fn(AgentToClient<'_>) -> usize| {
        values(ChannelType::MAIN, |state| match state {
            State::Main(main) => part(main.agent_to_client),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(agent(|agent| usize::try_from(agent.chunk_header_size).unwrap()), 9);
    assert_eq!(agent(|agent| usize::from(agent.filter_result)), 4);
    assert_eq!(agent(|agent| usize::from(agent.message_header_done)), 2);
    assert!(agent(|agent| agent.message_header.0.len()) > 2);
    let surfaces = values(ChannelType::DISPLAY, |state| match state {
        State::Display(display) => (display.surfaces.count, display.surfaces.entries.0.to_vec()),
        other => panic!("{other:?}"),
    });
    assert!(surfaces > 2);
}
