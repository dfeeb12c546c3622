use fp_core::Outcome;

use super::super::record::Record;
use super::super::tests::{EPOCH_US, call, id_of};
use super::*;

struct Bench {
    dir: tempfile::TempDir,
    config: HistoryConfig,
    disk: Disk,
    keeper: Keeper,
    now: Instant,
}

impl Bench {
    fn new(config: HistoryConfig) -> Self {
        Self::at(tempfile::tempdir().unwrap(), config)
    }

    fn at(dir: tempfile::TempDir, config: HistoryConfig) -> Self {
        let (disk, keeper) = Disk::assemble(&config, dir.path(), Clock::start());
        Self { dir, config, disk, keeper, now: Instant::now() }
    }

    fn end(&self, serial: u64) -> Arc<Record> {
        let kept = call(serial);
        let row = self.disk.weigh(&kept.invocation);
        let record = Arc::new(Record::new(kept, row.as_ref().map_or(0, |(weight, _)| *weight)));
        if let Some((_, share)) = row {
            self.disk.keep(&record, share);
        }
        record
    }

    fn keep(&self, record: &Arc<Record>) {
        let share = self.disk.shared.sampling.shares.of(&record.at_end().invocation.tenant);
        self.disk.keep(record, share);
    }

    fn step_after(&mut self, time: Duration) {
        self.now += time;
        self.keeper.step(self.now, false);
    }

    fn is_on_disk(&self, serial: u64) -> bool {
        self.disk.reader().find(id_of(serial)).is_some()
    }
}

/// The interface's limits, and history kept from the time of these calls on.
fn config() -> HistoryConfig {
    HistoryConfig { keep: Duration::from_secs(1 << 40), ..HistoryConfig::default() }
}

#[test]
fn a_row_is_written_when_its_answer_is_sent_and_at_the_latest_after_the_hold() {
    let mut bench = Bench::new(config());
    let sent = bench.end(1);
    let slow = bench.end(2);
    assert!(!sent.set_sent(9, None));
    bench.step_after(Duration::ZERO);
    assert!(bench.is_on_disk(1) && !bench.is_on_disk(2));
    assert_eq!(bench.disk.reader().find(id_of(1)).unwrap().invocation.phases.send, 9);

    bench.step_after(HOLD + TICK);
    assert!(bench.is_on_disk(2));
    assert!(slow.set_sent(11, Some(Outcome::Cancelled)), "the row was taken before");
    bench.disk.amend(&slow);
    bench.step_after(Duration::ZERO);
    let found = bench.disk.reader().find(id_of(2)).unwrap().invocation;
    assert_eq!((found.phases.send, found.outcome), (11, Outcome::Cancelled));
    // A quarter of a second for the commit is generous: a batch of 250 rows takes 10 ms.
    assert!(HOLD + TICK + Duration::from_millis(250) <= Duration::from_secs(1));
}

#[test]
fn what_sampling_leaves_out_is_known_as_left_out_before_and_after_a_restart() {
    let mut bench = Bench::new(HistoryConfig { per_function_per_second: 5, ..config() });
    for serial in 0..15 {
        bench.end(serial);
    }
    assert_eq!(bench.disk.left_out(), 10);
    assert!(bench.disk.was_skipped(&Tenant::default(), id_of(14)));
    assert!(!bench.disk.was_skipped(&Tenant::default(), id_of(1_000)));
    bench.keeper.step(bench.now, true);
    assert!(bench.is_on_disk(4) && !bench.is_on_disk(5));
    let Bench { dir, config, disk, keeper, .. } = bench;
    drop((disk, keeper));
    let bench = Bench::at(dir, config);
    assert!(bench.disk.was_skipped(&Tenant::default(), id_of(14)));
    assert!(!bench.disk.was_skipped(&Tenant::default(), id_of(1_000)));
}

#[test]
fn what_is_left_out_of_one_tenants_calls_is_no_others_to_know() {
    let acme: Tenant = "acme".parse().unwrap();
    let mut bench = Bench::new(HistoryConfig { per_function_per_second: 5, ..config() });
    for serial in 0..15 {
        let mut kept = call(serial);
        kept.invocation.tenant = acme.clone();
        bench.disk.weigh(&kept.invocation);
    }
    let is_known = |disk: &Disk| {
        assert!(disk.was_skipped(&acme, id_of(14)));
        assert!(!disk.was_skipped(&Tenant::default(), id_of(14)));
        assert!(!disk.was_skipped(&"globex".parse().unwrap(), id_of(14)));
    };
    is_known(&bench.disk);
    bench.keeper.step(bench.now, true);
    is_known(&bench.disk);
}

#[test]
fn weights_on_disk_add_up_to_the_calls() {
    let mut bench = Bench::new(HistoryConfig { per_function_per_second: 20, ..config() });
    for serial in 0..3_000 {
        bench.end(serial);
    }
    bench.keeper.step(bench.now, true);
    let file = bench.dir.path().join("history/2026-01-01T00-00-00Z.db");
    let connection = rusqlite::Connection::open(file).unwrap();
    let (rows, calls): (u64, u64) = connection
        .query_row("SELECT count(*), sum(weight) FROM invocations", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert!(rows < 400, "{rows}");
    assert!((2_900..=3_000).contains(&calls), "{calls}");
}

#[test]
fn a_full_disk_turns_history_off_with_a_reason_and_it_comes_back_without_loss() {
    let mut bench = Bench::new(config());
    // Room for the tables, not for the calls: SQLite answers SQLITE_FULL, as on a full disk.
    bench.keeper.writer.max_pages = Some(20);
    for serial in 0..200 {
        bench.end(serial).set_sent(1, None);
    }
    bench.step_after(Duration::ZERO);
    let DiskState::Off { reason, .. } = bench.disk.state() else { panic!("history is on") };
    assert!(reason.contains("database or disk is full"), "{reason}");
    assert!(!bench.is_on_disk(0));

    // The file may grow again; the next try is ten seconds later.
    bench.keeper.writer.max_pages = None;
    bench.keeper.writer.close();
    bench.step_after(TICK);
    assert_ne!(bench.disk.state(), DiskState::On);
    bench.step_after(RETRY);
    assert_eq!(bench.disk.state(), DiskState::On);
    assert!((0..200).all(|serial| bench.is_on_disk(serial)));
    assert_eq!(bench.disk.dropped(), 0);
}

#[test]
fn an_unusable_directory_turns_history_off_until_it_can_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history");
    std::fs::write(&path, "a file where the directory should be").unwrap();
    let mut bench = Bench::at(dir, config());
    bench.end(1).set_sent(1, None);
    bench.step_after(Duration::ZERO);
    let DiskState::Off { reason, .. } = bench.disk.state() else { panic!("history is on") };
    assert!(reason.contains("history directory"), "{reason}");
    std::fs::remove_file(&path).unwrap();
    bench.step_after(RETRY);
    assert_eq!(bench.disk.state(), DiskState::On);
    assert!(bench.is_on_disk(1));
}

#[test]
fn a_queue_that_nobody_empties_is_bounded_and_its_losses_are_known() {
    let bench = Bench::new(HistoryConfig { per_function_per_second: 1_000, ..config() });
    let mut kept = call(0);
    kept.logs[0].text = "x".repeat(1 << 20).into();
    let large = Arc::new(Record::new(kept, 1));
    for _ in 0..40 {
        bench.keep(&large);
    }
    assert_eq!(bench.disk.dropped(), 40 - 31);
    assert!(bench.disk.shared.queued_bytes.load(Ordering::Relaxed) <= QUEUE_BYTES);
    assert!(bench.disk.was_skipped(&Tenant::default(), id_of(0)));
}

#[test]
fn what_a_compaction_left_unfinished_goes_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join("history/2026-01-01T00-00-00Z.blocks-unfinished");
    std::fs::create_dir(dir.path().join("history")).unwrap();
    std::fs::write(&left, "half").unwrap();
    let _bench = Bench::at(dir, config());
    assert!(!left.exists());
}

#[test]
fn retention_runs_by_itself_and_reports_the_bytes() {
    let mut bench = Bench::new(HistoryConfig { keep: Duration::from_secs(3_600), ..config() });
    // Long ago, as far as the present clock is concerned.
    assert!(bench.keeper.shared.clock.wall_now_us() > EPOCH_US + 7_200_000_000);
    bench.end(1).set_sent(1, None);
    let mut recent = call(2);
    recent.invocation.started_us = bench.keeper.shared.clock.wall_now_us();
    recent.invocation.id = InvocationId::from_parts(recent.invocation.started_us / 1_000, 5);
    let recent_id = recent.invocation.id;
    bench.keep(&Arc::new(Record::new(recent, 1)));
    bench.step_after(HOLD + TICK);
    assert!(bench.disk.reader().find(recent_id).is_some());
    assert!(!bench.is_on_disk(1));
    assert!(bench.disk.bytes() > 0);
}
