//! Reads small files that somebody else wrote.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Reads a regular file. Nothing else is opened: a pipe would make us wait, and a
/// device may do anything.
///
/// # Errors
///
/// Fails if it cannot be read, is no regular file or larger than `at_most`.
pub fn regular_file(path: &Path, at_most: u64) -> io::Result<(Metadata, Vec<u8>)> {
    let check = |about: &Metadata| match about.is_file() && about.len() <= at_most {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file, or too large",
        )),
    };
    check(&fs::metadata(path)?)?;
    // It may have become something else since.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let about = file.metadata()?;
    check(&about)?;
    let mut bytes = Vec::new();
    file.take(at_most).read_to_end(&mut bytes)?;
    Ok((about, bytes))
}
