//! What PostgreSQL's control file says of a node that does not run: how it
//! ended, and where its last checkpoint is. `pg_controldata` would say the same
//! half a second later, and that half second is in the write gap.

use std::fmt;
use std::io;

use super::data_dir::Folder;
use super::lsn::Lsn;

/// What is read of it; PostgreSQL writes 296 bytes.
const BYTES: u64 = 512;

/// Versions of the control file whose beginning is known: PostgreSQL 12, 13 to
/// 16, 17, and 18.
const KNOWN_VERSIONS: [u32; 4] = [1201, 1300, 1700, 1800];

/// How a node ended, or what it was doing when it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Cleanly, as a primary.
    ShutDown,
    /// Cleanly, as a standby.
    ShutDownInRecovery,
    /// Not at all: it runs as a primary, or crashed as one.
    InProduction,
    /// In any other way: in the midst of a recovery or a shutdown.
    Otherwise,
}

impl Ended {
    /// Returns a word for it.
    pub fn word(self) -> &'static str {
        match self {
            Ended::ShutDown => "shut_down",
            Ended::ShutDownInRecovery => "shut_down_in_recovery",
            Ended::InProduction => "in_production",
            Ended::Otherwise => "otherwise",
        }
    }
}

/// The facts of a control file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// Which database system the data belongs to.
    pub system: u64,
    /// How it ended.
    pub ended: Ended,
    /// Where the record of the last checkpoint begins.
    pub checkpoint: Lsn,
    /// The timeline at the last checkpoint.
    pub timeline: u32,
}

/// Why a control file says nothing.
#[derive(Debug)]
pub enum ControlError {
    /// The data itself cannot be opened.
    NoData(io::Error),
    /// It cannot be read.
    Unreadable(io::Error),
    /// It is shorter than a control file.
    Short,
    /// It is damaged, or of another PostgreSQL than those known.
    Unknown,
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::NoData(error) => write!(
                f,
                "{error}: put the data back there, or move away what is there and run pgpair rejoin"
            ),
            ControlError::Unreadable(error) => write!(f, "global/pg_control: {error}"),
            ControlError::Short => f.write_str("global/pg_control is damaged"),
            ControlError::Unknown => f.write_str(
                "global/pg_control is damaged, or of a PostgreSQL that this pgpair does not know",
            ),
        }
    }
}

impl std::error::Error for ControlError {}

/// Reads the control file of `pgdata`.
///
/// # Errors
///
/// Fails if it cannot be read, or is not of a known version.
pub fn read(pgdata: &Folder) -> Result<Control, ControlError> {
    let bytes = pgdata.folder("global").and_then(|global| {
        let bytes = global.and_then(|global| global.read("pg_control", BYTES).transpose());
        bytes
            .transpose()?
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    });
    parse(&bytes.map_err(ControlError::Unreadable)?)
}

/// Parses the beginning of `ControlFileData`, which is in the machine's own
/// byte order: system_identifier, pg_control_version, catalog_version_no,
/// state, time, checkPoint, then the checkpoint's copy: redo, ThisTimeLineID.
fn parse(bytes: &[u8]) -> Result<Control, ControlError> {
    let version = word(bytes, 8)?;
    if !KNOWN_VERSIONS.contains(&version) {
        return Err(ControlError::Unknown);
    }
    Ok(Control {
        system: long(bytes, 0)?,
        ended: match word(bytes, 16)? {
            1 => Ended::ShutDown,
            2 => Ended::ShutDownInRecovery,
            6 => Ended::InProduction,
            _ => Ended::Otherwise,
        },
        checkpoint: Lsn(long(bytes, 32)?),
        timeline: word(bytes, 48)?,
    })
}

fn word(bytes: &[u8], at: usize) -> Result<u32, ControlError> {
    let found = bytes.get(at..at + 4).and_then(|part| part.try_into().ok());
    found.map(u32::from_ne_bytes).ok_or(ControlError::Short)
}

fn long(bytes: &[u8], at: usize) -> Result<u64, ControlError> {
    let found = bytes.get(at..at + 8).and_then(|part| part.try_into().ok());
    found.map(u64::from_ne_bytes).ok_or(ControlError::Short)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u32, state: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(7_u64.to_ne_bytes());
        bytes.extend(version.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(state.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(0_u64.to_ne_bytes());
        bytes.extend(0x300_0028_u64.to_ne_bytes());
        bytes.extend(0x300_0028_u64.to_ne_bytes());
        bytes.extend(4_u32.to_ne_bytes());
        bytes
    }

    #[test]
    fn every_state_is_told_and_only_a_clean_end_is_clean() {
        for state in 0..8 {
            let found = parse(&file(1300, state)).expect("a whole file");
            let ended = match state {
                1 => Ended::ShutDown,
                2 => Ended::ShutDownInRecovery,
                6 => Ended::InProduction,
                _ => Ended::Otherwise,
            };
            let whole = Control {
                system: 7,
                ended,
                checkpoint: Lsn(0x300_0028),
                timeline: 4,
            };
            assert_eq!(found, whole, "{state}");
        }
    }

    #[test]
    fn what_is_short_or_unknown_says_nothing() {
        assert!(matches!(parse(&file(1900, 1)), Err(ControlError::Unknown)));
        let whole = file(1300, 1);
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
    }
}
