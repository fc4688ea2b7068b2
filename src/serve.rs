//! `pgpair serve`: puts the parts together and runs until told to stop.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use crate::config::Config;
use crate::handover;
use crate::http::gate::{Gate, Options};
use crate::http::handler::Waiter;
use crate::probe::board::{Board, Rules};
use crate::probe::db::NodeTarget;
use crate::probe::guard::GuardWatch;
use crate::probe::watch::{self, Target};
use crate::{EXIT_FAILURE, EXIT_FRONT_DOOR, EXIT_OK, crash, limits, logging};

/// Runs the probe; returns the exit code.
pub fn serve(config: Config) -> u8 {
    crash::install(EXIT_FAILURE);
    let result = run(config);
    logging::flush();
    result.unwrap_or_else(|error| {
        eprintln!("pgpair: {error}");
        EXIT_FAILURE
    })
}

fn run(config: Config) -> io::Result<u8> {
    // The main thread alone takes them, once everything is there to obey.
    handover::hold_signals();
    // Taken first: a port that is not to be had is told before anything else.
    let listener = listener(&config)?;
    logging::start(config.log).map_err(with("cannot log"))?;
    let room = limits::room_for(config.max_connections);
    let gate = Gate::open(listener).map_err(with("cannot answer"))?;

    let (names, settings): (Vec<String>, Vec<_>) = config.nodes.into_iter().unzip();
    let rules = Rules {
        nodes: names.into(),
        policy: config.ready,
        deadline: config.deadline,
        interval: config.interval,
        stuck_after: config.stuck_after,
    };
    let control = Arc::clone(gate.control());
    ctrlc::set_handler(move || control.stop()).map_err(io::Error::other)?;
    log::info!(
        "listen address={} nodes={} version={}",
        gate.address()?,
        rules.nodes.join(","),
        env!("CARGO_PKG_VERSION"),
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
        room,
        request_timeout: config.request_timeout,
        drain: config.drain,
        is_lent: config.handover.is_some(),
        guard,
    };
    handover::release_signals();
    Ok(answer(gate, &board, options))
}

fn answer(gate: Gate, board: &Board<Waiter>, options: Options) -> u8 {
    match gate.answer(board, options) {
        Ok(()) => EXIT_OK,
        Err(error) => {
            log::error!("listen event=died cause={error:?}");
            EXIT_FRONT_DOOR
        }
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
