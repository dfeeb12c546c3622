//! Columns: many values of one field in few bytes, and back.
//!
//! Numbers are varints; texts are a dictionary and the row's place in it, whatever their number
//! (a column of different texts costs a zero per row beyond the texts); everything is deflated
//! where that pays. A column carries its length and checksum in the block's directory, so that
//! one is read without the others. Nothing here believes a length before it has been checked.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress};

use super::BlocksError;

/// A wide event takes 71 B (`benches/run`), and 44 of them are random ids, which no level packs.
/// What is left is varints and dictionaries, in which the lower levels find what there is.
const LEVEL: u32 = 4;

/// Deflating must save an eighth, or the column is kept as it is: random ids would only cost
/// time, on each read once more.
const SAVED_AT_LEAST: usize = 8;

/// Largest column before deflating. A block is ended at 8 MiB of text, and the call that ends it may
/// bring 64 MiB of logs (the most of `limits.logs`) along, in JSON. Only of control characters, six
/// bytes each there, would they be more than this: a segment that has such a call stays rows.
const MAX_RAW: usize = 256 << 20;

/// Shortest text of hexadecimal digits that is stored as bytes.
const HEX_FROM: usize = 16;

const DAMAGED: BlocksError = BlocksError::Damaged("a column");

/// Deflates; made once per file, since its tables are large.
#[derive(Debug)]
pub(super) struct Packer(Compress);

/// Bytes as they are stored.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) bytes: Vec<u8>,
    /// Length before deflating; 0 when it was not worth it.
    pub(super) inflated: u32,
    pub(super) checksum: u32,
}

impl Packed {
    /// Without deflating.
    pub(super) fn as_it_is(bytes: Vec<u8>) -> Self {
        Self { checksum: checksum(&bytes), bytes, inflated: 0 }
    }
}

impl Packer {
    pub(super) fn new() -> Self {
        Self(Compress::new(Compression::new(LEVEL), false))
    }

    pub(super) fn pack(&mut self, raw: Vec<u8>) -> Result<Packed, BlocksError> {
        let inflated = u32::try_from(raw.len()).ok().filter(|_| raw.len() <= MAX_RAW);
        let inflated = inflated.ok_or(BlocksError::TooLarge)?;
        let mut deflated = Vec::with_capacity(raw.len() - raw.len() / SAVED_AT_LEAST);
        self.0.reset();
        let status = self.0.compress_vec(&raw, &mut deflated, FlushCompress::Finish);
        let pays = matches!(status, Ok(flate2::Status::StreamEnd));
        let (bytes, inflated) = if pays { (deflated, inflated) } else { (raw, 0) };
        Ok(Packed { checksum: checksum(&bytes), bytes, inflated })
    }
}

/// Undoes [`Packer::pack`].
pub(super) fn unpack(bytes: Vec<u8>, inflated: u32, expected: u32) -> Result<Vec<u8>, BlocksError> {
    if checksum(&bytes) != expected || inflated as usize > MAX_RAW {
        return Err(DAMAGED);
    }
    if inflated == 0 {
        return Ok(bytes);
    }
    let mut raw = Vec::with_capacity(inflated as usize);
    INFLATE.with_borrow_mut(|inflate| {
        inflate.reset(false);
        inflate.decompress_vec(&bytes, &mut raw, FlushDecompress::Finish).map_err(|_| DAMAGED)
    })?;
    if raw.len() == inflated as usize { Ok(raw) } else { Err(DAMAGED) }
}

thread_local! {
    /// Its window of 32 KiB is made once for each thread that reads, not for each column.
    static INFLATE: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

pub(super) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Small numbers of either sign become small numbers.
pub(super) fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Takes values from the front of some bytes.
#[derive(Debug)]
pub(super) struct Source<'a>(pub(super) &'a [u8]);

impl<'a> Source<'a> {
    pub(super) fn number(&mut self) -> Result<u64, BlocksError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(DAMAGED)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DAMAGED)
    }

    /// A number of things of which each takes at least a byte.
    pub(super) fn count(&mut self) -> Result<usize, BlocksError> {
        let count = usize::try_from(self.number()?).map_err(|_| DAMAGED)?;
        if count <= self.0.len() { Ok(count) } else { Err(DAMAGED) }
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], BlocksError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(DAMAGED)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], BlocksError> {
        self.bytes(N)?.try_into().map_err(|_| DAMAGED)
    }

    pub(super) fn numbers(&mut self, count: usize) -> Result<Vec<u64>, BlocksError> {
        // Most are of a byte or two, and there are thousands: what a question mostly does is this.
        let mut numbers = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            let number = match *self.0 {
                [low @ ..0x80, ref rest @ ..] => {
                    self.0 = rest;
                    u64::from(low)
                }
                [low, high @ ..0x80, ref rest @ ..] => {
                    self.0 = rest;
                    u64::from(low & 0x7f) | u64::from(high) << 7
                }
                _ => self.number()?,
            };
            numbers.push(number);
        }
        Ok(numbers)
    }
}

/// A column of texts on its way into a block.
#[derive(Debug, Default)]
pub(super) struct TextsBuilder<'a> {
    places: HashMap<Cow<'a, str>, u64>,
    lengths: Vec<u8>,
    bytes: Vec<u8>,
    codes: Vec<u8>,
}

/// Codes of a row: there is no text, the next new one, or an earlier one from here on.
const ABSENT: u64 = 0;
const NEW: u64 = 1;
const KNOWN: u64 = 2;

impl<'a> TextsBuilder<'a> {
    pub(super) fn push(&mut self, text: Option<Cow<'a, str>>) {
        let Some(text) = text else { return put_number(&mut self.codes, ABSENT) };
        let next = self.places.len() as u64;
        match self.places.entry(text) {
            Entry::Occupied(known) => put_number(&mut self.codes, KNOWN + known.get()),
            Entry::Vacant(new) => {
                put_number(&mut self.codes, NEW);
                put_text(&mut self.lengths, &mut self.bytes, new.key());
                new.insert(next);
            }
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(self.lengths.len() + self.bytes.len() + self.codes.len() + 20);
        put_number(&mut raw, self.places.len() as u64);
        put_number(&mut raw, self.bytes.len() as u64);
        raw.extend(self.lengths);
        raw.extend(self.bytes);
        raw.extend(self.codes);
        raw
    }
}

/// Ids as texts are half as long as bytes, which deflating alone does not reach.
fn put_text(lengths: &mut Vec<u8>, bytes: &mut Vec<u8>, text: &str) {
    let begin = bytes.len();
    let digit = |byte: u8| (byte as char).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
    let is_hex = text.len() >= HEX_FROM
        && text.len().is_multiple_of(2)
        && text.bytes().all(|byte| digit(byte).is_some());
    if is_hex {
        let pairs = text.as_bytes().chunks_exact(2);
        bytes.extend(pairs.filter_map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)));
    } else {
        bytes.extend(text.as_bytes());
    }
    put_number(lengths, ((bytes.len() - begin) as u64) << 1 | u64::from(is_hex));
}

/// A column of texts, read.
#[derive(Debug)]
pub(super) struct Texts {
    raw: Vec<u8>,
    /// Where each text is in `raw`, and whether it is hexadecimal digits as bytes.
    places: Vec<(std::ops::Range<usize>, bool)>,
    /// By row; 0 is none.
    codes: Vec<u32>,
}

impl Texts {
    pub(super) fn read(raw: Vec<u8>, rows: usize) -> Result<Self, BlocksError> {
        let mut source = Source(&raw);
        let count = source.count()?;
        let bytes = source.count()?;
        let lengths = source.numbers(count)?;
        let mut at = raw.len() - source.0.len();
        source.bytes(bytes)?;
        let end = at + bytes;
        let mut places = Vec::with_capacity(count);
        for length in lengths {
            let next = usize::try_from(length >> 1).ok().and_then(|length| at.checked_add(length));
            let next = next.filter(|next| *next <= end).ok_or(DAMAGED)?;
            places.push((at..next, length & 1 == 1));
            at = next;
        }
        let mut codes = Vec::with_capacity(rows);
        let mut new = 0;
        for _ in 0..rows {
            let code = match source.number()? {
                ABSENT => 0,
                NEW => {
                    new += 1;
                    new
                }
                known => known - KNOWN + 1,
            };
            codes.push(u32::try_from(code).ok().filter(|code| *code as usize <= count).ok_or(DAMAGED)?);
        }
        Ok(Self { raw, places, codes })
    }

    pub(super) fn get(&self, row: usize) -> Result<Option<Cow<'_, str>>, BlocksError> {
        match self.codes.get(row) {
            Some(0) => Ok(None),
            Some(code) => self.text(*code as usize - 1).map(Some),
            None => Err(DAMAGED),
        }
    }

    /// The same where every row has one.
    pub(super) fn required(&self, row: usize) -> Result<Cow<'_, str>, BlocksError> {
        self.get(row)?.ok_or(DAMAGED)
    }

    fn text(&self, place: usize) -> Result<Cow<'_, str>, BlocksError> {
        let (range, is_hex) = self.places.get(place).ok_or(DAMAGED)?;
        let bytes = &self.raw[range.clone()];
        if *is_hex {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            return Ok(digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect::<String>().into());
        }
        std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| DAMAGED)
    }

    /// Its different texts, and by row one more than the place of its own; 0 is none.
    pub(super) fn into_words(self) -> Result<(Vec<Box<str>>, Vec<u32>), BlocksError> {
        let words = (0..self.places.len()).map(|place| Ok(self.text(place)?.into()));
        Ok((words.collect::<Result<_, BlocksError>>()?, self.codes))
    }

    /// Keeps the rows whose text passes a test, which is asked once for each text.
    pub(super) fn retain(
        &self,
        rows: &mut Vec<u32>,
        mut test: impl FnMut(&str) -> bool,
    ) -> Result<(), BlocksError> {
        let mut passes = Vec::with_capacity(self.places.len() + 1);
        passes.push(false);
        for place in 0..self.places.len() {
            passes.push(test(&self.text(place)?));
        }
        rows.retain(|row| passes[self.codes[*row as usize] as usize]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(texts: &[Option<String>]) -> Vec<Option<String>> {
        let mut builder = TextsBuilder::default();
        texts.iter().for_each(|text| builder.push(text.as_deref().map(Cow::from)));
        let packed = Packer::new().pack(builder.finish()).unwrap();
        let raw = unpack(packed.bytes, packed.inflated, packed.checksum).unwrap();
        let read = Texts::read(raw, texts.len()).unwrap();
        (0..texts.len()).map(|row| read.get(row).unwrap().map(Cow::into_owned)).collect()
    }

    proptest! {
        #[test]
        fn numbers_read_back(values: Vec<u64>, signed: i64) {
            let mut raw = Vec::new();
            values.iter().for_each(|value| put_number(&mut raw, *value));
            let packed = Packer::new().pack(raw).unwrap();
            let raw = unpack(packed.bytes, packed.inflated, packed.checksum).unwrap();
            let mut source = Source(&raw);
            prop_assert_eq!(source.numbers(values.len()).unwrap(), values);
            prop_assert!(source.0.is_empty());
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }

        #[test]
        fn texts_read_back(texts in proptest::collection::vec(
            proptest::option::of(prop_oneof![".{0,20}", "[0-9a-f]{15,40}", "[0-9a-fA-F]{16}", "a|b"]), 0..80)) {
            prop_assert_eq!(back(&texts), texts);
        }

        #[test]
        fn damage_is_an_error_and_never_a_panic(mut raw: Vec<u8>, rows in 0usize..50) {
            raw.truncate(200);
            let _ = Texts::read(raw, rows).map(|texts| (0..rows).for_each(|row| drop(texts.get(row))));
        }
    }

    #[test]
    fn a_changed_bit_is_noticed() {
        let packed = Packer::new().pack(vec![7; 1_000]).unwrap();
        assert!(packed.bytes.len() < 30 && packed.inflated == 1_000);
        let mut bytes = packed.bytes.clone();
        bytes[3] ^= 1;
        assert!(unpack(bytes, packed.inflated, packed.checksum).is_err());
    }
}
