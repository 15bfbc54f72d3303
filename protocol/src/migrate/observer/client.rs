//! What is judged when a client sends a message.

use alloc::format;

use super::connection::{Completion, Connection, Digest, Moment};
use super::server::unusable;
use super::{Party, Role, Step, Turn};
use crate::ChannelType;
use crate::ClientMessage;
use crate::message::MigrateFlags;
use crate::migrate::{Scheme, ToSource, ToTarget, migrate_flags};

const BY: Party = Party::Client;

/// ACK_SYNC, ACK, PONG and DISCONNECTING: what a client may send on any channel at any time.
const BASE: [u16; 4] = [1, 2, 3, 6];

impl Turn<'_> {
    pub(super) fn client_says(&mut self, message: &ClientMessage<'_>, id: u16, name: &str) -> Option<Step> {
        self.client_sends(id, name);
        match (ToSource::of(message), ToTarget::of(message), message) {
            (Some(ToSource::FlushMark), ..) => self.flush_mark(name),
            (Some(answer), ..) => self.answer(answer, name),
            (_, Some(ToTarget::DoSeamless { version }), _) => self.ask_for_seamless(version, name),
            (_, Some(ToTarget::End), _) => return self.migrate_end(name),
            (.., ClientMessage::MigrateData(message)) => return self.relay(message.data.0, name),
            (.., ClientMessage::AttachChannels) => self.connection.target.attached = true,
            _ => {}
        }
        None
    }

    /// What holds for any message, whatever it says.
    pub(super) fn client_sends(&mut self, id: u16, name: &str) {
        if self.connection.flush_mark {
            self.violated("C6", BY, "nothing after MIGRATE_FLUSH_MARK, the last message to the source", name);
        }
        let is_scheme = self.connection.is_main() && [109, 110].contains(&id) || id == 5;
        if !BASE.contains(&id) && !is_scheme {
            self.pending(name);
        }
        self.left_behind(name);
    }

    /// What a client sends on a channel at the target before it may.
    fn pending(&mut self, name: &str) {
        if !self.connection.whole || self.connection.joins_later || self.connection.data_relayed {
            return;
        }
        let main = self.main().filter(|main| main.whole && main.migrating);
        let source = self.at_source().filter(|source| source.whole);
        let data_has_come = source.is_some_and(|source| source.data.is_some());
        let is_pending = match main {
            Some(main) if main.target.agreed == 0 => !main.target.init,
            Some(main) if !main.target.init => match source {
                Some(source) => self.awaits_data(source),
                None => {
                    let channel = self.connection.channel.channel_type;
                    let always = migrate_flags(channel).contains(MigrateFlags::NEED_DATA_TRANSFER);
                    always && channel != ChannelType::DISPLAY && channel.name().is_some()
                }
            },
            Some(_) => false,
            None => data_has_come,
        };
        if !is_pending {
            return;
        }
        if main.is_some_and(|main| main.target.ended) {
            self.violated("C7", BY, "nothing between MIGRATE_END and INIT", name);
        } else if data_has_come {
            self.violated("C6", BY, "MIGRATE_DATA as the first message at the target", name);
        } else {
            self.violated("C5", BY, "nothing but base messages on a channel that waits at the target", name);
        }
    }

    /// Whether a channel that continues this one has to wait.
    fn awaits_data(&self, source: &Connection) -> bool {
        source.migrate.is_none_or(|(flags, _)| flags.contains(MigrateFlags::NEED_DATA_TRANSFER))
    }

    /// What a client sends where it should have left long ago.
    fn left_behind(&mut self, name: &str) {
        let Some(main) = self.main() else { return };
        if let Some((completion, Moment { at, .. })) =
            main.source.completed.filter(|(_, when)| self.long_since(Some(*when)))
        {
            match completion {
                Completion::End => {
                    self.violated("C7", BY, format!("the source left after MIGRATE_END at {at:?}"), name);
                }
                Completion::SwitchHost => {
                    self.violated("C10", BY, format!("all dropped after MIGRATE_SWITCH_HOST at {at:?}"), name);
                }
                Completion::Migrate => {}
            }
            return;
        }
        let order = main.order;
        let source = main.continues.and_then(|source| self.others.get(&source));
        let cancelled = source.map(|source| source.source).filter(|source| source.completed.is_none());
        if let Some(when) = cancelled.and_then(|source| source.cancelled).filter(|when| when.order > order)
            && self.long_since(Some(when))
        {
            self.violated("C9", BY, format!("the target left after MIGRATE_CANCEL at {:?}", when.at), name);
        }
    }

    fn flush_mark(&mut self, name: &str) {
        let asked = |(flags, _): (MigrateFlags, _)| flags.contains(MigrateFlags::NEED_FLUSH);
        if !self.connection.flush_mark && self.connection.whole && !self.connection.migrate.is_some_and(asked) {
            self.violated("C6", BY, "no MIGRATE_FLUSH_MARK without a MIGRATE that asks for it", name);
        }
        self.connection.flush_mark = true;
    }

    /// What the client tells the source about its links to the target.
    fn answer(&mut self, answer: ToSource, name: &str) {
        if !self.connection.is_main() {
            return;
        }
        let source = self.connection.source;
        if self.connection.whole && !source.awaited() {
            let expected = if source.announcements == 0 { "no answer without an announcement" } else { "one answer" };
            self.violated("C4", BY, expected, name);
        } else if source.alone {
            self.answer_fits(answer, name);
        }
        let unasked = self.connection.whole && !source.awaited();
        let now = self.now;
        let source = &mut self.connection.source;
        source.answers = source.answers.saturating_add(1);
        source.unasked_error = unasked && answer == ToSource::ConnectError;
        match answer {
            ToSource::Connected => {
                source.connected = source.connected.saturating_add(1);
                source.succeeded = Some((Completion::End, now));
            }
            ToSource::ConnectedSeamless => {
                source.connected_seamless = source.connected_seamless.saturating_add(1);
                source.succeeded = Some((Completion::Migrate, now));
            }
            ToSource::ConnectError | ToSource::FlushMark => return,
        }
        if unasked {
            source.unasked.get_or_insert(now);
        }
    }

    /// Whether it is the answer to the only announcement that there is.
    fn answer_fits(&mut self, answer: ToSource, name: &str) {
        let Some(announced) = self.connection.source.announced else { return };
        let number = self.number;
        let mains = self.others.values().filter(|other| {
            other.is_main() && other.whole && other.migrating && !other.closed && other.continues == Some(number)
        });
        let linked = mains.filter(|main| main.order > announced.order).max_by_key(|main| main.order);
        let target = linked.map(|main| main.target);
        let offers = linked.and_then(|main| main.known).is_some_and(|known| known.server_seamless);
        match answer {
            ToSource::ConnectedSeamless if announced.version.is_none() => {
                self.violated("C4", BY, "MIGRATE_CONNECTED, for the source has said MIGRATE_BEGIN", name);
            }
            ToSource::ConnectedSeamless if target.is_some_and(|target| target.agreed == 0) => {
                self.violated("C4", BY, "MIGRATE_CONNECTED, for the target has not said ACK", name);
            }
            ToSource::Connected if target.is_some_and(|target| target.agreed > 0) => {
                self.violated("C4", BY, "MIGRATE_CONNECTED_SEAMLESS, for the target has said ACK", name);
            }
            ToSource::Connected if announced.version.is_some() && offers && target.is_some_and(|t| t.asked == 0) => {
                self.violated("C3", BY, "MIGRATE_DST_DO_SEAMLESS to the target before the answer", name);
            }
            _ => {}
        }
    }

    fn ask_for_seamless(&mut self, version: u32, name: &str) {
        let connection = &*self.connection;
        let announced = self
            .at_source()
            .filter(|source| source.source.alone)
            .and_then(|source| source.source.announced)
            .filter(|announced| announced.order < connection.order);
        if connection.whole && !connection.migrating {
            self.violated("C3", BY, "no MIGRATE_DST_DO_SEAMLESS in an ordinary session", name);
        } else if connection.whole && connection.target.asked > 0 {
            self.violated("C3", BY, "MIGRATE_DST_DO_SEAMLESS once", "another one");
        } else if connection.client_lacks(|known| known.server_seamless) {
            self.violated("C3", BY, "no MIGRATE_DST_DO_SEAMLESS to a target without SEAMLESS_MIGRATE", name);
        } else {
            match announced.map(|announced| announced.version) {
                Some(None) => self.violated("C3", BY, "none, for the source has said MIGRATE_BEGIN", name),
                Some(Some(given)) if given != version => {
                    self.violated("C3", BY, format!("the version that the source gave, {given}"), format!("{version}"));
                }
                _ => {}
            }
        }
        let target = &mut self.connection.target;
        target.asked = target.asked.saturating_add(1);
        target.version = version;
    }

    fn migrate_end(&mut self, name: &str) -> Option<Step> {
        let source = self.at_source().filter(|source| source.whole);
        let source_has_ended = source.map(|source| matches!(source.source.completed, Some((Completion::End, _))));
        if !self.connection.whole {
            return None;
        }
        if !self.connection.migrating {
            self.violated("C7", BY, "no MIGRATE_END in an ordinary session", name);
            return None;
        }
        if self.connection.target.ended {
            self.violated("C7", BY, "MIGRATE_END once", "it again");
        } else if source_has_ended == Some(false) {
            self.violated("C7", BY, "the source's MIGRATE_END before the client's", name);
        }
        self.connection.target.ended = true;
        Some(Step::Completed(Scheme::SemiSeamless, Role::Target))
    }

    /// MIGRATE_DATA, which should be at a target.
    fn relay(&mut self, data: &[u8], name: &str) -> Option<Step> {
        let main = self.main().filter(|main| main.whole);
        let is_ordinary = main.is_some_and(|main| !main.migrating);
        let not_agreed = main.is_some_and(|main| main.migrating && main.target.agreed == 0);
        let source = self.at_source().filter(|source| source.whole).map(|source| source.data);
        let sent = Digest::of(data);
        if is_ordinary {
            self.violated("C6", BY, "no MIGRATE_DATA in an ordinary session", name);
            return None;
        }
        if self.connection.data_relayed {
            self.violated("C6", BY, "MIGRATE_DATA once", "it again");
        } else if not_agreed {
            self.violated("C6", BY, "no MIGRATE_DATA to a target that has not said ACK", name);
        } else if source == Some(None) {
            self.violated("C6", BY, "the source's MIGRATE_DATA before it is sent on", name);
        } else if let Some(Some(given)) = source
            && given != sent
        {
            let what = if given.length == sent.length { "others" } else { "not as many" };
            let came = format!("{} bytes, {what}", sent.length);
            self.violated("C6", BY, format!("the {} bytes of the source's data, unchanged", given.length), came);
        }
        self.connection.data_relayed = true;
        self.connection.serial_jumps = true;
        if unusable(self.connection.channel.channel_type, data).is_some() {
            self.connection.bad_data.get_or_insert(self.now);
        }
        if self.connection.is_main() {
            self.connection.target.clock_awaited = Some(self.now);
        }
        Some(Step::Completed(Scheme::Seamless, Role::Target))
    }
}
