//! Every query of the store is answered by an index. The server records what a run of all calls asks of it, and is then
//! asked how it would answer each: no scan of a collection, and no sort in memory beyond a page.
//! A new query belongs into [`every_call`]. `audit` reads whole collections, and is left out.

use jiff::{SignedDuration, Timestamp};
use mongodb::{
    Client, Database,
    bson::{Bson, Document, doc},
};
use secrecy::ExposeSecret;
use shop_domain::{
    account::Role,
    id::{AdjustmentId, ClaimId, OrderId, OutboxId, ProductId, SessionId, UserId},
    order::Status,
};
use shop_harness::{Shop, bits, with_shop};
use shop_store::{
    StoreError,
    adjustments::AdjustmentOutcome,
    leases::LeaseRequest,
    mails::{Conclusion, MailState},
    movements::LedgerSearch,
    orders::{Listing, OrderDocument, Reason, Settlement, Viewer},
    outbox::{OutboxEntry, OutboxKind, Taking},
    products::{ProductFacts, Search, Seen, Sort, StockFilter},
    sessions::{Refresh, Rotation, Session},
    users::User,
};

/// What a page holds at most, and the one entry that tells whether there is another.
const PAGE: i64 = 101;
const SORTS: [Sort; 6] = [Sort::Name, Sort::NameDown, Sort::Price, Sort::PriceDown, Sort::Oldest, Sort::Newest];

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000)
}

#[tokio::test]
async fn every_query_is_on_an_index() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let database = Client::with_uri_str(shop.servers.mongodb_uri.expose_secret()).await?.database(&shop.name);
        let product = shop.stocked(50).await?;
        database.run_command(doc! { "profile": 2 }).await?;
        every_call(&shop, &product).await?;
        database.run_command(doc! { "profile": 0 }).await?;

        let queries = recorded(&database).await?;
        assert!(queries.len() > 100, "only {} queries were recorded", queries.len());
        let mut faults = Vec::new();
        for query in queries {
            let explained = database.run_command(doc! { "explain": &query, "verbosity": "queryPlanner" }).await?;
            let mut found = Vec::new();
            inspect(&Bson::from(explained), &mut found);
            faults.extend(found.into_iter().map(|fault| format!("{fault}: {query}")));
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    })
    .await
}

/// What was asked, each question once, as commands that can be explained.
async fn recorded(database: &Database) -> anyhow::Result<Vec<Document>> {
    let mut queries = Vec::<Document>::new();
    let mut profile = database.collection::<Document>("system.profile").find(doc! {}).await?;
    while profile.advance().await? {
        let entry = profile.deserialize_current()?;
        let collection = entry.get_str("ns")?.split_once('.').map_or("", |(_, name)| name);
        if let (false, Some(query)) =
            (collection.starts_with("system."), query(collection, entry.get_document("command")?))
            && !queries.contains(&query)
        {
            queries.push(query);
        }
    }
    Ok(queries)
}

/// How documents are looked up by a command; None when it looks nothing up.
fn query(collection: &str, command: &Document) -> Option<Document> {
    if command.contains_key("find") {
        return Some(only(command, &["find", "filter", "sort", "limit", "projection"]));
    }
    if command.contains_key("aggregate") {
        return Some(only(command, &["aggregate", "pipeline", "cursor"]));
    }
    let filter = command.get("q").or_else(|| command.get("query"))?;
    Some(doc! { "find": collection, "filter": filter })
}

fn only(command: &Document, names: &[&str]) -> Document {
    let kept = command.iter().filter(|(name, _)| names.contains(&name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Collects what is wrong with a plan and everything in it, except for plans that lost.
fn inspect(plan: &Bson, faults: &mut Vec<String>) {
    match plan {
        Bson::Document(document) => {
            match document.get_str("stage") {
                Ok("COLLSCAN") => faults.push("scans the collection".into()),
                Ok("SORT") if !(1..=PAGE).contains(&number(document.get("limitAmount"))) => {
                    faults.push("sorts more than a page in memory".into());
                }
                _ => {}
            }
            let winners = document.iter().filter(|(name, _)| !matches!(name.as_str(), "rejectedPlans" | "command"));
            winners.for_each(|(_, inner)| inspect(inner, faults));
        }
        Bson::Array(inner) => inner.iter().for_each(|inner| inspect(inner, faults)),
        _ => {}
    }
}

fn number(value: Option<&Bson>) -> i64 {
    value.and_then(|value| value.as_i64().or_else(|| value.as_i32().map(i64::from))).unwrap_or(0)
}

async fn every_call(shop: &Shop, product: &ProductId) -> anyhow::Result<()> {
    browse(shop, product).await?;
    change_products(shop, product).await?;
    ledger(shop, product).await?;
    orders(shop, product).await?;
    settle(shop, product).await?;
    outboxes(shop, product).await?;
    adjustments(shop, product).await?;
    unfinished(shop).await?;
    accounts(shop).await?;
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
    shop.store.orders.record_deliveries(&order.id, 2).await?;
    shop.store.orders.settle(&settlement(&order, Status::Failed)?).await?;
    Ok(())
}

async fn settle(shop: &Shop, product: &ProductId) -> anyhow::Result<()> {
    let order = accepted(shop, product).await?;
    let row = shop.row(product)?;
    let mut tx = shop.store.begin().await?;
    shop.store.orders.read_in(&mut tx, std::slice::from_ref(&order.id)).await?;
    shop.store.stock.levels_in(&mut tx, [row.clone()]).await?;
    shop.store.stock.move_in(&mut tx, &[(row.clone(), -1)].into()).await?;
    shop.store.stock.mark_in(&mut tx, &[shop_store::stock::Crossing::Went(row)]).await?;
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
    let sends = outbox.take_sends(&taking()?).await?;
    outbox.postpone(&sends, later).await?;
    outbox.remove(&sends).await?;
    let mails = shop.store.mails.take(&taking()?).await?;
    for mail in &mails {
        shop.store.mails.postpone(mail, later).await?;
        shop.store.mails.put_back(mail, later).await?;
        let end = Conclusion { state: MailState::Sent, reason: None, attempts: 1, at: later };
        shop.store.mails.conclude(mail, &end).await?;
    }
    assert!(!sends.is_empty() && !mails.is_empty());
    Ok(())
}

async fn adjustments(shop: &Shop, product: &ProductId) -> anyhow::Result<()> {
    let id: AdjustmentId = shop.adjust_unsent(&[(product, 1)], now()).await?.message.group().parse()?;
    shop.store.adjustments.find(&id).await?;
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

async fn accounts(shop: &Shop) -> anyhow::Result<()> {
    let user = User {
        id: UserId::from_bits(bits()?),
        email: "ann@example.com".into(),
        password_hash: "hash".into(),
        role: Role::Customer,
        created_at: now(),
        password_version: 0,
        known_addresses: Vec::new(),
    };
    let users = &shop.store.users;
    users.create(&user).await?;
    users.find(&user.id).await?;
    users.find_by_email(&user.email).await?;
    users.replace_hash(&user, "other").await?;
    users.make_staff(&user, "other").await?;
    let session = Session {
        id: SessionId::from_bits(bits()?),
        user_id: user.id.clone(),
        password_version: 0,
        device: None,
        address: None,
        refresh: Refresh { current_hash: "a".into(), previous_hash: None, rotated_at: None },
        created_at: now(),
        last_used_at: now(),
        expires_at: now(),
        revoked_at: None,
    };
    let sessions = &shop.store.sessions;
    sessions.create(&session).await?;
    sessions.find(&session.id).await?;
    sessions.rotate(&session.id, Rotation { from_hash: "a", to_hash: "b", now: now(), expires_at: now() }).await?;
    sessions.revoke(&session.id, now()).await?;
    sessions.revoke_all(&user.id, now()).await?;
    Ok(())
}

async fn leases(shop: &Shop) -> anyhow::Result<()> {
    let wish = LeaseRequest { name: "mailer", holder: "me".into(), now: now(), until: now() };
    shop.store.leases.hold(&wish).await?;
    shop.store.leases.release("mailer", "me").await?;
    Ok(())
}
