//! Hedging in virtual time, with the pool that the server runs: cases with known answers, and what
//! always holds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use fp_core::WorkerId;
use fp_core::hedge::{
    Attempt, AttemptEnd, BUDGET, Delay, First, HedgeConfig, Hedging, Load, MOST_UTILISATION, NotHedged, Race,
};
use fp_core::pool::{AUTO_IDLE, Arrival, CallId, Decision, Now, Objective, Pool, PoolConfig};
use fp_core::settings::Criticality;
use proptest::prelude::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Far enough that no deadline decides anything here.
const DEADLINE: Duration = ms(60_000);

/// Steele, Lea and Flood's splitmix: seeded, and enough for service times.
struct Draws(u64);

impl Draws {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }

    /// Mostly `usual`, in 2 % of all cases `slow`.
    fn two_speeds(&mut self, usual: Duration, slow: Duration) -> Duration {
        if self.unit() < 0.02 { slow } else { usual }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    End(u64, WorkerId),
    Due(u64),
}

struct Call {
    arrived: Now,
    race: Option<Race>,
    /// The workers that run it.
    workers: Vec<(WorkerId, Attempt, Now)>,
}

/// Workers, Poisson arrivals and independent service times.
struct World {
    pool: Pool,
    hedging: Option<Hedging>,
    draws: Draws,
    service: fn(&mut Draws) -> Duration,
    gap: Duration,
    calls: BTreeMap<u64, Call>,
    events: BinaryHeap<Reverse<(Now, u64, Event)>>,
    serial: u64,
    arrivals: u64,
    latencies: Vec<Duration>,
    hedges: u64,
    most_at_once: usize,
}

impl World {
    fn new(
        workers: u32,
        gap: Duration,
        service: fn(&mut Draws) -> Duration,
        hedge: Option<HedgeConfig>,
    ) -> Self {
        let config = PoolConfig {
            min: workers,
            max: workers,
            idle: AUTO_IDLE,
            learns: false,
            objective: Some(Objective { under: Duration::from_secs(60), percent: 99.0 }),
            slots: 1,
            queue_bound: 1 << 20,
            is_led: false,
        };
        let mut pool = Pool::new(config);
        let mut out = Vec::new();
        pool.on_timer(Now::ZERO, &mut out);
        assert_eq!(out, [Decision::Start { count: workers }]);
        for worker in 0..workers {
            pool.on_started(Now::ZERO, WorkerId(worker.into()), ms(3), &mut out);
        }
        assert_eq!(out.len(), 1);
        let hedging = hedge.map(Hedging::new);
        let (draws, calls, latencies) = (Draws(7), BTreeMap::new(), Vec::new());
        let events = BinaryHeap::from([Reverse((Now::ZERO, 0, Event::Arrival))]);
        let (serial, arrivals, hedges, most_at_once) = (0, 0, 0, 0);
        Self {
            pool,
            hedging,
            draws,
            service,
            gap,
            calls,
            events,
            serial,
            arrivals,
            latencies,
            hedges,
            most_at_once,
        }
    }

    fn run(mut self, calls: usize) -> Self {
        while self.latencies.len() < calls {
            let Reverse((now, _, event)) = self.events.pop().expect("calls go on arriving");
            match event {
                Event::Arrival => self.on_arrival(now),
                Event::End(call, worker) => self.on_end(now, call, worker),
                Event::Due(call) => self.on_due(now, call),
            }
        }
        self
    }

    fn at(&mut self, time: Now, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((time, self.serial, event)));
    }

    fn on_arrival(&mut self, now: Now) {
        self.arrivals += 1;
        let serial = self.arrivals;
        self.calls.insert(serial, Call { arrived: now, race: None, workers: Vec::new() });
        let arrival = Arrival {
            call: CallId(serial),
            criticality: Criticality::Default,
            caller: 1,
            deadline: now + DEADLINE,
        };
        self.decide(now, |pool, out| pool.on_arrival(now, arrival, out));
        let gap = self.draws.exponential(self.gap);
        self.at(now + gap, Event::Arrival);
    }

    fn decide(&mut self, now: Now, ask: impl FnOnce(&mut Pool, &mut Vec<Decision>)) {
        let mut out = Vec::new();
        ask(&mut self.pool, &mut out);
        for decision in out {
            let Decision::Run { call: CallId(call), worker } = decision else { panic!("{decision:?}") };
            let load = Load::beside(1, self.pool.load());
            let state = self.calls.get_mut(&call).expect("it arrived");
            let first = First {
                arrived: state.arrived,
                deadline: now + DEADLINE,
                is_cold: false,
                may_repeat: true,
                load,
            };
            state.race = self.hedging.as_mut().map(|hedging| hedging.on_dispatch(now, first));
            let due = state.race.as_ref().and_then(Race::next_wake);
            self.attempt(now, call, worker, Attempt::First);
            if let Some(due) = due {
                self.at(due, Event::Due(call));
            }
        }
    }

    fn attempt(&mut self, now: Now, call: u64, worker: WorkerId, attempt: Attempt) {
        let state = self.calls.get_mut(&call).expect("it runs");
        state.workers.push((worker, attempt, now));
        self.most_at_once = self.most_at_once.max(state.workers.len());
        // Of its own, so that runs with and without hedging differ by the hedges alone.
        let ends = now + (self.service)(&mut Draws(call << 1 | u64::from(attempt == Attempt::Second)));
        self.at(ends, Event::End(call, worker));
    }

    fn on_due(&mut self, now: Now, call: u64) {
        let Some(state) = self.calls.get_mut(&call) else { return };
        let (hedging, race) =
            (self.hedging.as_mut().expect("it was due"), state.race.as_mut().expect("a race"));
        let load = Load::beside(1, self.pool.load());
        let pool = &mut self.pool;
        if let Some(worker) = hedging.on_timer(now, race, load, || pool.take_idle(now)) {
            assert_eq!(race.next_wake(), None);
            self.hedges += 1;
            self.attempt(now, call, worker, Attempt::Second);
        }
    }

    fn on_end(&mut self, now: Now, call: u64, worker: WorkerId) {
        let is_it = |state: &Call| state.workers.iter().any(|(own, ..)| *own == worker);
        // A cancelled attempt's end comes for nobody.
        if !self.calls.get(&call).is_some_and(is_it) {
            return;
        }
        let mut state = self.calls.remove(&call).expect("it runs");
        state.workers.sort_by_key(|(own, ..)| *own != worker);
        if let (Some(hedging), Some(race)) = (&mut self.hedging, &mut state.race) {
            for (own, attempt, _) in &state.workers {
                let end = if *own == worker { AttemptEnd::Answered } else { AttemptEnd::CutOff };
                hedging.on_end(now, race, *attempt, end);
            }
            assert_eq!(race.won(), Some(state.workers[0].1));
        }
        self.latencies.push(now - state.arrived);
        for (own, _, since) in state.workers {
            self.decide(now, |pool, out| pool.on_idle(now, own, now - since, out));
        }
    }

    fn percentile(&self, percent: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (sorted.len() as f64 * percent / 100.0).ceil() as usize - 1;
        sorted[at].as_secs_f64() * 1e3
    }

    fn extra(&self) -> f64 {
        self.hedges as f64 / self.latencies.len() as f64
    }
}

fn after(delay: Duration) -> Option<HedgeConfig> {
    let delay = Delay::Fixed(delay);
    Some(HedgeConfig { delay, budget: BUDGET, most_utilisation: MOST_UTILISATION })
}

fn auto(objective: Duration) -> Option<HedgeConfig> {
    let delay = Delay::Auto { objective };
    Some(HedgeConfig { delay, budget: BUDGET, most_utilisation: MOST_UTILISATION })
}

fn assert_near(what: &str, value: f64, expected: f64, part: f64) {
    assert!((value - expected).abs() <= expected * part, "{what} is {value}, expected {expected}");
}

/// CASES H1, with so many workers that nothing waits.
#[test]
fn exponential_calls_hedged_at_their_95th_percentile_have_the_tail_of_the_books() {
    let world = |hedge| World::new(200, ms(10), |draws| draws.exponential(ms(10)), hedge).run(200_000);
    let (plain, hedged) = (world(None), world(after(Duration::from_micros(29_957))));
    for (percent, without, with) in [(99.0, 46.05, 38.00), (99.9, 69.08, 49.52)] {
        assert_near("without", plain.percentile(percent), without, 0.03);
        assert_near("with", hedged.percentile(percent), with, 0.03);
    }
    assert_near("extra calls", hedged.extra(), 0.05, 0.03);
    assert_eq!(hedged.most_at_once, 2);
}

/// CASES H2.
#[test]
fn one_slow_call_in_fifty_is_answered_after_the_delay_and_a_usual_run() {
    let service = |draws: &mut Draws| draws.two_speeds(ms(10), ms(1000));
    let world = |hedge| World::new(200, ms(10), service, hedge).run(100_000);
    let (plain, hedged) = (world(None), world(after(ms(20))));
    for percent in [99.0, 99.9] {
        assert_near("without", plain.percentile(percent), 1000.0, 0.001);
        assert_near("with", hedged.percentile(percent), 30.0, 0.001);
    }
    assert_near("extra calls", hedged.extra(), 0.02, 0.1);
}

/// CASES H3: ten workers of one queue. A load of 1 is 10 workers / 13.8 ms.
fn ten_workers(load: f64, hedge: Option<HedgeConfig>) -> World {
    let gap = Duration::from_secs_f64(0.0138 / 10.0 / load);
    World::new(10, gap, |draws| draws.two_speeds(ms(10), ms(200)), hedge).run(25_000)
}

#[test]
fn at_half_load_the_99th_percentile_falls_from_the_slow_call_to_the_hedged_one() {
    let (plain, hedged) = (ten_workers(0.5, None), ten_workers(0.5, after(ms(30))));
    assert_near("without", plain.percentile(99.0), 200.0, 0.05);
    assert_near("with", hedged.percentile(99.0), 40.0, 0.1);
    assert!(hedged.extra() <= 0.025, "{}", hedged.extra());
}

#[test]
fn at_no_load_is_hedging_worse_than_none() {
    for percent_load in [10, 30, 50, 70, 80, 90, 95] {
        let load = f64::from(percent_load) / 100.0;
        let plain = ten_workers(load, None);
        for hedge in [after(ms(30)), auto(ms(100))] {
            let hedged = ten_workers(load, hedge);
            for percent in [50.0, 99.0, 99.9] {
                let (with, without) = (hedged.percentile(percent), plain.percentile(percent));
                // Other draws follow a hedge, so that the two runs differ by chance.
                assert!(
                    with <= without * 1.05,
                    "p{percent} at {percent_load} %: {with} ms, without {without} ms"
                );
            }
            assert!(hedged.extra() <= BUDGET, "{}", hedged.extra());
        }
    }
}

#[test]
fn a_delay_made_from_the_objective_cuts_the_tail_at_the_price_of_the_slow_share() {
    let service = |draws: &mut Draws| {
        let usual = ms(10) + draws.exponential(Duration::from_micros(200));
        draws.two_speeds(usual, ms(200))
    };
    let world = |hedge| World::new(10, ms(20), service, hedge).run(60_000);
    let (plain, hedged) = (world(None), world(auto(ms(100))));
    assert!(plain.percentile(99.0) >= 200.0);
    assert!(hedged.percentile(99.0) <= 60.0, "{}", hedged.percentile(99.0));
    assert!((0.015..0.03).contains(&hedged.extra()), "{}", hedged.extra());
}

/// A policy that knows `slow` of 1,000 runs as 200 ms and the rest as 10 ms.
fn learnt(slow: u32, budget: f64) -> Hedging {
    let config = HedgeConfig { budget, ..auto(ms(100)).expect("set") };
    let mut hedging = Hedging::new(config);
    for call in 0..1000 {
        let mut race = hedging.on_dispatch(ms(0), FIRST);
        let ran = if call < slow { ms(200) } else { ms(10) };
        hedging.on_end(ran, &mut race, Attempt::First, AttemptEnd::Answered);
    }
    hedging
}

const IDLE: Load = Load { others: 0, slots: 4 };
const FIRST: First =
    First { arrived: ms(0), deadline: DEADLINE, is_cold: false, may_repeat: true, load: IDLE };

#[test]
fn a_call_says_why_it_was_not_hedged() {
    let reason =
        |hedging: &mut Hedging, first| hedging.on_dispatch(ms(0), first).why_not().map(|why| why.word());
    let mut hedging = learnt(20, BUDGET);
    assert_eq!(reason(&mut Hedging::new(*hedging.config()), FIRST), Some("too_little_history"));
    assert_eq!(reason(&mut hedging, First { may_repeat: false, ..FIRST }), Some("not_idempotent"));
    assert_eq!(reason(&mut hedging, FIRST), Some("ended_before"));
    assert_eq!(reason(&mut hedging, First { deadline: ms(5), ..FIRST }), Some("deadline_first"));
    let mut waited = hedging.on_dispatch(ms(95), FIRST);
    assert!(matches!(waited.why_not(), Some(NotHedged::TooLate { waited, .. }) if waited == ms(95)));
    assert_eq!(hedging.on_timer(ms(110), &mut waited, IDLE, || -> Option<()> { panic!("not asked") }), None);
    assert_eq!(reason(&mut learnt(0, BUDGET), FIRST), Some("nothing_to_gain"));

    let due = |hedging: &mut Hedging, load, idle: Option<u8>| {
        let mut race = hedging.on_dispatch(ms(0), FIRST);
        let taken = hedging.on_timer(ms(12), &mut race, load, || idle);
        (taken, race.why_not().map(|why| why.word()))
    };
    assert_eq!(due(&mut hedging, IDLE, None), (None, Some("no_idle_worker")));
    assert_eq!(due(&mut hedging, Load { others: 9, slots: 10 }, Some(1)), (None, Some("utilisation")));
    assert_eq!(due(&mut hedging, IDLE, Some(1)), (Some(1), None));
    assert_eq!(due(&mut learnt(20, 0.0005), IDLE, Some(1)), (None, Some("budget_spent")));
}

#[test]
fn an_error_waits_for_the_other_attempt_and_never_wins() {
    let mut hedging = learnt(20, BUDGET);
    let mut race = hedging.on_dispatch(ms(0), FIRST);
    assert!(!race.waits_for_other(Attempt::First, AttemptEnd::Failed), "there is no other");
    assert_eq!(hedging.on_timer(ms(12), &mut race, IDLE, || Some(1)), Some(1));
    assert!(race.waits_for_other(Attempt::First, AttemptEnd::Failed));
    hedging.on_end(ms(15), &mut race, Attempt::First, AttemptEnd::Failed);
    assert_eq!(race.won(), None);
    assert!(!race.waits_for_other(Attempt::Second, AttemptEnd::Failed), "the other has ended");
    hedging.on_end(ms(22), &mut race, Attempt::Second, AttemptEnd::Answered);
    assert_eq!(race.won(), Some(Attempt::Second));
}

#[test]
fn what_was_saved_is_reckoned_from_what_the_loser_would_have_taken() {
    let mut hedging = learnt(20, BUDGET);
    let mut race = hedging.on_dispatch(ms(0), FIRST);
    hedging.on_timer(ms(12), &mut race, IDLE, || Some(1));
    hedging.on_end(ms(22), &mut race, Attempt::Second, AttemptEnd::Answered);
    hedging.on_end(ms(22), &mut race, Attempt::First, AttemptEnd::CutOff);
    let worth = race.worth().expect("the second attempt won");
    assert_eq!(worth.at_least, ms(22));
    assert!((ms(190)..ms(220)).contains(&worth.usually.expect("it was seen")), "{worth:?}");
    assert!(worth.saved() > ms(150));
}

#[test]
fn cold_attempts_and_calls_that_may_not_repeat_teach_nothing() {
    let mut hedging = Hedging::new(auto(ms(100)).expect("set"));
    for _ in 0..200 {
        for first in [First { is_cold: true, ..FIRST }, First { may_repeat: false, ..FIRST }] {
            let mut race = hedging.on_dispatch(ms(0), first);
            hedging.on_end(ms(10), &mut race, Attempt::First, AttemptEnd::Answered);
        }
    }
    let why = hedging.on_dispatch(ms(0), FIRST).why_not();
    assert!(matches!(why, Some(NotHedged::TooLittleHistory { runs: 0, .. })), "{why:?}");
}

proptest! {
    /// Whatever runs how long: never more than the budget, and no attempt without a delay.
    #[test]
    fn the_budget_holds(
        runs in prop::collection::vec((1_u64..400, 0_u32..12, any::<bool>()), 1..600),
        budget in 0.0..0.2_f64,
        fixed in any::<bool>(),
    ) {
        let delay = if fixed { Delay::Fixed(ms(5)) } else { Delay::Auto { objective: ms(100) } };
        let mut hedging = Hedging::new(HedgeConfig { delay, budget, most_utilisation: MOST_UTILISATION });
        let (mut hedges, mut now) = (0, ms(0));
        for (calls, (ran, others, may_repeat)) in runs.into_iter().enumerate() {
            let load = Load { others, slots: 10 };
            let first = First { arrived: now, deadline: now + DEADLINE, is_cold: false, may_repeat, load };
            let mut race = hedging.on_dispatch(now, first);
            let due = race.next_wake();
            prop_assert!(due.is_none_or(|due| due > now && may_repeat));
            if let Some(due) = due.filter(|due| *due < now + ms(ran)) {
                hedges += u32::from(hedging.on_timer(due, &mut race, load, || Some(())).is_some());
            }
            now += ms(ran);
            hedging.on_end(now, &mut race, Attempt::First, AttemptEnd::Answered);
            prop_assert!(f64::from(hedges) <= budget * (calls + 1) as f64);
            prop_assert_eq!(race.why_not().is_none(), race.second().is_some());
        }
    }
}
