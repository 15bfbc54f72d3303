//! The messages with which SPICE hosts hand a running guest and its client over to each other.
//!
//! A SPICE client talks to a server over one connection per channel. Each begins with the [link stage](link); then messages
//! follow in [frames](frame). This crate parses and writes both: the [messages](message) of every channel's base and of the main channel,
//! where migration takes place. It does no I/O, allocates nothing while decoding, and panics on no input.
//!
//! | scheme | needs from the client | what happens |
//! |---|---|---|
//! | switch-host | nothing | when the guest has moved, `MIGRATE_SWITCH_HOST` tells the client where to start afresh |
//! | semi-seamless | `SEMI_SEAMLESS_MIGRATE` | the client connects to the target beforehand; after `MIGRATE_END` its session restarts there |
//! | seamless | `SEAMLESS_MIGRATE`, `AGENT_CONNECTED_TOKENS` | as before, and each channel's state is carried over in `MIGRATE_DATA`: nothing is lost |
//!
//! ```
//! use spice_migration::{ChannelType, Destination, ServerMessage, Text, message::Message, message::server::MigrateBegin};
//!
//! let begin = ServerMessage::MigrateBegin(MigrateBegin {
//!     destination: Destination {
//!         port: 5900,
//!         tls_port: Destination::NO_PORT,
//!         host: Text::new(b"target.example").unwrap(),
//!         cert_subject: None,
//!     },
//! });
//! let mut body = [0; 64];
//! let length = begin.encode(&mut body)?;
//!
//! let received = ServerMessage::decode(ChannelType::MAIN, 101, &body[..length])?;
//! assert_eq!(received, begin);
//!
//! let error = ServerMessage::decode(ChannelType::MAIN, 101, &body[..length - 1]).unwrap_err();
//! assert_eq!(error.to_string(), "SPICE_MSG_MAIN_MIGRATE_BEGIN: host at byte 4: it lies beyond the bytes present");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Stricter than the peers
//!
//! spice-common's generated code lets more through than this crate. These are decisions, made so that what decodes is valid:
//! bytes behind the last field are refused (except behind strings by offset, where they may be padding), and so are strings
//! without their NUL or with one inside, and offsets that lead into the fixed part.
//!
//! # Features
//!
//! - `alloc` (default): `frame::Deframer`, which keeps a buffer.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::cast_lossless,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod caps;
pub mod error;
pub mod frame;
pub mod limits;
pub mod link;
pub mod major1;
pub mod message;
pub mod state;
pub mod sub_message;
mod wire;

pub use error::{DecodeError, EncodeError, Fault};
pub use link::ChannelType;
pub use message::{ClientMessage, Destination, ServerMessage};
pub use wire::{Data, List, ListItem, Text};
