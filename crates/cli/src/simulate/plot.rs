//! The report as a drawing: latency by percentile, and the pool over time.
//!
//! One SVG without scripts or fonts of its own, light or dark as its reader is. Pure: runs in,
//! text out; the same report gives the same bytes.

use std::fmt::Write as _;

use fp_sim::{Report, Sample};

use super::comparison::{Run, letter};

const WIDTH: f64 = 960.0;
/// Left of the axes there is room for numbers of six characters.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
/// Above a panel is its title, below it the numbers and the name of its axis.
const ABOVE: f64 = 44.0;
const BELOW: f64 = 46.0;
const HEAD: f64 = 56.0;
const LINE: f64 = 20.0;

/// Colours that are told apart in both schemes, also by people who see few of them (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

const STYLE: &str = "\
svg{background:#fff;font:13px system-ui,sans-serif}\
text{fill:#222}.dim{fill:#667}.grid{stroke:#e3e5ea}.axis{stroke:#889}.limit{stroke:#c0392b;stroke-dasharray:6 4}\
.line{fill:none;stroke-width:2;stroke-linejoin:round}.area{stroke:none;opacity:.15}\
@media(prefers-color-scheme:dark){svg{background:#16181d}text{fill:#e6e8ec}.dim{fill:#9aa0ac}\
.grid{stroke:#2b2f38}.axis{stroke:#707785}.limit{stroke:#ff7b6b}.line{filter:brightness(1.35)}}";

/// Draws the runs.
pub(super) fn draw(runs: &[Run]) -> String {
    let Some(first) = runs.first() else { return String::new() };
    let legend = LINE * runs.len() as f64;
    let tops: Vec<_> = [300.0, 180.0, 140.0, 160.0]
        .iter()
        .scan(HEAD + legend, |top, height| {
            let at = *top + ABOVE;
            *top = at + height + BELOW;
            Some((at, *height))
        })
        .collect();
    let bottom = tops.last().map_or(0.0, |(top, height)| top + height + BELOW);
    let Report { scenario, seed, seconds, .. } = &first.report;
    let title = escape(&format!("{scenario}, seed {seed}, {seconds} s"));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {bottom}\" role=\"img\" aria-label=\"{title}\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n\
         <text x=\"{LEFT}\" y=\"32\" font-size=\"18\" font-weight=\"600\">{title}</text>\n"
    );
    for (at, run) in runs.iter().enumerate() {
        let y = HEAD + LINE * at as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{}\" width=\"14\" height=\"4\" fill=\"{}\"/><text x=\"{}\" y=\"{y}\">{}</text>",
            y - 6.0,
            colour(at),
            LEFT + 22.0,
            escape(&legend_of(at, run, runs.len()))
        );
    }
    draw_latency(&mut svg, runs, tops[0]);
    let workers = |sample: &Sample, _: f64| f64::from(sample.idle + sample.busy + sample.starting);
    let busy = |sample: &Sample, _: f64| f64::from(sample.busy);
    draw_series(&mut svg, runs, tops[1], "Workers (shaded: busy)", &[workers, busy]);
    draw_series(&mut svg, runs, tops[2], "Calls waiting", &[|sample, _| f64::from(sample.queued)]);
    let answered = |sample: &Sample, every: f64| f64::from(sample.answered) / every;
    let offered = |sample: &Sample, every: f64| f64::from(sample.offered) / every;
    draw_series(&mut svg, runs, tops[3], "Answers per second (shaded: calls offered)", &[answered, offered]);
    svg.push_str("</svg>\n");
    svg
}

fn legend_of(at: usize, run: &Run, runs: usize) -> String {
    let total = &run.report.total;
    let figures = format!(
        "p50 {} ms, p99 {} ms, p99.9 {} ms; {:.1} answers per second; {:.0} worker-seconds",
        number(total.latency_ms.p50),
        number(total.latency_ms.p99),
        number(total.latency_ms.p99_9),
        total.answered_per_second,
        run.report.workers.worker_seconds
    );
    match runs {
        1 => figures,
        _ => format!("{} ({}): {figures}", letter(at), run.name),
    }
}

/// Latency over percentiles, in nines to the right and powers of ten upwards.
fn draw_latency(svg: &mut String, runs: &[Run], (top, height): (f64, f64)) {
    let points = || runs.iter().flat_map(|run| &run.report.curve);
    let most = points()
        .map(|point| point.ms)
        .chain(runs.iter().filter_map(|run| run.objective_ms))
        .fold(1.0, f64::max);
    let least = points().map(|point| point.ms).fold(most, f64::min).max(0.001);
    let (low, high) = (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0));
    let nines =
        points().filter(|point| point.percent < 100.0).map(|point| nines(point.percent)).fold(1.0, f64::max);
    let x = |percent: f64| {
        let at = if percent >= 100.0 { nines } else { self::nines(percent).min(nines) };
        LEFT + at / nines * (WIDTH - LEFT - RIGHT)
    };
    let y = |ms: f64| top + height - (ms.max(least).log10() - low) / (high - low) * height;
    heading(svg, top, "Latency by percentile, ms");
    for power in low as i32..=high as i32 {
        for (factor, is_named) in [(1.0, true), (2.0, high - low < 2.5), (5.0, high - low < 2.5)] {
            let value = factor * 10f64.powi(power);
            if value.log10() <= high + 1e-9 {
                rule(svg, y(value), if is_named { number(value) } else { String::new() });
            }
        }
    }
    for percent in [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999] {
        if self::nines(percent) <= nines + 1e-9 {
            mark(svg, x(percent), top, height, &format!("p{percent}"));
        }
    }
    frame(svg, top, height, "share of the answers that were at least as fast");
    for (at, run) in runs.iter().enumerate() {
        let line: Vec<_> = run.report.curve.iter().map(|point| (x(point.percent), y(point.ms))).collect();
        path(svg, &line, colour(at));
    }
    if let Some(objective) = runs.iter().find_map(|run| run.objective_ms) {
        let y = y(objective);
        let _ = writeln!(
            svg,
            "<line class=\"limit\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"dim\" x=\"{}\" y=\"{:.1}\">objective {} ms</text>",
            WIDTH - RIGHT,
            LEFT + 6.0,
            y - 5.0,
            number(objective)
        );
    }
}

/// One line for each run over time; a second series is shaded below.
fn draw_series(
    svg: &mut String,
    runs: &[Run],
    (top, height): (f64, f64),
    title: &str,
    series: &[fn(&Sample, f64) -> f64],
) {
    let values = |run: &Run, of: fn(&Sample, f64) -> f64| {
        let every = run.report.timeline_seconds;
        run.report.timeline.iter().map(|sample| (sample.at, of(sample, every))).collect::<Vec<_>>()
    };
    let all = runs.iter().flat_map(|run| series.iter().flat_map(|of| values(run, *of)));
    let most = all.map(|(_, value)| value).fold(1.0, f64::max);
    let step = round_step(most / 4.0);
    let most = (most / step).ceil() * step;
    let seconds = runs.iter().map(|run| run.report.seconds).fold(0.0, f64::max);
    let x = |at: f64| LEFT + at / seconds * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| top + height - value / most * height;
    heading(svg, top, title);
    let mut value = 0.0;
    while value <= most + step / 2.0 {
        rule(svg, y(value), number(value));
        value += step;
    }
    let (unit, unit_seconds) = unit_of(seconds);
    let step = round_step(seconds / unit_seconds / 8.0);
    let mut at = 0.0;
    while at * unit_seconds <= seconds * 1.0001 {
        mark(svg, x(at * unit_seconds), top, height, &number(at));
        at += step;
    }
    frame(svg, top, height, &format!("time, {unit}"));
    for (at, run) in runs.iter().enumerate() {
        for (nth, of) in series.iter().enumerate() {
            let line: Vec<_> = values(run, *of).into_iter().map(|(at, value)| (x(at), y(value))).collect();
            match nth {
                0 => path(svg, &line, colour(at)),
                _ => area(svg, &line, top + height, colour(at)),
            }
        }
    }
}

fn heading(svg: &mut String, top: f64, title: &str) {
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"600\">{title}</text>", top - 12.0);
}

/// A horizontal line with its value.
fn rule(svg: &mut String, y: f64, label: String) {
    let _ = writeln!(
        svg,
        "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
         <text class=\"dim\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
        WIDTH - RIGHT,
        LEFT - 8.0,
        y + 4.0
    );
}

/// A vertical line with its value.
fn mark(svg: &mut String, x: f64, top: f64, height: f64, label: &str) {
    let _ = writeln!(
        svg,
        "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{:.1}\"/>\
         <text class=\"dim\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
        top + height,
        top + height + 17.0
    );
}

/// Both axes and the name of the horizontal one.
fn frame(svg: &mut String, top: f64, height: f64, name: &str) {
    let (bottom, right) = (top + height, WIDTH - RIGHT);
    let _ = writeln!(
        svg,
        "<path class=\"axis\" fill=\"none\" d=\"M{LEFT} {top:.1}V{bottom:.1}H{right}\"/>\
         <text class=\"dim\" x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
        bottom + 35.0
    );
}

fn path(svg: &mut String, points: &[(f64, f64)], colour: &str) {
    if !points.is_empty() {
        let _ = writeln!(svg, "<path class=\"line\" stroke=\"{colour}\" d=\"M{}\"/>", coordinates(points));
    }
}

fn area(svg: &mut String, points: &[(f64, f64)], bottom: f64, colour: &str) {
    if let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) {
        let _ = writeln!(
            svg,
            "<path class=\"area\" fill=\"{colour}\" d=\"M{first:.1} {bottom:.1}L{}L{last:.1} {bottom:.1}Z\"/>",
            coordinates(points)
        );
    }
}

fn coordinates(points: &[(f64, f64)]) -> String {
    points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect::<Vec<_>>().join("L")
}

fn colour(at: usize) -> &'static str {
    COLOURS[at % COLOURS.len()]
}

/// 90 % is one nine, 99 % are two.
fn nines(percent: f64) -> f64 {
    -(1.0 - percent / 100.0).log10()
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= least * 0.9999)
        .unwrap_or(power)
}

/// The unit in which a time has few digits.
fn unit_of(seconds: f64) -> (&'static str, f64) {
    match seconds {
        short if short < 300.0 => ("s", 1.0),
        middle if middle < 3.0 * 3600.0 => ("min", 60.0),
        long if long < 3.0 * 86_400.0 => ("h", 3600.0),
        _ => ("days", 86_400.0),
    }
}

/// Few digits and none that say nothing.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        small if small >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use fp_sim::{SCENARIOS, Scenario};

    use super::*;

    fn run_of(text: &str) -> Run {
        let scenario = Scenario::parse(text).expect("valid");
        let report = fp_sim::run(&scenario);
        Run::new("a<b & \"c\"", (scenario, report))
    }

    /// Every scenario draws something that stays within its frame and is well-formed.
    #[test]
    fn drawings_are_well_formed_and_stay_within_their_frame() {
        for (name, text) in SCENARIOS.iter().filter(|(name, _)| *name != "day") {
            let svg = draw(&[run_of(text), run_of(text)]);
            assert!(svg.contains("a&lt;b &amp; &quot;c&quot;") && !svg.contains("NaN"), "{name}");
            let count = |what: &str| svg.matches(what).count();
            assert_eq!(count("<text"), count("</text>"), "{name}");
            assert!(count("class=\"line\"") == 8 && count("class=\"area\"") == 4, "{name}");
            for path in svg.split("d=\"M").skip(1).filter_map(|rest| rest.split('"').next()) {
                let points = path.split(['L', 'Z']).filter_map(|point| point.split_once(' '));
                for (x, y) in
                    points.filter_map(|(x, y)| Some((x.parse::<f64>().ok()?, y.parse::<f64>().ok()?)))
                {
                    assert!(
                        (LEFT..=WIDTH - RIGHT).contains(&x) && (HEAD..1200.0).contains(&y),
                        "{name}: {x} {y}"
                    );
                }
            }
        }
    }

    #[test]
    fn nothing_to_show_is_drawn_as_nothing() {
        let run = run_of(
            "name = \"n\"\nduration = \"10s\"\n[function]\nservice = \"1s\"\nstart = \"1s\"\nstart_failure_percent = 100\n[[streams]]\nname = \"s\"\nrate = 1\n",
        );
        assert_eq!(run.report.total.answered, 0);
        let svg = draw(&[run]);
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!([0.3, 1.0, 7.0, 23.0, 0.0].map(round_step).map(number), ["0.5", "1", "10", "50", "0"]);
        assert_eq!([0.125, 1.5, 30.04, 1250.4].map(number), ["0.125", "1.5", "30", "1250"]);
        assert_eq!(
            [60.0, 600.0, 86_400.0, 604_800.0].map(unit_of).map(|(unit, _)| unit),
            ["s", "min", "h", "days"]
        );
    }
}
