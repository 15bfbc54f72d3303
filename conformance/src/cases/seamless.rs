//! Seamless migration: each channel's state is carried over, and nothing is lost.

use spice_migration::{
    ChannelType, ClientMessage, Data, Fault, ServerMessage,
    caps::{CommonCapability, MainCapability},
    message::{MigrateFlags, client},
    state::{CharDevice, Main, State, VERSION},
};

use super::{
    cases, check_absent, check_all_open,
    main::send_out_of_turn,
    semi_seamless::{not_completed_yet, sequence_is, violates_r1},
};
use crate::{
    case::{Context, OrFail, Scheme, Stop, Unexpected, Verdict, check},
    context::{Place, Setup},
    migration::{Prepared, collect, deliver, migrate_data, migrate_flags, relay, seamless_version, take_data},
    peer::client::{Channel, Session, is, until},
    subject::{Destination, HostEvent},
};

cases! {
    "seamless/begin/chosen" ["S1.1"] Must
        "A client with every capability is told to begin with MIGRATE_BEGIN_SEAMLESS"
        sends "a session of such a client; the host, which allows seamless migration, announces a target"
        expects "MIGRATE_BEGIN_SEAMLESS"
        => begin_seamless;
    "seamless/begin/without-semi" ["S1.1"] Must
        "Seamless migration does not need SEMI_SEAMLESS_MIGRATE"
        sends "a session of a client with AGENT_CONNECTED_TOKENS and SEAMLESS_MIGRATE alone; the host announces a target"
        expects "MIGRATE_BEGIN_SEAMLESS"
        => begin_seamless_without_semi;
    "seamless/begin/destination" ["S1.4"] Must
        "MIGRATE_BEGIN_SEAMLESS names the destination that the host gave"
        sends "the host announces a target"
        expects "MIGRATE_BEGIN_SEAMLESS with its host name and port, no TLS port, and no subject"
        => begin_destination;
    "seamless/begin/version" ["S2"] Must
        "MIGRATE_BEGIN_SEAMLESS carries migration protocol version 1"
        sends "the host announces a target"
        expects "src_mig_version 1"
        => begin_version;
    "seamless/target/ack" ["T3.1"] Must
        "A target agrees to a version that it supports"
        sends "MIGRATE_DST_DO_SEAMLESS with version 1 on a migrating client's main channel at the target"
        expects "MIGRATE_DST_SEAMLESS_ACK"
        => ack;
    "seamless/target/nack-version" ["T3.2"] Must
        "A target declines a version that it does not support"
        sends "MIGRATE_DST_DO_SEAMLESS with version 2^31"
        expects "MIGRATE_DST_SEAMLESS_NACK"
        => nack_version;
    "seamless/target/nack-second" ["T3.3"] Must
        "A target declines a second request"
        sends "MIGRATE_DST_DO_SEAMLESS twice"
        expects "MIGRATE_DST_SEAMLESS_ACK, then MIGRATE_DST_SEAMLESS_NACK"
        => nack_second;
    "seamless/target/second-request" ["T3.10", "T4"] Should
        "A second request does not keep the migration from its end"
        sends "MIGRATE_DST_DO_SEAMLESS once more when every channel is linked; a seamless migration, then ATTACH_CHANNELS to the target"
        expects "CHANNELS_LIST"
        => second_request;
    "seamless/target/links-after-second-request" ["T3.10", "T4"] Should
        "Channels may be linked to the target after a second request"
        sends "MIGRATE_DST_DO_SEAMLESS twice before any other channel is linked; a seamless migration, then ATTACH_CHANNELS to the target"
        expects "CHANNELS_LIST"
        => links_after_second_request;
    "seamless/target/answer-first" ["T3.7"] Must
        "The answer to MIGRATE_DST_DO_SEAMLESS is the target's first message on main"
        sends "MIGRATE_DST_DO_SEAMLESS on a migrating client's main channel at the target"
        expects "MIGRATE_DST_SEAMLESS_ACK or NACK before any other message"
        => answer_first;
    "seamless/target/links-before-and-after" ["T3.8"] Must
        "Channels may be linked to the target before it agrees, and after"
        sends "inputs and cursor linked before MIGRATE_DST_DO_SEAMLESS, display behind the answer; a seamless migration"
        expects "all of them open, and MULTI_MEDIA_TIME, once their data is delivered"
        => links_before_and_after;
    "seamless/target/end-after-nack" ["T3.9"] Must
        "A client that the target has declined restarts its session with MIGRATE_END"
        sends "MIGRATE_DST_DO_SEAMLESS with version 2^31; all channels linked; MIGRATE_CONNECTED; the VM is migrated"
        expects "MIGRATE_END from the source, INIT from the target for the client's MIGRATE_END, and channels that start"
        => end_after_nack;
    "seamless/source/migrate-everywhere" ["S4.1"] Must
        "On completion the source sends MIGRATE on every channel"
        sends "MIGRATE_CONNECTED_SEAMLESS; the VM is migrated"
        expects "MIGRATE on each channel of the session"
        => migrate_everywhere;
    "seamless/source/flags" ["S7"] Must
        "MIGRATE says for each channel whether to flush and whether data follows"
        sends "MIGRATE_CONNECTED_SEAMLESS; the VM is migrated"
        expects "NEED_FLUSH and NEED_DATA_TRANSFER on main, display, inputs, smartcard, usbredir, port and webdav; no flag on cursor, playback and record"
        => flags;
    "seamless/source/only-data-follows" ["S8.1"] Must
        "After MIGRATE only MIGRATE_DATA follows on a channel"
        sends "a whole seamless migration, at whose end the client closes its sending direction to the source"
        expects "behind MIGRATE nothing but one MIGRATE_DATA where it was announced, on any channel of the source"
        => only_data_follows;
    "seamless/source/data-after-flush" ["S8.2"] Must
        "MIGRATE_DATA comes only after MIGRATE_FLUSH_MARK"
        sends "no flush mark on display until the data of main, inputs and others has come; then one"
        expects "no MIGRATE_DATA on display before the flush mark, and it after"
        => data_after_flush;
    "seamless/source/out-of-turn" ["M6"] Should
        "Messages of the base channel that are out of turn do not keep display from being migrated"
        sends "on display: PONG that answers no PING, ACK, DISCONNECTING; then the VM is migrated"
        expects "MIGRATE on display"
        => out_of_turn;
    "seamless/source/sequence" ["Q1"] Must
        "The source's main channel brings MIGRATE_BEGIN_SEAMLESS, MIGRATE and MIGRATE_DATA once each, in this order"
        sends "a whole seamless migration, at whose end the client closes its sending direction to the source"
        expects "no further message of a migration on the source's main channel"
        => source_sequence;
    "seamless/source/completed" ["S9.2"] Must
        "The host is told when the client has left the source"
        sends "a whole seamless migration; the client closes its connections to the source"
        expects "the host's event that the client's migration is complete (QEMU: SPICE_MIGRATE_COMPLETED)"
        => completion_told;
    "seamless/data/magic" ["D1"] Must
        "Each channel's migration data begins with its magic"
        sends "a seamless migration"
        expects "MNMD on main, DCMD on display, ICMD on inputs"
        => data_magic;
    "seamless/data/version" ["D2"] Must
        "Each channel's migration data has version 1"
        sends "a seamless migration"
        expects "version 1 behind the magic on main, display and inputs, and of the agent's state within main's"
        => data_version;
    "seamless/data/length" ["D3"] Must
        "Each channel's migration data is whole"
        sends "a seamless migration"
        expects "65 bytes and more on main, 80 and a surface list on display, 10 on inputs; every length and pointer within them"
        => data_whole;
    "seamless/data/port-and-smartcard" ["D4"] Must
        "The data of a port and of a smartcard begins with its magic and version, and is whole"
        sends "a seamless migration of a guest with a port and a smartcard reader"
        expects "SVMD, version 1, 33 bytes and more on port; SCMD, version 1, 42 bytes and more on smartcard"
        => port_and_smartcard_data;
    "seamless/data/no-agent" ["D5"] Should
        "Without an agent, main's data says so and holds nothing"
        sends "a seamless migration of a guest without an agent"
        expects "MIGRATE_DATA on main in which all but magic and versions is zero"
        => no_agent;
    "seamless/data/motions" ["S8.3"] Must
        "The data counts the mouse motions of the client that the server has not acknowledged"
        sends "two MOUSE_MOTION on inputs; the VM is migrated; another one between MIGRATE and MIGRATE_FLUSH_MARK"
        expects "motion_count 3 in the data of inputs"
        => motions_counted;
    "seamless/target/no-init" ["T3.4"] Must
        "No INIT follows a seamless migration"
        sends "a whole seamless migration, then ATTACH_CHANNELS to the target"
        expects "no INIT before CHANNELS_LIST"
        => no_init;
    "seamless/target/multi-media-time" ["T3.5"] Must
        "The target sends MULTI_MEDIA_TIME after the main channel's data"
        sends "a seamless migration"
        expects "MULTI_MEDIA_TIME on the target's main channel"
        => multi_media_time;
    "seamless/target/session-works" ["T4"] Must
        "The session works at the target once all data is delivered"
        sends "a whole seamless migration, then ATTACH_CHANNELS to the target"
        expects "CHANNELS_LIST, and every channel open"
        => session_works;
    "seamless/target/data-in-any-order" ["T4.2"] Must
        "The channels' data may be delivered in any order"
        sends "a seamless migration in which the target gets the data of inputs before that of main, and four motions behind it"
        expects "MOUSE_MOTION_ACK on inputs, and MULTI_MEDIA_TIME"
        => data_in_any_order;
    "seamless/target/not-before-last" ["T4.6", "T5"] Must
        "A migration is not complete with main's data"
        sends "the data of main to the target, ATTACH_CHANNELS, and MIGRATE_DST_DO_SEAMLESS with version 2^31 once more"
        expects "no CHANNELS_LIST before the answer to the last"
        => not_before_last;
    "seamless/target/motions-go-on" ["T4.5"] Must
        "The target goes on from the source's count of mouse motions"
        sends "a seamless migration in which the data of inputs has motion_count 3; a MOUSE_MOTION on inputs at the target"
        expects "MOUSE_MOTION_ACK on inputs at the target"
        => motions_go_on;
    "seamless/target/motions-due" ["T4.5"] Must
        "The target acknowledges the mouse motions that the source could not"
        sends "a seamless migration in which the data of inputs has motion_count 4"
        expects "MOUSE_MOTION_ACK on inputs at the target"
        => motions_due;
    "seamless/target/channel-not-linked" ["T4.4", "T4"] Must
        "A channel that the client has not linked to the target is not waited for"
        sends "a seamless migration in which inputs is not linked to the target, then ATTACH_CHANNELS to it"
        expects "CHANNELS_LIST"
        => channel_not_linked;
    "seamless/target/channel-lost" ["T4.4", "T4"] Must
        "A channel that the client loses at the target is not waited for"
        sends "a seamless migration in which inputs is closed at the target before its data is due, then ATTACH_CHANNELS to it"
        expects "CHANNELS_LIST"
        => channel_lost;
    "seamless/target/serials" ["T4.3"] Observed
        "With full headers display's serials go on from its data, and the others' start anew"
        sends "a seamless migration of a client without MINI_HEADER"
        expects "a first serial on display above the one in its data, and on main the one that the source began with, too"
        => serials_go_on;
    "seamless/target/sequence" ["Q2"] Must
        "The target sends MIGRATE_DST_SEAMLESS_ACK once"
        sends "a whole seamless migration, then ATTACH_CHANNELS to the target"
        expects "one MIGRATE_DST_SEAMLESS_ACK before CHANNELS_LIST"
        => target_sequence;
    "seamless/chain/second-migration" ["R1", "T4"] Must
        "A host that took a guest over can hand it on, seamlessly"
        sends "a whole seamless migration, then another one from the target to a third host with the same client"
        expects "MIGRATE_BEGIN_SEAMLESS, the data of every channel, and MULTI_MEDIA_TIME at the third host"
        => chained;
}

const ALLOWED: Setup = Setup { seamless: true, ..Setup::NOTHING };

/// And a guest with every kind of channel that the hosts can have.
const EVERYTHING: Setup = Setup { port_and_smartcard: true, ..ALLOWED };

/// `SPICE_MSGC_INPUTS_MOUSE_MOTION`, by nothing.
pub(super) const MOUSE_MOTION: ClientMessage<'_> = ClientMessage::Unknown { id: 111, body: Data(&[0; 10]) };

/// `SPICE_MSG_INPUTS_MOUSE_MOTION_ACK`, which comes for so many of them.
const MOUSE_MOTION_ACK: u16 = 111;
pub(super) const MOTION_BUNCH: usize = 4;

/// A version of the migration data that no server supports.
pub(super) const UNSUPPORTED_VERSION: u32 = 1 << 31;

async fn begin_seamless(context: &mut Context) -> Verdict {
    begins(context, MainCapability::KNOWN).await
}

async fn begin_seamless_without_semi(context: &mut Context) -> Verdict {
    begins(context, &[MainCapability::AGENT_CONNECTED_TOKENS, MainCapability::SEAMLESS_MIGRATE]).await
}

async fn begins(context: &mut Context, capabilities: &[MainCapability]) -> Verdict {
    let mut session = announced(context, capabilities).await?;
    until!(session.main, MigrateBeginSeamless).await.or_fail("S1.1")
}

async fn begin_destination(context: &mut Context) -> Verdict {
    let mut session = announced(context, MainCapability::KNOWN).await?;
    let told = session.main.until("MIGRATE_BEGIN_SEAMLESS", Destination::told).await?;
    let given = context.given_destination(Place::Target);
    check(told == given, "S1.4", &session.main.name, format_args!("{given:?}"), format_args!("{told:?}"))
}

async fn begin_version(context: &mut Context) -> Verdict {
    let mut session = announced(context, MainCapability::KNOWN).await?;
    let version = session.main.until("MIGRATE_BEGIN_SEAMLESS", seamless_version).await?;
    check(version == 1, "S2", &session.main.name, "src_mig_version 1", version)
}

async fn ack(context: &mut Context) -> Verdict {
    let (_source, mut target) = linked_to_target(context).await?;
    ask(&target, 1);
    until!(target.main, MigrateDstSeamlessAck).await.or_fail("T3.1")
}

async fn nack_version(context: &mut Context) -> Verdict {
    let (_source, mut target) = linked_to_target(context).await?;
    ask(&target, UNSUPPORTED_VERSION);
    until!(target.main, MigrateDstSeamlessNack).await.or_fail("T3.2")
}

async fn nack_second(context: &mut Context) -> Verdict {
    let (_source, mut target) = linked_to_target(context).await?;
    ask(&target, 1);
    until!(target.main, MigrateDstSeamlessAck).await?;
    ask(&target, 1);
    until!(target.main, MigrateDstSeamlessNack).await.or_fail("T3.3")
}

async fn second_request(context: &mut Context) -> Verdict {
    let Prepared { source, mut target, .. } = prepared(context).await?;
    ask(&target, 1);
    until!(target.main, MigrateDstSeamlessNack).await?;
    completes_all_the_same(context, source, target).await
}

async fn links_after_second_request(context: &mut Context) -> Verdict {
    let (mut source, mut target) = linked_to_target(context).await?;
    let (client, name, address) = (context.client(), Place::Target.name(), context.address(Place::Target));
    ask(&target, 1);
    until!(target.main, MigrateDstSeamlessAck).await?;
    ask(&target, 1);
    until!(target.main, MigrateDstSeamlessNack).await?;
    client.connect_children(name, address, &mut target).await.or_fail("T3.10")?;
    source.main.send(ClientMessage::MigrateConnectedSeamless);
    source.list_channels().await?;
    completes_all_the_same(context, source, target).await
}

async fn completes_all_the_same(context: &mut Context, mut source: Session, mut target: Session) -> Verdict {
    context.migrate(Place::Source, Place::Target).await?;
    relay(&mut source, &mut target).await?;
    target.list_channels_when_migrated().await.or_fail("T3.10")
}

async fn answer_first(context: &mut Context) -> Verdict {
    let (_source, mut target) = linked_to_target(context).await?;
    ask(&target, 1);
    target.main.until("an answer to MIGRATE_DST_DO_SEAMLESS", answer).await?;
    let first = target.main.taken.first().filter(|first| !is!(first, MigrateDstSeamlessAck | MigrateDstSeamlessNack));
    check_absent(first, "T3.7", &target.main, "the answer as the first message")
}

fn answer(message: &ServerMessage<'_>) -> Option<()> {
    matches!(message, ServerMessage::MigrateDstSeamlessAck | ServerMessage::MigrateDstSeamlessNack).then_some(())
}

async fn links_before_and_after(context: &mut Context) -> Verdict {
    let (mut source, mut target) = linked_to_target(context).await?;
    let (client, name, address) = (context.client(), Place::Target.name(), context.address(Place::Target));
    for id in target.offered.clone() {
        if id.channel_type != ChannelType::DISPLAY {
            target.children.push(client.link(name, address, target.id, id).await?);
        }
    }
    ask(&target, 1);
    until!(target.main, MigrateDstSeamlessAck).await?;
    for (position, id) in target.offered.clone().into_iter().enumerate() {
        if id.channel_type == ChannelType::DISPLAY {
            target.children.insert(position, client.link(name, address, target.id, id).await.or_fail("T3.8")?);
        }
    }
    source.main.send(ClientMessage::MigrateConnectedSeamless);
    source.list_channels().await?;
    context.migrate(Place::Source, Place::Target).await?;
    relay(&mut source, &mut target).await?;
    acknowledges_a_bunch(target.child(ChannelType::INPUTS)?).await.or_fail("T3.8")?;
    check_all_open(&mut target, "T3.8")
}

async fn end_after_nack(context: &mut Context) -> Verdict {
    let (mut source, mut target) = linked_to_target(context).await?;
    let (client, name, address) = (context.client(), Place::Target.name(), context.address(Place::Target));
    ask(&target, UNSUPPORTED_VERSION);
    until!(target.main, MigrateDstSeamlessNack).await?;
    client.connect_children(name, address, &mut target).await?;
    source.main.send(ClientMessage::MigrateConnected);
    source.list_channels().await?;
    context.migrate(Place::Source, Place::Target).await?;
    until!(source.main, MigrateEnd).await?;
    target.main.send(ClientMessage::MigrateEnd);
    until!(target.main, Init).await.or_fail("T3.9")?;
    Ok(target.start_children().await?)
}

async fn migrate_everywhere(context: &mut Context) -> Verdict {
    let Prepared { mut source, target: _target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    for channel in source.channels() {
        channel.until("MIGRATE", migrate_flags).await.or_fail("S4.1")?;
    }
    Ok(())
}

async fn out_of_turn(context: &mut Context) -> Verdict {
    let Prepared { mut source, target: _target, .. } = prepared(context).await?;
    let display = source.child(ChannelType::DISPLAY)?;
    send_out_of_turn(display);
    context.migrate(Place::Source, Place::Target).await?;
    display.until("MIGRATE", migrate_flags).await.or_fail("M6").map(drop)
}

async fn flags(context: &mut Context) -> Verdict {
    let Prepared { mut source, target: _target, .. } = prepared_with(context, EVERYTHING).await?;
    context.migrate(Place::Source, Place::Target).await?;
    for channel in source.channels() {
        let expected = match channel.id.channel_type {
            ChannelType::CURSOR | ChannelType::PLAYBACK | ChannelType::RECORD => MigrateFlags(0),
            ChannelType::MAIN
            | ChannelType::DISPLAY
            | ChannelType::INPUTS
            | ChannelType::SMARTCARD
            | ChannelType::USBREDIR
            | ChannelType::PORT
            | ChannelType::WEBDAV => MigrateFlags::NEED_FLUSH | MigrateFlags::NEED_DATA_TRANSFER,
            _ => continue,
        };
        let flags = channel.until("MIGRATE", migrate_flags).await?;
        check(flags == expected, "S7", &channel.name, format_args!("{expected:?}"), format_args!("{flags:?}"))?;
    }
    Ok(())
}

async fn only_data_follows(context: &mut Context) -> Verdict {
    let Prepared { mut source, mut target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    relay(&mut source, &mut target).await?;
    for channel in source.channels() {
        channel.finish();
        channel.closed_within(context.patience()).await?;
        let flags = channel.taken.iter().find_map(|received| migrate_flags(&received.message().ok()?));
        let announced = flags.is_some_and(|flags| flags.contains(MigrateFlags::NEED_DATA_TRANSFER));
        // A second MIGRATE on main is what the case of the sequence is about.
        let mut behind = channel.taken.iter().skip_while(|received| !is!(received, Migrate));
        let mut data = 0;
        let other = behind.find(|received| {
            data += usize::from(is!(received, MigrateData));
            !is!(received, Migrate | MigrateData) || data > usize::from(announced)
        });
        check_absent(
            other,
            "S8.1",
            channel,
            "MIGRATE_DATA once, if it was announced, and nothing else behind MIGRATE",
        )?;
    }
    Ok(())
}

async fn data_after_flush(context: &mut Context) -> Verdict {
    let Prepared { mut source, target: _target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    for channel in source.channels() {
        let flags = channel.until("MIGRATE", migrate_flags).await?;
        if channel.id.channel_type != ChannelType::DISPLAY && flags.contains(MigrateFlags::NEED_FLUSH) {
            channel.send_last(ClientMessage::MigrateFlushMark);
            channel.until("MIGRATE_DATA", migrate_data).await?;
        }
    }
    // The other channels' data has come since display's MIGRATE.
    let display = source.child(ChannelType::DISPLAY)?;
    let early = display.arrived().find(|received| is!(received, MigrateData)).cloned();
    check_absent(early.as_ref(), "S8.2", display, "no MIGRATE_DATA before MIGRATE_FLUSH_MARK")?;
    display.send_last(ClientMessage::MigrateFlushMark);
    display.until("MIGRATE_DATA", migrate_data).await.or_fail("S8.2")?;
    Ok(())
}

async fn source_sequence(context: &mut Context) -> Verdict {
    let Prepared { mut source, mut target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    relay(&mut source, &mut target).await?;
    source.main.finish();
    source.main.closed_within(context.patience()).await?;
    sequence_is(&source, &["MIGRATE_BEGIN_SEAMLESS", "MIGRATE", "MIGRATE_DATA"])
}

async fn completion_told(context: &mut Context) -> Verdict {
    let Prepared { mut source, mut target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    relay(&mut source, &mut target).await?;
    not_completed_yet(context)?;
    context.note_migration(Scheme::Seamless, &source, &target, Place::Source, Place::Target).await?;
    source.close().await;
    let patience = context.patience();
    context.host(Place::Source).wait_for(HostEvent::ClientMigrationCompleted, patience).await.or_fail("S9.2")?;
    target.close().await;
    Ok(())
}

async fn data_magic(context: &mut Context) -> Verdict {
    for (channel_type, connection, data) in all_data(context).await? {
        let magic = match channel_type {
            ChannelType::MAIN => b"MNMD",
            ChannelType::DISPLAY => b"DCMD",
            _ => b"ICMD",
        };
        let got = data.get(..4).unwrap_or(&data);
        let expected = magic.escape_ascii();
        check(got == magic, "D1", &connection, format_args!("magic {expected}"), got.escape_ascii())?;
    }
    Ok(())
}

async fn data_version(context: &mut Context) -> Verdict {
    for (channel_type, connection, data) in all_data(context).await? {
        let version = data.get(4..).and_then(|data| data.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes));
        check(version == Some(VERSION), "D2", &connection, "version 1", format_args!("{version:?}"))?;
        match State::decode(channel_type, &data) {
            Ok(State::Main(main)) => {
                check(
                    main.agent.version == VERSION,
                    "D2",
                    &connection,
                    "version 1 of the agent's state",
                    main.agent.version,
                )?;
            }
            Err(error) if error.fault == Fault::UnsupportedVersion => {
                check(false, "D2", &connection, "version 1 in every part", error)?;
            }
            _ => {}
        }
    }
    Ok(())
}

async fn data_whole(context: &mut Context) -> Verdict {
    for (channel_type, connection, data) in all_data(context).await? {
        let decoded = State::decode(channel_type, &data);
        let got = match decoded {
            Ok(_) => continue,
            Err(error) if matches!(error.fault, Fault::WrongMagic | Fault::UnsupportedVersion) => {
                return Err(Stop::Inconclusive(error.to_string()));
            }
            Err(error) => format!("{} bytes; {error}", data.len()),
        };
        check(false, "D3", &connection, "all that it counts and points to", got)?;
    }
    Ok(())
}

/// The migration data of main, display and inputs, each with its connection's name.
async fn all_data(context: &mut Context) -> Result<Vec<(ChannelType, String, Vec<u8>)>, Stop> {
    let Prepared { mut source, target: _target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    let mut all = Vec::new();
    for channel_type in [ChannelType::MAIN, ChannelType::DISPLAY, ChannelType::INPUTS] {
        let channel = source.channel(channel_type)?;
        match take_data(channel).await? {
            Some(data) => all.push((channel_type, channel.name.clone(), data)),
            None => return Err(channel.unexpected("MIGRATE with NEED_DATA_TRANSFER", "one without").into()),
        }
    }
    Ok(all)
}

async fn port_and_smartcard_data(context: &mut Context) -> Verdict {
    let Prepared { mut source, target: _target, .. } = prepared_with(context, EVERYTHING).await?;
    context.migrate(Place::Source, Place::Target).await?;
    let collected = collect(&mut source).await?;
    for needed in [ChannelType::PORT, ChannelType::SMARTCARD] {
        if !collected.iter().any(|(channel_type, _)| *channel_type == needed) {
            return Err(Stop::Inconclusive(format!("no data on {needed}")));
        }
    }
    for (channel_type, data) in collected {
        let (magic, least): (&[u8], _) = match channel_type {
            ChannelType::PORT => (b"SVMD\x01\0\0\0", 33),
            ChannelType::SMARTCARD => (b"SCMD\x01\0\0\0", 42),
            _ => continue,
        };
        let connection = source.child(channel_type)?.name.clone();
        let expected = format!("{least} bytes and more that begin with {}", magic.escape_ascii());
        let got = format!("{} bytes, {}", data.len(), data.escape_ascii());
        check(data.starts_with(magic) && data.len() >= least, "D4", &connection, expected, got)?;
    }
    Ok(())
}

async fn no_agent(context: &mut Context) -> Verdict {
    for (channel_type, connection, data) in all_data(context).await? {
        if channel_type != ChannelType::MAIN {
            continue;
        }
        let Ok(State::Main(main)) = State::decode(channel_type, &data) else {
            return Err(Stop::Inconclusive("main's data is not whole".to_owned()));
        };
        let agent = CharDevice { version: main.agent.version, ..CharDevice::default() };
        let empty = Main { version: main.version, agent, ..Main::default() };
        check(main == empty, "D5", &connection, format_args!("{empty:?}"), format_args!("{main:?}"))?;
    }
    Ok(())
}

async fn motions_counted(context: &mut Context) -> Verdict {
    let Prepared { mut source, target: _target, .. } = prepared(context).await?;
    let inputs = source.child(ChannelType::INPUTS)?;
    inputs.send(MOUSE_MOTION);
    inputs.send(MOUSE_MOTION);
    context.migrate(Place::Source, Place::Target).await?;
    let inputs = source.child(ChannelType::INPUTS)?;
    let flags = inputs.until("MIGRATE", migrate_flags).await?;
    if !flags.contains(MigrateFlags::NEED_FLUSH) {
        return Err(Stop::Inconclusive("the server did not wait for MIGRATE_FLUSH_MARK".to_owned()));
    }
    inputs.send(MOUSE_MOTION);
    inputs.send_last(ClientMessage::MigrateFlushMark);
    let data = inputs.until("MIGRATE_DATA", migrate_data).await?;
    let Ok(State::Inputs(counted)) = State::decode(ChannelType::INPUTS, &data) else {
        return Err(Stop::Inconclusive("the data of inputs is not whole".to_owned()));
    };
    check(counted.motion_count == 3, "S8.3", &inputs.name, "motion_count 3", counted.motion_count)
}

async fn no_init(context: &mut Context) -> Verdict {
    let mut target = relayed(context).await?;
    target.list_channels_when_migrated().await?;
    let init = target.main.taken.iter().find(|received| is!(received, Init));
    check_absent(init, "T3.4", &target.main, "no INIT")
}

async fn multi_media_time(context: &mut Context) -> Verdict {
    let Prepared { mut source, mut target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    // One that came before the data does not count.
    let early = target.main.arrived().filter(|received| is!(received, MultiMediaTime)).count();
    relay(&mut source, &mut target).await?;
    for _ in 0..=early {
        until!(target.main, MultiMediaTime).await.or_fail("T3.5")?;
    }
    Ok(())
}

async fn session_works(context: &mut Context) -> Verdict {
    let Prepared { mut source, mut target, .. } = prepared_with(context, EVERYTHING).await?;
    context.migrate(Place::Source, Place::Target).await?;
    relay(&mut source, &mut target).await?;
    source.close().await;
    target.list_channels_when_migrated().await.or_fail("T4")?;
    check_all_open(&mut target, "T4")
}

async fn data_in_any_order(context: &mut Context) -> Verdict {
    let Prepared { mut source, mut target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    let mut all = collect(&mut source).await?;
    all.reverse();
    for (channel_type, data) in &all {
        deliver(target.channel(*channel_type)?, data);
        if *channel_type == ChannelType::INPUTS {
            // The answer shows that its data has been taken before that of main is sent.
            acknowledges_a_bunch(target.child(ChannelType::INPUTS)?).await.or_fail("T4.2")?;
        }
    }
    Ok(until!(target.main, MultiMediaTime).await?)
}

async fn not_before_last(context: &mut Context) -> Verdict {
    let Prepared { mut source, mut target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    let Some(data) = take_data(&mut source.main).await? else {
        return Err(Stop::Inconclusive("main has no data".to_owned()));
    };
    deliver(&target.main, &data);
    until!(target.main, MultiMediaTime).await?;
    target.main.send(ClientMessage::AttachChannels);
    // What is answered shows that nothing before it is.
    ask(&target, UNSUPPORTED_VERSION);
    target.main.until("an answer to MIGRATE_DST_DO_SEAMLESS", answer).await?;
    let list = target.main.taken.iter().find(|received| is!(received, ChannelsList));
    check_absent(list, "T4.6", &target.main, "no CHANNELS_LIST while the data of display and inputs is due")
}

async fn motions_go_on(context: &mut Context) -> Verdict {
    acknowledged_at_target(context, 3, 1).await
}

async fn motions_due(context: &mut Context) -> Verdict {
    acknowledged_at_target(context, 4, 0).await
}

/// Brings a target data that counts motions, and sends it more of them.
async fn acknowledged_at_target(context: &mut Context, motion_count: u16, more: usize) -> Verdict {
    let Prepared { mut source, mut target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    let counting = [b"ICMD\x01\0\0\0".as_slice(), &motion_count.to_le_bytes()].concat();
    for (channel_type, data) in collect(&mut source).await? {
        if channel_type != ChannelType::INPUTS {
            deliver(target.channel(channel_type)?, &data);
        }
    }
    // The target has main's data: the order is another case's.
    until!(target.main, MultiMediaTime).await?;
    let inputs = target.child(ChannelType::INPUTS)?;
    deliver(inputs, &counting);
    for _ in 0..more {
        inputs.send(MOUSE_MOTION);
    }
    until_acknowledged(inputs).await.or_fail("T4.5")
}

/// Moves the mouse as often as asks for one answer.
async fn acknowledges_a_bunch(inputs: &mut Channel) -> Result<(), Unexpected> {
    for _ in 0..MOTION_BUNCH {
        inputs.send(MOUSE_MOTION);
    }
    until_acknowledged(inputs).await
}

pub(super) async fn until_acknowledged(inputs: &mut Channel) -> Result<(), Unexpected> {
    let acknowledged = |message: &ServerMessage<'_>| match message {
        ServerMessage::Unknown { id: MOUSE_MOTION_ACK, .. } => Some(()),
        _ => None,
    };
    inputs.until("MOUSE_MOTION_ACK", acknowledged).await
}

async fn channel_not_linked(context: &mut Context) -> Verdict {
    let (mut source, mut target) = linked_to_target(context).await?;
    let (client, name, address) = (context.client(), Place::Target.name(), context.address(Place::Target));
    target.offered.retain(|id| id.channel_type != ChannelType::INPUTS);
    ask(&target, 1);
    until!(target.main, MigrateDstSeamlessAck).await?;
    client.connect_children(name, address, &mut target).await?;
    source.main.send(ClientMessage::MigrateConnectedSeamless);
    source.list_channels().await?;
    context.migrate(Place::Source, Place::Target).await?;
    completes_without_inputs(&mut source, &mut target).await
}

async fn channel_lost(context: &mut Context) -> Verdict {
    let Prepared { mut source, mut target, .. } = prepared(context).await?;
    target.take_child(ChannelType::INPUTS)?.close().await;
    context.migrate(Place::Source, Place::Target).await?;
    completes_without_inputs(&mut source, &mut target).await
}

async fn completes_without_inputs(source: &mut Session, target: &mut Session) -> Verdict {
    for (channel_type, data) in collect(source).await? {
        if channel_type != ChannelType::INPUTS {
            deliver(target.channel(channel_type)?, &data);
        }
    }
    target.list_channels_when_migrated().await.or_fail("T4.4")
}

async fn serials_go_on(context: &mut Context) -> Verdict {
    context.start_pair(ALLOWED).await?;
    let client = context.client().with_common(&[CommonCapability::AUTH_SELECTION, CommonCapability::AUTH_SPICE]);
    let session = context.connect(&client, Place::Source).await?;
    let Prepared { mut source, mut target, .. } =
        context.prepare(&client, session, Place::Source, Place::Target).await?;
    context.migrate(Place::Source, Place::Target).await?;
    let all = collect(&mut source).await?;
    let mut last = 0;
    for (channel_type, data) in &all {
        if let Ok(State::Display(display)) = State::decode(*channel_type, data) {
            last = display.message_serial;
        }
        deliver(target.channel(*channel_type)?, data);
    }
    let first = |main: &Channel| main.taken.first().map(|received| received.serial);
    let (expected, main) = (first(&source.main), first(&target.main));
    let anew = format!("the serial that the source began with, {expected:?}");
    check(main == expected, "T4.3", &target.main.name, anew, format_args!("{main:?}"))?;
    let display = target.child(ChannelType::DISPLAY)?;
    let first = display.next("a message at the target").await?.serial;
    check(first > last, "T4.3", &display.name, format_args!("a serial above {last}"), first)
}

async fn target_sequence(context: &mut Context) -> Verdict {
    let mut target = relayed(context).await?;
    target.list_channels_when_migrated().await?;
    let acks = target.main.taken.iter().filter(|received| is!(received, MigrateDstSeamlessAck)).count();
    check(acks == 1, "Q2", &target.main.name, "one MIGRATE_DST_SEAMLESS_ACK", acks)
}

async fn chained(context: &mut Context) -> Verdict {
    let prepared = prepared(context).await?;
    let target = context.complete(prepared, Place::Source, Place::Target).await?;
    context.start(Place::Third, ALLOWED).await?;
    let client = context.client();
    let prepared = context.prepare(&client, target, Place::Target, Place::Third).await.map_err(violates_r1)?;
    let third = context.complete(prepared, Place::Target, Place::Third).await.map_err(violates_r1)?;
    third.close().await;
    Ok(())
}

/// Two hosts, a session at the source, and the target announced to it.
async fn announced(context: &mut Context, capabilities: &[MainCapability]) -> Result<Session, Stop> {
    context.start_pair(ALLOWED).await?;
    let client = context.client().with_main(capabilities);
    let session = context.connect(&client, Place::Source).await?;
    context.announce(Place::Source, Place::Target).await?;
    Ok(session)
}

/// A session at the source that was told to begin, and its main channel at the target, silent so far.
async fn linked_to_target(context: &mut Context) -> Result<(Session, Session), Stop> {
    let mut source = announced(context, MainCapability::KNOWN).await?;
    until!(source.main, MigrateBeginSeamless).await?;
    let address = context.address(Place::Target);
    let target = context.client().connect_migrating(Place::Target.name(), address, &source).await?;
    Ok((source, target))
}

pub(super) fn ask(target: &Session, src_version: u32) {
    target.main.send(ClientMessage::MigrateDstDoSeamless(client::MigrateDstDoSeamless { src_version }));
}

/// Two hosts, and a client that has answered MIGRATE_CONNECTED_SEAMLESS.
async fn prepared(context: &mut Context) -> Result<Prepared, Stop> {
    prepared_with(context, ALLOWED).await
}

async fn prepared_with(context: &mut Context, setup: Setup) -> Result<Prepared, Stop> {
    context.start_pair(setup).await?;
    let client = context.client();
    let session = context.connect(&client, Place::Source).await?;
    context.prepare(&client, session, Place::Source, Place::Target).await
}

/// A seamless migration up to where all data is delivered: the session at the target.
async fn relayed(context: &mut Context) -> Result<Session, Stop> {
    let Prepared { mut source, mut target, .. } = prepared(context).await?;
    context.migrate(Place::Source, Place::Target).await?;
    relay(&mut source, &mut target).await?;
    source.close().await;
    Ok(target)
}
