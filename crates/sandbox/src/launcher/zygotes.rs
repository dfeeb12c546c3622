//! Template zygotes: starting them, hearing them, replacing them.
//!
//! Each is the first process of a pid namespace of its own, in which its workers' namespaces
//! are nested: whatever ends the zygote, the kernel ends all below it. A zygote serves an hour
//! or 1,000 forks, because its children share one hash seed and one address layout; it then
//! retires and leaves when its last worker has.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::mounts::last_error;
use super::{Launcher, RETRY_DELAY, ended};
use crate::Mode;
use crate::control::{ForkOrder, FromLauncher, FromZygote, ZygoteConfig};
use crate::fds;

/// How long a zygote takes orders.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// How many workers a zygote forks.
const MAX_FORKS: u32 = 1000;
/// Orders sent and not answered: far below what the socket holds, so that neither side ever
/// waits for the other's reading.
const MAX_OUTSTANDING: usize = 32;
/// What is kept of a zygote's complaints.
const TAIL: usize = 8 * 1024;

/// A worker's temporary files live in memory and count as its memory; the bound is for hosts
/// without a memory limit.
const TMP_SIZE: u64 = 64 << 20;
const TMP_FILES: u32 = 4096;

/// The environment of zygotes, and what is left to workers beside the function's own.
const ENVIRONMENT: [&str; 8] = [
    "PATH=/usr/local/bin:/usr/bin:/bin",
    "HOME=/tmp",
    "TMPDIR=/tmp",
    "USER=worker",
    "LOGNAME=worker",
    "LANG=C.UTF-8",
    // A linear-algebra library that starts threads at import would forbid the fork.
    "OPENBLAS_NUM_THREADS=1",
    "OMP_NUM_THREADS=1",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
    Retired,
}

/// One zygote.
pub(super) struct Zygote {
    pub pid: i32,
    pub python: usize,
    control: OwnedFd,
    errors: Option<OwnedFd>,
    tail: Vec<u8>,
    state: State,
    started: Instant,
    forks: u32,
    outstanding: usize,
    /// Workers whose fork has not been ordered yet.
    queue: VecDeque<u64>,
}

impl Zygote {
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.control.as_fd()).chain(self.errors.as_ref().map(AsFd::as_fd))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.state == State::Starting || self.outstanding > 0 || !self.queue.is_empty()
    }

    pub(super) fn enqueue(&mut self, serial: u64) {
        self.queue.push_back(serial);
    }

    pub(super) fn answered(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    pub(super) fn kill(&self) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            kill_process(pid, Signal::KILL).ok();
        }
    }

    fn is_worn(&self) -> bool {
        self.state == State::Ready && (self.forks >= MAX_FORKS || self.started.elapsed() >= MAX_AGE)
    }

    /// Takes in what it complains; the last of it explains why it ended.
    fn read_errors(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(errors) = &self.errors {
            match rustix::io::read(errors, &mut buffer) {
                Ok(0) => self.errors = None,
                Ok(count) => self.tail.extend_from_slice(&buffer[..count]),
                Err(_) => break,
            }
        }
        let excess = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..excess);
        if self.state != State::Starting && !self.tail.is_empty() {
            eprintln!("zygote: {}", String::from_utf8_lossy(&self.tail).trim_end());
            self.tail.clear();
        }
    }
}

impl Launcher {
    /// The zygote that takes orders for a Python, started if there is none.
    pub(super) fn zygote_for(&mut self, python: usize) -> Result<u64, String> {
        if let Some(id) = self.current[python] {
            return Ok(id);
        }
        let id = self.start_zygote(python)?;
        self.current[python] = Some(id);
        Ok(id)
    }

    /// Starts one, unless another has just failed to.
    fn start_zygote(&mut self, python: usize) -> Result<u64, String> {
        if let Some((at, why)) = &self.failed[python]
            && at.elapsed() < RETRY_DELAY
        {
            return Err(why.clone());
        }
        let zygote = self.spawn_zygote(python)?;
        let id = self.next_zygote;
        self.next_zygote += 1;
        self.zygotes.insert(id, zygote);
        Ok(id)
    }

    fn spawn_zygote(&self, python: usize) -> Result<Zygote, String> {
        let what = &self.init.pythons[python];
        let failed = |e: Errno| format!("{} cannot be started: {e}", what.executable.display());
        let (control, theirs) = fds::message_pair().map_err(failed)?;
        let (errors, errors_in) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
        rustix::io::ioctl_fionbio(&errors, true).map_err(failed)?;
        let script = self.init.run_dir.join("python/zygote.py");
        let own_pids = self.host.mode != Mode::Reduced;
        let pid = spawn(&what.executable, &script, &theirs, &errors_in, own_pids).map_err(failed)?;
        let config = ZygoteConfig {
            mode: self.host.mode,
            root_dir: self.init.run_dir.join("root"),
            runtime_dir: self.init.run_dir.join("python"),
            prefixes: &what.prefixes,
            gid: super::probe::FIRST_UID,
            own_proc: self.host.own_proc,
            preload: &self.init.preload,
            base_filter: hex(&self.filters.base),
            worker_filter: hex(&self.filters.worker),
        };
        let config = serde_json::to_vec(&config).expect("plain data is serialisable");
        let zygote = Zygote {
            pid,
            python,
            control,
            errors: Some(errors),
            tail: Vec::new(),
            state: State::Starting,
            started: Instant::now(),
            forks: 0,
            outstanding: 0,
            queue: VecDeque::new(),
        };
        // If it is gone already, its end of file will say so with its own words.
        fds::send(&zygote.control, &config, &[]).ok();
        Ok(zygote)
    }

    pub(super) fn hear_zygotes(&mut self) {
        let ids: Vec<_> = self.zygotes.keys().copied().collect();
        for id in ids {
            self.hear_zygote(id);
        }
    }

    fn hear_zygote(&mut self, id: u64) {
        loop {
            let Some(zygote) = self.zygotes.get_mut(&id) else { return };
            zygote.read_errors();
            match fds::receive(&zygote.control, &mut self.buffer) {
                Ok(Some((data, descriptors))) => match serde_json::from_slice(data) {
                    Ok(message) => self.zygote_said(id, message, descriptors),
                    Err(error) => {
                        eprintln!("launcher: a zygote makes no sense: {error}");
                        zygote.kill();
                        return;
                    }
                },
                // Its end is handled where its process is reaped.
                Ok(None) | Err(_) => break,
            }
        }
        self.send_orders(id);
    }

    fn zygote_said(&mut self, id: u64, message: FromZygote, descriptors: Vec<OwnedFd>) {
        match message {
            FromZygote::Ready { preload_failed } => self.zygote_ready(id, preload_failed),
            FromZygote::Forked { serial, pid } => self.forked(id, serial, pid, descriptors),
            FromZygote::Entered { serial } => self.entered(serial),
            FromZygote::Failed { serial, step, why } => self.entry_failed(id, serial, &step, &why),
            FromZygote::Exited { pid, status } => {
                let found = self.workers.values().find_map(|entry| entry.has_pid(id, pid));
                if let Some(serial) = found {
                    self.worker_gone(serial, ended(status));
                }
            }
        }
    }

    fn zygote_ready(&mut self, id: u64, preload_failed: BTreeMap<String, String>) {
        let Some(zygote) = self.zygotes.get_mut(&id) else { return };
        zygote.state = State::Ready;
        zygote.started = Instant::now();
        for (module, why) in preload_failed {
            eprintln!("launcher: {module} cannot be preloaded: {why}");
        }
        let python = zygote.python;
        if self.successors[python] == Some(id) {
            self.succeed(id, python);
        }
        if python == 0 && !self.ready_said {
            self.ready_said = true;
            let report = self.host.report(&self.cgroups, &self.init.pythons);
            self.say(&FromLauncher::Ready(report), &[]);
        }
        self.refill_at = Some(Instant::now());
    }

    /// Orders as many forks as may be outstanding.
    pub(super) fn send_orders(&mut self, id: u64) {
        while let Some(zygote) = self.zygotes.get_mut(&id) {
            if zygote.state == State::Starting || zygote.outstanding >= MAX_OUTSTANDING {
                return;
            }
            let Some(serial) = zygote.queue.pop_front() else { return };
            let Some(entry) = self.workers.get_mut(&serial) else { continue };
            let (ends, limits) = entry.take_fork_parts();
            let order = ForkOrder {
                serial,
                blank: entry.is_blank(),
                uid: entry.uid,
                network: entry.network,
                tmp_size: TMP_SIZE,
                tmp_files: TMP_FILES,
                limits: &limits,
            };
            let data = serde_json::to_vec(&order).expect("plain data is serialisable");
            let borrowed: Vec<_> = ends.iter().map(AsFd::as_fd).collect();
            let sent = fds::send(&zygote.control, &data, &borrowed);
            zygote.outstanding += 1;
            zygote.forks += 1;
            if let Err(error) = sent {
                self.entry_failed(id, serial, "order the fork", &error.to_string());
            }
        }
    }

    /// When the next zygote is too old, not counting those whose successor starts already.
    pub(super) fn rotation_due(&self) -> Option<Instant> {
        let pythons = 0..self.current.len();
        let due = pythons.filter(|python| self.successors[*python].is_none()).filter_map(|python| {
            let zygote = self.zygotes.get(&self.current[python]?)?;
            let worn = (zygote.state == State::Ready).then(|| zygote.started + MAX_AGE)?;
            Some(self.failed[python].as_ref().map_or(worn, |(at, _)| worn.max(*at + RETRY_DELAY)))
        });
        due.min()
    }

    /// A successor for each worn zygote, which takes orders until the other is ready. A retired
    /// one leaves when it has no workers.
    pub(super) fn rotate(&mut self) {
        for python in 0..self.current.len() {
            let worn =
                self.current[python].is_some_and(|id| self.zygotes.get(&id).is_some_and(Zygote::is_worn));
            if worn && self.successors[python].is_none() {
                // A failure was recorded and said, and is tried again later.
                self.successors[python] = self.start_zygote(python).ok();
            }
        }
        let in_use = |id: &u64| self.workers.values().any(|entry| entry.zygote == *id);
        for (_, zygote) in
            self.zygotes.iter().filter(|(id, zygote)| zygote.state == State::Retired && !in_use(id))
        {
            zygote.kill();
        }
    }

    /// A successor is ready: it takes the orders from here on.
    fn succeed(&mut self, id: u64, python: usize) {
        self.successors[python] = None;
        let Some(old) = self.current[python].replace(id) else { return };
        if let Some(zygote) = self.zygotes.get_mut(&old) {
            zygote.state = State::Retired;
        }
        // Blank ones would carry the old seed into the new hour.
        for entry in self.workers.values().filter(|entry| entry.zygote == old && entry.is_blank()) {
            entry.kill();
        }
    }

    /// Its process was reaped: everything below it is dead or dying.
    pub(super) fn zygote_gone(&mut self, id: u64) {
        if let Some(zygote) = self.zygotes.get_mut(&id) {
            zygote.read_errors();
        }
        // What it still reported is worth more than our guess.
        self.hear_zygote(id);
        let Some(zygote) = self.zygotes.remove(&id) else { return };
        let python = zygote.python;
        let complaint = String::from_utf8_lossy(&zygote.tail);
        let reason = complaint.trim().lines().next_back().unwrap_or("it printed nothing");
        let why = format!(
            "the zygote of Python {} does not start: {reason}",
            self.init.pythons[python].version_text()
        );
        if zygote.state == State::Starting {
            eprintln!("{complaint}");
            self.failed[python] = Some((Instant::now(), why.clone()));
        }
        if self.successors[python] == Some(id) {
            self.successors[python] = None;
        }
        if self.current[python] == Some(id) {
            self.current[python] = None;
            self.refill_at = Some(Instant::now() + RETRY_DELAY);
        }
        let orphans: Vec<_> = self.workers.values().filter(|e| e.zygote == id).map(|e| e.serial).collect();
        for serial in orphans {
            if zygote.state == State::Starting {
                self.not_started(serial, &why, true);
            }
            if let Some(entry) = self.workers.get(&serial) {
                entry.kill();
            }
            self.worker_gone(serial, crate::start::Ended::Signal(libc::SIGKILL));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// Starts `python3 -I -S script` with `control` as descriptor 0 and `errors` as descriptor 2,
/// if asked as the first process of a new pid namespace (which `Command` cannot do).
fn spawn(
    python: &Path,
    script: &Path,
    control: &OwnedFd,
    errors: &OwnedFd,
    own_pids: bool,
) -> rustix::io::Result<i32> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| Errno::INVAL);
    let program = text(python.as_os_str().as_bytes())?;
    let arguments = [program.clone(), text(b"-I")?, text(b"-S")?, text(script.as_os_str().as_bytes())?];
    let environment = ENVIRONMENT.iter().map(|e| text(e.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|item| item.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    let flags = libc::SIGCHLD | if own_pids { libc::CLONE_NEWPID } else { 0 };
    let nothing: *const u8 = std::ptr::null();
    // SAFETY: like a fork: no shared memory, no new stack, and this process is single-threaded.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, nothing, nothing, nothing, nothing) };
    match i32::try_from(pid).unwrap_or(-1) {
        -1 => Err(last_error()),
        0 => {
            // SAFETY: only async-signal-safe calls on data made before the clone; never returns.
            unsafe {
                for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                let mut none = std::mem::zeroed();
                libc::sigemptyset(&raw mut none);
                libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
                libc::dup2(control.as_raw_fd(), 0);
                libc::dup2(errors.as_raw_fd(), 1);
                libc::dup2(errors.as_raw_fd(), 2);
                libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr());
                libc::_exit(127)
            }
        }
        pid => Ok(pid),
    }
}
