//! Changes of stock by staff, and the stock of cancelled orders.

use jiff::Timestamp;
use shop_domain::{
    id::{AdjustmentId, ProductId},
    message::Message,
    stock::MAX_ADJUSTMENT_LINES,
};
use shop_harness::{Shop, bits, eventually, with_shop};
use shop_store::adjustments::{AdjustmentDocument, AdjustmentStatus};

use crate::support::Worker;

async fn settled(shop: &Shop, id: &AdjustmentId) -> anyhow::Result<AdjustmentDocument> {
    eventually("the adjustment is settled", async || {
        let found = shop.store.adjustments.find(id).await?;
        Ok(found.filter(|adjustment| adjustment.status != AdjustmentStatus::Pending))
    })
    .await
}

#[tokio::test]
async fn an_adjustment_is_applied_once() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (old, new) = (shop.stocked(5).await?, ProductId::from_bits(bits()?));
        let worker = Worker::start(&shop, &[]).await?;
        let id = shop.adjust(&[(&old, -5), (&new, 3)], Timestamp::UNIX_EPOCH).await?;
        assert_eq!(settled(&shop, &id).await?.status, AdjustmentStatus::Applied);
        assert_eq!((shop.units(&old).await?, shop.units(&new).await?), (0, 3));
        assert!(!shop.is_on_shelf(&old).await?);

        shop.send(&Message::StockAdjusted { adjustment_id: id }.to_body()).await?;
        eventually("the repeat is found settled", async || {
            Ok(worker.text("/metrics").await?.contains(r#"outcome="AlreadySettled"} 1"#).then_some(()))
        })
        .await?;
        assert_eq!((shop.units(&old).await?, shop.units(&new).await?), (0, 3));
        assert_eq!(shop.store.audit.read().await?.faults(), Vec::<String>::new());
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_adjustment_below_zero_is_refused_whole() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (a, b) = (shop.stocked(5).await?, shop.stocked(1).await?);
        let worker = Worker::start(&shop, &[]).await?;
        let id = shop.adjust(&[(&a, 10), (&b, -2)], Timestamp::UNIX_EPOCH).await?;
        let adjustment = settled(&shop, &id).await?;
        assert_eq!(adjustment.status, AdjustmentStatus::Refused);
        assert_eq!((&adjustment.refused[0].product_id, adjustment.refused[0].available), (&b, 1));
        assert_eq!((shop.units(&a).await?, shop.units(&b).await?), (5, 1));
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_thousand_lines_are_applied_whole_once_or_not_at_all() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let products = (0..MAX_ADJUSTMENT_LINES).map(|_| Ok(ProductId::from_bits(bits()?)));
        let products = products.collect::<anyhow::Result<Vec<_>>>()?;
        let all = |delta: i64| products.iter().map(move |product| (product, delta)).collect::<Vec<_>>();
        let worker = Worker::start(&shop, &[]).await?;

        // The message is delivered three times, also while the first is in work.
        let send = shop.adjust_unsent(&all(5), Timestamp::UNIX_EPOCH).await?;
        for _ in 0..3 {
            shop.send(&send.message.to_body()).await?;
        }
        let filled: AdjustmentId = send.message.group().parse()?;
        assert_eq!(settled(&shop, &filled).await?.status, AdjustmentStatus::Applied);
        eventually("all deliveries are done with", async || {
            let counts = shop.queue.counts().await?;
            Ok((counts.visible + counts.in_flight == 0).then_some(()))
        })
        .await?;
        assert_eq!(levels(&shop).await?, vec![5; MAX_ADJUSTMENT_LINES]);

        let mut too_much = all(1);
        too_much[700].1 = -6;
        let refused = settled(&shop, &shop.adjust(&too_much, Timestamp::UNIX_EPOCH).await?).await?;
        assert_eq!((refused.status, refused.refused.len()), (AdjustmentStatus::Refused, 1));
        assert_eq!((&refused.refused[0].product_id, refused.refused[0].available), (&products[700], 5));
        assert_eq!(levels(&shop).await?, vec![5; MAX_ADJUSTMENT_LINES]);

        let emptied = settled(&shop, &shop.adjust(&all(-5), Timestamp::UNIX_EPOCH).await?).await?;
        assert_eq!(emptied.status, AdjustmentStatus::Applied);
        assert_eq!(levels(&shop).await?, vec![0; MAX_ADJUSTMENT_LINES]);
        assert_eq!(shop.store.audit.ledger_faults(shop.store.begin().await?).await?, Vec::<String>::new());
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

/// Units of every row.
async fn levels(shop: &Shop) -> anyhow::Result<Vec<i64>> {
    Ok(shop.store.audit.read().await?.stock.into_values().collect())
}
