//! A main channel and its children, on one host.

use std::time::{Duration, Instant};

use spice_migration::{
    ChannelType, ClientMessage, ServerMessage,
    message::{ChannelId, server},
};

use super::{
    channel::{Channel, Received},
    is,
};
use crate::case::Unexpected;

/// Most channels that are linked for one session. Guests have some ten; each costs a connection.
const MAX_CHANNELS: usize = 64;

/// A session, or what of it is there.
#[derive(Debug)]
pub struct Session {
    /// The connection id.
    pub id: u32,
    /// The main channel.
    pub main: Channel,
    /// The other channels.
    pub children: Vec<Channel>,
    /// The channels that the server offered.
    pub offered: Vec<ChannelId>,
}

impl Session {
    /// Asks which channels there are, and remembers it. The answer also shows that all that was sent before on the main
    /// channel was processed.
    ///
    /// # Errors
    /// When no answer comes, or one that no client would follow.
    pub async fn list_channels(&mut self) -> Result<(), Unexpected> {
        self.main.send(ClientMessage::AttachChannels);
        let (offered, length) = self
            .main
            .until("CHANNELS_LIST", |message| match message {
                ServerMessage::ChannelsList(server::ChannelsList { channels }) => {
                    Some((channels.iter().take(MAX_CHANNELS).collect(), channels.iter().count()))
                }
                _ => None,
            })
            .await?;
        if length > MAX_CHANNELS {
            let expected = format!("a CHANNELS_LIST of at most {MAX_CHANNELS} channels");
            return Err(self.main.unexpected(expected, format!("one of {length}")));
        }
        self.offered = offered;
        Ok(())
    }

    /// Asks for the channels until there is an answer: a target ignores the question while it migrates, and does not tell when it
    /// is done.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn list_channels_when_migrated(&mut self) -> Result<(), Unexpected> {
        const AGAIN: Duration = Duration::from_millis(50);
        let deadline = Instant::now() + self.main.patience();
        while Instant::now() < deadline {
            self.main.send(ClientMessage::AttachChannels);
            let again = Instant::now() + AGAIN;
            loop {
                let rest = again.saturating_duration_since(Instant::now());
                match self.main.next_within("CHANNELS_LIST", rest).await {
                    Ok(received) if is!(received, ChannelsList) => return Ok(()),
                    Ok(_) => {}
                    Err(_) if self.main.has_ended().is_none() => break,
                    Err(ended) => return Err(ended),
                }
            }
        }
        Err(self.main.unexpected("CHANNELS_LIST", "no answer to ATTACH_CHANNELS, however often it was sent"))
    }

    /// Adds a child channel and starts it.
    ///
    /// # Errors
    /// When the server does not begin to talk on it, though its kind always does.
    pub async fn adopt(&mut self, mut channel: Channel) -> Result<(), Unexpected> {
        channel.start().await?;
        self.children.push(channel);
        Ok(())
    }

    /// Starts the children that were linked before the session began here.
    ///
    /// # Errors
    /// When the server does not begin to talk on one of them, though its kind always does.
    pub async fn start_children(&mut self) -> Result<(), Unexpected> {
        self.start_children_but(None).await
    }

    /// The same without those that cannot start any more.
    ///
    /// # Errors
    /// See [`Self::start_children`].
    pub async fn start_children_but(&mut self, lost: Option<ChannelType>) -> Result<(), Unexpected> {
        for channel in self.children.iter_mut().filter(|channel| Some(channel.id.channel_type) != lost) {
            channel.start().await?;
        }
        Ok(())
    }

    /// One of the channels.
    ///
    /// # Errors
    /// When the server did not offer it.
    pub fn channel(&mut self, channel_type: ChannelType) -> Result<&mut Channel, Unexpected> {
        match channel_type {
            ChannelType::MAIN => Ok(&mut self.main),
            _ => self.child(channel_type),
        }
    }

    /// One of the children.
    ///
    /// # Errors
    /// When the server did not offer it.
    pub fn child(&mut self, channel_type: ChannelType) -> Result<&mut Channel, Unexpected> {
        let missing = self.main.unexpected(format!("a {channel_type} channel"), "an offer without one");
        self.children.iter_mut().find(|channel| channel.id.channel_type == channel_type).ok_or(missing)
    }

    /// Takes one of the children out of the session.
    ///
    /// # Errors
    /// When it is not there.
    pub fn take_child(&mut self, channel_type: ChannelType) -> Result<Channel, Unexpected> {
        let position = self.children.iter().position(|channel| channel.id.channel_type == channel_type);
        let missing = self.main.unexpected(format!("a {channel_type} channel"), "none of the kind");
        position.map(|position| self.children.remove(position)).ok_or(missing)
    }

    /// Main and children.
    pub fn channels(&mut self) -> impl Iterator<Item = &mut Channel> {
        std::iter::once(&mut self.main).chain(&mut self.children)
    }

    /// The last message that was taken, of all channels.
    #[must_use]
    pub fn last(&self) -> Option<&Received> {
        self.taken().max_by_key(|received| received.at)
    }

    /// The first message that was taken and had arrived after `moment`, of all channels.
    #[must_use]
    pub fn first_after(&self, moment: Instant) -> Option<&Received> {
        self.taken().filter(|received| received.at > moment).min_by_key(|received| received.at)
    }

    /// Closes all connections.
    pub async fn close(self) {
        for channel in self.children {
            channel.close().await;
        }
        self.main.close().await;
    }

    fn taken(&self) -> impl Iterator<Item = &Received> {
        std::iter::once(&self.main).chain(&self.children).flat_map(|channel| &channel.taken)
    }
}
