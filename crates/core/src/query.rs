//! Questions about many calls: which, in which time, grouped by what.
//!
//! ```text
//! outcome != "ok" and phase.queue > 50ms since 1h group by function, tenant
//! ```
//!
//! [`Query::parse`] reads one; a [`Totals`] takes [`Batch`]es of calls, wherever they are kept, and
//! answers with counts, rates and percentiles by group. A batch gives whole columns, and only those
//! that the question names: columns are what history keeps, and a question of three fields then costs
//! three of fifty.

mod batch;
mod condition;
mod field;
mod parse;
mod spread;
mod totals;

pub use batch::{Batch, Calls, Words};
pub use condition::{Condition, Test};
pub use field::{Kind, NONE, Number, Text};
pub use parse::QueryError;
pub use spread::Spread;
pub use totals::{Key, Row, Seen, TooManyGroups, Totals};

/// Rows of an answer where the question names no number.
pub const DEFAULT_LIMIT: usize = 100;

/// Most groups that a question may make: each holds its distribution, some KiB.
pub const MAX_GROUPS: usize = 5_000;

/// Most fields to group by, tests in a condition, and levels of brackets: what a person writes, and
/// far below what would hold up a reader.
pub const MAX_FIELDS: usize = 8;
/// See [`MAX_FIELDS`].
pub const MAX_TESTS: usize = 64;
/// See [`MAX_FIELDS`].
pub const MAX_DEPTH: usize = 16;

/// What to group by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Equal texts.
    Text(Text),
    /// Equal numbers.
    Number(Number),
    /// Arrivals of the same stretch of so many microseconds, counted from the Unix epoch.
    Time(u64),
}

/// A column of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Calls.
    Count,
    /// Calls that were bad for the availability objective.
    Failed,
    /// Their part of all.
    FailedShare,
    /// Mean of the measure.
    Mean,
    /// A percentile of the measure, in tenths of a percent.
    Percentile(u16),
    /// Its largest value.
    Max,
    /// A field that is grouped by, by its place.
    Group(usize),
}

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Which calls.
    pub filter: Condition,
    /// Calls that arrived then or later, as written: an age, `1h`, or a time.
    pub since: Option<String>,
    /// Calls that arrived before, as written.
    pub until: Option<String>,
    /// One row for each combination of these; a single row without.
    pub group_by: Vec<By>,
    /// What percentiles are of.
    pub measure: Number,
    /// By which column rows are ordered; the largest first if `descending`.
    pub order: Column,
    /// The largest first.
    pub descending: bool,
    /// Most rows of the answer.
    pub limit: usize,
}

impl Query {
    /// Reads a question.
    ///
    /// # Errors
    /// Where it cannot be read: at which character, what stands there and what may.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        parse::query(text)
    }

    /// The fields that an answer is made from: numbers and texts, each once.
    pub fn columns(&self) -> (Vec<Number>, Vec<Text>) {
        let (mut numbers, mut texts) = (vec![Number::Weight, self.measure], vec![Text::Tenant]);
        self.filter.visit(&mut |test| match test {
            Test::NumberIn(field, _) | Test::Within(field, ..) => numbers.push(*field),
            Test::TextIn(field, _) | Test::Like(field, _) => texts.push(*field),
        });
        for by in &self.group_by {
            match by {
                By::Number(field) => numbers.push(*field),
                By::Text(field) => texts.push(*field),
                By::Time(_) => {}
            }
        }
        (distinct(numbers), distinct(texts))
    }

    /// The function that all calls must be of, where the condition says that there is one: what an
    /// index is for.
    pub fn only_function(&self) -> Option<&str> {
        fn of(condition: &Condition) -> Option<&str> {
            match condition {
                Condition::Test(Test::TextIn(Text::Function, names)) if names.len() == 1 => {
                    names[0].as_deref()
                }
                Condition::And(all) => all.iter().find_map(of),
                _ => None,
            }
        }
        of(&self.filter)
    }
}

fn distinct<T: PartialEq>(fields: Vec<T>) -> Vec<T> {
    let mut once: Vec<T> = Vec::with_capacity(fields.len());
    for field in fields {
        if !once.contains(&field) {
            once.push(field);
        }
    }
    once
}
