//! `doctor`: what this machine lets a platform do, without starting one.
//!
//! The sandbox is set up once without workers and says what it can enforce (`GET /host` of a
//! running platform says the same); beside it the Pythons, the addresses and the data
//! directory that `up` would take with the same flags. The exit code is 0 when `up` would
//! start.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;
use fp_sandbox::{HostReport, Isolation, Python, Sandbox, SandboxConfig};
use fp_server::Config;
use rustix::fs::{Access, FlockOperation, access, flock};
use serde::Serialize;

use crate::configuration::PlatformFlags;
use crate::exit::{Exit, Failure, plain};
use crate::flags::{Global, wait};
use crate::screen;

/// Say what this machine lets a platform enforce, and whether `up` would start
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    platform: PlatformFlags,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Findings {
    #[serde(flatten)]
    host: Option<HostReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox_error: Option<String>,
    addresses: Vec<Check>,
    data_dir: Check,
    /// What `up` would ask of the host.
    #[serde(rename = "isolation")]
    wanted: Isolation,
}

/// One thing that `up` needs.
#[derive(Debug, Serialize)]
struct Check {
    what: String,
    place: String,
    usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<String>,
}

impl Doctor {
    /// Looks at everything and prints it.
    pub(crate) fn run(&self, global: &Global) -> Result<Exit, Failure> {
        let config = self.platform.configuration()?;
        let (host, sandbox_error) = match wait(look_at_host(&config)) {
            Ok(host) => (Some(host), None),
            Err(failure) => (None, Some(failure.message)),
        };
        let mut addresses = vec![
            check_address("gateway", config.gateway_addr),
            check_address("management API", config.api_addr),
            check_address("traces", config.traces_addr),
        ];
        // Where nobody asked for one, `up` goes without when the usual is taken.
        addresses.extend(config.otlp_addr.map(|address| check_address("OTLP", address)));
        let findings = Findings {
            host,
            sandbox_error,
            addresses,
            data_dir: check_data_dir(&config.data_dir),
            wanted: config.isolation,
        };
        match global.json() {
            true => screen::json(&findings)?,
            false => findings.print()?,
        }
        Ok(if findings.would_start() { Exit::Ok } else { Exit::Other })
    }
}

impl Findings {
    fn would_start(&self) -> bool {
        let will_do = |host: &HostReport| self.wanted == Isolation::Best || host.meets_the_floor().is_ok();
        self.host.as_ref().is_some_and(will_do)
            && self.data_dir.usable
            && self.addresses.iter().all(|address| address.usable)
    }

    fn print(&self) -> Result<(), Failure> {
        if let Some(host) = &self.host {
            print_host(host)?;
            screen::line("")?;
            screen::line(&verdict(host, self.wanted))?;
        }
        if let Some(error) = &self.sandbox_error {
            screen::line(&format!("no workers can be started: {error}"))?;
        }
        screen::line("")?;
        let checks = self.addresses.iter().chain([&self.data_dir]);
        let rows = checks.map(|check| {
            let why_not = check.why_not.clone().unwrap_or_default();
            vec![check.what.clone(), check.place.clone(), yes(check.usable), why_not]
        });
        screen::table(&["for up", "place", "usable", "why not"], rows.collect(), "")
    }
}

/// Whether strict isolation can be had, and whether `up` would start.
fn verdict(host: &HostReport, wanted: Isolation) -> String {
    let Err(below) = host.meets_the_floor() else {
        return "isolation = \"strict\": yes, everything that it needs is enforced".into();
    };
    let names: Vec<_> = below.missing.iter().map(|mechanism| mechanism.mechanism.as_str()).collect();
    let so = match wanted {
        Isolation::Best => "functions of one tenant run with what there is",
        Isolation::Strict => "`up` would refuse to start",
    };
    format!("isolation = \"strict\": no, for want of {}; {so}", names.join(", "))
}

fn print_host(host: &HostReport) -> Result<(), Failure> {
    let mode = serde_json::to_value(host.mode).map(|mode| screen::cell(&mode)).unwrap_or_default();
    screen::line(&format!("kernel {}, isolation mode {mode}", host.kernel))?;
    screen::line("")?;
    let rows = host.mechanisms.iter().map(|mechanism| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        vec![
            mechanism.mechanism.clone(),
            yes(mechanism.enforced),
            if mechanism.floor { "floor" } else { "" }.into(),
            text(&mechanism.why_not),
            text(&mechanism.how_to_get_it),
        ]
    });
    screen::table(
        &["mechanism", "enforced", "strict", "why not", "how to get it"],
        rows.collect(),
        "nothing was probed",
    )?;
    screen::line("")?;
    let rows = host.pythons.iter().map(|python: &Python| {
        let (major, minor, patch) = python.version;
        vec![format!("{major}.{minor}.{patch}"), python.executable.display().to_string()]
    });
    screen::table(&["python", "executable"], rows.collect(), "no Python from 3.10 on was found")
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "no" }.into()
}

/// Starts the sandbox without workers in a directory of its own and asks it.
async fn look_at_host(config: &Config) -> Result<HostReport, Failure> {
    let scratch = Scratch::new()?;
    let sandbox = Sandbox::start(SandboxConfig {
        run_dir: scratch.dir.clone(),
        executable: config.executable.clone(),
        python: config.python.clone(),
        blanks: 0,
        guarded_ports: vec![config.api_addr.port(), config.traces_addr.port()],
        served_ports: [config.gateway_addr, config.api_addr, config.traces_addr].map(|at| at.port()).into(),
        preload: config.preload.clone(),
        // What is missing is said below, not a reason to stop looking.
        isolation: Isolation::Best,
        worker_memory: None,
    })
    .await
    .map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
    let host = sandbox.host();
    sandbox.shutdown().await;
    Ok(host)
}

/// A directory that goes with its owner.
#[derive(Debug)]
struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("functionsplatform-doctor-{}", std::process::id()));
        // Fails if somebody else made it first: nobody else's directory is ever used.
        let made = fs::DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|error| Failure::file("create", &dir, &error))?;
        Ok(Self { dir })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn check_address(what: &str, address: SocketAddr) -> Check {
    let why_not = TcpListener::bind(address).err().map(|error| plain(&error));
    Check { what: what.into(), place: address.to_string(), usable: why_not.is_none(), why_not }
}

fn check_data_dir(dir: &Path) -> Check {
    let why_not = data_dir_fault(dir);
    Check {
        what: "data directory".into(),
        place: dir.display().to_string(),
        usable: why_not.is_none(),
        why_not,
    }
}

/// Why `up` could not use the directory; nothing is made or changed to find out.
fn data_dir_fault(dir: &Path) -> Option<String> {
    let mut nearest = std::path::absolute(dir).ok()?;
    while !nearest.exists() {
        nearest = nearest.parent()?.to_path_buf();
    }
    if !nearest.is_dir() {
        return Some(format!("{} is not a directory", nearest.display()));
    }
    if let Err(error) = access(&nearest, Access::WRITE_OK | Access::EXEC_OK) {
        return Some(format!("{}: {}", nearest.display(), plain(&error.into())));
    }
    let lock = fs::File::open(dir.join("lock")).ok()?;
    if flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    let pid = std::io::read_to_string(&lock).unwrap_or_default();
    Some(format!("in use by process {}", pid.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_judged_without_making_it() {
        let parent = tempfile::tempdir().expect("a directory");
        let dir = parent.path().join("not/yet");
        assert_eq!(data_dir_fault(&dir), None);
        assert!(!dir.exists());
        let file = parent.path().join("file");
        fs::write(&file, "").expect("written");
        assert!(data_dir_fault(&file.join("below")).expect("a fault").contains("is not a directory"));
    }

    #[test]
    fn a_data_directory_in_use_names_the_process() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lock");
        fs::write(&path, "4711\n").expect("written");
        assert_eq!(data_dir_fault(dir.path()), None);
        let held = fs::File::open(&path).expect("opened");
        flock(&held, FlockOperation::LockExclusive).expect("locked");
        assert_eq!(data_dir_fault(dir.path()).as_deref(), Some("in use by process 4711"));
    }

    #[test]
    fn a_taken_address_is_said_to_be() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let check = check_address("gateway", taken.local_addr().expect("bound"));
        assert_eq!((check.usable, check.why_not.as_deref()), (false, Some("address already in use")));
    }
}
