//! Deadlines that callers send: five headers, one [`Duration`].
//!
//! Each header holds the time that is left, relative, so that clocks need not agree. The
//! smallest wins; the caller of this module then takes the smaller of that and the function's
//! own timeout. A value that cannot be read is an error that names header and value, never
//! ignored: a caller that asked for a deadline must not be left without one.
//! Zero is a valid time: that call has already expired.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Most that a header can ask for; larger values mean "no limit of mine". A day is far beyond
/// every timeout that a function can have (an hour).
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The headers that carry a deadline, in lower case; each with its own spelling of a time.
pub const HEADERS: [&str; 5] = [
    "grpc-timeout",
    "x-request-timeout",
    "request-timeout",
    "x-envoy-expected-rq-timeout-ms",
    "connect-timeout-ms",
];

/// Who set a call's deadline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeadlineFrom {
    /// Nobody knows any more: the record is from before this was kept.
    #[default]
    Unknown,
    /// The function's own timeout.
    Timeout,
    /// The caller, in `grpc-timeout`.
    GrpcTimeout,
    /// The caller, in `x-request-timeout`.
    XRequestTimeout,
    /// The caller, in `request-timeout`.
    RequestTimeout,
    /// The caller, in `x-envoy-expected-rq-timeout-ms`.
    Envoy,
    /// The caller, in `connect-timeout-ms`.
    Connect,
}

impl DeadlineFrom {
    /// In the order of their numbers, the headers in that of [`HEADERS`].
    const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Timeout,
        Self::GrpcTimeout,
        Self::XRequestTimeout,
        Self::RequestTimeout,
        Self::Envoy,
        Self::Connect,
    ];

    /// The numbers below this one are no headers.
    const FIRST_HEADER: usize = 2;

    fn header(place: usize) -> Self {
        Self::ALL[Self::FIRST_HEADER + place]
    }

    /// `timeout`, or the header's name in lower case.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::Timeout => Some("timeout"),
            header => Some(HEADERS[header as usize - Self::FIRST_HEADER]),
        }
    }

    /// A number to keep it by.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// What [`number`](Self::number) was made from; what is none of its is unknown.
    pub fn from_number(number: u64) -> Self {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        Self::ALL.get(place).copied().unwrap_or_default()
    }
}

/// The time that a caller gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// How long.
    pub time: Duration,
    /// Which of its headers says so.
    pub from: DeadlineFrom,
}

/// A deadline header whose value is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{header}: {value:?} is not a time; {expected}")]
pub struct DeadlineError {
    /// The header's name, in lower case.
    pub header: &'static str,
    /// What it held, shortened to 64 bytes.
    pub value: String,
    /// What is allowed.
    pub expected: &'static str,
}

/// The smallest time among `(header, value)` pairs; none if no header is a deadline.
///
/// Header names are matched without regard to case. Values are raw header bytes.
pub fn smallest<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<Option<Given>, DeadlineError> {
    let mut smallest: Option<Given> = None;
    for (name, value) in headers {
        let Some(place) = HEADERS.iter().position(|known| known.eq_ignore_ascii_case(name)) else {
            continue;
        };
        let time = parse(HEADERS[place], value)?;
        if smallest.is_none_or(|so_far| time < so_far.time) {
            smallest = Some(Given { time, from: DeadlineFrom::header(place) });
        }
    }
    Ok(smallest)
}

/// The time in the value of one of [`HEADERS`], at most [`LONGEST`].
pub fn parse(header: &'static str, value: &[u8]) -> Result<Duration, DeadlineError> {
    let (read, expected): (fn(&str) -> Option<Duration>, _) = match header {
        "grpc-timeout" => (grpc, "write 1 to 8 digits and one of H M S m u n, such as 250m"),
        "x-request-timeout" | "request-timeout" => {
            (seconds_or_unit, "write decimal seconds or a number with a unit, such as 2.5 or 250ms")
        }
        _ => (milliseconds, "write whole milliseconds, at most 10 digits"),
    };
    let text = std::str::from_utf8(value).ok().map(|text| text.trim_matches([' ', '\t']));
    text.and_then(read).map(|time| time.min(LONGEST)).ok_or_else(|| DeadlineError {
        header,
        value: String::from_utf8_lossy(&value[..value.len().min(64)]).into_owned(),
        expected,
    })
}

/// gRPC over HTTP/2: `TimeoutValue TimeoutUnit`, at most eight digits.
fn grpc(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount = whole(digits, 8)?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Envoy and Connect: whole milliseconds; Connect allows ten digits.
fn milliseconds(text: &str) -> Option<Duration> {
    whole(text, 10).map(Duration::from_millis)
}

/// `2.5`, `2.5s`, `250ms`, `100us`, `1m`, `1h`. No exponents, no signs.
fn seconds_or_unit(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let nanos_per_unit: u128 = match unit.trim_start_matches(' ') {
        "" | "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" | "µs" => 1_000,
        "ns" => 1,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (integer, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // Nine digits of a fraction are nanoseconds of a second; what follows cannot matter.
    let integer = whole(integer, 18)?;
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let kept = &fraction[..fraction.len().min(9)];
    let part = u128::from(whole(kept, 9)?) * nanos_per_unit / 10u128.pow(kept.len() as u32);
    let nanos = u128::from(integer) * nanos_per_unit + part;
    Some(u64::try_from(nanos).map_or(LONGEST, Duration::from_nanos))
}

/// ASCII digits only, one to `most` of them.
fn whole(digits: &str, most: usize) -> Option<u64> {
    let plain = !digits.is_empty() && digits.len() <= most && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(header: &'static str, value: &str) -> Option<Duration> {
        parse(header, value.as_bytes()).ok()
    }

    #[test]
    fn grpc_timeouts_are_up_to_eight_digits_and_a_unit() {
        for (value, nanos) in [
            ("1S", 1_000_000_000),
            ("100m", 100_000_000),
            ("1H", 3_600_000_000_000),
            ("2M", 120_000_000_000),
            ("7u", 7_000),
            ("99999999n", 99_999_999),
            ("0S", 0),
        ] {
            assert_eq!(time("grpc-timeout", value), Some(Duration::from_nanos(nanos)), "{value}");
        }
        for bad in ["999999999n", "1s", "S", "", "1", "1.5S", "-1S", "+1S", "1 S", "1SS", "１S", "1ü"] {
            assert_eq!(time("grpc-timeout", bad), None, "{bad}");
        }
    }

    #[test]
    fn request_timeouts_are_seconds_or_have_a_unit() {
        for header in ["x-request-timeout", "request-timeout"] {
            for (value, nanos) in [
                ("2", 2_000_000_000),
                ("0.25", 250_000_000),
                ("2.5s", 2_500_000_000),
                ("250ms", 250_000_000),
                ("22994ms", 22_994_000_000),
                ("100us", 100_000),
                ("1m", 60_000_000_000),
                ("0.5h", 1_800_000_000_000),
                ("0.0000000019", 1),
                (" 1 ", 1_000_000_000),
            ] {
                assert_eq!(time(header, value), Some(Duration::from_nanos(nanos)), "{value}");
            }
            for bad in ["", "soon", "-1", "1e3", ".5", "1.", "1.2.3", "5 days", "NaN", "inf", "0x10", "1,5"] {
                assert_eq!(time(header, bad), None, "{bad}");
            }
        }
    }

    #[test]
    fn millisecond_headers_take_ten_digits() {
        for header in ["connect-timeout-ms", "x-envoy-expected-rq-timeout-ms"] {
            assert_eq!(time(header, "1500"), Some(Duration::from_millis(1500)));
            assert_eq!(time(header, "9999999999"), Some(LONGEST));
            for bad in ["10000000000", "1.5", "1ms", "", "-5"] {
                assert_eq!(time(header, bad), None, "{bad}");
            }
        }
    }

    #[test]
    fn the_smallest_wins_and_a_bad_one_is_named() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            smallest(pairs.iter().map(|(name, value)| (*name, value.as_bytes())))
        };
        assert_eq!(of(&[("accept", "1")]), Ok(None));
        assert_eq!(
            of(&[("Grpc-Timeout", "2S"), ("X-Request-Timeout", "250ms"), ("Connect-Timeout-Ms", "900")]),
            Ok(Some(Given { time: Duration::from_millis(250), from: DeadlineFrom::XRequestTimeout }))
        );
        let error = of(&[("grpc-timeout", "2S"), ("request-timeout", "later")]).expect_err("no time");
        assert_eq!(error.header, "request-timeout");
        assert!(error.to_string().contains("\"later\""), "{error}");
    }

    #[test]
    fn who_set_a_deadline_is_kept_as_a_number() {
        for (number, from) in (0..).zip(DeadlineFrom::ALL) {
            assert_eq!((from.number(), DeadlineFrom::from_number(number.into())), (number, from));
        }
        assert_eq!(DeadlineFrom::from_number(99), DeadlineFrom::Unknown);
        let words = (0..HEADERS.len()).map(|place| DeadlineFrom::header(place).word());
        assert!(words.eq(HEADERS.map(Some)));
    }

    #[test]
    fn absurd_values_are_capped() {
        assert_eq!(time("grpc-timeout", "99999999H"), Some(LONGEST));
        assert_eq!(time("x-request-timeout", "999999999999999999h"), Some(LONGEST));
        assert!(parse("x-request-timeout", &[b'9'; 400]).is_err());
        assert!(parse("x-request-timeout", b"\xff\xfe").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_time_or_an_error(value: Vec<u8>, which in 0..HEADERS.len()) {
            let time = parse(HEADERS[which], &value);
            proptest::prop_assert!(time.map_or(true, |time| time <= LONGEST));
        }
    }
}
