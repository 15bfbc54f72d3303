//! Judges SPICE servers and their hosts in migrations: plays the client between two hosts.
#![forbid(unsafe_code)]

pub mod case;
pub mod cases;
pub mod cli;
pub mod context;
pub mod expectation;
pub mod peer;
pub mod registry;
pub mod report;
pub mod runner;
pub mod selfcheck;
pub mod serve;
pub mod situation;
pub mod subject;
pub mod trace;
