//! Channel state as it travels from source to target: what this host sends as MIGRATE_DATA, and what it accepts.
//!
//! The host has no guest whose state it could carry, so the values are those of an idle guest, as captured from
//! spice-server 0.15.1; only the display channel's serial, the count of mouse motions, and what
//! becomes of the agent mean something.

use spice_migration::{
    ChannelType, Data,
    state::{
        CharDevice, Display, Inputs, JpegWanCompression, MAX_SURFACES, Main, PendingWrite, Smartcard, SpiceVmc, State,
        Surfaces, VERSION,
    },
};

use super::{HostSettings, client::AGENT_TOKENS};
use crate::peer::defect::Defect;

/// What a channel's data tells of its time at the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// Of the display channel's last message.
    pub(super) message_serial: u64,
    /// The client's mouse motions that were not acknowledged.
    pub(super) motion_count: u16,
    /// Whether the guest's agent is attached.
    pub(super) agent: bool,
    /// Whether the client talks to it.
    pub(super) agent_started: bool,
}

impl Past {
    /// From valid data.
    pub(super) fn of(channel_type: ChannelType, data: &[u8]) -> Self {
        match State::decode(channel_type, data) {
            Ok(State::Display(display)) => Self { message_serial: display.message_serial, ..Self::default() },
            Ok(State::Main(main)) => {
                Self { agent: main.agent.connected, agent_started: main.client_agent_started, ..Self::default() }
            }
            Ok(State::Inputs(inputs)) => Self { motion_count: inputs.motion_count, ..Self::default() },
            _ => Self::default(),
        }
    }

    /// Whether a guest could have got that far.
    pub(super) fn is_likely(self) -> bool {
        self.message_serial < 1 << 32 && self.motion_count < 1 << 8
    }
}

/// The data of a channel that has any.
pub(super) fn data(channel_type: ChannelType, past: Past, settings: &HostSettings) -> Vec<u8> {
    let defect = settings.defect;
    let Past { message_serial, motion_count, agent, agent_started } = past;
    // The primary surface, whose id is 0, and others.
    let surfaces = settings.surfaces.min(MAX_SURFACES as u32);
    let entries: Vec<u8> = (0..surfaces).flat_map(u32::to_le_bytes).collect();
    let state = match channel_type {
        ChannelType::MAIN => {
            let version = if defect == Some(Defect::DeviceVersionWrong) { 7 } else { VERSION };
            let connected = match defect {
                Some(Defect::AgentInvented) => true,
                Some(Defect::AgentLost) => false,
                _ => agent,
            };
            let num_client_tokens = if connected && agent_started { AGENT_TOKENS } else { 0 };
            let agent = CharDevice { version, connected, num_client_tokens, ..CharDevice::default() };
            State::Main(Main { version: VERSION, agent, client_agent_started: agent_started, ..Main::default() })
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
        ChannelType::INPUTS => State::Inputs(Inputs { version: VERSION, motion_count }),
        _ => {
            let read = defect == Some(Defect::ReadByteKept) && channel_type == ChannelType::PORT;
            let pending = PendingWrite { num_client_tokens: 0, data: Data(if read { b"\n" } else { &[] }) };
            let (version, num_send_tokens) = (VERSION, u32::MAX);
            let device = CharDevice { version, connected: true, num_send_tokens, pending, ..CharDevice::default() };
            match channel_type {
                ChannelType::SMARTCARD => {
                    State::Smartcard(Smartcard { version: VERSION, device, ..Smartcard::default() })
                }
                _ => State::SpiceVmc(SpiceVmc { version: VERSION, device }),
            }
        }
    };
    let mut data = vec![0; state.encoded_len()];
    let length = state.encode(&mut data).unwrap_or(0);
    data.truncate(length);
    if channel_type == ChannelType::PORT && defect == Some(Defect::MagicOfPortWrong) {
        data[..4].copy_from_slice(b"XVMD");
    }
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
