//! The tower of `src`: each floor names only floors below it, and a third-party crate
//! enters where it is meant to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom to the top.
const FLOORS: [&str; 8] = [
    "runtime", "pg", "probe", "pair", "config", "http", "commands", "cli",
];

/// Crates that only some rooms know, and these rooms: files or folders.
const ROOMS: [(&str, &[&str]); 13] = [
    ("ctrlc", &["commands/serve", "pair/guard"]),
    ("dns_lookup", &["pg/resolve"]),
    ("httpdate", &["http/response"]),
    ("lexopt", &["cli"]),
    (
        "postgres",
        &["pg/tls", "probe/observer", "pair/local_client"],
    ),
    ("r2d2", &["probe/observer"]),
    ("ring", &["pg/tls"]),
    ("rustls", &["pg/tls"]),
    ("rustls_native_certs", &["pg/tls"]),
    ("scheduled_thread_pool", &["probe/observer"]),
    ("simplelog", &["runtime/logging"]),
    ("tiny_http", &["http/server"]),
    ("tokio", &["pg/tls", "probe/observer"]),
];

/// Every file of `src` by its path there, without what is said in comments.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                let code = text.lines().filter(|it| !it.trim_start().starts_with("//"));
                let code: Vec<&str> = code.collect();
                let path = path.strip_prefix(&root).expect("below").with_extension("");
                found.push((path.display().to_string(), code.join("\n")));
            }
        }
    }
    assert!(found.len() > 80, "{} files", found.len());
    found
}

/// What follows `word::` in the code: names, also those in braces.
fn named(code: &str, word: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(&format!("{word}::")) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|it| it.is_alphanumeric() || it == '_' || it == ':') {
            continue;
        }
        let rest = &code[at + word.len() + 2..];
        let list = match rest.strip_prefix('{') {
            Some(rest) => outermost(rest),
            None => vec![rest],
        };
        found.extend(list.into_iter().map(|it| {
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            it.trim_start()
                .chars()
                .take_while(|c| is_name(*c))
                .collect()
        }));
    }
    found
}

/// Splits what stands in braces, up to their end.
fn outermost(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut found) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            ',' if depth == 0 => {
                found.push(&text[from..at]);
                from = at + 1;
            }
            '}' if depth == 0 => {
                found.push(&text[from..at]);
                break;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    found
}

fn floor_of(name: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| *floor == name)
}

#[test]
fn each_floor_names_only_floors_below_it() {
    let mut climbing = Vec::new();
    for (path, code) in files() {
        let own = path.split('/').next().unwrap_or(&path);
        // The roof: main, lib, and what holds the README against the code.
        let Some(own) = floor_of(own) else {
            assert!(["main", "lib", "readme"].contains(&path.as_str()), "{path}");
            continue;
        };
        for name in named(&code, "crate") {
            let floor = floor_of(&name);
            if floor.is_none_or(|floor| floor > own) {
                climbing.push(format!("{path} names crate::{name}"));
            }
        }
    }
    assert!(climbing.is_empty(), "{climbing:#?}");
}

/// The room of a path in `src`: a file or folder on a floor.
fn room_of(path: &[&str]) -> Option<String> {
    let floor = path.first().filter(|floor| floor_of(floor).is_some())?;
    Some([*floor, path.get(1)?].join("/"))
}

/// Every path that the code names below `crate` or `super`, from the top.
fn paths(module: &[&str], code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for name in named(code, "crate") {
        for next in named(code, &format!("crate::{name}")) {
            found.push(vec![name.clone(), next]);
        }
    }
    for (ups, word) in [(1, "super"), (2, "super::super")] {
        let above = &module[..module.len().saturating_sub(ups)];
        for next in named(code, word) {
            let above = above.iter().map(|it| (*it).to_owned());
            found.push(above.chain([next]).collect());
        }
    }
    found
}

#[test]
fn no_rooms_name_each_other_in_a_circle() {
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, code) in files() {
        // Tests may name anybody.
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        let module: Vec<&str> = path.split('/').filter(|it| *it != "mod").collect();
        let Some(own) = room_of(&module).filter(|_| !path.contains("/tests")) else {
            continue;
        };
        for path in paths(&module, code) {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let room = room_of(&path).filter(|room| *room != own);
            names.entry(own.clone()).or_default().extend(room);
        }
    }
    // What names nobody who is left goes, until all that is left are circles.
    loop {
        let left: BTreeSet<String> = names.keys().cloned().collect();
        names
            .values_mut()
            .for_each(|it| it.retain(|room| left.contains(room)));
        names.retain(|_, named| !named.is_empty());
        if names.len() == left.len() {
            break;
        }
    }
    assert!(names.is_empty(), "{names:#?}");
}

#[test]
fn crates_enter_where_they_are_meant_to() {
    let mut strays = Vec::new();
    for (path, code) in files() {
        for (name, rooms) in ROOMS {
            let is_used = !named(&code, name).is_empty();
            if is_used && !rooms.iter().any(|room| path.starts_with(room)) {
                strays.push(format!("{path} names {name}"));
            }
        }
    }
    assert!(strays.is_empty(), "{strays:#?}");
}

#[test]
fn names_are_found_wherever_they_stand() {
    let code =
        "use crate::{a::{self, B}, c_1};\nlet x = crate::d::e(); super::crate::f; mycrate::g";
    let found: Vec<String> = named(code, "crate").into_iter().collect();
    assert_eq!(found, ["a", "c_1", "d"]);
}
