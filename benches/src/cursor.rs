//! The limit: what safe Rust does when each message is written by hand.
//!
//! The verdicts are those of `spice-migration`, but nothing says where a fault lies. What needs many registers or a call is
//! done in a function of its own, and there is one call to it, so that the other messages save no registers.

use spice_migration::{Fault, ServerMessage, limits};

use crate::cases::Case;
use crate::measured::{Cut, Decode, Encode};
use crate::message::{Destination, Init, Message, Notify};

/// All of it.
pub struct Cursor;

impl Decode for Cursor {
    type Decoded<'a> = Result<Message<'a>, Fault>;

    fn decode(id: u16, body: &[u8]) -> Self::Decoded<'_> {
        decode(id, body)
    }

    fn is(decoded: &Self::Decoded<'_>, expected: &ServerMessage<'_>) -> bool {
        decoded.is_ok_and(|message| message.to_server_message().as_ref() == Some(expected))
    }
}

impl Encode for Cursor {
    type Message<'a> = Message<'a>;

    fn with<R>(case: &Case, action: impl FnOnce(&mut Message<'_>) -> R) -> R {
        action(&mut decode(case.message.id(), &case.body()).expect("the cases are valid"))
    }

    fn encode(message: &mut Message<'_>, out: &mut [u8]) -> Option<usize> {
        encode(message, out)
    }
}

impl Cut for Cursor {
    fn cut(&mut self, stream: &[u8], mut consume: impl FnMut(u16, &[u8])) {
        let mut rest = stream;
        while let Some((&[a, b, c, d, e, f], behind)) = rest.split_first_chunk() {
            let size = u32::from_le_bytes([c, d, e, f]);
            if size > limits::MAX_BODY {
                return;
            }
            let Some((body, behind)) = behind.split_at_checked(size as usize) else { return };
            consume(u16::from_le_bytes([a, b]), body);
            rest = behind;
        }
    }
}

/// Decodes a message of the main channel.
///
/// # Errors
/// As `spice-migration`.
#[inline(always)]
pub fn decode(id: u16, body: &[u8]) -> Result<Message<'_>, Fault> {
    'apart: {
        return match id {
            1 => {
                let Ok(flags) = body.try_into() else { break 'apart };
                Ok(Message::Migrate { flags: u32::from_le_bytes(flags) })
            }
            2 => Ok(Message::MigrateData { data: body }),
            3 => {
                let Ok(fixed) = <&[u8; 8]>::try_from(body) else { break 'apart };
                Ok(Message::SetAck { generation: u32_at::<0>(fixed), window: u32_at::<4>(fixed) })
            }
            4 => {
                let Some((fixed, data)) = body.split_first_chunk::<12>() else { break 'apart };
                Ok(Message::Ping { id: u32_at::<0>(fixed), timestamp: u64_at::<4>(fixed), data })
            }
            5 => {
                let Some((&count, items)) = body.split_first() else { break 'apart };
                if items.len() != usize::from(count) * 10 {
                    break 'apart;
                }
                Ok(Message::WaitForChannels { wait_list: items.as_chunks().0 })
            }
            6 => {
                let Ok(fixed) = <&[u8; 12]>::try_from(body) else { break 'apart };
                Ok(Message::Disconnecting { time_stamp: u64_at::<0>(fixed), reason: u32_at::<8>(fixed) })
            }
            8 => Ok(Message::SubMessageList { list: body }),
            102 if body.is_empty() => Ok(Message::MigrateCancel),
            103 => {
                let Ok(fixed) = <&[u8; 32]>::try_from(body) else { break 'apart };
                Ok(Message::Init(Init {
                    session_id: u32_at::<0>(fixed),
                    display_channels_hint: u32_at::<4>(fixed),
                    supported_mouse_modes: u32_at::<8>(fixed),
                    current_mouse_mode: u32_at::<12>(fixed),
                    agent_connected: u32_at::<16>(fixed),
                    agent_tokens: u32_at::<20>(fixed),
                    multi_media_time: u32_at::<24>(fixed),
                    ram_hint: u32_at::<28>(fixed),
                }))
            }
            104 => {
                let Some((count, items)) = body.split_first_chunk() else { break 'apart };
                if items.len() as u64 != u64::from(u32::from_le_bytes(*count)) * 2 {
                    break 'apart;
                }
                Ok(Message::ChannelsList { channels: items.as_chunks().0 })
            }
            105 => {
                let Ok([a, b, c, d]) = <[u8; 4]>::try_from(body) else { break 'apart };
                let (supported_modes, current_mode) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
                Ok(Message::MouseMode { supported_modes, current_mode })
            }
            106 => {
                let Ok(time) = body.try_into() else { break 'apart };
                Ok(Message::MultiMediaTime { time: u32::from_le_bytes(time) })
            }
            107 if body.is_empty() => Ok(Message::AgentConnected),
            108 => {
                let Ok(error_code) = body.try_into() else { break 'apart };
                Ok(Message::AgentDisconnected { error_code: u32::from_le_bytes(error_code) })
            }
            109 => Ok(Message::AgentData { data: body }),
            110 => {
                let Ok(num_tokens) = body.try_into() else { break 'apart };
                Ok(Message::AgentToken { num_tokens: u32::from_le_bytes(num_tokens) })
            }
            112 if body.is_empty() => Ok(Message::MigrateEnd),
            113 => {
                let Some((length, name)) = body.split_first_chunk() else { break 'apart };
                if name.len() as u64 != u64::from(u32::from_le_bytes(*length)) {
                    break 'apart;
                }
                Ok(Message::Name { name })
            }
            114 => {
                let Ok(uuid) = body.try_into() else { break 'apart };
                Ok(Message::Uuid { uuid })
            }
            115 => {
                let Ok(num_tokens) = body.try_into() else { break 'apart };
                Ok(Message::AgentConnectedTokens { num_tokens: u32::from_le_bytes(num_tokens) })
            }
            117 if body.is_empty() => Ok(Message::MigrateDstSeamlessAck),
            118 if body.is_empty() => Ok(Message::MigrateDstSeamlessNack),
            7 | 101 | 102 | 107 | 111 | 112 | 116..=118 => break 'apart,
            _ => Ok(Message::Unknown { id, body }),
        };
    }
    decode_apart(id, body)
}

#[inline(never)]
fn decode_apart(id: u16, body: &[u8]) -> Result<Message<'_>, Fault> {
    'refused: {
        return match id {
            7 => {
                let Some((fixed, rest)) = body.split_first_chunk::<24>() else { break 'refused };
                let (message, terminated) = match rest.split_at_checked(u32_at::<20>(fixed) as usize) {
                    Some((message, [])) => (message, false),
                    Some((message, [0])) => (message, true),
                    _ => break 'refused,
                };
                Ok(Message::Notify(Notify {
                    time_stamp: u64_at::<0>(fixed),
                    severity: u32_at::<8>(fixed),
                    visibility: u32_at::<12>(fixed),
                    what: u32_at::<16>(fixed),
                    message,
                    terminated,
                }))
            }
            101 => {
                let Some(fixed) = body.first_chunk() else { break 'refused };
                let Some(destination) = destination(body, fixed, 20) else { break 'refused };
                Ok(Message::MigrateBegin { destination })
            }
            111 => {
                let Some(fixed) = body.first_chunk() else { break 'refused };
                let Some(destination) = destination(body, fixed, 20) else { break 'refused };
                Ok(Message::MigrateSwitchHost { destination })
            }
            116 => {
                let Some([fixed @ .., a, b, c, d]) = body.first_chunk::<24>() else { break 'refused };
                let Some(destination) = destination(body, fixed, 24) else { break 'refused };
                let src_mig_version = u32::from_le_bytes([*a, *b, *c, *d]);
                Ok(Message::MigrateBeginSeamless { destination, src_mig_version })
            }
            _ => break 'refused,
        };
    }
    Err(fault(id, body))
}

#[inline(always)]
fn u32_at<const AT: usize>(fixed: &[u8]) -> u32 {
    u32::from_le_bytes([fixed[AT], fixed[AT + 1], fixed[AT + 2], fixed[AT + 3]])
}

#[inline(always)]
fn u64_at<const AT: usize>(fixed: &[u8]) -> u64 {
    let [a, b, c, d] = u32_at::<AT>(fixed).to_le_bytes();
    u64::from_le_bytes([a, b, c, d, fixed[AT + 4], fixed[AT + 5], fixed[AT + 6], fixed[AT + 7]])
}

#[inline(always)]
fn destination<'a>(body: &'a [u8], fixed: &[u8; 20], fixed_length: usize) -> Option<Destination<'a>> {
    let host = text(body, u32_at::<4>(fixed), u32_at::<8>(fixed), fixed_length)?;
    let (size, offset) = (u32_at::<12>(fixed), u32_at::<16>(fixed));
    let cert_subject = if size | offset == 0 { None } else { Some(text(body, size, offset, fixed_length)?) };
    Some(Destination {
        port: u16::from_le_bytes([fixed[0], fixed[1]]),
        tls_port: u16::from_le_bytes([fixed[2], fixed[3]]),
        host,
        cert_subject,
    })
}

/// The string of `size` bytes at `offset`, which end in its only NUL.
#[inline(always)]
fn text(body: &[u8], size: u32, offset: u32, fixed_length: usize) -> Option<&[u8]> {
    let (size, offset) = (size as usize, offset as usize);
    if offset < fixed_length || size > limits::MAX_TEXT + 1 {
        return None;
    }
    match body.get(offset..offset + size)?.split_last() {
        Some((0, string)) if !has_nul(string) => Some(string),
        _ => None,
    }
}

/// In steps of 32 bytes; the last step overlaps the one before.
#[inline(always)]
fn has_nul(bytes: &[u8]) -> bool {
    if let Some(last) = bytes.last_chunk::<32>() {
        for chunk in bytes.as_chunks::<32>().0 {
            if among(chunk) {
                return true;
            }
        }
        among(last)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<16>(), bytes.last_chunk::<16>()) {
        among(first) | among(last)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        among(first) | among(last)
    } else {
        for byte in bytes {
            if *byte == 0 {
                return true;
            }
        }
        false
    }
}

/// Without a branch, so that the compiler compares all bytes at once.
#[inline(always)]
fn among<const COUNT: usize>(bytes: &[u8; COUNT]) -> bool {
    let mut found = false;
    for byte in bytes {
        found |= *byte == 0;
    }
    found
}

/// What is wrong with a message that was refused.
#[cold]
#[inline(never)]
fn fault(id: u16, body: &[u8]) -> Fault {
    let fixed_length = match id {
        5 => 1,
        1 | 104..=106 | 108 | 110 | 113 | 115 => 4,
        3 => 8,
        4 | 6 => 12,
        114 => 16,
        101 | 111 => 20,
        7 | 116 => 24,
        103 => 32,
        _ => 0,
    };
    if body.len() < fixed_length {
        return Fault::Truncated;
    }
    let counted = match id {
        5 => u64::from(body[0]) * 10,
        7 => u32_at::<20>(body).into(),
        104 => u64::from(u32_at::<0>(body)) * 2,
        113 => u32_at::<0>(body).into(),
        101 | 111 | 116 => {
            let host = text_fault(body, u32_at::<4>(body), u32_at::<8>(body), fixed_length);
            let cert_subject = text_fault(body, u32_at::<12>(body), u32_at::<16>(body), fixed_length);
            return host.or(cert_subject).unwrap_or(Fault::Missing);
        }
        _ => 0,
    };
    if (body.len() as u64) < fixed_length as u64 + counted { Fault::OutOfBounds } else { Fault::TrailingBytes }
}

fn text_fault(body: &[u8], size: u32, offset: u32, fixed_length: usize) -> Option<Fault> {
    let (size, offset) = (size as usize, offset as usize);
    if size == 0 {
        (offset != 0).then_some(Fault::Missing)
    } else if offset == 0 {
        Some(Fault::SizeWithoutOffset)
    } else if offset < fixed_length {
        Some(Fault::OffsetInFixedPart)
    } else if offset + size > body.len() {
        Some(Fault::OutOfBounds)
    } else if body[offset + size - 1] != 0 {
        Some(Fault::NotTerminated)
    } else if size > limits::MAX_TEXT + 1 {
        Some(Fault::LimitExceeded)
    } else {
        has_nul(&body[offset..offset + size - 1]).then_some(Fault::InteriorNul)
    }
}

/// Length of a mini header.
const HEADER: usize = 6;

/// Encodes a mini header and the message to the front of `out`; `None` if they do not fit there, or a message may not be so long.
#[inline(always)]
pub fn encode(message: &Message<'_>, out: &mut [u8]) -> Option<usize> {
    match *message {
        Message::Migrate { flags } => encode_fixed::<10>(1, &[&flags.to_le_bytes()], out),
        Message::SetAck { generation, window } => {
            encode_fixed::<14>(3, &[&generation.to_le_bytes(), &window.to_le_bytes()], out)
        }
        Message::Disconnecting { time_stamp, reason } => {
            encode_fixed::<18>(6, &[&time_stamp.to_le_bytes(), &reason.to_le_bytes()], out)
        }
        Message::MigrateCancel => encode_fixed::<6>(102, &[], out),
        Message::Init(init) => encode_fixed::<38>(
            103,
            &[
                &init.session_id.to_le_bytes(),
                &init.display_channels_hint.to_le_bytes(),
                &init.supported_mouse_modes.to_le_bytes(),
                &init.current_mouse_mode.to_le_bytes(),
                &init.agent_connected.to_le_bytes(),
                &init.agent_tokens.to_le_bytes(),
                &init.multi_media_time.to_le_bytes(),
                &init.ram_hint.to_le_bytes(),
            ],
            out,
        ),
        Message::MouseMode { supported_modes, current_mode } => {
            encode_fixed::<10>(105, &[&supported_modes.to_le_bytes(), &current_mode.to_le_bytes()], out)
        }
        Message::MultiMediaTime { time } => encode_fixed::<10>(106, &[&time.to_le_bytes()], out),
        Message::AgentConnected => encode_fixed::<6>(107, &[], out),
        Message::AgentDisconnected { error_code } => encode_fixed::<10>(108, &[&error_code.to_le_bytes()], out),
        Message::AgentToken { num_tokens } => encode_fixed::<10>(110, &[&num_tokens.to_le_bytes()], out),
        Message::MigrateEnd => encode_fixed::<6>(112, &[], out),
        Message::Uuid { uuid } => encode_fixed::<22>(114, &[&uuid], out),
        Message::AgentConnectedTokens { num_tokens } => encode_fixed::<10>(115, &[&num_tokens.to_le_bytes()], out),
        Message::MigrateDstSeamlessAck => encode_fixed::<6>(117, &[], out),
        Message::MigrateDstSeamlessNack => encode_fixed::<6>(118, &[], out),
        _ => encode_apart(message, out),
    }
}

/// Messages that end in bytes to be copied.
#[inline(never)]
fn encode_apart(message: &Message<'_>, out: &mut [u8]) -> Option<usize> {
    match *message {
        Message::MigrateData { data } => encode_counted::<6>(2, &[], data, out),
        Message::Ping { id, timestamp, data } => {
            encode_counted::<18>(4, &[&id.to_le_bytes(), &timestamp.to_le_bytes()], data, out)
        }
        Message::WaitForChannels { wait_list } => {
            let wait_list = wait_list.get(..255).unwrap_or(wait_list);
            encode_counted::<7>(5, &[&[wait_list.len() as u8]], wait_list.as_flattened(), out)
        }
        Message::Notify(Notify { time_stamp, severity, visibility, what, message, terminated }) => {
            let needed = needed(24 + message.len() + usize::from(terminated))?;
            let (fixed, rest) = out.get_mut(..needed)?.split_first_chunk_mut::<30>()?;
            let length = message.len() as u32;
            write::<30>(
                fixed,
                7,
                needed,
                &[
                    &time_stamp.to_le_bytes(),
                    &severity.to_le_bytes(),
                    &visibility.to_le_bytes(),
                    &what.to_le_bytes(),
                    &length.to_le_bytes(),
                ],
            );
            let (text, nul) = rest.split_at_mut_checked(message.len())?;
            text.copy_from_slice(message);
            if let [nul] = nul {
                *nul = 0;
            }
            Some(needed)
        }
        Message::SubMessageList { list } => encode_counted::<6>(8, &[], list, out),
        Message::MigrateBegin { destination } => encode_destination::<26>(101, &destination, &[], out),
        Message::ChannelsList { channels } => {
            encode_counted::<10>(104, &[&(channels.len() as u32).to_le_bytes()], channels.as_flattened(), out)
        }
        Message::AgentData { data } => encode_counted::<6>(109, &[], data, out),
        Message::MigrateSwitchHost { destination } => encode_destination::<26>(111, &destination, &[], out),
        Message::Name { name } => encode_counted::<10>(113, &[&(name.len() as u32).to_le_bytes()], name, out),
        Message::MigrateBeginSeamless { destination, src_mig_version } => {
            encode_destination::<30>(116, &destination, &[&src_mig_version.to_le_bytes()], out)
        }
        Message::Unknown { id, body } => encode_counted::<6>(id, &[], body, out),
        _ => None,
    }
}

/// The length with the header, if a message may be so long.
#[inline(always)]
fn needed(body_length: usize) -> Option<usize> {
    (body_length <= limits::MAX_BODY as usize).then_some(HEADER + body_length)
}

/// Writes the header and the fields behind it; what they leave of `fixed` stays.
#[inline(always)]
fn write<const FIXED: usize>(fixed: &mut [u8; FIXED], id: u16, needed: usize, fields: &[&[u8]]) {
    fixed[..2].copy_from_slice(&id.to_le_bytes());
    fixed[2..6].copy_from_slice(&((needed - HEADER) as u32).to_le_bytes());
    let mut at = HEADER;
    for field in fields {
        fixed[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    }
}

#[inline(always)]
fn encode_fixed<const FIXED: usize>(id: u16, fields: &[&[u8]], out: &mut [u8]) -> Option<usize> {
    write::<FIXED>(out.first_chunk_mut()?, id, FIXED, fields);
    Some(FIXED)
}

#[inline(always)]
fn encode_counted<const FIXED: usize>(id: u16, fields: &[&[u8]], data: &[u8], out: &mut [u8]) -> Option<usize> {
    let needed = needed(FIXED - HEADER + data.len())?;
    let (fixed, rest) = out.get_mut(..needed)?.split_first_chunk_mut::<FIXED>()?;
    write(fixed, id, needed, fields);
    rest.copy_from_slice(data);
    Some(needed)
}

#[inline(always)]
fn encode_destination<const FIXED: usize>(
    id: u16,
    destination: &Destination<'_>,
    fields: &[&[u8]],
    out: &mut [u8],
) -> Option<usize> {
    let Destination { port, tls_port, host, cert_subject } = *destination;
    let host_size = host.len() + 1;
    let (subject_size, subject_offset) = match cert_subject {
        Some(subject) => (subject.len() + 1, FIXED - HEADER + host_size),
        None => (0, 0),
    };
    let needed = needed(FIXED - HEADER + host_size + subject_size)?;
    let (fixed, rest) = out.get_mut(..needed)?.split_first_chunk_mut::<FIXED>()?;
    write(
        fixed,
        id,
        needed,
        &[
            &port.to_le_bytes(),
            &tls_port.to_le_bytes(),
            &(host_size as u32).to_le_bytes(),
            &((FIXED - HEADER) as u32).to_le_bytes(),
            &(subject_size as u32).to_le_bytes(),
            &(subject_offset as u32).to_le_bytes(),
        ],
    );
    for field in fields {
        fixed[26..26 + field.len()].copy_from_slice(field);
    }
    let (host_place, subject_place) = rest.split_at_mut_checked(host_size)?;
    put_terminated(host, host_place)?;
    if let Some(subject) = cert_subject {
        put_terminated(subject, subject_place)?;
    }
    Some(needed)
}

#[inline(always)]
fn put_terminated(string: &[u8], place: &mut [u8]) -> Option<()> {
    let (nul, place) = place.split_last_mut()?;
    *nul = 0;
    place.copy_from_slice(string);
    Some(())
}
