//! How many pods a load needs: formulas only, no history, no rules.

/// Spare capacity in square roots of the load: 1 lets about one message in five wait at all.
/// Halfin–Whitt: P(wait) = 1 / (1 + β·Φ(β)/φ(β)); β = 0.5 → 0.50, 1 → 0.22, 1.5 → 0.085.
const BETA: f64 = 1.0;
/// However long the backlog has stood, it is not asked for faster than this.
const SHORTEST_DRAIN: f64 = 5.0;
/// More pods than anyone allows; keeps the arithmetic finite.
const MOST: f64 = 1e6;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Messages that wait.
    pub visible: f64,
    /// Messages that arrive per second.
    pub arrivals: f64,
    /// Seconds of work per message.
    pub service: f64,
    /// Messages one pod works on at once.
    pub concurrency: f64,
    pub ready: f64,
    pub current: f64,
    /// Seconds a message may wait, seconds a pod takes to start, seconds the oldest message has waited at most.
    pub target: f64,
    pub startup: f64,
    pub waited: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub keep_up: u32,
    pub drain: u32,
}

impl Size {
    pub fn pods(self) -> u32 {
        self.keep_up.max(self.drain)
    }
}

impl Load {
    /// Messages per second and pod.
    pub fn rate(&self) -> f64 {
        self.concurrency / self.service
    }

    /// Pods kept busy on average.
    pub fn offered(&self) -> f64 {
        self.arrivals / self.rate()
    }

    /// Predicted wait of the newest message; `None` with no pod to work on it.
    pub fn wait(&self) -> Option<f64> {
        (self.ready > 0.0).then(|| self.visible / (self.rate() * self.ready))
    }

    /// Keep-up: ceil(a + β·√a). Drain: N·μ·H ≥ V + λ·H, hence ceil(a + V/(μ·H)), with H what is left of the target.
    pub fn size(&self) -> Size {
        let offered = self.offered();
        let keep_up = ceil(offered + BETA * offered.sqrt());
        let now = self.drain(self.visible);
        let current = ceil(self.current);
        // Pods to come find the backlog as it will be when they are ready, never fewer than there are for it today.
        let drain = if now > current { self.drain(self.backlog_at_start()).max(current) } else { now };
        Size { keep_up, drain }
    }

    fn backlog_at_start(&self) -> f64 {
        (self.visible + (self.arrivals - self.rate() * self.ready) * self.startup).max(0.0)
    }

    fn drain(&self, backlog: f64) -> u32 {
        let horizon = (self.target - self.startup - self.waited).max(SHORTEST_DRAIN);
        ceil(self.offered() + backlog / (self.rate() * horizon))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1e6 first")]
fn ceil(pods: f64) -> u32 {
    // A hair below, so that 3.0000000001 pods by rounding are 3.
    if pods.is_nan() { 0 } else { (pods - 1e-9).ceil().clamp(0.0, MOST) as u32 }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn load(visible: f64, arrivals: f64) -> Load {
        Load {
            visible,
            arrivals,
            service: 0.5,
            concurrency: 2.0,
            ready: 1.0,
            current: 1.0,
            target: 20.0,
            startup: 5.0,
            waited: 0.0,
        }
    }

    #[rstest]
    #[case::nothing(0.0, 0.0, 0, 0)]
    // a = 4·0.5/2 = 1: 1 + √1
    #[case::steady(0.0, 4.0, 2, 1)]
    // a = 4: 4 + √4; while pods start, 60 messages pile up behind the one there is: 4 + 60/60
    #[case::busy(0.0, 16.0, 6, 5)]
    // 120 messages, H = 15, μ = 4: two pods; by the time they start, one pod has done 20 of them: 100/60
    #[case::burst(120.0, 0.0, 0, 2)]
    #[case::big_burst(2000.0, 0.0, 0, 33)]
    fn sizes(#[case] visible: f64, #[case] arrivals: f64, #[case] keep_up: u32, #[case] drain: u32) {
        assert_eq!(load(visible, arrivals).size(), Size { keep_up, drain });
    }

    #[test]
    fn the_rule_of_aws_is_the_case_without_arrivals_and_start_up() {
        // Acceptable backlog per pod B = T/s = 10/0.1 = 100; 1500 visible ask for 15.
        let load = Load { service: 0.1, concurrency: 1.0, target: 10.0, startup: 0.0, ..load(1500.0, 0.0) };
        assert_eq!(load.size().pods(), 15);
    }

    #[test]
    fn a_backlog_that_has_waited_asks_for_more() {
        let late = Load { waited: 10.0, ..load(400.0, 0.0) };
        assert!(late.size().pods() > load(400.0, 0.0).size().pods());
    }

    #[test]
    fn wait_needs_a_pod() {
        assert_eq!(load(40.0, 0.0).wait(), Some(10.0));
        assert_eq!(Load { ready: 0.0, ..load(40.0, 0.0) }.wait(), None);
    }

    #[rstest]
    #[case(f64::MAX, 0.0)]
    #[case(9.3e18, 1e300)]
    #[case(0.0, f64::INFINITY)]
    fn no_load_overflows(#[case] visible: f64, #[case] arrivals: f64) {
        assert!(f64::from(load(visible, arrivals).size().pods()) <= MOST);
    }
}
