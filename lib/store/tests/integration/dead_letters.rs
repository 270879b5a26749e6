//! Finding what was given up, and taking it up again, once.

use jiff::{SignedDuration, Timestamp};
use shop_domain::{
    id::{OrderId, OutboxId},
    message::Message,
    order::{FailureClass, Status},
};
use shop_harness::{Shop, bits, with_shop};
use shop_store::{
    dead_letters::{DeadCause, DeadLetter},
    orders::{LastFailure, Reason, Settlement},
    outbox::{OutboxEntry, OutboxKind},
    unfinished::Forgotten,
};

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000)
}

fn failure() -> LastFailure {
    LastFailure { class: FailureClass::Timeout, deliveries: 10, at: now() }
}

async fn pending(shop: &Shop) -> anyhow::Result<OrderId> {
    let product = shop.stocked(1).await?;
    shop.place(&[(&product, 1)], now()).await
}

/// The order fails for this reason.
fn fails(id: &OrderId, reason: Reason) -> Settlement {
    let (from, to) = (Status::Pending, Status::Failed);
    let (shortages, outbox) = (Vec::new(), Vec::new());
    Settlement { id: id.clone(), from, to, reason: Some(reason), shortages, outbox, at: now() }
}

fn anew(letter: &DeadLetter) -> anyhow::Result<[(DeadLetter, OutboxEntry); 1]> {
    let entry = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::from(&letter.message), now());
    Ok([(letter.clone(), entry)])
}

#[tokio::test]
async fn only_what_the_worker_gave_up_is_dead_and_it_is_reopened_once() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (given_up, short, waiting) = (pending(&shop).await?, pending(&shop).await?, pending(&shop).await?);
        assert!(shop.store.orders.give_up(&fails(&given_up, Reason::ProcessingFailed), &failure()).await?);
        assert!(shop.store.orders.settle(&fails(&short, Reason::OutOfStock)).await?);
        let dead = &shop.store.dead_letters;
        for sound in [&short, &waiting] {
            assert_eq!(dead.of_order(sound.as_str()).await?, None);
        }
        let letters = dead.list(None, 10).await?;
        let message = Message::OrderPlaced { order_id: given_up.clone() };
        let (cause, failure, created_at, updated_at) = (DeadCause::Failed, Some(failure()), now(), now());
        assert_eq!(letters, [DeadLetter { message, cause, failure, created_at, updated_at }]);

        let (one, other) = (anew(&letters[0])?, anew(&letters[0])?);
        let (one, other) = tokio::join!(dead.redrive(&one, now()), dead.redrive(&other, now()));
        assert_eq!((one?.0 + other?.0, dead.of_order(given_up.as_str()).await?), (1, None));
        let order = shop.order(&given_up).await?;
        assert_eq!((order.status, order.reason, order.failure), (Status::Pending, Some(Reason::Reopened), None));
        assert_eq!((order.version, order.history.len(), order.outbox.len()), (3, 3, 1));

        // Nor does the state table let anything else out of a failure.
        let reopen = Settlement {
            from: Status::Failed,
            to: Status::Pending,
            reason: Some(Reason::Reopened),
            ..fails(&short, Reason::OutOfStock)
        };
        assert!(!shop.store.orders.settle(&reopen).await?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn stuck_work_is_dead_until_it_is_done() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let id = pending(&shop).await?;
        let message = Message::OrderPlaced { order_id: id.clone() };
        assert!(shop.store.unfinished.give_up(&Forgotten { message, sweeps: 0 }).await?);
        let dead = &shop.store.dead_letters;
        let letter = dead.of_order(id.as_str()).await?.map(|letter| (letter.cause, letter.failure));
        assert_eq!(letter, Some((DeadCause::Stuck, None)));
        // Its message was not lost after all.
        let processed = Settlement { to: Status::Processed, reason: None, ..fails(&id, Reason::OutOfStock) };
        assert!(shop.store.orders.settle(&processed).await?);
        assert_eq!(dead.list(None, 10).await?, []);
        assert_eq!((shop.store.unfinished.stuck().await?, shop.order(&id).await?.stuck), (0, false));
        Ok(())
    })
    .await
}
