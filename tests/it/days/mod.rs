//! Bad days of the commands that change a pair.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::support::command::dies_with_us;
use crate::support::eventually;

/// Longest for what ends by itself, on a machine that is very busy.
const BY_ITSELF: Duration = Duration::from_secs(90);

/// A guard that outlived a test that was killed would go on to move its pair.
#[test]
fn command_ends_with_the_thread_that_started_it() {
    let started = thread::spawn(|| {
        let mut command = dies_with_us("sleep".to_owned());
        let child = command.arg("600").spawn().expect("sleep runs");
        // Until then it is what arranges that.
        let name = format!("/proc/{}/comm", child.id());
        eventually(BY_ITSELF, "sleep runs", || {
            let name = fs::read_to_string(&name).expect("it is our own child");
            (name == "sleep\n").then_some(())
        });
        child
    });
    let mut child = started.join().expect("it only starts it");
    eventually(BY_ITSELF, "it has ended", || {
        child.try_wait().expect("it is our own child")
    });
}
