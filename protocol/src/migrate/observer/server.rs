//! What is judged when a server sends a message.

use alloc::format;
use alloc::string::ToString;

use super::connection::{Announced, Completion, Digest};
use super::{HostEvent, Party, Received, Role, Side, Step, Turn};
use crate::error::Fault;
use crate::frame::HeaderKind;
use crate::link::LinkError;
use crate::message::{MigrateFlags, ShortName};
use crate::migrate::{FromSource, FromTarget, Scheme, migrate_flags};
use crate::state::{JpegWanCompression, State, VERSION};
use crate::{ChannelType, ClientMessage, DecodeError, ServerMessage};

impl Turn<'_> {
    /// Judges a message and takes note of it.
    pub(super) fn judge(&mut self, message: &Received<'_>) -> Option<Step> {
        self.headers(message);
        if message.from == Side::Server && message.id == ServerMessage::LIST {
            self.connection.whole = false;
            return None;
        }
        let channel = self.connection.channel.channel_type;
        // A body that this crate refuses may mean something to the peer: from there on, not all is known.
        match message.from {
            Side::Client => match ClientMessage::decode(channel, message.id, message.body) {
                Ok(decoded) => self.client_says(&decoded, message.id, &decoded.short_name().to_string()),
                Err(error) => {
                    self.client_sends(message.id, &ShortName { c_name: error.message, id: message.id }.to_string());
                    self.connection.whole = false;
                    None
                }
            },
            Side::Server => match ServerMessage::decode(channel, message.id, message.body) {
                Ok(decoded) => self.server_says(Some(&decoded), &decoded.short_name().to_string()),
                Err(error) => {
                    self.server_says(None, &ShortName { c_name: error.message, id: message.id }.to_string());
                    self.connection.whole = false;
                    None
                }
            },
        }
    }

    /// Which header it must have, and the serial in it.
    fn headers(&mut self, message: &Received<'_>) {
        let by = match message.from {
            Side::Client => Party::Client,
            Side::Server => self.server(),
        };
        match (self.connection.known.map(|known| known.headers), message.serial) {
            (Some(HeaderKind::Mini), Some(_)) => {
                self.violated("M3.1", by, "a mini header, for both sides have MINI_HEADER", "a full header");
            }
            (Some(HeaderKind::Full), None) => {
                self.violated("M3.2", by, "a full header, for a side lacks MINI_HEADER", "a mini header");
            }
            _ => {}
        }
        let (Side::Server, Some(serial)) = (message.from, message.serial) else { return };
        // A channel that is carried over may carry its serials over, too; which one is, not every connection tells.
        let is_new = self.main().is_some_and(|main| main.whole && !main.migrating) && self.connection.whole;
        let jumps = core::mem::take(&mut self.connection.serial_jumps);
        let expected = match self.connection.serial {
            Some(last) if !jumps => Some(last.wrapping_add(1)),
            None if is_new && self.connection.from_server == 1 => Some(1),
            _ => None,
        };
        self.connection.serial = Some(serial);
        if let Some(expected) = expected.filter(|expected| *expected != serial) {
            self.violated("M3.2", by, format!("serial {expected}"), format!("serial {serial}"));
        }
    }

    fn server_says(&mut self, message: Option<&ServerMessage<'_>>, name: &str) -> Option<Step> {
        if let Some(result) = self.connection.known.map(|known| known.result).filter(|result| *result != LinkError::OK)
        {
            let requirement = match result {
                LinkError::PERMISSION_DENIED => "L5.1",
                LinkError::BAD_CONNECTION_ID => "L6.1",
                LinkError::CHANNEL_NOT_AVAILABLE => "L6.2",
                _ => return None,
            };
            self.violated(requirement, self.server(), format!("the end of the connection after {result}"), name);
            return None;
        }
        if self.long_since(self.connection.bad_data) {
            self.connection.bad_data = None;
            let expected = "the end of the channel, for its migration data cannot be used";
            self.violated("T6", Party::Target, expected, name);
        }
        let step = message.and_then(FromSource::of);
        if self.connection.is_main() {
            self.on_main(message, name);
        } else {
            self.on_held_channel(name);
        }
        self.after_migrate(step, name);
        let step = match step? {
            FromSource::Begin => self.announce(None, name),
            FromSource::BeginSeamless { version } => self.announce(Some(version), name),
            FromSource::Cancel => self.cancel(name),
            FromSource::End => self.complete(Completion::End, name),
            FromSource::SwitchHost => self.complete(Completion::SwitchHost, name),
            FromSource::Migrate(flags) => self.migrate(flags, name),
            FromSource::MigrateData => {
                if let Some(ServerMessage::MigrateData(message)) = message {
                    self.migrate_data(message.data.0, name);
                }
                return None;
            }
        };
        Some(step)
    }

    /// What a server says on a main channel, apart from what a source says about the migration.
    fn on_main(&mut self, message: Option<&ServerMessage<'_>>, name: &str) {
        let by = self.server();
        let whole = self.connection.whole;
        if self.connection.migrating {
            self.on_targets_main(message, name);
        } else if whole && self.connection.from_server == 1 && name != "INIT" {
            self.violated("M1.1", by, "INIT as the first message of a session", name);
        }
        let lacks_name = self.connection.client_lacks(|client| client.name_and_uuid);
        let lacks_tokens = self.connection.client_lacks(|client| client.agent_tokens);
        match message {
            Some(ServerMessage::Init(init)) if !self.connection.migrating => {
                self.connection.session.get_or_insert(init.session_id);
            }
            Some(ServerMessage::Name(_) | ServerMessage::Uuid(_)) if lacks_name => {
                self.violated("M1.3", by, "nothing, for the client lacks NAME_AND_UUID", name);
            }
            Some(ServerMessage::AgentConnectedTokens(_)) if lacks_tokens => {
                self.violated("M2", by, "AGENT_CONNECTED, for the client lacks AGENT_CONNECTED_TOKENS", name);
            }
            Some(ServerMessage::AgentConnected) if self.connection.known.is_some() && !lacks_tokens => {
                self.violated("M2", by, "AGENT_CONNECTED_TOKENS, which the client has the capability for", name);
            }
            Some(ServerMessage::ChannelsList(list)) => {
                let mut channels = list.channels.iter();
                self.connection.source.no_playback = !channels.any(|id| id.channel_type == ChannelType::PLAYBACK);
                if whole && !self.connection.migrating && !self.connection.target.attached {
                    self.violated("M1.4", by, "the client's ATTACH_CHANNELS before it", name);
                }
            }
            _ => {}
        }
        if self.long_since(self.connection.source.unasked) && !matches!(message, Some(ServerMessage::MigrateCancel)) {
            self.connection.source.unasked = None;
            let expected = "MIGRATE_CANCEL, in answer to a success that nobody had asked for";
            self.violated("S6.1", Party::Source, expected, name);
        }
    }

    /// What a target says on the main channel of a client that has come from a source.
    fn on_targets_main(&mut self, message: Option<&ServerMessage<'_>>, name: &str) {
        let by = Party::Target;
        let target = self.connection.target;
        let ended = self.connection.has_ended();
        match message.and_then(FromTarget::of) {
            Some(answer @ (FromTarget::Ack | FromTarget::Nack)) => {
                let target_now = &mut self.connection.target;
                let ack = answer == FromTarget::Ack;
                let count = if ack { &mut target_now.agreed } else { &mut target_now.declined };
                *count = count.saturating_add(1);
                if target.agreed.saturating_add(target.declined) >= target.asked {
                    self.violated("Q2", by, "one answer to each MIGRATE_DST_DO_SEAMLESS", format!("a further {name}"));
                } else if ack && target.agreed > 0 {
                    self.violated("T3.3", by, "MIGRATE_DST_SEAMLESS_NACK to a second MIGRATE_DST_DO_SEAMLESS", name);
                } else if ack && target.version > VERSION {
                    let expected = format!("MIGRATE_DST_SEAMLESS_NACK to version {}", target.version);
                    self.violated("T3.2", by, expected, name);
                }
                return;
            }
            Some(FromTarget::Init) => {
                self.connection.target.init = true;
                let session = self.connection.session;
                if target.init {
                    self.violated("Q2", by, "one INIT", "another one");
                } else if target.agreed > 0 && !target.ended {
                    self.violated("T3.4", by, "no INIT after MIGRATE_DST_SEAMLESS_ACK", name);
                } else if target.ended && !ended {
                    self.violated("T7.2", by, "nothing, for the client lacks SEMI_SEAMLESS_MIGRATE", name);
                } else if !ended {
                    self.violated("T2.1", by, "nothing before the client's MIGRATE_END", name);
                } else if let Some(ServerMessage::Init(init)) = message
                    && session != Some(init.session_id)
                {
                    let expected = format!("INIT with the session id {:#x} of the link", session.unwrap_or(0));
                    self.violated("T2.2", by, expected, format!("one with {:#x}", init.session_id));
                }
                return;
            }
            None => {}
        }
        let channels_list = matches!(message, Some(ServerMessage::ChannelsList(_)));
        let announces =
            matches!(message.and_then(FromSource::of), Some(FromSource::Begin | FromSource::BeginSeamless { .. }));
        if self.connection.is_pending() {
            match () {
                () if channels_list && target.attached => {
                    self.violated("T5", by, "nothing, for the client is still migrating", name);
                }
                () if announces => {
                    self.violated("T9", by, "an announcement only after INIT", name);
                }
                () if ended => self.violated("T2.2", by, "INIT, in answer to MIGRATE_END", name),
                // T2.1 is about a client that has not asked; sending the NACK starts the pings of spice-server 0.15.1.
                () if target.declined > 0 && matches!(message, Some(ServerMessage::Ping(_))) => {}
                () if target.asked > target.declined => {
                    self.violated("T3.7", by, "the answer to MIGRATE_DST_DO_SEAMLESS first", name);
                }
                () => self.violated("T2.1", by, "nothing before the client's MIGRATE_END", name),
            }
        } else if target.agreed > 0 && !target.ended && !self.connection.data_relayed {
            if channels_list {
                self.violated("T5", by, "no CHANNELS_LIST, for the client is still migrating", name);
            } else if announces {
                self.violated("T9", by, "an announcement only after the migration data", name);
            }
        } else if target.init
            && (matches!(message, Some(ServerMessage::Name(_) | ServerMessage::Uuid(_)))
                || channels_list && !target.attached)
        {
            self.violated("T2.3", by, "neither CHANNELS_LIST, NAME nor UUID after MIGRATE_END, unasked", name);
        }
        if matches!(message, Some(ServerMessage::MultiMediaTime(_))) {
            self.connection.target.clock_awaited = None;
        }
        let no_playback = self.at_source().is_some_and(|source| source.source.no_playback);
        if no_playback && self.long_since(target.clock_awaited) {
            self.connection.target.clock_awaited = None;
            self.violated("T3.5", by, "MULTI_MEDIA_TIME after main's migration data", name);
        }
    }

    /// What a target says on another channel, which it may have to hold.
    fn on_held_channel(&mut self, name: &str) {
        let Some(main) = self.main().filter(|main| main.is_pending() && !main.has_ended()) else { return };
        // The answer to a question may have come along another way.
        if self.connection.whole && main.target.asked == main.target.declined {
            self.violated("T2.1", Party::Target, "nothing before the client's MIGRATE_END", name);
        }
    }

    /// What a source may send on a channel that it has said MIGRATE on, and on one that it has left out.
    fn after_migrate(&mut self, step: Option<FromSource>, name: &str) {
        let by = Party::Source;
        if step.is_some() {
            return;
        }
        if let Some((flags, _)) = self.connection.migrate {
            if flags.contains(MigrateFlags::NEED_DATA_TRANSFER) && self.connection.data.is_none() {
                self.violated("S8.1", by, "nothing but MIGRATE_DATA after MIGRATE", name);
            } else {
                self.violated("S8.1", by, "nothing more on a channel that has moved", name);
            }
            return;
        }
        let main = self.connection.main.unwrap_or(self.number);
        let mut others = self.others.iter().filter(|(number, other)| **number == main || other.main == Some(main));
        let moved = others.find_map(|(_, other)| other.migrate).map(|(_, when)| when);
        if self.connection.whole && self.long_since(moved) {
            self.violated("S4.1", by, "MIGRATE on every channel", format!("{name}, and no MIGRATE on this one"));
        }
    }

    fn announce(&mut self, version: Option<u32>, name: &str) -> Step {
        let by = Party::Source;
        let source = self.connection.source;
        let lacks_semi_seamless = self.connection.client_lacks(|client| client.semi_seamless);
        let lacks_seamless = self.connection.client_lacks(|client| client.seamless && client.agent_tokens);
        let seamless_is_due = self.host.seamless == Some(true) && self.connection.known.is_some() && !lacks_seamless;
        if source.completed.is_some() {
            self.violated("Q1", by, "no announcement after the end of the migration", name);
        }
        let (lacks_this, what) = if version.is_some() {
            (lacks_seamless, "AGENT_CONNECTED_TOKENS and SEAMLESS_MIGRATE")
        } else {
            (lacks_semi_seamless, "SEMI_SEAMLESS_MIGRATE")
        };
        if version.is_none() && seamless_is_due {
            self.violated("S1.1", by, "MIGRATE_BEGIN_SEAMLESS, which host and client are able to", name);
        } else if lacks_this && (lacks_semi_seamless || version.is_none()) {
            self.violated("S1.3", by, format!("nothing, for the client lacks {what}"), name);
        } else if lacks_this {
            self.violated("S1.2", by, format!("MIGRATE_BEGIN, for the client lacks {what}"), name);
        } else if version.is_some() && self.host.seamless == Some(false) {
            self.violated("S1.2", by, "MIGRATE_BEGIN, for the host does not allow seamless migration", name);
        }
        if let Some(version) = version.filter(|version| *version != VERSION) {
            self.violated("S2", by, format!("version {VERSION}"), format!("version {version}"));
        }
        if source.successes() > 0 && self.long_since(source.succeeded.map(|(_, when)| when)) && !lacks_semi_seamless {
            self.violated("S10.1", by, "MIGRATE_CANCEL, for the client is connected to the first target", name);
        }
        let source = &mut self.connection.source;
        source.alone = self.connection.whole && !source.awaited();
        source.announcements = source.announcements.saturating_add(1);
        source.announced = Some(Announced { version, order: self.now.order });
        Step::Announced
    }

    fn cancel(&mut self, name: &str) -> Step {
        let by = Party::Source;
        let source = self.connection.source;
        if source.unasked.is_some() {
            // It answers a success that nobody had asked for (S6.1), whenever that comes.
        } else if source.completed.is_some() {
            self.violated("Q1", by, "no MIGRATE_CANCEL after the end of the migration", name);
        } else if self.connection.whole && source.successes() == 0 {
            if source.unasked_error {
                self.violated("S6.2", by, "nothing, in answer to an error that nobody had asked for", name);
            } else {
                self.violated("S5.2", by, "nothing to a client that has not told success", name);
            }
        }
        let source = &mut self.connection.source;
        source.cancels = source.cancels.saturating_add(1);
        source.unasked = None;
        source.cancelled = Some(self.now);
        Step::Cancelled
    }

    /// MIGRATE_END or MIGRATE_SWITCH_HOST.
    fn complete(&mut self, completion: Completion, name: &str) -> Step {
        let source = self.connection.source;
        let lacks_semi_seamless = self.connection.client_lacks(|client| client.semi_seamless);
        let in_time = !self.long_since(source.succeeded.map(|(_, when)| when));
        let number = self.number;
        let has_moved = self.others.values().any(|other| other.main == Some(number) && other.migrate.is_some());
        if source.completed.is_some() || has_moved {
            self.violated("Q1", Party::Source, "one end of the migration", format!("{name} after another"));
        } else if completion == Completion::End && self.connection.whole {
            if source.successes() == 0 || lacks_semi_seamless {
                let expected = "MIGRATE_SWITCH_HOST, for the client has not said that it is connected";
                self.violated("S4.3", Party::Source, expected, name);
            } else if source.connected == 0 {
                self.violated("S4.1", Party::Source, "MIGRATE on every channel, after CONNECTED_SEAMLESS", name);
            }
        } else if completion == Completion::SwitchHost && !in_time {
            // An answer that is younger may not have been read.
            match source.due() {
                Some(Completion::Migrate) => {
                    self.violated("S4.1", Party::Source, "MIGRATE on every channel, after CONNECTED_SEAMLESS", name);
                }
                Some(_) if !lacks_semi_seamless => {
                    self.violated("S4.2", Party::Source, "MIGRATE_END, after MIGRATE_CONNECTED", name);
                }
                _ => {}
            }
        }
        self.not_completed_at_host(name);
        self.connection.source.completed.get_or_insert((completion, self.now));
        let scheme = if completion == Completion::End { Scheme::SemiSeamless } else { Scheme::SwitchHost };
        Step::Completed(scheme, Role::Source)
    }

    fn migrate(&mut self, flags: MigrateFlags, name: &str) -> Step {
        let by = Party::Source;
        let channel = self.connection.channel.channel_type;
        let main = self.main().filter(|main| main.whole).map(|main| main.source);
        let ended = main.and_then(|main| main.completed).is_some_and(|(how, _)| how != Completion::Migrate);
        if self.connection.migrate.is_some() || ended {
            self.violated("Q1", by, "one end of the migration", format!("{name} after another"));
        } else if let Some(main) = main {
            if main.successes() == 0 {
                let expected = "MIGRATE_SWITCH_HOST, for the client has not said that it is connected";
                self.violated("S4.3", by, expected, name);
            } else if main.connected_seamless == 0 {
                self.violated("S4.2", by, "MIGRATE_END, for the client has said MIGRATE_CONNECTED", name);
            }
            self.not_completed_at_host(name);
        }
        let expected = migrate_flags(channel);
        // A streaming device's display has nothing to carry over.
        let streams = channel == ChannelType::DISPLAY && flags == MigrateFlags(0);
        if channel.name().is_some() && flags != expected && !streams {
            self.violated("S7", by, format!("the flags {expected:?} on {channel}"), format!("{flags:?}"));
        }
        self.connection.migrate.get_or_insert((flags, self.now));
        if self.connection.is_main() {
            self.connection.source.completed.get_or_insert((Completion::Migrate, self.now));
        }
        Step::Completed(Scheme::Seamless, Role::Source)
    }

    fn not_completed_at_host(&mut self, name: &str) {
        match self.host.ended {
            Some(HostEvent::Cancelled) => {
                self.violated(
                    "S5.1",
                    Party::Source,
                    "MIGRATE_CANCEL or nothing, for the migration was cancelled",
                    name,
                );
            }
            Some(HostEvent::Failed) => {
                self.violated("S5.3", Party::Source, "MIGRATE_CANCEL or nothing, for the migration has failed", name);
            }
            _ => {}
        }
    }

    fn migrate_data(&mut self, data: &[u8], name: &str) {
        let by = Party::Source;
        match self.connection.migrate.map(|(flags, _)| flags) {
            None if self.connection.whole => self.violated("S8.1", by, "MIGRATE before MIGRATE_DATA", name),
            Some(flags) if !flags.contains(MigrateFlags::NEED_DATA_TRANSFER) => {
                self.violated("S8.1", by, "nothing after MIGRATE without NEED_DATA_TRANSFER", name);
            }
            Some(_) if self.connection.data.is_some() => self.violated("S8.1", by, "MIGRATE_DATA once", "it again"),
            Some(flags) if flags.contains(MigrateFlags::NEED_FLUSH) && !self.connection.flush_mark => {
                self.violated("S8.2", by, "the client's MIGRATE_FLUSH_MARK before the data", name);
            }
            _ => {}
        }
        self.connection.data.get_or_insert(Digest::of(data));
        if let Some(error) = unusable(self.connection.channel.channel_type, data) {
            let requirement = match error.fault {
                Fault::WrongMagic => "D1",
                Fault::UnsupportedVersion => "D2",
                // These a stricter decoder than C's finds.
                Fault::NotAFlag | Fault::Unexpected => return,
                _ => "D3",
            };
            self.violated(requirement, by, "migration data that a target can use", error.to_string());
        }
    }
}

/// Why no target can use migration data, however it is set.
pub(super) fn unusable(channel: ChannelType, data: &[u8]) -> Option<DecodeError> {
    State::for_target(channel, JpegWanCompression::Always, data).err()?;
    State::for_target(channel, JpegWanCompression::Never, data).err()
}
