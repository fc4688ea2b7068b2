//! How it is said: from a request to an answer, and who may hold a connection.

pub mod bouncer;
pub mod clerk;
pub mod conversation;
pub mod counts;
pub mod exposition;
pub mod metrics;
pub mod orders;
pub mod page;
pub mod reply;
pub mod routes;
pub mod server;
pub mod status;
pub mod watchdog;
