//! Alerts that fire and that did: what began when, by which calls, and what broke it.
//!
//! Every objective is looked at once a second. An alert is kept as soon as it begins and found in
//! the registry after a kill; the calls that spent the budget are looked for in history beside
//! that, because history may be on a slow disk. Of each function the newest hundred are kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use fp_core::slo::{Change, Culprit, Indicator, Severity};
use fp_core::{FunctionName, InvocationId, Tenant, TraceId};
use serde::{Deserialize, Serialize};

use super::evidence::{self, Evidence};
use super::function::{FunctionBook, Turn};
use super::standing::window_name;
use super::{Key, SloBook};
use crate::history::History;
use crate::store::registry::StoredAlert;

/// Alerts kept of each function: at one an hour, which is a function that nobody looks after, those
/// of four days.
const KEPT: usize = 100;

/// How long who is told waits for the calls behind an alert: history may be on a slow disk.
const WAIT_FOR_CULPRIT: Duration = Duration::from_secs(10);

/// An alert from its beginning on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertRecord {
    /// Unique within the tenant: function, objective, severity, long window and second of its beginning.
    pub id: String,
    /// Of which function.
    pub function: FunctionName,
    /// Which promise.
    pub objective: Indicator,
    /// How urgent.
    pub severity: Severity,
    /// The row of the objective's alert table, from 0.
    pub row: usize,
    /// The long window, in seconds.
    pub long_s: u64,
    /// The short window, in seconds.
    pub short_s: u64,
    /// The burn rate that both exceeded.
    pub factor: f64,
    /// Burn rate of the long window when it began.
    pub burn_long: f64,
    /// Burn rate of the short window when it began.
    pub burn_short: f64,
    /// Bad calls in the long window when it began.
    pub bad: u64,
    /// When it began, Unix time in microseconds.
    pub began_us: u64,
    /// When its condition held last; none while it fires.
    pub ended_us: Option<u64>,
    /// What broke it; none until that was looked for, or when history has none of the calls.
    pub culprit: Option<Culprit>,
    /// Calls that spent the budget, the newest before its beginning first.
    pub calls: Vec<BadCall>,
    /// Whether those who want to know know that it began, and that it ended.
    #[serde(default)]
    told: (bool, bool),
}

/// A call that spent an error budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BadCall {
    /// Which.
    pub id: InvocationId,
    /// Its trace.
    pub trace_id: TraceId,
    /// The outcome's word.
    pub outcome: Box<str>,
    /// The reason behind the word.
    pub reason: Option<Box<str>>,
    /// Arrival, Unix time in microseconds.
    pub started_us: u64,
    /// The whole call, in microseconds.
    pub duration_us: u64,
}

/// What there is to tell of an alert.
#[derive(Debug)]
pub(crate) struct Notice {
    /// Whose function.
    pub(crate) tenant: Tenant,
    /// What.
    pub(crate) happened: Happened,
    /// The alert as it is now.
    pub(crate) alert: AlertRecord,
}

/// What happened to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happened {
    /// It began.
    Began,
    /// It ended.
    Ended,
}

impl AlertRecord {
    /// Name of the long window, such as `1h`.
    pub fn long(&self) -> &'static str {
        window_name(Duration::from_secs(self.long_s))
    }

    /// Name of the short window, such as `5m`.
    pub fn short(&self) -> &'static str {
        window_name(Duration::from_secs(self.short_s))
    }

    fn began(function: &FunctionName, turn: &Turn, wall: Duration) -> Self {
        let row = turn.alert.row;
        let (objective, severity) = (turn.objective.indicator, row.severity);
        let long = window_name(row.long);
        let id = format!("{function}:{}:{}-{long}:{}", objective.word(), severity.word(), wall.as_secs());
        Self {
            id,
            function: function.clone(),
            objective,
            severity,
            row: turn.row,
            long_s: row.long.as_secs(),
            short_s: row.short.as_secs(),
            factor: row.factor,
            burn_long: turn.alert.burn_long,
            burn_short: turn.alert.burn_short,
            bad: turn.alert.bad,
            began_us: microseconds(wall),
            ended_us: None,
            culprit: None,
            calls: Vec::new(),
            told: (false, false),
        }
    }
}

impl AlertRecord {
    /// What is to be told of it next. Of what is over before anybody was told nobody need be.
    fn untold(&self) -> Option<Happened> {
        match (self.ended_us, self.told) {
            (None, (false, _)) => Some(Happened::Began),
            (Some(_), (true, false)) => Some(Happened::Ended),
            _ => None,
        }
    }

    /// Whether what broke it was found, or is waited for no longer.
    fn is_explained(&self, wall_us: u64) -> bool {
        !self.calls.is_empty() || self.began_us + microseconds(WAIT_FOR_CULPRIT) <= wall_us
    }
}

/// All alerts of all functions.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    /// The oldest first.
    of: BTreeMap<Key, VecDeque<AlertRecord>>,
    /// Changed since they were written.
    unsaved: BTreeSet<(Key, String)>,
    /// Began, and nobody has looked yet for what broke them.
    unexplained: VecDeque<(Key, String)>,
}

impl Alerts {
    /// Those that the registry kept; the oldest must come first. What cannot be read is left out.
    pub(super) fn of(stored: Vec<StoredAlert>) -> Self {
        let mut alerts = Self::default();
        for alert in stored {
            match serde_json::from_str(&alert.body) {
                Ok(record) => alerts.of.entry((alert.tenant, alert.function)).or_default().push_back(record),
                Err(error) => {
                    tracing::warn!(id = alert.id, %error, "an alert cannot be read and is forgotten")
                }
            }
        }
        alerts
    }

    pub(super) fn forget(&mut self, key: &Key) {
        self.of.remove(key);
        self.unsaved.retain(|(of, _)| of != key);
        self.unexplained.retain(|(of, _)| of != key);
    }

    fn note(&mut self, key: &Key, turn: &Turn, wall: Duration) {
        let records = self.of.entry(key.clone()).or_default();
        let id = match turn.change {
            Change::Began => {
                let record = AlertRecord::began(&key.1, turn, wall);
                let id = record.id.clone();
                tracing::warn!(tenant = %key.0, alert = id, burn = record.burn_long, "an objective is being missed");
                records.push_back(record);
                while records.len() > KEPT {
                    records.pop_front();
                }
                self.unexplained.push_back((key.clone(), id.clone()));
                id
            }
            Change::Ended { last_held } => {
                let (indicator, row) = (turn.objective.indicator, turn.row);
                let is_it = |it: &&mut AlertRecord| {
                    it.ended_us.is_none() && (it.objective, it.row) == (indicator, row)
                };
                let Some(record) = records.iter_mut().find(is_it) else { return };
                record.ended_us = Some(microseconds(last_held));
                record.id.clone()
            }
        };
        self.unsaved.insert((key.clone(), id));
    }

    /// Alerts of objectives that are no more, or whose function fired no longer after a restart.
    fn end_what_is_gone(&mut self, key: &Key, promised: &[Indicator], wall: Duration) {
        for record in self.of.get_mut(key).into_iter().flatten() {
            if record.ended_us.is_none() && !promised.contains(&record.objective) {
                record.ended_us = Some(microseconds(wall));
                self.unsaved.insert((key.clone(), record.id.clone()));
            }
        }
    }

    fn find(&mut self, key: &Key, id: &str) -> Option<&mut AlertRecord> {
        self.of.get_mut(key)?.iter_mut().find(|record| record.id == id)
    }
}

impl SloBook {
    /// Looks at every objective; called each second.
    pub fn look(&self) {
        let wall = Duration::from_micros(self.clock.wall_now_us());
        let books: Vec<_> = self.books.read().iter().map(|(key, book)| (key.clone(), book.clone())).collect();
        for (key, book) in books {
            let turns = book.look(wall);
            let mut alerts = self.alerts.lock();
            if !turns.is_empty() || alerts.of.contains_key(&key) {
                turns.iter().for_each(|turn| alerts.note(&key, turn, wall));
                alerts.end_what_is_gone(&key, &promised(&book), wall);
            }
        }
        self.silences.lock().forget_ended(microseconds(wall));
        self.save_alerts();
    }

    /// Looks in history for the calls behind one alert that began; false when there is none to
    /// explain.
    pub async fn explain_next(&self, history: &History) -> bool {
        let next = self.alerts.lock().unexplained.pop_front();
        let Some((key, id)) = next else { return false };
        let record = self.alerts.lock().find(&key, &id).cloned();
        let (Some(record), Some(book)) = (record, self.get(&key.0, &key.1)) else { return true };
        let Evidence { culprit, calls } = evidence::of(history, &key.0, &book, &record).await;
        let mut alerts = self.alerts.lock();
        if let Some(record) = alerts.find(&key, &id) {
            (record.culprit, record.calls) = (culprit, calls);
            alerts.unsaved.insert((key, id));
        }
        true
    }

    /// Alerts of a tenant, the newest first; of one function if it is named.
    pub fn alerts(&self, tenant: &Tenant, function: Option<&FunctionName>) -> Vec<AlertRecord> {
        let alerts = self.alerts.lock();
        let is_asked = |key: &Key| key.0 == *tenant && function.is_none_or(|name| key.1 == *name);
        let mut found: Vec<AlertRecord> = alerts
            .of
            .iter()
            .filter(|(key, _)| is_asked(key))
            .flat_map(|(_, of)| of.iter().cloned())
            .collect();
        found.sort_by(|a, b| (b.began_us, &b.id).cmp(&(a.began_us, &a.id)));
        found
    }

    /// What those who want to know have not been told.
    pub(crate) fn untold(&self) -> Vec<Notice> {
        let wall_us = self.clock.wall_now_us();
        let (alerts, silences) = (self.alerts.lock(), self.silences.lock());
        let of_key = |(key, records): (&Key, &VecDeque<AlertRecord>)| {
            let notice = |alert: &AlertRecord| {
                let happened = alert.untold().filter(|_| alert.is_explained(wall_us))?;
                // Who was told of the beginning is told of the end, too.
                let is_silent = happened == Happened::Began && silences.cover(&key.0, alert, wall_us);
                if is_silent {
                    return None;
                }
                Some(Notice { tenant: key.0.clone(), happened, alert: alert.clone() })
            };
            records.iter().filter_map(notice).collect::<Vec<_>>()
        };
        alerts.of.iter().flat_map(of_key).collect()
    }

    /// Those who want to know were told.
    pub(crate) fn told(&self, notice: &Notice) {
        let key = (notice.tenant.clone(), notice.alert.function.clone());
        let mut alerts = self.alerts.lock();
        let Some(record) = alerts.find(&key, &notice.alert.id) else { return };
        match notice.happened {
            Happened::Began => record.told.0 = true,
            Happened::Ended => record.told.1 = true,
        }
        alerts.unsaved.insert((key, notice.alert.id.clone()));
    }

    /// All that fire, and those that have ended since then, but for silent ones and those whose calls are looked for.
    pub(crate) fn to_show(&self, since_us: u64) -> Vec<(Tenant, AlertRecord)> {
        let wall_us = self.clock.wall_now_us();
        let (alerts, silences) = (self.alerts.lock(), self.silences.lock());
        let is_recent = |alert: &AlertRecord| alert.ended_us.is_none_or(|ended| ended >= since_us);
        let of_key = |(key, records): (&Key, &VecDeque<AlertRecord>)| {
            let tenant = key.0.clone();
            let is_shown = |alert: &&AlertRecord| {
                is_recent(alert) && alert.is_explained(wall_us) && !silences.cover(&key.0, alert, wall_us)
            };
            let shown = records.iter().filter(is_shown).cloned().map(move |alert| (tenant.clone(), alert));
            shown.collect::<Vec<_>>()
        };
        alerts.of.iter().flat_map(of_key).collect()
    }

    /// Alerts that fired when the platform stopped go on in the function's new book.
    pub(super) fn resume_alerts(&self, key: &Key, book: &FunctionBook) {
        let wall = Duration::from_micros(self.clock.wall_now_us());
        let mut alerts = self.alerts.lock();
        let records: Vec<AlertRecord> = alerts.of.get(key).into_iter().flatten().cloned().collect();
        for record in records.into_iter().filter(|record| record.ended_us.is_none()) {
            book.resume_alert(record.objective, record.row, wall);
            // The platform was killed before it had looked.
            if record.culprit.is_none() {
                alerts.unexplained.push_back((key.clone(), record.id));
            }
        }
    }

    fn save_alerts(&self) {
        let mut alerts = self.alerts.lock();
        let unsaved = std::mem::take(&mut alerts.unsaved);
        let stored: Vec<StoredAlert> =
            unsaved.iter().filter_map(|(key, id)| Some(stored(key, alerts.find(key, id)?))).collect();
        if !stored.is_empty() && !self.registry.try_save_alerts(stored, KEPT) {
            alerts.unsaved.extend(unsaved);
        }
    }
}

fn promised(book: &FunctionBook) -> Vec<Indicator> {
    let slo = book.objective();
    let objectives = slo.as_ref().map(fp_core::slo::Objective::of).unwrap_or_default();
    objectives.iter().map(|objective| objective.indicator).collect()
}

fn stored((tenant, function): &Key, record: &AlertRecord) -> StoredAlert {
    StoredAlert {
        tenant: tenant.clone(),
        id: record.id.clone(),
        function: function.clone(),
        began_us: record.began_us,
        body: serde_json::to_string(record).expect("a record is plain data"),
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
