//! The launcher: the only privileged part, a small single-threaded process between the platform
//! and the zygotes.
//!
//! It makes sockets, cgroups and mounts, orders forks, claims blank workers and hands their
//! descriptors to the platform; it learns of every death and clears up after it. It never
//! parses what a worker says and never blocks on anybody: one poll loop over the platform's
//! socket, the zygotes' sockets and SIGCHLD. When the platform is gone (end of file on its
//! socket) it ends everything and itself; when it is gone itself, the kernel ends its zygotes
//! and they their workers (parent-death signals, pid namespaces).

mod cgroups;
mod fence;
mod mounts;
mod networks;
mod parts;
mod probe;
mod templates;
mod workers;
mod zygotes;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use self::cgroups::{Cgroups, Group};
use self::fence::Fence;
use self::mounts::{Home, last_error};
use self::networks::Networks;
use self::parts::Parts;
use self::probe::Host;
use self::templates::Template;
use self::workers::Entry;
use self::zygotes::Zygote;
use crate::control::{FromLauncher, Init, StartOrder, ToLauncher};
use crate::fds;
use crate::preload::{TemplateKey, ZygoteState};
use crate::seccomp::{self, Filters};
use crate::start::Ended;

/// How long processes may take to die at the end, and after that their groups to be removed: some
/// ten microseconds each, of which thousands of workers have three each, on a host that is busy.
/// What is left then stays on record, and the next start removes it.
const DEATH_LIMIT: Duration = Duration::from_secs(2);
const REMOVAL_LIMIT: Duration = Duration::from_secs(5);

/// How long a launcher waits for one before it, which may just be ending in the same directory.
const TURN_LIMIT: Duration = Duration::from_secs(10);

/// Blank workers are replaced this long after the last start: the calls that the starts were
/// for run first, on cores that no fork occupies.
const REFILL_DELAY: Duration = Duration::from_millis(5);

/// Rest after a failure that would repeat itself at once (a zygote or a blank that dies).
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Everything the launcher knows.
struct Launcher {
    control: OwnedFd,
    children: OwnedFd,
    init: Init,
    host: Host,
    filters: Filters,
    cgroups: Cgroups,
    /// Tenants' groups.
    parts: Parts,
    home: Option<Home>,
    /// None where workers cannot have networks of their own.
    networks: Option<Networks>,
    /// Or why there is none.
    fence: Result<Fence, String>,
    zygotes: BTreeMap<u64, Zygote>,
    /// The first ones are those without preloads, numbered like the Pythons.
    templates: BTreeMap<u64, Template>,
    next_template: u64,
    /// The platform has not been told of all zygotes as they are.
    zygotes_changed: bool,
    /// What it was told: process id and state of each.
    zygotes_told: BTreeMap<u64, (i32, ZygoteState)>,
    workers: BTreeMap<u64, Entry>,
    next_worker: u64,
    next_zygote: u64,
    free_uids: VecDeque<u32>,
    fresh_uid: u32,
    /// Leaves that could not be removed yet.
    lingering: Vec<Group>,
    /// Held as long as this launcher is the one of its run directory.
    _turn: OwnedFd,
    refill_at: Option<Instant>,
    ready_said: bool,
    /// For one message at a time; kept, because a fresh one costs a mapping each.
    buffer: Vec<u8>,
}

/// The launcher's `main`: reached with [`crate::LAUNCHER_ARGUMENT`] as the first argument.
pub fn launcher_main() -> ExitCode {
    match start() {
        Ok(mut launcher) => {
            let code = launcher.run();
            launcher.end_everything();
            code
        }
        Err(why) => {
            eprintln!("launcher: {why}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<Launcher, String> {
    crate::open_files::OpenFiles::raise();
    let control = become_daemon().map_err(|e| format!("setting up: {e}"))?;
    let mut init = match wait_for_message(&control)? {
        ToLauncher::Init(init) => init,
        other => return Err(format!("expected init, got {other:?}")),
    };
    let run_dir = &init.run_dir.clone();
    let turn = take_turn(run_dir).map_err(|e| format!("{}: {e}", run_dir.display()))?;
    let fresh = fs::create_dir_all(run_dir.join("root"));
    fresh.and_then(|()| crate::runtime::write_to(&run_dir.join("python"))).map_err(|e| e.to_string())?;
    let host = probe::probe(run_dir);
    if let Err(why) = host.check_readable(run_dir, &mut init.pythons) {
        tell(&control, &FromLauncher::Failed(why.clone()), &[]);
        return Err(why);
    }
    if let Err(why) = host.check_layers(&init.preload.layers) {
        tell(&control, &FromLauncher::Failed(why.clone()), &[]);
        return Err(why);
    }
    let (cgroups, lingering) = Cgroups::prepare(run_dir, &tag(run_dir));
    let parts = Parts::new(init.first_worker, cgroups.bound_memory(init.worker_memory));
    let mut filters = seccomp::compile(crate::runtime::SECCOMP_RULES, host.mode)?;
    if !host.seccomp {
        filters = Filters { base: Vec::new(), feigned: Vec::new(), denied: Vec::new(), worker: Vec::new() };
    }
    let home = (host.mode != crate::Mode::Reduced).then(Home::open).transpose().map_err(|e| e.to_string())?;
    let networks = host.network.is_ok().then(Networks::default);
    let fence = if host.uids {
        Fence::raise(&format!("functionsplatform_{}", tag(run_dir)), &init.guarded_ports, &init.served_ports)
    } else {
        Err("workers have the platform's own uid, so no rule can tell them apart".into())
    };
    let children = child_signals().map_err(|e| format!("signalfd: {e}"))?;
    let pythons = 0..init.pythons.len();
    let mut launcher = Launcher {
        control,
        children,
        next_worker: init.first_worker,
        init,
        host,
        filters,
        cgroups,
        parts,
        home,
        networks,
        fence,
        zygotes: BTreeMap::new(),
        templates: BTreeMap::new(),
        next_template: 0,
        zygotes_changed: false,
        zygotes_told: BTreeMap::new(),
        workers: BTreeMap::new(),
        next_zygote: 1,
        free_uids: VecDeque::new(),
        fresh_uid: 0,
        lingering,
        _turn: turn,
        refill_at: None,
        ready_said: false,
        buffer: vec![0; fds::MAX_MESSAGE],
    };
    launcher.make_part_group(parts::OWN)?;
    for python in pythons {
        let plain = TemplateKey { python, preload: Vec::new() };
        launcher.template_for(&plain).map_err(|refusal| refusal.text())?;
    }
    Ok(launcher)
}

/// Away from the terminal and its signals; adopts orphans; gives the control socket, which was
/// standard input.
fn become_daemon() -> rustix::io::Result<OwnedFd> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: no handler is installed; draining is the platform's affair.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // Already leading a group is no reason to stop.
    rustix::process::setsid().ok();
    // SAFETY: a plain prctl without pointers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    let control = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?;
    let nothing = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
    // SAFETY: the number is replaced, not closed, and nobody reads standard input.
    if unsafe { libc::dup2(nothing.as_raw_fd(), 0) } < 0 {
        return Err(last_error());
    }
    rustix::process::chdir("/")?;
    // SAFETY: cannot fail; directories that others must pass get their modes explicitly.
    unsafe { libc::umask(0o022) };
    Ok(control)
}

fn child_signals() -> rustix::io::Result<OwnedFd> {
    // SAFETY: the set lives across the calls; the descriptor is ours alone.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(last_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

fn wait_for_message(control: &OwnedFd) -> Result<ToLauncher, String> {
    let mut buffer = vec![0; fds::MAX_MESSAGE];
    poll(&mut [PollFd::new(control, PollFlags::IN)], None).map_err(|e| e.to_string())?;
    match fds::receive(control, &mut buffer) {
        Ok(Some((data, _))) => serde_json::from_slice(data).map_err(|e| e.to_string()),
        Ok(None) => Err("the platform is gone".into()),
        Err(Errno::NOTSOCK) => Err("this is an internal command of the platform".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Waits until no other launcher works in the run directory: the last one's groups and files have
/// the same names as ours. The directory may be removed meanwhile, and is made anew.
fn take_turn(run_dir: &Path) -> std::io::Result<OwnedFd> {
    use std::os::unix::fs::MetadataExt as _;
    let deadline = Instant::now() + TURN_LIMIT;
    loop {
        fs::create_dir_all(run_dir)?;
        let Ok(dir) = fs::File::open(run_dir) else { continue };
        let is_ours = flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok();
        let is_late = Instant::now() >= deadline;
        // Removed by the one before us between our look and our lock.
        let is_there =
            fs::metadata(run_dir).is_ok_and(|it| dir.metadata().is_ok_and(|d| d.ino() == it.ino()));
        if is_there && (is_ours || is_late) {
            return Ok(dir.into());
        }
        if !is_ours {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Part of our cgroups' names: particular to the run directory (FNV-1a, 64 bits).
fn tag(run_dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = run_dir.as_os_str().as_bytes();
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

impl Launcher {
    /// The loop, until the platform is gone or wants the end.
    fn run(&mut self) -> ExitCode {
        if let Err(refusal) = self.zygote_for(0) {
            self.say(&FromLauncher::Failed(refusal.text()), &[]);
            return ExitCode::FAILURE;
        }
        loop {
            self.wait();
            self.reap();
            self.hear_zygotes();
            match self.hear_platform() {
                Heard::Everything => {}
                Heard::End => return ExitCode::SUCCESS,
            }
            let default = &self.templates[&0];
            if !self.ready_said && default.current.is_none() {
                let fault = default.fault.as_ref();
                let why = fault.map_or_else(|| "the zygote ended".into(), |refusal| refusal.text());
                self.say(&FromLauncher::Failed(why), &[]);
                return ExitCode::FAILURE;
            }
            self.do_what_is_due();
        }
    }

    fn wait(&self) {
        let mut watched =
            vec![PollFd::new(&self.control, PollFlags::IN), PollFd::new(&self.children, PollFlags::IN)];
        for zygote in self.zygotes.values() {
            watched.extend(zygote.watched().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        }
        let timeout = self.next_due().map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(|t| rustix::event::Timespec {
            tv_sec: t.as_secs().cast_signed(),
            tv_nsec: t.subsec_nanos().into(),
        });
        // Interrupted or not: everything is asked without waiting next.
        poll(&mut watched, timeout.as_ref()).ok();
    }

    fn next_due(&self) -> Option<Instant> {
        let removal = (!self.lingering.is_empty()).then(|| Instant::now() + Duration::from_millis(20));
        let zygotes = [self.rotation_due(), self.imports_due(), self.templates_due()];
        let zygotes = zygotes.into_iter().flatten().min();
        [self.refill_at, removal, zygotes, self.parts_due()].into_iter().flatten().min()
    }

    fn do_what_is_due(&mut self) {
        self.lingering.retain(|group| !group.remove());
        self.keep_templates();
        self.end_long_imports();
        self.rotate();
        self.keep_parts();
        if self.refill_at.is_some_and(|at| Instant::now() >= at) {
            self.refill_at = None;
            self.refill();
        }
        if self.ready_said && std::mem::take(&mut self.zygotes_changed) {
            self.tell_of_zygotes();
        }
    }

    fn hear_platform(&mut self) -> Heard {
        loop {
            let message = match fds::receive(&self.control, &mut self.buffer) {
                Ok(Some((data, _))) => serde_json::from_slice(data),
                Err(Errno::AGAIN) => return Heard::Everything,
                Err(Errno::MSGSIZE) => {
                    // It is lost, but everybody's workers must not go with it.
                    eprintln!("launcher: a message of the platform is too long");
                    continue;
                }
                Ok(None) | Err(_) => return Heard::End,
            };
            match message {
                Ok(ToLauncher::Start(order)) => self.take_start(order),
                Ok(ToLauncher::Abandon(request)) => self.abandon(request),
                Ok(ToLauncher::Weights(weights)) => self.take_weights(weights),
                Ok(ToLauncher::End(worker)) => self.end_worker(worker.0),
                Ok(ToLauncher::Templates(needs)) => self.want_templates(needs),
                Ok(ToLauncher::Prepare { request, template }) => self.prepare(request, &template),
                Ok(ToLauncher::Shutdown) => return Heard::End,
                Ok(ToLauncher::Init(_)) | Err(_) => {
                    eprintln!("launcher: a message of the platform makes no sense");
                    return Heard::End;
                }
            }
        }
    }

    fn take_start(&mut self, order: StartOrder) {
        self.refill_at = Some(Instant::now() + REFILL_DELAY);
        let request = order.request;
        if let Err(refusal) = self.start_worker(order) {
            self.say(&FromLauncher::NotStarted { request, refusal }, &[]);
        }
    }

    fn say(&self, message: &FromLauncher, descriptors: &[BorrowedFd<'_>]) {
        tell(&self.control, message, descriptors);
    }

    /// Children of ours: zygotes, and workers whose zygote is gone.
    fn reap(&mut self) {
        let mut signals = [0; 1024];
        while rustix::io::read(&self.children, &mut signals).is_ok_and(|read| read > 0) {}
        while let Some((pid, status)) = wait_for_any_child() {
            if let Some(id) = self.zygotes.iter().find_map(|(id, zygote)| (zygote.pid == pid).then_some(*id))
            {
                self.zygote_gone(id, ended(status));
            } else if let Some(serial) = self.workers.values().find_map(|entry| entry.has_host_pid(pid)) {
                self.worker_gone(serial, ended(status));
            }
        }
        if self.host.mode == crate::Mode::Reduced {
            self.kill_strangers();
        }
    }

    /// Where no pid namespace does it: what a dead worker left behind has become our child.
    fn kill_strangers(&self) {
        let own = rustix::process::getpid().as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/self/task/{own}/children")).unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|text| text.parse().ok()) {
            let known = self.zygotes.values().any(|zygote| zygote.pid == pid)
                || self.workers.values().any(|entry| entry.has_host_pid(pid).is_some());
            if !known && let Some(pid) = Pid::from_raw(pid) {
                kill_process(pid, Signal::KILL).ok();
            }
        }
    }

    /// Kills all there is, waits for it, removes all there was.
    fn end_everything(&mut self) {
        let deadline = Instant::now() + DEATH_LIMIT;
        for entry in self.workers.values() {
            entry.kill();
        }
        for zygote in self.zygotes.values() {
            zygote.kill();
        }
        self.wait_for_children(deadline);
        let groups = std::mem::take(&mut self.workers).into_values().filter_map(Entry::into_group);
        self.lingering.extend(groups);
        self.lingering.extend(std::mem::take(&mut self.zygotes).into_values().filter_map(Zygote::into_group));
        let is_swept = self.remove_groups();
        let run_dir = &self.init.run_dir;
        let removed = match is_swept {
            true => fs::remove_dir_all(run_dir),
            // The record of what is left is for the next start.
            false => cgroups::remove_all_but_record(run_dir),
        };
        if let Err(error) = removed.or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })
        {
            eprintln!("launcher: {} cannot be removed: {error}", self.init.run_dir.display());
        }
    }

    /// Whether all groups are gone.
    fn remove_groups(&mut self) -> bool {
        let deadline = Instant::now() + REMOVAL_LIMIT;
        loop {
            self.lingering.retain(|group| !group.remove());
            if self.lingering.is_empty() && self.cgroups.remove() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_for_children(&mut self, deadline: Instant) {
        loop {
            while wait_for_any_child().is_some() {}
            let left = deadline.saturating_duration_since(Instant::now());
            if last_error() == Errno::CHILD || left.is_zero() {
                return;
            }
            let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            poll(&mut [PollFd::new(&self.children, PollFlags::IN)], Some(&pause)).ok();
            let mut signals = [0; 1024];
            rustix::io::read(&self.children, &mut signals).ok();
            if self.host.mode == crate::Mode::Reduced {
                self.kill_strangers();
            }
        }
    }
}

/// Best effort: a platform that does not listen is about to be seen as gone.
fn tell(control: &OwnedFd, message: &FromLauncher, descriptors: &[BorrowedFd<'_>]) {
    let data = serde_json::to_vec(message).expect("plain data is serialisable");
    if let Err(error) = fds::send(control, &data, descriptors) {
        eprintln!("launcher: the platform cannot be told: {error}");
    }
}

enum Heard {
    Everything,
    End,
}

/// One dead child, if there is one; else `errno` says whether there are children at all.
fn wait_for_any_child() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: a valid place for the status; does not wait.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    if pid == 0 {
        // Children, but none dead: leave no stale ECHILD for `wait_for_children` to read.
        Errno::AGAIN.raw_os_error();
        // SAFETY: the thread's own errno.
        unsafe { *libc::__errno_location() = libc::EAGAIN };
    }
    (pid > 0).then_some((pid, status))
}

/// A wait status in our words.
fn ended(status: i32) -> Ended {
    if libc::WIFSIGNALED(status) {
        Ended::Signal(libc::WTERMSIG(status))
    } else {
        Ended::Code(libc::WEXITSTATUS(status))
    }
}

/// Host process id of a pidfd, from the host's `/proc`; 0 when it cannot be known.
fn host_pid(pidfd: impl AsFd) -> u32 {
    let info =
        fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd())).unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    line.and_then(|pid| pid.trim().parse().ok()).unwrap_or(0)
}
