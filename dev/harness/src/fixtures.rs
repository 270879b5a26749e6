//! Products, stock and orders for tests.

use std::collections::BTreeMap;

use anyhow::Context;
use jiff::Timestamp;
use mongodb::{
    Client, Collection,
    bson::{Document, deserialize_from_bson, doc},
};
use secrecy::ExposeSecret;
use shop_domain::{
    account::Role,
    id::{AdjustmentId, ClaimId, OrderId, OutboxId, ProductId, UserId},
    money::Money,
    order::{OrderLine, Status},
    stock::StockKey,
};
use shop_runtime::ids;
use shop_store::{
    adjustments::NewAdjustment,
    orders::{BuyerEmail, NewOrderDocument, OrderDocument, Reason, Settlement, Viewer},
    outbox::{OutboxEntry, OutboxKind, PendingSend},
    products::{ProductFacts, Search, Sort, StockFilter},
    stock::{Cause, Crossing, Movement},
    users::User,
};

use crate::Shop;

/// Fresh bits for an id.
pub fn bits() -> anyhow::Result<[u8; 12]> {
    Ok(ids::random_bytes()?)
}

/// The buyer of all test orders.
pub fn buyer() -> BuyerEmail {
    BuyerEmail::new("buyer@example.org")
}

/// A customer's account, which no password opens: hashing one takes longer than most tests.
pub fn customer(email: impl Into<String>, now: Timestamp) -> anyhow::Result<User> {
    Ok(User {
        id: UserId::from_bits(bits()?),
        email: email.into(),
        password_hash: "no password opens this account".into(),
        role: Role::Customer,
        password_version: 0,
        known_addresses: Vec::new(),
        created_at: now,
    })
}

impl Shop {
    /// A new product with so many units at `bangalore`.
    pub async fn stocked(&self, units: i64) -> anyhow::Result<ProductId> {
        let (id, now) = (ProductId::from_bits(bits()?), Timestamp::UNIX_EPOCH);
        let facts =
            ProductFacts { name: "Mouse".into(), description: "A mouse".into(), price: Money::try_from(132_400)? };
        self.store.products.put(&id, &facts, now).await?;
        let row = self.row(&id)?;
        let movement =
            Movement { row: row.clone(), delta: units, cause: Cause::Adjustment, cause_id: "opening".into(), at: now };
        let mut tx = self.store.begin().await?;
        self.store.stock.move_in(&mut tx, &BTreeMap::from([(row.clone(), units)])).await?;
        self.store.stock.record_in(&mut tx, &[movement]).await?;
        if units > 0 {
            self.store.stock.mark_in(&mut tx, &[Crossing::Came(row)]).await?;
        }
        tx.commit().await?;
        Ok(id)
    }

    /// The product's row at `bangalore`.
    pub fn row(&self, product: &ProductId) -> anyhow::Result<StockKey> {
        Ok(StockKey { product: product.clone(), location: "bangalore".parse()? })
    }

    /// Units of the product at `bangalore`.
    pub async fn units(&self, product: &ProductId) -> anyhow::Result<i64> {
        let stock = self.store.audit.read().await?.stock;
        Ok(stock.get(&self.row(product)?).copied().unwrap_or(0))
    }

    /// An order that could be accepted now.
    pub fn new_order(&self, lines: &[(&ProductId, u32)], now: Timestamp) -> anyhow::Result<NewOrderDocument> {
        let unit_price = Money::try_from(132_400)?;
        let line = |&(product_id, quantity): &(&ProductId, u32)| {
            let (product_id, name) = (product_id.clone(), "Mouse".to_owned());
            Ok(OrderLine { product_id, name, quantity, unit_price, total: unit_price.times(quantity)? })
        };
        let lines = lines.iter().map(line).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(NewOrderDocument {
            id: OrderId::from_bits(bits()?),
            user_id: UserId::from_bits(bits()?),
            email: buyer(),
            location: "bangalore".parse()?,
            total: Money::sum(lines.iter().map(|line| line.total))?,
            lines,
            currency: "INR".parse()?,
            idempotency: None,
            entry: OutboxId::from_bits(bits()?),
            claim: ClaimId::from_bits(bits()?),
            now,
            traceparent: None,
        })
    }

    /// Accepts an order as the api does, and sends its message as the relay does.
    pub async fn place(&self, lines: &[(&ProductId, u32)], now: Timestamp) -> anyhow::Result<OrderId> {
        let accepted = self.store.orders.accept(&self.new_order(lines, now)?).await?;
        self.send(&accepted.send.message.to_body()).await?;
        self.store.outbox.remove(std::slice::from_ref(&accepted.send)).await?;
        Ok(accepted.document.id)
    }

    /// Accepts an adjustment at `bangalore` and sends its message.
    pub async fn adjust(&self, lines: &[(&ProductId, i64)], now: Timestamp) -> anyhow::Result<AdjustmentId> {
        let send = self.adjust_unsent(lines, now).await?;
        self.send(&send.message.to_body()).await?;
        self.store.outbox.remove(std::slice::from_ref(&send)).await?;
        Ok(send.message.group().parse()?)
    }

    /// Accepts an adjustment at `bangalore`; its message stays in the outbox.
    pub async fn adjust_unsent(&self, lines: &[(&ProductId, i64)], now: Timestamp) -> anyhow::Result<PendingSend> {
        let new = NewAdjustment {
            id: AdjustmentId::from_bits(bits()?),
            location: "bangalore".parse()?,
            reason: "delivery".into(),
            lines: lines.iter().map(|&(product, delta)| (product.clone(), delta)).collect(),
            by: UserId::from_bits(bits()?),
            entry: OutboxId::from_bits(bits()?),
            claim: ClaimId::from_bits(bits()?),
            now,
            traceparent: None,
        };
        Ok(self.store.adjustments.accept(&new).await?)
    }

    /// The order as it is now.
    pub async fn order(&self, id: &OrderId) -> anyhow::Result<OrderDocument> {
        let found = self.store.orders.find(id, &Viewer::Staff).await?;
        found.ok_or_else(|| anyhow::anyhow!("no order {id}"))
    }

    /// The order as soon as it is settled.
    pub async fn settled(&self, id: &OrderId) -> anyhow::Result<OrderDocument> {
        crate::eventually("the order is settled", async || {
            let order = self.order(id).await?;
            Ok(order.status.is_settled().then_some(order))
        })
        .await
    }

    /// How many orders have anything in their outbox.
    pub async fn waiting_sends(&self) -> anyhow::Result<u64> {
        Ok(self.raw("orders").await?.count_documents(doc! { "outbox.0": { "$exists": true } }).await?)
    }

    /// Whether a search for products in stock at `bangalore` finds the product.
    pub async fn is_on_shelf(&self, product: &ProductId) -> anyhow::Result<bool> {
        let search = Search {
            terms: Vec::new(),
            stock: Some(StockFilter::At("bangalore".parse()?)),
            min_price: None,
            max_price: None,
            sort: Sort::Name,
            after: None,
            limit: 100,
        };
        Ok(self.store.products.search(&search).await?.iter().any(|found| found.id == *product))
    }

    /// Cancels an order that nobody has worked on. False when somebody was faster.
    pub async fn cancel_pending(&self, id: &OrderId, now: Timestamp) -> anyhow::Result<bool> {
        let mail = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::CancellationMail, now);
        let cancellation = Settlement {
            id: id.clone(),
            from: Status::Pending,
            to: Status::Cancelled,
            reason: Some(Reason::Cancelled),
            shortages: Vec::new(),
            outbox: vec![mail],
            at: now,
        };
        Ok(self.store.orders.settle(&cancellation).await?)
    }

    /// Cancels a processed order as the api does: its stock is owed. False when it is not processed.
    pub async fn cancel_processed(&self, id: &OrderId) -> anyhow::Result<bool> {
        let change = doc! { "$set": { "status": "Cancelled", "restock": "Owed" }, "$inc": { "version": 1_i64 } };
        let processed = doc! { "_id": id.as_str(), "status": "Processed" };
        Ok(self.raw("orders").await?.update_one(processed, change).await?.matched_count == 1)
    }

    /// Makes the order's document unreadable, as a fault in some later version might.
    pub async fn spoil(&self, id: &OrderId) -> anyhow::Result<()> {
        self.rewrite(("orders", id.as_str()), doc! { "$set": { "kept": "$lines", "lines": "spoiled" } }).await
    }

    /// Makes a spoiled order readable again.
    pub async fn mend(&self, id: &OrderId) -> anyhow::Result<()> {
        self.rewrite(("orders", id.as_str()), doc! { "$set": { "lines": "$kept" } }).await
    }

    /// The same for an adjustment.
    pub async fn spoil_adjustment(&self, id: &AdjustmentId) -> anyhow::Result<()> {
        self.rewrite(("adjustments", id.as_str()), doc! { "$set": { "kept": "$lines", "lines": "spoiled" } }).await
    }

    pub async fn mend_adjustment(&self, id: &AdjustmentId) -> anyhow::Result<()> {
        self.rewrite(("adjustments", id.as_str()), doc! { "$set": { "lines": "$kept" } }).await
    }

    async fn rewrite(&self, (collection, id): (&str, &str), change: Document) -> anyhow::Result<()> {
        self.raw(collection).await?.update_one(doc! { "_id": id }, vec![change]).await?;
        Ok(())
    }

    /// Status and reason of an order, also of one that is spoiled.
    pub async fn status_of(&self, id: &OrderId) -> anyhow::Result<(Status, Option<Reason>)> {
        let found = self.raw("orders").await?.find_one(doc! { "_id": id.as_str() }).await?;
        let found = found.with_context(|| format!("no order {id}"))?;
        let status = deserialize_from_bson(found.get("status").cloned().unwrap_or_default())?;
        let reason = found.get("reason").cloned().map(deserialize_from_bson).transpose()?;
        Ok((status, reason))
    }

    async fn raw(&self, collection: &str) -> anyhow::Result<Collection<Document>> {
        let client = Client::with_uri_str(self.servers.mongodb_uri.expose_secret()).await?;
        Ok(client.database(&self.name).collection(collection))
    }
}
