//! Every message that a client can send, in every situation that a server can be in.
//!
//! A client may send anything at any time; a hostile one will. What a message means where it is due is for the other groups: here it
//! comes well-formed, due or not, and the server must survive it.

use spice_migration::{
    ChannelType, ClientMessage, Data,
    link::LinkError,
    message::{MouseModes, client},
};

use crate::{
    case::{Case, Context, Level, OrFail, Verdict, run},
    context::Place,
    peer::client::{DISPLAY_INIT, is, until},
    situation::Situation,
};

use super::{check_absent, seamless::UNSUPPORTED_VERSION};

/// A message that a client can send, whole and well-formed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Example {
    pub(super) channel_type: ChannelType,
    /// Its name in the ids of cases.
    pub(super) name: &'static str,
    pub(super) message: ClientMessage<'static>,
}

/// One for each message of each channel that every host has.
pub(super) fn examples() -> impl Iterator<Item = Example> {
    use ClientMessage as Message;
    const fn other(id: u16, body: &'static [u8]) -> ClientMessage<'static> {
        ClientMessage::Unknown { id, body: Data(body) }
    }
    // SPICE_MSGC_*: of every channel, of main, and of those whose messages are no concern of migration's.
    let base = [
        ("ack-sync", Message::AckSync(client::AckSync { generation: 7 })),
        ("ack", Message::Ack),
        ("pong", Message::Pong(client::Pong { id: 7, timestamp: 7 })),
        ("migrate-flush-mark", Message::MigrateFlushMark),
        ("migrate-data", Message::MigrateData(client::MigrateData { data: Data(b"none") })),
        ("disconnecting", Message::Disconnecting(client::Disconnecting { time_stamp: 7, reason: LinkError::OK })),
        ("unknown", other(999, &[0; 4])),
    ];
    let main = [
        ("client-info", Message::ClientInfo(client::ClientInfo { cache_size: 1 << 20 })),
        ("migrate-connected", Message::MigrateConnected),
        ("migrate-connected-seamless", Message::MigrateConnectedSeamless),
        ("migrate-connect-error", Message::MigrateConnectError),
        ("attach-channels", Message::AttachChannels),
        ("mouse-mode-request", Message::MouseModeRequest(client::MouseModeRequest { mode: MouseModes::SERVER })),
        ("agent-start", Message::AgentStart(client::AgentStart { num_tokens: 10 })),
        (
            "agent-data",
            Message::AgentData(client::AgentData { data: Data(b"\x01\0\0\0\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0") }),
        ),
        ("agent-token", Message::AgentToken(client::AgentToken { num_tokens: 1 })),
        ("migrate-end", Message::MigrateEnd),
        ("migrate-dst-do-seamless", Message::MigrateDstDoSeamless(client::MigrateDstDoSeamless { src_version: 1 })),
        ("quality-indicator", Message::QualityIndicator(client::QualityIndicator { data: Data(&[1]) })),
    ];
    let display = [
        ("init", other(DISPLAY_INIT.0, DISPLAY_INIT.1)),
        ("stream-report", other(102, &[0; 32])),
        ("preferred-compression", other(103, &[1])),
        ("gl-draw-done", other(104, &[])),
        ("preferred-video-codec-type", other(105, &[1, 1])),
    ];
    let inputs = [
        ("key-down", other(101, b"\x1e\0\0\0")),
        ("key-up", other(102, b"\x9e\0\0\0")),
        ("key-modifiers", other(103, &[0; 2])),
        ("key-scancode", other(104, b"\x1e\x9e")),
        ("mouse-motion", other(111, &[0; 10])),
        ("mouse-position", other(112, &[0; 11])),
        ("mouse-press", other(113, &[1, 1, 0])),
        ("mouse-release", other(114, &[1, 0, 0])),
    ];
    let tables: [(ChannelType, Vec<(&'static str, ClientMessage<'static>)>); 4] = [
        (ChannelType::MAIN, main.into()),
        (ChannelType::DISPLAY, display.into()),
        (ChannelType::INPUTS, inputs.into()),
        (ChannelType::CURSOR, Vec::new()),
    ];
    tables.into_iter().flat_map(move |(channel_type, own)| {
        base.into_iter().chain(own).map(move |(name, message)| Example { channel_type, name, message })
    })
}

/// What must follow a message.
enum Follows {
    /// This channel ends.
    End,
    /// MIGRATE_CANCEL, in answer.
    Cancel,
    /// Nothing, in particular not MIGRATE_CANCEL.
    NoCancel,
    /// Nothing before the end of the connection.
    Silence,
    /// Anything, as long as the server goes on serving.
    Anything,
}

pub(super) fn cases() -> Vec<Case> {
    let pairs = Situation::ALL.into_iter().flat_map(|situation| examples().map(move |example| (situation, example)));
    pairs.filter(|(situation, example)| situation.has(example.channel_type)).map(|(s, e)| case(s, e)).collect()
}

fn case(situation: Situation, example: Example) -> Case {
    let Example { channel_type, name, message } = example;
    let (requirements, follows) = follows(situation, &example);
    let c_name = match message {
        ClientMessage::Unknown { id, .. } => format!("{} ({id})", name.to_uppercase().replace('-', "_")),
        _ => message.c_name().to_owned(),
    };
    let behind = match situation.holds(channel_type) {
        true if needs_init(&example) => "; then DISPLAY_INIT, and MIGRATE_END",
        true => "; then MIGRATE_END",
        false => "",
    };
    let expected = match follows {
        Follows::End => "the end of this channel; the server lives",
        Follows::Cancel => "MIGRATE_CANCEL",
        Follows::NoCancel => "no MIGRATE_CANCEL",
        Follows::Silence => "no answer",
        Follows::Anything => {
            "an answer, nothing, or the end of this channel and of no other; the server lives and serves a new client"
        }
    };
    Case {
        id: format!("message/{}/{channel_type}-{name}", situation.name()).into(),
        title: format!("{c_name} on {channel_type} is met well by {}", situation.description()).into(),
        requirements,
        level: Level::Must,
        sent: format!("{c_name} on the {channel_type} channel of {}{behind}", situation.description()).into(),
        expected: expected.into(),
        // What its server may have to wait for.
        waits: situation == Situation::GuestCameSeamless && channel_type == ChannelType::CURSOR,
        run: run(move |context| Box::pin(judge(context, situation, example))),
    }
}

/// What must follow a message in a situation, and by which requirement. Where a message is due, only that the server lives: the rest
/// is for the groups that are about it.
fn follows(situation: Situation, example: &Example) -> (&'static [&'static str], Follows) {
    use Situation::{Agreed, Cancelled, ConnectError, Connected, GuestCame, Linked, Session, Waiting};
    match (situation, example.message) {
        (_, ClientMessage::Unknown { id: 999, .. }) => (&["M4.1"], Follows::End),
        (
            Session | Cancelled | ConnectError | Connected | Agreed,
            ClientMessage::MigrateConnected | ClientMessage::MigrateConnectedSeamless,
        ) => (&["S6.1"], Follows::Cancel),
        (Session | Cancelled | ConnectError | Connected | Agreed, ClientMessage::MigrateConnectError) => {
            (&["S6.2"], Follows::NoCancel)
        }
        (Linked | Waiting | GuestCame, ClientMessage::AttachChannels) => (&["T5"], Follows::Silence),
        _ if situation.place() == Place::Target => (&["T12"], Follows::Anything),
        _ => (&["S11"], Follows::Anything),
    }
}

/// Whether DISPLAY_INIT has to be sent, too: without it, spice-server 0.15.1 makes everybody wait; that is P2.
fn needs_init(example: &Example) -> bool {
    example.channel_type == ChannelType::DISPLAY && example.message.id() != DISPLAY_INIT.0
}

async fn judge(context: &mut Context, situation: Situation, example: Example) -> Verdict {
    let (requirements, follows) = follows(situation, &example);
    let requirement = requirements[0];
    let limit = situation.patience(context);
    // A client that has been sent away is dropped in the end, whatever it says.
    let soon = context.soon();
    let mut sessions = situation.reach(context).await?;
    let channel = sessions.channel(situation, example.channel_type)?;
    let before = channel.taken.len();
    channel.send(example.message);
    let held = situation.holds(example.channel_type);
    if held {
        if needs_init(&example) {
            let (id, body) = DISPLAY_INIT;
            channel.send(ClientMessage::Unknown { id, body: Data(body) });
        }
        // Before MIGRATE_END a server need not read it.
        sessions.go_on(context, situation, Some(example.channel_type)).await.or_fail(requirement)?;
    }
    let channel = sessions.channel(situation, example.channel_type)?;
    match follows {
        Follows::End => {
            channel.closed_within(soon).await.or_fail(requirement)?;
        }
        Follows::Cancel => until!(channel, MigrateCancel).await.or_fail(requirement)?,
        Follows::NoCancel | Follows::Silence | Follows::Anything => {
            // An answer to what is sent behind it shows that none to the message is on its way any more: what a server has not sent
            // when it notices that the client is gone, it may throw away.
            match follows {
                Follows::NoCancel => {
                    channel.send(ClientMessage::AttachChannels);
                    until!(channel, ChannelsList).await.or_fail(requirement)?;
                }
                Follows::Silence => {
                    let src_version = UNSUPPORTED_VERSION;
                    channel.send(ClientMessage::MigrateDstDoSeamless(client::MigrateDstDoSeamless { src_version }));
                    until!(channel, MigrateDstSeamlessNack).await?;
                }
                // It may also end the channel.
                _ if situation.serves() && example.channel_type == ChannelType::MAIN => {
                    channel.send(ClientMessage::AttachChannels);
                    let answered = until!(channel, ChannelsList).await;
                    if channel.has_ended().is_none() {
                        answered.or_fail(requirement)?;
                    }
                }
                _ => {}
            }
            channel.finish();
            channel.closed_within(limit).await.or_fail(requirement)?;
            let followed = &channel.taken[before..];
            let wrong = match follows {
                Follows::NoCancel => followed.iter().find(|received| is!(received, MigrateCancel)),
                Follows::Silence => followed.iter().find(|received| is!(received, ChannelsList)),
                _ => None,
            };
            check_absent(wrong, requirement, channel, "no such answer")?;
        }
    }
    match example.channel_type {
        ChannelType::MAIN => Ok(()),
        // It has ended, and no other with it.
        lost if held => {
            sessions.session(situation)?.list_channels().await.or_fail(requirement)?;
            sessions.are_open_but(situation, Some(lost)).await.or_fail(requirement)
        }
        lost => sessions.go_on(context, situation, Some(lost)).await.or_fail(requirement),
    }
}
