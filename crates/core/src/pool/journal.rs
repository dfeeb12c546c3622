//! The latest decisions of a pool with what they were made from, for `explain scaling`.
//!
//! Numbers, not sentences: they are put into words when somebody asks. Memory is taken with the first
//! decision, and calls that find a worker are none.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{Choice, Now, Pool};
use crate::outcome::Outcome;
use crate::settings::{Criticality, show_duration};

/// Decisions that are kept: some minutes of a function whose demand changes.
const KEPT: usize = 64;

/// Decisions of one kind within this time are one line: a burst would else leave nothing but itself.
const TOGETHER: Duration = Duration::from_secs(1);

/// A decision about workers or the queue.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Act {
    /// Workers are started.
    Start {
        /// Why.
        why: Why,
        /// How many.
        count: u32,
        /// Calls in the queue.
        queued: u32,
        /// How long the last of them would wait without these workers; none where nothing is known.
        wait: Option<Duration>,
        /// How long a start takes.
        start: Duration,
    },
    /// Idle workers are ended.
    Retire {
        /// How many.
        count: u32,
        /// How long the first of them was idle.
        idle: Duration,
        /// There are more than the calls need.
        is_spare: bool,
    },
    /// An idle worker is ended because others need its place or its memory.
    MakeRoom {
        /// How many.
        count: u32,
    },
    /// A start failed.
    StartFailed {
        /// In a row.
        failures: u32,
        /// How long none is tried.
        pause: Duration,
    },
    /// A start was not allowed.
    StartDenied {
        /// What calls end as for which there is no worker.
        outcome: Outcome,
        /// In a row.
        denials: u32,
    },
    /// The queue has stood above the target of its delay: what would wait longer is refused.
    Standing {
        /// Of which class.
        class: Criticality,
        /// How long the oldest call had waited.
        waited: Duration,
        /// How long calls may wait.
        target: Duration,
        /// Calls in the queue.
        queued: u32,
        /// Those that were refused at once.
        refused: u32,
    },
    /// The queue stands no more.
    Drained {
        /// Of which class.
        class: Criticality,
        /// How long it stood.
        stood: Duration,
    },
    /// The number of workers that are kept changed.
    Floor {
        /// What it was.
        from: u32,
        /// What it is.
        to: u32,
    },
    /// The time that the last worker is kept changed.
    Keep {
        /// What was chosen.
        choice: Choice,
    },
}

/// Why workers are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Fewer are there than are to be kept.
    Floor,
    /// Nothing is known of run times yet, so each call that waits gets one.
    Unknown,
    /// A start beats the expected wait.
    Wait,
    /// Fewer are there than the calls need that come.
    Size,
    /// The queue does not drain.
    Standing,
    /// A call is expected soon.
    Habit,
}

impl Why {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Unknown => "unknown",
            Self::Wait => "wait",
            Self::Size => "size",
            Self::Standing => "standing",
            Self::Habit => "habit",
        }
    }
}

/// A decision, when it was made, and the pool as it was.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Entry {
    /// When.
    pub at: Now,
    /// What.
    pub act: Act,
    /// Workers, starting ones included, before it.
    pub workers: u32,
    /// Calls per second.
    pub arrivals: f64,
    /// Mean of the latest run times.
    pub run: Duration,
    /// Workers that these need; none while too little is known.
    pub wanted: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: VecDeque<Entry>,
}

impl Journal {
    fn push(&mut self, entry: Entry) {
        if let Some(last) = self.entries.back_mut()
            && entry.at.saturating_sub(last.at) < TOGETHER
            && last.act.takes(&entry.act)
        {
            return;
        }
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }
}

impl Journal {
    /// The start that was noted last is of one worker more.
    pub(super) fn one_more_start(&mut self) {
        if let Some(Entry { act: Act::Start { count, .. }, .. }) = self.entries.back_mut() {
            *count += 1;
        }
    }
}

impl Act {
    /// What kind of decision it is, for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Retire { .. } => "retire",
            Self::MakeRoom { .. } => "make_room",
            Self::StartFailed { .. } => "start_failed",
            Self::StartDenied { .. } => "start_denied",
            Self::Standing { .. } => "standing",
            Self::Drained { .. } => "drained",
            Self::Floor { .. } => "floor",
            Self::Keep { .. } => "keep",
        }
    }

    /// Makes one line of two, where they are of one kind.
    fn takes(&mut self, next: &Self) -> bool {
        match (self, next) {
            (Self::Start { why, count, .. }, Self::Start { why: also, count: more, .. }) if why == also => {
                *count += more;
            }
            (Self::Retire { count, is_spare, .. }, Self::Retire { is_spare: also, .. })
                if is_spare == also =>
            {
                *count += 1;
            }
            (Self::MakeRoom { count }, Self::MakeRoom { .. }) => *count += 1,
            (Self::StartDenied { outcome, denials }, Self::StartDenied { outcome: also, denials: now })
                if outcome == also =>
            {
                *denials = *now;
            }
            _ => return false,
        }
        true
    }
}

impl Pool {
    /// The latest decisions, the oldest first.
    pub fn decisions(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.journal.entries.iter()
    }

    pub(super) fn note(&mut self, now: Now, act: Act) {
        self.look_at_size(now);
        let entry = Entry {
            at: now,
            act,
            workers: self.total(),
            arrivals: self.demand.per_second(now),
            run: self.run_times.mean().unwrap_or_default(),
            wanted: self.size.wanted,
        };
        self.journal.push(entry);
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.act.fmt(f)?;
        write!(f, " ({} there", count(self.workers, "worker"))?;
        if self.arrivals > 0.0 {
            write!(f, ", {:.1} calls a second", self.arrivals)?;
        }
        if !self.run.is_zero() {
            write!(f, " of {}", shown(self.run))?;
        }
        match self.wanted {
            Some(wanted) => write!(f, ", which {wanted} would serve)"),
            None => write!(f, ")"),
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Start { why, count: started, queued, wait, start } => {
                write!(f, "started {}: ", count(started, "worker"))?;
                match (why, wait) {
                    (Why::Floor, _) => write!(f, "fewer were there than are to be kept"),
                    (Why::Habit, _) => write!(f, "by its habit a call is due soon"),
                    (Why::Unknown, _) => {
                        write!(f, "{} waited, and nothing is known of run times yet", count(queued, "call"))
                    }
                    (Why::Standing, _) => {
                        write!(f, "{} waited, and the queue did not drain", count(queued, "call"))
                    }
                    (Why::Wait, wait) => write!(
                        f,
                        "the last of {} would have waited {}, a start takes {}",
                        count(queued, "call"),
                        waited(wait),
                        shown(start)
                    ),
                    (Why::Size, wait) => write!(
                        f,
                        "the last of {} would have waited {}, and fewer were there than the calls need",
                        count(queued, "call"),
                        waited(wait)
                    ),
                }
            }
            Self::Retire { count: ended, idle, is_spare: true } => {
                write!(
                    f,
                    "ended {}, idle for {}: more were there than the calls need",
                    count(ended, "worker"),
                    shown(idle)
                )
            }
            Self::Retire { count: ended, idle, is_spare: false } => {
                write!(
                    f,
                    "ended {}, idle for {}: as long as one is kept",
                    count(ended, "worker"),
                    shown(idle)
                )
            }
            Self::MakeRoom { count: ended } => {
                write!(f, "ended {}: others needed the room", count(ended, "idle worker"))
            }
            Self::StartFailed { failures, pause } => {
                write!(f, "a start failed, the {failures}. in a row: none is tried for {}", shown(pause))
            }
            Self::StartDenied { outcome, denials } => {
                let why = if outcome == Outcome::QuotaExceeded {
                    "a quota is spent"
                } else {
                    "the host has no place"
                };
                write!(f, "a start was not allowed, the {denials}. in a row: {why}")
            }
            Self::Standing { class, waited, target, queued, refused } => write!(
                f,
                "began to refuse what would wait longer than {}: of {} ({}) the oldest had waited {}, {refused} were refused",
                shown(target),
                count(queued, "waiting call"),
                class.word(),
                shown(waited)
            ),
            Self::Drained { class, stood } => {
                write!(f, "ended to refuse calls ({}) for their wait, after {}", class.word(), shown(stood))
            }
            Self::Floor { from, to } => {
                write!(f, "keeps {} from here on, {from} before", count(to, "worker"))
            }
            Self::Keep { choice: Choice { keep, warm_after, pauses: 0 } } => {
                debug_assert!(warm_after.is_none(), "only pauses can tell when one is needed");
                write!(
                    f,
                    "keeps its last worker {}: the pauses between its calls foretell nothing",
                    shown(keep)
                )
            }
            Self::Keep { choice: Choice { keep, warm_after, pauses } } => {
                write!(
                    f,
                    "keeps its last worker {} after a call, by {pauses} pauses between calls",
                    shown(keep)
                )?;
                match warm_after {
                    Some(after) => write!(f, "; none is needed for {} after a call", shown(after)),
                    None => Ok(()),
                }
            }
        }
    }
}

fn waited(wait: Option<Duration>) -> String {
    match wait {
        None | Some(Duration::MAX) => "for ever".to_owned(),
        Some(wait) => shown(wait),
    }
}

fn count(count: u32, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// To three digits or so: nobody reads more.
fn shown(time: Duration) -> String {
    let unit = match time {
        time if time >= Duration::from_secs(10) => Duration::from_secs(1),
        time if time >= Duration::from_millis(10) => Duration::from_millis(1),
        _ => Duration::from_micros(10),
    };
    let units = (time.as_nanos() + unit.as_nanos() / 2) / unit.as_nanos();
    show_duration(unit.saturating_mul(u32::try_from(units).unwrap_or(u32::MAX)))
}
