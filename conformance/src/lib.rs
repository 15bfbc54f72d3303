//! Validates third-party SPICE servers, clients and captures.
#![forbid(unsafe_code)]

pub mod case;
pub mod cases;
pub mod context;
pub mod peer;
pub mod subject;
pub mod trace;
