//! The observer, against what real peers did: each capture is judged as its provenance says, no part of it is accused wrongly, and
//! each rule speaks when a capture is changed so that it is broken.
#![cfg(feature = "alloc")]

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use spice_migration::ChannelType;
use spice_migration::caps::{CapabilityWords, CommonCapability};
use spice_migration::frame::{Deframer, HeaderKind};
use spice_migration::link::{Capabilities, LINK_HEADER_LEN, LinkError, LinkHeader, LinkMessage, LinkReply, TICKET_LEN};
use spice_migration::message::ChannelId;
use spice_migration::migrate::observer::{
    Event, Finding, HostEvent, Link, Migration, Observer, Opened, Outcome, Party, Received, Side,
};
use spice_migration::migrate::{MIGRATE_TIMEOUT, Scheme};
use spice_migration_corpus::{Capture, Connection};

/// What was seen, in owned form, so that it can be changed.
#[derive(Clone, Debug)]
struct Seen {
    at: Duration,
    connection: u32,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Opened {
        server: u32,
        client: Option<u32>,
        channel: ChannelId,
        link: Option<OwnedLink>,
    },
    Message {
        from: Side,
        serial: Option<u64>,
        id: u16,
        body: Vec<u8>,
    },
    Closed(Option<Side>),
    AtRest,
    /// Of the server with this number.
    Host(u32, HostEvent),
}

#[derive(Clone, Debug)]
struct OwnedLink {
    connection_id: u32,
    client: [Vec<[u8; 4]>; 2],
    server: [Vec<[u8; 4]>; 2],
    result: LinkError,
}

fn words(capabilities: Capabilities<'_>) -> [Vec<[u8; 4]>; 2] {
    [capabilities.common, capabilities.channel].map(|words| words.as_wire().to_vec())
}

fn capabilities(words: &[Vec<[u8; 4]>; 2]) -> Capabilities<'_> {
    let [common, channel] = words;
    Capabilities { common: CapabilityWords::new(common), channel: CapabilityWords::new(channel) }
}

impl Seen {
    fn show(&self, observer: &mut Observer) -> Vec<Finding> {
        let connection = self.connection;
        let event = match &self.what {
            What::Opened { server, client, channel, link } => {
                let link = link.as_ref().map(|link| Link {
                    connection_id: link.connection_id,
                    client: capabilities(&link.client),
                    server: capabilities(&link.server),
                    result: link.result,
                });
                let opened = Opened { server: *server, client: *client, channel: *channel, link };
                Event::Opened { connection, opened }
            }
            What::Message { from, serial, id, body } => {
                Event::Message { connection, message: Received { from: *from, serial: *serial, id: *id, body } }
            }
            What::Closed(by) => Event::Closed { connection, by: *by },
            What::AtRest => Event::AtRest,
            What::Host(server, event) => Event::Host { server: *server, event: *event },
        };
        observer.observe(self.at, event)
    }
}

fn judge(script: &[Seen]) -> (Vec<Finding>, Vec<Migration>) {
    let mut observer = Observer::new();
    let findings = script.iter().flat_map(|seen| seen.show(&mut observer)).collect();
    (findings, observer.migrations().to_vec())
}

/// A capture as the observer is fed with it. A connection's end is not in the corpus' form; it comes directly after its last bytes.
fn script(file: &str) -> Vec<Seen> {
    let captures = spice_migration_corpus::captures();
    script_of(captures.iter().find(|capture| capture.file == format!("{file}.pcap.gz")).unwrap())
}

fn script_of(capture: &Capture) -> Vec<Seen> {
    let mut script = Vec::new();
    for (connection, number) in capture.connections().unwrap().iter().zip(0..) {
        if !connection.from_client.is_empty() {
            let server = capture.server_ports.iter().position(|port| *port == connection.server.port()).unwrap();
            script.extend(connection_script(connection, number, u32::try_from(server).unwrap()));
        }
    }
    script.sort_by_key(|(frame, _)| *frame);
    script.into_iter().map(|(_, seen)| seen).collect()
}

/// With the frames at which things were seen.
fn connection_script(connection: &Connection, number: u32, server: u32) -> Vec<(usize, Seen)> {
    let (client_link, client_rest) = link_body(&connection.from_client);
    let (server_link, server_rest) = link_body(&connection.from_server);
    let message = LinkMessage::decode(client_link).unwrap();
    let reply = LinkReply::decode(server_link).unwrap();
    let both = |bit| message.capabilities.common.has(bit) && reply.capabilities.common.has(bit);
    let mechanism = if both(CommonCapability::AUTH_SELECTION) { 4 } else { 0 };
    let kind = if both(CommonCapability::MINI_HEADER) { HeaderKind::Mini } else { HeaderKind::Full };
    let (result, _) = server_rest.split_first_chunk().unwrap();
    let link = OwnedLink {
        connection_id: message.connection_id,
        client: words(message.capabilities),
        server: words(reply.capabilities),
        result: LinkError(u32::from_le_bytes(*result)),
    };
    let channel = ChannelId { channel_type: message.channel_type, id: message.channel_id };

    // How many bytes of each direction belong to the link stage.
    let from_client = connection.from_client.len() - client_rest.len() + mechanism + TICKET_LEN;
    let from_server = connection.from_server.len() - server_rest.len() + 4;
    let mut script = Vec::new();
    let (mut client, mut server_side) = (Deframer::new(kind), Deframer::new(kind));
    let mut last = Duration::ZERO;
    for segment in &connection.segments {
        let bytes = connection.bytes(segment);
        let (deframer, from, start) = if segment.from_client {
            (&mut client, Side::Client, from_client)
        } else {
            (&mut server_side, Side::Server, from_server)
        };
        let mut see = |what| script.push((segment.frame, Seen { at: segment.at, connection: number, what }));
        if !segment.from_client && segment.start < start && segment.end >= start {
            see(What::Opened { server, client: Some(0), channel, link: Some(link.clone()) });
        }
        deframer.push(&bytes[bytes.len().min(start.saturating_sub(segment.start))..]);
        while let Some(frame) = deframer.next_frame().unwrap() {
            let serial = (kind == HeaderKind::Full).then_some(frame.header.serial);
            see(What::Message { from, serial, id: frame.header.id, body: frame.body.to_vec() });
        }
        last = segment.at;
    }
    let frame = connection.segments.last().unwrap().frame;
    script.push((frame, Seen { at: last, connection: number, what: What::Closed(None) }));
    script
}

fn link_body(stream: &[u8]) -> (&[u8], &[u8]) {
    let (header, rest) = stream.split_first_chunk::<LINK_HEADER_LEN>().unwrap();
    rest.split_at(usize::try_from(LinkHeader::decode(header).unwrap().size).unwrap())
}

fn texts(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

/// What real peers did wrong, and why it is.
fn known(file: &str) -> Vec<&'static str> {
    match file {
        // The suite's own client asks for version 2 on purpose, so that the target must decline.
        "full_headers_nack.pcap.gz" => vec!["C3"],
        _ => Vec::new(),
    }
}

#[test]
fn each_capture_is_judged_as_its_provenance_says() {
    use Outcome::{Cancelled, Completed};
    for capture in spice_migration_corpus::captures() {
        let (findings, migrations) = judge(&script_of(&capture));
        let requirements: Vec<_> = findings.iter().map(|finding| finding.requirement).collect();
        assert_eq!(requirements, known(&capture.file), "{}: {:#?}", capture.file, texts(&findings));
        let schemes: Vec<_> = migrations
            .iter()
            .map(|migration| (migration.source, migration.target, migration.scheme, migration.outcome))
            .collect();
        let (a, b) = (Some(0), Some(1));
        let expected = match capture.file.as_str() {
            "agent_seamless.pcap.gz" | "seamless.full.pcap.gz" | "seamless.pcap.gz" => {
                vec![(a, b, Some(Scheme::Seamless), Completed)]
            }
            "twice_seamless.pcap.gz" => {
                vec![(a, b, Some(Scheme::Seamless), Completed), (b, a, Some(Scheme::Seamless), Completed)]
            }
            "semi.pcap.gz" | "full_headers_nack.pcap.gz" => vec![(a, b, Some(Scheme::SemiSeamless), Completed)],
            "switch_unreach_semi.pcap.gz" => vec![(a, None, Some(Scheme::SwitchHost), Completed)],
            "cancel_seamless.pcap.gz" => vec![(a, b, None, Cancelled)],
            other => panic!("a new capture: {other}"),
        };
        assert_eq!(schemes, expected, "{}", capture.file);
    }
}

/// Every subset of a few connections; of many, each alone, all but each, each pair, and all at one server.
fn subsets(script: &[Seen]) -> Vec<BTreeSet<u32>> {
    let all: BTreeSet<u32> = script.iter().map(|seen| seen.connection).collect();
    let list: Vec<u32> = all.iter().copied().collect();
    if list.len() <= 9 {
        return (0..1 << list.len())
            .map(|chosen: u32| {
                list.iter().copied().enumerate().filter(move |(at, _)| chosen >> at & 1 == 1).map(|(_, c)| c)
            })
            .map(Iterator::collect)
            .collect();
    }
    let mut subsets = Vec::new();
    for one in &list {
        subsets.push([*one].into());
        subsets.push(all.iter().copied().filter(|other| other != one).collect());
        for other in &list {
            subsets.push([*one, *other].into());
            subsets.push(all.iter().copied().filter(|third| third != one && third != other).collect());
        }
    }
    for at in 1..list.len() {
        subsets.push(list[..at].iter().copied().collect());
        subsets.push(list[at..].iter().copied().collect());
    }
    subsets
}

#[test]
fn no_part_of_a_capture_is_accused() {
    let mut count = 0;
    for capture in spice_migration_corpus::captures() {
        let script = script_of(&capture);
        for subset in subsets(&script) {
            let part: Vec<_> = script.iter().filter(|seen| subset.contains(&seen.connection)).cloned().collect();
            // Ends of connections may stay unseen, too.
            let unended: Vec<_> = part.iter().filter(|seen| !matches!(seen.what, What::Closed(_))).cloned().collect();
            let findings: Vec<_> = [judge(&part).0, judge(&unended).0]
                .into_iter()
                .flatten()
                .filter(|finding| !known(&capture.file).contains(&finding.requirement))
                .collect();
            assert!(findings.is_empty(), "{} {subset:?}: {:#?}", capture.file, texts(&findings));
            count += 1;
        }
    }
    assert!(count > 2000, "{count}");
}

/// From any moment on: the connections that are open then are joined in the middle.
#[test]
fn a_capture_that_starts_in_the_middle_is_not_accused() {
    for capture in spice_migration_corpus::captures() {
        let script = script_of(&capture);
        for start in (0..script.len()).step_by(3) {
            let (before, after) = script.split_at(start);
            let mut joined: Vec<_> =
                before.iter().filter(|seen| matches!(seen.what, What::Opened { .. })).cloned().collect();
            for seen in &mut joined {
                let What::Opened { link, .. } = &mut seen.what else { unreachable!() };
                *link = None;
            }
            joined.extend(after.iter().cloned());
            let findings: Vec<_> = judge(&joined)
                .0
                .into_iter()
                .filter(|finding| !known(&capture.file).contains(&finding.requirement))
                .collect();
            assert!(findings.is_empty(), "{} from {start}: {:#?}", capture.file, texts(&findings));
        }
    }
}

#[test]
fn a_connection_alone_tells_what_it_can() {
    let schemes = |file, connection| -> Vec<_> {
        let alone: Vec<_> = script(file).into_iter().filter(|seen| seen.connection == connection).collect();
        judge(&alone).1.iter().map(ToString::to_string).collect()
    };
    assert_eq!(schemes("seamless", 0), ["seamless migration from server 0: completed"]);
    assert_eq!(schemes("seamless", 3), ["seamless migration from server 0: completed"]);
    assert_eq!(schemes("seamless", 4), ["seamless migration to server 1: completed"]);
    assert_eq!(schemes("seamless", 5), ["seamless migration to server 1: completed"]);
    assert_eq!(schemes("seamless", 6), [""; 0], "a cursor channel's link is like any other");
    assert_eq!(schemes("semi", 0), ["semi-seamless migration from server 0: completed"]);
    assert_eq!(schemes("semi", 4), ["semi-seamless migration to server 1: completed"]);
    assert_eq!(schemes("cancel_seamless", 0), ["migration from server 0: cancelled"]);
    assert_eq!(schemes("cancel_seamless", 4), ["migration to server 1: failed"]);
    assert_eq!(
        schemes("twice_seamless", 7),
        ["seamless migration to server 1: completed", "seamless migration from server 1: completed"]
    );
}

/// Ways to change a script. Messages are named by connection, side and id; the first one is meant.
trait Change: Sized {
    fn find(&self, connection: u32, from: Side, id: u16) -> usize;
    fn seen(&mut self, connection: u32, from: Side, id: u16) -> &mut Seen;
    fn body(&mut self, connection: u32, from: Side, id: u16) -> &mut Vec<u8>;
    fn link(&mut self, connection: u32) -> &mut OwnedLink;
    /// The client's capabilities of its channel.
    fn client_capabilities(&mut self, connection: u32, word: u32);
    fn drop_message(&mut self, connection: u32, from: Side, id: u16) -> Seen;
    fn repeat(&mut self, connection: u32, from: Side, id: u16);
    fn becomes(&mut self, connection: u32, from: Side, id: u16, new: u16, body: &[u8]);
    /// A message directly before or after another one.
    fn before(&mut self, place: (u32, Side, u16), connection: u32, from: Side, id: u16, body: &[u8]);
    fn after(&mut self, place: (u32, Side, u16), connection: u32, from: Side, id: u16, body: &[u8]);
    /// A message after all that there is, and the last of its connection.
    fn late(&mut self, connection: u32, from: Side, id: u16, body: &[u8]);
    fn host(&mut self, before: (u32, Side, u16), event: HostEvent);
    fn at_rest_before(&mut self, connection: u32, from: Side, id: u16);
    /// This message is the last thing that is seen.
    fn ends_with(&mut self, connection: u32, from: Side, id: u16);
    /// This message and what follows come when the time is up.
    fn late_from(&mut self, connection: u32, from: Side, id: u16);
}

const LATE: Duration = MIGRATE_TIMEOUT.saturating_add(Duration::from_secs(1));

impl Change for Vec<Seen> {
    fn find(&self, connection: u32, from: Side, id: u16) -> usize {
        let is_meant = |seen: &Seen| match &seen.what {
            What::Message { from: other, id: other_id, .. } => {
                seen.connection == connection && (*other, *other_id) == (from, id)
            }
            _ => false,
        };
        self.iter().position(is_meant).unwrap_or_else(|| panic!("no {id} of the {from:?} on {connection}"))
    }

    fn seen(&mut self, connection: u32, from: Side, id: u16) -> &mut Seen {
        let at = self.find(connection, from, id);
        &mut self[at]
    }

    fn body(&mut self, connection: u32, from: Side, id: u16) -> &mut Vec<u8> {
        let What::Message { body, .. } = &mut self.seen(connection, from, id).what else { unreachable!() };
        body
    }

    fn link(&mut self, connection: u32) -> &mut OwnedLink {
        self.iter_mut()
            .filter(|seen| seen.connection == connection)
            .find_map(|seen| match &mut seen.what {
                What::Opened { link, .. } => link.as_mut(),
                _ => None,
            })
            .unwrap()
    }

    fn client_capabilities(&mut self, connection: u32, word: u32) {
        self.link(connection).client[1] = vec![word.to_le_bytes()];
    }

    fn drop_message(&mut self, connection: u32, from: Side, id: u16) -> Seen {
        let at = self.find(connection, from, id);
        self.remove(at)
    }

    fn repeat(&mut self, connection: u32, from: Side, id: u16) {
        let at = self.find(connection, from, id);
        let again = self[at].clone();
        self.insert(at + 1, again);
    }

    fn becomes(&mut self, connection: u32, from: Side, id: u16, new: u16, new_body: &[u8]) {
        let What::Message { id, body, .. } = &mut self.seen(connection, from, id).what else { unreachable!() };
        *id = new;
        *body = new_body.to_vec();
    }

    fn before(&mut self, place: (u32, Side, u16), connection: u32, from: Side, id: u16, body: &[u8]) {
        let at = self.find(place.0, place.1, place.2);
        let what = What::Message { from, serial: None, id, body: body.to_vec() };
        self.insert(at, Seen { at: self[at].at, connection, what });
    }

    fn after(&mut self, place: (u32, Side, u16), connection: u32, from: Side, id: u16, body: &[u8]) {
        let at = self.find(place.0, place.1, place.2);
        let what = What::Message { from, serial: None, id, body: body.to_vec() };
        self.insert(at + 1, Seen { at: self[at].at, connection, what });
    }

    fn late(&mut self, connection: u32, from: Side, id: u16, body: &[u8]) {
        self.retain(|seen| seen.connection != connection || !matches!(seen.what, What::Closed(_)));
        let at = self.last().unwrap().at + LATE;
        self.push(Seen { at, connection, what: What::Message { from, serial: None, id, body: body.to_vec() } });
    }

    fn host(&mut self, before: (u32, Side, u16), event: HostEvent) {
        let at = self.find(before.0, before.1, before.2);
        self.insert(at, Seen { at: self[at].at, connection: 0, what: What::Host(0, event) });
    }

    fn at_rest_before(&mut self, connection: u32, from: Side, id: u16) {
        let at = self.find(connection, from, id);
        self.insert(at, Seen { at: self[at].at, connection, what: What::AtRest });
    }

    fn ends_with(&mut self, connection: u32, from: Side, id: u16) {
        let at = self.find(connection, from, id);
        self.truncate(at + 1);
    }

    fn late_from(&mut self, connection: u32, from: Side, id: u16) {
        let at = self.find(connection, from, id);
        for seen in &mut self[at..] {
            seen.at += LATE;
        }
    }
}

const C: Side = Side::Client;
const S: Side = Side::Server;

type Edit = fn(&mut Vec<Seen>);

/// A change of a capture, and which requirements are then found to be violated, each by whom.
type Case = (&'static str, &'static str, Edit, &'static [(&'static str, Party)]);

use Party::{Client, Source, Target};

/// In `seamless`, `semi` and `cancel_seamless` the connections are 0 main, 1 display, 2 cursor and 3 inputs at the source, and
/// 4 main, 5 inputs, 6 cursor and 7 display at the target.
const CASES: &[Case] = &[
    (
        "messages after a refused ticket",
        "semi",
        |s| s.link(5).result = LinkError::PERMISSION_DENIED,
        &[("L5.1", Target)],
    ),
    (
        "messages after a refused connection id",
        "semi",
        |s| s.link(5).result = LinkError::BAD_CONNECTION_ID,
        &[("L6.1", Target)],
    ),
    ("a channel without a session is linked", "seamless", |s| s.link(2).connection_id = 0, &[("L6.1", Source)]),
    (
        "messages after a channel was refused",
        "semi",
        |s| s.link(5).result = LinkError::CHANNEL_NOT_AVAILABLE,
        &[("L6.2", Target)],
    ),
    (
        "NAME before INIT",
        "seamless",
        |s| {
            let (init, name) = (s.find(0, S, 103), s.find(0, S, 113));
            s.swap(init, name);
        },
        &[("M1.1", Source)],
    ),
    ("NAME and UUID to a client that cannot", "semi", |s| s.client_capabilities(0, 0xd), &[("M1.3", Source)]),
    ("CHANNELS_LIST unasked", "semi", |s| drop(s.drop_message(0, C, 104)), &[("M1.4", Source)]),
    ("AGENT_CONNECTED to a client with tokens", "semi", |s| s.after((0, S, 103), 0, S, 107, b""), &[("M2", Source)]),
    (
        "AGENT_CONNECTED_TOKENS to a client without",
        "semi",
        |s| {
            s.client_capabilities(0, 0xb);
            s.after((0, S, 103), 0, S, 115, &[10, 0, 0, 0]);
        },
        &[("M2", Source)],
    ),
    (
        "a full header where both have mini headers",
        "semi",
        |s| {
            let What::Message { serial, .. } = &mut s.seen(0, C, 104).what else { unreachable!() };
            *serial = Some(1);
        },
        &[("M3.1", Client)],
    ),
    (
        "a mini header where one side lacks it",
        "full_headers_nack",
        |s| {
            let What::Message { serial, .. } = &mut s.seen(0, C, 104).what else { unreachable!() };
            *serial = None;
        },
        &[("M3.2", Client)],
    ),
    ("a serial is left out", "full_headers_nack", |s| drop(s.drop_message(0, S, 7)), &[("M3.2", Source)]),
    (
        "serials that count from 0",
        "full_headers_nack",
        |s| {
            for seen in s.iter_mut().filter(|seen| seen.connection == 3) {
                if let What::Message { from: S, serial: Some(serial), .. } = &mut seen.what {
                    *serial -= 1;
                }
            }
        },
        &[("M3.2", Source)],
    ),
    (
        "BEGIN although seamless is allowed",
        "semi",
        |s| s.host((0, S, 101), HostEvent::Announces { seamless: true }),
        &[("S1.1", Source)],
    ),
    ("BEGIN_SEAMLESS to a client without it", "seamless", |s| s.client_capabilities(0, 0x7), &[("S1.2", Source)]),
    (
        "BEGIN_SEAMLESS although the host does not allow it",
        "seamless",
        |s| s.host((0, S, 116), HostEvent::Announces { seamless: false }),
        &[("S1.2", Source)],
    ),
    (
        "BEGIN to a client without it",
        "semi",
        |s| {
            s.client_capabilities(0, 0xe);
            s.ends_with(0, S, 101);
        },
        &[("S1.3", Source)],
    ),
    (
        "another migration protocol version",
        "seamless",
        |s| {
            s.body(0, S, 116)[20] = 2;
            s.ends_with(0, S, 116);
        },
        &[("S2", Source)],
    ),
    (
        "END after CONNECTED_SEAMLESS",
        "seamless",
        |s| {
            s.becomes(0, S, 1, 112, b"");
            s.ends_with(0, S, 112);
            s.retain(|seen| ![1, 2, 3].contains(&seen.connection));
        },
        &[("S4.1", Source)],
    ),
    (
        "SWITCH_HOST long after CONNECTED_SEAMLESS",
        "cancel_seamless",
        |s| {
            let to = s.body(0, S, 116).clone();
            s.becomes(0, S, 102, 111, &to);
            s.late_from(0, S, 111);
            s.ends_with(0, S, 111);
        },
        &[("S4.1", Source)],
    ),
    (
        "a channel is left out",
        "seamless",
        |s| {
            s.drop_message(2, S, 1);
            s.late(2, S, 101, b"");
        },
        &[("S4.1", Source)],
    ),
    (
        "SWITCH_HOST long after CONNECTED",
        "semi",
        |s| {
            let to = s.body(0, S, 101).clone();
            s.becomes(0, S, 112, 111, &to);
            s.late_from(0, S, 111);
            s.ends_with(0, S, 111);
        },
        &[("S4.2", Source)],
    ),
    (
        "the source closes after CONNECTED, in place of END",
        "semi",
        |s| {
            s.host((0, S, 112), HostEvent::Completed);
            s.ends_with(0, S, 112);
            s.last_mut().unwrap().what = What::Closed(Some(S));
        },
        &[("S4.2", Source)],
    ),
    (
        "the source closes after CONNECTED_SEAMLESS, in place of MIGRATE",
        "seamless",
        |s| {
            s.host((0, S, 1), HostEvent::Completed);
            s.ends_with(0, S, 1);
            s.last_mut().unwrap().what = What::Closed(Some(S));
        },
        &[("S4.1", Source)],
    ),
    (
        "MIGRATE after CONNECTED",
        "full_headers_nack",
        |s| {
            s.becomes(0, S, 112, 1, &[3, 0, 0, 0]);
            s.ends_with(0, S, 1);
        },
        &[("S4.2", Source)],
    ),
    ("END without an answer", "semi", |s| drop(s.drop_message(0, C, 102)), &[("S4.3", Source)]),
    ("MIGRATE without an answer", "seamless", |s| drop(s.drop_message(0, C, 111)), &[("S4.3", Source)]),
    ("END after an error", "semi", |s| s.becomes(0, C, 102, 103, b""), &[("S4.3", Source)]),
    ("END of a cancelled migration", "semi", |s| s.host((0, S, 112), HostEvent::Cancelled), &[("S5.1", Source)]),
    ("CANCEL without an answer", "cancel_seamless", |s| drop(s.drop_message(0, C, 111)), &[("S5.2", Source)]),
    ("CANCEL after an error", "cancel_seamless", |s| s.becomes(0, C, 111, 103, b""), &[("S5.2", Source)]),
    ("MIGRATE of a failed migration", "seamless", |s| s.host((0, S, 1), HostEvent::Failed), &[("S5.3", Source)]),
    (
        "success that nobody asked for stays unanswered",
        "cancel_seamless",
        |s| {
            s.before((0, S, 116), 0, C, 102, b"");
            s.ends_with(0, C, 102);
            s.late(0, S, 4, &[0; 12]);
        },
        &[("C4", Client), ("S6.1", Source)],
    ),
    (
        "success that nobody asked for is answered after the end",
        "semi",
        |s| {
            s.after((0, S, 112), 0, S, 102, b"");
            s.after((0, S, 112), 0, C, 102, b"");
        },
        &[("C4", Client)],
    ),
    (
        "an error that nobody asked for is answered",
        "cancel_seamless",
        |s| {
            s.before((0, S, 116), 0, C, 103, b"");
            s.after((0, C, 103), 0, S, 102, b"");
            s.ends_with(0, S, 102);
        },
        &[("C4", Client), ("S6.2", Source)],
    ),
    ("a cursor channel is to be flushed", "seamless", |s| *s.body(2, S, 1) = vec![1, 0, 0, 0], &[("S7", Source)]),
    (
        "an inputs channel is not",
        "seamless",
        |s| *s.body(3, S, 1) = vec![2, 0, 0, 0],
        &[("C6", Client), ("S7", Source)],
    ),
    ("MIGRATE_DATA twice", "seamless", |s| s.repeat(3, S, 2), &[("S8.1", Source)]),
    ("PING after MIGRATE", "seamless", |s| s.after((3, S, 1), 3, S, 4, &[0; 12]), &[("S8.1", Source)]),
    ("PING after MIGRATE_DATA", "seamless", |s| s.after((3, S, 2), 3, S, 4, &[0; 12]), &[("S8.1", Source)]),
    ("a message on a channel that has moved", "seamless", |s| s.after((2, S, 1), 2, S, 101, b""), &[("S8.1", Source)]),
    ("MIGRATE_DATA before FLUSH_MARK", "seamless", |s| drop(s.drop_message(3, C, 4)), &[("S8.2", Source)]),
    (
        "another destination without CANCEL",
        "cancel_seamless",
        |s| {
            let to = s.body(0, S, 116).clone();
            s.becomes(0, S, 102, 116, &to);
            for seen in s.iter_mut().rev().take(20) {
                seen.at += LATE;
            }
        },
        &[("S10.1", Source)],
    ),
    ("END twice", "semi", |s| s.repeat(0, S, 112), &[("Q1", Source)]),
    ("CANCEL after END", "semi", |s| s.after((0, S, 112), 0, S, 102, b""), &[("Q1", Source)]),
    (
        "BEGIN after END",
        "semi",
        |s| {
            let to = s.body(0, S, 101).clone();
            s.after((0, S, 112), 0, S, 101, &to);
        },
        &[("Q1", Source)],
    ),
    ("MIGRATE twice", "seamless", |s| s.repeat(2, S, 1), &[("Q1", Source)]),
    (
        "SWITCH_HOST after MIGRATE",
        "seamless",
        |s| {
            let to = s.body(0, S, 116).clone();
            s.after((0, S, 1), 0, S, 111, &to);
        },
        &[("Q1", Source)],
    ),
    ("ACK twice", "seamless", |s| s.repeat(4, S, 117), &[("Q2", Target)]),
    ("INIT twice", "semi", |s| s.repeat(4, S, 103), &[("Q2", Target)]),
    (
        "another channel's magic",
        "seamless",
        |s| {
            s.body(3, S, 2)[0] = b'X';
            s.body(5, C, 5)[0] = b'X';
        },
        &[("D1", Source)],
    ),
    (
        "a newer version of the data",
        "seamless",
        |s| {
            s.body(3, S, 2)[4] = 2;
            s.body(5, C, 5)[4] = 2;
        },
        &[("D2", Source)],
    ),
    (
        "data that are cut off",
        "seamless",
        |s| {
            s.body(3, S, 2).pop();
            s.body(5, C, 5).pop();
        },
        &[("D3", Source)],
    ),
    ("a held channel speaks", "semi", |s| s.before((4, C, 109), 5, S, 101, &[0, 0]), &[("T2.1", Target)]),
    (
        "INIT before MIGRATE_END",
        "semi",
        |s| {
            let (end, init) = (s.find(4, C, 109), s.find(4, S, 103));
            s.swap(end, init);
        },
        &[("T2.1", Target)],
    ),
    ("PING before MIGRATE_END", "semi", |s| s.before((4, C, 109), 4, S, 4, &[0; 12]), &[("T2.1", Target)]),
    ("another session's INIT", "semi", |s| s.body(4, S, 103)[0] ^= 1, &[("T2.2", Target)]),
    ("NOTIFY before INIT", "semi", |s| s.after((4, C, 109), 4, S, 7, &[0; 24]), &[("T2.2", Target)]),
    ("NAME after MIGRATE_END", "semi", |s| s.after((4, S, 103), 4, S, 113, &[1, 0, 0, 0, 0]), &[("T2.3", Target)]),
    ("CHANNELS_LIST unasked", "semi", |s| s.after((4, S, 103), 4, S, 104, &[0; 4]), &[("T2.3", Target)]),
    (
        "ACK to a newer version",
        "full_headers_nack",
        |s| {
            s.becomes(4, S, 118, 117, b"");
            s.ends_with(4, S, 117);
        },
        &[("T3.2", Target)],
    ),
    ("a message before the answer", "seamless", |s| s.before((4, S, 117), 4, S, 106, &[0; 4]), &[("T3.7", Target)]),
    (
        "ACK to a second question",
        "seamless",
        |s| {
            s.repeat(4, C, 110);
            s.repeat(4, S, 117);
        },
        &[("C3", Client), ("T3.3", Target)],
    ),
    (
        "INIT after ACK",
        "seamless",
        |s| {
            let init = s.body(0, S, 103).clone();
            s.after((4, S, 117), 4, S, 103, &init);
        },
        &[("T3.4", Target)],
    ),
    (
        "no MULTI_MEDIA_TIME",
        "seamless",
        |s| {
            s.drop_message(4, S, 106);
            s.late(4, S, 4, &[0; 12]);
        },
        &[("T3.5", Target)],
    ),
    ("CHANNELS_LIST while migrating", "seamless", |s| s.after((4, S, 117), 4, S, 104, &[0; 4]), &[("T5", Target)]),
    (
        "ATTACH_CHANNELS is answered while migrating",
        "semi",
        |s| {
            s.before((4, C, 109), 4, C, 104, b"");
            s.after((4, C, 104), 4, S, 104, &[0; 4]);
        },
        &[("C5", Client), ("T5", Target)],
    ),
    (
        "bad data are served",
        "seamless",
        |s| {
            s.retain(|seen| seen.connection != 3);
            s.body(5, C, 5)[0] = b'X';
            s.late(5, S, 102, &[0, 0]);
        },
        &[("T6", Target)],
    ),
    ("MIGRATE_END of a client that cannot", "semi", |s| s.client_capabilities(4, 0xe), &[("T7.2", Target)]),
    (
        "a further destination while the client is coming",
        "seamless",
        |s| {
            let to = s.body(0, S, 116).clone();
            s.after((4, S, 117), 4, S, 116, &to);
            s.ends_with(4, S, 116);
        },
        &[("T9", Target)],
    ),
    (
        "main linked as another session",
        "semi",
        |s| {
            s.link(4).connection_id ^= 1;
            let at = s.iter().position(|seen| seen.connection == 4).unwrap();
            s.truncate(at + 1);
        },
        &[("C2", Client)],
    ),
    (
        "a channel linked as another session",
        "semi",
        |s| {
            s.link(5).connection_id ^= 1;
            s.retain(|seen| seen.connection != 5 || matches!(seen.what, What::Opened { .. }));
        },
        &[("C2", Client)],
    ),
    (
        "a channel linked before main",
        "semi",
        |s| {
            let [main, inputs] = [4, 5].map(|number| s.iter().position(|seen| seen.connection == number).unwrap());
            s.swap(main, inputs);
        },
        &[("C2", Client)],
    ),
    ("another version than was given", "seamless", |s| s.body(4, C, 110)[0] = 0, &[("C3", Client)]),
    (
        "seamless is asked for after BEGIN",
        "semi",
        |s| {
            s.before((4, C, 109), 4, C, 110, &[1, 0, 0, 0]);
            s.after((4, C, 110), 4, S, 118, b"");
        },
        &[("C3", Client)],
    ),
    (
        "seamless is not asked for",
        "cancel_seamless",
        |s| {
            s.retain(|seen| seen.connection < 4 || matches!(seen.what, What::Opened { .. }));
            s.becomes(0, C, 111, 102, b"");
        },
        &[("C3", Client)],
    ),
    (
        "seamless is asked of a target that cannot",
        "seamless",
        |s| s.link(4).server[1] = vec![[7, 0, 0, 0]],
        &[("C3", Client)],
    ),
    (
        "seamless is asked for in an ordinary session",
        "semi",
        |s| s.after((0, S, 103), 0, C, 110, &[1, 0, 0, 0]),
        &[("C3", Client)],
    ),
    ("an answer without an announcement", "semi", |s| drop(s.drop_message(0, S, 101)), &[("C4", Client)]),
    ("two answers", "semi", |s| s.repeat(0, C, 102), &[("C4", Client)]),
    (
        "CONNECTED_SEAMLESS without ACK",
        "seamless",
        |s| {
            s.drop_message(4, S, 117);
            s.ends_with(0, C, 111);
        },
        &[("C4", Client)],
    ),
    ("CONNECTED after ACK", "cancel_seamless", |s| s.becomes(0, C, 111, 102, b""), &[("C4", Client)]),
    (
        "CONNECTED_SEAMLESS after BEGIN",
        "semi",
        |s| {
            s.becomes(0, C, 102, 111, b"");
            s.ends_with(0, C, 111);
        },
        &[("C4", Client)],
    ),
    ("ATTACH_CHANNELS on a pending channel", "semi", |s| s.before((4, C, 109), 4, C, 104, b""), &[("C5", Client)]),
    ("keys on a pending channel", "semi", |s| s.before((4, C, 109), 5, C, 103, &[0, 0]), &[("C5", Client)]),
    ("keys before the channel moves", "seamless", |s| s.before((3, S, 1), 5, C, 103, &[0, 0]), &[("C5", Client)]),
    ("the cursor channel before it moves", "seamless", |s| s.before((2, S, 1), 6, C, 101, b""), &[("C5", Client)]),
    ("FLUSH_MARK that was not asked for", "seamless", |s| s.after((2, S, 1), 2, C, 4, b""), &[("C6", Client)]),
    ("PONG after FLUSH_MARK", "seamless", |s| s.after((3, C, 4), 3, C, 3, &[0; 12]), &[("C6", Client)]),
    ("FLUSH_MARK twice", "seamless", |s| s.repeat(3, C, 4), &[("C6", Client)]),
    ("data that were changed", "seamless", |s| s.body(5, C, 5)[8] ^= 1, &[("C6", Client)]),
    ("data sent on twice", "seamless", |s| s.repeat(5, C, 5), &[("C6", Client)]),
    ("data that did not come first", "seamless", |s| s.before((5, C, 5), 5, C, 103, &[0, 0]), &[("C6", Client)]),
    (
        "data before they came",
        "seamless",
        |s| {
            let (came, sent) = (s.find(3, S, 2), s.find(5, C, 5));
            s.swap(came, sent);
        },
        &[("C6", Client)],
    ),
    ("data to the source", "seamless", |s| s.before((3, S, 1), 3, C, 5, b"ICMD"), &[("C6", Client)]),
    ("MIGRATE_END before the source's", "semi", |s| drop(s.drop_message(0, S, 112)), &[("C7", Client)]),
    ("MIGRATE_END twice", "semi", |s| s.repeat(4, C, 109), &[("C7", Client)]),
    ("ATTACH_CHANNELS before INIT", "semi", |s| s.after((4, C, 109), 4, C, 104, b""), &[("C7", Client)]),
    ("MIGRATE_END in an ordinary session", "semi", |s| s.after((0, S, 103), 0, C, 109, b""), &[("C7", Client)]),
    ("the source is used after MIGRATE_END", "semi", |s| s.late(0, C, 3, &[0; 12]), &[("C7", Client)]),
    ("the target is used after CANCEL", "cancel_seamless", |s| s.late(4, C, 3, &[0; 12]), &[("C9", Client)]),
    (
        "the old session after SWITCH_HOST",
        "switch_unreach_semi",
        |s| {
            s.link(5).connection_id = s.link(1).connection_id;
            let at = s.iter().position(|seen| seen.connection == 5).unwrap();
            s.truncate(at + 1);
        },
        &[("C10", Client)],
    ),
    (
        "BEGIN_SEAMLESS to a client with neither",
        "seamless",
        |s| {
            s.client_capabilities(0, 0x6);
            s.ends_with(0, S, 116);
        },
        &[("S1.3", Source)],
    ),
    (
        "SWITCH_HOST when the answer has been read",
        "cancel_seamless",
        |s| {
            let to = s.body(0, S, 116).clone();
            s.becomes(0, S, 102, 111, &to);
            s.at_rest_before(0, S, 111);
        },
        &[("S4.1", Source)],
    ),
    (
        "another destination when the answer has been read",
        "semi",
        |s| {
            let to = s.body(0, S, 101).clone();
            s.becomes(0, S, 112, 101, &to);
            let again = s.len()
                - s.iter()
                    .rev()
                    .position(
                        |seen| matches!(seen.what, What::Message { id: 101, from: S, .. } if seen.connection == 0),
                    )
                    .unwrap()
                - 1;
            s.truncate(again + 1);
            s.insert(again, Seen { what: What::AtRest, ..s[again].clone() });
        },
        &[("S10.1", Source)],
    ),
    (
        "MIGRATE after END",
        "semi",
        |s| {
            s.late(3, S, 1, &[3, 0, 0, 0]);
            s.last_mut().unwrap().at -= LATE;
        },
        &[("Q1", Source)],
    ),
    (
        "MIGRATE_DATA without MIGRATE",
        "seamless",
        |s| {
            s.drop_message(3, S, 1);
            s.drop_message(3, C, 4);
        },
        &[("S8.1", Source)],
    ),
    ("MIGRATE_DATA on a channel without", "seamless", |s| s.after((2, S, 1), 2, S, 2, b""), &[("S8.1", Source)]),
    (
        "an announcement before INIT",
        "semi",
        |s| {
            let to = s.body(0, S, 101).clone();
            s.before((4, C, 109), 4, S, 101, &to);
            s.ends_with(4, S, 101);
        },
        &[("T9", Target)],
    ),
    (
        "keys before the data, where the source is not seen",
        "seamless",
        |s| {
            s.retain(|seen| seen.connection != 3);
            s.before((5, C, 5), 5, C, 103, &[0, 0]);
        },
        &[("C5", Client)],
    ),
    ("data before ACK", "semi", |s| s.before((4, C, 109), 5, C, 5, b"ICMD\x01\0\0\0\0\0"), &[("C6", Client)]),
    (
        "the source is used when MIGRATE_END has been read",
        "full_headers_nack",
        |s| s.at_rest_before(4, S, 103),
        &[("C7", Client)],
    ),
    ("the source is used after SWITCH_HOST", "switch_unreach_semi", |s| s.late(3, C, 3, &[0; 12]), &[("C10", Client)]),
];

#[test]
fn each_rule_speaks_when_it_is_broken_and_no_other_does() {
    let mut wrong = Vec::new();
    for (name, file, change, expected) in CASES {
        let mut script = script(file);
        change(&mut script);
        let findings = judge(&script).0;
        let known = known(&format!("{file}.pcap.gz"));
        let found: BTreeSet<_> = findings
            .iter()
            .filter(|finding| !known.contains(&finding.requirement))
            .map(|finding| (finding.requirement, finding.by))
            .collect();
        if found != expected.iter().copied().collect() {
            wrong.push(format!("{name} ({file}): {:#?}", texts(&findings)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// As far as one can tell from the text of the rules.
#[test]
fn each_requirement_that_is_judged_has_a_case() {
    let cases: BTreeSet<_> = CASES.iter().flat_map(|(.., expected)| *expected).map(|(id, _)| *id).collect();
    let rules = ["client", "mod", "server"].map(|name| {
        let file = format!("{}/src/migrate/observer/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(file).unwrap()
    });
    let code = rules.iter().flat_map(|rules| rules.lines()).filter(|line| !line.trim_start().starts_with("//"));
    let literals: BTreeSet<_> = code.flat_map(|line| line.split('"').skip(1).step_by(2)).collect();
    let judged: BTreeSet<_> = literals.into_iter().filter(|literal| registry().contains(*literal)).collect();
    assert_eq!(judged, cases);
}

/// What is allowed although it surprises, or cannot be judged.
const ALLOWED: &[(&str, &str, Edit)] = &[
    ("SWITCH_HOST that crosses the answer", "cancel_seamless", |s| {
        let to = s.body(0, S, 116).clone();
        s.becomes(0, S, 102, 111, &to);
    }),
    ("another destination that crosses the answer", "cancel_seamless", |s| {
        let to = s.body(0, S, 116).clone();
        s.before((0, C, 111), 0, S, 116, &to);
        s.repeat(0, C, 111);
    }),
    ("an announcement after CANCEL", "cancel_seamless", |s| {
        let to = s.body(0, S, 116).clone();
        s.after((0, S, 102), 0, S, 116, &to);
    }),
    ("END after CANCEL, for there were two answers", "semi", |s| {
        let to = s.body(0, S, 101).clone();
        s.after((0, S, 101), 0, S, 101, &to);
        s.after((0, C, 102), 0, S, 102, b"");
        s.after((0, S, 102), 0, C, 102, b"");
    }),
    ("MIGRATE after an answer to an earlier announcement", "seamless", |s| {
        let to = s.body(0, S, 116).clone();
        s.before((0, C, 111), 0, S, 116, &to);
        s.after((0, C, 111), 0, C, 103, b"");
    }),
    ("base messages on a pending channel", "semi", |s| {
        for (number, id) in [(4, 3), (5, 3), (6, 1), (7, 2)] {
            s.before((4, C, 109), number, C, id, &[0; 12]);
        }
    }),
    ("PONG between MIGRATE_END and INIT", "semi", |s| s.after((4, C, 109), 4, C, 3, &[0; 12])),
    ("messages that cross MIGRATE on a channel without data", "seamless", |s| s.after((2, S, 1), 2, C, 3, &[0; 12])),
    ("messages that cross CANCEL", "cancel_seamless", |s| s.after((0, S, 102), 4, C, 3, &[0; 12])),
    ("a streaming device's display", "seamless", |s| {
        *s.body(1, S, 1) = vec![0; 4];
        s.drop_message(1, C, 4);
        s.drop_message(1, S, 2);
        s.drop_message(7, C, 5);
    }),
    ("a channel that is linked after the session has moved", "seamless", |s| {
        let channel = ChannelId { channel_type: ChannelType::USBREDIR, id: 0 };
        let link = Some(s.link(5).clone());
        let opened = What::Opened { server: 1, client: Some(0), channel, link };
        let at = s.find(4, S, 106);
        s.insert(at, Seen { at: s[at].at, connection: 20, what: opened });
        s.after((4, S, 106), 20, C, 101, b"");
    }),
    ("no MULTI_MEDIA_TIME where playback is", "seamless.full", |s| {
        s.drop_message(8, S, 106);
        s.late(8, S, 4, &[0; 12]);
    }),
    ("an answer that this crate does not read, but a server does", "semi", |s| s.body(0, C, 102).push(0)),
    ("messages in a LIST", "seamless", |s| s.becomes(0, S, 103, 8, &[0; 2])),
    ("NACK of the version that was asked for", "cancel_seamless", |s| {
        s.becomes(4, S, 117, 118, b"");
        s.becomes(0, C, 111, 102, b"");
        s.retain(|seen| ![5, 6, 7].contains(&seen.connection));
        s.ends_with(0, C, 102);
    }),
    ("PING from a target that has declined", "cancel_seamless", |s| {
        s.becomes(4, S, 117, 118, b"");
        s.becomes(0, C, 111, 102, b"");
        s.retain(|seen| ![5, 6, 7].contains(&seen.connection));
        s.ends_with(0, C, 102);
        s.after((4, S, 118), 4, S, 4, &[0; 12]);
    }),
    ("the client closes main when the guest has moved", "semi", |s| {
        s.host((0, S, 112), HostEvent::Completed);
        s.ends_with(0, S, 112);
        s.last_mut().unwrap().what = What::Closed(Some(C));
    }),
    ("main is closed by one knows not whom", "semi", |s| {
        s.host((0, S, 112), HostEvent::Completed);
        s.ends_with(0, S, 112);
        s.last_mut().unwrap().what = What::Closed(None);
    }),
    ("the source closes another channel when the guest has moved", "semi", |s| {
        s.host((0, S, 112), HostEvent::Completed);
        s.ends_with(0, S, 112);
        *s.last_mut().unwrap() = Seen { connection: 1, what: What::Closed(Some(S)), ..s.last().unwrap().clone() };
    }),
    ("the source closes main, of which not all was seen", "semi", |s| {
        s.host((0, S, 112), HostEvent::Completed);
        s.ends_with(0, S, 112);
        s.last_mut().unwrap().what = What::Closed(Some(S));
        s.retain(|seen| seen.connection != 0 || !matches!(seen.what, What::Opened { .. }));
    }),
    ("the source closes main, and of the guest nothing is known", "semi", |s| {
        s.ends_with(0, S, 112);
        s.last_mut().unwrap().what = What::Closed(Some(S));
    }),
    ("the source closes main behind MIGRATE_END", "semi", |s| {
        s.host((0, S, 112), HostEvent::Completed);
        s.ends_with(0, S, 112);
        let closed = Seen { what: What::Closed(Some(S)), ..s.last().unwrap().clone() };
        s.push(closed);
    }),
    ("the target closes main, which has no other place to send the client to", "semi", |s| {
        let at = s.find(0, S, 112);
        s.insert(at, Seen { at: s[at].at, connection: 0, what: What::Host(1, HostEvent::Completed) });
        s.ends_with(0, S, 112);
        let closed = Seen { connection: 4, what: What::Closed(Some(S)), ..s.last().unwrap().clone() };
        s.push(closed);
    }),
    ("a migration of which the host knows the end", "semi", |s| {
        s.host((0, S, 101), HostEvent::Announces { seamless: false });
        s.host((0, S, 112), HostEvent::Completed);
    }),
    ("a cancellation of which the host knows", "cancel_seamless", |s| {
        s.host((0, S, 116), HostEvent::Announces { seamless: true });
        s.host((0, S, 102), HostEvent::Cancelled);
    }),
];

#[test]
fn what_is_allowed_is_not_accused() {
    for (name, file, change) in ALLOWED {
        let mut script = script(file);
        change(&mut script);
        let findings = judge(&script).0;
        assert!(findings.is_empty(), "{name} ({file}): {:#?}", texts(&findings));
    }
}

#[test]
fn a_finding_says_who_violated_what_and_where() {
    let told = |file, change: Edit| {
        let mut script = script(file);
        change(&mut script);
        texts(&judge(&script).0)
    };
    let at = |seen: &Seen| format!("{:?}", seen.at);
    let semi = script("semi");
    let end = at(&semi[semi.find(4, C, 109)]);
    assert_eq!(
        told("semi", |s| s.repeat(4, C, 109)),
        [format!(
            "C7 violated by the client on main:0 (connection 4, message 2 of the client, at {end}): expected MIGRATE_END once, \
             came it again"
        )]
    );
    let init = at(&semi[semi.find(4, S, 103)]);
    assert_eq!(
        told("semi", |s| s.repeat(4, S, 103)),
        [format!(
            "Q2 violated by the target on main:0 (connection 4, message 2 of the server, at {init}): expected one INIT, came \
             another one"
        )]
    );
}

/// What becomes of the record of migrations where a server does what it must not, or announces more than once.
#[test]
fn the_migrations_are_told_apart_and_each_has_its_end() {
    let told = |file, change: Edit| -> Vec<_> {
        let mut script = script(file);
        change(&mut script);
        judge(&script).1.iter().map(ToString::to_string).collect()
    };
    let replaced = told("cancel_seamless", |s| {
        let to = s.body(0, S, 116).clone();
        s.before((0, C, 111), 0, S, 116, &to);
        s.ends_with(0, C, 111);
    });
    assert_eq!(
        replaced,
        ["migration from server 0 to server 1: cancelled", "migration from server 0: underway"],
        "the second announcement takes the first one's place"
    );
    let cancelled_late = told("semi", |s| s.after((0, S, 112), 0, S, 102, b""));
    assert_eq!(cancelled_late, ["semi-seamless migration from server 0 to server 1: completed"], "it was too late");
}

/// All captures at once: as many clients, whose servers are different ones or the same.
#[test]
fn clients_are_told_apart() {
    for shared in [false, true] {
        let mut script = Vec::new();
        for (capture, index) in spice_migration_corpus::captures().iter().zip(0..) {
            let mut part = script_of(capture);
            for seen in &mut part {
                seen.connection += 100 * index;
                if let What::Opened { server, client, .. } = &mut seen.what {
                    *client = None;
                    *server += if shared { 0 } else { 10 * index };
                }
            }
            script.extend(part);
        }
        script.sort_by_key(|seen| seen.at);
        let (findings, migrations) = judge(&script);
        let requirements: Vec<_> = findings.iter().map(|finding| finding.requirement).collect();
        assert_eq!(requirements, ["C3"], "{:#?}", texts(&findings));
        assert_eq!(migrations.len(), 9);
        assert!(migrations.iter().all(|migration| migration.outcome != Outcome::Underway));
    }
}

/// A guest that moves to and fro, with its client.
#[test]
fn connections_that_have_ended_are_forgotten() {
    let part = script("twice_seamless");
    let mut observer = Observer::new();
    let mut kept = 0;
    for round in 0..20 {
        for mut seen in part.iter().cloned() {
            seen.connection += 100 * round;
            seen.at += Duration::from_secs(10 * u64::from(round));
            assert_eq!(seen.show(&mut observer), []);
            kept = kept.max(format!("{observer:?}").matches("Connection {").count());
        }
    }
    assert_eq!(observer.migrations().len(), 40);
    assert!(kept <= 12, "four channels at three places, not {kept}");
    assert_eq!(format!("{observer:?}").matches("Connection {").count(), 0);
}

fn any_seen() -> impl Strategy<Value = Seen> {
    let words = || prop_oneof![Just([0; 4]), Just([0xf, 0, 0, 0]), any::<[u8; 4]>()].prop_map(|word| vec![word]);
    let result = select(&[LinkError::OK, LinkError::OK, LinkError::OK, LinkError::PERMISSION_DENIED][..]);
    let link = (0..3_u32, words(), words(), words(), words(), result).prop_map(
        |(connection_id, client_common, client, server_common, server, result)| OwnedLink {
            connection_id,
            client: [client_common, client],
            server: [server_common, server],
            result,
        },
    );
    let types = select(&[ChannelType::MAIN, ChannelType::INPUTS, ChannelType::CURSOR, ChannelType(99)][..]);
    let channel = (types, 0..2_u8).prop_map(|(channel_type, id)| ChannelId { channel_type, id });
    let opened = (0..3_u32, prop::option::of(0..2_u32), channel, prop::option::weighted(0.8, link))
        .prop_map(|(server, client, channel, link)| What::Opened { server, client, channel, link });
    let side = || select(&[C, S][..]);
    let ids = prop_oneof![1..9_u16, 101..119_u16, any::<u16>()];
    let bodies = prop_oneof![
        Just(Vec::new()),
        Just(vec![3, 0, 0, 0]),
        Just(b"ICMD\x01\0\0\0\0\0".to_vec()),
        Just([&[0; 8][..], &[10, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], b"127.0.0.1\0"].concat()),
        prop::collection::vec(any::<u8>(), 0..48),
    ];
    let message = (side(), prop::option::of(any::<u64>()), ids, bodies)
        .prop_map(|(from, serial, id, body)| What::Message { from, serial, id, body });
    let host = (0..3_u32, any::<bool>(), 0..4_usize).prop_map(|(server, seamless, event)| {
        let ends = [HostEvent::Completed, HostEvent::Failed, HostEvent::Cancelled];
        What::Host(server, *ends.get(event).unwrap_or(&HostEvent::Announces { seamless }))
    });
    let what = prop_oneof![3 => opened, 20 => message, 1 => prop::option::of(side()).prop_map(What::Closed), 1 => host, 1 => Just(What::AtRest)];
    let times = prop_oneof![9 => (0..20_u64).prop_map(Duration::from_secs), 1 => Just(Duration::MAX)];
    (times, 0..5_u32, what).prop_map(|(at, connection, what)| Seen { at, connection, what })
}

proptest! {
    #[test]
    fn no_sequence_of_events_panics_and_every_finding_is_explained(
        script in prop::collection::vec(any_seen(), 0..120)
    ) {
        let (findings, migrations) = judge(&script);
        prop_assert_eq!(&judge(&script), &(findings.clone(), migrations.clone()));
        for finding in findings {
            prop_assert!(!finding.expected.is_empty() && !finding.came.is_empty());
            prop_assert!(registry().contains(finding.requirement), "{}", finding);
        }
        prop_assert!(migrations.iter().all(|migration| migration.source.is_some() || migration.target.is_some()));
    }
}

/// The ids of the conformance suite's registry.
fn registry() -> &'static BTreeSet<String> {
    static IDS: std::sync::OnceLock<BTreeSet<String>> = std::sync::OnceLock::new();
    IDS.get_or_init(|| {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../conformance/requirements.toml");
        let lines = std::fs::read_to_string(file).unwrap();
        lines.lines().filter_map(|line| line.strip_prefix("id = \"")?.strip_suffix('"')).map(str::to_owned).collect()
    })
}
