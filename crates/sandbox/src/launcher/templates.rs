//! Templates: what zygotes there are to be, which of them takes orders, when one may go.
//!
//! A template is a Python and a set of modules that its zygotes import. Those without modules
//! exist from the beginning and for ever, one per Python, and get their zygote with the first
//! order. One with modules exists while a live version needs it (the platform names all that
//! do) and a moment longer; its zygote is started at once, restarted when it dies, and never
//! left to the first call.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fp_core::settings::Network;

use super::workers::Entry;
use super::zygotes::State;
use super::{Launcher, RETRY_DELAY};
use crate::control::{FromLauncher, Refusal};
use crate::preload::{Need, PreloadFault, PreloadPolicy, TemplateKey};

/// Rest between two tries to start a zygote whose preloads fail: imports may burn seconds of CPU
/// each time. A deploy that brings a template anew never waits for it.
const IMPORT_RETRY_DELAY: Duration = Duration::from_secs(10);

/// How long a template stays that nobody needs any more: a deploy that follows a delete, or a
/// start that was under way, finds it warm.
const UNUSED_LIMIT: Duration = Duration::from_secs(1);

/// Blank workers of a template with preloads, or in a network that is not the host's: one for the
/// call that comes and one for the next while the first is replaced. Fewer than the plain ones,
/// because such kinds may be many and each serves few functions; a burst beyond them is forked from
/// the warm zygote at 3-5 ms each, into network namespaces that stand ready.
const FEW_BLANKS: usize = 2;

/// One template.
#[derive(Debug)]
pub(super) struct Template {
    pub key: TemplateKey,
    /// The zygote that takes orders.
    pub current: Option<u64>,
    /// The zygote that starts to replace a worn one.
    pub successor: Option<u64>,
    /// How its zygote last failed to start.
    pub fault: Option<Refusal>,
    /// No zygote is started in the background before.
    pub rests_until: Option<Instant>,
    /// Requests that wait for it to stand.
    waiting: Vec<u64>,
    /// The networks of the live versions that need it; none if no version does.
    wanted: BTreeSet<Network>,
    /// When it was last needed or asked for anything.
    used: Instant,
}

impl Template {
    fn new(key: TemplateKey) -> Self {
        Self {
            key,
            current: None,
            successor: None,
            fault: None,
            rests_until: None,
            waiting: Vec::new(),
            wanted: BTreeSet::new(),
            used: Instant::now(),
        }
    }

    pub(super) fn preloads(&self) -> bool {
        !self.key.preload.is_empty()
    }

    /// A live version needs it.
    fn is_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// A live version needs it with networks apart from the host's.
    pub(super) fn wants_own_network(&self) -> bool {
        self.wanted.iter().any(|network| *network != Network::Full)
    }

    pub(super) fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| Instant::now() < until)
    }

    /// When it may be ended; none while it is needed.
    fn unused_at(&self) -> Option<Instant> {
        let is_needed = self.is_wanted() || !self.waiting.is_empty() || !self.preloads();
        (!is_needed).then(|| self.used + UNUSED_LIMIT)
    }

    /// Its zygote is gone, or did not come.
    pub(super) fn rest(&mut self, fault: Option<Refusal>) {
        let pause = match &fault {
            Some(Refusal::Preload(_)) => IMPORT_RETRY_DELAY,
            _ => RETRY_DELAY,
        };
        self.fault = fault;
        self.rests_until = Some(Instant::now() + pause);
    }
}

impl Launcher {
    /// The template of a key, made if there is none; refused where the operator does not allow it.
    pub(super) fn template_for(&mut self, key: &TemplateKey) -> Result<u64, Refusal> {
        let known = self.templates.iter().find(|(_, template)| template.key == *key);
        if let Some((id, _)) = known {
            return Ok(*id);
        }
        self.allowed(key)?;
        let id = self.next_template;
        self.next_template += 1;
        self.templates.insert(id, Template::new(key.clone()));
        Ok(id)
    }

    /// Asked again here, in the part that holds the privilege.
    fn allowed(&self, key: &TemplateKey) -> Result<(), Refusal> {
        if key.python >= self.init.pythons.len() {
            return Err(Refusal::Python("there is no such Python".into()));
        }
        let allowed = &self.init.preload.allowed;
        let Some(module) = key.preload.iter().find(|module| !allowed.allows(module)) else { return Ok(()) };
        let why = match allowed {
            PreloadPolicy::Only(_) => "it is not listed under preload in the platform's configuration",
            _ => "the platform's configuration says preload = \"none\"",
        };
        Err(Refusal::Preload(PreloadFault {
            module: module.clone(),
            why: why.into(),
            traceback: String::new(),
        }))
    }

    /// The zygote that takes orders for a template, started if there is none.
    pub(super) fn zygote_for(&mut self, template: u64) -> Result<u64, Refusal> {
        let it = self.templates.get_mut(&template).expect("templates in use are known");
        it.used = Instant::now();
        if let Some(id) = it.current {
            return Ok(id);
        }
        let id = self.start_zygote(template)?;
        if let Some(it) = self.templates.get_mut(&template) {
            it.current = Some(id);
        }
        Ok(id)
    }

    /// Starts one, unless another has just failed to.
    pub(super) fn start_zygote(&mut self, template: u64) -> Result<u64, Refusal> {
        let it = self.templates.get(&template).expect("templates in use are known");
        if let Some(fault) = it.fault.as_ref().filter(|_| it.rests()) {
            return Err(fault.clone());
        }
        let zygote = self.spawn_zygote(template).map_err(Refusal::Host)?;
        let id = self.next_zygote;
        self.next_zygote += 1;
        self.zygotes.insert(id, zygote);
        self.zygotes_changed = true;
        Ok(id)
    }

    /// These are needed by live versions, others are not.
    pub(super) fn want_templates(&mut self, needs: Vec<Need>) {
        for template in self.templates.values_mut().filter(|template| template.is_wanted()) {
            template.wanted.clear();
            template.used = Instant::now();
        }
        for need in needs {
            match self.template_for(&need.template) {
                Ok(id) => {
                    if let Some(template) = self.templates.get_mut(&id) {
                        template.wanted = need.networks;
                    }
                }
                Err(refusal) => eprintln!("launcher: {}", refusal.text()),
            }
        }
        self.refill_at = Some(Instant::now());
    }

    /// Ends blank workers of which none are to be kept: no live version has their network any more, no
    /// tenant comes for them, or who ordered them has given up.
    pub(super) fn end_unwanted_blanks(&mut self) {
        let is_unwanted = |entry: &&Entry| {
            let template = self.zygotes.get(&entry.zygote).map(|zygote| zygote.template);
            let is_over = |id| {
                self.blanks_of(id, entry.network) == 0 || self.is_stale_in(entry.part, (id, entry.network))
            };
            entry.is_blank() && template.is_some_and(is_over)
        };
        let unwanted: Vec<_> = self.workers.values().filter(is_unwanted).map(|entry| entry.serial).collect();
        for serial in unwanted {
            if let Some(entry) = self.workers.get_mut(&serial) {
                entry.discard();
            }
        }
    }

    /// Answers when the template's zygote stands.
    pub(super) fn prepare(&mut self, request: u64, key: &TemplateKey) {
        let zygote = self.template_for(key).and_then(|id| Ok((id, self.zygote_for(id)?)));
        match zygote {
            Ok((_, zygote)) if self.zygotes.get(&zygote).is_some_and(|z| z.state != State::Starting) => {
                self.say(&FromLauncher::Prepared { request }, &[]);
            }
            Ok((template, _)) => {
                self.templates.get_mut(&template).expect("found above").waiting.push(request);
            }
            Err(refusal) => self.say(&FromLauncher::NotStarted { request, refusal }, &[]),
        }
    }

    /// A zygote of the template became ready, or failed.
    pub(super) fn answer_waiting(&mut self, template: u64, refusal: Option<&Refusal>) {
        let Some(it) = self.templates.get_mut(&template) else { return };
        it.used = Instant::now();
        for request in std::mem::take(&mut it.waiting) {
            let answer = match refusal {
                None => FromLauncher::Prepared { request },
                Some(refusal) => FromLauncher::NotStarted { request, refusal: refusal.clone() },
            };
            self.say(&answer, &[]);
        }
    }

    /// Starts the zygotes that are missing and ends the templates that nobody needs.
    pub(super) fn keep_templates(&mut self) {
        let missing = |(id, template): (&u64, &Template)| {
            (template.is_wanted() && template.current.is_none() && !template.rests()).then_some(*id)
        };
        let missing: Vec<_> = self.templates.iter().filter_map(missing).collect();
        for id in missing {
            if let Err(refusal) = self.zygote_for(id) {
                eprintln!("launcher: {}", refusal.text());
                self.templates.get_mut(&id).expect("found above").rest(Some(refusal));
            }
        }
        let now = Instant::now();
        let unused = |template: &Template| template.unused_at().is_some_and(|at| at <= now);
        let unused = self.templates.iter().filter(|(_, template)| unused(template)).map(|(id, _)| *id);
        for id in unused.collect::<Vec<_>>() {
            if self.is_awaited(id) {
                self.templates.get_mut(&id).expect("found above").used = now;
            } else {
                self.end_template(id);
            }
        }
    }

    /// A start that was ordered of this template is not done.
    fn is_awaited(&self, id: u64) -> bool {
        let of_it = |zygote: &u64| self.zygotes.get(zygote).is_some_and(|zygote| zygote.template == id);
        self.workers.values().any(|entry| entry.is_awaited() && of_it(&entry.zygote))
    }

    /// When [`keep_templates`](Self::keep_templates) has something to do.
    pub(super) fn templates_due(&self) -> Option<Instant> {
        let due = self.templates.values().filter_map(|template| {
            let missing =
                (template.is_wanted() && template.current.is_none()).then_some(template.rests_until);
            missing.map(|rest| rest.unwrap_or_else(Instant::now)).or_else(|| template.unused_at())
        });
        due.min()
    }

    /// Its zygotes take no orders any more and leave with their last worker.
    fn end_template(&mut self, id: u64) {
        let Some(template) = self.templates.remove(&id) else { return };
        for zygote in template.current.into_iter().chain(template.successor) {
            self.retire(zygote);
        }
    }

    /// Orders one blank worker where one is missing; whether there was anything to do.
    pub(super) fn order_missing_blank(&mut self) -> Result<bool, Refusal> {
        let Some((id, network, part)) = self.missing_blank().map_err(Refusal::Host)? else {
            return Ok(false);
        };
        let zygote = self.zygote_for(id)?;
        self.order_fork(zygote, network, part, None).map_err(Refusal::Host)?;
        Ok(true)
    }

    /// Its template, its network, and whose part it is to stand in.
    fn missing_blank(&mut self) -> Result<Option<(u64, Network, u64)>, String> {
        let starts = |zygote: u64| self.zygotes[&zygote].state == State::Starting;
        let usable = self.templates.iter().filter(|(_, template)| !template.current.is_some_and(starts));
        let kinds = usable.flat_map(|(id, _)| {
            [Network::Full, Network::Internal, Network::None].map(|network| (*id, network))
        });
        for (id, network) in kinds.collect::<Vec<_>>() {
            let most = self.blanks_of(id, network);
            if let Some(part) = self.part_without_blank((id, network), most)? {
                return Ok(Some((id, network, part)));
            }
        }
        Ok(None)
    }

    /// How many blank workers of a template and a network are kept. Without preloads only the default
    /// Python has any: it is the one that functions use that ask for nothing.
    fn blanks_of(&self, id: u64, network: Network) -> usize {
        let Some(template) = self.templates.get(&id) else { return 0 };
        let is_possible = network == Network::Full || self.networks.is_some();
        match (template.preloads(), template.wanted.contains(&network) && is_possible) {
            // A missing zygote of theirs is started by `keep_templates`, which respects its rest.
            (true, true) if template.current.is_some() => FEW_BLANKS.min(self.init.blanks),
            (false, _) if id == 0 && network == Network::Full => self.init.blanks,
            (false, true) if id == 0 => FEW_BLANKS.min(self.init.blanks),
            _ => 0,
        }
    }
}
