use proptest::prelude::*;

use super::super::tests::{call, id_of, trace_of};
use super::*;

fn record(serial: u64, path_len: usize) -> Record {
    let mut kept = call(serial);
    kept.invocation.path = "p".repeat(path_len).into();
    Record::new(kept, 0)
}

fn check(ring: &Ring) {
    for shard in &ring.shards {
        let shard = shard.lock();
        let bytes: usize = shard.slots.iter().map(|slot| slot.record.footprint()).sum();
        assert_eq!(shard.bytes, bytes);
        assert!(bytes <= ring.shard_budget || shard.slots.len() == 1, "{bytes}");
        assert_eq!(shard.by_id.len(), shard.slots.len());
        let ends: Vec<_> = shard.slots.iter().map(|slot| slot.record.ended_us).collect();
        assert!(ends.is_sorted());
        for (trace, serial) in &shard.by_trace {
            let slot = shard.slot(*serial).expect("an index leads to a slot");
            assert_eq!(slot.record.at_end().invocation.trace_id, *trace);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_ring_holds_the_newest_calls_within_its_bytes(
        sizes in proptest::collection::vec(0usize..200_000, 1..300),
        traces in 1u64..20,
    ) {
        let ring = Ring::new(3 << 20, 0);
        let mut serials_by_shard = vec![Vec::new(); ring.shards.len()];
        for (serial, size) in (0u64..).zip(&sizes) {
            let mut kept = call(serial);
            kept.invocation.path = "p".repeat(*size).into();
            kept.invocation.trace_id = trace_of(serial % traces);
            serials_by_shard[usize::from(id_of(serial).0[7]) % ring.shards.len()].push(serial);
            ring.finish(Record::new(kept, 0));
            check(&ring);
        }
        for serials in serials_by_shard {
            let held = serials.iter().map(|serial| ring.ended(id_of(*serial)).is_some());
            let held: Vec<bool> = held.collect();
            // Everything from the oldest held one on is held, and the newest always is.
            prop_assert!(held.is_sorted());
            prop_assert_eq!(held.last().copied().unwrap_or(true), true);
        }
        let in_traces: usize = (0..traces).map(|trace| ring.trace(trace_of(trace)).len()).sum();
        prop_assert_eq!(in_traces, ring.usage().calls);
    }
}

#[test]
fn a_call_larger_than_the_ring_is_visible_until_the_next_one_ends() {
    let ring = Ring::new(64 << 10, 0);
    ring.finish(record(1, 1 << 20));
    assert!(ring.ended(id_of(1)).is_some());
    ring.finish(record(2, 10));
    assert!(ring.ended(id_of(1)).is_none());
    assert!(ring.ended(id_of(2)).is_some());
    assert!(ring.horizon_us() >= call(1).invocation.started_us);
}

#[test]
fn a_ring_grows_only_as_it_fills() {
    let ring = Ring::new(256 << 20, 0);
    assert_eq!(ring.usage(), RingUse::default());
    let capacity: usize = ring.shards.iter().map(|shard| shard.lock().slots.capacity()).sum();
    assert_eq!(capacity, 0);
}

#[test]
fn a_scan_stops_in_each_shard_where_it_is_told_and_sees_each_call_once() {
    let ring = Ring::new(64 << 20, 0);
    let count = 3_000;
    for serial in 0..count {
        ring.finish(record(serial, 1));
    }
    let mut seen = std::collections::HashSet::new();
    ring.scan(|record| {
        assert!(seen.insert(record.at_end().invocation.id));
        true
    });
    assert_eq!(seen.len() as u64, count);
    let mut visits = 0;
    ring.scan(|_| {
        visits += 1;
        false
    });
    assert_eq!(visits, ring.shards.len());
}
