//! Where in a migration a server can be when something is sent to it, and how a client brings it there.

use std::time::Duration;

use spice_migration::{ChannelType, ClientMessage, caps::MainCapability, message::MigrateFlags};

use crate::{
    case::{Context, Stop},
    context::{Place, Setup},
    migration::{Prepared, migrate_data, migrate_flags, relay_but, restart},
    peer::client::{Channel, Session, until},
    subject::HostEvent,
};

/// What a client says that can be migrated semi-seamlessly, and wants to know the guest's name.
pub(crate) const SEMI_AND_NAME: &[MainCapability] =
    &[MainCapability::SEMI_SEAMLESS_MIGRATE, MainCapability::NAME_AND_UUID];

/// Where a server is in a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Situation {
    /// A session with all channels; nothing migrates.
    Session,
    /// The client was told MIGRATE_BEGIN, and has not answered.
    Announced,
    /// The same with MIGRATE_BEGIN_SEAMLESS.
    AnnouncedSeamless,
    /// It has answered MIGRATE_CONNECT_ERROR.
    ConnectError,
    /// It has answered MIGRATE_CONNECTED.
    Connected,
    /// It has answered MIGRATE_CONNECTED_SEAMLESS.
    Agreed,
    /// The migration was cancelled, and the client told so.
    Cancelled,
    /// The client was told MIGRATE_END, and has not left.
    Ended,
    /// It was told MIGRATE on every channel, and has answered nothing.
    Migrating,
    /// It has sent its flush marks and got the data.
    Flushed,
    /// It was told SWITCH_HOST, and has not left.
    SwitchedHost,
    /// At the target: main is linked, and nothing else yet.
    Linked,
    /// At the target: all channels are linked, semi-seamlessly, and the guest is not there.
    Waiting,
    /// At the target: the guest has come, and the client has not said MIGRATE_END.
    GuestCame,
    /// At the target: the client has said MIGRATE_END and got INIT.
    Restarted,
    /// At the target: seamless migration is agreed upon, all channels are linked, and the guest is not there.
    WaitingSeamless,
    /// At the target: the guest has come, and no channel has its data.
    GuestCameSeamless,
    /// At the target: every channel but inputs has its data.
    HalfResumed,
    /// At the target: every channel has its data.
    Resumed,
}

/// What becomes of the guest in a situation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestMove {
    /// It stays at the source.
    No,
    /// Its VM migration can begin now.
    Due,
    /// That has begun, or is over.
    Begun,
}

/// The client's sessions in a situation.
#[derive(Debug)]
pub struct Sessions {
    source: Option<Session>,
    target: Option<Session>,
}

impl Situation {
    /// All of them, in the order in which a migration comes to them.
    pub const ALL: [Self; 19] = [
        Self::Session,
        Self::Announced,
        Self::AnnouncedSeamless,
        Self::ConnectError,
        Self::Connected,
        Self::Agreed,
        Self::Cancelled,
        Self::Ended,
        Self::Migrating,
        Self::Flushed,
        Self::SwitchedHost,
        Self::Linked,
        Self::Waiting,
        Self::GuestCame,
        Self::Restarted,
        Self::WaitingSeamless,
        Self::GuestCameSeamless,
        Self::HalfResumed,
        Self::Resumed,
    ];

    /// Its name in the ids of cases.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Announced => "announced",
            Self::AnnouncedSeamless => "announced-seamless",
            Self::ConnectError => "connect-error",
            Self::Connected => "connected",
            Self::Agreed => "agreed",
            Self::Cancelled => "cancelled",
            Self::Ended => "ended",
            Self::Migrating => "migrating",
            Self::Flushed => "flushed",
            Self::SwitchedHost => "switched-host",
            Self::Linked => "linked",
            Self::Waiting => "waiting",
            Self::GuestCame => "guest-came",
            Self::Restarted => "restarted",
            Self::WaitingSeamless => "waiting-seamless",
            Self::GuestCameSeamless => "guest-came-seamless",
            Self::HalfResumed => "half-resumed",
            Self::Resumed => "resumed",
        }
    }

    /// What the client has done to get there, in a few words.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Session => "a session",
            Self::Announced => "a session that was told MIGRATE_BEGIN",
            Self::AnnouncedSeamless => "a session that was told MIGRATE_BEGIN_SEAMLESS",
            Self::ConnectError => "a session that has answered MIGRATE_CONNECT_ERROR",
            Self::Connected => "a session that has answered MIGRATE_CONNECTED",
            Self::Agreed => "a session that has answered MIGRATE_CONNECTED_SEAMLESS",
            Self::Cancelled => "a session that was told MIGRATE_CANCEL",
            Self::Ended => "a session that was told MIGRATE_END",
            Self::Migrating => "a session that was told MIGRATE on every channel",
            Self::Flushed => "a session whose channels have their migration data",
            Self::SwitchedHost => "a session that was told SWITCH_HOST",
            Self::Linked => "a target to which main alone is linked",
            Self::Waiting => "a target to which all channels are linked",
            Self::GuestCame => "a target with the guest, before the client's MIGRATE_END",
            Self::Restarted => "a target after the client's MIGRATE_END",
            Self::WaitingSeamless => "a target that has agreed to seamless migration",
            Self::GuestCameSeamless => "a target with the guest, before any migration data",
            Self::HalfResumed => "a target that lacks the data of inputs alone",
            Self::Resumed => "a target after all migration data",
        }
    }

    /// Which host it is about.
    #[must_use]
    pub const fn place(self) -> Place {
        match self {
            Self::Session
            | Self::Announced
            | Self::AnnouncedSeamless
            | Self::ConnectError
            | Self::Connected
            | Self::Agreed
            | Self::Cancelled
            | Self::Ended
            | Self::Migrating
            | Self::Flushed
            | Self::SwitchedHost => Place::Source,
            Self::Linked
            | Self::Waiting
            | Self::GuestCame
            | Self::Restarted
            | Self::WaitingSeamless
            | Self::GuestCameSeamless
            | Self::HalfResumed
            | Self::Resumed => Place::Target,
        }
    }

    /// Whether a channel is there.
    #[must_use]
    pub fn has(self, channel_type: ChannelType) -> bool {
        self != Self::Linked || channel_type == ChannelType::MAIN
    }

    /// Whether the server may hold a channel, unread, until the client's MIGRATE_END: semi-seamlessly, any but main (T2).
    #[must_use]
    pub fn holds(self, channel_type: ChannelType) -> bool {
        matches!(self, Self::Linked | Self::Waiting | Self::GuestCame) && channel_type != ChannelType::MAIN
    }

    /// Whether main is served as in a session that nothing happens to.
    #[must_use]
    pub const fn serves(self) -> bool {
        matches!(
            self,
            Self::Session
                | Self::Announced
                | Self::AnnouncedSeamless
                | Self::ConnectError
                | Self::Connected
                | Self::Agreed
                | Self::Cancelled
                | Self::Restarted
                | Self::Resumed
        )
    }

    /// Whether [`Sessions::go_on`] makes the server answer, and does not only look whether it has closed.
    #[must_use]
    pub fn tells_whether_it_goes_on(self) -> bool {
        self.serves() || self.holds(ChannelType::DISPLAY)
    }

    /// Whether a server may wait for a client that goes in it: spice-server 0.15.1 does, for up to 10 s, or never closes its links.
    #[must_use]
    pub const fn may_last(self) -> bool {
        matches!(
            self,
            Self::Connected | Self::Ended | Self::Linked | Self::Waiting | Self::GuestCame | Self::GuestCameSeamless
        )
    }

    /// How long to wait for the end of a channel, which should come at once. The display of spice-server 0.15.1 makes its neighbours wait
    /// with it for its data; that is P2, and judged elsewhere.
    #[must_use]
    pub fn patience(self, context: &Context) -> Duration {
        match self {
            Self::GuestCameSeamless => context.patience() + context.subject.migrate_timeout(),
            _ => context.patience(),
        }
    }

    /// The same where a server's timeout would bring it, too, in the end.
    #[must_use]
    pub fn soon(self, context: &Context) -> Duration {
        match self {
            Self::GuestCameSeamless => self.patience(context),
            _ => context.soon(),
        }
    }

    /// What becomes of the guest.
    #[must_use]
    pub const fn guest(self) -> GuestMove {
        match self {
            Self::Session | Self::Cancelled => GuestMove::No,
            Self::Announced
            | Self::AnnouncedSeamless
            | Self::ConnectError
            | Self::Connected
            | Self::Agreed
            | Self::Linked
            | Self::Waiting
            | Self::WaitingSeamless => GuestMove::Due,
            Self::Ended
            | Self::Migrating
            | Self::Flushed
            | Self::SwitchedHost
            | Self::GuestCame
            | Self::Restarted
            | Self::GuestCameSeamless
            | Self::HalfResumed
            | Self::Resumed => GuestMove::Begun,
        }
    }

    /// Brings the hosts of a case and a client there.
    ///
    /// # Errors
    /// When a step does not go as it should.
    pub async fn reach(self, context: &mut Context) -> Result<Sessions, Stop> {
        self.reach_with(context, Setup::NOTHING).await
    }

    /// The same with hosts that are started so; whether they allow seamless migration depends on the situation.
    ///
    /// # Errors
    /// See [`Self::reach`].
    pub async fn reach_with(self, context: &mut Context, setup: Setup) -> Result<Sessions, Stop> {
        let (source, target) = (Place::Source, Place::Target);
        let seamless = matches!(
            self,
            Self::AnnouncedSeamless
                | Self::Agreed
                | Self::Migrating
                | Self::Flushed
                | Self::WaitingSeamless
                | Self::GuestCameSeamless
                | Self::HalfResumed
                | Self::Resumed
        );
        let setup = Setup { seamless, ..setup };
        match self {
            Self::Session => context.start_source(setup).await?,
            _ => context.start_pair(setup).await?,
        }
        let client = match self {
            Self::SwitchedHost => context.client().with_main(&[]),
            _ if seamless => context.client(),
            _ => context.client().with_main(SEMI_AND_NAME),
        };
        let mut session = context.connect(&client, source).await?;
        if self == Self::Session {
            return Ok(Sessions { source: Some(session), target: None });
        }
        if matches!(
            self,
            Self::Announced | Self::AnnouncedSeamless | Self::ConnectError | Self::Linked | Self::SwitchedHost
        ) {
            context.announce(source, target).await?;
            let mut at_target = None;
            match self {
                Self::SwitchedHost => {
                    context.migrate(source, target).await?;
                    until!(session.main, MigrateSwitchHost).await?;
                }
                Self::AnnouncedSeamless => until!(session.main, MigrateBeginSeamless).await?,
                _ => until!(session.main, MigrateBegin).await?,
            }
            if self == Self::ConnectError {
                session.main.send(ClientMessage::MigrateConnectError);
                // The answer shows that the source has processed the message before.
                session.list_channels().await?;
            }
            if self == Self::Linked {
                let address = context.address(target);
                at_target = Some(client.connect_migrating(target.name(), address, &session).await?);
            }
            return Ok(Sessions { source: Some(session), target: at_target });
        }

        let mut prepared = context.prepare(&client, session, source, target).await?;
        match self {
            Self::Cancelled => {
                context.cancel_migration().await?;
                until!(prepared.source.main, MigrateCancel).await?;
                prepared.target.close().await;
                return Ok(Sessions { source: Some(prepared.source), target: None });
            }
            Self::Restarted => {
                let session = context.complete(prepared, source, target).await?;
                return Ok(Sessions { source: None, target: Some(session) });
            }
            Self::Resumed => {
                let mut session = context.complete(prepared, source, target).await?;
                // Until then the target goes on to migrate.
                session.list_channels_when_migrated().await?;
                return Ok(Sessions { source: None, target: Some(session) });
            }
            Self::Ended | Self::GuestCame => {
                context.migrate(source, target).await?;
                until!(prepared.source.main, MigrateEnd).await?;
            }
            Self::Migrating | Self::Flushed | Self::GuestCameSeamless => {
                context.migrate(source, target).await?;
                for channel in prepared.source.channels() {
                    let flags = channel.until("MIGRATE", migrate_flags).await?;
                    if self == Self::Flushed && flags.contains(MigrateFlags::NEED_FLUSH) {
                        channel.send(ClientMessage::MigrateFlushMark);
                        channel.until("MIGRATE_DATA", migrate_data).await?;
                    }
                }
            }
            Self::HalfResumed => {
                context.migrate(source, target).await?;
                relay_but(&mut prepared.source, &mut prepared.target, Some(ChannelType::INPUTS)).await?;
                // Comes behind main's.
                until!(prepared.target.main, MultiMediaTime).await?;
            }
            _ => {}
        }
        if self.place() == target && self.guest() == GuestMove::Begun && context.subject.starts_guest_alone() {
            let patience = context.patience();
            context.happened(target, HostEvent::Resume, patience).await?;
        }
        let Prepared { source, target, .. } = prepared;
        Ok(Sessions { source: Some(source), target: Some(target) })
    }
}

impl Sessions {
    /// The session at the host that the situation is about.
    ///
    /// # Errors
    /// When there is none.
    pub fn session(&mut self, situation: Situation) -> Result<&mut Session, Stop> {
        let session = match situation.place() {
            Place::Source => self.source.as_mut(),
            _ => self.target.as_mut(),
        };
        session.ok_or_else(|| Stop::Inconclusive(format!("no session in {situation:?}")))
    }

    /// The session at a host, to do with it what one likes.
    ///
    /// # Errors
    /// When there is none.
    pub fn take(&mut self, place: Place) -> Result<Session, Stop> {
        let session = match place {
            Place::Source => self.source.take(),
            _ => self.target.take(),
        };
        session.ok_or_else(|| Stop::Inconclusive(format!("no session at {}", place.name())))
    }

    /// One channel of that session.
    ///
    /// # Errors
    /// When there is none.
    pub fn channel(&mut self, situation: Situation, channel_type: ChannelType) -> Result<&mut Channel, Stop> {
        Ok(self.session(situation)?.channel(channel_type)?)
    }

    /// Sees to it that the server goes on with the session, as far as a client can see that in its situation, and with all channels
    /// but `lost` ones.
    ///
    /// # Errors
    /// When it does not.
    pub async fn go_on(
        &mut self,
        context: &mut Context,
        situation: Situation,
        lost: Option<ChannelType>,
    ) -> Result<(), Stop> {
        let session = self.session(situation)?;
        match situation {
            Situation::Linked | Situation::Waiting | Situation::GuestCame => {
                restart(session).await?;
                session.start_children_but(lost).await?;
            }
            _ if situation.serves() => session.list_channels().await?,
            // The display of spice-server 0.15.1 makes everybody wait for its data.
            Situation::GuestCameSeamless => {}
            _ => context.await_reply(situation.place()).await?,
        }
        self.are_open_but(situation, lost).await
    }

    /// Looks whether all channels but `lost` ones are open.
    ///
    /// # Errors
    /// When one is not.
    pub async fn are_open_but(&mut self, situation: Situation, lost: Option<ChannelType>) -> Result<(), Stop> {
        for channel in self.session(situation)?.channels() {
            let channel_type = channel.id.channel_type;
            channel.settle().await;
            // Its data is overdue by then.
            let dropped = situation == Situation::GuestCameSeamless && channel_type == ChannelType::DISPLAY;
            if let Some(closed) = channel.has_ended()
                && Some(channel_type) != lost
                && !dropped
            {
                return Err(channel.unexpected("it to stay open", closed.to_string()).into());
            }
        }
        Ok(())
    }

    /// Closes all connections.
    pub async fn close(self) {
        for session in [self.source, self.target].into_iter().flatten() {
            session.close().await;
        }
    }
}
