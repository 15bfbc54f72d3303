//! All implementations do the same work: the same values from the same bytes, and back.

mod captured;

use proptest::prelude::*;
use spice_migration::frame::HeaderKind;
use spice_migration::{ChannelType, ServerMessage};
use spice_migration_benches::cases::{self, Case};
use spice_migration_benches::measured::{Cut, Decode, Encode};
use spice_migration_benches::{binrw, cursor, nom_usual, ours, zerocopy};

fn decodes_every_case<D: Decode>() {
    for case in cases::decoded() {
        let body = case.body();
        assert!(D::is(&D::decode(case.message.id(), &body), &case.message), "{}", case.name);
    }
}

#[test]
fn every_baseline_decodes_the_same_values() {
    decodes_every_case::<ours::Ours>();
    decodes_every_case::<cursor::Cursor>();
    decodes_every_case::<zerocopy::Zerocopy>();
    decodes_every_case::<nom_usual::NomUsual>();
    decodes_every_case::<binrw::Binrw>();
    #[cfg(feature = "spice-common")]
    decodes_every_case::<spice_migration_benches::spice_common::SpiceCommon>();
}

fn encoded<E: Encode>(case: &Case) -> Vec<u8> {
    let mut out = [0; 256];
    let length = E::with(case, |message| E::encode(message, &mut out)).unwrap();
    out[..length].to_vec()
}

#[test]
fn every_baseline_encodes_the_same_bytes() {
    for case in cases::encoded() {
        let expected = encoded::<ours::Ours>(&case);
        assert_eq!(expected[6..], case.body());
        assert_eq!(encoded::<cursor::Cursor>(&case), expected, "{}", case.name);
        #[cfg(feature = "spice-common")]
        {
            use spice_migration_benches::spice_common::SpiceCommon;
            let mut marshalled = Vec::new();
            SpiceCommon::with(&case, |sender| marshalled = sender.marshall());
            assert_eq!(marshalled, expected, "{}", case.name);
        }
    }
}

#[test]
fn a_buffer_that_is_one_byte_short_is_refused_by_ours_and_by_the_limit() {
    for case in cases::encoded() {
        let mut out = vec![0; case.body().len() + 5];
        assert_eq!(ours::Ours::with(&case, |message| ours::Ours::encode(message, &mut out)), None);
        assert_eq!(cursor::Cursor::with(&case, |message| cursor::Cursor::encode(message, &mut out)), None);
    }
}

fn cut(mut cutter: impl Cut) -> Vec<(u16, Vec<u8>)> {
    let mut messages = Vec::new();
    cutter.cut(&cases::stream(), |id, body| messages.push((id, body.to_vec())));
    messages
}

#[test]
fn every_cutter_finds_the_same_messages() {
    let messages = cut(ours::Ours);
    assert_eq!(messages.len() as u64, cases::STREAM_MESSAGES);
    assert_eq!(cut(cursor::Cursor), messages);
    assert_eq!(cut(ours::deframer()), messages);
}

/// The limit and `spice-migration` on one body: the same message, or the same fault.
fn agree(id: u16, body: &[u8]) -> Result<(), TestCaseError> {
    match (ServerMessage::decode(ChannelType::MAIN, id, body), cursor::decode(id, body)) {
        (Ok(ours), Ok(limit)) => {
            prop_assert_eq!(limit.to_server_message(), Some(ours));
            let (mut by_ours, mut by_limit) = (vec![0; body.len() + 64], vec![0; body.len() + 64]);
            let length = spice_migration::frame::encode(HeaderKind::Mini, 1, &ours, &mut by_ours).ok();
            prop_assert_eq!(cursor::encode(&limit, &mut by_limit), length);
            prop_assert_eq!(by_limit, by_ours);
        }
        (Err(ours), Err(limit)) => prop_assert_eq!(ours.fault, limit, "{}", ours),
        (ours, limit) => prop_assert!(false, "{:?}, {:?}", ours, limit),
    }
    Ok(())
}

#[test]
fn the_limit_gives_our_verdicts_on_every_captured_message() {
    for captured::Captured { channel, from_server, id, body } in captured::messages() {
        if from_server && channel == ChannelType::MAIN {
            agree(id, &body).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn the_limit_gives_our_verdicts(id in 0u16..120, body in proptest::collection::vec(any::<u8>(), 0..64)) {
        agree(id, &body)?;
    }

    #[test]
    fn the_limit_gives_our_verdicts_on_cases_with_one_byte_changed(
        case in 0..cases::encoded().len(),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()],
        length in any::<prop::sample::Index>(),
    ) {
        let case = cases::encoded()[case];
        let mut body = case.body();
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = byte;
        }
        agree(case.message.id(), &body)?;
        agree(case.message.id(), &body[..length.index(body.len() + 1)])?;
        body.push(byte);
        agree(case.message.id(), &body)?;
    }
}
