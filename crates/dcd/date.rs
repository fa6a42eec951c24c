//! Moments for people: day and time in UTC.
//!
//! Deliberately absent: time zones, and seconds that are inserted, which the clock of a host does not count either.

const DAY_S: u64 = 86_400;

/// Days of 400 years, after which the calendar is the same.
const ERA_DAYS: u64 = 146_097;

/// Days from the 1st of March of the year 0 to 1970.
const TO_1970_DAYS: u64 = 719_468;

/// Milliseconds since 1970 as `2026-01-01 00:00:00`.
pub(crate) fn utc(since_1970_ms: u64) -> String {
    let seconds = since_1970_ms / 1_000;
    let (year, month, day) = civil(seconds / DAY_S);
    let of_day = seconds % DAY_S;
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Year, month and day of a day since 1970. Years are counted from March, so that the day that some have more is their last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + TO_1970_DAYS;
    let (era, of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let of_era_years = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_era_years + of_era_years / 4 - of_era_years / 100);
    // Five months from March on, and again from August on, have 153 days.
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + of_era_years + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_799, "2000-02-29 23:59:59"),
            (951_868_800, "2000-03-01 00:00:00"),
            (1_709_210_096, "2024-02-29 12:34:56"),
            (1_767_225_600, "2026-01-01 00:00:00"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(utc(seconds * 1_000 + 999), text);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let days_of = |year: u64, month: u64| match month {
            2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut expected = (1970, 1, 1);
        for days in 0..2 * ERA_DAYS {
            assert_eq!(civil(days), expected);
            let (year, month, day) = expected;
            expected = match (month, day == days_of(year, month)) {
                (12, true) => (year + 1, 1, 1),
                (_, true) => (year, month + 1, 1),
                (_, false) => (year, month, day + 1),
            };
        }
    }

    #[test]
    fn no_moment_is_too_late() {
        assert!(utc(u64::MAX).ends_with(":51"), "{}", utc(u64::MAX));
    }
}
