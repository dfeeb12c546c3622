//! What zygotes import before they fork: what an operator allows, which template a version needs,
//! and why one cannot be had.
//!
//! A preloaded module runs in a process that holds the privilege to build sandboxes. It is
//! therefore taken from the operator's places alone: the layers of the platform's configuration
//! and the site-packages of the chosen Python, never from a function's own code.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use fp_core::settings::Network;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Memory of a zygote that preloads, where the operator says nothing: an order of magnitude above
/// what the usual suspects take together (requests, boto3, numpy, pandas: about 100 MiB).
const DEFAULT_MEMORY: u64 = 1 << 30;

/// Modules in one list, far above any real one: keeps what the launcher is told short.
const MAX_MODULES: usize = 64;
/// Bytes of one list, for the same reason: as many as there may be fit into one message, each
/// said once.
const MAX_BYTES: usize = 4096;

/// Different templates with preloads at once. Each keeps its imports in memory and a few blank
/// workers; with the typical 60 MiB of imports this many are 1 GiB.
const MAX_PRELOADING: usize = 16;

/// Which modules functions may name in `preload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreloadPolicy {
    /// Whatever the operator has installed. For named tenants, whom nobody has to trust, the server
    /// takes it for [`None`](Self::None).
    Any,
    /// Nothing.
    None,
    /// These modules and what is inside them.
    Only(Vec<String>),
}

impl PreloadPolicy {
    /// Whether a function may name this module.
    pub fn allows(&self, module: &str) -> bool {
        let is_in = |listed: &String| {
            module.strip_prefix(listed.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        match self {
            Self::Any => true,
            Self::None => false,
            Self::Only(modules) => modules.iter().any(is_in),
        }
    }
}

impl FromStr for PreloadPolicy {
    type Err = Infallible;

    /// `any`, `none`, or modules separated by commas.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let modules = || text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned);
        Ok(match text.trim() {
            "any" => Self::Any,
            "none" | "" => Self::None,
            _ => Self::Only(modules().collect()),
        })
    }
}

/// What the operator says about preloading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreloadConfig {
    /// Which modules functions may name.
    pub allowed: PreloadPolicy,
    /// Directories in which modules are looked up, before the Python's site-packages.
    pub layers: Vec<PathBuf>,
    /// Memory of one zygote that preloads, in bytes.
    pub memory: u64,
}

impl Default for PreloadConfig {
    fn default() -> Self {
        Self { allowed: PreloadPolicy::Any, layers: Vec::new(), memory: DEFAULT_MEMORY }
    }
}

/// Why a module was not preloaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreloadFault {
    /// Which one.
    pub module: String,
    /// What happened, and what to do.
    pub why: String,
    /// The traceback's last lines, where there is one.
    pub traceback: String,
}

impl fmt::Display for PreloadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "module {:?} cannot be preloaded: {}", self.module, self.why)
    }
}

/// What a zygote is a template of: a Python and what it imports. Equal ones share a zygote.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct TemplateKey {
    /// Index into the Pythons that workers can use.
    pub python: usize,
    /// Sorted, each once.
    pub preload: Vec<String>,
}

impl TemplateKey {
    /// The error is a sentence about a list that is too long.
    pub(crate) fn new(python: usize, preload: &[String]) -> Result<Self, PreloadFault> {
        let mut preload = preload.to_vec();
        preload.sort_unstable();
        preload.dedup();
        let bytes: usize = preload.iter().map(String::len).sum();
        let too_long = preload.len() > MAX_MODULES || bytes > MAX_BYTES;
        match preload.last() {
            Some(last) if too_long => Err(PreloadFault {
                module: last.clone(),
                why: format!(
                    "the list has {} modules in {bytes} bytes, the limits are {MAX_MODULES} and {MAX_BYTES}; \
                     name packages and leave out what they import themselves",
                    preload.len()
                ),
                traceback: String::new(),
            }),
            _ => Ok(Self { python, preload }),
        }
    }
}

/// What the workers of a version are made from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Want {
    /// Which zygote forks them.
    pub template: TemplateKey,
    /// What network they have from their birth.
    pub network: Network,
}

/// How many live versions want each of them.
pub(crate) type Wanted = BTreeMap<Want, usize>;

/// A template with all the networks that it is wanted with: what the launcher is told. Its list is said
/// once, because with each network it would not fit into a message.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Need {
    pub template: TemplateKey,
    pub networks: BTreeSet<Network>,
}

impl Need {
    pub(crate) fn all(wanted: &Wanted) -> Vec<Self> {
        let mut all = Vec::<Self>::new();
        // In the order of their templates.
        for want in wanted.keys() {
            match all.last_mut() {
                Some(last) if last.template == want.template => {
                    last.networks.insert(want.network);
                }
                _ => all.push(Self { template: want.template.clone(), networks: [want.network].into() }),
            }
        }
        all
    }
}

/// Keeps what a version's workers are made from at hand: one for each live version that preloads or
/// whose network is not the host's. A zygote with its preloaded modules is alive, restarted when it
/// dies, and ends when the last of its like is dropped; blank workers in such networks likewise.
#[derive(Debug)]
pub struct Template {
    pub(crate) want: Want,
    wanted: Arc<watch::Sender<Wanted>>,
}

impl Template {
    /// One more of these, unless there are too many different lists.
    pub(crate) fn new(want: Want, wanted: &Arc<watch::Sender<Wanted>>) -> Result<Self, PreloadFault> {
        let key = &want.template;
        let mut is_full = false;
        wanted.send_if_modified(|wanted| {
            is_full = !key.preload.is_empty() && is_full_for(wanted, key);
            if is_full {
                return false;
            }
            let count = wanted.entry(want.clone()).or_default();
            *count += 1;
            *count == 1
        });
        if is_full {
            return Err(PreloadFault {
                module: key.preload.first().cloned().unwrap_or_default(),
                why: format!(
                    "functions name {MAX_PRELOADING} different lists already, which is the most; use one of them"
                ),
                traceback: String::new(),
            });
        }
        Ok(Self { want, wanted: wanted.clone() })
    }
}

/// There are as many lists of modules as there may be, and this is not one of them.
fn is_full_for(wanted: &Wanted, key: &TemplateKey) -> bool {
    let preloading = wanted.keys().map(|want| &want.template).filter(|template| !template.preload.is_empty());
    let different: BTreeSet<_> = preloading.collect();
    different.len() >= MAX_PRELOADING && !different.contains(key)
}

impl Drop for Template {
    fn drop(&mut self) {
        self.wanted.send_if_modified(|wanted| {
            let count = wanted.entry(self.want.clone()).or_default();
            *count = count.saturating_sub(1);
            let is_last = *count == 0;
            if is_last {
                wanted.remove(&self.want);
            }
            is_last
        });
    }
}

/// One zygote, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZygoteReport {
    /// Process id on the host.
    pub pid: i32,
    /// Its Python, `3.11.7`.
    pub python: String,
    /// What it has imported for its workers.
    pub preload: Vec<String>,
    /// Where it is in its life.
    pub state: ZygoteState,
    /// From its spawn until it could fork, in milliseconds; none while it starts.
    pub start_ms: Option<u64>,
    /// Resident memory, in bytes; 0 when it cannot be known.
    pub memory: u64,
    /// The limit on that; none for a zygote without preloads.
    pub memory_limit: Option<u64>,
}

/// Where a zygote is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZygoteState {
    /// It imports.
    Starting,
    /// It forks workers.
    Ready,
    /// It ends with its last worker.
    Retired,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_module_allows_what_is_inside_it() {
        let policy: PreloadPolicy = "numpy, pandas".parse().expect("a list");
        assert_eq!(policy, PreloadPolicy::Only(vec!["numpy".into(), "pandas".into()]));
        assert!(policy.allows("numpy") && policy.allows("numpy.linalg") && policy.allows("pandas"));
        assert!(!policy.allows("numpyx") && !policy.allows("num") && !policy.allows("os"));
        assert!("any".parse::<PreloadPolicy>().expect("any").allows("os"));
        assert!(!"none".parse::<PreloadPolicy>().expect("none").allows("os"));
    }

    #[test]
    fn equal_sets_are_one_template_whatever_their_order() {
        let of = |list: &[&str]| {
            let list: Vec<_> = list.iter().map(|name| (*name).to_owned()).collect();
            TemplateKey::new(0, &list)
        };
        assert_eq!(of(&["b", "a", "b"]), of(&["a", "b"]));
        let long: Vec<_> = (0..=MAX_MODULES).map(|number| format!("m{number}")).collect();
        assert!(TemplateKey::new(0, &long).expect_err("too many").why.contains("65 modules"));
    }

    #[test]
    fn as_many_and_as_long_lists_as_there_may_be_fit_into_one_message() {
        let wanted = Arc::new(watch::Sender::new(Wanted::new()));
        let lists = (0..MAX_PRELOADING).map(|number| {
            // As many modules and as many bytes as there may be.
            let name = |n: usize| format!("{:x>64}", format!("_{number:02}_{n:02}"));
            let names: Vec<_> = (0..MAX_MODULES).map(name).collect();
            TemplateKey::new(0, &names).expect("not too long")
        });
        let networks = [Network::Full, Network::Internal, Network::None];
        let plain = (0..32).map(|python| TemplateKey { python, preload: Vec::new() });
        let wants = lists
            .chain(plain)
            .flat_map(|template| networks.map(|network| Want { template: template.clone(), network }));
        let all: Vec<_> = wants.map(|want| Template::new(want, &wanted).expect("room")).collect();
        assert_eq!(all.len(), 3 * (MAX_PRELOADING + 32));
        let needs = Need::all(&wanted.borrow());
        assert_eq!(needs.len(), MAX_PRELOADING + 32);
        assert!(needs.iter().all(|need| need.networks == networks.into()));
        let said = serde_json::to_vec(&crate::control::ToLauncher::Templates(needs)).expect("plain data");
        assert!(said.len() < crate::fds::MAX_MESSAGE, "{} bytes", said.len());
    }

    #[test]
    fn a_template_is_wanted_until_the_last_is_dropped_and_there_are_only_so_many() {
        let wanted = Arc::new(watch::Sender::new(Wanted::new()));
        let of = |module: &str| Want {
            template: TemplateKey { python: 0, preload: vec![module.to_owned()] },
            network: Network::Full,
        };
        let mut changes = wanted.subscribe();
        let first = Template::new(of("m"), &wanted).expect("room");
        assert!(changes.has_changed().expect("a sender"));
        changes.mark_unchanged();
        drop(Template::new(of("m"), &wanted).expect("room"));
        assert!(!changes.has_changed().expect("a sender"), "it is wanted as before");
        let more: Vec<_> = (1..MAX_PRELOADING)
            .map(|n| Template::new(of(&format!("m{n}")), &wanted).expect("room"))
            .collect();
        let plain = Want { template: TemplateKey { python: 0, preload: Vec::new() }, network: Network::None };
        drop(Template::new(plain, &wanted).expect("a network is no list"));
        drop(Template::new(Want { network: Network::None, ..of("m") }, &wanted).expect("a list as before"));
        let error = Template::new(of("x"), &wanted).expect_err("no room");
        assert!(error.to_string().contains("16 different lists"), "{error}");
        drop((first, more));
        assert!(wanted.borrow().is_empty());
    }
}
