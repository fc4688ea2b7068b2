//! The Ansible roles stand alone: each reads its own variables and what a playbook
//! gives it, and says plainly what it cannot keep.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn roles() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ansible/roles")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let entries = entries.map(|entry| entry.expect("an entry"));
    let folders = entries.filter(|entry| entry.path().is_dir());
    folders
        .map(|entry| entry.file_name().into_string().expect("text"))
        .collect()
}

/// Every YAML file and template below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut folders, mut found) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "yml" || it == "j2") {
                found.push(path);
            }
        }
    }
    found
}

/// The role that a word belongs to alone: `_role_…` is its own, and `__role_…` is
/// what a task of it registered.
fn owner<'a>(word: &str, roles: &'a [String]) -> Option<&'a String> {
    let name = word.strip_prefix('_')?.trim_start_matches('_');
    let is_of = |rest: &str| rest.starts_with('_');
    roles
        .iter()
        .find(|role| name.strip_prefix(role.as_str()).is_some_and(is_of))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
}

#[test]
fn no_role_reads_what_is_another_roles_own() {
    let roles_folder = roles();
    let roles = names(&roles_folder);
    assert!(roles.len() >= 6, "{roles:?}");
    let mut strays = Vec::new();
    for role in &roles {
        let files = files(&roles_folder.join(role));
        assert!(files.len() > 3, "{role}: {files:?}");
        for file in files {
            let text = fs::read_to_string(&file).expect("text");
            let others =
                words(&text).filter(|word| owner(word, &roles).is_some_and(|it| it != role));
            strays.extend(others.map(|word| format!("{} reads {word}", file.display())));
        }
    }
    assert!(strays.is_empty(), "{strays:#?}");
}

/// A fact is made to be handed on; what a task registered is not.
#[test]
fn no_playbook_reads_what_a_roles_task_registered() {
    let roles = names(&roles());
    let playbooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("ansible/playbooks");
    let mut strays = Vec::new();
    for file in files(&playbooks) {
        let text = fs::read_to_string(&file).expect("text");
        let registered = words(&text).filter(|it| it.starts_with("__"));
        let registered = registered.filter(|word| owner(word, &roles).is_some());
        strays.extend(registered.map(|word| format!("{} reads {word}", file.display())));
    }
    assert!(strays.is_empty(), "{strays:#?}");
}

#[test]
fn owners_are_found_by_their_whole_names() {
    let roles = ["postgres_pair", "pgpair_probe"].map(str::to_owned);
    for (word, expected) in [
        ("_postgres_pair_disk", Some("postgres_pair")),
        ("__pgpair_probe_ca", Some("pgpair_probe")),
        // What a person sets, or a role tells.
        ("postgres_pair_root", None),
        ("_postgres_pairs_disk", None),
        ("_found", None),
    ] {
        assert_eq!(owner(word, &roles).map(String::as_str), expected, "{word}");
    }
}

/// Runs the script that closes a pair's network, with these programs and no others.
fn close_network(verb: &str, programs: &[(&str, &str)]) -> Output {
    let folder = TempDir::new().expect("a temporary directory");
    for (name, script) in programs {
        let file = folder.path().join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("writes");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("its own file");
    }
    let script = roles().join("postgres_pair/files/close_network.sh");
    let mut shell = Command::new("/bin/sh");
    let shell = shell.arg(script).args([verb, "pair"]);
    shell.env("PATH", folder.path()).output().expect("sh runs")
}

#[test]
fn network_that_cannot_be_closed_is_told_in_one_line() {
    let docker = ("docker", "echo 0123456789abcdef - 172.30.0.0/24");
    let without_chain = ("iptables", "exit 1");
    for verb in ["check", "close"] {
        for (programs, words) in [
            (vec![docker], "this host has no iptables"),
            (
                vec![docker, without_chain],
                "iptables has no chain DOCKER-USER here",
            ),
        ] {
            let done = close_network(verb, &programs);
            let told = String::from_utf8(done.stderr).expect("text");
            assert_eq!(done.status.code(), Some(3), "{verb}: {told}");
            assert!(told.starts_with(words), "{verb}: {told}");
            assert_eq!(told.lines().count(), 1, "{verb}: {told}");
            assert_eq!(done.stdout, b"", "{verb}: it says that it closed it");
        }
    }
    // Nothing is to be opened either, and nobody asked for more.
    let done = close_network("open", &[docker]);
    assert!(done.status.success(), "{done:?}");
}
