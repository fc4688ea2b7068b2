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

impl PassfileError {
    /// Says it with the file called `name`.
    pub fn about(&self, name: impl fmt::Display) -> String {
        match self {
            PassfileError::Unreadable(_, cause) => format!("cannot read {name}: {cause}"),
            PassfileError::NoPassfile(_) => format!("{name} is not a password file"),
            PassfileError::Exposed(_, mode) => {
                format!("others may use {name} (mode {mode:04o}); make it 0600")
            }
        }
    }
}

impl fmt::Display for PassfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (PassfileError::Unreadable(path, _)
        | PassfileError::NoPassfile(path)
        | PassfileError::Exposed(path, _)) = self;
        f.write_str(&self.about(path.display()))
    }
}

impl std::error::Error for PassfileError {}

/// The lines of a password file, in its order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Entries(Vec<Secret>);

impl Entries {
    /// Parses the text of a password file; comments are passed over.
    pub fn parse(text: &str) -> Entries {
        let lines = text.split('\n').map(|line| line.trim_end_matches('\r'));
        let lines = lines.filter(|line| !line.starts_with('#'));
        Entries(lines.map(Secret::new).collect())
    }

    /// Returns the password of the first line that matches; `*` matches all. A
    /// line with too few fields matches nothing.
    pub fn find(&self, host: &str, port: u16, database: &str, user: &str) -> Option<Secret> {
        let port = port.to_string();
        let wanted = [host, &port, database, user];
        let rest_of = |line| {
            wanted
                .iter()
                .try_fold(line, |rest, field| after(rest, field))
        };
        let found = self.0.iter().find_map(|line| rest_of(line.expose()));
        found.map(|rest| Secret(unescaped(rest)))
    }
}

/// Returns what follows the first field of `line` if that is `wanted` or `*`.
///
/// As in libpq, a colon that the wanted text has too need not be protected by a
/// backslash, and a protected `*` is only a star.
fn after<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut characters = line.chars();
    for expected in wanted.chars() {
        let found = match characters.next()? {
            '\\' => characters.next()?,
            other => other,
        };
        if found != expected {
            return None;
        }
    }
    characters.as_str().strip_prefix(':')
}

/// Reads the password: to the next colon or the end of the line, each character
/// perhaps protected by a backslash.
fn unescaped(text: &str) -> String {
    let mut password = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next().filter(|it| *it != ':') {
        password.push(match character {
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        });
    }
    password
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
            // libpq ends it there.
            ("h:1:d:u:pa:ss", "pa"),
            ("h:1:d:u:", ""),
            (r"h:1:d:u:end\", r"end\"),
        ] {
            let found = Entries::parse(line).find("h", 1, "d", "u");
            assert_eq!(found, Some(Secret::new(password)), "{line}");
        }
        for line in [r"\:\:1:1:d:u:v6", "::1:1:d:u:v6", "*:1:d:u:v6\r\r"] {
            let found = Entries::parse(line).find("::1", 1, "d", "u");
            assert_eq!(found, Some(Secret::new("v6")), "{line}");
        }
        assert_eq!(
            Entries::parse(r"\*:1:d:u:v6").find("::1", 1, "d", "u"),
            None
        );
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
