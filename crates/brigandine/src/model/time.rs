//! Times as the database stores them.

/// Seconds since 1970 in UTC. 0 means "not yet".
pub type Timestamp = i64;

/// How much later than its child processes the server may get a signal that is sent to all of them.
pub const STOP_DELAY: std::time::Duration = std::time::Duration::from_secs(1);

/// A duration for people, in its two largest units: `0 s`, `42 s`, `3 min 20 s`, `1 h 5 min`, `2 d 3 h`.
pub fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3_600 => match seconds % 60 {
            0 => format!("{} min", seconds / 60),
            rest => format!("{} min {rest} s", seconds / 60),
        },
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// The current time of the server's clock. SQL never asks for the time: the time is always a parameter.
pub fn now() -> Timestamp {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX))
}

/// For example `2026-11-20T10:26:29Z`, by the proleptic Gregorian calendar.
pub fn iso(at: Timestamp) -> String {
    let (days, seconds) = (at.div_euclid(86_400), at.rem_euclid(86_400));
    // Howard Hinnant's `civil_from_days`, with eras of 400 years that start in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year_of_era + era * 400 + year;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::{duration, iso};

    #[test]
    fn times_are_written_by_the_calendar() {
        for (at, wanted) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_170_389, "2026-11-20T10:26:29Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(iso(at), wanted);
        }
    }

    #[test]
    fn durations_are_said_in_their_two_largest_units() {
        for (seconds, said) in [
            (-1, "0 s"),
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (3_599, "59 min 59 s"),
            (3_600, "1 h 0 min"),
            (3_900, "1 h 5 min"),
            (176_400, "2 d 1 h"),
        ] {
            assert_eq!(duration(seconds), said);
        }
    }
}
