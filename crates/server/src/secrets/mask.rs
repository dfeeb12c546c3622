//! Masking: `***` instead of a secret in what is kept or told of a call.
//!
//! A value of at least four bytes is found as it is, as JSON and Python's `repr` escape it, and,
//! from eight bytes on and up to 4 KiB, percent-encoded, in hexadecimal and in Base64 (both
//! alphabets, also in the middle of a longer encoded text). In output it is found across the
//! pieces that it came in. Nothing here decides what is a secret, and an encryption or any other
//! rewriting of one is not found: this is against mistakes, not against the function's author.

use std::ops::Range;

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use fp_core::record::{LogLine, LogSource, Span};
use memchr::memmem;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde_json::Value;
use zeroize::Zeroizing;

/// What stands for a secret.
const MASKED: &str = "***";

/// Shorter values are not masked: they occur by chance in any text.
const LEAST: usize = 4;

/// Encoded forms are looked for of values from here on (shorter ones would occur by chance) …
const LEAST_ENCODED: usize = 8;

/// … to here: each form costs a search, and long values are documents that nobody encodes.
const MOST_ENCODED: usize = 4 << 10;

/// Texts of failures are cut at 4 KiB and more: from here on one may end inside a secret.
const MAYBE_CUT: usize = 4_000;

/// What Python's `urllib.parse.quote(…, safe="")` leaves as it is.
const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// And with its default `safe`.
const UNRESERVED_PATH: AsciiSet = UNRESERVED.remove(b'/');

/// Where output is not whole, and so may begin or end inside a secret.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cut {
    /// There was more before it.
    pub(crate) before: bool,
    /// And after it.
    pub(crate) after: bool,
}

/// The values of some secrets, in all the forms that are looked for.
#[derive(Default)]
pub(crate) struct Mask {
    patterns: Vec<Zeroizing<String>>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({} forms)", self.patterns.len())
    }
}

impl Mask {
    pub(crate) fn of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut patterns: Vec<_> = values.filter(|value| value.len() >= LEAST).flat_map(forms).collect();
        patterns.sort_unstable_by(|a, b| a.as_str().cmp(b));
        patterns.dedup_by(|a, b| **a == **b);
        Self { patterns }
    }

    /// The text without secrets; none if there are none in it.
    pub(crate) fn masked(&self, text: &str) -> Option<String> {
        let mut ranges = self.found(text);
        if text.len() >= MAYBE_CUT {
            ranges.extend(self.cut_off(text));
        }
        let ranges = merged(ranges);
        if ranges.is_empty() {
            return None;
        }
        let starts = ranges.into_iter().map(|range| (range, true));
        Some(without(text, starts))
    }

    pub(crate) fn string(&self, text: &mut String) {
        if let Some(masked) = self.masked(text) {
            *Zeroizing::new(std::mem::replace(text, masked)) = String::new();
        }
    }

    pub(crate) fn boxed(&self, text: &mut Box<str>) {
        if let Some(masked) = self.masked(text) {
            *text = masked.into();
        }
    }

    pub(crate) fn span(&self, span: &mut Span) {
        self.boxed(&mut span.name);
        span.error.iter_mut().for_each(|error| self.boxed(error));
        self.attributes(&mut span.attributes);
        for event in &mut span.events {
            self.boxed(&mut event.name);
            self.attributes(&mut event.attributes);
        }
    }

    fn attributes(&self, attributes: &mut [(Box<str>, Value)]) {
        for (key, value) in attributes {
            self.boxed(key);
            self.json(value);
        }
    }

    /// Keys and texts, and numbers whose digits are a secret.
    pub(crate) fn json(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.string(text),
            Value::Number(number) => {
                if self.masked(&number.to_string()).is_some() {
                    *value = MASKED.into();
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Value::Object(members) => {
                for (mut key, mut value) in std::mem::take(members) {
                    self.string(&mut key);
                    self.json(&mut value);
                    members.insert(key, value);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Output of a call, in order.
    pub(crate) fn lines(&self, lines: &mut Vec<LogLine>, cut: Cut) {
        if self.patterns.is_empty() {
            return;
        }
        for line in lines.iter_mut() {
            line.level.iter_mut().for_each(|level| self.boxed(level));
        }
        let mut marks = vec![Vec::new(); lines.len()];
        let all = |line: &LogLine| line.source != LogSource::Platform;
        self.mark(lines, all, cut, &mut marks);
        for source in [LogSource::Stdout, LogSource::Stderr, LogSource::Logging, LogSource::Descriptor] {
            // Alone where another came between its pieces.
            let among = lines.iter().filter(|line| line.source == source).count();
            if among > 0 && lines.iter().any(|line| all(line) && line.source != source) {
                self.mark(lines, |line| line.source == source, cut, &mut marks);
            }
        }
        for (line, marks) in lines.iter_mut().zip(marks).filter(|(_, marks)| !marks.is_empty()) {
            line.text = without(&line.text, joined(marks).into_iter()).into();
        }
        lines.retain(|line| !line.text.is_empty());
    }

    /// Marks what is to be masked in the text that the chosen lines are together. A mark says
    /// whether its secret begins in that line.
    fn mark(
        &self,
        lines: &[LogLine],
        is_chosen: impl Fn(&LogLine) -> bool,
        cut: Cut,
        marks: &mut [Vec<(Range<usize>, bool)>],
    ) {
        let chosen: Vec<_> = (0..lines.len()).filter(|at| is_chosen(&lines[*at])).collect();
        let length = chosen.iter().map(|at| lines[*at].text.len()).sum();
        let mut text = Zeroizing::new(String::with_capacity(length));
        let mut starts = Vec::with_capacity(chosen.len());
        for at in &chosen {
            starts.push(text.len());
            text.push_str(&lines[*at].text);
        }
        let mut ranges = self.found(&text);
        ranges.extend(cut.after.then(|| self.cut_off(&text)).flatten());
        ranges.extend(cut.before.then(|| self.cut_on(&text)).flatten());
        for range in merged(ranges) {
            let first = starts.partition_point(|start| *start <= range.start) - 1;
            for (at, start) in chosen.iter().zip(&starts).skip(first) {
                let end = start + lines[*at].text.len();
                if *start >= range.end {
                    break;
                }
                let within = range.start.max(*start) - start..range.end.min(end) - start;
                if !within.is_empty() {
                    marks[*at].push((within, range.start >= *start));
                }
            }
        }
    }

    fn found(&self, text: &str) -> Vec<Range<usize>> {
        let of_pattern = |pattern: &Zeroizing<String>| {
            let length = pattern.len();
            let found = memmem::find_iter(text.as_bytes(), pattern.as_bytes());
            found.map(move |at| at..at + length).collect::<Vec<_>>()
        };
        self.patterns.iter().flat_map(of_pattern).collect()
    }

    /// The beginning of a secret at the very end.
    fn cut_off(&self, text: &str) -> Option<Range<usize>> {
        let begun = |pattern: &Zeroizing<String>| begun_at_end(text.as_bytes(), pattern.as_bytes());
        let longest = self.patterns.iter().map(begun).max()?;
        (longest >= LEAST).then(|| text.len() - longest..text.len())
    }

    /// The end of a secret at the very beginning: the same, read backwards.
    fn cut_on(&self, text: &str) -> Option<Range<usize>> {
        let ended = |pattern: &Zeroizing<String>| {
            let backwards = |text: &[u8]| Zeroizing::new(text.iter().rev().copied().collect::<Vec<_>>());
            let beginning = &text.as_bytes()[..text.len().min(pattern.len())];
            begun_at_end(&backwards(beginning), &backwards(pattern.as_bytes()))
        };
        let longest = self.patterns.iter().map(ended).max()?;
        (longest >= LEAST).then_some(0..longest)
    }
}

/// How many bytes at the end of `text` are the beginning of `pattern`, in linear time (the
/// prefix function of Knuth, Morris and Pratt).
fn begun_at_end(text: &[u8], pattern: &[u8]) -> usize {
    let mut borders = vec![0; pattern.len()];
    let mut length = 0;
    for at in 1..pattern.len() {
        while length > 0 && pattern[at] != pattern[length] {
            length = borders[length - 1];
        }
        length += usize::from(pattern[at] == pattern[length]);
        borders[at] = length;
    }
    length = 0;
    for byte in &text[text.len().saturating_sub(pattern.len() - 1)..] {
        while length > 0 && *byte != pattern[length] {
            length = borders[length - 1];
        }
        length += usize::from(*byte == pattern[length]);
    }
    length
}

/// Ranges in order, those that touch made one.
fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The same for marks; together they begin here if one of them does.
fn joined(mut marks: Vec<(Range<usize>, bool)>) -> Vec<(Range<usize>, bool)> {
    marks.sort_unstable_by_key(|(range, _)| range.start);
    let mut joined: Vec<(Range<usize>, bool)> = Vec::with_capacity(marks.len());
    for (range, begins) in marks {
        match joined.last_mut() {
            Some((last, one_begins)) if range.start <= last.end => {
                last.end = last.end.max(range.end);
                *one_begins |= begins;
            }
            _ => joined.push((range, begins)),
        }
    }
    joined
}

/// The text with `***` where a secret began, and nothing where it only went on.
fn without(text: &str, marks: impl Iterator<Item = (Range<usize>, bool)>) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut from = 0;
    for (range, begins) in marks {
        masked.push_str(&text[from..range.start]);
        masked.push_str(if begins { MASKED } else { "" });
        from = range.end;
    }
    masked.push_str(&text[from..]);
    masked
}

/// Every spelling that a value is looked for in.
fn forms(value: &[u8]) -> Vec<Zeroizing<String>> {
    // As captured text has it: bytes that are no UTF-8 are replaced there, too.
    let text = Zeroizing::new(String::from_utf8_lossy(value).into_owned());
    let escaped = Zeroizing::new(serde_json::to_string(&*text).expect("a text is JSON"));
    let escaped = &escaped[1..escaped.len() - 1];
    let mut forms = vec![escaped.to_owned(), in_ascii(escaped), python_repr(&text), text.to_string()];
    if (LEAST_ENCODED..=MOST_ENCODED).contains(&value.len()) {
        let percent = percent_encode(value, &UNRESERVED).to_string();
        forms.push(percent.replace("%20", "+"));
        forms.push(percent_encode(value, &UNRESERVED_PATH).to_string());
        forms.push(percent);
        forms.push(value.iter().map(|byte| format!("{byte:02x}")).collect());
        forms.push(value.iter().map(|byte| format!("{byte:02X}")).collect());
        for before in 0..3 {
            forms.push(base64_within(&STANDARD_NO_PAD, value, before));
            forms.push(base64_within(&URL_SAFE_NO_PAD, value, before));
        }
    }
    forms.into_iter().map(Zeroizing::new).collect()
}

/// The characters that say nothing but the value, when it stands `before` bytes after a border of
/// three.
fn base64_within(alphabet: &impl base64::Engine, value: &[u8], before: usize) -> String {
    let mut shifted = Zeroizing::new(vec![0; before]);
    shifted.extend_from_slice(value);
    let whole = Zeroizing::new(alphabet.encode(&*shifted));
    // The first and the last character may share bits with what stands beside the value.
    let first = (before * 8).div_ceil(6);
    let end = shifted.len() * 8 / 6;
    whole[first..end].to_owned()
}

/// As `json.dumps` has it by default.
fn in_ascii(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| ascii.push_str(&format!("\\u{unit:04x}")));
        }
    }
    ascii
}

/// As Python shows it in a list or an exception, without the quotes.
fn python_repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => shown.push_str("\\\\"),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if c == quote => shown.extend(['\\', c]),
            c if (c as u32) < 0x20 || (0x7f..0xa0).contains(&(c as u32)) => {
                shown.push_str(&format!("\\x{:02x}", c as u32));
            }
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    const VALUE: &str = "sk_live_\"4242\"/é\n!";

    fn mask(values: &[&str]) -> Mask {
        Mask::of(values.iter().map(|value| value.as_bytes()))
    }

    fn lines(pieces: &[(LogSource, &str)]) -> Vec<LogLine> {
        let line = |(source, text): &(LogSource, &str)| LogLine {
            time_us: 0,
            source: *source,
            level: None,
            text: (*text).into(),
        };
        pieces.iter().map(line).collect()
    }

    fn masked_lines(mask: &Mask, pieces: &[(LogSource, &str)], is_cut: bool) -> Vec<String> {
        let mut lines = lines(pieces);
        mask.lines(&mut lines, Cut { before: false, after: is_cut });
        lines.into_iter().map(|line| line.text.into()).collect()
    }

    #[test]
    fn a_value_is_found_in_every_form_that_is_promised() {
        let mask = mask(&[VALUE]);
        let percent = "sk_live_%224242%22%2F%C3%A9%0A%21";
        let hex: String = VALUE.bytes().map(|byte| format!("{byte:02x}")).collect();
        let json = serde_json::to_string(VALUE).unwrap();
        for form in [
            VALUE.to_owned(),
            json[1..json.len() - 1].to_owned(),
            "sk_live_\\\"4242\\\"/\\u00e9\\n!".to_owned(),
            "sk_live_\"4242\"/é\\n!".to_owned(),
            percent.to_owned(),
            percent.replace("%2F", "/"),
            hex.to_uppercase(),
            hex,
        ] {
            assert_eq!(mask.masked(&format!("a {form} b {form}")).as_deref(), Some("a *** b ***"), "{form}");
        }
        assert_eq!(mask.masked("sk_live_"), None);
        assert_eq!(mask.masked(""), None);
    }

    #[test]
    fn base64_is_found_wherever_the_value_stands_in_it() {
        let mask = mask(&[VALUE]);
        for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            for (before, after) in [("", ""), ("u:", ""), ("user:", "@"), ("usr:", "xyz"), ("a", "bc")] {
                let encoded = alphabet.encode(format!("{before}{VALUE}{after}"));
                let masked = mask.masked(&encoded).unwrap_or_else(|| panic!("{before}…{after} is not found"));
                assert!(
                    masked.contains(MASKED) && masked.len() < 3 + 2 * (2 + before.len() + after.len()),
                    "{masked}"
                );
            }
        }
    }

    #[test]
    fn short_values_are_left_and_the_least_is_four_bytes() {
        assert_eq!(mask(&["abc"]).masked("abc"), None);
        assert_eq!(mask(&["abcd"]).masked("xabcdx").as_deref(), Some("x***x"));
        assert_eq!(mask(&["abcd", "cdef"]).masked("abcdef").as_deref(), Some("***"));
        assert_eq!(mask(&["aaaa"]).masked("aaaaaaaa").as_deref(), Some("***"));
    }

    #[test]
    fn output_is_masked_across_its_pieces() {
        use LogSource::{Descriptor, Platform, Stderr, Stdout};
        let mask = mask(&["topsecret", "line one\nline two"]);
        assert_eq!(
            masked_lines(&mask, &[(Stdout, "a top"), (Stdout, "sec"), (Stdout, "ret b\n")], false),
            ["a ***", " b\n"]
        );
        assert_eq!(
            masked_lines(&mask, &[(Stdout, "top"), (Stderr, "other\n"), (Stdout, "secret\n")], false),
            ["***", "other\n", "\n"],
            "another source between the pieces"
        );
        assert_eq!(masked_lines(&mask, &[(Stdout, "top"), (Descriptor, "secret\n")], false), ["***", "\n"]);
        assert_eq!(
            masked_lines(&mask, &[(Stdout, "line one\n"), (Stdout, "line two\n")], false),
            ["***", "\n"]
        );
        assert_eq!(masked_lines(&mask, &[(Stdout, "top"), (Platform, "secret")], false), ["top", "secret"]);
    }

    #[test]
    fn a_secret_that_is_cut_off_by_a_limit_is_masked_too() {
        use LogSource::{Platform, Stdout};
        let mask = mask(&["topsecret"]);
        let pieces = [(Stdout, "x tops"), (Stdout, "ecre"), (Platform, "[cut]\n")];
        assert_eq!(masked_lines(&mask, &pieces, true), ["x ***", "[cut]\n"]);
        assert_eq!(masked_lines(&mask, &pieces, false), ["x tops", "ecre", "[cut]\n"]);
        assert_eq!(masked_lines(&mask, &[(Stdout, "x top")], true), ["x top"], "too little to say anything");
        let long = format!("{}topsecre", "x".repeat(MAYBE_CUT));
        assert!(mask.masked(&long).unwrap().ends_with("x***"));
        assert_eq!(begun_at_end(b"abab", b"ababc"), 4);
        assert_eq!(begun_at_end(b"aab", b"ababc"), 2);
        assert_eq!(begun_at_end(b"", b"ababc"), 0);
    }

    #[test]
    fn json_is_masked_in_keys_texts_and_numbers() {
        let mask = mask(&["424242", "topsecret"]);
        let mut value = serde_json::json!({
            "topsecret": [424242, 7, true, null, "a topsecret"],
            "inner": { "k": "x", "text": "{\"key\": \"topsecret\"}" },
        });
        mask.json(&mut value);
        let expected = serde_json::json!({
            "***": ["***", 7, true, null, "a ***"],
            "inner": { "k": "x", "text": "{\"key\": \"***\"}" },
        });
        assert_eq!(value, expected);
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_pieces_are_nothing_of_the_value_is_left(
            cuts in proptest::collection::vec(0..9usize, 0..6),
            around in "[a-z é]{0,8}",
        ) {
            let whole = format!("{around}topsecret{around}topsecret");
            let mut pieces = Vec::new();
            let mut rest = whole.as_str();
            for cut in cuts {
                let mut at = cut.min(rest.len());
                while !rest.is_char_boundary(at) { at -= 1; }
                let (piece, left) = rest.split_at(at);
                pieces.push((LogSource::Stdout, piece));
                rest = left;
            }
            pieces.push((LogSource::Stdout, rest));
            let text = masked_lines(&mask(&["topsecret"]), &pieces, false).concat();
            let apart = if around.is_empty() { "" } else { "***" };
            proptest::prop_assert_eq!(text, format!("{around}{apart}{around}***"));
        }
    }
}
