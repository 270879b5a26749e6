//! Limits that replicas share.

use std::time::Duration;

use shop_domain::id::UserId;
use shop_harness::{bits, eventually, with_shop};
use shop_store::{
    redis_link::RedisLink,
    shared_limits::{Rule, SharedLimits},
};

const RULE: Rule = Rule { policy: "writes", quota: 3, window: Duration::from_mins(30) };

fn caller() -> anyhow::Result<String> {
    Ok(UserId::from_bits(bits()?).to_string())
}

#[tokio::test]
async fn two_replicas_count_together() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let replica = || anyhow::Ok(SharedLimits::new(RedisLink::connect(&shop.servers.redis_url, &shop.name)?));
        let (one, other) = (replica()?, replica()?);
        // Anew when Redis was slow for once and a call was not counted.
        let steps = eventually("four answers", async || {
            let (caller, mut steps) = (caller()?, Vec::new());
            for replica in [&one, &other, &one, &other] {
                steps.extend(replica.count(&RULE, &caller).await);
            }
            Ok((steps.len() == 4).then_some(steps))
        })
        .await?;
        assert_eq!(steps.iter().map(|step| step.allowed).collect::<Vec<_>>(), [true, true, true, false]);
        // One call comes back every ten minutes.
        let about = |time: Duration, minutes: u64| {
            time > Duration::from_mins(minutes - 1) && time <= Duration::from_mins(minutes)
        };
        assert!(about(steps[0].reset, 10) && about(steps[1].reset, 20) && about(steps[3].reset, 30), "{steps:?}");
        assert!(steps[0].wait.is_zero() && about(steps[3].wait, 10), "{steps:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn callers_policies_and_shops_are_counted_apart_and_calls_come_back() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let limits = |name: &str| anyhow::Ok(SharedLimits::new(RedisLink::connect(&shop.servers.redis_url, name)?));
        let (here, elsewhere) = (limits(&shop.name)?, limits(&format!("{}-other", shop.name))?);
        let single = Rule { quota: 1, window: Duration::from_secs(2), ..RULE };
        let reads = Rule { policy: "reads", ..single };
        let (one, other) = (caller()?, caller()?);
        let allowed = async |limits: &SharedLimits, rule: &Rule, caller: &str| {
            limits.count(rule, caller).await.map(|step| step.allowed)
        };
        eventually("Redis", async || Ok(allowed(&here, &single, &caller()?).await)).await?;
        eventually("Redis, for the other shop", async || Ok(allowed(&elsewhere, &single, &caller()?).await)).await?;
        eventually("the limit", async || Ok((allowed(&here, &single, &one).await == Some(false)).then_some(())))
            .await?;
        for (limits, rule, caller) in [(&here, &single, &other), (&here, &reads, &one), (&elsewhere, &single, &one)] {
            eventually("a call of another kind", async || {
                Ok((allowed(limits, rule, caller).await == Some(true)).then_some(()))
            })
            .await?;
        }
        eventually("the call that came back", async || {
            Ok((allowed(&here, &single, &one).await == Some(true)).then_some(()))
        })
        .await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_changed_quota_keeps_what_a_caller_has_used_of_the_window() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let limits = SharedLimits::new(RedisLink::connect(&shop.servers.redis_url, &shop.name)?);
        let generous = Rule { quota: 300, ..RULE };
        // Ten seconds of thirty minutes each.
        let steps = async |calls: &[(&Rule, u32)]| {
            let (caller, mut steps) = (caller()?, Vec::new());
            for &(rule, times) in calls {
                for _ in 0..times {
                    steps.extend(limits.count(rule, &caller).await);
                }
            }
            let all = calls.iter().map(|call| call.1 as usize).sum::<usize>();
            Ok((steps.len() == all).then(|| steps.iter().map(|step| step.allowed).collect::<Vec<_>>()))
        };
        let lowered = eventually("a lowered quota", async || steps(&[(&generous, 30), (&RULE, 4)]).await).await?;
        assert_eq!(lowered[30..], [true, true, false, false], "a tenth of the window is gone: no third call");
        // Replicas of the old and of the new quota answer side by side during a rollout.
        let mixed = eventually("a used up quota", async || steps(&[(&RULE, 3), (&generous, 1)]).await).await?;
        assert_eq!(mixed, [true, true, true, false], "the generous rule adds nothing to a window that is used up");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_redis_there_is_no_answer() -> anyhow::Result<()> {
    // Nothing listens on port 1.
    let away = SharedLimits::new(RedisLink::connect(&"redis://127.0.0.1:1".to_owned().into(), "x")?);
    assert_eq!(away.count(&RULE, "caller").await, None);
    assert_eq!(SharedLimits::disabled().count(&RULE, "caller").await, None);
    Ok(())
}
