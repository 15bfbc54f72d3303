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
    Client, FromSource, FromTarget, Role, Scheme, Server, SourceHost, SourceServer, TargetHost, TargetServer, ToSource,
    ToTarget, client, migrate_flags, server, source_host, source_server, target_host, target_server,
};

const MAIN: ChannelId = ChannelId { channel_type: ChannelType::MAIN, id: 0 };
const INPUTS: ChannelId = ChannelId { channel_type: ChannelType::INPUTS, id: 0 };
const CURSOR: ChannelId = ChannelId { channel_type: ChannelType::CURSOR, id: 0 };
const CHANNELS: [ChannelId; 3] = [MAIN, INPUTS, CURSOR];
const DISPLAY: ChannelId = ChannelId { channel_type: ChannelType::DISPLAY, id: 1 };

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

    /// The question that spice-server leaves open: there the first call is never answered.
    #[test]
    fn s3_an_end_while_answers_are_awaited_answers_both_calls() {
        for (end, told) in [(END, Some(FromSource::SwitchHost)), (FAILED, None)] {
            let mut server = server(true, &[FULL]);
            at(&mut server, 0, Input::MigrateConnect);
            let mut effects = at(&mut server, 1, end);
            effects.extend(at(&mut server, 2, closed(MAIN)));
            let told = told.map(|told| to(0, told));
            let expected: Vec<_> =
                [Effect::ConnectComplete].into_iter().chain(told).chain([Effect::EndComplete]).collect();
            assert_eq!(effects, expected);
        }
    }

    #[test]
    fn s3_a_deadline_that_has_not_come_changes_nothing() {
        let mut connecting = server(true, &[FULL]);
        at(&mut connecting, 0, Input::MigrateConnect);
        let mut leaving = answered(FULL, ToSource::Connected);
        at(&mut leaving, 0, END);
        for mut server in [connecting, leaving] {
            let before = server.clone();
            assert_eq!(at(&mut server, 9, Input::Deadline), []);
            assert_eq!(server, before);
        }
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
    fn s7_a_streaming_devices_display_moves_without_state() {
        let mut server = SourceServer::new(true);
        at(&mut server, 0, Input::StreamingDisplay(DISPLAY.id));
        for channel in [MAIN, DISPLAY, ChannelId { id: 0, ..DISPLAY }] {
            at(&mut server, 0, Input::Linked { client: 0, channel, support: FULL });
        }
        at(&mut server, 0, Input::MigrateInfo);
        at(&mut server, 0, Input::MigrateConnect);
        at(&mut server, 0, says(0, ToSource::ConnectedSeamless));
        let migrated = [
            on(MAIN, FromSource::Migrate(BOTH)),
            on(DISPLAY, FromSource::Migrate(MigrateFlags(0))),
            on(ChannelId { id: 0, ..DISPLAY }, FromSource::Migrate(BOTH)),
        ];
        assert_eq!(at(&mut server, 1, END), migrated);
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
        at(&mut server, 1, flush(MAIN));
        assert_eq!(at(&mut server, 1, closed(MAIN)), []);
        assert_eq!(at(&mut server, 1, closed(CURSOR)), []);
        assert_eq!(at(&mut server, 1, closed(INPUTS)), [Effect::EndComplete]);
    }

    #[test]
    fn s9_a_client_whose_main_channel_ends_before_its_data_was_sent_has_left() {
        let answered = answered(FULL, ToSource::ConnectedSeamless);
        let mut before = answered.clone();
        at(&mut before, 1, closed(MAIN));
        assert_eq!(at(&mut before, 1, END), [Effect::EndComplete]);
        let mut unflushed = answered;
        at(&mut unflushed, 1, END);
        assert_eq!(at(&mut unflushed, 1, closed(MAIN)), [Effect::EndComplete]);
    }

    #[test]
    fn s9_a_client_that_comes_when_the_guest_has_moved_is_told_where_to() {
        let mut server = answered(FULL, ToSource::Connected);
        at(&mut server, 1, END);
        let link = |channel| Input::Linked { client: 1, channel, support: FULL };
        assert_eq!(at(&mut server, 2, link(MAIN)), [to(1, FromSource::SwitchHost)]);
        assert_eq!(at(&mut server, 2, link(INPUTS)), []);
        let mut in_time = server.clone();
        assert_eq!(at(&mut in_time, 3, closed(MAIN)), [Effect::Close(1), Effect::EndComplete], "nobody waits for it");
        assert_eq!(at(&mut server, 11, Input::Deadline), [Effect::Close(0), Effect::Close(1), Effect::EndComplete]);
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
    use target_server::{AgentHere, AgentState, Effect, Input};

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
        for channel in [MAIN, INPUTS] {
            assert_eq!(refused(&mut linked(&[MAIN, INPUTS]), link(0, channel)), "T2");
        }
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
            assert_eq!(server.advertises_seamless(), can_hold && !several);
            at(&mut server, 0, link(0, MAIN));
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
    fn t3_t4_a_streaming_devices_display_has_no_data_to_deliver() {
        let mut server = linked(&[MAIN, DISPLAY]);
        at(&mut server, 0, Input::StreamingDisplay(DISPLAY.id));
        assert_eq!(at(&mut server, 0, says(MAIN, DO_SEAMLESS)), [to(FromTarget::Ack), start(DISPLAY)]);
        at(&mut server, 0, says(MAIN, ToTarget::MigrateData));
        assert!(server.serves(0));
    }

    #[test]
    fn t5_a_client_is_served_when_it_has_init_or_all_its_data() {
        let mut semi_seamless = linked(&[MAIN, INPUTS]);
        assert!(!semi_seamless.serves(0), "pending");
        at(&mut semi_seamless, 0, says(MAIN, ToTarget::End));
        assert!(semi_seamless.serves(0));
        at(&mut semi_seamless, 0, Input::Closed { client: 0, channel: MAIN });
        assert!(!semi_seamless.serves(0), "gone");

        let mut seamless = linked(&[MAIN, INPUTS, CURSOR]);
        for step in
            [says(MAIN, DO_SEAMLESS), says(MAIN, ToTarget::MigrateData), Input::Closed { client: 0, channel: CURSOR }]
        {
            at(&mut seamless, 0, step);
            assert!(!seamless.serves(0), "{step:?}");
        }
        at(&mut seamless, 0, says(INPUTS, ToTarget::MigrateData));
        assert!(seamless.serves(0));

        let mut fresh = TargetServer::new(false);
        at(&mut fresh, 0, Input::Linked { client: 0, channel: MAIN, migrating: false, support: FULL });
        assert!(fresh.serves(0) && !fresh.serves(1));
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

    /// Each case: the channels whose data has come, and what their client loses.
    #[test]
    fn t8_at_the_time_limit_a_client_loses_the_channels_that_still_await_their_data() {
        let lost = |channel| Effect::CloseChannel { client: 0, channel };
        for (come, loses, is_served) in [
            (&[MAIN][..], vec![lost(INPUTS), lost(DISPLAY)], true),
            (&[MAIN, DISPLAY], vec![lost(INPUTS)], true),
            (&[INPUTS, DISPLAY], vec![Effect::Close(0)], false),
            (&[], vec![Effect::Close(0)], false),
        ] {
            let mut server = linked(&[MAIN, INPUTS, CURSOR, DISPLAY]);
            at(&mut server, 0, says(MAIN, DO_SEAMLESS));
            come.iter().for_each(|channel| drop(at(&mut server, 0, says(*channel, ToTarget::MigrateData))));
            assert_eq!(at(&mut server, 5, Input::AwaitClient), []);
            assert_eq!(at(&mut server, 14, Input::Deadline), [], "not yet");
            let effects = at(&mut server, 15, Input::Deadline);
            assert_eq!(effects, [loses, vec![Effect::ClientMigrationComplete]].concat(), "{come:?}");
            assert_eq!((server.serves(0), server.expects_client(), server.deadline()), (is_served, false, None));
        }
    }

    #[test]
    fn t8_a_client_that_was_promised_nothing_is_closed_at_the_time_limit() {
        let mut server = linked(&[MAIN, INPUTS]);
        at(&mut server, 0, Input::AwaitClient);
        assert_eq!(at(&mut server, 10, Input::Deadline), [Effect::Close(0), Effect::ClientMigrationComplete]);
        assert_eq!(at(&mut server, 11, says(MAIN, ToTarget::End)), [], "nobody is there to say it");
    }

    #[test]
    fn t10_the_agents_state_is_kept_until_the_agent_attaches_and_a_client_is_told_of_what_it_does_not_know() {
        let tell = |disconnected, connected| AgentState::Tell { disconnected, connected };
        for (connected_at_source, here, state) in [
            (true, AgentHere::NotYet, AgentState::Keep),
            (true, AgentHere::Attached, AgentState::Restore),
            (true, AgentHere::Gone, tell(true, false)),
            (true, AgentHere::Another, tell(true, true)),
            (false, AgentHere::NotYet, tell(false, false)),
            (false, AgentHere::Attached, tell(false, true)),
            (false, AgentHere::Gone, tell(false, false)),
            (false, AgentHere::Another, tell(false, true)),
        ] {
            assert_eq!(here.receives(connected_at_source), state, "{connected_at_source} {here:?}");
        }
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
    use client::{Effect, Input, NoRoute, Phase, Route, Verify};
    use spice_migration::caps::MainCapability;
    use spice_migration::{Destination, Text};

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
    fn c1_what_is_advertised_is_what_makes_a_server_try_each_scheme() {
        let has = |capability| Client::CAPABILITIES.contains(&capability);
        let support = Support {
            semi_seamless: has(MainCapability::SEMI_SEAMLESS_MIGRATE),
            seamless: has(MainCapability::SEAMLESS_MIGRATE) && has(MainCapability::AGENT_CONNECTED_TOKENS),
        };
        assert_eq!(support, FULL);
    }

    #[test]
    fn c1_every_announcement_is_answered_within_the_time_limit() {
        for begin in [FromSource::Begin, SEAMLESSLY] {
            let mut client = Client::new([MAIN]);
            at(&mut client, 3, source(MAIN, begin));
            assert_eq!(client.deadline(), Some(Duration::from_secs(13)));
            assert_eq!(at(&mut client, 12, Input::Deadline), [], "not yet");
            let error = [Effect::DropTarget, to_source(MAIN, ToSource::ConnectError)];
            assert_eq!(at(&mut client, 13, Input::Deadline), error);
        }
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
    fn c10_a_client_that_has_left_follows_nobody() {
        let mut client = connected();
        at(&mut client, 0, Input::Exit);
        assert_eq!(at(&mut client, 1, source(MAIN, FromSource::SwitchHost)), []);
    }

    #[test]
    fn d3_a_client_that_exits_closes_everything_once() {
        for mut client in [Client::new([MAIN]), connected(), connected_seamlessly()] {
            assert_eq!(at(&mut client, 1, Input::Exit), [Effect::DropSource, Effect::DropTarget]);
            assert_eq!(at(&mut client, 1, Input::Exit), []);
        }
    }

    #[test]
    fn c8_what_a_session_keeps_depends_on_the_scheme() {
        let mut seamless = connected_seamlessly();
        let mut last = Vec::new();
        for channel in CHANNELS {
            last = at(&mut seamless, 1, source(channel, FromSource::Migrate(MigrateFlags(0))));
        }
        assert_eq!(last, [Effect::Switch(CURSOR), Effect::Moved(Scheme::Seamless)]);
        assert!(Scheme::Seamless.keeps_state());

        let mut semi_seamless = connected();
        at(&mut semi_seamless, 1, source(MAIN, FromSource::End));
        let moved = at(&mut semi_seamless, 1, Input::FromTarget(FromTarget::Init));
        assert_eq!(moved, [Effect::Moved(Scheme::SemiSeamless)]);
        assert!(!Scheme::SemiSeamless.keeps_state() && !Scheme::SwitchHost.keeps_state());
    }

    fn destination<'a>(port: u16, tls_port: u16, cert_subject: Option<&'a [u8]>) -> Destination<'a> {
        let text = |bytes| Text::new(bytes).unwrap();
        Destination { port, tls_port, host: text(b"target"), cert_subject: cert_subject.map(text) }
    }

    #[test]
    fn c11_ports_0_and_65535_mean_none() {
        for (port, expected) in [(0, None), (Destination::NO_PORT, None), (1, Some(1)), (0xfffe, Some(0xfffe))] {
            assert_eq!(destination(port, 0, None).plaintext_port(), expected);
            assert_eq!(destination(0, port, None).secure_port(), expected);
        }
    }

    #[test]
    fn c11_the_host_is_opaque() {
        // What Proxmox sends: a ticket for its proxy, which is no host name.
        let ticket = Text::new(b"pvespiceproxy:6553f100:100:node1::61001:0000\xff").unwrap();
        let destination = Destination { host: ticket, ..destination(0, 61000, None) };
        let route = Route::Tls { port: 61000, verify: Verify::HostName(ticket) };
        assert_eq!(Route::to(&destination, true), Ok(route));
    }

    #[test]
    fn c12_the_subject_is_verified_or_the_host_name_and_tls_never_becomes_plaintext() {
        let plaintext = Ok(Route::Plaintext { port: 5900 });
        let tls = |verify| Ok(Route::Tls { port: 5901, verify });
        let by_subject = tls(Verify::Subject(Text::new(b"CN=target").unwrap()));
        let by_name = tls(Verify::HostName(Text::new(b"target").unwrap()));
        let subject = Some(&b"CN=target"[..]);
        for (has_tls, port, tls_port, subject, route) in [
            (true, 5900, 5901, subject, by_subject),
            (true, 0, 5901, subject, by_subject),
            (true, 5900, 5901, None, by_name),
            (true, 5900, 5901, Some(&b""[..]), by_name),
            (true, 5900, 0, subject, Err(NoRoute::NoTlsPort)),
            (true, 5900, Destination::NO_PORT, None, Err(NoRoute::NoTlsPort)),
            (true, 0, 0, None, Err(NoRoute::NoPort)),
            (false, 5900, 5901, subject, plaintext),
            (false, 5900, 0, None, plaintext),
            (false, Destination::NO_PORT, 5901, subject, by_subject),
            (false, 0, 5901, None, by_name),
            (false, 0, Destination::NO_PORT, None, Err(NoRoute::NoPort)),
        ] {
            let destination = destination(port, tls_port, subject);
            assert_eq!(Route::to(&destination, has_tls), route, "{has_tls} {port} {tls_port} {subject:?}");
        }
    }

    #[test]
    fn t8_a_client_outlives_a_channel_that_the_target_closes_while_it_switches() {
        let mut client = connected_seamlessly();
        at(&mut client, 1, source(INPUTS, FromSource::Migrate(BOTH)));
        let mut switched = client.clone();
        assert_eq!(at(&mut client, 1, Input::TargetClosed(INPUTS)), [Effect::CloseSource(INPUTS)]);
        at(&mut client, 1, source(CURSOR, FromSource::Migrate(MigrateFlags(0))));
        at(&mut client, 1, source(MAIN, FromSource::Migrate(BOTH)));
        let carried = [Effect::Switch(MAIN), to_target(MAIN, ToTarget::MigrateData), Effect::Moved(Scheme::Seamless)];
        assert_eq!(at(&mut client, 1, source(MAIN, FromSource::MigrateData)), carried);
        // The lost channel is none of the session's any more.
        at(&mut client, 2, source(MAIN, FromSource::Begin));
        assert_eq!(at(&mut client, 2, linked(MAIN, false)), [Effect::LinkTarget(CURSOR)]);

        at(&mut switched, 1, source(INPUTS, FromSource::MigrateData));
        assert_eq!(at(&mut switched, 1, Input::TargetClosed(INPUTS)), [], "it has left the source");
        assert!(at(&mut switched, 1, Input::TargetClosed(MAIN)).contains(&Effect::SessionLost));
    }

    #[test]
    fn t8_the_last_channel_to_switch_may_be_the_one_that_is_lost() {
        let mut client = connected_seamlessly();
        at(&mut client, 1, source(CURSOR, FromSource::Migrate(MigrateFlags(0))));
        at(&mut client, 1, source(MAIN, FromSource::Migrate(BOTH)));
        at(&mut client, 1, source(MAIN, FromSource::MigrateData));
        let moved = [Effect::CloseSource(INPUTS), Effect::Moved(Scheme::Seamless)];
        assert_eq!(at(&mut client, 1, Input::TargetClosed(INPUTS)), moved);
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

mod servers {
    use super::*;
    use server::{Effect, Input};
    use source_server::Effect as OfSource;
    use target_server::Effect as OfTarget;

    fn link(client: u32, channel: ChannelId, migrating: bool) -> Input {
        Input::Linked { client, channel, migrating, support: FULL }
    }

    fn closed(client: u32, channel: ChannelId) -> Input {
        Input::Closed { client, channel }
    }

    fn to_source(client: u32, channel: ChannelId, message: ToSource) -> Input {
        Input::ToSource { client, channel, message }
    }

    fn to_target(client: u32, channel: ChannelId, message: ToTarget) -> Input {
        Input::ToTarget { client, channel, message, valid: true }
    }

    fn from_source(client: u32, channel: ChannelId, message: FromSource) -> Effect {
        Effect::Source(OfSource::Send { client, channel, message })
    }

    fn from_target(client: u32, message: FromTarget) -> Effect {
        Effect::Target(OfTarget::Send { client, message })
    }

    fn start(client: u32, channel: ChannelId) -> Effect {
        Effect::Target(OfTarget::Start { client, channel })
    }

    const SEAMLESSLY: FromSource = FromSource::BeginSeamless { version: 1 };
    const END: Input = Input::MigrateEnd { completed: true };
    const CONNECTED: Effect = Effect::Source(OfSource::ConnectComplete);
    const ENDED: Effect = Effect::Source(OfSource::EndComplete);
    const COMPLETE: Effect = Effect::Target(OfTarget::ClientMigrationComplete);
    const DO_SEAMLESS: ToTarget = ToTarget::DoSeamless { version: 1 };

    fn dropped(client: u32) -> Effect {
        Effect::Target(OfTarget::Close(client))
    }

    /// To which client 0 is on its way.
    fn arriving(channels: &[ChannelId]) -> Server {
        let mut server = Server::new(true, false);
        at(&mut server, 0, Input::CanHoldTheGuest);
        channels.iter().for_each(|channel| assert_eq!(at(&mut server, 0, link(0, *channel, true)), []));
        server
    }

    /// At which client 0 has begun its session.
    fn serving(several: bool) -> Server {
        let mut server = Server::new(true, several);
        assert_eq!(at(&mut server, 0, link(0, MAIN, false)), [from_target(0, FromTarget::Init)]);
        assert_eq!(at(&mut server, 0, link(0, INPUTS, false)), [start(0, INPUTS)]);
        server
    }

    /// The host asks for a further migration while client 0 is on its way.
    fn deferring(several: bool) -> Server {
        let mut server = Server::new(true, several);
        at(&mut server, 0, Input::CanHoldTheGuest);
        at(&mut server, 0, link(0, MAIN, true));
        at(&mut server, 0, Input::MigrateInfo);
        assert_eq!(at(&mut server, 1, Input::MigrateConnect), []);
        assert_eq!(server.deadline(), Some(Duration::from_secs(11)));
        server
    }

    /// From its link here to its end elsewhere, in the scheme that it came with.
    #[test]
    fn a_client_that_has_arrived_is_handed_on() {
        for arrives_seamlessly in [true, false] {
            for leaves_seamlessly in [true, false] {
                let mut server = arriving(&[MAIN, INPUTS]);
                if arrives_seamlessly {
                    at(&mut server, 0, to_target(0, MAIN, DO_SEAMLESS));
                    at(&mut server, 0, to_target(0, INPUTS, ToTarget::MigrateData));
                    at(&mut server, 0, to_target(0, MAIN, ToTarget::MigrateData));
                } else {
                    at(&mut server, 0, to_target(0, MAIN, ToTarget::End));
                }
                at(&mut server, 1, Input::MigrateInfo);
                let begun = [from_source(0, MAIN, SEAMLESSLY)];
                assert_eq!(at(&mut server, 1, Input::MigrateConnect), begun);
                if leaves_seamlessly {
                    assert_eq!(at(&mut server, 2, to_source(0, MAIN, ToSource::ConnectedSeamless)), [CONNECTED]);
                    let migrate = FromSource::Migrate(BOTH);
                    assert_eq!(at(&mut server, 3, END), [MAIN, INPUTS].map(|it| from_source(0, it, migrate)));
                    for channel in [MAIN, INPUTS] {
                        let data = [from_source(0, channel, FromSource::MigrateData)];
                        assert_eq!(at(&mut server, 3, to_source(0, channel, ToSource::FlushMark)), data);
                    }
                    // The main channel's end is not the session's, which goes on elsewhere.
                    assert_eq!(at(&mut server, 3, closed(0, MAIN)), []);
                    assert_eq!(at(&mut server, 3, closed(0, INPUTS)), [ENDED]);
                } else {
                    assert_eq!(at(&mut server, 2, to_source(0, MAIN, ToSource::Connected)), [CONNECTED]);
                    assert_eq!(at(&mut server, 3, END), [from_source(0, MAIN, FromSource::End)]);
                    assert_eq!(at(&mut server, 3, closed(0, MAIN)), [dropped(0), ENDED]);
                    assert_eq!(at(&mut server, 3, closed(0, INPUTS)), []);
                }
                assert_eq!(server.deadline(), None);
            }
        }
    }

    #[test]
    fn a_channel_that_is_linked_or_lost_later_is_handed_on_or_not() {
        let mut server = serving(false);
        at(&mut server, 0, link(0, CURSOR, false));
        at(&mut server, 0, closed(0, INPUTS));
        at(&mut server, 0, Input::MigrateInfo);
        at(&mut server, 0, Input::MigrateConnect);
        at(&mut server, 0, to_source(0, MAIN, ToSource::ConnectedSeamless));
        let told = [
            from_source(0, MAIN, FromSource::Migrate(BOTH)),
            from_source(0, CURSOR, FromSource::Migrate(MigrateFlags(0))),
        ];
        assert_eq!(at(&mut server, 0, END), told);
    }

    #[test]
    fn s8_1_nothing_is_answered_on_a_channel_that_was_told_to_migrate() {
        let mut server = serving(false);
        assert_eq!(at(&mut server, 0, to_target(0, MAIN, DO_SEAMLESS)), [from_target(0, FromTarget::Nack)]);
        at(&mut server, 0, Input::MigrateInfo);
        at(&mut server, 0, Input::MigrateConnect);
        at(&mut server, 0, to_source(0, MAIN, ToSource::ConnectedSeamless));
        at(&mut server, 0, END);
        assert_eq!(at(&mut server, 0, to_target(0, MAIN, DO_SEAMLESS)), []);
    }

    #[test]
    fn s7_t4_a_streaming_devices_display_comes_and_goes_without_state() {
        let mut server = arriving(&[MAIN, DISPLAY]);
        at(&mut server, 0, Input::StreamingDisplay(DISPLAY.id));
        assert!(at(&mut server, 0, to_target(0, MAIN, DO_SEAMLESS)).contains(&start(0, DISPLAY)));
        at(&mut server, 0, to_target(0, MAIN, ToTarget::MigrateData));
        at(&mut server, 0, Input::MigrateInfo);
        at(&mut server, 0, Input::MigrateConnect);
        at(&mut server, 0, to_source(0, MAIN, ToSource::ConnectedSeamless));
        let told = from_source(0, DISPLAY, FromSource::Migrate(MigrateFlags(0)));
        assert!(at(&mut server, 0, END).contains(&told));
    }

    #[test]
    fn t9_an_announcement_waits_for_init() {
        let mut server = deferring(false);
        let effects = at(&mut server, 2, to_target(0, MAIN, ToTarget::End));
        assert_eq!(effects, [from_target(0, FromTarget::Init), from_source(0, MAIN, SEAMLESSLY)]);
        assert_eq!(server.deadline(), Some(Duration::from_secs(12)), "its answer has the full time");
        assert_eq!(at(&mut server, 3, to_source(0, MAIN, ToSource::Connected)), [CONNECTED]);
    }

    #[test]
    fn t9_an_announcement_waits_for_the_last_of_the_data() {
        let mut server = deferring(false);
        at(&mut server, 2, link(0, INPUTS, true));
        at(&mut server, 2, to_target(0, MAIN, DO_SEAMLESS));
        assert_eq!(at(&mut server, 2, to_target(0, MAIN, ToTarget::MigrateData)), [start(0, MAIN)]);
        let effects = at(&mut server, 2, to_target(0, INPUTS, ToTarget::MigrateData));
        assert_eq!(effects, [start(0, INPUTS), from_source(0, MAIN, SEAMLESSLY)]);
    }

    #[test]
    fn t9_after_ten_seconds_who_has_not_arrived_is_dropped_and_the_others_are_told() {
        let mut alone = deferring(false);
        assert_eq!(at(&mut alone, 10, Input::Deadline), [], "not yet");
        assert_eq!(at(&mut alone, 11, Input::Deadline), [dropped(0), CONNECTED]);
        assert_eq!(at(&mut alone, 12, END), [ENDED]);

        let mut several = deferring(true);
        assert_eq!(at(&mut several, 2, link(1, MAIN, false)), [from_target(1, FromTarget::Init)]);
        let effects = at(&mut several, 11, Input::Deadline);
        assert_eq!(effects, [dropped(0), from_source(1, MAIN, FromSource::Begin)]);
        assert_eq!(at(&mut several, 12, closed(0, MAIN)), [], "it is known no longer");
    }

    #[test]
    fn t9_a_client_that_gives_up_arriving_ends_the_wait() {
        let mut server = deferring(false);
        assert_eq!(at(&mut server, 2, closed(0, MAIN)), [dropped(0), CONNECTED]);
        let mut replaced = deferring(false);
        let told = [dropped(0), from_target(1, FromTarget::Init), from_source(1, MAIN, SEAMLESSLY)];
        assert_eq!(at(&mut replaced, 2, link(1, MAIN, false)), told);
    }

    #[test]
    fn t9_s3_a_host_that_does_not_wait_is_answered_all_the_same() {
        for (call, effects) in [
            (Input::MigrateStart, vec![CONNECTED]),
            (Input::MigrateEnd { completed: false }, vec![CONNECTED, ENDED]),
            // Who has not arrived has nobody to follow: the guest is elsewhere.
            (END, vec![CONNECTED, ENDED, dropped(0)]),
        ] {
            let mut server = deferring(false);
            assert_eq!(at(&mut server, 2, call), effects, "{call:?}");
            let later = at(&mut server, 3, to_target(0, MAIN, ToTarget::End));
            assert!(!later.contains(&CONNECTED) && !later.contains(&from_source(0, MAIN, SEAMLESSLY)), "{call:?}");
        }
    }

    /// Its answer would be taken for that to the later call.
    #[test]
    fn t9_s3_an_announcement_that_is_deferred_replaces_the_one_before() {
        let mut server = serving(true);
        at(&mut server, 0, Input::MigrateInfo);
        assert_eq!(at(&mut server, 0, Input::MigrateConnect), [from_source(0, MAIN, FromSource::Begin)], "S1.5");
        at(&mut server, 1, link(1, MAIN, true));
        assert_eq!(at(&mut server, 1, Input::MigrateConnect), []);
        assert_eq!(at(&mut server, 2, to_source(0, MAIN, ToSource::Connected)), []);
        let told = [
            from_target(1, FromTarget::Init),
            from_source(0, MAIN, FromSource::Cancel),
            from_source(0, MAIN, FromSource::Begin),
            from_source(1, MAIN, FromSource::Begin),
        ];
        assert_eq!(at(&mut server, 3, to_target(1, MAIN, ToTarget::End)), told);
        assert_eq!(at(&mut server, 4, to_source(0, MAIN, ToSource::Connected)), []);
        assert_eq!(at(&mut server, 4, to_source(1, MAIN, ToSource::Connected)), [CONNECTED]);
    }

    #[test]
    fn t9_h1_what_the_host_must_not_ask_for_is_not_deferred_either() {
        let mut server = arriving(&[MAIN]);
        assert_eq!(refused(&mut server, Input::MigrateConnect), "H1");
    }

    #[test]
    fn a_guest_that_leaves_while_a_client_arrives_takes_the_others_along() {
        let mut server = serving(true);
        at(&mut server, 0, link(1, MAIN, true));
        at(&mut server, 0, Input::AwaitClient);
        at(&mut server, 1, Input::MigrateInfo);
        let effects = at(&mut server, 1, END);
        assert_eq!(effects, [from_source(0, MAIN, FromSource::SwitchHost), dropped(1), COMPLETE]);
        assert_eq!(at(&mut server, 2, closed(0, MAIN)), [dropped(0), ENDED]);
    }

    #[test]
    fn a_guest_that_stays_keeps_the_client_that_arrives() {
        let mut server = arriving(&[MAIN]);
        at(&mut server, 0, Input::MigrateInfo);
        assert_eq!(at(&mut server, 1, Input::MigrateEnd { completed: false }), [ENDED]);
        assert_eq!(at(&mut server, 2, to_target(0, MAIN, ToTarget::End)), [from_target(0, FromTarget::Init)]);
    }

    #[test]
    fn l7_a_new_client_replaces_one_that_arrives_is_here_or_is_leaving() {
        assert_eq!(at(&mut arriving(&[MAIN]), 1, link(1, MAIN, true)), [dropped(0)]);

        // One that is awaited at another target is awaited no more, and not asked again.
        let mut here = serving(false);
        at(&mut here, 1, Input::MigrateInfo);
        at(&mut here, 1, Input::MigrateConnect);
        let replaced = [dropped(0), from_target(1, FromTarget::Init), CONNECTED];
        assert_eq!(at(&mut here, 2, link(1, MAIN, false)), replaced);
        assert_eq!(at(&mut here, 2, closed(0, MAIN)), [], "it is known no longer");
        assert_eq!(at(&mut here, 3, END), [from_source(1, MAIN, FromSource::SwitchHost)]);

        let mut leaving = serving(false);
        at(&mut leaving, 1, Input::MigrateInfo);
        assert_eq!(at(&mut leaving, 1, END), [from_source(0, MAIN, FromSource::SwitchHost)]);
        let effects = at(&mut leaving, 2, link(1, MAIN, false));
        let told = [from_target(1, FromTarget::Init), from_source(1, MAIN, FromSource::SwitchHost)];
        assert_eq!(effects[..3], [dropped(0), told[0], told[1]]);
        assert_eq!(effects[3..], [Effect::Source(OfSource::Close(1)), ENDED], "the one that was awaited has gone");
        assert_eq!(at(&mut leaving, 3, closed(1, MAIN)), [], "it is known no longer");
    }

    #[test]
    fn the_main_channels_end_is_the_clients_before_its_data_was_sent() {
        let mut server = serving(false);
        at(&mut server, 0, Input::MigrateInfo);
        at(&mut server, 0, Input::MigrateConnect);
        at(&mut server, 0, to_source(0, MAIN, ToSource::ConnectedSeamless));
        let mut flushed = server.clone();
        assert_eq!(at(&mut server, 0, closed(0, MAIN)), [dropped(0)]);
        assert_eq!(at(&mut server, 0, END), [ENDED]);

        at(&mut flushed, 0, END);
        at(&mut flushed, 0, to_source(0, MAIN, ToSource::FlushMark));
        assert_eq!(at(&mut flushed, 0, closed(0, MAIN)), []);
        assert!(!flushed.serves(0), "it is served elsewhere");
        let data = [from_source(0, INPUTS, FromSource::MigrateData)];
        assert_eq!(at(&mut flushed, 0, to_source(0, INPUTS, ToSource::FlushMark)), data);
    }

    #[test]
    fn l6_an_end_without_a_beginning_changes_nothing() {
        let mut server = serving(false);
        let before = server.clone();
        for channel in [MAIN, INPUTS] {
            assert_eq!(at(&mut server, 0, closed(7, channel)), []);
            assert_eq!(at(&mut server, 0, to_source(7, channel, ToSource::Connected)), []);
            assert_eq!(at(&mut server, 0, to_target(7, channel, ToTarget::End)), []);
        }
        assert_eq!(server, before);
        assert_eq!(refused(&mut server, link(7, INPUTS, true)), "L6");
    }

    #[test]
    fn t5_a_client_is_served_from_its_arrival_to_its_end() {
        let mut server = arriving(&[MAIN]);
        assert!(!server.serves(0), "pending");
        at(&mut server, 0, to_target(0, MAIN, DO_SEAMLESS));
        assert!(!server.serves(0), "its data awaited");
        at(&mut server, 0, to_target(0, MAIN, ToTarget::MigrateData));
        assert!(server.serves(0));
        at(&mut server, 0, Input::MigrateInfo);
        for step in [Input::MigrateConnect, to_source(0, MAIN, ToSource::Connected), END] {
            at(&mut server, 0, step);
            assert!(server.serves(0), "{step:?}");
        }
        at(&mut server, 10, Input::Deadline);
        assert!(!server.serves(0), "dropped");

        let mut deferring = deferring(false);
        assert!(!deferring.serves(0));
        at(&mut deferring, 2, to_target(0, MAIN, ToTarget::End));
        assert!(deferring.serves(0));
    }

    #[test]
    fn t6_a_client_that_sends_data_unasked_loses_the_channel_in_both_halves() {
        let mut server = serving(false);
        let lost = Effect::Target(OfTarget::CloseChannel { client: 0, channel: INPUTS });
        assert_eq!(at(&mut server, 0, to_target(0, INPUTS, ToTarget::MigrateData)), [lost]);
        at(&mut server, 0, Input::MigrateInfo);
        at(&mut server, 0, Input::MigrateConnect);
        at(&mut server, 0, to_source(0, MAIN, ToSource::ConnectedSeamless));
        assert_eq!(at(&mut server.clone(), 0, END), [from_source(0, MAIN, FromSource::Migrate(BOTH))]);
        assert_eq!(at(&mut server, 0, to_target(0, MAIN, ToTarget::MigrateData)), [dropped(0)]);
        assert_eq!(at(&mut server, 0, END), [ENDED]);
    }

    #[test]
    fn t8_a_client_that_loses_a_channel_at_the_time_limit_is_handed_on_with_the_others() {
        let mut server = arriving(&[MAIN, INPUTS, CURSOR]);
        at(&mut server, 0, to_target(0, MAIN, DO_SEAMLESS));
        at(&mut server, 0, to_target(0, MAIN, ToTarget::MigrateData));
        at(&mut server, 0, Input::AwaitClient);
        let lost = Effect::Target(OfTarget::CloseChannel { client: 0, channel: INPUTS });
        assert_eq!(at(&mut server, 10, Input::Deadline), [lost, COMPLETE]);
        assert!(server.serves(0));
        at(&mut server, 11, Input::MigrateInfo);
        assert_eq!(at(&mut server, 11, Input::MigrateConnect), [from_source(0, MAIN, SEAMLESSLY)]);
        at(&mut server, 11, to_source(0, MAIN, ToSource::ConnectedSeamless));
        let told = [
            from_source(0, MAIN, FromSource::Migrate(BOTH)),
            from_source(0, CURSOR, FromSource::Migrate(MigrateFlags(0))),
        ];
        assert_eq!(at(&mut server, 12, END), told);
    }

    #[test]
    fn s8_s9_a_client_that_is_dropped_is_dropped_by_both_halves() {
        let mut staying = serving(false);
        at(&mut staying, 0, Input::MigrateInfo);
        at(&mut staying, 0, Input::MigrateConnect);
        at(&mut staying, 0, to_source(0, MAIN, ToSource::ConnectedSeamless));
        at(&mut staying, 0, Input::MigrateStart);
        let mut leaving = staying.clone();
        let failed = at(&mut staying, 1, Input::MigrateEnd { completed: false });
        assert_eq!(failed, [Effect::Source(OfSource::Close(0)), ENDED]);
        at(&mut leaving, 1, END);
        assert_eq!(at(&mut leaving, 11, Input::Deadline), [Effect::Source(OfSource::Close(0)), ENDED]);
        assert!(!staying.serves(0) && !leaving.serves(0));
        assert_eq!(at(&mut staying, 12, link(1, MAIN, false)), [from_target(1, FromTarget::Init)]);
    }

    /// Quick enough for a test without optimisation: each step looks at each client once.
    #[test]
    fn a_thousand_clients_are_handed_on() {
        let mut server = Server::new(true, true);
        let channels = [MAIN, INPUTS, CURSOR, DISPLAY];
        for client in 0..1000 {
            channels.iter().for_each(|channel| drop(at(&mut server, 0, link(client, *channel, true))));
            at(&mut server, 0, to_target(client, MAIN, ToTarget::End));
        }
        at(&mut server, 0, Input::MigrateInfo);
        assert_eq!(at(&mut server, 0, Input::MigrateConnect).len(), 1000);
        let answers = (0..1000).map(|client| at(&mut server, 1, to_source(client, MAIN, ToSource::Connected)));
        assert_eq!(answers.flatten().collect::<Vec<_>>(), [CONNECTED]);
        assert_eq!(at(&mut server, 2, END).len(), 1000);
        // Half of them leave, and half have to be dropped.
        for client in 0..500 {
            channels.iter().rev().for_each(|channel| drop(at(&mut server, 3, closed(client, *channel))));
        }
        let dropped = at(&mut server, 12, Input::Deadline);
        assert_eq!((dropped.len(), dropped.last()), (501, Some(&ENDED)));
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
        fn h2_the_source_stays_until_its_server_says_that_it_is_done() {
            let moved = [Input::Migrate, Input::ConnectComplete, Input::LiveStageDone, Input::GuestMoved];
            let mut host = host(HandOver::Afterwards, &moved);
            assert_eq!(host.phase(), source_host::Phase::Ending);
            // Of the first call, which the server answers late.
            assert_eq!(at(&mut host, 0, Input::ConnectComplete), []);
            assert_eq!(at(&mut host, 0, Input::EndComplete), [Effect::Release]);
            assert_eq!(host.phase(), source_host::Phase::Released);
        }

        #[test]
        fn h1_another_destination_before_the_guest_has_set_out_is_announced() {
            let mut host = host(HandOver::Afterwards, &[Input::Migrate]);
            assert_eq!(at(&mut host, 0, Input::Migrate), [Effect::MigrateInfo, Effect::MigrateConnect]);
            assert_eq!(at(&mut host, 0, Input::ConnectComplete), [Effect::StartLiveStage]);
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
        fn d2_the_server_is_told_that_the_guest_can_be_held_before_one_comes() {
            let mut host = TargetHost::new(Completion::WaitAtTarget);
            assert_eq!(refused(&mut host, Input::GuestArrived), "D1");
            assert_eq!(at(&mut host, 0, Input::Listen), [Effect::CanHoldTheGuest]);
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
    use std::collections::BTreeSet;
    use std::{iter, mem};

    /// Whatever happens: nothing panics, what is refused leaves the role as it was, and a time limit lies ahead.
    fn hold_out<R>(mut role: R, deadline: R::Input, inputs: Vec<(R::Input, u64)>) -> Result<(), TestCaseError>
    where
        R: Role<Input: Copy + Debug> + Clone + PartialEq + Debug,
    {
        let mut now = Duration::ZERO;
        for (input, seconds) in inputs {
            now += Duration::from_secs(seconds);
            if role.deadline().is_some_and(|deadline| deadline <= now) {
                prop_assert!(role.handle(now, deadline).is_ok());
            }
            let before = role.clone();
            if role.handle(now, input).is_err() {
                prop_assert_eq!(&role, &before, "{:?}", input);
            }
            prop_assert!(role.deadline().is_none_or(|deadline| deadline > now), "{:?}", input);
        }
        Ok(())
    }

    /// Each call of the host is answered once, unless the same call replaces it; and who is named is there.
    fn answers_every_call(mut role: Server, inputs: Vec<(server::Input, u64)>) -> Result<(), TestCaseError> {
        use server::{Effect, Input};
        let (mut connecting, mut ending, mut awaiting) = (false, false, false);
        let mut clients = BTreeSet::new();
        let mut now = Duration::ZERO;
        let to_the_end = iter::repeat_n((Input::Deadline, 20), 3);
        for (input, seconds) in inputs.into_iter().chain(to_the_end) {
            now += Duration::from_secs(seconds);
            let overdue = role.deadline().is_some_and(|deadline| deadline <= now);
            for input in overdue.then_some(Input::Deadline).into_iter().chain([input]) {
                let Ok(effects) = role.handle(now, input) else { continue };
                match input {
                    Input::MigrateConnect => connecting = true,
                    Input::MigrateEnd { .. } => ending = true,
                    Input::AwaitClient => awaiting = true,
                    Input::Linked { client, .. } => drop(clients.insert(client)),
                    _ => {}
                }
                for effect in effects {
                    match effect {
                        Effect::Source(source_server::Effect::ConnectComplete) => {
                            prop_assert!(mem::take(&mut connecting));
                        }
                        Effect::Source(source_server::Effect::EndComplete) => prop_assert!(mem::take(&mut ending)),
                        Effect::Target(target_server::Effect::ClientMigrationComplete) => {
                            prop_assert!(mem::take(&mut awaiting));
                        }
                        Effect::Source(source_server::Effect::Close(client))
                        | Effect::Target(target_server::Effect::Close(client)) => prop_assert!(clients.remove(&client)),
                        Effect::Source(source_server::Effect::Send { client, .. })
                        | Effect::Target(
                            target_server::Effect::Send { client, .. }
                            | target_server::Effect::Start { client, .. }
                            | target_server::Effect::CloseChannel { client, .. },
                        ) => prop_assert!(clients.contains(&client)),
                    }
                }
            }
        }
        prop_assert!(!connecting && !ending && !awaiting);
        Ok(())
    }

    /// A server to which clients come from a source and nothing else happens is its half.
    fn is_its_target_half(inputs: Vec<(target_server::Input, u64)>, several: bool) -> Result<(), TestCaseError> {
        use target_server::{Effect, Input};
        let (mut half, mut whole) = (TargetServer::new(several), Server::new(true, several));
        let mut now = Duration::ZERO;
        for (input, seconds) in inputs {
            now += Duration::from_secs(seconds);
            let done = whole.handle(now, as_target(input)).map(|effects| {
                let of_half = |effect| match effect {
                    // What the half leaves to whoever closes the main channel.
                    server::Effect::Target(Effect::Close(_)) if matches!(input, Input::Closed { .. }) => None,
                    server::Effect::Target(effect) => Some(effect),
                    server::Effect::Source(effect) => panic!("{effect:?}"),
                };
                effects.into_iter().filter_map(of_half).collect()
            });
            prop_assert_eq!(done, half.handle(now, input), "{:?}", input);
            prop_assert_eq!(whole.deadline(), half.deadline());
        }
        Ok(())
    }

    fn as_target(input: target_server::Input) -> server::Input {
        use server::Input as Whole;
        use target_server::Input;
        match input {
            Input::CanHoldTheGuest => Whole::CanHoldTheGuest,
            Input::AwaitClient => Whole::AwaitClient,
            Input::StreamingDisplay(id) => Whole::StreamingDisplay(id),
            Input::Linked { client, channel, migrating, support } => {
                Whole::Linked { client, channel, migrating, support }
            }
            Input::Closed { client, channel } => Whole::Closed { client, channel },
            Input::Message { client, channel, message, valid } => Whole::ToTarget { client, channel, message, valid },
            Input::Deadline => Whole::Deadline,
        }
    }

    /// A server at which clients begin their sessions is its other half.
    fn is_its_source_half(inputs: Vec<(source_server::Input, u64)>) -> Result<(), TestCaseError> {
        use source_server::Input;
        // Where several clients are allowed, seamless migration is not.
        let (mut half, mut whole) = (SourceServer::new(false), Server::new(true, true));
        let mut now = Duration::ZERO;
        let mut gone = BTreeSet::new();
        for (input, seconds) in inputs {
            now += Duration::from_secs(seconds);
            match input {
                Input::Closed { client, channel: MAIN } => drop(gone.insert(client)),
                // No client comes back under its old number.
                Input::Linked { client, .. } if gone.contains(&client) => continue,
                _ => {}
            }
            let done = whole.handle(now, as_source(input)).map(|effects| {
                let of_half = |effect| match effect {
                    server::Effect::Source(effect) => Some(effect),
                    server::Effect::Target(_) => None,
                };
                effects.into_iter().filter_map(of_half).collect::<Vec<_>>()
            });
            match half.handle(now, input) {
                Ok(effects) => prop_assert_eq!(done, Ok(effects), "{:?}", input),
                Err(_) => prop_assert!(done.is_err(), "{:?}", input),
            }
            prop_assert_eq!(whole.deadline(), half.deadline());
        }
        Ok(())
    }

    fn as_source(input: source_server::Input) -> server::Input {
        use server::Input as Whole;
        use source_server::Input;
        match input {
            Input::MigrateInfo => Whole::MigrateInfo,
            Input::MigrateConnect => Whole::MigrateConnect,
            Input::MigrateStart => Whole::MigrateStart,
            Input::MigrateEnd { completed } => Whole::MigrateEnd { completed },
            Input::StreamingDisplay(id) => Whole::StreamingDisplay(id),
            Input::Linked { client, channel, support } => Whole::Linked { client, channel, migrating: false, support },
            Input::Closed { client, channel } => Whole::Closed { client, channel },
            Input::Message { client, channel, message } => Whole::ToSource { client, channel, message },
            Input::Deadline => Whole::Deadline,
        }
    }

    /// On a channel that is not switched nothing is said to the target, but on the main channel whether it can migrate seamlessly.
    fn keeps_quiet_at_the_target(inputs: Vec<(client::Input, u64)>) -> Result<(), TestCaseError> {
        use client::Effect;
        let mut client = Client::new(CHANNELS);
        let mut now = Duration::ZERO;
        let mut source_is_dropped = false;
        let mut switched = BTreeSet::new();
        for (input, seconds) in inputs {
            now += Duration::from_secs(seconds);
            for effect in client.handle(now, input).unwrap_or_default() {
                match effect {
                    Effect::ToTarget { channel: MAIN, message: ToTarget::DoSeamless { .. } } => {
                        prop_assert!(!source_is_dropped && !switched.contains(&MAIN));
                    }
                    Effect::ToTarget { message: ToTarget::End, .. } => prop_assert!(source_is_dropped),
                    Effect::ToTarget { channel, .. } => prop_assert!(switched.contains(&channel)),
                    Effect::Switch(channel) => prop_assert!(switched.insert(channel)),
                    Effect::DropSource => source_is_dropped = true,
                    Effect::Moved(_) => {
                        source_is_dropped = false;
                        switched.clear();
                    }
                    _ => {}
                }
            }
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

    fn of_servers() -> Vec<server::Input> {
        let of_source = of_source_servers().into_iter().map(as_source);
        of_source.chain(of_target_servers().into_iter().map(as_target)).collect()
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
            let deadline = client::Input::Deadline;
            hold_out(clients::connected_seamlessly(), deadline, inputs.clone())?;
            hold_out(Client::new(CHANNELS), deadline, inputs)?;
        }

        #[test]
        fn c5_nothing_is_said_on_a_pending_channel(inputs in inputs(of_clients())) {
            keeps_quiet_at_the_target(inputs)?;
        }

        #[test]
        fn a_source_server_holds_out(inputs in inputs(of_source_servers())) {
            let deadline = source_server::Input::Deadline;
            hold_out(source_servers::server(true, &[FULL]), deadline, inputs.clone())?;
            hold_out(SourceServer::new(true), deadline, inputs)?;
        }

        #[test]
        fn a_target_server_holds_out(inputs in inputs(of_target_servers()), several: bool) {
            hold_out(TargetServer::new(several), target_server::Input::Deadline, inputs)?;
        }

        #[test]
        fn a_server_holds_out(inputs in inputs(of_servers()), several: bool) {
            hold_out(Server::new(true, several), server::Input::Deadline, inputs)?;
        }

        #[test]
        fn s3_s12_a_server_answers_every_call(inputs in inputs(of_servers()), several: bool) {
            answers_every_call(Server::new(true, several), inputs)?;
        }

        #[test]
        fn a_server_is_a_target_server(inputs in inputs(of_target_servers()), several: bool) {
            is_its_target_half(inputs, several)?;
        }

        #[test]
        fn a_server_is_a_source_server(inputs in inputs(of_source_servers())) {
            is_its_source_half(inputs)?;
        }

        #[test]
        fn hosts_hold_out(of_source in inputs(of_source_hosts()), of_target in inputs(of_target_hosts())) {
            // They have no time limits.
            let source = SourceHost::new(Completion::SignalThroughClient, HandOver::InParallel);
            hold_out(source, source_host::Input::Cancel, of_source)?;
            hold_out(TargetHost::new(Completion::WaitAtTarget), target_host::Input::MigrationFailed, of_target)?;
        }
    }
}

/// What the roles make of the messages on the wire.
mod messages {
    use super::*;
    use spice_migration::message::{client, server};
    use spice_migration::{ClientMessage, Data, Destination, ServerMessage, Text};

    fn destination() -> Destination<'static> {
        Destination { port: 1, tls_port: 2, host: Text::new(b"target").unwrap(), cert_subject: None }
    }

    const DATA: Data<'static> = Data(b"data");

    #[test]
    fn what_a_source_says_is_read_from_its_messages() {
        for (message, read) in [
            (ServerMessage::MigrateBegin(server::MigrateBegin { destination: destination() }), FromSource::Begin),
            (
                ServerMessage::MigrateBeginSeamless(server::MigrateBeginSeamless {
                    destination: destination(),
                    src_mig_version: 7,
                }),
                FromSource::BeginSeamless { version: 7 },
            ),
            (ServerMessage::MigrateCancel, FromSource::Cancel),
            (ServerMessage::MigrateEnd, FromSource::End),
            (
                ServerMessage::MigrateSwitchHost(server::MigrateSwitchHost { destination: destination() }),
                FromSource::SwitchHost,
            ),
            (ServerMessage::Migrate(server::Migrate { flags: BOTH }), FromSource::Migrate(BOTH)),
            (ServerMessage::MigrateData(server::MigrateData { data: DATA }), FromSource::MigrateData),
        ] {
            assert_eq!((FromSource::of(&message), FromTarget::of(&message)), (Some(read), None));
        }
    }

    #[test]
    fn what_a_target_says_is_read_from_its_messages() {
        let init = ServerMessage::decode(ChannelType::MAIN, 103, &[0; 32]).unwrap();
        for (message, read) in [
            (ServerMessage::MigrateDstSeamlessAck, FromTarget::Ack),
            (ServerMessage::MigrateDstSeamlessNack, FromTarget::Nack),
            (init, FromTarget::Init),
        ] {
            assert_eq!((FromTarget::of(&message), FromSource::of(&message)), (Some(read), None));
        }
    }

    #[test]
    fn what_a_client_says_to_its_source_is_written_and_read() {
        for (said, message) in [
            (ToSource::Connected, ClientMessage::MigrateConnected),
            (ToSource::ConnectedSeamless, ClientMessage::MigrateConnectedSeamless),
            (ToSource::ConnectError, ClientMessage::MigrateConnectError),
            (ToSource::FlushMark, ClientMessage::MigrateFlushMark),
        ] {
            assert_eq!((said.message(), ToSource::of(&message), ToTarget::of(&message)), (message, Some(said), None));
        }
    }

    #[test]
    fn what_a_client_says_to_its_target_is_read_from_its_messages() {
        for (message, read) in [
            (
                ClientMessage::MigrateDstDoSeamless(client::MigrateDstDoSeamless { src_version: 7 }),
                ToTarget::DoSeamless { version: 7 },
            ),
            (ClientMessage::MigrateEnd, ToTarget::End),
            (ClientMessage::MigrateData(client::MigrateData { data: DATA }), ToTarget::MigrateData),
        ] {
            assert_eq!((ToTarget::of(&message), ToSource::of(&message)), (Some(read), None));
        }
    }

    #[test]
    fn a_violation_says_what_and_against_which_requirement() {
        let mut server = TargetServer::new(false);
        let early = target_server::Input::Linked { client: 0, channel: INPUTS, migrating: true, support: FULL };
        let violation = server.handle(Duration::ZERO, early).unwrap_err();
        assert_eq!(violation.to_string(), "a channel before the main channel (L6)");
    }
}

/// Connections that end at the source, in each phase of the client.
mod closed_at_the_source {
    use super::*;
    use client::{Effect, Input};

    const LOST: [Effect; 3] = [Effect::DropSource, Effect::DropTarget, Effect::SessionLost];

    fn source(channel: ChannelId, message: FromSource) -> Input {
        Input::FromSource { channel, message }
    }

    #[test]
    fn a_channel_of_a_session_is_gone_and_the_main_channel_ends_it() {
        let mut client = Client::new(CHANNELS);
        assert_eq!(at(&mut client, 0, Input::SourceClosed(INPUTS)), []);
        at(&mut client, 0, source(MAIN, FromSource::Begin));
        let others = Input::TargetLinked { channel: MAIN, seamless: false };
        assert_eq!(at(&mut client, 0, others), [Effect::LinkTarget(CURSOR)]);
        assert_eq!(at(&mut client, 0, Input::SourceClosed(MAIN)), LOST);
        assert_eq!(at(&mut client, 0, Input::SourceClosed(CURSOR)), [], "it has left");
        assert_eq!(at(&mut client, 0, Input::SourceClosed(MAIN)), []);
    }

    #[test]
    fn a_channel_that_has_been_switched_has_nothing_to_lose_there() {
        let mut client = clients::connected_seamlessly();
        for channel in [CURSOR, MAIN] {
            at(&mut client, 0, source(channel, FromSource::Migrate(MigrateFlags(0))));
            assert_eq!(at(&mut client, 0, Input::SourceClosed(channel)), []);
        }
        let moved = [Effect::Switch(INPUTS), Effect::Moved(Scheme::Seamless)];
        assert_eq!(at(&mut client, 0, source(INPUTS, FromSource::Migrate(MigrateFlags(0)))), moved);
    }

    #[test]
    fn a_client_that_restarts_its_session_has_no_more_to_do_with_the_source() {
        let mut client = Client::new([MAIN, INPUTS]);
        at(&mut client, 0, source(MAIN, FromSource::Begin));
        CHANNELS[..2].iter().for_each(|channel| {
            at(&mut client, 0, Input::TargetLinked { channel: *channel, seamless: false });
        });
        at(&mut client, 0, source(MAIN, FromSource::End));
        for channel in [INPUTS, MAIN] {
            assert_eq!(at(&mut client, 0, Input::SourceClosed(channel)), []);
        }
        let moved = [Effect::Moved(Scheme::SemiSeamless)];
        assert_eq!(at(&mut client, 0, Input::FromTarget(FromTarget::Init)), moved);
    }

    #[test]
    fn a_channel_that_is_lost_while_the_target_is_linked_is_not_waited_for() {
        let linked = |channel| Input::TargetLinked { channel, seamless: false };
        let mut client = Client::new(CHANNELS);
        at(&mut client, 0, source(MAIN, FromSource::Begin));
        at(&mut client, 0, linked(MAIN));
        assert_eq!(at(&mut client, 0, Input::SourceClosed(INPUTS)), [Effect::CloseTarget(INPUTS)]);
        let mut last = client.clone();
        let connected = Effect::ToSource { channel: MAIN, message: ToSource::Connected };
        assert_eq!(at(&mut client, 0, linked(CURSOR)), [connected]);
        assert_eq!(at(&mut last, 0, Input::SourceClosed(CURSOR)), [Effect::CloseTarget(CURSOR), connected]);
    }
}

#[test]
fn c4_a_client_that_has_lost_the_target_after_its_answer_cannot_follow_the_guest() {
    use client::{Effect, Input};

    let mut client = clients::connected_seamlessly();
    assert_eq!(at(&mut client, 0, Input::TargetClosed(INPUTS)), [Effect::DropTarget]);
    for message in [FromSource::End, FromSource::Migrate(BOTH)] {
        let lost = [Effect::DropSource, Effect::DropTarget, Effect::SessionLost];
        assert_eq!(at(&mut client.clone(), 0, Input::FromSource { channel: MAIN, message }), lost, "{message:?}");
    }
}

#[test]
fn c12_what_is_missing_to_connect_is_said() {
    use client::NoRoute;

    assert_eq!(NoRoute::NoPort.to_string(), "the destination has no port");
    let no_tls = "the destination has no TLS port, and the session must not fall back to plaintext";
    assert_eq!(NoRoute::NoTlsPort.to_string(), no_tls);
}

#[test]
fn d2_a_server_advertises_seamless_when_its_host_can_hold_the_guest() {
    let mut server = Server::new(true, false);
    assert!(!server.advertises_seamless());
    at(&mut server, 0, server::Input::CanHoldTheGuest);
    assert!(server.advertises_seamless());
}

#[test]
fn s5_after_a_failure_a_client_that_had_connected_is_no_longer() {
    use source_server::{Effect, Input};

    let to_client = |message| Effect::Send { client: 0, channel: MAIN, message };
    let mut server = source_servers::server(true, &[SEMI]);
    at(&mut server, 0, Input::MigrateConnect);
    at(&mut server, 0, Input::Message { client: 0, channel: MAIN, message: ToSource::Connected });
    let failed = [to_client(FromSource::Cancel), Effect::EndComplete];
    assert_eq!(at(&mut server, 1, Input::MigrateEnd { completed: false }), failed);
    at(&mut server, 2, Input::MigrateInfo);
    // Not asked again, and so not told END.
    let ended = [to_client(FromSource::SwitchHost)];
    assert_eq!(at(&mut server, 2, Input::MigrateEnd { completed: true }), ended);
}

#[test]
fn s10_a_client_that_is_late_is_so_after_a_failure_too() {
    use source_server::{Effect, Input};

    let mut server = source_servers::server(true, &[FULL]);
    at(&mut server, 0, Input::MigrateConnect);
    at(&mut server, 10, Input::Deadline);
    at(&mut server, 11, Input::MigrateEnd { completed: false });
    at(&mut server, 12, Input::MigrateInfo);
    assert_eq!(at(&mut server, 12, Input::MigrateConnect), [Effect::ConnectComplete], "it is not asked");
    let cancel = Effect::Send { client: 0, channel: MAIN, message: FromSource::Cancel };
    let late = Input::Message { client: 0, channel: MAIN, message: ToSource::Connected };
    assert_eq!(at(&mut server, 13, late), [cancel]);
}
