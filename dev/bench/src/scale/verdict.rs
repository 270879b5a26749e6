//! What is claimed of the scaler, beside what was seen. Pure.

use std::time::Duration;

use serde::Serialize;

use super::{Measured, Reaction, Run, Scaler};
use crate::latency::Latency;

/// A claim that the traces of this run can tell of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    pub claim: &'static str,
    pub seen: String,
    pub holds: bool,
}

const ENOUGH_STEPS: usize = 30;
const ENOUGH_SCALE_DOWNS: usize = 100;

pub fn verdicts(measured: &Measured) -> Vec<Verdict> {
    let zero = measured.zero.as_ref().map(|all| soon(all, "from zero: written within 12 s", (12.0, 1)));
    let step = measured.step.as_ref().map(|all| soon(all, "depth step: p99 written within 3 s", (3.0, ENOUGH_STEPS)));
    let straight = measured.step.as_ref().map(|all| straight(all));
    let keda = measured.burst.as_ref().and_then(|runs| beside(runs));
    let constant = measured.constant.as_ref().map(|constant| Verdict {
        claim: "constant load: at most one direction change within a stabilisation window",
        seen: constant.turns_in_a_window.to_string(),
        holds: constant.turns_in_a_window <= 1,
    });
    let rest = measured.constant.as_ref().map(|constant| Verdict {
        claim: "at rest nothing is written",
        seen: format!("{} changes in {:.0} s", constant.writes_at_rest, constant.rest_seconds),
        holds: constant.writes_at_rest == 0,
    });
    let shrink = measured.shrink.as_ref().map(|shrink| Verdict {
        claim: "no message redelivered over 100 scale-downs with work of 0.1 to 20 s",
        seen: format!("{} of {} orders, {} scale-downs", shrink.redelivered, shrink.orders, shrink.scale_downs),
        holds: shrink.redelivered == 0 && shrink.scale_downs >= ENOUGH_SCALE_DOWNS,
    });
    [zero, step, straight, keda, constant, rest, shrink].into_iter().flatten().collect()
}

/// How long reactions took; None where one is missing.
pub fn latency(reactions: &[Reaction]) -> Option<Latency> {
    let all: Option<Vec<_>> = reactions.iter().map(|one| one.seconds.map(Duration::from_secs_f64)).collect();
    Latency::of(all?)
}

fn soon(reactions: &[Reaction], claim: &'static str, (limit, enough): (f64, usize)) -> Verdict {
    let missing = reactions.iter().filter(|one| one.seconds.is_none()).count();
    let Some(latency) = latency(reactions) else {
        return Verdict { claim, seen: format!("{missing} of {} without a reaction", reactions.len()), holds: false };
    };
    let Latency { count, p99, .. } = latency;
    let holds = count >= enough && p99 <= limit * 1e3;
    Verdict { claim, seen: format!("{:.1} s over {count}", p99 / 1e3), holds }
}

fn straight(steps: &[Reaction]) -> Verdict {
    let at_once = steps.iter().filter(|step| step.patches == 1).count();
    Verdict {
        claim: "depth step: straight to the computed size",
        seen: format!("{at_once} of {} in one write", steps.len()),
        holds: at_once == steps.len(),
    }
}

/// Beside the setting of KEDA with the shortest wait; the mean of the rounds.
fn beside(runs: &[Run]) -> Option<Verdict> {
    let mean = |scaler: Scaler| {
        let of: Vec<_> = runs.iter().filter(|run| run.scaler == scaler).collect();
        #[expect(clippy::cast_precision_loss, reason = "a few rounds")]
        let rounds = of.len() as f64;
        let wait: Option<f64> = of.iter().map(|run| run.wait_ms.map(|wait| wait.p95)).sum();
        Some((wait? / rounds, of.iter().map(|run| run.pod_seconds).sum::<f64>() / rounds))
    };
    let ours = mean(Scaler::Shop)?;
    let others = runs.iter().map(|run| run.scaler).filter(|scaler| *scaler != Scaler::Shop);
    let all = others.filter_map(|scaler| Some((scaler, mean(scaler)?)));
    let (best, (wait, pods)) = all.min_by(|a, b| a.1.0.total_cmp(&b.1.0))?;
    Some(Verdict {
        claim: "burst: p95 wait at most half of KEDA's best, at no more pod-seconds",
        seen: format!("wait {:.2} x, pod-seconds {:.2} x of {best}", ours.0 / wait, ours.1 / pods),
        holds: ours.0 * 2.0 <= wait && ours.1 <= pods,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn run(scaler: Scaler, p95: f64, pod_seconds: f64) -> Run {
        let wait_ms = Some(Latency { count: 1, p50: p95, p95, p99: p95, max: p95 });
        let reaction = Reaction { seconds: None, patches: 0, first: 1, highest: 1 };
        let (replicas, depth) = (Vec::new(), Vec::new());
        Run {
            load: "burst",
            seconds: 1,
            scaler,
            orders: 1,
            wait_ms,
            reaction,
            pod_seconds,
            turns: 0,
            redelivered: 0,
            replicas,
            depth,
        }
    }

    #[rstest]
    #[case::half_the_wait(4.0, 90.0, true)]
    #[case::more_than_half(6.0, 90.0, false)]
    #[case::more_pods(4.0, 110.0, false)]
    fn keda_is_taken_at_its_best(#[case] wait: f64, #[case] pods: f64, #[case] holds: bool) {
        let keda = |queue_length| Scaler::Keda { queue_length };
        let runs = [run(Scaler::Shop, wait, pods), run(keda(1), 10.0, 100.0), run(keda(5), 30.0, 50.0)];
        let verdict = beside(&runs).unwrap();
        assert_eq!(verdict.holds, holds, "{verdict:?}");
        assert!(verdict.seen.ends_with("queueLength 1"), "{verdict:?}");
        assert_eq!(beside(&runs[..1]), None);
    }

    #[rstest]
    #[case::enough(30, Some(1.0), true)]
    #[case::too_few(29, Some(1.0), false)]
    #[case::too_slow(30, Some(3.1), false)]
    #[case::never(30, None, false)]
    fn every_step_counts(#[case] steps: usize, #[case] last: Option<f64>, #[case] holds: bool) {
        let mut all = vec![Reaction { seconds: Some(1.0), patches: 1, first: 7, highest: 7 }; steps];
        all[steps - 1].seconds = last;
        assert_eq!(soon(&all, "", (3.0, ENOUGH_STEPS)).holds, holds);
    }
}
