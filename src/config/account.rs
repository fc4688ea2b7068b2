//! Who the operating system says that we are.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::runtime::read;

/// The file of users. One that holds more than this is no such file.
const FILE: &str = "/etc/passwd";
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A user of this system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's name.
    pub name: String,
    /// The home directory.
    pub home: PathBuf,
}

impl Account {
    /// Finds the user who runs this process; a container need not know one.
    pub fn of_process() -> Option<Account> {
        let (_, bytes) = read::regular_file(Path::new(FILE), MAX_BYTES).ok()?;
        Account::find(&bytes, rustix::process::geteuid().as_raw())
    }

    /// Finds a user by number among lines of `name:password:uid:gid:about:home:shell`.
    fn find(bytes: &[u8], uid: u32) -> Option<Account> {
        let uid = uid.to_string();
        bytes.split(|byte| *byte == b'\n').find_map(|line| {
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
            let &[name, _, number, _, _, home, ..] = &fields[..] else {
                return None;
            };
            Some(Account {
                name: String::from_utf8(name.to_vec()).ok()?,
                home: OsStr::from_bytes(home).into(),
            })
            .filter(|it| number == uid.as_bytes() && !it.name.is_empty())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_number() {
        let file = b"root:x:0:0:root:/root:/bin/bash\n\
                     broken:x:7\n\
                     probe:x:70:70:caf\xe9:/var/lib/probe:\n";
        for (uid, expected) in [
            (0, Some(("root", "/root"))),
            (70, Some(("probe", "/var/lib/probe"))),
            (7, None),
            (1, None),
        ] {
            let found = Account::find(file, uid);
            let found = found
                .as_ref()
                .map(|it| (&*it.name, it.home.to_str().expect("plain")));
            assert_eq!(found, expected, "{uid}");
        }
    }
}
