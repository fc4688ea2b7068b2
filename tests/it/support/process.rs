//! The one door to processes that run to their end: none runs longer than it may.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How a process ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Returns the exit code; fails the test if a signal ended the process.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("it was ended by a signal: {self:?}"))
    }
}

/// Runs a command with `input` on its stdin; fails the test if it is still
/// there after `within`.
pub fn run(command: &mut Command, input: &[u8], within: Duration) -> Outcome {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    // A process that does not want its input need not take it.
    let _ = stdin.write_all(input);
    drop(stdin);
    let Some(status) = wait(&mut child, within) else {
        end(&mut child);
        panic!("still there after {within:?}: {command:?}");
    };
    Outcome {
        status,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

/// Waits for a process to end; `None` if it does not in time.
pub fn wait(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let limit = Instant::now() + within;
    loop {
        let ended = child.try_wait().expect("it is our own child");
        if ended.is_some() || Instant::now() >= limit {
            return ended;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Kills a process and takes its leave of it.
pub fn end(child: &mut Child) {
    // It may have ended by itself meanwhile.
    let _ = child.kill();
    let _ = child.wait();
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
