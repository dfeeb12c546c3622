//! When more workers are kept than otherwise: `scaling.schedule`.
//!
//! Times are cron expressions of five fields (minute, hour, day of the month, month, day of the week), matched
//! by whoever knows the time of day: nothing here knows time zones or calendars.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A time from which so many workers are kept for so long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledFloor {
    /// When it begins.
    pub cron: Cron,
    /// How long it lasts.
    pub lasts: Duration,
    /// Workers kept then.
    pub min: u32,
}

/// A minute of somebody's calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CivilMinute {
    /// 0–59.
    pub minute: u8,
    /// 0–23.
    pub hour: u8,
    /// 1–31.
    pub day: u8,
    /// 1–12.
    pub month: u8,
    /// 0 is Sunday.
    pub weekday: u8,
}

/// A cron expression of five fields; as Vixie's cron has it, either of day and weekday is enough where both
/// are limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    /// Each field as a set of bits.
    fields: [u64; 5],
    any_day: bool,
    any_weekday: bool,
}

/// Why a text is no cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Not five fields.
    #[error("write five fields: minute, hour, day, month, weekday, such as \"0 8 * * 1-5\"")]
    Shape,
    /// A field that cannot be read.
    #[error("{field:?} is no {name}; write *, a number from {least} to {most}, 1-5, 1,3 or */15")]
    Field {
        /// The field.
        field: String,
        /// What it stands for.
        name: &'static str,
        /// Least value.
        least: u8,
        /// Most.
        most: u8,
    },
}

const FIELDS: [(&str, u8, u8); 5] =
    [("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7)];

impl Cron {
    /// Whether it names this minute.
    pub fn matches(&self, at: CivilMinute) -> bool {
        let has = |field: usize, value: u8| self.fields[field] >> value & 1 == 1;
        let (day, weekday) = (has(2, at.day), has(4, at.weekday));
        let is_day = match (self.any_day, self.any_weekday) {
            (false, false) => day || weekday,
            _ => day && weekday,
        };
        has(0, at.minute) && has(1, at.hour) && has(3, at.month) && is_day
    }
}

impl FromStr for Cron {
    type Err = CronError;
    fn from_str(text: &str) -> Result<Self, CronError> {
        let parts: Vec<_> = text.split_ascii_whitespace().collect();
        let parts: [&str; 5] = parts.try_into().map_err(|_| CronError::Shape)?;
        let mut fields = [0; 5];
        for ((set, part), (name, least, most)) in fields.iter_mut().zip(parts).zip(FIELDS) {
            let wrong = || CronError::Field { field: part.to_owned(), name, least, most };
            *set = part
                .split(',')
                .try_fold(0, |set, item| Some(set | values(item, least, most)?))
                .ok_or_else(wrong)?;
        }
        // 7 is Sunday, too.
        fields[4] |= fields[4] >> 7 & 1;
        let [any_day, any_weekday] = [parts[2], parts[4]].map(|part| part.starts_with('*'));
        Ok(Self { text: parts.join(" "), fields, any_day, any_weekday })
    }
}

/// The values of `*`, `3`, `1-5`, each perhaps with `/2`.
fn values(item: &str, least: u8, most: u8) -> Option<u64> {
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, step.parse().ok().filter(|step| *step > 0)?),
        None => (item, 1),
    };
    let number = |text: &str| text.parse::<u8>().ok().filter(|value| (least..=most).contains(value));
    let (from, to) = match range.split_once('-') {
        _ if range == "*" => (least, most),
        Some((from, to)) => (number(from)?, number(to)?),
        None => (number(range)?, if step > 1 { most } else { number(range)? }),
    };
    (from <= to).then(|| (from..=to).step_by(step).fold(0, |set, value| set | 1 << value))
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(cron: &str, minute: u8, hour: u8, day: u8, month: u8, weekday: u8) -> bool {
        cron.parse::<Cron>().expect(cron).matches(CivilMinute { minute, hour, day, month, weekday })
    }

    #[test]
    fn five_fields_name_minutes() {
        assert!(matches("0 8 * * 1-5", 0, 8, 24, 11, 2));
        assert!(!matches("0 8 * * 1-5", 0, 8, 22, 11, 0), "a Sunday");
        assert!(matches("*/15 9-17/4 * * *", 45, 13, 1, 1, 0) && !matches("*/15 * * * *", 44, 0, 1, 1, 0));
        assert!(matches("5,7 0 1 1,7 *", 7, 0, 1, 7, 3));
        assert!(
            matches("0 0 13 * 5", 0, 0, 13, 1, 1) && matches("0 0 13 * 5", 0, 0, 2, 1, 5),
            "either is enough"
        );
        assert!(matches("0 0 * * 7", 0, 0, 1, 1, 0), "7 is Sunday");
        assert!(matches("50/5 * * * *", 55, 0, 1, 1, 0));
    }

    #[test]
    fn what_is_no_cron_expression_is_refused_with_its_field() {
        for wrong in
            ["", "* * * *", "60 * * * *", "* * 0 * *", "5-1 * * * *", "*/0 * * * *", "a * * * *", "* * * * 8"]
        {
            wrong.parse::<Cron>().expect_err(wrong);
        }
        let told = "0 24 * * *".parse::<Cron>().expect_err("no hour").to_string();
        assert_eq!(told, "\"24\" is no hour; write *, a number from 0 to 23, 1-5, 1,3 or */15");
        assert_eq!(" 0  8 * * 1-5 ".parse::<Cron>().expect("valid").to_string(), "0 8 * * 1-5");
    }
}
