//! Finding forgotten work and putting it on its outbox again.

use jiff::{SignedDuration, Timestamp};
use shop_domain::{id::OutboxId, message::Message};
use shop_harness::{bits, with_shop};
use shop_store::{
    outbox::{OutboxEntry, OutboxKind},
    unfinished::Forgotten,
};

fn at(minutes: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000) + SignedDuration::from_mins(minutes)
}

#[tokio::test]
async fn pending_work_that_left_its_outbox_is_found_when_old() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(1).await?;
        let order_id = shop.place(&[(&product, 1)], at(0)).await?;
        let adjustment_id = shop.adjust(&[(&product, 1)], at(0)).await?;
        // Still in its outbox: the relay has it.
        shop.store.orders.accept(&shop.new_order(&[(&product, 1)], at(0))?).await?;

        let unfinished = &shop.store.unfinished;
        assert_eq!(unfinished.find(at(-1), at(14)).await?, []);
        let forgotten = |message| Forgotten { message, sweeps: 0 };
        let expected =
            [forgotten(Message::OrderPlaced { order_id }), forgotten(Message::StockAdjusted { adjustment_id })];
        assert_eq!(unfinished.find(at(0), at(15)).await?, expected);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn each_revival_is_counted_and_the_last_gives_up() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(1).await?;
        let order_id = shop.place(&[(&product, 1)], at(0)).await?;
        let unfinished = &shop.store.unfinished;
        let entry = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::OrderPlaced, at(15));
        let work = Forgotten { message: Message::OrderPlaced { order_id: order_id.clone() }, sweeps: 0 };

        assert!(unfinished.revive(&work, &entry, at(30)).await?);
        assert!(!unfinished.revive(&work, &entry, at(30)).await?, "another sweeper was faster");
        let order = shop.order(&order_id).await?;
        assert_eq!(
            (order.outbox.len(), order.sweeps.map(|sweeps| (sweeps.count, sweeps.next_at))),
            (1, Some((1, at(30))))
        );

        // The entry is sent and lost again.
        let taking = shop_store::outbox::Taking {
            claim: shop_domain::id::ClaimId::from_bits(bits()?),
            now: at(15),
            until: at(16),
            limit: 10,
        };
        let sent = shop.store.outbox.take_sends(&taking).await?;
        assert_eq!(shop.store.outbox.remove(&sent).await?, 1);
        assert_eq!(unfinished.find(at(14), at(29)).await?, []);
        let again = unfinished.find(at(15), at(30)).await?;
        assert_eq!(again, [Forgotten { sweeps: 1, ..work }]);

        assert_eq!(unfinished.stuck().await?, 0);
        assert!(unfinished.give_up(&again[0]).await?);
        assert_eq!(unfinished.stuck().await?, 1);
        assert!(shop.order(&order_id).await?.stuck);
        assert_eq!(unfinished.find(at(15), at(1_000)).await?, []);
        Ok(())
    })
    .await
}
