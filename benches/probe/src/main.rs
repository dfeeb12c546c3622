//! What of the platform the bench measures from inside, through the platform's own public rooms.
//!
//! `trace` is the processor time that recording a call takes: no switch turns it off, and the noise
//! of calls over a socket is larger than it. `history` is what wide events take on disk, and how
//! long queries over an hour of millions of them take. Each prints one JSON document.

use std::path::PathBuf;

use clap::Parser;

mod calls;
mod history;
mod trace;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure the platform's rooms from inside.
#[derive(Parser)]
enum Probe {
    /// The processor time that recording a call takes.
    Trace {
        /// An empty directory.
        #[arg(long)]
        dir: PathBuf,
        /// Calls in each round.
        #[arg(long, default_value_t = 100_000)]
        calls: u64,
        /// Rounds; the median counts.
        #[arg(long, default_value_t = 10)]
        rounds: usize,
    },
    /// Bytes on disk, and the time of queries over an hour.
    History {
        /// An empty directory.
        #[arg(long)]
        dir: PathBuf,
        /// Calls that go the whole way: recorded, written as rows, compacted.
        #[arg(long, default_value_t = 200_000)]
        calls: u64,
        /// Calls of the hour that is queried, written as blocks at once.
        #[arg(long, default_value_t = 10_000_000)]
        hour: u64,
    },
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = match Probe::parse() {
        Probe::Trace { dir, calls, rounds } => runtime.block_on(trace::measure(&dir, calls, rounds))?,
        Probe::History { dir, calls, hour } => runtime.block_on(history::measure(&dir, calls, hour))?,
    };
    println!("{found}");
    Ok(())
}
