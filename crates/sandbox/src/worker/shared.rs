//! A worker that several calls share: `async def` handlers of functions with `concurrency`.
//!
//! Every call has a **seat**: its own logs, limits and mail. Callers write their frames
//! themselves; one task, owned by the worker, reads all frames as they come and puts them into
//! the seats, so that no call waits for another's reader. A caller that does not take its stream
//! has the handler paused, not the worker.
//!
//! A call that was interrupted and has ended in order leaves the worker fit for others: an
//! asyncio task was cancelled, nothing was raised into the middle of code. A call that does not
//! end is settled: if the event loop has not even read a frame for the whole grace, it is
//! blocked and nothing on it can go on, so the worker is ended and its other calls are told why.

use std::io;
use std::sync::Arc;

use fp_core::WorkerId;
use fp_core::record::LogLine;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Duration, timeout};

use super::{CancelHandle, State, Worker};
use crate::call::{Answer, Call, CallError, StreamPiece, WholeAnswer};
use crate::closing::ClosedAside;
use crate::start::Exit;

mod desk;
mod outbox;
mod reading;

use self::desk::{Desk, Mail};

/// One sandboxed process with a loaded handler that serves several calls at once. Clones are the
/// same worker; when the last of them and of its calls is dropped, everything in it ends.
#[derive(Debug, Clone)]
pub struct SharedWorker {
    room: Arc<Room>,
}

/// The worker and its reading task, which end together.
#[derive(Debug)]
struct Room {
    desk: Arc<Desk>,
    side: Arc<ClosedAside>,
    reading: AbortHandle,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.desk.process.kill();
        self.reading.abort();
    }
}

impl Worker {
    /// From here on several calls at once share it: for a handler that [is async](Self::is_async)
    /// and was loaded with a `concurrency` above 1. To be called inside of a runtime, on a worker
    /// that runs nothing.
    pub fn share(self) -> io::Result<SharedWorker> {
        debug_assert_eq!(self.state, State::Idle, "a worker is shared between calls");
        let side = self.listener.side().clone();
        let desk = Arc::new(Desk::new(self.process, self.requests, side.clone(), self.secrets)?);
        let reading = tokio::spawn(reading::run(desk.clone(), self.listener)).abort_handle();
        Ok(SharedWorker { room: Arc::new(Room { desk, side, reading }) })
    }
}

impl SharedWorker {
    /// Its id.
    pub fn id(&self) -> WorkerId {
        self.room.desk.process.id
    }

    /// Process id of its first process, as the host counts.
    pub fn host_pid(&self) -> u32 {
        self.room.desk.process.host_pid
    }

    /// Whether its process has ended.
    pub fn is_gone(&self) -> bool {
        self.room.desk.process.is_gone()
    }

    /// A place for one call. How many there may be at once is the owner's affair.
    pub fn seat(&self) -> SharedCall {
        let news = Arc::new(Notify::new());
        SharedCall { room: self.room.clone(), news, serial: 0, state: Progress::Unsent }
    }

    /// Resolves when the worker is gone, without borrowing it.
    pub fn exit_watch(&self) -> impl Future<Output = Exit> + Send + 'static {
        self.room.desk.process.exit_watch()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// No call was made yet.
    Unsent,
    /// A call was sent; its answer has not come.
    Calling,
    /// The head of a stream has come; its end has not.
    Streaming,
    /// The worker has said its last word about it.
    Over,
    /// It ended without one.
    Broken,
}

/// One call's place on a shared worker. Dropping it while its call runs interrupts the call; what
/// the handler still sends of it is thrown away.
#[derive(Debug)]
pub struct SharedCall {
    room: Arc<Room>,
    news: Arc<Notify>,
    serial: u64,
    state: Progress,
}

impl SharedCall {
    /// The worker's id.
    pub fn worker_id(&self) -> WorkerId {
        self.room.desk.process.id
    }

    /// Runs the handler, once per seat. Dropping the future leaves the call running: end it by
    /// [`settle`](Self::settle), or by dropping the seat.
    pub async fn call(&mut self, call: Call<'_>) -> Result<Answer, CallError> {
        if self.state != Progress::Unsent {
            return Err(CallError::NotReusable);
        }
        self.serial = call.serial;
        self.state = Progress::Calling;
        if let Err(error) = self.room.desk.open(&call, &self.news) {
            self.state = Progress::Broken;
            return Err(error);
        }
        match self.mail().await {
            Mail::Whole(head, body, logs) => {
                self.state = Progress::Over;
                Ok(Answer::Whole(WholeAnswer { head, body, logs }))
            }
            Mail::Stream(head) => {
                self.state = Progress::Streaming;
                Ok(Answer::Stream { head })
            }
            Mail::Failed(failure, logs) => {
                self.state = Progress::Over;
                Ok(Answer::Failed { failure, logs })
            }
            Mail::Broken(error) => {
                self.state = Progress::Broken;
                Err(error)
            }
            Mail::Chunk(_) | Mail::End(..) => unreachable!("the desk lets no stream begin without its head"),
        }
    }

    /// The next piece after [`Answer::Stream`]. Cancel-safe.
    pub async fn next_chunk(&mut self) -> Result<StreamPiece, CallError> {
        if self.state != Progress::Streaming {
            return Err(CallError::NotReusable);
        }
        let (state, piece) = match self.mail().await {
            Mail::Chunk(bytes) => return Ok(StreamPiece::Chunk(bytes)),
            Mail::End(end, logs) => (Progress::Over, Ok(StreamPiece::End { end, logs })),
            Mail::Failed(failure, logs) => (Progress::Over, Ok(StreamPiece::Failed { failure, logs })),
            Mail::Broken(error) => (Progress::Broken, Err(error)),
            Mail::Whole(..) | Mail::Stream(_) => unreachable!("the desk lets a stream have one head"),
        };
        self.state = state;
        piece
    }

    /// What comes next for this call. Cancel-safe: it is taken when it is returned.
    async fn mail(&self) -> Mail {
        loop {
            if let Some(mail) = self.room.desk.take(self.serial) {
                return mail;
            }
            self.news.notified().await;
        }
    }

    /// Whether the slot can be given to another call: none was made, or it ended in order.
    pub fn is_reusable(&self) -> bool {
        matches!(self.state, Progress::Unsent | Progress::Over) && !self.room.desk.process.is_gone()
    }

    /// What the call has printed and logged so far; leaves nothing behind.
    pub fn take_logs(&mut self) -> Vec<LogLine> {
        self.room.desk.take_logs(self.serial)
    }

    /// Interrupts the call, if it runs.
    pub fn cancel(&self) {
        if matches!(self.state, Progress::Calling | Progress::Streaming) {
            CancelHandle { side: self.room.side.clone() }.cancel(self.serial);
        }
    }

    /// After the call was given up: waits up to `grace` for its end and returns what it printed
    /// and logged from its beginning. If it ends, the slot is reusable. If it does not, that is
    /// the end of it for this side; and if its time was up (`is_late`) and the event loop has
    /// read nothing for the whole of `grace`, the worker is ended with all that runs on it.
    pub async fn settle(&mut self, grace: Duration, is_late: bool) -> Vec<LogLine> {
        if !matches!(self.state, Progress::Calling | Progress::Streaming) {
            return self.take_logs();
        }
        let desk = self.room.desk.clone();
        let probe = desk.probe(self.serial);
        if let Ok(logs) = timeout(grace, self.last_word()).await {
            return logs;
        }
        if is_late && desk.is_unread(probe) {
            desk.end_for(self.serial, grace);
        }
        self.take_logs()
    }

    /// The end of a call that nobody waits for, and its output.
    async fn last_word(&mut self) -> Vec<LogLine> {
        let (state, logs) = loop {
            match self.mail().await {
                Mail::Stream(_) | Mail::Chunk(_) => {}
                Mail::Whole(_, _, logs) | Mail::Failed(_, logs) | Mail::End(_, logs) => {
                    break (Progress::Over, logs);
                }
                Mail::Broken(error) => break (Progress::Broken, error.into_logs()),
            }
        };
        self.state = state;
        logs
    }
}

impl Drop for SharedCall {
    fn drop(&mut self) {
        self.cancel();
        if self.state != Progress::Unsent {
            self.room.desk.leave(self.serial);
        }
    }
}
