//! What other threads tell the gate: verdicts, and to stop.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::write;

use super::clients::Token;
use crate::probe::verdict::Verdict;
use crate::runtime::threads::lock;

/// Wakes the gate with what it has to know. Whoever tells it something never waits
/// for a client.
#[derive(Debug)]
pub struct Control {
    mailbox: Mutex<Mailbox>,
    wakes: OwnedFd,
    /// Rounds that the gate has made.
    rounds: AtomicU64,
}

#[derive(Debug, Default)]
struct Mailbox {
    verdicts: Vec<(Token, Verdict)>,
    stops: Stops,
    /// Something has come that the gate has not seen.
    has_news: bool,
    /// The gate waits for something to happen.
    is_asleep: bool,
}

/// When and how often the gate was told to stop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stops {
    /// When it was told first.
    pub first: Option<Instant>,
    /// How often.
    pub count: usize,
}

impl Control {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// Fails if there is no descriptor for it.
    pub fn new() -> io::Result<Control> {
        Ok(Control {
            mailbox: Mutex::default(),
            wakes: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            rounds: AtomicU64::new(0),
        })
    }

    /// Returns the descriptor that is written to when the gate is to wake up.
    pub fn wakes(&self) -> &OwnedFd {
        &self.wakes
    }

    /// Has a client answered with this verdict.
    pub fn settled(&self, client: Token, verdict: Verdict) {
        self.tell(|mailbox| mailbox.verdicts.push((client, verdict)));
    }

    /// Tells the gate to stop: drain, answer what is in flight, return. Told twice,
    /// it does not drain any longer.
    pub fn stop(&self) {
        self.tell(|mailbox| {
            mailbox.stops.first.get_or_insert_with(Instant::now);
            mailbox.stops.count += 1;
        });
    }

    fn tell(&self, change: impl FnOnce(&mut Mailbox)) {
        let mut mailbox = lock(&self.mailbox);
        change(&mut mailbox);
        mailbox.has_news = true;
        let wakes = std::mem::take(&mut mailbox.is_asleep);
        drop(mailbox);
        if wakes {
            // It only fails if it was told four billion times and never woke.
            let _ = write(&self.wakes, &1_u64.to_ne_bytes());
        }
    }

    /// Called before the gate waits: says whether it may, as nothing has come.
    pub fn may_sleep(&self) -> bool {
        let mut mailbox = lock(&self.mailbox);
        mailbox.is_asleep = !mailbox.has_news;
        mailbox.is_asleep
    }

    /// Takes what has come: the verdicts into `verdicts`, which is empty.
    pub fn take(&self, verdicts: &mut Vec<(Token, Verdict)>) -> Stops {
        let mut mailbox = lock(&self.mailbox);
        mailbox.is_asleep = false;
        mailbox.has_news = false;
        std::mem::swap(&mut mailbox.verdicts, verdicts);
        mailbox.stops
    }

    /// Counts a round of the gate.
    pub fn turned(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many rounds the gate has made.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }
}
