//! Control groups: where ours are, one leaf per worker, what its limits saw.
//!
//! Ours, in each hierarchy: `functionsplatform-…` for everything, below it one group for each
//! tenant ([`tenants`]), in which its workers' leaves stand, and the leaves of zygotes.
//!
//! Version 1, version 2 and hosts with both: each controller is taken where it is mounted. In version
//! 1 a worker joins by writing `0` into the `tasks` that it inherits; in version 2 it is born in its
//! group, whose directory its zygote has for that. Any other way (a pid written from outside, and in
//! version 2 also one's own) waits 5–11 ms for a grace period of the kernel, so only zygotes
//! themselves take it, and workers where the kernel or the C library know no such birth, or whose
//! zygote preloads: libraries must hear of a fork from the C library. Our groups stand below
//! the launcher's own group where that is allowed, so that a container's limits hold; their
//! places are recorded in the run directory, so that the next launcher sweeps what a killed one
//! left.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

mod places;
mod tenants;

use places::{make_group, places};

/// How long a start waits for what an earlier life left to go: it goes on in the background.
const SWEEP_LIMIT: Duration = Duration::from_secs(2);

/// Name of the record in the run directory.
const RECORD: &str = "cgroups";

/// The controllers that we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controller {
    Memory,
    Tasks,
    Cpu,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Tasks, Self::Cpu];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Tasks => "pids",
            Self::Cpu => "cpu",
        }
    }
}

/// Limits of one worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub memory: u64,
    pub tasks: u32,
    pub cpu: f64,
    pub cpu_limit: Option<f64>,
}

/// A group in one hierarchy: that of all of ours, of a tenant, or a worker's leaf.
#[derive(Debug, Clone)]
struct Hierarchy {
    dir: PathBuf,
    unified: bool,
    controllers: Vec<Controller>,
}

/// Our groups in all hierarchies.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    /// Why a controller is missing.
    pub missing: Vec<(Controller, String)>,
}

/// A worker's leaves.
#[derive(Debug)]
pub(super) struct Group {
    leaves: Vec<Hierarchy>,
}

/// What the limits saw in a worker's life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Events {
    /// The kernel killed one of its processes for memory.
    pub killed_for_memory: bool,
    /// It came to its own limit.
    pub own_memory_full: bool,
    /// A fork or a thread was refused.
    pub tasks_refused: bool,
}

impl Cgroups {
    /// Sweeps what an earlier launcher recorded, then makes our groups. Of what it left, the second
    /// half of the answer could not be removed yet.
    pub(super) fn prepare(run_dir: &Path, tag: &str) -> (Self, Vec<Group>) {
        let left = sweep_recorded(run_dir);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut cgroups = Self::default();
        for place in places(&mounts, &own) {
            let wanted: Vec<_> = place.controllers.iter().copied().filter(|c| !cgroups.has(*c)).collect();
            if wanted.is_empty() {
                continue;
            }
            match make_group(&place, &wanted, tag) {
                Ok(dir) => {
                    cgroups.hierarchies.push(Hierarchy { dir, unified: place.unified, controllers: wanted });
                }
                Err(why) => cgroups.missing.extend(wanted.into_iter().map(|c| (c, why.clone()))),
            }
        }
        for controller in Controller::ALL {
            if !cgroups.has(controller) && !cgroups.missing.iter().any(|(c, _)| *c == controller) {
                let why = format!("no cgroup hierarchy offers the {} controller", controller.name());
                cgroups.missing.push((controller, why));
            }
        }
        cgroups.record(run_dir, &left);
        (cgroups, left)
    }

    pub(super) fn has(&self, controller: Controller) -> bool {
        self.hierarchies.iter().any(|hierarchy| hierarchy.controllers.contains(&controller))
    }

    /// Where ours are, and where something was left that is still to be removed.
    fn record(&self, run_dir: &Path, left: &[Group]) {
        let leaves = left.iter().flat_map(|group| &group.leaves);
        let parents = leaves.filter_map(|leaf| leaf.dir.ancestors().find(|dir| has_our_name(dir)));
        let ours = self.hierarchies.iter().map(|hierarchy| hierarchy.dir.as_path());
        let lines: BTreeSet<_> = ours.chain(parents).map(|dir| dir.display().to_string()).collect();
        let lines: Vec<_> = lines.into_iter().collect();
        if let Err(error) = fs::write(run_dir.join(RECORD), lines.join("\n")) {
            eprintln!("launcher: the cgroups cannot be recorded: {error}");
        }
    }

    /// Whether one of them is of version 2; it is the last, then.
    pub(super) fn is_unified(&self) -> bool {
        self.hierarchies.iter().any(|hierarchy| hierarchy.unified)
    }

    /// A leaf for one worker in its tenant's group, with the descriptors that it joins by, or of
    /// version 2 is born by.
    pub(super) fn create(&self, tenant: &str, name: &str) -> io::Result<(Group, Vec<OwnedFd>)> {
        Self::create_in(self.hierarchies.iter(), &format!("{tenant}/{name}"), birthplace)
    }

    /// A leaf for a zygote, for its memory and tasks. Its CPU stays the launcher's where that is
    /// a hierarchy apart: forks must not wait behind the workers that they are for.
    pub(super) fn create_for_zygote(&self, name: &str) -> io::Result<(Group, Vec<OwnedFd>)> {
        let limits = |h: &&Hierarchy| h.controllers.iter().any(|controller| *controller != Controller::Cpu);
        Self::create_in(self.hierarchies.iter().filter(limits), name, join_file)
    }

    fn create_in<'a>(
        hierarchies: impl Iterator<Item = &'a Hierarchy>,
        name: &str,
        join: fn(&Path, bool) -> io::Result<File>,
    ) -> io::Result<(Group, Vec<OwnedFd>)> {
        let mut group = Group { leaves: Vec::new() };
        let joins: io::Result<_> =
            hierarchies.map(|hierarchy| group.add_leaf(hierarchy, name, join)).collect();
        match joins {
            Ok(joins) => Ok((group, joins)),
            Err(error) => {
                // Nobody would look for those that were made already.
                group.remove();
                Err(error)
            }
        }
    }

    /// Removes our groups and those of tenants; the leaves must be gone.
    pub(super) fn remove(&self) -> bool {
        self.hierarchies.iter().all(|hierarchy| {
            directories_in(&hierarchy.dir).iter().all(|tenant| is_gone(fs::remove_dir(tenant)))
                && is_gone(fs::remove_dir(&hierarchy.dir))
        })
    }
}

impl Group {
    fn add_leaf(
        &mut self,
        hierarchy: &Hierarchy,
        name: &str,
        join: fn(&Path, bool) -> io::Result<File>,
    ) -> io::Result<OwnedFd> {
        let leaf = hierarchy.dir.join(name);
        fs::create_dir(&leaf)?;
        self.leaves.push(Hierarchy { dir: leaf.clone(), ..hierarchy.clone() });
        hierarchy.controllers.iter().try_for_each(|one| set_for_good(&leaf, hierarchy.unified, *one))?;
        join(&leaf, hierarchy.unified).map(OwnedFd::from)
    }

    /// What an earlier launcher left, of which nothing is known but the place.
    fn to_sweep(dir: PathBuf) -> Self {
        Self { leaves: vec![Hierarchy { dir, unified: false, controllers: Vec::new() }] }
    }

    pub(super) fn limit(&self, limits: &Limits) -> io::Result<()> {
        for Hierarchy { dir, unified, controllers } in &self.leaves {
            for controller in controllers {
                set_limit(dir, *unified, *controller, limits)?;
            }
        }
        Ok(())
    }

    pub(super) fn events(&self) -> Events {
        let mut events = Events::default();
        for Hierarchy { dir, unified, controllers } in &self.leaves {
            if controllers.contains(&Controller::Memory) {
                let file = if *unified { "memory.events" } else { "memory.oom_control" };
                events.killed_for_memory |= count(&dir.join(file), "oom_kill") > 0;
                events.own_memory_full |= is_memory_full(dir, *unified);
            }
            if controllers.contains(&Controller::Tasks) {
                events.tasks_refused |= count(&dir.join("pids.events"), "max") > 0;
            }
        }
        events
    }

    /// Memory that it takes now, in bytes; 0 where no group counts it.
    pub(super) fn memory_used(&self) -> u64 {
        let of_memory = self.leaves.iter().find(|leaf| leaf.controllers.contains(&Controller::Memory));
        of_memory.map_or(0, |leaf| tenants::memory_held(&leaf.dir, leaf.unified))
    }

    /// Removes the leaves; false when something still runs in one. It is killed then: that
    /// happens only where no pid namespace has ended it already.
    pub(super) fn remove(&self) -> bool {
        self.leaves.iter().fold(true, |all, leaf| {
            let gone = is_gone(fs::remove_dir(&leaf.dir));
            if !gone {
                kill_all_in(&leaf.dir);
            }
            all && gone
        })
    }
}

fn is_gone(result: io::Result<()>) -> bool {
    result.is_ok() || result.is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}

fn write(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    // Not `fs::write`: control files must not be created or truncated.
    let mut opened = OpenOptions::new().write(true).open(dir.join(file))?;
    opened.write_all(value.as_bytes())
}

/// What takes a `0` of whoever joins.
fn join_file(leaf: &Path, unified: bool) -> io::Result<File> {
    OpenOptions::new().write(true).open(leaf.join(if unified { "cgroup.procs" } else { "tasks" }))
}

/// What a worker joins by, or of version 2 is born by.
fn birthplace(leaf: &Path, unified: bool) -> io::Result<File> {
    match unified {
        true => OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(leaf),
        false => join_file(leaf, unified),
    }
}

/// What is the same whatever the limits, so that it is not on the way when they are set.
fn set_for_good(leaf: &Path, unified: bool, controller: Controller) -> io::Result<()> {
    if !unified || controller != Controller::Memory {
        return Ok(());
    }
    // One victim is not enough: a worker whose child was killed is no worker.
    write(leaf, "memory.oom.group", "1")?;
    ignore_missing(write(leaf, "memory.swap.max", "0"))
}

fn set_limit(leaf: &Path, unified: bool, controller: Controller, limits: &Limits) -> io::Result<()> {
    match (controller, unified) {
        (Controller::Memory, true) => write(leaf, "memory.max", &limits.memory.to_string()),
        (Controller::Memory, false) => {
            let memory = limits.memory.to_string();
            write(leaf, "memory.limit_in_bytes", &memory)?;
            // Of their own in version 1, and else taken from what all connections of the host share.
            ignore_missing(write(leaf, "memory.kmem.tcp.limit_in_bytes", &memory))?;
            // Without accounting of swap: as little of it as there is.
            match write(leaf, "memory.memsw.limit_in_bytes", &memory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    ignore_missing(write(leaf, "memory.swappiness", "0"))
                }
                set => set,
            }
        }
        (Controller::Tasks, _) => write(leaf, "pids.max", &limits.tasks.to_string()),
        (Controller::Cpu, true) => {
            set_weight(leaf, unified, limits.cpu)?;
            let quota = limits.cpu_limit.map(|cores| format!("{:.0} 100000", cores * 100_000.0));
            quota.map_or(Ok(()), |quota| write(leaf, "cpu.max", &quota))
        }
        (Controller::Cpu, false) => {
            set_weight(leaf, unified, limits.cpu)?;
            let quota = limits.cpu_limit.map(|cores| format!("{:.0}", cores * 100_000.0));
            quota.map_or(Ok(()), |quota| write(leaf, "cpu.cfs_quota_us", &quota))
        }
    }
}

/// Of a leaf among its tenant's, or of a tenant's group among the others: 1 is what groups begin with.
fn set_weight(group: &Path, unified: bool, weight: f64) -> io::Result<()> {
    match unified {
        true => write(group, "cpu.weight", &format!("{:.0}", (weight * 100.0).clamp(1.0, 10_000.0))),
        false => write(group, "cpu.shares", &format!("{:.0}", (weight * 1024.0).clamp(2.0, 262_144.0))),
    }
}

/// Swap accounting is a kernel option; a host without swap control has nothing to turn off.
fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The number after `key` in a flat keyed file; 0 when it is not there.
fn count(file: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// Whether a leaf's own limit was met, and not only one above it, which the kernel asks next. Version 1
/// does not say so (its `failcnt` stays 0 in newer kernels), but how near it came.
fn is_memory_full(leaf: &Path, unified: bool) -> bool {
    /// What the kernel takes at once, if it can.
    const BATCH: u64 = 64 * 4096;
    if unified {
        return count(&leaf.join("memory.events"), "oom") > 0;
    }
    ["memory", "memory.memsw"].into_iter().any(|kind| {
        let number = |file: &str| tenants::number(&leaf.join(format!("{kind}.{file}")));
        let (peak, limit) = (number("max_usage_in_bytes"), number("limit_in_bytes"));
        peak.zip(limit).is_some_and(|(peak, limit)| peak.saturating_add(BATCH) >= limit)
    })
}

fn kill_all_in(leaf: &Path) {
    // All at once, and nobody else. Version 1 and kernels before 5.14 do not have it.
    if write(leaf, "cgroup.kill", "1").is_ok() {
        return;
    }
    for pid in pids_in(leaf) {
        // It may end in between, and its number become that of a stranger: who still has it after
        // we have a handle is in the group, or the handle is of one that is gone.
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if pids_in(leaf).contains(&pid) {
            pidfd_send_signal(handle, Signal::KILL).ok();
        }
    }
}

fn pids_in(leaf: &Path) -> Vec<Pid> {
    let pids = fs::read_to_string(leaf.join("cgroup.procs")).unwrap_or_default();
    pids.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw).collect()
}

/// Removes what is recorded; what cannot be removed soon is handed back, to be tried again while the
/// platform works.
fn sweep_recorded(run_dir: &Path) -> Vec<Group> {
    let record = fs::read_to_string(run_dir.join(RECORD)).unwrap_or_default();
    let dirs: Vec<_> = record.lines().map(PathBuf::from).filter(|dir| is_ours(dir)).collect();
    // Those of tenants after the leaves in them.
    let groups = dirs.iter().flat_map(|dir| directories_in(dir));
    let groups = groups.flat_map(|group| directories_in(&group).into_iter().chain([group]));
    let mut left: Vec<_> = groups.map(Group::to_sweep).collect();
    let deadline = Instant::now() + SWEEP_LIMIT;
    loop {
        // All are killed in one pass, and removed in the next: nobody is waited for alone.
        left.retain(|group| !group.remove());
        if left.is_empty() || Instant::now() >= deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    for dir in &dirs {
        // Ours again in a moment; refused while something is in it.
        fs::remove_dir(dir).ok();
    }
    if !left.is_empty() {
        eprintln!("launcher: {} groups of an earlier life cannot be removed yet", left.len());
    }
    left
}

/// Removes the files of a run directory but the record of its groups.
pub(super) fn remove_all_but_record(run_dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(run_dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false if entry.file_name() == RECORD => {}
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// A group of ours, wherever its hierarchy is mounted; never a directory of another kind.
fn is_ours(dir: &Path) -> bool {
    /// Of linux/magic.h: version 1 and 2.
    const CGROUP_MAGIC: [i64; 2] = [0x0027_e0eb, 0x6367_7270];
    has_our_name(dir) && rustix::fs::statfs(dir).is_ok_and(|found| CGROUP_MAGIC.contains(&found.f_type))
}

fn has_our_name(dir: &Path) -> bool {
    dir.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX))
}

fn directories_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// First part of our groups' names; the rest is particular to the run directory.
const PREFIX: &str = "functionsplatform-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_cannot_be_made_whole_leaves_nothing() {
        let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("another"));
        let hierarchy =
            |dir: &Path, unified| Hierarchy { dir: dir.to_owned(), unified, controllers: Vec::new() };
        // Of version 2 the directory itself is enough; in that of version 1 there is no file to join by.
        let both = [hierarchy(one.path(), true), hierarchy(two.path(), false)];
        Cgroups::create_in(both[..1].iter(), "whole", birthplace).expect("a group");
        Cgroups::create_in(both.iter(), "half", birthplace).expect_err("no `tasks`");
        assert!(one.path().join("whole").exists() && !one.path().join("half").exists());
        assert!(!two.path().join("half").exists());
    }

    #[test]
    fn only_our_own_groups_are_swept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let no_group = dir.path().join("functionsplatform-1");
        fs::create_dir(&no_group).expect("a directory");
        assert!(!is_ours(&no_group), "a directory with the name of a group");
        // Another's group, wherever hierarchies are mounted here.
        let groups = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        assert!(!groups.map(|group| group.path()).any(|group| is_ours(&group)));
    }

    #[test]
    fn who_is_in_a_group_is_killed_and_nobody_else() {
        let sleeper = || {
            let mut command = std::process::Command::new("sleep");
            command.arg("60").stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            command.spawn().expect("a child")
        };
        let dir = tempfile::tempdir().expect("a temporary directory");
        // As a group of version 1 shows itself: a number a line, of whom some have ended.
        let (mut inside, mut outside, mut ended) = (sleeper(), sleeper(), sleeper());
        ended.kill().expect("it ends");
        ended.wait().expect("it has ended");
        let procs = format!("{}\n0\n{}\n", ended.id(), inside.id());
        fs::write(dir.path().join("cgroup.procs"), procs).expect("it writes");
        kill_all_in(dir.path());
        assert!(!inside.wait().expect("it ends").success());
        assert!(outside.try_wait().expect("a child").is_none());
        // As one of version 2: the kernel does it.
        let (kill, procs) = (dir.path().join("cgroup.kill"), dir.path().join("cgroup.procs"));
        fs::write(&kill, "").expect("it writes");
        fs::write(&procs, outside.id().to_string()).expect("it writes");
        kill_all_in(dir.path());
        assert_eq!(fs::read_to_string(&kill).expect("it reads"), "1");
        assert!(outside.try_wait().expect("a child").is_none());
        outside.kill().expect("it ends");
        outside.wait().expect("it has ended");
    }

    #[test]
    fn a_limit_of_its_own_is_told_from_one_above() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let is_full = |unified: bool, files: &[(&str, &str)]| {
            files.iter().for_each(|(file, text)| fs::write(dir.path().join(file), text).expect("it writes"));
            is_memory_full(dir.path(), unified)
        };
        assert!(!is_full(true, &[("memory.events", "low 0\nmax 9\noom 0\noom_kill 1\n")]));
        assert!(is_full(true, &[("memory.events", "low 0\nmax 9\noom 1\noom_kill 1\n")]));
        let of_1 = |peak| [("memory.limit_in_bytes", "67108864\n"), ("memory.max_usage_in_bytes", peak)];
        assert!(!is_full(false, &of_1("33554432\n")));
        assert!(is_full(false, &of_1("67100672\n")));
    }

    #[test]
    fn a_keyed_count_is_read_by_its_whole_key() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("memory.oom_control");
        fs::write(&file, "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n").expect("it writes");
        assert_eq!(count(&file, "oom_kill"), 3);
        assert_eq!(count(&file, "max"), 0);
    }
}
