//! Calls as columns, wherever they are kept.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::field::{Number, Text};
use crate::ids::TraceId;
use crate::outcome::Sli;
use crate::record::Invocation;

/// A column of texts: each different one once, and which one a row has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// The texts.
    pub words: Vec<Box<str>>,
    /// By row: 0 is none, else one more than the place of its text.
    pub codes: Vec<u32>,
}

impl Words {
    /// Adds a row.
    pub fn push(&mut self, text: Option<&str>, places: &mut BTreeMap<Box<str>, u32>) {
        let code = match text {
            None => 0,
            Some(text) => places.get(text).copied().unwrap_or_else(|| {
                self.words.push(text.into());
                let code = self.words.len() as u32;
                places.insert(text.into(), code);
                code
            }),
        };
        self.codes.push(code);
    }

    /// The text of a row.
    pub fn get(&self, row: usize) -> Option<&str> {
        let place = self.codes.get(row)?.checked_sub(1)?;
        self.words.get(place as usize).map(|word| &**word)
    }
}

/// Some calls, any number, in any order. Columns have a value for every row.
pub trait Batch {
    /// Why a column cannot be had.
    type Error;

    /// How many calls.
    fn rows(&self) -> usize;

    /// The first and the last arrival, Unix time in microseconds; bounds suffice.
    fn times(&self) -> (u64, u64);

    /// Arrivals, Unix time in microseconds.
    ///
    /// # Errors
    /// When they cannot be read; so with the others.
    fn arrivals(&self) -> Result<Vec<u64>, Self::Error>;

    /// A field by row, as [`Number::of`] says it.
    ///
    /// # Errors
    /// When it cannot be read.
    fn numbers(&self, field: Number) -> Result<Vec<u64>, Self::Error>;

    /// A field by row, as [`Text::of`] says it.
    ///
    /// # Errors
    /// When it cannot be read.
    fn texts(&self, field: Text) -> Result<Words, Self::Error>;

    /// Whether each call was bad for the availability objective.
    ///
    /// # Errors
    /// When that cannot be read.
    fn verdicts(&self) -> Result<Vec<bool>, Self::Error>;

    /// The trace of one call.
    ///
    /// # Errors
    /// When it cannot be read.
    fn trace(&self, row: usize) -> Result<TraceId, Self::Error>;
}

/// Calls in memory.
#[derive(Debug, Clone, Copy)]
pub struct Calls<'a>(pub &'a [Invocation]);

impl Batch for Calls<'_> {
    type Error = Infallible;

    fn rows(&self) -> usize {
        self.0.len()
    }

    fn times(&self) -> (u64, u64) {
        let arrivals = || self.0.iter().map(|call| call.started_us);
        (arrivals().min().unwrap_or(0), arrivals().max().unwrap_or(0))
    }

    fn arrivals(&self) -> Result<Vec<u64>, Infallible> {
        Ok(self.0.iter().map(|call| call.started_us).collect())
    }

    fn numbers(&self, field: Number) -> Result<Vec<u64>, Infallible> {
        Ok(self.0.iter().map(|call| field.of(call)).collect())
    }

    fn texts(&self, field: Text) -> Result<Words, Infallible> {
        let (mut words, mut places) = (Words::default(), BTreeMap::new());
        self.0.iter().for_each(|call| words.push(field.of(call).as_deref(), &mut places));
        Ok(words)
    }

    fn verdicts(&self) -> Result<Vec<bool>, Infallible> {
        Ok(self.0.iter().map(|call| call.outcome.sli(call.caller_was_short) == Sli::Bad).collect())
    }

    fn trace(&self, row: usize) -> Result<TraceId, Infallible> {
        Ok(self.0[row].trace_id)
    }
}
