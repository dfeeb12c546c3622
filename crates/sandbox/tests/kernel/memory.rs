//! The memory of all workers, divided between tenants: whose worker goes when it is short, what is
//! said of it, and that nobody else is touched.

use std::fs;
use std::path::{Path, PathBuf};

use fp_sandbox::{Answer, CallError, LimitHit, Worker, WorkerSpec};

use crate::stage::{Stage, call, eventually, groups_of, json};

const WORKER_MEMORY: u64 = 300 << 20;

/// Grows by a MiB at a time, with a rest after each.
fn growing_to(mebibytes: u32, rest: &str) -> String {
    format!(
        "import time
hoard = []
def handler(message, context):
    for _ in range({mebibytes}):
        hoard.append(bytearray(b'x') * (1 << 20))
        time.sleep({rest})
    return len(hoard)
"
    )
}

fn function(stage: &Stage, tenant: &str, code: &str) -> WorkerSpec {
    let mut spec = stage.function(tenant, code);
    spec.tenant = tenant.parse().expect("a name");
    spec.memory = 1 << 30;
    spec
}

/// The group of a worker's tenant, with the limit on its memory as the kernel has it.
struct Part(PathBuf);

impl Part {
    fn of(stage: &Stage, worker: &Worker) -> Self {
        let groups = groups_of(&stage.dir.path().join("run"));
        let is_in = |dir: &Path| {
            let leaves = fs::read_dir(dir).into_iter().flatten().flatten();
            let mut pids = leaves.map(|leaf| fs::read_to_string(leaf.path().join("cgroup.procs")));
            pids.any(|pids| {
                pids.is_ok_and(|pids| pids.lines().any(|pid| pid == worker.host_pid().to_string()))
            })
        };
        let parts = groups.iter().flat_map(|group| fs::read_dir(group).into_iter().flatten().flatten());
        let parts = parts.map(|part| part.path()).filter(|part| Self::limit_in(part).is_some());
        Self(parts.into_iter().find(|part| is_in(part)).expect("the group of the worker's tenant"))
    }

    fn limit_in(dir: &Path) -> Option<String> {
        let files = ["memory.max", "memory.limit_in_bytes"].map(|file| fs::read_to_string(dir.join(file)));
        files.into_iter().find_map(Result::ok)
    }

    fn is_limited(&self) -> bool {
        let limit = Self::limit_in(&self.0).expect("a limit");
        limit.trim().parse::<u64>().is_ok_and(|limit| limit < 1 << 60)
    }
}

/// Four workers of one tenant grow to twice what all may have, beside one of another tenant. The
/// answer is whether the first one's group was seen limited.
async fn grow_beside_another(rest: &str) -> bool {
    let stage = Stage::with(|config| config.worker_memory = Some(WORKER_MEMORY)).await;
    if !stage.enforces("memory limit") {
        stage.close().await;
        return true;
    }
    let mut modest = stage
        .sandbox
        .start_worker(&function(&stage, "modest", "def handler(message, context):\n    return 1\n"))
        .await
        .expect("a worker");
    let spec = function(&stage, "greedy", &growing_to(150, rest));
    let mut greedy = Vec::new();
    for _ in 0..4 {
        greedy.push(stage.sandbox.start_worker(&spec).await.expect("a worker"));
    }
    let (its, others) = (Part::of(&stage, &greedy[0]), Part::of(&stage, &modest));
    let growing: Vec<_> = greedy
        .into_iter()
        .map(|mut worker| {
            tokio::spawn(async move { worker.call(call(1, "")).await.map(|answer| (worker, answer)) })
        })
        .collect();
    let (mut serial, mut was_limited) = (0, false);
    while !growing.iter().all(tokio::task::JoinHandle::is_finished) {
        serial += 1;
        assert_eq!(json(&mut modest, serial).await.0, 1, "the other tenant loses no call");
        assert!(!others.is_limited(), "it has less than its share");
        was_limited |= its.is_limited();
    }
    let mut ended = 0;
    for growing in growing {
        match growing.await.expect("it ends") {
            Err(error @ CallError::MemoryShort { .. }) => {
                assert_eq!(error.limit_hit(), Some(LimitHit::WorkerMemory));
                assert!(error.to_string().contains("within its own memory limit"), "{error}");
                ended += 1;
            }
            Err(error) => panic!("{error:?}"),
            Ok((worker, answer)) => {
                assert!(matches!(answer, Answer::Whole(_)), "{answer:?}");
                drop(worker);
            }
        }
    }
    println!("{ended} of 4 were ended; limited: {was_limited}; {serial} calls beside them");
    assert!(ended > 0, "600 MiB are more than 300");
    eventually("an end of the limit", || !its.is_limited()).await;
    drop(modest);
    stage.close().await;
    was_limited
}

#[tokio::test]
async fn a_tenant_that_grows_slowly_is_held_where_it_is() {
    assert!(grow_beside_another("0.03").await, "its group was not limited");
}

#[tokio::test]
async fn a_tenant_that_grows_faster_than_is_looked_loses_workers_of_its_own() {
    grow_beside_another("0").await;
}

#[tokio::test]
async fn a_tenant_alone_may_have_nearly_all_of_it() {
    let stage = Stage::with(|config| {
        config.worker_memory = Some(2 * WORKER_MEMORY);
        config.blanks = 2;
    })
    .await;
    if stage.enforces("memory limit") {
        // More than nine tenths, beside the platform's own blank workers, for longer than until
        // it is looked at twice.
        let code = growing_to(560, "0.0005 if len(hoard) < 560 else 1.5");
        let spec = function(&stage, "alone", &code);
        let mut worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
        let part = Part::of(&stage, &worker);
        assert_eq!(json(&mut worker, 1).await.0, 560);
        assert!(!part.is_limited());
        drop(worker);
    }
    stage.close().await;
}
