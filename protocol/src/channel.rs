//! What channels there are.

use crate::wire::open_enum;

open_enum! {
    /// What a channel is for: `SPICE_CHANNEL_*`.
    pub struct ChannelType(u8);
    /// The session itself.
    MAIN = 1 "main";
    /// Pictures.
    DISPLAY = 2 "display";
    /// Keyboard and pointer.
    INPUTS = 3 "inputs";
    /// The pointer's shape.
    CURSOR = 4 "cursor";
    /// Sound from the guest.
    PLAYBACK = 5 "playback";
    /// Sound to the guest.
    RECORD = 6 "record";
    /// Obsolete.
    TUNNEL = 7 "tunnel";
    /// Smartcard readers.
    SMARTCARD = 8 "smartcard";
    /// USB devices.
    USBREDIR = 9 "usbredir";
    /// A byte stream for the host's own purposes.
    PORT = 10 "port";
    /// Shared folders.
    WEBDAV = 11 "webdav";
}
