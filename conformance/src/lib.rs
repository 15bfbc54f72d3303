//! Judges SPICE servers and their hosts in migrations: plays the client between two hosts.
//!
//! Most users want the program: `spice-conformance run`, `list`, `explain`, `serve`, `selfcheck`. As a library it is for those who put
//! the cases into a harness of their own, or judge a kind of host that is not here yet.
//!
//! - [`cases`] what is judged, against the requirements of the [`registry`];
//! - [`subject`] the hosts that are judged: the reference hosts of [`peer`], QEMU, or a server that runs already;
//! - [`context`], [`migration`] and [`situation`] what a case works with: it starts hosts, plays their client, and brings both somewhere;
//! - [`runner`] runs cases, [`report`] tells what came of it, and [`expectation`] what was known beforehand;
//! - [`selfcheck`] proves that the suite notices each defect of the reference hosts.
//!
//! ```
//! use spice_conformance::{cases, expectation::Expectations, runner::{Outcome, Plan}, subject::{Embedded, Subject}};
//!
//! # #[tokio::main]
//! # async fn main() {
//! let plan = Plan {
//!     cases: cases::all().filter(|case| case.id.starts_with("link/magic/")).collect(),
//!     // With one in place of `None`, the hosts have a defect.
//!     subject: Subject::Embedded(Embedded::new(None)),
//!     jobs: std::num::NonZeroUsize::MIN,
//!     fail_fast: false,
//!     expectations: Expectations::default(),
//! };
//! let run = plan.run(std::future::pending(), |_| {}).await;
//! assert_eq!(run.results.len(), 2);
//! for result in &run.results {
//!     assert_eq!(result.outcome(), Outcome::Pass, "{}: {:?}", result.case.id, result.reason());
//! }
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod case;
pub mod cases;
pub mod cli;
pub mod context;
pub mod expectation;
pub mod migration;
pub mod peer;
pub mod registry;
pub mod report;
pub mod runner;
pub mod selfcheck;
pub mod serve;
pub mod situation;
pub mod subject;
pub mod trace;
