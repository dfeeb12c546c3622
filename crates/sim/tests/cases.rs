//! Cases with known answers, played against the platform's own pool policy.

use std::time::Duration;

use fp_sim::{Report, SCENARIOS, Scenario, ScenarioError, run};

fn scenario(name: &str) -> Scenario {
    let (_, text) = SCENARIOS.iter().find(|(known, _)| *known == name).expect("a scenario of ours");
    Scenario::parse(text).expect(name)
}

fn report(name: &str, seed: u64) -> Report {
    run(&Scenario { seed, ..scenario(name) })
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_does_not() {
    for (name, _) in SCENARIOS {
        let bytes = |seed| {
            let usual = scenario(name);
            let duration = usual.duration.min(Duration::from_secs(30));
            let short = Scenario { seed, duration, ..usual };
            serde_json::to_vec(&run(&short)).expect("plain data")
        };
        assert_eq!(bytes(3), bytes(3), "{name}");
        assert!(["step", "burst"].contains(&name) || bytes(3) != bytes(4), "{name}");
    }
}

/// Evenly spaced calls: no call is slower than a start and a run, with at most 131 workers.
#[test]
fn a_step_of_even_arrivals() {
    let report = report("step", 0);
    assert_eq!((report.total.offered, report.total.answered), (3000, 3000));
    assert!(report.total.latency_ms.max <= 1300.0, "{report}");
    assert!(report.workers.most <= 131 && report.workers.started <= 131, "{report}");
}

/// Poisson arrivals: the same bound, with at most 160 workers in 30 s.
#[test]
fn a_step_of_poisson_arrivals() {
    for seed in 0..20 {
        let report = report("step-poisson", seed);
        assert_eq!(report.total.answered, report.total.offered);
        assert!(report.total.latency_ms.max <= 1300.001, "seed {seed}: {report}");
        assert!(report.workers.started <= 160, "seed {seed}: {report}");
    }
}

/// Twice the capacity: nearly all of it goes into calls that are answered, and soon.
#[test]
fn overload_costs_nothing_of_the_capacity() {
    for seed in 0..5 {
        let report = report("overload", seed);
        assert!(report.total.answered_per_second >= 95.0, "{report}");
        assert!(report.total.latency_ms.p99 < 120.0, "{report}");
        let late = "deadline_exceeded (expired_running)";
        assert!(report.total.failed.get(late).copied().unwrap_or(0) < 60, "at most one a second: {report}");
    }
}

/// Ten times the capacity for ten seconds, then half of it again.
const SPIKE: &str = r#"
name = "spike"
duration = "30s"
[pool]
max = 4
[function]
service = "20ms"
start = "5ms"
[[streams]]
name = "before"
rate = 100
until = "10s"
[[streams]]
name = "spike"
rate = 2000
from = "10s"
until = "20s"
[[streams]]
name = "after"
rate = 100
from = "21s"
"#;

#[test]
fn a_second_after_an_overload_calls_are_as_quick_as_before() {
    for seed in 0..5 {
        let report = run(&Scenario { seed, ..Scenario::parse(SPIKE).expect("valid") });
        let [before, spike, after] = &report.streams[..] else { panic!("three streams") };
        assert!(after.latency_ms.p99 <= 2.0 * before.latency_ms.p99, "{report}");
        assert_eq!(after.answered, after.offered, "{report}");
        assert!(spike.answered_per_second * 30.0 / 10.0 >= 190.0, "95 % of the capacity: {report}");
        assert!(
            spike.latency_ms.p99 <= 20.0 + 160.0,
            "four run times of wait, and what CoDel lets pass: {report}"
        );
    }
}

#[test]
fn a_greedy_caller_takes_only_what_others_leave() {
    let report = report("fairness", 1);
    let modest = || report.streams.iter().skip(1);
    let (offered, answered) = modest()
        .fold((0, 0), |(offered, answered), stream| (offered + stream.offered, answered + stream.answered));
    assert!(offered - answered <= offered / 100, "lost {} of {offered}: {report}", offered - answered);
    assert!(report.total.answered_per_second >= 98.0, "{report}");
}

#[test]
fn critical_calls_are_served_and_the_others_get_the_rest() {
    let report = report("priority", 1);
    let [critical, sheddable] = &report.streams[..] else { panic!("two streams") };
    assert!(critical.answered as f64 >= 0.999 * critical.offered as f64, "{report}");
    let rest = 100.0 - critical.answered_per_second;
    assert!((rest - sheddable.answered_per_second).abs() <= 1.0, "{report}");
}

#[test]
fn crashes_and_failing_starts_end_their_calls_and_nothing_else() {
    let mut scenario = scenario("step-poisson");
    scenario.function.crash_percent = 5.0;
    scenario.function.start_failure_percent = 10.0;
    let report = run(&scenario);
    let crashed = report.total.failed["crashed"];
    assert_eq!(report.workers.lost, crashed);
    assert!((0.03..0.07).contains(&(crashed as f64 / report.total.offered as f64)), "{report}");
    let ended: u64 = report.total.failed.values().sum();
    assert_eq!(ended + report.total.answered, report.total.offered, "{report}");
    assert!(
        report.total.failed.keys().all(|how| how == "crashed"),
        "others could serve who waited: {report}"
    );
}

#[test]
fn with_no_idle_time_every_call_is_cold() {
    let text = SCENARIOS[0].1.replace("max = 1000", "max = 1000\nidle = \"0s\"");
    let report = run(&Scenario::parse(&text).expect("valid"));
    assert_eq!((report.workers.started, report.total.cold), (3000, 3000), "{report}");
    assert!(report.total.latency_ms.max <= 1300.0, "{report}");
}

#[test]
fn an_idle_function_scales_to_zero_and_comes_back() {
    let text =
        SCENARIOS[0].1.replace("max = 1000", "max = 1000\nidle = \"2s\"").replace("rate = 100", "rate = 0.2");
    let report = run(&Scenario::parse(&text).expect("valid"));
    assert_eq!((report.total.answered, report.total.cold), (6, 6), "{report}");
    assert!(
        report.timeline.iter().any(|sample| sample.idle + sample.busy == 0 && sample.at > 1.0),
        "{report}"
    );
}

#[test]
fn reports_read_well() {
    // Of nothing that a change of the policies would change.
    let text = "name = \"two\"\nseed = 1\nduration = \"60s\"\nwarmup = \"10s\"\nscaling = { min = 4, max = 4 }\nlatency = { hedge = \"off\" }\n\
                slo = { availability = 99, latency = { under = \"30ms\", percent = 90 } }\n\
                [function]\nservice = \"20ms\"\nstart = \"5ms\"\nerror_percent = 3\n\
                [[streams]]\nname = \"web\"\nprocess = \"even\"\nrate = 20\n\
                [[streams]]\nname = \"jobs\"\nprocess = \"even\"\nrate = 10\nfrom = \"10ms\"\n";
    insta::assert_snapshot!(run(&Scenario::parse(text).expect("valid")));
    assert_eq!(report("step", 0).timeline.len(), 151, "every 200 ms");
}

#[test]
fn broken_scenarios_are_refused_with_the_reason() {
    let step = SCENARIOS[0].1;
    for (from, to, reason) in [
        ("rate = 100", "rate = 0", "streams.0.rate must be above 0 (line 15)"),
        ("rate = 100", "rate = 1e9", "ten million"),
        ("\"1s\"", "\"soon\"", "\"soon\" is not a time; write 250ms or 30s (line 9)"),
        ("max = 1000", "maximum = 1000", "scaling.maximum is not a key"),
        ("max = 1000", "max = 0", "(line 6)"),
        ("rate = 100", "rat = 100", "unknown field `rat`"),
        ("\"30s\"", "\"0s\"", "duration"),
        (
            "service = \"1s\"",
            "service = { kind = \"pareto\", least = \"1s\", shape = 0 }",
            "function.service.shape must be above 0 and at most 100 (line 9)",
        ),
        ("rate = 100", "rate = 100\nburst = { size = 3 }", "exactly one of rate, burst"),
        ("rate = 100", "trace = \"t.csv\"", "t.csv is a file"),
    ] {
        let error = Scenario::parse(&step.replacen(from, to, 1)).expect_err(to);
        assert!(error.to_string().contains(reason), "{to}: {error}");
    }
    assert!(matches!(Scenario::parse("x"), Err(ScenarioError::Syntax { .. })));
}
