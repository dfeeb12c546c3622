//! The seccomp programs, compiled from `runtime/seccomp.json` where each rule has its reason.
//!
//! Four programs. The large allow-list (everything else answers ENOSYS) is installed once in the
//! zygote and inherited, because installing it costs 0.4 ms; so are the lists of what is said to have
//! been done and is not, and of arguments that are refused. The short deny-list in each child ends
//! what only building the sandbox needed, and filters of a worker's own. Arguments are compared by their lower 32 bits, because that is what the kernel reads of
//! all those that are named here: what a program puts above them decides nothing.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, TargetArch};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Mode;

/// ENOSYS: what a program expects from a kernel that lacks the call, so it falls back.
const ENOSYS: u32 = 38;
/// EPERM: what the kernel itself answers to the unprivileged.
const EPERM: u32 = 1;
/// No error: the call returns 0 and nothing has happened.
const DONE: u32 = 0;

/// The programs as the kernel takes them.
pub(crate) struct Filters {
    /// For the zygote.
    pub base: Vec<u8>,
    /// For the zygote, too.
    pub feigned: Vec<u8>,
    /// And this.
    pub denied: Vec<u8>,
    /// For each worker.
    pub worker: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    base: Vec<Rule>,
    feigned: Vec<Rule>,
    denied: Vec<Rule>,
    worker: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    why: String,
    #[serde(default)]
    arch: Option<String>,
    /// Only where the worker has this.
    #[serde(default)]
    with: Option<Having>,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    feign: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
    /// All of them must hold.
    #[serde(default)]
    arguments: Vec<Argument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Having {
    IpcNamespace,
}

/// A condition on one argument: its lower half (masked) equals one of the values, or all of it, which
/// may be a pointer, differs from one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Argument {
    index: u8,
    #[serde(default)]
    mask: Option<u64>,
    #[serde(default)]
    equals: Vec<u64>,
    #[serde(default)]
    differs: Option<u64>,
}

impl Argument {
    /// One of these must hold.
    fn conditions(&self) -> Vec<Value> {
        let index = self.index;
        let op = self.mask.map_or(json!("eq"), |mask| json!({ "masked_eq": mask }));
        let equal = |value| json!({ "index": index, "type": "dword", "op": op, "val": value });
        let differs = |value| json!({ "index": index, "type": "qword", "op": "ne", "val": value });
        self.equals.iter().map(equal).chain(self.differs.iter().map(differs)).collect()
    }
}

/// Compiles the programs for this machine and this mode. The error is one for us: the rules are ours.
pub(crate) fn compile(rules: &str, mode: Mode) -> Result<Filters, String> {
    compile_for(rules, mode, std::env::consts::ARCH)
}

fn compile_for(rules: &str, mode: Mode, arch: &str) -> Result<Filters, String> {
    let mut rules: Rules = serde_json::from_str(rules).map_err(|e| e.to_string())?;
    rules.base.retain(|rule| match rule.with {
        Some(Having::IpcNamespace) => mode != Mode::Reduced,
        None => true,
    });
    let errno = |number: u32| json!({ "errno": number });
    let document = json!({
        "base": {
            "mismatch_action": errno(ENOSYS),
            "match_action": "allow",
            "filter": filter(&rules.base, arch, |rule| &rule.allow),
        },
        "feigned": {
            "mismatch_action": "allow",
            "match_action": errno(DONE),
            "filter": filter(&rules.feigned, arch, |rule| &rule.feign),
        },
        "denied": {
            "mismatch_action": "allow",
            "match_action": errno(EPERM),
            "filter": filter(&rules.denied, arch, |rule| &rule.deny),
        },
        "worker": {
            "mismatch_action": "allow",
            // Not EPERM: whoever may not call clone3 tries clone only if there is none.
            "match_action": errno(ENOSYS),
            "filter": filter(&rules.worker, arch, |rule| &rule.deny),
        },
    });
    let arch = TargetArch::try_from(arch).map_err(|e| e.to_string())?;
    let compiled = seccompiler::compile_from_json(document.to_string().as_bytes(), arch);
    let mut programs: BTreeMap<_, _> = compiled.map_err(|e| e.to_string())?.into_iter().collect();
    let mut take = |name: &str| programs.remove(name).map(|p| to_bytes(&p)).ok_or("a program is missing");
    Ok(Filters {
        base: take("base")?,
        feigned: take("feigned")?,
        denied: take("denied")?,
        worker: take("worker")?,
    })
}

fn filter<'a>(rules: &'a [Rule], arch: &str, calls: impl Fn(&'a Rule) -> &'a [String]) -> Vec<Value> {
    let here = |rule: &&Rule| rule.arch.as_deref().is_none_or(|only| only == arch);
    let mut by_call: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for rule in rules.iter().filter(here) {
        for call in calls(rule) {
            by_call.entry(call).or_default().push(rule);
        }
    }
    by_call.into_iter().flat_map(|(call, rules)| entries(call, &rules)).collect()
}

/// A call's rules, of which one that has no conditions makes the others needless.
fn entries(call: &str, rules: &[&Rule]) -> Vec<Value> {
    if let Some(rule) = rules.iter().find(|rule| rule.arguments.is_empty()) {
        return vec![json!({ "syscall": call, "comment": rule.why })];
    }
    let entry = |rule: &Rule, conditions: Vec<Value>| json!({ "syscall": call, "comment": rule.why, "args": conditions });
    let of_rule = |rule: &&Rule| {
        alternatives(&rule.arguments).into_iter().map(|all| entry(rule, all)).collect::<Vec<_>>()
    };
    rules.iter().flat_map(of_rule).collect()
}

/// Each choice of one condition per argument.
fn alternatives(arguments: &[Argument]) -> Vec<Vec<Value>> {
    arguments.iter().fold(vec![Vec::new()], |so_far, argument| {
        let with = |all: &Vec<Value>, condition| [all.clone(), vec![condition]].concat();
        so_far
            .iter()
            .flat_map(|all| argument.conditions().into_iter().map(|one| with(all, one)).collect::<Vec<_>>())
            .collect()
    })
}

/// `struct sock_filter`: u16 code, u8 jt, u8 jf, u32 k, in the machine's order.
fn to_bytes(program: &BpfProgram) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_compile_and_the_child_pays_for_a_short_one_only() {
        let filters = compile(crate::runtime::SECCOMP_RULES, Mode::Root).expect("our own rules");
        assert!(filters.base.len() > 2000, "{} bytes", filters.base.len());
        assert!(filters.worker.len() / 8 < 60, "{} instructions", filters.worker.len() / 8);
    }

    #[test]
    fn the_rules_compile_for_every_architecture_we_name() {
        for arch in ["x86_64", "aarch64"] {
            compile_for(crate::runtime::SECCOMP_RULES, Mode::Root, arch).expect(arch);
        }
    }

    #[test]
    fn every_rule_has_a_reason_and_an_unknown_key_is_refused() {
        let rules: Rules = serde_json::from_str(crate::runtime::SECCOMP_RULES).expect("our own rules");
        let all = [&rules.base, &rules.feigned, &rules.denied, &rules.worker].into_iter().flatten();
        assert!(all.into_iter().all(|rule| rule.why.len() > 5));
        assert!(compile(r#"{"base": [], "feigned": [], "denied": [], "worker": []}"#, Mode::Root).is_ok());
        assert!(
            compile(r#"{"base": [], "feigned": [], "denied": [], "worker": [], "extra": 1}"#, Mode::Root)
                .is_err()
        );
    }
}
