//! Migration data.

use spice_migration::{
    ChannelType, DecodeError, EncodeError, List, ListItem,
    state::{JpegWanCompression, State},
};

use crate::codec::{Codec, check};
use crate::layout::{Kind, Layout, Place, SIZE_FIRST, u32_at};

/// The body of a MIGRATE_DATA. Input: the channel's type in one byte, and the data.
///
/// # Panics
/// - As `codec::check` says: a target would take data that no source can have had, or refuse what a source sends.
/// - `State::for_target` accepts what does not decode, a list of surfaces with an id that is too large or comes twice, a device that is
///   not connected, or all of a card's message, or refuses anything else.
pub fn state(input: &[u8]) {
    let [channel, data @ ..] = input else { return };
    let channel = ChannelType(*channel);
    let codec = MigrationData { channel };
    check(&codec, data);
    check_use(codec, data, |channel, compression, data| State::for_target(channel, compression, data));
}

/// `for_target` is [`State::for_target`], or one that does something wrong.
pub(crate) fn check_use(codec: MigrationData, data: &[u8], for_target: ForTarget) {
    let decoded = codec.decode(data);
    for compression in [JpegWanCompression::Never, JpegWanCompression::Auto, JpegWanCompression::Always] {
        let usable = for_target(codec.channel, compression, data);
        let lossy = compression == JpegWanCompression::Always
            || compression == JpegWanCompression::Auto && data.get(LOW_BANDWIDTH) == Some(&1);
        let entry_len = if lossy { 20 } else { 4 };
        let expected = decoded.is_ok()
            && match codec.magic().as_ref() {
                Some(b"DCMD") => surfaces_are_usable(data, entry_len),
                Some(b"SVMD") => data[CONNECTED] == 1,
                Some(b"SCMD") => is_part_of_a_card_message(data),
                magic => magic.is_some(),
            };
        assert_eq!(usable.is_ok(), expected, "{compression:?}: {usable:?}");
        assert!(usable.is_err() || usable == decoded, "{usable:?}, {decoded:?}");
        match usable {
            Ok(State::Display(display)) => {
                let entries = if lossy {
                    wire(display.surfaces.lossy().unwrap())
                } else {
                    wire(display.surfaces.lossless().unwrap())
                };
                assert!(display.surfaces.entries.0.starts_with(&entries), "{display:?}");
                assert_eq!(entries.len(), entry_len * usize::try_from(display.surfaces.count).unwrap());
            }
            Ok(_) => {}
            Err(error) => {
                assert!(usize::try_from(error.offset).unwrap() <= data.len(), "{error}");
                assert!(decoded.is_ok() || Err(error) == decoded, "{error}, {decoded:?}");
            }
        }
    }
}

/// Where a display's data has its flag, and a device's.
const LOW_BANDWIDTH: usize = 16;
const CONNECTED: usize = 12;
/// Where a smartcard's data has the size and the pointer of what was read.
const READ: usize = 34;

/// What was read of the device's message is less than the message, whose header of 12 bytes ends in the length of the rest.
fn is_part_of_a_card_message(data: &[u8]) -> bool {
    let (size, pointer) = (u32_at(data, READ), usize::try_from(u32_at(data, READ + 4)).unwrap());
    size < 12 || {
        let length = u32::from_be_bytes(data[pointer + 8..pointer + 12].try_into().unwrap());
        u64::from(size) < 12 + u64::from(length)
    }
}

/// Each entry, read and written.
fn wire<T: ListItem>(list: List<'_, T>) -> Vec<u8> {
    list.iter().flat_map(|entry| entry.to_wire().as_ref().to_vec()).collect()
}

type ForTarget = for<'a> fn(ChannelType, JpegWanCompression, &'a [u8]) -> Result<State<'a>, DecodeError>;

/// The migration data of a channel of this type.
#[derive(Clone, Copy)]
pub(crate) struct MigrationData {
    pub(crate) channel: ChannelType,
}

impl MigrationData {
    fn magic(self) -> Option<[u8; 4]> {
        Some(*match self.channel {
            ChannelType::MAIN => b"MNMD",
            ChannelType::DISPLAY => b"DCMD",
            ChannelType::INPUTS => b"ICMD",
            ChannelType::USBREDIR | ChannelType::PORT | ChannelType::WEBDAV => b"SVMD",
            ChannelType::SMARTCARD => b"SCMD",
            _ => return None,
        })
    }
}

const VERSION: Kind = Kind::AtMost(4, 1);
const FLAG: Kind = Kind::AtMost(1, 1);
/// Size, a number of tokens, pointer.
const PENDING: Kind = Kind::Data(Place { size: 0, offset: 8 }, u32::MAX);
/// Where the main channel's data has `chunk_header_size`, `message_header_done` and the size of `message_header`.
const CHUNK_HEADER_SIZE: usize = 34;
const MESSAGE_HEADER_DONE: usize = 46;
const MESSAGE_HEADER: usize = 47;

const CHAR_DEVICE: [(&str, Kind); 5] = [
    ("version", VERSION),
    ("connected", FLAG),
    ("num_client_tokens", Kind::Any(4)),
    ("num_send_tokens", Kind::Any(4)),
    ("pending", PENDING),
];

impl Codec for MigrationData {
    type Value<'a> = State<'a>;

    fn layout(&self) -> Layout {
        let Some(magic) = self.magic() else { return Layout::opaque("unknown") };
        let header = [("magic", Kind::Magic(magic)), ("version", VERSION)];
        let device = [&header[..], &CHAR_DEVICE].concat();
        match &magic {
            b"MNMD" => {
                let agent = [
                    ("client_agent_started", FLAG),
                    ("chunk_header_size", Kind::AtMost(4, 8)),
                    ("chunk_port", Kind::Any(4)),
                    ("chunk_size", Kind::Any(4)),
                    ("message_header_done", FLAG),
                    ("message_header", Kind::Data(SIZE_FIRST, 19)),
                    ("message_remaining", Kind::Any(4)),
                    ("filter_result", Kind::AtMost(1, 3)),
                    ("client_message_remaining", Kind::Any(4)),
                    ("client_filter_result", Kind::AtMost(1, 3)),
                ];
                Layout::new("SpiceMigrateDataMain", &[&device[..], &agent].concat())
            }
            b"DCMD" => {
                let display = [
                    ("message_serial", Kind::Any(8)),
                    ("low_bandwidth", FLAG),
                    ("pixmap_cache_id", Kind::Any(1)),
                    ("pixmap_cache_size", Kind::Any(8)),
                    ("pixmap_cache_freezer", FLAG),
                    ("pixmap_cache_clients", Kind::Any(32)),
                    ("glz_dict_id", Kind::Any(1)),
                    ("glz_dict_size", Kind::Any(4)),
                    ("glz_max_encoders", Kind::Any(4)),
                    ("glz_last_image_id", Kind::Any(8)),
                    ("surfaces", Kind::Surfaces),
                ];
                Layout::new("SpiceMigrateDataDisplay", &[&header[..], &display].concat())
            }
            b"ICMD" => {
                Layout::new("SpiceMigrateDataInputs", &[&header[..], &[("motion_count", Kind::Any(2))]].concat())
            }
            b"SCMD" => {
                let reader = [("reader_added", FLAG), ("read", Kind::Data(SIZE_FIRST, u32::MAX))];
                Layout::new("SpiceMigrateDataSmartcard", &[&device[..], &reader].concat())
            }
            _ => Layout::new("SpiceMigrateDataSpiceVmc", &device),
        }
    }

    fn fields_agree(&self, body: &[u8]) -> bool {
        // Without a whole chunk header nothing of a message can have been read.
        self.channel != ChannelType::MAIN
            || u32_at(body, CHUNK_HEADER_SIZE) == 8
            || (body[MESSAGE_HEADER_DONE] == 0 && u32_at(body, MESSAGE_HEADER) == 0)
    }

    fn decode<'a>(&self, body: &'a [u8]) -> Result<State<'a>, DecodeError> {
        State::decode(self.channel, body)
    }

    fn encoded_len(&self, value: &State<'_>) -> usize {
        value.encoded_len()
    }

    fn encode(&self, value: &State<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
        value.encode(out)
    }

    fn are_equal(&self, one: &State<'_>, other: &State<'_>) -> bool {
        one == other
    }

    fn describe(&self, value: &State<'_>) -> String {
        format!("{value:?}")
    }
}

/// The ids in the list of surfaces of a display's data that decodes; `None` if the list is cut.
fn surface_ids(data: &[u8], entry_len: usize) -> Option<Vec<u32>> {
    let surfaces = &data[usize::try_from(u32_at(data, 76)).unwrap()..];
    let count = usize::try_from(u32_at(surfaces, 0)).unwrap();
    (0..count)
        .map(|index| surfaces[4..].get(index * entry_len..(index + 1) * entry_len))
        .map(|entry| Some(u32_at(entry?, 0)))
        .collect()
}

fn surfaces_are_usable(data: &[u8], entry_len: usize) -> bool {
    let Some(ids) = surface_ids(data, entry_len) else { return false };
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    distinct.len() == ids.len() && ids.iter().all(|id| *id < 1024)
}
