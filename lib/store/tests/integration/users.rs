//! Accounts that several replicas set at once.

use jiff::Timestamp;
use shop_domain::{account::Role, id::UserId};
use shop_harness::{bits, with_shop};
use shop_store::users::User;

#[tokio::test]
async fn an_account_becomes_staff_only_as_it_was_read() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let users = &shop.store.users;
        let seen = User {
            id: UserId::from_bits(bits()?),
            email: "boss@example.com".into(),
            password_hash: "old".into(),
            role: Role::Customer,
            created_at: Timestamp::UNIX_EPOCH,
        };
        users.create(&seen).await?;
        assert!(users.make_staff(&seen, "new").await?);
        assert!(!users.make_staff(&seen, "newer").await?, "another replica was faster");
        let staff = users.find(&seen.id).await?;
        assert_eq!(staff, Some(User { password_hash: "new".into(), role: Role::Staff, ..seen }));
        Ok(())
    })
    .await
}
