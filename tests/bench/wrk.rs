//! Load, by wrk: clients that keep their connection and ask again as soon as
//! they are answered.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::support::process;

/// Has wrk print what it measured as JSON: its own summary has no 99.9th
/// percentile. Times are microseconds.
const DONE: &str = r#"
done = function(summary, latency, requests)
    local failed = summary.errors
    io.write(string.format(
        '\n{"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"p999":%d,"failed":%d}\n',
        summary.requests, summary.duration,
        latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
        failed.connect + failed.read + failed.write + failed.timeout))
end
"#;

/// Longest wait of wrk for one answer.
const ANSWER_AT_MOST: &str = "5s";

/// What one run measured, or the median of several, figure by figure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Answers a second.
    pub rate: f64,
    /// Times from request to answer in milliseconds, that half, 99 % and
    /// 99.9 % of all did not exceed.
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    /// Connections and answers that failed.
    pub failed: f64,
}

/// Puts load on a server.
pub struct Wrk {
    script: NamedTempFile,
    threads: usize,
    seconds: u64,
}

impl Wrk {
    /// Prepares runs of so many seconds each, on half of the processors.
    pub fn new(seconds: u64, processors: usize) -> Wrk {
        let mut script = NamedTempFile::new().expect("a temporary file");
        script.write_all(DONE.as_bytes()).expect("room for it");
        Wrk {
            script,
            threads: (processors / 2).max(1),
            seconds,
        }
    }

    /// Runs it once.
    pub fn run(&self, server: SocketAddr, path: &str, clients: usize) -> Figures {
        let mut command = Command::new("wrk");
        command
            .arg(format!("--threads={}", self.threads.min(clients)))
            .arg(format!("--connections={clients}"))
            .arg(format!("--duration={}s", self.seconds))
            .arg(format!("--timeout={ANSWER_AT_MOST}"))
            .arg("--script")
            .arg(self.script.path())
            .arg(format!("http://{server}{path}"));
        let limit = Duration::from_secs(self.seconds + 30);
        let done = process::run(&mut command, b"", limit);
        figures(&done.stdout).unwrap_or_else(|| panic!("wrk said {done:?}"))
    }
}

fn figures(said: &str) -> Option<Figures> {
    let line = said.lines().find(|line| line.starts_with('{'))?;
    let value: Value = serde_json::from_str(line).ok()?;
    let number = |name: &str| value[name].as_f64();
    let milliseconds = |name: &str| Some(number(name)? / 1e3);
    Some(Figures {
        rate: number("requests")? / (number("microseconds")? / 1e6),
        p50: milliseconds("p50")?,
        p99: milliseconds("p99")?,
        p999: milliseconds("p999")?,
        failed: number("failed")?,
    })
}

/// Takes the median of every figure by itself.
pub fn medians(runs: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| median(runs.iter().map(figure));
    Figures {
        rate: of(|it| it.rate),
        p50: of(|it| it.p50),
        p99: of(|it| it.p99),
        p999: of(|it| it.p999),
        failed: of(|it| it.failed),
    }
}

/// Returns the middle of the numbers, the lower one of two.
pub fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.collect();
    assert!(!sorted.is_empty(), "nothing was measured");
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) / 2]
}
