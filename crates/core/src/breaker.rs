//! The breaker of a function version: calls that would only crash or time out are refused at once.
//!
//! It opens when nearly all of the latest calls took their worker with them or ran until the function's
//! own timeout. Such calls cost more than their callers: each needs a new worker, and holds it as long
//! as it may. An exception is no such end: its worker lives on, and a function may well answer mostly
//! by raising. While it is open, single calls are let through as probes after growing pauses; some that
//! end well in a row close it. It knows neither queues nor workers; starts that fail are paused by
//! [`crate::pool`] itself.

use std::collections::VecDeque;
use std::time::Duration;

use crate::outcome::Outcome;

/// How many of the latest calls are judged. A version whose calls fail every other time by chance has
/// nineteen failures in twenty once in fifty thousand calls.
const WINDOW: usize = 20;

/// Fewer say nothing: ten failures in a row happen by chance, at one in two, once in a thousand times,
/// which is also the evidence that alerts ask for.
const EVIDENCE: usize = 10;

/// It opens when less than one call in so many of the window ended well. Where a function fails for a
/// part of its callers only, the others are not to pay for that.
const ONE_GOOD_IN: usize = 10;

/// Probes in a row that must end well.
const PROBES: u32 = 3;

/// The first pause before a probe; it doubles with each that fails. A second is what a restart of
/// something that the function needs may take; half a minute is the longest that anybody who mended it
/// should wait to see that.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a call's end says about its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its worker can be used again.
    Well,
    /// It crashed, was ended for its memory, or ran until the function's own timeout.
    Hard,
    /// Nothing: it did not run, or others ended it. A caller that gives too little time is not the
    /// function's failure, nor may it close the function to others.
    Silent,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It goes on, and what becomes of it decides: its end must be told to [`Breaker::on_probed`].
    Probe,
    /// It is refused; trying again makes sense after so long.
    Refuse(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// Nothing passes until then.
    Open {
        until: Duration,
    },
    /// One call is on its way.
    Probing,
}

/// The breaker of one version. Times are since an epoch that its owner chose.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// The latest calls, and whether each failed hard.
    window: VecDeque<bool>,
    /// How many did.
    hard: usize,
    pause: Duration,
    /// Probes in a row that ended well.
    good_probes: u32,
}

impl Ending {
    /// What an outcome says.
    pub fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ok | Outcome::FunctionError | Outcome::ResponseTooLarge => Self::Well,
            Outcome::Crashed | Outcome::OutOfMemory | Outcome::Timeout => Self::Hard,
            Outcome::DeadlineExceeded(_)
            | Outcome::Shed(_)
            | Outcome::QuotaExceeded
            | Outcome::Cancelled
            | Outcome::StartFailed
            | Outcome::RequestTooLarge
            | Outcome::PlatformError => Self::Silent,
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed, window: VecDeque::new(), hard: 0, pause: FIRST_PAUSE, good_probes: 0 }
    }
}

impl Breaker {
    /// A call arrived.
    pub fn on_arrival(&mut self, now: Duration) -> Verdict {
        match self.state {
            State::Closed => Verdict::Pass,
            State::Open { until } if until <= now => {
                self.state = State::Probing;
                Verdict::Probe
            }
            State::Open { until } => Verdict::Refuse(until - now),
            // The probe takes as long as it takes; if it fails, the pause begins then.
            State::Probing => Verdict::Refuse(self.pause),
        }
    }

    /// A call that was let pass has ended.
    pub fn on_ended(&mut self, now: Duration, ending: Ending) {
        // Calls from before it opened say nothing new.
        if self.state != State::Closed || ending == Ending::Silent {
            return;
        }
        if self.window.len() == WINDOW && self.window.pop_front() == Some(true) {
            self.hard -= 1;
        }
        self.window.push_back(ending == Ending::Hard);
        self.hard += usize::from(ending == Ending::Hard);
        let good = self.window.len() - self.hard;
        if self.window.len() >= EVIDENCE && good * ONE_GOOD_IN < self.window.len() {
            self.pause = FIRST_PAUSE;
            self.good_probes = 0;
            self.state = State::Open { until: now.saturating_add(self.pause) };
        }
    }

    /// The probe has ended, or was given up.
    pub fn on_probed(&mut self, now: Duration, ending: Ending) {
        if self.state != State::Probing {
            return;
        }
        let until = match ending {
            // The next call is the probe.
            Ending::Silent => now,
            Ending::Well => {
                self.good_probes += 1;
                now
            }
            Ending::Hard => {
                self.good_probes = 0;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                now.saturating_add(self.pause)
            }
        };
        self.state = State::Open { until };
        if self.good_probes >= PROBES {
            *self = Self::default();
        }
    }

    /// Whether it lets every call pass.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether a call that ends well would change nothing.
    pub fn is_quiet(&self) -> bool {
        self.is_closed() && self.hard == 0 && self.window.len() == WINDOW
    }

    /// Of so many of the latest calls so many failed hard.
    pub fn evidence(&self) -> (usize, usize) {
        (self.hard, self.window.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fed(endings: impl IntoIterator<Item = Ending>) -> Breaker {
        let mut breaker = Breaker::default();
        endings.into_iter().for_each(|ending| breaker.on_ended(SECOND, ending));
        breaker
    }

    fn open() -> Breaker {
        let breaker = fed([Ending::Hard; EVIDENCE]);
        assert!(!breaker.is_closed());
        breaker
    }

    #[test]
    fn exceptions_and_impatient_callers_never_open_it() {
        let expired = Outcome::DeadlineExceeded(crate::outcome::DeadlineReason::ExpiredRunning);
        for outcome in [Outcome::FunctionError, expired, Outcome::Cancelled, Outcome::StartFailed] {
            assert!(fed([Ending::of(outcome); 1000]).is_closed(), "{outcome:?}");
        }
        for outcome in [Outcome::Crashed, Outcome::OutOfMemory, Outcome::Timeout] {
            assert!(!fed([Ending::of(outcome); EVIDENCE]).is_closed(), "{outcome:?}");
        }
    }

    #[test]
    fn it_opens_on_evidence_only() {
        assert!(fed([Ending::Hard; EVIDENCE - 1]).is_closed());
        // Four in five fail: the fifth caller is served.
        let mostly = (0..1000).map(|call| if call % 5 == 0 { Ending::Well } else { Ending::Hard });
        assert!(fed(mostly).is_closed());
        // What served well for long must fail for a while.
        let then = |failures| fed([Ending::Well; 100].into_iter().chain(vec![Ending::Hard; failures]));
        assert!(then(WINDOW - 2).is_closed());
        assert!(!then(WINDOW - 1).is_closed());
    }

    #[test]
    fn single_probes_with_growing_pauses_close_it_in_the_end() {
        let mut breaker = open();
        assert_eq!(breaker.on_arrival(SECOND), Verdict::Refuse(SECOND));
        assert_eq!(breaker.on_arrival(2 * SECOND), Verdict::Probe);
        assert_eq!(breaker.on_arrival(2 * SECOND), Verdict::Refuse(SECOND), "one at a time");
        breaker.on_probed(3 * SECOND, Ending::Hard);
        assert_eq!(breaker.on_arrival(4 * SECOND), Verdict::Refuse(SECOND), "twice as long");
        assert_eq!(breaker.on_arrival(5 * SECOND), Verdict::Probe);
        // Its caller left: that says nothing, and keeps nobody out.
        breaker.on_probed(6 * SECOND, Ending::Silent);
        for _ in 0..PROBES {
            assert_eq!(breaker.on_arrival(6 * SECOND), Verdict::Probe);
            breaker.on_probed(6 * SECOND, Ending::Well);
        }
        assert_eq!(breaker.on_arrival(6 * SECOND), Verdict::Pass);
        assert_eq!(breaker.evidence(), (0, 0), "and begins anew");
    }

    #[test]
    fn no_pause_is_longer_than_half_a_minute() {
        let (mut breaker, mut now) = (open(), SECOND);
        for _ in 0..40 {
            now += LONGEST_PAUSE;
            assert_eq!(breaker.on_arrival(now), Verdict::Probe);
            breaker.on_probed(now, Ending::Hard);
        }
    }

    proptest! {
        #[test]
        fn there_is_never_more_than_one_probe_and_it_never_stays_shut(
            steps in prop::collection::vec((0..3_u8, 0..3_u8, 0..2_000_u64), 0..400),
        ) {
            let mut breaker = Breaker::default();
            let (mut now, mut probing) = (Duration::ZERO, false);
            for (what, how, millis) in steps {
                now += Duration::from_millis(millis);
                let ending = [Ending::Well, Ending::Hard, Ending::Silent][usize::from(how)];
                match what {
                    0 => match breaker.on_arrival(now) {
                        Verdict::Pass => prop_assert!(breaker.is_closed()),
                        Verdict::Probe => prop_assert!(!std::mem::replace(&mut probing, true)),
                        Verdict::Refuse(after) => prop_assert!(after > Duration::ZERO && after <= LONGEST_PAUSE),
                    },
                    1 => breaker.on_ended(now, ending),
                    _ if probing => {
                        probing = false;
                        breaker.on_probed(now, ending);
                    }
                    _ => {}
                }
            }
            if probing {
                breaker.on_probed(now, Ending::Silent);
            }
            prop_assert!(!matches!(breaker.on_arrival(now + LONGEST_PAUSE), Verdict::Refuse(_)));
        }
    }
}
