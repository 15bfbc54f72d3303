//! The requirements: what a conforming peer does, and how that is known.

use std::{fmt, sync::LazyLock};

use crate::case::Level;

/// All requirements, from `requirements.toml`. `REQUIREMENTS.md` shows it as a page.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// In the order of the page.
    #[serde(rename = "section")]
    pub sections: Vec<Section>,
    /// In the order of the file.
    #[serde(rename = "requirement")]
    pub requirements: Vec<Requirement>,
}

impl Registry {
    /// The registry that the suite carries.
    #[must_use]
    pub fn get() -> &'static Self {
        static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
            // The file is part of the program, so a mistake in it is one in the program, and a test finds it.
            toml::from_str(include_str!("../requirements.toml")).expect("requirements.toml is well-formed")
        });
        &REGISTRY
    }

    /// The requirement with this id.
    #[must_use]
    pub fn requirement(&self, id: &str) -> Option<&Requirement> {
        self.requirements.iter().find(|requirement| requirement.id == id)
    }

    /// The requirements of a section, in the order of their numbers.
    #[must_use]
    pub fn requirements_of(&self, section: &Section) -> Vec<&Requirement> {
        let belongs = |requirement: &&Requirement| section.letter == requirement.id.chars().next();
        let mut requirements: Vec<&Requirement> = self.requirements.iter().filter(belongs).collect();
        requirements.sort_by_key(|requirement| requirement.numbers());
        requirements
    }
}

/// A part of the page.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// What the ids of its requirements begin with, if it has any.
    pub letter: Option<char>,
    /// Its heading.
    pub title: String,
    /// What a reader needs to know beforehand, in Markdown.
    pub text: String,
}

/// One thing that a conforming peer does.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Stable, such as `T3.1`: a section's letter, and one or two numbers.
    pub id: String,
    /// How strict it is.
    pub level: Level,
    /// Who has to meet it.
    pub role: Role,
    /// What it says, in one sentence.
    pub statement: String,
    /// How that is known: files and functions of existing software, or `run:` and the software on which it was seen.
    pub sources: Vec<String>,
    /// Where implementations disagree, with it or with each other.
    pub note: Option<String>,
    /// Whether a case judges it.
    pub status: Status,
}

impl Requirement {
    /// The numbers of its id, if it is as it should be.
    fn numbers(&self) -> Option<(u32, u32)> {
        let numbers = self.id.get(1..)?;
        let (first, second) = numbers.split_once('.').unwrap_or((numbers, "0"));
        Some((first.parse().ok()?, second.parse().ok()?))
    }
}

/// Who has to meet a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Any SPICE server.
    Server,
    /// The server that the client leaves.
    SourceServer,
    /// The server that the client goes to.
    TargetServer,
    /// What drives the source's server.
    SourceHost,
    /// What drives the target's server.
    TargetHost,
    /// The SPICE client.
    Client,
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Server => "server",
            Self::SourceServer => "source-server",
            Self::TargetServer => "target-server",
            Self::SourceHost => "source-host",
            Self::TargetHost => "target-host",
            Self::Client => "client",
        })
    }
}

/// Whether a case judges a requirement.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum Status {
    /// At least one does.
    Covered,
    /// None does.
    Untested(Gap, String),
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Covered => formatter.write_str("covered"),
            Self::Untested(gap, reason) => write!(formatter, "untested: {gap}: {reason}"),
        }
    }
}

impl TryFrom<String> for Status {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "covered" {
            return Ok(Self::Covered);
        }
        let parts = text.strip_prefix("untested: ").and_then(|rest| rest.split_once(": "));
        let gap = parts.and_then(|(kind, _)| Gap::ALL.into_iter().find(|gap| gap.to_string() == kind));
        match (gap, parts) {
            (Some(gap), Some((_, reason))) if !reason.is_empty() => Ok(Self::Untested(gap, reason.to_owned())),
            _ => {
                Err(format!("`{text}` is neither `covered` nor `untested: KIND: REASON` with a KIND of {:?}", Gap::ALL))
            }
        }
    }
}

/// Why no case judges a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// From outside it cannot be told whether a peer meets it.
    Untestable,
    /// The suite does not go there.
    OutOfScope,
    /// What would be right is open.
    Unclear,
    /// A case for it can be written, and is not yet.
    Later,
}

impl Gap {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Untestable, Self::OutOfScope, Self::Unclear, Self::Later];
}

impl fmt::Display for Gap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Untestable => "untestable",
            Self::OutOfScope => "out of scope",
            Self::Unclear => "unclear",
            Self::Later => "later",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{cases, peer::defect::Defect};

    #[test]
    fn ids_are_unique() {
        let requirements = &Registry::get().requirements;
        let ids: BTreeSet<&str> = requirements.iter().map(|requirement| requirement.id.as_str()).collect();
        assert_eq!(ids.len(), requirements.len());
    }

    #[test]
    fn every_requirement_has_a_place_in_one_section() {
        for requirement in &Registry::get().requirements {
            let id = &requirement.id;
            let sections = Registry::get().sections.iter();
            assert_eq!(sections.filter(|section| section.letter == id.chars().next()).count(), 1, "{id}");
            assert!(requirement.numbers().is_some(), "{id} is not a letter with one or two numbers");
        }
    }

    #[test]
    fn statements_are_sentences_with_sources() {
        for Requirement { id, statement, sources, note, .. } in &Registry::get().requirements {
            assert!(statement.ends_with('.'), "{id}: {statement}");
            assert!(!sources.is_empty(), "{id} has no source");
            assert!(note.iter().all(|note| note.ends_with('.')), "{id}: {note:?}");
        }
    }

    #[test]
    fn a_status_says_why_nothing_is_tested() {
        let status = |text: &str| Status::try_from(text.to_owned());
        assert_eq!(status("covered"), Ok(Status::Covered));
        let text = "untested: out of scope: the suite has no WebSocket transport";
        let parsed = status(text).unwrap();
        assert_eq!(parsed, Status::Untested(Gap::OutOfScope, "the suite has no WebSocket transport".to_owned()));
        assert_eq!(parsed.to_string(), text);
        for refused in ["", "tested", "untested", "untested: later", "untested: later: ", "untested: perhaps: a reason"]
        {
            assert!(status(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn covered_requirements_are_those_with_cases() {
        let covered: BTreeSet<&str> = Registry::get()
            .requirements
            .iter()
            .filter(|requirement| requirement.status == Status::Covered)
            .map(|requirement| requirement.id.as_str())
            .collect();
        let judged: BTreeSet<&str> = cases::all().flat_map(|case| case.requirements).copied().collect();
        assert_eq!(covered.difference(&judged).collect::<Vec<_>>(), Vec::<&&str>::new(), "covered, but by no case");
        assert_eq!(judged.difference(&covered).collect::<Vec<_>>(), Vec::<&&str>::new(), "judged, but not covered");
    }

    #[test]
    fn no_case_is_stricter_than_its_requirements() {
        for case in cases::all() {
            let strictest = case
                .requirements
                .iter()
                .filter_map(|id| Registry::get().requirement(id))
                .map(|requirement| requirement.level)
                .max();
            assert!(Some(case.level) <= strictest, "{} is {}, its requirements {strictest:?}", case.id, case.level);
        }
    }

    #[test]
    fn case_ids_are_unique_slugs_in_groups() {
        let mut seen = BTreeSet::new();
        for case in cases::all() {
            assert!(seen.insert(&case.id), "{} is there twice", case.id);
            let parts: Vec<&str> = case.id.split('/').collect();
            assert!(parts.len() >= 2, "{} is not in a group", case.id);
            let slug = |part: &&str| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            };
            assert!(parts.iter().all(slug), "{} is not a slug", case.id);
        }
    }

    #[test]
    fn each_defect_violates_a_covered_requirement() {
        for defect in Defect::ALL {
            let requirement = Registry::get().requirement(defect.requirement());
            assert!(requirement.is_some_and(|found| found.status == Status::Covered), "{defect}");
        }
    }
}
