//! One holder at a time.

use jiff::{SignedDuration, Timestamp};
use shop_harness::with_shop;
use shop_store::leases::LeaseRequest;

fn wish(holder: &str, second: i64) -> LeaseRequest {
    let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second);
    LeaseRequest { name: "mailer", holder: holder.into(), now, until: now + SignedDuration::from_secs(15) }
}

#[tokio::test]
async fn a_lease_has_one_holder_until_it_ends_or_is_given_back() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let leases = &shop.store.leases;
        assert!(leases.hold(&wish("a", 0)).await?);
        assert!(!leases.hold(&wish("b", 14)).await?);
        assert!(leases.hold(&wish("a", 14)).await?, "renewed");
        assert!(!leases.hold(&wish("b", 15)).await?);
        assert!(leases.hold(&wish("b", 29)).await?, "taken over");
        leases.release("mailer", "a").await?;
        assert!(!leases.hold(&wish("a", 30)).await?, "only the holder gives back");
        leases.release("mailer", "b").await?;
        assert!(leases.hold(&wish("a", 30)).await?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn of_many_at_once_one_gets_it() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let names: Vec<String> = (0..8).map(|n| n.to_string()).collect();
        let wishes: Vec<_> = names.iter().map(|name| wish(name, 0)).collect();
        let held = futures::future::try_join_all(wishes.iter().map(|wish| shop.store.leases.hold(wish))).await?;
        assert_eq!(held.into_iter().filter(|held| *held).count(), 1);
        Ok(())
    })
    .await
}
