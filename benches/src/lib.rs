//! Holds `spice-migration` against the limit, a hand-written cursor, and against what people otherwise use.
//!
//! Each baseline decodes, by id, the main channel's messages that [`cases`] lists; the [`cursor`] also decodes and encodes all
//! others and cuts frames. [`measured`] runs each in the same loop, which the bench targets time and whose instructions
//! `src/bin/instructions.rs` counts. The README has the numbers.
#![forbid(unsafe_code)]

pub mod binrw;
pub mod cases;
pub mod cursor;
pub mod measured;
pub mod message;
pub mod nom_usual;
pub mod ours;
#[cfg(feature = "spice-common")]
pub mod spice_common;
pub mod zerocopy;
