//! The world around a pool: calls that arrive, workers that take their time, and a clock that
//! jumps from event to event.
//!
//! Rules of the model: a start takes a drawn time, or fails after it; a call runs a drawn time;
//! one that outlasts its deadline is interrupted then, and so is an attempt that lost a race; the
//! worker of an interrupted call is lost, as on the platform (unless workers run several calls at
//! once: then only the call is). Events at the same time happen in the order in which they were
//! planned. Each purpose has a generator of its own, and what a call is like is drawn when it
//! comes, so that two runs differ by what was decided and not by chance.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use fastrand::Rng;
use fp_core::WorkerId;
use fp_core::hedge::{AttemptEnd, First, HedgeConfig, Hedging, Load, Race};
use fp_core::outcome::{DeadlineReason, Outcome};
use fp_core::outlier::Ended;
use fp_core::pool::{Arrival, CallId, Decision, Now, Pool};

use crate::report::Report;
use crate::scenario::{Incident, Interrupted, Scaler, Scenario};

mod arrivals;
mod calls;
mod fleet;
mod health;
mod knative;
mod ledger;
mod tally;

use arrivals::{Arrivals, Arriving};
use calls::{Attempt, Call, Calls};
use fleet::Fleet;
use health::Health;
use knative::Knative;
use ledger::Ledger;

/// Plays a scenario to its end.
pub fn run(scenario: &Scenario) -> Report {
    let mut world = World::new(scenario);
    (0..scenario.warm).for_each(|_| world.adopt());
    for stream in 0..scenario.streams.len() {
        world.plan_arrival(stream);
    }
    while world.step() {}
    world.into_report()
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives { stream: u32, caller: u32, service: Option<Duration> },
    Started { asked: Now },
    StartFailed { asked: Now },
    Ends { call: CallId, worker: WorkerId, how: End },
    Hedges { call: CallId },
    Leaves { call: CallId },
    Dies { worker: WorkerId },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Answered,
    Failed,
    Crashed,
    Interrupted,
}

struct World<'a> {
    scenario: &'a Scenario,
    slots: u32,
    pool: Pool,
    hedging: Option<Hedging>,
    health: Health,
    /// Says how many workers there are, if not the pool itself.
    scaler: Option<Knative>,
    now: Now,
    events: BinaryHeap<Reverse<(Now, u64, Event)>>,
    next_serial: u64,
    calls: Calls,
    fleet: Fleet,
    starting: u32,
    arrivals: Vec<Arrivals<'a>>,
    /// Whom the queue is fair between, for each stream's first caller.
    callers: Vec<u64>,
    services: Rng,
    starts: Rng,
    accidents: Rng,
    patience: Rng,
    seconds: Rng,
    ledger: Ledger<'a>,
    /// Kept to save an allocation per event.
    decisions: Vec<Decision>,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let mut seeds = Rng::with_seed(scenario.seed);
        let mut rng = || Rng::with_seed(seeds.u64(..));
        let (services, starts, accidents, patience, seconds) = (rng(), rng(), rng(), rng(), rng());
        let settings = &scenario.settings;
        let pool = Pool::new(scenario.pool_config());
        let slots = pool.slots();
        Self {
            scenario,
            slots,
            pool,
            hedging: HedgeConfig::of(&settings.latency, settings.slo.as_ref()).map(Hedging::new),
            health: Health::default(),
            scaler: (scenario.scaler == Scaler::Knative).then(|| Knative::new(slots)),
            now: Now::ZERO,
            events: BinaryHeap::new(),
            next_serial: 0,
            calls: Calls::default(),
            fleet: Fleet::new(&scenario.function, slots),
            starting: 0,
            arrivals: scenario.streams.iter().map(|it| Arrivals::new(scenario, it, rng())).collect(),
            callers: callers(scenario),
            services,
            starts,
            accidents,
            patience,
            seconds,
            ledger: Ledger::new(scenario),
            decisions: Vec::new(),
        }
    }

    /// Lets the next thing happen; false when all calls have arrived and ended.
    fn step(&mut self) -> bool {
        let planned = self.events.peek().map(|Reverse((at, ..))| *at);
        let end = self.scenario.duration;
        let has_work = !self.calls.is_empty() || self.now < end;
        let scales = self.scaler.as_ref().map(Knative::next_wake);
        let looks = [planned, self.pool.next_wake(), scales];
        let next = looks.into_iter().flatten().min().filter(|_| has_work);
        let Some(next) = next.filter(|next| !self.calls.is_empty() || *next < end) else {
            self.pass(self.now.max(end));
            return false;
        };
        self.pass(next.max(self.now));
        let mut decisions = std::mem::take(&mut self.decisions);
        match planned == Some(next) {
            true => {
                if let Some(Reverse((_, _, event))) = self.events.pop() {
                    self.happen(event, &mut decisions);
                }
            }
            false => {
                if scales == Some(next) {
                    self.scale();
                }
                self.pool.on_timer(self.now, &mut decisions);
            }
        }
        decisions.drain(..).for_each(|decision| self.carry_out(decision));
        self.decisions = decisions;
        self.ledger.workers.most = self.ledger.workers.most.max(self.fleet.len() as u32 + self.starting);
        true
    }

    /// Time passes while nothing happens.
    fn pass(&mut self, until: Now) {
        let waiting = self.calls.len().saturating_sub(self.fleet.running);
        self.ledger.pass(self.now, until, self.fleet.running, waiting);
        if let Some(scaler) = &mut self.scaler {
            scaler.pass(self.now, until, self.calls.len());
        }
        while let Some(at) = self.ledger.next_sample().filter(|at| *at <= until) {
            self.ledger.sample(at, self.pool.view(self.now));
        }
        self.now = until;
    }

    fn happen(&mut self, event: Event, out: &mut Vec<Decision>) {
        match event {
            Event::Arrives { stream, caller, service } => self.arrive(stream, caller, service, out),
            Event::Started { asked } => self.join(asked, out),
            Event::StartFailed { asked } => {
                self.starting -= 1;
                self.ledger.workers.failed_starts += 1;
                self.fleet.worker_time += self.now - asked;
                self.pool.on_start_failed(self.now, out);
            }
            Event::Ends { call, worker, how } => self.end(call, worker, how, out),
            Event::Hedges { call } => self.hedge(call),
            Event::Leaves { call } => self.leave(call, out),
            Event::Dies { worker } => self.lose(worker, out),
        }
    }

    fn arrive(&mut self, stream: u32, caller: u32, service: Option<Duration>, out: &mut Vec<Decision>) {
        let settings = &self.scenario.streams[stream as usize];
        let timeout = self.scenario.settings.timeout;
        let given = settings.deadline.unwrap_or(timeout);
        let deadline = self.now + given.min(timeout);
        let is_short = given < timeout;
        let model = settings.service.as_ref().unwrap_or(&self.scenario.function.service);
        let entered = self.health.enter(self.now);
        let id = self.calls.push(Call {
            stream,
            arrived: self.now,
            deadline,
            is_short,
            is_probe: entered == Some(true),
            service: service.unwrap_or_else(|| model.sample(&mut self.services)),
            fate: self.services.f64() * 100.0,
            dispatched: self.now,
            first: None,
            second: None,
            race: None,
        });
        self.ledger.offer(self.now, stream as usize);
        self.plan_arrival(stream as usize);
        if entered.is_none() {
            return self.refuse(id, health::BROKEN);
        }
        if let Some(patience) = &settings.patience {
            let leaves = self.now + patience.sample(&mut self.patience);
            self.plan(leaves, Event::Leaves { call: id });
        }
        let arrival = Arrival {
            call: id,
            criticality: settings.criticality.unwrap_or(self.scenario.settings.criticality),
            caller: self.callers[stream as usize] + u64::from(caller),
            deadline,
        };
        if self.fleet.len() == 0 && self.starting == 0 {
            self.scale();
        }
        self.pool.on_arrival(self.now, arrival, out);
    }

    /// Asks whoever else says how many workers there are.
    fn scale(&mut self) {
        let Some(scaler) = &mut self.scaler else { return };
        let wanted = match self.fleet.len() as u32 {
            0 if !self.calls.is_empty() => scaler.poke(self.now),
            ready => scaler.decide(self.now, ready),
        };
        self.pool.set_floor(self.now, wanted.max(self.scenario.settings.scaling.min));
    }

    /// A worker that is there from the beginning.
    fn adopt(&mut self) {
        let took = self.scenario.function.start.sample(&mut self.starts);
        let worker = self.welcome(self.now);
        let mut decisions = Vec::new();
        self.pool.on_adopted(self.now, worker, took, &mut decisions);
        decisions.into_iter().for_each(|decision| self.carry_out(decision));
    }

    fn join(&mut self, asked: Now, out: &mut Vec<Decision>) {
        self.starting -= 1;
        let worker = self.welcome(asked);
        self.pool.on_started(self.now, worker, self.now - asked, out);
    }

    /// A worker is up that was asked for at `asked`.
    fn welcome(&mut self, asked: Now) -> WorkerId {
        self.ledger.workers.started += 1;
        let worker = WorkerId(self.ledger.workers.started);
        let function = &self.scenario.function;
        self.fleet.join(self.now, worker, asked, function, &mut self.starts);
        if let Some(life) = &function.worker_life {
            let dies = self.now + life.sample(&mut self.starts);
            self.plan(dies, Event::Dies { worker });
        }
        worker
    }

    /// An attempt ended by itself or at its deadline.
    fn end(&mut self, id: CallId, worker: WorkerId, how: End, out: &mut Vec<Decision>) {
        let Some((ended, other)) = self.conclude(id, worker, how) else { return };
        self.fleet.end(worker, id);
        let ran = self.now - ended.since;
        match how {
            End::Answered | End::Failed => {
                let ended = Ended { worker, failed: how == End::Failed, ran };
                match self.health.is_odd(self.now, ended) {
                    true => self.eject(worker, ran, out),
                    false => self.pool.on_idle(self.now, worker, ran, out),
                }
            }
            End::Interrupted if self.keeps_interrupted() => self.pool.on_idle(self.now, worker, ran, out),
            End::Interrupted | End::Crashed => self.lose(worker, out),
        }
        if let Some(other) = other {
            self.interrupt(id, other, out);
        }
    }

    /// What the end of an attempt means for its call: the attempt, and the other one if that is to be
    /// interrupted. None if it was interrupted before.
    fn conclude(&mut self, id: CallId, worker: WorkerId, how: End) -> Option<(Attempt, Option<Attempt>)> {
        let call = self.calls.get_mut(id)?;
        let (which, ended) = call.take_on(worker)?;
        self.ledger.ran(which, self.now - ended.since);
        let end = match how {
            End::Answered => AttemptEnd::Answered,
            End::Failed | End::Crashed => AttemptEnd::Failed,
            End::Interrupted => AttemptEnd::CutOff,
        };
        if let (Some(hedging), Some(race)) = (&mut self.hedging, &mut call.race) {
            hedging.on_end(self.now, race, which, end);
            if race.waits_for_other(which, end) {
                return Some((ended, None));
            }
        }
        let mut call = self.calls.take(id)?;
        let other = self.cut_off(&mut call);
        let outcome = match how {
            End::Answered => Outcome::Ok,
            End::Failed => Outcome::FunctionError,
            End::Crashed => Outcome::Crashed,
            End::Interrupted => call.missed(),
        };
        match outcome {
            Outcome::Ok => self.ledger.answer(self.now, &call, ended),
            failure => self.ledger.fail(&call, failure),
        }
        self.health.note(self.now, call.is_probe, outcome, Some(worker));
        Some((ended, other))
    }

    /// A worker has ended its call, and is not to be used again.
    fn eject(&mut self, worker: WorkerId, ran: Duration, out: &mut Vec<Decision>) {
        self.ledger.workers.ejected += 1;
        match self.slots > 1 {
            true => {
                self.pool.on_spoilt(self.now, worker, out);
                self.pool.on_idle(self.now, worker, ran, out);
            }
            false => self.lose(worker, out),
        }
    }

    /// Takes an attempt that is not to run any longer.
    fn cut_off(&mut self, call: &mut Call) -> Option<Attempt> {
        let (which, attempt) = call.take_any()?;
        self.ledger.ran(which, self.now - attempt.since);
        if let (Some(hedging), Some(race)) = (&mut self.hedging, &mut call.race) {
            hedging.on_end(self.now, race, which, AttemptEnd::CutOff);
        }
        Some(attempt)
    }

    /// Ends what a worker still does for a call.
    fn interrupt(&mut self, id: CallId, attempt: Attempt, out: &mut Vec<Decision>) {
        self.fleet.end(attempt.worker, id);
        match self.keeps_interrupted() {
            true => self.pool.on_idle(self.now, attempt.worker, self.now - attempt.since, out),
            false => self.lose(attempt.worker, out),
        }
    }

    /// Whether a worker goes on whose call was interrupted.
    fn keeps_interrupted(&self) -> bool {
        self.slots > 1 || self.scenario.function.interrupted == Interrupted::Kept
    }

    /// The caller has had enough.
    fn leave(&mut self, id: CallId, out: &mut Vec<Decision>) {
        let Some(mut call) = self.calls.take(id) else { return };
        if call.first.is_none() && call.second.is_none() {
            self.pool.on_cancelled(self.now, id, out);
        }
        while let Some(attempt) = self.cut_off(&mut call) {
            self.interrupt(id, attempt, out);
        }
        self.ledger.fail(&call, Outcome::Cancelled);
        self.health.note(self.now, call.is_probe, Outcome::Cancelled, None);
    }

    /// A worker is no more, and what it still ran has crashed.
    fn lose(&mut self, worker: WorkerId, out: &mut Vec<Decision>) {
        if self.fleet.get(worker).is_none() {
            return;
        }
        self.ledger.workers.lost += 1;
        let ran = self.fleet.bury(self.now, worker);
        self.health.forget(worker);
        self.pool.on_gone(self.now, worker, out);
        for id in ran {
            if let Some((_, Some(other))) = self.conclude(id, worker, End::Crashed) {
                self.interrupt(id, other, out);
            }
        }
    }

    fn carry_out(&mut self, decision: Decision) {
        match decision {
            Decision::Run { call, worker } => self.dispatch(call, worker),
            Decision::Start { count } => (0..count).for_each(|_| self.start()),
            Decision::Retire { worker } => {
                self.fleet.bury(self.now, worker);
                self.health.forget(worker);
                self.ledger.workers.retired += 1;
            }
            Decision::Refuse { call, outcome, .. } => self.refuse(call, outcome),
        }
    }

    /// A call ends without having run.
    fn refuse(&mut self, id: CallId, outcome: Outcome) {
        if let Some(call) = self.calls.take(id) {
            self.ledger.fail(&call, outcome);
            self.health.note(self.now, call.is_probe, outcome, None);
        }
    }

    fn dispatch(&mut self, id: CallId, worker: WorkerId) {
        let now = self.now;
        let load = Load::beside(1, self.pool.load());
        let Some(call) = self.calls.get_mut(id) else { return };
        let born = self.fleet.get(worker).map(|worker| worker.born);
        let is_cold = born == Some(now) && now > call.arrived;
        let attempt = Attempt { worker, since: now, is_cold };
        call.dispatched = now;
        call.first = Some(attempt);
        let stream = &self.scenario.streams[call.stream as usize];
        let may_repeat = self.scenario.settings.idempotent.allows(&stream.verb, stream.idempotency_key);
        let first = First { arrived: call.arrived, deadline: call.deadline, is_cold, may_repeat, load };
        call.race = self.hedging.as_mut().map(|hedging| hedging.on_dispatch(now, first));
        let due = call.race.as_ref().and_then(Race::next_wake);
        let (service, fate, deadline) = (call.service, call.fate, call.deadline);
        self.begin(id, attempt, service, fate, deadline);
        if let Some(due) = due {
            self.plan(due, Event::Hedges { call: id });
        }
    }

    /// A second attempt is due.
    fn hedge(&mut self, id: CallId) {
        let now = self.now;
        let load = Load::beside(1, self.pool.load());
        let (Some(hedging), Some(call)) = (&mut self.hedging, self.calls.get_mut(id)) else { return };
        let Some(race) = &mut call.race else { return };
        let pool = &mut self.pool;
        let Some(worker) = hedging.on_timer(now, race, load, || pool.take_idle(now)) else { return };
        let attempt = Attempt { worker, since: now, is_cold: false };
        call.second = Some(attempt);
        let deadline = call.deadline;
        let stream = &self.scenario.streams[call.stream as usize];
        let model = stream.service.as_ref().unwrap_or(&self.scenario.function.service);
        let service = model.sample(&mut self.seconds);
        let fate = self.seconds.f64() * 100.0;
        self.begin(id, attempt, service, fate, deadline);
    }

    /// An attempt begins that would run so long by itself.
    fn begin(&mut self, id: CallId, attempt: Attempt, service: Duration, fate: f64, deadline: Now) {
        let (scenario, now, worker) = (self.scenario, self.now, attempt.worker);
        let left = deadline - now;
        let incident = scenario.incidents.iter().rev().find(|incident| incident.is_on(now));
        let factor = incident.map_or(1.0, |incident| incident.factor)
            * self.fleet.get(worker).map_or(1.0, |worker| worker.factor);
        let service = if factor == 1.0 { service } else { service.mul_f64(factor) };
        let service = self.fleet.with_pauses(now, worker, service);
        let how = match fate_of(scenario, incident, fate) {
            None => End::Interrupted,
            Some(_) if service > left => End::Interrupted,
            Some(how) => how,
        };
        let ends = if how == End::Interrupted { left } else { service };
        self.fleet.begin(worker, id);
        self.plan(now + ends, Event::Ends { call: id, worker, how });
    }

    fn start(&mut self) {
        let function = &self.scenario.function;
        let incident = self.scenario.incidents.iter().rev().find(|incident| incident.is_on(self.now));
        let share = incident.and_then(|incident| incident.start_failure_percent);
        let took = function.start.sample(&mut self.starts);
        let fails = self.accidents.f64() * 100.0 < share.unwrap_or(function.start_failure_percent);
        self.starting += 1;
        let asked = self.now;
        self.plan(asked + took, if fails { Event::StartFailed { asked } } else { Event::Started { asked } });
    }

    fn plan_arrival(&mut self, stream: usize) {
        if let Some(Arriving { at, service, caller }) = self.arrivals[stream].next() {
            self.plan(at, Event::Arrives { stream: stream as u32, caller, service });
        }
    }

    fn plan(&mut self, at: Now, event: Event) {
        self.events.push(Reverse((at, self.next_serial, event)));
        self.next_serial += 1;
    }

    fn into_report(mut self) -> Report {
        for worker in self.fleet.ids() {
            self.fleet.bury(self.now, worker);
        }
        self.ledger.into_report(self.now, &self.fleet)
    }
}

/// How a run ends that is not late; none if it never does.
fn fate_of(scenario: &Scenario, incident: Option<&Incident>, fate: f64) -> Option<End> {
    let function = &scenario.function;
    let or = |changed: fn(&Incident) -> Option<f64>, usual: f64| incident.and_then(changed).unwrap_or(usual);
    let stuck = or(|incident| incident.stuck_percent, function.stuck_percent);
    let crash = stuck + or(|incident| incident.crash_percent, function.crash_percent);
    let error = crash + or(|incident| incident.error_percent, function.error_percent);
    match fate {
        fate if fate < stuck => None,
        fate if fate < crash => Some(End::Crashed),
        fate if fate < error => Some(End::Failed),
        _ => Some(End::Answered),
    }
}

/// Whom the queue is fair between: streams of one tenant are one, others each for themselves.
fn callers(scenario: &Scenario) -> Vec<u64> {
    let streams = &scenario.streams;
    let place = |at: usize| {
        let stream = &streams[at];
        let first_of_tenant = || streams.iter().position(|other| other.tenant == stream.tenant);
        let shared = stream.tenant.is_some() && stream.callers == 1;
        let at = if shared { first_of_tenant().unwrap_or(at) } else { at };
        ((at as u64) << 33) | (u64::from(shared) << 32)
    };
    (0..streams.len()).map(place).collect()
}

impl Call {
    /// What a call ends as whose time is over while it runs.
    fn missed(&self) -> Outcome {
        match self.is_short {
            true => Outcome::DeadlineExceeded(DeadlineReason::ExpiredRunning),
            false => Outcome::Timeout,
        }
    }
}
