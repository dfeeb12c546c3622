use super::*;

fn read(text: &str) -> Query {
    Query::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn number_in(field: Number, values: &[u64]) -> Condition {
    Condition::Test(Test::NumberIn(field, values.to_vec()))
}

fn text_in(field: Text, values: &[&str]) -> Condition {
    Condition::Test(Test::TextIn(field, values.iter().map(|value| Some((*value).to_owned())).collect()))
}

#[test]
fn a_whole_question() {
    let query = read("outcome != \"ok\" and phase.queue > 50ms since 1h group by function, tenant");
    let failed = Condition::Not(Box::new(text_in(Text::Outcome, &["ok"])));
    let queued = Condition::Test(Test::Within(Number::Queue, 50_000_001, NONE));
    assert_eq!(query.filter, Condition::And(vec![failed, queued]));
    assert_eq!(query.since.as_deref(), Some("1h"));
    assert_eq!(query.group_by, [By::Text(Text::Function), By::Text(Text::Tenant)]);
    assert_eq!((query.measure, query.order, query.descending), (Number::Duration, Column::Count, true));
    assert_eq!(query.limit, DEFAULT_LIMIT);
}

#[test]
fn clauses_stand_in_any_order_and_without_a_condition() {
    let query =
        read("order by p99.9 limit 5 of phase.run until 2026-01-31T12:00:00Z group by time(5m),version");
    assert_eq!(query.filter, Condition::All);
    assert_eq!(query.group_by, [By::Time(300_000_000), By::Number(Number::Version)]);
    assert_eq!((query.order, query.descending), (Column::Percentile(999), true));
    assert_eq!((query.measure, query.limit), (Number::Run, 5));
    assert_eq!(query.until.as_deref(), Some("2026-01-31T12:00:00Z"));
    assert_eq!(read("").filter, Condition::All);
}

#[test]
fn times_come_in_their_order_and_fields_can_be_ordered_by() {
    let query = read("group by function, time(1m)");
    assert_eq!((query.order, query.descending), (Column::Group(1), false));
    let query = read("group by function order by function desc");
    assert_eq!((query.order, query.descending), (Column::Group(0), true));
    assert!(Query::parse("group by function order by tenant").is_err());
}

#[test]
fn or_binds_less_than_and_and_not_most() {
    let cold = number_in(Number::Cold, &[1]);
    let a = text_in(Text::Verb, &["GET"]);
    let b = text_in(Text::Verb, &["PUT"]);
    assert_eq!(
        read("cold or verb = GET and verb = PUT").filter,
        Condition::Or(vec![cold.clone(), Condition::And(vec![a.clone(), b.clone()])])
    );
    assert_eq!(
        read("(cold or verb=GET) and not verb == 'PUT'").filter,
        Condition::And(vec![Condition::Or(vec![cold, a]), Condition::Not(Box::new(b))])
    );
}

#[test]
fn truths_stand_alone_and_not_of_them_is_false_and_not_unknown() {
    assert_eq!(read("not latency_met").filter, number_in(Number::LatencyMet, &[0]));
    assert_eq!(read("latency_met = false").filter, number_in(Number::LatencyMet, &[0]));
    assert_eq!(read("latency_met = none").filter, number_in(Number::LatencyMet, &[NONE]));
}

#[test]
fn lists_globs_and_none() {
    assert_eq!(read("status in (500, 502)").filter, number_in(Number::Status, &[500, 502]));
    assert_eq!(
        read("verb not in (GET, \"PUT\")").filter,
        Condition::Not(Box::new(text_in(Text::Verb, &["GET", "PUT"])))
    );
    assert_eq!(
        read("path ~ /api/*").filter,
        Condition::Test(Test::Like(Text::Path, vec!["/api/*".to_owned()]))
    );
    assert_eq!(read("error = none").filter, Condition::Test(Test::TextIn(Text::Error, vec![None])));
}

#[test]
fn units() {
    let at_least = |field, least| Condition::Test(Test::Within(field, least, NONE));
    assert_eq!(read("duration >= 1.5ms").filter, at_least(Number::Duration, 1_500_000));
    assert_eq!(read("duration >= 1m30s").filter, at_least(Number::Duration, 90_000_000_000));
    assert_eq!(read("request_bytes >= 64KiB").filter, at_least(Number::RequestBytes, 65_536));
    assert_eq!(read("memory_peak >= 100").filter, at_least(Number::MemoryPeak, 100));
}

#[test]
fn what_cannot_be_read_says_where_and_what_may_stand_there() {
    for (question, at, said) in [
        ("outcme = ok", 1, "did you mean outcome?"),
        ("duration > 50", 12, "a time with its unit, such as 50ms, not with \"50\""),
        ("duration ~ 50ms", 10, "duration is a number"),
        ("outcome > ok", 9, "outcome is a text"),
        ("outcome", 8, "outcome is a text"),
        ("status", 7, "the end stands where status is compared"),
        ("status = \"500\"", 10, "without quotation marks"),
        ("cold = 1", 8, "true or false"),
        ("outcome = ok since", 19, "an age, such as 1h"),
        ("outcome = ok verb = GET", 14, "\"and\", \"or\" or one of since"),
        ("since 1h since 2h", 10, "a second time"),
        ("(cold", 6, "the end stands where \")\" must"),
        ("outcome = \"ok", 11, "no closing"),
        ("group by cold, cold", 16, "each once"),
        ("group by time", 14, "\"(\" must"),
        ("group by time(5)", 15, "time(5m)"),
        ("time > 5m", 1, "only for \"group by\""),
        ("of outcome", 4, "percentiles are of numbers"),
        ("order by p98", 10, "\"p98\" is no column"),
        ("limit 0", 7, "from 1 to 5000"),
        ("trace_id = x", 1, "look one up by its id"),
        ("worker > none", 10, "only for = and !="),
        ("status = 18446744073709551615", 10, "a whole number"),
        ("!", 1, "means nothing"),
        ("and", 1, "\"and\" is not a field"),
    ] {
        let error = Query::parse(question).expect_err(question);
        assert!(error.what.contains(said), "{question}: {error}");
        assert_eq!(error.at, at, "{question}: {error}");
    }
}

#[test]
fn a_question_is_bounded() {
    assert!(Query::parse(&"(".repeat(5_000)).is_err());
    assert!(Query::parse(&"not ".repeat(2_000)).is_err());
    let many = vec!["cold"; MAX_TESTS + 1].join(" or ");
    assert!(Query::parse(&many).unwrap_err().what.contains("64 tests"));
    assert!(Query::parse(&" ".repeat(MAX_BYTES + 1)).is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_is_too_odd(text in "[a-z0-9 ().,=<>!~\"'\\\\é]{0,60}") {
        let _ = Query::parse(&text);
    }
}
