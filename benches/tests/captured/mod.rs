//! The messages of the captured conversations.

use spice_migration::ChannelType;
use spice_migration::caps::CommonCapability;
use spice_migration::frame::{Deframer, HeaderKind};
use spice_migration::link::{LINK_HEADER_LEN, LinkHeader, LinkMessage, LinkReply, TICKET_LEN};
use spice_migration_corpus::captures;

/// A message as it was captured.
pub(crate) struct Captured {
    /// On which channel.
    pub(crate) channel: ChannelType,
    /// Whether a server sent it.
    pub(crate) from_server: bool,
    /// Its id.
    pub(crate) id: u16,
    /// Its body.
    pub(crate) body: Vec<u8>,
}

/// All of them.
pub(crate) fn messages() -> Vec<Captured> {
    let mut all = Vec::new();
    for connection in captures().iter().flat_map(|capture| capture.connections().unwrap()) {
        if connection.from_client.is_empty() {
            continue;
        }
        let (message, client) = link_body(&connection.from_client);
        let message = LinkMessage::decode(message).unwrap();
        let (reply, server) = link_body(&connection.from_server);
        let reply = LinkReply::decode(reply).unwrap();
        let both = |bit| message.capabilities.common.has(bit) && reply.capabilities.common.has(bit);
        let kind = if both(CommonCapability::MINI_HEADER) { HeaderKind::Mini } else { HeaderKind::Full };
        let mechanism = if both(CommonCapability::AUTH_SELECTION) { 4 } else { 0 };
        for (from_server, stream) in [(false, &client[mechanism + TICKET_LEN..]), (true, &server[4..])] {
            let mut deframer = Deframer::new(kind);
            deframer.push(stream);
            while let Some(frame) = deframer.next_frame().unwrap() {
                let (id, body) = (frame.header.id, frame.body.to_vec());
                all.push(Captured { channel: message.channel_type, from_server, id, body });
            }
        }
    }
    assert!(all.len() > 1000, "there are captures");
    all
}

/// The body behind a link header, and what follows.
fn link_body(stream: &[u8]) -> (&[u8], &[u8]) {
    let (header, rest) = stream.split_first_chunk::<LINK_HEADER_LEN>().unwrap();
    rest.split_at(LinkHeader::decode(header).unwrap().size as usize)
}
