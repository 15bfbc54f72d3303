//! Mistakes that a role can make. The model must notice each.

use spice_migration::message::ChannelId;
use spice_migration::migrate::{
    FromSource, FromTarget, ToSource, ToTarget, client, source_host, source_server, target_host, target_server,
};

use crate::world::{INPUTS, MAIN};

/// One mistake, made at every opportunity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mistake {
    ClientAnswersBeforeItIsLinked,
    ClientDoesNotFlush,
    ClientStaysAtTheSource,
    ClientKeepsTheDataToItself,
    ClientDoesNotSayThatItHasCome,
    SourceServerNeverSaysConnected,
    SourceServerSaysConnectedTwice,
    SourceServerNeverSaysEnded,
    SourceServerDoesNotWaitForTheFlush,
    SourceServerSwitchesHostInPlaceOfEnding,
    SourceServerForgetsToCancel,
    SourceHostDoesNotStopTheGuest,
    SourceHostDoesNotResumeTheGuest,
    SourceHostLeavesBeforeItsClient,
    TargetServerNeverSaysThatTheClientHasCome,
    TargetServerSaysSoTooEarly,
    TargetServerSendsNoInit,
    TargetServerForgetsAChannel,
    TargetHostDoesNotWait,
    TargetHostDoesNotStartTheGuest,
    TargetHostDoesNotSayThatItCanHold,
}

impl Mistake {
    /// Each with a rule that it breaks, or a witness that is not seen any more.
    pub const ALL: [(Self, &'static str); 21] = [
        (Self::ClientAnswersBeforeItIsLinked, "no role is given what it must not be"),
        (Self::ClientDoesNotFlush, "a client that stays ends with a working session"),
        (Self::ClientStaysAtTheSource, "a client that stays ends with a working session"),
        (Self::ClientKeepsTheDataToItself, "seamlessly, each message comes once and in order"),
        (Self::ClientDoesNotSayThatItHasCome, "a semi-seamless migration"),
        (Self::SourceServerNeverSaysConnected, "no host waits for ever"),
        (Self::SourceServerSaysConnectedTwice, "every call of a host is answered once"),
        (Self::SourceServerNeverSaysEnded, "no host waits for ever"),
        (Self::SourceServerDoesNotWaitForTheFlush, "seamlessly, each message comes once and in order"),
        (Self::SourceServerSwitchesHostInPlaceOfEnding, "a semi-seamless migration"),
        (Self::SourceServerForgetsToCancel, "a cancelled migration that takes the client back"),
        (Self::SourceHostDoesNotStopTheGuest, "the guest never runs on both hosts"),
        (Self::SourceHostDoesNotResumeTheGuest, "in the end the guest runs on exactly one host"),
        (Self::SourceHostLeavesBeforeItsClient, "a client that stays ends with a working session"),
        (Self::TargetServerNeverSaysThatTheClientHasCome, "no host waits for ever"),
        (Self::TargetServerSaysSoTooEarly, "no role is given what it must not be"),
        (Self::TargetServerSendsNoInit, "a client that stays ends with a working session"),
        (Self::TargetServerForgetsAChannel, "seamlessly, each message comes once and in order"),
        (
            Self::TargetHostDoesNotWait,
            "the guest starts at the target only when the client has come, is gone or has run out of time",
        ),
        (Self::TargetHostDoesNotStartTheGuest, "in the end the guest runs on exactly one host"),
        (Self::TargetHostDoesNotSayThatItCanHold, "a seamless migration with messages on their way"),
    ];

    pub fn of_client(self, effects: &mut Vec<client::Effect>) {
        use client::Effect;
        let to_target = |message| Effect::ToTarget { channel: MAIN, message };
        match self {
            Self::ClientAnswersBeforeItIsLinked => after(effects, |effect| {
                (effect == Effect::LinkTarget(MAIN))
                    .then_some(Effect::ToSource { channel: MAIN, message: ToSource::Connected })
            }),
            Self::ClientDoesNotFlush => {
                effects.retain(|it| !matches!(it, Effect::ToSource { message: ToSource::FlushMark, .. }));
            }
            Self::ClientStaysAtTheSource => effects.retain(|it| !matches!(it, Effect::Switch(_) | Effect::DropSource)),
            Self::ClientKeepsTheDataToItself => {
                effects.retain(|it| !matches!(it, Effect::ToTarget { message: ToTarget::MigrateData, .. }));
            }
            Self::ClientDoesNotSayThatItHasCome => effects.retain(|it| *it != to_target(ToTarget::End)),
            _ => {}
        }
    }

    pub fn of_source_server(self, effects: &mut Vec<source_server::Effect>) {
        use source_server::Effect;
        match self {
            Self::SourceServerNeverSaysConnected => effects.retain(|it| *it != Effect::ConnectComplete),
            Self::SourceServerSaysConnectedTwice => {
                after(effects, |it| (it == Effect::ConnectComplete).then_some(Effect::ConnectComplete));
            }
            Self::SourceServerNeverSaysEnded => effects.retain(|it| *it != Effect::EndComplete),
            Self::SourceServerDoesNotWaitForTheFlush => after(effects, |it| match it {
                Effect::Send { client, channel, message: FromSource::Migrate(_) } if has_data(channel) => {
                    Some(Effect::Send { client, channel, message: FromSource::MigrateData })
                }
                _ => None,
            }),
            Self::SourceServerSwitchesHostInPlaceOfEnding => {
                for effect in effects {
                    if let Effect::Send { message: message @ FromSource::End, .. } = effect {
                        *message = FromSource::SwitchHost;
                    }
                }
            }
            Self::SourceServerForgetsToCancel => {
                effects.retain(|it| !matches!(it, Effect::Send { message: FromSource::Cancel, .. }));
            }
            _ => {}
        }
    }

    pub fn of_source_host(self, effects: &mut Vec<source_host::Effect>) {
        use source_host::Effect;
        match self {
            Self::SourceHostDoesNotStopTheGuest => effects.retain(|it| *it != Effect::StopGuest),
            Self::SourceHostDoesNotResumeTheGuest => effects.retain(|it| *it != Effect::ResumeGuest),
            Self::SourceHostLeavesBeforeItsClient => {
                after(effects, |it| (it == Effect::MigrateEnd { completed: true }).then_some(Effect::Release));
            }
            _ => {}
        }
    }

    pub fn of_target_server(self, effects: &mut Vec<target_server::Effect>) {
        use target_server::Effect;
        match self {
            Self::TargetServerNeverSaysThatTheClientHasCome => {
                effects.retain(|it| *it != Effect::ClientMigrationComplete);
            }
            Self::TargetServerSaysSoTooEarly => after(effects, |it| {
                matches!(it, Effect::Send { message: FromTarget::Ack, .. }).then_some(Effect::ClientMigrationComplete)
            }),
            Self::TargetServerSendsNoInit => {
                effects.retain(|it| !matches!(it, Effect::Send { message: FromTarget::Init, .. }));
            }
            Self::TargetServerForgetsAChannel => {
                effects.retain(|it| !matches!(it, Effect::Start { channel: INPUTS, .. }));
            }
            _ => {}
        }
    }

    pub fn of_target_host(self, effects: &mut Vec<target_host::Effect>) {
        use target_host::Effect;
        match self {
            Self::TargetHostDoesNotWait => {
                after(effects, |it| (it == Effect::AwaitClient).then_some(Effect::StartGuest));
                effects.reverse();
            }
            Self::TargetHostDoesNotStartTheGuest => effects.retain(|it| *it != Effect::StartGuest),
            Self::TargetHostDoesNotSayThatItCanHold => effects.retain(|it| *it != Effect::CanHoldTheGuest),
            _ => {}
        }
    }
}

/// Adds an effect behind those for which `extra` has one.
fn after<E: Copy>(effects: &mut Vec<E>, extra: impl Fn(E) -> Option<E>) {
    *effects = effects.iter().flat_map(|effect| [Some(*effect), extra(*effect)]).flatten().collect();
}

fn has_data(channel: ChannelId) -> bool {
    channel == MAIN || channel == INPUTS
}
