//! The fields of this crate's messages as C declares them, in its order.

use spice_common_oracle::Value;
use spice_migration::{ClientMessage, Destination, ServerMessage, Text};

/// `None`: not one of the messages that C is asked for.
pub(super) fn from_server(message: &ServerMessage<'_>) -> Option<Vec<Value>> {
    use ServerMessage as Message;
    Some(match *message {
        Message::Migrate(fields) => vec![fields.flags.0.into()],
        Message::MigrateData(fields) => vec![fields.data.0.into()],
        Message::SetAck(fields) => vec![fields.generation.into(), fields.window.into()],
        Message::Ping(fields) => {
            let mut values = vec![fields.id.into(), fields.timestamp.into()];
            values.extend(counted(fields.data.0));
            values
        }
        Message::WaitForChannels(fields) => {
            let mut values = vec![length(fields.wait_list.len())];
            for wait in fields.wait_list.iter() {
                values.extend([wait.channel_type.0.into(), wait.channel_id.into(), wait.message_serial.into()]);
            }
            values
        }
        Message::Disconnecting(fields) => vec![fields.time_stamp.into(), fields.reason.0.into()],
        // C does not see whether a NUL follows.
        Message::Notify(fields) => {
            let mut values = vec![
                fields.time_stamp.into(),
                fields.severity.0.into(),
                fields.visibility.0.into(),
                fields.what.into(),
            ];
            values.extend(counted(fields.message.0));
            values
        }
        Message::SubMessageList(fields) => vec![fields.list.0.into()],
        Message::MigrateBegin(fields) => destination(fields.destination),
        Message::MigrateCancel
        | Message::AgentConnected
        | Message::MigrateEnd
        | Message::MigrateDstSeamlessAck
        | Message::MigrateDstSeamlessNack => vec![],
        Message::Init(fields) => vec![
            fields.session_id.into(),
            fields.display_channels_hint.into(),
            fields.supported_mouse_modes.into(),
            fields.current_mouse_mode.into(),
            fields.agent_connected.into(),
            fields.agent_tokens.into(),
            fields.multi_media_time.into(),
            fields.ram_hint.into(),
        ],
        Message::ChannelsList(fields) => {
            let mut values = vec![length(fields.channels.len())];
            for channel in fields.channels.iter() {
                values.extend([channel.channel_type.0.into(), channel.id.into()]);
            }
            values
        }
        Message::MouseMode(fields) => vec![fields.supported_modes.0.into(), fields.current_mode.0.into()],
        Message::MultiMediaTime(fields) => vec![fields.time.into()],
        Message::AgentDisconnected(fields) => vec![fields.error_code.0.into()],
        Message::AgentData(fields) => vec![fields.data.0.into()],
        Message::AgentToken(fields) => vec![fields.num_tokens.into()],
        Message::MigrateSwitchHost(fields) => destination(fields.destination),
        Message::Name(fields) => counted(fields.name.0).into(),
        Message::Uuid(fields) => vec![fields.uuid.as_slice().into()],
        Message::AgentConnectedTokens(fields) => vec![fields.num_tokens.into()],
        Message::MigrateBeginSeamless(fields) => {
            let mut values = destination(fields.destination);
            values.push(fields.src_mig_version.into());
            values
        }
        _ => return None,
    })
}

/// `None`: not one of the messages that C is asked for.
pub(super) fn from_client(message: &ClientMessage<'_>) -> Option<Vec<Value>> {
    use ClientMessage as Message;
    Some(match *message {
        Message::AckSync(fields) => vec![fields.generation.into()],
        Message::Pong(fields) => vec![fields.id.into(), fields.timestamp.into()],
        Message::Ack
        | Message::MigrateFlushMark
        | Message::MigrateConnected
        | Message::MigrateConnectError
        | Message::AttachChannels
        | Message::MigrateEnd
        | Message::MigrateConnectedSeamless => vec![],
        Message::MigrateData(fields) => vec![fields.data.0.into()],
        Message::Disconnecting(fields) => vec![fields.time_stamp.into(), fields.reason.0.into()],
        Message::ClientInfo(fields) => vec![fields.cache_size.into()],
        Message::MouseModeRequest(fields) => vec![fields.mode.0.into()],
        Message::AgentStart(fields) => vec![fields.num_tokens.into()],
        Message::AgentData(fields) => vec![fields.data.0.into()],
        Message::AgentToken(fields) => vec![fields.num_tokens.into()],
        Message::MigrateDstDoSeamless(fields) => vec![fields.src_version.into()],
        Message::QualityIndicator(fields) => vec![fields.data.0.into()],
        _ => return None,
    })
}

fn destination(destination: Destination<'_>) -> Vec<Value> {
    let mut values = vec![destination.port.into(), destination.tls_port.into()];
    values.extend(terminated(destination.host));
    values.extend(destination.cert_subject.map_or([Value::Number(0), Value::Absent], terminated));
    values
}

/// A string as C holds it: with its NUL, which its size counts.
fn terminated(text: Text<'_>) -> [Value; 2] {
    counted(&[text.as_bytes(), &[0]].concat())
}

fn counted(bytes: &[u8]) -> [Value; 2] {
    [length(bytes.len()), bytes.into()]
}

fn length(length: usize) -> Value {
    Value::Number(length as u64)
}
