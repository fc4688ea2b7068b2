//! What would hold up the stop of a primary, or be ended by it: looked for and
//! named before anything is stopped.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::pair::error::{Error, Why, refused};
use crate::pair::files;
use crate::pair::host::{MAX_SQL, Pair};
use crate::pair::layout::{MOUNT, Node};
use crate::pair::local_client::Row;
use crate::pair::process_table::{self, Process};

/// A program that a backend runs, or a process that is frozen, may be about to go
/// on: it is given this long.
const PASSES_WITHIN: Duration = Duration::from_secs(2);

/// Receivers of WAL other than the standby that have not replied for longer than
/// two seconds, or not at all since they came, with the seconds.
const RECEIVERS: &str = "SELECT pid, left(application_name, 64), \
       extract(epoch FROM clock_timestamp() - coalesce(reply_time, backend_start))::bigint \
     FROM pg_stat_replication \
     WHERE application_name <> $NAME AND state <> 'backup' \
       AND coalesce(reply_time, backend_start) < clock_timestamp() - interval '2 s'";

/// Base backups that are being taken.
const BACKUPS: &str = "SELECT pid FROM pg_stat_progress_basebackup";

/// Transactions of ten seconds and more, with the seconds.
const TRANSACTIONS: &str = "SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::bigint \
     FROM pg_stat_activity \
     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() \
       AND xact_start < clock_timestamp() - interval '10 s' \
     ORDER BY xact_start LIMIT 5";

/// Segments that wait to be archived, with the seconds since the first of them was
/// written, and whether archiving fails.
const ARCHIVING: &str = "SELECT count(*), \
       coalesce(max(extract(epoch FROM clock_timestamp() - modification))::bigint, 0), \
       (SELECT coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) \
          FROM pg_stat_archiver) \
     FROM pg_ls_archive_statusdir() \
     WHERE name LIKE '%.ready' AND current_setting('archive_mode') <> 'off'";

/// Segments that have waited for longer than this may be gone on the standby.
const ARCHIVED_WITHIN_S: u64 = 60;

/// Looks at what the stop of `from` would meet. Returns a sentence for everything
/// that it ends or does not wait for.
///
/// # Errors
///
/// Refuses what it could not end, and what would be lost by it.
pub fn what_a_stop_would_meet(pair: &Pair, from: Node) -> Result<Vec<String>, Error> {
    for node in Node::BOTH {
        pair.until(PASSES_WITHIN, || nothing_is_frozen(pair, node))?;
    }
    pair.until(PASSES_WITHIN, || no_program_is_run(pair, from))?;
    let ask = |sql: &str| -> Vec<Row> {
        // A view that this version does not have names nobody.
        pair.server(from).rows(sql, MAX_SQL).unwrap_or_default()
    };
    if let Some(row) = ask(BACKUPS).first() {
        let pid = cell(row, 0);
        return Err(refused(
            Why::BaseBackup,
            format!(
                "a base backup is being taken from {from} (pid {pid}): wait until it has ended, or end it \
             (SELECT pg_terminate_backend({pid}))"
            ),
        ));
    }
    let mut met = archiving(from, &ask(ARCHIVING))?;
    let receivers = RECEIVERS.replace("$NAME", &format!("'{}'", pair.layout.slot(from.other())));
    for row in ask(&receivers) {
        met.push(format!(
            "{:?} (pid {}) receives WAL from {from} and has not replied for {} s: it is cut off",
            cell(&row, 1),
            cell(&row, 0),
            cell(&row, 2)
        ));
    }
    for row in ask(TRANSACTIONS) {
        met.push(format!(
            "a transaction on {from} (pid {}) has run for {} s: it is ended",
            cell(&row, 0),
            cell(&row, 1)
        ));
    }
    Ok(met)
}

/// Cuts off whoever receives WAL and does not reply: a stop would wait for them.
///
/// # Errors
///
/// Refuses a primary that does not answer.
pub fn cut_silent_receivers_off(pair: &Pair, from: Node) -> Result<(), Error> {
    let slot = pair.layout.slot(from.other());
    let receivers = RECEIVERS.replace("$NAME", &format!("'{slot}'"));
    let sql = format!("SELECT pg_terminate_backend(pid) FROM ({receivers}) silent");
    let cut = pair.server(from).rows(&sql, MAX_SQL);
    cut.map(drop).map_err(|error| {
        refused(
            Why::PrimarySilent,
            format!("the primary {from} does not answer ({error})"),
        )
    })
}

/// Returns the process that sends WAL to the standby, by its id on the host.
pub fn sender_of_standby(pair: &Pair, from: Node) -> Option<u32> {
    let sql = format!(
        "SELECT pid FROM pg_stat_replication WHERE application_name = '{}'",
        pair.layout.slot(from.other())
    );
    let inner: u32 = pair.value(from, &sql).ok()?.parse().ok()?;
    let mut pids = pair.processes(from).ok()?.into_iter();
    pids.find(|pid| {
        let process = pair.machine.process(*pid);
        process.is_some_and(|process| process.inner_pid == inner)
    })
}

/// Has the new primary archive what the old one has not: it takes all that it has
/// received for archived. Best effort, as writes go on there already.
pub fn hand_archiving_over(pair: &Pair, from: Node, to: Node) {
    let names = match not_archived(pair, from, to) {
        Ok(names) => names,
        Err(error) => {
            pair.say(&format!(
                "it cannot be seen what {from} has not archived ({error})"
            ));
            return;
        }
    };
    let statements: Vec<String> = names
        .iter()
        .map(|name| {
            format!(
                "COPY (SELECT WHERE false) TO '{MOUNT}/pgdata/pg_wal/archive_status/{name}.ready'"
            )
        })
        .collect();
    if statements.is_empty() {
        return;
    }
    let files = statements.len();
    let archives = "SELECT current_setting('archive_mode') <> 'off'";
    let told = match pair.value(to, archives) {
        Ok(yes) if yes == "t" => pair.server(to).rows(&statements.join("; "), MAX_SQL),
        _ => return,
    };
    pair.say(&match told {
        Ok(_) => format!("{to} archives {files} files that {from} had not archived yet"),
        Err(error) => format!("{from} has not archived {files} files, and {to} does not: {error}"),
    });
}

/// Lists the segments that a node has not archived and the other has too.
fn not_archived(pair: &Pair, from: Node, to: Node) -> io::Result<Vec<String>> {
    let ready = files::in_pgdata(&pair.layout, from, |pgdata| {
        let wal = pgdata.folder("pg_wal")?;
        let status = wal.map(|wal| wal.folder("archive_status")).transpose()?;
        status.flatten().map_or(Ok(Vec::new()), |status| {
            status.names(|name| {
                let name = name.strip_suffix(".ready")?;
                let segment = name.len() == 24 && name.chars().all(|c| c.is_ascii_hexdigit());
                segment.then(|| name.to_owned())
            })
        })
    })?;
    let mut names = ready.unwrap_or_default();
    let there = files::in_pgdata(&pair.layout, to, |pgdata| {
        let wal = pgdata.folder("pg_wal")?;
        names.retain(|name| wal.as_ref().and_then(|wal| wal.size_of(name)).is_some());
        Ok(names)
    })?;
    Ok(there.unwrap_or_default())
}

fn cell(row: &Row, index: usize) -> &str {
    row.get(index).and_then(Option::as_deref).unwrap_or("?")
}

fn archiving(from: Node, rows: &[Row]) -> Result<Vec<String>, Error> {
    let Some(row) = rows.first() else {
        return Ok(Vec::new());
    };
    let number = |index| cell(row, index).parse::<u64>().unwrap_or(0);
    let (waiting, seconds, fails) = (number(0), number(1), cell(row, 2) == "t");
    if waiting == 0 {
        return Ok(Vec::new());
    }
    let word = if fails { "fails" } else { "is behind" };
    let what =
        format!("archiving of {from} {word}: {waiting} files wait, the first for {seconds} s");
    if seconds > ARCHIVED_WITHIN_S {
        return Err(refused(
            Why::ArchiveStalled,
            format!(
                "{what}: mend archive_command (SELECT * FROM pg_stat_archiver), as a switchover would leave a gap in the archive"
            ),
        ));
    }
    Ok(vec![format!(
        "{what}: it is not waited for, and {} archives what {from} has not",
        from.other()
    )])
}

/// Refuses a node of which a process is stopped by a signal: it would neither
/// end nor go on.
fn nothing_is_frozen(pair: &Pair, node: Node) -> Result<(), Error> {
    let mut pids = pair.processes(node)?;
    pids.retain(|pid| pair.machine.process(*pid).is_some_and(|it| it.frozen));
    if pids.is_empty() {
        return Ok(());
    }
    Err(refused(
        Why::ProcessesFrozen,
        format!(
            "processes {pids:?} of {node} are frozen (kill -CONT lets them go on): it cannot be stopped cleanly"
        ),
    ))
}

/// Refuses a primary of which a backend runs a program (COPY … PROGRAM, or a
/// function): the stop would have to crash it. The archiver's does not matter.
fn no_program_is_run(pair: &Pair, node: Node) -> Result<(), Error> {
    let processes = processes_of(pair, node)?;
    let main = process_table::eldest(&processes);
    let server = main.map(|pid| processes[&pid].name.clone());
    for (pid, process) in &processes {
        // What has lost its parent is nobody's any more.
        let Some(backend) = processes.get(&process.parent) else {
            continue;
        };
        let own = |it: &Process| server.as_ref() == Some(&it.name);
        let of_main = Some(process.parent) == main;
        if of_main || own(process) || !own(backend) || backend.title.contains("archiver") {
            continue;
        }
        let inner = backend.inner_pid;
        // Terminating the backend would crash the server, of which the program
        // becomes a child.
        return Err(refused(
            Why::ProgramRuns,
            format!(
                "the backend {inner} of {node} runs a program, as by COPY … PROGRAM: wait until it has ended, or end the \
             program (kill {pid} on this host)"
            ),
        ));
    }
    Ok(())
}

fn processes_of(pair: &Pair, node: Node) -> Result<BTreeMap<u32, Process>, Error> {
    let pids = pair.processes(node)?.into_iter();
    let read = |pid| Some((pid, pair.machine.process(pid)?));
    Ok(pids.filter_map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: [&str; 3]) -> Vec<Row> {
        vec![cells.map(|cell| Some(cell.to_owned())).to_vec()]
    }

    #[test]
    fn archiving_is_named_while_it_is_fresh_and_refused_once_it_is_old() {
        assert_eq!(archiving(Node::A, &[]), Ok(Vec::new()), "no such view");
        assert_eq!(archiving(Node::A, &row(["0", "0", "t"])), Ok(Vec::new()));
        for (fails, word) in [("t", "fails"), ("f", "is behind")] {
            let met = archiving(Node::A, &row(["2", "3", fails])).expect("it is fresh");
            let [line] = &met[..] else {
                panic!("{met:?}");
            };
            assert!(line.contains(word) && line.contains("b archives what a has not"));
            let old = archiving(Node::A, &row(["2", "61", fails])).expect_err("it is old");
            assert!(old.to_string().contains(word), "{old}");
        }
    }
}
