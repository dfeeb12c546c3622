//! Stderr behind a thread of its own, so that nobody who works waits for whoever reads it.
//!
//! A platform's stderr is often a pipe, and its reader may be slow, stopped or gone. A thread
//! that serves calls must not wait for it: with a full pipe the first warning would stop the
//! runtime, and with it the signals that end the platform. Lines go through a bounded queue;
//! what does not fit is dropped, counted, and the count said once somebody reads again.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that may wait: a burst of warnings, at some hundred bytes each.
const QUEUE: usize = 1_024;

/// Time for the last lines to be taken by their reader.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The one that speaks for this process, once it was started.
static SPEAKER: OnceLock<Speaker> = OnceLock::new();

enum Word {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// The queue's near end.
#[derive(Debug)]
pub(crate) struct Speaker {
    words: SyncSender<Word>,
    dropped: AtomicU64,
}

/// Starts the thread; from here on everything for stderr goes through it.
pub(crate) fn start() -> io::Result<()> {
    let (words, queued) = sync_channel(QUEUE);
    if SPEAKER.set(Speaker { words, dropped: AtomicU64::new(0) }).is_ok() {
        std::thread::Builder::new().name("stderr".into()).spawn(move || write_out(&queued))?;
    }
    Ok(())
}

/// The speaker, where there is one.
pub(crate) fn get() -> Option<&'static Speaker> {
    SPEAKER.get()
}

/// Waits until what was said is written, or nobody seems to read it; at the process's end.
pub(crate) fn finish() {
    let Some(speaker) = get() else { return };
    let (written, done) = sync_channel(1);
    if speaker.words.try_send(Word::Flush(written)).is_ok() {
        // Not written by then: nobody reads.
        let _ = done.recv_timeout(LAST_WORDS);
    }
}

impl Speaker {
    /// Queues bytes that end in a newline. Never waits.
    pub(crate) fn say(&self, line: &[u8]) {
        if self.words.try_send(Word::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_out(queued: &Receiver<Word>) {
    // A reader that is gone is no reason to stop: what is said goes nowhere then.
    while let Ok(word) = queued.recv() {
        match word {
            Word::Line(line) => {
                let _ = anstream::stderr().write_all(&line);
                say_what_was_dropped();
            }
            Word::Flush(written) => drop(written.send(())),
        }
    }
}

fn say_what_was_dropped() {
    let dropped = get().map_or(0, |speaker| speaker.dropped.swap(0, Ordering::Relaxed));
    if dropped > 0 {
        let _ = writeln!(anstream::stderr(), "{dropped} lines were left out: nobody read stderr");
    }
}

/// One event of the platform's diagnostics; every write is a whole event.
#[derive(Debug)]
pub(crate) struct Diagnostics;

impl Write for Diagnostics {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match get() {
            Some(speaker) => speaker.say(event),
            None => io::stderr().write_all(event)?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
