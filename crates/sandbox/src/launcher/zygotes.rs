//! Template zygotes: starting them, hearing them, replacing them.
//!
//! Each is the first process of a pid namespace of its own, in which its workers' namespaces
//! are nested: whatever ends the zygote, the kernel ends all below it. A zygote serves an hour
//! or 1,000 forks, because its children share one hash seed and one address layout; it then
//! retires and leaves when its last worker has. One that preloads has a cgroup, so that a bomb
//! among its imports ends it and nothing else.

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fp_core::settings::Network;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::cgroups::{Controller, Group, Limits};
use super::mounts::last_error;
use super::{Launcher, RETRY_DELAY, ended};
use crate::Mode;
use crate::control::{ForkOrder, FromLauncher, FromZygote, Refusal, ZygoteConfig};
use crate::fds;
use crate::host::memory_of;
use crate::preload::{PreloadFault, TemplateKey, ZygoteReport};
use crate::python::Python;
use crate::start::{Ended, Exit};

/// How long a zygote takes orders.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// How many workers a zygote forks.
const MAX_FORKS: u32 = 1000;
/// Orders sent and not answered: far below what the socket holds, so that neither side ever
/// waits for the other's reading.
const MAX_OUTSTANDING: usize = 32;
/// How long the imports of a zygote may take: three times the slowest packages from a cold disk.
const IMPORT_LIMIT: Duration = Duration::from_secs(30);
/// Tasks of a zygote that preloads: itself and the forks that have not joined their own groups.
const MAX_TASKS: u32 = 2 * MAX_OUTSTANDING as u32;
/// What is kept of a zygote's complaints.
const TAIL: usize = 8 * 1024;

/// A worker's temporary files live in memory and count as its memory; the bound is for hosts
/// without a memory limit.
const TMP_SIZE: u64 = 64 << 20;
const TMP_FILES: u32 = 4096;

/// The environment of zygotes, and what is left to workers beside the function's own.
const ENVIRONMENT: [&str; 10] = [
    "PATH=/usr/local/bin:/usr/bin:/bin",
    "HOME=/tmp",
    "TMPDIR=/tmp",
    "USER=worker",
    "LOGNAME=worker",
    "LANG=C.UTF-8",
    // A linear-algebra library that starts threads at import would forbid the fork.
    "OPENBLAS_NUM_THREADS=1",
    "OMP_NUM_THREADS=1",
    "MKL_NUM_THREADS=1",
    "BLIS_NUM_THREADS=1",
];

pub(super) use crate::preload::ZygoteState as State;

/// One zygote.
pub(super) struct Zygote {
    pub pid: i32,
    pub template: u64,
    /// What it is a zygote of, also when the template is gone.
    key: TemplateKey,
    pub state: State,
    /// Data of its preloads, which each of its children begins with, in bytes.
    pub inherited: u64,
    control: OwnedFd,
    errors: Option<OwnedFd>,
    tail: Vec<u8>,
    /// When it was spawned; from when it was ready, then.
    started: Instant,
    /// From the one to the other.
    took: Option<Duration>,
    group: Option<Group>,
    importing: Option<String>,
    fault: Option<PreloadFault>,
    forks: u32,
    outstanding: usize,
    /// Workers whose fork has not been ordered yet.
    queue: VecDeque<u64>,
}

impl Zygote {
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.control.as_fd()).chain(self.errors.as_ref().map(AsFd::as_fd))
    }

    /// It forks for somebody. While it starts, others are not kept waiting.
    pub(super) fn is_busy(&self) -> bool {
        self.state != State::Starting && (self.outstanding > 0 || !self.queue.is_empty())
    }

    pub(super) fn into_group(self) -> Option<Group> {
        self.group
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
    pub(super) fn spawn_zygote(&self, template: u64) -> Result<Zygote, String> {
        let key = &self.templates[&template].key;
        let what = &self.init.pythons[key.python];
        let failed = |e: Errno| format!("{} cannot be started: {e}", what.executable.display());
        let (control, theirs) = fds::message_pair().map_err(failed)?;
        let (errors, errors_in) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
        rustix::io::ioctl_fionbio(&errors, true).map_err(failed)?;
        let script = self.init.run_dir.join("python/zygote.py");
        let preloads = !key.preload.is_empty();
        let (group, joins) = preloads.then(|| self.group_for_zygote()).transpose()?.unzip();
        let spawn = Spawn {
            python: &what.executable,
            script: &script,
            control: &theirs,
            errors: &errors_in,
            own_pids: self.host.mode != Mode::Reduced,
            joins: joins.unwrap_or_default(),
            data_limit: (preloads && !self.cgroups.has(Controller::Memory))
                .then_some(self.init.preload.memory),
        };
        let pid = spawn.run().map_err(failed)?;
        let (layers, path) = if preloads { self.places(what) } else { (Vec::new(), Vec::new()) };
        let config = ZygoteConfig {
            mode: self.host.mode,
            root_dir: self.init.run_dir.join("root"),
            runtime_dir: self.init.run_dir.join("python"),
            prefixes: &what.prefixes,
            gid: super::probe::FIRST_UID,
            own_proc: self.host.own_proc,
            landlock: self.host.landlock.as_ref().map_or(0, |version| *version),
            unified: self.cgroups.is_unified(),
            preload: &key.preload,
            path,
            layers,
            base_filter: hex(&self.filters.base),
            feigned_filter: hex(&self.filters.feigned),
            denied_filter: hex(&self.filters.denied),
            worker_filter: hex(&self.filters.worker),
        };
        let config = serde_json::to_vec(&config).expect("plain data is serialisable");
        let zygote = Zygote {
            pid,
            template,
            key: key.clone(),
            state: State::Starting,
            inherited: 0,
            control,
            errors: Some(errors),
            tail: Vec::new(),
            started: Instant::now(),
            took: None,
            group,
            importing: None,
            fault: None,
            forks: 0,
            outstanding: 0,
            queue: VecDeque::new(),
        };
        // If it is gone already, its end of file will say so with its own words.
        fds::send(&zygote.control, &config, &[]).ok();
        Ok(zygote)
    }

    /// A group that holds what imports may take, so that they end and not the host.
    fn group_for_zygote(&self) -> Result<(Group, Vec<OwnedFd>), String> {
        let named = |e: std::io::Error| format!("making the zygote's cgroups: {e}");
        let made = self.cgroups.create_for_zygote(&format!("z{}", self.next_zygote)).map_err(named)?;
        // Where the CPU is not a hierarchy apart: before all workers, for its forks.
        let limits =
            Limits { memory: self.init.preload.memory, tasks: MAX_TASKS, cpu: 100.0, cpu_limit: None };
        made.0.limit(&limits).map_err(named)?;
        Ok(made)
    }

    /// Directories to show in the root, and what `sys.path` gets: the layers, then the Python's
    /// site-packages. Layers have places of their own in the root, because a worker's /tmp would
    /// cover those below it.
    fn places(&self, python: &Python) -> (Vec<(PathBuf, PathBuf)>, Vec<PathBuf>) {
        let is_shown = |dir: &Path| {
            dir.starts_with("/usr") || python.prefixes.iter().any(|prefix| dir.starts_with(prefix))
        };
        let mut layers = Vec::new();
        let mut path = Vec::new();
        for dir in self.init.preload.layers.iter().chain(&python.site_packages) {
            if self.host.mode == Mode::Reduced || is_shown(dir) {
                path.push(dir.clone());
            } else {
                let shown = PathBuf::from(format!("/layers/{}", layers.len()));
                layers.push((dir.clone(), shown.clone()));
                path.push(shown);
            }
        }
        (layers, path)
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
            match fds::receive_what_can_be(&zygote.control, &mut self.buffer) {
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
            FromZygote::Importing { module } => {
                if let Some(zygote) = self.zygotes.get_mut(&id) {
                    zygote.importing = Some(module);
                }
            }
            FromZygote::PreloadFailed(fault) => {
                if let Some(zygote) = self.zygotes.get_mut(&id) {
                    zygote.fault = Some(fault);
                }
            }
            FromZygote::Ready => self.zygote_ready(id),
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

    fn zygote_ready(&mut self, id: u64) {
        let Some(zygote) = self.zygotes.get_mut(&id) else { return };
        if zygote.state != State::Starting {
            return;
        }
        zygote.state = State::Ready;
        zygote.took = Some(zygote.started.elapsed());
        zygote.started = Instant::now();
        self.zygotes_changed = true;
        let template = zygote.template;
        if !zygote.key.preload.is_empty() {
            zygote.inherited = memory_of(zygote.pid, "VmData");
        }
        if let Some(it) = self.templates.get_mut(&template) {
            (it.fault, it.rests_until) = (None, None);
            if it.successor == Some(id) {
                self.succeed(id, template);
            }
        }
        if template == 0 && !self.ready_said {
            self.ready_said = true;
            let report = self.host.report(&self.cgroups, self.fence.as_ref().err(), &self.init.pythons);
            self.say(&FromLauncher::Ready(report), &[]);
        }
        self.answer_waiting(template, None);
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
                own_network: entry.network != Network::Full,
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
        let alone = self.templates.values().filter(|template| template.successor.is_none());
        let due = alone.filter_map(|template| {
            let zygote = self.zygotes.get(&template.current?)?;
            let worn = (zygote.state == State::Ready).then(|| zygote.started + MAX_AGE)?;
            Some(template.rests_until.map_or(worn, |rest| worn.max(rest)))
        });
        due.min()
    }

    /// A successor for each worn zygote, which takes orders until the other is ready. A retired
    /// one leaves when it has no workers.
    pub(super) fn rotate(&mut self) {
        let is_worn = |id: u64| self.zygotes.get(&id).is_some_and(Zygote::is_worn);
        let worn = self.templates.iter().filter(|(_, template)| {
            template.successor.is_none() && !template.rests() && template.current.is_some_and(is_worn)
        });
        for template in worn.map(|(id, _)| *id).collect::<Vec<_>>() {
            // A failure was recorded and said, and is tried again later.
            let successor = self.start_zygote(template).ok();
            self.templates.get_mut(&template).expect("found above").successor = successor;
        }
        let in_use = |id: &u64| self.workers.values().any(|entry| entry.zygote == *id);
        for (_, zygote) in
            self.zygotes.iter().filter(|(id, zygote)| zygote.state == State::Retired && !in_use(id))
        {
            zygote.kill();
        }
    }

    /// A successor is ready: it takes the orders from here on.
    fn succeed(&mut self, id: u64, template: u64) {
        let Some(template) = self.templates.get_mut(&template) else { return };
        template.successor = None;
        if let Some(old) = template.current.replace(id) {
            self.retire(old);
        }
    }

    /// It takes no orders any more and leaves with its last worker.
    pub(super) fn retire(&mut self, id: u64) {
        let Some(zygote) = self.zygotes.get_mut(&id) else { return };
        zygote.state = State::Retired;
        self.zygotes_changed = true;
        // Blank ones would carry the old seed into the new hour.
        for entry in self.workers.values().filter(|entry| entry.zygote == id && entry.is_blank()) {
            entry.kill();
        }
    }

    /// When the next import has taken too long.
    pub(super) fn imports_due(&self) -> Option<Instant> {
        let importing = self.zygotes.values().filter(|z| z.state == State::Starting && z.importing.is_some());
        importing.map(|zygote| zygote.started + IMPORT_LIMIT).min()
    }

    pub(super) fn end_long_imports(&mut self) {
        for zygote in self.zygotes.values_mut().filter(|zygote| zygote.state == State::Starting) {
            let Some(module) = zygote.importing.take_if(|_| zygote.started.elapsed() >= IMPORT_LIMIT) else {
                continue;
            };
            let why = format!("its import did not end within {IMPORT_LIMIT:?}");
            zygote.fault = Some(PreloadFault { module, why, traceback: String::new() });
            zygote.kill();
        }
    }

    /// Its process was reaped: everything below it is dead or dying.
    pub(super) fn zygote_gone(&mut self, id: u64, ended: Ended) {
        if let Some(zygote) = self.zygotes.get_mut(&id) {
            zygote.read_errors();
        }
        // What it still reported is worth more than our guess.
        self.hear_zygote(id);
        let Some(zygote) = self.zygotes.remove(&id) else { return };
        self.zygotes_changed = true;
        let refusal = self.why_gone(&zygote, ended);
        let started = zygote.state != State::Starting;
        if !started {
            eprintln!("launcher: {}", refusal.text());
        }
        if let Some(template) = self.templates.get_mut(&zygote.template) {
            if !started || template.current == Some(id) {
                template.rest((!started).then(|| refusal.clone()));
            }
            if template.successor == Some(id) {
                template.successor = None;
            }
            if template.current == Some(id) {
                template.current = None;
                self.refill_at = Some(Instant::now() + RETRY_DELAY);
            }
        }
        if !started {
            self.answer_waiting(zygote.template, Some(&refusal));
        }
        let orphans: Vec<_> = self.workers.values().filter(|e| e.zygote == id).map(|e| e.serial).collect();
        for serial in orphans {
            if !started {
                self.not_started(serial, refusal.clone());
            }
            if let Some(entry) = self.workers.get(&serial) {
                entry.kill();
            }
            self.worker_gone(serial, Ended::Signal(libc::SIGKILL));
        }
        self.lingering.extend(zygote.into_group().filter(|group| !group.remove()));
    }

    /// Why a zygote does not start, in the words of the module where one is at fault.
    fn why_gone(&self, zygote: &Zygote, ended: Ended) -> Refusal {
        if let Some(fault) = &zygote.fault {
            return Refusal::Preload(fault.clone());
        }
        let complaint = String::from_utf8_lossy(&zygote.tail);
        let reason = complaint.trim().lines().next_back().unwrap_or("it printed nothing");
        let Some(module) = zygote.importing.clone() else {
            let python = self.init.pythons[zygote.key.python].version_text();
            if zygote.state == State::Starting {
                eprintln!("{complaint}");
            }
            return Refusal::Python(format!("the zygote of Python {python} does not start: {reason}"));
        };
        let out_of_memory = zygote.group.as_ref().is_some_and(|group| group.events().killed_for_memory);
        let exit = Exit { ended, limit_hit: None };
        let why = if out_of_memory {
            let limit = self.init.preload.memory >> 20;
            format!(
                "with what is imported before it, it needs more than {limit} MiB; \
                 raise preload_memory in the platform's configuration"
            )
        } else {
            format!("the process {exit} while importing it: {reason}")
        };
        Refusal::Preload(PreloadFault { module, why, traceback: String::new() })
    }

    /// Tells the platform, for people, what has changed since it was last told.
    pub(super) fn tell_of_zygotes(&mut self) {
        let mut told = std::mem::take(&mut self.zygotes_told);
        let mut changes = Vec::new();
        // Before the others, because a new one may have the number of one that is gone.
        told.retain(|id, (pid, _)| {
            let is_there = self.zygotes.contains_key(id);
            changes.extend((!is_there).then_some(FromLauncher::ZygoteGone { pid: *pid }));
            is_there
        });
        for (id, zygote) in &self.zygotes {
            let now = (zygote.pid, zygote.state);
            if told.insert(*id, now) != Some(now) {
                changes.push(FromLauncher::Zygote(self.report(zygote)));
            }
        }
        self.zygotes_told = told;
        for change in changes {
            self.say(&change, &[]);
        }
    }

    fn report(&self, zygote: &Zygote) -> ZygoteReport {
        ZygoteReport {
            pid: zygote.pid,
            python: self.init.pythons[zygote.key.python].version_text(),
            preload: zygote.key.preload.clone(),
            state: zygote.state,
            start_ms: zygote.took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            memory: 0,
            memory_limit: (!zygote.key.preload.is_empty()).then_some(self.init.preload.memory),
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

/// How a zygote's process is started.
struct Spawn<'a> {
    python: &'a Path,
    script: &'a Path,
    control: &'a OwnedFd,
    errors: &'a OwnedFd,
    own_pids: bool,
    /// Its cgroups, to be joined before anything else.
    joins: Vec<OwnedFd>,
    /// What stands in for a memory cgroup. Soft, so that its children get limits of their own.
    data_limit: Option<u64>,
}

impl Spawn<'_> {
    /// Starts `python3 -I -S script` with `control` as descriptor 0 and `errors` as descriptor 2,
    /// if asked as the first process of a new pid namespace (which `Command` cannot do).
    fn run(&self) -> rustix::io::Result<i32> {
        let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| Errno::INVAL);
        let program = text(self.python.as_os_str().as_bytes())?;
        let script = text(self.script.as_os_str().as_bytes())?;
        let arguments = [program.clone(), text(b"-I")?, text(b"-S")?, script];
        let environment = ENVIRONMENT.iter().map(|e| text(e.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
            list.iter().map(|item| item.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (argv, envp) = (pointers(&arguments), pointers(&environment));
        let flags = libc::SIGCHLD | if self.own_pids { libc::CLONE_NEWPID } else { 0 };
        let nothing: *const u8 = std::ptr::null();
        // SAFETY: like a fork: no shared memory, no new stack, and this process is single-threaded.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, nothing, nothing, nothing, nothing) };
        match i32::try_from(pid).unwrap_or(-1) {
            -1 => Err(last_error()),
            // SAFETY: only async-signal-safe calls on data made before the clone; never returns.
            0 => unsafe { self.become_python(&program, &argv, &envp) },
            pid => Ok(pid),
        }
    }

    /// SAFETY: in a fresh child only; the pointers end in null and live.
    unsafe fn become_python(
        &self,
        program: &CString,
        argv: &[*const libc::c_char],
        envp: &[*const libc::c_char],
    ) -> ! {
        // SAFETY: async-signal-safe calls on live data; see above.
        unsafe {
            for join in &self.joins {
                // Alone outside its group it would be a zygote without a limit.
                if libc::write(join.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1 {
                    libc::_exit(126);
                }
            }
            if let Some(limit) = self.data_limit {
                let limit = libc::rlimit { rlim_cur: limit, rlim_max: libc::RLIM_INFINITY };
                libc::setrlimit(libc::RLIMIT_DATA, &raw const limit);
            }
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
                libc::signal(signal, libc::SIG_DFL);
            }
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            libc::dup2(self.control.as_raw_fd(), 0);
            libc::dup2(self.errors.as_raw_fd(), 1);
            libc::dup2(self.errors.as_raw_fd(), 2);
            libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr());
            libc::_exit(127)
        }
    }
}
