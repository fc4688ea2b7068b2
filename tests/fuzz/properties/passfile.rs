//! `.pgpass`: the first line of the input says who looks, the rest is the file.

use std::path::Path;

use pgpair::pg::passfile::Entries;

use super::{holds_no_password, libpq};

/// Host, port, database and user of who looks.
struct Looking<'a> {
    host: &'a str,
    port: u16,
    dbname: &'a str,
    user: &'a str,
}

/// The password found is the one that libpq finds, whatever the file is written in;
/// whatever is written with its colons and backslashes protected is read as it was.
pub fn passfile(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (first, file) = match end {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    let Ok(first) = std::str::from_utf8(first) else {
        return;
    };
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
    let found = find(&entries, &looking);
    holds_no_password(&format!("{entries:?}"));
    if is_comparable(&looking, file) {
        assert_eq!(
            found.unwrap_or_default(),
            libpqs(&looking, file),
            "{bytes:?}"
        );
    }
    is_read_as_written(&looking, file);
}

fn find(entries: &Entries, looking: &Looking<'_>) -> Option<Vec<u8>> {
    let found = entries.find(&[looking.host], looking.port, looking.dbname, looking.user);
    found.map(|secret| secret.expose().to_vec())
}

/// libpq ends texts at a zero byte and the list of hosts at a comma, and takes a
/// path for a socket.
fn is_comparable(looking: &Looking<'_>, file: &[u8]) -> bool {
    let all = [looking.host, looking.dbname, looking.user];
    !file.contains(&0)
        && !all.iter().any(|text| text.contains('\0'))
        && !looking.host.contains(',')
        && !looking.host.starts_with(['/', '@'])
        // A name may be a whole connection string.
        && !looking.dbname.contains('=')
        && !looking.dbname.contains("://")
}

fn libpqs(looking: &Looking<'_>, file: &[u8]) -> Vec<u8> {
    libpq::with_file(file, |path: &Path| {
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

fn is_read_as_written(looking: &Looking<'_>, password: &[u8]) {
    let written = |text: &[u8]| -> Vec<u8> {
        let protected = |byte: &u8| match byte {
            b'\\' | b':' => vec![b'\\', *byte],
            byte => vec![*byte],
        };
        text.iter().flat_map(protected).collect()
    };
    let port = looking.port.to_string();
    let [host, dbname, user] = [looking.host, looking.dbname, looking.user].map(str::as_bytes);
    let fields = [host, port.as_bytes(), dbname, user, password];
    let ends = |text: &&[u8]| text.iter().any(|byte| matches!(byte, b'\n' | b'\r'));
    if fields.iter().any(ends) || looking.host.starts_with('#') {
        return;
    }
    let line = fields.map(written).join(&b':');
    let found = find(&Entries::parse(&line), looking);
    assert_eq!(found.as_deref(), Some(password), "{line:?}");
}
