//! Logs to stderr, one line an event: `event key=value …`.
//!
//! Lines go through a bounded queue to a thread of their own, so that a stderr
//! that nobody reads cannot hold up an answer. What does not fit is dropped.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use log::LevelFilter;
use simplelog::{ConfigBuilder, WriteLogger};

use super::threads;

/// Lines that may wait for stderr: a burst of changes of every node, twice over.
const QUEUE_LINES: usize = 256;

/// Longest wait for the last lines at the end.
const MAX_FLUSH: Duration = Duration::from_millis(200);

/// Lines handed over and not yet written.
static UNWRITTEN: AtomicUsize = AtomicUsize::new(0);

/// Starts logging.
///
/// # Errors
///
/// Fails if the thread cannot be started or something else logs already.
pub fn start(level: LevelFilter) -> io::Result<()> {
    let (sender, receiver) = sync_channel::<Vec<u8>>(QUEUE_LINES);
    threads::spawn("log".to_owned(), move || {
        for line in receiver {
            // Nowhere is left to report that stderr is gone.
            let _ = io::stderr().write_all(&line);
            UNWRITTEN.fetch_sub(1, Ordering::Release);
        }
    })?;
    let config = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_time_level(LevelFilter::Error)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .add_filter_allow_str("pgpair")
        .build();
    let queue = Queue {
        sender,
        line: Vec::new(),
    };
    WriteLogger::init(level, config, queue).map_err(io::Error::other)
}

/// Waits a moment for what was logged to be written.
pub fn flush() {
    let limit = Instant::now() + MAX_FLUSH;
    while UNWRITTEN.load(Ordering::Acquire) > 0 && Instant::now() < limit {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Collects what the logger writes into whole lines.
struct Queue {
    sender: SyncSender<Vec<u8>>,
    line: Vec<u8>,
}

impl Write for Queue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") {
            let line = std::mem::take(&mut self.line);
            UNWRITTEN.fetch_add(1, Ordering::Release);
            if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
                self.sender.try_send(line)
            {
                UNWRITTEN.fetch_sub(1, Ordering::Release);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
