//! The writer of a small database whose callers wait for durability.
//!
//! One thread owns the connection. Jobs arrive over a bounded channel (callers wait when it is
//! full) and are committed in groups: whatever is waiting when the thread becomes free shares
//! one transaction and one sync. Each job runs in a savepoint of its own, so that one that fails
//! takes nobody with it. A job's answer is given after its commit.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{StoreError, database};

/// Jobs that may wait. Callers beyond it wait in `run`; the figure only bounds memory.
const QUEUE: usize = 1_024;

/// Jobs per transaction: bounds how long the first of a group waits for the others' statements
/// (about 10 µs each, against 130 µs and more for the sync that they share).
const GROUP: usize = 64;

/// Gives the caller its answer once the fate of the transaction is known.
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Runs the statements of one job, unless there is no transaction to run them in; says whether
/// they are to be kept.
type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) -> (bool, Reply) + Send>;

/// A handle on the thread.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread that owns `connection`.
    pub(crate) fn start(connection: Connection, path: &Path) -> Result<Self, StoreError> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let file = path.to_owned();
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || serve(&connection, receiver, &file))
            .map_err(|source| StoreError::Thread { source })?;
        Ok(Self { path: path.into(), jobs: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    /// Runs statements in a transaction of the writer and waits until it is committed.
    pub(crate) async fn run<T, F>(&self, what: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, WorkError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let sender = self.jobs.lock().clone().ok_or(StoreError::Closed)?;
        let job = self.job(what, work, move |result| drop(answer.send(result)));
        sender.send(job).await.map_err(|_| StoreError::Closed)?;
        drop(sender);
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// The same without waiting: for what is written again soon. Failures are logged; false when
    /// the queue is full.
    pub(crate) fn try_run<F>(&self, what: &'static str, work: F) -> bool
    where
        F: FnOnce(&Connection) -> Result<(), WorkError> + Send + 'static,
    {
        let job = self.job(what, work, |result: Result<(), StoreError>| {
            if let Err(error) = result {
                tracing::warn!(error = %error.chain(), "a write that nobody waits for failed");
            }
        });
        self.jobs.lock().as_ref().is_some_and(|sender| sender.try_send(job).is_ok())
    }

    fn job<T, F, R>(&self, what: &'static str, work: F, reply: R) -> Job
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, WorkError> + Send + 'static,
        R: FnOnce(Result<T, StoreError>) + Send + 'static,
    {
        let path = self.path.clone();
        Box::new(move |connection| {
            let result =
                connection.and_then(|connection| work(connection).map_err(|error| error.at(what, path)));
            let keep = result.is_ok();
            (
                keep,
                Box::new(move |fate: Result<(), StoreError>| {
                    reply(result.and_then(|value| fate.map(|()| value)))
                }),
            )
        })
    }

    /// Finishes what is queued and ends the thread.
    pub(crate) async fn close(&self) {
        self.jobs.lock().take();
        let Some(thread) = self.thread.lock().take() else { return };
        // The thread is at its last jobs; joining it blocks for one commit.
        if tokio::task::spawn_blocking(move || thread.join()).await.is_err() {
            tracing::warn!("a writer of the store could not be waited for");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

/// What a job's statements can fail with.
#[derive(Debug)]
pub(crate) enum WorkError {
    /// SQLite refused.
    Sqlite(rusqlite::Error),
    /// The store refused.
    Store(StoreError),
}

impl WorkError {
    fn at(self, what: &'static str, path: PathBuf) -> StoreError {
        match self {
            Self::Sqlite(source) => StoreError::Database { what, path, source },
            Self::Store(error) => error,
        }
    }
}

impl From<rusqlite::Error> for WorkError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StoreError> for WorkError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn serve(connection: &Connection, mut jobs: mpsc::Receiver<Job>, path: &Path) {
    let mut group = Vec::with_capacity(GROUP);
    while jobs.blocking_recv_many(&mut group, GROUP) > 0 {
        commit(connection, group.drain(..), path);
    }
}

fn commit(connection: &Connection, group: impl Iterator<Item = Job>, path: &Path) {
    let begun = connection.execute_batch("BEGIN IMMEDIATE");
    let replies: Vec<Reply> = group.map(|job| run_apart(connection, job, path)).collect();
    let fate = begun.and_then(|()| connection.execute_batch("COMMIT"));
    if fate.is_err() && !connection.is_autocommit() {
        // The error that matters is already in `fate`.
        let _ = connection.execute_batch("ROLLBACK");
    }
    for reply in replies {
        reply(fate.as_ref().copied().map_err(|error| StoreError::Database {
            what: "writing",
            path: path.into(),
            source: database::copy_of(error),
        }));
    }
}

/// Runs one job in its own savepoint. A full disk can end the whole transaction under a job;
/// those after it are then refused, because outside of a transaction each would commit alone
/// and be reported as failed all the same.
fn run_apart(connection: &Connection, job: Job, path: &Path) -> Reply {
    if connection.is_autocommit() {
        let source = rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT),
            Some("the transaction had ended".into()),
        );
        return job(Err(StoreError::Database { what: "writing", path: path.into(), source })).1;
    }
    // Where a savepoint statement fails, so does the commit, and everyone hears of it.
    let _ = connection.execute_batch("SAVEPOINT job");
    let (keep, reply) = job(Ok(connection));
    let end = if keep { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
    let _ = connection.execute_batch(end);
    reply
}
