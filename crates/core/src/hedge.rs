//! Hedging: when a call that runs gets a second attempt on another worker, and why not.
//!
//! One [`Hedging`] per function version, one [`Race`] per call. Whoever runs calls tells what happened
//! and is told what to do; nothing here waits or knows a worker:
//!
//! - [`Hedging::on_dispatch`] when the first attempt goes to its worker; [`Race::next_wake`] says when
//!   a second one is due, if at all, counted from that moment and not from the call's arrival;
//! - [`Hedging::on_timer`] at that time, with a closure that takes an idle warm worker
//!   ([`Pool::take_idle`](crate::pool::Pool::take_idle)): it is asked only if all else allows;
//! - [`Hedging::on_end`] for each attempt, the winner's first. The first good answer wins; an error
//!   waits for the other attempt ([`Race::waits_for_other`]); the loser is cancelled and told as
//!   [`AttemptEnd::CutOff`].
//!
//! A simulator does the same with events in place of timers. It allocates nothing until a call that
//! may be repeated has ended.

use std::time::Duration;

use crate::pool::Now;
use crate::settings::{Hedge, Latency, Settings, Slo};

mod plan;
mod race;
mod reason;
mod times;

pub use race::{Attempt, AttemptEnd, Race, Won};
pub use reason::{NotHedged, Second};

use plan::Plan;
use times::RunTimes;

/// When a second attempt is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// When it makes the objective most likely.
    Auto {
        /// What calls should take at most, from their arrival.
        objective: Duration,
    },
    /// Always so long after the first.
    Fixed(Duration),
}

/// What a version's hedging may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HedgeConfig {
    /// When a second attempt is due.
    pub delay: Delay,
    /// Second attempts per call, at most, over time.
    pub budget: f64,
    /// The share of the workers that are busy at which there are no second attempts any more.
    pub most_utilisation: f64,
}

/// Second attempts per call: what Dean and Barroso report as the price of a hedge after the 95th
/// percentile ("The Tail at Scale", 2013).
pub const BUDGET: f64 = 0.05;

/// At nine workers of ten busy a second attempt takes one that the next call would want: hedging is
/// off there, so that it cannot make an overload worse.
pub const MOST_UTILISATION: f64 = 0.9;

/// Tokens that can be saved up. Where calls want just as many second attempts as the budget gives, the
/// account is a balanced walk between 0 and this, and empty in about 1 / (2 × 100) of all cases.
const MOST_TOKENS: f64 = 100.0;

/// The part of the budget that the plan spends: the plan knows the past, and what comes slower than that
/// (a pause of the host, a slow dependency) must find tokens.
const PLANNED_PART: f64 = 0.6;

/// Runs before a delay is made of them: with 100 the 95th percentile, which is what the budget reaches,
/// has five runs above it. (tower's hedge asks for a minimum, too, and leaves it to its user.)
const TRUSTED_RUNS: u32 = 100;

/// A new plan after so many runs: it costs some microseconds, and these are 1.5 % of what it is made of.
const RUNS_PER_PLAN: u32 = 32;

/// A call's weight in the smoothed utilisation is one of this many: an average over the last half
/// hundred calls or so, which is steady to some percent with ten workers.
const SMOOTHED_OVER: f64 = 32.0;

impl HedgeConfig {
    /// As the settings ask: none where nothing is ever hedged, which is also where `auto` has no latency
    /// objective to work towards.
    pub fn of(latency: &Latency, slo: Option<&Slo>) -> Option<Self> {
        let delay = match latency.hedge {
            Hedge::Off => return None,
            Hedge::After(delay) => Delay::Fixed(delay),
            Hedge::Auto => Delay::Auto { objective: slo?.latency.as_ref()?.under },
        };
        Some(Self { delay, budget: BUDGET, most_utilisation: MOST_UTILISATION })
    }
}

/// Why a call was not hedged, as far as settings alone tell; none if it could have been.
pub fn ruled_out(settings: &Settings, verb: &str) -> Option<String> {
    if settings.latency.hedge == Hedge::Off {
        return Some("latency.hedge is off".to_owned());
    }
    if HedgeConfig::of(&settings.latency, settings.slo.as_ref()).is_none() {
        return Some(
            "there is no latency objective to work towards (slo.latency in function.toml)".to_owned(),
        );
    }
    (!settings.idempotent.allows(verb, true)).then(|| NotHedged::NotIdempotent.to_string())
}

/// How busy the workers of a version are, apart from the call that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Other calls that run.
    pub others: u32,
    /// Calls that the workers that there are can run.
    pub slots: u32,
}

impl Load {
    /// From [`Pool::load`](crate::pool::Pool::load), when the call itself is among those that run.
    pub fn beside(own: u32, (running, slots): (u32, u32)) -> Self {
        Self { others: running.saturating_sub(own), slots }
    }

    /// From 0, nothing runs besides, to 1.
    fn utilisation(self) -> f64 {
        (f64::from(self.others) / f64::from(self.slots.max(1))).min(1.0)
    }
}

/// A first attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct First {
    /// When the call came.
    pub arrived: Now,
    /// When its answer is due.
    pub deadline: Now,
    /// Its worker was started for it.
    pub is_cold: bool,
    /// The call may run twice ([`Idempotency::allows`](crate::settings::Idempotency::allows)).
    pub may_repeat: bool,
    /// How busy the workers are.
    pub load: Load,
}

/// The hedging of one function version.
#[derive(Debug)]
pub struct Hedging {
    config: HedgeConfig,
    /// How long warm attempts ran; none before the first.
    times: Option<Box<RunTimes>>,
    plan: Plan,
    /// Runs until the next plan.
    until_plan: u32,
    tokens: f64,
    /// Smoothed.
    utilisation: f64,
}

impl Hedging {
    /// Nothing is known yet, and nothing saved up.
    pub fn new(config: HedgeConfig) -> Self {
        Self { config, times: None, plan: Plan::Learning, until_plan: 0, tokens: 0.0, utilisation: 0.0 }
    }

    /// Takes over what another knows of how long the same handler runs.
    pub fn learn_from(&mut self, other: &mut Self) {
        self.times = other.times.take();
        self.utilisation = other.utilisation;
        self.tokens = other.tokens;
    }

    /// What it may do.
    pub fn config(&self) -> &HedgeConfig {
        &self.config
    }

    /// The first attempt was dispatched.
    pub fn on_dispatch(&mut self, now: Now, first: First) -> Race {
        if !first.may_repeat {
            return Race::of(now, first, Err(NotHedged::NotIdempotent));
        }
        self.utilisation += (first.load.utilisation() - self.utilisation) / SMOOTHED_OVER;
        self.tokens = (self.tokens + self.budget()).min(MOST_TOKENS);
        Race::of(now, first, self.delay(now, first))
    }

    /// The second attempt is due: takes a worker for it with `take`, if everything allows that and one
    /// is idle. What is answered is noted in the race.
    pub fn on_timer<W>(
        &mut self,
        now: Now,
        race: &mut Race,
        load: Load,
        take: impl FnOnce() -> Option<W>,
    ) -> Option<W> {
        let Ok(delay) = race.plan else { return None };
        if race.second.is_some() || race.first.is_some() {
            return None;
        }
        let utilisation = self.utilisation.max(load.utilisation());
        let mut refuse = |why| {
            race.plan = Err(why);
            None
        };
        if utilisation >= self.config.most_utilisation {
            return refuse(NotHedged::Utilisation { utilisation, most: self.config.most_utilisation });
        }
        if self.tokens < 1.0 {
            return refuse(NotHedged::BudgetSpent { delay, tokens: self.tokens, budget: self.budget() });
        }
        let Some(worker) = take() else { return refuse(NotHedged::NoIdleWorker { delay, load }) };
        self.tokens -= 1.0;
        race.second = Some(Second { began: now, delay, tokens_left: self.tokens, utilisation });
        Some(worker)
    }

    /// An attempt ended. The race knows then who won.
    pub fn on_end(&mut self, now: Now, race: &mut Race, attempt: Attempt, end: AttemptEnd) {
        let Some((began, is_warm)) = race.note_end(now, attempt, end) else { return };
        if !race.may_repeat || !is_warm {
            return;
        }
        let ran = now.saturating_sub(began);
        if attempt == Attempt::Second && end == AttemptEnd::Answered && race.won() == Some(Attempt::Second) {
            let usual = self.times.as_ref().and_then(|times| times.usual_beyond(now - race.dispatched));
            race.usually = usual;
        }
        match end {
            AttemptEnd::Answered => self.times().add_run(ran),
            AttemptEnd::CutOff => self.times().add_longer_than(ran),
            // A quick failure says nothing of how long answers take.
            AttemptEnd::Failed => return,
        }
        self.until_plan = self.until_plan.saturating_sub(1);
    }

    /// Second attempts per call at the present utilisation: B × max(0, 1 − u / u_max).
    fn budget(&self) -> f64 {
        self.config.budget * (1.0 - self.utilisation / self.config.most_utilisation).max(0.0)
    }

    fn times(&mut self) -> &mut RunTimes {
        self.times.get_or_insert_default()
    }

    /// How long after its dispatch the call's second attempt is due.
    fn delay(&mut self, now: Now, first: First) -> Result<Duration, NotHedged> {
        let delay = match self.config.delay {
            Delay::Fixed(delay) => delay,
            Delay::Auto { objective } => {
                let delay = self.planned(objective)?;
                let waited = now.saturating_sub(first.arrived);
                if waited + delay >= objective {
                    return Err(NotHedged::TooLate { waited, delay, objective });
                }
                delay
            }
        };
        match now + delay < first.deadline {
            true => Ok(delay),
            false => Err(NotHedged::DeadlineFirst { delay }),
        }
    }

    fn planned(&mut self, objective: Duration) -> Result<Duration, NotHedged> {
        let runs = self.times.as_ref().map_or(0, |times| times.runs());
        if runs < TRUSTED_RUNS {
            return Err(NotHedged::TooLittleHistory { runs, needed: TRUSTED_RUNS });
        }
        if self.until_plan == 0 {
            let budget = self.budget() * PLANNED_PART;
            let times = self.times.as_ref().expect("there are runs");
            self.plan = Plan::of(&times.survival(), objective, budget);
            self.until_plan = RUNS_PER_PLAN;
        }
        match self.plan {
            Plan::After(delay) => Ok(delay),
            Plan::Learning => Err(NotHedged::TooLittleHistory { runs, needed: TRUSTED_RUNS }),
            Plan::NothingToGain => Err(NotHedged::NothingToGain { objective, runs }),
            Plan::NoBudget => {
                let (utilisation, most) = (self.utilisation, self.config.most_utilisation);
                Err(NotHedged::Utilisation { utilisation, most })
            }
        }
    }
}
