//! The playbooks, run as `make up` and `make down` run them, against the Docker
//! engine that is here: a pair comes up, lives through what may happen to it,
//! and goes; what could lose data is refused with one line.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::deployment::{self, Deployment};
use crate::support::docker::{self, Container, docker};
use crate::support::http::Answer;
use crate::support::{eventually, measured, ms, process};

/// In which `/ready` must say yes again once PostgreSQL takes connections.
const RECOVERY: Duration = Duration::from_secs(2);

/// In which every answer must come: the default deadline, and some.
const ANSWER_AT_MOST: Duration = Duration::from_secs(1);

const HEALTH_AT_MOST: Duration = ms(50);

/// What may be said of a primary that was stopped. Where the host's name
/// servers are silent, its name is unknown only after the deadline.
const GONE: [&str; 5] = [
    "refused",
    "shutting_down",
    "unresolved",
    "timed_out",
    "overdue",
];

const FROZEN: [&str; 2] = ["timed_out", "overdue"];

const MEBIBYTE: u64 = 1024 * 1024;

/// One pair through all of it, as each step takes a playbook's time.
#[test]
fn pair_comes_up_from_nothing_stays_whole_and_goes_without_a_trace() {
    let pair = Deployment::new("life");
    assert!(pair.site(&["--check"]).changed() > 0, "it foresees nothing");
    nothing_was_made(&pair);
    it_comes_up_from_nothing(&pair);
    inspect_says_what_is_there(&pair);
    containers_hold_no_more_than_they_need(&pair);
    stopped_primary_turns_the_next_answer_503(&pair);
    paused_primary_delays_no_answer(&pair);
    probe_that_dies_is_started_again(&pair);
    restarts_in_every_order_keep_the_primary(&pair, "a");
    second_run_changes_nothing_whatever_its_caller_exports(&pair);
    roles_log_in_from_where_they_have_to_and_can_fill_nothing(&pair);
    neighbour_on_the_link_reaches_no_container(&pair);
    what_contradicts_the_containers_is_refused(&pair);
    certificates_are_renewed_before_their_end_without_a_restart(&pair);
    passwords_are_rotated_by_another_run_without_a_restart(&pair);
    pair.site(&[]).changed_nothing();
    promoted_standby_is_found_on_the_disks(&pair);
    restarts_in_every_order_keep_the_primary(&pair, "b");
    pair.site(&[]).changed_nothing();
    damage_is_refused_and_nothing_is_touched(&pair);
    half_made_base_backup_is_made_again(&pair);
    teardown_leaves_nothing(&pair);
}

fn it_comes_up_from_nothing(pair: &Deployment) {
    let play = pair.site(&[]);
    assert!(play.changed() > 0);
    pair.has_primary("a");
    ready_again(pair);

    let sql = "SELECT state, sync_state, ssl FROM pg_stat_replication JOIN pg_stat_ssl USING (pid)";
    let replication = pair.sql("a", sql);
    let cells: Vec<&str> = replication.split('|').collect();
    let [state, sync_state, over_tls] = cells[..] else {
        panic!("not one standby: {replication:?}");
    };
    assert_eq!((state, over_tls), ("streaming", "t"));

    let (primary, standby) = (pair.container("a"), pair.container("b"));
    let port = pair.port;
    // In whichever lines it was broken.
    let said: Vec<&str> = play.stdout.split_whitespace().collect();
    let said = said.join(" ");
    for words in [
        format!("primary: {primary}"),
        format!("standby: {standby}, streaming ({sync_state}), "),
        format!("http://localhost:{port}/ready: 200 "),
        // There is no systemd here.
        "guard: not started".to_owned(),
        format!("guard --prefix={} --root=", pair.prefix),
    ] {
        assert!(said.contains(&words), "{words:?}: {}", play.stdout);
    }

    for node in ["a", "b"] {
        let checksums = "SELECT data_page_checksum_version FROM pg_control_init()";
        assert_eq!(pair.sql(node, checksums), "1", "checksums of {node}");
    }
    pair.sql("a", "CREATE TABLE rows (made_by text)");
    pair.sql("a", "INSERT INTO rows VALUES ('a')");
}

fn inspect_says_what_is_there(pair: &Deployment) {
    let there = pair.ends(&["inspect", "--sizes"], 0);
    assert_eq!(there["primary"], "a", "{there}");
    for key in ["refusal", "lock", "unfinished", "promise"] {
        assert!(there[key].is_null(), "{key}: {there}");
    }
    assert_eq!(there["unreadable"], json!([]), "{there}");
    assert_eq!(there["guard"]["state"], "absent", "{there}");
    let application = json!({ "database": "app", "role": "app" });
    assert_eq!(there["application"], application, "{there}");
    let nodes = &there["nodes"];
    for (node, role, fenced, streams) in [
        ("a", "primary", false, "no"),
        ("b", "standby", true, "streaming"),
    ] {
        let about = &nodes[node];
        assert_eq!(about["fenced"], fenced, "{about}");
        assert_eq!(about["on_disk"], role, "{about}");
        assert_eq!(about["container"]["state"], "running", "{about}");
        assert_eq!(about["server"]["is"], role, "{about}");
        assert_eq!(about["streams"], streams, "{about}");
        assert_eq!(about["timeline"], 1, "{about}");
        assert_eq!(about["system"], nodes["a"]["system"], "{about}");
        assert!(about["used_bytes"].as_u64() > Some(1 << 20), "{about}");
    }
    assert_eq!(
        nodes["a"]["server"]["slots"],
        json!([nodes["b"]["slot"]]),
        "{there}"
    );
    let table = pair.does(&["inspect"]);
    assert!(table.contains("primary on disk: a\nNODE  DISK "), "{table}");
}

fn containers_hold_no_more_than_they_need(pair: &Deployment) {
    for (node, memory, pids) in [("a", 256, 256), ("b", 256, 256), ("probe", 128, 128)] {
        let about = pair.inspect(node);
        let host = &about["HostConfig"];
        assert_eq!(host["RestartPolicy"]["Name"], "unless-stopped", "{node}");
        assert_eq!(host["CapDrop"], Value::from(["ALL"].as_slice()), "{node}");
        assert_eq!(host["CapAdd"], Value::Null, "{node}");
        assert_eq!(host["Privileged"], false, "{node}");
        let options = host["SecurityOpt"].to_string();
        assert!(options.contains("no-new-privileges"), "{node}: {options}");
        assert_eq!(host["Memory"], memory * MEBIBYTE, "{node}");
        assert_eq!(host["PidsLimit"], pids, "{node}");
        let limits = host["Ulimits"].as_array().expect("a list");
        let core = limits.iter().find(|limit| limit["Name"] == "core");
        assert_eq!(core.expect("a limit")["Hard"], 0, "{node}");
    }
    who_has_postgres_id_elsewhere_changes_nothing(pair);
    for node in ["a", "b"] {
        let published = pair.inspect(node)["NetworkSettings"]["Ports"].to_string();
        assert!(!published.contains("HostPort"), "{node}: {published}");
    }
    let probe = pair.inspect("probe");
    assert_eq!(probe["Config"]["User"], "65532:65532");
    assert_eq!(probe["HostConfig"]["ReadonlyRootfs"], true);
    let image = probe["Image"].as_str().expect("an image");
    let bytes = docker(&["image", "inspect", "--format", "{{.Size}}", image]);
    let bytes: u64 = bytes.parse().expect("a number");
    assert!(bytes < 3_300_000, "the image has {bytes} bytes");
    no_secret_is_to_be_seen(pair);
}

/// What a node is told is root's; keys are read by its group.
fn who_has_postgres_id_elsewhere_changes_nothing(pair: &Deployment) {
    for (file, uid, gid, mode) in [
        ("", 0, 999, 0o750),
        ("postgresql.conf", 0, 999, 0o640),
        ("pg_hba.conf", 0, 999, 0o640),
        ("server.key", 0, 999, 0o640),
        // libpq wants it to be its reader's own.
        ("pgpass", 999, 999, 0o600),
    ] {
        let about = fs::metadata(pair.root.join("a/conf").join(file)).expect("it is there");
        let found = (about.uid(), about.gid(), about.permissions().mode() & 0o777);
        assert_eq!(found, (uid, gid, mode), "{file}");
    }
}

fn no_secret_is_to_be_seen(pair: &Deployment) {
    let secrets = pair.secrets();
    assert_eq!(secrets.len(), 3, "replicator, pgpair and app");
    for node in ["a", "b", "probe"] {
        let seen = pair.inspect(node).to_string() + &pair.logs(node);
        let told = secrets.iter().any(|secret| seen.contains(secret));
        assert!(!told, "docker tells a password of {node}");
    }
    let folder = pair.root.join("secrets");
    let files = fs::read_dir(&folder).expect("a folder");
    let files = files.map(|file| file.expect("readable").path());
    for (path, mode) in files
        .map(|file| (file, 0o600))
        .chain([(folder.clone(), 0o700)])
    {
        let about = fs::metadata(&path).expect("it is there");
        let found = (about.uid(), about.permissions().mode() & 0o777);
        assert_eq!(found, (0, mode), "{}", path.display());
    }
}

fn stopped_primary_turns_the_next_answer_503(pair: &Deployment) {
    pair.each("stop", &["a"]);
    is_not_ready(&pair.get("/ready"), &GONE);
    pair.each("start", &["a"]);
    pair.accepts("a");
    ready_again(pair);
}

fn paused_primary_delays_no_answer(pair: &Deployment) {
    pair.each("pause", &["a"]);
    for _ in 0..10 {
        is_not_ready(&pair.get("/ready"), &FROZEN);
    }
    let health = measured(|| pair.get("/health"), |it| it.took < HEALTH_AT_MOST);
    assert_eq!(health.status, 200);
    assert!(health.took < HEALTH_AT_MOST, "{health:?}");
    pair.each("unpause", &["a"]);
    ready_again(pair);
}

fn probe_that_dies_is_started_again(pair: &Deployment) {
    let before = pair.inspect("probe")["State"]["Pid"].clone();
    let pid = before.as_i64().and_then(|pid| Pid::from_raw(pid as i32));
    kill_process(pid.expect("it runs"), Signal::KILL).expect("it runs on this host");
    eventually(Duration::from_secs(30), "docker starts it again", || {
        let state = pair.inspect("probe")["State"].take();
        (state["Running"] == true && state["Pid"] != before).then_some(())
    });
    eventually(RECOVERY, "it is ready", || {
        let answer = pair.try_get("/ready").ok()?;
        (answer.status == 200).then_some(())
    });
}

fn restarts_in_every_order_keep_the_primary(pair: &Deployment, primary: &str) {
    let orders = [["a", "b"], ["b", "a"]];
    for (stopped, started) in orders.iter().flat_map(|it| orders.map(|other| (it, other))) {
        pair.each("stop", stopped);
        is_not_ready(&pair.get("/ready"), &GONE);
        pair.each("start", &started);
        pair.has_primary(primary);
        ready_again(pair);
    }
}

/// Libpq would go elsewhere by each of these, and give the password to whoever
/// asks for one; a proxy knows nothing of this machine.
const EXPORTED: [(&str, &str); 16] = [
    ("PGHOST", "127.0.0.9"),
    ("PGHOSTADDR", "127.0.0.9"),
    ("PGPORT", "6000"),
    ("PGUSER", "somebody"),
    ("PGDATABASE", "elsewhere"),
    ("PGSERVICE", "nowhere"),
    ("PGSERVICEFILE", "/nonexistent"),
    ("PGPASSFILE", "/nonexistent"),
    ("PGOPTIONS", "-c search_path=nowhere"),
    ("PGSSLMODE", "verify-full"),
    ("PGSSLROOTCERT", "/nonexistent"),
    ("PGREQUIREAUTH", "md5"),
    ("http_proxy", "http://127.0.0.1:1"),
    ("HTTP_PROXY", "http://127.0.0.1:1"),
    ("GREP_OPTIONS", "--invert-match"),
    ("BASH_ENV", "/nonexistent"),
];

fn second_run_changes_nothing_whatever_its_caller_exports(pair: &Deployment) {
    let play = pair.play_in(&EXPORTED, "site.yml", &["-vvv", "--diff"]);
    play.changed_nothing();
    let words = format!("primary: {}", pair.container("a"));
    assert!(play.stdout.contains(&words), "{}", play.stdout);
    assert!(
        play.stdout.contains("certificates: a until "),
        "{}",
        play.stdout
    );
}

/// Runs psql in a container of PostgreSQL's image with these options; returns
/// what became of it.
fn psql_in(options: &[&str], password: &str, conninfo: &str, sql: &str) -> process::Outcome {
    let image = docker::postgres_image();
    let script = "read -r PGPASSWORD; export PGPASSWORD; psql -XAtc \"$2\" \"$1\"";
    let words = [
        &["run", "--rm", "--interactive", "--entrypoint", "sh"],
        options,
        &[&image, "-ec", script, "sh", conninfo, sql],
    ];
    docker::try_docker(&words.concat(), password.as_bytes())
}

/// With their passwords, which may have leaked.
fn roles_log_in_from_where_they_have_to_and_can_fill_nothing(pair: &Deployment) {
    let secret =
        |name: &str| fs::read_to_string(pair.root.join("secrets").join(name)).expect("text");
    let networks = pair.inspect("a")["NetworkSettings"]["Networks"].take();
    let address = networks[&pair.prefix]["IPAddress"]
        .as_str()
        .expect("it runs")
        .to_owned();
    let replicates = format!("host={address} user=replicator replication=yes sslmode=require");
    let asks = format!("host={address} user=pgpair dbname=postgres sslmode=require");
    let probe = format!("container:{}", pair.container("probe"));
    for (network, conninfo, name) in [
        (pair.prefix.as_str(), &replicates, "replicator"),
        ("host", &replicates, "replicator"),
        (&probe, &replicates, "replicator"),
        (&pair.prefix, &asks, "pgpair"),
        ("host", &asks, "pgpair"),
    ] {
        let done = psql_in(&["--network", network], &secret(name), conninfo, "SELECT 1");
        assert!(
            done.stderr.contains("no pg_hba.conf entry"),
            "{name} from {network}: {done:?}"
        );
    }
    for (sql, refusal) in [
        (
            "CREATE TEMPORARY TABLE t ()",
            "permission denied to create temporary tables",
        ),
        (
            "CREATE TABLE public.t ()",
            "permission denied for schema public",
        ),
        ("CREATE SCHEMA s", "permission denied for database"),
        (
            "SELECT lo_from_bytea(0, 'x')",
            "permission denied for function lo_from_bytea",
        ),
        (
            "SELECT pg_read_file('PG_VERSION')",
            "permission denied for function",
        ),
        ("SHOW temp_file_limit", ""),
    ] {
        let done = psql_in(&["--network", &probe], &secret("pgpair"), &asks, sql);
        match refusal {
            "" => assert_eq!(done.stdout.trim(), "16MB", "{done:?}"),
            _ => assert!(done.stderr.contains(refusal), "{sql}: {done:?}"),
        }
    }
}

/// The forgotten word would be a new and empty pair, other extensions, or an
/// application that is locked out.
/// As a machine on the host's link does it: by a route to the containers' network.
fn neighbour_on_the_link_reaches_no_container(pair: &Deployment) {
    let probe = pair.inspect("probe");
    let mut networks = probe["NetworkSettings"]["Networks"].as_object();
    let network = networks.as_mut().and_then(|it| it.values().next());
    let address = network.and_then(|it| it["IPAddress"].as_str());
    let address = address.expect("it is in the pair's network").to_owned();
    let neighbour = Neighbour::new(&address);
    let connects = |from: &[&str], port: u16| {
        let script = format!("timeout 2 bash -c '</dev/tcp/{address}/{port}'");
        let words = [from, &["sh", "-c", &script]].concat();
        let done = process::run(
            Command::new(words[0]).args(&words[1..]),
            b"",
            Duration::from_secs(10),
        );
        done.code() == 0
    };
    assert!(connects(&["env"], 5000), "this host reaches it");
    let from = ["ip", "netns", "exec", &neighbour.name];
    assert!(!connects(&from, 5000), "closed");
    assert!(pair.rules().contains("-j DROP"), "{}", pair.rules());

    // As Docker leaves it; later versions close it themselves.
    pair.site(&["-e", "postgres_pair_closed=false"]).changed();
    assert_eq!(pair.rules(), "");
    if docker(&["version", "--format", "{{.Server.Version}}"]).starts_with("20.") {
        assert!(connects(&from, 5000), "nothing else keeps it out");
    }
    assert!(pair.site(&[]).changed() > 0);
    assert!(!connects(&from, 5000), "closed again");
    pair.site(&[]).changed_nothing();
}

/// Somebody on a link of this host, in a network namespace.
struct Neighbour {
    name: String,
}

impl Neighbour {
    /// Makes one that routes to the network of this address by this host.
    fn new(address: &str) -> Neighbour {
        let id = std::process::id();
        let neighbour = Neighbour {
            name: format!("pgpair-test-{id}"),
        };
        let (name, link) = (&neighbour.name, format!("pgt{id}"));
        for words in [
            format!("netns add {name}"),
            format!("link add {link} type veth peer name eth0 netns {name}"),
            format!("address add 198.18.77.1/30 dev {link}"),
            format!("link set {link} up"),
            format!("-n {name} address add 198.18.77.2/30 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} route add {address}/32 via 198.18.77.1"),
        ] {
            let mut ip = Command::new("ip");
            let done = process::run(ip.args(words.split(' ')), b"", Duration::from_secs(10));
            assert_eq!(done.code(), 0, "ip {words}: {done:?}");
        }
        neighbour
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // Its end of the link goes with it, and so does the other.
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.name])
            .status();
    }
}

fn what_contradicts_the_containers_is_refused(pair: &Deployment) {
    let elsewhere = pair.root.with_extension("elsewhere");
    let root = format!("postgres_pair_root={}", elsewhere.display());
    let mounted = format!("is mounted on {}/", pair.root.display());
    let hint = format!("-e postgres_pair_root={} that", pair.root.display());
    let (before, only) = (identities(pair), ["--tags", "postgres_pair", "-e"]);
    let words = [mounted.as_str(), &hint, "Nothing was touched"];
    pair.site(&[&only[..], &[&root]].concat()).refused(&words);
    pair.teardown(&["-e", "confirm=yes", "-e", &root])
        .refused(&words[..1]);
    assert!(!elsewhere.exists());

    let other = format!("{}-other:17", pair.prefix);
    docker(&["tag", &docker::postgres_image(), &other]);
    let image = format!("postgres_pair_image={other}");
    let play = pair.site(&[&only[..], &[&image]].concat());
    docker(&["image", "rm", &other]);
    play.refused(&[
        "containers were made from",
        &other,
        "postgres_pair_accept_change=true",
    ]);

    for (setting, words) in [
        (
            "postgres_pair_app_role=shop",
            ["the role app in the database app", "lock out"],
        ),
        (
            "postgres_pair_app_role=replicator",
            ["\"replicator\"", "is none of"],
        ),
        (
            "postgres_pair_app_database=template1",
            ["\"template1\"", "is none of"],
        ),
        (
            "postgres_pair_uid=70",
            [
                "belongs to the user and group 999:999",
                "-e postgres_pair_uid=999",
            ],
        ),
        (
            "postgres_pair_probe_addresses=everywhere",
            ["\"everywhere\"", "no address"],
        ),
    ] {
        let play = pair.site(&[&only[..], &[setting]].concat());
        play.refused(&[words[0], words[1], "Nothing was touched"]);
    }
    // A command works with the host's own engine, whatever is exported.
    let mut command = pair.pgpair(&["switchover", "--dry-run"]);
    command.env("DOCKER_HOST", "tcp://127.0.0.1:1");
    command.env("DOCKER_TLS_VERIFY", "1");
    let done = process::run(&mut command, b"", Duration::from_secs(60));
    assert_eq!(done.code(), 0, "{}{}", done.stdout, done.stderr);
    assert_eq!(identities(pair), before, "nothing was touched");
}

/// Which container it is, and since when it runs.
fn identity(pair: &Deployment, node: &str) -> (Value, Value) {
    let about = pair.inspect(node);
    (about["Id"].clone(), about["State"]["StartedAt"].clone())
}

fn identities(pair: &Deployment) -> [(Value, Value); 3] {
    ["a", "b", "probe"].map(|node| identity(pair, node))
}

fn certificates_are_renewed_before_their_end_without_a_restart(pair: &Deployment) {
    let (before, containers) = (served_serials(pair), identities(pair));
    let script = pair.root.join("certificates");
    let renew = |days: &str, renew_days: &str| {
        let numbers = ["999", "999", days, renew_days];
        let mut command = Command::new(&script);
        command.arg("renew").arg(&pair.root).arg(&pair.prefix);
        let done = process::run(command.args(numbers), b"", Duration::from_secs(30));
        assert!(done.status.success(), "{}", done.stderr);
        done.stdout
    };
    assert_eq!(renew("365", "90"), "", "a year is left");
    let said = renew("400", "399");
    for node in ["a", "b"] {
        let words = format!("renewed the certificate of {node}, good for 400 days");
        assert!(said.contains(&words), "{said}");
    }
    eventually(RECOVERY, "both serve the new ones", || {
        let now = served_serials(pair);
        (now[0] != before[0] && now[1] != before[1]).then_some(())
    });
    assert_eq!(identities(pair), containers, "nothing was restarted");

    // Who connects anew verifies them.
    let reconnect = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE usename IN ('pgpair', 'replicator')";
    pair.sql("a", reconnect);
    ready_again(pair);
    pair.has_primary("a");
}

/// The serial numbers of the certificates that the nodes answer with.
fn served_serials(pair: &Deployment) -> [String; 2] {
    ["a", "b"].map(|node| {
        let networks = pair.inspect(node)["NetworkSettings"]["Networks"].take();
        let address = networks[&pair.prefix]["IPAddress"].clone();
        let address = address.as_str().expect("it runs");
        let script = format!(
            "openssl s_client -starttls postgres -connect {address}:5432 </dev/null 2>/dev/null \
             | openssl x509 -noout -serial"
        );
        let mut shell = Command::new("sh");
        let done = process::run(shell.args(["-c", &script]), b"", Duration::from_secs(10));
        assert!(done.stdout.starts_with("serial="), "{}", done.stderr);
        done.stdout
    })
}

fn passwords_are_rotated_by_another_run_without_a_restart(pair: &Deployment) {
    let (before, containers) = (pair.secrets(), identities(pair));
    // As an auditor asks for.
    pair.sql("a", "ALTER SYSTEM SET log_statement = 'all'");
    pair.sql("a", "SELECT pg_reload_conf()");
    let session = session_of_the_application(pair);
    let play = pair.site(&[
        "-e",
        "postgres_pair_rotate=replicator,pgpair,app",
        "-e",
        "postgres_pair_end_sessions=replicator,pgpair",
        "-vvv",
        "--diff",
    ]);
    assert!(play.changed() > 0);
    let after = pair.secrets();
    assert_eq!(after.len(), before.len());
    assert!(after.iter().all(|secret| !before.contains(secret)));
    assert_eq!(identities(pair), containers, "nothing was restarted");
    no_secret_is_to_be_seen(pair);
    let logged = pair.logs("a");
    for secret in &before {
        assert!(!logged.contains(secret), "an old password is in the log");
    }
    pair.sql("a", "ALTER SYSTEM RESET log_statement");
    pair.sql("a", "SELECT pg_reload_conf()");

    // Who may have the old password, and who was sent away.
    let said: Vec<&str> = play.stdout.split_whitespace().collect();
    let said = said.join(" ");
    assert!(said.contains("go on: 1 of app on a."), "{said}");
    let alive = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {session}");
    assert_eq!(pair.sql("a", &alive), "1");
    ready_again(pair);
    pair.has_primary("a");
    application_logs_in(pair);
}

/// Has the application stay logged in; returns the process that serves it.
fn session_of_the_application(pair: &Deployment) -> String {
    let conninfo = format!(
        "host={} user=app dbname=app sslmode=require",
        pair.container("a")
    );
    let script =
        "read -r PGPASSWORD </srv/app; export PGPASSWORD; psql -c 'SELECT pg_sleep(600)' \"$1\"";
    let secret = format!("{}/secrets/app:/srv/app:ro", pair.root.display());
    let name = format!("{}-client", pair.prefix);
    let label = format!("org.pgpair.project={}", pair.prefix);
    docker(&[
        "run",
        "--detach",
        "--rm",
        "--name",
        &name,
        "--label",
        &label,
        "--network",
        &pair.prefix,
        "--volume",
        &secret,
        "--user",
        "root",
        "--entrypoint",
        "sh",
        &docker::postgres_image(),
        "-ec",
        script,
        "sh",
        &conninfo,
    ]);
    eventually(RECOVERY, "the application is logged in", || {
        let pid = pair.sql(
            "a",
            "SELECT pid FROM pg_stat_activity WHERE usename = 'app'",
        );
        (!pid.is_empty()).then_some(pid)
    })
}

/// As an application does: over TLS, by the nodes' names, with its password.
fn application_logs_in(pair: &Deployment) {
    let (a, b) = (pair.container("a"), pair.container("b"));
    let conninfo = format!(
        "host={b},{a} user=app dbname=app target_session_attrs=read-write \
         sslmode=verify-full sslrootcert=/etc/postgresql/ca.crt"
    );
    let script =
        format!("read -r PGPASSWORD; export PGPASSWORD; psql -Atc 'SELECT 1' '{conninfo}'");
    let password = fs::read(pair.root.join("secrets/app")).expect("readable");
    let arguments = ["exec", "--interactive", &a, "sh", "-ec", &script];
    assert_eq!(docker::docker_with(&arguments, &password), "1");
}

/// As an operator would without further tools: stop the primary, fence it,
/// promote the standby.
fn promoted_standby_is_found_on_the_disks(pair: &Deployment) {
    pair.each("stop", &["a"]);
    make_standby(&pair.data("a"));
    assert_eq!(pair.sql("b", "SELECT pg_promote()"), "t");
    pair.sql("b", "INSERT INTO rows VALUES ('b')");
    let [a, b, probe] = identities(pair);
    // A password of the owner's own, which SASLprep and libpq's files read in their ways.
    fs::write(pair.root.join("secrets/app"), "pä:s\\\u{2168}\u{a0}w\n").expect("it is there");

    let play = pair.site(&[]);
    application_logs_in(pair);
    // The fenced node was started, and got its slot.
    assert!(play.changed() > 0);
    let words = format!("primary: {}", pair.container("b"));
    assert!(play.stdout.contains(&words), "{}", play.stdout);
    let now = identities(pair);
    assert_eq!(now[0].0, a.0, "the same container");
    assert_eq!((&now[1], &now[2]), (&b, &probe), "not touched");
    pair.has_primary("b");
    has_every_row(pair, "a");
    // The slot of its time as primary would hold WAL back for ever.
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(
        (pair.sql("a", slots), pair.sql("b", slots)),
        ("0".into(), "1".into())
    );
}

/// Every damage is done while both nodes are stopped, so that not a single
/// file may differ after the refusal.
fn damage_is_refused_and_nothing_is_touched(pair: &Deployment) {
    pair.each("stop", &["b", "a"]);
    let (a, b) = (pair.data("a"), pair.data("b"));
    let (a_signal, b_signal) = (a.join("standby.signal"), b.join("standby.signal"));

    make_standby(&b);
    refuses(
        pair,
        &["no primary on disk", "standby.signal in every node"],
    );
    fs::remove_file(&b_signal).expect("made above");

    fs::remove_file(&a_signal).expect("a is the standby");
    refuses(pair, &["both nodes are primaries on disk"]);
    let there = pair.ends(&["inspect"], 0);
    assert_eq!(there["refusal"]["reason"], "two_primaries", "{there}");
    assert_eq!(there["nodes"]["a"]["server"]["is"], "down", "{there}");
    assert_eq!(
        there["nodes"]["a"]["container"]["state"], "exited",
        "{there}"
    );
    make_standby(&a);

    let control = a.join("global/pg_control");
    let kept = fs::read(&control).expect("readable");
    // It begins with the system's identifier.
    fs::write(&control, [&[0x2a; 8], &kept[8..]].concat()).expect("writes");
    refuses(pair, &["different databases", "3038287259199220266"]);
    fs::write(&control, kept).expect("writes");

    without(&control, || {
        refuses(pair, &["/a/data/pgdata is not a whole database"])
    });
    without(&pair.root.join("secrets/app"), || {
        refuses(pair, &["secrets/app is missing"]);
    });

    let before = pair.state();
    pair.teardown(&[])
        .refused(&["Nothing was deleted", "confirm=yes", &pair.prefix]);
    before.is_still(&pair.state());
}

/// Runs site.yml, which must refuse with these words and touch nothing.
fn refuses(pair: &Deployment, words: &[&str]) {
    let before = pair.state();
    pair.site(&[]).refused(words);
    before.is_still(&pair.state());
}

/// Does something while a file is away.
fn without(file: &Path, act: impl FnOnce()) {
    let aside = file.with_extension("aside");
    fs::rename(file, &aside).expect("it is there");
    act();
    fs::rename(&aside, file).expect("nothing took its place");
}

/// Writes standby.signal, as the data's owner.
fn make_standby(data: &Path) {
    let signal = data.join("standby.signal");
    fs::write(&signal, "").expect("writes");
    let owner = fs::metadata(data).expect("it is there");
    chown(&signal, Some(owner.uid()), Some(owner.gid())).expect("root may");
}

fn half_made_base_backup_is_made_again(pair: &Deployment) {
    let lost = pair.data("a");
    let half = lost.with_extension("new");
    fs::rename(&lost, &half).expect("a has data");
    fs::remove_file(half.join("global/pg_control")).expect("it is there");
    fs::write(half.join("of an interrupted run"), "").expect("writes");

    assert!(pair.site(&[]).changed() > 0);
    pair.has_primary("b");
    ready_again(pair);
    has_every_row(pair, "a");
    assert!(!half.exists(), "the half-made copy is gone");
    assert!(!lost.join("of an interrupted run").exists(), "a new copy");
}

fn teardown_leaves_nothing(pair: &Deployment) {
    let alone = pair.is_alone();
    pair.teardown(&["-e", "confirm=yes"]).changed();
    assert_eq!(pair.containers(), [""; 0]);
    assert_eq!(pair.networks(), [""; 0]);
    assert!(!pair.root.exists());
    assert_eq!(pair.rules(), "");
    // The binary serves every pair of the host, and goes with the last.
    assert_eq!(pair.installed().exists(), !alone);
}

fn has_every_row(pair: &Deployment, node: &str) {
    let sql = "SELECT string_agg(made_by, ',' ORDER BY made_by) FROM rows";
    eventually(RECOVERY, "the rows are there", || {
        (pair.sql(node, sql) == "a,b").then_some(())
    });
}

fn is_not_ready(answer: &Answer, reasons: &[&str]) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(reasons.contains(&answer.reason().as_str()), "{answer:?}");
    assert!(answer.took < ANSWER_AT_MOST, "{answer:?}");
}

fn ready_again(pair: &Deployment) {
    let mut last = String::new();
    let began = Instant::now();
    while began.elapsed() < RECOVERY {
        let answer = pair.get("/ready");
        assert!(answer.took < ANSWER_AT_MOST, "{answer:?}");
        if answer.status == 200 {
            return;
        }
        last = answer.body;
    }
    panic!("not ready within {RECOVERY:?}: {last}");
}

/// Checks that a refused run made nothing.
fn nothing_was_made(pair: &Deployment) {
    assert_eq!(pair.containers(), [""; 0]);
    assert_eq!(pair.networks(), [""; 0]);
    assert!(!pair.installed().exists());
}

#[test]
fn taken_port_is_refused_by_its_holders_name_before_anything_is_made() {
    let pair = Deployment::new("port");
    let _holder = TcpListener::bind(("127.0.0.1", pair.port)).expect("it was free");
    let port = format!("Port {} on 127.0.0.1 cannot be had", pair.port);
    let pid = format!("(pid {}) has it", std::process::id());
    pair.site(&[]).refused(&[&port, &pid, "make up PORT="]);
    nothing_was_made(&pair);
    assert!(!pair.root.exists());
}

#[test]
fn container_of_the_same_name_is_refused_and_left_alone() {
    let pair = Deployment::new("name");
    let name = pair.container("b");
    let run = docker::this_run();
    let image = docker::postgres_image();
    let foreign = Container::run(
        name.clone(),
        run.new_address(),
        &image,
        &["--entrypoint", "sleep"],
        &["1h"],
    );
    let pid = foreign.pid();
    let words = format!("A container {name} exists and is not pgpair's");
    pair.site(&[]).refused(&[&words]);
    nothing_was_made(&pair);
    assert!(!pair.root.exists());
    // Nor does a teardown take it for its own.
    pair.teardown(&["-e", "confirm=yes"]).changed_nothing();
    assert_eq!(foreign.pid(), pid);
}

#[test]
fn folder_of_somebody_else_is_neither_used_nor_deleted() {
    let pair = Deployment::new("folder");
    fs::create_dir(&pair.root).expect("not there yet");
    fs::write(pair.root.join("precious"), "data").expect("writes");
    let before = pair.state();
    let root = pair.root.display().to_string();
    pair.site(&[]).refused(&[&root, "no file .pgpair in it"]);
    nothing_was_made(&pair);
    pair.teardown(&["-e", "confirm=yes"])
        .refused(&[&root, "Nothing was deleted"]);
    before.is_still(&pair.state());
}

#[test]
fn full_disk_is_refused_before_anything_is_made() {
    let pair = Deployment::new("room");
    let play = pair.site(&["-e", "postgres_pair_min_free=1000000GB"]);
    play.refused(&["free and needs 976.56 TB", "free some"]);
    nothing_was_made(&pair);
    assert!(!pair.root.exists());
}

#[test]
fn image_that_is_nowhere_is_refused_before_anything_is_made() {
    let pair = Deployment::new("image");
    // Nobody listens there, so the answer does not depend on a network.
    let play = pair.site(&["-e", "postgres_pair_image=127.0.0.1:1/nowhere:17"]);
    play.refused(&["127.0.0.1:1/nowhere:17 is not on this host and cannot be pulled"]);
    nothing_was_made(&pair);
    assert!(!pair.root.exists());
}

#[test]
fn settings_that_the_guard_would_refuse_are_refused_before_anything_is_made() {
    let pair = Deployment::new("told");
    for (setting, takes) in [
        ("pgpair_guard_sync=maybe", "async, sync or strict"),
        ("pgpair_guard_confirm=900ms", "1s to 1h"),
        ("pgpair_guard_sync_limit=61m", "1s to 1h"),
        ("pgpair_guard_sync_limit=10", "1s to 1h"),
        ("pgpair_guard_max_failovers=1001", "0 to 1000"),
        ("pgpair_guard_hook=notify", "absolute path"),
        ("pgpair_guard_hook=/etc/passwd", "no program"),
    ] {
        let (name, value) = setting.split_once('=').expect("a pair");
        // The part alone, as all before it takes longer.
        let play = pair.site(&["--tags", "pgpair_guard", "-e", setting]);
        play.refused(&[name, value, takes, "Nothing was touched"]);
    }
    nothing_was_made(&pair);
    assert!(!pair.root.exists());
}

#[test]
fn missing_binary_is_refused_with_how_to_build_it() {
    let pair = Deployment::new("binary");
    let play = pair.site(&["-e", "pgpair_probe_binary=/nonexistent/pgpair"]);
    play.refused(&["no binary at /nonexistent/pgpair", "cargo build"]);
    nothing_was_made(&pair);
    assert!(!pair.root.exists());
}

/// Where the binary is by default depends on the host, of which a teardown knows nothing.
#[test]
fn teardown_finds_the_binary_of_the_hosts_architecture() {
    let pair = Deployment::new("by-arch");
    let binary = "pgpair_probe_binary=/nonexistent/{{ ansible_facts.architecture }}/pgpair";
    let play = pair.teardown(&["-e", "confirm=yes", "-e", binary]);
    play.changed_nothing();
    nothing_was_made(&pair);
}

#[test]
#[should_panic(expected = "PGPAIR_TEST_NOTHING is not set: `make test` sets it up")]
fn setting_that_is_missing_fails_the_tests() {
    deployment::required("PGPAIR_TEST_NOTHING");
}

/// Prints a line for every difference, having read both files of every role.
const COMPARE: &str = r#"
import pathlib, yaml
for role in sorted(pathlib.Path("ansible/roles").iterdir()):
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text()) or {}
    options = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    described = {name: spec.get("default") for name, spec in options.items() if not spec.get("required")}
    for name in sorted({*defaults, *options}):
        if name not in options:
            print(f"{role.name}: {name} is not described")
        elif name not in described:
            if name in defaults:
                print(f"{role.name}: {name} is required and has a default")
        elif name not in defaults:
            print(f"{role.name}: {name} has no default")
        elif defaults[name] != described[name]:
            print(f"{role.name}: {name} is {defaults[name]!r}, and described as {described[name]!r}")
        if not name.startswith(role.name + "_"):
            print(f"{role.name}: {name} lacks the role's name")
    print(f"compared {role.name}")
"#;

#[test]
fn every_roles_defaults_are_those_that_its_argument_spec_describes() {
    let python = deployment::ansible_playbook().with_file_name("python");
    let mut command = Command::new(python);
    command
        .args(["-c", COMPARE])
        .current_dir(deployment::checkout());
    let compared = process::run(&mut command, b"", Duration::from_secs(60));
    assert_eq!((compared.code(), compared.stderr.as_str()), (0, ""));
    let roles = fs::read_dir(deployment::checkout().join("ansible/roles")).expect("a folder");
    let (done, wrong): (Vec<_>, Vec<_>) = compared
        .stdout
        .lines()
        .partition(|line| line.starts_with("compared "));
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(done.len(), roles.count());
}

/// The names and addresses are compared as openssl writes them, or every run
/// would replace the certificates.
#[test]
fn further_names_are_in_the_certificates_once_and_for_all() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for part in ["tls", "a/conf", "b/conf"] {
        fs::create_dir_all(folder.path().join(part)).expect("it is new");
    }
    let script = deployment::checkout().join("ansible/roles/postgres_pair/files/certificates.sh");
    let make = |names: &str| {
        let mut command = Command::new("sh");
        command.arg(&script).arg("make").arg(folder.path());
        command.args(["pair", "0", "0", "365", "90", names]);
        let done = process::run(&mut command, b"", Duration::from_secs(60));
        assert_eq!(done.code(), 0, "{}", done.stderr);
        done.stdout
    };
    let names = "pair-proxy,db.example.org,203.0.113.10,2001:db8::1";
    assert!(make("").contains("made the certificate of b"));
    let said = make(names);
    assert!(said.contains("replaced the certificate of a"), "{said}");
    assert_eq!(make(names), "", "nothing is left to do");
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-noout", "-ext", "subjectAltName", "-in"]);
    openssl.arg(folder.path().join("b/conf/server.crt"));
    let shown = process::run(&mut openssl, b"", Duration::from_secs(60)).stdout;
    let wanted = "DNS:pair-b, DNS:b, DNS:localhost, DNS:pair-proxy, DNS:db.example.org, \
                  IP Address:203.0.113.10, IP Address:2001:DB8:0:0:0:0:0:1";
    assert!(shown.contains(wanted), "{shown}");
    assert!(make("").contains("replaced the certificate of a"));
}
