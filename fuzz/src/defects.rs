//! The oracles can fail: code that does something wrong is found by the committed corpora alone.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use spice_migration::caps::{Capability, CapabilityWords};
use spice_migration::link::{LINK_HEADER_LEN, LinkHeader};
use spice_migration::state::State;
use spice_migration::{ChannelType, DecodeError, EncodeError, Fault};

use crate::codec::{self, Codec};
use crate::deframing::{Connection, Cut};
use crate::layout::Layout;
use crate::messages::{Server, parts};
use crate::state::{MigrationData, check_use};
use crate::sub_messages::{self, Listed, listed};
use crate::{link, messages};

/// Whether `check` panics on an input of the target's committed corpus.
fn is_found(target: &str, check: impl Fn(&[u8])) -> bool {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/derived/fuzz").join(target);
    let mut inputs = fs::read_dir(folder).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
    inputs.any(|input| catch_unwind(AssertUnwindSafe(|| check(&input))).is_err())
}

/// What a decoder and encoder of single bodies does wrong.
#[derive(Clone, Copy, Debug)]
enum Defect {
    AcceptsTrailingBytes,
    AcceptsMissingBytes,
    AcceptsFlagsOfTwo,
    RefusesSomeThatAreValid,
    ErrorsAreOneByteOff,
    ErrorsLieBehindTheBody,
    ErrorsNameAnotherField,
    ErrorsNameAnotherMessage,
    TruncationIsCalledOutOfBounds,
    AnnouncesAByteTooMany,
    NeedsAByteTooFew,
    WritesBehindTheEnd,
    LeavesTheLastByte,
    ChangesAByte,
    LosesTheLastByte,
}

/// A codec with a defect.
struct Defective<C>(C, Defect);

impl<C: Codec> Codec for Defective<C> {
    type Value<'a> = C::Value<'a>;

    fn layout(&self) -> Layout {
        self.0.layout()
    }

    fn fields_agree(&self, body: &[u8]) -> bool {
        self.0.fields_agree(body)
    }

    fn decode<'a>(&self, body: &'a [u8]) -> Result<Self::Value<'a>, DecodeError> {
        let changed = |mut body: Vec<u8>, change: fn(&mut Vec<u8>)| {
            change(&mut body);
            // Defects are few, and so are the bytes.
            &*body.leak()
        };
        let decoded = self.0.decode(body);
        match (self.1, decoded) {
            (Defect::RefusesSomeThatAreValid, Ok(_)) if body.len() % 8 == 5 => {
                Err(DecodeError { message: self.layout().c_name, field: "end", offset: 0, fault: Fault::Unexpected })
            }
            (Defect::LosesTheLastByte, Ok(value)) if self.layout().has_open_end() => match body {
                [] => Ok(value),
                [shorter @ .., _] => self.0.decode(shorter),
            },
            (_, Ok(value)) => Ok(value),
            (Defect::AcceptsTrailingBytes, Err(DecodeError { fault: Fault::TrailingBytes, offset, .. })) => {
                self.0.decode(&body[..usize::try_from(offset).unwrap()])
            }
            (Defect::AcceptsMissingBytes, Err(DecodeError { fault: Fault::Truncated, .. })) => {
                self.0.decode(changed(body.to_vec(), |body| body.resize(body.len() + 64, 0)))
            }
            (Defect::AcceptsFlagsOfTwo, Err(error @ DecodeError { fault: Fault::NotAFlag, .. })) => {
                let mut flagged = body.to_vec();
                flagged[usize::try_from(error.offset).unwrap()] = 1;
                self.0.decode(flagged.leak())
            }
            (Defect::ErrorsAreOneByteOff, Err(error)) => Err(DecodeError { offset: error.offset + 1, ..error }),
            (Defect::ErrorsLieBehindTheBody, Err(error @ DecodeError { fault: Fault::OutOfBounds, .. })) => {
                Err(DecodeError { offset: u32::try_from(body.len()).unwrap() + 1, ..error })
            }
            (Defect::ErrorsNameAnotherField, Err(error)) => Err(DecodeError { field: "another", ..error }),
            (Defect::ErrorsNameAnotherMessage, Err(error)) => Err(DecodeError { message: "another", ..error }),
            (Defect::TruncationIsCalledOutOfBounds, Err(error @ DecodeError { fault: Fault::Truncated, .. })) => {
                Err(DecodeError { fault: Fault::OutOfBounds, ..error })
            }
            (_, Err(error)) => Err(error),
        }
    }

    fn encoded_len(&self, value: &Self::Value<'_>) -> usize {
        self.0.encoded_len(value) + usize::from(matches!(self.1, Defect::AnnouncesAByteTooMany))
    }

    fn encode(&self, value: &Self::Value<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
        let before = out.to_vec();
        let length = match (self.1, self.0.encode(value, out)) {
            (Defect::NeedsAByteTooFew, Err(EncodeError::BufferTooSmall { needed })) => {
                return Err(EncodeError::BufferTooSmall { needed: needed - 1 });
            }
            (_, encoded) => encoded?,
        };
        match self.1 {
            Defect::WritesBehindTheEnd => out[length..].fill(0),
            Defect::LeavesTheLastByte if length > 0 => out[length - 1] = before[length - 1],
            Defect::ChangesAByte if length > 0 => out[length / 2] ^= 1,
            _ => {}
        }
        Ok(length)
    }

    fn are_equal(&self, one: &Self::Value<'_>, other: &Self::Value<'_>) -> bool {
        self.0.are_equal(one, other)
    }

    fn describe(&self, value: &Self::Value<'_>) -> String {
        self.0.describe(value)
    }
}

#[test]
fn defects_of_messages_and_migration_data_are_found() {
    for defect in [
        Defect::AcceptsTrailingBytes,
        Defect::AcceptsMissingBytes,
        Defect::RefusesSomeThatAreValid,
        Defect::ErrorsAreOneByteOff,
        Defect::ErrorsLieBehindTheBody,
        Defect::ErrorsNameAnotherField,
        Defect::ErrorsNameAnotherMessage,
        Defect::TruncationIsCalledOutOfBounds,
        Defect::AnnouncesAByteTooMany,
        Defect::NeedsAByteTooFew,
        Defect::WritesBehindTheEnd,
        Defect::LeavesTheLastByte,
        Defect::ChangesAByte,
        Defect::LosesTheLastByte,
    ] {
        let server = |input: &[u8]| {
            let Some((dialect, channel, id, body)) = parts(input) else { return };
            codec::check(&Defective(Server { dialect, channel, id }, defect), body);
        };
        let client = |input: &[u8]| {
            let Some((dialect, channel, id, body)) = parts(input) else { return };
            codec::check(&Defective(messages::Client { dialect, channel, id }, defect), body);
        };
        assert!(is_found("server", server), "{defect:?}");
        assert!(is_found("client", client) || matches!(defect, Defect::ErrorsLieBehindTheBody), "{defect:?}");
        assert!(is_found("state", |input| state(input, defect)), "{defect:?}");
    }
    assert!(is_found("state", |input| state(input, Defect::AcceptsFlagsOfTwo)));
}

fn state(input: &[u8], defect: Defect) {
    let [channel, data @ ..] = input else { return };
    codec::check(&Defective(MigrationData { channel: ChannelType(*channel) }, defect), data);
}

#[test]
fn targets_that_use_bad_migration_data_or_none_are_found() {
    let check = |input: &[u8], for_target| {
        let [channel, data @ ..] = input else { return };
        check_use(MigrationData { channel: ChannelType(*channel) }, data, for_target);
    };
    assert!(is_found("state", |input| check(input, |channel, _, data| State::decode(channel, data))));
    assert!(is_found("state", |input| check(input, |_, form, data| State::for_target(
        ChannelType::INPUTS,
        form,
        data
    ))));
}

#[test]
fn defects_of_deframing_are_found() {
    type Deframe = fn(Connection, &[&[u8]]) -> Cut;
    let defects: [(&str, Deframe); 6] = [
        ("each piece is cut by itself", |connection, pieces| match pieces {
            [first, .., last] if first.len() > 6 => connection.deframed(&[last]),
            _ => connection.deframed(pieces),
        }),
        ("the serial starts one too high", |connection, pieces| {
            Connection { serial: connection.serial.saturating_add(1), ..connection }.deframed(pieces)
        }),
        ("the limit is ignored", |connection, pieces| Connection { limit: u32::MAX, ..connection }.deframed(pieces)),
        ("sub_list is forgotten", |connection, pieces| {
            let mut cut = connection.deframed(pieces);
            cut.frames.iter_mut().for_each(|(header, _)| header.sub_list = 0);
            cut
        }),
        ("the last frame is held back", |connection, pieces| {
            let mut cut = connection.deframed(pieces);
            cut.frames.pop();
            cut
        }),
        ("pending bytes are forgotten", |connection, pieces| {
            let cut = connection.deframed(pieces);
            Cut { end: cut.end.map(|_| 0), ..cut }
        }),
    ];
    for (what, deframe) in defects {
        let check = |input: &[u8]| {
            let Some((connection, pieces)) = Connection::of(input) else { return };
            connection.check(pieces, deframe);
        };
        assert!(is_found("deframing", check), "{what}");
    }
}

#[test]
fn defects_of_lists_of_sub_messages_are_found() {
    type Decode = fn(&[u8], u32) -> Result<Listed, DecodeError>;
    let defects: [(&str, Decode); 6] = [
        ("overlaps are let through", |body, offset| match listed(body, offset) {
            Err(DecodeError { fault: Fault::Overlap, .. }) => Ok(Listed { sub_messages: Vec::new(), carrier_len: 0 }),
            listed => listed,
        }),
        ("what lies beyond the body is let through", |body, offset| match listed(body, offset) {
            Err(DecodeError { fault: Fault::OutOfBounds, .. }) => {
                Ok(Listed { sub_messages: Vec::new(), carrier_len: 0 })
            }
            listed => listed,
        }),
        ("the order is that of the bytes", |body, offset| {
            let mut listed = listed(body, offset)?;
            listed.sub_messages.sort_by_key(|(_, range)| range.start);
            Ok(listed)
        }),
        ("the last one is lost", |body, offset| {
            let mut listed = listed(body, offset)?;
            listed.sub_messages.pop();
            Ok(listed)
        }),
        ("the carrier's body is a byte too long", |body, offset| {
            listed(body, offset).map(|listed| Listed { carrier_len: listed.carrier_len + 1, ..listed })
        }),
        ("the list is looked for at 0", |body, _| listed(body, 0)),
    ];
    for (what, decode) in defects {
        assert!(is_found("sub_messages", |input| sub_messages::check(input, decode)), "{what}");
    }
}

#[test]
fn defects_of_the_link_stage_are_found() {
    type Decode = fn(&[u8; LINK_HEADER_LEN]) -> Result<LinkHeader, DecodeError>;
    let defects: [(&str, Decode); 3] = [
        ("any magic will do", |bytes| {
            let mut bytes = *bytes;
            bytes[..4].copy_from_slice(b"REDQ");
            LinkHeader::decode(&bytes)
        }),
        ("the size has no limit", |bytes| {
            let mut bytes = *bytes;
            bytes[13..].fill(0);
            LinkHeader::decode(&bytes)
        }),
        ("the versions are swapped", |bytes| {
            let header = LinkHeader::decode(bytes)?;
            Ok(LinkHeader { major_version: header.minor_version, minor_version: header.major_version, ..header })
        }),
    ];
    for (what, decode) in defects {
        let check = |input: &[u8]| {
            if let Some((header, _)) = input.get(1..).and_then(<[u8]>::split_first_chunk) {
                link::check_header(header, decode);
            }
        };
        assert!(is_found("link", check), "{what}");
    }
}

#[test]
fn capabilities_with_wrong_bits_or_names_are_found() {
    #[derive(Clone, Copy)]
    struct Shifted(u32);
    impl Capability for Shifted {
        const KNOWN: &'static [Self] = &[];
        fn from_bit(bit: u32) -> Self {
            Self(bit)
        }
        fn bit(self) -> u32 {
            self.0 ^ 1
        }
        fn name(self) -> Option<&'static str> {
            None
        }
    }

    #[derive(Clone, Copy)]
    struct AllOfOneName(u32);
    impl Capability for AllOfOneName {
        const KNOWN: &'static [Self] = &[Self(0), Self(1)];
        fn from_bit(bit: u32) -> Self {
            Self(bit)
        }
        fn bit(self) -> u32 {
            self.0
        }
        fn name(self) -> Option<&'static str> {
            Some("one-name")
        }
    }

    let words = CapabilityWords::new(&[[0b10, 0, 0, 0]]);
    assert!(catch_unwind(|| link::check_sets::<Shifted>(words, words)).is_err());
    assert!(catch_unwind(|| link::check_sets::<AllOfOneName>(words, words)).is_err());
}
