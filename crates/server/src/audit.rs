//! The audit log: who asked the management listeners for what, when, from where, and how it ended.
//!
//! Records are lines of JSON in `audit/` of the data directory, for the platform's own user only.
//! Each [`Kind`] of record has a series of files of its own, bounded by size, so that nobody can
//! push a change out of the log by reading or by being refused; within a series the records of those
//! who ask little outlive those of who asks much ([`sift`]). One thread writes; whoever notes a
//! call never waits, and has noted it before its answer is sent. What the queue or the disk has no
//! room for is counted, and the next record says how many are missing before it.
//!
//! Bodies, query strings and headers never come here. Knows nothing of HTTP but its words.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

mod reading;
mod series;
mod sift;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use fp_core::Tenant;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, oneshot};
use utoipa::ToSchema;

use crate::store::StoreError;

/// The directory's name in the data directory.
const DIRECTORY: &str = "audit";

/// Records that may wait for the writer: a tenth of a second's worth of the busiest management
/// listener that was measured, a few megabytes at most.
const QUEUE: usize = 8_192;

/// Readings at once: each may go through all files.
const READERS: usize = 2;

/// What a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A call that was to change something and was not refused.
    Change,
    /// A call of a function through the management API.
    Call,
    /// Whatever was answered that it may not be, is not there or is wrong (4xx).
    Refusal,
    /// Everything else.
    Read,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Change, Self::Call, Self::Refusal, Self::Read];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Call => "call",
            Self::Refusal => "refusal",
            Self::Read => "read",
        }
    }

    /// The kind of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// How somebody came in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Means {
    /// With a key.
    Bearer,
    /// With the session of a browser, begun with a key.
    Session,
    /// As nobody, on a listener of this machine that asks for no key: the operator.
    Loopback,
    /// With a key or a session that is not in force; the key is the one that it claims to be.
    NotInForce,
    /// As nobody, and was not let in.
    #[default]
    Nobody,
    /// As the platform's operator. Only in what a tenant sees of the calls of others.
    Operator,
}

/// Who asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Asker {
    /// How they came in.
    pub means: Means,
    /// Whose they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "acme")]
    pub tenant: Option<String>,
    /// The id of their key: the eight characters after `fpk_`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "k3j9x0ab")]
    pub key_id: Option<String>,
    /// What their key is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "ci")]
    pub key_name: Option<String>,
}

/// A call of a management listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = AuditRecord)]
pub struct Record {
    /// Its number; later calls have greater ones.
    #[schema(example = 17)]
    pub seq: u64,
    /// When it arrived.
    #[serde(rename = "time", with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at_us: u64,
    /// Its id, as in the answer's `X-Request-Id`.
    #[schema(example = "0190b2a8-4e5c-7cc1-b4a5-0d2f6a1c9e11")]
    pub request_id: String,
    /// What it is.
    pub kind: Kind,
    /// Whose things it was about.
    #[schema(example = "acme")]
    pub tenant: String,
    /// Who asked.
    pub caller: Asker,
    /// Where the connection came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "127.0.0.1:50312")]
    pub peer: Option<String>,
    /// What `X-Forwarded-For` said: a proxy's word, or the caller's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub forwarded_for: Option<String>,
    /// `api` or `traces`.
    #[schema(example = "api")]
    pub listener: String,
    /// The verb.
    #[schema(example = "DELETE")]
    pub method: String,
    /// The path, percent-decoded, without the query string.
    #[schema(example = "/functions/thumbs")]
    pub path: String,
    /// What it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "function thumbs")]
    pub acted_on: Option<String>,
    /// The answer's status; 499 when the caller had left before there was one.
    #[schema(example = 200)]
    pub status: u16,
    /// The error's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "scope_missing")]
    pub code: Option<String>,
    /// From its arrival to its answer's head, in milliseconds.
    pub duration_ms: f64,
    /// Records that are missing between the one before and this one; left out when none is.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schema(default = 0)]
    pub lost_before: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Which records to read.
#[derive(Debug, Clone)]
pub struct Query {
    /// Those about this tenant's things; none for everybody's.
    pub tenant: Option<Tenant>,
    /// Those that arrived then or later, Unix time in microseconds.
    pub since_us: Option<u64>,
    /// Those of this kind.
    pub kind: Option<Kind>,
    /// Those with a smaller number.
    pub before: Option<u64>,
    /// So many at most.
    pub limit: usize,
}

/// A page of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The latest first.
    pub items: Vec<Record>,
    /// What the next page's records are [before](Query::before); none if this is the last.
    pub next: Option<u64>,
}

/// What the writer is told.
#[derive(Debug)]
enum Job {
    Note(Box<Record>),
    /// Says when all that was noted before is written.
    Catch(oneshot::Sender<()>),
}

/// What the writer and those who note and read have in common.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// Held while files change their names, and while they are opened for reading.
    names: Mutex<()>,
    /// Records that were lost since the start.
    lost: AtomicU64,
    /// Those of them that no record has spoken of yet.
    unsaid: AtomicU64,
}

impl Shared {
    fn lose(&self, records: u64) {
        self.lost.fetch_add(records, Ordering::Relaxed);
        self.unsaid.fetch_add(records, Ordering::Relaxed);
    }
}

/// The log; shared as `Arc<Audit>`.
#[derive(Debug)]
pub struct Audit {
    shared: Arc<Shared>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    readers: Arc<Semaphore>,
}

impl Audit {
    /// Opens the log of a data directory. A disk that is full now is no reason to fail: what cannot
    /// be written is counted.
    ///
    /// # Errors
    /// When the kernel gives no thread for the writer.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        Self::with_limits(data_dir, QUEUE, series::Limits::default())
    }

    fn with_limits(data_dir: &Path, queue: usize, limits: series::Limits) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared {
            dir: data_dir.join(DIRECTORY),
            names: Mutex::default(),
            lost: AtomicU64::new(0),
            unsaid: AtomicU64::new(0),
        });
        let (sender, receiver) = mpsc::channel(queue);
        let thread = writer::start(shared.clone(), receiver, limits)?;
        Ok(Self {
            shared,
            jobs: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            readers: Arc::new(Semaphore::new(READERS)),
        })
    }

    /// Notes a call; its number is given by the writer. Never waits: a record that finds no room is
    /// counted.
    pub fn note(&self, record: Record) {
        let taken = match &*self.jobs.lock() {
            Some(jobs) => jobs.try_send(Job::Note(Box::new(record))).is_ok(),
            None => false,
        };
        if !taken {
            self.shared.lose(1);
        }
    }

    /// Records that were lost since the start, because the queue was full or the disk took none.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Reads the log, everything included that was noted before.
    pub async fn list(&self, query: Query) -> std::io::Result<Page> {
        self.catch_up().await;
        let one_of_few = self.readers.clone().acquire_owned().await.expect("it is never closed");
        let shared = self.shared.clone();
        let read = move || {
            // For as long as it reads, also when who asked has left.
            let _one_of_few = one_of_few;
            reading::page(&shared, &query)
        };
        tokio::task::spawn_blocking(read).await.expect("reading the log does not panic")
    }

    /// Waits until all that was noted is written.
    async fn catch_up(&self) {
        let (caught, all_written) = oneshot::channel();
        let jobs = self.jobs.lock().clone();
        if let Some(jobs) = jobs
            && jobs.send(Job::Catch(caught)).await.is_ok()
        {
            // A writer that has ended has written what it had.
            let _ = all_written.await;
        }
    }

    /// Writes what is queued and ends the thread.
    pub async fn close(&self) {
        self.jobs.lock().take();
        let Some(thread) = self.thread.lock().take() else { return };
        if tokio::task::spawn_blocking(move || thread.join()).await.is_err() {
            tracing::warn!("the audit log's writer could not be waited for");
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.jobs.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

/// Unix microseconds as RFC 3339, for people who read the files.
mod rfc3339 {
    use jiff::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
    pub(super) fn serialize<S: Serializer>(at_us: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        let micros = i64::try_from(*at_us).unwrap_or(i64::MAX);
        serializer.collect_str(&Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let time = Timestamp::deserialize(deserializer)?;
        Ok(u64::try_from(time.as_microsecond()).unwrap_or(0))
    }
}
