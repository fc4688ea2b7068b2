//! What is on the pair's disks: who is primary, the fence, and who is at work
//! in the data. PostgreSQL's own `standby.signal` is the only state.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::{Error, Why, refused};
use super::fault_point;
use super::layout::{Layout, Node, PGDATA};
use crate::pg::control_file::{self, Control, ControlError};
use crate::pg::data_dir::{DataDir, Folder, Place};

/// What has this file in its data is a standby: the fence.
const SIGNAL: &str = "standby.signal";

/// What a node has on its disk.
#[derive(Debug)]
pub struct NodeDisk {
    /// Its PGDATA.
    pub pgdata: PathBuf,
    /// Where the data should be, there is nothing.
    pub empty: bool,
    /// `standby.signal` is there, a file and not a link: it cannot take a write,
    /// whoever starts it.
    pub fenced: bool,
    /// What its server says of itself in its lock file: `starting`, `ready`,
    /// `standby` or `stopping`.
    pub status: Option<String>,
    /// Of which PostgreSQL it is, by its `PG_VERSION`.
    pub version: Option<String>,
    control: Result<Control, ControlError>,
}

impl NodeDisk {
    /// Reads a node's disk.
    pub fn read(layout: &Layout, node: Node) -> NodeDisk {
        let pgdata = layout.pgdata(node);
        let read = in_pgdata(layout, node, |folder| {
            let is_empty = folder.is_empty()?;
            Ok(NodeDisk {
                pgdata: pgdata.clone(),
                empty: is_empty,
                fenced: folder.has_file(SIGNAL)?,
                status: postmaster_status(folder),
                version: version(folder),
                control: control_file::read(folder),
            })
        });
        // Only what is really not there is nothing.
        let (empty, error) = match read {
            Ok(Some(disk)) => return disk,
            Ok(None) => (true, ErrorKind::NotFound.into()),
            Err(error) => (false, error),
        };
        NodeDisk {
            pgdata,
            empty,
            fenced: false,
            status: None,
            version: None,
            control: Err(ControlError::NoData(error)),
        }
    }

    /// Says whether it would be a primary if it were started.
    pub fn may_write(&self) -> bool {
        !self.empty && !self.fenced
    }

    /// Returns what its control file says.
    ///
    /// # Errors
    ///
    /// Refuses data that is not whole.
    pub fn control(&self) -> Result<Control, Error> {
        self.control.as_ref().copied().map_err(|error| match error {
            ControlError::NoData(_) => refused(
                Why::FileUnusable,
                format!("{}: {error}", self.pgdata.display()),
            ),
            _ => self.is_not_whole(error),
        })
    }

    /// Refuses data that is not whole, and says why it is not.
    pub fn is_not_whole(&self, why: &dyn std::fmt::Display) -> Error {
        refused(
            Why::FileUnusable,
            format!(
                "{} is not a whole database ({why}): restore it, or move it away to have the node \
                 made anew",
                self.pgdata.display()
            ),
        )
    }
}

/// Who is who, by the disks alone.
#[derive(Debug)]
pub struct Disks {
    /// The node with data and without the signal.
    pub primary: Node,
    /// What both nodes have.
    pub nodes: [NodeDisk; 2],
}

impl Disks {
    /// Reads both disks.
    ///
    /// # Errors
    ///
    /// Refuses a folder that is not this pair's, data that is damaged or of two
    /// systems, and anything but exactly one primary.
    pub fn read(layout: &Layout) -> Result<Disks, Error> {
        is_the_pairs(layout)?;
        let nodes = Node::BOTH.map(|node| NodeDisk::read(layout, node));
        let with_data: Vec<(Node, &NodeDisk)> = Node::BOTH
            .into_iter()
            .zip(&nodes)
            .filter(|(_, disk)| !disk.empty)
            .collect();
        let mut systems = Vec::new();
        for (_, disk) in &with_data {
            systems.push(disk.control()?.system);
        }
        if let [a, b] = systems[..]
            && a != b
        {
            return Err(refused(
                Why::DifferentSystems,
                format!(
                    "the nodes hold different databases (system identifiers {a} and {b}): \
                 move the wrong one's pgdata away and run pgpair rejoin"
                ),
            ));
        }
        let writable: Vec<Node> = with_data
            .iter()
            .filter(|(_, disk)| !disk.fenced)
            .map(|(node, _)| *node)
            .collect();
        let root = layout.root().display();
        match writable[..] {
            [primary] => Ok(Disks { primary, nodes }),
            [] if with_data.is_empty() => Err(refused(
                Why::NoData,
                format!("{root} holds no data: run site.yml"),
            )),
            [] => Err(refused(
                Why::NoPrimary,
                format!(
                    "no primary on disk (standby.signal in every node's data): remove \
                 {root}/<node>/data/pgdata/standby.signal from the node that is to be the primary"
                ),
            )),
            _ => Err(refused(
                Why::TwoPrimaries,
                format!(
                    "both nodes are primaries on disk: decide which is right, stop the other, and \
                 create an empty {root}/<other>/data/pgdata/standby.signal"
                ),
            )),
        }
    }

    /// Returns what a node has.
    pub fn of(&self, node: Node) -> &NodeDisk {
        match node {
            Node::A => &self.nodes[0],
            Node::B => &self.nodes[1],
        }
    }
}

/// Refuses a folder that is not this pair's.
///
/// # Errors
///
/// Says which folder, and what to do.
pub fn is_the_pairs(layout: &Layout) -> Result<(), Error> {
    let found = fs::read_to_string(layout.marker());
    let root = layout.root().display();
    match found {
        Ok(prefix) if prefix.trim() == layout.prefix => Ok(()),
        Ok(other) => Err(refused(
            Why::OtherPair,
            format!(
                "{root} belongs to the pair {:?}, not {:?}: give its --prefix, or another --root",
                other.trim(),
                layout.prefix
            ),
        )),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(refused(
            Why::NotRoot,
            format!("{root} cannot be read: run this as root"),
        )),
        Err(error) => Err(refused(
            Why::NoPair,
            format!(
                "{root} holds no pair ({error}): give --prefix or --root, or bring one up with site.yml"
            ),
        )),
    }
}

/// Works in a node's folder above its data; nothing if there is none.
///
/// # Errors
///
/// Fails as the work does, or if it is no folder.
pub fn in_data<T: Send>(
    layout: &Layout,
    node: Node,
    work: impl FnOnce(&Folder) -> io::Result<T> + Send,
) -> io::Result<Option<T>> {
    match DataDir::open(&layout.data(node)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened?.enter(work).map(Some),
    }
}

/// As [`in_data`], in the node's PGDATA.
///
/// # Errors
///
/// As [`in_data`].
pub fn in_pgdata<T: Send>(
    layout: &Layout,
    node: Node,
    work: impl FnOnce(&Folder) -> io::Result<T> + Send,
) -> io::Result<Option<T>> {
    let worked = in_data(layout, node, |data| {
        let pgdata = data.folder(PGDATA)?;
        pgdata.map(|pgdata| work(&pgdata)).transpose()
    });
    Ok(worked?.flatten())
}

/// Returns which folder a node's PGDATA is now; nothing if there is none.
///
/// # Errors
///
/// Fails if it is no folder.
pub fn place_of(layout: &Layout, node: Node) -> io::Result<Option<Place>> {
    in_pgdata(layout, node, Folder::place)
}

/// Makes certain that a node's data cannot take a write, whoever starts it. Returns
/// which folder that is; nothing if there is no data.
///
/// # Errors
///
/// Fails if it cannot be written for good.
pub fn fence(layout: &Layout, node: Node) -> io::Result<Option<Place>> {
    fault_point::pass("before a fence")?;
    let fenced = in_pgdata(layout, node, |pgdata| {
        fence_in(pgdata)?;
        pgdata.place()
    })?;
    fault_point::pass("after a fence")?;
    Ok(fenced)
}

/// As [`fence`], in this folder.
///
/// # Errors
///
/// As [`fence`].
pub fn fence_in(pgdata: &Folder) -> io::Result<()> {
    pgdata.put_empty(SIGNAL)
}

/// Takes the fence away.
///
/// # Errors
///
/// Fails if it cannot be removed for good, and without data.
pub fn unfence(layout: &Layout, node: Node) -> io::Result<()> {
    fault_point::pass("before an unfence")?;
    let done = in_pgdata(layout, node, |pgdata| pgdata.take_away(SIGNAL))?;
    fault_point::pass("after an unfence")?;
    done.ok_or_else(|| ErrorKind::NotFound.into())
}

/// Takes what is already gone for removed.
pub fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes what was created, renamed or removed in a folder survive a power
/// failure.
///
/// # Errors
///
/// Fails if the file system does not confirm it.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Replaces a file as a whole and for good.
///
/// # Errors
///
/// Fails if it cannot be written; the old one is then still there.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    fault_point::pass("before a file")?;
    // Not by another extension: two files may differ in nothing else.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    absent(fs::remove_file(beside))?;
    let mut open = OpenOptions::new();
    let mut file = open.write(true).create_new(true).mode(mode).open(beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    fault_point::pass("after a file")?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn version(pgdata: &Folder) -> Option<String> {
    let bytes = pgdata.read("PG_VERSION", 64).ok()??;
    let text = String::from_utf8(bytes).ok()?;
    let is_version =
        |it: &&str| !it.is_empty() && it.chars().all(|c| c.is_ascii_digit() || c == '.');
    Some(text.trim()).filter(is_version).map(str::to_owned)
}

fn postmaster_status(pgdata: &Folder) -> Option<String> {
    let bytes = pgdata.read("postmaster.pid", 1024).ok()??;
    let text = String::from_utf8(bytes).ok()?;
    text.lines().nth(7).map(|line| line.trim().to_owned())
}

/// Works in a node's `pg_wal`.
///
/// # Errors
///
/// Fails as the work does, or says why there is no such folder.
pub fn in_pg_wal<T: Send>(
    layout: &Layout,
    node: Node,
    work: impl FnOnce(&Folder) -> Result<T, String> + Send,
) -> Result<T, String> {
    let worked = in_pgdata(layout, node, |pgdata| {
        Ok(pgdata.folder("pg_wal")?.map(|folder| work(&folder)))
    });
    match worked {
        Ok(Some(Some(worked))) => worked,
        Ok(_) => Err("it has no pg_wal".to_owned()),
        Err(error) => Err(format!("pg_wal: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair's folder in which each node has this: nothing, data, or data with
    /// the fence.
    fn pair(a: &str, b: &str) -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new("p", folder.path().to_str()).expect("a short path");
        fs::write(layout.marker(), "p\n").expect("writes");
        for (node, state) in [(Node::A, a), (Node::B, b)] {
            let pgdata = layout.pgdata(node);
            fs::create_dir_all(pgdata.join("global")).expect("makes");
            if state == "nothing" {
                fs::remove_dir(pgdata.join("global")).expect("it is there");
                continue;
            }
            let mut control = [0; 64];
            control[8..12].copy_from_slice(&1300_u32.to_ne_bytes());
            fs::write(pgdata.join("global/pg_control"), control).expect("writes");
            if state == "fenced" {
                fence(&layout, node).expect("fences");
            }
        }
        (folder, layout)
    }

    #[test]
    fn exactly_one_with_data_and_without_the_signal_is_the_primary() {
        for (a, b, found) in [
            ("data", "fenced", Ok(Node::A)),
            ("fenced", "data", Ok(Node::B)),
            ("data", "nothing", Ok(Node::A)),
            ("nothing", "data", Ok(Node::B)),
            ("nothing", "nothing", Err("holds no data")),
            ("fenced", "fenced", Err("no primary on disk")),
            ("fenced", "nothing", Err("no primary on disk")),
            ("nothing", "fenced", Err("no primary on disk")),
            ("data", "data", Err("both nodes are primaries")),
        ] {
            let (_folder, layout) = pair(a, b);
            match (Disks::read(&layout), found) {
                (Ok(disks), Ok(primary)) => assert_eq!(disks.primary, primary, "{a} {b}"),
                (Err(trouble), Err(words)) => {
                    assert!(trouble.to_string().contains(words), "{a} {b}: {trouble}");
                }
                (disks, _) => panic!("{a} {b}: {disks:?}"),
            }
        }
    }

    #[test]
    fn two_systems_and_damage_are_refused() {
        let (_folder, layout) = pair("data", "fenced");
        let control = layout.pgdata(Node::B).join("global/pg_control");
        let mut bytes = fs::read(&control).expect("reads");
        bytes[0] = 9;
        fs::write(&control, bytes).expect("writes");
        let trouble = Disks::read(&layout).expect_err("two systems");
        assert!(
            trouble.to_string().contains("different databases"),
            "{trouble}"
        );
        fs::remove_file(&control).expect("it is there");
        fs::write(layout.pgdata(Node::B).join("PG_VERSION"), "17").expect("writes");
        let trouble = Disks::read(&layout).expect_err("damage");
        assert!(trouble.to_string().contains("pg_control"), "{trouble}");
    }

    #[test]
    fn another_pairs_folder_is_refused() {
        let (folder, _) = pair("data", "fenced");
        let other = Layout::new("q", folder.path().to_str()).expect("a short path");
        let trouble = Disks::read(&other).expect_err("not its own");
        assert!(
            trouble.to_string().contains("belongs to the pair \"p\""),
            "{trouble}"
        );
    }

    #[test]
    fn the_fence_comes_and_goes_as_often_as_one_likes() {
        let (_folder, layout) = pair("data", "fenced");
        for _ in 0..2 {
            fence(&layout, Node::A).expect("fences");
            assert!(NodeDisk::read(&layout, Node::A).fenced);
        }
        for _ in 0..2 {
            unfence(&layout, Node::A).expect("takes it away");
            assert!(!NodeDisk::read(&layout, Node::A).fenced);
        }
    }

    #[test]
    fn files_that_differ_in_their_ends_only_do_not_meet() {
        let folder = tempfile::tempdir().expect("a folder");
        let [memory, pause] = ["guard", "guard.pause"].map(|name| folder.path().join(name));
        // Somebody else is about to replace the other one.
        let beside = folder.path().join("guard.new");
        fs::write(&beside, "half").expect("writes");
        replace(&pause, b"pause", 0o600).expect("writes");
        assert_eq!(fs::read(&beside).expect("it is still there"), b"half");
        replace(&memory, b"memory", 0o600).expect("writes");
        assert_eq!(fs::read(&pause).expect("reads"), b"pause");
        assert_eq!(fs::read(&memory).expect("reads"), b"memory");
    }
}
