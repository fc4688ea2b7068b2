//! What holds for every input of a parser. Each property is one function of
//! bytes that panics where it does not hold, so that proptest and libFuzzer can
//! both look for such bytes.

mod certificate;
mod cli;
mod client;
mod conninfo;
mod exposition;
mod libpq;
mod passfile;
mod routes;
mod settings;
mod status;
mod values;

/// What panics for bytes that it does not hold for.
pub type Property = fn(&[u8]);

/// Every property by its name, which is also that of its corpus and its words.
pub const ALL: [(&str, Property); 14] = [
    ("accept", exposition::accept),
    ("answer", client::answer),
    ("certificate", certificate::certificate),
    ("cli", cli::cli),
    ("conninfo", conninfo::conninfo),
    ("duration", values::duration),
    ("exposition", exposition::exposition),
    ("lsn", values::lsn),
    ("passfile", passfile::passfile),
    ("route", routes::route),
    ("settings", settings::settings),
    ("size", values::size),
    ("status", status::status),
    ("url", client::url),
];

/// Finds a property.
pub fn named(name: &str) -> Property {
    let found = ALL.iter().find(|(known, _)| *known == name);
    found
        .unwrap_or_else(|| panic!("no property {name:?}; there are {:?}", ALL.map(|it| it.0)))
        .1
}

/// Begins every password: one search finds any that leaks.
const MARK: &str = "hunter2";

/// What a message for a person may be at most, in characters.
const MESSAGE_AT_MOST: usize = 1_000;

/// Checks a message for a person: a line of bounded length that cannot steer a
/// terminal, without a password.
fn is_a_plain_line(message: &str) {
    assert!(!message.is_empty());
    let length = message.chars().count();
    assert!(length <= MESSAGE_AT_MOST, "{length}: {message}");
    assert!(!message.contains(char::is_control), "{message:?}");
    holds_no_password(message);
}

/// Checks that a text has no password in it.
fn holds_no_password(text: &str) {
    assert!(!text.to_lowercase().contains(MARK), "a password: {text}");
}
