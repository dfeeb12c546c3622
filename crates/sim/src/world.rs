//! The world around a pool: calls that arrive, workers that take their time, and a clock that
//! jumps from event to event.
//!
//! Rules of the model: a start takes a drawn time, or fails after it; a call runs a drawn time;
//! one that outlasts its deadline is interrupted then, and its worker is lost, as on the
//! platform. Events at the same time happen in the order in which they were planned. Each purpose
//! has a generator of its own, so that a change of one leaves the draws of the others alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use fastrand::Rng;
use fp_core::WorkerId;
use fp_core::outcome::{DeadlineReason, Outcome};
use fp_core::pool::{Arrival, CallId, Decision, Now, Pool};

use crate::distribution::positive_unit;
use crate::report::{Percentiles, Report, Sample, Summary, WorkerSummary};
use crate::scenario::{Process, Scenario};

/// Plays a scenario to its end.
pub fn run(scenario: &Scenario) -> Report {
    let mut world = World::new(scenario);
    for stream in 0..scenario.streams.len() {
        world.plan_arrival(stream, scenario.streams[stream].from, true);
    }
    while world.step() {}
    world.into_report()
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives { stream: usize },
    Started { asked: Now },
    StartFailed,
    Ends { call: CallId, worker: WorkerId, how: End },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Answered,
    Crashed,
    Interrupted,
}

/// A call that has not ended.
struct Call {
    stream: usize,
    arrived: Now,
    deadline: Now,
    dispatched: Now,
    is_cold: bool,
}

/// What is noted of a stream's calls.
#[derive(Default)]
struct Notes {
    offered: u64,
    cold: u64,
    failed: BTreeMap<String, u64>,
    latencies: Vec<Duration>,
    waits: Vec<Duration>,
}

struct World<'a> {
    scenario: &'a Scenario,
    pool: Pool,
    now: Now,
    events: BinaryHeap<Reverse<(Now, u64, Event)>>,
    next_serial: u64,
    next_call: u64,
    calls: BTreeMap<CallId, Call>,
    /// When each worker that there is came up.
    workers: BTreeMap<WorkerId, Now>,
    starting: u32,
    arrivals: Vec<Rng>,
    services: Rng,
    starts: Rng,
    accidents: Rng,
    notes: Vec<Notes>,
    summary: WorkerSummary,
    lived: Duration,
    worked: Duration,
    timeline: Vec<Sample>,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let mut seeds = Rng::with_seed(scenario.seed);
        let mut rng = || Rng::with_seed(seeds.u64(..));
        let (services, starts, accidents) = (rng(), rng(), rng());
        Self {
            scenario,
            pool: Pool::new(scenario.pool_config()),
            now: Now::ZERO,
            events: BinaryHeap::new(),
            next_serial: 0,
            next_call: 0,
            calls: BTreeMap::new(),
            workers: BTreeMap::new(),
            starting: 0,
            arrivals: scenario.streams.iter().map(|_| rng()).collect(),
            services,
            starts,
            accidents,
            notes: scenario.streams.iter().map(|_| Notes::default()).collect(),
            summary: WorkerSummary::default(),
            lived: Duration::ZERO,
            worked: Duration::ZERO,
            timeline: Vec::new(),
        }
    }

    /// Lets the next thing happen; false when all calls have arrived and ended.
    fn step(&mut self) -> bool {
        let planned = self.events.peek().map(|Reverse((at, ..))| *at);
        let wake = self.pool.next_wake();
        let has_work = !self.calls.is_empty() || self.now < self.scenario.duration;
        let Some(next) = planned.into_iter().chain(wake).min().filter(|_| has_work) else { return false };
        if self.calls.is_empty() && next >= self.scenario.duration {
            self.sample_until(self.scenario.duration);
            return false;
        }
        self.sample_until(next);
        self.now = self.now.max(next);
        let mut decisions = Vec::new();
        match self.events.pop_if_due(planned == Some(next)) {
            Some(event) => self.happen(event, &mut decisions),
            None => self.pool.on_timer(self.now, &mut decisions),
        }
        for decision in decisions {
            self.carry_out(decision);
        }
        self.summary.most = self.summary.most.max(self.workers.len() as u32 + self.starting);
        true
    }

    fn happen(&mut self, event: Event, out: &mut Vec<Decision>) {
        let now = self.now;
        match event {
            Event::Arrives { stream } => self.arrive(stream, out),
            Event::Started { asked } => {
                self.starting -= 1;
                self.summary.started += 1;
                let worker = WorkerId(self.summary.started);
                self.workers.insert(worker, now);
                self.pool.on_started(now, worker, now - asked, out);
            }
            Event::StartFailed => {
                self.starting -= 1;
                self.summary.failed_starts += 1;
                self.pool.on_start_failed(now, out);
            }
            Event::Ends { call, worker, how } => self.end(call, worker, how, out),
        }
    }

    fn arrive(&mut self, stream: usize, out: &mut Vec<Decision>) {
        let settings = &self.scenario.streams[stream];
        let id = CallId(self.next_call);
        self.next_call += 1;
        self.notes[stream].offered += 1;
        let deadline = self.now + settings.deadline;
        let call = Call { stream, arrived: self.now, deadline, dispatched: self.now, is_cold: false };
        self.calls.insert(id, call);
        let arrival =
            Arrival { call: id, criticality: settings.criticality, caller: stream as u64, deadline };
        self.plan_arrival(stream, self.now, false);
        self.pool.on_arrival(self.now, arrival, out);
    }

    fn end(&mut self, id: CallId, worker: WorkerId, how: End, out: &mut Vec<Decision>) {
        let Some(call) = self.calls.remove(&id) else { return };
        let ran = self.now - call.dispatched;
        self.worked += ran;
        let notes = &mut self.notes[call.stream];
        match how {
            End::Answered => {
                notes.cold += u64::from(call.is_cold);
                notes.latencies.push(self.now - call.arrived);
                notes.waits.push(call.dispatched - call.arrived);
                return self.pool.on_idle(self.now, worker, ran, out);
            }
            End::Crashed => notes.fail(Outcome::Crashed),
            End::Interrupted => notes.fail(Outcome::DeadlineExceeded(DeadlineReason::ExpiredRunning)),
        }
        self.bury(worker);
        self.summary.lost += 1;
        self.pool.on_gone(self.now, worker, out);
    }

    fn carry_out(&mut self, decision: Decision) {
        match decision {
            Decision::Run { call, worker } => self.dispatch(call, worker),
            Decision::Start { count } => (0..count).for_each(|_| self.start()),
            Decision::Retire { worker } => {
                self.bury(worker);
                self.summary.retired += 1;
            }
            Decision::Refuse { call, outcome, .. } => {
                if let Some(call) = self.calls.remove(&call) {
                    self.notes[call.stream].fail(outcome);
                }
            }
        }
    }

    fn dispatch(&mut self, id: CallId, worker: WorkerId) {
        let function = &self.scenario.function;
        let service = function.service.sample(&mut self.services);
        let crashes = self.accidents.f64() * 100.0 < function.crash_percent;
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.dispatched = self.now;
        call.is_cold = self.workers.get(&worker) == Some(&self.now) && self.now > call.arrived;
        let left = call.deadline - self.now;
        let how = match crashes {
            _ if service > left => End::Interrupted,
            true => End::Crashed,
            false => End::Answered,
        };
        self.plan(self.now + service.min(left), Event::Ends { call: id, worker, how });
    }

    fn start(&mut self) {
        let function = &self.scenario.function;
        let took = function.start.sample(&mut self.starts);
        let fails = self.accidents.f64() * 100.0 < function.start_failure_percent;
        self.starting += 1;
        let event = if fails { Event::StartFailed } else { Event::Started { asked: self.now } };
        self.plan(self.now + took, event);
    }

    fn plan_arrival(&mut self, stream: usize, after: Now, is_first: bool) {
        let settings = &self.scenario.streams[stream];
        let gap = match settings.process {
            Process::Even if is_first => Duration::ZERO,
            Process::Even => Duration::from_secs_f64(1.0 / settings.rate),
            Process::Poisson => {
                Duration::from_secs_f64(-positive_unit(&mut self.arrivals[stream]).ln() / settings.rate)
            }
        };
        if after + gap < settings.until(self.scenario) {
            self.plan(after + gap, Event::Arrives { stream });
        }
    }

    fn plan(&mut self, at: Now, event: Event) {
        self.events.push(Reverse((at, self.next_serial, event)));
        self.next_serial += 1;
    }

    fn bury(&mut self, worker: WorkerId) {
        if let Some(born) = self.workers.remove(&worker) {
            self.lived += self.now - born;
        }
    }

    /// Notes the pool as it is, for every whole second up to and including `time`.
    fn sample_until(&mut self, time: Now) {
        while self.timeline.len() as u64 <= time.min(self.scenario.duration).as_secs() {
            let view = self.pool.view(self.now);
            self.timeline.push(Sample {
                second: self.timeline.len() as u64,
                idle: view.idle,
                busy: view.busy,
                starting: view.starting,
                queued: view.queued,
            });
        }
    }

    fn into_report(mut self) -> Report {
        let still_up: Vec<_> = self.workers.keys().copied().collect();
        still_up.into_iter().for_each(|worker| self.bury(worker));
        if !self.lived.is_zero() {
            let slots = f64::from(self.scenario.pool_config().slots);
            let share = self.worked.as_secs_f64() / self.lived.as_secs_f64() / slots;
            self.summary.busy_percent = (share * 1e5).round() / 1e3;
        }
        // The queue of the last second is still served afterwards: that is time, too.
        let seconds = self.now.max(self.scenario.duration).as_secs_f64();
        let mut all = Notes::default();
        let mut streams = Vec::new();
        for (stream, notes) in self.scenario.streams.iter().zip(self.notes) {
            all.add(&notes);
            streams.push(notes.summarise(&stream.name, seconds));
        }
        Report {
            scenario: self.scenario.name.clone(),
            seed: self.scenario.seed,
            seconds: self.scenario.duration.as_secs_f64(),
            total: all.summarise("total", seconds),
            streams,
            workers: self.summary,
            timeline: self.timeline,
        }
    }
}

/// Taking the next event only if it is its turn.
trait PopIfDue {
    fn pop_if_due(&mut self, is_due: bool) -> Option<Event>;
}

impl PopIfDue for BinaryHeap<Reverse<(Now, u64, Event)>> {
    fn pop_if_due(&mut self, is_due: bool) -> Option<Event> {
        if !is_due {
            return None;
        }
        self.pop().map(|Reverse((_, _, event))| event)
    }
}

impl Notes {
    fn fail(&mut self, outcome: Outcome) {
        let name = match outcome.reason() {
            Some(reason) => format!("{} ({reason})", outcome.word()),
            None => outcome.word().to_owned(),
        };
        *self.failed.entry(name).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.cold += other.cold;
        self.latencies.extend(&other.latencies);
        self.waits.extend(&other.waits);
        for (name, count) in &other.failed {
            *self.failed.entry(name.clone()).or_default() += count;
        }
    }

    fn summarise(mut self, name: &str, seconds: f64) -> Summary {
        let answered = self.latencies.len() as u64;
        Summary {
            name: name.to_owned(),
            offered: self.offered,
            answered,
            answered_per_second: (answered as f64 / seconds * 1e3).round() / 1e3,
            cold: self.cold,
            failed: self.failed,
            latency_ms: Percentiles::of(&mut self.latencies),
            wait_ms: Percentiles::of(&mut self.waits),
        }
    }
}
