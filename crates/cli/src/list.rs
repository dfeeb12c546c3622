//! `list`: which functions answer what.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::{glob, screen};

/// `GET /functions`: the functions of each event type, the first created first.
pub(crate) type Listing = BTreeMap<String, Vec<Value>>;

/// The same with each function as the API wrote it.
type RawListing = BTreeMap<String, Vec<Box<RawValue>>>;

/// List functions by event type
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only functions whose event type or name matches, such as 'http|GET|*' or 'thumb*'
    #[arg(long, value_name = "GLOB")]
    filter: Option<String>,
}

impl List {
    /// Fetches, filters, prints.
    pub(crate) async fn run(&self, global: &Global, client: &Client) -> Result<Exit, Failure> {
        let answer = client.get("/functions").await?;
        let Some(filter) = &self.filter else {
            if global.json() {
                screen::answer(&answer)?;
            } else {
                print(&answer.read()?, "no functions yet; create one with `functionsplatform deploy DIR`")?;
            }
            return Ok(Exit::Ok);
        };
        if global.json() {
            screen::compact(&keep(answer.read::<RawListing>()?, filter, |raw| {
                serde_json::from_str(raw.get()).unwrap_or_default()
            }))?;
        } else {
            let kept = keep(answer.read::<Listing>()?, filter, Value::clone);
            print(&kept, &format!("no function's event type or name matches {filter:?}"))?;
        }
        Ok(Exit::Ok)
    }
}

fn print(listing: &Listing, none: &str) -> Result<(), Failure> {
    let field = |function: &Value, name| screen::cell(function.get(name).unwrap_or(&Value::Null));
    let rows = listing.iter().flat_map(|(event, functions)| {
        functions.iter().map(move |function| {
            vec![event.clone(), field(function, "function_name"), field(function, "version")]
        })
    });
    screen::table(&["event type", "function", "version"], rows.collect(), none)
}

/// What matches, in the order in which it came; `read` makes an entry readable.
fn keep<T>(
    listing: BTreeMap<String, Vec<T>>,
    filter: &str,
    read: impl Fn(&T) -> Value,
) -> BTreeMap<String, Vec<T>> {
    let name_matches = |function: &T| {
        read(function)["function_name"].as_str().is_some_and(|name| glob::matches(filter, name))
    };
    let of_event = |(event, mut functions): (String, Vec<T>)| {
        if !glob::matches(filter, &event) {
            functions.retain(name_matches);
        }
        (!functions.is_empty()).then_some((event, functions))
    };
    listing.into_iter().filter_map(of_event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_filter_matches_event_types_and_names() {
        let listing: Listing = serde_json::from_value(json!({
            "http|GET|/a": [{"function_name": "one"}, {"function_name": "two"}],
            "http|POST|/b": [{"function_name": "three"}],
        }))
        .expect("a listing");
        let count =
            |filter: &str| keep(listing.clone(), filter, Value::clone).values().map(Vec::len).sum::<usize>();
        assert_eq!(count("http|GET|*"), 2);
        assert_eq!(count("t*"), 2);
        assert_eq!(count("two"), 1);
        assert_eq!(count("nothing"), 0);
    }
}
