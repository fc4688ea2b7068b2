//! What no PostgreSQL says, and a stranger in its place may.

use super::*;
use crate::pg::lsn::Lsn;

/// Answers from a list, and remembers what it was asked.
struct Script {
    answers: Vec<Result<Vec<Table>, Trouble>>,
    asked: Vec<String>,
}

impl Script {
    fn of(answers: Vec<Result<Vec<Table>, Trouble>>) -> Script {
        Script {
            answers,
            asked: Vec::new(),
        }
    }
}

impl Server for Script {
    fn query(&mut self, sql: &str) -> Result<Vec<Table>, Trouble> {
        self.asked.push(sql.to_owned());
        match self.answers.is_empty() {
            true => Err(refused("42501")),
            false => self.answers.remove(0),
        }
    }
}

fn refused(state: &str) -> Trouble {
    Trouble::Refused {
        state: state.to_owned(),
        failure: Failure::new(Reason::Error, "phrase").with_cause("cause"),
    }
}

fn row(values: &[&str]) -> Row {
    values
        .iter()
        .map(|value| (*value != "NULL").then(|| (*value).to_owned()))
        .collect()
}

fn primary() -> Table {
    vec![row(&["f", "off"])]
}

const DEEP: What = What::Observe(Depth::Replication);

fn told(tables: Vec<Table>) -> Replication {
    let mut server = Script::of(vec![Ok(tables)]);
    let facts = Session::new(Some(170_000)).ask(DEEP, &mut server);
    let facts = facts.expect("the role is told");
    Arc::unwrap_or_clone(facts.replication.expect("and more"))
}

#[test]
fn answer_without_a_role_is_not_understood() {
    for tables in [
        vec![],
        vec![vec![]],
        vec![vec![row(&[])]],
        vec![vec![row(&["f"])]],
        vec![vec![row(&["f", "NULL"])]],
        vec![vec![row(&["f", "maybe"])]],
        vec![vec![row(&["f", "off", "off"])]],
    ] {
        for what in [What::Observe(Depth::Role), DEEP] {
            let mut server = Script::of(vec![Ok(tables.clone())]);
            let outcome = Session::new(None).ask(what, &mut server);
            assert_eq!(outcome, Err(not_understood()), "{tables:?}");
        }
    }
}

#[test]
fn what_is_missing_or_malformed_is_not_known() {
    let nothing = Replication {
        server_version: Some(170_000),
        ..Replication::default()
    };
    assert_eq!(told(vec![primary()]), nothing);
    assert_eq!(told(vec![primary(), vec![]]), nothing);
    let nonsense = ["-1", "1e9", "G", "x", "0", "1/", "yes", "NaN", "2", ""];
    let nonsense = told(vec![primary(), vec![row(&nonsense)]]);
    assert_eq!(nonsense, nothing);
}

#[test]
fn numbers_that_cannot_be_shown_are_not_known() {
    for value in ["NaN", "inf", "-Infinity", "1e999"] {
        assert_eq!(seconds(Some(value.to_owned())), None, "{value}");
    }
    assert_eq!(seconds(Some("-0.5".to_owned())), Some(-0.5));
}

#[test]
fn rows_are_limited_and_the_rest_is_counted() {
    let senders = |count: usize, all: &str| {
        let rows = vec![row(&[all, "b", "streaming", "async"]); count];
        let values = vec![row(&[])];
        let senders = told(vec![primary(), values, vec![], rows, vec![]]).senders;
        senders.map(|rows| (rows.kept.len(), rows.more))
    };
    assert_eq!(senders(0, ""), Some((0, 0)));
    assert_eq!(senders(2, "2"), Some((2, 0)));
    assert_eq!(senders(100, "140"), Some((100, 40)));
    assert_eq!(senders(5_000, "5000"), Some((100, 4_900)));
    assert_eq!(senders(1, "NULL"), Some((1, 0)));
}

#[test]
fn slot_that_looks_like_another_is_counted_only() {
    let slot = |name| row(&["3", name, "t", "physical", "f", "0", "reserved"]);
    let slots = vec![slot("a?"), slot("b"), slot("a?")];
    let told = told(vec![primary(), vec![row(&[])], vec![], vec![], slots]);
    let names: Vec<&str> = told.slots().iter().map(|slot| slot.name.as_str()).collect();
    assert_eq!(names, ["a?", "b"]);
    assert_eq!(told.slots.expect("told").more, 1);
}

#[test]
fn one_refused_expression_costs_one_value_and_is_not_asked_again_soon() {
    // Together, the role, then each part; the second is refused.
    let lsn = VALUES.iter().position(|part| *part == Part::Lsn);
    let mut values = row(&["NULL"; VALUES.len()]);
    values[lsn.expect("a value")] = Some("0/10".to_owned());
    let mut answers = vec![
        Err(refused("42501")),
        Ok(vec![primary()]),
        Ok(vec![vec![values.clone()]]),
        Err(refused("42501")),
    ];
    let part = || Ok(vec![vec![values.clone()], vec![]]);
    answers.extend(Part::ALL[2..].iter().map(|_| part()));
    // And once more together.
    answers.push(Ok(vec![primary(), vec![values.clone()]]));
    let mut server = Script::of(answers);
    let mut session = Session::new(Some(170_000));
    for round in 0..2 {
        let facts = session.ask(DEEP, &mut server).expect("the role is told");
        assert!(facts.is_writable_primary());
        let told = facts.replication.expect("and more");
        assert_eq!(told.lsn, Some(Lsn(0x10)), "round {round}");
        let denied: Vec<Part> = told.denied.iter().map(|it| it.part).collect();
        assert_eq!(denied, [Part::StartTime], "round {round}");
    }
    let last = server.asked.last().expect("asked");
    assert!(last.contains("pg_control_system"), "{last}");
    assert!(!last.contains("pg_postmaster_start_time"), "{last}");
}

#[test]
fn server_that_refuses_all_but_the_role_still_has_one() {
    let mut server = Script::of(vec![Err(refused("0A000")), Ok(vec![primary()])]);
    let facts = Session::new(None).ask(DEEP, &mut server);
    let told = facts.expect("the role").replication.expect("and no more");
    assert_eq!(told.denied.len(), Part::ALL.len());
    assert_eq!(told.streams(), None);
    assert!(told.senders.is_none() && told.slots.is_none());
}

#[test]
fn only_a_setting_of_the_server_makes_a_primary_read_only() {
    for (source, read_only) in [
        ("configuration file", true),
        ("command line", true),
        ("global", true),
        ("user", false),
        ("database", false),
        ("database user", false),
        ("session", false),
        ("client", false),
    ] {
        let role = vec![vec![row(&["f", "on"])]];
        let mut server = Script::of(vec![Ok(role), Ok(vec![vec![row(&[source])]])]);
        let facts = Session::new(None).ask(What::Observe(Depth::Role), &mut server);
        assert_eq!(facts.expect("told").read_only, read_only, "{source}");
    }
}

#[test]
fn versions_are_asked_for_what_they_have() {
    for (version, absent) in [
        (100_000, &["sender_host", "reply_time", "wal_status"][..]),
        (110_000, &["reply_time", "wal_status"]),
        (120_000, &["wal_status"]),
        (130_000, &[]),
    ] {
        let sql = Session::new(Some(version)).sql(&Part::ALL);
        for column in ["sender_host", "reply_time", "wal_status"] {
            let expected = !absent.contains(&column);
            assert_eq!(sql.contains(column), expected, "{version} {column}");
        }
    }
}

/// Operators, functions, views and types; what is left without a schema are
/// columns, aliases and words of SQL itself.
#[test]
fn every_name_is_qualified() {
    let all = format!(
        "{ROLE} {READ_ONLY_SOURCE} {COMMIT} {SETTINGS} {}",
        Session::new(None).sql(&Part::ALL)
    );
    for operator in ["=", "<", ">", "-", "*", "+", "|"] {
        for place in all.match_indices(operator).map(|(at, _)| at) {
            let before = &all[..place];
            let quoted = before.matches('\'').count() % 2 == 1;
            let right =
                quoted || before.ends_with("count(") || before.ends_with("OPERATOR(pg_catalog.");
            assert!(right, "{operator} after {before}");
        }
    }
    for name in all.split(|c: char| !c.is_alphanumeric() && !"_.('".contains(c)) {
        let called = name.split_once('(').map_or("", |(name, _)| name);
        let sql = ["", "EXTRACT", "OPERATOR", "GREATEST", "OVER", "VALUES"].contains(&called);
        assert!(sql || called.starts_with("pg_catalog."), "{name}");
    }
    for view in all.split("FROM ").skip(1).chain(all.split("JOIN ").skip(1)) {
        assert!(
            view.starts_with("pg_catalog.") || view.starts_with('('),
            "{view}"
        );
    }
    for cast in all.split("::").skip(1) {
        assert!(cast.starts_with("pg_catalog."), "{cast}");
    }
}
