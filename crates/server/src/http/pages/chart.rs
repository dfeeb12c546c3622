//! Charts as SVG: pure functions from points to coordinates, drawn by one template each.
//!
//! A plot stretches with its box (`preserveAspectRatio="none"`, strokes do not scale), so axis
//! words are HTML beside it. Every chart has a title and a description for screen readers and
//! a native tooltip per minute; nothing needs a script or a style attribute.

use askama::Template;

use super::text;

/// Width of every plot in its own units; only ratios matter.
const WIDTH: f64 = 600.0;
/// Height of every plot in its own units.
const HEIGHT: f64 = 120.0;

/// One minute of a function's life.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Minute {
    /// Start, Unix time in microseconds.
    pub(super) at_us: u64,
    /// Calls that ended.
    pub(super) calls: u64,
    /// Those of them that count as bad.
    pub(super) errors: u64,
    /// 99th percentile in milliseconds; none without calls.
    pub(super) p99_ms: Option<f64>,
    /// The same of how long calls waited for a worker.
    pub(super) queue_p99_ms: Option<f64>,
    /// Mean number of calls that ran at once.
    pub(super) demand: f64,
    /// Mean number of workers.
    pub(super) workers: f64,
}

/// A rectangle of a bar chart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bar {
    pub(super) x: String,
    pub(super) width: String,
    /// Top and height of the good part.
    pub(super) good: (String, String),
    /// Top and height of the bad part, above the good one; none without errors.
    pub(super) bad: Option<(String, String)>,
    /// What a tooltip says.
    pub(super) title: String,
}

/// A word on the time axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AxisEnds {
    pub(super) first: String,
    pub(super) last: String,
}

/// Calls per minute, stacked: good below, bad above.
#[derive(Debug, Clone, PartialEq, Template)]
#[template(path = "parts/calls_chart.html")]
pub(super) struct CallsChart {
    pub(super) id: &'static str,
    pub(super) bars: Vec<Bar>,
    pub(super) top: String,
    pub(super) summary: String,
    pub(super) ends: AxisEnds,
    pub(super) empty: bool,
}

impl askama::filters::HtmlSafe for CallsChart {}

/// A tooltip's column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    pub(super) x: String,
    pub(super) width: String,
    pub(super) title: String,
}

/// The 99th percentile per minute on a logarithmic axis, with the objective's threshold.
#[derive(Debug, Clone, PartialEq, Template)]
#[template(path = "parts/latency_chart.html")]
pub(super) struct LatencyChart {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    /// `points` of a polyline each: minutes without calls interrupt the line.
    pub(super) pieces: Vec<String>,
    pub(super) columns: Vec<Column>,
    /// Height and word of each grid line, top first.
    pub(super) grid: Vec<(String, String)>,
    /// Height and word of the objective's threshold.
    pub(super) objective: Option<(String, String)>,
    pub(super) summary: String,
    pub(super) ends: AxisEnds,
    pub(super) empty: bool,
}

impl askama::filters::HtmlSafe for LatencyChart {}

/// Workers per minute as bars, and the demand for them as a line.
#[derive(Debug, Clone, PartialEq, Template)]
#[template(path = "parts/capacity_chart.html")]
pub(super) struct CapacityChart {
    pub(super) id: &'static str,
    /// Top and height stand for workers; the title tells of both.
    pub(super) bars: Vec<CapacityBar>,
    /// `points` of the demand's polyline.
    pub(super) demand: String,
    pub(super) top: String,
    pub(super) summary: String,
    pub(super) ends: AxisEnds,
    pub(super) empty: bool,
}

impl askama::filters::HtmlSafe for CapacityChart {}

/// A minute's workers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CapacityBar {
    pub(super) column: Column,
    pub(super) y: String,
    pub(super) height: String,
}

/// A sparkline of calls, for a table's row.
#[derive(Debug, Clone, PartialEq, Template)]
#[template(path = "parts/sparkline.html")]
pub(super) struct Sparkline {
    /// `points` of the area under the line.
    pub(super) area: String,
    /// `points` of the line.
    pub(super) line: String,
    /// x and height of each minute with errors, from the bottom.
    pub(super) errors: Vec<(String, String, String)>,
    pub(super) summary: String,
}

impl askama::filters::HtmlSafe for Sparkline {}

/// Draws calls per minute.
pub(super) fn calls_chart(id: &'static str, minutes: &[Minute]) -> CallsChart {
    let most = minutes.iter().map(|m| m.calls).max().unwrap_or(0);
    let top = nice_ceiling(most as f64);
    let slot = WIDTH / minutes.len().max(1) as f64;
    let bars = minutes
        .iter()
        .enumerate()
        .filter(|(_, minute)| minute.calls > 0)
        .map(|(at, minute)| bar(minute, at as f64 * slot, slot, top))
        .collect();
    let calls: u64 = minutes.iter().map(|m| m.calls).sum();
    let errors: u64 = minutes.iter().map(|m| m.errors).sum();
    let summary = format!(
        "{} in the last {} minutes, {} of them bad; the busiest minute had {}.",
        text::plural(calls, "call"),
        minutes.len(),
        text::count(errors),
        text::count(most)
    );
    CallsChart { id, bars, top: text::count(top as u64), summary, ends: ends(minutes), empty: calls == 0 }
}

fn bar(minute: &Minute, x: f64, slot: f64, top: f64) -> Bar {
    let bad = minute.errors.min(minute.calls);
    let height = |calls: u64| calls as f64 / top * HEIGHT;
    // An error among ten thousand good calls must still be seen: one and a half units at least.
    let bad_height = if bad > 0 { height(bad).max(1.5) } else { 0.0 };
    let good_height = (height(minute.calls) - bad_height).max(0.0);
    let part = |top: f64, height: f64| (unit(top), unit(height));
    Bar {
        x: unit(x + slot * 0.12),
        width: unit(slot * 0.76),
        good: part(HEIGHT - good_height, good_height),
        bad: (bad > 0).then(|| part(HEIGHT - good_height - bad_height, bad_height)),
        title: format!(
            "{} UTC: {}, {} bad",
            hour_minute(minute.at_us),
            text::plural(minute.calls, "call"),
            text::count(bad)
        ),
    }
}

/// Draws p99 per minute; `objective_ms` is the latency objective's threshold.
pub(super) fn latency_chart(id: &'static str, minutes: &[Minute], objective_ms: Option<f64>) -> LatencyChart {
    let seen = || minutes.iter().filter_map(|minute| minute.p99_ms).filter(|ms| *ms > 0.0);
    let scale = Scale::around(seen().chain(objective_ms));
    let slot = WIDTH / minutes.len().max(1) as f64;
    let columns = minutes
        .iter()
        .enumerate()
        .filter_map(|(at, minute)| Some((at, minute, minute.p99_ms?)))
        .map(|(at, minute, p99)| Column {
            x: unit(at as f64 * slot),
            width: unit(slot),
            title: format!("{} UTC: p99 {}", hour_minute(minute.at_us), text::milliseconds(p99)),
        })
        .collect();
    let worst = minutes.iter().filter_map(|m| m.p99_ms).fold(0.0, f64::max);
    let over =
        objective_ms.map(|limit| minutes.iter().filter(|m| m.p99_ms.is_some_and(|p| p > limit)).count());
    let summary = match (seen().next().is_none(), over, objective_ms) {
        (true, ..) => "No calls in the last hour.".into(),
        (_, Some(over), Some(limit)) => format!(
            "The highest p99 of a minute was {}; {} had a p99 above the objective of {}.",
            text::milliseconds(worst),
            text::plural(over as u64, "minute"),
            text::milliseconds(limit)
        ),
        _ => format!("The highest p99 of a minute was {}.", text::milliseconds(worst)),
    };
    LatencyChart {
        id,
        name: "p99 per minute",
        pieces: pieces(minutes.iter().map(|minute| minute.p99_ms), slot, &scale),
        columns,
        grid: scale.grid(),
        objective: objective_ms.map(|ms| (unit(scale.height(ms)), text::milliseconds(ms))),
        summary,
        ends: ends(minutes),
        empty: seen().next().is_none(),
    }
}

/// Draws how long calls waited for a worker, p99 per minute.
pub(super) fn queue_chart(id: &'static str, minutes: &[Minute]) -> LatencyChart {
    let waits = |minute: &Minute| Minute { p99_ms: minute.queue_p99_ms, ..*minute };
    let minutes: Vec<_> = minutes.iter().map(waits).collect();
    LatencyChart { name: "p99 of the wait for a worker per minute", ..latency_chart(id, &minutes, None) }
}

/// Draws workers against the demand for them.
pub(super) fn capacity_chart(id: &'static str, minutes: &[Minute]) -> CapacityChart {
    let most = minutes.iter().map(|minute| minute.workers.max(minute.demand)).fold(0.0, f64::max);
    let top = nice_ceiling(most.max(1.0));
    let slot = WIDTH / minutes.len().max(1) as f64;
    let height = |value: f64| value / top * HEIGHT;
    let bar = |(at, minute): (usize, &Minute)| CapacityBar {
        column: Column {
            x: unit((at as f64 + 0.12) * slot),
            width: unit(slot * 0.76),
            title: format!(
                "{} UTC: {} workers, {} busy on average",
                hour_minute(minute.at_us),
                tenths(minute.workers),
                tenths(minute.demand)
            ),
        },
        y: unit(HEIGHT - height(minute.workers)),
        height: unit(height(minute.workers)),
    };
    let point = |(at, minute): (usize, &Minute)| {
        format!("{},{}", unit((at as f64 + 0.5) * slot), unit(HEIGHT - height(minute.demand)))
    };
    let busiest = minutes.iter().max_by(|a, b| a.demand.total_cmp(&b.demand));
    let summary = match busiest.filter(|_| most > 0.0) {
        Some(busiest) => format!(
            "In the busiest minute {} workers were busy on average, of {}; the most workers of a minute were {}.",
            tenths(busiest.demand),
            tenths(busiest.workers),
            tenths(minutes.iter().map(|minute| minute.workers).fold(0.0, f64::max)),
        ),
        None => "No workers in the last hour.".into(),
    };
    CapacityChart {
        id,
        bars: minutes.iter().enumerate().filter(|(_, minute)| minute.workers > 0.0).map(bar).collect(),
        demand: minutes.iter().enumerate().map(point).collect::<Vec<_>>().join(" "),
        top: text::plain(top),
        summary,
        ends: ends(minutes),
        empty: most <= 0.0,
    }
}

/// With one decimal where there is one.
pub(super) fn tenths(value: f64) -> String {
    text::plain((value * 10.0).round() / 10.0)
}

/// Draws a row's sparkline: the last hour's calls per minute.
pub(super) fn sparkline(minutes: &[Minute]) -> Sparkline {
    const SPARK_WIDTH: f64 = 120.0;
    const SPARK_HEIGHT: f64 = 24.0;
    let most = minutes.iter().map(|m| m.calls).max().unwrap_or(0).max(1) as f64;
    let step = SPARK_WIDTH / minutes.len().saturating_sub(1).max(1) as f64;
    let y = |calls: u64| SPARK_HEIGHT - 1.0 - calls as f64 / most * (SPARK_HEIGHT - 3.0);
    let line = minutes
        .iter()
        .enumerate()
        .map(|(at, minute)| format!("{},{}", unit(at as f64 * step), unit(y(minute.calls))))
        .collect::<Vec<_>>()
        .join(" ");
    let errors = minutes
        .iter()
        .enumerate()
        .filter(|(_, minute)| minute.errors > 0)
        .map(|(at, minute)| {
            let height = (minute.errors as f64 / most * SPARK_HEIGHT).max(3.0);
            (unit((at as f64 * step - 1.0).max(0.0)), unit(SPARK_HEIGHT - height), unit(height))
        })
        .collect();
    let calls: u64 = minutes.iter().map(|m| m.calls).sum();
    let summary = format!("{} in the last hour", text::plural(calls, "call"));
    Sparkline { area: format!("0,{SPARK_HEIGHT} {line} {SPARK_WIDTH},{SPARK_HEIGHT}"), line, errors, summary }
}

/// A logarithmic axis whose ends are 1, 2 or 5 times a power of ten.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn around(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values.fold((f64::MAX, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        if high <= 0.0 {
            return Self { low: 1.0, high: 10.0 };
        }
        let high = nice_ceiling(high * 1.05);
        Self { low: nice_floor(low / 1.05).min(high / 5.0), high }
    }

    fn height(&self, value: f64) -> f64 {
        let share = (value.max(self.low) / self.low).ln() / (self.high / self.low).ln();
        HEIGHT - share.clamp(0.0, 1.0) * HEIGHT
    }

    /// Grid lines at powers of ten inside the axis and at its ends, top first, never crowded.
    fn grid(&self) -> Vec<(String, String)> {
        let mut values = vec![self.high];
        let mut power = 10_f64.powf(self.high.log10().ceil());
        while power > self.low {
            power /= 10.0;
            if power < self.high && power > self.low {
                values.push(power);
            }
        }
        values.push(self.low);
        let mut last = f64::MIN;
        values.retain(|value| {
            let apart = self.height(*value) - last >= HEIGHT * 0.16;
            if apart {
                last = self.height(*value);
            }
            apart
        });
        values.into_iter().map(|value| (unit(self.height(value)), tick(value))).collect()
    }
}

/// An axis word: `500 µs`, `20 ms`, `1 s`.
fn tick(ms: f64) -> String {
    match ms {
        _ if ms < 0.999 => format!("{} µs", text::plain((ms * 1e3).round())),
        _ if ms < 999.0 => format!("{} ms", text::plain(ms)),
        _ => format!("{} s", text::plain(ms / 1e3)),
    }
}

fn pieces(values: impl Iterator<Item = Option<f64>>, slot: f64, scale: &Scale) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut piece: Vec<String> = Vec::new();
    for (at, value) in values.enumerate() {
        match value {
            Some(ms) => piece.push(format!("{},{}", unit((at as f64 + 0.5) * slot), unit(scale.height(ms)))),
            None => finish(&mut piece, &mut pieces),
        }
    }
    finish(&mut piece, &mut pieces);
    pieces
}

/// A lone minute becomes a short dash: a polyline of one point draws nothing.
fn finish(piece: &mut Vec<String>, pieces: &mut Vec<String>) {
    if let [only] = piece.as_slice() {
        let (x, y) = only.split_once(',').unwrap_or((only, "0"));
        let x: f64 = x.parse().unwrap_or(0.0);
        pieces.push(format!("{},{y} {},{y}", unit(x - 2.0), unit(x + 2.0)));
    } else if !piece.is_empty() {
        pieces.push(piece.join(" "));
    }
    piece.clear();
}

fn ends(minutes: &[Minute]) -> AxisEnds {
    let word = |minute: Option<&Minute>| minute.map_or_else(String::new, |m| hour_minute(m.at_us));
    AxisEnds { first: word(minutes.first()), last: word(minutes.last()) }
}

fn hour_minute(at_us: u64) -> String {
    text::clock_time(at_us).chars().take(5).collect()
}

/// The next 1, 2 or 5 times a power of ten at or above a value.
fn nice_ceiling(value: f64) -> f64 {
    if value <= 1e-6 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|nice| *nice >= value * 0.999_999)
        .unwrap_or(value)
}

/// The next 1, 2 or 5 times a power of ten at or below a value.
fn nice_floor(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-6).log10().floor());
    [5.0, 2.0, 1.0]
        .into_iter()
        .map(|step| step * power)
        .find(|nice| *nice <= value * 1.000_001)
        .unwrap_or(power)
}

/// A coordinate with two decimals at most.
pub(super) fn unit(value: f64) -> String {
    let text = format!("{value:.2}");
    match text.trim_end_matches('0').trim_end_matches('.') {
        "-0" | "" => "0".into(),
        trimmed => trimmed.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(calls: u64, errors: u64, p99_ms: Option<f64>) -> Minute {
        Minute { calls, errors, p99_ms, ..Minute::default() }
    }

    #[test]
    fn bars_stack_to_the_height_of_their_calls() {
        let chart = calls_chart("calls", &[minute(100, 25, None), minute(0, 0, None), minute(50, 0, None)]);
        assert_eq!(chart.top, "100");
        assert_eq!(chart.bars.len(), 2, "an empty minute draws nothing");
        assert_eq!(chart.bars[0].good, ("30".into(), "90".into()));
        assert_eq!(chart.bars[0].bad, Some(("0".into(), "30".into())));
        assert_eq!(chart.bars[1].good, ("60".into(), "60".into()));
        assert!(chart.summary.starts_with("150 calls in the last 3 minutes, 25 of them bad"));
    }

    #[test]
    fn one_error_among_many_calls_is_still_seen() {
        let chart = calls_chart("calls", &[minute(1_000_000, 1, None)]);
        assert_eq!(chart.bars[0].bad, Some(("0".into(), "1.5".into())));
    }

    #[test]
    fn an_empty_hour_is_said_to_be_empty() {
        assert!(calls_chart("calls", &[]).empty);
        assert!(latency_chart("latency", &[minute(0, 0, None)], Some(250.0)).empty);
        assert_eq!(latency_chart("latency", &[], None).summary, "No calls in the last hour.");
    }

    #[test]
    fn a_gap_interrupts_the_line_and_a_lone_minute_is_a_dash() {
        let chart = latency_chart(
            "latency",
            &[
                minute(1, 0, Some(10.0)),
                minute(1, 0, Some(20.0)),
                minute(0, 0, None),
                minute(1, 0, Some(10.0)),
            ],
            None,
        );
        assert_eq!(chart.pieces.len(), 2);
        assert!(chart.pieces.iter().all(|piece| piece.split(' ').count() == 2));
        assert_eq!(chart.columns.len(), 3);
    }

    #[test]
    fn the_axis_spans_values_and_objective_with_round_ends() {
        let scale = Scale::around([3.0, 180.0, 250.0].into_iter());
        assert_eq!((scale.low, scale.high), (2.0, 500.0));
        assert_eq!(scale.height(500.0), 0.0);
        assert_eq!(scale.height(2.0), HEIGHT);
        assert_eq!(scale.height(0.1), HEIGHT, "below the axis is its foot");
        let words: Vec<_> = scale.grid().into_iter().map(|(_, word)| word).collect();
        assert_eq!(words, ["500 ms", "100 ms", "10 ms", "2 ms"]);
    }

    #[test]
    fn workers_are_bars_and_demand_a_line_on_one_axis() {
        let minute = |workers, demand| Minute { workers, demand, ..Minute::default() };
        let chart = capacity_chart("capacity", &[minute(4.0, 1.0), minute(0.0, 0.0), minute(8.0, 7.5)]);
        assert_eq!(chart.top, "10");
        assert_eq!(chart.bars.len(), 2, "a minute without workers draws nothing");
        assert_eq!((chart.bars[0].y.as_str(), chart.bars[0].height.as_str()), ("72", "48"));
        assert_eq!(chart.demand, "100,108 300,120 500,30");
        assert!(chart.summary.starts_with("In the busiest minute 7.5 workers were busy on average, of 8;"));
        assert!(capacity_chart("capacity", &[minute(0.0, 0.0)]).empty);
    }

    #[test]
    fn round_numbers() {
        assert_eq!(nice_ceiling(0.0), 1.0);
        assert_eq!(nice_ceiling(1.0), 1.0);
        assert_eq!(nice_ceiling(130.0), 200.0);
        assert_eq!(nice_floor(130.0), 100.0);
        assert_eq!(nice_floor(0.07), 0.05);
        assert_eq!(unit(-0.001), "0");
        assert_eq!(unit(1.50), "1.5");
        assert_eq!(tick(0.5), "500 µs");
        assert_eq!(tick(2000.0), "2 s");
    }

    #[test]
    fn a_sparkline_marks_minutes_with_errors() {
        let spark = sparkline(&[minute(1, 0, None), minute(4, 1, None)]);
        assert_eq!(spark.line, "0,17.75 120,2");
        assert_eq!(spark.errors.len(), 1);
        assert_eq!(spark.summary, "5 calls in the last hour");
    }
}
