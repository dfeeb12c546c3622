//! Every sample page against rules that hold for all: well-formed where it matters, escaped,
//! strict about scripts and styles, usable by keyboard and screen reader.

use super::samples::{self, NOW_US};
use super::*;
use crate::history::Page;

/// Names and texts that try to become markup.
const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;";

fn pages() -> Vec<(&'static str, String)> {
    let html = |page: &dyn askama::DynTemplate| page.dyn_render().expect("a page renders");
    let shell = samples::shell;
    let entries = samples::entries();
    let list = Page { items: entries.clone(), next: Some(failures_cursor(&entries)) };
    let nothing = Page { items: Vec::new(), next: None };
    let names = || vec!["thumbs".to_owned(), "hello".to_owned()];
    let fields = |query: &str| fields(query);
    let mechanism = |name: &str, enforced, note: &str| workers::Mechanism {
        name: name.into(),
        enforced,
        note: note.into(),
    };
    let host = workers::Host {
        facts: vec![parts::Pair::new("kernel", "6.1.0"), parts::Pair::new("Pythons", "3.13.0, 3.11.2")],
        mechanisms: vec![
            mechanism("own network", true, ""),
            mechanism("memory limit", false, "the memory controller is off; boot with cgroup_enable=memory"),
        ],
    };
    let trace = samples::trace();
    let trace: Vec<_> = trace.iter().collect();
    let id = trace[0].invocation.trace_id;
    let mut empty = samples::overview_input();
    empty.functions.clear();
    empty.failures.clear();
    empty.recent.clear();
    (empty.total, empty.matching) = (0, 0);
    let mut warned = shell("Overview");
    warned.warnings = vec!["History is not written to disk since 4 min: no space left on device".into()];
    let mut signed_in = shell("");
    signed_in.signed_in = Some((HOSTILE.into(), "acme".into()));
    let login = |fault, signed_in| crate::http::login::samples(HOSTILE, fault, signed_in);
    let running = samples::running(fp_core::record::State::Running, 3_598);
    vec![
        ("overview", html(&overview::page(warned, &samples::overview_input()))),
        ("overview-empty", html(&overview::page(shell("Overview"), &empty))),
        ("function", function_page(samples::view(180, true), Some(samples::slo(true)), "thumbs")),
        ("function-quiet", function_page(samples::view(0, false), None, "thumbs")),
        ("invocations", html(&invocations::page(shell("Invocations"), &fields(""), names(), &list, NOW_US))),
        (
            "invocations-nothing",
            html(&invocations::page(
                shell("Invocations"),
                &fields("min=fast&function=thumbs"),
                names(),
                &nothing,
                NOW_US,
            )),
        ),
        ("invocation", html(&invocation::done_page(shell("Invocations"), &samples::kept(), NOW_US))),
        (
            "invocation-failed",
            html(&invocation::done_page(shell("Invocations"), &samples::kept_failed(), NOW_US)),
        ),
        ("invocation-running", html(&invocation::running_page(shell("Invocations"), &running, NOW_US))),
        ("workers", html(&workers::page(shell("Workers"), &samples::workers(), Some(host), NOW_US))),
        ("workers-none", html(&workers::page(shell("Workers"), &[], None, NOW_US))),
        ("traces", html(&traces::page(shell("Traces"), &fields(""), names(), &samples::summaries(), NOW_US))),
        ("traces-none", html(&traces::page(shell("Traces"), &fields(""), names(), &[], NOW_US))),
        (
            "trace",
            html(&trace::page(shell("Traces"), id, &trace, Vec::new(), NOW_US).expect("a trace with calls")),
        ),
        (
            "missing",
            html(&message::page(
                shell(""),
                404,
                "There is no such function",
                "It may have been deleted.",
                vec![way("All functions", "/")],
            )),
        ),
        ("signed-in", html(&message::page(signed_in, 403, "Your key may not read", "", vec![]))),
        ("login", html(&login(None, None))),
        ("login-again", html(&login(Some("This key is no key."), Some((HOSTILE.into(), "acme".into()))))),
        ("hostile-invocation", html(&invocation::done_page(shell("Invocations"), &hostile(), NOW_US))),
        (
            "hostile-trace",
            html(&trace::page(shell("Traces"), id, &[&hostile()], Vec::new(), NOW_US).expect("a trace")),
        ),
        (
            "hostile-filter",
            html(&invocations::page(
                shell("Invocations"),
                &hostile_fields(),
                names(),
                &hostile_list(),
                NOW_US,
            )),
        ),
        ("hostile-function", function_page(samples::view(1, false), None, HOSTILE)),
    ]
}

fn function_page(view: crate::slo::FunctionView, slo: Option<crate::slo::SloView>, name: &str) -> String {
    let manifest = samples::settings();
    let quiet = view.calls == 0;
    let entries = if quiet { Vec::new() } else { samples::entries() };
    let input = function::Input {
        name: name.into(),
        version: 4,
        events: vec![format!("http|POST|/{name}/{{id}}")],
        created_us: NOW_US - 900_000_000_000,
        deployed_us: NOW_US - 7_300_000_000,
        code_hash: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into(),
        handler: &manifest.handler,
        settings: &manifest.settings,
        files: vec![("handler.py".into(), 2_311), (format!("lib/{name}.py"), 914)],
        view,
        slo,
        hedges: (!quiet).then(|| crate::slo::HedgeCounts {
            calls: 1_000,
            started: 20,
            won: 18,
            ..Default::default()
        }),
        health: crate::catalog::HealthView { opened: 2, ..Default::default() },
        workers: if quiet { Vec::new() } else { samples::workers().into_iter().take(2).collect() },
        phases: if quiet { Vec::new() } else { samples::phases() },
        slowest: entries.iter().filter(|entry| done(entry).is_some()).take(6).cloned().collect(),
        failed: entries
            .into_iter()
            .filter(|entry| done(entry).is_some_and(|call| call.blame.is_some()))
            .collect(),
        minute_us: NOW_US - 12_345_678,
        now_us: NOW_US,
    };
    function::page(samples::shell(""), &input).render().expect("a page renders")
}

fn fields(query: &str) -> Fields {
    let uri: http::Uri = format!("/?{query}").parse().expect("a URI");
    Query::try_from_uri(&uri).expect("any query can be read").0
}

fn hostile_fields() -> Fields {
    let text = percent_encoding::utf8_percent_encode(HOSTILE, percent_encoding::NON_ALPHANUMERIC);
    fields(&format!("function={text}&outcome={text}&since={text}&min={text}&max={text}"))
}

fn hostile() -> fp_core::record::Kept {
    let mut kept = samples::kept_failed();
    kept.invocation.path = HOSTILE.into();
    kept.invocation.verb = HOSTILE.into();
    kept.invocation.event_type = format!("http|{HOSTILE}|/{HOSTILE}").into();
    kept.invocation.correlation_id = HOSTILE.into();
    kept.invocation.error = Some(HOSTILE.into());
    kept.result = Some(HOSTILE.into());
    for span in &mut kept.spans {
        span.name = HOSTILE.into();
        span.error = Some(HOSTILE.into());
        span.attributes = vec![(HOSTILE.into(), serde_json::json!({HOSTILE: HOSTILE}))];
    }
    for line in &mut kept.logs {
        line.text = HOSTILE.into();
        line.level = Some(HOSTILE.into());
    }
    kept
}

fn hostile_list() -> Page {
    Page { items: vec![Entry::Done(Box::new(hostile().invocation))], next: None }
}

fn failures_cursor(entries: &[Entry]) -> crate::history::Cursor {
    let call = entries.iter().rev().find_map(done).expect("a call that has ended");
    crate::history::Cursor { started_us: call.started_us, id: call.id }
}

/// The login has no navigation and needs no script.
fn stands_alone(name: &str) -> bool {
    name.starts_with("login")
}

/// The tags of a page, `<a href="…">` as `a href="…"`.
fn tags(html: &str) -> impl Iterator<Item = &str> {
    html.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(tag, _)| tag)
}

/// A tag's name and the names of its attributes, without their values.
fn names(tag: &str) -> String {
    tag.split('"').step_by(2).collect()
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// `PAGES_OUT` names a directory in which every sample page is then to be found.
#[test]
fn pages_can_be_looked_at() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let wanted = std::env::var_os("PAGES_OUT").map(std::path::PathBuf::from);
    let directory = wanted.as_deref().unwrap_or(scratch.path());
    std::fs::create_dir_all(directory.join("static")).expect("a directory to write to");
    for (name, html) in pages() {
        std::fs::write(directory.join(format!("{name}.html")), html).expect("a page is written");
    }
}

#[test]
fn what_others_wrote_stays_text() {
    for (name, html) in pages() {
        let scripts = tags(&html).filter(|tag| tag.starts_with("script")).count();
        let ours = usize::from(!stands_alone(name));
        assert_eq!(scripts, ours, "{name} has a script that is not ours");
        assert!(!html.contains("<img"), "{name}");
        for tag in tags(&html) {
            assert!(!names(tag).contains("onerror"), "{name}: {tag}");
        }
    }
}

#[test]
fn the_content_security_policy_has_nothing_to_refuse() {
    for (name, html) in pages() {
        for tag in tags(&html) {
            assert!(attribute(tag, "style").is_none() && !tag.starts_with("style"), "{name}: {tag}");
            assert!(!names(tag).contains(" on"), "{name}: {tag}");
            let source = attribute(tag, "src").or(attribute(tag, "href").filter(|_| tag.starts_with("link")));
            assert!(source.is_none_or(|source| source.starts_with("/static/")), "{name}: {tag}");
        }
    }
}

#[test]
fn ids_are_unique_and_references_lead_somewhere() {
    for (name, html) in pages() {
        let mut ids: Vec<_> = tags(&html).filter_map(|tag| attribute(tag, "id")).collect();
        ids.sort_unstable();
        let repeated = ids.windows(2).find(|pair| pair[0] == pair[1]);
        assert_eq!(repeated, None, "{name}");
        for tag in tags(&html) {
            for reference in ["aria-labelledby", "aria-describedby", "for", "list"] {
                for id in attribute(tag, reference).into_iter().flat_map(str::split_whitespace) {
                    assert!(ids.contains(&id), "{name}: nothing has the id {id}");
                }
            }
        }
    }
}

#[test]
fn every_page_has_one_heading_a_title_and_a_way_past_the_navigation() {
    for (name, html) in pages() {
        assert_eq!(tags(&html).filter(|tag| tag.split(' ').next() == Some("h1")).count(), 1, "{name}");
        assert!(!html.contains("<title> ·"), "{name} has no title");
        assert!(stands_alone(name) || html.contains("class=\"skip\" href=\"#main\""), "{name}");
    }
}

#[test]
fn pictures_say_what_they_show_or_that_they_are_decoration() {
    for (name, html) in pages() {
        for tag in tags(&html).filter(|tag| tag.split(' ').next() == Some("svg")) {
            let named = attribute(tag, "aria-label").is_some() || attribute(tag, "aria-labelledby").is_some();
            assert!(named || attribute(tag, "aria-hidden").is_some(), "{name}: {tag}");
        }
    }
}

#[test]
fn empty_pages_say_what_to_do_next() {
    let pages = pages();
    let page = |wanted: &str| &pages.iter().find(|(name, _)| *name == wanted).expect("a sample").1;
    for name in ["overview-empty", "traces-none", "workers-none"] {
        assert!(page(name).contains("curl "), "{name}");
    }
    assert!(page("overview-empty").contains("functionsplatform deploy"));
    assert!(page("invocations-nothing").contains("write it like 250ms"));
}
