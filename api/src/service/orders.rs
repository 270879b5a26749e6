//! Orders: acceptance (one read, one insert), cancelling (`cancel`), and reading them through the caches.
//! Stock moves in the worker.

mod cancel;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use moka::future::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shop_domain::{
    account::Role,
    id::{ClaimId, OrderId, OutboxId, ProductId, UserId},
    money::{Currency, MoneyError},
    order::{NewOrder, PricedOrder, PricingError, Status, price},
    stock::{Demand, Shortage, shortages},
};
use shop_runtime::{
    clock::Clock,
    ids::{self, NoRandomness},
    trace,
};
use shop_store::{
    Store, StoreError,
    order_cache::OrderCache,
    orders::{AcceptError, BuyerEmail, Idempotency, Listing, NewOrderDocument, OrderDocument, Viewer},
};

pub use self::cancel::{Cancelled, NotCancellable};
pub use shop_store::{
    mails::MailReason,
    orders::{OrderView, Reason, ViewedMail},
};

use super::{page, sessions::Principal};
use crate::relay::RelayHandle;

/// A reader who polls sees a change at most this late.
const PROCESS_TTL: Duration = Duration::from_secs(1);
const ORDERS_KEPT: u64 = 50_000;

#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error("nothing is sold at this location")]
    UnknownLocation,
    #[error("unknown products")]
    UnknownProducts(Vec<ProductId>),
    #[error("the total has changed")]
    TotalChanged { present: Box<PricedOrder>, currency: Currency },
    #[error("out of stock")]
    OutOfStock(Vec<Shortage>),
    #[error("the order is too large")]
    TooLarge(#[source] MoneyError),
    #[error("the idempotency key belongs to another request")]
    KeyReused,
    #[error("cannot read or write the order")]
    Store(#[from] StoreError),
    #[error("cannot read the order")]
    SharedRead(#[source] Arc<Miss>),
    #[error("the order cannot be cancelled any more")]
    NotCancellable { status: Status, why: NotCancellable },
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// An accepted order, or the one that was accepted before under the same key.
#[derive(Debug, Clone)]
pub struct Placed {
    pub order: OrderView,
    pub replayed: bool,
}

/// Where a page of orders ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCursor {
    at: Timestamp,
    id: OrderId,
}

/// A page of orders, newest first.
#[derive(Debug, Clone)]
pub struct OrderPage {
    pub orders: Vec<OrderView>,
    pub next: Option<OrderCursor>,
}

/// What a client asks of the list.
#[derive(Debug, Clone)]
pub struct OrderQuery {
    pub status: Option<Status>,
    pub cursor: Option<OrderCursor>,
    pub limit: i64,
}

/// The orders of the shop; clones share the process's cache.
#[derive(Clone)]
pub struct Orders {
    store: Store,
    redis: OrderCache,
    relay: RelayHandle,
    clock: Clock,
    currency: Currency,
    cancel_window: SignedDuration,
    /// Per viewer: one viewer's miss must not become another's.
    views: Cache<(OrderId, Scope), Arc<OrderView>>,
}

/// Whose orders a read may find; None is everyone's, for staff.
type Scope = Option<UserId>;

/// Why there is nothing to keep in the cache.
#[derive(Debug, thiserror::Error)]
pub enum Miss {
    #[error("no such order for this viewer")]
    Absent,
    #[error("cannot read the order")]
    Store(#[from] StoreError),
}

/// What the service works with.
pub struct OrdersDeps {
    pub store: Store,
    pub redis: OrderCache,
    pub relay: RelayHandle,
    pub clock: Clock,
    pub currency: Currency,
    /// How long after it was processed a customer may cancel an order.
    pub cancel_window: SignedDuration,
}

impl Orders {
    pub fn new(deps: OrdersDeps) -> Self {
        let OrdersDeps { store, redis, relay, clock, currency, cancel_window } = deps;
        let views = Cache::builder().max_capacity(ORDERS_KEPT).time_to_live(PROCESS_TTL).build();
        Self { store, redis, relay, clock, currency, cancel_window, views }
    }

    /// Accepts an order, once per key.
    pub async fn place(&self, buyer: &Principal, order: &NewOrder, key: Option<String>) -> Result<Placed, OrderError> {
        let idempotency = key.map(|key| Idempotency { key, body_hash: body_hash(order) });
        if let Some(placed) = self.replay(buyer, idempotency.as_ref()).await? {
            return Ok(placed);
        }
        let priced = self.check(order).await?;
        let new = self.document(buyer, order, priced, idempotency)?;
        match self.store.orders.accept(&new).await {
            Ok(accepted) => {
                self.relay.offer(accepted.send);
                tracing::info!(order = %new.id, lines = new.lines.len(), "order accepted");
                Ok(Placed { order: accepted.document.view(), replayed: false })
            }
            // The twin was faster: its order is the answer.
            Err(AcceptError::DuplicateKey) => {
                let twin = self.replay(buyer, new.idempotency.as_ref()).await?;
                twin.ok_or(OrderError::Store(StoreError::Stale { what: "orders" }))
            }
            Err(AcceptError::Store(error)) => Err(error.into()),
        }
    }

    /// The order, if the viewer may see it. The owner is compared whatever the answer's source.
    pub async fn find(&self, viewer: &Principal, id: &OrderId) -> Result<Option<Arc<OrderView>>, OrderError> {
        let read = self.views.try_get_with((id.clone(), scope_of(viewer)), self.read(viewer, id)).await;
        match read {
            Ok(view) => Ok(Some(view).filter(|view| may_see(viewer, view))),
            Err(miss) if matches!(*miss, Miss::Absent) => Ok(None),
            Err(miss) => Err(OrderError::SharedRead(miss)),
        }
    }

    /// The order at `version` or later, whatever the caches still say. For those who have heard of the change.
    pub async fn find_newer(
        &self,
        viewer: &Principal,
        id: &OrderId,
        version: i64,
    ) -> Result<Option<Arc<OrderView>>, OrderError> {
        let key = (id.clone(), scope_of(viewer));
        if self.views.get(&key).await.is_some_and(|view| view.version < version) {
            self.views.invalidate(&key).await;
        }
        let found = self.find(viewer, id).await?;
        if found.as_ref().is_none_or(|view| view.version >= version) {
            return Ok(found);
        }
        let Some(order) = self.stored(viewer, id).await? else { return Ok(None) };
        let view = Arc::new(order.view());
        self.views.insert(key, Arc::clone(&view)).await;
        self.redis.put(&view).await;
        Ok(Some(view))
    }

    /// Tells the caches, and with them the other replicas, what an order has become.
    pub async fn announce(&self, view: &OrderView) {
        for scope in [Some(view.user_id.clone()), None] {
            self.views.invalidate(&(view.id.clone(), scope)).await;
        }
        self.redis.put(view).await;
    }

    /// A page of the viewer's orders; staff see all.
    pub async fn list(&self, viewer: &Principal, query: OrderQuery) -> Result<OrderPage, OrderError> {
        let listing = Listing {
            viewer: viewer_of(viewer),
            status: query.status,
            after: query.cursor.map(|cursor| (cursor.at, cursor.id)),
            limit: page::asked(query.limit),
        };
        let mut orders: Vec<_> = self.store.orders.list(&listing).await?.iter().map(OrderDocument::view).collect();
        let next = page::cut(&mut orders, query.limit, |last| OrderCursor { at: last.created_at, id: last.id.clone() });
        Ok(OrderPage { orders, next })
    }

    async fn replay(&self, buyer: &Principal, key: Option<&Idempotency>) -> Result<Option<Placed>, OrderError> {
        let Some(idempotency) = key else { return Ok(None) };
        let Some(first) = self.store.orders.find_by_key(&buyer.user, &idempotency.key).await? else { return Ok(None) };
        if first.idempotency.as_ref().is_some_and(|known| known.body_hash == idempotency.body_hash) {
            Ok(Some(Placed { order: first.view(), replayed: true }))
        } else {
            Err(OrderError::KeyReused)
        }
    }

    /// Prices and checks the order against one read of the catalogue and the stock.
    async fn check(&self, order: &NewOrder) -> Result<PricedOrder, OrderError> {
        let read = self.store.offers.at(order.location(), order.lines().keys()).await?;
        if !read.location_known {
            return Err(OrderError::UnknownLocation);
        }
        let priced = price(order, &read.offers, self.currency).map_err(|error| match error {
            PricingError::UnknownProducts(ids) => OrderError::UnknownProducts(ids),
            PricingError::TotalChanged(present) => {
                OrderError::TotalChanged { present: Box::new(present), currency: self.currency }
            }
            PricingError::Money(error) => OrderError::TooLarge(error),
        })?;
        let short = shortages(&read.stock, &demand(order));
        if short.is_empty() { Ok(priced) } else { Err(OrderError::OutOfStock(short)) }
    }

    fn document(
        &self,
        buyer: &Principal,
        order: &NewOrder,
        priced: PricedOrder,
        idempotency: Option<Idempotency>,
    ) -> Result<NewOrderDocument, OrderError> {
        Ok(NewOrderDocument {
            id: OrderId::from_bits(ids::random_bytes()?),
            user_id: buyer.user.clone(),
            email: BuyerEmail::new(buyer.email.clone()),
            location: order.location().clone(),
            lines: priced.lines,
            total: priced.total,
            currency: self.currency,
            idempotency,
            entry: OutboxId::from_bits(ids::random_bytes()?),
            claim: ClaimId::from_bits(ids::random_bytes()?),
            now: self.clock.now(),
            traceparent: trace::current(),
        })
    }

    async fn read(&self, viewer: &Principal, id: &OrderId) -> Result<Arc<OrderView>, Miss> {
        if let Some(view) = self.redis.get(id).await {
            return if may_see(viewer, &view) { Ok(Arc::new(view)) } else { Err(Miss::Absent) };
        }
        let order = self.stored(viewer, id).await?.ok_or(Miss::Absent)?;
        let view = order.view();
        self.redis.put(&view).await;
        Ok(Arc::new(view))
    }

    /// Several may wait for this one answer, and streams are under no request's limit: it must not outlast an outage.
    async fn stored(&self, viewer: &Principal, id: &OrderId) -> Result<Option<OrderDocument>, StoreError> {
        self.store.gate.guard(self.store.orders.find(id, &viewer_of(viewer))).await
    }
}

fn scope_of(principal: &Principal) -> Scope {
    match principal.role {
        Role::Staff => None,
        Role::Customer => Some(principal.user.clone()),
    }
}

fn viewer_of(principal: &Principal) -> Viewer {
    scope_of(principal).map_or(Viewer::Staff, Viewer::Owner)
}

fn may_see(viewer: &Principal, order: &OrderView) -> bool {
    viewer.role == Role::Staff || viewer.user == order.user_id
}

fn demand(order: &NewOrder) -> Demand {
    let placeholder = OrderId::from_bits([0; 12]); // not stored: the order has no id yet
    Demand { order_id: placeholder, location: order.location().clone(), lines: order.lines().clone() }
}

/// A digest of what the order asks for: two bodies that mean the same have the same one.
fn body_hash(order: &NewOrder) -> String {
    let lines: BTreeMap<_, _> = order.lines().iter().map(|(id, quantity)| (id.as_str(), quantity)).collect();
    let total = order.total().map(|total| total.normalize().to_string());
    let text = serde_json::json!([order.location().as_str(), total, lines]).to_string();
    hex::encode(Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use shop_domain::order::{RawItem, RawOrder};

    use super::*;

    const MOUSE: &str = "67c8830b7ef1b848ac52ebec";
    const LAMP: &str = "67c8830b7ef1b848ac52ebee";

    fn order(location: &str, total: Option<&str>, items: &[(&str, i64)]) -> NewOrder {
        let item = |&(id, quantity): &(&str, i64)| RawItem { product_id: id.into(), quantity };
        let total = total.map(|text| text.parse().unwrap());
        NewOrder::parse(&RawOrder { location: location.into(), total, items: items.iter().map(item).collect() })
            .unwrap()
    }

    #[rstest]
    #[case(order("pune", Some("1.50"), &[(LAMP, 2), (MOUSE, 1)]), true)] // another order of lines, another spelling
    #[case(order("pune", Some("1.5"), &[(MOUSE, 1), (LAMP, 1), (LAMP, 1)]), true)]
    #[case(order("pune", None, &[(MOUSE, 1), (LAMP, 2)]), false)]
    #[case(order("pune", Some("1.5"), &[(MOUSE, 1), (LAMP, 3)]), false)]
    #[case(order("agra", Some("1.5"), &[(MOUSE, 1), (LAMP, 2)]), false)]
    fn bodies_that_mean_the_same_are_the_same(#[case] other: NewOrder, #[case] same: bool) {
        let first = order("pune", Some("1.5"), &[(MOUSE, 1), (LAMP, 2)]);
        assert_eq!(body_hash(&first) == body_hash(&other), same);
    }
}
