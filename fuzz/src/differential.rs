//! Whether `spice-migration` and spice-common's generated C code make the same of a body.
//!
//! Both decode it, or both refuse it; they find the same fields, and encode them to the same bytes. Where `spice-migration`
//! departs from that on purpose, a [`Class`] says so, and a body departs exactly when a class holds for it.

mod class;
mod fields;
mod generate;
mod layout;

pub use class::Class;
pub use generate::Generator;

use std::{fmt, sync::LazyLock};

use spice_common_oracle::{Direction, Value, demarshall, marshall};
use spice_migration::{
    ChannelType, ClientMessage, ServerMessage,
    message::{Message, Row, Section},
};

/// Which message a body is claimed to be, and on which channel it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Who sent it.
    pub direction: Direction,
    /// The channel's type.
    pub channel: ChannelType,
    /// The message's id.
    pub id: u16,
}

impl Case {
    /// Every message of the main channel, and every base message on a channel that knows no others: the cursor channel.
    pub fn all() -> &'static [Self] {
        static ALL: LazyLock<Vec<Case>> = LazyLock::new(|| {
            let mut all = Vec::new();
            for direction in [Direction::FromServer, Direction::FromClient] {
                for channel in [ChannelType::MAIN, ChannelType::CURSOR] {
                    let rows = table(direction).iter();
                    let carried = rows.filter(|row| channel == ChannelType::MAIN || row.section == Section::Base);
                    all.extend(carried.map(|row| Case { direction, channel, id: row.id }));
                }
            }
            all
        });
        &ALL
    }

    /// The message's C name.
    #[must_use]
    pub fn c_name(self) -> &'static str {
        table(self.direction).iter().find(|row| row.id == self.id).map_or("unknown", |row| row.c_name)
    }
}

fn table(direction: Direction) -> &'static [Row] {
    match direction {
        Direction::FromServer => ServerMessage::TABLE,
        Direction::FromClient => ClientMessage::TABLE,
    }
}

/// A body as `spice-migration` decodes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Its fields, as C declares them.
    pub fields: Vec<Value>,
    /// What they encode to.
    pub encoded: Vec<u8>,
}

impl Decoded {
    /// Decodes a body; `None` if it is refused, or its message is unknown.
    #[must_use]
    pub fn new(case: Case, body: &[u8]) -> Option<Self> {
        match case.direction {
            Direction::FromServer => {
                let message = ServerMessage::decode(case.channel, case.id, body).ok()?;
                Some(Self { fields: fields::from_server(&message)?, encoded: encode(&message) })
            }
            Direction::FromClient => {
                let message = ClientMessage::decode(case.channel, case.id, body).ok()?;
                Some(Self { fields: fields::from_client(&message)?, encoded: encode(&message) })
            }
        }
    }
}

fn encode(message: &impl Message) -> Vec<u8> {
    let mut out = vec![0; message.encoded_len()];
    assert_eq!(message.encode(&mut out), Ok(out.len()), "what decodes also encodes");
    out
}

/// In what the two differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// C accepts the body, `spice-migration` refuses it.
    OnlyCAccepts,
    /// `spice-migration` accepts the body, C refuses it.
    OnlyOursAccepts,
    /// They find other fields.
    Fields {
        /// What `spice-migration` found.
        ours: Vec<Value>,
        /// What C found.
        c: Vec<Value>,
    },
    /// They encode the same fields to other bytes.
    Encoding {
        /// What `spice-migration` encodes.
        ours: Vec<u8>,
        /// What C marshals.
        c: Vec<u8>,
    },
}

/// What became of one body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether C accepts it.
    pub accepted_by_c: bool,
    /// Whether `spice-migration` accepts it.
    pub accepted_by_ours: bool,
    /// In what they differ.
    pub difference: Option<Difference>,
    /// The classes that hold for it.
    pub classes: Vec<Class>,
}

impl Outcome {
    /// Whether it is as it should be: no difference and no class, or a difference that is the one its classes explain.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        match &self.difference {
            None => self.classes.is_empty(),
            Some(difference) => !self.classes.is_empty() && self.classes.iter().all(|class| class.explains(difference)),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.difference {
            None => write!(formatter, "no difference")?,
            Some(difference) => write!(formatter, "{difference:02x?}")?,
        }
        write!(formatter, ", classes: {:?}", self.classes)
    }
}

/// Lets both decode a body and encode what they found.
#[must_use]
pub fn compare(case: Case, body: &[u8]) -> Outcome {
    compare_with(case, body, Decoded::new)
}

/// The same with another decoder in place of `spice-migration`'s, to see the comparison fail.
#[must_use]
pub fn compare_with(case: Case, body: &[u8], decode: impl Fn(Case, &[u8]) -> Option<Decoded>) -> Outcome {
    let ours = decode(case, body);
    let c = demarshall(case.direction, case.channel.0, case.id, body);
    let (accepted_by_ours, accepted_by_c) = (ours.is_some(), c.is_some());
    let difference = match (ours, c) {
        (None, None) => None,
        (None, Some(_)) => Some(Difference::OnlyCAccepts),
        (Some(_), None) => Some(Difference::OnlyOursAccepts),
        (Some(ours), Some(c)) if ours.fields != c => Some(Difference::Fields { ours: ours.fields, c }),
        (Some(ours), Some(c)) => {
            let c = marshall(case.direction, case.id, &c).expect("C marshals what it parsed");
            (ours.encoded != c).then_some(Difference::Encoding { ours: ours.encoded, c })
        }
    };
    Outcome { accepted_by_c, accepted_by_ours, difference, classes: Class::of(case, body) }
}

/// Holds both against each other on one body: the first byte of `input` chooses the case, the rest is the body.
///
/// # Panics
/// When they differ outside the classes, or agree within one: a finding.
pub fn differential(input: &[u8]) {
    let [choice, body @ ..] = input else { return };
    let case = Case::all()[usize::from(*choice) % Case::all().len()];
    let outcome = compare(case, body);
    assert!(outcome.is_expected(), "{} on channel {}: {outcome}\nbody: {body:02x?}", case.c_name(), case.channel);
}

#[cfg(test)]
mod tests {
    use super::{Case, Class, Decoded, Difference, Direction, Generator, Outcome, Value, compare, compare_with};
    use spice_migration::{ChannelType, message::LAST_BASE_ID};

    const BODIES: usize = 3000;

    /// Runs `check` on generated bodies of every case.
    fn for_bodies(bodies: usize, mut check: impl FnMut(Case, &[u8])) {
        for (seed, case) in (0..).zip(Case::all()) {
            let mut generator = Generator::new(*case, seed);
            for _ in 0..bodies {
                check(*case, generator.next_body());
            }
        }
    }

    #[test]
    fn both_agree_unless_a_class_says_why_not_and_every_class_is_met() {
        let mut met = Vec::new();
        for_bodies(BODIES, |case, body| {
            let outcome = compare(case, body);
            assert!(outcome.is_expected(), "{case:?}: {outcome}\n{body:02x?}");
            met.extend(outcome.classes);
        });
        for class in Class::ALL {
            assert!(class == Class::Id100 || met.contains(&class), "{class:?}");
        }
    }

    #[test]
    fn enough_bodies_are_accepted_to_compare_what_was_decoded() {
        let mut accepted = 0;
        for_bodies(BODIES, |case, body| accepted += usize::from(compare(case, body).accepted_by_ours));
        assert!(accepted * 2 > BODIES * Case::all().len(), "{accepted}");
    }

    #[test]
    fn c_knows_no_other_message_but_an_empty_one_of_id_100() {
        let case = |direction, channel, id| Case { direction, channel, id };
        for direction in [Direction::FromServer, Direction::FromClient] {
            let main = (0..=u16::MAX).map(|id| case(direction, ChannelType::MAIN, id));
            let cursor = (0..=LAST_BASE_ID).map(|id| case(direction, ChannelType::CURSOR, id));
            for case in main.chain(cursor).filter(|case| !Case::all().contains(case)) {
                let outcome = compare(case, &[]);
                assert!(outcome.is_expected(), "{case:?}: {outcome}");
                assert_eq!(outcome.accepted_by_c, case.id == 100 && direction == Direction::FromServer, "{case:?}");
            }
        }
    }

    type Decode = fn(Case, &[u8]) -> Option<Decoded>;

    /// Mistakes that a decoder or an encoder could make.
    const MISTAKES: [(&str, Decode); 9] = [
        ("a number is off by one", |case, body| {
            with(case, body, |decoded| {
                if let Some(Value::Number(number)) = decoded.fields.first_mut() {
                    *number = number.wrapping_add(1);
                }
            })
        }),
        ("the last number loses its high byte", |case, body| {
            with(case, body, |decoded| {
                if let Some(Value::Number(number)) = decoded.fields.iter_mut().rfind(|field| is_number(field)) {
                    *number &= 0xff;
                }
            })
        }),
        ("two fields are swapped", |case, body| {
            with(case, body, |decoded| {
                if let [first, second, ..] = &mut *decoded.fields {
                    std::mem::swap(first, second);
                }
            })
        }),
        ("a string or data ends one byte early", |case, body| {
            with(case, body, |decoded| {
                for field in &mut decoded.fields {
                    if let Value::Bytes(bytes) = field {
                        bytes.pop();
                    }
                }
            })
        }),
        ("an absent string is an empty one", |case, body| {
            with(case, body, |decoded| {
                for field in &mut decoded.fields {
                    if *field == Value::Absent {
                        *field = Value::Bytes(Vec::new());
                    }
                }
            })
        }),
        ("an encoded byte is wrong", |case, body| {
            with(case, body, |decoded| {
                if let Some(byte) = decoded.encoded.last_mut() {
                    *byte ^= 1;
                }
            })
        }),
        ("the encoding is one byte longer", |case, body| with(case, body, |decoded| decoded.encoded.push(0))),
        ("bodies of odd length are refused", |case, body| {
            Decoded::new(case, body).filter(|_| body.len().is_multiple_of(2))
        }),
        ("bytes behind the last field are ignored", |case, body| {
            (0..=body.len()).rev().find_map(|end| Decoded::new(case, &body[..end]))
        }),
    ];

    fn with(case: Case, body: &[u8], change: impl FnOnce(&mut Decoded)) -> Option<Decoded> {
        let mut decoded = Decoded::new(case, body)?;
        change(&mut decoded);
        Some(decoded)
    }

    fn is_number(field: &Value) -> bool {
        matches!(field, Value::Number(_))
    }

    #[test]
    fn every_mistake_is_a_finding_on_every_body_where_it_shows() {
        for (name, mistaken) in MISTAKES {
            let mut shown = 0;
            for_bodies(200, |case, body| {
                let shows = mistaken(case, body) != Decoded::new(case, body);
                let outcome = compare_with(case, body, mistaken);
                assert_eq!(!outcome.is_expected(), shows, "{name}: {case:?}: {outcome}\n{body:02x?}");
                shown += usize::from(shows);
            });
            assert!(shown > 50, "{name}: {shown}");
        }
    }

    #[test]
    fn a_difference_without_a_class_and_a_class_without_a_difference_are_findings() {
        let outcome = |difference, classes: &[Class]| Outcome {
            accepted_by_c: true,
            accepted_by_ours: difference != Some(Difference::OnlyCAccepts),
            difference,
            classes: classes.to_vec(),
        };
        assert!(outcome(None, &[]).is_expected());
        assert!(outcome(Some(Difference::OnlyCAccepts), &[Class::TrailingBytes]).is_expected());
        assert!(!outcome(Some(Difference::OnlyCAccepts), &[]).is_expected());
        assert!(!outcome(None, &[Class::TrailingBytes]).is_expected());
        let fields = Difference::Fields { ours: vec![], c: vec![Value::Absent] };
        assert!(!outcome(Some(fields), &[Class::TrailingBytes]).is_expected());
        let longer = Difference::Encoding { ours: vec![1], c: vec![1, 0] };
        assert!(outcome(Some(longer.clone()), &[Class::NotifyWithoutNul]).is_expected());
        assert!(!outcome(Some(longer), &[Class::TrailingBytes]).is_expected());
    }
}
