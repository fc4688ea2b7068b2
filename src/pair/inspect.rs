//! What is known of a pair on this host, by its disks, Docker and its servers' sockets.
//! Looks only, and is bounded in time: what does not answer is unknown.

use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::docker;
use super::error::{Error, Why, refused};
use super::files::{self, Disks, NodeDisk};
use super::guard::state::{self, GuardState};
use super::layout::{Layout, Node};
use super::local_client::{Server, SqlError};
use super::sync;
use super::transition::journal;
use crate::pg::data_dir::{DataDir, Folder};
use crate::probe::guard_report::{self, Report, SILENT_AFTER};
use crate::runtime::document::{Object, quoted, word};
use crate::runtime::text::printable;
use crate::runtime::threads;
use crate::runtime::time::unix_time;

/// Longest for disks, Docker and servers, all of which are asked at once.
const MAX_LOOK: Duration = Duration::from_secs(5);

/// Longest for a server's answer, within that.
const MAX_ANSWER: Duration = Duration::from_secs(4);

/// Longest for adding up how much the data takes.
const MAX_ADD_UP: Duration = Duration::from_secs(130);

/// Longest word of a file that is shown, in characters.
const MAX_WORD: usize = 200;

/// Passwords that the pair's folder holds, by their files' names.
const SECRETS: [&str; 3] = ["replicator", "pgpair", "app"];

/// What is said of something that did not answer in time.
const UNKNOWN: &str = "{\"state\":\"unknown\",\"is\":\"unknown\"}";

/// Looks at a pair; returns JSON. `sizes` also adds up how much the data takes.
pub fn inspect(layout: &Layout, sizes: bool) -> String {
    let each = |limit, look| Node::BOTH.map(|node| InTime::begin(layout, node, limit, look));
    let folder = InTime::begin(layout, Node::A, MAX_LOOK, |layout, _| folder(layout));
    let disks = each(MAX_LOOK, disk);
    let containers = each(MAX_LOOK, container);
    let servers = each(MAX_LOOK, server);
    let added = sizes.then(|| each(MAX_ADD_UP, used_bytes));
    let said = servers.map(|it| it.get().unwrap_or_else(|| UNKNOWN.to_owned()));
    let mut nodes = Object::default();
    for node in Node::BOTH {
        let at = node.index();
        let mut about = Object::default();
        let disk = disks[at].get();
        about.fields(&disk.unwrap_or_else(|| unknown_disk(layout, node)));
        about.text("slot", Some(&layout.slot(node)));
        let used = added.as_ref().and_then(|added| added[at].get());
        about.raw("used_bytes", used.as_deref().unwrap_or("null"));
        let container = containers[at].get();
        about.raw("container", container.as_deref().unwrap_or(UNKNOWN));
        about.raw("server", &said[at]);
        let streams = stream(&said[node.other().index()]);
        about.text("streams", streams.as_deref());
        nodes.raw(node.name(), &about.end());
    }
    let mut found = Object::versioned();
    found.fields(&folder.get().unwrap_or_else(|| unknown_folder(layout)));
    found.raw("nodes", &nodes.end());
    found.end()
}

/// What will be known until a moment, or not.
struct InTime {
    limit: Instant,
    found: Receiver<String>,
}

impl InTime {
    /// Looks at something on a thread of its own, which may never come back.
    fn begin(
        layout: &Layout,
        node: Node,
        within: Duration,
        look: fn(&Layout, Node) -> String,
    ) -> InTime {
        let (sender, found) = channel();
        let layout = layout.clone();
        let looking = threads::spawn("inspect".to_owned(), move || {
            // Nobody may wait for it any more.
            let _ = sender.send(look(&layout, node));
        });
        if let Err(error) = looking {
            log::warn!("inspect node={node} cause={:?}", error.to_string());
        }
        InTime {
            limit: Instant::now() + within,
            found,
        }
    }

    fn get(&self) -> Option<String> {
        let left = self.limit.saturating_duration_since(Instant::now());
        self.found.recv_timeout(left).ok()
    }
}

fn unknown_folder(layout: &Layout) -> String {
    let detail = format!("{} cannot be looked at in time", layout.root().display());
    let mut about = Object::default();
    names(&mut about, layout);
    primary(&mut about, Err(refused(Why::FileUnusable, detail)));
    about.end()
}

fn names(about: &mut Object, layout: &Layout) {
    about.text("pgpair", Some(env!("CARGO_PKG_VERSION")));
    about.text("prefix", Some(&layout.prefix));
    about.text("root", layout.root().to_str());
}

/// Looks at all that lies in the pair's folder, above the nodes' own.
fn folder(layout: &Layout) -> String {
    let root = layout.root();
    let mut about = Object::default();
    names(&mut about, layout);
    about.yes("exists", root.exists());
    let is_empty = fs::read_dir(root).map_or(true, |mut it| it.next().is_none());
    about.yes("empty", is_empty);
    let marker = fs::read_to_string(layout.marker()).ok();
    let marker = marker.map(|it| printable(it.trim(), MAX_WORD));
    about.text("marker", marker.as_deref());
    about.number("free_bytes", free_bytes(root));
    application(&mut about, layout);
    let mut secrets = Object::default();
    for name in SECRETS {
        secrets.yes(name, is_filled(&root.join("secrets").join(name)));
    }
    about.raw("secrets", &secrets.end());
    let mut ca = Object::default();
    ca.yes("key", is_filled(&root.join("tls/ca.key")));
    ca.yes("certificate", is_filled(&root.join("tls/ca.crt")));
    about.raw("ca", &ca.end());
    primary(&mut about, primary_on_disk(layout));
    written_down(&mut about, layout);
    about.end()
}

fn is_filled(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| it.is_file() && it.len() > 0)
}

/// Says who is primary on disk, or why no command would touch the pair.
fn primary(about: &mut Object, primary: Result<Node, Error>) {
    about.text("primary", primary.as_ref().ok().map(|node| node.name()));
    match primary {
        Ok(_) => about.raw("refusal", "null"),
        Err(error) => {
            let mut refusal = Object::default();
            refusal.text("reason", Some(error.why().word()));
            refusal.text("detail", Some(&error.detail()));
            about.raw("refusal", &refusal.end());
        }
    }
}

fn primary_on_disk(layout: &Layout) -> Result<Node, Error> {
    let disks = Disks::read(layout)?;
    for disk in &disks.nodes {
        if !disk.empty && disk.version.is_none() {
            return Err(disk.is_not_whole(&"PG_VERSION is missing"));
        }
    }
    Ok(disks.primary)
}

/// Adds what commands and guard wrote down.
fn written_down(about: &mut Object, layout: &Layout) {
    let mut unreadable = Vec::new();
    about.text("lock", journal::holder(layout).as_deref());
    let mut unfinished = Object::default();
    match known(journal::read(layout), &mut unreadable).flatten() {
        Some(left) => {
            left.fields(&mut unfinished);
            about.raw("unfinished", &unfinished.end());
        }
        None => about.raw("unfinished", "null"),
    }
    let mut promised = Object::default();
    match known(sync::read(layout), &mut unreadable).flatten() {
        Some(promise) => {
            promise.fields(&mut promised);
            about.raw("promise", &promised.end());
        }
        None => about.raw("promise", "null"),
    }
    let guard = guard(layout, &mut unreadable);
    about.raw("guard", &guard);
    let lines: Vec<String> = unreadable.iter().map(|it| quoted(it)).collect();
    about.list("unreadable", &lines);
}

fn known<T>(read: Result<T, Error>, unreadable: &mut Vec<String>) -> Option<T> {
    match read {
        Ok(found) => Some(found),
        Err(error) => {
            unreadable.push(error.detail());
            None
        }
    }
}

/// Returns what the guard says, and what it remembers.
fn guard(layout: &Layout, unreadable: &mut Vec<String>) -> String {
    let pid = state::at_work(layout);
    let path = layout.file(guard_report::FILE);
    let report = Report::read(&path).unwrap_or_else(|error| {
        unreadable.push(format!("{}: {error}", path.display()));
        None
    });
    let mut guard = Object::default();
    let state = match (pid, &report) {
        (None, _) => "absent",
        (Some(_), Some(report)) if report.age() < SILENT_AFTER => report.state.as_str(),
        _ => "silent",
    };
    guard.text("state", Some(state));
    guard.number("pid", pid.map(u64::from));
    let paused = known(state::paused_until(layout, unix_time()), unreadable);
    guard.number("paused_until", paused.flatten());
    if let Some(memory) = known(GuardState::read(layout), unreadable) {
        memory.fields(&mut guard);
    }
    let mut said = Object::default();
    match report {
        Some(report) => {
            report.fields(&mut said);
            guard.raw("report", &said.end());
        }
        None => guard.raw("report", "null"),
    }
    guard.end()
}

/// Returns what is free where a folder is, or will be.
fn free_bytes(folder: &Path) -> Option<u64> {
    let place = folder.ancestors().find(|it| it.is_dir())?;
    let about = rustix::fs::statvfs(place).ok()?;
    Some(about.f_bavail.saturating_mul(about.f_frsize))
}

/// Says whom the nodes' configuration lets in as the application.
fn application(about: &mut Object, layout: &Layout) {
    let found = Node::BOTH.into_iter().find_map(|node| {
        let text = fs::read_to_string(layout.conf(node).join("pg_hba.conf")).ok()?;
        let mut lines = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace().map(|word| word.trim_matches('"'));
            let (kind, database, role) = (words.next()?, words.next()?, words.next()?);
            let other = database == "replication" || role == "pgpair";
            (kind == "hostssl" && !other).then(|| (database.to_owned(), role.to_owned()))
        });
        lines.next_back()
    });
    let Some((database, role)) = found else {
        about.raw("application", "null");
        return;
    };
    let mut application = Object::default();
    application.text("database", Some(&printable(&database, MAX_WORD)));
    application.text("role", Some(&printable(&role, MAX_WORD)));
    about.raw("application", &application.end());
}

fn unknown_disk(layout: &Layout, node: Node) -> String {
    let problem = format!(
        "{} cannot be looked at in time",
        layout.data(node).display()
    );
    let mut about = Object::default();
    about.text("pgdata", layout.pgdata(node).to_str());
    about.text("on_disk", Some("unknown"));
    about.yes("empty", false);
    about.text("owner", None);
    about.text("version", None);
    about.text("problem", Some(&problem));
    about.end()
}

/// Looks at what a node has on its disk.
fn disk(layout: &Layout, node: Node) -> String {
    let disk = NodeDisk::read(layout, node);
    let control = disk.control();
    let known = control.as_ref().ok();
    let mut about = Object::default();
    about.text("pgdata", disk.pgdata.to_str());
    let on_disk = match known {
        _ if disk.empty => "empty",
        None => "damaged",
        Some(_) if disk.fenced => "standby",
        Some(_) => "primary",
    };
    about.text("on_disk", Some(on_disk));
    about.yes("empty", disk.empty);
    about.yes("fenced", disk.fenced);
    about.text("version", disk.version.as_deref());
    // As text: it is larger than JSON's numbers are certain to be.
    let system = known.map(|it| it.system.to_string());
    about.text("system", system.as_deref());
    about.number("timeline", known.map(|it| it.timeline.into()));
    about.text("ended", known.map(|it| it.ended.word()));
    let checkpoint = known.map(|it| it.checkpoint.to_string());
    about.text("checkpoint", checkpoint.as_deref());
    let owner = DataDir::open(&disk.pgdata).ok().map(|it| it.owner());
    let owner = owner.map(|(uid, gid)| format!("{uid}:{gid}"));
    about.text("owner", owner.as_deref());
    let free = files::in_data(layout, node, Folder::free_bytes);
    about.number("free_bytes", free.ok().flatten());
    let problem = control.as_ref().err().filter(|_| !disk.empty);
    about.text("problem", problem.map(Error::detail).as_deref());
    about.end()
}

fn used_bytes(layout: &Layout, node: Node) -> String {
    match files::in_pgdata(layout, node, Folder::used_bytes) {
        Ok(used) => used.unwrap_or(0).to_string(),
        Err(_) => "null".to_owned(),
    }
}

/// Asks Docker for a node's container.
fn container(layout: &Layout, node: Node) -> String {
    let name = layout.container(node);
    let mut about = Object::default();
    about.text("name", Some(&name));
    match docker::inspect(&name, MAX_ANSWER) {
        Ok(Some(found)) => {
            about.text("state", Some(&found.status));
            about.text("image", Some(&found.image));
            about.yes("is_the_pairs", found.pair == layout.prefix);
        }
        Ok(None) => about.text("state", Some("none")),
        Err(error) => {
            about.text("state", Some("unknown"));
            let detail = printable(&error.to_string(), MAX_WORD);
            about.text("detail", Some(&detail));
        }
    }
    about.end()
}

/// Asks a node's server for its role, its slots, and how the other node streams from it.
fn server(layout: &Layout, node: Node) -> String {
    let sql = format!(
        "SELECT pg_is_in_recovery(), r.state, r.sync_state, \
         (SELECT string_agg(slot_name::text, ',' ORDER BY slot_name) FROM pg_replication_slots) \
         FROM (VALUES (1)) AS one LEFT JOIN pg_stat_replication r ON r.application_name = '{}' \
         ORDER BY r.state = 'streaming' DESC NULLS LAST LIMIT 1",
        layout.slot(node.other())
    );
    let mut about = Object::default();
    let rows = Server::of(layout, node).rows(&sql, MAX_ANSWER);
    let row = match rows {
        Ok(rows) => rows.into_iter().next().unwrap_or_default(),
        Err(error) => {
            let state = match &error {
                SqlError::Gone(_) => "down",
                SqlError::Silent(_) => "silent",
                SqlError::NotYet(_) => "starting",
                SqlError::Said(_) => "refuses",
            };
            about.text("is", Some(state));
            let detail = printable(&error.to_string(), MAX_WORD);
            about.text("detail", Some(&detail));
            return about.end();
        }
    };
    let cell = |index: usize| row.get(index).and_then(Option::as_deref);
    let role = match cell(0) {
        Some("t") => "standby",
        _ => "primary",
    };
    about.text("is", Some(role));
    let slots = cell(3).unwrap_or_default().split(',');
    let slots: Vec<String> = slots.filter(|it| !it.is_empty()).map(quoted).collect();
    about.list("slots", &slots);
    about.text("sends", cell(1));
    about.text("sync_state", cell(2));
    about.end()
}

/// Says how a node streams, by what the other one's server said: `no`, `streaming` or
/// another word of `pg_stat_replication`; nothing if that is unknown.
fn stream(other: &str) -> Option<String> {
    let other: Value = serde_json::from_str(other).ok()?;
    let answers = ["primary", "standby"]
        .map(Some)
        .contains(&word(&other, "is"));
    answers.then(|| word(&other, "sends").unwrap_or("no").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().expect("a folder");
        // No container of this host is called so.
        let layout = Layout::new("inspect-nobody", folder.path().to_str()).expect("a short path");
        (folder, layout)
    }

    /// Gives a node data that looks like a database.
    fn has_data(layout: &Layout, node: Node) {
        let pgdata = layout.pgdata(node);
        fs::create_dir_all(pgdata.join("global")).expect("makes");
        let mut control = [0; 64];
        control[8..12].copy_from_slice(&1300_u32.to_ne_bytes());
        control[16] = 1;
        control[48] = 7;
        fs::write(pgdata.join("global/pg_control"), control).expect("writes");
        fs::write(pgdata.join("PG_VERSION"), "17\n").expect("writes");
    }

    fn looked(layout: &Layout, sizes: bool) -> Value {
        serde_json::from_str(&inspect(layout, sizes)).expect("JSON")
    }

    fn reason(found: &Value) -> Option<&str> {
        found.pointer("/refusal/reason").and_then(Value::as_str)
    }

    #[test]
    fn what_is_not_there_is_said_and_nothing_is_made() {
        let (folder, layout) = pair();
        let found = looked(&layout, true);
        assert_eq!(reason(&found), Some("no_pair"));
        assert_eq!(found["empty"], true);
        assert_eq!(found["nodes"]["a"]["empty"], true);
        assert_eq!(found["nodes"]["a"]["used_bytes"], 0);
        assert_eq!(found["nodes"]["a"]["server"]["is"], "down");
        assert_eq!(found["guard"]["state"], "absent");
        assert!(found["free_bytes"].as_u64() > Some(0));
        let left = fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(left, 0, "it only looks");
    }

    #[test]
    fn disks_and_files_are_told_and_what_cannot_be_read_is_named() {
        let (_folder, layout) = pair();
        fs::write(layout.marker(), "inspect-nobody\n").expect("writes");
        has_data(&layout, Node::A);
        has_data(&layout, Node::B);
        assert_eq!(reason(&looked(&layout, false)), Some("two_primaries"));
        files::fence(&layout, Node::B).expect("fences");
        fs::write(layout.file("sync"), "half").expect("writes");
        fs::create_dir_all(layout.conf(Node::B)).expect("makes");
        let hba = "hostssl replication replicator samenet x\nhostssl \"app\"  \"me\"  samenet x\n";
        fs::write(layout.conf(Node::B).join("pg_hba.conf"), hba).expect("writes");
        let held = journal::Held::take(&layout, "rejoin").expect("nobody has it");
        let found = looked(&layout, false);
        assert_eq!((reason(&found), &found["primary"]), (None, &"a".into()));
        let node = &found["nodes"]["b"];
        assert_eq!(node["fenced"], true);
        assert_eq!(node["ended"], "shut_down");
        assert_eq!(node["on_disk"], "standby");
        assert_eq!(
            (&node["timeline"], &node["version"]),
            (&7.into(), &"17".into())
        );
        assert_eq!(node["slot"], "inspect_nobody_b");
        assert_eq!(found["application"]["role"], "me");
        assert!(
            found["lock"]
                .as_str()
                .is_some_and(|it| it.starts_with("rejoin (pid "))
        );
        let named = found["unreadable"][0].as_str().expect("a line");
        assert!(
            named.contains("/sync cannot be read (it is garbled): "),
            "{named}"
        );
        drop(held);
        fs::remove_file(layout.pgdata(Node::B).join("PG_VERSION")).expect("it is there");
        let found = looked(&layout, false);
        assert_eq!(reason(&found), Some("file_unusable"));
        let detail = found["refusal"]["detail"].as_str().expect("a line");
        assert!(
            detail.contains("is not a whole database (PG_VERSION"),
            "{detail}"
        );
    }
}
