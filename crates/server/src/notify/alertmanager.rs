//! Alertmanagers: shown what fires by `POST /api/v2/alerts`, as Prometheus shows it.
//!
//! What fires is shown at once when it changes and again each minute, to be taken for ended four minutes after it was
//! shown last (Prometheus: `resend-delay`, and four times of it); what has ended is shown with its end for
//! a while, so that one that was away hears of it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use fp_core::Tenant;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Notifier, Told};
use crate::slo::{AlertRecord, SloBook};

const LOOK_EVERY: Duration = Duration::from_secs(1);
const SHOW_EVERY: Duration = Duration::from_secs(60);
/// After a failure.
const REPEAT_AFTER: Duration = Duration::from_secs(5);
const GOOD_FOR: Duration = Duration::from_secs(240);
/// How long what has ended is shown: Prometheus keeps it for 15 minutes.
const SHOW_ENDED: Duration = Duration::from_secs(900);

pub(super) async fn keep_showing(notifier: &Notifier, told: &Told, slo: &SloBook) {
    let mut shown = Shown { told, last: BTreeSet::new(), next: Instant::now() };
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now_us = notifier.clock.wall_now_us();
        let alerts = slo.to_show(now_us.saturating_sub(SHOW_ENDED.as_micros() as u64));
        shown.look(notifier, &alerts, now_us).await;
    }
}

struct Shown<'a> {
    told: &'a Told,
    /// What was shown, by tenant, id and whether it had ended.
    last: BTreeSet<(Tenant, String, bool)>,
    next: Instant,
}

impl Shown<'_> {
    async fn look(&mut self, notifier: &Notifier, alerts: &[(Tenant, AlertRecord)], now_us: u64) {
        let wanted: Vec<_> = alerts.iter().filter(|(_, alert)| self.told.wants(alert.severity)).collect();
        let present: BTreeSet<_> = wanted
            .iter()
            .map(|(tenant, alert)| (tenant.clone(), alert.id.clone(), alert.ended_us.is_some()))
            .collect();
        let has_news = !present.is_subset(&self.last);
        if wanted.is_empty() || (!has_news && Instant::now() < self.next) {
            return;
        }
        let body: Vec<_> =
            wanted.iter().map(|(tenant, alert)| document(notifier, tenant, alert, now_us)).collect();
        let body = Bytes::from(serde_json::to_vec(&body).expect("string keys only"));
        let path = format!("{}/api/v2/alerts", self.told.target.path().trim_end_matches('/'));
        let result = self.told.post(&path, &[], body).await;
        self.told.note(&result);
        match result {
            Ok(()) => {
                self.last = present;
                self.next = Instant::now() + SHOW_EVERY;
            }
            Err(why) => {
                tracing::warn!(to = self.told.config.name, "an Alertmanager was not told what fires: {why}");
                tokio::time::sleep(REPEAT_AFTER).await;
            }
        }
    }
}

/// An alert in Alertmanager's words. What tells two of one name apart is a label, what explains it an annotation.
fn document(notifier: &Notifier, tenant: &Tenant, alert: &AlertRecord, now_us: u64) -> Value {
    let ends_us = alert.ended_us.unwrap_or(now_us + GOOD_FOR.as_micros() as u64);
    let culprit = alert.culprit.as_ref().map(|culprit| match &culprit.span {
        Some(span) => format!("{}: {span}", culprit.phase),
        None => culprit.phase.to_string(),
    });
    let traces: Vec<_> = alert.calls.iter().take(3).map(|call| call.trace_id.to_string()).collect();
    let mut annotations = json!({
        "summary": format!(
            "{} burns its budget of {} {:.1} times too fast ({} bad calls in {})",
            alert.function, alert.objective.word(), alert.burn_long, alert.bad, alert.long()
        ),
    });
    if let Some(culprit) = culprit {
        annotations["culprit"] = culprit.into();
    }
    if !traces.is_empty() {
        annotations["traces"] = traces.join(" ").into();
    }
    json!({
        "labels": {
            "alertname": "ErrorBudgetBurn",
            "severity": alert.severity.word(),
            "tenant": tenant.as_str(),
            "function": alert.function.as_str(),
            "objective": alert.objective.word(),
            "long_window": alert.long(),
            "short_window": alert.short(),
        },
        "annotations": annotations,
        "startsAt": rfc3339(alert.began_us),
        "endsAt": rfc3339(ends_us),
        "generatorURL": notifier.page_of(alert),
    })
}

fn rfc3339(unix_us: u64) -> String {
    let time = i64::try_from(unix_us).ok().and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
    time.unwrap_or_default().to_string()
}
