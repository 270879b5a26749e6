//! Stock as staff see it: changes that they ask for (applied by the worker) and the ledger.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shop_domain::{
    catalogue::Location,
    id::{AdjustmentId, ClaimId, OutboxId, ProductId, UserId},
    order::FieldFault,
    stock::MAX_ADJUSTMENT_LINES,
};
use shop_runtime::{
    clock::Clock,
    ids::{self, NoRandomness},
    trace,
};
use shop_store::{Store, StoreError, adjustments::NewAdjustment, movements::LedgerSearch};

pub use shop_store::{
    adjustments::{AdjustmentDocument as Adjustment, AdjustmentStatus},
    movements::LedgerLine,
};

use super::page;
use crate::relay::RelayHandle;

const MAX_REASON: usize = 200;
/// Largest change of one row: far from where sums could overflow.
const MAX_DELTA: i64 = 1_000_000_000_000;

#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    #[error("unknown products")]
    UnknownProducts(Vec<ProductId>),
    #[error("cannot read or write the inventory")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// An adjustment as it came in: nothing checked yet.
#[derive(Debug, Clone, Default)]
pub struct RawAdjustment {
    pub location: String,
    pub reason: String,
    pub lines: Vec<(String, i64)>,
}

/// A well-formed adjustment: each product once, each change not zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdjustmentRequest {
    location: Location,
    reason: String,
    lines: BTreeMap<ProductId, i64>,
}

impl AdjustmentRequest {
    /// Checks every field and reports all faults at once; lines of the same product are summed.
    pub fn parse(raw: &RawAdjustment) -> Result<Self, Vec<FieldFault>> {
        let mut faults = Vec::new();
        let location = raw.location.parse::<Location>();
        if let Err(error) = &location {
            faults.push(FieldFault::new("/location", error.to_string()));
        }
        let reason = raw.reason.trim().to_owned();
        if reason.is_empty() || reason.chars().count() > MAX_REASON || reason.chars().any(char::is_control) {
            faults.push(FieldFault::new("/reason", format!("must have 1 to {MAX_REASON} characters")));
        }
        let lines = parse_lines(&raw.lines, &mut faults);
        match location {
            Ok(location) if faults.is_empty() => Ok(Self { location, reason, lines }),
            _ => Err(faults),
        }
    }
}

fn parse_lines(raw: &[(String, i64)], faults: &mut Vec<FieldFault>) -> BTreeMap<ProductId, i64> {
    let mut lines = BTreeMap::new();
    if raw.is_empty() || raw.len() > MAX_ADJUSTMENT_LINES {
        faults.push(FieldFault::new("/lines", format!("must have 1 to {MAX_ADJUSTMENT_LINES} lines")));
        return lines;
    }
    for (at, (product, delta)) in raw.iter().enumerate() {
        let product = product.parse::<ProductId>();
        if let Err(error) = &product {
            faults.push(FieldFault::new(format!("/lines/{at}/productId"), error.to_string()));
        }
        let fits = *delta != 0 && (-MAX_DELTA..=MAX_DELTA).contains(delta);
        if !fits {
            let detail = format!("must be a whole number from -{MAX_DELTA} to {MAX_DELTA}, and not 0");
            faults.push(FieldFault::new(format!("/lines/{at}/delta"), detail));
        }
        if let (Ok(product), true) = (product, fits) {
            *lines.entry(product).or_insert(0) += delta; // at most 10^3 · 10^12: fits
        }
    }
    lines
}

/// Where a page of the ledger ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerCursor {
    at: Timestamp,
    id: String,
}

/// A page of the ledger, newest first.
#[derive(Debug, Clone)]
pub struct LedgerPage {
    pub lines: Vec<LedgerLine>,
    pub next: Option<LedgerCursor>,
}

/// What a client asks of the ledger.
#[derive(Debug, Clone)]
pub struct LedgerQuery {
    pub product: Option<ProductId>,
    pub location: Option<Location>,
    pub cursor: Option<LedgerCursor>,
    pub limit: i64,
}

/// The inventory of the shop.
#[derive(Clone)]
pub struct Inventory {
    store: Store,
    relay: RelayHandle,
    clock: Clock,
}

impl Inventory {
    pub fn new(store: Store, relay: RelayHandle, clock: Clock) -> Self {
        Self { store, relay, clock }
    }

    /// Accepts a change of stock; the worker applies it.
    pub async fn adjust(&self, request: AdjustmentRequest, by: &UserId) -> Result<AdjustmentId, InventoryError> {
        let products: Vec<_> = request.lines.keys().cloned().collect();
        let known = self.store.products.known(&products).await?;
        let unknown: Vec<_> = products.into_iter().filter(|product| !known.contains(product)).collect();
        if !unknown.is_empty() {
            return Err(InventoryError::UnknownProducts(unknown));
        }
        let new = NewAdjustment {
            id: AdjustmentId::from_bits(ids::random_bytes()?),
            location: request.location,
            reason: request.reason,
            lines: request.lines,
            by: by.clone(),
            entry: OutboxId::from_bits(ids::random_bytes()?),
            claim: ClaimId::from_bits(ids::random_bytes()?),
            now: self.clock.now(),
            traceparent: trace::current(),
        };
        self.relay.offer(self.store.adjustments.accept(&new).await?);
        tracing::info!(adjustment = %new.id, lines = new.lines.len(), "adjustment accepted");
        Ok(new.id)
    }

    pub async fn find(&self, id: &AdjustmentId) -> Result<Option<Adjustment>, InventoryError> {
        Ok(self.store.adjustments.find(id).await?)
    }

    /// A page of the ledger.
    pub async fn ledger(&self, query: LedgerQuery) -> Result<LedgerPage, InventoryError> {
        let search = LedgerSearch {
            product: query.product,
            location: query.location,
            after: query.cursor.map(|cursor| (cursor.at, cursor.id)),
            limit: page::asked(query.limit),
        };
        let mut lines = self.store.ledger.list(&search).await?;
        let next = page::cut(&mut lines, query.limit, |last| LedgerCursor { at: last.at, id: last.id.clone() });
        Ok(LedgerPage { lines, next })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const MOUSE: &str = "67c8830b7ef1b848ac52ebec";

    fn raw(lines: &[(&str, i64)]) -> RawAdjustment {
        let lines = lines.iter().map(|&(id, delta)| (id.to_owned(), delta)).collect();
        RawAdjustment { location: "bangalore".into(), reason: "delivery".into(), lines }
    }

    #[test]
    fn lines_of_one_product_are_summed() {
        let request = AdjustmentRequest::parse(&raw(&[(MOUSE, 3), (MOUSE, -1)])).unwrap();
        assert_eq!(request.lines.into_values().collect::<Vec<_>>(), [2]);
    }

    #[rstest]
    #[case(&[], "/lines")]
    #[case(&[(MOUSE, 0)], "/lines/0/delta")]
    #[case(&[(MOUSE, i64::MIN)], "/lines/0/delta")]
    #[case(&[("mouse", 1)], "/lines/0/productId")]
    fn bad_lines_are_refused(#[case] lines: &[(&str, i64)], #[case] pointer: &str) {
        assert_eq!(AdjustmentRequest::parse(&raw(lines)).unwrap_err()[0].pointer, pointer);
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let faults = AdjustmentRequest::parse(&RawAdjustment::default()).unwrap_err();
        let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/location", "/reason", "/lines"]);
    }
}
