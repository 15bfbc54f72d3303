//! What is kept of one connection.

use alloc::format;
use alloc::string::String;

use super::{ConnectionNumber, Opened, ServerId, Time};
use crate::ChannelType;
use crate::caps::{CommonCapability, MainCapability};
use crate::frame::HeaderKind;
use crate::link::LinkError;
use crate::message::{ChannelId, MigrateFlags};

/// When something was seen: the time, and the event's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Moment {
    pub(super) at: Time,
    pub(super) order: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Connection {
    pub(super) server: ServerId,
    pub(super) client: Option<u32>,
    pub(super) channel: ChannelId,
    /// The connection id of its session; of a new session it is known from INIT on.
    pub(super) session: Option<u32>,
    /// Whether all messages since the link were seen.
    pub(super) whole: bool,
    /// A main connection whose link brings a session along.
    pub(super) migrating: bool,
    pub(super) known: Option<Known>,
    /// The number of the event that opened it.
    pub(super) order: u64,
    pub(super) closed: bool,
    /// The main connection of its session at its server.
    pub(super) main: Option<ConnectionNumber>,
    /// Whether its session had moved before it was linked, so that it is no part of that.
    pub(super) joins_later: bool,
    /// The connection at the source that it continues.
    pub(super) continues: Option<ConnectionNumber>,
    /// How many messages there were.
    pub(super) from_client: u64,
    pub(super) from_server: u64,
    /// The server's last serial.
    pub(super) serial: Option<u64>,
    /// Whether the next serial may be any: migration data can bring one along.
    pub(super) serial_jumps: bool,

    // As a channel that moves away from here.
    pub(super) migrate: Option<(MigrateFlags, Moment)>,
    pub(super) flush_mark: bool,
    pub(super) data: Option<Digest>,

    // As a channel that moves to here.
    pub(super) data_relayed: bool,
    /// When data came that no target may use.
    pub(super) bad_data: Option<Moment>,

    pub(super) source: SourceTalk,
    pub(super) target: TargetTalk,
}

/// What the link stage told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Known {
    pub(super) result: LinkError,
    pub(super) headers: HeaderKind,
    /// Of the client, on the main channel.
    pub(super) semi_seamless: bool,
    pub(super) seamless: bool,
    pub(super) agent_tokens: bool,
    pub(super) name_and_uuid: bool,
    /// Of the server, on the main channel.
    pub(super) server_seamless: bool,
}

/// What source and client have said to each other on a main connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct SourceTalk {
    pub(super) announcements: u32,
    pub(super) announced: Option<Announced>,
    /// Whether all earlier announcements had been answered when the last one came, so that it cannot be taken for another.
    pub(super) alone: bool,
    pub(super) answers: u32,
    pub(super) connected: u32,
    pub(super) connected_seamless: u32,
    /// The last success.
    pub(super) succeeded: Option<(Completion, Moment)>,
    /// When a success was told that nobody had asked for: CANCEL must follow.
    pub(super) unasked: Option<Moment>,
    /// Whether the last answer was an error that nobody had asked for.
    pub(super) unasked_error: bool,
    pub(super) cancels: u32,
    /// The last CANCEL.
    pub(super) cancelled: Option<Moment>,
    pub(super) completed: Option<(Completion, Moment)>,
    /// Whether CHANNELS_LIST has come, and had no playback channel.
    pub(super) no_playback: bool,
}

/// An announcement of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Announced {
    /// The source's version, if it is seamless.
    pub(super) version: Option<u32>,
    /// The event's number.
    pub(super) order: u64,
}

/// How a source hands a client over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Completion {
    Migrate,
    End,
    SwitchHost,
}

/// What target and client have said to each other on a main connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct TargetTalk {
    /// DO_SEAMLESS, and the last one's version.
    pub(super) asked: u32,
    pub(super) version: u32,
    pub(super) agreed: u32,
    pub(super) declined: u32,
    /// The client's MIGRATE_END.
    pub(super) ended: bool,
    pub(super) init: bool,
    pub(super) attached: bool,
    /// When main's data came, until MULTI_MEDIA_TIME does.
    pub(super) clock_awaited: Option<Moment>,
}

/// Stands for migration data. Other data can have the same one, but the same data cannot have another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Digest {
    pub(super) length: usize,
    hash: u64,
}

impl Connection {
    pub(super) fn new(opened: &Opened<'_>, order: u64) -> Self {
        let is_main = opened.channel.channel_type == ChannelType::MAIN;
        let connection_id = opened.link.map_or(0, |link| link.connection_id);
        let known = opened.link.map(|link| {
            let mini = CommonCapability::MINI_HEADER;
            let both = link.client.common.has(mini) && link.server.common.has(mini);
            let main = |capability| is_main && link.client.channel.has(capability);
            Known {
                result: link.result,
                headers: if both { HeaderKind::Mini } else { HeaderKind::Full },
                semi_seamless: main(MainCapability::SEMI_SEAMLESS_MIGRATE),
                seamless: main(MainCapability::SEAMLESS_MIGRATE),
                agent_tokens: main(MainCapability::AGENT_CONNECTED_TOKENS),
                name_and_uuid: main(MainCapability::NAME_AND_UUID),
                server_seamless: is_main && link.server.channel.has(MainCapability::SEAMLESS_MIGRATE),
            }
        });
        Self {
            server: opened.server,
            client: opened.client,
            channel: opened.channel,
            session: (connection_id != 0).then_some(connection_id),
            whole: known.is_some(),
            migrating: is_main && connection_id != 0 && known.is_some_and(|known| known.result == LinkError::OK),
            known,
            order,
            closed: false,
            main: None,
            joins_later: false,
            continues: None,
            from_client: 0,
            from_server: 0,
            serial: None,
            serial_jumps: false,
            migrate: None,
            flush_mark: false,
            data: None,
            data_relayed: false,
            bad_data: None,
            source: SourceTalk::default(),
            target: TargetTalk::default(),
        }
    }

    pub(super) fn is_main(&self) -> bool {
        self.channel.channel_type == ChannelType::MAIN
    }

    /// Whether the link was refused.
    pub(super) fn refused(&self) -> bool {
        self.known.is_some_and(|known| known.result != LinkError::OK)
    }

    pub(super) fn channel_name(&self) -> String {
        format!("{}:{}", self.channel.channel_type, self.channel.id)
    }

    /// On a main connection: that the client is known to lack this.
    pub(super) fn client_lacks(&self, has: impl Fn(&Known) -> bool) -> bool {
        self.known.is_some_and(|known| !has(&known))
    }

    /// On a main connection that was seen whole, of a client that has come from a source: that it has been promised nothing,
    /// and the guest has not come.
    pub(super) fn is_pending(&self) -> bool {
        self.whole && self.migrating && self.target.agreed == 0 && !self.target.init
    }

    /// Whether the client has said MIGRATE_END, and a server may act on it.
    pub(super) fn has_ended(&self) -> bool {
        self.target.ended && !self.client_lacks(|client| client.semi_seamless)
    }
}

impl SourceTalk {
    /// Whether the client has an announcement to answer.
    pub(super) const fn awaited(&self) -> bool {
        self.answers < self.announcements
    }

    /// How many successes were not cancelled. An answer does not say which announcement it is for, and one CANCEL takes one back.
    pub(super) const fn successes(&self) -> u32 {
        self.connected.saturating_add(self.connected_seamless).saturating_sub(self.cancels)
    }

    /// What the client's answers make due, if they have been read.
    pub(super) fn due(&self) -> Option<Completion> {
        if self.successes() == 0 { None } else { self.succeeded.map(|(completion, _)| completion) }
    }
}

impl Digest {
    pub(super) fn of(data: &[u8]) -> Self {
        // FNV-1a.
        let hash = data.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self { length: data.len(), hash }
    }
}
