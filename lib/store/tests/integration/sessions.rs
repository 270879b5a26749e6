//! Sessions in MongoDB, and what Redis keeps of them.

use jiff::{SignedDuration, Timestamp};
use mongodb::{Client, bson::doc};
use secrecy::ExposeSecret;
use shop_domain::{
    account::Role,
    id::{SessionId, UserId},
};
use shop_harness::{Shop, bits, eventually, with_shop};
use shop_store::{
    redis_link::RedisLink,
    session_cache::{Holder, SessionAnswer, SessionCache},
    sessions::{Refresh, Session},
};

fn later(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_750_000_000_000 + millis).unwrap_or_default()
}

fn cache(shop: &Shop) -> anyhow::Result<SessionCache> {
    Ok(SessionCache::new(RedisLink::connect(&shop.servers.redis_url, &shop.name)?))
}

fn alive(role: Role, asked_at: Timestamp) -> anyhow::Result<SessionAnswer> {
    let holder =
        Holder { user: UserId::from_bits(bits()?), role, email: "ann@example.com".into(), created_at: later(0) };
    Ok(SessionAnswer { holder: Some(holder), asked_at })
}

/// Offers an answer until one is kept: a link that is not up yet, or slow for once, is a miss.
async fn offered(cache: &SessionCache, id: &SessionId, answer: &SessionAnswer) -> anyhow::Result<SessionAnswer> {
    eventually("the cache answers", async || {
        cache.put(id, answer, answer.asked_at).await;
        Ok(cache.get(id, later(2_000)).await)
    })
    .await
}

#[tokio::test]
async fn what_was_asked_later_wins() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (cache, id) = (cache(&shop)?, SessionId::from_bits(bits()?));
        let (old, new) = (alive(Role::Staff, later(0))?, alive(Role::Customer, later(1_000))?);
        eventually("the newer answer", async || {
            Ok((offered(&cache, &id, &new).await?.holder == new.holder).then_some(()))
        })
        .await?;
        assert_eq!(offered(&cache, &id, &old).await?.holder, new.holder);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_mark_of_an_end_wins_over_everything() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (cache, id) = (cache(&shop)?, SessionId::from_bits(bits()?));
        offered(&cache, &id, &alive(Role::Customer, later(0))?).await?;
        eventually("the mark", async || {
            cache.mark_ended(std::slice::from_ref(&id)).await;
            Ok(cache.get(&id, later(1_000)).await.filter(|answer| answer.holder.is_none()))
        })
        .await?;
        // Also over an answer of a replica whose clock is ahead.
        for asked_at in [later(0), later(1_999)] {
            assert_eq!(offered(&cache, &id, &alive(Role::Customer, asked_at)?).await?.holder, None);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_answer_is_not_believed_for_longer_than_five_seconds() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (cache, id) = (cache(&shop)?, SessionId::from_bits(bits()?));
        let answer = alive(Role::Customer, later(0))?;
        // Redis keeps it for five seconds of its own, which have only just begun.
        offered(&cache, &id, &answer).await?;
        assert_eq!(cache.get(&id, later(5_001)).await, None, "too old");
        assert_eq!(cache.get(&id, later(-1)).await, None, "from the future");
        eventually("Redis forgets it", async || Ok(cache.get(&id, later(0)).await.is_none().then_some(()))).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_too_old_is_not_kept() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (cache, id, other) = (cache(&shop)?, SessionId::from_bits(bits()?), SessionId::from_bits(bits()?));
        offered(&cache, &other, &alive(Role::Customer, later(0))?).await?;
        cache.put(&id, &alive(Role::Customer, later(0))?, later(5_000)).await;
        assert_eq!(cache.get(&id, later(0)).await, None);
        Ok(())
    })
    .await
}

fn session(user: &UserId, password_version: i64) -> anyhow::Result<Session> {
    Ok(Session {
        id: SessionId::from_bits(bits()?),
        user_id: user.clone(),
        refresh: Refresh { current_hash: "x".into(), previous_hash: None, rotated_at: None },
        password_version,
        device: None,
        address: None,
        created_at: later(0),
        last_used_at: later(0),
        // Far away: the database itself forgets what has expired.
        expires_at: Timestamp::from_second(4_000_000_000)?,
        revoked_at: None,
    })
}

#[tokio::test]
async fn a_new_password_ends_what_was_opened_before_it() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (user, sessions) = (UserId::from_bits(bits()?), &shop.store.sessions);
        let (old, kept) = (session(&user, 1)?, session(&user, 2)?);
        let stranger = session(&UserId::from_bits(bits()?), 0)?;
        for session in [&old, &kept, &stranger] {
            sessions.create(session).await?;
        }
        assert_eq!(sessions.revoke_outdated(&user, 2, later(1)).await?, [old.id]);
        assert_eq!(sessions.live_of(&user, later(1)).await?, [kept]);
        assert_eq!(sessions.live_of(&stranger.user_id, later(1)).await?, [stranger]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn sessions_of_an_earlier_version_are_read_and_ended_like_others() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (user, sessions) = (UserId::from_bits(bits()?), &shop.store.sessions);
        let old = session(&user, 0)?;
        sessions.create(&old).await?;
        let client = Client::with_uri_str(shop.servers.mongodb_uri.expose_secret()).await?;
        let raw = client.database(&shop.name).collection::<mongodb::bson::Document>("sessions");
        raw.update_one(doc! { "_id": old.id.as_str() }, doc! { "$unset": { "passwordVersion": "" } }).await?;
        assert_eq!(sessions.find(&old.id).await?, Some(old.clone()));
        assert_eq!(sessions.revoke_outdated(&user, 1, later(1)).await?, [old.id]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn expired_and_revoked_sessions_are_not_listed() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (user, sessions) = (UserId::from_bits(bits()?), &shop.store.sessions);
        let (one, other) = (session(&user, 0)?, session(&user, 0)?);
        sessions.create(&one).await?;
        sessions.create(&other).await?;
        assert!(sessions.revoke_of(&user, &one.id, later(1)).await?);
        assert!(!sessions.revoke_of(&user, &one.id, later(1)).await?, "over already");
        assert!(!sessions.revoke_of(&UserId::from_bits(bits()?), &other.id, later(1)).await?, "not theirs");
        assert_eq!(sessions.live_of(&user, later(1)).await?, std::slice::from_ref(&other));
        let after = other.expires_at.saturating_add(SignedDuration::from_secs(1))?;
        assert_eq!(sessions.live_of(&user, after).await?, []);
        Ok(())
    })
    .await
}
