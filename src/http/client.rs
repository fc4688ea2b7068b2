//! One client's connection: what has come from it, what is on its way to it. Nothing
//! here ever waits.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use super::access::{Origin, Standing};
use super::head::{self, Head, MAX_HEAD_BYTES, Refusal};
use super::response::{BodyPart, Framing};
use super::routes::OTHER;

/// So much is read at once, and no more than that is taken in ahead of the request
/// that is being answered: what a client pipelines beyond stays in the kernel's
/// buffer, and TCP has the client wait.
pub const READ_BYTES: usize = 16 * 1024;

/// A head up to this is looked at before its end is here, so that what can be no
/// request is refused at once. A longer one is looked at once, when it is whole.
const MAX_EARLY_BYTES: usize = 1024;

/// Longest that is read after a last answer, so that a client that goes on sending
/// (a body, say) is not reset before it has read it.
const MAX_DISCARDED_BYTES: usize = 2 * 1024 * 1024;

/// A refusal is framed like this: nobody knows how the client wants it.
const REFUSAL: Framing = Framing {
    body: BodyPart::Whole,
    http_1_0: false,
    keep_alive: false,
};

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The next request is awaited, or its rest.
    Reading,
    /// A request is being worked on.
    Asked,
    /// The kernel has not taken the whole answer yet.
    Writing,
    /// The last answer is sent; what still comes is discarded.
    Lingering,
}

/// How sending an answer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel has all of it.
    All,
    /// The kernel takes no more for now.
    Part,
    /// Nobody will ever read it.
    Failed,
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    /// Where it stands.
    pub standing: Standing,
    /// Where the request that is being worked on comes from.
    pub origin: Origin,
    /// What it is at.
    pub state: State,
    /// When that began; a request or two do not make `Reading` any younger than the
    /// last answer.
    pub since: Instant,
    /// When the request that is being worked on was there.
    pub asked: Instant,
    /// What that request is counted under.
    pub label: &'static str,
    /// It has had an answer.
    pub is_known: bool,
    /// It waits for its turn: see [`super::gate`].
    pub is_queued: bool,
    /// The socket may have more to read.
    pub is_readable: bool,
    /// The client sends nothing any more.
    has_finished: bool,
    framing: Framing,
    is_refused: bool,
    input: Vec<u8>,
    /// In so much of the input there is no end of a head.
    scanned: usize,
    discarded: usize,
    output: Vec<u8>,
    sent: usize,
    closes: bool,
}

impl Client {
    /// Takes a socket that does not block.
    pub fn new(stream: TcpStream, standing: Standing) -> Client {
        let now = Instant::now();
        Client {
            stream,
            standing,
            origin: Origin::UNKNOWN,
            state: State::Reading,
            since: now,
            asked: now,
            label: OTHER,
            is_known: false,
            is_queued: false,
            // It may be: that is found out by reading.
            is_readable: true,
            has_finished: false,
            framing: REFUSAL,
            is_refused: false,
            input: Vec::new(),
            scanned: 0,
            discarded: 0,
            output: Vec::new(),
            sent: 0,
            closes: false,
        }
    }

    /// Returns its socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Counts the bytes that it has us hold.
    pub fn held_bytes(&self) -> usize {
        self.input.capacity() + self.output.capacity()
    }

    /// Counts the bytes of its answer that the kernel has not taken.
    pub fn unsent_bytes(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Says whether a request was begun and is not whole.
    pub fn has_begun(&self) -> bool {
        !self.input.is_empty()
    }

    /// Says whether the client will send nothing any more.
    pub fn is_at_end(&self) -> bool {
        self.has_finished && !self.is_readable
    }

    /// Says whether there may be another request without waiting.
    pub fn has_more(&self) -> bool {
        !self.input.is_empty() || self.is_readable || self.has_finished
    }

    /// Reads once, if there may be something and no whole head is here already.
    ///
    /// # Errors
    ///
    /// Fails if the connection is broken.
    pub fn read(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        if !self.is_readable || head::has_end(&self.input, self.scanned) {
            return Ok(());
        }
        let count = self.read_once(scratch)?;
        self.input.extend_from_slice(&scratch[..count]);
        Ok(())
    }

    /// Reads what comes after the last answer, and forgets it. Returns whether the
    /// connection can be closed.
    ///
    /// # Errors
    ///
    /// Fails if the connection is broken.
    pub fn discard(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        while self.is_readable && self.discarded < MAX_DISCARDED_BYTES {
            self.discarded += self.read_once(scratch)?;
        }
        Ok(self.has_finished || self.discarded >= MAX_DISCARDED_BYTES)
    }

    fn read_once(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(scratch) {
            Ok(0) => {
                self.has_finished = true;
                self.is_readable = false;
                Ok(0)
            }
            Ok(count) => {
                // The next that comes is told.
                self.is_readable = count == scratch.len();
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_readable = false;
                Ok(0)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Looks for a whole head in what has come.
    ///
    /// # Errors
    ///
    /// Fails if what has come can be no request.
    pub fn head(&mut self) -> Result<Option<Head<'_>>, Refusal> {
        let empty = head::leading_line_ends(&self.input);
        if empty > 0 {
            self.input.drain(..empty);
            self.scanned = 0;
        }
        let whole = head::has_end(&self.input, self.scanned);
        let early = !whole && self.input.len() <= MAX_EARLY_BYTES;
        if !whole {
            self.scanned = self.input.len();
        }
        if (whole || early)
            && let Some(head) = head::parse(&self.input)?
        {
            return match head.length {
                ..=MAX_HEAD_BYTES => Ok(Some(head)),
                _ => Err(Refusal::TooLarge),
            };
        }
        if self.input.len() > MAX_HEAD_BYTES {
            return Err(Refusal::TooLarge);
        }
        match self.is_at_end() && self.has_begun() {
            true => Err(Refusal::CutShort),
            false => Ok(None),
        }
    }

    /// Begins to work on the request whose head takes so many bytes.
    pub fn ask(&mut self, length: usize, framing: Framing, origin: Origin) {
        self.origin = origin;
        self.input.drain(..length);
        if self.input.is_empty() && self.input.capacity() > MAX_EARLY_BYTES {
            self.input = Vec::new();
        }
        self.scanned = 0;
        self.label = OTHER;
        self.framing = framing;
        self.state = State::Asked;
        self.asked = Instant::now();
    }

    /// Begins to refuse what has come, whatever it is. It is not looked at again.
    pub fn give_up(&mut self) {
        self.input = Vec::new();
        self.scanned = 0;
        self.is_refused = true;
        // Of a request whose head was read it is known how it is to be answered.
        if self.state != State::Asked {
            self.label = OTHER;
            self.framing = REFUSAL;
            self.state = State::Asked;
            self.asked = Instant::now();
        }
    }

    /// Returns how the client wants its answer.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Begins to send an answer; the connection ends after it if `closes`.
    pub fn answer(&mut self, bytes: Vec<u8>, closes: bool) -> Sent {
        self.state = State::Writing;
        self.since = Instant::now();
        self.output = bytes;
        self.sent = 0;
        self.closes = closes || !self.framing.keep_alive;
        self.send()
    }

    /// Sends what the kernel takes.
    pub fn send(&mut self) -> Sent {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Sent::Part,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Sent::Failed,
            }
        }
        self.output = Vec::new();
        self.sent = 0;
        self.is_known = true;
        Sent::All
    }

    /// Goes on after an answer. Returns whether the connection can be closed at once.
    pub fn go_on(&mut self) -> bool {
        self.since = Instant::now();
        if !self.closes {
            self.state = State::Reading;
            return false;
        }
        self.state = State::Lingering;
        // Who wanted the end, and has sent nothing else, loses nothing.
        let wanted = !self.framing.keep_alive && !self.is_refused;
        if wanted && self.input.is_empty() && !self.is_readable {
            return true;
        }
        self.input = Vec::new();
        // Broken already is as good.
        let _ = self.stream.shutdown(Shutdown::Write);
        false
    }
}
