//! libpq's password file: `host:port:database:user:password` lines.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A password file holds a few lines; anything larger is something else.
const BYTES_AT_MOST: u64 = 1024 * 1024;

/// Permission bits of group and others, none of which may be set.
const OTHERS: u32 = 0o077;

/// A password. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    pub fn new(password: impl Into<String>) -> Secret {
        Secret(password.into())
    }

    /// Hands the password out, to be sent to the server only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Why a password file cannot be used.
#[derive(Debug)]
pub enum PassfileError {
    /// It cannot be read.
    Unreadable(PathBuf, io::Error),
    /// It is no regular file, or far too large.
    NoPassfile(PathBuf),
    /// Others than its owner may read or write it.
    Exposed(PathBuf, u32),
}

impl fmt::Display for PassfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PassfileError::Unreadable(path, cause) => {
                write!(f, "cannot read {}: {cause}", path.display())
            }
            PassfileError::NoPassfile(path) => {
                write!(f, "{} is not a password file", path.display())
            }
            PassfileError::Exposed(path, mode) => write!(
                f,
                "others may use {} (mode {mode:04o}); make it 0600",
                path.display()
            ),
        }
    }
}

impl std::error::Error for PassfileError {}

/// The entries of a password file, in its order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Entries(Vec<Entry>);

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// Host, port, database and user.
    keys: [String; 4],
    password: Secret,
}

impl Entries {
    /// Parses the text of a password file. Comments, empty lines and lines
    /// with too few fields are passed over, as libpq does.
    pub fn parse(text: &str) -> Entries {
        Entries(text.lines().filter_map(Entry::parse).collect())
    }

    /// Returns the password of the first line that matches; `*` matches all.
    pub fn find(&self, host: &str, port: u16, database: &str, user: &str) -> Option<Secret> {
        let port = port.to_string();
        let wanted = [host, &port, database, user];
        let matches = |entry: &&Entry| {
            let pairs = entry.keys.iter().zip(wanted);
            pairs
                .into_iter()
                .all(|(key, value)| key == "*" || key == value)
        };
        self.0
            .iter()
            .find(matches)
            .map(|entry| entry.password.clone())
    }
}

impl Entry {
    fn parse(line: &str) -> Option<Entry> {
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let mut fields = split_fields(line).into_iter();
        let mut next = || fields.next();
        let keys = [next()?, next()?, next()?, next()?];
        // The password keeps any further colon, as libpq lets it.
        let password = std::iter::once(next()?)
            .chain(fields)
            .collect::<Vec<_>>()
            .join(":");
        Some(Entry {
            keys,
            password: Secret(password),
        })
    }
}

/// Splits at colons; a backslash protects the character after it.
fn split_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' => fields.push(String::new()),
            '\\' => {
                let escaped = characters.next().unwrap_or('\\');
                last(&mut fields).push(escaped);
            }
            other => last(&mut fields).push(other),
        }
    }
    fields
}

fn last(fields: &mut [String]) -> &mut String {
    fields.last_mut().expect("there is always a first field")
}

/// Reads a password file.
///
/// # Errors
///
/// Fails if it cannot be read, is not a regular file, is larger than 1 MiB, or
/// if others than its owner have any right to it.
pub fn read(path: &Path) -> Result<Entries, PassfileError> {
    let unreadable = |cause| PassfileError::Unreadable(path.to_owned(), cause);
    let about = fs::metadata(path).map_err(unreadable)?;
    if !about.is_file() || about.len() > BYTES_AT_MOST {
        return Err(PassfileError::NoPassfile(path.to_owned()));
    }
    let mode = about.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(PassfileError::Exposed(path.to_owned(), mode));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    Ok(Entries::parse(&text))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_matching_line_wins() {
        let entries = Entries::parse(
            "# comment\n\
             \n\
             too:few\n\
             a:5432:app:alice:one\n\
             *:5433:*:alice:two\n\
             b:*:app:*:three\n\
             *:*:*:*:rest\n",
        );
        for (host, port, database, user, expected) in [
            ("a", 5432, "app", "alice", "one"),
            ("a", 5433, "app", "alice", "two"),
            ("b", 1, "app", "bob", "three"),
            ("c", 1, "x", "y", "rest"),
        ] {
            let found = entries.find(host, port, database, user);
            assert_eq!(found, Some(Secret::new(expected)), "{host}:{port}");
        }
        assert_eq!(Entries::parse("a:1:b:c:d").find("x", 1, "b", "c"), None);
    }

    #[test]
    fn backslashes_protect_colons_and_themselves() {
        for (line, password) in [
            (r"h:1:d:u:pa\:ss", "pa:ss"),
            (r"h:1:d:u:pa\\ss", r"pa\ss"),
            ("h:1:d:u:pa:ss", "pa:ss"),
            ("h:1:d:u:", ""),
            (r"h:1:d:u:end\", r"end\"),
        ] {
            let found = Entries::parse(line).find("h", 1, "d", "u");
            assert_eq!(found, Some(Secret::new(password)), "{line}");
        }
        let found = Entries::parse(r"\:\:1:1:d:u:v6").find("::1", 1, "d", "u");
        assert_eq!(found, Some(Secret::new("v6")));
    }

    #[test]
    fn a_file_that_others_can_use_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), "h:1:d:u:p").expect("writes");
        for (mode, fine) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            fs::set_permissions(file.path(), Permissions::from_mode(mode)).expect("chmod");
            assert_eq!(read(file.path()).is_ok(), fine, "{mode:o}");
        }
    }

    #[test]
    fn a_missing_file_or_a_directory_is_refused_with_its_name() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let missing = directory.path().join("pgpass");
        for path in [directory.path(), &missing] {
            let said = read(path).expect_err("refused").to_string();
            assert!(said.contains(&path.display().to_string()), "{said}");
        }
    }
}
