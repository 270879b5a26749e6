//! Accepting, finding, listing and settling orders.

use jiff::{SignedDuration, Timestamp};
use shop_domain::{id::UserId, order::Status};
use shop_harness::{bits, with_shop};
use shop_store::{
    StoreError,
    orders::{AcceptError, Idempotency, Listing, Reason, Settlement, Viewer},
    outbox::{OutboxEntry, OutboxKind},
};

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000)
}

#[tokio::test]
async fn an_accepted_order_is_found_by_its_owner_and_by_staff_only() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(5).await?;
        let new = shop.new_order(&[(&product, 2)], now())?;
        let accepted = shop.store.orders.accept(&new).await?;
        let find = async |viewer| shop.store.orders.find(&new.id, &viewer).await;

        assert_eq!(find(Viewer::Owner(new.user_id.clone())).await?, Some(accepted.document.clone()));
        assert_eq!(find(Viewer::Staff).await?, Some(accepted.document.clone()));
        assert_eq!(find(Viewer::Owner(UserId::from_bits(bits()?))).await?, None);
        let entry = &accepted.document.outbox[0];
        assert_eq!((entry.kind, entry.claim.as_ref()), (OutboxKind::OrderPlaced, Some(&new.claim)));
        assert_eq!(entry.due_at, now() + SignedDuration::from_secs(5));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_key_accepts_one_order_of_a_user() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(5).await?;
        let idempotency = Some(Idempotency { key: "k".into(), body_hash: "h".into() });
        let mut first = shop.new_order(&[(&product, 1)], now())?;
        first.idempotency.clone_from(&idempotency);
        let mut twin = shop.new_order(&[(&product, 1)], now())?;
        (twin.idempotency, twin.user_id) = (idempotency.clone(), first.user_id.clone());
        let mut stranger = shop.new_order(&[(&product, 1)], now())?;
        stranger.idempotency = idempotency;

        let orders = &shop.store.orders;
        let (one, other) = tokio::join!(orders.accept(&first), orders.accept(&twin));
        let winner = match (one, other) {
            (Ok(_), Err(AcceptError::DuplicateKey)) => &first,
            (Err(AcceptError::DuplicateKey), Ok(_)) => &twin,
            both => panic!("one of two twins is accepted, not {both:?}"),
        };
        orders.accept(&stranger).await?;
        let found = orders.find_by_key(&first.user_id, "k").await?.map(|order| order.id);
        assert_eq!(found.as_ref(), Some(&winner.id));
        assert_eq!(orders.find_by_key(&first.user_id, "other").await?, None);
        // Orders without a key never meet each other in the index.
        for _ in 0..2 {
            let mut keyless = shop.new_order(&[(&product, 1)], now())?;
            keyless.user_id = first.user_id.clone();
            orders.accept(&keyless).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn pages_are_newest_first_and_do_not_overlap() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(5).await?;
        let owner = UserId::from_bits(bits()?);
        let mut placed = Vec::new();
        for second in [1, 2, 2, 3] {
            let mut new = shop.new_order(&[(&product, 1)], now() + SignedDuration::from_secs(second))?;
            new.user_id = owner.clone();
            placed.push((second, new.id.clone()));
            shop.store.orders.accept(&new).await?;
        }
        placed.sort_unstable();
        placed.reverse();
        let mut listing =
            Listing { viewer: Viewer::Owner(owner), status: Some(Status::Pending), after: None, limit: 3 };
        let first = shop.store.orders.list(&listing).await?;
        listing.after = first.last().map(|order| (order.created_at, order.id.clone()));
        let second = shop.store.orders.list(&listing).await?;

        let listed: Vec<_> = first.iter().chain(&second).map(|order| order.id.clone()).collect();
        assert_eq!(listed, placed.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
        listing.status = Some(Status::Failed);
        assert!(shop.store.orders.list(&listing).await?.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_order_is_settled_once() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(5).await?;
        let new = shop.new_order(&[(&product, 1)], now())?;
        let accepted = shop.store.orders.accept(&new).await?;
        let settlement = Settlement {
            id: new.id.clone(),
            from: Status::Pending,
            to: Status::Failed,
            reason: Some(Reason::OutOfStock),
            shortages: Vec::new(),
            outbox: vec![OutboxEntry::due(
                shop_domain::id::OutboxId::from_bits(bits()?),
                OutboxKind::FailureMail,
                now(),
            )],
            at: now(),
        };
        let mut tx = shop.store.begin().await?;
        shop.store.orders.settle_in(&mut tx, std::slice::from_ref(&settlement)).await?;
        tx.commit().await?;
        assert_eq!(shop.order(&new.id).await?, accepted.document.settled(&settlement));

        let mut tx = shop.store.begin().await?;
        let again = shop.store.orders.settle_in(&mut tx, std::slice::from_ref(&settlement)).await;
        assert!(matches!(again, Err(StoreError::Stale { .. })), "{again:?}");
        tx.abort().await;
        assert!(!shop.store.orders.settle(&settlement).await?);
        assert_eq!(shop.order(&new.id).await?.version, 2);
        Ok(())
    })
    .await
}
