//! The settings of libpq's variables, a line of the input each: `sslmode`,
//! `sslrootcert`, hosts, their addresses, ports, and names for the nodes.

use std::collections::HashSet;
use std::ffi::OsString;

use pgpair::config::{Config, Environment, Flags};
use pgpair::http::routes::{self, Route};
use pgpair::probe::verdict::Scope;

use super::{is_a_plain_line, libpq};

const MODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

/// More are no pair.
const NODES_AT_MOST: usize = 16;

const VARIABLES: [&str; 6] = [
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGPAIR_NODES",
];

/// Every node that comes out has a name of its own which a path can hold, and a
/// port; a mode is taken as libpq takes it; what is refused is named.
pub fn settings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let mut values = VARIABLES.map(|name| (name, lines.next().unwrap_or("")));
    // Files are not what this is about.
    if values[1].1 != "system" {
        values[1].1 = "";
    }
    let given = values.into_iter().chain([("PGUSER", "u")]);
    // An empty mode is refused, as by libpq; one that is not set is not.
    let environment: Environment = given
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), OsString::from(value)))
        .collect();
    let [mode, roots, hosts, addresses, ..] = values.map(|(_, value)| value);
    match Config::new(&Flags::new(), &environment) {
        Ok(config) => {
            is_a_pair(&config, hosts, addresses);
            assert!(mode.is_empty() || MODES.contains(&mode), "{mode:?}");
            let weak = !matches!(mode, "" | "verify-full");
            assert!(
                !(roots == "system" && weak),
                "{mode:?} with the system's roots"
            );
        }
        Err(error) => {
            let said = error.to_string();
            let named = VARIABLES.iter().any(|name| said.starts_with(name));
            assert!(named || said.starts_with("DATABASE_URL "), "{said}");
            // A control character is shown as Rust writes it.
            is_a_plain_line(&said);
        }
    }
    if !mode.contains('\0') && !mode.is_empty() {
        let known = MODES.contains(&mode);
        assert_eq!(libpq::knows_sslmode(mode), known, "{mode:?}");
    }
}

fn is_a_pair(config: &Config, hosts: &str, addresses: &str) {
    let count = |list: &str| match list {
        "" => 0,
        list => list.split(',').count(),
    };
    let nodes = &config.nodes;
    assert_eq!(nodes.len(), count(hosts).max(count(addresses)));
    assert!((1..=NODES_AT_MOST).contains(&nodes.len()));
    let names: Vec<String> = nodes.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
    for (place, (name, settings)) in nodes.iter().enumerate() {
        assert_ne!(settings.port, 0, "{name}");
        let found = routes::route(&format!("/nodes/{name}/ready"), &names);
        let Route::Question(question) = found else {
            panic!("{name:?} is no part of a path: {found:?}");
        };
        assert_eq!(question.scope, Scope::Node(place), "{name:?}");
    }
}
