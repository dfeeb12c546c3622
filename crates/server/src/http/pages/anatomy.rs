//! Latency anatomy: which phase the time of a call, or of a function's slowest calls, went to.
//!
//! Pure. A typical call is the mean of the calls around the median (40th to 60th percentile), a
//! slow one the mean of those at or above the 99th: means of a group add up to a bar, which
//! percentiles of single phases would not.

use askama::Template;
use fp_core::record::Phases;

use super::chart::unit;
use super::text;

/// The phases in their order, as spans, classes and legends call them.
pub(super) const PHASES: [&str; 5] = ["route", "queue", "start", "run", "send"];

/// Fewer calls than this say nothing about a 99th percentile worth a bar of its own.
const ENOUGH: usize = 20;

fn values(phases: &Phases) -> [u64; 5] {
    [phases.route, phases.queue, phases.start, phases.run, phases.send]
}

/// One phase of a bar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: &'static str,
    /// Left end and width, in percent.
    pub(super) x: String,
    pub(super) width: String,
    /// Duration for people.
    pub(super) duration: String,
    /// Share of the whole for people.
    pub(super) share: String,
}

/// A stacked bar of phases that share one call's time.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "parts/phase_bar.html")]
pub(super) struct PhaseBar {
    pub(super) parts: Vec<Part>,
    /// The whole, for people.
    pub(super) total: String,
    /// The bar in words.
    pub(super) summary: String,
}

impl askama::filters::HtmlSafe for PhaseBar {}

impl PhaseBar {
    /// What a table's cell says of a phase.
    pub(super) fn cell(&self, phase: &str) -> String {
        match self.parts.iter().find(|part| part.name == phase) {
            Some(part) => format!("{} · {}", part.duration, part.share),
            None => "–".into(),
        }
    }
}

/// The bar of one call, over the bar's whole width.
pub(super) fn phase_bar(phases: &Phases) -> PhaseBar {
    phase_bar_against(phases, phases.total())
}

/// The bar of one call where `longest` nanoseconds fill the bar's width.
pub(super) fn phase_bar_against(phases: &Phases, longest: u64) -> PhaseBar {
    let total = phases.total();
    let parts = parts(&values(phases), longest.max(1));
    let words: Vec<_> = parts.iter().map(|part| format!("{} {}", part.name, part.duration)).collect();
    PhaseBar { parts, total: text::duration(total), summary: words.join(", ") }
}

fn parts(values: &[u64; 5], scale: u64) -> Vec<Part> {
    let total = values.iter().sum::<u64>().max(1);
    let mut passed = 0;
    let mut parts = Vec::new();
    for (name, value) in PHASES.into_iter().zip(values) {
        if *value > 0 {
            parts.push(Part {
                name,
                x: share_of(passed, scale),
                width: share_of(*value, scale),
                duration: text::duration(*value),
                share: text::share(*value as f64 / total as f64),
            });
        }
        passed += value;
    }
    parts
}

fn share_of(value: u64, whole: u64) -> String {
    unit(value as f64 / whole as f64 * 100.0)
}

/// One group of calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// `Typical (p50)`, `Slow (p99)`.
    pub(super) name: &'static str,
    /// How many calls it is made of.
    pub(super) calls: String,
    pub(super) bar: PhaseBar,
}

/// What made the typical call and what made the slow one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Anatomy {
    pub(super) groups: Vec<Group>,
    /// The finding in one sentence.
    pub(super) finding: String,
    /// How many calls were looked at.
    pub(super) calls: String,
}

/// Takes calls apart; none when there are none.
pub(super) fn anatomy(calls: &[Phases]) -> Option<Anatomy> {
    let mut sorted: Vec<&Phases> = calls.iter().collect();
    sorted.sort_by_key(|phases| phases.total());
    let typical = mean(range(&sorted, 0.4, 0.6)?);
    let slow = mean(range(&sorted, 0.99, 1.0)?);
    let has_tail = sorted.len() >= ENOUGH;
    let longest = if has_tail { &slow } else { &typical };
    let scale = longest.iter().sum::<u64>().max(typical.iter().sum()).max(1);
    let group = |name, values: &[u64; 5], calls: usize| Group {
        name,
        calls: text::plural(calls as u64, "call"),
        bar: scaled_bar(values, scale),
    };
    let in_typical = range(&sorted, 0.4, 0.6)?.len();
    let mut groups = vec![group("Typical (p50)", &typical, in_typical)];
    if has_tail {
        groups.push(group("Slow (p99)", &slow, range(&sorted, 0.99, 1.0)?.len()));
    }
    let finding = finding(&typical, &slow, sorted.len());
    Some(Anatomy { groups, finding, calls: text::plural(sorted.len() as u64, "recent call") })
}

fn scaled_bar(values: &[u64; 5], scale: u64) -> PhaseBar {
    let parts = parts(values, scale);
    let words: Vec<_> =
        parts.iter().map(|part| format!("{} {} ({})", part.name, part.duration, part.share)).collect();
    PhaseBar { parts, total: text::duration(values.iter().sum()), summary: words.join(", ") }
}

/// The calls between two quantiles, at least one; none of none.
fn range<'a>(sorted: &'a [&'a Phases], from: f64, to: f64) -> Option<&'a [&'a Phases]> {
    let last = sorted.len().checked_sub(1)?;
    let at = |quantile: f64| ((last as f64 * quantile).round() as usize).min(last);
    sorted.get(at(from)..=at(to))
}

fn mean(group: &[&Phases]) -> [u64; 5] {
    let mut sums = [0_u128; 5];
    for phases in group {
        for (sum, value) in sums.iter_mut().zip(values(phases)) {
            *sum += u128::from(value);
        }
    }
    sums.map(|sum| (sum / group.len().max(1) as u128) as u64)
}

fn finding(typical: &[u64; 5], slow: &[u64; 5], calls: usize) -> String {
    if calls < ENOUGH {
        return format!("{calls} calls are too few to speak of a tail; {ENOUGH} are enough.");
    }
    let extra: Vec<u64> =
        slow.iter().zip(typical).map(|(slow, typical)| slow.saturating_sub(*typical)).collect();
    let total: u64 = extra.iter().sum();
    if total == 0 {
        return "Slow calls take no longer than typical ones.".into();
    }
    let (worst, most) = extra.iter().enumerate().max_by_key(|(_, extra)| **extra).unwrap_or((0, &0));
    format!(
        "A slow call takes {} longer than a typical one; {} of it is {}.",
        text::duration(total),
        text::share(*most as f64 / total as f64),
        CAUSES[worst]
    )
}

/// What more time in a phase means, in its author's words.
const CAUSES: [&str; 5] = [
    "routing: bodies that arrive slowly, or a busy platform",
    "queueing: all workers were busy",
    "starting workers",
    "the handler itself",
    "sending: large answers or slow readers",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn call(queue: u64, run: u64) -> Phases {
        Phases { queue, run, ..Phases::default() }
    }

    #[test]
    fn a_bar_is_as_wide_as_its_parts() {
        let bar =
            phase_bar(&Phases { route: 1_000_000, queue: 0, start: 3_000_000, run: 6_000_000, send: 0 });
        let ends: Vec<_> = bar.parts.iter().map(|p| (p.name, p.x.as_str(), p.width.as_str())).collect();
        assert_eq!(ends, [("route", "0", "10"), ("start", "10", "30"), ("run", "40", "60")]);
        assert_eq!(bar.summary, "route 1.00 ms, start 3.00 ms, run 6.00 ms");
        assert!(phase_bar(&Phases::default()).parts.is_empty());
    }

    #[test]
    fn the_tail_is_blamed_on_the_phase_that_grew() {
        let mut calls = vec![call(0, 10_000_000); 99];
        calls.push(call(90_000_000, 11_000_000));
        let anatomy = anatomy(&calls).expect("there are calls");
        assert_eq!(anatomy.groups.len(), 2);
        assert!(anatomy.finding.contains("queueing: all workers were busy"), "{}", anatomy.finding);
        assert_eq!(anatomy.groups[1].bar.parts[0].name, "queue");
    }

    #[test]
    fn few_calls_make_no_tail_and_none_make_nothing() {
        assert_eq!(anatomy(&[]), None);
        let one = anatomy(&[call(1, 2)]).expect("there is one call");
        assert_eq!(one.groups.len(), 1);
        assert!(one.finding.contains("too few"));
    }
}
