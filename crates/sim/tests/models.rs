//! What workers and callers do in a simulation, against what theory says of it.

use fp_sim::{Change, Report, Scenario, ScenarioError, run};

/// A scenario with these lines in their tables.
fn scenario(top: &str, function: &str, stream: &str) -> Scenario {
    let text = format!(
        "name = \"t\"\n{top}\n[function]\nstart = \"1ms\"\n{function}\n[[streams]]\nname = \"s\"\n{stream}\n"
    );
    Scenario::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn play(top: &str, function: &str, stream: &str) -> Report {
    run(&scenario(top, function, stream))
}

/// Little's law: 50/s × 200 ms.
#[test]
fn the_mean_concurrency_is_rate_times_service_time() {
    let report = play(
        "duration = \"1h\"\nwarmup = \"1m\"\nscaling = { max = 100 }",
        "service = { kind = \"exponential\", mean = \"200ms\" }",
        "rate = 50",
    );
    assert!((report.workers.mean_running - 10.0).abs() <= 0.3, "{report}");
    assert!(report.total.offered < 50 * 3_600 * 99 / 100 && report.warmup_seconds == 60.0, "{report}");
}

/// Erlang C: with these many workers at most one call in a hundred waits, with one less more do.
#[test]
fn the_share_that_waits_is_erlang_s() {
    for (load, workers) in [(1, 5), (10, 19), (50, 68), (100, 125)] {
        let waiting = |workers: u32| {
            let report = play(
                &format!(
                    "duration = \"{}s\"\nwarmup = \"10s\"\nscaling = {{ min = {workers}, max = {workers} }}",
                    60_000 / load
                ),
                "service = { kind = \"exponential\", mean = \"1s\" }",
                &format!("rate = {load}"),
            );
            report.total.waited as f64 / report.total.offered as f64
        };
        let (enough, too_few) = (waiting(workers), waiting(workers - 2));
        assert!(enough <= 0.012, "{workers} workers at load {load}: {enough}");
        assert!(too_few > 0.0095 && too_few > enough, "{} workers at load {load}: {too_few}", workers - 2);
    }
}

/// The textbook's M/M/1: the mean time in the system is 1 / (service rate − arrival rate).
#[test]
fn one_worker_under_load_queues_as_the_textbook_says() {
    let report = play(
        // The textbook's queue has no bound: here it is far away.
        "duration = \"2h\"\nwarmup = \"1m\"\nscaling = { min = 1, max = 1 }\nslo = { latency = { under = \"1m\", percent = 99 } }",
        "service = { kind = \"exponential\", mean = \"10ms\" }",
        "rate = 50",
    );
    assert!((report.total.latency_ms.mean - 20.0).abs() < 0.6, "{}", report.total.latency_ms.mean);
    assert!((report.total.latency_ms.p99 - 92.1).abs() < 4.0, "{}", report.total.latency_ms.p99);
}

#[test]
fn stuck_calls_end_at_their_deadline_and_cost_their_worker() {
    let report = play(
        "duration = \"100s\"\ntimeout = \"1s\"",
        "service = \"10ms\"\nstuck_percent = 2",
        "rate = 100\nprocess = \"even\"",
    );
    let stuck = report.total.failed["timeout"];
    assert!((150..250).contains(&stuck), "{report}");
    assert_eq!(report.workers.lost, stuck);
    let report = play(
        "duration = \"100s\"\ntimeout = \"1s\"",
        "service = \"10ms\"\nstuck_percent = 2",
        "rate = 100\ndeadline = \"500ms\"",
    );
    assert!(report.total.failed.contains_key("deadline_exceeded (expired_running)"), "{report}");
}

#[test]
fn errors_are_no_answers_and_leave_the_worker() {
    let report = play("duration = \"100s\"", "service = \"10ms\"\nerror_percent = 5", "rate = 100");
    let failed = report.total.failed["function_error"];
    assert!(
        (400..600).contains(&failed) && failed + report.total.answered == report.total.offered,
        "{report}"
    );
    assert_eq!(report.workers.lost, 0);
}

/// 2 s of standing still in every 10 s: a fifth of the calls that need 10 ms meet a pause.
#[test]
fn pauses_hold_up_what_runs() {
    let report = play(
        "duration = \"1000s\"\nscaling = { min = 1, max = 1 }",
        "service = \"10ms\"\npause = { every = \"10s\", for = \"2s\" }",
        "rate = 0.5",
    );
    let slowest = report.total.latency_ms.max;
    assert!(slowest > 1_500.0 && slowest <= 2_100.0, "{report}");
    let calm = play("duration = \"1000s\"\nscaling = { max = 1 }", "service = \"10ms\"", "rate = 0.5");
    assert!(calm.total.latency_ms.p99 < 30.0 && report.total.latency_ms.p90 > 500.0, "{report}");
}

#[test]
fn slow_workers_are_slow_at_every_call() {
    let service = "service = \"100ms\"\nslow_workers = { percent = 50, factor = 10 }";
    let burst = "burst = { size = 16, every = \"5s\" }\nfrom = \"1s\"";
    let report = play("duration = \"100s\"\nscaling = { min = 16 }", service, burst);
    let latency = report.total.latency_ms;
    assert!(latency.max == 1_000.0 && (200.0..900.0).contains(&latency.mean), "{report}");
    let all = "service = \"10ms\"\nslow_workers = { percent = 100, factor = 10 }";
    let report = play("duration = \"100s\"", all, "rate = 5\nprocess = \"even\"\nfrom = \"1s\"");
    assert_eq!(report.total.latency_ms.p50, 100.0, "{report}");
}

#[test]
fn workers_that_die_take_what_they_run_along_and_are_replaced() {
    let report = play(
        "duration = \"200s\"\nscaling = { min = 4 }",
        "service = \"100ms\"\nworker_life = { kind = \"exponential\", mean = \"10s\" }",
        "rate = 10",
    );
    let crashed = report.total.failed["crashed"];
    assert!(report.workers.lost > 60 && crashed > 5 && crashed < report.workers.lost, "{report}");
    assert_eq!(crashed + report.total.answered, report.total.offered);
}

#[test]
fn an_incident_begins_and_ends() {
    let text = "duration = \"30s\"\nincidents = [{ from = \"10s\", until = \"20s\", factor = 3, error_percent = 50 }]";
    let report = play(text, "service = \"10ms\"", "rate = 100");
    let during = |sample: &&fp_sim::Sample| (10.1..20.3).contains(&sample.at);
    let failed = |is_in: bool| -> u32 {
        let samples = report.timeline.iter().filter(|sample| during(sample) == is_in);
        samples.map(|sample| sample.failed).sum()
    };
    assert!((400..600).contains(&failed(true)) && failed(false) == 0, "{report}");
    let slow = report.timeline.iter().filter(|sample| sample.slowest_ms >= 30.0 && !during(sample)).count();
    assert_eq!(slow, 0, "only in the incident");
}

#[test]
fn impatient_callers_leave() {
    let report = play(
        "duration = \"100s\"\nscaling = { min = 1, max = 1 }",
        "service = \"1s\"",
        "rate = 2\npatience = \"500ms\"",
    );
    assert_eq!(report.total.failed.keys().collect::<Vec<_>>(), ["cancelled"], "{report}");
    assert_eq!(report.total.answered, 0, "a second is more than half of one");
    let patient = play("duration = \"100s\"", "service = \"1s\"", "rate = 2\npatience = \"2s\"");
    assert_eq!(patient.total.answered, patient.total.offered, "{patient}");
}

#[test]
fn the_load_multiplies_rates_and_compresses_recordings() {
    let offered = |load: &str, stream: &str| {
        play(&format!("duration = \"100s\"\nload = {load}"), "service = \"1ms\"", stream).total.offered
    };
    assert_eq!(offered("2.5", "rate = 10\nprocess = \"even\""), 2_500);
    assert_eq!(offered("3", "burst = { size = 10 }"), 30);
    assert_eq!(offered("1", "arrivals_ms = [0, 150000]"), 1);
    assert_eq!(offered("2", "arrivals_ms = [0, 150000]"), 2);
}

#[test]
fn recorded_calls_run_as_long_as_they_did() {
    let text = "name = \"t\"\nduration = \"10s\"\n[function]\nservice = { kind = \"empirical\", file = \"calls.csv\" }\nstart = \"1ms\"\n[scaling]\nmin = 3\n[[streams]]\nname = \"s\"\ntrace = \"calls.csv\"\n";
    let read = |name: &str| match name {
        "calls.csv" => Ok("1000,5\n2000,7\n3000,\n".to_owned()),
        other => Err(format!("there is no {other}")),
    };
    let report = run(&Scenario::parse_with(text, &[], read).expect("valid"));
    let latency = report.total.latency_ms;
    assert!(latency.max == 7.0 && (latency.p50 == 5.0 || latency.p50 == 7.0), "{report}");
    assert_eq!(report.timeline.iter().filter(|sample| sample.answered > 0).count(), 3);
    let error = Scenario::parse_with(text, &[], |_| Ok("1\nx".into())).expect_err("no number");
    assert_eq!(
        error.to_string(),
        "function.service: calls.csv, line 2: \"x\" is not a time; write 250ms or 30s (line 4)"
    );
}

#[test]
fn streams_of_one_tenant_share_its_turn() {
    let text = |tenants: [&str; 3]| {
        let streams = tenants.map(|tenant| {
            format!("[[streams]]\nname = \"s\"\ntenant = \"{tenant}\"\nrate = 100\ndeadline = \"1s\"\n")
        });
        let head = "name = \"t\"\nduration = \"60s\"\nscaling = { max = 1 }\n[function]\nservice = \"10ms\"\nstart = \"1ms\"\n";
        format!("{head}{}", streams.concat())
    };
    let report = run(&Scenario::parse(&text(["a", "a", "b"])).expect("valid"));
    let [a, b] = &report.tenants[..] else { panic!("{report}") };
    assert_eq!((a.name.as_str(), b.name.as_str()), ("a", "b"));
    assert!(a.answered.abs_diff(b.answered) < 300, "half for each tenant: {report}");
    let report = run(&Scenario::parse(&text(["a", "b", "c"])).expect("valid"));
    assert!(report.tenants.iter().all(|tenant| (1_850..2_150).contains(&tenant.answered)), "{report}");
}

#[test]
fn an_objective_is_judged() {
    let objective = |under: &str| {
        let top = format!(
            "latency = {{ hedge = \"off\" }}\nduration = \"60s\"\nslo = {{ availability = 99.9, latency = {{ under = \"{under}\", percent = 99 }} }}"
        );
        let service = "service = { kind = \"bimodal\", fast = \"10ms\", slow = \"200ms\", slow_percent = 2 }";
        play(&top, service, "rate = 100").total.objective.expect("there is one")
    };
    let (strict, mild) = (objective("100ms"), objective("300ms"));
    assert!(!strict.kept && mild.kept);
    assert!((97.0..99.0).contains(&strict.in_time_percent.expect("of latency")));
    assert_eq!((mild.available_percent, mild.in_time_percent), (100.0, Some(100.0)));
}

#[test]
fn workers_with_several_slots_lose_only_the_late_call() {
    let report = play(
        "duration = \"60s\"\nconcurrency = 10\ntimeout = \"1s\"\nscaling = { min = 1, max = 1 }",
        "service = \"50ms\"\nstuck_percent = 1",
        "rate = 50",
    );
    assert!(report.total.failed["timeout"] > 10 && report.workers.lost == 0, "{report}");
    assert_eq!(report.total.failed.len(), 1, "{report}");
    assert!(report.workers.busy_percent < 60.0, "{report}");
}

#[test]
fn values_are_changed_from_outside() {
    let text = "name = \"t\"\nduration = \"10s\"\n[function]\nservice = \"1ms\"\nstart = \"1ms\"\n[[streams]]\nname = \"a\"\nrate = 1\n";
    let with = |changes: &[&str]| {
        let changes = changes.iter().map(|change| change.parse()).collect::<Result<Vec<Change>, _>>()?;
        Scenario::parse_with(text, &changes, |name| Err(format!("{name}?")))
    };
    let scenario = with(&["scaling.max=3", "streams.a.rate=20", "function.service=7ms"]).expect("valid");
    assert_eq!((scenario.settings.scaling.max, scenario.streams[0].rate), (3, Some(20.0)));
    let text_of = |error: Result<Scenario, ScenarioError>| error.expect_err("refused").to_string();
    assert_eq!(text_of(with(&["streams.a.rate=-1"])), "streams.0.rate must be above 0");
    assert_eq!(
        text_of(with(&["duration=soon"])),
        "cannot set duration=soon: \"soon\" is not a time; write 250ms or 30s"
    );
    assert!(
        text_of(with(&["scaling.mix=3"])).contains("did you mean"),
        "{}",
        text_of(with(&["scaling.mix=3"]))
    );
}

/// Ten seconds in which every call crashes: callers are refused at once but for probes, and soon after it all are
/// served again.
#[test]
fn a_function_that_only_crashes_is_not_asked_again_and_again() {
    let top = "duration = \"40s\"\nincidents = [{ from = \"10s\", until = \"20s\", crash_percent = 100 }]";
    let report = play(top, "service = \"10ms\"", "rate = 100");
    let crashed = report.total.failed["crashed"];
    assert!(crashed < 40, "ten and the probes: {report}");
    assert!(report.total.failed["shed (breaker_open)"] > 900, "{report}");
    let late = report.timeline.iter().filter(|sample| sample.at > 37.0);
    assert!(late.map(|sample| sample.failed).sum::<u32>() == 0, "it has recovered: {report}");
}

#[test]
fn a_worker_that_is_slower_than_its_siblings_is_replaced() {
    let service = "service = \"20ms\"\nslow_workers = { percent = 15, factor = 10 }";
    let report = play("duration = \"200s\"\nscaling = { min = 12, max = 12 }", service, "rate = 200");
    assert!(report.workers.ejected > 0 && report.workers.ejected <= report.workers.lost, "{report}");
    let slow = |until: f64| {
        let samples = report.timeline.iter().filter(|sample| (until - 50.0..until).contains(&sample.at));
        samples.filter(|sample| sample.slowest_ms >= 200.0).count()
    };
    assert!(slow(200.0) < slow(50.0) || slow(200.0) == 0, "{} then {}: {report}", slow(50.0), slow(200.0));
}

#[test]
fn workers_can_be_warm_from_the_beginning() {
    let cold = |warm: u32| {
        let top = format!("duration = \"10s\"\nwarm = {warm}\nscaling = {{ max = 4 }}");
        play(&top, "service = \"100ms\"", "rate = 5\nprocess = \"even\"").total.cold
    };
    assert_eq!((cold(0), cold(1)), (1, 0));
    let text = "name = \"t\"\nduration = \"1s\"\nwarm = 17\n[function]\nservice = \"1s\"\nstart = \"1s\"\n[[streams]]\nname = \"s\"\nrate = 1\n";
    let error = Scenario::parse(text).expect_err("too many");
    assert_eq!(error.to_string(), "warm is more than scaling.max (line 3)");
}

#[test]
fn knatives_scaler_keeps_what_the_calls_in_flight_ask_for_and_lets_all_go_after_them() {
    let text = r#"
        name = "steady"
        duration = "6m"
        scaler = "knative"
        scaling = { max = 100 }
        function = { service = "99ms", start = "50ms" }
        [[streams]]
        name = "callers"
        rate = 70
        process = "even"
        until = "3m"
    "#;
    let report = run(&Scenario::parse(text).expect("a scenario"));
    let workers_at = |seconds: f64| {
        let sample = report.timeline.iter().find(|sample| sample.at >= seconds).expect("a sample");
        sample.idle + sample.busy + sample.starting
    };
    // Seven calls in flight, and seven tenths of a call for each worker.
    assert_eq!(workers_at(150.0), 10);
    assert_eq!(workers_at(330.0), 0);
    assert_eq!(report.total.failed.values().sum::<u64>(), 0);
    let own = run(&Scenario::parse(&text.replace("knative", "platform")).expect("a scenario"));
    assert!(own.workers.worker_seconds < report.workers.worker_seconds, "seven are busy, and few idle");
}
