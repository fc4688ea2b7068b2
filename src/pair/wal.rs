//! PostgreSQL's write-ahead log as it lies on a node's disk: walked record by
//! record, each proven by its checksum, as PostgreSQL's own recovery does it.
//! The format of records and pages is the same in PostgreSQL 12 to 18.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::probe::lsn::Lsn;

/// A page of the log. Another size is a build of one's own.
const PAGE: u64 = 8192;

/// Headers: of the first page of a segment, of every other one, and of a record.
const LONG_HEADER: u64 = 40;
const SHORT_HEADER: u64 = 24;
const RECORD_HEADER: u64 = 24;

/// The checksum is the last field of a record's header.
const CHECKSUM_AT: usize = 20;

/// PostgreSQL writes no longer record.
const RECORD_AT_MOST: u64 = 1020 * 1024 * 1024;

/// Flags of a page: it begins with the rest of a record, and that record was
/// given up and is to be skipped.
const CONTINUES: u16 = 1;
const OVERWRITES: u16 = 8;

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

/// Walks the log in `folder` from `start`, where a record begins, to its end.
///
/// # Errors
///
/// Says why the log at `start` cannot be read. What lies behind the log's end,
/// torn or of another time, is no error.
pub fn walk(folder: &Path, timeline: u32, system: u64, start: Lsn) -> Result<Walk, String> {
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
    while let Some(record) = log.record(walk.end.0, before) {
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

struct Log {
    folder: PathBuf,
    timeline: u32,
    system: u64,
    /// Bytes of a segment.
    segment: u64,
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

impl Log {
    fn open(folder: &Path, timeline: u32, system: u64) -> Result<Log, String> {
        let mut segment = None;
        for (name, bytes) in segments(folder)? {
            // WAL segments are powers of two from 1 MiB to 1 GiB.
            let fits = bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes);
            if fits && name.timeline == timeline {
                segment = Some(bytes);
            }
        }
        Ok(Log {
            folder: folder.to_owned(),
            timeline,
            system,
            segment: segment.ok_or("it has no WAL of its timeline")?,
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
        let mut later = false;
        for (name, _) in segments(&self.folder)? {
            if name.timeline <= self.timeline && number(&name) == wanted {
                return Ok(true);
            }
            later |= name.timeline == self.timeline && number(&name) > wanted;
        }
        match later {
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
        if !(RECORD_HEADER..=RECORD_AT_MOST).contains(&length) {
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
        if !of_this_log || at.is_multiple_of(self.segment) && !self.begins_segment(bytes) {
            return None;
        }
        self.page.rest = u64::from(u32_at(bytes, 16)?);
        (self.page.at, self.page.flags, self.page.timeline) = (at, flags, timeline);
        Some(())
    }

    fn begins_segment(&self, bytes: &[u8]) -> bool {
        u64_at(bytes, 24) == Some(self.system)
            && u32_at(bytes, 32).map(u64::from) == Some(self.segment)
            && u32_at(bytes, 36).map(u64::from) == Some(PAGE)
    }

    /// Opens a segment: of the newest timeline that has it.
    fn segment_of(&self, number: u64) -> Option<File> {
        let of_each = (1 << 32) / self.segment;
        let file = |timeline: &u32| {
            let (high, low) = (number / of_each, number % of_each);
            let path = self
                .folder
                .join(format!("{timeline:08X}{high:08X}{low:08X}"));
            // Whoever may write there is not trusted to leave a plain file.
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
            let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
            let about = |file: &File| file.metadata().ok();
            let plain = |file: &File| {
                about(file).is_some_and(|it| it.is_file() && it.len() == self.segment)
            };
            file.ok().filter(plain)
        };
        let names = segments(&self.folder).ok()?.into_iter();
        let mut timelines: Vec<u32> = names
            .filter(|(name, _)| name.number(self.segment) == number)
            .map(|(name, _)| name.timeline)
            .filter(|timeline| *timeline <= self.timeline)
            .collect();
        timelines.sort_unstable();
        timelines.last().and_then(file)
    }
}

/// Where in a record one is.
struct Reader {
    place: u64,
    left: u64,
}

impl Reader {
    /// Reads on, over the headers of pages.
    fn read(&mut self, log: &mut Log, into: &mut [u8]) -> Option<()> {
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

/// Lists the segments of a folder, and their sizes.
fn segments(folder: &Path) -> Result<Vec<(Name, u64)>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("pg_wal: {error}"))?;
    let of = |entry: fs::DirEntry| {
        let name = Name::parse(entry.file_name().to_str()?)?;
        let about = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some((name, about.len()))
    };
    Ok(entries.flatten().filter_map(of).collect())
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
mod tests {
    use super::*;

    const SEGMENT: u64 = 1 << 20;
    const SYSTEM: u64 = 7;

    /// A log in memory, written as PostgreSQL does it.
    struct Writer {
        bytes: Vec<u8>,
        place: u64,
        before: u64,
        timeline: u32,
    }

    impl Writer {
        /// Begins in the segment 1, as every database does.
        fn new() -> Writer {
            Writer {
                bytes: Vec::new(),
                place: SEGMENT,
                before: 0,
                timeline: 1,
            }
        }

        fn put(&mut self, bytes: &[u8], mut left: u64) {
            for byte in bytes {
                if self.place.is_multiple_of(PAGE) {
                    self.page(left);
                }
                self.bytes.push(*byte);
                self.place += 1;
                left = left.saturating_sub(1);
            }
        }

        fn page(&mut self, left: u64) {
            let mut header = Vec::new();
            header.extend(0xD116_u16.to_ne_bytes());
            header.extend(u16::from(left > 0).to_ne_bytes());
            header.extend(self.timeline.to_ne_bytes());
            header.extend(self.place.to_ne_bytes());
            header.extend((left as u32).to_ne_bytes());
            header.extend([0; 4]);
            if self.place.is_multiple_of(SEGMENT) {
                header.extend(SYSTEM.to_ne_bytes());
                header.extend((SEGMENT as u32).to_ne_bytes());
                header.extend((PAGE as u32).to_ne_bytes());
            }
            self.place += header.len() as u64;
            self.bytes.extend(header);
        }

        /// Writes a record with so many bytes of data; returns where it begins.
        fn record(&mut self, manager: u8, info: u8, data: usize) -> Lsn {
            if self.place.is_multiple_of(PAGE) {
                self.page(0);
            }
            let start = self.place;
            let data = vec![0x5A; data];
            let mut header = ((24 + data.len()) as u32).to_ne_bytes().to_vec();
            header.extend(9_u32.to_ne_bytes());
            header.extend(self.before.to_ne_bytes());
            header.extend([info, manager, 0, 0]);
            let mut checksum = Checksum::new();
            checksum.add(&data);
            checksum.add(&header);
            header.extend(checksum.value().to_ne_bytes());
            let whole = [header, data].concat();
            self.put(&whole, whole.len() as u64);
            let padding = self.place.next_multiple_of(8) - self.place;
            self.put(&[0; 8][..padding as usize], 0);
            self.before = start;
            Lsn(start)
        }

        /// Leaves the rest of the segment empty.
        fn switch(&mut self) {
            self.record(0, 0x40, 0);
            let rest = self.place.next_multiple_of(SEGMENT) - self.place;
            self.bytes.extend(vec![0; rest as usize]);
            self.place += rest;
        }

        /// Puts it on the disk in whole segments.
        fn save(&self, folder: &Path) {
            let whole = self.bytes.len().next_multiple_of(SEGMENT as usize);
            let mut bytes = self.bytes.clone();
            bytes.resize(whole, 0);
            for (index, segment) in bytes.chunks(SEGMENT as usize).enumerate() {
                let name = format!("{:08X}{:08X}{:08X}", self.timeline, 0, index + 1);
                fs::write(folder.join(name), segment).expect("writes");
            }
        }
    }

    fn walked(writer: &Writer, start: Lsn) -> Result<Walk, String> {
        let folder = tempfile::tempdir().expect("a folder");
        writer.save(folder.path());
        walk(folder.path(), writer.timeline, SYSTEM, start)
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        let mut checksum = Checksum::new();
        checksum.add(b"123456789");
        assert_eq!(checksum.value(), 0xE306_9283);
    }

    #[test]
    fn records_are_walked_over_pages_and_segments_and_commits_are_counted() {
        let mut writer = Writer::new();
        let first = writer.record(10, 0, 100);
        for length in [0, 1, 7, 8_000, 8_192, 30_000, 1_500_000, 3] {
            writer.record(10, 0, length);
        }
        writer.record(1, 0x00, 40);
        writer.record(1, 0x80, 9_000);
        writer.record(1, 0x10, 40);
        writer.record(1, 0x20, 40);
        writer.switch();
        writer.record(1, 0x30, 40);
        let end = Lsn(writer.place);
        let walk = Walk {
            end,
            records: 15,
            commits: 4,
        };
        assert_eq!(walked(&writer, first), Ok(walk));
        let at_the_end = Walk {
            end,
            records: 0,
            commits: 0,
        };
        assert_eq!(walked(&writer, end), Ok(at_the_end));
    }

    #[test]
    fn every_torn_byte_ends_the_log_before_its_record() {
        let mut writer = Writer::new();
        let first = writer.record(10, 0, 50);
        let second = writer.record(1, 0, 9_000);
        let third = writer.place;
        writer.record(1, 0, 50);
        let begin = (second.0 - SEGMENT) as usize;
        for at in (begin..(third - SEGMENT) as usize - 8).step_by(97) {
            let mut torn = Writer {
                bytes: writer.bytes.clone(),
                ..writer
            };
            torn.bytes[at] ^= 0xFF;
            let found = walked(&torn, first).expect("it begins");
            // The reserve of a page's header is of no meaning.
            let whole = found.end > second;
            assert!(
                !whole || at % PAGE as usize >= 20 && at % (PAGE as usize) < 24,
                "{at}"
            );
            assert!(
                whole || found.commits == 0 && found.end == second,
                "{at} {found:?}"
            );
        }
        let mut zeroed = Writer {
            bytes: writer.bytes.clone(),
            ..writer
        };
        zeroed.bytes.truncate(begin + 4_000);
        assert_eq!(walked(&zeroed, first).map(|walk| walk.end), Ok(second));
    }

    #[test]
    fn what_a_crash_cut_off_is_skipped_once_recovery_has_marked_it() {
        let mut writer = Writer::new();
        let first = writer.record(10, 0, 50);
        let before = writer.before;
        let cut = writer.record(10, 0, 12_000);
        let page = cut.0.next_multiple_of(PAGE);
        writer.bytes.truncate((page - SEGMENT) as usize);
        (writer.place, writer.before) = (page, before);
        assert_eq!(walked(&writer, first).map(|walk| walk.end), Ok(cut));
        writer.record(1, 0, 50);
        let flags = (page - SEGMENT) as usize + 2;
        writer.bytes[flags] = OVERWRITES as u8;
        for from in [first, cut] {
            let found = walked(&writer, from).expect("it begins");
            assert_eq!((found.end.0, found.commits), (writer.place, 1));
        }
    }

    #[test]
    fn a_log_of_others_is_none_and_one_that_is_gone_is_told() {
        let mut writer = Writer::new();
        let first = writer.record(1, 0, 100);
        let folder = tempfile::tempdir().expect("a folder");
        assert!(
            walk(folder.path(), 1, SYSTEM, first).is_err(),
            "nothing there"
        );
        assert!(walk(&folder.path().join("x"), 1, SYSTEM, first).is_err());
        writer.save(folder.path());
        let foreign = walk(folder.path(), 1, SYSTEM + 1, first).expect("it begins");
        assert_eq!(foreign.end, first, "another system's");
        let beyond = Lsn(5 * SEGMENT);
        assert_eq!(
            walk(folder.path(), 1, SYSTEM, beyond).map(|it| it.end),
            Ok(beyond)
        );
        let gone = walk(folder.path(), 1, SYSTEM, Lsn(40));
        assert!(gone.is_err_and(|why| why.contains("removed already")));
        // A recycled segment still holds the pages of its old place.
        let name = |number: u64| folder.path().join(format!("{:08X}{:016X}", 1, number));
        fs::copy(name(1), name(2)).expect("copies");
        assert_eq!(
            walk(folder.path(), 1, SYSTEM, Lsn(2 * SEGMENT)).map(|it| it.records),
            Ok(0)
        );
        // Nobody is led elsewhere.
        fs::rename(name(1), folder.path().join("aside")).expect("renames");
        std::os::unix::fs::symlink(folder.path().join("aside"), name(1)).expect("links");
        assert!(walk(folder.path(), 1, SYSTEM, first).is_err());
    }

    #[test]
    fn a_new_timeline_is_walked_from_within_the_old() {
        let mut old = Writer::new();
        let first = old.record(1, 0, 100);
        let fork = old.place;
        let mut new = Writer {
            bytes: old.bytes.clone(),
            ..old
        };
        old.record(1, 0, 2_000_000);
        let folder = tempfile::tempdir().expect("a folder");
        old.save(folder.path());
        new.timeline = 2;
        new.record(1, 0, 9_000);
        new.save(folder.path());
        let found = walk(folder.path(), 2, SYSTEM, first).expect("it begins");
        assert_eq!((found.end.0, found.commits), (new.place, 2));
        let found = walk(folder.path(), 2, SYSTEM, Lsn(fork)).expect("it begins");
        assert_eq!(found.commits, 1);
    }
}
