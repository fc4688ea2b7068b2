//! PostgreSQL's write-ahead log as it lies on a node's disk: walked record by
//! record, each proven by its checksum, as PostgreSQL's own recovery does it.
//! The format of records and pages is the same in PostgreSQL 12 to 18.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::control_file::Control;
use super::data_dir::Folder;
use super::lsn::Lsn;

/// A page of the log. Another size is a build of one's own.
const PAGE: u64 = 8192;

/// Headers: of the first page of a segment, of every other one, and of a record.
const LONG_HEADER: u64 = 40;
const SHORT_HEADER: u64 = 24;
const RECORD_HEADER: u64 = 24;

/// The checksum is the last field of a record's header.
const CHECKSUM_AT: usize = 20;

/// PostgreSQL writes no longer record.
const MAX_RECORD: u64 = 1020 * 1024 * 1024;

/// Flags of a page: it begins with the rest of a record, and that record was
/// given up and is to be skipped.
const CONTINUES: u16 = 1;
const OVERWRITES: u16 = 8;

/// Longest for reading a log.
const MAX_WALK: Duration = Duration::from_secs(600);

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Walk {
    /// Where the last valid record ends.
    pub end: Lsn,
    /// Valid records.
    pub records: u64,
    /// Transactions that were committed or prepared in them.
    pub commits: u64,
}

/// Returns the timeline that a node was on at last. One that was promoted a moment
/// before has not told its control file; a name alone proves nothing, as whoever
/// has the data may give any.
pub fn newest_timeline(folder: &Folder, control: &Control) -> u32 {
    let named = |name: &str| {
        let digits = name.strip_suffix(".history").filter(|it| it.len() == 8)?;
        let plain = |c: char| c.is_ascii_digit() || ('A'..='F').contains(&c);
        let timeline = u32::from_str_radix(digits, 16).ok()?;
        (digits.chars().all(plain) && timeline > control.timeline).then_some(timeline)
    };
    let mut timelines = folder.names(named).unwrap_or_default();
    timelines.sort_unstable();
    let is_real = |timeline: &u32| {
        let ancestors = history(folder, *timeline).unwrap_or_default();
        let descends = ancestors.iter().any(|(of, _)| *of == control.timeline);
        descends && Log::open(folder, *timeline, control.system).is_ok()
    };
    let newest = timelines.into_iter().rev().find(is_real);
    newest.unwrap_or(control.timeline)
}

/// Reads the history of a timeline: its ancestors, and where each was left. Nothing
/// if there is none, or it is not as PostgreSQL writes it.
pub fn history(folder: &Folder, timeline: u32) -> Option<Vec<(u32, Lsn)>> {
    /// A line for every promotion that there ever was.
    const BYTES: u64 = 1 << 20;
    let bytes = folder
        .read(&format!("{timeline:08X}.history"), BYTES)
        .ok()??;
    let ancestors = parse_history(std::str::from_utf8(&bytes).ok()?)?;
    let ascends = ancestors.is_sorted_by(|a, b| a.0 < b.0);
    let is_last = ancestors.last().is_none_or(|(last, _)| *last < timeline);
    (ascends && is_last).then_some(ancestors)
}

/// Parses lines of the timeline, the place and the reason.
fn parse_history(text: &str) -> Option<Vec<(u32, Lsn)>> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        })
        .collect()
}

/// Walks the log in `folder` from `start`, where a record begins, to its end.
///
/// # Errors
///
/// Says why the log at `start` cannot be read. What lies behind the log's end,
/// torn or of another time, is no error.
pub fn walk(folder: &Folder, timeline: u32, system: u64, start: Lsn) -> Result<Walk, String> {
    let mut log = Log::open(folder, timeline, system)?;
    if !log.holds(start)? {
        let (end, records, commits) = (start, 0, 0);
        return Ok(Walk {
            end,
            records,
            commits,
        });
    }
    let mut walk = Walk {
        end: start,
        records: 0,
        commits: 0,
    };
    let mut before = None;
    let limit = Instant::now() + MAX_WALK;
    while let Some(record) = log.record(walk.end.0, before) {
        if Instant::now() > limit {
            return Err(format!("reading it takes longer than {MAX_WALK:?}"));
        }
        walk.records += 1;
        walk.commits += u64::from(record.commits);
        before = record.last;
        walk.end = Lsn(record.end);
    }
    Ok(walk)
}

/// A valid record, or one that was given up.
struct Record {
    /// Where the last valid record begins, if that is known.
    last: Option<u64>,
    end: u64,
    commits: bool,
}

struct Log<'a> {
    folder: &'a Folder,
    timeline: u32,
    system: u64,
    /// Bytes of a segment.
    segment: u64,
    /// Names of the right size, of this timeline and those before it.
    names: Vec<Name>,
    open: Option<(u64, File)>,
    page: Page,
}

/// A page that was read.
struct Page {
    at: u64,
    bytes: Vec<u8>,
    flags: u16,
    timeline: u32,
    /// Bytes of the record that it begins with the rest of.
    rest: u64,
}

impl Log<'_> {
    fn open(folder: &Folder, timeline: u32, system: u64) -> Result<Log<'_>, String> {
        let names = folder.names(Name::parse);
        let names = names.map_err(|error| format!("pg_wal: {error}"))?;
        let size = |name: &Name| folder.size_of(&name.to_string());
        // Any one that a server has written tells the size of all.
        let own = names.iter().filter(|name| name.timeline == timeline);
        let segment = own
            .filter_map(|name| {
                // WAL segments are powers of two from 1 MiB to 1 GiB.
                let fits =
                    |bytes: &u64| bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(bytes);
                let bytes = size(name).filter(fits)?;
                let file = folder.file(&name.to_string()).ok()??;
                begins_segment(&first_bytes(&file)?, system, bytes).then_some(bytes)
            })
            .next();
        let segment = segment.ok_or("it has no WAL of its timeline")?;
        let mut names = names;
        names.retain(|name| name.timeline <= timeline && size(name) == Some(segment));
        Ok(Log {
            folder,
            timeline,
            system,
            segment,
            names,
            open: None,
            page: Page {
                at: u64::MAX,
                bytes: vec![0; PAGE as usize],
                flags: 0,
                timeline: 0,
                rest: 0,
            },
        })
    }

    /// Says whether the log has come as far as `place`.
    fn holds(&self, place: Lsn) -> Result<bool, String> {
        let wanted = place.0 / self.segment;
        let number = |name: &Name| name.number(self.segment);
        if self.names.iter().any(|name| number(name) == wanted) {
            return Ok(true);
        }
        let own = |name: &&Name| name.timeline == self.timeline;
        match self
            .names
            .iter()
            .filter(own)
            .any(|name| number(name) > wanted)
        {
            true => Err(format!("the WAL at {place} has been removed already")),
            false => Ok(false),
        }
    }

    /// Reads the record that begins at `place`; nothing if there is no valid one.
    fn record(&mut self, place: u64, before: Option<u64>) -> Option<Record> {
        let start = self.first_byte(place)?;
        let mut reader = Reader {
            place: start,
            left: 4,
        };
        let mut header = [0; RECORD_HEADER as usize];
        reader.read(self, &mut header[..4])?;
        let length = u64::from(u32_at(&header, 0)?);
        if !(RECORD_HEADER..=MAX_RECORD).contains(&length) {
            return None;
        }
        reader.left = length - 4;
        if reader.read(self, &mut header[4..]).is_none() {
            return self.given_up(before, reader.place);
        }
        let previous = u64_at(&header, 8)?;
        if before.map_or(previous >= start, |before| previous != before) {
            return None;
        }
        let mut checksum = Checksum::new();
        let mut part = [0; 512];
        while reader.left > 0 {
            let length = reader.left.min(512) as usize;
            if reader.read(self, &mut part[..length]).is_none() {
                return self.given_up(before, reader.place);
            }
            checksum.add(&part[..length]);
        }
        checksum.add(&header[..CHECKSUM_AT]);
        if checksum.value() != u32_at(&header, CHECKSUM_AT)? {
            return None;
        }
        let (info, manager) = (header[16], header[17]);
        let end = reader.place.next_multiple_of(8);
        Some(Record {
            last: Some(start),
            end: match is_switch(manager, info) {
                true => end.next_multiple_of(self.segment),
                false => end,
            },
            commits: commits(manager, info),
        })
    }

    /// A server that crashed in the midst of a record, and recovered, has marked
    /// the page where the record would go on: it is skipped.
    fn given_up(&mut self, before: Option<u64>, place: u64) -> Option<Record> {
        let page = place.next_multiple_of(PAGE);
        self.load(page)?;
        if self.page.flags & OVERWRITES == 0 {
            return None;
        }
        Some(Record {
            // What comes next follows the record before the one that was given up.
            last: before,
            end: page,
            commits: false,
        })
    }

    /// Returns where a record that is at `place`, or behind a page's header, begins.
    fn first_byte(&mut self, place: u64) -> Option<u64> {
        self.load(place - place % PAGE)?;
        if !place.is_multiple_of(PAGE) {
            return Some(place);
        }
        let continues = self.page.flags & CONTINUES != 0;
        (!continues).then(|| place + self.header(place))
    }

    fn header(&self, page: u64) -> u64 {
        match page % self.segment {
            0 => LONG_HEADER,
            _ => SHORT_HEADER,
        }
    }

    /// Has the page at `at` in memory; nothing if it is not of this log.
    fn load(&mut self, at: u64) -> Option<()> {
        if self.page.at == at {
            return Some(());
        }
        let number = at / self.segment;
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            self.open = None;
            let file = self.segment_of(number)?;
            self.open = Some((number, file));
        }
        let (_, file) = self.open.as_ref()?;
        // In pieces that were written at once or not.
        let mut bytes = std::mem::take(&mut self.page.bytes);
        let read = file.read_exact_at(&mut bytes, at % self.segment);
        self.page.bytes = bytes;
        self.page.at = u64::MAX;
        read.ok()?;
        let bytes = &self.page.bytes;
        let (flags, timeline) = (u16_at(bytes, 2)?, u32_at(bytes, 4)?);
        let of_this_log = u64_at(bytes, 8)? == at
            && (1..=self.timeline).contains(&timeline)
            // Its own past lies behind the newer, never the other way round.
            && timeline >= self.page.timeline;
        let begins = at.is_multiple_of(self.segment);
        if !of_this_log || begins && !begins_segment(bytes, self.system, self.segment) {
            return None;
        }
        self.page.rest = u64::from(u32_at(bytes, 16)?);
        (self.page.at, self.page.flags, self.page.timeline) = (at, flags, timeline);
        Some(())
    }

    /// Opens a segment: of the newest timeline that has it. What only has its name,
    /// and not its beginning, is none.
    fn segment_of(&self, number: u64) -> Option<File> {
        let has_number = |name: &&Name| name.number(self.segment) == number;
        let mut names: Vec<&Name> = self.names.iter().filter(has_number).collect();
        names.sort_unstable_by_key(|name| name.timeline);
        names.into_iter().rev().find_map(|name| {
            let file = self.folder.file(&name.to_string()).ok()??;
            let bytes = first_bytes(&file)?;
            let begins = begins_segment(&bytes, self.system, self.segment);
            (begins && u64_at(&bytes, 8) == Some(number * self.segment)).then_some(file)
        })
    }
}

/// Reads the header of a segment's first page.
fn first_bytes(file: &File) -> Option<[u8; LONG_HEADER as usize]> {
    let mut bytes = [0; LONG_HEADER as usize];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

/// Says whether a segment of this system and size begins so.
fn begins_segment(bytes: &[u8], system: u64, segment: u64) -> bool {
    u64_at(bytes, 24) == Some(system)
        && u32_at(bytes, 32).map(u64::from) == Some(segment)
        && u32_at(bytes, 36).map(u64::from) == Some(PAGE)
}

/// Where in a record one is.
struct Reader {
    place: u64,
    left: u64,
}

impl Reader {
    /// Reads on, over the headers of pages.
    fn read(&mut self, log: &mut Log<'_>, into: &mut [u8]) -> Option<()> {
        let mut filled = 0;
        while filled < into.len() {
            if self.place.is_multiple_of(PAGE) {
                log.load(self.place)?;
                if log.page.flags & CONTINUES == 0 || log.page.rest != self.left {
                    return None;
                }
                self.place += log.header(self.place);
            }
            let offset = self.place % PAGE;
            log.load(self.place - offset)?;
            let room = (PAGE - offset) as usize;
            let part = room.min(into.len() - filled);
            let from = log
                .page
                .bytes
                .get(offset as usize..offset as usize + part)?;
            into[filled..filled + part].copy_from_slice(from);
            filled += part;
            self.place += part as u64;
            self.left = self.left.saturating_sub(part as u64);
        }
        Some(())
    }
}

/// Says whether a record ends its segment, whose rest is not used.
fn is_switch(manager: u8, info: u8) -> bool {
    manager == 0 && info & 0xF0 == 0x40
}

/// Says whether a record commits a transaction, prepares one, or commits one that
/// was prepared.
fn commits(manager: u8, info: u8) -> bool {
    manager == 1 && matches!(info & 0x70, 0x00 | 0x10 | 0x30)
}

/// The name of a segment.
struct Name {
    timeline: u32,
    high: u64,
    low: u64,
}

impl Name {
    fn parse(name: &str) -> Option<Name> {
        let plain = |c: char| c.is_ascii_digit() || ('A'..='F').contains(&c);
        if name.len() != 24 || !name.chars().all(plain) {
            return None;
        }
        let part = |from: usize| u32::from_str_radix(&name[from..from + 8], 16).ok();
        Some(Name {
            timeline: part(0)?,
            high: part(8)?.into(),
            low: part(16)?.into(),
        })
    }

    fn number(&self, segment: u64) -> u64 {
        self.high * ((1 << 32) / segment) + self.low
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline, self.high, self.low)
    }
}

/// In the machine's own byte order, as PostgreSQL writes them.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let part = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(part))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let part = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(part))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let part = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_ne_bytes(part))
}

/// CRC-32C, of Castagnoli.
struct Checksum(u32);

impl Checksum {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = match value & 1 {
                    1 => (value >> 1) ^ 0x82F6_3B78,
                    _ => value >> 1,
                };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };

    fn new() -> Checksum {
        Checksum(u32::MAX)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let index = (self.0 ^ u32::from(*byte)) & 0xFF;
            self.0 = Checksum::TABLE[index as usize] ^ (self.0 >> 8);
        }
    }

    fn value(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub mod writer;
