//! How many workers a version may have, and how long they are kept.

use std::time::Duration;

use crate::settings::{IdleTime, LatencyObjective, Settings};

/// A latency objective as the pool reckons with it.
pub type Objective = LatencyObjective;

/// How many workers, and how much waiting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PoolConfig {
    /// Workers kept warm.
    pub min: u32,
    /// Most workers at once, starting ones included; at least 1.
    pub max: u32,
    /// How long an idle worker beyond `min` is kept; zero means that a worker serves one call
    /// and none is kept, whatever `min` and `slots` say.
    pub idle: Duration,
    /// Whether `idle` is but what holds until the pauses between calls tell more, and workers that the
    /// calls do not need go sooner.
    pub learns: bool,
    /// What its calls are to take: bounds their wait, and with it how many workers they need.
    pub objective: Option<Objective>,
    /// Calls at once in one worker; at least 1.
    pub slots: u32,
    /// Most calls in the queue.
    pub queue_bound: u32,
    /// Whether somebody else says how many workers there are to be, by [`set_floor`](super::Pool::set_floor): none is
    /// started beyond that, idle ones beyond go at once, and the queue's delay is not bounded. So the simulator compares with other scalers.
    pub is_led: bool,
}

/// How long an idle worker is kept when the author leaves it to the platform: ten minutes, as
/// AWS and OpenWhisk keep theirs. Of the public clouds' functions 81 % are called less than once
/// a minute and 45 % less than once an hour (Shahrad et al., ATC 2020): this keeps the former
/// warm without holding memory for the latter.
pub const AUTO_IDLE: Duration = Duration::from_secs(600);

/// How long the worker in which a deploy loaded its handler is kept while nobody calls: time to
/// try out what was just deployed. Whoever deploys many functions calls few of them at once, and
/// each such worker holds some megabytes; after a restart none of them is there either.
pub const UNCALLED_IDLE: Duration = Duration::from_secs(60);

impl PoolConfig {
    /// The same, where what contradicts itself is as it is acted on.
    pub(super) fn as_acted_on(self) -> Self {
        let one_call = self.idle.is_zero();
        Self {
            min: if one_call { 0 } else { self.min.min(self.max.max(1)) },
            max: self.max.max(1),
            slots: if one_call { 1 } else { self.slots.max(1) },
            queue_bound: self.queue_bound.max(1),
            ..self
        }
    }

    /// Whether a pool that acts on this can go on with `other` and the workers that it has: they take as
    /// many calls at once, and one after the other or not.
    pub fn can_become(&self, other: &Self) -> bool {
        let (this, other) = (self.as_acted_on(), other.as_acted_on());
        this.slots == other.slots && this.idle.is_zero() == other.idle.is_zero()
    }

    /// What a function's settings ask for.
    pub fn from_settings(settings: &Settings) -> Self {
        let scaling = &settings.scaling;
        let slots = settings.concurrency;
        Self {
            min: scaling.min,
            max: scaling.max,
            idle: match scaling.idle {
                IdleTime::Auto => AUTO_IDLE,
                IdleTime::After(idle) => idle,
            },
            learns: scaling.idle == IdleTime::Auto,
            objective: settings.slo.as_ref().and_then(|slo| slo.latency),
            slots,
            // Ten calls per slot wait ten service times at worst; the floor lets a burst of a
            // few hundred meet a small pool.
            queue_bound: scaling.max.saturating_mul(slots).saturating_mul(10).clamp(256, 10_000),
            is_led: false,
        }
    }
}
