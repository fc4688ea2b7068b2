//! `pgpair serve`: puts the parts together and runs until told to stop.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use crate::config::Config;
use crate::handover;
use crate::http::server::{Door, End, Options};
use crate::probe::board::{Board, Rules};
use crate::probe::db::NodeTarget;
use crate::probe::guard::GuardWatch;
use crate::probe::watch::{self, Target};
use crate::{EXIT_FAILURE, EXIT_FRONT_DOOR, EXIT_OK, crash, limits, logging};

/// Runs the probe; returns the exit code.
pub fn serve(config: Config) -> u8 {
    let renewed = config.handover.is_some_and(|it| it.renewals > 0);
    let failure = if renewed {
        EXIT_FRONT_DOOR
    } else {
        EXIT_FAILURE
    };
    crash::install(failure);
    let result = run(config);
    logging::flush();
    result.unwrap_or_else(|error| {
        eprintln!("pgpair: {error}");
        failure
    })
}

fn run(config: Config) -> io::Result<u8> {
    // The main thread alone takes them, once everything is there to obey.
    handover::hold_signals();
    // Taken first: a port that is not to be had is told before anything else.
    let listener = listener(&config)?;
    let handover = config.handover.unwrap_or_default();
    logging::start(config.log).map_err(with("cannot log"))?;
    let max_connections = limits::room_for(config.max_connections);
    let door = Arc::new(Door::open(listener, handover).map_err(with("cannot answer"))?);

    let (names, settings): (Vec<String>, Vec<_>) = config.nodes.into_iter().unzip();
    let rules = Rules {
        nodes: names.into(),
        policy: config.ready,
        deadline: config.deadline,
        interval: config.interval,
        stuck_after: config.stuck_after,
    };
    let to_stop = Arc::clone(&door);
    ctrlc::set_handler(move || to_stop.stop()).map_err(io::Error::other)?;
    log::info!(
        "listen address={} nodes={} version={} renewals={}",
        door.address(),
        rules.nodes.join(","),
        env!("CARGO_PKG_VERSION"),
        handover.renewals,
    );

    // One for what the node says, one for commits and one for new logins, each with a
    // connection of its own.
    let makers = [NodeTarget::new, NodeTarget::new, NodeTarget::for_logins];
    let lanes = makers
        .into_iter()
        .flat_map(|make| settings.iter().cloned().map(make))
        .map(|target| Arc::new(target) as Arc<dyn Target>)
        .collect();
    let board = Arc::new(Board::new(rules));
    watch::start(&board, lanes).map_err(with("cannot start"))?;
    let guard = config.guard_report.map(GuardWatch::start).transpose();
    let guard = guard.map_err(with("cannot start"))?;
    let options = Options {
        max_connections,
        request_timeout: config.request_timeout,
        drain: config.drain,
        guard,
    };
    match door.answer(&board, options)? {
        End::Stopped => Ok(EXIT_OK),
        End::Died => Ok(door.renew()),
    }
}

/// Takes the listening socket that somebody left us, or binds the address.
fn listener(config: &Config) -> io::Result<TcpListener> {
    if config.handover.is_some() {
        return handover::take().map_err(with(
            "descriptor 3, which LISTEN_FDS announces, is no listening TCP socket",
        ));
    }
    let listen = config.listen;
    TcpListener::bind(listen).map_err(with(format!(
        "cannot listen on {listen} (stop what uses it, or choose another with --listen)"
    )))
}

fn with(what: impl Into<String>) -> impl FnOnce(io::Error) -> io::Error {
    let what = what.into();
    move |error| io::Error::other(format!("{what}: {error}"))
}
