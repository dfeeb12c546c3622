//! What this host lets us enforce: every mechanism probed, with the reason and the remedy
//! where it is missing. `doctor` and `GET /host` print it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::python::Python;

/// How much of the sandbox the host allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Namespaces made with real privileges, a uid per worker.
    Root,
    /// Namespaces inside a user namespace; one uid.
    UserNamespace,
    /// No namespaces: limits, no_new_privs and seccomp only.
    Reduced,
}

/// What to do on a host that does not allow everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// The best that there is; the report says what is missing.
    #[default]
    Best,
    /// Not to start below the floor.
    Strict,
}

/// One mechanism of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mechanism {
    /// Its name: `pid namespace`, `memory limit`, …
    pub mechanism: String,
    /// It holds for every worker.
    pub enforced: bool,
    /// Strict isolation needs it.
    pub floor: bool,
    /// Why it is not, or only in part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// What an operator can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how_to_get_it: Option<String>,
}

/// What is and is not enforced on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// The isolation mode in use.
    pub mode: Mode,
    /// `uname -r`.
    pub kernel: String,
    /// Whether everything that strict isolation needs is enforced.
    pub meets_floor: bool,
    /// Every mechanism.
    pub mechanisms: Vec<Mechanism>,
    /// The Pythons that functions can ask for, newest first.
    pub pythons: Vec<Python>,
}

impl HostReport {
    /// Before the launcher has looked.
    pub(crate) fn unknown() -> Self {
        Self {
            mode: Mode::Reduced,
            kernel: String::new(),
            meets_floor: false,
            mechanisms: Vec::new(),
            pythons: Vec::new(),
        }
    }

    /// Whether a mechanism holds; false for one that is not listed.
    pub fn enforces(&self, mechanism: &str) -> bool {
        self.mechanisms.iter().any(|entry| entry.mechanism == mechanism && entry.enforced)
    }

    /// Whether workers of people who do not trust each other can be kept apart here: everything of
    /// the floor is enforced. The error names what is not, why, and how to get it.
    pub fn meets_the_floor(&self) -> Result<(), BelowFloor> {
        let missing = self.mechanisms.iter().filter(|entry| entry.floor && !entry.enforced);
        let missing: Vec<_> = missing.cloned().collect();
        // Without a look at the host nothing is known to hold.
        if missing.is_empty() && !self.mechanisms.is_empty() { Ok(()) } else { Err(BelowFloor { missing }) }
    }
}

/// What a host lacks for strict isolation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct BelowFloor {
    /// The mechanisms that are not enforced.
    pub missing: Vec<Mechanism>,
}

impl fmt::Display for BelowFloor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this host does not keep workers apart as strict isolation needs it; missing:")?;
        for mechanism in &self.missing {
            write!(f, "\n  {}", mechanism.mechanism)?;
            let [why, remedy] = [&mechanism.why_not, &mechanism.how_to_get_it].map(Option::as_deref);
            write!(f, ": {}", why.unwrap_or("not enforced here"))?;
            if let Some(remedy) = remedy.filter(|remedy| !remedy.is_empty()) {
                write!(f, "\n    to get it: {remedy}")?;
            }
        }
        Ok(())
    }
}

/// One of the sizes in `/proc/PID/status`, in bytes; 0 when the process is gone.
pub(crate) fn memory_of(pid: i32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|size| size.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(mechanisms: &[(&str, bool, bool)]) -> HostReport {
        let each = |(name, enforced, floor): &(&str, bool, bool)| Mechanism {
            mechanism: (*name).into(),
            enforced: *enforced,
            floor: *floor,
            why_not: (!enforced).then(|| "it is old".into()),
            how_to_get_it: (!enforced).then(|| "buy a new one".into()),
        };
        HostReport { mechanisms: mechanisms.iter().map(each).collect(), ..HostReport::unknown() }
    }

    #[test]
    fn the_floor_is_what_is_marked_so_and_what_is_missing_is_named() {
        report(&[("walls", true, true), ("carpet", false, false)])
            .meets_the_floor()
            .expect("all that counts");
        let below =
            report(&[("walls", true, true), ("door", false, true)]).meets_the_floor().expect_err("no door");
        let text = below.to_string();
        assert!(text.contains("\n  door: it is old\n    to get it: buy a new one"), "{text}");
        assert!(!text.contains("walls"), "{text}");
    }

    #[test]
    fn an_unknown_host_is_below_the_floor() {
        assert!(HostReport::unknown().meets_the_floor().is_err());
    }
}
