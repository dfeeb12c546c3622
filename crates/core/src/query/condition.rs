//! Which calls a question is about.

use super::batch::{Batch, Words};
use super::field::{NONE, Number, Text};
use crate::glob;

/// A condition on a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// None: every call passes.
    All,
    /// One field.
    Test(Test),
    /// The opposite.
    Not(Box<Condition>),
    /// All of these.
    And(Vec<Condition>),
    /// One of these at least.
    Or(Vec<Condition>),
}

/// What one field must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// The number is one of these; [`NONE`] is "there is none".
    NumberIn(Number, Vec<u64>),
    /// There is a number, and it is within these bounds, both included.
    Within(Number, u64, u64),
    /// The text is one of these; `None` is "there is none".
    TextIn(Text, Vec<Option<String>>),
    /// There is a text, and one of the globs matches it.
    Like(Text, Vec<String>),
}

impl Condition {
    /// Shows every test in it.
    pub(super) fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Test)) {
        match self {
            Self::All => {}
            Self::Test(test) => see(test),
            Self::Not(condition) => condition.visit(see),
            Self::And(many) | Self::Or(many) => many.iter().for_each(|condition| condition.visit(see)),
        }
    }

    /// Takes the marks of those rows away that do not pass. Rows without a mark are not looked at,
    /// and no column is asked for when none has one.
    pub(super) fn retain<B: Batch>(&self, batch: &B, rows: &mut [bool]) -> Result<(), B::Error> {
        if !rows.contains(&true) {
            return Ok(());
        }
        match self {
            Self::All => Ok(()),
            Self::Test(test) => test.retain(batch, rows),
            Self::And(all) => all.iter().try_for_each(|condition| condition.retain(batch, rows)),
            Self::Not(condition) => {
                let mut passed = rows.to_vec();
                condition.retain(batch, &mut passed)?;
                rows.iter_mut().zip(passed).for_each(|(row, passed)| *row &= !passed);
                Ok(())
            }
            Self::Or(any) => {
                let mut open = rows.to_vec();
                for condition in any {
                    let mut passed = open.clone();
                    condition.retain(batch, &mut passed)?;
                    open.iter_mut().zip(passed).for_each(|(open, passed)| *open &= !passed);
                }
                rows.iter_mut().zip(open).for_each(|(row, open)| *row &= !open);
                Ok(())
            }
        }
    }
}

impl Test {
    fn retain<B: Batch>(&self, batch: &B, rows: &mut [bool]) -> Result<(), B::Error> {
        match self {
            Self::NumberIn(field, values) => {
                let numbers = batch.numbers(*field)?;
                rows.iter_mut().zip(numbers).for_each(|(row, number)| *row &= values.contains(&number));
            }
            Self::Within(field, least, most) => {
                let is_within = |number| number != NONE && (*least..=*most).contains(&number);
                rows.iter_mut()
                    .zip(batch.numbers(*field)?)
                    .for_each(|(row, number)| *row &= is_within(number));
            }
            Self::TextIn(field, values) => {
                let is_one = |text: Option<&str>| values.iter().any(|value| value.as_deref() == text);
                retain_texts(&batch.texts(*field)?, is_one, rows);
            }
            Self::Like(field, globs) => {
                let is_like = |text: Option<&str>| {
                    text.is_some_and(|text| globs.iter().any(|wanted| glob::matches(wanted, text)))
                };
                retain_texts(&batch.texts(*field)?, is_like, rows);
            }
        }
        Ok(())
    }
}

/// Looks at each different text once.
fn retain_texts(texts: &Words, passes: impl Fn(Option<&str>) -> bool, rows: &mut [bool]) {
    let of_none = passes(None);
    let passing: Vec<bool> = texts.words.iter().map(|word| passes(Some(word))).collect();
    let passed = |code: &u32| match code.checked_sub(1) {
        None => of_none,
        Some(place) => passing.get(place as usize).copied().unwrap_or(false),
    };
    rows.iter_mut().zip(&texts.codes).for_each(|(row, code)| *row &= passed(code));
}
