//! What an attack costs the victim in time. Not part of an ordinary run: on a machine that is
//! busy with other things it measures those. `cargo test --release -p functionsplatform --test
//! attacks -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use crate::siege::{Attacker, Siege, percentile};

/// So many calls of the victim make a p99 of it: 10 beyond.
const CALLS: usize = 1_000;

#[test]
#[ignore = "timed: for a machine that does nothing else"]
fn the_victims_p99_stays_near_what_it_is_alone() {
    let settings = "timeout = \"4s\"\nmemory = \"64MiB\"\ntasks = 32";
    let siege = Siege::of(&[
        Attacker { file: "exhaustion.py", settings },
        Attacker { file: "stubborn.py", settings },
        Attacker { file: "outputs.py", settings },
    ]);
    siege.take_latencies();
    std::thread::sleep(Duration::from_secs(10));
    let alone = siege.take_latencies();
    let bound = percentile(&alone, 99).mul_f64(1.2).max(percentile(&alone, 99) + Duration::from_millis(5));
    println!("alone: {} calls, p99 {:?}, bound {bound:?}", alone.len(), percentile(&alone, 99));
    let attacks = [
        "exhaustion/fork_bomb",
        "exhaustion/memory_heap",
        "stubborn/spin_on_every_cpu",
        "outputs/endless_flood",
    ];
    let mut slow = Vec::new();
    for target in attacks {
        siege.take_latencies();
        let (mut seen, begun) = (Vec::new(), Instant::now());
        while seen.len() < CALLS && begun.elapsed() < Duration::from_secs(15) {
            siege.attack(target);
            seen.extend(siege.take_latencies());
        }
        let p99 = percentile(&seen, 99);
        println!("{target}: {} calls, p99 {p99:?}", seen.len());
        if p99 > bound {
            slow.push(format!("{target}: {p99:?}"));
        }
    }
    siege.end();
    assert!(slow.is_empty(), "over {bound:?}: {slow:?}");
}
