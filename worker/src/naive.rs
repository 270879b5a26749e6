//! Not for any shop: a worker that allocates as it must not be done, to show that `cargo xtask bench flash-sale` would
//! notice. It reads the stock, decides, and writes `stock = read - quantity`, in no transaction and on no condition.
//! Everything else is the worker itself. Compiled only with the feature `naive-allocation`, which `cargo xtask check`, the
//! tests and the images never turn on; refuses to start unless the environment says that this is a test.

use shop_domain::stock::Stock;
use shop_store::{Store, StoreError, transaction::Transaction};

use crate::decide::StockChange;

const CONSENT: &str = "SHOP_TEST_NAIVE_ALLOCATION";

/// Nobody said that this is a test.
#[derive(Debug, thiserror::Error)]
#[error("this worker oversells on purpose and is for tests only: use shop-worker, or set {CONSENT}=oversell in a test")]
pub struct NotATest;

/// Not in `config.rs`: it is no setting of the worker.
pub fn only_in_tests() -> Result<(), NotATest> {
    let consent = std::env::var_os(CONSENT).is_some_and(|value| value == "oversell");
    if consent { Ok(()) } else { Err(NotATest) }
}

/// In place of moving the stock by what was taken: forgets what others took since it was read.
pub async fn overwrite_stock(
    store: &Store,
    tx: &mut Transaction,
    (read, change): (&Stock, &StockChange),
) -> Result<(), StoreError> {
    store.stock.overwrite(read, &change.deltas).await?;
    store.stock.record_in(tx, &change.movements).await
}
