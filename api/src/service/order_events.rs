//! Following orders: who watches which order in this process, and what each of them is told. Changes are announced
//! from outside ([`OrderEvents::news`]); what is told is read through the ordinary path. Knows no HTTP.

mod follower;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use prometheus_client::metrics::gauge::Gauge;
use shop_domain::{
    id::{OrderId, UserId},
    order::Status,
};
use shop_runtime::metrics::Metrics;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::follower::Follower;
use super::{
    orders::{OrderError, OrderView, Orders, Reason},
    sessions::{Principal, Sessions},
};

/// Streams that one account may hold open on one process: a few tabs with a few orders each.
const PER_ACCOUNT: u32 = 10;

/// A change of an order's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub version: i64,
    pub status: Status,
    pub reason: Option<Reason>,
    pub at: Timestamp,
}

/// What a follower is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Change(Change),
    /// Nothing has happened for a while.
    Heartbeat,
    /// The process is leaving: follow on another one.
    Leaving,
    /// The token has expired or its session is over.
    SignedOut,
}

/// Why an order cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("this process holds as many streams as it may")]
    Full,
    #[error("this account holds as many streams as it may")]
    FullForAccount,
    #[error(transparent)]
    Order(#[from] OrderError),
}

/// What came of the wish to follow an order.
pub enum Followed {
    Stream(Box<Follower>),
    /// Nothing will ever follow what was seen.
    Nothing,
    /// No such order for this viewer.
    Absent,
}

/// Who follows, and since when.
#[derive(Clone)]
pub struct Wish {
    pub viewer: Principal,
    /// Checked again while the stream is open.
    pub token: String,
    pub order: OrderId,
    /// The version of the last change that the client has seen.
    pub seen: Option<i64>,
}

/// What following works with.
pub struct OrderEventsDeps {
    pub orders: Orders,
    pub sessions: Sessions,
    pub max_streams: usize,
    pub draining: CancellationToken,
    pub metrics: Metrics,
}

/// The followers of this process. Cheap to clone.
#[derive(Clone)]
pub struct OrderEvents(Arc<Hub>);

struct Hub {
    orders: Orders,
    sessions: Sessions,
    max_streams: usize,
    draining: CancellationToken,
    open: Gauge,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    streams: usize,
    accounts: HashMap<UserId, u32>,
    /// The newest version that was heard of, per watched order.
    orders: HashMap<OrderId, watch::Sender<i64>>,
}

impl OrderEvents {
    pub fn new(deps: OrderEventsDeps) -> Self {
        let OrderEventsDeps { orders, sessions, max_streams, draining, metrics } = deps;
        let open = Gauge::default();
        metrics.register(|registry| {
            registry.register("shop_api_event_streams_open", "Streams of order events", open.clone());
        });
        Self(Arc::new(Hub { orders, sessions, max_streams, draining, open, table: Mutex::default() }))
    }

    /// Begins to follow an order.
    pub async fn follow(&self, wish: Wish) -> Result<Followed, FollowError> {
        // Watched before it is read: no change falls in between.
        let seat = self.sit(&wish.viewer.user, &wish.order)?;
        let Some(order) = self.0.orders.find(&wish.viewer, &wish.order).await? else { return Ok(Followed::Absent) };
        let changes = changes(&order, wish.seen);
        if changes.is_empty() && order.status.is_settled() {
            return Ok(Followed::Nothing);
        }
        Ok(Followed::Stream(Box::new(Follower::new(seat, wish, &order, changes))))
    }

    /// Wakes the followers of an order that has this version now. What they know already wakes nobody.
    pub fn news(&self, order: &OrderId, version: i64) {
        if let Some(newest) = self.table().orders.get(order) {
            newest.send_if_modified(|known| {
                let is_news = version > *known;
                *known = version.max(*known);
                is_news
            });
        }
    }

    /// The orders that are being followed.
    pub fn watched(&self) -> Vec<OrderId> {
        self.table().orders.keys().cloned().collect()
    }

    fn sit(&self, account: &UserId, order: &OrderId) -> Result<Seat, FollowError> {
        let mut table = self.table();
        if table.streams >= self.0.max_streams {
            return Err(FollowError::Full);
        }
        let held = table.accounts.entry(account.clone()).or_default();
        if *held >= PER_ACCOUNT {
            return Err(FollowError::FullForAccount);
        }
        *held += 1;
        table.streams += 1;
        self.0.open.inc();
        let news = table.orders.entry(order.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe();
        Ok(Seat { events: self.clone(), account: account.clone(), order: order.clone(), news })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's place in the table, given back when it ends.
struct Seat {
    events: OrderEvents,
    account: UserId,
    order: OrderId,
    news: watch::Receiver<i64>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.events.table();
        table.streams -= 1;
        self.events.0.open.dec();
        if let Some(held) = table.accounts.get_mut(&self.account) {
            *held -= 1;
            if *held == 0 {
                table.accounts.remove(&self.account);
            }
        }
        // The one receiver that is left is this seat's.
        if table.orders.get(&self.order).is_some_and(|newest| newest.receiver_count() <= 1) {
            table.orders.remove(&self.order);
        }
    }
}

/// What a client that has seen version `seen` is to be told: every change since, or the present status.
fn changes(order: &OrderView, seen: Option<i64>) -> Vec<Change> {
    let change = |(version, step): (i64, &shop_store::orders::ViewedStep)| Change {
        version,
        status: step.status,
        reason: step.reason,
        at: step.at,
    };
    // The history has one step per version.
    let history = (1..).zip(&order.history);
    match seen.filter(|seen| (1..=order.version).contains(seen)) {
        Some(seen) => history.filter(|(version, _)| *version > seen).map(change).collect(),
        None => history.last().map(change).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn order() -> OrderView {
        let step = |status: &str, reason: Option<&str>, second: i64| json!({ "status": status, "reason": reason, "at": Timestamp::from_second(second).unwrap() });
        serde_json::from_value(json!({
            "id": "67c8830b7ef1b848ac52ebec", "userId": "67c8830b7ef1b848ac52ebee", "location": "pune", "lines": [],
            "total": 0, "currency": "INR", "status": "Cancelled", "reason": "cancelled", "shortages": [],
            "history": [step("Pending", None, 1), step("Processed", None, 2), step("Cancelled", Some("cancelled"), 3)],
            "version": 3, "createdAt": Timestamp::from_second(1).unwrap(), "updatedAt": Timestamp::from_second(3).unwrap(),
        }))
        .unwrap()
    }

    #[rstest]
    #[case(None, &[3])]
    #[case(Some(1), &[2, 3])]
    #[case(Some(2), &[3])]
    #[case(Some(3), &[])]
    #[case(Some(4), &[3])] // of another order
    #[case(Some(0), &[3])]
    #[case(Some(-1), &[3])]
    fn a_client_is_told_what_it_has_not_seen(#[case] seen: Option<i64>, #[case] versions: &[i64]) {
        let told = changes(&order(), seen);
        assert_eq!(told.iter().map(|change| change.version).collect::<Vec<_>>(), versions);
        let last = Change {
            version: 3,
            status: Status::Cancelled,
            reason: Some(Reason::Cancelled),
            at: Timestamp::from_second(3).unwrap(),
        };
        assert!(told.last().is_none_or(|change| *change == last));
    }
}
