//! The one door to other programs: none runs longer than it may.

use std::fmt;
use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::text::printable;
use super::threads;

/// Time between two looks at whether a program has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// What is kept of what a program says: `docker inspect` says about 10 kB.
const MAX_SAID: u64 = 1024 * 1024;

/// Longest wait for the rest of its words once it has ended. A program of its
/// own that it left behind may hold the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Longest line of a program's that is told, in characters.
const MAX_WORDS: usize = 500;

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// It ended with exit code 0.
    pub success: bool,
    /// What it wrote to stdout, without white space at the ends.
    pub stdout: String,
    /// What it wrote to stderr, likewise.
    pub stderr: String,
}

impl Outcome {
    /// Returns the last line that it said, on stderr if there is one.
    pub fn last_words(&self) -> String {
        let said = [&self.stderr, &self.stdout];
        let last = said.iter().find_map(|text| text.lines().last());
        printable(last.unwrap_or("it said nothing").trim(), MAX_WORDS)
    }
}

/// Why a program did not run to its end.
#[derive(Debug)]
pub enum ProcessError {
    /// It could not be started.
    NotStarted(io::Error),
    /// It was still running after this long, and was killed.
    TimedOut(Duration),
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProcessError::NotStarted(error) => write!(f, "it cannot be run: {error}"),
            ProcessError::TimedOut(within) => write!(f, "no answer within {within:?}"),
        }
    }
}

impl std::error::Error for ProcessError {}

/// Runs a program with nothing on its stdin.
///
/// # Errors
///
/// Fails if it cannot be started, or is still there after `within`.
pub fn run(command: &mut Command, within: Duration) -> Result<Outcome, ProcessError> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(ProcessError::NotStarted)?;
    let stdout = collect(child.stdout.take()).map_err(ProcessError::NotStarted)?;
    let stderr = collect(child.stderr.take()).map_err(ProcessError::NotStarted)?;
    let Some(status) = wait(&mut child, within) else {
        // It may end by itself at this moment.
        let _ = child.kill();
        let _ = child.wait();
        return Err(ProcessError::TimedOut(within));
    };
    let words = |from: Receiver<String>| from.recv_timeout(LAST_WORDS).unwrap_or_default();
    Ok(Outcome {
        success: status.success(),
        stdout: words(stdout),
        stderr: words(stderr),
    })
}

fn wait(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let limit = Instant::now() + within;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < limit => thread::sleep(POLL_INTERVAL),
            _ => return None,
        }
    }
}

fn collect(from: Option<impl Read + Send + 'static>) -> io::Result<Receiver<String>> {
    let (sender, receiver) = channel();
    threads::spawn("said".to_owned(), move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.by_ref().take(MAX_SAID).read_to_end(&mut bytes);
            // What is beyond is read too: the program must not hang on it.
            let _ = io::copy(&mut from, &mut io::sink());
        }
        // Nobody waits any more when it took too long.
        let _ = sender.send(String::from_utf8_lossy(&bytes).trim().to_owned());
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, within: Duration) -> Result<Outcome, ProcessError> {
        run(Command::new("sh").args(["-c", script]), within)
    }

    #[test]
    fn what_a_program_says_and_how_it_ends_is_told() {
        let done = sh(
            "echo out; echo one >&2; echo two >&2; exit 3",
            LAST_WORDS * 10,
        );
        let done = done.expect("it runs");
        assert!(!done.success);
        assert_eq!(
            (done.stdout.as_str(), done.last_words().as_str()),
            ("out", "two")
        );
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let began = Instant::now();
        let done = sh("exec sleep 60", Duration::from_millis(50));
        assert!(matches!(done, Err(ProcessError::TimedOut(_))), "{done:?}");
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_program_that_says_too_much_still_ends() {
        let done = sh(
            "head -c 3000000 /dev/zero | tr '\\0' x",
            Duration::from_secs(60),
        );
        assert_eq!(done.expect("it ends").stdout.len() as u64, MAX_SAID);
    }
}
