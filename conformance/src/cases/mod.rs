//! The cases, one file per group.
//!
//! A step that only leads up to what a case is about ends in `?`: when it goes wrong the case is inconclusive, and the case that
//! is about that step fails. What a case is about ends in `.or_fail(requirement)?` or goes through [`check`].

mod agent;
mod cancel;
mod capabilities;
mod channel;
mod child;
mod clients;
mod cut;
mod data;
mod link;
mod main;
mod malformed;
mod message;
mod repeat;
mod seamless;
mod segments;
mod semi_seamless;
mod several;
mod switch_host;
mod time;
mod tls;
mod vanish;

use std::sync::LazyLock;

use spice_migration::caps::MainCapability;

use crate::{
    case::{Case, Verdict, check},
    peer::client::{Channel, Received, Session},
};

/// What a client says that can be migrated semi-seamlessly, and no better.
const SEMI: &[MainCapability] = &[MainCapability::SEMI_SEAMLESS_MIGRATE];

/// All cases, in the order in which they are listed.
pub fn all() -> impl Iterator<Item = &'static Case> {
    static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
        let groups = [
            link::cases(),
            segments::cases(),
            main::cases(),
            semi_seamless::cases(),
            seamless::cases(),
            switch_host::cases(),
            cancel::cases(),
            message::cases(),
            malformed::cases(),
            data::cases(),
            channel::cases(),
            vanish::cases(),
            cut::cases(),
            child::cases(),
            capabilities::cases(),
            clients::cases(),
            several::cases(),
            repeat::cases(),
            tls::cases(),
            agent::cases(),
            time::cases(),
        ];
        groups.into_iter().flatten().collect()
    });
    CASES.iter()
}

/// Declares the cases of a group: slug, requirements, level, `waits` or not, title, what is sent, what is expected, function.
macro_rules! cases {
    ($(
        $id:literal [$($requirement:literal),+] $level:ident $($waits:ident)?
        $title:literal
        sends $sent:literal
        expects $expected:literal
        => $function:path;
    )*) => {
        pub(super) fn cases() -> Vec<crate::case::Case> {
            vec![$(
                crate::case::Case {
                    id: $id.into(),
                    title: $title.into(),
                    requirements: &[$($requirement),+],
                    level: crate::case::Level::$level,
                    sent: $sent.into(),
                    expected: $expected.into(),
                    waits: cases!(@waits $($waits)?),
                    run: crate::case::run(|context| Box::pin($function(context))),
                },
            )*]
        }
    };
    (@waits waits) => { true };
    (@waits) => { false };
}
use cases;

/// Fails the case if there is a message that should not be.
fn check_absent(
    found: Option<&Received>,
    requirement: &'static str,
    channel: &Channel,
    expected: &'static str,
) -> Verdict {
    let got = found.map(Received::name).unwrap_or_default();
    check(found.is_none(), requirement, &channel.name, expected, got)
}

/// Fails the case if a channel of the session has ended.
fn check_all_open(session: &mut Session, requirement: &'static str) -> Verdict {
    session.channels().try_for_each(|channel| check_open(channel, requirement))
}

/// Fails the case if the channel has ended.
fn check_open(channel: &mut Channel, requirement: &'static str) -> Verdict {
    let ended = channel.has_ended();
    let got = ended.map(|closed| closed.to_string()).unwrap_or_default();
    check(ended.is_none(), requirement, &channel.name, "an open channel", got)
}
