use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::series::Limits;
use super::*;

fn record(kind: Kind, tenant: &str, path: &str) -> Record {
    Record {
        seq: 0,
        at_us: 1_700_000_000_123_456,
        request_id: "0190b2a8-4e5c-7cc1-b4a5-0d2f6a1c9e11".into(),
        kind,
        tenant: tenant.into(),
        caller: Asker {
            means: Means::Bearer,
            tenant: Some(tenant.into()),
            key_id: Some("k3j9x0ab".into()),
            key_name: Some("ci".into()),
        },
        peer: Some("127.0.0.1:50312".into()),
        forwarded_for: None,
        listener: "api".into(),
        method: "DELETE".into(),
        path: path.into(),
        acted_on: None,
        status: 200,
        code: None,
        duration_ms: 1.5,
        lost_before: 0,
    }
}

fn all() -> Query {
    Query { tenant: None, since_us: None, kind: None, before: None, limit: 1_000 }
}

/// Room for about three records a file.
const SMALL: Limits = Limits { file_bytes: 1_000, kept: 2 };

fn small(dir: &Path) -> Audit {
    Audit::with_limits(dir, 1_000, SMALL).unwrap()
}

async fn paths(audit: &Audit, query: Query) -> Vec<String> {
    audit.list(query).await.unwrap().items.into_iter().map(|record| record.path).collect()
}

#[tokio::test]
async fn all_kinds_come_in_one_order_the_latest_first() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    for (index, kind) in Kind::ALL.into_iter().chain(Kind::ALL).enumerate() {
        audit.note(record(kind, "default", &format!("/{index}")));
    }
    assert_eq!(paths(&audit, all()).await, ["/7", "/6", "/5", "/4", "/3", "/2", "/1", "/0"]);
    let changes = Query { kind: Some(Kind::Change), ..all() };
    assert_eq!(paths(&audit, changes).await, ["/4", "/0"]);
    let items = audit.list(all()).await.unwrap().items;
    let wanted = Record { seq: 1, ..record(Kind::Change, "default", "/0") };
    assert_eq!(items.last(), Some(&wanted), "it comes back as it was noted");
}

#[tokio::test]
async fn pages_follow_each_other_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::with_limits(dir.path(), 1_000, Limits { kept: 100, ..SMALL }).unwrap();
    let kinds = Kind::ALL.into_iter().cycle();
    kinds.take(50).enumerate().for_each(|(n, kind)| audit.note(record(kind, "default", &n.to_string())));
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = audit.list(Query { before, limit: 7, ..all() }).await.unwrap();
        assert!(page.items.len() <= 7);
        seen.extend(page.items.into_iter().map(|record| record.seq));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, (1..=50).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_tenant_is_told_apart_and_so_is_time() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    audit.note(record(Kind::Read, "acme", "/a"));
    audit.note(record(Kind::Read, "acme-2", "/b"));
    // Who asks is of acme, and it is about the operator's things.
    audit.note(Record { tenant: "default".into(), ..record(Kind::Refusal, "acme", "/c") });
    audit.note(Record { at_us: 5, ..record(Kind::Read, "acme", "/d") });
    let of_acme = Query { tenant: Some("acme".parse().unwrap()), ..all() };
    assert_eq!(paths(&audit, of_acme.clone()).await, ["/d", "/a"]);
    let lately = Query { since_us: Some(1_700_000_000_123_456), ..of_acme };
    assert_eq!(paths(&audit, lately).await, ["/a"]);
    let to_come = Query { since_us: Some(u64::MAX / 4), ..all() };
    assert!(paths(&audit, to_come).await.is_empty());
}

#[tokio::test]
async fn the_log_survives_a_restart_and_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    audit.note(record(Kind::Change, "default", "/before"));
    audit.note(record(Kind::Read, "default", "/read"));
    audit.close().await;
    audit.note(record(Kind::Read, "default", "/too late"));
    assert_eq!(audit.lost(), 1, "what comes after the end is counted");
    let audit = Audit::open(dir.path()).unwrap();
    audit.note(record(Kind::Refusal, "default", "/after"));
    let items = audit.list(all()).await.unwrap().items;
    let told: Vec<_> = items.iter().map(|record| (record.seq, record.path.as_str())).collect();
    assert_eq!(told, [(3, "/after"), (2, "/read"), (1, "/before")]);
}

#[tokio::test]
async fn nobody_else_reads_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    audit.note(record(Kind::Change, "default", "/"));
    audit.close().await;
    let mode = |path: &str| dir.path().join(path).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("audit"), mode("audit/changes.jsonl")), (0o700, 0o600));
}

#[tokio::test]
async fn a_full_file_makes_room_and_only_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let audit = small(dir.path());
    audit.note(record(Kind::Change, "default", "/kept"));
    for number in 0..100 {
        audit.note(record(Kind::Read, "default", &format!("/{number}")));
        audit.list(Query { limit: 1, ..all() }).await.unwrap();
    }
    let seen = paths(&audit, all()).await;
    let newest_first: Vec<_> = (0..100).rev().map(|number| format!("/{number}")).collect();
    let reads = seen.len() - 1;
    assert!((4..=9).contains(&reads), "{seen:?}");
    assert_eq!(seen[..reads], newest_first[..reads], "without a gap");
    assert_eq!(seen[reads], "/kept", "reads push out no change");
    let files = std::fs::read_dir(dir.path().join("audit")).unwrap().count();
    assert_eq!(files, 4, "two full ones of reads, and the present ones of reads and changes");
    let sizes = std::fs::read_dir(dir.path().join("audit")).unwrap();
    assert!(sizes.into_iter().all(|file| file.unwrap().metadata().unwrap().len() <= 1_000));
    drop(audit);
    let again = small(dir.path());
    again.note(record(Kind::Change, "default", "/again"));
    assert_eq!(again.list(all()).await.unwrap().items[0].seq, 102);
}

#[tokio::test]
async fn who_changes_much_pushes_out_nobody_elses_changes() {
    let dir = tempfile::tempdir().unwrap();
    let audit = small(dir.path());
    let flood = async |audit: &Audit| {
        for number in 0..40 {
            audit.note(record(Kind::Change, "loud", &format!("/{number}")));
            audit.catch_up().await;
        }
    };
    let kept = async |audit: &Audit| {
        let seen = paths(audit, all()).await.into_iter();
        seen.filter(|path| path.parse::<u32>().is_err() && path.starts_with("/of")).collect::<Vec<_>>()
    };
    for path in ["/of-operator-1", "/of-operator-2"] {
        audit.note(record(Kind::Change, "default", path));
    }
    audit.note(record(Kind::Change, "quiet", "/of-quiet"));
    flood(&audit).await;
    let wanted = ["/of-quiet", "/of-operator-2", "/of-operator-1"];
    assert_eq!(kept(&audit).await, wanted);
    let files = || {
        let files = std::fs::read_dir(dir.path().join("audit")).unwrap().map(|file| file.unwrap().path());
        files.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(files().len(), 4, "the present one, two full ones, and what stayed of the rest");
    // The oldest number is first in order.
    let rest = files().into_iter().find(|path| path.to_string_lossy().contains("changes-")).unwrap();
    let lines = std::fs::read(&rest).unwrap();
    flood(&audit).await;
    assert_eq!(kept(&audit).await, wanted);
    audit.close().await;
    // As after a kill before it was removed.
    std::fs::write(&rest, &lines).unwrap();
    let audit = small(dir.path());
    assert_eq!(kept(&audit).await, wanted);
    let seqs: Vec<_> = audit.list(all()).await.unwrap().items.iter().map(|record| record.seq).collect();
    assert!(seqs.is_sorted_by(|a, b| a > b), "{seqs:?}");
    assert!(!rest.exists());
}

#[tokio::test]
async fn a_torn_line_takes_nothing_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    audit.note(record(Kind::Change, "default", "/before"));
    audit.close().await;
    let path = dir.path().join("audit/changes.jsonl");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"seq\":2,\"time\":\"20");
    std::fs::write(&path, &bytes).unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    audit.note(record(Kind::Change, "default", "/after"));
    assert_eq!(paths(&audit, all()).await, ["/after", "/before"]);
}

#[tokio::test]
async fn what_cannot_be_written_is_counted_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    audit.note(record(Kind::Change, "default", "/before"));
    audit.catch_up().await;
    // In the place of the reads' file, which is not there yet.
    std::fs::create_dir(dir.path().join("audit/reads.jsonl")).unwrap();
    for _ in 0..3 {
        audit.note(record(Kind::Read, "default", "/lost"));
        audit.catch_up().await;
    }
    assert_eq!(audit.lost(), 3);
    std::fs::remove_dir(dir.path().join("audit/reads.jsonl")).unwrap();
    audit.note(record(Kind::Read, "default", "/after"));
    let items = audit.list(all()).await.unwrap().items;
    let told: Vec<_> = items.iter().map(|record| (record.path.as_str(), record.lost_before)).collect();
    assert_eq!(told, [("/after", 3), ("/before", 0)]);
}

#[tokio::test]
async fn a_full_disk_is_counted_and_not_waited_for() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        println!("skipped: no /dev/full here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("audit")).unwrap();
    std::os::unix::fs::symlink(full, dir.path().join("audit/changes.jsonl")).unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    audit.note(record(Kind::Change, "default", "/lost"));
    audit.note(record(Kind::Read, "default", "/kept"));
    audit.catch_up().await;
    assert_eq!(audit.lost(), 1);
}

#[tokio::test]
async fn a_full_queue_is_counted_and_nobody_waits() {
    let dir = tempfile::tempdir().unwrap();
    // Every record after the first makes the writer change names.
    let audit = Audit::with_limits(dir.path(), 1, Limits { file_bytes: 1, kept: 100 }).unwrap();
    audit.note(record(Kind::Read, "default", "/first"));
    audit.catch_up().await;
    {
        let _names_stay = audit.shared.names.lock();
        (0..10).for_each(|_| audit.note(record(Kind::Read, "default", "/flood")));
    }
    let lost = audit.lost();
    assert!((8..=9).contains(&lost), "one is with the writer and one waits, at most: {lost}");
    audit.catch_up().await;
    audit.note(record(Kind::Read, "default", "/last"));
    let items = audit.list(all()).await.unwrap().items;
    assert_eq!((items.len() as u64 + lost, items[0].path.as_str()), (12, "/last"));
    assert_eq!(items.iter().map(|record| record.lost_before).sum::<u64>(), lost);
}
