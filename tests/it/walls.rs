//! A container that was taken over: whoever has code in it as PostgreSQL's user owns
//! his data, and nothing else. What he plants where root works reaches nothing
//! outside, hangs nothing, and is no way to a second primary.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::command::{Observer, other, told};
use crate::support::deployment::Deployment;
use crate::support::docker::{docker, try_docker};
use crate::support::{eventually, process};

/// Longest for a command that refuses something, on a machine that is very busy.
const REFUSED_WITHIN: Duration = Duration::from_secs(30);

/// Most that a command may hold in memory, in kB.
const HELD_AT_MOST: u64 = 64 << 10;

/// A server that answers everything with whatever its argument says.
const FALSE_SERVER: &str = r#"
import os, socket, struct, sys
path, kind = sys.argv[1:]
def message(tag, body):
    return tag + struct.pack('!i', len(body) + 4) + body
row = message(b'D', struct.pack('!hi', 1, 1 << 16) + b'x' * (1 << 16))
said = b'SFATAL\0VFATAL\0C42501\0M\x1b]0;owned\x07state=ok event=failover \x9b31m' + 'é\u202e'.encode() + b'y' * 200000 + b'\0\0'
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
os.chmod(path, 0o777)
listener.listen(64)
print('listening', flush=True)
while True:
    client, _ = listener.accept()
    try:
        client.recv(65536)
        if kind == 'words':
            client.sendall(message(b'E', said))
            client.close()
            continue
        client.sendall(message(b'R', struct.pack('!i', 0)) + message(b'Z', b'I'))
        client.recv(65536)
        client.sendall(message(b'T', struct.pack('!h', 1) + b'x\0' + struct.pack('!ihihih', 0, 0, 25, -1, -1, 0)))
        while True:
            client.sendall(row)
    except OSError:
        pass
"#;

/// A file system whose server does not answer any more, with somebody in it.
const DEAD_MOUNT: &str = r#"
import ctypes, os, signal, struct, sys
where = sys.argv[1]
fuse = os.open('/dev/fuse', os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = f'fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other'
if libc.mount(b'dead', where.encode(), b'fuse', 0, options.encode()) != 0:
    raise OSError(ctypes.get_errno(), 'mount')
if os.fork() == 0:
    libc.prctl(1, 9)
    os.chdir(where)
    os.write(1, b'inside\n')
    signal.pause()
while True:
    request = os.read(fuse, 1 << 17)
    length, opcode, unique, node = struct.unpack_from('=IIQQ', request)
    if opcode == 26:
        body = struct.pack('=IIIIHHIIHHI28x', 7, 31, 1 << 16, 0, 12, 10, 1 << 16, 1, 0, 0, 0)
    elif opcode == 3 and not os.path.exists(sys.argv[2]):
        body = struct.pack('=QII', 0, 0, 0) + struct.pack('=QQQQQQIIIIIIIII4x', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 512)[:88]
    elif opcode == 34 and not os.path.exists(sys.argv[2]):
        os.write(fuse, struct.pack('=IiQ', 16, -38, unique))
        continue
    else:
        continue
    os.write(fuse, struct.pack('=IiQ', 16 + len(body), 0, unique) + body)
"#;

/// What nobody in a container may reach.
struct Outside {
    folder: TempDir,
}

impl Outside {
    fn new() -> Outside {
        let folder = tempfile::tempdir().expect("a folder");
        let outside = Outside { folder };
        fs::write(outside.file(), "secret").expect("writes");
        fs::set_permissions(outside.file(), fs::Permissions::from_mode(0o600)).expect("it is ours");
        outside
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("file")
    }

    fn is_untouched(&self, after: &str) {
        let about = fs::metadata(self.file()).expect("it is there");
        assert_eq!(
            (about.uid(), about.gid(), about.mode() & 0o7777),
            (0, 0, 0o600),
            "{after}"
        );
        assert_eq!(fs::read(self.file()).expect("reads"), b"secret", "{after}");
        let names = fs::read_dir(self.folder.path()).expect("reads").count();
        assert_eq!(names, 1, "{after}: something was made");
    }
}

#[test]
fn who_owns_the_data_owns_nothing_else() {
    let pair = Deployment::new("walls");
    assert!(pair.site(&[]).changed() > 0);
    pair.sql("a", "CREATE TABLE kept AS SELECT 1 AS row");
    let outside = Outside::new();
    let primary = fence_is_a_file_whatever_had_its_name(&pair, &outside, "a");
    let primary = fence_outlives_who_replaces_it(&pair, &outside, primary);
    control_file_that_is_none_is_refused_and_hangs_nobody(&pair, primary);
    let primary = what_lies_beside_the_data_stops_nothing(&pair, &outside, primary);
    folder_in_the_datas_place_is_refused(&pair, primary);
    socket_of_the_other_node_is_not_spoken_to(&pair, primary);
    answers_without_end_and_words_of_somebody_elses_stay_small(&pair, primary);
    somebody_on_a_dead_mount_hangs_nothing(&pair, primary);
    let primary = names_in_the_log_are_no_facts(&pair, &outside, primary);
    playbooks_hold_too(&pair, &outside, primary);
}

/// Does something as PostgreSQL's user in a node's container.
fn plant(pair: &Deployment, node: &str, script: &str) {
    let script = format!("P=/var/lib/postgresql/data/pgdata; {script}");
    let container = pair.container(node);
    docker(&[
        "exec", "--user", "postgres", &container, "sh", "-ec", &script,
    ]);
}

fn is_fenced(pair: &Deployment, node: &str) {
    let signal = pair.data(node).join("standby.signal");
    let about = fs::symlink_metadata(&signal).expect("it is there");
    let owner = fs::metadata(pair.data(node)).expect("it is there").uid();
    assert!(about.is_file() && about.uid() == owner, "{about:?}");
}

fn fence_is_a_file_whatever_had_its_name<'a>(
    pair: &Deployment,
    outside: &Outside,
    mut primary: &'a str,
) -> &'a str {
    let (file, new) = (outside.file(), outside.folder.path().join("new"));
    for kind in [
        "ln -s /nonexistent/x $P/standby.signal".to_owned(),
        format!("ln -s {} $P/standby.signal", file.display()),
        format!("ln -s {} $P/standby.signal", new.display()),
        "mkfifo $P/standby.signal".to_owned(),
        "mkdir $P/standby.signal; touch $P/standby.signal/file".to_owned(),
        "ln -s PG_VERSION $P/standby.signal".to_owned(),
    ] {
        plant(pair, primary, &kind);
        let observer = Observer::start(pair);
        pair.does(&["switchover"]);
        observer.end();
        is_fenced(pair, primary);
        outside.is_untouched(&kind);
        primary = other(primary);
        pair.has_primary(primary);
    }
    primary
}

/// He works on until his container is dead.
fn fence_outlives_who_replaces_it<'a>(
    pair: &Deployment,
    outside: &Outside,
    primary: &'a str,
) -> &'a str {
    let container = pair.container(primary);
    let script = format!(
        "cd /var/lib/postgresql/data/pgdata; while :; do ln -sfn {} x; mv -f x standby.signal; done",
        outside.file().display()
    );
    docker(&[
        "exec", "--detach", "--user", "postgres", &container, "sh", "-c", &script,
    ]);
    let observer = Observer::start(pair);
    let done = pair.runs(&["switchover"]);
    observer.end();
    outside.is_untouched("somebody who replaces the fence");
    let now = match done.code() {
        0 => other(primary),
        _ => {
            told(&done, 1, &["failed: "]);
            primary
        }
    };
    eventually(REFUSED_WITHIN, "he is gone", || {
        let there = try_docker(&["top", &container], b"").stdout;
        (!there.contains("while :")).then_some(())
    });
    pair.does(&["rejoin"]);
    is_fenced(pair, other(now));
    pair.has_primary(now);
    now
}

fn control_file_that_is_none_is_refused_and_hangs_nobody(pair: &Deployment, primary: &str) {
    let standby = other(primary);
    for (node, kind) in [
        (standby, "mkfifo $P/global/pg_control"),
        (standby, "ln -s /dev/zero $P/global/pg_control"),
        (standby, "truncate -s 3G $P/global/pg_control"),
        (standby, "mkdir $P/global/pg_control"),
        (primary, "mkfifo $P/global/pg_control"),
    ] {
        let mut guard = pair.begins(&["guard"]);
        plant(
            pair,
            node,
            &format!("mv $P/global/pg_control $P/kept; {kind}"),
        );
        let began = Instant::now();
        pair.is_told(&["switchover"], 3, &["pg_control"]);
        assert!(began.elapsed() < REFUSED_WITHIN, "{:?}", began.elapsed());
        guard.signal("TERM");
        guard.may_end(REFUSED_WITHIN);
        assert_eq!(guard.ends().code(), 0, "the guard ends when it is told to");
        // A server that waits for somebody at the pipe's other end holds its own locks.
        plant(
            pair,
            node,
            "[ ! -p $P/global/pg_control ] || timeout 1 sh -c ': >$1' sh $P/global/pg_control || true; \
             rm -rf $P/global/pg_control; mv $P/kept $P/global/pg_control",
        );
    }
    pair.has_primary(primary);
}

fn what_lies_beside_the_data_stops_nothing<'a>(
    pair: &Deployment,
    outside: &Outside,
    mut primary: &'a str,
) -> &'a str {
    let file = outside.file();
    for kind in [
        "touch $D/pgdata.old; mkfifo $D/pgdata.new".to_owned(),
        format!("ln -s {0} $D/pgdata.old; ln -s {0} $D/pgdata.rewind", file.display()),
        "mkdir $D/pgdata.old; cd $D/pgdata.old; i=0; while [ $i -lt 1500 ]; do mkdir d; cd d; i=$((i+1)); done".to_owned(),
    ] {
        for node in ["a", "b"] {
            plant(pair, node, &format!("D=/var/lib/postgresql/data; {kind}"));
        }
        pair.does(&["switchover"]);
        primary = other(primary);
        pair.has_primary(primary);
        outside.is_untouched(&kind);
        for node in ["a", "b"] {
            let beside = pair.data(node).with_file_name("pgdata.old");
            assert!(fs::symlink_metadata(beside).is_err(), "{kind}");
        }
    }
    primary
}

/// The server works on where it was moved to.
fn folder_in_the_datas_place_is_refused(pair: &Deployment, primary: &str) {
    let elsewhere = pair.data(other(primary));
    for kind in [
        format!("ln -s {} pgdata", elsewhere.display()),
        "ln -s moved pgdata".to_owned(),
        "mkfifo pgdata".to_owned(),
    ] {
        plant(pair, primary, &format!("cd $P/..; mv pgdata moved; {kind}"));
        let observer = Observer::start(pair);
        pair.is_told(&["switchover"], 3, &["pgdata"]);
        pair.is_told(&["failover"], 3, &["pgdata"]);
        observer.end();
        plant(pair, primary, "cd $P/..; rm pgdata; mv moved pgdata");
    }
    // A copy has everything but the server.
    plant(
        pair,
        primary,
        "cd $P/..; mv pgdata moved; cp -a moved pgdata",
    );
    let observer = Observer::start(pair);
    let done = pair.runs(&["switchover"]);
    observer.end();
    assert_ne!(done.code(), 0, "{done:?}");
    plant(pair, primary, "cd $P/..; rm -rf pgdata; mv moved pgdata");
    pair.has_primary(primary);
}

fn socket_of_the_other_node_is_not_spoken_to(pair: &Deployment, primary: &str) {
    let socket = |node: &str| pair.root.join(node).join("run/.s.PGSQL.5432");
    let node = other(primary);
    plant(
        pair,
        node,
        "mv /var/run/postgresql/.s.PGSQL.5432 /var/run/postgresql/kept",
    );
    std::os::unix::fs::symlink(socket(primary), socket(node)).expect("links");
    pair.is_told(&["switchover"], 3, &["does not answer", "is no socket"]);
    fs::remove_file(socket(node)).expect("it is ours");
    plant(
        pair,
        node,
        "mv /var/run/postgresql/kept /var/run/postgresql/.s.PGSQL.5432",
    );
    pair.has_primary(primary);
}

fn answers_without_end_and_words_of_somebody_elses_stay_small(pair: &Deployment, primary: &str) {
    let socket = pair.root.join(primary).join("run/.s.PGSQL.5432");
    plant(
        pair,
        primary,
        "mv /var/run/postgresql/.s.PGSQL.5432 /var/run/postgresql/kept",
    );
    for kind in ["rows", "words"] {
        let server = started(
            Command::new("python3")
                .args(["-c", FALSE_SERVER])
                .arg(&socket)
                .arg(kind)
                .current_dir(pair.data(primary)),
        );
        let began = Instant::now();
        let (done, held) = held_by(pair.pgpair(&["switchover"]));
        eprintln!("{kind}: {:?}, {held} kB {done:?}", began.elapsed());
        assert!(began.elapsed() < REFUSED_WITHIN, "{:?}", began.elapsed());
        assert!(held < HELD_AT_MOST, "it held {held} kB");
        told(&done, 3, &["refused: "]);
        let line = done.stderr.trim_end();
        assert!(
            !line.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']),
            "{line:?}"
        );
        assert!(line.len() < 1500, "{} bytes", line.len());
        drop(server);
        fs::remove_file(&socket).expect("it is there");
    }
    plant(
        pair,
        primary,
        "mv /var/run/postgresql/kept /var/run/postgresql/.s.PGSQL.5432",
    );
    pair.has_primary(primary);
}

/// Runs a command to its end; returns the most that it held in memory, in kB.
fn held_by(mut command: Command) -> (process::Outcome, u64) {
    let mut held = 0;
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let status = format!("/proc/{}/status", child.id());
    while child.try_wait().expect("it is ours").is_none() {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
        held = held.max(peak.unwrap_or(0));
        thread::sleep(Duration::from_millis(1));
    }
    let done = child.wait_with_output().expect("it is ours");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let outcome = process::Outcome {
        status: done.status,
        stdout: text(&done.stdout),
        stderr: text(&done.stderr),
    };
    (outcome, held)
}

/// A program that ends with the test, however that ends.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        process::end(&mut self.0);
    }
}

/// A mount that goes with the test likewise.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Starts a program and waits until it has said something.
fn started(command: &mut Command) -> Started {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut said = [0; 1];
    let stdout = child.stdout.as_mut().expect("piped");
    std::io::Read::read_exact(stdout, &mut said).expect("it works");
    Started(child)
}

fn somebody_on_a_dead_mount_hangs_nothing(pair: &Deployment, primary: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let (mount, dead) = (folder.path().join("mount"), folder.path().join("dead"));
    fs::create_dir(&mount).expect("makes");
    let _mounted = Mounted(mount.clone());
    let server = started(
        Command::new("python3")
            .args(["-c", DEAD_MOUNT])
            .args([&mount, &dead]),
    );
    fs::write(&dead, "").expect("writes");
    let began = Instant::now();
    let observer = Observer::start(pair);
    pair.does(&["switchover"]);
    observer.end();
    pair.does(&["switchover", primary]);
    eprintln!("two switchovers beside a dead mount: {:?}", began.elapsed());
    drop(server);
    pair.has_primary(primary);
}

fn names_in_the_log_are_no_facts<'a>(
    pair: &Deployment,
    outside: &Outside,
    primary: &'a str,
) -> &'a str {
    plant(
        pair,
        primary,
        "cd $P/pg_wal; touch FFFFFFFF.history; printf '1\\t0/1000000\\tmade up\\n' >000000FE.history; \
         truncate -s 16M 000000FE0000000000000003; mkfifo 000000FD.history; ln -s /dev/zero 000000FC.history",
    );
    pair.sql(primary, "INSERT INTO kept VALUES (2)");
    docker(&["kill", &pair.container(primary)]);
    let observer = Observer::start(pair);
    let said = pair.does(&["failover"]);
    observer.end();
    assert!(!said.contains("unknown"), "{said}");
    let now = other(primary);
    assert_eq!(pair.sql(now, "SELECT count(*) FROM kept"), "2");
    outside.is_untouched("a failover");
    pair.has_primary(now);
    now
}

fn playbooks_hold_too(pair: &Deployment, outside: &Outside, primary: &str) {
    let standby = other(primary);
    for kind in [
        "mkfifo $P/PG_VERSION".to_owned(),
        "truncate -s 5G $P/PG_VERSION".to_owned(),
        format!("ln -s {} $P/PG_VERSION", outside.file().display()),
    ] {
        plant(pair, standby, &format!("mv $P/PG_VERSION $P/kept; {kind}"));
        let began = Instant::now();
        let arguments = ["--check"];
        let _ = pair.site(&arguments);
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "{:?}",
            began.elapsed()
        );
        plant(
            pair,
            standby,
            "rm -f $P/PG_VERSION; mv $P/kept $P/PG_VERSION",
        );
        outside.is_untouched(&kind);
    }
    pair.site(&[]).changed_nothing();
    // Python would not come to its end.
    plant(
        pair,
        standby,
        "mkdir $P/../deep; cd $P/../deep; i=0; while [ $i -lt 1500 ]; do mkdir d; cd d; i=$((i+1)); done",
    );
    assert!(pair.teardown(&["-e", "confirm=yes"]).changed() > 0);
    assert!(!pair.root.exists());
}
