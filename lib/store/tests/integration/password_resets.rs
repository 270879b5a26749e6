//! Requests for new passwords: their mails are taken with the orders', and what is stored is no token.

use jiff::{SignedDuration, Timestamp};
use shop_domain::id::{ClaimId, OutboxId, PasswordResetId, UserId};
use shop_harness::{Shop, bits, buyer, with_shop};
use shop_store::{
    mails::{Conclusion, MailState, Subject},
    outbox::{OutboxEntry, OutboxKind, Taking},
    password_resets::PasswordReset,
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(900_000) + SignedDuration::from_secs(seconds)
}

async fn requested(shop: &Shop, user: &UserId, now: Timestamp) -> anyhow::Result<PasswordReset> {
    let entry = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::PasswordResetMail, now);
    let reset = PasswordReset {
        id: PasswordResetId::from_bits(bits()?),
        user_id: user.clone(),
        password_mark: "mark".into(),
        email: Some(buyer()),
        created_at: now,
        expires_at: now + SignedDuration::from_hours(1),
        outbox: vec![entry],
    };
    shop.store.password_resets.create(&reset).await?;
    Ok(reset)
}

#[tokio::test]
async fn a_requests_mail_is_taken_once_and_leaves_the_request() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let user = UserId::from_bits(bits()?);
        let reset = requested(&shop, &user, at(0)).await?;
        let taking = Taking { claim: ClaimId::from_bits(bits()?), now: at(1), until: at(60), limit: 10 };
        let mails = shop.store.mails.take(&taking).await?;
        assert_eq!((mails.len(), mails[0].to.expose()), (1, buyer().expose()));
        assert!(matches!(&mails[0].subject, Subject::PasswordReset(found) if found.id == reset.id));
        let end = Conclusion { state: MailState::Sent, reason: None, attempts: 1, at: at(2) };
        assert!(shop.store.mails.conclude(&mails[0], &end).await?);
        assert!(!shop.store.mails.conclude(&mails[0], &end).await?);
        let left = shop.store.password_resets.find(&reset.id).await?;
        assert!(left.is_some_and(|left| left.outbox.is_empty()));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn younger_requests_of_the_same_user_are_counted() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (user, other) = (UserId::from_bits(bits()?), UserId::from_bits(bits()?));
        let first = requested(&shop, &user, at(0)).await?;
        for seconds in 1..=4 {
            requested(&shop, &user, at(seconds)).await?;
            requested(&shop, &other, at(seconds)).await?;
        }
        assert_eq!(shop.store.password_resets.younger(&first, 3).await?, 3);
        assert_eq!(shop.store.password_resets.younger(&first, 10).await?, 4);
        Ok(())
    })
    .await
}
