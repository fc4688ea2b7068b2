use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn the_first_matching_line_wins() {
    let entries = Entries::parse(
        b"# comment\n\
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
        let found = entries.find(&[host], port, database, user);
        assert_eq!(found, Some(Secret::new(expected)), "{host}:{port}");
    }
    assert_eq!(Entries::parse(b"a:1:b:c:d").find(&["x"], 1, "b", "c"), None);
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
        let found = Entries::parse(line.as_bytes()).find(&["h"], 1, "d", "u");
        assert_eq!(found, Some(Secret::new(password)), "{line}");
    }
    for line in [r"\:\:1:1:d:u:v6", "::1:1:d:u:v6", "*:1:d:u:v6\r\r"] {
        let found = Entries::parse(line.as_bytes()).find(&["::1"], 1, "d", "u");
        assert_eq!(found, Some(Secret::new("v6")), "{line}");
    }
    assert_eq!(
        Entries::parse(br"\*:1:d:u:v6").find(&["::1"], 1, "d", "u"),
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
fn only_the_line_that_matches_counts_whatever_the_others_are_written_in() {
    let bytes = b"# f\xfcr die Probe\nx\xff:1:d:u:no\nh:1:d:u:p\xe4ss\n\xff";
    let found = Entries::parse(bytes).find(&["h"], 1, "d", "u");
    assert_eq!(found, Some(Secret::new(*b"p\xe4ss")));
}

#[test]
fn a_host_of_several_names_is_found_under_the_first_line_with_any() {
    let entries = Entries::parse(b"localhost:1:d:u:one\n/tmp:*:*:u:two\n");
    for (hosts, expected) in [
        (&["/tmp", "localhost"][..], Some("one")),
        (&["/tmp"], Some("two")),
        (&["/run/x"], None),
    ] {
        let found = entries.find(hosts, 1, "d", "u");
        assert_eq!(found, expected.map(Secret::new), "{hosts:?}");
    }
}

#[test]
fn the_group_may_read_what_root_mounted_for_somebody_else() {
    for (mode, owner, reader, exposed) in [
        (0o100_600, 0, 0, false),
        (0o100_440, 0, 0, true),
        (0o100_440, 0, 1_000, false),
        (0o100_640, 0, 1_000, false),
        (0o100_460, 0, 1_000, true),
        (0o100_450, 0, 1_000, true),
        (0o100_444, 0, 1_000, true),
        (0o100_440, 1_000, 1_000, true),
    ] {
        let found = is_exposed(mode, owner, reader);
        assert_eq!(found, exposed, "{mode:o} of {owner} for {reader}");
    }
}

#[test]
fn a_missing_file_and_the_null_device_have_no_lines() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for path in [directory.path().join("pgpass"), "/dev/null".into()] {
        assert_eq!(read(&path).expect("none"), Entries::default(), "{path:?}");
    }
}

#[test]
fn what_is_no_file_is_refused_with_its_name_and_not_waited_for() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let pipe = directory.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).expect("a pipe");
    for path in [directory.path(), &pipe, Path::new("/dev/zero")] {
        let said = read(path).expect_err("refused").to_string();
        assert!(said.contains(&path.display().to_string()), "{said}");
    }
}
