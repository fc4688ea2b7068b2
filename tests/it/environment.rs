//! What whoever calls `make` or a playbook has in the environment: it decides
//! nothing, or it is refused by its name; and how a failure is told.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::PASSWORD;
use crate::support::deployment::{self, ansible_playbook, checkout};
use crate::support::play::Play;
use crate::support::process::{self, Outcome};

/// Longest for what only refuses, on a machine that is very busy.
const AT_ONCE: Duration = Duration::from_secs(30);

/// Variables that change what is meant, and that nobody means for this.
const FOREIGN: [(&str, &str); 20] = [
    ("PGHOSTADDR", "127.0.0.9"),
    ("PGPORT", "6000"),
    ("PGSERVICE", "nowhere"),
    ("PGOPTIONS", "-c search_path=x"),
    ("PSQLRC", "/tmp/evil"),
    ("CDPATH", "/tmp"),
    ("GREP_OPTIONS", "-v"),
    ("PYTHONPATH", "/tmp/evil"),
    ("PYTHONHOME", "/tmp/evil"),
    ("PYTHONOPTIMIZE", "2"),
    ("PIP_TARGET", "/tmp/evil"),
    ("CARGO_TARGET_DIR", "/tmp/evil"),
    ("ANSIBLE_HASH_BEHAVIOUR", "merge"),
    ("ANSIBLE_KEEP_REMOTE_FILES", "1"),
    ("ANSIBLE_SKIP_TAGS", "postgres_pair"),
    ("BUILDX_BUILDER", "elsewhere"),
    ("DOCKER_DEFAULT_PLATFORM", "linux/s390x"),
    ("LANGUAGE", "de"),
    ("SHELLOPTS", "noexec"),
    ("BASH_FUNC_docker%%", "() { echo evil; }"),
];

/// Runs a script as a line of the Makefile is run, with these variables.
fn as_a_recipe(variables: &[(&str, &str)], script: &str) -> Outcome {
    // Whatever the mask of who runs the tests is.
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "umask 0; exec ansible/environment.sh -c \"$1\"",
            "sh",
            script,
        ])
        .current_dir(checkout())
        .envs(variables.iter().copied());
    process::run(&mut command, b"", AT_ONCE)
}

#[test]
fn nothing_that_was_exported_reaches_what_make_runs() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let read_first = folder.path().join("read_first");
    fs::write(&read_first, "echo evil").expect("writes");
    let read_first = read_first.to_str().expect("a plain path");
    let meant = [
        ("PGPAIR_HOST", "admin@203.0.113.10"),
        ("AWS_PROFILE", "mine"),
        ("http_proxy", "http://127.0.0.1:1"),
        ("no_proxy", "example.org"),
        ("ANSIBLE_SSH_EXTRA_ARGS", "-4"),
        ("LC_ALL", "C"),
        ("BASH_ENV", read_first),
        ("ENV", read_first),
    ];
    let done = as_a_recipe(
        &[&FOREIGN[..], &meant[..]].concat(),
        "umask; env; type -t docker",
    );
    let seen: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(seen[0], "0022", "{done:?}");
    for (name, _) in FOREIGN.iter().chain(&[("BASH_ENV", ""), ("ENV", "")]) {
        let found = seen
            .iter()
            .find(|line| line.starts_with(&format!("{name}=")));
        // bash has its own.
        assert!(found.is_none() || *name == "SHELLOPTS", "{found:?}");
    }
    assert!(
        !done.stdout.contains("evil") && !done.stdout.contains("function"),
        "{done:?}"
    );
    for line in [
        "PGPAIR_HOST=admin@203.0.113.10",
        "AWS_PROFILE=mine",
        "http_proxy=http://127.0.0.1:1",
        "no_proxy=example.org,localhost,127.0.0.1,::1",
        "ANSIBLE_SSH_EXTRA_ARGS=-4",
        "LC_ALL=C.UTF-8",
    ] {
        assert!(seen.contains(&line), "{line}: {done:?}");
    }
}

/// Runs a goal of the Makefile, which must refuse at once with one line.
fn make_refuses(folder: &Path, variables: &[(&str, &str)], goal: &str, words: &[&str]) {
    let began = Instant::now();
    let mut make = Command::new("make");
    make.args(["--no-print-directory", goal, "PREFIX=nobody"])
        .current_dir(folder)
        .envs(variables.iter().copied());
    // A make that runs the tests tells its children of itself.
    let make = make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    let done = process::run(make, b"", AT_ONCE);
    let said: Vec<&str> = done
        .stderr
        .lines()
        .filter(|line| !line.starts_with("make: "))
        .collect();
    assert!(
        done.code() != 0 && said.len() == 1,
        "{goal} {variables:?}: {done:?}"
    );
    for word in words {
        assert!(said[0].contains(word), "{word:?} is not in {said:?}");
    }
    assert!(began.elapsed() < AT_ONCE);
}

#[test]
fn checkout_whose_path_has_a_blank_is_refused_at_once() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for name in ["a b", "a'b", "a$b", "a:b", "a;b"] {
        let copy = folder.path().join(name);
        fs::create_dir_all(copy.join("ansible")).expect("it is new");
        for file in ["Makefile", "ansible/environment.sh", "ansible/setup.sh"] {
            fs::copy(checkout().join(file), copy.join(file)).expect("a copy");
        }
        make_refuses(&copy, &[], "up", &[name, "a blank or a special character"]);
    }
}

#[test]
fn temporary_folder_that_is_none_is_refused_by_its_name() {
    let words = ["TMPDIR is /nonexistent", "unset it"];
    make_refuses(checkout(), &[("TMPDIR", "/nonexistent")], "up", &words);
}

/// Each is refused by `make` before anything is built, and by the playbooks.
#[test]
fn other_engine_than_the_hosts_own_is_refused_by_the_name_of_what_asks_for_it() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let config = r#"{"auths": {}, "currentContext": "elsewhere"}"#;
    fs::write(folder.path().join("config.json"), config).expect("writes");
    let config = folder.path().to_str().expect("a plain path");
    let asked = [
        (
            "DOCKER_HOST",
            "tcp://127.0.0.1:1",
            "DOCKER_HOST is tcp://127.0.0.1:1",
        ),
        ("DOCKER_CONTEXT", "elsewhere", "DOCKER_CONTEXT is elsewhere"),
        ("DOCKER_TLS_VERIFY", "1", "DOCKER_TLS_VERIFY is set"),
        ("DOCKER_CONFIG", config, "context is elsewhere"),
    ];
    for (name, value, words) in asked {
        for goal in ["up", "down", "status"] {
            make_refuses(
                checkout(),
                &[(name, value)],
                goal,
                &[words, "with no other"],
            );
        }
    }
    let pair = deployment::Deployment::new("foreign");
    for (name, value, words) in &asked[..2] {
        for playbook in ["site.yml", "teardown.yml"] {
            let play = pair.play_in(&[(name, value)], playbook, &["-e", "confirm=yes"]);
            play.refused(&[words, "Nothing was touched"]);
        }
    }
    assert!(!pair.root.exists());
    let own = as_a_recipe(
        &[("DOCKER_HOST", "unix:///var/run/docker.sock")],
        "ansible/roles/docker_host/files/client.sh",
    );
    assert_eq!((own.stdout.as_str(), own.code()), ("", 0), "{own:?}");
}

#[test]
fn failing_command_is_told_by_its_own_last_line() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (inventory, playbook) = (
        folder.path().join("hosts.yml"),
        folder.path().join("play.yml"),
    );
    fs::write(
        &inventory,
        "all: {hosts: {localhost: {ansible_connection: local, ansible_python_interpreter: \"{{ ansible_playbook_python }}\"}}}\n",
    )
    .expect("writes");
    for (task, words) in [
        (
            "command: {argv: [sh, -c, 'echo first >&2; printf \"the \\\\033[31mreason\\\\n\\\\n\" >&2; exit 3']}",
            &["\"Try it\" failed (exit code 3): the [31mreason"][..],
        ),
        (
            "command: {argv: [sh, -c, 'echo of stdout; exit 1']}",
            &["(exit code 1): of stdout"],
        ),
        (
            "command: {argv: [/nonexistent/program]}",
            &["/nonexistent/program"],
        ),
        (
            "shell: {cmd: exit 7}",
            &["\"Try it\" failed (exit code 7): "],
        ),
        (
            "command: {argv: [sh, -c, 'echo \"{{ item }}\"; exit 1']}\n      loop: [in a loop]",
            &["in a loop"],
        ),
    ] {
        let text = format!(
            "- hosts: all\n  gather_facts: false\n  tasks:\n    - name: Try it\n      ansible.builtin.{task}\n"
        );
        fs::write(&playbook, text).expect("writes");
        let mut command = Command::new(ansible_playbook());
        command
            .arg("-i")
            .args([&inventory, &playbook])
            .current_dir(checkout())
            .env("ANSIBLE_CONFIG", "ansible/ansible.cfg");
        Play::run(&mut command, "localhost").refused(words);
    }
}

/// A server that is not PostgreSQL and asks for a password in plain text.
fn asks_for_a_password(socket: &Path) -> thread::JoinHandle<Vec<u8>> {
    let listener = UnixListener::bind(socket).expect("it is new");
    thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("somebody comes");
        let mut heard = vec![0; 4096];
        let _ = client.read(&mut heard).expect("a start-up message");
        client
            .write_all(b"R\0\0\0\x08\0\0\0\x03")
            .expect("it listens");
        heard.clear();
        client
            .set_read_timeout(Some(AT_ONCE))
            .expect("it can be set");
        let _ = client.read_to_end(&mut heard);
        heard
    })
}

#[test]
fn server_that_asks_for_a_password_gets_none_of_the_callers() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let home = folder.path();
    fs::create_dir_all(home.join("a/run")).expect("it is new");
    for name in [".pgpass", "other"] {
        fs::write(home.join(name), format!("*:*:*:*:{PASSWORD}\n")).expect("writes");
        let mut chmod = Command::new("chmod");
        process::run(chmod.arg("600").arg(home.join(name)), b"", AT_ONCE);
    }
    let server = asks_for_a_password(&home.join("a/run/.s.PGSQL.5432"));
    let script = "import sys; sys.path.insert(0, 'ansible/plugins/module_utils'); import pair\n\
                  try:\n    pair.connect(sys.argv[1], 'a')\n\
                  except pair.Failure as failure:\n    print(failure)";
    let mut python = Command::new(ansible_playbook().with_file_name("python"));
    python
        .args(["-c", script])
        .arg(home)
        .current_dir(checkout())
        .env("HOME", home)
        .env("PGPASSFILE", home.join("other"))
        .env("PGPASSWORD", PASSWORD)
        .env("PGHOSTADDR", "127.0.0.9");
    let done = process::run(&mut python, b"", AT_ONCE);
    assert!(
        done.stdout.contains("PostgreSQL of node a cannot be asked"),
        "{done:?}"
    );
    let heard = server.join().expect("it ends");
    assert!(
        !String::from_utf8_lossy(&heard).contains(PASSWORD),
        "{heard:?}"
    );
}

/// Each package that is asked for is in the lock with its version, and every one
/// with a digest.
#[test]
fn python_packages_are_those_of_the_lock() {
    let folder = checkout().join("ansible");
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("it is there");
    for kind in ["", "-dev", "-test"] {
        let lock = read(&format!("requirements{kind}.lock"));
        for asked in [
            read("requirements.txt"),
            read(&format!("requirements{kind}.txt")),
        ] {
            for line in asked.lines().filter(|line| line.contains("==")) {
                assert!(
                    lock.lines().any(|it| it.starts_with(&format!("{line} "))),
                    "{line}{kind}"
                );
            }
        }
        for package in lock.split("\n").filter(|line| line.contains("==")) {
            let (_, after) = lock.split_once(package).expect("it is in it");
            let next = after.trim_start().lines().next().unwrap_or("");
            assert!(next.trim_start().starts_with("--hash=sha256:"), "{package}");
        }
    }
    let setup = read("setup.sh");
    assert!(
        setup.contains("--require-hashes --only-binary :all:"),
        "{setup}"
    );
}

/// Every play of ours on a Docker host begins with an environment of its own.
#[test]
fn every_play_has_an_environment_of_its_own() {
    let folder = checkout().join("ansible/playbooks");
    for file in fs::read_dir(folder).expect("a folder").flatten() {
        let path = file.path();
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let plays = text.matches("\n  hosts: ").count();
        let own = text
            .matches("\n  environment: \"{{ pair_environment }}\"\n")
            .count();
        // It talks to AWS, by the environment of who calls it.
        let expected = if path.ends_with("provision.yml") {
            0
        } else {
            plays
        };
        assert_eq!(own, expected, "{}", path.display());
    }
}
