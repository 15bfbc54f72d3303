//! Capability sets: names and numbers, what is unknown, and the laws of sets.
#![cfg(feature = "alloc")]

use std::collections::BTreeSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use proptest::prelude::*;
use spice_migration::{
    ChannelType,
    caps::{
        self, Capability, CapabilitySet, CapabilityWords, CommonCapability, DisplayCapability, InputsCapability,
        MainCapability, PlaybackCapability, RecordCapability, SpicevmcCapability,
    },
    limits::MAX_CAPABILITY_WORDS,
};

type Main = CapabilitySet<MainCapability>;

#[test]
fn numbers_and_names_are_those_of_spice_protocol() {
    fn names<C: Capability>() -> Vec<(u32, &'static str)> {
        C::KNOWN.iter().map(|known| (known.bit(), known.name().unwrap())).collect()
    }
    // spice-protocol 0.14.3, spice/protocol.h.
    assert_eq!(
        names::<CommonCapability>(),
        [(0, "auth-selection"), (1, "auth-spice"), (2, "auth-sasl"), (3, "mini-header")]
    );
    assert_eq!(
        names::<MainCapability>(),
        [(0, "semi-seamless-migrate"), (1, "name-and-uuid"), (2, "agent-connected-tokens"), (3, "seamless-migrate")]
    );
    assert_eq!(
        names::<DisplayCapability>(),
        [
            (0, "sized-stream"),
            (1, "monitors-config"),
            (2, "composite"),
            (3, "a8-surface"),
            (4, "stream-report"),
            (5, "lz4-compression"),
            (6, "pref-compression"),
            (7, "gl-scanout"),
            (8, "multi-codec"),
            (9, "codec-mjpeg"),
            (10, "codec-vp8"),
            (11, "codec-h264"),
            (12, "pref-video-codec-type"),
            (13, "codec-vp9"),
            (14, "codec-h265"),
        ]
    );
    assert_eq!(names::<InputsCapability>(), [(0, "key-scancode")]);
    assert_eq!(names::<PlaybackCapability>(), [(0, "celt-0-5-1"), (1, "volume"), (2, "latency"), (3, "opus")]);
    assert_eq!(names::<RecordCapability>(), [(0, "celt-0-5-1"), (1, "volume"), (2, "opus")]);
    assert_eq!(names::<SpicevmcCapability>(), [(0, "data-compress-lz4")]);
}

#[test]
fn a_bit_is_named_by_the_type_of_its_channel() {
    let first = |channel| caps::name(channel, 0);
    assert_eq!(first(ChannelType::MAIN), Some("semi-seamless-migrate"));
    assert_eq!(first(ChannelType::DISPLAY), Some("sized-stream"));
    assert_eq!(first(ChannelType::INPUTS), Some("key-scancode"));
    assert_eq!(first(ChannelType::PLAYBACK), Some("celt-0-5-1"));
    assert_eq!(caps::name(ChannelType::PLAYBACK, 2), Some("latency"));
    assert_eq!(caps::name(ChannelType::RECORD, 2), Some("opus"));
    for channel in [ChannelType::USBREDIR, ChannelType::PORT, ChannelType::WEBDAV] {
        assert_eq!(first(channel), Some("data-compress-lz4"));
    }
    for channel in [ChannelType::CURSOR, ChannelType::SMARTCARD, ChannelType::TUNNEL, ChannelType(99)] {
        assert_eq!(first(channel), None);
    }
    assert_eq!(caps::name(ChannelType::MAIN, 4), None);
}

#[test]
fn sets_read_from_names_and_numbers_and_tell_which_part_is_neither() {
    let set: Main = " seamless-migrate, 33,semi-seamless-migrate,1".parse().unwrap();
    assert_eq!(set.to_string(), "semi-seamless-migrate,name-and-uuid,seamless-migrate,33");
    assert_eq!(format!("{set:?}"), "{semi-seamless-migrate,name-and-uuid,seamless-migrate,33}");
    assert_eq!(set.as_words().words().collect::<Vec<_>>(), [0b1011, 2]);
    assert!("".parse::<Main>().unwrap().is_empty());
    let refused = |text: &str| text.parse::<Main>().unwrap_err();
    assert_eq!(refused("name-and-uuid,opus").position, 1, "a name of another kind");
    assert_eq!(refused("1,,2").position, 1);
    assert_eq!(refused("32768").to_string(), "part 0 is neither the name nor the number of a capability");
    assert!("32767".parse::<Main>().is_ok());
}

#[test]
fn a_set_takes_as_many_words_as_a_link_message() {
    let most = MAX_CAPABILITY_WORDS * 32 - 1;
    let mut set = Main::new();
    assert!(set.insert(MainCapability(most)));
    assert_eq!(set.as_words().as_wire().len(), 1024);
    assert!(!set.insert(MainCapability(most + 1)));
    assert!(!set.contains(MainCapability(most + 1)));
    assert_eq!(set.len(), 1);
    let words = vec![[1, 0, 0, 0]; 1025];
    assert_eq!(Main::from_words(CapabilityWords::new(&words)).len(), 1024);
}

#[test]
fn words_without_bits_are_kept_and_do_not_count() {
    let words = [[1, 0, 0, 0], [0; 4], [0; 4]];
    let set = Main::from_words(CapabilityWords::new(&words));
    assert_eq!(set.as_words().as_wire(), words);
    let same = Main::from_iter([MainCapability::SEMI_SEAMLESS_MIGRATE]);
    assert_eq!(set, same);
    let hash = BuildHasherDefault::<DefaultHasher>::default();
    assert_eq!(hash.hash_one(&set), hash.hash_one(&same));
    assert_ne!(hash.hash_one(&set), hash.hash_one(Main::default()));
    assert_eq!(Main::known().as_words().words().next(), Some(0xf));
}

fn bits() -> impl Strategy<Value = BTreeSet<u32>> {
    prop::collection::btree_set(prop_oneof![0u32..6, 28u32..36, 0u32..32768], 0..12)
}

proptest! {
    #[test]
    fn a_set_behaves_like_a_set_of_numbers(a in bits(), b in bits(), other in 0u32..40) {
        let set = |bits: &BTreeSet<u32>| bits.iter().copied().map(MainCapability).collect::<Main>();
        let numbers = |set: &Main| set.iter().map(|capability| capability.0).collect::<BTreeSet<_>>();
        let (one, two) = (set(&a), set(&b));
        prop_assert_eq!(numbers(&one), a.clone());
        prop_assert_eq!(numbers(&(&one & &two)), &a & &b);
        prop_assert_eq!(numbers(&(&one | &two)), &a | &b);
        prop_assert_eq!(numbers(&(&one - &two)), &a - &b);
        prop_assert_eq!(one.is_subset(&two), a.is_subset(&b));
        prop_assert!((&one & &two).is_subset(&one));
        prop_assert_eq!((one.len(), one.is_empty()), (a.len(), a.is_empty()));
        prop_assert_eq!(one == two, a == b);
        prop_assert_eq!(one.contains(MainCapability(other)), a.contains(&other));
        prop_assert_eq!(one.to_string().parse::<Main>(), Ok(one.clone()));
        prop_assert_eq!(&Main::from_words(one.as_words()), &one);
        let (mut with, mut without) = (one.clone(), one.clone());
        with.insert(MainCapability(other));
        without.remove(MainCapability(other));
        prop_assert!(with.contains(MainCapability(other)) && !without.contains(MainCapability(other)));
        prop_assert_eq!(&(&with - &without).iter().collect::<Vec<_>>(), &[MainCapability(other)]);
        prop_assert_eq!(without.as_words().as_wire().len(), one.as_words().as_wire().len());
    }
}
