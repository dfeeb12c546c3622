//! Calls as columns: which fields there are, and how each is told in few bytes.
//!
//! A field is a [`Number`], a [`Text`] or a [`Part`] of an id, known by its place in the enum: new
//! ones are added at the end, and a file that lacks one reads as if it were 0 or absent. Ids that
//! begin with a time are told as the distance to the arrival and what is random in them. Spans and
//! logs are JSON per call: they are read for single calls only.

use std::borrow::Cow;

use fp_core::deadline::DeadlineFrom;
use fp_core::outcome::Blame;
use fp_core::record::{Invocation, Kept, LogLine, LogSource, Phases, Span, Trigger};
use fp_core::settings::Criticality;
use fp_core::{InvocationId, Outcome, SpanId, TraceId, VersionNumber, WorkerId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::columns::{Source, Texts, TextsBuilder, put_number, unzigzag, zigzag};
use super::{Block, BlocksError};

const DAMAGED: BlocksError = BlocksError::Damaged("a call");

/// Which column of a block; on disk its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column(pub(super) u8);

/// Numbers begin at 0, texts and parts at these.
const TEXTS_FROM: u8 = 64;
const PARTS_FROM: u8 = 128;

/// A field that is a number, or a choice told as one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    /// Since the row before.
    Started,
    /// From the arrival to the time in the invocation's id, in milliseconds.
    IdTime,
    TraceTime,
    Version,
    Route,
    Queue,
    Start,
    Run,
    Send,
    CallerWasShort,
    Status,
    Cold,
    Attempts,
    /// One more than its number; 0 is none.
    Worker,
    DeadlineMs,
    QueueLength,
    RequestBytes,
    ResponseBytes,
    LogBytes,
    CpuUs,
    MemoryPeakKib,
    /// 0 is unknown, 1 no, 2 yes.
    LatencyMet,
    Weight,
    HasParent,
    DeadlineFrom,
}

const NUMBERS: [Number; 25] = [
    Number::Started,
    Number::IdTime,
    Number::TraceTime,
    Number::Version,
    Number::Route,
    Number::Queue,
    Number::Start,
    Number::Run,
    Number::Send,
    Number::CallerWasShort,
    Number::Status,
    Number::Cold,
    Number::Attempts,
    Number::Worker,
    Number::DeadlineMs,
    Number::QueueLength,
    Number::RequestBytes,
    Number::ResponseBytes,
    Number::LogBytes,
    Number::CpuUs,
    Number::MemoryPeakKib,
    Number::LatencyMet,
    Number::Weight,
    Number::HasParent,
    Number::DeadlineFrom,
];

/// What adds up to the duration.
pub(super) const PHASES: [Number; 5] =
    [Number::Route, Number::Queue, Number::Start, Number::Run, Number::Send];

impl Number {
    fn column(self) -> Column {
        Column(self as u8)
    }

    fn of(self, call: &Invocation, before_us: u64) -> u64 {
        match self {
            Self::Started => call.started_us.wrapping_sub(before_us),
            Self::IdTime => zigzag(since_arrival(&call.id.0, call.started_us)),
            Self::TraceTime => zigzag(since_arrival(&call.trace_id.0, call.started_us)),
            Self::Version => call.version.0.into(),
            Self::Route => call.phases.route,
            Self::Queue => call.phases.queue,
            Self::Start => call.phases.start,
            Self::Run => call.phases.run,
            Self::Send => call.phases.send,
            Self::CallerWasShort => call.caller_was_short.into(),
            Self::Status => call.status.into(),
            Self::Cold => call.cold.into(),
            Self::Attempts => call.attempts.into(),
            Self::Worker => call.worker.map_or(0, |worker| worker.0.wrapping_add(1)),
            Self::DeadlineMs => call.deadline_ms,
            Self::QueueLength => call.queue_length.into(),
            Self::RequestBytes => call.request_bytes,
            Self::ResponseBytes => call.response_bytes,
            Self::LogBytes => call.log_bytes,
            Self::CpuUs => call.cpu_us,
            Self::MemoryPeakKib => call.memory_peak_kib,
            Self::LatencyMet => call.latency_met.map_or(0, |met| 1 + u64::from(met)),
            Self::Weight => call.weight.into(),
            Self::HasParent => call.parent_span_id.is_some().into(),
            Self::DeadlineFrom => call.deadline_from.number().into(),
        }
    }
}

/// A field that is a text, or a word of few.
#[derive(Debug, Clone, Copy)]
pub(super) enum Text {
    Tenant,
    Function,
    EventType,
    Trigger,
    Verb,
    Path,
    CorrelationId,
    /// The outcome's word and, after a blank, its reason.
    Outcome,
    Blame,
    Error,
    Criticality,
    LimitHit,
    Degraded,
    CalledBy,
    Link,
    Result,
    Spans,
    Logs,
}

const TEXTS: [Text; 18] = [
    Text::Tenant,
    Text::Function,
    Text::EventType,
    Text::Trigger,
    Text::Verb,
    Text::Path,
    Text::CorrelationId,
    Text::Outcome,
    Text::Blame,
    Text::Error,
    Text::Criticality,
    Text::LimitHit,
    Text::Degraded,
    Text::CalledBy,
    Text::Link,
    Text::Result,
    Text::Spans,
    Text::Logs,
];

impl Text {
    fn column(self) -> Column {
        Column(TEXTS_FROM + self as u8)
    }

    fn of(self, kept: &Kept) -> Option<Cow<'_, str>> {
        let call = &kept.invocation;
        let text = match self {
            Self::Tenant => call.tenant.as_str(),
            Self::Function => call.function.as_str(),
            Self::EventType => &call.event_type,
            Self::Verb => &call.verb,
            Self::Path => &call.path,
            Self::CorrelationId => &call.correlation_id,
            Self::Error => call.error.as_deref()?,
            Self::LimitHit => call.limit_hit.as_deref()?,
            Self::Degraded => call.degraded.as_deref()?,
            Self::CalledBy => call.called_by.as_ref()?.as_str(),
            Self::Result => kept.result.as_deref()?,
            Self::Link => return Some(call.link?.to_string().into()),
            Self::Trigger => return Some(word(call.trigger).into()),
            Self::Outcome => return Some(words_of(call.outcome)),
            Self::Blame => return Some(word(call.blame?).into()),
            Self::Criticality => return Some(word(call.criticality).into()),
            Self::Spans if kept.spans.is_empty() => return None,
            Self::Logs if kept.logs.is_empty() => return None,
            Self::Spans => return Some(json(&kept.spans).into()),
            Self::Logs => return Some(logs_of(kept).into()),
        };
        Some(text.into())
    }
}

/// What is random in an id, bytes in a row.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// Of an invocation's id, behind the time.
    Id,
    Trace,
    Span,
    /// Of those calls that have one.
    Parent,
}

const PARTS: [Part; 4] = [Part::Id, Part::Trace, Part::Span, Part::Parent];

impl Part {
    fn column(self) -> Column {
        Column(PARTS_FROM + self as u8)
    }

    fn of(self, call: &Invocation) -> &[u8] {
        match self {
            Self::Id => &call.id.0[6..],
            Self::Trace => &call.trace_id.0[6..],
            Self::Span => &call.span_id.0,
            Self::Parent => call.parent_span_id.as_ref().map_or(&[], |id| &id.0),
        }
    }
}

/// The columns of some calls, which are in the order of their arrival.
pub(super) fn columns_of(calls: &[Kept]) -> Vec<(Column, Vec<u8>)> {
    let numbers = NUMBERS.map(|number| (number.column(), numbers_of(number, calls)));
    let texts = TEXTS.map(|text| {
        let mut builder = TextsBuilder::default();
        calls.iter().for_each(|kept| builder.push(text.of(kept)));
        (text.column(), builder.finish())
    });
    let parts = PARTS.map(|part| {
        (part.column(), calls.iter().flat_map(|kept| part.of(&kept.invocation)).copied().collect())
    });
    numbers.into_iter().chain(texts).chain(parts).collect()
}

fn numbers_of(number: Number, calls: &[Kept]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(calls.len() * 2);
    let mut before_us = 0;
    for Kept { invocation, .. } in calls {
        put_number(&mut raw, number.of(invocation, before_us));
        before_us = invocation.started_us;
    }
    raw
}

/// The first six bytes of an id as milliseconds, from the arrival on.
fn since_arrival(id: &[u8; 16], started_us: u64) -> i64 {
    let time_ms = id[..6].iter().fold(0, |ms, byte| ms << 8 | i64::from(*byte));
    time_ms - (started_us / 1_000) as i64
}

/// The id of a call that arrived then.
pub(super) fn id_of(since_arrival_ms: u64, started_us: u64, random: &[u8]) -> Option<[u8; 16]> {
    let time_ms = ((started_us / 1_000) as i64).wrapping_add(unzigzag(since_arrival_ms)) as u64;
    let mut id = [0; 16];
    id[..6].copy_from_slice(&time_ms.to_be_bytes()[2..]);
    id[6..].copy_from_slice(random.get(..10)?);
    Some(id)
}

/// The outcome as one text.
pub(super) fn words_of(outcome: Outcome) -> Cow<'static, str> {
    match outcome.reason() {
        Some(reason) => format!("{} {reason}", outcome.word()).into(),
        None => outcome.word().into(),
    }
}

pub(super) fn outcome_of(words: &str) -> Option<Outcome> {
    match words.split_once(' ') {
        Some((word, reason)) => Outcome::from_words(word, Some(reason)),
        None => Outcome::from_words(words, None),
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("spans and lines are JSON")
}

/// The word that serde writes for a value of a small enum.
fn word(value: impl Serialize) -> String {
    json(&value).trim_matches('"').to_owned()
}

fn value_of<T: DeserializeOwned>(word: &str) -> Result<T, BlocksError> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).map_err(|_| DAMAGED)
}

/// Each line with its time since the arrival.
fn logs_of(kept: &Kept) -> String {
    let arrived = kept.invocation.started_us as i64;
    let lines = kept.logs.iter().map(|line| {
        let after = (line.time_us as i64).wrapping_sub(arrived);
        (after, line.source, line.level.as_deref(), &*line.text)
    });
    json(&lines.collect::<Vec<_>>())
}

fn lines_of(text: &str, started_us: u64) -> Result<Vec<LogLine>, BlocksError> {
    type Line = (i64, LogSource, Option<Box<str>>, Box<str>);
    let lines: Vec<Line> = serde_json::from_str(text).map_err(|_| DAMAGED)?;
    let line = |(after, source, level, text): Line| {
        let time_us = (started_us as i64).wrapping_add(after) as u64;
        LogLine { time_us, source, level, text }
    };
    Ok(lines.into_iter().map(line).collect())
}

impl Block<'_> {
    pub(super) fn numbers(&self, number: Number) -> Result<Vec<u64>, BlocksError> {
        match self.column(number.column())? {
            Some(raw) => Source(&raw).numbers(self.rows()),
            None => Ok(vec![0; self.rows()]),
        }
    }

    pub(super) fn texts(&self, text: Text) -> Result<Texts, BlocksError> {
        match self.column(text.column())? {
            Some(raw) => Texts::read(raw, self.rows()),
            None => Texts::read([vec![0, 0], vec![0; self.rows()]].concat(), self.rows()),
        }
    }

    pub(super) fn part(&self, part: Part) -> Result<Vec<u8>, BlocksError> {
        Ok(self.column(part.column())?.unwrap_or_default())
    }

    /// Arrivals, in order.
    pub(super) fn started_us(&self) -> Result<Vec<u64>, BlocksError> {
        let mut started = self.numbers(Number::Started)?;
        let mut before_us = 0u64;
        for us in &mut started {
            before_us = before_us.wrapping_add(*us);
            *us = before_us;
        }
        Ok(started)
    }

    /// Rows that pass what a list asks; `rows` are those of its time.
    pub(super) fn retain(
        &self,
        query: &super::super::RowQuery<'_>,
        rows: &mut Vec<u32>,
    ) -> Result<(), BlocksError> {
        self.texts(Text::Tenant)?.retain(rows, |tenant| tenant == query.tenant.as_str())?;
        if let Some(function) = query.function.filter(|_| !rows.is_empty()) {
            self.texts(Text::Function)?.retain(rows, |name| name == function.as_str())?;
        }
        if let Some(word) = query.outcome.filter(|_| !rows.is_empty()) {
            let is_it = |words: &str| words.split(' ').next() == Some(word);
            self.texts(Text::Outcome)?.retain(rows, is_it)?;
        }
        if let Some(glob) = query.event_type.filter(|_| !rows.is_empty()) {
            self.texts(Text::EventType)?.retain(rows, |text| fp_core::glob::matches(glob, text))?;
        }
        if (query.min_us.is_some() || query.max_us.is_some()) && !rows.is_empty() {
            let durations = self.durations_us()?;
            let (min, max) = (query.min_us.unwrap_or(0), query.max_us.unwrap_or(u64::MAX));
            rows.retain(|row| (min..=max).contains(&durations[*row as usize]));
        }
        Ok(())
    }

    fn durations_us(&self) -> Result<Vec<u64>, BlocksError> {
        let mut sum = vec![0u64; self.rows()];
        for phase in PHASES {
            for (sum, ns) in sum.iter_mut().zip(self.numbers(phase)?) {
                *sum = sum.saturating_add(ns);
            }
        }
        sum.iter_mut().for_each(|ns| *ns /= 1_000);
        Ok(sum)
    }

    /// The row of a call.
    pub(super) fn row_of(&self, id: InvocationId) -> Result<Option<usize>, BlocksError> {
        Ok(self.rows_of_id(Number::IdTime, Part::Id, &id.0)?.first().copied())
    }

    pub(super) fn rows_of_trace(&self, trace_id: TraceId) -> Result<Vec<usize>, BlocksError> {
        self.rows_of_id(Number::TraceTime, Part::Trace, &trace_id.0)
    }

    fn rows_of_id(&self, time: Number, part: Part, id: &[u8; 16]) -> Result<Vec<usize>, BlocksError> {
        // What is random tells nearly all rows apart, without a look at the times.
        let random = self.part(part)?;
        let alike = random.chunks_exact(10).enumerate().filter(|(_, tail)| *tail == &id[6..]);
        let mut rows: Vec<usize> = alike.map(|(row, _)| row).collect();
        if !rows.is_empty() {
            let (started, times) = (self.started_us()?, self.numbers(time)?);
            let is_it = |row: &usize| id_of(*times.get(*row)?, *started.get(*row)?, &id[6..]);
            rows.retain(|row| is_it(row).as_ref() == Some(id));
        }
        Ok(rows)
    }
}

/// The wide events of a block, all columns read.
#[derive(Debug)]
pub(super) struct Events {
    started_us: Vec<u64>,
    numbers: Vec<Vec<u64>>,
    texts: Vec<Texts>,
    parts: Vec<Vec<u8>>,
    /// Place among the parents' ids, by row.
    parents: Vec<u32>,
}

impl Events {
    pub(super) fn read(block: &Block<'_>) -> Result<Self, BlocksError> {
        let numbers: Vec<_> =
            NUMBERS.iter().map(|number| block.numbers(*number)).collect::<Result<_, _>>()?;
        let mut seen = 0;
        let place = |has: &u64| {
            let place = seen;
            seen += u32::from(*has != 0);
            place
        };
        Ok(Self {
            started_us: block.started_us()?,
            parents: numbers[Number::HasParent as usize].iter().map(place).collect(),
            numbers,
            texts: TEXTS[..=Text::Link as usize]
                .iter()
                .map(|text| block.texts(*text))
                .collect::<Result<_, _>>()?,
            parts: PARTS.iter().map(|part| block.part(*part)).collect::<Result<_, _>>()?,
        })
    }

    /// One of them.
    pub(super) fn get(&self, row: usize) -> Result<Invocation, BlocksError> {
        let number = |number: Number| self.numbers[number as usize][row];
        let text = |text: Text| self.texts[text as usize].required(row);
        let option = |text: Text| self.texts[text as usize].get(row);
        let yes = |choice: Number| number(choice) != 0;
        let started_us = *self.started_us.get(row).ok_or(DAMAGED)?;
        let id = |time: Number, part: Part| {
            let random = self.parts[part as usize].get(row * 10..).ok_or(DAMAGED)?;
            id_of(number(time), started_us, random).ok_or(DAMAGED)
        };
        Ok(Invocation {
            id: InvocationId(id(Number::IdTime, Part::Id)?),
            tenant: text(Text::Tenant)?.parse().map_err(|_| DAMAGED)?,
            function: text(Text::Function)?.parse().map_err(|_| DAMAGED)?,
            version: VersionNumber(small(number(Number::Version))?),
            event_type: text(Text::EventType)?.into(),
            trigger: value_of::<Trigger>(&text(Text::Trigger)?)?,
            verb: text(Text::Verb)?.into(),
            path: text(Text::Path)?.into(),
            correlation_id: text(Text::CorrelationId)?.into(),
            trace_id: TraceId(id(Number::TraceTime, Part::Trace)?),
            span_id: self.span_id(Part::Span, row)?,
            parent_span_id: yes(Number::HasParent)
                .then(|| self.span_id(Part::Parent, self.parents[row] as usize))
                .transpose()?,
            called_by: option(Text::CalledBy)?.map(|name| name.parse()).transpose().map_err(|_| DAMAGED)?,
            link: option(Text::Link)?.map(|link| link.parse()).transpose().map_err(|_| DAMAGED)?,
            started_us,
            phases: Phases {
                route: number(Number::Route),
                queue: number(Number::Queue),
                start: number(Number::Start),
                run: number(Number::Run),
                send: number(Number::Send),
            },
            outcome: outcome_of(&text(Text::Outcome)?).ok_or(DAMAGED)?,
            blame: option(Text::Blame)?.map(|word| value_of::<Blame>(&word)).transpose()?,
            caller_was_short: yes(Number::CallerWasShort),
            status: small(number(Number::Status))?,
            error: option(Text::Error)?.map(Into::into),
            cold: yes(Number::Cold),
            attempts: small(number(Number::Attempts))?,
            worker: number(Number::Worker).checked_sub(1).map(WorkerId),
            criticality: value_of::<Criticality>(&text(Text::Criticality)?)?,
            deadline_ms: number(Number::DeadlineMs),
            deadline_from: DeadlineFrom::from_number(number(Number::DeadlineFrom)),
            queue_length: small(number(Number::QueueLength))?,
            request_bytes: number(Number::RequestBytes),
            response_bytes: number(Number::ResponseBytes),
            log_bytes: number(Number::LogBytes),
            cpu_us: number(Number::CpuUs),
            memory_peak_kib: number(Number::MemoryPeakKib),
            limit_hit: option(Text::LimitHit)?.map(Into::into),
            latency_met: number(Number::LatencyMet).checked_sub(1).map(|met| met != 0),
            degraded: option(Text::Degraded)?.map(Into::into),
            weight: small(number(Number::Weight))?,
        })
    }

    fn span_id(&self, part: Part, place: usize) -> Result<SpanId, BlocksError> {
        let bytes = self.parts[part as usize].get(place * 8..place * 8 + 8);
        bytes.and_then(|bytes| bytes.try_into().ok()).map(SpanId).ok_or(DAMAGED)
    }
}

fn small<T: TryFrom<u64>>(number: u64) -> Result<T, BlocksError> {
    T::try_from(number).map_err(|_| DAMAGED)
}

/// What is kept beside the wide events of a block.
#[derive(Debug)]
pub(super) struct Beside {
    spans: Texts,
    logs: Texts,
    result: Texts,
}

impl Beside {
    pub(super) fn read(block: &Block<'_>) -> Result<Self, BlocksError> {
        let [spans, logs, result] = [Text::Spans, Text::Logs, Text::Result].map(|text| block.texts(text));
        Ok(Self { spans: spans?, logs: logs?, result: result? })
    }

    /// A call with everything beside it.
    pub(super) fn add_to(&self, invocation: Invocation, row: usize) -> Result<Kept, BlocksError> {
        let spans: Option<Vec<Span>> =
            self.spans.get(row)?.map(|text| serde_json::from_str(&text)).transpose().map_err(|_| DAMAGED)?;
        let logs = self.logs.get(row)?.map(|text| lines_of(&text, invocation.started_us)).transpose()?;
        let result = self.result.get(row)?.map(Into::into);
        Ok(Kept { invocation, spans: spans.unwrap_or_default(), logs: logs.unwrap_or_default(), result })
    }
}
