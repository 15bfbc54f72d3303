//! Owned sets of capabilities of one kind.

use alloc::vec::Vec;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;
use core::{fmt, str::FromStr};

use super::{Capability, CapabilityWords};
use crate::limits::MAX_CAPABILITY_WORDS;
use crate::wire::index;

/// A set of the capabilities of one kind, such as [`MainCapability`](super::MainCapability): known and unknown ones.
///
/// Sets are equal when they have the same bits, however many words follow without any. [`Self::as_words`] keeps those words.
///
/// Its text form has the names of the known bits and the numbers of the others, separated by commas.
///
/// ```
/// use spice_migration::caps::{CapabilitySet, CapabilityWords, MainCapability};
///
/// let client: CapabilitySet<MainCapability> = "semi-seamless-migrate,seamless-migrate".parse()?;
/// let server = CapabilitySet::from_words(CapabilityWords::new(&[[0b101, 0, 0, 0], [2, 0, 0, 0]]));
///
/// assert!(server.contains(MainCapability(33)));
/// assert_eq!(server.to_string(), "semi-seamless-migrate,agent-connected-tokens,33");
/// assert_eq!((&client & &server).to_string(), "semi-seamless-migrate");
/// # Ok::<(), spice_migration::caps::UnknownName>(())
/// ```
#[derive(Clone)]
pub struct CapabilitySet<C> {
    /// In wire form; at most [`MAX_CAPABILITY_WORDS`].
    words: Vec<[u8; 4]>,
    kind: PhantomData<C>,
}

impl<C: Capability> CapabilitySet<C> {
    /// The empty set, of no words.
    #[must_use]
    pub const fn new() -> Self {
        Self { words: Vec::new(), kind: PhantomData }
    }

    /// The set in these words, up to [`MAX_CAPABILITY_WORDS`], empty ones included.
    #[must_use]
    pub fn from_words(words: CapabilityWords<'_>) -> Self {
        Self { words: words.as_wire().iter().take(index(MAX_CAPABILITY_WORDS)).copied().collect(), kind: PhantomData }
    }

    /// All capabilities that this crate knows by name.
    #[must_use]
    pub fn known() -> Self {
        C::KNOWN.iter().copied().collect()
    }

    /// The words, to be sent.
    #[must_use]
    pub fn as_words(&self) -> CapabilityWords<'_> {
        CapabilityWords::new(&self.words)
    }

    /// Whether it is in the set.
    #[must_use]
    pub fn contains(&self, capability: C) -> bool {
        self.as_words().has(capability)
    }

    /// Adds it. Returns whether it is in the set now: not if its number is beyond the last bit of [`MAX_CAPABILITY_WORDS`].
    pub fn insert(&mut self, capability: C) -> bool {
        let (word, bit) = place(capability);
        if word >= index(MAX_CAPABILITY_WORDS) {
            return false;
        }
        if self.words.len() <= word {
            self.words.resize(word.saturating_add(1), [0; 4]);
        }
        if let Some(word) = self.words.get_mut(word) {
            *word = (u32::from_le_bytes(*word) | bit).to_le_bytes();
        }
        true
    }

    /// Takes it out. The number of words stays.
    pub fn remove(&mut self, capability: C) {
        let (word, bit) = place(capability);
        if let Some(word) = self.words.get_mut(word) {
            *word = (u32::from_le_bytes(*word) & !bit).to_le_bytes();
        }
    }

    /// The capabilities in the order of their numbers, unknown ones too.
    pub fn iter(&self) -> impl Iterator<Item = C> + '_ {
        self.as_words().bits().map(C::from_bit)
    }

    /// How many capabilities there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Whether `other` has all of them.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.iter().all(|capability| other.contains(capability))
    }
}

/// What both have: what the two sides of a link have negotiated.
impl<C: Capability> core::ops::BitAnd for &CapabilitySet<C> {
    type Output = CapabilitySet<C>;

    fn bitand(self, other: Self) -> CapabilitySet<C> {
        self.iter().filter(|capability| other.contains(*capability)).collect()
    }
}

/// What either has.
impl<C: Capability> core::ops::BitOr for &CapabilitySet<C> {
    type Output = CapabilitySet<C>;

    fn bitor(self, other: Self) -> CapabilitySet<C> {
        self.iter().chain(other.iter()).collect()
    }
}

/// What only the first has.
impl<C: Capability> core::ops::Sub for &CapabilitySet<C> {
    type Output = CapabilitySet<C>;

    fn sub(self, other: Self) -> CapabilitySet<C> {
        self.iter().filter(|capability| !other.contains(*capability)).collect()
    }
}

/// Leaves out what [`CapabilitySet::insert`] does not take.
impl<C: Capability> FromIterator<C> for CapabilitySet<C> {
    fn from_iter<I: IntoIterator<Item = C>>(capabilities: I) -> Self {
        let mut set = Self::new();
        for capability in capabilities {
            set.insert(capability);
        }
        set
    }
}

impl<C: Capability> Default for CapabilitySet<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Capability> PartialEq for CapabilitySet<C> {
    fn eq(&self, other: &Self) -> bool {
        self.as_words().bits().eq(other.as_words().bits())
    }
}

impl<C: Capability> Eq for CapabilitySet<C> {}

impl<C: Capability> Hash for CapabilitySet<C> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_words().bits().for_each(|bit| bit.hash(state));
    }
}

impl<C: Capability> fmt::Display for CapabilitySet<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, capability) in self.iter().enumerate() {
            if position > 0 {
                formatter.write_str(",")?;
            }
            match capability.name() {
                Some(name) => formatter.write_str(name)?,
                None => write!(formatter, "{}", capability.bit())?,
            }
        }
        Ok(())
    }
}

impl<C: Capability> fmt::Debug for CapabilitySet<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{{{self}}}")
    }
}

/// A text is not a set of capabilities: one part of it is neither a name nor a number within the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownName {
    /// Which part of the text, counted from 0.
    pub position: usize,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "part {} is neither the name nor the number of a capability", self.position)
    }
}

impl core::error::Error for UnknownName {}

/// Names or numbers, separated by commas; spaces around them do not count. An empty text is the empty set.
impl<C: Capability> FromStr for CapabilitySet<C> {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let mut set = Self::new();
        if text.trim().is_empty() {
            return Ok(set);
        }
        for (position, part) in text.split(',').map(str::trim).enumerate() {
            let known = C::KNOWN.iter().copied().find(|known| known.name() == Some(part));
            let capability = known.or_else(|| part.parse().ok().map(C::from_bit));
            if !capability.is_some_and(|capability| set.insert(capability)) {
                return Err(UnknownName { position });
            }
        }
        Ok(set)
    }
}

/// Which word a capability is in, and its bit there.
fn place(capability: impl Capability) -> (usize, u32) {
    let number = capability.bit();
    (index(number / u32::BITS), 1 << (number % u32::BITS))
}
