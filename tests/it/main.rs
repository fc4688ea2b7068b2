//! Integration tests: the real binary over HTTP, against real PostgreSQL in
//! containers. `make test` sets up what they need.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

mod faults;
mod load;
mod login;
mod probes;
mod tls;
