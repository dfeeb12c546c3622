//! What an attack costs the victim in time: its p99 stays within a fifth, or 5 ms, of what it is
//! alone. Not part of an ordinary run, because it is about the release build and takes two minutes:
//! `.ci/run build siege` runs it.
//!
//! Windows alone and besieged take turns, and medians over the turns are compared: whatever else the
//! machine does meets both alike, and one bad second of it decides nothing.

use std::time::{Duration, Instant};

use crate::siege::{Attacker, Siege, percentile};

/// Odd, so that one of them is the median.
const TURNS: usize = 5;

/// Some 350 calls of the victim: three of them are beyond the p99.
const WINDOW: Duration = Duration::from_secs(2);

/// What may be added where a fifth is less: a scheduler's quantum is 4 ms.
const ALLOWANCE: Duration = Duration::from_millis(5);

const ATTACKS: [&str; 6] = [
    "exhaustion/fork_bomb",
    "exhaustion/memory_heap",
    "stubborn/spin_on_every_cpu",
    "outputs/endless_flood",
    "forgeries/parting_gift",
    "forgeries/lingering_socket",
];

#[test]
#[ignore = "timed, for the release build: .ci/run build siege"]
fn the_victims_p99_stays_near_what_it_is_alone() {
    let settings = "timeout = \"2s\"\nmemory = \"64MiB\"\ntasks = 32";
    let roomy = "timeout = \"2s\"\nmemory = \"256MiB\"";
    let siege = Siege::of(&[
        Attacker { file: "exhaustion.py", settings },
        Attacker { file: "stubborn.py", settings },
        Attacker { file: "outputs.py", settings },
        Attacker { file: "forgeries.py", settings: roomy },
    ]);
    let mut slow = Vec::new();
    for target in ATTACKS {
        let (mut alone, mut besieged, mut calls) = (Vec::new(), Vec::new(), 0);
        for _ in 0..TURNS {
            siege.take_latencies();
            std::thread::sleep(WINDOW);
            alone.push(percentile(&siege.take_latencies(), 99));
            let begun = Instant::now();
            while begun.elapsed() < WINDOW {
                siege.attack(target);
            }
            let seen = siege.take_latencies();
            calls += seen.len();
            besieged.push(percentile(&seen, 99));
            siege.assert_nothing_left();
        }
        let (alone, besieged) = (median(alone), median(besieged));
        let bound = alone.mul_f64(1.2).max(alone + ALLOWANCE);
        println!("{target}: p99 {besieged:?} in {calls} calls, alone {alone:?}, bound {bound:?}");
        if besieged > bound {
            slow.push(format!("{target}: {besieged:?} over {bound:?}"));
        }
    }
    siege.end();
    assert!(slow.is_empty(), "{}", slow.join("\n"));
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values[values.len() / 2]
}
