//! The cutting of a stream into messages.

use spice_migration::{
    EncodeError,
    frame::{self, Deframer, Frame, Header, HeaderKind, OversizedBody},
    limits::MAX_BODY,
};

use crate::layout::u32_at;

/// A stream of one direction. Input: a byte whose bits choose the kind of header, the limit on bodies and the first serial, a byte with
/// the length of the pieces in which the stream arrives, and the stream.
///
/// # Panics
/// - The frames, what remains behind them, or the error at their end depend on how the stream was cut into pieces.
/// - They are not those that a naive reading of the headers gives.
/// - A header that was read is written to other bytes, or one that is cut is read, or written to too little room.
pub fn deframing(input: &[u8]) {
    let Some((connection, pieces)) = Connection::of(input) else { return };
    connection.check(pieces, Connection::deframed);
}

/// What is known of a connection before its first message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) kind: HeaderKind,
    pub(crate) limit: u32,
    pub(crate) serial: u64,
}

/// What a stream was cut into.
#[derive(Debug, PartialEq)]
pub(crate) struct Cut {
    pub(crate) frames: Vec<(Header, Vec<u8>)>,
    /// How many bytes are left, or why there will be no more frames.
    pub(crate) end: Result<usize, OversizedBody>,
}

/// A stream and the length of its pieces.
pub(crate) struct Pieces<'a> {
    stream: &'a [u8],
    length: usize,
}

impl Connection {
    pub(crate) fn of(input: &[u8]) -> Option<(Self, Pieces<'_>)> {
        let [shape, length, stream @ ..] = input else { return None };
        let connection = Self {
            kind: if shape & 1 == 0 { HeaderKind::Mini } else { HeaderKind::Full },
            limit: if shape & 2 == 0 { MAX_BODY } else { 64 },
            serial: if shape & 4 == 0 { 1 } else { u64::MAX - 1 },
        };
        Some((connection, Pieces { stream, length: usize::from(*length) + 1 }))
    }

    /// `deframe`, which is [`Self::deframed`] or one that does something wrong, cuts a stream that arrives in pieces.
    pub(crate) fn check(self, Pieces { stream, length }: Pieces<'_>, deframe: impl Fn(Self, &[&[u8]]) -> Cut) {
        let expected = self.naively_cut(stream);
        let pieces: Vec<&[u8]> = stream.chunks(length).collect();
        assert_eq!(deframe(self, &pieces), expected, "in pieces of {length}");
        assert_eq!(deframe(self, &[stream]), expected, "in one piece");
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(deframe(self, &bytes), expected, "byte by byte");
        assert_eq!(self.cut(stream), expected, "without a buffer");

        let mut rest = stream;
        for (header, body) in &expected.frames {
            let (bytes, behind) = rest.split_at(self.kind.len());
            let mut again = vec![0; self.kind.len()];
            assert_eq!(header.encode(self.kind, &mut again), Ok(again.len()));
            assert_eq!(again, bytes, "{header:?}");
            let short = &mut again[1..];
            assert_eq!(header.encode(self.kind, short), Err(EncodeError::BufferTooSmall { needed: self.kind.len() }));
            assert_eq!(Header::decode(self.kind, &bytes[1..], header.serial), None);
            rest = &behind[body.len()..];
        }
    }

    /// With a [`Deframer`] that is asked for frames after each piece.
    pub(crate) fn deframed(self, pieces: &[&[u8]]) -> Cut {
        let mut deframer = Deframer::new(self.kind).with_limit(self.limit).with_serial(self.serial);
        let mut frames = Vec::new();
        for piece in pieces {
            let pending = deframer.pending();
            deframer.push(piece);
            assert_eq!(deframer.pending(), pending + piece.len());
            loop {
                match deframer.next_frame() {
                    Ok(Some(Frame { header, body })) => frames.push((header, body.to_vec())),
                    Ok(None) => break,
                    Err(error) => {
                        deframer.push(&[0; 100]);
                        assert_eq!(deframer.next_frame(), Err(error), "it stays so");
                        assert!(!error.to_string().is_empty());
                        return Cut { frames, end: Err(error) };
                    }
                }
            }
        }
        Cut { frames, end: Ok(deframer.pending()) }
    }

    /// With [`frame::cut`].
    fn cut(self, mut stream: &[u8]) -> Cut {
        let mut frames = Vec::new();
        let mut serial = self.serial;
        loop {
            match frame::cut(self.kind, stream, serial, self.limit) {
                Ok(Some((Frame { header, body }, length))) => {
                    frames.push((header, body.to_vec()));
                    stream = &stream[length..];
                    serial = serial.saturating_add(1);
                }
                Ok(None) => return Cut { frames, end: Ok(stream.len()) },
                Err(error) => return Cut { frames, end: Err(error) },
            }
        }
    }

    /// What must come out.
    fn naively_cut(self, mut stream: &[u8]) -> Cut {
        let mut frames = Vec::new();
        let mut counted = self.serial;
        loop {
            let (at, length) = if self.kind == HeaderKind::Mini { (0, 6) } else { (8, 18) };
            if stream.len() < length {
                return Cut { frames, end: Ok(stream.len()) };
            }
            let id = u16::from_le_bytes([stream[at], stream[at + 1]]);
            let size = u32_at(stream, at + 2);
            let (serial, sub_list) = match self.kind {
                HeaderKind::Mini => (counted, 0),
                HeaderKind::Full => (u64::from_le_bytes(stream[..8].try_into().unwrap()), u32_at(stream, 14)),
            };
            if size > self.limit {
                return Cut { frames, end: Err(OversizedBody { id, size, limit: self.limit }) };
            }
            let size_here = usize::try_from(size).unwrap();
            if stream.len() - length < size_here {
                return Cut { frames, end: Ok(stream.len()) };
            }
            frames.push((Header { serial, id, size, sub_list }, stream[length..length + size_here].to_vec()));
            stream = &stream[length + size_here..];
            counted = counted.saturating_add(1);
        }
    }
}
