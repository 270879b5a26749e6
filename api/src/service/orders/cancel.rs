//! Cancelling: of a pending order at once, of a processed one within the window, whose stock the worker puts back.

use jiff::{SignedDuration, Timestamp};
use shop_domain::{
    account::Role,
    id::{ClaimId, OrderId, OutboxId},
    message::Message,
    order::Status,
};
use shop_runtime::{
    ids::{self, NoRandomness},
    trace,
};
use shop_store::{
    StoreError,
    orders::{OrderDocument, Settlement},
    outbox::{OutboxEntry, OutboxKind, PendingSend},
};

use super::{OrderError, OrderView, Orders, Reason, viewer_of};
use crate::service::sessions::Principal;

/// How often a cancel looks again when somebody else was faster: an order has fewer moves than that.
const TRIES: u32 = 4;

/// A cancelled order.
#[derive(Debug, Clone)]
pub enum Cancelled {
    /// It held no stock.
    AtOnce(OrderView),
    /// The worker puts its stock back.
    RestockQueued(OrderView),
}

/// Why an order cannot be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotCancellable {
    AlreadyCancelled,
    Failed,
    /// It was processed too long ago for a customer to cancel it.
    WindowOver(SignedDuration),
}

/// Whether this caller may cancel an order that has had its status since `since`.
fn decide(
    role: Role,
    (status, since): (Status, Timestamp),
    window: SignedDuration,
    now: Timestamp,
) -> Result<(), NotCancellable> {
    match status {
        Status::Pending => Ok(()),
        Status::Processed if role == Role::Staff || now.duration_since(since) < window => Ok(()),
        Status::Processed => Err(NotCancellable::WindowOver(window)),
        Status::Failed => Err(NotCancellable::Failed),
        Status::Cancelled => Err(NotCancellable::AlreadyCancelled),
    }
}

impl Orders {
    /// Cancels an order, if the viewer may see it and cancel it.
    pub async fn cancel(&self, viewer: &Principal, id: &OrderId) -> Result<Option<Cancelled>, OrderError> {
        for _ in 0..TRIES {
            let Some(order) = self.store.orders.find(id, &viewer_of(viewer)).await? else { return Ok(None) };
            let now = self.clock.now();
            decide(viewer.role, (order.status, order.updated_at), self.cancel_window, now)
                .map_err(|why| OrderError::NotCancellable { status: order.status, why })?;
            let (settlement, restock) = cancellation(&order, now)?;
            if self.store.orders.settle(&settlement).await? {
                let view = order.settled(&settlement).view();
                self.announce(&view).await;
                tracing::info!(order = %id, restock = restock.is_some(), "order cancelled");
                return Ok(Some(match restock {
                    Some(send) => {
                        self.relay.offer(send);
                        Cancelled::RestockQueued(view)
                    }
                    None => Cancelled::AtOnce(view),
                }));
            }
            // Somebody was faster: look again what there is to cancel.
        }
        Err(StoreError::Stale { what: "orders" }.into())
    }
}

/// What is written, and the message to the worker when there is stock to put back.
fn cancellation(order: &OrderDocument, now: Timestamp) -> Result<(Settlement, Option<PendingSend>), NoRandomness> {
    let mail = OutboxEntry::due(OutboxId::from_bits(ids::random_bytes()?), OutboxKind::CancellationMail, now)
        .caused_by(trace::current());
    let mut settlement = Settlement {
        id: order.id.clone(),
        from: order.status,
        to: Status::Cancelled,
        reason: Some(Reason::Cancelled),
        shortages: Vec::new(),
        outbox: vec![mail],
        at: now,
    };
    if !settlement.owes_restock() {
        return Ok((settlement, None));
    }
    let (entry, claim) = (OutboxId::from_bits(ids::random_bytes()?), ClaimId::from_bits(ids::random_bytes()?));
    settlement.outbox.push(
        OutboxEntry::leased(entry.clone(), OutboxKind::OrderCancelled, claim.clone(), now).caused_by(trace::current()),
    );
    let message = Message::OrderCancelled { order_id: order.id.clone() };
    Ok((settlement, Some(PendingSend { message, entry, claim, attempts: 1, traceparent: trace::current() })))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const WINDOW: SignedDuration = SignedDuration::from_mins(30);

    #[rstest]
    #[case(Status::Pending, 10_000, Ok(()), Ok(()))]
    #[case(Status::Processed, 0, Ok(()), Ok(()))]
    #[case(Status::Processed, 29, Ok(()), Ok(()))]
    #[case(Status::Processed, 30, Err(NotCancellable::WindowOver(WINDOW)), Ok(()))]
    #[case(Status::Failed, 0, Err(NotCancellable::Failed), Err(NotCancellable::Failed))]
    #[case(Status::Cancelled, 0, Err(NotCancellable::AlreadyCancelled), Err(NotCancellable::AlreadyCancelled))]
    fn who_may_cancel_what(
        #[case] status: Status,
        #[case] minutes_ago: i64,
        #[case] customer: Result<(), NotCancellable>,
        #[case] staff: Result<(), NotCancellable>,
    ) {
        let since = Timestamp::UNIX_EPOCH;
        let now = since + SignedDuration::from_mins(minutes_ago);
        assert_eq!(decide(Role::Customer, (status, since), WINDOW, now), customer);
        assert_eq!(decide(Role::Staff, (status, since), WINDOW, now), staff);
    }

    #[test]
    fn a_window_of_zero_is_none() {
        let since = Timestamp::UNIX_EPOCH;
        let over = Err(NotCancellable::WindowOver(SignedDuration::ZERO));
        assert_eq!(decide(Role::Customer, (Status::Processed, since), SignedDuration::ZERO, since), over);
    }
}
