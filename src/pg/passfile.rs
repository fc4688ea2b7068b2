//! libpq's password file: `host:port:database:user:password` lines, in bytes of
//! whatever encoding.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::runtime::read;

/// A password file holds a few lines; anything larger is something else.
const MAX_BYTES: u64 = 1024 * 1024;

/// Permission bits of group and others, none of which may be set.
const OTHERS: u32 = 0o077;

/// The same for a file of root's that is read by somebody else: its group must be
/// the reader's. Kubernetes mounts secrets like that, and libpq takes keys so.
const OTHERS_OF_ROOTS: u32 = 0o037;

/// The device of `/dev/null`, on every Linux.
const NULL_DEVICE: u64 = 0x0103;

/// A password. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps a password.
    pub fn new(password: impl Into<Vec<u8>>) -> Secret {
        Secret(password.into())
    }

    /// Hands the password out, to be sent to the server only.
    pub fn expose(&self) -> &[u8] {
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
                format!("others may use {name} (mode {mode:04o}); make it 0600, or 0440 and root's")
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
    /// Parses the bytes of a password file; comments are passed over.
    pub fn parse(bytes: &[u8]) -> Entries {
        let lines = bytes.split(|byte| *byte == b'\n').map(without_returns);
        let lines = lines.filter(|line| !line.starts_with(b"#"));
        Entries(lines.map(Secret::new).collect())
    }

    /// Returns the password of the first line that matches, under any of the host's
    /// names; `*` matches all. A line with too few fields matches nothing.
    pub fn find(&self, hosts: &[&str], port: u16, database: &str, user: &str) -> Option<Secret> {
        let port = port.to_string();
        let rest_of = |line| {
            let rest = hosts.iter().find_map(|host| after(line, host))?;
            let mut wanted = [&*port, database, user].into_iter();
            wanted.try_fold(rest, after)
        };
        let found = self.0.iter().find_map(|line| rest_of(line.expose()));
        found.map(|rest| Secret(unescaped(rest)))
    }
}

fn without_returns(mut line: &[u8]) -> &[u8] {
    while let Some(shorter) = line.strip_suffix(b"\r") {
        line = shorter;
    }
    line
}

/// Returns what follows the first field of `line` if that is `wanted` or `*`.
///
/// As in libpq, a colon that the wanted text has too need not be protected by a
/// backslash, and a protected `*` is only a star.
fn after<'a>(line: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let mut bytes = line.iter();
    for expected in wanted.bytes() {
        let found = match *bytes.next()? {
            b'\\' => *bytes.next()?,
            other => other,
        };
        if found != expected {
            return None;
        }
    }
    bytes.as_slice().strip_prefix(b":")
}

/// Reads the password: to the next colon or the end of the line, each byte
/// perhaps protected by a backslash.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut password = Vec::new();
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next().filter(|it| **it != b':') {
        password.push(match byte {
            b'\\' => *bytes.next().unwrap_or(&b'\\'),
            other => *other,
        });
    }
    password
}

/// Reads a password file. As in libpq, one that is not there has no lines, and
/// neither has `/dev/null`.
///
/// # Errors
///
/// Fails if it cannot be read, is not a regular file, is larger than 1 MiB, or
/// if others than its owner have any right to it; but for the group of a file of
/// root's, where somebody else reads it.
pub fn read(path: &Path) -> Result<Entries, PassfileError> {
    let unreadable = |cause| PassfileError::Unreadable(path.to_owned(), cause);
    let about = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Entries::default()),
        about => about.map_err(unreadable)?,
    };
    if about.file_type().is_char_device() && about.rdev() == NULL_DEVICE {
        return Ok(Entries::default());
    }
    if !about.is_file() || about.len() > MAX_BYTES {
        return Err(PassfileError::NoPassfile(path.to_owned()));
    }
    let (about, bytes) = read::regular_file(path, MAX_BYTES).map_err(unreadable)?;
    if is_exposed(
        about.mode(),
        about.uid(),
        rustix::process::geteuid().as_raw(),
    ) {
        return Err(PassfileError::Exposed(
            path.to_owned(),
            about.mode() & 0o7777,
        ));
    }
    Ok(Entries::parse(&bytes))
}

fn is_exposed(mode: u32, owner: u32, reader: u32) -> bool {
    let others = match owner == 0 && reader != 0 {
        true => OTHERS_OF_ROOTS,
        false => OTHERS,
    };
    mode & others != 0
}

#[cfg(test)]
mod tests;
