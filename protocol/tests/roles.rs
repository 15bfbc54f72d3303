//! Each role alone, against what the requirements say of it: their ids are in the names. What holds for the roles together is
//! in `tests/model`.
#![cfg(feature = "alloc")]

use std::fmt::Debug;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use spice_migration::ChannelType;
use spice_migration::message::{ChannelId, MigrateFlags};
use spice_migration::migrate::source_host::{Completion, HandOver};
use spice_migration::migrate::source_server::Support;
use spice_migration::migrate::{
    Client, FromSource, FromTarget, Role, Scheme, SourceHost, SourceServer, TargetHost, TargetServer, ToSource,
    ToTarget, client, migrate_flags, source_host, source_server, target_host, target_server,
};

const MAIN: ChannelId = ChannelId { channel_type: ChannelType::MAIN, id: 0 };
const INPUTS: ChannelId = ChannelId { channel_type: ChannelType::INPUTS, id: 0 };
const CURSOR: ChannelId = ChannelId { channel_type: ChannelType::CURSOR, id: 0 };
const CHANNELS: [ChannelId; 3] = [MAIN, INPUTS, CURSOR];

const FULL: Support = Support { semi_seamless: true, seamless: true };
const SEMI: Support = Support { semi_seamless: true, seamless: false };
const SEAMLESS_ALONE: Support = Support { semi_seamless: false, seamless: true };
const NONE: Support = Support { semi_seamless: false, seamless: false };

const BOTH: MigrateFlags = MigrateFlags(3);

/// Nothing that is allowed is refused.
fn at<R: Role>(role: &mut R, seconds: u64, input: R::Input) -> Vec<R::Effect> {
    role.handle(Duration::from_secs(seconds), input).expect("allowed")
}

/// What is not allowed is refused, and changes nothing.
fn refused<R: Role<Effect: Debug> + Clone + PartialEq + Debug>(role: &mut R, input: R::Input) -> &'static str {
    let before = role.clone();
    let violation = role.handle(Duration::from_secs(1), input).unwrap_err();
    assert_eq!(*role, before);
    violation.requirement
}

mod source_servers {
    use super::*;
    use source_server::{Effect, Input};

    /// With these clients, numbered from 0, and a destination.
    pub(super) fn server(seamless: bool, clients: &[Support]) -> SourceServer {
        let mut server = SourceServer::new(seamless);
        for (client, support) in (0..).zip(clients) {
            for channel in CHANNELS {
                assert_eq!(at(&mut server, 0, Input::Linked { client, channel, support: *support }), []);
            }
        }
        assert_eq!(at(&mut server, 0, Input::MigrateInfo), []);
        server
    }

    /// With one client, that has answered thus.
    fn answered(support: Support, answer: ToSource) -> SourceServer {
        let mut server = server(true, &[support]);
        at(&mut server, 0, Input::MigrateConnect);
        assert_eq!(at(&mut server, 0, says(0, answer)), [Effect::ConnectComplete]);
        server
    }

    fn says(client: u32, message: ToSource) -> Input {
        Input::Message { client, channel: MAIN, message }
    }

    fn flush(channel: ChannelId) -> Input {
        Input::Message { client: 0, channel, message: ToSource::FlushMark }
    }

    fn closed(channel: ChannelId) -> Input {
        Input::Closed { client: 0, channel }
    }

    fn to(client: u32, message: FromSource) -> Effect {
        Effect::Send { client, channel: MAIN, message }
    }

    fn on(channel: ChannelId, message: FromSource) -> Effect {
        Effect::Send { client: 0, channel, message }
    }

    const SEAMLESSLY: FromSource = FromSource::BeginSeamless { version: 1 };
    const END: Input = Input::MigrateEnd { completed: true };
    const FAILED: Input = Input::MigrateEnd { completed: false };

    #[test]
    fn s1_s2_what_a_client_can_do_decides_what_it_is_told() {
        for (host_allows, support, told) in [
            (true, FULL, Some(SEAMLESSLY)),
            (true, SEAMLESS_ALONE, Some(SEAMLESSLY)),
            (true, SEMI, Some(FromSource::Begin)),
            (true, NONE, None),
            (false, FULL, Some(FromSource::Begin)),
            (false, SEAMLESS_ALONE, None),
        ] {
            let mut server = server(host_allows, &[support]);
            let effects = at(&mut server, 0, Input::MigrateConnect);
            match told {
                Some(begin) => assert_eq!(effects, [to(0, begin)]),
                None => {
                    assert_eq!(effects, [Effect::ConnectComplete]);
                    assert_eq!(at(&mut server, 1, END), [to(0, FromSource::SwitchHost)]);
                }
            }
        }
    }

    #[test]
    fn s1_several_clients_are_not_migrated_seamlessly_and_each_is_told_its_own_end() {
        let mut server = server(true, &[FULL, SEMI, NONE]);
        let begun = [to(0, FromSource::Begin), to(1, FromSource::Begin)];
        assert_eq!(at(&mut server, 0, Input::MigrateConnect), begun);
        assert_eq!(at(&mut server, 1, says(1, ToSource::ConnectError)), []);
        assert_eq!(at(&mut server, 2, says(0, ToSource::Connected)), [Effect::ConnectComplete]);
        let ended = [to(0, FromSource::End), to(1, FromSource::SwitchHost), to(2, FromSource::SwitchHost)];
        assert_eq!(at(&mut server, 3, END), ended);
        assert_eq!(at(&mut server, 4, Input::Closed { client: 1, channel: MAIN }), []);
        assert_eq!(at(&mut server, 4, Input::Closed { client: 0, channel: MAIN }), []);
        assert_eq!(at(&mut server, 4, Input::Closed { client: 2, channel: MAIN }), [Effect::EndComplete]);
    }

    /// Each way in which the host is told that its clients are connected.
    #[test]
    fn s3_every_announcement_is_answered_once() {
        let answers = [ToSource::Connected, ToSource::ConnectedSeamless, ToSource::ConnectError];
        let on_time = answers.map(|answer| (1, says(0, answer)));
        for (seconds, input) in
            [(9, closed(MAIN)), (10, Input::Deadline), (1, FAILED), (1, END)].into_iter().chain(on_time)
        {
            let mut server = server(true, &[FULL]);
            assert_eq!(at(&mut server, 0, Input::MigrateConnect), [to(0, SEAMLESSLY)]);
            assert_eq!(server.deadline(), Some(Duration::from_secs(10)));
            let effects = at(&mut server, seconds, input);
            assert_eq!(effects.first(), Some(&Effect::ConnectComplete), "{input:?}");
            let later = [at(&mut server, 11, says(0, ToSource::Connected)), at(&mut server, 30, closed(MAIN))].concat();
            assert!(!effects[1..].iter().chain(&later).any(|effect| *effect == Effect::ConnectComplete), "{input:?}");
        }
        // Nobody to ask.
        assert_eq!(at(&mut server(true, &[]), 0, Input::MigrateConnect), [Effect::ConnectComplete]);
    }

    #[test]
    fn s4_s7_a_seamless_client_is_told_on_every_channel() {
        let mut server = answered(FULL, ToSource::ConnectedSeamless);
        let migrated = CHANNELS.map(|channel| on(channel, FromSource::Migrate(migrate_flags(channel.channel_type))));
        assert_eq!(at(&mut server, 1, END), migrated);
    }

    #[test]
    fn s4_another_client_is_told_on_its_main_channel() {
        for (support, answer, told) in [
            (FULL, ToSource::Connected, FromSource::End),
            (SEMI, ToSource::Connected, FromSource::End),
            (SEMI, ToSource::ConnectError, FromSource::SwitchHost),
            (SEAMLESS_ALONE, ToSource::Connected, FromSource::SwitchHost),
        ] {
            assert_eq!(at(&mut answered(support, answer), 1, END), [to(0, told)], "{support:?} {answer:?}");
        }
    }

    #[test]
    fn s5_a_failure_is_told_to_those_that_have_connected() {
        for (support, answer, told) in [
            (SEMI, ToSource::Connected, true),
            (FULL, ToSource::ConnectedSeamless, true),
            (SEAMLESS_ALONE, ToSource::ConnectedSeamless, false),
            (SEMI, ToSource::ConnectError, false),
        ] {
            let effects = at(&mut answered(support, answer), 1, FAILED);
            let cancel = told.then(|| to(0, FromSource::Cancel));
            assert_eq!(effects, cancel.into_iter().chain([Effect::EndComplete]).collect::<Vec<_>>(), "{support:?}");
        }
    }

    #[test]
    fn s6_an_answer_that_nobody_waits_for_is_taken_back() {
        for (answer, cancelled) in
            [(ToSource::Connected, true), (ToSource::ConnectedSeamless, true), (ToSource::ConnectError, false)]
        {
            let expected: Vec<_> = cancelled.then(|| to(0, FromSource::Cancel)).into_iter().collect();
            assert_eq!(at(&mut server(true, &[FULL]), 0, says(0, answer)), expected, "never asked: {answer:?}");
            let mut late = server(true, &[FULL]);
            at(&mut late, 0, Input::MigrateConnect);
            at(&mut late, 10, Input::Deadline);
            assert_eq!(at(&mut late, 11, says(0, answer)), expected, "late: {answer:?}");
        }
    }

    #[test]
    fn s7_the_channels_with_state_flush_and_transfer_it() {
        for channel in [
            ChannelType::MAIN,
            ChannelType::DISPLAY,
            ChannelType::INPUTS,
            ChannelType::SMARTCARD,
            ChannelType::USBREDIR,
            ChannelType::PORT,
            ChannelType::WEBDAV,
        ] {
            assert_eq!(migrate_flags(channel), BOTH, "{channel:?}");
        }
        for channel in [ChannelType::CURSOR, ChannelType::PLAYBACK, ChannelType::RECORD] {
            assert_eq!(migrate_flags(channel), MigrateFlags(0), "{channel:?}");
        }
    }

    #[test]
    fn s8_data_follows_the_flush_mark_and_nothing_follows_the_data() {
        let mut server = answered(FULL, ToSource::ConnectedSeamless);
        assert_eq!(refused(&mut server, flush(INPUTS)), "S8");
        at(&mut server, 1, END);
        assert_eq!(at(&mut server, 1, flush(INPUTS)), [on(INPUTS, FromSource::MigrateData)]);
        assert_eq!(refused(&mut server, flush(INPUTS)), "S8");
        assert_eq!(refused(&mut server, flush(CURSOR)), "S8");
        assert_eq!(at(&mut server, 1, says(0, ToSource::Connected)), [], "it has been told how it goes on");
    }

    #[test]
    fn s8_a_client_whose_channels_were_on_their_way_when_copying_failed_is_dropped() {
        let mut server = answered(FULL, ToSource::ConnectedSeamless);
        at(&mut server, 1, Input::MigrateStart);
        assert_eq!(at(&mut server, 2, FAILED), [Effect::Close(0), Effect::EndComplete]);
    }

    #[test]
    fn s9_a_client_that_does_not_leave_is_dropped_after_ten_seconds() {
        for answer in [ToSource::ConnectedSeamless, ToSource::Connected, ToSource::ConnectError] {
            let mut server = answered(FULL, answer);
            at(&mut server, 5, END);
            assert_eq!(server.deadline(), Some(Duration::from_secs(15)));
            assert_eq!(at(&mut server, 15, Input::Deadline), [Effect::Close(0), Effect::EndComplete]);
            assert_eq!(server.deadline(), None);
        }
    }

    #[test]
    fn s9_a_seamless_client_has_left_when_its_last_channel_has() {
        let mut server = answered(FULL, ToSource::ConnectedSeamless);
        at(&mut server, 1, END);
        assert_eq!(at(&mut server, 1, closed(MAIN)), []);
        assert_eq!(at(&mut server, 1, closed(CURSOR)), []);
        assert_eq!(at(&mut server, 1, closed(INPUTS)), [Effect::EndComplete]);
    }

    /// The documented departure: spice-server announces it at once.
    #[test]
    fn s10_a_second_destination_is_announced_when_the_answers_to_the_first_are_in() {
        for (answer, announced) in [
            (ToSource::Connected, vec![to(0, FromSource::Cancel), to(0, SEAMLESSLY)]),
            (ToSource::ConnectError, vec![to(0, SEAMLESSLY)]),
        ] {
            let mut server = server(true, &[FULL]);
            at(&mut server, 0, Input::MigrateConnect);
            assert_eq!(at(&mut server, 1, Input::MigrateInfo), []);
            assert_eq!(at(&mut server, 1, Input::MigrateConnect), []);
            assert_eq!(at(&mut server, 2, says(0, answer)), announced);
            assert_eq!(at(&mut server, 3, says(0, ToSource::Connected)), [Effect::ConnectComplete]);
        }
        let mut connected = answered(FULL, ToSource::ConnectedSeamless);
        assert_eq!(at(&mut connected, 1, Input::MigrateConnect), [to(0, FromSource::Cancel), to(0, SEAMLESSLY)]);
    }

    #[test]
    fn s10_a_client_that_is_late_for_the_first_destination_is_not_asked_for_the_second() {
        let mut server = server(true, &[FULL]);
        at(&mut server, 0, Input::MigrateConnect);
        at(&mut server, 1, Input::MigrateConnect);
        assert_eq!(at(&mut server, 10, Input::Deadline), [Effect::ConnectComplete]);
        assert_eq!(at(&mut server, 11, says(0, ToSource::Connected)), [to(0, FromSource::Cancel)]);
        assert_eq!(at(&mut server, 12, END), [to(0, FromSource::SwitchHost)]);
    }

    #[test]
    fn s11_what_a_client_must_not_say_is_refused_and_the_others_live_on() {
        let mut server = server(false, &[FULL, FULL]);
        at(&mut server, 0, Input::MigrateConnect);
        let on_inputs = Input::Message { client: 0, channel: INPUTS, message: ToSource::Connected };
        assert_eq!(refused(&mut server, on_inputs), "S11");
        assert_eq!(refused(&mut server, says(0, ToSource::ConnectedSeamless)), "S11");
        assert_eq!(refused(&mut server, Input::Linked { client: 0, channel: INPUTS, support: FULL }), "S11");
        assert_eq!(refused(&mut server, Input::Linked { client: 7, channel: INPUTS, support: FULL }), "L6");
        assert_eq!(at(&mut server, 1, closed(MAIN)), []);
        assert_eq!(at(&mut server, 1, says(1, ToSource::Connected)), [Effect::ConnectComplete]);
    }

    #[test]
    fn s12_d3_a_client_may_vanish_at_any_moment_and_both_calls_are_answered() {
        let steps = [
            Input::MigrateConnect,
            says(0, ToSource::ConnectedSeamless),
            Input::MigrateStart,
            flush(MAIN),
            END,
            flush(INPUTS),
        ];
        for vanishes in 0..=steps.len() {
            let mut server = server(true, &[FULL]);
            let mut effects = Vec::new();
            for (step, input) in (0..).zip(steps) {
                if step == vanishes {
                    CHANNELS.iter().for_each(|channel| effects.extend(at(&mut server, 1, closed(*channel))));
                }
                effects.extend(at(&mut server, 1, input));
            }
            if server.deadline().is_some() {
                effects.extend(at(&mut server, 11, Input::Deadline));
            }
            for answer in [Effect::ConnectComplete, Effect::EndComplete] {
                assert_eq!(effects.iter().filter(|it| **it == answer).count(), 1, "{answer:?} {vanishes}");
            }
        }
    }

    #[test]
    fn h1_the_host_calls_in_order() {
        let mut new = SourceServer::new(true);
        for call in [Input::MigrateConnect, Input::MigrateStart, END] {
            assert_eq!(refused(&mut new, call), "H1");
        }
        let mut leaving = answered(FULL, ToSource::Connected);
        at(&mut leaving, 1, END);
        for (call, requirement) in
            [(Input::MigrateConnect, "H1"), (Input::MigrateStart, "H1"), (END, "H1"), (FAILED, "H3")]
        {
            assert_eq!(refused(&mut leaving, call), requirement);
        }
    }
}

mod target_servers {
    use super::*;
    use target_server::{Effect, Input};

    fn link(client: u32, channel: ChannelId) -> Input {
        Input::Linked { client, channel, migrating: true, support: FULL }
    }

    fn says(channel: ChannelId, message: ToTarget) -> Input {
        Input::Message { client: 0, channel, message, valid: true }
    }

    fn to(message: FromTarget) -> Effect {
        Effect::Send { client: 0, message }
    }

    fn start(channel: ChannelId) -> Effect {
        Effect::Start { client: 0, channel }
    }

    const DO_SEAMLESS: ToTarget = ToTarget::DoSeamless { version: 1 };

    /// With a client that has linked these channels.
    fn linked(channels: &[ChannelId]) -> TargetServer {
        let mut server = TargetServer::new(false);
        at(&mut server, 0, Input::CanHoldTheGuest);
        channels.iter().for_each(|channel| assert_eq!(at(&mut server, 0, link(0, *channel)), []));
        server
    }

    #[test]
    fn t1_a_main_link_with_a_connection_id_announces_a_migrating_client() {
        assert!(linked(&[MAIN]).expects_client());
        let mut server = TargetServer::new(false);
        let fresh = Input::Linked { client: 0, channel: MAIN, migrating: false, support: FULL };
        assert_eq!(at(&mut server, 0, fresh), [to(FromTarget::Init)]);
        assert!(!server.expects_client());
        assert_eq!(at(&mut server, 0, link(0, INPUTS)), [start(INPUTS)]);
    }

    #[test]
    fn t2_t7_channels_are_held_until_the_first_end_of_a_client_with_semi_seamless() {
        let mut server = linked(&CHANNELS);
        let started = [to(FromTarget::Init), start(INPUTS), start(CURSOR)];
        assert_eq!(at(&mut server, 0, says(MAIN, ToTarget::End)), started);
        assert_eq!(at(&mut server, 0, says(MAIN, ToTarget::End)), [], "a second one");
        let mut without = TargetServer::new(false);
        at(&mut without, 0, Input::Linked { client: 0, channel: MAIN, migrating: true, support: NONE });
        assert_eq!(at(&mut without, 0, says(MAIN, ToTarget::End)), []);
        assert!(without.expects_client());
    }

    #[test]
    fn t2_a_channel_comes_after_the_main_channel_and_once() {
        assert_eq!(refused(&mut TargetServer::new(false), link(0, INPUTS)), "L6");
        assert_eq!(refused(&mut linked(&[MAIN, INPUTS]), link(0, INPUTS)), "T2");
    }

    #[test]
    fn t3_d2_seamless_is_agreed_on_once_with_one_client_a_known_version_and_a_host_that_can_hold() {
        for (can_hold, several, version, agreed) in [
            (true, false, 1, true),
            (true, false, 0, true),
            (true, false, 2, false),
            (true, true, 1, false),
            (false, false, 1, false),
        ] {
            let mut server = TargetServer::new(several);
            assert!(!server.advertises_seamless());
            if can_hold {
                at(&mut server, 0, Input::CanHoldTheGuest);
            }
            assert_eq!(server.advertises_seamless(), can_hold);
            at(&mut server, 0, link(0, MAIN));
            if several {
                at(&mut server, 0, link(1, MAIN));
            }
            let answer = if agreed { FromTarget::Ack } else { FromTarget::Nack };
            let asked = says(MAIN, ToTarget::DoSeamless { version });
            assert_eq!(at(&mut server, 0, asked), [to(answer)], "{can_hold} {several} {version}");
            assert_eq!(at(&mut server, 0, asked), [to(FromTarget::Nack)], "again");
        }
    }

    #[test]
    fn t3_t4_a_seamless_client_is_there_when_every_channel_with_state_has_delivered_it() {
        let mut server = linked(&[MAIN]);
        at(&mut server, 0, says(MAIN, DO_SEAMLESS));
        assert_eq!(at(&mut server, 0, link(0, INPUTS)), []);
        assert_eq!(at(&mut server, 0, link(0, CURSOR)), [start(CURSOR)], "it has no state");
        assert_eq!(at(&mut server, 0, Input::AwaitClient), []);
        assert_eq!(at(&mut server, 1, says(INPUTS, ToTarget::MigrateData)), [start(INPUTS)]);
        let complete = [start(MAIN), Effect::ClientMigrationComplete];
        assert_eq!(at(&mut server, 1, says(MAIN, ToTarget::MigrateData)), complete, "and no INIT");
    }

    #[test]
    fn t6_bad_or_unexpected_data_closes_its_channel_and_nothing_else() {
        let closed = [Effect::CloseChannel { client: 0, channel: INPUTS }];
        let mut server = linked(&[MAIN, INPUTS]);
        at(&mut server, 0, says(MAIN, DO_SEAMLESS));
        let bad = Input::Message { client: 0, channel: INPUTS, message: ToTarget::MigrateData, valid: false };
        assert_eq!(at(&mut server, 0, bad), closed);
        assert_eq!(at(&mut server, 0, says(MAIN, ToTarget::MigrateData)), [start(MAIN)]);
        assert!(!server.expects_client());
        // Twice; where none is due; and on the main channel, without which there is no client.
        assert_eq!(at(&mut server, 0, says(MAIN, ToTarget::MigrateData)), [Effect::Close(0)]);
        assert_eq!(at(&mut linked(&[MAIN, INPUTS]), 0, says(INPUTS, ToTarget::MigrateData)), closed);
    }

    #[test]
    fn l7_a_new_main_link_replaces_the_client_unless_several_are_allowed() {
        assert_eq!(at(&mut linked(&[MAIN]), 0, link(1, MAIN)), [Effect::Close(0)]);
        let mut several = TargetServer::new(true);
        at(&mut several, 0, link(0, MAIN));
        assert_eq!(at(&mut several, 0, link(1, MAIN)), []);
    }

    #[test]
    fn d1_d3_the_host_is_told_once_when_no_client_is_on_its_way() {
        let complete = [Effect::ClientMigrationComplete];
        assert_eq!(at(&mut TargetServer::new(false), 0, Input::AwaitClient), complete, "there is none");
        for (input, expected) in [
            (says(MAIN, ToTarget::End), vec![to(FromTarget::Init), Effect::ClientMigrationComplete]),
            (Input::Closed { client: 0, channel: MAIN }, complete.to_vec()),
            (Input::Deadline, vec![Effect::Close(0), Effect::ClientMigrationComplete]),
        ] {
            let mut server = linked(&[MAIN]);
            assert_eq!(at(&mut server, 5, Input::AwaitClient), []);
            assert_eq!(server.deadline(), Some(Duration::from_secs(15)));
            assert_eq!(at(&mut server, 15, input), expected);
            assert_eq!(server.deadline(), None);
            assert_eq!(at(&mut server, 30, Input::Closed { client: 0, channel: MAIN }), []);
        }
    }
}

mod clients {
    use super::*;
    use client::{Effect, Input, Phase};

    fn source(channel: ChannelId, message: FromSource) -> Input {
        Input::FromSource { channel, message }
    }

    fn linked(channel: ChannelId, seamless: bool) -> Input {
        Input::TargetLinked { channel, seamless }
    }

    fn to_source(channel: ChannelId, message: ToSource) -> Effect {
        Effect::ToSource { channel, message }
    }

    fn to_target(channel: ChannelId, message: ToTarget) -> Effect {
        Effect::ToTarget { channel, message }
    }

    const SEAMLESSLY: FromSource = FromSource::BeginSeamless { version: 1 };
    const ASK: ToTarget = ToTarget::DoSeamless { version: 1 };

    /// That has answered after BEGIN.
    fn connected() -> Client {
        let mut client = Client::new([MAIN, INPUTS]);
        at(&mut client, 0, source(MAIN, FromSource::Begin));
        at(&mut client, 0, linked(MAIN, true));
        assert_eq!(at(&mut client, 0, linked(INPUTS, false)), [to_source(MAIN, ToSource::Connected)]);
        client
    }

    /// That has answered after BEGIN_SEAMLESS and ACK.
    pub(super) fn connected_seamlessly() -> Client {
        let mut client = Client::new(CHANNELS);
        at(&mut client, 0, source(MAIN, SEAMLESSLY));
        at(&mut client, 0, linked(MAIN, true));
        at(&mut client, 0, linked(INPUTS, false));
        assert_eq!(at(&mut client, 0, linked(CURSOR, false)), []);
        let answer = [to_source(MAIN, ToSource::ConnectedSeamless)];
        assert_eq!(at(&mut client, 0, Input::FromTarget(FromTarget::Ack)), answer);
        client
    }

    #[test]
    fn c2_begin_links_the_main_channel_then_every_other_and_keeps_the_source() {
        let mut client = Client::new([INPUTS, CURSOR]);
        assert_eq!(at(&mut client, 0, source(MAIN, FromSource::Begin)), [Effect::LinkTarget(MAIN)]);
        let others = [Effect::LinkTarget(INPUTS), Effect::LinkTarget(CURSOR)];
        assert_eq!(at(&mut client, 0, linked(MAIN, false)), others);
        assert_eq!(refused(&mut client, source(INPUTS, FromSource::Begin)), "C2");
    }

    #[test]
    fn c3_c4_the_scheme_is_what_source_and_target_can_do_and_the_source_is_told_once() {
        for (begin, target_can, answer, told) in [
            (SEAMLESSLY, true, Some(FromTarget::Ack), ToSource::ConnectedSeamless),
            (SEAMLESSLY, true, Some(FromTarget::Nack), ToSource::Connected),
            (SEAMLESSLY, false, None, ToSource::Connected),
            (FromSource::Begin, true, None, ToSource::Connected),
        ] {
            let mut client = Client::new([MAIN]);
            at(&mut client, 0, source(MAIN, begin));
            let mut effects = at(&mut client, 0, linked(MAIN, target_can));
            if let Some(answer) = answer {
                assert_eq!(effects, [to_target(MAIN, ASK)]);
                effects = at(&mut client, 0, Input::FromTarget(answer));
            }
            assert_eq!(effects, [to_source(MAIN, told)]);
        }
    }

    #[test]
    fn c4_a_link_that_fails_or_does_not_come_is_an_error() {
        let error = [Effect::DropTarget, to_source(MAIN, ToSource::ConnectError)];
        for input in [Input::TargetClosed(MAIN), Input::TargetClosed(INPUTS), Input::Deadline] {
            let mut client = Client::new([MAIN, INPUTS]);
            at(&mut client, 0, source(MAIN, FromSource::Begin));
            at(&mut client, 0, linked(MAIN, false));
            assert_eq!(client.deadline(), Some(Duration::from_secs(10)));
            assert_eq!(at(&mut client, 10, input), error);
            assert_eq!(at(&mut client, 11, linked(INPUTS, false)), [Effect::CloseTarget(INPUTS)], "too late");
        }
    }

    #[test]
    fn c6_a_channel_flushes_carries_its_data_and_is_switched() {
        let mut client = connected_seamlessly();
        let migrate = |channel, flags| source(channel, FromSource::Migrate(flags));
        assert_eq!(at(&mut client, 1, migrate(CURSOR, MigrateFlags(0))), [Effect::Switch(CURSOR)]);
        assert_eq!(at(&mut client, 1, migrate(INPUTS, BOTH)), [to_source(INPUTS, ToSource::FlushMark)]);
        assert_eq!(refused(&mut client, migrate(INPUTS, BOTH)), "S8");
        assert_eq!(refused(&mut client, source(MAIN, FromSource::MigrateData)), "S8");
        let carried = |channel| vec![Effect::Switch(channel), to_target(channel, ToTarget::MigrateData)];
        assert_eq!(at(&mut client, 1, source(INPUTS, FromSource::MigrateData)), carried(INPUTS));
        assert_eq!(refused(&mut client, source(INPUTS, FromSource::MigrateData)), "S8", "exactly one");
        assert_eq!(at(&mut client, 1, migrate(MAIN, BOTH)), [to_source(MAIN, ToSource::FlushMark)]);
        let last = [carried(MAIN), vec![Effect::Moved(Scheme::Seamless)]].concat();
        assert_eq!(at(&mut client, 1, source(MAIN, FromSource::MigrateData)), last);
        assert_eq!((client.phase(), client.deadline()), (&Phase::Session, None));
    }

    #[test]
    fn c6_data_that_is_not_announced_and_a_channel_that_is_not_open_are_refused() {
        let unknown = ChannelId { channel_type: ChannelType::DISPLAY, id: 0 };
        assert_eq!(refused(&mut connected_seamlessly(), source(INPUTS, FromSource::MigrateData)), "S8");
        assert_eq!(refused(&mut connected_seamlessly(), source(unknown, FromSource::Migrate(BOTH))), "S8");
        assert_eq!(refused(&mut connected(), source(INPUTS, FromSource::Migrate(BOTH))), "S4");
    }

    #[test]
    fn c7_after_end_the_session_restarts_with_the_targets_init() {
        let mut client = connected();
        let ended = [Effect::DropSource, to_target(MAIN, ToTarget::End)];
        assert_eq!(refused(&mut client, Input::FromTarget(FromTarget::Init)), "T2");
        assert_eq!(at(&mut client, 1, source(MAIN, FromSource::End)), ended);
        let moved = [Effect::Moved(Scheme::SemiSeamless)];
        assert_eq!(at(&mut client, 1, Input::FromTarget(FromTarget::Init)), moved);
        assert_eq!(refused(&mut client, source(MAIN, FromSource::End)), "S4");
    }

    #[test]
    fn c7_an_init_that_does_not_come_ends_the_session_after_ten_seconds() {
        let mut client = connected();
        at(&mut client, 5, source(MAIN, FromSource::End));
        assert_eq!(client.deadline(), Some(Duration::from_secs(15)));
        assert!(at(&mut client, 15, Input::Deadline).contains(&Effect::SessionLost));
    }

    #[test]
    fn c9_cancel_drops_the_target_and_another_begin_works() {
        let mut connecting = Client::new([MAIN]);
        at(&mut connecting, 0, source(MAIN, FromSource::Begin));
        for mut client in [connecting, connected(), connected_seamlessly()] {
            assert_eq!(at(&mut client, 1, source(MAIN, FromSource::Cancel)), [Effect::DropTarget]);
            assert_eq!((client.phase(), client.deadline()), (&Phase::Session, None));
            assert_eq!(at(&mut client, 1, source(MAIN, FromSource::Cancel)), []);
            assert_eq!(at(&mut client, 2, source(MAIN, SEAMLESSLY)), [Effect::LinkTarget(MAIN)]);
        }
    }

    #[test]
    fn s10_a_begin_for_another_destination_drops_the_first() {
        let again = [Effect::DropTarget, Effect::LinkTarget(MAIN)];
        assert_eq!(at(&mut connected(), 1, source(MAIN, FromSource::Begin)), again);
    }

    #[test]
    fn c10_switch_host_is_followed_in_every_state() {
        let mut connecting = Client::new([MAIN]);
        at(&mut connecting, 0, source(MAIN, FromSource::Begin));
        let mut switching = connected_seamlessly();
        at(&mut switching, 0, source(INPUTS, FromSource::Migrate(BOTH)));
        for mut client in [Client::new([MAIN]), connecting, connected(), connected_seamlessly(), switching] {
            let afresh = [Effect::DropSource, Effect::DropTarget, Effect::StartAfresh];
            assert_eq!(at(&mut client, 1, source(MAIN, FromSource::SwitchHost)), afresh);
            assert_eq!((client.phase(), client.deadline()), (&Phase::Left, None));
        }
    }

    #[test]
    fn d3_a_client_that_exits_closes_everything_once() {
        for mut client in [Client::new([MAIN]), connected(), connected_seamlessly()] {
            assert_eq!(at(&mut client, 1, Input::Exit), [Effect::DropSource, Effect::DropTarget]);
            assert_eq!(at(&mut client, 1, Input::Exit), []);
        }
    }

    #[test]
    fn a_lost_channel_does_not_hold_up_the_others() {
        let mut client = connected_seamlessly();
        at(&mut client, 1, source(CURSOR, FromSource::Migrate(MigrateFlags(0))));
        at(&mut client, 1, source(MAIN, FromSource::Migrate(BOTH)));
        at(&mut client, 1, source(MAIN, FromSource::MigrateData));
        let lost = [Effect::CloseTarget(INPUTS), Effect::Moved(Scheme::Seamless)];
        assert_eq!(at(&mut client, 1, Input::SourceClosed(INPUTS)), lost);
    }
}

mod hosts {
    use super::*;

    mod sources {
        use super::*;
        use source_host::{Effect, Input};

        fn host(hand_over: HandOver, inputs: &[Input]) -> SourceHost {
            let mut host = SourceHost::new(Completion::WaitAtTarget, hand_over);
            inputs.iter().for_each(|input| drop(at(&mut host, 0, *input)));
            host
        }

        #[test]
        fn h1_h2_the_mails_steps_are_taken_in_order() {
            let mut host = host(HandOver::InParallel, &[]);
            let mut steps = Vec::new();
            let inputs =
                [Input::Migrate, Input::ConnectComplete, Input::LiveStageDone, Input::GuestMoved, Input::EndComplete];
            for input in inputs {
                steps.push(at(&mut host, 0, input));
            }
            let expected = [
                vec![Effect::MigrateInfo, Effect::MigrateConnect],
                vec![Effect::StartLiveStage],
                vec![Effect::StopGuest, Effect::MigrateStart, Effect::StartNonLiveStage],
                vec![Effect::MigrateEnd { completed: true }],
                vec![Effect::Release],
            ];
            assert_eq!(steps, expected);
        }

        #[test]
        fn h1_the_hand_over_may_come_after_the_last_stage() {
            let mut host = host(HandOver::Afterwards, &[Input::Migrate, Input::ConnectComplete]);
            assert_eq!(at(&mut host, 0, Input::LiveStageDone), [Effect::StopGuest, Effect::StartNonLiveStage]);
        }

        #[test]
        fn h1_a_stage_that_has_not_begun_cannot_be_done() {
            let mut connecting = host(HandOver::Afterwards, &[Input::Migrate]);
            for input in [Input::LiveStageDone, Input::GuestMoved] {
                assert_eq!(refused(&mut connecting, input), "H1");
            }
            let mut live = host(HandOver::Afterwards, &[Input::Migrate, Input::ConnectComplete]);
            assert_eq!(refused(&mut live, Input::Migrate), "H1");
        }

        #[test]
        fn h3_a_failed_or_cancelled_migration_leaves_the_guest_running() {
            for input in [Input::Cancel, Input::MigrationFailed] {
                let mut stages = host(HandOver::Afterwards, &[Input::Migrate]);
                let ended = [Effect::AbortMigration, Effect::MigrateEnd { completed: false }];
                assert_eq!(at(&mut stages.clone(), 0, input), ended);
                at(&mut stages, 0, Input::ConnectComplete);
                assert_eq!(at(&mut stages.clone(), 0, input), ended);
                at(&mut stages, 0, Input::LiveStageDone);
                assert!(!stages.guest_runs());
                let resumed = [Effect::AbortMigration, Effect::ResumeGuest, Effect::MigrateEnd { completed: false }];
                assert_eq!(at(&mut stages, 0, input), resumed);
                assert!(stages.guest_runs());
                assert_eq!(at(&mut stages, 0, Input::EndComplete), [], "it stays");
            }
        }

        #[test]
        fn h3_what_has_moved_cannot_be_called_back() {
            let steps = [Input::Migrate, Input::ConnectComplete, Input::LiveStageDone, Input::GuestMoved];
            for input in [Input::Cancel, Input::MigrationFailed] {
                assert_eq!(at(&mut host(HandOver::Afterwards, &steps), 0, input), []);
            }
        }
    }

    mod targets {
        use super::*;
        use target_host::{Effect, Input};

        /// To which the guest has come, with what it did then.
        fn arrived(completion: Completion) -> (TargetHost, Vec<Effect>) {
            let mut host = TargetHost::new(completion);
            assert_eq!(at(&mut host, 0, Input::Listen), [Effect::CanHoldTheGuest]);
            let effects = at(&mut host, 0, Input::GuestArrived);
            (host, effects)
        }

        #[test]
        fn d1_the_guest_starts_when_it_and_the_client_have_come() {
            let (mut host, effects) = arrived(Completion::WaitAtTarget);
            assert_eq!(effects, [Effect::AwaitClient]);
            assert_eq!(at(&mut host, 0, Input::ClientMigrationComplete), [Effect::StartGuest]);
            assert_eq!(refused(&mut host, Input::ClientMigrationComplete), "D1");
        }

        #[test]
        fn d1_nothing_starts_a_guest_that_is_not_there() {
            let mut host = TargetHost::new(Completion::WaitAtTarget);
            assert_eq!(refused(&mut host, Input::GuestArrived), "D1");
            at(&mut host, 0, Input::Listen);
            for input in [Input::ClientMigrationComplete, Input::SourceSaysStart, Input::Listen] {
                assert_eq!(refused(&mut host, input), "D1");
            }
            assert_eq!(at(&mut host, 0, Input::MigrationFailed), [Effect::Quit]);
        }

        #[test]
        fn d1_the_other_designs_wait_for_the_source_or_for_nobody() {
            let (mut host, effects) = arrived(Completion::SignalThroughClient);
            assert_eq!(effects, []);
            assert_eq!(at(&mut host, 0, Input::MigrationFailed), [], "the wait goes on");
            assert_eq!(at(&mut host, 0, Input::SourceSaysStart), [Effect::StartGuest]);
            assert_eq!(arrived(Completion::SourceWaits).1, [Effect::StartGuest]);
        }
    }
}

mod in_any_order {
    use super::*;

    /// Whatever happens: nothing panics, what is refused leaves the role as it was, and a time limit lies ahead.
    fn hold_out<R>(mut role: R, inputs: Vec<(R::Input, u64)>) -> Result<(), TestCaseError>
    where
        R: Role<Input: Copy + Debug> + Clone + PartialEq + Debug,
    {
        let mut now = Duration::ZERO;
        for (input, seconds) in inputs {
            now += Duration::from_secs(seconds);
            let before = role.clone();
            let set_before = role.deadline();
            if role.handle(now, input).is_err() {
                prop_assert_eq!(&role, &before, "{:?}", input);
            }
            let deadline = role.deadline();
            prop_assert!(deadline == set_before || deadline.is_none_or(|deadline| deadline > now), "{:?}", input);
        }
        Ok(())
    }

    fn inputs<I: Copy + Debug + 'static>(all: Vec<I>) -> impl Strategy<Value = Vec<(I, u64)>> {
        proptest::collection::vec((select(all), 0..12_u64), 0..40)
    }

    fn of_clients() -> Vec<client::Input> {
        use client::Input;
        let from_source = [
            FromSource::Begin,
            FromSource::BeginSeamless { version: 1 },
            FromSource::Cancel,
            FromSource::End,
            FromSource::SwitchHost,
            FromSource::Migrate(MigrateFlags(0)),
            FromSource::Migrate(BOTH),
            FromSource::MigrateData,
        ];
        let mut all = vec![Input::Exit, Input::Deadline];
        all.extend([FromTarget::Ack, FromTarget::Nack, FromTarget::Init].map(Input::FromTarget));
        // The client has no display.
        let display = ChannelId { channel_type: ChannelType::DISPLAY, id: 0 };
        for channel in CHANNELS.into_iter().chain([display]) {
            all.extend(from_source.map(|message| Input::FromSource { channel, message }));
            all.extend([true, false].map(|seamless| Input::TargetLinked { channel, seamless }));
            all.extend([Input::TargetClosed(channel), Input::SourceClosed(channel)]);
        }
        all
    }

    fn of_source_servers() -> Vec<source_server::Input> {
        use source_server::Input;
        let messages = [ToSource::Connected, ToSource::ConnectedSeamless, ToSource::ConnectError, ToSource::FlushMark];
        let mut all = vec![Input::MigrateInfo, Input::MigrateConnect, Input::MigrateStart, Input::Deadline];
        all.extend([true, false].map(|completed| Input::MigrateEnd { completed }));
        for (client, channel) in [0, 1].into_iter().flat_map(|client| CHANNELS.map(|channel| (client, channel))) {
            all.extend([FULL, SEMI, NONE].map(|support| Input::Linked { client, channel, support }));
            all.push(Input::Closed { client, channel });
            all.extend(messages.map(|message| Input::Message { client, channel, message }));
        }
        all
    }

    fn of_target_servers() -> Vec<target_server::Input> {
        use target_server::Input;
        let messages = [ToTarget::DoSeamless { version: 1 }, ToTarget::End, ToTarget::MigrateData];
        let mut all = vec![Input::CanHoldTheGuest, Input::AwaitClient, Input::Deadline];
        for (client, channel) in [0, 1].into_iter().flat_map(|client| CHANNELS.map(|channel| (client, channel))) {
            for flag in [true, false] {
                all.push(Input::Linked { client, channel, migrating: flag, support: FULL });
                all.extend(messages.map(|message| Input::Message { client, channel, message, valid: flag }));
            }
            all.push(Input::Closed { client, channel });
        }
        all
    }

    fn of_source_hosts() -> Vec<source_host::Input> {
        use source_host::Input;
        vec![
            Input::Migrate,
            Input::Cancel,
            Input::ConnectComplete,
            Input::LiveStageDone,
            Input::GuestMoved,
            Input::MigrationFailed,
            Input::EndComplete,
        ]
    }

    fn of_target_hosts() -> Vec<target_host::Input> {
        use target_host::Input;
        vec![
            Input::Listen,
            Input::GuestArrived,
            Input::MigrationFailed,
            Input::ClientMigrationComplete,
            Input::SourceSaysStart,
        ]
    }

    proptest! {
        #[test]
        fn a_client_holds_out(inputs in inputs(of_clients())) {
            hold_out(clients::connected_seamlessly(), inputs.clone())?;
            hold_out(Client::new(CHANNELS), inputs)?;
        }

        #[test]
        fn a_source_server_holds_out(inputs in inputs(of_source_servers())) {
            hold_out(source_servers::server(true, &[FULL]), inputs.clone())?;
            hold_out(SourceServer::new(true), inputs)?;
        }

        #[test]
        fn a_target_server_holds_out(inputs in inputs(of_target_servers()), several: bool) {
            hold_out(TargetServer::new(several), inputs)?;
        }

        #[test]
        fn hosts_hold_out(of_source in inputs(of_source_hosts()), of_target in inputs(of_target_hosts())) {
            hold_out(SourceHost::new(Completion::SignalThroughClient, HandOver::InParallel), of_source)?;
            hold_out(TargetHost::new(Completion::WaitAtTarget), of_target)?;
        }
    }
}
