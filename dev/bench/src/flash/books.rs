//! What the store says after the sale, compared with what the buyers were told. Reads only.

use std::collections::{BTreeSet, HashSet};

use anyhow::Result;
use shop_domain::{
    id::{OrderId, ProductId},
    order::Status,
};
use shop_harness::Shop;
use shop_store::{
    Store,
    orders::{Listing, OrderDocument, Reason, Viewer},
};

use super::{buy::Bought, verdict::Stored};

const PAGE: i64 = 1_000;

pub async fn read(shop: &Shop, product: &ProductId, bought: &[Bought]) -> Result<Stored> {
    let (orders, books) = (orders(&shop.store).await?, shop.store.audit.read().await?);
    let row = shop.row(product)?;
    let level = |stock: &shop_domain::stock::Stock| stock.get(&row).copied().unwrap_or(0);
    let told: BTreeSet<&OrderId> =
        bought.iter().filter_map(|bought| if let Bought::Accepted(id) = bought { Some(id) } else { None }).collect();
    let kept: BTreeSet<&OrderId> = orders.iter().map(|order| &order.id).collect();
    let count = |fits: &dyn Fn(&OrderDocument) -> bool| orders.iter().filter(|order| fits(order)).count();
    let buyers: HashSet<_> = orders.iter().map(|order| &order.user_id).collect();
    Ok(Stored {
        processed: count(&|order| order.status == Status::Processed),
        out_of_stock: count(&|order| order.status == Status::Failed && order.reason == Some(Reason::OutOfStock)),
        otherwise: count(&|order| order.status == Status::Failed && order.reason != Some(Reason::OutOfStock)),
        undecided: count(&|order| !order.status.is_settled()),
        lost: told.difference(&kept).count(),
        untold: kept.difference(&told).count(),
        doubled: orders.len() - buyers.len(),
        decided_twice: count(&|order| order.history.len() > 2),
        slowest_seconds: orders.iter().map(waited).fold(0.0, f64::max),
        redelivered: books.redelivered,
        stock: level(&books.stock),
        ledger: level(&books.ledger),
        sold_by_ledger: level(&books.sold_by_ledger),
        faults: books.faults(),
    })
}

fn waited(order: &OrderDocument) -> f64 {
    order.updated_at.duration_since(order.created_at).as_secs_f64()
}

async fn orders(store: &Store) -> Result<Vec<OrderDocument>> {
    let mut orders: Vec<OrderDocument> = Vec::new();
    loop {
        let after = orders.last().map(|order| (order.created_at, order.id.clone()));
        let listing = Listing { viewer: Viewer::Staff, status: None, after, limit: PAGE };
        let page = store.orders.list(&listing).await?;
        if page.is_empty() {
            return Ok(orders);
        }
        orders.extend(page);
    }
}
