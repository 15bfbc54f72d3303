//! Sessions that are cut at their bytes: the client is gone within a message, or the message comes in pieces.

use spice_migration::{
    ChannelType, ClientMessage, Data,
    caps::MainCapability,
    frame::{self, HeaderKind},
    message::{Message, client},
};

use super::vanish::strands_nobody;
use crate::{
    case::{Case, Context, Level, OrFail, Verdict, run},
    context::{Place, Setup},
    peer::host::idle_data,
    situation::{GuestMove, Situation},
};

/// A message that is due in a situation.
#[derive(Clone, Copy, Debug)]
struct Due {
    situation: Situation,
    channel_type: ChannelType,
    /// Its name in the ids of cases.
    name: &'static str,
    message: fn(ChannelType, &mut Vec<u8>) -> ClientMessage<'_>,
}

const DUE: [Due; 9] = [
    due(Situation::Session, ChannelType::MAIN, "attach-channels", |_, _| ClientMessage::AttachChannels),
    due(Situation::Session, ChannelType::INPUTS, "key-down", |_, _| ClientMessage::Unknown {
        id: 101,
        body: Data(b"\x1e\0\0\0"),
    }),
    due(Situation::Announced, ChannelType::MAIN, "migrate-connected", |_, _| ClientMessage::MigrateConnected),
    due(Situation::Migrating, ChannelType::MAIN, "migrate-flush-mark", |_, _| ClientMessage::MigrateFlushMark),
    due(Situation::Migrating, ChannelType::INPUTS, "migrate-flush-mark", |_, _| ClientMessage::MigrateFlushMark),
    due(Situation::Linked, ChannelType::MAIN, "migrate-dst-do-seamless", |_, _| {
        ClientMessage::MigrateDstDoSeamless(client::MigrateDstDoSeamless { src_version: 1 })
    }),
    due(Situation::GuestCame, ChannelType::MAIN, "migrate-end", |_, _| ClientMessage::MigrateEnd),
    due(Situation::GuestCameSeamless, ChannelType::MAIN, "migrate-data", migrate_data),
    due(Situation::GuestCameSeamless, ChannelType::INPUTS, "migrate-data", migrate_data),
];

const fn due(
    situation: Situation,
    channel_type: ChannelType,
    name: &'static str,
    message: fn(ChannelType, &mut Vec<u8>) -> ClientMessage<'_>,
) -> Due {
    Due { situation, channel_type, name, message }
}

fn migrate_data(channel_type: ChannelType, buffer: &mut Vec<u8>) -> ClientMessage<'_> {
    *buffer = idle_data(channel_type);
    ClientMessage::MigrateData(client::MigrateData { data: Data(buffer) })
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = DUE.into_iter().map(end_case).collect();
    cases.extend([true, false].map(bytes_case));
    cases
}

// The client is gone within a message.

fn end_case(due: Due) -> Case {
    let Due { situation, channel_type, name, .. } = due;
    let description = situation.description();
    Case {
        id: format!("cut/{}/{channel_type}-{name}", situation.name()).into(),
        title: format!("A client that is gone within a message on {channel_type} strands nobody, in {description}").into(),
        requirements: match situation.guest() {
            GuestMove::No => &["M5.4", "P1"],
            _ => &["M5.4", "S12", "H6", "T13", "P1"],
        },
        level: Level::Must,
        sent: format!(
            "in {description}: the first bytes of {}, and the end of all connections; hosts of their own for each number of bytes",
            name.to_uppercase().replace('-', "_")
        )
        .into(),
        expected: "both hosts are told, no connection is kept, and a new client is served".into(),
        waits: false,
        run: run(move |context| Box::pin(gone_within(context, due))),
    }
}

async fn gone_within(context: &mut Context, due: Due) -> Verdict {
    let Due { situation, channel_type, message, .. } = due;
    let mut buffer = Vec::new();
    let message = message(channel_type, &mut buffer);
    let mut bytes = vec![0; HeaderKind::Mini.len() + message.encoded_len()];
    frame::encode(HeaderKind::Mini, 0, &message, &mut bytes).unwrap_or_default();
    for cut in cuts(context, bytes.len()) {
        context.renew().await;
        let mut sessions = situation.reach(context).await?;
        let channel = sessions.channel(situation, channel_type)?;
        channel.send_bytes(&format!("{cut} of the {} bytes of {message:?}", bytes.len()), bytes[..cut].to_vec());
        channel.finish();
        sessions.close().await;
        strands_nobody(context, situation).await?;
    }
    Ok(())
}

/// Numbers of bytes after which a message is cut: all of them, or those at the bounds of header and body where hosts are costly.
fn cuts(context: &Context, length: usize) -> Vec<usize> {
    let header = HeaderKind::Mini.len();
    let mut cuts: Vec<usize> = match context.subject.starts_quickly() {
        true => (1..=length).collect(),
        false => {
            [1, header - 1, header, header + 1, length - 1, length].into_iter().filter(|cut| *cut <= length).collect()
        }
    };
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

// A message comes in pieces.

fn bytes_case(seamless: bool) -> Case {
    let scheme = if seamless { "seamless" } else { "semi-seamless" };
    Case {
        id: format!("cut/bytes/{scheme}").into(),
        title: format!("A client whose every byte comes in a segment of its own is migrated, by the {scheme} scheme")
            .into(),
        requirements: &["M5.8"],
        level: Level::Must,
        sent: format!("a whole {scheme} migration, each byte behind the link stage by itself").into(),
        expected: "a session that works at the target".into(),
        waits: false,
        run: run(move |context| Box::pin(byte_by_byte(context, seamless))),
    }
}

async fn byte_by_byte(context: &mut Context, seamless: bool) -> Verdict {
    let (source, target) = (Place::Source, Place::Target);
    context.start_pair(Setup { seamless, ..Setup::default() }).await?;
    let mut client = context.client();
    client.byte_by_byte = true;
    if !seamless {
        client = client.with_main(&[MainCapability::SEMI_SEAMLESS_MIGRATE]);
    }
    let session = context.connect(&client, source).await.or_fail("M5.8")?;
    let mut session = match seamless {
        true => {
            let prepared = context.prepare_seamless(&client, session, source, target).await.or_fail("M5.8")?;
            context.finish_seamless(prepared, source, target).await.or_fail("M5.8")?
        }
        false => {
            let prepared = context.prepare_semi_seamless(&client, session, source, target).await.or_fail("M5.8")?;
            context.finish_semi_seamless(prepared, source, target).await.or_fail("M5.8")?
        }
    };
    session.list_channels_when_migrated().await.or_fail("M5.8")?;
    session.close().await;
    Ok(())
}
