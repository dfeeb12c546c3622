//! A set of keys, kept up to date while a function needs it.
//!
//! A task reads the place in the background: again after some minutes, after growing pauses when
//! it cannot be read, and at once when a token names a key that is not in the set, as after a
//! rotation; that only so often, because anybody can make up such tokens. What was read last holds
//! for a day, so that an issuer's outage is not ours. The task ends with the last function.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use fp_core::token::{KeySet, MAX_KEY_SET};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::fetch::{self, Place};
use crate::clock::Clock;

/// Until a set is read again: issuers announce a key for longer than this before they sign with it.
const URL_REST: Duration = Duration::from_secs(600);

/// The same for a file, which costs next to nothing.
const FILE_REST: Duration = Duration::from_secs(10);

/// First and longest pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a set holds that cannot be read again: an outage of a day is a long one, and a key that
/// was withdrawn must be good for nothing some time.
const LONGEST_USE: Duration = Duration::from_secs(24 * 3600);

/// Reads that unknown keys can ask for: this many at once, then one in this time. An issuer does not
/// rotate oftener, and strangers who make up key names cost it next to nothing.
const BURST: u32 = 4;
const INTERVAL: Duration = Duration::from_secs(15);

/// A set with the time at which it was read.
#[derive(Debug)]
struct Read {
    set: Arc<KeySet>,
    at: Duration,
}

/// One set of keys.
#[derive(Debug)]
pub(super) struct KeySource {
    state: Arc<State>,
    /// None where there is nothing to keep up to date.
    task: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    place: String,
    clock: Option<Clock>,
    read: ArcSwapOption<Read>,
    /// Why the last read failed.
    trouble: Mutex<Option<String>>,
    /// Counts reads that have ended.
    rounds: watch::Sender<u64>,
    is_reading: AtomicBool,
    wanted: Notify,
    /// When the next read that somebody asks for would come if they came evenly.
    next: Mutex<Duration>,
}

impl Drop for KeySource {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl KeySource {
    /// What does not change as long as its function lives.
    pub(super) fn fixed(read: Result<KeySet, String>, place: &str) -> Arc<Self> {
        let state = State::new(place.to_owned(), None);
        state.settle(read, Duration::ZERO);
        Arc::new(Self { state: Arc::new(state), task: None })
    }

    /// What is read in the background, the first time at once.
    pub(super) fn kept(place: Place, clock: Clock, runtime: &Handle) -> Arc<Self> {
        let state = Arc::new(State::new(place.to_string(), Some(clock)));
        // Before the task runs: who asks now waits for it.
        state.is_reading.store(true, Ordering::Release);
        let task = runtime.spawn(keep(state.clone(), place));
        Arc::new(Self { state, task: Some(task) })
    }

    /// The set as it was read last, which may be waited for if that is being done for the first time.
    ///
    /// # Errors
    /// One sentence, when it was never readable, or not for a day.
    pub(super) async fn current(&self) -> Result<Arc<KeySet>, String> {
        let state = &self.state;
        let mut rounds = state.rounds.subscribe();
        if state.read.load().is_none() && state.is_reading.load(Ordering::Acquire) {
            let _ = timeout(fetch::LIMIT, rounds.changed()).await;
        }
        let now = state.clock.as_ref().map_or(Duration::ZERO, Clock::now);
        match &*state.read.load() {
            Some(read) if now.saturating_sub(read.at) < LONGEST_USE => Ok(read.set.clone()),
            _ => {
                let why = state.trouble.lock().clone();
                let why = why.unwrap_or_else(|| "that is still being tried".to_owned());
                Err(format!("the keys of its tokens' issuer cannot be read from {}: {why}", state.place))
            }
        }
    }

    /// Another set than this one, if there is one by now or can be read; waits for that.
    pub(super) async fn newer(&self, known: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        let state = &self.state;
        let mut rounds = state.rounds.subscribe();
        let other = || {
            let read = state.read.load();
            read.as_ref().map(|read| &read.set).filter(|set| !Arc::ptr_eq(set, known)).cloned()
        };
        if let Some(set) = other() {
            return Some(set);
        }
        if !state.is_reading.load(Ordering::Acquire) {
            if !state.may_read() {
                return None;
            }
            state.wanted.notify_one();
        }
        let _ = timeout(fetch::LIMIT, rounds.changed()).await;
        other()
    }
}

impl State {
    fn new(place: String, clock: Option<Clock>) -> Self {
        Self {
            place,
            clock,
            read: ArcSwapOption::empty(),
            trouble: Mutex::default(),
            rounds: watch::Sender::new(0),
            is_reading: AtomicBool::new(false),
            wanted: Notify::new(),
            next: Mutex::default(),
        }
    }

    /// Whether somebody may have the place read now; one that does not change never.
    fn may_read(&self) -> bool {
        self.clock.as_ref().is_some_and(|clock| may_read(&mut self.next.lock(), clock.now()))
    }

    /// Takes up what a read brought.
    fn settle(&self, read: Result<KeySet, String>, now: Duration) {
        let before = self.trouble.lock().take();
        match read {
            Ok(set) => {
                if before.is_some() {
                    tracing::info!(place = %self.place, "the keys of an issuer can be read again");
                }
                let old = self.read.load_full();
                // The same object as long as it is the same set: who waits for another is told so.
                let set = match old.filter(|old| *old.set == set) {
                    Some(old) => old.set.clone(),
                    None => Arc::new(set),
                };
                self.read.store(Some(Arc::new(Read { set, at: now })));
            }
            Err(why) => {
                if before.as_ref() != Some(&why) {
                    tracing::warn!(place = %self.place, %why, "the keys of an issuer cannot be read");
                }
                *self.trouble.lock() = Some(why);
            }
        }
        self.is_reading.store(false, Ordering::Release);
        self.rounds.send_modify(|round| *round += 1);
    }
}

/// The rate of reads that are asked for (the generic cell rate algorithm).
fn may_read(next: &mut Duration, now: Duration) -> bool {
    if now + INTERVAL * (BURST - 1) < *next {
        return false;
    }
    *next = (*next).max(now) + INTERVAL;
    true
}

async fn keep(state: Arc<State>, place: Place) {
    let mut pause = FIRST_PAUSE;
    let clock = state.clock.clone().expect("what is kept has a clock");
    loop {
        state.is_reading.store(true, Ordering::Release);
        let read = place.read().await;
        let rest = match (&read, &place) {
            (Ok(_), Place::Url { .. }) => URL_REST,
            (Ok(_), Place::File(_)) => FILE_REST,
            (Err(_), _) => pause,
        };
        pause = if read.is_ok() { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        state.settle(read, clock.now());
        let _ = timeout(rest, state.wanted.notified()).await;
    }
}

/// The set in a file. What is said of one that is none repeats nothing of it.
pub(super) fn read_file(path: &Path) -> Result<KeySet, String> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let unreadable = |error: std::io::Error| format!("the file cannot be read ({})", error.kind());
    // A pipe or a device must not be waited for.
    let no_wait = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(no_wait).open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err("it is no file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(MAX_KEY_SET as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    KeySet::parse(&bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_can_be_asked_for_a_few_times_at_once_and_then_seldom() {
        let mut next = Duration::ZERO;
        let now = Duration::from_secs(100);
        let admitted = (0..100).filter(|_| may_read(&mut next, now)).count();
        assert_eq!(admitted, BURST as usize);
        assert!(!may_read(&mut next, now + INTERVAL - Duration::from_millis(1)));
        assert!(may_read(&mut next, now + INTERVAL));
        assert!(!may_read(&mut next, now + INTERVAL));
        let later = now + INTERVAL * 100;
        assert_eq!((0..100).filter(|_| may_read(&mut next, later)).count(), BURST as usize);
    }

    #[test]
    fn what_is_no_file_of_keys_is_told_without_its_contents() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert!(read_file(&at("missing")).unwrap_err().contains("cannot be read"));
        assert_eq!(read_file(directory.path()).unwrap_err(), "it is no file");
        assert_eq!(read_file(Path::new("/dev/zero")).unwrap_err(), "it is no file");
        std::fs::write(at("other"), "hunter2").unwrap();
        assert!(!read_file(&at("other")).unwrap_err().contains("hunter2"));
    }
}
