//! What the callers of a shared worker and its reading task have in common: the seats of the
//! calls, and what waits to be sent.
//!
//! One short lock that no await is held across. Mail is bounded per call: a stream that its
//! caller does not take is paused, and a worker that sends on regardless breaks the protocol.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fp_core::record::LogLine;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use tokio::time::Duration;

use super::outbox::{Letter, Outbox, Payload, Sent};
use crate::call::{Call, CallError};
use crate::closing::ClosedAside;
use crate::fds;
use crate::frames::{self, Frame, Lent};
use crate::logs::Logs;
use crate::protocol::{AnswerHead, EndHead, FailureHead, FrameType, LogHead, MEMFD_THRESHOLD};
use crate::start::Exit;
use crate::worker::Broken;
use crate::worker::process::Process;

/// A stream whose caller has left this much untaken is paused: a piece of the largest size.
const PAUSE_ABOVE: usize = MEMFD_THRESHOLD;
/// And goes on when no more than this is left, so that notices are few.
const RESUME_BELOW: usize = PAUSE_ABOVE / 4;
/// Until it reads the notice the worker may send what fits into its pipe and two pieces: far
/// less than this.
const MOST_UNTAKEN: usize = 16 * PAUSE_ABOVE;

/// What a piece takes besides its bytes: its place among the mail, and what an allocation costs. Without
/// it a stream of empty pieces could grow for ever.
const EACH_PIECE: usize = 256;

/// What a worker says about a call, with the call's output at its end.
#[derive(Debug)]
pub(super) enum Mail {
    Whole(AnswerHead, Bytes, Vec<LogLine>),
    Stream(AnswerHead),
    Chunk(Bytes),
    End(EndHead, Vec<LogLine>),
    Failed(Box<FailureHead>, Vec<LogLine>),
    Broken(CallError),
}

/// One call.
#[derive(Debug)]
struct Seat {
    news: Arc<Notify>,
    mail: VecDeque<Mail>,
    logs: Logs,
    response_limit: usize,
    /// Where its frame ends in the stream of requests.
    frame_end: u64,
    /// Its body, if that is long.
    lent: Option<Arc<Lent>>,
    /// What the chunks in `mail` take, in bytes.
    untaken: usize,
    is_paused: bool,
    is_stream: bool,
    /// The worker has said its last word.
    is_over: bool,
    /// Nobody will take the mail.
    is_left: bool,
}

#[derive(Debug, Default)]
struct State {
    seats: HashMap<u64, Seat>,
    outbox: Outbox,
    /// Generation of the secrets that it was sent last.
    secrets: u64,
    /// Why we ended it.
    reason: Option<Reason>,
    /// It is gone, and every call was told.
    end: Option<Exit>,
}

#[derive(Debug, Clone)]
enum Reason {
    /// The call with this serial was late and the event loop stood still.
    Blocked { serial: u64, why: String },
    /// Sending failed.
    Host(String),
}

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) process: Process,
    requests: pipe::Sender,
    side: AsyncFd<Arc<ClosedAside>>,
    state: Mutex<State>,
    /// Something could not be sent at once.
    stuck: Notify,
}

impl Desk {
    pub(super) fn new(
        process: Process,
        requests: pipe::Sender,
        side: Arc<ClosedAside>,
        secrets: u64,
    ) -> io::Result<Self> {
        let side = fds::watch_shared(side)?;
        let state = Mutex::new(State { secrets, ..State::default() });
        Ok(Self { process, requests, side, state, stuck: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing between lock and unlock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // For the callers.

    /// Sends a call; its mail comes with `news`. An error is this call's alone.
    pub(super) fn open(&self, call: &Call<'_>, news: &Arc<Notify>) -> Result<(), CallError> {
        let host = |what| CallError::Host { what, logs: Vec::new() };
        let mut frame = Vec::new();
        frames::append(&mut frame, FrameType::Call, call.serial, &call.head, &call.body).map_err(host)?;
        let is_long = call.body.len() > MEMFD_THRESHOLD;
        let lent = is_long.then(|| Lent::new(&call.body)).transpose();
        let lent = lent.map_err(|e| host(format!("a memfd for the body: {e}")))?.map(Arc::new);
        let mut logs = Logs::default();
        logs.begin(call.log_limit);
        let mut state = self.lock();
        if let Some(exit) = state.end {
            return Err(CallError::NeverStarted { exit });
        }
        if let Some(secrets) = call.secrets.as_ref().filter(|secrets| secrets.generation() != state.secrets) {
            state.secrets = secrets.generation();
            state.outbox.post(Letter { memfd: None, frame: Payload::Secrets(secrets.clone()) });
        }
        let frame = Payload::Frame(frame);
        let letter = Letter { memfd: lent.clone().map(|lent| (call.serial, lent)), frame };
        let frame_end = state.outbox.post(letter);
        let seat = Seat {
            news: news.clone(),
            mail: VecDeque::new(),
            logs,
            response_limit: call.response_limit,
            frame_end,
            lent,
            untaken: 0,
            is_paused: false,
            is_stream: false,
            is_over: false,
            is_left: false,
        };
        state.seats.insert(call.serial, seat);
        self.send(&mut state);
        Ok(())
    }

    /// The next mail of a call, if it is there. A last word ends the seat.
    pub(super) fn take(&self, serial: u64) -> Option<Mail> {
        let mut state = self.lock();
        let seat = state.seats.get_mut(&serial)?;
        let mail = seat.mail.pop_front()?;
        match &mail {
            Mail::Chunk(bytes) => {
                seat.untaken -= taken_by(bytes);
                if seat.is_paused && seat.untaken <= RESUME_BELOW {
                    seat.is_paused = false;
                    state.outbox.post(notice(FrameType::Resume, serial));
                    self.send(&mut state);
                }
            }
            Mail::Stream(_) => {}
            _ => {
                state.seats.remove(&serial);
            }
        }
        Some(mail)
    }

    pub(super) fn take_logs(&self, serial: u64) -> Vec<LogLine> {
        self.lock().seats.get_mut(&serial).map(|seat| seat.logs.take(0)).unwrap_or_default()
    }

    /// Sends a notice without effect, except that a paused stream can come to its end; returns
    /// what [`is_unread`](Self::is_unread) takes.
    pub(super) fn probe(&self, serial: u64) -> u64 {
        let mut state = self.lock();
        let end = state.outbox.post(notice(FrameType::Resume, serial));
        self.send(&mut state);
        end
    }

    /// Whether the worker has not read up to there yet.
    pub(super) fn is_unread(&self, end: u64) -> bool {
        let unread = self.unread();
        !self.lock().outbox.was_read(end, unread)
    }

    /// Bytes in the pipe. Where the kernel does not say, the worker may have read all.
    fn unread(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.requests).unwrap_or(0)
    }

    /// Ends the worker because this call was late and its event loop stood still for `grace`.
    pub(super) fn end_for(&self, serial: u64, grace: Duration) {
        let why = format!(
            "the worker was ended because another call on it was past its time and its event loop had stood still for {grace:?}; await instead of blocking (asyncio.to_thread takes what blocks), or set concurrency = 1"
        );
        self.lock().reason.get_or_insert(Reason::Blocked { serial, why });
        self.process.kill();
    }

    /// The caller is gone: what still comes is thrown away.
    pub(super) fn leave(&self, serial: u64) {
        let mut state = self.lock();
        let Some(seat) = state.seats.get_mut(&serial) else { return };
        if seat.is_over {
            state.seats.remove(&serial);
            return;
        }
        seat.is_left = true;
        seat.lent = None;
        seat.mail.clear();
        seat.untaken = 0;
        if std::mem::take(&mut seat.is_paused) {
            state.outbox.post(notice(FrameType::Resume, serial));
            self.send(&mut state);
        }
    }

    // For the reading task.

    /// Sends what was stuck whenever there is room.
    pub(super) async fn keep_sending(&self) -> Infallible {
        loop {
            let sent = self.lock().outbox.flush(&self.requests, self.side.get_ref());
            match sent {
                Ok(Sent::All) => self.stuck.notified().await,
                Ok(Sent::PipeFull) => {
                    // An error is the end of the runtime.
                    if self.requests.writable().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                Ok(Sent::SideFull) => {
                    let Ok(mut ready) = self.side.writable().await else {
                        return std::future::pending().await;
                    };
                    let again = self.lock().outbox.flush(&self.requests, self.side.get_ref());
                    if matches!(again, Ok(Sent::SideFull)) {
                        ready.clear_ready();
                    }
                }
                Err(error) => {
                    self.cannot_send(&mut self.lock(), &error);
                    return std::future::pending().await;
                }
            }
        }
    }

    pub(super) fn log(&self, serial: u64, head: LogHead, text: &[u8]) {
        let mut state = self.lock();
        match state.seats.get_mut(&serial).filter(|seat| !seat.is_over) {
            Some(seat) => seat.logs.frame(head.source, head.level, text),
            // From a thread that belongs to no call, or to one that has just ended.
            None => state.of_nobody(text, |logs| logs.frame(head.source, head.level.clone(), text)),
        }
    }

    /// Output that bypassed Python.
    pub(super) fn piped(&self, bytes: &[u8]) {
        self.lock().of_nobody(bytes, |logs| logs.piped(bytes));
    }

    /// What the worker wrote when it died concerns all whom it took along.
    pub(super) fn last_words(&self, bytes: &[u8]) {
        self.lock().running().for_each(|seat| seat.logs.piped(bytes));
    }

    /// The limit of the call that a frame belongs to.
    pub(super) fn response_limit(&self, frame: &Frame) -> Result<usize, Broken> {
        let state = self.lock();
        let seat = state.seats.get(&frame.serial).filter(|seat| !seat.is_over);
        seat.map(|seat| seat.response_limit).ok_or_else(|| no_such_call(frame.serial))
    }

    pub(super) fn stream(&self, serial: u64, head: AnswerHead) -> Result<(), Broken> {
        self.with_seat(serial, false, |seat| {
            seat.is_stream = true;
            seat.put(Mail::Stream(head));
        })
    }

    pub(super) fn answer(&self, serial: u64, head: AnswerHead, body: Bytes) -> Result<(), Broken> {
        self.with_seat(serial, false, |seat| {
            let logs = seat.logs.take(head.usage.log_bytes);
            seat.put_last(Mail::Whole(head, body, logs));
        })
    }

    pub(super) fn end(&self, serial: u64, end: EndHead) -> Result<(), Broken> {
        self.with_seat(serial, true, |seat| {
            let logs = seat.logs.take(end.usage.log_bytes);
            seat.put_last(Mail::End(end, logs));
        })
    }

    pub(super) fn failure(&self, serial: u64, failure: Box<FailureHead>) -> Result<(), Broken> {
        let is_stream = self.lock().seats.get(&serial).is_some_and(|seat| seat.is_stream);
        self.with_seat(serial, is_stream, |seat| {
            let logs = seat.logs.take(failure.usage.log_bytes);
            seat.put_last(Mail::Failed(failure, logs));
        })
    }

    pub(super) fn chunk(&self, serial: u64, bytes: Bytes) -> Result<(), Broken> {
        let mut pause = Ok(false);
        self.with_seat(serial, true, |seat| pause = seat.put_chunk(bytes))?;
        if pause? {
            let mut state = self.lock();
            state.outbox.post(notice(FrameType::Pause, serial));
            self.send(&mut state);
        }
        Ok(())
    }

    /// The worker is gone: tells every call that still runs how it ended.
    pub(super) fn close(&self, broken: Broken, exit: Exit) {
        let unread = self.unread();
        let mut state = self.lock();
        state.end = Some(exit);
        let State { seats, outbox, reason, .. } = &mut *state;
        for (serial, seat) in seats.iter_mut().filter(|(_, seat)| !seat.is_over) {
            let logs = seat.logs.take(0);
            let was_read = seat.is_stream || outbox.was_read(seat.frame_end, unread);
            let error = match (&broken, &*reason) {
                _ if !was_read => CallError::NeverStarted { exit },
                (Broken::Protocol(what), _) => CallError::Protocol { what: what.clone(), logs },
                (Broken::Host(what), _) | (_, Some(Reason::Host(what))) => {
                    CallError::Host { what: what.clone(), logs }
                }
                (_, Some(Reason::Blocked { serial: late, why })) if late != serial => {
                    CallError::EndedForAnother { why: why.clone(), logs }
                }
                _ => CallError::gone(exit, self.process.memory, logs),
            };
            seat.put_last(Mail::Broken(error));
        }
        seats.retain(|_, seat| !seat.is_left);
    }

    fn with_seat(&self, serial: u64, is_stream: bool, act: impl FnOnce(&mut Seat)) -> Result<(), Broken> {
        let mut state = self.lock();
        let seat = state.seats.get_mut(&serial).filter(|seat| !seat.is_over);
        let seat = seat.ok_or_else(|| no_such_call(serial))?;
        if seat.is_stream != is_stream {
            let what = if is_stream { "before its head" } else { "after it had begun a stream" };
            return Err(Broken::Protocol(format!("it sent something else for call {serial} {what}")));
        }
        act(seat);
        if seat.is_over && seat.is_left {
            state.seats.remove(&serial);
        }
        Ok(())
    }

    /// Sends what there is room for; the reading task does the rest.
    fn send(&self, state: &mut State) {
        match state.outbox.flush(&self.requests, self.side.get_ref()) {
            Ok(Sent::All) => {}
            Ok(Sent::PipeFull | Sent::SideFull) => self.stuck.notify_one(),
            Err(error) => self.cannot_send(state, &error),
        }
    }

    /// A worker that has hung up is noticed where it is read from.
    fn cannot_send(&self, state: &mut State, error: &io::Error) {
        if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) {
            state.reason.get_or_insert(Reason::Host(error.to_string()));
            self.process.kill();
        }
    }
}

impl State {
    /// Calls about which the worker has not said its last word.
    fn running(&mut self) -> impl Iterator<Item = &mut Seat> {
        self.seats.values_mut().filter(|seat| !seat.is_over)
    }

    /// Output that says not whose it is: that of the only call there is; with several it is
    /// counted for each, because no call's logs may hold another's.
    fn of_nobody(&mut self, bytes: &[u8], keep: impl FnOnce(&mut Logs)) {
        if self.running().nth(1).is_some() {
            return self.running().for_each(|seat| seat.logs.unclaimed(bytes));
        }
        if let Some(sole) = self.running().next() {
            keep(&mut sole.logs);
        }
    }
}

impl Seat {
    fn put(&mut self, mail: Mail) {
        if !self.is_left {
            self.mail.push_back(mail);
            self.news.notify_one();
        }
    }

    fn put_last(&mut self, mail: Mail) {
        self.is_over = true;
        self.lent = None;
        self.put(mail);
    }

    /// Whether the stream must be paused now.
    fn put_chunk(&mut self, bytes: Bytes) -> Result<bool, Broken> {
        if self.is_left {
            return Ok(false);
        }
        self.untaken += taken_by(&bytes);
        if self.untaken > MOST_UNTAKEN {
            let pieces = self.mail.len();
            let what = format!("it sent {pieces} pieces of a stream that it was told to pause");
            return Err(Broken::Protocol(what));
        }
        self.put(Mail::Chunk(bytes));
        let pause = !self.is_paused && self.untaken > PAUSE_ABOVE;
        self.is_paused |= pause;
        Ok(pause)
    }
}

fn taken_by(chunk: &Bytes) -> usize {
    EACH_PIECE + chunk.len()
}

fn no_such_call(serial: u64) -> Broken {
    Broken::Protocol(format!("it sent something for call {serial}, which does not run"))
}

/// A frame without head and body.
fn notice(kind: FrameType, serial: u64) -> Letter {
    let mut frame = Vec::new();
    frames::append(&mut frame, kind, serial, &(), b"").expect("a head without content is short");
    Letter { memfd: None, frame: Payload::Frame(frame) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_of_pieces_are_counted_as_what_they_take() {
        assert!(size_of::<Mail>() <= EACH_PIECE, "{}", size_of::<Mail>());
        let mut seat = Seat {
            news: Arc::default(),
            mail: VecDeque::new(),
            logs: Logs::default(),
            response_limit: 0,
            frame_end: 0,
            lent: None,
            untaken: 0,
            is_paused: false,
            is_stream: true,
            is_over: false,
            is_left: false,
        };
        let told: Vec<_> = (0..MOST_UNTAKEN / EACH_PIECE).map(|_| seat.put_chunk(Bytes::new())).collect();
        let paused = told.iter().position(|told| matches!(told, Ok(true)));
        assert_eq!(paused, Some(PAUSE_ABOVE / EACH_PIECE), "it is told in time");
        assert!(told.iter().all(Result::is_ok));
        assert!(matches!(seat.put_chunk(Bytes::new()), Err(Broken::Protocol(_))));
    }
}
