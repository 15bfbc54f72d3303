//! The messages with which SPICE hosts hand a running guest and its client over to each other.
//!
//! A SPICE client talks to a server over one connection per channel. Each begins with the [link stage](link), in which both
//! sides say what they can do ([`caps`]); then messages follow in [frames](frame). This crate parses and writes all of that, the
//! [messages](message) of every channel's base and of the main channel, where migration takes place, and the
//! [state] that travels with a channel. It does no I/O, allocates nothing while decoding, and panics on no input: a test
//! builds a program that decodes and encodes everything, and that does not link if any code that could panic is left in it
//! (`tests/no_std.rs`).
//!
//! [`migrate`] has the hand-over itself: source and target host, their servers and the client as state machines without I/O, and an
//! observer that judges a conversation from outside.
//!
//! # The three schemes
//!
//! Which one takes place depends on what the client said in the link stage, and what the source's host allows.
//! `S` is the source's server, `T` the target's, `C` the client; all on the main channel unless another is named.
//!
//! **Switch-host** needs nothing of the client. It is told where to start anew when the guest has moved:
//!
//! ```text
//! S -> C   MIGRATE_SWITCH_HOST(T)
//! C -> T   a new session: link with connection id 0
//! ```
//!
//! **Semi-seamless** needs [`SEMI_SEAMLESS_MIGRATE`](caps::MainCapability::SEMI_SEAMLESS_MIGRATE). The client connects to the target
//! beforehand, and its session restarts there:
//!
//! ```text
//! S -> C   MIGRATE_BEGIN(T)
//! C -> T   link every channel with the session's id; nothing is sent on them
//! C -> S   MIGRATE_CONNECTED, or MIGRATE_CONNECT_ERROR
//!          … the guest moves; the session goes on at the source …
//! S -> C   MIGRATE_END
//! C -> T   MIGRATE_END
//! T -> C   INIT with the same session id, and the other channels begin anew
//! ```
//!
//! **Seamless** needs [`SEAMLESS_MIGRATE`](caps::MainCapability::SEAMLESS_MIGRATE) and
//! [`AGENT_CONNECTED_TOKENS`](caps::MainCapability::AGENT_CONNECTED_TOKENS). Each channel's state is carried over, and no message is
//! lost; caches that the servers reset are:
//!
//! ```text
//! S -> C   MIGRATE_BEGIN_SEAMLESS(T, version)
//! C -> T   link main, MIGRATE_DST_DO_SEAMLESS(version)
//! T -> C   MIGRATE_DST_SEAMLESS_ACK (after a NACK, and where T lacks the bit, all goes on semi-seamlessly)
//! C -> T   link the other channels
//! C -> S   MIGRATE_CONNECTED_SEAMLESS
//!          … the guest moves …
//! S -> C   on every channel: MIGRATE(flags)
//! C -> S     MIGRATE_FLUSH_MARK, if the flags ask for it
//! S -> C     MIGRATE_DATA, if the flags announce it
//! C -> T     MIGRATE_DATA, byte for byte; the channel goes on at the target
//! ```
//!
//! In the last two, the source may call everything off with MIGRATE_CANCEL until it has ended it.
//!
//! # Examples
//!
//! A source announces a semi-seamless migration, and a client reads it:
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
//! A client is about to be switched over seamlessly, on its inputs channel with mini headers:
//!
//! ```
//! use spice_migration::frame::{self, HeaderKind};
//! use spice_migration::message::{MigrateFlags, server};
//! use spice_migration::{ChannelType, ClientMessage, ServerMessage, limits};
//!
//! let stream = b"\x01\0\x04\0\0\0\x03\0\0\0";
//! let (frame, _) = frame::cut(HeaderKind::Mini, stream, 1, limits::MAX_BODY)?.unwrap();
//! let ServerMessage::Migrate(server::Migrate { flags }) =
//!     ServerMessage::decode(ChannelType::INPUTS, frame.header.id, frame.body)?
//! else {
//!     unreachable!()
//! };
//! assert!(flags.contains(MigrateFlags::NEED_FLUSH | MigrateFlags::NEED_DATA_TRANSFER));
//!
//! let mut answer = [0; 16];
//! let length = frame::encode(HeaderKind::Mini, 1, &ClientMessage::MigrateFlushMark, &mut answer)?;
//! assert_eq!(answer[..length], [4, 0, 0, 0, 0, 0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`state`] shows how a target reads what the client then brings, and `examples/capabilities.rs` which scheme a server offers.
//!
//! # Stricter than the peers
//!
//! spice-common's generated code lets more through than this crate. These are decisions, made so that what decodes is valid;
//! `fuzz/DIFFERENTIAL.md` in the repository counts each of them against that code:
//!
//! - bytes behind the last field are refused, except behind strings by offset, where they may be padding;
//! - strings without their NUL, with one inside, or longer than [`limits::MAX_TEXT`];
//! - offsets that lead into the fixed part, a size without an offset, and an offset without a size;
//! - a MIGRATE_SWITCH_HOST without a host.
//!
//! One decision goes the other way: NOTIFY may end in a NUL, which spice-server sends and `spice.proto` does not have.
//!
//! # Features
//!
//! - `alloc`: [`frame::Deframer`], which keeps a buffer, [`caps::CapabilitySet`], and [`migrate`].
//! - `std` (default): `alloc`, and errors become `std::io::Error` with `?`.
//! - `arbitrary`: `arbitrary::Arbitrary` for messages, link messages and migration data, whose values are all valid.
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
#[cfg(any(feature = "std", test))]
extern crate std;

pub mod caps;
mod channel;
pub mod error;
pub mod frame;
pub mod limits;
pub mod link;
pub mod major1;
pub mod message;
#[cfg(feature = "alloc")]
pub mod migrate;
pub mod state;
pub mod sub_message;
mod wire;

pub use channel::ChannelType;
pub use error::{DecodeError, EncodeError, Fault};
pub use message::{ClientMessage, Destination, ServerMessage};
pub use wire::{Data, List, ListItem, Text, WireArray};
