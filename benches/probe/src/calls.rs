//! Calls as a busy platform would record them: twenty functions of unequal use, ids and correlation
//! ids as random as real ones, times that differ, a few failures and a few log lines.

use fp_core::outcome::ShedReason;
use fp_core::record::{Invocation, Kept, LogLine, LogSource, Phases, Trigger};
use fp_core::settings::Criticality;
use fp_core::trace_context::TraceContext;
use fp_core::{FunctionName, InvocationId, Outcome, SpanId, Tenant, TraceId, VersionNumber, WorkerId};

const FUNCTIONS: usize = 20;

/// Makes calls; the same seed makes the same ones.
pub(crate) struct Calls {
    random: fastrand::Rng,
    tenant: Tenant,
    functions: Vec<(FunctionName, std::sync::Arc<str>)>,
}

impl Calls {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let functions = (0..FUNCTIONS)
            .map(|n| {
                Ok((format!("function-{n}").parse()?, format!("http|POST|/functions/{n}/{{id}}").into()))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { random: fastrand::Rng::with_seed(7), tenant: Tenant::default(), functions })
    }

    pub(crate) fn function(&self, number: usize) -> FunctionName {
        self.functions[number].0.clone()
    }

    /// The next call, which arrives then.
    pub(crate) fn next(&mut self, started_us: u64) -> Kept {
        let random = &mut self.random;
        let ms = started_us / 1_000;
        // Half of all calls are the first one's, a quarter the second's and so on.
        let number = (random.u32(1..).leading_zeros() as usize).min(FUNCTIONS - 1);
        let (function, event_type) = &self.functions[number];
        let trace =
            TraceContext::root(TraceId::from_parts(ms, random.u128(..)), SpanId::from_random(random.u64(..)));
        let outcome = match random.u32(..1_000) {
            0..10 => Outcome::FunctionError,
            10..15 => Outcome::Shed(ShedReason::QueueDelay),
            _ => Outcome::Ok,
        };
        // From a tenth of a millisecond to some seconds, most of it short.
        let run = 100_000u64 << random.u32(..4) << (random.u32(..16) & random.u32(..16));
        let mut ns = |most: u64| random.u64(most / 4..most);
        let phases =
            Phases { route: ns(40_000), queue: ns(9_000), start: 0, run: ns(2 * run), send: ns(30_000) };
        let has_line = random.u32(..10) == 0;
        let invocation = Invocation {
            id: InvocationId::from_parts(ms, random.u128(..)),
            tenant: self.tenant.clone(),
            function: function.clone(),
            version: VersionNumber(3),
            event_type: event_type.clone(),
            trigger: Trigger::Http,
            verb: "POST".into(),
            path: format!("/functions/{number}/{}", random.u32(..100_000)).into(),
            correlation_id: format!("{:032x}", random.u128(..)).into(),
            trace_id: trace.trace_id,
            span_id: trace.span_id,
            parent_span_id: None,
            called_by: None,
            link: None,
            started_us,
            phases,
            outcome,
            blame: outcome.blame(false),
            caller_was_short: false,
            status: if outcome == Outcome::Ok { 200 } else { 500 },
            error: (outcome == Outcome::FunctionError).then(|| "ValueError: no such row".into()),
            cold: false,
            attempts: 1,
            worker: Some(WorkerId(random.u64(..40))),
            criticality: Criticality::Default,
            deadline_ms: 60_000,
            deadline_from: fp_core::deadline::DeadlineFrom::Timeout,
            queue_length: random.u32(..3),
            request_bytes: random.u64(10..500),
            response_bytes: random.u64(20..2_000),
            log_bytes: if has_line { 24 } else { 0 },
            cpu_us: phases.run / 1_100,
            memory_peak_kib: random.u64(14_000..14_100),
            limit_hit: None,
            latency_met: Some(phases.run < 50_000_000),
            degraded: None,
            weight: 1,
        };
        let line = has_line.then(|| LogLine {
            time_us: started_us + 150,
            source: LogSource::Stdout,
            level: None,
            text: "a line for each tenth call\n".into(),
        });
        Kept { invocation, spans: Vec::new(), logs: line.into_iter().collect(), result: None }
    }
}
