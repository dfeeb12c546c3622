//! Questions about the calls of a file: block by block, only the columns that are asked for.

use fp_core::deadline::DeadlineFrom;
use fp_core::outcome::Sli;
use fp_core::query::{Batch, NONE, Number, Text, Totals, Words};
use fp_core::{Outcome, TraceId};

use super::events::{self, PHASES, Part, id_of, outcome_of};
use super::{Block, Blocks, BlocksError};

const DAMAGED: BlocksError = BlocksError::Damaged("a column");

impl Blocks {
    /// Adds its calls to an answer, the newest blocks first, until `goes_on` says no. Returns whether
    /// it said so.
    pub(crate) fn total(
        &self,
        totals: &mut Totals<'_>,
        mut goes_on: impl FnMut() -> bool,
    ) -> Result<bool, BlocksError> {
        for summary in self.summaries.iter().rev() {
            if !goes_on() {
                return Ok(false);
            }
            if totals.wants(summary.from_us, summary.to_us) {
                totals.add(&self.block(summary)?)?;
            }
        }
        Ok(true)
    }
}

impl Batch for Block<'_> {
    type Error = BlocksError;

    fn rows(&self) -> usize {
        self.summary.rows
    }

    fn times(&self) -> (u64, u64) {
        (self.summary.from_us, self.summary.to_us)
    }

    fn arrivals(&self) -> Result<Vec<u64>, BlocksError> {
        self.started_us()
    }

    fn numbers(&self, field: Number) -> Result<Vec<u64>, BlocksError> {
        let column = |number: events::Number| Block::numbers(self, number);
        let scaled = |number: events::Number, by: u64| {
            let scale = |value: u64| value.saturating_mul(by);
            Ok(column(number)?.into_iter().map(scale).collect())
        };
        // Kept as one more than the value, 0 being none.
        let optional = |number: events::Number| {
            let value = |kept: u64| kept.checked_sub(1).unwrap_or(NONE);
            Ok(column(number)?.into_iter().map(value).collect())
        };
        match field {
            Number::Duration => {
                let mut sum = column(PHASES[0])?;
                for phase in &PHASES[1..] {
                    sum.iter_mut().zip(column(*phase)?).for_each(|(sum, ns)| *sum = sum.saturating_add(ns));
                }
                Ok(sum)
            }
            Number::Route => column(events::Number::Route),
            Number::Queue => column(events::Number::Queue),
            Number::Start => column(events::Number::Start),
            Number::Run => column(events::Number::Run),
            Number::Send => column(events::Number::Send),
            Number::Status => column(events::Number::Status),
            Number::Version => column(events::Number::Version),
            Number::Attempts => column(events::Number::Attempts),
            Number::Worker => optional(events::Number::Worker),
            Number::Deadline => scaled(events::Number::DeadlineMs, 1_000_000),
            Number::QueueLength => column(events::Number::QueueLength),
            Number::RequestBytes => column(events::Number::RequestBytes),
            Number::ResponseBytes => column(events::Number::ResponseBytes),
            Number::LogBytes => column(events::Number::LogBytes),
            Number::Cpu => scaled(events::Number::CpuUs, 1_000),
            Number::MemoryPeak => scaled(events::Number::MemoryPeakKib, 1_024),
            Number::Cold => column(events::Number::Cold),
            Number::CallerWasShort => column(events::Number::CallerWasShort),
            Number::LatencyMet => optional(events::Number::LatencyMet),
            Number::Weight => column(events::Number::Weight),
        }
    }

    fn texts(&self, field: Text) -> Result<Words, BlocksError> {
        let column = |text: events::Text| {
            let (words, codes) = Block::texts(self, text)?.into_words()?;
            Ok(Words { words, codes })
        };
        match field {
            Text::Tenant => column(events::Text::Tenant),
            Text::Function => column(events::Text::Function),
            Text::EventType => column(events::Text::EventType),
            Text::Trigger => column(events::Text::Trigger),
            Text::Verb => column(events::Text::Verb),
            Text::Path => column(events::Text::Path),
            Text::CorrelationId => column(events::Text::CorrelationId),
            Text::Blame => column(events::Text::Blame),
            Text::Error => column(events::Text::Error),
            Text::Criticality => column(events::Text::Criticality),
            Text::LimitHit => column(events::Text::LimitHit),
            Text::Degraded => column(events::Text::Degraded),
            Text::CalledBy => column(events::Text::CalledBy),
            Text::Outcome => self.outcomes(|outcome| Some(outcome.word())),
            Text::Reason => self.outcomes(Outcome::reason),
            Text::DeadlineFrom => {
                let (mut words, mut places) = (Words::default(), Default::default());
                for number in Block::numbers(self, events::Number::DeadlineFrom)? {
                    words.push(DeadlineFrom::from_number(number).word(), &mut places);
                }
                Ok(words)
            }
        }
    }

    fn verdicts(&self) -> Result<Vec<bool>, BlocksError> {
        let (words, codes) = Block::texts(self, events::Text::Outcome)?.into_words()?;
        let outcomes = words.iter().map(|words| outcome_of(words).ok_or(DAMAGED));
        let is_bad = |outcome: Outcome| [false, true].map(|short| outcome.sli(short) == Sli::Bad);
        let bad = outcomes.map(|outcome| outcome.map(is_bad)).collect::<Result<Vec<_>, _>>()?;
        let short = Block::numbers(self, events::Number::CallerWasShort)?;
        let verdict = |(code, short): (&u32, &u64)| {
            let place = code.checked_sub(1).ok_or(DAMAGED)?;
            Ok(bad.get(place as usize).ok_or(DAMAGED)?[usize::from(*short != 0)])
        };
        codes.iter().zip(&short).map(verdict).collect()
    }

    fn trace(&self, row: usize) -> Result<TraceId, BlocksError> {
        let (random, started) = (self.part(Part::Trace)?, self.started_us()?);
        let times = Block::numbers(self, events::Number::TraceTime)?;
        let id = || id_of(*times.get(row)?, *started.get(row)?, random.get(row * 10..)?);
        id().map(TraceId).ok_or(DAMAGED)
    }
}

impl Block<'_> {
    /// What an outcome's one text is split into.
    fn outcomes(&self, part: impl Fn(Outcome) -> Option<&'static str>) -> Result<Words, BlocksError> {
        let (words, codes) = self.texts(events::Text::Outcome)?.into_words()?;
        let (mut parts, mut places) = (Words::default(), Default::default());
        let mut one = |words: &str| {
            let outcome = outcome_of(words).ok_or(DAMAGED)?;
            parts.push(part(outcome), &mut places);
            Ok::<(), BlocksError>(())
        };
        words.iter().try_for_each(|words| one(words))?;
        // So far there is a row for each text; the rows of the column are these.
        let of_text = std::mem::take(&mut parts.codes);
        let code = |code: &u32| code.checked_sub(1).map_or(0, |place| of_text[place as usize]);
        parts.codes = codes.iter().map(code).collect();
        Ok(parts)
    }
}
