//! Figures, not assertions: `cargo test --release -p fp-sandbox speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use crate::stage::{Stage, call};

const ONE: &str = "def handler(message, context):\n    return {'a': 1}\n";

fn quantile(times: &mut [Duration], q: f64) -> Duration {
    times.sort();
    times[((times.len() - 1) as f64 * q) as usize]
}

fn print(what: &str, mut times: Vec<Duration>) {
    let [p10, p50, p90] = [0.1, 0.5, 0.9].map(|q| quantile(&mut times, q));
    println!("{what:<40} p10 {p10:>10.1?}  p50 {p50:>10.1?}  p90 {p90:>10.1?}  n {}", times.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; needs a quiet machine"]
async fn starts_and_round_trips() {
    let stage = Stage::with(|config| config.blanks = 2).await;
    let spec = stage.function("f", ONE);
    let (mut claimed, mut forked) = (Vec::new(), Vec::new());
    for round in 0..120 {
        // Quiet enough for the pool to fill, except every third time.
        let pause = if round % 3 == 2 { 0 } else { 60 };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let begin = Instant::now();
        let mut worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
        worker.call(call(1, "")).await.expect("an answer");
        let took = begin.elapsed();
        if worker.was_blank() { claimed.push(took) } else { forked.push(took) }
    }
    print("claim a blank one, first answer", claimed);
    if !forked.is_empty() {
        print("fork on the path, first answer", forked);
    }
    for size in [0usize, 100, 10_000, 1 << 20, 6 << 20] {
        let echo = stage.function("echo", "def handler(message, context):\n    return message['raw_body']\n");
        let mut worker = stage.sandbox.start_worker(&echo).await.expect("a worker");
        let body = bytes::Bytes::from(vec![7; size]);
        let rounds = if size > 100_000 { 100 } else { 5000 };
        let mut times = Vec::new();
        for serial in 1..rounds {
            let begin = Instant::now();
            worker.call(call(serial, body.clone())).await.expect("an answer");
            times.push(begin.elapsed());
        }
        print(&format!("round trip, {size} bytes both ways"), times);
    }
    stage.close().await;
}
