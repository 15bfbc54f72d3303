//! Channel state as it travels from source to target: what this host sends as MIGRATE_DATA, and what it accepts.
//!
//! The host has no guest whose state it could carry, so the values are those of an idle guest, as captured from
//! spice-server 0.15.1; only the display channel's serial means something.

use spice_migration::{
    ChannelType, Data,
    state::{CharDevice, Display, Inputs, JpegWanCompression, MAX_SURFACES, Main, State, Surfaces, VERSION},
};

use super::HostSettings;
use crate::peer::defect::Defect;

/// The data of a channel that has any.
pub(super) fn data(channel_type: ChannelType, message_serial: u64, settings: &HostSettings) -> Vec<u8> {
    let defect = settings.defect;
    // The primary surface, whose id is 0, and others.
    let surfaces = settings.surfaces.min(MAX_SURFACES as u32);
    let entries: Vec<u8> = (0..surfaces).flat_map(u32::to_le_bytes).collect();
    let state = match channel_type {
        ChannelType::MAIN => {
            let version = if defect == Some(Defect::DeviceVersionWrong) { 7 } else { VERSION };
            let agent = CharDevice { version, ..CharDevice::default() };
            State::Main(Main { version: VERSION, agent, ..Main::default() })
        }
        ChannelType::DISPLAY => State::Display(Display {
            version: VERSION,
            message_serial,
            pixmap_cache_id: 1,
            pixmap_cache_size: 20 << 20,
            pixmap_cache_freezer: true,
            glz_dict_id: 1,
            glz_dict_size: 3 << 20,
            glz_max_encoders: 4,
            surfaces: Surfaces { count: surfaces, entries: Data(&entries) },
            ..Display::default()
        }),
        _ => State::Inputs(Inputs { version: VERSION, motion_count: 0 }),
    };
    let mut data = vec![0; state.encoded_len()];
    let length = state.encode(&mut data).unwrap_or(0);
    data.truncate(length);
    if channel_type == ChannelType::INPUTS {
        match defect {
            Some(Defect::MagicOfDataWrong) => data[..4].copy_from_slice(b"XCMD"),
            Some(Defect::VersionOfDataWrong) => data[4] = 99,
            Some(Defect::DataTruncated) => data.truncate(length - 1),
            _ => {}
        }
    }
    data
}

/// Whether data for a channel may be used.
pub(super) fn is_valid(channel_type: ChannelType, data: &[u8]) -> bool {
    State::for_target(channel_type, JpegWanCompression::Never, data).is_ok()
}

/// The serial of the display channel's last message at the source, from valid data.
pub(super) fn message_serial(data: &[u8]) -> u64 {
    match State::decode(ChannelType::DISPLAY, data) {
        Ok(State::Display(display)) => display.message_serial,
        _ => 0,
    }
}
