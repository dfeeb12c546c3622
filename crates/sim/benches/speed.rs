//! How many calls are simulated per second of processor time: `cargo bench -p fp-sim`.
//!
//! Prints one line per scenario, and fails when one is below the floor that the documentation
//! promises. What else the machine does takes no processor time of this thread; the best of a few rounds
//! is without what it does to caches.

use fp_sim::{Scenario, run};

const FLOOR: f64 = 200_000.0;
const ROUNDS: u32 = 5;

const BASE: &str = r#"
duration = "200s"
[function]
service = { kind = "lognormal", median = "8ms", sigma = 0.7 }
start = "5ms"
"#;

const CASES: [(&str, &str, &str); 4] = [
    ("one caller, 16 workers, 60 % busy", "", "[[streams]]\nname = \"a\"\nrate = 1000"),
    ("100 callers, 16 workers, 95 % busy", "", "[[streams]]\nname = \"a\"\nrate = 1500\ncallers = 100"),
    (
        "twice what 16 workers can do",
        "",
        "[[streams]]\nname = \"a\"\nrate = 3100\ncallers = 10\ndeadline = \"1s\"",
    ),
    ("200 workers", "[scaling]\nmax = 200\n", "[[streams]]\nname = \"a\"\nrate = 15000\nuntil = \"20s\""),
];

fn main() {
    let mut is_fast = true;
    for (name, settings, streams) in CASES {
        let text = format!("name = \"{name}\"\n{BASE}{settings}{streams}");
        let scenario = Scenario::parse(&text).expect(name);
        let mut best = 0.0_f64;
        let mut calls = 0;
        for _ in 0..ROUNDS {
            let began = processor_seconds();
            calls = run(&scenario).total.offered;
            best = best.max(calls as f64 / (processor_seconds() - began));
        }
        println!("{name:<36} {calls:>9} calls {best:>12.0} calls/s");
        is_fast &= best >= FLOOR;
    }
    assert!(is_fast, "below {FLOOR} calls per second");
}

/// For how long this thread has run on a processor.
fn processor_seconds() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux keeps it");
    let nanos = times.split_whitespace().next().and_then(|nanos| nanos.parse::<f64>().ok());
    nanos.expect("its first number") / 1e9
}
