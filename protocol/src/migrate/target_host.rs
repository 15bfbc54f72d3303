//! The target's host: it receives the guest, and decides when to start it.

use alloc::vec;
use alloc::vec::Vec;

use super::source_host::Completion;
use super::{Role, Time, Violation};

/// A host that waits for a guest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetHost {
    completion: Completion,
    phase: Phase,
}

/// How far the migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It has not begun to listen.
    New,
    /// The guest is on its way.
    Incoming,
    /// The guest is here, and not running: it waits for the client, or for the source's word.
    Holding,
    /// The guest runs here.
    Running,
    /// No guest comes.
    Failed,
}

/// What happens to a target's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// It is to wait for a guest.
    Listen,
    /// All of the guest is here.
    GuestArrived,
    /// The guest will not come.
    MigrationFailed,
    /// The server's answer to `AwaitClient`.
    ClientMigrationComplete,
    /// The source's host says that the client has left it; with [`Completion::SignalThroughClient`].
    SourceSaysStart,
}

/// What a target's host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Tell the server that this host can hold the guest until the client has come.
    CanHoldTheGuest,
    /// Ask the server to say when the client has come.
    AwaitClient,
    /// Let the guest run.
    StartGuest,
    /// Give up.
    Quit,
}

impl Role for TargetHost {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, _: Time, input: Input) -> Result<Vec<Effect>, Violation> {
        match (self.phase, input) {
            (Phase::New, Input::Listen) => {
                self.phase = Phase::Incoming;
                Ok(vec![Effect::CanHoldTheGuest])
            }
            (Phase::Incoming, Input::GuestArrived) => {
                self.phase = Phase::Holding;
                Ok(match self.completion {
                    Completion::WaitAtTarget => vec![Effect::AwaitClient],
                    Completion::SignalThroughClient => Vec::new(),
                    Completion::SourceWaits => self.start(),
                })
            }
            (Phase::Holding, Input::ClientMigrationComplete | Input::SourceSaysStart) => Ok(self.start()),
            (Phase::New | Phase::Incoming, Input::MigrationFailed) => {
                self.phase = Phase::Failed;
                Ok(vec![Effect::Quit])
            }
            // The connection that brought the guest may end now.
            (_, Input::MigrationFailed) => Ok(Vec::new()),
            (_, Input::ClientMigrationComplete | Input::SourceSaysStart) => {
                Err(Violation { requirement: "D1", what: "an answer that was not asked for" })
            }
            (_, Input::Listen | Input::GuestArrived) => {
                Err(Violation { requirement: "D1", what: "a guest that is not expected" })
            }
        }
    }

    /// None: the server answers in time. With [`Completion::SignalThroughClient`] that is a weakness: nobody but the source can end
    /// the wait.
    fn deadline(&self) -> Option<Time> {
        None
    }
}

impl TargetHost {
    /// A host that does not listen yet.
    #[must_use]
    pub const fn new(completion: Completion) -> Self {
        Self { completion, phase: Phase::New }
    }

    /// How far the migration is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    fn start(&mut self) -> Vec<Effect> {
        self.phase = Phase::Running;
        vec![Effect::StartGuest]
    }
}
