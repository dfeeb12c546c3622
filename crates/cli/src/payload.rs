//! Bodies and headers given on a command line: `-d TEXT|@FILE|@-` and `-H 'Name: value'`,
//! with curl's meaning.

use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use http::{HeaderName, HeaderValue};

use crate::exit::Failure;

/// One `-H`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its name, in lower case as HTTP/2 has it.
    pub(crate) name: HeaderName,
    /// Its value.
    pub(crate) value: HeaderValue,
    line: String,
}

impl Header {
    /// `Name: value`, with the name in the case that it was given in.
    pub(crate) fn as_line(&self) -> String {
        match self.line.split_once(':') {
            Some((name, value)) => format!("{}: {}", name.trim(), value.trim()),
            None => self.line.clone(),
        }
    }
}

impl FromStr for Header {
    type Err = String;
    fn from_str(line: &str) -> Result<Self, String> {
        let Some((name, value)) = line.split_once(':') else {
            return Err("write a header as 'Name: value'".into());
        };
        Ok(Self {
            name: name.trim().parse().map_err(|_| format!("{name:?} is not the name of a header"))?,
            value: value.trim().parse().map_err(|_| "the value holds a control character".to_owned())?,
            line: line.to_owned(),
        })
    }
}

/// The bytes that `-d` stands for.
pub(crate) fn read(data: &str) -> Result<Vec<u8>, Failure> {
    match data.strip_prefix('@') {
        None => Ok(data.as_bytes().to_vec()),
        Some(path) => read_file(path, "read the body from"),
    }
}

/// The bytes of a file, or of stdin for `-`; `verb` says what they are read for.
fn read_file(path: &str, verb: &str) -> Result<Vec<u8>, Failure> {
    match path {
        "-" => read_stdin(),
        path => std::fs::read(path).map_err(|error| Failure::file(verb, Path::new(path), &error)),
    }
}

/// The source in a file, or on stdin for `-`.
pub(crate) fn read_code(path: &str) -> Result<String, Failure> {
    String::from_utf8(read_file(path, "read the code from")?)
        .map_err(|_| Failure::usage("the code file is not UTF-8 text"))
}

/// The text that `-d` or a file flag stands for.
pub(crate) fn read_text(data: &str, what: &str) -> Result<String, Failure> {
    String::from_utf8(read(data)?).map_err(|_| Failure::usage(format!("{what} is not UTF-8 text")))
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A verb in any case.
pub(crate) fn verb(text: &str) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    let known = upper == "*" || http::Method::from_bytes(upper.as_bytes()).is_ok();
    known.then_some(upper).ok_or_else(|| "not an HTTP verb; use GET, POST, PUT, …".into())
}

/// A path as it stands in a request or an event type.
pub(crate) fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("a path begins with /".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_curl_reads_them() {
        let header: Header = "X-Thing:  one: two ".parse().expect("a header");
        assert_eq!((header.name.as_str(), header.value.as_bytes()), ("x-thing", &b"one: two"[..]));
        assert!("no colon".parse::<Header>().is_err());
        assert!("bad name: x".parse::<Header>().is_err());
        assert!("a: b\nc".parse::<Header>().is_err());
    }

    #[test]
    fn data_is_text_or_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("body");
        std::fs::write(&file, [0, 159]).expect("written");
        assert_eq!(read("{}").expect("text"), b"{}");
        assert_eq!(read(&format!("@{}", file.display())).expect("file"), [0, 159]);
        assert!(read("@/does/not/exist").expect_err("no file").message.contains("no such file"));
        assert!(read_text(&format!("@{}", file.display()), "the body").is_err());
    }

    #[test]
    fn verbs_come_in_any_case() {
        assert_eq!(verb("get").as_deref(), Ok("GET"));
        assert_eq!(verb("*").as_deref(), Ok("*"));
        assert!(verb("G T").is_err());
    }
}
