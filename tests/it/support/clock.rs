//! A clock on the wall that can be put wrong, for one process.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::packages;

/// A wall clock for one process. Its steady clock remains the kernel's: that does
/// not jump on a real machine either.
pub struct WallClock {
    directory: TempDir,
}

impl WallClock {
    pub fn new() -> WallClock {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let clock = WallClock { directory };
        clock.is_off_by(0);
        clock
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("offset")
    }

    /// Goes wrong by so many seconds, at once.
    pub fn is_off_by(&self, seconds: i64) {
        // Renamed into place: half a number would be a jump of its own.
        let new = self.directory.path().join("new");
        fs::write(&new, format!("{seconds:+}\n")).expect("writes");
        fs::rename(new, self.file()).expect("renames");
    }

    /// Has a process live by it, that loads shared libraries.
    pub fn variables(&self) -> [(&'static str, String); 4] {
        let file = self.file();
        let file = file.to_str().expect("a plain path").to_owned();
        let library = packages::file_of("libfaketime", "/libfaketimeMT.so.1");
        [
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}
