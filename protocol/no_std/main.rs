//! A program without std, allocator and C start-up code that decodes and encodes everything. It is linked, not run.
//!
//! It also proves that no input makes that panic: its panic handler calls a function that does not exist, so it links only because
//! the optimiser has found every panic to be out of reach. It does not write anything out: `Debug` and `Display` are not in it, and
//! neither is what allocates.
#![no_std]
#![no_main]

use core::hint::black_box;
use core::panic::PanicInfo;

use spice_migration::caps::{self, MainCapability};
use spice_migration::frame::{self, HeaderKind};
use spice_migration::link::{LinkHeader, LinkMessage, LinkReply};
use spice_migration::message::Message;
use spice_migration::state::{JpegWanCompression, State};
use spice_migration::sub_message::{self, SubMessage, SubMessages};
use spice_migration::{ChannelType, ClientMessage, ServerMessage, Text, major1};

unsafe extern "C" {
    fn a_panic_is_within_reach() -> !;
}

/// Where the linker begins.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let mut out = [0; 256];
    loop {
        // Nothing is known of these bytes and numbers when the program is optimised.
        let input = black_box([0u8; 256]);
        let bytes = input.get(..black_box(256)).unwrap_or_default();
        let (channel, id, number) = (ChannelType(black_box(1)), black_box(1u16), black_box(1u32));
        let compression =
            [JpegWanCompression::Never, JpegWanCompression::Auto, JpegWanCompression::Always].get(black_box(1));
        let headers = if black_box(true) { HeaderKind::Mini } else { HeaderKind::Full };

        link_stage(bytes, &mut out);
        if let Ok(Some((frame, _))) = frame::cut(headers, bytes, number.into(), number) {
            black_box(frame.message_body().is_ok());
            sub_messages(frame.sub_messages().ok().flatten(), &mut out);
        }
        sub_messages(SubMessages::decode(bytes, number).ok(), &mut out);
        let from_server = ServerMessage::decode(channel, id, bytes).ok();
        lists(from_server);
        message(from_server, headers, &mut out);
        message(ClientMessage::decode(channel, id, bytes).ok(), headers, &mut out);
        message(major1::ServerMessage::decode(channel, number, id, bytes).ok(), headers, &mut out);
        message(major1::ClientMessage::decode(channel, id, bytes).ok(), headers, &mut out);
        if let Ok(state) = State::for_target(channel, *compression.unwrap_or(&JpegWanCompression::Auto), bytes) {
            black_box((state.encoded_len(), state.encode(&mut out).is_ok()));
            surfaces(state);
        }
        if let Some(text) = Text::new(bytes) {
            black_box((text.to_str().is_ok(), text.as_bytes()));
        }
        for row in ServerMessage::TABLE {
            row.for_each_field(|field| {
                black_box(field);
            });
        }
        black_box(&out);
        #[cfg(feature = "panic")]
        black_box(bytes[black_box(0)]);
    }
}

fn link_stage(bytes: &[u8], out: &mut [u8]) {
    if let Some(Ok(header)) = bytes.first_chunk().map(LinkHeader::decode) {
        black_box(header.encode());
    }
    black_box(MainCapability::from_name("seamless-migrate"));
    black_box(caps::name(ChannelType(black_box(1)), black_box(1)));
    black_box(caps::word(&[MainCapability(black_box(1)); 2]));
    if let Ok(message) = LinkMessage::decode(bytes) {
        black_box(message.encode_with_header(out).is_ok());
        black_box(message.capabilities.channel.has(MainCapability(black_box(1))));
        black_box(message.capabilities.common.bits().last());
        black_box(message.encode(out).is_ok());
    }
    if let Ok(reply) = LinkReply::decode(bytes) {
        black_box(reply.encode_with_header(out).is_ok());
        black_box(reply.encode(out).is_ok());
    }
}

fn sub_messages(list: Option<SubMessages<'_>>, out: &mut [u8]) {
    let Some(list) = list else { return };
    let mut copies = [SubMessage { id: 0, body: &[] }; 4];
    for (copy, sub_message) in copies.iter_mut().zip(list.iter()) {
        *copy = sub_message;
    }
    black_box(sub_message::encode_behind(list.carrier_body(), &copies, out).is_ok());
    black_box(sub_message::encode_list(&copies, out).is_ok());
}

fn lists(message: Option<ServerMessage<'_>>) {
    match message {
        Some(ServerMessage::ChannelsList(message)) => message.channels.iter().for_each(|it| _ = black_box(it)),
        Some(ServerMessage::WaitForChannels(message)) => message.wait_list.iter().for_each(|it| _ = black_box(it)),
        _ => {}
    }
}

fn surfaces(state: State<'_>) {
    let State::Display(display) = state else { return };
    if let Ok(list) = display.surfaces.lossless() {
        list.iter().for_each(|it| _ = black_box(it));
    }
    if let Ok(list) = display.surfaces.lossy() {
        list.iter().for_each(|it| _ = black_box(it));
    }
}

fn message<M: Message>(message: Option<M>, headers: HeaderKind, out: &mut [u8]) {
    if let Some(message) = message {
        black_box(frame::encode(headers, black_box(1), &message, out).is_ok());
        black_box((message.id(), message.encoded_len(), message.encode(out).is_ok()));
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: there is no such function, so the program does not link where this is within reach.
    unsafe { a_panic_is_within_reach() }
}

/// The prebuilt core names it for unwinding, which does not happen here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
