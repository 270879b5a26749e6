//! One open stream. There may be ten thousand: it holds little, and reads are boxed so that a stream that waits has no
//! room for them.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::{Change, Seat, Signal, Wish, changes};
use crate::service::{orders::OrderView, sessions::SessionError};

/// Proxies end what is silent for long.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// When an order that is known to have changed is asked for again, after it could not be read.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows one order until it is settled, its viewer is signed out, or the process leaves.
pub struct Follower {
    seat: Seat,
    wish: Wish,
    /// The version that was told last, or waits to be.
    seen: i64,
    waiting: VecDeque<Change>,
    beat: Instant,
    /// The order has a version that could not be read yet.
    behind: bool,
    ended: bool,
}

impl Follower {
    pub(super) fn new(seat: Seat, wish: Wish, order: &OrderView, changes: Vec<Change>) -> Self {
        let ended = order.status.is_settled();
        let (seen, waiting, beat) = (order.version, changes.into(), Instant::now() + HEARTBEAT);
        Self { seat, wish, seen, waiting, beat, behind: false, ended }
    }

    /// What to tell next; none at the end.
    pub async fn next(&mut self) -> Option<Signal> {
        loop {
            if let Some(change) = self.waiting.pop_front() {
                return Some(Signal::Change(change));
            }
            if self.ended {
                return None;
            }
            let again = if self.behind { Instant::now() + AGAIN } else { self.beat };
            let hub = self.seat.events.0.clone();
            let signal = tokio::select! {
                biased;
                () = hub.draining.cancelled() => Some(Signal::Leaving),
                // The sender lives as long as the seat.
                _alive = self.seat.news.changed() => Box::pin(self.catch_up()).await,
                () = tokio::time::sleep_until(again.min(self.beat)) => Box::pin(self.wake()).await,
            };
            if let Some(signal) = signal {
                self.ended = matches!(signal, Signal::Leaving | Signal::SignedOut);
                return Some(signal);
            }
        }
    }

    async fn wake(&mut self) -> Option<Signal> {
        let signal = if self.behind { self.catch_up().await } else { None };
        if signal.is_some() || Instant::now() < self.beat {
            return signal;
        }
        self.beat = Instant::now() + HEARTBEAT;
        Some(if self.may_go_on().await { Signal::Heartbeat } else { Signal::SignedOut })
    }

    /// Reads the order that has changed, for whoever may still see it.
    async fn catch_up(&mut self) -> Option<Signal> {
        let newest = *self.seat.news.borrow_and_update();
        if newest <= self.seen {
            return None;
        }
        if !self.may_go_on().await {
            return Some(Signal::SignedOut);
        }
        let read = self.seat.events.0.orders.find_newer(&self.wish.viewer, &self.wish.order, newest).await;
        match read {
            Ok(Some(order)) => {
                self.behind = order.version < newest;
                self.waiting.extend(changes(&order, Some(self.seen)));
                self.seen = self.seen.max(order.version);
                self.ended = order.status.is_settled();
            }
            // Gone: there is nothing more to tell.
            Ok(None) => self.ended = true,
            Err(error) => {
                tracing::debug!(order = %self.wish.order, %error, "a followed order cannot be read, trying again");
                self.behind = true;
            }
        }
        None
    }

    /// False only for certain: an outage ends no stream.
    async fn may_go_on(&self) -> bool {
        let checked = self.seat.events.0.sessions.authenticate(&self.wish.token).await;
        !matches!(checked, Err(SessionError::Invalid))
    }
}
