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
            password_version: 0,
            known_addresses: Vec::new(),
            created_at: Timestamp::UNIX_EPOCH,
        };
        users.create(&seen).await?;
        let made = users.make_staff(&seen, "new").await?;
        assert_eq!(users.make_staff(&seen, "newer").await?, None, "another replica was faster");
        assert_eq!(users.find(&seen.id).await?, made);
        let staff = User { password_hash: "new".into(), role: Role::Staff, password_version: 1, ..seen };
        assert_eq!(made, Some(staff));
        Ok(())
    })
    .await
}
