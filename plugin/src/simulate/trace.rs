//! What arrives at a queue, second by second: read from CSV, or generated from a seed. Knows nothing of pods.

use std::{f64::consts::TAU, ops::Range};

use fastrand::Rng;

const HEADER: &str = "second,arrivals,service_seconds";
/// More than this takes minutes and gigabytes.
const MOST_MESSAGES: u64 = 5_000_000;
const LONGEST_SECONDS: u32 = 7 * 24 * 3600;
const LONGEST_SERVICE: f64 = 3600.0;
/// One in so many is a long job, which takes so many times as long as the others.
const LONG_JOB: (f64, f64) = (50.0, 100.0);
/// A burst brings what the peak brings in a minute within so many seconds.
const BURST_SECONDS: u32 = 5;
const FLAP_SECONDS: u32 = 60;
/// Faults that are shown of one file.
const FAULTS: usize = 10;

/// Messages that arrive within one second, and the seconds of work that each takes. A second may have several rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    pub second: u32,
    pub arrivals: u32,
    pub service_seconds: f64,
}

/// Rows in order of their seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    pub name: String,
    pub rows: Vec<Row>,
    pub seconds: u32,
    /// Seconds in which the queue's counts cannot be read.
    pub unreadable: Range<u32>,
}

/// One message, in microseconds since the trace's beginning and of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub arrives: u64,
    pub service: u64,
}

/// The shapes of load that can be generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// Little, then much, then little
    Step,
    /// Ever more, then ever less
    Ramp,
    /// Three slow waves
    Wave,
    /// Little, and twice a minute's worth of much within five seconds
    Burst,
    /// Little and much by turns, a minute each
    Flapping,
    /// A steady load in which one message of fifty takes a hundred times as long
    LongJobs,
    /// A step while the queue cannot be read
    Outage,
}

/// The figures that a generated trace is made from.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub seconds: u32,
    /// Messages per second at the height of the load.
    pub peak: f64,
    pub service_seconds: f64,
    /// No message takes longer.
    pub longest_service: f64,
}

impl Trace {
    /// Reads CSV of `second,arrivals,service_seconds`; every fault with its line.
    pub fn read(name: &str, text: &str) -> Result<Self, String> {
        let (mut rows, mut faults) = (Vec::<Row>::new(), Vec::new());
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || (number == 0 && line.replace(' ', "") == HEADER) {
                continue;
            }
            match row(line, rows.last().map_or(0, |before| before.second)) {
                Ok(row) => rows.push(row),
                Err(fault) => faults.push(format!("{name}:{}: {fault}", number + 1)),
            }
        }
        if faults.len() > FAULTS {
            let more = faults.len() - FAULTS;
            faults.truncate(FAULTS);
            faults.push(format!("and {more} more"));
        }
        if !faults.is_empty() {
            return Err(faults.join("\n"));
        }
        let Some(last) = rows.last() else { return Err(format!("{name}: no rows; each is {HEADER}")) };
        let messages: u64 = rows.iter().map(|row| u64::from(row.arrivals)).sum();
        if messages > MOST_MESSAGES {
            return Err(format!("{name}: {messages} messages; {MOST_MESSAGES} at most, take a part of it"));
        }
        Ok(Self { name: name.to_owned(), seconds: last.second + 1, rows, unreadable: 0..0 })
    }

    /// The same rows for the same seed. Arrivals are random (Poisson) around the shape; each row's work is within ±50 %.
    pub fn generate(shape: Shape, seed: u64, scale: Scale) -> Result<Self, String> {
        let mut rng = Rng::with_seed(seed);
        let mut rows = Vec::new();
        for second in 0..scale.seconds {
            let rate = shape.rate(second, scale);
            let long = if shape == Shape::LongJobs { 1.0 / LONG_JOB.0 } else { 0.0 };
            for (rate, factor) in [(rate * (1.0 - long), 1.0), (rate * long, LONG_JOB.1)] {
                let arrivals = poisson(&mut rng, rate);
                let service = scale.service_seconds * factor * (0.5 + rng.f64());
                if arrivals > 0 {
                    rows.push(Row { second, arrivals, service_seconds: service.min(scale.longest_service) });
                }
            }
        }
        let messages: u64 = rows.iter().map(|row| u64::from(row.arrivals)).sum();
        if messages > MOST_MESSAGES {
            return Err(format!(
                "{messages} messages; {MOST_MESSAGES} at most: simulate fewer --minutes, or set the shop's \
                 expectedSecondsPerMessage, from which the load is derived"
            ));
        }
        let outage = scale.seconds / 4..scale.seconds * 45 / 100;
        let unreadable = if shape == Shape::Outage { outage } else { 0..0 };
        Ok(Self { name: shape.name(), rows, seconds: scale.seconds, unreadable })
    }

    /// The messages in order of arrival: those of a row spread evenly over its second.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most an hour, at least zero")]
    pub fn messages(&self) -> Vec<Message> {
        let of_row = |row: &Row| {
            let (start, count, service) =
                (u64::from(row.second) * 1_000_000, u64::from(row.arrivals), row.service_seconds);
            let service = (service * 1e6) as u64;
            (0..count).map(move |n| Message { arrives: start + n * 1_000_000 / count, service })
        };
        let mut messages: Vec<_> = self.rows.iter().flat_map(of_row).collect();
        messages.sort_by_key(|message| message.arrives);
        messages
    }

    /// Arrivals of every second.
    pub fn arrivals(&self) -> Vec<u32> {
        let mut arrivals = vec![0; self.seconds as usize];
        for row in &self.rows {
            arrivals[row.second as usize] += row.arrivals;
        }
        arrivals
    }
}

impl Shape {
    fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Messages per second.
    fn rate(self, second: u32, scale: Scale) -> f64 {
        let (peak, base) = (scale.peak, scale.peak / 20.0);
        let part = f64::from(second) / f64::from(scale.seconds);
        let between = |share: f64| base + (peak - base) * share;
        match self {
            Self::Step if (0.2..0.6).contains(&part) => peak,
            Self::Outage if (0.3..0.7).contains(&part) => peak,
            Self::Ramp => between(if part < 0.6 { part / 0.6 } else { (1.0 - part) / 0.4 }),
            Self::Wave => between(0.5 - 0.5 * (part * 3.0 * TAU).cos()),
            Self::Burst => {
                let starts = [scale.seconds / 5, scale.seconds * 3 / 5];
                let bursting = starts.iter().any(|start| (*start..start + BURST_SECONDS).contains(&second));
                if bursting { peak * 60.0 / f64::from(BURST_SECONDS) } else { base }
            }
            Self::Flapping if (second / FLAP_SECONDS) % 2 == 1 => peak,
            Self::Step | Self::Outage | Self::Flapping => base,
            // The long ones make it three times the work.
            Self::LongJobs => peak / 6.0,
        }
    }
}

fn row(line: &str, earlier: u32) -> Result<Row, String> {
    let fields: Vec<_> = line.split(',').map(str::trim).collect();
    let [second, arrivals, service] = fields[..] else {
        return Err(format!("{} fields in place of three: {HEADER}", fields.len()));
    };
    let whole = |name: &str, text: &str| text.parse::<u32>().map_err(|_| format!("{name} {text:?} is no whole number"));
    let second = whole("second", second)?;
    if second < earlier {
        return Err(format!("second {second} comes after {earlier}: sort the rows by their seconds"));
    }
    if second >= LONGEST_SECONDS {
        return Err(format!("second {second}: a trace has {LONGEST_SECONDS} seconds (a week) at most"));
    }
    let service_seconds = service.parse::<f64>().ok().filter(|value| (0.0..=LONGEST_SERVICE).contains(value));
    let service_seconds = service_seconds
        .ok_or_else(|| format!("service_seconds {service:?} is no number between 0 and {LONGEST_SERVICE}"))?;
    Ok(Row { second, arrivals: whole("arrivals", arrivals)?, service_seconds })
}

/// Arrivals in one second at a mean rate: gaps are exponential.
fn poisson(rng: &mut Rng, rate: f64) -> u32 {
    let mut count = 0;
    let mut at = gap(rng, rate);
    while at < 1.0 {
        count += 1;
        at += gap(rng, rate);
    }
    count
}

fn gap(rng: &mut Rng, rate: f64) -> f64 {
    -(1.0 - rng.f64()).ln() / rate
}

#[cfg(test)]
pub(super) mod tests {
    use clap::ValueEnum;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    pub(in super::super) const SCALE: Scale =
        Scale { seconds: 600, peak: 20.0, service_seconds: 0.4, longest_service: 30.0 };

    #[test]
    fn rows_are_read() {
        let trace = Trace::read("t.csv", "second,arrivals,service_seconds\n0,3,0.5\n\n2, 1, 4\n2,2,0.1\n").unwrap();
        assert_eq!((trace.seconds, trace.arrivals()), (3, vec![3, 0, 3]));
        let first: Vec<_> = trace.messages().iter().take(3).map(|m| (m.arrives, m.service)).collect();
        assert_eq!(first, [(0, 500_000), (333_333, 500_000), (666_666, 500_000)]);
    }

    #[rstest]
    #[case::empty("", "t.csv: no rows; each is second,arrivals,service_seconds")]
    #[case::header_only("second,arrivals,service_seconds\n", "t.csv: no rows; each is second,arrivals,service_seconds")]
    #[case::fields("0,1\n", "t.csv:1: 2 fields in place of three: second,arrivals,service_seconds")]
    #[case::other_header("a,b,c\n0,1,1\n", "t.csv:1: second \"a\" is no whole number")]
    #[case::second("0,1,1\nx,1,1", "t.csv:2: second \"x\" is no whole number")]
    #[case::arrivals("0,-1,1", "t.csv:1: arrivals \"-1\" is no whole number")]
    #[case::service("0,1,NaN", "t.csv:1: service_seconds \"NaN\" is no number between 0 and 3600")]
    #[case::too_long("0,1,3601", "t.csv:1: service_seconds \"3601\" is no number between 0 and 3600")]
    #[case::order("5,1,1\n4,1,1", "t.csv:2: second 4 comes after 5: sort the rows by their seconds")]
    #[case::all_faults(
        "x,1,1\n1,y,1",
        "t.csv:1: second \"x\" is no whole number\nt.csv:2: arrivals \"y\" is no whole number"
    )]
    #[case::a_week("700000,1,1", "t.csv:1: second 700000: a trace has 604800 seconds (a week) at most")]
    #[case::too_many("0,4000000,1\n1,4000000,1", "t.csv: 8000000 messages; 5000000 at most, take a part of it")]
    fn faults_have_their_line(#[case] text: &str, #[case] fault: &str) {
        assert_eq!(Trace::read("t.csv", text).unwrap_err(), fault);
    }

    #[test]
    fn a_file_full_of_faults_shows_ten() {
        let fault = Trace::read("t.csv", &"x\n".repeat(30)).unwrap_err();
        assert!(fault.lines().count() == 11 && fault.ends_with("and 20 more"), "{fault}");
    }

    #[test]
    fn a_seed_makes_one_trace_and_another_one_another() {
        for shape in Shape::value_variants() {
            let [first, again, other] = [1, 1, 2].map(|seed| Trace::generate(*shape, seed, SCALE).unwrap());
            assert_eq!(first, again);
            assert_ne!(first.rows, other.rows);
            assert!(first.rows.iter().all(|row| row.service_seconds <= SCALE.longest_service), "{shape:?}");
        }
    }

    #[test]
    fn only_in_an_outage_the_queue_cannot_be_read() {
        for shape in Shape::value_variants() {
            let trace = Trace::generate(*shape, 1, SCALE).unwrap();
            assert_eq!(trace.unreadable.is_empty(), *shape != Shape::Outage, "{shape:?}");
        }
    }

    proptest! {
        #[test]
        fn arrivals_are_around_their_rate(seed: u64, rate in 1.0..100.0_f64) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let total: u32 = (0..400).map(|_| poisson(&mut rng, rate)).sum();
            // Six standard deviations of 400 seconds' sum.
            prop_assert!((f64::from(total) - 400.0 * rate).abs() < 6.0 * (400.0 * rate).sqrt());
        }
    }
}
