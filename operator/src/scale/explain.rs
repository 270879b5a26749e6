//! A decision in one sentence, for `status.autoscaling.explain` and events.

use super::decide::{Decision, Reason};

pub fn explain(decision: &Decision) -> String {
    let (terms, n) = (&decision.terms, decision.replicas);
    let sum = terms.keep_up.max(terms.drain);
    let parts = format!("{} = keep-up {} + drain {}", sum, terms.keep_up, sum - terms.keep_up);
    match decision.reason {
        Reason::MinReached | Reason::Schedule if n == terms.min && sum < n => {
            format!("{parts}, raised to {}", min(decision))
        }
        Reason::MaxReached | Reason::Schedule if n > terms.max => {
            format!("{n}: on the way to {}; {parts}", max(decision))
        }
        Reason::MaxReached | Reason::Schedule if sum > terms.max => format!("{parts}, capped by {}", max(decision)),
        Reason::KeepUp
        | Reason::Drain
        | Reason::FromZero
        | Reason::MinReached
        | Reason::MaxReached
        | Reason::Schedule => parts,
        Reason::Panic if n == terms.current => format!("{n}: no pod is taken away until the burst is over"),
        Reason::Panic if terms.panic > terms.max => {
            format!("{n}: a burst asks for {}; {parts}, capped by {}", terms.panic, max(decision))
        }
        Reason::Panic => format!("{n}: a burst asks for {}; {parts}", terms.panic),
        Reason::BusyFloor => format!("{n}: {} pods have work in hand; {parts}", terms.busy),
        Reason::Stabilised if n < terms.current => {
            format!("{n}: the highest need of the scale-down window is {}; {parts}", terms.window_max)
        }
        Reason::Stabilised => {
            format!("{n} kept; the scale-down window's highest need is {}; {parts}", terms.window_max)
        }
        Reason::Rollout => format!("{n} kept until the rollout is done; {parts}"),
        Reason::ColdStart => format!("{n} kept until there are 60 s of data; {parts}"),
        Reason::Fallback => format!("{n}: the queue has not been readable for {:.0} s", terms.blind_for),
        Reason::Paused => format!("{n} kept: scaling is paused; {parts}"),
        Reason::Manual => {
            format!("{n}: mode is Manual, spec.worker.replicas says how many; the load asks for {parts}")
        }
        Reason::Suspended => format!("{n}: the shop is suspended"),
        Reason::ToZero if n == 0 => "0: nothing to do".to_owned(),
        Reason::ToZero => format!("{n} kept until the cooldown has passed"),
    }
}

fn min(decision: &Decision) -> String {
    bound("min", decision.terms.min, decision.terms.scheduled.min.as_deref())
}

fn max(decision: &Decision) -> String {
    bound("max", decision.terms.max, decision.terms.scheduled.max.as_deref())
}

fn bound(which: &str, value: u32, schedule: Option<&str>) -> String {
    schedule.map_or_else(|| format!("{which} {value}"), |name| format!("{which} {value} of schedule {name}"))
}
