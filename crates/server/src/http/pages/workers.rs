//! The workers: which sandboxed processes there are, what they do, and what the host enforces.

use askama::Template;
use askama::filters::HtmlSafe;

use super::parts::{Command, Hint, Pair, Stat};
use super::shell::Shell;
use super::text::{self, Moment};

/// One worker, as the pages need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) id: String,
    pub(super) host_pid: u32,
    /// Function and version; none for a blank worker.
    pub(super) of: Option<(String, u32)>,
    /// `starting`, `idle`, `busy`.
    pub(super) state: String,
    pub(super) started_us: u64,
    pub(super) calls: u64,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WorkerRow {
    pub(super) id: String,
    pub(super) host_pid: u32,
    pub(super) function: String,
    pub(super) version: String,
    pub(super) link: Option<String>,
    pub(super) state: String,
    pub(super) tone: &'static str,
    pub(super) started: Moment,
    pub(super) calls: String,
}

/// A table of workers.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "parts/workers_table.html")]
pub(super) struct WorkersTable {
    pub(super) rows: Vec<WorkerRow>,
    pub(super) with_function: bool,
}

impl HtmlSafe for WorkersTable {}

impl WorkersTable {
    /// The table of some workers, by function, busy ones first.
    pub(super) fn new(workers: &[Worker], with_function: bool, shell: &Shell, now_us: u64) -> Self {
        let mut sorted: Vec<_> = workers.iter().collect();
        sorted.sort_by(|a, b| (&a.of, &a.state, a.started_us).cmp(&(&b.of, &b.state, b.started_us)));
        Self { rows: sorted.into_iter().map(|worker| row(worker, shell, now_us)).collect(), with_function }
    }
}

fn row(worker: &Worker, shell: &Shell, now_us: u64) -> WorkerRow {
    let (function, version, link) = match &worker.of {
        Some((name, version)) => (name.clone(), format!("v{version}"), Some(shell.function_link(name))),
        None => ("blank".into(), String::new(), None),
    };
    WorkerRow {
        id: worker.id.clone(),
        host_pid: worker.host_pid,
        function,
        version,
        link,
        tone: match worker.state.as_str() {
            "busy" => "live",
            "starting" => "warn",
            _ => "plain",
        },
        state: worker.state.clone(),
        started: text::moment(worker.started_us, now_us),
        calls: text::count(worker.calls),
    }
}

/// Something that isolates or limits workers, and whether this host gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mechanism {
    pub(super) name: String,
    pub(super) enforced: bool,
    /// Why not, and what to do about it.
    pub(super) note: String,
}

/// What the host is and enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) facts: Vec<Pair>,
    pub(super) mechanisms: Vec<Mechanism>,
}

/// The page.
#[derive(Debug, Template)]
#[template(path = "workers.html")]
pub(super) struct WorkersPage {
    shell: Shell,
    stats: Vec<Stat>,
    workers: WorkersTable,
    host: Option<Host>,
    empty: Hint,
}

/// Makes the page.
pub(super) fn page(shell: Shell, workers: &[Worker], host: Option<Host>, now_us: u64) -> WorkersPage {
    let in_state = |state: &str| workers.iter().filter(|worker| worker.state == state).count() as u64;
    let stats = vec![
        Stat::new("Workers", text::count(workers.len() as u64), "sandboxed processes"),
        Stat::new("Busy", text::count(in_state("busy")), "in a handler now"),
        Stat::new("Idle", text::count(in_state("idle")), "warm, waiting for a call"),
        Stat::new("Starting", text::count(in_state("starting")), "on the way"),
    ];
    let line = format!("curl {}/hello", shell.gateway);
    let empty = Hint {
        title: "No worker is running".into(),
        text: "Workers start when calls arrive and end when they have been idle. Call a function:".into(),
        lines: vec![Command { label: "call a function", line }],
    };
    WorkersPage {
        stats,
        workers: WorkersTable::new(workers, true, &shell, now_us),
        host,
        empty,
        shell: shell.titled("Workers"),
    }
}
