//! Second attempts: two workers at one call, one answer.
//!
//! [`fp_core::hedge`] decides when there is one and why not; here that is carried out. The first good
//! answer wins, and of a stream its head; an error waits for the other attempt. The loser is
//! interrupted, and its worker given the grace and settled by a task of its own, so that nobody waits
//! for it. A call stays one call: one record, one answer, one place in the quotas. What was decided is an event
//! on `run`; the second attempt is a `run` of its own beside it, and whichever lost says that it was
//! cancelled, who answered instead, and what it had printed, which is in no log of the call.
//!
//! A function that is never hedged has nothing of this; one that is pays a short lock at either end.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use fp_core::WorkerId;
use fp_core::hedge::{Attempt, AttemptEnd, First, Load, NotHedged, Race};
use fp_core::ids::SpanId;
use fp_core::outcome::Outcome;
use fp_core::record::{
    HEDGE_EVENT, HEDGE_SENTENCE, LogLine, Span, SpanEvent, WINNER, phase_span_id, second_run_span_id,
};
use fp_core::settings::IDEMPOTENCY_KEY;
use fp_sandbox::{Answer, Call, CallError};
use serde_json::Value;

use super::attempt::Ended;
use super::flight::{Flight, GRACE};
use crate::catalog::Deployed;
use crate::clock::Clock;
use crate::pool::Lease;

/// Lines of a loser's output that its span keeps, and bytes of each: enough to see how far it came.
const LOSERS_LINES: usize = 32;
const LOSERS_LINE_BYTES: usize = 1 << 10;

type Answered = Result<Answer, CallError>;

/// What a call that may be hedged has besides its lease.
pub(crate) struct HedgedCall {
    race: Race,
    /// The second attempt's while both run; then the loser's.
    second: Option<Lease>,
    second_worker: Option<WorkerId>,
    /// Whose answer is used.
    used: Attempt,
    is_over: bool,
    /// For the trace.
    notes: Vec<Span>,
}

impl HedgedCall {
    /// When a second attempt is due, if at all.
    pub(super) fn due(&self) -> Option<Duration> {
        self.race.next_wake()
    }

    /// What the trace gets of it.
    pub(super) fn take_notes(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.notes)
    }

    /// The span of the attempt that answered.
    pub(super) fn span_id(&self, root: SpanId) -> SpanId {
        match self.used {
            Attempt::First => phase_span_id(root, "run"),
            Attempt::Second => second_run_span_id(root),
        }
    }

    /// Takes a worker for the second attempt, if everything allows it.
    fn start_second(&mut self, function: &Deployed, clock: &Clock) -> bool {
        let Some(hedging) = &function.hedging else { return false };
        let pool = &function.pool;
        let load = Load::beside(1, pool.load());
        self.second = hedging.lock().on_timer(clock.now(), &mut self.race, load, || pool.take_idle());
        self.second_worker = self.second.as_ref().map(Lease::worker_id);
        self.second.is_some()
    }
}

/// The first attempt was dispatched.
pub(super) fn begin(flight: &mut Flight) {
    let Some(hedging) = &flight.function.hedging else { return };
    let request = &flight.request;
    let has_key = request.headers.contains_key(IDEMPOTENCY_KEY);
    let may_repeat = flight.function.settings.idempotent.allows(&request.verb, has_key);
    let load = if may_repeat { flight.function.pool.load() } else { (0, 0) };
    let first = First {
        arrived: request.arrived + request.upload,
        deadline: flight.deadline,
        is_cold: flight.record.as_ref().is_some_and(|record| record.cold),
        may_repeat,
        load: Load::beside(1, load),
    };
    let race = hedging.lock().on_dispatch(flight.invoker.clock.now(), first);
    let (second, second_worker, notes) = (None, None, Vec::new());
    let used = Attempt::First;
    flight.hedge = Some(Box::new(HedgedCall { race, second, second_worker, used, is_over: false, notes }));
}

/// Runs the first attempt, and a second one beside it when that is due. None when the time is up
/// before there is an answer. `call` makes the second attempt's call.
pub(super) async fn race<'call, F: Future<Output = Answered>>(
    hedge: &mut HedgedCall,
    (function, clock): (&Deployed, &Clock),
    expiry: tokio::time::Instant,
    mut first: Pin<&mut F>,
    call: impl FnOnce(u64) -> Call<'call>,
) -> Option<Answered> {
    let due = hedge.due().map_or(expiry, |due| clock.instant(due).min(expiry));
    tokio::select! {
        biased;
        answer = first.as_mut() => return Some(answer),
        () = tokio::time::sleep_until(due) => {}
    }
    if !hedge.start_second(function, clock) {
        return tokio::select! {
            biased;
            answer = first => Some(answer),
            () = tokio::time::sleep_until(expiry) => None,
        };
    }
    // In a box: calls that are not hedged need no room for it.
    Box::pin(both(hedge, (function, clock), expiry, first, call)).await
}

/// The first good answer of the two, else the first attempt's error, else the second's.
async fn both<'call, F: Future<Output = Answered>>(
    hedge: &mut HedgedCall,
    (function, clock): (&Deployed, &Clock),
    expiry: tokio::time::Instant,
    mut first: Pin<&mut F>,
    call: impl FnOnce(u64) -> Call<'call>,
) -> Option<Answered> {
    // It stays where it is: a caller that leaves drops this future, and what is left is settled then.
    let HedgedCall { race, second, used, .. } = hedge;
    let lease = second.as_mut().expect("the second attempt has a worker");
    let (attempt, answer) = {
        let call = call(lease.serial());
        let mut second = pin!(lease.call(call));
        let mut failed: [Option<Answered>; 2] = [None, None];
        loop {
            let (attempt, answer) = tokio::select! {
                biased;
                answer = first.as_mut(), if failed[0].is_none() => (Attempt::First, Some(answer)),
                answer = second.as_mut(), if failed[1].is_none() => (Attempt::Second, Some(answer)),
                () = tokio::time::sleep_until(expiry) => (Attempt::First, None),
            };
            let Some(answer) = answer else { break least_bad(failed)? };
            if is_good(&answer) {
                break (attempt, answer);
            }
            // The other goes on.
            if let Some(hedging) = &function.hedging {
                hedging.lock().on_end(clock.now(), race, attempt, AttemptEnd::Failed);
            }
            failed[attempt as usize] = Some(answer);
            if failed.iter().all(Option::is_some) {
                break least_bad(failed)?;
            }
        }
    };
    *used = attempt;
    Some(answer)
}

/// Whose error is told when there is nothing else: the first attempt's, unless it never ran.
fn least_bad([first, second]: [Option<Answered>; 2]) -> Option<(Attempt, Answered)> {
    let never_ran = matches!(first, Some(Err(CallError::NeverStarted { .. })));
    let second_ran = !matches!(second, None | Some(Err(CallError::NeverStarted { .. })));
    match (first, second) {
        (_, Some(second)) if never_ran && second_ran => Some((Attempt::Second, second)),
        (Some(first), _) => Some((Attempt::First, first)),
        (None, Some(second)) => Some((Attempt::Second, second)),
        (None, None) => None,
    }
}

fn is_good(answer: &Answered) -> bool {
    match answer {
        Ok(Answer::Whole(whole)) => whole.head.status.unwrap_or(200) < 500,
        Ok(Answer::Stream { head }) => head.status.unwrap_or(200) < 500,
        Ok(Answer::Failed { .. }) | Err(_) => false,
    }
}

/// The second attempt's lease takes the place of the first's where its answer is used.
pub(super) fn change_places(flight: &mut Flight) {
    if let Some(hedge) = flight.hedge.as_deref_mut().filter(|hedge| hedge.used == Attempt::Second) {
        std::mem::swap(&mut flight.lease, &mut hedge.second);
        let worker = flight.lease.as_ref().map(Lease::worker_id);
        if let Some(record) = flight.record.as_mut() {
            record.worker = worker;
        }
    }
}

/// How an attempt ended that ended so.
pub(super) fn end_of(ended: &Ended) -> AttemptEnd {
    match ended {
        Ended::Whole { head, .. } | Ended::Stream { head } if head.status.unwrap_or(200) < 500 => {
            AttemptEnd::Answered
        }
        Ended::Whole { .. } | Ended::Stream { .. } => AttemptEnd::Failed,
        Ended::Fault { fault, .. } => match fault.outcome {
            Outcome::Timeout | Outcome::DeadlineExceeded(_) | Outcome::Cancelled => AttemptEnd::CutOff,
            _ => AttemptEnd::Failed,
        },
    }
}

/// The race is over, whoever ended it: the loser is cancelled, and what is to be told is noted.
pub(super) fn finish(flight: &mut Flight, end: AttemptEnd) {
    let Some(mut hedge) = flight.hedge.take().filter(|hedge| !hedge.is_over) else { return };
    hedge.is_over = true;
    let now = flight.invoker.clock.now();
    if let Some(hedging) = &flight.function.hedging {
        let other = if hedge.used == Attempt::First { Attempt::Second } else { Attempt::First };
        let mut hedging = hedging.lock();
        hedging.on_end(now, &mut hedge.race, hedge.used, end);
        hedging.on_end(now, &mut hedge.race, other, AttemptEnd::CutOff);
    }
    flight.function.book.hedges().note(&hedge.race);
    if hedge.race.second().is_some() {
        flight.record().attempts = 2;
    }
    let losers_logs = hedge.second.take().map(|lease| settle(flight, lease, now)).unwrap_or_default();
    if is_worth_noting(flight, &hedge.race, now) {
        hedge.notes = notes(flight, &hedge, losers_logs, now);
    }
    flight.hedge = Some(hedge);
}

/// Interrupts the attempt that lost, and gives its worker back or ends it; what it has printed so far.
fn settle(flight: &Flight, mut lease: Lease, now: Duration) -> Vec<LogLine> {
    if lease.is_reusable() {
        return Vec::new();
    }
    let logs = lease.take_logs();
    let is_late = now >= flight.deadline;
    let invoker = &flight.invoker;
    invoker.endings.spawn_on(
        async move {
            lease.settle(GRACE, is_late).await;
        },
        invoker.sandbox.runtime(),
    );
    logs
}

/// What would be said of every quick call is not kept of any: it follows from the settings.
fn is_worth_noting(flight: &Flight, race: &Race, now: Duration) -> bool {
    let objective = flight.function.settings.slo.as_ref().and_then(|slo| slo.latency.as_ref());
    let took = now.saturating_sub(flight.request.arrived);
    let is_slow = objective.is_some_and(|objective| took >= objective.under);
    let is_rare = |why: NotHedged| why.was_due() || matches!(why, NotHedged::TooLittleHistory { .. });
    is_slow || race.why_not().is_none_or(is_rare)
}

/// What there is to say of `run`, and the second attempt's span.
fn notes(flight: &Flight, hedge: &HedgedCall, losers_logs: Vec<LogLine>, now: Duration) -> Vec<Span> {
    let root = flight.trace.span_id;
    let ids = [phase_span_id(root, "run"), second_run_span_id(root)];
    let race = &hedge.race;
    let [began, ended] = [race.dispatched(), now].map(|at| flight.invoker.clock.wall_us(at) * 1000);
    let attempt = |span_id, start_ns: u64| Span {
        span_id,
        parent_span_id: Some(root),
        name: "run".into(),
        start_ns,
        duration_ns: ended.saturating_sub(start_ns),
        attributes: Vec::new(),
        events: Vec::new(),
        error: None,
    };
    let mut first = attempt(ids[0], began);
    let decided = race.second().map_or(ended, |second| flight.invoker.clock.wall_us(second.began) * 1000);
    first.events.push(SpanEvent { time_ns: decided, name: HEDGE_EVENT.into(), attributes: decision(race) });
    let Some(second) = race.second() else { return vec![first] };
    let mut second = attempt(ids[1], flight.invoker.clock.wall_us(second.began) * 1000);
    second.attributes.push(("functionsplatform.attempt".into(), 2.into()));
    if let Some(worker) = hedge.second_worker {
        second.attributes.push(("faas.instance".into(), worker.to_string().into()));
    }
    let (loser, winner) = match hedge.used {
        Attempt::First => (&mut second, ids[0]),
        Attempt::Second => (&mut first, ids[1]),
    };
    loser.attributes.push(("functionsplatform.outcome".into(), "cancelled".into()));
    loser.attributes.push(("functionsplatform.cancelled".into(), true.into()));
    loser.attributes.push((WINNER.into(), winner.to_string().into()));
    loser.events.extend(losers_logs.into_iter().take(LOSERS_LINES).map(printed));
    vec![first, second]
}

/// A line of a cancelled attempt's output.
fn printed(line: LogLine) -> SpanEvent {
    let within = |(start, letter): (usize, char)| start + letter.len_utf8() <= LOSERS_LINE_BYTES;
    let text: String =
        line.text.char_indices().take_while(|at| within(*at)).map(|(_, letter)| letter).collect();
    SpanEvent {
        time_ns: line.time_us * 1000,
        name: "log".into(),
        attributes: vec![("message".into(), text.trim_end_matches('\n').into())],
    }
}

/// The decision with what it was made from.
fn decision(race: &Race) -> Vec<(Box<str>, Value)> {
    let ms = |duration: Duration| Value::from((duration.as_secs_f64() * 1e6).round() / 1e3);
    let mut said: Vec<(Box<str>, Value)> = Vec::with_capacity(8);
    let mut say = |key: &str, value: Value| said.push((key.into(), value));
    say("decision", race.why_not().map_or("hedged", |why| why.word()).into());
    say(HEDGE_SENTENCE, race.told().into());
    if let Some(second) = race.second() {
        say("delay_ms", ms(second.delay));
        say("budget_left", second.tokens_left.into());
        say("utilisation", second.utilisation.into());
        say("second_attempt_won", (race.won() == Some(Attempt::Second)).into());
    }
    if let Some(worth) = race.worth() {
        say("would_have_taken_at_least_ms", ms(worth.at_least));
        if let Some(usually) = worth.usually {
            say("usually_takes_ms", ms(usually));
        }
    }
    said
}
