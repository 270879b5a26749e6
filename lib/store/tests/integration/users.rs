//! Accounts that several replicas set at once.

use jiff::Timestamp;
use shop_domain::account::Role;
use shop_harness::{customer, with_shop};
use shop_store::users::{User, UserListing};

#[tokio::test]
async fn an_account_becomes_staff_only_as_it_was_read() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let users = &shop.store.users;
        let seen = customer("boss@example.com", Timestamp::UNIX_EPOCH)?;
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

#[tokio::test]
async fn the_twenty_latest_addresses_are_known() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (users, ann) = (&shop.store.users, customer("ann@example.com", Timestamp::UNIX_EPOCH)?);
        users.create(&ann).await?;
        let at = Timestamp::from_second;
        for second in 1..=21 {
            users.remember_address(&ann.id, &format!("a{second}"), at(second)?).await?;
        }
        // Seen again: noted once, as the latest.
        users.remember_address(&ann.id, "a2", at(22)?).await?;
        users.remember_address(&ann.id, "a22", at(23)?).await?;
        let known = users.find(&ann.id).await?.map(|user| user.known_addresses).unwrap_or_default();
        let seen: Vec<_> = known.iter().map(|known| (known.digest.as_str(), known.seen_at.as_second())).collect();
        assert_eq!(seen.len(), 20);
        assert_eq!(seen.iter().find(|(digest, _)| *digest == "a2"), Some(&("a2", 22)));
        assert!(!seen.iter().any(|(digest, _)| ["a1", "a3"].contains(digest)), "{seen:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn accounts_are_listed_in_the_order_of_their_addresses() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let users = &shop.store.users;
        for email in ["b@example.com", "å@example.com", "a@example.com", "a\u{10ffff}@example.com"] {
            users.create(&customer(email, Timestamp::UNIX_EPOCH)?).await?;
        }
        let listed = async |prefix: &str, after: Option<&str>, limit| {
            let listing = UserListing { prefix: prefix.into(), after: after.map(Into::into), limit };
            anyhow::Ok(users.list(&listing).await?.into_iter().map(|user| user.email).collect::<Vec<_>>())
        };
        assert_eq!(listed("", None, 2).await?, ["a@example.com", "a\u{10ffff}@example.com"]);
        assert_eq!(listed("", Some("b@example.com"), 9).await?, ["å@example.com"]);
        assert_eq!(listed("a@", None, 9).await?, ["a@example.com"]);
        assert_eq!(listed("c", None, 9).await?, [""; 0]);
        Ok(())
    })
    .await
}
