//! The one read at acceptance.

use shop_domain::{catalogue::Location, id::ProductId, stock::Stock};
use shop_harness::{bits, with_shop};

#[tokio::test]
async fn prices_and_stock_are_read_together() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (known, sold_out) = (shop.stocked(7).await?, shop.stocked(0).await?);
        let unknown = ProductId::from_bits(bits()?);
        let bangalore: Location = "bangalore".parse()?;
        let read = shop.store.offers.at(&bangalore, [&known, &sold_out, &unknown]).await?;
        assert_eq!(read.stock, Stock::from([(shop.row(&known)?, 7), (shop.row(&sold_out)?, 0)]));
        assert_eq!(read.offers.len(), 2);
        assert_eq!(read.offers[&known].price.minor(), 132_400);
        assert!(read.location_known);

        // Products without a row there, at a place that is known and at one that is not.
        assert!(shop.store.offers.at(&bangalore, [&unknown]).await?.location_known);
        let nowhere = shop.store.offers.at(&"nowhere".parse()?, [&known]).await?;
        assert!(!nowhere.location_known && nowhere.stock.is_empty() && nowhere.offers.contains_key(&known));
        Ok(())
    })
    .await
}
