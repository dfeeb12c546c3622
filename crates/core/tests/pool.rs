//! The pool policy: what it must always keep to, and cases with known answers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use fp_core::outcome::{DeadlineReason, Outcome, ShedReason};
use fp_core::pool::{
    AUTO_IDLE, Arrival, CallId, Decision, Now, Objective, Pool, PoolConfig, Room, UNCALLED_IDLE,
};
use fp_core::settings::Criticality;
use fp_core::{Settings, WorkerId};
use proptest::prelude::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const CONFIG: PoolConfig = PoolConfig {
    min: 0,
    max: 4,
    idle: ms(1000),
    learns: false,
    objective: None,
    slots: 1,
    queue_bound: 8,
    is_led: false,
};

fn arrival(call: u64, deadline: Duration) -> Arrival {
    Arrival { call: CallId(call), criticality: Criticality::Default, caller: 1, deadline }
}

fn run(call: u64, worker: u64) -> Decision {
    Decision::Run { call: CallId(call), worker: WorkerId(worker) }
}

fn retire(worker: u64) -> Decision {
    Decision::Retire { worker: WorkerId(worker) }
}

/// A pool under test that answers with its decisions.
struct Bench {
    pool: Pool,
    out: Vec<Decision>,
}

impl Bench {
    fn new(config: PoolConfig) -> Self {
        Self { pool: Pool::new(config), out: Vec::new() }
    }

    fn after(&mut self, event: impl FnOnce(&mut Pool, &mut Vec<Decision>)) -> Vec<Decision> {
        event(&mut self.pool, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn arrives(&mut self, now: u64, call: u64, deadline: u64) -> Vec<Decision> {
        self.after(|pool, out| pool.on_arrival(ms(now), arrival(call, ms(deadline)), out))
    }

    fn started(&mut self, now: u64, worker: u64, took: u64) -> Vec<Decision> {
        self.after(|pool, out| pool.on_started(ms(now), WorkerId(worker), ms(took), out))
    }

    fn idle(&mut self, now: u64, worker: u64, ran: u64) -> Vec<Decision> {
        self.after(|pool, out| pool.on_idle(ms(now), WorkerId(worker), ms(ran), out))
    }

    fn timer(&mut self, now: u64) -> Vec<Decision> {
        self.after(|pool, out| pool.on_timer(ms(now), out))
    }

    /// One worker, and a history of calls that ran `ran`; returns the time afterwards.
    fn warm_up(&mut self, calls: u64, ran: u64) -> u64 {
        self.arrives(0, 1000, 1_000_000);
        self.started(300, 1, 300);
        let mut now = 300;
        for call in 1..=calls {
            now += ran;
            self.idle(now, 1, ran);
            assert_eq!(self.arrives(now, 1000 + call, 1_000_000), [run(1000 + call, 1)]);
        }
        self.idle(now + ran, 1, ran);
        now + ran
    }
}

fn refused(decisions: &[Decision]) -> Vec<(u64, Outcome)> {
    let refused = |decision: &Decision| match decision {
        Decision::Refuse { call, outcome, .. } => Some((call.0, *outcome)),
        _ => None,
    };
    decisions.iter().filter_map(refused).collect()
}

const EXPIRED: Outcome = Outcome::DeadlineExceeded(DeadlineReason::ExpiredInQueue);
const INFEASIBLE: Outcome = Outcome::DeadlineExceeded(DeadlineReason::Infeasible);

#[test]
fn a_deploys_worker_that_nobody_calls_goes_after_a_minute() {
    let config = PoolConfig { idle: AUTO_IDLE, ..CONFIG };
    let adopt = |bench: &mut Bench| bench.after(|pool, out| pool.on_adopted(ms(0), WorkerId(9), ms(3), out));
    let mut uncalled = Bench::new(config);
    assert_eq!(adopt(&mut uncalled), []);
    assert_eq!(uncalled.pool.next_wake(), Some(UNCALLED_IDLE));
    assert_eq!(uncalled.timer(59_999), []);
    assert_eq!(uncalled.timer(60_000), [retire(9)]);

    let mut called = Bench::new(config);
    adopt(&mut called);
    assert_eq!(called.arrives(30_000, 1, 90_000), [run(1, 9)]);
    called.idle(31_000, 9, 1000);
    assert_eq!(called.pool.next_wake(), Some(ms(31_000) + AUTO_IDLE));
    assert_eq!(called.timer(300_000), []);

    let mut kept = Bench::new(PoolConfig { min: 1, ..config });
    adopt(&mut kept);
    assert_eq!(kept.pool.next_wake(), None, "scaling.min holds it");
    let mut brief = Bench::new(PoolConfig { idle: ms(500), ..config });
    adopt(&mut brief);
    assert_eq!(brief.pool.next_wake(), Some(ms(500)), "a shorter idle time holds as well");
}

#[test]
fn a_cold_call_starts_a_worker_and_the_next_reuses_it() {
    let mut bench = Bench::new(CONFIG);
    assert_eq!(bench.arrives(0, 1, 1000), [Decision::Start { count: 1 }]);
    assert_eq!(bench.started(5, 7, 5), [run(1, 7)]);
    assert_eq!(bench.idle(9, 7, 4), []);
    assert_eq!(bench.arrives(10, 2, 1000), [run(2, 7)]);
}

#[test]
fn the_latest_idle_is_reused_and_the_longest_idle_retired() {
    let mut bench = Bench::new(PoolConfig { min: 1, ..CONFIG });
    assert_eq!(bench.pool.next_wake(), Some(Duration::ZERO));
    assert_eq!(bench.timer(0), [Decision::Start { count: 1 }]);
    bench.arrives(0, 1, 9000);
    bench.arrives(0, 2, 9000);
    for worker in [1, 2] {
        assert_eq!(bench.started(10, worker, 10), [run(worker, worker)]);
    }
    bench.idle(20, 1, 10);
    bench.idle(30, 2, 20);
    assert_eq!(bench.arrives(40, 3, 9000), [run(3, 2)]);
    bench.idle(50, 2, 10);
    assert_eq!(bench.pool.next_wake(), Some(ms(1020)));
    assert_eq!(bench.timer(1020), [retire(1)]);
    assert_eq!(bench.timer(99_000), [], "one is kept");
    assert_eq!(bench.pool.next_wake(), None);
}

#[test]
fn room_is_made_by_the_longest_idle_and_never_by_one_that_min_keeps_or_that_works() {
    let room = |bench: &mut Bench, room| {
        bench.after(|pool, out| {
            let was_there = pool.make_room(ms(0), room, out);
            assert_eq!(was_there, !out.is_empty());
        })
    };
    let adopt = |bench: &mut Bench| bench.after(|pool, out| pool.on_adopted(ms(0), WorkerId(9), ms(3), out));
    let config = PoolConfig { idle: AUTO_IDLE, ..CONFIG };
    let mut bench = Bench::new(config);
    assert_eq!(room(&mut bench, Room::Spare), [], "there is none");
    adopt(&mut bench);
    assert_eq!(room(&mut bench, Room::Uncalled), [retire(9)]);
    adopt(&mut bench);
    bench.arrives(10, 1, 9000);
    assert_eq!(room(&mut bench, Room::Any), [], "it works");
    bench.idle(20, 9, 10);
    assert_eq!(room(&mut bench, Room::Uncalled), [], "it was called");
    assert_eq!(room(&mut bench, Room::Spare), [retire(9)]);
    let mut kept = Bench::new(PoolConfig { min: 1, ..config });
    adopt(&mut kept);
    assert_eq!(room(&mut kept, Room::Spare), []);
    assert_eq!(room(&mut kept, Room::Any), [retire(9)], "who has more than its share keeps none");
}

#[test]
fn a_worker_that_others_are_to_have_takes_no_more_calls_whatever_waits() {
    let mut bench = Bench::new(PoolConfig { max: 1, ..CONFIG });
    bench.arrives(0, 1, 9000);
    bench.started(3, 1, 3);
    bench.arrives(4, 2, 9000);
    let gone = bench.after(|pool, out| pool.on_yield(ms(10), WorkerId(1), ms(7), out));
    assert_eq!(gone, [retire(1), Decision::Start { count: 1 }]);
    let denied = bench.after(|pool, out| pool.on_start_denied(ms(11), Outcome::StartFailed, out));
    assert!(matches!(denied[..], [Decision::Refuse { outcome: Outcome::StartFailed, .. }]), "{denied:?}");
}

#[test]
fn with_no_idle_time_every_call_has_a_worker_of_its_own() {
    let mut bench = Bench::new(PoolConfig { idle: Duration::ZERO, min: 3, max: 2, slots: 9, ..CONFIG });
    assert_eq!(bench.pool.next_wake(), None, "none is kept, so none is wanted");
    let adopted = bench.after(|pool, out| pool.on_adopted(ms(0), WorkerId(9), ms(3), out));
    assert_eq!(adopted, [retire(9)], "the deploy's worker is not kept either");
    for call in 1..=3 {
        bench.arrives(0, call, 9000);
    }
    assert_eq!(bench.pool.view(ms(0)).starting, 2);
    assert_eq!(bench.started(5, 1, 5), [run(1, 1)]);
    assert_eq!(bench.started(5, 2, 5), [run(2, 2)]);
    assert_eq!(bench.idle(6, 1, 1), [retire(1), Decision::Start { count: 1 }]);
    assert_eq!(bench.started(9, 3, 3), [run(3, 3)]);
    assert_eq!(bench.idle(9, 2, 4), [retire(2)]);
}

#[test]
fn several_slots_fill_one_worker_before_the_next() {
    let mut bench = Bench::new(PoolConfig { slots: 2, ..CONFIG });
    assert_eq!(bench.arrives(0, 1, 9000), [Decision::Start { count: 1 }]);
    assert_eq!(bench.arrives(0, 2, 9000), [], "the worker on its way has two slots");
    assert_eq!(bench.started(5, 1, 5), [run(1, 1), run(2, 1)]);
    assert_eq!(bench.idle(6, 1, 1), []);
    assert_eq!(bench.arrives(6, 3, 9000), [run(3, 1)]);
}

#[test]
fn a_spoilt_worker_finishes_what_it_runs_and_then_goes() {
    let mut bench = Bench::new(PoolConfig { slots: 3, max: 2, ..CONFIG });
    bench.arrives(0, 1, 9000);
    bench.arrives(0, 2, 9000);
    assert_eq!(bench.started(5, 1, 5), [run(1, 1), run(2, 1)]);
    assert_eq!(bench.after(|pool, out| pool.on_spoilt(ms(6), WorkerId(1), out)), []);
    assert_eq!(bench.arrives(6, 3, 9000), [Decision::Start { count: 1 }], "its third slot is none any more");
    assert_eq!(bench.started(9, 2, 3), [run(3, 2)]);
    assert_eq!(bench.idle(9, 1, 4), []);
    assert_eq!(bench.arrives(9, 4, 9000), [run(4, 2)]);
    assert_eq!(bench.idle(10, 1, 5), [retire(1)]);
    bench.idle(11, 2, 2);
    bench.idle(11, 2, 2);
    assert_eq!(bench.after(|pool, out| pool.on_spoilt(ms(12), WorkerId(2), out)), [retire(2)]);
}

#[test]
fn a_spoilt_worker_holds_its_place_until_it_is_gone() {
    let mut bench = Bench::new(PoolConfig { slots: 2, max: 1, ..CONFIG });
    bench.arrives(0, 1, 9000);
    bench.started(5, 1, 5);
    bench.after(|pool, out| pool.on_spoilt(ms(6), WorkerId(1), out));
    assert_eq!(bench.arrives(6, 2, 9000), [], "one worker is all there may be");
    assert_eq!(bench.idle(7, 1, 2), [retire(1), Decision::Start { count: 1 }]);
    assert_eq!(bench.started(9, 2, 2), [run(2, 2)]);
}

/// One worker at most, busy for 500 ms, and a call with 200 ms left.
#[test]
fn a_call_that_cannot_make_it_is_refused_at_once_when_history_says_so() {
    let mut bench = Bench::new(PoolConfig { max: 1, ..CONFIG });
    bench.arrives(0, 1, 9000);
    bench.started(10, 1, 10);
    assert_eq!(bench.arrives(20, 2, 220), [], "without a history it may wait");
    assert_eq!(bench.pool.next_wake(), Some(ms(220)));
    assert_eq!(refused(&bench.timer(220)), [(2, EXPIRED)]);

    let mut bench = Bench::new(PoolConfig { max: 1, ..CONFIG });
    let now = bench.warm_up(20, 500);
    assert_eq!(bench.arrives(now, 1, now + 9000), [run(1, 1)]);
    assert_eq!(refused(&bench.arrives(now + 20, 2, now + 220)), [(2, INFEASIBLE)]);
    assert_eq!(bench.arrives(now + 20, 3, now + 1001), [], "480 ms to wait and 500 to run: it fits");
    assert_eq!(refused(&bench.arrives(now + 20, 4, now + 1400)), [(4, INFEASIBLE)], "but a second does not");
}

/// Most runs take 1 ms, one in five 5 ms; interrupting one costs its worker, whose start takes 10.
#[test]
fn a_worker_is_not_risked_for_a_call_that_ends_in_time_by_luck_only() {
    let mut bench = Bench::new(PoolConfig { max: 1, ..CONFIG });
    let mut now = bench.warm_up(80, 1);
    for _ in 0..20 {
        assert_eq!(bench.arrives(now, 9, now + 9000), [run(9, 1)]);
        now += 5;
        bench.idle(now, 1, 5);
    }
    assert_eq!(bench.arrives(now, 1, now + 9000), [run(1, 1)]);
    assert_eq!(bench.arrives(now, 2, now + 7), [], "enough for the longest");
    assert_eq!(refused(&bench.arrives(now, 3, now + 5)), [(3, INFEASIBLE)], "for four in five only");
    assert_eq!(bench.idle(now + 1, 1, 1), [run(2, 1)]);
}

#[test]
fn a_short_deadline_is_not_judged_while_nothing_runs() {
    let mut bench = Bench::new(CONFIG);
    let now = bench.warm_up(30, 500);
    assert_eq!(bench.arrives(now, 1, now + 10), [run(1, 1)], "an idle worker may as well try");
    bench.idle(now + 500, 1, 500);
    bench.timer(now + 99_000);
    assert_eq!(bench.arrives(now + 99_000, 2, now + 99_010), [Decision::Start { count: 1 }]);
}

/// The only worker becomes free with three jobs of 100 ms waiting, which have 350, 250
/// and 150 ms left, in that order of arrival.
#[test]
fn the_earliest_deadline_goes_first() {
    for callers in [[1, 1, 1], [1, 2, 3]] {
        let mut bench = Bench::new(PoolConfig { max: 1, ..CONFIG });
        let mut now = bench.warm_up(30, 100);
        assert_eq!(bench.arrives(now, 9, now + 9000), [run(9, 1)]);
        now += 100;
        for (call, left) in [(0, 350), (1, 250), (2, 150)] {
            let arrival = Arrival { caller: callers[call], ..arrival(call as u64, ms(now + left)) };
            assert_eq!(bench.after(|pool, out| pool.on_arrival(ms(now - 1), arrival, out)), []);
        }
        for call in [2, 1, 0] {
            assert_eq!(bench.idle(now, 1, 100), [run(call, 1)]);
            now += 100;
        }
    }
}

#[test]
fn a_call_that_has_waited_too_long_is_not_begun() {
    let mut bench = Bench::new(PoolConfig { max: 1, ..CONFIG });
    let now = bench.warm_up(20, 100);
    bench.arrives(now, 1, now + 9000);
    assert_eq!(bench.arrives(now, 2, now + 250), [], "100 ms to wait and 100 to run");
    assert_eq!(bench.arrives(now, 3, now + 9000), []);
    let late = bench.idle(now + 151, 1, 151);
    assert_eq!(refused(&late), [(2, INFEASIBLE)], "99 ms are left");
    assert!(late.contains(&run(3, 1)));
}

#[test]
fn a_start_happens_only_if_it_beats_the_wait() {
    let mut bench = Bench::new(CONFIG);
    let now = bench.warm_up(5, 100);
    assert_eq!(bench.arrives(now, 1, now + 9000), [run(1, 1)]);
    assert_eq!(bench.arrives(now, 2, now + 9000), [], "100 ms of wait against 300 ms of start");
    assert_eq!(bench.arrives(now, 3, now + 9000), []);
    assert_eq!(bench.arrives(now, 4, now + 9000), [], "300 against 300");
    assert_eq!(bench.arrives(now, 5, now + 9000), [Decision::Start { count: 1 }], "400 against 300");
}

#[test]
fn a_call_that_outlasts_every_estimate_does_not_hold_up_the_queue() {
    let mut bench = Bench::new(CONFIG);
    let start = bench.warm_up(5, 100);
    bench.arrives(start, 1, start + 60_000);
    assert_eq!(bench.arrives(start, 2, start + 60_000), []);
    let (mut decisions, mut now) = (Vec::new(), start);
    while decisions.is_empty() {
        let wake = bench.pool.next_wake().expect("a call waits").as_millis() as u64;
        assert!(wake > now && wake < start + 2000, "nothing was started in two seconds");
        now = wake;
        decisions = bench.timer(now);
    }
    assert_eq!(decisions, [Decision::Start { count: 1 }]);
}

#[test]
fn failed_starts_refuse_who_waits_and_pause_longer_each_time() {
    let mut bench = Bench::new(CONFIG);
    let mut now = 0;
    for (call, pause) in [(1, 100), (2, 200), (3, 400), (4, 800)] {
        assert_eq!(bench.arrives(now, call, now + 9000), [Decision::Start { count: 1 }]);
        let failed = bench.after(|pool, out| pool.on_start_failed(ms(now), out));
        assert_eq!(refused(&failed), [(call, Outcome::StartFailed)]);
        assert_eq!(refused(&bench.arrives(now + 1, 99, now + 9000)), [(99, Outcome::StartFailed)]);
        assert_eq!(bench.pool.next_wake(), None, "nobody waits, so nothing is tried");
        now += pause;
    }
    assert_eq!(bench.arrives(now, 5, now + 9000), [Decision::Start { count: 1 }]);
    assert_eq!(bench.arrives(now, 6, now + 9000), [], "one start is the probe");
    assert_eq!(bench.started(now + 5, 1, 5), [run(5, 1), Decision::Start { count: 1 }]);
}

#[test]
fn while_a_quota_is_spent_calls_without_a_worker_are_told_of_it_and_others_wait() {
    let mut bench = Bench::new(CONFIG);
    bench.arrives(0, 1, 9000);
    let denied = |bench: &mut Bench, now| {
        bench.after(|pool, out| pool.on_start_denied(ms(now), Outcome::QuotaExceeded, out))
    };
    assert_eq!(refused(&denied(&mut bench, 1)), [(1, Outcome::QuotaExceeded)]);
    // Within the pause nothing is tried; after it the next call asks anew.
    let told = bench.arrives(50, 2, 9000);
    assert_eq!(refused(&told), [(2, Outcome::QuotaExceeded)]);
    assert!(matches!(told[0], Decision::Refuse { retry_after, .. } if retry_after == ms(51)), "{told:?}");
    assert_eq!(bench.arrives(101, 3, 9000), [Decision::Start { count: 1 }]);
    assert_eq!(bench.started(110, 7, 9), [run(3, 7)]);
    // Beside a worker they wait for that.
    assert_eq!(bench.arrives(111, 4, 9000), [Decision::Start { count: 1 }]);
    assert_eq!(denied(&mut bench, 112), []);
    assert_eq!(bench.arrives(113, 5, 9000), []);
    assert_eq!(bench.idle(120, 7, 10), [run(4, 7)]);
    // What fails by itself afterwards is no quota's doing.
    bench.idle(121, 7, 1);
    bench.idle(122, 7, 1);
    bench.after(|pool, out| pool.on_gone(ms(123), WorkerId(7), out));
    bench.arrives(300, 6, 9000);
    bench.after(|pool, out| pool.on_start_failed(ms(301), out));
    assert_eq!(refused(&bench.arrives(302, 8, 9000)), [(8, Outcome::StartFailed)]);
}

#[test]
fn a_quota_is_asked_less_and_less_for_min_alone_and_soon_for_a_call() {
    let mut bench = Bench::new(PoolConfig { min: 1, ..CONFIG });
    let start = [Decision::Start { count: 1 }];
    let mut now = 0;
    for pause in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
        assert_eq!(bench.timer(now), start);
        assert_eq!(bench.after(|pool, out| pool.on_start_denied(ms(now), Outcome::QuotaExceeded, out)), []);
        assert_eq!(bench.pool.next_wake(), Some(ms(now + pause)));
        now += pause;
    }
    now -= 20_000;
    assert_eq!(bench.arrives(now, 1, now + 9000), start, "a call does not wait for that");
    assert_eq!(bench.started(now + 5, 1, 5), [run(1, 1)]);
    let again = bench.after(|pool, out| pool.on_gone(ms(now + 6), WorkerId(1), out));
    assert_eq!(again, start, "all is as before");
}

#[test]
fn starts_that_fail_together_count_once_and_spare_calls_that_others_can_serve() {
    let mut bench = Bench::new(CONFIG);
    for call in 1..=3 {
        bench.arrives(0, call, 9000);
    }
    assert_eq!(bench.after(|pool, out| pool.on_start_failed(ms(5), out)), []);
    assert_eq!(bench.after(|pool, out| pool.on_start_failed(ms(5), out)), []);
    assert_eq!(bench.pool.view(ms(5)).start_failures, 1);
    assert_eq!(bench.started(6, 1, 6), [run(1, 1), Decision::Start { count: 2 }]);
}

#[test]
fn a_worker_that_dies_before_its_first_call_is_not_restarted_at_once() {
    let mut bench = Bench::new(PoolConfig { min: 1, ..CONFIG });
    bench.timer(0);
    bench.started(5, 1, 5);
    assert_eq!(bench.after(|pool, out| pool.on_gone(ms(6), WorkerId(1), out)), []);
    assert_eq!(bench.pool.next_wake(), Some(ms(106)));
    assert_eq!(bench.timer(106), [Decision::Start { count: 1 }]);
}

#[test]
fn a_full_queue_refuses_the_lowest_class_with_the_time_to_drain() {
    let mut bench = Bench::new(PoolConfig { max: 1, queue_bound: 2, ..CONFIG });
    let now = bench.warm_up(30, 100);
    assert_eq!(bench.arrives(now, 1, now + 9000), [run(1, 1)]);
    let queue = |call, criticality| Arrival { criticality, ..arrival(call, ms(now + 9000)) };
    let mut offer = |arrival| bench.after(|pool, out| pool.on_arrival(ms(now), arrival, out));
    assert_eq!(offer(queue(2, Criticality::Sheddable)), []);
    assert_eq!(offer(queue(3, Criticality::Default)), []);
    let full = Decision::Refuse {
        call: CallId(4),
        outcome: Outcome::Shed(ShedReason::QueueFull),
        retry_after: ms(300),
    };
    assert_eq!(offer(queue(4, Criticality::Sheddable)), [full], "100 ms of the running call and 2 × 100 ms");
    assert_eq!(refused(&offer(queue(5, Criticality::Critical))), [(2, Outcome::Shed(ShedReason::Priority))]);
    assert_eq!(bench.idle(now + 100, 1, 100), [run(5, 1)]);
}

/// One worker of calls of 100 ms (so calls may wait 400), and a backlog of twelve calls of one caller.
fn with_a_backlog(config: PoolConfig) -> (Bench, u64) {
    let mut bench = Bench::new(PoolConfig { max: 1, queue_bound: 99, ..config });
    let now = bench.warm_up(30, 100);
    for call in 0..=12 {
        bench.arrives(now + call, call, now + 60_000);
    }
    (bench, now)
}

const TOO_LONG: Outcome = Outcome::Shed(ShedReason::QueueDelay);

#[test]
fn a_queue_that_stands_keeps_the_newest_and_refuses_what_would_wait_too_long() {
    let (mut bench, start) = with_a_backlog(CONFIG);
    let mut now = start;
    for call in 1..=4 {
        now += 100;
        assert_eq!(bench.idle(now, 1, 100), [run(call, 1)], "a burst is absorbed");
    }
    now += 100;
    assert_eq!(bench.idle(now, 1, 100), [run(5, 1)]);
    let wake = bench.pool.next_wake().expect("calls wait").as_millis() as u64;
    assert_eq!(wake, start + 506, "call 6 has then waited for 400 ms and for 100 more");
    let kept: Vec<_> = (9..=12).collect();
    assert_eq!(refused(&bench.timer(wake)), [(8, TOO_LONG), (7, TOO_LONG), (6, TOO_LONG)]);
    assert_eq!(bench.pool.view(ms(wake)).queued as usize, kept.len());
    assert_eq!(refused(&bench.arrives(wake, 13, wake + 60_000)), [(13, TOO_LONG)], "500 ms of wait");
    assert!(bench.pool.scaling(ms(wake)).standing);
    for call in [12, 11, 10, 9] {
        now += 100;
        let next = bench.idle(now, 1, 100);
        assert_eq!(next.first(), Some(&run(call, 1)), "the newest first: {next:?}");
    }
    assert!(!bench.pool.scaling(ms(now)).standing, "all is as before when the queue has drained");
    let told: Vec<_> = bench.pool.decisions().map(ToString::to_string).collect();
    assert!(
        told.iter().any(|line| line.starts_with("began to refuse what would wait longer than 400ms")),
        "{told:#?}"
    );
    assert!(told.iter().any(|line| line.starts_with("ended to refuse calls (default)")), "{told:#?}");
}

#[test]
fn half_of_an_objectives_slack_may_be_waited_and_critical_calls_are_not_refused_for_others() {
    let objective = Some(Objective { under: ms(300), percent: 99.0 });
    let (mut bench, start) = with_a_backlog(PoolConfig { objective, ..CONFIG });
    assert_eq!(bench.pool.scaling(ms(start)).delay_target, Some(ms(100)));
    for call in [1, 2] {
        assert_eq!(bench.idle(start + call * 100, 1, 100), [run(call, 1)]);
    }
    let late = refused(&bench.timer(start + 210));
    assert_eq!(late.len(), 9, "of ten one can run within 100 ms, the newest: {late:?}");
    let critical = Arrival { criticality: Criticality::Critical, ..arrival(99, ms(start + 60_000)) };
    for call in 0..4 {
        let critical = Arrival { call: CallId(50 + call), ..critical };
        assert_eq!(bench.after(|pool, out| pool.on_arrival(ms(start + 211), critical, out)), []);
    }
}

#[test]
fn waiting_for_starts_is_no_standing_queue() {
    let mut bench = Bench::new(PoolConfig { max: 3, ..CONFIG });
    let now = bench.warm_up(30, 10);
    bench.timer(now + 60_000);
    let now = now + 60_000;
    for call in 1..=3 {
        assert_eq!(bench.arrives(now, call, now + 9000), [Decision::Start { count: 1 }]);
    }
    assert_eq!(bench.timer(now + 299), [], "a start takes 300 ms, and calls may wait 40 for others");
    for worker in 2..=4 {
        assert_eq!(bench.started(now + 300, worker, 300), [run(worker - 1, worker)]);
    }
}

#[test]
fn a_queue_that_stands_below_max_starts_a_worker() {
    let mut bench = Bench::new(PoolConfig { max: 2, queue_bound: 99, ..CONFIG });
    let now = bench.warm_up(30, 10);
    bench.arrives(now, 1, now + 9000);
    for call in 2..=20 {
        bench.arrives(now, call, now + 9000);
    }
    let mut decisions = Vec::new();
    for at in 1..=15 {
        decisions.extend(bench.idle(now + at * 10, 1, 10));
        if bench.pool.next_wake() <= Some(ms(now + at * 10 + 5)) {
            decisions.extend(bench.timer(now + at * 10 + 5));
        }
    }
    assert!(
        decisions.contains(&Decision::Start { count: 1 }),
        "200 ms of wait, a start takes 300: {decisions:?}"
    );
    assert_eq!(refused(&decisions), []);
}

/// Calls of 100 ms, ten a second and then fifty: the size is five workers, then eleven.
#[test]
fn the_size_follows_demand_and_what_is_beyond_it_goes_within_minutes() {
    let mut bench = Bench::new(PoolConfig { max: 20, idle: AUTO_IDLE, learns: true, ..CONFIG });
    bench.warm_up(30, 100);
    let (mut now, mut call) = (10_000, 0);
    let mut calls_at = |bench: &mut Bench, count: u64, gap: u64| {
        for _ in 0..count {
            call += 1;
            bench.arrives(now, call, now + 9000);
            bench.idle(now + 99, 1, 100);
            now += gap;
        }
        now
    };
    let now = calls_at(&mut bench, 200, 100);
    bench.timer(now);
    assert_eq!(bench.pool.scaling(ms(now)).wanted, Some(5), "{:?}", bench.pool.scaling(ms(now)));
    for worker in 2..=9 {
        bench.after(|pool, out| pool.on_adopted(ms(now), WorkerId(worker), ms(3), out));
    }
    let busy: Vec<_> = (2001..=2009).flat_map(|call| bench.arrives(now, call, now + 9000)).collect();
    assert_eq!(busy.len(), 9);
    (1..=9).for_each(|worker| assert_eq!(bench.idle(now + 100, worker, 100), []));
    bench.timer(now + 62_000);
    let left = bench.pool.view(ms(now + 62_000)).idle;
    assert_eq!(left, 1, "nobody came for a minute: one is kept for who does");
    assert!(bench.pool.next_wake().is_some_and(|wake| wake > ms(now + 62_000)));
    let told: Vec<_> = bench.pool.decisions().map(ToString::to_string).collect();
    assert!(told.iter().any(|line| line.starts_with("ended ")), "{told:#?}");
}

#[test]
fn a_call_that_comes_every_half_hour_finds_a_worker_that_was_not_kept() {
    let mut bench = Bench::new(PoolConfig { idle: AUTO_IDLE, learns: true, ..CONFIG });
    let (mut now, mut worker, mut cold, mut up) = (0, 0, 0, Duration::ZERO);
    let mut there = None;
    for call in 0..40 {
        let due = call * 30 * 60_000;
        while let Some(wake) =
            bench.pool.next_wake().map(|wake| wake.as_millis() as u64).filter(|wake| *wake < due)
        {
            now = wake.max(now);
            for decision in bench.timer(now) {
                match decision {
                    Decision::Start { .. } => {
                        worker += 1;
                        bench.started(now, worker, 5);
                        there = Some(now);
                    }
                    Decision::Retire { .. } => up += ms(now - there.take().expect("one was there")),
                    other => panic!("{other:?}"),
                }
            }
        }
        now = due;
        match bench.arrives(now, call, now + 9000)[..] {
            [Decision::Run { .. }] => {}
            [Decision::Start { .. }] => {
                (cold, worker) = (cold + 1, worker + 1);
                bench.started(now, worker, 5);
                there = Some(now);
            }
            ref other => panic!("{other:?}"),
        }
        bench.idle(now, worker, 10);
    }
    assert_eq!(cold, 11, "the first, and ten until the habit is known");
    let hours = up.as_secs_f64() / 3600.0;
    assert!(hours < 4.0, "kept for {hours:.1} hours of 20, ten minutes each time would be 6.5");
}

#[test]
fn a_floor_starts_workers_and_lets_them_go() {
    let mut bench = Bench::new(PoolConfig { max: 3, ..CONFIG });
    assert_eq!(bench.pool.next_wake(), None);
    bench.pool.set_floor(ms(5), 9);
    assert_eq!(bench.timer(5), [Decision::Start { count: 3 }], "no more than max");
    (1..=3).for_each(|worker| assert_eq!(bench.started(9, worker, 4), []));
    assert_eq!(bench.timer(90_000), [], "they are kept");
    bench.pool.set_floor(ms(90_000), 1);
    assert_eq!(bench.timer(90_000), [retire(1), retire(2)]);
    let told: Vec<_> = bench.pool.decisions().map(ToString::to_string).collect();
    assert_eq!(told[0], "keeps 3 workers from here on, 0 before (0 workers there)");
    assert_eq!(told[1], "started 3 workers: fewer were there than are to be kept (0 workers there)");
    let mut one_call = Bench::new(PoolConfig { idle: Duration::ZERO, ..CONFIG });
    one_call.pool.set_floor(ms(5), 2);
    assert_eq!(one_call.timer(5), [], "none is ever kept");
}

#[test]
fn the_latest_decisions_are_kept_and_no_more() {
    let mut bench = Bench::new(CONFIG);
    for floor in 1..200 {
        bench.pool.set_floor(ms(floor * 2000), 1 + (floor % 2) as u32);
    }
    assert_eq!(bench.pool.decisions().count(), 64);
    assert_eq!(bench.pool.decisions().last().map(|entry| entry.at), Some(ms(199 * 2000)));
}

#[test]
fn a_closed_pool_hands_back_its_queue_and_lets_its_workers_finish() {
    let mut bench = Bench::new(PoolConfig { max: 3, ..CONFIG });
    for call in 1..=5 {
        bench.arrives(0, call, 9000 - call);
    }
    bench.started(5, 1, 5);
    bench.started(5, 2, 5);
    bench.idle(6, 2, 1);
    let mut out = Vec::new();
    let moved: Vec<_> = bench.pool.close(&mut out).iter().map(|arrival| arrival.call.0).collect();
    assert_eq!((moved, out), (vec![2, 1], vec![]), "5 and 4 had run, then 3");
    assert_eq!(bench.idle(7, 1, 2), [retire(1)]);
    assert_eq!(bench.started(8, 3, 8), [retire(3)]);
    assert_eq!(refused(&bench.arrives(9, 9, 9000)), [(9, Outcome::PlatformError)]);
    assert_eq!(bench.idle(9, 2, 3), [retire(2)]);
    assert_eq!(bench.pool.next_wake(), None);
}

/// Evenly spaced: 0 → 100 calls/s of a function of 1 s whose start takes 300 ms.
#[test]
fn a_step_of_even_arrivals_is_served_within_a_start_and_a_run() {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Event {
        Idle(u64),
        Started,
        Arrives(u64),
    }
    let mut pool = Pool::new(PoolConfig { max: 1000, queue_bound: 1000, ..CONFIG });
    let mut events = BinaryHeap::new();
    events.extend((0..3000).map(|call| Reverse((ms(call * 10), Event::Arrives(call)))));
    let (mut out, mut workers, mut served) = (Vec::new(), 0, 0);
    let mut slowest = Duration::ZERO;
    while let Some(Reverse((now, event))) = events.pop() {
        match event {
            Event::Arrives(call) => pool.on_arrival(now, arrival(call, now + ms(60_000)), &mut out),
            Event::Idle(worker) => pool.on_idle(now, WorkerId(worker), ms(1000), &mut out),
            Event::Started => {
                workers += 1;
                pool.on_started(now, WorkerId(workers), ms(300), &mut out);
            }
        }
        for decision in out.drain(..) {
            match decision {
                Decision::Run { call, worker } => {
                    served += 1;
                    slowest = slowest.max(now + ms(1000) - ms(call.0 * 10));
                    events.push(Reverse((now + ms(1000), Event::Idle(worker.0))));
                }
                Decision::Start { count } => {
                    events.extend((0..count).map(|_| Reverse((now + ms(300), Event::Started))));
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    assert_eq!(served, 3000);
    assert!(slowest <= ms(1300), "{slowest:?}");
    assert!(workers <= 131, "{workers} workers");
}

#[test]
fn settings_become_a_configuration() {
    let config = PoolConfig::from_settings(&Settings::default());
    assert_eq!((config.min, config.max, config.slots, config.queue_bound), (0, 16, 1, 256));
    assert_eq!(config.idle, fp_core::pool::AUTO_IDLE);
}

#[derive(Debug, Clone)]
enum Op {
    Arrive { class: usize, caller: u64, left: u64 },
    Started,
    StartFailed,
    StartDenied,
    Idle(usize),
    Gone(usize),
    Spoil(usize),
    Cancel(u64),
    Wait(u64),
    Adopt,
    Configure { min: u32, max: u32, queue_bound: u32 },
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..3usize, 0..3u64, 0..200u64).prop_map(|(class, caller, left)| Op::Arrive { class, caller, left }),
        6 => Just(Op::Started),
        1 => Just(Op::StartFailed),
        1 => Just(Op::StartDenied),
        8 => (0..8usize).prop_map(Op::Idle),
        1 => (0..8usize).prop_map(Op::Gone),
        1 => (0..8usize).prop_map(Op::Spoil),
        1 => (0..60u64).prop_map(Op::Cancel),
        6 => (0..120u64).prop_map(Op::Wait),
        1 => Just(Op::Adopt),
        1 => (0..3u32, 1..5u32, 1..7u32)
            .prop_map(|(min, max, queue_bound)| Op::Configure { min, max, queue_bound }),
        1 => Just(Op::Close),
    ]
}

fn config() -> impl Strategy<Value = PoolConfig> {
    (0..3u32, 1..5u32, 0..3u64, 1..4u32, 1..7u32).prop_map(|(min, max, idle, slots, queue_bound)| {
        PoolConfig {
            min,
            max,
            idle: ms(idle * 40),
            learns: idle == 2,
            objective: None,
            slots,
            queue_bound,
            is_led: false,
        }
    })
}

/// The world around a pool as it must look, kept apart from the pool's own books.
#[derive(Default)]
struct World {
    now: Now,
    next_worker: u64,
    /// What each worker runs, and since when.
    workers: BTreeMap<WorkerId, BTreeMap<CallId, Now>>,
    spoilt: BTreeSet<WorkerId>,
    starting: u32,
    queued: BTreeMap<CallId, Now>,
    ended: BTreeSet<CallId>,
}

impl World {
    fn carry_out(&mut self, config: &PoolConfig, decisions: &[Decision]) -> Result<(), TestCaseError> {
        for decision in decisions {
            match *decision {
                Decision::Run { call, worker } => {
                    let deadline = self.queued.remove(&call);
                    prop_assert!(
                        deadline.is_some_and(|deadline| deadline > self.now),
                        "{call:?} ran late or twice"
                    );
                    let running = self.workers.get_mut(&worker);
                    let Some(running) = running else { panic!("{worker:?} does not exist") };
                    running.insert(call, self.now);
                    prop_assert!(!self.spoilt.contains(&worker), "{worker:?} is spoilt");
                    let slots = if config.idle.is_zero() { 1 } else { config.slots };
                    prop_assert!(running.len() <= slots as usize, "{worker:?} runs too much");
                }
                Decision::Start { count } => self.starting += count,
                Decision::Retire { worker } => {
                    let running = self.workers.remove(&worker);
                    prop_assert!(
                        running.is_some_and(|running| running.is_empty()),
                        "{worker:?} was not idle"
                    );
                }
                Decision::Refuse { call, .. } => {
                    prop_assert!(
                        self.queued.remove(&call).is_some(),
                        "{call:?} was refused but did not wait"
                    );
                    self.ended.insert(call);
                }
            }
        }
        Ok(())
    }
}

#[test]
fn other_settings_keep_workers_and_what_was_learnt() {
    let before = PoolConfig { max: 4, ..PoolConfig::from_settings(&Settings::default()) };
    let mut pool = Pool::new(before);
    let mut out = Vec::new();
    for id in 0..3 {
        pool.on_adopted(ms(0), WorkerId(id), ms(3), &mut out);
    }
    let arrival =
        Arrival { call: CallId(1), criticality: Criticality::Default, caller: 0, deadline: ms(9_000) };
    pool.on_arrival(ms(1), arrival, &mut out);
    let [Decision::Run { worker: busy, .. }] = out[..] else { panic!("{out:?}") };
    out.clear();

    let fewer = PoolConfig { max: 1, ..before };
    assert!(before.can_become(&fewer) && !before.can_become(&PoolConfig { slots: 2, ..before }));
    assert!(!before.can_become(&PoolConfig { idle: Duration::ZERO, ..before }));
    pool.set_config(ms(2), fewer, &mut out);
    let retired = |out: &[Decision]| out.iter().filter(|one| matches!(one, Decision::Retire { .. })).count();
    assert_eq!((retired(&out), out.len()), (2, 2), "the idle ones go: {out:?}");
    out.clear();
    pool.on_idle(ms(10), busy, ms(9), &mut out);
    assert_eq!(out, [], "the one that there may be stays");

    pool.set_config(ms(11), PoolConfig { min: 3, max: 4, ..before }, &mut out);
    assert_eq!(out, [Decision::Start { count: 2 }]);
    assert_eq!(pool.scaling(ms(12)).run_mean, Some(ms(9)), "what was learnt stays");
    out.clear();
    pool.set_config(ms(13), fewer, &mut out);
    assert_eq!(out, [Decision::Retire { worker: busy }], "no longer wanted beside those that come");
    out.clear();
    pool.on_started(ms(14), WorkerId(8), ms(3), &mut out);
    pool.on_started(ms(15), WorkerId(9), ms(3), &mut out);
    assert_eq!(out.len(), 1, "one of two that were on their way: {out:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_the_rules_hold(config in config(), ops in prop::collection::vec(op(), 1..80)) {
        let mut pool = Pool::new(config);
        let mut config = config;
        let (mut most, mut most_queued) = (config.max as usize, config.queue_bound as usize);
        let mut world = World::default();
        let mut out = Vec::new();
        let mut calls = 0;
        let mut moved = BTreeSet::new();
        for op in ops {
            let now = world.now;
            match op {
                Op::Arrive { class, caller, left } => {
                    let criticality = [Criticality::Critical, Criticality::Default, Criticality::Sheddable][class];
                    let arrival = Arrival { call: CallId(calls), criticality, caller, deadline: now + ms(left) };
                    world.queued.insert(arrival.call, arrival.deadline);
                    calls += 1;
                    pool.on_arrival(now, arrival, &mut out);
                }
                Op::Started | Op::Adopt => {
                    let adopt = matches!(op, Op::Adopt);
                    if !adopt && world.starting == 0 {
                        continue;
                    }
                    let worker = WorkerId(world.next_worker);
                    world.next_worker += 1;
                    world.workers.insert(worker, BTreeMap::new());
                    if adopt {
                        pool.on_adopted(now, worker, ms(3), &mut out);
                    } else {
                        world.starting -= 1;
                        pool.on_started(now, worker, ms(7), &mut out);
                    }
                }
                Op::StartFailed if world.starting > 0 => {
                    world.starting -= 1;
                    pool.on_start_failed(now, &mut out);
                }
                Op::StartDenied if world.starting > 0 => {
                    world.starting -= 1;
                    pool.on_start_denied(now, Outcome::QuotaExceeded, &mut out);
                }
                Op::Idle(at) => {
                    let busy: Vec<_> = world.workers.iter_mut().filter(|(_, running)| !running.is_empty()).collect();
                    let count = busy.len();
                    let Some((worker, running)) = busy.into_iter().nth(at % count.max(1)) else { continue };
                    let (call, since) = running.pop_first().expect("it is busy");
                    world.ended.insert(call);
                    let worker = *worker;
                    pool.on_idle(now, worker, now - since, &mut out);
                }
                Op::Gone(at) => {
                    let count = world.workers.len();
                    let Some(worker) = world.workers.keys().nth(at % count.max(1)).copied() else { continue };
                    world.ended.extend(world.workers.remove(&worker).into_iter().flatten().map(|(call, _)| call));
                    pool.on_gone(now, worker, &mut out);
                }
                Op::Spoil(at) => {
                    let count = world.workers.len();
                    let Some(worker) = world.workers.keys().nth(at % count.max(1)).copied() else { continue };
                    world.spoilt.insert(worker);
                    pool.on_spoilt(now, worker, &mut out);
                }
                Op::Cancel(call) => {
                    if world.queued.remove(&CallId(call)).is_some() {
                        world.ended.insert(CallId(call));
                    }
                    pool.on_cancelled(now, CallId(call), &mut out);
                }
                Op::Wait(time) => {
                    let until = now + ms(time);
                    let mut wakes = 0;
                    while let Some(wake) = pool.next_wake().filter(|wake| *wake <= until) {
                        world.now = wake.max(world.now);
                        pool.on_timer(world.now, &mut out);
                        world.carry_out(&config, &out)?;
                        out.clear();
                        prop_assert!(pool.next_wake().is_none_or(|next| next > world.now), "woken for nothing");
                        wakes += 1;
                        prop_assert!(wakes < 400, "too many wake-ups");
                    }
                    world.now = until;
                }
                Op::Configure { min, max, queue_bound } => {
                    config = PoolConfig { min, max, queue_bound, ..config };
                    most = most.max(max as usize);
                    most_queued = most_queued.max(queue_bound as usize);
                    pool.set_config(now, config, &mut out);
                }
                Op::Close => {
                    moved.extend(pool.close(&mut out).iter().map(|arrival| arrival.call));
                    world.queued.retain(|call, _| !moved.contains(call));
                }
                Op::StartFailed | Op::StartDenied => continue,
            }
            world.carry_out(&config, &out)?;
            out.clear();

            let view = pool.view(world.now);
            let busy = world.workers.values().filter(|running| !running.is_empty()).count();
            let running: usize = world.workers.values().map(BTreeMap::len).sum();
            prop_assert_eq!(view.starting, world.starting);
            prop_assert_eq!(view.queued as usize, world.queued.len());
            prop_assert_eq!(view.running as usize, running);
            // What there is too much of after a change only becomes less.
            let workers = world.workers.len() + world.starting as usize;
            prop_assert!(workers <= most, "{workers} workers of {most}");
            most = workers.max(config.max as usize);
            let slots = if config.idle.is_zero() { 1 } else { config.slots as usize };
            if !pool.is_closed() {
                prop_assert_eq!((view.idle as usize, view.busy as usize), (world.workers.len() - busy, busy));
                let mut healthy = world.workers.iter().filter(|(worker, _)| !world.spoilt.contains(worker));
                let no_free_slot = healthy.all(|(_, running)| running.len() == slots);
                prop_assert!(world.queued.is_empty() || no_free_slot, "a call waits beside a free slot");
                let somebody_comes = !world.workers.is_empty() || world.starting > 0;
                prop_assert!(world.queued.is_empty() || somebody_comes, "calls wait for nobody");
                let lingers = |worker: &WorkerId| world.workers.get(worker).is_some_and(BTreeMap::is_empty);
                prop_assert!(!world.spoilt.iter().any(lingers), "a spoilt worker idles");
                prop_assert!(world.queued.len() <= most_queued);
                most_queued = world.queued.len().max(config.queue_bound as usize);
            }
            prop_assert!(world.queued.is_empty() || pool.next_wake().is_some(), "a deadline is due");
        }
        let running = world.workers.values().flatten().count();
        let accounted = world.queued.len() + world.ended.len() + running + moved.len();
        prop_assert_eq!(accounted as u64, calls, "every call is in one place");
    }
}
