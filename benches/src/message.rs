//! What the baselines decode to.
#![allow(missing_docs, reason = "the variants and fields are those of spice_migration::ServerMessage")]

use spice_migration::link::LinkError;
use spice_migration::message::{MigrateFlags, MouseModes, NotifySeverity, NotifyVisibility, server};
use spice_migration::{Data, List, ServerMessage, Text};

/// A message from a server on the main channel: strings without their NUL, lists in wire form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Migrate { flags: u32 },
    MigrateData { data: &'a [u8] },
    SetAck { generation: u32, window: u32 },
    Ping { id: u32, timestamp: u64, data: &'a [u8] },
    WaitForChannels { wait_list: &'a [[u8; 10]] },
    Disconnecting { time_stamp: u64, reason: u32 },
    Notify(Notify<'a>),
    SubMessageList { list: &'a [u8] },
    MigrateBegin { destination: Destination<'a> },
    MigrateCancel,
    Init(Init),
    ChannelsList { channels: &'a [[u8; 2]] },
    MouseMode { supported_modes: u16, current_mode: u16 },
    MultiMediaTime { time: u32 },
    AgentConnected,
    AgentDisconnected { error_code: u32 },
    AgentData { data: &'a [u8] },
    AgentToken { num_tokens: u32 },
    MigrateSwitchHost { destination: Destination<'a> },
    MigrateEnd,
    Name { name: &'a [u8] },
    Uuid { uuid: [u8; 16] },
    AgentConnectedTokens { num_tokens: u32 },
    MigrateBeginSeamless { destination: Destination<'a>, src_mig_version: u32 },
    MigrateDstSeamlessAck,
    MigrateDstSeamlessNack,
    Unknown { id: u16, body: &'a [u8] },
}

/// `SpiceMigrationDstInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination<'a> {
    pub port: u16,
    pub tls_port: u16,
    pub host: &'a [u8],
    pub cert_subject: Option<&'a [u8]>,
}

/// `SpiceMsgNotify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify<'a> {
    pub time_stamp: u64,
    pub severity: u32,
    pub visibility: u32,
    pub what: u32,
    pub message: &'a [u8],
    pub terminated: bool,
}

/// `SpiceMsgMainInit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    pub session_id: u32,
    pub display_channels_hint: u32,
    pub supported_mouse_modes: u32,
    pub current_mouse_mode: u32,
    pub agent_connected: u32,
    pub agent_tokens: u32,
    pub multi_media_time: u32,
    pub ram_hint: u32,
}

impl<'a> Message<'a> {
    /// The same message as `spice-migration` has it; `None` if a string is not one.
    #[must_use]
    pub fn to_server_message(self) -> Option<ServerMessage<'a>> {
        use ServerMessage as Ours;

        Some(match self {
            Self::Migrate { flags } => Ours::Migrate(server::Migrate { flags: MigrateFlags(flags) }),
            Self::MigrateData { data } => Ours::MigrateData(server::MigrateData { data: Data(data) }),
            Self::SetAck { generation, window } => Ours::SetAck(server::SetAck { generation, window }),
            Self::Ping { id, timestamp, data } => Ours::Ping(server::Ping { id, timestamp, data: Data(data) }),
            Self::WaitForChannels { wait_list } => {
                Ours::WaitForChannels(server::WaitForChannels { wait_list: List::new(wait_list) })
            }
            Self::Disconnecting { time_stamp, reason } => {
                Ours::Disconnecting(server::Disconnecting { time_stamp, reason: LinkError(reason) })
            }
            Self::Notify(Notify { time_stamp, severity, visibility, what, message, terminated }) => {
                Ours::Notify(server::Notify {
                    time_stamp,
                    severity: NotifySeverity(severity),
                    visibility: NotifyVisibility(visibility),
                    what,
                    message: Data(message),
                    terminated,
                })
            }
            Self::SubMessageList { list } => Ours::SubMessageList(server::SubMessageList { list: Data(list) }),
            Self::MigrateBegin { destination } => {
                Ours::MigrateBegin(server::MigrateBegin { destination: destination.to_destination()? })
            }
            Self::MigrateCancel => Ours::MigrateCancel,
            Self::Init(init) => Ours::Init(server::Init {
                session_id: init.session_id,
                display_channels_hint: init.display_channels_hint,
                supported_mouse_modes: init.supported_mouse_modes,
                current_mouse_mode: init.current_mouse_mode,
                agent_connected: init.agent_connected,
                agent_tokens: init.agent_tokens,
                multi_media_time: init.multi_media_time,
                ram_hint: init.ram_hint,
            }),
            Self::ChannelsList { channels } => {
                Ours::ChannelsList(server::ChannelsList { channels: List::new(channels) })
            }
            Self::MouseMode { supported_modes, current_mode } => Ours::MouseMode(server::MouseMode {
                supported_modes: MouseModes(supported_modes),
                current_mode: MouseModes(current_mode),
            }),
            Self::MultiMediaTime { time } => Ours::MultiMediaTime(server::MultiMediaTime { time }),
            Self::AgentConnected => Ours::AgentConnected,
            Self::AgentDisconnected { error_code } => {
                Ours::AgentDisconnected(server::AgentDisconnected { error_code: LinkError(error_code) })
            }
            Self::AgentData { data } => Ours::AgentData(server::AgentData { data: Data(data) }),
            Self::AgentToken { num_tokens } => Ours::AgentToken(server::AgentToken { num_tokens }),
            Self::MigrateSwitchHost { destination } => {
                Ours::MigrateSwitchHost(server::MigrateSwitchHost { destination: destination.to_destination()? })
            }
            Self::MigrateEnd => Ours::MigrateEnd,
            Self::Name { name } => Ours::Name(server::Name { name: Data(name) }),
            Self::Uuid { uuid } => Ours::Uuid(server::Uuid { uuid }),
            Self::AgentConnectedTokens { num_tokens } => {
                Ours::AgentConnectedTokens(server::AgentConnectedTokens { num_tokens })
            }
            Self::MigrateBeginSeamless { destination, src_mig_version } => {
                Ours::MigrateBeginSeamless(server::MigrateBeginSeamless {
                    destination: destination.to_destination()?,
                    src_mig_version,
                })
            }
            Self::MigrateDstSeamlessAck => Ours::MigrateDstSeamlessAck,
            Self::MigrateDstSeamlessNack => Ours::MigrateDstSeamlessNack,
            Self::Unknown { id, body } => Ours::Unknown { id, body: Data(body) },
        })
    }
}

impl<'a> Destination<'a> {
    fn to_destination(self) -> Option<spice_migration::Destination<'a>> {
        let cert_subject = match self.cert_subject {
            Some(subject) => Some(Text::new(subject)?),
            None => None,
        };
        Some(spice_migration::Destination {
            port: self.port,
            tls_port: self.tls_port,
            host: Text::new(self.host)?,
            cert_subject,
        })
    }
}
