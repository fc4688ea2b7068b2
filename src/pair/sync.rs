//! Synchronous replication kept honest: which mode is wanted, whether it is in
//! force, and the one file that proves it after the primary is dead.

use super::error::{Error, Why, failed, refused};
use super::files;
use super::host::{MAX_SQL, Pair};
use super::layout::{Layout, Node};
use super::state_file::{self, Format};
use crate::runtime::document::{Object, word};
use crate::runtime::text::value_of;

/// Where it is written down, in the pair's folder.
const FILE: &str = "sync";

/// What an acknowledged commit promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is on the primary's disk.
    #[default]
    Async,
    /// It is on the standby's disk too, except while that has been gone for
    /// longer than a limit.
    Sync,
    /// It is on the standby's disk too, always: without a standby, commits wait.
    Strict,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Mode; 3] = [Mode::Async, Mode::Sync, Mode::Strict];

    /// Returns the word of the settings.
    pub const fn word(self) -> &'static str {
        match self {
            Mode::Async => "async",
            Mode::Sync => "sync",
            Mode::Strict => "strict",
        }
    }
}

/// What is promised now. It is written for good before a promise is taken back,
/// and after one has come into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// What is wanted.
    pub mode: Mode,
    /// Whose commits it is about.
    pub primary: Node,
    /// Every commit that the primary acknowledges is on the standby's disk.
    pub in_force: bool,
}

/// Reads what is promised; nothing where no guard ever ran.
///
/// # Errors
///
/// Fails if the file cannot be read.
pub fn read(layout: &Layout) -> Result<Option<Promise>, Error> {
    let read = state_file::read(&layout.file(FILE), &FORMAT);
    read.map_err(|text| failed(Why::FileUnusable, text))
}

/// Sees that what is promised can be read, before anything rests on it.
///
/// # Errors
///
/// Refuses if the file cannot be read.
pub fn is_readable(layout: &Layout) -> Result<(), Error> {
    let read = read(layout).map(drop);
    read.map_err(|error| refused(error.why(), error.detail()))
}

/// How the file is read.
const FORMAT: Format<Promise> = Format {
    json: |value| {
        let in_force = value.get("in_force")?.as_bool()?;
        Promise::of(word(value, "mode")?, word(value, "primary")?, in_force)
    },
    older: |line| {
        let in_force = value_of(line, "in_force")?.parse().ok()?;
        Promise::of(
            value_of(line, "mode")?,
            value_of(line, "primary")?,
            in_force,
        )
    },
    cure: "remove it, after which nothing is promised until the guard promises it anew, and see \
        that synchronous_standby_names is what you want",
};

impl Promise {
    /// Writes what the file says of it.
    pub fn fields(&self, object: &mut Object) {
        object.text("mode", Some(self.mode.word()));
        object.text("primary", Some(self.primary.name()));
        object.yes("in_force", self.in_force);
    }

    fn text(&self) -> String {
        let mut object = Object::versioned();
        self.fields(&mut object);
        object.line()
    }

    fn of(mode: &str, primary: &str, in_force: bool) -> Option<Promise> {
        Some(Promise {
            mode: Mode::ALL.into_iter().find(|it| it.word() == mode)?,
            primary: Node::named(primary)?,
            in_force,
        })
    }
}

/// Writes down what is promised, for good.
///
/// # Errors
///
/// Fails if the disk does not take it.
pub fn write(layout: &Layout, promise: &Promise) -> Result<(), Error> {
    let path = layout.file(FILE);
    let text = promise.text();
    files::replace(&path, text.as_bytes(), 0o600).map_err(|error| {
        failed(
            Why::FileUnusable,
            format!("cannot write {}: {error}", path.display()),
        )
    })
}

/// Says whether no commit that `primary` acknowledged can be missing on its
/// standby.
pub fn proves(layout: &Layout, primary: Node) -> bool {
    let promise = read(layout).ok().flatten();
    let promised = promise.is_some_and(|promise| promise.in_force && promise.primary == primary);
    promised && still_set(layout, primary)
}

/// Says whether the setting is still on the primary's disk as the guard left
/// it: what somebody else has changed is no promise any more.
fn still_set(layout: &Layout, primary: Node) -> bool {
    /// `ALTER SYSTEM` writes little.
    const BYTES: u64 = 1 << 20;
    let read = files::in_pgdata(layout, primary, |pgdata| {
        pgdata.read("postgresql.auto.conf", BYTES)
    });
    let bytes = read.ok().flatten().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().filter(|line| line.starts_with(SETTING));
    lines.next_back() == Some(format!("{SETTING} = '{}'", names(layout, primary)).as_str())
}

const SETTING: &str = "synchronous_standby_names";

fn names(layout: &Layout, primary: Node) -> String {
    format!("\"{}\"", layout.slot(primary.other()))
}

/// Gives a standby the setting with which it is to begin as primary. Where no
/// guard ever ran, that is the operator's own business.
///
/// # Errors
///
/// Fails if it cannot be set.
pub fn before_promotion(pair: &Pair, to: Node) -> Result<(), Error> {
    let Some(promise) = read(&pair.layout)? else {
        return Ok(());
    };
    // The new primary has no standby yet: it can keep one promise only.
    let strict = promise.mode == Mode::Strict;
    if promise.primary != to {
        let next = Promise {
            mode: promise.mode,
            primary: to,
            in_force: strict,
        };
        write(&pair.layout, &next)?;
    }
    set_names(pair, to, strict)
}

/// Has a node wait for the other with its commits, or not.
///
/// # Errors
///
/// Fails if it does not take the setting.
pub fn set_names(pair: &Pair, node: Node, wait: bool) -> Result<(), Error> {
    let names = match wait {
        true => names(&pair.layout, node),
        false => String::new(),
    };
    let server = pair.server(node);
    for sql in [
        format!("ALTER SYSTEM SET {SETTING} = '{names}'"),
        "SELECT pg_reload_conf()".to_owned(),
    ] {
        server
            .rows(&sql, MAX_SQL)
            .map_err(|error| pair.no_answer(node, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_a_promise_in_force_proves_something_and_only_of_its_primary() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new("p", folder.path().to_str()).expect("a short path");
        assert!(!proves(&layout, Node::A), "nothing was ever promised");
        let conf = layout.pgdata(Node::A).join("postgresql.auto.conf");
        fs::create_dir_all(layout.pgdata(Node::A)).expect("makes");
        let set = "# by ALTER SYSTEM\nsynchronous_standby_names = '\"p_b\"'\n";
        fs::write(&conf, set).expect("writes");
        for (primary, in_force) in [(Node::A, true), (Node::A, false), (Node::B, true)] {
            let promise = Promise {
                mode: Mode::Sync,
                primary,
                in_force,
            };
            write(&layout, &promise).expect("writes");
            assert_eq!(read(&layout), Ok(Some(promise)));
            let proven = primary == Node::A && in_force;
            assert_eq!(proves(&layout, Node::A), proven, "{promise:?}");
        }
        let promise = Promise {
            mode: Mode::Sync,
            primary: Node::A,
            in_force: true,
        };
        write(&layout, &promise).expect("writes");
        fs::write(&conf, format!("{set}synchronous_standby_names = ''\n")).expect("writes");
        assert!(!proves(&layout, Node::A), "somebody has taken it back");
        fs::write(&conf, set).expect("writes");
        assert!(proves(&layout, Node::A));
        fs::write(layout.file(FILE), "mode=sync primary=a in_force=true\n").expect("writes");
        assert!(proves(&layout, Node::A), "by the version before");
        let whole = promise.text();
        let own = [
            (&whole[..whole.len() / 2], "it is garbled"),
            ("mode=sync primary=a in_fo", "it is garbled"),
            ("{\"version\":1,\"mode\":\"sync\"}", "remove it"),
        ];
        for (text, words) in state_file::UNREADABLE.into_iter().chain(own) {
            fs::write(layout.file(FILE), text).expect("writes");
            assert!(!proves(&layout, Node::A), "half a promise is none");
            let said = is_readable(&layout).expect_err(text).to_string();
            assert!(
                said.contains("/sync cannot be read (") && said.contains(words),
                "{said}"
            );
        }
    }
}
