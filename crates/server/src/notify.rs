//! Who is told when an objective is being missed: webhooks and Alertmanagers of the operator's.
//!
//! A webhook is told once when an alert begins and once when it ends, each until it has taken it or
//! [`GIVE_UP`] has passed; what was not told before a stop or a kill is told after the start, so one that
//! answers late may hear twice of the same `webhook-id`. An Alertmanager is shown what fires, again and
//! again, as Prometheus does it. Nothing here waits for the other, and no call for any of it.

mod alertmanager;
mod webhook;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fp_core::slo::Severity;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request};
use http_body_util::Full;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::{NotifyConfig, NotifyTo};
use crate::outbound::{Target, Unreached};
use crate::slo::{AlertRecord, Happened, Notice, SloBook};

/// Longest wait for one answer.
const LIMIT: Duration = Duration::from_secs(10);

/// How long a webhook is tried: whoever looks after it has had the time to mend it, and by then what it
/// would tell is old.
const GIVE_UP: Duration = Duration::from_secs(3600);

/// Notices under way at once: each is a task of some kilobytes. What is more waits for its turn.
const MOST_AT_ONCE: usize = 256;

/// The most that is read of an answer; none of it is used.
const MOST_ANSWER: usize = 64 << 10;

/// How an alert looks to those outside: the edge's table.
pub(crate) type Document = fn(AlertRecord) -> Value;

fn word(happened: Happened) -> &'static str {
    match happened {
        Happened::Began => "slo.alert.began",
        Happened::Ended => "slo.alert.ended",
    }
}

/// The same for the same, also after a restart.
fn id_of(notice: &Notice) -> String {
    format!("{}/{}/{}", notice.tenant, notice.alert.id, word(notice.happened))
}

/// One of those who are told.
#[derive(Debug)]
struct Told {
    config: NotifyConfig,
    target: Target,
    sent: AtomicU64,
    failed: AtomicU64,
}

impl Told {
    fn wants(&self, severity: Severity) -> bool {
        self.config.severities.contains(&severity)
    }

    /// Sends JSON once; the status must be of 2xx.
    async fn post(&self, path: &str, headers: &[(&'static str, String)], body: Bytes) -> Result<(), Refusal> {
        let mut request = Request::post(path).header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_str(value).map_err(|_| Unreached::Url)?);
        }
        let request = request.body(Full::new(body)).map_err(|_| Unreached::Url)?;
        // The operator's own configuration may lead anywhere.
        let exchange = self.target.exchange(|_| true, request, MOST_ANSWER);
        let answer = tokio::time::timeout(LIMIT, exchange).await.map_err(|_| Refusal::Late)??;
        if answer.status().is_success() { Ok(()) } else { Err(Refusal::Status(answer.status())) }
    }

    fn note(&self, result: &Result<(), Refusal>) {
        let count = if result.is_ok() { &self.sent } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Unreached(#[from] Unreached),
    #[error("there was no answer within {} s", LIMIT.as_secs())]
    Late,
    #[error("it answered {0}")]
    Status(http::StatusCode),
}

/// What was sent to one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Its name.
    pub(crate) name: String,
    /// Requests that it took.
    pub(crate) sent: u64,
    /// Requests that it did not take, repeated ones included.
    pub(crate) failed: u64,
}

/// Everybody who is told.
#[derive(Debug)]
pub(crate) struct Notifier {
    webhooks: Vec<Arc<Told>>,
    alertmanagers: Vec<Arc<Told>>,
    clock: Clock,
    document: Document,
    /// Where the pages are, for links.
    pages: String,
    under_way: Mutex<BTreeSet<String>>,
}

impl Notifier {
    /// Of what was configured; [`check`] has looked at the URLs.
    pub(crate) fn new(config: &[NotifyConfig], pages: String, clock: Clock, document: Document) -> Arc<Self> {
        let told = |config: &NotifyConfig| {
            let target = Target::of(config.to.url()).ok()?;
            let (sent, failed) = Default::default();
            Some(Arc::new(Told { config: config.clone(), target, sent, failed }))
        };
        let all: Vec<_> = config.iter().filter_map(told).collect();
        let is_webhook = |told: &Arc<Told>| matches!(told.config.to, NotifyTo::Webhook { .. });
        let (webhooks, alertmanagers) = all.into_iter().partition(is_webhook);
        Arc::new(Self { webhooks, alertmanagers, clock, document, pages, under_way: Mutex::default() })
    }

    /// What was sent to each so far.
    pub(crate) fn counts(&self) -> Vec<Counts> {
        let of = |told: &Arc<Told>| Counts {
            name: told.config.name.clone(),
            sent: told.sent.load(Ordering::Relaxed),
            failed: told.failed.load(Ordering::Relaxed),
        };
        self.webhooks.iter().chain(&self.alertmanagers).map(of).collect()
    }

    /// Begins to tell the webhooks what they have not been told; called each second.
    pub(crate) fn look(self: &Arc<Self>, slo: &Arc<SloBook>) {
        if self.webhooks.is_empty() {
            return;
        }
        for notice in slo.untold() {
            let id = id_of(&notice);
            let mut under_way = self.under_way.lock();
            if under_way.len() >= MOST_AT_ONCE {
                return;
            }
            if !under_way.insert(id.clone()) {
                continue;
            }
            let (this, slo) = (self.clone(), slo.clone());
            tokio::spawn(async move {
                webhook::tell(&this, &notice, &id).await;
                slo.told(&notice);
                this.under_way.lock().remove(&id);
            });
        }
    }

    /// Shows the Alertmanagers what fires, until it is dropped.
    pub(crate) async fn keep_showing(self: Arc<Self>, slo: Arc<SloBook>) {
        let mut each = JoinSet::new();
        for told in &self.alertmanagers {
            let (this, told, slo) = (self.clone(), told.clone(), slo.clone());
            each.spawn(async move { alertmanager::keep_showing(&this, &told, &slo).await });
        }
        each.join_all().await;
    }

    /// Where a function's page is.
    fn page_of(&self, alert: &AlertRecord) -> String {
        format!("{}/ui/functions/{}", self.pages, alert.function)
    }
}

/// Whether a URL could be told anything.
///
/// # Errors
/// Half a sentence.
pub(crate) fn check(url: &str) -> Result<(), String> {
    Target::of(url).map(drop).map_err(|error| error.to_string())
}
