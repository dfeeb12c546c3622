//! The launcher's side of workers: blank, claimed, gone.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use fp_core::WorkerId;
use fp_core::settings::Network;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, pidfd_send_signal, prlimit};

use super::cgroups::{Controller, Events, Group, Limits};
use super::mounts::CODE_DIR;
use super::probe::{FIRST_UID, UIDS};
use super::templates::Template;
use super::{Launcher, RETRY_DELAY, host_pid};
use crate::control::{FromLauncher, Refusal, StartOrder, Started};
use crate::fds;
use crate::open_files::{OpenFiles, REMEDY};
use crate::start::{Ended, Exit, LimitHit};

/// Limits that every worker starts with, by name of `RLIMIT_…`. Files: enough for a pool of
/// clients, far below the host's own. (The others are the same in the zygote, which sets them once.)
const RLIMITS: [(&str, u64); 1] = [("NOFILE", 1024)];

/// One worker from its fork order to its end.
pub(super) struct Entry {
    pub serial: u64,
    pub zygote: u64,
    /// The tenant's part of the host that it was born in.
    pub part: u64,
    pub uid: Option<u32>,
    pub network: Network,
    /// In the zygote's numbering.
    pid: Option<i32>,
    host_pid: u32,
    pidfd: Option<OwnedFd>,
    /// Requests, answers, side channel, output: ours until the platform has them.
    platform_ends: Vec<OwnedFd>,
    /// The listeners inside its network, as long.
    listeners: Vec<OwnedFd>,
    /// The same of the worker, then its network, then the cgroups': ours until the fork.
    worker_ends: Vec<OwnedFd>,
    group: Option<Group>,
    rlimits: BTreeMap<&'static str, u64>,
    /// The sandbox is complete.
    entered: bool,
    /// Its order's limits were set at its fork: it is nobody else's.
    is_fitted: bool,
    /// What it was claimed for.
    order: Option<StartOrder>,
    /// It stood ready when it was claimed.
    was_blank: bool,
    given: bool,
    /// Its tenant had more than its share of a memory that was short.
    was_too_large: bool,
}

impl Entry {
    pub(super) fn has_pid(&self, zygote: u64, pid: i32) -> Option<u64> {
        (self.zygote == zygote && self.pid == Some(pid)).then_some(self.serial)
    }

    pub(super) fn has_host_pid(&self, pid: i32) -> Option<u64> {
        (i64::from(self.host_pid) == i64::from(pid)).then_some(self.serial)
    }

    pub(super) fn is_blank(&self) -> bool {
        self.order.is_none() && !self.given
    }

    /// Its sandbox stands.
    pub(super) fn is_complete(&self) -> bool {
        self.entered
    }

    /// Memory that it takes now, in bytes; 0 when it cannot be known.
    pub(super) fn memory_used(&self) -> u64 {
        self.group.as_ref().map_or(0, Group::memory_used)
    }

    /// Ends it as the kernel would when there is no more memory.
    pub(super) fn end_for_memory(&mut self) {
        self.was_too_large = true;
        self.kill();
    }

    /// Ordered and not handed over yet.
    pub(super) fn is_awaited(&self) -> bool {
        self.order.is_some() && !self.given
    }

    pub(super) fn kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            // It may be dead already.
            pidfd_send_signal(pidfd, Signal::KILL).ok();
        }
    }

    /// Ends a blank worker, so that nobody claims it any more. One that is being forked becomes
    /// complete first.
    pub(super) fn discard(&mut self) {
        if self.entered {
            self.given = true;
            self.kill();
        }
    }

    /// Who ordered it has given up. It is as blank as before, if it was not fitted to the order yet.
    fn abandon(&mut self) {
        self.order = None;
        if self.is_fitted {
            self.given = true;
            self.kill();
        }
    }

    pub(super) fn into_group(self) -> Option<Group> {
        self.group
    }

    pub(super) fn take_fork_parts(&mut self) -> (Vec<OwnedFd>, BTreeMap<&'static str, u64>) {
        (std::mem::take(&mut self.worker_ends), std::mem::take(&mut self.rlimits))
    }
}

impl Launcher {
    /// Claims a blank worker or orders a fork.
    pub(super) fn start_worker(&mut self, order: StartOrder) -> Result<(), Refusal> {
        if order.network != Network::Full && self.networks.is_none() {
            let why = "a network of its own cannot be had on this host (see doctor); \
                only functions with network = \"full\" can run here";
            return Err(Refusal::Host(why.into()));
        }
        let template = self.template_for(&order.template)?;
        let zygote = self.zygote_for(template)?;
        let (part, blank) = self.part_for(&order.tenant, zygote, order.network).map_err(Refusal::Host)?;
        let serial = match blank {
            Some(serial) => serial,
            None => self.order_fork(zygote, order.network, part, Some(&order)).map_err(Refusal::Host)?,
        };
        let entry = self.workers.get_mut(&serial).expect("found or made a moment ago");
        entry.order = Some(order);
        entry.was_blank = entry.entered;
        self.give(serial);
        Ok(())
    }

    /// Replaces claimed blanks while the zygote has nothing better to do.
    pub(super) fn refill(&mut self) {
        if self.zygotes.values().any(super::Zygote::is_busy) {
            self.refill_at = Some(Instant::now() + super::REFILL_DELAY);
            return;
        }
        let pause = match self.order_missing() {
            Ok(false) => return,
            Ok(true) => super::REFILL_DELAY,
            Err(refusal) => {
                eprintln!("launcher: no blank worker: {}", refusal.text());
                RETRY_DELAY
            }
        };
        self.refill_at = Some(Instant::now() + pause);
    }

    /// Whether something was missing; one thing at a time.
    fn order_missing(&mut self) -> Result<bool, Refusal> {
        self.end_unwanted_blanks();
        if self.can_fit_blank() && self.order_missing_blank()? {
            return Ok(true);
        }
        let is_needed = self.templates.values().any(Template::wants_own_network);
        let networks = self.networks.as_mut().filter(|_| is_needed);
        networks.map_or(Ok(false), |networks| networks.refill().map_err(Refusal::Host))
    }

    /// Everything that a worker needs before its fork, and the order for it.
    pub(super) fn order_fork(
        &mut self,
        zygote: u64,
        network: Network,
        part: u64,
        order: Option<&StartOrder>,
    ) -> Result<u64, String> {
        let serial = self.next_worker;
        self.next_worker += 1;
        let named = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
        let (platform_ends, mut worker_ends) =
            make_ends().map_err(|e| named("making its sockets")(e.into()))?;
        let (its_network, listeners) = self.network_for(network)?;
        let uid = self.take_uid()?;
        // The last that can fail: until here all that was had goes away by itself.
        let made = self.cgroups.create(&self.parts.group_of(part), &format!("w{serial}"));
        let (group, joins) = made.map_err(|error| {
            self.free_uids.extend(uid);
            named("making its cgroups")(error)
        })?;
        worker_ends.extend(its_network.into_iter().chain(joins));
        let mut rlimits = BTreeMap::from(RLIMITS);
        let fits = order.filter(|_| !self.can_fit_blank());
        rlimits.extend(fits.into_iter().flat_map(|order| self.soft_limits(zygote, order)));
        let entry = Entry {
            serial,
            zygote,
            part,
            uid,
            network,
            pid: None,
            host_pid: 0,
            pidfd: None,
            platform_ends,
            listeners,
            worker_ends,
            group: Some(group),
            rlimits,
            entered: false,
            is_fitted: fits.is_some(),
            order: order.cloned(),
            was_blank: false,
            given: false,
            was_too_large: false,
        };
        self.workers.insert(serial, entry);
        if let Some(zygote) = self.zygotes.get_mut(&zygote) {
            zygote.enqueue(serial);
        }
        self.send_orders(zygote);
        Ok(serial)
    }

    /// The network namespace that a worker is to enter, and for `internal` the listeners in it.
    fn network_for(&mut self, network: Network) -> Result<(Option<OwnedFd>, Vec<OwnedFd>), String> {
        let Some(networks) = self.networks.as_mut().filter(|_| network != Network::Full) else {
            return Ok((None, Vec::new()));
        };
        let its_own = networks.take()?;
        let is_internal = network == Network::Internal;
        let listeners = is_internal.then(|| super::networks::listen_in(&its_own)).transpose()?;
        Ok((Some(its_own), listeners.map(Vec::from).unwrap_or_default()))
    }

    /// A uid that no living worker has, the one given back longest ago; none where the host
    /// has none to give.
    fn take_uid(&mut self) -> Result<Option<u32>, String> {
        if !self.host.uids {
            return Ok(None);
        }
        if self.fresh_uid < UIDS {
            self.fresh_uid += 1;
            return Ok(Some(FIRST_UID + self.fresh_uid - 1));
        }
        self.free_uids.pop_front().map(Some).ok_or_else(|| format!("all {UIDS} uids are in use"))
    }

    pub(super) fn forked(&mut self, zygote: u64, serial: u64, pid: i32, descriptors: Vec<OwnedFd>) {
        if let Some(zygote) = self.zygotes.get_mut(&zygote) {
            zygote.answered();
        }
        let Some(pidfd) = descriptors.into_iter().next() else {
            return self.forked_unseen(serial, pid);
        };
        let Some(entry) = self.workers.get_mut(&serial) else {
            // Abandoned between order and fork.
            pidfd_send_signal(&pidfd, Signal::KILL).ok();
            return;
        };
        entry.pid = Some(pid);
        entry.host_pid = host_pid(&pidfd);
        entry.pidfd = Some(pidfd);
        if entry.given {
            // Given up between order and fork.
            return entry.kill();
        }
        self.give(serial);
    }

    /// There was no descriptor left for its pidfd: it cannot be handed over. It ends when it finds
    /// that nobody has the other ends of its pipes, and its zygote reports that.
    fn forked_unseen(&mut self, serial: u64, pid: i32) {
        let limit = OpenFiles::now().limit();
        let why = format!("all of the launcher's {limit} open files are in use; {REMEDY}");
        self.not_started(serial, Refusal::Host(why));
        if let Some(entry) = self.workers.get_mut(&serial) {
            entry.pid = Some(pid);
            entry.given = true;
            entry.platform_ends.clear();
            entry.listeners.clear();
        }
    }

    pub(super) fn entered(&mut self, serial: u64) {
        if let Some(entry) = self.workers.get_mut(&serial) {
            entry.entered = true;
            if entry.is_blank() {
                self.refill_at = Some(Instant::now() + super::REFILL_DELAY);
            }
        }
        self.give(serial);
    }

    /// The fork, or a step of the sandbox, was refused.
    pub(super) fn entry_failed(&mut self, zygote: u64, serial: u64, step: &str, why: &str) {
        let why = format!("the sandbox cannot be built: {step}: {why}");
        if !self.not_started(serial, Refusal::Host(why.clone())) {
            eprintln!("launcher: blank worker w{serial}: {why}");
            self.refill_at = Some(Instant::now() + RETRY_DELAY);
        }
        // Without a process nothing will be reaped.
        if self.workers.get(&serial).is_some_and(|entry| entry.pid.is_none()) {
            if let Some(zygote) = self.zygotes.get_mut(&zygote) {
                zygote.answered();
            }
            self.worker_gone(serial, Ended::Lost);
        }
    }

    /// Hands a worker to the platform once it is both claimed and complete.
    fn give(&mut self, serial: u64) {
        let Some(entry) = self.workers.get(&serial) else { return };
        let (Some(order), Some(pidfd), true, false) =
            (&entry.order, &entry.pidfd, entry.entered, entry.given)
        else {
            return;
        };
        if let Err(why) = self.fit(entry, order) {
            self.not_started(serial, Refusal::Host(why));
            return;
        }
        let code_dir = if self.home.is_some() { Path::new(CODE_DIR) } else { &order.code_dir };
        let started = Started {
            request: order.request,
            worker: WorkerId(serial),
            pid: entry.host_pid,
            blank: entry.was_blank,
            code_dir: code_dir.display().to_string(),
        };
        let ends = entry.platform_ends.iter().chain([pidfd]).chain(&entry.listeners);
        let descriptors: Vec<_> = ends.map(AsFd::as_fd).collect();
        self.say(&FromLauncher::Started(started), &descriptors);
        if let Some(entry) = self.workers.get_mut(&serial) {
            entry.given = true;
            entry.platform_ends.clear();
            entry.listeners.clear();
        }
    }

    /// Makes a blank worker one of this order: its limits and its code.
    fn fit(&self, entry: &Entry, order: &StartOrder) -> Result<(), String> {
        let limits =
            Limits { memory: order.memory, tasks: order.tasks, cpu: order.cpu, cpu_limit: order.cpu_limit };
        if let Some(group) = &entry.group {
            group.limit(&limits).map_err(|e| format!("setting its limits: {e}"))?;
        }
        self.fit_soft_limits(entry, order).map_err(|e| format!("setting its resource limits: {e}"))?;
        match (&self.home, &entry.pidfd) {
            (Some(home), Some(pidfd)) => home.bind_code(&order.code_dir, pidfd),
            _ => Ok(()),
        }
    }

    /// What stands in for cgroups that the host refuses. `None` where nothing has to.
    fn soft_limits(&self, zygote: u64, order: &StartOrder) -> BTreeMap<&'static str, u64> {
        let mut limits = BTreeMap::new();
        if !self.cgroups.has(Controller::Memory) {
            // What was preloaded is counted in every child, though it is there once.
            let inherited = self.zygotes.get(&zygote).map_or(0, |zygote| zygote.inherited);
            limits.insert("DATA", order.memory + inherited);
        }
        // Counted per uid, and in user mode per user namespace: right only where it is the
        // worker's own.
        let own_count = self.host.uids || self.host.mode == crate::Mode::UserNamespace;
        if !self.cgroups.has(Controller::Tasks) && own_count {
            limits.insert("NPROC", order.tasks.into());
        }
        limits
    }

    /// Limits of a process with another uid need CAP_SYS_RESOURCE, which containers rarely
    /// have: there soft limits are set at the fork, and blank workers cannot be fitted.
    fn can_fit_blank(&self) -> bool {
        let has_groups = self.cgroups.has(Controller::Memory) && self.cgroups.has(Controller::Tasks);
        has_groups || !self.host.uids
    }

    fn fit_soft_limits(&self, entry: &Entry, order: &StartOrder) -> rustix::io::Result<()> {
        if !self.can_fit_blank() {
            return Ok(());
        }
        match (self.soft_limits(entry.zygote, order), &entry.pidfd) {
            (limits, _) if limits.is_empty() => Ok(()),
            (limits, Some(pidfd)) => limit_process(pidfd, entry.host_pid, limits),
            (_, None) => Err(Errno::SRCH),
        }
    }

    /// The platform did not get it.
    pub(super) fn end_worker(&self, serial: u64) {
        if let Some(entry) = self.workers.get(&serial) {
            entry.kill();
        }
    }

    /// Nobody waits for it any more: what was ordered for it alone is ended.
    pub(super) fn abandon(&mut self, request: u64) {
        let waits =
            |e: &&mut Entry| e.order.as_ref().is_some_and(|order| order.request == request) && !e.given;
        if let Some(entry) = self.workers.values_mut().find(waits) {
            entry.abandon();
        }
    }

    /// Tells the platform, if it waits for this one, and ends what there is of it.
    pub(super) fn not_started(&mut self, serial: u64, refusal: Refusal) -> bool {
        let Some(entry) = self.workers.get_mut(&serial) else { return false };
        entry.kill();
        if entry.given {
            return false;
        }
        let Some(order) = entry.order.take() else { return false };
        // No longer blank either: nobody may claim what is being ended.
        entry.given = true;
        self.say(&FromLauncher::NotStarted { request: order.request, refusal }, &[]);
        true
    }

    /// Its first process was reaped: nothing of it runs any more.
    pub(super) fn worker_gone(&mut self, serial: u64, ended: Ended) {
        self.not_started_quietly(serial, ended);
        let Some(entry) = self.workers.remove(&serial) else { return };
        let events = entry.group.as_ref().map(Group::events).unwrap_or_default();
        let limit_hit = limit_hit(events, entry.was_too_large);
        if entry.given {
            self.say(
                &FromLauncher::Exited { worker: WorkerId(serial), exit: Exit { ended, limit_hit } },
                &[],
            );
        } else {
            self.refill_at = Some(Instant::now() + RETRY_DELAY);
        }
        self.free_uids.extend(entry.uid);
        self.lingering.extend(entry.into_group().filter(|group| !group.remove()));
    }

    fn not_started_quietly(&mut self, serial: u64, ended: Ended) {
        let waits = self.workers.get(&serial).is_some_and(|entry| entry.order.is_some() && !entry.given);
        if waits {
            self.not_started(serial, Refusal::Host(format!("the blank worker ended ({ended:?})")));
        }
    }
}

/// Which limit it was that ended or hindered a worker.
fn limit_hit(events: Events, was_too_large: bool) -> Option<LimitHit> {
    match events {
        Events { killed_for_memory: true, own_memory_full: true, .. } => Some(LimitHit::Memory),
        // The limit was one above its own.
        Events { killed_for_memory: true, .. } => Some(LimitHit::WorkerMemory),
        _ if was_too_large => Some(LimitHit::WorkerMemory),
        Events { tasks_refused, .. } => tasks_refused.then_some(LimitHit::Tasks),
    }
}

/// Sets resource limits of a process by its number, for which the kernel knows no other way. The
/// number 0, of a process that has ended already or cannot be seen from here, would mean this one.
fn limit_process(pidfd: impl AsFd, pid: u32, limits: BTreeMap<&'static str, u64>) -> rustix::io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    for (name, value) in limits {
        let resource = if name == "DATA" { Resource::Data } else { Resource::Nproc };
        prlimit(Some(pid), resource, Rlimit { current: Some(value), maximum: Some(value) })?;
    }
    // It still runs, so that the number was its own all the time.
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    match poll(&mut ended, Some(&Timespec::default()))? {
        0 => Ok(()),
        _ => Err(Errno::SRCH),
    }
}

/// Requests, answers, side channel and output: the platform's ends and the worker's.
fn make_ends() -> rustix::io::Result<(Vec<OwnedFd>, Vec<OwnedFd>)> {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (worker_requests, requests) = pipe()?;
    let (answers, worker_answers) = pipe()?;
    let (side, worker_side) = fds::message_pair()?;
    let (output, worker_output) = pipe()?;
    for end in [&requests, &answers, &side, &output] {
        rustix::io::ioctl_fionbio(end, true)?;
    }
    let ours = vec![requests, answers, side, output];
    Ok((ours, vec![worker_requests, worker_answers, worker_side, worker_output]))
}

#[cfg(test)]
mod tests {
    use rustix::process::{PidfdFlags, getrlimit, pidfd_open};

    use super::*;

    fn entry(is_fitted: bool, pidfd: Option<OwnedFd>) -> Entry {
        let order = StartOrder {
            request: 1,
            tenant: fp_core::Tenant::default(),
            template: crate::preload::TemplateKey { python: 0, preload: Vec::new() },
            network: Network::Full,
            code_dir: "/".into(),
            memory: 1 << 30,
            tasks: 8,
            cpu: 1.0,
            cpu_limit: None,
        };
        Entry {
            serial: 1,
            zygote: 1,
            part: 0,
            was_too_large: false,
            uid: None,
            network: Network::Full,
            pid: None,
            host_pid: 0,
            pidfd,
            platform_ends: Vec::new(),
            listeners: Vec::new(),
            worker_ends: Vec::new(),
            group: None,
            rlimits: BTreeMap::new(),
            entered: false,
            is_fitted,
            order: Some(order),
            was_blank: false,
            given: false,
        }
    }

    /// Lives until it is killed, at the latest by drop.
    struct Child(std::process::Child);

    impl Child {
        fn new() -> (Self, OwnedFd) {
            let mut command = std::process::Command::new("sleep");
            command.arg("600").stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            let child = Self(command.spawn().expect("a child"));
            let pid = i32::try_from(child.0.id()).ok().and_then(Pid::from_raw).expect("its number");
            (child, pidfd_open(pid, PidfdFlags::empty()).expect("its handle"))
        }
    }

    impl Drop for Child {
        fn drop(&mut self) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }

    #[test]
    fn a_worker_with_the_limits_of_an_order_is_not_given_to_another() {
        let mut plain = entry(false, None);
        plain.abandon();
        assert!(plain.is_blank(), "nothing was set for the order");
        let (mut child, pidfd) = Child::new();
        let mut fitted = entry(true, Some(pidfd));
        fitted.abandon();
        assert!(!fitted.is_blank() && !fitted.is_awaited());
        assert!(!child.0.wait().expect("it ends").success());
    }

    #[test]
    fn only_who_filled_its_own_memory_is_told_so() {
        let killed =
            |own_memory_full| Events { killed_for_memory: true, own_memory_full, tasks_refused: true };
        assert_eq!(limit_hit(killed(true), true), Some(LimitHit::Memory));
        assert_eq!(limit_hit(killed(false), false), Some(LimitHit::WorkerMemory));
        // It came to its limit once, and the kernel took caches back.
        let full = Events { own_memory_full: true, ..Events::default() };
        assert_eq!(limit_hit(full, false), None);
        assert_eq!(limit_hit(full, true), Some(LimitHit::WorkerMemory));
        assert_eq!(limit_hit(Events { tasks_refused: true, ..full }, false), Some(LimitHit::Tasks));
    }

    #[test]
    fn limits_are_set_on_the_process_that_is_meant_and_on_no_other() {
        let own = || [Resource::Data, Resource::Nproc].map(getrlimit);
        let before = own();
        let limits = || BTreeMap::from([("DATA", 1 << 31), ("NPROC", 100)]);
        let (mut child, pidfd) = Child::new();
        assert_eq!(limit_process(&pidfd, 0, limits()), Err(Errno::SRCH));
        assert_eq!(limit_process(&pidfd, child.0.id(), limits()), Ok(()));
        let set = std::fs::read_to_string(format!("/proc/{}/limits", child.0.id())).expect("it runs");
        assert!(set.contains(&(1u64 << 31).to_string()), "{set}");
        child.0.kill().expect("it ends");
        child.0.wait().expect("it has ended");
        // The number may be another's by now; this one's handle says so.
        assert_eq!(limit_process(&pidfd, std::process::id(), BTreeMap::new()), Err(Errno::SRCH));
        assert_eq!(own(), before);
    }
}
