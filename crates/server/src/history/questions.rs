//! Questions about many calls: the ring for the time that it holds whole, the disk for what was before.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fp_core::query::{Calls, Query, Row, Seen, TooManyGroups, Totals};
use fp_core::{Invocation, Tenant};
use parking_lot::Mutex;

use super::{History, Inner, SLICE_US};
use crate::store::telemetry::Stretch;

/// What is not answered in this time is not answered: people wait, and nobody else should for them.
const TIME: Duration = Duration::from_secs(5);

/// Threads that one question is looked into by. Two halve what people wait for; more would take the
/// processors from calls.
const THREADS: usize = 2;

/// Calls of the ring that are looked at together.
const CHUNK: usize = 4_096;

/// While the ring is looked through, its oldest calls make room for new ones. Those of so much more
/// time are then taken from the disk, until nothing that counts was lost meanwhile.
const MARGINS_US: [u64; 3] = [0, 2_000_000, 20_000_000];

/// The answer to a question.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its rows, in the question's order.
    pub rows: Vec<Row>,
    /// Rows that its limit left out.
    pub left_out: usize,
    /// The calls that it is made from arrived at this time or later, Unix time in microseconds: that
    /// of the question, or a later one where its time was up.
    pub from_us: u64,
    /// And before this time.
    pub to_us: u64,
    /// Whether all of the time that was asked for was looked at.
    pub is_whole: bool,
}

impl History {
    /// Answers a question about the ended calls of some tenants that arrived in a time.
    ///
    /// # Errors
    /// When there are too many groups.
    pub async fn ask(
        &self,
        tenants: Vec<Tenant>,
        query: Query,
        from_us: u64,
        to_us: u64,
    ) -> Result<Answer, TooManyGroups> {
        let answer = move |inner: &Inner| inner.ask(&tenants, &query, from_us, to_us, Instant::now() + TIME);
        // None only when the runtime is stopping.
        let nothing = Answer { rows: Vec::new(), left_out: 0, from_us: to_us, to_us, is_whole: false };
        self.in_background(answer).await.unwrap_or(Ok(nothing))
    }
}

impl Inner {
    fn ask(
        &self,
        tenants: &[Tenant],
        query: &Query,
        from_us: u64,
        to_us: u64,
        deadline: Instant,
    ) -> Result<Answer, TooManyGroups> {
        let shown = |tenant: &Tenant| Some((tenant.clone(), self.shown_since(tenant)?.max(from_us)));
        let mut totals = Totals::new(query, Vec::new());
        let mut on_disk = Vec::new();
        for (tenant, from_us) in tenants.iter().filter_map(shown) {
            let (of_ring, cut_us) = self.ask_ring(query, &tenant, from_us, to_us);
            totals.merge(of_ring);
            if cut_us > from_us {
                on_disk.push(Seen { tenant, from_us, to_us: cut_us.min(to_us) });
            }
        }
        let back_to_us = self.ask_disk(query, &on_disk, &mut totals, deadline);
        let looked_from_us = back_to_us.unwrap_or(from_us).max(from_us);
        let (rows, left_out) = totals.into_rows()?;
        Ok(Answer { rows, left_out, from_us: looked_from_us, to_us, is_whole: back_to_us.is_none() })
    }

    /// What the ring says of a tenant's calls that arrived from the second value on: it has all of them.
    fn ask_ring<'q>(&self, query: &'q Query, tenant: &Tenant, from_us: u64, to_us: u64) -> (Totals<'q>, u64) {
        let mut last = None;
        for margin_us in MARGINS_US {
            let cut_us = self.ring.horizon_us(tenant).saturating_add(margin_us);
            let begin_us = cut_us.max(from_us);
            if begin_us >= to_us {
                break;
            }
            let totals = self.scan_ring(query, Seen { tenant: tenant.clone(), from_us: begin_us, to_us });
            let is_all = self.ring.horizon_us(tenant) <= cut_us;
            last = Some((totals, cut_us));
            if is_all {
                break;
            }
        }
        last.unwrap_or_else(|| (Totals::new(query, Vec::new()), to_us))
    }

    fn scan_ring<'q>(&self, query: &'q Query, seen: Seen) -> Totals<'q> {
        let mut totals = Totals::new(query, vec![seen.clone()]);
        let mut calls: Vec<Invocation> = Vec::with_capacity(CHUNK);
        let mut add = |calls: &mut Vec<Invocation>| {
            let Ok(()) = totals.add(&Calls(calls));
            calls.clear();
        };
        self.ring.scan(&seen.tenant, |record| {
            let arrived_us = record.at_end().invocation.started_us;
            if (seen.from_us..seen.to_us).contains(&arrived_us) {
                calls.push(record.invocation());
                if calls.len() == CHUNK {
                    add(&mut calls);
                }
            }
            // Whoever ended before that had arrived before it, too.
            record.ended_us >= seen.from_us
        });
        add(&mut calls);
        totals
    }

    /// Adds what the disk says, slice by slice, several at a time. If the time was up, from which
    /// arrival on everything was added.
    fn ask_disk<'q>(
        &self,
        query: &'q Query,
        seen: &[Seen],
        totals: &mut Totals<'q>,
        deadline: Instant,
    ) -> Option<u64> {
        let reader = self.disk.reader();
        let from_us = seen.iter().map(|seen| seen.from_us).min()?;
        let to_us = seen.iter().map(|seen| seen.to_us).max()?;
        let slices: Vec<Stretch> = reader.stretches(from_us, to_us).into_iter().flat_map(sliced).collect();
        let done: Vec<Mutex<Option<Totals<'q>>>> = slices.iter().map(|_| Mutex::new(None)).collect();
        let next = AtomicUsize::new(0);
        let look = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let (Some(slice), Some(done)) = (slices.get(at), done.get(at)) else { return };
                let clip = |seen: &Seen| Seen {
                    tenant: seen.tenant.clone(),
                    from_us: seen.from_us.max(slice.from_us),
                    to_us: seen.to_us.min(slice.to_us),
                };
                let mut totals = Totals::new(query, seen.iter().map(clip).collect());
                let is_whole = reader.total(*slice, query, &mut totals, &mut || Instant::now() < deadline);
                *done.lock() = is_whole.then_some(totals);
            }
        };
        let threads =
            THREADS.min(slices.len()).min(std::thread::available_parallelism().map_or(1, usize::from));
        std::thread::scope(|scope| {
            for _ in 1..threads {
                // Without it, this thread does all of it.
                let _ = std::thread::Builder::new().name("question".to_owned()).spawn_scoped(scope, look);
            }
            look();
        });
        for (slice, done) in slices.iter().zip(done) {
            match done.into_inner() {
                Some(of_slice) => totals.merge(of_slice),
                None => return Some(slice.to_us),
            }
        }
        None
    }
}

/// A stretch in pieces of [`SLICE_US`], the newest first.
fn sliced(stretch: Stretch) -> impl Iterator<Item = Stretch> {
    let mut to_us = stretch.to_us;
    std::iter::from_fn(move || {
        let from_us = to_us.saturating_sub(SLICE_US).max(stretch.from_us);
        let slice = Stretch { from_us, to_us, ..stretch };
        to_us = from_us;
        (slice.from_us < slice.to_us).then_some(slice)
    })
}
