//! What is true: how each node is asked, what it answered, and what follows.

pub mod board;
pub mod connect;
pub mod db;
pub mod guard;
pub mod lag;
pub mod node;
pub mod pair;
pub mod query;
pub mod span;
pub mod stream;
pub mod verdict;
pub mod watch;
