//! Values of every type, to bytes and back, and what small changes to those bytes do.

use arbitrary::Unstructured;
use spice_migration::{
    ChannelType, ClientMessage, Fault, ServerMessage,
    frame::{self, Deframer, Frame, Header, HeaderKind},
    link::{LinkMessage, LinkReply},
    major1,
    message::Message,
    state::State,
};

use crate::codec::{Codec, check, encoded};
use crate::link;
use crate::messages::{Client, Dialect, Server};
use crate::mutation::mutate;
use crate::state::MigrationData;

/// A value that the input chooses, of any message in either major, of migration data, or of the link stage.
///
/// # Panics
/// - A valid value is not encoded, or its bytes decode to another one.
/// - With either kind of header before it, the frame is not found again with its id, serial and size.
/// - Its bytes, with up to three small changes, break a rule of `codec::check`.
pub fn round_trip(input: &[u8]) {
    let [choice, choices @ ..] = input else { return };
    // Too few bytes to choose from: nothing to check.
    of_choice(choice % 8, &mut Unstructured::new(choices)).unwrap_or_default();
}

fn of_choice(choice: u8, choices: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let channel = ChannelType::MAIN;
    match choice {
        0 => {
            let message: ServerMessage<'_> = choices.arbitrary()?;
            let codec = Server { dialect: Dialect::Major2, channel, id: message.id() };
            check_frame(&message);
            check_value(&codec, &major1::ServerMessage::Same(message), choices)
        }
        1 => {
            let message: ClientMessage<'_> = choices.arbitrary()?;
            let codec = Client { dialect: Dialect::Major2, channel, id: message.id() };
            check_frame(&message);
            check_value(&codec, &major1::ClientMessage::Same(message), choices)
        }
        2 => {
            let minor = choices.int_in_range(0..=1)?;
            let message = match (choices.int_in_range(0..=2)?, minor) {
                (0, 0) => major1::ServerMessage::MigrateBegin(choices.arbitrary()?),
                (0, _) => major1::ServerMessage::MigrateBeginWithKey(choices.arbitrary()?),
                (1, _) => major1::ServerMessage::MigrateSwitchHost(choices.arbitrary()?),
                _ => major1::ServerMessage::MouseMode(choices.arbitrary()?),
            };
            check_frame(&message);
            check_value(&Server { dialect: Dialect::Major1(minor), channel, id: message.id() }, &message, choices)
        }
        3 => {
            let message = major1::ClientMessage::MouseModeRequest(choices.arbitrary()?);
            check_frame(&message);
            check_value(&Client { dialect: Dialect::Major1(0), channel, id: message.id() }, &message, choices)
        }
        4 => {
            let message: LinkMessage<'_> = choices.arbitrary()?;
            check_value(&link::Message, &message, choices)
        }
        5 => {
            let reply: LinkReply<'_> = choices.arbitrary()?;
            check_value(&link::Reply, &reply, choices)
        }
        _ => {
            let channel = ChannelType(choices.int_in_range(0..=12)?);
            let state = State::arbitrary_of(channel, choices)?;
            check_value(&MigrationData { channel }, &state, choices)
        }
    }
}

fn check_value<C: Codec>(codec: &C, value: &C::Value<'_>, choices: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let mut body = encoded(codec, value);
    match codec.decode(&body) {
        Ok(decoded) => assert!(codec.are_equal(&decoded, value), "{}", codec.describe(value)),
        Err(error) => {
            let fields_disagree = error.fault == Fault::Unexpected && !codec.fields_agree(&body);
            assert!(fields_disagree, "{error}: {}", codec.describe(value));
        }
    }
    check(codec, &body);
    mutate(&mut body, choices)?;
    check(codec, &body);
    Ok(())
}

fn check_frame(message: &impl Message) {
    let size = message.encoded_len();
    for kind in [HeaderKind::Mini, HeaderKind::Full] {
        let mut out = vec![0xaa; kind.len() + size];
        let needed = out.len();
        let short = frame::encode(kind, 7, message, &mut out[1..]);
        assert_eq!(short, Err(spice_migration::EncodeError::BufferTooSmall { needed }));
        assert_eq!(frame::encode(kind, 7, message, &mut out), Ok(needed));
        let mut deframer = Deframer::new(kind).with_serial(7);
        deframer.push(&out);
        let header = Header { serial: 7, id: message.id(), size: u32::try_from(size).unwrap(), sub_list: 0 };
        let mut body = vec![0; size];
        assert_eq!(message.encode(&mut body), Ok(size));
        assert_eq!(deframer.next_frame(), Ok(Some(Frame { header, body: &body })));
        assert_eq!(deframer.pending(), 0);
    }
}
