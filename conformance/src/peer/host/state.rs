//! Channel state as it travels from source to target: what this host sends as MIGRATE_DATA, and what it accepts.
//!
//! The host has no guest whose state it could carry, so the values are those of an idle guest, as captured from
//! spice-server 0.15.1; only the display channel's serial means something.

use spice_migration::ChannelType;

use crate::peer::defect::Defect;

/// The migration protocol version, and that of each channel's data.
pub(super) const VERSION: u32 = 1;

const MAIN_LEN: usize = 65;
const DISPLAY_LEN: usize = 80;
const INPUTS_LEN: usize = 10;

/// The data of a channel that has any.
pub(super) fn data(channel_type: ChannelType, message_serial: u64, defect: Option<Defect>) -> Vec<u8> {
    let mut data = magic(channel_type).to_vec();
    data.extend(VERSION.to_le_bytes());
    match channel_type {
        ChannelType::MAIN => {
            // The agent's character device has a version of its own; all else is zero while no agent is there.
            data.extend(VERSION.to_le_bytes());
            data.resize(MAIN_LEN, 0);
        }
        ChannelType::DISPLAY => {
            data.extend(message_serial.to_le_bytes());
            // low_bandwidth, pixmap_cache_id
            data.extend([0, 1]);
            // pixmap_cache_size
            data.extend((20i64 << 20).to_le_bytes());
            // pixmap_cache_freezer, then the pixmap cache's four clients
            data.push(1);
            data.extend([0; 32]);
            // glz_dict_id, and the dictionary's size, encoders and last image
            data.push(1);
            data.extend((3u32 << 20).to_le_bytes());
            data.extend(4u32.to_le_bytes());
            data.extend(0u64.to_le_bytes());
            // surfaces_at_client_ptr, and there the number of surfaces and the primary surface's id
            data.extend([DISPLAY_LEN as u32, 1, 0].map(u32::to_le_bytes).as_flattened());
        }
        _ => data.extend(0u16.to_le_bytes()),
    }
    if channel_type == ChannelType::INPUTS {
        match defect {
            Some(Defect::MagicOfDataWrong) => data[..4].copy_from_slice(b"XCMD"),
            Some(Defect::VersionOfDataWrong) => data[4] = 99,
            Some(Defect::DataTruncated) => data.truncate(INPUTS_LEN - 1),
            _ => {}
        }
    }
    data
}

/// Whether data for a channel has the right magic, a known version, and all that it points to.
pub(super) fn is_valid(channel_type: ChannelType, data: &[u8]) -> bool {
    let minimal_len = match channel_type {
        ChannelType::MAIN => MAIN_LEN,
        ChannelType::DISPLAY => DISPLAY_LEN,
        _ => INPUTS_LEN,
    };
    if data.len() < minimal_len || data[..4] != magic(channel_type) || number(data, 4) > u64::from(VERSION) {
        return false;
    }
    let within = |offset: u64, len: u64| len == 0 || offset + len <= data.len() as u64;
    match channel_type {
        ChannelType::MAIN => {
            let (write_size, write_data) = (number(data, 21), number(data, 29));
            let (message_header_len, message_header) = (number(data, 47), number(data, 51));
            number(data, 8) <= u64::from(VERSION)
                && within(write_data, write_size)
                && within(message_header, message_header_len)
        }
        ChannelType::DISPLAY => {
            let surfaces = number(data, 76);
            surfaces == 0 || within(surfaces, 4) && within(surfaces + 4, 4 * number(data, surfaces as usize))
        }
        _ => true,
    }
}

/// The serial of the display channel's last message at the source, from valid data.
pub(super) fn message_serial(data: &[u8]) -> u64 {
    number(data, 12) << 32 | number(data, 8)
}

fn magic(channel_type: ChannelType) -> [u8; 4] {
    match channel_type {
        ChannelType::MAIN => *b"MNMD",
        ChannelType::DISPLAY => *b"DCMD",
        _ => *b"ICMD",
    }
}

/// The u32 that stands at an offset within the data, wide enough to compute with.
fn number(data: &[u8], offset: usize) -> u64 {
    data[offset..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)).into()
}
