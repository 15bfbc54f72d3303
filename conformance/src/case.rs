//! What a case is, what it works with, and what it may find.

use std::{borrow::Cow, fmt, future::Future, pin::Pin, time::Duration};

use tokio_rustls::TlsConnector;

use crate::{
    context::Setup,
    subject::{Host, Subject},
    trace::Trace,
};

/// One thing that is judged.
pub struct Case {
    /// A stable slug, `group/topic/detail`. It never changes.
    pub id: Cow<'static, str>,
    /// What holds for a peer that passes, in one sentence.
    pub title: Cow<'static, str>,
    /// The requirements that it judges, by their ids in `requirements.toml`.
    pub requirements: &'static [&'static str],
    /// How strict those are.
    pub level: Level,
    /// What the suite does.
    pub sent: Cow<'static, str>,
    /// What must follow.
    pub expected: Cow<'static, str>,
    /// Whether it does little but wait for a time limit of the peer's: it then runs beside as many others as may run at once.
    pub waits: bool,
    /// Does it.
    pub run: Run,
}

/// What a case does.
pub type Run = Box<dyn for<'a> Fn(&'a mut Context) -> Judging<'a> + Send + Sync>;

/// A case that goes on.
pub type Judging<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// Makes what a case does out of a function.
pub fn run(function: impl for<'a> Fn(&'a mut Context) -> Judging<'a> + Send + Sync + 'static) -> Run {
    Box::new(function)
}

impl fmt::Debug for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.id)
    }
}

/// How strict a requirement is. The order is from lax to strict, so that a level can be a minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Seen on real peers; nothing hangs on it.
    Observed,
    /// A peer that differs serves its users worse.
    Should,
    /// A peer that differs breaks others.
    Must,
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Observed => "observed",
            Self::Should => "should",
            Self::Must => "must",
        })
    }
}

/// How a case ends: it passed, or it stopped.
pub type Verdict = Result<(), Stop>;

/// Why a case did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The peer violated a requirement.
    Fail(Failure),
    /// A step that leads up to what the case is about went wrong, so that it could not be judged.
    Blocked(Unexpected),
    /// The peer or the set-up kept the case from being judged: why.
    Inconclusive(String),
    /// A capability or a control is missing: which.
    NotApplicable(String),
}

/// A violated requirement, as a user is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The requirement's id.
    pub requirement: &'static str,
    /// The connection or party on which it showed.
    pub connection: String,
    /// What should have come.
    pub expected: String,
    /// What came.
    pub got: String,
}

/// Something other than what the suite waited for. By itself it only keeps a case from being judged; where it is what the
/// case is about, [`OrFail`] makes a failure of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unexpected {
    /// The connection or party.
    pub connection: String,
    /// What was waited for.
    pub expected: String,
    /// What came.
    pub got: String,
}

impl fmt::Display for Unexpected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connection, expected, got } = self;
        write!(formatter, "on {connection}: waited for {expected}, got {got}")
    }
}

impl From<Unexpected> for Stop {
    fn from(unexpected: Unexpected) -> Self {
        Self::Blocked(unexpected)
    }
}

impl From<crate::subject::StartError> for Stop {
    fn from(error: crate::subject::StartError) -> Self {
        use crate::subject::StartError::{AsItIs, NoControl, NoPassword, Unreachable};
        match error {
            AsItIs | NoControl | NoPassword => Self::NotApplicable(error.to_string()),
            Unreachable { address } => Self::Blocked(Unexpected {
                connection: address.to_string(),
                expected: "a connection".to_owned(),
                got: "nobody who listens".to_owned(),
            }),
            _ => Self::Inconclusive(error.to_string()),
        }
    }
}

impl From<crate::subject::ControlError> for Stop {
    fn from(error: crate::subject::ControlError) -> Self {
        Self::Inconclusive(error.to_string())
    }
}

/// Makes a failure of what is not as the case demands.
pub trait OrFail<T> {
    /// Names the requirement that is violated.
    ///
    /// # Errors
    /// [`Stop::Fail`] in place of the error that it is called on.
    fn or_fail(self, requirement: &'static str) -> Result<T, Stop>;
}

impl<T> OrFail<T> for Result<T, Unexpected> {
    fn or_fail(self, requirement: &'static str) -> Result<T, Stop> {
        self.map_err(|Unexpected { connection, expected, got }| {
            Stop::Fail(Failure { requirement, connection, expected, got })
        })
    }
}

/// Of several steps: whichever of them goes wrong. A set-up that does not work stays what it is.
impl<T> OrFail<T> for Result<T, Stop> {
    fn or_fail(self, requirement: &'static str) -> Self {
        self.or_else(|stop| match stop {
            Stop::Blocked(unexpected) => Err(unexpected).or_fail(requirement),
            other => Err(other),
        })
    }
}

impl<T> OrFail<T> for Result<T, crate::subject::ControlError> {
    fn or_fail(self, requirement: &'static str) -> Result<T, Stop> {
        self.map_err(|error| {
            let crate::subject::ControlError { party, command, reason } = error;
            Stop::Fail(Failure { requirement, connection: party, expected: command.to_owned(), got: reason })
        })
    }
}

/// Fails the case unless `holds`.
///
/// # Errors
/// [`Stop::Fail`] with the texts given.
pub fn check(
    holds: bool,
    requirement: &'static str,
    connection: &str,
    expected: impl fmt::Display,
    got: impl fmt::Display,
) -> Verdict {
    if holds {
        return Ok(());
    }
    Err(Stop::Fail(Failure {
        requirement,
        connection: connection.to_owned(),
        expected: expected.to_string(),
        got: got.to_string(),
    }))
}

/// How the SPICE client's part of a migration went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Nothing was lost.
    Seamless,
    /// The session restarted at the target.
    SemiSeamless,
    /// The client linked afresh.
    SwitchHost,
    /// It was called off.
    Cancelled,
    /// The guest could not be moved.
    Failed,
}

/// One migration that a case went through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Migration {
    /// How it went.
    pub scheme: Scheme,
    /// From the source's last message to the target's first.
    pub client_blackout: Option<Duration>,
    /// From the guest's stop at the source to its resumption at the target.
    pub guest_downtime: Option<Duration>,
}

/// What a case works with.
pub struct Context {
    pub(crate) subject: Subject,
    /// What happened so far.
    pub trace: Trace,
    /// The hosts that the case started, in that order; they are asked for their liveness afterwards.
    pub(crate) hosts: Vec<Host>,
    /// The migrations that the case went through.
    pub(crate) migrations: Vec<Migration>,
    /// Whether a session has come up: from then on a server that serves no new client has broken.
    pub(crate) served: bool,
    /// Whether a host's password was made void: it opens to nobody any more.
    pub(crate) void: bool,
    /// What the last host was started with.
    pub(crate) setup: Setup,
    /// The password of the hosts; empty: they want none.
    pub(crate) password: String,
    /// How clients connect, if the hosts demand TLS.
    pub(crate) tls: Option<TlsConnector>,
    /// The sockets of the hosts.
    pub(crate) directory: tempfile::TempDir,
}
