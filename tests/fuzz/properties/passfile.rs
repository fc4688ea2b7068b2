//! `.pgpass`: the first line of the input says who looks, the rest is the file.

use std::path::Path;

use pgpair::probe::passfile::Entries;

use super::{holds_no_password, libpq};

/// Host, port, database and user of who looks.
struct Looking<'a> {
    host: &'a str,
    port: u16,
    dbname: &'a str,
    user: &'a str,
}

/// The password found is the one that libpq finds; whatever is written with its
/// colons and backslashes protected is read as it was.
pub fn passfile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (first, file) = text.split_once('\n').unwrap_or((text, ""));
    let fields: Vec<&str> = first.split('\t').collect();
    let field = |at: usize| fields.get(at).copied().filter(|it| !it.is_empty());
    let looking = Looking {
        host: field(0).unwrap_or("h"),
        port: field(1)
            .and_then(|it| it.parse().ok())
            .unwrap_or(5432)
            .max(1),
        dbname: field(2).unwrap_or("d"),
        user: field(3).unwrap_or("u"),
    };
    let entries = Entries::parse(file);
    let found = entries.find(looking.host, looking.port, looking.dbname, looking.user);
    let found = found.as_ref().map(|secret| secret.expose());
    holds_no_password(&format!("{entries:?}"));
    if is_comparable(&looking, file) {
        assert_eq!(found.unwrap_or(""), libpqs(&looking, file), "{text:?}");
    }
    is_read_as_written(&looking, file);
}

/// libpq ends texts at a zero byte and the list of hosts at a comma, and takes a
/// path for a socket.
fn is_comparable(looking: &Looking<'_>, file: &str) -> bool {
    let all = [looking.host, looking.dbname, looking.user, file];
    !all.iter().any(|text| text.contains('\0'))
        && !looking.host.contains(',')
        && !looking.host.starts_with(['/', '@'])
        // A name may be a whole connection string.
        && !looking.dbname.contains('=')
        && !looking.dbname.contains("://")
}

fn libpqs(looking: &Looking<'_>, file: &str) -> String {
    libpq::with_file(file.as_bytes(), |path: &Path| {
        libpq::password(&[
            ("host", looking.host),
            // Nobody is asked: the password is looked up before.
            ("hostaddr", "127.0.0.1"),
            ("port", &looking.port.to_string()),
            ("dbname", looking.dbname),
            ("user", looking.user),
            ("passfile", path.to_str().expect("a plain path")),
            ("sslmode", "disable"),
            ("gssencmode", "disable"),
        ])
    })
}

fn is_read_as_written(looking: &Looking<'_>, password: &str) {
    let written = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    let keys = [looking.host, looking.dbname, looking.user];
    let lines = [&keys[..], &[password]].concat();
    if lines.iter().any(|text| text.contains(['\n', '\r'])) || looking.host.starts_with('#') {
        return;
    }
    let line = format!(
        "{}:{}:{}:{}:{}",
        written(looking.host),
        looking.port,
        written(looking.dbname),
        written(looking.user),
        written(password),
    );
    let found =
        Entries::parse(&line).find(looking.host, looking.port, looking.dbname, looking.user);
    assert_eq!(
        found.as_ref().map(|it| it.expose()),
        Some(password),
        "{line:?}"
    );
}
