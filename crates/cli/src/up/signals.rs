//! The signals that end the platform, as one stream, on a thread of their own.
//!
//! SIGINT, SIGTERM and SIGHUP (a terminal that closes; not where it was inherited as ignored,
//! as under nohup). They are taken by a thread with a runtime of its own, so that whatever holds
//! up the platform's runtime cannot keep it from ending: a second signal, or a drain that passes
//! its limit by far, ends the process from here.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::speaker;
use crate::exit::{Exit, Failure};
use crate::screen;

/// What ending takes after the drain: two seconds for the launcher, the rest for the last rows
/// of history on a slow disk.
const ENDING: Duration = Duration::from_secs(5);

/// Time for the orderly answer to a second signal, which takes milliseconds.
const AT_ONCE: Duration = Duration::from_millis(500);

/// The signals, as they come.
#[derive(Debug)]
pub(crate) struct Signals {
    taken: UnboundedReceiver<()>,
}

impl Signals {
    /// Listens from now on; signals no longer end the process by themselves. After the first
    /// one the process ends within `drain_limit` and a margin, in whatever state it is.
    ///
    /// Listening replaces an inherited "ignore" of SIGINT, as shells set it for commands that
    /// run in the background.
    pub(crate) fn listen(drain_limit: Duration) -> Result<Self, Failure> {
        Self::listen_until(drain_limit.saturating_add(ENDING))
    }

    fn listen_until(limit: Duration) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let all = {
            let _inside = runtime.enter();
            All::listen()?
        };
        let (taker, taken) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || runtime.block_on(watch(all, taker, limit)))?;
        Ok(Self { taken })
    }

    /// The next of them. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        if self.taken.recv().await.is_none() {
            // The thread lives as long as the process.
            std::future::pending::<()>().await;
        }
    }
}

async fn watch(mut all: All, taker: UnboundedSender<()>, limit: Duration) {
    all.next().await;
    // Nobody listens any more only while the process ends already.
    let _ = taker.send(());
    tokio::select! {
        () = all.next() => {
            let _ = taker.send(());
            tokio::time::sleep(AT_ONCE).await;
            end_now(Exit::Interrupted);
        }
        () = tokio::time::sleep(limit) => {
            screen::warning("the platform did not come to its end in time and was ended; please report what it was doing");
            end_now(Exit::Other);
        }
    }
}

fn end_now(exit: Exit) -> ! {
    speaker::finish();
    std::process::exit(i32::from(exit as u8))
}

#[derive(Debug)]
struct All {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl All {
    fn listen() -> std::io::Result<Self> {
        let hangup = (!is_hangup_ignored()).then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
        })
    }

    async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = hangup => {}
        }
    }
}

/// Whether whoever started us wants SIGHUP ignored: the lowest bit of the kernel's mask.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    use super::*;

    /// Set for the process that the tests below start; holds its limit in milliseconds.
    const STUCK: &str = "FUNCTIONSPLATFORM_TEST_STUCK";

    /// Not a test by itself: what the others run in a process of its own, where nothing ever
    /// answers a signal.
    #[test]
    fn a_process_that_is_stuck() {
        let Some(limit) = std::env::var(STUCK).ok().and_then(|limit| limit.parse().ok()) else { return };
        let _signals = Signals::listen_until(Duration::from_millis(limit)).expect("it listens");
        println!("listening");
        loop {
            std::thread::park();
        }
    }

    fn stuck(limit: &str) -> Child {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "up::signals::tests::a_process_that_is_stuck", "--nocapture"]);
        command.env(STUCK, limit).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        assert!(lines.any(|line| line.expect("text").contains("listening")), "it ended before it listened");
        child
    }

    fn kill(child: &Child, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, signal).expect("it is there");
    }

    #[test]
    fn a_second_signal_ends_a_process_that_is_stuck() {
        let mut child = stuck("600000");
        let begun = Instant::now();
        kill(&child, rustix::process::Signal::TERM);
        // Two of a kind that are pending at once are one signal; two kinds are not.
        kill(&child, rustix::process::Signal::INT);
        assert_eq!(child.wait().expect("it ends").code(), Some(130));
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    }

    #[test]
    fn one_signal_ends_a_process_that_is_stuck_once_its_time_is_over() {
        let mut child = stuck("50");
        // Not SIGHUP, which is ignored where the tests run under nohup.
        kill(&child, rustix::process::Signal::TERM);
        assert_eq!(child.wait().expect("it ends").code(), Some(1));
    }
}
