//! Bounds and a target that hold only at certain times. Pure: the time is handed in.
//! A window opens at the local time that its cron names and lasts its duration of real time.

use cronexpr::{Crontab, parse_crontab};
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

/// No zone puts its clock forward or back by more than this at once.
const LONGEST_JUMP: SignedDuration = SignedDuration::from_hours(2);
/// The library looks four years ahead, and the calendar ends in 9999.
const LAST_YEAR: i16 = 9990;

/// Why a schedule cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("there is no time zone {0:?}: use a name of the IANA database, such as Europe/Berlin")]
    Zone(String),
    #[error(
        "cron {cron:?} is not understood ({why}): write minute, hour, day of month, month and day of week, such as 0 8 * * 1-5"
    )]
    Cron { cron: String, why: String },
    #[error("cron {0:?} names no day that ever comes")]
    Never(String),
}

/// When a window opens: five fields of cron, on the clocks of a time zone.
#[derive(Clone, Debug)]
pub struct Opening {
    text: (String, String),
    crontab: Crontab,
    zone: TimeZone,
}

impl PartialEq for Opening {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Opening {
    pub fn new(cron: &str, zone: &str) -> Result<Self, ScheduleError> {
        let text = (cron.to_owned(), zone.to_owned());
        let zone = TimeZone::get(zone).map_err(|_| ScheduleError::Zone(text.1.clone()))?;
        // The library reads clocks without jumps; what these are in the zone is worked out here.
        let crontab = parse_crontab(&format!("{cron} UTC")).map_err(|error| {
            let why = error.to_string();
            let why = why.rsplit("^ ").next().unwrap_or_default().to_owned();
            ScheduleError::Cron { cron: text.0.clone(), why }
        })?;
        crontab.find_next(Timestamp::UNIX_EPOCH).map_err(|_| ScheduleError::Never(text.0.clone()))?;
        Ok(Self { text, crontab, zone })
    }

    /// Whether a window opened within the last `duration`. A time that the clock skips opens it as much later, one that comes
    /// twice when it comes first.
    fn opened_within(&self, duration: SignedDuration, now: Timestamp) -> bool {
        self.starts_around(duration, now).is_some_and(|mut starts| {
            starts.any(|start| {
                let start = self.zone.to_ambiguous_timestamp(start).compatible();
                start.is_ok_and(|start| start <= now && now.duration_since(start) < duration)
            })
        })
    }

    /// The local times that may have been within the last `duration`.
    fn starts_around(&self, duration: SignedDuration, now: Timestamp) -> Option<impl Iterator<Item = DateTime>> {
        let local = |at: Timestamp| self.zone.to_datetime(at);
        let first = local(now.checked_sub(duration).ok()?).checked_sub(LONGEST_JUMP).ok()?;
        let last = local(now).checked_add(LONGEST_JUMP).ok()?;
        if last.year() > LAST_YEAR {
            return None;
        }
        let starts = self.crontab.iter_after(TimeZone::UTC.to_timestamp(first).ok()?).ok()?;
        Some(starts.map_while(Result::ok).map(|start| start.datetime()).take_while(move |start| *start <= last))
    }
}

/// What holds while a window is open. At least one of the three is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub name: String,
    pub opening: Opening,
    pub duration: SignedDuration,
    pub min: Option<u32>,
    pub max: Option<u32>,
    /// Seconds.
    pub target_wait: Option<f64>,
}

impl Schedule {
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.opening.opened_within(self.duration, now)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[rstest]
    #[case::before("0 8 * * 1-5", "Europe/Berlin", 600, "2026-06-05T07:59:59+02", false)]
    #[case::opens("0 8 * * 1-5", "Europe/Berlin", 600, "2026-06-05T08:00:00+02", true)]
    #[case::its_last_second("0 8 * * 1-5", "Europe/Berlin", 600, "2026-06-05T17:59:59+02", true)]
    #[case::closes("0 8 * * 1-5", "Europe/Berlin", 600, "2026-06-05T18:00:00+02", false)]
    #[case::not_on_saturday("0 8 * * 1-5", "Europe/Berlin", 600, "2026-06-06T09:00:00+02", false)]
    #[case::over_midnight("0 22 * * FRI", "UTC", 480, "2026-06-06T05:59:59Z", true)]
    #[case::all_the_time("* * * * *", "UTC", 10080, "2026-06-06T05:59:59Z", true)]
    #[case::in_winter("0 8 * * *", "Europe/Berlin", 60, "2026-01-05T07:00:00Z", true)]
    #[case::in_summer("0 8 * * *", "Europe/Berlin", 60, "2026-07-05T06:00:00Z", true)]
    // On 29 March 2026 Berlin's clocks go from 02:00 to 03:00, which is 01:00 UTC.
    #[case::skipped_opens_an_hour_later("30 2 * * *", "Europe/Berlin", 60, "2026-03-29T01:29:59Z", false)]
    #[case::skipped_opens("30 2 * * *", "Europe/Berlin", 60, "2026-03-29T01:30:00Z", true)]
    #[case::skipped_lasts_as_long("30 2 * * *", "Europe/Berlin", 60, "2026-03-29T02:29:59Z", true)]
    #[case::skipped_closes("30 2 * * *", "Europe/Berlin", 60, "2026-03-29T02:30:00Z", false)]
    #[case::open_over_the_gap("0 1 * * *", "Europe/Berlin", 120, "2026-03-29T01:59:59Z", true)]
    #[case::real_time_over_the_gap("0 1 * * *", "Europe/Berlin", 120, "2026-03-29T02:00:00Z", false)]
    // On 25 October 2026 they go from 03:00 back to 02:00, which is 01:00 UTC.
    #[case::twice_opens_at_the_first("30 2 * * *", "Europe/Berlin", 60, "2026-10-25T00:30:00Z", true)]
    #[case::twice_closes("30 2 * * *", "Europe/Berlin", 60, "2026-10-25T01:30:00Z", false)]
    #[case::twice_opens_once("30 2 * * *", "Europe/Berlin", 60, "2026-10-25T01:45:00Z", false)]
    #[case::open_over_the_fold("0 1 * * *", "Europe/Berlin", 120, "2026-10-25T00:59:59Z", true)]
    #[case::real_time_over_the_fold("0 1 * * *", "Europe/Berlin", 120, "2026-10-25T01:00:00Z", false)]
    fn windows(#[case] cron: &str, #[case] zone: &str, #[case] minutes: i64, #[case] now: &str, #[case] open: bool) {
        let opening = Opening::new(cron, zone).unwrap();
        assert_eq!(opening.opened_within(SignedDuration::from_mins(minutes), at(now)), open);
    }

    #[rstest]
    #[case::no_such_zone("0 8 * * *", "Europe/Atlantis", "no time zone \"Europe/Atlantis\"")]
    #[case::no_such_hour("0 25 * * *", "UTC", "0..=23; found 25")]
    #[case::too_few_fields("0 8 *", "UTC", "is not understood")]
    #[case::a_zone_in_the_cron("0 8 * * * UTC", "UTC", "is not understood")]
    #[case::seconds("0 0 8 * * *", "UTC", "is not understood")]
    #[case::never("0 0 30 2 *", "UTC", "names no day that ever comes")]
    fn what_cannot_be_followed_is_refused(#[case] cron: &str, #[case] zone: &str, #[case] says: &str) {
        let error = Opening::new(cron, zone).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_leap_day_comes() {
        let opening = Opening::new("0 0 29 2 *", "UTC").unwrap();
        assert!(opening.opened_within(SignedDuration::from_hours(1), at("2028-02-29T00:30:00Z")));
    }

    #[test]
    fn times_at_the_ends_of_the_calendar_are_no_panic() {
        let opening = Opening::new("* * * * *", "Pacific/Apia").unwrap();
        for now in [Timestamp::MIN, Timestamp::MAX] {
            opening.opened_within(SignedDuration::from_hours(200), now);
        }
    }
}
