//! Every set of main capabilities that has to do with migration, with either header, with and without a ticket: which scheme follows, and
//! whether it completes.

use spice_migration::caps::{CommonCapability, MainCapability};

use super::check_absent;
use crate::{
    case::{Case, Context, Level, OrFail, Verdict, run},
    context::{Place, Setup},
    peer::client::{is, until},
};

const BITS: [(MainCapability, &str); 4] = [
    (MainCapability::SEMI_SEAMLESS_MIGRATE, "semi"),
    (MainCapability::SEAMLESS_MIGRATE, "seamless"),
    (MainCapability::AGENT_CONNECTED_TOKENS, "tokens"),
    (MainCapability::NAME_AND_UUID, "name"),
];

/// What a client says, and what its hosts ask.
#[derive(Clone, Copy, Debug)]
struct Terms {
    /// Which of [`BITS`].
    set: u8,
    mini_header: bool,
    ticket: bool,
}

/// What a client is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Seamless,
    SemiSeamless,
    SwitchHost,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (mini_header, ticket) in [(true, false), (true, true), (false, false), (false, true)] {
        cases.extend((0..1 << BITS.len()).map(|set| case(Terms { set, mini_header, ticket })));
    }
    cases
}

impl Terms {
    fn capabilities(self) -> impl Iterator<Item = (MainCapability, &'static str)> {
        BITS.into_iter().enumerate().filter(move |(bit, _)| self.set >> bit & 1 == 1).map(|(_, known)| known)
    }

    fn has(self, wanted: MainCapability) -> bool {
        self.capabilities().any(|(capability, _)| capability == wanted)
    }

    fn due(self) -> Due {
        if self.has(MainCapability::SEAMLESS_MIGRATE) && self.has(MainCapability::AGENT_CONNECTED_TOKENS) {
            Due::Seamless
        } else if self.has(MainCapability::SEMI_SEAMLESS_MIGRATE) {
            Due::SemiSeamless
        } else {
            Due::SwitchHost
        }
    }

    /// By which requirement the announcement is judged: by the scheme's own, or where that has been judged already.
    fn requirements(self) -> &'static [&'static str] {
        match self.due() {
            _ if !self.mini_header || self.ticket => &["S1.6"],
            Due::Seamless => &["S1.1", "S1.6"],
            Due::SemiSeamless => &["S1.2", "S1.6"],
            Due::SwitchHost => &["S1.3", "S1.6"],
        }
    }
}

fn case(terms: Terms) -> Case {
    let names: Vec<&str> = terms.capabilities().map(|(_, name)| name).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join("-") };
    let header = if terms.mini_header { "mini" } else { "full" };
    let (ticket, with_ticket) = if terms.ticket { ("ticket", ", with a ticket") } else { ("open", "") };
    let (scheme, expected) = match terms.due() {
        Due::Seamless => ("seamlessly", "MIGRATE_BEGIN_SEAMLESS; a session that goes on at the target"),
        Due::SemiSeamless => ("semi-seamlessly", "MIGRATE_BEGIN; a session that restarts at the target"),
        Due::SwitchHost => ("by a switch of host", "no announcement; MIGRATE_SWITCH_HOST; a new session at the target"),
    };
    Case {
        id: format!("capabilities/{header}-{ticket}/{names}").into(),
        title: format!("A client with the capabilities {names} and {header} headers is migrated {scheme}{with_ticket}")
            .into(),
        requirements: terms.requirements(),
        level: Level::Must,
        sent: format!("a session with main capabilities {names}, {header} headers{with_ticket}; a whole migration")
            .into(),
        expected: expected.into(),
        waits: false,
        run: run(move |context| Box::pin(judge(context, terms))),
    }
}

async fn judge(context: &mut Context, terms: Terms) -> Verdict {
    let (source, target) = (Place::Source, Place::Target);
    let requirement = terms.requirements()[0];
    context.start_pair(Setup { seamless: true, password: terms.ticket, ..Setup::default() }).await?;
    let main: Vec<MainCapability> = terms.capabilities().map(|(capability, _)| capability).collect();
    let mut common = vec![CommonCapability::AUTH_SELECTION, CommonCapability::AUTH_SPICE];
    common.extend(terms.mini_header.then_some(CommonCapability::MINI_HEADER));
    let client = context.client().with_main(&main).with_common(&common);
    let mut session = context.connect(&client, source).await?;
    let mut moved = match terms.due() {
        Due::Seamless | Due::SemiSeamless => {
            let prepared = context.prepare(&client, session, source, target).await.or_fail(requirement)?;
            let mut moved = context.complete(prepared, source, target).await.or_fail("S1.6")?;
            moved.list_channels_when_migrated().await.or_fail("S1.6")?;
            moved
        }
        Due::SwitchHost => {
            context.announce(source, target).await?;
            session.list_channels().await?;
            context.migrate(source, target).await?;
            until!(session.main, MigrateSwitchHost).await.or_fail(requirement)?;
            let told = session.main.taken.iter().find(|received| is!(received, MigrateBegin | MigrateBeginSeamless));
            check_absent(told, requirement, &session.main, "no announcement")?;
            session.close().await;
            context.connect(&client, target).await.or_fail("S1.6")?
        }
    };
    moved.list_channels().await.or_fail("S1.6")
}
