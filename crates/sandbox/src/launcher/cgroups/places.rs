//! Where control groups of ours can be: the hierarchies that are mounted, the launcher's own place in
//! each, and the directory that is made there for everything of ours.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::{Controller, Limits, PREFIX, set_for_good, set_limit, write};

/// A mounted hierarchy and where in it the launcher is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    mount: PathBuf,
    own: PathBuf,
    pub(super) unified: bool,
    pub(super) controllers: Vec<Controller>,
}

/// Hierarchies of this process from `mountinfo` and `/proc/self/cgroup`; version 1 first,
/// because a controller that is mounted there is not offered by version 2.
pub(super) fn places(mountinfo: &str, own_groups: &str) -> Vec<Place> {
    let mut places: Vec<_> = mountinfo.lines().filter_map(|line| place(line, own_groups)).collect();
    places.sort_by_key(|place| place.unified);
    places
}

fn place(mount_line: &str, own_groups: &str) -> Option<Place> {
    let (mount, filesystem) = mount_line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, PathBuf::from(fields.next()?));
    let mut filesystem = filesystem.split(' ');
    let (kind, options) = (filesystem.next()?, filesystem.nth(1)?);
    let unified = kind == "cgroup2";
    let controllers: Vec<_> = match kind {
        "cgroup2" => offered(&point),
        "cgroup" => {
            let is_option = |c: &Controller| options.split(',').any(|option| option == c.name());
            Controller::ALL.into_iter().filter(is_option).collect()
        }
        _ => return None,
    };
    let first = controllers.first()?;
    let own = own_groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        let is_it = if unified { names.is_empty() } else { names.split(',').any(|n| n == first.name()) };
        is_it.then_some(path)
    })?;
    // In a container the mount may show a part of the tree only.
    let below = Path::new(own).strip_prefix(root).ok()?;
    Some(Place { own: point.join(below), mount: point, unified, controllers })
}

fn offered(mount: &Path) -> Vec<Controller> {
    let text = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    Controller::ALL.into_iter().filter(|c| text.split_whitespace().any(|name| name == c.name())).collect()
}

/// Our group in a hierarchy: below the launcher's own where possible, else at the top.
pub(super) fn make_group(place: &Place, wanted: &[Controller], tag: &str) -> Result<PathBuf, String> {
    let mut why = String::new();
    for parent in [&place.own, &place.mount] {
        let dir = parent.join(format!("{PREFIX}{tag}"));
        match try_group(place, parent, &dir, wanted) {
            Ok(()) => return Ok(dir),
            Err(error) => {
                fs::remove_dir(&dir).ok();
                why = format!("{}: {error}", dir.display());
            }
        }
    }
    Err(why)
}

fn try_group(place: &Place, parent: &Path, dir: &Path, wanted: &[Controller]) -> io::Result<()> {
    let enable: Vec<_> = wanted.iter().map(|c| format!("+{}", c.name())).collect();
    if place.unified {
        // Refused with EBUSY where processes sit in the parent itself; the caller goes higher.
        write(parent, "cgroup.subtree_control", &enable.join(" "))?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if place.unified {
        write(dir, "cgroup.subtree_control", &enable.join(" "))?;
    } else if wanted.contains(&Controller::Cpu) {
        // One task's weight per core, so that all workers together weigh on each core as much
        // as one thread of the platform does, however many they are.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        write(dir, "cpu.shares", &(1024 * cores).to_string())?;
    }
    // The right to make leaves and to write their limits is what counts.
    let probe = dir.join("probe");
    fs::create_dir(&probe)?;
    let limits = Limits { memory: 64 << 20, tasks: 8, cpu: 1.0, cpu_limit: None };
    let set = |c: &Controller| {
        set_for_good(&probe, place.unified, *c)?;
        set_limit(&probe, place.unified, *c, &limits)
    };
    let limited = wanted.iter().try_for_each(set);
    let joinable = OpenOptions::new().write(true).open(probe.join("cgroup.procs")).map(drop::<File>);
    fs::remove_dir(&probe)?;
    limited.and(joinable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_hierarchies_are_found_with_the_own_group() {
        let mountinfo = "30 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
31 25 0:28 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 25 0:29 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
33 25 0:30 / /proc rw - proc proc rw";
        let own = "3:memory:/docker/abc/inner\n2:cpu,cpuacct:/\n1:devices:/\n0::/";
        let found = places(mountinfo, own);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].controllers, [Controller::Cpu]);
        assert_eq!(found[0].own, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found[1].own, Path::new("/sys/fs/cgroup/memory/inner"));
    }
}
