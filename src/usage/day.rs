//! Days and months, which begin at midnight UTC for everybody.

use std::{fmt, time::Duration};

use time::{Date, Month, OffsetDateTime, UtcOffset};

/// A day in UTC. Written, and kept in the database, as `YYYY-MM-DD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(Date);

impl Day {
    /// The day that `now` is in.
    pub fn of(now: OffsetDateTime) -> Self {
        Self(now.to_offset(UtcOffset::UTC).date())
    }

    /// Reads `YYYY-MM-DD`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut part = || parts.next()?.parse::<u16>().ok();
        let (year, month, day) = (part()?, part()?, part()?);
        let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
        let date = Date::from_calendar_date(year.into(), month, u8::try_from(day).ok()?).ok()?;
        // Written back it must be the same: no `+1`, no missing zeros, nothing behind it.
        (date.to_string() == text).then_some(Self(date))
    }

    /// The first day of its month.
    #[must_use]
    pub fn month(self) -> Self {
        Self(self.0.replace_day(1).unwrap_or(self.0))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

/// For how long a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the first of the next.
    Month,
}

impl Period {
    /// How long it is from `now` until the next period begins, in whole seconds, never too short.
    pub fn left(self, now: OffsetDateTime) -> Duration {
        let today = Day::of(now).0;
        let next = match self {
            Self::Day => today.next_day(),
            Self::Month => {
                let year = today.year() + i32::from(today.month() == Month::December);
                Date::from_calendar_date(year, today.month().next(), 1).ok()
            }
        };
        let left = next.unwrap_or(Date::MAX).midnight().assume_utc() - now;
        let begun = i64::from(left.subsec_nanoseconds() > 0);
        Duration::from_secs(u64::try_from(left.whole_seconds() + begun).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use time::Time;

    use super::*;

    fn at(day: &str, hour: u8, minute: u8, nanos: u32) -> OffsetDateTime {
        let time = Time::from_hms_nano(hour, minute, 0, nanos).unwrap();
        Day::parse(day).unwrap().0.with_time(time).assume_utc()
    }

    #[test]
    fn a_day_is_written_as_it_is_read() {
        for text in ["2025-01-31", "2024-02-29", "0001-01-01", "9999-12-31"] {
            assert_eq!(Day::parse(text).unwrap().to_string(), text);
        }
        for bad in [
            "",
            "2025-1-31",
            "2025-02-29",
            "2025-13-01",
            "2025-00-10",
            "20250131",
            "2025-01-31-",
            "2025-01-31T00:00",
            "+2025-01-31",
            "2025-+1-31",
            " 2025-01-31",
            "today",
            "10000-01-01",
        ] {
            assert_eq!(Day::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn days_are_those_of_utc() {
        let tokyo = UtcOffset::from_hms(9, 0, 0).unwrap();
        let morning = at("2025-01-31", 23, 30, 0).to_offset(tokyo);
        assert_eq!(Day::of(morning).to_string(), "2025-01-31");
        assert_eq!(Day::of(morning).month().to_string(), "2025-01-01");
        assert_eq!(Period::Day.left(morning), Duration::from_mins(30));
    }

    #[test]
    fn a_period_ends_at_midnight() {
        let hours = Duration::from_hours;
        assert_eq!(Period::Day.left(at("2025-01-30", 0, 0, 0)), hours(24));
        assert_eq!(Period::Day.left(at("2025-01-30", 23, 59, 1)), Duration::from_secs(60));
        assert_eq!(Period::Month.left(at("2025-01-30", 12, 0, 0)), hours(36));
        assert_eq!(Period::Month.left(at("2024-02-29", 23, 0, 0)), hours(1));
        assert_eq!(Period::Month.left(at("2024-12-31", 22, 0, 0)), hours(2));
        assert_eq!(Period::Month.left(at("9999-12-31", 22, 0, 0)), Duration::ZERO);
    }
}
