//! The groups of tenants: what they weigh, what memory their workers take together and may take.
//!
//! A tenant's group has no process of its own, only the leaves of its workers. So the kernel divides
//! the CPU between tenants first, by their weights, and then what a tenant has between its workers:
//! thirty busy workers of one take no more from another than one of them does. All of it is done when
//! a group is made or given to a tenant, and nothing on the way of a call.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::{Cgroups, Controller, Group, Hierarchy, count, set_weight, write};

/// What version 1 shows as a limit where there is none, and anything near it.
const NO_LIMIT: u64 = 1 << 60;

/// What is left to everything but workers: a tenth, but enough for the platform with its history in
/// memory (256 MiB of ring) and the kernel, and no more than half.
const OTHERS: (u64, u64, u64) = (10, 512 << 20, 2);

impl Cgroups {
    /// Whether there is anything for tenants to have a group for.
    pub(in crate::launcher) fn divide(&self) -> bool {
        self.has(Controller::Cpu) || self.has(Controller::Memory)
    }

    /// A tenant's group in all hierarchies.
    pub(in crate::launcher) fn create_tenant(&self, name: &str) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            let dir = hierarchy.dir.join(name);
            fs::create_dir(&dir)?;
            if hierarchy.unified {
                let enable: Vec<_> = hierarchy.controllers.iter().map(|c| format!("+{}", c.name())).collect();
                write(&dir, "cgroup.subtree_control", &enable.join(" "))?;
            }
        }
        Ok(())
    }

    /// What [`create_tenant`](Self::create_tenant) made, to be removed after the leaves in it.
    pub(in crate::launcher) fn tenant(&self, name: &str) -> Group {
        let group = |it: &Hierarchy| Hierarchy { dir: it.dir.join(name), ..it.clone() };
        Group { leaves: self.hierarchies.iter().map(group).collect() }
    }

    /// What the tenant weighs against others; 1 is the default.
    pub(in crate::launcher) fn weigh_tenant(&self, name: &str, weight: f64) -> io::Result<()> {
        let Some(cpu) = self.of(Controller::Cpu) else { return Ok(()) };
        set_weight(&cpu.dir.join(name), cpu.unified, weight)
    }

    /// How much memory all workers together may take: the kernel ends one of theirs before the host is
    /// out of memory, and never the platform. None where no group limits memory.
    pub(in crate::launcher) fn bound_memory(&self, wanted: Option<u64>) -> Option<u64> {
        let memory = self.of(Controller::Memory)?;
        let spare = memory_to_spare(memory);
        let budget = wanted.map_or(spare, |wanted| wanted.min(spare));
        match limit_memory(&memory.dir, memory.unified, Some(budget)) {
            Ok(()) => Some(budget),
            Err(error) => {
                eprintln!("launcher: the memory of all workers cannot be limited: {error}");
                None
            }
        }
    }

    /// The tenant's workers may take so much together: to be above what they hold.
    pub(in crate::launcher) fn cap_memory(&self, name: &str, cap: Option<u64>) -> io::Result<()> {
        let Some(memory) = self.of(Controller::Memory) else { return Ok(()) };
        limit_memory(&memory.dir.join(name), memory.unified, cap)
    }

    /// What all workers, or with a name those of a tenant, take now: without the part of the page cache
    /// that the kernel takes back first.
    pub(in crate::launcher) fn memory_used(&self, name: Option<&str>) -> u64 {
        let Some(memory) = self.of(Controller::Memory) else { return 0 };
        let dir = name.map_or_else(|| memory.dir.clone(), |name| memory.dir.join(name));
        let cache = if memory.unified { "inactive_file" } else { "total_inactive_file" };
        memory_held(&dir, memory.unified).saturating_sub(count(&dir.join("memory.stat"), cache))
    }

    /// The same of a tenant with all of the page cache: what its limit is compared with.
    pub(in crate::launcher) fn memory_held(&self, name: &str) -> u64 {
        self.of(Controller::Memory).map_or(0, |memory| memory_held(&memory.dir.join(name), memory.unified))
    }

    fn of(&self, controller: Controller) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.controllers.contains(&controller))
    }
}

/// Of a group with all that is in it, in bytes.
pub(super) fn memory_held(dir: &Path, unified: bool) -> u64 {
    number(&dir.join(if unified { "memory.current" } else { "memory.usage_in_bytes" })).unwrap_or(0)
}

/// Below what is held it would be the writer who makes room. Of version 2, from Linux 6.16 on, it is
/// whoever next wants some.
fn limit_memory(dir: &Path, unified: bool, cap: Option<u64>) -> io::Result<()> {
    let (file, none) = if unified { ("memory.max", "max") } else { ("memory.limit_in_bytes", "-1") };
    let cap = cap.map_or_else(|| none.to_owned(), |cap| cap.to_string());
    let mut opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(dir.join(file))?;
    opened.write_all(cap.as_bytes())
}

/// What the host, or the container that we are in, can give to workers.
fn memory_to_spare(memory: &Hierarchy) -> u64 {
    let total = count_kib("/proc/meminfo", "MemTotal:").unwrap_or(NO_LIMIT);
    let file = if memory.unified { "memory.max" } else { "memory.limit_in_bytes" };
    let limits = memory.dir.ancestors().skip(1).filter_map(|dir| number(&dir.join(file)));
    let total = limits.fold(total, u64::min);
    let (one_in, least, most_one_in) = OTHERS;
    total - (total / one_in).max(least).min(total / most_one_in)
}

pub(super) fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok().filter(|number| *number < NO_LIMIT)
}

/// A line such as `MemTotal: 16 kB`, in bytes.
fn count_kib(file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(PathBuf::from(file)).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
