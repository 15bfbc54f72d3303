//! Writes seeds for every target, made of the captures and the tables of messages: `cargo run -p spice-migration-fuzz --example seeds -- FOLDER`.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use arbitrary::Unstructured;
use spice_migration::{
    ChannelType, ClientMessage, ServerMessage,
    caps::CommonCapability,
    frame::{Deframer, Frame, HeaderKind},
    link::{LINK_HEADER_LEN, LinkHeader, LinkMessage, LinkReply, TICKET_LEN},
    state::State,
};
use spice_migration_corpus::Connection;

/// Longer ones slow a fuzzer down and show nothing new: a ping with ballast, pictures, streams.
const LONGEST: usize = 1024;

fn main() -> io::Result<()> {
    let folder = env::args().nth(1).unwrap_or_else(|| "target/fuzz/seeds".into());
    let mut seeds = Seeds::default();
    for capture in spice_migration_corpus::captures() {
        for connection in capture.connections().expect("the captures are well-formed") {
            seeds.of_connection(&connection);
        }
    }
    seeds.of_tables();
    seeds.write(Path::new(&folder))
}

/// Inputs, each with its target.
#[derive(Default)]
struct Seeds(BTreeSet<(&'static str, Vec<u8>)>);

impl Seeds {
    fn add(&mut self, target: &'static str, parts: &[&[u8]]) {
        let mut input = parts.concat();
        input.truncate(LONGEST);
        self.0.insert((target, input));
    }

    /// The link stage, the streams, and each of their messages.
    fn of_connection(&mut self, connection: &Connection) {
        let Some((message, client)) = link_body(&connection.from_client) else { return };
        let Some((reply, server)) = link_body(&connection.from_server) else { return };
        self.add("link", &[&[0], &connection.from_client[..LINK_HEADER_LEN + message.len()]]);
        self.add("link", &[&[1], &connection.from_server[..LINK_HEADER_LEN + reply.len()]]);

        let message = LinkMessage::decode(message).expect("the tests of the protocol crate decode it");
        let reply = LinkReply::decode(reply).expect("the tests of the protocol crate decode it");
        let both = |bit| message.capabilities.common.has(bit) && reply.capabilities.common.has(bit);
        let mechanism = if both(CommonCapability::AUTH_SELECTION) { 4 } else { 0 };
        let kind = if both(CommonCapability::MINI_HEADER) { HeaderKind::Mini } else { HeaderKind::Full };
        let channel = message.channel_type;
        for (target, stream) in [("server", &server[4..]), ("client", &client[mechanism + TICKET_LEN..])] {
            self.add("deframing", &[&[u8::from(kind == HeaderKind::Full), 7], stream]);
            let mut deframer = Deframer::new(kind);
            deframer.push(stream);
            while let Ok(Some(Frame { header, body })) = deframer.next_frame() {
                if body.len() > LONGEST {
                    continue;
                }
                self.add(target, &[&[channel.0], &header.id.to_le_bytes(), body]);
                if (target, header.id) == ("server", 2) || (target, header.id) == ("client", 5) {
                    self.add("state", &[&[channel.0], body]);
                }
                if header.sub_list != 0 {
                    self.add("sub_messages", &[&[0], &header.sub_list.to_le_bytes()[..2], body]);
                }
            }
        }
    }

    /// Choices of the structure-aware oracles, of every row; and of every row a body of zeros.
    fn of_tables(&mut self) {
        let filler: Vec<u8> = (0..200u8).map(|byte| byte.wrapping_mul(37)).collect();
        for (direction, target, table) in [(0, "server", ServerMessage::TABLE), (1, "client", ClientMessage::TABLE)] {
            for (position, row) in (0u8..).zip(table) {
                self.add("round_trip", &[&[direction, position], &filler]);
                self.add("sub_messages", &[&[1, position], &filler]);
                for dialect in [0, 0x80, 0xc0] {
                    self.add(target, &[&[dialect | ChannelType::MAIN.0], &row.id.to_le_bytes(), &[0; 16]]);
                }
            }
        }
        for channel in 0..=12 {
            let state = State::arbitrary_of(ChannelType(channel), &mut Unstructured::new(&filler))
                .expect("there is enough filler");
            let mut data = vec![0; state.encoded_len()];
            state.encode(&mut data).expect("the buffer has room for all of it");
            self.add("state", &[&[channel], &data]);
        }
        let header = LinkHeader::new(0).encode();
        for text in ["", "sized-stream, lz4-compression,33", "3,none"] {
            self.add("link", &[&[0], &header[..12], &(text.len() as u32).to_le_bytes(), text.as_bytes()]);
        }
        for choice in 2..8 {
            for variant in 0..13 {
                self.add("round_trip", &[&[choice, variant, variant], &filler]);
            }
        }
    }

    fn write(&self, folder: &Path) -> io::Result<()> {
        for (index, (target, input)) in self.0.iter().enumerate() {
            let folder: PathBuf = folder.join(target);
            fs::create_dir_all(&folder)?;
            fs::write(folder.join(format!("seed-{index:04}")), input)?;
        }
        println!("{} seeds in {}", self.0.len(), folder.display());
        Ok(())
    }
}

/// What a link header at the front announces, and what follows that; `None` if it is not whole.
fn link_body(stream: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = stream.split_first_chunk::<LINK_HEADER_LEN>()?;
    rest.split_at_checked(usize::try_from(LinkHeader::decode(header).ok()?.size).ok()?)
}
