//! The bytes that a client sends, all connections together: which message each of them belongs to, and where they are cut.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// Where the bytes of a client are cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The client is gone behind this many bytes of the connection with this name in the trace, and all its connections with it.
    End {
        /// Such as `source/main`.
        connection: String,
        /// Whether the bytes of its answers are counted, and no others, or all but those: when a server asks is not for the client to say.
        answers: bool,
        /// How many of these bytes are sent.
        after: usize,
    },
    /// Every message, and every part of the link stage, that is longer than this goes in two segments, of which the first is so long.
    Split {
        /// How many bytes the first segments have.
        after: usize,
    },
    /// Every byte goes in a segment of its own, or as many as [`step`] says.
    Bytes,
}

/// How many bytes of what has this name need not be told apart: nobody tells the bytes of a ticket apart, and to cut each of them takes
/// longer than a server waits for a client.
#[must_use]
pub fn step(name: &str) -> usize {
    if name.contains("ticket") { 8 } else { 1 }
}

/// A message, or a part of the link stage, that was sent, or would have been had the client not gone within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// What it was.
    pub name: String,
    /// Whether it only answers a message of the server, and comes when that does.
    pub is_answer: bool,
    /// How many bytes of its kind, answers or others, the connection had sent before it.
    pub start: usize,
    /// And with it.
    pub end: usize,
}

/// A shared handle on what one client sends.
#[derive(Clone, Debug)]
pub struct Wire {
    cut: Option<Cut>,
    gone: CancellationToken,
    sent: Arc<Mutex<BTreeMap<String, Vec<Sent>>>>,
}

/// How some bytes are to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Portion {
    /// All at once.
    Whole,
    /// So many of them, and after a pause the others.
    Then(usize),
    /// So many at a time, with pauses.
    Pieces(usize),
    /// So many of them, and nothing any more.
    Last(usize),
}

impl Wire {
    /// Nothing was sent on it.
    #[must_use]
    pub fn new(cut: Option<Cut>) -> Self {
        Self { cut, gone: CancellationToken::new(), sent: Arc::default() }
    }

    /// Whether the client has gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// What was sent so far on each connection.
    #[must_use]
    pub fn sent(&self) -> BTreeMap<String, Vec<Sent>> {
        self.lock().clone()
    }

    /// Completes when the client has gone.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// The last bytes are sent.
    pub(super) fn end(&self) {
        self.gone.cancel();
    }

    /// Takes note of what is about to be sent, and tells how.
    pub(super) fn portion(&self, connection: &str, name: &str, is_answer: bool, length: usize) -> Portion {
        let mut all = self.lock();
        let sent = all.entry(connection.to_owned()).or_default();
        let last = sent.iter().rfind(|sent| sent.is_answer == is_answer);
        let start = last.map_or(0, |last| last.end);
        sent.push(Sent { name: name.to_owned(), is_answer, start, end: start + length });
        match &self.cut {
            Some(Cut::End { connection: cut, answers, after }) if cut == connection && *answers == is_answer => {
                match after.checked_sub(start) {
                    Some(first) if (1..=length).contains(&first) => Portion::Last(first),
                    _ => Portion::Whole,
                }
            }
            Some(Cut::Split { after }) if *after < length => Portion::Then(*after),
            Some(Cut::Bytes) => Portion::Pieces(step(name)),
            _ => Portion::Whole,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Sent>>> {
        // A panic elsewhere leaves the lists whole: they only ever grow.
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_lies_behind_its_byte_of_its_kind_on_its_connection() {
        let portions = |after| {
            let connection = "source/main".to_owned();
            let wire = Wire::new(Some(Cut::End { connection, answers: false, after }));
            let sent =
                [("source/inputs", false), ("source/main", false), ("source/main", true), ("source/main", false)];
            let portions = sent.map(|(connection, is_answer)| wire.portion(connection, "message", is_answer, 4));
            assert_eq!(wire.sent()["source/main"].iter().map(|sent| sent.end).collect::<Vec<_>>(), [4, 4, 8]);
            portions
        };
        let whole = Portion::Whole;
        assert_eq!(portions(3), [whole, Portion::Last(3), whole, whole]);
        assert_eq!(portions(4), [whole, Portion::Last(4), whole, whole]);
        assert_eq!(portions(5), [whole, whole, whole, Portion::Last(1)]);
        assert_eq!(portions(9), [whole; 4]);
    }

    #[test]
    fn a_split_takes_nothing_away_and_needs_two_parts() {
        let wire = Wire::new(Some(Cut::Split { after: 2 }));
        let portion = |length| wire.portion("source/main", "message", false, length);
        assert_eq!([4, 3, 2].map(portion), [Portion::Then(2), Portion::Then(2), Portion::Whole]);
    }

    #[test]
    fn the_bytes_of_a_ticket_go_eight_at_a_time_and_all_others_by_themselves() {
        let wire = Wire::new(Some(Cut::Bytes));
        let portion = |name| wire.portion("source/main", name, false, 132);
        assert_eq!(["ticket", "INIT"].map(portion), [Portion::Pieces(8), Portion::Pieces(1)]);
    }

    #[test]
    fn a_client_is_gone_when_its_last_bytes_are_sent() {
        let wire = Wire::new(Some(Cut::End { connection: "source/main".to_owned(), answers: false, after: 1 }));
        assert!(!wire.is_gone());
        wire.clone().end();
        assert!(wire.is_gone());
    }
}
