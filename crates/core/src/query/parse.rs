//! Reading a question.
//!
//! ```text
//! question  = [ condition ] { clause }
//! clause    = "since" TIME | "until" TIME | "group" "by" by { "," by } | "of" NUMBER
//!           | "order" "by" column [ "asc" | "desc" ] | "limit" COUNT
//! condition = both { "or" both }            both = single { "and" single }
//! single    = "not" single | "(" condition ")" | test
//! test      = TRUTH | FIELD op value | FIELD [ "not" ] "in" "(" value { "," value } ")"
//! op        = "=" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~"
//! by        = FIELD | "time" "(" DURATION ")"
//! ```

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;

use super::condition::{Condition, Test};
use super::field::{self, Kind, NONE, Number, Text};
use super::{By, Column, DEFAULT_LIMIT, MAX_DEPTH, MAX_FIELDS, MAX_GROUPS, MAX_TESTS, Query};
use crate::nearest::nearest;

/// Longest question: a hundred times what a person writes.
const MAX_BYTES: usize = 8 << 10;

/// A question that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {what}")]
pub struct QueryError {
    /// Which character, counted from 1.
    pub at: usize,
    /// What is wrong there, and what may stand there.
    pub what: String,
}

/// A piece of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A word or a number, as it stands.
    Bare(String),
    /// A text in quotation marks.
    Quoted(String),
    /// `=`, `<=`, `(`, …
    Sign(&'static str),
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bare(word) => write!(f, "{word:?}"),
            Self::Quoted(text) => write!(f, "the text {text:?}"),
            Self::Sign(sign) => write!(f, "{sign:?}"),
            Self::End => write!(f, "the end"),
        }
    }
}

/// Longer signs first.
const SIGNS: [&str; 12] = ["==", "!=", "<=", ">=", "!~", "=", "<", ">", "~", "(", ")", ","];

/// Where a word ends without a blank.
const ENDS_WORD: &str = "=!<>~(),\"'";

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, QueryError> {
    if text.len() > MAX_BYTES {
        return Err(QueryError { at: 1, what: format!("the question is longer than {MAX_BYTES} bytes") });
    }
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut tokens) = (0, Vec::new());
    while let Some(first) = chars.get(at) {
        let begin = at;
        let token = match first {
            blank if blank.is_whitespace() => {
                at += 1;
                continue;
            }
            '"' | '\'' => quoted(&chars, &mut at)?,
            _ => {
                match SIGNS.iter().find(|sign| sign.chars().eq(chars[at..].iter().copied().take(sign.len())))
                {
                    Some(sign) => {
                        at += sign.len();
                        Token::Sign(sign)
                    }
                    None if ENDS_WORD.contains(*first) => {
                        return Err(QueryError { at: at + 1, what: format!("{first:?} means nothing here") });
                    }
                    None => {
                        let ends = |c: &char| c.is_whitespace() || ENDS_WORD.contains(*c);
                        let length = chars[at..].iter().position(ends).unwrap_or(chars.len() - at);
                        at += length;
                        Token::Bare(chars[begin..at].iter().collect())
                    }
                }
            }
        };
        tokens.push((begin + 1, token));
    }
    tokens.push((chars.len() + 1, Token::End));
    Ok(tokens)
}

/// A text in quotation marks of either kind; a backslash takes what follows as it is.
fn quoted(chars: &[char], at: &mut usize) -> Result<Token, QueryError> {
    let (begin, mark) = (*at, chars[*at]);
    let mut text = String::new();
    let mut rest = chars[*at + 1..].iter().zip(*at + 1..);
    while let Some((c, place)) = rest.next() {
        match c {
            '\\' => text.extend(rest.next().map(|(c, _)| *c)),
            c if *c == mark => {
                *at = place + 1;
                return Ok(Token::Quoted(text));
            }
            c => text.push(*c),
        }
    }
    Err(QueryError { at: begin + 1, what: format!("the text that begins here has no closing {mark}") })
}

pub(super) fn query(text: &str) -> Result<Query, QueryError> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, last: 0, tests: 0 };
    parser.query()
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    /// The token that was taken last.
    last: usize,
    tests: usize,
}

/// What begins something else than a condition.
const CLAUSES: [&str; 6] = ["since", "until", "group", "of", "order", "limit"];

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].1
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.last = self.at;
        self.at += usize::from(token != Token::End);
        token
    }

    /// An error at the token that comes next.
    fn refuse<T>(&self, what: impl Into<String>) -> Result<T, QueryError> {
        Err(QueryError { at: self.tokens[self.at].0, what: what.into() })
    }

    /// The same for the one before.
    fn refuse_last<T>(&mut self, what: impl Into<String>) -> Result<T, QueryError> {
        self.at = self.last;
        self.refuse(what)
    }

    fn takes(&mut self, word: &str) -> bool {
        let is_it = matches!(self.peek(), Token::Bare(found) if found.eq_ignore_ascii_case(word));
        self.at += usize::from(is_it);
        is_it
    }

    fn takes_sign(&mut self, sign: &str) -> bool {
        let is_it = matches!(self.peek(), Token::Sign(found) if *found == sign);
        self.at += usize::from(is_it);
        is_it
    }

    fn expect(&mut self, word: &str) -> Result<(), QueryError> {
        if self.takes(word) {
            Ok(())
        } else {
            self.refuse(format!("{} stands where {word:?} must", self.peek()))
        }
    }

    fn expect_sign(&mut self, sign: &str) -> Result<(), QueryError> {
        if self.takes_sign(sign) {
            return Ok(());
        }
        self.refuse(format!("{} stands where {sign:?} must", self.peek()))
    }

    fn query(&mut self) -> Result<Query, QueryError> {
        let is_clause = |token: &Token| matches!(token, Token::Bare(word) if CLAUSES.contains(&word.to_ascii_lowercase().as_str()));
        let filter = match self.peek() {
            Token::End => Condition::All,
            token if is_clause(token) => Condition::All,
            _ => self.condition(0)?,
        };
        let mut query = Query {
            filter,
            since: None,
            until: None,
            group_by: Vec::new(),
            measure: Number::Duration,
            order: Column::Count,
            descending: true,
            limit: DEFAULT_LIMIT,
        };
        let (mut order, mut read) = (None, Vec::new());
        loop {
            let begin = self.at;
            let clause = match self.next() {
                Token::End => break,
                Token::Bare(word) => word.to_ascii_lowercase(),
                _ => String::new(),
            };
            if read.contains(&clause) {
                self.at = begin;
                return self.refuse(format!("{clause:?} stands here a second time"));
            }
            match clause.as_str() {
                "since" => query.since = Some(self.time()?),
                "until" => query.until = Some(self.time()?),
                "group" => query.group_by = self.group_by()?,
                "of" => query.measure = self.measure()?,
                "order" => order = Some(self.order()?),
                "limit" => query.limit = self.limit()?,
                _ => {
                    self.at = begin;
                    return self.refuse(format!(
                        "{} stands where \"and\", \"or\" or one of {} must",
                        self.peek(),
                        CLAUSES.join(", ")
                    ));
                }
            }
            read.push(clause);
        }
        let by_time = query.group_by.iter().position(|by| matches!(by, By::Time(_)));
        if let Some(place) = by_time {
            (query.order, query.descending) = (Column::Group(place), false);
        }
        if let Some((at, name, descending)) = order {
            query.order = column(&name, &query.group_by)
                .ok_or_else(|| QueryError { at, what: unknown_column(&name) })?;
            query.descending = descending.unwrap_or(!matches!(query.order, Column::Group(_)));
        }
        Ok(query)
    }

    fn condition(&mut self, depth: usize) -> Result<Condition, QueryError> {
        let mut any = vec![self.both(depth)?];
        while self.takes("or") {
            any.push(self.both(depth)?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Condition::Or(any) })
    }

    fn both(&mut self, depth: usize) -> Result<Condition, QueryError> {
        let mut all = vec![self.single(depth)?];
        while self.takes("and") {
            all.push(self.single(depth)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Condition::And(all) })
    }

    fn single(&mut self, depth: usize) -> Result<Condition, QueryError> {
        if depth > MAX_DEPTH {
            return self.refuse(format!("brackets and \"not\" go {MAX_DEPTH} deep, and no deeper"));
        }
        if self.takes("not") {
            return Ok(match self.single(depth + 1)? {
                // Of what is neither true nor false, `not` is no answer.
                Condition::Test(Test::NumberIn(field, values))
                    if field.kind() == Kind::Truth && values == [1] =>
                {
                    Condition::Test(Test::NumberIn(field, vec![0]))
                }
                other => Condition::Not(Box::new(other)),
            });
        }
        if self.takes_sign("(") {
            let inner = self.condition(depth + 1)?;
            self.expect_sign(")")?;
            return Ok(inner);
        }
        self.tests += 1;
        if self.tests > MAX_TESTS {
            return self.refuse(format!("a question has at most {MAX_TESTS} tests"));
        }
        self.test()
    }

    fn test(&mut self) -> Result<Condition, QueryError> {
        let at = self.at;
        match self.field()? {
            By::Number(field) => self.number_test(field),
            By::Text(field) => self.text_test(field),
            By::Time(_) => {
                self.at = at;
                self.refuse("\"time\" is only for \"group by\"; say \"since\" and \"until\" for a time")
            }
        }
    }

    fn field(&mut self) -> Result<By, QueryError> {
        let name = match self.peek() {
            Token::Bare(name) => name.clone(),
            other => return self.refuse(format!("{other} stands where a field must")),
        };
        if name == "time" {
            self.at += 1;
            return Ok(By::Time(0));
        }
        match (Number::named(&name), Text::named(&name)) {
            (Some(field), _) => {
                self.at += 1;
                Ok(By::Number(field))
            }
            (None, Some(field)) => {
                self.at += 1;
                Ok(By::Text(field))
            }
            (None, None) => self.refuse(unknown_field(&name)),
        }
    }

    fn number_test(&mut self, field: Number) -> Result<Condition, QueryError> {
        let sign = match self.peek() {
            Token::Sign(sign) if *sign != "(" && *sign != ")" && *sign != "," => *sign,
            Token::Bare(word) if word == "in" || word == "not" => "in",
            _ if field.kind() == Kind::Truth => return Ok(Condition::Test(Test::NumberIn(field, vec![1]))),
            other => return self.refuse(format!("{other} stands where {} is compared", field.name())),
        };
        if sign == "in" {
            let is_not = self.takes("not");
            self.expect("in")?;
            let values = self.list(|parser| parser.number(field))?;
            return Ok(negated(Test::NumberIn(field, values), is_not));
        }
        self.next();
        if sign.ends_with('~') {
            return self
                .refuse_last(format!("{} is a number: compare it with =, !=, <, <=, > or >=", field.name()));
        }
        let value_at = self.at;
        let value = self.number(field)?;
        if value == NONE && !matches!(sign, "=" | "==" | "!=") {
            self.at = value_at;
            return self.refuse("\"none\" is only for = and !=");
        }
        // `NONE` itself is kept out by the test.
        Ok(match sign {
            "=" | "==" => negated(Test::NumberIn(field, vec![value]), false),
            "!=" => negated(Test::NumberIn(field, vec![value]), true),
            "<" => match value.checked_sub(1) {
                Some(most) => Condition::Test(Test::Within(field, 0, most)),
                None => Condition::Test(Test::NumberIn(field, Vec::new())),
            },
            "<=" => Condition::Test(Test::Within(field, 0, value)),
            ">" => Condition::Test(Test::Within(field, value.saturating_add(1), NONE)),
            _ => Condition::Test(Test::Within(field, value, NONE)),
        })
    }

    fn text_test(&mut self, field: Text) -> Result<Condition, QueryError> {
        let is_not_in = self.takes("not");
        if is_not_in || matches!(self.peek(), Token::Bare(word) if word == "in") {
            self.expect("in")?;
            let values = self.list(Self::text)?;
            return Ok(negated(Test::TextIn(field, values), is_not_in));
        }
        let sign = match self.next() {
            Token::Sign(sign @ ("=" | "==" | "!=" | "~" | "!~")) => sign,
            _ => {
                return self
                    .refuse_last(format!("{} is a text: compare it with =, !=, ~, !~ or in", field.name()));
            }
        };
        let at = self.at;
        let value = self.text()?;
        let is_not = sign.starts_with('!');
        match (sign.ends_with('~'), value) {
            (false, value) => Ok(negated(Test::TextIn(field, vec![value]), is_not)),
            (true, Some(glob)) => Ok(negated(Test::Like(field, vec![glob]), is_not)),
            (true, None) => {
                self.at = at;
                self.refuse("\"none\" is only for = and !=")
            }
        }
    }

    fn list<T>(
        &mut self,
        mut value: impl FnMut(&mut Self) -> Result<T, QueryError>,
    ) -> Result<Vec<T>, QueryError> {
        self.expect_sign("(")?;
        let mut values = vec![value(self)?];
        while self.takes_sign(",") {
            values.push(value(self)?);
        }
        self.expect_sign(")")?;
        Ok(values)
    }

    /// A text, or `none`.
    fn text(&mut self) -> Result<Option<String>, QueryError> {
        match self.next() {
            Token::Quoted(text) => Ok(Some(text)),
            Token::Bare(word) if word == "none" || word == "null" => Ok(None),
            Token::Bare(word) => Ok(Some(word)),
            _ => self.refuse_last("a text must stand here, such as \"ok\", or none"),
        }
    }

    /// A number with its unit, or `none`.
    fn number(&mut self, field: Number) -> Result<u64, QueryError> {
        let Token::Bare(word) = self.next() else {
            return self.refuse_last(format!(
                "a value of {} must stand here, without quotation marks",
                field.name()
            ));
        };
        if word == "none" || word == "null" {
            return Ok(NONE);
        }
        let (value, example) = match field.kind() {
            Kind::Plain => (word.parse().ok(), "a whole number, such as 500"),
            Kind::Truth => (
                ["false", "true"].iter().position(|truth| *truth == word).map(|at| at as u64),
                "true or false",
            ),
            Kind::Time => (nanoseconds(&word), "a time with its unit, such as 50ms"),
            Kind::Bytes => (bytes(&word), "a size, such as 64KiB"),
        };
        match value.filter(|value| *value != NONE) {
            Some(value) => Ok(value),
            None => {
                self.refuse_last(format!("{} is compared with {example}, not with {word:?}", field.name()))
            }
        }
    }

    fn time(&mut self) -> Result<String, QueryError> {
        match self.next() {
            Token::Bare(time) | Token::Quoted(time) => Ok(time),
            _ => self.refuse_last("a time must stand here: an age, such as 1h, or 2026-01-31T12:00:00Z"),
        }
    }

    fn group_by(&mut self) -> Result<Vec<By>, QueryError> {
        self.expect("by")?;
        let mut fields = Vec::new();
        loop {
            let at = self.at;
            let by = match self.field()? {
                By::Time(_) => By::Time(self.width()?),
                field => field,
            };
            if fields.contains(&by) || fields.len() >= MAX_FIELDS {
                self.at = at;
                return self.refuse(format!("\"group by\" takes at most {MAX_FIELDS} fields, each once"));
            }
            fields.push(by);
            if !self.takes_sign(",") {
                return Ok(fields);
            }
        }
    }

    /// `(5m)`: microseconds.
    fn width(&mut self) -> Result<u64, QueryError> {
        self.expect_sign("(")?;
        let width = match self.next() {
            Token::Bare(word) => nanoseconds(&word).map(|ns| ns / 1_000),
            _ => None,
        };
        let Some(width) = width.filter(|us| *us > 0) else {
            return self.refuse_last("time is grouped by a stretch with its unit: time(5m)");
        };
        self.expect_sign(")")?;
        Ok(width)
    }

    fn measure(&mut self) -> Result<Number, QueryError> {
        let at = self.at;
        match self.field()? {
            By::Number(field) if field.kind() != Kind::Truth => Ok(field),
            _ => {
                self.at = at;
                self.refuse("percentiles are of numbers, such as duration, phase.queue or response_bytes")
            }
        }
    }

    fn order(&mut self) -> Result<(usize, String, Option<bool>), QueryError> {
        self.expect("by")?;
        let at = self.tokens[self.at].0;
        let Token::Bare(name) = self.next() else {
            return self.refuse_last("a column must stand here, such as count or p99");
        };
        let descending = if self.takes("desc") { Some(true) } else { self.takes("asc").then_some(false) };
        Ok((at, name, descending))
    }

    fn limit(&mut self) -> Result<usize, QueryError> {
        let limit = match self.next() {
            Token::Bare(word) => word.parse().ok(),
            _ => None,
        };
        match limit.filter(|limit| (1..=MAX_GROUPS).contains(limit)) {
            Some(limit) => Ok(limit),
            None => self.refuse_last(format!("limit is a number from 1 to {MAX_GROUPS}")),
        }
    }
}

fn negated(test: Test, is_not: bool) -> Condition {
    let test = Condition::Test(test);
    if is_not { Condition::Not(Box::new(test)) } else { test }
}

fn nanoseconds(word: &str) -> Option<u64> {
    if word == "0" {
        return Some(0);
    }
    let has_unit = word.bytes().any(|byte| byte.is_ascii_alphabetic());
    if let Some(duration) = humantime::parse_duration(word).ok().filter(|_| has_unit) {
        return u64::try_from(duration.as_nanos()).ok();
    }
    // `1.5ms`, which humantime does not read.
    let unit = word.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 =
        word[..unit].parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)?;
    let of_one = humantime::parse_duration(&format!("1{}", &word[unit..])).ok()?;
    Duration::try_from_secs_f64(number * of_one.as_secs_f64()).ok().map(|time| time.as_nanos() as u64)
}

fn bytes(word: &str) -> Option<u64> {
    word.parse::<ByteSize>().ok().map(|size| size.as_u64())
}

const COLUMNS: [(&str, Column); 12] = [
    ("count", Column::Count),
    ("rate", Column::Count),
    ("failed", Column::Failed),
    ("failed_share", Column::FailedShare),
    ("mean", Column::Mean),
    ("p50", Column::Percentile(500)),
    ("p90", Column::Percentile(900)),
    ("p95", Column::Percentile(950)),
    ("p99", Column::Percentile(990)),
    ("p99.9", Column::Percentile(999)),
    ("p99_9", Column::Percentile(999)),
    ("max", Column::Max),
];

fn column(name: &str, group_by: &[By]) -> Option<Column> {
    let is_it = |by: &By| match by {
        By::Text(field) => Text::named(name) == Some(*field),
        By::Number(field) => Number::named(name) == Some(*field),
        By::Time(_) => name == "time",
    };
    let known = COLUMNS.iter().find(|(known, _)| *known == name).map(|(_, column)| *column);
    known.or_else(|| group_by.iter().position(is_it).map(Column::Group))
}

fn unknown_column(name: &str) -> String {
    let names: Vec<_> = COLUMNS.iter().map(|(name, _)| *name).filter(|name| *name != "p99_9").collect();
    format!("{name:?} is no column; take one of {}, or a field that is grouped by", names.join(", "))
}

fn unknown_field(name: &str) -> String {
    if ["trace_id", "id", "span_id", "invocation_id"].contains(&name) {
        return format!("questions are about many calls and know no {name}; look one up by its id instead");
    }
    let names: Vec<_> = field::names().collect();
    match nearest(name, &names) {
        Some(near) => format!("{name:?} is not a field; did you mean {near}?"),
        None => format!("{name:?} is not a field; there are {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests;
