//! Tenants that compete: CPU, worker places and memory are divided between them by weight, whatever
//! one of them asks for. No time is asserted, only who got how much and that no call was lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::platform::{Platform, call, skip, up};

/// For hosts that do not keep tenants apart, such as those without root.
const SHARED: &str = "--allow-weak-isolation-between-tenants";

/// Computes for a while.
const SPIN: &str = "import time
def handler(message, context):
    begun = time.monotonic()
    while time.monotonic() - begun < 1:
        sum(range(1000))
    return 'dizzy'
";

const SLOW: &str = "import time\ndef handler(message, context):\n    time.sleep(0.2)\n    return 'slow'\n";

/// Keeps some memory for as long as its worker lives, for each call more.
const HOARD: &str = "import time
hoard = []
def handler(message, context):
    hoard.append(bytearray(b'x') * (40 << 20))
    time.sleep(0.05)
    return len(hoard)
";

/// Needs some while it is called.
const MODEST: &str = "def handler(message, context):\n    return len(bytearray(b'x') * (60 << 20))\n";

fn send(platform: &Platform, tenant: &str, request: http::request::Builder, body: &Value) -> Response<Bytes> {
    let request = request.header("content-type", "application/json").header("x-tenant", tenant);
    call(platform.api, request.body(Bytes::from(body.to_string())).expect("a request"))
}

fn create_tenant(platform: &Platform, name: &str, weight: f64) {
    let made = send(platform, "default", Request::post("/tenants"), &json!({ "name": name }));
    assert_eq!(made.status(), 200, "{made:?}");
    let path = format!("/tenants/{name}/quota");
    let given = send(platform, "default", Request::put(path), &json!({ "weight": weight }));
    assert_eq!(given.status(), 200, "{given:?}");
}

fn create(platform: &Platform, tenant: &str, name: &str, code: &str, settings: &Value) {
    let event = format!("http|GET|/{name}");
    let body =
        json!({"function_name": name, "event_type": event, "function_code": code, "settings": settings});
    let made = send(platform, tenant, Request::post("/functions"), &body);
    assert_eq!(made.status(), 200, "{made:?}");
}

/// Callers stop when it is dropped, also by a failure.
#[derive(Default)]
struct Over(AtomicBool);

impl Over {
    fn say(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct EndsWith<'a>(&'a Over);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        self.0.say();
    }
}

/// Calls a function again and again until told to stop; the answers that were not good.
fn call_until<'scope, 'env>(
    scope: &'scope thread::Scope<'scope, 'env>,
    platform: &'env Platform,
    path: &'static str,
    over: &'env Over,
) -> ScopedJoinHandle<'scope, Vec<Response<Bytes>>> {
    scope.spawn(move || {
        let mut bad = Vec::new();
        while !over.0.load(Ordering::Relaxed) {
            let answer = platform.get(path);
            if answer.status() != 200 {
                bad.push(answer);
            }
        }
        bad
    })
}

fn enforces(platform: &Platform, mechanism: &str) -> bool {
    let host = platform.api("/host");
    let mechanisms = host["mechanisms"].as_array().expect("a list");
    let found = mechanisms.iter().find(|it| it["mechanism"] == mechanism).expect("listed");
    if found["enforced"] != true {
        skip("root", &found.to_string());
    }
    found["enforced"] == true
}

/// Workers of a tenant, by their process ids.
fn workers(platform: &Platform, tenant: &str) -> Vec<u64> {
    let request = Request::get("/workers").header("x-tenant", tenant);
    let answer = call(platform.api, request.body(Bytes::new()).expect("a request"));
    let workers: Value = serde_json::from_slice(answer.body()).expect("JSON");
    let items = workers["items"].as_array().expect("items").iter();
    items.map(|worker| worker["host_pid"].as_u64().expect("a pid")).collect()
}

/// Processors that so many calls at once got together, of each tenant, while all of them ran.
fn spin(platform: &Platform, calls: [(&'static str, &str, usize); 2]) -> [f64; 2] {
    let over = Over::default();
    thread::scope(|scope| {
        let _end = EndsWith(&over);
        for (path, _, count) in calls {
            (0..count).for_each(|_| drop(call_until(scope, platform, path, &over)));
        }
        wait_until(|| calls.iter().all(|(_, tenant, count)| workers(platform, tenant).len() == *count));
        let pids = calls.map(|(_, tenant, _)| workers(platform, tenant));
        let used = || pids.each_ref().map(|pids| pids.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>());
        let (begun, before) = (Instant::now(), used());
        thread::sleep(Duration::from_secs(3));
        let (after, seconds) = (used(), begun.elapsed().as_secs_f64());
        [(after[0] - before[0]) / seconds, (after[1] - before[1]) / seconds]
    })
}

/// What the kernel has counted for a process.
fn cpu_seconds(pid: u64) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<_> = stat[stat.rfind(')').expect("a name") + 2..].split(' ').collect();
    let ticks = |field: usize| fields[field].parse::<f64>().expect("a number");
    // The kernel's unit for these is a hundredth of a second on every architecture.
    (ticks(11) + ticks(12)) / 100.0
}

#[test]
fn processors_are_divided_between_tenants_and_not_between_their_workers() {
    let platform = up().arg(SHARED).start();
    if !enforces(&platform, "cpu weight and quota") {
        return;
    }
    create_tenant(&platform, "hog", 1.0);
    create_tenant(&platform, "meek", 1.0);
    let cores = thread::available_parallelism().expect("known").get();
    // As many on each side as there are processors and more: what they get is what they are given.
    let (many, few) = (10 * cores, 2 * cores);
    for (tenant, most) in [("hog", many), ("meek", few)] {
        let settings = json!({ "scaling": { "min": most, "max": most }, "timeout": "60s" });
        create(&platform, tenant, "spin", SPIN, &settings);
    }
    let calls = [("/t/hog/spin", "hog", many), ("/t/meek/spin", "meek", few)];
    let [hog, mild] = spin(&platform, calls);
    println!("{hog:.2} cores for ten workers on each, {mild:.2} for two on each");
    assert!(mild > 0.6 * hog, "a fifth of the workers, and half of the processors: {mild} of {}", hog + mild);

    let given = send(&platform, "default", Request::put("/tenants/meek/quota"), &json!({ "weight": 4 }));
    assert_eq!(given.status(), 200, "{given:?}");
    let [hog, heavy] = spin(&platform, calls);
    println!("{hog:.2} cores for ten workers on each, {heavy:.2} for two on each of four times the weight");
    assert!(heavy > 2.0 * hog, "{heavy} of {}", hog + heavy);
}

#[test]
fn a_tenant_that_holds_every_worker_gives_others_their_share() {
    let platform = up().args(&[SHARED, "--max-workers", "6"]).start();
    create_tenant(&platform, "hog", 1.0);
    create_tenant(&platform, "meek", 1.0);
    for tenant in ["hog", "meek"] {
        create(&platform, tenant, "slow", SLOW, &json!({ "scaling": { "max": 20, "min": 0 } }));
    }
    let over = Over::default();
    thread::scope(|scope| {
        let _end = EndsWith(&over);
        let hogs: Vec<_> = (0..20).map(|_| call_until(scope, &platform, "/t/hog/slow", &over)).collect();
        wait_until(|| workers(&platform, "hog").len() >= 5);
        let meek: Vec<_> = (0..6).map(|_| call_until(scope, &platform, "/t/meek/slow", &over)).collect();
        wait_until(|| workers(&platform, "meek").len() == 3 && workers(&platform, "hog").len() == 3);
        over.say();
        let bad = |callers: Vec<ScopedJoinHandle<'_, Vec<Response<Bytes>>>>| {
            callers.into_iter().flat_map(|caller| caller.join().expect("no panic")).collect::<Vec<_>>()
        };
        assert!(bad(meek).is_empty());
        // Nor does the other lose a call: it waits for the workers that are left to it.
        assert!(bad(hogs).is_empty());
    });
    // Alone again, it may have them all.
    let over = Over::default();
    thread::scope(|scope| {
        let _end = EndsWith(&over);
        let hogs: Vec<_> = (0..20).map(|_| call_until(scope, &platform, "/t/hog/slow", &over)).collect();
        wait_until(|| workers(&platform, "hog").len() == 6);
        over.say();
        drop(hogs);
    });
}

#[test]
fn a_tenant_that_fills_the_memory_meets_its_share_and_nobody_else_does() {
    let platform = up().args(&[SHARED, "--worker-memory", "800MiB"]).start();
    if !enforces(&platform, "memory limit") {
        return;
    }
    create_tenant(&platform, "hog", 1.0);
    create_tenant(&platform, "meek", 1.0);
    create(&platform, "hog", "hoard", HOARD, &json!({ "memory": "1GiB", "scaling": { "max": 12 } }));
    create(&platform, "meek", "modest", MODEST, &json!({ "memory": "200MiB", "scaling": { "max": 2 } }));
    let over = Over::default();
    thread::scope(|scope| {
        let _end = EndsWith(&over);
        let hogs: Vec<_> = (0..12).map(|_| call_until(scope, &platform, "/t/hog/hoard", &over)).collect();
        let meek: Vec<_> = (0..2).map(|_| call_until(scope, &platform, "/t/meek/modest", &over)).collect();
        let ended = |outcome: &str| {
            let request = Request::get(format!("/invocations?function=hoard&outcome={outcome}&limit=10"));
            let request = request.header("x-tenant", "hog");
            let answer = call(platform.api, request.body(Bytes::new()).expect("a request"));
            let calls: Value = serde_json::from_slice(answer.body()).expect("JSON");
            calls["items"].as_array().expect("items").len()
        };
        wait_until(|| ended("platform_error") >= 10);
        // Of 1 GiB that each may have.
        assert_eq!(ended("out_of_memory"), 0);
        over.say();
        let bad: Vec<_> = meek.into_iter().flat_map(|caller| caller.join().expect("no panic")).collect();
        assert!(bad.is_empty(), "the other lost {}: {:?}", bad.len(), bad[0]);
        drop(hogs);
    });
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < limit, "not within 60 s");
        thread::sleep(Duration::from_millis(20));
    }
}
