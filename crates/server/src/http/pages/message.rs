//! Pages that say that something is not there.

use askama::Template;

use super::shell::Shell;

/// A way on.
#[derive(Debug)]
pub(super) struct WayOn {
    pub(super) name: &'static str,
    pub(super) link: String,
}

/// The page.
#[derive(Debug, Template)]
#[template(path = "message.html")]
pub(super) struct MessagePage {
    shell: Shell,
    status: u16,
    title: String,
    text: String,
    links: Vec<WayOn>,
}

/// Makes the page.
pub(super) fn page(
    shell: Shell,
    status: u16,
    title: impl Into<String>,
    text: impl Into<String>,
    links: Vec<WayOn>,
) -> MessagePage {
    let title = title.into();
    MessagePage { shell: shell.titled(title.clone()).still(), status, title, text: text.into(), links }
}
