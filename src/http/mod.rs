//! How it is said: from a request to an answer, and who may hold a connection.

pub mod bouncer;
pub mod conversation;
pub mod reply;
pub mod routes;
pub mod server;
