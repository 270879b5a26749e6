//! When requests are due, and what their latencies come to. Pure.

use std::time::Duration;

use serde::Serialize;

/// Latencies in milliseconds: nearest-rank percentiles, so that each is one that occurred.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    pub count: usize,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Latency {
    /// None where there are no samples.
    pub fn of(mut samples: Vec<Duration>) -> Option<Self> {
        samples.sort_unstable();
        let at = |percent: usize| {
            let rank = (samples.len() * percent).div_ceil(100).max(1);
            samples.get(rank - 1).map(|sample| (sample.as_secs_f64() * 1e6).round() / 1e3)
        };
        Some(Self { count: samples.len(), p50: at(50)?, p95: at(95)?, p99: at(99)?, max: at(100)? })
    }
}

/// When each request of an open loop is due, counted from the start: evenly, whatever became of those before.
pub fn arrivals(per_second: u32, over: Duration) -> impl Iterator<Item = Duration> {
    let due = move |n: u32| Duration::from_nanos(u64::from(n) * 1_000_000_000 / u64::from(per_second.max(1)));
    (0..).map(due).take_while(move |due| *due < over)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn samples(millis: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        millis.into_iter().map(Duration::from_millis).collect()
    }

    #[rstest]
    #[case(samples([7]), (7.0, 7.0, 7.0, 7.0))]
    #[case(samples([3, 1, 2]), (2.0, 3.0, 3.0, 3.0))]
    #[case(samples((1..=100).rev()), (50.0, 95.0, 99.0, 100.0))]
    #[case(samples(1..=1000), (500.0, 950.0, 990.0, 1000.0))]
    fn a_percentile_is_the_sample_of_its_rank(
        #[case] samples: Vec<Duration>,
        #[case] (p50, p95, p99, max): (f64, f64, f64, f64),
    ) {
        let count = samples.len();
        assert_eq!(Latency::of(samples), Some(Latency { count, p50, p95, p99, max }));
    }

    #[test]
    fn nothing_has_no_percentile() {
        assert_eq!(Latency::of(Vec::new()), None);
    }

    #[rstest]
    #[case(50, 2, 100)]
    #[case(1, 3, 3)]
    #[case(3, 1, 3)]
    #[case(0, 5, 5)]
    fn arrivals_are_even(#[case] per_second: u32, #[case] seconds: u64, #[case] count: usize) {
        let due: Vec<_> = arrivals(per_second, Duration::from_secs(seconds)).collect();
        assert_eq!(due.len(), count);
        assert_eq!(due.first(), Some(&Duration::ZERO));
        let gap = Duration::from_secs(1) / per_second.max(1);
        assert!(due.windows(2).all(|pair| pair[1].abs_diff(pair[0]).abs_diff(gap).as_nanos() <= 1), "{due:?}");
    }
}
