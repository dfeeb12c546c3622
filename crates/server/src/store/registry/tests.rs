use std::sync::Arc;

use super::*;

fn name(text: &str) -> FunctionName {
    text.parse().unwrap()
}

fn version(function: &str, number: u32, order: u64) -> StoredVersion {
    StoredVersion {
        tenant: Tenant::default(),
        function: name(function),
        version: VersionNumber(number),
        order,
        created_us: 1_000 * order,
        deployed_us: 1_000 * order + u64::from(number),
        code_hash: format!("hash of {function} {number}"),
        handler: Handler { file: "lib/händler.py".into(), callable: "handler".into() },
        events: vec!["http|GET|/{id}".parse().unwrap(), "http|*|/x".parse().unwrap()],
        settings: stored_settings::tests::unusual(),
    }
}

fn call(serial: u64) -> AsyncCall {
    AsyncCall {
        id: InvocationId::from_parts(serial, u128::from(serial)),
        tenant: Tenant::default(),
        function: name("cats"),
        order: (serial != 2).then_some(7),
        event_type: "http|GET|/x".into(),
        head_json: r#"{"verb":"GET"}"#.into(),
        body_bytes: 3,
        accepted_us: serial * 1_000,
        state: AsyncState::Queued,
        attempts: 0,
    }
}

const BODY: Bytes = Bytes::from_static(&[0, 255, 7]);

#[tokio::test]
async fn versions_come_back_after_a_restart_in_order_of_creation() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    for stored in [version("b", 1, 1), version("a", 1, 2), version("b", 2, 1)] {
        registry.put_version(stored).await.unwrap();
    }
    registry.close().await;
    let registry = Registry::open(dir.path()).unwrap();
    assert_eq!(registry.live_versions().await.unwrap(), [version("b", 2, 1), version("a", 1, 2)]);
    assert_eq!(registry.starts(), 2);
}

#[tokio::test]
async fn version_numbers_are_never_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let (tenant, cats) = (Tenant::default(), name("cats"));
    assert_eq!(registry.next_version(&tenant, &cats).await.unwrap(), (VersionNumber(1), 1, None));
    registry.put_version(version("cats", 1, 1)).await.unwrap();
    registry.put_version(version("dogs", 1, 2)).await.unwrap();
    assert_eq!(registry.next_version(&tenant, &cats).await.unwrap(), (VersionNumber(2), 1, Some(1_000)));
    let again = registry.put_version(version("cats", 1, 1)).await;
    assert!(matches!(again, Err(StoreError::VersionExists { version: 1, .. })), "{again:?}");

    assert!(registry.delete_function(&tenant, &cats).await.unwrap());
    assert!(!registry.delete_function(&tenant, &cats).await.unwrap());
    assert_eq!(registry.live_versions().await.unwrap(), [version("dogs", 1, 2)]);
    assert_eq!(registry.next_version(&tenant, &cats).await.unwrap(), (VersionNumber(2), 3, None));
    registry.put_version(version("cats", 2, 3)).await.unwrap();
    assert_eq!(registry.live_versions().await.unwrap().len(), 2);
}

#[tokio::test]
async fn functions_created_at_once_get_orders_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let tenant = Tenant::default();
    let (_, cats, _) = registry.next_version(&tenant, &name("cats")).await.unwrap();
    let (_, dogs, _) = registry.next_version(&tenant, &name("dogs")).await.unwrap();
    assert_eq!((cats, dogs), (1, 2));
    registry.put_version(version("dogs", 1, dogs)).await.unwrap();
    registry.put_version(version("cats", 1, cats)).await.unwrap();
    assert_eq!(registry.live_versions().await.unwrap().len(), 2);
}

#[tokio::test]
async fn accepted_calls_survive_until_they_are_finished() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    registry.enqueue(vec![call(2), call(1)], BODY).await.unwrap();
    registry.mark_started(call(1).id, 2_000_000_000_000_000).await.unwrap();
    // As after kill -9: the writer is not asked to close.
    let copy = tempfile::tempdir().unwrap();
    for file in database::file_family(&dir.path().join("registry.db")) {
        std::fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    let survivor = Registry::open(copy.path()).unwrap();
    let started =
        AsyncCall { state: AsyncState::Started { at_us: 2_000_000_000_000_000 }, attempts: 1, ..call(1) };
    assert_eq!(survivor.pending_calls(None).await.unwrap(), [started, call(2)]);
    let (head, body) = survivor.whole_call(call(1).id).await.unwrap().unwrap();
    assert_eq!((head.id, body), (call(1).id, BODY));
    survivor.finish_call(call(1).id).await.unwrap();
    assert_eq!(survivor.whole_call(call(1).id).await.unwrap(), None);
    let bodies = |connection: &rusqlite::Connection| {
        Ok(connection.query_row("SELECT count(*) FROM async_bodies", [], |row| row.get::<_, u64>(0))?)
    };
    assert_eq!(survivor.writer.run("counting", bodies).await.unwrap(), 1, "an ended call leaves no body");
    assert_eq!(survivor.pending_calls(None).await.unwrap(), [call(2)]);
}

#[tokio::test]
async fn a_backlog_is_read_in_pieces_and_without_bodies() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let large = |serial| AsyncCall { head_json: "h".repeat(600 << 10), ..call(serial) };
    for serial in 1..=5 {
        registry.enqueue(vec![large(serial)], Bytes::from(vec![7; 1 << 20])).await.unwrap();
    }
    let (mut sizes, mut last) = (Vec::new(), None);
    loop {
        let page = registry.pending_calls(last.take()).await.unwrap();
        let Some(end) = page.last().cloned() else { break };
        assert_eq!(end.body_bytes, 1 << 20);
        sizes.push(page.len());
        last = Some(end);
    }
    assert_eq!(sizes, [2, 2, 1]);
}

#[tokio::test]
async fn calls_that_an_earlier_release_accepted_keep_their_bodies() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.db");
    {
        let mut connection = rusqlite::Connection::open(&path).unwrap();
        rows::layout().to_version(&mut connection, 5).unwrap();
        let insert = "INSERT INTO async_calls
            (id, tenant, function, event_type, head, body, accepted_us, started, attempts, creation_order)
            VALUES (?1, 'default', 'cats', 'http|GET|/x', '{\"verb\":\"GET\"}', x'00ff07', 1000, 0, 0, 7)";
        connection.execute(insert, [call(1).id.0]).unwrap();
    }
    let registry = Registry::open(dir.path()).unwrap();
    assert_eq!(registry.pending_calls(None).await.unwrap(), [call(1)]);
    assert_eq!(registry.whole_call(call(1).id).await.unwrap(), Some((call(1), BODY)));
}

#[tokio::test]
async fn a_batch_is_accepted_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    registry.enqueue(vec![call(1)], BODY).await.unwrap();
    let refused = registry.enqueue(vec![call(2), call(1)], BODY).await;
    assert!(matches!(refused, Err(StoreError::Database { .. })), "{refused:?}");
    assert_eq!(registry.pending_calls(None).await.unwrap(), [call(1)]);
}

#[tokio::test]
async fn many_writers_share_transactions_and_one_failure_stays_alone() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Arc::new(Registry::open(dir.path()).unwrap());
    registry.enqueue(vec![call(100)], BODY).await.unwrap();
    let tasks: Vec<_> = (0..200)
        .map(|serial| {
            let registry = registry.clone();
            // Serial 100 is there already.
            tokio::spawn(async move { registry.enqueue(vec![call(serial)], BODY).await.is_ok() })
        })
        .collect();
    for (serial, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), serial != 100, "{serial}");
    }
    let mut read: Vec<AsyncCall> = Vec::new();
    loop {
        let page = registry.pending_calls(read.last().cloned()).await.unwrap();
        if page.is_empty() {
            break;
        }
        read.extend(page);
    }
    assert_eq!(read, (0..200).map(call).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_disk_refuses_a_call_and_keeps_what_was_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    registry.enqueue(vec![call(1)], BODY).await.unwrap();
    // SQLite answers SQLITE_FULL as it does when the disk is full.
    let limit = |connection: &rusqlite::Connection| {
        let pages: u32 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        Ok(connection.pragma_update(None, "max_page_count", pages)?)
    };
    registry.writer.run("limiting", limit).await.unwrap();
    let large = Bytes::from(vec![1; 1 << 20]);
    let refused = registry.enqueue(vec![call(2)], large.clone()).await;
    assert!(matches!(refused, Err(StoreError::Database { .. })), "{refused:?}");
    assert_eq!(registry.pending_calls(None).await.unwrap(), [call(1)]);
    let unlimit = |connection: &rusqlite::Connection| {
        Ok(connection.pragma_update(None, "max_page_count", 1_000_000)?)
    };
    registry.writer.run("unlimiting", unlimit).await.unwrap();
    registry.enqueue(vec![call(2)], large).await.unwrap();
}

#[tokio::test]
async fn a_damaged_registry_is_set_aside_and_a_new_one_begun() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.db");
    std::fs::write(&path, "this is no database, ".repeat(1_000)).unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    registry.put_version(version("cats", 1, 1)).await.unwrap();
    registry.close().await;
    // Every table's first pages are overwritten in the middle of the file.
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 4..bytes.len() * 3 / 4;
    bytes[middle].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    assert_eq!(registry.live_versions().await.unwrap(), []);
    registry.close().await;
    // Truncated to nothing that SQLite can use.
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    registry.put_version(version("cats", 1, 1)).await.unwrap();
    let aside = std::fs::read_dir(dir.path()).unwrap();
    let damaged = |file: &std::fs::DirEntry| file.file_name().to_string_lossy().contains(".damaged-");
    assert!(aside.map(Result::unwrap).filter(damaged).count() >= 1);
}

#[tokio::test]
async fn slo_counters_read_back_and_go_with_their_function() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    registry.put_version(version("cats", 1, 1)).await.unwrap();
    let snapshot = |function: &str, bytes: &[u8]| (Tenant::default(), name(function), bytes.to_vec());
    registry.save_slo(vec![snapshot("cats", b"1"), snapshot("gone", b"2")]).await.unwrap();
    assert!(registry.try_save_slo(vec![snapshot("cats", b"3")]));
    assert_eq!(registry.load_slo().await.unwrap(), [snapshot("cats", b"3")]);
    registry.delete_function(&Tenant::default(), &name("cats")).await.unwrap();
    assert_eq!(registry.load_slo().await.unwrap(), []);
}

#[tokio::test]
async fn a_closed_registry_says_so_and_a_newer_layout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    registry.writer.run("raising", |c| Ok(c.pragma_update(None, "user_version", 99)?)).await.unwrap();
    registry.close().await;
    assert!(matches!(registry.live_versions().await, Err(StoreError::Closed)));
    assert!(matches!(Registry::open(dir.path()), Err(StoreError::Layout { .. })));
}
