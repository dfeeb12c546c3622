//! What is special in OTLP's JSON: numbers that may be texts, ids as hexadecimal digits, bytes as
//! base64, and `null` for whatever is not there.

use std::fmt::Display;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Number;

/// A value, or its default where there is `null`.
pub(super) fn or_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(Number),
    Text(String),
}

/// A number, also as a text: JSON's own are exact up to 2^53 only.
pub(super) fn some_number<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let Some(given) = Option::<NumberOrText>::deserialize(from)? else { return Ok(None) };
    let text = match given {
        NumberOrText::Number(number) => number.to_string(),
        NumberOrText::Text(text) => text,
    };
    text.parse().map(Some).map_err(|error| D::Error::custom(format!("{text:?} is no number here: {error}")))
}

/// The same, 0 where there is none.
pub(super) fn number<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display> + Default,
{
    some_number(from).map(Option::unwrap_or_default)
}

/// An id: hexadecimal digits in either case, unlike the base64 of protobuf's own JSON.
pub(super) fn hex<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else { return Ok(Vec::new()) };
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => {
            Ok(digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
        }
        _ => Err(D::Error::custom(format!("{text:?} is not an id in hexadecimal digits"))),
    }
}

/// Bytes.
pub(super) fn base64<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
    STANDARD.decode(text).map(Some).map_err(D::Error::custom)
}
