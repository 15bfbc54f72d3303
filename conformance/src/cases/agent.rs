//! The guest's agent: what a client is told of it, and what becomes of it when the guest moves.

use spice_migration::{
    ChannelType, ClientMessage, Data, ServerMessage,
    message::client,
    state::{Main, State},
};

use super::{SEMI, check, check_absent, seamless::UNSUPPORTED_VERSION};
use crate::{
    case::{Case, Context, Level, OrFail, Stop, Unexpected, Verdict, run},
    context::{MAIN, Place, Setup},
    migration::{Prepared, collect, deliver, migrate_data, migrate_flags, restart},
    peer::client::{Channel, Client, Received, Session, is, until},
};

/// The agent at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    None,
    /// The client has not said that it talks to it.
    Unstarted,
    Started,
}

/// The agent at the target, where it attaches anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Never,
    /// Before the client comes.
    First,
    /// Before the data has come, or MIGRATE_END.
    Early,
    /// After that.
    Late,
    /// It has attached early, and gone.
    Gone,
    /// And attached once more.
    Again,
}

/// What becomes of a client that has sent half a message to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Gone,
    /// Another one takes its place.
    Replaced,
    /// Another one comes, and it stays.
    Beside,
}

/// What a client is told of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Connected,
    Disconnected,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        session_case(
            "init-without",
            &["M10"],
            "INIT says that no agent is connected when none is",
            "a main link",
            "agent_connected 0",
            |context| Box::pin(init_tells(context, false)),
        ),
        session_case(
            "init-with",
            &["M10"],
            "INIT says that an agent is connected when one is",
            "a main link when the agent is attached",
            "agent_connected 1",
            |context| Box::pin(init_tells(context, true)),
        ),
        session_case(
            "appears-tokens",
            &["M2"],
            "A client with AGENT_CONNECTED_TOKENS is told so of an agent that appears",
            "a session of a client with the capability; the agent attaches",
            "AGENT_CONNECTED_TOKENS",
            |context| Box::pin(appears(context, true)),
        ),
        session_case(
            "appears",
            &["M2"],
            "A client without AGENT_CONNECTED_TOKENS is told AGENT_CONNECTED of an agent that appears",
            "a session of a client without the capability; the agent attaches",
            "AGENT_CONNECTED",
            |context| Box::pin(appears(context, false)),
        ),
        session_case(
            "goes",
            &["M2.2"],
            "A client is told of an agent that goes",
            "a session with an agent, which goes",
            "AGENT_DISCONNECTED",
            |context| Box::pin(goes(context)),
        ),
    ];
    cases.extend(MESSAGES.iter().map(|(name, started, message)| message_case(name, *started, *message)));
    cases.push(oversized_case());
    cases.extend([Rest::Gone, Rest::Replaced, Rest::Beside].map(half_message_case));
    for before in [Before::None, Before::Unstarted, Before::Started] {
        for after in [After::Never, After::First, After::Early, After::Late, After::Gone, After::Again] {
            cases.push(seamless_case(before, after));
        }
    }
    cases.push(started_on_the_way_case());
    cases.extend([true, false].map(behind_migrate_case));
    for before in [Before::None, Before::Started] {
        for after in [After::Never, After::Early] {
            cases.push(semi_seamless_case(before, after));
        }
    }
    cases
}

/// What a client says to an agent that is there: a name, whether the client has started it before, and the message.
const MESSAGES: &[(&str, bool, ClientMessage<'static>)] = &[
    ("token-unstarted", false, ClientMessage::AgentToken(client::AgentToken { num_tokens: 1 })),
    ("data-unstarted", false, agent_message()),
    ("start", false, ClientMessage::AgentStart(client::AgentStart { num_tokens: 1 })),
    ("start-again", true, ClientMessage::AgentStart(client::AgentStart { num_tokens: 1 })),
    ("token", true, ClientMessage::AgentToken(client::AgentToken { num_tokens: 1 })),
    ("tokens-beyond-count", true, ClientMessage::AgentToken(client::AgentToken { num_tokens: u32::MAX })),
    ("data", true, agent_message()),
    ("data-empty", true, ClientMessage::AgentData(client::AgentData { data: Data(&[]) })),
    ("data-unlike", true, ClientMessage::AgentData(client::AgentData { data: Data(&[0xff; 40]) })),
];

/// A message of the agent's protocol: version 1, VD_AGENT_ANNOUNCE_CAPABILITIES, an opaque of 0, and 4 bytes, a request for an answer.
const fn agent_message() -> ClientMessage<'static> {
    ClientMessage::AgentData(client::AgentData {
        data: Data(b"\x01\0\0\0\x06\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0\x01\0\0\0"),
    })
}

/// Says that the client talks to the agent.
fn start_agent(main: &Channel) {
    main.send(ClientMessage::AgentStart(client::AgentStart { num_tokens: u32::MAX }));
}

/// Starts the agent, and sends half of AGENT_DATA, which the server has read when this returns.
async fn begin_a_message(main: &mut Channel) -> Result<(), Unexpected> {
    start_agent(main);
    // ATTACH_CHANNELS, and 8 bytes of 24.
    let bytes = b"\x68\0\0\0\0\0\x6b\0\x18\0\0\0\x01\0\0\0\x06\0\0\0";
    main.send_bytes("ATTACH_CHANNELS, and half a message to the agent", bytes.to_vec());
    until!(main, ChannelsList).await
}

fn session_case(
    name: &'static str,
    requirements: &'static [&'static str],
    title: &'static str,
    sent: &'static str,
    expected: &'static str,
    function: impl for<'a> Fn(&'a mut Context) -> crate::case::Judging<'a> + Send + Sync + 'static,
) -> Case {
    Case {
        id: format!("agent/session/{name}").into(),
        title: title.into(),
        requirements,
        level: Level::Must,
        sent: sent.into(),
        expected: expected.into(),
        waits: false,
        run: run(function),
    }
}

impl Before {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Unstarted => "unstarted",
            Self::Started => "started",
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::None => "without an agent",
            Self::Unstarted => "with an agent that the client has not started",
            Self::Started => "with an agent that the client has started",
        }
    }
}

impl After {
    const fn name(self) -> &'static str {
        match self {
            Self::Never => "none",
            Self::First => "first",
            Self::Early => "early",
            Self::Late => "late",
            Self::Gone => "gone",
            Self::Again => "again",
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::Never => "no agent attaches",
            Self::First => "the agent attaches before the client comes",
            Self::Early => "the agent attaches before the data comes",
            Self::Late => "the agent attaches after the data has come",
            Self::Gone => "the agent attaches, and goes before the data comes",
            Self::Again => "the agent attaches, goes, and attaches again before the data comes",
        }
    }
}

// Messages to an agent that is there.

fn message_case(name: &str, started: bool, message: ClientMessage<'static>) -> Case {
    let (c_name, whom) = (message.c_name(), if started { Before::Started } else { Before::Unstarted });
    Case {
        id: format!("agent/message/{name}").into(),
        title: format!("{c_name} ({name}) harms nobody else in a session {}", whom.description()).into(),
        requirements: &["S11"],
        level: Level::Must,
        sent: format!("a session {}; {c_name}, and nothing more", whom.description()).into(),
        expected: "an answer, nothing, or the end of main; the server lives and serves a new client".into(),
        waits: false,
        run: run(move |context| {
            Box::pin(async move {
                context.start_source(Setup::NOTHING).await?;
                let client = context.client();
                let mut session = begin(context, &client, whom).await?;
                session.main.send(message);
                session.main.finish();
                session.main.closed_within(context.patience()).await.or_fail("S11")?;
                Ok(())
            })
        }),
    }
}

fn oversized_case() -> Case {
    Case {
        id: "agent/message/oversized".into(),
        title: "The header of AGENT_DATA that announces 2 GiB and more ends main, with an agent, too".into(),
        requirements: &["M5.2"],
        level: Level::Must,
        sent: "two sessions with an agent that the client has started; a header of AGENT_DATA with size 2^31, 2^32 - 1"
            .into(),
        expected: "the end of main at once; the server lives and serves a new client".into(),
        // Where a server waits for all of the body, nothing happens.
        waits: true,
        run: run(|context| Box::pin(oversized(context))),
    }
}

async fn oversized(context: &mut Context) -> Verdict {
    context.start_source(Setup::NOTHING).await?;
    context.attach_agent(Place::Source, true).await?;
    let client = context.client();
    for size in [1 << 31, u32::MAX] {
        let mut session = context.connect_main(&client, Place::Source).await?;
        start_agent(&session.main);
        let header = [&b"\x6b\0"[..], &size.to_le_bytes()].concat();
        session.main.send_bytes(&format!("a header of AGENT_DATA with size {size}"), header);
        session.main.closed_within(context.patience()).await.or_fail("M5.2")?;
    }
    Ok(())
}

fn half_message_case(rest: Rest) -> Case {
    let (name, does) = match rest {
        Rest::Gone => ("gone", "goes"),
        Rest::Replaced => ("replaced", "is replaced by another one"),
        Rest::Beside => ("beside", "pauses beside another one"),
    };
    Case {
        id: format!("agent/half-message/{name}").into(),
        title: format!("A client that {does} in the middle of a message to the agent leaves nothing of it to others")
            .into(),
        requirements: &["M2.4"],
        level: Level::Must,
        sent: format!("half of AGENT_DATA; the client {does}; a whole one of the next client").into(),
        expected: "CHANNELS_LIST for the next client".into(),
        waits: false,
        run: run(move |context| Box::pin(half_message(context, rest))),
    }
}

async fn half_message(context: &mut Context, rest: Rest) -> Verdict {
    context.start_source(Setup { several_clients: rest == Rest::Beside, ..Setup::NOTHING }).await?;
    context.attach_agent(Place::Source, true).await?;
    let client = context.client();
    let mut first = context.connect_main(&client, Place::Source).await?;
    begin_a_message(&mut first.main).await?;
    let stays = match rest {
        Rest::Gone => {
            first.close().await;
            None
        }
        Rest::Replaced | Rest::Beside => Some(first),
    };
    let mut next = context.connect_main(&client, Place::Source).await.or_fail("M2.4")?;
    start_agent(&next.main);
    next.main.send(agent_message());
    next.list_channels().await.or_fail("M2.4")?;
    if let Some(mut first) = stays {
        first.main.finish();
        first.main.closed_within(context.patience()).await.or_fail("M2.4")?;
    }
    next.list_channels().await.or_fail("M2.4")
}

// Seamlessly.

fn seamless_case(before: Before, after: After) -> Case {
    let requirements: &[&str] = match (before, after) {
        (Before::None, _) => &["T10"],
        (_, After::Gone) => &["D7", "T10.3"],
        (_, After::Again) => &["D7", "T10.2"],
        _ => &["D7", "T10"],
    };
    Case {
        id: format!("agent/seamless/{}-{}", before.name(), after.name()).into(),
        title: format!(
            "A client that comes {} is told what is new to it when {}",
            before.description(),
            after.description()
        )
        .into(),
        requirements,
        // As T10.2 is.
        level: if requirements.contains(&"T10.2") { Level::Observed } else { Level::Must },
        sent: format!("a seamless migration {}; at the target {}", before.description(), after.description()).into(),
        expected: match told(before, after) {
            [] => "no word of the agent",
            [Told::Connected] => "AGENT_CONNECTED_TOKENS",
            [Told::Disconnected] => "AGENT_DISCONNECTED",
            _ => "AGENT_DISCONNECTED, then AGENT_CONNECTED_TOKENS",
        }
        .into(),
        waits: false,
        run: run(move |context| Box::pin(seamless(context, before, after))),
    }
}

/// What is new to the client.
fn told(before: Before, after: After) -> &'static [Told] {
    match (before, after) {
        (Before::None, After::Never | After::Gone) => &[],
        (Before::None, _) => &[Told::Connected],
        (_, After::Never | After::First | After::Early | After::Late) => &[],
        (_, After::Gone) => &[Told::Disconnected],
        (_, After::Again) => &[Told::Disconnected, Told::Connected],
    }
}

async fn seamless(context: &mut Context, before: Before, after: After) -> Verdict {
    let (source, target) = (Place::Source, Place::Target);
    context.start_pair(Setup { seamless: true, ..Setup::default() }).await?;
    let client = context.client();
    let session = begin(context, &client, before).await?;
    context.attach_agent(target, after == After::First).await?;
    let Prepared { source: mut session, target: mut moved, .. } =
        context.prepare(&client, session, source, target).await?;
    context.migrate(source, target).await?;
    let all = collect(&mut session).await?;
    for attached in match after {
        After::Never | After::First | After::Late => &[][..],
        After::Early => &[true],
        After::Gone => &[true, false],
        After::Again => &[true, false, true],
    } {
        context.attach_agent(target, *attached).await?;
    }
    for (channel_type, data) in &all {
        if *channel_type == ChannelType::MAIN {
            tells_of_agent(before, &session.main.name, data)?;
        }
        deliver(moved.channel(*channel_type)?, data);
    }
    moved.list_channels_when_migrated().await?;
    if after == After::Late {
        context.attach_agent(target, true).await?;
        moved.list_channels().await?;
    }
    let requirement = match after {
        After::Gone if before != Before::None => "T10.3",
        After::Again if before != Before::None => "T10.2",
        _ => "T10",
    };
    // What is told when the agent attaches may come behind the answer to a message that was sent afterwards.
    let expected = told(before, after);
    while heard(&moved.main).len() < expected.len() {
        moved.main.next("word of the agent").await.or_fail(requirement)?;
    }
    let heard = heard(&moved.main);
    check(heard == expected, requirement, &moved.main.name, format_args!("{expected:?}"), format_args!("{heard:?}"))
}

fn started_on_the_way_case() -> Case {
    Case {
        id: "agent/seamless/started-on-the-way".into(),
        title: "An agent that a client starts between main's data and that of other channels is started".into(),
        requirements: &["D7"],
        level: Level::Must,
        sent: "a seamless migration without an agent; it attaches at the target; main's data; AGENT_START; the other channels' data; \
               then another seamless migration"
            .into(),
        expected: "main's data of the second migration says that the client has started the agent".into(),
        waits: false,
        run: run(|context| Box::pin(started_on_the_way(context))),
    }
}

async fn started_on_the_way(context: &mut Context) -> Verdict {
    let (source, target, third) = (Place::Source, Place::Target, Place::Third);
    let setup = Setup { seamless: true, ..Setup::default() };
    context.start_pair(setup).await?;
    let client = context.client();
    let session = begin(context, &client, Before::None).await?;
    let Prepared { source: mut session, target: mut moved, .. } =
        context.prepare(&client, session, source, target).await?;
    context.migrate(source, target).await?;
    context.attach_agent(target, true).await?;
    for (channel_type, data) in collect(&mut session).await? {
        deliver(moved.channel(channel_type)?, &data);
        if channel_type == ChannelType::MAIN {
            until!(moved.main, AgentConnectedTokens).await?;
            start_agent(&moved.main);
            // The answer shows that the target has processed the message before.
            let again = client::MigrateDstDoSeamless { src_version: UNSUPPORTED_VERSION };
            moved.main.send(ClientMessage::MigrateDstDoSeamless(again));
            until!(moved.main, MigrateDstSeamlessNack).await?;
        }
    }
    moved.list_channels_when_migrated().await?;
    session.close().await;
    context.start(third, setup).await?;
    let Prepared { source: mut moved, .. } = context.prepare(&client, moved, target, third).await?;
    context.migrate(target, third).await?;
    let all = collect(&mut moved).await?;
    let main = all.iter().find(|(channel_type, _)| *channel_type == ChannelType::MAIN);
    let (_, data) = main.ok_or_else(|| Stop::Inconclusive("main has no data".to_owned()))?;
    tells_of_agent(Before::Started, &moved.main.name, data)
}

fn behind_migrate_case(attaches: bool) -> Case {
    let does = if attaches { "attaches" } else { "goes" };
    Case {
        id: format!("agent/behind-migrate/{does}").into(),
        title: format!("A client that was sent MIGRATE is not told that the agent {does}").into(),
        requirements: &["S8.1"],
        level: Level::Must,
        sent: format!("a seamless migration up to MIGRATE; the agent {does} at the source; MIGRATE_FLUSH_MARK").into(),
        expected: "MIGRATE_DATA on main, and nothing between it and MIGRATE".into(),
        waits: false,
        run: run(move |context| Box::pin(behind_migrate(context, attaches))),
    }
}

async fn behind_migrate(context: &mut Context, attaches: bool) -> Verdict {
    let (source, target) = (Place::Source, Place::Target);
    context.start_pair(Setup { seamless: true, ..Setup::default() }).await?;
    let client = context.client();
    let session = begin(context, &client, if attaches { Before::None } else { Before::Started }).await?;
    let mut session = context.prepare(&client, session, source, target).await?.source;
    context.migrate(source, target).await?;
    session.main.until("MIGRATE", migrate_flags).await?;
    context.attach_agent(source, attaches).await?;
    let before = session.main.taken.len();
    session.main.send(ClientMessage::MigrateFlushMark);
    session.main.until("MIGRATE_DATA", migrate_data).await.or_fail("S8.1")?;
    let other = session.main.taken[before..].iter().find(|received| !is!(received, MigrateData));
    check_absent(other, "S8.1", &session.main, "nothing but MIGRATE_DATA behind MIGRATE")
}

/// A session at the source, with the agent as it is there.
async fn begin(context: &mut Context, client: &Client, before: Before) -> Result<Session, Stop> {
    if before != Before::None {
        context.attach_agent(Place::Source, true).await?;
    }
    let session = context.connect(client, Place::Source).await?;
    if before == Before::Started {
        start_agent(&session.main);
    }
    Ok(session)
}

/// Checks what main's data says of the agent.
fn tells_of_agent(before: Before, connection: &str, data: &[u8]) -> Verdict {
    let Ok(State::Main(Main { agent, client_agent_started, .. })) = State::decode(ChannelType::MAIN, data) else {
        return Err(Stop::Inconclusive("main's data is not whole".to_owned()));
    };
    let expected = (before != Before::None, before == Before::Started);
    let got = (agent.connected, client_agent_started);
    let text = |(connected, started)| format!("connected {connected}, client_agent_started {started}");
    check(got == expected, "D7", connection, text(expected), text(got))
}

/// What a client was told of the agent, in this order.
fn heard(main: &Channel) -> Vec<Told> {
    let told = |received: &Received| match received.message() {
        Ok(ServerMessage::AgentConnected | ServerMessage::AgentConnectedTokens(_)) => Some(Told::Connected),
        Ok(ServerMessage::AgentDisconnected(_)) => Some(Told::Disconnected),
        _ => None,
    };
    main.taken.iter().filter_map(told).collect()
}

// Semi-seamlessly.

fn semi_seamless_case(before: Before, after: After) -> Case {
    let attached = after != After::Never;
    Case {
        id: format!("agent/semi-seamless/{}-{}", before.name(), after.name()).into(),
        title: format!(
            "INIT tells a client that comes {} of the agent at the target when {}",
            before.description(),
            match attached {
                true => "one attaches there",
                false => "none attaches there",
            }
        )
        .into(),
        requirements: &["M10"],
        level: Level::Must,
        sent: format!(
            "a semi-seamless migration {}; at the target {}",
            before.description(),
            match attached {
                true => "the agent attaches before MIGRATE_END",
                false => "no agent attaches",
            }
        )
        .into(),
        expected: format!("INIT with agent_connected {}", u32::from(attached)).into(),
        waits: false,
        run: run(move |context| Box::pin(semi_seamless(context, before, attached))),
    }
}

async fn semi_seamless(context: &mut Context, before: Before, attached: bool) -> Verdict {
    let (source, target) = (Place::Source, Place::Target);
    context.start_pair(Setup::default()).await?;
    let client = context.client();
    let session = begin(context, &client, before).await?;
    let Prepared { source: mut session, target: mut moved, .. } =
        context.prepare(&client, session, source, target).await?;
    context.migrate(source, target).await?;
    until!(session.main, MigrateEnd).await?;
    if attached {
        context.attach_agent(target, true).await?;
    }
    restart(&mut moved).await?;
    init_says(&moved.main, attached)?;
    Ok(moved.start_children().await?)
}

// In a session.

async fn init_tells(context: &mut Context, attached: bool) -> Verdict {
    context.start_source(Setup::default()).await?;
    context.attach_agent(Place::Source, attached).await?;
    let client = context.client();
    let mut main = client.link(Place::Source.name(), context.address(Place::Source), 0, MAIN).await?;
    until!(main, Init).await?;
    init_says(&main, attached)
}

/// Checks what the INIT that has come says of the agent.
fn init_says(main: &Channel, attached: bool) -> Verdict {
    let agent_connected = |received: &Received| match received.message() {
        Ok(ServerMessage::Init(init)) => Some(init.agent_connected),
        _ => None,
    };
    let got = main.taken.iter().find_map(agent_connected).unwrap_or_default();
    let expected = format!("agent_connected {}", u32::from(attached));
    check((got != 0) == attached, "M10", &main.name, expected, format_args!("agent_connected {got}"))
}

async fn appears(context: &mut Context, tokens: bool) -> Verdict {
    context.start_source(Setup::default()).await?;
    let client = context.client();
    let client = if tokens { client } else { client.with_main(SEMI) };
    let mut session = context.connect_main(&client, Place::Source).await?;
    session.list_channels().await?;
    context.attach_agent(Place::Source, true).await?;
    while heard(&session.main).is_empty() {
        session.main.next("word of the agent").await.or_fail("M2")?;
    }
    let other = |received: &&Received| match tokens {
        true => is!(received, AgentConnected),
        false => is!(received, AgentConnectedTokens),
    };
    let expected = if tokens { "AGENT_CONNECTED_TOKENS" } else { "AGENT_CONNECTED" };
    check_absent(session.main.taken.iter().find(other), "M2", &session.main, expected)
}

async fn goes(context: &mut Context) -> Verdict {
    context.start_source(Setup::default()).await?;
    context.attach_agent(Place::Source, true).await?;
    let client = context.client();
    let mut session = context.connect_main(&client, Place::Source).await?;
    session.list_channels().await?;
    context.attach_agent(Place::Source, false).await?;
    until!(session.main, AgentDisconnected).await.or_fail("M2.2")
}
