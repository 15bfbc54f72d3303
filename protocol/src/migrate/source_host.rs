//! The source's host: it moves the guest, and drives its server in the order of the design mail.

use alloc::vec;
use alloc::vec::Vec;

use super::{Role, Time, Violation};

/// Who waits for whom: the three designs, so that they can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Completion {
    /// The target starts the guest when guest and client are both there. The mail's proposal.
    WaitAtTarget,
    /// The source's server sees the client leave, and the source tells the target to start the guest. The mail's (B).
    SignalThroughClient,
    /// The target starts the guest as soon as it is there; the source stays until the client has left. What shipped.
    SourceWaits,
}

/// When the clients are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HandOver {
    /// As soon as the guest has stopped, while the last of it is on its way: the mail's step (6).
    InParallel,
    /// When all of the guest is at the target. What shipped.
    Afterwards,
}

/// A host whose guest may move away.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceHost {
    completion: Completion,
    hand_over: HandOver,
    phase: Phase,
}

/// How far the migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The guest runs here.
    Running,
    /// Its server's clients connect to the target; the guest runs here.
    Connecting,
    /// The guest's memory is being copied while it runs here.
    Live,
    /// The guest has stopped, and the last of it is being copied.
    Stopped,
    /// The guest has moved; the server's clients have not all left.
    Ending,
    /// Nobody needs this host any more.
    Released,
}

/// What happens to a source's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Somebody wants the guest moved.
    Migrate,
    /// Somebody wants it to stay after all.
    Cancel,
    /// The server's answer to `MigrateConnect`.
    ConnectComplete,
    /// What is left to copy is small enough to stop the guest for.
    LiveStageDone,
    /// All of the guest is at the target.
    GuestMoved,
    /// Copying has failed.
    MigrationFailed,
    /// The server's answer to `MigrateEnd`.
    EndComplete,
}

/// What a source's host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// (1) Call the server's `MigrateInfo`.
    MigrateInfo,
    /// (2) Call the server's `MigrateConnect`.
    MigrateConnect,
    /// (4) Copy the guest's memory while it runs.
    StartLiveStage,
    /// (5) Stop the guest.
    StopGuest,
    /// (6) Call the server's `MigrateStart`.
    MigrateStart,
    /// (7) Copy the rest.
    StartNonLiveStage,
    /// (8) Call the server's `MigrateEnd`.
    MigrateEnd {
        /// Whether the guest has moved.
        completed: bool,
    },
    /// Stop copying, and tell the target so.
    AbortMigration,
    /// Let the guest run here again.
    ResumeGuest,
    /// Tell the target's host to start the guest; with [`Completion::SignalThroughClient`].
    TellTargetToStart,
    /// The host may be shut down.
    Release,
}

impl Role for SourceHost {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, _: Time, input: Input) -> Result<Vec<Effect>, Violation> {
        match (self.phase, input) {
            (Phase::Running, Input::Migrate) => {
                self.phase = Phase::Connecting;
                Ok(vec![Effect::MigrateInfo, Effect::MigrateConnect])
            }
            // Another destination, before the guest has set out for the first.
            (Phase::Connecting, Input::Migrate) => Ok(vec![Effect::MigrateInfo, Effect::MigrateConnect]),
            (Phase::Connecting, Input::ConnectComplete) => {
                self.phase = Phase::Live;
                Ok(vec![Effect::StartLiveStage])
            }
            (Phase::Live, Input::LiveStageDone) => {
                self.phase = Phase::Stopped;
                let mut effects = vec![Effect::StopGuest];
                if self.hand_over == HandOver::InParallel {
                    effects.push(Effect::MigrateStart);
                }
                effects.push(Effect::StartNonLiveStage);
                Ok(effects)
            }
            (Phase::Stopped, Input::GuestMoved) => {
                self.phase = Phase::Ending;
                Ok(vec![Effect::MigrateEnd { completed: true }])
            }
            (Phase::Ending, Input::EndComplete) => {
                self.phase = Phase::Released;
                let signal = self.completion == Completion::SignalThroughClient;
                Ok(signal.then_some(Effect::TellTargetToStart).into_iter().chain([Effect::Release]).collect())
            }
            (Phase::Connecting | Phase::Live | Phase::Stopped, Input::Cancel | Input::MigrationFailed) => {
                let mut effects = vec![Effect::AbortMigration];
                if self.phase == Phase::Stopped {
                    effects.push(Effect::ResumeGuest);
                }
                effects.push(Effect::MigrateEnd { completed: false });
                self.phase = Phase::Running;
                Ok(effects)
            }
            // Too late, or of a migration that is over.
            (_, Input::Cancel | Input::MigrationFailed | Input::ConnectComplete | Input::EndComplete) => Ok(Vec::new()),
            (_, Input::Migrate) => Err(violation("the guest is on its way already")),
            (_, Input::LiveStageDone | Input::GuestMoved) => Err(violation("a stage that has not begun is done")),
        }
    }

    /// None: the server answers every call in time.
    fn deadline(&self) -> Option<Time> {
        None
    }
}

impl SourceHost {
    /// A host with a running guest.
    #[must_use]
    pub const fn new(completion: Completion, hand_over: HandOver) -> Self {
        Self { completion, hand_over, phase: Phase::Running }
    }

    /// How far the migration is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the guest runs here.
    #[must_use]
    pub const fn guest_runs(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Connecting | Phase::Live)
    }
}

const fn violation(what: &'static str) -> Violation {
    Violation { requirement: "H1", what }
}
