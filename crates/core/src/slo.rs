//! Service level objectives: attainment, error budget, burn rates and alert conditions.
//!
//! [`History`] counts events exactly, by when they happened; an [`Objective`] reads it. Ratios
//! are weighted by events, never means of ratios: a quiet bad hour does not outweigh a busy good
//! one. Alerts follow the multi-window multi-burn-rate recipe of Google's SRE workbook, with one
//! addition: at low traffic they wait for evidence that chance alone would hardly give.
//! Time is Unix time, because histories outlive the process.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::Sli;
use crate::settings::Slo;

mod culprit;
mod history;
mod poisson;
mod silence;
mod watch;

pub use culprit::{Culprit, Sample, Wait, culprit};
pub use history::{History, SnapshotError};
pub use silence::Silence;
pub use watch::{Change, Watch};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Chance of a false alarm that the evidence gate allows, per look at one window.
const FALSE_ALARM: f64 = 1e-3;

/// Bad events that the budget itself allows in a window, beyond which traffic is not low and the
/// gate is open: at 100 chance moves the ratio by a tenth, and what burns faster than the factor
/// is no accident. (A gate for all would delay the slowest row, whose factor is 1.)
const LOW_TRAFFIC: f64 = 100.0;

/// Calls by what they count as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Served as promised.
    pub good: u64,
    /// Spent error budget.
    pub bad: u64,
    /// The caller's doing.
    pub excluded: u64,
    /// The caller left.
    pub cancelled: u64,
    /// Answered within the latency objective.
    pub latency_good: u64,
    /// Answered too late.
    pub latency_bad: u64,
}

impl Counts {
    /// One call.
    pub fn of_call(sli: Sli, latency_met: Option<bool>) -> Self {
        Self {
            good: (sli == Sli::Good).into(),
            bad: (sli == Sli::Bad).into(),
            excluded: (sli == Sli::Excluded).into(),
            cancelled: (sli == Sli::Cancelled).into(),
            latency_good: (latency_met == Some(true)).into(),
            latency_bad: (latency_met == Some(false)).into(),
        }
    }

    /// `(bad, good and bad)` of an indicator.
    pub fn events(&self, indicator: Indicator) -> (u64, u64) {
        match indicator {
            Indicator::Availability => (self.bad, self.good + self.bad),
            Indicator::Latency => (self.latency_bad, self.latency_good + self.latency_bad),
        }
    }

    fn fields(&self) -> [u64; 6] {
        [self.good, self.bad, self.excluded, self.cancelled, self.latency_good, self.latency_bad]
    }

    fn from_fields([good, bad, excluded, cancelled, latency_good, latency_bad]: [u64; 6]) -> Self {
        Self { good, bad, excluded, cancelled, latency_good, latency_bad }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let (mine, others) = (self.fields(), other.fields());
        *self = Self::from_fields(std::array::from_fn(|at| mine[at].saturating_add(others[at])));
    }
}

/// What an objective is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Indicator {
    /// Share of calls served.
    Availability,
    /// Share of calls answered in time.
    Latency,
}

impl Indicator {
    /// Its word in APIs and records.
    pub fn word(self) -> &'static str {
        match self {
            Self::Availability => "availability",
            Self::Latency => "latency",
        }
    }
}

impl Severity {
    /// Its word in APIs and records.
    pub fn word(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Ticket => "ticket",
        }
    }
}

/// A share of good events to be reached over a rolling window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Objective {
    /// Of what.
    pub indicator: Indicator,
    /// The share to reach, in percent (0–100, exclusive).
    pub percent: f64,
    /// Over how many days: 7, 28 or 30.
    pub window_days: u32,
}

/// How an objective stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Standing {
    /// Events in the window, good and bad.
    pub events: u64,
    /// Bad ones among them.
    pub bad: u64,
    /// Share of good events in percent; none without events.
    pub attained_percent: Option<f64>,
    /// Share of the error budget that is left; negative when overspent.
    pub budget_left: f64,
    /// The same as seconds of full outage at the window's mean rate.
    pub budget_left_seconds: f64,
}

/// How urgent an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Somebody should look now.
    Page,
    /// Somebody should look this week.
    Ticket,
}

/// One row of the alert table: a share of the budget spent within a long window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AlertRow {
    /// How urgent.
    pub severity: Severity,
    /// The window that gives the evidence.
    pub long: Duration,
    /// The window that ends the alert soon after the trouble ends: a twelfth of the long one.
    pub short: Duration,
    /// Burn rate above which it fires.
    pub factor: f64,
}

/// A row and whether its condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Alert {
    /// Which row.
    pub row: AlertRow,
    /// Burn rate over the long window.
    pub burn_long: f64,
    /// Burn rate over the short window.
    pub burn_short: f64,
    /// Bad events in the long window.
    pub bad: u64,
    /// Bad events that it takes: at low traffic as many as chance gives less than once in a
    /// thousand looks.
    pub evidence: u64,
    /// Both windows burn faster than the factor and the evidence suffices.
    pub firing: bool,
}

impl Objective {
    /// The objectives that a function declares.
    pub fn of(slo: &Slo) -> Vec<Self> {
        let of = |indicator, percent| Self { indicator, percent, window_days: slo.window_days };
        let availability = slo.availability.map(|percent| of(Indicator::Availability, percent));
        let latency = slo.latency.as_ref().map(|latency| of(Indicator::Latency, latency.percent));
        availability.into_iter().chain(latency).collect()
    }

    /// The rolling window.
    pub fn window(&self) -> Duration {
        DAY * self.window_days
    }

    /// The share of events that may be bad, 0 to 1.
    pub fn budget(&self) -> f64 {
        // Rounded because nobody means the last bits of 100 − 99.9.
        ((100.0 - self.percent) * 1e9).round() / 1e11
    }

    /// The whole budget as time of full outage.
    pub fn budget_seconds(&self) -> f64 {
        self.budget() * self.window().as_secs_f64()
    }

    /// Bad events per event over the last `window`; 0 without events.
    pub fn error_ratio(&self, history: &History, now: Duration, window: Duration) -> f64 {
        let (bad, events) = history.sum(now, window).events(self.indicator);
        if events == 0 { 0.0 } else { bad as f64 / events as f64 }
    }

    /// How many times faster than sustainable the budget is being spent.
    pub fn burn_rate(&self, history: &History, now: Duration, window: Duration) -> f64 {
        self.error_ratio(history, now, window) / self.budget()
    }

    /// How it stands over its own window.
    pub fn standing(&self, history: &History, now: Duration) -> Standing {
        let (bad, events) = history.sum(now, self.window()).events(self.indicator);
        let ratio = if events == 0 { 0.0 } else { bad as f64 / events as f64 };
        let budget_left = 1.0 - ratio / self.budget();
        Standing {
            events,
            bad,
            attained_percent: (events > 0).then(|| 100.0 * (events - bad) as f64 / events as f64),
            budget_left,
            budget_left_seconds: budget_left * self.budget_seconds(),
        }
    }

    /// How the budget went over the window: the share left after each of `points` equal parts of it.
    /// What the whole window's events allow is the measure throughout, so the last point is what
    /// [`standing`](Self::standing) says. Empty without events.
    pub fn burn_down(&self, history: &History, now: Duration, points: u32) -> Vec<f64> {
        let (all_bad, events) = history.sum(now, self.window()).events(self.indicator);
        if events == 0 {
            return Vec::new();
        }
        let allowed = events as f64 * self.budget();
        let left_after = |point: u32| {
            let rest = self.window() / points * (points - point);
            let later = if rest.is_zero() { 0 } else { history.sum(now, rest).events(self.indicator).0 };
            1.0 - all_bad.saturating_sub(later) as f64 / allowed
        };
        (1..=points).map(left_after).collect()
    }

    /// The alert table for this window: quick page, slow page, quick ticket, slow ticket.
    pub fn alert_rows(&self) -> [AlertRow; 4] {
        // Shares of the budget per row: the workbook's for about a month; Sloth's for a week, where
        // the workbook's would ask for burn rates below what the week itself allows.
        let shares = if self.window_days < 28 { [0.08, 0.125, 0.2, 0.42] } else { [0.02, 0.05, 0.1, 0.1] };
        let longs = [HOUR, 6 * HOUR, DAY, 3 * DAY];
        let severities = [Severity::Page, Severity::Page, Severity::Ticket, Severity::Ticket];
        std::array::from_fn(|at| AlertRow {
            severity: severities[at],
            long: longs[at],
            short: longs[at] / 12,
            factor: shares[at] * self.window().as_secs_f64() / longs[at].as_secs_f64(),
        })
    }

    /// Every row of the table with its condition as of `now`.
    pub fn alerts(&self, history: &History, now: Duration) -> [Alert; 4] {
        self.alert_rows().map(|row| self.alert(row, history, now))
    }

    fn alert(&self, row: AlertRow, history: &History, now: Duration) -> Alert {
        let (bad, events) = history.sum(now, row.long).events(self.indicator);
        let burn_long = if events == 0 { 0.0 } else { bad as f64 / events as f64 / self.budget() };
        let burn_short = self.burn_rate(history, now, row.short);
        let allowed = events as f64 * self.budget();
        let evidence = if allowed <= LOW_TRAFFIC { poisson::least_unlikely(allowed, FALSE_ALARM) } else { 1 };
        let is_burning = burn_long > row.factor && burn_short > row.factor;
        Alert { row, burn_long, burn_short, bad, evidence, firing: is_burning && bad >= evidence }
    }
}
