//! Times as `function.toml` writes them: `250ms`, `1m 30s`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("{text:?} is not a time; write 250ms or 30s"))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(d)?).map_err(de::Error::custom)
}

/// For keys that may be left out.
pub(crate) mod optional {
    use std::time::Duration;

    use serde::Deserializer;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        super::deserialize(d).map(Some)
    }
}
