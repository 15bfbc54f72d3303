//! The page `REQUIREMENTS.md`: the registry as people read it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::{
    case::Level,
    cases,
    peer::defect::Defect,
    registry::{Gap, Registry, Requirement, Role, Section, Status},
};

const PREFACE: &str = "\
# What a conforming peer of a SPICE migration does

SPICE migration never had a specification. This page is one: every statement that we know how to make about what servers, hosts
and clients do while a guest moves from one host to another, with where we know it from, and with the cases of
`spice-conformance` that judge it. It is generated from [requirements.toml](requirements.toml); edit that.

## How to read it

Each requirement has an **id**: the letter of its section, and one or two numbers. Ids never change and are never used again, so
they have gaps and stand in the order in which things were found. `spice-conformance explain ID` shows the same as this page.

Each has a **level**:

| level | what it means |
|---|---|
| must | A peer that differs breaks others: they lose a session, or their process. |
| should | A peer that differs serves its users worse, and may have its reasons. |
| observed | Real peers were seen to do so. Do not rely on it, and do not be surprised by it. |

Each has a **role**, the party that has to meet it:

| role | who that is |
|---|---|
| server | any SPICE server, migrating or not |
| source-server | the server that the client leaves |
| target-server | the server that the client goes to |
| source-host, target-host | what drives a server, such as QEMU: it moves the guest, and tells its server how far it is |
| client | the SPICE client, which is connected to the source at first |

Each has **sources**: files and functions of existing software, a mail, or `run:` and the software on which it was seen. A **note**
says where implementations disagree with the statement, or with each other, and what it leaves open. What follows *Reading* is from
their code, and was not run.

Each has a **status**: covered by cases, or untested, and why. *Untestable*: from outside it cannot be told. *Out of scope*: the
suite does not go there. *Unclear*: what would be right is open. *Later*: a case can be written, and is not yet.
";

/// The page.
#[must_use]
pub fn page() -> String {
    let Registry { sections, .. } = Registry::get();
    let mut page = String::from(PREFACE);
    page.push('\n');
    for Section { title, .. } in sections {
        let anchor = title.to_lowercase().replace(' ', "-");
        let _ = writeln!(page, "- [{title}](#{anchor})");
    }
    page.push_str("- [Coverage](#coverage)\n- [Defects](#defects)\n");
    for section in sections {
        let Section { title, text, .. } = section;
        let _ = write!(page, "\n## {title}\n\n{}\n", text.trim());
        for requirement in Registry::get().requirements_of(section) {
            page += &described(requirement);
        }
    }
    page + &coverage() + &defects()
}

fn described(requirement: &Requirement) -> String {
    let Requirement { id, level, role, statement, sources, note, status } = requirement;
    // An anchor of its own, since those made from headings leave out the point: L1.1 and L11 would be the same.
    let mut text = format!("\n<a id=\"{id}\"></a>\n### {id}\n\n{statement}\n\n");
    if let Some(note) = note {
        let _ = writeln!(text, "*Note.* {note}\n");
    }
    let _ = writeln!(text, "- **{level}**, {role}");
    for source in sources {
        let _ = writeln!(text, "- source: {source}");
    }
    let _ = match status {
        Status::Covered => writeln!(text, "- covered: {}", judged_by(id)),
        untested @ Status::Untested(..) => writeln!(text, "- {untested}"),
    };
    text
}

/// The cases of a requirement; of those that a table makes, the beginning of their ids and how many there are.
fn judged_by(requirement: &str) -> String {
    const NAMED: usize = 6;

    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for case in cases::all().filter(|case| case.requirements.contains(&requirement)) {
        let group = case.id.split('/').next().unwrap_or_default();
        groups.entry(group).or_default().push(&case.id);
    }
    let groups = groups.into_iter().map(|(group, ids)| match ids.len() {
        0..=NAMED => joined(ids.into_iter()),
        more => format!("{more} of `{group}/*`"),
    });
    groups.collect::<Vec<_>>().join(", ")
}

/// How many requirements of which level there are per section and role, and what became of them.
fn coverage() -> String {
    const ROLES: [Role; 6] =
        [Role::Server, Role::SourceServer, Role::TargetServer, Role::SourceHost, Role::TargetHost, Role::Client];

    let mut table = String::from(
        "\n## Coverage\n\nThe requirements by section and role: how many there are of each level, and what became of them.\n\n\
         | section | role | must | should | observed | covered | untestable | out of scope | unclear | later |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    let row = |requirements: &[&Requirement]| {
        let level = |level| requirements.iter().filter(|requirement| requirement.level == level).count();
        let covered = requirements.iter().filter(|requirement| requirement.status == Status::Covered).count();
        let gap = |gap| {
            let is_it =
                |requirement: &&&Requirement| matches!(requirement.status, Status::Untested(found, _) if found == gap);
            requirements.iter().filter(is_it).count()
        };
        let levels = [Level::Must, Level::Should, Level::Observed].map(level);
        let counts = levels.into_iter().chain([covered]).chain(Gap::ALL.map(gap));
        counts.map(|count| format!(" {count} |")).collect::<String>()
    };
    for section in &Registry::get().sections {
        for role in ROLES {
            let mut requirements = Registry::get().requirements_of(section);
            requirements.retain(|requirement| requirement.role == role);
            if !requirements.is_empty() {
                let _ = writeln!(table, "| {} | {role} |{}", section.title, row(&requirements));
            }
        }
    }
    let all: Vec<&Requirement> = Registry::get().requirements.iter().collect();
    let _ = writeln!(table, "| all | |{}", row(&all));
    table
}

/// What can be switched on in the embedded hosts.
fn defects() -> String {
    let mut table = String::from(
        "\n## Defects\n\nThe embedded hosts can be made not to conform, in one way at a time; `tests/defects.rs` proves that cases of the \
         requirement\nnotice: of those that are written by hand exactly these, and of those that tables make some. Defects that kill \
         the host show in\nother cases, too.\n\n| requirement | defects |\n|---|---|\n",
    );
    let sections = Registry::get().sections.iter();
    for Requirement { id, .. } in sections.flat_map(|section| Registry::get().requirements_of(section)) {
        let defects =
            joined(Defect::ALL.iter().filter(|defect| defect.requirement() == id).map(|defect| defect.name()));
        if !defects.is_empty() {
            let _ = writeln!(table, "| [{id}](#{id}) | {defects} |");
        }
    }
    table
}

fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
