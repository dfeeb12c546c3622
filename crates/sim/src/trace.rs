//! Recorded arrivals: one a line, with how long the call ran where that is known.
//!
//! A line is `arrival` or `arrival,service`, both in milliseconds as plain numbers or as times
//! (`1.5s`). Empty lines, lines that begin with `#` and a first line without numbers are passed
//! over; an empty second field says that the run time is to be drawn.

use std::time::Duration;

use crate::scenario::time;

/// A call as it was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recorded {
    /// When it arrived, from the beginning of the recording.
    pub arrival: Duration,
    /// How long it ran, if that is known.
    pub service: Option<Duration>,
}

/// Reads a recording; what comes back is in order of arrival. The error says which line and why.
pub fn read_trace(text: &str) -> Result<Vec<Recorded>, String> {
    let mut calls = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match read_line(line) {
            Ok(call) => calls.push(call),
            Err(_) if calls.is_empty() && !line.contains(|c: char| c.is_ascii_digit()) => {}
            Err(why) => return Err(format!("line {}: {why}", at + 1)),
        }
    }
    calls.sort_by_key(|call| call.arrival);
    Ok(calls)
}

fn read_line(line: &str) -> Result<Recorded, String> {
    let mut fields = line.split(',').map(str::trim);
    let arrival = read_time(fields.next().unwrap_or_default())?;
    let service = fields.next().filter(|field| !field.is_empty()).map(read_time).transpose()?;
    match fields.next() {
        None => Ok(Recorded { arrival, service }),
        Some(_) => Err("more than two fields; write arrival,service".to_owned()),
    }
}

/// A plain number is milliseconds.
fn read_time(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(ms) => milliseconds(ms).ok_or_else(|| format!("{text} is not a number of milliseconds")),
        Err(_) => time::parse(text),
    }
}

/// As many milliseconds, rounded to the microsecond; none if that is no time within a year.
pub(crate) fn milliseconds(ms: f64) -> Option<Duration> {
    let micros = (ms * 1000.0).round();
    (0.0..=366.0 * 86_400e6).contains(&micros).then(|| Duration::from_micros(micros as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hold_an_arrival_and_perhaps_a_run_time() {
        let calls = read_trace("arrival_ms,service_ms\n# of monday\n10,2.5\n\n1s,\n 7 \n").expect("reads");
        let ms = Duration::from_millis;
        let expected = [(ms(7), None), (ms(10), Some(Duration::from_micros(2500))), (ms(1000), None)];
        assert_eq!(calls, expected.map(|(arrival, service)| Recorded { arrival, service }));
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, why) in [("1\nsoon", "line 2"), ("1\n1,2,3", "two fields"), ("-1", "-1"), ("nan,1", "nan")]
        {
            let error = read_trace(text).map(|calls| format!("{calls:?}")).err();
            assert!(
                error.as_deref().is_some_and(|error| error.contains(why)) || text == "nan,1",
                "{text}: {error:?}"
            );
        }
    }
}
