//! `pgpair serve`: puts the parts together and runs until told to stop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::config::Config;
use crate::http::access::Listener;
use crate::http::gate::{Gate, Options};
use crate::http::handler::Waiter;
use crate::probe::board::{Board, Rules};
use crate::probe::guard_status::GuardWatch;
use crate::probe::observer::NodeTarget;
use crate::probe::watch::{self, Target};
use crate::runtime::{exit, limits, logging, panic, socket_activation};

/// Runs the probe; returns the exit code.
pub fn serve(config: Config) -> u8 {
    panic::install(exit::FAILURE);
    let result = run(config);
    logging::flush();
    result.unwrap_or_else(|error| {
        eprintln!("pgpair: {error}");
        exit::FAILURE
    })
}

fn run(config: Config) -> io::Result<u8> {
    // The main thread alone takes them, once everything is there to obey.
    socket_activation::hold_signals();
    // Taken first: a port that is not to be had is told before anything else.
    let listeners = listeners(&config)?;
    logging::start(config.log).map_err(with("cannot log"))?;
    let room = limits::room_for(config.max_connections);
    let gate = Gate::open(listeners).map_err(with("cannot answer"))?;

    let (names, mut settings): (Vec<String>, Vec<_>) = config.nodes.into_iter().unzip();
    let certificates = settings.iter_mut().map(|node| node.tls.watch()).collect();
    let rules = Rules {
        nodes: names.into(),
        policy: config.ready,
        deadline: config.deadline,
        interval: config.interval,
        stuck_after: config.stuck_after,
    };
    let control = Arc::clone(gate.control());
    ctrlc::set_handler(move || control.stop()).map_err(io::Error::other)?;
    let addresses = gate.addresses()?;
    let details = addresses[1..].iter().map(|it| format!(" details={it}"));
    log::info!(
        "listen address={}{} nodes={} version={}",
        addresses[0],
        details.collect::<String>(),
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
        hosts: config.hosts,
        certificates,
    };
    socket_activation::release_signals();
    Ok(answer(gate, &board, options))
}

fn answer(gate: Gate, board: &Board<Waiter>, options: Options) -> u8 {
    match gate.answer(board, options) {
        Ok(()) => exit::OK,
        Err(error) => {
            log::error!("listen event=died cause={error:?}");
            exit::NO_HTTP
        }
    }
}

/// Takes the listening socket that somebody left us, or binds the address; and another
/// one for details, if they are told elsewhere.
fn listeners(config: &Config) -> io::Result<Vec<(TcpListener, Listener)>> {
    let first = match config.handover {
        Some(_) => socket_activation::take().map_err(with(
            "descriptor 3, which LISTEN_FDS announces, is no listening TCP socket",
        ))?,
        None => bind(config.listen, "--listen")?,
    };
    let own = [Some(config.listen), first.local_addr().ok()];
    match config.listen_details {
        None => Ok(vec![(first, Listener::Roles)]),
        Some(same) if own.contains(&Some(same)) => Ok(vec![(first, Listener::Details)]),
        Some(other) => {
            let second = bind(other, "--listen-details")?;
            Ok(vec![(first, Listener::Roles), (second, Listener::Details)])
        }
    }
}

fn bind(address: SocketAddr, flag: &str) -> io::Result<TcpListener> {
    TcpListener::bind(address).map_err(with(format!(
        "cannot listen on {address} (stop what uses it, or choose another with {flag})"
    )))
}

fn with(what: impl Into<String>) -> impl FnOnce(io::Error) -> io::Error {
    let what = what.into();
    move |error| io::Error::other(format!("{what}: {error}"))
}
