//! A worker as the platform sees it, owned exclusively: one call at a time.
//!
//! [`Worker::call`] is the warm path: one write, reads into one reused buffer, no task in
//! between. Whatever breaks the protocol ends the worker; so does dropping a call half-way.
//! Where several calls are to share one, [`Worker::share`] makes it a [`SharedWorker`].

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use fp_core::WorkerId;
use fp_core::record::LogLine;
use rustix::io::Errno;
use tokio::net::unix::pipe;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Duration, Instant, timeout, timeout_at};

use crate::call::{Answer, Call, CallError, StreamPiece, WholeAnswer};
use crate::closing::ClosedAside;
use crate::fds;
use crate::frames::{self, Frame, Lent};
use crate::logs::Logs;
use crate::protocol::{
    AnswerHead, EndHead, FailureHead, FailureKind, FrameType, HelloHead, LoadHead, LoadedHead,
    MEMFD_THRESHOLD, VERSION,
};
use crate::secrets::SecretFrames;
use crate::start::{Exit, StartError};

mod listener;
mod process;
mod shared;

use self::listener::Listener;
use self::process::Process;
pub use self::shared::{SharedCall, SharedWorker};

/// Largest piece of output kept while loading.
const LOAD_OUTPUT: usize = 64 * 1024;

/// When a call that has no answer is looked after: whether its worker has read it. Many times what a
/// worker takes for that on a busy host, and still less than most people notice.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// What the launcher handed over.
pub(crate) struct Parts {
    pub id: WorkerId,
    pub host_pid: u32,
    pub blank: bool,
    pub requests: OwnedFd,
    pub answers: OwnedFd,
    pub side: OwnedFd,
    pub output: OwnedFd,
    pub pidfd: OwnedFd,
    pub exit: watch::Receiver<Option<Exit>>,
    /// Its share of the open files.
    pub place: OwnedSemaphorePermit,
    pub memory: u64,
    pub response_limit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Loading,
    Idle,
    /// A call was sent; its answer has not come.
    Calling,
    /// The head of a stream has come; its end has not.
    Streaming(u64),
    /// Nothing more can be asked of it.
    UsedUp,
}

/// One sandboxed process with a loaded handler, owned exclusively. Dropping it ends everything
/// that runs in it.
#[derive(Debug)]
pub struct Worker {
    process: Process,
    was_blank: bool,
    is_async: bool,
    load_output: String,
    response_limit: usize,
    state: State,
    requests: pipe::Sender,
    out: Vec<u8>,
    /// A long body of the call that runs.
    lent: Option<Lent>,
    listener: Listener,
    logs: Logs,
    /// Generation of the secrets that it was sent last.
    secrets: u64,
}

/// Why the conversation is over.
enum Broken {
    /// The other side is gone.
    Gone,
    /// It was gone when something was written to it.
    GoneUnread,
    /// It breaks the rules.
    Protocol(String),
    /// Our own side fails.
    Host(String),
}

impl Broken {
    fn host(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::GoneUnread,
            _ => Self::Host(error.to_string()),
        }
    }
}

/// A request's end, or more to come.
enum Reply {
    Answer(AnswerHead, Bytes),
    Stream(AnswerHead),
    Failure(Box<FailureHead>),
}

impl Worker {
    pub(crate) fn new(parts: Parts) -> io::Result<Self> {
        let side = Arc::new(ClosedAside::new(parts.side));
        Ok(Self {
            process: Process {
                id: parts.id,
                host_pid: parts.host_pid,
                memory: parts.memory,
                exit: parts.exit,
                pidfd: parts.pidfd,
                _place: parts.place,
            },
            was_blank: parts.blank,
            is_async: false,
            load_output: String::new(),
            response_limit: parts.response_limit,
            state: State::Loading,
            requests: pipe::Sender::from_owned_fd(parts.requests)?,
            out: Vec::new(),
            lent: None,
            listener: Listener::new(parts.answers, side, parts.output)?,
            logs: Logs::default(),
            secrets: 0,
        })
    }

    /// Its id.
    pub fn id(&self) -> WorkerId {
        self.process.id
    }

    /// Process id of its first process, as the host counts.
    pub fn host_pid(&self) -> u32 {
        self.process.host_pid
    }

    /// The handler is `async def` or an async generator.
    pub fn is_async(&self) -> bool {
        self.is_async
    }

    /// It was claimed from the pool of blank workers, not forked for this start.
    pub fn was_blank(&self) -> bool {
        self.was_blank
    }

    /// What was printed while loading.
    pub fn load_output(&self) -> &str {
        &self.load_output
    }

    /// False after an error, an interrupted handler or a dropped call: drop the worker then.
    pub fn is_reusable(&self) -> bool {
        self.state == State::Idle && !self.process.is_gone()
    }

    /// After a [`call`](Self::call) or a stream was given up (its future dropped, with a cancel
    /// notice sent or its deadline passed): lets the interrupted handler run its `finally`
    /// blocks for up to `grace` and returns what the call printed and logged from its beginning.
    /// Logs survive a dropped `call` future because they are kept in the worker until taken.
    /// The worker stays reusable only if the handler had ended before it could be interrupted.
    pub async fn settle(&mut self, grace: std::time::Duration) -> Vec<fp_core::record::LogLine> {
        let ended = match self.state {
            State::Idle => true,
            // Without a last word by then there is none.
            State::Calling | State::Streaming(_) => {
                matches!(timeout(grace, self.last_word()).await, Ok(Ok(true)))
            }
            State::Loading | State::UsedUp => false,
        };
        self.lent = None;
        if ended {
            self.state = State::Idle;
        } else {
            self.state = State::UsedUp;
            self.process.kill();
        }
        self.take_logs()
    }

    /// The end of a call that nobody waits for; what it prints until then is kept.
    /// True if it came in order: the notice that it was given up was too late to interrupt anything.
    async fn last_word(&mut self) -> Result<bool, Broken> {
        loop {
            let frame = self.next_frame().await?;
            match frame.kind {
                FrameType::Log => self.listener.keep_log(&frame, &mut self.logs)?,
                // A memfd would still be in the side channel.
                FrameType::Answer | FrameType::StreamEnd => return Ok(!frame.memfd),
                FrameType::Failure => return Ok(false),
                _ => {}
            }
        }
    }

    /// What the current call has printed and logged so far; leaves nothing behind. For answers
    /// that are sent at a deadline while the handler still runs.
    pub fn take_logs(&mut self) -> Vec<fp_core::record::LogLine> {
        self.drain_output();
        self.logs.take(0)
    }

    /// Resolves when the worker is gone, without borrowing it: whoever keeps idle workers notices
    /// their death by this.
    pub fn exit_watch(&self) -> impl Future<Output = Exit> + Send + 'static {
        self.process.exit_watch()
    }

    /// A handle that cancels calls from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle { side: self.listener.side().clone() }
    }

    /// Resolves when the worker is gone. Cancel-safe.
    pub async fn exited(&self) -> Exit {
        self.exit_watch().await
    }

    /// Loads the handler; what comes back is ready for calls.
    pub(crate) async fn load(
        &mut self,
        head: &LoadHead,
        secrets: Option<&SecretFrames>,
        deadline: Instant,
        limit: Duration,
    ) -> Result<(), StartError> {
        self.logs.begin(LOAD_OUTPUT);
        let loading = timeout_at(deadline, self.load_to_the_end(head, secrets)).await;
        let exit = match &loading {
            Ok(Err(broken)) => self.end_of_life(broken).await,
            _ => Exit::LOST,
        };
        self.drain_output();
        let output: String = self.logs.take(0).into_iter().map(|line| line.text).collect();
        let broken = match loading {
            Ok(Ok(Ok(loaded))) => {
                self.is_async = loaded.is_async;
                self.load_output = loaded.output + &output;
                self.state = State::Idle;
                return Ok(());
            }
            Ok(Ok(Err(failure))) => return Err(StartError::LoadFailed { failure, output }),
            Ok(Err(broken)) => broken,
            Err(_) => return Err(StartError::TimedOut { limit, output }),
        };
        Err(match broken {
            Broken::Gone | Broken::GoneUnread => StartError::gone(exit, self.process.memory, output),
            Broken::Protocol(what) => StartError::Protocol { what },
            Broken::Host(what) => StartError::Host(what),
        })
    }

    async fn load_to_the_end(
        &mut self,
        head: &LoadHead,
        secrets: Option<&SecretFrames>,
    ) -> Result<Result<LoadedHead, Box<FailureHead>>, Broken> {
        // First: the module may read them while it is loaded.
        self.send_secrets(secrets).await?;
        self.out.clear();
        frames::append(&mut self.out, FrameType::Load, 0, head, b"").map_err(Broken::Host)?;
        self.write_out().await?;
        let frame = self.next_frame().await?;
        let hello: HelloHead = match frame.kind {
            FrameType::Hello => self.listener.parse(&frame)?,
            other => return Err(Broken::Protocol(format!("it began with {other:?} instead of Hello"))),
        };
        if hello.protocol != VERSION {
            let what =
                format!("it speaks version {} of the protocol, the platform {VERSION}", hello.protocol);
            return Err(Broken::Protocol(what));
        }
        loop {
            let frame = self.next_frame().await?;
            match frame.kind {
                FrameType::Log => self.listener.keep_log(&frame, &mut self.logs)?,
                FrameType::Loaded => break self.listener.parse(&frame).map(Ok),
                FrameType::LoadFailed => break self.listener.parse(&frame).map(Err),
                other => break Err(Broken::Protocol(format!("it sent {other:?} while loading"))),
            }
        }
    }

    /// Runs the handler. Dropping the future leaves the worker unusable: drop it, too.
    pub async fn call(&mut self, call: Call<'_>) -> Result<Answer, CallError> {
        if self.state != State::Idle {
            return Err(CallError::NotReusable);
        }
        self.state = State::Calling;
        self.logs.begin(call.log_limit);
        self.response_limit = call.response_limit;
        let replied = match self.send_call(&call).await {
            Ok(()) => self.reply_unless_stopped(call.serial).await,
            Err(broken) => Err(broken),
        };
        match replied {
            Ok(Reply::Answer(head, body)) => {
                let logs = self.finish(head.usage.log_bytes);
                Ok(Answer::Whole(WholeAnswer { head, body, logs }))
            }
            Ok(Reply::Stream(head)) => {
                self.state = State::Streaming(call.serial);
                Ok(Answer::Stream { head })
            }
            Ok(Reply::Failure(failure)) => {
                let logs = self.finish_failed(&failure);
                Ok(Answer::Failed { failure, logs })
            }
            Err(broken) => Err(self.call_error(broken).await),
        }
    }

    async fn send_call(&mut self, call: &Call<'_>) -> Result<(), Broken> {
        self.send_secrets(call.secrets.as_deref()).await?;
        self.out.clear();
        frames::append(&mut self.out, FrameType::Call, call.serial, &call.head, &call.body)
            .map_err(Broken::Host)?;
        if call.body.len() > MEMFD_THRESHOLD {
            let lent = Lent::new(&call.body);
            let lent = lent.map_err(|e| Broken::Host(format!("a memfd for the body: {e}")))?;
            let lent = self.lent.insert(lent);
            // Empty between calls, so there is room; it goes first, so it waits when looked for.
            let sent = fds::send(&**self.listener.side(), &call.serial.to_le_bytes(), &[lent.as_fd()]);
            sent.map_err(|error| match error {
                Errno::AGAIN | Errno::TOOMANYREFS => {
                    Broken::Protocol("it left the bodies of earlier calls in its side channel".into())
                }
                error => Broken::host(error.into()),
            })?;
        }
        self.write_out().await
    }

    /// Unless the worker has them. They are written from where they lie: a copy in `out` would stay.
    async fn send_secrets(&mut self, secrets: Option<&SecretFrames>) -> Result<(), Broken> {
        let Some(secrets) = secrets.filter(|secrets| secrets.generation() != self.secrets) else {
            return Ok(());
        };
        self.secrets = secrets.generation();
        write(&self.requests, secrets.bytes()).await
    }

    /// The reply of a worker that is at work. One that somebody has stopped (SIGSTOP, a debugger) before
    /// it had read the call is ended, and the call never started.
    async fn reply_unless_stopped(&mut self, serial: u64) -> Result<Reply, Broken> {
        if let Ok(replied) = timeout(LOOK_AFTER, self.reply(serial)).await {
            return replied;
        }
        if self.left_unread() && self.process.is_stopped() {
            self.process.kill();
        }
        self.reply(serial).await
    }

    /// Cancel-safe.
    async fn reply(&mut self, serial: u64) -> Result<Reply, Broken> {
        loop {
            let frame = self.next_frame().await?;
            self.check_serial(&frame, serial)?;
            match frame.kind {
                FrameType::Log => self.listener.keep_log(&frame, &mut self.logs)?,
                FrameType::Answer => {
                    let head = self.listener.parse(&frame)?;
                    let body = self.listener.whole_body(&frame, self.response_limit)?;
                    return Ok(Reply::Answer(head, body));
                }
                FrameType::StreamHead => return self.listener.parse(&frame).map(Reply::Stream),
                FrameType::Failure => return self.listener.parse(&frame).map(Reply::Failure),
                other => return Err(Broken::Protocol(format!("it sent {other:?} in a call"))),
            }
        }
    }

    /// The next piece after [`Answer::Stream`]. Cancel-safe.
    pub async fn next_chunk(&mut self) -> Result<StreamPiece, CallError> {
        let State::Streaming(serial) = self.state else { return Err(CallError::NotReusable) };
        match self.next_piece(serial).await {
            Ok(piece) => Ok(piece),
            Err(broken) => Err(self.call_error(broken).await),
        }
    }

    async fn next_piece(&mut self, serial: u64) -> Result<StreamPiece, Broken> {
        loop {
            let frame = self.next_frame().await?;
            self.check_serial(&frame, serial)?;
            match frame.kind {
                FrameType::Log => self.listener.keep_log(&frame, &mut self.logs)?,
                FrameType::StreamChunk => {
                    return self.listener.body(&frame, self.response_limit).map(StreamPiece::Chunk);
                }
                FrameType::StreamEnd => {
                    let end: EndHead = self.listener.parse(&frame)?;
                    let logs = self.finish(end.usage.log_bytes);
                    return Ok(StreamPiece::End { end, logs });
                }
                FrameType::Failure => {
                    let failure: Box<FailureHead> = self.listener.parse(&frame)?;
                    let logs = self.finish_failed(&failure);
                    return Ok(StreamPiece::Failed { failure, logs });
                }
                other => return Err(Broken::Protocol(format!("it sent {other:?} in a stream"))),
            }
        }
    }

    fn finish(&mut self, produced: u64) -> Vec<LogLine> {
        self.lent = None;
        self.drain_output();
        self.state = State::Idle;
        self.logs.take(produced)
    }

    fn finish_failed(&mut self, failure: &FailureHead) -> Vec<LogLine> {
        let logs = self.finish(failure.usage.log_bytes);
        // An interrupted handler may have left anything half done.
        if matches!(failure.kind, FailureKind::DeadlineExceeded | FailureKind::Cancelled) {
            self.state = State::UsedUp;
        }
        logs
    }

    fn check_serial(&self, frame: &Frame, serial: u64) -> Result<(), Broken> {
        // What a thread of the handler printed between calls; like the pipe's, it stays here.
        let is_between = frame.serial == 0 && frame.kind == FrameType::Log;
        if frame.serial == serial || is_between {
            return Ok(());
        }
        let what = format!("it sent {:?} for call {} during call {serial}", frame.kind, frame.serial);
        Err(Broken::Protocol(what))
    }

    async fn write_out(&mut self) -> Result<(), Broken> {
        write(&self.requests, &self.out).await?;
        // A large body must not stay in every idle worker's buffer.
        if self.out.capacity() > MEMFD_THRESHOLD / 4 {
            self.out = Vec::new();
        }
        Ok(())
    }

    async fn next_frame(&mut self) -> Result<Frame, Broken> {
        self.listener.next_frame(|bytes| self.logs.piped(bytes)).await
    }

    /// Whether a part of the call is still in the pipe.
    fn left_unread(&self) -> bool {
        // Where the kernel does not say, the handler may have run.
        rustix::io::ioctl_fionread(&self.requests).is_ok_and(|bytes| bytes > 0)
    }

    fn drain_output(&mut self) {
        self.listener.drain_output(|bytes| self.logs.piped(bytes));
    }

    async fn call_error(&mut self, broken: Broken) -> CallError {
        let gone = matches!(broken, Broken::Gone | Broken::GoneUnread);
        // In a stream the call was read, whatever else was not.
        let unread = self.state == State::Calling
            && gone
            && (matches!(broken, Broken::GoneUnread) || self.left_unread());
        let exit = self.end_of_life(&broken).await;
        let logs = self.logs.take(0);
        match broken {
            _ if unread => CallError::NeverStarted { exit },
            Broken::Gone | Broken::GoneUnread => CallError::gone(exit, self.process.memory, logs),
            Broken::Protocol(what) => CallError::Protocol { what, logs },
            Broken::Host(what) => CallError::Host { what, logs },
        }
    }

    /// Ends it for good and learns how it ended, where that matters.
    async fn end_of_life(&mut self, broken: &Broken) -> Exit {
        self.state = State::UsedUp;
        self.lent = None;
        self.process.kill();
        let exit = match broken {
            Broken::Gone | Broken::GoneUnread => self.process.last_report().await,
            Broken::Protocol(_) | Broken::Host(_) => Exit::LOST,
        };
        self.drain_output();
        exit
    }
}

async fn write(requests: &pipe::Sender, bytes: &[u8]) -> Result<(), Broken> {
    let mut written = 0;
    while written < bytes.len() {
        match requests.try_write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                requests.writable().await.map_err(Broken::host)?;
            }
            Err(error) => return Err(Broken::host(error)),
        }
    }
    Ok(())
}

/// Sends cancel notices to one worker.
#[derive(Debug, Clone)]
pub struct CancelHandle {
    side: Arc<ClosedAside>,
}

impl CancelHandle {
    /// Interrupts the call with this serial; one that has ended is left alone. A worker that
    /// does not take notices is not waited for: its deadline will end it.
    pub fn cancel(&self, serial: u64) {
        let mut notice = [b'C'; 9];
        notice[..8].copy_from_slice(&serial.to_le_bytes());
        match fds::send(&*self.side, &notice, &[]) {
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(error) => {
                tracing::debug!(side = self.side.as_raw_fd(), %error, "a cancel notice was not taken")
            }
        }
    }
}
