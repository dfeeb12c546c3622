//! The workers that there are, and how each of them behaves.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use fp_core::WorkerId;
use fp_core::pool::{CallId, Now};

use crate::scenario::{Function, Pause};

/// A worker that is up.
#[derive(Debug)]
pub(super) struct Worker {
    /// When it was asked for: what it costs is counted from there.
    asked: Now,
    pub(super) born: Now,
    /// By what run times are multiplied.
    pub(super) factor: f64,
    /// When its first pause begins.
    first_pause: Now,
    /// What it runs.
    pub(super) running: Vec<CallId>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Fleet {
    workers: BTreeMap<WorkerId, Worker>,
    pause: Option<Pause>,
    slots: f64,
    /// Calls that run.
    pub(super) running: u32,
    pub(super) worker_time: Duration,
    /// What those that are gone could have run, in calls' time.
    slot_time: f64,
}

impl Fleet {
    pub(super) fn new(function: &Function, slots: u32) -> Self {
        Self {
            workers: BTreeMap::new(),
            pause: function.pause,
            slots: f64::from(slots.max(1)),
            running: 0,
            worker_time: Duration::ZERO,
            slot_time: 0.0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.workers.len()
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.get(&id)
    }

    pub(super) fn ids(&self) -> Vec<WorkerId> {
        self.workers.keys().copied().collect()
    }

    /// A worker came up; what it is like is drawn.
    pub(super) fn join(&mut self, now: Now, id: WorkerId, asked: Now, function: &Function, rng: &mut Rng) {
        let slow = function.slow_workers.filter(|slow| rng.f64() * 100.0 < slow.percent);
        let first_pause = now + self.pause.map_or(Duration::ZERO, |pause| pause.every.mul_f64(rng.f64()));
        let factor = slow.map_or(1.0, |slow| slow.factor);
        self.workers.insert(id, Worker { asked, born: now, factor, first_pause, running: Vec::new() });
    }

    pub(super) fn begin(&mut self, id: WorkerId, call: CallId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.running.push(call);
            self.running += 1;
        }
    }

    pub(super) fn end(&mut self, id: WorkerId, call: CallId) {
        if let Some(worker) = self.workers.get_mut(&id)
            && let Some(at) = worker.running.iter().position(|other| *other == call)
        {
            worker.running.swap_remove(at);
            self.running -= 1;
        }
    }

    /// A worker is no more; the calls that it ran.
    pub(super) fn bury(&mut self, now: Now, id: WorkerId) -> Vec<CallId> {
        let Some(worker) = self.workers.remove(&id) else { return Vec::new() };
        self.running -= worker.running.len() as u32;
        self.worker_time += now - worker.asked;
        self.slot_time += (now - worker.born).as_secs_f64() * self.slots;
        worker.running
    }

    /// How much of the time of those that are gone went into calls, in percent.
    pub(super) fn busy_percent(&self, worked: Duration) -> f64 {
        if self.slot_time == 0.0 { 0.0 } else { worked.as_secs_f64() / self.slot_time * 100.0 }
    }

    /// How long a run that begins now takes that would take `run` without pauses.
    pub(super) fn with_pauses(&self, now: Now, id: WorkerId, run: Duration) -> Duration {
        match (self.pause, self.workers.get(&id)) {
            (Some(pause), Some(worker)) => stretched(now, run, worker.first_pause, pause),
            _ => run,
        }
    }
}

/// A run with the pauses that fall into it.
fn stretched(now: Now, run: Duration, first: Now, pause: Pause) -> Duration {
    let (every, lasts) = (pause.every.as_nanos(), pause.lasts.as_nanos());
    let (now, run, first) = (now.as_nanos(), run.as_nanos(), first.as_nanos());
    if now + run <= first {
        return nanos(run);
    }
    // Work goes on only outside of pauses, which begin at `first` and each `every` after it.
    let before_first = first.saturating_sub(now);
    let (mut left, mut paused) = (run - before_first.min(run), 0);
    let into = now.saturating_sub(first) % every;
    if now >= first {
        let (rest_of_pause, working) = match into < lasts {
            true => (lasts - into, every - lasts),
            false => (0, every - into),
        };
        paused += rest_of_pause;
        if left <= working {
            return nanos(run + paused);
        }
        left -= working;
    }
    // Each further stretch of work is preceded by a pause.
    let stretches = left.div_ceil(every - lasts).max(1);
    nanos(run + paused + stretches * lasts)
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_longer_by_the_pauses_that_fall_into_it() {
        let ms = Duration::from_millis;
        let pause = Pause { every: ms(100), lasts: ms(10) };
        // Pauses: 50..60, 150..160, 250..260.
        for (now, run, takes) in [
            (0, 20, 20),
            (0, 50, 50),
            (0, 51, 61),
            (40, 100, 110),
            (40, 101, 121),
            (50, 5, 15),
            (55, 5, 10),
            (60, 90, 90),
            (60, 91, 101),
            (155, 90, 95),
            (155, 91, 106),
            (0, 231, 261),
        ] {
            assert_eq!(stretched(ms(now), ms(run), ms(50), pause), ms(takes), "{run} ms from {now} ms");
        }
    }
}
