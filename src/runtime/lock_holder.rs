//! Who holds a lock on a file, without trying to take it: who looks is never in the
//! way of who comes to take it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Returns the process that holds a `flock` on the file; nothing if nobody does, and if
/// that cannot be seen.
pub fn holder_of(path: &Path) -> Option<u32> {
    let file = fs::metadata(path).ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let mut holders = locks.lines().filter_map(|line| holder(line, file.ino()));
    // Another file system has the same numbers.
    holders.find(|pid| has_open(*pid, &file))
}

/// Reads a line like `1: FLOCK ADVISORY WRITE 77 08:01:42 0 EOF`.
fn holder(line: &str, inode: u64) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    if words.next()? != "FLOCK" {
        return None;
    }
    let pid = words.nth(2)?;
    let (_, number) = words.next()?.rsplit_once(':')?;
    let same = number.parse() == Ok(inode);
    same.then(|| pid.parse().ok())?
}

fn has_open(pid: u32, file: &Metadata) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let about = |entry: fs::DirEntry| fs::metadata(entry.path()).ok();
    open.flatten()
        .filter_map(about)
        .any(|it| (it.dev(), it.ino()) == (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{FlockOperation, flock};

    use super::*;

    #[test]
    fn holder_is_found_while_it_holds_and_nobody_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        assert_eq!(holder_of(&path), None, "there is no file");
        let file = File::create(&path).expect("made");
        assert_eq!(holder_of(&path), None, "nobody holds it");
        flock(&file, FlockOperation::LockExclusive).expect("it is free");
        assert_eq!(holder_of(&path), Some(std::process::id()));
        drop(file);
        assert_eq!(holder_of(&path), None, "it was given back");
    }

    #[test]
    fn lines_of_the_kernel_are_read() {
        for (line, pid) in [
            ("1: FLOCK  ADVISORY  WRITE 77 08:01:42 0 EOF", Some(77)),
            ("1: POSIX  ADVISORY  WRITE 77 08:01:42 0 EOF", None),
            ("1: FLOCK  ADVISORY  WRITE 77 08:01:43 0 EOF", None),
            ("1: -> FLOCK  ADVISORY  WRITE 77 08:01:42 0 EOF", None),
            ("1: FLOCK  ADVISORY  WRITE -1 08:01:42 0 EOF", None),
            ("1: FLOCK", None),
            ("", None),
        ] {
            assert_eq!(holder(line, 42), pid, "{line}");
        }
    }
}
