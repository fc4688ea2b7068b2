//! Connection strings, and all that is made of them.

use std::ffi::OsString;

use pgpair::config::{Config, Environment, Flags};
use pgpair::pg::conninfo::{self, ConninfoError, Parameters};
use pgpair::pg::parameters::PARAMETERS;

use super::{MARK, holds_no_password, is_a_plain_line, libpq};

/// Where it is taken it means what it means to libpq; where it is refused, libpq
/// refuses it too, but for what the documentation says. No password is shown.
pub fn conninfo(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    agrees_with_libpq(text);
    is_read_as_written(text);
    shows_nothing(text);
    for around in [
        format!("postgresql://u:{MARK}{text}@h"),
        format!("postgresql://u:{MARK}@{text}"),
        format!("postgresql://u@h/d?password={MARK}{text}"),
        format!("host=h user=u password={MARK}{text}"),
        format!("password='{MARK}{text}"),
        format!("{text} password={MARK} host=h"),
    ] {
        shows_nothing(&around);
    }
}

fn agrees_with_libpq(text: &str) {
    let found = conninfo::parse(text);
    if text.contains('\0') {
        return assert_eq!(found, Err(ConninfoError::Nul));
    }
    let theirs = libpq::parse(text);
    match (&found, &theirs) {
        (Ok(found), Some(theirs)) => assert_eq!(*found, in_utf8(theirs), "{text:?}"),
        (Ok(found), None) => assert!(is_newer_than_libpq(text), "{text:?}: {found:?}"),
        (Err(ConninfoError::Empty), _) => assert!(text.trim().is_empty()),
        (Err(ConninfoError::Percent), Some(_)) => assert!(is_not_utf8(text), "{text:?}"),
        (Err(error), Some(theirs)) => panic!("{text:?}: {error:?}, and libpq: {theirs:?}"),
        (Err(_), None) => {}
    }
}

fn in_utf8(theirs: &[(String, Vec<u8>)]) -> Parameters {
    let theirs = theirs.iter().map(|(name, value)| {
        let value = String::from_utf8(value.clone()).expect("UTF-8, or it is refused");
        (name.clone(), value)
    });
    theirs.collect()
}

/// Names a parameter that this libpq does not know yet, or not any more.
fn is_newer_than_libpq(text: &str) -> bool {
    let mut newer = PARAMETERS.iter().filter(|it| !libpq::knows(it.name));
    newer.any(|it| text.contains(it.name))
}

fn is_not_utf8(text: &str) -> bool {
    let theirs = libpq::parse(text).unwrap_or_default();
    theirs
        .iter()
        .any(|(_, value)| std::str::from_utf8(value).is_err())
}

/// Any text can be a password, written either way.
fn is_read_as_written(text: &str) {
    if text.is_empty() || text.contains('\0') {
        return;
    }
    let quoted = text.replace('\\', "\\\\").replace('\'', "\\'");
    let percent: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    for written in [
        format!("host=h password='{quoted}' user = u"),
        format!("postgres://u:{percent}@h"),
        format!("postgres://h?password={percent}&user=u"),
    ] {
        let found = conninfo::parse(&written).expect("well written");
        let found: Vec<(&str, &str)> = found.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(
            found,
            [("host", "h"), ("password", text), ("user", "u")],
            "{written:?}"
        );
    }
}

/// Nothing that is printed has a password in it.
fn shows_nothing(text: &str) {
    if let Err(error) = conninfo::parse(text) {
        is_a_plain_line(&error.to_string());
    }
    let environment: Environment = [
        ("DATABASE_URL".to_owned(), OsString::from(text)),
        // Names that would not do come from hosts.
        ("PGPAIR_NODES".to_owned(), OsString::from("a")),
        ("PGUSER".to_owned(), OsString::from("u")),
        ("PGHOST".to_owned(), OsString::from("h")),
    ]
    .into_iter()
    .collect();
    holds_no_password(&format!("{environment:?}"));
    match Config::new(&Flags::new(), &environment) {
        Ok(config) => {
            // What was read as something else is no password to anybody.
            let found = conninfo::parse(text).unwrap_or_default();
            let others = found.iter().filter(|(name, _)| *name != "password");
            if !others.map(|(_, value)| value).any(|it| it.contains(MARK)) {
                holds_no_password(&format!("{config:?}"));
            }
        }
        Err(error) => is_a_plain_line(&error.to_string()),
    }
}

/// Whatever this libpq knows is honoured, harmless or refused by name.
#[test]
fn every_parameter_and_variable_of_libpq_is_known() {
    for (name, variable) in libpq::known() {
        let known = PARAMETERS.iter().find(|it| it.name == name);
        let known = known.unwrap_or_else(|| panic!("{name} is not known"));
        assert_eq!(known.variable, variable.unwrap_or_default(), "{name}");
    }
}
