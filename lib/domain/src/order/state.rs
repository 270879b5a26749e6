//! The states of an order and the moves between them: the one state table. Decides nothing about stock.

use serde::{Deserialize, Serialize};

/// Where an order stands. `Cancelled` is final, and so is `Failed`, unless the worker gave up (see [`MOVES`]);
/// `Processed` can still be cancelled within the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    Pending,
    Processed,
    Failed,
    Cancelled,
}

/// Why an order has its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Some lines could not be served; see the order's shortages.
    OutOfStock,
    /// The worker gave up after the queue's last delivery.
    ProcessingFailed,
    /// The buyer or staff cancelled.
    Cancelled,
    /// Staff had an order taken up again that the worker had given up.
    Reopened,
}

/// One row of the state table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub from: Status,
    pub to: Status,
    /// The reason that the order must have for this move; none: whatever it is.
    pub only_if: Option<Reason>,
}

const fn from(from: Status, to: Status) -> Move {
    Move { from, to, only_if: None }
}

/// The state table: the only moves there are.
pub const MOVES: [Move; 5] = [
    from(Status::Pending, Status::Processed),
    from(Status::Pending, Status::Failed),
    from(Status::Pending, Status::Cancelled),
    from(Status::Processed, Status::Cancelled),
    Move { from: Status::Failed, to: Status::Pending, only_if: Some(Reason::ProcessingFailed) },
];

impl Status {
    pub const ALL: [Self; 4] = [Self::Pending, Self::Processed, Self::Failed, Self::Cancelled];

    /// The move to `next`, if there is one.
    pub fn move_to(self, next: Self) -> Option<&'static Move> {
        MOVES.iter().find(|row| row.from == self && row.to == next)
    }

    /// Whether the order has been decided: its status is worth caching for long.
    pub fn is_settled(self) -> bool {
        self != Self::Pending
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Processed => "Processed",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OutOfStock => "out_of_stock",
            Self::ProcessingFailed => "processing_failed",
            Self::Cancelled => "cancelled",
            Self::Reopened => "reopened",
        }
    }
}

/// What kind of failure made the worker give up: for staff, without any text that could hold data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The stored document does not have the shape that this version knows.
    Unreadable,
    /// The work took longer than it may.
    Timeout,
    /// Others held the same rows for too long.
    Conflict,
    /// The database refused a write or a query.
    StoreRefused,
    /// The database could not be reached.
    StoreUnavailable,
    /// The worker itself was at fault.
    Internal,
}

impl FailureClass {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Timeout => "timeout",
            Self::Conflict => "conflict",
            Self::StoreRefused => "store_refused",
            Self::StoreUnavailable => "store_unavailable",
            Self::Internal => "internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[test]
    fn the_state_table() {
        use Status::{Cancelled, Failed, Pending, Processed};
        let moves: Vec<_> = Status::ALL
            .into_iter()
            .flat_map(|from| Status::ALL.map(|to| (from, to)))
            .filter_map(|(from, to)| from.move_to(to))
            .map(|row| (row.from, row.to, row.only_if))
            .collect();
        assert_eq!(
            moves,
            [
                (Pending, Processed, None),
                (Pending, Failed, None),
                (Pending, Cancelled, None),
                (Processed, Cancelled, None),
                (Failed, Pending, Some(Reason::ProcessingFailed)),
            ]
        );
    }

    #[rstest]
    #[case(Reason::OutOfStock)]
    #[case(Reason::ProcessingFailed)]
    #[case(Reason::Cancelled)]
    #[case(Reason::Reopened)]
    fn a_reason_is_stored_by_its_name(#[case] reason: Reason) {
        assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
    }

    #[rstest]
    #[case(FailureClass::Unreadable)]
    #[case(FailureClass::Timeout)]
    #[case(FailureClass::Conflict)]
    #[case(FailureClass::StoreRefused)]
    #[case(FailureClass::StoreUnavailable)]
    #[case(FailureClass::Internal)]
    fn a_class_is_stored_by_its_name(#[case] class: FailureClass) {
        assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
    }

    proptest! {
        /// Whatever is tried in whatever order, what is cancelled stays so, and stock is taken at most once more than it
        /// is given back.
        #[test]
        fn no_way_leads_out_of_a_cancelled_order(tries in prop::collection::vec(0..4_usize, 0..20)) {
            let (mut status, mut held) = (Status::Pending, 0_i32);
            for next in tries.into_iter().map(|at| Status::ALL[at]) {
                let Some(row) = status.move_to(next) else { continue };
                prop_assert_ne!(status, Status::Cancelled);
                held += i32::from(row.to == Status::Processed) - i32::from(row.from == Status::Processed);
                status = row.to;
                prop_assert_eq!(held, i32::from(status == Status::Processed));
            }
        }
    }
}
