//! The requirements: what a conforming peer does, and how that is known.

use std::{fmt, sync::LazyLock};

use crate::case::Level;

/// All requirements, from `requirements.toml`.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
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
}

/// One thing that a conforming peer does.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Stable, such as `T3.1`.
    pub id: String,
    /// How strict it is.
    pub level: Level,
    /// Who has to meet it.
    pub role: Role,
    /// What it says, in one sentence.
    pub statement: String,
    /// How that is known: files and functions of existing software, or `run:` and the software on which it was seen.
    pub sources: Vec<String>,
    /// Whether a case judges it.
    pub status: Status,
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
    /// None does: why.
    Untested(String),
}

impl TryFrom<String> for Status {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(": ") {
            None if text == "covered" => Ok(Self::Covered),
            Some(("untested", reason)) if !reason.is_empty() => Ok(Self::Untested(reason.to_owned())),
            _ => Err(format!("`{text}` is neither `covered` nor `untested: REASON`")),
        }
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
    fn statements_are_sentences_with_sources() {
        for Requirement { id, statement, sources, .. } in &Registry::get().requirements {
            assert!(statement.ends_with('.'), "{id}: {statement}");
            assert!(!sources.is_empty(), "{id} has no source");
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
