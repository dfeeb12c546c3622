//! The answer as it grows: groups of calls, their counts and how the measure is spread.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::batch::Batch;
use super::field::{NONE, Number, Text};
use super::spread::Spread;
use super::{By, Column, MAX_GROUPS, Query};
use crate::ids::{Tenant, TraceId};

/// Combinations of two columns up to which a table is used instead of a map.
const TABLE: usize = 1 << 16;

/// Calls that may be looked at: a tenant's of some time, Unix time in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Whose.
    pub tenant: Tenant,
    /// Arrived then or later.
    pub from_us: u64,
    /// Arrived before.
    pub to_us: u64,
}

impl Seen {
    fn has(&self, us: u64) -> bool {
        (self.from_us..self.to_us).contains(&us)
    }
}

/// The value of a field that is grouped by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A number in the unit of its kind; [`NONE`] if there is none.
    Number(u64),
    /// A text, or none.
    Text(Option<Box<str>>),
    /// The beginning of a stretch of time, Unix time in microseconds.
    Time(u64),
}

/// A row of the answer.
#[derive(Debug, Clone)]
pub struct Row {
    /// What is alike in its calls, in the order of `group by`.
    pub key: Vec<Key>,
    /// Calls.
    pub count: u64,
    /// Calls that were bad for the availability objective.
    pub failed: u64,
    /// How the measure is spread over them.
    pub spread: Spread,
    /// The trace of the call with the largest measure.
    pub slowest: Option<TraceId>,
}

/// The question makes more groups than [`MAX_GROUPS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the question makes more than {MAX_GROUPS} groups; group by fewer fields, or by one with fewer values"
)]
pub struct TooManyGroups;

#[derive(Debug, Clone, Default)]
struct Group {
    count: u64,
    failed: u64,
    spread: Spread,
    slowest: Option<(u64, TraceId)>,
}

/// What is known after some batches.
#[derive(Debug, Clone)]
pub struct Totals<'a> {
    query: &'a Query,
    seen: Vec<Seen>,
    places: BTreeMap<Vec<Key>, usize>,
    groups: Vec<Group>,
    is_over: bool,
}

impl<'a> Totals<'a> {
    /// Nothing yet.
    pub fn new(query: &'a Query, seen: Vec<Seen>) -> Self {
        Self { query, seen, places: BTreeMap::new(), groups: Vec::new(), is_over: false }
    }

    /// Whether there are too many groups already: no more batch would change the answer.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whose calls may be looked at.
    pub fn tenants(&self) -> Vec<Tenant> {
        self.seen.iter().map(|seen| seen.tenant.clone()).collect()
    }

    /// Whether calls that arrived in a time, both ends included, could change the answer.
    pub fn wants(&self, first_us: u64, last_us: u64) -> bool {
        !self.is_over && self.seen.iter().any(|seen| last_us >= seen.from_us && first_us < seen.to_us)
    }

    /// Adds the calls of a batch that the question is about.
    ///
    /// # Errors
    /// When one of its columns cannot be read; nothing of the batch is added then.
    pub fn add<B: Batch>(&mut self, batch: &B) -> Result<(), B::Error> {
        let (first, last) = batch.times();
        if !self.wants(first, last) {
            return Ok(());
        }
        let rows = self.rows_of(batch)?;
        if rows.is_empty() {
            return Ok(());
        }
        let (groups, keys) = group(&self.query.group_by, batch, &rows)?;
        let (weights, bad) = (batch.numbers(Number::Weight)?, batch.verdicts()?);
        let measures = batch.numbers(self.query.measure)?;
        let mut largest: Vec<Option<(u64, usize)>> = vec![None; keys.len()];
        for (row, group) in rows.iter().zip(&groups) {
            let measure = measures[*row as usize];
            let largest = &mut largest[*group as usize];
            if measure != NONE && largest.is_none_or(|(most, _)| measure > most) {
                *largest = Some((measure, *row as usize));
            }
        }
        let Some(places) = self.places_of(keys) else { return Ok(()) };
        // Asked for only where it is the largest of all so far: a look at a trace's id is a look at
        // one more column.
        let mut slowest = Vec::with_capacity(places.len());
        for (place, largest) in places.iter().zip(largest) {
            let before = self.groups[*place].slowest.map(|(most, _)| most);
            let new = largest.filter(|(most, _)| before.is_none_or(|before| *most > before));
            slowest.push(new.map(|(most, row)| Ok((most, batch.trace(row)?))).transpose()?);
        }
        for (place, slowest) in places.iter().zip(slowest) {
            self.groups[*place].slowest = slowest.or(self.groups[*place].slowest);
        }
        for (row, group) in rows.into_iter().zip(groups) {
            let (row, group) = (row as usize, &mut self.groups[places[group as usize]]);
            let weight = weights[row];
            group.count += weight;
            group.failed += if bad[row] { weight } else { 0 };
            if measures[row] != NONE {
                group.spread.add(measures[row], weight);
            }
        }
        Ok(())
    }

    /// Rows that may be seen and pass the filter.
    fn rows_of<B: Batch>(&self, batch: &B) -> Result<Vec<u32>, B::Error> {
        let mut marks = vec![true; batch.rows()];
        let texts = batch.texts(Text::Tenant)?;
        let seen_of = |word: &str| self.seen.iter().find(|seen| seen.tenant.as_str() == word);
        let seen: Vec<Option<&Seen>> = texts.words.iter().map(|word| seen_of(word)).collect();
        let (first, last) = batch.times();
        if !seen.iter().all(|seen| seen.is_some_and(|seen| seen.has(first) && seen.has(last))) {
            let of = |code: u32| *seen.get(code.checked_sub(1)? as usize)?;
            for ((mark, code), us) in marks.iter_mut().zip(&texts.codes).zip(batch.arrivals()?) {
                *mark = of(*code).is_some_and(|seen| seen.has(us));
            }
        }
        self.query.filter.retain(batch, &mut marks)?;
        Ok(marks.iter().zip(0..).filter(|(mark, _)| **mark).map(|(_, row)| row).collect())
    }

    /// The groups of these keys, made where there are none; none when there are too many.
    fn places_of(&mut self, keys: Vec<Vec<Key>>) -> Option<Vec<usize>> {
        let mut places = Vec::with_capacity(keys.len());
        for key in keys {
            let next = self.groups.len();
            let place = *self.places.entry(key).or_insert(next);
            if place == next {
                self.groups.push(Group::default());
            }
            places.push(place);
        }
        self.is_over = self.groups.len() > MAX_GROUPS;
        (!self.is_over).then_some(places)
    }

    /// Adds what another has of the same question.
    pub fn merge(&mut self, other: Self) {
        self.is_over |= other.is_over;
        let (keys, from): (Vec<_>, Vec<_>) = other.places.into_iter().unzip();
        let Some(places) = self.places_of(keys) else { return };
        for (place, from) in places.into_iter().zip(from) {
            let (ours, theirs) = (&mut self.groups[place], &other.groups[from]);
            ours.count += theirs.count;
            ours.failed += theirs.failed;
            ours.spread.merge(&theirs.spread);
            let longer = theirs.slowest.filter(|(most, _)| ours.slowest.is_none_or(|(ours, _)| *most > ours));
            ours.slowest = longer.or(ours.slowest);
        }
    }

    /// The rows in the question's order, and how many its limit left out.
    ///
    /// # Errors
    /// When there were too many groups.
    pub fn into_rows(self) -> Result<(Vec<Row>, usize), TooManyGroups> {
        if self.is_over {
            return Err(TooManyGroups);
        }
        let mut groups: Vec<Option<Group>> = self.groups.into_iter().map(Some).collect();
        let row = |(key, place): (Vec<Key>, usize)| {
            let Group { count, failed, spread, slowest } = groups[place].take()?;
            Some(Row { key, count, failed, spread, slowest: slowest.map(|(_, trace)| trace) })
        };
        let mut rows: Vec<Row> = self.places.into_iter().filter_map(row).collect();
        let Query { order, descending, limit, .. } = self.query;
        rows.sort_by(|a, b| {
            let ordering = compare(*order, a, b);
            let ordering = if *descending { ordering.reverse() } else { ordering };
            ordering.then_with(|| a.key.cmp(&b.key))
        });
        let left_out = rows.len().saturating_sub(*limit);
        rows.truncate(*limit);
        Ok((rows, left_out))
    }
}

fn compare(by: Column, a: &Row, b: &Row) -> Ordering {
    let numbers = |of: fn(&Row) -> Option<f64>| of(a).unwrap_or(-1.0).total_cmp(&of(b).unwrap_or(-1.0));
    match by {
        Column::Count => a.count.cmp(&b.count),
        Column::Failed => a.failed.cmp(&b.failed),
        Column::FailedShare => numbers(|row| Some(row.failed_share())),
        Column::Mean => numbers(|row| row.spread.mean()),
        Column::Max => a.spread.max().cmp(&b.spread.max()),
        Column::Percentile(per_mille) => {
            let of = |row: &Row| row.spread.percentile(per_mille).unwrap_or(-1.0);
            of(a).total_cmp(&of(b))
        }
        Column::Group(place) => a.key.get(place).cmp(&b.key.get(place)),
    }
}

impl Row {
    /// The part of its calls that was bad.
    pub fn failed_share(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.failed as f64 / self.count as f64 }
    }
}

/// By row the place of its group among these keys, and the keys.
type Groups = (Vec<u32>, Vec<Vec<Key>>);

/// The groups of these rows.
fn group<B: Batch>(by: &[By], batch: &B, rows: &[u32]) -> Result<Groups, B::Error> {
    let mut groups = vec![0; rows.len()];
    let mut keys = vec![Vec::with_capacity(by.len())];
    for by in by {
        let (codes, values) = codes_of(*by, batch, rows)?;
        (groups, keys) = split(groups, keys, codes, &values);
    }
    Ok((groups, keys))
}

/// Groups by one column more.
fn split(groups: Vec<u32>, keys: Vec<Vec<Key>>, codes: Vec<u32>, values: &[Key]) -> Groups {
    let mut split_keys: Vec<Vec<Key>> = Vec::new();
    let mut new = |group: u32, code: u32| {
        split_keys.push([keys[group as usize].as_slice(), &values[code as usize..=code as usize]].concat());
        split_keys.len() as u32
    };
    let pairs = groups.into_iter().zip(codes);
    let split_groups = if keys.len() * values.len() <= TABLE {
        let mut table = vec![0u32; keys.len() * values.len()];
        let place = |(group, code)| {
            let entry = &mut table[group as usize * values.len() + code as usize];
            if *entry == 0 {
                *entry = new(group, code);
            }
            *entry - 1
        };
        pairs.map(place).collect()
    } else {
        let mut map: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        pairs.map(|(group, code)| *map.entry((group, code)).or_insert_with(|| new(group, code)) - 1).collect()
    };
    (split_groups, split_keys)
}

/// A column as places among its different values.
fn codes_of<B: Batch>(by: By, batch: &B, rows: &[u32]) -> Result<(Vec<u32>, Vec<Key>), B::Error> {
    let numbers = |column: &[u64], key: fn(u64) -> Key, width: u64| {
        let (mut places, mut values) = (BTreeMap::new(), Vec::new());
        let code = |row: &u32| {
            let number = column[*row as usize] / width * width;
            *places.entry(number).or_insert_with(|| {
                values.push(key(number));
                values.len() as u32 - 1
            })
        };
        let codes = rows.iter().map(code).collect();
        (codes, values)
    };
    match by {
        By::Number(field) => Ok(numbers(&batch.numbers(field)?, Key::Number, 1)),
        By::Time(width) => Ok(numbers(&batch.arrivals()?, Key::Time, width.max(1))),
        By::Text(field) => {
            let texts = batch.texts(field)?;
            let values = std::iter::once(None).chain(texts.words.into_iter().map(Some)).map(Key::Text);
            Ok((rows.iter().map(|row| texts.codes[*row as usize]).collect(), values.collect()))
        }
    }
}

#[cfg(test)]
mod tests;
