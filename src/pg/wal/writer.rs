//! A log that a test writes, as PostgreSQL does it.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::{Checksum, Lsn, PAGE};

/// Bytes of its segments.
pub const SEGMENT: u64 = 1 << 20;

/// The system that it belongs to.
pub const SYSTEM: u64 = 7;

/// A log in memory.
#[derive(Clone, Debug)]
pub struct Writer {
    pub(super) bytes: Vec<u8>,
    /// Where it ends.
    pub place: u64,
    pub(super) before: u64,
    /// The timeline that it is on.
    pub timeline: u32,
}

impl Writer {
    /// Begins in the segment 1, as every database does.
    pub fn begin() -> Writer {
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
    pub fn record(&mut self, manager: u8, info: u8, data: usize) -> Lsn {
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
    pub fn switch(&mut self) {
        self.record(0, 0x40, 0);
        let rest = self.place.next_multiple_of(SEGMENT) - self.place;
        self.bytes.extend(vec![0; rest as usize]);
        self.place += rest;
    }

    /// Puts it on the disk in whole segments.
    pub fn save(&self, folder: &Path) {
        for (index, segment) in self.bytes.chunks(SEGMENT as usize).enumerate() {
            let name = format!("{:08X}{:08X}{:08X}", self.timeline, 0, index + 1);
            let mut file = File::create(folder.join(name)).expect("makes");
            file.write_all(segment).expect("writes");
            file.set_len(SEGMENT).expect("writes");
        }
    }
}
