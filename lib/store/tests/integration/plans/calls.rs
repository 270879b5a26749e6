//! A call of every query of the store, in every form that asks MongoDB something else.

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use shop_domain::{
    account::Role,
    id::{AdjustmentId, ClaimId, OrderId, OutboxId, PasswordResetId, ProductId, SessionId, UserId},
    message::Message,
    order::{FailureClass, Status},
};
use shop_harness::{Shop, bits, buyer, customer};
use shop_store::{
    StoreError,
    adjustments::{AdjustmentOutcome, NewAdjustment},
    dead_letters::{DeadCause, DeadLetter, DeadPosition},
    leases::LeaseRequest,
    mails::{Conclusion, MailState},
    movements::LedgerSearch,
    orders::{LastFailure, Listing, OrderDocument, Reason, Settlement, Viewer},
    outbox::{OutboxEntry, OutboxKind, Taking},
    password_resets::PasswordReset,
    products::{ProductFacts, Search, Seen, Sort, StockFilter},
    sessions::{Refresh, Rotation, Session},
    stock::{Cause, Crossing, Movement},
    users::UserListing,
};

/// What a page holds at most, and the one entry that tells whether there is another.
pub const PAGE: i64 = 101;
const SORTS: [Sort; 6] = [Sort::Name, Sort::NameDown, Sort::Price, Sort::PriceDown, Sort::Oldest, Sort::Newest];

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000)
}

fn failure() -> LastFailure {
    LastFailure { class: FailureClass::Timeout, deliveries: 10, at: now() }
}

pub async fn every_call(shop: &Shop, product: &ProductId) -> anyhow::Result<()> {
    browse(shop, product).await?;
    change_products(shop, product).await?;
    ledger(shop, product).await?;
    orders(shop, product).await?;
    settle(shop, product).await?;
    outboxes(shop, product).await?;
    adjustments(shop, product).await?;
    unfinished(shop).await?;
    dead_letters(shop, product).await?;
    accounts(shop).await?;
    sessions(shop).await?;
    password_resets(shop).await?;
    suppressed_addresses(shop).await?;
    leases(shop).await
}

async fn browse(shop: &Shop, product: &ProductId) -> anyhow::Result<()> {
    let pune = || "pune".parse();
    let stocks = [
        None,
        Some(StockFilter::At(pune()?)),
        Some(StockFilter::NotAt(pune()?)),
        Some(StockFilter::Anywhere),
        Some(StockFilter::Nowhere),
    ];
    let products = &shop.store.products;
    let found = products.find(product).await?.expect("it was made before");
    for sort in SORTS {
        for stock in &stocks {
            for terms in [vec![], vec!["mou".to_owned()], vec!["mou".to_owned(), "a".to_owned()]] {
                for price in [None, Some(found.price)] {
                    for after in [None, Some(sort.position(&found))] {
                        let (terms, stock) = (terms.clone(), stock.clone());
                        let search =
                            Search { terms, stock, min_price: price, max_price: price, sort, after, limit: PAGE };
                        products.search(&search).await?;
                    }
                }
            }
        }
    }
    products.availability(&[product.clone(), ProductId::from_bits(bits()?)]).await?;
    products.known(std::slice::from_ref(product)).await?;
    shop.store.offers.at(&pune()?, [product]).await?;
    shop.store.stock.is_location(&pune()?).await?;
    Ok(())
}

async fn change_products(shop: &Shop, product: &ProductId) -> anyhow::Result<()> {
    let facts = ProductFacts { name: "Mat".into(), description: String::new(), price: 1.try_into()? };
    let seen = Seen { id: product, version: 1, now: now() };
    shop.store.products.change(seen, &facts).await?;
    shop.store.products.archive(Seen { version: 2, ..seen }).await?;
    shop.store.products.put(product, &facts, now()).await?;
    Ok(())
}

async fn ledger(shop: &Shop, product: &ProductId) -> anyhow::Result<()> {
    for product in [None, Some(product.clone())] {
        for location in [None, Some("bangalore".parse()?)] {
            for after in [None, Some((now(), "x".to_owned()))] {
                let search = LedgerSearch { product: product.clone(), location: location.clone(), after, limit: PAGE };
                shop.store.ledger.list(&search).await?;
            }
        }
    }
    Ok(())
}

async fn accepted(shop: &Shop, product: &ProductId) -> anyhow::Result<OrderDocument> {
    Ok(shop.store.orders.accept(&shop.new_order(&[(product, 1)], now())?).await?.document)
}

fn settlement(order: &OrderDocument, to: Status) -> anyhow::Result<Settlement> {
    let (id, from, at) = (order.id.clone(), order.status, now());
    let outbox = vec![OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::ConfirmationMail, at)];
    Ok(Settlement { id, from, to, reason: Some(Reason::OutOfStock), shortages: Vec::new(), outbox, at })
}

async fn orders(shop: &Shop, product: &ProductId) -> anyhow::Result<()> {
    let order = accepted(shop, product).await?;
    for viewer in [Viewer::Staff, Viewer::Owner(order.user_id.clone())] {
        shop.store.orders.find(&order.id, &viewer).await?;
        for status in [None, Some(Status::Pending)] {
            for after in [None, Some((now(), OrderId::from_bits(bits()?)))] {
                let listing = Listing { viewer: viewer.clone(), status, after, limit: PAGE };
                shop.store.orders.list(&listing).await?;
            }
        }
    }
    shop.store.orders.find_by_key(&order.user_id, "k").await?;
    shop.store.orders.versions(std::slice::from_ref(&order.id)).await?;
    shop.store.orders.record_deliveries(&order.id, 2).await?;
    shop.store.orders.settle(&settlement(&order, Status::Failed)?).await?;
    shop.store.orders.anonymise(&order.user_id).await?;
    Ok(())
}

async fn settle(shop: &Shop, product: &ProductId) -> anyhow::Result<()> {
    let order = accepted(shop, product).await?;
    let row = shop.row(product)?;
    let mut tx = shop.store.begin().await?;
    shop.store.orders.read_in(&mut tx, std::slice::from_ref(&order.id)).await?;
    shop.store.stock.levels_in(&mut tx, [row.clone()]).await?;
    shop.store.stock.move_in(&mut tx, &[(row.clone(), -1)].into()).await?;
    let (cause, cause_id) = (Cause::Order, order.id.to_string());
    let movement = Movement { row: row.clone(), delta: -1, cause, cause_id, at: now() };
    shop.store.stock.record_in(&mut tx, &[movement]).await?;
    shop.store.stock.mark_in(&mut tx, &[Crossing::Went(row)]).await?;
    shop.store.orders.settle_in(&mut tx, &[settlement(&order, Status::Processed)?]).await?;
    tx.commit().await?;
    let mut tx = shop.store.begin().await?;
    let restocked = shop.store.orders.record_restock_in(&mut tx, &order.id).await;
    assert!(matches!(restocked, Err(StoreError::Stale { .. })), "{restocked:?}");
    tx.abort().await;
    Ok(())
}

async fn outboxes(shop: &Shop, product: &ProductId) -> anyhow::Result<()> {
    accepted(shop, product).await?;
    let outbox = &shop.store.outbox;
    let later = now() + SignedDuration::from_hours(1);
    let taking =
        || Ok::<_, anyhow::Error>(Taking { claim: ClaimId::from_bits(bits()?), now: later, until: later, limit: 100 });
    outbox.release(&taking()?).await?;
    let sends = outbox.take_sends(&taking()?).await?;
    outbox.postpone(&sends, later).await?;
    outbox.remove(&sends).await?;
    shop.store.mails.release(&taking()?).await?;
    let mails = shop.store.mails.take(&taking()?).await?;
    for mail in &mails {
        shop.store.mails.postpone(mail, later).await?;
        shop.store.mails.put_back(mail, later).await?;
        let end = Conclusion { state: MailState::Sent, reason: None, attempts: 1, at: later };
        shop.store.mails.conclude(mail, &end).await?;
    }
    assert!(!sends.is_empty() && !mails.is_empty());
    let entry = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::FailureMail, now());
    assert!(shop.store.mails.owe_again(&accepted(shop, product).await?.id, &entry).await?);
    let mails = shop.store.mails.take(&taking()?).await?;
    assert!(shop.store.mails.drop(mails.first().context("the mail that is owed again")?).await?);
    Ok(())
}

async fn adjustments(shop: &Shop, product: &ProductId) -> anyhow::Result<()> {
    let id = AdjustmentId::from_bits(bits()?);
    let new = NewAdjustment {
        id: id.clone(),
        location: "bangalore".parse()?,
        reason: "delivery".into(),
        lines: [(product.clone(), 1)].into(),
        by: UserId::from_bits(bits()?),
        entry: OutboxId::from_bits(bits()?),
        claim: ClaimId::from_bits(bits()?),
        now: now(),
        traceparent: None,
    };
    shop.store.adjustments.accept(&new).await?;
    shop.store.adjustments.find(&id).await?;
    assert!(shop.store.adjustments.record_failure(&id, &failure()).await?);
    let mut tx = shop.store.begin().await?;
    shop.store.adjustments.read_in(&mut tx, &id).await?;
    shop.store.adjustments.settle_in(&mut tx, &id, (&AdjustmentOutcome::Applied, now())).await?;
    tx.commit().await?;
    Ok(())
}

async fn unfinished(shop: &Shop) -> anyhow::Result<()> {
    let (unfinished, later) = (&shop.store.unfinished, now() + SignedDuration::from_hours(1));
    let found = unfinished.find(later, later).await?;
    for work in &found {
        let entry = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::OrderPlaced, later);
        unfinished.revive(work, &entry, later).await?;
        unfinished.give_up(work).await?;
    }
    assert!(!found.is_empty());
    unfinished.stuck().await?;
    Ok(())
}

async fn dead_letters(shop: &Shop, product: &ProductId) -> anyhow::Result<()> {
    let (dead_letters, order) = (&shop.store.dead_letters, accepted(shop, product).await?);
    let given_up = Settlement { reason: Some(Reason::ProcessingFailed), ..settlement(&order, Status::Failed)? };
    assert!(shop.store.orders.give_up(&given_up, &failure()).await?);
    shop.store.orders.record_failed_restock(&order.id, &failure()).await?;
    let letter = dead_letters.of_order(order.id.as_str()).await?.context("the order that was given up")?;
    let adjustment = AdjustmentId::from_bits(bits()?);
    dead_letters.of_adjustment(adjustment.as_str()).await?;
    for after in
        [None, Some(DeadPosition::Order(order.id.to_string())), Some(DeadPosition::Adjustment(adjustment.to_string()))]
    {
        dead_letters.list(after.as_ref(), PAGE).await?;
    }
    // What failed, what is stuck, and an adjustment are each taken up by another query.
    let entry = |kind| Ok::<_, anyhow::Error>(OutboxEntry::due(OutboxId::from_bits(bits()?), kind, now()));
    let stuck = DeadLetter { cause: DeadCause::Stuck, ..letter.clone() };
    let adjusted = DeadLetter { message: Message::StockAdjusted { adjustment_id: adjustment }, ..stuck.clone() };
    let work = [
        (letter, entry(OutboxKind::OrderPlaced)?),
        (stuck, entry(OutboxKind::OrderPlaced)?),
        (adjusted, entry(OutboxKind::StockAdjusted)?),
    ];
    assert_eq!(dead_letters.redrive(&work, now()).await?, (1, 0));
    Ok(())
}

async fn accounts(shop: &Shop) -> anyhow::Result<()> {
    let (users, user) = (&shop.store.users, customer("ann@example.com", now())?);
    users.create(&user).await?;
    users.find(&user.id).await?;
    users.find_by_email(&user.email).await?;
    for prefix in ["", "an"] {
        for after in [None, Some("amy@example.com".to_owned())] {
            let prefix = prefix.to_owned();
            assert_eq!(users.list(&UserListing { prefix, after, limit: PAGE }).await?.len(), 1);
        }
    }
    // For the first time, and again.
    for _ in 0..2 {
        users.remember_address(&user.id, "digest", now()).await?;
    }
    users.set_role(&user.id, Role::Customer).await?;
    let mut tx = shop.store.begin().await?;
    assert!(users.change_password_in(&mut tx, &user, &user.password_hash).await?);
    tx.commit().await?;
    assert!(users.reset_password(&user, &user.password_hash).await?);
    users.make_staff(&user, &user.password_hash).await?;
    users.replace_hash(&user, "other").await?;
    users.remove(&user.id).await?;
    let erasures = &shop.store.erasures;
    erasures.begin(&user.id, now()).await?;
    erasures.begun_before(now()).await?;
    erasures.finish(&user.id).await?;
    Ok(())
}

async fn sessions(shop: &Shop) -> anyhow::Result<()> {
    let (sessions, user) = (&shop.store.sessions, UserId::from_bits(bits()?));
    let session = Session {
        id: SessionId::from_bits(bits()?),
        user_id: user.clone(),
        password_version: 0,
        device: None,
        address: None,
        refresh: Refresh { current_hash: "a".into(), previous_hash: None, rotated_at: None },
        created_at: now(),
        last_used_at: now(),
        expires_at: now(),
        revoked_at: None,
    };
    sessions.create(&session).await?;
    sessions.find(&session.id).await?;
    sessions.live_of(&user, now()).await?;
    sessions.rotate(&session.id, Rotation { from_hash: "a", to_hash: "b", now: now(), expires_at: now() }).await?;
    let mut tx = shop.store.begin().await?;
    sessions.keep_in(&mut tx, &session.id, 1).await?;
    tx.commit().await?;
    sessions.revoke(&session.id, now()).await?;
    sessions.revoke_of(&user, &session.id, now()).await?;
    sessions.revoke_outdated(&user, 2, now()).await?;
    sessions.revoke_all(&user, now()).await?;
    sessions.remove_all(&user).await?;
    Ok(())
}

async fn password_resets(shop: &Shop) -> anyhow::Result<()> {
    let password_resets = &shop.store.password_resets;
    let reset = PasswordReset {
        id: PasswordResetId::from_bits(bits()?),
        user_id: UserId::from_bits(bits()?),
        password_mark: "mark".into(),
        email: Some(buyer()),
        created_at: now(),
        expires_at: now(),
        outbox: vec![OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::PasswordResetMail, now())],
    };
    password_resets.create(&reset).await?;
    password_resets.find(&reset.id).await?;
    password_resets.younger(&reset, 3).await?;
    let taking = Taking { claim: ClaimId::from_bits(bits()?), now: now(), until: now(), limit: 1 };
    let mails = shop.store.mails.take(&taking).await?;
    let mail = mails.first().context("the mail of the request")?;
    assert!(shop.store.mails.put_back(mail, now()).await?);
    password_resets.remove_all(&reset.user_id).await?;
    Ok(())
}

async fn suppressed_addresses(shop: &Shop) -> anyhow::Result<()> {
    let suppressed_addresses = &shop.store.suppressed_addresses;
    suppressed_addresses.suppress(&buyer(), "MessageRejected", now()).await?;
    assert!(suppressed_addresses.among([&buyer()]).await?.contains(&buyer()));
    assert!(suppressed_addresses.clear(&buyer()).await?);
    Ok(())
}

async fn leases(shop: &Shop) -> anyhow::Result<()> {
    let wish = LeaseRequest { name: "mailer", holder: "me".into(), now: now(), until: now() };
    shop.store.leases.hold(&wish).await?;
    shop.store.leases.release("mailer", "me").await?;
    Ok(())
}
