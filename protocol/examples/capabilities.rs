//! Asks a SPICE server what it can do, and says how its clients would migrate away from it.
//!
//! ```text
//! cargo run -p spice-migration --example capabilities -- HOST:PORT
//! ```
//!
//! The server tells its capabilities in its first answer, before it wants to see a ticket. The example stops there: it needs no
//! password, and a client that is connected is not disturbed.

use std::{
    env,
    error::Error,
    io::{self, ErrorKind, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    process::ExitCode,
    time::{Duration, Instant},
};

use spice_migration::{
    ChannelType,
    caps::{CapabilitySet, CommonCapability, MainCapability},
    link::{Capabilities, LINK_HEADER_LEN, LinkError, LinkHeader, LinkMessage, LinkReply},
};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let Some(address) = env::args().nth(1) else {
        eprintln!("usage: capabilities HOST:PORT");
        return ExitCode::from(2);
    };
    match ask(&address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{address}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does the first half of the link stage on a main channel, and prints what the server's reply says.
fn ask(address: &str) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = connect(address, deadline)?;
    stream.write_all(&link_message()?)?;

    // A header of constant size says how long the reply is. `decode` refuses one that announces more than any reply needs.
    let mut header = [0; LINK_HEADER_LEN];
    read_before(deadline, &mut stream, &mut header)?;
    let header = LinkHeader::decode(&header)?;
    let mut body = vec![0; usize::try_from(header.size)?];
    read_before(deadline, &mut stream, &mut body)?;
    let reply = LinkReply::decode(&body)?;

    if reply.error != LinkError::OK {
        return Err(format!("the server refuses the link: {}", reply.error).into());
    }
    let common = CapabilitySet::<CommonCapability>::from_words(reply.capabilities.common);
    let main = CapabilitySet::from_words(reply.capabilities.channel);
    println!("protocol version:    {}.{}", header.major_version, header.minor_version);
    println!("common capabilities: {common}");
    println!("main capabilities:   {main}");
    println!();
    println!("When its guest moves away, a client goes along");
    let semi_seamless = CapabilitySet::from_iter([MainCapability::SEMI_SEAMLESS_MIGRATE]);
    println!("  with all capabilities:   {}", scheme(&main, &CapabilitySet::known()));
    println!("  with semi-seamless only: {}", scheme(&main, &semi_seamless));
    println!("  with none:               {}", scheme(&main, &CapabilitySet::new()));
    println!("What a host allows is not on the wire (for QEMU it is -spice seamless-migration=on).");
    Ok(())
}

/// In which scheme a source with these capabilities takes along a client with those.
fn scheme(source: &CapabilitySet<MainCapability>, client: &CapabilitySet<MainCapability>) -> String {
    let both = source & client;
    let otherwise = if both.contains(MainCapability::SEMI_SEAMLESS_MIGRATE) { "semi-seamless" } else { "switch-host" };
    // A seamless session keeps counting its agent messages, so the client must have been told their number.
    if both.contains(MainCapability::SEAMLESS_MIGRATE) && both.contains(MainCapability::AGENT_CONNECTED_TOKENS) {
        format!("seamless if both hosts can and the source allows it, else {otherwise}")
    } else {
        otherwise.to_owned()
    }
}

/// What a client sends first: a header and a message. This one could do everything.
fn link_message() -> Result<Vec<u8>, Box<dyn Error>> {
    let common: CapabilitySet<CommonCapability> = "auth-selection,auth-spice,mini-header".parse()?;
    let main = CapabilitySet::<MainCapability>::known();
    let message = LinkMessage {
        connection_id: 0,
        channel_type: ChannelType::MAIN,
        channel_id: 0,
        capabilities: Capabilities { common: common.as_words(), channel: main.as_words() },
    };
    let mut bytes = vec![0; LINK_HEADER_LEN + message.encoded_len()];
    message.encode_with_header(&mut bytes)?;
    Ok(bytes)
}

/// Connects to the first address of a name that answers.
fn connect(address: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, remaining(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Fills the buffer, or fails when the deadline has passed, even if a byte comes now and then.
fn read_before(deadline: Instant, stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        stream.set_read_timeout(Some(remaining(deadline)?))?;
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => filled += length,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // What a timeout is called depends on the system.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    if remaining.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(remaining) }
}
