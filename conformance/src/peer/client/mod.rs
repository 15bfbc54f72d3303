//! The SPICE client that the suite plays.
//!
//! - [`RawLink`]: the link stage, step by step, so that a case can do each step wrong;
//! - [`Channel`]: one linked connection with its messages; it answers pings and acknowledges by itself;
//! - [`Session`]: a main channel and its children, on one host;
//! - [`Wire`]: all bytes that a client sends, to be cut somewhere;
//! - [`Follower`](follower::Follower): the client that no case drives, and that follows the guest by itself.

mod channel;
mod connection;
pub mod follower;
mod link;
mod session;
mod wire;

pub(crate) use channel::DISPLAY_INIT;
pub use channel::{Channel, Closed, Received};
pub use link::{LinkRequest, RawLink, Reply, framed};
pub use session::Session;
pub use wire::{Cut, Sent, Wire, step};

use std::{net::SocketAddr, time::Duration};

use spice_migration::{
    ChannelType, ClientMessage, ServerMessage,
    caps::{self, CommonCapability, MainCapability},
    link::LinkError,
    message::{ChannelId, server},
};

use tokio_rustls::TlsConnector;

use crate::{case::Unexpected, trace::Trace};

/// Waits for a kind of server message on a channel: `until!(channel, MigrateEnd).await`. Those before it are passed over.
macro_rules! until {
    ($channel:expr, $Kind:ident) => {
        $channel.until(&crate::peer::client::name_of(stringify!($Kind)), |message| {
            matches!(message, spice_migration::ServerMessage::$Kind { .. }).then_some(())
        })
    };
}

/// Whether a received message is of a kind: `is!(received, Init | Name)`.
macro_rules! is {
    ($received:expr, $($Kind:ident)|+) => {
        matches!($received.message(), Ok($(spice_migration::ServerMessage::$Kind { .. })|+))
    };
}

pub(crate) use {is, until};

/// The name that texts call a kind of server message by.
pub(crate) fn name_of(kind: &str) -> String {
    let row = ServerMessage::TABLE.iter().find(|row| row.name == kind);
    row.map_or_else(|| kind.to_owned(), |row| row.short_name().to_string())
}

/// A client's settings: what it says that it can do.
#[derive(Clone)]
pub struct Client {
    /// Common capabilities of every link.
    pub common: Vec<CommonCapability>,
    /// The main channel's capabilities.
    pub main: Vec<MainCapability>,
    /// The ticket's password.
    pub password: String,
    /// How long to wait for what should come at once.
    pub patience: Duration,
    /// Where its bytes are noted, and perhaps cut.
    pub wire: Option<Wire>,
    /// The size in bytes of the kernel's receive buffer, if it is to be another than usual.
    pub receive_buffer: Option<u32>,
    /// What it sends together with the ticket of each link, without awaiting the link result.
    pub early: Vec<ClientMessage<'static>>,
    /// How it connects, if not in plaintext.
    pub tls: Option<TlsConnector>,
    /// Where everything is recorded.
    pub trace: Trace,
}

impl Client {
    /// A client that can do what spice-gtk 0.42 can.
    #[must_use]
    pub fn new(patience: Duration, trace: Trace) -> Self {
        Self {
            common: vec![CommonCapability::AUTH_SELECTION, CommonCapability::AUTH_SPICE, CommonCapability::MINI_HEADER],
            main: MainCapability::KNOWN.to_vec(),
            password: String::new(),
            patience,
            wire: None,
            receive_buffer: None,
            early: Vec::new(),
            tls: None,
            trace,
        }
    }

    /// The same with other capabilities of its main channel.
    #[must_use]
    pub fn with_main(mut self, main: &[MainCapability]) -> Self {
        self.main = main.to_vec();
        self
    }

    /// The same with other common capabilities.
    #[must_use]
    pub fn with_common(mut self, common: &[CommonCapability]) -> Self {
        self.common = common.to_vec();
        self
    }

    /// The same with a password.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        password.clone_into(&mut self.password);
        self
    }

    /// Whether it is migrated seamlessly by hosts that allow it: spice-server asks for both capabilities.
    #[must_use]
    pub fn can_seamless(&self) -> bool {
        [MainCapability::SEAMLESS_MIGRATE, MainCapability::AGENT_CONNECTED_TOKENS]
            .iter()
            .all(|due| self.main.contains(due))
    }

    /// What this client sends in order to link a channel.
    #[must_use]
    pub fn request(&self, connection_id: u32, channel: ChannelId) -> LinkRequest {
        let channel_words = match channel.channel_type {
            ChannelType::MAIN => vec![caps::word(&self.main)],
            _ => Vec::new(),
        };
        LinkRequest { connection_id, channel, common_words: vec![caps::word(&self.common)], channel_words }
    }

    /// Opens a connection; `host` and `channel` name it in the trace.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub async fn open(&self, host: &str, channel: ChannelId, address: SocketAddr) -> Result<RawLink, Unexpected> {
        let name = match channel.id {
            0 => format!("{host}/{}", channel.channel_type),
            id => format!("{host}/{}:{id}", channel.channel_type),
        };
        if let Some(wire) = &self.wire
            && wire.is_gone()
        {
            let expected = format!("a connection to {address}");
            return Err(Unexpected { connection: name, expected, got: Closed::Cut.to_string() });
        }
        RawLink::open(self, name, address).await
    }

    /// Links one channel.
    ///
    /// # Errors
    /// When the server refuses, does not answer, or closes.
    pub async fn link(
        &self,
        host: &str,
        address: SocketAddr,
        connection_id: u32,
        channel: ChannelId,
    ) -> Result<Channel, Unexpected> {
        let mut link = self.open(host, channel, address).await?;
        let request = self.request(connection_id, channel);
        link.request(&request).await?;
        let reply = link.reply().await?;
        if reply.error != LinkError::OK {
            return Err(link.unexpected("a link reply with OK", format!("a link reply with {}", reply.error)));
        }
        link.authenticate(&request, &reply, &self.password).await?;
        match link.result().await? {
            LinkError::OK => Ok(link.into_channel(&request, &reply)),
            refused => Err(link.unexpected("link result OK", format!("link result {refused}"))),
        }
    }

    /// Begins a new session and links every channel that the server offers.
    ///
    /// # Errors
    /// When a link fails, or INIT or CHANNELS_LIST does not come.
    pub async fn connect(&self, host: &str, address: SocketAddr) -> Result<Session, Unexpected> {
        let mut session = self.connect_main(host, address).await?;
        session.list_channels().await?;
        for id in session.offered.clone() {
            let channel = self.link(host, address, session.id, id).await?;
            session.adopt(channel).await?;
        }
        Ok(session)
    }

    /// Begins a new session and links no other channel.
    ///
    /// # Errors
    /// When the link fails or INIT does not come.
    pub async fn connect_main(&self, host: &str, address: SocketAddr) -> Result<Session, Unexpected> {
        let main = ChannelId { channel_type: ChannelType::MAIN, id: 0 };
        let mut main = self.link(host, address, 0, main).await?;
        let server::Init { session_id, .. } = main
            .until("INIT", |message| match message {
                ServerMessage::Init(init) => Some(*init),
                _ => None,
            })
            .await?;
        Ok(Session { id: session_id, main, children: Vec::new(), offered: Vec::new() })
    }

    /// Links the main channel of a session that runs at the source, at the target: the client is a migrating one there.
    ///
    /// # Errors
    /// When the link fails.
    pub async fn connect_migrating(
        &self,
        host: &str,
        address: SocketAddr,
        source: &Session,
    ) -> Result<Session, Unexpected> {
        let main = self.link(host, address, source.id, source.main.id).await?;
        Ok(Session { id: source.id, main, children: Vec::new(), offered: source.offered.clone() })
    }

    /// Links, at the target, the channels that the source's session has, and leaves them silent.
    ///
    /// # Errors
    /// When a link fails.
    pub async fn connect_children(
        &self,
        host: &str,
        address: SocketAddr,
        target: &mut Session,
    ) -> Result<(), Unexpected> {
        for id in target.offered.clone() {
            target.children.push(self.link(host, address, target.id, id).await?);
        }
        Ok(())
    }
}
