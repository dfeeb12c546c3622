//! The list of invocations, newest first, behind a plain filter form.

use askama::Template;

use super::calls::CallsTable;
use super::filter::{Fields, FilterForm};
use super::parts::{Command, Hint, Pager};
use super::shell::Shell;
use crate::history::Page;

/// Where the list is.
pub(super) const PATH: &str = "/ui/invocations";

/// The page.
#[derive(Debug, Template)]
#[template(path = "invocations.html")]
pub(super) struct InvocationsPage {
    shell: Shell,
    form: FilterForm,
    calls: CallsTable,
    pager: Pager,
    empty: Hint,
}

/// Makes the page.
pub(super) fn page(
    shell: Shell,
    fields: &Fields,
    functions: Vec<String>,
    found: &Page,
    now_us: u64,
) -> InvocationsPage {
    let calls = CallsTable::new("Invocations, newest first", &found.items, true, &shell, now_us);
    let pager = Pager {
        earlier: fields.is_later_page().then(|| fields.link(PATH, None)),
        earlier_word: "Newest",
        here: String::new(),
        later: found.next.as_ref().map(|next| fields.link(PATH, Some(next))),
        later_word: "Older",
    };
    InvocationsPage {
        form: fields.form(PATH, "Filter", functions),
        calls,
        pager,
        empty: nothing(fields.is_narrowed(), &shell),
        // A later page stands still: its rows do not change, and the first page has the new ones.
        shell: Shell { live: !fields.is_later_page(), ..shell.titled("Invocations") },
    }
}

/// What to say when nothing was found.
pub(super) fn nothing(narrowed: bool, shell: &Shell) -> Hint {
    if narrowed {
        return Hint {
            title: "Nothing matches".into(),
            text:
                "Widen the time or take a condition away. Beyond its sampling rate history keeps a share of \
                   the calls on disk; errors and slow calls are kept first."
                    .into(),
            lines: Vec::new(),
        };
    }
    let line = format!("curl -i {}/hello", shell.gateway);
    Hint {
        title: "No call has arrived yet".into(),
        text: "Call a function; it is listed here before its answer arrives.".into(),
        lines: vec![
            Command { label: "call a function", line },
            Command { label: "call a function by name", line: "functionsplatform invoke hello".into() },
        ],
    }
}
