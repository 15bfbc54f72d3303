//! The actions in words, for a reader of counterexamples.

use spice_migration::ChannelType;
use spice_migration::message::ChannelId;
use spice_migration::migrate::{FromSource, FromTarget, ToSource, ToTarget};

use crate::world::{Action, Connection, Item, Stream, World};

/// What happens when `action` is taken in `world`.
pub fn tell(world: &World, action: Action) -> String {
    match action {
        Action::SourceReads(channel) => {
            format!(
                "The source reads {}.",
                item(first(source(world, channel), |it| &it.up), channel, "the client", to_source)
            )
        }
        Action::ClientReadsSource(channel) => {
            format!(
                "The client reads {}.",
                item(first(source(world, channel), |it| &it.down), channel, "the source", from_source)
            )
        }
        Action::TargetReads(attempt, channel) => {
            format!(
                "The target reads {}.",
                item(first(target(world, attempt, channel), |it| &it.up), channel, "the client", to_target)
            )
        }
        Action::ClientReadsTarget(channel) => {
            let connection = target(world, world.seen.attempt, channel);
            format!("The client reads {}.", item(first(connection, |it| &it.down), channel, "the target", from_target))
        }
        Action::LinkComesUp(channel) => format!("The client's {} link to the target comes up.", name(channel)),
        Action::LinkFails(channel) => format!("The client's {} link to the target fails.", name(channel)),
        Action::FreshSessionStarts => "The client starts afresh at the target.".into(),
        Action::TargetHostReads => match world.stream.first() {
            Some(Stream::Arrived) => "All of the guest is at the target.".into(),
            Some(Stream::Failed) => "The target's host finds the connection to the source's host closed.".into(),
            Some(Stream::Start) => "The target's host reads the source's word to start the guest.".into(),
            None => "The target's host reads nothing.".into(),
        },
        Action::Migrate => "The source's host is told to migrate.".into(),
        Action::Cancel => "The source's host is told to cancel.".into(),
        Action::LiveStageDone => "The live stage is done, and the guest stops.".into(),
        Action::GuestMoved => "The source has sent the last of the guest.".into(),
        Action::CopyingFails => "Copying the guest fails.".into(),
        Action::ClientExits => "The client exits.".into(),
        Action::CutSource(channel) => format!("The {} connection to the source is cut.", name(channel)),
        Action::CutTarget(channel) => format!("The {} connection to the target is cut.", name(channel)),
        Action::CutStream => "The connection between the hosts is cut.".into(),
        Action::ClientStalls => "The client stalls.".into(),
        Action::ClientWakes => "The client wakes.".into(),
        Action::TimePasses => "Somebody's time is up.".into(),
        Action::ClientSends => "The client sends a message on inputs.".into(),
        Action::ServerSends => "The server sends a message on inputs.".into(),
    }
}

fn source(world: &World, channel: ChannelId) -> Option<&Connection<FromSource, ToSource>> {
    world.source.iter().find(|(other, _)| *other == channel).map(|(_, connection)| connection)
}

fn target(world: &World, attempt: u8, channel: ChannelId) -> Option<&Connection<FromTarget, ToTarget>> {
    world.target.iter().find(|link| link.attempt == attempt && link.channel == channel)?.connection.as_ref()
}

fn first<Down, Up, M: Copy>(
    connection: Option<&Connection<Down, Up>>,
    direction: impl Fn(&Connection<Down, Up>) -> &Vec<Item<M>>,
) -> Option<Item<M>> {
    connection.and_then(|it| direction(it).first().copied())
}

fn item<M>(item: Option<Item<M>>, channel: ChannelId, sender: &str, message: impl Fn(M) -> &'static str) -> String {
    let channel = name(channel);
    match item {
        Some(Item::Says(says)) => format!("{} on {channel}", message(says)),
        Some(Item::Payload(_)) => format!("the message on {channel}"),
        Some(Item::Closed) => format!("that {sender} has closed {channel}"),
        None => "nothing".into(),
    }
}

fn name(channel: ChannelId) -> &'static str {
    match channel.channel_type {
        ChannelType::MAIN => "main",
        ChannelType::INPUTS => "inputs",
        _ => "cursor",
    }
}

fn from_source(message: FromSource) -> &'static str {
    match message {
        FromSource::Begin => "MIGRATE_BEGIN",
        FromSource::BeginSeamless { .. } => "MIGRATE_BEGIN_SEAMLESS",
        FromSource::Cancel => "MIGRATE_CANCEL",
        FromSource::End => "MIGRATE_END",
        FromSource::SwitchHost => "MIGRATE_SWITCH_HOST",
        FromSource::Migrate(_) => "MIGRATE",
        FromSource::MigrateData => "MIGRATE_DATA",
    }
}

fn to_source(message: ToSource) -> &'static str {
    match message {
        ToSource::Connected => "MIGRATE_CONNECTED",
        ToSource::ConnectedSeamless => "MIGRATE_CONNECTED_SEAMLESS",
        ToSource::ConnectError => "MIGRATE_CONNECT_ERROR",
        ToSource::FlushMark => "MIGRATE_FLUSH_MARK",
    }
}

fn from_target(message: FromTarget) -> &'static str {
    match message {
        FromTarget::Ack => "MIGRATE_DST_SEAMLESS_ACK",
        FromTarget::Nack => "MIGRATE_DST_SEAMLESS_NACK",
        FromTarget::Init => "INIT",
    }
}

fn to_target(message: ToTarget) -> &'static str {
    match message {
        ToTarget::DoSeamless { .. } => "MIGRATE_DST_DO_SEAMLESS",
        ToTarget::End => "MIGRATE_END",
        ToTarget::MigrateData => "MIGRATE_DATA",
    }
}
