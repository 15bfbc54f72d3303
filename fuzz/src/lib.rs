//! What must hold for any input. The cargo-fuzz targets are one line each; stable tests run the same oracles over the corpora.
//!
//! Each oracle takes bytes, and panics on a finding; its documentation says what that would mean.
#![forbid(unsafe_code)]

mod codec;
#[cfg(test)]
mod defects;
mod deframing;
#[cfg(feature = "spice-common")]
pub mod differential;
mod layout;
mod link;
mod messages;
mod mutation;
mod round_trip;
mod state;
mod sub_messages;

pub use deframing::deframing;
pub use link::link;
pub use messages::{client, server};
pub use round_trip::round_trip;
pub use state::state;
pub use sub_messages::sub_messages;

/// What a target runs: it panics on a finding.
pub type Oracle = fn(&[u8]);

/// Every oracle, by the name of its target and of its folder in the corpora.
pub const ORACLES: &[(&str, Oracle)] = &[
    ("deframing", deframing),
    ("link", link),
    ("server", server),
    ("client", client),
    ("sub_messages", sub_messages),
    ("state", state),
    ("round_trip", round_trip),
];
