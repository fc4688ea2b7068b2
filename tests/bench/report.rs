//! The report: as Markdown to read, as JSON to compare.

use std::fmt::Write;

use serde_json::json;

use crate::contender::Program;
use crate::wrk::Figures;

/// One measurement of one program.
pub struct Cell {
    pub program: Program,
    pub path: &'static str,
    /// PostgreSQL was `healthy` or `frozen`.
    pub state: &'static str,
    pub clients: usize,
    pub figures: Figures,
    /// A second, as PostgreSQL counted them.
    pub queries: f64,
    /// After the last run.
    pub resident_kb: f64,
}

/// What one program takes, and how soon it tells.
pub struct Size {
    pub program: Program,
    pub idle_kb: f64,
    pub loaded_kb: f64,
    pub binary_bytes: u64,
    pub start_ms: f64,
    pub down_ms: f64,
    pub up_ms: f64,
    pub server_ms: f64,
}

/// All that was measured.
pub struct Report {
    pub cells: Vec<Cell>,
    pub sizes: Vec<Size>,
    pub image_bytes: u64,
    pub runs: usize,
    pub seconds: u64,
    pub machine: String,
}

type Figure = fn(&Size) -> f64;

/// The number of clients at which the programs are compared.
const COMPARED_AT: usize = 16;

const NOTES: &str = "\
Medians of the runs, figure by figure; the programs took turns, run by run, on one machine together with wrk and PostgreSQL. wrk is a closed \
loop: a client that waits sends nothing, so a stall is seen by few requests. wrk makes up for that afterwards by the mean interval; times under \
a load of a fixed rate would be the stricter measure. Queries are what PostgreSQL counted as transactions. A frozen PostgreSQL is a paused \
container. The rival has no deadline, as it is by default: with PostgreSQL frozen its `/ready` gives no answer at all.";

impl Report {
    /// Finds a measurement.
    pub fn cell(&self, program: Program, path: &str, state: &str, clients: usize) -> Option<&Cell> {
        self.cells.iter().find(|cell| {
            (cell.program, cell.path, cell.state, cell.clients) == (program, path, state, clients)
        })
    }

    /// Renders it for a person.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "# What a probe costs\n\nMade by `make bench`: {} runs of {} s each, {}.\n\n{}\n\n![Answers and times by clients](baseline.svg)\n",
            self.runs, self.seconds, self.machine, NOTES
        );
        self.aims(&mut text);
        self.load(&mut text);
        self.costs(&mut text);
        text
    }

    fn aims(&self, text: &mut String) {
        text.push_str("\n## Aims\n\n| aim | measured | met |\n| --- | --- | --- |\n");
        let figures = |program, path| {
            let cell = self.cell(program, path, "healthy", COMPARED_AT)?;
            Some(cell.figures)
        };
        for (path, times) in [("/health", 1.0), ("/ready", 3.0)] {
            let (Some(ours), Some(theirs)) = (
                figures(Program::Pgpair, path),
                figures(Program::Rival, path),
            ) else {
                continue;
            };
            let ratio = ours.rate / theirs.rate;
            line(
                text,
                &format!(
                    "`{path}`: {times:.0} times the rival's answers/s at {COMPARED_AT} clients"
                ),
                &format!("{ratio:.2} times"),
                ratio >= times,
            );
            line(
                text,
                &format!("`{path}`: p99 no worse than the rival's"),
                &format!("{:.2} ms, {:.2} ms", ours.p99, theirs.p99),
                ours.p99 <= theirs.p99,
            );
        }
        let ours = self
            .sizes
            .iter()
            .find(|size| size.program == Program::Pgpair);
        let at_16 = self.cell(Program::Pgpair, "/ready", "healthy", COMPARED_AT);
        if let (Some(ours), Some(at_16)) = (ours, at_16) {
            let most = ours.idle_kb.max(at_16.resident_kb);
            line(
                text,
                &format!("under 4 MB resident with {COMPARED_AT} clients"),
                &format!("{most} kB; {} kB at the end", ours.loaded_kb),
                most < 4096.0,
            );
        }
        let image = self.image_bytes;
        line(
            text,
            "an image of about 3 MB",
            &format!("{image} bytes"),
            image < 3_300_000,
        );
    }

    fn load(&self, text: &mut String) {
        for state in ["healthy", "frozen"] {
            let head = "| path | clients | program | answers/s | p50 ms | p99 ms | p99.9 ms | failed | queries/s | resident kB |";
            let rule = "| --- ".repeat(10);
            put(
                text,
                format_args!("\n## PostgreSQL {state}\n\n{head}\n{rule}|\n"),
            );
            for cell in self.cells.iter().filter(|cell| cell.state == state) {
                let Figures {
                    rate,
                    p50,
                    p99,
                    p999,
                    failed,
                } = cell.figures;
                put(
                    text,
                    format_args!(
                        "| `{}` | {} | {} | {rate:.0} | {p50:.2} | {p99:.2} | {p999:.2} | {failed:.0} | {:.0} | {} |\n",
                        cell.path,
                        cell.clients,
                        cell.program.name(),
                        cell.queries,
                        cell.resident_kb
                    ),
                );
            }
        }
    }

    fn costs(&self, text: &mut String) {
        let head: Vec<&str> = self.sizes.iter().map(|size| size.program.name()).collect();
        let rule = "| --- ".repeat(head.len() + 1);
        put(
            text,
            format_args!(
                "\n## Size and times\n\n| | {} |\n{rule}|\n",
                head.join(" | ")
            ),
        );
        let rows: [(&str, Figure); 7] = [
            ("resident, idle (kB)", |it| it.idle_kb),
            ("resident after all load (kB)", |it| it.loaded_kb),
            ("binary (bytes)", |it| it.binary_bytes as f64),
            ("from its start to the first 200 of `/ready` (ms)", |it| {
                it.start_ms
            }),
            ("from PostgreSQL's kill to the first 503 (ms)", |it| {
                it.down_ms
            }),
            ("from PostgreSQL's start to the first 200 (ms)", |it| {
                it.up_ms
            }),
            ("of which before PostgreSQL let anybody in (ms)", |it| {
                it.server_ms
            }),
        ];
        for (what, figure) in rows {
            let figures: Vec<String> = self
                .sizes
                .iter()
                .map(|size| format!("{:.0}", figure(size)))
                .collect();
            put(text, format_args!("| {what} | {} |\n", figures.join(" | ")));
        }
        put(
            text,
            format_args!("\npgpair's image has {} bytes.\n", self.image_bytes),
        );
    }

    /// Renders it for programs.
    pub fn json(&self) -> String {
        let cells = self.cells.iter().map(|cell| {
            json!({
                "program": cell.program.name(), "path": cell.path, "postgresql": cell.state,
                "clients": cell.clients, "answers_per_second": cell.figures.rate,
                "p50_ms": cell.figures.p50, "p99_ms": cell.figures.p99,
                "p999_ms": cell.figures.p999, "failed": cell.figures.failed,
                "queries_per_second": cell.queries, "resident_kb": cell.resident_kb,
            })
        });
        let sizes = self.sizes.iter().map(|size| {
            json!({
                "program": size.program.name(), "idle_kb": size.idle_kb,
                "loaded_kb": size.loaded_kb, "binary_bytes": size.binary_bytes,
                "start_ms": size.start_ms, "down_ms": size.down_ms, "up_ms": size.up_ms,
                "server_ms": size.server_ms,
            })
        });
        let all = json!({
            "machine": self.machine, "runs": self.runs, "seconds": self.seconds,
            "image_bytes": self.image_bytes, "load": cells.collect::<Vec<_>>(),
            "programs": sizes.collect::<Vec<_>>(),
        });
        format!("{all:#}\n")
    }
}

fn line(text: &mut String, aim: &str, measured: &str, met: bool) {
    let met = if met { "yes" } else { "no" };
    put(text, format_args!("| {aim} | {measured} | {met} |\n"));
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("text takes all");
}
