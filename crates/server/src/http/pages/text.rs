//! How figures read on a page: durations, shares, counts, sizes and moments.
//!
//! Pure: `now` is an argument. Three significant digits are enough to see and few enough to
//! compare down a column; shares never round up to 100 % or down to 0 %, because the
//! difference is what an error budget is about.

use askama::Template;
use jiff::Timestamp;

/// A duration in nanoseconds: `48 µs`, `1.24 ms`, `12.3 s`, `4 min 05 s`.
pub(super) fn duration(nanoseconds: u64) -> String {
    let seconds = nanoseconds as f64 / 1e9;
    if nanoseconds == 0 {
        "0 µs".into()
    } else if nanoseconds < 9_950 {
        format!("{:.1} µs", nanoseconds as f64 / 1e3)
    } else if nanoseconds < 999_500 {
        format!("{:.0} µs", nanoseconds as f64 / 1e3)
    } else if seconds < 0.9995 {
        format!("{} ms", significant(nanoseconds as f64 / 1e6))
    } else if seconds < 119.5 {
        format!("{} s", significant(seconds))
    } else if seconds < 7_200.0 {
        let whole = seconds.round() as u64;
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        age(nanoseconds / 1_000)
    }
}

/// A duration in milliseconds.
pub(super) fn milliseconds(value: f64) -> String {
    duration((value.max(0.0) * 1e6) as u64)
}

/// A coarse duration in microseconds, in its largest unit: `45 s`, `12 min`, `3 h`, `9 d`.
pub(super) fn age(microseconds: u64) -> String {
    let seconds = microseconds / 1_000_000;
    match seconds {
        0..=89 => format!("{seconds} s"),
        90..=5_399 => format!("{} min", (seconds + 30) / 60),
        5_400..=172_799 => format!("{} h", (seconds + 1_800) / 3_600),
        _ => format!("{} d", (seconds + 43_200) / 86_400),
    }
}

/// Three significant digits without trailing noise: `1.24`, `12.3`, `123`.
fn significant(value: f64) -> String {
    match value {
        _ if value < 9.995 => format!("{value:.2}"),
        _ if value < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A whole number with separators: `12,345`.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate per second: `0`, `0.02/s`, `12.4/s`, `1,240/s`.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        _ if per_second <= 0.0 => "0/s".into(),
        _ if per_second < 0.01 => "<0.01/s".into(),
        _ if per_second < 999.5 => format!("{}/s", significant(per_second)),
        _ => format!("{}/s", count(per_second.round() as u64)),
    }
}

/// A share as a percentage: `0%`, `<0.01%`, `12.5%`, `99.95%`, `100%`; neither end is reached by
/// rounding.
pub(super) fn percent(share: f64) -> String {
    let value = share * 100.0;
    if value <= 0.0 {
        return if value < 0.0 { format!("−{}", percent(-share)) } else { "0%".into() };
    }
    if value < 0.01 {
        return "<0.01%".into();
    }
    if value >= 100.0 {
        return format!("{value:.0}%");
    }
    let rounded = match value {
        _ if value < 9.995 => format!("{value:.2}"),
        _ if value < 90.0 => format!("{value:.1}"),
        _ => format!("{:.3}", (value * 1e3).floor() / 1e3),
    };
    format!("{}%", trim_zeros(&rounded))
}

/// A share where nobody counts nines: `0.4%`, `12%`, `98%`; neither end is reached by rounding.
pub(super) fn share(share: f64) -> String {
    let value = share * 100.0;
    match value {
        _ if value <= 0.0 => "0%".into(),
        _ if value < 0.1 => "<0.1%".into(),
        _ if value < 9.95 => format!("{value:.1}%"),
        _ if value > 99.0 && value < 100.0 => ">99%".into(),
        _ => format!("{value:.0}%"),
    }
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// A number as it was written in the settings: `99.9`, `30`.
pub(super) fn plain(value: f64) -> String {
    trim_zeros(&format!("{value:.4}")).to_string()
}

/// A size: `512 B`, `6.0 MiB`.
pub(super) fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    let mut scaled = value as f64 / 1024.0;
    let mut unit = 0;
    while scaled >= 1023.5 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(scaled < 99.95);
    format!("{scaled:.digits$} {}", UNITS[unit])
}

/// A moment: relative for reading, absolute in UTC for the title and for machines. The script
/// turns the title into local time and keeps the relative text moving.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(
    ext = "html",
    source = r#"<time datetime="{{ iso }}" title="{{ absolute }}" data-relative>{{ relative }}</time>"#
)]
pub(super) struct Moment {
    /// RFC 3339 in UTC, to the millisecond.
    pub(super) iso: String,
    /// For people, in UTC.
    pub(super) absolute: String,
    /// `12 s ago`.
    pub(super) relative: String,
}

impl askama::filters::HtmlSafe for Moment {}

/// A moment in Unix microseconds, seen from `now_us`.
pub(super) fn moment(at_us: u64, now_us: u64) -> Moment {
    let (iso, absolute) = absolute(at_us);
    let relative = match now_us.saturating_sub(at_us) {
        0..1_500_000 => "just now".into(),
        passed => format!("{} ago", age(passed)),
    };
    Moment { iso, absolute, relative }
}

/// RFC 3339 and the readable form of a moment in Unix microseconds, both in UTC.
pub(super) fn absolute(at_us: u64) -> (String, String) {
    let micros = i64::try_from(at_us).unwrap_or(i64::MAX);
    let Ok(time) = Timestamp::from_microsecond(micros) else {
        return (String::new(), "out of range".into());
    };
    (
        time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
        time.strftime("%Y-%m-%d %H:%M:%S.%3f UTC").to_string(),
    )
}

/// The clock time of a moment in UTC: `06:45:12.345`.
pub(super) fn clock_time(at_us: u64) -> String {
    let micros = i64::try_from(at_us).unwrap_or(i64::MAX);
    Timestamp::from_microsecond(micros)
        .map_or_else(|_| String::new(), |t| t.strftime("%H:%M:%S.%3f").to_string())
}

/// `1 call`, `2 calls`.
pub(super) fn plural(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well_at_every_size() {
        let read = |ns| duration(ns);
        assert_eq!(read(0), "0 µs");
        assert_eq!(read(1_240), "1.2 µs");
        assert_eq!(read(48_400), "48 µs");
        assert_eq!(read(999_400), "999 µs");
        assert_eq!(read(999_600), "1.00 ms");
        assert_eq!(read(12_345_678), "12.3 ms");
        assert_eq!(read(999_400_000), "999 ms");
        assert_eq!(read(999_600_000), "1.00 s");
        assert_eq!(read(61_200_000_000), "61.2 s");
        assert_eq!(read(245_000_000_000), "4 min 05 s");
        assert_eq!(read(8_000_000_000_000), "2 h");
    }

    #[test]
    fn shares_never_round_to_the_ends() {
        assert_eq!(percent(0.0), "0%");
        assert_eq!(percent(0.00001), "<0.01%");
        assert_eq!(percent(0.125), "12.5%");
        assert_eq!(percent(0.999), "99.9%");
        assert_eq!(percent(0.999_999_9), "99.999%");
        assert_eq!(percent(1.0), "100%");
        assert_eq!(percent(-0.5), "−50%");
        assert_eq!(percent(2.5), "250%");
        assert_eq!(share(0.945_88), "95%");
        assert_eq!(share(0.000_4), "<0.1%");
        assert_eq!(share(0.0312), "3.1%");
        assert_eq!(share(0.9951), ">99%");
        assert_eq!(share(1.0), "100%");
    }

    #[test]
    fn counts_rates_and_sizes() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(rate(0.0), "0/s");
        assert_eq!(rate(0.001), "<0.01/s");
        assert_eq!(rate(12.34), "12.3/s");
        assert_eq!(rate(12_340.0), "12,340/s");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(6 << 20), "6.0 MiB");
        assert_eq!(bytes(256 << 20), "256 MiB");
        assert_eq!(bytes(u64::MAX), "16384 PiB");
        assert_eq!(plain(99.9), "99.9");
        assert_eq!(plural(1, "call"), "1 call");
        assert_eq!(plural(2_000, "call"), "2,000 calls");
    }

    #[test]
    fn a_moment_is_relative_and_absolute() {
        let seen = moment(1_763_880_312_345_678, 1_763_880_372_345_678);
        assert_eq!(seen.absolute, "2025-11-23 06:45:12.345 UTC");
        assert_eq!(seen.iso, "2025-11-23T06:45:12.345Z");
        assert_eq!(seen.relative, "60 s ago");
        assert_eq!(moment(5_000_000, 0).relative, "just now", "a clock that stepped back is no panic");
        assert_eq!(moment(u64::MAX, 0).absolute, "out of range");
    }
}
