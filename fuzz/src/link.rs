//! The link stage: header, link message, link reply, and the capabilities in them.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use spice_migration::{
    ChannelType, DecodeError, EncodeError, Fault,
    caps::{
        Capability, CapabilitySet, CapabilityWords, CommonCapability, DisplayCapability, InputsCapability,
        MainCapability, PlaybackCapability, RecordCapability, SpicevmcCapability, name,
    },
    limits::{MAX_CAPABILITY_WORDS, MAX_LINK_BODY},
    link::{Capabilities, LINK_HEADER_LEN, LinkHeader, LinkMessage, LinkReply, MAGIC},
};

use crate::codec::{Codec, check, encoded};
use crate::layout::{Kind, Layout, u32_at};

/// A link header and what follows it. Input: a byte whose lowest bit says whether a server sent it, then the bytes as they are sent.
/// A header that announces more than there is, or is refused, does not end the check: all bytes behind it are the body then.
///
/// # Panics
/// - The header is refused for another reason than its magic or its size, is not refused for them, or is encoded to other bytes.
/// - As `codec::check` says. With a header before it, the body is encoded to something else than both by themselves.
/// - A set of capabilities is not the set of the bits in its words: it has others, loses some in its text form or when it is combined
///   with another set, or two equal sets have different hashes.
pub fn link(input: &[u8]) {
    let [shape, stream @ ..] = input else { return };
    let Some((header, rest)) = stream.split_first_chunk::<LINK_HEADER_LEN>() else { return };
    let most = usize::try_from(MAX_LINK_BODY).unwrap();
    let announced =
        check_header(header, LinkHeader::decode).map_or(most, |header| usize::try_from(header.size).unwrap());
    let body = rest.get(..announced).unwrap_or(&rest[..rest.len().min(most)]);

    check_text::<DisplayCapability>(&String::from_utf8_lossy(body));
    if shape & 1 == 0 {
        check(&Message, body);
        if let Ok(message) = LinkMessage::decode(body) {
            check_with_header(&encoded(&Message, &message), |out| message.encode_with_header(out));
            check_capabilities(message.channel_type, message.capabilities);
        }
    } else {
        check(&Reply, body);
        if let Ok(reply) = LinkReply::decode(body) {
            check_with_header(&encoded(&Reply, &reply), |out| reply.encode_with_header(out));
            check_capabilities(ChannelType(shape >> 1), reply.capabilities);
        }
    }
}

/// What a client says.
pub(crate) struct Message;

/// What a server answers.
pub(crate) struct Reply;

impl Codec for Message {
    type Value<'a> = LinkMessage<'a>;

    fn layout(&self) -> Layout {
        let fields = [
            ("connection_id", Kind::Any(4)),
            ("channel_type", Kind::Any(1)),
            ("channel_id", Kind::Any(1)),
            ("capabilities", Kind::Words),
        ];
        Layout::new("SpiceLinkMess", &fields)
    }

    fn fields_agree(&self, body: &[u8]) -> bool {
        body.len() <= usize::try_from(MAX_LINK_BODY).unwrap()
    }

    fn decode<'a>(&self, body: &'a [u8]) -> Result<LinkMessage<'a>, DecodeError> {
        LinkMessage::decode(body)
    }

    fn encoded_len(&self, value: &LinkMessage<'_>) -> usize {
        value.encoded_len()
    }

    fn encode(&self, value: &LinkMessage<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
        value.encode(out)
    }

    fn are_equal(&self, one: &LinkMessage<'_>, other: &LinkMessage<'_>) -> bool {
        one == other
    }

    fn describe(&self, value: &LinkMessage<'_>) -> String {
        format!("{value:?}")
    }
}

impl Codec for Reply {
    type Value<'a> = LinkReply<'a>;

    fn layout(&self) -> Layout {
        let fields = [("error", Kind::Any(4)), ("public_key", Kind::Any(162)), ("capabilities", Kind::Words)];
        Layout::new("SpiceLinkReply", &fields)
    }

    fn fields_agree(&self, body: &[u8]) -> bool {
        body.len() <= usize::try_from(MAX_LINK_BODY).unwrap()
    }

    fn decode<'a>(&self, body: &'a [u8]) -> Result<LinkReply<'a>, DecodeError> {
        LinkReply::decode(body)
    }

    fn encoded_len(&self, value: &LinkReply<'_>) -> usize {
        value.encoded_len()
    }

    fn encode(&self, value: &LinkReply<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
        value.encode(out)
    }

    fn are_equal(&self, one: &LinkReply<'_>, other: &LinkReply<'_>) -> bool {
        one == other
    }

    fn describe(&self, value: &LinkReply<'_>) -> String {
        format!("{value:?}")
    }
}

/// The header, if `decode`, which is [`LinkHeader::decode`] or one that does something wrong, does not refuse it.
pub(crate) fn check_header(
    bytes: &[u8; LINK_HEADER_LEN],
    decode: impl Fn(&[u8; LINK_HEADER_LEN]) -> Result<LinkHeader, DecodeError>,
) -> Option<LinkHeader> {
    let size = u32_at(bytes, 12);
    match decode(bytes) {
        Ok(header) => {
            assert!(bytes.starts_with(&MAGIC) && size <= MAX_LINK_BODY, "{header:?}");
            let expected = (u32_at(bytes, 4), u32_at(bytes, 8), size);
            assert_eq!((header.major_version, header.minor_version, header.size), expected);
            assert_eq!(header.encode(), *bytes);
            Some(header)
        }
        Err(DecodeError { field: "magic", offset: 0, fault: Fault::WrongMagic, .. }) => {
            assert!(!bytes.starts_with(&MAGIC));
            None
        }
        Err(DecodeError { field: "size", offset: 12, fault: Fault::LimitExceeded, .. }) => {
            assert!(size > MAX_LINK_BODY);
            None
        }
        Err(other) => panic!("{other}"),
    }
}

/// `encode` writes this body with a header before it.
fn check_with_header(body: &[u8], encode: impl Fn(&mut [u8]) -> Result<usize, EncodeError>) {
    let header = LinkHeader::new(u32::try_from(body.len()).unwrap()).encode();
    let needed = header.len() + body.len();
    for short in [0, header.len(), needed - 1] {
        assert_eq!(encode(&mut vec![0; short]), Err(EncodeError::BufferTooSmall { needed }));
    }
    let mut out = vec![0xaa; needed];
    assert_eq!(encode(&mut out), Ok(needed));
    assert_eq!(out, [&header, body].concat());
}

fn check_capabilities(channel: ChannelType, Capabilities { common, channel: own }: Capabilities<'_>) {
    check_sets::<CommonCapability>(common, own);
    match channel {
        ChannelType::MAIN => check_own_sets::<MainCapability>(channel, own, common),
        ChannelType::DISPLAY => check_own_sets::<DisplayCapability>(channel, own, common),
        ChannelType::INPUTS => check_own_sets::<InputsCapability>(channel, own, common),
        ChannelType::PLAYBACK => check_own_sets::<PlaybackCapability>(channel, own, common),
        ChannelType::RECORD => check_own_sets::<RecordCapability>(channel, own, common),
        ChannelType::USBREDIR | ChannelType::PORT | ChannelType::WEBDAV => {
            check_own_sets::<SpicevmcCapability>(channel, own, common);
        }
        _ => assert_eq!(name(channel, 0), None),
    }
}

/// The set of a channel's own type; as a second set of the same kind, the common words will do.
fn check_own_sets<C: Capability>(channel: ChannelType, own: CapabilityWords<'_>, other: CapabilityWords<'_>) {
    for bit in 0..40 {
        assert_eq!(name(channel, bit), C::from_bit(bit).name(), "{channel}: bit {bit}");
    }
    check_sets::<C>(own, other);
}

pub(crate) fn check_sets<C: Capability>(one: CapabilityWords<'_>, other: CapabilityWords<'_>) {
    // Sets of a thousand words only take longer.
    let [one, other] =
        [one, other].map(|words| CapabilityWords::new(words.as_wire().get(..4).unwrap_or(words.as_wire())));
    let (bits, other_bits) = (bits_of(one), bits_of(other));
    let (set, other) = (CapabilitySet::<C>::from_words(one), CapabilitySet::<C>::from_words(other));
    assert_eq!(set.as_words(), one, "words without any bit are kept");
    check_set(&set, &bits);
    check_set(&(&set & &other), &(&bits & &other_bits));
    check_set(&(&set | &other), &(&bits | &other_bits));
    check_set(&(&set - &other), &(&bits - &other_bits));
    assert_eq!(set.is_subset(&other), bits.is_subset(&other_bits));
    assert_eq!(set == other, bits == other_bits);

    let mut changed = set.clone();
    for bit in [0, 31, 32, 300, MAX_CAPABILITY_WORDS * 32 - 1] {
        assert!(changed.insert(C::from_bit(bit)));
        assert!(changed.contains(C::from_bit(bit)));
        changed.remove(C::from_bit(bit));
    }
    assert!(!changed.insert(C::from_bit(MAX_CAPABILITY_WORDS * 32)));
    assert_eq!(changed, &set - &"0,31,32,300,32767".parse().unwrap());
}

/// A text is refused for a part that it has, or is a set with no more members than the text has parts.
fn check_text<C: Capability>(text: &str) {
    let parts = text.split(',').count();
    match text.parse::<CapabilitySet<C>>() {
        Ok(set) => {
            assert!(set.len() <= parts, "{set:?}: {text:?}");
            check_set(&set, &set.iter().map(C::bit).collect());
        }
        Err(error) => assert!(error.position < parts, "{error}: {text:?}"),
    }
}

fn check_set<C: Capability>(set: &CapabilitySet<C>, bits: &BTreeSet<u32>) {
    assert!(set.iter().map(C::bit).eq(bits.iter().copied()), "{set}, {bits:?}");
    assert_eq!((set.len(), set.is_empty()), (bits.len(), bits.is_empty()));
    for bit in 0..140 {
        assert_eq!(set.contains(C::from_bit(bit)), bits.contains(&bit), "{set}: bit {bit}");
    }
    let again: CapabilitySet<C> = set.to_string().parse().unwrap_or_else(|error| panic!("{set}: {error}"));
    assert_eq!(again, *set);
    let hash = |set: &CapabilitySet<C>| BuildHasherDefault::<DefaultHasher>::default().hash_one(set);
    assert_eq!(hash(&again), hash(set), "{set}");
}

fn bits_of(words: CapabilityWords<'_>) -> BTreeSet<u32> {
    let bytes = words.as_wire().as_flattened();
    (0..u32::try_from(bytes.len() * 8).unwrap())
        .filter(|bit| bytes[usize::try_from(bit / 8).unwrap()] >> (bit % 8) & 1 == 1)
        .collect()
}
