//! The loops that are measured: the same for every implementation of an operation.
//!
//! Each implementation is called behind a pointer that the optimiser cannot see through, and inputs and outputs pass a `black_box`. The implementation
//! [`NOTHING`] is the same with an empty function: what measuring itself costs.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use spice_migration::ServerMessage;

use crate::cases::{self, Case};
use crate::{binrw, cursor, nom_usual, ours, zerocopy};

/// Decodes messages of the main channel.
pub trait Decode {
    /// What it decodes to.
    type Decoded<'a>;

    /// Decodes the body of message `id`.
    fn decode(id: u16, body: &[u8]) -> Self::Decoded<'_>;

    /// Whether that is this message.
    fn is(decoded: &Self::Decoded<'_>, expected: &ServerMessage<'_>) -> bool;
}

/// Encodes messages with mini headers.
pub trait Encode {
    /// What it encodes.
    type Message<'a>;

    /// Does something with the case's message.
    fn with<R>(case: &Case, action: impl FnOnce(&mut Self::Message<'_>) -> R) -> R;

    /// Encodes to the front of `out`, or to memory of its own, and returns the length; `None` if it refuses to.
    fn encode(message: &mut Self::Message<'_>, out: &mut [u8]) -> Option<usize>;
}

/// Cuts a stream into messages.
pub trait Cut {
    /// Cuts the stream, which ends with a message, and hands over the id and body of each message.
    fn cut(&mut self, stream: &[u8], consume: impl FnMut(u16, &[u8]));
}

/// One implementation of one operation, on one case.
pub struct Measurement {
    /// `decode`, `encode` or `frame`.
    pub operation: &'static str,
    /// The implementation's name.
    pub implementation: &'static str,
    /// The case's name.
    pub case: &'static str,
    /// How many messages one iteration takes.
    pub messages: u64,
    run: Box<dyn Fn(u64) -> Duration + Sync>,
}

impl Measurement {
    /// Runs so many iterations and returns how long they took.
    pub fn run(&self, iterations: u64) -> Duration {
        (self.run)(iterations)
    }
}

/// The name of `spice-migration`.
pub const OURS: &str = "spice-migration";
/// The name of the [`cursor`], the limit.
pub const LIMIT: &str = "limit";
/// The name of spice-common.
pub const C: &str = "C";
/// The name of the loop that does nothing.
pub const NOTHING: &str = "nothing";

/// Everything that is measured.
#[must_use]
pub fn measurements() -> Vec<Measurement> {
    let mut all = Vec::new();
    decode::<Nothing>(NOTHING, &mut all);
    decode::<ours::Ours>(OURS, &mut all);
    decode::<cursor::Cursor>(LIMIT, &mut all);
    decode::<zerocopy::Zerocopy>("zerocopy", &mut all);
    decode::<nom_usual::NomUsual>("nom as usually written", &mut all);
    #[cfg(feature = "spice-common")]
    decode::<crate::spice_common::SpiceCommon>(C, &mut all);
    decode::<binrw::Binrw>("binrw", &mut all);

    encode::<Nothing>(NOTHING, &mut all);
    encode::<ours::Ours>(OURS, &mut all);
    encode::<cursor::Cursor>(LIMIT, &mut all);
    #[cfg(feature = "spice-common")]
    encode::<crate::spice_common::SpiceCommon>(C, &mut all);

    frame(NOTHING, "cut", || Nothing, &mut all);
    frame(OURS, "cut", || ours::Ours, &mut all);
    frame(LIMIT, "cut", || cursor::Cursor, &mut all);
    frame(NOTHING, "Deframer", || Copying(Vec::new()), &mut all);
    frame(OURS, "Deframer", ours::deframer, &mut all);
    all
}

fn decode<D: Decode + 'static>(implementation: &'static str, all: &mut Vec<Measurement>) {
    all.extend(cases::decoded().into_iter().map(|case| {
        let run = move |iterations| {
            let decode = black_box(D::decode as for<'a> fn(u16, &'a [u8]) -> D::Decoded<'a>);
            let (id, body) = (case.message.id(), case.body());
            repeat(iterations, &mut || {
                black_box(&decode(black_box(id), black_box(&body)));
            })
        };
        Measurement { operation: "decode", implementation, case: case.name, messages: 1, run: Box::new(run) }
    }));
}

fn encode<E: Encode + 'static>(implementation: &'static str, all: &mut Vec<Measurement>) {
    all.extend(cases::encoded().into_iter().map(|case| {
        let run = move |iterations| {
            let encode = black_box(E::encode as for<'a, 'b> fn(&'a mut E::Message<'b>, &'a mut [u8]) -> Option<usize>);
            let mut out = [0; 256];
            E::with(&case, |message| {
                repeat(iterations, &mut || {
                    black_box(encode(black_box(message), black_box(&mut out)));
                })
            })
        };
        Measurement { operation: "encode", implementation, case: case.name, messages: 1, run: Box::new(run) }
    }));
}

fn frame<C: Cut + 'static>(
    implementation: &'static str,
    case: &'static str,
    new: fn() -> C,
    all: &mut Vec<Measurement>,
) {
    let run = move |iterations| {
        let stream = cases::stream();
        let mut cutter = new();
        repeat(iterations, &mut || {
            cutter.cut(black_box(&stream), |id, body| {
                black_box((id, body));
            });
        })
    };
    all.push(Measurement {
        operation: "frame",
        implementation,
        case,
        messages: cases::STREAM_MESSAGES,
        run: Box::new(run),
    });
}

/// One function for all, so that the loop is the same machine code for all.
#[inline(never)]
fn repeat(iterations: u64, once: &mut dyn FnMut()) -> Duration {
    let once = black_box(once);
    let start = Instant::now();
    for _ in 0..iterations {
        once();
    }
    start.elapsed()
}

struct Nothing;

impl Decode for Nothing {
    /// As large as what the others return, so that it is returned the same way.
    type Decoded<'a> = MaybeUninit<[u64; 6]>;

    fn decode(_: u16, _: &[u8]) -> Self::Decoded<'_> {
        MaybeUninit::uninit()
    }

    fn is(_: &Self::Decoded<'_>, _: &ServerMessage<'_>) -> bool {
        false
    }
}

impl Encode for Nothing {
    type Message<'a> = ();

    fn with<R>(_: &Case, action: impl FnOnce(&mut ()) -> R) -> R {
        action(&mut ())
    }

    fn encode((): &mut (), _: &mut [u8]) -> Option<usize> {
        None
    }
}

impl Cut for Nothing {
    fn cut(&mut self, _: &[u8], _: impl FnMut(u16, &[u8])) {}
}

/// Copies the stream to a buffer, as the `Deframer` must.
struct Copying(Vec<u8>);

impl Cut for Copying {
    fn cut(&mut self, stream: &[u8], _: impl FnMut(u16, &[u8])) {
        self.0.clear();
        self.0.extend_from_slice(stream);
    }
}
