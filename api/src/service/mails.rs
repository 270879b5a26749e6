//! Sending the mails of an order again, when staff ask for it. The mailer does the sending.

use shop_domain::{id::OrderId, id::OutboxId, order::Status};
use shop_runtime::{
    clock::Clock,
    ids::{self, NoRandomness},
    trace,
};
use shop_store::{
    Store, StoreError,
    order_cache::OrderCache,
    orders::{OrderDocument, Viewer},
    outbox::OutboxEntry,
};

pub use shop_store::mails::MailKind;

#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("there is no such mail of this order")]
    NoMail(Status),
    #[error("cannot read or write the order")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// The mails of the shop's orders.
#[derive(Clone)]
pub struct OrderMails {
    store: Store,
    redis: OrderCache,
    clock: Clock,
}

impl OrderMails {
    pub fn new(store: Store, redis: OrderCache, clock: Clock) -> Self {
        Self { store, redis, clock }
    }

    /// Has a mail sent again: the one asked for, or the one of the order's present status. None when there is no such
    /// order. Asking is also the decision to try the address once more, if the mail service had rejected it. A buyer who
    /// erased their account has no mails.
    pub async fn send_again(&self, id: &OrderId, kind: Option<MailKind>) -> Result<Option<MailKind>, MailError> {
        let Some(order) = self.store.orders.find(id, &Viewer::Staff).await? else { return Ok(None) };
        let kind = mail_of(&order, kind).filter(|_| !order.email.is_erased());
        let kind = kind.ok_or(MailError::NoMail(order.status))?;
        let cleared = self.store.suppressed_addresses.clear(&order.email).await?;
        let entry = OutboxEntry::due(OutboxId::from_bits(ids::random_bytes()?), kind.entry(), self.clock.now())
            .caused_by(trace::current());
        // False: one of its kind is waiting, and goes out all the same.
        let added = self.store.mails.owe_again(id, &entry).await?;
        self.redis.expect_more(id).await;
        tracing::info!(order = %id, kind = kind.as_str(), added, address_tried_again = cleared, "mail asked for again");
        Ok(Some(kind))
    }
}

/// The mail to send: none unless the order is, or once was, what the mail says.
fn mail_of(order: &OrderDocument, asked: Option<MailKind>) -> Option<MailKind> {
    match asked {
        None => mail_for(order.status),
        Some(kind) => order.history.iter().any(|step| mail_for(step.status) == Some(kind)).then_some(kind),
    }
}

fn mail_for(status: Status) -> Option<MailKind> {
    match status {
        Status::Pending => None,
        Status::Processed => Some(MailKind::Confirmation),
        Status::Failed => Some(MailKind::Failure),
        Status::Cancelled => Some(MailKind::Cancellation),
    }
}
