//! A decision in one sentence, for `status.autoscaling.explain` and events.

use super::decide::{Decision, Reason};

pub fn explain(decision: &Decision) -> String {
    let (terms, n) = (&decision.terms, decision.replicas);
    let sum = terms.keep_up.max(terms.drain);
    let parts = format!("{} = keep-up {} + drain {}", sum, terms.keep_up, sum - terms.keep_up);
    match decision.reason {
        Reason::MinReached if sum < terms.min => format!("{parts}, raised to min {}", terms.min),
        Reason::KeepUp | Reason::Drain | Reason::FromZero | Reason::MinReached => parts,
        Reason::Panic if n == terms.current => format!("{n}: no pod is taken away within 60 s of a burst"),
        Reason::Panic => format!("{n}: a burst asks for {}; {parts}{}", terms.panic, cap(decision)),
        Reason::MaxReached => format!("{parts}, capped by max {}", terms.max),
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

fn cap(decision: &Decision) -> String {
    let terms = &decision.terms;
    if terms.panic > terms.max { format!(", capped by max {}", terms.max) } else { String::new() }
}
