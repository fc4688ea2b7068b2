//! `pgpair serve`: puts the parts together and runs until told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::http::server::{Door, Options};
use crate::probe::board::{Board, Rules};
use crate::probe::db::NodeTarget;
use crate::probe::watch::{self, Target};
use crate::{EXIT_FAILURE, crash, logging};

/// Every HTTP connection takes two descriptors; the rest needs some dozens.
const DESCRIPTORS_BESIDE: u64 = 64;

/// Runs the probe; returns the exit code.
pub fn serve(config: Config) -> u8 {
    crash::install();
    let listen = config.listen;
    match run(config, listen) {
        Ok(exit_code) => {
            logging::flush();
            exit_code
        }
        Err(error) => {
            logging::flush();
            eprintln!("pgpair: {error}");
            EXIT_FAILURE
        }
    }
}

fn run(config: Config, listen: SocketAddr) -> io::Result<u8> {
    let with = |what: String| move |error| io::Error::other(format!("{what}: {error}"));
    // Bound first: a taken port is told before anything else happens.
    let door = Door::open(listen).map_err(with(format!(
        "cannot listen on {listen} (stop what uses it, or choose another with --listen)"
    )))?;
    logging::start(config.log).map_err(with("cannot log".to_owned()))?;
    raise_descriptor_limit(config.max_connections);

    let (names, settings): (Vec<String>, Vec<_>) = config.nodes.into_iter().unzip();
    let rules = Rules {
        nodes: names.into(),
        policy: config.ready,
        deadline: config.deadline,
        interval: config.interval,
        stuck_after: config.stuck_after,
    };
    let door = Arc::new(door);
    let to_stop = Arc::clone(&door);
    // Before the first line: who has read it may tell us to stop.
    ctrlc::set_handler(move || to_stop.stop()).map_err(io::Error::other)?;
    log::info!(
        "listen address={} nodes={} version={}",
        door.address(),
        rules.nodes.join(","),
        env!("CARGO_PKG_VERSION")
    );

    // One for what the node says and one for commits, each with a connection.
    let lanes = [&settings, &settings]
        .into_iter()
        .flatten()
        .map(|settings| Arc::new(NodeTarget::new(settings.clone())) as Arc<dyn Target>)
        .collect();
    let board = Arc::new(Board::new(rules));
    watch::start(&board, lanes).map_err(with("cannot start".to_owned()))?;
    door.answer(
        &board,
        Options {
            max_connections: config.max_connections,
            request_timeout: config.request_timeout,
            drain: config.drain,
        },
    )
}

/// Takes as many descriptors as the connections may need, as far as the hard
/// limit goes; says so where that is not far enough.
fn raise_descriptor_limit(max_connections: usize) {
    let wanted = 2 * u64::try_from(max_connections).unwrap_or(u64::MAX / 4) + DESCRIPTORS_BESIDE;
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit {
        current: Some(hard.min(wanted.max(now.current.unwrap_or(hard)))),
        maximum: now.maximum,
    };
    let kept = setrlimit(Resource::Nofile, raised).is_err();
    if kept || hard < wanted {
        log::warn!("limit resource=descriptors wanted={wanted} available={hard}");
    }
}
