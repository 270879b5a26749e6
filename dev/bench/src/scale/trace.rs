//! The loads that a scaler is measured with, as data, and when each order of one is due. Pure.

use std::time::Duration;

use serde::Serialize;

use crate::latency::arrivals;

/// How a shop's workers are for a trace: one message at once each, held for `work`, so that few orders make a backlog.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Shape {
    /// `SHOP_SIMULATED_WORK_MS`.
    pub work_ms: &'static str,
    /// What the scaler expects of it until it has measured.
    pub expected_seconds: f64,
    pub target_wait_seconds: u32,
    pub min: u32,
    pub max: u32,
    /// The stabilisation window of every scaler that is measured.
    pub window_seconds: u32,
}

/// Orders over time: an even stream, and bursts that are due at one moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Load {
    pub name: &'static str,
    pub per_second: u32,
    /// Second, orders.
    pub bursts: &'static [(u64, u32)],
    pub seconds: u64,
}

const SECOND_OF_WORK: Shape =
    Shape { work_ms: "1000", expected_seconds: 1.0, target_wait_seconds: 10, min: 1, max: 12, window_seconds: 60 };
const HALF_A_SECOND: Shape = Shape { work_ms: "500", expected_seconds: 0.5, ..SECOND_OF_WORK };

/// From a worker at rest to several.
pub const STEP: (Shape, Load) = (SECOND_OF_WORK, Load { name: "step", per_second: 0, bursts: &[(0, 30)], seconds: 12 });
/// From no worker; the shop's first messages ever are the load.
pub const ZERO: Shape = Shape { min: 0, ..SECOND_OF_WORK };
/// A stream that one worker keeps up with, and four times half a minute of work at once. The bursts come at four phases of
/// the HPA's 15 s, a quarter each, and so far apart that all scalers are at rest again. A burst asks for no more pods than
/// two cores can start while it lasts: of a dozen the last would wait for the machine, whoever asked for them.
pub const BURST: (Shape, Load) = (
    HALF_A_SECOND,
    Load { name: "burst", per_second: 1, bursts: &[(30, 60), (124, 60), (218, 60), (311, 60)], seconds: 400 },
);
/// A stream only.
pub const CONSTANT: (Shape, Load) =
    (HALF_A_SECOND, Load { name: "constant", per_second: 4, bursts: &[], seconds: 150 });
/// Work of any length while workers are taken away; the bursts end up with fewer and fewer messages in work.
pub const SHRINK: (Shape, Load) = (
    Shape {
        work_ms: "100..20000",
        expected_seconds: 10.0,
        target_wait_seconds: 30,
        window_seconds: 20,
        ..SECOND_OF_WORK
    },
    Load {
        name: "shrink",
        per_second: 0,
        bursts: &[(0, 20), (30, 3), (40, 2), (50, 2), (60, 1), (70, 1)],
        seconds: 80,
    },
);

impl Load {
    /// When each order is due, in order.
    pub fn due(&self) -> Vec<Duration> {
        let over = Duration::from_secs(self.seconds);
        let stream = if self.per_second == 0 { Vec::new() } else { arrivals(self.per_second, over).collect() };
        let bursts = self.bursts.iter().flat_map(|&(at, orders)| (0..orders).map(move |_| Duration::from_secs(at)));
        let mut all: Vec<_> = stream.into_iter().chain(bursts).collect();
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::stream(Load { name: "", per_second: 2, bursts: &[], seconds: 2 }, &[0, 500, 1000, 1500])]
    #[case::burst(Load { name: "", per_second: 0, bursts: &[(1, 3)], seconds: 2 }, &[1000, 1000, 1000])]
    #[case::both(Load { name: "", per_second: 1, bursts: &[(1, 1)], seconds: 3 }, &[0, 1000, 1000, 2000])]
    fn orders_are_due(#[case] load: Load, #[case] millis: &[u64]) {
        let expected: Vec<_> = millis.iter().map(|millis| Duration::from_millis(*millis)).collect();
        assert_eq!(load.due(), expected);
    }
}
