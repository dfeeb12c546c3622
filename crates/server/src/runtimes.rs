//! Which threads do what.
//!
//! Calls have a runtime of their own: gateway, pools and the pipes of workers. The management
//! API, the pages and the traces have another, so that a page over a million calls delays no call.
//!
//! Few threads serve calls fastest. Whenever a task of a runtime with several threads is woken, a
//! sleeping thread is woken to look for more work; in calls of some 100 µs this is most of what
//! they cost: with two threads instead of one on two cores, a call took 58 instead of 38 µs of the
//! platform's CPU, and a lone caller waited half as long again (`benches/run`).

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads for the management API, pages and traces: one may be busy drawing while the other
/// answers `/healthz`.
const MANAGEMENT_THREADS: usize = 2;

/// The runtimes of one platform.
#[derive(Debug)]
pub struct Runtimes {
    calls: Runtime,
    management: Runtime,
}

impl Runtimes {
    /// Starts them for a host with this many cores.
    ///
    /// # Errors
    /// What the kernel says when it has no thread left to give.
    pub fn start(cores: usize) -> io::Result<Self> {
        Ok(Self { calls: for_calls(cores)?, management: threads("management", MANAGEMENT_THREADS)? })
    }

    /// Runs the platform on the threads that serve calls.
    pub fn block_on<F: Future>(&self, platform: F) -> F::Output {
        self.calls.block_on(platform)
    }

    /// The runtime for everything that is no call.
    pub fn management(&self) -> &Handle {
        self.management.handle()
    }

    /// Ends both without waiting for blocking reads that nobody waits for.
    pub fn shut_down(self) {
        self.management.shutdown_background();
        self.calls.shutdown_background();
    }
}

/// Half of the cores: the other half runs Python, which takes more of a call than we do. A single
/// thread is the one that waits in [`Runtimes::block_on`].
fn for_calls(cores: usize) -> io::Result<Runtime> {
    match cores / 2 {
        0 | 1 => Builder::new_current_thread().enable_all().build(),
        several => threads("calls", several),
    }
}

fn threads(name: &str, count: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(count).thread_name(name).enable_all().build()
}
