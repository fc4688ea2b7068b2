//! What a probe costs, measured beside the usual way to write one: pgpair and
//! the rival (`tests/bench/rival`) by turns, with the same PostgreSQL, wrk as the
//! clients. `make bench` runs it.
//!
//! Machines differ and are shared: compare lines of one run, not two machines.

#![allow(clippy::unwrap_used, missing_docs)]

mod contender;
mod outage;
mod plot;
mod report;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports)]
mod support;
mod wrk;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use contender::{Contender, Program};
use outage::{Told, outage};
use report::{Cell, Report, Size};
use support::Postgres;
use support::docker::{docker, probe_image};
use wrk::{Wrk, median, medians};

/// After its start a program is left alone so long before its memory is read.
const REST: Duration = Duration::from_secs(2);

/// What the caller may choose.
struct Plan {
    /// Runs of each measurement; the median counts.
    runs: usize,
    seconds: u64,
    clients: Vec<usize>,
    /// Where the report goes.
    directory: PathBuf,
}

impl Plan {
    fn of_environment() -> Plan {
        Plan {
            runs: number("RUNS", 5),
            seconds: number("SECONDS_EACH", 2),
            clients: env::var("CLIENTS")
                .unwrap_or_else(|_| "1 16 64 256".to_owned())
                .split_whitespace()
                .map(|count| count.parse().expect("CLIENTS are numbers"))
                .collect(),
            directory: env::var_os("PGPAIR_BENCH_REPORT")
                .expect("PGPAIR_BENCH_REPORT is not set: `make bench` sets it")
                .into(),
        }
    }
}

fn number<T: std::str::FromStr>(variable: &str, default: T) -> T {
    let Ok(text) = env::var(variable) else {
        return default;
    };
    let number = text.parse();
    number.unwrap_or_else(|_| panic!("{variable} is not a number: {text}"))
}

fn main() {
    let plan = Plan::of_environment();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let wrk = Wrk::new(plan.seconds, processors);
    say("Starting PostgreSQL");
    let server = Postgres::start();
    for program in Program::ALL {
        server.sql(&format!("CREATE DATABASE {}", program.database()));
    }
    say("Starting the programs");
    let starts = starts(&plan, &server);
    let contenders = Program::ALL.map(|program| program.start(&server));
    thread::sleep(REST);
    let idle = contenders.each_ref().map(Contender::resident_kb);
    let mut bench = Bench {
        plan: &plan,
        wrk: &wrk,
        server: &server,
        contenders: &contenders,
        cells: Vec::new(),
    };
    bench.measure("healthy");
    server.pause();
    contenders[0].comes_to_say("overdue");
    bench.measure("frozen");
    server.unpause();
    let cells = bench.cells;
    let loaded = contenders.each_ref().map(Contender::resident_kb);
    contenders.iter().for_each(Contender::becomes_ready);
    let outages = outages(&plan, &server, &contenders);
    let sizes = (0..contenders.len())
        .map(|place| Size {
            program: Program::ALL[place],
            idle_kb: idle[place],
            loaded_kb: loaded[place],
            binary_bytes: Program::ALL[place].binary_bytes(),
            start_ms: starts[place],
            down_ms: median(outages[place].iter().map(|told| told.down)),
            up_ms: median(outages[place].iter().map(|told| told.up)),
            server_ms: median(outages[place].iter().map(|told| told.server)),
        })
        .collect();
    let report = Report {
        cells,
        sizes,
        image_bytes: image_bytes(),
        runs: plan.runs,
        seconds: plan.seconds,
        machine: machine(processors),
    };
    fs::create_dir_all(&plan.directory).expect("room for the report");
    let write = |name: &str, text: String| {
        let file = plan.directory.join(name);
        fs::write(&file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    };
    write("baseline.svg", plot::svg(&report));
    write("baseline.json", report.json());
    write("baseline.md", report.markdown());
    println!("{}", report.markdown());
}

fn say(what: &str) {
    eprintln!("{what}");
}

/// Starts every program several times; returns the median time to its first
/// 200 from `/ready`, in milliseconds.
fn starts(plan: &Plan, server: &Postgres) -> [f64; 3] {
    Program::ALL.map(|program| {
        let times = (0..plan.runs).map(|_| program.start(server).started_in.as_secs_f64() * 1e3);
        median(times)
    })
}

/// Kills and starts the server several times; returns what each program told.
fn outages(plan: &Plan, server: &Postgres, contenders: &[Contender]) -> Vec<Vec<Told>> {
    let mut all: Vec<Vec<Told>> = contenders.iter().map(|_| Vec::new()).collect();
    for run in 1..=plan.runs {
        say(&format!("Killing PostgreSQL, {run} of {}", plan.runs));
        let told = outage(server, contenders);
        all.iter_mut()
            .zip(told)
            .for_each(|(all, told)| all.push(told));
    }
    all
}

struct Bench<'a> {
    plan: &'a Plan,
    wrk: &'a Wrk,
    server: &'a Postgres,
    contenders: &'a [Contender],
    cells: Vec<Cell>,
}

impl Bench<'_> {
    fn measure(&mut self, state: &'static str) {
        for &clients in &self.plan.clients {
            for path in ["/health", "/ready"] {
                say(&format!("{path}, {clients} clients, PostgreSQL {state}"));
                self.turns(path, clients, state);
            }
        }
    }

    /// Measures every program, by turns.
    fn turns(&mut self, path: &'static str, clients: usize, state: &'static str) {
        let before = self.queries(state);
        let mut runs: Vec<Vec<_>> = self.contenders.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.plan.runs {
            for (contender, runs) in self.contenders.iter().zip(&mut runs) {
                runs.push(self.wrk.run(contender.address, path, clients));
            }
        }
        let after = self.queries(state);
        let seconds = self.plan.seconds as f64 * self.plan.runs as f64;
        for (place, runs) in runs.iter().enumerate() {
            self.cells.push(Cell {
                program: Program::ALL[place],
                path,
                state,
                clients,
                figures: medians(runs),
                queries: (after[place] - before[place]) / seconds,
                resident_kb: self.contenders[place].resident_kb(),
            });
        }
    }

    /// Returns how many transactions PostgreSQL has counted for each program: for
    /// each of these one query. It counts once a second, so a second's worth may
    /// be counted with the next measurement.
    fn queries(&self, state: &str) -> Vec<f64> {
        let count = |contender: &Contender| {
            if state == "frozen" {
                return 0.0;
            }
            let database = contender.program.database();
            let counted = self.server.sql(&format!(
                "SELECT xact_commit FROM pg_stat_database WHERE datname = '{database}'"
            ));
            counted.parse().expect("a number")
        };
        self.contenders.iter().map(count).collect()
    }
}

fn image_bytes() -> u64 {
    let format = "{{.Size}}";
    let size = docker(&["image", "inspect", "--format", format, probe_image()]);
    size.parse().expect("a number")
}

fn machine(processors: usize) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{processors} processors, Linux {}", kernel.trim())
}
