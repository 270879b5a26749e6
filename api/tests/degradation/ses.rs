//! The mail service is away: only mail waits.

use reqwest::Method;
use serde_json::Value;
use shop_domain::order::Status;
use shop_harness::{Link, Servers};
use shop_store::mails::{MailKind, MailState};

use crate::{
    SLOW, Time, counted, counts, diagnosis, readiness, ready,
    shop::{Args, DOCUMENTED_ORDER, Shop, bearer, eventually, send, with_shop_of},
    sound,
    tour::everything_works,
};

const HELD: &str = "shop_mailer_held_mails_total";

/// Runs a test in a shop whose api reaches the mail service through a link, which is prepared before it starts.
async fn with_link(prepare: fn(&Link), test: impl AsyncFnOnce(&Shop, &Link)) {
    let (link, endpoint) = Link::to_http(&Servers::from_environment().unwrap().ses_endpoint).await.unwrap();
    prepare(&link);
    let through = |args: &mut Args| {
        args.set("--ses-endpoint", &endpoint);
    };
    with_shop_of(through, async |shop| {
        ready(shop).await;
        test(shop, &link).await;
    })
    .await;
}

/// An order that is placed and processed as usual.
async fn processed(shop: &Shop) -> String {
    let id = shop.placed(&shop.customer().await, DOCUMENTED_ORDER).await;
    shop.becomes(&id, Status::Processed).await;
    id
}

/// An order that is taken back, which owes a mail without any worker.
async fn taken_back(shop: &Shop) {
    let token = shop.customer().await;
    let id = shop.placed(&token, DOCUMENTED_ORDER).await;
    let cancel = bearer(shop.request(Method::POST, &format!("/orders/{id}/cancel")), &token);
    assert_eq!(send(cancel).await.status, 200);
}

/// Its mail waits: it is owed, and has no record.
async fn mail_waits(shop: &Shop, id: &str) {
    let order = shop.becomes(id, Status::Processed).await;
    assert_eq!((order.outbox.len(), order.mails.len()), (1, 0));
}

/// Its mail is sent, once.
async fn mail_is_sent(shop: &Shop, id: &str) {
    let order = eventually("the mail is sent", || async {
        Some(shop.becomes(id, Status::Processed).await).filter(|order| !order.mails.is_empty())
    })
    .await;
    let sent: Vec<_> = order.mails.iter().map(|mail| (mail.kind, mail.state)).collect();
    assert_eq!((sent.as_slice(), order.outbox.len()), ([(MailKind::Confirmation, MailState::Sent)].as_slice(), 0));
    let store = shop.client.get(format!("{}/store", shop.ground.servers.ses_endpoint)).send().await.unwrap();
    let store: Value = store.json().await.unwrap();
    let about = |mail: &&Value| mail["subject"].as_str().is_some_and(|subject| subject.contains(id));
    assert_eq!(store["emails"].as_array().unwrap().iter().filter(about).count(), 1);
}

/// While the service is away: an order is processed, the api is ready and says what is wrong, and the order's mail comes
/// when the service is back.
async fn only_mail_waits(test: &'static str, shop: &Shop, away: &Link) {
    let id = processed(shop).await;
    counts(shop, (HELD, counted(shop, HELD).await + 1)).await;
    mail_waits(shop, &id).await;
    assert_eq!((readiness(shop).await.status.as_u16(), diagnosis(shop, "ses").await.as_str()), (200, "failed"));
    away.mend();
    Time::to_recover(test).until(mail_is_sent(shop, &id)).await;
}

#[tokio::test]
async fn ses_down_at_start() {
    with_link(Link::cut, async |shop, link| {
        taken_back(shop).await;
        Time::to_notice("ses_down_at_start").until(counts(shop, (HELD, 1))).await;
        everything_works(shop).await;
        shop.worker(&[]).await;
        only_mail_waits("ses_down_at_start", shop, link).await;
    })
    .await;
}

#[tokio::test]
async fn ses_killed() {
    with_link(Link::mend, async |shop, link| {
        shop.worker(&[]).await;
        mail_is_sent(shop, &processed(shop).await).await;
        link.cut();
        processed(shop).await;
        Time::to_notice("ses_killed").until(counts(shop, (HELD, 1))).await;
        only_mail_waits("ses_killed", shop, link).await;
    })
    .await;
}

#[tokio::test]
async fn ses_slow_by_two_seconds() {
    with_link(Link::mend, async |shop, link| {
        shop.worker(&[]).await;
        link.slow(SLOW);
        let orders = [processed(shop).await, processed(shop).await, processed(shop).await];
        let all_are_sent = async {
            for id in &orders {
                mail_is_sent(shop, id).await;
            }
        };
        Time::to_finish("ses_slow_by_two_seconds").until(all_are_sent).await;
    })
    .await;
}

#[tokio::test]
async fn ses_back_again() {
    with_link(Link::mend, async |shop, link| {
        shop.worker(&[]).await;
        link.cut();
        let id = processed(shop).await;
        counts(shop, (HELD, 4)).await;
        link.mend();
        Time::to_recover("ses_back_again").until(mail_is_sent(shop, &id)).await;
        let order = shop.becomes(&id, Status::Processed).await;
        assert_eq!(order.mails[0].attempts, 1, "an outage is no attempt");
        sound(shop, "ses").await;
    })
    .await;
}
