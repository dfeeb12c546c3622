//! Second attempts: cases with known answers, with the policies that the server runs.

use fp_sim::{Report, Scenario, run};

const TWO_SPEEDS: &str =
    "service = { kind = \"bimodal\", fast = \"10ms\", slow = \"200ms\", slow_percent = 2 }\nstart = \"5ms\"";

/// `workers` that are always there, Poisson arrivals; what is interrupted takes the next call at once.
fn play(workers: u32, rate: f64, seconds: u32, function: &str, top: &str) -> Report {
    let text = format!(
        "name = \"t\"\nduration = \"{seconds}s\"\nwarmup = \"1s\"\nidempotent = true\n\
         scaling = {{ min = {workers}, max = {workers} }}\npool = {{ queue_bound = 1000000 }}\n{top}\n\
         [function]\ninterrupted = \"kept\"\n{function}\n[[streams]]\nname = \"s\"\nrate = {rate}\n"
    );
    run(&Scenario::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")))
}

fn hedged_after(delay: &str) -> String {
    format!("latency = {{ hedge = \"{delay}\" }}")
}

/// What `auto` needs: an objective.
const AUTO: &str = "latency = { hedge = \"auto\" }\nslo = { latency = { under = \"100ms\", percent = 99 } }";

fn assert_near(what: &str, value: f64, expected: f64, part: f64) {
    assert!((value - expected).abs() <= expected * part, "{what} is {value}, expected {expected}");
}

/// CASES H1, with so many workers that nothing waits.
#[test]
fn exponential_calls_hedged_at_their_95th_percentile() {
    let service = "service = { kind = \"exponential\", mean = \"10ms\" }\nstart = \"5ms\"";
    let world = |top: &str| play(200, 200.0, 500, service, top);
    let (plain, hedged) = (world(&hedged_after("off")), world(&hedged_after("29957us")));
    let (before, after) = (plain.total.latency_ms, hedged.total.latency_ms);
    assert_near("p99 without", before.p99, 46.05, 0.03);
    assert_near("p99.9 without", before.p99_9, 69.08, 0.03);
    assert_near("p99 with", after.p99, 38.00, 0.03);
    assert_near("p99.9 with", after.p99_9, 49.52, 0.03);
    let hedging = hedged.hedging.expect("it was on");
    assert_near("extra calls in percent", hedging.extra_percent, 5.0, 0.03);
    assert!(hedging.won > 0 && hedging.won < hedging.attempts, "{hedging}");
    assert!(plain.hedging.is_none());
}

/// CASES H2.
#[test]
fn one_slow_call_in_fifty_is_answered_after_the_delay_and_a_usual_run() {
    let service =
        "service = { kind = \"bimodal\", fast = \"10ms\", slow = \"1s\", slow_percent = 2 }\nstart = \"5ms\"";
    let world = |top: &str| play(200, 100.0, 300, service, top);
    let (plain, hedged) = (world(""), world(&hedged_after("20ms")));
    assert_eq!((plain.total.latency_ms.p99, plain.total.latency_ms.p99_9), (1_000.0, 1_000.0));
    assert_eq!((hedged.total.latency_ms.p99, hedged.total.latency_ms.p99_9), (30.0, 30.0), "{hedged}");
    assert_near("extra calls in percent", hedged.hedging.expect("on").extra_percent, 2.0, 0.1);
}

/// CASES H3: a load of 1 is 10 workers / 13.8 ms.
fn ten_workers(load: f64, top: &str) -> Report {
    play(10, load * 10.0 / 0.0138, 40, TWO_SPEEDS, top)
}

#[test]
fn at_half_load_the_99th_percentile_falls_from_the_slow_call_to_the_hedged_one() {
    let (plain, hedged) = (ten_workers(0.5, ""), ten_workers(0.5, &hedged_after("30ms")));
    assert_near("without", plain.total.latency_ms.p99, 200.0, 0.05);
    assert_near("with", hedged.total.latency_ms.p99, 40.0, 0.1);
    assert!(hedged.hedging.expect("on").extra_percent <= 2.5);
}

/// Compared call by call: both runs have the same calls, of the same lengths.
#[test]
fn at_no_load_is_hedging_worse_than_none() {
    for percent in [30, 50, 70, 80, 90, 95] {
        let load = f64::from(percent) / 100.0;
        let plain = ten_workers(load, "").total;
        for top in [&hedged_after("30ms"), AUTO] {
            let hedged = ten_workers(load, top);
            let (with, without) = (hedged.total.latency_ms, plain.latency_ms);
            for (name, with, without) in [
                ("mean", with.mean, without.mean),
                ("p50", with.p50, without.p50),
                ("p99", with.p99, without.p99),
                ("p99.9", with.p99_9, without.p99_9),
            ] {
                assert!(
                    with <= without * 1.02,
                    "{name} at {percent} %: {with} ms, without {without} ms; {top}"
                );
            }
            assert!(hedged.total.answered >= plain.answered, "{percent} %");
            assert!(hedged.hedging.expect("on").extra_percent <= 5.0);
        }
    }
}

/// As on the platform: an interrupted worker is not used again.
#[test]
fn hedging_pays_though_the_loser_s_worker_is_replaced() {
    let text = fp_sim::SCENARIOS.iter().find(|(name, _)| *name == "tail").expect("ours").1;
    let scenario = |hedge: &str| {
        let change = format!("latency.hedge={hedge}").parse().expect("a change");
        Scenario::parse_with(text, &[change], |_| Err(String::new())).expect("valid")
    };
    let (plain, hedged) = (run(&scenario("off")), run(&scenario("auto")));
    assert!(plain.total.latency_ms.p99 >= 200.0, "{plain}");
    assert!(hedged.total.latency_ms.p99 <= 60.0, "{hedged}");
    let hedging = hedged.hedging.as_ref().expect("on");
    assert!((1.5..=3.0).contains(&hedging.extra_percent), "{hedging}");
    assert!(hedged.workers.lost > 0 && hedged.workers.lost <= hedging.attempts, "{hedged}");
    assert_eq!(hedged.total.answered, hedged.total.offered);
}

#[test]
fn only_calls_that_may_run_twice_are_hedged() {
    let hedged = |idempotent: &str, stream: &str| {
        let text = format!(
            "name = \"t\"\nduration = \"60s\"\n{idempotent}\nlatency = {{ hedge = \"20ms\" }}\n[function]\n{TWO_SPEEDS}\n\
             [[streams]]\nname = \"s\"\nrate = 50\n{stream}\n"
        );
        let report = run(&Scenario::parse(&text).expect("valid"));
        let hedging = report.hedging.expect("on");
        assert_eq!(hedging.not_hedged.contains_key("not_idempotent"), hedging.attempts == 0, "{hedging}");
        hedging.attempts > 0
    };
    assert!(hedged("", "") && !hedged("", "verb = \"POST\""));
    assert!(!hedged("", "verb = \"POST\"\nidempotency_key = true"), "a key alone is no declaration");
    assert!(hedged("idempotent = true", "verb = \"POST\"") && !hedged("idempotent = false", ""));
    assert!(!hedged("idempotent = \"key\"", "") && hedged("idempotent = \"key\"", "idempotency_key = true"));
}

#[test]
fn an_error_waits_for_the_other_attempt() {
    let text = |hedge: &str| {
        format!(
            "name = \"t\"\nduration = \"60s\"\nlatency = {{ hedge = \"{hedge}\" }}\nscaling = {{ min = 10 }}\n[function]\n\
             service = \"40ms\"\nstart = \"5ms\"\nerror_percent = 20\nworker_life = {{ kind = \"exponential\", mean = \"5s\" }}\n\
             [[streams]]\nname = \"s\"\nrate = 5\npatience = {{ kind = \"exponential\", mean = \"400ms\" }}\n"
        )
    };
    let report = run(&Scenario::parse(&text("10ms")).expect("valid"));
    let ended: u64 = report.total.failed.values().sum();
    assert_eq!(ended + report.total.answered, report.total.offered, "each call ends once: {report}");
    let plain = run(&Scenario::parse(&text("off")).expect("valid"));
    let errors = |report: &Report| report.total.failed["function_error"];
    assert!(errors(&report) < errors(&plain), "{report}{plain}");
}
