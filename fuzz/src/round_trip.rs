//! Values of every type, to bytes and back, and what small changes to those bytes do.

use arbitrary::Unstructured;
use spice_migration::{
    ChannelType, ClientMessage, EncodeError, Fault, List, ServerMessage, Text,
    caps::CapabilityWords,
    frame::{self, Deframer, Frame, Header, HeaderKind},
    limits::{MAX_LINK_BODY, MAX_SUB_MESSAGES, MAX_TEXT},
    link::{Capabilities, LINK_MESSAGE_LEN, LinkMessage, LinkReply},
    major1,
    message::{Message, server::WaitForChannels},
    state::State,
    sub_message::{SubMessage, SubMessages, encode_list},
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
/// - What is as long as a limit allows is refused, or what is longer is not.
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
        6 => {
            let channel = ChannelType(choices.int_in_range(0..=12)?);
            let state = State::arbitrary_of(channel, choices)?;
            check_value(&MigrationData { channel }, &state, choices)
        }
        _ => check_limits(choices),
    }
}

/// The limits that a short input would not reach.
fn check_limits(choices: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let above_limit = choices.int_in_range(-2..=2)?;
    let about = |limit: usize| limit.checked_add_signed(above_limit).unwrap();
    let too_long = above_limit > 0;
    match choices.int_in_range(0..=3)? {
        0 => {
            let text = vec![choices.int_in_range(1..=u8::MAX)?; about(MAX_TEXT)];
            assert_eq!(Text::new(&text).map(Text::as_bytes), (!too_long).then_some(&text[..]));
            let size = u32::try_from(text.len() + 1).unwrap();
            // Ports, the host's size and offset, no subject; the host.
            let body = [&[1, 2, 3, 4][..], &size.to_le_bytes(), &[20, 0, 0, 0], &[0; 8], &text, &[0]].concat();
            check(&Server { dialect: Dialect::Major2, channel: ChannelType::MAIN, id: 101 }, &body);
        }
        1 => {
            let waits = vec![choices.arbitrary()?; about(255)];
            let message = ServerMessage::WaitForChannels(WaitForChannels { wait_list: List::new(&waits) });
            let codec = Server { dialect: Dialect::Major2, channel: ChannelType::MAIN, id: 5 };
            if too_long {
                assert_eq!(message.encode(&mut [0; 4096]), Err(EncodeError::TooLong));
            } else {
                let body = encoded(&codec, &major1::ServerMessage::Same(message));
                check(&codec, &body);
                assert_eq!(ServerMessage::decode(ChannelType::MAIN, 5, &body), Ok(message));
            }
        }
        2 => {
            let words = vec![choices.arbitrary()?; about((MAX_LINK_BODY as usize - LINK_MESSAGE_LEN) / 4)];
            let (common, channel) = words.split_at(choices.int_in_range(0..=words.len())?);
            let capabilities =
                Capabilities { common: CapabilityWords::new(common), channel: CapabilityWords::new(channel) };
            let message =
                LinkMessage { connection_id: 0, channel_type: ChannelType::MAIN, channel_id: 0, capabilities };
            let mut out = vec![0; message.encoded_len()];
            let expected = if too_long { Err(EncodeError::TooLong) } else { Ok(out.len()) };
            assert_eq!(message.encode(&mut out), expected);
            if !too_long {
                check(&link::Message, &out);
            }
        }
        _ => {
            let sub_message = SubMessage { id: choices.arbitrary()?, body: choices.bytes(choices.len().min(4))? };
            let sub_messages = vec![sub_message; about(MAX_SUB_MESSAGES)];
            let mut out = vec![0; 2 + 14 * sub_messages.len()];
            let encoded = encode_list(&sub_messages, &mut out);
            assert_eq!(encoded.is_err(), too_long, "{encoded:?}");
            if too_long {
                let encoded = encode_list(&sub_messages[..MAX_SUB_MESSAGES], &mut out).unwrap();
                assert!(SubMessages::decode(&out[..encoded], 0).is_ok());
                // One more is announced, and would be there.
                out[0] += 1;
                let refused = SubMessages::decode(&out, 0).unwrap_err();
                assert_eq!((refused.field, refused.fault), ("size", Fault::LimitExceeded));
            }
        }
    }
    Ok(())
}

fn check_value<C: Codec>(codec: &C, value: &C::Value<'_>, choices: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let mut body = encoded(codec, value);
    assert!(codec.decode(&body).is_ok_and(|decoded| codec.are_equal(&decoded, value)), "{}", codec.describe(value));
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
        let refused = EncodeError::BufferTooSmall { needed };
        assert_eq!(short, Err(refused));
        assert!(refused.to_string().contains(&needed.to_string()));
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
