//! `explain scaling`: what the pool of a function looks like, what it reckons with, and its latest
//! decisions.

use serde_json::{Value, json};

use super::story::{Function, Milliseconds};
use crate::client::{Client, segment};
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen;

/// Calls that are looked at for starts: the latest page of a size that is read in milliseconds.
const RECENT: usize = 200;

/// Cold calls that are shown.
const SHOWN: usize = 5;

/// Decisions that are shown as a table; with `--output json` there are all that are kept.
const DECISIONS: usize = 20;

/// What is known of a pool.
#[derive(Debug)]
struct Pool {
    function: Function,
    workers: Vec<Value>,
    /// The latest calls, those that have not ended among them.
    calls: Vec<Value>,
    /// What the policy reckons with and has decided.
    scaling: Value,
}

impl Pool {
    async fn fetch(client: &Client, name: &str) -> Result<Self, Failure> {
        let function = Function::fetch(client, name).await?;
        let workers: Value = client.get("/workers").await?.read()?;
        let calls = format!("/invocations?limit={RECENT}&function={}", segment(name));
        let calls: Value = client.get(&calls).await?.read()?;
        let scaling: Value = client.get(&format!("/functions/{}/scaling", segment(name))).await?.read()?;
        let items = |page: &Value| page["items"].as_array().cloned().unwrap_or_default();
        let is_own = |worker: &Value| worker["function"] == function.function_name.as_str();
        let workers = items(&workers).into_iter().filter(is_own).collect();
        Ok(Self { workers, calls: items(&calls), function, scaling })
    }

    fn in_state(&self, state: &str) -> usize {
        self.workers.iter().filter(|worker| worker["state"] == state).count()
    }

    fn waiting(&self) -> usize {
        self.calls.iter().filter(|call| call["state"] == "queued").count()
    }

    fn ended(&self) -> impl Iterator<Item = &Value> {
        self.calls.iter().filter(|call| call["state"] == "done")
    }

    fn cold(&self) -> impl Iterator<Item = &Value> {
        self.ended().filter(|call| call["cold"] == true)
    }

    fn sentences(&self) -> Vec<String> {
        [Some(self.now()), Some(self.settings()), self.reckoning(), Some(self.starts())]
            .into_iter()
            .flatten()
            .collect()
    }

    fn now(&self) -> String {
        let Function { function_name, version, .. } = &self.function;
        let (busy, idle) = (self.in_state("busy"), self.in_state("idle"));
        let waiting = match self.waiting() {
            0 => "no call waits for one".to_owned(),
            1 => "1 call waits for one".to_owned(),
            waiting => format!("{waiting} calls wait for one"),
        };
        let older = self.workers.iter().filter(|worker| worker["version"] != *version).count();
        let older = match older {
            0 => String::new(),
            1 => " One of them serves an older version to its last call.".to_owned(),
            older => format!(" {older} of them serve an older version to its last call."),
        };
        format!(
            "{function_name}, version {version}, has {}: {busy} busy, {idle} idle; {waiting}.{older}",
            match self.workers.len() {
                1 => "1 worker".to_owned(),
                count => format!("{count} workers"),
            }
        )
    }

    fn settings(&self) -> String {
        let of = |path| self.function.setting(path);
        let idle = match of("scaling.idle").as_str() {
            "auto" => "idle ones beyond that are ended after a time that the platform chooses (scaling.idle = \"auto\")".to_owned(),
            "0s" => "none is kept: every call starts cold (scaling.idle = \"0s\")".to_owned(),
            idle => format!("idle ones beyond that are ended after {idle} (scaling.idle)"),
        };
        let each = match of("concurrency").as_str() {
            "1" => "one call at a time".to_owned(),
            many => format!("up to {many} calls at once"),
        };
        let (min, max, memory) = (of("scaling.min"), of("scaling.max"), of("memory"));
        format!(
            "It keeps {min} (scaling.min) and may have {max} (scaling.max), each for {each} with {memory} of memory; {idle}."
        )
    }

    fn starts(&self) -> String {
        let (ended, cold) = (self.ended().count(), self.cold().count());
        let Some(oldest) = self.ended().last() else {
            return "No call of it is in history, so nothing is known of its starts.".to_owned();
        };
        let at = oldest["started_at"].as_str().unwrap_or_default();
        format!(
            "Of its {ended} latest ended calls that are kept, since {at}, {cold} began with the start of a worker. A worker is \
             started for a call when none is free and starting one is expected to be faster than to wait, or when there \
             are fewer than the calls need."
        )
    }

    /// What the policy expects; nothing before the first call.
    fn reckoning(&self) -> Option<String> {
        let of = |key: &str| self.scaling[key].as_f64();
        let (arrivals, run) = (of("arrivals_per_second")?, of("run_mean_ms")?);
        let wanted = match self.scaling["wanted"].as_u64() {
            Some(1) => "which 1 worker would serve".to_owned(),
            Some(wanted) => format!("which {wanted} workers would serve"),
            None => "too little yet to say how many workers they need".to_owned(),
        };
        let bound = of("delay_target_ms").map_or_else(String::new, |target| {
            let now = if self.scaling["standing"] == true { ", and they are refused now" } else { "" };
            format!(
                " When the queue stands, calls that would wait longer than {} are refused{now}.",
                Milliseconds(target)
            )
        });
        let keep = of("keep_s").map_or_else(String::new, |keep| {
            let why = match self.scaling["pauses"].as_u64() {
                Some(pauses) => format!("by {pauses} pauses between its calls"),
                None => "as the pauses between its calls foretell nothing so far".to_owned(),
            };
            format!(" Its last worker is kept for {keep} s after a call, {why}.")
        });
        let (start, run) = (Milliseconds(of("start_ms").unwrap_or_default()), Milliseconds(run));
        Some(format!(
            "It reckons with {arrivals:.1} calls a second of {run}, {wanted}; a start takes {start}.{bound}{keep}"
        ))
    }

    fn document(&self) -> Value {
        let Function { function_name, version, settings } = &self.function;
        let starts: Vec<_> = self.cold().map(|call| json!({
            "id": call["id"], "started_at": call["started_at"], "worker": call["worker"],
            "queue_ms": call["phases"]["queue"], "start_ms": call["phases"]["start"], "queue_length": call["queue_length"],
        })).collect();
        json!({
            "function": function_name, "version": version,
            "workers": { "busy": self.in_state("busy"), "idle": self.in_state("idle"), "items": self.workers },
            "waiting_calls": self.waiting(),
            "settings": {
                "scaling": settings["scaling"], "concurrency": settings["concurrency"], "memory": settings["memory"],
            },
            "recent": { "calls": self.ended().count(), "cold": self.cold().count(), "starts": starts },
            "scaling": self.scaling,
            "sentences": self.sentences(),
        })
    }
}

/// Fetches what is known and tells it.
pub(super) async fn explain(global: &Global, client: &Client, name: &str) -> Result<Exit, Failure> {
    let pool = Pool::fetch(client, name).await?;
    if global.json() {
        screen::json(&pool.document())?;
        return Ok(Exit::Ok);
    }
    for sentence in pool.sentences() {
        screen::line(&sentence)?;
    }
    if !pool.workers.is_empty() {
        screen::line("")?;
        let columns = ["id", "version", "state", "running", "calls", "started_at"];
        let row = |worker: &Value| columns.iter().map(|column| screen::cell(&worker[*column])).collect();
        let titles = ["worker", "version", "state", "running", "calls", "started"];
        screen::table(&titles, pool.workers.iter().map(row).collect(), "")?;
    }
    let decisions = pool.scaling["decisions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !decisions.is_empty() {
        screen::line("")?;
        let row = |decision: &Value| vec![screen::cell(&decision["at"]), screen::cell(&decision["sentence"])];
        screen::table(
            &["decided at", "what and why"],
            decisions.iter().take(DECISIONS).map(row).collect(),
            "",
        )?;
    }
    let cold: Vec<_> = pool.cold().take(SHOWN).map(cold_row).collect();
    if !cold.is_empty() {
        screen::line("")?;
        screen::table(&["cold call", "at", "ahead of it", "waited", "start took", "worker"], cold, "")?;
    }
    Ok(Exit::Ok)
}

fn cold_row(call: &Value) -> Vec<String> {
    let cell = |name: &str| screen::cell(&call[name]);
    let phase = |name: &str| Milliseconds(call["phases"][name].as_f64().unwrap_or(0.0)).to_string();
    vec![cell("id"), cell("started_at"), cell("queue_length"), phase("queue"), phase("start"), cell("worker")]
}
