//! What stands between the probe and the truth: rights that were taken away,
//! settings and functions of others, poolers, strangers.

use std::fs;
use std::io;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::support::fake::{Stranger, head, message, result, row};
use crate::support::packages::{Daemon, free_port};
use crate::support::replication::SERVER;
use crate::support::{PASSWORD, Pair, Postgres, Probe, eventually};

// Rights that were taken away.

#[test]
fn role_stands_whatever_else_is_taken_away_and_all_is_told_once_it_is_given_back() {
    let pair = Pair::start();
    let functions = "pg_control_system(), pg_control_checkpoint(), pg_postmaster_start_time(), \
        pg_current_wal_lsn(), pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn(), \
        pg_is_wal_replay_paused(), pg_last_xact_replay_timestamp(), pg_stat_get_wal_receiver()";
    let views = "pg_settings, pg_stat_replication, pg_replication_slots";
    let revoke = format!(
        "REVOKE EXECUTE ON FUNCTION {functions} FROM public, pg_monitor; \
         REVOKE SELECT ON {views} FROM public, pg_monitor"
    );
    pair.primary.sql(&revoke);
    pair.caught_up();
    let probe = pair.probe();
    let all = [
        "system_identifier",
        "start_time",
        "timeline",
        "control_timeline",
        "lsn",
        "received",
        "replay_paused",
        "replay_age",
        "pending_restart",
        "receiver",
        "senders",
        "sender_slots",
        "slots",
        "retained_bytes",
    ];
    probe.comes_to_know("a", &all);
    probe.comes_to_know("b", &all);
    for (path, status) in [
        ("/ready", 200),
        ("/ready?write", 200),
        ("/primary", 200),
        ("/nodes/b/primary", 503),
        ("/nodes/b/replica", 503),
    ] {
        assert_eq!(probe.verdict_of(path).status, status, "{path}");
    }
    let (a, b) = (probe.node("a"), probe.node("b"));
    assert_eq!(
        (&a["role"], &b["role"]),
        (&"primary".into(), &"standby".into())
    );
    for (node, keys) in [
        (
            &a,
            &["timeline", "pending_restart", "replication", "slots"][..],
        ),
        (
            &b,
            &["lag_bytes", "lag_seconds", "replication_state", "slot"],
        ),
    ] {
        for key in keys {
            assert!(node.get(key).is_none(), "{key} in {node}");
        }
    }
    let metrics = probe.metrics();
    for name in [
        "pgpair_replication_lag_bytes",
        "pgpair_wal_receiver_up",
        "pgpair_timeline",
    ] {
        let told = metrics.keys().find(|key| key.starts_with(name));
        assert_eq!(told, None, "unknown is absent");
    }
    assert_eq!(metrics["pg_up{node=\"a\"}"], 1.0);
    assert_eq!(metrics["pgpair_ready"], 1.0);
    // Said once a part and node, and not again.
    let denied = || probe.log().matches("event=denied").count();
    assert_eq!(denied(), 2 * all.len(), "{}", probe.log());
    assert!(
        probe
            .log()
            .contains("node node=a part=slots event=denied cause=")
    );

    let grant = revoke.replace("REVOKE", "GRANT").replace("FROM", "TO");
    pair.primary.sql(&grant);
    pair.caught_up();
    // What is new may be known by a new connection, at once.
    for node in [&pair.primary, &pair.standby] {
        node.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgpair'",
        );
    }
    probe.comes_to_know("a", &[]);
    probe.comes_to_know("b", &[]);
    probe.tells("ok");
    assert_eq!(denied(), 2 * all.len(), "{}", probe.log());
}

#[test]
fn role_is_known_without_any_function() {
    let pair = Pair::start();
    pair.primary
        .sql("REVOKE EXECUTE ON FUNCTION pg_is_in_recovery(), current_setting(text) FROM public");
    pair.caught_up();
    let probe = pair.probe();
    probe.says("/ready", 200, "ok");
    probe.comes_to_say("/replica", 200, "ok");
    probe.says("/nodes/b/primary", 503, "in_recovery");
}

// Functions, operators and views of the database's owner.

/// Everything that has a name in what the probe asks, under that name in `public`,
/// where it tells that it was run.
const TRAPS: &str = r#"
CREATE TABLE public.ran (what text);
CREATE FUNCTION public.trap(what text) RETURNS boolean SECURITY DEFINER LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO public.ran VALUES (what); RETURN true; END $$;
DO $do$
DECLARE
    it record;
BEGIN
    FOR it IN
        SELECT p.proname, p.pronargs, pg_catalog.pg_get_function_identity_arguments(p.oid) AS args,
            pg_catalog.format_type(p.prorettype, NULL) AS result
        FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'
            AND p.proname IN ('pg_is_in_recovery', 'current_setting', 'pg_current_wal_lsn',
                'pg_last_wal_replay_lsn', 'pg_last_wal_receive_lsn', 'pg_is_wal_replay_paused',
                'clock_timestamp', 'pg_postmaster_start_time', 'pg_walfile_name', 'left',
                'pg_wal_lsn_diff', 'host', 'split_part', 'set_config')
    LOOP
        EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE sql AS %L', it.proname,
            it.args, it.result,
            format('SELECT NULL::%s FROM public.trap(%L)', it.result, it.proname));
    END LOOP;
    FOR it IN
        SELECT o.oprname, format_type(oprleft, NULL) AS l, format_type(oprright, NULL) AS r,
            format_type(oprresult, NULL) AS result, row_number() OVER () AS n
        FROM pg_catalog.pg_operator o
        WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprname IN ('=', '-', '*')
            AND oprleft IN ('text'::regtype, 'name'::regtype, 'int4'::regtype,
                'timestamptz'::regtype, 'numeric'::regtype, 'float8'::regtype)
            AND oprright = oprleft
    LOOP
        EXECUTE format('CREATE FUNCTION public.op%s(%s, %s) RETURNS %s LANGUAGE sql AS %L', it.n,
            it.l, it.r, it.result, format('SELECT NULL::%s FROM public.trap(%L)', it.result,
                it.oprname || it.l));
        EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.op%s)',
            it.oprname, it.l, it.r, it.n);
    END LOOP;
END
$do$;
CREATE VIEW public.pg_settings AS SELECT public.trap('pg_settings');
CREATE VIEW public.pg_stat_replication AS SELECT public.trap('pg_stat_replication');
CREATE VIEW public.pg_replication_slots AS SELECT public.trap('pg_replication_slots');
CREATE DOMAIN public.int8 AS text CHECK (public.trap('int8'));
CREATE DOMAIN public.text AS pg_catalog.text CHECK (public.trap('text'));
GRANT INSERT ON public.ran TO public;
"#;

#[test]
fn owner_of_the_database_runs_no_code_as_the_probe() {
    let pair = Pair::start();
    pair.primary.sql(TRAPS);
    pair.primary
        .sql("ALTER DATABASE postgres SET search_path = public, pg_catalog");
    pair.primary
        .sql("ALTER ROLE pgpair SET search_path = public, pg_catalog");
    let set = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_db_role_setting";
    eventually(SERVER, "the standby has the settings", || {
        (pair.standby.sql(set) == "2").then_some(())
    });
    // The trap works: who names nothing by its schema falls into it.
    let mut owner = pair.primary.client();
    let fell = owner.simple_query("SELECT pg_is_in_recovery()");
    assert!(fell.is_ok());
    let ran = "SELECT pg_catalog.count(*) FROM public.ran";
    assert_eq!(pair.primary.sql(ran), "1");

    let probe = pair.probe_when_well();
    probe.says("/ready?write", 200, "ok");
    probe.says("/replica?lag=1MB", 200, "ok");
    probe.comes_to_know("a", &[]);
    probe.comes_to_know("b", &[]);
    assert_eq!(pair.primary.sql(ran), "1");
}

// Settings of the probe's role or database.

#[test]
fn read_only_setting_of_the_probe_alone_is_told_and_does_not_count() {
    let pair = Pair::start();
    pair.primary
        .sql("ALTER ROLE pgpair SET default_transaction_read_only = on");
    pair.caught_up();
    let probe = pair.probe_when_well();
    probe.says("/ready", 200, "ok");
    probe.says("/ready?write", 200, "ok");
    let node = probe.node("a");
    let detail = node["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("read-only"), "{node}");
    drop(probe);

    pair.primary
        .sql("ALTER ROLE pgpair RESET default_transaction_read_only");
    pair.primary
        .sql("ALTER DATABASE postgres SET default_transaction_read_only = on");
    let probe = pair.probe_when_well();
    probe.says("/ready", 200, "ok");
}

#[test]
fn setting_of_the_role_neither_bends_nor_slows_nor_ends_what_is_asked() {
    let pair = Pair::start();
    for setting in [
        "statement_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "idle_session_timeout = '200ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "transaction_timeout = '5s'",
        "default_transaction_isolation = serializable",
        "default_transaction_deferrable = on",
        "client_min_messages = debug5",
        "jit_above_cost = 0",
        "extra_float_digits = '-15'",
        "row_security = off",
        "standard_conforming_strings = off",
        "debug_parallel_query = on",
        "datestyle = 'sql, dmy'",
        "intervalstyle = iso_8601",
    ] {
        pair.primary
            .sql(&format!("ALTER ROLE pgpair SET {setting}"));
    }
    pair.caught_up();
    let probe = pair.probe_when_well();
    for _ in 0..20 {
        for path in ["/ready", "/ready?write", "/replica?lag=1MB"] {
            probe.says(path, 200, "ok");
        }
    }
    let held = || {
        let mut backends = pair.primary.pgpair_backends();
        backends.sort_unstable();
        backends
    };
    let before = held();
    assert_eq!(before.len(), 2, "one to ask and one to commit");
    probe.comes_to_know("a", &[]);
    probe.comes_to_know("b", &[]);
    // Longer than it may be idle: nothing but the probe's own interval.
    let seen = probe.metrics()["pgpair_observation_seconds_count{node=\"a\"}"];
    eventually(SERVER, "two more observations", || {
        let now = probe.metrics()["pgpair_observation_seconds_count{node=\"a\"}"];
        (now >= seen + 2.0).then_some(())
    });
    assert_eq!(held(), before, "never cut");
}

// A pooler between, which gives one server's session to many.

#[test]
fn behind_a_pooler_the_role_is_right_and_nothing_is_left_in_others_sessions() {
    for ignored in ["", "ignore_startup_parameters = options"] {
        let pair = Pair::start();
        let [a, b] = [&pair.primary, &pair.standby].map(|node| Pooler::before(node, ignored));
        let probe = Probe::of(format!(
            "host=127.0.0.1,127.0.0.1 port={},{} user=pgpair dbname=postgres sslmode=disable",
            a.port, b.port
        ))
        .with("nodes", "a,b")
        .start();
        probe.becomes_ready();
        probe.tells("ok");
        for path in [
            "/ready?write",
            "/primary",
            "/nodes/b/replica",
            "/replica?lag=1MB",
        ] {
            probe.says(path, 200, "ok");
        }
        probe.comes_to_know("a", &[]);
        // The one session that there is.
        let others = |setting| a.sql(&format!("SHOW {setting}"));
        assert_eq!(others("search_path"), "\"$user\", public", "{ignored}");
        assert_eq!(others("client_connection_check_interval"), "0", "{ignored}");
        assert_eq!(others("idle_session_timeout"), "0", "{ignored}");
        pair.cut_replication();
        probe.tells("degraded");
        probe.says("/replica", 503, "not_streaming");
    }
}

struct Pooler {
    port: u16,
    _process: Daemon,
}

impl Pooler {
    /// Starts a pooler that gives its one session to a transaction at a time.
    fn before(server: &Postgres, more: &str) -> Pooler {
        let port = free_port();
        let settings = format!(
            "[databases]\n\
             * = host={} port=5432 user=pgpair password={PASSWORD}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 1\n{more}\n",
            server.address()
        );
        let process = Daemon::start("setpriv", |directory| {
            let file = directory.join("pgbouncer.ini");
            fs::write(&file, settings).expect("a file");
            readable(directory, 0o755);
            readable(&file, 0o644);
            let file = file.to_str().expect("a plain path").to_owned();
            // It refuses to be root.
            let nobody = [
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "pgbouncer",
            ];
            nobody
                .map(str::to_owned)
                .into_iter()
                .chain([file])
                .collect()
        });
        let pooler = Pooler {
            port,
            _process: process,
        };
        eventually(SERVER, "the pooler lets clients in", || {
            pooler.client().ok()
        });
        pooler
    }

    fn client(&self) -> Result<postgres::Client, postgres::Error> {
        postgres::Config::new()
            .host("127.0.0.1")
            .port(self.port)
            .user("pgpair")
            .dbname("postgres")
            .connect(postgres::NoTls)
    }

    fn sql(&self, statement: &str) -> String {
        let mut client = self.client().expect("it lets us in");
        let said = client.simple_query(statement).expect(statement);
        let first = said.iter().find_map(|message| match message {
            postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("").to_owned()),
            _ => None,
        });
        first.unwrap_or_default()
    }
}

fn readable(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

// Strangers in PostgreSQL's place.

/// What an answer may cost, whatever comes.
const COST_AT_MOST: u64 = 8 * 1024 * 1024;

fn nothing(_: &mut TcpStream) -> io::Result<()> {
    Ok(())
}

fn without_end(stream: &mut TcpStream, piece: &[u8]) -> io::Result<()> {
    let many = piece.repeat((64 * 1024 / piece.len()).max(1));
    loop {
        stream.write_all(&many)?;
    }
}

/// Ways to send without end, from the login on or as an answer.
const FLOODS: [(&str, Greeting, Flood); 8] = [
    ("rows", nothing, |_, stream| {
        stream.write_all(&head(2))?;
        without_end(stream, &row(&["f", "off"]))
    }),
    ("rows of nothing", nothing, |_, stream| {
        stream.write_all(&head(0))?;
        without_end(stream, &row(&[]))
    }),
    ("results", nothing, |_, stream| {
        without_end(stream, &result(1, &[]))
    }),
    ("columns", nothing, |_, stream| {
        without_end(stream, &head(1_000))
    }),
    ("a value", nothing, |_, stream| {
        stream.write_all(&head(1))?;
        stream.write_all(b"D\x7f\xff\xff\xff\0\x01\x7f\xff\xff\xf0")?;
        without_end(stream, &[b'x'; 1024])
    }),
    ("notices", nothing, |_, stream| {
        without_end(stream, &message(b'N', b"SNOTICE\0C00000\0Mx\0\0"))
    }),
    ("an error", nothing, |_, stream| {
        stream.write_all(b"E\x7f\xff\xff\xff")?;
        without_end(stream, &[b'x'; 1024])
    }),
    (
        "a greeting",
        |stream| without_end(stream, &message(b'S', b"name\0value\0")),
        |_, _| Ok(()),
    ),
];

type Greeting = fn(&mut TcpStream) -> io::Result<()>;
type Flood = fn(&str, &mut TcpStream) -> io::Result<()>;

#[test]
fn server_that_sends_without_end_costs_little_and_nobody_else_anything() {
    let primary = Postgres::start();
    for (what, greet, flood) in FLOODS {
        let stranger = Stranger::start(greet, flood);
        let address = stranger.fake.address;
        let probe = Probe::of(format!(
            "host={},{} port=5432,{} user=pgpair password={PASSWORD} dbname=postgres sslmode=disable",
            primary.address(),
            address.ip(),
            address.port()
        ))
        .with("nodes", "a,b")
        .start();
        probe.becomes_ready();
        probe.comes_to_say("/nodes/b/ready", 503, "error");
        // Asked over and over.
        let before = stranger.fake.accepted();
        eventually(SERVER, "it is asked again", || {
            (stranger.fake.accepted() > before + 5).then_some(())
        });
        assert!(probe.node("b")["detail"].is_string());
        probe.says("/nodes/a/ready", 200, "ok");
        let peak = peak_bytes(&probe);
        let idle = idle_bytes(&primary);
        assert!(
            peak < idle + COST_AT_MOST,
            "{what}: {peak} after {idle} bytes"
        );
    }
}

/// What a probe takes at most that is told nothing strange.
fn idle_bytes(primary: &Postgres) -> u64 {
    let probe = Probe::watching(primary);
    probe.says("/ready", 200, "ok");
    peak_bytes(&probe)
}

fn peak_bytes(probe: &Probe) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", probe.pid()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes
        .and_then(|it| it.trim().parse::<u64>().ok())
        .expect("a number")
        * 1024
}

/// A primary whose names hold what a terminal would act on.
fn with_hostile_names(sql: &str, stream: &mut TcpStream) -> io::Result<()> {
    let name = "a\u{1b}[31m\u{7}\u{9b}\u{202e}\r\nb";
    let long = "n".repeat(70_000);
    let role = result(2, &[row(&["f", "off"])]);
    if !sql.contains("pg_stat_replication") {
        return stream.write_all(&role);
    }
    let slot = |name: &str| row(&["9", name, "t", "physical", "f", "7", "reserved"]);
    let answers = [
        role,
        result(
            10,
            &[row(&[
                "7", "1", "00000001", "1", "0/10", "", "", "", "f", name,
            ])],
        ),
        result(9, &[]),
        result(
            12,
            &[row(&[
                "1",
                name,
                "streaming",
                "async",
                name,
                "physical",
                "",
                "",
                "",
                "0/1",
                "",
                "",
            ])],
        ),
        result(
            7,
            &[
                slot(name),
                slot(&name.replace('\u{7}', "\u{8}")),
                slot(&long),
            ],
        ),
    ];
    stream.write_all(&answers.concat())
}

#[test]
fn names_of_a_stranger_are_printable_short_and_distinct_everywhere() {
    let stranger = Stranger::start(nothing, with_hostile_names);
    let probe = Probe::of(stranger.fake.conninfo())
        .with("nodes", "a")
        .start();
    probe.becomes_ready();
    eventually(Duration::from_secs(2), "its slots are told", || {
        probe.node("a")["slots"].is_array().then_some(())
    });
    let shown = "a?[31m?????b";
    let node = probe.node("a");
    assert_eq!(node["slots"][0]["name"], shown, "{node}");
    assert_eq!(node["slots"][1]["name"], "n".repeat(64), "{node}");
    assert_eq!(node["slots"].as_array().map(Vec::len), Some(2), "{node}");
    assert_eq!(node["slots_more"], 7, "{node}");
    // A reader that is no node of ours is not named at all.
    assert_eq!(node["replication"][0]["state"], "streaming", "{node}");
    assert!(
        node["replication"][0]["application_name"].is_null(),
        "{node}"
    );
    let said = [
        probe.get("/status").body,
        probe.get("/metrics").body,
        probe.get("/ui").body,
        probe.status_command(&[]).stdout,
        probe.status_command(&["--json"]).stdout,
        probe.log(),
    ];
    for text in said {
        let bad = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
        assert_eq!(text.find(bad), None, "{text:?}");
    }
    let samples = probe.get("/metrics").body;
    let of_slots = samples
        .lines()
        .filter(|line| line.starts_with("pgpair_slot_retained"));
    assert_eq!(of_slots.count(), 2, "each once: {samples}");
}
