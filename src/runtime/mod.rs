//! The process itself, and what every floor needs of its surroundings. Knows nothing of
//! PostgreSQL.

pub mod document;
pub mod exit;
pub mod limits;
pub mod lock_holder;
pub mod logging;
pub mod panic;
pub mod process;
pub mod read;
pub mod socket_activation;
pub mod sockets;
pub mod text;
pub mod threads;
pub mod time;
