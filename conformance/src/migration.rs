//! The client's part of a migration, as a case goes through it step by step, and what it picks out of the messages.

use spice_migration::{
    ChannelType, ClientMessage, Data, ServerMessage,
    message::{MigrateFlags, client, server},
};

use crate::{
    case::{Context, Migration, Scheme, Stop, Unexpected},
    context::{Place, Setup},
    peer::client::{Channel, Client, Received, Session, is, until},
    subject::{Destination, HostEvent},
};

/// A client between two hosts: its session runs at the source, and the target has accepted its links.
#[derive(Debug)]
pub struct Prepared {
    /// How the client will come over.
    pub scheme: Scheme,
    /// The session at the source.
    pub source: Session,
    /// What will be the session at the target.
    pub target: Session,
}

impl Context {
    /// Announces the next host and brings the client to where the VM may be migrated: linked to that host, and the present one told
    /// so; seamlessly if hosts and client can, and then the next host has agreed.
    ///
    /// # Errors
    /// When a step does not go as it should.
    pub async fn prepare(
        &mut self,
        client: &Client,
        source: Session,
        from: Place,
        to: Place,
    ) -> Result<Prepared, Stop> {
        self.announce(from, to).await?;
        self.follow(client, source, to).await
    }

    /// The same from where the announcement has been made.
    ///
    /// # Errors
    /// When a step does not go as it should.
    pub async fn follow(&mut self, client: &Client, mut source: Session, to: Place) -> Result<Prepared, Stop> {
        let Setup { seamless, several_clients, .. } = self.setup;
        let seamless = seamless && !several_clients && client.can_seamless();
        let awaited = if seamless { "MIGRATE_BEGIN_SEAMLESS" } else { "MIGRATE_BEGIN" };
        let announcement = source.main.until(awaited, |message| match message {
            ServerMessage::MigrateBeginSeamless(begin) if seamless => {
                Some((Destination::told(message)?, Some(begin.src_mig_version)))
            }
            ServerMessage::MigrateBegin(_) if !seamless => Some((Destination::told(message)?, None)),
            _ => None,
        });
        let (told, src_version) = announcement.await?;
        let given = self.given_destination(to);
        if told != given {
            return Err(source.main.unexpected(format!("{awaited} to {given:?}"), format!("one to {told:?}")).into());
        }
        self.arrive(client, source, to, src_version).await
    }

    /// The same from where the client has taken the announcement, with the version that a seamless one tells.
    ///
    /// # Errors
    /// When a step does not go as it should.
    pub async fn arrive(
        &mut self,
        client: &Client,
        mut source: Session,
        to: Place,
        src_version: Option<u32>,
    ) -> Result<Prepared, Stop> {
        let address = self.address(to);
        let mut target = client.connect_migrating(to.name(), address, &source).await?;
        if let Some(src_version) = src_version {
            target.main.send(ClientMessage::MigrateDstDoSeamless(client::MigrateDstDoSeamless { src_version }));
            until!(target.main, MigrateDstSeamlessAck).await?;
        }
        client.connect_children(to.name(), address, &mut target).await?;
        let (answer, scheme) = match src_version {
            Some(_) => (ClientMessage::MigrateConnectedSeamless, Scheme::Seamless),
            None => (ClientMessage::MigrateConnected, Scheme::SemiSeamless),
        };
        source.main.send(answer);
        // The answer shows that the source has processed the message before.
        source.list_channels().await?;
        Ok(Prepared { scheme, source, target })
    }

    /// Migrates the VM, and the client after it: every channel's state is carried over, or the session restarts.
    ///
    /// # Errors
    /// When a step does not go as it should.
    pub async fn complete(&mut self, prepared: Prepared, from: Place, to: Place) -> Result<Session, Stop> {
        let Prepared { scheme, mut source, mut target } = prepared;
        self.migrate(from, to).await?;
        if scheme == Scheme::Seamless {
            relay(&mut source, &mut target).await?;
            until!(target.main, MultiMediaTime).await?;
        } else {
            until!(source.main, MigrateEnd).await?;
            restart(&mut target).await?;
            target.start_children().await?;
        }
        self.note_migration(scheme, &source, &target, from, to).await?;
        source.close().await;
        Ok(target)
    }

    /// Adds a migration that has taken place to the record, with its times.
    ///
    /// # Errors
    /// When the hosts did not tell of the guest's stop and resumption.
    pub async fn note_migration(
        &mut self,
        scheme: Scheme,
        source: &Session,
        target: &Session,
        from: Place,
        to: Place,
    ) -> Result<(), Stop> {
        let patience = self.patience();
        let stopped = self.host(from).wait_for(HostEvent::Stop, patience).await?;
        let resumed = self.host(to).wait_for(HostEvent::Resume, patience).await?;
        let first_since_stop = target.first_after(stopped);
        let client_blackout =
            source.last().zip(first_since_stop).map(|(last, first)| first.at.saturating_duration_since(last.at));
        let guest_downtime = Some(resumed.saturating_duration_since(stopped));
        self.migrations.push(Migration { scheme, client_blackout, guest_downtime });
        Ok(())
    }

    /// Adds a migration that did not take place to the record.
    pub fn note_called_off(&mut self, scheme: Scheme) {
        self.migrations.push(Migration { scheme, client_blackout: None, guest_downtime: None });
    }
}

/// Restarts a session that waits at the target: the main channel alone, up to INIT.
///
/// # Errors
/// When INIT does not come, or came before it was due: it would not show that the other channels may start.
pub async fn restart(target: &mut Session) -> Result<(), Unexpected> {
    let early = target.main.arrived().find(|received| is!(received, Init)).map(Received::name);
    if let Some(early) = early {
        return Err(target.main.unexpected("no INIT before MIGRATE_END", early));
    }
    target.main.send(ClientMessage::MigrateEnd);
    until!(target.main, Init).await
}

/// Does the client's part of a seamless hand-over on every channel.
///
/// # Errors
/// When a message that is due does not come.
pub async fn relay(source: &mut Session, target: &mut Session) -> Result<(), Unexpected> {
    relay_but(source, target, None).await
}

/// The same on every channel but one kind of them.
///
/// # Errors
/// See [`relay`].
pub async fn relay_but(
    source: &mut Session,
    target: &mut Session,
    left_out: Option<ChannelType>,
) -> Result<(), Unexpected> {
    for (source, target) in source.channels().zip(target.channels()) {
        if Some(source.id.channel_type) != left_out
            && let Some(data) = take_data(source).await?
        {
            deliver(target, &data);
        }
    }
    Ok(())
}

/// Does the client's part at the source alone: the data of each channel that has any, the main channel's first.
///
/// # Errors
/// When a message that is due does not come.
pub async fn collect(source: &mut Session) -> Result<Vec<(ChannelType, Vec<u8>)>, Unexpected> {
    let mut all = Vec::new();
    for channel in source.channels() {
        if let Some(data) = take_data(channel).await? {
            all.push((channel.id.channel_type, data));
        }
    }
    Ok(all)
}

/// The client's part on one channel of the source, whose MIGRATE may have been taken already: flush mark, and the data if there is any.
///
/// # Errors
/// When a message that is due does not come.
pub async fn take_data(source: &mut Channel) -> Result<Option<Vec<u8>>, Unexpected> {
    let taken = source.taken.iter().find_map(|received| migrate_flags(&received.message().ok()?));
    let flags = match taken {
        Some(flags) => flags,
        None => source.until("MIGRATE", migrate_flags).await?,
    };
    if flags.contains(MigrateFlags::NEED_FLUSH) {
        source.send_last(ClientMessage::MigrateFlushMark);
    }
    match flags.contains(MigrateFlags::NEED_DATA_TRANSFER) {
        true => source.until("MIGRATE_DATA", migrate_data).await.map(Some),
        false => Ok(None),
    }
}

/// Sends a channel's data to the target.
pub fn deliver(target: &Channel, data: &[u8]) {
    target.send(ClientMessage::MigrateData(client::MigrateData { data: Data(data) }));
}

/// Picks MIGRATE.
pub fn migrate_flags(message: &ServerMessage<'_>) -> Option<MigrateFlags> {
    match message {
        ServerMessage::Migrate(server::Migrate { flags }) => Some(*flags),
        _ => None,
    }
}

/// Picks MIGRATE_DATA.
pub fn migrate_data(message: &ServerMessage<'_>) -> Option<Vec<u8>> {
    match message {
        ServerMessage::MigrateData(server::MigrateData { data }) => Some(data.0.to_vec()),
        _ => None,
    }
}

/// Picks MIGRATE_BEGIN_SEAMLESS.
pub fn seamless_version(message: &ServerMessage<'_>) -> Option<u32> {
    match message {
        ServerMessage::MigrateBeginSeamless(begin) => Some(begin.src_mig_version),
        _ => None,
    }
}
