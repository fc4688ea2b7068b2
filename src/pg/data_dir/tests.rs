use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::PathBuf;

/// Somebody who is not root, where we may become him.
const OWNER: u32 = 54_321;

/// A node's folder of its owner's, beside a file that is not.
struct Planted {
    _all: tempfile::TempDir,
    data: PathBuf,
    outside: PathBuf,
}

impl Planted {
    fn new() -> Planted {
        let all = tempfile::tempdir().expect("a folder");
        let (data, outside) = (all.path().join("data"), all.path().join("outside"));
        fs::set_permissions(all.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        fs::create_dir(&data).expect("makes");
        fs::create_dir(all.path().join("elsewhere")).expect("makes");
        fs::write(all.path().join("elsewhere/kept"), "kept").expect("writes");
        fs::write(&outside, "secret").expect("writes");
        let planted = Planted {
            _all: all,
            data,
            outside,
        };
        planted.owned(&planted.data);
        planted
    }

    fn owned(&self, path: &Path) {
        if geteuid().is_root() {
            lchown(path, Some(OWNER), Some(OWNER)).expect("root may");
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    /// Plants a thing under a name, as the owner would.
    fn plant(&self, name: &str, kind: &str) {
        let path = self.at(name);
        let elsewhere = self.outside.with_file_name("elsewhere");
        match kind {
            "nothing" => return,
            "file" => fs::write(&path, "old").expect("writes"),
            "link out" => symlink(&self.outside, &path).expect("links"),
            "link to a folder" => symlink(&elsewhere, &path).expect("links"),
            "link to nothing" => symlink(self.outside.with_file_name("new"), &path).expect("links"),
            "link within" => {
                fs::write(self.at("within"), "within").expect("writes");
                symlink("within", &path).expect("links");
            }
            "pipe" => {
                rustix::fs::mkfifoat(CWD, &path, Mode::RWXU).expect("makes");
            }
            "folder" => fs::create_dir(&path).expect("makes"),
            "full folder" => {
                fs::create_dir(&path).expect("makes");
                fs::write(path.join("file"), "file").expect("writes");
                self.owned(&path.join("file"));
            }
            "sparse file" => {
                let file = File::create(&path).expect("makes");
                file.set_len(1 << 40).expect("no bytes");
            }
            "hard link" => {
                fs::write(self.at("twin"), "twin").expect("writes");
                fs::hard_link(self.at("twin"), &path).expect("links");
                self.owned(&self.at("twin"));
            }
            "foreign file" => {
                fs::write(&path, "root's").expect("writes");
                return;
            }
            "deep tree" => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let open = |folder: &OwnedFd, name: &str| {
                    open_beneath(folder, name.as_bytes(), flags, Mode::empty()).expect("opens")
                };
                fs::create_dir(&path).expect("makes");
                let data = openat(CWD, &self.data, flags, Mode::empty()).expect("opens");
                let mut at = open(&data, name);
                for _ in 0..3_000 {
                    rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("makes");
                    at = open(&at, "d");
                    if geteuid().is_root() {
                        let (uid, gid) = (Uid::from_raw(OWNER), Gid::from_raw(OWNER));
                        let at = open_beneath(&at, b".", OFlags::RDONLY, Mode::empty());
                        let at = at.expect("opens");
                        rustix::fs::fchown(at, Some(uid), Some(gid)).expect("root may");
                    }
                }
            }
            other => panic!("what is {other}?"),
        }
        self.owned(&path);
    }

    fn enter<T: Send>(&self, work: impl FnOnce(&Folder) -> io::Result<T> + Send) -> io::Result<T> {
        DataDir::open(&self.data).expect("it is there").enter(work)
    }

    /// Fails if anything outside the folder is not as it was.
    fn nothing_outside_is_touched(&self, what: &str) {
        let about = fs::metadata(&self.outside).expect("it is there");
        assert_eq!(about.uid(), geteuid().as_raw(), "{what}");
        assert_eq!(
            fs::read(&self.outside).expect("it is ours"),
            b"secret",
            "{what}"
        );
        let beside = fs::read_dir(self.data.parent().expect("it has one")).expect("reads");
        let mut names: Vec<_> = beside.flatten().map(|it| it.file_name()).collect();
        names.sort();
        assert_eq!(names, ["data", "elsewhere", "outside"], "{what}");
        let kept = self.outside.with_file_name("elsewhere").join("kept");
        assert_eq!(fs::read(kept).expect("it is there"), b"kept", "{what}");
    }
}

const KINDS: [&str; 13] = [
    "nothing",
    "file",
    "link out",
    "link to a folder",
    "link to nothing",
    "link within",
    "pipe",
    "folder",
    "full folder",
    "sparse file",
    "hard link",
    "foreign file",
    "deep tree",
];

#[test]
fn an_empty_file_is_put_in_the_place_of_anything_and_taken_away_again() {
    for kind in KINDS {
        let planted = Planted::new();
        planted.plant("name", kind);
        planted.enter(|data| data.put_empty("name")).expect(kind);
        let about = fs::symlink_metadata(planted.at("name")).expect("it is there");
        assert!(about.is_file(), "{kind}");
        if geteuid().is_root() {
            assert_eq!(about.uid(), OWNER, "{kind}");
        }
        planted.nothing_outside_is_touched(kind);
        planted.enter(|data| data.take_away("name")).expect(kind);
        assert!(fs::symlink_metadata(planted.at("name")).is_err(), "{kind}");
        planted.nothing_outside_is_touched(kind);
    }
}

#[test]
fn anything_is_taken_away_at_once_and_removed_whole() {
    for kind in KINDS {
        for whole in [false, true] {
            let planted = Planted::new();
            planted.plant("name", kind);
            let done = planted.enter(|data| match whole {
                true => data.remove("name"),
                false => data.take_away("name"),
            });
            done.expect(kind);
            assert!(fs::symlink_metadata(planted.at("name")).is_err(), "{kind}");
            let left = fs::read_dir(&planted.data).expect("reads").count();
            let beside = usize::from(["link within", "hard link"].contains(&kind));
            let aside = usize::from(!whole && ["full folder", "deep tree"].contains(&kind));
            assert_eq!(left, beside + aside, "{kind} {whole}");
            planted.nothing_outside_is_touched(kind);
        }
    }
}

#[test]
fn only_regular_files_of_the_owners_are_read_and_no_more_than_was_asked_for() {
    for kind in KINDS {
        let planted = Planted::new();
        planted.plant("name", kind);
        let read = planted.enter(|data| data.read("name", 8));
        match kind {
            "nothing" => assert_eq!(read.expect(kind), None),
            "file" => assert_eq!(read.expect(kind).as_deref(), Some(&b"old"[..])),
            "hard link" => assert_eq!(read.expect(kind).as_deref(), Some(&b"twin"[..])),
            "sparse file" => assert_eq!(read.expect(kind), Some(vec![0; 8])),
            "foreign file" if !geteuid().is_root() => {}
            _ => assert!(read.is_err(), "{kind}: {read:?}"),
        }
        let folder = planted.enter(|data| Ok(data.folder("name")?.is_some()));
        match kind {
            "nothing" => assert!(!folder.expect(kind)),
            "folder" | "full folder" | "deep tree" => assert!(folder.expect(kind)),
            _ => assert!(folder.is_err(), "{kind}"),
        }
    }
}

#[test]
fn what_is_added_up_is_bounded_and_follows_nothing() {
    for kind in KINDS {
        let planted = Planted::new();
        planted.plant("name", kind);
        let bytes = planted.enter(Folder::used_bytes).expect(kind);
        assert!(bytes < 1 << 20, "{kind}: {bytes}");
    }
}

#[test]
fn a_link_in_the_folders_own_place_is_refused() {
    let planted = Planted::new();
    let link = planted.data.with_file_name("elsewhere").join("link");
    symlink(&planted.data, &link).expect("links");
    assert!(DataDir::open(&link).is_err());
    assert!(planted.enter(|data| data.folder("..").map(drop)).is_err());
    assert!(planted.enter(|data| data.folder("/etc").map(drop)).is_err());
}

#[test]
fn what_is_renamed_takes_nobodys_place() {
    let planted = Planted::new();
    planted.plant("name", "full folder");
    planted.plant("taken", "file");
    assert!(planted.enter(|data| data.rename("name", "taken")).is_err());
    planted
        .enter(|data| data.rename("name", "free"))
        .expect("renames");
    assert!(planted.at("free/file").exists());
    assert!(planted.enter(|data| data.remove_empty("free")).is_err());
}

#[test]
fn only_the_thread_inside_becomes_the_owner() {
    let planted = Planted::new();
    let before = geteuid();
    let inside = planted.enter(|_| Ok(geteuid())).expect("enters");
    if before.is_root() {
        assert_eq!(inside.as_raw(), OWNER);
    }
    assert_eq!(geteuid(), before);
}
