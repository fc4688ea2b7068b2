//! Integration tests: the real binary over HTTP, against real PostgreSQL in
//! containers. `make test` sets up what they need.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

mod aws;
mod cli;
mod clients;
mod clock;
mod crowd;
mod days;
mod deploy;
mod environment;
mod faults;
mod fuzz;
mod guard;
mod host;
mod hostile;
mod libpq;
mod limits;
mod load;
mod login;
mod network;
mod pair;
mod probe_role;
mod probes;
mod proxy_role;
mod replication;
mod requests;
mod service;
mod session;
mod shutdown;
mod soak;
mod strangers;
mod tls;
mod truth;
mod versions;
mod walls;
