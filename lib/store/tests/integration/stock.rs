//! Transactions over stock: whole or not at all, never below zero, once per cause.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use rstest::rstest;
use shop_domain::{
    id::ProductId,
    stock::{Stock, StockKey},
};
use shop_harness::{Link, Shop, eventually, with_shop};
use shop_store::{
    Store, StoreError,
    stock::{Cause, Movement},
    transaction::Transaction,
};

fn movement(row: &StockKey, delta: i64) -> Movement {
    Movement { row: row.clone(), delta, cause: Cause::Order, cause_id: "1".into(), at: Timestamp::UNIX_EPOCH }
}

/// Takes units as an order would; gives up on failure.
async fn take(shop: &Shop, product: &ProductId, units: i64) -> anyhow::Result<Result<(), StoreError>> {
    let row = shop.row(product)?;
    let mut tx = shop.store.begin().await?;
    let taken = async {
        let before = shop.store.stock.levels_in(&mut tx, [row.clone()]).await?;
        shop.store.stock.move_in(&mut tx, &BTreeMap::from([(row.clone(), -units)])).await?;
        Ok::<Stock, StoreError>(before)
    }
    .await;
    Ok(match taken {
        Ok(_) => tx.commit().await,
        Err(error) => {
            tx.abort().await;
            Err(error)
        }
    })
}

#[tokio::test]
async fn a_row_never_goes_below_zero() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(3).await?;
        take(&shop, &product, 2).await??;
        let short = take(&shop, &product, 2).await?;
        assert!(matches!(short, Err(StoreError::Stale { .. })), "{short:?}");
        assert_eq!(shop.units(&product).await?, 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_aborted_transaction_leaves_nothing() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(3).await?;
        let row = shop.row(&product)?;
        let mut tx = shop.store.begin().await?;
        shop.store.stock.move_in(&mut tx, &BTreeMap::from([(row.clone(), -3)])).await?;
        shop.store.stock.record_in(&mut tx, &[movement(&row, -3)]).await?;
        tx.abort().await;
        assert_eq!(shop.units(&product).await?, 3);
        assert!(shop.store.audit.read().await?.faults().is_empty());
        Ok(())
    })
    .await
}

/// MongoDB itself would hold the row for a minute.
#[rstest]
#[case::dropped(Link::cut, async |tx: Transaction| drop(tx))]
#[case::aborted(Link::cut, async |tx: Transaction| tx.abort().await)]
#[case::committed(Link::cut, async |tx: Transaction| { tx.commit().await.unwrap_err(); })]
#[case::dropped_in_silence(Link::strand, async |tx: Transaction| drop(tx))]
#[tokio::test]
async fn what_a_cut_off_transaction_held_is_free_when_its_owner_is_back(
    #[case] break_off: fn(&Link),
    #[case] end: impl AsyncFnOnce(Transaction),
) -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(3).await?;
        let row = shop.row(&product)?;
        let (link, uri) = Link::to_mongodb(&shop.servers.mongodb_uri).await?;
        let store = Store::connect(&uri.into(), &shop.name).await?;
        let held = async {
            store.gate.opened().await;
            let mut tx = store.begin().await?;
            store.stock.move_in(&mut tx, &BTreeMap::from([(row, -1)])).await?;
            let refused = take(&shop, &product, 1).await?;
            assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
            break_off(&link);
            store.gate.shut().await;
            end(tx).await;
            // Until the driver has given up too.
            tokio::time::sleep(Duration::from_secs(6)).await;
            link.mend();
            eventually("another takes of the row", async || match take(&shop, &product, 1).await? {
                Ok(()) => Ok(Some(())),
                Err(StoreError::Conflict(_)) => Ok(None),
                Err(error) => Err(error.into()),
            })
            .await?;
            assert_eq!(shop.units(&product).await?, 2, "nothing of the first is left");
            Ok(())
        };
        tokio::select! {
            never = store.watch() => match never {},
            outcome = held => outcome,
        }
    })
    .await
}

#[tokio::test]
async fn one_cause_moves_a_row_once() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(3).await?;
        let row = shop.row(&product)?;
        for attempt in 0..2 {
            let mut tx = shop.store.begin().await?;
            shop.store.stock.move_in(&mut tx, &BTreeMap::from([(row.clone(), -1)])).await?;
            let recorded = shop.store.stock.record_in(&mut tx, &[movement(&row, -1)]).await;
            if attempt == 0 {
                recorded?;
                tx.commit().await?;
            } else {
                assert!(matches!(recorded, Err(StoreError::Duplicate(_))), "{recorded:?}");
                tx.abort().await;
            }
        }
        assert_eq!(shop.units(&product).await?, 2);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn transactions_that_meet_on_a_row_say_so_and_lose_nothing() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(8).await?;
        let sellers = (0..12).map(async |_| {
            loop {
                match take(&shop, &product, 1).await? {
                    Ok(()) => return Ok(1),
                    Err(StoreError::Stale { .. }) => return Ok(0),
                    Err(StoreError::Conflict(_)) => tokio::task::yield_now().await,
                    Err(error) => anyhow::bail!(error),
                }
            }
        });
        let sold = futures::future::try_join_all(sellers).await?;
        assert_eq!(sold.iter().sum::<i32>(), 8);
        assert_eq!(shop.units(&product).await?, 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_gain_makes_the_row() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let row = StockKey { product: "67c8830b7ef1b848ac52ebec".parse()?, location: "new delhi".parse()? };
        assert!(!shop.store.stock.is_location(&row.location).await?);
        for _ in 0..2 {
            let mut tx = shop.store.begin().await?;
            shop.store.stock.move_in(&mut tx, &BTreeMap::from([(row.clone(), 4)])).await?;
            tx.commit().await?;
        }
        assert!(shop.store.stock.is_location(&row.location).await?);
        assert_eq!(shop.store.audit.read().await?.stock, Stock::from([(row, 8)]));
        Ok(())
    })
    .await
}
