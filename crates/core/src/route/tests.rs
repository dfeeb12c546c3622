//! Which function answers, and that a changed table is the one that is built anew.

use std::collections::BTreeMap;

use super::*;

#[test]
fn paths_have_one_normal_form() {
    for (raw, normal) in [
        ("/api/cats", "/api/cats"),
        ("/caf%C3%A9", "/café"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a%2fb", "/a%2Fb"),
        ("/100%25", "/100%25"),
        ("/%7Euser", "/~user"),
    ] {
        assert_eq!(normal_path(raw).as_deref(), Ok(normal), "{raw}");
    }
    for bad in ["/%", "/%4", "/%zz", "/%+1", "/%ff"] {
        assert_eq!(normal_path(bad), Err(BadPath), "{bad}");
    }
}

#[test]
fn the_two_kept_escapes_are_told_apart_at_the_end() {
    let decoded = |raw: &str| finish_decoding(&normal_path(raw).expect(raw)).into_owned();
    assert_eq!(decoded("/a%2Fb"), "/a/b");
    assert_eq!(decoded("/a%252Fb"), "/a%2Fb");
    assert_eq!(decoded("/100%25"), "/100%");
}

fn table(functions: &[(&str, &[&str])]) -> Result<RouteTable<String>, Conflict> {
    let parsed: Vec<(FunctionName, Vec<EventType>)> = functions
        .iter()
        .map(|(name, events)| {
            let events = events.iter().map(|event| event.parse().expect(event)).collect();
            (name.parse().expect(name), events)
        })
        .collect();
    RouteTable::build((0..).zip(&parsed).map(|(order, (name, events))| Routed {
        name,
        order,
        events,
        function: name.to_string(),
    }))
}

fn answer(table: &RouteTable<String>, verb: &str, path: &str) -> String {
    match table.find(verb, &normal_path(path).expect(path)) {
        Route::Found(Matched { functions, params, .. }) => {
            let params: String = params.iter().map(|(name, value)| format!(" {name}={value}")).collect();
            format!("{}{params}", functions.join("+"))
        }
        Route::OtherVerbs(verbs) => format!("405 {}", verbs.join(",")),
        Route::Nothing { .. } => "404".to_owned(),
    }
}

#[test]
fn the_most_specific_pattern_answers() {
    let table = table(&[
        ("any", &["http|*|/x"]),
        ("get", &["http|GET|/x"]),
        ("rest", &["http|GET|/s/{*rest}"]),
        ("param", &["http|GET|/s/{id}", "http|POST|/s/{id}"]),
        ("literal", &["http|GET|/s/me"]),
        ("wild", &["http|*|/s/you"]),
        ("slash", &["http|GET|/s/me/"]),
    ])
    .expect("no conflict");
    for (verb, path, expected) in [
        ("GET", "/x", "get"),
        ("HEAD", "/x", "get"),
        ("PURGE", "/x", "any"),
        ("GET", "/s/me", "literal"),
        ("HEAD", "/s/me", "literal"),
        ("GET", "/s/you", "wild"),
        ("GET", "/s/a%2Fb", "param id=a/b"),
        ("GET", "/s/caf%C3%A9", "param id=café"),
        ("GET", "/s/a/b/c", "rest rest=a/b/c"),
        ("GET", "/s/me/", "slash"),
        ("POST", "/s/me", "param id=me"),
        ("PUT", "/s/me", "405 GET,HEAD,POST"),
        ("GET", "/s/", "404"),
        ("GET", "/nothing", "404"),
    ] {
        assert_eq!(answer(&table, verb, path), expected, "{verb} {path}");
    }
}

#[test]
fn functions_of_one_event_type_share_it_in_order() {
    let table = table(&[("first", &["http|GET|/x"]), ("second", &["http|GET|/x", "http|GET|/x"])]);
    assert_eq!(answer(&table.expect("sharing is no conflict"), "GET", "/x"), "first+second");
}

#[test]
fn patterns_that_match_the_same_paths_conflict_by_name() {
    let refused = table(&[("a", &["http|GET|/x/{id}"]), ("b", &["http|GET|/x/{name}"])]);
    let refused = refused.expect_err("one position, two names");
    assert!(
        refused.to_string().contains("/x/{id}") && refused.to_string().contains("/x/{name}"),
        "{refused}"
    );
    assert!(table(&[("a", &["http|GET|/x/{id}"]), ("b", &["http|POST|/x/{name}"])]).is_ok());
}

#[test]
fn what_leads_nowhere_is_told_its_neighbours() {
    let mut functions = vec![("far".to_owned(), "http|GET|/x".to_owned())];
    functions.extend((0..50).map(|n| (format!("f{n}"), format!("http|GET|/api/item{n:02}"))));
    let listed: Vec<_> = functions.iter().map(|(name, event)| (&**name, [&**event])).collect();
    let listed: Vec<_> = listed.iter().map(|(name, event)| (*name, &event[..])).collect();
    let table = table(&listed).expect("no conflict");
    let near = |path: &str| match table.find("GET", path) {
        Route::Nothing { near } => near,
        other => panic!("{other:?}"),
    };
    assert_eq!(near("/api/item1"), ["http|GET|/api/item10", "http|GET|/api/item11", "http|GET|/api/item12"]);
    assert_eq!(near("/api/item49x")[0], "http|GET|/api/item49");
    assert_eq!(near("/zzz"), [""; 0]);
}

const PATTERNS: [&str; 9] = [
    "http|GET|/",
    "http|GET|/a",
    "http|*|/a",
    "http|GET|/a/{x}",
    "http|GET|/a/{y}",
    "http|POST|/a/{x}",
    "http|GET|/a/b",
    "http|GET|/a/{*rest}",
    "http|GET|/100%25/c",
];

const PATHS: [&str; 8] = ["/", "/a", "/a/b", "/a/c", "/a/b/c", "/100%25/c", "/100%25", "/x"];

fn state_of(table: &RouteTable<String>) -> Vec<String> {
    let verbs = ["GET", "POST", "HEAD"];
    verbs.iter().flat_map(|verb| PATHS.map(|path| answer(table, verb, path))).collect()
}

proptest::proptest! {
    /// A table that was changed step by step is the one that is built from what is left, and
    /// its earlier states stay what they were.
    #[test]
    fn changes_lead_to_the_same_table_as_building_anew(
        steps in proptest::collection::vec((0..6usize, proptest::collection::vec(0..PATTERNS.len(), 0..4)), 1..30),
    ) {
        let names: Vec<FunctionName> = (0..6).map(|n| format!("f{n}").parse().expect("a name")).collect();
        let mut live: BTreeMap<usize, Vec<EventType>> = BTreeMap::new();
        let mut table = RouteTable::default();
        for (which, patterns) in steps {
            let events: Vec<EventType> =
                patterns.iter().map(|at| PATTERNS[*at].parse().expect("an event type")).collect();
            let name = &names[which];
            let (earlier, before) = (table.clone(), state_of(&table));
            let mut wanted = live.clone();
            wanted.insert(which, events.clone());
            let routed = |live: &BTreeMap<usize, Vec<EventType>>| {
                RouteTable::build(live.iter().map(|(at, events)| Routed {
                    name: &names[*at],
                    order: *at as u64,
                    events,
                    function: names[*at].to_string(),
                }))
            };
            let built = routed(&wanted);
            proptest::prop_assert_eq!(table.check(name, &events).is_ok(), built.is_ok());
            let Ok(built) = built else { continue };
            let mut next = table.clone();
            next.remove(name, live.get(&which).map_or(&[], Vec::as_slice));
            let function = name.to_string();
            next.insert(&Routed { name, order: which as u64, events: &events, function }).expect("checked");
            proptest::prop_assert_eq!(state_of(&next), state_of(&built));
            proptest::prop_assert_eq!(next.known.size(), built.known.size());
            proptest::prop_assert_eq!(state_of(&earlier), before);
            (table, live) = (next, wanted);
        }
        for (at, events) in live {
            table.remove(&names[at], &events);
        }
        proptest::prop_assert!(table.root.is_empty() && table.known.is_empty());
    }
}
