//! What the tests of this crate start: the launcher (as the platform's own executable does with
//! this argument), and a stand-in for the platform that can be killed or run as another user.
//!
//! `fp-launcher platform RUN_DIR CODE_DIR` starts a sandbox and a worker of `handler.py`, prints
//! one line of JSON about them and the answer of one call, and ends in order when its standard
//! input does. `confined-platform` does the same where namespaces and mounts are refused, as
//! in a container with the usual filter. `starved-platform` uses up its open files once a worker
//! runs, asks for another, and tells how the sandbox took it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use fp_core::VersionNumber;
use fp_core::settings::{Handler, Network};
use fp_sandbox::protocol::CallHead;
use fp_sandbox::{Answer, Call, Sandbox, SandboxConfig, Worker, WorkerSpec};
use serde_json::json;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some(fp_sandbox::LAUNCHER_ARGUMENT) => fp_sandbox::launcher_main(),
        Some("platform") if arguments.len() == 4 => {
            platform(PathBuf::from(&arguments[2]), PathBuf::from(&arguments[3]))
        }
        Some("starved-platform") if arguments.len() == 4 => {
            starved_platform(PathBuf::from(&arguments[2]), PathBuf::from(&arguments[3]))
        }
        Some("confined-platform") if arguments.len() == 4 => {
            refuse_namespaces();
            platform(PathBuf::from(&arguments[2]), PathBuf::from(&arguments[3]))
        }
        _ => ExitCode::from(2),
    }
}

/// For this process and all below it: EPERM, as a container's seccomp profile answers.
fn refuse_namespaces() {
    let rules = json!({ "all": {
        "mismatch_action": "allow",
        "match_action": { "errno": 1 },
        "filter": [{ "syscall": "unshare" }, { "syscall": "mount" }, { "syscall": "setns" }, { "syscall": "open_tree" }],
    }});
    let arch = std::env::consts::ARCH.try_into().expect("an architecture with seccomp");
    let programs = seccompiler::compile_from_json(rules.to_string().as_bytes(), arch).expect("good rules");
    seccompiler::apply_filter(&programs["all"]).expect("the filter is installed");
}

#[tokio::main(flavor = "current_thread")]
async fn platform(run_dir: PathBuf, code_dir: PathBuf) -> ExitCode {
    match run(run_dir, code_dir).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{}", json!({ "error": error.to_string() }));
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn starved_platform(run_dir: PathBuf, code_dir: PathBuf) -> ExitCode {
    match starve(run_dir, code_dir).await {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", json!({ "error": error.to_string() }));
            ExitCode::FAILURE
        }
    }
}

async fn starve(
    run_dir: PathBuf,
    code_dir: PathBuf,
) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    let sandbox = Sandbox::start(config(run_dir)?).await?;
    let spec = spec(code_dir)?;
    let mut worker = sandbox.start_worker(&spec).await?;
    one_call(&mut worker).await?;
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
    }
    let refused = sandbox.start_worker(&spec).await.err().map(|error| error.to_string());
    drop(hoard);
    // The one that ran before lives on, and others start again.
    one_call(&mut worker).await?;
    let mut next = sandbox.start_worker(&spec).await?;
    one_call(&mut next).await?;
    drop((worker, next));
    sandbox.shutdown().await;
    Ok(json!({ "refused": refused }))
}

fn config(run_dir: PathBuf) -> std::io::Result<SandboxConfig> {
    Ok(SandboxConfig {
        run_dir,
        executable: std::env::current_exe()?,
        python: None,
        blanks: 1,
        guarded_ports: Vec::new(),
        served_ports: Vec::new(),
        preload: Default::default(),
        isolation: Default::default(),
        worker_memory: None,
    })
}

async fn run(run_dir: PathBuf, code_dir: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let config = config(run_dir)?;
    let sandbox = Sandbox::start(config).await?;
    let mut worker = sandbox.start_worker(&spec(code_dir)?).await?;
    let answer = one_call(&mut worker).await?;
    let report = json!({ "worker": worker.host_pid(), "mode": sandbox.host().mode, "host": sandbox.host(), "answer": answer });
    println!("{report}");
    let mut line = String::new();
    tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line)).await??;
    drop(worker);
    sandbox.shutdown().await;
    Ok(())
}

fn spec(code_dir: PathBuf) -> Result<WorkerSpec, Box<dyn std::error::Error>> {
    Ok(WorkerSpec {
        tenant: "default".parse()?,
        function: "probe".parse()?,
        version: VersionNumber(1),
        code_dir,
        handler: Handler { file: "handler.py".into(), callable: "handler".into() },
        python: None,
        // The path with a zygote of its own, whatever the user and the host.
        preload: vec!["decimal".into()],
        memory: 256 << 20,
        tasks: 64,
        cpu: 1.0,
        cpu_limit: None,
        network: Network::Full,
        env: Default::default(),
        path: Vec::new(),
        services: Default::default(),
        message_queue_uri: String::new(),
        log_limit: 1 << 20,
        response_limit: 6 << 20,
        concurrency: 1,
        start_limit: Duration::from_secs(20),
    })
}

async fn one_call(worker: &mut Worker) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    let head = CallHead {
        verb: "GET",
        path: "/",
        query: "",
        headers: &[],
        path_params: &[],
        invocation_id: "00000000-0000-7000-8000-000000000000",
        correlation_id: "c",
        trace_id: "00000000000000000000000000000001",
        span_id: "0000000000000001",
        trace_state: "",
        remaining_ms: 10_000,
        trace_flags: 1,
        version: None,
        auth: None,
    };
    let call = Call {
        serial: 1,
        head,
        body: Bytes::new(),
        secrets: None,
        log_limit: 1 << 20,
        response_limit: 1 << 20,
    };
    match worker.call(call).await? {
        Answer::Whole(whole) => Ok(serde_json::from_slice(&whole.body)?),
        other => Err(format!("{other:?}").into()),
    }
}
