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
        shard.lanes.values().for_each(Lane::check);
        let bytes: usize = shard.lanes.values().map(Lane::bytes).sum();
        assert_eq!(shard.bytes, bytes);
        assert_eq!(shard.occupied, shard.lanes.values().filter(|lane| lane.len() > 0).count());
    }
}

/// Within the budget, but for what came last.
fn check_budget(ring: &Ring) {
    for shard in &ring.shards {
        let shard = shard.lock();
        let calls: usize = shard.lanes.values().map(Lane::len).sum();
        assert!(shard.bytes <= ring.shard_budget || calls == 1, "{}", shard.bytes);
    }
}

fn of(tenant: &str, serial: u64, size: usize) -> Record {
    let mut kept = call(serial);
    kept.invocation.tenant = tenant.parse().expect("a name");
    kept.invocation.path = "p".repeat(size).into();
    Record::new(kept, 0)
}

fn calls_of(ring: &Ring, tenant: &str) -> Vec<InvocationId> {
    let mut ids = Vec::new();
    ring.scan(&tenant.parse().expect("a name"), |record| {
        ids.push(record.at_end().invocation.id);
        true
    });
    ids
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
            check_budget(&ring);
        }
        for serials in serials_by_shard {
            let held = serials.iter().map(|serial| ring.ended(&Tenant::default(), id_of(*serial)).is_some());
            let held: Vec<bool> = held.collect();
            // Everything from the oldest held one on is held, and the newest always is.
            prop_assert!(held.is_sorted());
            prop_assert_eq!(held.last().copied().unwrap_or(true), true);
        }
        let count = |trace| ring.trace(&Tenant::default(), trace_of(trace), |_| true).len();
        let in_traces: usize = (0..traces).map(count).sum();
        prop_assert_eq!(in_traces, ring.usage().calls);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The one who is loud pays: a tenant within its equal share loses nothing, whatever the others do.
    #[test]
    fn who_holds_no_more_than_an_equal_share_loses_nothing(
        calls in proptest::collection::vec((0usize..4, 0usize..40_000), 1..600),
    ) {
        const NAMES: [&str; 4] = ["default", "acme", "globex", "initech"];
        let ring = Ring::new(2 << 20, 0);
        let mut ended: Vec<Vec<InvocationId>> = vec![Vec::new(); NAMES.len()];
        let mut bytes = vec![vec![0; ring.shards.len()]; NAMES.len()];
        for (serial, (who, size)) in (0u64..).zip(&calls) {
            let record = of(NAMES[*who], serial, *size);
            let shard = usize::from(record.at_end().invocation.id.0[7]) % ring.shards.len();
            bytes[*who][shard] += record.footprint();
            ended[*who].push(record.at_end().invocation.id);
            ring.finish(record);
            check(&ring);
        }
        check_budget(&ring);
        let share = ring.shard_budget / NAMES.len();
        for (who, name) in NAMES.iter().enumerate() {
            let kept = calls_of(&ring, name);
            prop_assert!(kept.iter().all(|id| ended[who].contains(id)), "nobody sees another's");
            if bytes[who].iter().all(|bytes| *bytes <= share) {
                prop_assert_eq!(kept.len(), ended[who].len(), "{} within {}", name, share);
                prop_assert_eq!(ring.horizon_us(&name.parse().expect("a name")), 0);
            }
        }
    }
}

#[test]
fn a_loud_tenant_pushes_out_its_own_calls_only() {
    let ring = Ring::new(2 << 20, 0);
    for serial in 0..20 {
        ring.finish(of("quiet", serial, 100));
    }
    for serial in 20..20_000 {
        ring.finish(of("loud", serial, 1_000));
    }
    check_budget(&ring);
    assert_eq!(calls_of(&ring, "quiet").len(), 20);
    assert!(ring.usage().bytes > (2 << 20) * 9 / 10, "what the quiet do not need is not left empty");
    // One call that is larger than all takes nothing from the quiet either.
    ring.finish(of("loud", 20_000, 8 << 20));
    ring.finish(of("loud", 20_001, 10));
    assert_eq!(calls_of(&ring, "quiet").len(), 20);
}

#[test]
fn a_limit_of_its_own_holds_a_tenant_to_it() {
    let ring = Ring::new(4 << 20, 0);
    let acme = "acme".parse().expect("a name");
    ring.limit(&acme, Some(256 << 10));
    for serial in 0..2_000 {
        ring.finish(of("acme", serial, 1_000));
    }
    assert!(ring.bytes_of(&acme) <= 256 << 10, "{}", ring.bytes_of(&acme));
    assert!(calls_of(&ring, "acme").len() > 50);
    ring.limit(&acme, None);
    for serial in 2_000..4_000 {
        ring.finish(of("acme", serial, 1_000));
    }
    assert!(ring.bytes_of(&acme) > 1 << 20);
    ring.forget(&acme);
    check(&ring);
    assert_eq!((ring.bytes_of(&acme), ring.usage().calls), (0, 0));
}

#[test]
fn a_call_larger_than_the_ring_is_visible_until_the_next_one_ends() {
    let ring = Ring::new(64 << 10, 0);
    ring.finish(record(1, 1 << 20));
    assert!(ring.ended(&Tenant::default(), id_of(1)).is_some());
    ring.finish(record(2, 10));
    assert!(ring.ended(&Tenant::default(), id_of(1)).is_none());
    assert!(ring.ended(&Tenant::default(), id_of(2)).is_some());
    assert!(ring.horizon_us(&Tenant::default()) >= call(1).invocation.started_us);
}

#[test]
fn a_ring_grows_only_as_it_fills() {
    let ring = Ring::new(256 << 20, 0);
    assert_eq!(ring.usage(), RingUse::default());
    let capacity: usize = ring.shards.iter().map(|shard| shard.lock().lanes.capacity()).sum();
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
    ring.scan(&Tenant::default(), |record| {
        assert!(seen.insert(record.at_end().invocation.id));
        true
    });
    assert_eq!(seen.len() as u64, count);
    let mut visits = 0;
    ring.scan(&Tenant::default(), |_| {
        visits += 1;
        false
    });
    assert_eq!(visits, ring.shards.len());
}
