//! An alert over time: it begins with the first look at which its condition holds, and ends once
//! the condition has been gone for a while, so that a ratio that hovers about the factor is one
//! alert and not a hundred.

use std::time::Duration;

use super::Alert;

/// Parts of the short window for which the condition must be gone: a minute for the quickest page,
/// 72 minutes for the slowest ticket. A tenth would let an outage that comes and goes with a
/// minutely job page anew each time; the whole short window would double what the workbook has an
/// alert last after its cause.
const PARTS_OF_SHORT: u32 = 5;

/// One row of the alert table as it is looked at again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watch {
    firing: Option<Firing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Firing {
    last_held: Duration,
}

/// What a look changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The alert fires from now on.
    Began,
    /// It is over.
    Ended {
        /// When its condition held last.
        last_held: Duration,
    },
}

impl Watch {
    /// One that fired when the platform stopped, taken up again at `now`.
    pub fn firing(now: Duration) -> Self {
        Self { firing: Some(Firing { last_held: now }) }
    }

    /// Between its beginning and its end.
    pub fn is_firing(&self) -> bool {
        self.firing.is_some()
    }

    /// One look at the row's condition.
    pub fn on_look(&mut self, now: Duration, alert: &Alert) -> Option<Change> {
        let was_firing = self.is_firing();
        if alert.firing {
            self.firing = Some(Firing { last_held: now });
            return (!was_firing).then_some(Change::Began);
        }
        let Firing { last_held } = self.firing?;
        if now.saturating_sub(last_held) < alert.row.short / PARTS_OF_SHORT {
            return None;
        }
        self.end()
    }

    /// The objective is gone, and the alert with it.
    pub fn end(&mut self) -> Option<Change> {
        let Firing { last_held } = self.firing.take()?;
        Some(Change::Ended { last_held })
    }
}
