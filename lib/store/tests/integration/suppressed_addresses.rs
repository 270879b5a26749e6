//! Addresses that are not sent to: found in every spelling, kept without the address, until they are cleared.

use jiff::Timestamp;
use shop_harness::with_shop;
use shop_store::orders::BuyerEmail;

#[tokio::test]
async fn an_address_is_suppressed_until_it_is_cleared() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (ann, bob) = (BuyerEmail::new("ann@example.org"), BuyerEmail::new("bob@example.org"));
        let addresses = &shop.store.suppressed_addresses;
        assert!(!addresses.among([&ann, &bob]).await?.contains(&ann));
        addresses.suppress(&BuyerEmail::new("Ann@Example.org"), "MessageRejected", Timestamp::UNIX_EPOCH).await?;
        addresses.suppress(&ann, "InvalidParameterValue", Timestamp::UNIX_EPOCH).await?;
        let suppressed = addresses.among([&ann, &bob]).await?;
        assert!(suppressed.contains(&ann) && !suppressed.contains(&bob));
        assert!(addresses.clear(&ann).await?);
        assert!(!addresses.clear(&ann).await?);
        assert!(!addresses.among([&ann]).await?.contains(&ann));
        Ok(())
    })
    .await
}
