//! The only file that runs the `docker` client. Every call has a time limit.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::runtime::process::{self, Outcome, ProcessError};

/// Longest for a question, on a host that is very busy.
pub const MAX_ASK: Duration = Duration::from_secs(15);

/// Longest for starting, killing or removing a container.
const MAX_ACT: Duration = Duration::from_secs(60);

/// Time between two tries at what somebody else is doing already.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Longest for a clean stop beyond what the container is given: what Docker
/// takes itself.
const MAX_STOP: Duration = Duration::from_secs(30);

/// What went wrong with Docker.
#[derive(Debug)]
pub enum DockerError {
    /// The client cannot be run, or does not answer.
    Client(&'static str, ProcessError),
    /// It said no.
    Said(&'static str, String),
    /// It said what cannot be understood.
    Garbled(&'static str),
}

impl fmt::Display for DockerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DockerError::Client(verb, error) => write!(f, "docker {verb}: {error}"),
            DockerError::Said(verb, text) => write!(f, "docker {verb}: {text}"),
            DockerError::Garbled(verb) => write!(f, "docker {verb} gave no sensible answer"),
        }
    }
}

impl std::error::Error for DockerError {}

/// What Docker says of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id, of 64 hexadecimal digits.
    pub id: String,
    /// `running`, `paused`, `restarting`, `exited`, `dead`, `created`.
    pub status: String,
    /// It has a first process; also when that is frozen.
    pub running: bool,
    /// Its processes are frozen.
    pub paused: bool,
    /// Its first process, by its id on the host; 0 without one.
    pub pid: u32,
    /// The image that it was made from, by its id.
    pub image: String,
    /// The limit of its memory in bytes; none if it is 0.
    pub memory_bytes: Option<u64>,
    /// The pair that it is marked as belonging to, empty without one.
    pub pair: String,
}

/// Has `docker inspect` print what [`parse`] reads.
const FORMAT: &str = "--format={{.Id}}|{{.State.Status}}|{{.State.Running}}|{{.State.Paused}}|{{.State.Pid}}|{{.Image}}\
    |{{.HostConfig.Memory}}|{{index .Config.Labels \"org.pgpair.project\"}}";

fn parse(line: &str) -> Option<Container> {
    let cells: Vec<&str> = line.split('|').collect();
    let [id, status, running, paused, pid, image, memory, pair] = cells[..] else {
        return None;
    };
    let whole = id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit());
    whole.then_some(Container {
        id: id.to_owned(),
        status: status.to_owned(),
        running: running == "true",
        paused: paused == "true",
        pid: pid.parse().ok()?,
        image: image.to_owned(),
        memory_bytes: Some(memory.parse().ok()?).filter(|&bytes| bytes > 0),
        pair: pair.to_owned(),
    })
}

/// Returns what Docker says of a container; nothing if there is none.
///
/// # Errors
///
/// Fails if Docker does not answer within the limit.
pub fn inspect(name: &str, within: Duration) -> Result<Option<Container>, DockerError> {
    const VERB: &str = "inspect";
    let arguments = ["inspect", "--type", "container", FORMAT, name];
    let done = run(VERB, &arguments, within)?;
    if !done.success {
        return match done.stderr.to_lowercase().contains("no such container") {
            true => Ok(None),
            false => Err(DockerError::Said(VERB, done.last_words())),
        };
    }
    let found = parse(&done.stdout);
    found.map(Some).ok_or(DockerError::Garbled(VERB))
}

/// Stops a container gently, and kills it if it is still there after `within`:
/// a shell that is about to start the server loses the signal. One that is
/// stopped stays so, and none is no error.
///
/// # Errors
///
/// Fails if Docker does not do it in time.
pub fn stop(name: &str, within: Duration) -> Result<(), DockerError> {
    let seconds = within.as_secs().to_string();
    let stopped = act(
        "stop",
        &["stop", "--time", &seconds, name],
        within + MAX_STOP,
    );
    unless_it_is(&["no such container"], stopped)
}

/// Kills a container, frozen or not. None, or one that does not run, is no error.
///
/// # Errors
///
/// Fails if Docker does not do it in time.
pub fn kill(name: &str) -> Result<(), DockerError> {
    let told = ["no such container", "is not running"];
    unless_it_is(&told, act("kill", &["kill", name], MAX_ACT))
}

/// Starts a container; one that runs goes on.
///
/// # Errors
///
/// Fails if Docker does not do it in time.
pub fn start(name: &str) -> Result<(), DockerError> {
    act("start", &["start", name], MAX_ACT)
}

/// Thaws a container.
///
/// # Errors
///
/// Fails if Docker does not do it in time.
pub fn unpause(name: &str) -> Result<(), DockerError> {
    act("unpause", &["unpause", name], MAX_ACT)
}

/// Removes a container, running or not; none is no error. One that is being
/// removed, by its own `--rm` for example, is waited for: until then its name is
/// taken and it may still be at work.
///
/// # Errors
///
/// Fails if Docker does not do it in time.
pub fn remove(name: &str) -> Result<(), DockerError> {
    let limit = Instant::now() + MAX_ACT;
    loop {
        let removed = act("rm", &["rm", "--force", "--volumes", name], MAX_ACT);
        match unless_it_is(&["no such container"], removed) {
            Err(DockerError::Said(_, text))
                if text.contains("already in progress") && Instant::now() < limit =>
            {
                thread::sleep(ASK_AGAIN_AFTER);
            }
            other => return other,
        }
    }
}

/// Takes some of what Docker says for success.
fn unless_it_is(words: &[&str], done: Result<(), DockerError>) -> Result<(), DockerError> {
    match done {
        Err(DockerError::Said(_, text))
            if words.iter().any(|word| text.to_lowercase().contains(word)) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// A container that does one thing and is gone.
#[derive(Debug)]
pub struct OneShot<'a> {
    /// Its name.
    pub name: &'a str,
    /// The label that it carries.
    pub label: String,
    /// Its image.
    pub image: &'a str,
    /// User and group id.
    pub user: (u32, u32),
    /// Its network: `none`, or the pair's.
    pub network: &'a str,
    /// The limit of its memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Folders of the host, where they are inside, and whether they are only read.
    pub mounts: Vec<(PathBuf, &'static str, bool)>,
    /// The shell script that it runs.
    pub script: &'a str,
}

/// Runs a one-shot container to its end.
///
/// # Errors
///
/// Fails if Docker cannot run it or it takes too long; it is removed then. What
/// the script makes of it is in the outcome.
pub fn run_once(shot: &OneShot<'_>, within: Duration) -> Result<Outcome, DockerError> {
    // One that a killed command left behind would still be at work.
    remove(shot.name)?;
    let mut arguments: Vec<String> = ["run", "--rm", "--name", shot.name, "--label", &shot.label]
        .map(str::to_owned)
        .to_vec();
    let (user, group) = shot.user;
    arguments.extend(["--user".into(), format!("{user}:{group}")]);
    arguments.extend(["--network", shot.network, "--restart", "no"].map(str::to_owned));
    arguments.extend(["--no-healthcheck", "--pull", "never"].map(str::to_owned));
    arguments.extend(["--cap-drop", "ALL"].map(str::to_owned));
    arguments.extend(["--security-opt", "no-new-privileges"].map(str::to_owned));
    // What its tools say is read, in whatever language the image speaks.
    arguments.extend(["--env", "LC_ALL=C"].map(str::to_owned));
    if let Some(bytes) = shot.memory_bytes {
        arguments.extend(["--memory".into(), bytes.to_string()]);
    }
    for (source, target, read_only) in &shot.mounts {
        let suffix = if *read_only { ",readonly" } else { "" };
        let source = source.display();
        let mount = format!("type=bind,source={source},target={target}{suffix}");
        arguments.extend(["--mount".into(), mount]);
    }
    arguments
        .extend(["--entrypoint", "/bin/sh", shot.image, "-ec", shot.script].map(str::to_owned));
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = run("run", &words, within);
    if done.is_err() {
        // The first error is the one to tell.
        let _ = remove(shot.name);
    }
    done
}

fn act(verb: &'static str, arguments: &[&str], within: Duration) -> Result<(), DockerError> {
    let done = run(verb, arguments, within)?;
    match done.success {
        true => Ok(()),
        false => Err(DockerError::Said(verb, done.last_words())),
    }
}

/// The engine of this host, whose disks these are: another one's containers of the
/// same names are not the pair's, whatever whoever calls this has exported.
const OWN_ENGINE: (&str, &str) = ("DOCKER_HOST", "unix:///var/run/docker.sock");

/// With the engine's own socket these only keep the client from reaching it.
const NOT_FOR_IT: [&str; 4] = [
    "DOCKER_CONTEXT",
    "DOCKER_TLS",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
];

fn run(verb: &'static str, arguments: &[&str], within: Duration) -> Result<Outcome, DockerError> {
    let mut command = Command::new("docker");
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .env(OWN_ENGINE.0, OWN_ENGINE.1);
    for name in NOT_FOR_IT {
        command.env_remove(name);
    }
    process::run(&mut command, within).map_err(|error| DockerError::Client(verb, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_prints_is_read() {
        let id = "0123456789abcdef".repeat(4);
        let with_id = |rest: &str| parse(&format!("{id}|{rest}"));
        let container = with_id("paused|true|true|77|sha256:ab|268435456|p").expect("seven cells");
        assert_eq!(container.id, id);
        assert_eq!(
            (container.status.as_str(), container.pair.as_str()),
            ("paused", "p")
        );
        assert!(container.running && container.paused && container.pid == 77);
        assert_eq!(container.memory_bytes, Some(256 << 20));
        let container = with_id("exited|false|false|0|sha256:ab|0|").expect("seven cells");
        assert!(!container.running && container.pair.is_empty());
        assert_eq!(container.memory_bytes, None);
        for garbled in ["", "exited|false", "exited|false|false|0|x|much|p"] {
            assert_eq!(with_id(garbled), None, "{garbled:?}");
        }
        assert_eq!(parse("|exited|false|false|0|sha256:ab|0|"), None, "no id");
    }
}
