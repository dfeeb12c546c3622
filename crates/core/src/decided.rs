//! What was decided about one call, as events of its root span with what it was decided from, and the
//! sentences for them.
//!
//! Numbers are kept, not sentences: most of these calls are refusals of a platform that has no time, and
//! hardly any is ever asked about. A call that finds a worker at once has none of this. (Second attempts
//! are told of on `run`; see [`HEDGE_EVENT`](crate::record::HEDGE_EVENT).)

use std::time::Duration;

use serde_json::Value;

use crate::outcome::Outcome;
use crate::pool::Reckoned;
use crate::record::SpanEvent;
use crate::settings::show_duration;

/// The call had to wait.
const QUEUED: &str = "queued";
/// The call was refused.
const REFUSED: &str = "refused";
/// The worker that ran the call takes no more.
const WORKER_REPLACED: &str = "worker_replaced";

const QUEUE_LENGTH: &str = "queue_length";
const WORKERS: &str = "workers";
const STARTING: &str = "workers_starting";
const STARTED: &str = "workers_started";
const STARTED_WHY: &str = "workers_started_because";
const MAX_WORKERS: &str = "max_workers";
const WAIT: &str = "expected_wait_ms";
const RUN: &str = "usual_run_ms";
const START: &str = "start_takes_ms";
const TARGET: &str = "queue_delay_target_ms";
const AS: &str = "outcome";
const REASON: &str = "reason";
const WAITED: &str = "waited_ms";
const LEFT: &str = "time_left_ms";
const RETRY_AFTER: &str = "retry_after_ms";
const WHY: &str = "why";

/// A refusal, and what it was made from.
#[derive(Debug, Clone, Copy)]
pub struct Refused {
    /// As what the call ends.
    pub outcome: Outcome,
    /// What the pool reckoned with when it came, where it came as far as that.
    pub reckoned: Option<Reckoned>,
    /// How long it had waited.
    pub waited: Duration,
    /// How long it was to its deadline.
    pub left: Duration,
    /// When trying again makes sense, where that is told.
    pub retry_after: Option<Duration>,
}

type Attributes = Vec<(Box<str>, Value)>;

/// The call waits in the queue.
pub fn queued(time_ns: u64, reckoned: &Reckoned) -> SpanEvent {
    let mut attributes = Attributes::with_capacity(9);
    say_reckoned(&mut attributes, reckoned);
    SpanEvent { time_ns, name: QUEUED.into(), attributes }
}

/// The call was refused.
pub fn refused(time_ns: u64, refused: &Refused) -> SpanEvent {
    let mut attributes = Attributes::with_capacity(14);
    say(&mut attributes, AS, refused.outcome.word());
    if let Some(reason) = refused.outcome.reason() {
        say(&mut attributes, REASON, reason);
    }
    say(&mut attributes, WAITED, ms(refused.waited));
    say(&mut attributes, LEFT, ms(refused.left));
    if let Some(after) = refused.retry_after {
        say(&mut attributes, RETRY_AFTER, ms(after));
    }
    // Who waited has said so when it began to.
    if let Some(reckoned) = refused.reckoned.as_ref().filter(|_| refused.waited.is_zero()) {
        say_reckoned(&mut attributes, reckoned);
    }
    SpanEvent { time_ns, name: REFUSED.into(), attributes }
}

/// The worker that ran the call stands out against its siblings.
pub fn worker_replaced(time_ns: u64, why: &str) -> SpanEvent {
    SpanEvent { time_ns, name: WORKER_REPLACED.into(), attributes: vec![(WHY.into(), why.into())] }
}

fn say(attributes: &mut Attributes, key: &'static str, value: impl Into<Value>) {
    attributes.push((key.into(), value.into()));
}

fn say_reckoned(attributes: &mut Attributes, reckoned: &Reckoned) {
    say(attributes, QUEUE_LENGTH, reckoned.queued);
    say(attributes, WORKERS, reckoned.workers);
    say(attributes, STARTING, reckoned.starting);
    say(attributes, MAX_WORKERS, reckoned.max);
    if let Some((count, why)) = reckoned.started {
        say(attributes, STARTED, count);
        say(attributes, STARTED_WHY, why.word());
    }
    // For ever is no number.
    if let Some(wait) = reckoned.wait.filter(|wait| *wait < Duration::MAX) {
        say(attributes, WAIT, ms(wait));
    }
    if let Some(run) = reckoned.run {
        say(attributes, RUN, ms(run));
    }
    say(attributes, START, ms(reckoned.start));
    if let Some(target) = reckoned.target {
        say(attributes, TARGET, ms(target));
    }
}

/// In milliseconds, to the microsecond.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// What an event says, where it is one of a decision.
pub fn told(event: &SpanEvent) -> Option<String> {
    let of = Told(&event.attributes);
    match &*event.name {
        QUEUED => Some(of.queued()),
        REFUSED => Some(of.refused()),
        WORKER_REPLACED => {
            let why = of.text(WHY).unwrap_or_default();
            Some(format!("The worker that ran it was replaced afterwards: {why}."))
        }
        _ => None,
    }
}

struct Told<'a>(&'a Attributes);

impl Told<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| &**known == key).map(|(_, value)| value)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    fn count(&self, key: &str) -> u64 {
        self.get(key).and_then(Value::as_u64).unwrap_or_default()
    }

    fn time(&self, key: &str) -> Option<String> {
        let micros = (self.get(key)?.as_f64()? * 1e3).round();
        (micros >= 0.0).then(|| show_duration(Duration::from_micros(micros as u64)))
    }

    fn queued(&self) -> String {
        let mut said = format!("It had to wait: {}", self.found());
        match (self.count(STARTED), self.text(STARTED_WHY)) {
            (0, _) => {}
            (started, why) => {
                let because = match why {
                    Some("wait") => "a start takes less than the wait",
                    Some("size") => "fewer were there than the calls need",
                    Some("unknown") => "nothing is known of run times yet",
                    Some("standing") => "the queue did not drain",
                    Some("floor") => "fewer were there than are to be kept",
                    _ => "one was due",
                };
                said += &format!("; {} started for it, because {because}", many(started, "worker"));
            }
        }
        said + &self.reckoned() + "."
    }

    fn refused(&self) -> String {
        let what = self.text(REASON).or(self.text(AS)).unwrap_or("refused");
        let left = self.time(LEFT).unwrap_or_default();
        let waited = self.time(WAITED).filter(|waited| waited != "0s");
        let mut said = match waited {
            Some(waited) => format!("It was refused ({what}) after it had waited {waited}, with {left} left"),
            None => format!("It was refused at once ({what}), with {left} left"),
        };
        if self.get(WORKERS).is_some() {
            said += &format!(": {}{}", self.found(), self.reckoned());
        }
        said + "."
    }

    fn found(&self) -> String {
        let (workers, starting) = (self.count(WORKERS), self.count(STARTING));
        let ready = match workers {
            0 => "no worker was ready".to_owned(),
            1 => "the one worker was busy".to_owned(),
            more => format!("all {more} workers were busy"),
        };
        let on_their_way = if starting > 0 { format!(", {starting} on their way") } else { String::new() };
        let most = self.count(MAX_WORKERS);
        format!(
            "{ready}{on_their_way} (of at most {most}), {} before it",
            many(self.count(QUEUE_LENGTH), "call")
        )
    }

    fn reckoned(&self) -> String {
        let parts = [
            ("an expected wait of", self.time(WAIT)),
            ("runs of", self.time(RUN)),
            ("starts of", self.time(START)),
            ("a target for the queue's delay of", self.time(TARGET)),
        ];
        let known: Vec<_> =
            parts.into_iter().filter_map(|(what, time)| Some(format!("{what} {}", time?))).collect();
        if known.is_empty() { String::new() } else { format!("; reckoned with {}", known.join(", ")) }
    }
}

fn many(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{DeadlineReason, ShedReason};
    use crate::pool::Why;

    const MS: Duration = Duration::from_millis(1);

    fn reckoned() -> Reckoned {
        Reckoned {
            queued: 3,
            workers: 2,
            starting: 1,
            started: Some((1, Why::Wait)),
            max: 4,
            wait: Some(MS * 12),
            run: Some(MS * 5),
            start: MS * 6,
            target: Some(MS * 20),
        }
    }

    #[test]
    fn who_waits_is_told_for_what() {
        let event = queued(7, &reckoned());
        assert_eq!(event.time_ns, 7);
        insta::assert_snapshot!(told(&event).expect("a sentence"), @"It had to wait: all 2 workers were busy, 1 on their way (of at most 4), 3 calls before it; 1 worker started for it, because a start takes less than the wait; reckoned with an expected wait of 12ms, runs of 5ms, starts of 6ms, a target for the queue's delay of 20ms.");
        let first = Reckoned {
            max: 4,
            start: MS * 5,
            started: Some((1, Why::Unknown)),
            starting: 1,
            ..Reckoned::default()
        };
        insta::assert_snapshot!(told(&queued(0, &first)).expect("a sentence"), @"It had to wait: no worker was ready, 1 on their way (of at most 4), 0 calls before it; 1 worker started for it, because nothing is known of run times yet; reckoned with starts of 5ms.");
    }

    #[test]
    fn a_refusal_says_what_it_was_made_from() {
        let at_the_door = Refused {
            outcome: Outcome::DeadlineExceeded(DeadlineReason::Infeasible),
            reckoned: Some(Reckoned { started: None, starting: 0, workers: 1, ..reckoned() }),
            waited: Duration::ZERO,
            left: MS * 20,
            retry_after: None,
        };
        insta::assert_snapshot!(told(&refused(0, &at_the_door)).expect("a sentence"), @"It was refused at once (infeasible), with 20ms left: the one worker was busy (of at most 4), 3 calls before it; reckoned with an expected wait of 12ms, runs of 5ms, starts of 6ms, a target for the queue's delay of 20ms.");
        let later = Refused {
            outcome: Outcome::Shed(ShedReason::QueueDelay),
            waited: MS * 120,
            retry_after: Some(MS * 40),
            ..at_the_door
        };
        let event = refused(0, &later);
        assert!(!event.attributes.iter().any(|(key, _)| &**key == WORKERS), "told when it began to wait");
        assert!(event.attributes.contains(&(RETRY_AFTER.into(), 40.0.into())));
        insta::assert_snapshot!(told(&event).expect("a sentence"), @"It was refused (queue_delay) after it had waited 120ms, with 20ms left.");
    }

    #[test]
    fn what_is_for_ever_is_no_number() {
        let event = queued(0, &Reckoned { wait: Some(Duration::MAX), ..reckoned() });
        assert!(!event.attributes.iter().any(|(key, _)| &**key == WAIT));
    }

    #[test]
    fn what_an_author_says_is_no_decision() {
        assert_eq!(told(&SpanEvent { time_ns: 0, name: "log".into(), attributes: Vec::new() }), None);
        assert!(told(&worker_replaced(0, "its last 5 calls failed")).is_some());
    }
}
