//! The messages: the base messages of every channel, and those of the main channel.
//!
//! [`server`] has what servers send, [`client`] what clients send. Ids are per direction: server 101 and client 101 are
//! different messages. Layouts and ids are those of spice-protocol 0.14.3 and of `spice.proto` in spice-server 0.15.1.
//!
#![doc = include_str!("../../MESSAGES.md")]

pub mod client;
#[cfg(test)]
mod every_row;
pub mod server;

pub use client::ClientMessage;
pub use server::ServerMessage;

pub use crate::wire::FieldLayout;

use core::fmt;

use crate::frame::{self, HeaderKind};
use crate::wire::{ListItem, OptionalTextAt, Text, TextAt, flags, open_enum, wire_struct};
use crate::{ChannelType, EncodeError};

/// The last id that base messages may use; a channel type's own begin behind it.
pub const LAST_BASE_ID: u16 = 100;

/// A message of either direction, to be encoded.
pub trait Message: sealed::Sealed {
    /// The id on the wire.
    fn id(&self) -> u16;

    /// The length of the encoded body in bytes, without a header.
    fn encoded_len(&self) -> usize;

    /// Encodes the body into the front of `out` and returns its length.
    ///
    /// # Errors
    /// When `out` is too small, or the body would exceed [`MAX_BODY`](crate::limits::MAX_BODY).
    fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError>;

    /// Does the work of [`frame::encode`].
    #[doc(hidden)]
    fn encode_framed(&self, kind: HeaderKind, serial: u64, out: &mut [u8]) -> Result<usize, EncodeError> {
        frame::encode_in_steps(kind, serial, self, out)
    }
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// One line of the table of messages.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The id on the wire.
    pub id: u16,
    /// The C name, such as `SPICE_MSG_MAIN_INIT`.
    pub c_name: &'static str,
    /// The Rust name, such as `Init`.
    pub name: &'static str,
    /// Which channels carry it.
    pub section: Section,
    pub(crate) describe: fn(&mut dyn FnMut(FieldLayout)),
}

impl Row {
    /// The name that texts call it by.
    #[must_use]
    pub const fn short_name(&self) -> ShortName {
        ShortName { c_name: self.c_name, id: self.id }
    }

    /// Shows each field of the body, nested ones too, in the order of the wire.
    pub fn for_each_field(&self, mut show: impl FnMut(FieldLayout)) {
        (self.describe)(&mut show);
    }
}

/// A message's name as texts and the requirements write it, shown by [`Display`](fmt::Display): the C name without what many
/// begin with, such as `INIT`; `message 101` for one that the crate does not know.
///
/// ```
/// use spice_migration::{ChannelType, ClientMessage, ServerMessage};
///
/// assert_eq!(ServerMessage::MigrateCancel.short_name().to_string(), "MIGRATE_CANCEL");
/// assert_eq!(ClientMessage::decode(ChannelType::DISPLAY, 101, &[])?.short_name().to_string(), "message 101");
/// # Ok::<(), spice_migration::DecodeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortName {
    pub(crate) c_name: &'static str,
    pub(crate) id: u16,
}

impl fmt::Display for ShortName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefixes = ["SPICE_MSG_MAIN_", "SPICE_MSGC_MAIN_", "SPICE_MSG_", "SPICE_MSGC_"];
        match prefixes.iter().find_map(|prefix| self.c_name.strip_prefix(prefix)) {
            Some(name) => formatter.write_str(name),
            None => write!(formatter, "message {}", self.id),
        }
    }
}

/// Which channels carry a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Section {
    /// Every channel.
    Base,
    /// The main channel.
    Main,
}

wire_struct! {
    /// Where a client is told to go: `SpiceMigrationDstInfo`.
    ///
    /// On the wire: two ports, then size and offset of host and subject; the strings lie behind the message's last field
    /// and may do so in any order and with any bytes around them. Encoding puts the host first and leaves no gap, as
    /// spice-server does.
    pub struct Destination<'a> {
        /// The plaintext port. 0 and [`Self::NO_PORT`] both mean "none".
        port: u16,
        /// The TLS port; `sport` on the wire. 0 and [`Self::NO_PORT`] both mean "none".
        tls_port: u16,
        /// The host name or address: opaque, it may be a ticket for a proxy.
        host: Text<'a> => TextAt,
        /// The subject that the target's certificate must have; absent: the certificate must match the host name.
        cert_subject: Option<Text<'a>> => OptionalTextAt,
    }
}

impl Destination<'_> {
    /// What QEMU sends for a port that was not given: -1 in 16 bits.
    pub const NO_PORT: u16 = 0xffff;

    /// The plaintext port, if there is one.
    #[must_use]
    pub const fn plaintext_port(&self) -> Option<u16> {
        if_given(self.port)
    }

    /// The TLS port, if there is one.
    #[must_use]
    pub const fn secure_port(&self) -> Option<u16> {
        if_given(self.tls_port)
    }
}

const fn if_given(port: u16) -> Option<u16> {
    match port {
        0 | Destination::NO_PORT => None,
        port => Some(port),
    }
}

/// Names one channel: `SpiceChannelId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId {
    /// The type.
    pub channel_type: ChannelType,
    /// Tells channels of one type apart; counts from 0.
    pub id: u8,
}

/// Names a message on another channel that must have been processed: `SpiceWaitForChannel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelWait {
    /// The channel's type.
    pub channel_type: ChannelType,
    /// The channel's id.
    pub channel_id: u8,
    /// The serial to wait for.
    pub message_serial: u64,
}

impl ListItem for ChannelId {
    type Wire = [u8; 2];
    const LAYOUT: &'static str = "u8 channel_type, u8 id";

    #[inline]
    fn from_wire([channel_type, id]: Self::Wire) -> Self {
        Self { channel_type: ChannelType(channel_type), id }
    }

    #[inline]
    fn to_wire(self) -> Self::Wire {
        [self.channel_type.0, self.id]
    }
}

impl ListItem for ChannelWait {
    type Wire = [u8; 10];
    const LAYOUT: &'static str = "u8 channel_type, u8 channel_id, u64 message_serial";

    #[inline]
    fn from_wire([channel_type, channel_id, serial @ ..]: Self::Wire) -> Self {
        Self { channel_type: ChannelType(channel_type), channel_id, message_serial: u64::from_le_bytes(serial) }
    }

    #[inline]
    fn to_wire(self) -> Self::Wire {
        let [a, b, c, d, e, f, g, h] = self.message_serial.to_le_bytes();
        [self.channel_type.0, self.channel_id, a, b, c, d, e, f, g, h]
    }
}

flags! {
    /// What the client must do on a channel that moves: `SpiceMigrateFlags`.
    pub struct MigrateFlags(u32);
    /// Send MIGRATE_FLUSH_MARK as the last message.
    NEED_FLUSH = 1;
    /// Wait for MIGRATE_DATA and carry it to the target.
    NEED_DATA_TRANSFER = 2;
}

flags! {
    /// Who moves the pointer: `SpiceMouseMode`, in 16 bits.
    pub struct MouseModes(u16);
    /// The server, from relative motion.
    SERVER = 1;
    /// The client, by absolute position.
    CLIENT = 2;
}

open_enum! {
    /// How bad a NOTIFY is: `SpiceNotifySeverity`.
    pub struct NotifySeverity(u32);
    /// For information.
    INFO = 0 "info";
    /// A warning.
    WARN = 1 "warning";
    /// An error.
    ERROR = 2 "error";
}

open_enum! {
    /// How visible a NOTIFY should be: `SpiceNotifyVisibility`.
    pub struct NotifyVisibility(u32);
    /// Low.
    LOW = 0 "low";
    /// Medium.
    MEDIUM = 1 "medium";
    /// High.
    HIGH = 2 "high";
}
