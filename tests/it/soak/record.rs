//! What pgpair used, once a second: written to a file, drawn, and held against
//! the rule of [`Record::is_flat`].

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::plot;
use super::truth::At;

/// Absolute bounds. Memory: the limit of the fault matrix at any time, and what
/// is typical. Threads: ten of pgpair's own (the gate, the watchdog, the sweep, the
/// logger, three lanes a node) and as many that connect, tiny_http's one, and
/// those of up to three abandoned watchers a lane. Descriptors: a
/// connection a client and up to four a lane, and a dozen that stay.
const RESIDENT_AT_MOST: u64 = 64 << 20;
const RESIDENT_TYPICALLY: u64 = 8 << 20;
const THREADS_AT_MOST: u64 = 40;
const DESCRIPTORS_AT_MOST: u64 = 64;

/// What a node may hold by the contract, two connections, for both.
const CONNECTIONS_TYPICALLY: u64 = 4;

/// From the second quarter to the last, the median may grow by this share …
const GROWTH: f64 = 0.10;

/// … and by so many bytes, threads, descriptors, connections: a page of
/// memory here and there, one client more or less.
const SLACK: [u64; 4] = [256 << 10, 2, 4, 1];

/// What pgpair used at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub at: At,
    /// Resident bytes, threads, descriptors, connections to PostgreSQL.
    pub used: [u64; 4],
    /// Answers so far.
    pub answers: u64,
}

/// The columns of [`Sample::used`].
pub const COLUMNS: [&str; 4] = ["resident_bytes", "threads", "descriptors", "connections"];

/// One fault, for the record.
#[derive(Clone, Debug)]
pub struct Band {
    pub what: String,
    pub from: At,
    pub until: At,
}

/// All samples of a run.
#[derive(Default)]
pub struct Record {
    pub samples: Vec<Sample>,
}

/// The least, the middle and the most of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub least: u64,
    pub median: u64,
    pub most: u64,
}

impl Record {
    /// Returns the range of a column within a part of the run, in quarters.
    pub fn range(&self, column: usize, quarters: std::ops::Range<usize>) -> Range {
        let count = self.samples.len();
        let part = &self.samples[count * quarters.start / 4..count * quarters.end / 4];
        let mut values: Vec<u64> = part.iter().map(|sample| sample.used[column]).collect();
        assert!(!values.is_empty(), "nothing was measured");
        values.sort_unstable();
        Range {
            least: values[0],
            median: values[values.len() / 2],
            most: values[values.len() - 1],
        }
    }

    /// Says what is not flat, if anything is: a median in the last quarter that
    /// is more than [`GROWTH`] and [`SLACK`] above that of the second (the first
    /// is for warming up), or anything beyond the absolute bounds.
    pub fn is_flat(&self) -> Result<(), String> {
        for (column, name) in COLUMNS.iter().enumerate() {
            let (before, after) = (self.range(column, 1..2), self.range(column, 3..4));
            let limit = before.median + SLACK[column] + (before.median as f64 * GROWTH) as u64;
            if after.median > limit {
                return Err(format!("{name} grows: {before:?}, later {after:?}"));
            }
        }
        let typical = [
            RESIDENT_TYPICALLY,
            u64::MAX,
            u64::MAX,
            CONNECTIONS_TYPICALLY,
        ];
        let most = [
            RESIDENT_AT_MOST,
            THREADS_AT_MOST,
            DESCRIPTORS_AT_MOST,
            u64::MAX,
        ];
        for (column, name) in COLUMNS.iter().enumerate() {
            let all = self.range(column, 0..4);
            if all.most > most[column] || all.median > typical[column] {
                return Err(format!("{name} is too much: {all:?}"));
            }
        }
        Ok(())
    }

    /// Writes `samples.csv`, `faults.csv` and `soak.svg`.
    pub fn write(&self, folder: &Path, faults: &[Band]) {
        let mut table = format!("seconds,{},answers\n", COLUMNS.join(","));
        for sample in &self.samples {
            let used = sample.used.map(|value| value.to_string()).join(",");
            let seconds = sample.at.as_secs_f64();
            let _ = writeln!(table, "{seconds:.1},{used},{}", sample.answers);
        }
        let mut list = "from,until,fault\n".to_owned();
        for band in faults {
            let [from, until] = [band.from, band.until].map(|at| at.as_secs_f64());
            let _ = writeln!(list, "{from:.2},{until:.2},{}", band.what);
        }
        fs::create_dir_all(folder).expect("a folder for the record");
        let files = [
            ("samples.csv", table),
            ("faults.csv", list),
            ("soak.svg", plot::draw(&self.samples, faults)),
        ];
        for (name, text) in files {
            fs::write(folder.join(name), text).expect("the record can be written");
        }
    }
}

#[test]
fn what_grows_is_not_flat() {
    let record = |used: fn(u64) -> [u64; 4]| Record {
        samples: (0..100)
            .map(|second| Sample {
                at: Duration::from_secs(second),
                used: used(second),
                answers: second,
            })
            .collect(),
    };
    let mb = 1 << 20;
    let flat = record(|second| [(3 << 20) + second % 7 * 4_096, 20 + second % 3, 30, 3]);
    assert_eq!(flat.is_flat(), Ok(()));
    for (name, used) in [
        (
            "resident_bytes grows",
            (|second| [(3 << 20) + second * 20_000, 20, 30, 3]) as fn(u64) -> [u64; 4],
        ),
        ("threads grows", |second| [3 << 20, 20 + second / 10, 30, 3]),
        ("descriptors grows", |second| {
            [3 << 20, 20, 20 + second / 4, 3]
        }),
        ("connections grows", |second| {
            [3 << 20, 20, 30, 2 + second / 20]
        }),
        ("resident_bytes is too much", |second| {
            [if second == 50 { 65 << 20 } else { 3 << 20 }, 20, 30, 3]
        }),
        ("resident_bytes is too much", |_| [9 << 20, 20, 30, 3]),
        ("threads is too much", |second| {
            [3 << 20, if second == 3 { 200 } else { 20 }, 30, 3]
        }),
        ("connections is too much", |_| [3 << 20, 20, 30, 5]),
    ] {
        let said = record(used).is_flat().expect_err(name);
        assert!(said.starts_with(name), "{said}");
    }
    assert_eq!(flat.range(0, 0..4).least, 3 * mb);
}
