//! How it is said: from a request to an answer, and who may hold a connection.

pub mod access;
pub mod client;
pub mod clients;
pub mod control;
pub mod counters;
pub mod exposition;
pub mod families;
pub mod gate;
pub mod handler;
pub mod head;
pub mod metrics;
pub mod page;
pub mod refusals;
pub mod response;
pub mod routes;
pub mod server;
pub mod status;
pub mod watchdog;
