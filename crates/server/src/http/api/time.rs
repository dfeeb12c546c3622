//! Times at the border: RFC 3339 out, RFC 3339 or an age such as `1h` in.

use jiff::Timestamp;

/// Unix microseconds as RFC 3339 in UTC.
pub(crate) fn rfc3339(unix_us: u64) -> String {
    let micros = i64::try_from(unix_us).unwrap_or(i64::MAX);
    // Out of jiff's range (the year 9999) only for a broken clock; its end is as good an answer.
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX).to_string()
}

/// A point in time as Unix microseconds: RFC 3339, or an age counted back from `now_us`.
/// An age needs a unit, so that a Unix timestamp is not taken for one.
pub(crate) fn point_in_time(text: &str, now_us: u64) -> Option<u64> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(u64::try_from(time.as_microsecond()).unwrap_or(0));
    }
    let age = humantime::parse_duration(text).ok().filter(|_| has_unit(text))?;
    Some(now_us.saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX)))
}

/// A point in time to come as Unix microseconds: RFC 3339, or a time from `now_us` on.
pub(crate) fn until(text: &str, now_us: u64) -> Option<u64> {
    let from_now = || {
        let wait = humantime::parse_duration(text).ok().filter(|_| has_unit(text))?;
        now_us.checked_add(u64::try_from(wait.as_micros()).ok()?)
    };
    let time = match text.parse::<Timestamp>() {
        Ok(time) => u64::try_from(time.as_microsecond()).ok(),
        Err(_) => from_now(),
    };
    time.filter(|time| *time > now_us && i64::try_from(*time).is_ok())
}

fn has_unit(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_out_as_rfc3339_and_come_back() {
        assert_eq!(rfc3339(1_700_000_000_123_456), "2023-11-14T22:13:20.123456Z");
        assert_eq!(point_in_time("2023-11-14T22:13:20.123456Z", 0), Some(1_700_000_000_123_456));
        assert_eq!(point_in_time("2023-11-14T23:13:20+01:00", 0), Some(1_700_000_000_000_000));
    }

    #[test]
    fn times_to_come_are_after_now() {
        assert_eq!(until("1h", 5), Some(3_600_000_005));
        assert_eq!(until("2023-11-14T22:13:20Z", 0), Some(1_700_000_000_000_000));
        for bad in ["", "0", "0s", "90", "soon", "-1h", "2023-11-14T22:13:20Z", "999999999999y"] {
            assert_eq!(until(bad, 1_700_000_000_000_000), None, "{bad}");
        }
    }

    #[test]
    fn ages_count_back_from_now() {
        assert_eq!(point_in_time("1h", 7_200_000_000), Some(3_600_000_000));
        assert_eq!(point_in_time("1h 30m", 7_200_000_000), Some(1_800_000_000));
        assert_eq!(point_in_time("9000d", 5), Some(0));
        for bad in ["", "0", "1700000000", "soon", "-1h", "2023-11-14"] {
            assert_eq!(point_in_time(bad, 0), None, "{bad}");
        }
    }
}
