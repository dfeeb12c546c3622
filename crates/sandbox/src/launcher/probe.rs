//! What the host allows, found by trying it: each probe runs the real calls in a child process
//! of its own, so that the launcher is none the worse for it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;

use super::cgroups::{Cgroups, Controller};
use super::mounts::{last_error, read_only_clone};
use super::networks;
use crate::host::{HostReport, Mechanism, Mode};
use crate::python::Python;

/// First uid of the workers' range and how many there are: nobody else's. Below lie the users of
/// distributions (to 60,000), those that ordinary users may take in their containers (SUB_UID_MAX of
/// shadow-utils: 600,100,000) and systemd's containers (524,288 to 1,879,048,191); above, its foreign
/// ones (from 2,147,352,576).
pub(super) const FIRST_UID: u32 = 1_900_000_000;
/// A worker per uid; more workers than this on one machine are out of reach.
pub(super) const UIDS: u32 = 60_000;

/// What was found.
#[derive(Debug)]
pub(super) struct Host {
    pub mode: Mode,
    /// A proc of the worker's own can be mounted.
    pub own_proc: bool,
    /// Workers can have network namespaces, or why not.
    pub network: Result<(), String>,
    /// Workers get a uid each.
    pub uids: bool,
    pub seccomp: bool,
    /// The version of its interface, or why it is not used.
    pub landlock: Result<u32, String>,
    mode_why_not: Option<String>,
    code_why_not: Option<String>,
}

/// Probes, and in the mode of user namespaces moves the launcher into its own.
pub(super) fn probe(run_dir: &Path) -> Host {
    let scratch = run_dir.join("root");
    let (mode, mode_why_not) = find_mode(&scratch);
    if mode == Mode::UserNamespace {
        enter_user_namespace().expect("it worked in the probe a moment ago");
    }
    let namespaced = mode != Mode::Reduced;
    let code = in_child(|| read_only_clone(&scratch).map(drop));
    Host {
        mode,
        own_proc: namespaced && in_child(|| own_proc(&scratch)).is_ok(),
        network: if namespaced { try_network() } else { Err("there are no namespaces".into()) },
        uids: mode != Mode::UserNamespace && in_child(become_worker).is_ok(),
        seccomp: has_seccomp(),
        landlock: landlock_version(),
        mode_why_not,
        code_why_not: code.err().filter(|_| namespaced).map(|e| format!("cloning a mount: {e}")),
    }
}

fn try_network() -> Result<(), String> {
    in_child(networks::try_out).map_err(|e| format!("a network namespace cannot be made and set up: {e}"))
}

fn find_mode(scratch: &Path) -> (Mode, Option<String>) {
    let direct = in_child(|| namespaces_and_root(scratch));
    let Err(direct) = direct else { return (Mode::Root, None) };
    let user = in_child(|| enter_user_namespace().and_then(|()| namespaces_and_root(scratch)));
    match user {
        Ok(()) => (Mode::UserNamespace, None),
        Err(user) => {
            let why =
                format!("namespaces are refused both directly ({direct}) and in a user namespace ({user})");
            (Mode::Reduced, Some(why))
        }
    }
}

/// All that a zygote and its children do to namespaces and mounts.
fn namespaces_and_root(scratch: &Path) -> rustix::io::Result<()> {
    unshare(
        UnshareFlags::NEWNS
            | UnshareFlags::NEWPID
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWCGROUP,
    )?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("probe", scratch, "tmpfs", MountFlags::NOSUID, Some(c"size=64k"))?;
    rustix::process::chdir(scratch)?;
    rustix::process::pivot_root(".", ".")
}

fn own_proc(scratch: &Path) -> rustix::io::Result<()> {
    unshare(UnshareFlags::NEWNS | UnshareFlags::NEWPID)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // Only a member of the new pid namespace can mount its proc.
    in_child(|| {
        let options = c"hidepid=2,subset=pid";
        mount(
            "proc",
            scratch,
            "proc",
            MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV,
            Some(options),
        )
    })
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: no descriptor table is unshared; the flags concern namespaces only.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

fn become_worker() -> rustix::io::Result<()> {
    let id = FIRST_UID + UIDS - 1;
    // SAFETY: plain numbers; the calling process is a probe that ends next.
    if unsafe { libc::setresgid(id, id, id) == 0 && libc::setresuid(id, id, id) == 0 } {
        Ok(())
    } else {
        Err(last_error())
    }
}

/// Root of a user namespace, with a mount namespace to work in.
fn enter_user_namespace() -> rustix::io::Result<()> {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)?;
    let write = |file: &str, text: String| {
        fs::write(file, text).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
    };
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))
}

fn has_seccomp() -> bool {
    // SAFETY: the null program makes the kernel answer EFAULT where it knows filters at all.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, 0, 0, 0) };
    result < 0 && last_error() == Errno::FAULT
}

/// The first version that lets files move between directories of `/tmp`.
const LEAST_LANDLOCK: u32 = 2;

/// Tried out, because a filter around us may know the one call and not the others.
fn landlock_version() -> Result<u32, String> {
    // The kernel's LANDLOCK_CREATE_RULESET_VERSION.
    const VERSION: u32 = 1;
    let nothing: *const u8 = std::ptr::null();
    // SAFETY: no attributes, of size zero, is how the version is asked for.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) };
    let Ok(version) = u32::try_from(version) else {
        return Err(format!("this kernel does not offer it: {}", last_error()));
    };
    if version < LEAST_LANDLOCK {
        return Err(format!(
            "this kernel has version {version} of it, and {LEAST_LANDLOCK} is the least of use"
        ));
    }
    in_child(restrict_reading).map_err(|e| format!("it is refused: {e}"))?;
    Ok(version)
}

/// The three calls, on the calling process.
fn restrict_reading() -> rustix::io::Result<()> {
    const READ_FILE: u64 = 4;
    let attributes = [READ_FILE];
    rustix::thread::set_no_new_privs(true)?;
    // SAFETY: the attributes live across the call, and their size is what is passed.
    let ruleset = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size_of_val(&attributes), 0)
    };
    if ruleset < 0 {
        return Err(last_error());
    }
    // SAFETY: plain numbers; the calling process is a probe that ends next.
    if unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) } < 0 {
        return Err(last_error());
    }
    Ok(())
}

fn worker_reads(path: &Path) -> bool {
    in_child(|| {
        become_worker()?;
        rustix::fs::access(path, rustix::fs::Access::READ_OK)
    })
    .is_ok()
}

/// Runs `attempt` in a forked child and gives its result.
fn in_child(attempt: impl FnOnce() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    // SAFETY: this process is single-threaded, so the child may do what it likes before exit.
    match unsafe { libc::fork() } {
        -1 => Err(last_error()),
        0 => {
            let code = attempt().map_or_else(Errno::raw_os_error, |()| 0);
            // SAFETY: ends the child without running the launcher's destructors.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status = 0;
            // SAFETY: a child of ours, and a valid place for its status.
            while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 && last_error() == Errno::INTR {}
            let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { libc::EINTR };
            if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(code)) }
        }
    }
}

const USER_NAMESPACE_REMEDY: &str = "run the platform as root, or allow user namespaces: sysctl user.max_user_namespaces, \
    kernel.apparmor_restrict_unprivileged_userns=0; in Docker --security-opt seccomp=unconfined --security-opt systempaths=unconfined";
const NETWORK_REMEDY: &str =
    "give the platform CAP_NET_ADMIN beside CAP_SYS_ADMIN, and a kernel with CONFIG_NET_NS";
const ROOT_REMEDY: &str = "run the platform as root";

impl Host {
    /// Without mounts a worker's uid must be able to read what it runs on: the run directory,
    /// and a Python (those that it cannot read are taken off the list).
    pub(super) fn check_readable(&self, run_dir: &Path, pythons: &mut Vec<Python>) -> Result<(), String> {
        if self.mode != Mode::Reduced || !self.uids {
            return Ok(());
        }
        if !worker_reads(&run_dir.join("python/zygote.py")) {
            return Err(format!(
                "{} is closed to the workers' uids, and this host allows no mounts that would show it; \
                 choose a --data-dir that other users can pass",
                run_dir.display()
            ));
        }
        let all = pythons.clone();
        pythons.retain(|python| python.prefixes.iter().all(|prefix| worker_reads(&prefix.join("lib"))));
        match (pythons.first(), all.first()) {
            (None, Some(first)) => Err(format!(
                "{} is closed to the workers' uids, and this host allows no mounts that would show it; \
                 install Python 3.10 or newer in /usr",
                first.executable.display()
            )),
            _ => Ok(()),
        }
    }

    /// Layers are imported from by zygotes, which may read everything, and later by workers,
    /// which may not.
    pub(super) fn check_layers(&self, layers: &[PathBuf]) -> Result<(), String> {
        for layer in layers {
            let found = fs::metadata(layer).map_err(|e| format!("the layer {}: {e}", layer.display()))?;
            if !found.is_dir() {
                return Err(format!("the layer {} is not a directory", layer.display()));
            }
            let closed = match self.mode {
                Mode::Reduced => self.uids && !worker_reads(layer),
                _ => self.uids && found.permissions().mode() & 0o005 != 0o005,
            };
            if closed {
                let layer = layer.display();
                return Err(format!("the layer {layer} is closed to the workers' uids; chmod o+rx {layer}"));
            }
        }
        Ok(())
    }

    /// The report of `doctor` and `/host`.
    pub(super) fn report(&self, cgroups: &Cgroups, fence: Option<&String>, pythons: &[Python]) -> HostReport {
        let namespaced = self.mode != Mode::Reduced;
        let whole = self.mode_why_not.as_deref();
        let mut list = List(Vec::new());
        list.add("mount namespace with a read-only root", namespaced, whole, USER_NAMESPACE_REMEDY);
        list.add("pid, ipc, host name and cgroup namespaces", namespaced, whole, USER_NAMESPACE_REMEDY);
        let proc = Some("a proc of the worker's own cannot be mounted; the worker sees an empty one");
        // An empty one hides as much, so it is not of the floor.
        list.add_beyond("own /proc", self.own_proc, whole.or(proc), USER_NAMESPACE_REMEDY);
        list.add(
            "code directory read-only",
            namespaced && self.code_why_not.is_none(),
            whole.or(self.code_why_not.as_deref()),
            USER_NAMESPACE_REMEDY,
        );
        let network = self.network.as_ref().err();
        let network = network.map(|why| format!("{why}; functions with this network do not start"));
        let remedy = if self.mode == Mode::Root { NETWORK_REMEDY } else { USER_NAMESPACE_REMEDY };
        for name in ["network = \"none\"", "network = \"internal\""] {
            list.add(name, self.network.is_ok(), whole.or(network.as_deref()), remedy);
        }
        let fence =
            fence.map(|why| format!("{why}; workers with network = \"full\" reach every port of this host"));
        list.add(
            "network = \"full\" without the platform's own ports",
            fence.is_none(),
            fence.as_deref(),
            "run the platform as root with CAP_NET_ADMIN on a kernel with CONFIG_NF_TABLES_INET and \
                CONFIG_NFT_REJECT, or use network = \"internal\"",
        );
        let uid = Some("this user has one uid only; workers are apart by namespaces alone");
        list.add("uid per worker", self.uids, uid, ROOT_REMEDY);
        self.limits(&mut list, cgroups);
        list.add("resource limits", true, None, "");
        list.add("no new privileges", true, None, "");
        list.add(
            "seccomp",
            self.seccomp,
            Some("this kernel has no seccomp filters"),
            "use a kernel with CONFIG_SECCOMP_FILTER",
        );
        self.landlock(&mut list);
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut report = HostReport {
            mode: self.mode,
            kernel,
            meets_floor: false,
            mechanisms: list.0,
            pythons: pythons.to_vec(),
        };
        report.meets_floor = report.meets_the_floor().is_ok();
        report
    }

    /// A second wall where the mounts are the first, so not of the floor.
    fn landlock(&self, list: &mut List) {
        /// From this version on it knows scopes.
        const SCOPES: u32 = 6;
        let kernel = "use a kernel from 6.12 on, with landlock in its lsm= list";
        let why = self.landlock.as_ref().err().map(String::as_str);
        list.add_beyond("landlock: files", why.is_none(), why, kernel);
        let old = self.landlock.as_ref().ok().filter(|version| **version < SCOPES).map(|version| {
            format!("this kernel has version {version} of it, and scopes begin with {SCOPES}; workers with network = \"full\" reach abstract sockets of this host")
        });
        let why = why.or(old.as_deref());
        list.add_beyond("landlock: abstract sockets and signals", why.is_none(), why, kernel);
    }

    fn limits(&self, list: &mut List, cgroups: &Cgroups) {
        let why = |controller: Controller, instead: &str| {
            let found = cgroups.missing.iter().find(|(missing, _)| *missing == controller);
            found.map(|(_, why)| format!("{why}; {instead}"))
        };
        let remedy = "run the platform as root, or in a container with a writable /sys/fs/cgroup";
        let memory =
            why(Controller::Memory, "each process is held by RLIMIT_DATA instead: soft, and not as a sum");
        list.add("memory limit", cgroups.has(Controller::Memory), memory.as_deref(), remedy);
        let tasks = why(Controller::Tasks, "RLIMIT_NPROC counts per uid instead");
        list.add("task limit", cgroups.has(Controller::Tasks), tasks.as_deref(), remedy);
        let cpu = why(Controller::Cpu, "workers share the CPU like any process");
        list.add("cpu weight and quota", cgroups.has(Controller::Cpu), cpu.as_deref(), remedy);
    }
}

struct List(Vec<Mechanism>);

impl List {
    /// One that strict isolation needs.
    fn add(&mut self, name: &str, enforced: bool, why_not: Option<&str>, remedy: &str) {
        self.add_beyond(name, enforced, why_not, remedy);
        self.0.last_mut().expect("added above").floor = true;
    }

    /// One that it does not need.
    fn add_beyond(&mut self, name: &str, enforced: bool, why_not: Option<&str>, remedy: &str) {
        let (why_not, how_to_get_it) =
            if enforced { (None, None) } else { (why_not.map(str::to_owned), Some(remedy.to_owned())) };
        self.0.push(Mechanism { mechanism: name.into(), enforced, floor: false, why_not, how_to_get_it });
    }
}
